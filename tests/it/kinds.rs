//! What differs between servers of one format: how it is found, what it tells of itself, and what
//! is sent to it. Each server here says what the real one of its name says.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Client, chat};
use crate::upstream::{Format, Received, Reply, Upstream};
use crate::wait::{LIMIT, until};
use crate::weir::{self, Weir, config};

fn list(owner: &str) -> Value {
    json!({"object": "list", "data": [
        {"id": "tiny", "object": "model", "created": 1, "owned_by": owner,
         "meta": {"n_ctx": 8192, "n_ctx_train": 131_072}}
    ]})
}

/// What llama.cpp's server says at its own routes; `None`: a chat.
fn llama(request: &Received) -> Option<Reply> {
    match request.path.as_str() {
        "/v1/models" => Some(Reply::json(200, &list("llamacpp")).header("server", "llama.cpp")),
        "/props" => Some(Reply::json(
            200,
            &json!({"total_slots": 2, "build_info": "b11434-0a1b2c3", "model_path": "/m/tiny.gguf",
                "default_generation_settings": {"n_ctx": 8192},
                "modalities": {"vision": false, "audio": false}}),
        )),
        _ => None,
    }
}

/// A server of the format `openai` that is asked for its list.
fn asked(url: &str) -> Value {
    let mut settings = config(Format::OpenAi, url, &[]);
    settings["upstreams"][0]["discover"] = json!(true);
    settings["upstreams"][0]["models"] = json!(["*"]);
    settings
}

/// Waits until weir knows what it has in front of it.
fn known(weir: &Weir) {
    until(LIMIT, "two slots", || {
        (weir.status()["upstreams"][0]["keys"][0]["slots"] == 2).then_some(())
    });
}

#[test]
fn a_llama_server_is_known_and_its_slots_are_heeded() {
    let upstream = Upstream::start(|request| {
        llama(request).unwrap_or_else(|| Format::OpenAi.answer(request, &["hi"]).behind("go"))
    });
    let weir = Weir::start(&asked(&upstream.url()));
    known(&weir);
    let before = upstream.count();
    let mut clients: Vec<Client> = (0..3).map(|_| Client::connect(weir.addr)).collect();
    for client in &mut clients {
        client.post(&chat("tiny", true));
    }
    // Two are with the server, and the third waits where it is seen and can be given up.
    until(LIMIT, "one that waits", || {
        (weir.status()["upstreams"][0]["waiting"] == 1).then_some(())
    });
    upstream.wait_requests(before + 2, LIMIT);
    assert_eq!(upstream.count(), before + 2);
    upstream.open("go");
}

#[test]
fn a_whole_answer_is_put_together_of_a_stream_where_leaving_would_not_stop_it() {
    let upstream = Upstream::start(|request| {
        llama(request).unwrap_or_else(|| Format::OpenAi.answer(request, &["one ", "two"]))
    });
    let weir = Weir::start(&asked(&upstream.url()));
    known(&weir);
    let answer = weir.ask(&chat("tiny", false));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let told = answer.json();
    assert_eq!(told["object"], "chat.completion");
    assert_eq!(told["choices"][0]["message"]["content"], "one two");
    assert_eq!(told["choices"][0]["finish_reason"], "stop");
    assert!(told["usage"]["total_tokens"].as_u64() > Some(0), "{told}");
    let sent = upstream.requests().pop().unwrap();
    assert_eq!(sent.header("accept"), Some("text/event-stream"));
    assert_eq!(sent.json()["stream"], true);
    assert_eq!(sent.json()["stream_options"]["include_usage"], true);
    assert!(weir.stream(&chat("tiny", true)).done);
}

#[test]
fn a_caller_of_a_whole_answer_who_leaves_frees_the_slot() {
    let upstream = Upstream::start(|request| {
        llama(request).unwrap_or_else(|| {
            let begun = Format::OpenAi.events(&["one "]);
            Reply::stream().events(&begun[..2]).flush().hang()
        })
    });
    let weir = Weir::start(&asked(&upstream.url()));
    known(&weir);
    let mut client = Client::connect(weir.addr);
    let before = upstream.count();
    client.post(&chat("tiny", false));
    let chat = upstream.wait_requests(before + 1, LIMIT).pop().unwrap();
    let left = Instant::now();
    client.hang_up();
    let closed = upstream.wait_closed(chat.connection, LIMIT);
    assert!(closed.saturating_duration_since(left) < Duration::from_secs(1));
    weir.idle(LIMIT);
}

