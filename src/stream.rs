//! `Stream`: the caller's event stream, written by the worker and kept alive by the timer thread.
//!
//! Whole events go in; head and first event leave in one write, each later event in one write of
//! its own. A heartbeat goes out between events only: it takes the same lock, and where the worker
//! holds it the stream is not quiet. Until the head is out the stream can still become a plain
//! answer with its own status. Knows no dialect but the error event it is handed.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock;
use crate::desk::Held;
use crate::reply::Reply;

/// Breaks the framing of an answer in chunks, for connections that cannot be cut: no client takes
/// this for the length of a chunk, which is what it waits for.
pub const SPOILT: &[u8] = b"!\r\n";

/// The caller has gone: a write failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

pub struct Stream {
    out: Mutex<Out>,
    /// Let go of before the last bytes leave.
    held: Arc<Held>,
    /// `clock::now` of the last write, or of the begin.
    last: AtomicU64,
    /// `clock::now` of the begin of the write that is going on; 0 for none.
    writing_since: AtomicU64,
    /// Something was written, so no other answer stands before this one on its connection.
    has_turn: AtomicBool,
    keepalive: u64,
    /// What the timer thread sends into the stream while it is silent: before its first event, and
    /// from then on.
    heartbeat: &'static [u8],
    later: &'static [u8],
}

struct Out {
    writer: Box<dyn Write + Send>,
    state: State,
    /// Chunked framing; without it (HTTP/1.0) the end of the connection ends the stream.
    chunked: bool,
    /// What was written last ends in the middle of an event.
    inside: bool,
    /// Something else than heartbeats was written.
    begun: bool,
    head: Head,
    /// Lines that follow the last chunk.
    trailers: String,
    /// The bytes of one write, kept for its room.
    frame: Vec<u8>,
    heartbeats: u32,
}

/// What goes into the head besides what every stream says.
#[derive(Default)]
pub struct Head {
    pub content_type: &'static str,
    /// What is sent into the stream while it is silent: whole events, or comments.
    pub heartbeat: &'static [u8],
    /// The same once the stream has begun, where that is another one.
    pub later: Option<&'static [u8]>,
    /// Events that stand before whatever comes first. Alone they are a heartbeat, too.
    pub opening: Vec<u8>,
    /// Lines with their ends.
    pub fixed: String,
    /// Names of the lines that will follow the body.
    pub trailers: Option<&'static str>,
    /// Lines about the attempt that is being made; the last one before the head leaves counts.
    pub attempt: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing is written yet.
    Fresh,
    /// The head is out.
    Open,
    /// The last byte is out, or can never be.
    Ended,
}

impl Stream {
    pub fn new(
        writer: Box<dyn Write + Send>,
        chunked: bool,
        head: Head,
        keepalive: Duration,
        held: Arc<Held>,
    ) -> Stream {
        Stream {
            heartbeat: head.heartbeat,
            later: head.later.unwrap_or(head.heartbeat),
            out: Mutex::new(Out {
                writer,
                state: State::Fresh,
                chunked,
                inside: false,
                begun: false,
                head,
                trailers: String::new(),
                frame: Vec::new(),
                heartbeats: 0,
            }),
            held,
            last: AtomicU64::new(clock::now()),
            writing_since: AtomicU64::new(0),
            has_turn: AtomicBool::new(false),
            keepalive: clock::millis(keepalive).max(1),
        }
    }

    /// Something was written. Does not wait for a write that is going on.
    pub fn has_turn(&self) -> bool {
        self.has_turn.load(Ordering::Relaxed)
    }

    pub fn heartbeats(&self) -> u32 {
        self.out.lock().heartbeats
    }

    /// Says what the head will tell about the attempt, unless it is out.
    pub fn announce(&self, lines: String) {
        let mut out = self.out.lock();
        if out.state == State::Fresh {
            out.head.attempt = lines;
        }
    }

    /// Sends whole events.
    pub fn send(&self, events: &[u8]) -> Result<(), Gone> {
        self.write(&mut self.out.lock(), events, false)
    }

    /// Sends a piece of a stream that is passed on as it comes. Unless an event ends with it, no
    /// heartbeat may follow.
    pub fn pass(&self, piece: &[u8], ends_event: bool) -> Result<(), Gone> {
        let mut out = self.out.lock();
        out.inside = !ends_event;
        self.write(&mut out, piece, false)
    }

    /// Sends an event into a stream that is passed on and has begun, unless it would stand in the
    /// middle of another one.
    pub fn interject(&self, event: &[u8]) {
        let mut out = self.out.lock();
        if out.state == State::Open && !out.inside {
            // Whoever calls this ends the stream in any case.
            let _ = self.write(&mut out, event, false);
        }
    }

