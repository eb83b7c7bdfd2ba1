//! Callers who speak Gemini's native API, with every upstream format behind weir.

use std::path::Path;

use serde_json::{Value, json};

use crate::client::{Answer, ask};
use crate::upstream::{Format, Part, Received, Reply, Upstream};
use crate::wait::LIMIT;
use crate::weir::{Weir, config};

const EVENTS: &str = "/v1beta/models/gemini-3.8-flash:streamGenerateContent?alt=sse";
const ARRAY: &str = "/v1/models/gemini-3.8-flash:streamGenerateContent";
const WHOLE: &str = "/v1beta/models/gemini-3.8-flash:generateContent";

fn weir(format: Format, upstream: &Upstream) -> Weir {
    let mut settings = config(format, &upstream.url(), &["key-a"]);
    settings["retries"] = json!(0);
    settings["models"] = json!({"*": [format!("up/{}", format.model())]});
    settings["upstreams"][0]["name"] = json!("up");
    Weir::start(&settings)
}

fn post(weir: &Weir, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
    let bytes = body.to_string();
    ask(weir.addr, "POST", path, headers, bytes.as_bytes())
}

fn hello() -> Value {
    json!({"contents": [{"role": "user", "parts": [{"text": "Hello?"}]}]})
}

/// The answer in any framing as one: its parts in their order, and what the last piece says.
fn gathered(path: &str, answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let text = answer.text();
    let pieces: Vec<Value> = if path.contains("alt=sse") {
        assert_eq!(answer.header("content-type"), Some("text/event-stream"));
        let events = text.split_terminator("\r\n\r\n").map(|event| {
            let data = event.trim_start_matches("\r\n").strip_prefix("data: ");
            serde_json::from_str(data.unwrap_or_else(|| panic!("{event:?}"))).unwrap()
        });
        events.collect()
    } else {
        assert_eq!(answer.header("content-type"), Some("application/json"));
        match path.contains(":stream") {
            true => serde_json::from_str(&text).unwrap(),
            false => vec![answer.json()],
        }
    };
    let mut parts: Vec<Value> = Vec::new();
    for piece in &pieces {
        for part in piece["candidates"][0]["content"]["parts"]
            .as_array()
            .unwrap()
        {
            match (parts.last_mut(), part["text"].as_str()) {
                (Some(last), Some(more))
                    if last["text"].is_string() && part["thought"].is_null() =>
                {
                    last["text"] = format!("{}{more}", last["text"].as_str().unwrap()).into();
                }
                _ => parts.push(part.clone()),
            }
        }
    }
    let mut last = pieces.last().unwrap().clone();
    last["candidates"][0]["content"]["parts"] = parts.into();
    last
}

#[test]
fn a_question_is_answered_whatever_the_upstream_speaks() {
    for format in Format::ALL {
        let upstream = Upstream::start(move |request| format.answer(request, &["Hel", "lo."]));
        let weir = weir(format, &upstream);
        for path in [EVENTS, ARRAY, WHOLE] {
            let answer = post(&weir, path, &[], &hello());
            let answer = gathered(path, &answer);
            let told = format!("{format:?} {path} {answer}");
            let candidate = &answer["candidates"][0];
            assert_eq!(candidate["content"]["role"], "model", "{told}");
            assert_eq!(
                candidate["content"]["parts"],
                json!([{"text": "Hello."}]),
                "{told}"
            );
            assert_eq!(candidate["finishReason"], "STOP", "{told}");
            assert_eq!(answer["usageMetadata"]["promptTokenCount"], 11, "{told}");
            assert_eq!(answer["usageMetadata"]["totalTokenCount"], 18, "{told}");
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
            match request.json().to_string().contains("B's text") {
                true => format.answer(request, &["The end."]),
                false if request.wants_stream() => {
                    Reply::stream().events(&format.part_events(&calls)).end()
                }
                false => Reply::json(200, &format.body(&calls)),
            }
        });
        let weir = weir(format, &upstream);
        for path in [EVENTS, ARRAY, WHOLE] {
            let mut body = hello();
            body["tools"] = json!([{"functionDeclarations": [{
                "name": "read", "parametersJsonSchema": {
                    "$schema": "http://json-schema.org/draft-07/schema#", "type": "object",
                    "properties": {"path": {"type": "string"}}, "required": ["path"]
                }
            }]}]);
            let first = gathered(path, &post(&weir, path, &[], &body));
            let told = format!("{format:?} {path} {first}");
            let parts = first["candidates"][0]["content"]["parts"].clone();
            let calls = parts.as_array().unwrap().iter();
            let calls = calls.filter(|part| part["functionCall"].is_object());
            let calls: Vec<Value> = calls.map(|part| part["functionCall"].clone()).collect();
            assert_eq!(calls.len(), 2, "{told}");
            assert_eq!(calls[0]["args"], json!({"path": "a"}), "{told}");
            assert_eq!(calls[1]["args"], json!({"path": "b"}), "{told}");
            let result = |call: &Value, response: Value| json!({"functionResponse": {"id": call["id"], "name": "read", "response": response}});
            let history = body["contents"].as_array_mut().unwrap();
            history.push(json!({"role": "model", "parts": parts}));
            history.push(json!({"role": "user", "parts": [
                result(&calls[1], json!({"output": "B's text"})),
                result(&calls[0], json!({"error": "no such file"})),
            ]}));
            let last = gathered(path, &post(&weir, path, &[], &body));
            let text = &last["candidates"][0]["content"]["parts"][0]["text"];
            assert_eq!(text, "The end.", "{format:?} {last}");
        }
        let sent = upstream.requests().last().unwrap().json().to_string();
        assert!(sent.contains("no such file"), "{sent}");
        weir.idle(LIMIT);
    }
}

