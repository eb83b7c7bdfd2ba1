//! The JSON config file; every value is checked while it is parsed.
//!
//! Here are the types that the rest of weir reads. `config/table.rs` lists every key once, with
//! its default and bounds; `config/build.rs` makes a `Config` of a file by that table;
//! `config/sources.rs` decides where a configuration comes from when no file is named. Nothing
//! here opens a connection or resolves a name.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::json::shape::Limits;
use crate::limits::Allowance;
use crate::models;
use crate::provider::{Format, Options};
use crate::request_log;
use crate::route;

mod base_url;
mod build;
pub mod file;
mod findings;
mod listen;
mod read;
mod secret;
mod show;
mod sources;
mod table;
mod tree;

pub use findings::Findings;
pub use secret::Secret;
pub use show::{banner, check};
pub use sources::{Loaded, Sources, Surroundings};
pub use table::{example, reference};

/// Everything that a running weir is told from outside.
#[derive(Debug, Clone)]
pub struct Config {
    /// Authenticates seals; `None`: the keys of the upstreams do.
    pub seal_key: Option<Secret>,
    /// The file that it was read from; `None`: made of the environment.
    pub file: Option<PathBuf>,
    pub listen: Listen,
    /// Other machines may connect though there are no `client_keys`.
    pub open: bool,
    /// Names of this machine, in lower case, besides those that it always has.
    pub hosts: Vec<String>,
    /// Empty: open to everyone who can connect.
    pub client_keys: Vec<ClientKey>,
    pub upstreams: Vec<Upstream>,
    /// Alias -> targets in order, each `upstream/model`.
    pub aliases: Vec<(String, Vec<String>)>,
    /// Concurrent requests to upstreams (streams included).
    pub workers: usize,
    pub retries: u32,
    pub quota_switch: bool,
    /// Whole request, retries included.
    pub deadline: Duration,
    pub lease_wait: Duration,
    /// For models that are being loaded.
    pub loading_wait: Duration,
    pub keepalive: Duration,
    pub write_timeout: Duration,
    /// How long a caller may take to send a request's body.
    pub body_wait: Duration,
    pub drain: Duration,
    /// Between SIGTERM and the end of the listener.
    pub unready: Duration,
    /// First pause before a counted retry; doubles per retry, with jitter.
    pub backoff: Duration,
    /// Ceiling of a rate-limit cool-down, hints included.
    pub cool_down_max: Duration,
    pub max_body_bytes: usize,
    /// What one chat may hold.
    pub limits: Limits,
    pub max_connections: usize,
    /// Requests that may wait for a slot at once.
    pub max_waiting: usize,
    /// The longest upstream event, and the longest whole upstream answer.
    pub max_answer_bytes: usize,
    /// Answers that are kept for callers of Responses, in bytes, and for how long.
    pub response_memory: usize,
    pub response_memory_age: Duration,
    pub log_level: log::LevelFilter,
    pub log_format: LogFormat,
    pub request_log: Option<request_log::Settings>,
    /// `/metrics` is answered without a client key.
    pub metrics_open: bool,
    /// Images that a model cannot get itself are fetched for it.
    pub fetch_images: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// `host:port`.
    Tcp(String),
    Unix(PathBuf),
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Tcp(address) => f.write_str(address),
            Listen::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A key that callers may use.
#[derive(Clone)]
pub struct ClientKey {
    pub name: String,
    /// SHA-256 of the key.
    pub digest: [u8; 32],
    /// Patterns of models that it may ask for; empty: all.
    pub models: Vec<String>,
    pub allowance: Allowance,
}

impl ClientKey {
    /// Whether a caller with this key may ask for `model`, under the name it asks with.
    pub fn allows(&self, model: &str) -> bool {
        self.models.is_empty()
            || self
                .models
                .iter()
                .any(|pattern| route::matches(pattern, model))
    }
}

// The digest of a short key can be turned back into the key, so it is a secret as well.
impl fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientKey")
            .field("name", &self.name)
            .field("digest", &"***")
            .field("models", &self.models)
            .field("allowance", &self.allowance)
            .finish()
    }
}

/// SHA-256 of a client key, the form in which keys are kept and compared.
pub fn digest(key: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    let digest = ring::digest::digest(&ring::digest::SHA256, key.as_bytes());
    bytes.copy_from_slice(digest.as_ref());
    bytes
}

