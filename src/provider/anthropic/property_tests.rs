//! Things that hold for every conversation and for every upstream, tried on many made-up ones.

use std::sync::Arc;

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::Messages;
use crate::chat::{Delta, DeltaSink};
use crate::dialect::openai::Head;
use crate::failure::Class;
use crate::json::Fields;
use crate::provider::{Decoder, Flow, Options, Provider, Undo};
use crate::sse;

/// A small generator of numbers that look random and are always the same.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.roll() % limit as u64) as usize
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

fn messages_of(model: &str, messages: &[Value], tools: &Value) -> String {
    let mut request = json!({"model": model, "messages": messages});
    if !tools.is_null() {
        request["tools"] = tools.clone();
    }
    let text = serde_json::to_vec(&request).unwrap();
    let head = Head::read(&text).unwrap();
    let request = head.parse().unwrap();
    let encoded = Messages
        .encode(&request, model, &Options::default())
        .unwrap();
    let again = Messages
        .encode(&request, model, &Options::default())
        .unwrap();
    assert_eq!(
        encoded.body, again.body,
        "the same request gives the same bytes"
    );
    let fields: Fields<'_> = serde_json::from_slice(&encoded.body).unwrap();
    fields.get("messages").unwrap().get().to_owned()
}

fn text(dice: &mut Dice) -> Value {
    let words = [
        "",
        " \n",
        "hello",
        "gr\u{fc}n \u{1f600}",
        "a \"quoted\" \\ one",
        "x\ny",
    ];
    if dice.chance(20) {
        let parts: Vec<Value> = (0..dice.below(3))
            .map(|_| json!({"type": "text", "text": dice.pick(&words)}))
            .collect();
        return Value::Array(parts);
    }
    json!(dice.pick(&words))
}

/// A conversation whose every prefix that ends before an assistant message was a request.
fn conversation(dice: &mut Dice) -> Vec<Value> {
    let names = ["f", "g.h", "g_h", "g h"];
    let mut messages = Vec::new();
    for _ in 0..dice.below(3) {
        messages.push(json!({"role": "system", "content": text(dice)}));
    }
    for turn in 0..2 + dice.below(6) {
        for _ in 0..1 + dice.below(2) {
            let role = *dice.pick(&["user", "user", "system", "developer"]);
            messages.push(json!({"role": role, "content": text(dice)}));
        }
        for _ in 0..1 + dice.below(2) {
            let mut answer = json!({"role": "assistant", "content": text(dice)});
            if dice.chance(40) {
                answer["extra_content"]["anthropic"]["thinking_blocks"] = json!([
                    {"index": 0, "type": "thinking", "thinking": "hm", "signature": "S="}]);
            }
            let mut results = Vec::new();
            if dice.chance(50) {
                let count = 1 + dice.below(3);
                let mut calls = Vec::new();
                for n in 0..count {
                    // Some callers start counting anew in every turn.
                    let id = match dice.chance(30) {
                        true => format!("call:{n}"),
                        false => format!("call_{turn}_{}_{n}", messages.len()),
                    };
                    let arguments = dice.pick(&["{}", "", "{\"a\": [1, 2.50]}", "[1]", "{\"a\":"]);
                    calls.push(json!({"id": id, "type": "function",
                        "function": {"name": dice.pick(&names), "arguments": arguments}}));
                    results.push(json!({"role": "tool", "tool_call_id": id,
                                        "content": text(dice)}));
                }
                if dice.chance(50) {
                    results.reverse();
                }
                answer["tool_calls"] = Value::Array(calls);
            }
            messages.push(answer);
            messages.append(&mut results);
        }
    }
    messages
}

/// An answer that leaves no trace in the history.
fn says_nothing(message: &Value) -> bool {
    let blank = |text: &Value| text.as_str().unwrap().trim().is_empty();
    message.get("tool_calls").is_none()
        && match &message["content"] {
            Value::Array(parts) => parts.iter().all(|part| blank(&part["text"])),
            text => blank(text),
        }
}

