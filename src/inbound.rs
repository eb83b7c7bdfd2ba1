//! One HTTP request in: its framing, its body within limits, who sends it, and the way to answer.
//!
//! The HTTP server believes what a request says of its own length and drains what was not read
//! into memory when a request is dropped. So everything about framing is checked here before
//! anything else touches a request, and a request whose body is over the limit is never dropped.

use std::io::{self, Read, Write};
use std::mem;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tiny_http::{Method, Request};

use crate::desk::{Held, Job, Phase};
use crate::dialect::{Dialect, responses};
use crate::error::ApiError;
use crate::reply::{Reply, push_header};
use crate::sys::reader;
use crate::watch::Watch;

mod body;
mod chunks;
mod coding;
mod framing;
mod gzip;
pub mod room;
mod unread;

use body::{read_all, read_length, read_some};
use chunks::Chunks;
use room::Room;
use unread::leak;

pub use body::NoBody;
pub use coding::ACCEPTED;
pub use framing::{Length, weight};
pub use unread::{Unread, leaked};

/// Bytes of all headers together, and of the URL.
const MAX_HEAD: usize = 32 * 1024;

/// A request's own id is taken over up to this length.
const MAX_ID: usize = 128;

/// How long a body over the limit is still read, where the connection cannot be found (a unix
/// socket): only so does the answer reach the caller whole.
const SWALLOWING: Duration = Duration::from_secs(30);

/// What the server may drain in one piece behind it.
const DRAINABLE: usize = 16 * 1024 * 1024;

/// The HTTP server has read shorter bodies before there was a request.
const READ_AHEAD: usize = 1024;

/// An unread body up to this length keeps its connection.
const DRAINED: u64 = 64 * 1024;

/// A request that has not been answered yet. Dropping it answers with an error.
pub struct Call<'w> {
    request: Option<Request>,
    watch: &'w Watch,
    held: Arc<Held>,
    pub id: String,
    pub method: Method,
    pub path: String,
    pub query: String,
    /// The host of a target in its absolute form.
    pub authority: Option<String>,
    pub peer: Option<SocketAddr>,
    pub length: Length,
    /// The caller speaks HTTP/1.0, which has no chunked framing.
    pub old: bool,
    /// How this caller is spoken to.
    pub dialect: Dialect,
    /// What an answer in that dialect has to know of the request.
    pub asked: Option<Arc<responses::Asked>>,
    /// The connection must not be used any further.
    close: bool,
    /// The caller offered an upgrade, so the HTTP server takes this for the last request of its
    /// connection and hands out the connection itself where the body should be. Every answer says
    /// that it is the last one.
    last: bool,
    /// Where in its chunks the body of such a request is.
    chunks: Chunks,
    /// The caller sends its body only when it is told to go on.
    waits: bool,
    /// Something of the body was read.
    touched: bool,
    /// Headers that go into every answer to this caller.
    common: String,
}

/// A request whose framing cannot be trusted. It has been answered with this.
#[derive(Debug)]
pub struct Misframed {
    pub id: String,
    pub error: ApiError,
}

