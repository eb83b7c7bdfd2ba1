//! When something runs out: descriptors, workers, memory. And when a worker panics.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::{Client, End, Item, chat, get, request};
use crate::completion::Streamed;
use crate::first_mile::error_of;
use crate::streams::pieces;
use crate::upstream::{Format, Reply, Upstream};
use crate::wait::{LIMIT, until};
use crate::weir::Weir;

const MODEL: &str = "up/gpt-4o-mini";

/// With time enough for the slowest machine: what runs out here is something else.
fn config(format: Format, base_url: &str, keys: &[&str]) -> serde_json::Value {
    let mut settings = crate::weir::config(format, base_url, keys);
    settings["upstreams"][0]["idle_ms"] = json!(120_000);
    settings["deadline_ms"] = json!(120_000);
    settings
}

/// Says `one `, then the rest when the gate `go` is open. Whole answers come at once.
fn gated() -> Upstream {
    let events = Format::OpenAi.events(&["one ", "two"]);
    let (before, after) = events.split_at(2);
    let stream = Reply::stream().events(before).gate("go");
    let stream = stream.events(after).end();
    Upstream::start(move |request| match request.wants_stream() {
        true => stream.clone(),
        false => Format::OpenAi.whole("hi"),
    })
}

#[test]
fn without_descriptors_streams_go_on_and_with_them_callers_are_served_again() {
    let scripted = gated();
    let weir = Weir::start_limited(&config(Format::OpenAi, &scripted.url(), &["k"]), 100);
    let mut stream = weir.open_stream(&chat(MODEL, true));
    while !stream.data(LIMIT).contains("one ") {}
    let fds = weir.fds();
    for _ in 0..3 {
        let crowd: Vec<Client> = (0..150).map(|_| Client::connect(weir.addr)).collect();
        let mut behind = Client::connect(weir.addr);
        behind.send(&request("GET", "/healthz", &[], b""));
        behind.until_closed_or_answered(Duration::from_millis(500));
        // The stream beside it has its heartbeats all the while.
        for _ in 0..2 {
            let item = stream.next(Duration::from_secs(3)).unwrap().item;
            assert_eq!(item, Item::Comment("keep-alive".into()));
        }
        drop(crowd);
        until(LIMIT, "an answer", || {
            let mut client = Client::connect(weir.addr);
            client.post(&chat(MODEL, false));
            let answer = client.until_closed_or_answered(Duration::from_secs(2));
            answer.starts_with(b"HTTP/1.1 200").then_some(())
        });
    }
    scripted.open("go");
    let rest = Streamed::read(stream.rest(LIMIT));
    assert!(rest.done, "{rest:?} {}", weir.log());
    weir.idle(LIMIT);
    until(LIMIT, "descriptors to come back", || {
        (weir.fds() <= fds + 8).then_some(())
    });
}

/// A search of the descriptors that cannot look at all of them proves nobody gone.
#[test]
fn without_descriptors_no_caller_is_taken_for_gone() {
    let scripted = gated();
    for descriptors in [90, 110, 130] {
        let settings = config(Format::OpenAi, &scripted.url(), &["k1", "k2"]);
        let weir = Weir::start_limited(&settings, descriptors);
        let mut streams: Vec<_> = (0..8)
            .map(|_| weir.open_stream(&chat(MODEL, true)))
            .collect();
        // Before they have been looked for.
        let crowd: Vec<Client> = (0..150).map(|_| Client::connect(weir.addr)).collect();
        for stream in &mut streams {
            while !stream.data(LIMIT).contains("one ") {}
            for _ in 0..3 {
                let item = stream
                    .next(Duration::from_secs(3))
                    .expect("it goes on")
                    .item;
                assert_eq!(item, Item::Comment("keep-alive".into()));
            }
        }
        assert!(!weir.log().contains("status=499"), "{}", weir.log());
        drop(crowd);
    }
}

