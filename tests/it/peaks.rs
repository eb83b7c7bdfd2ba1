//! What one long request takes of memory, by its shape; what it gives back; what follows where
//! there is too little.
//!
//! The bodies here are an eighth of the longest that the defaults take, and may hold an eighth of
//! the values, so that the ratios are those of the full length. `PEAK_MIB=32 PEAK_ALL=1` measures
//! that, and every shape.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Answer, Client, chat, get, request};
use crate::first_mile::error_of;
use crate::upstream::{Format, Upstream};
use crate::wait::{LIMIT, until};
use crate::weir::{Weir, config};

#[path = "../../src/cost/shapes.rs"]
mod shapes;

use shapes::SHAPES;

/// How often the length of the body a request may take at its peak.
const TIMES: usize = 6;

const FORMATS: &[(Format, &str)] = &[
    (Format::OpenAi, "up/llama-3"),
    (Format::Anthropic, "up/claude-opus-5-5"),
    (Format::Gemini, "up/gemini-3-pro-preview"),
    (Format::Responses, "up/gpt-5.6"),
];

/// Of all shapes those that took most, in some format.
const WORST: &[&str] = &[
    "one long text",
    "messages of one letter",
    "calls with results",
    "tools with small schemas",
    "a wide schema",
    "a wide schema as the answer's",
    "a schema with a long enum",
    "a schema of many branches",
    "a schema of many words on one property",
    "definitions that refer to each other",
    "one long definition, referred to often",
    "stops",
    "members without a name",
    "extra_body of OpenAI, over members",
];

fn megabytes() -> usize {
    let set = std::env::var("PEAK_MIB").ok();
    set.and_then(|text| text.parse().ok()).unwrap_or(4)
}

/// A body of `length` bytes, of which as much is of the shape as holds `values` values, and the
/// rest is a text.
fn body(make: fn(usize) -> String, model: &str, length: usize, values: usize) -> String {
    const SAMPLE: usize = 64 << 10;
    let count = |body: &str| {
        body.bytes()
            .filter(|b| matches!(b, b',' | b'{' | b'['))
            .count()
    };
    // A little less, as names grow longer.
    let share = (values * 95 / 100) as f64 / count(&make(SAMPLE)) as f64;
    let of_shape = (SAMPLE as f64 * share).min((length - 4096) as f64) as usize;
    let body = make(of_shape).replacen("\"m\"", &format!("\"{model}\""), 1);
    // Within the limit, with what stands around the text.
    let filler = "x".repeat(length.saturating_sub(body.len() + 1024));
    let text = "\"content\":\"x";
    match body.contains(text) {
        true => body.replacen(text, &format!("{text}{filler}"), 1),
        false => body.replacen('{', &format!("{{\"user\":\"{filler}\","), 1),
    }
}

fn send(weir: &Weir, body: &str) -> Answer {
    let length = body.len().to_string();
    let headers = [
        ("Content-Type", "application/json"),
        ("Content-Length", &*length),
    ];
    let mut client = Client::connect(weir.addr);
    client.send(&request("POST", "/v1/chat/completions", &headers, b""));
    client.send(body.as_bytes());
    client.answer(6 * LIMIT)
}

fn settings(format: Format, url: &str) -> Value {
    let mut settings = config(format, url, &["k"]);
    let share = 32 / megabytes().clamp(1, 32);
    settings["max_body_values"] = json!(160_000 / share);
    settings["deadline_ms"] = json!(120_000);
    settings["workers"] = json!(2);
    settings
}

fn answering(format: Format) -> Upstream {
    Upstream::start(move |request| format.answer(request, &["hi"]))
}

#[test]
fn a_long_request_takes_at_most_six_times_its_length() {
    let all = std::env::var_os("PEAK_ALL").is_some();
    let length = megabytes() << 20;
    let mut over = Vec::new();
    for (format, model) in FORMATS {
        let scripted = answering(*format);
        let settings = settings(*format, &scripted.url());
        let values = settings["max_body_values"].as_u64().unwrap() as usize;
        for shape in SHAPES
            .iter()
            .filter(|shape| all || WORST.contains(&shape.name))
        {
            let body = body(shape.make, model, length, values);
            let weir = Weir::start(&settings);
            // With all that a first request needs.
            assert_eq!(weir.ask(&chat(model, false)).status, 200);
            let before = weir.peak_rss_kib();
            let answer = send(&weir, &body);
            let peak = (weir.peak_rss_kib() - before) * 1024;
            let times = peak as f64 / length as f64;
            let line = format!("{format:?}, {}: {times:.1} ({})", shape.name, answer.status);
            println!("{line}");
            if peak > TIMES * length {
                over.push(line);
            }
        }
    }
    assert!(over.is_empty(), "{over:#?}");
}

