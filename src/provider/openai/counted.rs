//! `Counter`: what an answer that only passes by says of tokens, and how much text it has.
//!
//! The answer is read a byte at a time as it passes, whatever pieces it comes in: the counters stand
//! in the member `usage` of the answer itself, or of the `response` that an event holds. The same
//! word elsewhere (in metadata, in a text) means nothing.

use serde_json::Value;

use crate::chat::Usage;

/// A usage object is not longer.
const LONGEST: usize = 4 * 1024;

/// Members whose text is part of an answer. Where there are pieces of it (`delta`, in the events of
/// Responses), the others repeat them.
const TEXTS: [&[u8]; 6] = [
    b"text",
    b"content",
    b"arguments",
    b"refusal",
    b"reasoning",
    b"reasoning_content",
];

/// Bytes of a member's name that are looked at; longer ones are none that mean something here.
const NAME: usize = 24;

/// Deeper than this no member means anything here.
const DEPTH: usize = 64;

#[derive(Debug, Default)]
pub struct Counter {
    /// What is open around the place: true for an object. Beyond `DEPTH`, only their number.
    open: Vec<bool>,
    deeper: usize,
    /// The name of the member at hand, and of the one around it at the top.
    name: Vec<u8>,
    in_response: bool,
    in_string: bool,
    escaped: bool,
    /// The string at hand is a name.
    is_name: bool,
    /// The string at hand is text of the answer.
    is_text: bool,
    has_deltas: bool,
    /// A value is what comes next.
    after_colon: bool,
    /// The usage object so far, and how deep it began.
    taken: Option<(Vec<u8>, usize)>,
    usage: Usage,
    heard: u64,
}

