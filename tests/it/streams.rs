//! Behaviour section 4: what a caller sees of a stream, and when.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Client, End, Item, chat};
use crate::completion::Streamed;
use crate::first_mile::error_of;
use crate::upstream::{Format, Reply, Upstream};
use crate::wait::LIMIT;
use crate::weir::{Weir, config, upstream};

/// Well within this a chunk must be through, on a machine with other things to do.
const PROMPT: Duration = Duration::from_secs(1);

fn model(format: Format) -> String {
    format!("up/{}", format.model())
}

/// A weir in front of `scripted` without retries, for tests that look at one attempt.
fn once(format: Format, scripted: &Upstream) -> Weir {
    let mut settings = config(format, &scripted.url(), &["k1", "k2"]);
    settings["retries"] = json!(0);
    Weir::start(&settings)
}

/// The pieces of text in the chunks, in order.
fn pieces(streamed: &Streamed) -> Vec<&str> {
    streamed
        .chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
        .filter(|text| !text.is_empty())
        .collect()
}

#[test]
fn a_stream_cut_after_its_first_words_ends_with_an_error() {
    for format in Format::CHAT {
        let events = format.events(&["one ", "two"]);
        let begun = Reply::stream().events(&events[..format.events_to_first_text()]);
        let endings = [
            ("close", begun.clone().close()),
            ("reset", begun.clone().gate("seen").reset()),
            // Framed to its end, but without the format's own last event.
            ("end", begun.end()),
        ];
        for (name, reply) in endings {
            let scripted = Upstream::queue([reply]);
            // With retries and a second key to spare: neither may be used any more (K3).
            let weir = Weir::start(&config(format, &scripted.url(), &["k1", "k2"]));
            let mut stream = weir.open_stream(&chat(&model(format), true));
            // Reads on until the words are here; a reset may overtake bytes otherwise.
            let mut seen = Vec::new();
            while !seen.iter().any(|data: &String| data.contains("one ")) {
                seen.push(stream.data(LIMIT));
            }
            scripted.open("seen");
            let streamed = Streamed::read(stream.rest(LIMIT));
            let error = streamed
                .error
                .as_ref()
                .unwrap_or_else(|| panic!("{format:?} {name}"));
            assert!(
                error["message"].is_string() && error["type"].is_string(),
                "{error}"
            );
            assert!(!streamed.done, "{format:?} {name}");
            assert_eq!(pieces(&streamed), Vec::<&str>::new(), "{format:?} {name}");
            assert_eq!(streamed.completion.finish, None, "{format:?} {name}");
            assert_eq!(scripted.count(), 1, "{format:?} {name}");
            weir.idle(LIMIT);
        }
    }
}

#[test]
fn an_error_event_in_the_middle_keeps_its_words() {
    for format in Format::CHAT {
        let events = format.events(&["one ", "two"]);
        let kind = if format == Format::Anthropic {
            "overloaded_error"
        } else {
            "server_error"
        };
        let reply = Reply::stream()
            .events(&events[..format.events_to_first_text()])
            .event(&format.error_event(503, kind, "their words"))
            .end();
        let scripted = Upstream::queue([reply]);
        let weir = Weir::start(&config(format, &scripted.url(), &["k1", "k2"]));
        let streamed = weir.stream(&chat(&model(format), true));
        let error = streamed.error.as_ref().expect("an error event");
        assert!(
            error["message"].as_str().unwrap().contains("their words"),
            "{error}"
        );
        assert_eq!(pieces(&streamed), ["one "], "{format:?}");
        assert!(!streamed.done);
        assert_eq!(scripted.count(), 1);
        weir.idle(LIMIT);
    }
}

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
fn head_and_first_event_arrive_in_one_read() {
    for format in Format::CHAT {
        let events = format.events(&["one ", "two"]);
        let (before, after) = events.split_at(format.events_to_first_text());
        let reply = Reply::stream()
            .events(before)
            .gate("go")
            .events(after)
            .end();
        let scripted = Upstream::always(reply);
        let weir = once(format, &scripted);
        let mut client = Client::connect(weir.addr);
        client.post(&chat(&model(format), true));
        let read = client.first_read(LIMIT);
        let text = String::from_utf8_lossy(&read);
        let (head, body) = text.split_once("\r\n\r\n").expect("the whole head");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(body.contains("data: {"), "{format:?}: {body:?}");
        scripted.open("go");
        let streamed = Streamed::read(client.stream(LIMIT).rest(LIMIT));
        assert_eq!(streamed.completion.content, "one two");
    }
}

