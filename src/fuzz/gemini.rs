//! Gemini's native API as callers speak it: requests turned into chat requests, answers of every
//! upstream written as its pieces, and those of its own passed on.

use std::sync::Arc;

use serde::de::IgnoredAny;

use super::answers::{check_failure, play, stamp, undo};
use super::{corpus, measured, session};
use crate::dialect::Streamed;
use crate::dialect::gemini::{Framing, Pieces, estimate, head, to_chat};
use crate::dialect::openai::Head;
use crate::golden::each_event;
use crate::provider::gemini::relay::{self, RelayStream};
use crate::provider::{Provider, Relay, anthropic, gemini, responses};
use crate::seal::Seals;

fn seals() -> Seals {
    Seals::new(Some("k"), std::iter::empty())
}

#[test]
#[ignore = "takes a minute: make fuzz"]
fn gemini_request() {
    let mut all = corpus::sent("gemini");
    all.extend(corpus::asked("gemini"));
    session("gemini_request", &all, |_, input| {
        if let Err(error) = measured(|| estimate(input)) {
            assert!((400..500).contains(&error.status), "{error}");
        }
        let Ok(head) = head("/v1beta/models/m:streamGenerateContent", input) else {
            return;
        };
        let own = measured(|| relay::encode(&head, "other"));
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
    });
}

/// Each event is one line of JSON and nothing else; an array is one JSON text.
fn check(framing: Framing, bytes: &[u8], good: bool) {
    let text = std::str::from_utf8(bytes).expect("answers are text");
    match framing {
        Framing::Array if good => {
            serde_json::from_str::<Vec<IgnoredAny>>(text).expect("it is an array");
        }
        Framing::Array => {}
        Framing::Events => {
            for event in text.split_terminator("\r\n\r\n") {
                let data = event.strip_prefix("data: ").expect("data alone");
                assert!(!data.contains(['\n', '\r']), "{data:?}");
                serde_json::from_str::<IgnoredAny>(data).expect("it is JSON");
            }
        }
    }
}

#[test]
#[ignore = "takes a minute: make fuzz"]
fn gemini_answer() {
    let mut all = corpus::streams("gemini", "gemini");
    all.extend(corpus::streams("anthropic", "anthropic"));
    all.extend(corpus::streams("responses", "openai-responses"));
    session("gemini_answer", &all, |dice, input| {
        let providers: [&dyn Provider; 3] = [
            &gemini::GenerateContent,
            &anthropic::Messages,
            &responses::Responses,
        ];
        let provider = *dice.pick(&providers);
        let framing = *dice.pick(&[Framing::Events, Framing::Array]);
        let mut pieces = Pieces::new(stamp(dice), Arc::new(seals()), framing);
        let mut decoder = provider.decoder(undo(dice));
        let ended = measured(|| play(&mut *decoder, dice, input, &mut pieces));
        let good = ended.is_ok();
        match ended {
            Ok(()) => pieces.finish(),
            Err(failure) => check_failure(&failure),
        }
        check(framing, pieces.bytes(), good);

        let mut relayed = Vec::new();
        let mut relay = RelayStream::new(framing);
        let ended = measured(|| {
            each_event(input, usize::MAX, |event| {
                relay.on_event(event, &mut relayed)
            })?;
            relay.on_end(&mut relayed)
        });
        if let Err(failure) = &ended {
            check_failure(failure);
        }
        check(framing, &relayed, ended.is_ok());
    });
}
