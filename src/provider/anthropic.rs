//! Anthropic's Messages: a chat request out, deltas in.
//!
//! `encode` writes the body, `fields` and `format` its small parts; `messages` places the history,
//! `assistant` and `parts` its content, `tools` what may be called, `thinking` how hard to think.
//! `decode` reads the stream or the whole message. Works on bytes it is handed and knows no
//! callers.

use std::sync::Arc;

use super::names::Rule;
use super::{Decoder, Encoded, Options, Provider, Undo};
use crate::chat::Request;
use crate::error::ApiError;

mod assistant;
mod block;
mod decode;
mod dropped;
mod encode;
mod fields;
mod format;
mod kept;
pub(super) mod merge;
mod messages;
mod parts;
pub mod relay;
mod schema;
mod strictness;
mod thinking;
mod tools;
mod wire;

const fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

/// The vendor's pattern of tool names: `^[a-zA-Z0-9_-]{1,128}$`.
pub(super) const NAMES: Rule = Rule {
    longest: 128,
    is_byte: is_name_byte,
    is_first: is_name_byte,
};

/// And that of tool-call ids, which may have any length.
pub(super) const IDS: Rule = Rule {
    longest: usize::MAX,
    ..NAMES
};

/// What the config may say about every upstream that speaks this format.
#[derive(Debug, Clone)]
pub struct Switches {
    /// Let the provider place a cache mark at the end of every request.
    pub auto_cache: bool,
    /// A trailing assistant message that the model cannot continue is a 400, instead of getting
    /// a `Continue.` behind it.
    pub reject_prefill: bool,
    /// A forced tool choice that the model does not take is a 400, instead of becoming `auto`.
    pub reject_forced_tools: bool,
    /// What adaptive thinking shows.
    pub display: Display,
    /// `max_tokens` where the caller sets no limit; the model's own limit caps it.
    pub default_max_tokens: u64,
    /// Tools go out without `strict`.
    pub loose_tools: bool,
    /// The form of the answer is asked for in words, not enforced.
    pub format_in_words: bool,
}

/// `thinking.display` of adaptive thinking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Display {
    Summarized,
    Omitted,
    /// Not sent: the model's default.
    Unset,
}

impl Default for Switches {
    fn default() -> Self {
        Switches {
            auto_cache: false,
            reject_prefill: false,
            reject_forced_tools: false,
            display: Display::Summarized,
            default_max_tokens: 32_000,
            loose_tools: false,
            format_in_words: false,
        }
    }
}

pub struct Messages;

impl Provider for Messages {
    fn encode(
        &self,
        request: &Request<'_>,
        model: &str,
        options: &Options,
    ) -> Result<Encoded, ApiError> {
        encode::encode(request, model, options, &options.claude(model))
    }

    fn decoder(&self, undo: Arc<Undo>) -> Box<dyn Decoder> {
        Box::new(decode::Messages::new(undo))
    }
}

#[cfg(test)]
mod bounds_tests;
#[cfg(test)]
mod decode_tests;
#[cfg(test)]
pub mod property_tests;
#[cfg(test)]
mod recordings_tests;

#[cfg(test)]
#[test]
fn golden_cases() {
    crate::golden::check("anthropic", &Messages);
}
