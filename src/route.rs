//! Model name -> `Route`, an ordered list of targets.

use crate::config::Config;

/// One place that can serve a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Index into `Config::upstreams`.
    pub upstream: usize,
    /// The model's name there.
    pub model: String,
}

/// The targets of `model` in the order to try them, by rules M1 to M3; empty for an unknown model.
pub fn route(_config: &Config, _model: &str) -> Vec<Target> {
    Vec::new()
}
