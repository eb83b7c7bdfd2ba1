//! An upstream's answer, read to its end and written to the caller as it comes.

use std::io::Read;
use std::mem;
use std::time::{Duration, Instant};

use super::Exchange;
use super::heard::{Heard, Noting};
use super::live::Live;
use crate::bytes::lengthen;
use crate::chat::Usage;
use crate::desk::{Job, Phase};
use crate::dialect::{Streamed, Whole};
use crate::failure::Failure;
use crate::lesson;
use crate::line::Answer;
use crate::memory::Notes;
use crate::pool::Lease;
use crate::provider::openai::Counter;
use crate::provider::{Decoder, Flow, Relay, WholeRelay};
use crate::record::Record;
use crate::reply::HEAD_ROOM;
use crate::sse;
use crate::stream::Stream;
use crate::sys::pages;
use crate::upstream::Attempt;

/// How an exchange was answered.
pub enum Answered {
    /// On the stream, which has ended.
    Streamed,
    /// With this body, which is still to be sent.
    Whole(Vec<u8>),
    /// With the beginning of a stream, of which the caller has seen nothing yet.
    Begun(Box<Live>),
}

/// Who turns an upstream's answer into what the caller reads.
pub enum Speaker {
    /// The same format on both sides, event by event.
    Relay(Box<dyn Relay>),
    /// The same format on both sides, in one piece.
    Whole(Box<dyn WholeRelay>),
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
    heard: Heard,
    /// Finds them in what is relayed, where they have to be counted.
    counter: Option<Box<Counter>>,
}

impl Sink {
    /// Of an answer that is put together no more than `room` bytes are held.
    pub fn new(speaker: Speaker, notes: Notes, room: usize) -> Sink {
        Sink {
            speaker,
            relayed: Vec::new(),
            heard: Heard {
                notes,
                has_content: false,
                text: 0,
                room: Some(room),
            },
            counter: None,
        }
    }

    /// Has the text counted of what is only relayed.
    pub fn counting(mut self, counts: bool) -> Sink {
        self.counter = counts.then(Box::default);
        self
    }

