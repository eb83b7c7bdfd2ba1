//! What is written as an answer and comes back as history gives an upstream the same request as the
//! same answer written as a chat completion.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{Asked, Kept, Response, tail, to_chat};
use crate::dialect::Whole;
use crate::dialect::openai::{Fold, Head, Stamp};
use crate::json::shape::Limits;
use crate::provider::{Flow, Options, Provider, anthropic, gemini, responses};
use crate::seal::Seals;
use crate::sse;

struct Nothing;

impl Kept for Nothing {
    fn conversation(&self, _: &str) -> Option<Vec<String>> {
        None
    }

    fn item(&self, _: &str) -> Option<String> {
        None
    }
}

fn seals() -> Arc<Seals> {
    Arc::new(Seals::new(Some("k"), std::iter::empty()))
}

/// The upstream's stream as an answer. `None`: it is none.
fn answer<W: Whole>(provider: &dyn Provider, stream: &[u8], mut into: W) -> Option<Value> {
    let mut decoder = provider.decoder(Arc::default());
    let mut reader = sse::Reader::new(1 << 20);
    let mut source = stream;
    let mut ended = false;
    loop {
        while let Some(event) = reader.next().ok()? {
            if !ended {
                ended = decoder.on_event(event, &mut into).ok()? == Flow::Done;
            }
        }
        if !matches!(reader.fill(&mut source), Ok(1..)) {
            break;
        }
    }
    if !ended {
        decoder.on_end(&mut into).ok()?;
    }
    serde_json::from_slice(&Box::new(into).into_body()).ok()
}

/// What an upstream is sent with this history.
fn sent(provider: &dyn Provider, model: &str, chat: &Value) -> Result<Value, String> {
    let text = chat.to_string();
    let head = Head::read(text.as_bytes()).map_err(|error| error.to_string())?;
    let request = head.parse().map_err(|error| error.to_string())?;
    let encoded = provider.encode(&request, model, &Options::default());
    let encoded = encoded.map_err(|error| error.to_string())?;
    Ok(serde_json::from_slice(&encoded.body).unwrap())
}

#[test]
fn history_is_the_same_by_either_dialect() {
    let stamp = Stamp {
        seed: 5,
        created: 1,
        model: "m".into(),
        include_usage: false,
        legacy_functions: false,
    };
    let vendors: [(&str, &dyn Provider, &str); 3] = [
        ("anthropic", &anthropic::Messages, "claude-opus-4-6"),
        ("gemini", &gemini::GenerateContent, "gemini-3.1-pro-preview"),
        ("responses", &responses::Responses, "gpt-5.5"),
    ];
    let mut tried = [0, 0];
    for (folder, provider, model) in vendors {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/golden")
            .join(folder);
        for file in fs::read_dir(&folder).unwrap() {
            let path = file.unwrap().path();
            if !path.to_string_lossy().ends_with(".events.sse") {
                continue;
            }
            let stream = fs::read(&path).unwrap();
            let Some(folded) = answer(provider, &stream, Fold::new(stamp.clone())) else {
                continue;
            };
            let asked = Arc::new(Asked::plain(&tail(5), 1, "m"));
            let written = answer(provider, &stream, Response::new(asked, seals(), 5)).unwrap();
            let message = &folded["choices"][0]["message"];
            let calls = message["tool_calls"]
                .as_array()
                .map_or(&[][..], Vec::as_slice);
            let has_more = ["annotations", "images", "audio", "refusal"]
                .iter()
                .any(|key| {
                    message[*key].is_array()
                        || message[*key].is_object()
                        || message[*key].is_string()
                });
            let is_custom = calls.iter().any(|call| call["type"] == "custom");
            if has_more || is_custom || message["content"].is_null() && calls.is_empty() {
                continue;
            }
            let mut messages = vec![json!({"role": "user", "content": "Go."}), message.clone()];
            let mut input = vec![json!({"role": "user", "content": "Go."})];
            input.extend(written["output"].as_array().unwrap().iter().cloned());
            for call in calls {
                let id = &call["id"];
                messages.push(json!({"role": "tool", "tool_call_id": id, "content": "Done."}));
                input.push(
                    json!({"type": "function_call_output", "call_id": id, "output": "Done."}),
                );
            }
            if calls.is_empty() {
                messages.push(json!({"role": "user", "content": "On."}));
                input.push(json!({"role": "user", "content": "On."}));
            }
            let effort = "high";
            let chat = json!({"model": model, "messages": messages, "reasoning_effort": effort});
            let request = json!({"model": model, "input": input, "reasoning": {"effort": effort}});
            let (limits, text) = (Limits::default(), request.to_string());
            let converted = to_chat(&text, &limits, &seals(), &Nothing, &tail(6), 1).unwrap();
            let converted: Value = serde_json::from_slice(&converted.body).unwrap();
            let [by_chat, by_items] = [&chat, &converted].map(|chat| sent(provider, model, chat));
            assert_eq!(by_items, by_chat, "{}\n{request}", path.display());
            tried[0] += 1;
            tried[1] += usize::from(text.contains("weir1."));
        }
    }
    assert!(tried[0] > 60 && tried[1] > 10, "{tried:?}");
}

/// Not every format has a place for a picture among what a model said.
#[test]
fn a_picture_that_a_model_made_is_in_nobodys_way() {
    let request = json!({"model": "m", "input": [
        {"role": "user", "content": "Draw."},
        {"type": "image_generation_call", "id": "ig_1", "result": "iVBORw0KGgo="},
        {"role": "user", "content": "Smaller."}
    ]});
    let (limits, text) = (Limits::default(), request.to_string());
    let converted = to_chat(&text, &limits, &seals(), &Nothing, &tail(6), 1).unwrap();
    let chat: Value = serde_json::from_slice(&converted.body).unwrap();
    let vendors: [(&dyn Provider, &str); 3] = [
        (&anthropic::Messages, "claude-opus-4-6"),
        (&gemini::GenerateContent, "gemini-3.1-flash-image"),
        (&responses::Responses, "gpt-5.5"),
    ];
    for (provider, model) in vendors {
        let sent = sent(provider, model, &chat).unwrap().to_string();
        assert!(
            sent.contains("Draw.") && sent.contains("Smaller."),
            "{sent}"
        );
        assert!(!sent.contains("\"content\":[]"), "{sent}");
    }
}
