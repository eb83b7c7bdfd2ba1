//! One attempt to pass a request on: its body out in pieces, the answer back in pieces.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Instant;

use log::debug;
use ureq::http::Method;

use super::Parcel;
use super::counted::Tail;
use crate::cancel;
use crate::desk::{Job, Phase};
use crate::error::ApiError;
use crate::exchange::timing;
use crate::exchange::tries::Work;
use crate::failure::{Class, Failure};
use crate::inbound::{Call, NoBody};
use crate::line::{Answer, Sent};
use crate::pool::Lease;
use crate::record::Record;
use crate::reply::{push_header, reason};
use crate::route::Target;
use crate::server::State;
use crate::upstream::{Attempt, bearer, ended_for_good, standing_headers};

/// Headers of an answer that are the caller's to see, besides the vendor's own `openai-*`.
const PASSED_BACK: &[&str] = &[
    "content-type",
    "content-disposition",
    "content-range",
    "accept-ranges",
    "etag",
    "last-modified",
];

/// A piece on its way, in either direction.
const PIECE: usize = 16 * 1024;

pub struct Relay<'r, 'w> {
    state: &'r State,
    job: &'r Arc<Job>,
    record: &'r mut Record,
    /// Taken when the answer begins.
    call: Option<Call<'w>>,
    method: &'r str,
    headers: Vec<(String, String)>,
    parcel: &'r Parcel<'r>,
    /// Bytes were taken from the caller that are not in memory.
    consumed: bool,
    /// The last attempt broke on its connection.
    broken: bool,
    lines: String,
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
            method,
            headers,
            parcel,
            consumed: false,
            broken: false,
            lines: String::new(),
        }
    }

    /// The caller, if no answer has begun, and what is to be told about the last attempt.
    pub fn left(self) -> (Option<Call<'w>>, String) {
        (self.call, self.lines)
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
        push_header(&mut self.lines, "x-weir-attempts", self.record.attempts);
        let attempt = Attempt {
            upstream,
            key: &upstream.keys[lease.key()],
            line: &state.lines[target.upstream],
            fresh: self.broken,
            path: self.parcel.path,
            body: &[],
            id: "",
            // What is asked for may be made as a whole before its first byte.
            first_byte: match upstream.first_byte_set {
                true => upstream.first_byte,
                false => self.job.left(),
            },
            streams: false,
        };
        let sent = Instant::now();
        let answer = self.send(&attempt, &target.model);
        self.record.upstream_ms += sent.elapsed().as_secs_f64() * 1e3;
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
        let length = held.len() as u64 + self.parcel.body.rest;
        let mut fault = None;
        self.job.enter(Phase::FirstByte, attempt.first_byte);
        let line = match attempt.fresh {
            true => attempt.line.fresh(),
            false => attempt.line.clone(),
        };
        let sent = match (self.parcel.body.rest, self.call.as_mut()) {
            (1.., Some(call)) => {
                let mut upload = Upload {
                    held: &held,
                    rest: self.parcel.body.rest,
                    call,
                    job: self.job,
                    wait: self.state.config.body_wait,
                    attempt,
                    consumed: &mut self.consumed,
                    fault: &mut fault,
                };
                line.request(method, &url, &headers, Sent::Stream(&mut upload, length))
            }
            _ if method == Method::POST || length > 0 => {
                line.request(method, &url, &headers, Sent::Bytes(&held))
            }
            _ => line.request(method, &url, &headers, Sent::Nothing),
        };
        self.job.leave();
        sent.map_err(|broken| match fault {
            Some(NoBody::Late) => {
                Failure::refused(ApiError::new(408, "the request body did not come in time"))
            }
            Some(_) => Failure::refused(ApiError::new(
                400,
                "the request body ended before its declared length",
            )),
            None => attempt.unsent(self.job, &broken),
        })
    }

    /// Writes the answer to the caller as it comes.
    fn pass_back(&mut self, attempt: &Attempt<'_>, mut answer: Answer) -> Result<u16, Failure> {
        let Some(call) = self.call.take() else {
            return Err(Failure::caller_gone());
        };
        let (old, scissors) = (call.old, call.scissors());
        let Some((mut writer, common)) = call.into_writer() else {
            return Err(Failure::caller_gone());
        };
        let length = answer
            .header("content-length")
            .and_then(|length| length.parse::<u64>().ok());
        let empty = answer.status == 204;
        let chunked = length.is_none() && !old && !empty;
        let mut head = head_of(&answer, &common);
        head.push_str(&self.lines);
        push_header(&mut head, "Server-Timing", timing(self.record));
        head.push_str(&match length {
            _ if empty => "\r\n".to_owned(),
            Some(length) => format!("Content-Length: {length}\r\n\r\n"),
            None if chunked => "Transfer-Encoding: chunked\r\n\r\n".to_owned(),
            None => "Connection: close\r\n\r\n".to_owned(),
        });
        self.record.first_byte = Some(self.record.begun.millis());
        let mut tail = Tail::default();
        let mut out = head.into_bytes();
        let mut piece = vec![0; PIECE];
        let mut left = length;
        loop {
            self.job.enter(Phase::Between, attempt.upstream.idle);
            let count = match answer.body.read(&mut piece) {
                Ok(count) => count,
                Err(error) => return Err(attempt.broken(self.job, &error)),
            };
            self.job.leave();
            left = left.map(|left| left.saturating_sub(count as u64));
            let over = count == 0 || left == Some(0);
            match chunked {
                true if count > 0 => {
                    let _ = write!(Text(&mut out), "{count:x}\r\n");
                    out.extend_from_slice(&piece[..count]);
                    out.extend_from_slice(b"\r\n");
                }
                true => out.extend_from_slice(b"0\r\n\r\n"),
                false => out.extend_from_slice(&piece[..count]),
            }
            tail.push(&piece[..count]);
            self.record.keep_answer(&piece[..count]);
            if over {
                self.record.usage = tail.usage();
                self.record.spend(&self.state.limits);
                self.job.held.release();
            }
            let written = writer.write_all(&out).and_then(|()| writer.flush());
            if let Err(error) = &written {
                debug!("{}: cannot write to the caller: {error}", self.record.id);
                // One who did not read in time would take the next answer for the rest of this.
                scissors.cut();
                return Err(Failure::caller_gone());
            }
            out.clear();
            if over {
                if count > 0 {
                    // Read to its end, the connection can be used again.
                    let _ = answer.body.read(&mut piece[..1]);
                }
                return Ok(answer.status);
            }
        }
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
}

