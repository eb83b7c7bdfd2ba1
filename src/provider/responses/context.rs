//! `Context`: what every part of the encoder knows, and what it leaves out.

use log::debug;

use crate::capability::OpenAi;
use crate::chat::Request;
use crate::error::ApiError;
use crate::provider::Options;

/// What every part of the encoder knows.
pub struct Context<'r> {
    pub request: &'r Request<'r>,
    pub model: OpenAi,
    pub options: &'r Options,
    /// The provider keeps the answer, as the caller asked.
    pub stored: bool,
    /// Fields that were left out, told to the caller.
    pub dropped: Vec<String>,
}

impl Context<'_> {
    /// Leaves `field` out, or refuses the request where the configuration is strict.
    pub fn drop_field(&mut self, field: &str) -> Result<(), ApiError> {
        let why = || format!("{field} is not supported by this model");
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
