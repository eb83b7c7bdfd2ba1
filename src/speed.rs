//! What translation costs: `make speed` prints a table and fails where a figure is over its limit.
//! A caller waits for a request of 100 KB to be encoded and for each event to be decoded.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::dialect::openai::{Chunks, Head, Stamp};
use crate::provider::openai::RelayStream;
use crate::provider::{Options, Provider, Undo, anthropic, gemini, openai, responses};
use crate::sse::Event;

const EVENT_LIMIT: Duration = Duration::from_micros(2);
const REQUEST_LIMIT: Duration = Duration::from_micros(100);

const CLAUDE_EVENT: &str = r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" wide range of topics, and I can"}}"#;
const CLAUDE_START: &[&str] = &[
    r#"{"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"claude-opus-5-5","content":[],"stop_reason":null,"usage":{"input_tokens":10,"output_tokens":1}}}"#,
    r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
];
const GEMINI_EVENT: &str = r#"{"candidates": [{"content": {"parts": [{"text": " wide range of topics, and I can"}],"role": "model"},"index": 0}],"usageMetadata": {"promptTokenCount": 46,"candidatesTokenCount": 46,"totalTokenCount": 159,"promptTokensDetails": [{"modality": "TEXT","tokenCount": 46}],"thoughtsTokenCount": 67},"modelVersion": "gemini-3-flash-preview","responseId": "n1P6abvRFaKdz7IPkcuQ2Aw"}"#;
const RESPONSES_EVENT: &str = r#"{"type":"response.output_text.delta","item_id":"msg_0f1a2b3c4d5e6f7a8b9c0d1e2f3a4b5c6d7e8f9a0b1c2d3e4f","output_index":0,"content_index":0,"delta":" wide range of topics","logprobs":[],"obfuscation":"8fJ2kd","sequence_number":17}"#;
const RESPONSES_START: &[&str] = &[
    r#"{"type":"response.created","response":{"id":"resp_1","created_at":1,"model":"gpt-5.6","status":"in_progress"}}"#,
];
const OPENAI_EVENT: &str = r#"{"id":"chatcmpl-BMsF3mXvGJ2d1lN","object":"chat.completion.chunk","created":1744800000,"model":"gpt-4o-mini-2024-07-18","service_tier":"default","system_fingerprint":"fp_44added55e","choices":[{"index":0,"delta":{"content":" wide range of topics"},"logprobs":null,"finish_reason":null}]}"#;
const OPENAI_START: &str = r#"{"id":"chatcmpl-BMsF3mXvGJ2d1lN","object":"chat.completion.chunk","created":1744800000,"model":"gpt-4o-mini-2024-07-18","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}"#;

fn stamp() -> Stamp {
    Stamp {
        seed: 1,
        created: 1,
        model: "m".into(),
        include_usage: true,
        legacy_functions: false,
    }
}

fn event(data: &str) -> Event<'_> {
    let data = black_box(data.as_bytes());
    Event { data, bare: false }
}

/// The best of several rounds: what others do on the machine is no cost of ours.
fn best(count: u32, mut once: impl FnMut()) -> Duration {
    let round = |once: &mut dyn FnMut()| {
        let started = Instant::now();
        for _ in 0..count {
            once();
        }
        started.elapsed() / count
    };
    let rounds = (0..10).map(|_| round(&mut once));
    rounds.min().unwrap_or_default()
}

/// From an upstream's event to the caller's chunk.
fn decoded(provider: &dyn Provider, start: &[&str], data: &str) -> Duration {
    let mut decoder = provider.decoder(Arc::new(Undo::default()));
    let mut chunks = Chunks::new(stamp());
    for data in start {
        decoder.on_event(event(data), &mut chunks).unwrap();
    }
    best(20_000, || {
        chunks.clear();
        decoder.on_event(event(data), &mut chunks).unwrap();
        assert!(!black_box(chunks.bytes()).is_empty());
    })
}

fn relayed(official: bool) -> Duration {
    let mut relay = RelayStream::new(stamp(), official);
    let mut out = Vec::new();
    relay.on_event(event(OPENAI_START), &mut out).unwrap();
    best(20_000, || {
        out.clear();
        relay.on_event(event(OPENAI_EVENT), &mut out).unwrap();
        assert!(!black_box(&out).is_empty());
    })
}

/// A conversation of 100 KB with tools.
fn request() -> String {
    let text = "The quick brown fox \\\"jumps\\\" over the lazy dog.\\n".repeat(20);
    let mut messages = Vec::new();
    while messages.iter().map(String::len).sum::<usize>() < 100_000 {
        let n = messages.len();
        messages.push(format!(r#"{{"role":"user","content":"{text}"}},{{"role":"assistant","content":"{text}","tool_calls":[{{"id":"c{n}","type":"function","function":{{"name":"f","arguments":"{{\"city\":\"Oslo\"}}"}}}}]}},{{"role":"tool","tool_call_id":"c{n}","content":"{text}"}}"#));
    }
    format!(
        r#"{{"model":"m","messages":[{}],"tools":[{{"type":"function","function":{{"name":"f","parameters":{{"type":"object","properties":{{"city":{{"type":"string"}}}}}}}}}}]}}"#,
        messages.join(",")
    )
}

/// Parsing apart, since it is done once for all targets of a request.
fn encoded(provider: &dyn Provider, model: &str, request: &str) -> Duration {
    let head = Head::read(request.as_bytes()).unwrap();
    let parsed = head.parse().unwrap();
    let options = Options::default();
    best(200, || {
        let encoded = provider.encode(black_box(&parsed), model, &options);
        black_box(encoded.unwrap().body);
    })
}

fn spliced(request: &str) -> Duration {
    let options = Options::default();
    let head = Head::read(request.as_bytes()).unwrap();
    best(200, || {
        let encoded = openai::encode(black_box(&head), "gpt-4o", &options);
        black_box(encoded.unwrap().body);
    })
}

#[test]
#[ignore = "measures, and so wants an optimised build: make speed"]
fn table() {
    let request = request();
    let claude = &anthropic::Messages as &dyn Provider;
    let google = &gemini::GenerateContent as &dyn Provider;
    let items = &responses::Responses as &dyn Provider;
    let rows = [
        (
            "anthropic",
            decoded(claude, CLAUDE_START, CLAUDE_EVENT),
            encoded(claude, "claude-opus-5-5", &request),
        ),
        (
            "gemini",
            decoded(google, &[], GEMINI_EVENT),
            encoded(google, "gemini-4-argon", &request),
        ),
        (
            "responses",
            decoded(items, RESPONSES_START, RESPONSES_EVENT),
            encoded(items, "gpt-5.6", &request),
        ),
        ("openai", relayed(true), spliced(&request)),
        ("compatible", relayed(false), spliced(&request)),
    ];
    let parsing = best(200, || {
        let head = Head::read(black_box(request.as_bytes())).unwrap();
        black_box(head.parse().unwrap());
    });
    println!(
        "upstream    one event    a request of {} bytes",
        request.len()
    );
    for (name, event, request) in rows {
        let (event, request) = (event.as_secs_f64() * 1e6, request.as_secs_f64() * 1e6);
        println!("{name:<10} {event:>8.2} us {request:>8.1} us");
    }
    println!("parsing it {:>20.1} us", parsing.as_secs_f64() * 1e6);
    for (name, event, request) in rows {
        assert!(event < EVENT_LIMIT, "{name}: {event:?} an event");
        assert!(request < REQUEST_LIMIT, "{name}: {request:?} a request");
    }
}
