//! OpenAI's Responses: a chat request out, deltas in.

use std::sync::Arc;

use super::{Decoder, Encoded, Options, Provider, Undo};
use crate::chat::Request;
use crate::error::ApiError;

pub struct Responses;

impl Provider for Responses {
    fn encode(
        &self,
        _request: &Request<'_>,
        _model: &str,
        _options: &Options,
    ) -> Result<Encoded, ApiError> {
        Err(ApiError::new(501, "not yet"))
    }

    fn decoder(&self, _undo: Arc<Undo>) -> Box<dyn Decoder> {
        unreachable!()
    }
}