/// A server that falls silent within a whole answer is not waited for until the deadline.
#[test]
fn timers_hold_for_whole_answers_that_come_as_streams() {
    let upstream = Upstream::start(|request| {
        llama(request).unwrap_or_else(|| {
            let begun = Format::OpenAi.events(&["one "]);
            Reply::stream().events(&begun[..2]).flush().hang()
        })
    });
    let mut settings = asked(&upstream.url());
    settings["upstreams"][0]["idle_ms"] = json!(200);
    settings["retries"] = json!(0);
    let weir = Weir::start(&settings);
    known(&weir);
    let answer = weir.ask(&chat("tiny", false));
    assert_eq!(answer.status, 504, "{}", answer.text());
    assert!(answer.text().contains("fell silent"), "{}", answer.text());
}

#[test]
fn a_server_that_stops_by_itself_is_asked_as_the_caller_asks() {
    let upstream = Upstream::start(|request| match request.path.as_str() {
        "/v1/models" => Reply::json(200, &list("vllm")),
        "/version" => Reply::json(200, &json!({"version": "0.32.0"})),
        _ => Format::OpenAi.answer(request, &["hi"]),
    });
    let weir = Weir::start(&asked(&upstream.url()));
    upstream.wait_requests(2, LIMIT);
    assert_eq!(weir.ask(&chat("tiny", false)).status, 200);
    let sent = upstream.requests().pop().unwrap().json();
    assert!(sent.get("stream_options").is_none(), "{sent}");
    assert_ne!(sent["stream"], true);
    drop(weir);

    // The config has the last word, both ways.
    for (kind, whole, streams) in [
        ("vllm", "streamed", true),
        ("llama.cpp", "as_asked", false),
        ("transformers", "", true),
    ] {
        let mut settings = config(Format::OpenAi, &upstream.url(), &[]);
        settings["upstreams"][0]["kind"] = json!(kind);
        if !whole.is_empty() {
            settings["upstreams"][0]["whole"] = json!(whole);
        }
        let weir = Weir::start(&settings);
        assert_eq!(weir.ask(&chat("up/tiny", false)).status, 200);
        let chats = upstream.requests();
        let sent = chats.iter().rfind(|sent| sent.method == "POST").unwrap();
        assert_eq!(sent.wants_stream(), streams, "{kind} {whole}");
    }
}

/// A server that refuses to be asked for usage is asked without.
#[test]
fn a_folded_answer_does_without_usage_where_it_is_refused() {
    let upstream = Upstream::start(|request| match request.json().get("stream_options") {
        Some(_) => {
            Format::OpenAi.error(400, "invalid_request_error", "unknown field stream_options")
        }
        None => Format::OpenAi.answer(request, &["hi"]),
    });
    let mut settings = config(Format::OpenAi, &upstream.url(), &[]);
    settings["upstreams"][0]["kind"] = json!("transformers");
    settings["upstreams"][0]["discover"] = json!(false);
    let weir = Weir::start(&settings);
    for _ in 0..2 {
        let answer = weir.ask(&chat("up/tiny", false));
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json()["choices"][0]["message"]["content"], "hi");
    }
    assert_eq!(upstream.count(), 3, "it is remembered");
}

