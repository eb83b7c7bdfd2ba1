//! Behaviour section 6: load and malice. Whatever comes in, the next caller is served.

use std::time::Duration;

use serde_json::json;

use crate::client::{Client, chat, get, request};
use crate::completion::Completion;
use crate::first_mile::error_of;
use crate::upstream::{Format, Upstream};
use crate::wait::{LIMIT, until};
use crate::weir::{Weir, config};

const MODEL: &str = "up/gpt-4o-mini";
const PATH: &str = "/v1/chat/completions";

fn pair() -> (Upstream, Weir) {
    let scripted = Upstream::start(|request| Format::OpenAi.answer(request, &["hi"]));
    let weir = Weir::start(&config(Format::OpenAi, &scripted.url(), &["k"]));
    (scripted, weir)
}

/// A request of its own is answered in time.
fn assert_serves(weir: &Weir) {
    let mut client = Client::connect(weir.addr);
    client.post(&chat(MODEL, false));
    let answer = client.answer(Duration::from_secs(5));
    assert_eq!(Completion::whole(&answer.json()).content, "hi");
}

#[test]
fn bodies_announced_over_the_limit_are_refused_again_and_again() {
    let (scripted, weir) = pair();
    for number in 0..50 {
        let mut client = Client::connect(weir.addr);
        let length = ["40000000", "300000000"][number % 2];
        client.send(&request("POST", PATH, &[("Content-Length", length)], b""));
        client.send(b"{\"model\":");
        assert_eq!(client.answer(LIMIT).status, 413, "{number}");
        if number % 3 == 0 {
            client.reset();
        }
    }
    assert_serves(&weir);
    assert_eq!(scripted.count(), 1);
    weir.idle(LIMIT);
}

#[test]
fn bodies_over_the_limit_leave_no_descriptor_behind() {
    let (_scripted, weir) = pair();
    assert_serves(&weir);
    let before = weir.fds();
    for number in 0..60 {
        let mut client = Client::connect(weir.addr);
        // One that could be drained, and one that is too long for that.
        let length = ["40000000", "300000000"][number % 2];
        client.send(&request("POST", PATH, &[("Content-Length", length)], b""));
        assert_eq!(client.answer(LIMIT).status, 413, "{number}");
        match number % 3 {
            0 => client.reset(),
            1 => client.hang_up(),
            _ => {}
        }
    }
    // Two would be left of each. Some are taken now and then for the search among them.
    until(LIMIT, "the descriptors to be closed", || {
        (weir.fds() < before + 40).then_some(())
    });
    assert_serves(&weir);
}

/// Whoever waits for such a body is told that nothing comes.
#[test]
fn bodies_announced_over_the_limit_leave_no_thread_behind() {
    let (_scripted, weir) = pair();
    assert_serves(&weir);
    let threads = weir.threads();
    for number in 0..60 {
        let mut client = Client::connect(weir.addr);
        let length = ("Content-Length", "300000000");
        let expect = ("Expect", "100-continue");
        let headers = [length, expect];
        let headers = &headers[..1 + number % 2];
        // Alone, and behind a request whose answer has to leave first.
        if number % 3 == 0 {
            client.send(&request("GET", "/healthz", &[], b""));
        }
        client.send(&request("POST", PATH, headers, b""));
        if number % 3 == 0 {
            assert_eq!(client.answer(LIMIT).status, 200);
        }
        assert_eq!(client.answer(LIMIT).status, 413, "{number}");
        client.until_closed(LIMIT);
    }
    // Threads of the HTTP server live on for five seconds.
    until(3 * LIMIT, "the threads to end", || {
        (weir.threads() <= threads + 8).then_some(())
    });
    let metrics = get(weir.addr, "/metrics").text();
    assert!(
        metrics.contains("\nweir_requests_leaked_total 0\n"),
        "{metrics}"
    );
    assert_serves(&weir);
}

