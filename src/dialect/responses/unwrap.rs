//! The text of a free-form tool, out of the arguments of the function that stands for it, while they
//! come in pieces.

use super::tools::{INPUT, unwrapped};

/// Takes the arguments piece by piece.
#[derive(Debug, Default)]
pub struct Unwrap {
    state: State,
    /// What was read of the beginning, or of an escape.
    pending: String,
    /// The first half of a pair.
    high: Option<u16>,
    /// What was given out.
    told: String,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the text.
    #[default]
    Before,
    Inside,
    /// Behind a backslash.
    Escape,
    /// Behind the text, or it is not the one that was expected: nothing is told before the end.
    Over,
}

/// What the arguments begin with, without white space.
fn beginning() -> String {
    format!("{{\"{INPUT}\":\"")
}

impl Unwrap {
    /// More of the text, if there is.
    pub fn take(&mut self, piece: &str) -> String {
        let mut out = String::new();
        for c in piece.chars() {
            match self.state {
                State::Before => self.before(c),
                State::Inside => match c {
                    '"' => self.state = State::Over,
                    '\\' => self.state = State::Escape,
                    c => self.push(c, &mut out),
                },
                State::Escape => self.escape(c, &mut out),
                State::Over => {}
            }
        }
        self.told.push_str(&out);
        out
    }

    /// What is missing, and the whole text. `arguments` are all that came.
    pub fn finish(&mut self, arguments: &str) -> (String, String) {
        let whole = unwrapped(arguments);
        match whole.strip_prefix(&*self.told) {
            Some(rest) => (rest.to_owned(), whole.into_owned()),
            // Cut short, or not as it should be: what was told stays so.
            None => (String::new(), std::mem::take(&mut self.told)),
        }
    }

    fn before(&mut self, c: char) {
        if c.is_ascii_whitespace() {
            return;
        }
        self.pending.push(c);
        let beginning = beginning();
        if self.pending == beginning {
            self.pending.clear();
            self.state = State::Inside;
        } else if !beginning.starts_with(&self.pending) {
            self.state = State::Over;
        }
    }

    fn push(&mut self, c: char, out: &mut String) {
        if self.high.take().is_some() {
            out.push(char::REPLACEMENT_CHARACTER);
        }
        out.push(c);
    }

    fn escape(&mut self, c: char, out: &mut String) {
        if self.pending.is_empty() && c != 'u' {
            self.state = State::Inside;
            let plain = match c {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                'b' => '\u{8}',
                'f' => '\u{c}',
                '"' | '\\' | '/' => c,
                // It is no JSON.
                _ => {
                    self.state = State::Over;
                    return;
                }
            };
            return self.push(plain, out);
        }
        if !self.pending.is_empty() && !c.is_ascii_hexdigit() {
            self.state = State::Over;
            return;
        }
        self.pending.push(c);
        let Some(digits) = self.pending.get(1..5) else {
            return;
        };
        let unit = u16::from_str_radix(digits, 16);
        self.pending.clear();
        self.state = State::Inside;
        let Ok(unit) = unit else {
            self.state = State::Over;
            return;
        };
        match (self.high.take(), unit) {
            (None, 0xd800..=0xdbff) => self.high = Some(unit),
            (None, unit) => out.extend(char::decode_utf16([unit]).map(or_replaced)),
            (Some(high), 0xdc00..=0xdfff) => {
                out.extend(char::decode_utf16([high, unit]).map(or_replaced));
            }
            (Some(_), unit) => {
                out.push(char::REPLACEMENT_CHARACTER);
                match unit {
                    0xd800..=0xdbff => self.high = Some(unit),
                    unit => out.extend(char::decode_utf16([unit]).map(or_replaced)),
                }
            }
        }
    }
}

fn or_replaced(read: Result<char, std::char::DecodeUtf16Error>) -> char {
    read.unwrap_or(char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_comes_out_as_it_comes_in_wherever_it_is_cut() {
        for (arguments, text) in [
            (
                r#"{"input": "*** Begin\n\"\u00e9\\\"\n"}"#,
                "*** Begin\n\"\u{e9}\\\"\n",
            ),
            (
                " { \"input\" :\"a\\ud83d\\ude00\u{1f600}\\/\\t\"\n}",
                "a\u{1f600}\u{1f600}/\t",
            ),
            (r#"{"input":""}"#, ""),
            (r#"{"input":"a","more":1}"#, "a"),
            (r#"{"patch":"a"}"#, "a"),
            (r#"{"a":"x","input":"b"}"#, "b"),
            ("*** Begin", "*** Begin"),
            ("{\"inputs\":[]}", "{\"inputs\":[]}"),
            ("", ""),
        ] {
            for cut in 0..=arguments.len() {
                let Some((one, two)) = arguments.split_at_checked(cut) else {
                    continue;
                };
                let mut unwrap = Unwrap::default();
                let mut told = unwrap.take(one) + &unwrap.take(two);
                let (rest, all) = unwrap.finish(arguments);
                told += &rest;
                assert_eq!((&*told, &*all), (text, text), "{arguments} at {cut}");
            }
        }
        let mut unwrap = Unwrap::default();
        assert_eq!(unwrap.take("{\"input\":\"ab"), "ab", "at once");
    }

    #[test]
    fn what_is_cut_short_or_odd_is_what_was_told() {
        for (arguments, text) in [
            (r#"{"input":"ab"#, "ab"),
            (r#"{"input":"ab\"#, "ab"),
            (r#"{"input":"ab\u00"#, "ab"),
            (r#"{"input":"ab\ud83d"#, "ab"),
            (r#"{"input":"ab\x"}"#, "ab"),
            ("{\"input\":\"ab\\uab\u{1f600}cd", "ab"),
            (r#"{"input":"a","input":"b"}"#, "a"),
        ] {
            let mut unwrap = Unwrap::default();
            assert_eq!(unwrap.take(arguments), text, "{arguments}");
            let (rest, all) = unwrap.finish(arguments);
            assert_eq!((&*rest, &*all), ("", text), "{arguments}");
        }
        for arguments in [
            r#"{"input":"a\ud83d"}"#,
            r#"{"input":"\ude00a"}"#,
            r#"{"input":"\ud83d\ud83d\ude00"}"#,
        ] {
            let mut unwrap = Unwrap::default();
            let told = unwrap.take(arguments);
            let (rest, all) = unwrap.finish(arguments);
            assert_eq!(told + &rest, all, "{arguments}");
        }
    }
}
