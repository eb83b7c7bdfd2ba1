//! `Fields`: an object as a shallow list of raw values, and where JSON broke.
//!
//! The raw values point into the text they came from, so a field can be replaced without touching
//! a byte of the others. Knows nothing of any format.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

pub mod overlay;
pub mod shape;
pub mod unicode;

use shape::MOST_MEMBERS;

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
                while let Some(Text(key)) = map.next_key()? {
                    if fields.len() == MOST_MEMBERS {
                        return Err(too_many());
                    }
                    fields.push((key, map.next_value::<&'de RawValue>()?));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// The entries of a list, not looked into.
pub struct Entries<'a>(pub Vec<&'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Listed;
        impl<'de> Visitor<'de> for Listed {
            type Value = Entries<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON array")
            }

            fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<Entries<'de>, S::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = list.next_element()? {
                    if entries.len() == MOST_MEMBERS {
                        return Err(too_many());
                    }
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_seq(Listed)
    }
}

#[cold]
fn too_many<E: serde::de::Error>() -> E {
    E::custom(format_args!(
        "more than {MOST_MEMBERS} members in one place"
    ))
}

/// A string, borrowed where it holds no escape. (`Cow` alone would always be owned here.)
pub struct Text<'a>(pub Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Letters;
        impl<'de> Visitor<'de> for Letters {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Letters)
    }
}

/// The byte offset in `text` that a parse error speaks of.
pub fn error_offset(text: &str, error: &serde_json::Error) -> usize {
    if error.is_eof() {
        return text.len();
    }
    let before: usize = text
        .split_inclusive('\n')
        .take(error.line().saturating_sub(1))
        .map(str::len)
        .sum();
    (before + error.column().saturating_sub(1)).min(text.len())
}

/// `text` as a JSON string with its quotes, appended to `out`.
pub fn push_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    push_escaped(out, text);
    out.push(b'"');
}

/// The inside of a JSON string, for one that is written in several pieces.
///
/// U+0085, U+2028 and U+2029 are escaped although JSON does not ask for it: callers whose HTTP
/// client splits a stream with Python's `splitlines` would see the event break there.
pub fn push_escaped(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bytes = text.as_bytes();
    out.reserve(bytes.len());
    let mut copied = 0;
    let mut at = 0;
    while at < bytes.len() {
        at += plain_run(&bytes[at..]);
        let Some(&byte) = bytes.get(at) else { break };
        if !ESCAPED[usize::from(byte)] {
            at += 1;
            continue;
        }
        let (width, short): (usize, &[u8]) = match byte {
            b'"' => (1, b"\\\""),
            b'\\' => (1, b"\\\\"),
            b'\n' => (1, b"\\n"),
            b'\r' => (1, b"\\r"),
            b'\t' => (1, b"\\t"),
            0..=0x1f => (1, b""),
            _ if bytes[at..].starts_with(b"\xC2\x85") => (2, b"\\u0085"),
            _ if bytes[at..].starts_with(b"\xE2\x80\xA8") => (3, b"\\u2028"),
            _ if bytes[at..].starts_with(b"\xE2\x80\xA9") => (3, b"\\u2029"),
            _ => {
                at += 1;
                continue;
            }
        };
        out.extend_from_slice(&bytes[copied..at]);
        if short.is_empty() {
            out.extend_from_slice(b"\\u00");
            out.push(HEX[usize::from(byte >> 4)]);
            out.push(HEX[usize::from(byte & 15)]);
        } else {
            out.extend_from_slice(short);
        }
        at += width;
        copied = at;
    }
    out.extend_from_slice(&bytes[copied..]);
}

/// Bytes at which `push_escaped` has to look closer.
const ESCAPED: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = true;
        byte += 1;
    }
    table[b'"' as usize] = true;
    table[b'\\' as usize] = true;
    // The first bytes of U+0085 and of U+2028, U+2029.
    table[0xC2] = true;
    table[0xE2] = true;
    table
};

/// Whether a value is more than nothing: some servers write an empty `error` beside every answer.
pub fn says_something(json: &[u8]) -> bool {
    let inside = match json.trim_ascii() {
        [b'{', inside @ .., b'}'] | [b'[', inside @ .., b']'] | [b'"', inside @ .., b'"'] => inside,
        b"null" | b"false" => b"",
        other => other,
    };
    !inside.trim_ascii().is_empty()
}

