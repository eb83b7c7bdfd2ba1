//! Limits of client keys hold whatever an answer says of its cost, and however it ends.

use serde_json::{Value, json};

use crate::client::{Answer, Client, ask, request};
use crate::first_mile::error_of;
use crate::passthrough::{FORM, JSON};
use crate::upstream::{Format, Received, Reply, Upstream};
use crate::wait::LIMIT;
use crate::weir::{Weir, config};

const PATH: &str = "/v1/chat/completions";
const MODEL: &str = "up/m";
const KEY: (&str, &str) = ("Authorization", "Bearer key-of-bob-12345");

/// A weir with one client key, which has these limits.
fn limited(up: &Upstream, format: Format, limits: Value) -> Weir {
    let mut settings = config(format, &up.url(), &["k"]);
    let mut key = json!({"name": "bob", "key": "key-of-bob-12345"});
    key.as_object_mut()
        .unwrap()
        .extend(limits.as_object().unwrap().clone());
    // The first one is for `/status`.
    settings["client_keys"] = json!(["key-of-the-operator", key]);
    Weir::start(&settings)
}

fn send(weir: &Weir, path: &str, body: &Value) -> Answer {
    ask(
        weir.addr,
        "POST",
        path,
        &[JSON, KEY],
        body.to_string().as_bytes(),
    )
}

fn chat(stream: bool) -> Value {
    json!({"model": MODEL, "stream": stream, "messages": [{"role": "user", "content": "Hello"}]})
}

/// What the key was charged with today: as told, and as estimated.
fn charged(weir: &Weir) -> (u64, u64) {
    let status = weir.idle(LIMIT);
    let clients = status["clients"].as_array().unwrap();
    let bob = clients
        .iter()
        .find(|client| client["name"] == "bob")
        .unwrap();
    let count = |name: &str| bob[name].as_u64().unwrap();
    (
        count("prompt_tokens") + count("completion_tokens"),
        count("estimated_tokens"),
    )
}

fn piece(delta: &Value, finish: &Value) -> String {
    let chunk = json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]});
    format!("data: {chunk}\n\n")
}

/// A stream of 120 tokens, which says so to those only who ask.
fn honest(request: &Received) -> Reply {
    let mut events = vec![
        piece(&json!({"role": "assistant", "content": "Hi"}), &Value::Null),
        piece(&json!({}), &json!("stop")),
    ];
    if request.json()["stream_options"]["include_usage"] == true {
        let usage = json!({"prompt_tokens": 70, "completion_tokens": 50, "total_tokens": 120});
        let chunk = json!({"id": "c", "object": "chat.completion.chunk", "created": 1,
            "model": "m", "choices": [], "usage": usage});
        events.push(format!("data: {chunk}\n\n"));
    }
    events.push("data: [DONE]\n\n".into());
    Reply::stream().events(&events).end()
}

#[test]
fn usage_is_asked_for_where_tokens_are_limited_and_not_told_to_who_did_not_ask() {
    let up = Upstream::start(honest);
    let weir = limited(&up, Format::OpenAi, json!({"tokens_per_day": 10}));
    let first = send(&weir, PATH, &chat(true));
    assert_eq!(first.status, 200);
    assert!(!first.text().contains("usage"), "{}", first.text());
    assert_eq!(send(&weir, PATH, &chat(true)).status, 429);
    assert_eq!(charged(&weir), (120, 0));
    // Nobody else's requests change.
    let operator = [JSON, ("Authorization", "Bearer key-of-the-operator")];
    ask(
        weir.addr,
        "POST",
        PATH,
        &operator,
        chat(true).to_string().as_bytes(),
    );
    let asked: Vec<bool> = up
        .requests()
        .iter()
        .map(|request| request.json()["stream_options"].is_object())
        .collect();
    assert_eq!(asked, [true, false]);
}

#[test]
fn a_server_that_knows_no_stream_options_is_not_asked_again_and_estimated() {
    let up = Upstream::start(|request| match request.json().get("stream_options") {
        Some(_) => Reply::json(
            400,
            &json!({"error": {"message": "Extra inputs are not permitted: stream_options"}}),
        ),
        None => honest(request),
    });
    let weir = limited(&up, Format::OpenAi, json!({"tokens_per_day": 20}));
    assert_eq!(send(&weir, PATH, &chat(true)).status, 200);
    assert_eq!(up.count(), 2);
    let (told, estimated) = charged(&weir);
    assert!(told == 0 && (20..60).contains(&estimated), "{estimated}");
    assert_eq!(send(&weir, PATH, &chat(true)).status, 429);
    let text = ask(weir.addr, "GET", "/status", &[KEY], b"").text();
    assert!(text.contains("ESTIMATED"), "{text}");
    weir.wait_log("estimated_tokens=", LIMIT);
}

