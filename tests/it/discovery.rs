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
    // The pattern fits gpt-5 as well, which the upstream does not have.
    assert_eq!(all, ["house-blend", "gpt-listed"]);
    let asked: Vec<_> = upstream.requests();
    assert!(asked.iter().all(|request| request.path == "/v1/models"));
    assert_eq!(upstream.keys(), ["key-refused", "key-good"]);
    let one = get(weir.addr, "/v1/models/house-blend").json();
    assert_eq!(
        one,
        json!({"id": "house-blend", "object": "model", "created": 1234, "owned_by": "house",
            "served": true, "context_length": 8192})
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
    // The old list is good until the new one is there, which is asked for at once.
    upstream.wait_requests(before + 2, LIMIT);
    assert!(ids(&weir).contains(&"house-blend".to_owned()));
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
    weir.wait_log("gave no model list (the list is no JSON)", LIMIT);
    assert_eq!(ids(&weir), ["gpt-5", "gpt-6.2-sol", "gpt-6.2-astra"]);
    assert_eq!(weir.ask(&chat("gpt-4o-mini", false)).status, 200);
}

/// Both vendors that have pages, in the shape of their own lists.
#[test]
fn lists_in_pages_are_read_to_their_end() {
    let claude = Upstream::start(|request| {
        assert_eq!(request.header("anthropic-version"), Some("2023-06-01"));
        let model = |id: &str| {
            json!({"type": "model", "id": id, "display_name": id, "max_tokens": 64_000,
                "created_at": "2026-02-17T00:00:00Z", "max_input_tokens": 200_000})
        };
        let page = match request.path.as_str() {
            "/v1/models?limit=1000" => json!({"data": [model("claude-a"), model("claude-b")],
                "has_more": true, "first_id": "claude-a", "last_id": "claude-b"}),
            "/v1/models?limit=1000&after_id=claude-b" => json!({"data": [model("claude-c")],
                "has_more": false, "first_id": "claude-c", "last_id": "claude-c"}),
            other => panic!("{other}"),
        };
        Reply::json(200, &page)
    });
    let gemini = Upstream::start(|request| {
        let model = |id: &str, method: &str| {
            json!({"name": format!("models/{id}"), "version": "001", "displayName": id,
                "inputTokenLimit": 1_048_576, "outputTokenLimit": 65_536,
                "supportedGenerationMethods": [method, "countTokens"], "temperature": 1,
                "maxTemperature": 2, "topP": 0.95, "topK": 64, "thinking": true})
        };
        let page = match request.path.as_str() {
            "/v1beta/models?pageSize=1000" => json!({"models":
                [model("gemini-a", "generateContent"), model("veo", "predictLongRunning")],
                "nextPageToken": "Ch=/x"}),
            "/v1beta/models?pageSize=1000&pageToken=Ch%3D%2Fx" => json!({"models":
                [model("text-embedding-004", "embedContent")]}),
            other => panic!("{other}"),
        };
        Reply::json(200, &page)
    });
    let upstream = |name, format, url: &str| {
        let mut upstream = crate::weir::upstream(name, format, url, &["k"]);
        upstream["discover"] = json!(true);
        upstream
    };
    let weir = Weir::start(&json!({"upstreams": [
        upstream("claude", Format::Anthropic, &claude.url()),
        upstream("gemini", Format::Gemini, &gemini.url()),
    ]}));
    let all = until(LIMIT, "both lists", || {
        let all = ids(&weir);
        let both = ["claude-c", "text-embedding-004"];
        both.iter()
            .all(|id| all.contains(&(*id).to_owned()))
            .then_some(all)
    });
    for (id, listed) in [
        ("claude-a", true),
        ("claude-b", true),
        ("gemini-a", true),
        ("veo", false),
    ] {
        assert_eq!(all.contains(&id.to_owned()), listed, "{id} in {all:?}");
    }
    assert_eq!((claude.count(), gemini.count()), (2, 2));
    let model = get(weir.addr, "/v1/models/claude-c").json();
    assert_eq!(model["created"], 1_771_286_400);
    assert_eq!(model["owned_by"], "anthropic");
    // Google tells no date.
    let model = get(weir.addr, "/v1/models/gemini-a").json();
    assert_eq!(
        model,
        json!({"id": "gemini-a", "object": "model", "created": 0, "owned_by": "google",
            "served": true, "context_length": 1_048_576, "max_completion_tokens": 65_536})
    );
}

/// An upstream that hands out pages for ever, and long ones.
#[test]
fn a_list_without_end_is_cut() {
    let upstream = Upstream::start(|request| {
        let cursor = request.path.rsplit('=').next().unwrap_or_default();
        let number: u64 = cursor.parse().unwrap_or(0);
        let models: Vec<Value> = (0..150)
            .map(|model| {
                json!({"name": format!("models/m{number}-{model}"),
                    "supportedGenerationMethods": ["generateContent"]})
            })
            .collect();
        let next = if number >= 1_000 { 1 } else { number + 1 };
        Reply::json(
            200,
            &json!({"models": models, "nextPageToken": next.to_string()}),
        )
    });
    let mut entry = crate::weir::upstream("gemini", Format::Gemini, &upstream.url(), &["k"]);
    entry["discover"] = json!(true);
    let weir = Weir::start(&json!({"upstreams": [entry]}));
    weir.wait_log("upstream gemini lists 1500 models", LIMIT);
    assert_eq!(upstream.count(), 10);
}

#[test]
fn a_model_of_a_list_has_a_label_of_its_own() {
    let upstream = Upstream::start(|request| match request.method.as_str() {
        "GET" => list(),
        _ => Format::OpenAi.answer(request, &["hi"]),
    });
    let weir = Weir::start(&settings(&upstream.url(), &["k"]));
    until(LIMIT, "the upstream's list", || {
        ids(&weir).contains(&"house-blend".to_owned()).then_some(())
    });
    assert_eq!(weir.ask(&chat("house-blend", false)).status, 200);
    assert_eq!(weir.ask(&chat("up/house-blend", false)).status, 200);
    weir.idle(LIMIT);
    let line = "weir_requests_total{endpoint=\"chat\",model=\"house-blend\",upstream=\"up\",status=\"2xx\"} 2";
    let metrics = until(LIMIT, "both requests", || {
        let text = get(weir.addr, "/metrics").text();
        text.contains("status=\"2xx\"} 2").then_some(text)
    });
    assert!(metrics.contains(line), "{metrics}");
    assert_eq!(weir.status()["models"][0]["name"], "house-blend");
}
