//! Answers on their way from an upstream that speaks the caller's format.

use super::{RelayStream, encode, relay_body};
use crate::chat::Usage;
use crate::dialect::openai::{Head, Stamp, error_event};
use crate::failure::{Class, Failure};
use crate::golden::{Case, each_case, each_event, told};
use crate::provider::Flow;

fn stamp(include_usage: bool) -> Stamp {
    Stamp {
        seed: 1,
        created: 1,
        model: "m".into(),
        include_usage,
        legacy_functions: false,
    }
}

/// What the caller reads, the usage, and how it ended.
fn relay(
    stream: &[u8],
    include_usage: bool,
    official: bool,
    step: usize,
) -> (String, Usage, Result<(), Failure>) {
    let mut relay = RelayStream::new(stamp(include_usage), official);
    let mut out = Vec::new();
    let flow = each_event(stream, step, |event| relay.on_event(event, &mut out));
    let ended = match flow {
        Ok(Flow::Done) => Ok(()),
        Ok(Flow::More) => relay.on_end(&mut out),
        Err(failure) => Err(failure),
    };
    (String::from_utf8(out).unwrap(), relay.usage(), ended)
}

fn official(stream: &str, include_usage: bool) -> String {
    let (out, _, ended) = relay(stream.as_bytes(), include_usage, true, usize::MAX);
    ended.unwrap();
    out
}

fn mended(stream: &str, include_usage: bool) -> String {
    let (out, _, ended) = relay(stream.as_bytes(), include_usage, false, usize::MAX);
    ended.unwrap();
    out
}

fn failed(stream: &str) -> Failure {
    let (_, _, ended) = relay(stream.as_bytes(), false, false, usize::MAX);
    ended.unwrap_err()
}

/// A chunk with one choice, as servers write it.
fn chunk(delta: &str, finish: &str) -> String {
    format!(
        "data: {{\"id\":\"x\",\"object\":\"chat.completion.chunk\",\"created\":7,\"model\":\"n\",\"choices\":[{{\"index\":0,\"delta\":{delta},\"finish_reason\":{finish}}}]}}\n\n"
    )
}

const ROLE: &str = r#"{"role":"assistant","content":""}"#;
const DONE: &str = "data: [DONE]\n\n";

#[test]
fn golden() {
    each_case("openai", |case: &mut Case| {
        let (mut include_usage, mut is_official) = (false, true);
        if let Some(request) = case.file("request.json") {
            let (model, options) = case.options();
            is_official = options.official;
            let encoded = Head::read(&request).and_then(|head| {
                include_usage = head.include_usage;
                encode(&head, model.as_deref().unwrap_or(&head.model), &options)
            });
            match encoded {
                Ok(encoded) => {
                    case.expect("sent.json", Some(&crate::golden::compact(&encoded.body)));
                    let dropped = encoded.dropped.join(",");
                    let dropped = (!dropped.is_empty()).then_some(dropped.as_bytes());
                    case.expect("dropped.txt", dropped);
                }
                Err(error) => case.expect_error(&error),
            }
        }
        if let Some(events) = case.file("events.sse") {
            for step in [usize::MAX, 1] {
                let (out, _, ended) = relay(&events, include_usage, is_official, step);
                let mut out = out.into_bytes();
                if let Err(failure) = ended {
                    out.extend_from_slice(&error_event(&told(&failure)));
                }
                case.expect("chunks.sse", Some(&out));
            }
        }
    });
}

#[test]
fn official_events_pass_as_they_are() {
    let odd = "data: {\"id\":\"x\", \"object\":\"chat.completion.chunk\",\"created\":7,\"model\":\"n\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\\u00e9\"},\"finish_reason\":null,\"new\":1.0}],\"obfuscation\":\"abc\"}\n\n";
    let stream = [&chunk(ROLE, "null"), odd, &chunk("{}", "\"stop\""), DONE].concat();
    assert_eq!(official(&stream, false), stream);
    assert_eq!(mended(&stream, false), stream);
    let noisy = format!(
        ": ping\r\n\r\nevent: x\r\nid: 7\r\n{}",
        stream.replace('\n', "\r\n")
    );
    assert_eq!(official(&noisy, false), stream);
    // After the end nothing counts.
    assert_eq!(official(&format!("{stream}{stream}"), false), stream);
}

