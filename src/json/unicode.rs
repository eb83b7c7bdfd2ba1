//! JSON that is not quite Unicode: halves of surrogate pairs, and broken UTF-8.
//!
//! JSON admits `"\ud83d"`, half of a character, which no string here can hold and which some
//! providers refuse. Servers whose strings count in UTF-16 cut an emoji in two and send the halves
//! in two events; models end a cut argument with one. An answer is not lost for that: halves that
//! meet again are joined, and others become U+FFFD, as does broken UTF-8.

use std::borrow::Cow;

use serde::de::DeserializeOwned;

/// Stands for what was no character.
const LOST: &str = "\\ufffd";

/// What one event of a stream left for the next.
#[derive(Debug, Default)]
pub struct Seam {
    /// The first half of a pair, which ended a string and was taken off it.
    high: Option<u16>,
}

impl Seam {
    /// The data of the next event, as text that every string of it can be read from.
    pub fn mend<'a>(&mut self, data: &'a [u8]) -> Cow<'a, str> {
        let text = text_of(data);
        match rewritten(&text, Some(&mut self.high)) {
            Some(mended) => Cow::Owned(mended),
            None => text,
        }
    }
}

/// `json` without halves of pairs.
pub fn mended(json: &str) -> Cow<'_, str> {
    rewritten(json, None).map_or(Cow::Borrowed(json), Cow::Owned)
}

/// The JSON text of `bytes`, whatever they are, without halves of pairs.
pub fn mended_bytes(bytes: &[u8]) -> Cow<'_, str> {
    let text = text_of(bytes);
    match rewritten(&text, None) {
        Some(mended) => Cow::Owned(mended),
        None => text,
    }
}

/// `String::from_utf8_lossy`, which is slow with the text that is there nearly always.
fn text_of(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => String::from_utf8_lossy(bytes),
    }
}

/// Parses JSON that somebody else wrote, half pairs and all.
pub fn parse<T: DeserializeOwned>(json: &str) -> Result<T, serde_json::Error> {
    serde_json::from_str(json).or_else(|error| match mended(json) {
        Cow::Borrowed(_) => Err(error),
        Cow::Owned(mended) => serde_json::from_str(&mended),
    })
}

/// `None` where nothing has to change. With a `seam`, a first half at the end of a string waits
/// there for a second one at the beginning of another.
fn rewritten(json: &str, mut seam: Option<&mut Option<u16>>) -> Option<String> {
    let bytes = json.as_bytes();
    // Most text has no escape at all, and this search is a fast one.
    if !bytes.contains(&b'\\') {
        return None;
    }
    let mut out = String::new();
    let (mut at, mut copied) = (0, 0);
    while let Some(found) = bytes[at..].iter().position(|byte| *byte == b'\\') {
        at += found;
        let half = match unit(bytes, at) {
            None => {
                // What follows a backslash begins no escape of its own.
                at = (at + 2).min(bytes.len());
                continue;
            }
            Some(0xD800..=0xDBFF) if matches!(unit(bytes, at + 6), Some(0xDC00..=0xDFFF)) => {
                at += 12;
                continue;
            }
            Some(half @ 0xD800..=0xDFFF) => half,
            Some(_) => {
                at += 6;
                continue;
            }
        };
        out.push_str(&json[copied..at]);
        let ends = bytes.get(at + 6) == Some(&b'"');
        // A quote with a backslash before it is one inside of the string.
        let begins = bytes[..at].ends_with(b"\"") && !bytes[..at].ends_with(b"\\\"");
        match seam.as_deref_mut() {
            Some(high) if half < 0xDC00 && ends => *high = Some(half),
            Some(high) if half >= 0xDC00 && begins && high.is_some() => {
                let pair = char::decode_utf16(high.take().into_iter().chain([half]));
                out.extend(pair.map(|char| char.unwrap_or(char::REPLACEMENT_CHARACTER)));
            }
            _ => out.push_str(LOST),
        }
        at += 6;
        copied = at;
    }
    if copied == 0 {
        return None;
    }
    out.push_str(&json[copied..]);
    Some(out)
}

/// The unit that `\uXXXX` at `at` stands for.
fn unit(bytes: &[u8], at: usize) -> Option<u16> {
    let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
    digits.iter().try_fold(0, |unit, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        Some(unit << 4 | digit as u16)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_become_replacement_characters_and_nothing_else_changes() {
        for (json, expected) in [
            (r#""\ud83d""#, r#""\ufffd""#),
            (r#""a\ude00b\uD83D\n""#, r#""a\ufffdb\ufffd\n""#),
            (r#""\ud83d\ud83d\ude00""#, r#""\ufffd\ud83d\ude00""#),
            (
                r#"{"\udc00":["\ud83d\u0041"]}"#,
                r#"{"\ufffd":["\ufffd\u0041"]}"#,
            ),
            // The backslash is escaped, so what follows are five letters.
            (r#""\\ud83d""#, r#""\\ud83d""#),
            (r#""\\\ud83d""#, r#""\\\ufffd""#),
            (
                r#""\ud83d\ude00 \u00e9 \" \\""#,
                r#""\ud83d\ude00 \u00e9 \" \\""#,
            ),
            // What is no JSON is not made any.
            ("\\", "\\"),
            ("\\u", "\\u"),
            ("\"\\ud83", "\"\\ud83"),
            ("\"\u{e9}\\\u{e9}\\ud83d", "\"\u{e9}\\\u{e9}\\ufffd"),
        ] {
            assert_eq!(mended(json), expected, "{json}");
            assert_eq!(mended_bytes(json.as_bytes()), expected, "{json}");
        }
        assert_eq!(mended_bytes(b"\"a\xff\\udc00\""), "\"a\u{fffd}\\ufffd\"");
        assert_eq!(parse::<String>(r#""a\ud83d""#).unwrap(), "a\u{fffd}");
        assert!(parse::<String>(r#""a\ud83d"#).is_err());
    }

    #[test]
    fn halves_that_meet_in_the_next_event_are_one_character() {
        let joined = |events: &[&str]| {
            let mut seam = Seam::default();
            let texts = events.iter().map(|event| {
                let mended = seam.mend(event.as_bytes());
                serde_json::from_str::<Vec<String>>(&mended)
                    .unwrap()
                    .concat()
            });
            texts.collect::<String>()
        };
        assert_eq!(joined(&[r#"["a\ud83d"]"#, r#"["\ude00b"]"#]), "a\u{1f600}b");
        assert_eq!(
            joined(&[r#"["a\ud83d"]"#, r#"["", "ping"]"#, r#"["\ude00"]"#]),
            "aping\u{1f600}"
        );
        assert_eq!(joined(&[r#"["\ude00"]"#]), "\u{fffd}");
        assert_eq!(joined(&[r#"["a\ud83d"]"#, r#"["b\ude00"]"#]), "ab\u{fffd}");
        assert_eq!(
            joined(&[r#"["a\ud83d"]"#, r#"["\"\ude00"]"#]),
            "a\"\u{fffd}",
            "that quote begins no string"
        );
        assert_eq!(
            joined(&[r#"["a\ud83d"]"#, r#"["\ude00"]"#, r#"["\ude00"]"#]),
            "a\u{1f600}\u{fffd}"
        );
        assert_eq!(joined(&[r#"["a\ud83db"]"#]), "a\u{fffd}b");
    }
}
