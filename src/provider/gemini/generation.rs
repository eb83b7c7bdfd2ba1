//! `generationConfig`: sampling, limits, thinking, and the shape of the answer.

use serde_json::value::RawValue;

use super::context::Context;
use super::schema;
use super::write::Nest;
use crate::capability::GeminiThinking;
use crate::chat::ResponseFormat;
use crate::error::ApiError;
use crate::json::{Fields, push_string};

/// The vendor's limit of stop sequences.
const MOST_STOPS: usize = 5;

/// Writes the object, unless it would be empty. `hinted`: JSON was asked for in words instead.
pub fn write(context: &mut Context<'_>, hinted: bool, body: &mut Nest<'_>) -> Result<(), ApiError> {
    let mut bytes = Vec::new();
    let mut config = Nest::object(&mut bytes);
    limits_and_sampling(context, &mut config)?;
    modalities(context, &mut config)?;
    thinking(context, &mut config)?;
    if !hinted {
        response_format(context, &mut config)?;
    }
    let empty = config.is_empty();
    config.end();
    if !empty {
        body.key("generationConfig").extend_from_slice(&bytes);
    }
    Ok(())
}

fn limits_and_sampling(context: &mut Context<'_>, config: &mut Nest<'_>) -> Result<(), ApiError> {
    let request = context.request;
    let model = context.model;
    if let Some(limit) = request.max_tokens {
        config.value("maxOutputTokens", &limit);
    }
    if let Some(temperature) = request.temperature {
        match model.sampling {
            true => config.value("temperature", &temperature.clamp(0.0, 2.0)),
            false => context.drop_field("temperature")?,
        }
    }
    if let Some(top_p) = request.top_p {
        match model.sampling {
            true => config.value("topP", &top_p),
            false => context.drop_field("top_p")?,
        }
    }
    if let Some(top_k) = request.top_k {
        match model.sampling {
            true => config.value("topK", &top_k),
            false => context.drop_field("top_k")?,
        }
    }
    let stops: Vec<&str> = request
        .stop
        .iter()
        .map(|s| &**s)
        .filter(|s| !s.is_empty())
        .collect();
    if !stops.is_empty() {
        config.value("stopSequences", &&stops[..stops.len().min(MOST_STOPS)]);
    }
    if stops.len() > MOST_STOPS {
        context.drop_field("stop")?;
    }
    if let Some(n) = request.n.filter(|&n| n > 1) {
        config.value("candidateCount", &n);
    }
    if let Some(seed) = request.seed {
        let seed = i32::try_from(seed).map_or(seed & 0x7fff_ffff, i64::from);
        config.value("seed", &seed);
    }
    let penalties = [
        (
            "frequency_penalty",
            "frequencyPenalty",
            request.frequency_penalty,
        ),
        (
            "presence_penalty",
            "presencePenalty",
            request.presence_penalty,
        ),
    ];
    for (field, name, value) in penalties {
        match value {
            Some(value) if model.penalties => config.value(name, &value),
            // Zero is what happens without the field too.
            Some(value) if value != 0.0 => context.drop_field(field)?,
            _ => {}
        }
    }
    if request.logprobs {
        config.value("responseLogprobs", &true);
        if let Some(top) = request.top_logprobs {
            config.value("logprobs", &top);
        }
    }
    Ok(())
}

fn modalities(context: &mut Context<'_>, config: &mut Nest<'_>) -> Result<(), ApiError> {
    let request = context.request;
    let model = context.model;
    for modality in &request.modalities {
        let able = match &**modality {
            "text" => true,
            "image" => model.image_output,
            "audio" => model.audio_output,
            _ => false,
        };
        if !able {
            return Err(ApiError::unsupported_value(
                "modalities",
                format!("this model does not answer with {modality:?}"),
            ));
        }
    }
    if request.modalities.iter().any(|modality| modality != "text") {
        let names: Vec<_> = request
            .modalities
            .iter()
            .map(|m| m.to_ascii_uppercase())
            .collect();
        config.value("responseModalities", &names);
    }
    if let Some(raw) = request.image_config {
        match model.image_output {
            true => image_config(raw, config)?,
            false => context.drop_field("image_config")?,
        }
    }
    if let Some(raw) = request.audio {
        let mapped = voice(raw).and_then(|voice| {
            let known = context
                .options
                .gemini
                .voices
                .iter()
                .find(|(theirs, _)| *theirs == voice);
            known.map(|(_, name)| name)
        });
        let Some(name) = mapped.filter(|_| model.audio_output) else {
            return Err(ApiError::unsupported_parameter(
                "audio",
                "this voice has no counterpart at this provider",
            ));
        };
        let mut speech = Nest::object(config.key("speechConfig"));
        let mut voice = Nest::object(speech.key("voiceConfig"));
        let mut built_in = Nest::object(voice.key("prebuiltVoiceConfig"));
        built_in.string("voiceName", name);
        built_in.end();
        voice.end();
        speech.end();
    }
    Ok(())
}

fn image_config(raw: &RawValue, config: &mut Nest<'_>) -> Result<(), ApiError> {
    let fields: Fields<'_> = serde_json::from_str(raw.get())
        .map_err(|_| ApiError::invalid("image_config", "image_config must be an object"))?;
    let mut bytes = Vec::new();
    let mut image = Nest::object(&mut bytes);
    for (theirs, ours) in [("aspect_ratio", "aspectRatio"), ("image_size", "imageSize")] {
        if let Some(value) = fields.get(theirs) {
            image.raw(ours, &super::compact(value.get()));
        }
    }
    let empty = image.is_empty();
    image.end();
    if !empty {
        config.key("imageConfig").extend_from_slice(&bytes);
    }
    Ok(())
}

