//! Requests on their way to an upstream that speaks the caller's format.

use super::encode;
use crate::dialect::openai::Head;
use crate::provider::{Encoded, Options};

fn sent(body: &str, model: &str, options: &Options) -> Encoded {
    let head = Head::read(body.as_bytes()).unwrap();
    let encoded = encode(&head, model, options).unwrap();
    serde_json::from_slice::<serde_json::Value>(&encoded.body).unwrap();
    encoded
}

#[track_caller]
fn check(body: &str, model: &str, options: &Options, expected: &str, dropped: &[&str]) {
    let encoded = sent(body, model, options);
    assert_eq!(String::from_utf8_lossy(&encoded.body), expected);
    assert_eq!(encoded.dropped, dropped);
    assert_eq!(encoded.path, "/chat/completions");
}

fn server() -> Options {
    Options {
        official: false,
        ..Options::default()
    }
}

#[test]
fn only_the_model_is_replaced() {
    let body = "{ \"messages\" : [ {\"role\":\"user\", \"content\":\"\\u00e9 \\\"cache_control\\\"\"} ],\n\t\"model\":\"alias\",\"temperature\":1.50, \"new_field\":{\"b\":1e2,\"a\":[ ]} }\n";
    let expected = body.replace("\"alias\"", "\"gpt-4o\"");
    for options in [Options::default(), server()] {
        check(body, "gpt-4o", &options, &expected, &[]);
    }
    // A doubled key must not smuggle another model past the routing.
    check(
        r#"{"model":"x","messages":[1],"model":"y"}"#,
        "a\"b",
        &server(),
        r#"{"messages":[1],"model":"a\"b"}"#,
        &[],
    );
}

#[test]
fn extensions_stay_out_of_the_vendors_requests_only() {
    let body = r#"{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"x","cache_control":{"type":"ephemeral"}}]},{"role":"user", "content":"as  it is"},{"role":"assistant","content":null,"reasoning_content":"r","thinking_blocks":[],"images":[],"extra_content":{},"tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{}"},"extra_content":{"google":{}}}]}],"tools":[{"type":"function","function":{"name":"f"},"cache_control":{}}],"extra_body":{"google":{}},"top_k":null,"seed":1}"#;
    check(
        body,
        "gpt-4o",
        &Options::default(),
        r#"{"model":"gpt-4o","messages":[{"role":"user","content":[{"type":"text","text":"x"}]},{"role":"user", "content":"as  it is"},{"role":"assistant","content":null,"tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{}"}}]}],"tools":[{"type":"function","function":{"name":"f"}}],"seed":1}"#,
        &[],
    );
    check(body, "m", &server(), body, &[]);
}

#[test]
fn thoughts_of_another_vendor_stay_out_of_the_vendors_requests_only() {
    let body = r#"{"model":"m","messages":[{"role":"assistant","content":[{"type":"thinking","thinking":[{"type":"text","text":"hm"}]},{"type":"text","text":"a"},{"type":"text", "text":"\"thinking\""}]},{"role":"assistant","content":[{"type":"thinking","thinking":"hm"}]},{"role":"user","content":[{"type":"text","text":"b"}]}]}"#;
    check(
        body,
        "gpt-4o",
        &Options::default(),
        r#"{"model":"gpt-4o","messages":[{"role":"assistant","content":[{"type":"text","text":"a"},{"type":"text", "text":"\"thinking\""}]},{"role":"assistant","content":""},{"role":"user","content":[{"type":"text","text":"b"}]}]}"#,
        &[],
    );
    check(body, "m", &server(), body, &[]);
}

#[test]
fn extensions_that_would_change_the_answer_are_told() {
    let body = r#"{"model":"m","messages":[1],"top_k":5,"thinking":{"type":"enabled"}}"#;
    check(
        body,
        "gpt-4o",
        &Options::default(),
        r#"{"model":"gpt-4o","messages":[1]}"#,
        &["top_k", "thinking"],
    );
}

