//! Mending what compatible servers get wrong in their chunks.
//!
//! Taken only for chunks in which the scan found something, so it may cost what it costs.

use serde_json::{Map, Value, json};

use super::relay::{ChoiceState, FINISH_WORDS, MAX_CALLS, MAX_CHOICES, RelayStream};
use super::usage::usage_of;
use crate::failure::Failure;
use crate::json::unicode::mended_bytes;

impl RelayStream {
    /// Parses a chunk, sets right what callers would stumble over, and appends it.
    pub(super) fn mend(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<(), Failure> {
        let parsed =
            serde_json::from_slice(data).or_else(|_| serde_json::from_str(&mended_bytes(data)));
        let Ok(Value::Object(mut chunk)) = parsed else {
            return Err(Failure::malformed("an event of the upstream is not JSON"));
        };
        if chunk.get("error").is_some_and(|error| !error.is_null()) {
            return Err(Failure::from_event(data));
        }
        let usage = chunk.get("usage").filter(|usage| usage.is_object());
        let has_usage = usage.is_some();
        if let Some(usage) = usage {
            self.usage.merge(usage_of(usage));
            self.told_usage = usage.as_object().cloned().map(Box::new);
        }
        if !chunk.get("choices").is_some_and(Value::is_array) {
            if is_error(&chunk) {
                return Err(Failure::from_event(data));
            }
            if !has_usage {
                log::debug!("an event without choices is left out");
                return Ok(());
            }
            chunk.insert("choices".into(), json!([]));
        }
        self.mend_top(&mut chunk);
        let choices = chunk.get_mut("choices").and_then(Value::as_array_mut);
        let choices = choices.map(std::mem::take).unwrap_or_default();
        if choices.is_empty() && has_usage {
            if !self.stamp.include_usage {
                return Ok(());
            }
            self.usage_sent = true;
        } else if self.stamp.include_usage {
            chunk.insert("usage".into(), Value::Null);
        } else {
            // (`remove` would move the last member to its place.)
            chunk.shift_remove("usage");
        }
        let had_choices = !choices.is_empty();
        let mut mended = Vec::with_capacity(choices.len());
        for (position, choice) in choices.into_iter().enumerate() {
            let Value::Object(mut choice) = choice else {
                continue;
            };
            let index = choice.get("index").and_then(Value::as_u64);
            let index = index.map_or(position, |index| index as usize);
            if index < MAX_CHOICES {
                choice.insert("index".into(), index.into());
                mended.push((index, choice));
            }
        }
        let Some(largest) = mended.iter().map(|(index, _)| *index).max().or(
            // Only a chunk that had none may have none left.
            (!had_choices).then_some(0),
        ) else {
            return Err(Failure::malformed(
                "a chunk of the upstream has no valid choice",
            ));
        };
        self.open_below(largest, out);
        let choices = mended.into_iter().map(|(index, mut choice)| {
            self.mend_choice(&mut choice, index);
            Value::Object(choice)
        });
        let choices = choices.collect();
        chunk.insert("choices".into(), Value::Array(choices));
        out.extend_from_slice(b"data: ");
        serde_json::to_writer(&mut *out, &chunk).expect("writing to memory does not fail");
        out.extend_from_slice(b"\n\n");
        Ok(())
    }

    fn mend_top(&self, chunk: &mut Map<String, Value>) {
        let is_text = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
        if !chunk.get("id").is_some_and(is_text) {
            chunk.insert("id".into(), self.own_id().into());
        }
        if !chunk.get("object").is_some_and(is_text) {
            chunk.insert("object".into(), "chat.completion.chunk".into());
        }
        if !chunk.get("created").is_some_and(Value::is_number) {
            chunk.insert("created".into(), self.stamp.created.into());
        }
        if !chunk.get("model").is_some_and(is_text) {
            chunk.insert("model".into(), self.stamp.model.clone().into());
        }
    }

    /// Writes the role of choices below `index` that have not been seen, because callers put each
    /// new choice at the end of their list.
    fn open_below(&mut self, index: usize, out: &mut Vec<u8>) {
        while self.choices.len() < index {
            let lower = self.choices.len();
            let role = format!(
                r#"{{"index":{lower},"delta":{{"role":"assistant","content":""}},"finish_reason":null}}"#
            );
            self.push_chunk(role.as_bytes(), None, out);
            self.choices.push(ChoiceState {
                has_role: true,
                ..ChoiceState::default()
            });
        }
    }

    /// Sets one choice right; every lower one is open.
    fn mend_choice(&mut self, choice: &mut Map<String, Value>, index: usize) {
        if self.choices.len() == index {
            self.choices.push(ChoiceState::default());
        }
        let state = &mut self.choices[index];
        let delta = choice.entry("delta").or_insert(Value::Null);
        if !delta.is_object() {
            *delta = json!({});
        }
        if let Value::Object(delta) = delta {
            if state.has_role {
                delta.shift_remove("role");
            } else {
                delta.insert("role".into(), "assistant".into());
                state.has_role = true;
            }
            if let Some(Value::Array(calls)) = delta.get_mut("tool_calls") {
                calls.retain(Value::is_object);
                for call in calls.iter_mut().filter_map(Value::as_object_mut) {
                    number_call(call, &mut state.calls);
                }
            }
        }
        let word = choice.get("finish_reason").and_then(Value::as_str);
        let word = match word {
            None | Some("") => None,
            Some(_) if state.finished => None,
            Some(_) if !state.calls.is_empty() && word == Some("stop") => Some("tool_calls"),
            Some(word) => Some(match FINISH_WORDS.iter().find(|known| **known == word) {
                Some(known) => *known,
                None if word.contains("length") || word.contains("max_tokens") => "length",
                None if !state.calls.is_empty() => "tool_calls",
                None => "stop",
            }),
        };
        state.finished |= word.is_some();
        choice.insert("finish_reason".into(), word.into());
    }
}

/// Gives a piece of a tool call its index: its own, that of its id, or the one being written.
fn number_call(call: &mut Map<String, Value>, calls: &mut Vec<String>) {
    let text = |value: Option<&Value>| {
        let text = value.and_then(Value::as_str).unwrap_or_default();
        text.to_owned()
    };
    let id = text(call.get("id"));
    let names_function = !text(call.get("function").and_then(|f| f.get("name"))).is_empty();
    let own = call.get("index").and_then(Value::as_u64);
    let index = match own {
        Some(own) => (own as usize).min(MAX_CALLS - 1),
        None if !id.is_empty() => match calls.iter().position(|known| *known == id) {
            Some(known) => known,
            None => calls.len(),
        },
        // Without an id, a name is what begins a call.
        None if names_function => calls.len(),
        None => calls.len().saturating_sub(1),
    };
    let index = index.min(MAX_CALLS - 1);
    if calls.len() <= index {
        calls.resize_with(index + 1, String::new);
    }
    if !id.is_empty() {
        calls[index] = id;
    }
    call.insert("index".into(), index.into());
}

/// Errors that do not stand under `error`.
fn is_error(event: &Map<String, Value>) -> bool {
    let is = |key: &str| event.get(key).and_then(Value::as_str) == Some("error");
    is("object") || is("type") || event.contains_key("detail")
}
