//! `messages`: roles, content parts, and the calls of earlier turns.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use serde_json::value::RawValue;

use super::read::{Object, Path, array, is_array, is_object, is_string, string, wrong};
use crate::cancel;
use crate::chat::{Message, Part, PartKind, Role, ToolCall, ToolKind};
use crate::error::ApiError;
use crate::json::shape::Limits;

pub fn read<'a>(root: &Object<'a, '_>, limits: &Limits) -> Result<Vec<Message<'a>>, ApiError> {
    let path = root.path.key("messages");
    let entries = root.array("messages")?;
    if entries.is_empty() {
        return Err(path.invalid("must not be empty"));
    }
    limits.check_messages(entries.len())?;
    let mut messages = Vec::with_capacity(entries.len());
    // Results in the older form name a function and no call; the call is looked up at the end.
    let mut by_name = HashMap::new();
    for (i, raw) in entries.into_iter().enumerate() {
        cancel::check()?;
        let path = path.index(i);
        let object = Object::read(raw, &path)?;
        let (message, function) = message(&object, i)?;
        messages.push(message);
        if let Some(function) = function {
            by_name.insert(i, function);
        }
    }
    if !by_name.is_empty() {
        answer_by_name(&mut messages, &by_name);
    }
    Ok(messages)
}

/// One message, and for `role:"function"` the name that it answers.
fn message<'a>(
    object: &Object<'a, '_>,
    i: usize,
) -> Result<(Message<'a>, Option<Cow<'a, str>>), ApiError> {
    let word = object.required_string("role")?;
    let role = match &*word {
        "developer" | "system" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "tool" | "function" => Role::Tool,
        other => {
            return Err(object
                .path
                .key("role")
                .invalid(format_args!("{other:?} is not a role")));
        }
    };
    let mut message = Message::new(role);
    content(object, &word, &mut message)?;
    message.cache_control = object.carried("cache_control")?;
    match &*word {
        "assistant" => assistant(object, i, &mut message)?,
        "tool" => {
            message.tool_call_id = object.required_string("tool_call_id")?;
            if message.tool_call_id.is_empty() {
                return Err(object.path.key("tool_call_id").invalid("must not be empty"));
            }
        }
        "function" => return Ok((message, Some(object.required_string("name")?))),
        _ => {}
    }
    Ok((message, None))
}

fn content<'a>(
    object: &Object<'a, '_>,
    role: &str,
    message: &mut Message<'a>,
) -> Result<(), ApiError> {
    let path = object.path.key("content");
    let is_assistant = role == "assistant";
    let Some(raw) = object.get("content") else {
        // An assistant may only have called tools; a function may have had nothing to say.
        return match role {
            "assistant" | "function" => Ok(()),
            _ => Err(path.invalid("must be a string or an array of parts")),
        };
    };
    if is_string(raw) {
        message.content.push(Part::text(string(raw, &path)?));
        return Ok(());
    }
    message.content_is_array = true;
    if is_object(raw) {
        return take_part(raw, &path, is_assistant, message);
    }
    if !is_array(raw) {
        return Err(wrong(raw, &path, "a string or an array of parts"));
    }
    for (i, raw) in array(raw, &path)?.into_iter().enumerate() {
        take_part(raw, &path.index(i), is_assistant, message)?;
    }
    Ok(())
}

/// Adds a part to the message. What Mistral's models thought stands among the parts, and is
/// reasoning like that of others.
fn take_part<'a>(
    raw: &'a RawValue,
    path: &Path<'_>,
    is_assistant: bool,
    message: &mut Message<'a>,
) -> Result<(), ApiError> {
    let object = Object::read(raw, path)?;
    let word = object.required_string("type")?;
    if is_assistant && word == "thinking" {
        let thought = thought(&object)?;
        message.reasoning = match message.reasoning.take() {
            Some(before) => Some(Cow::Owned(before.into_owned() + &thought)),
            None => Some(thought),
        };
        return Ok(());
    }
    message.content.push(part(&object, &word, is_assistant)?);
    Ok(())
}