/// Half of a body that nobody will read, on more connections than there are workers.
#[test]
fn bodies_that_are_refused_unread_hold_no_worker() {
    let scripted = Upstream::start(|request| Format::OpenAi.answer(request, &["hi"]));
    let mut settings = config(Format::OpenAi, &scripted.url(), &["k"]);
    settings["body_wait_ms"] = json!(60_000);
    settings["workers"] = json!(2);
    let weir = Weir::start(&settings);
    let mut clients: Vec<Client> = (0..12)
        .map(|_| {
            let mut client = Client::connect(weir.addr);
            let length = ("Content-Length", "20000");
            client.send(&request("POST", "/v1/nothing", &[length], b""));
            client.send(&[b'x'; 10_000]);
            client
        })
        .collect();
    assert_eq!(get(weir.addr, "/healthz").status, 200);
    for client in &mut clients {
        assert_eq!(client.answer(LIMIT).status, 404);
        client.until_closed(LIMIT);
    }
    // One that is there already costs its caller no connection.
    let mut client = Client::connect(weir.addr);
    client.send(&request("POST", "/v1/nothing", &[], &[b'x'; 1_500]));
    assert_eq!(client.answer(LIMIT).status, 404);
    client.post(&chat(MODEL, false));
    let answer = client.answer(LIMIT);
    assert_eq!(Completion::whole(&answer.json()).content, "hi");
}

#[test]
fn requests_whose_end_is_doubtful_are_refused_and_the_connection_is_closed() {
    let (scripted, weir) = pair();
    let length = ("Content-Length", "5");
    let chunked = ("Transfer-Encoding", "chunked");
    let smuggled = "GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for headers in [
        &[length, chunked][..],
        &[chunked, length],
        &[length, ("Content-Length", "6")],
        &[("Content-Length", "+5")],
        &[("Content-Length", "5, 5")],
        &[("Content-Length", "0x5")],
        &[("Content-Length", "")],
        &[("Transfer-Encoding", "gzip")],
        &[("Transfer-Encoding", "identity")],
        &[("Transfer-Encoding", "chunked, chunked")],
    ] {
        let mut client = Client::connect(weir.addr);
        let mut bytes = request("POST", PATH, headers, b"");
        bytes.extend_from_slice(b"hello");
        bytes.extend_from_slice(smuggled.as_bytes());
        client.send(&bytes);
        let answer = client.answer(LIMIT);
        assert_eq!(answer.status, 400, "{headers:?}");
        error_of(&answer);
        let more = client.until_closed(LIMIT);
        // What followed is not taken for a request.
        let more = String::from_utf8_lossy(&more).into_owned();
        assert!(!more.contains("HTTP/1.1 200"), "{headers:?}: {more}");
    }
    assert_eq!(scripted.count(), 0);
    assert_serves(&weir);
}

#[test]
fn a_body_that_does_not_come_is_not_waited_for() {
    let scripted = Upstream::start(|request| Format::OpenAi.answer(request, &["hi"]));
    let mut settings = config(Format::OpenAi, &scripted.url(), &["k"]);
    settings["body_wait_ms"] = json!(300);
    settings["workers"] = json!(4);
    let weir = Weir::start(&settings);
    // Below and above the size that the HTTP server reads on the connection's own thread.
    for length in ["500", "5000"] {
        let mut clients: Vec<Client> = (0..8)
            .map(|_| {
                let mut client = Client::connect(weir.addr);
                client.send(&request("POST", PATH, &[("Content-Length", length)], b""));
                client.send(b"{\"model\"");
                client
            })
            .collect();
        // Twice as many as there are workers, and still:
        assert_eq!(get(weir.addr, "/healthz").status, 200);
        for client in &mut clients {
            client.until_closed(LIMIT);
        }
        assert_serves(&weir);
    }
    weir.idle(LIMIT);
}

#[test]
fn connections_that_say_nothing_keep_nobody_out() {
    let (_scripted, weir) = pair();
    let silent: Vec<Client> = (0..100).map(|_| Client::connect(weir.addr)).collect();
    let mut trickling: Vec<Client> = (0..20).map(|_| Client::connect(weir.addr)).collect();
    for client in &mut trickling {
        client.send(b"POST /v1/chat");
    }
    assert_serves(&weir);
    assert_eq!(get(weir.addr, "/healthz").status, 200);
    drop((silent, trickling));
    weir.idle(LIMIT);
}

