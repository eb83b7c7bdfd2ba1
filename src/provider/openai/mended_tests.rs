//! Whole answers of compatible servers, and streams put together to whole answers.

use serde_json::{Value, json};

use super::WholeRelay;
use crate::chat::Usage;
use crate::dialect::openai::Stamp;
use crate::failure::{Class, Failure};
use crate::golden::each_event;
use crate::provider::Flow;

fn relay(official: bool, cap: usize) -> WholeRelay {
    let stamp = Stamp {
        seed: 1,
        created: 9,
        model: "asked".into(),
        include_usage: false,
        legacy_functions: false,
    };
    WholeRelay::new(stamp, official, cap)
}

fn mended(body: &Value) -> Result<Value, Failure> {
    let mut relay = relay(false, 1 << 20);
    relay.on_body(body.to_string().as_bytes())?;
    Ok(match relay.take_body() {
        Some(body) => serde_json::from_slice(&body).unwrap(),
        None => body.clone(),
    })
}

fn gathered(stream: &str) -> Result<(Value, Usage), Failure> {
    let mut relay = relay(false, 1 << 20);
    let flow = each_event(stream.as_bytes(), 7, |event| relay.on_event(event))?;
    if flow == Flow::More {
        relay.on_end()?;
    }
    let body = relay.take_body().unwrap();
    Ok((serde_json::from_slice(&body).unwrap(), relay.usage()))
}

fn answer(choice: Value) -> Value {
    json!({"id": "x", "object": "chat.completion", "created": 7, "model": "n",
        "choices": [choice]})
}

#[test]
fn nulls_and_gaps_of_a_whole_answer_are_filled() {
    let told = mended(&json!({"id": null, "created": "7", "choices": [
        {"message": {"content": "a", "tool_calls": null, "odd": 1}, "finish_reason": null},
        {"message": null},
    ], "usage": null, "more": [1]}))
    .unwrap();
    assert!(told["id"].as_str().unwrap().starts_with("chatcmpl-"));
    assert_eq!(
        (&told["object"], &told["created"], &told["model"]),
        (&json!("chat.completion"), &json!(9), &json!("asked"))
    );
    assert_eq!(told["more"], json!([1]));
    assert!(told.get("usage").is_none());
    assert_eq!(
        told["choices"],
        json!([
            {"message": {"content": "a", "odd": 1, "role": "assistant"},
                "finish_reason": "stop", "index": 0},
            {"message": {"role": "assistant", "content": null},
                "index": 1, "finish_reason": "stop"},
        ])
    );
    // Choices in another order keep their numbers; those that share one get others.
    let choice = |index: u64| {
        json!({"index": index, "message": {"role": "assistant", "content": "a"},
            "finish_reason": "stop"})
    };
    for (sent, expected) in [([1, 0], [1, 0]), ([0, 0], [0, 1])] {
        let mut body = answer(choice(sent[0]));
        body["choices"] = json!([choice(sent[0]), choice(sent[1])]);
        let told = mended(&body).unwrap();
        let indexes = [0, 1].map(|at| told["choices"][at]["index"].as_u64().unwrap());
        assert_eq!(indexes, expected);
    }
}

