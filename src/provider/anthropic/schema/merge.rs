//! Rewriting at the root: `definitions`, and branches that become one object.

use std::collections::HashSet;

use serde_json::Value;

use super::Object;
use crate::provider::unfold::{Budget, TooLarge};

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
/// `budget` pays for copies: references let a small schema unfold into a very large one.
pub fn merge_branches(
    node: &mut Object,
    defs: Option<&Value>,
    depth: usize,
    budget: &Budget,
) -> Result<(), TooLarge> {
    for (key, is_all) in [("allOf", true), ("anyOf", false), ("oneOf", false)] {
        // `shift_remove` keeps the order of the other members.
        let Some(Value::Array(branches)) = node.shift_remove(key) else {
            continue;
        };
        let mut required: Option<Names> = None;
        for branch in branches {
            let Some(mut branch) = object_branch(branch, defs, depth, budget)? else {
                continue;
            };
            let own = match branch.shift_remove("required") {
                Some(Value::Array(own)) => own,
                _ => Vec::new(),
            };
            if let Some(Value::Object(properties)) = branch.shift_remove("properties") {
                add_properties(node, properties, if is_all { "allOf" } else { "anyOf" });
            }
            match &mut required {
                None => required = Some(Names::all_of(own)),
                Some(all) if is_all => all.extend(own),
                Some(common) => common.keep(own),
            }
        }
        let required = required.unwrap_or_default().list;
        match node.get_mut("required") {
            Some(Value::Array(own)) => {
                let mut all = Names::all_of(std::mem::take(own));
                all.extend(required);
                *own = all.list;
            }
            _ if !required.is_empty() => {
                node.insert("required".into(), Value::Array(required));
            }
            _ => {}
        }
    }
    Ok(())
}

/// What is required, in its order, and each once: looked up, as callers choose how many there are.
#[derive(Default)]
pub struct Names {
    pub list: Vec<Value>,
    /// Only where something is added.
    known: Option<HashSet<Value>>,
}

impl Names {
    /// All of these, doubled ones too: they are the caller's own words.
    pub fn all_of(list: Vec<Value>) -> Names {
        Names { list, known: None }
    }

    pub fn extend(&mut self, more: Vec<Value>) {
        if more.is_empty() {
            return;
        }
        let known = &mut self.known;
        let known = known.get_or_insert_with(|| self.list.iter().cloned().collect());
        for name in more {
            if !known.contains(&name) {
                known.insert(name.clone());
                self.list.push(name);
            }
        }
    }

    /// Keeps what is among `others`, too.
    fn keep(&mut self, others: Vec<Value>) {
        let others: HashSet<Value> = others.into_iter().collect();
        self.list.retain(|name| others.contains(name));
    }
}

/// A branch that describes an object, with its own branches merged.
pub fn object_branch(
    branch: Value,
    defs: Option<&Value>,
    depth: usize,
    budget: &Budget,
) -> Result<Option<Object>, TooLarge> {
    let Value::Object(mut branch) = branch else {
        return Ok(None);
    };
    if depth == 0 {
        return Ok(None);
    }
    budget.spend(1)?;
    if let Some(meant @ Value::Object(_)) = target(&branch, defs) {
        return object_branch(budget.copy(meant)?, defs, depth - 1, budget);
    }
    merge_branches(&mut branch, defs, depth - 1, budget)?;
    let is_object = match branch.get("type") {
        None => true,
        Some(Value::String(kind)) => kind == "object",
        Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == "object"),
        Some(_) => false,
    };
    Ok(is_object.then_some(branch))
}

/// Adds properties; one that is there already and differs becomes a choice (or a sum) of both.
pub fn add_properties(node: &mut Object, new: Object, join: &str) {
    let own = node
        .entry("properties")
        .or_insert_with(|| Value::Object(Object::new()));
    let Value::Object(own) = own else { return };
    for (name, schema) in new {
        match own.get_mut(&name) {
            None => {
                own.insert(name, schema);
            }
            Some(known) if *known == schema => {}
            Some(known) => match joined(known, join) {
                // One list of all, as nested ones would grow as deep as there are branches.
                Some(all) if all.last() == Some(&schema) => {}
                Some(all) => all.push(schema),
                None => {
                    let mut both = Object::new();
                    both.insert(join.into(), Value::Array(vec![known.take(), schema]));
                    *known = Value::Object(both);
                }
            },
        }
    }
}

/// The schemas of one that says nothing but `join`.
fn joined<'v>(schema: &'v mut Value, join: &str) -> Option<&'v mut Vec<Value>> {
    let members = schema
        .as_object_mut()
        .filter(|members| members.len() == 1)?;
    members.get_mut(join)?.as_array_mut()
}
