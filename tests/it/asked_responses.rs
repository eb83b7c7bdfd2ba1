//! Callers who speak OpenAI's Responses, with every upstream format behind weir.

use std::path::Path;

use serde_json::{Value, json};

use crate::client::{Answer, Client, Item, ask, request};
use crate::upstream::{Format, Part, Received, Reply, Upstream};
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

/// Upstreams for which requests are translated.
const TRANSLATED: [Format; 3] = Format::CHAT;

fn tools() -> Value {
    let parameters = json!({"type": "object", "properties": {"path": {"type": "string"}},
        "required": ["path"], "additionalProperties": false});
    json!([
        {"type": "namespace", "name": "files", "description": "Files.", "tools": [
            {"type": "function", "name": "read", "parameters": parameters, "strict": false}]},
        {"type": "custom", "name": "apply_patch", "description": "Patches.",
            "format": {"type": "grammar", "syntax": "lark", "definition": "start: \"x\""}},
        {"type": "web_search", "external_web_access": true},
        {"type": "local_shell"}
    ])
}

#[test]
fn parallel_calls_and_their_results_go_through_every_format() {
    for format in TRANSLATED {
        let upstream = upstream(format, move |request| {
            let (a, b) = (json!({"path": "a"}), json!({"input": "*** Begin\n\"é\"\n"}));
            let calls = [
                Part::Text("Look."),
                Part::Call("call_a", "files__read", &a),
                Part::Call("call_b", "apply_patch", &b),
            ];
            match request.json().to_string().contains("B's text") {
                true => format.answer(request, &["The end."]),
                false if request.wants_stream() => {
                    Reply::stream().events(&format.part_events(&calls)).end()
                }
                false => Reply::json(200, &format.body(&calls)),
            }
        });
        let weir = Weir::start(&settings(format, &upstream));
        for stream in [true, false] {
            let mut body = hello(stream);
            body["input"] = json!([{"role": "user", "content": "Hello?"}]);
            body["tools"] = tools();
            let answer = post(&weir, &[], &body);
            let dropped = answer.header("x-weir-dropped").unwrap_or_default();
            assert!(dropped.contains("tools.local_shell"), "{dropped}");
            let first = either(&answer, stream);
            let told = format!("{format:?} {first}");
            let output = first["output"].as_array().unwrap();
            let calls: Vec<&Value> = output
                .iter()
                .filter(|item| item.get("call_id").is_some())
                .collect();
            assert_eq!(calls.len(), 2, "{told}");
            assert_eq!(calls[0]["type"], "function_call", "{told}");
            assert_eq!(calls[0]["name"], "read", "{told}");
            assert_eq!(calls[0]["namespace"], "files", "{told}");
            let arguments = calls[0]["arguments"].as_str().unwrap();
            assert_eq!(
                serde_json::from_str::<Value>(arguments).unwrap(),
                json!({"path": "a"})
            );
            assert_eq!(calls[1]["type"], "custom_tool_call", "{told}");
            assert_eq!(calls[1]["name"], "apply_patch", "{told}");
            assert_eq!(calls[1]["input"], "*** Begin\n\"é\"\n", "{told}");
            assert_ne!(calls[0]["call_id"], calls[1]["call_id"], "{told}");
            // The results come in another order.
            let history = body["input"].as_array_mut().unwrap();
            history.extend(output.iter().cloned());
            history.push(
                json!({"type": "custom_tool_call_output", "call_id": calls[1]["call_id"],
                "output": "B's text"}),
            );
            history.push(
                json!({"type": "function_call_output", "call_id": calls[0]["call_id"],
                "output": [{"type": "input_text", "text": "A's text"},
                    {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo="}]}),
            );
            let last = either(&post(&weir, &[], &body), stream);
            assert_eq!(said(&last), "The end.", "{format:?} {last}");
        }
        let sent = upstream.requests().last().unwrap().json().to_string();
        let places = ["A's text", "B's text", "iVBORw0KGgo="].map(|text| sent.find(text));
        assert!(
            places[0].is_some() && places.is_sorted(),
            "in the order of the calls: {sent}"
        );
        weir.idle(LIMIT);
    }
}

/// Reasoning comes back to the vendor who signed it as it was, over a restart.
#[test]
fn signed_reasoning_comes_back_unharmed() {
    let signature = "c2lnbmVk".repeat(2500);
    for format in [Format::Anthropic, Format::Gemini] {
        let signed = signature.clone();
        let upstream = upstream(format, move |request| {
            if request.json().to_string().contains("A's text") {
                return format.answer(request, &["The end."]);
            }
            let body = match format {
                Format::Anthropic => json!({
                    "id": "msg_1", "type": "message", "role": "assistant", "model": "claude",
                    "content": [{"type": "thinking", "thinking": "Hm.", "signature": signed},
                        {"type": "tool_use", "id": "toolu_1", "name": "files__read", "input": {"path": "a"}}],
                    "stop_reason": "tool_use", "usage": {"input_tokens": 1, "output_tokens": 1}
                }),
                _ => json!({"candidates": [{"index": 0, "finishReason": "STOP", "content": {
                    "role": "model", "parts": [{"text": "Hm.", "thought": true},
                        {"functionCall": {"name": "files__read", "args": {"path": "a"}},
                            "thoughtSignature": signed}]}}]}),
            };
            Reply::json(200, &body)
        });
        let mut settings = settings(format, &upstream);
        settings["seal_key"] = json!("of-the-whole-house");
        settings["models"] = json!({"gpt-5*": [match format {
            Format::Gemini => "up/gemini-3.1-pro-preview",
            _ => "up/claude-sonnet-4-5",
        }]});
        let mut body = hello(false);
        body["input"] = json!([{"role": "user", "content": "Hello?"}]);
        body["tools"] = tools();
        body["reasoning"] = json!({"effort": "high", "summary": "auto"});
        let first = {
            let weir = Weir::start(&settings);
            let first = either(&post(&weir, &[], &body), false);
            weir.idle(LIMIT);
            first
        };
        let output = first["output"].as_array().unwrap();
        assert_eq!(output[0]["summary"][0]["text"], "Hm.", "{format:?} {first}");
        let call = output.iter().find(|item| item["type"] == "function_call");
        let history = body["input"].as_array_mut().unwrap();
        history.extend(output.iter().cloned());
        history.push(
            json!({"type": "function_call_output", "call_id": call.unwrap()["call_id"],
            "output": "A's text"}),
        );
        let weir = Weir::start(&settings);
        let last = either(&post(&weir, &[], &body), false);
        assert_eq!(said(&last), "The end.", "{format:?} {last}");
        let sent = upstream.requests().last().unwrap().json().to_string();
        assert!(sent.contains(&signature), "{format:?} {sent}");
        // Somebody changes a letter of it: then it is nobody's.
        let seal = "\"encrypted_content\":\"weir1.";
        let forged = body.to_string().replace(seal, &format!("{seal}x"));
        let answer = ask(weir.addr, "POST", "/v1/responses", &[], forged.as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text());
        let sent = upstream.requests().last().unwrap().json().to_string();
        assert!(!sent.contains(&signature), "{format:?} {sent}");
        weir.idle(LIMIT);
    }
}

/// Agents declare a search in every request, whatever they are after.
#[test]
fn a_web_search_that_is_not_to_be_had_costs_no_answer() {
    let upstream = upstream(Format::Anthropic, |request| {
        let words = "tools.0: Input tag 'web_search_20250305' found using 'type' does not match";
        match String::from_utf8_lossy(&request.body).contains("web_search_2") {
            true => Format::Anthropic.error(400, "invalid_request_error", words),
            false => Format::Anthropic.answer(request, &["Hello."]),
        }
    });
    let weir = Weir::start(&settings(Format::Anthropic, &upstream));
    let mut body = hello(true);
    body["tools"] = tools();
    for asked in [2, 3, 4] {
        let answer = post(&weir, &[], &body);
        assert_eq!(said(&gathered(&answer)), "Hello.");
        let dropped = answer.header("x-weir-dropped").unwrap();
        assert!(dropped.contains("tools.web_search"), "{dropped}");
        assert_eq!(upstream.count(), asked, "it is remembered");
    }
    // A chat that asks for it is told that there is none.
    let chat = json!({"model": "gpt-5.5", "web_search_options": {},
        "messages": [{"role": "user", "content": "Hello?"}]});
    assert_eq!(crate::client::post(weir.addr, &chat).status, 400);
    weir.idle(LIMIT);
    for (format, model) in [
        (Format::Anthropic, "deepseek-chat"),
        (Format::Gemini, "gemini-2.5-flash"),
    ] {
        let upstream = Upstream::start(move |request| format.answer(request, &["Hello."]));
        let mut settings = settings(format, &upstream);
        settings["models"] = json!({"gpt-5*": [format!("up/{model}")]});
        let weir = Weir::start(&settings);
        assert_eq!(said(&gathered(&post(&weir, &[], &body))), "Hello.");
        let claude = json!({"model": "gpt-5.5", "max_tokens": 9, "tools": [
            {"name": "f", "input_schema": {"type": "object"}},
            {"type": "web_search_20250305", "name": "web_search"}],
            "messages": [{"role": "user", "content": "Hello?"}]});
        let bytes = claude.to_string().into_bytes();
        let answer = ask(weir.addr, "POST", "/v1/messages", &[], &bytes);
        assert_eq!(answer.status, 200, "{}", answer.text());
        weir.idle(LIMIT);
    }
}

#[test]
fn an_upstream_of_this_format_gets_no_seals_of_ours() {
    let upstream = upstream(Format::Responses, |request| {
        Format::Responses.answer(request, &["Hello."])
    });
    let weir = Weir::start(&settings(Format::Responses, &upstream));
    let body = r#"{"model": "gpt-5.5", "n": 1.50, "input": [{"role": "user", "content": "x"},
        {"type": "reasoning", "summary": [], "encrypted_content": "weir1.AAAA"},
        {"type": "reasoning", "summary": [], "encrypted_content": "gAAAA"}]}"#;
    let answer = ask(weir.addr, "POST", "/v1/responses", &[], body.as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
    let sent = String::from_utf8(upstream.requests()[0].body.clone()).unwrap();
    assert!(sent.contains("1.50") && sent.contains("gAAAA"), "{sent}");
    assert!(!sent.contains("weir1."), "{sent}");
    weir.idle(LIMIT);
}

#[test]
fn a_server_without_the_route_is_asked_for_it_once() {
    let upstream = upstream(Format::OpenAi, |request| {
        Format::OpenAi.answer(request, &["Hello."])
    });
    let weir = Weir::start(&settings(Format::OpenAi, &upstream));
    for _ in 0..3 {
        assert_eq!(
            said(&either(&post(&weir, &[], &hello(true)), true)),
            "Hello."
        );
    }
    let paths: Vec<String> = upstream.requests().into_iter().map(|r| r.path).collect();
    let chat = "/v1/chat/completions";
    assert_eq!(paths, ["/v1/responses", chat, chat, chat]);
    weir.idle(LIMIT);
}

#[test]
fn a_server_that_knows_some_of_the_route_only_is_asked_in_its_other_format() {
    let upstream = Upstream::start(|request| match request.path.ends_with("/responses") {
        true if request.json()["tools"].is_array() => Format::OpenAi.error(
            400,
            "invalid_request_error",
            "'type' of tool must be 'function'",
        ),
        true => Format::Responses.answer(request, &["Passed on."]),
        false => Format::OpenAi.answer(request, &["Translated."]),
    });
    let weir = Weir::start(&settings(Format::OpenAi, &upstream));
    let mut body = hello(false);
    assert!(post(&weir, &[], &body).text().contains("Passed on."));
    body["tools"] = tools();
    assert_eq!(
        said(&either(&post(&weir, &[], &body), false)),
        "Translated."
    );
    body["input"] = json!([{"role": "king", "content": "x"}]);
    let answer = post(&weir, &[], &body);
    assert_eq!(answer.status, 400);
    assert!(
        answer.text().contains("must be 'function'"),
        "{}",
        answer.text()
    );
    weir.idle(LIMIT);
}

#[test]
fn another_format_steps_in_where_the_first_cannot_answer() {
    let own = upstream(Format::Responses, |_| {
        Format::Responses.error(503, "server_error", "down")
    });
    let other = upstream(Format::Anthropic, |request| {
        Format::Anthropic.answer(request, &["I am here."])
    });
    let mut settings = settings(Format::Responses, &own);
    let mut second = config(Format::Anthropic, &other.url(), &["key-b"])["upstreams"][0].clone();
    second["name"] = json!("other");
    settings["upstreams"].as_array_mut().unwrap().push(second);
    settings["models"] = json!({"gpt-5.5": ["up/gpt-4o-mini", "other/claude-sonnet-4-5"]});
    let weir = Weir::start(&settings);
    for stream in [true, false] {
        let answer = post(&weir, &[], &hello(stream));
        assert_eq!(answer.header("x-weir-upstream"), Some("other"));
        assert_eq!(said(&either(&answer, stream)), "I am here.");
    }
    // What is wrong with the request is told as it is.
    let mut wrong = hello(false);
    wrong["previous_response_id"] = json!("resp_of_theirs");
    assert_eq!(post(&weir, &[], &wrong).status, 503);
    weir.idle(LIMIT);
}

#[test]
fn answers_are_kept_for_their_caller_alone() {
    let upstream = upstream(Format::Gemini, |request| {
        let before = request.json().to_string().contains("Hello?");
        Format::Gemini.answer(request, &[if before { "Known." } else { "New." }])
    });
    let mut settings = settings(Format::Gemini, &upstream);
    let (one, two) = ("sesame-sesame-sesame-1", "sesame-sesame-sesame-2");
    settings["client_keys"] = json!([one, two]);
    let weir = Weir::start(&settings);
    let bearer = |key: &str| format!("Bearer {key}");
    let (one, two) = (bearer(one), bearer(two));
    let (one, two) = ([("authorization", &*one)], [("authorization", &*two)]);
    let first = either(&post(&weir, &one, &hello(true)), true);
    let id = first["id"].as_str().unwrap();
    let path = format!("/v1/responses/{id}");
    let kept = ask(weir.addr, "GET", &path, &one, b"");
    assert_eq!((kept.status, kept.json()), (200, first.clone()));
    for (other, status) in [(&two[..], 404), (&[][..], 401)] {
        assert_eq!(ask(weir.addr, "GET", &path, other, b"").status, status);
        assert_eq!(ask(weir.addr, "DELETE", &path, other, b"").status, status);
    }
    let mut next = json!({"model": "gpt-5.5", "input": "And?", "previous_response_id": id});
    for stream in [true, false, true] {
        next["stream"] = json!(stream);
        let answer = either(&post(&weir, &one, &next), stream);
        assert_eq!(said(&answer), "Known.");
        assert_eq!(answer["previous_response_id"], next["previous_response_id"]);
        next["previous_response_id"] = answer["id"].clone();
        let sent = upstream.requests().last().unwrap().json();
        let turns = sent["contents"].as_array().unwrap().len();
        assert!(turns % 2 == 1 && turns >= 3, "{sent}");
    }
    let told = |answer: Answer| {
        assert_eq!(answer.status, 400, "{}", answer.text());
        let error = answer.json()["error"].clone();
        assert_eq!(error["code"], "previous_response_not_found", "{error}");
        assert_eq!(error["param"], "previous_response_id", "{error}");
    };
    next["stream"] = json!(false);
    told(post(&weir, &two, &next));
    assert_eq!(
        ask(weir.addr, "DELETE", &path, &one, b"").json()["deleted"],
        true
    );
    assert_eq!(ask(weir.addr, "GET", &path, &one, b"").status, 404);
    told(post(&weir, &one, &next));
    // Who does not want it kept has nothing kept.
    let mut unkept = hello(false);
    unkept["store"] = json!(false);
    let answer = either(&post(&weir, &one, &unkept), false);
    let path = format!("/v1/responses/{}", answer["id"].as_str().unwrap());
    assert_eq!(ask(weir.addr, "GET", &path, &one, b"").status, 404);
    for below in ["/cancel", "/input_items"] {
        let answer = ask(weir.addr, "GET", &format!("{path}{below}"), &one, b"");
        assert_eq!(answer.status, 404, "{}", answer.text());
    }
    weir.idle(LIMIT);
}

#[test]
fn nothing_is_kept_where_the_config_has_no_room_for_it() {
    let upstream = upstream(Format::Gemini, |request| {
        Format::Gemini.answer(request, &["Hello."])
    });
    let mut settings = settings(Format::Gemini, &upstream);
    settings["response_memory_bytes"] = json!(0);
    let weir = Weir::start(&settings);
    let mut body = hello(false);
    assert_eq!(post(&weir, &[], &body).header("x-weir-dropped"), None);
    body["store"] = json!(true);
    let answer = post(&weir, &[], &body);
    assert_eq!(answer.header("x-weir-dropped"), Some("store"));
    let path = format!("/v1/responses/{}", answer.json()["id"].as_str().unwrap());
    assert_eq!(ask(weir.addr, "GET", &path, &[], b"").status, 404);
    weir.idle(LIMIT);
}

#[test]
fn limits_of_client_keys_hold() {
    let upstream = upstream(Format::Anthropic, |request| {
        Format::Anthropic.answer(request, &["Hello."])
    });
    let mut settings = settings(Format::Anthropic, &upstream);
    settings["client_keys"] = json!(["of-the-test-itself", {"key": "sesame-sesame-sesame", "name": "one",
        "models": ["gpt-5.5"], "tokens_per_minute": 20}]);
    let weir = Weir::start(&settings);
    let key = [("x-api-key", "sesame-sesame-sesame")];
    let mut other = hello(false);
    other["model"] = json!("gpt-5.4-nano");
    let answer = post(&weir, &key, &other);
    assert_eq!(
        (answer.status, &answer.json()["error"]["code"]),
        (404, &json!("model_not_found"))
    );
    assert_eq!(post(&weir, &[], &hello(false)).status, 401);
    assert_eq!(post(&weir, &key, &hello(true)).status, 200);
    // 18 tokens are gone.
    assert_eq!(post(&weir, &key, &hello(false)).status, 200);
    let answer = post(&weir, &key, &hello(true));
    assert_eq!(answer.status, 429, "{}", answer.text());
    assert!(
        answer.header("retry-after").is_some(),
        "Codex gives up without"
    );
    assert_eq!(upstream.count(), 2);
    weir.idle(LIMIT);
}

#[test]
fn a_websocket_is_declined_at_once() {
    let upstream = upstream(Format::Responses, |_| Reply::silence());
    let weir = Weir::start(&settings(Format::Responses, &upstream));
    let headers = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="),
        ("openai-beta", "responses_websockets=2026-02-06"),
    ];
    let answer = ask(weir.addr, "GET", "/v1/responses", &headers, b"");
    assert_eq!(answer.status, 426, "{}", answer.text());
    assert_eq!(answer.header("upgrade"), Some("HTTP/1.1"));
    assert_eq!(answer.json()["error"]["code"], "upgrade_not_offered");
    assert_eq!(upstream.count(), 0);
    weir.idle(LIMIT);
}

#[test]
fn a_response_in_one_piece_is_a_stream_to_who_asked_for_one() {
    let upstream = upstream(Format::Responses, |_| Format::Responses.whole("Hello."));
    let weir = Weir::start(&settings(Format::Responses, &upstream));
    let response = gathered(&post(&weir, &[], &hello(true)));
    assert_eq!(said(&response), "Hello.");
    assert_eq!(
        said(&either(&post(&weir, &[], &hello(false)), false)),
        "Hello."
    );
    weir.idle(LIMIT);
}

#[test]
fn a_dry_run_tells_what_would_be_sent_and_what_is_not_there_is_a_404() {
    let upstream = upstream(Format::Gemini, |_| Reply::silence());
    let weir = Weir::start(&settings(Format::Gemini, &upstream));
    let mut body = hello(true);
    body["tools"] = tools();
    let told = post(&weir, &[("x-weir-dry-run", "1")], &body).json();
    assert_eq!(
        told["body"]["contents"][0]["parts"][0]["text"], "Hello?",
        "{told}"
    );
    assert!(
        told["dropped"].to_string().contains("tools.web_search"),
        "{told}"
    );
    let bytes = body.to_string().into_bytes();
    let compact = ask(weir.addr, "POST", "/v1/responses/compact", &[], &bytes);
    assert_eq!(compact.status, 404, "{}", compact.text());
    assert_eq!(upstream.count(), 0);
    weir.idle(LIMIT);
}

#[test]
fn a_stream_that_breaks_ends_as_failed() {
    for format in TRANSLATED {
        let upstream = upstream(format, move |_| {
            let events = format.events(&["Hel", "lo."]);
            let begun = format.events_to_first_text();
            Reply::stream().events(&events[..begun]).flush().reset()
        });
        let weir = Weir::start(&settings(format, &upstream));
        let response = gathered(&post(&weir, &[], &hello(true)));
        assert_eq!(response["status"], "failed", "{response}");
        assert_eq!(response["error"]["code"], "server_error", "{response}");
        weir.idle(LIMIT);
    }
}

#[test]
fn errors_before_the_answer_have_the_status_that_agents_need() {
    for (status, kind, message, told) in [
        (
            400,
            "invalid_request_error",
            "prompt is too long: 9 tokens > 8 maximum",
            400,
        ),
        (429, "rate_limit_error", "slow down", 429),
        // No other try mends that, and agents go on trying at any other status.
        (401, "authentication_error", "no such key", 400),
        (500, "api_error", "down", 500),
    ] {
        for stream in [false, true] {
            let upstream = upstream(Format::Anthropic, move |_| {
                Format::Anthropic.error(status, kind, message)
            });
            let weir = Weir::start(&settings(Format::Anthropic, &upstream));
            let answer = post(&weir, &[], &hello(stream));
            assert_eq!(answer.status, told, "{status} {}", answer.text());
            let error = answer.json()["error"].clone();
            assert!(error["message"].is_string(), "{error}");
            match status {
                400 => assert_eq!(error["code"], "context_length_exceeded", "{error}"),
                401 => assert_eq!(answer.header("x-should-retry"), Some("false")),
                429 => assert!(answer.header("retry-after").is_some()),
                _ => {}
            }
            weir.idle(LIMIT);
        }
    }
}

/// An event as it came.
fn raw(item: &Item) -> String {
    match item {
        Item::Odd(text) => text.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn silence_is_filled_with_events() {
    let upstream = upstream(Format::Gemini, |_| {
        let events = Format::Gemini.events(&["Hello."]);
        Reply::stream().events(&events).end().behind("later")
    });
    let mut settings = settings(Format::Gemini, &upstream);
    settings["keepalive_ms"] = json!(50);
    let weir = Weir::start(&settings);
    let mut client = Client::connect(weir.addr);
    let body = hello(true).to_string();
    client.send(&request("POST", "/v1/responses", &[], body.as_bytes()));
    let mut stream = client.stream(LIMIT);
    let mut text = String::new();
    while text.matches("event: keepalive").count() < 2 {
        text += &raw(&stream.next(LIMIT).expect("a heartbeat").item);
    }
    let begun = events(&text);
    let names: Vec<&str> = begun
        .iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect();
    assert_eq!(
        names[..3],
        ["response.created", "response.in_progress", "keepalive"]
    );
    upstream.open("later");
    for item in stream.rest(LIMIT).0 {
        text += &raw(&item.item);
    }
    let all = events(&text);
    let all: Vec<&Value> = all
        .iter()
        .filter(|event| event["type"] != "keepalive")
        .collect();
    for (number, event) in all.iter().enumerate() {
        assert_eq!(event["sequence_number"], number, "{text}");
    }
    let last = &all.last().unwrap()["response"];
    assert_eq!(
        (&last["status"], &last["id"]),
        (&json!("completed"), &begun[0]["response"]["id"])
    );
    weir.idle(LIMIT);
}

/// The requests of real agents, as they are recorded: each upstream format answers each of them.
#[test]
fn agents_are_answered_by_every_format() {
    let folder = std::env::var_os("WEIR_RECORDINGS").map(std::path::PathBuf::from);
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/recordings");
    let folder = folder.unwrap_or_else(beside).join("agents");
    let Ok(files) = std::fs::read_dir(&folder) else {
        return;
    };
    let read = |path: std::path::PathBuf| -> Option<(String, Value)> {
        let name = path.file_name()?.to_string_lossy().into_owned();
        let json: Value = serde_json::from_slice(&std::fs::read(&path).ok()?).ok()?;
        let is_response = json["path"].as_str()?.ends_with("/responses");
        (is_response && json["body"].is_object()).then(|| (name, json["body"].clone()))
    };
    let mut requests: Vec<_> = files.filter_map(|file| read(file.ok()?.path())).collect();
    requests.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(requests.len() >= 10, "{}", folder.display());
    for format in Format::ALL {
        let upstream = upstream(format, move |request| format.answer(request, &["Seen."]));
        let mut settings = config(format, &upstream.url(), &["key-a"]);
        settings["models"] = json!({"*": [format!("up/{}", format.model())]});
        settings["upstreams"][0]["name"] = json!("up");
        let weir = Weir::start(&settings);
        for (name, body) in &requests {
            let answer = post(&weir, &[], body);
            assert_eq!(answer.status, 200, "{format:?} {name}: {}", answer.text());
            if format == Format::Responses {
                assert!(answer.text().contains("Seen."), "{format:?} {name}");
                continue;
            }
            let response = either(&answer, body["stream"] == true);
            assert_eq!(said(&response), "Seen.", "{format:?} {name}");
            assert_eq!(response["model"], body["model"], "{format:?} {name}");
            assert_eq!(response["status"], "completed", "{format:?} {name}");
            let sent = upstream.requests().last().unwrap().json().to_string();
            assert!(sent.contains("HERON-4711") || !body.to_string().contains("HERON-4711"));
        }
        weir.idle(LIMIT);
    }
}
