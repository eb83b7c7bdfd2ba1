//! `Context`: what every part of the encoder knows, and what it leaves out.

use log::debug;

use crate::capability::Gemini;
use crate::chat::Request;
use crate::error::ApiError;
use crate::provider::Options;
use crate::provider::unfold::Budget;

/// What every part of the encoder knows.
pub struct Context<'r> {
    pub request: &'r Request<'r>,
    pub model: Gemini,
    pub options: &'r Options,
    /// For the schemas of all tools and of the answer.
    pub budget: Budget,
    /// Fields that were left out, told to the caller.
    pub dropped: Vec<String>,
}

impl Context<'_> {
    /// Leaves `field` out, or refuses the request where the configuration is strict.
    pub fn drop_field(&mut self, field: &str) -> Result<(), ApiError> {
        self.change(field, || format!("{field} is not supported by this model"))
    }

    /// Notes that tool calls and their results do not fit together, which the vendor would refuse.
    pub fn repair(&mut self, why: &str) -> Result<(), ApiError> {
        self.change("messages", || why.to_owned())
    }

    fn change(&mut self, field: &str, why: impl FnOnce() -> String) -> Result<(), ApiError> {
        if self.options.strict {
            return Err(ApiError::unsupported_parameter(field, why()));
        }
        if !self.dropped.iter().any(|known| known == field) {
            debug!("gemini: {}", why());
            self.dropped.push(field.to_owned());
        }
        Ok(())
    }
}
