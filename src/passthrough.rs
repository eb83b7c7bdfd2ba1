//! Routes of the OpenAI API that weir only passes on: responses, images, audio, files and others.
//!
//! The upstream is chosen, leased and tried as for a chat; bodies go through in pieces, both ways.
//! A request that is in memory can be tried again, one whose body came through in pieces cannot.

use std::sync::Arc;

use crate::config::ClientKey;
use crate::desk::Job;
use crate::dialect::{Dialect, openai};
use crate::error::ApiError;
use crate::exchange::dry_run::{self, Outline};
use crate::exchange::tries::{Refused, Tries};
use crate::exchange::{self, refuse, refuse_body, timing};
use crate::inbound::{self, Call};
use crate::record::Record;
use crate::reply::{Reply, push_header};
use crate::route::Target;
use crate::server::State;

mod back;
mod body;
mod events;
mod form;
mod place;
mod work;

pub use body::Body;
use body::Rest;
pub use place::{is_of_family, is_openai, is_relayed, of_any_shape, path};
use work::Relay;

/// The caller's headers that mean something to the upstream. All others stay here: keys, cookies,
/// encodings and what belongs to the connection.
const PASSED_ON: &[&str] = &[
    "content-type",
    "accept",
    "openai-beta",
    "idempotency-key",
    "range",
];

/// A header that is passed on fits into the line that it is sent in.
const LONGEST_HEADER: usize = 4 * 1024;

/// Answers one request by passing it on.
pub fn relay(
    state: &State,
    mut call: Call<'_>,
    job: &Arc<Job>,
    key: Option<&ClientKey>,
    record: &mut Record,
) {
    let config = &state.config;
    if let Err(error) = place::path(&call) {
        return refuse(call, &error, record);
    }
    // A key for certain models sees to it that no other one is named, wherever in a form.
    let whole = key.is_some_and(|key| !key.models.is_empty());
    if whole && !place::acts_on_its_model(&call) {
        let message = "this key is for certain models only, and this route is not about the model of its body";
        return refuse(
            call,
            &ApiError::new(403, message).with_code("route_not_allowed"),
            record,
        );
    }
    let body = match Body::read(&mut call, job, config, whole) {
        Ok(Ok(body)) => body,
        Ok(Err(error)) => return refuse(call, &error, record),
        Err(problem) => return refuse_body(config, call, &problem, record),
    };
    relay_body(state, call, job, key, record, &body);
}

/// The same once what has to be known of the body is.
pub fn relay_body(
    state: &State,
    call: Call<'_>,
    job: &Arc<Job>,
    key: Option<&ClientKey>,
    record: &mut Record,
    body: &Body,
) {
    let path = match place::path(&call) {
        Ok(path) => path,
        Err(error) => return refuse(call, &error, record),
    };
    let wanted = call.header("x-weir-upstream");
    let targets = match place::targets(state, body.model.as_deref(), wanted, key) {
        Ok(targets) => targets,
        Err(mut error) => {
            // Programs that speak Responses ask for what is below it to see whether it is there.
            let is_below = call.path.starts_with("/v1/responses/");
            if is_below && error.code.as_deref() == Some("unsupported_parameter") {
                error.status = 404;
            }
            return refuse(call, &error, record);
        }
    };
    if body.is_json
        && let Err(error) = exchange::check_other_models(&body.held, key)
    {
        return refuse(call, &error, record);
    }
    record.model = body.model.clone().unwrap_or_default();
    record.keep_request(&body.held);
    if body.rest != Rest::None {
        record.request_goes_on();
    }
    let parcel = Parcel {
        path: &path,
        body,
        may_lack: false,
    };
    if let Some(unanswered) = send(state, call, job, record, &parcel, &targets) {
        unanswered.finish(state, record);
    }
}

/// What is passed on.
pub struct Parcel<'p> {
    /// Behind the base URL, with its query.
    pub path: &'p str,
    pub body: &'p Body,
    /// The upstream may well lack this route: that is no fault of its keys.
    pub may_lack: bool,
}

/// A request that was not answered.
pub struct Unanswered<'w> {
    /// `None`: an answer had begun, and its connection is cut.
    pub call: Option<Call<'w>>,
    pub refused: Refused,
    /// Header lines about the last attempt.
    lines: String,
}

