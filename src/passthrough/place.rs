//! Where a request goes that is passed on.

use ureq::http::uri::PathAndQuery;

use super::no_such_route;
use crate::config::{ClientKey, Config, Upstream};
use crate::error::ApiError;
use crate::exchange;
use crate::inbound::Call;
use crate::provider::Format;
use crate::route::{self, Target};
use crate::server::State;

/// The first words of paths that are passed on without being asked to by a header.
const FAMILIES: &[&str] = &[
    "assistants",
    "audio",
    "batches",
    "containers",
    "conversations",
    "decisions",
    "evals",
    "files",
    "fine_tuning",
    "images",
    "moderations",
    "rerank",
    "responses",
    "threads",
    "uploads",
    "vector_stores",
    "videos",
];

/// OpenAI's models that are no chat models: the name patterns of an upstream are about those.
const OTHER_MODELS: &[&str] = &[
    "babbage-*",
    "codex-*",
    "computer-use-*",
    "dall-e-*",
    "davinci-*",
    "ft:*",
    "omni-moderation-*",
    "sora-*",
    "text-embedding-3-*",
    "text-embedding-ada-*",
    "text-moderation-*",
    "tts-*",
    "whisper-*",
];

/// Whether a path is one of those that are passed on.
pub fn is_relayed(call: &Call<'_>) -> bool {
    let named = call.header("x-weir-upstream").is_some();
    is_of_family(&call.path)
        || (named
            && call
                .path
                .strip_prefix("/v1/")
                .is_some_and(|rest| !rest.is_empty()))
}

/// Routes that do what they do with the model of their body, and nothing else.
const OF_MODEL: &[&str] = &[
    "/v1/audio/speech",
    "/v1/audio/transcriptions",
    "/v1/audio/translations",
    "/v1/decisions",
    "/v1/images/edits",
    "/v1/images/generations",
    "/v1/images/variations",
    "/v1/moderations",
    "/v1/rerank",
    "/v1/responses",
    "/v1/responses/compact",
    "/v1/responses/input_tokens",
    "/v1/videos",
];

/// Whether the request is about the model of its body. On all other routes, as those of files and
/// batches, the upstream takes no notice of it.
pub fn acts_on_its_model(call: &Call<'_>) -> bool {
    call.method == tiny_http::Method::Post && OF_MODEL.contains(&call.path.as_str())
}

/// Whether a path is passed on by its first words alone.
pub fn is_of_family(path: &str) -> bool {
    let rest = path.strip_prefix("/v1/").unwrap_or_default();
    FAMILIES.contains(&rest.split('/').next().unwrap_or_default())
}

/// The path behind the base URL, with its query.
pub fn path(call: &Call<'_>) -> Result<String, ApiError> {
    let rest = call.path.strip_prefix("/v1").unwrap_or(&call.path);
    // What a proxy could read as another path does not go out with our key.
    let is_plain = |segment: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:@+,=".contains(&byte);
        !matches!(segment, "" | "." | "..") && segment.bytes().all(plain)
    };
    if !rest.trim_start_matches('/').split('/').all(is_plain) || !rest.starts_with('/') {
        return Err(ApiError::new(404, "there is nothing at this path").with_code("not_found"));
    }
    let path = match call.query.as_str() {
        "" => rest.to_owned(),
        query => format!("{rest}?{query}"),
    };
    if path.len() > LONGEST_PATH {
        let message = format!("path and query are longer than {LONGEST_PATH} bytes");
        return Err(ApiError::new(414, message).with_code("uri_too_long"));
    }
    // Before anybody is asked: some bytes that come in a request line cannot go out in one.
    // (A `#` would end it there.)
    if path.contains('#') || path.parse::<PathAndQuery>().is_err() {
        let message = "the query has characters that must be written as %XX";
        return Err(ApiError::new(400, message).with_code("invalid_url"));
    }
    Ok(path)
}

/// Fits into the line that it is sent in. RFC 9110, section 4.1, asks for 8000.
const LONGEST_PATH: usize = 8 * 1024;

