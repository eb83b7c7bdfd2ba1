use std::sync::Arc;
use std::sync::mpsc;

use serde_json::{Value, json};

use super::{Asked, Events, Kept, Response, tail, to_chat};
use crate::chat::{Delta, DeltaSink, FinishReason, ToolKind, Usage};
use crate::dialect::{Streamed, Whole};
use crate::error::ApiError;
use crate::json::shape::Limits;
use crate::seal::{Holds, Seals};

fn seals() -> Arc<Seals> {
    Arc::new(Seals::new(Some("k"), std::iter::empty()))
}

struct Nothing;

impl Kept for Nothing {
    fn conversation(&self, _: &str) -> Option<Vec<String>> {
        None
    }

    fn item(&self, _: &str) -> Option<String> {
        None
    }
}

fn asked() -> Asked {
    let request = json!({
        "model": "gpt-x", "input": "x", "temperature": 0.5, "metadata": {"a": "b\u{2028}"},
        "tools": [
            {"type": "custom", "name": "apply"},
            {"type": "namespace", "name": "n", "tools": [{"type": "function", "name": "g"}]},
            {"type": "tool_search", "execution": "client"}
        ]
    });
    let (limits, text) = (Limits::default(), request.to_string());
    let converted = to_chat(&text, &limits, &seals(), &Nothing, &tail(0xabc), 7);
    converted.unwrap().asked
}

const CANDIDATE: u32 = 0;

fn call(out: &mut dyn DeltaSink, index: u32, name: &str, pieces: &[&str]) {
    out.put(Delta::ToolStart {
        candidate: CANDIDATE,
        index,
        id: "c",
        name,
        kind: ToolKind::Function,
        google_signature: (index == 0).then_some("sig"),
    });
    for fragment in pieces {
        out.put(Delta::ToolArgs {
            candidate: CANDIDATE,
            index,
            fragment,
        });
    }
}

fn deltas(out: &mut dyn DeltaSink, reason: FinishReason) {
    let candidate = CANDIDATE;
    out.put(Delta::Start {
        id: "up_1",
        model: "claude",
    });
    out.put(Delta::Usage(Usage {
        prompt: Some(100),
        cached: Some(30),
        ..Usage::default()
    }));
    for text in ["H", "m."] {
        out.put(Delta::Reasoning { candidate, text });
    }
    for text in ["Look", "\n\u{2028}"] {
        out.put(Delta::Text { candidate, text });
    }
    out.put(Delta::Citation {
        candidate,
        url: "http://a/",
        title: "A",
        start: 0,
        end: 4,
    });
    out.put(Delta::Text {
        candidate: 1,
        text: "another's",
    });
    call(out, 0, "n__g", &["{\"a\": ", "1}"]);
    call(out, 1, "apply", &["{\"inp", "ut\": \"a\\nb\"}"]);
    call(out, 2, "tool_search", &["{\"query\":\"x\"}"]);
    call(out, 3, "nobody", &[]);
    out.put(Delta::Extra {
        candidate,
        json: r#"{"anthropic":{}}"#,
    });
    out.put(Delta::Usage(Usage {
        completion: Some(7),
        reasoning: Some(3),
        ..Usage::default()
    }));
    out.put(Delta::Finish { candidate, reason });
}

fn stream(asked: &Arc<Asked>, reason: FinishReason) -> Vec<Value> {
    let mut events = Events::new(Arc::clone(asked), seals(), 1);
    deltas(&mut events, reason);
    events.finish();
    events.finish();
    let mut all = asked.opening();
    all.extend_from_slice(events.bytes());
    let text = String::from_utf8(all).unwrap();
    let read = |event: &str| {
        let (name, data) = event.split_once('\n').unwrap();
        let data = data.strip_prefix("data: ").unwrap();
        assert!(!data.contains(['\n', '\u{2028}']));
        let data: Value = serde_json::from_str(data).unwrap();
        assert_eq!(name, format!("event: {}", data["type"].as_str().unwrap()));
        data
    };
    text.split_terminator("\n\n").map(read).collect()
}

fn whole(asked: Asked, reason: FinishReason) -> Value {
    let mut response = Response::new(Arc::new(asked), seals(), 1);
    deltas(&mut response, reason);
    assert_eq!(response.usage().completion, Some(7));
    serde_json::from_slice(&Box::new(response).into_body()).unwrap()
}

