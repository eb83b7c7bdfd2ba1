//! One connection to an upstream, plain or under TLS, as the HTTP client sees it.
//!
//! Blocks in plain reads and writes without any timeout on the socket: whatever ends a wait comes
//! from outside, through `Cancel`. A short request on a pooled connection makes three system calls,
//! under TLS too: a look whether it is still quiet, one send for head and body together, one read.
//!
//! The client calls `transmit_output` once for the head and once for each piece of the body, and
//! says nothing about flushing. The head stays where it was written and the client is given the
//! room behind it, so that both leave in one piece; without a body it leaves at once.

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::ClientConnection;
use ureq::Error;
use ureq::unversioned::transport::{Buffers, NextTimeout, Transport};

use super::attempt::{self, Phase, Trouble, words};
use super::connect::Socket;
use crate::cancel::{self, Cancel, Wait};
use crate::sys::connect::is_quiet;

/// Also caps the head of an answer. Vendors send 1 to 4 KiB; 16 KiB is one whole TLS record.
pub const INPUT: usize = 16 * 1024;

/// What an answer is read into at first, and a stream throughout: heads of 800 bytes and events of
/// 300 are common, and a thousand streams would hold 16 MB in whole pages.
const SIP: usize = 2 * 1024;

/// Room for the head of a request beside its body; the client needs each header to fit.
const HEAD_ROOM: usize = 8 * 1024;

/// The most that leaves in one send. A chat of 200 KB takes four; the copy is freed when the last
/// one is out.
const OUTPUT: usize = 64 * 1024;

/// What a request through a proxy without a tunnel says besides.
#[derive(Debug, Clone)]
pub struct Detour {
    /// `http://host:port`, put before the path.
    pub origin: String,
    /// Header lines for the proxy, each with its CRLF.
    pub headers: String,
}

pub struct Wire {
    socket: Arc<Socket>,
    tls: Option<Box<ClientConnection>>,
    detour: Option<Box<Detour>>,
    pages: Pages,
    /// From the first byte of a request until the connection goes back into the pool.
    busy: bool,
    /// Who can end the current exchange.
    cancel: Option<Arc<Cancel>>,
    /// Sending failed in the middle. An upstream that refuses a long body answers and closes
    /// without reading it, and that answer is what the caller should see.
    send_failed: Option<io::Error>,
}

impl Wire {
    /// `socket` is what the current `Cancel` hangs on from here on.
    pub fn new(socket: Arc<Socket>) -> Wire {
        let mut wire = Wire {
            socket,
            tls: None,
            detour: None,
            pages: Pages::default(),
            busy: false,
            cancel: None,
            send_failed: None,
        };
        wire.hang_on();
        wire
    }

    pub fn socket(&self) -> &Arc<Socket> {
        &self.socket
    }

    pub fn encrypt(&mut self, tls: ClientConnection) {
        self.tls = Some(Box::new(tls));
    }

    pub fn set_detour(&mut self, detour: Detour) {
        self.detour = Some(Box::new(detour));
    }

    fn hang_on(&mut self) {
        self.cancel = cancel::with_current(|cancel| {
            cancel.hang_on(Arc::clone(&self.socket) as Arc<dyn Wait>);
            Arc::clone(cancel)
        });
    }

    fn let_go(&mut self) {
        if let Some(cancel) = self.cancel.take() {
            let socket: Arc<dyn Wait> = Arc::clone(&self.socket) as Arc<dyn Wait>;
            cancel.let_go_of(&socket);
        }
    }

    /// Sends what was held back and what follows it.
    fn send(&mut self) -> Result<(), Error> {
        let length = std::mem::take(&mut self.pages.held);
        if self.send_failed.is_some() {
            return Ok(());
        }
        let result = match &mut self.tls {
            None => send_all(&self.socket, &self.pages.output[..length]),
            Some(tls) => send_encrypted(&self.socket, tls, &self.pages.output[..length]),
        };
        let Err(error) = result else {
            return Ok(());
        };
        if self.socket.is_ended() {
            return Err(Trouble::ended().into());
        }
        let sent = attempt::current().is_some_and(|attempt| attempt.sent);
        if sent {
            self.send_failed = Some(error);
            return Ok(());
        }
        Err(Trouble::new(words(&error)).into())
    }

    fn read(&mut self) -> io::Result<usize> {
        let into = self.pages.input_append_buf();
        match &mut self.tls {
            None => self.socket.read(into),
            Some(tls) => read_decrypted(&self.socket, tls, into),
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // The `Cancel` would keep the socket open until its next wait.
        self.let_go();
    }
}

/// Bytes that the kernel took count as sent, whatever becomes of them.
struct Counted<'a>(&'a Socket);

