//! Gemini's native API as callers speak it: requests in, the pieces of a stream or one answer out,
//! and errors in its own shape.
//!
//! Works on bytes it is handed. Opens no connection, reads no clock, knows no upstreams.

mod contents;
mod count;
mod request;
mod tools;
mod write;

pub use {
    count::estimate,
    request::{head, to_chat},
    write::{Answer, Pieces},
};

use crate::error::ApiError;
use crate::json::{push_key, push_number, push_string};
use crate::query::{self, decode_percent};

/// What is sent into a silent stream. Several of the vendor's libraries break on a comment and on a
/// line with the event's name; all of them skip an empty line, and so does JSON.
pub const HEARTBEAT: &[u8] = b"\r\n";

/// How the pieces of a stream stand behind each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// As events, where the query says `alt=sse`.
    Events,
    /// As the entries of one JSON array.
    Array,
}

impl Framing {
    pub fn of_query(query: &str) -> Framing {
        let is_sse = |(name, value): (String, String)| name == "alt" && value == "sse";
        match query::pairs(query).any(is_sse) {
            true => Framing::Events,
            false => Framing::Array,
        }
    }

    /// One piece. `first`: nothing stands before it.
    pub fn push(self, first: bool, json: &[u8], out: &mut Vec<u8>) {
        match self {
            Framing::Events => {
                out.extend_from_slice(b"data: ");
                crate::json::push_one_line(out, json);
                out.extend_from_slice(b"\r\n\r\n");
            }
            Framing::Array => {
                out.extend_from_slice(if first { b"[" } else { b",\r\n" });
                out.extend_from_slice(json);
            }
        }
    }

    /// What stands behind the last piece.
    pub fn end(self, any: bool, out: &mut Vec<u8>) {
        if self == Framing::Array {
            out.extend_from_slice(if any { b"]" } else { b"[]" });
        }
    }
}

/// What is done with a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Generate,
    Stream,
    Count,
}

/// Where the models of this API are. `/v1/models` is OpenAI's as well, but for what follows here.
const PLACES: [&str; 2] = ["/v1beta/models/", "/v1/models/"];

/// The model and the verb of a path like `/v1beta/models/NAME:generateContent`.
pub fn of_path(path: &str) -> Option<(String, Verb)> {
    let rest = PLACES.iter().find_map(|place| path.strip_prefix(place))?;
    let (model, verb) = rest.rsplit_once(':')?;
    let verb = match verb {
        "generateContent" => Verb::Generate,
        "streamGenerateContent" => Verb::Stream,
        "countTokens" => Verb::Count,
        _ => return None,
    };
    Some((decode_percent(model), verb))
}

/// Whether the path is one of this API, also where nothing is there.
pub fn is_path(path: &str) -> bool {
    let rest = path.strip_prefix("/v1beta");
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) || of_path(path).is_some()
}

/// The body of an error.
pub fn error(error: &ApiError) -> Vec<u8> {
    let mut out = Vec::with_capacity(error.message.len() + 128);
    out.extend_from_slice(b"{\"error\":{\"code\":");
    push_number(&mut out, u64::from(error.status));
    push_key(&mut out, b',', "message");
    push_string(&mut out, &error.message);
    push_key(&mut out, b',', "status");
    push_string(&mut out, status(error));
    let mut details: Vec<String> = Vec::new();
    if let Some(param) = &error.param {
        let field = serde_json::json!({
            "@type": "type.googleapis.com/google.rpc.BadRequest",
            "fieldViolations": [{"field": param, "description": error.message}],
        });
        details.push(field.to_string());
    }
    if let Some(wait) = error.retry_after {
        // Its callers read this and not the header.
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        details.push(format!(
            r#"{{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"{seconds}s"}}"#
        ));
    }
    if !details.is_empty() {
        out.extend_from_slice(b",\"details\":[");
        out.extend_from_slice(details.join(",").as_bytes());
        out.push(b']');
    }
    out.extend_from_slice(b"}}");
    out
}

/// The piece that ends a stream of events which broke. An array has none that stands in every
/// place, so its connection ends instead.
pub fn error_event(broken: &ApiError) -> Vec<u8> {
    let mut event = Vec::new();
    Framing::Events.push(false, &error(broken), &mut event);
    event
}

fn status(error: &ApiError) -> &'static str {
    match error.status {
        401 => "UNAUTHENTICATED",
        402 | 403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        409 => "ABORTED",
        429 => "RESOURCE_EXHAUSTED",
        499 => "CANCELLED",
        408 | 504 => "DEADLINE_EXCEEDED",
        502 | 503 | 529 => "UNAVAILABLE",
        501 => "UNIMPLEMENTED",
        400..=498 => "INVALID_ARGUMENT",
        _ => "INTERNAL",
    }
}

#[cfg(test)]
mod request_tests;
#[cfg(test)]
mod write_tests;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_path_says_the_model_and_the_verb() {
        for (path, expected) in [
            (
                "/v1beta/models/m:generateContent",
                Some(("m", Verb::Generate)),
            ),
            (
                "/v1/models/m:streamGenerateContent",
                Some(("m", Verb::Stream)),
            ),
            (
                "/v1beta/models/up/a:b:countTokens",
                Some(("up/a:b", Verb::Count)),
            ),
            (
                "/v1beta/models/up%2Fm:generateContent",
                Some(("up/m", Verb::Generate)),
            ),
            ("/v1beta/models/m:other", None),
            ("/v1/models/m", None),
            ("/v2/models/m:generateContent", None),
        ] {
            let found = of_path(path);
            let found = found.as_ref().map(|(model, verb)| (&**model, *verb));
            assert_eq!(found, expected, "{path}");
        }
        assert!(is_path("/v1beta/files") && !is_path("/v1beta2") && !is_path("/v1/models/m"));
    }

    #[test]
    fn errors_have_the_shape_and_the_words_of_the_vendor() {
        for (code, word) in [
            (400, "INVALID_ARGUMENT"),
            (401, "UNAUTHENTICATED"),
            (403, "PERMISSION_DENIED"),
            (404, "NOT_FOUND"),
            (405, "INVALID_ARGUMENT"),
            (429, "RESOURCE_EXHAUSTED"),
            (500, "INTERNAL"),
            (503, "UNAVAILABLE"),
            (504, "DEADLINE_EXCEEDED"),
        ] {
            let body = String::from_utf8(error(&ApiError::new(code, "no \"way\""))).unwrap();
            let expected = format!(
                r#"{{"error":{{"code":{code},"message":"no \"way\"","status":"{word}"}}}}"#
            );
            assert_eq!(body, expected);
        }
        let late = ApiError::new(429, "x").with_retry_after(Duration::from_millis(1500));
        let body: serde_json::Value = serde_json::from_slice(&error(&late)).unwrap();
        assert_eq!(body["error"]["details"][0]["retryDelay"], "2s");
        let event = String::from_utf8(error_event(&late)).unwrap();
        assert!(event.starts_with("data: {\"error\":") && event.ends_with("}\r\n\r\n"));
    }
}
