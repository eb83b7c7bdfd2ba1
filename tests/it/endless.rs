//! Answers that do not end: what weir holds of one, and how it is ended.

use serde_json::{Value, json};

use crate::client::{Answer, chat, request};
use crate::first_mile::error_of;
use crate::upstream::{Format, Reply, Upstream};
use crate::wait::LIMIT;
use crate::weir::{Weir, config};

const MIB: usize = 1 << 20;

/// Most that the peak of memory may grow by for an answer of at most 1 MiB: what is held, an event
/// in several forms, and what the allocator keeps. The state of a stream may be 16 MiB.
const GROWTH_KIB: usize = 10 << 10;

fn weir_with(format: Format, url: &str, settings: Value) -> Weir {
    let mut all = config(format, url, &["k1", "k2"]);
    for (key, value) in settings.as_object().unwrap() {
        all[key] = value.clone();
    }
    Weir::start(&all)
}

/// A stream that says 20 MiB of text.
fn endless(format: Format) -> Reply {
    let piece = "x".repeat(64 << 10);
    let events = format.events(&[&piece, &piece]);
    let first = format.events_to_first_text();
    let mut reply = Reply::stream().events(&events[..first]);
    for _ in 0..320 {
        reply = reply.event(&events[first]);
    }
    reply.hang()
}

fn post(weir: &Weir, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
    let mut client = crate::client::Client::connect(weir.addr);
    client.send(&request("POST", path, headers, body.to_string().as_bytes()));
    client.answer(LIMIT)
}

#[test]
fn an_answer_put_together_from_a_stream_is_as_long_as_any_other() {
    for format in [
        Format::Anthropic,
        Format::Gemini,
        Format::Responses,
        Format::OpenAi,
    ] {
        let stream = endless(format);
        let upstream = Upstream::always(stream);
        let weir = weir_with(format, &upstream.url(), json!({"max_answer_bytes": MIB}));
        let model = format!("up/{}", format.model());
        let prompt = json!({"model": model, "prompt": "a"});
        let json = ("content-type", "application/json");
        let text = ("accept", "text/plain");
        for (path, headers, body) in [
            ("/v1/chat/completions", vec![json], chat(&model, false)),
            (
                "/v1/chat/completions",
                vec![json, text],
                chat(&model, false),
            ),
            ("/v1/completions", vec![json], prompt),
        ] {
            if format == Format::OpenAi && path == "/v1/completions" {
                // Its own route is asked first, and passed on in pieces.
                continue;
            }
            let (asked, before) = (upstream.count(), weir.peak_rss_kib());
            let answer = post(&weir, path, &headers, &body);
            let what = format!("{format:?} {path} {headers:?}: {}", answer.text());
            assert_eq!(answer.status, 502, "{what}");
            if headers.len() == 1 {
                assert_eq!(error_of(&answer)["code"], "malformed_response", "{what}");
            }
            assert!(answer.text().contains("max_answer_bytes"), "{what}");
            assert_eq!(upstream.count(), asked + 1, "{what}");
            let grown = weir.peak_rss_kib() - before;
            assert!(grown < GROWTH_KIB, "{grown} KiB: {what}");
        }
        weir.idle(LIMIT);
    }
}

/// Each of the answers fits, all of them together do not.
#[test]
fn the_prompts_of_one_request_share_what_an_answer_may_be() {
    for format in [Format::Anthropic, Format::Gemini, Format::Responses] {
        let upstream =
            Upstream::start(move |request| format.answer(request, &[&"x".repeat(100 << 10)]));
        let weir = weir_with(
            format,
            &upstream.url(),
            json!({"max_answer_bytes": MIB / 4}),
        );
        let model = format!("up/{}", format.model());
        let json = ("content-type", "application/json");
        for (prompts, status) in [(2, 200), (3, 502), (32, 502)] {
            let prompts: Vec<String> = (0..prompts).map(|n| n.to_string()).collect();
            let body = json!({"model": model, "prompt": prompts});
            let answer = post(&weir, "/v1/completions", &[json], &body);
            assert_eq!(answer.status, status, "{format:?}: {}", answer.body.len());
            if status == 502 {
                assert_eq!(error_of(&answer)["code"], "malformed_response");
            }
        }
        // Two, and the third of each.
        assert_eq!(upstream.count(), 2 + 3 + 3);
    }
}

/// What a stream keeps open has an end, after which the caller is told.
#[test]
fn a_stream_that_keeps_more_and_more_open_is_ended() {
    let long = "x".repeat(64 << 10);
    let anthropic = {
        let citation = json!({"type": "content_block_delta", "index": 0, "delta": {
            "type": "citations_delta", "citation": {
                "type": "web_search_result_location", "url": "u", "title": long}}});
        let events = Format::Anthropic.events(&["hi", "ho"]);
        let first = Format::Anthropic.events_to_first_text();
        let mut reply = Reply::stream().events(&events[..first]);
        for _ in 0..512 {
            reply = reply.event(&format!("event: content_block_delta\ndata: {citation}\n\n"));
        }
        reply.hang()
    };
    let gemini = {
        let mut reply = Reply::stream();
        for n in 0..1024 {
            let said = json!({"candidates": [{"index": n % 64, "content": {"parts": [
                {"text": "a", "thoughtSignature": long.repeat(8)}]}}]});
            reply = reply.event(&format!("data: {said}\n\n"));
        }
        reply.hang()
    };
    let openai = {
        let mut reply = Reply::stream();
        for n in 0..512 {
            let chunk = json!({"id": "c", "choices": [{"index": 0, "delta": {"tool_calls": [
                {"id": format!("{n}{long}"), "function": {"name": "f", "arguments": ""}}]}}]});
            reply = reply.event(&format!("data: {chunk}\n\n"));
        }
        reply.hang()
    };
    for (format, reply) in [
        (Format::Anthropic, anthropic),
        (Format::Gemini, gemini),
        (Format::OpenAi, openai),
    ] {
        let upstream = Upstream::always(reply);
        let weir = weir_with(format, &upstream.url(), json!({}));
        let before = weir.peak_rss_kib();
        let answer = weir.ask(&chat(&format!("up/{}", format.model()), true));
        let text = answer.text();
        let tail = &text[text.len().saturating_sub(400)..];
        assert_eq!(answer.status, 200, "{format:?}: {tail}");
        assert!(
            tail.contains("keeps more open at once"),
            "{format:?}: {tail}"
        );
        assert!(!text.contains("[DONE]"), "{format:?}: {tail}");
        assert_eq!(upstream.count(), 1);
        let grown = weir.peak_rss_kib() - before;
        assert!(grown < 4 * GROWTH_KIB, "{format:?}: {grown} KiB");
        weir.idle(LIMIT);
    }
}
