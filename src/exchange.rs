//! The story of one chat exchange, top to bottom.
//!
//! The only room that knows the order: body, route, lease, encode, send, decode, write. What it
//! branches on is decided elsewhere: the class of a failure says what follows from it.

use std::cell::OnceCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::debug;

use crate::cancel::{self, Cause};
use crate::config::{ClientKey, Config};
use crate::desk::Job;
use crate::dialect::openai::{self, Head, Stamp};
use crate::error::ApiError;
use crate::failure::{Class, Failure, Verdict};
use crate::inbound::{self, Call, NoBody};
use crate::memory::Notes;
use crate::pool::{Lease, NoLease, Wanted};
use crate::provider::Encoded;
use crate::record::Record;
use crate::reply::{Reply, push_header};
use crate::route::{self, Target};
use crate::server::State;
use crate::stream::{self, Stream};
use crate::upstream::{Attempt, ended_for_good};

mod answer;
mod encode;

use answer::{Answered, Sink};
use encode::Encoder;

/// Answers one `POST /v1/chat/completions`.
pub fn chat(
    state: &State,
    mut call: Call<'_>,
    job: &Arc<Job>,
    key: Option<&ClientKey>,
    record: &mut Record,
) {
    let config = &state.config;
    let body = match call.read_body(config.max_body_bytes, job, config.body_wait) {
        Ok(body) => body,
        Err(problem) => return refuse_body(config, call, &problem, record),
    };
    record.keep_request(&body);
    let head = match Head::read(&body) {
        Ok(head) => head,
        Err(error) => return refuse(call, &error, record),
    };
    record.model = head.model.to_string();
    record.streamed = head.stream;
    let targets = match targets(config, &head, key) {
        Ok(targets) => targets,
        Err(error) => return refuse(call, &error, record),
    };
    let id = call.id.clone();
    let caller = if head.stream {
        let old = call.old;
        let Some((writer, fixed)) = call.into_writer() else {
            return;
        };
        let stream_head = stream::Head {
            content_type: "text/event-stream",
            fixed,
            attempt: String::new(),
        };
        let stream = Arc::new(Stream::new(
            writer,
            !old,
            stream_head,
            config.keepalive,
            Arc::clone(&job.held),
        ));
        job.set_stream(&stream);
        Caller::Stream(Unfinished(stream))
    } else {
        Caller::Plain(call)
    };
    let recalled = OnceCell::new();
    let mut exchange = Exchange {
        state,
        job,
        head: &head,
        encoder: Encoder::new(&head, &state.memory, &recalled),
        stamp: Stamp {
            seed: inbound::unique(),
            created: crate::clock::unix_seconds(),
            model: head.model.to_string(),
            include_usage: head.include_usage,
            legacy_functions: false,
        },
        id: &id,
        stream: caller.stream(),
        retries_left: config.retries,
        broken: false,
        record,
        route_lines: String::new(),
    };
    let outcome = exchange.run(&targets);
    let route_lines = std::mem::take(&mut exchange.route_lines);
    caller.finish(outcome, &route_lines, record);
}

/// Whom the answer goes to.
#[expect(
    clippy::large_enum_variant,
    reason = "one of them lives on a worker's stack for the time of a request"
)]
enum Caller<'w> {
    Plain(Call<'w>),
    Stream(Unfinished),
}

/// A stream that must be ended on every way out, panics included.
struct Unfinished(Arc<Stream>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        let error = ApiError::new(500, "the gateway failed to answer this request")
            .with_code("internal_error");
        // Does nothing to a stream that has ended.
        let _ = self
            .0
            .fail(Reply::error(&error), &openai::error_event(&error));
    }
}

