//! The built-in demo upstream: a small server on loopback that answers like the vendors do, so
//! that weir can be tried, and callers tested, without a key.
//!
//! It speaks OpenAI chat completions (`/v1/chat/completions`, `/chat/completions`), Anthropic
//! messages (`/v1/messages`) and Gemini (`...:generateContent`, `...:streamGenerateContent`),
//! whole and streamed. The text of an answer repeats what was asked. A tool is called when
//! `tool_choice` wants a call or the last user text names a tool, JSON comes when structured
//! output was asked for, and the token counts (four characters a token) add up.
//!
//! It answers by itself where there is no key, and as the upstream `demo` beside real ones with
//! `weir --demo`: then every model `demo/...` leads here and no other does. A model name that is one
//! of these words, or ends with one behind `-` or `/`, misbehaves (`demo/stall`, `demo/gpt-5-429`),
//! so that people can test their own programs against trouble:
//!
//! | word | what happens |
//! |---|---|
//! | `slow-first-byte` | nothing for 15 seconds, then the answer |
//! | `stall` | a stream says its first words and then nothing more; a whole answer never comes |
//! | `cut` | a stream breaks in the middle, a whole answer before its end |
//! | `429`, `401`, `500` and every other status from 400 to 599 | that error, in the vendor's shape |
//! | `tools` | the first declared tool is called, whatever was said |
//! | `json` | JSON, asked for or not |
//! | `long` | an answer of some thousand words |
//!
//! Threads: `WORKERS` wait for requests, one beats (see `beat`), and the HTTP server has its own.
//! All of them end when the `Demo` is dropped.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use log::{debug, warn};
use parking_lot::Mutex;
use tiny_http::{Request, Server};

use answer::{Answer, Usage};
use asked::Asked;
use fault::Fault;

mod answer;
mod asked;
mod fault;
mod http;
mod wire;

/// Twice the slots of a key, so that answers whose caller has left delay nobody.
const WORKERS: usize = 16;

/// The deepest thing on a worker's stack is the JSON parser, which stops at 128 levels.
const STACK: usize = 256 * 1024;

/// Connections that a `stall` keeps silent. A newer one beyond it sends the oldest away.
const PARKED: usize = 32;

/// Longer than the default heartbeat interval, so that heartbeats can be seen.
const SLOW: Duration = Duration::from_secs(15);

/// Between two events of a stream. Short, and still visible as one word after the other.
const PAUSE: Duration = Duration::from_millis(15);

/// See `beat`.
const BEAT: Duration = Duration::from_millis(50);

/// How often `beat` looks whether there is anything to do.
const LOOK: Duration = Duration::from_millis(250);

/// So long it goes on after the last request.
const BEATS: u32 = 40;

/// A caller who takes nothing of an answer for this long is given up.
const WRITE_WAIT: Duration = Duration::from_secs(10);

/// A running demo upstream. It ends when this is dropped.
pub struct Demo {
    pub addr: SocketAddr,
    shared: Arc<Shared>,
    /// Never used to send: dropping it ends every wait on the other side.
    stop: Option<Sender<()>>,
}

struct Shared {
    addr: SocketAddr,
    /// Kept to build a new server on when an accept has failed.
    listener: TcpListener,
    server: Mutex<Arc<Server>>,
    stopped: Receiver<()>,
    /// What a stalled answer would be written to.
    parked: Mutex<VecDeque<Box<dyn Write + Send>>>,
    /// Requests so far; numbers the answers as well.
    requests: AtomicU64,
}

/// Starts the demo on a free port of the loopback address.
pub fn start() -> io::Result<Demo> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    // Accepted connections inherit these on Linux; tiny_http itself sets neither.
    let options = TcpStream::from(OwnedFd::from(listener.try_clone()?));
    options.set_nodelay(true)?;
    options.set_write_timeout(Some(WRITE_WAIT))?;

    let server = serve_on(&listener)?;
    let (stop, stopped) = bounded(0);
    let shared = Arc::new(Shared {
        addr,
        listener,
        server: Mutex::new(Arc::new(server)),
        stopped,
        parked: Mutex::default(),
        requests: AtomicU64::new(0),
    });
    // From here on an early return drops the `Demo`, which ends the threads there are.
    let demo = Demo {
        addr,
        shared,
        stop: Some(stop),
    };
    for _ in 0..WORKERS {
        let shared = Arc::clone(&demo.shared);
        spawn("demo", move || shared.work())?;
    }
    let shared = Arc::clone(&demo.shared);
    spawn("demo-beat", move || shared.beat())?;
    Ok(demo)
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let builder = thread::Builder::new()
        .name(name.to_string())
        .stack_size(STACK);
    builder.spawn(run).map(drop)
}

fn serve_on(listener: &TcpListener) -> io::Result<Server> {
    Server::from_listener(listener.try_clone()?, None).map_err(io::Error::other)
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.stop = None;
        self.shared.parked.lock().clear();
        wake(&self.shared.server.lock());
    }
}

/// Ends the wait of every worker on this server.
fn wake(server: &Server) {
    for _ in 0..WORKERS {
        server.unblock();
    }
}

impl Shared {
    fn work(&self) {
        loop {
            let server = Arc::clone(&self.server.lock());
            match server.recv() {
                Ok(request) => {
                    let run = AssertUnwindSafe(|| self.handle(request));
                    if catch_unwind(run).is_err() {
                        warn!("the demo upstream failed at a request");
                    }
                }
                Err(_) if self.is_stopped() => return,
                Err(error) => self.replace(&server, &error),
            }
        }
    }

