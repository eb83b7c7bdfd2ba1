//! How many tokens a request has, about: agents ask for it in bursts, to draw a table.

use serde_json::value::RawValue;

use crate::dialect::openai::read::{Object, Path, is_array, is_object, is_string};
use crate::error::ApiError;
use crate::json::{Entries, Fields};

/// Bytes of text to a token. English prose and code have three and a half to four and a half.
const BYTES: u64 = 4;

/// What an image costs, about: by the vendor's rule a square of 1000 pixels costs 1334.
const MEDIA: u64 = 1_300;

/// What a message or a tool costs beside its text.
const AROUND: u64 = 4;

/// Deeper than any request goes.
const DEEPEST: u32 = 64;

/// The tokens of `system`, `messages` and `tools`. Model and messages may be nearly empty.
pub fn estimate(body: &[u8]) -> Result<u64, ApiError> {
    let invalid = |error: &dyn std::fmt::Display| {
        ApiError::new(400, format!("the body is not valid JSON: {error}"))
    };
    let text = std::str::from_utf8(body).map_err(|error| invalid(&error))?;
    let fields: Fields<'_> = serde_json::from_str(text).map_err(|error| invalid(&error))?;
    let root = Object {
        fields,
        path: &Path::Root,
    };
    root.required_string("model")?;
    let mut sum = Sum::default();
    for key in ["messages", "tools"] {
        for entry in root.array(key)? {
            sum.around += AROUND;
            sum.value(entry, DEEPEST);
        }
    }
    if let Some(system) = root.get("system") {
        sum.value(system, DEEPEST);
    }
    Ok(sum.bytes.div_ceil(BYTES) + sum.around)
}

#[derive(Default)]
struct Sum {
    bytes: u64,
    around: u64,
}

impl Sum {
    fn value(&mut self, raw: &RawValue, depth: u32) {
        if depth == 0 {
            return;
        }
        if is_object(raw) {
            let Ok(fields) = serde_json::from_str::<Fields<'_>>(raw.get()) else {
                return;
            };
            let kind = fields.get("type").map(RawValue::get);
            if matches!(kind, Some("\"image\"" | "\"document\"")) {
                self.around += MEDIA;
                return;
            }
            for (key, value) in &fields.0 {
                match &**key {
                    // Nothing that a model reads.
                    "cache_control" | "type" | "signature" | "id" | "tool_use_id" | "$schema" => {}
                    "input" | "input_schema" => self.bytes += value.get().len() as u64,
                    _ => self.value(value, depth - 1),
                }
            }
        } else if is_array(raw) {
            if let Ok(entries) = serde_json::from_str::<Entries<'_>>(raw.get()) {
                for entry in entries.0 {
                    self.value(entry, depth - 1);
                }
            }
        } else if is_string(raw) {
            self.bytes += raw.get().len() as u64 - 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_tools_are_counted_and_what_no_model_reads_is_not() {
        let of = |body: &str| estimate(body.as_bytes()).unwrap();
        assert_eq!(of(r#"{"model":"m"}"#), 0);
        let text = "x".repeat(400);
        let body = format!(
            r#"{{"model":"m","system":[{{"type":"text","text":"{text}","cache_control":{{"type":"ephemeral"}}}}],
                "messages":[{{"role":"user","content":"{text}"}}]}}"#
        );
        assert_eq!(of(&body), 100 + 100 + 1 + AROUND);
        let image = format!(
            r#"{{"model":"m","messages":[{{"role":"user","content":[{{"type":"image","source":{{"data":"{text}"}}}}]}}]}}"#
        );
        assert_eq!(of(&image), MEDIA + 1 + AROUND);
        let tool = r#"{"model":"m","tools":[{"name":"f","input_schema":{"type":"object"}}]}"#;
        assert!((5..20).contains(&of(tool)), "{}", of(tool));
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for body in [
            "",
            "[]",
            "{}",
            r#"{"model":1}"#,
            r#"{"model":"m","messages":"x"}"#,
        ] {
            assert_eq!(estimate(body.as_bytes()).unwrap_err().status, 400, "{body}");
        }
    }
}
