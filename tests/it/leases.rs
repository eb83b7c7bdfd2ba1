//! Behaviour section 3 beyond its table: how long a key rests, which target comes next, and how
//! requests wait for a slot.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Client, ask, chat, request};
use crate::completion::Completion;
use crate::first_mile::error_of;
use crate::upstream::{Format, Reply, Upstream};
use crate::wait::{LIMIT, until};
use crate::weir::{Weir, config, upstream};

/// Several keys of one upstream.
const SEVERAL: [&str; 3] = ["key-a", "key-b", "key-c"];

/// A configuration of several upstreams.
fn settings(upstreams: Vec<Value>) -> Value {
    let mut settings = config(Format::OpenAi, "", &[]);
    settings["upstreams"] = upstreams.into();
    settings["retries"] = json!(1);
    settings
}

#[test]
fn the_soonest_key_is_the_hint_that_the_caller_gets() {
    let limited = |seconds: &str| {
        Format::OpenAi
            .error(429, "rate_limit_exceeded", "x")
            .header("Retry-After", seconds)
    };
    let replies = [
        ("a", limited("90")),
        ("b", limited("40")),
        ("c", limited("70")),
    ];
    let scripted = Upstream::by_key(replies);
    let weir = Weir::start(&config(Format::OpenAi, &scripted.url(), &["a", "b", "c"]));
    for _ in 0..2 {
        // The second time no key is asked at all: each of them rests.
        let answer = weir.ask(&chat("up/gpt-4o-mini", false));
        assert_eq!(answer.status, 429);
        let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((38..=40).contains(&wait), "{wait}");
        assert_eq!(scripted.count(), 3, "{:?}", scripted.keys());
    }
    // Another model of the same keys is not held up (K4).
    let answer = weir.ask(&chat("up/gpt-4.1", false));
    assert_eq!((answer.status, scripted.count()), (429, 6));
    // And an operator can put an end to the rest.
    let reset = ask(weir.addr, "POST", "/status/reset", &[], b"");
    assert!((200..300).contains(&reset.status), "{}", reset.text());
    weir.ask(&chat("up/gpt-4o-mini", false));
    assert_eq!(scripted.count(), 9);
    weir.idle(LIMIT);
}

#[test]
fn three_slots_of_one_key_serve_three_slow_requests_at_once() {
    let scripted = Upstream::always(Format::OpenAi.whole("done").behind("end"));
    let mut settings = config(Format::OpenAi, &scripted.url(), &["k"]);
    settings["upstreams"][0]["slots"] = json!(3);
    let weir = Weir::start(&settings);
    let mut callers: Vec<Client> = (0..3)
        .map(|_| {
            let mut caller = Client::connect(weir.addr);
            caller.post(&chat("up/gpt-4o-mini", false));
            caller
        })
        .collect();
    // None is answered before all have been asked for.
    scripted.wait_requests(3, LIMIT);
    scripted.open("end");
    for caller in &mut callers {
        assert_eq!(caller.answer(LIMIT).status, 200);
    }
    weir.idle(LIMIT);
}

#[test]
fn one_key_and_a_500_and_the_next_request_works() {
    let failing = Format::OpenAi.error(500, "server_error", "their words");
    let fine = Format::OpenAi.whole("fine");
    let scripted = Upstream::queue([failing.clone(), failing, fine]);
    let weir = Weir::start(&settings(vec![upstream(
        "up",
        Format::OpenAi,
        &scripted.url(),
        &["k"],
    )]));
    let first = weir.ask(&chat("up/gpt-4o-mini", false));
    assert_eq!((first.status, scripted.count()), (500, 2));
    let next = weir.ask(&chat("up/gpt-4o-mini", false));
    assert_eq!((next.status, scripted.count()), (200, 3));
    weir.idle(LIMIT);
}

