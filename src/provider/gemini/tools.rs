//! Tools: names, declarations and how they may be called.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use serde_json::value::RawValue;

use super::schema;
use super::write::Nest;
use crate::capability::Gemini;
use crate::chat::{Request, Tool, ToolChoice};
use crate::error::ApiError;
use crate::json::{Fields, push_string};

/// The vendor's limit of declarations in one request.
const MOST_TOOLS: usize = 512;

/// What a custom tool takes once it is a function.
const INPUT_SCHEMA: &str =
    r#"{"type":"object","properties":{"input":{"type":"string"}},"required":["input"]}"#;
const INPUT_SCHEMA_OLD: &str =
    r#"{"type":"OBJECT","properties":{"input":{"type":"STRING"}},"required":["input"]}"#;

/// The caller's tool names as the vendor takes them. Names of declared tools that are fine keep
/// priority; names that only the history has come after, in their order, so that a longer history
/// does not rename what a shorter one named.
pub struct Names<'r> {
    longest: usize,
    /// `None` where the name goes out as it is.
    known: HashMap<&'r str, Option<String>>,
    taken: HashSet<String>,
    /// What the decoder has to undo, in the order in which it came up.
    pub changed: Vec<(String, String)>,
}

impl<'r> Names<'r> {
    pub fn new(request: &'r Request<'_>, model: &Gemini) -> Self {
        let mut names = Names {
            longest: if model.third { 128 } else { 64 },
            known: HashMap::new(),
            taken: HashSet::new(),
            changed: Vec::new(),
        };
        let declared = || request.tools.iter().filter_map(tool_name);
        for name in declared().filter(|name| is_valid(name, names.longest)) {
            names.known.insert(name, None);
            names.taken.insert(name.to_owned());
        }
        for name in declared() {
            names.add(name);
        }
        names
    }

    /// How `name` is spelled on the wire.
    pub fn wire(&mut self, name: &'r str) -> &str {
        self.add(name);
        self.known
            .get(name)
            .and_then(Option::as_deref)
            .unwrap_or(name)
    }

    fn add(&mut self, name: &'r str) {
        if self.known.contains_key(name) {
            return;
        }
        let clean = clean(name, self.longest);
        let mut wire = clean.clone();
        let mut number = 2;
        while self.taken.contains(&wire) {
            let suffix = format!("_{number}");
            let room = self.longest - suffix.len();
            wire = format!("{}{suffix}", &clean[..clean.len().min(room)]);
            number += 1;
        }
        self.taken.insert(wire.clone());
        if wire == name {
            self.known.insert(name, None);
        } else {
            self.changed.push((wire.clone(), name.to_owned()));
            self.known.insert(name, Some(wire));
        }
    }
}

fn tool_name<'r>(tool: &'r Tool<'_>) -> Option<&'r str> {
    match tool {
        Tool::Function { name, .. } | Tool::Custom { name, .. } => Some(name),
        Tool::Native { .. } => None,
    }
}

fn is_valid(name: &str, longest: usize) -> bool {
    name.len() <= longest
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(is_name_char)
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | ':' | '-')
}

/// The name with every wrong character replaced, cut to `longest` ASCII letters.
fn clean(name: &str, longest: usize) -> String {
    let mut clean = String::with_capacity(name.len() + 1);
    clean.extend(name.chars().map(|c| if is_name_char(c) { c } else { '_' }));
    if !clean.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        clean.insert(0, '_');
    }
    clean.truncate(longest);
    clean
}

/// Whether the request has tools that go out as function declarations.
pub fn has_functions(request: &Request<'_>) -> bool {
    request.tools.iter().any(|tool| tool_name(tool).is_some())
}

/// Writes `tools` and `toolConfig`, as far as they are needed.
pub fn write<'r>(
    request: &'r Request<'_>,
    model: &Gemini,
    names: &mut Names<'r>,
    body: &mut Nest<'_>,
) -> Result<(), ApiError> {
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
        for tool in &request.tools {
            let listed = choice.only.is_none_or(|only| {
                tool_name(tool).is_some_and(|name| only.iter().any(|listed| listed == name))
            });
            if listed {
                declare(tool, model, names, declarations.item());
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
            push_string(allowed.item(), names.wire(name));
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
    if request.tools.len() > MOST_TOOLS {
        return Err(ApiError::unsupported_value(
            "tools",
            format!("this model takes at most {MOST_TOOLS} tools"),
        ));
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
    only: Option<&'r [Cow<'r, str>]>,
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
    let known = |name: &str| {
        let declared = request
            .tools
            .iter()
            .filter_map(tool_name)
            .any(|known| known == name);
        if declared {
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
                    only: Some(names),
                    ..plain(None)
                },
            })
        }
    }
}

fn declare<'r>(tool: &'r Tool<'_>, model: &Gemini, names: &mut Names<'r>, out: &mut Vec<u8>) {
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
            declaration.string("name", names.wire(name));
            declaration.string("description", description.as_deref().unwrap_or_default());
            if let Some(parameters) = parameters.filter(|raw| !is_empty_object(raw)) {
                let schema = if model.old_schema {
                    schema::old_schema(parameters)
                } else {
                    schema::json_schema(parameters)
                };
                declaration.raw(key, &schema);
            }
        }
        Tool::Custom {
            name,
            description,
            format,
        } => {
            declaration.string("name", names.wire(name));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capability;

    fn request(names: &[&'static str]) -> Request<'static> {
        let tools = names
            .iter()
            .map(|name| Tool::Custom {
                name: (*name).into(),
                description: None,
                format: None,
            })
            .collect();
        Request {
            tools,
            ..Request::default()
        }
    }

    #[test]
    fn valid_names_keep_priority_and_the_rest_is_told_apart() {
        let request = request(&["a b", "a_b", "1x", "", "\u{fc}", "a.b:c-d"]);
        let mut names = Names::new(&request, &capability::gemini("gemini-2.5-pro"));
        let mut wire = |name| names.wire(name).to_owned();
        assert_eq!(wire("a b"), "a_b_2");
        assert_eq!(wire("a_b"), "a_b");
        assert_eq!(wire("1x"), "_1x");
        assert_eq!(wire(""), "_");
        assert_eq!(wire("\u{fc}"), "__2");
        assert_eq!(wire("a.b:c-d"), "a.b:c-d");
        assert_eq!(wire("a/b"), "a_b_3", "a name that only the history has");
        assert!(names.changed.contains(&("a_b_3".into(), "a/b".into())));
        assert_eq!(names.changed.len(), 5);
    }

    #[test]
    fn long_names_are_cut_and_told_apart() {
        let (long, longer) = ("x".repeat(65), "x".repeat(66));
        let none = request(&[]);
        let mut names = Names::new(&none, &capability::gemini("gemini-2.0-flash"));
        assert_eq!(names.wire(&long), "x".repeat(64));
        assert_eq!(names.wire(&longer), "x".repeat(62) + "_2");
        let mut names = Names::new(&none, &capability::gemini("gemini-4-argon"));
        assert_eq!(names.wire(&long), long);
    }
}