#[test]
fn calls_of_a_whole_answer_have_ids_types_and_arguments() {
    let calls = json!([
        {"function": {"name": "f", "arguments": {"a": 1}}},
        {"id": "c", "type": "function", "function": {"name": "g"}},
        {"id": "c", "type": "function", "function": {"name": "h", "arguments": null}},
        {"id": "d", "type": "custom", "custom": {"name": "i", "input": ""}},
    ]);
    let message = json!({"role": "assistant", "content": null, "tool_calls": calls});
    let told = mended(&answer(
        json!({"index": 0, "message": message, "finish_reason": "stop"}),
    ))
    .unwrap();
    let choice = &told["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls");
    let calls = choice["message"]["tool_calls"].as_array().unwrap();
    let ids: std::collections::HashSet<&str> = calls
        .iter()
        .map(|call| call["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), 4);
    assert_eq!(
        (&calls[1]["id"], &calls[3]["id"]),
        (&json!("c"), &json!("d"))
    );
    assert_eq!(calls[0]["type"], "function");
    assert_eq!(calls[0]["function"]["arguments"], "{\"a\":1}");
    assert_eq!(calls[1]["function"]["arguments"], "{}");
    assert_eq!(calls[2]["function"]["arguments"], "{}");
    assert_eq!(calls[3]["custom"]["input"], "");
}

#[test]
fn a_choice_that_failed_is_a_failure_of_the_class_that_its_error_names() {
    let choice = |finish: &str, error: Value| {
        json!({"index": 0, "message": {"role": "assistant", "content": "half"},
            "finish_reason": finish, "error": error})
    };
    for (finish, error, class, status) in [
        (
            "error",
            json!({"code": 429, "message": "slow"}),
            Class::RateLimit,
            429,
        ),
        (
            "stop",
            json!({"code": 503, "message": "busy"}),
            Class::Server,
            503,
        ),
        (
            "stop",
            json!({"code": "400", "message": "bad"}),
            Class::RequestFault,
            400,
        ),
        ("stop", json!("it broke"), Class::Server, 502),
        ("error", Value::Null, Class::Server, 502),
        (
            "insufficient_system_resource",
            json!({}),
            Class::Server,
            502,
        ),
        ("NETWORK_ERROR", json!(""), Class::Server, 502),
        ("MALFORMED_FUNCTION_CALL", Value::Null, Class::Server, 502),
        ("abort", Value::Null, Class::Server, 502),
        ("cancelled", Value::Null, Class::Server, 502),
    ] {
        let failure = mended(&answer(choice(finish, error.clone()))).unwrap_err();
        assert_eq!(
            (failure.class, failure.status),
            (class, status),
            "{finish} {error}"
        );
        let mut chunk = answer(choice(finish, error.clone()));
        chunk["object"] = json!("chat.completion.chunk");
        let message = chunk["choices"][0]["message"].take();
        chunk["choices"][0]["delta"] = message;
        for official in [true, false] {
            let mut relay = relay(official, 1 << 20);
            let stream = format!("data: {chunk}\n\ndata: [DONE]\n\n");
            let streamed = each_event(stream.as_bytes(), 7, |event| relay.on_event(event));
            assert_eq!(streamed.unwrap_err(), failure, "{finish} {error}");
        }
    }
    for (word, expected) in [
        ("stop", "stop"),
        ("eos", "stop"),
        ("end_turn", "stop"),
        ("max_tokens", "length"),
        ("model_length", "length"),
        ("model_context_window_exceeded", "length"),
        ("sensitive", "content_filter"),
        ("SAFETY", "content_filter"),
        ("content_filter", "content_filter"),
    ] {
        // Errors that say nothing are none.
        for nothing in [Value::Null, json!({}), json!(""), json!([]), json!(false)] {
            let told = mended(&answer(choice(word, nothing))).unwrap();
            assert_eq!(told["choices"][0]["finish_reason"], expected);
        }
    }
}

#[test]
fn a_failure_without_the_member_error_is_one_by_its_number() {
    for (body, class) in [
        (json!({"code": 429, "msg": "slow"}), Class::RateLimit),
        (json!({"status": "503", "message": "busy"}), Class::Server),
    ] {
        assert_eq!(mended(&body).unwrap_err().class, class);
        assert_eq!(
            gathered(&format!("data: {body}\n\n")).unwrap_err().class,
            class
        );
    }
    // A word of the state is none.
    let failure = gathered("data: {\"status\":200,\"message\":\"ok\"}\n\n").unwrap_err();
    assert_eq!(failure, Failure::empty());
}

#[test]
fn a_stream_is_put_together_with_all_that_it_says() {
    let events = [
        json!({"id": "x", "object": "chat.completion.chunk", "created": 7, "model": "n", "citations": ["u"],
            "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""},
                "logprobs": {"content": [{"token": "a"}]}, "finish_reason": null}]}),
        json!({"id": "x", "object": "chat.completion.chunk", "created": 7, "model": "n",
            "choices": [{"index": 0, "delta": {"content": "a", "reasoning_details": [{"type": "t", "text": "r", "format": "f", "index": 0}]},
                "logprobs": {"content": [{"token": "b"}]}, "finish_reason": null}]}),
        json!({"id": "y", "created": 8,
            "choices": [{"index": 0, "delta": {"content": "a", "images": [{"x": 1}], "reasoning_details": [{"type": "t", "text": "r", "format": "f", "index": 0}]}}]}),
        json!({"choices": [{"index": 1, "delta": {"content": [{"type": "thinking", "thinking": "t"}]}}]}),
        json!({"choices": [{"index": 1, "delta": {"content": "b"}, "finish_reason": "stop"}]}),
        json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}], "service_tier": "default"}),
        json!({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "cost": 0.5}}),
    ];
    let stream: String = events
        .iter()
        .map(|event| format!("data: {event}\n\n"))
        .collect();
    let (told, usage) = gathered(&format!("{stream}data: [DONE]\n\n")).unwrap();
    assert_eq!(
        told,
        json!({"id": "x", "object": "chat.completion", "created": 7, "model": "n", "citations": ["u"],
            "service_tier": "default",
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": "aa",
                    "reasoning_details": [{"type": "t", "text": "rr", "format": "f", "index": 0}],
                    "images": [{"x": 1}]},
                    "logprobs": {"content": [{"token": "a"}, {"token": "b"}]}, "finish_reason": "length"},
                {"index": 1, "message": {"role": "assistant", "content": [
                    {"type": "thinking", "thinking": "t"}, {"type": "text", "text": "b"}]},
                    "finish_reason": "stop"},
            ],
            "usage": {"prompt_tokens": 3, "completion_tokens": 2, "cost": 0.5}})
    );
    assert_eq!((usage.prompt, usage.completion), (Some(3), Some(2)));
    // One that breaks off is no answer, and none is longer than it may be.
    let cut: String = events[..4]
        .iter()
        .map(|event| format!("data: {event}\n\n"))
        .collect();
    assert_eq!(gathered(&cut).unwrap_err(), Failure::disconnected());
    assert_eq!(gathered(": ping\n\n").unwrap_err(), Failure::empty());
    let mut short = relay(false, 300);
    let ended = each_event(stream.as_bytes(), 7, |event| short.on_event(event));
    assert_eq!(ended.unwrap_err(), Failure::too_long());
}

