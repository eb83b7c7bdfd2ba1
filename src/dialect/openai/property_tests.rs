//! What must hold for any request and any answer, tried with made-up ones.

use serde_json::Value;

use super::chunks_tests::stamp;
use super::{Chunks, Fold, Head};
use crate::chat::{Delta, DeltaSink, FinishReason, ToolKind, Usage};

/// splitmix64: the same numbers in every run, so that a failure comes back.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    pub fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.roll(from.len() as u64) as usize].clone()
    }
}

/// Words that requests and chunks are made of, so that chance gets somewhere.
const WORDS: &[&str] = &[
    "model",
    "messages",
    "role",
    "content",
    "user",
    "assistant",
    "tool",
    "function",
    "system",
    "tools",
    "type",
    "text",
    "image_url",
    "url",
    "file",
    "file_data",
    "input_audio",
    "data",
    "format",
    "name",
    "arguments",
    "parameters",
    "tool_calls",
    "tool_call_id",
    "id",
    "stream",
    "stream_options",
    "include_usage",
    "stop",
    "max_tokens",
    "response_format",
    "json_schema",
    "schema",
    "tool_choice",
    "functions",
    "function_call",
    "custom",
    "input",
    "extra_content",
    "google",
    "thought_signature",
    "anthropic",
    "thinking_blocks",
    "cache_control",
    "extra_body",
    "openai",
    "temperature",
    "choices",
    "delta",
    "index",
    "finish_reason",
    "usage",
    "error",
    "prompt_tokens",
    "completion_tokens",
    "message",
    "auto",
    "",
    "\u{e9}\"\\\n\u{2028}",
];

/// Any JSON, mostly of known words.
pub fn json(dice: &mut Dice, depth: u64) -> String {
    match dice.roll(if depth == 0 { 6 } else { 10 }) {
        0 => "null".into(),
        1 => dice.pick(&["true", "false"]).into(),
        2 => dice
            .pick(&["0", "1", "-1", "1.5", "1e400", "18446744073709551616"])
            .into(),
        3 => dice.pick(&["\"\\ud800\"", "\"\\u0000\"", "\"\\n\""]).into(),
        4 | 5 => Value::from(dice.pick(WORDS)).to_string(),
        6 | 7 => {
            let count = dice.roll(4);
            let entries: Vec<_> = (0..count).map(|_| json(dice, depth - 1)).collect();
            format!("[{}]", entries.join(dice.pick(&[",", " ,\n"])))
        }
        _ => {
            let count = dice.roll(6);
            let members: Vec<_> = (0..count)
                .map(|_| {
                    let key = Value::from(dice.pick(WORDS)).to_string();
                    format!("{key}:{}", json(dice, depth - 1))
                })
                .collect();
            format!("{{{}}}", members.join(","))
        }
    }
}

/// A request that gets past the first checks.
fn request(dice: &mut Dice) -> String {
    let mut messages = Vec::new();
    for _ in 0..1 + dice.roll(4) {
        let role = dice.pick(&["system", "user", "assistant", "tool", "function", "x"]);
        let mut message = format!("{{\"role\":\"{role}\"");
        for key in [
            "content",
            "tool_calls",
            "tool_call_id",
            "name",
            "function_call",
        ] {
            if dice.roll(2) == 0 {
                message.push_str(&format!(",\"{key}\":{}", json(dice, 4)));
            }
        }
        messages.push(message + "}");
    }
    let mut body = format!("{{\"model\":\"m\",\"messages\":[{}]", messages.join(","));
    for _ in 0..dice.roll(6) {
        let key = dice.pick(WORDS);
        if key != "model" && key != "messages" {
            body.push_str(&format!(",{}:{}", Value::from(key), json(dice, 4)));
        }
    }
    body + "}"
}

#[test]
fn any_body_is_read_or_refused_with_400() {
    let mut dice = Dice(1);
    let mut read = 0;
    for round in 0..10_000 {
        let body = match round % 3 {
            0 => json(&mut dice, 5),
            _ => request(&mut dice),
        };
        let mut body = body.into_bytes();
        if dice.roll(4) == 0 && !body.is_empty() {
            let at = dice.roll(body.len() as u64) as usize;
            body[at] = dice.roll(256) as u8;
        }
        match Head::read(&body).and_then(|head| head.parse().map(|_| ())) {
            Ok(()) => read += 1,
            Err(error) => {
                assert_eq!(error.status, 400);
                assert!(serde_json::from_slice::<Value>(&error.to_json()).is_ok());
            }
        }
    }
    // Otherwise nothing behind the first checks was tried.
    assert!(read > 50, "{read}");
}

/// Any delta.
fn delta<'a>(dice: &mut Dice, json: &'a str) -> Delta<'a> {
    let candidate = dice.pick(&[0, 0, 0, 0, 1, 2, 5, 128, u32::MAX]);
    let index = dice.pick(&[0, 0, 1, 2, u32::MAX]);
    let text = dice.pick(&["", "a", "\u{e9}\u{1F600}", "\"\\\r\n\u{0}\u{2028}\u{85}"]);
    match dice.roll(16) {
        0 => Delta::Start {
            id: text,
            model: text,
        },
        1 => Delta::Text { candidate, text },
        2 => Delta::Reasoning { candidate, text },
        3 => Delta::Extra { candidate, json },
        4 | 5 => Delta::ToolStart {
            candidate,
            index,
            id: text,
            name: text,
            kind: dice.pick(&[ToolKind::Function, ToolKind::Function, ToolKind::Custom]),
            google_signature: dice.pick(&[None, Some(text)]),
        },
        6 | 7 => Delta::ToolArgs {
            candidate,
            index,
            fragment: text,
        },
        8 => Delta::Refusal { candidate, text },
        9 => Delta::Image {
            candidate,
            mime: text,
            base64: text,
            google_signature: None,
        },
        10 => Delta::Audio {
            candidate,
            id: text,
            base64: text,
        },
        11 => Delta::Citation {
            candidate,
            url: text,
            title: text,
            start: 1,
            end: u64::MAX,
        },
        12 => Delta::Logprobs { candidate, json },
        13 => Delta::Usage(Usage {
            prompt: dice.pick(&[None, Some(1), Some(u64::MAX)]),
            cached: dice.pick(&[None, Some(2)]),
            ..Usage::default()
        }),
        14 => Delta::ServiceTier(text),
        _ => Delta::Finish {
            candidate,
            reason: dice.pick(&[
                FinishReason::Stop,
                FinishReason::Length,
                FinishReason::ToolCalls,
                FinishReason::ContentFilter,
            ]),
        },
    }
}

