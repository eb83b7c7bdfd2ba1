//! The shapes of the events and of the response object, after the vendor's API reference.
//!
//! Borrowed from the event where they can be. What a field holds depends on the kind of the event,
//! and servers of other makers have kinds of their own, so every field takes any JSON: one of the
//! wrong type counts as absent.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// One event of a stream.
#[derive(Deserialize)]
pub struct Event<'a> {
    #[serde(borrow, default, rename = "type")]
    pub kind: Text<'a>,
    #[serde(default)]
    pub output_index: Count,
    #[serde(default)]
    pub content_index: Count,
    #[serde(default)]
    pub summary_index: Count,
    #[serde(borrow, default)]
    pub delta: Text<'a>,
    #[serde(borrow, default, deserialize_with = "arguments")]
    pub arguments: Text<'a>,
    #[serde(borrow, default)]
    pub input: Text<'a>,
    /// A whole text, at its end.
    #[serde(borrow, default)]
    pub text: Text<'a>,
    #[serde(borrow, default)]
    pub refusal: Text<'a>,
    /// A `Part`.
    #[serde(borrow)]
    pub part: Option<&'a RawValue>,
    #[serde(borrow)]
    pub logprobs: Option<&'a RawValue>,
    #[serde(borrow)]
    pub annotation: Option<&'a RawValue>,
    /// An `Item`.
    #[serde(borrow)]
    pub item: Option<&'a RawValue>,
    /// A `Response`.
    #[serde(borrow)]
    pub response: Option<&'a RawValue>,
    #[serde(borrow)]
    pub error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
pub struct Response<'a> {
    #[serde(borrow, default)]
    pub id: Text<'a>,
    #[serde(borrow, default)]
    pub object: Text<'a>,
    #[serde(borrow, default)]
    pub model: Text<'a>,
    #[serde(borrow, default)]
    pub status: Text<'a>,
    #[serde(borrow, default)]
    pub service_tier: Text<'a>,
    /// A list of `Item`s.
    #[serde(borrow)]
    pub output: Option<&'a RawValue>,
    #[serde(borrow)]
    pub error: Option<&'a RawValue>,
    #[serde(borrow)]
    pub incomplete_details: Option<&'a RawValue>,
    #[serde(borrow)]
    pub usage: Option<&'a RawValue>,
}

/// One entry of `output`.
#[derive(Deserialize)]
pub struct Item<'a> {
    #[serde(borrow, default)]
    pub id: Text<'a>,
    #[serde(borrow, default, rename = "type")]
    pub kind: Text<'a>,
    #[serde(borrow, default)]
    pub call_id: Text<'a>,
    /// Of a message: `commentary` or `final_answer`.
    #[serde(borrow, default)]
    pub phase: Text<'a>,
    #[serde(borrow, default)]
    pub name: Text<'a>,
    #[serde(borrow, default, deserialize_with = "arguments")]
    pub arguments: Text<'a>,
    #[serde(borrow, default)]
    pub input: Text<'a>,
    /// A list of `Part`s.
    #[serde(borrow)]
    pub content: Option<&'a RawValue>,
    /// A list of `Part`s.
    #[serde(borrow)]
    pub summary: Option<&'a RawValue>,
}

#[derive(Deserialize)]
pub struct Part<'a> {
    #[serde(borrow, default, rename = "type")]
    pub kind: Text<'a>,
    #[serde(borrow, default)]
    pub text: Text<'a>,
    #[serde(borrow, default)]
    pub refusal: Text<'a>,
    /// A list of `Annotation`s.
    #[serde(borrow)]
    pub annotations: Option<&'a RawValue>,
    #[serde(borrow)]
    pub logprobs: Option<&'a RawValue>,
}

#[derive(Deserialize)]
pub struct Annotation<'a> {
    #[serde(borrow, default, rename = "type")]
    pub kind: Text<'a>,
    #[serde(borrow, default)]
    pub url: Text<'a>,
    #[serde(borrow, default)]
    pub title: Text<'a>,
    #[serde(default)]
    pub start_index: Count,
    #[serde(default)]
    pub end_index: Count,
}

#[derive(Deserialize)]
pub struct Incomplete<'a> {
    #[serde(borrow, default)]
    pub reason: Text<'a>,
}

