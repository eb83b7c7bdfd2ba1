//! One attempt to pass a request on: its body out in pieces, and an answer or a failure.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ureq::http::Method;

use super::Parcel;
use super::body::Rest;
use crate::cancel;
use crate::desk::{Job, Phase};
use crate::error::ApiError;
use crate::exchange::tries::Work;
use crate::failure::{Class, Failure};
use crate::inbound::{Call, NoBody, too_long};
use crate::line::{Answer, Sent};
use crate::pool::{Asked, Lease};
use crate::record::Record;
use crate::reply::push_header;
use crate::route::Target;
use crate::server::State;
use crate::stream::Stream;
use crate::upstream::{Attempt, bearer, ended_for_good, standing_headers};

pub struct Relay<'r, 'w> {
    pub(super) state: &'r State,
    pub(super) job: &'r Arc<Job>,
    pub(super) record: &'r mut Record,
    /// Taken when the answer begins.
    pub(super) call: Option<Call<'w>>,
    /// An answer that is a stream of events.
    pub(super) stream: Option<Arc<Stream>>,
    method: &'r str,
    headers: Vec<(String, String)>,
    parcel: &'r Parcel<'r>,
    /// Bytes were taken from the caller that are not in memory.
    consumed: bool,
    /// The last attempt broke on its connection.
    broken: bool,
    /// How long the caller was waited for, of which the body's length allows only so much.
    waited: Duration,
    received: u64,
    pub(super) lines: String,
}

/// What is left of it at its end.
pub struct Left<'w> {
    /// The caller, if no answer has begun.
    pub call: Option<Call<'w>>,
    /// The answer, if it is a stream of events.
    pub stream: Option<Arc<Stream>>,
    /// What is to be told about the last attempt.
    pub lines: String,
}

impl<'r, 'w> Relay<'r, 'w> {
    pub fn new(
        state: &'r State,
        job: &'r Arc<Job>,
        record: &'r mut Record,
        call: Call<'w>,
        method: &'r str,
        headers: Vec<(String, String)>,
        parcel: &'r Parcel<'r>,
    ) -> Relay<'r, 'w> {
        Relay {
            state,
            job,
            record,
            call: Some(call),
            stream: None,
            method,
            headers,
            parcel,
            consumed: false,
            broken: false,
            waited: Duration::ZERO,
            received: 0,
            lines: String::new(),
        }
    }

    /// Whether an answer is one of the Responses format, whose callers take no notice of comments.
    pub(super) fn is_response(&self) -> bool {
        self.parcel.path.split('?').next() == Some("/responses")
    }

    /// Whether the caller asked for a stream.
    pub(super) fn wants_stream(&self) -> bool {
        let fields = serde_json::from_slice::<crate::json::Fields<'_>>(&self.parcel.body.held);
        let stream = fields.ok().and_then(|fields| fields.get("stream"));
        stream.is_some_and(|raw| raw.get() == "true")
    }

