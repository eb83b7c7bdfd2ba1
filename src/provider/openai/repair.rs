//! Mending what compatible servers get wrong in their chunks.
//!
//! Taken only for chunks in which the scan found something, so it may cost what it costs.

use serde_json::{Map, Value, json};

use super::calls::add_piece;
use super::relay::{ChoiceState, FINISH_WORDS, MAX_CHOICES, MOST_USAGE, RelayStream};
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
        if chunk.get("error").is_some_and(says_something) {
            return Err(Failure::from_event(data));
        }
        chunk.shift_remove("error");
        self.chunks += 1;
        let usage = chunk.get("usage").filter(|usage| usage.is_object());
        let has_usage = usage.is_some();
        if let Some(usage) = usage {
            self.usage.merge(usage_of(usage));
            if data.len() <= MOST_USAGE {
                self.told_usage = usage.as_object().cloned().map(Box::new);
            }
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
        let mut choices = Vec::with_capacity(mended.len());
        for (index, mut choice) in mended {
            if self.mend_choice(&mut choice, index)? {
                choices.push(Value::Object(choice));
            }
        }
        if had_choices && choices.is_empty() {
            // Nothing but the usage, which goes in a chunk of its own at the end.
            return Ok(());
        }
        chunk.insert("choices".into(), Value::Array(choices));
        out.extend_from_slice(b"data: ");
        serde_json::to_writer(&mut *out, &chunk).expect("writing to memory does not fail");
        out.extend_from_slice(b"\n\n");
        Ok(())
    }

    fn mend_top(&mut self, chunk: &mut Map<String, Value>) {
        let said = |key: &str| chunk.get(key).map(Value::to_string);
        let (id, created, model) = (said("id"), said("created"), said("model"));
        let [id, created, model] =
            [&id, &created, &model].map(|text| text.as_ref().map(String::as_bytes));
        self.name.take(id, created, model);
        self.name.fill(&self.stamp);
        for (key, text) in [
            ("id", &self.name.id),
            ("created", &self.name.created),
            ("model", &self.name.model),
        ] {
            chunk.insert(
                key.into(),
                serde_json::from_slice(text).unwrap_or(Value::Null),
            );
        }
        chunk.insert("object".into(), "chat.completion.chunk".into());
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

    /// Sets one choice right; every lower one is open. False: it says nothing, and its end has
    /// been told.
    fn mend_choice(
        &mut self,
        choice: &mut Map<String, Value>,
        index: usize,
    ) -> Result<bool, Failure> {
        if self.choices.len() == index {
            self.choices.push(ChoiceState::default());
        }
        let state = &mut self.choices[index];
        let word = choice.get("finish_reason").and_then(Value::as_str);
        if let Some(failure) = failure_of(choice.get("error"), word) {
            return Err(failure);
        }
        let word = match word {
            Some("") => None,
            // The reason is told once.
            _ if state.finished => None,
            word => word.map(str::to_owned),
        };
        let was_finished = state.finished;
        reshape(choice, "delta", !state.has_role);
        let delta = choice.entry("delta").or_insert(Value::Null);
        if !delta.is_object() {
            *delta = json!({});
        }
        let mut says = word.is_some();
        if let Value::Object(delta) = delta {
            if state.has_role {
                delta.shift_remove("role");
            } else {
                delta.insert("role".into(), "assistant".into());
                state.has_role = true;
            }
            one_reasoning(delta);
            if let Some(Value::Array(calls)) = delta.get_mut("tool_calls") {
                let place = (self.stamp.seed, index as u32, self.chunks);
                let mut kept = Vec::with_capacity(calls.len());
                for call in std::mem::take(calls) {
                    if let Value::Object(mut call) = call
                        && state.calls.mend(&mut call, place, &mut self.budget)?
                    {
                        add_piece(&mut kept, Value::Object(call));
                    }
                }
                *calls = kept;
            }
            if let Some(word) = &word {
                let is_cut = matches!(finish_word(word, None), "length" | "content_filter");
                let missing = state.calls.close(is_cut)?;
                if !missing.is_empty() {
                    let calls = delta.entry("tool_calls").or_insert(Value::Null);
                    if !calls.is_array() {
                        *calls = json!([]);
                    }
                    for piece in missing {
                        if let Value::Array(calls) = calls {
                            add_piece(calls, piece);
                        }
                    }
                }
            }
            if delta.get("tool_calls") == Some(&json!([])) {
                delta.shift_remove("tool_calls");
            }
            state.function |= delta.get("function_call").is_some_and(Value::is_object);
            says |= delta.values().any(says_something);
            let words = delta.iter().filter(|(key, _)| *key != "role");
            state.said |= words.map(|(_, value)| value).any(says_something);
        }
        if matches!(word.as_deref(), Some("tool_calls" | "function_call"))
            && state.called().is_none()
            && !state.said
        {
            return Err(Failure::malformed(NO_CALL));
        }
        let word = word.map(|word| finish_word(&word, state.called()));
        state.finished |= word.is_some();
        choice.insert("finish_reason".into(), word.into());
        Ok(says || !was_finished)
    }
}

/// What is wrong with an answer that tells of a call and of nothing else.
pub(super) const NO_CALL: &str = "the upstream's answer ended with a tool call and has none";