#[derive(Clone)]
pub struct Upstream {
    pub name: String,
    pub format: Format,
    /// Without a trailing slash; the path of `Encoded::path` is appended to it.
    pub base_url: String,
    /// One entry without a secret for an upstream that needs no key.
    pub keys: Vec<Key>,
    /// Slots per key.
    pub slots: usize,
    /// `slots` was asked for rather than the default: then what the server tells does not count.
    pub slots_set: bool,
    /// Patterns of the models it serves. Empty: what its own list has.
    pub models: Vec<String>,
    /// Nothing but its name leads to it: it does not count where the only one of a kind is meant.
    pub by_name_only: bool,
    pub headers: Vec<(String, String)>,
    /// Values of `headers` that were written as `env:` or `file:`, so that nobody shows them.
    pub hidden: Vec<Secret>,
    pub connect: Duration,
    pub first_byte: Duration,
    /// `first_byte` was asked for rather than the default: then it holds for answers that are not
    /// streamed as well, which otherwise may stay silent until the deadline.
    pub first_byte_set: bool,
    pub idle: Duration,
    /// Proxy URL; `None`: as the environment says.
    pub proxy: Option<String>,
    /// A PEM file of authorities that are trusted instead of the built-in ones.
    pub ca_file: Option<PathBuf>,
    pub options: Options,
}

impl Upstream {
    /// The header that carries the key, and what stands before it.
    pub fn auth_header(&self) -> (&'static str, &'static str) {
        let own = self.options.kind().auth;
        own.unwrap_or(self.format.auth_header())
    }

    /// Where `path` of the format is.
    pub fn url(&self, path: &str) -> String {
        let own = self.options.kind().path(self.format, &self.base_url, path);
        [&*self.base_url, own.as_deref().unwrap_or(path)].concat()
    }

    /// Whether a pattern that was meant for some names fits this one: `*` is meant for none.
    pub fn is_named(&self, model: &str) -> bool {
        let mut meant = self.models.iter().filter(|pattern| says_something(pattern));
        meant.any(|pattern| route::matches(pattern, model))
    }

    /// Which models it serves, where `models` and `discover` of the file are these. A vendor is
    /// known to have its own names; what a server of somebody else has is for it to tell.
    fn settle_models(&mut self, models: Option<Vec<String>>, discover: Option<bool>) {
        // Of a kind that has no list, only the vendor's names can be guessed.
        let is_vendor = self.options.official || !self.options.kind().lists;
        let says_nothing =
            |models: &Vec<String>| !models.iter().any(|pattern| says_something(pattern));
        let discover = discover.unwrap_or(!is_vendor && models.as_ref().is_none_or(says_nothing));
        self.models = match models {
            Some(models) => models,
            None if is_vendor => owned(self.format.default_models()),
            None if discover => Vec::new(),
            None => owned(&["*"]),
        };
        self.options.learned = discover.then(Default::default);
    }

    /// An upstream at the vendor's own address, with the defaults of the table and without a key.
    pub fn new(name: impl Into<String>, format: Format) -> Self {
        use table::Place::{Top, Upstream as Here};
        Upstream {
            name: name.into(),
            format,
            base_url: format.default_base().to_owned(),
            keys: vec![Key {
                name: "none".into(),
                secret: None,
            }],
            slots: table::count_of(Here, "slots"),
            slots_set: false,
            models: owned(format.default_models()),
            by_name_only: false,
            headers: Vec::new(),
            hidden: Vec::new(),
            connect: table::duration(Top, "connect_ms"),
            first_byte: table::duration(Top, "first_byte_ms"),
            first_byte_set: false,
            idle: table::duration(Top, "idle_ms"),
            proxy: None,
            ca_file: None,
            options: Options::default(),
        }
    }
}

// Header values and a proxy's URL can hold credentials.
impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<_> = self.headers.iter().map(|(name, _)| (name, "***")).collect();
        f.debug_struct("Upstream")
            .field("name", &self.name)
            .field("format", &self.format)
            .field("base_url", &self.base_url)
            .field("keys", &self.keys)
            .field("slots", &self.slots)
            .field("models", &self.models)
            .field("headers", &headers)
            .field("connect", &self.connect)
            .field("first_byte", &self.first_byte)
            .field("first_byte_set", &self.first_byte_set)
            .field("idle", &self.idle)
            .field("proxy", &self.proxy.as_ref().map(|_| "***"))
            .field("ca_file", &self.ca_file)
            .field("options", &self.options)
            .finish()
    }
}

