//! The upper-case `Schema` type of the oldest models: no references, no `null` type, enums of
//! strings only.

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::{DEPTH, Sum, resolve};
use crate::json::unicode::parse;
use crate::provider::unfold::{Budget, TooLarge};

/// The schema for `parameters` and `responseSchema`, all that the oldest models know.
pub fn old_schema(raw: &RawValue, budget: &Budget) -> Result<String, TooLarge> {
    let root: Value = parse(raw.get()).unwrap_or_default();
    let mut unfolding = Unfolding {
        root: &root,
        open: Vec::new(),
        copies: 0,
        budget,
    };
    Ok(unfolding.node(&root)?.to_string())
}

/// The older form of a schema, with every reference replaced by what it points at.
struct Unfolding<'v> {
    root: &'v Value,
    /// References that are being unfolded; one that comes up again is a recursion.
    open: Vec<&'v str>,
    /// References that are being unfolded.
    copies: usize,
    budget: &'v Budget,
}

impl<'v> Unfolding<'v> {
    fn node(&mut self, node: &'v Value) -> Result<Value, TooLarge> {
        let fields = match node.as_object() {
            Some(fields) if self.open.len() < DEPTH => fields,
            _ => return Ok(json!({"type": "OBJECT"})),
        };
        // Counts as depth, too, so that deep schemas end.
        let target = fields.get("$ref").and_then(Value::as_str);
        if let Some(target) = target {
            let found = resolve(self.root, target).filter(|_| !self.open.contains(&target));
            self.budget.spend(1)?;
            let Some(found) = found else {
                return Ok(json!({"type": "OBJECT"}));
            };
            self.open.push(target);
            self.copies += 1;
            let unfolded = self.node(found);
            self.copies -= 1;
            self.open.pop();
            return unfolded;
        }
        self.open.push("");
        let unfolded = self.object(fields);
        self.open.pop();
        unfolded
    }

    fn object(&mut self, fields: &'v Map<String, Value>) -> Result<Value, TooLarge> {
        let mut out = Sum::default();
        for (key, value) in fields {
            // Objects pay for themselves, each with its members.
            match value {
                _ if self.copies == 0 => {}
                Value::Object(members) => self.budget.spend(1 + members.len())?,
                value => self.budget.pay(value)?,
            }
            match &**key {
                "type" => self.kind(value, &mut out),
                "format" if is_old_format(value) => insert(&mut out, "format", value.clone()),
                "enum" | "const" => {
                    let members = match value {
                        Value::Array(members) if key == "enum" => members.clone(),
                        one => vec![one.clone()],
                    };
                    if members.iter().any(Value::is_null) {
                        insert(&mut out, "nullable", json!(true));
                    }
                    let named: Vec<_> = members.into_iter().filter(|m| !m.is_null()).collect();
                    if !named.is_empty() && named.iter().all(Value::is_string) {
                        insert(&mut out, "enum", Value::Array(named));
                    }
                }
                "items" if value.is_object() => {
                    let items = self.node(value)?;
                    insert(&mut out, "items", items);
                }
                "properties" => self.properties(value, &mut out)?,
                "anyOf" | "oneOf" => self.any_of(value, &mut out)?,
                "allOf" => {
                    for part in value.as_array().into_iter().flatten() {
                        if let Value::Object(part) = self.node(part)? {
                            out.add(part);
                        }
                    }
                }
                "title" | "description" | "nullable" | "minItems" | "maxItems" | "minimum"
                | "maximum" | "minLength" | "maxLength" | "pattern" | "required" => {
                    out.put(key, value.clone());
                }
                _ => {}
            }
        }
        let mut out = out.fields;
        if !out.contains_key("type") && !out.contains_key("anyOf") {
            let kind = match () {
                () if out.contains_key("enum") => "STRING",
                () if out.contains_key("items") => "ARRAY",
                () => "OBJECT",
            };
            out.insert("type".into(), json!(kind));
        }
        // A name that is required but not described is refused.
        let required = out.get_mut("required").filter(|list| list.is_array());
        if let Some(Value::Array(mut required)) = required.map(Value::take) {
            let known = out.get("properties").and_then(Value::as_object);
            required.retain(|name| {
                let name = name.as_str().unwrap_or_default();
                known.is_some_and(|known| known.contains_key(name))
            });
            match required.is_empty() {
                true => drop(out.shift_remove("required")),
                // In its place among the others.
                false => drop(out.insert("required".into(), Value::Array(required))),
            }
        }
        Ok(Value::Object(out))
    }

