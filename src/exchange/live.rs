//! `Live`: a stream to the caller from its first event to its last.
//!
//! From the first event on nothing can be tried again, so what that would take is let go of: the
//! caller's request, its parsed form, what was sent. A thousand streams would hold a thousand long
//! histories for nothing. For the same reason this runs on a stack from which the frames that led
//! here have gone: they were 7 KiB of the 15 that a worker kept in memory for its stream.

use std::time::Duration;

use super::answer::{Answered, Events, Halt, Sink, drain, end_stream, read};
use super::caller::{Caller, Unfinished};
use super::tries::failed;
use super::{learn, timing};
use crate::cancel::Entered;
use crate::desk::{Job, Phase};
use crate::failure::Failure;
use crate::lesson::Lesson;
use crate::line::Answer;
use crate::pool::{Asked, Lease};
use crate::provider::Encoded;
use crate::record::Record;
use crate::server::State;
use crate::stream::Stream;
use crate::upstream::Attempt;

/// An answer that has begun, and what its rest needs.
pub struct Live {
    /// Its place among the upstreams.
    pub upstream: usize,
    /// The model, where the answer may still say that another one serves it.
    pub watched: Option<Box<str>>,
    pub answer: Answer,
    pub sink: Sink,
    pub events: Events,
    /// What was sent, for answers that may come in several parts; else nothing.
    pub encoded: Encoded,
    pub id: String,
    pub first_byte: Duration,
    /// What can end the waits in here.
    pub _entered: Entered,
}

/// A caller who is to get the rest of an answer. Dropped before that, it says that it failed.
pub struct Following<'w> {
    pub live: Box<Live>,
    pub lease: Lease,
    pub caller: Unfinished<'w>,
    /// The headers about the attempt.
    pub lines: String,
}

impl Following<'_> {
    /// Writes the answer to the caller as it comes, up to its end.
    #[inline(never)]
    pub fn follow(self: Box<Self>, state: &State, job: &Job, record: &mut Record) {
        let mut this = self;
        let Following {
            live,
            lease,
            caller,
            lines,
        } = &mut *this;
        announce(&caller.stream, lines, record);
        let outcome = live.pass(lease, state, job, &caller.stream, record);
        job.settle();
        this.end(outcome, state, job, record);
    }

    #[inline(never)]
    #[expect(
        clippy::boxed_local,
        reason = "out of the box it would take room on the stack of `follow`"
    )]
    fn end(
        self: Box<Self>,
        outcome: Result<(), Failure>,
        state: &State,
        job: &Job,
        record: &mut Record,
    ) {
        let Following {
            mut live,
            lease,
            caller,
            lines,
        } = *self;
        let (upstream, id) = (live.upstream, std::mem::take(&mut live.id));
        // The connection is back in the pool before the key is free for another request, and both
        // are before the caller is told of a failure.
        drop(live);
        let outcome = match outcome {
            Ok(()) => {
                drop(lease);
                Ok(Answered::Streamed)
            }
            Err(failure) => {
                // The request has been let go of, so only codes are believed.
                let failure = state.masks.failure(failure.weighed(lease.model(), None));
                let upstream = &state.config.upstreams[upstream];
                let mut refused = failed(&id, &upstream.name, lease, &failure, Asked::default());
                refused.caller_gone |= job.is_gone();
                Err(refused)
            }
        };
        // Before the caller hears of it, and may ask again.
        record.spend_rest(&state.limits);
        Caller::Stream(caller).finish(outcome, &lines, record);
    }
}

#[inline(never)]
fn announce(stream: &Stream, lines: &str, record: &Record) {
    let mut lines = lines.to_owned();
    crate::reply::push_header(&mut lines, "Server-Timing", &timing(record));
    stream.announce(lines);
}

