//! Behaviour section 4: what a caller sees of a stream, and when.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Client, Item, chat};
use crate::completion::Streamed;
use crate::first_mile::error_of;
use crate::upstream::{Format, Reply, Upstream};
use crate::wait::LIMIT;
use crate::weir::{Weir, config};

/// Well within this a chunk must be through, on a machine with other things to do.
pub const PROMPT: Duration = Duration::from_secs(1);

pub fn model(format: Format) -> String {
    format!("up/{}", format.model())
}

/// A weir in front of `scripted` without retries, for tests that look at one attempt.
pub fn once(format: Format, scripted: &Upstream) -> Weir {
    let mut settings = config(format, &scripted.url(), &["k1", "k2"]);
    settings["retries"] = json!(0);
    Weir::start(&settings)
}

/// The pieces of text in the chunks, in order.
pub fn pieces(streamed: &Streamed) -> Vec<&str> {
    streamed
        .chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
        .filter(|text| !text.is_empty())
        .collect()
}

/// A long history counts for as long as it may have to be sent again, and not for the minutes that
/// its answer takes.
#[test]
fn a_stream_that_has_begun_does_not_hold_its_request() {
    const STREAMS: usize = 10;
    const LONG: usize = 4 << 20;
    let format = Format::OpenAi;
    let scripted = Upstream::start(move |_| {
        let events = format.events(&["one ", "two"]);
        let (begun, rest) = events.split_at(format.events_to_first_text());
        Reply::stream().events(begun).gate("go").events(rest).end()
    });
    let mut settings = config(format, &scripted.url(), &["k1", "k2"]);
    // Until the last of them has begun, the first ones are silent.
    settings["upstreams"][0]["idle_ms"] = json!(60_000);
    let weir = Weir::start(&settings);
    let before = weir.rss_kib();
    let mut body = chat(&model(format), true);
    body["messages"][0]["content"] = json!("x".repeat(LONG));
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let mut stream = weir.open_stream(&body);
        while !stream.data(LIMIT).contains("one ") {}
        streams.push(stream);
    }
    // As the caller sent it and as the upstream got it, each request came to 8 MiB.
    let all = STREAMS * LONG / 1024;
    let held = weir.rss_kib().saturating_sub(before);
    assert!(held < all, "{held} KiB of {} are held", 2 * all);
    scripted.open("go");
    for mut stream in streams {
        let streamed = Streamed::read(stream.rest(LIMIT));
        assert_eq!(pieces(&streamed), ["two"]);
    }
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
