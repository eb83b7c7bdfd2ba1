//! One HTTP reply out: status, headers and body in one write.
//!
//! The HTTP server's own `respond` copies through a buffer, ignores some headers and can panic on
//! odd requests, so replies are written here, through its raw writer.

use std::io::{self, Write};

use crate::bytes::lengthen;
use crate::error::ApiError;

/// A reply that is known whole.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    /// Lines with their ends.
    pub headers: String,
    pub content_type: &'static str,
    pub body: Vec<u8>,
    /// The answer to HEAD: everything but the body.
    pub head_only: bool,
}

pub const JSON: &str = "application/json";

/// What a head takes, as a rule. A body with so much to spare is sent without another buffer.
pub const HEAD_ROOM: usize = 320;

impl Reply {
    pub fn new(status: u16) -> Reply {
        Reply {
            status,
            headers: String::new(),
            content_type: JSON,
            body: Vec::new(),
            head_only: false,
        }
    }

    pub fn json(status: u16, body: Vec<u8>) -> Reply {
        Reply {
            body,
            ..Reply::new(status)
        }
    }

    pub fn text(status: u16, body: impl Into<Vec<u8>>) -> Reply {
        Reply {
            content_type: "text/plain; charset=utf-8",
            body: body.into(),
            ..Reply::new(status)
        }
    }

    /// An error in its JSON shape, with the waiting time it names.
    pub fn error(error: &ApiError) -> Reply {
        let mut reply = Reply::json(error.status, error.to_json());
        if let Some(seconds) = error.retry_after_seconds() {
            reply = reply.with("Retry-After", &seconds.to_string());
        }
        if error.is_far_off() {
            reply = reply.with("x-should-retry", "false");
        }
        reply
    }

    /// Adds a header. The value must hold no line ends; those who pass foreign text check it.
    pub fn with(mut self, name: &str, value: &str) -> Reply {
        push_header(&mut self.headers, name, value);
        self
    }

    /// The whole reply as it goes over the wire: in the body's own buffer, if that has `HEAD_ROOM`.
    pub fn into_bytes(self) -> Vec<u8> {
        let mut head = String::with_capacity(HEAD_ROOM + self.headers.len());
        for part in [
            "HTTP/1.1 ",
            &self.status.to_string(),
            " ",
            reason(self.status),
            "\r\n",
        ] {
            head.push_str(part);
        }
        head.push_str(&self.headers);
        if self.status != 204 {
            push_header(&mut head, "Content-Type", self.content_type);
            push_header(&mut head, "Content-Length", &self.body.len().to_string());
        }
        head.push_str("\r\n");
        if self.head_only {
            return head.into_bytes();
        }
        let mut bytes = self.body;
        let (length, head) = (bytes.len(), head.as_bytes());
        lengthen(&mut bytes, length + head.len());
        bytes.copy_within(..length, head.len());
        bytes[..head.len()].copy_from_slice(head);
        bytes
    }

    pub fn write(self, writer: &mut dyn Write) -> io::Result<()> {
        writer.write_all(&self.into_bytes())?;
        writer.flush()
    }
}

/// One header line, appended.
pub fn push_header(lines: &mut String, name: &str, value: &str) {
    // A third of the instructions of `write!`, six times a request.
    lines.reserve(name.len() + value.len() + 4);
    for part in [name, ": ", value, "\r\n"] {
        lines.push_str(part);
    }
}

/// The reason phrase. Nobody acts on it; people read it.
pub fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        other if other < 500 => "Client Error",
        _ => "Server Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn an_error_is_one_json_object_with_its_waiting_time() {
        let error =
            ApiError::new(429, "slow\r\ndown").with_retry_after(Duration::from_millis(1500));
        let bytes = Reply::error(&error).with("x-request-id", "r").into_bytes();
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert_eq!(
            head,
            format!(
                "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 2\r\nx-request-id: r\r\nContent-Type: application/json\r\nContent-Length: {}",
                body.len()
            )
        );
        assert!(body.contains(r#""message":"slow\r\ndown""#));
    }

    #[test]
    fn no_content_and_head_have_no_body() {
        assert_eq!(
            Reply::new(204).into_bytes(),
            b"HTTP/1.1 204 No Content\r\n\r\n"
        );
        let mut reply = Reply::text(200, "ok");
        reply.head_only = true;
        let text = String::from_utf8(reply.into_bytes()).unwrap();
        assert!(text.ends_with("Content-Length: 2\r\n\r\n"));
    }
}
