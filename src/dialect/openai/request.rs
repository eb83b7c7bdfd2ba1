//! The top level of a chat request: its head for routing, and all of it in the middle form.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::messages;
use super::read::{Object, Path, array, is_array, is_object, is_string, string, wrong};
use super::tools;
use crate::chat::{Request, ResponseFormat};
use crate::error::ApiError;
use crate::json::shape::Limits;
use crate::json::{Fields, error_offset};

/// The part of a request that routing needs; nothing else was looked into.
#[derive(Debug)]
pub struct Head<'a> {
    /// The body as it came.
    pub body: &'a str,
    pub fields: Fields<'a>,
    pub model: Cow<'a, str>,
    pub stream: bool,
    pub include_usage: bool,
    /// What it may hold.
    pub limits: Limits,
}

/// A model's name is not longer, which stands in URLs, in errors and in logs.
pub const LONGEST_MODEL: usize = 512;

/// Top-level fields that are known and need nothing done.
const HARMLESS: &[&str] = &["prediction"];

/// Top-level fields that `parse` reads.
const READ: &[&str] = &[
    "audio",
    "extra_body",
    "frequency_penalty",
    "function_call",
    "functions",
    "image_config",
    "logit_bias",
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "messages",
    "metadata",
    "modalities",
    "model",
    "moderation",
    "n",
    "parallel_tool_calls",
    "presence_penalty",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "reasoning_effort",
    "response_format",
    "safety_identifier",
    "seed",
    "service_tier",
    "stop",
    "store",
    "stream",
    "stream_options",
    "temperature",
    "thinking",
    "tool_choice",
    "tools",
    "top_k",
    "top_logprobs",
    "top_p",
    "user",
    "verbosity",
    "web_search_options",
];

impl<'a> Head<'a> {
    /// Reads the body shallowly.
    pub fn read(body: &'a [u8]) -> Result<Head<'a>, ApiError> {
        let body = std::str::from_utf8(body).map_err(|error| {
            let at = error.valid_up_to();
            ApiError::new(400, format!("the body is not valid UTF-8 at byte {at}"))
        })?;
        let fields: Fields<'a> = serde_json::from_str(body).map_err(|error| {
            ApiError::new(
                400,
                if error.is_data() && !body.trim_ascii_start().starts_with('{') {
                    "the body must be a JSON object, which byte 0 does not begin".to_owned()
                } else {
                    let at = error_offset(body, &error);
                    format!("the body is not valid JSON at byte {at}: {error}")
                },
            )
        })?;
        let root = Object {
            fields,
            path: &Path::Root,
        };
        let model = root.required_string("model")?;
        if model.is_empty() {
            return Err(Path::Root.key("model").invalid("must not be empty"));
        }
        if model.len() > LONGEST_MODEL {
            let what = format!("is longer than the {LONGEST_MODEL} bytes that a name may have");
            return Err(Path::Root.key("model").invalid(&what));
        }
        let path = Path::Root.key("messages");
        match root.get("messages") {
            None => return Err(path.invalid("is required")),
            Some(raw) if !is_array(raw) => return Err(wrong(raw, &path, "an array")),
            Some(raw) if raw.get()[1..].trim_start().starts_with(']') => {
                return Err(path.invalid("must not be empty"));
            }
            Some(_) => {}
        }
        let stream = root.boolean("stream")?.unwrap_or(false);
        let include_usage = match root.get("stream_options") {
            None => false,
            Some(raw) => {
                let path = Path::Root.key("stream_options");
                let options = Object::read(raw, &path)?;
                options.boolean("include_usage")?.unwrap_or(false)
            }
        };
        Ok(Head {
            body,
            fields: root.fields,
            model,
            stream,
            include_usage,
            limits: Limits::default(),
        })
    }

    /// Reads the rest: the request in the middle form.
    pub fn parse(&self) -> Result<Request<'a>, ApiError> {
        let root = Object {
            fields: Fields(self.fields.0.clone()),
            path: &Path::Root,
        };
        let max_tokens = root.count("max_tokens")?;
        let tools = tools::read_tools(&root, &self.limits)?;
        Ok(Request {
            messages: messages::read(&root, &self.limits)?,
            max_tokens: root.count("max_completion_tokens")?.or(max_tokens),
            temperature: root.number("temperature")?,
            top_p: root.number("top_p")?,
            top_k: root.count("top_k")?,
            stop: strings_or_one(&root, "stop")?,
            n: root.count("n")?,
            seed: root.whole("seed")?,
            logprobs: root.boolean("logprobs")?.unwrap_or(false),
            top_logprobs: root.count("top_logprobs")?,
            frequency_penalty: root.number("frequency_penalty")?,
            presence_penalty: root.number("presence_penalty")?,
            logit_bias: logit_bias(&root)?,
            user: root.string("user")?,
            safety_identifier: root.string("safety_identifier")?,
            service_tier: root.string("service_tier")?,
            metadata: root.get("metadata"),
            store: root.boolean("store")?,
            modalities: strings(&root, "modalities")?,
            audio: root.carried("audio")?,
            reasoning_effort: root.string("reasoning_effort")?,
            verbosity: root.string("verbosity")?,
            thinking: root.carried("thinking")?,
            response_format: response_format(&root)?,
            tool_choice: tools::read_choice(&root)?,
            tools: tools.tools,
            parallel_tool_calls: root.boolean("parallel_tool_calls")?,
            legacy_functions: tools.legacy,
            web_search_options: root.carried("web_search_options")?,
            prompt_cache_key: root.string("prompt_cache_key")?,
            prompt_cache_options: root.carried("prompt_cache_options")?,
            prompt_cache_retention: root.string("prompt_cache_retention")?,
            image_config: root.carried("image_config")?,
            moderation: root.carried("moderation")?,
            extra_body: root.carried("extra_body")?,
            unknown: self.unknown(),
        })
    }

    fn unknown(&self) -> Vec<Cow<'a, str>> {
        let known = |name: &str| READ.contains(&name) || HARMLESS.contains(&name);
        let fields = self.fields.0.iter();
        fields
            .filter(|(name, _)| !known(name))
            .map(|(name, _)| name.clone())
            .collect()
    }
}