#[test]
fn what_a_large_request_took_is_given_back() {
    let scripted = answering(Format::Anthropic);
    let weir = Weir::start(&settings(Format::Anthropic, &scripted.url()));
    let small = chat(FORMATS[1].1, false);
    assert_eq!(weir.ask(&small).status, 200);
    let before = weir.rss_kib();
    let make = SHAPES
        .iter()
        .find(|shape| shape.name == "messages of one letter")
        .unwrap()
        .make;
    let length = megabytes() << 20;
    let answer = send(
        &weir,
        &body(make, FORMATS[1].1, length, 160_000 * megabytes() / 32),
    );
    assert_eq!(answer.status, 200, "{}", answer.text());
    // It took something.
    assert!(weir.peak_rss_kib() > before + length / 1024);
    until(2 * LIMIT, "the memory to be given back", || {
        (weir.rss_kib() < before + 4096).then_some(())
    });
}

/// With so little memory that the work on a long body would end the process.
#[test]
fn without_memory_for_the_work_on_a_body_it_is_refused_whatever_its_shape() {
    let scripted = answering(Format::Anthropic);
    let mut settings = settings(Format::Anthropic, &scripted.url());
    settings["max_body_values"] = json!(160_000);
    // Room for a third of what is promised for such a body.
    let usual = Weir::start(&settings);
    assert_eq!(usual.ask(&chat(FORMATS[1].1, false)).status, 200);
    let limit = usual.address_space_kib() + 50 * 1024;
    drop(usual);
    let weir = Weir::start_under(&format!("ulimit -v {limit}"), &settings);
    let mut statuses = Vec::new();
    for name in WORST {
        let make = SHAPES
            .iter()
            .find(|shape| shape.name == *name)
            .unwrap()
            .make;
        let body = body(make, FORMATS[1].1, 16 << 20, 160_000);
        let answer = send(&weir, &body);
        if answer.status == 503 {
            assert_eq!(error_of(&answer)["code"], "overloaded");
            assert!(answer.header("retry-after").is_some());
        }
        statuses.push(answer.status);
        assert_eq!(get(weir.addr, "/healthz").status, 200, "{name}");
        assert_eq!(weir.ask(&chat(FORMATS[1].1, false)).status, 200, "{name}");
    }
    assert!(statuses.contains(&503), "{statuses:?}");
}

/// A process that ends for want of memory, or by a fault, leaves no file with the keys in it.
#[test]
fn there_is_no_core_file() {
    let scripted = answering(Format::OpenAi);
    let settings = settings(Format::OpenAi, &scripted.url());
    let weir = Weir::start_under("ulimit -S -c unlimited", &settings);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", weir.pid())).unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    let soft = line.unwrap().split_whitespace().nth(4);
    assert_eq!(soft, Some("0"), "{limits}");
}

/// What holds too much is refused before anything is made of it, and told which limit it was.
#[test]
fn a_body_that_holds_too_much_is_a_400_that_names_the_key() {
    let scripted = answering(Format::Anthropic);
    let mut settings = settings(Format::Anthropic, &scripted.url());
    settings["max_body_values"] = json!(2000);
    settings["max_body_depth"] = json!(20);
    settings["max_messages"] = json!(30);
    settings["max_tools"] = json!(10);
    settings["max_schema_nodes"] = json!(100);
    let weir = Weir::start(&settings);
    let make = |name: &str| SHAPES.iter().find(|shape| shape.name == name).unwrap().make;
    let deep = format!(
        r#"{{"model":"m","messages":[{{"role":"user","content":"x"}}],"x":{}{}}}"#,
        "[".repeat(30),
        "]".repeat(30)
    );
    for (body, key) in [
        (make("metadata")(100_000), "max_body_values"),
        (deep, "max_body_depth"),
        (make("messages of one letter")(3_000), "max_messages"),
        (make("tools")(2_000), "max_tools"),
        (make("functions")(2_000), "max_tools"),
        (
            make("one long definition, referred to often")(2_000),
            "max_schema_nodes",
        ),
    ] {
        let body = body.replacen("\"m\"", "\"up/claude-opus-5-5\"", 1);
        let answer = send(&weir, &body);
        assert_eq!(answer.status, 400, "{key}: {}", answer.text());
        let message = error_of(&answer)["message"].as_str().unwrap().to_owned();
        assert!(message.contains(&format!("({key})")), "{message}");
    }
    assert_eq!(scripted.count(), 0);
}

/// Names that have to be changed, results in reverse, many branches: seconds of work once. Whoever
/// leaves, and the deadline, end it; and none of it takes long.
#[test]
fn the_deadline_ends_the_encoding_too() {
    let scripted = answering(Format::Gemini);
    let mut settings = settings(Format::Gemini, &scripted.url());
    settings["deadline_ms"] = json!(1);
    settings["max_body_values"] = json!(1_000_000);
    let weir = Weir::start(&settings);
    let make = SHAPES
        .iter()
        .find(|shape| shape.name == "calls with results")
        .unwrap()
        .make;
    let body = make(8 << 20).replacen("\"m\"", &format!("\"{}\"", FORMATS[2].1), 1);
    let asked = Instant::now();
    let answer = send(&weir, &body);
    assert_eq!(answer.status, 504, "{}", answer.text());
    assert_eq!(scripted.count(), 0, "it was not sent");
    assert!(asked.elapsed() < LIMIT.min(Duration::from_secs(60)));
    weir.idle(LIMIT);
}