/// A stream as the official clients need it; panics with what is wrong.
fn check_stream(stream: &str, include_usage: bool) {
    let mut finished: Vec<bool> = Vec::new();
    let mut calls: Vec<u64> = Vec::new();
    let events: Vec<_> = stream.split_terminator("\n\n").collect();
    let (done, events) = events.split_last().expect("a stream has an end");
    assert_eq!(*done, "data: [DONE]");
    assert!(stream.ends_with("\n\n"));
    let mut usages = 0;
    for event in events {
        let data = event.strip_prefix("data: ").expect("only data lines");
        let one_line = !data.contains(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']);
        assert!(one_line, "{data:?}");
        let chunk: Value = serde_json::from_str(data).unwrap_or_else(|e| panic!("{e}: {data}"));
        assert!(chunk["id"].as_str().is_some_and(|id| !id.is_empty()));
        assert_eq!(chunk["object"], "chat.completion.chunk");
        assert_eq!(chunk.get("usage").is_some(), include_usage, "{data}");
        assert_eq!(usages, 0, "usage comes last");
        let choices = chunk["choices"].as_array().unwrap();
        if choices.is_empty() {
            usages += 1;
            assert!(chunk["usage"]["total_tokens"].is_u64());
        }
        for choice in choices {
            let index = choice["index"].as_u64().unwrap() as usize;
            let delta = choice["delta"].as_object().unwrap();
            if index == finished.len() {
                assert_eq!(delta["role"], "assistant");
                finished.push(false);
                calls.push(0);
            } else {
                assert!(
                    index < finished.len() && !delta.contains_key("role"),
                    "{data}"
                );
            }
            assert!(!finished[index], "{data}");
            for call in delta
                .get("tool_calls")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                let n = call["index"].as_u64().unwrap();
                assert_eq!(call.get("id").is_some(), n == calls[index], "{data}");
                calls[index] = calls[index].max(n + 1);
            }
            if let Some(word) = choice["finish_reason"].as_str() {
                finished[index] = true;
                assert!(delta.is_empty());
                assert!(
                    [
                        "stop",
                        "length",
                        "tool_calls",
                        "content_filter",
                        "function_call"
                    ]
                    .contains(&word)
                );
            }
        }
    }
    assert!(!finished.is_empty() && finished.iter().all(|finished| *finished));
    assert_eq!(usages, u64::from(include_usage));
}

#[test]
fn any_deltas_make_a_well_formed_answer() {
    let mut dice = Dice(2);
    for _ in 0..1_000 {
        let mut stamp = stamp();
        stamp.include_usage = dice.roll(2) == 0;
        stamp.legacy_functions = dice.roll(4) == 0;
        let mut chunks = Chunks::new(stamp.clone());
        let mut fold = Fold::new(stamp.clone());
        let mut stream = String::new();
        for _ in 0..dice.roll(30) {
            let mut json = json(&mut dice, 3);
            if serde_json::from_str::<Value>(&json).is_err() {
                // Half a surrogate pair, which is carried as it is.
                json = "{]".into();
            }
            let delta = delta(&mut dice, &json);
            chunks.put(delta.clone());
            fold.put(delta);
            // Each piece is whole, so that it can be sent at once.
            stream.push_str(std::str::from_utf8(chunks.bytes()).unwrap());
            assert!(stream.is_empty() || stream.ends_with("\n\n"));
            chunks.clear();
        }
        chunks.finish();
        stream.push_str(std::str::from_utf8(chunks.bytes()).unwrap());
        check_stream(&stream, stamp.include_usage);
        assert_eq!(chunks.usage(), fold.usage());
        same(&stream, &fold.into_json());
    }
}

/// The texts and the ends of a stream are those of the completion from the same deltas.
fn same(stream: &str, completion: &[u8]) {
    let completion: Value = serde_json::from_slice(completion).unwrap();
    let choices = completion["choices"].as_array().unwrap();
    let mut contents = vec![String::new(); choices.len()];
    let mut words = vec![Value::Null; choices.len()];
    let chunks = stream
        .lines()
        .filter_map(|line| line.strip_prefix("data: {"));
    for chunk in chunks {
        let chunk: Value = serde_json::from_str(&format!("{{{chunk}")).unwrap();
        for choice in chunk["choices"].as_array().unwrap() {
            let index = choice["index"].as_u64().unwrap() as usize;
            contents[index].push_str(choice["delta"]["content"].as_str().unwrap_or_default());
            if !choice["finish_reason"].is_null() {
                words[index] = choice["finish_reason"].clone();
            }
        }
    }
    for (i, choice) in choices.iter().enumerate() {
        assert_eq!(
            choice["message"]["content"].as_str().unwrap_or_default(),
            contents[i]
        );
        assert_eq!(choice["finish_reason"], words[i]);
    }
}