impl<'w> Call<'w> {
    /// Takes a request over. An error is a framing that cannot be trusted: it has been answered,
    /// and the connection will be closed.
    /// `held` is let go of before the last bytes of the answer leave.
    pub fn take(
        request: Request,
        watch: &'w Watch,
        max_body: usize,
        held: Arc<Held>,
    ) -> Result<Call<'w>, Box<Misframed>> {
        // Before anything is checked, since it answers when it is dropped: whatever happens in here,
        // the caller hears of it.
        let mut call = Call {
            watch,
            held,
            id: own_id(&request).unwrap_or_else(new_id),
            method: request.method().clone(),
            path: String::new(),
            query: String::new(),
            authority: None,
            peer: request.remote_addr().copied(),
            // Until it is known, it must not be relied on.
            length: Length::Chunked,
            old: *request.http_version() < (1, 1),
            dialect: Dialect::Chat,
            asked: None,
            close: false,
            last: framing::is_last(&request),
            chunks: Chunks::default(),
            waits: framing::header(&request, "expect").is_some(),
            touched: false,
            common: String::new(),
            request: Some(request),
        };
        push_header(&mut call.common, "x-request-id", &call.id);
        if call.last {
            push_header(&mut call.common, "Connection", "close");
        }
        let Some(request) = &call.request else {
            return Ok(call);
        };
        #[cfg(debug_assertions)]
        crate::exchange::panic_on_demand(request.url().as_bytes());
        let checked = framing::check(request);
        (call.path, call.query, call.authority) = split(request.url());
        call.dialect = Dialect::of_path(&call.path);
        if call.dialect == Dialect::Messages {
            push_header(&mut call.common, "request-id", &call.id);
        }
        call.length = *checked.as_ref().unwrap_or(&Length::None);
        let fault = match checked {
            Ok(Length::Known(length)) if length > max_body as u64 => {
                let error = too_long(max_body);
                call.refuse_unread(&error);
                return Err(call.misframed(error));
            }
            Ok(_) => return Ok(call),
            Err(fault) => fault,
        };
        let declared = call.request.as_ref().and_then(Request::body_length);
        if declared.is_some_and(|length| length > max_body) {
            // Two lengths, and the one that the server believes is absurd.
            let error = too_long(max_body);
            call.refuse_unread(&error);
            return Err(call.misframed(error));
        }
        call.close = true;
        let error = ApiError::new(fault.status, fault.message);
        call.answer(call.refusal(&error));
        Err(call.misframed(error))
    }

    fn misframed(&mut self, error: ApiError) -> Box<Misframed> {
        Box::new(Misframed {
            id: mem::take(&mut self.id),
            error,
        })
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let request = self.request.as_ref()?;
        framing::header(request, name)
    }

    /// Adds a header to whatever the answer will be.
    pub fn add_common(&mut self, name: &str, value: &str) {
        push_header(&mut self.common, name, value);
    }

    /// Whether the body is packed, which has to be known before pieces of it are used.
    pub fn is_packed(&self) -> Result<bool, NoBody> {
        match &self.request {
            Some(request) if self.length != Length::None => Ok(coding::layers(request)? > 0),
            _ => Ok(false),
        }
    }

    /// Reads the whole body, as long as it comes within `wait`, and unpacks it. Neither before nor
    /// after that it may have more than `max` bytes.
    pub fn read_body(&mut self, max: usize, job: &Job, wait: Duration) -> Result<Vec<u8>, NoBody> {
        let layers = match &self.request {
            Some(request) if self.length != Length::None => coding::layers(request)?,
            _ => return Ok(Vec::new()),
        };
        let body = self.read_packed(max, job, wait)?;
        let body = coding::unpack(body, layers, max)?;
        let room = Room::for_work(&body);
        self.close |= room.is_err();
        job.set_room(room?);
        Ok(body)
    }

    /// The body as it comes.
    fn read_packed(&mut self, max: usize, job: &Job, wait: Duration) -> Result<Vec<u8>, NoBody> {
        let Some(request) = self.request.as_mut() else {
            return Ok(Vec::new());
        };
        let length = match self.length {
            Length::None => return Ok(Vec::new()),
            Length::Known(length) => usize::try_from(length).unwrap_or(usize::MAX),
            Length::Chunked => 0,
        };
        job.enter(Phase::Body, wait);
        self.touched = true;
        let mut reader = Framed {
            of_chunks: (self.last && self.length == Length::Chunked).then_some(&mut self.chunks),
            reader: request.as_reader(),
        };
        let mut body = Vec::new();
        let outcome = match self.length {
            Length::Known(_) => read_length(&mut reader, &mut body, length, job),
            _ => read_all(&mut reader, &mut body, max, job),
        };
        job.leave();
        self.close = outcome.is_err();
        outcome?;
        // Read to its end, so nothing is left for the server to drain.
        self.end_of_body(job);
        Ok(body)
    }

    /// Reads the beginning of a body, and all of one that is not longer than `most`. What is left
    /// of it then is the call's `length`.
    pub fn read_start(
        &mut self,
        most: usize,
        job: &Job,
        wait: Duration,
    ) -> Result<Vec<u8>, NoBody> {
        let room = match self.length {
            Length::None => 0,
            Length::Known(length) => usize::try_from(length).unwrap_or(usize::MAX).min(most),
            Length::Chunked => most,
        };
        let mut start = vec![0; room];
        let mut filled = 0;
        job.enter(Phase::Body, wait);
        while filled < start.len() && self.length != Length::None {
            match self.read_piece(&mut start[filled..], job) {
                Ok(count) => filled += count,
                Err(problem) => {
                    job.leave();
                    return Err(problem);
                }
            }
        }
        job.leave();
        start.truncate(filled);
        Ok(start)
    }

    /// Reads once, within the time that the job is given for it. Nothing is read at the end of a
    /// chunked body only.
    pub fn read_piece(&mut self, into: &mut [u8], job: &Job) -> Result<usize, NoBody> {
        let Some(request) = self
            .request
            .as_mut()
            .filter(|_| self.length != Length::None)
        else {
            return Ok(0);
        };
        self.touched = true;
        let into = match self.length {
            // The next request may follow right behind it.
            Length::Known(left) => {
                let most = usize::try_from(left).unwrap_or(usize::MAX).min(into.len());
                &mut into[..most]
            }
            _ => into,
        };
        let mut reader = Framed {
            of_chunks: (self.last && self.length == Length::Chunked).then_some(&mut self.chunks),
            reader: request.as_reader(),
        };
        let read = match (read_some(&mut reader, into, job), self.length) {
            (Ok(0), _) if job.body_late.load(Ordering::Relaxed) => Err(NoBody::Late),
            (Ok(0), Length::Known(_)) => Err(NoBody::Cut),
            (read, _) => read,
        };
        self.length = match (&read, self.length) {
            (Ok(count), Length::Known(left)) if left > *count as u64 => {
                Length::Known(left - *count as u64)
            }
            (Ok(1..), Length::Chunked) => Length::Chunked,
            (Ok(_), _) => Length::None,
            (Err(_), length) => length,
        };
        if self.length == Length::None {
            self.end_of_body(job);
        }
        self.close |= read.is_err();
        read
    }

    fn end_of_body(&mut self, job: &Job) {
        self.length = Length::None;
        // In this order, or the timer thread could see neither.
        if job.reads_chunks.load(Ordering::Relaxed)
            && let Some(peer) = self.peer
        {
            self.watch.chunks_are_over(peer);
        }
        job.reads_chunks.store(false, Ordering::Release);
    }

    /// Answers.
    pub fn reply(mut self, reply: Reply) {
        self.answer(reply);
    }

    /// An error in the caller's dialect.
    pub fn refusal(&self, error: &ApiError) -> Reply {
        refusal(self.dialect, error)
    }

    /// What can cut this caller's connection.
    pub fn scissors(&self) -> Scissors<'w> {
        Scissors {
            watch: self.watch,
            peer: self.peer,
            old: self.old,
        }
    }

    /// Hands the raw writer out for a stream: from here on the answer is its holder's affair.
    /// `None` only if the call was answered before.
    pub fn into_writer(mut self) -> Option<(Box<dyn Write + Send>, String)> {
        let request = self.request.take()?;
        Some((request.into_writer(), mem::take(&mut self.common)))
    }

    fn answer(&mut self, mut reply: Reply) {
        let Some(mut request) = self.request.take() else {
            return;
        };
        reply.headers.push_str(&self.common);
        reply.head_only |= self.method == Method::Head;
        // Of a short body that nobody read, what has come is read and forgotten. Nobody waits for
        // the rest: a few callers who hold one back would keep every worker. Nor for a long one, nor
        // for one that the caller holds back until it has heard from us, and of a chunked one no
        // end is known.
        let unread = match self.length {
            Length::None => false,
            _ if self.last => true,
            Length::Known(length) => {
                length > DRAINED || self.waits || !self.forget_body(&mut request, length)
            }
            Length::Chunked => true,
        };
        let close = self.close || unread;
        if close && !self.last {
            reply = reply.with("Connection", "close");
        }
        // What is left of the body is drained when the request is dropped: so the reply goes out
        // first, and the request is dropped when its connection has ended.
        if close && let Some(peer) = self.peer {
            let has_turn = self.watch.wait_for_turn(&self.held);
            self.held.release();
            if let Some(caller) = self.watch.find(peer) {
                // Not before: of what came together with it, this one may be the last.
                self.watch.bar(peer, &caller);
                if has_turn {
                    caller.write(&reply.into_bytes());
                }
                if !keeps_reader(&request) {
                    // The server already waits for the next request, which must not come.
                    caller.shut_read();
                }
                let unread = self.unread(request, true);
                self.watch.close_unread(caller, unread);
                return;
            }
            drop(request.into_writer());
            return;
        }
        // What follows a last request is read by nobody: the connection is not just closed, since that
        // could keep the answer from arriving.
        let lingers = self.peer.filter(|_| self.last);
        let lingers = lingers.and_then(|peer| self.watch.find(peer));
        let mut writer = request.into_writer();
        // A caller who has gone is a normal end. One who did not read in time would take the next
        // answer for the rest of this one.
        let written = write_held(&mut writer, &reply.into_bytes(), &self.held);
        if written.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
            && let Some(caller) = self.peer.and_then(|peer| self.watch.find(peer))
        {
            caller.shut();
        }
        drop(writer);
        if let Some(caller) = lingers {
            self.watch.close_gently(caller);
        }
    }

    /// Reads and forgets the `length` bytes of a body that nobody has read, as far as they have
    /// come. True if those were all.
    fn forget_body(&self, request: &mut Request, length: u64) -> bool {
        let declared = request.body_length().unwrap_or(0);
        let Some(peer) = self.peer.filter(|_| declared > READ_AHEAD) else {
            return true;
        };
        let Some(caller) = self.watch.find(peer) else {
            // The caller has left: there is nothing to wait for.
            return true;
        };
        let mut waste = [0; 8 * 1024];
        let mut left = length;
        while left > 0 {
            // With bytes there, a read does not wait, whether it gets them or older ones that the
            // server holds.
            if caller.unread() == 0 {
                return false;
            }
            match request.as_reader().read(&mut waste) {
                Ok(0) | Err(_) => return false,
                Ok(count) => left = left.saturating_sub(count as u64),
            }
        }
        true
    }

    fn unread(&self, request: Request, bounded: bool) -> Unread {
        Unread {
            request,
            whole: !self.touched,
            waits: self.waits,
            bounded,
        }
    }

    /// Refuses a body that must not be touched any more: the server would reserve its declared
    /// length, or what is left of it.
    pub fn refuse_unread(&mut self, error: &ApiError) {
        let Some(mut request) = self.request.take() else {
            return;
        };
        let mut reply = self.refusal(error);
        if !self.last {
            reply = reply.with("Connection", "close");
        }
        reply.headers.push_str(&self.common);
        let declared = request.body_length().unwrap_or(0);
        let has_turn = self.peer.is_none() || self.watch.wait_for_turn(&self.held);
        self.held.release();
        let note = |count| self.watch.note_used(count);
        if self.peer.is_none() && swallow(&mut request, declared, &note) {
            let _ = reply.write(&mut request.into_writer());
            return;
        }
        let caller = self
            .peer
            .and_then(|peer| Some((peer, self.watch.find(peer)?)));
        match caller {
            Some((peer, caller)) => {
                self.watch.bar(peer, &caller);
                if has_turn {
                    caller.write(&reply.into_bytes());
                }
                let unread = self.unread(request, false);
                self.watch.close_unread(caller, unread);
            }
            // The caller has left.
            None if self.peer.is_some() => self.unread(request, false).let_go(),
            None => {
                // On a unix socket the only writer is the server's own, behind an "upgrade", which
                // hands reader and writer out together.
                let body = io::Cursor::new(reply.body);
                let response = tiny_http::Response::new(
                    tiny_http::StatusCode(error.status),
                    Vec::new(),
                    body,
                    None,
                    None,
                );
                leak(request.upgrade("close", response));
            }
        }
    }
}