#[test]
fn each_event_is_passed_on_before_the_next_one_comes() {
    for format in Format::CHAT {
        let texts = ["a", "b", "c", "d", "e"];
        let events = format.events(&texts);
        let first = format.events_to_first_text();
        let mut reply = Reply::stream().events(&events[..first]);
        for (number, event) in events[first..].iter().enumerate() {
            reply = reply.gate(&format!("gate {number}")).event(event);
        }
        let scripted = Upstream::always(reply.end());
        let weir = once(format, &scripted);
        let mut stream = weir.open_stream(&chat(&model(format), true));
        let mut opened = Instant::now();
        for (number, text) in texts.iter().enumerate() {
            loop {
                let item = stream.next(LIMIT).expect("more of the stream");
                let Item::Data(data) = item.item else {
                    continue;
                };
                let chunk: Value = serde_json::from_str(&data).unwrap();
                if chunk["choices"][0]["delta"]["content"] == **text {
                    let took = item.at.saturating_duration_since(opened);
                    assert!(took < PROMPT, "{format:?} {text}: {took:?}");
                    break;
                }
            }
            opened = Instant::now();
            scripted.open(&format!("gate {number}"));
        }
        for number in texts.len()..events.len() {
            scripted.open(&format!("gate {number}"));
        }
        assert!(Streamed::read(stream.rest(LIMIT)).done);
    }
}

#[test]
fn bytes_may_be_cut_anywhere() {
    for format in Format::CHAT {
        let text = format
            .events(&["Zü", "rich 👩‍👩‍👧 \"q\"\\n", "\u{2028}end"])
            .concat();
        let mut reply = Reply::stream();
        for byte in text.bytes() {
            reply.steps.push(crate::upstream::Step::Chunk(vec![byte]));
            // Every few bytes really leave on their own.
            if byte % 16 == 0 {
                reply = reply.flush();
            }
        }
        let scripted = Upstream::always(reply.end());
        let weir = once(format, &scripted);
        let streamed = weir.stream(&chat(&model(format), true));
        assert!(streamed.done, "{format:?}: {:?}", streamed.error);
        assert_eq!(streamed.completion.content, "Zürich 👩‍👩‍👧 \"q\"\\n\u{2028}end");
    }
}

#[test]
fn lines_of_every_kind_are_understood() {
    let chunk = |content: &str, finish: Value| {
        json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
            "choices": [{"index": 0, "delta": {"content": content}, "finish_reason": finish}]})
    };
    let text = format!(
        "\u{feff}: a comment\r\n\r\nevent: message\r\nid: 7\r\ndata:{}\r\n\r\nretry: 10\n\n\
         data: {}\r\rdata: [DONE]\n\n",
        chunk("one ", Value::Null),
        chunk("two", json!("stop")),
    );
    let scripted = Upstream::always(Reply::stream().event(&text).end());
    let weir = once(Format::OpenAi, &scripted);
    let streamed = weir.stream(&chat(&model(Format::OpenAi), true));
    assert!(streamed.done, "{streamed:?}");
    assert_eq!(streamed.completion.content, "one two");
}

#[test]
fn a_bare_json_error_in_a_200_is_an_error() {
    for format in Format::CHAT {
        let body = format.error_body(500, "internal", "their words");
        let scripted = Upstream::always(Reply::stream().event(&format!("{body:#}\n")).end());
        let weir = once(format, &scripted);
        let answer = weir.ask(&chat(&model(format), true));
        assert!(answer.status >= 500, "{format:?}: {}", answer.status);
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
fn an_openai_stream_without_done_is_complete_if_it_has_a_finish_reason() {
    let mut events = Format::OpenAi.events(&["all"]);
    assert_eq!(events.pop().as_deref(), Some("data: [DONE]\n\n"));
    let scripted = Upstream::always(Reply::stream().events(&events).end());
    let weir = once(Format::OpenAi, &scripted);
    let streamed = weir.stream(&chat(&model(Format::OpenAi), true));
    assert!(streamed.done && streamed.error.is_none(), "{streamed:?}");
    assert_eq!(streamed.completion.content, "all");
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
