//! `Fields`: an object as a shallow list of raw values, and where JSON broke.
//!
//! The raw values point into the text they came from, so a field can be replaced without touching
//! a byte of the others. Knows nothing of any format.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The members of one JSON object in their order, not looked into.
#[derive(Debug, Default)]
pub struct Fields<'a>(pub Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Fields<'a> {
    /// The value of `key`; `null` counts as absent. Of doubled keys the last one counts.
    pub fn get(&self, key: &str) -> Option<&'a RawValue> {
        self.0
            .iter()
            .rev()
            .find(|(name, _)| name == key)
            .map(|(_, value)| *value)
            .filter(|value| value.get() != "null")
    }

    /// The value of `key`, if it is there and parses as `T`.
    pub fn parse<T: Deserialize<'a>>(&self, key: &str) -> Option<Result<T, serde_json::Error>> {
        self.get(key).map(|raw| serde_json::from_str(raw.get()))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Fields<'de>, M::Error> {
                let mut fields = Vec::with_capacity(16);
                while let Some(Key(key)) = map.next_key()? {
                    fields.push((key, map.next_value::<&'de RawValue>()?));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// An object key, borrowed where it holds no escape. (`Cow` alone would always be owned here.)
struct Key<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Key<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// The byte offset in `text` that a parse error speaks of.
pub fn error_offset(text: &str, error: &serde_json::Error) -> usize {
    let before: usize = text
        .split_inclusive('\n')
        .take(error.line().saturating_sub(1))
        .map(str::len)
        .sum();
    (before + error.column().saturating_sub(1)).min(text.len())
}

/// `text` as a JSON string with its quotes, appended to `out`.
pub fn push_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("writing to memory does not fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_their_order_and_bytes() {
        let text = r#"{"a": 1.50, "b\u0041": [ 1 ], "a": null, "c": {"x":"y"}}"#;
        let fields: Fields = serde_json::from_str(text).unwrap();
        let seen: Vec<_> = fields.0.iter().map(|(k, v)| (&**k, v.get())).collect();
        assert_eq!(
            seen,
            [
                ("a", "1.50"),
                ("bA", "[ 1 ]"),
                ("a", "null"),
                ("c", r#"{"x":"y"}"#)
            ]
        );
        assert!(
            fields.get("a").is_none(),
            "null counts as absent, and the last one wins"
        );
        assert_eq!(fields.get("c").unwrap().get(), r#"{"x":"y"}"#);
    }

    #[test]
    fn only_objects_are_taken() {
        for text in ["[1]", "1", "null", "\"x\"", "{", "{\"a\":}", ""] {
            assert!(serde_json::from_str::<Fields>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn offset_counts_bytes_over_lines() {
        let text = "{\n \"a\": 1,\n oops}";
        let error = serde_json::from_str::<Fields>(text).unwrap_err();
        assert_eq!(&text[error_offset(text, &error)..], "oops}");
    }
}
