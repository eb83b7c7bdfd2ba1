//! Servers in the next room, such as llama.cpp's, vLLM or Ollama: what they have, before they are
//! ready, and what they say that vendors do not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::client::{ask, chat, get};
use crate::upstream::{Format, Received, Reply, Upstream};
use crate::wait::{LIMIT, until};
use crate::weir::Weir;

/// What a newcomer writes: a name and an address.
fn one_box(url: &str) -> Value {
    json!({"upstreams": [{"name": "box", "format": "openai", "base_url": url}]})
}

fn list(ids: &[&str]) -> Reply {
    let model = |id: &&str| {
        json!({"id": id, "object": "model", "created": 7, "owned_by": "llamacpp",
            "meta": {"n_ctx": 8192, "n_ctx_train": 131_072}})
    };
    let data: Vec<Value> = ids.iter().map(model).collect();
    Reply::json(200, &json!({"object": "list", "data": data}))
}

fn answer(request: &Received) -> Reply {
    Format::OpenAi.answer(request, &["hi"])
}

fn ids(weir: &Weir) -> Vec<String> {
    let list = get(weir.addr, "/v1/models").json();
    let data = list["data"].as_array().unwrap();
    let id = |model: &Value| model["id"].as_str().unwrap().to_owned();
    data.iter().map(id).collect()
}

#[test]
fn the_first_minute_shows_the_models_of_the_box_and_nothing_else() {
    let upstream = Upstream::start(|request| match request.method.as_str() {
        "GET" => list(&["tiny"]),
        _ => answer(request),
    });
    let mut any = one_box(&upstream.url());
    any["upstreams"][0]["models"] = json!(["*"]);
    for config in [one_box(&upstream.url()), any] {
        let weir = Weir::start(&config);
        // A list that is being asked for is waited for.
        assert_eq!(ids(&weir), ["tiny"], "{config}");
        assert_eq!(
            get(weir.addr, "/v1/models/tiny").json(),
            json!({"id": "tiny", "object": "model", "created": 7, "owned_by": "llamacpp",
                "served": true, "context_length": 8192})
        );
        assert_eq!(get(weir.addr, "/v1/models/gpt-5").status, 404);
        let told = ask(
            weir.addr,
            "POST",
            "/ask",
            &[("Connection", "close")],
            b"hello",
        );
        assert_eq!((told.status, told.text().as_str()), (200, "hi"));
        assert_eq!(upstream.requests().pop().unwrap().json()["model"], "tiny");
        let asked = weir.ask(&chat("tiny", false));
        assert_eq!(asked.status, 200, "{}", asked.text());
        weir.idle(LIMIT);
    }
}

/// As by a compose file: weir is there first.
#[test]
fn a_server_that_starts_later_is_soon_known() {
    let ready = Arc::new(AtomicBool::new(false));
    let is_ready = Arc::clone(&ready);
    let upstream = Upstream::start(move |request| match request.method.as_str() {
        _ if !is_ready.load(Ordering::SeqCst) => {
            Reply::json(503, &json!({"error": {"message": "starting"}}))
        }
        "GET" => list(&["tiny"]),
        _ => answer(request),
    });
    let weir = Weir::start(&one_box(&upstream.url()));
    weir.wait_log(
        "gave no model list (status 503); it is asked for again",
        LIMIT,
    );
    for path in ["/v1/chat/completions", "/v1/embeddings", "/v1/responses"] {
        let mut body = chat("tiny", false);
        body["input"] = json!("x");
        let body = body.to_string();
        let headers = [
            ("Connection", "close"),
            ("Content-Type", "application/json"),
        ];
        let told = ask(weir.addr, "POST", path, &headers, body.as_bytes());
        assert_eq!(told.status, 503, "{path}: {}", told.text());
        let error = told.json();
        assert_eq!(error["error"]["code"], "no_capacity");
        let message = error["error"]["message"].as_str().unwrap();
        assert!(message.contains("`tiny` is not known yet"), "{message}");
        let after: u64 = told.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=60).contains(&after), "{after}");
    }
    let told = ask(
        weir.addr,
        "POST",
        "/ask",
        &[("Connection", "close")],
        b"hello",
    );
    assert_eq!(told.status, 503, "{}", told.text());
    ready.store(true, Ordering::SeqCst);
    until(LIMIT, "the model", || {
        (weir.ask(&chat("tiny", false)).status == 200).then_some(())
    });
    assert_eq!(
        weir.ask(&chat("other", false)).status,
        404,
        "now it is known"
    );
    // It was told of once.
    assert_eq!(weir.log().matches("gave no model list").count(), 1);
}

