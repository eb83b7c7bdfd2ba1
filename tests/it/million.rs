//! Callers who make model names up: metrics, status and memory stay as they are.
//!
//! The suite asks 20 000 times. `make million` asks a million times and prints what it measured.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::{Client, chat, get};
use crate::upstream::{Format, Reply, Upstream};
use crate::wait::LIMIT;
use crate::weir::{Weir, config};

/// Callers at once, each on one connection.
const CALLERS: usize = 8;

/// Of so many requests one names an upstream, which knows the model no better, or is out of quota
/// for it: then weir remembers that for a while.
const FORWARDED: usize = 50;

/// What a weir shows after some requests.
#[derive(Debug)]
struct Look {
    requests: usize,
    rss_kib: usize,
    series: usize,
    metrics_bytes: usize,
    status_bytes: usize,
}

fn look(weir: &Weir, requests: usize) -> Look {
    let metrics = get(weir.addr, "/metrics").text();
    assert!(!metrics.contains("made-up"), "a caller's word is a label");
    let series = metrics.lines().filter(|line| !line.starts_with('#'));
    Look {
        requests,
        rss_kib: weir.rss_kib(),
        series: series.count(),
        metrics_bytes: metrics.len(),
        status_bytes: weir.status().to_string().len(),
    }
}

/// Asks `requests` times for models that nobody has, each of another name.
fn ask(addr: SocketAddr, next: &AtomicUsize, requests: usize) {
    let until = next.load(Ordering::Relaxed) + requests;
    thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| {
                let mut client = Client::connect(addr);
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= until {
                        return;
                    }
                    // The same numbers every time, and none twice.
                    let name = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                    let (model, wanted) = match number % FORWARDED {
                        0 => (format!("up/made-up-{name:x}"), &[404, 429][..]),
                        25 => (format!("up/made-up-limited-{name:x}"), &[429][..]),
                        _ => (format!("made-up-{name:x}"), &[404][..]),
                    };
                    client.post(&chat(&model, false));
                    let answer = client.answer(LIMIT);
                    assert!(wanted.contains(&answer.status), "{}", answer.text());
                }
            });
        }
    });
    next.store(until, Ordering::Relaxed);
}

fn run(requests: usize) -> (Vec<Look>, Duration) {
    let upstream = Upstream::start(|request| {
        match String::from_utf8_lossy(&request.body).contains("limited") {
            true => Format::OpenAi
                .error(429, "rate_limit", "slowly")
                .header("Retry-After", "300"),
            false => Reply::json(404, &json!({"error": {"message": "no such model"}})),
        }
    });
    let mut settings = config(Format::OpenAi, &upstream.url(), &["k-1", "k-2"]);
    settings["log_level"] = json!("error");
    settings["lease_wait_ms"] = json!(0);
    let weir = Weir::start(&settings);
    let begun = Instant::now();
    let next = AtomicUsize::new(0);
    // What is bounded is full after the first part.
    let parts = 4;
    let mut looks = Vec::new();
    // A look is a request as well, and has series of its own.
    look(&weir, 0);
    for part in 1..=parts {
        ask(weir.addr, &next, requests / parts);
        looks.push(look(&weir, requests / parts * part));
    }
    (looks, begun.elapsed())
}

/// After the first part nothing grows.
fn assert_bounded(looks: &[Look]) {
    let (first, last) = (&looks[0], &looks[looks.len() - 1]);
    assert_eq!(first.series, last.series, "{looks:#?}");
    assert!(last.series < 400, "{looks:#?}");
    // Its numbers get longer.
    assert!(
        last.metrics_bytes < first.metrics_bytes + 2_000,
        "{looks:#?}"
    );
    assert!(last.status_bytes < first.status_bytes * 5 / 4, "{looks:#?}");
    // More of the workers have had their turn, each with a stack and caches of the allocator; a
    // million requests add half a megabyte to a quarter million.
    assert!(last.rss_kib < first.rss_kib + 8 * 1024, "{looks:#?}");
}

#[test]
fn twenty_thousand_made_up_models_leave_nothing_behind() {
    let (looks, time) = run(20_000);
    println!("{looks:?} in {time:?}");
    assert_bounded(&looks);
}

#[test]
#[ignore = "takes minutes; make million"]
fn a_million_made_up_models_leave_nothing_behind() {
    let (looks, time) = run(1_000_000);
    println!("{looks:#?} in {time:?}");
    assert_bounded(&looks);
}
