//! Replays recorded answers of the provider, when there are some: `WEIR_RECORDINGS` names a folder
//! whose sub-folder `anthropic` holds exchanges as JSON. What an answer says is read here a second
//! time, plainly from its JSON, and compared with what a caller would get.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::Messages;
use crate::dialect::openai::{Fold, Head, Stamp};
use crate::failure::{Class, Failure};
use crate::golden::each_event;
use crate::provider::{Flow, Options, Provider, Undo};

#[test]
fn recorded_answers_say_what_they_said() {
    let Some(folder) = std::env::var_os("WEIR_RECORDINGS") else {
        eprintln!("skipped: WEIR_RECORDINGS is not set");
        return;
    };
    let folder = std::path::Path::new(&folder).join("anthropic");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        eprintln!("skipped: there is no {}", folder.display());
        return;
    };
    let mut complaints = Vec::new();
    let mut count = 0;
    for entry in entries {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        count += 1;
        let recording: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if let Err(complaint) = check(&recording["response"]) {
            complaints.push(format!("{name}: {complaint}"));
        }
    }
    eprintln!("{count} recordings, {} complaints", complaints.len());
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

fn check(response: &Value) -> Result<(), String> {
    let status = response["status"].as_u64().unwrap();
    let text = response["body_text"].as_str();
    let body = match text {
        Some(text) => text.as_bytes().to_vec(),
        None => serde_json::to_vec(&response["body"]).unwrap(),
    };
    if status >= 400 {
        let failure = Failure::from_status(status as u16, &body, None);
        return same(
            "class and status",
            (failure.class, failure.status),
            judged(status),
        );
    }
    let stamp = Stamp {
        seed: 1,
        created: 1,
        model: "m".into(),
        include_usage: true,
        legacy_functions: false,
    };
    let is_stream = text.is_some_and(|text| text.contains("data:"));
    let mut seen = None;
    for step in if is_stream {
        &[usize::MAX, 1][..]
    } else {
        &[0]
    } {
        let mut decoder = Messages.decoder(Arc::new(Undo::default()));
        let mut fold = Fold::new(stamp.clone());
        let result = if is_stream {
            each_event(&body, *step, |event| decoder.on_event(event, &mut fold)).and_then(|flow| {
                match flow {
                    Flow::Done => Ok(()),
                    Flow::More => decoder.on_end(&mut fold),
                }
            })
        } else {
            decoder.on_body(&body, &mut fold)
        };
        let result = result.map(|()| fold.into_json());
        if seen
            .replace(result.clone())
            .is_some_and(|first| first != result)
        {
            return Err("cut into bytes it reads differently".into());
        }
    }
    let result = seen.unwrap();
    let message = match text {
        Some(text) if is_stream => match message_of_stream(text) {
            Ok(message) => message,
            Err(kind) => {
                let failure = result.err().ok_or("the error in the stream was not seen")?;
                let expected = match kind.as_str() {
                    "overloaded_error" => (Class::Server, 503),
                    other => return Err(format!("no expectation for {other}")),
                };
                return same(
                    "class and status",
                    (failure.class, failure.status),
                    expected,
                );
            }
        },
        _ => serde_json::from_slice(&body).unwrap(),
    };
    let completion: Value = match result {
        Ok(json) => serde_json::from_slice(&json).map_err(|error| error.to_string())?,
        Err(failure) => return Err(format!("{failure:?}")),
    };
    compare(&completion, &message)
}