    pub fn left(self) -> Left<'w> {
        Left {
            call: self.call,
            stream: self.stream,
            lines: self.lines,
        }
    }

    fn exchange(&mut self, target: &Target, lease: &Lease) -> Result<u16, Failure> {
        let state = self.state;
        let upstream = &state.config.upstreams[target.upstream];
        if let Some(cause) = self.job.cancel.cause() {
            return Err(ended_for_good(cause));
        }
        let _entered = cancel::enter(&self.job.cancel);
        self.record.attempt(&upstream.name, lease.key_name());
        self.lines.clear();
        push_header(&mut self.lines, "x-weir-upstream", &upstream.name);
        push_header(
            &mut self.lines,
            "x-weir-attempts",
            &self.record.attempts.to_string(),
        );
        let attempt = Attempt {
            upstream,
            key: &upstream.keys[lease.key()],
            line: &state.lines[target.upstream],
            fresh: self.broken,
            path: self.parcel.path,
            body: &[],
            headers: &[],
            id: "",
            // What is asked for may be made as a whole before its first byte.
            first_byte: match upstream.first_byte_set {
                true => upstream.first_byte,
                false => self.job.left(),
            },
            streams: false,
        };
        let sent = Instant::now();
        // What a form or a file costs is anybody's guess.
        let counted = match self.parcel.body.is_json {
            true => &*self.parcel.body.held,
            false => &[],
        };
        self.record.asks(counted);
        let answer = self.send(&attempt, &target.model);
        self.record.upstream_ms += sent.elapsed().as_secs_f64() * 1e3;
        let refused = match &answer {
            Ok(answer) => !(200..300).contains(&answer.status),
            Err(_) => self.job.cancel.cause().is_none(),
        };
        if refused {
            self.record.asked_in_vain();
        }
        let mut answer = answer?;
        if !(200..300).contains(&answer.status) {
            let failure = attempt.failure_of(self.job, &mut answer);
            let lacks = self.parcel.may_lack && matches!(answer.status, 404 | 405 | 501);
            return Err(match lacks {
                true => Failure::refused(ApiError::new(404, failure.message)),
                false => failure,
            });
        }
        if answer.is_compressed() {
            let what = "the upstream answered in an encoding that was not asked for";
            return Err(Failure::malformed(what));
        }
        lease.succeeded();
        self.pass_back(&attempt, answer)
    }

    /// Sends the request and waits for the head of an answer.
    fn send(&mut self, attempt: &Attempt<'_>, model: &str) -> Result<Answer, Failure> {
        let url = format!("{}{}", attempt.upstream.base_url, self.parcel.path);
        let bearer = bearer(attempt.upstream, attempt.key);
        let mut headers: Vec<(&str, &str)> = Vec::with_capacity(8);
        headers.extend(self.headers.iter().map(|(name, value)| (&**name, &**value)));
        headers.extend(standing_headers(attempt.upstream, bearer.as_deref()));
        let method = match self.method {
            "GET" => Method::GET,
            "DELETE" => Method::DELETE,
            _ => Method::POST,
        };
        let held = self.parcel.body.named(model);
        let (rest, length) = match self.parcel.body.rest {
            Rest::None => (None, Some(held.len() as u64)),
            Rest::Known(rest) => (Some(rest), Some(held.len() as u64 + rest)),
            Rest::AtMost(rest) => (Some(rest), None),
        };
        let mut fault = None;
        self.job.enter(Phase::FirstByte, attempt.first_byte);
        let line = match attempt.fresh {
            true => attempt.line.fresh(),
            false => attempt.line.clone(),
        };
        let sent = match (rest, self.call.as_mut()) {
            (Some(rest), Some(call)) => {
                let mut upload = Upload {
                    held: &held,
                    rest,
                    ends_there: length.is_some(),
                    call,
                    job: self.job,
                    wait: self.state.config.body_wait,
                    attempt,
                    consumed: &mut self.consumed,
                    waited: &mut self.waited,
                    received: &mut self.received,
                    fault: &mut fault,
                };
                line.request(method, &url, &headers, Sent::Stream(&mut upload, length))
            }
            _ if method == Method::POST || !held.is_empty() => {
                line.request(method, &url, &headers, Sent::Bytes(&held))
            }
            _ => line.request(method, &url, &headers, Sent::Nothing),
        };
        self.job.leave();
        sent.map_err(|broken| match fault {
            Some(NoBody::Late) => {
                Failure::refused(ApiError::new(408, "the request body did not come in time"))
            }
            Some(NoBody::TooLong) => Failure::refused(too_long(self.state.config.max_body_bytes)),
            Some(_) => Failure::refused(ApiError::new(
                400,
                "the request body ended too early or is not properly framed",
            )),
            None => attempt.unsent(self.job, &broken),
        })
    }
}

impl Work for Relay<'_, '_> {
    type Answer = u16;

    fn record(&mut self) -> &mut Record {
        self.record
    }

    fn is_final(&self) -> bool {
        self.consumed || self.call.is_none()
    }

    fn begin(&mut self, _target: &Target) -> Result<Option<usize>, ApiError> {
        Ok(None)
    }