impl Caller<'_> {
    fn stream(&self) -> Option<Arc<Stream>> {
        match self {
            Caller::Plain(_) => None,
            Caller::Stream(unfinished) => Some(Arc::clone(&unfinished.0)),
        }
    }

    /// Says how it ended, to whoever is still there to hear it.
    fn finish(self, outcome: Result<Answered, Refused>, lines: &str, record: &mut Record) {
        if let Some(stream) = self.stream() {
            record.heartbeats = stream.heartbeats();
        }
        match (outcome, self) {
            (Ok(Answered::Streamed), _) => record.status = 200,
            (Ok(Answered::Whole(body)), Caller::Plain(call)) => {
                record.status = 200;
                record.first_byte = Some(record.begun.millis());
                record.keep_answer(&body);
                let mut reply = Reply::json(200, body);
                reply.headers.push_str(lines);
                push_header(&mut reply.headers, "Server-Timing", timing(record));
                call.reply(reply);
            }
            // A whole answer is only asked for where there is no stream.
            (Ok(Answered::Whole(_)), Caller::Stream(_)) => record.status = 500,
            (Err(refused), caller) => {
                record.error = Some(refused.error.message.clone());
                if refused.caller_gone {
                    record.status = 499;
                    return;
                }
                record.status = refused.error.status;
                let mut reply = Reply::error(&refused.error);
                record.keep_answer(&reply.body);
                reply.headers.push_str(lines);
                push_header(&mut reply.headers, "Server-Timing", timing(record));
                if refused.hopeless {
                    push_header(&mut reply.headers, "x-should-retry", "false");
                }
                match caller {
                    Caller::Plain(call) => call.reply(reply),
                    Caller::Stream(unfinished) => {
                        let event = openai::error_event(&refused.error);
                        let _ = unfinished.0.fail(reply, &event);
                    }
                }
            }
        }
    }
}

/// There is no answer, or no whole one.
struct Refused {
    error: Box<ApiError>,
    caller_gone: bool,
    /// Asking again soon cannot help: the key is refused, not busy.
    hopeless: bool,
}

impl Refused {
    fn plain(error: ApiError) -> Refused {
        Refused {
            error: Box::new(error),
            caller_gone: false,
            hopeless: false,
        }
    }
}

/// One exchange on its way.
struct Exchange<'e, 'b> {
    state: &'e State,
    job: &'e Arc<Job>,
    head: &'e Head<'b>,
    encoder: Encoder<'e, 'b>,
    stamp: Stamp,
    id: &'e str,
    /// Where events go; `None`: the answer is wanted whole.
    stream: Option<Arc<Stream>>,
    retries_left: u32,
    /// The last attempt broke on its connection.
    broken: bool,
    record: &'e mut Record,
    /// Headers about the attempt that is being made.
    route_lines: String,
}

/// What follows a failed attempt on one target.
enum Next {
    /// Another attempt on this target.
    Again,
    /// This target is done with; another may serve.
    Elsewhere,
    GiveUp,
}

impl Exchange<'_, '_> {
    /// Tries the targets in order.
    fn run(&mut self, targets: &[Target]) -> Result<Answered, Refused> {
        let mut last: Option<Refused> = None;
        for target in targets {
            match self.try_target(target) {
                Ok(answered) => return Ok(answered),
                Err((refused, Next::Elsewhere)) => {
                    last = Some(match last {
                        // Being out of quota says when to come back; being refused says nothing.
                        Some(before) if before.error.status == 429 && refused.hopeless => before,
                        _ => refused,
                    });
                }
                Err((refused, _)) => return Err(refused),
            }
        }
        Err(last.unwrap_or_else(|| {
            Refused::plain(ApiError::new(503, "no upstream can serve this model now"))
        }))
    }

    /// Tries one target with as many of its keys as make sense.
    fn try_target(&mut self, target: &Target) -> Result<Answered, (Refused, Next)> {
        let upstream = &self.state.config.upstreams[target.upstream];
        let pool = &self.state.pools[target.upstream];
        self.record.upstream.clone_from(&upstream.name);
        let mut encoded = self
            .encoder
            .encode(upstream, &target.model)
            .map_err(|error| (Refused::plain(error), Next::GiveUp))?;
        let mut wanted = Wanted {
            model: target.model.clone(),
            barred: Vec::new(),
            preferred: self.encoder.preferred_key(&upstream.name),
        };
        let mut refused_last: Option<Refused> = None;
        let state = self.state;
        let mask = |failure| state.masks.failure(failure);
        loop {
            let limit = self.state.config.lease_wait.min(self.job.left());
            let lease = match pool.lease(&wanted, limit, &self.job.cancel) {
                Ok(lease) => lease,
                Err(none) => {
                    let refused = self.no_lease(&upstream.name, &none, refused_last);
                    let next = match none {
                        NoLease::Cancelled => Next::GiveUp,
                        _ => Next::Elsewhere,
                    };
                    return Err((refused, next));
                }
            };
            let mut outcome = self.attempt(target, &lease, &encoded).map_err(mask);
            if let Err(failure) = &outcome
                && let Some(mended) = self.encoder.mend(upstream, &target.model, failure)
            {
                // One more try on the same key, without what it refused.
                debug!("{}: sent again: {}", self.id, failure.message);
                encoded = mended.map_err(|error| (Refused::plain(error), Next::GiveUp))?;
                outcome = self.attempt(target, &lease, &encoded).map_err(mask);
            }
            let failure = match outcome {
                Ok(answered) => return Ok(answered),
                Err(failure) => failure,
            };
            debug!(
                "{}: {} with key {} of {}: {} {}",
                self.id,
                failure.class.name(),
                lease.key_name(),
                upstream.name,
                failure.status,
                failure.message
            );
            self.broken = failure.class == Class::Transport;
            let key = lease.key();
            lease.failed(&failure, Instant::now());
            let mut refused = Refused {
                error: Box::new(failure.to_error(&upstream.name, lease.key_name())),
                caller_gone: failure.class == Class::CallerGone,
                hopeless: failure.class == Class::KeyBad,
            };
            // Given back before the next one is taken.
            drop(lease);
            if failure.class == Class::RateLimit {
                let soonest = pool.soonest_quota(&target.model, Instant::now());
                refused.error.retry_after = soonest.or(refused.error.retry_after);
            }
            let next = self.next(&failure, key, &mut wanted);
            match next {
                Next::Again => {
                    refused_last = Some(match refused_last {
                        Some(before) if before.error.status == 429 && refused.hopeless => before,
                        _ => refused,
                    });
                }
                _ => return Err((refused, next)),
            }
        }
    }