#[test]
fn a_longer_history_leaves_the_shorter_one_as_it_was_v36() {
    const CONTINUE: &str = r#",{"role":"user","content":[{"type":"text","text":"Continue."}]}"#;
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
    let tools = json!([{"type": "function", "function": {"name": "g.h"}},
                       {"type": "function", "function": {"name": "f"}}]);
    let mut compared = 0;
    for _ in 0..400 {
        let model = *dice.pick(&["claude-opus-5-5", "claude-haiku-4-5", "claude-opus-4-6"]);
        let tools = if dice.chance(70) {
            &tools
        } else {
            &Value::Null
        };
        let messages = conversation(&mut dice);
        let whole = messages_of(model, &messages, tools);
        for cut in 1..messages.len() {
            // What comes behind a request begins with its answer.
            if messages[cut]["role"] != "assistant" || says_nothing(&messages[cut]) {
                continue;
            }
            let part = messages_of(model, &messages[..cut], tools);
            let part = part.strip_suffix(']').unwrap();
            let part = part.strip_suffix(CONTINUE).unwrap_or(part);
            let turns: Vec<Value> = serde_json::from_str(&format!("{part}]")).unwrap();
            let ends_with_answer = turns.last().unwrap()["role"] == "assistant";
            // Neighbouring assistant messages become one, so the end of that one is open.
            let part = match ends_with_answer {
                true => part.strip_suffix("]}").unwrap(),
                false => part,
            };
            // A message that is to be continued loses the white space at its end. A system
            // message alone gets a placeholder until somebody speaks.
            let is_prefill = model == "claude-haiku-4-5" && ends_with_answer;
            let is_placeholder = turns
                == [json!({"role": "user",
                "content": [{"type": "text", "text": "."}]})];
            if is_prefill || is_placeholder {
                continue;
            }
            assert!(
                whole.starts_with(part),
                "{model} cut at {cut}\n  of: {}\npart: {part}\nwhole: {whole}",
                Value::Array(messages.clone())
            );
            compared += 1;
        }
    }
    assert!(compared > 1000, "only {compared} comparisons");
}

#[test]
fn roles_alternate_and_every_call_is_answered() {
    let mut dice = Dice(77);
    for _ in 0..400 {
        let model = *dice.pick(&["claude-opus-5-5", "claude-haiku-4-5", "kimi-k2"]);
        let mut messages = conversation(&mut dice);
        // Damage: lose and move messages, so that pairs break.
        for _ in 0..dice.below(4) {
            let at = dice.below(messages.len());
            let message = messages.remove(at);
            if dice.chance(50) || messages.is_empty() {
                let to = dice.below(messages.len() + 1);
                messages.insert(to, message);
            }
        }
        let text = messages_of(model, &messages, &Value::Null);
        let sent: Vec<Value> = serde_json::from_str(&text).unwrap();
        assert_eq!(sent[0]["role"], "user", "{text}");
        let mut open: Vec<&str> = Vec::new();
        for (at, message) in sent.iter().enumerate() {
            let role = message["role"].as_str().unwrap();
            let before = at
                .checked_sub(1)
                .map(|at| sent[at]["role"].as_str().unwrap());
            assert_ne!(before, Some(role), "{text}");
            if role == "system" {
                assert_eq!(before, Some("user"), "{text}");
            }
            let blocks = message["content"].as_array().unwrap();
            assert!(!blocks.is_empty(), "{text}");
            let mut results = 0;
            for (n, block) in blocks.iter().enumerate() {
                match block["type"].as_str().unwrap() {
                    "tool_result" => {
                        assert_eq!(n, results, "results come first: {text}");
                        results += 1;
                        let id = block["tool_use_id"].as_str().unwrap();
                        let place = open.iter().position(|open| *open == id);
                        open.swap_remove(place.unwrap_or_else(|| panic!("{id} in {text}")));
                    }
                    "tool_use" => open.push(block["id"].as_str().unwrap()),
                    "text" => assert!(!block["text"].as_str().unwrap().trim().is_empty()),
                    _ => {}
                }
            }
            assert!(
                role == "assistant" || open.is_empty(),
                "{open:?} unanswered: {text}"
            );
        }
        assert!(open.is_empty(), "{text}");
    }
}

/// Checks the order of deltas and forgets them.
#[derive(Default)]
struct Judge {
    started: bool,
    finished: u32,
    tools: u32,
}

