//! OpenAI's Responses: a chat request out, deltas in.
//!
//! `encode` writes the body, `fields` its small parts; `items` the history, `tools` what may be
//! called. `decode` reads the stream or the whole response, `speech` what a message says, and
//! `failed` what went wrong. Works on bytes it is handed and knows no callers. The answer is
//! always asked for as a stream.

use std::sync::Arc;

use super::{Decoder, Encoded, Options, Provider, Undo};
use crate::chat::Request;
use crate::error::ApiError;

mod context;
mod decode;
mod encode;
mod failed;
mod fields;
mod items;
mod speech;
mod told;
mod tools;
mod wire;

/// What the config may say about every upstream that speaks this format.
#[derive(Debug, Clone)]
pub struct Switches {
    /// Ask for a summary of the reasoning wherever an effort is asked for. Some models give it
    /// only to organisations that have proved who they are.
    pub summary: bool,
    /// Ask for reasoning that is sealed, wherever nothing is stored: only so it can come back.
    pub seal: bool,
}

impl Default for Switches {
    fn default() -> Self {
        Switches {
            summary: true,
            seal: true,
        }
    }
}

pub struct Responses;

impl Provider for Responses {
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
}

#[cfg(test)]
mod decode_tests;
#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod recordings_tests;

#[cfg(test)]
#[test]
fn golden_cases() {
    crate::golden::check("responses", &Responses);
}
