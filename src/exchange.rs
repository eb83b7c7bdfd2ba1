//! The story of one chat exchange, top to bottom.
//!
//! The only room that knows the order: body, route, lease, encode, send, decode, write. What it
//! branches on is decided elsewhere: the class of a failure says what follows from it.

use std::cell::OnceCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{debug, info};

use crate::cancel;
use crate::config::{ClientKey, Config, Upstream};
use crate::desk::Job;
use crate::dialect::Dialect;
use crate::dialect::openai::{Head, Stamp};
use crate::dialect::{gemini, messages, responses};
use crate::error::ApiError;
use crate::failure::{Class, Failure};
use crate::inbound::{self, Call, NoBody};
use crate::json::shape::Shape;
use crate::lesson::Lesson;
use crate::memory::Notes;
use crate::pool::{Asked, Lease};
use crate::provider::{Encoded, Format};
use crate::record::Record;
use crate::reply::{Reply, push_header};
use crate::route::Target;
use crate::server::State;
use crate::stream::Stream;
use crate::upstream::{self, Attempt, ended_for_good};

mod ability;
mod answer;
mod ask;
mod caller;
mod completions;
pub mod dry_run;
mod encode;
mod heard;
mod live;
mod response;
mod room;
pub mod tries;

#[cfg(debug_assertions)]
pub use answer::panic_on_demand;
pub use ask::ask;
pub use completions::completions;
pub use response::{kept, responses};

use answer::{Answered, Halt, Sink};
use caller::{Caller, Unfinished};
use encode::{Encoder, Native};
pub use live::Following;
use live::Live;
use tries::{Refused, Tries, Work};

/// Answers one `POST /v1/chat/completions` or `/v1/messages`, or gives the stream that is still to be followed.
pub fn chat<'w>(
    state: &State,
    call: Call<'w>,
    job: &Arc<Job>,
    key: Option<&ClientKey>,
    record: &mut Record,
) -> Option<Box<Following<'w>>> {
    let (call, body) = with_body(state, call, job, record)?;
    let shape = job.shape();
    let chat = ChatBody {
        shape,
        ..ChatBody::of(body)
    };
    converse(state, call, job, key, record, chat)
}

/// A request in the form of Chat Completions, or in one of its own for which there is a `Native`.
pub struct ChatBody {
    body: Vec<u8>,
    /// Where it has been counted.
    shape: Option<Shape>,
    /// Who is asked, where that is known and not what the model's name says.
    targets: Option<Vec<Target>>,
}

impl ChatBody {
    pub fn of(body: Vec<u8>) -> ChatBody {
        ChatBody {
            body,
            shape: None,
            targets: None,
        }
    }
}

/// The call with its whole body. `None` if there is none; then the caller was told why.
pub fn with_body<'w>(
    state: &State,
    mut call: Call<'w>,
    job: &Job,
    record: &mut Record,
) -> Option<(Call<'w>, Vec<u8>)> {
    let config = &state.config;
    match call.read_body(config.max_body_bytes, job, config.body_wait) {
        Ok(body) => {
            record.keep_request(&body);
            Some((call, body))
        }
        Err(problem) => {
            refuse_body(config, call, &problem, record);
            None
        }
    }
}

/// Answers a chat request in the caller's dialect.
fn converse<'w>(
    state: &State,
    call: Call<'w>,
    job: &Arc<Job>,
    key: Option<&ClientKey>,
    record: &mut Record,
    chat: ChatBody,
) -> Option<Box<Following<'w>>> {
    let (caller, outcome, lines) = *begin(state, call, job, key, record, &chat)?;
    drop(chat);
    job.set_room(None);
    let outcome = match (outcome, caller) {
        (Ok((Answered::Begun(live), lease)), Caller::Stream(caller)) => {
            return Some(Box::new(Following {
                live,
                lease,
                caller,
                lines,
            }));
        }
        // The lease is given back before the caller is answered.
        (outcome, caller) => (outcome.map(|(answered, _)| answered), caller),
    };
    let (outcome, caller) = outcome;
    // Before the caller hears of it, and may ask again.
    record.spend_rest(&state.limits);
    caller.finish(outcome, &lines, record);
    None
}

