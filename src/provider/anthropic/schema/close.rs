//! Closing every object of a schema, and telling in words what a grammar cannot hold.

use std::collections::HashSet;

use serde_json::Value;

use super::merge::{Names, add_properties, make_object, merge_branches, object_branch, target};
use super::{DEPTH, Object};
use crate::provider::unfold::Budget;

/// Some definition leads back to itself.
pub fn is_recursive(defs: Option<&Value>) -> bool {
    let Some(Value::Object(defs)) = defs else {
        return false;
    };
    let mut done: HashSet<&str> = HashSet::new();
    defs.keys()
        .any(|name| leads_back(name, defs, &mut Vec::new(), &mut done))
}

fn leads_back<'v>(
    name: &'v str,
    defs: &'v Object,
    path: &mut Vec<&'v str>,
    done: &mut HashSet<&'v str>,
) -> bool {
    if done.contains(name) {
        return false;
    }
    if path.contains(&name) || path.len() > DEPTH {
        return true;
    }
    path.push(name);
    let mut found = Vec::new();
    if let Some(schema) = defs.get(name) {
        references(schema, &mut found);
    }
    let back = found
        .into_iter()
        .any(|next| leads_back(next, defs, path, done));
    path.pop();
    done.insert(name);
    back
}

/// The names in `$defs` that a schema refers to. (The parser bounds how deep it is.)
fn references<'v>(schema: &'v Value, found: &mut Vec<&'v str>) {
    match schema {
        Value::Object(members) => {
            for (key, value) in members {
                match value.as_str() {
                    Some(text) if key == "$ref" => found.extend(text.strip_prefix("#/$defs/")),
                    _ => references(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

/// What a grammar is not made of, told to the model in the description instead, in this order.
const TOLD: &[&str] = &[
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "maxItems",
    "minItems",
    "uniqueItems",
    "contains",
    "minContains",
    "maxContains",
    "prefixItems",
    "minProperties",
    "maxProperties",
    "propertyNames",
    "dependentRequired",
    "dependentSchemas",
    "unevaluatedProperties",
    "if",
    "then",
    "else",
    "not",
    "pattern",
];

const FORMATS: &[&str] = &[
    "date-time",
    "time",
    "date",
    "duration",
    "email",
    "hostname",
    "uri",
    "ipv4",
    "ipv6",
    "uuid",
];

/// The node with every object in it closed.
pub fn close(
    mut node: Object,
    defs: Option<&Value>,
    depth: usize,
    budget: &Budget,
) -> Option<Object> {
    if depth == 0 || node.contains_key("patternProperties") {
        return None;
    }
    if node.contains_key("$ref") {
        target(&node, defs)?;
    }
    // Closed objects cannot be added to each other, so their sum has to be one object.
    let sums_objects = node.contains_key("properties")
        || matches!(node.get("allOf"), Some(Value::Array(all)) if all.len() > 1);
    if sums_objects && let Some(Value::Array(all)) = node.shift_remove("allOf") {
        for branch in &all {
            let copy = budget.copy(branch).ok()?;
            object_branch(copy, defs, depth, budget)
                .ok()
                .flatten()?
                .get("properties")?;
        }
        let mut sum = Object::new();
        sum.insert("allOf".into(), Value::Array(all));
        merge_branches(&mut sum, defs, depth, budget).ok()?;
        if let Some(Value::Object(properties)) = sum.shift_remove("properties") {
            add_properties(&mut node, properties, "allOf");
        }
        let mut required = match node.shift_remove("required") {
            Some(Value::Array(own)) => Names::all_of(own),
            _ => Names::default(),
        };
        if let Some(Value::Array(more)) = sum.shift_remove("required") {
            required.extend(more);
        }
        node.insert("required".into(), Value::Array(required.list));
        make_object(&mut node);
    }
    let is_object = node.contains_key("properties")
        || match node.get("type") {
            Some(Value::String(kind)) => kind == "object",
            Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == "object"),
            _ => false,
        };
    let is_closed = node.get("additionalProperties") == Some(&Value::Bool(false));
    let says_something = [
        "type",
        "enum",
        "const",
        "anyOf",
        "oneOf",
        "allOf",
        "$ref",
        "properties",
    ]
    .iter()
    .any(|key| node.contains_key(*key));
    // An object without a word on its properties takes any, and so does an empty schema.
    if !says_something || is_object && !is_closed && !node.contains_key("properties") {
        return None;
    }
    let mut told: Vec<(usize, String)> = Vec::new();
    let mut out = Object::new();
    for (key, value) in node {
        let key = if key == "oneOf" { "anyOf".into() } else { key };
        let kept = match key.as_str() {
            "type" | "enum" | "const" | "description" | "title" | "default" | "required"
            | "$ref" => Some(value),
            "format" => {
                let known = |format: &str| FORMATS.contains(&format);
                value.as_str().is_some_and(known).then_some(value)
            }
            "pattern" if !looks_around(&value) => Some(value),
            "minItems" if matches!(value.as_u64(), Some(0 | 1)) => Some(value),
            "items" if value.is_object() => Some(close_value(value, defs, depth, budget)?),
            "properties" | "$defs" => match value {
                Value::Object(members) => Some(Value::Object(
                    members
                        .into_iter()
                        .map(|(name, inner)| Some((name, close_value(inner, defs, depth, budget)?)))
                        .collect::<Option<_>>()?,
                )),
                _ => return None,
            },
            "anyOf" | "allOf" => match value {
                Value::Array(branches) => Some(Value::Array(
                    branches
                        .into_iter()
                        .map(|branch| close_value(branch, defs, depth, budget))
                        .collect::<Option<_>>()?,
                )),
                _ => return None,
            },
            "additionalProperties" if value == Value::Bool(false) => Some(value),
            "additionalProperties" => return None,
            _ => {
                if let Some(place) = TOLD.iter().position(|known| *known == key) {
                    told.push((place, format!("{key}: {value}")));
                }
                None
            }
        };
        if let Some(kept) = kept {
            out.insert(key, kept);
        }
    }
    if is_object {
        out.insert("additionalProperties".into(), Value::Bool(false));
        if !out.contains_key("type") {
            make_object(&mut out);
        }
    }
    if !told.is_empty() {
        told.sort();
        let told: Vec<String> = told.into_iter().map(|(_, text)| text).collect();
        let told = format!("Constraints: {}", told.join(", "));
        let description = match out.get("description").and_then(Value::as_str) {
            Some(text) if !text.is_empty() => format!("{text}\n{told}"),
            _ => told,
        };
        out.insert("description".into(), description.into());
    }
    Some(out)
}

fn close_value(value: Value, defs: Option<&Value>, depth: usize, budget: &Budget) -> Option<Value> {
    match value {
        Value::Object(node) => close(node, defs, depth - 1, budget).map(Value::Object),
        // `true` takes anything.
        _ => None,
    }
}

/// The pattern holds a look-ahead or look-behind, which no grammar has.
fn looks_around(pattern: &Value) -> bool {
    let Some(text) = pattern.as_str() else {
        return true;
    };
    ["(?=", "(?!", "(?<=", "(?<!"]
        .iter()
        .any(|mark| text.contains(mark))
}