#[test]
fn a_stream_has_its_events_in_order() {
    let all = stream(&Arc::new(asked()), FinishReason::Stop);
    let names: Vec<&str> = all
        .iter()
        .map(|event| {
            let name = event["type"].as_str().unwrap();
            name.strip_prefix("response.").unwrap()
        })
        .collect();
    let (added, done) = ("output_item.added", "output_item.done");
    let arguments = "function_call_arguments";
    let arguments = |what: &str| format!("{arguments}.{what}");
    let (delta, end) = (arguments("delta"), arguments("done"));
    let expected: Vec<&str> = [
        &["created", "in_progress"][..],
        &[
            added,
            "reasoning_summary_part.added",
            "reasoning_summary_text.delta",
            "reasoning_summary_text.delta",
            "reasoning_summary_text.done",
            "reasoning_summary_part.done",
            done,
        ],
        &[
            added,
            "content_part.added",
            "output_text.delta",
            "output_text.delta",
            "output_text.annotation.added",
            "output_text.done",
            "content_part.done",
            done,
        ],
        &[added, done],
        &[added, &delta, &delta, &end, done],
        &[
            added,
            "custom_tool_call_input.delta",
            "custom_tool_call_input.done",
            done,
        ],
        &[added, done],
        &[added, &delta, &end, done],
        &[added, done],
        &["completed"],
    ]
    .concat();
    assert_eq!(names, expected);
    for (number, event) in all.iter().enumerate() {
        assert_eq!(event["sequence_number"], number);
    }
    let id = "resp_weir0000000000000abc";
    assert_eq!(all[0]["response"]["id"], id);
    assert_eq!(all[0]["response"]["status"], "in_progress");
    assert_eq!(all[0]["response"]["output"], json!([]));
    let last = all.last().unwrap();
    let told: Vec<&Value> = all
        .iter()
        .filter(|event| event["type"] == "response.output_item.done")
        .map(|event| &event["item"])
        .collect();
    assert_eq!(last["response"]["output"], json!(told));
    let begun = &all[9]["item"];
    assert_eq!(begun["status"], "in_progress");
    assert_eq!(begun["content"], json!([]));
    // What is whole says the same.
    assert_eq!(last["response"], whole(asked(), FinishReason::Stop));
}