    /// Upper-case, and `null` as a property of the type instead of a type.
    fn kind(&mut self, value: &Value, out: &mut Sum) {
        let names = match value {
            Value::Array(names) => names.as_slice(),
            one => std::slice::from_ref(one),
        };
        let upper = |name: &Value| name.as_str().unwrap_or_default().to_ascii_uppercase();
        let mut kinds: Vec<String> = names.iter().map(upper).collect();
        kinds.retain(|kind| kind != "NULL");
        if kinds.len() < names.len() {
            insert(out, "nullable", json!(true));
        }
        match &kinds[..] {
            [] => insert(out, "type", json!("STRING")),
            [one] => insert(out, "type", json!(one)),
            several => {
                let any: Value = several.iter().map(|kind| json!({"type": kind})).collect();
                insert(out, "anyOf", any);
            }
        }
    }

    fn properties(&mut self, value: &'v Value, out: &mut Sum) -> Result<(), TooLarge> {
        let mut properties = Map::new();
        for (name, schema) in value.as_object().into_iter().flatten() {
            if schema != &Value::Bool(false) {
                let schema = self.node(schema)?;
                properties.insert(name.clone(), schema);
            }
        }
        // An object without properties is taken, an empty list of them is not.
        if properties.is_empty() {
            return Ok(());
        }
        let order: Value = properties.keys().cloned().map(Value::String).collect();
        out.put("properties", Value::Object(properties));
        insert(out, "propertyOrdering", order);
        Ok(())
    }

    fn any_of(&mut self, value: &'v Value, out: &mut Sum) -> Result<(), TooLarge> {
        let members = value.as_array().map(Vec::as_slice).unwrap_or_default();
        let is_null = |member: &&Value| member.get("type") == Some(&json!("null"));
        if members.iter().any(|member| is_null(&member)) {
            insert(out, "nullable", json!(true));
        }
        let mut rest: Vec<Value> = Vec::new();
        for member in members.iter().filter(|member| !is_null(member)) {
            let member = self.node(member)?;
            rest.push(member);
        }
        match rest.len() {
            0 => {}
            1 => {
                if let Some(Value::Object(only)) = rest.pop() {
                    out.add(only);
                }
            }
            _ => insert(out, "anyOf", Value::Array(rest)),
        }
        Ok(())
    }
}

fn insert(out: &mut Sum, key: &str, value: Value) {
    out.fields.entry(key.to_owned()).or_insert(value);
}

/// The older form refuses every other format.
fn is_old_format(value: &Value) -> bool {
    matches!(
        value.as_str(),
        Some("enum" | "date-time" | "float" | "double" | "int32" | "int64")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(schema: &str, expected: &str) {
        let raw = RawValue::from_string(schema.to_owned()).unwrap();
        assert_eq!(
            old_schema(&raw, &Budget::new(1000)).as_deref(),
            Ok(expected),
            "{schema}"
        );
    }

    #[test]
    fn the_older_form() {
        check(
            r##"{"$defs":{"N":{"type":"object","properties":{"next":{"$ref":"#/$defs/N"}}}},"type":"object","properties":{"z":{"type":["string","null"],"format":"email"},"a":{"anyOf":[{"type":"integer","format":"int32"},{"type":"null"}]},"n":{"$ref":"#/$defs/N"},"e":{"enum":["x","y"]},"u":{"type":["string","number"]},"o":{"type":"object","properties":{}}},"required":["z","gone"],"additionalProperties":false}"##,
            r#"{"type":"OBJECT","properties":{"z":{"nullable":true,"type":"STRING"},"a":{"nullable":true,"type":"INTEGER","format":"int32"},"n":{"type":"OBJECT","properties":{"next":{"type":"OBJECT"}},"propertyOrdering":["next"]},"e":{"enum":["x","y"],"type":"STRING"},"u":{"anyOf":[{"type":"STRING"},{"type":"NUMBER"}]},"o":{"type":"OBJECT"}},"propertyOrdering":["z","a","n","e","u","o"],"required":["z"]}"#,
        );
        check(
            r#"{"type":"integer","enum":[1,2]}"#,
            r#"{"type":"INTEGER"}"#,
        );
        check("true", r#"{"type":"OBJECT"}"#);
    }
}
