//! A chat request -> the body of `/responses`.

use std::sync::Arc;

use log::debug;
use serde_json::value::RawValue;

use super::context::Context;
use super::{fields, items, tools};
use crate::capability;
use crate::chat::{Message, PartKind, Request, ResponseFormat};
use crate::error::ApiError;
use crate::json::Fields;
use crate::lesson::Lesson;
use crate::provider::anthropic::merge::merge;
use crate::provider::gemini::write::Nest;
use crate::provider::{Encoded, Options, Undo};

pub fn encode(request: &Request<'_>, model: &str, options: &Options) -> Result<Encoded, ApiError> {
    let mut context = Context {
        request,
        model: capability::openai(model),
        options,
        // Kept answers are the default there, and not here.
        stored: request.store == Some(true),
        dropped: Vec::new(),
        names: tools::names(request),
    };
    fields::judge(&mut context)?;
    let mut body = Vec::with_capacity(size_hint(request));
    let mut object = Nest::object(&mut body);
    object.string("model", model);
    items::write(&mut context, &mut object)?;
    tools::write(&context, &mut object);
    fields::write(&mut context, model, &mut object)?;
    object.end();
    if let Some(own) = request.extra_body.map(own_extra).transpose()?.flatten() {
        body = merge(body, own);
    }
    for name in &request.unknown {
        debug!("responses: unknown field {name:?} is ignored");
    }
    Ok(Encoded {
        path: "/responses".into(),
        body,
        undo: Arc::new(Undo {
            wants_tier: request.service_tier.is_some(),
            final_only: !matches!(request.response_format, ResponseFormat::Text),
            names: context.names.changed(),
            ..Undo::default()
        }),
        dropped: context.dropped,
        whole: options.lessons.has(Lesson::NoStream),
        lane: None,
    })
}

/// `extra_body.openai`, the caller's own fields for this provider.
fn own_extra(extra: &RawValue) -> Result<Option<&RawValue>, ApiError> {
    let fields: Fields<'_> = serde_json::from_str(extra.get())
        .map_err(|_| ApiError::invalid("extra_body", "extra_body must be an object"))?;
    match fields.get("openai") {
        Some(own) if !own.get().starts_with('{') => Err(ApiError::invalid(
            "extra_body.openai",
            "extra_body.openai must be an object",
        )),
        own => Ok(own),
    }
}

/// Enough for most bodies, so that the buffer is not moved while it grows.
fn size_hint(request: &Request<'_>) -> usize {
    let content: usize = request.messages.iter().map(message_size).sum();
    content + content / 16 + 2048
}

fn message_size(message: &Message<'_>) -> usize {
    let parts = message.content.iter().map(|part| match &part.kind {
        PartKind::Text(text) | PartKind::Refusal(text) => text.len(),
        PartKind::Image { url, .. } => url.len(),
        PartKind::Audio { .. } => 0,
        PartKind::File { data, .. } => data.as_deref().map_or(0, str::len),
    });
    let calls = message.tool_calls.iter().map(|call| call.arguments.len());
    let reasoning = message.reasoning_items.map_or(0, |raw| raw.get().len());
    parts.sum::<usize>() + calls.sum::<usize>() + reasoning + 128
}
