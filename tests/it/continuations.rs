//! Answers that come in several parts, each asked for with a request of its own. The caller sees one.

use serde_json::{Value, json};

use crate::client::chat;
use crate::completion::{Completion, Streamed};
use crate::streams::{model, once, pieces};
use crate::upstream::{Format, Reply, Upstream};
use crate::wait::{LIMIT, until};
use crate::weir::{Weir, config};

const FORMATS: [Format; 2] = [Format::Gemini, Format::Anthropic];

fn event(body: &Value) -> String {
    match body["type"].as_str() {
        Some(name) => format!("event: {name}\ndata: {body}\n\n"),
        None => format!("data: {body}\n\n"),
    }
}

/// The first part: it says `text` and that there is more to come.
fn first(format: Format, text: &str) -> Vec<String> {
    let events = match format {
        Format::Gemini => vec![
            json!({"candidates": [{"content": {"role": "model", "parts": [{"text": text}]}}]}),
            json!({
                "candidates": [{"finishReason": "CONTINUATION", "continuationToken": "more"}],
                "usageMetadata": {"promptTokenCount": 100, "candidatesTokenCount": 10}
            }),
        ],
        _ => vec![
            json!({"type": "message_start", "message": {
                "id": "msg_0", "type": "message", "role": "assistant", "content": [],
                "model": "claude-sonnet-4-5-20250929", "stop_reason": null, "stop_sequence": null,
                "usage": {"input_tokens": 100, "output_tokens": 1}
            }}),
            json!({"type": "content_block_start", "index": 0,
                "content_block": {"type": "text", "text": ""}}),
            json!({"type": "content_block_delta", "index": 0,
                "delta": {"type": "text_delta", "text": text}}),
            json!({"type": "content_block_stop", "index": 0}),
            json!({"type": "message_delta", "delta": {"stop_reason": "pause_turn"},
                "usage": {"output_tokens": 10}}),
            json!({"type": "message_stop"}),
        ],
    };
    events.iter().map(event).collect()
}

fn question(format: Format, streams: bool) -> Value {
    let mut body = chat(&model(format), streams);
    if format == Format::Anthropic {
        // Only what the provider runs itself can pause.
        body["web_search_options"] = json!({});
    }
    body
}

/// How many tokens the log's last request cost.
fn cost(log: &str) -> (u64, u64) {
    let number = |name: &str| {
        let (_, rest) = log.rsplit_once(name).unwrap_or_else(|| panic!("{log}"));
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap()
    };
    (number("prompt_tokens="), number("completion_tokens="))
}

#[test]
fn the_parts_are_one_answer() {
    for format in FORMATS {
        for streams in [false, true] {
            let scripted = Upstream::queue([
                Reply::stream().events(&first(format, "one ")).end(),
                format.stream(&["two ", "three"]),
            ]);
            let weir = once(format, &scripted);
            let body = question(format, streams);
            let what = format!("{format:?} {streams}");
            let content = match streams {
                true => {
                    let streamed = weir.stream(&body);
                    assert!(streamed.done, "{what}: {:?}", streamed.error);
                    assert_eq!(pieces(&streamed), ["one ", "two ", "three"], "{what}");
                    streamed.completion.content
                }
                false => Completion::whole(&weir.ask(&body).json()).content,
            };
            assert_eq!(content, "one two three", "{what}");
            let asked = scripted.requests();
            assert_eq!(asked.len(), 2, "{what}");
            let more = asked[1].json();
            match format {
                Format::Gemini => assert_eq!(more["continuationToken"], "more", "{more}"),
                _ => assert!(more.to_string().contains("one "), "{more}"),
            }
            let log = weir.wait_log("status=200", LIMIT);
            assert!(log.contains("attempts=1 "), "{what}: {log}");
            let (prompt, completion) = cost(&log);
            assert!(prompt > 100 && completion > 10, "{what}: {log}");
            weir.idle(LIMIT);
        }
    }
}

#[test]
fn a_part_that_fails_ends_the_stream_with_an_error_and_is_counted() {
    for format in FORMATS {
        let begun = &format.events(&["two"])[..1];
        let failed = Reply::stream()
            .events(match format {
                Format::Anthropic => begun,
                _ => &[],
            })
            .event(&format.error_event(503, "overloaded_error", "their words"))
            .end();
        let replies = [format.error(503, "overloaded_error", "their words"), failed];
        for (number, second) in replies.into_iter().enumerate() {
            let what = format!("{format:?} {number}");
            let scripted = Upstream::queue([
                Reply::stream().events(&first(format, "one ")).end(),
                second,
                format.stream(&["never"]),
            ]);
            // With retries and a second key to spare: neither may be used any more.
            let weir = Weir::start(&config(format, &scripted.url(), &["k1", "k2"]));
            let streamed = weir.stream(&question(format, true));
            let error = streamed.error.as_ref();
            let error = error.unwrap_or_else(|| panic!("{what}"));
            assert!(error.to_string().contains("their words"), "{what}: {error}");
            assert!(!streamed.done, "{what}");
            assert_eq!(pieces(&streamed), ["one "], "{what}");
            assert_eq!(scripted.count(), 2, "{what}");
            let log = weir.wait_log("their words", LIMIT);
            let (prompt, _) = cost(&log);
            // Claude's second part has begun, and says what it was asked.
            let most = match (format, number) {
                (Format::Anthropic, 1) => 101,
                _ => 100,
            };
            assert!(prompt >= most, "{what}: {log}");
            weir.idle(LIMIT);
        }
    }
}

#[test]
fn a_part_that_does_not_come_ends_with_the_first_byte_timer_or_when_the_caller_leaves() {
    for format in FORMATS {
        for leaves in [false, true] {
            let what = format!("{format:?} {leaves}");
            let scripted = Upstream::queue([
                Reply::stream().events(&first(format, "one ")).end(),
                Reply::silence().hang(),
            ]);
            let mut settings = config(format, &scripted.url(), &["k1"]);
            settings["upstreams"][0]["first_byte_ms"] = json!(if leaves { 60_000 } else { 300 });
            let weir = Weir::start(&settings);
            let mut stream = weir.open_stream(&question(format, true));
            while !stream.data(LIMIT).contains("one ") {}
            scripted.wait_requests(2, LIMIT);
            if leaves {
                stream.client.hang_up();
                weir.wait_log("status=499", LIMIT);
            } else {
                let streamed = Streamed::read(stream.rest(LIMIT));
                let error = streamed.error.unwrap_or_else(|| panic!("{what}"));
                let error = error.to_string();
                assert!(error.contains("within 300 ms"), "{what}: {error}");
                weir.wait_log("status=504", LIMIT);
            }
            until(LIMIT, "the slot", || {
                let status = weir.status();
                let free = &status["upstreams"][0]["keys"][0]["free"];
                (free == &json!(8)).then_some(())
            });
            weir.idle(LIMIT);
        }
    }
}
