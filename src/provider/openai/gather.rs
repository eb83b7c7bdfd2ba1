//! Chunks put together: a whole answer from a server that streams although it was not asked to.
//!
//! The relay goes first, so ends, errors and what compatible servers get wrong are its affair, and
//! what is put together are well-formed chunks. Members that weir does not know are kept.

use serde_json::{Map, Value, json};

use super::relay::{MAX_CHOICES, RelayStream};
use crate::chat::Usage;
use crate::dialect::openai::Stamp;
use crate::failure::Failure;
use crate::json::unicode::Seam;
use crate::provider::Flow;
use crate::sse;

pub struct Gather {
    relay: RelayStream,
    /// What the relay wrote for the event at hand.
    chunks: Vec<u8>,
    seam: Seam,
    /// Everything but the choices.
    answer: Map<String, Value>,
    choices: Vec<Map<String, Value>>,
    /// Bytes taken, and how many may be.
    size: usize,
    cap: usize,
}

impl Gather {
    pub fn new(mut stamp: Stamp, official: bool, cap: usize) -> Gather {
        // A whole answer tells its usage without being asked.
        stamp.include_usage = true;
        Gather {
            relay: RelayStream::new(stamp, official),
            chunks: Vec::new(),
            seam: Seam::default(),
            answer: Map::new(),
            choices: Vec::new(),
            size: 0,
            cap,
        }
    }

    pub fn on_event(&mut self, event: sse::Event<'_>) -> Result<Flow, Failure> {
        let flow = self.relay.on_event(event, &mut self.chunks)?;
        self.take()?;
        Ok(flow)
    }

    pub fn on_end(&mut self) -> Result<(), Failure> {
        self.relay.on_end(&mut self.chunks)?;
        self.take()
    }

    /// What was counted so far.
    pub fn usage(&self) -> Usage {
        self.relay.usage()
    }

    /// The answer as JSON, and what it used.
    pub fn into_body(self) -> (Usage, Vec<u8>) {
        let usage = self.relay.usage();
        let mut answer = self.answer;
        let told = answer.shift_remove("usage");
        answer.insert("object".into(), "chat.completion".into());
        let choices = self
            .choices
            .into_iter()
            .enumerate()
            .map(|(at, mut choice)| {
                let mut message = match choice.shift_remove("delta") {
                    Some(Value::Object(message)) => message,
                    _ => Map::new(),
                };
                let calls = message.get_mut("tool_calls").and_then(Value::as_array_mut);
                for call in calls.into_iter().flatten().filter_map(Value::as_object_mut) {
                    call.shift_remove("index");
                }
                let mut whole = Map::new();
                whole.insert("index".into(), at.into());
                whole.insert("message".into(), Value::Object(message));
                choice.shift_remove("index");
                whole.append(&mut choice);
                Value::Object(whole)
            });
        answer.insert("choices".into(), choices.collect());
        if let Some(told) = told {
            answer.insert("usage".into(), told);
        }
        (usage, Value::Object(answer).to_string().into_bytes())
    }

    /// Takes what the relay wrote.
    fn take(&mut self) -> Result<(), Failure> {
        let chunks = std::mem::take(&mut self.chunks);
        self.size = self.size.saturating_add(chunks.len());
        if self.size > self.cap {
            return Err(Failure::too_long());
        }
        let lines = chunks.split(|byte| *byte == b'\n');
        for data in lines.filter_map(|line| line.strip_prefix(b"data: ")) {
            if data == b"[DONE]" {
                continue;
            }
            let Ok(Value::Object(chunk)) = serde_json::from_str(&self.seam.mend(data)) else {
                return Err(Failure::malformed("an event of the upstream is not JSON"));
            };
            self.take_chunk(chunk);
        }
        Ok(())
    }

    fn take_chunk(&mut self, mut chunk: Map<String, Value>) {
        let choices = match chunk.shift_remove("choices") {
            Some(Value::Array(choices)) => choices,
            _ => Vec::new(),
        };
        for (key, value) in chunk {
            if !value.is_null() {
                self.answer.insert(key, value);
            }
        }
        for choice in choices {
            let Value::Object(choice) = choice else {
                continue;
            };
            let index = choice.get("index").and_then(Value::as_u64).unwrap_or(0) as usize;
            if index >= MAX_CHOICES {
                continue;
            }
            if self.choices.len() <= index {
                self.choices.resize_with(index + 1, Map::new);
            }
            let known = &mut self.choices[index];
            for (key, value) in choice {
                match &*key {
                    "delta" | "logprobs" => add(known, key, value),
                    // Some repeat all before it beside each piece.
                    "message" => {}
                    _ if value.is_null() => {
                        known.entry(key).or_insert(Value::Null);
                    }
                    _ => {
                        known.insert(key, value);
                    }
                }
            }
        }
    }
}

/// Adds a member of a delta to those before it.
fn add(known: &mut Map<String, Value>, key: String, value: Value) {
    if !known.contains_key(&key) && !value.is_array() {
        known.insert(key, value);
        return;
    }
    let before = known.entry(key.as_str()).or_insert_with(|| json!([]));
    match (before, value) {
        (_, Value::Null) => {}
        (Value::String(before), Value::String(more)) => {
            if grows(&key) || *before != more {
                before.push_str(&more);
            }
        }
        (Value::Object(before), Value::Object(more)) => {
            for (key, value) in more {
                add(before, key, value);
            }
        }
        (Value::Array(before), Value::Array(more)) => more.into_iter().for_each(|entry| {
            add_entry(before, entry);
        }),
        // Content in parts: each piece of text is one of them.
        (Value::Array(before), Value::String(more)) if !more.is_empty() => {
            add_entry(before, json!({"type": "text", "text": more}));
        }
        (Value::Array(_), Value::String(_)) => {}
        (before @ Value::String(_), Value::Array(more)) => {
            let mut parts = Vec::new();
            if let Some(text) = before.as_str().filter(|text| !text.is_empty()) {
                parts.push(json!({"type": "text", "text": text}));
            }
            more.into_iter()
                .for_each(|entry| add_entry(&mut parts, entry));
            *before = Value::Array(parts);
        }
        (before, more) => *before = more,
    }
}

/// Adds an entry to a list, or to the entry that has the same index.
fn add_entry(list: &mut Vec<Value>, entry: Value) {
    let index = entry.get("index").filter(|index| index.is_u64());
    let known = index.and_then(|index| {
        let mut list = list.iter_mut();
        list.find(|known| known.get("index") == Some(index))
    });
    match (known, entry) {
        (Some(Value::Object(known)), Value::Object(entry)) => {
            for (key, value) in entry {
                if key != "index" {
                    add(known, key, value);
                }
            }
        }
        (_, entry) => list.push(entry),
    }
}

/// Texts of which a piece may be the same as all before it. Others (`type`, `format`) are repeated.
fn grows(key: &str) -> bool {
    const TEXTS: [&str; 12] = [
        "arguments",
        "content",
        "data",
        "input",
        "reasoning",
        "reasoning_content",
        "refusal",
        "signature",
        "summary",
        "text",
        "thinking",
        "transcript",
    ];
    TEXTS.contains(&key)
}
