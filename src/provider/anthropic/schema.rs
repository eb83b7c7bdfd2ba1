//! What Anthropic takes of JSON Schema: nearly all of it for tools, a closed part of it for what it
//! enforces by a grammar (structured output and strict tools).

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::json::unicode::parse;
use crate::provider::unfold::{Budget, TooLarge};

type Object = Map<String, Value>;

mod close;
mod merge;

use close::{close, is_recursive};
use merge::{make_object, merge_branches, rename_definitions};

/// Schemas nested deeper than this are not rewritten.
const DEPTH: usize = 64;

/// The schema of a tool that is not strict: an object at its root, and `$defs`.
pub fn anthropic_tool(raw: &RawValue, budget: &Budget) -> Result<String, TooLarge> {
    Ok(match parse(raw.get()) {
        Ok(Value::Object(mut root)) => {
            rename_definitions(&mut root, DEPTH);
            // Lent to the merging, and put back in its place.
            let defs = root.get_mut("$defs").map(Value::take);
            merge_branches(&mut root, defs.as_ref(), DEPTH, budget)?;
            if let (Some(place), Some(defs)) = (root.get_mut("$defs"), defs) {
                *place = defs;
            }
            make_object(&mut root);
            Value::Object(root).to_string()
        }
        Ok(_) => r#"{"type":"object","properties":{}}"#.into(),
        // Deeper than the parser goes: the provider may judge it.
        Err(_) => raw.get().into(),
    })
}

