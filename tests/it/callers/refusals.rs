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
