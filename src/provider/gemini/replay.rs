//! Replays recorded traffic, where a folder of it is at hand: `WEIR_RECORDINGS` names it. Each
//! recording is read a second time here, plainly from its JSON, and both readings must agree.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use self::plain::{Said, chunks, flatten, read};
use super::decode::Decode;
use super::heard::Heard;
use crate::chat::FinishReason;
use crate::dialect::openai::{Fold, Stamp};
use crate::failure::{Class, Failure};
use crate::golden::each_event;
use crate::provider::{Decoder, Undo};
use crate::sse::Reader;

mod plain;

fn folder() -> Option<PathBuf> {
    let folder = PathBuf::from(std::env::var_os("WEIR_RECORDINGS")?).join("gemini");
    folder.is_dir().then_some(folder)
}

fn recordings() -> Vec<(String, Value)> {
    let Some(folder) = folder() else {
        println!("WEIR_RECORDINGS names no folder with recordings: skipped");
        return Vec::new();
    };
    let mut all: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
            (name, value)
        })
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

/// The same from the deltas.
fn of(heard: &Heard) -> Said {
    let candidate = heard.candidates.first();
    let content = candidate.map(|c| c.content.clone()).unwrap_or_default();
    let cut = |start: &u64, end: &u64| -> String {
        content
            .chars()
            .skip(*start as usize)
            .take((end - start) as usize)
            .collect()
    };
    Said {
        reasoning: candidate.map(|c| c.reasoning.clone()).unwrap_or_default(),
        calls: candidate
            .iter()
            .flat_map(|c| &c.calls)
            .map(|call| {
                let mut args = BTreeMap::new();
                flatten("$", &serde_json::from_str(&call.args).unwrap(), &mut args);
                (
                    call.id.clone(),
                    call.name.clone(),
                    call.signature.clone(),
                    args,
                )
            })
            .collect(),
        signature: candidate
            .and_then(|c| c.extra.clone())
            .map(|extra| {
                let extra: Value = serde_json::from_str(&extra).unwrap();
                let parts = extra["google"]["tool_parts"].as_array();
                let signature = extra["google"]["thought_signature"].as_str();
                assert!(parts.is_some_and(|parts| !parts.is_empty()) || signature.is_some());
                signature.unwrap_or_default().to_owned()
            })
            .unwrap_or_default(),
        images: candidate.map_or(0, |c| c.images.len()),
        refusal: candidate.map(|c| c.refusal.clone()).unwrap_or_default(),
        finish: candidate.and_then(|c| c.finish).map(|finish| match finish {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
            FinishReason::ToolCalls => "tool_calls",
            FinishReason::ContentFilter => "content_filter",
        }),
        usage: [
            heard.usage.prompt,
            heard.usage.completion,
            heard.usage.cached,
            heard.usage.reasoning,
        ],
        citations: candidate
            .iter()
            .flat_map(|c| &c.citations)
            .map(|(url, _, start, end)| (url.clone(), cut(start, end)))
            .collect(),
        content,
    }
}

/// Feeds a stream, cut into pieces of `size` bytes.
fn stream(text: &str, size: usize) -> (Heard, Result<(), Failure>) {
    let mut heard = Heard::default();
    let mut decoder = Decode::new(Arc::new(Undo::default()));
    let mut reader = Reader::new(32 << 20);
    let mut run = || {
        for mut piece in text.as_bytes().chunks(size) {
            while !piece.is_empty() {
                reader.fill(&mut piece).unwrap();
                while let Some(event) = reader.next().unwrap() {
                    decoder.on_event(event, &mut heard)?;
                }
            }
        }
        if let Some(event) = reader.finish() {
            decoder.on_event(event, &mut heard)?;
        }
        decoder.on_end(&mut heard)
    };
    let result = run();
    (heard, result)
}

fn answer(response: &Value) -> (Heard, Result<(), Failure>) {
    match response["body_text"].as_str() {
        Some(text) => {
            let whole = stream(text, usize::MAX);
            for size in [1, 7, 64] {
                assert!(
                    stream(text, size) == whole,
                    "cut into pieces of {size} bytes"
                );
            }
            whole
        }
        None => {
            let mut heard = Heard::default();
            let mut decoder = Decode::new(Arc::new(Undo::default()));
            let body = response["body"].to_string();
            let result = decoder.on_body(body.as_bytes(), &mut heard);
            (heard, result)
        }
    }
}