    /// Sends the last events, possibly none, and ends the stream. `trailers` are header lines
    /// that follow the body, where the framing has a place for them.
    pub fn end(&self, events: &[u8], trailers: &str) -> Result<(), Gone> {
        let mut out = self.out.lock();
        trailers.clone_into(&mut out.trailers);
        self.write(&mut out, events, true)
    }

    /// Ends the stream because of an error for which the dialect has no event: as a plain answer
    /// if nothing is out yet. Else true: its end is missing, and the caller has to see that.
    pub fn abandon(&self, mut reply: Reply) -> bool {
        let mut out = self.out.lock();
        match std::mem::replace(&mut out.state, State::Ended) {
            State::Fresh => {
                self.held.release();
                reply.headers.push_str(&out.head.fixed);
                let _writing = self.writing();
                // A caller who has gone is a normal end.
                if reply.write(&mut out.writer).is_ok() {
                    out.let_go();
                }
                false
            }
            State::Open => true,
            State::Ended => false,
        }
    }

    /// Breaks the framing of an abandoned stream, for connections that cannot be cut.
    pub fn spoil(&self) {
        let mut out = self.out.lock();
        let _writing = self.writing();
        let _ = out.writer.write_all(SPOILT);
        let _ = out.writer.flush();
    }

    /// Ends the stream because of an error: as a plain answer if nothing is out yet, else with
    /// `event` as its last one. True if it became the plain answer.
    pub fn fail(&self, mut reply: Reply, event: &[u8]) -> Result<bool, Gone> {
        let mut out = self.out.lock();
        if out.state != State::Fresh {
            return self.write(&mut out, event, true).map(|()| false);
        }
        out.state = State::Ended;
        self.held.release();
        reply.headers.push_str(&out.head.fixed);
        let written = {
            let _writing = self.writing();
            reply.write(&mut out.writer)
        };
        if written.is_ok() {
            out.let_go();
        }
        written.map(|()| true).map_err(|_| Gone)
    }

    /// A heartbeat, if the stream has been silent for long enough. For the timer thread, which
    /// has seen that a small write will not block.
    pub fn beat(&self) {
        if !self.is_quiet() {
            return;
        }
        // A stream that is being written is not quiet.
        let Some(mut out) = self.out.try_lock() else {
            return;
        };
        if !self.is_quiet() || out.inside {
            return;
        }
        let begun = out.begun;
        let event = match out.state {
            State::Fresh if !out.head.opening.is_empty() => b"",
            _ if begun => self.later,
            _ => self.heartbeat,
        };
        if self.write(&mut out, event, false).is_ok() {
            out.heartbeats += 1;
            out.begun = begun;
        }
    }

    /// Nothing was written for the time after which a heartbeat is due.
    pub fn is_quiet(&self) -> bool {
        self.quiet_until() <= clock::now()
    }

    /// `clock::now` of the next heartbeat, if nothing is written before.
    pub fn quiet_until(&self) -> u64 {
        self.last.load(Ordering::Relaxed) + self.keepalive
    }

    /// How many milliseconds the write that is going on has taken so far.
    pub fn blocked_for(&self) -> Option<u64> {
        match self.writing_since.load(Ordering::Relaxed) {
            0 => None,
            since => Some(clock::now().saturating_sub(since)),
        }
    }

    fn writing(&self) -> Writing<'_> {
        self.writing_since.store(clock::now(), Ordering::Relaxed);
        Writing(self)
    }

    fn write(&self, out: &mut Out, events: &[u8], last: bool) -> Result<(), Gone> {
        if out.state == State::Ended {
            return Err(Gone);
        }
        if last {
            self.held.release();
        }
        let _writing = self.writing();
        out.begun = true;
        out.frame(events, last);
        let written = out.write_frame();
        if out.state == State::Fresh {
            // The head was most of it, and is needed no more.
            (out.frame, out.head) = (Vec::new(), Head::default());
        }
        self.has_turn.store(true, Ordering::Relaxed);
        out.state = match written {
            Ok(()) if !last => State::Open,
            // After a failed write the framing is broken, so nothing may follow.
            _ => State::Ended,
        };
        if last && written.is_ok() {
            out.let_go();
        }
        written.map_err(|_| Gone)
    }
}

/// While it lives, the stream is being written.
struct Writing<'a>(&'a Stream);

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.0.writing_since.store(0, Ordering::Relaxed);
        self.0.last.store(clock::now(), Ordering::Relaxed);
    }
}

