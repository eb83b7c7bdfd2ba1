//! The JSON config file; every value is checked while it is parsed.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::provider::{Format, Options};

/// Everything that a running weir is told from outside.
#[derive(Debug, Clone)]
pub struct Config {
    pub listen: Listen,
    /// Empty: open to everyone who can connect.
    pub client_keys: Vec<ClientKey>,
    pub upstreams: Vec<Upstream>,
    /// Alias -> targets in order, each `upstream/model`.
    pub aliases: Vec<(String, Vec<String>)>,
    /// Concurrent chat requests (streams included).
    pub workers: usize,
    pub retries: u32,
    pub quota_switch: bool,
    /// Whole request, retries included.
    pub deadline: Duration,
    pub lease_wait: Duration,
    pub keepalive: Duration,
    pub write_timeout: Duration,
    /// How long a caller may take to send a request's body.
    pub body_wait: Duration,
    pub drain: Duration,
    /// First pause before a counted retry; doubles per retry, with jitter.
    pub backoff: Duration,
    /// Ceiling of a rate-limit cool-down, hints included.
    pub cool_down_max: Duration,
    pub max_body_bytes: usize,
    pub max_connections: usize,
    /// Requests that may wait for a slot at once.
    pub max_waiting: usize,
    /// The longest upstream event, and the longest whole upstream answer.
    pub max_answer_bytes: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// `host:port`.
    Tcp(String),
    Unix(PathBuf),
}

/// A key that callers may use.
#[derive(Debug, Clone)]
pub struct ClientKey {
    pub name: String,
    /// SHA-256 of the key.
    pub digest: [u8; 32],
    /// Patterns of models that it may ask for; empty: all.
    pub models: Vec<String>,
}

#[derive(Debug, Clone)]
pub struct Upstream {
    pub name: String,
    pub format: Format,
    /// Without a trailing slash; the path of `Encoded::path` is appended to it.
    pub base_url: String,
    /// One entry without a secret for an upstream that needs no key.
    pub keys: Vec<Key>,
    /// Slots per key.
    pub slots: usize,
    /// Patterns of the models it serves.
    pub models: Vec<String>,
    pub headers: Vec<(String, String)>,
    pub connect: Duration,
    pub first_byte: Duration,
    pub idle: Duration,
    /// Proxy URL; `None`: as the environment says.
    pub proxy: Option<String>,
    pub options: Options,
}

/// One credential of an upstream.
#[derive(Debug, Clone)]
pub struct Key {
    /// For logs and `/status`: `gemini#1`, or the environment variable it came from.
    pub name: String,
    pub secret: Option<Secret>,
}

/// A text that no log may show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Secret(text.into())
    }

    /// The text itself, for the one header it belongs into.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
