//! JSON Schemas as Gemini takes them: the part of JSON Schema that `parametersJsonSchema` and
//! `responseJsonSchema` know, and the older upper-case `Schema` type.
//!
//! The caller's key order stays: the model writes an object's fields in the order it sees.

use std::cell::Cell;
use std::collections::HashSet;

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::json::unicode::parse;
use crate::provider::unfold::{Budget, TooLarge};

mod old;

pub use old::old_schema;

/// Writes a schema in one of both forms.
pub type Form = fn(&RawValue, &Budget) -> Result<String, TooLarge>;

/// Schemas nested deeper than this are cut off.
const DEPTH: usize = 64;

/// Keywords that are passed on as they are.
const PLAIN: &[&str] = &[
    "$id",
    "$anchor",
    "type",
    "format",
    "title",
    "description",
    "minItems",
    "maxItems",
    "minimum",
    "maximum",
    "propertyOrdering",
    "nullable",
    "minLength",
    "maxLength",
    "pattern",
];

/// The schema for `parametersJsonSchema` and `responseJsonSchema`.
pub fn json_schema(raw: &RawValue, budget: &Budget) -> Result<String, TooLarge> {
    let root: Value = parse(raw.get()).unwrap_or_default();
    let cleaning = Cleaning {
        root: &root,
        budget,
        copies: Cell::new(0),
    };
    let cleaned = cleaning.node(&root, 0)?.unwrap_or_else(|| json!({}));
    Ok(cleaned.to_string())
}

/// The newer form of a schema, references left as they are.
struct Cleaning<'v> {
    root: &'v Value,
    budget: &'v Budget,
    /// References that are being followed: what is written then is a copy.
    copies: Cell<usize>,
}

impl Cleaning<'_> {
    /// One node; `None` for `false`, which nothing satisfies.
    fn node(&self, node: &Value, depth: usize) -> Result<Option<Value>, TooLarge> {
        let fields = match node {
            Value::Bool(false) => return Ok(None),
            Value::Object(fields) if depth < DEPTH => fields,
            _ => return Ok(Some(json!({}))),
        };
        let is_ref = fields.get("$ref").is_some_and(Value::is_string);
        let mut out = Sum::default();
        let mut gone: HashSet<&str> = HashSet::new();
        let below = |value: &Value| self.node(value, depth + 1);
        let list = |value: &Value| -> Result<Value, TooLarge> {
            let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
            items
                .iter()
                .filter_map(|item| below(item).transpose())
                .collect()
        };
        for (key, value) in fields {
            self.pay(value)?;
            let (key, value) = match &**key {
                "$ref" => ("$ref", rename_ref(value)),
                "$defs" | "definitions" => {
                    let mut all = out.fields.remove("$defs").unwrap_or_else(|| json!({}));
                    if let (Some(all), Some(more)) = (all.as_object_mut(), value.as_object()) {
                        for (name, schema) in more {
                            all.insert(name.clone(), below(schema)?.unwrap_or_else(|| json!({})));
                        }
                    }
                    ("$defs", all)
                }
                // The vendor ignores or refuses what stands beside a reference.
                key if is_ref && !key.starts_with('$') => continue,
                "enum" if is_plain_enum(value) => ("enum", value.clone()),
                "const" if is_plain(value) => ("enum", json!([value])),
                "items" if value.is_array() => ("prefixItems", list(value)?),
                "items" => match below(value)? {
                    Some(schema) => ("items", schema),
                    None => continue,
                },
                "prefixItems" | "anyOf" | "oneOf" => (key.as_str(), list(value)?),
                "additionalProperties" if value.is_boolean() => (key.as_str(), value.clone()),
                "additionalProperties" => match below(value)? {
                    Some(schema) => (key.as_str(), schema),
                    None => continue,
                },
                "properties" => {
                    let mut properties = Map::new();
                    for (name, schema) in value.as_object().into_iter().flatten() {
                        match below(schema)? {
                            Some(schema) => drop(properties.insert(name.clone(), schema)),
                            None => drop(gone.insert(name)),
                        }
                    }
                    ("properties", Value::Object(properties))
                }
                "required" if value.is_array() => ("required", value.clone()),
                "allOf" => {
                    for part in value.as_array().into_iter().flatten() {
                        out.add(self.part_of(part, depth)?);
                    }
                    continue;
                }
                key if PLAIN.contains(&key) => (key, value.clone()),
                _ => continue,
            };
            // What `allOf` has put there already is added to.
            out.put(key, value);
        }
        if let Some(Value::Array(required)) = out.fields.get_mut("required") {
            required.retain(|name| !name.as_str().is_some_and(|name| gone.contains(name)));
        }
        Ok(Some(Value::Object(out.fields)))
    }

    /// Pays for one member of a copy. Its objects pay for themselves.
    fn pay(&self, value: &Value) -> Result<(), TooLarge> {
        match value {
            _ if self.copies.get() == 0 => Ok(()),
            Value::Object(members) => self.budget.spend(1 + members.len()),
            value => self.budget.pay(value),
        }
    }

    /// One schema of an `allOf`, with a reference followed: its fields are to become those of the
    /// node around it.
    fn part_of(&self, part: &Value, depth: usize) -> Result<Map<String, Value>, TooLarge> {
        let mut part = part;
        let mut steps = 0;
        while let Some(target) = part.get("$ref").and_then(Value::as_str) {
            steps += 1;
            self.budget.spend(1)?;
            match resolve(self.root, target).filter(|_| steps < DEPTH) {
                Some(found) => part = found,
                None => return Ok(Map::new()),
            }
        }
        let copies = self.copies.get();
        self.copies.set(copies + steps.min(1));
        let found = self.node(part, depth + 1);
        self.copies.set(copies);
        match found? {
            Some(Value::Object(fields)) => Ok(fields),
            _ => Ok(Map::new()),
        }
    }
}