    /// What the failure's class says, applied to this request.
    fn next(&mut self, failure: &Failure, key: usize, wanted: &mut Wanted) -> Next {
        if self.answer_has_begun() {
            return Next::GiveUp;
        }
        match failure.class.verdict() {
            Verdict::Forward | Verdict::Abandon => Next::GiveUp,
            Verdict::NextTarget => Next::Elsewhere,
            Verdict::SwitchKey => {
                if failure.class == Class::RateLimit && !self.state.config.quota_switch {
                    return Next::GiveUp;
                }
                self.record.switches += 1;
                wanted.barred.push(key);
                Next::Again
            }
            Verdict::Retry => {
                if self.retries_left == 0 {
                    return Next::Elsewhere;
                }
                self.retries_left -= 1;
                let done = self.state.config.retries - self.retries_left;
                let pause = back_off(self.state.config.backoff, done, inbound::unique());
                if self.job.cancel.pause(pause.min(self.job.left())) {
                    Next::Again
                } else {
                    Next::GiveUp
                }
            }
        }
    }

    /// Part of an answer has been written, so nothing can be tried again.
    fn answer_has_begun(&self) -> bool {
        self.record.first_byte.is_some()
    }

    /// Sends the request with one key and writes what comes back.
    fn attempt(
        &mut self,
        target: &Target,
        lease: &Lease,
        encoded: &Encoded,
    ) -> Result<Answered, Failure> {
        let upstream = &self.state.config.upstreams[target.upstream];
        if let Some(cause) = self.job.cancel.cause() {
            return Err(ended_for_good(cause));
        }
        let _entered = cancel::enter(&self.job.cancel);
        self.record.attempts += 1;
        lease.key_name().clone_into(&mut self.record.key);
        self.describe_attempt(&upstream.name, &encoded.dropped);
        let streams = self.head.stream || self.encoder.translates();
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
            id: self.id,
            first_byte,
            streams,
        };
        let sent = Instant::now();
        let answer = attempt.send(self.job);
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
            self.encoder
                .speaker(encoded, &self.stamp, self.stream.is_some()),
            Notes::new(self.stamp.seed),
        );
        loop {
            let outcome = self.relay(&attempt, &mut answer, &mut sink, lease);
            // However it ended, its timer must not end what follows.
            self.job.leave();
            self.record.usage = sink.usage();
            let answered = outcome?;
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
            self.record.attempts,
        );
        if !dropped.is_empty() {
            push_header(&mut self.route_lines, "x-weir-dropped", dropped.join(","));
        }
        if let Some(stream) = &self.stream {
            stream.announce(self.route_lines.clone());
        }
    }

    /// What a caller is told when there is no key to try.
    fn no_lease(&self, upstream: &str, none: &NoLease, before: Option<Refused>) -> Refused {
        let no_capacity = |status: u16, message: String| {
            Refused::plain(ApiError::new(status, message).with_code("no_capacity"))
        };
        match none {
            NoLease::Cancelled => {
                let cause = self.job.cancel.cause().unwrap_or(Cause::Deadline);
                Refused {
                    error: Box::new(ended_for_good(cause).to_error(upstream, "")),
                    caller_gone: cause == Cause::CallerGone,
                    hopeless: false,
                }
            }
            // The failure that made a key rest says more than that there is none left.
            _ if before.is_some() && !matches!(none, NoLease::Busy | NoLease::LineFull) => {
                before.unwrap_or_else(|| no_capacity(503, String::new()))
            }
            NoLease::Spent => no_capacity(503, format!("every key of upstream {upstream} failed")),
            NoLease::Resting {
                class,
                soonest,
                why,
            } => {
                let after = soonest.unwrap_or(Duration::from_secs(1));
                let mut refused = match class {
                    Class::RateLimit => Refused::plain(
                        ApiError::new(
                            429,
                            format!("every key of upstream {upstream} is out of quota: {why}"),
                        )
                        .with_code("rate_limit_exceeded"),
                    ),
                    Class::ModelMissing => Refused::plain(
                        ApiError::new(404, why.clone())
                            .with_code("model_not_found")
                            .with_param("model"),
                    ),
                    Class::KeyBad => Refused {
                        hopeless: true,
                        ..Refused::plain(
                            ApiError::new(
                                502,
                                format!("upstream {upstream} refused its keys: {why}"),
                            )
                            .with_code("upstream_key_refused"),
                        )
                    },
                    _ => no_capacity(
                        503,
                        format!("every key of upstream {upstream} rests: {why}"),
                    ),
                };
                if matches!(refused.error.status, 429 | 503) {
                    refused.error.retry_after = Some(after);
                }
                refused
            }
            NoLease::Busy | NoLease::LineFull => {
                let what = match none {
                    NoLease::Busy => "stayed busy",
                    _ => "are busy and too many requests wait for them",
                };
                let mut refused =
                    no_capacity(503, format!("all slots of upstream {upstream} {what}"));
                refused.error.retry_after = Some(Duration::from_secs(1));
                refused
            }
        }
    }
}

