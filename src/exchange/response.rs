//! `POST /v1/responses`: passed on where the upstream speaks that format, else asked as a chat; and
//! the answers that are kept of it.

use std::sync::Arc;
use std::time::Instant;

use ring::rand::{SecureRandom, SystemRandom};

use super::{ChatBody, Following, converse, refuse, refuse_body, tell};
use crate::cancel;
use crate::config::{ClientKey, Upstream};
use crate::desk::Job;
use crate::dialect::responses::{Converted, is_own, tail, to_chat};
use crate::error::ApiError;
use crate::inbound::{self, Call};
use crate::json::shape::Shape;
use crate::kept::{Answer, Owner, Room};
use crate::lesson::Lesson;
use crate::passthrough::{self, Body, Parcel};
use crate::provider::Format;
use crate::provider::openai::map_list;
use crate::record::Record;
use crate::reply::Reply;
use crate::route::Target;
use crate::seal;
use crate::server::State;

pub fn responses<'w>(
    state: &State,
    mut call: Call<'w>,
    job: &Arc<Job>,
    key: Option<&ClientKey>,
    record: &mut Record,
) -> Option<Box<Following<'w>>> {
    let config = &state.config;
    let whole = key.is_some_and(|key| !key.models.is_empty());
    let mut body = match Body::read(&mut call, job, config, whole) {
        Ok(Ok(body)) => body,
        Ok(Err(error)) => {
            refuse(call, &error, record);
            return None;
        }
        Err(problem) => {
            refuse_body(config, call, &problem, record);
            return None;
        }
    };
    let is_named = call.header("x-weir-upstream").is_some();
    let model = body.model.clone().filter(|model| !model.is_empty());
    let Some(model) = model.filter(|_| body.is_json && !is_named) else {
        let error = match body.model.as_deref() {
            Some("") => Some(ApiError::invalid("model", "model: must not be empty")),
            None if !is_named && !config.upstreams.iter().any(passthrough::is_openai) => {
                Some(ApiError::invalid("model", "model: is required"))
            }
            _ => None,
        };
        match error {
            Some(error) => refuse(call, &error, record),
            None => passthrough::relay_body(state, call, job, key, record, &body),
        }
        return None;
    };
    let targets = passthrough::of_any_shape(state, &model, key)
        .and_then(|targets| super::check_other_models(&body.held, key).map(|()| targets));
    let targets = match targets {
        Ok(targets) => targets,
        Err(error) => {
            record.model = model;
            refuse(call, &error, record);
            return None;
        }
    };
    record.model = model;
    record.keep_request(&body.held);
    let mut left = None;
    if let Some(certain) = speaks(state, &targets[0], &body.held) {
        if let Err(error) = mend(&mut body) {
            refuse(call, &error, record);
            return None;
        }
        let path = match passthrough::path(&call) {
            Ok(path) => path,
            Err(error) => {
                refuse(call, &error, record);
                return None;
            }
        };
        let is_shaped =
            |target: &Target| passthrough::is_openai(&config.upstreams[target.upstream]);
        let (shaped, others): (Vec<Target>, Vec<Target>) =
            targets.iter().cloned().partition(is_shaped);
        let parcel = Parcel {
            path: &path,
            body: &body,
            may_lack: !certain,
        };
        let mut unanswered = passthrough::send(state, call, job, record, &parcel, &shaped)?;
        let status = unanswered.refused.error.status;
        let lacks = unanswered.lacks_route();
        // The route may be there, and the model or the earlier answer not.
        let words = &unanswered.refused.error.message;
        if lacks && !certain && !["model", "resp_"].iter().any(|word| words.contains(word)) {
            learn(state, &shaped[0]);
        }
        let rest = match status {
            _ if lacks && !certain => targets,
            // Servers that have the route often know some of it only.
            400 | 422 if !certain => targets,
            401 | 402 | 403 | 408 | 429 | 500.. => others,
            _ => Vec::new(),
        };
        let convert = || convert(state, &body, key, job);
        let converted = (!rest.is_empty() && unanswered.call.is_some()).then(convert);
        match converted {
            Some(Ok(converted)) if !unanswered.refused.caller_gone => {
                call = unanswered.call.take()?;
                left = Some((converted, rest));
            }
            _ => {
                unanswered.finish(state, record);
                return None;
            }
        }
    }
    let (converted, targets) = match left {
        Some((converted, rest)) => (converted, Some(rest)),
        None => match convert(state, &body, key, job) {
            Ok(converted) => (converted, None),
            Err(error) => {
                refuse(call, &error, record);
                return None;
            }
        },
    };
    drop(body);
    let chat = ChatBody {
        targets,
        ..ChatBody::of(converted.body)
    };
    call.asked = Some(Arc::new(converted.asked));
    converse(state, call, job, key, record, chat)
}

