//! What must hold for every history and for every byte that an upstream sends.

use std::sync::Arc;

use serde_json::Value;
use serde_json::value::RawValue;

use super::GenerateContent;
use super::decode::Decode;
use super::heard::Heard;
use crate::dialect::openai::Head;
use crate::json::Fields;
use crate::provider::{Decoder, Options, Provider, Undo};
use crate::sse::Event;

/// Marsaglia's xorshift: the same numbers in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn pick<'a>(&mut self, items: &[&'a str]) -> &'a str {
        items[self.below(items.len())]
    }
}

/// A history as groups of messages: a cut between two groups is a history that a caller may send.
fn history(random: &mut Random) -> Vec<String> {
    const TEXTS: &[&str] = &["", "a", "b\\n\u{1f600}", "{\\\"x\\\": 1}", "  "];
    const NAMES: &[&str] = &["f", "a b", "a_b", "a/b", "9", "f.g"];
    const ARGS: &[&str] = &["", "{}", "{\\\"k\\\": [1, 2.50]}", "[1]", "{broken", "null"];
    let mut groups = Vec::new();
    for turn in 0..random.below(12) + 2 {
        let text = random.pick(TEXTS);
        groups.push(match random.below(7) {
            0 => format!(r#"{{"role":"system","content":"{text}"}}"#),
            1 | 2 => format!(r#"{{"role":"user","content":"{text}"}}"#),
            3 => format!(
                r#"{{"role":"user","content":[{{"type":"text","text":"{text}"}},{{"type":"image_url","image_url":{{"url":"https://a.b/c.png","detail":"low"}}}}]}}"#
            ),
            4 => format!(
                r#"{{"role":"assistant","content":"{text}","extra_content":{{"google":{{"thought_signature":"{}"}}}}}}"#,
                random.pick(&["", "T"])
            ),
            5 => format!(r#"{{"role":"tool","tool_call_id":"stray{turn}","content":"{text}"}}"#),
            _ => {
                let count = random.below(3) + 1;
                let calls: Vec<_> = (0..count)
                    .map(|n| {
                        let (name, args) = (random.pick(NAMES), random.pick(ARGS));
                        let sig = random.pick(&["", r#","extra_content":{"google":{"thought_signature":"S"}}"#]);
                        format!(r#"{{"id":"c{turn}_{n}","type":"function","function":{{"name":"{name}","arguments":"{args}"}}{sig}}}"#)
                    })
                    .collect();
                let mut group = format!(r#"{{"role":"assistant","content":"{text}","tool_calls":[{}]}}"#, calls.join(","));
                // Answered backwards, and not always completely.
                for n in (random.below(2)..count).rev() {
                    let text = random.pick(TEXTS);
                    group += &format!(r#",{{"role":"tool","tool_call_id":"c{turn}_{n}","content":"{text}"}}"#);
                    if random.below(4) == 0 {
                        group += r#",{"role":"system","content":"between"}"#;
                    }
                }
                group
            }
        });
    }
    groups
}

/// The contents without the closing brackets and without what is only appended at the end.
fn open_contents(groups: &[String], model: &str) -> String {
    let request = format!(
        r#"{{"model":"{model}","messages":[{}],"tools":[{{"type":"function","function":{{"name":"a_b"}}}},{{"type":"function","function":{{"name":"a b"}}}}]}}"#,
        groups.join(",")
    );
    let head = Head::read(request.as_bytes()).unwrap();
    let parsed = head.parse().unwrap();
    let body = GenerateContent
        .encode(&parsed, model, &Options::default())
        .unwrap()
        .body;
    let fields: Fields<'_> = serde_json::from_slice(&body).unwrap();
    let contents: &RawValue = fields.get("contents").unwrap();
    let contents = contents.get();
    check_structure(&serde_json::from_str(contents).unwrap());
    if contents == r#"[{"role":"user","parts":[{"text":"."}]}]"# {
        return "[".into();
    }
    let appended = r#"]},{"role":"user","parts":[{"text":"Continue."}]}]"#;
    let open = contents
        .strip_suffix(appended)
        .or_else(|| contents.strip_suffix("]}]"));
    open.unwrap().to_owned()
}

#[test]
fn vector_36_a_longer_history_goes_on_where_the_shorter_one_ended() {
    const ASSISTANT: &str = r#"{"role":"assistant""#;
    let mut random = Random(36);
    for round in 0..2000 {
        let groups = history(&mut random);
        let model = random.pick(&["gemini-2.5-flash", "gemini-4-argon"]);
        let mut shorter = open_contents(&groups[..1], model);
        for end in 2..=groups.len() {
            let longer = open_contents(&groups[..end], model);
            // More of a turn may follow while its calls have no results.
            let is_within_turn = groups[end - 1].starts_with(ASSISTANT)
                && groups[..end - 1]
                    .iter()
                    .rev()
                    .take_while(|group| group.starts_with(ASSISTANT))
                    .take_while(|group| !group.contains(r#""role":"tool""#))
                    .any(|group| group.contains("tool_calls"));
            assert!(
                is_within_turn || longer.starts_with(&shorter),
                "round {round}\n{groups:#?}\n{shorter}\n{longer}"
            );
            shorter = longer;
        }
    }
}

/// What the service refuses to be without: turns that alternate and say something, and after each
/// turn that calls as many results, in the order of the calls.
pub fn check_structure(contents: &Value) {
    let contents = contents.as_array().expect("there are contents");
    assert_eq!(contents.last().unwrap()["role"], "user", "{contents:?}");
    let mut open: Vec<&Value> = Vec::new();
    for (at, content) in contents.iter().enumerate() {
        assert!(at == 0 || content["role"] != contents[at - 1]["role"]);
        let parts = content["parts"].as_array().unwrap();
        assert!(!parts.is_empty(), "a content without parts");
        let named = |kind: &'static str| parts.iter().filter_map(move |part| part.get(kind));
        let told = |call: &&Value, key: &str| call.get(key).cloned();
        let results: Vec<&Value> = named("functionResponse").collect();
        assert_eq!(results.len(), open.len(), "results of {open:?}");
        for (place, (call, result)) in open.iter().zip(&results).enumerate() {
            assert!(parts[place].get("functionResponse").is_some(), "{parts:?}");
            assert_eq!(told(call, "name"), told(result, "name"));
            assert_eq!(told(call, "id"), told(result, "id"));
            assert!(result["response"].is_object(), "{result}");
        }
        open = named("functionCall").collect();
        assert!(open.is_empty() || content["role"] == "model");
        assert!(open.iter().all(|call| call["args"].is_object()), "{open:?}");
        assert!(open.is_empty() || at > 0, "a call before anyone has spoken");
    }
}

#[test]
fn the_same_request_gives_the_same_bytes() {
    let mut random = Random(2);
    for _ in 0..100 {
        let groups = history(&mut random);
        let once = open_contents(&groups, "gemini-4-argon");
        assert_eq!(once, open_contents(&groups, "gemini-4-argon"));
    }
}

/// Something that looks like an answer in places.
fn json(random: &mut Random, depth: usize) -> String {
    const KEYS: &[&str] = &[
        "candidates",
        "content",
        "parts",
        "text",
        "thought",
        "thoughtSignature",
        "functionCall",
        "name",
        "args",
        "id",
        "partialArgs",
        "jsonPath",
        "stringValue",
        "numberValue",
        "willContinue",
        "inlineData",
        "mimeType",
        "data",
        "index",
        "finishReason",
        "continuationToken",
        "groundingMetadata",
        "groundingSupports",
        "groundingChunks",
        "segment",
        "startIndex",
        "endIndex",
        "partIndex",
        "groundingChunkIndices",
        "web",
        "uri",
        "logprobsResult",
        "chosenCandidates",
        "topCandidates",
        "token",
        "logProbability",
        "promptFeedback",
        "blockReason",
        "usageMetadata",
        "promptTokenCount",
        "totalTokenCount",
        "error",
        "executableCode",
    ];
    const LEAVES: &[&str] = &[
        "null",
        "true",
        "0",
        "1",
        "7",
        "-1",
        "1e99",
        "18446744073709551615",
        "\"\"",
        "\"x\"",
        "\"\u{fc}\\ud83d\\ude00\"",
        "\"STOP\"",
        "\"CONTINUATION\"",
        "\"OTHER\"",
        "\"SAFETY\"",
        "\"$.a[0]\"",
        "\"image/png\"",
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
            let fields: Vec<_> = (0..random.below(5))
                .map(|_| format!("\"{}\":{}", random.pick(KEYS), json(random, depth - 1)))
                .collect();
            format!("{{{}}}", fields.join(","))
        }
    }
}

/// A right answer, now and then with one value replaced.
fn nearly_right(random: &mut Random) -> String {
    let mut value = |right: &str| match random.below(40) {
        0 => json(random, 3),
        _ => right.to_owned(),
    };
    let call = format!(
        r#"{{"functionCall":{{"name":{},"args":{},"partialArgs":[{{"jsonPath":{},"stringValue":{}}}],"willContinue":{}}},"thoughtSignature":{}}}"#,
        value("\"f\""),
        value("{}"),
        value("\"$.a\""),
        value("\"x\""),
        value("false"),
        value("\"s\"")
    );
    let grounding = format!(
        r#"{{"groundingChunks":[{{"web":{{"uri":{}}}}}],"groundingSupports":[{{"segment":{{"startIndex":{},"endIndex":{}}},"groundingChunkIndices":{}}}]}}"#,
        value("\"u\""),
        value("1"),
        value("2"),
        value("[0]")
    );
    format!(
        r#"{{"candidates":[{{"index":{},"content":{{"parts":[{{"text":{}}},{},{}]}},"finishReason":{},"continuationToken":{},"groundingMetadata":{},"logprobsResult":{}}}],"usageMetadata":{}}}"#,
        value("0"),
        value("\"\u{e9}t\u{e9}\""),
        value(&call),
        value("{}"),
        value("\"STOP\""),
        value("null"),
        value(&grounding),
        value(r#"{"chosenCandidates":[{"token":"a","logProbability":-1}]}"#),
        value(r#"{"promptTokenCount":1}"#)
    )
}

#[test]
fn no_bytes_make_the_decoder_panic() {
    let mut random = Random(7);
    let (mut good, mut bad) = (0, 0);
    for round in 0..20_000 {
        let undo = Undo {
            strip_fence: round % 3 == 0,
            wants_tier: true,
            custom: ["f".into()].into(),
            ..Undo::default()
        };
        let mut heard = Heard::default();
        let mut decoder = Decode::new(Arc::new(undo));
        let mut run = || {
            for _ in 0..random.below(5) + 1 {
                let mut data = match random.below(6) {
                    0 => json(&mut random, 8),
                    _ => nearly_right(&mut random),
                }
                .into_bytes();
                if random.below(8) == 0 {
                    let at = random.below(data.len());
                    data[at] = random.next() as u8;
                }
                decoder.on_event(
                    Event {
                        data: &data,
                        bare: false,
                    },
                    &mut heard,
                )?;
            }
            decoder.on_end(&mut heard)?;
            while let Some(body) = decoder.continuation(b"{}") {
                assert!(body.ends_with(b"}"));
                decoder.on_end(&mut heard)?;
            }
            Ok::<_, crate::failure::Failure>(())
        };
        match run() {
            Ok(()) => {
                good += 1;
                // Over means told: every choice that began has its reason.
                assert!(
                    heard.candidates.iter().any(|c| c.finish.is_some()),
                    "round {round}"
                );
                for candidate in &heard.candidates {
                    for call in candidate.calls.iter().filter(|call| !call.custom) {
                        assert!(
                            serde_json::from_str::<&RawValue>(&call.args).is_ok(),
                            "round {round}"
                        );
                    }
                }
            }
            Err(failure) => {
                bad += 1;
                assert!((400..600).contains(&failure.status), "round {round}");
            }
        }
    }
    assert!(good > 100 && bad > 100, "{good} answers, {bad} failures");
}
