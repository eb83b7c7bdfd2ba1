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