/// Passes a request on and writes the answer. An error is still to be told: to the caller, if
/// there is still a way to.
pub fn send<'w>(
    state: &State,
    call: Call<'w>,
    job: &Arc<Job>,
    record: &mut Record,
    parcel: &Parcel<'_>,
    targets: &[Target],
) -> Option<Unanswered<'w>> {
    let id = call.id.clone();
    let method = call.method.to_string();
    let mut headers: Vec<(String, String)> = PASSED_ON
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), call.header(name)?.to_owned())))
        .collect();
    if let Some((name, _)) = headers
        .iter()
        .find(|(_, value)| value.len() > LONGEST_HEADER)
    {
        let message = format!("the header {name} is longer than {LONGEST_HEADER} bytes");
        refuse(
            call,
            &ApiError::new(431, message).with_code("header_too_long"),
            record,
        );
        return None;
    }
    headers.push(("x-request-id".into(), id.clone()));
    let says_json =
        |(name, value): &(String, String)| name == "content-type" && value.contains("json");
    if parcel.body.is_json && !headers.iter().any(says_json) {
        headers.retain(|(name, _)| name != "content-type");
        headers.push(("content-type".into(), "application/json".into()));
    }
    if dry_run::is_asked(&call) {
        let model = targets.first().map_or("", |target| target.model.as_str());
        let held = parcel.body.named(model);
        let outline = Outline {
            method: &method,
            path: parcel.path,
            headers: headers.iter().map(|(n, v)| (&**n, &**v)).collect(),
            body: (parcel.body.rest == Rest::None).then_some(&*held),
            dropped: &[],
        };
        match dry_run::reply(state, targets, &outline) {
            Ok(reply) => exchange::tell(call, reply, record),
            Err(error) => refuse(call, &error, record),
        }
        return None;
    }
    let scissors = call.scissors();
    let mut relay = Relay::new(state, job, record, call, &method, headers, parcel);
    let outcome = Tries::new(state, job, &id).run(&mut relay, targets);
    let outcome = outcome.map(|(status, _)| status);
    let left = relay.left();
    if let Some(stream) = &left.stream {
        record.heartbeats = stream.heartbeats();
    }
    let refused = match outcome {
        Ok(status) => {
            record.status = status;
            return None;
        }
        Err(refused) => refused,
    };
    let unanswered = Unanswered {
        call: left.call,
        refused,
        lines: left.lines,
    };
    if unanswered.call.is_none() && !unanswered.refused.caller_gone {
        record.spend_rest(&state.limits);
        // A stream of which nothing is out can still be a refusal.
        let stream = left.stream.map(|stream| {
            stream.interject(&last_words(&unanswered.refused.error));
            let reply = inbound::refusal(Dialect::Chat, &unanswered.refused.error);
            let reply = unanswered.about(reply, record);
            record.keep_answer(&reply.body);
            (stream.abandon(reply), stream)
        });
        match stream {
            Some((false, _)) => {}
            Some((true, stream)) => {
                if !scissors.cut() {
                    stream.spoil();
                }
            }
            None => {
                scissors.cut();
            }
        }
    }
    Some(unanswered)
}

/// What a broken stream of events says at its end. The vendor's libraries look for the name of the
/// event and for the object in it; for all others the connection is cut.
fn last_words(error: &ApiError) -> Vec<u8> {
    let mut event = b"event: error\n".to_vec();
    event.extend_from_slice(&openai::error_event(error));
    event
}

impl<'w> Unanswered<'w> {
    /// The call again, where the upstream turned out to lack the route.
    pub fn retract(&mut self) -> Option<Call<'w>> {
        let lacks = self.lacks_route();
        self.call.take_if(|_| lacks)
    }

    /// The upstream said that it has no such route, and may say so.
    pub fn lacks_route(&self) -> bool {
        self.refused.error.status == 404 && self.refused.error.code.is_none()
    }

    /// Tells the caller why there is no answer.
    pub fn finish(mut self, state: &State, record: &mut Record) {
        record.spend_rest(&state.limits);
        let refused = &self.refused;
        record.error = Some(refused.error.message.clone());
        record.status = match refused.caller_gone {
            true => 499,
            false => refused.error.status,
        };
        let Some(call) = self.call.take().filter(|_| !self.refused.caller_gone) else {
            return;
        };
        let reply = self.about(call.refusal(&self.refused.error), record);
        exchange::tell(call, reply, record);
    }

    /// The refusal with its header lines about the last attempt.
    fn about(&self, mut reply: Reply, record: &Record) -> Reply {
        reply.headers.push_str(&self.lines);
        push_header(&mut reply.headers, "Server-Timing", &timing(record));
        if self.refused.hopeless && !self.refused.error.is_far_off() {
            push_header(&mut reply.headers, "x-should-retry", "false");
        }
        reply
    }
}

/// 400 for a model whose upstream has no such route.
pub fn no_such_route(model: &str, format: &str) -> ApiError {
    let message =
        format!("the model `{model}` is served in the {format} format, which has no such route");
    ApiError::invalid("model", message).with_code("unsupported_parameter")
}
