//! OpenAI's Responses as callers speak it: requests turned into chat requests, and answers of every
//! upstream written as its events.

use std::sync::Arc;

use serde::de::IgnoredAny;
use serde_json::Value;

use super::answers::{check_failure, play, stamp, undo};
use super::{corpus, measured, session};
use crate::chat::{Delta, DeltaSink};
use crate::dialect::openai::Head;
use crate::dialect::responses::{Asked, Events, Kept, tail, to_chat};
use crate::dialect::{Streamed, Whole, responses as dialect};
use crate::json::shape::{Limits, Shape};
use crate::provider::anthropic::property_tests::Dice;
use crate::provider::{Provider, anthropic, gemini, responses};
use crate::seal::Seals;

fn seals() -> Seals {
    Seals::new(Some("k"), std::iter::empty())
}

/// Knows every answer, and every item as a call.
struct Everything;

impl Kept for Everything {
    fn conversation(&self, _: &str) -> Option<Vec<String>> {
        Some(vec![r#"{"role":"user","content":"x"}"#.to_owned()])
    }

    fn item(&self, _: &str) -> Option<String> {
        Some(r#"{"type":"function_call","call_id":"c","name":"f"}"#.to_owned())
    }
}

#[test]
#[ignore = "takes a minute: make fuzz"]
fn callers_responses_request() {
    let mut all = corpus::sent("responses");
    all.extend(corpus::asked("openai-responses"));
    session("callers_responses_request", &all, |_, input| {
        let Ok(text) = std::str::from_utf8(input) else {
            return;
        };
        let limits = Limits::default();
        if limits.check(Shape::of(input)).is_err() {
            return;
        }
        let seals = seals();
        let converted = measured(|| to_chat(text, &limits, &seals, &Everything, &tail(1), 1));
        match converted {
            Ok(converted) => {
                serde_json::from_slice::<IgnoredAny>(&converted.body).expect("it is JSON");
                let items: Value = serde_json::from_slice(&converted.input).expect("it is JSON");
                assert!(items.is_array());
                check_events(&converted.asked.opening(), false);
                let read = Head::read(&converted.body).and_then(|head| head.parse().map(drop));
                if let Err(error) = read {
                    assert!((400..500).contains(&error.status), "{error}");
                }
            }
            Err(error) => assert!((400..500).contains(&error.status), "{error}"),
        }
    });
}

/// Each event is its name and one line of JSON of that type, numbered in order, and items are open
/// one at a time.
fn check_events(stream: &[u8], good: bool) {
    let text = std::str::from_utf8(stream).expect("streams are text");
    let mut last = String::new();
    let mut open = false;
    let mut number = None;
    for event in text.split_terminator("\n\n") {
        assert_ne!(last, "response.completed", "something behind the end");
        let (name, data) = event
            .strip_prefix("event: ")
            .and_then(|rest| rest.split_once("\ndata: "))
            .expect("a name and data");
        assert!(
            !data.contains(['\n', '\r', '\u{85}', '\u{2028}']),
            "{data:?}"
        );
        let data: Value = serde_json::from_str(data).expect("it is JSON");
        assert_eq!(data["type"], name);
        let next = data["sequence_number"].as_u64().expect("a number");
        assert!(number.is_none_or(|number| next == number + 1), "{data}");
        number = Some(next);
        match name {
            "response.output_item.added" => assert!(!std::mem::replace(&mut open, true)),
            "response.output_item.done" => assert!(std::mem::replace(&mut open, false)),
            _ if data["item_id"].is_string() => assert!(open, "{data}"),
            _ => {}
        }
        name.clone_into(&mut last);
    }
    if good {
        let ends = ["response.completed", "response.incomplete"];
        assert!(!open && ends.contains(&&*last), "{text}");
    }
}

/// What the answer knows of its request: tools of all kinds under names that the recordings have.
fn asked(dice: &mut Dice) -> Asked {
    let name = *dice.pick(&["get_weather", "f", "a.b", "search"]);
    let request = serde_json::json!({
        "model": "m", "input": "x", "tools": [
            {"type": "custom", "name": name},
            {"type": "namespace", "name": "n", "tools": [{"type": "function", "name": "f"}]},
            {"type": "tool_search", "execution": "client"}
        ]
    });
    let (limits, text) = (Limits::default(), request.to_string());
    let converted = to_chat(&text, &limits, &seals(), &Everything, &tail(1), 1);
    converted.expect("it is right").asked
}

/// Hands every delta to a stream and to a whole answer.
struct Both<'b> {
    events: &'b mut Events,
    whole: &'b mut dialect::Response,
}

impl DeltaSink for Both<'_> {
    fn put(&mut self, delta: Delta<'_>) {
        self.events.put(delta.clone());
        self.whole.put(delta);
    }
}

#[test]
#[ignore = "takes a minute: make fuzz"]
fn callers_responses_answer() {
    let mut all = corpus::streams("gemini", "gemini");
    all.extend(corpus::streams("anthropic", "anthropic"));
    all.extend(corpus::streams("responses", "openai-responses"));
    session("callers_responses_answer", &all, |dice, input| {
        let providers: [&dyn Provider; 3] = [
            &gemini::GenerateContent,
            &anthropic::Messages,
            &responses::Responses,
        ];
        let provider = *dice.pick(&providers);
        let seed = stamp(dice).seed;
        let (asked, seals) = (Arc::new(asked(dice)), Arc::new(seals()));
        let mut whole = dialect::Response::new(Arc::clone(&asked), Arc::clone(&seals), seed);
        let mut events = Events::new(asked, seals, seed);
        let mut decoder = provider.decoder(undo(dice));
        let mut both = Both {
            events: &mut events,
            whole: &mut whole,
        };
        let ended = measured(|| play(&mut *decoder, dice, input, &mut both));
        let good = ended.is_ok();
        match ended {
            Ok(()) => events.finish(),
            Err(failure) => check_failure(&failure),
        }
        check_events(events.bytes(), good);
        let body = Box::new(whole).into_body();
        let body: Value = serde_json::from_slice(&body).expect("it is JSON");
        assert_eq!(body["object"], "response");
    });
}