/// The body of a request without its framing.
struct Framed<'r> {
    reader: &'r mut dyn Read,
    /// The HTTP server has not taken its chunks off.
    of_chunks: Option<&'r mut Chunks>,
}

impl Read for Framed<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match &mut self.of_chunks {
            Some(chunks) => chunks.read(&mut self.reader, into),
            None => self.reader.read(into),
        }
    }
}

/// The HTTP server reads on behind this request only when it is dropped.
fn keeps_reader(request: &Request) -> bool {
    framing::is_last(request)
        || framing::header(request, "transfer-encoding").is_some()
        || request.body_length().unwrap_or(0) > READ_AHEAD
}

/// Writes an answer and lets go of `held` before its end leaves. One that may not fit into the
/// socket has its place until then: callers who do not read would else keep every worker.
fn write_held(writer: &mut dyn Write, bytes: &[u8], held: &Held) -> io::Result<()> {
    const FITS: usize = 16 * 1024;
    const END: usize = 1024;
    let begin = match bytes.len() > FITS {
        true => bytes.len() - END,
        false => 0,
    };
    let (begin, end) = bytes.split_at(begin);
    writer.write_all(begin)?;
    held.release();
    writer.write_all(end)?;
    writer.flush()
}

/// An error in the caller's dialect.
pub fn refusal(dialect: Dialect, error: &ApiError) -> Reply {
    let mut reply = Reply::error(error);
    reply.content_type = dialect.content_type();
    reply.body = dialect.error(error);
    reply
}

