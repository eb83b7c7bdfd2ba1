use std::sync::Arc;

use serde_json::{Value, json};

use super::{Answer, Framing, Pieces};
use crate::chat::{Delta, DeltaSink, FinishReason, ToolKind, Usage};
use crate::dialect::openai::Stamp;
use crate::dialect::{Streamed, Whole};
use crate::seal::{Holds, Seals};

fn stamp() -> Stamp {
    Stamp {
        seed: 7,
        created: 1,
        model: "m".to_owned(),
        include_usage: true,
        legacy_functions: false,
    }
}

fn seals() -> Arc<Seals> {
    Arc::new(Seals::new(Some("k"), std::iter::empty()))
}

/// Thoughts, text, and two calls whose arguments come in turns.
fn say(out: &mut dyn DeltaSink) {
    let call = |index, id, name, google_signature| Delta::ToolStart {
        candidate: 0,
        index,
        id,
        name,
        kind: ToolKind::Function,
        google_signature,
    };
    let arguments = |index, fragment| Delta::ToolArgs {
        candidate: 0,
        index,
        fragment,
    };
    let (candidate, text) = (0, "hm");
    out.put(Delta::Start {
        id: "r1",
        model: "x",
    });
    out.put(Delta::Reasoning { candidate, text });
    out.put(Delta::Text {
        candidate,
        text: "Hel",
    });
    out.put(Delta::Text {
        candidate,
        text: "lo\n",
    });
    out.put(call(0, "c0", "f", None));
    out.put(call(1, "c1", "g", Some("GOOGLE")));
    out.put(arguments(0, "{\"a\":"));
    out.put(arguments(1, "nonsense"));
    out.put(arguments(0, "1}"));
    out.put(Delta::Extra {
        candidate,
        json: "{\"anthropic\":1}",
    });
    out.put(Delta::Usage(Usage {
        prompt: Some(10),
        completion: Some(7),
        cached: Some(4),
        reasoning: Some(3),
        ..Usage::default()
    }));
    out.put(Delta::Finish {
        candidate,
        reason: FinishReason::ToolCalls,
    });
}

fn seal() -> String {
    seals().seal(Holds::Extra, "{\"anthropic\":1}").unwrap()
}

fn usage() -> Value {
    json!({"promptTokenCount": 10, "candidatesTokenCount": 4, "totalTokenCount": 17,
        "cachedContentTokenCount": 4, "thoughtsTokenCount": 3})
}

#[test]
fn a_whole_answer_has_its_parts_in_order() {
    let mut answer = Box::new(Answer::new(stamp(), seals()));
    say(&mut *answer);
    let body: Value = serde_json::from_slice(&answer.into_body()).unwrap();
    assert_eq!(
        body,
        json!({
            "candidates": [{"content": {"role": "model", "parts": [
                {"text": "hm", "thought": true},
                {"text": "Hello\n"},
                {"functionCall": {"id": "c0", "name": "f", "args": {"a": 1}},
                    "thoughtSignature": seal()},
                {"functionCall": {"id": "c1", "name": "g", "args": {"arguments": "nonsense"}},
                    "thoughtSignature": "GOOGLE"},
            ]}, "finishReason": "STOP", "index": 0}],
            "usageMetadata": usage(), "modelVersion": "m", "responseId": "r1",
        })
    );
}

#[test]
fn both_framings_say_the_same() {
    let written = |framing| {
        let mut pieces = Pieces::new(stamp(), seals(), framing);
        say(&mut pieces);
        pieces.finish();
        pieces.finish();
        String::from_utf8(pieces.bytes().to_vec()).unwrap()
    };
    let array: Vec<Value> = serde_json::from_str(&written(Framing::Array)).unwrap();
    let text = written(Framing::Events);
    let events: Vec<Value> = text
        .split_terminator("\r\n\r\n")
        .map(|event| serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap())
        .collect();
    assert_eq!(array, events);
    assert_eq!(events.len(), 4);
    let last = &events[3];
    assert_eq!(last["candidates"][0]["finishReason"], "STOP");
    assert_eq!(last["usageMetadata"], usage());
    assert_eq!(
        last["candidates"][0]["content"]["parts"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    for event in &events[..3] {
        assert!(event["candidates"][0].get("finishReason").is_none());
        assert_eq!(event["responseId"], "r1");
    }
}

#[test]
fn an_answer_that_says_nothing_still_ends() {
    let mut pieces = Pieces::new(stamp(), seals(), Framing::Array);
    pieces.finish();
    let array: Value = serde_json::from_slice(pieces.bytes()).unwrap();
    assert_eq!(array[0]["candidates"][0]["finishReason"], "STOP");
    let body = Box::new(Answer::new(stamp(), seals())).into_body();
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["candidates"][0]["content"]["parts"], json!([]));
}

#[test]
fn reasons_have_the_words_of_the_vendor_and_a_seal_finds_a_part_without_calls() {
    for (reason, word) in [
        (FinishReason::Length, "MAX_TOKENS"),
        (FinishReason::ContentFilter, "SAFETY"),
        (FinishReason::ToolCalls, "STOP"),
        (FinishReason::Stop, "STOP"),
    ] {
        let mut answer = Box::new(Answer::new(stamp(), seals()));
        answer.put(Delta::Extra {
            candidate: 0,
            json: "{\"anthropic\":1}",
        });
        answer.put(Delta::Finish {
            candidate: 0,
            reason,
        });
        let body: Value = serde_json::from_slice(&answer.into_body()).unwrap();
        assert_eq!(body["candidates"][0]["finishReason"], word);
        let part = json!({"text": "", "thoughtSignature": seal()});
        assert_eq!(body["candidates"][0]["content"]["parts"], json!([part]));
    }
}
