//! `tools` and `tool_choice` of a Responses request as those of a chat request, and the way back:
//! each call is answered in the shape in which its tool was declared.
//!
//! Everything that the caller runs becomes a function. What the provider runs is left out.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use serde_json::value::RawValue;

use crate::dialect::messages::request::{Dropped, push_raw};
use crate::dialect::openai::read::{Object, Path, is_string, string};
use crate::error::ApiError;
use crate::json::shape::Limits;
use crate::json::{push_key, push_string};

/// The most that vendors take for a name.
const LONGEST_NAME: usize = 64;

/// The one member of a free-form tool's arguments.
pub const INPUT: &str = "input";

/// The parameters of a free-form tool.
const ONE_TEXT: &str = r#"{"type":"object","properties":{"input":{"type":"string"}},"required":["input"],"additionalProperties":false}"#;

const NOTHING: &str = r#"{"type":"object","properties":{}}"#;

/// What a search of the caller's own tools is called.
pub const SEARCH: &str = "tool_search";

/// How a call of one declared tool is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    Function,
    Custom,
    /// A search among the tools that the caller has not declared yet.
    Search,
}

/// One declared tool, under the name that the model reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    pub shape: Shape,
    pub namespace: Option<String>,
    /// The caller's own name for it.
    pub name: String,
}

/// The declared tools by the names that the model reads, and those by the caller's.
#[derive(Debug, Default)]
pub struct Names {
    declared: HashMap<String, Declared>,
    sent: HashMap<Own, String>,
    /// How many tools would have had the same name.
    alike: HashMap<String, u32>,
}

/// A namespace, or none, and the caller's name.
type Own = (Option<String>, String);

impl Names {
    pub fn get(&self, sent: &str) -> Option<&Declared> {
        self.declared.get(sent)
    }

    /// The name that the model reads of a tool, declared or not.
    pub fn sent<'n>(&self, namespace: Option<&str>, name: &'n str) -> Cow<'n, str> {
        let namespace = namespace.filter(|namespace| !namespace.is_empty());
        let own = (namespace.map(str::to_owned), name.to_owned());
        match (self.sent.get(&own), namespace) {
            (Some(sent), _) => Cow::Owned(sent.clone()),
            (None, Some(namespace)) => Cow::Owned(flat(namespace, name)),
            (None, None) => Cow::Borrowed(name),
        }
    }

    /// A name for a new tool. `None`: this very tool is declared already.
    fn take(&mut self, namespace: Option<&str>, name: &str, shape: Shape) -> Option<String> {
        let own = (namespace.map(str::to_owned), name.to_owned());
        if self.sent.contains_key(&own) {
            return None;
        }
        let plain = match namespace {
            Some(namespace) => flat(namespace, name),
            None => name.to_owned(),
        };
        let mut sent = plain.clone();
        let alike = self.alike.entry(plain.clone()).or_default();
        // The count goes on from one tool to the next, so a name is looked for a few times at most.
        while self.declared.contains_key(&sent) {
            *alike += 1;
            let end = format!("_{}", *alike + 1);
            let start = plain.chars().take(LONGEST_NAME - end.len());
            sent = start.collect::<String>() + &end;
        }
        let declared = Declared {
            shape,
            namespace: own.0.clone(),
            name: own.1.clone(),
        };
        self.declared.insert(sent.clone(), declared);
        self.sent.insert(own, sent.clone());
        Some(sent)
    }
}

/// The name of a tool in a namespace, of the letters that every vendor takes.
fn flat(namespace: &str, name: &str) -> String {
    let plain = |c: char| match c {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '_' | '-' => c,
        _ => '_',
    };
    let name: String = name.chars().map(plain).take(LONGEST_NAME - 3).collect();
    let room = LONGEST_NAME - 2 - name.len();
    let mut flat: String = namespace.chars().map(plain).take(room).collect();
    flat.push_str("__");
    flat + &name
}

/// The tools that another provider can be told of.
pub struct Tools<'l> {
    limits: &'l Limits,
    pub names: Names,
    /// The functions of the chat request, written, with the names that the model reads.
    functions: Vec<(String, Vec<u8>)>,
    /// The provider's own web search is among the tools.
    pub searches: bool,
}

