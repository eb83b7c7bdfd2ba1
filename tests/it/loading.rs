//! Upstreams that do not answer yet or any more: a model that is being loaded, a server that is not
//! there, and how weir finds out that it is.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::client::{Client, chat, get};
use crate::completion::Completion;
use crate::upstream::{Format, Received, Reply, Upstream};
use crate::wait::{LIMIT, until};
use crate::weir::Weir;

const MODEL: &str = "box/tiny";

/// A llama-server that loads its model until it is told to be ready.
fn loads() -> (Upstream, Arc<AtomicBool>) {
    let ready = Arc::new(AtomicBool::new(false));
    let is_ready = Arc::clone(&ready);
    let upstream = Upstream::start(move |request| match is_ready.load(Ordering::SeqCst) {
        false => Reply::json(
            503,
            &json!({"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}}),
        ),
        true if request.method == "GET" => Reply::json(200, &json!({"status": "ok"})),
        true => Format::OpenAi.answer(request, &["hi"]),
    });
    (upstream, ready)
}

fn one_box(url: &str) -> Value {
    json!({
        "keepalive_ms": 100,
        "upstreams": [{"name": "box", "format": "openai", "base_url": url, "kind": "llama.cpp",
            "models": ["tiny"], "discover": false, "whole": "as_asked"}]
    })
}

fn down(weir: &Weir) -> Value {
    weir.status()["upstreams"][0]["down"].clone()
}

fn is_check(request: &Received) -> bool {
    request.method == "GET" && request.path == "/health"
}

fn checks(upstream: &Upstream) -> usize {
    upstream
        .requests()
        .iter()
        .filter(|request| is_check(request))
        .count()
}

#[test]
fn a_request_waits_for_a_model_that_is_being_loaded() {
    let (upstream, ready) = loads();
    let weir = Weir::start(&one_box(&upstream.url()));
    assert_eq!(
        get(weir.addr, "/readyz").status,
        200,
        "nothing is known against it"
    );
    let mut whole = Client::connect(weir.addr);
    whole.post(&chat(MODEL, false));
    let mut stream = weir.open_stream(&chat(MODEL, true));
    // Both ask again, and somebody asks whether it is well.
    until(LIMIT, "further attempts and a check", || {
        let all = upstream.requests();
        let posts = all.iter().filter(|request| request.method == "POST");
        (posts.count() >= 4 && checks(&upstream) >= 1).then_some(())
    });
    assert_eq!(down(&weir), "loading");
    let not_ready = get(weir.addr, "/readyz");
    assert_eq!(not_ready.status, 503);
    assert_eq!(not_ready.text(), "the upstream is loading its model\n");
    let summary = weir.status()["summary"].clone();
    assert_eq!(summary, "Nothing answers: box is loading.");
    ready.store(true, Ordering::SeqCst);
    let answer = whole.answer(LIMIT);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(Completion::whole(&answer.json()).content, "hi");
    let (arrived, _) = stream.rest(LIMIT);
    let text = format!("{arrived:?}");
    assert!(
        text.contains("keep-alive") && text.contains("hi") && text.contains("[DONE]"),
        "{text}"
    );
    let status = weir.status();
    assert_eq!(status["upstreams"][0]["down"], Value::Null);
    let key = &status["upstreams"][0]["keys"][0];
    assert_eq!(key["failures_in_a_row"], 0, "it is no fault of the key");
    assert_eq!(key["cooling"], json!([]));
    assert_eq!(get(weir.addr, "/readyz").status, 200);
    let metrics = get(weir.addr, "/metrics").text();
    let counted = r#"weir_attempt_failures_total{upstream="box",class="loading"}"#;
    assert!(metrics.contains(counted), "{metrics}");
}

#[test]
fn whoever_waits_no_longer_is_told_when_to_come_back() {
    let (upstream, _ready) = loads();
    let mut settings = one_box(&upstream.url());
    for (wait, least) in [(0, 1), (1_200, 3)] {
        settings["loading_wait_ms"] = json!(wait);
        let weir = Weir::start(&settings);
        let before = upstream
            .requests()
            .iter()
            .filter(|request| !is_check(request))
            .count();
        let told = weir.ask(&chat(MODEL, false));
        assert_eq!(told.status, 503, "{}", told.text());
        assert_eq!(told.json()["error"]["code"], "model_loading");
        assert_eq!(told.header("retry-after"), Some("5"));
        let after = upstream
            .requests()
            .iter()
            .filter(|request| !is_check(request))
            .count();
        assert!(after - before >= least, "{wait}: {}", after - before);
    }
}

#[test]
fn another_target_serves_meanwhile() {
    let (upstream, _ready) = loads();
    let other = Upstream::start(|request| Format::OpenAi.answer(request, &["other"]));
    let mut settings = one_box(&upstream.url());
    let second =
        json!({"name": "other", "format": "openai", "base_url": other.url(), "models": ["m"]});
    settings["upstreams"].as_array_mut().unwrap().push(second);
    settings["models"] = json!({"a": ["box/tiny", "other/m"]});
    let weir = Weir::start(&settings);
    let answer = weir.ask(&chat("a", false));
    assert_eq!(Completion::whole(&answer.json()).content, "other");
    assert_eq!(answer.header("x-weir-attempts"), Some("2"));
    assert_eq!(get(weir.addr, "/readyz").status, 200, "one of two answers");
    assert_eq!(weir.status()["summary"], "Serving, but box is loading.");
}

#[test]
fn those_who_wait_for_a_model_leave_room_for_others() {
    let (upstream, _ready) = loads();
    let other = Upstream::start(|request| Format::OpenAi.answer(request, &["other"]));
    let mut settings = one_box(&upstream.url());
    settings["workers"] = json!(4);
    let second =
        json!({"name": "other", "format": "openai", "base_url": other.url(), "models": ["m"]});
    settings["upstreams"].as_array_mut().unwrap().push(second);
    let weir = Weir::start(&settings);
    let asked = |count: usize| {
        until(LIMIT, "further attempts", || {
            let all = upstream.requests();
            let posts = all
                .iter()
                .filter(|request| request.method == "POST")
                .count();
            (posts >= count).then_some(posts)
        })
    };
    let mut first = Client::connect(weir.addr);
    first.post(&chat(MODEL, false));
    asked(2);
    // One of four may wait.
    let second = weir.ask(&chat(MODEL, false));
    assert_eq!(second.status, 503);
    assert_eq!(second.header("retry-after"), Some("5"));
    assert_eq!(weir.ask(&chat("other/m", false)).status, 200);
    // Whoever leaves makes room for the next one.
    first.hang_up();
    weir.idle(LIMIT);
    let before = asked(1);
    let mut third = Client::connect(weir.addr);
    third.post(&chat(MODEL, false));
    asked(before + 2);
}

#[test]
fn a_server_that_is_not_there_is_looked_after_until_it_is() {
    let nobody = Upstream::nobody();
    let mut settings = one_box(&nobody);
    settings["retries"] = json!(0);
    let weir = Weir::start(&settings);
    assert_eq!(weir.ask(&chat(MODEL, false)).status, 502);
    assert_eq!(down(&weir), "unreachable");
    let told = get(weir.addr, "/readyz");
    assert_eq!(
        (told.status, told.text().as_str()),
        (503, "no upstream can be reached\n")
    );
    // A server without such a route is there all the same.
    let address = nobody
        .strip_prefix("http://")
        .unwrap()
        .trim_end_matches("/v1");
    let listener = TcpListener::bind(address).unwrap();
    std::thread::spawn(move || {
        for caller in listener.incoming() {
            let mut caller = caller.unwrap();
            let _ = caller.read(&mut [0; 4096]);
            let _ = caller.write_all(
                b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            );
        }
    });
    until(LIMIT, "the server", || {
        (get(weir.addr, "/readyz").status == 200).then_some(())
    });
    assert_eq!(down(&weir), Value::Null);
}

#[test]
fn a_server_that_answers_is_never_looked_after() {
    let refuses = Upstream::start(|request| {
        match request.json()["model"].as_str() {
        Some("tiny") => Format::OpenAi.error(429, "rate_limit_exceeded", "slow down"),
        _ => Format::OpenAi.error(500, "server_error", "the request says: loading model, or so it seems to this server, which repeats in its error whatever its callers have written, however long that may be, and says nothing of its own beside it, so that nobody can tell"),
    }
    });
    let mut settings = one_box(&refuses.url());
    settings["retries"] = json!(0);
    settings["upstreams"][0]["models"] = json!(["tiny", "other"]);
    let weir = Weir::start(&settings);
    for model in ["box/tiny", "box/other"] {
        assert!([429, 500].contains(&weir.ask(&chat(model, false)).status));
        assert_eq!(down(&weir), Value::Null, "{model}");
    }
    let rounds = weir.rounds();
    until(LIMIT, "rounds of the timer", || {
        (weir.rounds() > rounds + 12).then_some(())
    });
    assert_eq!(checks(&refuses), 0);
}
