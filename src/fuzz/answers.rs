//! Upstreams' answers: read in pieces, decoded and written as a caller reads them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::IgnoredAny;
use serde_json::Value;

use super::{corpus, measured, session};
use crate::chat::DeltaSink;
use crate::dialect::openai::{Chunks, Fold, Stamp, error_event};
use crate::failure::Failure;
use crate::golden::{each_event, told};
use crate::provider::anthropic::property_tests::Dice;
use crate::provider::openai::{Deltas, RelayStream, relay_body};
use crate::provider::{Decoder, Flow, Provider, Undo, anthropic, gemini, responses};

pub fn stamp(dice: &mut Dice) -> Stamp {
    Stamp {
        seed: 1,
        created: 1,
        model: "m".into(),
        include_usage: dice.chance(50),
        legacy_functions: dice.chance(10),
    }
}

pub fn undo(dice: &mut Dice) -> Arc<Undo> {
    Arc::new(Undo {
        names: [("a_b_2".into(), "a.b".into())].into(),
        custom: ["f".into()].into(),
        strip_fence: dice.chance(30),
        final_only: dice.chance(30),
        wants_tier: dice.chance(30),
        keep_blocks: dice.chance(30),
        max_tokens: dice.chance(30).then_some(100),
    })
}

/// Hands the stream, and the same again to continuations, to `decoder`.
pub fn play(
    decoder: &mut dyn Decoder,
    dice: &mut Dice,
    input: &[u8],
    out: &mut dyn DeltaSink,
) -> Result<(), Failure> {
    let mut sent = br#"{"messages":[{"role":"user","content":"x"}],"contents":[]}"#.to_vec();
    let step = *dice.pick(&[1, 7, 100, usize::MAX]);
    for _ in 0..3 {
        let flow = each_event(input, step, |event| decoder.on_event(event, out))?;
        if flow == Flow::More {
            decoder.on_end(out)?;
        }
        match decoder.continuation(&sent) {
            None => return Ok(()),
            Some(body) => {
                serde_json::from_slice::<IgnoredAny>(&body).expect("continuations are JSON");
                sent = body;
            }
        }
    }
    // One that wants to go on for ever is cut by the exchange.
    Err(Failure::disconnected())
}

/// What a caller reads: JSON without halves of characters. `null` where it has numbers or depths
/// that are carried as they came, and too large for a `Value`.
fn value(json: &str) -> Value {
    serde_json::from_str::<IgnoredAny>(json).expect("it is JSON");
    serde_json::from_str(json).unwrap_or_else(|error| {
        let words = error.to_string();
        let carried = ["number out of range", "recursion limit exceeded"];
        assert!(
            carried.iter().any(|word| words.contains(word)),
            "{error}: {json}"
        );
        Value::Null
    })
}

/// What must hold of every stream to a caller, and more of one that ended well.
fn check_stream(stream: &[u8], input: &[u8], good: bool) {
    let text = std::str::from_utf8(stream).expect("streams are text");
    assert!(
        stream.len() <= 64 * 1024 + 3 * 60 * input.len(),
        "{} bytes of {}",
        stream.len(),
        input.len()
    );
    let mut done = false;
    let mut is_read = true;
    let mut finished: BTreeMap<u64, usize> = BTreeMap::new();
    for event in text.split_terminator("\n\n") {
        assert!(!done, "something behind the end");
        let data = event
            .strip_prefix("data: ")
            .expect("each event is one line of data");
        assert!(!data.contains(['\n', '\r']), "{data:?}");
        if data == "[DONE]" {
            done = true;
            continue;
        }
        let chunk = value(data);
        is_read &= !chunk.is_null();
        for choice in chunk["choices"].as_array().map_or(&[][..], Vec::as_slice) {
            let Some(index) = choice["index"].as_u64() else {
                continue;
            };
            let count = finished.entry(index).or_default();
            *count += usize::from(choice["finish_reason"].is_string());
        }
    }
    assert_eq!(done, good, "[DONE] stands at the end of what ended well");
    if good && is_read {
        assert!(!finished.is_empty(), "an answer without a choice");
        for (index, count) in finished {
            assert_eq!(count, 1, "finish reasons of choice {index}");
        }
    }
}

