//! Keys that are refused or out of quota, in each format.

use std::time::{Duration, SystemTime};

use super::{FORMATS, PIECES, assert_fine, start};
use crate::client::chat;
use crate::first_mile::error_of;
use crate::upstream::{Format, Reply, Upstream};
use crate::wait::LIMIT;
use crate::weir::upstream;

fn kinds(format: Format, status: u16) -> &'static str {
    match (format, status) {
        (Format::Anthropic, 429) => "rate_limit_error",
        (Format::Gemini, 429) => "resource_exhausted",
        (_, 429) => "rate_limit_exceeded",
        (Format::Anthropic, _) => "authentication_error",
        (Format::Gemini, _) => "unauthenticated",
        _ => "invalid_api_key",
    }
}

fn refusal(format: Format, status: u16) -> Reply {
    let words = match (format, status) {
        (Format::Anthropic, 401) => "invalid x-api-key",
        (Format::Gemini, 401) => "Request had invalid authentication credentials.",
        _ => "their words",
    };
    format.error(status, kinds(format, status), words)
}

#[test]
fn a_429_is_answered_with_when_to_come_back_and_the_key_is_left_alone() {
    let date = SystemTime::now() + Duration::from_secs(90);
    let date = httpdate::fmt_http_date(date);
    let hints: [(Option<&str>, std::ops::RangeInclusive<u64>); 4] = [
        (Some("7"), 1..=7),
        (Some(&date), 60..=90),
        // Never longer than the ceiling of five minutes.
        (Some("99999999999"), 200..=300),
        (None, 1..=2),
    ];
    for format in FORMATS {
        for (hint, expected) in &hints {
            let mut reply = refusal(format, 429);
            if let Some(hint) = hint {
                reply = reply.header("Retry-After", hint);
            }
            let scripted = Upstream::always(reply);
            let weir = start(vec![upstream("up", format, &scripted.url(), &["k1", "k2"])]);
            let model = format!("up/{}", format.model());
            // The second time every key cools and nobody is asked.
            for streams in [false, true] {
                let answer = weir.ask(&chat(&model, streams));
                let what = format!("{format:?} {hint:?} {streams}: {}", answer.text());
                if hint.is_none() && streams && answer.status == 429 && scripted.count() > 2 {
                    // On a slow machine the second of rest is over.
                    continue;
                }
                assert_eq!(answer.status, 429, "{what}");
                assert_eq!(error_of(&answer)["code"], "rate_limit_exceeded", "{what}");
                let wait = answer.header("retry-after").map(str::parse::<u64>);
                assert!(
                    matches!(&wait, Some(Ok(wait)) if expected.contains(wait)),
                    "{what} {wait:?}"
                );
                assert_eq!(scripted.count(), 2, "{what}");
            }
            weir.idle(LIMIT);
        }
    }
}

#[test]
fn a_key_that_is_refused_or_spent_gives_way_to_the_other() {
    for format in FORMATS {
        for status in [401, 429] {
            let scripted = Upstream::start(move |request| match request.key.as_deref() {
                Some("bad") => refusal(format, status),
                _ => format.answer(request, &PIECES),
            });
            let keys = ["bad", "good"];
            let weir = start(vec![upstream("up", format, &scripted.url(), &keys)]);
            let model = format!("up/{}", format.model());
            for (number, streams) in [false, true, false, true].into_iter().enumerate() {
                let mut client = crate::client::Client::connect(weir.addr);
                client.post(&chat(&model, streams));
                let answer = client.answer(LIMIT);
                assert_fine(&format!("{format:?} {status} {number}"), streams, &answer);
            }
            // The bad one was asked once at most, and then rests.
            let bad = scripted.keys().iter().filter(|key| *key == "bad").count();
            assert!(
                bad <= 1 || status == 429,
                "{format:?}: {:?}",
                scripted.keys()
            );
            weir.idle(LIMIT);
        }
    }
}
