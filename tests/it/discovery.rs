//! The upstreams' own model lists (M4).

use serde_json::{Value, json};

use crate::client::{chat, get};
use crate::upstream::{Format, Reply, Upstream};
use crate::wait::{LIMIT, until};
use crate::weir::{Weir, config};

fn settings(url: &str, keys: &[&str]) -> Value {
    let mut settings = config(Format::OpenAi, url, keys);
    settings["upstreams"][0]["discover"] = json!(true);
    settings["upstreams"][0]["models"] = json!(["gpt-*"]);
    settings
}

fn ids(weir: &Weir) -> Vec<String> {
    let list = get(weir.addr, "/v1/models").json();
    let data = list["data"].as_array().unwrap();
    let id = |model: &Value| model["id"].as_str().unwrap().to_owned();
    data.iter().map(id).collect()
}

fn list() -> Reply {
    Reply::json(
        200,
        &json!({"object": "list", "data": [
            {"id": "house-blend", "object": "model", "created": 1234, "owned_by": "house",
             "max_model_len": 8192},
            {"id": "gpt-listed", "object": "model", "created": 5, "owned_by": "openai"}
        ]}),
    )
}

#[test]
fn listed_models_are_shown_and_routed_and_kept_over_a_reload() {
    let upstream = Upstream::start(|request| match request.method.as_str() {
        "GET" if request.key.as_deref() == Some("key-refused") => Reply::json(401, &json!({})),
        "GET" => list(),
        _ => Format::OpenAi.answer(request, &["hi"]),
    });
    let weir = Weir::start(&settings(&upstream.url(), &["key-refused", "key-good"]));
    let all = until(LIMIT, "the upstream's list", || {
        let all = ids(&weir);
        all.contains(&"house-blend".to_owned()).then_some(all)
    });
    assert!(all.contains(&"gpt-listed".to_owned()) && all.contains(&"gpt-5".to_owned()));
    let asked: Vec<_> = upstream.requests();
    assert!(asked.iter().all(|request| request.path == "/v1/models"));
    assert_eq!(upstream.keys(), ["key-refused", "key-good"]);
    let one = get(weir.addr, "/v1/models/house-blend").json();
    assert_eq!(
        one,
        json!({"id": "house-blend", "object": "model", "created": 1234, "owned_by": "house",
            "context_length": 8192})
    );

    let answer = weir.ask(&chat("house-blend", false));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let last = upstream.requests().pop().unwrap();
    assert_eq!(last.json()["model"], "house-blend");
    assert_eq!(weir.ask(&chat("no-blend", false)).status, 404);

    let before = upstream.count();
    weir.signal(libc::SIGHUP);
    weir.wait_log("configuration reloaded", LIMIT);
    assert!(ids(&weir).contains(&"house-blend".to_owned()));
    assert_eq!(upstream.count(), before, "it is good for an hour");
}

#[test]
fn a_list_that_does_not_come_delays_nothing() {
    let upstream = Upstream::start(|request| match request.method.as_str() {
        "GET" => Reply::silence().hang(),
        _ => Format::OpenAi.answer(request, &["hi"]),
    });
    let weir = Weir::start(&settings(&upstream.url(), &["k"]));
    upstream.wait_requests(1, LIMIT);
    assert_eq!(weir.ask(&chat("gpt-4o-mini", false)).status, 200);
    assert!(ids(&weir).contains(&"gpt-5".to_owned()));
    weir.idle(LIMIT);
}

#[test]
fn a_list_that_is_none_is_told_once_and_changes_nothing() {
    let upstream = Upstream::start(|request| match request.method.as_str() {
        "GET" => Reply::whole(200, "text/html", "<html>"),
        _ => Format::OpenAi.answer(request, &["hi"]),
    });
    let weir = Weir::start(&settings(&upstream.url(), &["k"]));
    weir.wait_log("gave no model list", LIMIT);
    assert_eq!(ids(&weir), ["gpt-5"]);
    assert_eq!(weir.ask(&chat("gpt-4o-mini", false)).status, 200);
}