#[test]
fn without_free_workers_a_503_comes_in_milliseconds_and_streams_go_on() {
    let scripted = gated();
    let mut settings = config(Format::OpenAi, &scripted.url(), &["k"]);
    settings["workers"] = json!(4);
    let weir = Weir::start(&settings);
    let mut streams: Vec<_> = (0..4)
        .map(|_| weir.open_stream(&chat(MODEL, true)))
        .collect();
    for stream in &mut streams {
        while !stream.data(LIMIT).contains("one ") {}
    }
    let mut times = Vec::new();
    for number in 0..40 {
        let asked = Instant::now();
        let answer = weir.ask(&chat(MODEL, number % 2 == 0));
        times.push(asked.elapsed());
        assert_eq!(answer.status, 503);
        assert_eq!(error_of(&answer)["code"], "overloaded");
        assert!(answer.header("retry-after").is_some());
    }
    times.sort();
    // The median, so that one pause of a loaded machine does not count.
    assert!(times[20] < Duration::from_millis(100), "{times:?}");
    assert_eq!(scripted.count(), 4);
    scripted.open("go");
    for stream in &mut streams {
        assert!(Streamed::read(stream.rest(LIMIT)).done);
    }
    weir.idle(LIMIT);
    assert_eq!(weir.ask(&chat(MODEL, false)).status, 200);
}

#[test]
fn without_memory_a_long_body_is_refused_and_the_next_caller_served() {
    let scripted = gated();
    let mut settings = config(Format::OpenAi, &scripted.url(), &["k"]);
    settings["workers"] = json!(8);
    settings["max_body_bytes"] = json!(900 << 20);
    let limit = "ulimit -v 400000";
    let weir = Weir::start_under(limit, &settings);
    let mut client = Client::connect(weir.addr);
    let length = (800usize << 20).to_string();
    let headers = [("Content-Length", &*length)];
    client.send(&request("POST", "/v1/chat/completions", &headers, b""));
    let piece = vec![b' '; 1 << 20];
    // Refused in the middle: the caller may find the connection closed.
    for _ in 0..800 {
        if client.try_send(&piece).is_err() {
            break;
        }
    }
    let answer = client.until_closed(LIMIT);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 503"),
        "{answer}"
    );
    assert_eq!(weir.ask(&chat(MODEL, false)).status, 200);
    assert_eq!(get(weir.addr, "/healthz").status, 200);
    weir.idle(LIMIT);
}

/// The word that makes a debug build panic where it handles an upstream's event or body.
const PANIC: &str = "please-panic-now";

/// A weir that panics on the word; `None` where the binary under test has no such thing.
fn panicking(scripted: &Upstream) -> Option<Weir> {
    if std::env::var_os("WEIR_BIN").is_some() {
        return None;
    }
    let mut settings = config(Format::OpenAi, &scripted.url(), &["k"]);
    settings["workers"] = json!(2);
    settings["upstreams"][0]["slots"] = json!(2);
    Some(Weir::start_with(
        &settings,
        &[],
        &[("WEIR_PANIC_ON", PANIC)],
    ))
}

#[test]
fn a_panic_before_the_answer_costs_one_request_a_500_and_no_worker() {
    let scripted = Upstream::start(|request| {
        let asked = String::from_utf8_lossy(&request.body).contains("boom");
        Format::OpenAi.answer(request, &[if asked { PANIC } else { "hi" }])
    });
    let Some(weir) = panicking(&scripted) else {
        return;
    };
    let mut boom = chat(MODEL, false);
    boom["messages"][0]["content"] = json!("boom");
    // More often than there are workers and slots.
    for _ in 0..10 {
        let answer = weir.ask(&boom);
        assert_eq!(answer.status, 500, "{}", answer.text());
        let error = error_of(&answer);
        assert_eq!(error["code"], "internal_error");
        assert!(!error["message"].as_str().unwrap().contains(PANIC));
        assert_eq!(weir.ask(&chat(MODEL, false)).status, 200);
    }
    weir.idle(LIMIT);
    // Not tried again: it is not the upstream's fault.
    assert_eq!(scripted.count(), 20);
    weir.wait_log("status=500", LIMIT);
}

#[test]
fn a_panic_in_the_middle_of_a_stream_is_an_error_event_and_the_socket_comes_back() {
    let mut events = Format::OpenAi.events(&["one ", PANIC, "two"]);
    events.truncate(3);
    let scripted = Upstream::always(Reply::stream().events(&events).hang());
    let Some(weir) = panicking(&scripted) else {
        return;
    };
    for number in 0..10 {
        let streamed = weir.stream(&chat(MODEL, true));
        let error = streamed.error.as_ref().expect("an error event");
        assert_eq!(error["code"], "internal_error");
        assert_eq!(pieces(&streamed), ["one "]);
        assert!(!streamed.done);
        scripted.wait_closed(number, LIMIT);
    }
    weir.idle(LIMIT);
}