/// Status line and headers, without what says where the body ends.
fn head_of(answer: &Answer, common: &str) -> String {
    let status = answer.status;
    let mut head = format!("HTTP/1.1 {status} {}\r\n{common}", reason(status));
    for (name, value) in &answer.headers {
        let name = name.as_str();
        if let Ok(value) = value.to_str()
            && (PASSED_BACK.contains(&name) || name.starts_with("openai-"))
        {
            push_header(&mut head, name, value);
        }
        if name == "x-request-id"
            && let Ok(value) = value.to_str()
        {
            push_header(&mut head, "x-upstream-request-id", value);
        }
    }
    head
}

/// Text into bytes.
struct Text<'t>(&'t mut Vec<u8>);

impl std::fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// A request's body, of which only the beginning is in memory.
struct Upload<'u, 'w> {
    held: &'u [u8],
    rest: u64,
    call: &'u mut Call<'w>,
    job: &'u Job,
    wait: std::time::Duration,
    attempt: &'u Attempt<'u>,
    consumed: &'u mut bool,
    fault: &'u mut Option<NoBody>,
}

impl Read for Upload<'_, '_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if !self.held.is_empty() {
            return self.held.read(into);
        }
        let most = usize::try_from(self.rest).unwrap_or(usize::MAX);
        let most = most.min(into.len());
        if most == 0 {
            return Ok(0);
        }
        *self.consumed = true;
        self.job.enter(Phase::Body, self.wait.min(self.job.left()));
        let read = self.call.read_piece(&mut into[..most], self.job);
        self.job.enter(Phase::FirstByte, self.attempt.first_byte);
        match read {
            Ok(count) => {
                self.rest -= count as u64;
                Ok(count)
            }
            Err(fault) => {
                *self.fault = Some(fault);
                Err(io::Error::other("the caller's body broke off"))
            }
        }
    }
}
