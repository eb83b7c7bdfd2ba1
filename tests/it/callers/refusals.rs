//! Refused callers who have more to send: each is told why, whole, and let go of soon.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{MODEL, PATH};
use crate::client::{Client, chat, request};
use crate::first_mile::error_of;
use crate::upstream::{Format, Upstream};
use crate::wait::{LIMIT, until};
use crate::weir::{Weir, config};

/// The longest body that is taken.
const MOST: usize = 10_000;

fn start() -> (Upstream, Weir) {
    let scripted = Upstream::start(|request| Format::OpenAi.answer(request, &["hi"]));
    let mut settings = config(Format::OpenAi, &scripted.url(), &["k"]);
    settings["max_body_bytes"] = json!(MOST);
    let weir = Weir::start(&settings);
    (scripted, weir)
}

/// The head of a request with a body of `length` bytes, declared or in one chunk.
fn head(path: &str, length: usize, chunked: bool) -> Vec<u8> {
    if !chunked {
        let length = length.to_string();
        return request("POST", path, &[("Content-Length", &length)], b"");
    }
    let mut head = request("POST", path, &[("Transfer-Encoding", "chunked")], b"");
    head.extend_from_slice(format!("{length:x}\r\n").as_bytes());
    head
}

#[test]
fn a_caller_who_sends_for_long_and_does_not_read_is_let_go_of_soon_and_told_why() {
    let (scripted, weir) = start();
    let addr = weir.addr;
    // More than any socket's buffers hold, so that the caller is stuck until somebody acts.
    let body = vec![b' '; 64 << 20];
    let caller = |chunked: bool| {
        let mut client = Client::connect(addr);
        client.send(&head(PATH, body.len(), chunked));
        let begun = Instant::now();
        let sent = client.try_send(&body);
        assert!(sent.is_err(), "nobody takes so much");
        let got = String::from_utf8_lossy(&client.until_closed(LIMIT)).into_owned();
        assert!(got.starts_with("HTTP/1.1 413 "), "{chunked}: {got:?}");
        assert!(got.ends_with("}}"), "{chunked}: {got:?}");
        begun.elapsed()
    };
    for _ in 0..3 {
        std::thread::scope(|scope| {
            let callers: Vec<_> = (0..8)
                .map(|number| scope.spawn(move || caller(number % 2 == 0)))
                .collect();
            for caller in callers {
                let took = caller.join().unwrap();
                assert!(took < Duration::from_secs(4), "{took:?}");
            }
        });
    }
    assert_eq!(scripted.count(), 0);
    weir.idle(LIMIT);
}

#[test]
fn a_caller_who_reads_only_when_all_is_sent_gets_its_refusal_whole_and_an_orderly_end() {
    let (scripted, weir) = start();
    for length in [MOST + 1, 300_000, 5_000_000] {
        let cases = [
            (PATH, false, 413),
            (PATH, true, 413),
            ("/v1/nothing", true, 404),
        ];
        for (path, chunked, status) in cases {
            // Only so long is anything taken from them; a machine under load may need another try.
            let quick = Duration::from_millis(800);
            until(3 * LIMIT, "a caller that is quick enough", || {
                let begun = Instant::now();
                let mut client = Client::connect(weir.addr);
                client.send(&head(path, length, chunked));
                // In pieces, so that the refusal comes while there is more to send.
                let body = vec![b' '; length];
                let end = chunked.then_some(&b"\r\n0\r\n\r\n"[..]);
                let sent: std::io::Result<()> = body
                    .chunks(100_000)
                    .chain(end)
                    .try_for_each(|piece| client.try_send(piece));
                let answer = client.answer(LIMIT);
                assert_eq!(answer.status, status, "{}", answer.text());
                error_of(&answer);
                let ended = sent.and_then(|()| client.end(LIMIT));
                let took = begun.elapsed();
                assert!(
                    ended.is_ok() || took > quick,
                    "{length} {chunked}: {ended:?}"
                );
                ended.ok()
            });
        }
    }
    assert_eq!(scripted.count(), 0);
    assert_eq!(weir.ask(&chat(MODEL, false)).status, 200);
}

#[test]
fn what_a_refused_caller_sends_later_is_no_request() {
    let (scripted, weir) = start();
    let later = request("POST", PATH, &[], chat(MODEL, false).to_string().as_bytes());
    let post = format!("POST {PATH} HTTP/1.1\r\nHost: localhost\r\n");
    let heads = [
        format!("GET {PATH} HTTP/1.1\r\nHost: localhost\r\nHost: y\r\n\r\n"),
        format!("{post}Host: y\r\nContent-Length: 5\r\n\r\nhello"),
        format!("{post}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"),
        format!("{post}Transfer-Encoding: chunked\r\n\r\nzz\r\n"),
        format!("{post}Content-Length: 900000\r\n\r\n"),
    ];
    for head in heads.iter().cycle().take(4 * heads.len()) {
        let mut client = Client::connect(weir.addr);
        client.send(head.as_bytes());
        let answer = client.answer(LIMIT);
        assert!([400, 413].contains(&answer.status), "{}", answer.text());
        // Refused or thrown away, as it comes.
        let _ = client.try_send(&later);
        client.until_closed(LIMIT);
    }
    // What was taken has been worked on when these are answered.
    weir.idle(LIMIT);
    assert_eq!(weir.ask(&chat(MODEL, false)).status, 200);
    weir.idle(LIMIT);
    assert_eq!(scripted.count(), 1);
}

#[test]
fn the_next_caller_on_the_port_of_one_who_was_refused_is_served() {
    let (_scripted, weir) = start();
    let mut same_port = 0;
    for _ in 0..10 {
        let mut first = Client::connect_from(0, weir.addr).unwrap();
        first.send(&head(PATH, MOST + 1, false));
        assert_eq!(first.answer(LIMIT).status, 413);
        let port = first.local_addr().port();
        first.reset();
        // Somebody else on this machine may have been quicker.
        if let Ok(mut second) = Client::connect_from(port, weir.addr) {
            same_port += 1;
            // More in a row than may come without waiting.
            for _ in 0..40 {
                second.post(&chat(MODEL, false));
                assert_eq!(second.answer(LIMIT).status, 200);
            }
        }
    }
    assert!(same_port > 0, "no port was free again");
}
