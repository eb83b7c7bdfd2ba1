//! Tools: names, declarations and how they may be called.

use std::collections::HashSet;

use serde_json::value::RawValue;

use super::context::Context;
use super::schema;
use super::write::Nest;
use crate::cancel;
use crate::capability::Gemini;
use crate::chat::{Request, Tool, ToolChoice};
use crate::error::ApiError;
use crate::json::{Fields, push_string};
use crate::provider::names::Names;
use crate::provider::unfold::TooLarge;

/// The vendor's limit of declarations in one request.
const MOST_TOOLS: usize = 512;

/// What a custom tool takes once it is a function.
const INPUT_SCHEMA: &str =
    r#"{"type":"object","properties":{"input":{"type":"string"}},"required":["input"]}"#;
const INPUT_SCHEMA_OLD: &str =
    r#"{"type":"OBJECT","properties":{"input":{"type":"STRING"}},"required":["input"]}"#;

/// The names of the request's tools, as the model takes them.
pub fn names<'r>(request: &'r Request<'_>, model: &Gemini) -> Names<'r> {
    let mut names = Names::new(super::names(if model.third { 128 } else { 64 }));
    names.add_tools(request.tools.iter().filter_map(tool_name));
    names
}

fn tool_name<'r>(tool: &'r Tool<'_>) -> Option<&'r str> {
    match tool {
        Tool::Function { name, .. } | Tool::Custom { name, .. } => Some(name),
        Tool::Native { .. } => None,
    }
}

/// Whether the request has tools that go out as function declarations.
pub fn has_functions(request: &Request<'_>) -> bool {
    request.tools.iter().any(|tool| tool_name(tool).is_some())
}

/// Writes `tools` and `toolConfig`, as far as they are needed.
pub fn write(
    context: &Context<'_>,
    names: &Names<'_>,
    body: &mut Nest<'_>,
) -> Result<(), ApiError> {
    let (request, model) = (context.request, &context.model);
    let search = request.web_search_options.is_some();
    let functions = has_functions(request);
    check(request, model, search && functions)?;
    if !search && !functions {
        return Ok(());
    }
    // A choice without function tools would be refused.
    let choice = match functions {
        true => choose(request, model, search)?,
        false => Choice::default(),
    };
    let mut tools = Nest::array(body.key("tools"));
    if functions {
        let mut entry = Nest::object(tools.item());
        let mut declarations = Nest::array(entry.key("functionDeclarations"));
        for (index, tool) in request.tools.iter().enumerate() {
            cancel::check()?;
            let listed = (choice.only.as_ref())
                .is_none_or(|only| tool_name(tool).is_some_and(|name| only.contains(name)));
            if listed {
                declare(tool, context, names, declarations.item()).map_err(|TooLarge| {
                    let param = format!("tools[{index}].function.parameters");
                    context.budget.refusal(param)
                })?;
            }
        }
        declarations.end();
        entry.end();
    }
    if search {
        tools.item().extend_from_slice(br#"{"googleSearch":{}}"#);
    }
    tools.end();
    let both = search && functions;
    let Some(mode) = choice.mode else {
        return Ok(());
    };
    let mut config = Nest::object(body.key("toolConfig"));
    let mut calling = Nest::object(config.key("functionCallingConfig"));
    calling.string("mode", mode);
    if !choice.names.is_empty() {
        let mut allowed = Nest::array(calling.key("allowedFunctionNames"));
        for name in choice.names {
            push_string(allowed.item(), names.sent(name));
        }
        allowed.end();
    }
    calling.end();
    if both {
        config.value("includeServerSideToolInvocations", &true);
    }
    config.end();
    Ok(())
}

/// Before anything is done with them.
pub fn check_count(request: &Request<'_>) -> Result<(), ApiError> {
    if request.tools.len() > MOST_TOOLS {
        return Err(ApiError::unsupported_value(
            "tools",
            format!("this model takes at most {MOST_TOOLS} tools"),
        ));
    }
    Ok(())
}

/// What the vendor would refuse in words that a caller cannot place.
fn check(request: &Request<'_>, model: &Gemini, both: bool) -> Result<(), ApiError> {
    for (index, tool) in request.tools.iter().enumerate() {
        if let Tool::Native { kind, .. } = tool {
            return Err(ApiError::unsupported_value(
                format!("tools[{index}].type"),
                format!("tools of type {kind:?} are not supported by this model"),
            ));
        }
    }
    if both && !model.third {
        return Err(ApiError::unsupported_parameter(
            "web_search_options",
            "this model does not search the web in a request that has function tools",
        ));
    }
    Ok(())
}

#[derive(Default)]
struct Choice<'r> {
    mode: Option<&'static str>,
    /// `allowedFunctionNames`.
    names: Vec<&'r str>,
    /// Only these are declared at all.
    only: Option<HashSet<&'r str>>,
}

