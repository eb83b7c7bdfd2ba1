//! Behaviour section 4 where time is of the essence: heartbeats, silence, and callers who do not
//! read.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::{Client, End, Item, chat};
use crate::completion::Streamed;
use crate::first_mile::error_of;
use crate::streams::{PROMPT, model, once, pieces};
use crate::upstream::{Format, Reply, Upstream};
use crate::wait::LIMIT;
use crate::weir::{Weir, config, upstream};

#[test]
fn silence_before_the_first_event_is_filled_with_heartbeats() {
    for format in Format::CHAT {
        let scripted = Upstream::always(format.stream(&["late"]).behind("go"));
        let weir = once(format, &scripted);
        let mut client = Client::connect(weir.addr);
        let asked = Instant::now();
        client.post(&chat(&model(format), true));
        let mut stream = client.stream(LIMIT);
        // Not before the interval is over (S2), and soon after it.
        let waited = stream.head.at - asked;
        let interval = Duration::from_millis(290);
        assert!(
            waited >= interval && waited < interval + PROMPT,
            "{waited:?}"
        );
        let mut last = stream.head.at;
        for beat in 0..3 {
            let item = stream.next(LIMIT).expect("a heartbeat");
            assert_eq!(item.item, Item::Comment("keep-alive".into()));
            let gap = item.at - last;
            // The first one may come together with the head.
            assert!(beat == 0 || gap >= Duration::from_millis(200), "{gap:?}");
            assert!(gap < interval + PROMPT, "{gap:?}");
            last = item.at;
        }
        scripted.open("go");
        let streamed = Streamed::read(stream.rest(LIMIT));
        assert!(streamed.done, "{format:?}: {streamed:?}");
        assert_eq!(streamed.completion.content, "late");
        weir.idle(LIMIT);
    }
}

#[test]
fn silence_between_events_is_filled_with_heartbeats_and_none_come_after_the_end() {
    let format = Format::OpenAi;
    let events = format.events(&["one ", "two"]);
    let (before, after) = events.split_at(format.events_to_first_text());
    let reply = Reply::stream()
        .events(before)
        .gate("go")
        .events(after)
        .end();
    let scripted = Upstream::always(reply);
    let weir = once(format, &scripted);
    let mut stream = weir.open_stream(&chat(&model(format), true));
    while !stream.data(LIMIT).contains("one ") {}
    for _ in 0..2 {
        let item = stream.next(LIMIT).unwrap();
        assert_eq!(item.item, Item::Comment("keep-alive".into()));
    }
    scripted.open("go");
    let streamed = Streamed::read(stream.rest(LIMIT));
    assert!(streamed.done);
    assert_eq!(pieces(&streamed), ["two"]);
    // The connection is free again, and nothing follows the end on it.
    let mut client = stream.client;
    client.post(&chat("no-such-model", false));
    assert_eq!(client.answer(LIMIT).status, 404);
}