/// A schema that fields of others are added to: properties and requirements together, and of
/// other keywords the first.
#[derive(Default)]
struct Sum {
    fields: Map<String, Value>,
    /// What is required, once there is more than one list of it.
    required: Option<HashSet<Value>>,
}

impl Sum {
    fn add(&mut self, more: Map<String, Value>) {
        for (key, value) in more {
            self.put(&key, value);
        }
    }

    fn put(&mut self, key: &str, value: Value) {
        match (key, self.fields.get_mut(key), value) {
            (_, None, value) => drop(self.fields.insert(key.to_owned(), value)),
            ("properties" | "$defs", Some(Value::Object(old)), Value::Object(new)) => {
                for (name, schema) in new {
                    old.entry(name).or_insert(schema);
                }
            }
            ("required", Some(Value::Array(old)), Value::Array(new)) => {
                let known = (self.required).get_or_insert_with(|| old.iter().cloned().collect());
                for name in new {
                    if known.insert(name.clone()) {
                        old.push(name);
                    }
                }
            }
            _ => {}
        }
    }
}

fn is_plain(value: &Value) -> bool {
    value.is_string() || value.is_number()
}

fn is_plain_enum(value: &Value) -> bool {
    value
        .as_array()
        .is_some_and(|members| members.iter().all(is_plain))
}

fn rename_ref(target: &Value) -> Value {
    match target
        .as_str()
        .and_then(|t| t.strip_prefix("#/definitions/"))
    {
        Some(name) => Value::String(format!("#/$defs/{name}")),
        None => target.clone(),
    }
}

