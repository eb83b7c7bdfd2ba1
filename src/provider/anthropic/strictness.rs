//! `Strictness`: how much of a request the provider can hold to its schemas.
//!
//! It makes a grammar of all strict schemas of a request together, and refuses the request where
//! that grows too large.

use serde_json::Value;

/// The provider's limits: strict tools, parameters that may be left out, and parameters of several
/// types, the latter two over all strict schemas.
const TOOLS: usize = 20;
const OPTIONAL: usize = 24;
const UNIONS: usize = 16;

/// What the strict schemas of a request come to so far.
#[derive(Debug, Default)]
pub struct Strictness {
    tools: usize,
    optional: usize,
    unions: usize,
}

impl Strictness {
    /// Whether a tool with this schema can be strict, too. If so, it counts.
    pub fn takes_tool(&mut self, schema: &str) -> bool {
        if self.tools == TOOLS || !self.takes(schema) {
            return false;
        }
        self.tools += 1;
        true
    }

    /// Whether the schema can be enforced beside the others. If so, it counts.
    pub fn takes(&mut self, schema: &str) -> bool {
        let Ok(schema) = serde_json::from_str::<Value>(schema) else {
            return false;
        };
        let mut sum = Strictness {
            tools: self.tools,
            ..*self
        };
        sum.add(&schema);
        let fits = sum.optional <= OPTIONAL && sum.unions <= UNIONS;
        if fits {
            *self = sum;
        }
        fits
    }

    fn add(&mut self, schema: &Value) {
        match schema {
            Value::Object(members) => {
                if let Some(Value::Object(properties)) = members.get("properties") {
                    let required = members.get("required").and_then(Value::as_array);
                    let is_required = |name: &str| {
                        required.is_some_and(|names| names.iter().any(|known| known == name))
                    };
                    let optional = properties.keys().filter(|name| !is_required(name));
                    self.optional += optional.count();
                    self.unions += properties.values().filter(|of| is_union(of)).count();
                    properties.values().for_each(|of| self.add(of));
                }
                for (key, value) in members {
                    match (key.as_str(), value) {
                        ("properties" | "enum" | "const" | "default", _) => {}
                        ("$defs" | "definitions", Value::Object(definitions)) => {
                            definitions.values().for_each(|of| self.add(of));
                        }
                        _ => self.add(value),
                    }
                }
            }
            Value::Array(entries) => entries.iter().for_each(|entry| self.add(entry)),
            _ => {}
        }
    }
}

fn is_union(schema: &Value) -> bool {
    schema.get("anyOf").is_some()
        || schema.get("oneOf").is_some()
        || schema.get("type").is_some_and(Value::is_array)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema(properties: usize, of: &Value, required: bool) -> String {
        let names: Vec<String> = (0..properties).map(|at| format!("p{at}")).collect();
        let members: serde_json::Map<String, Value> = names
            .iter()
            .map(|name| (name.clone(), of.clone()))
            .collect();
        let required = if required { names } else { Vec::new() };
        json!({"type": "object", "properties": members, "required": required}).to_string()
    }

    #[test]
    fn each_limit_counts_over_all_schemas_of_a_request() {
        let text = json!({"type": "string"});
        let nullable = json!({"type": ["string", "null"]});
        let either = json!({"anyOf": [{"type": "string"}, {"type": "integer"}]});

        let mut tools = Strictness::default();
        let plain = schema(1, &text, true);
        assert!((0..20).all(|_| tools.takes_tool(&plain)));
        assert!(!tools.takes_tool(&plain));
        assert!(tools.takes(&plain), "a format is no tool");

        for (of, required, most) in [
            (&text, false, 24),
            (&nullable, true, 16),
            (&either, true, 16),
        ] {
            let mut sum = Strictness::default();
            assert!(!sum.takes(&schema(most + 1, of, required)));
            assert!(
                sum.takes(&schema(most - 1, of, required)),
                "nothing counted"
            );
            assert!(sum.takes_tool(&schema(1, of, required)));
            assert!(!sum.takes_tool(&schema(1, of, required)));
            assert!(sum.takes_tool(&plain), "smaller ones still fit");
        }
        // Whatever stands in lists, in definitions or deeper counts as well.
        let inner: Value = serde_json::from_str(&schema(25, &text, false)).unwrap();
        for outer in [
            json!({"type": "array", "items": inner}),
            json!({"$defs": {"properties": inner}}),
            json!({"properties": {"a": inner}, "required": ["a"]}),
            json!({"anyOf": [inner]}),
        ] {
            assert!(!Strictness::default().takes(&outer.to_string()), "{outer}");
        }
        // Values are no schemas.
        let value = json!({"enum": [{"properties": inner["properties"]}]});
        assert!(Strictness::default().takes(&value.to_string()));
    }
}
