//! The line to an upstream: everything between a URL, headers and a body and the answer's bytes.
//!
//! Connections are kept and used again, names and TLS sessions remembered, proxies found. A wait
//! in here has no timer but the one for connecting; whoever wants another pulls the `Cancel` of
//! the exchange (see `cancel.rs`), which ends it in every phase: look-up, connect, handshake,
//! sending, head and body. Knows nothing of chats, keys and retries, and never tries twice.

use std::error::Error;
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use ureq::http::{HeaderMap, Method, Request, Response, Uri};
use ureq::{Agent, BodyReader, SendBody};

pub use self::attempt::Phase;
use self::attempt::Trouble;
use self::dial::{Dialer, Reach};
use self::proxy::Proxies;
use crate::cancel::{self, Cause};

mod attempt;
mod connect;
mod dial;
mod proxy;
mod public;
mod resolve;
mod tls;
mod transport;

const USER_AGENT: &str = concat!("weir/", env!("CARGO_PKG_VERSION"));

/// How a line is laid.
pub struct Settings {
    /// For name, connection, tunnel and handshake together.
    pub connect: Duration,
    /// URL of an HTTP proxy. Empty: go straight. `None`: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`
    /// and `NO_PROXY` decide.
    pub proxy: Option<String>,
    /// The only authorities to trust. `None`: the built-in ones, and those that `SSL_CERT_FILE`
    /// names.
    pub ca_file: Option<PathBuf>,
    /// Idle connections to keep: as many as there are slots.
    pub connections: usize,
    /// Idle connections older than this are not used again. Upstreams close theirs after 60 s and
    /// more; one that closed earlier is noticed.
    pub idle_age: Duration,
}

/// One upstream's connections. Cloning is cheap and shares them.
///
/// A line costs 5 kB, and the lines share one TLS configuration. What a connection costs stands at
/// `Answer`.
#[derive(Clone)]
pub struct Line {
    shared: Arc<Shared>,
    connect: Duration,
    fresh: bool,
}

struct Shared {
    /// Locked for reading while a request is sent, for writing only when nobody does.
    agent: RwLock<Agent>,
    dialer: Dialer,
}

impl Line {
    /// Opens nothing and asks no DNS. The error is a sentence for the person at the terminal.
    pub fn new(settings: &Settings) -> Result<Line, String> {
        let env = |name: &str| std::env::var(name).ok();
        let proxies = Proxies::new(settings.proxy.as_deref(), env)?;
        let cert_file = env("SSL_CERT_FILE").filter(|path| !path.is_empty());
        let also = cert_file.as_deref().map(Path::new);
        let dialer = Dialer {
            names: resolve::shared(),
            proxies: Arc::new(proxies),
            tls: tls::config(settings.ca_file.as_deref(), also)?,
            reach: Reach::All,
        };
        Ok(Line::with_dialer(settings, dialer))
    }

    /// What is wrong with the proxy, of the config or of the environment, that leads to an address.
    pub fn proxy_fault(setting: Option<&str>, address: &str) -> Option<String> {
        let env = |name: &str| std::env::var(name).ok();
        let uri = address.parse().ok()?;
        match Proxies::new(setting, env) {
            Ok(proxies) => proxies.fault(&uri).map(str::to_owned),
            Err(fault) => Some(fault),
        }
    }

    /// A line to whatever public host a caller names. It goes straight, since behind a proxy
    /// nobody could tell whom it reaches, and remembers those names apart from the upstreams',
    /// which callers must not be able to push out. Connections are not kept.
    pub fn to_public(connect: Duration) -> Result<Line, String> {
        Line::reaching(Reach::Public, connect, None)
    }

    /// The same, with a server on loopback that counts as public.
    #[cfg(test)]
    pub fn to_public_and(server: std::net::SocketAddr, ca_file: &Path) -> Line {
        let reach = Reach::PublicAnd(server);
        let limit = Duration::from_secs(10);
        Line::reaching(reach, limit, Some(ca_file)).expect("a test's own authority is good")
    }

    fn reaching(reach: Reach, connect: Duration, ca_file: Option<&Path>) -> Result<Line, String> {
        let settings = Settings {
            connect,
            proxy: Some(String::new()),
            ca_file: None,
            connections: 0,
            idle_age: Duration::ZERO,
        };
        let cert_file = std::env::var("SSL_CERT_FILE").ok();
        let also = cert_file.as_deref().filter(|path| !path.is_empty());
        let dialer = Dialer {
            names: resolve::apart(),
            proxies: Arc::new(Proxies::new(Some(""), |_| None)?),
            tls: tls::config(ca_file, also.map(Path::new))?,
            reach,
        };
        Ok(Line::with_dialer(&settings, dialer))
    }