    /// One failed accept, such as for want of file descriptors, ends a tiny_http server for good.
    fn replace(&self, broken: &Arc<Server>, error: &io::Error) {
        let mut current = self.server.lock();
        if !Arc::ptr_eq(&current, broken) {
            return; // Another worker was here first.
        }
        warn!("the demo upstream could not accept: {error}");
        // With the lock held, so that the others wait as well.
        if self.wait(Duration::from_millis(200)) {
            return;
        }
        match serve_on(&self.listener) {
            Ok(server) => {
                *current = Arc::new(server);
                wake(broken);
            }
            Err(error) => warn!("the demo upstream could not start again: {error}"),
        }
    }

    /// When several callers connect at the same moment, tiny_http can leave one of them waiting
    /// for a thread until a neighbour's connection ends. Any new connection moves it on. The
    /// neighbours are served, so beats are needed only for a while after each request.
    fn beat(&self) {
        let mut seen = 0;
        let mut left = 0;
        while !self.wait(if left > 0 { BEAT } else { LOOK }) {
            let requests = self.requests.load(Ordering::Relaxed);
            if requests != seen {
                seen = requests;
                left = BEATS;
            }
            if left > 0 {
                left -= 1;
                let _ = TcpStream::connect_timeout(&self.addr, BEAT);
            }
        }
    }

    fn handle(&self, mut request: Request) {
        let number = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        let body = match http::read_body(&mut request) {
            Ok(body) => body,
            Err(http::Unread::TooLong) => return http::refuse_unread(request),
            Err(http::Unread::Broken) => return,
        };
        let path = request.url().to_string();
        let done = match (request.method(), asked::Dialect::of_path(&path)) {
            (tiny_http::Method::Post, Some(dialect)) => match Asked::read(dialect, &path, &body) {
                Ok(asked) => self.answer(request, &asked, number),
                Err(message) => {
                    let error = wire::error(dialect, 400, &message);
                    http::json(request, 400, &[], &error)
                }
            },
            _ => {
                let message = format!("the demo upstream has no {} {path}", request.method());
                let error = wire::error(asked::Dialect::OpenAi, 404, &message);
                http::json(request, 404, &[], &error)
            }
        };
        if let Err(error) = done {
            debug!("the demo upstream's caller left: {error}");
        }
    }

    fn answer(&self, request: Request, asked: &Asked, number: u64) -> io::Result<()> {
        let fault = Fault::of_model(&asked.model);
        if let Some(Fault::Status(status)) = fault {
            let mut message = format!("weir's demo was asked for an error {status}");
            // Words that name the key or the account, as real upstreams have them.
            message.push_str(match status {
                401 => ": invalid API key",
                402 => ": insufficient credits",
                _ => "",
            });
            let error = wire::error(asked.dialect, status, &message);
            let after = match status {
                429 | 503 => &[("Retry-After", "1")][..],
                _ => &[],
            };
            return http::json(request, status, after, &error);
        }
        if fault == Some(Fault::SlowFirstByte) && self.wait(SLOW) {
            return Ok(());
        }
        let answer = Answer::to(asked, fault);
        let usage = Usage::of(asked, &answer);
        let told = wire::Told {
            asked,
            answer: &answer,
            usage,
            number,
        };
        match asked.stream {
            true => self.stream(request, &told, fault),
            false => self.whole(request, &told, fault),
        }
    }

    fn whole(
        &self,
        request: Request,
        told: &wire::Told<'_>,
        fault: Option<Fault>,
    ) -> io::Result<()> {
        match fault {
            Some(Fault::Stall) => {
                self.park(request.into_writer());
                Ok(())
            }
            Some(Fault::Cut) => {
                let body = told.whole().to_string();
                let half = &body.as_bytes()[..body.len() / 2];
                let mut events = http::Chunked::new(request, "application/json");
                events.send(half)?;
                events.break_off()
            }
            _ => http::json(request, 200, &[], &told.whole()),
        }
    }

    fn stream(
        &self,
        request: Request,
        told: &wire::Told<'_>,
        fault: Option<Fault>,
    ) -> io::Result<()> {
        let events = told.events();
        let mut out = http::Chunked::new(request, "text/event-stream");
        let count = match fault {
            Some(Fault::Stall | Fault::Cut) => events.first_words + 1,
            _ => events.texts.len(),
        };
        for (position, event) in events.texts.iter().take(count).enumerate() {
            if position > 0 && self.wait(PAUSE) {
                return Ok(());
            }
            out.send(event.as_bytes())?;
        }
        match fault {
            Some(Fault::Stall) => {
                self.park(out.into_writer());
                Ok(())
            }
            Some(Fault::Cut) => {
                // The words before the break must have been read by then: a reader that gets both
                // at once may throw them away with the broken rest.
                if self.wait(10 * PAUSE) {
                    return Ok(());
                }
                out.break_off()
            }
            _ => out.end(),
        }
    }

    /// Keeps an answer silent without keeping a worker.
    fn park(&self, writer: Box<dyn Write + Send>) {
        let mut parked = self.parked.lock();
        parked.push_back(writer);
        if parked.len() > PARKED {
            parked.pop_front();
        }
    }

    /// Waits, and says whether the demo was stopped meanwhile.
    fn wait(&self, wait: Duration) -> bool {
        self.stopped.recv_timeout(wait) == Err(RecvTimeoutError::Disconnected)
    }

    fn is_stopped(&self) -> bool {
        self.wait(Duration::ZERO)
    }
}

#[cfg(test)]
mod tests;
