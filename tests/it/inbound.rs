//! What callers may ask besides a completion, who may ask, and how wrong input is told.

use serde_json::json;

use crate::client::{Client, ask, chat, get, request};
use crate::first_mile::{error_of, pair};
use crate::upstream::{Format, Reply, Upstream};
use crate::wait::LIMIT;
use crate::weir::{Weir, config};

#[test]
fn the_request_id_is_the_callers_own_if_it_is_sane() {
    let (_upstream, weir, model) = pair(Format::OpenAi);
    let body = chat(&model, false).to_string();
    let with = |id: &str| {
        let headers = [("X-Request-Id", id)];
        let path = "/v1/chat/completions";
        let answer = ask(weir.addr, "POST", path, &headers, body.as_bytes());
        assert_eq!(answer.status, 200);
        answer.header("x-request-id").unwrap().to_string()
    };
    assert_eq!(with("trace-4711.a_b"), "trace-4711.a_b");
    let long = "x".repeat(5000);
    assert_ne!(with(&long), long);
    assert_ne!(with("a\"b<c>"), "a\"b<c>");
    assert_ne!(with("same"), with("other"));
}

#[test]
fn the_small_routes_answer() {
    let (_upstream, weir, _) = pair(Format::Gemini);
    assert_eq!(get(weir.addr, "/healthz").status, 200);
    assert_eq!(get(weir.addr, "/readyz").status, 200);
    let metrics = get(weir.addr, "/metrics");
    assert_eq!(metrics.status, 200);
    assert!(metrics.text().contains("# TYPE "), "{}", metrics.text());
    let status = get(weir.addr, "/status");
    assert_eq!(status.status, 200);
    assert!(status.text().contains("up"), "{}", status.text());

    let list = get(weir.addr, "/v1/models");
    assert_eq!(list.status, 200);
    let list = list.json();
    assert_eq!(list["object"], "list");
    let models = list["data"].as_array().unwrap();
    assert!(!models.is_empty());
    for model in models {
        assert_eq!(model["object"], "model", "{model}");
        assert!(
            model["id"].is_string() && model["created"].is_u64(),
            "{model}"
        );
        assert!(model["owned_by"].is_string(), "{model}");
    }
    // A gemini upstream serves the gemini part of the catalogue, and no other (M4).
    let ids: Vec<&str> = models
        .iter()
        .filter_map(|model| model["id"].as_str())
        .collect();
    assert!(ids.contains(&"gemini-2.5-flash"), "{ids:?}");
    assert!(!ids.contains(&"gpt-5"), "{ids:?}");
    let one = get(weir.addr, "/v1/models/gemini-2.5-flash");
    assert_eq!(
        (one.status, &one.json()["id"]),
        (200, &json!("gemini-2.5-flash"))
    );
    let none = get(weir.addr, "/v1/models/no-such-model");
    assert_eq!(none.status, 404);
    error_of(&none);
}

#[test]
fn what_is_not_there_and_what_is_not_allowed() {
    let (upstream, weir, _) = pair(Format::OpenAi);
    let lost = get(weir.addr, "/v1/nothing");
    assert_eq!(lost.status, 404);
    error_of(&lost);

    for (method, path, allowed) in [
        ("GET", "/v1/chat/completions", "POST"),
        ("DELETE", "/v1/models", "GET"),
        ("POST", "/healthz", "GET"),
    ] {
        let answer = ask(weir.addr, method, path, &[], b"");
        assert_eq!(answer.status, 405, "{method} {path}");
        let allow = answer.header("allow").unwrap_or_default();
        assert!(allow.contains(allowed), "{method} {path}: {allow:?}");
        error_of(&answer);
    }

    // Without a key, only pages from this machine may read what the owner's keys pay for.
    let preflight = |origin: &'static str| {
        let headers = [
            ("Origin", origin),
            ("Access-Control-Request-Method", "POST"),
            (
                "Access-Control-Request-Headers",
                "authorization,content-type",
            ),
        ];
        let path = "/v1/chat/completions";
        let answer = ask(weir.addr, "OPTIONS", path, &headers, b"");
        assert_eq!(answer.status, 204);
        answer
    };
    let stranger = preflight("https://example.org");
    assert_eq!(stranger.header("access-control-allow-origin"), None);
    let origin = "http://localhost:3000";
    let answer = preflight(origin);
    assert_eq!(answer.header("access-control-allow-origin"), Some(origin));
    let methods = answer
        .header("access-control-allow-methods")
        .unwrap_or_default();
    assert!(methods.contains("POST"), "{methods:?}");
    assert!(answer.header("access-control-allow-headers").is_some());
    assert_eq!(upstream.count(), 0);
}