/// Cuts a caller's connection in the middle of an answer, so that nobody can take what came for
/// the whole of it.
pub struct Scissors<'w> {
    watch: &'w Watch,
    peer: Option<SocketAddr>,
    old: bool,
}

impl Scissors<'_> {
    /// The connection can be found, as long as the caller is there.
    pub fn can_cut(&self) -> bool {
        self.peer.is_some()
    }

    /// False where the connection cannot be found: on a unix socket.
    pub fn cut(&self) -> bool {
        let Some(caller) = self.peer.and_then(|peer| self.watch.find(peer)) else {
            return false;
        };
        match self.old {
            // Without chunks an orderly end is the end of the answer.
            true => caller.break_off(),
            false => caller.shut(),
        }
        true
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if self.request.is_none() {
            return;
        }
        let error = ApiError::new(500, "the gateway failed to answer this request")
            .with_code("internal_error");
        match self.length {
            Length::None => self.answer(self.refusal(&error)),
            // Its length may not have been looked at.
            _ => self.refuse_unread(&error),
        }
    }
}

/// Reads a body of `length` bytes and forgets it as it comes. False if the request must not be
/// dropped after that: what is still to come would be taken for the next one. `note` hears of each piece.
///
/// At an early end the server drains what it still expects, so it is told of a little at a time.
fn swallow(request: &mut Request, length: usize, note: &dyn Fn(u64)) -> bool {
    let begun = Instant::now();
    let mut expected = match framing::is_last(request) {
        // Of such a request nothing is drained.
        true => length,
        false => length.min(DRAINABLE),
    };
    let mut later = length - expected;
    if later > 0 && !reader::shorten(request, length, expected) {
        return false;
    }
    let mut waste = [0; 8 * 1024];
    while expected > 0 && begun.elapsed() < SWALLOWING {
        match request.as_reader().read(&mut waste) {
            Ok(0) => return true,
            Ok(count) => {
                note(count as u64);
                expected = expected.saturating_sub(count);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // The wait for a caller on a unix socket has a limit.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(_) => return true,
        }
        if later > 0 && expected <= DRAINABLE / 2 {
            let more = later.min(DRAINABLE / 2);
            if !reader::shorten(request, expected, expected + more) {
                return false;
            }
            expected += more;
            later -= more;
        }
    }
    later == 0
}

pub fn too_long(max_body: usize) -> ApiError {
    let message = format!("the request body is longer than {max_body} bytes");
    ApiError::new(413, message).with_code("request_too_large")
}

/// Path, query, and the host where there is one.
fn split(url: &str) -> (String, String, Option<String>) {
    // The absolute form, which is meant for proxies, has to be understood by everybody.
    let scheme = |scheme: &str| {
        let begins = url.get(..scheme.len())?.eq_ignore_ascii_case(scheme);
        begins.then(|| &url[scheme.len()..])
    };
    let (url, authority) = match scheme("http://").or_else(|| scheme("https://")) {
        Some(rest) => {
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            let (authority, path) = rest.split_at(end);
            let path = match path {
                "" => "/",
                path => path,
            };
            (path, Some(authority.to_owned()))
        }
        None => (url, None),
    };
    match url.split_once('?') {
        Some((path, query)) => (path.to_owned(), query.to_owned(), authority),
        None => (url.to_owned(), String::new(), authority),
    }
}

/// The id that the caller gave, if it can stand in a log and in a header.
fn own_id(request: &Request) -> Option<String> {
    let id = framing::header(request, "x-request-id")?;
    let sane = !id.is_empty()
        && id.len() <= MAX_ID
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte));
    sane.then(|| id.to_owned())
}

/// A new request id: unique, not secret.
fn new_id() -> String {
    let number = unique();
    let digit = |at| char::from_digit((number >> (4 * at)) as u32 & 15, 16);
    "req_"
        .chars()
        .chain((0..16).rev().filter_map(digit))
        .collect()
}

/// A number that no other call of this process gives, and hardly one of another process.
pub fn unique() -> u64 {
    use std::collections::hash_map::RandomState;
    use std::hash::{BuildHasher, Hasher};
    use std::sync::OnceLock;
    static SEED: OnceLock<u64> = OnceLock::new();
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let seed = *SEED.get_or_init(|| RandomState::new().build_hasher().finish());
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    // A bijection of the counter (an odd factor and a shifted xor), so it never repeats.
    let mixed = count.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(seed);
    mixed ^ (mixed >> 31)
}
