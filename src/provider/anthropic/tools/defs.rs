//! What one tool is upstream: its definition with a schema that the provider takes.

use std::borrow::Cow;
use std::collections::HashSet;

use serde_json::value::RawValue;

use super::super::schema;
use crate::cancel;
use crate::capability::Claude;
use crate::chat::Tool;
use crate::error::ApiError;
use crate::json::{Fields, push_string};
use crate::provider::anthropic::block::{Body, Mark};
use crate::provider::names::Names;
use crate::provider::unfold::{Budget, TooLarge};

/// A custom tool takes one text.
const CUSTOM_SCHEMA: &str =
    r#"{"type":"object","properties":{"input":{"type":"string"}},"required":["input"]}"#;

const NO_PARAMETERS: &str = r#"{"type":"object","properties":{}}"#;

#[derive(Debug)]
pub enum Def<'r> {
    Caller {
        name: &'r str,
        description: Option<Cow<'r, str>>,
        schema: Cow<'r, str>,
        strict: bool,
        mark: Option<Mark<'r>>,
    },
    /// The provider's own kind of tool: its fields without the cache mark.
    Native {
        fields: Fields<'r>,
        mark: Option<Mark<'r>>,
    },
    WebSearch(Vec<u8>),
}

impl<'r> Def<'r> {
    /// The definition of `tools[index]`.
    pub fn new(
        tool: &'r Tool<'r>,
        index: usize,
        claude: &Claude,
        budget: &Budget,
    ) -> Result<Self, ApiError> {
        cancel::check()?;
        Ok(match tool {
            Tool::Function {
                name,
                description,
                parameters,
                strict,
                cache_control,
                ..
            } => {
                let (schema, strict) =
                    input_schema(*parameters, *strict, claude, budget).map_err(|TooLarge| {
                        budget.refusal(format!("tools[{index}].function.parameters"))
                    })?;
                Def::Caller {
                    name,
                    description: description.as_deref().map(Cow::Borrowed),
                    schema,
                    strict,
                    mark: Mark::of(*cache_control, None),
                }
            }
            Tool::Custom {
                name,
                description,
                format,
            } => Def::Caller {
                name,
                description: describe_custom(description.as_deref(), *format),
                schema: Cow::Borrowed(CUSTOM_SCHEMA),
                strict: false,
                mark: None,
            },
            Tool::Native { kind, object } if is_native(kind) => {
                let mut fields: Fields = serde_json::from_str(object.get()).map_err(|error| {
                    ApiError::invalid(format!("tools[{index}]"), error.to_string())
                })?;
                let mark = Mark::of(fields.get("cache_control"), None);
                fields.0.retain(|(name, _)| name != "cache_control");
                Def::Native { fields, mark }
            }
            Tool::Native { kind, .. } => {
                return Err(ApiError::unsupported_value(
                    format!("tools[{index}].type"),
                    format!("tools of type {kind:?} are not supported by this model"),
                ));
            }
        })
    }

    /// Whether an `allowed_tools` choice of these names lets the tool through.
    pub fn is_among(&self, allowed: &HashSet<&str>) -> bool {
        match self {
            Def::Caller { name, .. } => allowed.contains(name),
            Def::Native { fields, .. } => ["name", "type"]
                .iter()
                .filter_map(|key| fields.parse::<Cow<str>>(key)?.ok())
                .any(|own| allowed.contains(&*own)),
            Def::WebSearch(_) => true,
        }
    }

    pub fn web_search(options: &RawValue) -> Self {
        Def::WebSearch(web_search(options))
    }

    pub fn mark(&self) -> Option<&Mark<'r>> {
        match self {
            Def::Caller { mark, .. } | Def::Native { mark, .. } => mark.as_ref(),
            Def::WebSearch(_) => None,
        }
    }

    pub fn write(&self, body: &mut Body, names: &Names<'_>) {
        match self {
            Def::Caller {
                name,
                description,
                schema,
                strict,
                mark,
            } => {
                body.raw("{\"name\":");
                body.string(names.sent(name));
                if let Some(description) = description {
                    body.member("description", description);
                }
                body.raw(",\"input_schema\":");
                body.compact(schema);
                if *strict {
                    body.raw(",\"strict\":true");
                }
                body.mark(mark.as_ref());
                body.raw("}");
            }
            Def::Native { fields, mark } => {
                body.raw("{");
                for (index, (name, value)) in fields.0.iter().enumerate() {
                    if index > 0 {
                        body.raw(",");
                    }
                    body.string(name);
                    body.raw(":");
                    body.compact(value.get());
                }
                body.mark(mark.as_ref());
                body.raw("}");
            }
            Def::WebSearch(json) => body.bytes.extend_from_slice(json),
        }
    }
}