/// What may be asked for once more.
fn attempt_of<'a>(
    live: (usize, &'a str, Duration),
    encoded: &'a Encoded,
    state: &'a State,
    lease: &Lease,
) -> Attempt<'a> {
    let (upstream, id, first_byte) = live;
    let place = &state.config.upstreams[upstream];
    Attempt {
        upstream: place,
        key: &place.keys[lease.key()],
        line: &state.lines[upstream],
        fresh: false,
        path: &encoded.path,
        body: &encoded.body,
        headers: &[],
        id,
        first_byte,
        streams: true,
    }
}

// Each step has a frame of its own, so that the one that waits for events is small.
impl Live {
    fn pass(
        &mut self,
        lease: &Lease,
        state: &State,
        job: &Job,
        stream: &Stream,
        record: &mut Record,
    ) -> Result<(), Failure> {
        job.enter(Phase::Between, state.config.upstreams[self.upstream].idle);
        let mut begun = true;
        loop {
            let outcome = match begun {
                true => self.flow(lease, state, job, stream, record),
                false => Ok(()),
            };
            // However it ended, its timer must not end what follows.
            job.leave();
            record.hears(self.sink.usage(), self.sink.heard());
            outcome?;
            let more = self.go_on(lease, state, job);
            // What was asked counts, even if no more than that is known.
            record.hears(self.sink.usage(), self.sink.heard());
            match more? {
                Some(more) => begun = more,
                None => return self.close(lease, state, job, stream, record),
            }
        }
    }

    /// Passes events on for as long as they come.
    #[inline(never)]
    fn flow(
        &mut self,
        lease: &Lease,
        state: &State,
        job: &Job,
        stream: &Stream,
        record: &mut Record,
    ) -> Result<(), Failure> {
        let live = (self.upstream, &*self.id, self.first_byte);
        let attempt = attempt_of(live, &self.encoded, state, lease);
        let (answer, sink) = (&mut self.answer, &mut self.sink);
        loop {
            pass_on(stream, sink, record)?;
            if !self.events.next(&attempt, job, answer, sink, lease)? {
                return Ok(());
            }
        }
    }

    /// Some answers come in several parts, each asked for with a request of its own. `None`: this
    /// one is whole. Else whether there is something of the next part.
    #[inline(never)]
    fn go_on(&mut self, lease: &Lease, state: &State, job: &Job) -> Result<Option<bool>, Failure> {
        let Some(body) = self.sink.continuation(&self.encoded.body) else {
            return Ok(None);
        };
        let live = (self.upstream, &*self.id, self.first_byte);
        let attempt = Attempt {
            body: &body,
            ..attempt_of(live, &self.encoded, state, lease)
        };
        let (answer, sink) = (&mut self.answer, &mut self.sink);
        *answer = attempt.send(job)?;
        match read(
            state.config.max_answer_bytes,
            job,
            &attempt,
            answer,
            sink,
            lease,
        )? {
            Halt::Begun(events) => self.events = events,
            Halt::Ended(_) => return Ok(Some(false)),
        }
        Ok(Some(true))
    }

    #[inline(never)]
    fn close(
        &mut self,
        lease: &Lease,
        state: &State,
        job: &Job,
        stream: &Stream,
        record: &mut Record,
    ) -> Result<(), Failure> {
        record.spend(&state.limits);
        let upstream = &state.config.upstreams[self.upstream];
        if let Some(model) = &self.watched
            && self.sink.is_of_third_generation()
        {
            learn(state, upstream, model, Lesson::ThirdGeneration);
        }
        let notes = self.sink.take_notes();
        notes.keep(&state.memory, &upstream.name, lease.key());
        end_stream(stream, &mut self.sink, record)?;
        let live = (self.upstream, &*self.id, self.first_byte);
        let attempt = attempt_of(live, &self.encoded, state, lease);
        drain(&mut self.answer, &attempt, job);
        Ok(())
    }
}

/// Writes what the last event came to.
fn pass_on(stream: &Stream, sink: &mut Sink, record: &mut Record) -> Result<(), Failure> {
    let ready = sink.ready();
    record.keep_answer(ready);
    let sent = stream.send(ready);
    record
        .first_byte
        .get_or_insert_with(|| record.begun.millis());
    sink.clear();
    sent.map_err(|_| Failure::caller_gone())
}