fn strings<'a>(root: &Object<'a, '_>, key: &str) -> Result<Vec<Cow<'a, str>>, ApiError> {
    match root.get(key) {
        None => Ok(Vec::new()),
        Some(raw) => each_string(raw, &root.path.key(key)),
    }
}

fn strings_or_one<'a>(root: &Object<'a, '_>, key: &str) -> Result<Vec<Cow<'a, str>>, ApiError> {
    match root.get(key) {
        Some(raw) if is_string(raw) => Ok(vec![string(raw, &root.path.key(key))?]),
        Some(raw) if !is_array(raw) => Err(wrong(raw, &root.path.key(key), "a string or an array")),
        _ => strings(root, key),
    }
}

fn each_string<'a>(raw: &'a RawValue, path: &Path<'_>) -> Result<Vec<Cow<'a, str>>, ApiError> {
    let entries = array(raw, path)?.into_iter().enumerate();
    entries
        .map(|(i, entry)| string(entry, &path.index(i)))
        .collect()
}

fn logit_bias<'a>(root: &Object<'a, '_>) -> Result<Option<&'a RawValue>, ApiError> {
    let found = root.carried("logit_bias")?;
    Ok(found.filter(|raw| !raw.get()[1..].trim_start().starts_with('}')))
}

fn response_format<'a>(root: &Object<'a, '_>) -> Result<ResponseFormat<'a>, ApiError> {
    let Some(raw) = root.get("response_format") else {
        return Ok(ResponseFormat::Text);
    };
    let path = root.path.key("response_format");
    let format = Object::read(raw, &path)?;
    let kind = format.required_string("type")?;
    match &*kind {
        "text" => Ok(ResponseFormat::Text),
        "json_object" => Ok(ResponseFormat::JsonObject),
        "json_schema" => {
            let path = path.key("json_schema");
            let Some(raw) = format.get("json_schema") else {
                return Err(path.invalid("is required"));
            };
            let schema = Object::read(raw, &path)?;
            Ok(ResponseFormat::JsonSchema {
                name: schema.required_string("name")?,
                schema: match schema.get("schema") {
                    // `true` is a schema too, and takes anything.
                    Some(raw) if raw.get() == "true" => None,
                    Some(raw) if !is_object(raw) => {
                        return Err(wrong(raw, &path.key("schema"), "an object"));
                    }
                    found => found,
                },
                description: schema.string("description")?,
                strict: schema.boolean("strict")?.unwrap_or(false),
            })
        }
        other => Err(path
            .key("type")
            .invalid(format_args!("{other:?} is not known"))
            .with_code("unsupported_value")),
    }
}
