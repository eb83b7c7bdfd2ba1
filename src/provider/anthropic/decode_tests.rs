//! The decoder on streams and bodies that no upstream should send, and its memory between events.

use std::sync::Arc;

use serde_json::json;
use serde_json::value::RawValue;

use super::Messages;
use super::property_tests::Dice;
use crate::chat::{Delta, DeltaSink, FinishReason};
use crate::failure::Class;
use crate::failure::Failure;
use crate::provider::{Decoder, Flow, Provider, Undo};
use crate::sse;

/// Checks the order of deltas and forgets them.
#[derive(Default)]
struct Judge {
    started: bool,
    finished: u32,
    tools: u32,
}

impl DeltaSink for Judge {
    fn put(&mut self, delta: Delta<'_>) {
        assert_eq!(self.finished, 0, "{delta:?} behind the end");
        match delta {
            Delta::Start { .. } => assert!(!std::mem::replace(&mut self.started, true)),
            Delta::Finish { .. } => self.finished += 1,
            Delta::ToolStart { index, .. } => {
                assert_eq!(index, self.tools);
                self.tools += 1;
            }
            Delta::ToolArgs { index, .. } => assert!(index < self.tools),
            Delta::Extra { json, .. } => {
                serde_json::from_str::<&RawValue>(json).unwrap();
            }
            _ => {}
        }
        assert!(self.started, "the first is Start");
    }
}