#[test]
fn usage_reaches_only_those_who_asked() {
    let with =
        |usage: &str| chunk(ROLE, "null").replace("]}\n", &format!("],\"usage\":{usage}}}\n"));
    let finish = chunk("{}", "\"stop\"").replace("]}\n", "],\"usage\":null}\n");
    let last = "data: {\"id\":\"x\",\"object\":\"chat.completion.chunk\",\"created\":7,\"model\":\"n\",\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1,\"total_tokens\":4,\"prompt_tokens_details\":{\"cached_tokens\":2}}}\n\n";
    let stream = [&with("null"), &finish, last, DONE].concat();
    for is_official in [true, false] {
        let (out, usage, ended) = relay(stream.as_bytes(), true, is_official, 1);
        ended.unwrap();
        assert_eq!(out, stream);
        assert_eq!(
            (usage.prompt, usage.completion, usage.cached),
            (Some(3), Some(1), Some(2))
        );
        let (out, usage, ended) = relay(stream.as_bytes(), false, is_official, 1);
        ended.unwrap();
        assert_eq!(
            out,
            [&chunk(ROLE, "null"), &chunk("{}", "\"stop\""), DONE].concat()
        );
        assert_eq!(usage.prompt, Some(3));
    }
}

#[test]
fn usage_on_the_finish_chunk_gets_a_chunk_of_its_own() {
    let finish = chunk("{}", "\"stop\"");
    let with = finish.replace(
        "]}\n",
        "],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1}}\n",
    );
    let stream = [&chunk(ROLE, "null"), &with, DONE].concat();
    let null = |chunk: &str| chunk.replace("]}\n", "],\"usage\":null}\n");
    let usage = "data: {\"id\":\"x\",\"object\":\"chat.completion.chunk\",\"created\":7,\"model\":\"n\",\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1,\"total_tokens\":4}}\n\n";
    assert_eq!(
        mended(&stream, true),
        [&chunk(ROLE, "null"), &null(&finish), usage, DONE].concat()
    );
    assert_eq!(
        mended(&stream, false),
        [&chunk(ROLE, "null"), &finish, DONE].concat()
    );
    let no_choices = "data: {\"id\":\"x\",\"object\":\"chat.completion.chunk\",\"created\":7,\"model\":\"n\",\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1,\"total_tokens\":4}}\n\n";
    let stream = [&chunk(ROLE, "null"), &finish, no_choices, DONE].concat();
    let out = mended(&stream, true);
    assert!(
        out.contains("\"choices\":[]") && out.matches("prompt_tokens").count() == 1,
        "{out}"
    );
    assert_eq!(
        mended(&stream, false),
        [&chunk(ROLE, "null"), &finish, DONE].concat()
    );
}

#[test]
fn a_usage_of_our_own_chunk_tells_all_that_the_server_told() {
    let finish = |usage: &str| {
        let usage = format!("],\"usage\":{usage}}}\n");
        chunk("{}", "\"stop\"").replace("]}\n", &usage)
    };
    for (told, expected) in [
        (
            r#"{"cost":0.0035,"prompt_tokens":3,"completion_tokens":1,"total_tokens":4,"cost_details":{"a":null}}"#,
            r#"{"cost":0.0035,"prompt_tokens":3,"completion_tokens":1,"total_tokens":4,"cost_details":{"a":null}}"#,
        ),
        (
            r#"{"completion_tokens":1,"prompt_tokens":3,"total_tokens":null,"prompt_cache_hit_tokens":2}"#,
            r#"{"completion_tokens":1,"prompt_tokens":3,"total_tokens":4,"prompt_cache_hit_tokens":2}"#,
        ),
    ] {
        for step in [1, usize::MAX] {
            let stream = chunk(ROLE, "null") + &finish(told) + DONE;
            let (out, usage, ended) = relay(stream.as_bytes(), true, false, step);
            ended.unwrap();
            assert_eq!((usage.prompt, usage.completion), (Some(3), Some(1)));
            let last = format!("\"choices\":[],\"usage\":{expected}}}\n\n{DONE}");
            assert!(out.ends_with(&last), "{out}");
        }
    }
}

#[test]
fn of_doubled_members_the_last_counts_as_for_callers() {
    let whole = [&chunk(ROLE, "null"), &chunk("{}", "\"stop\""), DONE].concat();
    for (member, doubled) in [
        ("\"choices\":[{", "\"choices\":[],\"choices\":[{"),
        (
            "\"finish_reason\":\"stop\"",
            "\"finish_reason\":null,\"finish_reason\":\"stop\"",
        ),
        (
            "\"delta\":",
            "\"delta\":{\"role\":\"assistant\"},\"delta\":",
        ),
        ("\"index\":0", "\"index\":7,\"index\":0"),
        (
            "\"role\":\"assistant\"",
            "\"role\":null,\"role\":\"assistant\"",
        ),
    ] {
        let stream = whole.replace(member, doubled);
        assert_ne!(stream, whole);
        assert_eq!(mended(&stream, false), whole, "{member}");
    }
    // The answer that would have ended here goes on for every parser.
    let end = chunk("{}", "\"stop\"").replace("}]}", "}],\"choices\":[]}");
    let out = mended(&[&chunk(ROLE, "null"), &end, DONE].concat(), false);
    let ended = [&chunk("{}", "\"stop\""), DONE].concat();
    assert!(out.ends_with(&ended), "{out}");
}

