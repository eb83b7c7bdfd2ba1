//! Anthropic's Messages as callers speak it: requests in, the events of a stream or one message
//! out, and errors in its own shape.
//!
//! Works on bytes it is handed. Opens no connection, reads no clock, knows no upstreams.

pub(super) mod blocks;
mod content;
mod count;
pub(super) mod request;
mod tools;
mod write;

pub use {
    count::estimate,
    request::{Converted, Dropped, push_raw, to_chat},
    write::{Events, Message},
};

use crate::error::ApiError;
use crate::json::{push_key, push_string};

/// What is sent into a silent stream. The vendor's libraries and agents take it before the first
/// event, too.
pub const HEARTBEAT: &[u8] = b"event: ping\ndata: {\"type\":\"ping\"}\n\n";

/// The body of an error.
pub fn error(error: &ApiError) -> Vec<u8> {
    let mut out = Vec::with_capacity(error.message.len() + 96);
    out.extend_from_slice(b"{\"type\":\"error\",\"error\":{\"type\":\"");
    out.extend_from_slice(kind(error).as_bytes());
    out.push(b'"');
    push_key(&mut out, b',', "message");
    push_string(&mut out, &message(error));
    out.extend_from_slice(b"}}");
    out
}

/// The event that ends a stream which broke.
pub fn error_event(broken: &ApiError) -> Vec<u8> {
    let mut event = b"event: error\ndata: ".to_vec();
    event.extend_from_slice(&error(broken));
    event.extend_from_slice(b"\n\n");
    event
}

fn kind(error: &ApiError) -> &'static str {
    match error.status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        408 | 504 => "timeout_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        503 | 529 => "overloaded_error",
        400..=499 => "invalid_request_error",
        _ => "api_error",
    }
}

/// Agents shorten their history when they read these words, whoever's model it is.
fn message(error: &ApiError) -> String {
    const WORDS: &str = "prompt is too long";
    let message = &error.message;
    let is_long = error.code.as_deref() == Some("context_length_exceeded");
    if !is_long || message.to_ascii_lowercase().contains(WORDS) {
        return message.clone();
    }
    match tokens(message) {
        Some((prompt, most)) => {
            format!("{WORDS}: {prompt} tokens > {most} maximum ({message})")
        }
        None => format!("{WORDS}: {message}"),
    }
}

/// The length of the prompt and the most that it may be: the two largest numbers that are told.
fn tokens(message: &str) -> Option<(u64, u64)> {
    /// No model takes less.
    const LEAST: u64 = 256;
    let plain = message.replace(',', "");
    let numbers = plain.split(|c: char| !c.is_ascii_digit());
    let mut numbers: Vec<u64> = numbers
        .filter_map(|number| number.parse().ok())
        .filter(|number| *number >= LEAST)
        .collect();
    numbers.sort_unstable();
    numbers.dedup();
    match numbers.as_slice() {
        [.., most, prompt] => Some((*prompt, *most)),
        _ => None,
    }
}

#[cfg(test)]
mod request_tests;
#[cfg(test)]
mod write_tests;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_shape_and_the_kinds_of_the_vendor() {
        for (status, kind) in [
            (400, "invalid_request_error"),
            (401, "authentication_error"),
            (403, "permission_error"),
            (404, "not_found_error"),
            (405, "invalid_request_error"),
            (413, "request_too_large"),
            (429, "rate_limit_error"),
            (500, "api_error"),
            (502, "api_error"),
            (503, "overloaded_error"),
            (504, "timeout_error"),
        ] {
            let body = error(&ApiError::new(status, "no \"way\""));
            let expected =
                format!(r#"{{"type":"error","error":{{"type":"{kind}","message":"no \"way\""}}}}"#);
            assert_eq!(String::from_utf8(body).unwrap(), expected);
        }
        let event = String::from_utf8(error_event(&ApiError::new(502, "x"))).unwrap();
        assert!(event.starts_with("event: error\ndata: {\"type\":\"error\""));
        assert!(event.ends_with("}\n\n"));
    }

    #[test]
    fn a_prompt_that_is_too_long_is_told_in_the_words_that_agents_look_for() {
        let told =
            |text: &str| message(&ApiError::new(400, text).with_code("context_length_exceeded"));
        let openai = "This model's maximum context length is 128000 tokens. However, your messages \
                      resulted in 130,512 tokens.";
        let words = "prompt is too long: 130512 tokens > 128000 maximum (";
        assert!(told(openai).starts_with(words), "{}", told(openai));
        assert_eq!(told("too much"), "prompt is too long: too much");
        let own = "prompt is too long: 5 tokens > 4 maximum";
        assert_eq!(told(own), own);
        assert_eq!(message(&ApiError::new(400, openai)), openai);
    }
}
