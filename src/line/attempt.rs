//! What one attempt on a line has come to, kept where resolver, connector and transport find it.
//!
//! The HTTP client calls these three on the thread that sends, without a way to hand them anything
//! or to get anything back but its own errors, so the way leads past it.

use std::cell::Cell;
use std::error::Error;
use std::fmt;
use std::io;
use std::time::Instant;

/// How far an attempt came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// URL and headers.
    Prepare,
    /// Looking up the upstream's (or the proxy's) name.
    Resolve,
    Connect,
    /// The proxy was asked for a tunnel.
    Proxy,
    Tls,
    /// The request is on its way.
    Send,
    /// All is sent, and the head of the answer is awaited.
    Head,
    /// The answer has begun.
    Body,
}

/// The attempt that this thread is making.
#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    /// Name, connection, tunnel and handshake have to be there by then.
    pub connect_by: Instant,
    /// Bytes of the request's body.
    pub body: usize,
    pub phase: Phase,
    /// At least one byte of the request was handed to the kernel.
    pub sent: bool,
    /// The connection came from the pool.
    pub reused: bool,
    /// None may come from there.
    pub fresh: bool,
}

/// The length of a body that goes out in chunks.
pub const UNKNOWN: usize = usize::MAX;

thread_local! {
    static CURRENT: Cell<Option<Attempt>> = const { Cell::new(None) };
}

/// Clears the attempt on every way out.
pub struct Begun(());

pub fn begin(connect_by: Instant, body: usize, fresh: bool) -> Begun {
    CURRENT.set(Some(Attempt {
        connect_by,
        body,
        phase: Phase::Prepare,
        sent: false,
        reused: false,
        fresh,
    }));
    Begun(())
}

impl Drop for Begun {
    fn drop(&mut self) {
        CURRENT.set(None);
    }
}

pub fn current() -> Option<Attempt> {
    CURRENT.get()
}

/// Outside of an attempt (the rest of a body, read after the head was handed out) there is nothing
/// to note.
pub fn note(change: impl FnOnce(&mut Attempt)) {
    if let Some(mut attempt) = CURRENT.get() {
        change(&mut attempt);
        CURRENT.set(Some(attempt));
    }
}

pub fn enter(phase: Phase) {
    note(|attempt| attempt.phase = phase);
}

/// A fault that already knows its words. It travels inside an `io::Error` of the kind `Other`: the
/// client takes the kinds that mean a lost connection for the end of a body without a length.
#[derive(Debug)]
pub struct Trouble {
    pub text: String,
    pub timeout: bool,
}

impl Trouble {
    pub fn new(text: impl Into<String>) -> Trouble {
        Trouble {
            text: text.into(),
            timeout: false,
        }
    }

    pub fn timeout(text: impl Into<String>) -> Trouble {
        Trouble {
            text: text.into(),
            timeout: true,
        }
    }

    /// The wait was ended through its `Cancel`, which knows why.
    pub fn ended() -> Trouble {
        Trouble::new("ended before the upstream was done")
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Trouble {}

impl From<Trouble> for io::Error {
    fn from(trouble: Trouble) -> io::Error {
        io::Error::other(trouble)
    }
}

impl From<Trouble> for ureq::Error {
    fn from(trouble: Trouble) -> ureq::Error {
        ureq::Error::Io(trouble.into())
    }
}

/// A cause in few words, without the operating system's error number.
pub fn words(error: &io::Error) -> String {
    use io::ErrorKind::*;
    match error.kind() {
        ConnectionRefused => "connection refused".into(),
        ConnectionReset => "connection reset".into(),
        ConnectionAborted => "connection aborted".into(),
        BrokenPipe => "connection closed while sending".into(),
        HostUnreachable => "host unreachable".into(),
        NetworkUnreachable => "network unreachable".into(),
        AddrNotAvailable => "address not available".into(),
        TimedOut => "timed out".into(),
        UnexpectedEof => "connection closed".into(),
        _ => error.to_string(),
    }
}