/// The head of a request that holds no more than requests may.
fn read_head<'b>(config: &Config, body: &'b [u8], shape: Shape) -> Result<Head<'b>, ApiError> {
    config.limits.check(shape)?;
    let mut head = Head::read(body)?;
    head.limits = config.limits;
    Ok(head)
}

/// The same in the caller's own dialect.
fn read_own_head<'b>(
    config: &Config,
    call: &Call<'_>,
    body: &'b [u8],
    shape: Shape,
) -> Result<Head<'b>, ApiError> {
    if !matches!(call.dialect, Dialect::Gemini(_)) {
        return read_head(config, body, shape);
    }
    config.limits.check(shape)?;
    let mut head = gemini::head(&call.path, body)?;
    head.limits = config.limits;
    Ok(head)
}

type Begun<'w> = (Caller<'w>, Result<(Answered, Lease), Refused>, String);

/// The exchange up to the first event of its answer, or to its end where that comes first. `None`:
/// the caller has been answered.
#[inline(never)]
fn begin<'w>(
    state: &State,
    call: Call<'w>,
    job: &Arc<Job>,
    key: Option<&ClientKey>,
    record: &mut Record,
    chat: &ChatBody,
) -> Option<Box<Begun<'w>>> {
    let config = &state.config;
    let body = &*chat.body;
    let shape = chat.shape.unwrap_or_else(|| Shape::of(body));
    let read = read_own_head(config, &call, body, shape).and_then(|head| {
        record.model = head.model.to_string();
        record.streamed = head.stream;
        let targets = match &chat.targets {
            Some(targets) => targets.clone(),
            None => targets(state, &head.model, key)?,
        };
        check_other_models(body, key)?;
        let targets = ability::by_ability(config, &head, targets);
        Ok((head, targets))
    });
    let (head, targets) = match read {
        Ok(read) => read,
        Err(error) => {
            refuse(call, &error, record);
            return None;
        }
    };
    if dry_run::is_asked(&call) {
        record.streamed = false;
        let native = native(&call);
        let sides = (native.as_ref(), call.asked.as_ref());
        let outline = || outline(state, &head, sides, &targets, &call.id, record.must_count);
        let outlined = cancel::working(&job.cancel, outline).map_err(|error| {
            let ended = job.cancel.cause().map(ended_for_good);
            ended.map_or(error, |failure| failure.to_error("weir", ""))
        });
        match outlined {
            Ok(reply) => tell(call, reply, record),
            Err(error) => refuse(call, &error, record),
        }
        return None;
    }
    let id = call.id.clone();
    let dialect = call.dialect;
    let asked = call.asked.clone();
    let native = native(&call);
    let caller = match head.stream {
        true => {
            let unfinished = Unfinished::begin(call, config.keepalive, Arc::clone(&job.held))?;
            job.set_stream(&unfinished.stream);
            Caller::Stream(unfinished)
        }
        false => Caller::Plain(call),
    };
    let stream = caller.stream();
    let (outcome, lines) = run(
        state,
        job,
        &id,
        record,
        &head,
        native.as_ref(),
        asked,
        &targets,
        dialect,
        stream,
        config.max_answer_bytes,
    );
    Some(Box::new((caller, outcome, lines)))
}

/// What a caller's own dialect says beside the body.
fn native(call: &Call<'_>) -> Option<Native> {
    /// Longer than any list of the vendor's.
    const LONGEST: usize = 4 * 1024;
    let of_gemini = matches!(call.dialect, Dialect::Gemini(_));
    if of_gemini {
        return Some(Native {
            convert: gemini::to_chat,
            own: Some(Format::Gemini),
            query: String::new(),
            headers: Vec::new(),
            converted: OnceCell::new(),
        });
    }
    if call.dialect != Dialect::Messages {
        return None;
    }
    let header = |name: &'static str| {
        let value = call.header(name)?;
        (!value.is_empty() && value.len() <= LONGEST).then(|| (name, value.to_owned()))
    };
    let is_query = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~=&%+,:".contains(&byte);
    let query = match call.query.len() <= LONGEST && call.query.bytes().all(is_query) {
        true => call.query.clone(),
        false => String::new(),
    };
    Some(Native {
        convert: messages::to_chat,
        own: Some(Format::Anthropic),
        query,
        headers: ["anthropic-beta"].into_iter().filter_map(header).collect(),
        converted: OnceCell::new(),
    })
}

