//! What a recorded answer means, read straight from the vendor's own shape.
//!
//! Written from the vendors' references and apart from weir's decoders, so that the two can
//! disagree.

use serde_json::{Value, json};

use crate::completion::{Call, Completion};

/// What the caller must be told.
#[derive(Debug)]
pub struct Reading {
    /// Of the answer, or of the error in its place.
    pub status: u16,
    pub completion: Completion,
    /// A stream that must end with an error event.
    pub broken: bool,
    /// Words of an error that must arrive.
    pub words: Option<String>,
}

/// Reads the response of a recording.
pub fn read(provider: &str, recording: &Value) -> Reading {
    let response = &recording["response"];
    let status = u16::try_from(response["status"].as_u64().unwrap()).unwrap();
    if status >= 400 {
        return failed(status, &response["body"]);
    }
    let events = match (response["body_text"].as_str(), &response["body"]) {
        (Some(text), _) => events_of(text),
        // Gemini's stream where no events are asked for.
        (None, Value::Array(events)) => events.clone(),
        (None, body) => vec![body.clone()],
    };
    let streamed = response["body_text"].is_string();
    let mut reading = match provider {
        "anthropic" if streamed => anthropic(&anthropic_message(&events)),
        "anthropic" => anthropic(&events[0]),
        "gemini" => gemini(&events),
        "openai-responses" => return responses(&events, streamed),
        _ if streamed => openai_stream(&events),
        _ => Reading::of(Completion::of_body(&events[0])),
    };
    let error = events
        .iter()
        .find_map(|event| event["error"]["message"].as_str());
    if let Some(words) = error {
        reading.broken = true;
        reading.words = Some(words.to_string());
    }
    reading
}

pub fn has_tag(recording: &Value, tag: &str) -> bool {
    let tags = recording["tags"].as_array().unwrap();
    tags.iter().any(|known| known == tag)
}

impl Reading {
    fn of(completion: Completion) -> Reading {
        Reading {
            status: 200,
            completion,
            broken: false,
            words: None,
        }
    }
}

/// The data of each event, as JSON.
fn events_of(text: &str) -> Vec<Value> {
    text.lines()
        .filter_map(|line| line.strip_prefix("data:"))
        .map(str::trim)
        .filter(|data| *data != "[DONE]")
        .map(|data| serde_json::from_str(data).unwrap())
        .collect()
}

/// The table of the failures, for the bodies that were recorded.
fn failed(status: u16, body: &Value) -> Reading {
    let error = match &body["error"] {
        Value::Null => body,
        error => error,
    };
    let words = error["message"].as_str().or(error.as_str());
    let text = body.to_string();
    let key = text.contains("API_KEY_INVALID") || text.contains("FAILED_PRECONDITION");
    let status = match status {
        // Our own key is our own trouble.
        401 | 402 => 502,
        403 if text.contains("unregistered callers") => 502,
        400 if key || text.contains("Incorrect API key") => 502,
        400 if text.contains("model_not_found") || text.contains("invalid_model") => 404,
        429 if text.contains("insufficient_quota") => 502,
        529 => 503,
        other => other,
    };
    Reading {
        status,
        words: words.map(str::to_string),
        ..Reading::of(Completion::default())
    }
}

/// Usage with those of the details that the vendor told.
fn usage<const N: usize>(
    prompt: u64,
    completion: u64,
    details: [(&str, &str, &Value); N],
) -> Option<Value> {
    let mut usage = json!({
        "prompt_tokens": prompt, "completion_tokens": completion,
        "total_tokens": prompt + completion
    });
    for (object, name, count) in details {
        if count.is_u64() {
            usage[object][name] = count.clone();
        }
    }
    Some(usage)
}

const PROMPT: &str = "prompt_tokens_details";
const COMPLETION: &str = "completion_tokens_details";

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// A message as it would have come whole.
fn anthropic_message(events: &[Value]) -> Value {
    let mut message = json!({"content": [], "usage": {}});
    let mut blocks: Vec<(Value, String)> = Vec::new();
    for event in events {
        let index = event["index"].as_u64().unwrap_or(0) as usize;
        match text(&event["type"]) {
            "message_start" => message = event["message"].clone(),
            "content_block_start" => {
                assert_eq!(index, blocks.len());
                blocks.push((event["content_block"].clone(), String::new()));
            }
            "content_block_delta" => {
                let delta = &event["delta"];
                let (block, input) = &mut blocks[index];
                for field in ["text", "thinking"] {
                    if let Some(more) = delta[field].as_str() {
                        block[field] = json!(text(&block[field]).to_string() + more);
                    }
                }
                input.push_str(text(&delta["partial_json"]));
            }
            "message_delta" => {
                message["stop_reason"] = event["delta"]["stop_reason"].clone();
                message["stop_details"] = event["delta"]["stop_details"].clone();
                for (name, value) in event["usage"].as_object().into_iter().flatten() {
                    if !value.is_null() {
                        message["usage"][name] = value.clone();
                    }
                }
            }
            // Some recorders put the streams of a whole loop into one file; each is one answer.
            "message_stop" => break,
            _ => {}
        }
    }
    message["content"] = blocks
        .into_iter()
        .map(|(mut block, input)| {
            if !input.is_empty() {
                block["input"] = serde_json::from_str(&input).unwrap();
            }
            block
        })
        .collect();
    message
}

