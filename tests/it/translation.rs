//! What only the whole of weir can show of a translated request, and the list of test vectors.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::chat;
use crate::upstream::{Format, Reply, Upstream};
use crate::weir::{Weir, config};

/// An image by its address, for a model whose provider does not get it.
#[test]
fn an_image_by_address_is_refused_unless_weir_may_get_it_from_a_public_host() {
    let upstream = Upstream::start(|request| Format::Gemini.answer(request, &["hi"]));
    // Whatever is asked of it, it would be found here.
    let private = Upstream::start(|request| Format::Gemini.answer(request, &["secret"]));
    let url = private.url().replace("http://", "https://");
    for (fetches, url, why) in [
        (false, url.as_str(), "only if its config says fetch_images"),
        (true, &url, "has an address that is not public"),
        (true, &private.url(), "only https addresses are fetched"),
    ] {
        let mut settings = config(Format::Gemini, &upstream.url(), &["k"]);
        settings["fetch_images"] = json!(fetches);
        let weir = Weir::start(&settings);
        let image = json!({"type": "image_url", "image_url": {"url": url}});
        let body = json!({
            "model": "gemini-2.0-flash",
            "messages": [{"role": "user", "content": [image]}],
        });
        let answer = weir.ask(&body);
        assert_eq!(answer.status, 400, "{}", answer.text());
        let error = &answer.json()["error"];
        assert_eq!(error["param"], "messages[0].content[0].image_url.url");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(why), "{message}");
    }
    assert_eq!((upstream.count(), private.count()), (0, 0));
}

/// Gemini tells the tier that served in a header.
#[test]
fn the_tier_of_an_answer_is_told_to_those_who_asked_for_one() {
    let upstream = Upstream::start(|request| {
        Format::Gemini
            .answer(request, &["hi"])
            .header("x-gemini-service-tier", "standard")
    });
    let weir = Weir::start(&config(Format::Gemini, &upstream.url(), &["k"]));
    for stream in [false, true] {
        let mut body = chat("gemini-2.5-flash", stream);
        let answer = weir.ask(&body).text();
        assert!(!answer.contains("service_tier"), "{answer}");
        body["service_tier"] = json!("flex");
        let answer = weir.ask(&body).text();
        assert!(answer.contains(r#""service_tier":"default""#), "{answer}");
    }
}

/// The vendor counts fast requests apart, so who is told to wait with them is not with others.
#[test]
fn a_limit_of_the_fast_mode_stops_no_other_request() {
    let upstream = Upstream::start(|request| match request.json()["speed"].as_str() {
        Some(_) => Format::Anthropic.error(429, "rate_limit_error", "too fast"),
        None => Format::Anthropic.answer(request, &["hi"]),
    });
    let weir = Weir::start(&config(Format::Anthropic, &upstream.url(), &["k"]));
    let plain = chat("claude-opus-5-5", false);
    let mut fast = plain.clone();
    fast["service_tier"] = json!("fast");
    assert_eq!(weir.ask(&fast).status, 429);
    let asked = upstream.count();
    assert_eq!(weir.ask(&plain).status, 200);
    assert_eq!(weir.ask(&fast).status, 429);
    assert_eq!(upstream.count(), asked + 1, "the fast ones rest");
}

#[test]
fn vector_28_the_wait_that_google_asks_for_is_passed_on_in_whole_seconds() {
    let limited = json!({"error": {"code": 429, "message": "q", "status": "RESOURCE_EXHAUSTED",
        "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.4s"}]}});
    let upstream = Upstream::always(Reply::json(429, &limited));
    let weir = Weir::start(&config(Format::Gemini, &upstream.url(), &["k"]));
    let began = Instant::now();
    let answer = weir.ask(&chat("gemini-2.5-flash", false));
    let waited = began.elapsed().as_secs();
    assert_eq!((answer.status, upstream.count()), (429, 1));
    let after: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    // What went by on a busy machine counts; 0.4 s of it have room.
    assert!((35 - waited - 1..=35).contains(&after), "{after}");
    if began.elapsed() < Duration::from_millis(350) {
        assert_eq!(after, 35);
    }
}

#[test]
fn vector_29_a_key_that_google_refuses_with_a_400_gives_way_to_the_next() {
    let invalid = json!({"error": {"code": 400, "message": "API key not valid.",
        "status": "INVALID_ARGUMENT", "details": [{
            "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]}});
    for stream in [false, true] {
        let refusal = Reply::json(400, &invalid);
        let upstream = Upstream::start(move |request| match request.key.as_deref() {
            Some("good") => Format::Gemini.answer(request, &["hi"]),
            _ => refusal.clone(),
        });
        let weir = Weir::start(&config(Format::Gemini, &upstream.url(), &["bad", "good"]));
        let answer = weir.ask(&chat("gemini-2.5-flash", stream));
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(answer.text().contains("hi"), "{}", answer.text());
        assert_eq!(upstream.keys(), ["bad", "good"]);
    }
}

#[test]
fn vector_30_overload_everywhere_is_told_as_such() {
    let overloaded = Format::Anthropic.error(529, "overloaded_error", "Overloaded");
    let upstream = Upstream::always(overloaded);
    let mut settings = config(Format::Anthropic, &upstream.url(), &["a", "b"]);
    settings["backoff_ms"] = json!(0);
    let weir = Weir::start(&settings);
    let answer = weir.ask(&chat("claude-sonnet-4-5", false));
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(answer.json()["error"]["code"], "overloaded");
    let keys = upstream.keys();
    for key in ["a", "b"] {
        assert!(keys.iter().any(|used| used == key), "{keys:?}");
    }
}

/// The test vectors of the translation are numbered from 1 to 36. Each is a golden case `vNN_...`
/// or a test `vector_NN_...`, so that one can be found by its number and none gets lost.
#[test]
fn every_vector_is_a_test_by_its_number() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut seen = BTreeSet::new();
    let mut folders = vec![root.join("src"), root.join("tests")];
    while let Some(folder) = folders.pop() {
        let is_golden = folder.starts_with(root.join("tests/golden"));
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() {
                folders.push(path);
            } else if is_golden && is_expected(name) {
                seen.extend(name.strip_prefix('v').and_then(number));
            } else if name.ends_with(".rs") {
                let text = fs::read_to_string(&path).unwrap();
                let mut attribute = false;
                for line in text.lines().map(str::trim) {
                    if let Some(rest) = line.strip_prefix("fn vector_")
                        && attribute
                    {
                        seen.extend(number(rest));
                    }
                    attribute = line == "#[test]";
                }
            }
        }
    }
    let missing: Vec<u32> = (1..=36).filter(|vector| !seen.contains(vector)).collect();
    assert!(missing.is_empty(), "no test for the vectors {missing:?}");
    assert_eq!(seen.len(), 36, "{seen:?}");
}

/// What a golden case is compared with.
fn is_expected(name: &str) -> bool {
    ["sent.json", "error.json", "chunks.sse", "completion.json"]
        .iter()
        .any(|kind| name.ends_with(kind))
}

/// Of `12_some_words`.
fn number(text: &str) -> Option<u32> {
    let (digits, _) = text.split_once('_')?;
    digits.parse().ok().filter(|_| digits.len() == 2)
}
