//! The first mile: each format whole and streamed, and the demo.

use serde_json::{Value, json};

use crate::client::{Answer, Client, chat};
use crate::completion::{Completion, Streamed};
use crate::upstream::{Format, USAGE, Upstream};
use crate::wait::LIMIT;
use crate::weir::{Weir, config};

/// The error object of an answer, after a look at its shape (H1).
pub fn error_of(answer: &Answer) -> Value {
    let kind = answer.header("content-type").unwrap_or_default();
    assert!(kind.starts_with("application/json"), "{answer:?}");
    let body = answer.json();
    let error = &body["error"];
    for field in ["message", "type", "param", "code"] {
        assert!(error.get(field).is_some(), "no {field} in {body}");
    }
    assert!(
        error["message"].is_string() && error["type"].is_string(),
        "{body}"
    );
    error.clone()
}

/// Prompt, completion and total tokens.
pub fn counts(usage: &Option<Value>) -> (u64, u64, u64) {
    let usage = usage.as_ref().expect("usage was told");
    let count = |name: &str| {
        usage[name]
            .as_u64()
            .unwrap_or_else(|| panic!("{name}: {usage}"))
    };
    let counts = (
        count("prompt_tokens"),
        count("completion_tokens"),
        count("total_tokens"),
    );
    assert_eq!(counts.0 + counts.1, counts.2, "{usage}");
    counts
}

/// An upstream that answers in its format, and a weir in front of it.
pub fn pair(format: Format) -> (Upstream, Weir, String) {
    let upstream = Upstream::start(move |request| format.answer(request, &["Hel", "lo, ", "weir"]));
    let weir = Weir::start(&config(format, &upstream.url(), &["upstream-key"]));
    (upstream, weir, format!("up/{}", format.model()))
}

/// A relay passes the upstream's answer on as it is, its own name of the model included.
fn told_model(format: Format, asked: &str) -> String {
    match format {
        Format::OpenAi => "gpt-4o-mini-2024-07-18".to_owned(),
        _ => asked.to_owned(),
    }
}

#[test]
fn a_whole_answer_in_each_format() {
    for format in Format::CHAT {
        let (upstream, weir, model) = pair(format);
        let answer = weir.ask(&chat(&model, false));
        assert_eq!(answer.status, 200, "{format:?}: {}", answer.text());
        let completion = Completion::whole(&answer.json());
        assert_eq!(completion.content, "Hello, weir");
        assert_eq!(completion.model, told_model(format, &model));
        assert_eq!(completion.finish.as_deref(), Some("stop"));
        assert_eq!(counts(&completion.usage), USAGE);

        assert_eq!(answer.header("x-weir-upstream"), Some("up"));
        assert_eq!(answer.header("x-weir-attempts"), Some("1"));
        assert!(
            answer
                .header("x-request-id")
                .is_some_and(|id| !id.is_empty())
        );
        assert!(
            answer.header("server-timing").is_some(),
            "{:?}",
            answer.headers
        );

        let got = &upstream.requests()[0];
        assert_eq!(got.method, "POST");
        // A translated answer is streamed by the upstream, and folded.
        let streamed = format != Format::OpenAi;
        assert_eq!(got.path, format.path(streamed));
        assert_eq!(got.key.as_deref(), Some("upstream-key"));
        if format != Format::Gemini {
            assert_eq!(got.json()["model"], format.model());
        }
        assert!(String::from_utf8_lossy(&got.body).contains("Hello?"));
        weir.idle(LIMIT);
    }
}

#[test]
fn a_stream_in_each_format() {
    for format in Format::CHAT {
        let (upstream, weir, model) = pair(format);
        let mut stream = weir.open_stream(&chat(&model, true));
        let head = &stream.head;
        let kind = head.header("content-type").unwrap_or_default();
        assert!(kind.starts_with("text/event-stream"), "{head:?}");
        assert_eq!(head.header("cache-control"), Some("no-cache"));
        assert_eq!(head.header("x-accel-buffering"), Some("no"));
        assert_eq!(head.header("x-weir-upstream"), Some("up"));
        assert_eq!(head.header("x-weir-attempts"), Some("1"));
        assert!(head.header("x-request-id").is_some());

        let streamed = Streamed::read(stream.rest(LIMIT));
        assert!(streamed.done && streamed.error.is_none(), "{streamed:?}");
        assert_eq!(streamed.completion.content, "Hello, weir");
        assert_eq!(streamed.completion.model, told_model(format, &model));
        assert_eq!(streamed.completion.finish.as_deref(), Some("stop"));
        let first = &streamed.chunks[0]["choices"][0]["delta"];
        assert_eq!(first["role"], "assistant", "{first}");
        // Not asked for, not told (S9).
        assert_eq!(streamed.completion.usage, None, "{format:?}");
        assert_eq!(upstream.requests()[0].path, format.path(true));
        weir.idle(LIMIT);
    }
}