    /// Bytes of text in the answer so far, where they are counted.
    pub fn heard(&self) -> u64 {
        self.heard.text
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
                if let Some(counter) = &mut self.counter {
                    counter.push_event(event.data);
                    self.heard.text = counter.heard();
                }
                let flow = relay.on_event(event, &mut self.relayed);
                if let Some(heard) = relay.heard() {
                    self.heard.text = heard;
                }
                self.heard.has_content |= !self.relayed.is_empty();
                flow
            }
            Speaker::Whole(relay) => {
                if let Some(counter) = &mut self.counter {
                    counter.push_event(event.data);
                    self.heard.text = counter.heard();
                }
                self.heard.has_content = true;
                relay.on_event(event)
            }
            Speaker::Chunks(decoder, chunks) => {
                let flow = decoder.on_event(
                    event,
                    &mut Noting {
                        sink: &mut **chunks,
                        heard: &mut self.heard,
                        is_held: false,
                    },
                )?;
                match self.heard.room {
                    Some(room) if chunks.held() > room => Err(Failure::too_long()),
                    _ => Ok(flow),
                }
            }
            Speaker::Fold(decoder, fold) => {
                let flow = decoder.on_event(
                    event,
                    &mut Noting {
                        sink: &mut **fold,
                        heard: &mut self.heard,
                        is_held: true,
                    },
                )?;
                self.heard.fits()?;
                Ok(flow)
            }
        }
    }

    fn on_end(&mut self) -> Result<(), Failure> {
        match &mut self.speaker {
            Speaker::Relay(relay) => relay.on_end(&mut self.relayed),
            Speaker::Whole(relay) => relay.on_end(),
            Speaker::Chunks(decoder, chunks) => decoder.on_end(&mut Noting {
                sink: &mut **chunks,
                heard: &mut self.heard,
                is_held: false,
            }),
            Speaker::Fold(decoder, fold) => {
                decoder.on_end(&mut Noting {
                    sink: &mut **fold,
                    heard: &mut self.heard,
                    is_held: true,
                })?;
                self.heard.fits()
            }
        }
    }

    /// Takes the events of a stream that came as one body.
    fn on_events(&mut self, body: &[u8], cap: usize) -> Result<(), Failure> {
        let mut reader = sse::Reader::new(cap);
        let mut source = body;
        loop {
            while let Some(event) = reader.next().map_err(|_| Failure::too_long())? {
                if self.on_event(event)? == Flow::Done {
                    return Ok(());
                }
            }
            // Reading from memory does not fail.
            if !matches!(reader.fill(&mut source), Ok(1..)) {
                break;
            }
        }
        if let Some(event) = reader.finish()
            && self.on_event(event)? == Flow::Done
        {
            return Ok(());
        }
        self.on_end()
    }

    fn on_body(&mut self, body: &[u8]) -> Result<(), Failure> {
        #[cfg(debug_assertions)]
        panic_on_demand(body);
        match &mut self.speaker {
            Speaker::Relay(relay) => relay.on_body(body, &mut self.relayed),
            Speaker::Whole(relay) => {
                if let Some(counter) = &mut self.counter {
                    counter.push(body);
                    self.heard.text = counter.heard();
                }
                relay.on_body(body)
            }
            Speaker::Chunks(decoder, chunks) => decoder.on_body(
                body,
                &mut Noting {
                    sink: &mut **chunks,
                    heard: &mut self.heard,
                    is_held: false,
                },
            ),
            Speaker::Fold(decoder, fold) => {
                decoder.on_body(
                    body,
                    &mut Noting {
                        sink: &mut **fold,
                        heard: &mut self.heard,
                        is_held: true,
                    },
                )?;
                self.heard.fits()
            }
        }
    }

    /// The answer that has ended. `body` is what the upstream sent, if it came in one piece.
    fn answered(&mut self, body: Vec<u8>) -> Answered {
        match &mut self.speaker {
            Speaker::Whole(relay) => Answered::Whole(relay.take_body().unwrap_or(body)),
            _ => Answered::Streamed,
        }
    }

    /// What the answer signed. Taken once, at its end.
    pub fn take_notes(&mut self) -> Notes {
        mem::replace(&mut self.heard.notes, Notes::new(0))
    }

    pub fn continuation(&mut self, sent: &[u8]) -> Option<Vec<u8>> {
        match &mut self.speaker {
            Speaker::Relay(_) | Speaker::Whole(_) => None,
            Speaker::Chunks(decoder, _) | Speaker::Fold(decoder, _) => decoder.continuation(sent),
        }
    }

    /// The upstream serves the model by one of Gemini's third generation or later.
    pub fn is_of_third_generation(&self) -> bool {
        let served = match &self.speaker {
            Speaker::Relay(_) | Speaker::Whole(_) => None,
            Speaker::Chunks(decoder, _) | Speaker::Fold(decoder, _) => decoder.served_by(),
        };
        served.is_some_and(lesson::is_of_third_generation)
    }

    /// The request has to be kept until the answer is whole.
    pub fn may_continue(&self) -> bool {
        match &self.speaker {
            Speaker::Relay(_) | Speaker::Whole(_) => false,
            Speaker::Chunks(decoder, _) | Speaker::Fold(decoder, _) => decoder.may_continue(),
        }
    }

    /// What is ready to be sent. Held back until the answer has begun in earnest: some upstreams
    /// announce an answer and then fail, which another key can still make good.
    pub fn ready(&self) -> &[u8] {
        if !self.heard.has_content {
            return &[];
        }
        self.pending()
    }

    fn pending(&self) -> &[u8] {
        match &self.speaker {
            Speaker::Relay(_) => &self.relayed,
            Speaker::Chunks(_, chunks) => chunks.bytes(),
            Speaker::Whole(_) | Speaker::Fold(..) => &[],
        }
    }

    pub fn clear(&mut self) {
        self.relayed.clear();
        if let Speaker::Chunks(_, chunks) = &mut self.speaker {
            chunks.clear();
        }
    }

    pub fn usage(&self) -> Usage {
        match &self.speaker {
            Speaker::Relay(relay) => relay.usage(),
            Speaker::Whole(relay) => relay.usage(),
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

/// How long an upstream may take to close an answer that is complete. The connection can only be
/// used again when it has.
const CLOSING: Duration = Duration::from_millis(100);

/// A stream that lasts longer gives back the stack that sending the request took.
const SHORT: Duration = Duration::from_millis(500);

/// How the reading of an answer came to a halt.
pub enum Halt {
    /// The answer has ended.
    Ended(Answered),
    /// Something is there for the caller to read, and what follows is still to be read.
    Begun(Events),
}

/// An upstream's event stream while it is read.
pub struct Events {
    reader: sse::Reader,
    /// There was one.
    any: bool,
    /// The key is known to have given an answer.
    told: bool,
    /// When the stack is given back.
    short: Option<Instant>,
}

impl Events {
    fn new(cap: usize) -> Events {
        Events {
            reader: sse::Reader::new(cap),
            any: false,
            told: false,
            short: Some(Instant::now() + SHORT),
        }
    }

    /// The stack above is another one from here on.
    pub fn moved(mut self) -> Events {
        self.short = Some(Instant::now() + SHORT);
        self
    }

    /// Reads on until the sink has something for the caller: true. False: the answer has ended.
    pub fn next(
        &mut self,
        attempt: &Attempt<'_>,
        job: &Job,
        answer: &mut Answer,
        sink: &mut Sink,
        lease: &Lease,
    ) -> Result<bool, Failure> {
        loop {
            while let Some(event) = self.reader.next().map_err(|_| Failure::too_long())? {
                self.any = true;
                let flow = sink.on_event(event)?;
                if sink.heard.has_content && !self.told {
                    self.told = true;
                    lease.succeeded();
                }
                if flow == Flow::Done {
                    return Ok(false);
                }
                if !sink.ready().is_empty() {
                    return Ok(true);
                }
            }
            if self.short.is_some_and(|until| Instant::now() >= until) {
                self.short = None;
                pages::give_back_stack();
            }
            let count = self
                .reader
                .fill(&mut answer.body)
                .map_err(|error| attempt.broken(job, &error))?;
            if count == 0 {
                if let Some(event) = self.reader.finish() {
                    self.any = true;
                    if sink.on_event(event)? == Flow::Done {
                        return Ok(false);
                    }
                }
                if !self.any {
                    return Err(Failure::empty());
                }
                sink.on_end()?;
                return Ok(false);
            }
            job.extend(attempt.upstream.idle);
        }
    }
}

/// Reads one upstream answer up to the first that the caller can be told, or to its end.
pub fn read(
    cap: usize,
    job: &Job,
    attempt: &Attempt<'_>,
    answer: &mut Answer,
    sink: &mut Sink,
    lease: &Lease,
) -> Result<Halt, Failure> {
    sink.on_head(answer);
    let streamed = answer
        .header("content-type")
        .is_some_and(|kind| kind.starts_with("text/event-stream"));
    job.enter(Phase::Between, attempt.upstream.idle);
    // An answer is read as what it is, not as what was asked for, nor as what it is called.
    let wants_whole = matches!(sink.speaker, Speaker::Whole(_));
    if !streamed && (wants_whole || is_json(answer)) {
        let body = read_whole(cap, job, attempt, answer)?;
        if body.trim_ascii().is_empty() {
            return Err(Failure::empty());
        }
        match is_events(&body) {
            true => sink.on_events(&body, cap)?,
            false => sink.on_body(&body)?,
        }
        lease.succeeded();
        return Ok(Halt::Ended(sink.answered(body)));
    }
    let mut events = Events::new(cap);
    match events.next(attempt, job, answer, sink, lease)? {
        true => Ok(Halt::Begun(events)),
        false => Ok(Halt::Ended(sink.answered(Vec::new()))),
    }
}

/// Ends a caller's stream with the last that there is to say.
pub fn end_stream(stream: &Stream, sink: &mut Sink, record: &mut Record) -> Result<(), Failure> {
    let mut trailers = String::new();
    if let Speaker::Chunks(_, chunks) = &mut sink.speaker {
        chunks.finish();
        trailers = chunks.trailers();
    }
    let first = record.first_byte.is_none();
    record.keep_answer(sink.pending());
    let sent = stream.end(sink.pending(), &trailers);
    if first {
        record.first_byte = Some(record.begun.millis());
    }
    sent.map_err(|_| Failure::caller_gone())
}

/// What follows the last event is the end of the body, mostly there already.
pub fn drain(answer: &mut Answer, attempt: &Attempt<'_>, job: &Job) {
    job.enter(Phase::Between, CLOSING);
    let mut rest = [0; 256];
    let mut left = 16;
    while left > 0 && matches!(answer.body.read(&mut rest), Ok(1..)) {
        left -= 1;
    }
    // The answer is whole, whatever became of the connection.
    let _ = attempt.ended(job);
}

impl Exchange<'_, '_> {
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
            (answered, _) => {
                if let Some(stream) = &self.stream {
                    end_stream(stream, &mut sink, self.record)?;
                }
                answered
            }
        };
        drain(&mut answer, attempt, self.job);
        Ok(answered)
    }
}

