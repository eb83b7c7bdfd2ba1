//! A chat request -> the body of `POST /v1/messages`.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::block::{Block, Body, push_compact};
use super::merge::merge;
use super::messages::{self, History};
use super::thinking::Plan;
use super::tools::Tools;
use crate::capability::Claude;
use crate::chat::{Request, ResponseFormat, Role};
use crate::error::ApiError;
use crate::json::Fields;
use crate::provider::{Encoded, Options, Undo};
use crate::schema;

/// The provider takes so many cache marks in one request.
const MARKS: usize = 4;

/// The version that still takes sampling parameters.
const SAMPLING_VERSION: &str = "2023-06-01";

const JSON_ONLY: &str = "Respond with a single JSON object and nothing else.";

/// The schema follows.
const BY_SCHEMA: &str =
    "Respond with a single JSON value that conforms to this JSON Schema and nothing else:\n";

/// Names of fields that were dropped with a warning.
#[derive(Debug)]
pub struct Dropped {
    strict: bool,
    names: Vec<String>,
}

impl Dropped {
    /// Notes that `field` is left out. Strict configurations refuse the request instead.
    pub fn warn(&mut self, field: &str) -> Result<(), ApiError> {
        if self.strict {
            return Err(ApiError::unsupported_parameter(
                field,
                format!("{field} cannot be honoured by this model"),
            ));
        }
        if !self.names.iter().any(|name| name == field) {
            self.names.push(field.to_owned());
        }
        Ok(())
    }
}

pub fn encode(
    request: &Request<'_>,
    model: &str,
    options: &Options,
    claude: &Claude,
) -> Result<Encoded, ApiError> {
    let switches = &options.anthropic;
    let mut dropped = Dropped {
        strict: options.strict,
        names: Vec::new(),
    };
    judge_fields(request, &mut dropped)?;
    let mut tools = Tools::new(request, claude, switches, &mut dropped)?;
    let mut plan = Plan::new(request, claude, switches, tools.is_forced(), &mut dropped)?;
    let mut history = messages::arrange(
        &request.messages,
        claude,
        switches,
        plan.runs,
        &mut tools.names,
        &mut dropped,
    )?;
    if plan.has_budget() && (history.prefill || history.is_unthinking_loop()) {
        plan.drop_thinking(claude, &mut dropped)?;
        if !plan.runs {
            history.forget_thinking();
        }
    }
    let format = Format::new(request, claude, &mut dropped)?;
    if let Some(text) = &format.instruction {
        history.system.push(Block::text(text.as_str()));
    }

    let mut body = Body::default();
    body.bytes.reserve(size_hint(request));
    body.raw("{\"model\":");
    body.string(model);
    body.raw(&format!(
        ",\"max_tokens\":{},\"stream\":true",
        plan.max_tokens
    ));
    write_sampling(&mut body, request, options, claude, plan.runs, &mut dropped)?;
    write_small_fields(&mut body, request, claude, &mut dropped)?;
    if let Some(thinking) = &plan.thinking {
        body.raw(",\"thinking\":");
        thinking.write(&mut body, switches.display);
    }
    write_output_config(&mut body, plan.effort, format.schema.as_deref());
    let auto_cache = switches.auto_cache && !is_explicit(request.prompt_cache_options);
    if auto_cache {
        body.raw(r#","cache_control":{"type":"ephemeral"}"#);
    }
    write_history(&mut body, &history, &tools, MARKS - usize::from(auto_cache));
    body.raw("}");

    let own = request.extra_body.and_then(own_extra);
    let bytes = match own {
        Some(over) => merge(body.bytes, over),
        None => body.bytes,
    };
    if !dropped.names.is_empty() {
        log::debug!("dropped for {model}: {}", dropped.names.join(", "));
    }
    if !request.unknown.is_empty() {
        log::debug!("unknown to {model}: {}", request.unknown.join(", "));
    }
    Ok(Encoded {
        path: "/v1/messages".into(),
        body: bytes,
        dropped: dropped.names,
        undo: Arc::new(Undo {
            names: tools.names.changed(),
            custom: tools.custom,
            strip_fence: format.strip_fence,
            wants_tier: request.service_tier.is_some(),
            // The caller's own fields may bring tools along.
            keep_blocks: tools.server_tools || own.is_some(),
        }),
    })
}

/// The fields that have no equivalent at all.
fn judge_fields(request: &Request<'_>, dropped: &mut Dropped) -> Result<(), ApiError> {
    let refuse = |field: &str, why: &str| Err(ApiError::unsupported_parameter(field, why));
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
        return refuse("audio", "audio output is not supported by this model");
    }
    let warnings = [
        (
            "modalities",
            request.modalities.iter().any(|kind| kind != "text"),
        ),
        ("logprobs", request.logprobs),
        (
            "frequency_penalty",
            request.frequency_penalty.is_some_and(|value| value != 0.0),
        ),
        (
            "presence_penalty",
            request.presence_penalty.is_some_and(|value| value != 0.0),
        ),
        ("logit_bias", request.logit_bias.is_some()),
        ("moderation", request.moderation.is_some()),
        ("verbosity", request.verbosity.is_some()),
    ];
    for (field, is_dropped) in warnings {
        if is_dropped {
            dropped.warn(field)?;
        }
    }
    Ok(())
}