#[test]
fn reasoning_models_get_the_limit_by_its_new_name_and_no_sampling() {
    let body = r#"{"model":"m","messages":[1],"max_tokens":5,"temperature":0.2,"top_p":1.0,"presence_penalty":0,"frequency_penalty":1,"logprobs":true,"top_logprobs":2,"logit_bias":{"1":2},"stop":"x"}"#;
    check(
        body,
        "o3-mini",
        &Options::default(),
        r#"{"model":"o3-mini","messages":[1],"max_completion_tokens":5,"top_p":1.0,"presence_penalty":0}"#,
        &[
            "stop",
            "temperature",
            "frequency_penalty",
            "top_logprobs",
            "logprobs",
            "logit_bias",
        ],
    );
    for (model, options) in [("gpt-4.1", Options::default()), ("o3-mini", server())] {
        let expected = body.replace("\"m\"", &format!("\"{model}\""));
        check(body, model, &options, &expected, &[]);
    }
    check(
        r#"{"model":"m","messages":[1],"max_tokens":5,"max_completion_tokens":6,"logit_bias":{ }}"#,
        "gpt-5",
        &Options::default(),
        r#"{"model":"gpt-5","messages":[1],"max_completion_tokens":6,"logit_bias":{ }}"#,
        &[],
    );
    let none = r#"{"model":"m","messages":[1],"reasoning_effort":"none","temperature":0.2}"#;
    assert!(
        sent(none, "gpt-5.1", &Options::default())
            .dropped
            .is_empty()
    );
    assert!(sent(none, "gpt-6", &Options::default()).dropped.is_empty());
    assert_eq!(
        sent(none, "gpt-5-mini", &Options::default()).dropped,
        ["temperature"]
    );
}

