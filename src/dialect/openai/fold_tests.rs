//! Whole completions.

use super::chunks_tests::{arguments, call, finish, stamp, start, text};
use super::{Fold, Stamp};
use crate::chat::{Delta, DeltaSink, FinishReason, ToolKind, Usage};

fn fold(stamp: Stamp, deltas: &[Delta<'_>]) -> String {
    let mut fold = Fold::new(stamp);
    for delta in deltas {
        fold.put(delta.clone());
    }
    String::from_utf8(fold.into_json()).unwrap()
}

/// The message of choice 0.
fn message(stamp: Stamp, deltas: &[Delta<'_>]) -> String {
    let completion: serde_json::Value = serde_json::from_str(&fold(stamp, deltas)).unwrap();
    completion["choices"][0]["message"].to_string()
}

#[test]
fn a_completion_has_everything_that_clients_require() {
    let usage = Usage {
        prompt: Some(29),
        completion: Some(819),
        reasoning: Some(804),
        ..Usage::default()
    };
    let json = fold(
        stamp(),
        &[
            start(),
            text(0, "Hel"),
            text(0, "lo"),
            Delta::Usage(usage),
            Delta::ServiceTier("flex"),
            finish(0, FinishReason::Stop),
        ],
    );
    assert_eq!(
        json,
        r#"{"id":"x","object":"chat.completion","created":1,"model":"m","service_tier":"flex","choices":[{"index":0,"message":{"role":"assistant","content":"Hello","refusal":null},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":29,"completion_tokens":819,"total_tokens":848,"completion_tokens_details":{"reasoning_tokens":804}}}"#
    );
}

/// Vector 22.
#[test]
fn a_blocked_prompt_has_null_content() {
    let refusal = Delta::Refusal {
        candidate: 0,
        text: "blocked",
    };
    let json = fold(stamp(), &[refusal, finish(0, FinishReason::ContentFilter)]);
    assert!(json.contains(
        r#""message":{"role":"assistant","content":null,"refusal":"blocked"},"logprobs":null,"finish_reason":"content_filter""#
    ), "{json}");
}

#[test]
fn calls_are_complete() {
    let deltas = [
        call(0, 0, "a", "f"),
        arguments(0, 0, "{\"x\":"),
        call(0, 1, "", "g"),
        arguments(0, 0, "1}"),
        Delta::ToolStart {
            candidate: 0,
            index: 2,
            id: "c",
            name: "shell",
            kind: ToolKind::Custom,
            google_signature: Some("s"),
        },
        arguments(0, 2, "ls"),
        arguments(0, 9, "lost"),
        finish(0, FinishReason::Stop),
    ];
    let made_up = super::write::call_id("", 1, 0, 1);
    assert_eq!(
        message(stamp(), &deltas),
        format!(
            r#"{{"role":"assistant","content":null,"refusal":null,"tool_calls":[{{"id":"a","type":"function","function":{{"name":"f","arguments":"{{\"x\":1}}"}}}},{{"id":"{made_up}","type":"function","function":{{"name":"g","arguments":"{{}}"}}}},{{"id":"c","type":"custom","custom":{{"name":"shell","input":"ls"}},"extra_content":{{"google":{{"thought_signature":"s"}}}}}}]}}"#
        )
    );
    assert!(fold(stamp(), &deltas).contains(r#""finish_reason":"tool_calls""#));
    let mut legacy = stamp();
    legacy.legacy_functions = true;
    assert_eq!(
        message(legacy.clone(), &deltas),
        r#"{"role":"assistant","content":null,"refusal":null,"function_call":{"name":"f","arguments":"{\"x\":1}"}}"#
    );
    assert!(fold(legacy, &deltas).contains(r#""finish_reason":"function_call""#));
}

#[test]
fn the_rare_members_stand_in_the_message() {
    let deltas = [
        Delta::Reasoning {
            candidate: 0,
            text: "hm",
        },
        Delta::Extra {
            candidate: 0,
            json: "{\"a\":\n1.0}",
        },
        Delta::Image {
            candidate: 0,
            mime: "image/png",
            base64: "QQ==",
            google_signature: None,
        },
        Delta::Citation {
            candidate: 0,
            url: "u",
            title: "t",
            start: 1,
            end: 2,
        },
        Delta::Audio {
            candidate: 0,
            id: "au",
            base64: "QUFB",
        },
        Delta::Audio {
            candidate: 0,
            id: "",
            base64: "QQ==",
        },
    ];
    assert_eq!(
        message(stamp(), &deltas),
        r#"{"role":"assistant","content":null,"refusal":null,"reasoning_content":"hm","annotations":[{"type":"url_citation","url_citation":{"start_index":1,"end_index":2,"title":"t","url":"u"}}],"images":[{"type":"image_url","image_url":{"url":"data:image/png;base64,QQ=="}}],"audio":{"id":"au","data":"QUFBQQ==","transcript":"","expires_at":0},"extra_content":{"a":1.0}}"#
    );
}

#[test]
fn logprobs_of_several_deltas_are_joined() {
    let logprobs = |json: &'static str| Delta::Logprobs { candidate: 0, json };
    let json = fold(
        stamp(),
        &[
            logprobs(r#"{"content":[{"token":"a"}],"refusal":null}"#),
            logprobs(r#"{"content":[{"token":"b"},{"token":"c"}]}"#),
            logprobs("{broken"),
            logprobs(r#"{"content":7}"#),
        ],
    );
    assert!(
        json.contains(
            r#""logprobs":{"content":[{"token":"a"},{"token":"b"},{"token":"c"}],"refusal":null},"#
        ),
        "{json}"
    );
}

#[test]
fn choices_stand_in_order_and_none_is_missing() {
    let json = fold(
        stamp(),
        &[
            text(2, "c"),
            text(0, "a"),
            text(u32::MAX, "lost"),
            finish(2, FinishReason::Length),
        ],
    );
    let completion: serde_json::Value = serde_json::from_str(&json).unwrap();
    let choices = completion["choices"].as_array().unwrap();
    let seen: Vec<_> = choices
        .iter()
        .map(|c| {
            (
                c["index"].as_u64(),
                c["message"]["content"].as_str(),
                c["finish_reason"].as_str(),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            (Some(0), Some("a"), Some("stop")),
            (Some(1), None, Some("stop")),
            (Some(2), Some("c"), Some("length"))
        ]
    );
    let empty: serde_json::Value = serde_json::from_str(&fold(stamp(), &[])).unwrap();
    assert_eq!(empty["choices"].as_array().unwrap().len(), 1);
}