#[test]
fn an_emoji_in_two_chunks_is_one_again() {
    let text = |text: &str| chunk(&format!("{{\"content\":\"{text}\"}}"), "null");
    let stream = |first: &str, second: &str| {
        let end = chunk("{}", "\"stop\"") + DONE;
        [chunk(ROLE, "null"), text(first), text(second), end].concat()
    };
    let out = mended(&stream(r"a\ud83d", r"\ude00b"), false);
    assert_eq!(out, stream("a", "\u{1f600}b"));
    let broken = stream("a", "\u{7f}").into_bytes();
    let broken = broken.split(|byte| *byte == 0x7f).collect::<Vec<_>>();
    let broken = broken.join(&0xff);
    let (out, _, ended) = relay(&broken, false, false, 7);
    ended.unwrap();
    assert_eq!(out, stream("a", "\u{fffd}"));
    // The vendor's own events are its own affair.
    let own = stream(r"a\ud83d", r"\ude00b");
    assert_eq!(official(&own, false), own);
}

#[test]
fn servers_are_forgiven() {
    let good = [
        &chunk(ROLE, "null"),
        &chunk(r#"{"content":"a"}"#, "null"),
        &chunk("{}", "\"stop\""),
        DONE,
    ]
    .concat();
    // An empty finish reason, a delta of null, a role in every chunk, words of their own.
    for (from, to) in [
        ("\"finish_reason\":null", "\"finish_reason\":\"\""),
        ("\"delta\":{}", "\"delta\":null"),
        ("\"delta\":{}", "\"delta\":{\"role\":\"assistant\"}"),
        (
            "{\"content\":\"a\"}",
            "{\"role\":\"assistant\",\"content\":\"a\"}",
        ),
        ("\"stop\"", "\"eos\""),
        ("data: [DONE]\n\n", ""),
        ("data: ", "data:"),
        ("data: [DONE]\n\n", "data: [DONE]"),
        ("data: {\"id\"", "data: {\"nothing\":1}\n\ndata: {\"id\""),
        (",\"choices\"", ",\ndata: \"choices\""),
    ] {
        let bad = good.replace(from, to);
        assert_ne!(bad, good);
        let text = mended(&bad, false).replace(", \"choices\"", ",\"choices\"");
        assert_eq!(text, good, "{from} -> {to}");
    }
    // A missing role chunk.
    let out = mended(&good.replacen(&chunk(ROLE, "null"), "", 1), false);
    let first = r#"{"content":"a","role":"assistant"}"#;
    assert_eq!(
        out,
        [&chunk(first, "null"), &chunk("{}", "\"stop\""), DONE].concat()
    );
    // An empty id, and no id.
    for id in ["\"id\":\"\",", ""] {
        let out = mended(&good.replace("\"id\":\"x\",", id), false);
        let own = crate::dialect::openai::completion_id("", 1).into_owned();
        assert_eq!(
            out.matches(&format!("\"id\":\"{own}\"")).count(),
            3,
            "{out}"
        );
        assert_eq!(out.matches("assistant").count(), 1);
    }
    // Half an emoji, where there is something else to mend and where there is not.
    let half = good.replace("\"a\"", r#""\\\ud83d\uDE00 \ud83dx""#);
    let whole = good.replace("\"a\"", "\"\\\\\u{1F600} \u{FFFD}x\"");
    assert_eq!(mended(&half, false), whole);
    let half = half.replace("\"finish_reason\":null", "\"finish_reason\":\"\"");
    assert_eq!(mended(&half, false), whole);
    // A second last word.
    let twice = good.replace(DONE, &[&chunk("{}", "\"stop\""), DONE].concat());
    assert_eq!(mended(&twice, false).matches("\"stop\"").count(), 1);
    // A missing finish chunk before [DONE].
    let out = mended(&good.replace(&chunk("{}", "\"stop\""), ""), false);
    assert_eq!(out, good);
    assert_eq!(
        mended(&good.replace("\"stop\"", "\"max_tokens\""), false),
        good.replace("\"stop\"", "\"length\"")
    );
}

#[test]
fn tool_calls_are_numbered_by_id_and_order() {
    let calls = |calls: &str| chunk(&format!(r#"{{"tool_calls":[{calls}]}}"#), "null");
    let stream = [
        &chunk(ROLE, "null"),
        &calls(r#"{"id":"a","function":{"name":"f","arguments":""}}"#),
        &calls(r#"{"function":{"arguments":"{}"}}"#),
        &calls(r#"{"id":"b","function":{"name":"g","arguments":"{"}}"#),
        &calls(r#"{"id":"b","function":{"arguments":"}"}}"#),
        &calls(r#"{"id":"a","function":{"arguments":" "}}"#),
        &chunk("{}", "\"stop\""),
        DONE,
    ]
    .concat();
    let out = mended(&stream, false);
    let numbers: Vec<_> = out
        .lines()
        .filter_map(|line| {
            serde_json::from_str::<serde_json::Value>(line.strip_prefix("data: ")?).ok()
        })
        .filter_map(|value| value["choices"][0]["delta"]["tool_calls"][0]["index"].as_u64())
        .collect();
    assert_eq!(numbers, [0, 0, 1, 1, 0]);
    assert!(out.contains("\"finish_reason\":\"tool_calls\""));
    // Numbered calls pass as they are.
    let good = [
        &chunk(ROLE, "null"),
        &calls(r#"{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":""}}"#),
        &calls(r#"{"index":0,"function":{"arguments":"{}"}}"#),
        &chunk("{}", "\"tool_calls\""),
        DONE,
    ]
    .concat();
    assert_eq!(mended(&good, false), good);
}

/// The scan looks for what the relay must know and little else.
#[test]
fn an_event_that_only_looks_like_json_is_not_passed_on() {
    for broken in [
        r#"{"id":"a","choices":[{"index":0,"delta":{"content":nul},"finish_reason":null}]}"#,
        r#"{"id":"a","choices":[{"index":0,"delta":{"content":"x"},"logprobs":{"a" 1]}]}"#,
    ] {
        let mut relay = RelayStream::new(stamp(false), false);
        let mut out = Vec::new();
        let event = crate::sse::Event {
            data: broken.as_bytes(),
            bare: false,
        };
        let ended = relay.on_event(event, &mut out);
        assert!(ended.is_err(), "{broken}");
        assert!(out.is_empty(), "{}", String::from_utf8_lossy(&out));
    }
}

/// Vector 27.
#[test]
fn choices_begin_in_order() {
    let of = |index: u32, delta: &str, finish: &str| {
        chunk(delta, finish).replace("\"index\":0", &format!("\"index\":{index}"))
    };
    let stream = [
        &of(1, r#"{"role":"assistant","content":"b"}"#, "null"),
        &of(0, r#"{"role":"assistant","content":"a"}"#, "null"),
        &of(0, "{}", "\"stop\""),
        &of(1, "{}", "\"stop\""),
    ]
    .map(String::as_str)
    .concat();
    let expected = [
        &of(0, ROLE, "null"),
        &of(1, r#"{"role":"assistant","content":"b"}"#, "null"),
        &of(0, r#"{"content":"a"}"#, "null"),
        &of(0, "{}", "\"stop\""),
        &of(1, "{}", "\"stop\""),
        DONE,
    ]
    .concat();
    assert_eq!(mended(&stream, false), expected);
    // One of two is not complete.
    assert_eq!(
        failed(&stream.replace(&of(1, "{}", "\"stop\""), "")),
        Failure::disconnected()
    );
}

#[test]
fn streams_that_are_no_answer_fail() {
    let begun = [chunk(ROLE, "null"), chunk(r#"{"content":"a"}"#, "null")].concat();
    assert_eq!(failed(&begun), Failure::disconnected());
    assert_eq!(failed(""), Failure::empty());
    assert_eq!(failed(": ping\n\n"), Failure::empty());
    assert_eq!(failed(DONE), Failure::empty());
    assert_eq!(
        failed(&format!("{begun}data: {{\"id\":\"x\",\n\n"))
            .code
            .as_deref(),
        Some("malformed_response")
    );
    assert_eq!(
        failed("data: oops\n\n").code.as_deref(),
        Some("malformed_response")
    );
    for error in [
        "data: {\"error\":{\"message\":\"m\",\"type\":\"server_error\",\"code\":\"503\"}}\n\n",
        "{\"error\":{\"message\":\"m\",\"code\":503}}\n",
        "data: {\"object\":\"error\",\"message\":\"m\",\"code\":503}\n\n",
        "event: error\ndata: {\"id\":\"x\",\"choices\":[],\"error\":{\"message\":\"m\",\"code\":503}}\n\n",
    ] {
        let failure = failed(&format!("{begun}{error}"));
        assert_eq!(
            (failure.class, failure.status, &*failure.message),
            (Class::Server, 503, "m"),
            "{error}"
        );
    }
}

#[test]
fn an_answer_that_was_not_streamed_becomes_a_stream() {
    let half = r#"{"choices":[{"message":{"role":"assistant","content":"a\ud83d"}}]}"#;
    assert!(mended(half, false).contains("\"a\u{fffd}\""));
    let body = r#"{"id":"x","object":"chat.completion","created":7,"model":"n","choices":[{"index":0,"message":{"role":"assistant","content":"a","tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]},"logprobs":null,"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}"#;
    let out = mended(&format!("{body}\n"), false);
    let delta = r#"{"role":"assistant","content":"a","tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"},"index":0}]}"#;
    assert_eq!(
        out,
        [&chunk(delta, "null"), &chunk("{}", "\"tool_calls\""), DONE].concat()
    );
    let out = mended(&format!("{body}\n"), true);
    assert!(out.ends_with("\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1,\"total_tokens\":4}}\n\ndata: [DONE]\n\n"), "{out}");
}

#[test]
fn whole_bodies_are_judged() {
    let usage = relay_body(
        br#" {"choices":[{"message":{}}],"error":null,"usage":{"prompt_tokens":5,"completion_tokens":2,"completion_tokens_details":{"reasoning_tokens":1}}}"#,
    )
    .unwrap();
    assert_eq!(
        (usage.prompt, usage.completion, usage.reasoning),
        (Some(5), Some(2), Some(1))
    );
    assert_eq!(
        relay_body(br#"{"choices":[{}],"usage":7}"#).unwrap(),
        Usage::default()
    );
    let code = |body: &[u8]| relay_body(body).unwrap_err().code.unwrap().into_owned();
    assert_eq!(code(b""), "empty_response");
    assert_eq!(code(b" \n"), "empty_response");
    assert_eq!(code(br#"{"choices":[]}"#), "empty_response");
    assert_eq!(code(br#"{"hello":1}"#), "malformed_response");
    assert_eq!(code(b"<html>"), "malformed_response");
    assert_eq!(code(b"\xff"), "malformed_response");
    let failure = relay_body(br#"{"error":{"message":"m","code":429}}"#).unwrap_err();
    assert_eq!((failure.class, failure.status), (Class::RateLimit, 429));
    let failure = relay_body(br#"{"error":{"message":"m"}}"#).unwrap_err();
    assert_eq!(failure.status, 502);
}

#[test]
fn what_an_open_answer_keeps_is_bounded() {
    let long = "x".repeat(100 << 10);
    let call = |choice: usize, call: &str| {
        format!(
            r#"{{"id":"c","choices":[{{"index":{choice},"delta":{{"tool_calls":[{call}]}}}}]}}"#
        )
    };
    type Make = Box<dyn Fn(usize) -> String>;
    let cases: [(&str, Make); 3] = [
        ("ids of calls without an index", {
            let long = long.clone();
            Box::new(move |n| {
                call(
                    n % 100,
                    &format!(r#"{{"id":"{n}{long}","function":{{"name":"f","arguments":""}}}}"#),
                )
            })
        }),
        ("ids of calls that are passed on as they are", {
            let long = long.clone();
            Box::new(move |n| {
                let head = format!(r#""index":{n},"id":"{n}{long}","type":"function""#);
                format!(
                    r#"{{"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{{"index":0,"delta":{{{}"tool_calls":[{{{head},"function":{{"name":"f","arguments":""}}}}]}},"finish_reason":null}}]}}"#,
                    if n == 0 {
                        r#""role":"assistant","content":null,"#
                    } else {
                        ""
                    }
                )
            })
        }),
        ("names in pieces", {
            Box::new(move |n| {
                call(
                    0,
                    &format!(r#"{{"index":0,"id":"a","function":{{"name":"{n}{long}"}}}}"#),
                )
            })
        }),
    ];
    for (what, data) in cases {
        for official in [false, true] {
            if official && !what.contains("as they are") {
                continue;
            }
            let mut relay = RelayStream::new(stamp(true), official);
            let failure = (0..1000).find_map(|n| {
                let data = data(n);
                let event = crate::sse::Event {
                    data: data.as_bytes(),
                    bare: false,
                };
                relay.on_event(event, &mut Vec::new()).err()
            });
            let failure = failure.unwrap_or_else(|| panic!("{what}: no end"));
            assert_eq!(failure.class, Class::Ended, "{what}");
            assert_eq!(
                failure.code.as_deref(),
                Some("malformed_response"),
                "{what}"
            );
        }
    }
}
