//! JSON Schemas, rewritten for the providers that take only a part of them.

mod anthropic;

pub use anthropic::{anthropic_strict, anthropic_tool};

use serde_json::value::RawValue;

pub fn gemini_json(raw: &RawValue) -> String {
    let value: serde_json::Value = serde_json::from_str(raw.get()).unwrap_or_default();
    value.to_string()
}

pub fn gemini_old(raw: &RawValue) -> String {
    gemini_json(raw)
}