#[test]
fn the_probe_says_what_answered() {
    let llama = Upstream::start(|request| llama(request).unwrap());
    let vllm = Upstream::start(|request| match request.path.as_str() {
        "/version" => Reply::json(200, &json!({"version": "0.32.0"})),
        _ => Reply::json(
            200,
            &json!({"object": "list", "data": [
                {"id": "qwen", "owned_by": "vllm", "max_model_len": 4096}]}),
        ),
    });
    let lite = Upstream::start(|_| {
        Reply::json(
            200,
            &json!({"data": [{"id": "tiny", "context_window": 8192}]}),
        )
        .header("x-litellm-version", "1.106.12")
    });
    let transformers = Upstream::start(|_| {
        Reply::json(200, &json!({"object": "list", "data": []})).header("server", "uvicorn")
    });
    let upstream =
        |name: &str, url: &str| weir::upstream(name, Format::OpenAi, url, &["sk-secret"]);
    let mut settings = json!({"upstreams": [
        upstream("box", &llama.url()), upstream("gpu", &vllm.url()),
        upstream("proxy", &lite.url()), upstream("hf", &transformers.url())
    ]});
    settings["upstreams"][3]["kind"] = json!("transformers");
    let ended = weir::run(
        Some(&settings.to_string()),
        &["--check-config", "--probe"],
        &[],
    );
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for line in [
        "  box: llama.cpp b11434-0a1b2c3, 2 slots, 8192 tokens, models tiny\n",
        "  gpu: vllm 0.32.0, 4096 tokens, models qwen\n",
        "  proxy: litellm 1.106.12, 8192 tokens, models tiny\n",
        "  hf: transformers, no models\n",
    ] {
        assert!(ended.stdout.contains(line), "{line}{}", ended.stdout);
    }
    assert!(!ended.stdout.contains("sk-secret"));

    let refused = Upstream::always(Reply::json(401, &json!({"error": "sk-secret"})));
    let settings = json!({"upstreams": [upstream("box", &refused.url())]});
    let ended = weir::run(
        Some(&settings.to_string()),
        &["--check-config", "--probe"],
        &[],
    );
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.stdout.contains("box: no list of models: status 401"),
        "{}",
        ended.stdout
    );
    assert!(!ended.stdout.contains("sk-secret"));
    let ended = weir::run(None, &["--probe"], &[]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
}

/// The blocks of the manual for services that speak OpenAI's or Gemini's format elsewhere. Their
/// addresses stand for the vendors'; the kind, found by the address there, is named here.
#[test]
fn services_are_asked_at_their_address_with_their_header() {
    struct Service {
        kind: &'static str,
        format: Format,
        base: &'static str,
        path: &'static str,
        header: (&'static str, &'static str),
    }
    let services = [
        Service {
            kind: "azure",
            format: Format::OpenAi,
            base: "/openai/v1",
            path: "/openai/v1/chat/completions",
            header: ("api-key", "k-1"),
        },
        Service {
            kind: "vertex",
            format: Format::Gemini,
            base: "",
            path: "/v1/publishers/google/models/m:generateContent",
            header: ("x-goog-api-key", "k-1"),
        },
        Service {
            kind: "vertex",
            format: Format::Gemini,
            base: "/v1/projects/p/locations/global",
            path: "/v1/projects/p/locations/global/publishers/google/models/m:generateContent",
            header: ("x-goog-api-key", "k-1"),
        },
        Service {
            kind: "bedrock",
            format: Format::OpenAi,
            base: "/openai/v1",
            path: "/openai/v1/chat/completions",
            header: ("authorization", "Bearer k-1"),
        },
        Service {
            kind: "openrouter",
            format: Format::OpenAi,
            base: "/api/v1",
            path: "/api/v1/chat/completions",
            header: ("authorization", "Bearer k-1"),
        },
    ];
    for service in services {
        let format = service.format;
        let upstream = Upstream::start(move |request| format.answer(request, &["hi"]));
        let url = format!("http://{}{}", upstream.addr, service.base);
        let mut settings = config(format, &url, &["k-1"]);
        settings["upstreams"][0]["kind"] = json!(service.kind);
        settings["upstreams"][0]["discover"] = json!(false);
        settings["upstreams"][0]["headers"] = json!({"x-title": "house"});
        let weir = Weir::start(&settings);
        let mut body = chat("up/m", false);
        body["max_tokens"] = json!(7);
        body["top_k"] = json!(5);
        let answer = weir.ask(&body);
        let name = service.kind;
        assert_eq!(answer.status, 200, "{name}: {}", answer.text());
        assert_eq!(
            answer.json()["choices"][0]["message"]["content"],
            "hi",
            "{name}"
        );
        let sent = upstream.requests().pop().unwrap();
        let path = sent.path.split('?').next().unwrap();
        let path = path.replace("streamGenerateContent", "generateContent");
        assert_eq!(path, service.path, "{name}");
        assert_eq!(
            sent.header(service.header.0),
            Some(service.header.1),
            "{name}"
        );
        let others = ["authorization", "api-key", "x-goog-api-key"];
        for other in others
            .into_iter()
            .filter(|other| *other != service.header.0)
        {
            assert_eq!(sent.header(other), None, "{name}");
        }
        assert_eq!(sent.header("x-title"), Some("house"));
        let sent = sent.json();
        match name {
            "azure" => {
                assert_eq!(sent["max_completion_tokens"], 7, "{sent}");
                assert!(
                    sent.get("max_tokens").is_none() && sent.get("top_k").is_none(),
                    "{sent}"
                );
                assert_eq!(answer.header("x-weir-dropped"), Some("top_k"));
            }
            "vertex" => assert_eq!(sent["generationConfig"]["maxOutputTokens"], 7, "{sent}"),
            _ => {
                assert_eq!(
                    (&sent["max_tokens"], &sent["top_k"]),
                    (&json!(7), &json!(5)),
                    "{sent}"
                );
                assert_eq!(sent["model"], "m");
            }
        }
    }
}