#[test]
fn calls_have_the_shape_in_which_their_tools_were_declared() {
    let response = whole(asked(), FinishReason::ToolCalls);
    assert_eq!(response["object"], "response");
    assert_eq!(response["status"], "completed");
    assert_eq!(response["created_at"], 7);
    assert_eq!(response["model"], "gpt-x");
    assert_eq!(response["temperature"], 0.5);
    assert_eq!(response["metadata"], json!({"a": "b\u{2028}"}));
    for key in ["error", "incomplete_details", "instructions", "top_p"] {
        assert!(
            response[key].is_null() && response.get(key).is_some(),
            "{key}"
        );
    }
    assert_eq!(response["parallel_tool_calls"], true);
    assert_eq!(response["tool_choice"], "auto");
    assert_eq!(
        response["usage"],
        json!({"input_tokens": 100,
            "input_tokens_details": {"cached_tokens": 30, "cache_write_tokens": 0},
            "output_tokens": 7, "output_tokens_details": {"reasoning_tokens": 3},
            "total_tokens": 107})
    );
    let output = response["output"].as_array().unwrap();
    let tail = "weir0000000000000abc";
    let open = |at: usize| seals().open(output[at]["encrypted_content"].as_str().unwrap());
    assert_eq!(
        output[0],
        json!({"id": format!("rs_{tail}00"), "type": "reasoning",
            "summary": [{"type": "summary_text", "text": "Hm."}], "encrypted_content": null})
    );
    assert_eq!(
        output[1],
        json!({"id": format!("msg_{tail}01"), "type": "message", "status": "completed",
            "role": "assistant", "content": [{"type": "output_text", "text": "Look\n\u{2028}",
                "logprobs": [], "annotations": [{"type": "url_citation", "start_index": 0,
                    "end_index": 4, "url": "http://a/", "title": "A"}]}]})
    );
    assert_eq!(open(2), Some((Holds::CallSignature, "sig".into())));
    assert_eq!(
        output[3],
        json!({"id": format!("fc_{tail}03"), "type": "function_call", "status": "completed",
            "call_id": "c", "name": "g", "namespace": "n", "arguments": "{\"a\": 1}"})
    );
    let custom = &output[4];
    assert_eq!(custom["type"], "custom_tool_call");
    assert_eq!(
        (&custom["name"], &custom["input"]),
        (&json!("apply"), &json!("a\nb"))
    );
    assert_ne!(custom["call_id"], "c", "no two calls have one id");
    let search = &output[5];
    assert_eq!(search["type"], "tool_search_call");
    assert_eq!(search["execution"], "client");
    assert_eq!(search["arguments"], json!({"query": "x"}));
    assert_eq!(output[6]["name"], "nobody");
    assert_eq!(output[6]["arguments"], "{}");
    assert_eq!(open(7), Some((Holds::Extra, r#"{"anthropic":{}}"#.into())));
}

#[test]
fn an_answer_that_was_cut_is_incomplete() {
    for (reason, word) in [
        (FinishReason::Length, "max_output_tokens"),
        (FinishReason::ContentFilter, "content_filter"),
    ] {
        let all = stream(&Arc::new(asked()), reason);
        let last = all.last().unwrap();
        assert_eq!(last["type"], "response.incomplete");
        assert_eq!(last["response"]["status"], "incomplete");
        assert_eq!(
            last["response"]["incomplete_details"],
            json!({"reason": word})
        );
    }
    let mut cut = Response::new(Arc::new(asked()), seals(), 1);
    call(&mut cut, 0, "n__g", &["{\"a"]);
    cut.put(Delta::Finish {
        candidate: 0,
        reason: FinishReason::Length,
    });
    let cut: Value = serde_json::from_slice(&Box::new(cut).into_body()).unwrap();
    let item = &cut["output"][1];
    assert_eq!(
        (&item["arguments"], &item["status"]),
        (&json!("{\"a"), &json!("incomplete"))
    );
    assert!(cut["usage"].is_null(), "nobody counted");
}

#[test]
fn refusals_and_pictures_are_items_of_their_own() {
    let mut response = Response::new(Arc::new(asked()), seals(), 1);
    response.put(Delta::Text {
        candidate: 0,
        text: "See.",
    });
    response.put(Delta::Image {
        candidate: 0,
        mime: "image/png",
        base64: "AA==",
        google_signature: None,
    });
    response.put(Delta::Refusal {
        candidate: 0,
        text: "No.",
    });
    let body: Value = serde_json::from_slice(&Box::new(response).into_body()).unwrap();
    let output = body["output"].as_array().unwrap();
    assert_eq!(output.len(), 3);
    assert_eq!(output[1]["type"], "image_generation_call");
    assert_eq!(output[1]["result"], "AA==");
    assert_eq!(
        output[2]["content"],
        json!([{"type": "refusal", "refusal": "No."}])
    );
}

#[test]
fn free_form_input_is_found_however_the_model_wrote_it() {
    for (arguments, input) in [
        (r#"{"input": "a"}"#, "a"),
        (r#"{"patch": "a"}"#, "a"),
        ("*** Begin", "*** Begin"),
        (r#"{"input": 3}"#, r#"{"input": 3}"#),
        (r#"{"a": "x", "b": "y"}"#, r#"{"a": "x", "b": "y"}"#),
        ("", ""),
    ] {
        let mut response = Response::new(Arc::new(asked()), seals(), 1);
        call(&mut response, 1, "apply", &[arguments]);
        let body: Value = serde_json::from_slice(&Box::new(response).into_body()).unwrap();
        assert_eq!(body["output"][0]["input"], input, "{arguments}");
    }
}

#[test]
fn a_broken_stream_says_what_another_try_can_do() {
    let asked = asked();
    for (error, hopeless, word) in [
        (ApiError::new(502, "x"), false, "server_error"),
        (
            ApiError::new(503, "x").with_code("overloaded"),
            false,
            "server_error",
        ),
        (ApiError::new(429, "x"), false, "rate_limit_exceeded"),
        (ApiError::new(502, "x"), true, "insufficient_quota"),
        (
            ApiError::new(429, "x").with_code("insufficient_quota"),
            false,
            "insufficient_quota",
        ),
        (ApiError::new(400, "x"), true, "invalid_prompt"),
        (
            ApiError::new(400, "x").with_code("context_length_exceeded"),
            true,
            "context_length_exceeded",
        ),
    ] {
        let event = String::from_utf8(asked.failed(&error, hopeless)).unwrap();
        let data = event
            .strip_prefix("event: response.failed\ndata: ")
            .unwrap();
        let data: Value = serde_json::from_str(data).unwrap();
        assert_eq!(data["response"]["id"], asked.id.as_str());
        assert_eq!(data["response"]["status"], "failed");
        assert_eq!(
            data["response"]["error"],
            json!({"code": word, "message": "x"})
        );
    }
}

#[test]
fn what_is_kept_is_the_whole_answer() {
    let (sent, kept) = mpsc::channel();
    let asked = asked().kept_by(Box::new(move |id, body| {
        sent.send((id.to_owned(), body)).unwrap();
    }));
    let asked = Arc::new(asked);
    let mut broken = Events::new(Arc::clone(&asked), seals(), 1);
    broken.put(Delta::Text {
        candidate: 0,
        text: "x",
    });
    drop(broken);
    assert!(kept.try_recv().is_err(), "not one that broke");
    let last = stream(&asked, FinishReason::Stop).pop().unwrap();
    let (id, body) = kept.try_recv().unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        (&json!(id), &body),
        (&last["response"]["id"], &last["response"])
    );
}
