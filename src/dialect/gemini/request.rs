//! A `generateContent` request as a chat request.
//!
//! What another vendor has no place for is left out and named, never refused. What is refused is
//! what no vendor could make sense of.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::contents::Turns;
use super::{Verb, of_path, tools};
use crate::dialect::messages::{Converted, Dropped, push_raw};
use crate::dialect::openai::read::{Object, Path, array, string};
use crate::dialect::openai::{Head, LONGEST_MODEL};
use crate::error::ApiError;
use crate::json::{Fields, error_offset, push_key, push_number, push_string};
use crate::seal::Seals;

/// OpenAI takes no more.
const MOST_STOPS: usize = 4;

/// Top-level fields that are read here.
const READ: &[&str] = &[
    "contents",
    "generationConfig",
    "model",
    "systemInstruction",
    "toolConfig",
    "tools",
];

/// Fields of `generationConfig` that are read here, or that say nothing elsewhere.
const READ_CONFIG: &[&str] = &[
    "candidateCount",
    "frequencyPenalty",
    "logprobs",
    "maxOutputTokens",
    "presencePenalty",
    "responseJsonSchema",
    "responseLogprobs",
    "responseMimeType",
    "responseModalities",
    "responseSchema",
    "seed",
    "stopSequences",
    "temperature",
    "thinkingConfig",
    "topK",
    "topP",
];

/// What stands in the path and in the body, read as far as routing needs it.
pub fn head<'a>(path: &str, body: &'a [u8]) -> Result<Head<'a>, ApiError> {
    let Some((model, verb)) = of_path(path) else {
        return Err(ApiError::new(404, "there is nothing at this path"));
    };
    let model = model.strip_prefix("models/").unwrap_or(&model);
    if model.is_empty() || model.len() > LONGEST_MODEL {
        let message = format!("model: a name has 1 to {LONGEST_MODEL} bytes");
        return Err(ApiError::invalid("model", message));
    }
    let body = std::str::from_utf8(body).map_err(|error| {
        let at = error.valid_up_to();
        ApiError::new(400, format!("the body is not valid UTF-8 at byte {at}"))
    })?;
    let fields: Fields<'a> = serde_json::from_str(body).map_err(|error| {
        let at = error_offset(body, &error);
        let message = format!("the body is no JSON object, see byte {at}: {error}");
        ApiError::new(400, message)
    })?;
    let root = Object {
        fields,
        path: &Path::Root,
    };
    if root.array("contents")?.is_empty() {
        return Err(Path::Root.key("contents").invalid("must not be empty"));
    }
    Ok(Head {
        body,
        fields: root.fields,
        model: Cow::Owned(model.to_owned()),
        stream: verb == Verb::Stream,
        include_usage: true,
        limits: crate::json::shape::Limits::default(),
    })
}

/// An object whose keys may be written in both ways that the vendor takes.
pub fn read<'a, 'p>(raw: &'a RawValue, path: &'p Path<'p>) -> Result<Object<'a, 'p>, ApiError> {
    Ok(spelled(Object::read(raw, path)?))
}

fn spelled<'a, 'p>(mut object: Object<'a, 'p>) -> Object<'a, 'p> {
    for (key, _) in &mut object.fields.0 {
        if key.contains('_') {
            *key = camel_case(key).into();
        }
    }
    object
}

fn camel_case(key: &str) -> String {
    let mut out = String::with_capacity(key.len());
    let mut upper = false;
    for letter in key.chars() {
        match letter {
            '_' => upper = !out.is_empty(),
            letter if std::mem::take(&mut upper) => out.extend(letter.to_uppercase()),
            letter => out.push(letter),
        }
    }
    out
}