#[test]
fn an_answer_that_fits_is_passed_on_as_it_is() {
    let body = br#"{"id":"x", "object":"chat.completion","created":0,"model":"n","choices":[{"index":0,"message":{"role":"assistant","content":null,"tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{}"}}]},"finish_reason":"tool_calls","x":1.50}],"usage":{}}"#;
    let mut relay = relay(false, 1 << 20);
    relay.on_body(body).unwrap();
    assert_eq!(relay.take_body(), None);
    // The vendor's own are its own affair.
    let mut official = self::relay(true, 1 << 20);
    official
        .on_body(br#"{"choices":[{"finish_reason":"stop"}]}"#)
        .unwrap();
    assert_eq!(official.take_body(), None);
    // JSON under the label of events is the answer as well.
    let text = format!("{}\n", std::str::from_utf8(body).unwrap());
    let mut labelled = self::relay(false, 1 << 20);
    let flow = each_event(text.as_bytes(), 7, |event| labelled.on_event(event));
    assert_eq!(flow.unwrap(), Flow::Done);
    assert_eq!(labelled.take_body().unwrap(), body);
}

#[test]
fn what_stands_in_another_place_is_found() {
    let call = json!({"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}});
    let text = json!({"role": "assistant", "content": "Hi"});
    let word = "tool_calls";
    for (choice, content, calls) in [
        (
            json!({"delta": text, "finish_reason": "stop"}),
            json!("Hi"),
            0,
        ),
        (
            json!({"text": "Hi", "finish_reason": "stop"}),
            json!("Hi"),
            0,
        ),
        (
            json!({"message": {"content": null, "tool_calls": call}, "finish_reason": word}),
            json!(null),
            1,
        ),
        (
            json!({"message": {"content": null}, "tool_calls": [call], "finish_reason": word}),
            json!(null),
            1,
        ),
    ] {
        let whole = mended(&answer(choice.clone())).unwrap();
        let message = &whole["choices"][0]["message"];
        assert_eq!(message["content"], content, "{choice}");
        let told = message["tool_calls"].as_array().map_or(0, Vec::len);
        assert_eq!(told, calls, "{choice}");
        if calls > 0 {
            assert_eq!(message["tool_calls"][0], call);
        }
    }
}

#[test]
fn an_answer_that_ends_with_a_call_and_has_none_is_no_answer() {
    for word in ["tool_calls", "function_call"] {
        let body = |content: Value| {
            let message = json!({"role": "assistant", "content": content});
            answer(json!({"index": 0, "message": message, "finish_reason": word}))
        };
        let failure = mended(&body(Value::Null)).unwrap_err();
        assert_eq!(failure.code.as_deref(), Some("malformed_response"));
        assert!(mended(&body("Hi".into())).is_ok());
    }
}
