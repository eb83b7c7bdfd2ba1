use std::sync::Arc;

use serde_json::{Value, json};

use super::{Events, Message};
use crate::chat::{Delta, DeltaSink, FinishReason, ToolKind, Usage};
use crate::dialect::openai::Stamp;
use crate::dialect::{Streamed, Whole};
use crate::seal::{Holds, Seals};

fn stamp() -> Stamp {
    Stamp {
        seed: 1,
        created: 1,
        model: "claude-x".into(),
        include_usage: false,
        legacy_functions: false,
    }
}

fn seals() -> Arc<Seals> {
    Arc::new(Seals::new(Some("k"), std::iter::empty()))
}

fn deltas(out: &mut dyn DeltaSink, reason: FinishReason) {
    out.put(Delta::Start {
        id: "up_1",
        model: "gpt",
    });
    out.put(Delta::Usage(Usage {
        prompt: Some(100),
        cached: Some(30),
        cache_write: Some(20),
        ..Usage::default()
    }));
    let candidate = 0;
    out.put(Delta::Reasoning {
        candidate,
        text: "Hm.",
    });
    out.put(Delta::Text {
        candidate,
        text: "Look\n\u{2028}",
    });
    out.put(Delta::ToolStart {
        candidate,
        index: 0,
        id: "call 1",
        name: "f",
        kind: ToolKind::Function,
        google_signature: Some("sig"),
    });
    out.put(Delta::ToolArgs {
        candidate,
        index: 0,
        fragment: "{\"a\": ",
    });
    out.put(Delta::ToolArgs {
        candidate,
        index: 0,
        fragment: "1}",
    });
    out.put(Delta::Text {
        candidate: 1,
        text: "another's",
    });
    out.put(Delta::Extra {
        candidate,
        json: r#"{"openai":{}}"#,
    });
    out.put(Delta::Usage(Usage {
        completion: Some(7),
        ..Usage::default()
    }));
    out.put(Delta::Finish { candidate, reason });
}

#[test]
fn a_stream_has_its_events_in_order() {
    let mut events = Events::new(stamp(), seals());
    events.put(Delta::Start { id: "", model: "" });
    assert!(events.bytes().is_empty(), "nothing is said yet");
    let mut events = Events::new(stamp(), seals());
    deltas(&mut events, FinishReason::Stop);
    events.finish();
    events.finish();
    let text = String::from_utf8(events.bytes().to_vec()).unwrap();
    let told: Vec<(String, Value)> = text
        .split_terminator("\n\n")
        .map(|event| {
            let (name, data) = event.split_once('\n').unwrap();
            let data = data.strip_prefix("data: ").unwrap();
            assert!(!data.contains(['\n', '\u{2028}']));
            let data: Value = serde_json::from_str(data).unwrap();
            assert_eq!(name, format!("event: {}", data["type"].as_str().unwrap()));
            (name["event: ".len()..].to_owned(), data)
        })
        .collect();
    let names: Vec<&str> = told.iter().map(|(name, _)| name.as_str()).collect();
    let (start, delta, stop) = (
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
    );
    assert_eq!(
        names,
        [
            "message_start",
            start,
            delta,
            stop,
            start,
            delta,
            stop,
            start,
            delta,
            stop,
            start,
            delta,
            delta,
            stop,
            start,
            delta,
            stop,
            "message_delta",
            "message_stop"
        ]
    );
    let message = &told[0].1["message"];
    assert_eq!(message["id"], "up_1");
    assert_eq!(message["model"], "claude-x");
    assert_eq!(
        message["usage"],
        json!({"input_tokens": 50, "cache_creation_input_tokens": 20,
            "cache_read_input_tokens": 30, "output_tokens": 1})
    );
    let end = &told[names.len() - 2].1;
    assert_eq!(
        end["delta"],
        json!({"stop_reason": "tool_use", "stop_sequence": null})
    );
    assert_eq!(end["usage"]["output_tokens"], 7);
}

#[test]
fn a_whole_message_says_the_same() {
    let mut message = Message::new(stamp(), seals());
    deltas(&mut message, FinishReason::Stop);
    assert_eq!(message.usage().completion, Some(7));
    let body: Value = serde_json::from_slice(&Box::new(message).into_body()).unwrap();
    let content = body["content"].as_array().unwrap();
    assert_eq!(
        content[0],
        json!({"type": "thinking", "thinking": "Hm.", "signature": ""})
    );
    assert_eq!(
        content[1],
        json!({"type": "text", "text": "Look\n\u{2028}"})
    );
    let open = |at: usize| seals().open(content[at]["signature"].as_str().unwrap());
    assert_eq!(open(2), Some((Holds::CallSignature, "sig".into())));
    assert_eq!(content[3]["type"], "tool_use");
    assert_eq!(content[3]["input"], json!({"a": 1}));
    let id = content[3]["id"].as_str().unwrap();
    assert!(
        id.starts_with("call_"),
        "{id} is made, since blanks are refused"
    );
    assert_eq!(open(4), Some((Holds::Extra, r#"{"openai":{}}"#.into())));
    assert_eq!(body["stop_reason"], "tool_use");
    assert_eq!(body["type"], "message");
}

#[test]
fn reasons_are_the_vendors() {
    for (reason, word) in [
        (FinishReason::Stop, "end_turn"),
        (FinishReason::Length, "max_tokens"),
        (FinishReason::ContentFilter, "refusal"),
    ] {
        let mut message = Message::new(stamp(), seals());
        message.put(Delta::Text {
            candidate: 0,
            text: "x",
        });
        message.put(Delta::Finish {
            candidate: 0,
            reason,
        });
        let body: Value = serde_json::from_slice(&Box::new(message).into_body()).unwrap();
        assert_eq!(body["stop_reason"], word);
        assert!(body["id"].as_str().unwrap().starts_with("msg_"));
    }
    let mut message = Message::new(stamp(), seals());
    deltas(&mut message, FinishReason::Length);
    let body: Value = serde_json::from_slice(&Box::new(message).into_body()).unwrap();
    assert_eq!(
        body["stop_reason"], "max_tokens",
        "a call that was cut is not run"
    );
}

#[test]
fn an_answer_that_says_nothing_is_a_message_all_the_same() {
    let mut events = Events::new(stamp(), seals());
    events.finish();
    let text = String::from_utf8(events.bytes().to_vec()).unwrap();
    assert!(text.starts_with("event: message_start\n"));
    assert!(text.ends_with("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"));
}