/// The provider dates its tool types: `bash_20250124`.
fn is_native(kind: &str) -> bool {
    let dated = kind.rsplit_once('_').is_some_and(|(name, date)| {
        !name.is_empty() && date.len() == 8 && date.bytes().all(|byte| byte.is_ascii_digit())
    });
    dated || kind == "mcp_toolset"
}

/// The schema as it goes out, and whether it can be strict.
fn input_schema<'r>(
    parameters: Option<&'r RawValue>,
    strict: bool,
    claude: &Claude,
    budget: &Budget,
) -> Result<(Cow<'r, str>, bool), TooLarge> {
    let Some(raw) = parameters.filter(|raw| !is_empty_object(raw.get())) else {
        return Ok((Cow::Borrowed(NO_PARAMETERS), false));
    };
    if strict
        && claude.structured_outputs
        && let Some(closed) = schema::anthropic_strict(raw, budget)
    {
        return Ok((Cow::Owned(closed), true));
    }
    if needs_no_change(raw.get()) {
        return Ok((Cow::Borrowed(raw.get()), false));
    }
    Ok((Cow::Owned(schema::anthropic_tool(raw, budget)?), false))
}

fn is_empty_object(json: &str) -> bool {
    json == "null"
        || json
            .strip_prefix('{')
            .and_then(|rest| rest.strip_suffix('}'))
            .is_some_and(|inside| inside.trim_ascii().is_empty())
}

/// Most schemas are what the provider takes, and need not be taken apart.
fn needs_no_change(json: &str) -> bool {
    let Ok(root) = serde_json::from_str::<Fields>(json) else {
        return false;
    };
    root.get("type").map(RawValue::get) == Some("\"object\"")
        && ["anyOf", "oneOf", "allOf"]
            .iter()
            .all(|key| root.get(key).is_none())
        && !json.contains("definitions")
}

/// A grammar cannot be enforced here, so the model is told of it.
fn describe_custom<'r>(
    description: Option<&'r str>,
    format: Option<&RawValue>,
) -> Option<Cow<'r, str>> {
    let grammar = format.and_then(|raw| {
        let fields: Fields = serde_json::from_str(raw.get()).ok()?;
        // The grammar stands in an object of its own, or directly in the format.
        let inner = match fields.parse::<Fields>("grammar") {
            Some(Ok(inner)) => inner,
            _ => fields,
        };
        let word = |key: &str| inner.parse::<Cow<str>>(key).and_then(Result::ok);
        let definition = word("definition")?;
        let syntax = word("syntax").unwrap_or_default();
        Some(format!(
            "The input must match this {syntax} grammar:\n{definition}"
        ))
    });
    match (description, grammar) {
        (description, None) => description.map(Cow::Borrowed),
        (None, Some(grammar)) => Some(Cow::Owned(grammar)),
        (Some(text), Some(grammar)) => Some(Cow::Owned(format!("{text}\n\n{grammar}"))),
    }
}

/// The provider's search tool, set up as `web_search_options` says.
fn web_search(options: &RawValue) -> Vec<u8> {
    let mut json = br#"{"type":"web_search_20250305","name":"web_search""#.to_vec();
    let options: Fields = serde_json::from_str(options.get()).unwrap_or_default();
    let uses = match options.get("search_context_size").map(RawValue::get) {
        Some("\"low\"") => Some("1"),
        Some("\"medium\"") => Some("5"),
        Some("\"high\"") => Some("10"),
        _ => None,
    };
    if let Some(uses) = uses {
        json.extend_from_slice(b",\"max_uses\":");
        json.extend_from_slice(uses.as_bytes());
    }
    let place = options
        .parse::<Fields>("user_location")
        .and_then(Result::ok)
        .and_then(|location| location.parse::<Fields>("approximate"))
        .and_then(Result::ok)
        .unwrap_or_default();
    let known: Vec<_> = ["city", "region", "country", "timezone"]
        .into_iter()
        .filter_map(|key| Some((key, place.parse::<Cow<str>>(key)?.ok()?)))
        .filter(|(_, text)| !text.is_empty())
        .collect();
    if !known.is_empty() {
        json.extend_from_slice(br#","user_location":{"type":"approximate""#);
        for (key, text) in known {
            json.push(b',');
            push_string(&mut json, key);
            json.push(b':');
            push_string(&mut json, &text);
        }
        json.push(b'}');
    }
    json.push(b'}');
    json
}
