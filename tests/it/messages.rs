//! Callers who speak Anthropic's Messages, with every upstream format behind weir.

use std::path::Path;

use serde_json::{Value, json};

use crate::client::{Answer, ask, get};
use crate::upstream::{Format, Part, Received, Reply, Upstream};
use crate::wait::LIMIT;
use crate::weir::{Weir, config};

fn weir(format: Format, upstream: &Upstream) -> Weir {
    let mut settings = config(format, &upstream.url(), &["key-a"]);
    settings["retries"] = json!(0);
    settings["models"] = json!({"claude-*": [format!("up/{}", format.model())]});
    settings["upstreams"][0]["name"] = json!("up");
    Weir::start(&settings)
}

fn hello(stream: bool) -> Value {
    json!({
        "model": "claude-opus-5-5", "max_tokens": 1000, "stream": stream,
        "messages": [{"role": "user", "content": "Hello?"}]
    })
}

fn post(weir: &Weir, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
    ask(
        weir.addr,
        "POST",
        path,
        headers,
        body.to_string().as_bytes(),
    )
}

fn message(weir: &Weir, body: &Value) -> Answer {
    post(
        weir,
        "/v1/messages?beta=true",
        &[("anthropic-version", "2023-06-01")],
        body,
    )
}

/// The events of a stream, with the rules that hold for all of them checked, as one message.
fn gathered(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    let text = answer.text();
    let mut message = Value::Null;
    let mut ended = false;
    let mut arguments = String::new();
    let mut open = None;
    for event in text.split_terminator("\n\n") {
        assert!(!ended, "{event:?} after the last event");
        let (name, data) = event
            .strip_prefix("event: ")
            .and_then(|rest| rest.split_once("\ndata: "))
            .unwrap_or_else(|| panic!("no event: {event:?}"));
        let data: Value = serde_json::from_str(data).unwrap();
        assert_eq!(data["type"], name);
        if name == "message_start" {
            assert!(message.is_null(), "two starts");
            message = data["message"].clone();
            continue;
        }
        // A heartbeat may come at any time.
        if name == "ping" {
            continue;
        }
        let content = message["content"].as_array_mut().expect("a start is first");
        match name {
            "content_block_start" => {
                assert_eq!(open.replace(content.len()), None, "one block at a time");
                assert_eq!(data["index"], content.len());
                content.push(data["content_block"].clone());
            }
            "content_block_delta" => {
                let at = open.expect("a block is open");
                assert_eq!(data["index"], at);
                let delta = &data["delta"];
                let mut add = |key: &str| {
                    let text = [&content[at][key], &delta[key]].map(|text| text.as_str().unwrap());
                    content[at][key] = text.concat().into();
                };
                match delta["type"].as_str().unwrap() {
                    "text_delta" => add("text"),
                    "thinking_delta" => add("thinking"),
                    "signature_delta" => add("signature"),
                    "input_json_delta" => arguments += delta["partial_json"].as_str().unwrap(),
                    other => panic!("{other}"),
                }
            }
            "content_block_stop" => {
                let at = open.take().expect("a block is open");
                assert_eq!(data["index"], at);
                if !arguments.is_empty() {
                    content[at]["input"] = serde_json::from_str(&arguments).unwrap();
                    arguments.clear();
                }
            }
            "message_delta" => {
                assert_eq!(open, None);
                message["stop_reason"] = data["delta"]["stop_reason"].clone();
                message["stop_sequence"] = data["delta"]["stop_sequence"].clone();
                for (key, value) in data["usage"].as_object().unwrap() {
                    message["usage"][key] = value.clone();
                }
            }
            "message_stop" => ended = true,
            other => panic!("{other}"),
        }
    }
    assert!(ended, "{text}");
    message
}