#[test]
fn fields_that_a_service_refuses_are_not_sent() {
    let upstream = Upstream::start(|request| Format::OpenAi.answer(request, &["hi"]));
    let asked = |kind: &str, strict: bool| {
        let mut settings = config(Format::OpenAi, &upstream.url(), &["k"]);
        settings["upstreams"][0]["kind"] = json!(kind);
        settings["upstreams"][0]["discover"] = json!(false);
        settings["upstreams"][0]["strict"] = json!(strict);
        let weir = Weir::start(&settings);
        weir.ask(&json!({"model": "up/m", "messages": [
            {"role": "developer", "content": "be brief"}, {"role": "user", "name": "ann", "content": "hi"}],
            "max_completion_tokens": 7, "seed": 3, "logprobs": true, "user": "u", "store": false}))
    };
    for (kind, sent_as, dropped) in [
        (
            "mistral",
            json!({"model": "m", "messages": [
            {"role": "system", "content": "be brief"}, {"role": "user", "name": "ann", "content": "hi"}],
            "max_tokens": 7, "random_seed": 3}),
            Some("logprobs"),
        ),
        (
            "groq",
            json!({"model": "m", "messages": [
            {"role": "developer", "content": "be brief"}, {"role": "user", "content": "hi"}],
            "max_completion_tokens": 7, "seed": 3, "user": "u", "store": false}),
            Some("logprobs"),
        ),
        (
            "deepseek",
            json!({"model": "m", "messages": [
            {"role": "system", "content": "be brief"}, {"role": "user", "name": "ann", "content": "hi"}],
            "max_tokens": 7, "seed": 3, "logprobs": true, "user": "u", "store": false}),
            None,
        ),
    ] {
        let answer = asked(kind, false);
        assert_eq!(answer.status, 200, "{kind}: {}", answer.text());
        assert_eq!(upstream.requests().pop().unwrap().json(), sent_as, "{kind}");
        assert_eq!(answer.header("x-weir-dropped"), dropped, "{kind}");
    }
    let answer = asked("groq", true);
    assert_eq!(answer.status, 400);
    assert_eq!(answer.json()["error"]["param"], "logprobs");
}

