//! Tools and what may be called: `tools`, `tool_choice`, `parallel_tool_calls` and the web search.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::Switches;
use super::block::{Body, Mark};
use super::encode::Dropped;
use super::names::Names;
use crate::capability::Claude;
use crate::chat::{Request, Tool, ToolChoice};
use crate::error::ApiError;
use crate::json::{Fields, push_string};
use crate::schema;

/// A custom tool takes one text.
const CUSTOM_SCHEMA: &str =
    r#"{"type":"object","properties":{"input":{"type":"string"}},"required":["input"]}"#;

const NO_PARAMETERS: &str = r#"{"type":"object","properties":{}}"#;

/// What the request says about tools, ready to be written.
#[derive(Debug)]
pub struct Tools<'r> {
    pub names: Names<'r>,
    defs: Vec<Def<'r>>,
    choice: Option<Choice>,
    serial: bool,
    /// The caller's names of custom tools.
    pub custom: Vec<String>,
    /// The provider may run tools itself, and so may pause its turn.
    pub server_tools: bool,
}

#[derive(Debug)]
enum Def<'r> {
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

#[derive(Debug, PartialEq, Eq)]
enum Choice {
    Auto,
    Any,
    None,
    Tool(String),
}

impl<'r> Tools<'r> {
    pub fn new(
        request: &'r Request<'r>,
        claude: &Claude,
        switches: &Switches,
        dropped: &mut Dropped,
    ) -> Result<Self, ApiError> {
        let mut tools = Tools {
            names: Names::default(),
            defs: Vec::with_capacity(request.tools.len() + 1),
            choice: None,
            serial: request.parallel_tool_calls == Some(false),
            custom: Vec::new(),
            server_tools: false,
        };
        let mut natives = Vec::new();
        for tool in &request.tools {
            if let Tool::Native { object, .. } = tool {
                let fields: Fields = serde_json::from_str(object.get()).unwrap_or_default();
                natives.extend(fields.parse::<Cow<str>>("name").and_then(Result::ok));
            }
        }
        for native in &natives {
            tools.names.reserve(native);
        }
        let search = match request.web_search_options {
            Some(_) if !claude.web_search => {
                return Err(ApiError::unsupported_parameter(
                    "web_search_options",
                    "this model has no web search",
                ));
            }
            // The caller's own search tool does the same, and two of one name are refused.
            Some(_) if natives.iter().any(|native| native == "web_search") => None,
            options => options,
        };
        if search.is_some() {
            tools.names.reserve("web_search");
        }
        let names: Vec<&'r str> = request.tools.iter().filter_map(name).collect();
        tools.names.add_tools(&names);
        for (index, tool) in request.tools.iter().enumerate() {
            let def = tools.def(tool, index, claude)?;
            if is_allowed(tool, request.tool_choice.as_ref(), &def) {
                tools.defs.push(def);
            }
        }
        if let Some(options) = search {
            tools.server_tools = true;
            tools.defs.push(Def::WebSearch(web_search(options)));
        }
        tools.choose(request, &natives, claude, switches, dropped)?;
        Ok(tools)
    }