impl Write for Counted<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let length = (&self.0.stream).write(buf)?;
        attempt::note(|attempt| attempt.sent |= length > 0);
        Ok(length)
    }

    fn write_vectored(&mut self, bufs: &[io::IoSlice<'_>]) -> io::Result<usize> {
        let length = (&self.0.stream).write_vectored(bufs)?;
        attempt::note(|attempt| attempt.sent |= length > 0);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn send_all(socket: &Socket, bytes: &[u8]) -> io::Result<()> {
    Counted(socket).write_all(bytes)
}

fn send_encrypted(socket: &Socket, tls: &mut ClientConnection, bytes: &[u8]) -> io::Result<()> {
    tls.writer().write_all(bytes)?;
    drain(socket, tls)
}

fn drain(socket: &Socket, tls: &mut ClientConnection) -> io::Result<()> {
    while tls.wants_write() {
        match tls.write_tls(&mut Counted(socket)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(_) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A socket with the end told apart, as a reader.
struct Raw<'a>(&'a Socket);

impl Read for Raw<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

fn read_decrypted(
    socket: &Socket,
    tls: &mut ClientConnection,
    into: &mut [u8],
) -> io::Result<usize> {
    loop {
        match tls.reader().read(into) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // Anyone on the way could have cut the connection here.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                let text = "the connection was cut (no TLS close_notify)";
                return Err(Trouble::new(text).into());
            }
            result => return result,
        }
        tls.read_tls(&mut Raw(socket))?;
        if let Err(error) = tls.process_new_packets() {
            let _ = drain(socket, tls);
            return Err(Trouble::new(format!("TLS: {error}")).into());
        }
        // Answers of the TLS layer itself, for instance to a change of keys.
        drain(socket, tls)?;
    }
}

impl Transport for Wire {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.pages
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), Error> {
        let begins = !self.busy;
        if begins {
            self.busy = true;
            if self.cancel.is_none() {
                self.hang_on();
            }
            attempt::enter(Phase::Send);
        }
        self.pages.held += amount;
        if begins && let Some(detour) = &self.detour {
            self.pages.take(detour);
        }
        let body = attempt::current().map_or(0, |attempt| attempt.body);
        if begins && body > 0 && self.pages.held <= HEAD_ROOM / 2 {
            return Ok(());
        }
        self.send()
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, Error> {
        if self.pages.held > 0 {
            self.send()?;
        }
        lay_aside(std::mem::take(&mut self.pages.output));
        self.pages.fit_input();
        attempt::note(|attempt| {
            if attempt.phase == Phase::Send {
                attempt.phase = Phase::Head;
            }
        });
        if self.pages.input_append_buf().is_empty() {
            let text = format!("the head of the answer is longer than {INPUT} bytes");
            return Err(Trouble::new(text).into());
        }
        match self.read() {
            Ok(0) => match self.send_failed.take() {
                Some(error) => Err(Trouble::new(words(&error)).into()),
                None => Ok(false),
            },
            Ok(length) => {
                self.pages.input_appended(length);
                Ok(true)
            }
            Err(error) => match error.get_ref().is_some_and(|inner| inner.is::<Trouble>()) {
                true => Err(Error::Io(error)),
                false => Err(Trouble::new(words(&error)).into()),
            },
        }
    }

    /// Asked on the way into the pool, where everything is known, and on the way out, where the
    /// upstream may have closed or spoken meanwhile.
    fn is_open(&mut self) -> bool {
        if self.busy {
            self.busy = false;
            self.let_go();
            self.pages.clear();
            let more = match &mut self.tls {
                Some(tls) => match tls.process_new_packets() {
                    Ok(state) => state.plaintext_bytes_to_read() > 0 || state.peer_has_closed(),
                    Err(_) => true,
                },
                None => false,
            };
            return !more && self.send_failed.is_none() && !self.socket.is_ended();
        }
        let wanted = !attempt::current().is_some_and(|attempt| attempt.fresh);
        let open = wanted && !self.socket.is_ended() && is_quiet(&self.socket.stream);
        if open {
            attempt::note(|attempt| attempt.reused = true);
        }
        open
    }

    fn is_tls(&self) -> bool {
        self.tls.is_some()
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire")
            .field("tls", &self.tls.is_some())
            .field("busy", &self.busy)
            .finish_non_exhaustive()
    }
}

/// Rooms of one length that are not in use. A request needs three for some microseconds; taking and
/// zeroing them anew cost a tenth of its instructions.
struct Spare(Mutex<Vec<Vec<u8>>>);

/// As many as requests are commonly on their way at once; the rest goes back to the allocator.
const SPARES: usize = 8;

static PAGES: Spare = Spare(Mutex::new(Vec::new()));
static SIPS: Spare = Spare(Mutex::new(Vec::new()));

impl Spare {
    fn take(&self) -> Option<Vec<u8>> {
        self.0.lock().pop()
    }

    fn keep(&self, room: Vec<u8>) {
        let mut rooms = self.0.lock();
        if rooms.len() < SPARES {
            rooms.push(room);
        }
    }
}

/// A page of at least `length` bytes.
fn page(length: usize) -> Vec<u8> {
    let kept = (length <= INPUT).then(|| PAGES.take()).flatten();
    kept.unwrap_or_else(|| vec![0; length.max(INPUT)])
}

fn sip() -> Vec<u8> {
    SIPS.take().unwrap_or_else(|| vec![0; SIP])
}

fn lay_aside(room: Vec<u8>) {
    match room.len() {
        INPUT => PAGES.keep(room),
        SIP => SIPS.keep(room),
        _ => {}
    }
}

/// The bytes on their way out and in. Output lives while the request is sent, input while the
/// answer is read; a connection in the pool holds neither.
#[derive(Default)]
struct Pages {
    output: Vec<u8>,
    /// Bytes at the front of `output` that are still to be sent.
    held: usize,
    input: Vec<u8>,
    /// `input[start..end]` is not consumed yet.
    start: usize,
    end: usize,
    /// The last look at the input took something from it.
    progress: bool,
    /// What the last read brought.
    last_read: usize,
}

impl Pages {
    fn clear(&mut self) {
        let pages = std::mem::take(self);
        lay_aside(pages.output);
        lay_aside(pages.input);
    }

    /// A whole page once a read has filled the room, and little again when little comes.
    fn fit_input(&mut self) {
        let left = self.end - self.start;
        let small = self.input.len() == SIP;
        let room = match (small, self.last_read) {
            _ if self.input.is_empty() => sip(),
            (true, _) if left == SIP => page(INPUT),
            (true, SIP..) => page(INPUT),
            (false, ..SIP) if left == 0 => sip(),
            _ => return,
        };
        let old = std::mem::replace(&mut self.input, room);
        self.input[..left].copy_from_slice(&old[self.start..self.end]);
        (self.start, self.end) = (0, left);
        lay_aside(old);
    }

    /// Turns the head into that of a request to a proxy.
    fn take(&mut self, detour: &Detour) {
        let head = &self.output[..self.held];
        let after_method = head.iter().position(|byte| *byte == b' ');
        let after_line = head.windows(2).position(|two| two == b"\r\n");
        let (Some(method), Some(line)) = (after_method, after_line) else {
            return;
        };
        let (method, line) = (method + 1, line + 2);
        self.output
            .splice(line..line, detour.headers.bytes())
            .for_each(drop);
        self.output
            .splice(method..method, detour.origin.bytes())
            .for_each(drop);
        self.held += detour.headers.len() + detour.origin.len();
    }
}

impl Buffers for Pages {
    fn output(&mut self) -> &mut [u8] {
        if self.output.is_empty() {
            let body = attempt::current().map_or(0, |attempt| attempt.body);
            self.output = page(HEAD_ROOM.saturating_add(body).min(OUTPUT));
        }
        &mut self.output[self.held..]
    }

    fn input(&self) -> &[u8] {
        &self.input[self.start..self.end]
    }

    fn input_append_buf(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.input.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        &mut self.input[self.end..]
    }

    fn input_appended(&mut self, amount: usize) {
        self.end += amount;
        self.last_read = amount;
    }

    fn input_consume(&mut self, amount: usize) {
        self.progress = amount > 0;
        self.start = (self.start + amount).min(self.end);
    }

    /// The scratch space is for bodies that go out in chunks. Nothing comes in meanwhile, so the
    /// room for that is free.
    fn tmp_and_output(&mut self) -> (&mut [u8], &mut [u8]) {
        if attempt::current().is_none_or(|attempt| attempt.body != attempt::UNKNOWN) {
            return (&mut [], self.output());
        }
        self.output();
        if self.input.len() < INPUT {
            lay_aside(std::mem::replace(&mut self.input, page(INPUT)));
        }
        (&mut self.input[self.end..], &mut self.output[self.held..])
    }

    fn can_use_input(&self) -> bool {
        self.start < self.end && self.progress
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One read of so many bytes, of which the last `left` are not consumed.
    fn read(pages: &mut Pages, count: usize, left: usize) -> usize {
        pages.fit_input();
        let room = pages.input_append_buf();
        let first = u8::try_from(count % 251).unwrap();
        room[..count].fill(first);
        let room = room.len();
        pages.input_appended(count);
        pages.input_consume(pages.input().len() - left);
        room
    }

    #[test]
    fn small_reads_take_little_room_and_large_ones_a_page() {
        let mut pages = Pages::default();
        assert_eq!(read(&mut pages, 900, 0), SIP);
        assert_eq!(read(&mut pages, SIP, 0), SIP);
        assert_eq!(read(&mut pages, INPUT, 0), INPUT);
        assert_eq!(read(&mut pages, 300, 5), INPUT);
        // What is not consumed stays, so the page does too.
        assert_eq!(pages.input(), [49; 5]);
        assert_eq!(read(&mut pages, 300, 0), INPUT - 5);
        assert_eq!(read(&mut pages, 300, 0), SIP);
    }

    #[test]
    fn a_head_that_fills_its_room_gets_more_up_to_the_limit() {
        let mut pages = Pages::default();
        assert_eq!(read(&mut pages, 2000, 2000), SIP);
        assert_eq!(read(&mut pages, SIP - 2000, SIP), SIP - 2000);
        assert_eq!(read(&mut pages, INPUT - SIP, INPUT), INPUT - SIP);
        pages.fit_input();
        assert!(pages.input_append_buf().is_empty());
        assert_eq!(pages.input().len(), INPUT);
        assert_eq!(pages.input()[..2000], [243; 2000]);
    }
}