/// A browser sends it, whether the page may read the answer or not.
#[test]
fn a_page_of_elsewhere_spends_nothing_where_no_key_is_needed() {
    let upstream = Upstream::start(|request| Format::OpenAi.answer(request, &["hi"]));
    let settings = config(Format::OpenAi, &upstream.url(), &["k"]);
    let weir = Weir::start(&settings);
    let body = chat("up/gpt-4o-mini", false).to_string();
    let send = |weir: &Weir, path: &str, origin: &str| {
        // As a form can send it, without asking beforehand.
        let headers = [("Origin", origin), ("Content-Type", "text/plain")];
        ask(weir.addr, "POST", path, &headers, body.as_bytes())
    };
    let chats = "/v1/chat/completions";
    for path in [
        chats,
        "/ask?model=up/gpt-4o-mini",
        "/v1/images/generations",
        "/status/reset",
    ] {
        for origin in ["https://evil.example", "null"] {
            let answer = send(&weir, path, origin);
            assert_eq!(answer.status, 403, "{path} of {origin}");
        }
    }
    assert_eq!(
        error_of(&send(&weir, chats, "null"))["code"],
        "origin_not_allowed"
    );
    assert_eq!(upstream.count(), 0);
    assert_eq!(send(&weir, chats, "http://localhost:3000").status, 200);
    assert_eq!(send(&weir, "/status/reset", "http://127.0.0.1").status, 200);
    let looked = ask(
        weir.addr,
        "GET",
        "/v1/models",
        &[("Origin", "https://a.example")],
        b"",
    );
    assert_eq!(looked.status, 200);

    // Who has client keys, or says that everybody may, has said who may.
    let mut open = settings.clone();
    open["open"] = json!(true);
    assert_eq!(
        send(&Weir::start(&open), chats, "https://a.example").status,
        200
    );
}

#[test]
fn health_is_answered_while_every_worker_streams() {
    let begun = Reply::stream().event(&Format::OpenAi.events(&["x"])[0]);
    let upstream = Upstream::always(begun.gate("end").close());
    let mut settings = config(Format::OpenAi, &upstream.url(), &["k"]);
    settings["workers"] = json!(2);
    let weir = Weir::start(&settings);
    let mut streams: Vec<_> = (0..2)
        .map(|_| weir.open_stream(&chat("up/gpt-4o-mini", true)))
        .collect();
    for stream in &mut streams {
        stream.data(LIMIT);
    }
    assert_eq!(get(weir.addr, "/healthz").status, 200);
    // One more is told so at once (L2).
    let answer = weir.ask(&chat("up/gpt-4o-mini", true));
    assert_eq!(answer.status, 503);
    assert!(answer.header("retry-after").is_some());
    error_of(&answer);
    upstream.open("end");
}

#[test]
fn callers_need_a_key_where_the_config_has_some() {
    let upstream = Upstream::start(|request| Format::OpenAi.answer(request, &["hi"]));
    let mut settings = config(Format::OpenAi, &upstream.url(), &["upstream-key"]);
    // The second is `other` as its digest.
    settings["client_keys"] = json!([
        "caller-key",
        "sha256:d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa"
    ]);
    let weir = Weir::start(&settings);
    let body = chat("up/gpt-4o-mini", false).to_string();
    let with = |headers: &[(&str, &str)]| {
        let path = "/v1/chat/completions";
        ask(weir.addr, "POST", path, headers, body.as_bytes())
    };
    for headers in [
        &[][..],
        &[("Authorization", "Bearer wrong")],
        &[("Authorization", "Bearer ")],
        &[("Authorization", "Basic Y2FsbGVyLWtleQ==")],
        &[("x-api-key", "caller-ke")],
        &[("x-api-key", "upstream-key")],
        &[(
            "x-api-key",
            "sha256:d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa",
        )],
    ] {
        let answer = with(headers);
        assert_eq!(answer.status, 401, "{headers:?}");
        assert_eq!(error_of(&answer)["code"], "invalid_api_key");
    }
    assert_eq!(upstream.count(), 0);
    for headers in [
        &[("Authorization", "Bearer caller-key")][..],
        &[("authorization", "bearer caller-key")],
        &[("x-api-key", "caller-key")],
        &[("x-api-key", "other")],
    ] {
        assert_eq!(with(headers).status, 200, "{headers:?}");
    }
    // The caller's key goes no further.
    assert!(upstream.keys().iter().all(|key| key == "upstream-key"));
    for request in upstream.requests() {
        let text = format!("{:?}", request.headers);
        assert!(
            !text.contains("caller-key") && !text.contains("other"),
            "{text}"
        );
    }
    assert_eq!(get(weir.addr, "/v1/models").status, 401);
    assert_eq!(get(weir.addr, "/status").status, 401);
    assert_eq!(get(weir.addr, "/healthz").status, 200);
    assert_eq!(get(weir.addr, "/readyz").status, 200);
    let log = weir.log();
    assert!(
        !log.contains("caller-key") && !log.contains("upstream-key"),
        "{log}"
    );
}

