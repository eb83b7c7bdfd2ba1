//! JSON Schemas, rewritten for the providers that take only a part of them.
use serde_json::value::RawValue;

pub fn anthropic_tool(raw: &RawValue) -> String {
    raw.get().to_owned()
}

pub fn anthropic_strict(raw: &RawValue) -> Option<String> {
    raw.get()
        .contains("\"additionalProperties\":false")
        .then(|| raw.get().to_owned())
}

pub fn gemini_json(raw: &RawValue) -> String {
    let value: serde_json::Value = serde_json::from_str(raw.get()).unwrap_or_default();
    value.to_string()
}

pub fn gemini_old(raw: &RawValue) -> String {
    gemini_json(raw)
}
