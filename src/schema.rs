//! JSON Schemas, rewritten for the providers that take only a part of them.
use serde_json::value::RawValue;

pub fn gemini_json(raw: &RawValue) -> String {
    raw.get().to_owned()
}

pub fn gemini_old(raw: &RawValue) -> String {
    raw.get().to_owned()
}
