//! Content blocks on their way out, and the one way they are written.
//!
//! Blocks borrow from the request until the body is written, so that every text is copied once.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::json::unicode::mended;
use crate::json::{Fields, push_string};

/// One content block with its cache mark.
#[derive(Debug)]
pub struct Block<'r> {
    pub kind: Kind<'r>,
    pub mark: Option<Mark<'r>>,
}

#[derive(Debug)]
pub enum Kind<'r> {
    Text(Cow<'r, str>),
    Media(Media<'r>),
    ToolUse {
        id: Cow<'r, str>,
        name: Cow<'r, str>,
        input: Input<'r>,
    },
    ToolResult {
        id: Cow<'r, str>,
        content: Content<'r>,
        is_error: bool,
    },
    /// A `thinking` or `redacted_thinking` block, ready as JSON.
    Thinking(Vec<u8>),
}

/// An image or a document.
#[derive(Debug)]
pub enum Media<'r> {
    Image {
        mime: &'static str,
        base64: &'r str,
    },
    ImageUrl(&'r str),
    Pdf {
        base64: &'r str,
        title: Option<&'r str>,
    },
    PlainText {
        text: String,
        title: Option<&'r str>,
    },
    FileId {
        id: &'r str,
        title: Option<&'r str>,
    },
}

/// What a tool is called with.
#[derive(Debug)]
pub enum Input<'r> {
    /// A JSON object, as text.
    Object(&'r str),
    /// Any other JSON value, as text.
    Value(&'r str),
    /// Not JSON at all.
    Invalid(&'r str),
    /// The free text of a custom tool.
    Custom(&'r str),
}

impl<'r> Input<'r> {
    /// The arguments text of a function call, which may be anything.
    pub fn of_arguments(arguments: &'r str) -> Self {
        let trimmed = arguments.trim_ascii();
        if trimmed.is_empty() || trimmed == "null" {
            return Input::Object("{}");
        }
        match serde_json::from_str::<&RawValue>(trimmed) {
            Ok(raw) if raw.get().starts_with('{') => Input::Object(raw.get()),
            Ok(raw) => Input::Value(raw.get()),
            Err(_) => Input::Invalid(arguments),
        }
    }
}

#[derive(Debug)]
pub enum Content<'r> {
    Nothing,
    Text(&'r str),
    Blocks(Vec<Block<'r>>),
}

/// A cache breakpoint.
#[derive(Debug, Clone, Copy)]
pub enum Mark<'r> {
    /// The caller's own `cache_control`.
    Given(&'r RawValue),
    FiveMinutes,
    OneHour,
}

impl<'r> Mark<'r> {
    /// The mark of something that carries Anthropic's or OpenAI's form of it.
    pub fn of(
        cache_control: Option<&'r RawValue>,
        breakpoint: Option<&'r RawValue>,
    ) -> Option<Mark<'r>> {
        if let Some(raw) = cache_control.filter(|raw| raw.get().starts_with('{')) {
            return Some(Mark::Given(raw));
        }
        let raw = breakpoint.filter(|raw| raw.get() != "false")?;
        let ttl = serde_json::from_str::<Fields>(raw.get())
            .ok()
            .and_then(|fields| fields.get("ttl"));
        match ttl.map(RawValue::get) {
            Some("\"12h\"") => Some(Mark::OneHour),
            _ => Some(Mark::FiveMinutes),
        }
    }
}

impl<'r> Block<'r> {
    pub fn new(kind: Kind<'r>) -> Self {
        Block { kind, mark: None }
    }

    pub fn text(text: impl Into<Cow<'r, str>>) -> Self {
        Block::new(Kind::Text(text.into()))
    }

    pub fn is_thinking(&self) -> bool {
        matches!(self.kind, Kind::Thinking(_))
    }
}

/// A request body that is being written.
#[derive(Debug, Default)]
pub struct Body {
    pub bytes: Vec<u8>,
    /// So many of the coming cache marks are left out: the provider takes four.
    pub skip_marks: usize,
}

impl Body {
    pub fn raw(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
    }

    pub fn string(&mut self, text: &str) {
        push_string(&mut self.bytes, text);
    }

    /// `,"key":"text"`.
    pub fn member(&mut self, key: &str, text: &str) {
        self.raw(",\"");
        self.raw(key);
        self.raw("\":");
        self.string(text);
    }

    /// A JSON value without the white space between its tokens; the rest stays as it is.
    pub fn compact(&mut self, json: &str) {
        push_compact(&mut self.bytes, json);
    }

    /// `items` with commas between them.
    pub fn list<T>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        mut write: impl FnMut(&mut Self, T),
    ) {
        self.raw("[");
        for (index, item) in items.into_iter().enumerate() {
            if index > 0 {
                self.raw(",");
            }
            write(self, item);
        }
        self.raw("]");
    }

    pub fn mark(&mut self, mark: Option<&Mark<'_>>) {
        let Some(mark) = mark else { return };
        if self.skip_marks > 0 {
            self.skip_marks -= 1;
            return;
        }
        self.raw(",\"cache_control\":");
        match mark {
            Mark::Given(raw) => self.compact(raw.get()),
            Mark::FiveMinutes => self.raw(r#"{"type":"ephemeral"}"#),
            Mark::OneHour => self.raw(r#"{"type":"ephemeral","ttl":"1h"}"#),
        }
    }

    pub fn blocks(&mut self, blocks: &[Block<'_>]) {
        self.list(blocks, |body, block| body.block(block));
    }

    fn block(&mut self, block: &Block<'_>) {
        match &block.kind {
            Kind::Text(text) => {
                self.raw(r#"{"type":"text","text":"#);
                self.string(text);
            }
            Kind::Media(media) => self.media(media),
            Kind::ToolUse { id, name, input } => {
                self.raw(r#"{"type":"tool_use""#);
                self.member("id", id);
                self.member("name", name);
                self.raw(",\"input\":");
                self.input(input);
            }
            Kind::ToolResult {
                id,
                content,
                is_error,
            } => {
                self.raw(r#"{"type":"tool_result""#);
                self.member("tool_use_id", id);
                match content {
                    Content::Nothing => {}
                    Content::Text(text) => self.member("content", text),
                    Content::Blocks(blocks) => {
                        self.raw(",\"content\":");
                        self.blocks(blocks);
                    }
                }
                if *is_error {
                    self.raw(",\"is_error\":true");
                }
            }
            // The provider takes no cache mark on these.
            Kind::Thinking(json) => {
                self.bytes.extend_from_slice(json);
                return;
            }
        }
        self.mark(block.mark.as_ref());
        self.raw("}");
    }

    fn media(&mut self, media: &Media<'_>) {
        let title = match media {
            Media::Image { mime, base64 } => {
                self.raw(r#"{"type":"image","source":{"type":"base64","media_type":""#);
                self.raw(mime);
                self.raw("\"");
                self.member("data", base64);
                None
            }
            Media::ImageUrl(url) => {
                self.raw(r#"{"type":"image","source":{"type":"url""#);
                self.member("url", url);
                None
            }
            Media::Pdf { base64, title } => {
                self.raw(r#"{"type":"document","source":{"type":"base64","#);
                self.raw(r#""media_type":"application/pdf""#);
                self.member("data", base64);
                *title
            }
            Media::PlainText { text, title } => {
                self.raw(r#"{"type":"document","source":{"type":"text","#);
                self.raw(r#""media_type":"text/plain""#);
                self.member("data", text);
                *title
            }
            Media::FileId { id, title } => {
                self.raw(r#"{"type":"document","source":{"type":"file""#);
                self.member("file_id", id);
                *title
            }
        };
        self.raw("}");
        if let Some(title) = title {
            self.member("title", title);
        }
    }

    fn input(&mut self, input: &Input<'_>) {
        match input {
            Input::Object(json) => self.compact(json),
            Input::Value(json) => {
                self.raw(r#"{"value":"#);
                self.compact(json);
                self.raw("}");
            }
            Input::Invalid(text) => {
                self.raw(r#"{"INVALID_JSON":"#);
                self.string(text);
                self.raw("}");
            }
            Input::Custom(text) => {
                self.raw(r#"{"input":"#);
                self.string(text);
                self.raw("}");
            }
        }
    }
}

/// Appends a valid JSON value without the white space between its tokens, and without halves of
/// characters, for which the provider refuses the whole request: a model's cut arguments would
/// spoil the conversation for good.
pub fn push_compact(out: &mut Vec<u8>, json: &str) {
    let json = mended(json);
    let bytes = json.as_bytes();
    out.reserve(bytes.len());
    // Start of the bytes that were looked at and not yet copied.
    let mut from = 0;
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                at += 1;
                while at < bytes.len() && bytes[at] != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            b' ' | b'\t' | b'\n' | b'\r' => {
                out.extend_from_slice(&bytes[from..at]);
                at += 1;
                from = at;
            }
            _ => at += 1,
        }
    }
    out.extend_from_slice(&bytes[from..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compaction_touches_only_the_space_between_tokens() {
        for (given, expected) in [
            (
                " { \"a b\" : [ 1.50 ,\t\"x \\\" y\" ]\r\n} ",
                r#"{"a b":[1.50,"x \" y"]}"#,
            ),
            (r#"{"a":"\\"}"#, r#"{"a":"\\"}"#),
            ("1", "1"),
            ("\"gr\u{fc} n\"", "\"gr\u{fc} n\""),
        ] {
            let mut out = Vec::new();
            push_compact(&mut out, given);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    #[test]
    fn marks_of_both_forms() {
        let raw = |text: &'static str| serde_json::from_str::<&RawValue>(text).unwrap();
        let own = raw(r#"{"type":"ephemeral"}"#);
        assert!(matches!(Mark::of(Some(own), None), Some(Mark::Given(_))));
        for (text, hour) in [
            (r#"{"mode":"explicit"}"#, false),
            (r#"{"ttl":"30m"}"#, false),
            (r#"{"ttl":"12h"}"#, true),
            ("true", false),
        ] {
            let mark = Mark::of(None, Some(raw(text))).unwrap();
            assert_eq!(matches!(mark, Mark::OneHour), hour, "{text}");
        }
        assert!(Mark::of(None, Some(raw("false"))).is_none());
        assert!(Mark::of(None, None).is_none());
    }
}