    fn with_dialer(settings: &Settings, dialer: Dialer) -> Line {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            // The dialer finds proxies; the client would send even `http` through a tunnel.
            .proxy(None)
            .user_agent(USER_AGENT)
            .accept_encoding("identity")
            .max_response_header_size(transport::INPUT)
            .max_idle_connections(settings.connections)
            .max_idle_connections_per_host(settings.connections)
            .max_idle_age(settings.idle_age)
            .timeout_await_100(None)
            .build();
        let agent = Agent::with_parts(config, dialer.clone(), dialer.clone());
        Line {
            shared: Arc::new(Shared {
                agent: RwLock::new(agent),
                dialer,
            }),
            connect: settings.connect,
            fresh: false,
        }
    }

    /// The same line for an attempt that must not meet another connection that died in the pool:
    /// where one did, its neighbours probably have too. What rests in the pool is closed.
    pub fn fresh(&self) -> Line {
        Line {
            fresh: true,
            ..self.clone()
        }
    }

    /// Closes the connections that rest in the pool. Does nothing while a request is on its way.
    ///
    /// The client closes old ones when it is asked for one, which may not be for hours, and what
    /// they hold is spread over all the memory that a thousand requests took: 1 000 connections of
    /// 300 bytes keep 4 MiB.
    pub fn close_idle(&self) {
        let Shared { agent, dialer } = &*self.shared;
        let emptied = agent.try_write().map(|mut agent| {
            let config = agent.config().clone();
            let new = Agent::with_parts(config, dialer.clone(), dialer.clone());
            std::mem::replace(&mut *agent, new)
        });
        drop(emptied);
    }

    /// Sends one POST and waits for the head of the answer, whatever its status; redirects too
    /// are handed out. Blocks until the exchange's `Cancel` is pulled.
    pub fn post(&self, url: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Answer, Broken> {
        self.request(Method::POST, url, headers, Sent::Bytes(body))
    }

    /// The same for a GET.
    pub fn get(&self, url: &str, headers: &[(&str, &str)]) -> Result<Answer, Broken> {
        self.request(Method::GET, url, headers, Sent::Nothing)
    }

    /// The same for any method and body.
    pub fn request(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: Sent<'_>,
    ) -> Result<Answer, Broken> {
        let connect_by = Instant::now() + self.connect;
        let _begun = attempt::begin(connect_by, body.len(), self.fresh);
        if cancelled().is_some() {
            return Err(Broken::new(&Trouble::ended()));
        }
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let agent = self.shared.agent.read();
        let result = match body {
            Sent::Bytes(body) => request.body(body).map(|request| agent.run(request)),
            Sent::Nothing => request.body(()).map(|request| agent.run(request)),
            Sent::Stream(body, length) => {
                // Without a length the client sends chunks.
                if let Some(length) = length {
                    request = request.header("content-length", length);
                }
                let request = request.body(SendBody::from_reader(body));
                request.map(|request| agent.run(request))
            }
        };
        match result {
            Ok(Ok(response)) => Ok(Answer::new(response)),
            Ok(Err(error)) => {
                let unfit = is_unfit(&error);
                let broken = Broken::new(&trouble(error));
                Err(Broken { unfit, ..broken })
            }
            // The text of this error could show a header's value.
            Err(_) => {
                let broken = Broken::new(&Trouble::new(UNFIT));
                Err(Broken {
                    unfit: true,
                    ..broken
                })
            }
        }
    }
}

/// The body of a request.
pub enum Sent<'b> {
    Nothing,
    Bytes(&'b [u8]),
    /// Bytes that are read while they are sent, and how many there will be, if that is known.
    Stream(&'b mut dyn Read, Option<u64>),
}

impl Sent<'_> {
    fn len(&self) -> usize {
        match self {
            Sent::Nothing => 0,
            Sent::Bytes(bytes) => bytes.len(),
            Sent::Stream(_, length) => length
                .and_then(|length| usize::try_from(length).ok())
                .unwrap_or(attempt::UNKNOWN),
        }
    }
}

/// The head of an answer, and its body to be read.
///
/// While it is read, a plain connection costs 18 kB (16 of them the input) and one under TLS 27 kB;
/// at rest in the pool it is 2 to 4 kB and 14 kB. The headers come on top.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Body,
}

