//! An upstream's answer, read to its end and written to the caller as it comes.

use std::io::Read;
use std::mem;
use std::time::{Duration, Instant};

use super::Exchange;
use crate::chat::{Delta, DeltaSink, Usage};
use crate::desk::Phase;
use crate::dialect::{Streamed, Whole};
use crate::failure::Failure;
use crate::line::Answer;
use crate::memory::Notes;
use crate::pages;
use crate::pool::Lease;
use crate::provider::openai::{RelayStream, relay_body};
use crate::provider::{Decoder, Flow};
use crate::reply::HEAD_ROOM;
use crate::sse;
use crate::upstream::Attempt;

/// How an exchange was answered.
pub enum Answered {
    /// On the stream, which has ended.
    Streamed,
    /// With this body, which is still to be sent.
    Whole(Vec<u8>),
}

/// Who turns an upstream's answer into what the caller reads.
pub enum Speaker {
    /// The same format on both sides, event by event.
    Relay(RelayStream),
    /// The same format on both sides, in one piece.
    Whole,
    /// Deltas, written as they come.
    Chunks(Box<dyn Decoder>, Box<dyn Streamed>),
    /// Deltas, written in one piece.
    Fold(Box<dyn Decoder>, Box<dyn Whole>),
}

/// A speaker and what it has to say so far.
pub struct Sink {
    speaker: Speaker,
    /// What a relay wrote since the last `clear`.
    relayed: Vec<u8>,
    usage: Usage,
    notes: Notes,
    /// Something was said that an answer consists of.
    has_content: bool,
}

impl Sink {
    pub fn new(speaker: Speaker, notes: Notes) -> Sink {
        Sink {
            speaker,
            relayed: Vec::new(),
            usage: Usage::default(),
            notes,
            has_content: false,
        }
    }

    fn on_head(&mut self, answer: &Answer) {
        if let Speaker::Chunks(decoder, _) | Speaker::Fold(decoder, _) = &mut self.speaker {
            decoder.on_head(&|name| answer.header(name).map(str::to_owned));
        }
    }

    fn on_event(&mut self, event: sse::Event<'_>) -> Result<Flow, Failure> {
        #[cfg(debug_assertions)]
        panic_on_demand(event.data);
        match &mut self.speaker {
            Speaker::Relay(relay) => {
                let flow = relay.on_event(event, &mut self.relayed);
                self.has_content |= !self.relayed.is_empty();
                flow
            }
            Speaker::Whole => Err(unexpected_stream()),
            Speaker::Chunks(decoder, chunks) => decoder.on_event(
                event,
                &mut Noting(&mut **chunks, &mut self.notes, &mut self.has_content),
            ),
            Speaker::Fold(decoder, fold) => decoder.on_event(
                event,
                &mut Noting(&mut **fold, &mut self.notes, &mut self.has_content),
            ),
        }
    }

    fn on_end(&mut self) -> Result<(), Failure> {
        match &mut self.speaker {
            Speaker::Relay(relay) => relay.on_end(&mut self.relayed),
            Speaker::Whole => Ok(()),
            Speaker::Chunks(decoder, chunks) => decoder.on_end(&mut Noting(
                &mut **chunks,
                &mut self.notes,
                &mut self.has_content,
            )),
            Speaker::Fold(decoder, fold) => decoder.on_end(&mut Noting(
                &mut **fold,
                &mut self.notes,
                &mut self.has_content,
            )),
        }
    }

    fn on_body(&mut self, body: &[u8]) -> Result<(), Failure> {
        #[cfg(debug_assertions)]
        panic_on_demand(body);
        match &mut self.speaker {
            Speaker::Relay(relay) => relay.on_body(body, &mut self.relayed),
            Speaker::Whole => {
                self.usage = relay_body(body)?;
                Ok(())
            }
            Speaker::Chunks(decoder, chunks) => decoder.on_body(
                body,
                &mut Noting(&mut **chunks, &mut self.notes, &mut self.has_content),
            ),
            Speaker::Fold(decoder, fold) => decoder.on_body(
                body,
                &mut Noting(&mut **fold, &mut self.notes, &mut self.has_content),
            ),
        }
    }

    /// What the answer signed. Taken once, at its end.
    pub fn take_notes(&mut self) -> Notes {
        mem::replace(&mut self.notes, Notes::new(0))
    }

