//! Anthropic's Messages as callers speak it: requests turned into chat requests, and answers of
//! every upstream written as its events.

use std::sync::Arc;

use serde::de::IgnoredAny;

use super::answers::{check_failure, play, stamp, undo};
use super::{corpus, measured, session};
use crate::dialect::Streamed;
use crate::dialect::messages::{Events, estimate, to_chat};
use crate::dialect::openai::Head;
use crate::provider::anthropic::relay;
use crate::provider::{Provider, anthropic, gemini, responses};
use crate::seal::Seals;

fn seals() -> Seals {
    Seals::new(Some("k"), std::iter::empty())
}

#[test]
#[ignore = "takes a minute: make fuzz"]
fn messages_request() {
    session(
        "messages_request",
        &corpus::sent("anthropic"),
        |dice, input| {
            if let Err(error) = measured(|| estimate(input)) {
                assert!((400..500).contains(&error.status), "{error}");
            }
            let Ok(head) = Head::read(input) else {
                return;
            };
            let own = measured(|| relay::encode(&head, "other", "beta=true", dice.chance(30)));
            serde_json::from_slice::<IgnoredAny>(&own.body).expect("it is JSON");
            match measured(|| to_chat(&head, &seals())) {
                Ok(converted) => {
                    serde_json::from_slice::<IgnoredAny>(&converted.body).expect("it is JSON");
                    let read = Head::read(&converted.body).and_then(|head| head.parse().map(drop));
                    if let Err(error) = read {
                        assert!((400..500).contains(&error.status), "{error}");
                    }
                }
                Err(error) => assert!((400..500).contains(&error.status), "{error}"),
            }
        },
    );
}

/// Each event is its name and one line of JSON of that type, and the last one ends the message.
fn check_events(stream: &[u8], good: bool) {
    let text = std::str::from_utf8(stream).expect("streams are text");
    let mut last = "";
    let mut open = false;
    for event in text.split_terminator("\n\n") {
        assert_ne!(last, "message_stop", "something behind the end");
        let (name, data) = event
            .strip_prefix("event: ")
            .and_then(|rest| rest.split_once("\ndata: "))
            .expect("a name and data");
        assert!(!data.contains(['\n', '\r']), "{data:?}");
        serde_json::from_str::<IgnoredAny>(data).expect("it is JSON");
        assert_eq!(name == "message_start", last.is_empty(), "{name}");
        match name {
            "content_block_start" => assert!(!std::mem::replace(&mut open, true)),
            "content_block_stop" => assert!(std::mem::replace(&mut open, false)),
            "content_block_delta" => assert!(open),
            _ => {}
        }
        last = name;
    }
    if good {
        assert!(!open && last == "message_stop", "{text}");
    }
}

#[test]
#[ignore = "takes a minute: make fuzz"]
fn messages_answer() {
    let mut all = corpus::streams("gemini", "gemini");
    all.extend(corpus::streams("anthropic", "anthropic"));
    all.extend(corpus::streams("responses", "openai-responses"));
    session("messages_answer", &all, |dice, input| {
        let providers: [&dyn Provider; 3] = [
            &gemini::GenerateContent,
            &anthropic::Messages,
            &responses::Responses,
        ];
        let provider = *dice.pick(&providers);
        let mut events = Events::new(stamp(dice), Arc::new(seals()));
        let mut decoder = provider.decoder(undo(dice));
        let ended = measured(|| play(&mut *decoder, dice, input, &mut events));
        let good = ended.is_ok();
        match ended {
            Ok(()) => events.finish(),
            Err(failure) => check_failure(&failure),
        }
        check_events(events.bytes(), good);
    });
}