#[test]
fn a_gemini_upstream_gets_the_request_as_it_came() {
    let upstream = Upstream::start(|request| match request.wants_stream() {
        true => Format::Gemini.answer(request, &["Hel", "lo."]),
        false => Reply::json(200, &Format::Gemini.body(&[Part::Text("Hello.")])),
    });
    let weir = weir(Format::Gemini, &upstream);
    let body = r#"{"contents": [{"parts": [{"text": "x"}]}], "brand_new": {"of": 1.50}}"#;
    let model = Format::Gemini.model();
    for (path, sent) in [
        (
            EVENTS,
            format!("/v1beta/models/{model}:streamGenerateContent?alt=sse"),
        ),
        (
            ARRAY,
            format!("/v1beta/models/{model}:streamGenerateContent?alt=sse"),
        ),
        (WHOLE, format!("/v1beta/models/{model}:generateContent")),
    ] {
        let key = [("x-goog-api-key", "callers")];
        let answer = ask(weir.addr, "POST", path, &key, body.as_bytes());
        let answer = gathered(path, &answer);
        let parts = &answer["candidates"][0]["content"]["parts"];
        assert_eq!(parts, &json!([{"text": "Hello."}]), "{path}");
        let request = upstream.requests().pop().unwrap();
        assert_eq!(request.path, sent);
        assert_eq!(request.key.as_deref(), Some("key-a"));
        assert_eq!(String::from_utf8(request.body).unwrap(), body);
    }
    // What another vendor signed is left out.
    let body = body.replace("\"x\"", "\"x\", \"thoughtSignature\": \"weir1.AAAA\"");
    let answer = ask(weir.addr, "POST", EVENTS, &[], body.as_bytes());
    assert_eq!(answer.header("x-weir-dropped"), Some("brandNew"));
    gathered(EVENTS, &answer);
    let request = upstream.requests().pop().unwrap();
    assert!(!String::from_utf8(request.body).unwrap().contains("weir1."));
    weir.idle(LIMIT);
}

#[test]
fn keys_and_errors_come_as_the_vendor_has_them() {
    let upstream = Upstream::start(|_| Format::OpenAi.error(429, "rate_limit_error", "slow down"));
    let mut settings = config(Format::OpenAi, &upstream.url(), &["key-a"]);
    settings["retries"] = json!(0);
    settings["models"] = json!({"*": [format!("up/{}", Format::OpenAi.model())]});
    settings["upstreams"][0]["name"] = json!("up");
    settings["client_keys"] = json!([
        {"name": "tester", "key": "sesame-sesame-sesame", "models": ["gemini-3.8-flash"]}
    ]);
    let weir = Weir::start(&settings);
    let told = |answer: &Answer, status: u16, word: &str| {
        assert_eq!(answer.status, status, "{}", answer.text());
        let error = answer.json()["error"].clone();
        assert_eq!(
            (&error["code"], &error["status"]),
            (&json!(status), &json!(word)),
            "{error}"
        );
        error
    };
    told(&post(&weir, WHOLE, &[], &hello()), 401, "UNAUTHENTICATED");
    told(
        &post(&weir, &format!("{WHOLE}?key=wrong"), &[], &hello()),
        401,
        "UNAUTHENTICATED",
    );
    let key = [("x-goog-api-key", "sesame-sesame-sesame")];
    let in_query = format!("{EVENTS}&key=sesame-sesame-sesame");
    for answer in [
        post(&weir, &in_query, &[], &hello()),
        post(&weir, WHOLE, &key, &hello()),
    ] {
        let error = told(&answer, 429, "RESOURCE_EXHAUSTED");
        let details = error["details"].to_string();
        assert!(details.contains("google.rpc.RetryInfo"), "{error}");
    }
    for request in upstream.requests() {
        assert_eq!(request.key.as_deref(), Some("key-a"));
        assert!(!request.path.contains("sesame"), "{}", request.path);
    }
    let error = told(
        &post(&weir, WHOLE, &key, &json!({"contents": 1})),
        400,
        "INVALID_ARGUMENT",
    );
    assert!(
        error["message"].as_str().unwrap().contains("contents"),
        "{error}"
    );
    let other = "/v1beta/models/other:generateContent";
    told(&post(&weir, other, &key, &hello()), 404, "NOT_FOUND");
    told(
        &post(&weir, "/v1beta/files", &key, &hello()),
        404,
        "NOT_FOUND",
    );
    told(
        &ask(weir.addr, "GET", WHOLE, &key, b""),
        405,
        "INVALID_ARGUMENT",
    );
    let list = ask(weir.addr, "GET", "/v1beta/models?pageSize=1", &key, b"");
    assert!(list.json()["models"].is_array(), "{}", list.text());
    let nobody = ask(weir.addr, "GET", "/v1beta/models/nobody", &key, b"");
    told(&nobody, 404, "NOT_FOUND");
    let before = upstream.count();
    let count = "/v1beta/models/gemini-3.8-flash:countTokens";
    let count = post(&weir, count, &key, &hello()).json();
    assert!(
        (1..60).contains(&count["totalTokens"].as_u64().unwrap()),
        "{count}"
    );
    assert_eq!(upstream.count(), before);
    let log = weir.log();
    assert!(!log.contains("sesame"), "{log}");
}

