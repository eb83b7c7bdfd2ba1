//! OpenAI's Chat Completions as callers speak it: requests in, chunks or one completion out.

use std::borrow::Cow;

use crate::chat::{Delta, DeltaSink, Request, Usage};
use crate::error::ApiError;
use crate::json::Fields;

/// The part of a request that routing needs; nothing else was looked into.
#[derive(Debug)]
pub struct Head<'a> {
    pub fields: Fields<'a>,
    pub model: Cow<'a, str>,
    pub stream: bool,
    pub include_usage: bool,
}

impl<'a> Head<'a> {
    /// Reads the body shallowly.
    pub fn read(_body: &'a [u8]) -> Result<Head<'a>, ApiError> {
        Err(ApiError::new(501, "not yet"))
    }

    /// Reads the rest: the request in the middle form.
    pub fn parse(&self) -> Result<Request<'a>, ApiError> {
        Err(ApiError::new(501, "not yet"))
    }
}

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

/// Deltas -> the events of a chat completion stream.
pub struct Chunks {
    _stamp: Stamp,
}

impl Chunks {
    pub fn new(stamp: Stamp) -> Self {
        Chunks { _stamp: stamp }
    }

    /// The events written since the last `clear`, ready to be sent in one piece.
    pub fn bytes(&self) -> &[u8] {
        &[]
    }

    pub fn clear(&mut self) {}

    /// Finish chunks, the usage chunk if asked for, `[DONE]`.
    pub fn finish(&mut self) {}

    /// What was counted so far.
    pub fn usage(&self) -> Usage {
        Usage::default()
    }
}

impl DeltaSink for Chunks {
    fn put(&mut self, _delta: Delta<'_>) {}
}

/// The event that ends a stream which broke.
pub fn error_event(error: &ApiError) -> Vec<u8> {
    let mut event = b"data: ".to_vec();
    event.extend_from_slice(&error.to_json());
    event.extend_from_slice(b"\n\n");
    event
}

/// Deltas -> one chat completion.
pub struct Fold {
    _stamp: Stamp,
}

impl Fold {
    pub fn new(stamp: Stamp) -> Self {
        Fold { _stamp: stamp }
    }

    pub fn usage(&self) -> Usage {
        Usage::default()
    }

    /// The completion as JSON.
    pub fn into_json(self) -> Vec<u8> {
        Vec::new()
    }
}

impl DeltaSink for Fold {
    fn put(&mut self, _delta: Delta<'_>) {}
}