fn anthropic(message: &Value) -> Reading {
    let mut completion = Completion::default();
    for block in items(&message["content"]) {
        match text(&block["type"]) {
            "text" => completion.content.push_str(text(&block["text"])),
            "thinking" => completion.reasoning.push_str(text(&block["thinking"])),
            "tool_use" => completion.calls.push(Call {
                id: text(&block["id"]).to_string(),
                name: text(&block["name"]).to_string(),
                arguments: block["input"].to_string(),
            }),
            _ => {}
        }
    }
    let finish = match text(&message["stop_reason"]) {
        "max_tokens" | "model_context_window_exceeded" => "length",
        "tool_use" => "tool_calls",
        "refusal" => "content_filter",
        "end_turn" | "stop_sequence" => "stop",
        _ if !completion.calls.is_empty() => "tool_calls",
        _ => "stop",
    };
    completion.finish = Some(finish.to_string());
    completion.refusal = text(&message["stop_details"]["explanation"]).to_string();
    let told = &message["usage"];
    let count = |name: &str| told[name].as_u64().unwrap_or(0);
    let cached = count("cache_read_input_tokens") + count("cache_creation_input_tokens");
    completion.usage = usage(
        count("input_tokens") + cached,
        count("output_tokens"),
        [
            (PROMPT, "cached_tokens", &told["cache_read_input_tokens"]),
            (
                PROMPT,
                "cache_write_tokens",
                &told["cache_creation_input_tokens"],
            ),
            (
                COMPLETION,
                "reasoning_tokens",
                &told["output_tokens_details"]["thinking_tokens"],
            ),
        ],
    );
    Reading::of(completion)
}

fn gemini(events: &[Value]) -> Reading {
    let mut completion = Completion::default();
    let mut finish = None;
    let mut blocked = None;
    let mut counts = json!({});
    let mut candidates = 0;
    for event in events {
        for (name, value) in event["usageMetadata"].as_object().into_iter().flatten() {
            counts[name] = value.clone();
        }
        blocked = blocked.or(event["promptFeedback"]["blockReason"].as_str());
        let Some(candidate) = items(&event["candidates"]).next() else {
            continue;
        };
        candidates += 1;
        finish = match &candidate["finishReason"] {
            Value::String(word) => Some(word.as_str()),
            // Asked for enums as numbers, the service says `STOP` so.
            number if *number == 1 => Some("STOP"),
            Value::Null => finish,
            other => panic!("finishReason {other}"),
        };
        for part in items(&candidate["content"]["parts"]) {
            let words = text(&part["text"]);
            match part["thought"] == true {
                true => completion.reasoning.push_str(words),
                false => completion.content.push_str(words),
            }
            let Some(call) = part.get("functionCall") else {
                continue;
            };
            // One without a name goes on with the call before.
            if call["name"].is_string() {
                completion.calls.push(Call {
                    id: text(&call["id"]).to_string(),
                    name: text(&call["name"]).to_string(),
                    arguments: match &call["args"] {
                        Value::Null => "{}".to_string(),
                        arguments => arguments.to_string(),
                    },
                });
            }
            for piece in items(&call["partialArgs"]) {
                let arguments = &mut completion.calls.last_mut().unwrap().arguments;
                let mut whole = serde_json::from_str(arguments).unwrap();
                put_piece(&mut whole, piece);
                *arguments = whole.to_string();
            }
        }
    }
    if candidates == 0 && blocked.is_none() {
        return Reading {
            status: 502,
            ..Reading::of(completion)
        };
    }
    let told = match finish {
        None | Some("SAFETY" | "MODEL_ARMOR" | "RECITATION") => "content_filter",
        Some("MAX_TOKENS") => "length",
        _ if !completion.calls.is_empty() => "tool_calls",
        _ => "stop",
    };
    completion.finish = Some(told.to_string());
    let count = |name: &str| counts[name].as_u64();
    let prompt =
        count("promptTokenCount").unwrap_or(0) + count("toolUsePromptTokenCount").unwrap_or(0);
    let answered = match count("totalTokenCount") {
        Some(total) if total >= prompt => total - prompt,
        _ => count("candidatesTokenCount").unwrap_or(0) + count("thoughtsTokenCount").unwrap_or(0),
    };
    if counts.get("promptTokenCount").is_some() {
        let of_kind = |kind: &str| {
            let mut details = items(&counts["promptTokensDetails"]);
            let found = details.find(|detail| detail["modality"] == kind);
            found.map_or(&Value::Null, |detail| &detail["tokenCount"])
        };
        completion.usage = usage(
            prompt,
            answered,
            [
                (PROMPT, "cached_tokens", &counts["cachedContentTokenCount"]),
                (PROMPT, "audio_tokens", of_kind("AUDIO")),
                (PROMPT, "image_tokens", of_kind("IMAGE")),
                (
                    COMPLETION,
                    "reasoning_tokens",
                    &counts["thoughtsTokenCount"],
                ),
            ],
        );
    }
    Reading::of(completion)
}