#[test]
fn a_busy_stream_has_no_heartbeats() {
    let texts: Vec<String> = (0..40).map(|number| format!("{number} ")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let mut reply = Reply::stream();
    for event in Format::Gemini.events(&texts) {
        // 40 events over 600 ms, twice the interval.
        reply = reply.event(&event).delay(Duration::from_millis(15));
    }
    let scripted = Upstream::always(reply.end());
    let weir = once(Format::Gemini, &scripted);
    let streamed = weir.stream(&chat(&model(Format::Gemini), true));
    assert!(streamed.done);
    assert_eq!(streamed.completion.content, texts.concat());
    assert_eq!(streamed.heartbeats, 0);
}

#[test]
fn a_503_before_the_first_event_is_a_503() {
    for format in Format::CHAT {
        let kind = if format == Format::Anthropic {
            "overloaded_error"
        } else {
            "unavailable"
        };
        let scripted = Upstream::always(format.error(503, kind, "their words"));
        let weir = once(format, &scripted);
        let answer = weir.ask(&chat(&model(format), true));
        assert_eq!(answer.status, 503, "{format:?}");
        assert!(
            error_of(&answer)["message"]
                .as_str()
                .unwrap()
                .contains("their words")
        );
        weir.idle(LIMIT);
    }
}

#[test]
fn a_503_after_heartbeats_is_an_error_event() {
    for format in Format::CHAT {
        let kind = if format == Format::Anthropic {
            "overloaded_error"
        } else {
            "unavailable"
        };
        let scripted = Upstream::always(format.error(503, kind, "their words").behind("go"));
        let weir = once(format, &scripted);
        let mut stream = weir.open_stream(&chat(&model(format), true));
        let beat = stream.next(LIMIT).unwrap();
        assert_eq!(beat.item, Item::Comment("keep-alive".into()));
        scripted.open("go");
        let streamed = Streamed::read(stream.rest(LIMIT));
        let error = streamed.error.as_ref().expect("an error event");
        assert!(
            error["message"].as_str().unwrap().contains("their words"),
            "{error}"
        );
        assert!(!streamed.done && streamed.chunks.is_empty(), "{streamed:?}");
        assert_eq!(scripted.count(), 1);
        weir.idle(LIMIT);
    }
}

#[test]
fn silence_beyond_the_idle_limit_ends_the_stream() {
    let events = Format::Anthropic.events(&["one ", "two"]);
    let begun = &events[..Format::Anthropic.events_to_first_text()];
    let scripted = Upstream::always(Reply::stream().events(begun).hang());
    let mut settings = config(Format::Anthropic, &scripted.url(), &["k"]);
    settings["upstreams"][0]["idle_ms"] = json!(400);
    settings["keepalive_ms"] = json!(100);
    let weir = Weir::start(&settings);
    let streamed = weir.stream(&chat(&model(Format::Anthropic), true));
    assert!(streamed.error.is_some() && !streamed.done, "{streamed:?}");
    assert!(streamed.heartbeats >= 1);
    scripted.wait_closed(0, LIMIT);
    weir.idle(LIMIT);
}

#[test]
fn a_caller_who_does_not_read_is_cut_off_and_holds_up_nobody() {
    // More than all socket buffers between the two ends can take.
    let piece = "x".repeat(1 << 20);
    let flood = Format::Gemini.events(&vec![piece.as_str(); 48]);
    let flood = Reply::stream().events(&flood).end();
    let flooding = Upstream::always(flood);
    let events = Format::OpenAi.events(&["one ", "two"]);
    let (before, after) = events.split_at(Format::OpenAi.events_to_first_text());
    let calm = Upstream::always(
        Reply::stream()
            .events(before)
            .gate("go")
            .events(after)
            .end(),
    );
    let mut settings = config(Format::OpenAi, &calm.url(), &["k"]);
    settings["upstreams"].as_array_mut().unwrap().push(upstream(
        "flood",
        Format::Gemini,
        &flooding.url(),
        &["k"],
    ));
    settings["write_timeout_ms"] = json!(400);
    settings["keepalive_ms"] = json!(150);
    let weir = Weir::start(&settings);

    let mut beside = weir.open_stream(&chat(&model(Format::OpenAi), true));
    while !beside.data(LIMIT).contains("one ") {}
    let mut deaf = Client::connect(weir.addr);
    deaf.post(&chat("flood/gemini-2.5-flash", true));
    flooding.wait_requests(1, LIMIT);
    // Meanwhile the neighbour gets its heartbeats in time.
    let mut last = Instant::now();
    for _ in 0..4 {
        let item = beside.next(LIMIT).unwrap();
        assert_eq!(item.item, Item::Comment("keep-alive".into()));
        let gap = item.at.saturating_duration_since(last);
        assert!(gap < PROMPT, "{gap:?}");
        last = item.at;
    }
    flooding.wait_closed(0, LIMIT);
    calm.open("go");
    let streamed = Streamed::read(beside.rest(LIMIT));
    assert!(streamed.done);
    weir.idle(LIMIT);
    // What was under way still arrives, and then the connection is over.
    let got = deaf.until_closed(LIMIT);
    assert!(got.len() < 48 << 20, "{}", got.len());
}

#[test]
fn a_slow_reader_who_keeps_reading_gets_everything() {
    let piece = "y".repeat(1 << 16);
    let flood = Reply::stream()
        .events(&Format::Gemini.events(&vec![piece.as_str(); 64]))
        .end();
    let scripted = Upstream::always(flood);
    let weir = once(Format::Gemini, &scripted);
    let mut stream = weir.open_stream(&chat(&model(Format::Gemini), true));
    stream.data(LIMIT);
    let (items, end) = stream.rest(LIMIT);
    assert_eq!(end, End::Framed);
    let streamed = Streamed::read((items, end));
    assert!(streamed.done);
    // The role chunk, or the first piece itself, was read before.
    assert!(streamed.completion.content.len() >= 63 << 16);
}