#[test]
fn no_event_brings_the_decoder_down() {
    let pieces = [
        r#""type":"message_start""#,
        r#""type":"content_block_start""#,
        r#""type":"content_block_delta""#,
        r#""type":"content_block_stop""#,
        r#""type":"message_delta""#,
        r#""type":"message_stop""#,
        r#""type":"ping""#,
        r#""type":7"#,
        r#""type":null"#,
        r#""index":0"#,
        r#""index":1"#,
        r#""index":-1"#,
        r#""index":1e300"#,
        r#""index":"0""#,
        r#""message":{"id":"m","usage":{"input_tokens":1}}"#,
        r#""message":{"usage":{"input_tokens":-1,"output_tokens":18446744073709551615}}"#,
        r#""message":7"#,
        r#""message":null"#,
        r#""usage":[1]"#,
        r#""usage":{"output_tokens":{}}"#,
        r#""content_block":{"type":"text","text":"a"}"#,
        r#""content_block":{"type":"thinking"}"#,
        r#""content_block":{"type":"tool_use","id":"t","name":"f","input":{}}"#,
        r#""content_block":{"type":"tool_use","id":"t","name":"c","input":{}}"#,
        r#""content_block":{"type":"server_tool_use","input":{}}"#,
        r#""content_block":[]"#,
        r#""content_block":{"type":"redacted_thinking","data":"d"}"#,
        r#""content_block":null"#,
        r#""delta":{"type":"text_delta","text":"\u00fc```"}"#,
        r#""delta":{"type":"text_delta"}"#,
        r#""delta":{"type":"thinking_delta","thinking":"t"}"#,
        r#""delta":{"type":7}"#,
        r#""delta":{"type":"signature_delta","signature":"s"}"#,
        r#""delta":null"#,
        r#""delta":{"type":"input_json_delta","partial_json":"{\"input\":"}"#,
        r#""delta":{"type":"citations_delta","citation":{"type":"web_search_result_location"}}"#,
        r#""delta":{"stop_reason":"end_turn"}"#,
        r#""delta":{"stop_reason":"pause_turn"}"#,
        r#""delta":{"stop_reason":"refusal","stop_details":{"explanation":"no"}}"#,
        r#""delta":{"text":"\ud800"}"#,
        r#""x":[[[]]]"#,
        r#""error":{"type":"api_error"}"#,
    ];
    // Events as they should be, so that the mess comes upon an answer in progress.
    let sound = [
        r#"{"type":"message_start","message":{"id":"m","model":"c","usage":{"input_tokens":3}}}"#,
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":"a"}}"#,
        r#"{"type":"content_block_start","index":1,"content_block":{"type":"tool_use","name":"c"}}"#,
        r#"{"type":"content_block_start","index":2,"content_block":{"type":"thinking"}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"b`"}}"#,
        r#"{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{}"}}"#,
        r#"{"type":"content_block_delta","index":2,"delta":{"type":"thinking_delta","thinking":"t"}}"#,
        r#"{"type":"content_block_stop","index":1}"#,
        r#"{"type":"message_delta","delta":{"stop_reason":"pause_turn"},"usage":{"output_tokens":1}}"#,
        r#"{"type":"message_delta","delta":{"stop_reason":"tool_use"}}"#,
        r#"{"type":"message_stop"}"#,
    ];
    let undo = Arc::new(Undo {
        custom: ["c".into()].into(),
        strip_fence: true,
        wants_tier: true,
        keep_blocks: true,
        ..Undo::default()
    });
    let mut dice = Dice(4242);
    let (mut good, mut bad) = (0, 0);
    for round in 0..20_000 {
        let undo = if round % 2 == 0 {
            undo.clone()
        } else {
            Arc::default()
        };
        let mut decoder = Messages.decoder(undo);
        let mut judge = Judge::default();
        let mut ended = false;
        let mut failed = false;
        for _ in 0..dice.below(14) {
            let mut data = match dice.below(20) {
                3.. => dice.pick(&sound).as_bytes().to_vec(),
                0 => (0..dice.below(40)).map(|_| dice.roll() as u8).collect(),
                _ => {
                    let members: Vec<&str> = (0..1 + dice.below(3))
                        .map(|_| *dice.pick(&pieces))
                        .collect();
                    format!("{{{}}}", members.join(",")).into_bytes()
                }
            };
            if dice.chance(3) && !data.is_empty() {
                let at = dice.below(data.len());
                data[at] = dice.roll() as u8;
            }
            let event = sse::Event {
                data: &data,
                bare: dice.chance(5),
            };
            match decoder.on_event(event, &mut judge) {
                Ok(Flow::More) => {}
                Ok(Flow::Done) => {
                    ended = true;
                    let sent = br#"{"messages":[{"role":"user","content":"x"}]}"#;
                    match decoder.continuation(sent) {
                        Some(body) => {
                            serde_json::from_slice::<&RawValue>(&body).unwrap();
                            ended = false;
                        }
                        None => break,
                    }
                }
                Err(failure) => {
                    assert_ne!(failure.class, Class::CallerGone);
                    failed = true;
                    break;
                }
            }
        }
        if !ended && !failed {
            failed = decoder.on_end(&mut judge).is_err();
        }
        if failed {
            bad += 1;
        } else {
            good += 1;
            let pauses = decoder.continuation(br#"{"messages":[]}"#).is_some();
            assert_eq!(judge.finished, u32::from(!pauses), "an answer has one end");
        }
    }
    assert!(good > 500 && bad > 500, "{good} good, {bad} bad");
}

#[test]
fn no_body_brings_the_decoder_down() {
    let whole = json!({"type": "message", "id": "m", "model": "c", "stop_reason": "tool_use",
        "content": [{"type": "text", "text": "gr\u{fc}n"}, {"type": "tool_use", "id": "t",
        "name": "f", "input": {"a": 1}}], "usage": {"input_tokens": 1, "output_tokens": 2}});
    let whole = serde_json::to_vec(&whole).unwrap();
    let mut dice = Dice(99);
    for round in 0..5000 {
        let mut body = whole.clone();
        if round > 0 {
            body.truncate(dice.below(whole.len() + 1));
        }
        for _ in 0..dice.below(3) * usize::from(round > 0) {
            if !body.is_empty() {
                let at = dice.below(body.len());
                body[at] = *dice.pick(b"\"{}[],:0az\\\xff \n");
            }
        }
        let mut judge = Judge::default();
        let result = Messages.decoder(Arc::default()).on_body(&body, &mut judge);
        assert_eq!(judge.finished == 1, result.is_ok());
        assert!(round > 0 || result.is_ok());
    }
}

#[test]
fn a_stream_without_end_does_not_fill_the_memory() {
    let mut decoder = super::decode::Messages::new(Arc::new(Undo {
        keep_blocks: true,
        ..Undo::default()
    }));
    let mut judge = Judge::default();
    let thought = format!(
        r#"{{"type":"content_block_delta","index":0,"delta":{{"type":"thinking_delta","thinking":"{}"}}}}"#,
        "x".repeat(1 << 20)
    );
    let mut put = |data: &str| {
        let event = sse::Event {
            data: data.as_bytes(),
            bare: false,
        };
        decoder.on_event(event, &mut judge).map(|_| ())
    };
    put(r#"{"type":"content_block_start","index":0,"content_block":{"type":"thinking"}}"#).unwrap();
    for _ in 0..40 {
        put(&thought).unwrap();
    }
    let start = r#"{"type":"content_block_start","index":1,"content_block":{"type":"text"}}"#;
    let blocks = (0..200_000).take_while(|_| put(start).is_ok()).count();
    assert!(blocks < 150_000, "an answer has an end to its blocks");
    assert!(decoder.remembered() < 20 << 20, "{}", decoder.remembered());
}

#[test]
fn an_answer_that_keeps_pausing_is_continued_three_times() {
    #[derive(Default)]
    struct Seen(String, Option<FinishReason>, Option<u64>);
    impl DeltaSink for Seen {
        fn put(&mut self, delta: Delta<'_>) {
            match delta {
                Delta::Text { text, .. } => self.0.push_str(text),
                Delta::Finish { reason, .. } => self.1 = Some(reason),
                Delta::Usage(usage) => self.2 = usage.completion,
                _ => {}
            }
        }
    }
    let mut decoder = Messages.decoder(Arc::new(Undo {
        keep_blocks: true,
        ..Undo::default()
    }));
    let mut seen = Seen::default();
    let mut sent = br#"{"model":"c","messages":[{"role":"user","content":"x"}]}"#.to_vec();
    let mut continued = 0;
    loop {
        let mut flow = Flow::More;
        for data in [
            r#"{"type":"message_start","message":{"id":"m","model":"c","usage":{"output_tokens":1}}}"#,
            r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":"a"}}"#,
            r#"{"type":"content_block_stop","index":0}"#,
            r#"{"type":"message_delta","delta":{"stop_reason":"pause_turn"},"usage":{"output_tokens":5}}"#,
            r#"{"type":"message_stop"}"#,
        ] {
            let data = data.as_bytes();
            flow = decoder
                .on_event(sse::Event { data, bare: false }, &mut seen)
                .unwrap();
        }
        assert_eq!(flow, Flow::Done);
        assert!(decoder.on_end(&mut seen).is_ok());
        match decoder.continuation(&sent) {
            Some(body) => sent = body,
            None => break,
        }
        continued += 1;
        assert_eq!(seen.1, None, "an answer that goes on has not ended");
    }
    assert_eq!((continued, seen.0.as_str()), (3, "aaaa"));
    assert_eq!((seen.1, seen.2), (Some(FinishReason::Length), Some(20)));
    let body: serde_json::Value = serde_json::from_slice(&sent).unwrap();
    assert_eq!(body["messages"].as_array().unwrap().len(), 4);
}

#[test]
fn a_call_whose_end_nobody_told_is_whole_or_the_answer_is_broken() {
    let answer = |pieces: &[&str], stopped: bool, reason: &str| {
        let mut decoder = Messages.decoder(Arc::default());
        let mut judge = Judge::default();
        let mut events = vec![
            json!({"type": "message_start", "message": {"id": "m", "model": "c"}}),
            json!({"type": "content_block_start", "index": 0,
                "content_block": {"type": "tool_use", "id": "t", "name": "f", "input": {}}}),
        ];
        events.extend(pieces.iter().map(|piece| {
            json!({"type": "content_block_delta", "index": 0,
                "delta": {"type": "input_json_delta", "partial_json": piece}})
        }));
        if stopped {
            events.push(json!({"type": "content_block_stop", "index": 0}));
        }
        events.push(json!({"type": "message_delta", "delta": {"stop_reason": reason}}));
        events.push(json!({"type": "message_stop"}));
        let mut ended = Ok(Flow::More);
        for event in events {
            let data = event.to_string();
            let data = data.as_bytes();
            ended = decoder.on_event(sse::Event { data, bare: false }, &mut judge);
        }
        ended
    };
    for reason in ["tool_use", "end_turn", "something_new"] {
        let half = answer(&["{\"a\"", ":[1}"], false, reason);
        assert_eq!(half.unwrap_err(), Failure::disconnected(), "{reason}");
        for whole in [&["{\"a\"", ":[1]}"][..], &[]] {
            assert!(answer(whole, false, reason).is_ok(), "{reason}");
        }
        // What a model itself leaves half is passed on, and so is what its limit cuts.
        assert!(answer(&["{\"a\""], true, reason).is_ok(), "{reason}");
    }
    assert!(answer(&["{\"a\""], false, "max_tokens").is_ok());
}
