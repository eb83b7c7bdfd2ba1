//! `Context`: what every part of the encoder knows, and what it leaves out.

use log::debug;

use crate::capability::OpenAi;
use crate::chat::Request;
use crate::error::ApiError;
use crate::provider::Options;
use crate::provider::names::Names;

/// What every part of the encoder knows.
pub struct Context<'r> {
    pub request: &'r Request<'r>,
    pub model: OpenAi,
    pub options: &'r Options,
    /// The provider keeps the answer, as the caller asked.
    pub stored: bool,
    /// Fields that were left out, told to the caller.
    pub dropped: Vec<String>,
    /// Tool names as the vendor takes them.
    pub names: Names<'r>,
}

impl Context<'_> {
    /// Leaves `field` out, or refuses the request where the configuration is strict.
    pub fn drop_field(&mut self, field: &str) -> Result<(), ApiError> {
        self.change(field, || format!("{field} is not supported by this model"))
    }

    /// Sends something else than the history says, or refuses it where the configuration is
    /// strict.
    pub fn repair(&mut self, why: &str) -> Result<(), ApiError> {
        self.change("messages", || why.to_owned())
    }

    fn change(&mut self, field: &str, why: impl FnOnce() -> String) -> Result<(), ApiError> {
        if self.options.strict {
            return Err(ApiError::unsupported_parameter(field, why()));
        }
        if !self.dropped.iter().any(|known| known == field) {
            debug!("responses: {}", why());
            self.dropped.push(field.to_owned());
        }
        Ok(())
    }
}
