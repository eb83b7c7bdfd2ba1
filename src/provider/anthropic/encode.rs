//! A chat request -> the body of `POST /v1/messages`.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::block::{Block, Body};
use super::dropped::Dropped;
use super::fields;
use super::format::Format;
use super::merge::merge;
use super::messages::{self, History};
use super::strictness::Strictness;
use super::thinking::Plan;
use super::tools::Tools;
use crate::capability::Claude;
use crate::chat::{Request, Role};
use crate::error::ApiError;
use crate::json::Fields;
use crate::provider::unfold::Budget;
use crate::provider::{Encoded, Options, Undo};

/// The provider takes so many cache marks in one request.
const MARKS: usize = 4;

pub fn encode(
    request: &Request<'_>,
    model: &str,
    options: &Options,
    claude: &Claude,
) -> Result<Encoded, ApiError> {
    let switches = &options.anthropic;
    let mut dropped = Dropped::new(options.strict);
    fields::judge(request, &mut dropped)?;
    let budget = Budget::new(options.schema_nodes);
    let mut strictness = Strictness::default();
    let mut tools = Tools::new(
        request,
        claude,
        switches,
        &budget,
        &mut strictness,
        &mut dropped,
    )?;
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
    let enforced = claude.structured_outputs && !switches.format_in_words;
    let format = Format::new(request, enforced, &budget, &mut strictness, &mut dropped)?;
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
    fields::write_sampling(&mut body, request, options, claude, plan.runs, &mut dropped)?;
    fields::write_small(&mut body, request, claude, &mut dropped)?;
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
    let dropped = dropped.into_names();
    if !dropped.is_empty() {
        log::debug!("dropped for {model}: {}", dropped.join(", "));
    }
    if !request.unknown.is_empty() {
        log::debug!("unknown to {model}: {}", request.unknown.join(", "));
    }
    Ok(Encoded {
        path: "/v1/messages".into(),
        body: bytes,
        dropped,
        whole: false,
        lane: fields::is_fast(request, claude).then_some("fast"),
        undo: Arc::new(Undo {
            names: tools.names.changed(),
            custom: tools.custom,
            strip_fence: format.strip_fence,
            wants_tier: request.service_tier.is_some(),
            // The caller's own fields may bring tools along.
            keep_blocks: tools.server_tools || own.is_some(),
            ..Undo::default()
        }),
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capability;

    fn body(request: &Request<'_>, claude: &Claude) -> String {
        let encoded = encode(request, "m", &Options::default(), claude).unwrap();
        assert_eq!(encoded.path, "/v1/messages");
        String::from_utf8(encoded.body).unwrap()
    }

    #[test]
    fn the_fast_tier_is_a_speed_where_the_model_has_it() {
        let request = Request {
            service_tier: Some("fast".into()),
            ..Request::default()
        };
        let claude = capability::claude("claude-opus-5");
        assert!(!body(&request, &claude).contains("speed"));
        let claude = capability::claude("claude-opus-5-5");
        assert!(body(&request, &claude).contains(r#","speed":"fast","#));
    }

    #[test]
    fn every_warning_is_a_refusal_where_the_configuration_is_strict() {
        let options = Options {
            strict: true,
            ..Options::default()
        };
        let claude = capability::claude("claude-opus-5-5");
        let requests = [
            Request {
                logprobs: true,
                ..Request::default()
            },
            Request {
                top_p: Some(0.5),
                ..Request::default()
            },
            Request {
                service_tier: Some("flex".into()),
                ..Request::default()
            },
            Request {
                reasoning_effort: Some("none".into()),
                ..Request::default()
            },
        ];
        for (request, field) in
            requests
                .iter()
                .zip(["logprobs", "top_p", "service_tier", "reasoning_effort"])
        {
            let error = encode(request, "m", &options, &claude).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(field));
            assert_eq!(error.code.as_deref(), Some("unsupported_parameter"));
        }
    }

    /// The text of the request with so many strict tools of these properties.
    fn strict_tools(count: usize, properties: usize, of: &str, required: bool) -> String {
        let names: Vec<String> = (0..properties).map(|at| format!("\"p{at}\"")).collect();
        let members: Vec<String> = names.iter().map(|name| format!("{name}:{of}")).collect();
        let required = if required {
            names.join(",")
        } else {
            String::new()
        };
        let parameters = format!(
            r#"{{"type":"object","properties":{{{}}},"required":[{required}],"additionalProperties":false}}"#,
            members.join(",")
        );
        let tools: Vec<String> = (0..count)
            .map(|at| format!(r#"{{"type":"function","function":{{"name":"f{at}","strict":true,"parameters":{parameters}}}}}"#))
            .collect();
        format!(
            r#"{{"model":"m","messages":[{{"role":"user","content":"a"}}],"tools":[{}]}}"#,
            tools.join(",")
        )
    }

    #[test]
    fn no_more_is_enforced_than_the_provider_can() {
        use crate::dialect::openai::Head;
        let claude = capability::claude("claude-opus-5-5");
        let text = r#"{"type":"string"}"#;
        let nullable = r#"{"type":["string","null"]}"#;
        for (tools, properties, of, required, strict) in [
            (20, 1, text, true, 20),
            (21, 1, text, true, 20),
            (1, 24, text, false, 1),
            (1, 25, text, false, 0),
            (3, 12, text, false, 2),
            (1, 16, nullable, true, 1),
            (1, 17, nullable, true, 0),
        ] {
            let what = format!("{tools} tools of {properties} {of}");
            let body = strict_tools(tools, properties, of, required);
            let head = Head::read(body.as_bytes()).unwrap();
            let request = head.parse().unwrap();
            let encoded = encode(&request, "m", &Options::default(), &claude).unwrap();
            let sent = String::from_utf8(encoded.body).unwrap();
            assert_eq!(
                sent.matches("\"strict\":true").count(),
                strict,
                "{what}: {sent}"
            );
            assert_eq!(sent.matches("\"input_schema\"").count(), tools, "{what}");
            let dropped: &[&str] = if strict == tools {
                &[]
            } else {
                &["tools.strict"]
            };
            assert_eq!(encoded.dropped, dropped, "{what}");
            let options = Options {
                strict: true,
                ..Options::default()
            };
            let outcome = encode(&request, "m", &options, &claude);
            assert_eq!(outcome.is_ok(), strict == tools, "{what}");
        }
    }
}