/// Where no answer is being made: when the request is taken, and when it is over and noted.
#[test]
fn a_panic_around_the_answer_costs_no_worker_either() {
    let scripted = Upstream::start(|request| Format::OpenAi.answer(request, &["hi"]));
    let Some(weir) = panicking(&scripted) else {
        return;
    };
    let threads = weir.threads();
    // More often than there are workers and spare ones.
    for _ in 0..10 {
        let answer = get(weir.addr, &format!("/{PANIC}"));
        assert_eq!(answer.status, 500, "{}", answer.text());
        assert_eq!(error_of(&answer)["code"], "internal_error");
        let mut client = Client::connect(weir.addr);
        let body = chat(MODEL, false).to_string();
        let headers = [("X-Request-Id", PANIC)];
        client.send(&request(
            "POST",
            "/v1/chat/completions",
            &headers,
            body.as_bytes(),
        ));
        // It had its answer by then.
        assert_eq!(client.answer(LIMIT).status, 200);
    }
    assert_eq!(weir.ask(&chat(MODEL, false)).status, 200);
    weir.idle(LIMIT);
    assert!(weir.threads() >= threads, "{threads} {}", weir.threads());
    weir.wait_log("a panic outside of an answer", LIMIT);
}

#[test]
fn sigterm_lets_fifty_streams_finish_refuses_newcomers_and_exits_with_0() {
    let scripted = gated();
    let mut weir = fifty(&scripted, 20_000);
    let mut streams = open_fifty(&weir);
    weir.signal(libc::SIGTERM);
    until(LIMIT, "newcomers to be refused", || {
        std::net::TcpStream::connect(weir.addr)
            .is_err()
            .then_some(())
    });
    scripted.open("go");
    for stream in &mut streams {
        let streamed = Streamed::read(stream.rest(LIMIT));
        assert!(streamed.done && streamed.error.is_none(), "{streamed:?}");
    }
    assert_eq!(weir.wait_exit(LIMIT).code(), Some(0));
    assert_eq!(scripted.count(), 50);
}

#[test]
fn after_drain_ms_fifty_streams_end_with_an_error_event() {
    let scripted = gated();
    let mut weir = fifty(&scripted, 400);
    let mut streams = open_fifty(&weir);
    weir.signal(libc::SIGTERM);
    for stream in &mut streams {
        let (items, end) = stream.rest(LIMIT);
        assert_eq!(end, End::Framed);
        let streamed = Streamed::read((items, end));
        let error = streamed.error.as_ref().expect("an error event");
        assert!(error["message"].is_string(), "{error}");
        assert!(!streamed.done);
    }
    assert_eq!(weir.wait_exit(LIMIT).code(), Some(0));
}

fn fifty(scripted: &Upstream, drain_ms: u64) -> Weir {
    let mut settings = config(Format::OpenAi, &scripted.url(), &["k"]);
    settings["workers"] = json!(50);
    settings["upstreams"][0]["slots"] = json!(50);
    settings["drain_ms"] = json!(drain_ms);
    Weir::start(&settings)
}

fn open_fifty(weir: &Weir) -> Vec<crate::client::Stream> {
    let mut streams: Vec<_> = (0..50)
        .map(|_| weir.open_stream(&chat(MODEL, true)))
        .collect();
    for stream in &mut streams {
        while !stream.data(LIMIT).contains("one ") {}
    }
    streams
}

#[test]
fn sighup_under_load_loses_nothing() {
    let scripted = Upstream::start(|request| Format::OpenAi.answer(request, &["hi"]));
    let mut settings = config(Format::OpenAi, &scripted.url(), &["k1", "k2"]);
    settings["workers"] = json!(16);
    let weir = Weir::start(&settings);
    let addr = weir.addr;
    let callers: Vec<_> = (0..6)
        .map(|caller| {
            std::thread::spawn(move || {
                for number in 0..40 {
                    let mut client = Client::connect(addr);
                    client.post(&chat(MODEL, (caller + number) % 2 == 0));
                    let answer = client.answer(LIMIT);
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    assert!(answer.text().contains("hi"));
                }
            })
        })
        .collect();
    let mut reloads = 0;
    while !callers.iter().all(std::thread::JoinHandle::is_finished) {
        weir.signal(libc::SIGHUP);
        reloads += 1;
        std::thread::park_timeout(Duration::from_millis(5));
    }
    for caller in callers {
        caller.join().expect("no request is lost");
    }
    assert!(reloads > 3);
    weir.wait_log("configuration reloaded", LIMIT);
    weir.idle(LIMIT);
    assert_eq!(scripted.count(), 240);
}