impl DeltaSink for Judge {
    fn put(&mut self, delta: Delta<'_>) {
        assert_eq!(self.finished, 0, "{delta:?} behind the end");
        match delta {
            Delta::Start { .. } => assert!(!std::mem::replace(&mut self.started, true)),
            Delta::Finish { .. } => self.finished += 1,
            Delta::ToolStart { index, .. } => {
                assert_eq!(index, self.tools);
                self.tools += 1;
            }
            Delta::ToolArgs { index, .. } => assert!(index < self.tools),
            Delta::Extra { json, .. } => {
                serde_json::from_str::<&RawValue>(json).unwrap();
            }
            _ => {}
        }
        assert!(self.started, "the first is Start");
    }
}

#[test]
fn no_event_brings_the_decoder_down() {
    let pieces = [
        r#""type":"message_start""#,
        r#""type":"content_block_start""#,
        r#""type":"content_block_delta""#,
        r#""type":"content_block_stop""#,
        r#""type":"message_delta""#,
        r#""type":"message_stop""#,
        r#""type":"ping""#,
        r#""type":7"#,
        r#""type":null"#,
        r#""index":0"#,
        r#""index":1"#,
        r#""index":-1"#,
        r#""index":1e300"#,
        r#""index":"0""#,
        r#""message":{"id":"m","usage":{"input_tokens":1}}"#,
        r#""message":{"usage":{"input_tokens":-1,"output_tokens":18446744073709551615}}"#,
        r#""message":7"#,
        r#""message":null"#,
        r#""usage":[1]"#,
        r#""usage":{"output_tokens":{}}"#,
        r#""content_block":{"type":"text","text":"a"}"#,
        r#""content_block":{"type":"thinking"}"#,
        r#""content_block":{"type":"tool_use","id":"t","name":"f","input":{}}"#,
        r#""content_block":{"type":"tool_use","id":"t","name":"c","input":{}}"#,
        r#""content_block":{"type":"server_tool_use","input":{}}"#,
        r#""content_block":[]"#,
        r#""content_block":{"type":"redacted_thinking","data":"d"}"#,
        r#""content_block":null"#,
        r#""delta":{"type":"text_delta","text":"\u00fc```"}"#,
        r#""delta":{"type":"text_delta"}"#,
        r#""delta":{"type":"thinking_delta","thinking":"t"}"#,
        r#""delta":{"type":7}"#,
        r#""delta":{"type":"signature_delta","signature":"s"}"#,
        r#""delta":null"#,
        r#""delta":{"type":"input_json_delta","partial_json":"{\"input\":"}"#,
        r#""delta":{"type":"citations_delta","citation":{"type":"web_search_result_location"}}"#,
        r#""delta":{"stop_reason":"end_turn"}"#,
        r#""delta":{"stop_reason":"pause_turn"}"#,
        r#""delta":{"stop_reason":"refusal","stop_details":{"explanation":"no"}}"#,
        r#""delta":{"text":"\ud800"}"#,
        r#""x":[[[]]]"#,
        r#""error":{"type":"api_error"}"#,
    ];
    // Events as they should be, so that the mess comes upon an answer in progress.
    let sound = [
        r#"{"type":"message_start","message":{"id":"m","model":"c","usage":{"input_tokens":3}}}"#,
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":"a"}}"#,
        r#"{"type":"content_block_start","index":1,"content_block":{"type":"tool_use","name":"c"}}"#,
        r#"{"type":"content_block_start","index":2,"content_block":{"type":"thinking"}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"b`"}}"#,
        r#"{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{}"}}"#,
        r#"{"type":"content_block_delta","index":2,"delta":{"type":"thinking_delta","thinking":"t"}}"#,
        r#"{"type":"content_block_stop","index":1}"#,
        r#"{"type":"message_delta","delta":{"stop_reason":"pause_turn"},"usage":{"output_tokens":1}}"#,
        r#"{"type":"message_delta","delta":{"stop_reason":"tool_use"}}"#,
        r#"{"type":"message_stop"}"#,
    ];
    let undo = Arc::new(Undo {
        custom: vec!["c".into()],
        strip_fence: true,
        wants_tier: true,
        keep_blocks: true,
        ..Undo::default()
    });
    let mut dice = Dice(4242);
    let (mut good, mut bad) = (0, 0);
    for round in 0..20_000 {
        let undo = if round % 2 == 0 {
            undo.clone()
        } else {
            Arc::default()
        };
        let mut decoder = Messages.decoder(undo);
        let mut judge = Judge::default();
        let mut ended = false;
        let mut failed = false;
        for _ in 0..dice.below(14) {
            let mut data = match dice.below(20) {
                3.. => dice.pick(&sound).as_bytes().to_vec(),
                0 => (0..dice.below(40)).map(|_| dice.roll() as u8).collect(),
                _ => {
                    let members: Vec<&str> = (0..1 + dice.below(3))
                        .map(|_| *dice.pick(&pieces))
                        .collect();
                    format!("{{{}}}", members.join(",")).into_bytes()
                }
            };
            if dice.chance(3) && !data.is_empty() {
                let at = dice.below(data.len());
                data[at] = dice.roll() as u8;
            }
            let event = sse::Event {
                data: &data,
                bare: dice.chance(5),
            };
            match decoder.on_event(event, &mut judge) {
                Ok(Flow::More) => {}
                Ok(Flow::Done) => {
                    ended = true;
                    let sent = br#"{"messages":[{"role":"user","content":"x"}]}"#;
                    match decoder.continuation(sent) {
                        Some(body) => {
                            serde_json::from_slice::<&RawValue>(&body).unwrap();
                            ended = false;
                        }
                        None => break,
                    }
                }
                Err(failure) => {
                    assert_ne!(failure.class, Class::CallerGone);
                    failed = true;
                    break;
                }
            }
        }
        if !ended && !failed {
            failed = decoder.on_end(&mut judge).is_err();
        }
        if failed {
            bad += 1;
        } else {
            good += 1;
            let pauses = decoder.continuation(br#"{"messages":[]}"#).is_some();
            assert_eq!(judge.finished, u32::from(!pauses), "an answer has one end");
        }
    }
    assert!(good > 500 && bad > 500, "{good} good, {bad} bad");
}

#[test]
fn no_body_brings_the_decoder_down() {
    let whole = json!({"type": "message", "id": "m", "model": "c", "stop_reason": "tool_use",
        "content": [{"type": "text", "text": "gr\u{fc}n"}, {"type": "tool_use", "id": "t",
        "name": "f", "input": {"a": 1}}], "usage": {"input_tokens": 1, "output_tokens": 2}});
    let whole = serde_json::to_vec(&whole).unwrap();
    let mut dice = Dice(99);
    for round in 0..5000 {
        let mut body = whole.clone();
        if round > 0 {
            body.truncate(dice.below(whole.len() + 1));
        }
        for _ in 0..dice.below(3) * usize::from(round > 0) {
            if !body.is_empty() {
                let at = dice.below(body.len());
                body[at] = *dice.pick(b"\"{}[],:0az\\\xff \n");
            }
        }
        let mut judge = Judge::default();
        let result = Messages.decoder(Arc::default()).on_body(&body, &mut judge);
        assert_eq!(judge.finished == 1, result.is_ok());
        assert!(round > 0 || result.is_ok());
    }
}

#[test]
fn a_stream_without_end_does_not_fill_the_memory() {
    let mut decoder = super::decode::Messages::new(Arc::new(Undo {
        keep_blocks: true,
        ..Undo::default()
    }));
    let mut judge = Judge::default();
    let thought = format!(
        r#"{{"type":"content_block_delta","index":0,"delta":{{"type":"thinking_delta","thinking":"{}"}}}}"#,
        "x".repeat(1 << 20)
    );
    let mut put = |data: &str| {
        let event = sse::Event {
            data: data.as_bytes(),
            bare: false,
        };
        decoder.on_event(event, &mut judge).map(|_| ())
    };
    put(r#"{"type":"content_block_start","index":0,"content_block":{"type":"thinking"}}"#).unwrap();
    for _ in 0..40 {
        put(&thought).unwrap();
    }
    let start = r#"{"type":"content_block_start","index":1,"content_block":{"type":"text"}}"#;
    let blocks = (0..200_000).take_while(|_| put(start).is_ok()).count();
    assert!(blocks < 150_000, "an answer has an end to its blocks");
    assert!(decoder.remembered() < 20 << 20, "{}", decoder.remembered());
}