impl Counter {
    pub fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.take(byte);
        }
    }

    /// The next bytes are the whole of one event.
    pub fn push_event(&mut self, data: &[u8]) {
        let (usage, heard, has_deltas) = (self.usage, self.heard, self.has_deltas);
        *self = Counter {
            usage,
            heard,
            has_deltas,
            ..Counter::default()
        };
        self.push(data);
    }

    /// The last usage object in it, in any of the API's two spellings.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// Bytes of its text.
    pub fn heard(&self) -> u64 {
        self.heard
    }

    fn depth(&self) -> usize {
        self.open.len() + self.deeper
    }

    fn take(&mut self, byte: u8) {
        if let Some((taken, _)) = &mut self.taken {
            taken.push(byte);
            if taken.len() > LONGEST {
                self.taken = None;
            }
        }
        if self.in_string {
            return self.take_of_string(byte);
        }
        match byte {
            b'"' if self.depth() > 0 => {
                self.in_string = true;
                let in_object = self.deeper == 0 && self.open.last() == Some(&true);
                self.is_name = in_object && !self.after_colon;
                let is_delta = self.name == b"delta";
                self.is_text = self.after_colon
                    && (is_delta || !self.has_deltas && TEXTS.contains(&&*self.name));
                self.has_deltas |= self.is_text && is_delta;
                if self.is_name {
                    self.name.clear();
                }
            }
            b':' => self.after_colon = true,
            b',' => self.after_colon = false,
            b'{' | b'[' => {
                // Outside of all objects this begins the answer, or an event.
                let at = self.depth();
                let is_usage = byte == b'{' && self.after_colon && self.name == b"usage";
                if is_usage && (at == 1 || at == 2 && self.in_response) {
                    self.taken = Some((vec![byte], at));
                }
                if at == 1 {
                    self.in_response = byte == b'{' && self.name == b"response";
                }
                match at < DEPTH {
                    true => self.open.push(byte == b'{'),
                    false => self.deeper += 1,
                }
                self.after_colon = false;
            }
            b'}' | b']' => {
                match self.deeper {
                    0 => drop(self.open.pop()),
                    _ => self.deeper -= 1,
                }
                self.after_colon = false;
                if self
                    .taken
                    .as_ref()
                    .is_some_and(|(_, at)| *at == self.depth())
                    && let Some((taken, _)) = self.taken.take()
                {
                    self.note(&taken);
                }
            }
            _ => {}
        }
    }

    fn take_of_string(&mut self, byte: u8) {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' => self.escaped = true,
            b'"' => {
                self.in_string = false;
                // A list of texts has one name.
                self.after_colon &= self.is_name;
                return;
            }
            _ => {}
        }
        if self.is_name && self.name.len() < NAME {
            self.name.push(byte);
        }
        self.heard += u64::from(self.is_text);
    }

    fn note(&mut self, object: &[u8]) {
        let Ok(usage) = serde_json::from_slice::<Value>(object) else {
            return;
        };
        let count = |old: &str, new: &str| {
            let value = usage.get(old).or_else(|| usage.get(new))?;
            value.as_u64()
        };
        self.usage = Usage {
            prompt: count("prompt_tokens", "input_tokens"),
            completion: count("completion_tokens", "output_tokens"),
            ..Usage::default()
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counter(text: &str, size: usize) -> Counter {
        let mut counter = Counter::default();
        for piece in text.as_bytes().chunks(size) {
            counter.push(piece);
        }
        counter
    }

    const TOLD: &str =
        r#""usage": {"input_tokens":3,"output_tokens":4,"output_tokens_details":{"x":[1]}}"#;

    #[test]
    fn the_usage_of_the_answer_counts_wherever_it_stands_and_in_whatever_pieces_it_came() {
        let filler = "x".repeat(9_000);
        for text in [
            format!("{{{TOLD},\"metadata\":{{\"usage\":\"0\"}}}}"),
            format!("{{{TOLD},\"metadata\":{{\"usage\":{{\"input_tokens\":0}}}}}}"),
            format!("{{{TOLD},\"metadata\":{{\"a\":\"{filler}\"}}}}"),
            format!("{{\"a\":\"\\\"usage\\\":{{\",{TOLD},\"text\":\"{filler}\"}}"),
            format!("{{\n  \"list\": [{{\"usage\": {{\"input_tokens\": 9}}}}],\n  {TOLD}\n}}"),
            format!(
                "event: a\ndata: {{\"response\":{{\"usage\":null}}}}\n\n\
                 data: {{\"x\":{{\"usage\":{{\"input_tokens\":9}}}}}}\n\n\
                 data: {{\"response\":{{{TOLD},\"metadata\":{{\"usage\":\"{filler}\"}}}}}}\n\n"
            ),
            format!("data: {{\"choices\":[],{TOLD}}}\n\ndata: [DONE]\n\n"),
        ] {
            for size in [1, 7, 5000, 20_000] {
                let usage = counter(&text, size).usage();
                assert_eq!(
                    (usage.prompt, usage.completion),
                    (Some(3), Some(4)),
                    "{text}"
                );
            }
        }
        for none in [
            "",
            "\"usage\"",
            "{\"usage\":",
            "{\"usage\":nul",
            "{\"usage\":7}",
            "{\"usage\":{\"input_tokens\":3",
            "{\"a\":{\"usage\":{\"input_tokens\":3}}}",
            "{\"usage\":[{\"input_tokens\":3}]}",
            "]]}}{\"\\",
        ] {
            assert_eq!(counter(none, 3).usage(), Usage::default(), "{none}");
        }
        let deep = "[".repeat(1_000_000);
        assert_eq!(counter(&deep, 4096).usage(), Usage::default());
        let long = format!(
            "{{\"usage\":{{\"x\":\"{}\",\"input_tokens\":3}}}}",
            "x".repeat(LONGEST)
        );
        assert_eq!(counter(&long, 4096).usage(), Usage::default());
    }

    #[test]
    fn an_event_that_breaks_off_does_not_spoil_the_next() {
        let mut counter = Counter::default();
        counter.push_event(b"{\"delta\":{\"content\":\"ab");
        counter.push_event(b"{\"delta\":{\"content\":\"cde\"}}");
        assert_eq!(counter.heard(), 5);
    }

    #[test]
    fn the_text_of_an_answer_has_a_length() {
        for (text, length) in [
            (
                "data: {\"type\":\"response.output_text.delta\",\"delta\":\"abc\"}\n\n",
                3,
            ),
            ("{\"choices\":[{\"text\":\"abcd\",\"index\":0}]}", 4),
            ("{\"choices\":[{\"delta\":{\"content\":\"ab\\\"\"}}]}", 4),
            ("{\"data\":[{\"b64_json\":\"aaaaaaaa\"}]}", 0),
            ("{\"text\":1,\"x\":\"text\"}", 0),
        ] {
            assert_eq!(counter(text, 5).heard(), length, "{text}");
        }
    }
}