/// Has one chat request answered: onto the stream, or for the caller of this to send. Gives the
/// header lines about the last attempt as well.
#[expect(
    clippy::too_many_arguments,
    reason = "all that an exchange consists of, once"
)]
fn run(
    state: &State,
    job: &Arc<Job>,
    id: &str,
    record: &mut Record,
    head: &Head<'_>,
    native: Option<&Native>,
    asked: Option<Arc<responses::Asked>>,
    targets: &[Target],
    dialect: Dialect,
    stream: Option<Arc<Stream>>,
    room: usize,
) -> (Result<(Answered, Lease), Refused>, String) {
    let recalled = OnceCell::new();
    let mut exchange = Exchange {
        state,
        job,
        head,
        dialect,
        encoder: Encoder::new(head, &state.memory, &state.learned, &recalled, &state.seals)
            .counting(record.must_count)
            .of(native)
            .answering(asked)
            .fetching(state.fetcher.as_ref().map(|fetcher| (fetcher, &**job))),
        stamp: Stamp {
            seed: inbound::unique(),
            created: crate::clock::unix_seconds(),
            model: head.model.to_string(),
            include_usage: head.include_usage,
            legacy_functions: false,
        },
        id,
        stream,
        encoded: Encoded::default(),
        broken: false,
        record,
        route_lines: String::new(),
        room,
    };
    let outcome = Tries::new(state, job, id).run(&mut exchange, targets);
    (outcome, exchange.route_lines)
}

/// What would be sent: to the first target whose format has words for the request.
fn outline(
    state: &State,
    head: &Head<'_>,
    (native, asked): (Option<&Native>, Option<&Arc<responses::Asked>>),
    targets: &[Target],
    id: &str,
    counts: bool,
) -> Result<Reply, ApiError> {
    let recalled = OnceCell::new();
    let mut encoder = Encoder::new(head, &state.memory, &state.learned, &recalled, &state.seals)
        .counting(counts)
        .of(native)
        .answering(asked.cloned());
    let mut refused = tries::nobody();
    let mut said = false;
    for (at, target) in targets.iter().enumerate() {
        let upstream = &state.config.upstreams[target.upstream];
        let encoded = match encoder.encode(upstream, &target.model) {
            Ok(encoded) => encoded,
            Err(error) => {
                // As of the answers of targets that are asked, the first one says most.
                if !std::mem::replace(&mut said, true) {
                    refused = error;
                }
                continue;
            }
        };
        let mut headers = vec![
            ("content-type", "application/json"),
            ("accept", upstream::accept(head.stream || encoder.streams())),
            ("x-request-id", id),
        ];
        let own = encoder.headers().iter();
        headers.extend(own.map(|(name, value)| (*name, &**value)));
        let outline = dry_run::Outline {
            method: "POST",
            path: &encoded.path,
            headers,
            body: Some(&encoded.body),
            dropped: &encoded.dropped,
        };
        return dry_run::reply(state, &targets[at..], &outline);
    }
    Err(refused)
}

/// One exchange on its way.
struct Exchange<'e, 'b> {
    state: &'e State,
    job: &'e Arc<Job>,
    head: &'e Head<'b>,
    dialect: Dialect,
    encoder: Encoder<'e, 'b>,
    stamp: Stamp,
    id: &'e str,
    /// Where events go; `None`: the answer is wanted whole.
    stream: Option<Arc<Stream>>,
    /// What the target at hand is sent.
    encoded: Encoded,
    /// The last attempt broke on its connection.
    broken: bool,
    record: &'e mut Record,
    /// Headers about the attempt that is being made.
    route_lines: String,
    /// Bytes that an answer may have, or an event of one that is streamed.
    room: usize,
}

impl Work for Exchange<'_, '_> {
    type Answer = Answered;

    fn record(&mut self) -> &mut Record {
        self.record
    }

    /// Part of an answer has been written, so nothing can be tried again.
    fn is_final(&self) -> bool {
        self.record.first_byte.is_some()
    }