fn read_whole(
    cap: usize,
    job: &Job,
    attempt: &Attempt<'_>,
    answer: &mut Answer,
) -> Result<Vec<u8>, Failure> {
    // What is declared is only believed for so much before it has come.
    const PIECE: usize = 4 * 1024;
    const BELIEVED: usize = 256 * 1024;
    let declared = answer
        .header("content-length")
        .and_then(|length| length.parse::<usize>().ok());
    let room = declared.map_or(PIECE, |length| length.min(BELIEVED));
    let mut body = Vec::with_capacity(room + HEAD_ROOM);
    lengthen(&mut body, room);
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
            lengthen(&mut body, filled + room);
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
            Err(error) => return Err(attempt.broken(job, &error)),
        }
        job.extend(attempt.upstream.idle);
    }
    body.truncate(filled);
    job.leave();
    Ok(body)
}

/// A body that is a stream of events, whatever its label says.
fn is_events(body: &[u8]) -> bool {
    let body = body.trim_ascii_start();
    [&b"data:"[..], b"event:", b"id:", b"retry:", b":"]
        .iter()
        .any(|field| body.starts_with(field))
}

fn is_json(answer: &Answer) -> bool {
    answer
        .header("content-type")
        .is_some_and(|kind| kind.starts_with("application/json"))
}
