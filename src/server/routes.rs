//! Path and method -> what is answered, and who may ask.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use tiny_http::Method;

use super::admission::{allow_origin, check_host, client_key, fend_off, preflight};
use super::{Gateway, State};
use crate::config::Config;
use crate::desk::Job;
use crate::dialect::{Dialect, gemini, messages, responses, text};
use crate::embeddings;
use crate::error::ApiError;
use crate::exchange;
use crate::inbound::{self, Call};
use crate::journal;
use crate::json::shape::Shape;
use crate::metrics::{self, Gauges, PoolGauges};
use crate::models;
use crate::passthrough;
use crate::pool::Down;
use crate::query::decode_percent;
use crate::record::Record;
use crate::reply::Reply;
use crate::request_log::Transcript;
use crate::status;

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    Chat,
    Messages,
    Responses,
    /// One answer of the Responses format, which was made here.
    Response,
    /// An offer to speak over a WebSocket.
    WebSocket,
    CountTokens,
    /// Gemini's `generateContent` and `streamGenerateContent`.
    Generate,
    GeminiCount,
    Ask,
    Completions,
    Embeddings,
    /// Another route of the OpenAI API.
    Relay,
    Models,
    Model,
    Health,
    Ready,
    Metrics,
    Status,
    Reset,
    Preflight,
    /// The path is known, the method is another one; these are the right ones.
    WrongMethod(&'static str),
    Unknown,
}

mod hint;

const MODEL: &str = "/v1/models/";
const GEMINI_MODEL: &str = "/v1beta/models/";
const RESPONSES: &str = "/v1/responses";

/// The paths without a variable part, with the one method of each.
const PATHS: &[(&str, &str, Endpoint)] = &[
    ("/v1/chat/completions", "POST", Endpoint::Chat),
    ("/v1/messages", "POST", Endpoint::Messages),
    ("/v1/messages/count_tokens", "POST", Endpoint::CountTokens),
    ("/ask", "POST", Endpoint::Ask),
    ("/v1/completions", "POST", Endpoint::Completions),
    ("/v1/embeddings", "POST", Endpoint::Embeddings),
    ("/v1/models", "GET", Endpoint::Models),
    ("/v1beta/models", "GET", Endpoint::Models),
    ("/healthz", "GET", Endpoint::Health),
    ("/readyz", "GET", Endpoint::Ready),
    ("/metrics", "GET", Endpoint::Metrics),
    ("/status", "GET", Endpoint::Status),
    ("/status/reset", "POST", Endpoint::Reset),
];

impl Endpoint {
    pub fn name(self) -> &'static str {
        match self {
            Endpoint::Chat => "chat",
            Endpoint::Messages => "messages",
            Endpoint::Responses => "responses",
            Endpoint::Response => "response",
            Endpoint::WebSocket => "websocket",
            Endpoint::CountTokens | Endpoint::GeminiCount => "count_tokens",
            Endpoint::Generate => "gemini",
            Endpoint::Ask => "ask",
            Endpoint::Completions => "completions",
            Endpoint::Embeddings => "embeddings",
            Endpoint::Relay => "relay",
            Endpoint::Models => "models",
            Endpoint::Model => "model",
            Endpoint::Health => "healthz",
            Endpoint::Ready => "readyz",
            Endpoint::Metrics => "metrics",
            Endpoint::Status => "status",
            Endpoint::Reset => "reset",
            Endpoint::Preflight => "preflight",
            Endpoint::WrongMethod(_) | Endpoint::Unknown => "none",
        }
    }

    /// Probes come every few seconds and say nothing.
    pub fn is_logged(self) -> bool {
        !matches!(
            self,
            Endpoint::Health
                | Endpoint::Ready
                | Endpoint::Metrics
                | Endpoint::Status
                | Endpoint::Preflight
        )
    }

    /// Takes a place among those that may be in the works at once, for as long as it lasts.
    pub fn is_exchange(self) -> bool {
        matches!(
            self,
            Endpoint::Chat
                | Endpoint::Messages
                | Endpoint::Responses
                | Endpoint::Generate
                | Endpoint::Ask
                | Endpoint::Completions
                | Endpoint::Embeddings
                | Endpoint::Relay
        )
    }

    /// The dialect of the answer, and of every error before it.
    fn dialect(self, call: &Call<'_>) -> Dialect {
        let is_list = matches!(self, Endpoint::Models | Endpoint::Model);
        if is_list && call.header("anthropic-version").is_some() {
            return Dialect::Messages;
        }
        if gemini::is_path(&call.path) {
            return Dialect::Gemini(gemini::Framing::of_query(&call.query));
        }
        let own = Dialect::of_path(&call.path);
        if self != Endpoint::Relay && own != Dialect::Chat {
            return own;
        }
        let accept = call.header("accept").unwrap_or("*/*");
        let plain = match self {
            Endpoint::Chat => text::is_wanted(accept),
            Endpoint::Ask => !text::is_json_wanted(accept),
            _ => false,
        };
        match plain {
            true => Dialect::Text,
            false => Dialect::Chat,
        }
    }

    pub fn needs_key(self, config: &Config) -> bool {
        match self {
            Endpoint::Metrics => !config.metrics_open,
            Endpoint::Chat
            | Endpoint::Messages
            | Endpoint::Responses
            | Endpoint::Response
            | Endpoint::WebSocket
            | Endpoint::CountTokens
            | Endpoint::Generate
            | Endpoint::GeminiCount
            | Endpoint::Ask
            | Endpoint::Completions
            | Endpoint::Embeddings
            | Endpoint::Relay
            | Endpoint::Models
            | Endpoint::Model
            | Endpoint::Status
            | Endpoint::Reset => true,
            _ => false,
        }
    }
}