/// The text of a `thinking` part: a string, or parts of text.
fn thought<'a>(object: &Object<'a, '_>) -> Result<Cow<'a, str>, ApiError> {
    let path = object.path.key("thinking");
    match object.get("thinking") {
        None => Ok(Cow::Borrowed("")),
        Some(raw) if is_string(raw) => string(raw, &path),
        Some(raw) if !is_array(raw) => Err(wrong(raw, &path, "a string or an array of parts")),
        Some(raw) => {
            let mut text = String::new();
            for (i, raw) in array(raw, &path)?.into_iter().enumerate() {
                let path = path.index(i);
                text += &Object::read(raw, &path)?
                    .string("text")?
                    .unwrap_or_default();
            }
            Ok(Cow::Owned(text))
        }
    }
}

fn part<'a>(object: &Object<'a, '_>, word: &str, is_assistant: bool) -> Result<Part<'a>, ApiError> {
    let path = object.path;
    let kind = match word {
        "text" => PartKind::Text(object.required_string("text")?),
        "refusal" if is_assistant => PartKind::Refusal(object.required_string("refusal")?),
        "image_url" => {
            let path = path.key("image_url");
            match object.get("image_url") {
                None => return Err(path.invalid("is required")),
                Some(raw) if is_string(raw) => PartKind::Image {
                    url: string(raw, &path)?,
                    detail: None,
                },
                Some(raw) => {
                    let image = Object::read(raw, &path)?;
                    PartKind::Image {
                        url: image.required_string("url")?,
                        detail: image.string("detail")?,
                    }
                }
            }
        }
        "input_audio" => {
            let path = path.key("input_audio");
            let audio = required(object, "input_audio", &path)?;
            PartKind::Audio {
                data: audio.required_string("data")?,
                format: audio.required_string("format")?,
            }
        }
        "file" => {
            let path = path.key("file");
            let file = required(object, "file", &path)?;
            let data = file.string("file_data")?;
            let id = file.string("file_id")?;
            if data.is_none() && id.is_none() {
                return Err(path.invalid("needs file_data or file_id"));
            }
            PartKind::File {
                data,
                id,
                name: file.string("filename")?,
            }
        }
        other => {
            return Err(path
                .key("type")
                .invalid(format_args!("{other:?} is not a part of this role")));
        }
    };
    Ok(Part {
        kind,
        cache_control: object.carried("cache_control")?,
        cache_breakpoint: object.carried("prompt_cache_breakpoint")?,
        google_signature: match object.get("extra_content") {
            Some(raw) if is_assistant => {
                google_signature(&Object::read(raw, &path.key("extra_content"))?)?
            }
            _ => None,
        },
    })
}

fn required<'a, 'p>(
    object: &Object<'a, '_>,
    key: &str,
    path: &'p Path<'p>,
) -> Result<Object<'a, 'p>, ApiError> {
    match object.get(key) {
        Some(raw) => Object::read(raw, path),
        None => Err(path.invalid("is required")),
    }
}