#[test]
fn beyond_the_most_connections_the_newest_is_still_served() {
    let scripted = Upstream::start(|request| Format::OpenAi.answer(request, &["hi"]));
    let mut settings = config(Format::OpenAi, &scripted.url(), &["k"]);
    settings["max_connections"] = json!(16);
    let weir = Weir::start(&settings);
    let _silent: Vec<Client> = (0..64).map(|_| Client::connect(weir.addr)).collect();
    assert_serves(&weir);
}

#[test]
fn a_head_without_end_is_cut_off() {
    let (_scripted, weir) = pair();
    let mut client = Client::connect(weir.addr);
    client.send(b"GET /healthz HTTP/1.1\r\n");
    let line = format!("X-Filler: {}\r\n", "x".repeat(8000));
    let before = weir.rss_kib();
    // At 8 MB a second at most, so that a loaded machine has its time to look.
    let refused = (0..4000).any(|_| {
        std::thread::sleep(Duration::from_millis(1));
        client.try_send(line.as_bytes()).is_err()
    });
    assert!(refused, "32 MB of headers were taken");
    assert!(
        weir.rss_kib() < before + 32 * 1024,
        "{} KiB",
        weir.rss_kib()
    );
    assert_serves(&weir);
}

#[test]
fn what_is_no_http_harms_nobody() {
    let (_scripted, weir) = pair();
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: \xff\xfe\r\n\r\n",
        b"GET / HTTQ/1.1\r\n\r\n",
        b"\r\n\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ] {
        for _ in 0..5 {
            let mut client = Client::connect(weir.addr);
            client.send(bytes);
            client.reset();
            let mut client = Client::connect(weir.addr);
            client.send(bytes);
            client.hang_up();
        }
    }
    assert_serves(&weir);
    weir.idle(LIMIT);
}

#[test]
fn hundreds_of_callers_at_once_are_all_answered() {
    let (scripted, weir) = pair();
    let mut callers: Vec<Client> = (0..300).map(|_| Client::connect(weir.addr)).collect();
    for (number, caller) in callers.iter_mut().enumerate() {
        match number % 3 {
            0 => caller.post(&chat(MODEL, false)),
            _ => caller.send(&request("GET", "/healthz", &[], b"")),
        }
    }
    let mut served = 0;
    for (number, caller) in callers.iter_mut().enumerate() {
        // Overload is an answer as well (L2); silence is none.
        match caller.answer(LIMIT).status {
            200 => served += 1,
            503 if number % 3 == 0 => {}
            other => panic!("{other} for caller {number}"),
        }
    }
    assert!(served >= 200, "{served}");
    assert!(scripted.count() > 0);
    drop(callers);
    weir.idle(LIMIT);
}

#[test]
fn a_shortage_of_descriptors_is_survived() {
    let scripted = Upstream::start(|request| Format::OpenAi.answer(request, &["hi"]));
    let weir = Weir::start_limited(&config(Format::OpenAi, &scripted.url(), &["k"]), 64);
    let crowd: Vec<Client> = (0..100).map(|_| Client::connect(weir.addr)).collect();
    // More than half of the descriptors, until idle connections are closed for want of them.
    until(LIMIT, "the descriptors to run short", || {
        (weir.fds() >= 32).then_some(())
    });
    drop(crowd);
    // Answered again, at the latest when those are gone.
    until(LIMIT, "an answer", || {
        let mut client = Client::connect(weir.addr);
        client.send(&request("GET", "/healthz", &[], b""));
        let answer = client.until_closed_or_answered(Duration::from_secs(2));
        answer.starts_with(b"HTTP/1.1 200").then_some(())
    });
    assert_serves(&weir);
}

/// The answer must not be lost to the reset that a close with unread bytes can cause. Whether the
/// connection stays is weir's to decide.
#[test]
fn a_body_that_nobody_reads_does_not_cost_the_answer() {
    let (_scripted, weir) = pair();
    for length in [300, 3_000, 300_000] {
        let mut client = Client::connect(weir.addr);
        let body = vec![b'x'; length];
        client.send(&request("POST", "/v1/nothing", &[], &body));
        let answer = client.answer(LIMIT);
        assert_eq!(answer.status, 404, "{length}");
        error_of(&answer);
    }
    assert_serves(&weir);
}
