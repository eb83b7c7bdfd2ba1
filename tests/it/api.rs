//! The older completions, whatever the upstream speaks; and the demo's faults beside real upstreams.

use serde_json::{Value, json};

use crate::client::{Answer, Client, Item, ask, chat, get, request};
use crate::first_mile::{error_of, pair};
use crate::upstream::{Format, Received, Reply, Upstream};
use crate::wait::LIMIT;
use crate::weir::{Weir, config};

fn complete(weir: &Weir, body: &Value) -> Answer {
    let body = body.to_string();
    ask(weir.addr, "POST", "/v1/completions", &[], body.as_bytes())
}

/// The chunks of a stream that ended with `[DONE]`.
fn chunks(weir: &Weir, body: &Value) -> Vec<Value> {
    let mut client = Client::connect(weir.addr);
    let body = body.to_string();
    client.send(&request("POST", "/v1/completions", &[], body.as_bytes()));
    let (items, _) = client.stream(LIMIT).rest(LIMIT);
    let mut data: Vec<String> = items
        .into_iter()
        .map(|arrived| match arrived.item {
            Item::Data(data) => data,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(data.pop().as_deref(), Some("[DONE]"));
    data.iter()
        .map(|data| serde_json::from_str(data).unwrap())
        .collect()
}

#[test]
fn a_prompt_is_asked_as_a_chat() {
    for format in [Format::Anthropic, Format::Gemini] {
        let (upstream, weir, model) = pair(format);
        let whole = complete(
            &weir,
            &json!({"model": model, "prompt": "Once", "logprobs": 1}),
        );
        assert_eq!(whole.status, 200, "{}", whole.text());
        assert_eq!(whole.header("x-weir-dropped"), Some("logprobs"));
        let body = whole.json();
        assert!(body["id"].as_str().unwrap().starts_with("cmpl-"), "{body}");
        assert_eq!(
            (&body["object"], &body["model"]),
            (&json!("text_completion"), &json!(model))
        );
        assert_eq!(
            body["choices"],
            json!([{"text": "Hello, weir", "index": 0, "logprobs": null, "finish_reason": "stop"}])
        );
        assert_eq!(body["usage"]["total_tokens"], 18);
        let sent = upstream.requests()[0].json().to_string();
        assert!(sent.contains("Once") && sent.contains("16"), "{sent}");

        let chunks = chunks(
            &weir,
            &json!({
                "model": model, "prompt": ["Once"], "stream": true,
                "stream_options": {"include_usage": true}
            }),
        );
        let text: String = chunks
            .iter()
            .filter_map(|chunk| chunk["choices"][0]["text"].as_str())
            .collect();
        assert_eq!(text, "Hello, weir");
        assert!(chunks.len() > 3);
        assert_eq!(
            chunks[chunks.len() - 2]["choices"][0]["finish_reason"],
            "stop"
        );
        let last = &chunks[chunks.len() - 1];
        assert_eq!(
            (&last["choices"], &last["usage"]["total_tokens"]),
            (&json!([]), &json!(18))
        );
        weir.idle(LIMIT);
    }
}

#[test]
fn several_prompts_are_several_chats() {
    let upstream = Upstream::start(|request| {
        // The first try of the second prompt fails, and is made good.
        static FAILED: std::sync::Once = std::sync::Once::new();
        let mut fails = false;
        let second = String::from_utf8_lossy(&request.body).contains("second");
        if second {
            FAILED.call_once(|| fails = true);
        }
        match fails {
            true => Format::Gemini.error(503, "unavailable", "busy"),
            false => Format::Gemini.answer(request, &[if second { "two" } else { "one" }]),
        }
    });
    let weir = Weir::start(&config(Format::Gemini, &upstream.url(), &["k"]));
    let body = json!({"model": "up/gemini-2.5-flash", "prompt": ["first", "second", "third"]});
    let whole = complete(&weir, &body);
    assert_eq!(whole.status, 200, "{}", whole.text());
    let body_of = whole.json();
    let texts: Vec<(&Value, &Value)> = body_of["choices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|choice| (&choice["text"], &choice["index"]))
        .collect();
    let expected = [
        (json!("one"), json!(0)),
        (json!("two"), json!(1)),
        (json!("one"), json!(2)),
    ];
    let expected: Vec<(&Value, &Value)> = expected.iter().map(|(a, b)| (a, b)).collect();
    assert_eq!(texts, expected);
    assert_eq!(body_of["usage"]["total_tokens"], 3 * 18);
    let log = weir.wait_log("endpoint=completions", LIMIT);
    assert!(log.contains("attempts=4"), "{log}");
    let status = weir.idle(LIMIT);
    let today = &status["upstreams"][0]["keys"][0]["today"];
    let counts = (&today["requests"], &today["failed"]);
    assert_eq!(counts, (&json!(4), &json!(1)), "each is one to the key");

    let mut body = body;
    body["stream"] = json!(true);
    body["stream_options"] = json!({"include_usage": true});
    let chunks = chunks(&weir, &body);
    let told: Vec<(&Value, &Value)> = chunks[..3]
        .iter()
        .map(|chunk| (&chunk["choices"][0]["text"], &chunk["choices"][0]["index"]))
        .collect();
    assert_eq!(told, expected);
    assert_eq!(chunks[3]["usage"]["total_tokens"], 3 * 18);
    weir.idle(LIMIT);
}

#[test]
fn a_server_with_the_route_gets_the_request_as_it_is() {
    let answer = json!({"id": "cmpl-1", "object": "text_completion",
        "choices": [{"text": "x", "index": 0, "logprobs": null, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}});
    let body = json!({"model": "up/some", "prompt": [1, 2], "echo": true, "suffix": "s"});
    let up = Upstream::always(Reply::json(200, &answer));
    let weir = Weir::start(&config(Format::OpenAi, &up.url(), &["k"]));
    assert_eq!(complete(&weir, &body).json(), answer);
    let got = &up.requests()[0];
    assert_eq!(
        (got.path.as_str(), &got.json()["model"]),
        ("/v1/completions", &json!("some"))
    );
    assert_eq!(got.json()["prompt"], json!([1, 2]));
}

#[test]
fn a_server_without_the_route_is_asked_for_a_chat() {
    let up = Upstream::start(|request: &Received| match request.path.as_str() {
        "/v1/completions" => Format::OpenAi.error(
            404,
            "invalid_request_error",
            "This is a chat model and not supported in the v1/completions endpoint.",
        ),
        _ => Format::OpenAi.answer(request, &["Hel", "lo"]),
    });
    let weir = Weir::start(&config(Format::OpenAi, &up.url(), &["k"]));
    let body = json!({"model": "up/gpt-4o-mini", "prompt": "Hi", "max_tokens": 5});
    for _ in 0..2 {
        // Twice: the key does not rest for it.
        let answer = complete(&weir, &body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json()["choices"][0]["text"], "Hello");
    }
    let requests = up.requests();
    assert_eq!(requests[1].path, "/v1/chat/completions");
    assert_eq!(requests[1].json()["max_tokens"], 5);
    let mut streamed = body.clone();
    streamed["stream"] = json!(true);
    let text: String = chunks(&weir, &streamed)
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["text"].as_str())
        .collect();
    assert_eq!(text, "Hello");
    for (key, value) in [
        ("echo", json!(true)),
        ("suffix", json!("s")),
        ("prompt", json!([1])),
    ] {
        let mut body = body.clone();
        body[key] = value;
        let answer = complete(&weir, &body);
        assert_eq!(answer.status, 400, "{key}");
        let param = error_of(&answer)["param"].as_str().unwrap().to_owned();
        assert!(param.starts_with(key), "{param}");
    }
    weir.idle(LIMIT);
}

#[test]
fn the_demo_misbehaves_beside_real_upstreams() {
    let up = Upstream::start(|request| Format::OpenAi.answer(request, &["real"]));
    let settings = config(Format::OpenAi, &up.url(), &["k"]);
    let weir = Weir::start_with(&settings, &["--demo"], &[]);
    assert!(
        weir.ask(&chat("up/gpt-4o-mini", false))
            .text()
            .contains("real")
    );
    for (model, status) in [
        ("demo/429", 429),
        ("demo/gpt-5-429", 429),
        ("demo/503", 503),
    ] {
        let answer = weir.ask(&chat(model, false));
        assert_eq!(answer.status, status, "{model}: {}", answer.text());
        error_of(&answer);
    }
    let cut = weir.stream(&chat("demo/cut", true));
    assert!(cut.error.is_some() && !cut.done);
    let json = weir.ask(&chat("demo/json", false)).json();
    let said = json["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(serde_json::from_str::<Value>(said).is_ok(), "{said}");
    let mut body = chat("demo/tools", false);
    body["tools"] = json!([{"type": "function", "function": {"name": "look", "parameters": {}}}]);
    let called = weir.ask(&body).json();
    assert_eq!(called["choices"][0]["finish_reason"], "tool_calls");
    // Every other name is answered, too, and no real model has gone to the demo.
    assert_eq!(weir.ask(&chat("demo/anything", false)).status, 200);
    let completed = complete(&weir, &json!({"model": "demo/gpt-5", "prompt": "hi"}));
    assert_eq!(completed.json()["object"], "text_completion");
    assert_eq!(up.count(), 1);
    // Nor does it count where the only upstream of a format is meant.
    assert_eq!(weir.ask(&chat("openai/some", false)).status, 200);
    assert_eq!(get(weir.addr, "/v1/files").status, 200);
    assert_eq!(up.count(), 3);
}

#[test]
fn the_demo_alone_misbehaves_by_the_same_names() {
    for arguments in [&[][..], &["--demo"]] {
        let weir = Weir::start_bare(arguments, &[]);
        for (model, status) in [("demo/429", 429), ("demo/gpt-5-418", 418), ("demo/x", 200)] {
            let answer = weir.ask(&chat(model, false));
            assert_eq!(answer.status, status, "{model}: {}", answer.text());
        }
        let cut = weir.stream(&chat("demo/cut", true));
        assert!(cut.error.is_some() && !cut.done);
        let plain = weir.ask(&chat("openai/gpt-5", false));
        assert_eq!(plain.header("x-weir-upstream"), Some("demo-openai"));
        let list = get(weir.addr, "/v1/models").text();
        assert!(list.contains("gpt-5") && !list.contains("demo/"), "{list}");
    }
}