/// Thoughts reach the caller by one name and once, whatever the server calls them.
#[test]
fn reasoning_has_one_name() {
    let both = json!({"reasoning": "hm", "reasoning_content": "hm"});
    let vllm = json!({"reasoning": "hm"});
    for thoughts in [vllm, both] {
        let upstream = Upstream::start(move |request| {
            let mut message = json!({"role": "assistant", "content": "two"});
            let mut delta = json!({"role": "assistant", "content": ""});
            for (name, text) in thoughts.as_object().unwrap() {
                message[name] = text.clone();
                delta[name] = text.clone();
            }
            let head = |object: &str, choice: Value| {
                json!({"id": "c-1", "object": object, "created": 1, "model": "m",
                    "choices": [choice]})
            };
            if !request.wants_stream() {
                let choice = json!({"index": 0, "message": message, "finish_reason": "stop"});
                return Reply::json(200, &head("chat.completion", choice));
            }
            let chunk = |delta: &Value, end: Value| {
                let choice = json!({"index": 0, "delta": delta, "finish_reason": end});
                format!("data: {}\n\n", head("chat.completion.chunk", choice))
            };
            Reply::stream()
                .event(&chunk(&delta, Value::Null))
                .event(&chunk(&json!({"reasoning": " so"}), Value::Null))
                .event(&chunk(&json!({"content": "two"}), json!("stop")))
                .event("data: [DONE]\n\n")
                .end()
        });
        for (whole, text) in [("as_asked", "hm"), ("streamed", "hm so")] {
            let mut settings = config(Format::OpenAi, &upstream.url(), &[]);
            settings["upstreams"][0]["whole"] = json!(whole);
            settings["upstreams"][0]["discover"] = json!(false);
            let weir = Weir::start(&settings);
            let message = &weir.ask(&chat("up/m", false)).json()["choices"][0]["message"];
            assert_eq!(message["reasoning_content"], text, "{message}");
            assert!(message.get("reasoning").is_none(), "{message}");
            let streamed = weir.ask(&chat("up/m", true)).text();
            assert_eq!(streamed.matches("\"reasoning\"").count(), 0, "{streamed}");
            assert_eq!(
                streamed.matches("\"reasoning_content\"").count(),
                2,
                "{streamed}"
            );
            assert_eq!(streamed.matches("\"hm\"").count(), 1, "{streamed}");
        }
    }
}

/// An alias sends each request to its first target that can take it.
#[test]
fn an_alias_goes_by_what_its_targets_can() {
    let small = Upstream::start(|request| {
        llama(request).unwrap_or_else(|| Format::OpenAi.answer(request, &["small"]))
    });
    let router = Upstream::start(|request| match request.path.as_str() {
        "/v1/models" => Reply::json(
            200,
            &json!({"data": [
                {"id": "plain", "context_length": 100_000, "supported_parameters": ["top_p"],
                 "architecture": {"input_modalities": ["text"]}},
                {"id": "large", "context_length": 100_000,
                 "supported_parameters": ["tools", "structured_outputs"],
                 "architecture": {"input_modalities": ["text", "image"]}}]}),
        ),
        _ => Format::OpenAi.answer(request, &["router"]),
    });
    let mut settings = asked(&small.url());
    let mut second = weir::upstream("router", Format::OpenAi, &router.url(), &["k"]);
    second["discover"] = json!(true);
    settings["upstreams"].as_array_mut().unwrap().push(second);
    settings["models"] = json!({
        "any": ["up/tiny", "router/large"], "tools": ["router/plain", "router/large"],
        "none": ["up/tiny", "router/plain"]
    });
    let weir = Weir::start(&settings);
    known(&weir);
    router.wait_requests(1, LIMIT);
    until(LIMIT, "the second list", || {
        let list = crate::client::get(weir.addr, "/v1/models").text();
        list.contains("\"large\"").then_some(())
    });
    let served = |body: &Value| {
        let answer = weir.ask(body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let by = answer.header("x-weir-upstream").unwrap().to_owned();
        let model = match by.as_str() {
            "up" => small.requests().pop().unwrap().json()["model"].clone(),
            _ => router.requests().pop().unwrap().json()["model"].clone(),
        };
        model.as_str().unwrap().to_owned()
    };
    let mut body = chat("any", false);
    assert_eq!(served(&body), "tiny");
    body["messages"] = json!([{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}]);
    assert_eq!(served(&body), "large", "an image");
    // Where nobody can, the order is the config's, and its refusal is told.
    body["model"] = json!("none");
    assert_eq!(served(&body), "tiny");
    let mut body = chat("any", false);
    body["messages"] = json!([{"role": "user", "content": "word ".repeat(9_000)}]);
    assert_eq!(served(&body), "large", "a long prompt");
    let mut body = chat("tools", false);
    assert_eq!(served(&body), "plain");
    body["tools"] = json!([{"type": "function", "function": {"name": "f", "parameters": {}}}]);
    assert_eq!(served(&body), "large", "tools");
    let mut body = chat("tools", false);
    body["response_format"] =
        json!({"type": "json_schema", "json_schema": {"name": "a", "schema": {}}});
    assert_eq!(served(&body), "large", "a schema");
}
