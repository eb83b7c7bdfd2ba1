//! The demo's side of HTTP: tiny_http with its sharp edges covered.

use std::io::{self, Read, Write};

use serde_json::Value;
use tiny_http::{HTTPVersion, Request, Response, StatusCode};

/// Beyond what weir itself lets through by default.
const LONGEST_BODY: u64 = 64 * 1024 * 1024;

/// Why there is no body.
pub enum Unread {
    TooLong,
    /// The caller left in the middle.
    Broken,
}

pub fn read_body(request: &mut Request) -> Result<Vec<u8>, Unread> {
    let length = request.body_length().unwrap_or(0);
    if u64::try_from(length).is_ok_and(|length| length > LONGEST_BODY) {
        return Err(Unread::TooLong);
    }
    let mut body = Vec::new();
    let read = request
        .as_reader()
        .take(LONGEST_BODY + 1)
        .read_to_end(&mut body);
    match read {
        Ok(count) if u64::try_from(count).is_ok_and(|count| count > LONGEST_BODY) => {
            Err(Unread::TooLong)
        }
        Ok(_) => Ok(body),
        Err(_) => Err(Unread::Broken),
    }
}

/// Answers a request whose body is too long to be read.
///
/// Dropping such a request makes tiny_http take memory for the announced rest of the body. An
/// upgrade is the only way that answers first and then hands the reader over; the reader is leaked
/// on purpose.
pub fn refuse_unread(request: Request) {
    let refusal = Response::empty(StatusCode(413));
    let mut stream = request.upgrade("close", refusal);
    let _ = stream.flush();
    std::mem::forget(stream);
}

/// A whole answer.
pub fn json(
    request: Request,
    status: u16,
    headers: &[(&str, &str)],
    body: &Value,
) -> io::Result<()> {
    let body = body.to_string();
    let mut text = head(status, "application/json");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    let mut writer = request.into_writer();
    writer.write_all(text.as_bytes())?;
    writer.flush()
}

fn head(status: u16, content_type: &str) -> String {
    let reason = StatusCode(status).default_reason_phrase();
    format!("HTTP/1.1 {status} {reason}\r\nContent-Type: {content_type}\r\n")
}

/// An answer in chunks. The head leaves together with the first one.
pub struct Chunked {
    writer: Box<dyn Write + Send>,
    /// The head, until it has left.
    head: Vec<u8>,
    /// HTTP/1.0 knows no chunks; there the end of the connection ends the body.
    framed: bool,
}

impl Chunked {
    pub fn new(request: Request, content_type: &str) -> Chunked {
        let framed = *request.http_version() >= HTTPVersion(1, 1);
        let mut head = head(200, content_type);
        head.push_str("Cache-Control: no-cache\r\n");
        if framed {
            head.push_str("Transfer-Encoding: chunked\r\n");
        }
        head.push_str("\r\n");
        Chunked {
            writer: request.into_writer(),
            head: head.into_bytes(),
            framed,
        }
    }

    /// One chunk, in one write, flushed.
    pub fn send(&mut self, data: &[u8]) -> io::Result<()> {
        let mut out = std::mem::take(&mut self.head);
        if self.framed {
            out.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
        }
        out.extend_from_slice(data);
        if self.framed {
            out.extend_from_slice(b"\r\n");
        }
        self.writer.write_all(&out)?;
        self.writer.flush()
    }

    pub fn end(mut self) -> io::Result<()> {
        if self.framed {
            self.writer.write_all(b"0\r\n\r\n")?;
        }
        self.writer.flush()
    }

    /// Ends in the middle. tiny_http closes no connection that its caller wants to keep, so what
    /// breaks is the framing: no reader can take the answer for complete.
    pub fn break_off(mut self) -> io::Result<()> {
        if self.framed {
            self.writer.write_all(b"- cut off here -\r\n")?;
        }
        self.writer.flush()
    }

    pub fn into_writer(self) -> Box<dyn Write + Send> {
        self.writer
    }
}