    pub fn continuation(&mut self, sent: &[u8]) -> Option<Vec<u8>> {
        match &mut self.speaker {
            Speaker::Relay(_) | Speaker::Whole => None,
            Speaker::Chunks(decoder, _) | Speaker::Fold(decoder, _) => decoder.continuation(sent),
        }
    }

    /// What is ready to be sent. Held back until the answer has begun in earnest: some upstreams
    /// announce an answer and then fail, which another key can still make good.
    fn ready(&self) -> &[u8] {
        if !self.has_content {
            return &[];
        }
        self.pending()
    }

    fn pending(&self) -> &[u8] {
        match &self.speaker {
            Speaker::Relay(_) => &self.relayed,
            Speaker::Chunks(_, chunks) => chunks.bytes(),
            Speaker::Whole | Speaker::Fold(..) => &[],
        }
    }

    fn clear(&mut self) {
        self.relayed.clear();
        if let Speaker::Chunks(_, chunks) = &mut self.speaker {
            chunks.clear();
        }
    }

    pub fn usage(&self) -> Usage {
        match &self.speaker {
            Speaker::Relay(relay) => relay.usage(),
            Speaker::Whole => self.usage,
            Speaker::Chunks(_, chunks) => chunks.usage(),
            Speaker::Fold(_, fold) => fold.usage(),
        }
    }
}

/// Panics where `data` holds the word of the environment's `WEIR_PANIC_ON`: the tests show what a
/// panic costs. Release builds do not have it.
#[cfg(debug_assertions)]
pub fn panic_on_demand(data: &[u8]) {
    static WORD: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    if let Some(word) = WORD.get_or_init(|| std::env::var("WEIR_PANIC_ON").ok()) {
        let said = String::from_utf8_lossy(data).contains(word.as_str());
        assert!(!said, "somebody said {word}");
    }
}

fn unexpected_stream() -> Failure {
    Failure::malformed("the upstream streamed an answer that was asked for whole")
}

/// Passes deltas on, and notes what they sign and whether the answer has begun.
struct Noting<'a>(&'a mut dyn DeltaSink, &'a mut Notes, &'a mut bool);

impl DeltaSink for Noting<'_> {
    fn put(&mut self, delta: Delta<'_>) {
        let announces = matches!(
            delta,
            Delta::Start { .. } | Delta::Usage(_) | Delta::ServiceTier(_)
        );
        *self.2 |= !announces;
        self.1.take(&delta);
        self.0.put(delta);
    }
}

/// How long an upstream may take to close an answer that is complete. The connection can only be
/// used again when it has.
const CLOSING: Duration = Duration::from_millis(100);

/// A stream that lasts longer gives back the stack that sending the request took.
const SHORT: Duration = Duration::from_millis(500);

