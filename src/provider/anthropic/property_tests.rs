//! Things that hold for every conversation, tried on many made-up ones.

use serde_json::{Value, json};

use super::Messages;
use crate::dialect::openai::Head;
use crate::json::Fields;
use crate::provider::{Options, Provider};

/// A small generator of numbers that look random and are always the same.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.roll() % limit as u64) as usize
    }

    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
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
fn vector_36_a_longer_history_leaves_the_shorter_one_as_it_was() {
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
        check_structure(&messages_of(model, &messages, &Value::Null));
    }
}

/// What the provider insists on, whatever was sent.
pub fn check_structure(text: &str) {
    let sent: Vec<Value> = serde_json::from_str(text).unwrap();
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

#[test]
fn recorded_chat_requests_are_translated_or_refused() {
    let Some(folder) = std::env::var_os("WEIR_RECORDINGS") else {
        eprintln!("skipped: WEIR_RECORDINGS is not set");
        return;
    };
    let Ok(entries) = std::fs::read_dir(std::path::Path::new(&folder).join("openai")) else {
        eprintln!("skipped: no recordings of chat requests");
        return;
    };
    let (mut translated, mut refused) = (0, 0);
    for entry in entries {
        let path = entry.unwrap().path();
        let Ok(recording) = serde_json::from_slice::<Value>(&std::fs::read(&path).unwrap()) else {
            continue;
        };
        let body = serde_json::to_vec(&recording["request"]["body"]).unwrap();
        let Ok(head) = Head::read(&body) else {
            continue;
        };
        let Ok(request) = head.parse() else { continue };
        for model in [
            "claude-opus-5-5",
            "claude-sonnet-4-5",
            "claude-opus-4-6",
            "kimi-k2",
        ] {
            match Messages.encode(&request, model, &Options::default()) {
                Ok(encoded) => {
                    let fields: Fields<'_> = serde_json::from_slice(&encoded.body).unwrap();
                    check_structure(fields.get("messages").unwrap().get());
                    translated += 1;
                }
                Err(error) => {
                    assert_eq!(error.status, 400, "{}: {error}", path.display());
                    eprintln!("{}: {error}", path.file_name().unwrap().display());
                    refused += 1;
                }
            }
        }
    }
    eprintln!("{translated} translated, {refused} refused");
    assert!(translated > refused);
}