impl Out {
    /// Puts together what one write sends.
    fn frame(&mut self, events: &[u8], last: bool) {
        self.frame.clear();
        let opening = std::mem::take(&mut self.head.opening);
        if self.state == State::Fresh {
            self.frame
                .extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Type: ");
            self.frame
                .extend_from_slice(self.head.content_type.as_bytes());
            self.frame
                .extend_from_slice(b"\r\nCache-Control: no-cache\r\nX-Accel-Buffering: no\r\n");
            self.frame.extend_from_slice(self.head.fixed.as_bytes());
            if let Some(names) = self.head.trailers {
                self.frame.extend_from_slice(b"Trailer: ");
                self.frame.extend_from_slice(names.as_bytes());
                self.frame.extend_from_slice(b"\r\n");
            }
            self.frame.extend_from_slice(self.head.attempt.as_bytes());
            self.frame.extend_from_slice(if self.chunked {
                b"Transfer-Encoding: chunked\r\n\r\n"
            } else {
                b"Connection: close\r\n\r\n"
            });
        }
        if !self.chunked {
            self.frame.extend_from_slice(&opening);
            self.frame.extend_from_slice(events);
            return;
        }
        let length = opening.len() + events.len();
        if length > 0 {
            push_hex(&mut self.frame, length);
            self.frame.extend_from_slice(b"\r\n");
            self.frame.extend_from_slice(&opening);
            self.frame.extend_from_slice(events);
            self.frame.extend_from_slice(b"\r\n");
        }
        if last {
            self.frame.extend_from_slice(b"0\r\n");
            self.frame.extend_from_slice(self.trailers.as_bytes());
            self.frame.extend_from_slice(b"\r\n");
        }
    }

    /// Lets go of the writer, for which the next answer on the connection waits: whoever still holds
    /// on to the stream must not hold that up. Behind a broken answer there must not be one.
    fn let_go(&mut self) {
        self.writer = Box::new(io::sink());
    }

    fn write_frame(&mut self) -> io::Result<()> {
        self.writer.write_all(&self.frame)?;
        self.writer.flush()?;
        // An event of many megabytes should not keep its room for the rest of the stream.
        const KEPT: usize = 64 * 1024;
        if self.frame.capacity() > KEPT {
            self.frame = Vec::new();
        }
        Ok(())
    }
}