#[test]
fn every_recorded_answer_is_read_as_it_was_meant() {
    let mut count = 0;
    for (name, recording) in recordings() {
        let response = &recording["response"];
        if response["status"].as_u64() >= Some(400) {
            continue;
        }
        count += 1;
        let (heard, result) = answer(response);
        if name.contains("streaming-failure-invalid-json") {
            // One event with an unknown object: nothing that could be told to a caller.
            assert_eq!(
                result.unwrap_err().code.as_deref(),
                Some("empty_response"),
                "{name}"
            );
            continue;
        }
        assert_eq!(result, Ok(()), "{name}");
        assert_eq!(of(&heard), read(&chunks(response)), "{name}");
        assert!(heard.candidates.len() == 1, "{name}");
        check_completion(&name, response, &read(&chunks(response)));
        let id = chunks(response)
            .iter()
            .find_map(|c| c["responseId"].as_str().map(str::to_owned));
        assert_eq!(heard.id, id.unwrap_or_default(), "{name}");
    }
    println!("{count} recorded answers replayed");
}

/// The completion that a caller reads says the same.
fn check_completion(name: &str, response: &Value, said: &Said) {
    let stamp = Stamp {
        seed: 1,
        created: 1,
        model: "m".into(),
        include_usage: false,
        legacy_functions: false,
    };
    let mut fold = Fold::new(stamp);
    let mut decoder = Decode::new(Arc::new(Undo::default()));
    match response["body_text"].as_str() {
        Some(text) => {
            each_event(text.as_bytes(), usize::MAX, |event| {
                decoder.on_event(event, &mut fold)
            })
            .unwrap();
            decoder.on_end(&mut fold).unwrap();
        }
        None => {
            let body = response["body"].to_string();
            decoder.on_body(body.as_bytes(), &mut fold).unwrap();
        }
    }
    let completion: Value = serde_json::from_slice(&fold.into_json()).unwrap();
    let choice = &completion["choices"][0];
    let message = &choice["message"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    assert_eq!(text(&message["content"]), said.content, "{name}");
    assert_eq!(
        text(&message["reasoning_content"]),
        said.reasoning,
        "{name}"
    );
    assert_eq!(text(&message["refusal"]), said.refusal, "{name}");
    assert_eq!(choice["finish_reason"].as_str(), said.finish, "{name}");
    let none = Vec::new();
    let calls = message["tool_calls"].as_array().unwrap_or(&none);
    assert_eq!(calls.len(), said.calls.len(), "{name}");
    for (call, (id, wire, signature, args)) in calls.iter().zip(&said.calls) {
        if !id.is_empty() {
            assert_eq!(call["id"], **id, "{name}");
        }
        assert_eq!(call["function"]["name"], **wire, "{name}");
        let extra = &call["extra_content"]["google"]["thought_signature"];
        assert_eq!(text(extra), *signature, "{name}");
        let mut leaves = BTreeMap::new();
        let arguments = call["function"]["arguments"].as_str().unwrap();
        flatten("$", &serde_json::from_str(arguments).unwrap(), &mut leaves);
        assert_eq!(leaves, *args, "{name}");
    }
    let usage = &completion["usage"];
    let [prompt, written, cached, reasoning] = said.usage.map(Option::unwrap_or_default);
    assert_eq!(usage["prompt_tokens"], prompt, "{name}");
    assert_eq!(usage["completion_tokens"], written, "{name}");
    assert_eq!(usage["total_tokens"], prompt + written, "{name}");
    let detail = |value: &Value| value.as_u64().unwrap_or(0);
    assert_eq!(
        detail(&usage["prompt_tokens_details"]["cached_tokens"]),
        cached,
        "{name}"
    );
    let thoughts = &usage["completion_tokens_details"]["reasoning_tokens"];
    assert_eq!(detail(thoughts), reasoning, "{name}");
}

#[test]
fn every_recorded_error_is_recognised() {
    let mut count = 0;
    for (name, recording) in recordings() {
        let response = &recording["response"];
        let Some(status @ 400..) = response["status"].as_u64() else {
            continue;
        };
        count += 1;
        let body = response["body"].to_string();
        let failure = Failure::from_status(status as u16, body.as_bytes(), None);
        let expected = match status {
            400 if body.contains("API_KEY_INVALID") || body.contains("FAILED_PRECONDITION") => {
                (Class::KeyBad, 502)
            }
            400 => (Class::RequestFault, 400),
            403 if body.contains("/models/") => (Class::ModelMissing, 403),
            403 => (Class::KeyBad, 502),
            404 => (Class::ModelMissing, 404),
            429 => (Class::RateLimit, 429),
            500.. => (Class::Server, status as u16),
            _ => panic!("{name}: status {status} is new here"),
        };
        assert_eq!((failure.class, failure.status), expected, "{name}");
        assert_eq!(
            failure.message,
            response["body"]["error"]["message"].as_str().unwrap(),
            "{name}"
        );
        // The same object inside a stream means the same.
        let inside =
            Decode::new(Arc::new(Undo::default())).on_body(body.as_bytes(), &mut Heard::default());
        let inside = inside.unwrap_err();
        assert_eq!(
            (inside.class, inside.status),
            expected,
            "{name} inside a stream"
        );
    }
    println!("{count} recorded errors replayed");
}