    fn def(
        &mut self,
        tool: &'r Tool<'r>,
        index: usize,
        claude: &Claude,
    ) -> Result<Def<'r>, ApiError> {
        Ok(match tool {
            Tool::Function {
                name,
                description,
                parameters,
                strict,
                cache_control,
            } => {
                let (schema, strict) = input_schema(*parameters, *strict, claude);
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
            } => {
                self.custom.push(name.to_string());
                Def::Caller {
                    name,
                    description: describe_custom(description.as_deref(), *format),
                    schema: Cow::Borrowed(CUSTOM_SCHEMA),
                    strict: false,
                    mark: None,
                }
            }
            Tool::Native { kind, object } if is_native(kind) => {
                self.server_tools = true;
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

    fn choose(
        &mut self,
        request: &'r Request<'r>,
        natives: &[Cow<'_, str>],
        claude: &Claude,
        switches: &Switches,
        dropped: &mut Dropped,
    ) -> Result<(), ApiError> {
        if self.defs.is_empty() {
            if let Some(ToolChoice::Allowed { .. }) = &request.tool_choice
                && !request.tools.is_empty()
            {
                return Err(ApiError::unsupported_value(
                    "tool_choice",
                    "none of the allowed tools is among the tools",
                ));
            }
            // A choice without tools is refused upstream, and means nothing.
            return Ok(());
        }
        let choice = match &request.tool_choice {
            None if self.serial => Some(Choice::Auto),
            None => None,
            Some(ToolChoice::Auto) => Some(Choice::Auto),
            Some(ToolChoice::None) => Some(Choice::None),
            Some(ToolChoice::Required) => Some(Choice::Any),
            Some(ToolChoice::Named(name)) if self.names.contains(name) => {
                Some(Choice::Tool(self.names.sent(name).to_owned()))
            }
            Some(ToolChoice::Named(name)) if natives.contains(name) => {
                Some(Choice::Tool(name.to_string()))
            }
            Some(ToolChoice::Named(name)) => return Err(unknown_tool(name)),
            Some(ToolChoice::Allowed { required, .. }) => {
                Some(if *required { Choice::Any } else { Choice::Auto })
            }
        };
        let forces = matches!(choice, Some(Choice::Any | Choice::Tool(_)));
        self.choice = if forces && !claude.forced_tools {
            if switches.reject_forced_tools {
                return Err(ApiError::unsupported_value(
                    "tool_choice",
                    "this model cannot be made to call a tool",
                ));
            }
            dropped.warn("tool_choice")?;
            Some(Choice::Auto)
        } else {
            choice
        };
        Ok(())
    }

    /// The tool choice makes the model call.
    pub fn is_forced(&self) -> bool {
        matches!(self.choice, Some(Choice::Any | Choice::Tool(_)))
    }

    pub fn is_empty(&self) -> bool {
        self.defs.is_empty()
    }

    pub fn marks(&self) -> usize {
        self.defs
            .iter()
            .filter(|def| match def {
                Def::Caller { mark, .. } | Def::Native { mark, .. } => mark.is_some(),
                Def::WebSearch(_) => false,
            })
            .count()
    }

    /// `,"tools":[...]` and `,"tool_choice":{...}`. `in_history`: the history holds tool blocks,
    /// which the provider takes only together with definitions.
    pub fn write(&self, body: &mut Body, in_history: bool) {
        if self.defs.is_empty() && in_history {
            body.raw(",\"tools\":");
            body.list(self.names.all_sent(), |body, name| {
                body.raw("{\"name\":");
                body.string(name);
                body.raw(r#","input_schema":{"type":"object"}}"#);
            });
            body.raw(r#","tool_choice":{"type":"none"}"#);
            return;
        }
        if self.defs.is_empty() {
            return;
        }
        body.raw(",\"tools\":");
        body.list(&self.defs, |body, def| def.write(body, &self.names));
        let Some(choice) = &self.choice else { return };
        body.raw(",\"tool_choice\":{\"type\":");
        match choice {
            Choice::Auto => body.raw("\"auto\""),
            Choice::Any => body.raw("\"any\""),
            Choice::None => body.raw("\"none\""),
            Choice::Tool(name) => {
                body.raw("\"tool\"");
                body.member("name", name);
            }
        }
        if self.serial && *choice != Choice::None {
            body.raw(",\"disable_parallel_tool_use\":true");
        }
        body.raw("}");
    }
}

impl Def<'_> {
    fn write(&self, body: &mut Body, names: &Names<'_>) {
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

fn unknown_tool(name: &str) -> ApiError {
    ApiError::unsupported_value("tool_choice", format!("{name} is not among the tools"))
}

fn name<'r>(tool: &'r Tool<'r>) -> Option<&'r str> {
    match tool {
        Tool::Function { name, .. } | Tool::Custom { name, .. } => Some(name),
        Tool::Native { .. } => None,
    }
}

/// The provider dates its tool types: `bash_20250124`.
fn is_native(kind: &str) -> bool {
    let dated = kind.rsplit_once('_').is_some_and(|(name, date)| {
        !name.is_empty() && date.len() == 8 && date.bytes().all(|byte| byte.is_ascii_digit())
    });
    dated || kind == "mcp_toolset"
}

/// Whether an `allowed_tools` choice lets the tool through; every other choice does.
fn is_allowed(tool: &Tool<'_>, choice: Option<&ToolChoice<'_>>, def: &Def<'_>) -> bool {
    let Some(ToolChoice::Allowed { names, .. }) = choice else {
        return true;
    };
    match (tool, def) {
        (Tool::Native { kind, .. }, Def::Native { fields, .. }) => {
            let own = fields.parse::<Cow<str>>("name").and_then(Result::ok);
            names
                .iter()
                .any(|name| name == kind || Some(name) == own.as_ref())
        }
        _ => name(tool).is_some_and(|own| names.iter().any(|name| name == own)),
    }
}

/// The schema as it goes out, and whether it can be strict.
fn input_schema<'r>(
    parameters: Option<&'r RawValue>,
    strict: bool,
    claude: &Claude,
) -> (Cow<'r, str>, bool) {
    let Some(raw) = parameters.filter(|raw| !is_empty_object(raw.get())) else {
        return (Cow::Borrowed(NO_PARAMETERS), false);
    };
    if strict
        && claude.structured_outputs
        && let Some(closed) = schema::anthropic_strict(raw)
    {
        return (Cow::Owned(closed), true);
    }
    if needs_no_change(raw.get()) {
        return (Cow::Borrowed(raw.get()), false);
    }
    (Cow::Owned(schema::anthropic_tool(raw)), false)
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
