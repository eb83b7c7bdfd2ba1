//! OpenAI's Responses as callers speak it: requests in, the events of a stream or one response out,
//! and errors in its own shape.
//!
//! Works on bytes it is handed. Opens no connection, reads no clock, knows no upstreams. Upstreams
//! that speak this format themselves get the request as it came, which is not done here.

mod input;
mod item;
mod output;
mod parts;
mod request;
mod tools;
mod turns;
mod unfold;
mod unwrap;
mod write;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

pub use request::{Converted, Kept, to_chat};
pub use unfold::unfold;
pub use write::{Events, Response};

use crate::chat::Usage;
use crate::error::ApiError;
use crate::json::{push_key, push_number, push_string};
use tools::Names;

/// What is sent into a silent stream behind its first event. Agents wait for events and take no
/// notice of comments; the vendor's libraries take this one anywhere but at the beginning.
pub const HEARTBEAT: &[u8] = b"event: keepalive\ndata: {\"type\":\"keepalive\"}\n\n";

/// The ids of answers that are made here begin with this, and those of their items have it behind
/// their own first letters.
const OWN: &str = "weir";

/// Keeps an answer that has ended: its id and the whole of it.
pub type Keep = Box<dyn Fn(&str, Vec<u8>) + Send + Sync>;

/// What an answer has to know of its request, and what its parts share.
pub struct Asked {
    /// Of the answer.
    pub id: String,
    tail: String,
    created: u64,
    model: String,
    names: Names,
    /// Members that every answer has of its request.
    repeated: Vec<u8>,
    /// What was left out of the request, for a header.
    pub dropped: Vec<String>,
    /// The caller declared a web search that the provider runs.
    pub searches: bool,
    /// Of the next event.
    sequence: AtomicU64,
    keep: Option<Keep>,
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asked")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// How a response stands.
#[derive(Debug, Clone, Copy)]
enum Standing<'e> {
    InProgress,
    Completed,
    Incomplete(&'static str),
    Failed(&'static str, &'e str),
}

impl Standing<'_> {
    fn word(self) -> &'static str {
        match self {
            Standing::InProgress => "in_progress",
            Standing::Completed => "completed",
            Standing::Incomplete(_) => "incomplete",
            Standing::Failed(..) => "failed",
        }
    }
}

/// The events before the first that tells anything.
const OPENING: u64 = 2;

impl Asked {
    /// Of a request that says nothing beyond its model.
    pub fn plain(tail: &str, created: u64, model: &str) -> Asked {
        Asked {
            id: format!("resp_{OWN}{tail}"),
            tail: tail.to_owned(),
            created,
            model: model.to_owned(),
            names: Names::default(),
            repeated: Vec::new(),
            dropped: Vec::new(),
            searches: false,
            sequence: AtomicU64::new(OPENING),
            keep: None,
        }
    }

    pub fn kept_by(mut self, keep: Keep) -> Asked {
        self.keep = Some(keep);
        self
    }

    fn item_id(&self, prefix: &str, index: usize) -> String {
        format!("{prefix}_{OWN}{}{index:02}", self.tail)
    }

