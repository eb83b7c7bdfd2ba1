//! OpenAI's models that want the Responses format: when weir speaks it without being told to.

use serde_json::{Value, json};

use crate::client::{Client, chat, post};
use crate::completion::{Completion, Streamed};
use crate::upstream::{Format, Received, Reply, Upstream};
use crate::wait::LIMIT;
use crate::weir::{Weir, config};

/// An upstream that answers each address in its own format, after `refuse` had its say.
fn upstream(refuse: impl Fn(&Received) -> Option<Reply> + Send + Sync + 'static) -> Upstream {
    Upstream::start(move |request| {
        if let Some(refusal) = refuse(request) {
            return refusal;
        }
        let format = match request.path.ends_with("/responses") {
            true => Format::Responses,
            false => Format::OpenAi,
        };
        format.answer(request, &["from ", format.name()])
    })
}

fn weir(upstream: &Upstream, official: bool) -> Weir {
    let mut settings = config(Format::OpenAi, &upstream.url(), &["key-a"]);
    settings["retries"] = json!(0);
    settings["upstreams"][0]["official"] = json!(official);
    Weir::start(&settings)
}

fn paths(upstream: &Upstream) -> Vec<String> {
    let requests = upstream.requests();
    requests
        .into_iter()
        .map(|request| request.path.trim_start_matches("/v1").to_owned())
        .collect()
}

fn content(body: &Value) -> String {
    Completion::whole(body).content
}

#[test]
fn vector_33_a_model_that_asks_for_responses_gets_them_once_and_for_all() {
    let upstream = upstream(|request| {
        let words = "not supported in /v1/chat/completions. Please use /v1/responses instead.";
        let chat = request.path.ends_with("/chat/completions");
        let wanted = request.json()["model"] == "gpt-new";
        (chat && wanted).then(|| Format::OpenAi.error(400, "invalid_request_error", words))
    });
    let weir = weir(&upstream, false);
    let answer = post(weir.addr, &chat("gpt-new", false));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(content(&answer.json()), "from responses");
    assert_eq!(paths(&upstream), ["/chat/completions", "/responses"]);

    let mut client = Client::connect(weir.addr);
    client.post(&chat("gpt-new", true));
    let streamed = Streamed::read(client.stream(LIMIT).rest(LIMIT));
    assert_eq!(streamed.completion.content, "from responses");
    assert!(streamed.done);
    assert_eq!(paths(&upstream)[2..], ["/responses"], "remembered");

    let answer = post(weir.addr, &chat("gpt-other", false));
    assert_eq!(content(&answer.json()), "from openai");
    assert_eq!(paths(&upstream)[3..], ["/chat/completions"]);
    weir.idle(LIMIT);
}

#[test]
fn a_model_that_only_asks_is_not_asked_for_ever() {
    let upstream = upstream(|request| {
        let words = match request.path.ends_with("/responses") {
            true => "use /v1/responses instead (from there)",
            false => "use /v1/responses instead",
        };
        Some(Format::OpenAi.error(400, "invalid_request_error", words))
    });
    let weir = weir(&upstream, false);
    let answer = post(weir.addr, &chat("gpt-new", false));
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("(from there)"), "{}", answer.text());
    assert_eq!(upstream.count(), 2);
    weir.idle(LIMIT);
}

#[test]
fn the_vendors_models_are_known_before_they_ask() {
    let upstream = upstream(|_| None);
    let weir = weir(&upstream, true);
    let tools = json!([{"type": "function", "function": {"name": "f"}}]);
    for (model, extra, expected) in [
        ("gpt-5.2-pro", json!({}), "/responses"),
        ("gpt-5.6", json!({}), "/chat/completions"),
        ("gpt-5.6", json!({"tools": tools}), "/responses"),
        (
            "gpt-5.6",
            json!({"tools": tools, "reasoning_effort": "none"}),
            "/chat/completions",
        ),
        ("gpt-5.4", json!({"tools": tools}), "/chat/completions"),
        (
            "gpt-5.4",
            json!({"tools": tools, "reasoning_effort": "low"}),
            "/responses",
        ),
    ] {
        let mut body = chat(model, false);
        for (key, value) in extra.as_object().unwrap() {
            body[key] = value.clone();
        }
        let before = upstream.count();
        let answer = post(weir.addr, &body);
        assert_eq!(answer.status, 200, "{model} {extra}: {}", answer.text());
        assert_eq!(paths(&upstream)[before..], [expected], "{model} {extra}");
    }
    weir.idle(LIMIT);
}

