//! Callers who speak OpenAI's Responses, with every upstream format behind weir.

use serde_json::{Value, json};

use crate::client::{Answer, ask};
use crate::upstream::{Format, Received, Reply, Upstream};
use crate::wait::LIMIT;
use crate::weir::{Weir, config};

/// A server of one format. One of Chat Completions has no other route.
fn upstream(
    format: Format,
    script: impl Fn(&Received) -> Reply + Send + Sync + 'static,
) -> Upstream {
    Upstream::start(move |request| {
        if format == Format::OpenAi && request.path.ends_with("/responses") {
            return Reply::json(404, &json!({"detail": "Not Found"}));
        }
        script(request)
    })
}

fn settings(format: Format, upstream: &Upstream) -> Value {
    let mut settings = config(format, &upstream.url(), &["key-a"]);
    settings["retries"] = json!(0);
    settings["models"] = json!({"gpt-5*": [format!("up/{}", format.model())]});
    settings["upstreams"][0]["name"] = json!("up");
    settings
}

fn hello(stream: bool) -> Value {
    json!({"model": "gpt-5.5", "stream": stream, "input": "Hello?"})
}

fn post(weir: &Weir, headers: &[(&str, &str)], body: &Value) -> Answer {
    let bytes = body.to_string().into_bytes();
    ask(weir.addr, "POST", "/v1/responses", headers, &bytes)
}

/// The events of a stream, each with its name and data checked against each other.
fn events(text: &str) -> Vec<Value> {
    let mut all = Vec::new();
    for event in text.split_terminator("\n\n") {
        let (name, data) = event
            .strip_prefix("event: ")
            .and_then(|rest| rest.split_once("\ndata: "))
            .unwrap_or_else(|| panic!("no event: {event:?}"));
        let data: Value = serde_json::from_str(data).unwrap();
        assert_eq!(data["type"], name);
        all.push(data);
    }
    all
}

/// A stream as the response that it tells, with the rules that hold for all of them checked.
fn gathered(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    let text = answer.text();
    let mut all = events(&text);
    all.retain(|event| event["type"] != "keepalive");
    let numbers: Vec<u64> = all
        .iter()
        .map(|event| event["sequence_number"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, (0..all.len() as u64).collect::<Vec<_>>());
    assert_eq!(all[0]["type"], "response.created");
    assert_eq!(all[1]["type"], "response.in_progress");
    let id = &all[0]["response"]["id"];
    let mut output: Vec<Value> = Vec::new();
    let mut open: Option<Value> = None;
    let mut part = Value::Null;
    let mut said = String::new();
    let last = all.len() - 1;
    for event in &all[2..last] {
        let name = event["type"].as_str().unwrap();
        assert_eq!(event["output_index"], output.len(), "{event}");
        if name == "response.output_item.added" {
            assert!(open.is_none(), "one item at a time");
            open = Some(event["item"].clone());
            said.clear();
            continue;
        }
        let item = open.as_ref().expect("an item is open");
        if name == "response.output_item.done" {
            assert_eq!(event["item"]["id"], item["id"]);
            assert!(part.is_null(), "{event}");
            output.push(event["item"].clone());
            open = None;
            continue;
        }
        assert_eq!(event["item_id"], item["id"], "{event}");
        match name.rsplit('.').next().unwrap() {
            "added" if name.contains("_part.") => part = event["part"].clone(),
            "added" => {}
            "delta" => said += event["delta"].as_str().unwrap(),
            "done" if name.contains("_part.") => {
                assert_eq!(event["part"]["text"], said.as_str());
                part = Value::Null;
            }
            "done" => {
                let whole = ["text", "arguments", "input"]
                    .iter()
                    .find_map(|key| event[key].as_str());
                assert_eq!(whole, Some(said.as_str()), "{event}");
            }
            _ => panic!("{event}"),
        }
    }
    let end = &all[last];
    assert_eq!(end["response"]["id"], *id);
    let name = format!("response.{}", end["response"]["status"].as_str().unwrap());
    assert_eq!(end["type"], name.as_str(), "{text}");
    if name != "response.failed" {
        assert!(open.is_none());
        assert_eq!(end["response"]["output"], json!(output));
    }
    end["response"].clone()
}

fn either(answer: &Answer, stream: bool) -> Value {
    match stream {
        true => gathered(answer),
        false => {
            assert_eq!(answer.status, 200, "{}", answer.text());
            answer.json()
        }
    }
}

fn said(response: &Value) -> String {
    let output = response["output"].as_array().unwrap();
    let parts = output
        .iter()
        .filter(|item| item["type"] == "message")
        .flat_map(|item| item["content"].as_array().unwrap());
    parts.filter_map(|part| part["text"].as_str()).collect()
}

#[test]
fn a_question_is_answered_whatever_the_upstream_speaks() {
    for format in Format::ALL {
        let upstream = upstream(format, move |request| {
            format.answer(request, &["Hel", "lo."])
        });
        let weir = Weir::start(&settings(format, &upstream));
        for stream in [true, false] {
            let answer = post(&weir, &[], &hello(stream));
            assert_eq!(answer.status, 200, "{format:?} {}", answer.text());
            assert_eq!(answer.header("x-weir-upstream"), Some("up"));
            if format == Format::Responses {
                // It is passed on as it is.
                assert!(answer.text().contains("Hello."), "{}", answer.text());
                continue;
            }
            let response = either(&answer, stream);
            let told = format!("{format:?} {response}");
            assert_eq!(response["object"], "response", "{told}");
            assert_eq!(response["model"], "gpt-5.5", "{told}");
            assert_eq!(response["status"], "completed", "{told}");
            assert_eq!(said(&response), "Hello.", "{told}");
            assert_eq!(response["usage"]["input_tokens"], 11, "{told}");
            assert_eq!(response["usage"]["output_tokens"], 7, "{told}");
            assert_eq!(response["usage"]["total_tokens"], 18, "{told}");
        }
        weir.idle(LIMIT);
    }
}