#[test]
fn a_stream_of_events_that_breaks_says_so_and_an_array_is_cut() {
    for format in [Format::OpenAi, Format::Anthropic] {
        let upstream = Upstream::start(move |_| {
            let events = format.events(&["Hel", "lo."]);
            let begun = format.events_to_first_text();
            Reply::stream().events(&events[..begun]).flush().reset()
        });
        let weir = weir(format, &upstream);
        let text = post(&weir, EVENTS, &[], &hello()).text();
        let last = text.trim_end().rsplit("\r\n\r\n").next().unwrap();
        let last: Value = serde_json::from_str(last.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(last["error"]["status"], "UNAVAILABLE", "{text}");
        assert!(!text.contains("finishReason"), "{text}");
        weir.idle(LIMIT);
    }
}

#[test]
fn silence_is_filled_with_empty_lines() {
    let upstream = Upstream::start(|_| {
        let events = Format::OpenAi.events(&["Hello."]);
        Reply::stream().events(&events).end().behind("later")
    });
    let mut settings = config(Format::OpenAi, &upstream.url(), &["key-a"]);
    settings["keepalive_ms"] = json!(50);
    settings["models"] = json!({"*": [format!("up/{}", Format::OpenAi.model())]});
    settings["upstreams"][0]["name"] = json!("up");
    let weir = Weir::start(&settings);
    let mut client = crate::client::Client::connect(weir.addr);
    let bytes = hello().to_string().into_bytes();
    client.send(&crate::client::request("POST", EVENTS, &[], &bytes));
    let mut seen = Vec::new();
    // One chunk of one empty line, and nothing but such chunks behind the head.
    while !seen.ends_with(b"2\r\n\r\n\r\n") {
        let more = client.first_read(LIMIT);
        assert!(!more.is_empty(), "{}", String::from_utf8_lossy(&seen));
        seen.extend(more);
    }
    assert!(
        seen.starts_with(b"HTTP/1.1 200"),
        "{}",
        String::from_utf8_lossy(&seen)
    );
    upstream.open("later");
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
        let asked = json["path"].as_str()?.to_lowercase();
        let is_gemini = asked.starts_with("/v1beta/models/") && asked.contains(":");
        (is_gemini && json["body"].is_object()).then_some((name, json))
    };
    let mut requests: Vec<_> = files.filter_map(|file| read(file.ok()?.path())).collect();
    requests.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(requests.len() >= 7, "{}", folder.display());
    for format in Format::ALL {
        let upstream =
            Upstream::start(move |request: &Received| format.answer(request, &["Seen."]));
        let weir = weir(format, &upstream);
        for (name, recorded) in &requests {
            let path = recorded["path"].as_str().unwrap();
            let answer = post(&weir, path, &[], &recorded["body"]);
            if path.contains(":countTokens") {
                assert!(
                    answer.json()["totalTokens"].as_u64() > Some(0),
                    "{}",
                    answer.text()
                );
                continue;
            }
            assert_eq!(answer.status, 200, "{format:?} {name}: {}", answer.text());
            let answer = gathered(path, &answer);
            let text = &answer["candidates"][0]["content"]["parts"][0]["text"];
            assert_eq!(text, "Seen.", "{format:?} {name}");
        }
        weir.idle(LIMIT);
    }
}
