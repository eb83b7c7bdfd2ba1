//! Replays recorded traffic, where a folder of it is at hand: `WEIR_RECORDINGS` names it. Each
//! recording is read a second time here, plainly from its JSON, and both readings must agree.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use super::decode::Decode;
use super::tests::Heard;
use crate::chat::FinishReason;
use crate::dialect::openai::{Fold, Stamp};
use crate::failure::{Class, Failure};
use crate::golden::each_event;
use crate::provider::{Decoder, Undo};
use crate::sse::Reader;

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

/// The answer objects of a recording, in order.
fn chunks(response: &Value) -> Vec<Value> {
    match (&response["body"], response["body_text"].as_str()) {
        (Value::Array(items), _) => items.clone(),
        (_, Some(text)) => text
            .replace("\r\n", "\n")
            .split("\n\n")
            .filter_map(|block| block.trim().strip_prefix("data:"))
            .map(|data| serde_json::from_str(data).unwrap())
            .collect(),
        (body, None) => vec![body.clone()],
    }
}

/// What a recording says, by a plain reading of section 8 of the translation.
#[derive(Debug, PartialEq, Default)]
struct Said {
    content: String,
    reasoning: String,
    /// Id, name, signature, and the arguments by path.
    calls: Vec<(String, String, String, BTreeMap<String, String>)>,
    signature: String,
    images: usize,
    refusal: String,
    finish: Option<&'static str>,
    /// Prompt, completion, cached, reasoning.
    usage: [Option<u64>; 4],
    citations: Vec<(String, String)>,
}

fn read(chunks: &[Value]) -> Said {
    let mut said = Said::default();
    let mut usage: BTreeMap<&str, u64> = BTreeMap::new();
    let mut reason = String::new();
    let mut supports = Vec::new();
    for chunk in chunks {
        for key in [
            "promptTokenCount",
            "toolUsePromptTokenCount",
            "candidatesTokenCount",
            "thoughtsTokenCount",
            "cachedContentTokenCount",
            "totalTokenCount",
        ] {
            if let Some(count) = chunk["usageMetadata"][key].as_u64() {
                usage.insert(key, count);
            }
        }
        if let Some(blocked) = chunk["promptFeedback"]["blockReason"].as_str() {
            said.refusal = format!("prompt blocked by the model provider: {blocked}");
            said.finish = Some("content_filter");
        }
        let candidate = &chunk["candidates"][0];
        for part in candidate["content"]["parts"]
            .as_array()
            .unwrap_or(&Vec::new())
        {
            let signature = part["thoughtSignature"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            if let Some(text) = part["text"].as_str() {
                if part["thought"] == true {
                    said.reasoning += text;
                } else {
                    said.content += text;
                    if !signature.is_empty() {
                        said.signature = signature.clone();
                    }
                }
            }
            if part["inlineData"]["mimeType"]
                .as_str()
                .is_some_and(|m| m.starts_with("image/"))
            {
                said.images += 1;
            }
            if let Value::Object(call) = &part["functionCall"] {
                if let Some(name) = call.get("name").and_then(Value::as_str) {
                    let id = call.get("id").and_then(Value::as_str).unwrap_or_default();
                    said.calls
                        .push((id.into(), name.into(), signature, BTreeMap::new()));
                }
                let args = &mut said.calls.last_mut().unwrap().3;
                if let Some(whole) = call.get("args") {
                    flatten("$", whole, args);
                }
                for piece in call
                    .get("partialArgs")
                    .and_then(Value::as_array)
                    .unwrap_or(&Vec::new())
                {
                    let value = match (piece["stringValue"].as_str(), &piece["numberValue"]) {
                        (Some(text), _) => text.to_owned(),
                        (None, number) => number.to_string(),
                    };
                    *args
                        .entry(piece["jsonPath"].as_str().unwrap().into())
                        .or_default() += &value;
                }
            }
        }
        if !candidate["finishReason"].is_null() {
            reason = candidate["finishReason"]
                .as_str()
                .unwrap_or("STOP")
                .to_owned();
        }
        let grounding = &candidate["groundingMetadata"];
        for support in grounding["groundingSupports"]
            .as_array()
            .unwrap_or(&Vec::new())
        {
            for index in support["groundingChunkIndices"]
                .as_array()
                .unwrap_or(&Vec::new())
            {
                let chunk = &grounding["groundingChunks"][index.as_u64().unwrap() as usize];
                if let Some(uri) = chunk["web"]["uri"].as_str() {
                    let text = support["segment"]["text"].as_str().unwrap();
                    supports.push((uri.to_owned(), text.to_owned()));
                }
            }
        }
    }
    said.citations = supports;
    match reason.as_str() {
        "" => {}
        "STOP" if said.calls.is_empty() => said.finish = Some("stop"),
        "STOP" => said.finish = Some("tool_calls"),
        "MAX_TOKENS" => said.finish = Some("length"),
        other => {
            said.finish = Some("content_filter");
            said.refusal = format!("blocked by the model provider: {other}");
        }
    }
    let get = |key| usage.get(key).copied();
    let prompt = get("promptTokenCount").map(|p| p + get("toolUsePromptTokenCount").unwrap_or(0));
    let completion = match (get("totalTokenCount"), prompt) {
        (Some(total), Some(prompt)) if total >= prompt => Some(total - prompt),
        _ => get("candidatesTokenCount")
            .map(|c| c + get("thoughtsTokenCount").unwrap_or(0))
            .or(get("thoughtsTokenCount")),
    };
    said.usage = [
        prompt,
        completion,
        get("cachedContentTokenCount"),
        get("thoughtsTokenCount"),
    ];
    said
}

/// A JSON value as its leaves by path; strings bare.
fn flatten(path: &str, value: &Value, leaves: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                flatten(&format!("{path}.{key}"), value, leaves);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                flatten(&format!("{path}[{index}]"), value, leaves);
            }
        }
        Value::String(text) => drop(leaves.insert(path.into(), text.clone())),
        other => drop(leaves.insert(path.into(), other.to_string())),
    }
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
                extra["google"]["thought_signature"]
                    .as_str()
                    .unwrap()
                    .to_owned()
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