/// `audio.voice`: a name, or an object with one in `id`.
fn voice(raw: &RawValue) -> Option<String> {
    let audio: Fields<'_> = serde_json::from_str(raw.get()).ok()?;
    match audio.parse::<String>("voice")? {
        Ok(name) => Some(name),
        Err(_) => audio
            .parse::<Fields<'_>>("voice")?
            .ok()?
            .parse::<String>("id")?
            .ok(),
    }
}

/// How much the model shall think.
enum Effort {
    None,
    Minimal,
    Low,
    Medium,
    High,
    Most,
    /// From the `thinking` extension.
    Budget(u64),
}

fn effort(context: &Context<'_>) -> Result<Option<Effort>, ApiError> {
    if let Some(effort) = context.request.reasoning_effort.as_deref() {
        return match effort {
            "none" => Ok(Some(Effort::None)),
            "minimal" => Ok(Some(Effort::Minimal)),
            "low" => Ok(Some(Effort::Low)),
            "medium" => Ok(Some(Effort::Medium)),
            "high" => Ok(Some(Effort::High)),
            "xhigh" | "max" => Ok(Some(Effort::Most)),
            other => Err(ApiError::unsupported_value(
                "reasoning_effort",
                format!("reasoning_effort {other:?} is not known"),
            )),
        };
    }
    let Some(thinking) = context.request.thinking else {
        return Ok(None);
    };
    let fields: Fields<'_> = serde_json::from_str(thinking.get())
        .map_err(|_| ApiError::invalid("thinking", "thinking must be an object"))?;
    let kind = fields.parse::<String>("type").and_then(Result::ok);
    let budget = fields.parse::<u64>("budget_tokens").and_then(Result::ok);
    Ok(match (kind.as_deref(), budget) {
        (Some("disabled"), _) => Some(Effort::None),
        (_, Some(budget)) => Some(Effort::Budget(budget)),
        // Adaptive, which is what the models do when they are told nothing.
        _ => None,
    })
}

fn thinking(context: &mut Context<'_>, config: &mut Nest<'_>) -> Result<(), ApiError> {
    let Some(effort) = effort(context)? else {
        return Ok(());
    };
    let field = match context.request.reasoning_effort {
        Some(_) => "reasoning_effort",
        None => "thinking",
    };
    let mut include = context.options.gemini.include_thoughts;
    match context.model.thinking {
        GeminiThinking::None => match effort {
            Effort::None => Ok(()),
            _ => context.drop_field(field),
        },
        GeminiThinking::Budget { min, max, off } => {
            let budget = match effort {
                Effort::None => {
                    include = false;
                    if !off {
                        context.drop_field(field)?;
                    }
                    if off { 0 } else { min }
                }
                Effort::Minimal | Effort::Low => 1024,
                Effort::Medium => 8192,
                Effort::High => 24_576,
                Effort::Most => max,
                Effort::Budget(budget) => budget.clamp(min, max),
            };
            let mut thinking = Nest::object(config.key("thinkingConfig"));
            thinking.value("thinkingBudget", &budget);
            if include {
                thinking.value("includeThoughts", &true);
            }
            thinking.end();
            Ok(())
        }
        GeminiThinking::Level(levels) => {
            let wanted = match effort {
                Effort::None if context.model.minimal_is_off => "minimal",
                Effort::None => {
                    context.drop_field(field)?;
                    "minimal"
                }
                Effort::Minimal => "minimal",
                Effort::Low => "low",
                Effort::Medium => "medium",
                Effort::High => "high",
                Effort::Most => "xhigh",
                Effort::Budget(0..2048) => "low",
                Effort::Budget(2048..12_000) => "medium",
                Effort::Budget(_) => "high",
            };
            let level = match wanted {
                known if levels.contains(&known) => known,
                "minimal" => "low",
                "low" => "minimal",
                _ => "high",
            };
            let is_off = context.model.minimal_is_off && level == "minimal";
            let off = is_off || matches!(effort, Effort::None);
            let mut thinking = Nest::object(config.key("thinkingConfig"));
            thinking.string("thinkingLevel", level);
            if off || include {
                thinking.value("includeThoughts", &!off);
            }
            thinking.end();
            Ok(())
        }
    }
}

fn response_format(context: &Context<'_>, config: &mut Nest<'_>) -> Result<(), ApiError> {
    let schema = match &context.request.response_format {
        ResponseFormat::Text => return Ok(()),
        ResponseFormat::JsonObject => None,
        ResponseFormat::JsonSchema { schema, .. } => *schema,
    };
    push_string(config.key("responseMimeType"), "application/json");
    if let Some(schema) = schema {
        let (key, form): (_, schema::Form) = match context.model.old_schema {
            true => ("responseSchema", schema::old_schema),
            false => ("responseJsonSchema", schema::json_schema),
        };
        let written = form(schema, &context.budget).map_err(|_| {
            let param = "response_format.json_schema.schema";
            context.budget.refusal(param.into())
        })?;
        config.raw(key, &written);
    }
    Ok(())
}
