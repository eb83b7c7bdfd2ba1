//! `countTokens`: an estimate, so that no upstream is asked and nobody waits.

use crate::dialect::openai::read::{Object, Path};
use crate::error::ApiError;
use crate::json::Fields;
use crate::record::estimate;

/// The tokens of `contents`, or of a whole `generateContentRequest`.
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
    for key in ["generateContentRequest", "generate_content_request"] {
        if let Some(raw) = root.carried(key)? {
            return Ok(estimate::of_body(raw.get().as_bytes()));
        }
    }
    root.array("contents")?;
    Ok(estimate::of_body(body))
}

#[cfg(test)]
mod tests {
    use super::estimate;

    #[test]
    fn both_forms_are_counted_and_what_is_none_is_refused() {
        let text = "word ".repeat(200);
        let contents = format!(r#"{{"contents":[{{"parts":[{{"text":"{text}"}}]}}]}}"#);
        let whole = format!(r#"{{"generateContentRequest":{contents}}}"#);
        for body in [contents, whole] {
            let count = estimate(body.as_bytes()).unwrap();
            assert!((150..400).contains(&count), "{count}");
        }
        for body in [
            "",
            "[]",
            r#"{"contents":1}"#,
            r#"{"generateContentRequest":[]}"#,
        ] {
            assert_eq!(estimate(body.as_bytes()).unwrap_err().status, 400, "{body}");
        }
    }
}