/// `head` is what [`head`] gave.
pub fn to_chat(head: &Head<'_>, seals: &Seals) -> Result<Converted, ApiError> {
    let root = spelled(Object {
        fields: Fields(head.fields.0.clone()),
        path: &Path::Root,
    });
    let mut out = Vec::with_capacity(head.body.len() + head.body.len() / 8 + 256);
    let mut dropped = Dropped::default();
    push_key(&mut out, b'{', "model");
    push_string(&mut out, &head.model);
    if head.stream {
        out.extend_from_slice(b",\"stream\":true");
    }
    generation(&root, &mut out, &mut dropped)?;
    if root
        .string("cachedContent")?
        .is_some_and(|name| !name.is_empty())
    {
        // Without it the question would be another one.
        let what = "is kept by Google, and another upstream answers here";
        return Err(Path::Root.key("cachedContent").invalid(what));
    }
    let tools = tools::read(&root, &head.limits, &mut dropped)?;
    tools.push(&root, &mut out)?;
    let mut turns = Turns::new(seals, &mut dropped);
    let path = Path::Root.key("systemInstruction");
    if let Some(raw) = root.get("systemInstruction") {
        turns.system(&read(raw, &path)?)?;
    }
    let path = Path::Root.key("contents");
    let entries = root.array("contents")?;
    head.limits.check_messages(entries.len())?;
    for (at, raw) in entries.into_iter().enumerate() {
        crate::cancel::check()?;
        let path = path.index(at);
        let content = read(raw, &path)?;
        match content.string("role")?.as_deref() {
            None | Some("" | "user" | "function" | "tool") => turns.user(&content)?,
            Some("model") => turns.model(&content, at)?,
            Some(other) => {
                let what = format!("{other:?} is not a role; \"user\" and \"model\" are");
                return Err(path.key("role").invalid(what));
            }
        }
    }
    let (messages, failed) = turns.finish();
    if messages.is_empty() {
        return Err(Path::Root.key("contents").invalid("say nothing"));
    }
    push_key(&mut out, b',', "messages");
    out.push(b'[');
    out.extend_from_slice(&messages);
    out.extend_from_slice(b"]}");
    for (key, _) in &root.fields.0 {
        if !READ.contains(&&**key) {
            dropped.add(key);
        }
    }
    Ok(Converted {
        body: out,
        dropped: dropped.into_names(),
        failed,
        searches: tools.searches,
    })
}

fn generation(
    root: &Object<'_, '_>,
    out: &mut Vec<u8>,
    dropped: &mut Dropped,
) -> Result<(), ApiError> {
    let path = Path::Root.key("generationConfig");
    let Some(raw) = root.get("generationConfig") else {
        return Ok(());
    };
    let config = read(raw, &path)?;
    for (key, name) in [
        ("maxOutputTokens", "max_tokens"),
        ("candidateCount", "n"),
        ("topK", "top_k"),
    ] {
        if let Some(count) = config.count(key)?
            && !(name == "n" && count <= 1)
        {
            push_key(out, b',', name);
            push_number(out, count);
        }
    }
    for (key, name) in [
        ("temperature", "temperature"),
        ("topP", "top_p"),
        ("presencePenalty", "presence_penalty"),
        ("frequencyPenalty", "frequency_penalty"),
    ] {
        if config.number(key)?.is_some()
            && let Some(raw) = config.get(key)
        {
            push_key(out, b',', name);
            push_raw(out, raw);
        }
    }
    if let Some(seed) = config.whole("seed")? {
        push_key(out, b',', "seed");
        out.extend_from_slice(seed.to_string().as_bytes());
    }
    for key in ["logprobs", "responseLogprobs"] {
        if config.get(key).is_some() {
            dropped.add(&format!("generationConfig.{key}"));
        }
    }
    stops(&config, out, dropped)?;
    modalities(&config, out)?;
    answer_format(&config, out)?;
    if let Some(effort) = effort(&config)? {
        push_key(out, b',', "reasoning_effort");
        push_string(out, effort);
    }
    for (key, _) in &config.fields.0 {
        if !READ_CONFIG.contains(&&**key) {
            dropped.add(&format!("generationConfig.{key}"));
        }
    }
    Ok(())
}