/// temperature, top_p and top_k, where model, version and thinking admit them.
fn write_sampling(
    body: &mut Body,
    request: &Request<'_>,
    options: &Options,
    claude: &Claude,
    thinks: bool,
    dropped: &mut Dropped,
) -> Result<(), ApiError> {
    let admitted = claude.sampling && options.anthropic_version == SAMPLING_VERSION;
    // What the models do unasked need not be asked for.
    let is_default = |value: f64| value == 1.0;
    let mut has_temperature = false;
    if let Some(temperature) = request.temperature {
        if admitted && !thinks {
            has_temperature = true;
            write_number(body, "temperature", temperature.clamp(0.0, 1.0));
        } else if !is_default(temperature) {
            dropped.warn("temperature")?;
        }
    }
    if let Some(top_p) = request.top_p {
        let with_temperature = !has_temperature || claude.both_samplings;
        let with_thinking = !thinks || (0.95..=1.0).contains(&top_p);
        if admitted && with_temperature && with_thinking {
            write_number(body, "top_p", top_p);
        } else if !is_default(top_p) {
            dropped.warn("top_p")?;
        }
    }
    if let Some(top_k) = request.top_k {
        if admitted && !thinks {
            body.raw(&format!(",\"top_k\":{top_k}"));
        } else {
            dropped.warn("top_k")?;
        }
    }
    Ok(())
}

fn write_number(body: &mut Body, key: &str, number: f64) {
    body.raw(&format!(",\"{key}\":"));
    serde_json::to_writer(&mut body.bytes, &number).expect("writing to memory does not fail");
}

/// Stop sequences, the user's id, the service tier.
fn write_small_fields(
    body: &mut Body,
    request: &Request<'_>,
    claude: &Claude,
    dropped: &mut Dropped,
) -> Result<(), ApiError> {
    let mut stops = request
        .stop
        .iter()
        .filter(|text| !text.trim().is_empty())
        .peekable();
    if stops.peek().is_some() {
        body.raw(",\"stop_sequences\":");
        body.list(stops, |body, text| body.string(text));
    }
    let user = [&request.safety_identifier, &request.user]
        .into_iter()
        .flatten()
        .find(|id| is_anonymous(id));
    if let Some(user) = user {
        body.raw(",\"metadata\":{\"user_id\":");
        body.string(user);
        body.raw("}");
    }
    match request.service_tier.as_deref() {
        None => {}
        Some("auto" | "priority" | "scale") => body.member("service_tier", "auto"),
        Some("default") => body.member("service_tier", "standard_only"),
        Some("fast") if claude.fast => body.member("speed", "fast"),
        Some(_) => dropped.warn("service_tier")?,
    }
    Ok(())
}

/// An id that the provider takes: no mail address, no telephone number, not too long.
fn is_anonymous(id: &str) -> bool {
    const LIMIT: usize = 256;
    let is_mail = id
        .split_once('@')
        .is_some_and(|(name, host)| !name.is_empty() && !host.is_empty());
    let digits = id.bytes().filter(u8::is_ascii_digit).count();
    let is_phone = (7..=15).contains(&digits)
        && id
            .bytes()
            .all(|byte| byte.is_ascii_digit() || b"+-(). /".contains(&byte));
    !id.is_empty() && id.chars().count() <= LIMIT && !is_mail && !is_phone
}

