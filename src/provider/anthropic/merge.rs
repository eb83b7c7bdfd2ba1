//! `extra_body.anthropic`: the caller's own fields, laid over the finished body.
//!
//! Objects are merged, everything else is replaced. Values are not parsed further than needed, so
//! what is not touched keeps its bytes.

use serde_json::value::RawValue;

use super::block::push_compact;
use crate::json::{Fields, push_string};

/// Objects deeper than this are replaced instead of merged.
const DEPTH: usize = 64;

/// `over` laid over `body`. Both are JSON objects, else `body` stays as it is.
pub fn merge(body: Vec<u8>, over: &RawValue) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + over.get().len());
    let whole: Result<&RawValue, _> = serde_json::from_slice(&body);
    match (whole, over.get().starts_with('{')) {
        (Ok(whole), true) => {
            lay_over(&mut out, whole, over, DEPTH);
            out
        }
        _ => body,
    }
}

fn lay_over(out: &mut Vec<u8>, below: &RawValue, above: &RawValue, depth: usize) {
    let objects = || -> Option<(Fields<'_>, Fields<'_>)> {
        let fields = |raw: &'_ RawValue| raw.get().starts_with('{');
        if depth == 0 || !fields(below) || !fields(above) {
            return None;
        }
        Some((
            serde_json::from_str(below.get()).ok()?,
            serde_json::from_str(above.get()).ok()?,
        ))
    };
    let Some((below, above)) = objects() else {
        push_compact(out, above.get());
        return;
    };
    out.push(b'{');
    let mut first = true;
    let mut key = |out: &mut Vec<u8>, name: &str| {
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        push_string(out, name);
        out.push(b':');
    };
    // Of doubled keys the last one counts, as everywhere.
    let last = |fields: &Fields<'_>, name: &str| fields.0.iter().rposition(|(n, _)| n == name);
    for (name, value) in &below.0 {
        key(out, name);
        match last(&above, name) {
            Some(at) => lay_over(out, value, above.0[at].1, depth - 1),
            None => out.extend_from_slice(value.get().as_bytes()),
        }
    }
    for (at, (name, value)) in above.0.iter().enumerate() {
        if last(&below, name).is_none() && last(&above, name) == Some(at) {
            key(out, name);
            push_compact(out, value.get());
        }
    }
    out.push(b'}');
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