fn stops(
    config: &Object<'_, '_>,
    out: &mut Vec<u8>,
    dropped: &mut Dropped,
) -> Result<(), ApiError> {
    let path = config.path.key("stopSequences");
    let mut count = 0;
    for (at, raw) in config.array("stopSequences")?.into_iter().enumerate() {
        let text = string(raw, &path.index(at))?;
        if text.is_empty() {
            continue;
        }
        if count == MOST_STOPS {
            dropped.add("generationConfig.stopSequences");
            break;
        }
        out.extend_from_slice(if count == 0 { b",\"stop\":[" } else { b"," });
        push_string(out, &text);
        count += 1;
    }
    if count > 0 {
        out.push(b']');
    }
    Ok(())
}

fn modalities(config: &Object<'_, '_>, out: &mut Vec<u8>) -> Result<(), ApiError> {
    let path = config.path.key("responseModalities");
    let mut asked = Vec::new();
    for (at, raw) in config.array("responseModalities")?.into_iter().enumerate() {
        asked.push(string(raw, &path.index(at))?.to_ascii_lowercase());
    }
    if asked.iter().any(|kind| kind == "image") {
        out.extend_from_slice(b",\"modalities\":[\"image\",\"text\"]");
    }
    Ok(())
}

/// JSON, by a schema in either of its places.
fn answer_format(config: &Object<'_, '_>, out: &mut Vec<u8>) -> Result<(), ApiError> {
    let schema = match config.carried("responseJsonSchema")? {
        Some(schema) => Some(schema),
        None => config.carried("responseSchema")?,
    };
    let mime = config.string("responseMimeType")?;
    let Some(schema) = schema else {
        if mime.as_deref() == Some("application/json") {
            out.extend_from_slice(b",\"response_format\":{\"type\":\"json_object\"}");
        }
        return Ok(());
    };
    let path = config.path.key("responseJsonSchema");
    let schema = tools::plain_schema(schema, &path)?;
    // Where it says that there may be nothing else, it is meant to be kept to the letter; OpenAI
    // refuses any other under that word.
    let strict = match schema.contains("\"additionalProperties\":false") {
        true => "\"strict\":true,",
        false => "",
    };
    out.extend_from_slice(b",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{");
    out.extend_from_slice(strict.as_bytes());
    out.extend_from_slice(b"\"name\":\"output\",\"schema\":");
    out.extend_from_slice(schema.as_bytes());
    out.extend_from_slice(b"}}");
    Ok(())
}

/// How much the model is to think: by the level, else by the budget.
fn effort(config: &Object<'_, '_>) -> Result<Option<&'static str>, ApiError> {
    /// Up to here a budget is a low effort, and up to there a medium one.
    const LOW: i64 = 2048;
    const MEDIUM: i64 = 12_000;
    let path = config.path.key("thinkingConfig");
    let Some(raw) = config.get("thinkingConfig") else {
        return Ok(None);
    };
    let thinking = read(raw, &path)?;
    thinking.boolean("includeThoughts")?;
    let level = thinking.string("thinkingLevel")?;
    let budget = thinking.whole("thinkingBudget")?;
    let by_level = level.and_then(|level| match &*level.to_ascii_lowercase() {
        "minimal" => Some("minimal"),
        "low" => Some("low"),
        "medium" => Some("medium"),
        "high" => Some("high"),
        // What is not specified, and what came after this was written.
        _ => None,
    });
    Ok(by_level.or(match budget {
        Some(0) => Some("none"),
        // As the model likes.
        None | Some(..=-1) => None,
        Some(1..LOW) => Some("low"),
        Some(LOW..MEDIUM) => Some("medium"),
        Some(_) => Some("high"),
    }))
}

/// The parts of a content.
pub fn parts<'a>(content: &Object<'a, '_>, path: &Path<'_>) -> Result<Vec<&'a RawValue>, ApiError> {
    match content.get("parts") {
        None => Ok(Vec::new()),
        // The vendor takes a part alone for a list of one.
        Some(raw) if raw.get().starts_with('{') => Ok(vec![raw]),
        Some(raw) => array(raw, path),
    }
}