/// `json`, which is valid, on one line: a raw line end can only stand between its tokens.
pub fn push_one_line(out: &mut Vec<u8>, json: &[u8]) {
    let start = out.len();
    out.extend_from_slice(json);
    if !json.contains(&b'\n') && !json.contains(&b'\r') {
        return;
    }
    for byte in &mut out[start..] {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
}

/// `json`, which is valid, on what everyone takes for one line: see `push_escaped`.
pub fn push_carried(out: &mut Vec<u8>, json: &str) {
    const ENDS: [char; 5] = ['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}'];
    for piece in json.split_inclusive(ENDS) {
        let text = piece.trim_end_matches(ENDS);
        out.extend_from_slice(text.as_bytes());
        // One of them at most; the last three can only stand in a string.
        match &piece[text.len()..] {
            "" => {}
            "\u{85}" => out.extend_from_slice(b"\\u0085"),
            "\u{2028}" => out.extend_from_slice(b"\\u2028"),
            "\u{2029}" => out.extend_from_slice(b"\\u2029"),
            _ => out.push(b' '),
        }
    }
}

/// `before`, then `"key":`. For keys of our own, which need no escapes.
pub fn push_key(out: &mut Vec<u8>, before: u8, key: &str) {
    out.push(before);
    out.push(b'"');
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(b"\":");
}

/// `number` in decimal, appended to `out`.
pub fn push_number(out: &mut Vec<u8>, number: u64) {
    use std::io::Write;
    write!(out, "{number}").expect("writing to memory does not fail");
}

/// How many bytes at the front are plain ASCII that needs no escape. The last few may be left to
/// the caller, because eight are looked at in one step.
fn plain_run(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 0xFF;
    const HIGH: u64 = ONES * 0x80;
    // Sets the high bit of the lowest zero byte, and perhaps of some above it.
    let zero = |word: u64| word.wrapping_sub(ONES) & !word;
    for (index, word) in bytes.as_chunks::<8>().0.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let quote = zero(word ^ (ONES * u64::from(b'"')));
        let backslash = zero(word ^ (ONES * u64::from(b'\\')));
        let found = (word | control | quote | backslash) & HIGH;
        if found != 0 {
            return index * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    bytes.len() / 8 * 8
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

    #[test]
    fn every_string_survives_and_stays_on_one_line() {
        let all: String = (0..0x300u32)
            .chain(0x2020..0x2030)
            .chain([0xFFFF, 0x1F600, 0x10FFFF])
            .filter_map(char::from_u32)
            .collect();
        for text in [
            &all,
            "",
            "plain",
            "\"",
            "\u{e9}\u{2014}\u{2028}",
            "a\\b\u{85}",
        ] {
            let mut out = Vec::new();
            push_string(&mut out, text);
            let json = String::from_utf8(out).unwrap();
            assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
            assert!(!json.contains(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']));
        }
    }

    #[test]
    fn escapes_are_found_at_every_place_of_a_word() {
        for (special, escaped) in [
            ("\"", r#"\""#),
            ("\\", r"\\"),
            ("\n", r"\n"),
            ("\u{0}", r"\u0000"),
            ("\u{1f}", r"\u001f"),
            (" ", " "),
            ("\u{7f}", "\u{7f}"),
            ("\u{85}", r"\u0085"),
            ("\u{e9}", "\u{e9}"),
            ("\u{2028}", r"\u2028"),
            ("\u{2027}", "\u{2027}"),
            ("\u{1f600}", "\u{1f600}"),
        ] {
            for before in 0..18 {
                for after in 0..10 {
                    let (head, tail) = ("x".repeat(before), "y".repeat(after));
                    let mut out = Vec::new();
                    push_string(&mut out, &format!("{head}{special}{tail}{special}"));
                    let expected = format!("\"{head}{escaped}{tail}{escaped}\"");
                    assert_eq!(String::from_utf8(out).unwrap(), expected);
                }
            }
        }
    }

    #[test]
    fn carried_json_keeps_its_meaning_on_one_line() {
        let json = "{\"a\":\r\n[\"\u{2028}\u{2029}\u{85}\u{e9}\",\n1.50]\n}";
        let mut out = Vec::new();
        push_carried(&mut out, json);
        let line = String::from_utf8(out).unwrap();
        assert_eq!(line, "{\"a\":  [\"\\u2028\\u2029\\u0085\u{e9}\", 1.50] }");
        let value: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&line).unwrap(),
            value
        );
    }
}