/// Thoughts by the one name that callers know, and once.
pub(super) fn one_reasoning(message: &mut Map<String, Value>) {
    if !message.get("reasoning").is_some_and(Value::is_string) {
        return;
    }
    let known = message.get("reasoning_content").is_some_and(says_something);
    if let Some(text) = message.shift_remove("reasoning")
        && !known
    {
        message.insert("reasoning_content".into(), text);
    }
}

/// Puts what a choice says where callers look for it, in its `place` (`delta` or `message`): some
/// servers write one for the other, the text of the older format, one call instead of a list, or the
/// calls beside the message. `is_first`: nothing of the choice has been told; behind pieces, a whole
/// message repeats them.
pub(super) fn reshape(choice: &mut Map<String, Value>, place: &str, is_first: bool) {
    let other = match place {
        "delta" => "message",
        _ => "delta",
    };
    let is_there = choice.get(place).is_some_and(Value::is_object);
    if is_first && !is_there && choice.get(other).is_some_and(Value::is_object) {
        let said = choice.shift_remove(other).unwrap_or_default();
        choice.insert(place.into(), said);
    }
    let text = choice.get("text").filter(|text| says_something(text));
    let text = text.filter(|text| text.is_string()).cloned();
    let calls = choice
        .get("tool_calls")
        .filter(|calls| says_something(calls));
    let calls = calls.cloned();
    if text.is_some() || calls.is_some() {
        let inner = choice.entry(place).or_insert(Value::Null);
        if !inner.is_object() {
            *inner = json!({});
        }
        if let Value::Object(inner) = inner {
            for (key, said) in [("content", text), ("tool_calls", calls)] {
                let is_told = inner.get(key).is_some_and(says_something);
                if let Some(said) = said.filter(|_| !is_told) {
                    inner.insert(key.into(), said);
                }
            }
        }
    }
    choice.shift_remove("tool_calls");
    if let Some(Value::Object(inner)) = choice.get_mut(place)
        && let Some(one) = inner
            .get_mut("tool_calls")
            .filter(|calls| calls.is_object())
    {
        *one = Value::Array(vec![one.take()]);
    }
}

/// The word that callers know for an upstream's finish reason. An answer that holds a call ended
/// with it: agents go by this word.
///
/// `called` is that word, if there was a call.
pub(super) fn finish_word(word: &str, called: Option<&'static str>) -> &'static str {
    match FINISH_WORDS.iter().find(|known| **known == word) {
        Some(&("stop" | "tool_calls" | "function_call")) => called.unwrap_or("stop"),
        Some(known) => known,
        None if holds(
            word,
            &[
                "length",
                "max_tokens",
                "token_limit",
                "context_window",
                "incomplete",
            ],
        ) =>
        {
            "length"
        }
        None if holds(word, WITHHELD) => "content_filter",
        None => called.unwrap_or("stop"),
    }
}

/// Parts of the words by which servers say that they withheld the answer.
const WITHHELD: &[&str] = &[
    "safety",
    "sensitive",
    "blocklist",
    "blocked",
    "prohibited",
    "recitation",
    "refusal",
    "filter",
    "moderation",
    "guardrail",
    "spii",
];

/// Parts of the words by which servers say that the answer broke off: `error`, `network_error`,
/// `abort`, `insufficient_system_resource` and whatever is alike.
const BROKEN: &[&str] = &[
    "error",
    "fail",
    "abort",
    "cancel",
    "timeout",
    "timed_out",
    "insufficient",
    "interrupt",
    "disconnect",
    "overload",
    "exhausted",
    "unavailable",
    "rate_limit",
    "malformed",
    "unexpected",
];

fn holds(word: &str, parts: &[&str]) -> bool {
    let word = word.to_ascii_lowercase();
    parts.iter().any(|part| word.contains(part))
}

/// Whether a finish reason says that the answer did not come to an end.
pub(super) fn is_failure(word: &str) -> bool {
    !FINISH_WORDS.contains(&word) && holds(word, BROKEN)
}

/// A choice that ended because something went wrong: by its `error`, or by its finish reason.
pub(super) fn failure_of(error: Option<&Value>, word: Option<&str>) -> Option<Failure> {
    if let Some(error) = error.filter(|error| says_something(error)) {
        let event = json!({ "error": error });
        return Some(Failure::from_event(event.to_string().as_bytes()));
    }
    let word = word.filter(|word| is_failure(word))?;
    Some(Failure::ended_with(word))
}

/// Some servers write an empty error beside every answer, and empty texts in every delta.
pub(super) fn says_something(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(object) => !object.is_empty(),
        _ => true,
    }
}

/// Errors that do not stand under `error`.
fn is_error(event: &Map<String, Value>) -> bool {
    let is = |key: &str| event.get(key).and_then(Value::as_str) == Some("error");
    is("object") || is("type") || event.contains_key("detail") || has_error_code(event)
}

/// A text, and beside it a number that says what kind of failure it tells.
pub(super) fn has_error_code(event: &Map<String, Value>) -> bool {
    let is_failure = |value: &Value| {
        let number = value.as_u64();
        let number = number.or_else(|| value.as_str()?.parse().ok());
        matches!(number, Some(400..=599))
    };
    let says = |key: &str| event.get(key).is_some_and(Value::is_string);
    let codes = ["code", "status", "status_code"];
    let mut codes = codes.iter().filter_map(|key| event.get(*key));
    ["message", "msg"].iter().any(|key| says(key)) && codes.any(is_failure)
}
