//! An answer as nothing but its text, for callers without a JSON parser.
//!
//! Of several choices the first one is written. What else there is to know stands in header lines:
//! before the body where it is known by then, behind it in a stream.

use super::openai::finish_word;
use super::{Streamed, Whole};
use crate::chat::{Delta, DeltaSink, FinishReason, Usage};
use crate::reply::push_header;

pub const CONTENT_TYPE: &str = "text/plain; charset=utf-8";

/// What the `Trailer` header of a stream names.
pub const TRAILERS: &str = "x-weir-finish-reason, x-weir-prompt-tokens, x-weir-completion-tokens";

/// One answer, streamed or whole.
#[derive(Debug, Default)]
pub struct Text {
    out: Vec<u8>,
    usage: Usage,
    reason: Option<FinishReason>,
    called: bool,
}

impl Text {
    fn facts(&self) -> String {
        let mut lines = String::new();
        let word = finish_word(self.reason, self.called, false);
        push_header(&mut lines, "x-weir-finish-reason", word);
        for (name, count) in [
            ("x-weir-prompt-tokens", self.usage.prompt),
            ("x-weir-completion-tokens", self.usage.completion),
        ] {
            if let Some(count) = count {
                push_header(&mut lines, name, &count.to_string());
            }
        }
        lines
    }
}

impl DeltaSink for Text {
    fn put(&mut self, delta: Delta<'_>) {
        match delta {
            // A refusal is what the model had to say.
            Delta::Text { candidate: 0, text } | Delta::Refusal { candidate: 0, text } => {
                self.out.extend_from_slice(text.as_bytes());
            }
            Delta::ToolStart { candidate: 0, .. } => self.called = true,
            Delta::Usage(usage) => self.usage.merge(usage),
            Delta::Finish {
                candidate: 0,
                reason,
            } => {
                self.reason.get_or_insert(reason);
            }
            _ => {}
        }
    }
}

impl Streamed for Text {
    fn bytes(&self) -> &[u8] {
        &self.out
    }

    fn clear(&mut self) {
        self.out.clear();
    }

    fn finish(&mut self) {}

    fn usage(&self) -> Usage {
        self.usage
    }

    fn trailers(&self) -> String {
        self.facts()
    }
}

impl Whole for Text {
    fn usage(&self) -> Usage {
        self.usage
    }

    fn lines(&self) -> String {
        self.facts()
    }

    fn into_body(self: Box<Self>) -> Vec<u8> {
        self.out
    }
}

/// Whether an `Accept` header asks for plain text rather than for JSON or events. Many clients
/// name plain text among others (`application/json, text/plain, */*`) and mean JSON, so it has to
/// be wanted more than each of them.
pub fn is_wanted(accept: &str) -> bool {
    let wishes = Wishes::read(accept);
    wishes.text > wishes.json.max(wishes.events).max(wishes.any)
}

/// Whether an `Accept` header asks for JSON where plain text is the usual answer.
pub fn is_json_wanted(accept: &str) -> bool {
    let wishes = Wishes::read(accept);
    wishes.json > wishes.text.max(wishes.any)
}

/// How much each kind of answer is wanted, from 0 to 1.
#[derive(Default)]
struct Wishes {
    text: f32,
    json: f32,
    events: f32,
    any: f32,
}

impl Wishes {
    fn read(accept: &str) -> Wishes {
        let mut wishes = Wishes::default();
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let quality = parts
                .filter_map(|part| part.split_once('='))
                .find(|(name, _)| name.trim().eq_ignore_ascii_case("q"))
                .map_or(1.0, |(_, value)| value.trim().parse().unwrap_or(0.0));
            let place = match kind.as_str() {
                "text/plain" => &mut wishes.text,
                "application/json" | "application/*" => &mut wishes.json,
                "text/event-stream" => &mut wishes.events,
                "*/*" => &mut wishes.any,
                _ => continue,
            };
            *place = place.max(quality);
        }
        wishes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_is_taken_for_wanted_only_where_it_is() {
        for (accept, wanted) in [
            ("text/plain", true),
            ("Text/Plain; charset=utf-8", true),
            ("text/plain, */*;q=0.5", true),
            ("text/html, text/plain;q=0.9, application/json;q=0.8", true),
            ("", false),
            ("*/*", false),
            ("text/*", false),
            ("text/plain;q=0", false),
            ("text/plain;q=x", false),
            ("application/json, text/plain, */*", false),
            ("text/event-stream, text/plain", false),
            ("text/plain, application/json", false),
        ] {
            assert_eq!(is_wanted(accept), wanted, "{accept}");
        }
    }

    #[test]
    fn json_is_wanted_by_name_only() {
        assert!(is_json_wanted("application/json"));
        assert!(is_json_wanted("application/json, */*;q=0.1"));
        for accept in ["", "*/*", "text/plain", "application/json, text/plain, */*"] {
            assert!(!is_json_wanted(accept), "{accept}");
        }
    }

    #[test]
    fn only_the_first_choice_is_heard() {
        let mut text = Text::default();
        for (candidate, piece) in [(0, "a"), (1, "x"), (0, "\u{fc}")] {
            text.put(Delta::Text {
                candidate,
                text: piece,
            });
        }
        text.put(Delta::Reasoning {
            candidate: 0,
            text: "hm",
        });
        text.put(Delta::Usage(Usage {
            prompt: Some(3),
            ..Usage::default()
        }));
        text.put(Delta::Finish {
            candidate: 0,
            reason: FinishReason::Length,
        });
        assert_eq!(
            text.trailers(),
            "x-weir-finish-reason: length\r\nx-weir-prompt-tokens: 3\r\n"
        );
        assert_eq!(Box::new(text).into_body(), "a\u{fc}".as_bytes());
    }
}
