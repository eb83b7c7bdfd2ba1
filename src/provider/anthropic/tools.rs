//! Tools and what may be called: `tools`, `tool_choice`, `parallel_tool_calls` and the web search.

use std::borrow::Cow;
use std::collections::HashSet;

use super::Switches;
use super::block::Body;
use super::dropped::Dropped;
use super::strictness::Strictness;
use crate::capability::Claude;
use crate::chat::{Request, Tool, ToolChoice};
use crate::error::ApiError;
use crate::json::Fields;
use crate::provider::names::Names;
use crate::provider::unfold::Budget;

mod defs;

use defs::Def;

/// What the request says about tools, ready to be written.
#[derive(Debug)]
pub struct Tools<'r> {
    pub names: Names<'r>,
    defs: Vec<Def<'r>>,
    choice: Option<Choice>,
    serial: bool,
    /// The caller's names of custom tools.
    pub custom: HashSet<String>,
    /// The provider may run tools itself, and so may pause its turn.
    pub server_tools: bool,
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
        budget: &Budget,
        strictness: &mut Strictness,
        dropped: &mut Dropped,
    ) -> Result<Self, ApiError> {
        let mut tools = Tools {
            names: Names::new(super::NAMES),
            defs: Vec::with_capacity(request.tools.len() + 1),
            choice: None,
            serial: request.parallel_tool_calls == Some(false),
            custom: HashSet::new(),
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
            natives.push(Cow::Borrowed("web_search"));
        }
        tools.names.add_tools(request.tools.iter().filter_map(name));
        let allowed: Option<HashSet<&str>> = match &request.tool_choice {
            Some(ToolChoice::Allowed { names, .. }) => Some(names.iter().map(|n| &**n).collect()),
            _ => None,
        };
        for (index, tool) in request.tools.iter().enumerate() {
            let mut def = Def::new(tool, index, claude, budget)?;
            match tool {
                Tool::Function { .. } => {}
                Tool::Custom { name, .. } => drop(tools.custom.insert(name.to_string())),
                Tool::Native { .. } => tools.server_tools = true,
            }
            if allowed.as_ref().is_none_or(|allowed| def.is_among(allowed)) {
                if let Def::Caller { schema, strict, .. } = &def
                    && *strict
                    && (switches.loose_tools || !strictness.takes_tool(schema))
                {
                    dropped.warn("tools.strict")?;
                    let loose = Claude {
                        structured_outputs: false,
                        ..*claude
                    };
                    def = Def::new(tool, index, &loose, budget)?;
                }
                tools.defs.push(def);
            }
        }
        if let Some(options) = search {
            tools.server_tools = true;
            tools.defs.push(Def::web_search(options));
        }
        tools.choose(request, &natives, claude, switches, dropped)?;
        Ok(tools)
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

    pub fn marks(&self) -> usize {
        self.defs.iter().filter(|def| def.mark().is_some()).count()
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

fn unknown_tool(name: &str) -> ApiError {
    ApiError::unsupported_value("tool_choice", format!("{name:?} is not among the tools"))
}

fn name<'r>(tool: &'r Tool<'r>) -> Option<&'r str> {
    match tool {
        Tool::Function { name, .. } | Tool::Custom { name, .. } => Some(name),
        Tool::Native { .. } => None,
    }
}
