//! `tools` and `tool_choice` of a Messages request as those of a chat request.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::request::{Dropped, push_raw};
use crate::dialect::openai::read::{Object, Path};
use crate::error::ApiError;
use crate::json::shape::Limits;
use crate::json::{push_key, push_string};

/// The tools that another provider can be told of.
pub struct Tools<'a> {
    functions: Vec<Function<'a>>,
    /// The provider's own web search is among the tools.
    pub searches: bool,
}

struct Function<'a> {
    name: Cow<'a, str>,
    description: Option<Cow<'a, str>>,
    schema: Option<&'a RawValue>,
}

pub fn read<'a>(
    root: &Object<'a, '_>,
    limits: &Limits,
    dropped: &mut Dropped,
) -> Result<Tools<'a>, ApiError> {
    let path = Path::Root.key("tools");
    let entries = root.array("tools")?;
    limits.check_tools("tools", entries.len())?;
    let mut tools = Tools {
        functions: Vec::with_capacity(entries.len()),
        searches: false,
    };
    for (at, raw) in entries.into_iter().enumerate() {
        let path = path.index(at);
        let tool = Object::read(raw, &path)?;
        let kind = tool.string("type")?;
        match kind.as_deref() {
            None | Some("custom" | "function") => tools.functions.push(Function {
                name: tool.required_string("name")?,
                description: tool.string("description")?,
                schema: tool.carried("input_schema")?,
            }),
            Some(kind) if kind.starts_with("web_search_") => tools.searches = true,
            // Those of the provider itself, and those that only its models know.
            Some(kind) => dropped.add(&format!("tools.{kind}")),
        }
    }
    Ok(tools)
}

impl Tools<'_> {
    pub fn push(&self, root: &Object<'_, '_>, out: &mut Vec<u8>) -> Result<(), ApiError> {
        for (at, tool) in self.functions.iter().enumerate() {
            match at {
                0 => out.extend_from_slice(b",\"tools\":["),
                _ => out.push(b','),
            }
            out.extend_from_slice(b"{\"type\":\"function\",\"function\":{\"name\":");
            push_string(out, &tool.name);
            if let Some(description) = &tool.description {
                push_key(out, b',', "description");
                push_string(out, description);
            }
            push_key(out, b',', "parameters");
            match tool.schema {
                Some(schema) => push_raw(out, schema),
                None => out.extend_from_slice(br#"{"type":"object","properties":{}}"#),
            }
            out.extend_from_slice(b"}}");
        }
        if !self.functions.is_empty() {
            out.push(b']');
        }
        self.choice(root, out)
    }

    fn choice(&self, root: &Object<'_, '_>, out: &mut Vec<u8>) -> Result<(), ApiError> {
        let path = Path::Root.key("tool_choice");
        let Some(raw) = root.get("tool_choice") else {
            return Ok(());
        };
        let choice = Object::read(raw, &path)?;
        let kind = choice.required_string("type")?;
        // Of tools that are not declared, none can be chosen.
        if self.functions.is_empty() {
            return Ok(());
        }
        let word = match &*kind {
            "auto" => "auto",
            "any" => "required",
            "none" => "none",
            "tool" => {
                let name = choice.required_string("name")?;
                if self.functions.iter().any(|tool| tool.name == name) {
                    out.extend_from_slice(
                        b",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":",
                    );
                    push_string(out, &name);
                    out.extend_from_slice(b"}}");
                }
                ""
            }
            other => {
                return Err(path
                    .key("type")
                    .invalid(format_args!("{other:?} is not a choice")));
            }
        };
        if !word.is_empty() {
            push_key(out, b',', "tool_choice");
            push_string(out, word);
        }
        if choice.boolean("disable_parallel_tool_use")? == Some(true) && word != "none" {
            out.extend_from_slice(b",\"parallel_tool_calls\":false");
        }
        Ok(())
    }
}
