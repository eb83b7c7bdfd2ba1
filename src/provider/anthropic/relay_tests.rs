use serde_json::{Value, json};

use super::*;
use crate::golden::each_event;

fn stamp() -> Stamp {
    Stamp {
        seed: 1,
        created: 1,
        model: "asked".into(),
        include_usage: false,
        legacy_functions: false,
    }
}

fn seals() -> Arc<Seals> {
    Arc::new(Seals::new(Some("k"), std::iter::empty()))
}

const START: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":\
    {\"id\":\"m\",\"model\":\"real\",\"usage\":{\"input_tokens\":5,\"cache_read_input_tokens\":2}}}\n\n";
const TEXT: &str = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\
    \"delta\":{\"type\":\"text_delta\",\"text\":\"hello\"},\"new\":1.50}\n\n";
const NEW: &str = "event: brand_new\ndata: {\"type\":\"brand_new\"}\n\n";
const END: &str = "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":\
    {\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":3}}\n\n";
const STOP: &str = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
const PING: &str = "event: ping\ndata: {\"type\":\"ping\"}\n\n";

/// What comes of a stream, cut at every `step` bytes.
fn relayed(stream: &str, step: usize) -> (String, Result<(), Failure>, Usage) {
    let mut relay = RelayStream::new(stamp(), seals());
    let mut out = Vec::new();
    let flow = each_event(stream.as_bytes(), step, |event| {
        relay.on_event(event, &mut out)
    });
    let outcome = match flow {
        Ok(Flow::More) => relay.on_end(&mut out),
        Ok(Flow::Done) => Ok(()),
        Err(failure) => Err(failure),
    };
    (String::from_utf8(out).unwrap(), outcome, relay.usage())
}

#[test]
fn events_pass_as_they_are_but_for_the_name() {
    let stream = [START, PING, TEXT, PING, NEW, END, STOP].concat();
    let expected = [
        START.replace("real", "asked").as_str(),
        TEXT,
        PING,
        NEW,
        END,
        STOP,
    ]
    .concat();
    for step in [1, 7, usize::MAX] {
        let (out, outcome, usage) = relayed(&stream, step);
        assert!(outcome.is_ok());
        assert_eq!(out, expected);
        assert_eq!(usage.prompt, Some(7));
        assert_eq!(usage.completion, Some(3));
    }
    let (out, outcome, _) = relayed(&[START, TEXT, END].concat(), usize::MAX);
    assert!(outcome.is_ok(), "the last event may be missing");
    assert!(out.ends_with(STOP));
}

#[test]
fn what_fails_before_anything_was_said_writes_nothing() {
    let error = "event: error\ndata: {\"type\":\"error\",\"error\":\
        {\"type\":\"overloaded_error\",\"message\":\"busy\"}}\n\n";
    for stream in [
        [START, PING, error].concat(),
        [START, PING].concat(),
        error.to_owned(),
        "data: <html>\n\n".to_owned(),
    ] {
        let (out, outcome, _) = relayed(&stream, usize::MAX);
        assert!(outcome.is_err(), "{stream}");
        assert_eq!(out, "", "{stream}");
    }
    let (out, outcome, _) = relayed(&[START, TEXT, error].concat(), usize::MAX);
    assert!(outcome.is_err());
    assert!(out.ends_with(TEXT));
    let (_, outcome, _) = relayed(&[START, TEXT].concat(), usize::MAX);
    assert!(outcome.is_err(), "it was cut");
    let (_, outcome, _) = relayed(&[START, TEXT, START].concat(), usize::MAX);
    assert!(outcome.is_err(), "it began anew");
}

#[test]
fn answers_are_taken_in_the_form_that_they_come_in() {
    let body = r#"{"type":"message","model":"real","content":[{"type":"text","text":"hi"}],
        "stop_reason":"end_turn","usage":{"input_tokens":1,"output_tokens":2},"new":1.50}"#;
    let mut whole = RelayWhole::new(stamp(), seals(), 10_000);
    whole.on_body(body.as_bytes()).unwrap();
    let sent = String::from_utf8(whole.take_body().unwrap()).unwrap();
    assert_eq!(sent, body.replace("real", "asked"));
    assert_eq!(whole.usage().completion, Some(2));
    for body in ["", "x", "{}", r#"{"type":"error","error":{"message":"x"}}"#] {
        let mut whole = RelayWhole::new(stamp(), seals(), 10_000);
        assert!(whole.on_body(body.as_bytes()).is_err(), "{body}");
    }
    // A stream where a message was asked for, and the other way round.
    let stream = [
        START,
        "data: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n",
        TEXT,
        END,
        STOP,
    ]
    .concat();
    let mut whole = RelayWhole::new(stamp(), seals(), 10_000);
    each_event(stream.as_bytes(), usize::MAX, |event| whole.on_event(event)).unwrap();
    let message: Value = serde_json::from_slice(&whole.take_body().unwrap()).unwrap();
    assert_eq!(
        message["content"],
        json!([{"type": "text", "text": "hello"}])
    );
    assert_eq!(message["model"], "asked");
    let mut whole = RelayWhole::new(stamp(), seals(), 100);
    let long = each_event(stream.as_bytes(), usize::MAX, |event| whole.on_event(event));
    assert!(long.is_err(), "no more than there is room for");
    let mut relay = RelayStream::new(stamp(), seals());
    let mut out = Vec::new();
    relay.on_body(body.as_bytes(), &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(
        text.starts_with("event: message_start\n") && text.ends_with(STOP),
        "{text}"
    );
}

#[test]
fn thoughts_of_others_are_left_out_of_the_history() {
    let seal = seals().seal(crate::seal::Holds::Extra, "{}").unwrap();
    let thinking =
        |sign: &str| format!(r#"{{"signature":"{sign}","type":"thinking","thinking":"t"}}"#);
    let (own, none, foreign) = (thinking("c2ln"), thinking(""), thinking(&seal));
    let bare = r#"{"type":"thinking","thinking":"t"}"#;
    let redacted = r#"{"type":"redacted_thinking","data":"x"}"#;
    let text = r#"{"type":"text","text":"\"thinking\" 1.50"}"#;
    let body = |all: &[&str], more: &str| {
        format!(
            r#"{{"model":"m","messages":[{{"role":"user","content":"\"thinking\""}},{{"content": [{}],"role":"assistant"}}{more}]}}"#,
            all.join(",")
        )
    };
    let alone = format!(r#",{{"role":"assistant","content":[{none}]}}"#);
    let sent = |body: &str, plain| {
        let head = Head::read(body.as_bytes()).unwrap();
        String::from_utf8(encode(&head, "m", "", plain).body).unwrap()
    };
    let all = body(&[&own, &none, text, bare, &foreign, redacted], &alone);
    assert_eq!(sent(&all, false), body(&[&own, text, redacted], ""));
    assert_eq!(sent(&all, true), body(&[text], ""));
    let clean = body(&[&own, text], "");
    assert_eq!(sent(&clean, false), clean);
}
