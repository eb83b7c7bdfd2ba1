//! What callers may use, by their keys.

use std::fs;

use serde_json::json;

use crate::client::{Answer, Client, ask, chat, request};
use crate::first_mile::error_of;
use crate::upstream::{Format, Upstream};
use crate::wait::LIMIT;
use crate::weir::{Folder, Weir, config};

const MODEL: &str = "up/gpt-4o-mini";

fn with(weir: &Weir, key: &str) -> Answer {
    let bearer = format!("Bearer {key}");
    let body = chat(MODEL, false).to_string();
    let headers = [("Authorization", bearer.as_str())];
    ask(
        weir.addr,
        "POST",
        "/v1/chat/completions",
        &headers,
        body.as_bytes(),
    )
}

fn number(answer: &Answer, name: &str) -> u64 {
    let value = answer.header(name);
    let value = value.unwrap_or_else(|| panic!("no {name} in {:?}", answer.headers));
    value.parse().unwrap()
}

#[test]
fn a_key_is_held_to_its_requests_and_told_what_is_left() {
    let upstream = Upstream::start(|request| Format::OpenAi.answer(request, &["hi"]));
    let mut settings = config(Format::OpenAi, &upstream.url(), &["k"]);
    settings["client_keys"] = json!([
        {"name": "two", "key": "key-two", "requests_per_minute": 2, "tokens_per_minute": 1000},
        {"name": "free", "key": "key-free"},
        {"name": "day", "key": "key-day", "tokens_per_day": 1},
    ]);
    let weir = Weir::start(&settings);
    for left in [1, 0] {
        let answer = with(&weir, "key-two");
        assert_eq!(answer.status, 200);
        assert_eq!(number(&answer, "x-ratelimit-limit-requests"), 2);
        assert_eq!(number(&answer, "x-ratelimit-remaining-requests"), left);
        assert!(answer.header("x-ratelimit-reset-requests").is_some());
        assert_eq!(number(&answer, "x-ratelimit-limit-tokens"), 1000);
    }
    let answer = with(&weir, "key-two");
    assert_eq!(answer.status, 429);
    assert_eq!(error_of(&answer)["code"], "rate_limit_exceeded");
    assert!((1..=30).contains(&number(&answer, "retry-after")));
    assert_eq!(number(&answer, "x-ratelimit-remaining-requests"), 0);
    assert!(
        number(&answer, "x-ratelimit-remaining-tokens") < 1000,
        "the first two cost some"
    );

    let free = with(&weir, "key-free");
    assert_eq!(free.status, 200);
    assert_eq!(free.header("x-ratelimit-limit-requests"), None);

    assert_eq!(with(&weir, "key-day").status, 200);
    let answer = with(&weir, "key-day");
    assert_eq!(answer.status, 429);
    assert_eq!(error_of(&answer)["code"], "insufficient_quota");
    assert_eq!(answer.header("x-should-retry"), Some("false"));
    assert!(number(&answer, "retry-after") <= 86_400);
    assert_eq!(upstream.count(), 4);
}

#[test]
fn a_key_is_held_to_its_concurrent_requests() {
    let upstream = Upstream::start(|request| Format::OpenAi.answer(request, &["hi"]).behind("go"));
    let mut settings = config(Format::OpenAi, &upstream.url(), &["k"]);
    settings["client_keys"] = json!([{"name": "one", "key": "key-one", "concurrent": 1}]);
    let weir = Weir::start(&settings);
    let mut first = Client::connect(weir.addr);
    let body = chat(MODEL, false).to_string();
    let headers = [("Authorization", "Bearer key-one")];
    first.send(&request(
        "POST",
        "/v1/chat/completions",
        &headers,
        body.as_bytes(),
    ));
    upstream.wait_requests(1, LIMIT);
    assert_eq!(with(&weir, "key-one").status, 429);
    upstream.open("go");
    assert_eq!(first.answer(LIMIT).status, 200);
    assert_eq!(with(&weir, "key-one").status, 200);
}

#[test]
fn keys_of_a_file_are_read_again_on_sighup() {
    let upstream = Upstream::start(|request| Format::OpenAi.answer(request, &["hi"]));
    let folder = Folder::new();
    let file = folder.path().join("keys");
    // The second is the digest of `other`.
    fs::write(
        &file,
        "# callers\n\nold old-key-1\n  limited sha256:d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa up/* requests_per_minute=1\nnarrow narrow-key gemini-*\n",
    )
    .unwrap();
    let mut settings = config(Format::OpenAi, &upstream.url(), &["k"]);
    settings["client_keys_file"] = json!(file.to_str().unwrap());
    let weir = Weir::start(&settings);
    assert_eq!(with(&weir, "old-key-1").status, 200);
    assert_eq!(with(&weir, "new-key-1").status, 401);
    assert_eq!(with(&weir, "narrow-key").status, 404);
    assert_eq!(with(&weir, "other").status, 200);
    assert_eq!(with(&weir, "other").status, 429);

    fs::write(&file, "new new-key-1\n").unwrap();
    weir.signal(libc::SIGHUP);
    weir.wait_log("configuration reloaded", LIMIT);
    assert_eq!(with(&weir, "old-key-1").status, 401);
    assert_eq!(with(&weir, "new-key-1").status, 200);

    fs::write(&file, "only-a-name\n").unwrap();
    weir.signal(libc::SIGHUP);
    let log = weir.wait_log("not reloaded", LIMIT);
    assert!(
        log.contains("client_keys_file line 1: needs a name and a key"),
        "{log}"
    );
    assert_eq!(with(&weir, "new-key-1").status, 200);
}