    fn begin(&mut self, target: &Target) -> Result<Option<usize>, ApiError> {
        let upstream = &self.state.config.upstreams[target.upstream];
        let encode = || self.encoder.encode(upstream, &target.model);
        self.encoded = cancel::working(&self.job.cancel, encode)?;
        Ok(self.encoder.preferred_key(&upstream.name))
    }

    fn name(&self, target: &Target) -> String {
        match self.encoded.lane {
            Some(lane) => format!("{} ({lane})", target.model),
            None => target.model.clone(),
        }
    }

    fn attempt(&mut self, target: &Target, lease: &Lease) -> Result<Answered, Failure> {
        let upstream = &self.state.config.upstreams[target.upstream];
        let mask = |failure| self.state.masks.failure(failure);
        let mut outcome = self.send(target, lease).map_err(mask);
        // Not once part of an answer is out: a second one would follow it.
        while let Err(failure) = &outcome
            && !self.is_final()
            && let Some(mended) = cancel::working(&self.job.cancel, || {
                self.encoder
                    .mend(upstream, &target.model, failure, &self.encoded)
            })
        {
            // One more try on the same key, without what it refused.
            debug!("{}: sent again: {}", self.id, failure.message);
            self.encoded = mended.map_err(Failure::refused)?;
            outcome = self.send(target, lease).map_err(mask);
        }
        self.broken = matches!(&outcome, Err(failure) if failure.class == Class::Transport);
        outcome
    }

    fn asked(&self) -> Asked {
        Asked::of(&self.said())
    }

    fn said(&self) -> [&[u8]; 2] {
        [self.encoded.path.as_bytes(), &self.encoded.body]
    }
}

/// Keeps what a model has taught.
fn learn(state: &State, upstream: &Upstream, model: &str, lesson: Lesson) {
    let (name, now) = (&upstream.name, Instant::now());
    if state.learned.learn(name, model, lesson, now) {
        info!("learned from {name}: {} {lesson}", model.escape_debug());
    }
}

/// A model whose answers say which one serves it, and what that teaches.
fn watched(upstream: &Upstream, model: &str) -> Option<Box<str>> {
    let may_be_another = upstream.format == Format::Gemini && !upstream.options.gemini(model).third;
    may_be_another.then(|| model.into())
}

impl Exchange<'_, '_> {
    /// Sends the request with one key and writes what comes back.
    fn send(&mut self, target: &Target, lease: &Lease) -> Result<Answered, Failure> {
        let upstream = &self.state.config.upstreams[target.upstream];
        let mut encoded = std::mem::take(&mut self.encoded);
        let outcome = self.send_encoded(upstream, target, lease, &mut encoded);
        self.encoded = encoded;
        outcome
    }

