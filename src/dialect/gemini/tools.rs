//! `tools` and `toolConfig` of a Gemini request as those of a chat request.

use std::borrow::Cow;

use serde_json::Value;
use serde_json::value::RawValue;

use super::request::read as read_object;
use crate::dialect::messages::Dropped;
use crate::dialect::openai::read::{Object, Path, string};
use crate::error::ApiError;
use crate::json::shape::Limits;
use crate::json::{push_key, push_string};

/// Deeper than any schema goes.
const DEEPEST: u32 = 64;

/// The tools that another provider can be told of.
pub struct Tools<'a> {
    functions: Vec<Function<'a>>,
    /// The provider's own web search is among the tools.
    pub searches: bool,
}

struct Function<'a> {
    name: Cow<'a, str>,
    description: Option<Cow<'a, str>>,
    schema: Option<String>,
}

pub fn read<'a>(
    root: &Object<'a, '_>,
    limits: &Limits,
    dropped: &mut Dropped,
) -> Result<Tools<'a>, ApiError> {
    let path = Path::Root.key("tools");
    let mut tools = Tools {
        functions: Vec::new(),
        searches: false,
    };
    let entries = root.array("tools")?;
    limits.check_tools("tools", entries.len())?;
    for (at, raw) in entries.into_iter().enumerate() {
        let path = path.index(at);
        let tool = read_object(raw, &path)?;
        for (key, _) in &tool.fields.0 {
            match &**key {
                "functionDeclarations" => {}
                "googleSearch" | "googleSearchRetrieval" => tools.searches = true,
                other => dropped.add(&format!("tools.{other}")),
            }
        }
        let path = path.key("functionDeclarations");
        let declared = tool.array("functionDeclarations")?;
        let count = tools.functions.len() + declared.len();
        limits.check_tools("tools.functionDeclarations", count)?;
        for (at, raw) in declared.into_iter().enumerate() {
            crate::cancel::check()?;
            let path = path.index(at);
            let function = read_object(raw, &path)?;
            let name = function.required_string("name")?;
            if name.is_empty() {
                return Err(path.key("name").invalid("must not be empty"));
            }
            let mut schema = None;
            for key in ["parametersJsonSchema", "parameters"] {
                if schema.is_none()
                    && let Some(raw) = function.carried(key)?
                {
                    schema = Some(plain_schema(raw, &path.key(key))?);
                }
            }
            tools.functions.push(Function {
                name,
                description: function.string("description")?,
                schema,
            });
        }
    }
    Ok(tools)
}

impl Tools<'_> {
    pub fn push(&self, root: &Object<'_, '_>, out: &mut Vec<u8>) -> Result<(), ApiError> {
        for (at, tool) in self.functions.iter().enumerate() {
            out.extend_from_slice(if at == 0 { b",\"tools\":[" } else { b"," });
            out.extend_from_slice(b"{\"type\":\"function\",\"function\":{\"name\":");
            push_string(out, &tool.name);
            if let Some(description) = &tool.description {
                push_key(out, b',', "description");
                push_string(out, description);
            }
            push_key(out, b',', "parameters");
            let schema = tool.schema.as_deref();
            let schema = schema.unwrap_or(r#"{"type":"object","properties":{}}"#);
            out.extend_from_slice(schema.as_bytes());
            out.extend_from_slice(b"}}");
        }
        if !self.functions.is_empty() {
            out.push(b']');
        }
        self.choice(root, out)
    }

    fn choice(&self, root: &Object<'_, '_>, out: &mut Vec<u8>) -> Result<(), ApiError> {
        let path = Path::Root.key("toolConfig");
        let Some(raw) = root.get("toolConfig") else {
            return Ok(());
        };
        let config = read_object(raw, &path)?;
        let path = path.key("functionCallingConfig");
        let Some(raw) = config.get("functionCallingConfig") else {
            return Ok(());
        };
        let calling = read_object(raw, &path)?;
        let mode = calling.string("mode")?.unwrap_or_default();
        let mut names = Vec::new();
        let allowed = path.key("allowedFunctionNames");
        for (at, raw) in calling
            .array("allowedFunctionNames")?
            .into_iter()
            .enumerate()
        {
            let name = string(raw, &allowed.index(at))?;
            if self.functions.iter().any(|tool| tool.name == name) {
                names.push(name);
            }
        }
        // Of tools that are not declared, none can be chosen.
        if self.functions.is_empty() {
            return Ok(());
        }
        let any = mode.eq_ignore_ascii_case("any");
        match &*names {
            _ if mode.eq_ignore_ascii_case("none") => {
                out.extend_from_slice(b",\"tool_choice\":\"none\"");
            }
            [name] if any => {
                out.extend_from_slice(
                    b",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":",
                );
                push_string(out, name);
                out.extend_from_slice(b"}}");
            }
            [] if any => out.extend_from_slice(b",\"tool_choice\":\"required\""),
            [] => out.extend_from_slice(b",\"tool_choice\":\"auto\""),
            names => {
                let mode = if any { "required" } else { "auto" };
                out.extend_from_slice(
                    b",\"tool_choice\":{\"type\":\"allowed_tools\",\"allowed_tools\":{\"mode\":",
                );
                push_string(out, mode);
                out.extend_from_slice(b",\"tools\":[");
                for (at, name) in names.iter().enumerate() {
                    if at > 0 {
                        out.push(b',');
                    }
                    out.extend_from_slice(b"{\"type\":\"function\",\"function\":{\"name\":");
                    push_string(out, name);
                    out.extend_from_slice(b"}}");
                }
                out.extend_from_slice(b"]}}");
            }
        }
        Ok(())
    }
}

