//! Whom an answer goes to, and how its end is told.

use std::sync::Arc;
use std::time::Duration;

use super::answer::Answered;
use super::timing;
use super::tries::Refused;
use crate::desk::Held;
use crate::dialect::Dialect;
use crate::dialect::responses::Asked;
use crate::error::ApiError;
use crate::inbound::{self, Call, Scissors};
use crate::record::Record;
use crate::reply::{Reply, push_header};
use crate::stream::{self, Stream};

/// Whom the answer goes to.
#[expect(
    clippy::large_enum_variant,
    reason = "one of them lives on a worker's stack for the time of a request"
)]
pub enum Caller<'w> {
    Plain(Call<'w>),
    Stream(Unfinished<'w>),
}

/// A stream that must be ended on every way out, panics included.
pub struct Unfinished<'w> {
    pub stream: Arc<Stream>,
    dialect: Dialect,
    asked: Option<Arc<Asked>>,
    scissors: Scissors<'w>,
}

impl<'w> Unfinished<'w> {
    pub fn begin(call: Call<'w>, keepalive: Duration, held: Arc<Held>) -> Option<Unfinished<'w>> {
        /// Longer than any request.
        const NEVER: Duration = Duration::from_secs(u32::MAX as u64);
        let (old, dialect, scissors) = (call.old, call.dialect, call.scissors());
        let asked = call.asked.clone();
        let (writer, fixed) = call.into_writer()?;
        let head = stream::Head {
            content_type: dialect.stream_type(),
            heartbeat: dialect.heartbeat().unwrap_or_default(),
            later: None,
            opening: asked
                .as_ref()
                .map_or_else(Vec::new, |asked| asked.opening()),
            fixed,
            trailers: dialect.trailers().filter(|_| !old),
            attempt: String::new(),
        };
        let keepalive = match dialect.heartbeat().is_some() {
            true => keepalive.min(dialect.most_silence().unwrap_or(NEVER)),
            false => NEVER,
        };
        Some(Unfinished {
            stream: Arc::new(Stream::new(writer, !old, head, keepalive, held)),
            dialect,
            asked,
            scissors,
        })
    }

    /// Ends the stream because of an error. Does nothing to one that has ended.
    /// `hopeless`: no other try can mend it.
    fn fail(&self, reply: Reply, error: &ApiError, hopeless: bool) {
        let words = match &self.asked {
            Some(asked) => Some(asked.failed(error, hopeless)),
            None => self.dialect.last_words(error),
        };
        match words {
            Some(event) => {
                let _ = self.stream.fail(reply, &event);
            }
            None => {
                if self.stream.abandon(reply) && !self.scissors.cut() {
                    self.stream.spoil();
                }
            }
        }
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        let error = ApiError::new(500, "the gateway failed to answer this request")
            .with_code("internal_error");
        self.fail(inbound::refusal(self.dialect, &error), &error, false);
    }
}

impl Caller<'_> {
    pub fn stream(&self) -> Option<Arc<Stream>> {
        match self {
            Caller::Plain(_) => None,
            Caller::Stream(unfinished) => Some(Arc::clone(&unfinished.stream)),
        }
    }

    fn dialect(&self) -> Dialect {
        match self {
            Caller::Plain(call) => call.dialect,
            Caller::Stream(unfinished) => unfinished.dialect,
        }
    }

    /// Says how it ended, to whoever is still there to hear it.
    pub fn finish(self, outcome: Result<Answered, Refused>, lines: &str, record: &mut Record) {
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
                reply.content_type = call.dialect.content_type();
                reply.headers.push_str(lines);
                push_header(&mut reply.headers, "Server-Timing", &timing(record));
                call.reply(reply);
            }
            // A whole answer is only asked for where there is no stream.
            // A stream that has begun is followed to its end before.
            (Ok(_), _) => record.status = 500,
            (Err(refused), caller) => {
                record.error = Some(refused.error.message.clone());
                if refused.caller_gone {
                    record.status = 499;
                    return;
                }
                record.status = refused.error.status;
                let mut reply = inbound::refusal(caller.dialect(), &refused.error);
                if refused.hopeless && caller.dialect() == Dialect::Responses && reply.status >= 500
                {
                    // Its agents ask again at any other status, whatever the header says.
                    reply.status = 400;
                    record.status = 400;
                }
                record.keep_answer(&reply.body);
                reply.headers.push_str(lines);
                push_header(&mut reply.headers, "Server-Timing", &timing(record));
                if refused.hopeless && !refused.error.is_far_off() {
                    push_header(&mut reply.headers, "x-should-retry", "false");
                }
                match caller {
                    Caller::Plain(call) => call.reply(reply),
                    Caller::Stream(unfinished) => {
                        unfinished.fail(reply, &refused.error, refused.hopeless);
                    }
                }
            }
        }
    }
}