#[test]
fn models_that_refuse_to_stop_at_words_are_not_told_to() {
    let body = r#"{"model":"m","messages":[1],"stop":["x"]}"#;
    let without = |model: &str| format!(r#"{{"model":"{model}","messages":[1]}}"#);
    for model in [
        "gpt-5",
        "gpt-5-mini",
        "gpt-5.1",
        "gpt-5.2",
        "gpt-5.4",
        "o3",
        "o4-mini",
    ] {
        check(body, model, &Options::default(), &without(model), &["stop"]);
        for nothing in ["[]", "[ ]", "\"\"", "null"] {
            let body = body.replace(r#"["x"]"#, nothing);
            let encoded = sent(&body, model, &Options::default());
            assert!(encoded.dropped.is_empty(), "{model} {nothing}");
        }
    }
    for model in ["gpt-4o", "gpt-5-chat-latest", "gpt-5.5", "gpt-6-sol", "o1"] {
        let expected = body.replace("\"m\"", &format!("\"{model}\""));
        check(body, model, &Options::default(), &expected, &[]);
    }
    let expected = body.replace("\"m\"", "\"gpt-5\"");
    check(body, "gpt-5", &server(), &expected, &[]);
}

#[test]
fn models_that_do_not_reason_unasked_sample_unasked() {
    let body = r#"{"model":"m","messages":[1],"temperature":0.3,"top_p":0.5,"logprobs":true}"#;
    for model in [
        "gpt-5.1",
        "gpt-5.2",
        "gpt-5.4",
        "gpt-5.4-mini",
        "gpt-5.4-nano",
    ] {
        let expected = body.replace("\"m\"", &format!("\"{model}\""));
        check(body, model, &Options::default(), &expected, &[]);
        let low = body.replace("\"top_p\"", "\"reasoning_effort\":\"low\",\"top_p\"");
        let encoded = sent(&low, model, &Options::default());
        assert_eq!(encoded.dropped, ["temperature", "top_p", "logprobs"]);
    }
    for model in [
        "gpt-5.5",
        "gpt-6-sol",
        "gpt-5",
        "gpt-5.2-chat-latest",
        "chat-latest",
    ] {
        let encoded = sent(body, model, &Options::default());
        assert_eq!(
            encoded.dropped,
            ["temperature", "top_p", "logprobs"],
            "{model}"
        );
    }
    let limit = r#"{"model":"m","messages":[1],"max_tokens":5}"#;
    let expected = r#"{"model":"chat-latest","messages":[1],"max_completion_tokens":5}"#;
    check(limit, "chat-latest", &Options::default(), expected, &[]);
}

#[test]
fn strict_refuses_what_would_be_dropped() {
    let strict = Options {
        strict: true,
        ..Options::default()
    };
    for (body, param) in [
        (
            r#"{"model":"m","messages":[1],"temperature":0.2}"#,
            "temperature",
        ),
        (r#"{"model":"m","messages":[1],"top_k":1}"#, "top_k"),
        (r#"{"model":"m","messages":[1],"stop":"x"}"#, "stop"),
    ] {
        let head = Head::read(body.as_bytes()).unwrap();
        let error = encode(&head, "o3", &strict).unwrap_err();
        assert_eq!(error.status, 400);
        assert_eq!(error.param.as_deref(), Some(param));
        assert_eq!(error.code.as_deref(), Some("unsupported_parameter"));
    }
}

#[test]
fn usage_is_asked_for_where_the_vendor_answers() {
    check(
        r#"{"model":"m","messages":[1],"stream":true} "#,
        "gpt-4o",
        &Options::default(),
        r#"{"model":"gpt-4o","messages":[1],"stream":true,"stream_options":{"include_usage":true}} "#,
        &[],
    );
    check(
        r#"{"model":"m","stream":true,"stream_options":{"include_usage":false,"include_obfuscation":false},"messages":[1]}"#,
        "gpt-4o",
        &Options::default(),
        r#"{"model":"gpt-4o","stream":true,"stream_options":{"include_usage":true,"include_obfuscation":false},"messages":[1]}"#,
        &[],
    );
    let plain = r#"{"model":"m","messages":[1],"stream":true}"#;
    check(plain, "m", &server(), plain, &[]);
    let whole = r#"{"model":"m","messages":[1]}"#;
    check(whole, "m", &Options::default(), whole, &[]);
}

#[test]
fn extra_body_is_merged_last() {
    let body = r#"{"model":"m","messages":[1],"metadata":{"a":1,"b":{"c":2}},"extra_body":{"google":{"x":1.0},"openai":{"metadata":{"b":{"d":3.0},"a":[1]},"prompt_cache_key":"k","model":"evil","stream":true}}}"#;
    check(
        body,
        "gpt-4o",
        &Options::default(),
        r#"{"model":"gpt-4o","messages":[1],"metadata":{"a":[1],"b":{"c":2,"d":3.0}},"prompt_cache_key":"k"}"#,
        &[],
    );
    check(
        body,
        "m",
        &server(),
        r#"{"model":"m","messages":[1],"metadata":{"a":[1],"b":{"c":2,"d":3.0}},"extra_body":{"google":{"x":1.0}},"prompt_cache_key":"k"}"#,
        &[],
    );
    let deep = format!("{}1{}", "{\"a\":".repeat(50_000), "}".repeat(50_000));
    let body = format!(
        r#"{{"model":"m","messages":[1],"metadata":{deep},"extra_body":{{"openai":{{"metadata":{deep}}}}}}}"#
    );
    let head = Head::read(body.as_bytes()).unwrap();
    assert!(encode(&head, "m", &server()).is_ok());
}

#[test]
fn servers_can_be_spared_fields_and_roles() {
    let options = Options {
        developer_as_system: true,
        strip: vec!["store".into(), "metadata".into()],
        ..server()
    };
    check(
        r#"{"model":"m","messages":[{"role":"developer", "content":"x"},{"content":"developer","role":"user"}],"store":true}"#,
        "m",
        &options,
        r#"{"model":"m","messages":[{"role":"system","content":"x"},{"content":"developer","role":"user"}]}"#,
        &[],
    );
}

#[test]
fn a_server_that_knows_one_name_for_the_limit_gets_that_one() {
    let named = |field: &str| Options {
        max_tokens_field: Some(field.into()),
        ..server()
    };
    for (field, other) in [
        ("max_tokens", "max_completion_tokens"),
        ("max_completion_tokens", "max_tokens"),
    ] {
        for (sent, expected) in [
            (
                format!(r#""{other}":5,"seed":1"#),
                format!(r#""{field}":5,"seed":1"#),
            ),
            (
                format!(r#""{field}":5,"seed":1"#),
                format!(r#""{field}":5,"seed":1"#),
            ),
            (
                format!(r#""{field}":5,"{other}":6"#),
                format!(r#""{field}":5"#),
            ),
            (
                format!(r#""{field}":null,"{other}":6"#),
                format!(r#""{field}":6"#),
            ),
            (
                format!(r#""{other}":null,"seed":1"#),
                format!(r#""{other}":null,"seed":1"#),
            ),
        ] {
            check(
                &format!(r#"{{"model":"m","messages":[1],{sent}}}"#),
                "m",
                &named(field),
                &format!(r#"{{"model":"m","messages":[1],{expected}}}"#),
                &[],
            );
        }
    }
}

#[test]
fn a_server_is_asked_for_its_usage_where_the_config_says_so() {
    let asks = Options {
        ask_usage: true,
        ..server()
    };
    let asked = r#"{"model":"m","messages":[1],"stream":true,"stream_options":{"x":1,"include_usage":true}}"#;
    for (body, expected) in [
        (
            r#"{"model":"m","messages":[1],"stream":true,"stream_options":{"x":1}}"#,
            asked,
        ),
        (
            r#"{"model":"m","messages":[1],"stream":true,"stream_options":{"x":1,"include_usage":false}}"#,
            asked,
        ),
        (
            r#"{"model":"m","messages":[1]}"#,
            r#"{"model":"m","messages":[1]}"#,
        ),
    ] {
        check(body, "m", &asks, expected, &[]);
        check(body, "m", &server(), body, &[]);
    }
}
