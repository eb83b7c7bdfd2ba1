//! What a request says, as an upstream may say it again in its error.
//!
//! Words of an error that cost other callers a key or a model have to be the upstream's own. Many
//! servers repeat what they refuse, in quotes or without.

/// The texts of a request in lower case, without the escapes and with single spaces.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) enum Echo {
    /// Nothing was asked that could be repeated.
    #[default]
    None,
    Says(String),
    /// The request is not known any more, or too large to look through: it may say anything.
    Unknown,
}

impl Echo {
    /// Of the parts of a request: where it goes to, and its body.
    pub fn of(parts: &[&[u8]]) -> Echo {
        let length = parts.iter().map(|part| part.len() + 1).sum::<usize>();
        let mut once = String::new();
        // Lower case may be longer, for letters of which a megabyte is rare.
        if once.try_reserve(length + length / 2).is_err() {
            return Echo::Unknown;
        }
        for part in parts {
            spell_out(&String::from_utf8_lossy(part), &mut once);
            once.push('\n');
        }
        // JSON within a string of JSON, as the arguments of a call are.
        if once.contains(['\\', '%']) {
            let mut twice = String::new();
            if twice.try_reserve(2 * once.len()).is_err() {
                return Echo::Unknown;
            }
            spell_out(&once, &mut twice);
            twice.push_str(&once);
            once = twice;
        }
        Echo::Says(once)
    }

    pub fn has(&self, words: &str) -> bool {
        match self {
            Echo::None => false,
            Echo::Says(all) => all.contains(words),
            Echo::Unknown => true,
        }
    }

    /// One of its values is `word` and nothing else, as a name of something is.
    pub fn has_value(&self, word: &str) -> bool {
        let Echo::Says(all) = self else {
            return *self == Echo::Unknown;
        };
        all.match_indices(word).any(|(at, _)| {
            let behind = all[at + word.len()..].strip_prefix('"');
            all[..at].ends_with('"')
                && behind.is_some_and(|behind| !behind.trim_start().starts_with(':'))
        })
    }
}

/// `text` in lower case, with what JSON and addresses escape as it is meant.
fn spell_out(text: &str, into: &mut String) {
    let mut rest = text;
    while let Some(char) = rest.chars().next() {
        let (meant, length) = unescaped(rest).unwrap_or((char, char.len_utf8()));
        rest = &rest[length..];
        if meant.is_whitespace() || meant.is_control() {
            if !into.ends_with(' ') {
                into.push(' ');
            }
        } else {
            into.extend(meant.to_lowercase());
        }
    }
}

/// The character that an escape at the begin of `text` stands for, and how long it is.
fn unescaped(text: &str) -> Option<(char, usize)> {
    let hex = |digits: Option<&str>| u32::from_str_radix(digits?, 16).ok();
    let bytes = text.as_bytes();
    match (bytes[0], bytes.get(1)?) {
        (b'\\', b'u') => {
            let first = hex(text.get(2..6))?;
            let second = || match text.get(6..8) {
                Some("\\u") => hex(text.get(8..12)),
                _ => None,
            };
            match char::from_u32(first) {
                Some(char) => Some((char, 6)),
                None => {
                    let low = second().filter(|low| (0xdc00..0xe000).contains(low))?;
                    let high = first.checked_sub(0xd800).filter(|high| *high < 0x400)?;
                    let char = char::from_u32(0x10000 + (high << 10) + (low - 0xdc00))?;
                    Some((char, 12))
                }
            }
        }
        (b'\\', b'n' | b'r' | b't' | b'b' | b'f') => Some((' ', 2)),
        (b'\\', &mark @ (b'"' | b'\\' | b'/')) => Some((char::from(mark), 2)),
        (b'%', _) => {
            let byte = hex(text.get(1..3))?;
            char::from_u32(byte).filter(char::is_ascii).map(|c| (c, 3))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_request_says_is_known_however_it_is_written() {
        for said in [
            "invalid api key",
            "Invalid API Key",
            r"invalid \u0061pi key",
            r"invalid \u0041pi key",
            "invalid\tapi  \r\n key",
            r"invalid\n\napi key",
            r"invalid \\u0061pi key",
            "invalid%20api%20key",
            "invalid api \u{212a}ey",
            r"invalid api \u212aey",
        ] {
            let echo = Echo::of(&[b"/files", said.as_bytes()]);
            assert!(echo.has("invalid api key"), "{said}: {echo:?}");
        }
        let echo = Echo::of(&[
            b"/files",
            br#"{"a":"invalid","b":"api key \ud83d\ude00\ud83d"}"#,
        ]);
        assert!(!echo.has("invalid api key") && echo.has("api key \u{1f600}"));
        assert!(!Echo::default().has("a") && Echo::Unknown.has("a"));
    }

    #[test]
    fn a_name_is_a_whole_value() {
        let echo = Echo::of(&[br#"{"models": ["x/Nope"], "name" : "say x", "y":1}"#]);
        assert!(echo.has_value("x/nope") && echo.has_value("say x"));
        for word in ["nope", "x", "name", "models", "y", "z"] {
            assert!(!echo.has_value(word), "{word}");
        }
    }

    #[test]
    fn no_escape_is_one_too_many() {
        for text in [
            "\\",
            "\\u",
            "\\u12",
            "%",
            "%4",
            "%zz",
            "\\u12é",
            "%é",
            "\\ud800\\u0041",
        ] {
            assert!(
                Echo::of(&[text.as_bytes()]).has("z") == text.contains('z'),
                "{text}"
            );
        }
    }
}
