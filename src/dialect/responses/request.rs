//! A Responses request as a chat request.
//!
//! What another vendor has no place for is left out and named; agents send such fields always.
//! What would change the meaning of the whole, a conversation that lies with the provider above all,
//! is refused.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::Asked;
use super::tools::Tools;
use super::turns::Turns;
use crate::dialect::messages::request::{Dropped, push_raw};
use crate::dialect::openai::read::{Object, Path, array, is_string, string, wrong};
use crate::error::ApiError;
use crate::json::shape::Limits;
use crate::json::unicode::mended;
use crate::json::{Fields, push_carried, push_key, push_number, push_string};
use crate::seal::Seals;

/// What the items of a request stand on: earlier answers that the caller names by their ids.
pub trait Kept {
    /// Everything up to that answer, its own items included, each as JSON.
    fn conversation(&self, id: &str) -> Option<Vec<String>>;

    /// One item of an earlier answer.
    fn item(&self, id: &str) -> Option<String>;
}

/// Fields that are read here, or that say nothing to another provider.
const KNOWN: &[&str] = &[
    "background",
    "client_metadata",
    "conversation",
    "include",
    "input",
    "instructions",
    "max_output_tokens",
    "metadata",
    "model",
    "parallel_tool_calls",
    "previous_response_id",
    "prompt",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "reasoning",
    "safety_identifier",
    "service_tier",
    "store",
    "stream",
    "stream_options",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_p",
    "truncation",
    "user",
];

