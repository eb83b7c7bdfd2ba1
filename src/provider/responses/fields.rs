//! The top level of the body beside history and tools, and the fields that have no equivalent.

use serde_json::value::RawValue;

use super::context::Context;
use crate::capability;
use crate::chat::{Request, ResponseFormat};
use crate::error::ApiError;
use crate::lesson::Lesson;
use crate::provider::gemini::compact;
use crate::provider::gemini::write::Nest;

/// The provider refuses a smaller limit.
const LEAST_TOKENS: u64 = 16;

/// The fields that have no equivalent at all.
pub fn judge(context: &mut Context<'_>) -> Result<(), ApiError> {
    let request = context.request;
    if request.n.is_some_and(|n| n > 1) {
        return Err(ApiError::unsupported_value(
            "n",
            "this model gives one answer at a time",
        ));
    }
    if request.modalities.iter().any(|kind| kind == "audio") {
        return Err(ApiError::unsupported_value(
            "modalities",
            "audio output is not supported by this model",
        ));
    }
    if request.audio.is_some() {
        return Err(ApiError::unsupported_parameter(
            "audio",
            "audio output is not supported by this model",
        ));
    }
    let nonzero = |penalty: Option<f64>| penalty.is_some_and(|value| value != 0.0);
    let warnings = [
        (
            "modalities",
            request.modalities.iter().any(|kind| kind != "text"),
        ),
        ("stop", !request.stop.is_empty()),
        ("logit_bias", request.logit_bias.is_some()),
        ("frequency_penalty", nonzero(request.frequency_penalty)),
        ("presence_penalty", nonzero(request.presence_penalty)),
        ("top_k", request.top_k.is_some()),
        ("thinking", request.thinking.is_some()),
        ("image_config", request.image_config.is_some()),
    ];
    for (field, is_dropped) in warnings {
        if is_dropped {
            context.drop_field(field)?;
        }
    }
    Ok(())
}

pub fn write(context: &mut Context<'_>, model: &str, body: &mut Nest<'_>) -> Result<(), ApiError> {
    let request = context.request;
    write_text(request, body);
    if let Some(effort) = &request.reasoning_effort {
        let mut reasoning = Nest::object(body.key("reasoning"));
        reasoning.string("effort", effort);
        if context.options.responses.summary && effort != "none" {
            reasoning.string("summary", "auto");
        }
        reasoning.end();
    }
    if let Some(limit) = request.max_tokens {
        body.value("max_output_tokens", &limit.max(LEAST_TOKENS));
    }
    if let Some(parallel) = request.parallel_tool_calls {
        body.value("parallel_tool_calls", &parallel);
    }
    let logprobs = write_sampling(context, body)?;
    write_same(request, body);
    let mut include = Vec::new();
    // Only with its seal can reasoning come back in a later request, where nothing is stored.
    let seal = context.options.responses.seal;
    if seal && !context.stored && !capability::never_reasons(model) {
        include.push("reasoning.encrypted_content");
    }
    if logprobs {
        include.push("message.output_text.logprobs");
    }
    if !include.is_empty() {
        body.value("include", &include);
    }
    body.value("store", &context.stored);
    let streams = !context.options.lessons.has(Lesson::NoStream);
    body.value("stream", &streams);
    if streams {
        body.raw("stream_options", r#"{"include_obfuscation":false}"#);
    }
    Ok(())
}

/// `text`: the format of the answer and how long-winded it is.
fn write_text(request: &Request<'_>, body: &mut Nest<'_>) {
    let plain = matches!(request.response_format, ResponseFormat::Text);
    if plain && request.verbosity.is_none() {
        return;
    }
    let mut text = Nest::object(body.key("text"));
    match &request.response_format {
        ResponseFormat::Text => {}
        ResponseFormat::JsonObject => text.raw("format", r#"{"type":"json_object"}"#),
        ResponseFormat::JsonSchema {
            name,
            schema,
            description,
            strict,
        } => {
            let mut format = Nest::object(text.key("format"));
            format.string("type", "json_schema");
            format.string("name", name);
            let schema = schema.map_or("{}", RawValue::get);
            format.raw("schema", &compact(schema));
            format.value("strict", strict);
            if let Some(description) = description {
                format.string("description", description);
            }
            format.end();
        }
    }
    if let Some(verbosity) = &request.verbosity {
        text.string("verbosity", verbosity);
    }
    text.end();
}

/// What chooses among tokens, where the model lets it; whether log probabilities are asked for.
fn write_sampling(context: &mut Context<'_>, body: &mut Nest<'_>) -> Result<bool, ApiError> {
    let request = context.request;
    let samples = context.model.samples(request.reasoning_effort.as_deref());
    for (key, number) in [
        ("temperature", request.temperature),
        ("top_p", request.top_p),
    ] {
        match number {
            Some(number) if samples => body.value(key, &number),
            // What the models do unasked need not be asked for.
            Some(number) if number != 1.0 => context.drop_field(key)?,
            _ => {}
        }
    }
    if !request.logprobs {
        return Ok(false);
    }
    if !samples {
        context.drop_field("logprobs")?;
        return Ok(false);
    }
    if let Some(count) = request.top_logprobs {
        body.value("top_logprobs", &count);
    }
    Ok(true)
}

/// The fields that have the same name and the same meaning.
fn write_same(request: &Request<'_>, body: &mut Nest<'_>) {
    for (key, text) in [
        ("user", &request.user),
        ("safety_identifier", &request.safety_identifier),
        ("service_tier", &request.service_tier),
        ("prompt_cache_key", &request.prompt_cache_key),
        ("prompt_cache_retention", &request.prompt_cache_retention),
    ] {
        if let Some(text) = text {
            body.string(key, text);
        }
    }
    for (key, raw) in [
        ("metadata", request.metadata),
        ("prompt_cache_options", request.prompt_cache_options),
        ("moderation", request.moderation),
    ] {
        if let Some(raw) = raw {
            body.raw(key, &compact(raw.get()));
        }
    }
}
