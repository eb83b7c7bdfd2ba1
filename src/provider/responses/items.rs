//! The history -> `instructions` and `input`.
//!
//! Each message becomes items that depend on nothing behind it, so that a longer history begins
//! with the bytes of a shorter one.

use std::borrow::Cow;
use std::collections::HashMap;

use log::debug;
use serde_json::value::RawValue;

use super::context::Context;
use crate::cancel;
use crate::chat::{Message, Part, PartKind, Role, ToolKind};
use crate::error::ApiError;
use crate::json::{Fields, push_string};
use crate::provider::gemini::compact;
use crate::provider::gemini::write::Nest;
use crate::provider::names::{Ids, Rule};
use crate::provider::pairs::{Answer, Pairs};
use crate::provider::pictures;

/// What the vendor takes as the id of a call.
const CALL_IDS: Rule = Rule {
    longest: 64,
    is_byte: |byte| byte.is_ascii_graphic(),
    is_first: |byte| byte.is_ascii_graphic(),
};

pub fn write(context: &mut Context<'_>, body: &mut Nest<'_>) -> Result<(), ApiError> {
    let messages = &context.request.messages;
    let leading = messages
        .iter()
        .take_while(|message| message.role == Role::System && is_text(message))
        .count();
    let instructions = instructions(&messages[..leading]);
    if !instructions.is_empty() {
        body.string("instructions", &instructions);
    }
    let mut items = Nest::array(body.key("input"));
    let pairs = Pairs::of(messages);
    // How each call was named, because its result has to name it again.
    let mut sent: HashMap<(usize, usize), Cow<'_, str>> = HashMap::new();
    let mut ids = Ids::new(CALL_IDS);
    // Calls without a result, until their turn is over.
    let mut open = Vec::new();
    let mut shown = Shown::default();
    for (index, message) in messages.iter().enumerate().skip(leading) {
        cancel::check()?;
        if matches!(message.role, Role::System | Role::User) {
            unanswered(context, &mut open, &mut items)?;
        }
        if message.role != Role::Tool {
            // Nothing stands between calls and their results.
            shown.append(&mut items);
        }
        match message.role {
            Role::System => spoken(message, index, "developer", &mut items)?,
            Role::User => spoken(message, index, "user", &mut items)?,
            Role::Assistant => {
                let calls: Vec<Cow<'_, str>> = message
                    .tool_calls
                    .iter()
                    .map(|call| ids.take(&call.id))
                    .collect();
                assistant(context, message, &calls, &mut items)?;
                shown.take(context, message)?;
                for (place, id) in calls.into_iter().enumerate() {
                    if pairs.result(index, place).is_none() {
                        open.push((message.tool_calls[place].kind, id.clone()));
                    }
                    sent.insert((index, place), id);
                }
            }
            Role::Tool => match pairs.answer(index) {
                Answer::Of { message: of, call } => {
                    let kind = messages[of].tool_calls[call].kind;
                    let id = sent.get(&(of, call)).map_or("", |id| id);
                    answer(message, index, kind, id, &mut items)?;
                }
                Answer::Replaced { .. } => {
                    context.repair("a tool call has more than one result")?;
                }
                Answer::Stray => {
                    context.repair("a tool result answers no call")?;
                    stray(message, index, &mut items)?;
                }
            },
        }
    }
    unanswered(context, &mut open, &mut items)?;
    shown.append(&mut items);
    if items.is_empty() {
        // Instructions alone are no input.
        items
            .item()
            .extend_from_slice(br#"{"role":"user","content":[{"type":"input_text","text":"."}]}"#);
    }
    items.end();
    Ok(())
}

/// Pictures that the model made and that only a user can show: the parts of a message that is
/// still to come.
#[derive(Default)]
struct Shown(Vec<u8>);

impl Shown {
    fn take(&mut self, context: &mut Context<'_>, message: &Message<'_>) -> Result<(), ApiError> {
        let mut lost = false;
        for (part, field) in pictures::of(message) {
            let PartKind::Image { url, .. } = &part.kind else {
                continue;
            };
            if !is_data_or_address(url) {
                context.drop_field(field)?;
                lost = true;
                continue;
            }
            if self.0.is_empty() {
                input(&Part::text(pictures::SHOWN), String::new, &mut self.0)?;
            }
            self.0.push(b',');
            input(part, String::new, &mut self.0)?;
        }
        if lost && self.0.is_empty() && pictures::says_nothing(message) {
            input(
                &Part::text(pictures::LOST_PICTURE),
                String::new,
                &mut self.0,
            )?;
        }
        Ok(())
    }

    fn append(&mut self, items: &mut Nest<'_>) {
        if self.0.is_empty() {
            return;
        }
        let mut item = Nest::object(items.item());
        item.string("role", "user");
        let content = item.key("content");
        content.push(b'[');
        content.append(&mut self.0);
        content.push(b']');
        item.end();
    }
}

fn is_data_or_address(url: &str) -> bool {
    ["data:image/", "https://", "http://"].iter().any(|start| {
        url.get(..start.len())
            .is_some_and(|head| head.eq_ignore_ascii_case(start))
    })
}

fn is_text(message: &Message<'_>) -> bool {
    let mut parts = message.content.iter();
    parts.all(|part| matches!(part.kind, PartKind::Text(_) | PartKind::Refusal(_)))
}

/// The leading system messages as one text.
fn instructions(messages: &[Message<'_>]) -> String {
    let mut joined = String::new();
    for part in messages.iter().flat_map(|message| &message.content) {
        if let PartKind::Text(text) | PartKind::Refusal(text) = &part.kind
            && !text.is_empty()
        {
            if !joined.is_empty() {
                joined.push_str("\n\n");
            }
            joined.push_str(text);
        }
    }
    joined
}

fn spoken(
    message: &Message<'_>,
    index: usize,
    role: &str,
    items: &mut Nest<'_>,
) -> Result<(), ApiError> {
    let mut item = Nest::object(items.item());
    item.string("role", role);
    parts(message, index, item.key("content"))?;
    item.end();
    Ok(())
}

/// Content as a list of parts, of which there is at least one.
fn parts(message: &Message<'_>, index: usize, out: &mut Vec<u8>) -> Result<(), ApiError> {
    let mut list = Nest::array(out);
    for (place, part) in message.content.iter().enumerate() {
        let path = || match message.content_is_array {
            true => format!("messages[{index}].content[{place}]"),
            false => format!("messages[{index}].content"),
        };
        input(part, path, list.item())?;
    }
    if list.is_empty() {
        list.item()
            .extend_from_slice(br#"{"type":"input_text","text":""}"#);
    }
    list.end();
    Ok(())
}

/// One part of what the model reads.
fn input(part: &Part<'_>, path: impl Fn() -> String, out: &mut Vec<u8>) -> Result<(), ApiError> {
    let mut object = Nest::object(out);
    match &part.kind {
        PartKind::Text(text) | PartKind::Refusal(text) => {
            object.string("type", "input_text");
            object.string("text", text);
        }
        PartKind::Image { url, detail } => {
            object.string("type", "input_image");
            object.string("image_url", url);
            object.string("detail", detail.as_deref().unwrap_or("auto"));
        }
        PartKind::File { data, id, name } => {
            object.string("type", "input_file");
            match (data, id) {
                (_, Some(id)) => object.string("file_id", id),
                (Some(data), None) => {
                    if let Some(name) = name {
                        object.string("filename", name);
                    }
                    object.string("file_data", data);
                }
                (None, None) => {}
            }
        }
        PartKind::Audio { .. } => {
            return Err(ApiError::unsupported_value(
                path(),
                "audio input is not supported by this model",
            ));
        }
    }
    if let Some(mark) = part.cache_breakpoint {
        object.raw("prompt_cache_breakpoint", &compact(mark.get()));
    }
    object.end();
    Ok(())
}

/// What the model thought, said and called, in this order: in which it does so.
fn assistant(
    context: &mut Context<'_>,
    message: &Message<'_>,
    ids: &[Cow<'_, str>],
    items: &mut Nest<'_>,
) -> Result<(), ApiError> {
    if message.has_audio {
        context.drop_field("messages.audio")?;
    }
    let mut said = Vec::new();
    let mut list = Nest::array(&mut said);
    for part in &message.content {
        match &part.kind {
            PartKind::Text(text) if text.is_empty() => {}
            PartKind::Text(text) => {
                let mut object = Nest::object(list.item());
                object.string("type", "output_text");
                object.string("text", text);
                object.raw("annotations", "[]");
                object.end();
            }
            PartKind::Refusal(text) => refused(text, &mut list),
            PartKind::Image { .. } => {}
            _ => context.drop_field("messages.content")?,
        }
    }
    if let Some(text) = message.refusal.as_deref().filter(|text| !text.is_empty()) {
        refused(text, &mut list);
    }
    let is_silent = list.is_empty();
    list.end();
    // Reasoning that leads to nothing is refused.
    if let Some(raw) = message.reasoning_items
        && !(is_silent && message.tool_calls.is_empty())
    {
        reasoning(raw, context.stored, items);
    }
    if !is_silent {
        let mut item = Nest::object(items.item());
        item.string("type", "message");
        item.string("role", "assistant");
        item.key("content").append(&mut said);
        item.end();
    }
    for (call, id) in message.tool_calls.iter().zip(ids) {
        let mut item = Nest::object(items.item());
        let (kind, key) = match call.kind {
            ToolKind::Function => ("function_call", "arguments"),
            ToolKind::Custom => ("custom_tool_call", "input"),
        };
        item.string("type", kind);
        item.string("call_id", id);
        item.string("name", context.names.sent(&call.name));
        let text = match (call.kind, &*call.arguments) {
            // Arguments are JSON.
            (ToolKind::Function, "") => "{}",
            (_, text) => text,
        };
        item.string(key, text);
        item.end();
    }
    Ok(())
}

fn refused(text: &str, list: &mut Nest<'_>) {
    let mut object = Nest::object(list.item());
    object.string("type", "refusal");
    object.string("refusal", text);
    object.end();
}

/// The reasoning items as they came. Where nothing is stored, one without its seal would be
/// looked up by its id and not be found, so it is left out.
fn reasoning(raw: &RawValue, stored: bool, items: &mut Nest<'_>) {
    let Ok(list) = serde_json::from_str::<Vec<&RawValue>>(raw.get()) else {
        debug!("responses: reasoning_items is no array; left out");
        return;
    };
    for raw in list {
        let Ok(fields) = serde_json::from_str::<Fields<'_>>(raw.get()) else {
            continue;
        };
        let is = |key: &str, check: &dyn Fn(&str) -> bool| {
            fields.get(key).is_some_and(|value| check(value.get()))
        };
        let sealed = is("encrypted_content", &|seal| {
            seal.starts_with('"') && seal != "\"\""
        });
        if is("type", &|kind| kind == "\"reasoning\"") && (sealed || stored) {
            let out = items.item();
            out.extend_from_slice(compact(raw.get()).as_bytes());
        }
    }
}

/// Results for calls that have none: the vendor refuses a history without them.
fn unanswered(
    context: &mut Context<'_>,
    open: &mut Vec<(ToolKind, Cow<'_, str>)>,
    items: &mut Nest<'_>,
) -> Result<(), ApiError> {
    for (kind, id) in open.drain(..) {
        context.repair("a tool call has no result")?;
        let mut item = result(kind, &id, items);
        item.string("output", "no result");
        item.end();
    }
    Ok(())
}

/// The beginning of a call's result.
fn result<'n>(kind: ToolKind, id: &str, items: &'n mut Nest<'_>) -> Nest<'n> {
    let mut item = Nest::object(items.item());
    item.string(
        "type",
        match kind {
            ToolKind::Function => "function_call_output",
            ToolKind::Custom => "custom_tool_call_output",
        },
    );
    item.string("call_id", id);
    item
}

/// A result that answers no call, as words.
fn stray(message: &Message<'_>, index: usize, items: &mut Nest<'_>) -> Result<(), ApiError> {
    let mut item = Nest::object(items.item());
    item.string("role", "user");
    let mut list = Nest::array(item.key("content"));
    let which = format!("[result of tool call {}]", message.tool_call_id);
    input(&Part::text(&which), String::new, list.item())?;
    for (place, part) in message.content.iter().enumerate() {
        let path = || format!("messages[{index}].content[{place}]");
        input(part, path, list.item())?;
    }
    list.end();
    item.end();
    Ok(())
}

fn answer(
    message: &Message<'_>,
    index: usize,
    kind: ToolKind,
    id: &str,
    items: &mut Nest<'_>,
) -> Result<(), ApiError> {
    let mut item = result(kind, id, items);
    let output = item.key("output");
    match &message.content[..] {
        [] => push_string(output, ""),
        [
            Part {
                kind: PartKind::Text(text),
                ..
            },
        ] if !message.content_is_array => push_string(output, text),
        _ => parts(message, index, output)?,
    }
    item.end();
    Ok(())
}
