//! Replays recorded traffic, where a folder of it is at hand: `WEIR_RECORDINGS` names it. Each
//! recording is read a second time here, plainly from its JSON, and both readings must agree.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};

use super::decode::Decode;
use crate::dialect::openai::{Fold, Stamp};
use crate::failure::{Class, Failure};
use crate::golden::each_event;
use crate::provider::{Decoder, Flow, Undo};

/// The authors of these left pieces out of the middle of the text, but not out of the finished
/// items. A caller
/// of the stream has seen the pieces, so those count.
const SHORTENED: &[&str] = &["073-openai-shell-container-1"];

fn recordings() -> Vec<(String, Value)> {
    let folder = std::env::var_os("WEIR_RECORDINGS")
        .map(|folder| PathBuf::from(folder).join("openai-responses"))
        .filter(|folder| folder.is_dir());
    let Some(folder) = folder else {
        println!("WEIR_RECORDINGS names no folder with recordings: skipped");
        return Vec::new();
    };
    let mut all: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "json"))
        .map(|path| {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            let json = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
            (name, json)
        })
        .collect();
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    all
}

/// The completion that a caller reads.
fn replayed(response: &Value, step: usize) -> Result<Value, Failure> {
    let mut fold = Fold::new(Stamp {
        seed: 1,
        created: 1,
        model: "m".into(),
        include_usage: false,
        legacy_functions: false,
    });
    let mut decoder = Decode::new(Arc::new(Undo::default()));
    match response["body_text"].as_str() {
        Some(text) => {
            let flow = each_event(text.as_bytes(), step, |event| {
                decoder.on_event(event, &mut fold)
            })?;
            if flow == Flow::More {
                decoder.on_end(&mut fold)?;
            }
        }
        None => decoder.on_body(response["body"].to_string().as_bytes(), &mut fold)?,
    }
    Ok(serde_json::from_slice(&fold.into_json()).unwrap())
}

fn events(text: &str) -> Vec<Value> {
    text.lines()
        .filter_map(|line| line.strip_prefix("data:"))
        .filter(|data| data.trim() != "[DONE]")
        .map(|data| serde_json::from_str(data).unwrap())
        .collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn joined<'v>(parts: impl Iterator<Item = &'v Value>, key: &str) -> String {
    parts.filter_map(|part| part[key].as_str()).collect()
}

/// The finished response of a recording, its items as they were at their end. What a stream says
/// only in pieces is put together.
fn finished(response: &Value) -> Value {
    let Some(text) = response["body_text"].as_str() else {
        return response["body"].clone();
    };
    let events = events(text);
    let last = events
        .iter()
        .rfind(|event| event["response"]["status"].is_string())
        .unwrap();
    let mut whole = last["response"].clone();
    let mut items: Vec<Value> = Vec::new();
    for event in &events {
        let (kind, index) = (event["type"].as_str().unwrap(), &event["output_index"]);
        let open = items.iter_mut().find(|item| item["index"] == *index);
        match (kind, open) {
            ("response.output_item.added", None) => {
                items.push(json!({"index": index, "item": event["item"], "args": ""}));
            }
            ("response.output_item.done", Some(item)) => item["item"] = event["item"].clone(),
            ("response.output_item.done", None) => {
                items.push(json!({"index": index, "item": event["item"], "args": ""}));
            }
            ("response.function_call_arguments.delta", Some(item)) => {
                let so_far = item["args"].as_str().unwrap().to_owned();
                item["args"] = json!(so_far + event["delta"].as_str().unwrap());
            }
            _ => {}
        }
    }
    for item in &mut items {
        let args = item["args"].take();
        let item = &mut item["item"];
        if item["arguments"] == "" && args != "" {
            item["arguments"] = args;
        }
    }
    let items: Vec<Value> = items.iter_mut().map(|item| item["item"].take()).collect();
    whole["output"] = json!(items);
    whole
}

