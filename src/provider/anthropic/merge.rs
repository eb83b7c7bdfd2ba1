//! `extra_body.anthropic`: the caller's own fields, laid over the finished body.
//!
//! Objects are merged, everything else is replaced. Values are not parsed further than needed, so
//! what is not touched keeps its bytes.

use serde_json::value::RawValue;

use super::block::push_compact;
use crate::json::overlay::Overlay;

const OVERLAY: Overlay = Overlay {
    depth: 64,
    null_removes: false,
    write: push_compact,
};

/// `over` laid over `body`. Both are JSON objects, else `body` stays as it is.
pub fn merge(body: Vec<u8>, over: &RawValue) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + over.get().len());
    let whole: Result<&RawValue, _> = serde_json::from_slice(&body);
    match (whole, over.get().starts_with('{')) {
        (Ok(whole), true) => {
            OVERLAY.lay(&mut out, whole.get(), over.get());
            out
        }
        _ => body,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_merged_and_the_rest_is_replaced() {
        let check = |body: &str, over: &str, expected: &str| {
            let over: &RawValue = serde_json::from_str(over).unwrap();
            let merged = merge(body.as_bytes().to_vec(), over);
            assert_eq!(String::from_utf8(merged).unwrap(), expected);
        };
        check(
            r#"{"a":1.50,"b":{"c":[1],"d":2},"e":"x"}"#,
            r#"{"b":{"c":[2, 3],"f":{}},"e":null,"g":{"h": 1},"g":2}"#,
            r#"{"a":1.50,"b":{"c":[2,3],"d":2,"f":{}},"e":null,"g":2}"#,
        );
        check(r#"{"a":1}"#, "[1]", r#"{"a":1}"#);
        check(r#"{"a":1}"#, "{}", r#"{"a":1}"#);
    }

    #[test]
    fn deep_nesting_ends() {
        let deep = format!("{}1{}", "{\"a\":".repeat(5000), "}".repeat(5000));
        let over: &RawValue = serde_json::from_str(&deep).unwrap();
        assert_eq!(merge(deep.clone().into_bytes(), over).len(), deep.len());
    }
}