impl<'l> Tools<'l> {
    pub fn read(
        root: &Object<'_, '_>,
        limits: &'l Limits,
        dropped: &mut Dropped,
    ) -> Result<Tools<'l>, ApiError> {
        let path = Path::Root.key("tools");
        let mut tools = Tools {
            limits,
            names: Names::default(),
            functions: Vec::new(),
            searches: false,
        };
        let entries = root.array("tools")?;
        limits.check_tools("tools", entries.len())?;
        for (at, raw) in entries.into_iter().enumerate() {
            tools.add(raw, &path.index(at), None, dropped)?;
        }
        Ok(tools)
    }

    /// Declares what `raw` says, also in the middle of a history.
    pub fn add(
        &mut self,
        raw: &RawValue,
        path: &Path<'_>,
        namespace: Option<&str>,
        dropped: &mut Dropped,
    ) -> Result<(), ApiError> {
        let tool = Object::read(raw, path)?;
        let kind = tool.required_string("type")?;
        match &*kind {
            "function" => {
                let parameters = tool.carried("parameters")?;
                let parameters = parameters.map_or(NOTHING, RawValue::get);
                self.declare(&tool, namespace, Shape::Function, parameters, dropped)
            }
            "custom" => self.declare(&tool, namespace, Shape::Custom, ONE_TEXT, dropped),
            "namespace" if namespace.is_some() => {
                Err(path.invalid("a namespace cannot stand in a namespace"))
            }
            "namespace" => {
                let name = name(&tool)?;
                let path = path.key("tools");
                let inner = tool.array("tools")?;
                self.limits.check_tools("tools", inner.len())?;
                for (at, raw) in inner.into_iter().enumerate() {
                    self.add(raw, &path.index(at), Some(&name), dropped)?;
                }
                Ok(())
            }
            SEARCH if tool.string("execution")?.as_deref() == Some("client") => {
                let parameters = tool.carried("parameters")?;
                let parameters = parameters.map_or(NOTHING, RawValue::get);
                self.push(SEARCH, Shape::Search, None, &tool, parameters, dropped)
            }
            kind if kind.starts_with("web_search") => {
                self.searches = true;
                Ok(())
            }
            // What the provider runs, or only its own models know.
            kind => {
                dropped.add(&format!("tools.{kind}"));
                Ok(())
            }
        }
    }

    fn declare(
        &mut self,
        tool: &Object<'_, '_>,
        namespace: Option<&str>,
        shape: Shape,
        parameters: &str,
        dropped: &mut Dropped,
    ) -> Result<(), ApiError> {
        let name = name(tool)?;
        self.push(&name, shape, namespace, tool, parameters, dropped)
    }

    fn push(
        &mut self,
        name: &str,
        shape: Shape,
        namespace: Option<&str>,
        tool: &Object<'_, '_>,
        parameters: &str,
        dropped: &mut Dropped,
    ) -> Result<(), ApiError> {
        let is_custom = shape == Shape::Custom;
        let description = tool.string("description")?;
        let strict = tool.boolean("strict")? == Some(true) && !is_custom;
        let Some(sent) = self.names.take(namespace, name, shape) else {
            dropped.add(&format!("tools.{name}"));
            return Ok(());
        };
        self.limits.check_tools("tools", self.functions.len() + 1)?;
        let mut out = Vec::with_capacity(parameters.len() + 128);
        out.extend_from_slice(b"{\"type\":\"function\",\"function\":{\"name\":");
        push_string(&mut out, &sent);
        let mut words = description.unwrap_or_default();
        if is_custom && let Some(grammar) = grammar(tool)? {
            let before = match words.is_empty() {
                true => String::new(),
                false => format!("{words}\n\n"),
            };
            words = Cow::Owned(before + &grammar);
        }
        if !words.is_empty() {
            push_key(&mut out, b',', "description");
            push_string(&mut out, &words);
        }
        push_key(&mut out, b',', "parameters");
        out.extend_from_slice(parameters.as_bytes());
        if strict {
            out.extend_from_slice(b",\"strict\":true");
        }
        out.extend_from_slice(b"}}");
        self.functions.push((sent, out));
        Ok(())
    }

    /// Writes `tools`, `tool_choice` and `parallel_tool_calls`.
    pub fn push_all(
        &mut self,
        root: &Object<'_, '_>,
        out: &mut Vec<u8>,
        dropped: &mut Dropped,
    ) -> Result<(), ApiError> {
        let choice = self.choice(root, dropped)?;
        for (at, (_, function)) in self.functions.iter().enumerate() {
            match at {
                0 => out.extend_from_slice(b",\"tools\":["),
                _ => out.push(b','),
            }
            out.extend_from_slice(function);
        }
        let parallel = root.boolean("parallel_tool_calls")?;
        if self.functions.is_empty() {
            return Ok(());
        }
        out.push(b']');
        match choice {
            Choice::Free => {}
            Choice::Word(word) => {
                push_key(out, b',', "tool_choice");
                push_string(out, word);
            }
            Choice::Named(name) => {
                out.extend_from_slice(
                    b",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":",
                );
                push_string(out, &name);
                out.extend_from_slice(b"}}");
            }
        }
        if parallel == Some(false) {
            out.extend_from_slice(b",\"parallel_tool_calls\":false");
        }
        Ok(())
    }

    fn choice(&mut self, root: &Object<'_, '_>, dropped: &mut Dropped) -> Result<Choice, ApiError> {
        let path = Path::Root.key("tool_choice");
        let Some(raw) = root.get("tool_choice") else {
            return Ok(Choice::Free);
        };
        if is_string(raw) {
            return word(&string(raw, &path)?, &path).map(Choice::Word);
        }
        let choice = Object::read(raw, &path)?;
        let kind = choice.required_string("type")?;
        match &*kind {
            "function" | "custom" => Ok(match self.named(&choice)? {
                Some(name) => Choice::Named(name),
                None => {
                    dropped.add("tool_choice");
                    Choice::Free
                }
            }),
            "allowed_tools" => {
                let mode = choice.string("mode")?;
                let mode = word(mode.as_deref().unwrap_or("auto"), &path.key("mode"))?;
                let path = path.key("tools");
                let mut allowed = HashSet::new();
                for (at, raw) in choice.array("tools")?.into_iter().enumerate() {
                    let path = path.index(at);
                    let tool = Object::read(raw, &path)?;
                    let kind = tool.required_string("type")?;
                    if matches!(&*kind, "function" | "custom") {
                        allowed.extend(self.named(&tool)?);
                    }
                }
                // Not every server knows of a choice among some of its tools.
                self.functions.retain(|(name, _)| allowed.contains(name));
                Ok(Choice::Word(mode))
            }
            // A tool that the provider runs.
            _ => {
                dropped.add("tool_choice");
                Ok(Choice::Free)
            }
        }
    }

    /// The declared tool that is meant, under the name that the model reads.
    fn named(&self, choice: &Object<'_, '_>) -> Result<Option<String>, ApiError> {
        let name = name(choice)?;
        let namespace = choice.string("namespace")?;
        let sent = self.names.sent(namespace.as_deref(), &name);
        let is_there = self.names.get(&sent).is_some();
        Ok(is_there.then(|| sent.into_owned()))
    }
}