/// Puts a piece of arguments where its path says: `$.operations[0].price`. Text at a place where
/// there is some already goes on with it.
fn put_piece(arguments: &mut Value, piece: &Value) {
    let pointer = text(&piece["jsonPath"]).replace('[', ".").replace(']', "");
    let mut place = arguments;
    for step in pointer.strip_prefix("$.").unwrap().split('.') {
        place = match step.parse::<usize>() {
            Ok(index) => {
                if place.is_null() {
                    *place = json!([]);
                }
                let list = place.as_array_mut().unwrap();
                if list.len() == index {
                    list.push(Value::Null);
                }
                &mut list[index]
            }
            Err(_) => &mut place[step],
        };
    }
    let known = ["stringValue", "numberValue", "boolValue"];
    let said = known.iter().find_map(|kind| piece.get(kind)).unwrap();
    *place = match (place.as_str(), said.as_str()) {
        (Some(before), Some(more)) => json!(before.to_string() + more),
        _ => said.clone(),
    };
}

fn openai_stream(events: &[Value]) -> Reading {
    let mut completion = Completion::default();
    let mut role = false;
    for event in events {
        if event["error"].is_null() {
            completion.add(event, &mut role, false);
        }
    }
    // With a forced tool OpenAI says `stop` beside the call; callers look for `tool_calls` (S8).
    if !completion.calls.is_empty() && completion.finish.as_deref() == Some("stop") {
        completion.finish = Some("tool_calls".to_string());
    }
    Reading::of(completion)
}

/// A response: the items of a whole one, or those of a stream as they ended. Where an item ends
/// otherwise than its pieces began (some were left out of recordings), the pieces were said.
fn responses(events: &[Value], streamed: bool) -> Reading {
    if let Some(error) = events.iter().find(|event| event["type"] == "error") {
        // Recorded before any output only, and about money.
        return failed(429, error);
    }
    let pieces = |item: &Value| -> String {
        let of_item = |event: &&Value| {
            event["type"] == "response.output_text.delta" && event["item_id"] == item["id"]
        };
        let pieces = events.iter().filter(of_item);
        pieces.map(|event| text(&event["delta"])).collect()
    };
    let last = match streamed {
        true => &events.last().unwrap()["response"],
        false => &events[0],
    };
    let ended = events
        .iter()
        .filter(|event| event["type"] == "response.output_item.done")
        .map(|event| &event["item"]);
    let output: Vec<&Value> = match streamed {
        true => ended.collect(),
        false => items(&last["output"]).collect(),
    };
    let mut completion = Completion::default();
    for item in output {
        let mut words = String::new();
        for part in items(&item["content"]).chain(items(&item["summary"])) {
            match text(&part["type"]) {
                "output_text" => words.push_str(text(&part["text"])),
                "refusal" => completion.refusal.push_str(text(&part["refusal"])),
                _ => completion.reasoning.push_str(text(&part["text"])),
            }
        }
        let said = pieces(item);
        if !words.starts_with(&said) {
            words = said;
        }
        // The texts of two messages are put apart by a blank line.
        if !words.is_empty() && !completion.content.is_empty() {
            completion.content.push_str("\n\n");
        }
        completion.content.push_str(&words);
        if item["type"] == "function_call" {
            completion.calls.push(Call {
                id: text(&item["call_id"]).to_string(),
                name: text(&item["name"]).to_string(),
                arguments: text(&item["arguments"]).to_string(),
            });
        }
    }
    let told = match text(&last["status"]) {
        "completed" if completion.calls.is_empty() => "stop",
        "completed" => "tool_calls",
        "incomplete" => "length",
        // To be fetched later, which nobody asked weir for.
        _ => {
            return Reading {
                status: 502,
                ..Reading::of(Completion::default())
            };
        }
    };
    completion.finish = Some(told.to_string());
    let told = &last["usage"];
    let count = |name: &str| told[name].as_u64().unwrap_or(0);
    let input = &told["input_tokens_details"];
    let output = &told["output_tokens_details"];
    completion.usage = usage(
        count("input_tokens"),
        count("output_tokens"),
        [
            (PROMPT, "cached_tokens", &input["cached_tokens"]),
            (PROMPT, "cache_write_tokens", &input["cache_write_tokens"]),
            (COMPLETION, "reasoning_tokens", &output["reasoning_tokens"]),
        ],
    );
    Reading::of(completion)
}
