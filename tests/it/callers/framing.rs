//! Requests whose end two programs could see in different places. Each is refused and the
//! connection closed, so that nothing behind it is taken for a request.

use serde_json::json;

use super::{MODEL, PATH, assert_serves, pair};
use crate::client::{Client, chat};
use crate::upstream::{Format, Upstream};
use crate::wait::{LIMIT, until};
use crate::weir::{Weir, config};

const NEXT: &str = "GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Sends `head` (without its empty line), a body of five bytes and another request: none of it
/// may be answered with a success, and the connection ends.
fn refused(head: &str, status: &[&str]) {
    refused_bytes(format!("{head}\r\n\r\nhello{NEXT}").as_bytes(), status);
}

fn refused_bytes(bytes: &[u8], status: &[&str]) {
    let (scripted, weir) = pair();
    let mut client = Client::connect(weir.addr);
    client.send(bytes);
    let got = client.until_closed(2 * LIMIT);
    let text = String::from_utf8_lossy(&got).into_owned();
    let shown = String::from_utf8_lossy(bytes);
    assert!(!text.contains("HTTP/1.1 200"), "{shown:?}: {text}");
    let first = text.split(' ').nth(1).unwrap_or("none").to_string();
    assert!(status.contains(&&*first), "{shown:?}: {text}");
    assert_eq!(
        text.matches("HTTP/1.1 ").count(),
        usize::from(first != "none"),
        "{text}"
    );
    assert_eq!(scripted.count(), 0);
    assert_serves(&weir);
}

fn with(header: &str) -> String {
    format!("POST {PATH} HTTP/1.1\r\nHost: localhost\r\n{header}")
}

#[test]
fn two_lengths_or_a_length_beside_chunks_400() {
    refused(
        &with("Content-Length: 5\r\nTransfer-Encoding: chunked"),
        &["400"],
    );
    refused(&with("Content-Length: 5\r\nContent-Length: 5"), &["400"]);
    refused(&with("Content-Length: 5\r\ncontent-length: 6"), &["400"]);
    refused(
        &with("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"),
        &["400"],
    );
}

#[test]
fn a_bare_line_feed_ends_no_header_400() {
    refused(&with("X: a\nContent-Length: 5"), &["400"]);
    refused(&with("Content-Length: 5\nX: a"), &["400"]);
    refused(
        &format!("POST {PATH} HTTP/1.1\nHost: localhost\r\nContent-Length: 5"),
        &["400"],
    );
}

#[test]
fn a_head_with_bare_line_feeds_only_never_ends_and_is_closed_without_an_answer() {
    let (_scripted, weir) = pair();
    let mut client = Client::connect(weir.addr);
    client.send(b"GET /healthz HTTP/1.1\nHost: x\n\n");
    client.hang_up();
    assert_serves(&weir);
}

#[test]
fn a_carriage_return_inside_a_header_400() {
    refused(&with("X: a\rContent-Length: 5"), &["400"]);
}

#[test]
fn a_folded_header_without_a_colon_400() {
    refused(&with("X: a\r\n more\r\nContent-Length: 5"), &["400"]);
    refused(&with("X: a\r\n\tmore\r\nContent-Length: 5"), &["400"]);
}

#[test]
fn nul_in_a_header_name_a_header_or_the_target_400() {
    refused(&with("X: a\0b"), &["400"]);
    refused(&with("X\0: a"), &["400"]);
    refused("GET /\0 HTTP/1.1\r\nHost: x", &["400"]);
}

#[test]
fn a_header_name_that_is_no_token_400() {
    for name in [
        "Content-Length ",
        "X Y",
        "X(",
        "",
        "\"X\"",
        "X;Y",
        "Content-Length\u{7f}",
    ] {
        refused(&with(&format!("{name}: 5")), &["400"]);
    }
}

#[test]
fn two_hosts_400() {
    refused(&with("Host: y"), &["400"]);
}

#[test]
fn bytes_beyond_ascii_in_the_head_are_closed_without_an_answer() {
    for header in [&b"X: \xff\xfe"[..], "X: ü".as_bytes(), b"\xc3: x"] {
        let bytes = [with("").as_bytes(), header, b"\r\n\r\n", NEXT.as_bytes()].concat();
        refused_bytes(&bytes, &["none", "400"]);
    }
    let bytes = ["GET /ü HTTP/1.1\r\n\r\n", NEXT].concat();
    refused_bytes(bytes.as_bytes(), &["none", "400"]);
}

#[test]
fn a_request_line_of_another_kind_400() {
    for line in [
        "GET /",
        "GET",
        "",
        "GET / HTTP/1.2",
        "GET / http/1.1",
        "GET  / HTTP/1.1",
    ] {
        refused(&format!("{line}\r\nHost: x"), &["400"]);
    }
}

#[test]
fn heads_and_urls_beyond_32_kib_431() {
    let long = "a".repeat(40_000);
    refused(&format!("GET /{long} HTTP/1.1\r\nHost: x"), &["431"]);
    refused(&with(&format!("X: {long}")), &["431"]);
    let many: String = (0..4000).map(|n| format!("X-{n}: abcdefgh\r\n")).collect();
    refused(&with(many.trim_end()), &["431"]);
}

#[test]
fn chunks_that_are_none_400() {
    let head = with("Transfer-Encoding: chunked");
    for chunks in [
        "zz\r\nhello\r\n",
        "-5\r\nhello\r\n",
        "5\nhello\n0\n\n",
        "5\r\nhelloworld\r\n",
        "ffffffffffffffffff\r\nhello\r\n",
        "\r\n",
    ] {
        let bytes = format!("{head}\r\n\r\n{chunks}0\r\n\r\n{NEXT}");
        refused_bytes(bytes.as_bytes(), &["400"]);
    }
}

/// Whoever speaks HTTP/2 without asking, such as a balancer's health check, gets no answer.
#[test]
fn the_preface_of_http_2_is_closed_without_an_answer_and_leaves_no_thread_behind() {
    let scripted = Upstream::start(|request| Format::OpenAi.answer(request, &["hi"]));
    let mut settings = config(Format::OpenAi, &scripted.url(), &["k"]);
    settings["body_wait_ms"] = json!(500);
    let weir = Weir::start(&settings);
    assert_serves(&weir);
    let (threads, fds) = (weir.threads(), weir.fds());
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let mut stayed = Vec::new();
    for number in 0..100 {
        let mut client = Client::connect(weir.addr);
        client.send(preface);
        match number % 3 {
            0 => client.hang_up(),
            1 => client.reset(),
            _ => stayed.push(client),
        }
    }
    for client in &mut stayed {
        assert_eq!(client.until_closed(LIMIT), b"");
    }
    until(3 * LIMIT, "threads and descriptors to go back", || {
        (weir.threads() <= threads + 8 && weir.fds() <= fds + 16).then_some(())
    });
    // Nothing is wrong with the words in other places.
    let mut body = chat(MODEL, false);
    body["messages"][0]["content"] = json!("PRI * HTTP/2.0\r\n".repeat(20_000));
    assert_eq!(weir.ask(&body).status, 200);
}
