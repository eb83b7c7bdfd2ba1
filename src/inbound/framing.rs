//! Where a request ends, told so strictly that no proxy in front can think otherwise.
//!
//! Programs read framing that is doubled or odd in different ways, and then disagree on where a
//! request ends (RFC 9112, section 11.2). So all of it is refused, and the connection is closed.

use tiny_http::Request;

use super::MAX_HEAD;
use crate::watch::{self, Begun};

/// How long the body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    None,
    Known(u64),
    Chunked,
}

/// Why a request cannot be taken.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    pub status: u16,
    pub message: &'static str,
}

const fn bad(message: &'static str) -> Fault {
    Fault {
        status: 400,
        message,
    }
}

pub fn header<'r>(request: &'r Request, name: &str) -> Option<&'r str> {
    request
        .headers()
        .iter()
        .find(|header| header.field.as_str().as_str().eq_ignore_ascii_case(name))
        .map(|header| header.value.as_str())
}

/// Whether the HTTP server takes this request for the last one of its connection, and leaves the
/// framing of its body to us: it does so where its first `Connection` has this word anywhere. Who
/// offers an upgrade may be answered in HTTP/1.1 as if there was no offer (RFC 9110, section 7.8).
pub fn is_last(request: &Request) -> bool {
    header(request, "connection")
        .is_some_and(|value| value.to_ascii_lowercase().contains("upgrade"))
}

/// How many bytes the request is.
pub fn weight(request: &Request) -> Begun {
    let mut head = request.url().len();
    let (mut body, mut chunked) = (0, false);
    for header in request.headers() {
        head += header.field.as_str().len() + header.value.len() + 4;
        // Not by the server's own reading, which knows none where an upgrade is offered.
        if header.field.equiv("Content-Length") {
            body = header.value.as_str().parse().unwrap_or(u64::MAX);
        }
        chunked |= header.field.equiv("Transfer-Encoding");
    }
    let body = (!chunked).then_some(body);
    watch::weight(head, body)
}

pub fn check(request: &Request) -> Result<Length, Fault> {
    let headers = request
        .headers()
        .iter()
        .map(|header| (header.field.as_str().as_str(), header.value.as_str()));
    let length = check_parts(request.url(), headers)?;
    // RFC 9112, section 3.2: a name that is left to guess could be anybody's.
    if *request.http_version() >= (1, 1) && header(request, "host").is_none() {
        return Err(bad("a request of HTTP/1.1 needs a Host"));
    }
    Ok(length)
}

fn check_parts<'a>(
    url: &str,
    headers: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<Length, Fault> {
    let mut size = url.len();
    let mut lengths = 0;
    let mut length = Length::None;
    let mut encodings = 0;
    let mut hosts = 0;
    if url.bytes().any(|byte| byte < 0x21 || byte == 0x7f) {
        return Err(bad("the request target has a control character"));
    }
    for (name, value) in headers {
        size += name.len() + value.len() + 4;
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err(bad("a header's name has a character that is not allowed"));
        }
        // A bare LF or CR ends a header for some programs and not for others.
        if value
            .bytes()
            .any(|byte| byte < 0x20 && byte != b'\t' || byte == 0x7f)
        {
            return Err(bad("a header has a control character"));
        }
        if name.eq_ignore_ascii_case("content-length") {
            lengths += 1;
            let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
            length = match value.parse() {
                Ok(number) if digits => Length::Known(number),
                // Digits that fit no number are a length all the same, and too long.
                _ if digits => Length::Known(u64::MAX),
                _ => return Err(bad("Content-Length is not a number")),
            };
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            encodings += 1;
            if !value.eq_ignore_ascii_case("chunked") {
                return Err(bad("the only Transfer-Encoding taken is chunked"));
            }
        } else if name.eq_ignore_ascii_case("host") {
            hosts += 1;
        }
    }
    if lengths > 1 || encodings > 1 || (lengths > 0 && encodings > 0) {
        return Err(bad("the body's length is given more than once"));
    }
    if hosts > 1 {
        return Err(bad("there is more than one Host"));
    }
    if size > MAX_HEAD {
        return Err(Fault {
            status: 431,
            message: "the request's head is too long",
        });
    }
    Ok(match length {
        Length::Known(0) => Length::None,
        _ if encodings > 0 => Length::Chunked,
        length => length,
    })
}

/// What header names are made of.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_all(headers: &[(&str, &str)]) -> Result<Length, Fault> {
        check_parts("/", headers.iter().copied())
    }

    #[test]
    fn plain_lengths_pass() {
        assert_eq!(check_all(&[]), Ok(Length::None));
        assert_eq!(check_all(&[("content-length", "0")]), Ok(Length::None));
        assert_eq!(
            check_all(&[("Content-Length", "12")]),
            Ok(Length::Known(12))
        );
        assert_eq!(
            check_all(&[("Content-Length", "99999999999999999999999")]),
            Ok(Length::Known(u64::MAX))
        );
        assert_eq!(
            check_all(&[("Transfer-Encoding", "Chunked")]),
            Ok(Length::Chunked)
        );
        assert_eq!(
            check_all(&[
                ("Connection", "Upgrade, HTTP2-Settings"),
                ("Upgrade", "h2c"),
                ("Content-Length", "5")
            ]),
            Ok(Length::Known(5))
        );
    }

    #[test]
    fn whatever_two_programs_can_read_differently_is_refused() {
        for headers in [
            &[("Content-Length", "1"), ("Transfer-Encoding", "chunked")][..],
            &[("Content-Length", "1"), ("Content-Length", "1")],
            &[("Content-Length", "1, 1")],
            &[("Content-Length", "+1")],
            &[("Content-Length", "-1")],
            &[("Content-Length", "")],
            &[("Content-Length", "0x10")],
            &[("Transfer-Encoding", "gzip, chunked")],
            &[("Transfer-Encoding", "identity")],
            &[
                ("Transfer-Encoding", "chunked"),
                ("Transfer-Encoding", "chunked"),
            ],
            &[("X", "a\nContent-Length: 5")],
            &[("X", "a\0")],
            &[("X\0", "a")],
            &[("X(", "a")],
            &[("", "a")],
            &[("Host", "a"), ("host", "a")],
        ] {
            assert_eq!(check_all(headers).unwrap_err().status, 400, "{headers:?}");
        }
        assert!(check_parts("/\0", [].into_iter()).is_err());
    }

    #[test]
    fn a_huge_head_is_told_so() {
        let value = "x".repeat(MAX_HEAD);
        assert_eq!(check_all(&[("X", &value)]).unwrap_err().status, 431);
    }
}