    fn send_encoded(
        &mut self,
        upstream: &Upstream,
        target: &Target,
        lease: &Lease,
        encoded: &mut Encoded,
    ) -> Result<Answered, Failure> {
        if let Some(cause) = self.job.cancel.cause() {
            return Err(ended_for_good(cause));
        }
        let entered = cancel::enter(&self.job.cancel);
        self.record.attempt(&upstream.name, lease.key_name());
        self.describe_attempt(&upstream.name, &encoded.dropped);
        let streams = (self.head.stream || self.encoder.streams()) && !encoded.whole;
        let first_byte = match streams || upstream.first_byte_set {
            true => upstream.first_byte,
            // A whole answer begins when the model has finished, which the deadline bounds.
            false => self.job.left(),
        };
        let attempt = Attempt {
            upstream,
            key: &upstream.keys[lease.key()],
            line: &self.state.lines[target.upstream],
            fresh: self.broken,
            path: &encoded.path,
            body: &encoded.body,
            headers: self.encoder.headers(),
            id: self.id,
            first_byte,
            streams,
        };
        let sent = Instant::now();
        self.record.asks(&encoded.body);
        let answer = attempt.send(self.job);
        if answer.is_err() && self.job.cancel.cause().is_none() {
            self.record.asked_in_vain();
        }
        self.record.upstream_ms += sent.elapsed().as_secs_f64() * 1e3;
        let mut answer = answer?;
        if let Some(id) = answer
            .header("request-id")
            .or_else(|| answer.header("x-request-id"))
            .filter(|id| id.len() <= 200 && id.bytes().all(|byte| byte.is_ascii_graphic()))
        {
            push_header(&mut self.route_lines, "x-upstream-request-id", id);
        }
        let mut sink = Sink::new(
            self.encoder.speaker(
                encoded,
                &self.stamp,
                self.dialect,
                self.stream.is_some(),
                self.room,
            ),
            Notes::new(self.stamp.seed),
            self.room,
        )
        .counting(self.record.must_count);
        loop {
            let reading = Instant::now();
            let outcome =
                answer::read(self.room, self.job, &attempt, &mut answer, &mut sink, lease);
            if self.stream.is_none() {
                // A stream's caller reads along; here the whole answer is waited for.
                self.record.upstream_ms += reading.elapsed().as_secs_f64() * 1e3;
            }
            // However it ended, its timer must not end what follows.
            self.job.leave();
            self.record.hears(sink.usage(), sink.heard());
            let watched = watched(upstream, &target.model);
            if watched.is_some() && sink.is_of_third_generation() {
                learn(self.state, upstream, &target.model, Lesson::ThirdGeneration);
            }
            let halt = outcome?;
            // Before the caller hears of it, and may ask again.
            for lesson in self.encoder.tried() {
                learn(self.state, upstream, &target.model, lesson);
            }
            let answered = match halt {
                Halt::Ended(answered) => answered,
                Halt::Begun(events) => {
                    drop(std::mem::take(&mut answer.headers));
                    let live = Live {
                        upstream: target.upstream,
                        watched: watched.filter(|_| !sink.is_of_third_generation()),
                        answer,
                        events: events.moved(),
                        id: self.id.to_owned(),
                        encoded: match sink.may_continue() {
                            true => {
                                encoded.body.shrink_to_fit();
                                std::mem::take(encoded)
                            }
                            false => Encoded::default(),
                        },
                        sink,
                        first_byte,
                        _entered: entered,
                    };
                    return Ok(Answered::Begun(Box::new(live)));
                }
            };
            // Some answers come in several parts, each asked for with a request of its own.
            let Some(body) = sink.continuation(&encoded.body) else {
                self.record.spend(&self.state.limits);
                sink.take_notes()
                    .keep(&self.state.memory, &upstream.name, lease.key());
                return self.close(answered, &attempt, answer, sink);
            };
            let more = Attempt {
                body: &body,
                ..attempt
            };
            answer = more.send(self.job)?;
        }
    }

    /// The headers that tell about this attempt.
    fn describe_attempt(&mut self, upstream: &str, dropped: &[String]) {
        self.route_lines.clear();
        push_header(&mut self.route_lines, "x-weir-upstream", upstream);
        push_header(
            &mut self.route_lines,
            "x-weir-attempts",
            &self.record.attempts.to_string(),
        );
        if !dropped.is_empty() {
            push_header(&mut self.route_lines, "x-weir-dropped", &dropped.join(","));
        }
        if let Some(stream) = &self.stream {
            stream.announce(self.route_lines.clone());
        }
    }
}

/// The value of `Server-Timing`, in milliseconds with one digit.
pub fn timing(record: &Record) -> String {
    let mut value = String::with_capacity(48);
    value.push_str("weir;dur=");
    push_tenths(&mut value, record.own_ms());
    value.push_str(", upstream;dur=");
    push_tenths(&mut value, record.upstream_ms);
    value
}

/// The way of `{:.1}` over floating point costs four times as much.
fn push_tenths(text: &mut String, ms: f64) {
    let tenths = (ms * 10.0).round() as u64;
    text.push_str(&(tenths / 10).to_string());
    text.push('.');
    text.push(char::from(b'0' + (tenths % 10) as u8));
}

/// The places that can serve the request, in order.
pub fn targets(
    state: &State,
    model: &str,
    key: Option<&ClientKey>,
) -> Result<Vec<Target>, ApiError> {
    if key.is_some_and(|key| !key.allows(model)) {
        let message = format!("the model `{model}` is not open to this key");
        return Err(ApiError::new(404, message)
            .with_code("model_not_found")
            .with_param("model"));
    }
    let targets = state.route(model);
    match targets.is_empty() {
        true => Err(state.no_route(model)),
        false => Ok(targets),
    }
}

