//! The answer to a request that was passed on, back to the caller in pieces as they come.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::sync::Arc;

use log::debug;

use super::events::Boundary;
use super::work::Relay;
use crate::bytes::lengthen;
use crate::desk::Phase;
use crate::dialect::{Dialect, openai, responses};
use crate::exchange::timing;
use crate::failure::Failure;
use crate::line::Answer;
use crate::provider::openai::Counter;
use crate::reply::{Reply, push_header, reason};
use crate::stream::{self, Stream};
use crate::upstream::Attempt;

/// Headers of an answer that are the caller's to see, besides the vendor's own `openai-*`.
const PASSED_BACK: &[&str] = &[
    "content-type",
    "content-disposition",
    "content-range",
    "accept-ranges",
    "etag",
    "last-modified",
];

/// What keeps a browser from running what is passed on, or from taking it for something else.
const HARMLESS: &str = "Content-Security-Policy: sandbox\r\nX-Content-Type-Options: nosniff\r\n";

/// A piece on its way, in either direction.
const PIECE: usize = 16 * 1024;

impl Relay<'_, '_> {
    /// Writes the answer to the caller as it comes.
    pub(super) fn pass_back(
        &mut self,
        attempt: &Attempt<'_>,
        answer: Answer,
    ) -> Result<u16, Failure> {
        let length = answer
            .header("content-length")
            .and_then(|length| length.parse::<u64>().ok());
        let kind = answer.header("content-type").unwrap_or_default();
        let is_events = kind.starts_with("text/event-stream");
        let is_json = kind.starts_with("application/json");
        match is_events && length.is_none() {
            true => self.pass_events(attempt, answer),
            false if is_json && self.is_response() && self.wants_stream() => {
                self.pass_unfolded(attempt, answer)
            }
            false => self.pass_whole(attempt, answer, length),
        }
    }

    /// A response in one piece, where its caller waits for events.
    fn pass_unfolded(&mut self, attempt: &Attempt<'_>, mut answer: Answer) -> Result<u16, Failure> {
        let mut body = Vec::new();
        let length = self.read_rest(attempt, &mut answer, &mut body, 0)?;
        body.truncate(length);
        if body.trim_ascii().is_empty() {
            return Err(Failure::empty());
        }
        let mut counter = Counter::default();
        counter.push(&body);
        self.record.hears(counter.usage(), counter.heard());
        let Some(call) = self.call.take() else {
            return Err(Failure::caller_gone());
        };
        let events = responses::unfold(&body);
        let mut reply = Reply::json(answer.status, body);
        if let Some(events) = events {
            reply.body = events;
            reply.content_type = "text/event-stream";
        }
        reply.headers.push_str(&lines_of(&answer, false));
        reply.headers.push_str(&self.lines);
        push_header(&mut reply.headers, "Server-Timing", &timing(self.record));
        self.record.first_byte = Some(self.record.begun.millis());
        self.record.keep_answer(&reply.body);
        self.settle();
        self.job.held.release();
        let status = reply.status;
        call.reply(reply);
        Ok(status)
    }

    /// A stream of events: what is between them can be filled with heartbeats, from its head on.
    fn pass_events(&mut self, attempt: &Attempt<'_>, mut answer: Answer) -> Result<u16, Failure> {
        let Some(call) = self.call.take() else {
            return Err(Failure::caller_gone());
        };
        let (old, id) = (call.old, call.id.clone());
        let Some((writer, fixed)) = call.into_writer() else {
            return Err(Failure::caller_gone());
        };
        let mut lines = lines_of(&answer, false);
        lines.push_str(&self.lines);
        push_header(&mut lines, "Server-Timing", &timing(self.record));
        let head = stream::Head {
            content_type: "text/event-stream",
            heartbeat: openai::HEARTBEAT,
            later: self.is_response().then_some(responses::HEARTBEAT),
            opening: Vec::new(),
            fixed,
            trailers: None,
            attempt: lines,
        };
        let keepalive = match Dialect::Responses.most_silence() {
            Some(most) if self.is_response() => self.state.config.keepalive.min(most),
            _ => self.state.config.keepalive,
        };
        let held = Arc::clone(&self.job.held);
        let stream = Arc::new(Stream::new(writer, !old, head, keepalive, held));
        self.record.streamed = true;
        self.job.set_stream(&stream);
        self.stream = Some(Arc::clone(&stream));
        let mut counter = Counter::default();
        let mut boundary = Boundary::default();
        let mut piece = vec![0; PIECE];
        loop {
            let count = self.read(attempt, &mut answer, &mut piece)?;
            let piece = &piece[..count];
            counter.push(piece);
            self.record.hears(counter.usage(), counter.heard());
            self.record.keep_answer(piece);
            let written = match count {
                0 => {
                    self.settle();
                    stream.end(b"", "")
                }
                _ => stream.pass(piece, boundary.take(piece)),
            };
            self.record
                .first_byte
                .get_or_insert_with(|| self.record.begun.millis());
            if written.is_err() {
                debug!("{id}: cannot write to the caller");
                return Err(Failure::caller_gone());
            }
            if count == 0 {
                return Ok(answer.status);
            }
        }
    }

