//! A chat request -> the body and the path of `streamGenerateContent`.

use std::sync::Arc;

use log::debug;

use super::contents::Contents;
use super::context::Context;
use super::tools;
use super::write::Nest;
use super::{generation, merge};
use crate::chat::{Request, ResponseFormat};
use crate::error::ApiError;
use crate::provider::unfold::Budget;
use crate::provider::{Encoded, Options, Undo};

pub fn encode(request: &Request<'_>, model: &str, options: &Options) -> Result<Encoded, ApiError> {
    let mut context = Context {
        request,
        model: options.gemini(model),
        options,
        budget: Budget::new(options.schema_nodes),
        dropped: Vec::new(),
    };
    tools::check_count(request)?;
    let mut names = tools::names(request, &context.model);
    let hint = format_hint(&mut context)?;
    let mut body = Vec::with_capacity(capacity(request));
    let mut fields = Nest::object(&mut body);
    Contents::new(&mut context, &mut names).write(hint.as_deref(), &mut fields)?;
    tools::write(&context, &names, &mut fields)?;
    if let Some(settings) = &options.gemini.safety_settings {
        fields.raw("safetySettings", &super::compact(settings));
    }
    generation::write(&mut context, hint.is_some(), &mut fields)?;
    if let Some(tier) = request.service_tier.as_deref().and_then(tier) {
        fields.string("serviceTier", tier);
    }
    fields.end();
    drop_the_rest(&mut context)?;
    if let Some(extra) = request.extra_body {
        body = merge::merge_extra(body, extra)?;
    }
    let custom = request.tools.iter().filter_map(|tool| match tool {
        crate::chat::Tool::Custom { name, .. } => Some(name.to_string()),
        _ => None,
    });
    Ok(Encoded {
        path: path(model),
        body,
        undo: Arc::new(Undo {
            custom: custom.collect(),
            strip_fence: hint.is_some(),
            wants_tier: request.service_tier.is_some(),
            max_tokens: request.max_tokens,
            names: names.changed(),
            ..Undo::default()
        }),
        dropped: context.dropped,
        whole: false,
        lane: None,
    })
}

/// The address of the model's stream.
fn path(model: &str) -> String {
    address(model) + ":streamGenerateContent?alt=sse"
}

/// The address of the model. Slashes pass only in names of tuned models.
pub fn address(model: &str) -> String {
    let (folder, name) = match model.strip_prefix("tunedModels/") {
        Some(name) => ("tunedModels", name),
        None => ("models", model.strip_prefix("models/").unwrap_or(model)),
    };
    let mut path = format!("/v1beta/{folder}/");
    for byte in name.bytes() {
        let plain = byte.is_ascii_alphanumeric()
            || matches!(byte, b'.' | b'_' | b'~' | b'-')
            || (byte == b'/' && folder == "tunedModels");
        if plain {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
    }
    path
}

fn tier(asked: &str) -> Option<&'static str> {
    match asked {
        "default" => Some("standard"),
        "flex" => Some("flex"),
        "priority" | "fast" => Some("priority"),
        _ => None,
    }
}

/// Before generation 3 the vendor does not take a response format beside function tools, so JSON
/// is asked for in words.
fn format_hint(context: &mut Context<'_>) -> Result<Option<String>, ApiError> {
    let request = context.request;
    if context.model.third || !tools::has_functions(request) {
        return Ok(None);
    }
    let hint = match &request.response_format {
        ResponseFormat::Text => return Ok(None),
        ResponseFormat::JsonSchema {
            schema: Some(schema),
            ..
        } => format!(
            "Respond with a single JSON object that matches this JSON Schema and nothing else:\n{}",
            super::compact(schema.get())
        ),
        _ => "Respond with a single JSON object and nothing else.".into(),
    };
    context.drop_field("response_format")?;
    Ok(Some(hint))
}

/// Fields that nothing above has looked at and that would have changed the answer.
fn drop_the_rest(context: &mut Context<'_>) -> Result<(), ApiError> {
    let request = context.request;
    if request.logit_bias.is_some() {
        context.drop_field("logit_bias")?;
    }
    if request.verbosity.is_some() {
        context.drop_field("verbosity")?;
    }
    if request.moderation.is_some() {
        context.drop_field("moderation")?;
    }
    if request.parallel_tool_calls == Some(false) && !request.tools.is_empty() {
        context.drop_field("parallel_tool_calls")?;
    }
    for name in &request.unknown {
        debug!("gemini: unknown field {name:?} is ignored");
    }
    Ok(())
}

/// A first guess at the size of the body: the texts, and room for what stands around them.
fn capacity(request: &Request<'_>) -> usize {
    let texts: usize = request
        .messages
        .iter()
        .flat_map(|message| &message.content)
        .map(|part| match &part.kind {
            crate::chat::PartKind::Text(text) => text.len() + 32,
            crate::chat::PartKind::Image { url, .. } => url.len() + 64,
            crate::chat::PartKind::File { data, .. } => data.as_ref().map_or(64, |d| d.len() + 64),
            crate::chat::PartKind::Audio { data, .. } => data.len() + 64,
            crate::chat::PartKind::Refusal(text) => text.len() + 32,
        })
        .sum();
    texts + texts / 8 + 1024
}

#[cfg(test)]
mod tests {
    use super::path;

    #[test]
    fn model_names_are_encoded_in_the_path() {
        let check = |model, expected: &str| {
            assert_eq!(
                path(model),
                format!("/v1beta/{expected}:streamGenerateContent?alt=sse")
            );
        };
        check("gemini-2.5-pro", "models/gemini-2.5-pro");
        check("models/gemini-2.5-pro", "models/gemini-2.5-pro");
        check("tunedModels/a/b c", "tunedModels/a/b%20c");
        check("../x?y:z", "models/..%2Fx%3Fy%3Az");
        check("\u{fc}", "models/%C3%BC");
    }
}
