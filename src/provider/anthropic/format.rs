//! `response_format`: a schema that the provider enforces, or a request in words.

use super::block::push_compact;
use super::dropped::Dropped;
use super::schema;
use super::strictness::Strictness;
use crate::chat::{Request, ResponseFormat};
use crate::error::ApiError;
use crate::provider::unfold::Budget;

const JSON_ONLY: &str = "Respond with a single JSON object and nothing else.";

/// The schema follows.
const BY_SCHEMA: &str =
    "Respond with a single JSON value that conforms to this JSON Schema and nothing else:\n";

/// How the answer is brought into the form that was asked for.
#[derive(Debug, Default)]
pub struct Format {
    /// For `output_config.format`.
    pub schema: Option<String>,
    /// Said in words, at the end of the system text.
    pub instruction: Option<String>,
    pub strip_fence: bool,
}

impl Format {
    /// `enforced`: the model can be held to a schema.
    pub fn new(
        request: &Request<'_>,
        enforced: bool,
        budget: &Budget,
        strictness: &mut Strictness,
        dropped: &mut Dropped,
    ) -> Result<Format, ApiError> {
        let in_words = |text: String| Format {
            schema: None,
            instruction: Some(text),
            strip_fence: true,
        };
        Ok(match &request.response_format {
            ResponseFormat::Text => Format::default(),
            ResponseFormat::JsonObject | ResponseFormat::JsonSchema { schema: None, .. } => {
                in_words(JSON_ONLY.into())
            }
            ResponseFormat::JsonSchema {
                schema: Some(raw), ..
            } => {
                let closed = enforced
                    .then(|| schema::anthropic_strict(raw, budget))
                    .flatten()
                    .filter(|closed| strictness.takes(closed));
                if closed.is_some() {
                    Format {
                        schema: closed,
                        ..Format::default()
                    }
                } else {
                    dropped.warn("response_format")?;
                    let mut text = BY_SCHEMA.as_bytes().to_vec();
                    push_compact(&mut text, raw.get());
                    in_words(String::from_utf8(text).unwrap_or_else(|_| JSON_ONLY.into()))
                }
            }
        })
    }
}