/// A schema in the vendor's spelling as a JSON Schema: types are in small letters, and what may be
/// null says so in its type. A schema that has nothing of that stays as it is, byte by byte.
pub fn plain_schema(raw: &RawValue, path: &Path<'_>) -> Result<String, ApiError> {
    let text = raw.get();
    let is_own = [
        "\"OBJECT\"",
        "\"STRING\"",
        "\"NUMBER\"",
        "\"INTEGER\"",
        "\"BOOLEAN\"",
        "\"ARRAY\"",
        "\"NULL\"",
        "\"TYPE_UNSPECIFIED\"",
        "\"nullable\"",
        "_",
    ];
    if !is_own.iter().any(|word| text.contains(word)) {
        return Ok(text.to_owned());
    }
    let mut schema: Value = serde_json::from_str(text).map_err(|error| path.invalid(error))?;
    plain(&mut schema, DEEPEST);
    Ok(schema.to_string())
}

fn plain(schema: &mut Value, depth: u32) {
    const TYPES: &[&str] = &[
        "object", "string", "number", "integer", "boolean", "array", "null",
    ];
    let Some(members) = schema.as_object_mut().filter(|_| depth > 0) else {
        return;
    };
    for (old, new) in [
        ("any_of", "anyOf"),
        ("min_items", "minItems"),
        ("max_items", "maxItems"),
    ] {
        if let Some(value) = members.remove(old) {
            members.insert(new.to_owned(), value);
        }
    }
    let lower = |kind: &mut Value| {
        let Some(text) = kind.as_str() else { return };
        let small = text.to_ascii_lowercase();
        if TYPES.contains(&&*small) {
            *kind = small.into();
        }
    };
    match members.get_mut("type") {
        Some(Value::Array(kinds)) => kinds.iter_mut().for_each(lower),
        Some(kind) => lower(kind),
        None => {}
    }
    if members.get("type").and_then(Value::as_str) == Some("TYPE_UNSPECIFIED") {
        members.remove("type");
    }
    if members.remove("nullable") == Some(Value::Bool(true))
        && let Some(kind) = members.get_mut("type")
        && kind.is_string()
    {
        *kind = Value::Array(vec![kind.take(), "null".into()]);
    }
    for (key, value) in members {
        match (&**key, value) {
            ("properties" | "$defs" | "definitions" | "patternProperties", Value::Object(of)) => {
                of.values_mut().for_each(|schema| plain(schema, depth - 1));
            }
            ("anyOf" | "oneOf" | "allOf" | "prefixItems", Value::Array(of)) => {
                of.iter_mut().for_each(|schema| plain(schema, depth - 1));
            }
            ("items" | "additionalProperties" | "not", schema) => plain(schema, depth - 1),
            _ => {}
        }
    }
}
