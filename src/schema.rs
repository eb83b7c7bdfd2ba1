//! JSON Schemas, rewritten for the providers that take only a part of them.

mod anthropic;

pub use anthropic::{anthropic_strict, anthropic_tool};