#[test]
fn hints_come_in_several_spellings_and_have_a_ceiling() {
    let detail = json!({"error": {"code": 429, "message": "q", "status": "RESOURCE_EXHAUSTED",
        "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.4s"}]}});
    let openai = || Format::OpenAi.error(429, "rate_limit_exceeded", "x");
    let cases = [
        ("google", Format::Gemini, Reply::json(429, &detail), 33..=35),
        (
            "millis",
            Format::OpenAi,
            openai().header("retry-after-ms", "20500"),
            19..=21,
        ),
        (
            "seconds",
            Format::OpenAi,
            openai().header("Retry-After", "12.2"),
            11..=13,
        ),
        (
            "hours",
            Format::OpenAi,
            openai().header("Retry-After", "7200"),
            298..=300,
        ),
        ("none", Format::OpenAi, openai(), 1..=1),
    ];
    for (name, format, reply, expected) in cases {
        let scripted = Upstream::always(reply);
        let weir = Weir::start(&config(format, &scripted.url(), &["k"]));
        let answer = weir.ask(&chat(&format!("up/{}", format.model()), false));
        assert_eq!(answer.status, 429, "{name}");
        let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!(expected.contains(&wait), "{name}: {wait}");
    }
}

#[test]
fn quota_switch_off_hands_the_429_on() {
    let scripted = Upstream::always(Format::OpenAi.error(429, "rate_limit_exceeded", "x"));
    let mut settings = config(Format::OpenAi, &scripted.url(), &SEVERAL);
    settings["quota_switch"] = json!(false);
    let weir = Weir::start(&settings);
    let answer = weir.ask(&chat("up/gpt-4o-mini", true));
    assert_eq!((answer.status, scripted.count()), (429, 1));
    assert!(answer.header("retry-after").is_some());
    weir.idle(LIMIT);
}

#[test]
fn no_retries_means_one_attempt() {
    let scripted = Upstream::always(Format::OpenAi.error(500, "m", "x"));
    let mut settings = config(Format::OpenAi, &scripted.url(), &SEVERAL);
    settings["retries"] = json!(0);
    let weir = Weir::start(&settings);
    assert_eq!(weir.ask(&chat("up/gpt-4o-mini", false)).status, 500);
    assert_eq!(scripted.count(), 1);
}

#[test]
fn the_deadline_ends_the_retries_as_well() {
    let scripted = Upstream::always(Format::OpenAi.error(500, "m", "x"));
    let mut settings = config(Format::OpenAi, &scripted.url(), &SEVERAL);
    settings["retries"] = json!(100);
    settings["backoff_ms"] = json!(50);
    settings["deadline_ms"] = json!(400);
    let weir = Weir::start(&settings);
    let begun = Instant::now();
    let answer = weir.ask(&chat("up/gpt-4o-mini", false));
    assert!(answer.status >= 500, "{}", answer.status);
    error_of(&answer);
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    assert!((2..50).contains(&scripted.count()), "{}", scripted.count());
    weir.idle(LIMIT);
}

#[test]
fn the_next_target_of_an_alias_steps_in() {
    let failures = [
        Format::OpenAi.error(404, "model_not_found", "x"),
        Format::OpenAi.error(401, "invalid_api_key", "x"),
        Format::OpenAi.error(429, "rate_limit_exceeded", "x"),
        Format::OpenAi.error(500, "m", "x"),
        Reply::silence().flush().reset(),
    ];
    for failure in failures {
        let first = Upstream::always(failure);
        let second = Upstream::start(|request| Format::Anthropic.answer(request, &["from two"]));
        let mut settings = settings(vec![
            upstream("one", Format::OpenAi, &first.url(), &["k"]),
            upstream("two", Format::Anthropic, &second.url(), &["k"]),
        ]);
        settings["models"] = json!({"fast": ["one/gpt-4o-mini", "two/claude-sonnet-4-5"]});
        let weir = Weir::start(&settings);
        let answer = weir.ask(&chat("fast", false));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let completion = Completion::whole(&answer.json());
        assert_eq!(
            (completion.content.as_str(), completion.model.as_str()),
            ("from two", "fast")
        );
        assert_eq!(answer.header("x-weir-upstream"), Some("two"));
        let streamed = weir.stream(&chat("fast", true));
        assert_eq!(streamed.completion.content, "from two");
        assert!(first.count() >= 1);
        weir.idle(LIMIT);
    }
}

#[test]
fn a_request_at_fault_is_not_taken_to_the_next_target() {
    let first = Upstream::always(Format::OpenAi.error(400, "invalid_value", "x"));
    let second = Upstream::always(Format::OpenAi.whole("never"));
    let mut settings = settings(vec![
        upstream("one", Format::OpenAi, &first.url(), &["k"]),
        upstream("two", Format::OpenAi, &second.url(), &["k"]),
    ]);
    settings["models"] = json!({"fast": ["one/gpt-4o-mini", "two/gpt-4o-mini"]});
    let weir = Weir::start(&settings);
    assert_eq!(weir.ask(&chat("fast", false)).status, 400);
    assert_eq!((first.count(), second.count()), (1, 0));
}