    /// An event up to its own members.
    fn begin(&self, out: &mut Vec<u8>, name: &str, number: u64) {
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\ndata: {\"type\":\"");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\",\"sequence_number\":");
        push_number(out, number);
    }

    fn next(&self) -> u64 {
        self.sequence.fetch_add(1, Ordering::Relaxed)
    }

    /// The events that begin a stream, before anything is known of its answer.
    pub fn opening(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(2 * self.repeated.len() + 1024);
        for (number, name) in ["response.created", "response.in_progress"]
            .iter()
            .enumerate()
        {
            self.begin(&mut out, name, number as u64);
            push_key(&mut out, b',', "response");
            self.push_response(&mut out, Standing::InProgress, b"", Usage::default());
            out.extend_from_slice(b"}\n\n");
        }
        out
    }

    /// The event that ends a stream which broke. `hopeless`: no other try can mend it.
    pub fn failed(&self, error: &ApiError, hopeless: bool) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.repeated.len() + error.message.len() + 512);
        self.begin(&mut out, "response.failed", self.next());
        push_key(&mut out, b',', "response");
        let standing = Standing::Failed(code(error, hopeless), &error.message);
        self.push_response(&mut out, standing, b"", Usage::default());
        out.extend_from_slice(b"}\n\n");
        out
    }

    /// `output` is its items, with commas between them.
    fn push_response(
        &self,
        out: &mut Vec<u8>,
        standing: Standing<'_>,
        output: &[u8],
        usage: Usage,
    ) {
        push_key(out, b'{', "id");
        push_string(out, &self.id);
        out.extend_from_slice(b",\"object\":\"response\",\"created_at\":");
        push_number(out, self.created);
        push_key(out, b',', "status");
        push_string(out, standing.word());
        out.extend_from_slice(b",\"background\":false,\"error\":");
        match standing {
            Standing::Failed(code, message) => {
                push_key(out, b'{', "code");
                push_string(out, code);
                push_key(out, b',', "message");
                push_string(out, message);
                out.push(b'}');
            }
            _ => out.extend_from_slice(b"null"),
        }
        push_key(out, b',', "incomplete_details");
        match standing {
            Standing::Incomplete(reason) => {
                push_key(out, b'{', "reason");
                push_string(out, reason);
                out.push(b'}');
            }
            _ => out.extend_from_slice(b"null"),
        }
        push_key(out, b',', "model");
        push_string(out, &self.model);
        push_key(out, b',', "output");
        out.push(b'[');
        out.extend_from_slice(output);
        out.push(b']');
        out.extend_from_slice(&self.repeated);
        push_key(out, b',', "usage");
        push_usage(out, usage);
        out.push(b'}');
    }
}

/// Counts that nobody told are left out as a whole.
fn push_usage(out: &mut Vec<u8>, usage: Usage) {
    if usage.prompt.is_none() && usage.completion.is_none() {
        out.extend_from_slice(b"null");
        return;
    }
    let (input, output) = (usage.prompt.unwrap_or(0), usage.completion.unwrap_or(0));
    push_key(out, b'{', "input_tokens");
    push_number(out, input);
    out.extend_from_slice(b",\"input_tokens_details\":{\"cached_tokens\":");
    push_number(out, usage.cached.unwrap_or(0));
    push_key(out, b',', "cache_write_tokens");
    push_number(out, usage.cache_write.unwrap_or(0));
    out.extend_from_slice(b"},\"output_tokens\":");
    push_number(out, output);
    out.extend_from_slice(b",\"output_tokens_details\":{\"reasoning_tokens\":");
    push_number(out, usage.reasoning.unwrap_or(0));
    out.extend_from_slice(b"},\"total_tokens\":");
    push_number(out, input.saturating_add(output));
    out.push(b'}');
}

/// The word for an error in a stream. Agents try some of them again and end with others.
fn code(error: &ApiError, hopeless: bool) -> &'static str {
    let is = |code: &str| error.code.as_deref() == Some(code);
    match error.status {
        _ if is("context_length_exceeded") => "context_length_exceeded",
        _ if is("insufficient_quota") || error.kind == "insufficient_quota" => "insufficient_quota",
        429 => "rate_limit_exceeded",
        400 | 404 | 413 | 422 => "invalid_prompt",
        _ if hopeless => "insufficient_quota",
        _ => "server_error",
    }
}

/// Whether a gateway of this kind made the answer with this id.
pub fn is_own(id: &str) -> bool {
    id.strip_prefix("resp_")
        .is_some_and(|tail| tail.starts_with(OWN))
}

/// The id of the answer that has the item with this id, if one was made here.
pub fn holder_of(item: &str) -> Option<String> {
    let (_, tail) = item.split_once('_')?;
    let own = tail.strip_prefix(OWN)?;
    let tail = own.get(..TAIL)?;
    Some(format!("resp_{OWN}{tail}"))
}

/// Letters of the part that the ids of one answer share.
pub const TAIL: usize = 16;

/// The part that the ids of one answer share.
pub fn tail(seed: u64) -> String {
    format!("{seed:016x}")
}

/// The event that ends a stream which broke, where nothing is known of its request.
pub fn error_event(error: &ApiError) -> Vec<u8> {
    Asked::plain(&tail(0), 0, "").failed(error, false)
}

#[cfg(test)]
mod history_tests;
#[cfg(test)]
mod request_tests;
#[cfg(test)]
mod write_tests;