pub fn endpoint(call: &Call<'_>) -> Endpoint {
    if call.method == Method::Options {
        return Endpoint::Preflight;
    }
    let method = call.method.as_str();
    let fits = |wanted: &str| method == wanted || (method == "HEAD" && wanted == "GET");
    if let Some((_, verb)) = gemini::of_path(&call.path) {
        return match verb {
            _ if !fits("POST") => Endpoint::WrongMethod("POST, OPTIONS"),
            gemini::Verb::Count => Endpoint::GeminiCount,
            _ => Endpoint::Generate,
        };
    }
    let known = PATHS.iter().find(|(path, ..)| *path == call.path);
    match known {
        Some((_, wanted, endpoint)) if fits(wanted) => *endpoint,
        Some((_, "GET", _)) => Endpoint::WrongMethod("GET, HEAD, OPTIONS"),
        Some(_) => Endpoint::WrongMethod("POST, OPTIONS"),
        None if [MODEL, GEMINI_MODEL]
            .iter()
            .filter_map(|place| call.path.strip_prefix(place))
            .any(|id| !id.is_empty()) =>
        {
            if fits("GET") {
                Endpoint::Model
            } else {
                Endpoint::WrongMethod("GET, HEAD, OPTIONS")
            }
        }
        None if call.path == RESPONSES && method == "POST" => Endpoint::Responses,
        None if call.path == RESPONSES && method == "GET" && offers_websocket(call) => {
            Endpoint::WebSocket
        }
        None if kept_id(&call.path).is_some_and(|id| !id.contains('/')) => match method {
            "GET" | "HEAD" | "DELETE" => Endpoint::Response,
            _ => Endpoint::WrongMethod("GET, HEAD, DELETE, OPTIONS"),
        },
        None if kept_id(&call.path).is_some() => Endpoint::Unknown,
        None if passthrough::is_relayed(call) => match method {
            "GET" | "POST" | "DELETE" => Endpoint::Relay,
            _ => Endpoint::WrongMethod("GET, POST, DELETE, OPTIONS"),
        },
        None => Endpoint::Unknown,
    }
}

/// The id of an answer that was made here, and what follows it in the path.
fn kept_id(path: &str) -> Option<&str> {
    let id = path.strip_prefix(RESPONSES)?.strip_prefix('/')?;
    responses::is_own(id).then_some(id)
}

fn offers_websocket(call: &Call<'_>) -> bool {
    let upgrade = call.header("upgrade").unwrap_or_default();
    upgrade.to_ascii_lowercase().contains("websocket")
}

