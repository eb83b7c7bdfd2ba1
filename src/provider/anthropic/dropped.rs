//! What of a request Claude cannot be told, noted for the caller.

use crate::error::ApiError;

/// Names of fields that were dropped with a warning.
#[derive(Debug)]
pub struct Dropped {
    strict: bool,
    names: Vec<String>,
}

impl Dropped {
    pub fn new(strict: bool) -> Dropped {
        Dropped {
            strict,
            names: Vec::new(),
        }
    }

    pub fn into_names(self) -> Vec<String> {
        self.names
    }

    /// Notes that `field` is left out. Strict configurations refuse the request instead.
    pub fn warn(&mut self, field: &str) -> Result<(), ApiError> {
        self.note(field, "cannot be honoured by this model")
    }

    /// Notes that calls and results did not pair up.
    pub fn repaired(&mut self) -> Result<(), ApiError> {
        self.note("messages", "has tool calls and results that do not pair up")
    }

    fn note(&mut self, field: &str, why: &str) -> Result<(), ApiError> {
        if self.strict {
            return Err(ApiError::unsupported_parameter(
                field,
                format!("{field} {why}"),
            ));
        }
        if !self.names.iter().any(|name| name == field) {
            self.names.push(field.to_owned());
        }
        Ok(())
    }
}
