//! Requests sent before the answer to the one before them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;

use super::{MODEL, PATH, gated, pair, post};
use crate::client::{Client, Item, chat, get, request};
use crate::completion::Streamed;
use crate::upstream::{Format, Reply, Upstream};
use crate::wait::LIMIT;
use crate::weir::{Weir, config};

#[test]
fn pipelined_requests_are_answered_in_order() {
    let (_scripted, weir) = pair();
    let mut client = Client::connect(weir.addr);
    let mut bytes = Vec::new();
    for number in 0..20 {
        match number % 4 {
            0 => bytes.extend(post(&[], false)),
            1 => bytes.extend(request("GET", "/healthz", &[], b"")),
            2 => bytes.extend(post(&[], true)),
            _ => bytes.extend(request("GET", "/nothing", &[], b"")),
        }
    }
    client.send(&bytes);
    for number in 0..20 {
        let answer = client.answer(LIMIT);
        let kind = answer
            .header("content-type")
            .unwrap_or_default()
            .to_string();
        let expected = match number % 4 {
            0 => (200, "application/json"),
            1 => (200, "text/plain"),
            2 => (200, "text/event-stream"),
            _ => (404, "application/json"),
        };
        assert_eq!(answer.status, expected.0, "{number}");
        assert!(kind.starts_with(expected.1), "{number}: {kind}");
    }
    weir.idle(LIMIT);
}

/// The second answer waits for its turn on the connection. Whoever writes to it waits as well, and
/// that must not be the thread that everybody's heartbeats and timers hang on.
#[test]
fn a_stream_that_waits_behind_another_holds_up_nobody_and_is_not_cut() {
    let scripted = gated();
    let mut settings = config(Format::OpenAi, &scripted.url(), &["k"]);
    settings["keepalive_ms"] = json!(100);
    settings["write_timeout_ms"] = json!(300);
    let weir = Weir::start(&settings);
    let mut first = Client::connect(weir.addr);
    first.send(&[post(&[], true), post(&[], true), post(&[], false)].concat());
    scripted.wait_requests(3, LIMIT);
    let mut first = first.stream(LIMIT);
    let mut beside = weir.open_stream(&chat(MODEL, true));
    while !beside.data(LIMIT).contains("one ") {}
    // Well beyond the time in which a stuck write is cut.
    for _ in 0..8 {
        let item = beside.next(Duration::from_secs(2)).unwrap().item;
        assert_eq!(item, Item::Comment("keep-alive".into()));
    }
    scripted.open("go");
    assert!(Streamed::read(beside.rest(LIMIT)).done);
    assert!(Streamed::read(first.rest(LIMIT)).done);
    let mut second = first.client.stream(LIMIT);
    assert!(Streamed::read(second.rest(LIMIT)).done);
    assert!(second.client.head(LIMIT).start.starts_with("HTTP/1.1 "));
    drop(second);
    weir.idle(LIMIT);
}

/// The same where the one behind has nothing to say yet, so that a heartbeat is due.
#[test]
fn a_heartbeat_is_not_sent_into_a_stream_that_waits_behind_another() {
    let events = Format::OpenAi.events(&["one ", "two"]);
    let (before, after) = events.split_at(2);
    let talking = Reply::stream()
        .events(before)
        .gate("go")
        .events(after)
        .end();
    let silent = Format::OpenAi.stream(&["late"]).behind("go");
    let count = AtomicUsize::new(0);
    let scripted = Upstream::start(move |_| match count.fetch_add(1, Ordering::Relaxed) {
        1 => silent.clone(),
        _ => talking.clone(),
    });
    let mut settings = config(Format::OpenAi, &scripted.url(), &["k"]);
    settings["keepalive_ms"] = json!(100);
    let weir = Weir::start(&settings);
    let mut first = Client::connect(weir.addr);
    first.send(&post(&[], true));
    scripted.wait_requests(1, LIMIT);
    first.send(&post(&[], true));
    scripted.wait_requests(2, LIMIT);
    let mut first = first.stream(LIMIT);
    let mut beside = weir.open_stream(&chat(MODEL, true));
    while !beside.data(LIMIT).contains("one ") {}
    for stream in [&mut beside, &mut first] {
        let mut beats = 0;
        while beats < 5 {
            let item = stream.next(Duration::from_secs(2)).unwrap().item;
            beats += usize::from(item == Item::Comment("keep-alive".into()));
        }
    }
    scripted.open("go");
    assert!(Streamed::read(beside.rest(LIMIT)).done);
    assert!(Streamed::read(first.rest(LIMIT)).done);
    let mut second = first.client.stream(LIMIT);
    assert!(Streamed::read(second.rest(LIMIT)).done);
    weir.idle(LIMIT);
}

