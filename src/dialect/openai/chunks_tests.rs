//! The chunk writer's contract, row by row.

use super::{Chunks, Stamp};
use crate::chat::{Delta, DeltaSink, FinishReason, ToolKind, Usage};

pub fn stamp() -> Stamp {
    Stamp {
        seed: 1,
        created: 1,
        model: "m".into(),
        include_usage: false,
        legacy_functions: false,
    }
}

pub fn start() -> Delta<'static> {
    Delta::Start {
        id: "x",
        model: "upstream-name",
    }
}

pub fn text(candidate: u32, text: &str) -> Delta<'_> {
    Delta::Text { candidate, text }
}

pub fn finish(candidate: u32, reason: FinishReason) -> Delta<'static> {
    Delta::Finish { candidate, reason }
}

pub fn call<'a>(candidate: u32, index: u32, id: &'a str, name: &'a str) -> Delta<'a> {
    Delta::ToolStart {
        candidate,
        index,
        id,
        name,
        kind: ToolKind::Function,
        google_signature: None,
    }
}

pub fn arguments(candidate: u32, index: u32, fragment: &str) -> Delta<'_> {
    Delta::ToolArgs {
        candidate,
        index,
        fragment,
    }
}

/// The events of an answer.
pub fn write(stamp: Stamp, deltas: &[Delta<'_>]) -> String {
    let mut chunks = Chunks::new(stamp);
    for delta in deltas {
        chunks.put(delta.clone());
    }
    chunks.finish();
    String::from_utf8(chunks.bytes().to_vec()).unwrap()
}

/// The `choices[0]` of every event but the last two, as JSON text.
fn choices(stream: &str) -> Vec<String> {
    let events = stream.trim_end().split("\n\n");
    events
        .filter_map(|event| {
            let data = event.strip_prefix("data: ").unwrap();
            let value: serde_json::Value = serde_json::from_str(data).ok()?;
            Some(value["choices"].get(0)?.to_string())
        })
        .collect()
}

/// What stands between the role chunk and the finish chunk of choice 0.
pub fn deltas(stream: &str) -> Vec<String> {
    let choices = choices(stream);
    choices[1..choices.len() - 1]
        .iter()
        .map(|choice| {
            let choice = choice.strip_prefix(r#"{"index":0,"delta":"#).unwrap();
            let choice = choice.strip_suffix(r#","finish_reason":null}"#).unwrap();
            choice.to_owned()
        })
        .collect()
}

#[test]
fn a_stream_with_usage_is_written_as_the_contract_shows() {
    let mut with_usage = stamp();
    with_usage.include_usage = true;
    let usage = Usage {
        prompt: Some(3),
        completion: Some(1),
        ..Usage::default()
    };
    let stream = write(
        with_usage,
        &[
            start(),
            text(0, "Hi"),
            finish(0, FinishReason::Stop),
            Delta::Usage(usage),
        ],
    );
    let expected = r#"data: {"id":"x","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}],"usage":null}

data: {"id":"x","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}],"usage":null}

data: {"id":"x","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}

data: {"id":"x","object":"chat.completion.chunk","created":1,"model":"m","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}

data: [DONE]

"#;
    assert_eq!(stream, expected);
}

/// Vector 26.
#[test]
fn without_the_option_no_chunk_speaks_of_usage() {
    let usage = Usage {
        prompt: Some(3),
        ..Usage::default()
    };
    let stream = write(stamp(), &[start(), text(0, "Hi"), Delta::Usage(usage)]);
    assert!(!stream.contains("usage"));
    assert!(stream.ends_with("data: [DONE]\n\n"));
}

/// Vector 15, and the details that were never named stay away.
#[test]
fn usage_is_merged_field_by_field_and_adds_up() {
    let mut with_usage = stamp();
    with_usage.include_usage = true;
    let first = Usage {
        prompt: Some(100),
        cached: Some(90),
        cache_write: Some(5),
        ..Usage::default()
    };
    let second = Usage {
        prompt: Some(105),
        completion: Some(7),
        ..Usage::default()
    };
    let stream = write(
        with_usage.clone(),
        &[Delta::Usage(first), Delta::Usage(second)],
    );
    assert!(stream.contains(
        r#""choices":[],"usage":{"prompt_tokens":105,"completion_tokens":7,"total_tokens":112,"prompt_tokens_details":{"cached_tokens":90,"cache_write_tokens":5}}}"#
    ), "{stream}");
    let all = Usage {
        prompt: Some(u64::MAX),
        completion: Some(2),
        reasoning: Some(1),
        prompt_audio: Some(4),
        prompt_image: Some(5),
        ..Usage::default()
    };
    let stream = write(with_usage, &[Delta::Usage(all)]);
    assert!(stream.contains(
        r#""total_tokens":18446744073709551615,"prompt_tokens_details":{"audio_tokens":4,"image_tokens":5},"completion_tokens_details":{"reasoning_tokens":1}}"#
    ), "{stream}");
}

#[test]
fn nothing_is_written_before_there_is_output() {
    let mut chunks = Chunks::new(stamp());
    chunks.put(start());
    chunks.put(Delta::Usage(Usage::default()));
    chunks.put(Delta::ServiceTier("default"));
    chunks.put(text(0, ""));
    chunks.put(finish(0, FinishReason::Stop));
    assert_eq!(chunks.bytes(), b"");
    chunks.put(text(0, "a"));
    assert_eq!(
        chunks.bytes().iter().filter(|&&byte| byte == b'\n').count(),
        4
    );
    chunks.clear();
    assert_eq!(chunks.bytes(), b"");
}

/// Vectors 16 and 22.
#[test]
fn refusals_end_with_content_filter() {
    let refusal = Delta::Refusal {
        candidate: 0,
        text: "no",
    };
    let stream = write(
        stamp(),
        &[start(), refusal, finish(0, FinishReason::ContentFilter)],
    );
    assert_eq!(
        choices(&stream),
        [
            r#"{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}"#,
            r#"{"index":0,"delta":{"refusal":"no"},"finish_reason":null}"#,
            r#"{"index":0,"delta":{},"finish_reason":"content_filter"}"#,
        ]
    );
}

/// Vector 18, and the other words.
#[test]
fn the_finish_reason_is_set_once_and_knows_about_calls() {
    use FinishReason::{ContentFilter, Length, Stop, ToolCalls};
    for (reasons, called, word) in [
        (&[Stop, Length][..], false, "stop"),
        (&[Length, Stop], true, "length"),
        (&[Stop], true, "tool_calls"),
        (&[ToolCalls], true, "tool_calls"),
        (&[ToolCalls], false, "stop"),
        (&[ContentFilter], true, "content_filter"),
        (&[], true, "tool_calls"),
        (&[], false, "stop"),
    ] {
        let mut all = vec![start(), text(0, "x")];
        if called {
            all.push(call(0, 0, "a", "f"));
        }
        all.extend(reasons.iter().map(|reason| finish(0, *reason)));
        let stream = write(stamp(), &all);
        let last = format!(r#"{{"index":0,"delta":{{}},"finish_reason":"{word}"}}"#);
        assert_eq!(choices(&stream).last().unwrap(), &last);
    }
}

/// Vector 27.
#[test]
fn choices_appear_in_the_order_of_their_numbers() {
    let stream = write(
        stamp(),
        &[
            start(),
            text(1, "b"),
            text(0, "a"),
            finish(1, FinishReason::Stop),
            finish(0, FinishReason::Length),
        ],
    );
    let role = |i: u32| {
        format!(
            r#"{{"index":{i},"delta":{{"role":"assistant","content":""}},"finish_reason":null}}"#
        )
    };
    assert_eq!(
        choices(&stream),
        [
            role(0),
            role(1),
            r#"{"index":1,"delta":{"content":"b"},"finish_reason":null}"#.into(),
            r#"{"index":0,"delta":{"content":"a"},"finish_reason":null}"#.into(),
            r#"{"index":0,"delta":{},"finish_reason":"length"}"#.into(),
            r#"{"index":1,"delta":{},"finish_reason":"stop"}"#.into(),
        ]
    );
}

#[test]
fn lists_that_may_grow_are_numbered() {
    let image = Delta::Image {
        candidate: 0,
        mime: "image/png",
        base64: "QQ==",
        google_signature: None,
    };
    let citation = Delta::Citation {
        candidate: 0,
        url: "https://x",
        title: "T",
        start: 0,
        end: 6,
    };
    let audio = Delta::Audio {
        candidate: 0,
        id: "au",
        base64: "QQ==",
    };
    let stream = write(
        stamp(),
        &[
            image.clone(),
            image,
            citation.clone(),
            citation,
            audio.clone(),
            audio,
        ],
    );
    let image = |i: u32| {
        format!(
            r#"{{"images":[{{"index":{i},"type":"image_url","image_url":{{"url":"data:image/png;base64,QQ=="}}}}]}}"#
        )
    };
    let citation = |i: u32| {
        format!(
            r#"{{"annotations":[{{"index":{i},"type":"url_citation","url_citation":{{"start_index":0,"end_index":6,"title":"T","url":"https://x"}}}}]}}"#
        )
    };
    assert_eq!(
        deltas(&stream),
        [
            image(0),
            image(1),
            citation(0),
            citation(1),
            r#"{"audio":{"id":"au","transcript":"","data":"QQ=="}}"#.into(),
            r#"{"audio":{"data":"QQ=="}}"#.into(),
        ]
    );
}

#[test]
fn extra_reasoning_logprobs_and_tier_have_their_places() {
    let extra = |json: &'static str| Delta::Extra { candidate: 0, json };
    let stream = write(
        stamp(),
        &[
            start(),
            Delta::ServiceTier("priority"),
            Delta::Reasoning {
                candidate: 0,
                text: "hm",
            },
            Delta::Logprobs {
                candidate: 0,
                json: r#"{"content":[],"refusal":null}"#,
            },
            extra("{ \"google\":\n{\"thought_signature\":\"s\"} }"),
            extra(r#"{"google":{"thought_signature":"again"}}"#),
            extra("{broken"),
        ],
    );
    assert_eq!(
        choices(&stream)[1..4],
        [
            r#"{"index":0,"delta":{"reasoning_content":"hm"},"finish_reason":null}"#,
            r#"{"index":0,"delta":{},"logprobs":{"content":[],"refusal":null},"finish_reason":null}"#,
            r#"{"index":0,"delta":{"extra_content":{"google":{"thought_signature":"s"}}},"finish_reason":null}"#,
        ]
    );
    assert_eq!(choices(&stream).len(), 5);
    assert_eq!(
        stream
            .matches(r#""model":"m","service_tier":"priority","#)
            .count(),
        5
    );
}

#[test]
fn hostile_orders_end_well() {
    let stream = write(
        stamp(),
        &[
            arguments(0, 3, "lost"),
            arguments(9, 0, "lost"),
            text(u32::MAX, "lost"),
            finish(u32::MAX, FinishReason::Stop),
            call(0, 7, "a", "f"),
            call(0, 7, "b", "g"),
            arguments(0, 7, "{}"),
        ],
    );
    assert!(!stream.contains("lost"));
    let deltas = deltas(&stream);
    assert_eq!(
        deltas[2],
        r#"{"tool_calls":[{"index":1,"function":{"arguments":"{}"}}]}"#
    );
    let mut chunks = Chunks::new(stamp());
    chunks.finish();
    let once = chunks.bytes().to_vec();
    chunks.finish();
    chunks.put(text(0, "late"));
    assert_eq!(chunks.bytes(), once);
    assert_eq!(choices(std::str::from_utf8(&once).unwrap()).len(), 2);
}
