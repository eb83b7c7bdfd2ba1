//! `tools` and `tool_choice`, and their older spelling `functions` and `function_call`.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::read::{Object, Path, is_string, string, wrong};
use crate::chat::{Tool, ToolChoice};
use crate::error::ApiError;
use crate::json::shape::Limits;

pub struct Tools<'a> {
    pub tools: Vec<Tool<'a>>,
    /// They came as `functions`.
    pub legacy: bool,
}

pub fn read_tools<'a>(root: &Object<'a, '_>, limits: &Limits) -> Result<Tools<'a>, ApiError> {
    let path = root.path.key("functions");
    let functions = root.array("functions")?;
    if functions.is_empty() {
        let path = root.path.key("tools");
        let entries = root.array("tools")?;
        limits.check_tools("tools", entries.len())?;
        let entries = entries.into_iter().enumerate();
        let tools: Result<_, _> = entries.map(|(i, raw)| tool(raw, &path.index(i))).collect();
        return Ok(Tools {
            tools: tools?,
            legacy: false,
        });
    }
    if root.get("tools").is_some() {
        return Err(path.invalid("cannot be used together with tools"));
    }
    limits.check_tools("functions", functions.len())?;
    let entries = functions.into_iter().enumerate();
    let tools: Result<_, _> = entries
        .map(|(i, raw)| function(&Object::read(raw, &path.index(i))?, None, None))
        .collect();
    Ok(Tools {
        tools: tools?,
        legacy: true,
    })
}

fn tool<'a>(raw: &'a RawValue, path: &Path<'_>) -> Result<Tool<'a>, ApiError> {
    let tool = Object::read(raw, path)?;
    let kind = tool.required_string("type")?;
    match &*kind {
        "function" => {
            let path = path.key("function");
            let inner = inner(&tool, &path)?;
            let cache_control = tool.carried("cache_control")?;
            let deferred = tool.boolean("defer_loading")?;
            function(&inner, cache_control, deferred)
        }
        "custom" => {
            let path = path.key("custom");
            let custom = inner(&tool, &path)?;
            Ok(Tool::Custom {
                name: name(&custom)?,
                description: custom.string("description")?,
                format: custom.carried("format")?,
            })
        }
        _ => Ok(Tool::Native { kind, object: raw }),
    }
}

/// The object under the key that `path` ends with.
fn inner<'a, 'p>(tool: &Object<'a, '_>, path: &'p Path<'p>) -> Result<Object<'a, 'p>, ApiError> {
    let Path::Key(_, key) = path else {
        return Err(path.invalid("is required"));
    };
    match tool.get(key) {
        Some(raw) => Object::read(raw, path),
        None => Err(path.invalid("is required")),
    }
}

fn name<'a>(object: &Object<'a, '_>) -> Result<Cow<'a, str>, ApiError> {
    let name = object.required_string("name")?;
    if name.is_empty() {
        return Err(object.path.key("name").invalid("must not be empty"));
    }
    Ok(name)
}

fn function<'a>(
    function: &Object<'a, '_>,
    cache_control: Option<&'a RawValue>,
    deferred: Option<bool>,
) -> Result<Tool<'a>, ApiError> {
    Ok(Tool::Function {
        name: name(function)?,
        description: function.string("description")?,
        parameters: function.carried("parameters")?,
        strict: function.boolean("strict")?.unwrap_or(false),
        deferred: match deferred {
            Some(deferred) => deferred,
            None => function.boolean("defer_loading")?.unwrap_or(false),
        },
        cache_control: match cache_control {
            Some(raw) => Some(raw),
            None => function.carried("cache_control")?,
        },
    })
}

pub fn read_choice<'a>(root: &Object<'a, '_>) -> Result<Option<ToolChoice<'a>>, ApiError> {
    if let Some(raw) = root.get("tool_choice") {
        return choice(raw, &root.path.key("tool_choice")).map(Some);
    }
    let Some(raw) = root.get("function_call") else {
        return Ok(None);
    };
    let path = root.path.key("function_call");
    if is_string(raw) {
        return match &*string(raw, &path)? {
            "auto" => Ok(Some(ToolChoice::Auto)),
            "none" => Ok(Some(ToolChoice::None)),
            other => Err(unknown(&path, other)),
        };
    }
    let named = Object::read(raw, &path)?;
    Ok(Some(ToolChoice::Named(name(&named)?)))
}

fn choice<'a>(raw: &'a RawValue, path: &Path<'_>) -> Result<ToolChoice<'a>, ApiError> {
    if is_string(raw) {
        return match &*string(raw, path)? {
            "auto" => Ok(ToolChoice::Auto),
            "none" => Ok(ToolChoice::None),
            "required" => Ok(ToolChoice::Required),
            other => Err(unknown(path, other)),
        };
    }
    if !super::read::is_object(raw) {
        return Err(wrong(raw, path, "a string or an object"));
    }
    let choice = Object::read(raw, path)?;
    let kind = choice.required_string("type")?;
    match &*kind {
        "function" => Ok(ToolChoice::Named(name(&inner(
            &choice,
            &path.key("function"),
        )?)?)),
        "custom" => Ok(ToolChoice::Named(name(&inner(
            &choice,
            &path.key("custom"),
        )?)?)),
        "allowed_tools" => {
            let path = path.key("allowed_tools");
            let allowed = inner(&choice, &path)?;
            let required = match allowed.string("mode")?.as_deref() {
                None | Some("auto") => false,
                Some("required") => true,
                Some(other) => return Err(unknown(&path.key("mode"), other)),
            };
            let path = path.key("tools");
            let entries = allowed.array("tools")?.into_iter().enumerate();
            let names: Result<_, _> = entries
                .map(|(i, raw)| allowed_name(raw, &path.index(i)))
                .collect();
            Ok(ToolChoice::Allowed {
                required,
                names: names?,
            })
        }
        other => Err(unknown(&path.key("type"), other)),
    }
}

fn allowed_name<'a>(raw: &'a RawValue, path: &Path<'_>) -> Result<Cow<'a, str>, ApiError> {
    let tool = Object::read(raw, path)?;
    let kind = tool.required_string("type")?;
    match &*kind {
        "function" | "custom" => name(&inner(&tool, &path.key(&kind))?),
        // A tool of the provider's own goes by its type.
        _ => Ok(kind),
    }
}

fn unknown(path: &Path<'_>, value: &str) -> ApiError {
    path.invalid(format_args!("{value:?} is not known"))
        .with_code("unsupported_value")
}