impl Answer {
    fn new(response: Response<ureq::Body>) -> Answer {
        let (head, body) = response.into_parts();
        Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body: Body {
                reader: body.into_reader(),
                end: None,
            },
        }
    }

    /// The first header of that name, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body is compressed although we asked for it as it is: it cannot be read.
    pub fn is_compressed(&self) -> bool {
        let encoding = self.header("content-encoding").unwrap_or("").trim();
        !encoding.is_empty() && !encoding.eq_ignore_ascii_case("identity")
    }
}

/// The bytes of an answer. Zero is its proper end, with which the connection goes back into the
/// pool; dropped before that, the connection closes at once. So read on to the zero, also when the
/// last event of a stream has been seen.
pub struct Body {
    reader: BodyReader<'static>,
    /// How it ended. An end stays: the client would turn a second read after a fault into a
    /// proper end.
    end: Option<Result<(), String>>,
}

impl Read for Body {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match &self.end {
            Some(Ok(())) => return Ok(0),
            Some(Err(message)) => return Err(io::Error::other(Broken::in_body(message.clone()))),
            None if buf.is_empty() => return Ok(0),
            None => {}
        }
        match self.reader.read(buf) {
            Ok(0) => {
                self.end = Some(Ok(()));
                Ok(0)
            }
            Ok(length) => Ok(length),
            Err(error) => {
                let message = match error.downcast::<ureq::Error>() {
                    Ok(error) => trouble(error),
                    Err(error) => trouble(ureq::Error::Io(error)),
                }
                .text;
                self.end = Some(Err(message.clone()));
                Err(io::Error::other(Broken::in_body(message)))
            }
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body")
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

/// Why there is no answer, or no more of it.
#[derive(Debug)]
pub struct Broken {
    /// For people: what was tried and why it failed. Holds no key and no password.
    pub message: String,
    /// Connecting took too long, or a timer pulled the `Cancel`.
    pub timeout: bool,
    /// The upstream may have received the request, and may be working on it.
    pub maybe_sent: bool,
    /// The request cannot be sent to anybody: what the caller gave makes no URL, or no header.
    pub unfit: bool,
    /// The connection came from the pool: the upstream may just have closed it.
    pub reused: bool,
    pub phase: Phase,
}

impl Broken {
    fn new(trouble: &Trouble) -> Broken {
        let attempt = attempt::current();
        Broken {
            message: trouble.text.clone(),
            timeout: trouble.timeout || timed_out(),
            unfit: false,
            maybe_sent: attempt.is_some_and(|attempt| attempt.sent),
            reused: attempt.is_some_and(|attempt| attempt.reused),
            phase: attempt.map_or(Phase::Prepare, |attempt| attempt.phase),
        }
    }

    fn in_body(message: String) -> Broken {
        Broken {
            message,
            timeout: timed_out(),
            unfit: false,
            maybe_sent: true,
            reused: false,
            phase: Phase::Body,
        }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Broken {}

/// Why this thread's exchange was ended, if it was.
fn cancelled() -> Option<Cause> {
    cancel::with_current(|cancel| cancel.cause()).flatten()
}

fn timed_out() -> bool {
    matches!(
        cancelled(),
        Some(Cause::FirstByte | Cause::Idle | Cause::Deadline)
    )
}

/// The client's errors in our words.
const UNFIT: &str = "the URL or a header is not valid";

/// Whether no upstream could be sent this: its fault is the request's own.
fn is_unfit(error: &ureq::Error) -> bool {
    matches!(error, ureq::Error::Http(_) | ureq::Error::BadUri(_))
}

fn trouble(error: ureq::Error) -> Trouble {
    let text = match error {
        ureq::Error::Io(error) => match error.downcast::<Trouble>() {
            Ok(trouble) => return trouble,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                match attempt::current() {
                    Some(_) => "the upstream closed the connection without an answer".into(),
                    None => "the upstream closed the connection in the middle of its answer".into(),
                }
            }
            Err(error) => attempt::words(&error),
        },
        ureq::Error::Http(_) | ureq::Error::BadUri(_) => UNFIT.into(),
        ureq::Error::Protocol(error) => format!("the answer is not proper HTTP: {error}"),
        ureq::Error::LargeResponseHeader(..) => {
            format!(
                "the head of the answer is longer than {} bytes",
                transport::INPUT
            )
        }
        other => other.to_string(),
    };
    Trouble::new(text)
}

/// Host (an IPv6 address in brackets) and port of a URL.
fn host_and_port(uri: &Uri) -> Option<(&str, u16)> {
    let host = uri.host().filter(|host| !host.is_empty())?;
    let default = match uri.scheme_str() {
        Some("https") => 443,
        _ => 80,
    };
    Some((host, uri.port_u16().unwrap_or(default)))
}

#[cfg(test)]
pub mod tests;
