//! A Messages request as a chat request.
//!
//! What another vendor has no place for is left out and named, never refused: an agent answers each
//! 400 with several more requests, and goes on with less than it had. What is refused is what no
//! vendor could make sense of.

use std::borrow::Cow;
use std::collections::HashSet;

use serde_json::value::RawValue;

use super::content::{Turns, text_of};
use super::tools;
use crate::dialect::openai::Head;
use crate::dialect::openai::read::{Object, Path, is_string, string};
use crate::error::ApiError;
use crate::json::{push_key, push_number, push_string};
use crate::seal::Seals;

/// What the chat request could not say, and the request itself.
#[derive(Debug)]
pub struct Converted {
    /// A request in the form of Chat Completions.
    pub body: Vec<u8>,
    /// Fields that were left out although the answer may differ for it. No duplicates.
    pub dropped: Vec<String>,
    /// The calls whose result is an error.
    pub failed: HashSet<String>,
    /// The caller declared a web search that the provider runs.
    pub searches: bool,
}

/// A block of Claude Code for its own provider, different in each conversation.
const BILLING: &str = "x-anthropic-billing-header:";

/// OpenAI takes no more.
const MOST_STOPS: usize = 4;

/// Fields that are read here, or that say nothing to another provider.
const KNOWN: &[&str] = &[
    "cache_control",
    "max_tokens",
    "messages",
    "metadata",
    "model",
    "output_config",
    "output_format",
    "service_tier",
    "stop_sequences",
    "stream",
    "system",
    "temperature",
    "thinking",
    "tool_choice",
    "tools",
    "top_k",
    "top_p",
];

/// `head` is that of the Messages request.
pub fn to_chat(head: &Head<'_>, seals: &Seals) -> Result<Converted, ApiError> {
    let root = Object {
        fields: crate::json::Fields(head.fields.0.clone()),
        path: &Path::Root,
    };
    let mut out = Vec::with_capacity(head.body.len() + head.body.len() / 8 + 256);
    let mut dropped = Dropped::default();
    push_key(&mut out, b'{', "model");
    push_string(&mut out, &head.model);
    if head.stream {
        out.extend_from_slice(b",\"stream\":true");
    }
    if let Some(most) = root.count("max_tokens")? {
        push_key(&mut out, b',', "max_tokens");
        push_number(&mut out, most);
    }
    for key in ["temperature", "top_p", "top_k"] {
        if root.number(key)?.is_some()
            && let Some(raw) = root.get(key)
        {
            push_key(&mut out, b',', key);
            out.extend_from_slice(raw.get().as_bytes());
        }
    }
    stops(&root, &mut out, &mut dropped)?;
    let tools = tools::read(&root, &head.limits, &mut dropped)?;
    tools.push(&root, &mut out)?;
    let mut turns = Turns::new(seals, &mut dropped);
    let mut effort = None;
    if let Some(system) = system(&root)? {
        turns.system(&system);
    }
    let path = Path::Root.key("messages");
    let entries = root.array("messages")?;
    head.limits.check_messages(entries.len())?;
    for (at, raw) in entries.into_iter().enumerate() {
        crate::cancel::check()?;
        let path = path.index(at);
        let message = Object::read(raw, &path)?;
        let role = message.required_string("role")?;
        match &*role {
            "user" => turns.user(&message)?,
            "assistant" => turns.assistant(&message)?,
            "system" => {
                let text = match message.get("content") {
                    Some(raw) => text_of(raw, &path.key("content"))?,
                    None => String::new(),
                };
                turns.system(&text);
            }
            other => {
                return Err(path
                    .key("role")
                    .invalid(format_args!("{other:?} is not a role")));
            }
        }
        if let Some(said) = own_effort(&message) {
            effort = Some(said);
        }
    }
    let (messages, failed) = turns.finish();
    push_key(&mut out, b',', "messages");
    out.push(b'[');
    out.extend_from_slice(&messages);
    out.push(b']');
    if let Some(effort) = reasoning_effort(&root, effort.as_deref())? {
        push_key(&mut out, b',', "reasoning_effort");
        push_string(&mut out, effort);
    }
    answer_format(&root, &mut out)?;
    out.push(b'}');
    for (key, _) in &root.fields.0 {
        if !KNOWN.contains(&&**key) {
            dropped.add(key);
        }
    }
    Ok(Converted {
        body: out,
        dropped: dropped.names,
        failed,
        searches: tools.searches,
    })
}

/// The names of what was left out.
#[derive(Debug, Default)]
pub struct Dropped {
    names: Vec<String>,
}

impl Dropped {
    pub fn into_names(self) -> Vec<String> {
        self.names
    }

    /// More than this are not told: they stand in a header.
    const MOST: usize = 32;

    /// A longer name, or one that cannot stand in a header, is cut down to what can.
    const LONGEST: usize = 64;