fn write_output_config(body: &mut Body, effort: Option<&str>, schema: Option<&str>) {
    if effort.is_none() && schema.is_none() {
        return;
    }
    body.raw(",\"output_config\":{");
    if let Some(effort) = effort {
        body.raw("\"effort\":");
        body.string(effort);
    }
    if let Some(schema) = schema {
        if effort.is_some() {
            body.raw(",");
        }
        body.raw(r#""format":{"type":"json_schema","schema":"#);
        body.raw(schema);
        body.raw("}");
    }
    body.raw("}");
}

/// System, tools and messages. Of more than `marks` cache marks the last ones count; the provider
/// reads tools first, then the system text, then the messages.
fn write_history(body: &mut Body, history: &History<'_>, tools: &Tools<'_>, marks: usize) {
    let marked = |blocks: &[Block<'_>]| blocks.iter().filter(|b| b.mark.is_some()).count();
    let in_tools = tools.marks();
    let in_system = marked(&history.system);
    let in_messages: usize = history.turns.iter().map(|turn| marked(&turn.blocks)).sum();
    let too_many = (in_tools + in_system + in_messages).saturating_sub(marks);

    if !history.system.is_empty() {
        body.skip_marks = too_many.saturating_sub(in_tools);
        body.raw(",\"system\":");
        body.blocks(&history.system);
    }
    body.skip_marks = too_many;
    tools.write(body, history.has_tool_blocks());
    body.skip_marks = too_many.saturating_sub(in_tools + in_system);
    body.raw(",\"messages\":");
    body.list(&history.turns, |body, turn| {
        body.raw(match turn.role {
            Role::Assistant => r#"{"role":"assistant","content":"#,
            Role::System => r#"{"role":"system","content":"#,
            Role::User | Role::Tool => r#"{"role":"user","content":"#,
        });
        body.blocks(&turn.blocks);
        body.raw("}");
    });
    body.skip_marks = 0;
}

/// How the answer is brought into the form that was asked for.
#[derive(Default)]
struct Format {
    schema: Option<String>,
    /// Said in words, at the end of the system text.
    instruction: Option<String>,
    strip_fence: bool,
}

impl Format {
    fn new(
        request: &Request<'_>,
        claude: &Claude,
        dropped: &mut Dropped,
    ) -> Result<Format, ApiError> {
        let in_words = |text: String| Format {
            schema: None,
            instruction: Some(text),
            strip_fence: true,
        };
        Ok(match &request.response_format {
            ResponseFormat::Text => Format::default(),
            ResponseFormat::JsonObject | ResponseFormat::JsonSchema { schema: None, .. } => {
                in_words(JSON_ONLY.into())
            }
            ResponseFormat::JsonSchema {
                schema: Some(raw), ..
            } => {
                let closed = claude
                    .structured_outputs
                    .then(|| schema::anthropic_strict(raw))
                    .flatten();
                if closed.is_some() {
                    Format {
                        schema: closed,
                        ..Format::default()
                    }
                } else {
                    dropped.warn("response_format")?;
                    let mut text = BY_SCHEMA.as_bytes().to_vec();
                    push_compact(&mut text, raw.get());
                    in_words(String::from_utf8(text).unwrap_or_else(|_| JSON_ONLY.into()))
                }
            }
        })
    }
}

/// The caller places its cache marks itself.
fn is_explicit(options: Option<&RawValue>) -> bool {
    options
        .and_then(|raw| serde_json::from_str::<Fields>(raw.get()).ok())
        .and_then(|fields| fields.get("mode"))
        .is_some_and(|mode| mode.get() == "\"explicit\"")
}

/// `extra_body.anthropic`, if it is an object.
fn own_extra<'r>(extra: &'r RawValue) -> Option<&'r RawValue> {
    let fields: Fields<'r> = serde_json::from_str(extra.get()).ok()?;
    fields
        .get("anthropic")
        .filter(|raw| raw.get().starts_with('{'))
}

/// Enough for most bodies, so that the buffer is not moved while it grows.
fn size_hint(request: &Request<'_>) -> usize {
    let content: usize = request
        .messages
        .iter()
        .map(|message| {
            let parts: usize = message.content.iter().map(part_size).sum();
            let calls: usize = message
                .tool_calls
                .iter()
                .map(|call| call.arguments.len())
                .sum();
            let thoughts = message.thinking_blocks.map_or(0, |raw| raw.get().len());
            parts + calls + thoughts + 128
        })
        .sum();
    content + content / 16 + 1024
}

fn part_size(part: &crate::chat::Part<'_>) -> usize {
    use crate::chat::PartKind;
    match &part.kind {
        PartKind::Text(text) | PartKind::Refusal(text) => text.len(),
        PartKind::Image { url, .. } => url.len(),
        PartKind::Audio { data, .. } => data.len(),
        PartKind::File { data, .. } => data.as_deref().map_or(0, str::len),
    }
}
