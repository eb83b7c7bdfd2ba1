//! OpenAI's Chat Completions as an upstream: a relay, since callers speak it too.
//!
//! The request goes out with its `model` replaced and as little else changed as the upstream
//! needs; events come back as they are. What compatible servers get wrong is mended on the way,
//! and only then is an event looked into further than a scan.

mod calls;
mod counted;
mod deltas;
mod edit;
mod gather;
mod mended;
mod pictures;
mod plain;
mod relay;
mod repair;
mod scan;
mod strip;
mod usage;
mod whole;

#[cfg(test)]
pub use whole::relay_body;

pub use edit::Draft;
pub use plain::is_path;
pub use strip::map_list;
pub use {counted::Counter, deltas::Deltas, relay::RelayStream, whole::WholeRelay};

use std::borrow::Cow;

use super::{Encoded, Options};
use crate::capability;
use crate::dialect::openai::Head;
use crate::error::ApiError;
use crate::json::{Fields, push_string};
use crate::kind::Kind;
use crate::lesson::{Lesson, field};

/// The request for this upstream: the caller's bytes, but for what has to differ.
pub fn encode(head: &Head<'_>, model: &str, options: &Options) -> Result<Encoded, ApiError> {
    let mut draft = Draft::new(head);
    let mut warnings = Warnings {
        strict: options.strict,
        dropped: Vec::new(),
    };
    let mut name = Vec::new();
    push_string(&mut name, model);
    draft.set("model", String::from_utf8_lossy(&name).into_owned());
    let extra = head.fields.parse::<Fields>("extra_body");
    let extra = extra.and_then(Result::ok).unwrap_or_default();
    if options.official {
        official(&mut draft, head, model, &mut warnings)?;
    } else {
        compatible(&mut draft, &extra, options);
        if !head.stream && options.streams_whole() {
            draft.set("stream", "true".into());
            if options.ask_usage {
                draft.merge("stream_options", r#"{"include_usage":true}"#);
            }
        }
        if head.stream && !head.include_usage && options.ask_usage {
            draft.merge("stream_options", r#"{"include_usage":true}"#);
        }
    }
    if let Some(Ok(own)) = extra.parse::<Fields>("openai") {
        // These two decide where the request goes and how its answer is read.
        let fields = own.0.iter().map(|(key, value)| (&**key, *value));
        draft.merge_all(fields.filter(|(key, _)| *key != "model" && *key != "stream"));
    }
    if !options.official {
        let kind = options.kind();
        for &(from, to) in kind.renames {
            let is_limit = to == "max_tokens" || to == "max_completion_tokens";
            if !(is_limit && options.max_tokens_field.is_some()) {
                one_name(&mut draft, from, to);
            }
        }
        for path in kind.refuses {
            refused(&mut draft, path, &mut warnings, kind)?;
        }
        for path in &options.strip {
            leave_out(&mut draft, path);
        }
        if options.plain_messages
            && let Some(plain) = draft
                .get("messages")
                .and_then(|messages| plain::plain_messages(messages, &mut warnings.dropped))
        {
            draft.set("messages", plain);
        }
    }
    heed(&mut draft, options, &mut warnings);
    let whole = options.lessons.has(Lesson::NoStream) && draft.get("stream") == Some("true");
    if whole {
        draft.set("stream", "false".to_owned());
        draft.remove("stream_options");
    }
    Ok(Encoded {
        path: "/chat/completions".into(),
        body: draft.into_bytes(),
        dropped: warnings.dropped,
        undo: Default::default(),
        whole,
        lane: None,
    })
}

/// What the model's refusals have taught.
fn heed(draft: &mut Draft<'_>, options: &Options, warnings: &mut Warnings) {
    let lessons = &options.lessons;
    match lessons.limit() {
        Some("max_tokens") => one_name(draft, "max_completion_tokens", "max_tokens"),
        Some(_) => one_name(draft, "max_tokens", "max_completion_tokens"),
        None => {}
    }
    // What the caller asks for is the caller's to take back.
    if options.strict {
        return;
    }
    let mut dropped = Vec::new();
    for member in lessons.members() {
        let Some(raw) = draft.get(member).filter(|raw| field::fits(member, raw)) else {
            continue;
        };
        let number = raw.parse::<f64>();
        if !number.is_ok_and(|number| field::is_default(member, number)) {
            dropped.push(member);
        }
        draft.remove(member);
    }
    let effort = draft.get("reasoning_effort");
    let effort = effort.and_then(|raw| serde_json::from_str::<Cow<str>>(raw).ok());
    if let Some(known) = effort.and_then(|asked| lessons.effort(&asked)) {
        draft.set("reasoning_effort", format!("\"{known}\""));
        dropped.push("reasoning_effort");
    }
    if lessons.has(Lesson::LooseTools)
        && let Some(loose) = draft.get("tools").and_then(|raw| strip::STRICT.strip(raw))
    {
        draft.set("tools", loose);
        dropped.push("tools.strict");
    }
    for name in dropped {
        if !warnings.dropped.iter().any(|known| known == name) {
            warnings.dropped.push(name.to_owned());
        }
    }
}

/// Whether messages of the request hold what weir adds to its answers.
pub fn has_additions(head: &Head<'_>) -> bool {
    let messages = head.fields.get("messages");
    messages.is_some_and(|raw| plain::plain_messages(raw.get(), &mut Vec::new()).is_some())
}

/// Leaves out what the config names: a field of the request, or a path into one.
fn leave_out(draft: &mut Draft<'_>, path: &str) {
    let (step, rest) = match path.split_once('.') {
        Some((step, rest)) => (step, rest),
        None => return draft.remove(path),
    };
    let (key, rest) = match step.strip_suffix("[]") {
        Some(key) => (key, format!("{key}[].{rest}")),
        None => (step, format!("{step}.{rest}")),
    };
    let Some(value) = draft.get(key) else {
        return;
    };
    let mut holder = Vec::new();
    edit::push_object(&mut holder, std::iter::once((key, value)));
    let less = std::str::from_utf8(&holder)
        .ok()
        .and_then(|holder| plain::without(holder, &rest));
    let Some(less) = less else {
        return;
    };
    let fields = serde_json::from_str::<Fields>(&less).unwrap_or_default();
    if let Some(value) = fields.get(key) {
        draft.set(key, value.get().to_owned());
    }
}

/// Leaves out a field that this kind of server refuses. What asks for nothing that is not done
/// anyway is not told.
fn refused(
    draft: &mut Draft<'_>,
    path: &'static str,
    warnings: &mut Warnings,
    kind: &Kind,
) -> Result<(), ApiError> {
    if path.contains("[]") {
        leave_out(draft, path);
        return Ok(());
    }
    let asks = !matches!(path, "stream_options" | "user" | "store" | "extra_body");
    match draft.get(path) {
        Some(value) if asks && value != "false" => {
            let name = kind.name;
            warnings.drop(draft, path, &format!("servers of the kind {name}"))
        }
        _ => {
            draft.remove(path);
            Ok(())
        }
    }
}

/// Fields that were left out although the answer may differ for it.
struct Warnings {
    strict: bool,
    dropped: Vec<String>,
}

impl Warnings {
    fn drop(&mut self, draft: &mut Draft<'_>, key: &str, model: &str) -> Result<(), ApiError> {
        if self.strict {
            let message = format!("{key} is not supported by {model}");
            return Err(ApiError::unsupported_parameter(key, message));
        }
        draft.remove(key);
        self.dropped.push(key.to_owned());
        Ok(())
    }
}

/// OpenAI refuses fields that it does not know, so the extensions are left out.
fn official(
    draft: &mut Draft<'_>,
    head: &Head<'_>,
    model: &str,
    warnings: &mut Warnings,
) -> Result<(), ApiError> {
    draft.remove("extra_body");
    draft.remove("cache_control");
    for key in ["top_k", "thinking", "image_config"] {
        match draft.get(key) {
            Some(_) => warnings.drop(draft, key, model)?,
            None => draft.remove(key),
        }
    }
    if let Some(less) = draft.get("messages").and_then(pictures::without) {
        if warnings.strict {
            let message = format!("messages.images is not supported by {model}");
            return Err(ApiError::unsupported_parameter("messages", message));
        }
        draft.set("messages", less);
        warnings.dropped.push("messages.images".to_owned());
    }
    for (key, extensions) in [("messages", &strip::MESSAGE), ("tools", &strip::TOOL)] {
        if let Some(less) = draft.get(key).and_then(|raw| extensions.strip(raw)) {
            draft.set(key, less);
        }
    }
    if capability::openai(model).reasoning {
        reasoning_limits(draft, model, warnings)?;
    }
    if head.stream && !head.include_usage {
        draft.merge("stream_options", r#"{"include_usage":true}"#);
    }
    Ok(())
}

/// A field under the name `to` alone, which wins where the caller used both.
fn one_name(draft: &mut Draft<'_>, from: &str, to: &'static str) {
    if draft.get(from).is_none() {
        return;
    }
    if draft.get(to).is_some() {
        draft.remove(from);
    } else {
        draft.remove(to);
        draft.rename(from, to);
    }
}

/// Reasoning models know one name for the limit, and sampling only by its defaults.
fn reasoning_limits(
    draft: &mut Draft<'_>,
    model: &str,
    warnings: &mut Warnings,
) -> Result<(), ApiError> {
    one_name(draft, "max_tokens", "max_completion_tokens");
    let can = capability::openai(model);
    // An empty list stops at nothing.
    let stop = draft.get("stop").filter(|_| !can.stop);
    match stop.map(|raw| strip::is_empty_list(raw) || raw == "\"\"") {
        Some(true) => draft.remove("stop"),
        Some(false) => warnings.drop(draft, "stop", model)?,
        None => {}
    }
    let effort = draft.get("reasoning_effort");
    let effort = effort.map(|raw| serde_json::from_str::<Cow<str>>(raw).unwrap_or_default());
    if can.samples(effort.as_deref()) {
        return Ok(());
    }
    const DEFAULTS: &[(&str, f64)] = &[
        ("temperature", 1.0),
        ("top_p", 1.0),
        ("presence_penalty", 0.0),
        ("frequency_penalty", 0.0),
        ("top_logprobs", 0.0),
    ];
    for (key, default) in DEFAULTS {
        let number = draft.get(key).and_then(|raw| raw.parse::<f64>().ok());
        if number.is_some_and(|number| number != *default) {
            warnings.drop(draft, key, model)?;
        }
    }
    if draft.get("logprobs") == Some("true") {
        warnings.drop(draft, "logprobs", model)?;
    }
    let bias = draft.get("logit_bias");
    if bias.is_some_and(|raw| raw.starts_with('{') && !strip::is_empty_object(raw)) {
        warnings.drop(draft, "logit_bias", model)?;
    }
    Ok(())
}

/// Compatible servers get everything, because each of them has extensions of its own.
fn compatible(draft: &mut Draft<'_>, extra: &Fields<'_>, options: &Options) {
    if extra.get("openai").is_some() {
        // The part that is meant for this request; what is left may be the server's own.
        let rest = extra.0.iter().filter(|(key, _)| key != "openai");
        let mut object = Vec::new();
        edit::push_object(&mut object, rest.map(|(key, raw)| (&**key, raw.get())));
        match &*String::from_utf8_lossy(&object) {
            "{}" => draft.remove("extra_body"),
            rest => draft.set("extra_body", rest.to_owned()),
        }
    }
    match options.max_tokens_field.as_deref() {
        Some("max_tokens") => one_name(draft, "max_completion_tokens", "max_tokens"),
        Some(_) => one_name(draft, "max_tokens", "max_completion_tokens"),
        None => {}
    }
    if options.developer_as_system {
        let renamed = draft.get("messages").and_then(developer_as_system);
        if let Some(messages) = renamed {
            draft.set("messages", messages);
        }
    }
}

/// `messages` with `developer` turned into `system`; `None` if there is nothing to turn.
fn developer_as_system(messages: &str) -> Option<String> {
    if !messages.contains("\"developer\"") {
        return None;
    }
    strip::map_list(messages, |message| {
        let mut fields: Fields = serde_json::from_str(message).ok()?;
        let role = fields.parse::<Cow<str>>("role")?.ok()?;
        if role != "developer" {
            return None;
        }
        let system = serde_json::from_str("\"system\"").expect("it is JSON");
        for (key, value) in &mut fields.0 {
            if key == "role" {
                *value = system;
            }
        }
        let mut object = Vec::new();
        let members = fields.0.iter().map(|(key, raw)| (&**key, raw.get()));
        edit::push_object(&mut object, members);
        String::from_utf8(object).ok()
    })
}

#[cfg(test)]
mod calls_tests;
#[cfg(test)]
mod encode_tests;
#[cfg(test)]
mod mended_tests;
#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod relay_tests;
