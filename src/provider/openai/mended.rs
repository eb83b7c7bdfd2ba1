//! Mending whole answers of compatible servers, by the rules that hold for streams.

use std::borrow::Cow;
use std::collections::HashSet;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::calls::arguments_of;
use super::relay::{FINISH_WORDS, MAX_CHOICES};
use super::repair::{NO_CALL, failure_of, finish_word, one_reasoning, reshape, says_something};
use crate::dialect::openai::{Stamp, call_id, completion_id};
use crate::failure::Failure;
use crate::json::unicode::mended_bytes;

/// What has to be there for an answer to be passed on as it is.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    object: Cow<'a, str>,
    #[serde(rename = "created")]
    _created: u64,
    #[serde(borrow)]
    model: Cow<'a, str>,
    #[serde(borrow)]
    choices: Vec<Choice<'a>>,
    /// One that says something was found before.
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    /// `null` is something as well.
    #[serde(borrow, default, deserialize_with = "some_raw")]
    usage: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    index: usize,
    #[serde(borrow)]
    message: Message<'a>,
    #[serde(borrow)]
    finish_reason: Cow<'a, str>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    role: Cow<'a, str>,
    /// `null` is something as well.
    #[serde(borrow, default, deserialize_with = "some_raw")]
    content: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "some_list")]
    tool_calls: Option<Vec<Call<'a>>>,
    /// Thoughts by a name that callers do not know.
    #[serde(borrow)]
    reasoning: Option<&'a RawValue>,
    /// The form that was there before tools.
    #[serde(borrow)]
    function_call: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Call<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    function: Option<Function<'a>>,
}

#[derive(Deserialize)]
struct Function<'a> {
    #[serde(borrow)]
    arguments: Cow<'a, str>,
}

fn some_raw<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(input).map(Some)
}

/// A list; the schema has no `null` in its place.
fn some_list<'de: 'a, 'a, D: serde::Deserializer<'de>>(
    input: D,
) -> Result<Option<Vec<Call<'a>>>, D::Error> {
    Vec::deserialize(input).map(Some)
}

impl Answer<'_> {
    fn fits(&self) -> bool {
        !self.id.is_empty()
            && self.object == "chat.completion"
            && !self.model.is_empty()
            && self.error.is_none()
            && self.usage.is_none_or(|usage| usage.get() != "null")
            && self
                .choices
                .iter()
                .enumerate()
                .all(|(at, choice)| choice.fits(at))
    }
}

impl Message<'_> {
    fn thinks_by_another_name(&self) -> bool {
        self.reasoning
            .is_some_and(|text| text.get().starts_with('"'))
    }
}

impl Choice<'_> {
    fn fits(&self, position: usize) -> bool {
        let calls = self.message.tool_calls.as_deref().unwrap_or_default();
        let mut ids = HashSet::new();
        self.index == position
            && self.error.is_none()
            && self.message.role == "assistant"
            && self.message.content.is_some()
            && !self.message.thinks_by_another_name()
            && FINISH_WORDS.contains(&&*self.finish_reason)
            && match &*self.finish_reason {
                "stop" => calls.is_empty() && self.message.function_call.is_none(),
                "tool_calls" => !calls.is_empty(),
                "function_call" => self.message.function_call.is_some(),
                _ => true,
            }
            && calls.iter().all(|call| {
                let function = call.function.as_ref();
                !call.id.is_empty()
                    && !call.kind.is_empty()
                    && function.is_none_or(|function| !function.arguments.is_empty())
                    && ids.insert(&call.id)
            })
    }
}