    /// A model that has no images, say, may well be fit for chats.
    fn name(&self, target: &Target) -> String {
        let family = self
            .parcel
            .path
            .split(['/', '?'])
            .nth(1)
            .unwrap_or_default();
        format!("{} ({family})", target.model)
            .trim_start()
            .to_owned()
    }

    fn attempt(&mut self, target: &Target, lease: &Lease) -> Result<u16, Failure> {
        let outcome = self.exchange(target, lease);
        self.broken = matches!(&outcome, Err(failure) if failure.class == Class::Transport);
        outcome
    }

    /// The same key may be fine for chats, whatever this route says.
    fn asked(&self) -> Asked {
        Asked {
            aside: true,
            ..Asked::default()
        }
    }

    fn said(&self) -> [&[u8]; 2] {
        [self.parcel.path.as_bytes(), &self.parcel.body.held]
    }
}

/// A request's body, of which only the beginning is in memory.
struct Upload<'u, 'w> {
    held: &'u [u8],
    /// So many more bytes may come.
    rest: u64,
    /// And so many have to.
    ends_there: bool,
    call: &'u mut Call<'w>,
    job: &'u Job,
    wait: Duration,
    waited: &'u mut Duration,
    received: &'u mut u64,
    attempt: &'u Attempt<'u>,
    consumed: &'u mut bool,
    fault: &'u mut Option<NoBody>,
}

/// Who sends a long body has to send so much of it a second on average, besides the time that any
/// body may take: with a byte now and then, a few callers would keep every worker for the whole
/// deadline, and a slot of the upstream each. A telephone far from everything is faster.
const LEAST_BYTES_A_SECOND: u64 = 4 * 1024;

/// How long the caller may still be waited for. The time that the upstream takes to read is not its.
fn patience(wait: Duration, received: u64, waited: Duration) -> Duration {
    let earned = Duration::from_millis(received.saturating_mul(1000) / LEAST_BYTES_A_SECOND);
    wait.saturating_add(earned).saturating_sub(waited).min(wait)
}

impl Upload<'_, '_> {
    fn patience(&self) -> Duration {
        patience(self.wait, *self.received, *self.waited)
    }
}

impl Read for Upload<'_, '_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if !self.held.is_empty() {
            return self.held.read(into);
        }
        // Of a body without a length, a byte more shows that it is too long.
        let room = self.rest + u64::from(!self.ends_there);
        let most = usize::try_from(room).unwrap_or(usize::MAX).min(into.len());
        if most == 0 {
            return Ok(0);
        }
        *self.consumed = true;
        let asked = Instant::now();
        self.job
            .enter(Phase::Body, self.patience().min(self.job.left()));
        let read = self.call.read_piece(&mut into[..most], self.job);
        *self.waited += asked.elapsed();
        *self.received += *read.as_ref().unwrap_or(&0) as u64;
        self.job.enter(Phase::FirstByte, self.attempt.first_byte);
        let fault = match read {
            Ok(count) if count as u64 > self.rest => NoBody::TooLong,
            Ok(count) => {
                self.rest -= count as u64;
                return Ok(count);
            }
            Err(fault) => fault,
        };
        *self.fault = Some(fault);
        Err(io::Error::other("the caller's body broke off"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_sends_slowly_is_waited_for_as_long_as_the_body_is_worth() {
        let second = Duration::from_secs(1);
        let wait = 30 * second;
        assert_eq!(patience(wait, 0, Duration::ZERO), wait);
        assert_eq!(patience(wait, 0, 29 * second), second);
        assert_eq!(patience(wait, 100, 30 * second), Duration::from_millis(24));
        assert_eq!(patience(wait, 0, 31 * second), Duration::ZERO);
        // At four times the least rate, there is always time.
        let received = 16 * 1024 * 600;
        assert_eq!(patience(wait, received, 600 * second), wait);
        assert_eq!(patience(wait, u64::MAX, Duration::MAX), Duration::ZERO);
    }
}
