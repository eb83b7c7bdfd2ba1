//! Hostile and clumsy callers: what the HTTP server beneath does with each and what weir makes of
//! it. The name of each test says what a caller sees.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::{Client, End, Item, chat, get, request};
use crate::completion::{Completion, Streamed};
use crate::first_mile::error_of;
use crate::upstream::{Format, Reply, Upstream};
use crate::wait::{LIMIT, until};
use crate::weir::{Weir, config};

mod crowd;
mod framing;
mod pipelining;
mod refusals;

const MODEL: &str = "up/gpt-4o-mini";
const PATH: &str = "/v1/chat/completions";

fn pair() -> (Upstream, Weir) {
    let scripted = Upstream::start(|request| Format::OpenAi.answer(request, &["hi"]));
    let weir = Weir::start(&config(Format::OpenAi, &scripted.url(), &["k"]));
    (scripted, weir)
}

/// A chat request as bytes, with these headers besides.
fn post(headers: &[(&str, &str)], stream: bool) -> Vec<u8> {
    request(
        "POST",
        PATH,
        headers,
        chat(MODEL, stream).to_string().as_bytes(),
    )
}

fn assert_serves(weir: &Weir) {
    let answer = weir.ask(&chat(MODEL, false));
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// An upstream whose streams say `one ` and the rest once the gate `go` is open.
fn gated() -> Upstream {
    let events = Format::OpenAi.events(&["one ", "two"]);
    let (before, after) = events.split_at(Format::OpenAi.events_to_first_text());
    let reply = Reply::stream().events(before).gate("go");
    Upstream::always(reply.events(after).end())
}

#[test]
fn a_request_that_comes_a_byte_at_a_time_is_answered_if_it_is_quick_enough() {
    let (scripted, weir) = pair();
    let mut client = Client::connect(weir.addr);
    for byte in post(&[], false) {
        client.send(&[byte]);
    }
    let answer = client.answer(LIMIT);
    assert_eq!(Completion::whole(&answer.json()).content, "hi");
    assert_eq!(scripted.count(), 1);
    weir.idle(LIMIT);
}

#[test]
fn a_head_or_body_that_trickles_is_closed_after_body_wait_ms_however_lively() {
    let scripted = Upstream::start(|request| Format::OpenAi.answer(request, &["hi"]));
    let mut settings = config(Format::OpenAi, &scripted.url(), &["k"]);
    settings["body_wait_ms"] = json!(500);
    let weir = Weir::start(&settings);
    let whole = post(&[("X-Filler", &"x".repeat(2000))], false);
    let head = whole.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
    // From the begin, and from the body on; a body of over 1024 bytes is read by a worker.
    let mut long = chat(MODEL, false);
    long["messages"][0]["content"] = "y".repeat(5000).into();
    let long = request("POST", PATH, &[], long.to_string().as_bytes());
    let long_head = long.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
    for (bytes, quick) in [(&whole, 0), (&whole, head), (&long, long_head)] {
        let mut client = Client::connect(weir.addr);
        client.send(&bytes[..quick]);
        let begun = Instant::now();
        let mut rest = bytes[quick..].iter();
        let answer = loop {
            // A pause of 10 ms between two bytes, unless the connection ends meanwhile.
            let got = client.until_closed_or_answered(Duration::from_millis(10));
            let sent = rest.next().map(|byte| client.try_send(&[*byte]));
            if !got.is_empty() || !matches!(sent, Some(Ok(()))) {
                break got;
            }
        };
        let took = begun.elapsed();
        let text = String::from_utf8_lossy(&answer).into_owned();
        assert!(took < LIMIT && rest.len() > 0, "{quick}: {took:?} {text}");
        assert!(
            text.is_empty() || text.starts_with("HTTP/1.1 408"),
            "{text}"
        );
        assert_serves(&weir);
    }
    weir.idle(LIMIT);
}

#[test]
fn expect_100_continue_is_answered_before_the_body_and_another_expectation_with_417() {
    let (scripted, weir) = pair();
    let body = chat(MODEL, false).to_string();
    let length = body.len().to_string();
    let headers = [("Expect", "100-continue"), ("Content-Length", &*length)];
    let mut client = Client::connect(weir.addr);
    client.send(&request("POST", PATH, &headers, b""));
    assert!(client.head(LIMIT).start.starts_with("HTTP/1.1 100"));
    client.send(body.as_bytes());
    assert_eq!(client.answer(LIMIT).status, 200);

    let mut client = Client::connect(weir.addr);
    client.send(&post(&[("Expect", "cake")], false));
    assert_eq!(client.answer(LIMIT).status, 417);
    client.until_closed(LIMIT);
    assert_eq!(scripted.count(), 1);
}

/// The caller waits for a word before it sends its body, so weir must not wait for the body.
#[test]
fn a_body_that_is_not_wanted_is_refused_without_100_continue_and_at_once() {
    let (scripted, weir) = pair();
    for (path, length, status) in [
        ("/v1/nothing", "2000", 404),
        (PATH, "300000000", 413),
        ("/healthz", "2000", 405),
    ] {
        let mut client = Client::connect(weir.addr);
        let headers = [("Expect", "100-continue"), ("Content-Length", length)];
        client.send(&request("POST", path, &headers, b""));
        let answer = client.answer(Duration::from_secs(3));
        assert_eq!(answer.status, status, "{path}");
        error_of(&answer);
        client.until_closed(LIMIT);
    }
    assert_eq!(scripted.count(), 0);
}

#[test]
fn http_1_0_closes_after_the_answer_unless_keep_alive_was_asked_for() {
    let (_scripted, weir) = pair();
    let old = |headers: &str| format!("GET /healthz HTTP/1.0\r\n{headers}\r\n").into_bytes();
    let mut client = Client::connect(weir.addr);
    client.send(&old(""));
    assert_eq!(client.answer(LIMIT).status, 200);
    assert_eq!(client.until_closed(LIMIT), b"");
    let mut client = Client::connect(weir.addr);
    for _ in 0..3 {
        client.send(&old("Connection: keep-alive\r\n"));
        assert_eq!(client.answer(LIMIT).status, 200);
    }
    client.send(&old(""));
    assert_eq!(client.answer(LIMIT).status, 200);
    client.until_closed(LIMIT);
}

#[test]
fn http_1_0_streams_without_chunks_and_ends_with_the_connection() {
    let (_scripted, weir) = pair();
    let body = chat(MODEL, true).to_string();
    let mut client = Client::connect(weir.addr);
    let head = format!(
        "POST {PATH} HTTP/1.0\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    client.send(head.as_bytes());
    client.send(body.as_bytes());
    let mut stream = client.stream(LIMIT);
    assert!(!stream.head.is_chunked());
    let (items, end) = stream.rest(LIMIT);
    assert_eq!(end, End::Cut);
    let last = items.last().map(|arrived| arrived.item.clone());
    assert_eq!(last, Some(Item::Data("[DONE]".into())));
}

#[test]
fn connection_close_is_honoured_after_a_whole_answer_and_after_a_stream() {
    let (_scripted, weir) = pair();
    for stream in [false, true] {
        let mut client = Client::connect(weir.addr);
        client.send(&post(&[("Connection", "close")], stream));
        assert_eq!(client.answer(LIMIT).status, 200);
        assert_eq!(client.until_closed(LIMIT), b"");
    }
}

#[test]
fn head_is_answered_like_get_without_a_body() {
    let (_scripted, weir) = pair();
    let mut client = Client::connect(weir.addr);
    for (path, status) in [
        ("/healthz", 200),
        ("/v1/models", 200),
        ("/none", 404),
        (PATH, 405),
    ] {
        client.send(&request("HEAD", path, &[], b""));
        let head = client.head(LIMIT);
        assert!(
            head.start.contains(&status.to_string()),
            "{path}: {}",
            head.start
        );
        assert!(head.length().is_some_and(|length| length > 0), "{path}");
    }
    // No body came in between, or this would not be an answer.
    client.send(&request("GET", "/healthz", &[], b""));
    assert_eq!(client.answer(LIMIT).text(), "ok\n");
}

/// TCP cannot tell a caller who will send nothing more from one who has gone. Callers who want the
/// answer keep their side open, as every HTTP client does.
#[test]
fn a_caller_who_closes_its_sending_side_counts_as_gone() {
    let scripted = gated();
    let weir = Weir::start(&config(Format::OpenAi, &scripted.url(), &["k"]));
    let mut stream = weir.open_stream(&chat(MODEL, true));
    while !stream.data(LIMIT).contains("one ") {}
    let left = Instant::now();
    stream.client.finish_sending();
    let closed = scripted.wait_closed(0, LIMIT);
    assert!(
        closed - left < Duration::from_secs(1),
        "{:?}",
        closed - left
    );
    weir.idle(LIMIT);
    stream.client.until_closed(LIMIT);
}

#[test]
fn a_half_closed_caller_still_gets_an_answer_that_is_quick() {
    let (_scripted, weir) = pair();
    let mut client = Client::connect(weir.addr);
    client.send(&request("GET", "/healthz", &[], b""));
    client.finish_sending();
    assert_eq!(client.answer(LIMIT).status, 200);
    client.until_closed(LIMIT);
}

#[test]
fn chunked_bodies_over_the_limit_are_refused_with_413_and_closed() {
    let scripted = Upstream::start(|request| Format::OpenAi.answer(request, &["hi"]));
    let mut settings = config(Format::OpenAi, &scripted.url(), &["k"]);
    settings["max_body_bytes"] = json!(10_000);
    let weir = Weir::start(&settings);
    for chunk in [1usize, 100, 20_000, 5_000_000] {
        let mut client = Client::connect(weir.addr);
        client.send(&request(
            "POST",
            PATH,
            &[("Transfer-Encoding", "chunked")],
            b"",
        ));
        let bytes = format!("{chunk:x}\r\n{}\r\n", "x".repeat(chunk)).into_bytes();
        for _ in 0..(20_000 / chunk).max(1) {
            if client.try_send(&bytes).is_err() {
                break;
            }
        }
        let answer = client.answer(LIMIT);
        assert_eq!(answer.status, 413, "{chunk}: {}", answer.text());
        client.until_closed(LIMIT);
    }
    assert_eq!(scripted.count(), 0);
    let mut body = chat(MODEL, false).to_string();
    body.push_str(&" ".repeat(5_000));
    let mut client = Client::connect(weir.addr);
    client.send(&request(
        "POST",
        PATH,
        &[("Transfer-Encoding", "chunked")],
        b"",
    ));
    for piece in body.as_bytes().chunks(7) {
        client.send(format!("{:x}\r\n", piece.len()).as_bytes());
        client.send(piece);
        client.send(b"\r\n");
    }
    client.send(b"0\r\n\r\n");
    assert_eq!(client.answer(LIMIT).status, 200);
}

#[test]
fn a_reader_who_stops_in_the_middle_of_a_whole_answer_is_cut_after_write_timeout_ms() {
    let large = "x".repeat(24 << 20);
    let scripted = Upstream::always(Format::OpenAi.whole(&large));
    let mut settings = config(Format::OpenAi, &scripted.url(), &["k"]);
    settings["write_timeout_ms"] = json!(400);
    let weir = Weir::start(&settings);
    let mut deaf = Client::connect(weir.addr);
    deaf.post(&chat(MODEL, false));
    scripted.wait_requests(1, LIMIT);
    weir.idle(LIMIT);
    let got = deaf.until_closed(LIMIT);
    assert!(got.len() < 24 << 20, "{}", got.len());
}

#[test]
fn a_thousand_callers_who_leave_in_every_way_leave_no_thread_behind() {
    let (_scripted, weir) = pair();
    assert_serves(&weir);
    let (threads, fds) = (weir.threads(), weir.fds());
    for number in 0..1000 {
        let mut client = Client::connect(weir.addr);
        let bytes: &[u8] = match number % 5 {
            0 => b"",
            1 => b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
            2 => b"GET /healthz HTTP/1.1\r\nHost:",
            3 => b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 5000\r\n\r\n{",
            _ => b"no such thing\r\n\r\n",
        };
        let _ = client.try_send(bytes);
        match number % 2 {
            0 => client.hang_up(),
            _ => client.reset(),
        }
    }
    weir.idle(LIMIT);
    // Threads of the HTTP server live on for five seconds.
    until(2 * LIMIT, "threads and descriptors to go back", || {
        (weir.threads() <= threads + 8 && weir.fds() <= fds + 16).then_some(())
    });
    assert!(Streamed::read(weir.open_stream(&chat(MODEL, true)).rest(LIMIT)).done);
}

/// From outside, bytes that come before there is a request are a head that is far too long.
#[test]
fn megabytes_of_body_on_a_new_connection_are_never_taken_for_a_long_head() {
    let (_scripted, weir) = pair();
    // No JSON, so that all the time goes into sending it.
    let bytes = request("POST", PATH, &[], &vec![b' '; 4 << 20]);
    for number in 0..25 {
        let mut client = Client::connect(weir.addr);
        let sent = client.try_send(&bytes);
        assert!(sent.is_ok(), "{number}: {sent:?}");
        assert_eq!(client.answer(LIMIT).status, 400, "{number}");
        if number % 2 == 0 {
            // The timer thread has looked round and sleeps, so that the next one wakes it.
            let seen = weir.rounds();
            until(LIMIT, "the timer thread to go round", || {
                (weir.rounds() > seen + 1).then_some(())
            });
        }
    }
    weir.idle(LIMIT);
}

/// Whole answers too long for any socket's buffer, and nobody reads them.
#[test]
fn readers_who_stop_keep_the_places_of_their_requests_and_no_other_worker() {
    let large = "x".repeat(24 << 20);
    let scripted = Upstream::always(Format::OpenAi.whole(&large));
    let mut settings = config(Format::OpenAi, &scripted.url(), &["k"]);
    settings["workers"] = json!(2);
    settings["write_timeout_ms"] = json!(60_000);
    let weir = Weir::start(&settings);
    let mut deaf: Vec<Client> = (0..2)
        .map(|number| {
            let mut client = Client::connect(weir.addr);
            client.post(&chat(MODEL, false));
            scripted.wait_requests(number + 1, LIMIT);
            client
        })
        .collect();
    for client in &mut deaf {
        client.first_read(LIMIT);
    }
    // More than there are workers.
    for _ in 0..8 {
        let mut client = Client::connect(weir.addr);
        client.post(&chat(MODEL, false));
        assert_eq!(client.answer(LIMIT).status, 503);
        deaf.push(client);
    }
    assert_eq!(get(weir.addr, "/healthz").status, 200);
    drop(deaf);
    weir.idle(LIMIT);
}