#[test]
fn an_answer_that_ends_without_its_usage_is_estimated() {
    let words: Vec<String> = (0..50)
        .map(|_| piece(&json!({"content": "twelve bytes"}), &Value::Null))
        .collect();
    let long = words.clone();
    let up = Upstream::start(move |request| {
        let reply = Reply::stream().events(&long);
        match request.json()["messages"][0]["content"].as_str() {
            Some("cut") => reply.close(),
            Some("error") => reply
                .event("data: {\"error\": {\"message\": \"no\", \"type\": \"server_error\"}}\n\n")
                .end(),
            _ => reply.gate("never"),
        }
    });
    for way in ["cut", "error", "hang up"] {
        let weir = limited(&up, Format::OpenAi, json!({"tokens_per_day": 150}));
        let mut body = chat(true);
        body["messages"][0]["content"] = way.into();
        let mut client = Client::connect(weir.addr);
        client.send(&request(
            "POST",
            PATH,
            &[JSON, KEY],
            body.to_string().as_bytes(),
        ));
        let mut stream = client.stream(LIMIT);
        // With the fiftieth, 600 bytes of text are here.
        for _ in 0..50 {
            stream.data(LIMIT);
        }
        match way {
            "hang up" => stream.client.hang_up(),
            _ => drop(stream.rest(LIMIT)),
        }
        let (told, estimated) = charged(&weir);
        assert!(
            told == 0 && (150..260).contains(&estimated),
            "{way}: {estimated}"
        );
        assert_eq!(send(&weir, PATH, &chat(true)).status, 429, "{way}");
    }
}

#[test]
fn who_leaves_before_the_answer_pays_for_the_question() {
    let up = Upstream::start(|_| Reply::silence().hang());
    let weir = limited(&up, Format::OpenAi, json!({"tokens_per_day": 1_000}));
    let mut body = chat(false);
    body["messages"][0]["content"] = "a word ".repeat(700).into();
    let mut client = Client::connect(weir.addr);
    client.send(&request(
        "POST",
        PATH,
        &[JSON, KEY],
        body.to_string().as_bytes(),
    ));
    up.wait_requests(1, LIMIT);
    client.hang_up();
    let (_, estimated) = charged(&weir);
    assert!((1_200..1_400).contains(&estimated), "{estimated}");
    assert_eq!(send(&weir, PATH, &chat(false)).status, 429);
}

#[test]
fn a_refused_request_costs_no_tokens() {
    let up = Upstream::always(Reply::json(400, &json!({"error": {"message": "no"}})));
    let weir = limited(&up, Format::OpenAi, json!({"tokens_per_day": 10}));
    for _ in 0..3 {
        assert_eq!(send(&weir, PATH, &chat(true)).status, 400);
        assert_eq!(
            send(
                &weir,
                "/v1/responses",
                &json!({"model": MODEL, "input": "x"})
            )
            .status,
            400
        );
    }
    assert_eq!(charged(&weir), (0, 0));
}

#[test]
fn usage_of_responses_is_found_whatever_stands_beside_it() {
    let usage = json!({"input_tokens": 70, "output_tokens": 50});
    for answer in [
        json!({"usage": usage, "metadata": {"usage": "0"}}),
        json!({"usage": usage, "metadata": {"note": "x".repeat(6_000)}}),
        json!({"metadata": {"usage": {"input_tokens": 0, "output_tokens": 0}}, "usage": usage}),
        json!({"usage": usage, "output": [{"usage": {"input_tokens": 1}}]}),
    ] {
        for stream in [false, true] {
            let event = format!(
                "event: response.completed\ndata: {}\n\n",
                json!({"type": "response.completed", "response": answer})
            );
            let reply = match stream {
                true => Reply::stream().event(&event).end(),
                false => Reply::json(200, &answer),
            };
            let up = Upstream::always(reply);
            let weir = limited(&up, Format::OpenAi, json!({"tokens_per_day": 100}));
            let body = json!({"model": MODEL, "input": "x", "stream": stream});
            assert_eq!(send(&weir, "/v1/responses", &body).status, 200);
            assert_eq!(charged(&weir), (120, 0), "{answer}");
            assert_eq!(send(&weir, "/v1/responses", &body).status, 429);
        }
    }
    // One that breaks off before it.
    let delta = format!(
        "data: {}\n\n",
        json!({"type": "response.output_text.delta", "delta": "x".repeat(800)})
    );
    let up = Upstream::always(Reply::stream().event(&delta).close());
    let weir = limited(&up, Format::OpenAi, json!({"tokens_per_day": 100}));
    let body = json!({"model": MODEL, "input": "x", "stream": true});
    let mut client = Client::connect(weir.addr);
    client.send(&request(
        "POST",
        "/v1/responses",
        &[JSON, KEY],
        body.to_string().as_bytes(),
    ));
    client.until_closed(LIMIT);
    let (_, estimated) = charged(&weir);
    assert!((200..250).contains(&estimated), "{estimated}");
}