enum Choice {
    Free,
    Word(&'static str),
    Named(String),
}

fn word(text: &str, path: &Path<'_>) -> Result<&'static str, ApiError> {
    match text {
        "auto" => Ok("auto"),
        "none" => Ok("none"),
        "required" => Ok("required"),
        other => Err(path
            .invalid(format_args!("{other:?} is not known"))
            .with_code("unsupported_value")),
    }
}

fn name<'a>(tool: &Object<'a, '_>) -> Result<Cow<'a, str>, ApiError> {
    let name = tool.required_string("name")?;
    match name.is_empty() {
        true => Err(tool.path.key("name").invalid("must not be empty")),
        false => Ok(name),
    }
}

/// The grammar of a free-form tool in words: no other provider has a place for it.
fn grammar(tool: &Object<'_, '_>) -> Result<Option<String>, ApiError> {
    let path = tool.path.key("format");
    let Some(raw) = tool.get("format") else {
        return Ok(None);
    };
    let format = Object::read(raw, &path)?;
    let Some(definition) = format.string("definition")? else {
        return Ok(None);
    };
    let syntax = format.string("syntax")?;
    let syntax = syntax.as_deref().unwrap_or("formal");
    Ok(Some(format!(
        "The input follows this {syntax} grammar:\n{definition}"
    )))
}

/// The arguments of a free-form tool's function: an object with the one text.
pub fn wrapped(input: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(input.len() + 16);
    push_key(&mut out, b'{', INPUT);
    push_string(&mut out, input);
    out.push(b'}');
    out
}

/// The text in the arguments of a free-form tool's function. A model may also have written it bare.
pub fn unwrapped(arguments: &str) -> Cow<'_, str> {
    let text = arguments.trim();
    let fields = serde_json::from_str::<crate::json::Fields<'_>>(text);
    let input = fields.ok().and_then(|fields| {
        let raw = match fields.get(INPUT) {
            Some(raw) => raw,
            // Some models call it something else.
            None => match fields.0.as_slice() {
                [(_, only)] => only,
                _ => return None,
            },
        };
        string(raw, &Path::Root).ok()
    });
    input.map_or(Cow::Borrowed(arguments), |input| {
        Cow::Owned(input.into_owned())
    })
}

/// An object that is only carried, or what stands for it.
pub fn push_object(out: &mut Vec<u8>, raw: Option<&RawValue>) {
    match raw {
        Some(raw) => push_raw(out, raw),
        None => out.extend_from_slice(b"{}"),
    }
}