/// The request as that of a chat, and its answer kept where it is to be.
fn convert(
    state: &State,
    body: &Body,
    key: Option<&ClientKey>,
    job: &Job,
) -> Result<Converted, ApiError> {
    let config = &state.config;
    let shape = job.shape().unwrap_or_else(|| Shape::of(&body.held));
    config.limits.check(shape)?;
    let text = std::str::from_utf8(&body.held)
        .map_err(|error| ApiError::new(400, format!("the body is not valid JSON: {error}")))?;
    let (owner, room) = (owner(key), Room::of(config));
    let kept = state.kept.of(owner, room, Instant::now());
    let tail = tail(unguessable());
    let created = crate::clock::unix_seconds();
    let convert = || to_chat(text, &config.limits, &state.seals, &kept, &tail, created);
    let mut converted = cancel::working(&job.cancel, convert)?;
    if room.bytes == 0 && converted.store && converted.wants_store {
        converted.asked.dropped.push("store".to_owned());
    }
    if converted.store && room.bytes > 0 {
        let answers = Arc::clone(&state.kept);
        let previous = converted.previous.take();
        let input = std::mem::take(&mut converted.input);
        let keep = move |id: &str, body: Vec<u8>| {
            let answer = Answer {
                previous: previous.clone(),
                input: input.clone(),
                body,
            };
            answers.keep(owner, id, answer, room, Instant::now());
        };
        converted.asked = converted.asked.kept_by(Box::new(keep));
    }
    Ok(converted)
}

/// Who knows one id shall not know the next: where there are no client keys, ids are all that
/// stands between callers.
fn unguessable() -> u64 {
    let mut bytes = [0; 8];
    match SystemRandom::new().fill(&mut bytes) {
        Ok(()) => u64::from_be_bytes(bytes),
        Err(_) => inbound::unique(),
    }
}

fn owner(key: Option<&ClientKey>) -> Owner {
    key.map(|key| key.digest)
}

/// Whether the first target is to be sent the request as it came: certainly, or to see whether it
/// has the route. `None`: the request is translated for it.
fn speaks(state: &State, target: &Target, body: &[u8]) -> Option<bool> {
    let upstream: &Upstream = &state.config.upstreams[target.upstream];
    let certain = match upstream.format {
        Format::Responses => true,
        Format::OpenAi => upstream.options.official,
        Format::Anthropic | Format::Gemini => return None,
    };
    let goes_on_here = || {
        let fields = serde_json::from_slice::<crate::json::Fields<'_>>(body).ok();
        let id = fields.and_then(|fields| fields.parse::<String>("previous_response_id")?.ok());
        id.is_some_and(|id| is_own(&id))
    };
    if memchr::memmem::find(body, b"\"resp_weir").is_some() && goes_on_here() {
        return None;
    }
    let learned = state
        .learned
        .of(&upstream.name, &target.model, Instant::now());
    (certain || !learned.has(Lesson::NoResponses)).then_some(certain)
}

fn learn(state: &State, target: &Target) {
    let upstream = &state.config.upstreams[target.upstream];
    super::learn(state, upstream, &target.model, Lesson::NoResponses);
}

/// Leaves reasoning out that was sealed here: the vendor would refuse it.
fn mend(body: &mut Body) -> Result<(), ApiError> {
    if memchr::memmem::find(&body.held, seal::MARK.as_bytes()).is_none() {
        return Ok(());
    }
    let Ok(text) = std::str::from_utf8(&body.held) else {
        return Ok(());
    };
    let Ok(fields) = serde_json::from_str::<crate::json::Fields<'_>>(text) else {
        return Ok(());
    };
    let Some(input) = fields.get("input").map(|raw| raw.get()) else {
        return Ok(());
    };
    let is_sealed = |item: &str| {
        let fields = serde_json::from_str::<crate::json::Fields<'_>>(item).ok();
        let seal = fields.and_then(|fields| fields.parse::<String>("encrypted_content")?.ok());
        seal.is_some_and(|seal| seal::is_seal(&seal))
    };
    let less = match input.starts_with('[') {
        true => map_list(input, |item| is_sealed(item).then(String::new)),
        false => None,
    };
    let Some(less) = less else {
        return Ok(());
    };
    let start = input.as_ptr() as usize - text.as_ptr() as usize;
    let (before, after) = (&text[..start], &text[start + input.len()..]);
    let mended = [before, &less, after].concat().into_bytes();
    *body = Body::of_json(mended)?;
    Ok(())
}

/// `GET` and `DELETE` of an answer that was made here.
pub fn kept(state: &State, call: Call<'_>, id: &str, key: Option<&ClientKey>, record: &mut Record) {
    let (owner, room, now) = (owner(key), Room::of(&state.config), Instant::now());
    let body = match call.method {
        tiny_http::Method::Delete => state
            .kept
            .delete(owner, id, room, now)
            .then(|| format!(r#"{{"id":"{id}","object":"response","deleted":true}}"#).into_bytes()),
        _ => state.kept.get(owner, id, room, now),
    };
    match body {
        Some(body) => tell(call, Reply::json(200, body), record),
        None => {
            let message = format!("there is no response {id:?}, or not any more");
            let error = ApiError::new(404, message).with_code("response_not_found");
            refuse(call, &error, record);
        }
    }
}