/// Bytes of a list of other models, and of a list of tools, in a request with a key that is for
/// certain models.
const MOST_OTHER_MODELS: usize = 64 * 1024;
const MOST_TOOLS_BYTES: usize = 2 * 1024 * 1024;

/// Refuses what names models beside its own that the caller's key is not for: some upstreams take a
/// list of others to ask instead, or a model for a tool.
pub fn check_other_models(body: &[u8], key: Option<&ClientKey>) -> Result<(), ApiError> {
    #[derive(serde::Deserialize)]
    struct Named {
        model: Option<serde_json::Value>,
    }
    let Some(key) = key.filter(|key| !key.models.is_empty()) else {
        return Ok(());
    };
    let Ok(fields) = serde_json::from_slice::<crate::json::Fields>(body) else {
        return Ok(());
    };
    let mut named: Vec<serde_json::Value> = Vec::new();
    for (member, raw) in &fields.0 {
        let most = match &**member {
            "models" | "fallbacks" => MOST_OTHER_MODELS,
            "tools" => MOST_TOOLS_BYTES,
            _ => continue,
        };
        if raw.get().len() > most {
            let message =
                format!("{member}: has more than the {most} bytes that are looked at for this key");
            return Err(ApiError::invalid(member.as_ref(), message));
        }
        match &**member {
            "models" | "fallbacks" => named.extend(serde_json::from_str(raw.get()).ok()),
            "tools" => {
                let tools = serde_json::from_str::<Vec<Named>>(raw.get());
                let models = tools.into_iter().flatten().filter_map(|tool| tool.model);
                named.extend(models);
            }
            _ => {}
        }
    }
    // Lists of names, or of lists by name.
    while let Some(value) = named.pop() {
        match value {
            serde_json::Value::Array(list) => named.extend(list),
            serde_json::Value::Object(members) => {
                named.extend(members.into_iter().map(|(_, value)| value));
            }
            serde_json::Value::String(name) if !key.allows(&name) => {
                return Err(ApiError::new(
                    404,
                    format!("the model `{name}` is not open to this key"),
                )
                .with_code("model_not_found")
                .with_param("models"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Answers with what is known whole.
pub fn tell(call: Call<'_>, reply: Reply, record: &mut Record) {
    record.status = reply.status;
    record.keep_answer(&reply.body);
    call.reply(reply);
}

pub fn refuse(call: Call<'_>, error: &ApiError, record: &mut Record) {
    record.error = Some(error.message.clone());
    let reply = call.refusal(error);
    tell(call, reply, record);
}

pub fn refuse_body(config: &Config, mut call: Call<'_>, problem: &NoBody, record: &mut Record) {
    let error = match problem {
        NoBody::TooLong => inbound::too_long(config.max_body_bytes),
        NoBody::Late => ApiError::new(
            408,
            format!(
                "the request body did not come within {} ms",
                config.body_wait.as_millis()
            ),
        ),
        NoBody::NoMemory => ApiError::new(
            503,
            "the gateway has no memory for a request of this length now",
        )
        .with_code("overloaded")
        .with_retry_after(Duration::from_secs(1)),
        NoBody::Cut => ApiError::new(
            400,
            "the request body ended too early or is not properly framed",
        ),
        NoBody::Packed(what) => ApiError::new(
            400,
            format!("the request body says that it is gzip (Content-Encoding), but {what}"),
        ),
        NoBody::Coding => {
            let message = "a Content-Encoding of a request body can be gzip or identity only";
            let error = ApiError::new(415, message).with_code("unsupported_content_encoding");
            call.add_common("Accept-Encoding", inbound::ACCEPTED);
            error
        }
    };
    if *problem == NoBody::NoMemory {
        record.status = error.status;
        record.error = Some(error.message.clone());
        return call.refuse_unread(&error);
    }
    refuse(call, &error, record);
}

#[cfg(test)]
mod tests {
    use super::push_tenths;

    #[test]
    fn milliseconds_have_one_rounded_digit() {
        for (ms, text) in [
            (0.0, "0.0"),
            (0.04, "0.0"),
            (0.06, "0.1"),
            (9.96, "10.0"),
            (1234.5, "1234.5"),
        ] {
            let mut shown = String::new();
            push_tenths(&mut shown, ms);
            assert_eq!(shown, text);
        }
    }
}