fn push_hex(out: &mut Vec<u8>, number: usize) {
    let digits = (usize::BITS - number.leading_zeros()).div_ceil(4).max(1);
    for place in (0..digits).rev() {
        out.push(b"0123456789abcdef"[number >> (4 * place) & 15]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes what is written, one entry a flush.
    #[derive(Clone, Default)]
    struct Wire(Arc<Mutex<(Vec<u8>, Vec<String>)>>);

    impl Write for Wire {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().0.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            let mut wire = self.0.lock();
            let flushed = String::from_utf8(std::mem::take(&mut wire.0)).unwrap();
            wire.1.push(flushed);
            Ok(())
        }
    }

    fn stream(chunked: bool, keepalive: Duration) -> (Stream, Wire) {
        let wire = Wire::default();
        let head = Head {
            content_type: "text/event-stream",
            heartbeat: b": keep-alive\n\n",
            later: None,
            opening: Vec::new(),
            fixed: "x-request-id: r\r\n".into(),
            trailers: None,
            attempt: String::new(),
        };
        (
            Stream::new(
                Box::new(wire.clone()),
                chunked,
                head,
                keepalive,
                Arc::default(),
            ),
            wire,
        )
    }

    const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\nX-Accel-Buffering: no\r\nx-request-id: r\r\n";

    #[test]
    fn head_and_first_event_leave_together_and_the_end_with_the_last() {
        let (stream, wire) = stream(true, Duration::from_secs(10));
        stream.announce("x-weir-attempts: 1\r\n".into());
        assert!(!stream.has_turn());
        stream.send(b"data: 0123456789\n\n").unwrap();
        stream.announce("too late".into());
        stream.beat();
        stream.end(b"data: [DONE]\n\n", "").unwrap();
        assert_eq!(stream.send(b"data: x\n\n"), Err(Gone));
        assert_eq!(
            wire.0.lock().1,
            [
                format!(
                    "{HEAD}x-weir-attempts: 1\r\nTransfer-Encoding: chunked\r\n\r\n12\r\ndata: 0123456789\n\n\r\n"
                ),
                "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n".to_owned(),
            ]
        );
    }

    #[test]
    fn a_silent_stream_beats_and_a_failure_then_is_an_event() {
        let (stream, wire) = stream(false, Duration::ZERO);
        stream.last.store(0, Ordering::Relaxed);
        stream.beat();
        assert!(stream.has_turn());
        let became_plain = stream
            .fail(Reply::new(503), b"data: {\"error\":{}}\n\n")
            .unwrap();
        assert!(!became_plain);
        stream.last.store(0, Ordering::Relaxed);
        stream.beat();
        assert_eq!(
            wire.0.lock().1,
            [
                format!("{HEAD}Connection: close\r\n\r\n: keep-alive\n\n"),
                "data: {\"error\":{}}\n\n".to_owned(),
            ]
        );
        assert_eq!(stream.heartbeats(), 1);
    }

    #[test]
    fn a_stream_that_is_passed_on_beats_between_its_events_only() {
        let (stream, wire) = stream(false, Duration::ZERO);
        let beats = |piece: &[u8], ends_event: bool| {
            stream.pass(piece, ends_event).unwrap();
            stream.last.store(0, Ordering::Relaxed);
            stream.beat();
            wire.0.lock().1.len()
        };
        assert_eq!(beats(b"data: ", false), 1);
        assert_eq!(beats(b"1\n\n", true), 3);
        assert_eq!(wire.0.lock().1[2], ": keep-alive\n\n");
    }

    #[test]
    fn a_failure_before_the_head_keeps_its_status() {
        let (stream, wire) = stream(true, Duration::from_secs(10));
        assert!(stream.fail(Reply::new(503), b"unused").unwrap());
        assert!(wire.0.lock().1[0].starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
        assert!(wire.0.lock().1[0].contains("x-request-id: r\r\n"));
        assert_eq!(stream.send(b"x"), Err(Gone));
    }

    #[test]
    fn trailers_follow_the_last_chunk() {
        let (stream, wire) = stream(true, Duration::from_secs(10));
        stream.send(b"a").unwrap();
        stream.end(b"b", "x-y: 1\r\n").unwrap();
        assert_eq!(wire.0.lock().1[1], "1\r\nb\r\n0\r\nx-y: 1\r\n\r\n");
    }

    #[test]
    fn an_abandoned_stream_is_refused_or_has_no_end() {
        let (fresh, wire) = stream(true, Duration::from_secs(10));
        assert!(!fresh.abandon(Reply::new(502)));
        assert!(wire.0.lock().1[0].starts_with("HTTP/1.1 502 "));
        assert!(wire.0.lock().1[0].contains("x-request-id: r\r\n"));
        let (begun, wire) = stream(true, Duration::from_secs(10));
        begun.send(b"a").unwrap();
        assert!(begun.abandon(Reply::new(502)));
        assert!(!begun.abandon(Reply::new(502)));
        assert_eq!(begun.end(b"", ""), Err(Gone));
        assert_eq!(wire.0.lock().1.len(), 1);
        // An answer that has ended stays whole.
        let (whole, _) = stream(true, Duration::from_secs(10));
        whole.end(b"a", "").unwrap();
        assert!(!whole.abandon(Reply::new(502)));
    }

    #[test]
    fn a_stream_that_is_being_written_is_left_alone() {
        let (stream, wire) = stream(true, Duration::ZERO);
        stream.last.store(0, Ordering::Relaxed);
        let out = stream.out.lock();
        stream.beat();
        drop(out);
        assert!(wire.0.lock().1.is_empty());
    }

    /// The HTTP server holds the next answer on the connection back until the writer is gone, and
    /// the timer thread may hold on to the stream for a while.
    #[test]
    fn the_writer_is_let_go_of_with_the_last_byte() {
        let ends: [fn(&Stream); 5] = [
            |stream| stream.end(b"data: [DONE]\n\n", "").unwrap(),
            |stream| {
                stream.send(b"a").unwrap();
                stream.end(b"b", "").unwrap();
            },
            |stream| assert!(stream.fail(Reply::new(503), b"x").unwrap()),
            |stream| {
                stream.send(b"a").unwrap();
                assert!(!stream.fail(Reply::new(503), b"x").unwrap());
            },
            |stream| assert!(!stream.abandon(Reply::new(502))),
        ];
        for (number, end) in ends.into_iter().enumerate() {
            let (stream, wire) = stream(true, Duration::from_secs(10));
            end(&stream);
            assert_eq!(Arc::strong_count(&wire.0), 1, "{number}");
        }
    }

    #[test]
    fn hex_lengths() {
        for number in [0, 1, 15, 16, 255, 256, 0x0dea_dbee] {
            let mut out = Vec::new();
            push_hex(&mut out, number);
            assert_eq!(String::from_utf8(out).unwrap(), format!("{number:x}"));
        }
    }
}
