//! Rules that hold for every history and every event, tried with many made-up ones. The random
//! numbers are the same in every run.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::Responses;
use super::decode::Decode;
use super::decode_tests::Said;
use crate::dialect::openai::Head;
use crate::json::Fields;
use crate::provider::{Decoder, Flow, Options, Provider, Undo};
use crate::sse::Event;

/// A xorshift generator.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }
}

/// Messages as JSON, one string each.
fn history(random: &mut Random) -> Vec<String> {
    const TEXTS: &[&str] = &["a", "", "\u{fc}\\n", "  ", "long \\\"text\\\""];
    let mut messages = vec![r#"{"role":"system","content":"s"}"#.to_owned()];
    for turn in 0..random.below(8) + 1 {
        let text = random.pick(TEXTS);
        let id = random.below(turn + 2);
        messages.push(match random.below(7) {
            0 => format!(r#"{{"role":"system","content":"{text}"}}"#),
            1 => format!(
                r#"{{"role":"user","content":[{{"type":"text","text":"{text}"}},{{"type":"image_url","image_url":{{"url":"https://x/{turn}"}}}}]}}"#
            ),
            2 => format!(r#"{{"role":"assistant","content":"{text}","refusal":"{text}"}}"#),
            3 => {
                let seal = random.pick(&["\"sealed\"", "null", "\"\""]);
                format!(
                    r#"{{"role":"assistant","content":"{text}","extra_content":{{"openai":{{"reasoning_items":[{{"type":"reasoning","id": "rs_{turn}","encrypted_content":{seal}}}, 1]}}}},"tool_calls":[{{"id":"c{turn}","type":"function","function":{{"name":"f","arguments":"{text}"}}}}]}}"#
                )
            }
            4 => format!(
                r#"{{"role":"assistant","tool_calls":[{{"id":"c{turn}","type":"custom","custom":{{"name":"c","input":"{text}"}}}},{{"type":"function","function":{{"name":"f"}}}}]}}"#
            ),
            5 => format!(r#"{{"role":"tool","tool_call_id":"c{id}","content":"{text}"}}"#),
            _ => format!(r#"{{"role":"user","content":"{text}"}}"#),
        });
    }
    messages
}

/// The input without its closing bracket; the placeholder that stands for none counts as none.
fn open_input(messages: &[String], model: &str) -> String {
    let request = format!(
        r#"{{"model":"{model}","messages":[{}]}}"#,
        messages.join(",")
    );
    let head = Head::read(request.as_bytes()).unwrap();
    let parsed = head.parse().unwrap();
    let options = Options::default();
    let body = Responses.encode(&parsed, model, &options).unwrap().body;
    let fields: Fields<'_> = serde_json::from_slice(&body).unwrap();
    let input: &RawValue = fields.get("input").unwrap();
    if input.get() == r#"[{"role":"user","content":[{"type":"input_text","text":"."}]}]"# {
        return "[".into();
    }
    input.get().strip_suffix(']').unwrap().to_owned()
}

#[test]
fn vector_36_a_longer_history_goes_on_where_the_shorter_one_ended() {
    let mut random = Random(36);
    let mut grown = 0;
    for round in 0..2000 {
        let messages = history(&mut random);
        let model = random.pick(&["gpt-4o", "gpt-5.6"]);
        // Calls and their results are one turn, which a user or a system message ends.
        let is_whole = |end: usize| {
            let next = messages.get(end);
            let begins_turn = |message: &String| {
                ["user", "system"]
                    .iter()
                    .any(|role| message.starts_with(&format!(r#"{{"role":"{role}""#)))
            };
            next.is_none_or(begins_turn)
        };
        let ends: Vec<usize> = (1..=messages.len()).filter(|end| is_whole(*end)).collect();
        let mut shorter = open_input(&messages[..ends[0]], model);
        for end in ends {
            let longer = open_input(&messages[..end], model);
            // A result that comes later still takes the place of the one that was made up.
            let may_change = shorter.contains("no result");
            assert!(
                may_change || longer.starts_with(&shorter),
                "round {round}\n{messages:#?}\n{shorter}\n{longer}"
            );
            grown += usize::from(longer.len() > shorter.len());
            shorter = longer;
        }
    }
    assert!(grown > 3000, "{grown}");
}

#[test]
fn the_same_request_gives_the_same_bytes() {
    let mut random = Random(2);
    for _ in 0..100 {
        let messages = history(&mut random);
        let once = open_input(&messages, "gpt-5.6");
        assert_eq!(once, open_input(&messages, "gpt-5.6"));
    }
}

/// Any JSON, in names and values that the format has.
fn json(random: &mut Random, depth: usize) -> String {
    const KEYS: &[&str] = &[
        "type",
        "output_index",
        "content_index",
        "summary_index",
        "delta",
        "arguments",
        "input",
        "logprobs",
        "annotation",
        "item",
        "response",
        "error",
        "id",
        "call_id",
        "name",
        "content",
        "summary",
        "text",
        "refusal",
        "annotations",
        "status",
        "output",
        "usage",
        "input_tokens",
        "input_tokens_details",
        "cached_tokens",
        "incomplete_details",
        "reason",
        "code",
        "message",
        "token",
        "logprob",
        "bytes",
        "top_logprobs",
        "url",
        "start_index",
        "end_index",
        "model",
    ];
    const LEAVES: &[&str] = &[
        "null",
        "true",
        "0",
        "1",
        "3",
        "-1",
        "1.5",
        "1e99",
        "18446744073709551615",
        "\"\"",
        "\"x\"",
        "\"\u{fc}\\ud83d\\ude00\"",
        "\"completed\"",
        "\"failed\"",
        "\"message\"",
        "\"function_call\"",
        "\"reasoning\"",
        "\"output_text\"",
        "\"url_citation\"",
        "{}",
        "[]",
    ];
    match random.below(if depth == 0 { 1 } else { 3 }) {
        0 => random.pick(LEAVES).to_owned(),
        1 => {
            let items: Vec<_> = (0..random.below(3))
                .map(|_| json(random, depth - 1))
                .collect();
            format!("[{}]", items.join(","))
        }
        _ => {
            let mut keys: Vec<_> = (0..random.below(5)).map(|_| random.pick(KEYS)).collect();
            keys.sort_unstable();
            keys.dedup();
            let fields: Vec<_> = keys
                .into_iter()
                .map(|key| format!("\"{key}\":{}", json(random, depth - 1)))
                .collect();
            format!("{{{}}}", fields.join(","))
        }
    }
}

/// An event as the vendor sends it, now and then with one value replaced.
fn nearly_right(random: &mut Random) -> String {
    const KINDS: &[&str] = &[
        "response.created",
        "response.output_item.added",
        "response.output_item.done",
        "response.output_text.delta",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.custom_tool_call_input.delta",
        "response.custom_tool_call_input.done",
        "response.refusal.delta",
        "response.reasoning_summary_text.delta",
        "response.reasoning_text.delta",
        "response.output_text.annotation.added",
        "response.completed",
        "response.incomplete",
        "response.failed",
        "response.in_progress",
        "error",
        "keepalive",
    ];
    let kind = random.pick(KINDS);
    let item = random.pick(&[
        "message",
        "function_call",
        "custom_tool_call",
        "reasoning",
        "x",
    ]);
    let index = random.below(4).to_string();
    let mut value = |right: &str| match random.below(30) {
        0 => json(random, 3),
        _ => right.to_owned(),
    };
    let citation = format!(
        r#"{{"type":"url_citation","url":{},"title":{},"start_index":{},"end_index":{}}}"#,
        value("\"u\""),
        value("\"t\""),
        value("1"),
        value("3")
    );
    let item = format!(
        r#"{{"type":"{item}","call_id":{},"name":{},"arguments":{},"input":{},"content":[{{"type":"output_text","text":{},"annotations":[{}],"logprobs":{}}}],"summary":{}}}"#,
        value("\"call_1\""),
        value("\"f\""),
        value("\"{}\""),
        value("\"in\""),
        value("\"\u{e9}t\u{e9}\""),
        value(&citation),
        value(r#"[{"token":"a","logprob":-1,"top_logprobs":[{"token":"b"}]}]"#),
        value(r#"[{"type":"summary_text","text":"why"}]"#)
    );
    let response = format!(
        r#"{{"id":{},"model":{},"status":{},"output":[{}],"usage":{},"error":{}}}"#,
        value("\"resp_1\""),
        value("\"m\""),
        value("\"completed\""),
        value(&item),
        value(r#"{"input_tokens":1,"output_tokens":2,"output_tokens_details":null}"#),
        value(r#"{"code":"server_error","message":"m"}"#)
    );
    format!(
        r#"{{"type":"{kind}","output_index":{},"content_index":{},"summary_index":{},"delta":{},"arguments":{},"input":{},"item":{},"response":{},"annotation":{}}}"#,
        value(&index),
        value("0"),
        value("1"),
        value("\"some\""),
        value("\"{}\""),
        value("\"in\""),
        value(&item),
        value(&response),
        value(&citation)
    )
}

#[test]
fn no_bytes_make_the_decoder_panic() {
    let mut random = Random(7);
    let (mut good, mut bad) = (0, 0);
    for round in 0..20_000 {
        let undo = Arc::new(Undo {
            wants_tier: true,
            ..Undo::default()
        });
        let mut said = Said::default();
        let mut decoder = Decode::new(undo);
        let mut run = || {
            for _ in 0..random.below(12) + 1 {
                let mut data = match random.below(6) {
                    0 => json(&mut random, 8),
                    _ => nearly_right(&mut random),
                }
                .into_bytes();
                if random.below(40) == 0 {
                    let at = random.below(data.len());
                    data[at] = random.next() as u8;
                }
                if random.below(100) == 0 {
                    return decoder.on_body(&data, &mut said);
                }
                let event = Event {
                    data: &data,
                    bare: false,
                };
                if decoder.on_event(event, &mut said)? == Flow::Done {
                    return Ok(());
                }
            }
            decoder.on_end(&mut said)
        };
        match run() {
            Ok(()) => {
                good += 1;
                // Over means told. That nothing follows the finish is `Said`'s to check.
                assert!(said.finish.is_some(), "round {round}");
                for extra in &said.extra {
                    assert!(serde_json::from_str::<&RawValue>(extra).is_ok(), "{extra}");
                }
            }
            Err(failure) => {
                bad += 1;
                assert!((400..600).contains(&failure.status), "round {round}");
                assert!(said.finish.is_none(), "round {round}");
            }
        }
    }
    assert!(good > 1000 && bad > 1000, "{good} answers, {bad} failures");
}

#[test]
fn an_endless_answer_does_not_fill_the_memory() {
    let mut decoder = Decode::new(Arc::default());
    let mut said = Said::default();
    let mut take = |data: String| {
        let event = Event {
            data: data.as_bytes(),
            bare: false,
        };
        decoder.on_event(event, &mut said)
    };
    let thought = "x".repeat(1 << 20);
    for index in 0..20 {
        let flow = take(format!(
            r#"{{"type":"response.output_item.done","output_index":{index},"item":{{"type":"reasoning","encrypted_content":"{thought}"}}}}"#
        ));
        assert_eq!(flow, Ok(Flow::More));
    }
    let mut refused = None;
    for index in 20..10_000 {
        let data = format!(
            r#"{{"type":"response.output_item.added","output_index":{index},"item":{{"type":"function_call","call_id":"c","name":"f"}}}}"#
        );
        if let Err(failure) = take(data) {
            refused = Some(failure);
            break;
        }
    }
    let failure = refused.expect("no end to the items");
    assert_eq!(failure.code.as_deref(), Some("malformed_response"));

    let mut decoder = Decode::new(Arc::default());
    let mut said = Said::default();
    for data in [
        r#"{"type":"response.output_item.done","output_index":0,"item":{"type":"reasoning","id":"kept"}}"#.to_owned(),
        format!(
            r#"{{"type":"response.output_item.done","output_index":1,"item":{{"type":"reasoning","encrypted_content":"{}"}}}}"#,
            "x".repeat(9 << 20)
        ),
        r#"{"type":"response.completed","response":{"status":"completed"}}"#.to_owned(),
    ] {
        let event = Event {
            data: data.as_bytes(),
            bare: false,
        };
        decoder.on_event(event, &mut said).unwrap();
    }
    let kept = r#"{"openai":{"reasoning_items":[{"type":"reasoning","id":"kept"}]}}"#;
    assert_eq!(said.extra, [kept], "what is too long is left out");
}

#[test]
fn what_an_open_answer_keeps_is_bounded() {
    let long = "x".repeat(1000);
    type Make = Box<dyn Fn(usize) -> String>;
    let cases: [(&str, Make); 2] = [
        ("ids of items", {
            Box::new(move |n| {
                format!(
                    r#"{{"type":"response.output_item.added","output_index":{n},"item":{{"type":"function_call","id":"{long}{n}","call_id":"{long}{n}","name":"f"}}}}"#
                )
            })
        }),
        ("parts of items", {
            Box::new(move |n| {
                format!(
                    r#"{{"type":"response.output_text.delta","output_index":{},"content_index":{n},"delta":"a"}}"#,
                    n / 1000
                )
            })
        }),
    ];
    for (what, data) in cases {
        let mut decoder = Decode::new(Arc::default());
        let mut said = Said::default();
        let failure = (0..1_000_000).find_map(|n| {
            let data = data(n);
            let event = Event {
                data: data.as_bytes(),
                bare: false,
            };
            decoder.on_event(event, &mut said).err()
        });
        let failure = failure.unwrap_or_else(|| panic!("{what}: no end"));
        assert_eq!(
            failure.code.as_deref(),
            Some("malformed_response"),
            "{what}"
        );
    }
}