#[test]
fn usage_comes_last_in_a_stream_that_asks_for_it() {
    for format in Format::CHAT {
        let (_upstream, weir, model) = pair(format);
        let mut body = chat(&model, true);
        body["stream_options"] = json!({"include_usage": true});
        let streamed = weir.stream(&body);
        assert!(streamed.done);
        let last = streamed.chunks.last().unwrap();
        assert_eq!(last["choices"], json!([]), "{format:?}");
        assert_eq!(counts(&Some(last["usage"].clone())), USAGE);
        let others = &streamed.chunks[..streamed.chunks.len() - 1];
        assert!(others.iter().all(|chunk| chunk["usage"].is_null()));
    }
}

#[test]
fn a_tool_call_in_each_format_whole_and_streamed() {
    let arguments = json!({"city": "Zürich", "days": [1, 2.5], "deep": {"x": null}});
    for format in Format::CHAT {
        let sent = arguments.clone();
        let upstream = Upstream::start(move |request| match request.wants_stream() {
            true => format.stream_call("call_abc", "get_weather", &sent),
            false => format.whole_call("call_abc", "get_weather", &sent),
        });
        let weir = Weir::start(&config(format, &upstream.url(), &["k"]));
        let model = format!("up/{}", format.model());
        let mut body = chat(&model, false);
        body["tools"] = json!([{"type": "function", "function": {"name": "get_weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}]);
        let whole = Completion::whole(&weir.ask(&body).json());
        body["stream"] = json!(true);
        let streamed = weir.stream(&body);
        assert!(streamed.done);
        for completion in [&whole, &streamed.completion] {
            assert_eq!(completion.calls.len(), 1, "{format:?}: {completion:?}");
            let call = &completion.calls[0];
            assert_eq!(
                (call.id.as_str(), call.name.as_str()),
                ("call_abc", "get_weather")
            );
            let told: Value = serde_json::from_str(&call.arguments).unwrap();
            assert_eq!(told, arguments);
            assert_eq!(completion.finish.as_deref(), Some("tool_calls"));
        }
    }
}

#[test]
fn one_connection_serves_request_after_request() {
    let (upstream, weir, model) = pair(Format::OpenAi);
    let mut client = Client::connect(weir.addr);
    for _ in 0..3 {
        client.post(&chat(&model, false));
        assert_eq!(client.answer(LIMIT).status, 200);
        // An answer can be here a moment before its slot is given back.
        weir.idle(LIMIT);
        client.post(&chat(&model, true));
        let mut stream = client.stream(LIMIT);
        assert!(Streamed::read(stream.rest(LIMIT)).done);
        client = stream.client;
        weir.idle(LIMIT);
    }
    assert_eq!(upstream.count(), 6);
    // One after the other needs no second connection.
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn headers_of_the_upstream_stay_with_it() {
    let reply = Format::OpenAi
        .whole("hi")
        .header("Set-Cookie", "session=secret")
        .header("Connection", "keep-alive")
        .header("Keep-Alive", "timeout=5")
        .header("X-Request-Id", "theirs");
    let upstream = Upstream::always(reply);
    let weir = Weir::start(&config(Format::OpenAi, &upstream.url(), &["k"]));
    let answer = weir.ask(&chat("up/gpt-4o-mini", false));
    assert_eq!(answer.status, 200);
    for name in ["set-cookie", "keep-alive", "content-encoding"] {
        assert_eq!(answer.header(name), None, "{:?}", answer.headers);
    }
    assert_ne!(answer.header("x-request-id"), Some("theirs"));
    assert_eq!(answer.header("x-upstream-request-id"), Some("theirs"));
}

#[test]
fn without_config_and_keys_the_demo_answers() {
    let weir = Weir::start_bare(&[], &[]);
    for model in ["gpt-5", "gemini-2.5-flash", "claude-opus-4-1-20250805"] {
        let whole = weir.ask(&chat(model, false));
        assert_eq!(whole.status, 200, "{model}: {}", whole.text());
        let whole = Completion::whole(&whole.json());
        let words = "This is weir's built-in demo, no model was asked. You said: Hello?";
        assert_eq!(whole.content, words);
        let streamed = weir.stream(&chat(model, true));
        assert!(streamed.done);
        assert_eq!(streamed.completion.content, words);
        counts(&whole.usage);
    }
    weir.wait_log("demo", LIMIT);
    assert_eq!(weir.more_output(), Vec::<String>::new());
}