/// The answer that came with status 200 as callers expect it; `None` if it is that already.
pub fn mended(body: &[u8], stamp: &Stamp) -> Result<Option<Vec<u8>>, Failure> {
    if serde_json::from_slice::<Answer>(body).is_ok_and(|answer| answer.fits()) {
        return Ok(None);
    }
    let parsed =
        serde_json::from_slice(body).or_else(|_| serde_json::from_str(&mended_bytes(body)));
    let Ok(Value::Object(mut answer)) = parsed else {
        return Err(Failure::malformed(
            "the upstream's answer is nested too deeply",
        ));
    };
    let is_text = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
    answer.shift_remove("error");
    if !answer.get("id").is_some_and(is_text) {
        answer.insert("id".into(), completion_id("", stamp.seed).into());
    }
    if answer
        .get("object")
        .is_none_or(|object| object != "chat.completion")
    {
        answer.insert("object".into(), "chat.completion".into());
    }
    if answer.get("usage").is_some_and(Value::is_null) {
        answer.shift_remove("usage");
    }
    if !answer.get("created").is_some_and(Value::is_u64) {
        answer.insert("created".into(), stamp.created.into());
    }
    if !answer.get("model").is_some_and(is_text) {
        answer.insert("model".into(), stamp.model.clone().into());
    }
    let choices = answer.get_mut("choices").and_then(Value::as_array_mut);
    let choices = choices.map(std::mem::take).unwrap_or_default();
    let mut seen = HashSet::new();
    let mut are_numbered = choices.iter().map(|choice| choice.get("index"));
    let are_numbered = are_numbered.all(|index| {
        index
            .and_then(Value::as_u64)
            .is_some_and(|index| seen.insert(index))
    });
    let mut kept = Vec::new();
    for choice in choices {
        if let Value::Object(mut choice) = choice
            && kept.len() < MAX_CHOICES
        {
            if !are_numbered {
                choice.insert("index".into(), kept.len().into());
            }
            mend_choice(&mut choice, kept.len(), stamp.seed)?;
            kept.push(Value::Object(choice));
        }
    }
    if kept.is_empty() {
        return Err(Failure::malformed(
            "the upstream's answer has no valid choice",
        ));
    }
    answer.insert("choices".into(), Value::Array(kept));
    Ok(Some(Value::Object(answer).to_string().into_bytes()))
}

fn mend_choice(choice: &mut Map<String, Value>, position: usize, seed: u64) -> Result<(), Failure> {
    let word = choice.get("finish_reason").and_then(Value::as_str);
    if let Some(failure) = failure_of(choice.get("error"), word) {
        return Err(failure);
    }
    let word = word.unwrap_or_default().to_owned();
    reshape(choice, "message", true);
    let message = choice.entry("message").or_insert(Value::Null);
    if !message.is_object() {
        *message = json!({});
    }
    let mut called = None;
    if let Value::Object(message) = message {
        message.insert("role".into(), "assistant".into());
        message.entry("content").or_insert(Value::Null);
        one_reasoning(message);
        if message.get("function_call").is_some_and(Value::is_object) {
            called = Some("function_call");
        }
        match message.get_mut("tool_calls") {
            Some(Value::Array(calls)) => {
                calls.retain(Value::is_object);
                mend_calls(calls, position, seed);
                if !calls.is_empty() {
                    called = Some("tool_calls");
                }
            }
            Some(_) => {
                message.shift_remove("tool_calls");
            }
            None => {}
        }
    }
    let says = choice
        .get("message")
        .and_then(Value::as_object)
        .is_some_and(|message| {
            let mut members = message.iter().filter(|(key, _)| *key != "role");
            members.any(|(_, value)| says_something(value))
        });
    let word = match &*word {
        "" => called.unwrap_or("stop"),
        "tool_calls" | "function_call" if called.is_none() && !says => {
            return Err(Failure::malformed(NO_CALL));
        }
        word => finish_word(word, called),
    };
    choice.insert("finish_reason".into(), word.into());
    Ok(())
}

/// Each call has an id that no other one has, and a type.
fn mend_calls(calls: &mut [Value], choice: usize, seed: u64) {
    let mut ids = HashSet::new();
    for (at, call) in calls
        .iter_mut()
        .filter_map(Value::as_object_mut)
        .enumerate()
    {
        let id = call.get("id").and_then(Value::as_str).unwrap_or_default();
        let id = match id.is_empty() || ids.contains(id) {
            true => call_id("", seed, choice as u32, at).into_owned(),
            false => id.to_owned(),
        };
        call.insert("id".into(), id.clone().into());
        ids.insert(id);
        let has_type = call
            .get("type")
            .and_then(Value::as_str)
            .is_some_and(|kind| !kind.is_empty());
        if !has_type {
            let kind = if call.contains_key("custom") {
                "custom"
            } else {
                "function"
            };
            call.insert("type".into(), kind.into());
        }
        if let Some(Value::Object(function)) = call.get_mut("function") {
            let arguments = match arguments_of(function.get("arguments")) {
                text if text.is_empty() => "{}".into(),
                text => text,
            };
            function.insert("arguments".into(), arguments.into());
        }
    }
}