    pub fn add(&mut self, name: &str) {
        let plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let name: String = name.chars().filter(plain).take(Dropped::LONGEST).collect();
        if self.names.len() < Dropped::MOST && !name.is_empty() && !self.names.contains(&name) {
            self.names.push(name);
        }
    }
}

fn stops(root: &Object<'_, '_>, out: &mut Vec<u8>, dropped: &mut Dropped) -> Result<(), ApiError> {
    let path = Path::Root.key("stop_sequences");
    let mut texts: Vec<Cow<'_, str>> = Vec::new();
    for (at, raw) in root.array("stop_sequences")?.into_iter().enumerate() {
        let text = string(raw, &path.index(at))?;
        if text.is_empty() {
            continue;
        }
        if texts.len() == MOST_STOPS {
            dropped.add("stop_sequences");
            break;
        }
        texts.push(text);
    }
    for (at, text) in texts.iter().enumerate() {
        match at {
            0 => out.extend_from_slice(b",\"stop\":["),
            _ => out.push(b','),
        }
        push_string(out, text);
    }
    if !texts.is_empty() {
        out.push(b']');
    }
    Ok(())
}

/// The prompt, without what is for the caller's own provider.
fn system(root: &Object<'_, '_>) -> Result<Option<String>, ApiError> {
    let path = Path::Root.key("system");
    let Some(raw) = root.get("system") else {
        return Ok(None);
    };
    if is_string(raw) {
        return Ok(Some(string(raw, &path)?.into_owned()));
    }
    let mut whole = String::new();
    for (at, raw) in root.array("system")?.into_iter().enumerate() {
        let path = path.index(at);
        let block = Object::read(raw, &path)?;
        let text = block.string("text")?.unwrap_or_default();
        if text.starts_with(BILLING) || text.is_empty() {
            continue;
        }
        if !whole.is_empty() {
            whole.push_str("\n\n");
        }
        whole.push_str(&text);
    }
    Ok(Some(whole))
}

/// The effort that stands beside one message. Whatever else stands there, it is no reason to refuse.
fn own_effort<'a>(message: &Object<'a, '_>) -> Option<Cow<'a, str>> {
    let config = message
        .fields
        .parse::<crate::json::Fields<'a>>("output_config")?;
    let effort = config.ok()?.get("effort")?;
    string(effort, &Path::Root).ok()
}

/// How much the model is to think: by what is said last, else by the budget.
fn reasoning_effort(
    root: &Object<'_, '_>,
    beside: Option<&str>,
) -> Result<Option<&'static str>, ApiError> {
    /// Up to here a budget is a low effort, and up to there a medium one.
    const LOW: f64 = 2048.0;
    const MEDIUM: f64 = 12_000.0;
    let config = Path::Root.key("output_config");
    let whole = match root.get("output_config") {
        Some(raw) => Object::read(raw, &config)?.string("effort")?,
        None => None,
    };
    let of_word = |word: &str| match word {
        "low" | "minimal" => Some("low"),
        "medium" => Some("medium"),
        "high" => Some("high"),
        "xhigh" | "max" => Some("xhigh"),
        _ => None,
    };
    let mut budget = None;
    if let Some(raw) = root.get("thinking") {
        let path = Path::Root.key("thinking");
        let thinking = Object::read(raw, &path)?;
        if thinking.string("type")?.as_deref() == Some("disabled") {
            return Ok(Some("none"));
        }
        budget = thinking.number("budget_tokens")?;
    }
    if let Some(word) = beside
        .and_then(of_word)
        .or(whole.as_deref().and_then(of_word))
    {
        return Ok(Some(word));
    }
    Ok(budget.map(|budget| match budget {
        _ if budget < LOW => "low",
        _ if budget < MEDIUM => "medium",
        _ => "high",
    }))
}

/// JSON by a schema, in its newer place or in its older one.
fn answer_format(root: &Object<'_, '_>, out: &mut Vec<u8>) -> Result<(), ApiError> {
    let config = Path::Root.key("output_config");
    let newer = match root.get("output_config") {
        Some(raw) => Object::read(raw, &config)?.carried("format")?,
        None => None,
    };
    let Some(raw) = newer.or(root.carried("output_format")?) else {
        return Ok(());
    };
    let path = Path::Root.key("output_config.format");
    let format = Object::read(raw, &path)?;
    if format.string("type")?.as_deref() != Some("json_schema") {
        return Ok(());
    }
    if let Some(schema) = format.carried("schema")? {
        push_key(out, b',', "response_format");
        out.extend_from_slice(
            b"{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"output\",\"strict\":true,\"schema\":",
        );
        push_raw(out, schema);
        out.extend_from_slice(b"}}");
    }
    Ok(())
}

pub fn push_raw(out: &mut Vec<u8>, raw: &RawValue) {
    out.extend_from_slice(raw.get().as_bytes());
}