#[derive(Deserialize)]
pub struct Usage<'a> {
    #[serde(default)]
    pub input_tokens: Count,
    #[serde(default)]
    pub output_tokens: Count,
    #[serde(borrow)]
    pub input_tokens_details: Option<&'a RawValue>,
    #[serde(borrow)]
    pub output_tokens_details: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
pub struct Details {
    #[serde(default)]
    pub cached_tokens: Count,
    #[serde(default)]
    pub cache_write_tokens: Count,
    #[serde(default)]
    pub reasoning_tokens: Count,
}

/// `raw` as a `T`, if it is one.
pub fn read<'a, T: Deserialize<'a>>(raw: Option<&'a RawValue>) -> Option<T> {
    serde_json::from_str(raw?.get()).ok()
}

/// The entries of `raw`, if it is a list.
pub fn list(raw: Option<&RawValue>) -> Vec<&RawValue> {
    read(raw).unwrap_or_default()
}

/// A string; anything else is the empty one.
#[derive(Default, Debug, PartialEq)]
pub struct Text<'a>(pub Cow<'a, str>);

impl std::ops::Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_any(Any)? {
            Value::Text(text) => Ok(Text(text)),
            Value::Number(_) | Value::Other => Ok(Text::default()),
        }
    }
}

/// The arguments of a call, which some servers write as the object that their text stands for.
fn arguments<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Text<'a>, D::Error> {
    let raw = <&RawValue>::deserialize(deserializer)?;
    match raw.get().starts_with('{') {
        true => Ok(Text(Cow::Borrowed(raw.get()))),
        false => Ok(read(Some(raw)).unwrap_or_default()),
    }
}

/// A counter; anything but a whole number from 0 up is none.
#[derive(Default, Debug, Clone, Copy, PartialEq)]
pub struct Count(pub Option<u64>);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_any(Any)? {
            Value::Number(number) => Ok(Count(Some(number))),
            Value::Text(_) | Value::Other => Ok(Count(None)),
        }
    }
}

enum Value<'a> {
    Text(Cow<'a, str>),
    Number(u64),
    Other,
}

struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value<'de>, E> {
        Ok(Value::Number(number))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Value<'de>, E> {
        Ok(Value::Other)
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value<'de>, E> {
        // Counts of some servers are written as `3.0`. The cast saturates.
        match number >= 0.0 && number.fract() == 0.0 {
            true => Ok(Value::Number(number as u64)),
            false => Ok(Value::Other),
        }
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value<'de>, E> {
        Ok(Value::Other)
    }

    fn visit_unit<E>(self) -> Result<Value<'de>, E> {
        Ok(Value::Other)
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<Value<'de>, S::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Other)
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Value<'de>, M::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Value::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_any_type_are_taken() {
        for json in ["null", "1", "-1", "1.5", "true", "[1,[]]", "{\"a\":{}}"] {
            let text = format!(
                r#"{{"type":"x","delta":{json},"output_index":{json},"item":{json},"input":{json}}}"#
            );
            let event: Event<'_> = serde_json::from_str(&text).unwrap();
            assert_eq!((&*event.kind, &*event.delta, &*event.input), ("x", "", ""));
            let number = (json == "1").then_some(1);
            assert_eq!(event.output_index, Count(number), "{json}");
        }
    }

    #[test]
    fn arguments_are_text_or_the_object_that_it_stands_for() {
        for (json, text) in [
            (r#""{\"a\":1}""#, r#"{"a":1}"#),
            (r#"{"a":1}"#, r#"{"a":1}"#),
            ("null", ""),
            ("7", ""),
        ] {
            let item = format!(r#"{{"type":"function_call","arguments":{json}}}"#);
            let item: Item<'_> = serde_json::from_str(&item).unwrap();
            assert_eq!(&*item.arguments, text, "{json}");
        }
    }

    #[test]
    fn text_without_escapes_is_borrowed() {
        let event: Event<'_> = serde_json::from_str(r#"{"delta":"plain"}"#).unwrap();
        assert!(matches!(event.delta.0, Cow::Borrowed("plain")));
        let event: Event<'_> = serde_json::from_str(r#"{"delta":"a\nb"}"#).unwrap();
        assert_eq!(&*event.delta, "a\nb");
    }
}