/// Answers the request and notes in the record what came of it. A stream that has begun is given
/// back: it is followed to its end from a stack that holds nothing of this.
pub fn answer<'w>(
    gateway: &Gateway,
    state: &State,
    endpoint: Endpoint,
    mut call: Call<'w>,
    job: &Arc<Job>,
    record: &mut Record,
) -> Option<Box<exchange::Following<'w>>> {
    let config = &state.config;
    call.dialect = endpoint.dialect(&call);
    // Before anything is looked at: behind a foreign name is nobody of this machine.
    let barred = check_host(config, &call).and_then(|()| fend_off(config, endpoint, &call));
    if let Err(error) = barred {
        refuse(call, endpoint, &error, record);
        return None;
    }
    allow_origin(config, &mut call);
    let key = match client_key(config, endpoint, &call) {
        Ok(key) => key,
        Err(error) => {
            refuse(call, endpoint, &error, record);
            return None;
        }
    };
    if let Some(key) = key {
        record.client.clone_from(&key.name);
        record.must_count = key.allowance.limits_tokens();
    }
    // Not before: whoever has no key could push everything else out of the log.
    if state.request_log.is_some() && endpoint.is_exchange() {
        let route = format!("{} {}", call.method, call.path);
        record.transcript = Some(Box::new(Transcript::new(route)));
    }
    // Before the headers, so that they tell what is left after this request.
    let ticket = match key.filter(|_| endpoint.is_exchange()) {
        Some(key) => state.limits.admit(key),
        None => Ok(None),
    };
    for (name, value) in key.map_or_else(Vec::new, |key| state.limits.headers(key)) {
        call.add_common(name, &value);
    }
    match ticket {
        Ok(ticket) => job.held.keep(ticket),
        Err(error) => {
            refuse(call, endpoint, &error, record);
            return None;
        }
    }
    let reply = match endpoint {
        Endpoint::Chat
        | Endpoint::Messages
        | Endpoint::Responses
        | Endpoint::Generate
        | Endpoint::Ask
        | Endpoint::Completions
        | Endpoint::Embeddings
        | Endpoint::Relay => {
            if gateway.closed.load(Ordering::Acquire) {
                let error = ApiError::new(503, "the gateway is shutting down")
                    .with_code("shutting_down")
                    .with_retry_after(Duration::from_secs(1));
                refuse(call, endpoint, &error, record);
                return None;
            }
            let Some(seat) = Seat::take(&gateway.chats, gateway.max_chats) else {
                let error = ApiError::new(503, "all workers of the gateway are busy")
                    .with_code("overloaded")
                    .with_retry_after(Duration::from_secs(1));
                refuse(call, endpoint, &error, record);
                return None;
            };
            job.held.keep(seat);
            job.is_chat.store(true, Ordering::Relaxed);
            let following = match endpoint {
                Endpoint::Ask => exchange::ask(state, call, job, key, record),
                Endpoint::Responses => exchange::responses(state, call, job, key, record),
                Endpoint::Completions => exchange::completions(state, call, job, key, record),
                Endpoint::Embeddings => {
                    embeddings::embeddings(state, call, job, key, record);
                    None
                }
                Endpoint::Relay => {
                    passthrough::relay(state, call, job, key, record);
                    None
                }
                _ => exchange::chat(state, call, job, key, record),
            };
            if following.is_none() {
                record.spend_rest(&state.limits);
            }
            return following;
        }
        Endpoint::CountTokens | Endpoint::GeminiCount => {
            let body = match call.read_body(config.max_body_bytes, job, config.body_wait) {
                Ok(body) => body,
                Err(problem) => {
                    exchange::refuse_body(config, call, &problem, record);
                    return None;
                }
            };
            let counted = config
                .limits
                .check(Shape::of(&body))
                .and_then(|()| match endpoint {
                    Endpoint::GeminiCount => gemini::estimate(&body),
                    _ => messages::estimate(&body),
                });
            drop(body);
            job.set_room(None);
            let count = match counted {
                Ok(count) => count,
                Err(error) => {
                    refuse(call, endpoint, &error, record);
                    return None;
                }
            };
            let field = match endpoint {
                Endpoint::GeminiCount => "totalTokens",
                _ => "input_tokens",
            };
            let body = format!("{{\"{field}\":{count}}}");
            Reply::json(200, body.into_bytes()).with("x-weir-estimated", "1")
        }
        Endpoint::Models if call.dialect == Dialect::Messages => {
            state.discovery.settle(config);
            let list = models::anthropic::list(config, &call.query, &usable(state), key);
            Reply::json(200, list)
        }
        Endpoint::Model if call.dialect == Dialect::Messages => {
            let id = decode_percent(&call.path[MODEL.len()..]);
            state.discovery.settle(config);
            match models::anthropic::one(config, &id, &usable(state), key) {
                Some(model) => Reply::json(200, model),
                None => {
                    let error = ApiError::new(404, format!("there is no model `{}`", shown(&id)));
                    refuse(call, endpoint, &error, record);
                    return None;
                }
            }
        }
        Endpoint::Models if matches!(call.dialect, Dialect::Gemini(_)) => {
            state.discovery.settle(config);
            let list = models::gemini::list(config, &call.query, &usable(state), key);
            Reply::json(200, list)
        }
        Endpoint::Model if matches!(call.dialect, Dialect::Gemini(_)) => {
            let id = call.path.strip_prefix(GEMINI_MODEL).unwrap_or_default();
            let id = decode_percent(id);
            state.discovery.settle(config);
            match models::gemini::one(config, &id, &usable(state), key) {
                Some(model) => Reply::json(200, model),
                None => {
                    let error = ApiError::new(404, format!("there is no model `{}`", shown(&id)));
                    refuse(call, endpoint, &error, record);
                    return None;
                }
            }
        }
        Endpoint::Models => {
            state.discovery.settle(config);
            let list = models::list(config, &usable(state), key, SystemTime::now());
            Reply::json(200, list)
        }
        Endpoint::Model => {
            let id = decode_percent(&call.path[MODEL.len()..]);
            state.discovery.settle(config);
            match models::one(config, &id, &usable(state), key, SystemTime::now()) {
                Some(model) => Reply::json(200, model),
                None => {
                    let error = ApiError::new(404, format!("there is no model `{}`", shown(&id)))
                        .with_code("model_not_found")
                        .with_param("model");
                    refuse(call, endpoint, &error, record);
                    return None;
                }
            }
        }
        Endpoint::Health => Reply::text(200, "ok\n"),
        Endpoint::Ready => ready(gateway, state),
        Endpoint::Metrics => metrics(gateway, state),
        Endpoint::Status => status(gateway, state, call.header("accept")),
        Endpoint::Reset => {
            for pool in &state.pools {
                pool.reset();
            }
            Reply::json(200, br#"{"reset":true}"#.to_vec())
        }
        Endpoint::Response => {
            let path = std::mem::take(&mut call.path);
            exchange::kept(state, call, kept_id(&path).unwrap_or_default(), key, record);
            return None;
        }
        Endpoint::WebSocket => {
            let message = "responses are streamed as events over HTTP here, not over a WebSocket";
            let error = ApiError::new(426, message).with_code("upgrade_not_offered");
            note(&error, record);
            let reply = call.refusal(&error).with("Upgrade", "HTTP/1.1");
            call.reply(reply);
            return None;
        }
        Endpoint::Preflight => preflight(&call),
        Endpoint::WrongMethod(right) => {
            let error = ApiError::new(
                405,
                format!("{} is not for this path, but {right}", call.method),
            )
            .with_code("method_not_allowed");
            note(&error, record);
            let reply = call.refusal(&error).with("Allow", right);
            call.reply(reply);
            return None;
        }
        Endpoint::Unknown => {
            let mut message = format!("there is nothing at {}", shown(&call.path));
            if let Some(path) = hint::right_path(&call.path) {
                message.push_str(&format!("; it is at {}", shown(&path)));
            }
            let error = ApiError::new(404, message).with_code("not_found");
            refuse(call, endpoint, &error, record);
            return None;
        }
    };
    record.status = reply.status;
    call.reply(reply);
    None
}