#[test]
fn waiting_for_a_slot_is_in_turn_and_bounded() {
    let scripted = Upstream::start(|request| {
        let gate = request.json()["messages"][0]["content"]
            .as_str()
            .unwrap()
            .to_string();
        Format::OpenAi.whole(&gate).behind(&gate)
    });
    let mut settings = config(Format::OpenAi, &scripted.url(), &["k"]);
    settings["upstreams"][0]["slots"] = json!(1);
    settings["max_waiting"] = json!(2);
    settings["lease_wait_ms"] = json!(20_000);
    let weir = Weir::start(&settings);
    let send = |text: &str| {
        let mut body = chat("up/gpt-4o-mini", false);
        body["messages"][0]["content"] = json!(text);
        let mut client = Client::connect(weir.addr);
        client.post(&body);
        client
    };
    let wait_for = |count: u64| {
        until(LIMIT, "a request to wait", || {
            (weir.status()["waiting"] == count).then_some(())
        })
    };
    let mut first = send("first");
    scripted.wait_requests(1, LIMIT);
    let mut second = send("second");
    wait_for(1);
    let mut third = send("third");
    wait_for(2);
    // No room for a fourth: told at once, not after the wait.
    let fourth = send("fourth").answer(Duration::from_secs(2));
    assert_eq!(fourth.status, 503, "{}", fourth.text());
    assert!(fourth.header("retry-after").is_some());
    error_of(&fourth);

    for (text, client) in [
        ("first", &mut first),
        ("second", &mut second),
        ("third", &mut third),
    ] {
        scripted.open(text);
        let answer = client.answer(LIMIT);
        assert_eq!(Completion::whole(&answer.json()).content, text);
    }
    let order: Vec<Value> = scripted
        .requests()
        .iter()
        .map(|request| request.json()["messages"][0]["content"].clone())
        .collect();
    assert_eq!(order, ["first", "second", "third"]);
    weir.idle(LIMIT);
}

#[test]
fn a_slot_that_never_comes_free_is_told_as_503() {
    let scripted = Upstream::always(Format::OpenAi.whole("x").behind("end"));
    let mut settings = config(Format::OpenAi, &scripted.url(), &["k"]);
    settings["upstreams"][0]["slots"] = json!(1);
    settings["lease_wait_ms"] = json!(100);
    let weir = Weir::start(&settings);
    let mut first = Client::connect(weir.addr);
    first.post(&chat("up/gpt-4o-mini", false));
    scripted.wait_requests(1, LIMIT);
    for stream in [false, true] {
        let answer = weir.ask(&chat("up/gpt-4o-mini", stream));
        assert_eq!(answer.status, 503, "{}", answer.text());
        assert!(answer.header("retry-after").is_some());
        error_of(&answer);
    }
    scripted.open("end");
    assert_eq!(first.answer(LIMIT).status, 200);
    weir.idle(LIMIT);
    assert_eq!(scripted.count(), 1);
}

#[test]
fn a_caller_who_does_not_read_the_answers_to_several_prompts_holds_no_slot() {
    // More than the sockets between weir and its caller take.
    let long = "x".repeat(16 << 20);
    let format = Format::Anthropic;
    let scripted = Upstream::start(move |request| {
        let is_long = request.json().to_string().contains("first");
        format.answer(request, &[if is_long { &long } else { "hi" }])
    });
    let mut settings = config(format, &scripted.url(), &["k"]);
    settings["upstreams"][0]["slots"] = json!(1);
    settings["lease_wait_ms"] = json!(15_000);
    settings["write_timeout_ms"] = json!(60_000);
    let weir = Weir::start(&settings);
    let model = crate::streams::model(format);
    let body = json!({"model": model, "prompt": ["first", "second"], "stream": true});
    let body = body.to_string();
    let mut slow = Client::connect(weir.addr);
    slow.send(&request("POST", "/v1/completions", &[], body.as_bytes()));
    assert!(!slow.first_read(LIMIT).is_empty());
    assert_eq!(weir.ask(&chat(&model, false)).status, 200);
    slow.reset();
    weir.idle(LIMIT);
}
