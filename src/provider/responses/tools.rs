//! `tools` and `tool_choice`. Their objects are flat here.

use std::collections::HashMap;

use serde_json::value::RawValue;

use super::context::Context;
use crate::chat::{Request, Tool, ToolChoice};
use crate::json::{Fields, push_string};
use crate::provider::gemini::compact;
use crate::provider::gemini::write::Nest;
use crate::provider::names::{Names, Rule};

/// A function without parameters.
const NO_PARAMETERS: &str = r#"{"type":"object","properties":{}}"#;

/// What the vendor takes as a name of a function or of a custom tool.
const NAMES: Rule = Rule {
    longest: 64,
    is_byte: |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'),
    is_first: |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'),
};

/// The names of the request's tools and calls, as the vendor takes them.
pub fn names<'r>(request: &'r Request<'_>) -> Names<'r> {
    let mut names = Names::new(NAMES);
    names.add_tools(request.tools.iter().filter_map(|tool| match tool {
        Tool::Function { name, .. } | Tool::Custom { name, .. } => Some(&**name),
        Tool::Native { .. } => None,
    }));
    for message in &request.messages {
        for call in &message.tool_calls {
            names.add(&call.name);
        }
    }
    names
}

pub fn write(context: &Context<'_>, body: &mut Nest<'_>) {
    let request = context.request;
    if !request.tools.is_empty() || request.web_search_options.is_some() {
        let mut list = Nest::array(body.key("tools"));
        for tool in &request.tools {
            declare(tool, &context.names, list.item());
        }
        if let Some(options) = request.web_search_options {
            search(options, list.item());
        }
        list.end();
    }
    if let Some(choice) = &request.tool_choice {
        choose(choice, context, body.key("tool_choice"));
    }
}

fn declare(tool: &Tool<'_>, names: &Names<'_>, out: &mut Vec<u8>) {
    match tool {
        Tool::Function {
            name,
            description,
            parameters,
            strict,
            deferred,
            ..
        } => {
            let mut object = Nest::object(out);
            object.string("type", "function");
            object.string("name", names.sent(name));
            if let Some(description) = description {
                object.string("description", description);
            }
            let parameters = parameters.map_or(NO_PARAMETERS, RawValue::get);
            object.raw("parameters", &compact(parameters));
            // Always told, because here the default is the other one.
            object.value("strict", strict);
            if *deferred {
                object.value("defer_loading", deferred);
            }
            object.end();
        }
        Tool::Custom {
            name,
            description,
            format,
        } => {
            let mut object = Nest::object(out);
            object.string("type", "custom");
            object.string("name", names.sent(name));
            if let Some(description) = description {
                object.string("description", description);
            }
            if let Some(format) = format {
                object.raw("format", &flat_format(format));
            }
            object.end();
        }
        // The provider has tools of its own, and tells which.
        Tool::Native { object, .. } => out.extend_from_slice(compact(object.get()).as_bytes()),
    }
}

/// A custom tool's format, whose grammar stands one level higher here.
fn flat_format(format: &RawValue) -> String {
    let grammar = serde_json::from_str::<Fields<'_>>(format.get())
        .ok()
        .and_then(|fields| fields.parse::<Fields<'_>>("grammar")?.ok());
    let Some(grammar) = grammar else {
        return compact(format.get()).into_owned();
    };
    let mut out = Vec::new();
    let mut object = Nest::object(&mut out);
    object.string("type", "grammar");
    for key in ["syntax", "definition"] {
        if let Some(value) = grammar.get(key) {
            object.raw(key, &compact(value.get()));
        }
    }
    object.end();
    String::from_utf8(out).expect("made of pieces of text")
}

/// `web_search_options` as the tool that it is here.
fn search(options: &RawValue, out: &mut Vec<u8>) {
    let fields: Fields<'_> = serde_json::from_str(options.get()).unwrap_or_default();
    let mut object = Nest::object(out);
    object.string("type", "web_search");
    if let Some(size) = fields.get("search_context_size") {
        object.raw("search_context_size", &compact(size.get()));
    }
    let location = fields.parse::<Fields<'_>>("user_location");
    if let Some(location) = location.and_then(Result::ok) {
        // Callers nest the place under the name of its kind; some leave that level out.
        let nested = location.parse::<Fields<'_>>("approximate");
        let place = nested.and_then(Result::ok).unwrap_or(location);
        let mut object = Nest::object(object.key("user_location"));
        object.string("type", "approximate");
        for (key, value) in place.0.iter().filter(|(key, _)| key != "type") {
            push_string(object.item(), key);
            object.out.push(b':');
            object
                .out
                .extend_from_slice(compact(value.get()).as_bytes());
        }
        object.end();
    }
    object.end();
}

fn choose(choice: &ToolChoice<'_>, context: &Context<'_>, out: &mut Vec<u8>) {
    let (tools, names_sent) = (&context.request.tools, &context.names);
    // The first of a name counts. `None` is a tool of the provider's own, by its type.
    let mut kinds: HashMap<&str, Option<&str>> = HashMap::new();
    if let ToolChoice::Named(_) | ToolChoice::Allowed { .. } = choice {
        for tool in tools {
            let (name, kind) = match tool {
                Tool::Function { name, .. } => (name, Some("function")),
                Tool::Custom { name, .. } => (name, Some("custom")),
                Tool::Native { kind, .. } => (kind, None),
            };
            kinds.entry(name).or_insert(kind);
        }
    }
    let name_tool = |name: &str, out: &mut Vec<u8>| {
        let mut object = Nest::object(out);
        match kinds.get(name).copied().unwrap_or(Some("function")) {
            None => object.string("type", name),
            Some(kind) => {
                object.string("type", kind);
                object.string("name", names_sent.sent(name));
            }
        }
        object.end();
    };
    match choice {
        ToolChoice::Auto => push_string(out, "auto"),
        ToolChoice::None => push_string(out, "none"),
        ToolChoice::Required => push_string(out, "required"),
        ToolChoice::Named(name) => name_tool(name, out),
        ToolChoice::Allowed { required, names } => {
            let mut object = Nest::object(out);
            object.string("type", "allowed_tools");
            object.string("mode", if *required { "required" } else { "auto" });
            let mut list = Nest::array(object.key("tools"));
            for name in names {
                name_tool(name, list.item());
            }
            list.end();
            object.end();
        }
    }
}