impl Exchange<'_, '_> {
    /// Reads one upstream answer and writes what it says, up to its end.
    pub(super) fn relay(
        &mut self,
        attempt: &Attempt<'_>,
        answer: &mut Answer,
        sink: &mut Sink,
        lease: &Lease,
    ) -> Result<Answered, Failure> {
        let idle = attempt.upstream.idle;
        sink.on_head(answer);
        let streamed = answer
            .header("content-type")
            .is_some_and(|kind| kind.starts_with("text/event-stream"));
        self.job.enter(Phase::Between, idle);
        if matches!(sink.speaker, Speaker::Whole) || (!streamed && is_json(answer)) {
            let body = self.read_whole(attempt, answer)?;
            if body.trim_ascii().is_empty() {
                return Err(Failure::empty());
            }
            sink.on_body(&body)?;
            lease.succeeded();
            if matches!(sink.speaker, Speaker::Whole) {
                return Ok(Answered::Whole(body));
            }
            return Ok(Answered::Streamed);
        }
        let mut reader = sse::Reader::new(self.state.config.max_answer_bytes);
        let mut told = false;
        let mut events = 0u64;
        let mut short = Some(Instant::now() + SHORT);
        'answer: loop {
            while let Some(event) = reader.next().map_err(|_| Failure::too_long())? {
                events += 1;
                let flow = sink.on_event(event)?;
                if sink.has_content && !told {
                    told = true;
                    lease.succeeded();
                }
                if flow == Flow::Done {
                    break 'answer;
                }
                self.pass_on(sink)?;
            }
            if short.is_some_and(|until| Instant::now() >= until) {
                short = None;
                pages::give_back_stack();
            }
            let count = reader
                .fill(&mut answer.body)
                .map_err(|error| attempt.broken(self.job, &error))?;
            if count == 0 {
                if let Some(event) = reader.finish() {
                    events += 1;
                    if sink.on_event(event)? == Flow::Done {
                        break;
                    }
                }
                if events == 0 {
                    return Err(Failure::empty());
                }
                sink.on_end()?;
                break;
            }
            self.job.extend(idle);
        }
        self.job.leave();
        Ok(Answered::Streamed)
    }

    /// Writes what the last event came to.
    fn pass_on(&mut self, sink: &mut Sink) -> Result<(), Failure> {
        let Some(stream) = &self.stream else {
            return Ok(());
        };
        let ready = sink.ready();
        if ready.is_empty() {
            return Ok(());
        }
        if self.record.first_byte.is_none() {
            let mut lines = self.route_lines.clone();
            crate::reply::push_header(&mut lines, "Server-Timing", &super::timing(self.record));
            stream.announce(lines);
        }
        self.record.keep_answer(ready);
        let sent = stream.send(ready);
        self.record
            .first_byte
            .get_or_insert_with(|| self.record.begun.millis());
        sink.clear();
        sent.map_err(|_| Failure::caller_gone())
    }

    /// Ends the answer: the stream with its last events, or the completion in one piece.
    pub(super) fn close(
        &mut self,
        answered: Answered,
        attempt: &Attempt<'_>,
        mut answer: Answer,
        mut sink: Sink,
    ) -> Result<Answered, Failure> {
        let answered = match (answered, &mut sink.speaker) {
            (Answered::Whole(body), _) => Answered::Whole(body),
            (_, Speaker::Fold(..)) => {
                let Speaker::Fold(_, fold) = sink.speaker else {
                    return Err(unexpected_stream());
                };
                self.route_lines.push_str(&fold.lines());
                Answered::Whole(fold.into_body())
            }
            (_, speaker) => {
                let mut trailers = String::new();
                if let Speaker::Chunks(_, chunks) = speaker {
                    chunks.finish();
                    trailers = chunks.trailers();
                }
                if let Some(stream) = &self.stream {
                    let first = self.record.first_byte.is_none();
                    self.record.keep_answer(sink.pending());
                    let sent = stream.end(sink.pending(), &trailers);
                    if first {
                        self.record.first_byte = Some(self.record.begun.millis());
                    }
                    sent.map_err(|_| Failure::caller_gone())?;
                }
                Answered::Streamed
            }
        };
        // What follows the last event is the end of the body, mostly there already.
        self.job.enter(Phase::Between, CLOSING);
        let mut rest = [0; 256];
        let mut left = 16;
        while left > 0 && matches!(answer.body.read(&mut rest), Ok(1..)) {
            left -= 1;
        }
        // The answer is whole, whatever became of the connection.
        let _ = attempt.ended(self.job);
        Ok(answered)
    }

    fn read_whole(&self, attempt: &Attempt<'_>, answer: &mut Answer) -> Result<Vec<u8>, Failure> {
        let cap = self.state.config.max_answer_bytes;
        // What is declared is only believed for so much before it has come.
        const PIECE: usize = 4 * 1024;
        const BELIEVED: usize = 256 * 1024;
        let declared = answer
            .header("content-length")
            .and_then(|length| length.parse::<usize>().ok());
        let room = declared.map_or(PIECE, |length| length.min(BELIEVED));
        let mut body = Vec::with_capacity(room + HEAD_ROOM);
        body.resize(room, 0);
        let mut filled = 0;
        loop {
            if filled > cap {
                return Err(Failure::too_long());
            }
            // A whole body's end is still to be read, and needs no room of its own.
            let mut end = [0];
            if filled == body.len() && Some(filled) != declared {
                let room = filled + PIECE;
                if body.try_reserve_exact(room).is_err() {
                    return Err(Failure::malformed(
                        "there is no memory for an answer this long",
                    ));
                }
                body.resize(filled + room, 0);
            }
            let room = match filled == body.len() {
                true => &mut end[..],
                false => &mut body[filled..],
            };
            match answer.body.read(room) {
                Ok(0) => break,
                Ok(count) => {
                    filled = (filled + count).min(body.len());
                }
                Err(error) => return Err(attempt.broken(self.job, &error)),
            }
            self.job.extend(attempt.upstream.idle);
        }
        body.truncate(filled);
        self.job.leave();
        Ok(body)
    }
}

fn is_json(answer: &Answer) -> bool {
    answer
        .header("content-type")
        .is_some_and(|kind| kind.starts_with("application/json"))
}