/// What is refused goes out beside the HTTP server, which orders the answers.
#[test]
fn a_refusal_waits_for_the_answers_before_it() {
    let bad: [&[(&str, &str)]; 3] = [
        &[("Content-Length", "5"), ("Content-Length", "5")],
        &[("Content-Length", "300000000")],
        &[("Content-Length", "300000000")],
    ];
    for headers in bad {
        let scripted = gated();
        let weir = Weir::start(&config(Format::OpenAi, &scripted.url(), &["k"]));
        let mut client = Client::connect(weir.addr);
        client.send(&post(&[], true));
        client.send(&request("POST", "/v1/chat/completions", headers, b""));
        client.send(b"hello");
        let mut stream = client.stream(LIMIT);
        while !stream.data(LIMIT).contains("one ") {}
        // It is there by now, if it does not wait.
        assert_eq!(get(weir.addr, "/healthz").status, 200);
        scripted.open("go");
        let streamed = Streamed::read(stream.rest(LIMIT));
        assert!(streamed.done && streamed.error.is_none(), "{streamed:?}");
        let answer = stream.client.answer(LIMIT);
        let expected = if headers.len() > 1 { 400 } else { 413 };
        assert_eq!(answer.status, expected, "{}", answer.text());
        stream.client.until_closed(LIMIT);
        weir.idle(LIMIT);
    }
}

/// Each of them has to wait for the answers before it, and keeps a worker meanwhile. What is refused
/// waits as well.
/// Workers may begin with either of two requests that came together.
#[test]
fn a_refusal_and_what_came_with_it_never_wait_for_each_other() {
    let (_scripted, weir) = pair();
    let bad = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello";
    let good = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let address = weir.addr;
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                for _ in 0..20 {
                    let mut client = Client::connect(address);
                    client.send(format!("{bad}{good}").as_bytes());
                    assert_eq!(client.answer(LIMIT).status, 400);
                    client.until_closed(LIMIT);
                    let mut client = Client::connect(address);
                    client.send(format!("{good}{bad}").as_bytes());
                    assert_eq!(client.answer(LIMIT).status, 200);
                    assert_eq!(client.answer(LIMIT).status, 400);
                    client.until_closed(LIMIT);
                }
            });
        }
    });
}

#[test]
fn many_requests_behind_a_slow_answer_are_cut_when_they_keep_all_workers() {
    let bad = [("Content-Length", "0"), ("Content-Length", "0")];
    for behind in [&[][..], &bad] {
        let scripted = gated();
        let mut settings = config(Format::OpenAi, &scripted.url(), &["k"]);
        settings["workers"] = json!(2);
        settings["upstreams"][0]["idle_ms"] = json!(60_000);
        let weir = Weir::start(&settings);
        let mut beside = weir.open_stream(&chat(MODEL, true));
        while !beside.data(LIMIT).contains("one ") {}
        let mut client = Client::connect(weir.addr);
        client.send(&post(&[], true));
        scripted.wait_requests(2, LIMIT);
        for _ in 0..25 {
            client.send(&request("GET", "/healthz", behind, b""));
        }
        for _ in 0..10 {
            assert_eq!(get(weir.addr, "/healthz").status, 200);
        }
        client.until_closed(LIMIT);
        scripted.open("go");
        assert!(Streamed::read(beside.rest(LIMIT)).done);
        weir.idle(LIMIT);
    }
}

/// The HTTP server reads on while requests wait, without any bound.
#[test]
fn a_flood_of_requests_without_waiting_is_cut_and_keeps_nobody_out() {
    let (_scripted, weir) = pair();
    let flood = request("GET", "/healthz", &[], b"").repeat(1_000);
    let before = weir.peak_rss_kib();
    for _ in 0..3 {
        let mut client = Client::connect(weir.addr);
        // A minute's worth, if nobody stops it.
        let sent = (0..20_000).find(|_| client.try_send(&flood).is_err());
        assert!(sent.is_some());
        let mut newcomer = Client::connect(weir.addr);
        newcomer.send(&request("GET", "/healthz", &[], b""));
        assert_eq!(newcomer.answer(LIMIT).status, 200);
    }
    let grown = weir.peak_rss_kib() - before;
    assert!(grown < 160 * 1024, "{grown} KiB for what waits");
    weir.idle(LIMIT);
}

#[test]
fn requests_that_wait_for_their_answers_are_never_too_many() {
    let (_scripted, weir) = pair();
    let mut client = Client::connect(weir.addr);
    let long = "x".repeat(3_000);
    for number in 0..200 {
        let (bytes, status) = match number % 6 {
            0 => (post(&[], false), 200),
            1 => (post(&[], true), 200),
            2 => (request("GET", "/v1/models", &[], b""), 200),
            3 => (request("POST", "/v1/nothing", &[], long.as_bytes()), 404),
            4 => (request("OPTIONS", "/v1/models", &[], b""), 204),
            _ => (request("POST", PATH, &[], b"{}"), 400),
        };
        client.send(&bytes);
        assert_eq!(client.answer(LIMIT).status, status, "{number}");
    }
    weir.idle(LIMIT);
}
