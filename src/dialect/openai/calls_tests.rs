//! Tool calls in chunks.

use super::chunks_tests::{arguments, call, deltas, finish, stamp, start, write};
use crate::chat::{Delta, FinishReason, ToolKind};

/// Vector 12: the decoder counts calls; vector 13: empty arguments become an object.
#[test]
fn calls_have_head_pieces_and_valid_arguments() {
    let stream = write(
        stamp(),
        &[
            start(),
            call(0, 0, "toolu_9", "f"),
            arguments(0, 0, "{\"a\":"),
            arguments(0, 0, "1}"),
            call(0, 1, "bad id!", "g"),
            arguments(0, 1, ""),
            finish(0, FinishReason::Stop),
        ],
    );
    let deltas = deltas(&stream);
    assert_eq!(
        deltas[0],
        r#"{"tool_calls":[{"index":0,"id":"toolu_9","type":"function","function":{"name":"f","arguments":""}}]}"#
    );
    assert_eq!(
        deltas[1],
        r#"{"tool_calls":[{"index":0,"function":{"arguments":"{\"a\":"}}]}"#
    );
    assert_eq!(
        deltas[2],
        r#"{"tool_calls":[{"index":0,"function":{"arguments":"1}"}}]}"#
    );
    let second: serde_json::Value = serde_json::from_str(&deltas[3]).unwrap();
    let id = second["tool_calls"][0]["id"].as_str().unwrap();
    let random = id.strip_prefix("call_").unwrap();
    assert!(random.len() == 24 && random.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    assert_eq!(
        deltas[4],
        r#"{"tool_calls":[{"index":1,"function":{"arguments":"{}"}}]}"#
    );
    assert_eq!(deltas.len(), 5);
    assert!(stream.contains(r#""delta":{},"finish_reason":"tool_calls""#));
}

#[test]
fn made_up_ids_follow_from_seed_choice_and_call() {
    let id = |seed: u64, candidate: u32, n: usize| {
        super::write::call_id("", seed, candidate, n).into_owned()
    };
    assert_eq!(id(1, 0, 0), id(1, 0, 0));
    let all = [id(1, 0, 0), id(2, 0, 0), id(1, 1, 0), id(1, 0, 1)];
    for (i, a) in all.iter().enumerate() {
        assert!(all[i + 1..].iter().all(|b| a != b));
    }
    for good in ["a", "call_1-Z", &"x".repeat(64)] {
        assert_eq!(super::write::call_id(good, 1, 0, 0), good);
    }
    for bad in ["", "a b", "é", "a.b", &"x".repeat(65)] {
        assert!(super::write::call_id(bad, 1, 0, 0).starts_with("call_"));
    }
    assert!(write(stamp(), &[]).contains("\"id\":\"chatcmpl-"));
}

#[test]
fn custom_calls_signatures_and_interleaving() {
    let stream = write(
        stamp(),
        &[
            Delta::ToolStart {
                candidate: 0,
                index: 0,
                id: "c",
                name: "shell",
                kind: ToolKind::Custom,
                google_signature: None,
            },
            Delta::ToolStart {
                candidate: 0,
                index: 1,
                id: "f",
                name: "f",
                kind: ToolKind::Function,
                google_signature: Some("sig"),
            },
            arguments(0, 0, "ls"),
            arguments(0, 1, "{}"),
        ],
    );
    assert_eq!(
        deltas(&stream),
        [
            r#"{"tool_calls":[{"index":0,"id":"c","type":"custom","custom":{"name":"shell","input":""}}]}"#,
            r#"{"tool_calls":[{"index":1,"id":"f","type":"function","function":{"name":"f","arguments":""},"extra_content":{"google":{"thought_signature":"sig"}}}]}"#,
            r#"{"tool_calls":[{"index":0,"custom":{"input":"ls"}}]}"#,
            r#"{"tool_calls":[{"index":1,"function":{"arguments":"{}"}}]}"#,
        ]
    );
}

#[test]
fn the_older_form_has_room_for_one_call() {
    let mut legacy = stamp();
    legacy.legacy_functions = true;
    let stream = write(
        legacy,
        &[
            call(0, 0, "c", "f"),
            arguments(0, 0, "{}"),
            call(0, 1, "d", "g"),
            arguments(0, 1, "{}"),
            finish(0, FinishReason::ToolCalls),
        ],
    );
    assert_eq!(
        deltas(&stream),
        [
            r#"{"function_call":{"name":"f","arguments":""}}"#,
            r#"{"function_call":{"arguments":"{}"}}"#,
        ]
    );
    assert!(stream.contains(r#""finish_reason":"function_call""#));
}

#[test]
fn no_two_calls_have_one_id() {
    let mut ids = super::write::CallIds::default();
    assert_eq!(ids.next("a", 1, 0, 0), "a");
    let second = ids.next("a", 1, 0, 1).into_owned();
    assert_eq!(second, super::write::call_id("", 1, 0, 1));
    assert_eq!(ids.next("b", 1, 0, 2), "b");
    assert_ne!(ids.next("a", 1, 0, 3), second);
}