/// Members that an answer repeats, with what stands for one that is absent or long.
const REPEATED: &[(&str, &str)] = &[
    ("instructions", "null"),
    ("max_output_tokens", "null"),
    ("metadata", "{}"),
    ("parallel_tool_calls", "true"),
    ("previous_response_id", "null"),
    ("reasoning", r#"{"effort":null,"summary":null}"#),
    ("temperature", "null"),
    ("text", r#"{"format":{"type":"text"}}"#),
    ("tool_choice", r#""auto""#),
    ("tools", "[]"),
    ("top_p", "null"),
    ("truncation", r#""disabled""#),
];

/// A longer member is not repeated: agents send tens of kilobytes and look at none of them.
const LONGEST_REPEATED: usize = 2 * 1024;

/// The chat request, and what its answer has to know.
pub struct Converted {
    pub body: Vec<u8>,
    pub asked: Asked,
    /// The items of this request alone, without those that it stands on: a JSON array.
    pub input: Vec<u8>,
    /// The answer that it goes on from.
    pub previous: Option<String>,
    /// The answer is to be kept, as it is unless the caller says otherwise.
    pub store: bool,
    /// The caller said so.
    pub wants_store: bool,
}

/// `tail` makes the ids of the answer.
pub fn to_chat(
    body: &str,
    limits: &Limits,
    seals: &Seals,
    kept: &dyn Kept,
    tail: &str,
    created: u64,
) -> Result<Converted, ApiError> {
    let fields: Fields<'_> = serde_json::from_str(body)
        .map_err(|error| ApiError::new(400, format!("the body is not valid JSON: {error}")))?;
    let root = Object {
        fields,
        path: &Path::Root,
    };
    refuse(&root)?;
    let model = root.required_string("model")?;
    let stream = root.boolean("stream")?.unwrap_or(false);
    let mut dropped = Dropped::default();
    let mut out = Vec::with_capacity(body.len() + body.len() / 8 + 256);
    push_key(&mut out, b'{', "model");
    push_string(&mut out, &model);
    if stream {
        out.extend_from_slice(b",\"stream\":true");
    }
    if let Some(most) = root.count("max_output_tokens")? {
        push_key(&mut out, b',', "max_tokens");
        push_number(&mut out, most);
    }
    for key in ["temperature", "top_p"] {
        if root.number(key)?.is_some()
            && let Some(raw) = root.get(key)
        {
            push_key(&mut out, b',', key);
            push_raw(&mut out, raw);
        }
    }
    if let Some(effort) = effort(&root)? {
        push_key(&mut out, b',', "reasoning_effort");
        push_string(&mut out, &effort);
    }
    text(&root, &mut out)?;
    let mut tools = Tools::read(&root, limits, &mut dropped)?;
    let mut turns = Turns::new(seals, &mut tools, &mut dropped);
    if let Some(text) = root.string("instructions")? {
        turns.system(&text);
    }
    let previous = root.string("previous_response_id")?;
    if let Some(id) = previous.as_deref() {
        let Some(items) = kept.conversation(id) else {
            return Err(not_found(id));
        };
        let path = Path::Root.key("previous_response_id");
        each(&items, &path, &mut turns)?;
    }
    let input = input(&root, limits, kept, &mut turns)?;
    let messages = turns.finish();
    if messages.is_empty() {
        return Err(Path::Root.key("input").invalid("must not be empty"));
    }
    push_key(&mut out, b',', "messages");
    out.push(b'[');
    out.extend_from_slice(&messages);
    out.push(b']');
    tools.push_all(&root, &mut out, &mut dropped)?;
    out.push(b'}');
    for (key, raw) in &root.fields.0 {
        if !KNOWN.contains(&&**key) && raw.get() != "null" {
            dropped.add(key);
        }
    }
    if root.string("truncation")?.as_deref() == Some("auto") {
        dropped.add("truncation");
    }
    let wanted = root.boolean("store")?;
    let store = wanted.unwrap_or(true);
    let repeated = repeated(&root, store);
    let searches = tools.searches;
    Ok(Converted {
        body: out,
        previous: previous.map(Cow::into_owned),
        store,
        wants_store: wanted == Some(true),
        input,
        asked: Asked {
            names: tools.names,
            repeated,
            dropped: dropped.into_names(),
            searches,
            ..Asked::plain(tail, created, &model)
        },
    })
}

/// 400 for an answer that is not known, or not any more.
fn not_found(id: &str) -> ApiError {
    let shown: String = id.chars().take(80).collect();
    let message = format!("Previous response with id {shown:?} not found.");
    ApiError::invalid("previous_response_id", message).with_code("previous_response_not_found")
}

/// What would have to lie with the provider.
fn refuse(root: &Object<'_, '_>) -> Result<(), ApiError> {
    for key in ["conversation", "prompt"] {
        if root.get(key).is_some() {
            let message = format!("{key}: is for models of the provider that keeps it");
            return Err(ApiError::unsupported_parameter(key, message));
        }
    }
    if root.boolean("background")? == Some(true) {
        let message = "background: an answer is given at once or not at all";
        return Err(ApiError::unsupported_parameter("background", message));
    }
    for key in ["metadata", "stream_options", "client_metadata"] {
        root.carried(key)?;
    }
    root.array("include")?;
    Ok(())
}

/// Hands the items over, and gives those that are no references back as a JSON array.
fn input(
    root: &Object<'_, '_>,
    limits: &Limits,
    kept: &dyn Kept,
    turns: &mut Turns<'_, '_>,
) -> Result<Vec<u8>, ApiError> {
    let path = Path::Root.key("input");
    let mut items = vec![b'['];
    let Some(raw) = root.get("input") else {
        items.push(b']');
        return Ok(items);
    };
    if is_string(raw) {
        let text = string(raw, &path)?;
        turns.user(&text);
        items.extend_from_slice(b"{\"type\":\"message\",\"role\":\"user\",\"content\":");
        items.extend_from_slice(mended(raw.get()).as_bytes());
        items.extend_from_slice(b"}]");
        return Ok(items);
    }
    if !raw.get().starts_with('[') {
        return Err(wrong(raw, &path, "a string or an array of items"));
    }
    let entries = array(raw, &path)?;
    limits.check_items("input", entries.len())?;
    for (at, raw) in entries.into_iter().enumerate() {
        crate::cancel::check()?;
        let path = path.index(at);
        let item = Object::read(raw, &path)?;
        let mut taken = Cow::Borrowed(raw.get());
        if item.string("type")?.as_deref() == Some("item_reference") {
            let id = item.required_string("id")?;
            let Some(found) = kept.item(&id) else {
                let shown: String = id.chars().take(80).collect();
                let what = format!("the item {shown:?} is not kept here");
                return Err(path
                    .key("id")
                    .invalid(what)
                    .with_code("item_reference_not_found"));
            };
            each(std::slice::from_ref(&found), &path, turns)?;
            taken = Cow::Owned(found);
        } else {
            turns.item(&item)?;
        }
        if items.len() > 1 {
            items.push(b',');
        }
        items.extend_from_slice(mended(&taken).as_bytes());
    }
    items.push(b']');
    Ok(items)
}

/// Hands items over that are not in the request itself.
fn each(items: &[String], path: &Path<'_>, turns: &mut Turns<'_, '_>) -> Result<(), ApiError> {
    for (at, item) in items.iter().enumerate() {
        crate::cancel::check()?;
        let path = path.index(at);
        let raw: &RawValue = serde_json::from_str(item).map_err(|error| path.invalid(error))?;
        turns.item(&Object::read(raw, &path)?)?;
    }
    Ok(())
}

fn effort<'a>(root: &Object<'a, '_>) -> Result<Option<Cow<'a, str>>, ApiError> {
    let path = Path::Root.key("reasoning");
    let Some(raw) = root.get("reasoning") else {
        return Ok(None);
    };
    let effort = Object::read(raw, &path)?.string("effort")?;
    Ok(effort.map(|effort| match &*effort {
        "max" => Cow::Borrowed("xhigh"),
        _ => effort,
    }))
}

/// The form of the answer, and how wordy it is.
fn text(root: &Object<'_, '_>, out: &mut Vec<u8>) -> Result<(), ApiError> {
    let path = Path::Root.key("text");
    let Some(raw) = root.get("text") else {
        return Ok(());
    };
    let text = Object::read(raw, &path)?;
    if let Some(verbosity) = text.string("verbosity")? {
        push_key(out, b',', "verbosity");
        push_string(out, &verbosity);
    }
    let path = path.key("format");
    let Some(raw) = text.get("format") else {
        return Ok(());
    };
    let format = Object::read(raw, &path)?;
    match &*format.required_string("type")? {
        "text" => {}
        "json_object" => {
            out.extend_from_slice(b",\"response_format\":{\"type\":\"json_object\"}");
        }
        "json_schema" => {
            let name = format.string("name")?;
            out.extend_from_slice(
                b",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":",
            );
            push_string(out, name.as_deref().unwrap_or("output"));
            if let Some(words) = format.string("description")? {
                push_key(out, b',', "description");
                push_string(out, &words);
            }
            if let Some(schema) = format.carried("schema")? {
                push_key(out, b',', "schema");
                push_raw(out, schema);
            }
            if format.boolean("strict")? == Some(true) {
                out.extend_from_slice(b",\"strict\":true");
            }
            out.extend_from_slice(b"}}");
        }
        other => {
            return Err(path
                .key("type")
                .invalid(format_args!("{other:?} is not known"))
                .with_code("unsupported_value"));
        }
    }
    Ok(())
}

/// The members of every answer to this request, each with a comma before it.
fn repeated(root: &Object<'_, '_>, store: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    for (key, absent) in REPEATED {
        push_key(&mut out, b',', key);
        let raw = root.get(key).map(RawValue::get);
        let raw = raw.filter(|raw| raw.len() <= LONGEST_REPEATED);
        push_carried(&mut out, &mended(raw.unwrap_or(absent)));
    }
    push_key(&mut out, b',', "store");
    out.extend_from_slice(if store { b"true" } else { b"false" });
    out
}