#[test]
fn absurd_counts_of_an_upstream_lock_nobody_out_for_good() {
    let usage = json!({"prompt_tokens": u64::MAX / 2 + 1, "completion_tokens": u64::MAX, "total_tokens": 1});
    let answer = json!({"id": "c", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
        "usage": usage});
    let up = Upstream::always(Reply::json(200, &answer));
    let weir = limited(&up, Format::OpenAi, json!({"tokens_per_minute": 1_000}));
    assert_eq!(send(&weir, PATH, &chat(false)).status, 200);
    let refused = send(&weir, PATH, &chat(false));
    assert_eq!(refused.status, 429);
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!(wait <= 86_400, "{wait}");
    // Sums go on growing.
    for _ in 0..3 {
        let operator = [JSON, ("Authorization", "Bearer key-of-the-operator")];
        ask(
            weir.addr,
            "POST",
            PATH,
            &operator,
            chat(false).to_string().as_bytes(),
        );
    }
    let status = weir.idle(LIMIT);
    let models = status["models"].as_array().unwrap().iter();
    let counts = models.map(|model| model["prompt_tokens"].as_u64().unwrap());
    assert_eq!(counts.sum::<u64>(), 400_000_000);
    assert!(!weir.log().contains("panic"), "{}", weir.log());
}

#[test]
fn every_request_to_an_upstream_counts() {
    let up = Upstream::start(|request| match request.path.as_str() {
        "/v1/completions" => Reply::json(404, &json!({"error": {"message": "no such route"}})),
        _ => Format::OpenAi.answer(request, &["hi"]),
    });
    let weir = limited(&up, Format::OpenAi, json!({"requests_per_minute": 3}));
    let prompts = |count: usize| json!({"model": MODEL, "prompt": vec!["a"; count]});
    let refused = send(&weir, "/v1/completions", &prompts(32));
    assert_eq!(refused.status, 429, "{}", refused.text());
    assert_eq!(error_of(&refused)["code"], "rate_limit_exceeded");
    assert!(up.count() <= 1, "{}", up.count());
    // One was used; two are left.
    assert_eq!(send(&weir, "/v1/completions", &prompts(2)).status, 200);
    assert_eq!(send(&weir, PATH, &chat(false)).status, 429);

    // Those after a failure are counted when they are over.
    let up = Upstream::always(Reply::json(500, &json!({"error": {"message": "no"}})));
    let weir = limited(&up, Format::OpenAi, json!({"requests_per_minute": 4}));
    assert_ne!(send(&weir, PATH, &chat(false)).status, 429);
    assert_eq!(up.count(), 4);
    assert_eq!(send(&weir, PATH, &chat(false)).status, 429);
    assert_eq!(up.count(), 4);
}

