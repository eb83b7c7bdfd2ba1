//! OpenAI's Chat Completions as callers speak it: requests in, chunks or one completion out.
//!
//! Works on bytes it is handed. Opens no connection, reads no clock, knows no upstreams.

mod chunks;
mod fold;
mod messages;
pub mod read;
mod request;
mod tools;
mod write;

pub use {
    chunks::Chunks,
    fold::Fold,
    request::{Head, LONGEST_MODEL},
    write::{CallIds, call_id, completion_id, finish_word, push_head, push_usage},
};

use crate::error::ApiError;

/// What is sent into a silent stream. A comment alone is safe: the official SDKs dispatch nothing
/// for it.
pub const HEARTBEAT: &[u8] = b": keep-alive\n\n";

/// What an answer says about itself, the same in every chunk.
#[derive(Debug, Clone)]
pub struct Stamp {
    /// For upstreams that name none, and the seed of generated tool-call ids.
    pub seed: u64,
    /// Unix seconds.
    pub created: u64,
    /// The model name the caller used.
    pub model: String,
    pub include_usage: bool,
    pub legacy_functions: bool,
}

/// The event that ends a stream which broke.
pub fn error_event(error: &ApiError) -> Vec<u8> {
    let mut event = b"data: ".to_vec();
    event.extend_from_slice(&error.to_json());
    event.extend_from_slice(b"\n\n");
    event
}

#[cfg(test)]
mod calls_tests;
#[cfg(test)]
mod chunks_tests;
#[cfg(test)]
mod fold_tests;
#[cfg(test)]
mod forms_tests;
#[cfg(test)]
pub mod property_tests;
#[cfg(test)]
mod request_tests;