fn judged(status: u64) -> (Class, u16) {
    match status {
        400 => (Class::RequestFault, 400),
        401 => (Class::KeyBad, 502),
        // "Your API key does not have permission to use the specified resource."
        403 => (Class::OtherKey, 403),
        404 => (Class::ModelMissing, 404),
        429 => (Class::RateLimit, 429),
        500 => (Class::Server, 500),
        529 => (Class::Server, 503),
        other => panic!("no expectation for {other}"),
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, seen: T, expected: T) -> Result<(), String> {
    match seen == expected {
        true => Ok(()),
        false => Err(format!("{what} is {seen:?}, expected {expected:?}")),
    }
}

/// Puts the first message of a stream together, or gives the type of the error in it.
fn message_of_stream(text: &str) -> Result<Value, String> {
    let mut message = json!({});
    let mut blocks: Vec<(u64, Value)> = Vec::new();
    for line in text.lines() {
        let Some(data) = line.strip_prefix("data:") else {
            continue;
        };
        let event: Value = serde_json::from_str(data).unwrap();
        let block = blocks
            .iter_mut()
            .rev()
            .find(|(index, _)| Some(*index) == event["index"].as_u64())
            .map(|(_, block)| block);
        match event["type"].as_str().unwrap() {
            "message_start" => message = event["message"].clone(),
            "content_block_start" => {
                let index = event["index"].as_u64().unwrap();
                blocks.push((index, event["content_block"].clone()));
            }
            "content_block_delta" => {
                let delta = &event["delta"];
                let block = block.unwrap();
                let mut append = |key: &str, piece: &Value| {
                    let whole = block[key].as_str().unwrap_or_default();
                    block[key] = json!(format!("{whole}{}", piece.as_str().unwrap()));
                };
                match delta["type"].as_str().unwrap() {
                    "text_delta" => append("text", &delta["text"]),
                    "thinking_delta" => append("thinking", &delta["thinking"]),
                    "signature_delta" => append("signature", &delta["signature"]),
                    "input_json_delta" => append("arguments", &delta["partial_json"]),
                    _ => {}
                }
            }
            "message_delta" => {
                for (key, value) in event["delta"].as_object().unwrap() {
                    message[key] = value.clone();
                }
                for (key, value) in event["usage"].as_object().into_iter().flatten() {
                    if !value.is_null() {
                        message["usage"][key] = value.clone();
                    }
                }
            }
            "message_stop" => break,
            "error" => return Err(event["error"]["type"].as_str().unwrap().to_owned()),
            _ => {}
        }
    }
    message["content"] = blocks.into_iter().map(|(_, block)| block).collect();
    Ok(message)
}

fn compare(completion: &Value, message: &Value) -> Result<(), String> {
    let choice = &completion["choices"][0];
    let told = &choice["message"];
    let blocks = message["content"].as_array().unwrap();
    let of = |kind: &'static str| blocks.iter().filter(move |block| block["type"] == kind);

    let content: String = of("text")
        .map(|block| block["text"].as_str().unwrap())
        .collect();
    let content = if content.is_empty() {
        json!(null)
    } else {
        json!(content)
    };
    same("content", &told["content"], &content)?;

    let thoughts: Vec<&str> = of("thinking")
        .map(|block| block["thinking"].as_str().unwrap())
        .filter(|text| !text.is_empty())
        .collect();
    let reasoning = match thoughts.is_empty() {
        true => json!(null),
        false => json!(thoughts.join("\n\n")),
    };
    same("reasoning", &told["reasoning_content"], &reasoning)?;

    let carried: Vec<Value> = blocks
        .iter()
        .filter(|block| {
            let kind = block["type"].as_str().unwrap();
            kind == "thinking" || kind == "redacted_thinking"
        })
        .enumerate()
        .map(|(index, block)| {
            let mut carried = Map::new();
            carried.insert("index".into(), json!(index));
            for key in ["type", "thinking", "signature", "data"] {
                if let Some(value) = block.get(key) {
                    carried.insert(key.into(), value.clone());
                }
            }
            Value::Object(carried)
        })
        .collect();
    let seen = told["extra_content"]["anthropic"]["thinking_blocks"].as_array();
    same(
        "thinking blocks",
        seen.cloned().unwrap_or_default(),
        carried,
    )?;

    let calls: Vec<Value> = of("tool_use")
        .map(|block| {
            let arguments = match block["arguments"].as_str() {
                Some(text) if !text.is_empty() => text.to_owned(),
                _ => block["input"].to_string(),
            };
            json!({"id": block["id"], "type": "function",
                   "function": {"name": block["name"], "arguments": arguments}})
        })
        .collect();
    same(
        "calls",
        told["tool_calls"].as_array().cloned().unwrap_or_default(),
        calls,
    )?;

    let finish = match message["stop_reason"].as_str() {
        Some("end_turn" | "stop_sequence") | None => "stop",
        Some("max_tokens") => "length",
        Some("tool_use") => "tool_calls",
        Some("refusal") => "content_filter",
        Some(other) => return Err(format!("no expectation for {other}")),
    };
    same("finish reason", &choice["finish_reason"], &json!(finish))?;

    let usage = &message["usage"];
    let count = |key: &str| usage[key].as_u64().unwrap_or(0);
    let prompt = count("input_tokens")
        + count("cache_read_input_tokens")
        + count("cache_creation_input_tokens");
    let told = &completion["usage"];
    same("prompt tokens", &told["prompt_tokens"], &json!(prompt))?;
    same(
        "completion tokens",
        &told["completion_tokens"],
        &json!(count("output_tokens")),
    )?;
    same(
        "total tokens",
        &told["total_tokens"],
        &json!(prompt + count("output_tokens")),
    )?;
    let cached = &told["prompt_tokens_details"]["cached_tokens"];
    same(
        "cached tokens",
        cached.as_u64().unwrap_or(0),
        count("cache_read_input_tokens"),
    )?;
    let thought = &told["completion_tokens_details"]["reasoning_tokens"];
    same(
        "reasoning tokens",
        thought.as_u64(),
        usage["output_tokens_details"]["thinking_tokens"].as_u64(),
    )?;
    same("id", &completion["id"], &message["id"])?;
    comes_back(completion, message)
}

/// The answer, put into the history of a next request, is what the model said, block by block:
/// signed thinking is refused otherwise.
fn comes_back(completion: &Value, message: &Value) -> Result<(), String> {
    let mut said = Vec::new();
    for block in message["content"].as_array().unwrap() {
        let mut block = block.clone();
        match block["type"].as_str().unwrap() {
            "text" if block["text"].as_str().unwrap().trim().is_empty() => continue,
            "text" => said.push(json!({"type": "text", "text": block["text"]})),
            "tool_use" => {
                let arguments = block["arguments"].as_str().filter(|text| !text.is_empty());
                if let Some(arguments) = arguments {
                    block["input"] = serde_json::from_str(arguments).unwrap();
                }
                said.push(
                    json!({"type": "tool_use", "id": block["id"], "name": block["name"],
                                 "input": block["input"]}),
                );
            }
            "thinking" | "redacted_thinking" => said.push(block),
            _ => {}
        }
    }
    let only_thinking = said.iter().all(|block| {
        let kind = block["type"].as_str().unwrap();
        kind == "thinking" || kind == "redacted_thinking"
    });
    if only_thinking {
        return Ok(());
    }
    // Without thinking there is no layout, and text in several blocks comes back as one.
    let is_text = |block: &Value| block["type"] == "text";
    if completion["choices"][0]["message"]
        .get("extra_content")
        .is_none()
    {
        let blocks = message["content"].as_array().unwrap().iter();
        let text: String = blocks
            .filter(|block| is_text(block))
            .map(|block| block["text"].as_str().unwrap())
            .collect();
        said.retain(|block| !is_text(block));
        if !text.is_empty() {
            said.insert(0, json!({"type": "text", "text": text}));
        }
    }
    let mut history = vec![json!({"role": "user", "content": "x"})];
    history.push(completion["choices"][0]["message"].clone());
    let request = json!({"model": "claude-opus-5-5", "messages": history});
    let text = serde_json::to_vec(&request).unwrap();
    let head = Head::read(&text).map_err(|error| error.to_string())?;
    let parsed = head.parse().map_err(|error| error.to_string())?;
    let encoded = Messages
        .encode(&parsed, "claude-opus-5-5", &Options::default())
        .map_err(|error| error.to_string())?;
    let sent: Value = serde_json::from_slice(&encoded.body).unwrap();
    same(
        "in the next request it",
        &sent["messages"][1]["content"],
        &json!(said),
    )
}

#[test]
fn interleaved_thinking_comes_back_as_it_was() {
    let events = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/anthropic/");
    for case in [
        "thinking_interleaved_layout",
        "v12_tool_index",
        "thinking_redacted",
    ] {
        let text = std::fs::read_to_string(format!("{events}{case}.events.sse")).unwrap();
        check(&json!({"status": 200, "body_text": text})).unwrap();
    }
}
