//! The small fields at the top of a request, and those that have no equivalent.

use super::block::Body;
use super::dropped::Dropped;
use crate::capability::Claude;
use crate::chat::Request;
use crate::error::ApiError;
use crate::provider::Options;

/// The version that still takes sampling parameters.
const SAMPLING_VERSION: &str = "2023-06-01";

/// The fields that have no equivalent at all.
pub fn judge(request: &Request<'_>, dropped: &mut Dropped) -> Result<(), ApiError> {
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
pub fn write_sampling(
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
pub fn write_small(
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
        Some(_) if is_fast(request, claude) => body.member("speed", "fast"),
        Some(_) => dropped.warn("service_tier")?,
    }
    Ok(())
}

/// The request goes out as a fast one, for which the provider has limits of its own.
pub fn is_fast(request: &Request<'_>, claude: &Claude) -> bool {
    claude.fast && request.service_tier.as_deref() == Some("fast")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_name_a_person_stay_here() {
        for (id, anonymous) in [
            ("u-1", true),
            ("5f2b", true),
            ("a@b.example", false),
            ("@handle", true),
            ("+1 (555) 010-0100", false),
            ("0301234567", false),
            ("123456", true),
            ("1234567890123456", true),
            ("", false),
        ] {
            assert_eq!(is_anonymous(id), anonymous, "{id}");
        }
        assert!(is_anonymous(&"\u{fc}".repeat(256)) && !is_anonymous(&"x".repeat(257)));
    }
}
