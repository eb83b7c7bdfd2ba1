//! Gemini's `generateContent`: a chat request out, deltas in.
//!
//! Works on bytes it is handed. Opens no connection, reads no clock, knows no callers. The answer
//! is always asked for as a stream.

use std::borrow::Cow;
use std::sync::Arc;

use super::names::Rule;
use super::{Decoder, Encoded, Options, Provider, Undo};
use crate::chat::Request;
use crate::error::ApiError;
use crate::json::unicode::mended;
use crate::json::{push_key, push_string};

mod audio;
mod candidate;
mod contents;
mod context;
mod continuing;
mod decode;
pub mod embed;
mod encode;
mod generation;
#[cfg(test)]
mod heard;
mod logprobs;
mod media;
mod merge;
mod partial;
#[cfg(test)]
pub mod property_tests;
pub mod relay;
#[cfg(test)]
mod replay;
mod schema;
mod spoken;
#[cfg(test)]
mod tests;
mod tools;
mod usage;
mod wire;
pub(super) mod write;

/// The vendor's pattern of function names, whose length depends on the model.
pub(super) const fn names(longest: usize) -> Rule {
    const fn is_first(byte: u8) -> bool {
        byte.is_ascii_alphabetic() || byte == b'_'
    }
    const fn is_byte(byte: u8) -> bool {
        byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b':' | b'-')
    }
    Rule {
        longest,
        is_byte,
        is_first,
    }
}

/// What the config may say about every upstream that speaks this format.
#[derive(Debug, Clone)]
pub struct Switches {
    /// The `safetySettings` to send, a JSON array.
    pub safety_settings: Option<String>,
    /// Ask for readable thoughts wherever a reasoning effort is asked for.
    pub include_thoughts: bool,
    /// Voice names of callers, with the vendor's. A voice that is not here is refused.
    pub voices: Vec<(String, String)>,
    /// A trailing assistant message is a 400, instead of getting a `Continue.` behind it.
    pub reject_prefill: bool,
}

impl Default for Switches {
    fn default() -> Self {
        Switches {
            safety_settings: None,
            include_thoughts: true,
            voices: Vec::new(),
            reject_prefill: false,
        }
    }
}

/// The `safetySettings` of these categories with their thresholds, as `Switches` takes them.
pub fn safety_settings(thresholds: &[(String, String)]) -> String {
    let mut out = vec![b'['];
    for (at, (category, threshold)) in thresholds.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        push_key(&mut out, b'{', "category");
        push_string(&mut out, category);
        push_key(&mut out, b',', "threshold");
        push_string(&mut out, threshold);
        out.push(b'}');
    }
    out.push(b']');
    String::from_utf8_lossy(&out).into_owned()
}

pub struct GenerateContent;

impl Provider for GenerateContent {
    fn encode(
        &self,
        request: &Request<'_>,
        model: &str,
        options: &Options,
    ) -> Result<Encoded, ApiError> {
        encode::encode(request, model, options)
    }

    fn decoder(&self, undo: Arc<Undo>) -> Box<dyn Decoder> {
        Box::new(decode::Decode::new(undo))
    }

    fn fetches(&self, url: &str, model: &str, options: &Options) -> bool {
        options.gemini(model).since_2_5 || media::is_uploaded(url)
    }
}

/// Valid JSON without the white space between its tokens, and without halves of characters, for
/// which a provider may refuse the whole request.
pub(super) fn compact(json: &str) -> Cow<'_, str> {
    match mended(json) {
        Cow::Borrowed(json) => without_blanks(json),
        Cow::Owned(json) => Cow::Owned(without_blanks(&json).into_owned()),
    }
}

fn without_blanks(json: &str) -> Cow<'_, str> {
    let mut inside = false;
    let mut escaped = false;
    let mut is_blank = |byte: u8| {
        if inside {
            if escaped {
                escaped = false;
            } else if byte == b'\\' {
                escaped = true;
            } else if byte == b'"' {
                inside = false;
            }
            return false;
        }
        inside = byte == b'"';
        matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
    };
    let Some(first) = json.bytes().position(&mut is_blank) else {
        return Cow::Borrowed(json);
    };
    let mut kept = Vec::with_capacity(json.len());
    kept.extend_from_slice(&json.as_bytes()[..first]);
    kept.extend(json.bytes().skip(first + 1).filter(|&byte| !is_blank(byte)));
    Cow::Owned(String::from_utf8(kept).expect("only ASCII was taken out"))
}