fn assistant<'a>(
    object: &Object<'a, '_>,
    i: usize,
    message: &mut Message<'a>,
) -> Result<(), ApiError> {
    let path = object.path.key("tool_calls");
    for (j, raw) in object.array("tool_calls")?.into_iter().enumerate() {
        let path = path.index(j);
        let call = Object::read(raw, &path)?;
        message.tool_calls.push(tool_call(&call, i, j)?);
    }
    if let Some(raw) = object.get("function_call") {
        let path = object.path.key("function_call");
        let call = Object::read(raw, &path)?;
        message.tool_calls.push(ToolCall {
            id: made_up_id(i, message.tool_calls.len()),
            kind: ToolKind::Function,
            name: call.required_string("name")?,
            arguments: call.string("arguments")?.unwrap_or_default(),
            google_signature: None,
        });
    }
    message.refusal = object.string("refusal")?;
    match object.string("reasoning_content")? {
        Some(text) => message.reasoning = Some(text),
        // Some servers put an object here, which says nothing that weir can use.
        None => match object.get("reasoning") {
            Some(raw) if is_string(raw) => message.reasoning = object.string("reasoning")?,
            _ => {}
        },
    }
    message.has_audio = object.get("audio").is_some();
    let path = object.path.key("images");
    for (j, raw) in object.array("images")?.into_iter().enumerate() {
        let path = path.index(j);
        message.images.push(match is_string(raw) {
            true => Part::image(string(raw, &path)?),
            // The `index` of a streamed entry and a `type` that is left out do not matter.
            false => part(&Object::read(raw, &path)?, "image_url", true)?,
        });
    }
    if let Some(raw) = object.get("extra_content") {
        let path = object.path.key("extra_content");
        let extra = Object::read(raw, &path)?;
        message.google_signature = google_signature(&extra)?;
        if let Some(raw) = extra.get("google") {
            let path = path.key("google");
            message.google_parts = Object::read(raw, &path)?.carried_array("tool_parts")?;
        }
        if let Some(raw) = extra.get("anthropic") {
            let path = path.key("anthropic");
            let anthropic = Object::read(raw, &path)?;
            message.thinking_blocks = anthropic.carried_array("thinking_blocks")?;
            message.thinking_layout = anthropic.carried_array("layout")?;
        }
        if let Some(raw) = extra.get("openai") {
            let path = path.key("openai");
            message.reasoning_items = Object::read(raw, &path)?.carried_array("reasoning_items")?;
        }
    }
    if message.thinking_blocks.is_none() {
        message.thinking_blocks = object.carried_array("thinking_blocks")?;
    }
    Ok(())
}

fn google_signature<'a>(extra: &Object<'a, '_>) -> Result<Option<Cow<'a, str>>, ApiError> {
    let Some(raw) = extra.get("google") else {
        return Ok(None);
    };
    let path = extra.path.key("google");
    Object::read(raw, &path)?.string("thought_signature")
}

fn tool_call<'a>(call: &Object<'a, '_>, i: usize, j: usize) -> Result<ToolCall<'a>, ApiError> {
    let (kind, key, text) = match call.string("type")?.as_deref() {
        None | Some("function") => (ToolKind::Function, "function", "arguments"),
        Some("custom") => (ToolKind::Custom, "custom", "input"),
        Some(other) => {
            return Err(call
                .path
                .key("type")
                .invalid(format_args!("{other:?} is not a kind of call")));
        }
    };
    let path = call.path.key(key);
    let inner = required(call, key, &path)?;
    let google_signature = match call.get("extra_content") {
        Some(raw) => google_signature(&Object::read(raw, &call.path.key("extra_content"))?)?,
        None => None,
    };
    Ok(ToolCall {
        id: match call.string("id")? {
            Some(id) if !id.is_empty() => id,
            _ => made_up_id(i, j),
        },
        kind,
        name: inner.required_string("name")?,
        arguments: inner.string(text)?.unwrap_or_default(),
        google_signature,
    })
}

/// The id of a call that came without one: the same for the same history, whatever follows.
fn made_up_id<'a>(message: usize, call: usize) -> Cow<'a, str> {
    Cow::Owned(format!("call_m{message}_{call}"))
}

/// Gives results that name a function the id of the newest unanswered call of that name.
fn answer_by_name<'a>(messages: &mut [Message<'a>], by_name: &HashMap<usize, Cow<'a, str>>) {
    let mut open: HashMap<Cow<'a, str>, Vec<Cow<'a, str>>> = HashMap::new();
    let mut answered: HashSet<Cow<'a, str>> = HashSet::new();
    for (i, message) in messages.iter_mut().enumerate() {
        if let Some(name) = by_name.get(&i) {
            let calls = open.get_mut(name);
            let newest = calls.and_then(|calls| {
                std::iter::from_fn(|| calls.pop()).find(|id| !answered.contains(id))
            });
            // A result without a call keeps an id that no call has.
            message.tool_call_id = newest.unwrap_or_else(|| Cow::Owned(format!("call_m{i}")));
        }
        if message.role == Role::Tool {
            answered.insert(message.tool_call_id.clone());
        }
        for call in &message.tool_calls {
            // The same id may be used again by a later call.
            answered.remove(&call.id);
            let calls = open.entry(call.name.clone()).or_default();
            calls.push(call.id.clone());
        }
    }
}