fn decode(provider: &dyn Provider, dice: &mut Dice, input: &[u8]) {
    let undo = undo(dice);
    if input.first() == Some(&b'{') {
        let mut fold = Fold::new(stamp(dice));
        match measured(|| provider.decoder(undo).on_body(input, &mut fold)) {
            Ok(()) => {
                let text = String::from_utf8(fold.into_json()).expect("completions are text");
                let completion = value(&text);
                let choices = completion["choices"].as_array();
                for choice in choices.map_or(&[][..], Vec::as_slice) {
                    assert!(choice["finish_reason"].is_string(), "{completion}");
                }
            }
            Err(failure) => check_failure(&failure),
        }
        return;
    }
    let mut chunks = Chunks::new(stamp(dice));
    let mut decoder = provider.decoder(undo);
    let ended = measured(|| play(&mut *decoder, dice, input, &mut chunks));
    let good = ended.is_ok();
    match ended {
        Ok(()) => chunks.finish(),
        Err(failure) => check_failure(&failure),
    }
    check_stream(chunks.bytes(), input, good);
}

pub fn check_failure(failure: &Failure) {
    assert!((400..600).contains(&failure.status), "{failure:?}");
    let event = error_event(&told(failure));
    let text = std::str::from_utf8(&event).expect("errors are text");
    let data = text
        .trim_end()
        .strip_prefix("data: ")
        .expect("it is an event");
    serde_json::from_str::<IgnoredAny>(data).expect("errors are JSON");
}

fn answers(target: &str, folder: &str, recorded: &str, provider: &dyn Provider) {
    let mut all = corpus::streams(folder, recorded);
    all.extend(corpus::bodies(folder, recorded));
    session(target, &all, |dice, input| decode(provider, dice, input));
}

#[test]
#[ignore = "takes a minute: make fuzz"]
fn anthropic_answer() {
    answers(
        "anthropic_answer",
        "anthropic",
        "anthropic",
        &anthropic::Messages,
    );
}

#[test]
#[ignore = "takes a minute: make fuzz"]
fn gemini_answer() {
    answers(
        "gemini_answer",
        "gemini",
        "gemini",
        &gemini::GenerateContent,
    );
}

#[test]
#[ignore = "takes a minute: make fuzz"]
fn responses_answer() {
    answers(
        "responses_answer",
        "responses",
        "openai-responses",
        &responses::Responses,
    );
}

#[test]
#[ignore = "takes a minute: make fuzz"]
fn relay() {
    let mut all = corpus::streams("openai", "openai");
    all.extend(corpus::bodies("openai", "openai"));
    session("relay", &all, |dice, input| {
        let official = dice.chance(30);
        if let Err(failure) = measured(|| relay_body(input).map(drop)) {
            check_failure(&failure);
        }
        if dice.chance(30) {
            let mut deltas = Deltas::new(RelayStream::new(stamp(dice), official));
            let mut chunks = Chunks::new(stamp(dice));
            let ended = measured(|| play(&mut deltas, dice, input, &mut chunks));
            let good = ended.is_ok();
            match ended {
                Ok(()) => chunks.finish(),
                Err(failure) => check_failure(&failure),
            }
            return check_stream(chunks.bytes(), input, good);
        }
        let mut relay = RelayStream::new(stamp(dice), official);
        let mut out = Vec::new();
        let step = *dice.pick(&[1, 7, 100, usize::MAX]);
        let mut ended =
            measured(|| each_event(input, step, |event| relay.on_event(event, &mut out)).map(drop));
        if ended.is_ok() {
            ended = relay.on_end(&mut out);
        }
        // An official upstream's own events are what callers expect, whatever they hold.
        if !official {
            check_stream(&out, input, ended.is_ok());
        }
        if let Err(failure) = ended {
            check_failure(&failure);
        }
    });
}