pub fn is_openai(upstream: &Upstream) -> bool {
    matches!(upstream.format, Format::OpenAi | Format::Responses)
}

/// The targets of a model, whatever they speak. The vendor's models for other routes are in no
/// name pattern of chat models.
pub fn of_any_shape(
    state: &State,
    model: &str,
    key: Option<&ClientKey>,
) -> Result<Vec<Target>, ApiError> {
    exchange::targets(state, model, key).or_else(|error| {
        let found = openai_shaped(state, model);
        let is_open = key.is_none_or(|key| key.allows(model));
        match is_open && !found.is_empty() {
            true => Ok(found),
            false => Err(error),
        }
    })
}

/// The OpenAI-shaped targets of a model.
fn openai_shaped(state: &State, model: &str) -> Vec<Target> {
    let config = &state.config;
    let mut targets = state.route(model);
    if targets.is_empty()
        && OTHER_MODELS
            .iter()
            .any(|known| route::matches(known, model))
    {
        let upstreams = config.upstreams.iter().enumerate();
        targets = upstreams
            .filter(|(_, upstream)| is_openai(upstream) && upstream.options.official)
            .map(|(at, _)| Target {
                upstream: at,
                model: model.to_owned(),
            })
            .collect();
    }
    targets.retain(|target| is_openai(&config.upstreams[target.upstream]));
    targets
}

pub fn targets(
    state: &State,
    model: Option<&str>,
    wanted: Option<&str>,
    key: Option<&ClientKey>,
) -> Result<Vec<Target>, ApiError> {
    let config = &state.config;
    if let Some(key) = key.filter(|key| !key.models.is_empty()) {
        match model {
            Some(model) if key.allows(model) => {}
            Some(model) => return Err(missing(model, "is not open to this key")),
            None => {
                let message = "this key is for certain models only, and the request names none";
                return Err(ApiError::new(403, message).with_param("model"));
            }
        }
    }
    if let Some(name) = wanted {
        return by_name(config, name, model);
    }
    if let Some(model) = model {
        let targets = openai_shaped(state, model);
        if !targets.is_empty() {
            return Ok(targets);
        }
        return Err(match route::route(config, model).first() {
            Some(target) => no_such_route(model, config.upstreams[target.upstream].format.name()),
            None => state.no_route(model),
        });
    }
    let shaped = |at: &usize| {
        let upstream = &config.upstreams[*at];
        is_openai(upstream) && !upstream.by_name_only
    };
    let mut shaped = (0..config.upstreams.len()).filter(shaped);
    match (shaped.next(), shaped.next()) {
        (Some(upstream), None) => Ok(vec![Target {
            upstream,
            model: String::new(),
        }]),
        (None, _) => Err(
            ApiError::new(404, "no upstream of this gateway has this route").with_code("not_found"),
        ),
        _ => {
            let message = "say which upstream this is for: by the `model` of the body (in a form, \
                           before the file) or by the header x-weir-upstream";
            Err(ApiError::invalid("model", message))
        }
    }
}

fn by_name(config: &Config, name: &str, model: Option<&str>) -> Result<Vec<Target>, ApiError> {
    let named = config.upstreams.iter().position(|known| known.name == name);
    let Some(upstream) = named else {
        let message = format!("there is no upstream `{name}`");
        return Err(ApiError::new(404, message).with_code("upstream_not_found"));
    };
    if !is_openai(&config.upstreams[upstream]) {
        let format = config.upstreams[upstream].format.name();
        let message =
            format!("the upstream `{name}` speaks the {format} format, which has no such route");
        return Err(ApiError::new(400, message));
    }
    let model = model.unwrap_or_default();
    let own = model.strip_prefix(name);
    let model = own.and_then(|rest| rest.strip_prefix('/')).unwrap_or(model);
    Ok(vec![Target {
        upstream,
        model: model.to_owned(),
    }])
}

fn missing(model: &str, what: &str) -> ApiError {
    ApiError::new(404, format!("the model `{model}` {what}"))
        .with_code("model_not_found")
        .with_param("model")
}
