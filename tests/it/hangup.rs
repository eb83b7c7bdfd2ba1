//! Behaviour S5: a caller who hangs up is seen within a second in every phase, its upstream
//! connection is closed, and nothing of it stays behind.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::{Client, chat};
use crate::completion::Completion;
use crate::upstream::{Format, Reply, Upstream};
use crate::wait::{LIMIT, until};
use crate::weir::{Weir, config};

/// What the contract promises.
const SEEN: Duration = Duration::from_secs(1);

const MODEL: &str = "up/gpt-4o-mini";

/// The two ways to leave.
#[derive(Debug, Clone, Copy)]
enum Leave {
    Fin,
    Reset,
}

impl Leave {
    const ALL: [Leave; 2] = [Leave::Fin, Leave::Reset];

    fn now(self, client: Client) -> Instant {
        let left = Instant::now();
        match self {
            Leave::Fin => client.hang_up(),
            Leave::Reset => client.reset(),
        }
        left
    }
}

/// Asserts that the upstream connection ended soon after the caller left.
fn seen_in_time(scripted: &Upstream, connection: usize, left: Instant, what: &str) {
    let closed = scripted.wait_closed(connection, LIMIT);
    let took = closed.saturating_duration_since(left);
    assert!(took < SEEN, "{what}: seen after {took:?}");
}

fn post(weir: &Weir, stream: bool) -> Client {
    let mut client = Client::connect(weir.addr);
    client.post(&chat(MODEL, stream));
    client
}

#[test]
fn while_waiting_for_the_first_byte() {
    let scripted = Upstream::always(Reply::silence().hang());
    // A heartbeat would find the caller gone as well; here it must be seen without one.
    let mut settings = config(Format::OpenAi, &scripted.url(), &["k"]);
    settings["keepalive_ms"] = json!(60_000);
    let weir = Weir::start(&settings);
    let mut count = 0;
    for leave in Leave::ALL {
        for stream in [false, true] {
            let client = post(&weir, stream);
            scripted.wait_requests(count + 1, LIMIT);
            assert_eq!(scripted.left(count), None);
            let left = leave.now(client);
            seen_in_time(&scripted, count, left, &format!("{leave:?} {stream}"));
            weir.idle(SEEN);
            count += 1;
        }
    }
    // Nobody is left to be asked again for (caller gone: no retry).
    assert_eq!(scripted.count(), count);
    weir.wait_log("499", LIMIT);
}

#[test]
fn in_the_middle_of_a_stream() {
    for format in Format::CHAT {
        let events = format.events(&["one ", "two"]);
        let begun = &events[..format.events_to_first_text()];
        let scripted = Upstream::always(Reply::stream().events(begun).hang());
        let mut settings = config(format, &scripted.url(), &["k"]);
        settings["keepalive_ms"] = json!(60_000);
        let weir = Weir::start(&settings);
        for (count, leave) in Leave::ALL.into_iter().enumerate() {
            let mut stream = weir.open_stream(&chat(&format!("up/{}", format.model()), true));
            while !stream.data(LIMIT).contains("one ") {}
            assert_eq!(scripted.left(count), None);
            let left = leave.now(stream.client);
            seen_in_time(&scripted, count, left, &format!("{format:?} {leave:?}"));
            weir.idle(SEEN);
        }
    }
}

#[test]
fn in_the_middle_of_a_whole_answer() {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n";
    let half = Reply::silence().raw(head).raw("{\"id\":").flush().hang();
    let scripted = Upstream::always(half);
    let weir = Weir::start(&config(Format::OpenAi, &scripted.url(), &["k"]));
    for (count, leave) in Leave::ALL.into_iter().enumerate() {
        let client = post(&weir, false);
        scripted.wait_requests(count + 1, LIMIT);
        let left = leave.now(client);
        seen_in_time(&scripted, count, left, &format!("{leave:?}"));
        weir.idle(SEEN);
    }
}

#[test]
fn while_waiting_for_a_lease() {
    let scripted = Upstream::always(Format::OpenAi.whole("done").behind("end"));
    let mut settings = config(Format::OpenAi, &scripted.url(), &["k"]);
    settings["upstreams"][0]["slots"] = json!(1);
    settings["lease_wait_ms"] = json!(60_000);
    settings["keepalive_ms"] = json!(60_000);
    let weir = Weir::start(&settings);
    let mut first = post(&weir, false);
    scripted.wait_requests(1, LIMIT);
    let waiting = |count: u64, limit: Duration| {
        let what = format!("{count} to wait");
        until(limit, &what, || {
            (weir.status()["waiting"] == count).then_some(())
        });
    };
    for leave in Leave::ALL {
        for stream in [false, true] {
            let client = post(&weir, stream);
            waiting(1, LIMIT);
            leave.now(client);
            waiting(0, SEEN);
        }
    }
    scripted.open("end");
    assert_eq!(
        Completion::whole(&first.answer(LIMIT).json()).content,
        "done"
    );
    weir.idle(LIMIT);
    // Those who left were never asked for.
    assert_eq!(scripted.count(), 1);
}

#[test]
fn while_waiting_for_a_retry() {
    let scripted = Upstream::always(Format::OpenAi.error(500, "m", "x"));
    let mut settings = config(Format::OpenAi, &scripted.url(), &["k"]);
    settings["backoff_ms"] = json!(60_000);
    settings["deadline_ms"] = json!(600_000);
    settings["keepalive_ms"] = json!(60_000);
    let weir = Weir::start(&settings);
    for (count, leave) in Leave::ALL.into_iter().enumerate() {
        let client = post(&weir, true);
        scripted.wait_requests(count + 1, LIMIT);
        leave.now(client);
        weir.idle(SEEN);
        assert_eq!(scripted.count(), count + 1);
    }
}