/// One credential of an upstream.
#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    /// For logs and `/status`: `gemini#1`, or the environment variable it came from.
    pub name: String,
    pub secret: Option<Secret>,
}

impl Default for Config {
    /// The defaults of the table, without any upstream.
    fn default() -> Self {
        use table::Place::Top;
        Config {
            seal_key: None,
            file: None,
            listen: Listen::Tcp(table::text(Top, "listen").to_owned()),
            open: table::flag(Top, "open"),
            client_keys: Vec::new(),
            upstreams: Vec::new(),
            aliases: Vec::new(),
            workers: table::count_of(Top, "workers"),
            retries: u32::try_from(table::number(Top, "retries")).unwrap_or(u32::MAX),
            quota_switch: table::flag(Top, "quota_switch"),
            deadline: table::duration(Top, "deadline_ms"),
            lease_wait: table::duration(Top, "lease_wait_ms"),
            loading_wait: table::duration(Top, "loading_wait_ms"),
            keepalive: table::duration(Top, "keepalive_ms"),
            write_timeout: table::duration(Top, "write_timeout_ms"),
            body_wait: table::duration(Top, "body_wait_ms"),
            drain: table::duration(Top, "drain_ms"),
            unready: table::duration(Top, "unready_ms"),
            backoff: table::duration(Top, "backoff_ms"),
            cool_down_max: table::duration(Top, "cool_down_max_ms"),
            max_body_bytes: table::count_of(Top, "max_body_bytes"),
            limits: Limits {
                values: table::count_of(Top, "max_body_values"),
                depth: table::count_of(Top, "max_body_depth"),
                messages: table::count_of(Top, "max_messages"),
                tools: table::count_of(Top, "max_tools"),
            },
            max_connections: table::count_of(Top, "max_connections"),
            max_waiting: table::count_of(Top, "max_waiting"),
            max_answer_bytes: table::count_of(Top, "max_answer_bytes"),
            response_memory: table::count_of(Top, "response_memory_bytes"),
            response_memory_age: table::duration(Top, "response_memory_ms"),
            hosts: Vec::new(),
            log_level: log::LevelFilter::Info,
            log_format: LogFormat::Text,
            request_log: None,
            metrics_open: table::flag(Top, "metrics_open"),
            fetch_images: table::flag(Top, "fetch_images"),
        }
    }
}

impl Config {
    /// The catalogue served by the built-in demo at `addr`, in each of the three vendors' formats.
    pub fn demo(addr: SocketAddr) -> Self {
        let upstreams = [Format::Gemini, Format::OpenAi, Format::Anthropic]
            .into_iter()
            .map(|format| demo_upstream(&format!("demo-{}", format.name()), format, addr))
            .collect();
        let mut config = Config {
            upstreams,
            ..Config::default()
        };
        // Its models have names of their own here, which `demo/gpt-5` would only repeat.
        config.add_demo(addr);
        if let Some(demo) = config.upstreams.last_mut() {
            demo.models.clear();
        }
        config
    }

    /// Puts the demo at `addr` beside the other upstreams, as `demo/gpt-5`, `demo/cut` and so on.
    pub fn add_demo(&mut self, addr: SocketAddr) {
        let mut upstream = demo_upstream("demo", Format::OpenAi, addr);
        // Exact names, so that they are listed and no pattern leads a real model here.
        upstream.models = models::ids().map(|id| format!("demo/{id}")).collect();
        upstream.by_name_only = true;
        self.upstreams.push(upstream);
    }
}

fn demo_upstream(name: &str, format: Format, addr: SocketAddr) -> Upstream {
    let mut upstream = Upstream::new(name, format);
    upstream.base_url = base_url::normal(format, &format!("http://{addr}"));
    upstream.keys = vec![Key {
        name: "demo".into(),
        secret: None,
    }];
    upstream.options.official = false;
    upstream
}

/// Whether a pattern admits some names rather than others.
fn says_something(pattern: &str) -> bool {
    pattern.chars().any(char::is_alphanumeric)
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[cfg(test)]
pub mod tests;
