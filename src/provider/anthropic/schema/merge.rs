//! Rewriting at the root: `definitions`, and branches that become one object.

use serde_json::Value;

use super::Object;

/// `definitions` -> `$defs`, in the references too.
pub fn rename_definitions(node: &mut Object, depth: usize) {
    const OLD: &str = "definitions";
    let both = match (node.get(OLD), node.get("$defs")) {
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            // Of one name there can be only one, and references tell them apart by the place.
            if old.keys().any(|name| new.contains_key(name)) {
                return;
            }
            true
        }
        _ => false,
    };
    if both {
        if let Some(Value::Object(old)) = node.shift_remove(OLD)
            && let Some(Value::Object(new)) = node.get_mut("$defs")
        {
            new.extend(old);
        }
    } else if node.get(OLD).is_some_and(Value::is_object) && !node.contains_key("$defs") {
        let renamed = std::mem::take(node).into_iter().map(|(key, value)| {
            let key = if key == OLD { "$defs".into() } else { key };
            (key, value)
        });
        *node = renamed.collect();
    }
    rewrite_references(node, depth);
}

fn rewrite_references(node: &mut Object, depth: usize) {
    if depth == 0 {
        return;
    }
    for (key, value) in node.iter_mut() {
        match value {
            Value::String(text) if key == "$ref" => {
                if let Some(name) = text.strip_prefix("#/definitions/") {
                    *text = format!("#/$defs/{name}");
                }
            }
            Value::Object(inner) => rewrite_references(inner, depth - 1),
            Value::Array(items) if key != "enum" => {
                for item in items.iter_mut().filter_map(Value::as_object_mut) {
                    rewrite_references(item, depth - 1);
                }
            }
            _ => {}
        }
    }
}

pub fn make_object(node: &mut Object) {
    if node.get("type").and_then(Value::as_str) != Some("object") {
        node.insert("type".into(), "object".into());
    }
}

/// The schema that a `$ref` into `$defs` means.
pub fn target<'v>(node: &'v Object, defs: Option<&'v Value>) -> Option<&'v Value> {
    let name = node.get("$ref")?.as_str()?.strip_prefix("#/$defs/")?;
    defs?.get(name)
}

/// Merges `allOf`, `anyOf` and `oneOf` of an object into it: all properties of all branches, and
/// what every answer must have.
///
/// `steps` bounds the work: references let a small schema unfold into a very large one.
pub fn merge_branches(node: &mut Object, defs: Option<&Value>, depth: usize, steps: &mut usize) {
    for (key, is_all) in [("allOf", true), ("anyOf", false), ("oneOf", false)] {
        // `shift_remove` keeps the order of the other members.
        let Some(Value::Array(branches)) = node.shift_remove(key) else {
            continue;
        };
        let branches: Vec<Object> = branches
            .into_iter()
            .filter_map(|branch| object_branch(branch, defs, depth, steps))
            .collect();
        let mut required: Option<Vec<Value>> = None;
        for branch in &branches {
            if let Some(Value::Object(properties)) = branch.get("properties") {
                add_properties(node, properties, if is_all { "allOf" } else { "anyOf" });
            }
            let own = match branch.get("required") {
                Some(Value::Array(own)) => own.clone(),
                _ => Vec::new(),
            };
            required = Some(match required {
                None => own,
                Some(mut all) if is_all => {
                    let new = own.into_iter().filter(|name| !all.contains(name));
                    let new: Vec<Value> = new.collect();
                    all.extend(new);
                    all
                }
                Some(mut common) => {
                    common.retain(|name| own.contains(name));
                    common
                }
            });
        }
        let mut all = match node.get("required") {
            Some(Value::Array(own)) => own.clone(),
            _ => Vec::new(),
        };
        let new = required.unwrap_or_default();
        all.extend(
            new.into_iter()
                .filter(|name| !all.contains(name))
                .collect::<Vec<_>>(),
        );
        if !all.is_empty() {
            node.insert("required".into(), Value::Array(all));
        }
    }
}

/// A branch that describes an object, with its own branches merged.
pub fn object_branch(
    branch: Value,
    defs: Option<&Value>,
    depth: usize,
    steps: &mut usize,
) -> Option<Object> {
    let Value::Object(mut branch) = branch else {
        return None;
    };
    if depth == 0 || *steps == 0 {
        return None;
    }
    *steps -= 1;
    if let Some(Value::Object(meant)) = target(&branch, defs) {
        return object_branch(Value::Object(meant.clone()), defs, depth - 1, steps);
    }
    merge_branches(&mut branch, defs, depth - 1, steps);
    let is_object = match branch.get("type") {
        None => true,
        Some(Value::String(kind)) => kind == "object",
        Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == "object"),
        Some(_) => false,
    };
    is_object.then_some(branch)
}

/// Adds properties; one that is there already and differs becomes a choice (or a sum) of both.
pub fn add_properties(node: &mut Object, new: &Object, join: &str) {
    let own = node
        .entry("properties")
        .or_insert_with(|| Value::Object(Object::new()));
    let Value::Object(own) = own else { return };
    for (name, schema) in new {
        match own.get_mut(name) {
            None => {
                own.insert(name.clone(), schema.clone());
            }
            Some(known) if known == schema => {}
            Some(known) => {
                let mut both = Object::new();
                both.insert(
                    join.into(),
                    Value::Array(vec![known.take(), schema.clone()]),
                );
                *known = Value::Object(both);
            }
        }
    }
}