/// What a reference inside the document points at.
fn resolve<'v>(root: &'v Value, target: &str) -> Option<&'v Value> {
    root.pointer(target.strip_prefix('#')?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(form: Form, schema: &str, expected: &str) {
        let raw = RawValue::from_string(schema.to_owned()).unwrap();
        let written = form(&raw, &Budget::new(1000));
        assert_eq!(written.as_deref(), Ok(expected), "{schema}");
    }

    #[test]
    fn known_keywords_stay_in_their_order() {
        let all = r#"{"$id":"i","title":"t","type":["object","null"],"description":"d","properties":{"b":{"type":"string","format":"x","pattern":"p","minLength":1,"maxLength":2},"a":{"type":"array","items":{"type":"number","minimum":1.50,"maximum":2},"minItems":1,"maxItems":2,"prefixItems":[{"type":"string"}]}},"required":["b"],"additionalProperties":false,"propertyOrdering":["b","a"],"anyOf":[{"type":"object"}],"oneOf":[{"type":"object"}],"nullable":true}"#;
        check(json_schema, all, &all.replace("1.50", "1.5"));
    }

    #[test]
    fn other_keywords_go() {
        check(
            json_schema,
            r#"{"$schema":"s","type":"string","default":"x","examples":["x"],"not":{},"if":{},"then":{},"else":{},"strict":true,"patternProperties":{},"exclusiveMinimum":1,"multipleOf":2,"uniqueItems":true}"#,
            r#"{"type":"string"}"#,
        );
    }

    #[test]
    fn constants_and_enums() {
        check(json_schema, r#"{"const":"a"}"#, r#"{"enum":["a"]}"#);
        check(
            json_schema,
            r#"{"type":"boolean","const":true}"#,
            r#"{"type":"boolean"}"#,
        );
        check(json_schema, r#"{"enum":["a",1]}"#, r#"{"enum":["a",1]}"#);
        check(
            json_schema,
            r#"{"type":["string","null"],"enum":["a",null]}"#,
            r#"{"type":["string","null"]}"#,
        );
    }

    #[test]
    fn references_and_definitions() {
        check(
            json_schema,
            r##"{"definitions":{"N":{"type":"object","properties":{"next":{"$ref":"#/definitions/N","description":"gone"}}}},"$ref":"#/definitions/N","title":"gone"}"##,
            r##"{"$defs":{"N":{"type":"object","properties":{"next":{"$ref":"#/$defs/N"}}}},"$ref":"#/$defs/N"}"##,
        );
    }

    #[test]
    fn boolean_schemas() {
        check(
            json_schema,
            r#"{"properties":{"any":true,"none":false},"required":["any","none"],"items":false,"additionalProperties":true}"#,
            r#"{"properties":{"any":{}},"required":["any"],"additionalProperties":true}"#,
        );
        check(json_schema, "true", "{}");
        check(json_schema, "false", "{}");
    }

    #[test]
    fn all_of_is_merged() {
        check(
            json_schema,
            r##"{"$defs":{"A":{"type":"object","properties":{"a":{"type":"string"}},"required":["a"]}},"allOf":[{"$ref":"#/$defs/A"},{"properties":{"b":{"type":"number"}},"required":["b"]}],"properties":{"c":{}},"required":["c"]}"##,
            r##"{"$defs":{"A":{"type":"object","properties":{"a":{"type":"string"}},"required":["a"]}},"type":"object","properties":{"a":{"type":"string"},"b":{"type":"number"},"c":{}},"required":["a","b","c"]}"##,
        );
        check(json_schema, r##"{"allOf":[{"$ref":"#"}]}"##, "{}");
        check(
            json_schema,
            r##"{"$defs":{"A":{"$ref":"#/$defs/A"}},"allOf":[{"$ref":"#/$defs/A"}]}"##,
            r##"{"$defs":{"A":{"$ref":"#/$defs/A"}}}"##,
        );
    }

    #[test]
    fn deep_and_wide_schemas_end() {
        let deep = r#"{"items":"#.repeat(100) + "{}" + &"}".repeat(100);
        check(
            json_schema,
            &deep,
            &(r#"{"items":"#.repeat(64) + "{}" + &"}".repeat(64)),
        );
        let raw = RawValue::from_string(deep).unwrap();
        assert!(old_schema(&raw, &Budget::new(1000)).unwrap().len() < 64 * 40);
        // Every level doubles the one below.
        let wide = |level: &dyn Fn(&str) -> String| {
            let defs: Vec<_> = (0..40)
                .map(|n| {
                    format!(
                        r##""d{n}":{}"##,
                        level(&format!(r##"{{"$ref":"#/$defs/d{}"}}"##, n + 1))
                    )
                })
                .collect();
            let root = format!(
                r##"{{"$defs":{{{}}},"allOf":[{{"$ref":"#/$defs/d0"}}]}}"##,
                defs.join(",")
            );
            RawValue::from_string(root).unwrap()
        };
        let properties = wide(&|below| format!(r#"{{"properties":{{"a":{below},"b":{below}}}}}"#));
        let budget = || Budget::new(10_000);
        assert_eq!(old_schema(&properties, &budget()), Err(TooLarge));
        let all_of = wide(&|below| format!(r#"{{"allOf":[{below},{below}]}}"#));
        assert_eq!(json_schema(&all_of, &budget()), Err(TooLarge));
        assert_eq!(old_schema(&all_of, &budget()), Err(TooLarge));
    }
}