#[test]
fn a_key_for_certain_models_opens_only_what_is_about_its_model() {
    let up = Upstream::always(Reply::json(200, &json!({"ok": true})));
    let weir = limited(&up, Format::OpenAi, json!({"models": ["m"]}));
    let body = br#"{"model":"m"}"#;
    let named = ("x-weir-upstream", "up");
    for (method, path) in [
        ("DELETE", "/v1/files/x"),
        ("GET", "/v1/files"),
        ("POST", "/v1/files"),
        ("GET", "/v1/files/x/content"),
        ("POST", "/v1/batches"),
        ("POST", "/v1/fine_tuning/jobs"),
        ("POST", "/v1/vector_stores"),
        ("POST", "/v1/uploads"),
        ("POST", "/v1/assistants"),
        ("POST", "/v1/threads/runs"),
        ("POST", "/v1/evals"),
        ("POST", "/v1/containers"),
        ("POST", "/v1/conversations"),
        ("GET", "/v1/responses/r1"),
        ("POST", "/v1/responses/r1/cancel"),
        ("DELETE", "/v1/videos/v1"),
        ("POST", "/v1/videos/v1/remix"),
        ("POST", "/v1/organization/admin_api_keys"),
    ] {
        let answer = ask(weir.addr, method, path, &[JSON, KEY, named], body);
        assert_eq!(answer.status, 403, "{method} {path}: {}", answer.text());
        assert_eq!(error_of(&answer)["code"], "route_not_allowed");
    }
    assert_eq!(up.count(), 0);
    for path in [
        "/v1/responses",
        "/v1/images/generations",
        "/v1/moderations",
        "/v1/audio/speech",
    ] {
        let answer = ask(weir.addr, "POST", path, &[JSON, KEY, named], body);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        let other = ask(
            weir.addr,
            "POST",
            path,
            &[JSON, KEY, named],
            br#"{"model":"other"}"#,
        );
        assert_eq!(other.status, 404, "{path}");
        let twice = br#"{"model":"m","model":"other"}"#;
        let twice = ask(weir.addr, "POST", path, &[JSON, KEY, named], twice);
        assert_eq!(twice.status, 400, "{path}");
    }
    assert_eq!(up.count(), 4);

    // In a form as well, also behind a long file.
    let part = |name: &str, value: &str| {
        format!("--xx\r\nContent-Disposition: form-data; {name}\r\n\r\n{value}\r\n")
    };
    let file = part("name=\"file\"; filename=\"a.wav\"", &"x".repeat(300_000));
    let good = part("name=\"model\"", "m");
    let path = "/v1/audio/transcriptions";
    let form = |parts: &[&str]| {
        let body = parts.concat() + "--xx--\r\n";
        ask(
            weir.addr,
            "POST",
            path,
            &[FORM, KEY, named],
            body.as_bytes(),
        )
        .status
    };
    assert_eq!(form(&[&good, &file]), 200);
    assert_eq!(form(&[&file, &good]), 200);
    for spelling in [
        "name=\"model\"",
        "name=model",
        "name*=UTF-8''model",
        "name='model'",
        "NAME=\"Model\"",
    ] {
        let other = part(spelling, "other");
        assert_eq!(form(&[&good, &file, &other]), 400, "{spelling}");
        assert_eq!(form(&[&other, &good]), 400, "{spelling}");
    }
    assert_eq!(form(&[&file]), 403);
    assert_eq!(up.count(), 6);
}

#[test]
fn a_key_for_certain_models_names_no_other_one_beside_its_own() {
    let up = Upstream::start(|request| match request.path.contains("chat") {
        true => Format::OpenAi.answer(request, &["hi"]),
        false => Reply::json(200, &json!({"ok": true})),
    });
    let weir = limited(&up, Format::OpenAi, json!({"models": ["m", "up/m"]}));
    let long = "m".repeat(70_000);
    for path in [
        PATH,
        "/v1/completions",
        "/v1/embeddings",
        "/v1/responses",
        "/v1/moderations",
    ] {
        let ask = |member: &str, value: Value| {
            let mut body = chat(false);
            body["prompt"] = "a".into();
            body["input"] = "a".into();
            body[member] = value;
            send(&weir, path, &body).status
        };
        let before = up.count();
        for (member, value) in [
            ("models", json!(["other"])),
            ("models", json!(["m", "other"])),
            ("fallbacks", json!([{"m": ["other"]}])),
            ("fallbacks", json!("other")),
            (
                "tools",
                json!([{"type": "image_generation", "model": "other"}]),
            ),
        ] {
            assert_eq!(ask(member, value.clone()), 404, "{path} {member} {value}");
        }
        assert_eq!(ask("models", json!([long])), 400, "{path}");
        assert_eq!(up.count(), before, "{path}");
        assert_eq!(ask("models", json!(["m"])), 200, "{path}");
    }
    weir.idle(LIMIT);
}

#[test]
fn a_usage_of_zeros_is_none() {
    for stream in [false, true] {
        let up = Upstream::start(move |_| {
            let usage = json!({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0});
            let text = "twelve bytes".repeat(50);
            if stream {
                let end = json!({"id": "c", "object": "chat.completion.chunk", "created": 1,
                    "model": "m", "choices": [], "usage": usage});
                return Reply::stream()
                    .event(&piece(&json!({"content": text}), &Value::Null))
                    .event(&piece(&json!({}), &"stop".into()))
                    .event(&format!("data: {end}\n\ndata: [DONE]\n\n"))
                    .end();
            }
            let message = json!({"role": "assistant", "content": text});
            let choice = json!({"index": 0, "message": message, "finish_reason": "stop"});
            Reply::json(
                200,
                &json!({"id": "c", "object": "chat.completion", "created": 1, "model": "m",
                    "choices": [choice], "usage": usage}),
            )
        });
        let weir = limited(&up, Format::OpenAi, json!({"tokens_per_day": 150}));
        assert_eq!(send(&weir, PATH, &chat(stream)).status, 200);
        let (told, estimated) = charged(&weir);
        assert!(
            told == 0 && (150..260).contains(&estimated),
            "{stream}: {told} {estimated}"
        );
        assert_eq!(send(&weir, PATH, &chat(stream)).status, 429);
    }
}