#[test]
fn a_caller_who_leaves_before_its_request_is_complete() {
    let scripted = Upstream::always(Format::OpenAi.whole("x"));
    let weir = Weir::start(&config(Format::OpenAi, &scripted.url(), &["k"]));
    let whole = crate::client::request(
        "POST",
        "/v1/chat/completions",
        &[],
        chat(MODEL, false).to_string().as_bytes(),
    );
    for length in [1, 20, 60, whole.len() / 2, whole.len() - 1] {
        for leave in Leave::ALL {
            let mut client = Client::connect(weir.addr);
            client.send(&whole[..length]);
            leave.now(client);
        }
    }
    weir.idle(LIMIT);
    assert_eq!(scripted.count(), 0);
    assert_eq!(weir.ask(&chat(MODEL, false)).status, 200);
}

/// Some hang up while they wait for a lease, some before the first byte, some in the middle. It
/// takes a little longer than the others, because threads of idle connections live for 5 seconds.
#[test]
fn a_thousand_hang_ups_leave_nothing_behind() {
    let events = Format::OpenAi.events(&["one "]);
    let begun = Reply::stream().events(&events[..2]).hang();
    let scripted = Upstream::start(move |request| match request.connection % 2 {
        0 => Reply::silence().hang(),
        _ => begun.clone(),
    });
    let mut settings = config(Format::OpenAi, &scripted.url(), &["k1", "k2"]);
    settings["lease_wait_ms"] = json!(60_000);
    settings["keepalive_ms"] = json!(60_000);
    settings["workers"] = json!(128);
    let weir = Weir::start(&settings);
    // Once through every phase, so that what is started on demand has been started.
    for leave in Leave::ALL {
        leave.now(post(&weir, true));
    }
    weir.idle(LIMIT);
    let (threads, fds) = (weir.threads(), weir.fds());

    let rounds = 10;
    for round in 0..rounds {
        // 16 slots: 84 of the 100 wait for one.
        let clients: Vec<Client> = (0..100).map(|_| post(&weir, true)).collect();
        until(LIMIT, "the slots to be taken", || {
            let status = weir.status();
            (status["waiting"].as_u64()? >= 84).then_some(())
        });
        for (number, client) in clients.into_iter().enumerate() {
            Leave::ALL[(number + round) % 2].now(client);
        }
        weir.idle(LIMIT);
    }
    let status = weir.idle(LIMIT);
    for key in status["upstreams"][0]["keys"].as_array().unwrap() {
        assert_eq!((&key["slots"], &key["free"]), (&json!(8), &json!(8)));
    }
    // Pooled and idle connections of `/status` itself come and go: a little room.
    until(LIMIT, "threads and descriptors to go back", || {
        (weir.threads() <= threads + 8 && weir.fds() <= fds + 16).then_some(())
    });
    assert!(scripted.count() >= rounds * 16);
}

#[test]
fn during_the_pause_before_a_retry() {
    let scripted = Upstream::always(Format::OpenAi.error(500, "server_error", "x"));
    let mut settings = config(Format::OpenAi, &scripted.url(), &["k"]);
    settings["backoff_ms"] = json!(8_000);
    settings["keepalive_ms"] = json!(60_000);
    let weir = Weir::start(&settings);
    for (count, stream) in [false, true].into_iter().enumerate() {
        let client = post(&weir, stream);
        scripted.wait_requests(count + 1, LIMIT);
        client.hang_up();
        weir.idle(SEEN);
        until(LIMIT, "a line with 499", || {
            (weir.log().matches("status=499").count() == count + 1).then_some(())
        });
    }
    assert_eq!(scripted.count(), 2);
}

/// The kernel may give a port to the next caller as soon as it is free.
#[test]
fn the_next_caller_on_the_port_of_one_who_left_knows_nothing_of_it() {
    const ROUNDS: usize = 10;
    let events = Format::OpenAi.events(&["one ", "two"]);
    let (before, after) = events.split_at(Format::OpenAi.events_to_first_text());
    let gated = |gate: usize| {
        let stream = Reply::stream().events(before).gate(&gate.to_string());
        stream.events(after).end()
    };
    let scripted = Upstream::queue((0..2 * ROUNDS).map(gated));
    let mut settings = config(Format::OpenAi, &scripted.url(), &["k"]);
    settings["keepalive_ms"] = json!(60_000);
    let weir = Weir::start(&settings);
    let mut same_port = 0;
    for round in 0..ROUNDS {
        let mut first = Client::connect_from(0, weir.addr).unwrap();
        first.post(&chat(MODEL, true));
        let mut first = first.stream(LIMIT);
        while !first.data(LIMIT).contains("one ") {}
        let port = first.client.local_addr().port();
        first.client.reset();
        let again = Client::connect_from(port, weir.addr);
        // Somebody else on this machine may have been quicker.
        same_port += usize::from(again.is_ok());
        let mut second = again.unwrap_or_else(|_| Client::connect(weir.addr));
        second.post(&chat(MODEL, true));
        let mut second = second.stream(LIMIT);
        while !second.data(LIMIT).contains("one ") {}
        scripted.open(&(2 * round).to_string());
        until(LIMIT, "the end of the first request", || {
            (weir.log().matches("status=499").count() > round).then_some(())
        });
        scripted.open(&(2 * round + 1).to_string());
        while second.data(LIMIT) != "[DONE]" {}
    }
    assert!(same_port > 0, "no port was free again");
}