/// A place among the exchanges that may run at once.
struct Seat(Arc<AtomicUsize>);

impl Seat {
    fn take(taken: &Arc<AtomicUsize>, most: usize) -> Option<Seat> {
        let seat = Seat(Arc::clone(taken));
        // Counted first; the guard takes it back if it was one too many.
        (taken.fetch_add(1, Ordering::AcqRel) < most).then_some(seat)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn note(error: &ApiError, record: &mut Record) {
    record.status = error.status;
    record.error = Some(error.message.clone());
}

fn refuse(call: Call<'_>, endpoint: Endpoint, error: &ApiError, record: &mut Record) {
    note(error, record);
    let mut reply = call.refusal(error);
    record.keep_answer(&reply.body);
    if error.status == 401 {
        let page = call.header("accept").is_some_and(status::wants_page);
        let way = match endpoint {
            // A browser asks its user, which is the only way in which one can give a key.
            Endpoint::Status if page => "Basic realm=\"weir: any name, a client key as password\"",
            _ => "Bearer",
        };
        reply = reply.with("WWW-Authenticate", way);
    }
    call.reply(reply);
}

/// Whether an upstream can serve anything now.
fn usable(state: &State) -> impl Fn(usize) -> bool {
    let now = Instant::now();
    let usable: Vec<bool> = state
        .pools
        .iter()
        .map(|pool| pool.is_usable("", now))
        .collect();
    move |upstream| usable.get(upstream).copied().unwrap_or(false)
}

/// Of the upstreams that are usable none answers, as far as one knows.
fn not_answering(state: &State) -> Option<&'static str> {
    let usable = usable(state);
    let pools = state.pools.iter().enumerate();
    let down: Vec<_> = pools
        .filter(|(at, _)| usable(*at))
        .map(|(_, pool)| pool.server.down())
        .collect();
    if down.iter().any(Option::is_none) {
        return None;
    }
    let loads = |down: &Option<(Down, Instant)>| down.is_some_and(|(why, _)| why == Down::Loading);
    Some(match down.iter().any(loads) {
        true => "the upstream is loading its model\n",
        false => "no upstream can be reached\n",
    })
}

fn ready(gateway: &Gateway, state: &State) -> Reply {
    let problem = if gateway.draining.load(Ordering::Acquire) {
        Some("shutting down\n")
    } else if !(0..state.pools.len()).any(usable(state)) {
        Some("no upstream is usable\n")
    } else {
        not_answering(state)
    };
    match problem {
        None => Reply::text(200, "ready\n"),
        Some(problem) => Reply::text(503, problem).with("Retry-After", "1"),
    }
}

/// `/metrics` and `/status` are told what only the gateway knows.
fn metrics(gateway: &Gateway, state: &State) -> Reply {
    let now = Instant::now();
    let pools = state.config.upstreams.iter().zip(&state.pools);
    let gauges = Gauges {
        chats: gateway.running(),
        max_chats: gateway.max_chats,
        connections: gateway.watch.connections(),
        leaked: inbound::leaked(),
        log_lost: journal::lost(),
        draining: gateway.draining.load(Ordering::Relaxed),
        reloaded: gateway.reload_error.lock().is_none(),
        pools: pools
            .map(|(upstream, pool)| PoolGauges::new(&upstream.name, pool, now))
            .collect(),
    };
    Reply {
        content_type: metrics::CONTENT_TYPE,
        ..Reply::text(200, gateway.metrics.text(&gauges))
    }
}

fn status(gateway: &Gateway, state: &State, accept: Option<&str>) -> Reply {
    let around = status::Around {
        uptime: gateway.begun.elapsed(),
        draining: gateway.draining.load(Ordering::Relaxed),
        exchanges: gateway.running(),
        max_exchanges: gateway.max_chats,
        connections: gateway.watch.connections(),
        config_since: state.since,
        reload_error: gateway.reload_error.lock().clone(),
        lessons: state.learned.told(Instant::now()),
    };
    let status = status::collect(&state.config, &state.pools, &gateway.ledger, &around);
    status.reply(accept)
}

/// A path or a name from a caller, within bounds.
fn shown(text: &str) -> String {
    const SHOWN: usize = 200;
    text.chars().take(SHOWN).collect()
}