/// The pause before the `count`th retry: doubling, and a quarter of it left to chance.
fn back_off(first: Duration, count: u32, chance: u64) -> Duration {
    const CEILING: Duration = Duration::from_secs(8);
    let full = first
        .saturating_mul(1 << count.saturating_sub(1).min(16))
        .min(CEILING);
    let share = (chance % 256) as f64 / 1024.0;
    full.mul_f64(1.0 - share)
}

fn timing(record: &Record) -> String {
    format!(
        "weir;dur={:.1}, upstream;dur={:.1}",
        record.own_ms(),
        record.upstream_ms
    )
}

/// The places that can serve the request, in order.
fn targets(
    config: &Config,
    head: &Head<'_>,
    key: Option<&ClientKey>,
) -> Result<Vec<Target>, ApiError> {
    let model = &*head.model;
    let missing = |what: &str| {
        Err(ApiError::new(404, format!("the model `{model}` {what}"))
            .with_code("model_not_found")
            .with_param("model"))
    };
    if key.is_some_and(|key| !key.allows(model)) {
        return missing("is not open to this key");
    }
    let targets = route::route(config, model);
    if targets.is_empty() {
        return missing("is served by no upstream of this gateway");
    }
    Ok(targets)
}

fn refuse(call: Call<'_>, error: &ApiError, record: &mut Record) {
    record.status = error.status;
    record.error = Some(error.message.clone());
    call.reply(Reply::error(error));
}

fn refuse_body(config: &Config, call: Call<'_>, problem: &NoBody, record: &mut Record) {
    let error = match problem {
        NoBody::TooLong => ApiError::new(
            413,
            format!(
                "the request body is longer than {} bytes",
                config.max_body_bytes
            ),
        )
        .with_code("request_too_large"),
        NoBody::Late => ApiError::new(
            408,
            format!(
                "the request body did not come within {} ms",
                config.body_wait.as_millis()
            ),
        ),
        NoBody::Cut => ApiError::new(400, "the request body ended before its declared length"),
    };
    refuse(call, &error, record);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_ceiling_and_vary_by_a_quarter() {
        let first = Duration::from_millis(200);
        assert_eq!(back_off(first, 1, 0), first);
        assert_eq!(back_off(first, 3, 0), first * 4);
        assert_eq!(back_off(first, 60, 0), Duration::from_secs(8));
        let least = back_off(first, 1, 255).as_secs_f64();
        assert!((0.150..0.151).contains(&least), "{least}");
    }
}