fn choose<'r>(
    request: &'r Request<'_>,
    model: &Gemini,
    search: bool,
) -> Result<Choice<'r>, ApiError> {
    let plain = |mode| Choice {
        mode,
        ..Choice::default()
    };
    let declared: HashSet<&str> = match &request.tool_choice {
        Some(ToolChoice::Named(_) | ToolChoice::Allowed { .. }) => {
            request.tools.iter().filter_map(tool_name).collect()
        }
        _ => HashSet::new(),
    };
    let known = |name: &str| {
        if declared.contains(name) {
            return Ok(());
        }
        Err(ApiError::unsupported_value(
            "tool_choice",
            format!("{name:?} is not among the tools"),
        ))
    };
    let strict = request
        .tools
        .iter()
        .any(|tool| matches!(tool, Tool::Function { strict: true, .. }));
    let validated = search || (strict && model.since_2_5);
    match &request.tool_choice {
        None | Some(ToolChoice::Auto) => Ok(plain(validated.then_some("VALIDATED"))),
        Some(ToolChoice::None) => Ok(plain(Some("NONE"))),
        Some(ToolChoice::Required) => Ok(plain(Some("ANY"))),
        Some(ToolChoice::Named(name)) => {
            known(name)?;
            Ok(Choice {
                names: vec![name],
                ..plain(Some("ANY"))
            })
        }
        Some(ToolChoice::Allowed { required, names }) => {
            names.iter().try_for_each(|name| known(name))?;
            let mode = match required {
                true => Some("ANY"),
                false => Some("VALIDATED").filter(|_| model.since_2_5),
            };
            let names_sent = names.iter().map(|name| &**name);
            Ok(match mode {
                // An empty list would mean all of them.
                _ if names.is_empty() => plain(Some("NONE")),
                Some(_) => Choice {
                    names: names_sent.collect(),
                    ..plain(mode)
                },
                // Before 2.5 a list goes only with `ANY`.
                None => Choice {
                    only: Some(names_sent.collect()),
                    ..plain(None)
                },
            })
        }
    }
}

fn declare(
    tool: &Tool<'_>,
    context: &Context<'_>,
    names: &Names<'_>,
    out: &mut Vec<u8>,
) -> Result<(), TooLarge> {
    let model = &context.model;
    let mut declaration = Nest::object(out);
    let key = if model.old_schema {
        "parameters"
    } else {
        "parametersJsonSchema"
    };
    match tool {
        Tool::Function {
            name,
            description,
            parameters,
            ..
        } => {
            declaration.string("name", names.sent(name));
            declaration.string("description", description.as_deref().unwrap_or_default());
            if let Some(parameters) = parameters.filter(|raw| !is_empty_object(raw)) {
                let schema = if model.old_schema {
                    schema::old_schema(parameters, &context.budget)?
                } else {
                    schema::json_schema(parameters, &context.budget)?
                };
                declaration.raw(key, &schema);
            }
        }
        Tool::Custom {
            name,
            description,
            format,
        } => {
            declaration.string("name", names.sent(name));
            let mut text = description.as_deref().unwrap_or_default().to_owned();
            if let Some((syntax, grammar)) = format.and_then(grammar) {
                if !text.is_empty() {
                    text.push_str("\n\n");
                }
                text.push_str("The input must match this ");
                text.push_str(&syntax);
                text.push_str(" grammar:\n");
                text.push_str(&grammar);
            }
            declaration.string("description", &text);
            let schema = if model.old_schema {
                INPUT_SCHEMA_OLD
            } else {
                INPUT_SCHEMA
            };
            declaration.raw(key, schema);
        }
        Tool::Native { .. } => {}
    }
    declaration.end();
    Ok(())
}

fn is_empty_object(raw: &RawValue) -> bool {
    super::compact(raw.get()) == "{}"
}

/// The syntax and the definition of a custom tool's grammar, in either of the shapes that clients
/// send.
fn grammar(format: &RawValue) -> Option<(String, String)> {
    let fields: Fields<'_> = serde_json::from_str(format.get()).ok()?;
    let text = |fields: &Fields<'_>, key: &str| fields.parse::<String>(key)?.ok();
    if text(&fields, "type").as_deref() != Some("grammar") {
        return None;
    }
    let inner = fields.parse::<Fields<'_>>("grammar").and_then(Result::ok);
    let grammar = inner.as_ref().unwrap_or(&fields);
    let syntax = text(grammar, "syntax").unwrap_or_default();
    Some((syntax, text(grammar, "definition")?))
}