#[test]
fn wrong_input_is_named() {
    let (upstream, weir, _) = pair(Format::OpenAi);
    let messages = json!([{"role": "user", "content": "x"}]);
    let model = "up/gpt-4o-mini";
    for (body, param) in [
        (json!({"messages": messages}), "model"),
        (json!({"model": 7, "messages": messages}), "model"),
        (json!({"model": null, "messages": messages}), "model"),
        (json!({"model": model}), "messages"),
        (json!({"model": model, "messages": "x"}), "messages"),
        (json!({"model": model, "messages": {}}), "messages"),
        (
            json!({"model": model, "messages": messages, "stream": "yes"}),
            "stream",
        ),
        (
            json!({"model": model, "messages": messages, "stream": 1}),
            "stream",
        ),
    ] {
        let answer = weir.ask(&body);
        assert_eq!(answer.status, 400, "{body}: {}", answer.text());
        let error = error_of(&answer);
        assert_eq!(error["type"], "invalid_request_error", "{body}");
        assert_eq!(error["param"], param, "{body}");
    }
    for body in [
        &b"{\"model\": \"up/gpt-4o-mini\", "[..],
        b"not json",
        b"[]",
        b"\"text\"",
        b"{\"model\":\"up/gpt-4o-mini\",\"messages\":[{\"role\":\"user\",\"content\":\"\xff\"}]}",
    ] {
        let answer = ask(weir.addr, "POST", "/v1/chat/completions", &[], body);
        assert_eq!(answer.status, 400, "{}", String::from_utf8_lossy(body));
        assert_eq!(error_of(&answer)["type"], "invalid_request_error");
    }
    let answer = ask(weir.addr, "POST", "/v1/chat/completions", &[], b"");
    assert_eq!(answer.status, 400);
    error_of(&answer);

    let answer = weir.ask(&chat("no-such-model", false));
    assert_eq!(answer.status, 404);
    let error = error_of(&answer);
    assert_eq!(
        (&error["code"], &error["param"]),
        (&json!("model_not_found"), &json!("model"))
    );
    assert_eq!(upstream.count(), 0);
    weir.idle(LIMIT);
}

#[test]
fn a_body_over_the_limit_is_refused() {
    let upstream = Upstream::start(|request| Format::OpenAi.answer(request, &["hi"]));
    let mut settings = config(Format::OpenAi, &upstream.url(), &["k"]);
    settings["max_body_bytes"] = json!(5000);
    let weir = Weir::start(&settings);
    let path = "/v1/chat/completions";
    let mut body = chat("up/gpt-4o-mini", false);
    body["messages"][0]["content"] = json!("x".repeat(4000));
    assert_eq!(weir.ask(&body).status, 200);

    body["messages"][0]["content"] = json!("x".repeat(6000));
    let answer = weir.ask(&body);
    assert_eq!(answer.status, 413);
    error_of(&answer);

    // Announced only, far over the limit: answered without the body.
    for length in ["6000", "300000000"] {
        let mut client = Client::connect(weir.addr);
        let head = request("POST", path, &[("Content-Length", length)], b"");
        client.send(&head);
        let answer = client.answer(LIMIT);
        assert_eq!(answer.status, 413, "{length}");
        error_of(&answer);
    }

    // In chunks that never end.
    let mut client = Client::connect(weir.addr);
    client.send(&request(
        "POST",
        path,
        &[("Transfer-Encoding", "chunked")],
        b"",
    ));
    let chunk = format!("3e8\r\n{}\r\n", "x".repeat(1000));
    for _ in 0..6 {
        // Refused in the middle is as good as refused at the end.
        if client.try_send(chunk.as_bytes()).is_err() {
            break;
        }
    }
    assert_eq!(client.answer(LIMIT).status, 413);
    assert_eq!(upstream.count(), 1);
    assert_eq!(get(weir.addr, "/healthz").status, 200);
}