/// The schema in the form that a grammar is made of, or `None` where that would change what it
/// means: open objects, recursion, references to elsewhere.
pub fn anthropic_strict(raw: &RawValue, budget: &Budget) -> Option<String> {
    let Ok(Value::Object(mut root)) = parse(raw.get()) else {
        return None;
    };
    rename_definitions(&mut root, DEPTH);
    let defs = root.get("$defs").cloned();
    if is_recursive(defs.as_ref()) {
        return None;
    }
    let root = budget.attempt(|budget| close(root, defs.as_ref(), DEPTH, budget))?;
    (root.get("type").and_then(Value::as_str) == Some("object"))
        .then(|| Value::Object(root).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(schema: &str) -> String {
        let budget = Budget::new(10_000);
        match anthropic_tool(serde_json::from_str(schema).unwrap(), &budget) {
            Ok(schema) => schema,
            Err(TooLarge) => "too large".into(),
        }
    }

    fn strict(schema: &str) -> Option<String> {
        anthropic_strict(serde_json::from_str(schema).unwrap(), &Budget::new(10_000))
    }

    #[test]
    fn tools_get_an_object_at_their_root() {
        for (schema, expected) in [
            (
                r#"{"properties":{"a":{}}}"#,
                r#"{"properties":{"a":{}},"type":"object"}"#,
            ),
            (
                r#"{"type":["object","null"],"x":1}"#,
                r#"{"type":"object","x":1}"#,
            ),
            ("true", r#"{"type":"object","properties":{}}"#),
            (
                r##"{"type":"object","properties":{"a":{"$ref":"#/definitions/x"}},"definitions":{"x":{"enum":["#/definitions/x"]}}}"##,
                r##"{"type":"object","properties":{"a":{"$ref":"#/$defs/x"}},"$defs":{"x":{"enum":["#/definitions/x"]}}}"##,
            ),
            (
                r##"{"type":"object","definitions":{"x":{"$ref":"#/definitions/y"}},"$defs":{"z":{"$ref":"#/definitions/x"}}}"##,
                r##"{"type":"object","$defs":{"z":{"$ref":"#/$defs/x"},"x":{"$ref":"#/$defs/y"}}}"##,
            ),
            (
                r##"{"type":"object","definitions":{"x":{"$ref":"#/definitions/x"}},"$defs":{"x":{}}}"##,
                r##"{"type":"object","definitions":{"x":{"$ref":"#/definitions/x"}},"$defs":{"x":{}}}"##,
            ),
            (
                r#"{"anyOf":[{"properties":{"a":{"type":"string"},"c":{}},"required":["a","c"]},{"properties":{"b":{},"c":{"type":"null"}},"required":["c"]},{"type":"null"}]}"#,
                r#"{"properties":{"a":{"type":"string"},"c":{"anyOf":[{},{"type":"null"}]},"b":{}},"required":["c"],"type":"object"}"#,
            ),
            (
                r##"{"type":"object","required":["z"],"allOf":[{"$ref":"#/$defs/x"},{"properties":{"b":{}},"required":["b"]}],"$defs":{"x":{"properties":{"a":{}},"required":["a"]}}}"##,
                r##"{"type":"object","required":["z","a","b"],"$defs":{"x":{"properties":{"a":{}},"required":["a"]}},"properties":{"a":{},"b":{}}}"##,
            ),
        ] {
            assert_eq!(tool(schema), expected, "{schema}");
        }
    }

    #[test]
    fn objects_are_closed_and_constraints_are_told() {
        for (schema, expected) in [
            (
                r#"{"$schema":"x","type":"object","properties":{"n":{"maximum":9,"type":"integer","minimum":1},"s":{"type":"string","description":"a","format":"uri","pattern":"^(?=a)","maxLength":3},"f":{"type":"string","format":"color","pattern":"^a"},"l":{"type":"array","minItems":2,"items":{"oneOf":[{"type":"string"},{"type":"object","properties":{}}]}},"m":{"type":"array","minItems":1}},"required":["n"]}"#,
                r#"{"type":"object","properties":{"n":{"type":"integer","description":"Constraints: minimum: 1, maximum: 9"},"s":{"type":"string","description":"a\nConstraints: maxLength: 3, pattern: \"^(?=a)\"","format":"uri"},"f":{"type":"string","pattern":"^a"},"l":{"type":"array","items":{"anyOf":[{"type":"string"},{"type":"object","properties":{},"additionalProperties":false}]},"description":"Constraints: minItems: 2"},"m":{"type":"array","minItems":1}},"required":["n"],"additionalProperties":false}"#,
            ),
            (
                r##"{"type":"object","properties":{"a":{"$ref":"#/definitions/x"}},"definitions":{"x":{"properties":{"b":{"const":1}}}}}"##,
                r##"{"type":"object","properties":{"a":{"$ref":"#/$defs/x"}},"$defs":{"x":{"properties":{"b":{"const":1}},"additionalProperties":false,"type":"object"}},"additionalProperties":false}"##,
            ),
            (
                r#"{"type":"object","properties":{"a":{"type":"string"}},"required":["a"],"allOf":[{"properties":{"b":{"type":"null"}},"required":["b"]}]}"#,
                r#"{"type":"object","properties":{"a":{"type":"string"},"b":{"type":"null"}},"required":["a","b"],"additionalProperties":false}"#,
            ),
            (
                r##"{"type":"object","properties":{"a":{"allOf":[{"$ref":"#/$defs/x"}],"description":"d"}},"$defs":{"x":{"enum":[1,2]}}}"##,
                r##"{"type":"object","properties":{"a":{"allOf":[{"$ref":"#/$defs/x"}],"description":"d"}},"$defs":{"x":{"enum":[1,2]}},"additionalProperties":false}"##,
            ),
        ] {
            assert_eq!(strict(schema).as_deref(), Some(expected), "{schema}");
        }
    }

    #[test]
    fn what_cannot_be_closed_is_not_touched() {
        for schema in [
            "true",
            "{}",
            r#"{"type":"object"}"#,
            r#"{"type":"array","items":{"type":"string"}}"#,
            r#"{"type":"object","properties":{},"additionalProperties":true}"#,
            r#"{"type":"object","properties":{},"additionalProperties":{"type":"string"}}"#,
            r#"{"type":"object","properties":{"a":{"type":"object"}}}"#,
            r#"{"type":"object","properties":{"a":{}}}"#,
            r#"{"type":"object","properties":{"a":true}}"#,
            r#"{"type":"object","properties":{},"patternProperties":{"^a":{"type":"string"}}}"#,
            r#"{"type":"object","properties":{"a":{"$ref":"https://x.example/s.json"}}}"#,
            r##"{"type":"object","properties":{"a":{"$ref":"#"}}}"##,
            r##"{"type":"object","properties":{"a":{"$ref":"#/$defs/none"}}}"##,
            r##"{"type":"object","properties":{"a":{"$ref":"#/$defs/x"}},"$defs":{"x":{"properties":{"b":{"$ref":"#/$defs/y"}}},"y":{"properties":{"c":{"$ref":"#/$defs/x"}}}}}"##,
            r#"{"anyOf":[{"type":"object","properties":{}}]}"#,
        ] {
            assert_eq!(strict(schema), None, "{schema}");
        }
    }

    #[test]
    fn deep_and_knotted_schemas_end() {
        let deep = |levels: usize| {
            format!(
                "{}{}{}",
                r#"{"type":"object","properties":{"a":"#.repeat(levels),
                r#"{"type":"null"}"#,
                "}}".repeat(levels)
            )
        };
        assert!(strict(&deep(20)).is_some());
        assert!(strict(&deep(200)).is_none());
        assert_eq!(tool(&deep(200)), deep(200));
        let knot =
            r##"{"allOf":[{"$ref":"#/$defs/x"}],"$defs":{"x":{"allOf":[{"$ref":"#/$defs/x"}]}}}"##;
        assert!(tool(knot).contains("\"type\":\"object\""));
        assert!(strict(knot).is_none());
        // Each definition is twice the one before.
        let doubled: Vec<String> = (1..60)
            .map(|n| {
                let half = format!(r##"{{"$ref":"#/$defs/d{}"}}"##, n - 1);
                format!(r#""d{n}":{{"allOf":[{half},{half}]}}"#)
            })
            .collect();
        let root = format!(
            r##"{{"allOf":[{{"$ref":"#/$defs/d59"}},{{"properties":{{}}}}],"$defs":{{"d0":{{"properties":{{}}}},{}}}}}"##,
            doubled.join(",")
        );
        assert_eq!(tool(&root), "too large");
        assert!(strict(&root).is_none());
    }

    /// Branches that all say something else of one property.
    #[test]
    fn choices_of_one_property_are_one_list() {
        let branches: Vec<String> = (0..2000)
            .map(|n| format!(r#"{{"properties":{{"kind":{{"const":{n}}}}},"required":["kind"]}}"#))
            .collect();
        let merged = tool(&format!(r#"{{"anyOf":[{}]}}"#, branches.join(",")));
        let merged: Value = serde_json::from_str(&merged).unwrap();
        assert_eq!(
            merged["properties"]["kind"]["anyOf"]
                .as_array()
                .unwrap()
                .len(),
            2000
        );
        assert_eq!(merged["required"], serde_json::json!(["kind"]));
    }
}