#[test]
fn a_name_that_nobody_knows_has_the_list_asked_for_again() {
    let lists = Arc::new(AtomicUsize::new(0));
    let asked = Arc::clone(&lists);
    let upstream = Upstream::start(move |request| match request.method.as_str() {
        // The second model comes after the first look.
        "GET" if asked.fetch_add(1, Ordering::SeqCst) == 0 => list(&["tiny"]),
        "GET" => list(&["tiny", "new"]),
        _ => answer(request),
    });
    let weir = Weir::start(&one_box(&upstream.url()));
    assert_eq!(ids(&weir), ["tiny"]);
    // At most every few seconds, so the first requests may be too early.
    let mut tries = 0;
    until(LIMIT, "the new model", || {
        tries += 1;
        (weir.ask(&chat("new", false)).status == 200).then_some(())
    });
    assert_eq!(ids(&weir), ["tiny", "new"]);
    for _ in 0..20 {
        assert_eq!(weir.ask(&chat("nobody", false)).status, 404);
    }
    let lists = lists.load(Ordering::SeqCst);
    assert!(lists < 10, "{lists} lists for {} requests", tries + 20);
}

#[test]
fn a_server_without_a_list_is_asked_for_any_name() {
    let empty = Upstream::start(|request| match request.method.as_str() {
        // As transformers serve, before a model was used.
        "GET" => list(&[]),
        _ => answer(request),
    });
    let none = Upstream::start(|request| match request.method.as_str() {
        "GET" => Reply::json(404, &json!({"detail": "Not Found"})),
        _ => answer(request),
    });
    for upstream in [empty, none] {
        let weir = Weir::start(&one_box(&upstream.url()));
        assert_eq!(ids(&weir), [""; 0]);
        let told = weir.ask(&chat("whatever/it-has", false));
        assert_eq!(told.status, 200, "{}", told.text());
        let last = upstream.requests().pop().unwrap();
        assert_eq!(last.json()["model"], "whatever/it-has");
    }
}

/// Two boxes that take any name: the one that has the model is asked.
#[test]
fn the_box_that_lists_a_model_is_asked_for_it() {
    let small = Upstream::start(|request| match request.method.as_str() {
        "GET" => list(&["small"]),
        _ => answer(request),
    });
    let large = Upstream::start(|request| match request.method.as_str() {
        "GET" => list(&["large"]),
        _ => answer(request),
    });
    let weir = Weir::start(&json!({"upstreams": [
        {"name": "a", "format": "openai", "base_url": small.url(), "models": ["*"]},
        {"name": "b", "format": "openai", "base_url": large.url(), "models": ["*"]},
    ]}));
    assert_eq!(ids(&weir), ["small", "large"]);
    for (model, upstream) in [("large", "b"), ("small", "a"), ("gpt-5", "a")] {
        let told = weir.ask(&chat(model, false));
        assert_eq!(told.header("x-weir-upstream"), Some(upstream), "{model}");
    }
}

/// A long wait is told so that clients stop: one SDK ignores a `Retry-After` above a minute.
#[test]
fn a_long_wait_is_told_with_a_word_against_retries() {
    for (header, wait, word) in [
        ("retry-after", "60", None),
        ("retry-after", "90", Some("false")),
        // What LiteLLM was told by the provider behind it.
        ("llm_provider-retry-after", "90", Some("false")),
        ("llm_provider-retry-after", "2", None),
    ] {
        let upstream = Upstream::start(move |request| match request.method.as_str() {
            "GET" => list(&["tiny"]),
            _ => {
                let error = json!({"error": {"message": "slow down", "code": "429"}});
                Reply::json(429, &error).header(header, wait)
            }
        });
        let weir = Weir::start(&one_box(&upstream.url()));
        // On each route, the first is told by the upstream and the second by weir alone.
        for path in ["/v1/chat/completions", "/v1/responses"] {
            for stream in [false, true] {
                let mut body = chat("tiny", stream);
                body["input"] = json!("x");
                let body = body.to_string();
                let headers = [
                    ("Connection", "close"),
                    ("Content-Type", "application/json"),
                ];
                let told = ask(weir.addr, "POST", path, &headers, body.as_bytes());
                assert_eq!(told.status, 429, "{}", told.text());
                let after: f64 = told.header("retry-after").unwrap().parse().unwrap();
                let wait: f64 = wait.parse().unwrap();
                assert!((wait - 20.0..=wait).contains(&after), "{after} of {wait}");
                if after > 60.0 || word.is_none() {
                    assert_eq!(told.header("x-should-retry"), word, "{header}: {wait}");
                }
                assert!(!told.text().contains("every key"), "{}", told.text());
            }
        }
        let posts = upstream.requests();
        let posts = posts.iter().filter(|request| request.method == "POST");
        assert_eq!(posts.count(), 2, "one for each route");
    }
}