/// Content, reasoning, refusal, calls, finish reason, usage, citations: by a plain reading.
fn read(response: &Value) -> Value {
    let whole = finished(response);
    let (mut content, mut refusal) = (String::new(), String::new());
    let mut thoughts: Vec<&str> = Vec::new();
    let (mut calls, mut citations, mut carried) = (Vec::new(), Vec::new(), Vec::new());
    for item in list(&whole["output"]) {
        match item["type"].as_str().unwrap() {
            "message" => {
                for part in list(&item["content"]) {
                    for note in list(&part["annotations"]) {
                        if note["type"] == "url_citation" {
                            citations.push(note["url"].clone());
                        }
                    }
                }
                let text = joined(list(&item["content"]).iter(), "text");
                // A blank line stands between the texts of two messages.
                if !content.is_empty() && !text.is_empty() {
                    content += "\n\n";
                }
                content += &text;
                refusal += &joined(list(&item["content"]).iter(), "refusal");
            }
            "reasoning" => {
                let summary = list(&item["summary"]);
                let parts = match summary.is_empty() {
                    true => list(&item["content"]),
                    false => summary,
                };
                thoughts.extend(parts.iter().filter_map(|part| part["text"].as_str()));
                carried.push(item.clone());
            }
            "function_call" => {
                let args = match item["arguments"].as_str().unwrap() {
                    "" => "{}",
                    args => args,
                };
                calls.push(json!([item["call_id"], item["name"], args]));
            }
            _ => {}
        }
    }
    let finish = match whole["status"].as_str().unwrap() {
        "completed" if calls.is_empty() => "stop",
        "completed" => "tool_calls",
        _ => "length",
    };
    let usage = &whole["usage"];
    json!({
        "content": content,
        "reasoning": thoughts.join("\n\n"),
        "refusal": refusal,
        "calls": calls,
        "finish": finish,
        "usage": [
            usage["input_tokens"].as_u64().unwrap_or(0),
            usage["output_tokens"].as_u64().unwrap_or(0),
            usage["input_tokens_details"]["cached_tokens"].as_u64().unwrap_or(0),
            usage["output_tokens_details"]["reasoning_tokens"].as_u64().unwrap_or(0),
        ],
        "citations": citations,
        "carried": carried,
        "id": whole["id"],
    })
}

/// The same from a completion.
fn told(completion: &Value) -> Value {
    let choice = &completion["choices"][0];
    let message = &choice["message"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let call = |call: &Value| {
        let function = &call["function"];
        json!([call["id"], function["name"], function["arguments"]])
    };
    let note = |note: &Value| note["url_citation"]["url"].clone();
    let usage = &completion["usage"];
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    json!({
        "content": text(&message["content"]),
        "reasoning": text(&message["reasoning_content"]),
        "refusal": text(&message["refusal"]),
        "calls": list(&message["tool_calls"]).iter().map(call).collect::<Vec<_>>(),
        "finish": choice["finish_reason"],
        "usage": [
            number(&usage["prompt_tokens"]),
            number(&usage["completion_tokens"]),
            number(&usage["prompt_tokens_details"]["cached_tokens"]),
            number(&usage["completion_tokens_details"]["reasoning_tokens"]),
        ],
        "citations": list(&message["annotations"]).iter().map(note).collect::<Vec<_>>(),
        "carried": list(&message["extra_content"]["openai"]["reasoning_items"]),
        "id": completion["id"],
    })
}

#[test]
fn every_recorded_answer_is_read_as_it_was_meant() {
    let (mut count, mut without_end) = (0, 0);
    for (name, recording) in recordings() {
        let response = &recording["response"];
        if response["status"].as_u64() >= Some(400) {
            continue;
        }
        count += 1;
        let result = replayed(response, usize::MAX);
        if response["body"]["status"] == "queued" {
            // Asked to be worked on in the background, which weir does not do: no answer yet.
            let failure = result.unwrap_err();
            assert_eq!(failure.code.as_deref(), Some("queued"), "{name}");
            without_end += 1;
            continue;
        }
        if let Some(text) = response["body_text"].as_str() {
            let events = events(text);
            let error = events.iter().find(|event| event["type"] == "error");
            if let Some(error) = error {
                let failure = result.unwrap_err();
                assert_eq!(failure.class, Class::KeyBad, "{name}");
                assert_eq!(failure.message, error["error"]["message"], "{name}");
                continue;
            }
        }
        let completion = result.unwrap_or_else(|failure| panic!("{name}: {failure:?}"));
        let mut expected = read(response);
        if SHORTENED.contains(&&*name) {
            let events = events(response["body_text"].as_str().unwrap());
            let pieces = events.iter().filter(|event| {
                let kind = event["type"].as_str().unwrap();
                kind == "response.output_text.delta"
            });
            expected["content"] = json!(joined(pieces, "delta"));
        }
        assert_eq!(told(&completion), expected, "{name}");
        for step in [1, 7, 64] {
            assert_eq!(replayed(response, step).unwrap(), completion, "{name}");
        }
    }
    println!("{count} recorded answers replayed, {without_end} of them unfinished");
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
            400 if body.contains("model_not_found") => (Class::ModelMissing, 404),
            400 if body.contains("Incorrect API key") => (Class::KeyBad, 502),
            400 => (Class::RequestFault, 400),
            401 => (Class::KeyBad, 502),
            503 => (Class::Server, 503),
            _ => panic!("{name}: status {status} is new here"),
        };
        assert_eq!((failure.class, failure.status), expected, "{name}");
        let error = &response["body"]["error"];
        let message = error["message"].as_str().or(error.as_str()).unwrap();
        assert_eq!(failure.message, message, "{name}");
    }
    println!("{count} recorded errors replayed");
}