fn whole(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn either(answer: &Answer, stream: bool) -> Value {
    match stream {
        true => gathered(answer),
        false => whole(answer),
    }
}

#[test]
fn a_question_is_answered_whatever_the_upstream_speaks() {
    for format in Format::ALL {
        let upstream = Upstream::start(move |request| format.answer(request, &["Hel", "lo."]));
        let weir = weir(format, &upstream);
        for stream in [true, false] {
            let answer = message(&weir, &hello(stream));
            let message = either(&answer, stream);
            let told = format!("{format:?} {message}");
            assert_eq!(message["type"], "message", "{told}");
            assert_eq!(message["role"], "assistant", "{told}");
            assert_eq!(message["model"], "claude-opus-5-5", "{told}");
            assert!(message["id"].is_string(), "{told}");
            assert_eq!(
                message["content"],
                json!([{"type": "text", "text": "Hello."}]),
                "{told}"
            );
            assert_eq!(message["stop_reason"], "end_turn", "{told}");
            assert_eq!(message["usage"]["input_tokens"], 11, "{told}");
            assert_eq!(message["usage"]["output_tokens"], 7, "{told}");
            assert_eq!(answer.header("x-weir-upstream"), Some("up"));
        }
        weir.idle(LIMIT);
    }
}

#[test]
fn parallel_calls_and_their_results_go_through_every_format() {
    for format in Format::ALL {
        let upstream = Upstream::start(move |request| {
            let (a, b) = (json!({"path": "a"}), json!({"path": "b"}));
            let calls = [
                Part::Text("Look."),
                Part::Call("call_a", "read", &a),
                Part::Call("call_b", "read", &b),
            ];
            let body = request.json().to_string();
            match body.contains("B's text") {
                true => format.answer(request, &["The end."]),
                false if request.wants_stream() => {
                    Reply::stream().events(&format.part_events(&calls)).end()
                }
                false => Reply::json(200, &format.body(&calls)),
            }
        });
        let weir = weir(format, &upstream);
        for stream in [true, false] {
            let mut body = hello(stream);
            body["tools"] = json!([{
                "name": "read", "input_schema": {
                    "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object",
                    "properties": {"path": {"type": "string"}}, "required": ["path"],
                    "additionalProperties": false
                }
            }]);
            let first = either(&message(&weir, &body), stream);
            let told = format!("{format:?} {first}");
            assert_eq!(first["stop_reason"], "tool_use", "{told}");
            let content = first["content"].as_array().unwrap();
            let made: Vec<&Value> = content.iter().filter(|b| b["type"] == "tool_use").collect();
            assert_eq!(made.len(), 2, "{told}");
            assert_eq!(made[0]["input"], json!({"path": "a"}), "{told}");
            assert_eq!(made[1]["input"], json!({"path": "b"}), "{told}");
            assert_ne!(made[0]["id"], made[1]["id"], "{told}");
            // The results come in another order, and one of them is an error.
            let results = json!([
                {"tool_use_id": made[1]["id"], "type": "tool_result", "content": [
                    {"type": "text", "text": "B's text"},
                    {"type": "image", "source":
                        {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
                ]},
                {"type": "tool_result", "tool_use_id": made[0]["id"], "is_error": true,
                    "content": "no such file"},
                {"type": "text", "text": "Go on."}
            ]);
            let history = body["messages"].as_array_mut().unwrap();
            history.push(json!({"role": "assistant", "content": first["content"]}));
            history.push(json!({"role": "user", "content": results}));
            let last = either(&message(&weir, &body), stream);
            assert_eq!(last["content"][0]["text"], "The end.", "{format:?} {last}");
        }
        let sent = upstream.requests().last().unwrap().json().to_string();
        assert!(sent.contains("no such file"), "{sent}");
        assert!(sent.contains("iVBORw0KGgo="), "{sent}");
        if format != Format::Anthropic {
            let (a, b) = (sent.find("no such file"), sent.find("B's text"));
            assert!(a < b, "in the order of the calls: {sent}");
        }
        weir.idle(LIMIT);
    }
}

#[test]
fn a_claude_upstream_gets_the_request_as_it_came() {
    let upstream = Upstream::start(|request| Format::Anthropic.answer(request, &["Hello."]));
    let weir = weir(Format::Anthropic, &upstream);
    let body = json!({
        "messages": [
            {"role": "user", "content": "Hello?"},
            {"role": "system", "content": "Brief.", "output_config": {"effort": "medium"}},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
                {"type": "thinking", "thinking": "Of another.", "signature": ""},
                {"type": "thinking", "thinking": "", "signature": "weir1.AAAA"},
                {"type": "text", "text": "Hi."}
            ]},
            {"role": "user", "content": "And?"}
        ],
        "model": "claude-opus-5-5", "max_tokens": 100, "brand_new": {"of": 1.50},
        "stream": false
    });
    let headers = [
        ("anthropic-beta", "x-2026,y-2026"),
        ("x-api-key", "callers"),
    ];
    let bytes = body.to_string().replace("1.5", "1.50");
    let path = "/v1/messages?beta=true";
    let answer = ask(weir.addr, "POST", path, &headers, bytes.as_bytes());
    assert_eq!(whole(&answer)["model"], "claude-opus-5-5");
    let sent = upstream.requests().remove(0);
    assert_eq!(sent.path, "/v1/messages?beta=true");
    assert_eq!(sent.header("anthropic-beta"), Some("x-2026,y-2026"));
    assert_eq!(sent.header("x-api-key"), Some("key-a"));
    let mut expected = body;
    expected["model"] = json!(Format::Anthropic.model());
    let content = expected["messages"][2]["content"].as_array_mut().unwrap();
    content.drain(1..3);
    assert_eq!(sent.json(), expected);
    assert!(String::from_utf8_lossy(&sent.body).contains("1.50"));
    weir.idle(LIMIT);
}

#[test]
fn errors_come_in_the_shape_of_the_dialect() {
    let upstream = Upstream::start(|request| match request.json()["max_tokens"].as_u64() {
        Some(1) => Format::OpenAi.error(429, "rate_limit_error", "slow down"),
        _ => {
            let words = "This model's maximum context length is 8192 tokens. However, your \
                             messages resulted in 9001 tokens.";
            let error = json!({"error": {"message": words, "type": "invalid_request_error",
                    "param": "messages", "code": "context_length_exceeded"}});
            Reply::json(400, &error)
        }
    });
    let mut settings = config(Format::OpenAi, &upstream.url(), &["key-a"]);
    settings["retries"] = json!(0);
    settings["client_keys"] = json!(["sesame-sesame-sesame"]);
    let weir = Weir::start(&settings);
    let key = [("x-api-key", "sesame-sesame-sesame")];
    let told = |answer: Answer, status: u16, kind: &str| {
        assert_eq!(answer.status, status, "{}", answer.text());
        let error = answer.json();
        assert_eq!(error["type"], "error", "{error}");
        assert_eq!(error["error"]["type"], kind, "{error}");
        assert!(answer.header("request-id").is_some());
        error["error"]["message"].as_str().unwrap().to_owned()
    };
    let mut body = hello(true);
    body["model"] = json!(Format::OpenAi.model());
    let post = |headers: &[(&str, &str)], body: &Value| post(&weir, "/v1/messages", headers, body);
    told(post(&[], &body), 401, "authentication_error");
    told(
        post(&key, &json!({"model": "m"})),
        400,
        "invalid_request_error",
    );
    let wrong = json!({"model": "gpt-4o-mini", "messages": [{"role": "king", "content": ""}]});
    let message = told(post(&key, &wrong), 400, "invalid_request_error");
    assert!(message.contains("messages[0].role"), "{message}");
    let mut unknown = body.clone();
    unknown["model"] = json!("nobody");
    told(post(&key, &unknown), 404, "not_found_error");
    let message = told(post(&key, &body), 400, "invalid_request_error");
    assert!(
        message.starts_with("prompt is too long: 9001 tokens > 8192 maximum"),
        "{message}"
    );
    body["max_tokens"] = json!(1);
    let answer = post(&key, &body);
    assert!(
        answer.header("retry-after").is_some(),
        "Codex gives up without"
    );
    told(answer, 429, "rate_limit_error");
    let answer = ask(weir.addr, "GET", "/v1/messages", &key, b"");
    told(answer, 405, "invalid_request_error");
    weir.idle(LIMIT);
}

#[test]
fn a_stream_that_breaks_ends_with_an_error_event() {
    for format in [Format::OpenAi, Format::Anthropic] {
        let upstream = Upstream::start(move |_| {
            let events = format.events(&["Hel", "lo."]);
            let begun = format.events_to_first_text();
            Reply::stream().events(&events[..begun]).flush().reset()
        });
        let weir = weir(format, &upstream);
        let answer = message(&weir, &hello(true));
        assert_eq!(answer.status, 200);
        let text = answer.text();
        let last = text.trim_end().rsplit("\n\n").next().unwrap();
        let data = last.strip_prefix("event: error\ndata: ").expect(&text);
        let error: Value = serde_json::from_str(data).unwrap();
        assert_eq!(error["type"], "error");
        assert_eq!(error["error"]["type"], "api_error");
        assert!(!text.contains("message_stop"), "{text}");
        weir.idle(LIMIT);
    }
}

#[test]
fn silence_is_filled_with_pings() {
    let upstream = Upstream::start(|_| {
        let events = Format::OpenAi.events(&["Hello."]);
        Reply::stream().events(&events).end().behind("later")
    });
    let mut settings = config(Format::OpenAi, &upstream.url(), &["key-a"]);
    settings["keepalive_ms"] = json!(50);
    let weir = Weir::start(&settings);
    let mut body = hello(true);
    body["model"] = json!(Format::OpenAi.model());
    let mut client = crate::client::Client::connect(weir.addr);
    let bytes = body.to_string().into_bytes();
    client.send(&crate::client::request("POST", "/v1/messages", &[], &bytes));
    let mut stream = client.stream(LIMIT);
    let first = stream.next(LIMIT).expect("a heartbeat");
    let ping = "event: ping\ndata: {\"type\":\"ping\"}\n\n".to_owned();
    assert_eq!(first.item, crate::client::Item::Odd(ping));
    upstream.open("later");
    let (rest, end) = stream.rest(LIMIT);
    assert_eq!(end, crate::client::End::Framed);
    assert!(format!("{rest:?}").contains("message_stop"));
    weir.idle(LIMIT);
}

#[test]
fn tokens_are_counted_without_an_upstream_and_models_listed_in_the_dialects_shape() {
    let upstream = Upstream::start(|_| Reply::silence());
    let mut settings = config(Format::Gemini, &upstream.url(), &["key-a"]);
    settings["models"] = json!({"claude-via-gemini": ["gemini/gemini-2.5-flash"]});
    settings["upstreams"][0]["name"] = json!("gemini");
    let weir = Weir::start(&settings);
    let body =
        json!({"model": "claude-x", "messages": [{"role": "user", "content": "x".repeat(400)}]});
    let answer = post(&weir, "/v1/messages/count_tokens?beta=true", &[], &body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let count = answer.json()["input_tokens"].as_u64().unwrap();
    assert!((100..120).contains(&count), "{count}");
    let bad = post(&weir, "/v1/messages/count_tokens", &[], &json!([]));
    assert_eq!((bad.status, &bad.json()["type"]), (400, &json!("error")));
    assert_eq!(upstream.count(), 0);

    let version = [("anthropic-version", "2023-06-01")];
    let list = ask(weir.addr, "GET", "/v1/models?limit=1000", &version, b"").json();
    assert_eq!(list["has_more"], false);
    let data = list["data"].as_array().unwrap();
    let own = data.iter().find(|model| model["id"] == "claude-via-gemini");
    assert_eq!(own.unwrap()["type"], "model");
    let one = ask(
        weir.addr,
        "GET",
        "/v1/models/claude-via-gemini",
        &version,
        b"",
    )
    .json();
    assert_eq!(one["display_name"], "claude-via-gemini");
    let none = ask(weir.addr, "GET", "/v1/models/nobody", &version, b"");
    assert_eq!((none.status, &none.json()["type"]), (404, &json!("error")));
    assert_eq!(get(weir.addr, "/v1/models").json()["object"], "list");
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
        let asked = json["path"].as_str()?;
        let is_message = asked.split('?').next() == Some("/v1/messages");
        (is_message && json["body"].is_object()).then_some((name, json))
    };
    let mut requests: Vec<_> = files.filter_map(|file| read(file.ok()?.path())).collect();
    requests.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(requests.len() >= 10, "{}", folder.display());
    for format in Format::ALL {
        let upstream =
            Upstream::start(move |request: &Received| format.answer(request, &["Seen."]));
        let mut settings = config(format, &upstream.url(), &["key-a"]);
        settings["models"] = json!({"*": [format!("up/{}", format.model())]});
        settings["upstreams"][0]["name"] = json!("up");
        let weir = Weir::start(&settings);
        for (name, recorded) in &requests {
            let mut headers = Vec::new();
            for (header, value) in recorded["headers"].as_object().unwrap() {
                if header.to_ascii_lowercase().starts_with("anthropic-") {
                    headers.push((header.as_str(), value.as_str().unwrap()));
                }
            }
            let body = &recorded["body"];
            let path = recorded["path"].as_str().unwrap();
            let answer = post(&weir, path, &headers, body);
            assert_eq!(answer.status, 200, "{format:?} {name}: {}", answer.text());
            let message = either(&answer, body["stream"] == true);
            assert_eq!(message["content"][0]["text"], "Seen.", "{format:?} {name}");
            assert_eq!(message["model"], body["model"], "{format:?} {name}");
        }
        weir.idle(LIMIT);
    }
}