    /// Anything else, as the bytes that it is.
    fn pass_whole(
        &mut self,
        attempt: &Attempt<'_>,
        mut answer: Answer,
        length: Option<u64>,
    ) -> Result<u16, Failure> {
        let mut piece = vec![0; PIECE];
        // With the first bytes there, the answer has begun: until then it can be asked for again.
        let mut count = self.read(attempt, &mut answer, &mut piece)?;
        let Some(call) = &self.call else {
            return Err(Failure::caller_gone());
        };
        let (old, scissors) = (call.old, call.scissors());
        let head_only = call.method == tiny_http::Method::Head;
        let mut length = length;
        if old && length.is_none() && !scissors.can_cut() {
            // Nothing would tell a broken answer from a whole one.
            count = self.read_rest(attempt, &mut answer, &mut piece, count)?;
            length = Some(count as u64);
        }
        let Some(call) = self.call.take() else {
            return Err(Failure::caller_gone());
        };
        let Some((mut writer, common)) = call.into_writer() else {
            return Err(Failure::caller_gone());
        };
        let empty = answer.status == 204;
        let kind = answer.header("content-type").unwrap_or_default();
        let has_text = kind.contains("json") || kind.starts_with("text/");
        // Where a caller cannot be cut off, only chunks can say that an answer is broken.
        let chunked = !old && !empty && !head_only && (length.is_none() || !scissors.can_cut());
        let mut head = format!(
            "HTTP/1.1 {} {}\r\n{common}{}",
            answer.status,
            reason(answer.status),
            lines_of(&answer, true)
        );
        head.push_str(&self.lines);
        push_header(&mut head, "Server-Timing", &timing(self.record));
        head.push_str(&match length {
            _ if empty => "\r\n".to_owned(),
            _ if chunked => "Transfer-Encoding: chunked\r\n\r\n".to_owned(),
            Some(length) => format!("Content-Length: {length}\r\n\r\n"),
            None => "Connection: close\r\n\r\n".to_owned(),
        });
        self.record.first_byte = Some(self.record.begun.millis());
        let mut counter = Counter::default();
        let mut out = head.into_bytes();
        let mut left = length;
        loop {
            left = left.map(|left| left.saturating_sub(count as u64));
            let over = count == 0 || left == Some(0);
            match chunked {
                true if count > 0 => {
                    let _ = write!(Text(&mut out), "{count:x}\r\n");
                    out.extend_from_slice(&piece[..count]);
                    out.extend_from_slice(b"\r\n");
                }
                true => {}
                false => out.extend_from_slice(&piece[..count]),
            }
            if has_text {
                counter.push(&piece[..count]);
                self.record.hears(counter.usage(), counter.heard());
            }
            self.record.keep_answer(&piece[..count]);
            if over {
                if chunked {
                    out.extend_from_slice(b"0\r\n\r\n");
                }
                self.settle();
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
            count = match self.read(attempt, &mut answer, &mut piece) {
                Ok(count) => count,
                Err(failure) => {
                    if chunked && !scissors.can_cut() {
                        let _ = writer.write_all(stream::SPOILT);
                        let _ = writer.flush();
                    }
                    return Err(failure);
                }
            };
        }
    }

    /// Reads the answer to its end, behind the `filled` bytes of it that are in `body`. Gives its
    /// length.
    fn read_rest(
        &mut self,
        attempt: &Attempt<'_>,
        answer: &mut Answer,
        body: &mut Vec<u8>,
        mut filled: usize,
    ) -> Result<usize, Failure> {
        loop {
            if filled > self.state.config.max_answer_bytes || body.try_reserve(PIECE).is_err() {
                return Err(Failure::too_long());
            }
            lengthen(body, filled + PIECE);
            match self.read(attempt, answer, &mut body[filled..])? {
                0 => return Ok(filled),
                count => filled += count,
            }
        }
    }

    /// Reads the next piece of the answer.
    fn read(
        &mut self,
        attempt: &Attempt<'_>,
        answer: &mut Answer,
        piece: &mut [u8],
    ) -> Result<usize, Failure> {
        self.job.enter(Phase::Between, attempt.upstream.idle);
        let read = answer.body.read(piece);
        if read.is_ok() {
            self.job.leave();
        }
        read.map_err(|error| attempt.broken(self.job, &error))
    }

    /// Counts what the answer cost. Before its last bytes leave: whoever has them may ask again.
    fn settle(&mut self) {
        self.record.spend(&self.state.limits);
    }
}

/// The header lines of an answer that are the caller's to see. A stream says itself what it is.
fn lines_of(answer: &Answer, with_type: bool) -> String {
    // It may be anything, and comes from weir's own origin: a page in it can run nothing there.
    let mut lines = String::from(HARMLESS);
    for (name, value) in &answer.headers {
        let name = name.as_str();
        let Ok(value) = value.to_str() else {
            continue;
        };
        let passed = PASSED_BACK.contains(&name) || name.starts_with("openai-");
        if passed && (with_type || name != "content-type") {
            push_header(&mut lines, name, value);
        }
        if name == "x-request-id" {
            push_header(&mut lines, "x-upstream-request-id", value);
        }
    }
    lines
}

/// Text into bytes.
struct Text<'t>(&'t mut Vec<u8>);

impl std::fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}
