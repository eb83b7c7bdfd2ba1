//! Connections out of the pool that the upstream has given up, or gives up just then.

use std::collections::HashSet;
use std::sync::Mutex;

use serde_json::json;

use super::{FORMATS, PIECES, assert_fine};
use crate::client::{Client, chat};
use crate::first_mile::error_of;
use crate::upstream::{Format, Reply, Upstream};
use crate::wait::LIMIT;
use crate::weir::{Weir, config};

fn weir(format: Format, scripted: &Upstream, retries: u32) -> Weir {
    let mut settings = config(format, &scripted.url(), &["k1", "k2"]);
    settings["retries"] = json!(retries);
    settings["keepalive_ms"] = json!(60_000);
    Weir::start(&settings)
}

fn ask(weir: &Weir, format: Format, streams: bool) -> crate::client::Answer {
    let mut client = Client::connect(weir.addr);
    client.post(&chat(&format!("up/{}", format.model()), streams));
    client.answer(LIMIT)
}

#[test]
fn a_pooled_connection_that_was_closed_or_reset_is_replaced_without_a_retry() {
    for format in FORMATS {
        for end in [Reply::close, Reply::reset] {
            let scripted = Upstream::start(move |request| {
                // The answer is whole; what follows it is nobody's fault.
                end(format.answer(request, &PIECES).gate("read"))
            });
            scripted.open("read");
            let weir = weir(format, &scripted, 0);
            for number in 0..8 {
                let streams = number % 2 == 1;
                let answer = ask(&weir, format, streams);
                assert_fine(&format!("{format:?} {number}"), streams, &answer);
                scripted.wait_ended(number, LIMIT);
            }
            assert_eq!((scripted.count(), scripted.connections()), (8, 8));
            weir.idle(LIMIT);
        }
    }
}

/// Answers the first request of each connection and closes on the second, as an upstream does
/// whose idle timer runs out while the request is on its way.
fn closing(format: Format) -> Upstream {
    let used = Mutex::new(HashSet::new());
    Upstream::start(move |request| {
        if used.lock().unwrap().insert(request.connection) {
            return format.answer(request, &PIECES);
        }
        Reply::silence().flush().close()
    })
}

#[test]
fn a_pooled_connection_that_dies_with_the_request_costs_a_counted_retry_and_no_error() {
    for format in FORMATS {
        let scripted = closing(format);
        let weir = weir(format, &scripted, 1);
        for number in 0..6 {
            let streams = number % 2 == 1;
            let answer = ask(&weir, format, streams);
            assert_fine(&format!("{format:?} {number}"), streams, &answer);
        }
        weir.idle(LIMIT);
    }
}

#[test]
fn without_retries_a_request_that_may_have_been_received_is_never_sent_twice() {
    for format in FORMATS {
        let scripted = closing(format);
        let weir = weir(format, &scripted, 0);
        assert_fine("first", false, &ask(&weir, format, false));
        let answer = ask(&weir, format, false);
        assert_eq!(answer.status, 502, "{}", answer.text());
        assert_eq!(error_of(&answer)["code"], "upstream_unreachable");
        assert_eq!(scripted.count(), 2);
        weir.idle(LIMIT);
    }
}