#[test]
fn a_summary_that_is_refused_is_not_asked_for_again() {
    let upstream = upstream(|request| {
        let words = "Your organization must be verified to generate reasoning summaries.";
        request.json()["reasoning"]["summary"]
            .is_string()
            .then(|| Format::OpenAi.error(400, "invalid_request_error", words))
    });
    let weir = weir(&upstream, true);
    let mut body = chat("o3-pro", false);
    body["reasoning_effort"] = json!("high");
    for expected in [2, 3] {
        let answer = post(weir.addr, &body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(content(&answer.json()), "from responses");
        assert_eq!(upstream.count(), expected);
    }
    let last = &upstream.requests()[2].json()["reasoning"];
    assert_eq!(*last, json!({"effort": "high"}));
    weir.idle(LIMIT);
}

/// The first answer carries sealed reasoning, which the upstream later does not take back.
#[test]
fn refused_reasoning_items_are_left_out_and_the_request_is_sent_once_more() {
    let refusals = [
        (
            400,
            "invalid_encrypted_content",
            "Encrypted content of item rs_1 could not be verified.",
        ),
        (
            400,
            "",
            "The encrypted content for item rs_1 could not be decrypted or parsed.",
        ),
        (
            404,
            "",
            "Item with id 'rs_1' not found. Items are not persisted when store is false.",
        ),
        (
            400,
            "",
            "Item 'rs_1' of type 'reasoning' was provided without its required following item.",
        ),
    ];
    for (status, code, words) in refusals {
        let item = r#"{"id":"rs_1","type":"reasoning","summary":[],"encrypted_content":"sealed"}"#;
        let call = r#"{"id":"fc_1","type":"function_call","call_id":"call_1","name":"f","arguments":"{}"}"#;
        let first = format!(
            r#"{{"type":"response.completed","response":{{"id":"resp_1","model":"gpt-5","status":"completed","output":[{item},{call}]}}}}"#
        );
        let scripted = Upstream::start(move |request| {
            let input = request.json()["input"].to_string();
            let error = json!({"error": {"message": words, "type": "invalid_request_error",
                "param": "input", "code": code}});
            if input.contains("rs_1") {
                Reply::json(status, &error)
            } else if input.contains("function_call_output") {
                Format::Responses.answer(request, &["fine"])
            } else {
                Reply::stream().event(&format!("data: {first}\n\n")).end()
            }
        });
        let weir = Weir::start(&config(Format::Responses, &scripted.url(), &["k"]));
        let model = format!("up/{}", Format::Responses.model());
        let mut body = chat(&model, false);
        body["tools"] = json!([{"type": "function", "function": {"name": "f"}}]);
        let answer = weir.ask(&body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let message = answer.json()["choices"][0]["message"].clone();
        let result = json!({"role": "tool", "tool_call_id": "call_1", "content": "1"});
        let said = body["messages"][0].clone();
        body["messages"] = json!([said, message, result]);
        let answer = weir.ask(&body);
        assert_eq!(answer.status, 200, "{words}: {}", answer.text());
        // With the reasoning, and once without it, which is told.
        assert_eq!(scripted.count(), 3, "{words}");
        let dropped = answer.header("x-weir-dropped");
        assert_eq!(dropped, Some("messages.reasoning"), "{words}");
        weir.idle(LIMIT);
    }
}

#[test]
fn names_and_pairs_that_the_vendor_refuses_are_mended_and_named() {
    let scripted = Upstream::start(|request| {
        let body = request.json();
        let name = body["tools"][0]["name"].as_str().unwrap().to_owned();
        let call = json!({"id": "fc_1", "type": "function_call", "call_id": "call_9", "name": name,
            "arguments": "{}"});
        let last = json!({"type": "response.completed", "response": {"id": "resp_1",
            "model": "gpt-5", "status": "completed", "output": [call]}});
        Reply::stream().event(&format!("data: {last}\n\n")).end()
    });
    let weir = Weir::start(&config(Format::Responses, &scripted.url(), &["k"]));
    let mut body = chat(&format!("up/{}", Format::Responses.model()), false);
    let call = |id: &str| {
        json!({"id": id, "type": "function",
        "function": {"name": "look.up it", "arguments": "{}"}})
    };
    body["tools"] = json!([{"type": "function", "function": {"name": "look.up it"}}]);
    body["tool_choice"] = json!({"type": "function", "function": {"name": "look.up it"}});
    body["messages"] = json!([
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": null, "tool_calls": [call("c1"), call("c2")]},
        {"role": "tool", "tool_call_id": "c1", "content": "one"},
        {"role": "tool", "tool_call_id": "c1", "content": "two"},
        {"role": "tool", "tool_call_id": "c3", "content": "stray"},
        {"role": "user", "content": "b"},
    ]);
    let answer = weir.ask(&body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let told = answer.json();
    let name = &told["choices"][0]["message"]["tool_calls"][0]["function"]["name"];
    assert_eq!(name, "look.up it");
    assert_eq!(answer.header("x-weir-dropped"), Some("messages"));
    let sent = scripted.requests()[0].json();
    assert_eq!(sent["tools"][0]["name"], "look_up_it");
    assert_eq!(sent["tool_choice"]["name"], "look_up_it");
    let outputs: Vec<(&str, &str)> = sent["input"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|item| item["type"] == "function_call_output")
        .map(|item| {
            (
                item["call_id"].as_str().unwrap(),
                item["output"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(outputs, [("c1", "two"), ("c2", "no result")]);
    assert!(
        sent["input"]
            .to_string()
            .contains("[result of tool call c3]")
    );
    weir.idle(LIMIT);
}

#[test]
fn what_a_model_says_on_the_way_is_no_part_of_a_structured_answer() {
    let message = |id: &str, phase: &str, text: &str| {
        json!({"type": "message", "id": id, "phase": phase, "role": "assistant",
            "content": [{"type": "output_text", "text": text, "annotations": []}]})
    };
    let output = [
        message("m1", "commentary", "{\"city\":\"?\"}"),
        message("m2", "final_answer", "{\"city\":\"Oslo\"}"),
    ];
    let mut events = Vec::new();
    for (place, item) in output.iter().enumerate() {
        let event =
            json!({"type": "response.output_item.done", "output_index": place, "item": item});
        events.push(format!("data: {event}\n\n"));
    }
    let response = json!({"id": "r", "object": "response", "model": "m", "status": "completed",
        "output": output});
    let last = json!({"type": "response.completed", "response": response});
    events.push(format!("data: {last}\n\n"));
    let upstream = Upstream::always(Reply::stream().events(&events).end());
    let weir = Weir::start(&config(Format::Responses, &upstream.url(), &["k"]));
    let mut body = chat("up/m", false);
    let plain = Completion::whole(&post(weir.addr, &body).json());
    assert_eq!(plain.content, "{\"city\":\"?\"}\n\n{\"city\":\"Oslo\"}");
    body["response_format"] = json!({"type": "json_object"});
    let formed = Completion::whole(&post(weir.addr, &body).json());
    assert_eq!(formed.content, "{\"city\":\"Oslo\"}");
    assert_eq!(formed.reasoning, "{\"city\":\"?\"}");
    let streamed = weir.stream(&{
        body["stream"] = json!(true);
        body
    });
    assert_eq!(streamed.completion.content, formed.content);
    assert_eq!(streamed.completion.reasoning, formed.reasoning);
    weir.idle(LIMIT);
}
