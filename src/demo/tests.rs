//! The demo, asked through a raw client.

use std::io::{ErrorKind, Read};
use std::time::Instant;

use serde_json::{Value, json};

use super::*;

const LIMIT: Duration = Duration::from_secs(10);

/// Sends bytes and gives back the connection.
fn send(addr: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(bytes).unwrap();
    stream
}

fn request(path: &str, body: &Value) -> Vec<u8> {
    let body = body.to_string();
    format!(
        "POST {path} HTTP/1.1\r\nHost: demo\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Status, head, body without chunk framing.
fn ask(addr: SocketAddr, path: &str, body: &Value) -> (u16, String, String) {
    let mut answer = String::new();
    send(addr, &request(path, body))
        .read_to_string(&mut answer)
        .unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let body = match head.contains("chunked") {
        true => unchunk(body).expect("a complete chunked body"),
        false => body.to_string(),
    };
    (status, head.to_string(), body)
}

fn unchunk(mut text: &str) -> Option<String> {
    let mut body = String::new();
    loop {
        let (size, rest) = text.split_once("\r\n")?;
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.push_str(rest.get(..size)?);
        text = rest.get(size + 2..)?;
    }
}

fn json_of(answer: (u16, String, String)) -> Value {
    assert_eq!(answer.0, 200, "{answer:?}");
    serde_json::from_str(&answer.2).unwrap()
}

/// The data of each event.
fn events_of(answer: (u16, String, String)) -> Vec<Value> {
    assert_eq!(answer.0, 200, "{answer:?}");
    assert!(answer.1.contains("text/event-stream"), "{}", answer.1);
    answer
        .2
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .filter(|data| *data != "[DONE]")
        .map(|data| serde_json::from_str(data).unwrap())
        .collect()
}

const OPENAI: &str = "/v1/chat/completions";
const ANTHROPIC: &str = "/v1/messages";
const GEMINI: &str = "/v1beta/models/gemini-2.5-flash:generateContent";
const GEMINI_STREAM: &str = "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse";

/// A question in OpenAI's or Anthropic's words.
fn chat(model: &str, stream: bool) -> Value {
    json!({"model": model, "stream": stream, "max_tokens": 100,
        "messages": [{"role": "user", "content": "Grüß Gott"}]})
}

fn gemini() -> Value {
    json!({"contents": [{"role": "user", "parts": [{"text": "Grüß Gott"}]}]})
}

const SAID: &str = "This is weir's built-in demo, no model was asked. You said: Grüß Gott";

#[test]
fn openai_whole_and_streamed_say_the_same() {
    let demo = start().unwrap();
    let whole = json_of(ask(demo.addr, "/chat/completions", &chat("m", false)));
    assert_eq!(whole["choices"][0]["message"]["content"], SAID);
    assert_eq!(whole["choices"][0]["finish_reason"], "stop");
    let usage = &whole["usage"];
    let number = |name: &str| usage[name].as_u64().unwrap();
    assert_eq!(
        number("prompt_tokens") + number("completion_tokens"),
        number("total_tokens")
    );

    let mut wish = chat("m", true);
    wish["stream_options"] = json!({"include_usage": true});
    let answer = ask(demo.addr, OPENAI, &wish);
    assert!(answer.2.ends_with("data: [DONE]\n\n"), "{}", answer.2);
    let chunks = events_of(answer);
    let text: String = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert_eq!(text, SAID);
    let last = chunks.last().unwrap();
    assert_eq!((&last["choices"], &last["usage"]), (&json!([]), usage));

    let chunks = events_of(ask(demo.addr, OPENAI, &chat("m", true)));
    assert!(chunks.iter().all(|chunk| chunk.get("usage").is_none()));
    assert_eq!(
        chunks.last().unwrap()["choices"][0]["finish_reason"],
        "stop"
    );
}

#[test]
fn anthropic_whole_and_streamed_say_the_same() {
    let demo = start().unwrap();
    let whole = json_of(ask(demo.addr, ANTHROPIC, &chat("m", false)));
    assert_eq!(whole["content"], json!([{"type": "text", "text": SAID}]));
    assert_eq!(whole["stop_reason"], "end_turn");

    let answer = ask(demo.addr, ANTHROPIC, &chat("m", true));
    assert!(answer.2.starts_with("event: message_start\n"));
    assert!(answer.2.contains("event: message_stop\n"));
    let events = events_of(answer);
    let text: String = events
        .iter()
        .filter_map(|event| event["delta"]["text"].as_str())
        .collect();
    assert_eq!(text, SAID);
    let delta = &events[events.len() - 2];
    assert_eq!(delta["delta"]["stop_reason"], "end_turn");
    assert_eq!(
        delta["usage"]["output_tokens"],
        whole["usage"]["output_tokens"]
    );
    assert_eq!(
        events[0]["message"]["usage"]["input_tokens"],
        whole["usage"]["input_tokens"]
    );
}

#[test]
fn gemini_whole_and_streamed_say_the_same() {
    let demo = start().unwrap();
    let whole = json_of(ask(demo.addr, GEMINI, &gemini()));
    assert_eq!(whole["candidates"][0]["content"]["parts"][0]["text"], SAID);
    let usage = &whole["usageMetadata"];
    let number = |name: &str| usage[name].as_u64().unwrap();
    assert_eq!(
        number("promptTokenCount") + number("candidatesTokenCount"),
        number("totalTokenCount")
    );

    let events = events_of(ask(demo.addr, GEMINI_STREAM, &gemini()));
    assert!(events.len() > 2, "{events:?}");
    let text: String = events
        .iter()
        .filter_map(|event| event["candidates"][0]["content"]["parts"][0]["text"].as_str())
        .collect();
    assert_eq!(text, SAID);
    let last = events.last().unwrap();
    assert_eq!(last["candidates"][0]["finishReason"], "STOP");
    assert_eq!(&last["usageMetadata"], usage);
}

#[test]
fn a_tool_is_called_when_wanted_or_named_and_not_again_after_its_result() {
    let demo = start().unwrap();
    let tool = |name: &str| {
        json!({"type": "function", "function": {"name": name, "parameters": {
            "type": "object", "required": ["city"],
            "properties": {"city": {"type": "string"}, "unit": {"enum": ["C", "F"]},
                "days": {"type": "integer"}}}}})
    };
    let mut wish = chat("m", false);
    wish["tools"] = json!([tool("weather"), tool("Gott")]);
    let call = |wish: &Value| {
        let answer = json_of(ask(demo.addr, OPENAI, wish));
        let choice = &answer["choices"][0];
        let function = choice["message"]["tool_calls"][0]["function"].clone();
        (choice["finish_reason"].clone(), function)
    };
    // The text names the second tool.
    let (finish, function) = call(&wish);
    assert_eq!(
        (finish, &function["name"]),
        (json!("tool_calls"), &json!("Gott"))
    );
    let arguments: Value = serde_json::from_str(function["arguments"].as_str().unwrap()).unwrap();
    assert_eq!(arguments, json!({"city": "demo", "unit": "C", "days": 1}));

    wish["tool_choice"] = json!({"type": "function", "function": {"name": "weather"}});
    assert_eq!(call(&wish).1["name"], "weather");
    wish["tool_choice"] = json!("none");
    assert_eq!(call(&wish).0, "stop");
    wish["tool_choice"] = json!("auto");
    wish["messages"]
        .as_array_mut()
        .unwrap()
        .push(json!({"role": "tool", "tool_call_id": "x", "content": "4 C"}));
    assert_eq!(call(&wish).0, "stop");
    wish["model"] = json!("demo/tools");
    assert_eq!(call(&wish).1["name"], "weather");
}

#[test]
fn calls_stream_in_all_formats() {
    let demo = start().unwrap();
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}}});
    let expected = json!({"city": "demo"});

    let mut wish = chat("tools", true);
    wish["tools"] = json!([{"type": "function",
        "function": {"name": "w", "parameters": schema}}]);
    let chunks = events_of(ask(demo.addr, OPENAI, &wish));
    let arguments: String = chunks
        .iter()
        .filter_map(|chunk| {
            chunk["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"].as_str()
        })
        .collect();
    assert_eq!(serde_json::from_str::<Value>(&arguments).unwrap(), expected);

    wish["tools"] = json!([{"name": "w", "input_schema": schema}]);
    let events = events_of(ask(demo.addr, ANTHROPIC, &wish));
    let arguments: String = events
        .iter()
        .filter_map(|event| event["delta"]["partial_json"].as_str())
        .collect();
    assert_eq!(serde_json::from_str::<Value>(&arguments).unwrap(), expected);

    let mut wish = gemini();
    wish["tools"] = json!([{"functionDeclarations":
        [{"name": "w", "parametersJsonSchema": schema}]}]);
    wish["toolConfig"] = json!({"functionCallingConfig": {"mode": "ANY"}});
    let events = events_of(ask(demo.addr, GEMINI_STREAM, &wish));
    let call = &events[0]["candidates"][0]["content"]["parts"][0]["functionCall"];
    assert_eq!(call, &json!({"name": "w", "args": expected}));
}

#[test]
fn structured_output_fits_its_schema() {
    let demo = start().unwrap();
    let schema = json!({
        "type": "object", "required": ["a", "b"], "additionalProperties": false,
        "properties": {"a": {"$ref": "#/$defs/n"}, "b": {"type": "array", "minItems": 1,
            "items": {"type": ["boolean", "null"]}}},
        "$defs": {"n": {"type": "number"}}
    });
    let expected = json!({"a": 1, "b": [true]});
    let mut wish = chat("m", false);
    wish["response_format"] = json!({"type": "json_schema", "json_schema": {"schema": schema}});
    let answer = json_of(ask(demo.addr, OPENAI, &wish));
    let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(text).unwrap(), expected);

    let mut wish = chat("m", false);
    wish["output_config"] = json!({"format": {"type": "json_schema", "schema": schema}});
    let answer = json_of(ask(demo.addr, ANTHROPIC, &wish));
    let text = answer["content"][0]["text"].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(text).unwrap(), expected);

    let mut wish = gemini();
    wish["generationConfig"] =
        json!({"responseMimeType": "application/json", "responseJsonSchema": schema});
    let answer = json_of(ask(demo.addr, GEMINI, &wish));
    let text = answer["candidates"][0]["content"]["parts"][0]["text"]
        .as_str()
        .unwrap();
    assert_eq!(serde_json::from_str::<Value>(text).unwrap(), expected);

    let answer = json_of(ask(demo.addr, OPENAI, &chat("demo/json", false)));
    let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(text).unwrap()["demo"], true);
}

#[test]
fn a_recursive_schema_comes_to_an_end() {
    let demo = start().unwrap();
    let mut wish = chat("m", false);
    let schema = json!({"type": "object", "properties": {"next": {"$ref": "#"}}});
    wish["response_format"] = json!({"type": "json_schema", "json_schema": {"schema": schema}});
    json_of(ask(demo.addr, OPENAI, &wish));
}

#[test]
fn a_long_text_comes_back_shortened() {
    let demo = start().unwrap();
    let mut wish = chat("m", false);
    wish["messages"][0]["content"] = json!("ß".repeat(100_000));
    let answer = json_of(ask(demo.addr, OPENAI, &wish));
    let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(text.ends_with("ß ...") && text.chars().count() < 2_200);
    assert!(answer["usage"]["prompt_tokens"].as_u64().unwrap() >= 25_000);
}

#[test]
fn errors_have_the_status_that_the_model_names() {
    let demo = start().unwrap();
    for (status, path, place) in [
        (429, OPENAI, "/error/code"),
        (401, ANTHROPIC, "/error/type"),
        (500, ANTHROPIC, "/error/type"),
    ] {
        let answer = ask(demo.addr, path, &chat(&format!("demo/{status}"), true));
        assert_eq!(answer.0, status);
        assert_eq!(answer.1.contains("Retry-After: 1"), status == 429);
        let body: Value = serde_json::from_str(&answer.2).unwrap();
        assert!(body.pointer(place).is_some_and(Value::is_string), "{body}");
    }
    let answer = ask(demo.addr, "/v1beta/models/x-429:generateContent", &gemini());
    assert_eq!(answer.0, 429);
    assert!(answer.2.contains("RESOURCE_EXHAUSTED"));

    let answer = ask(demo.addr, OPENAI, &json!({"model": 7}));
    assert_eq!(answer.0, 400);
    let answer = ask(demo.addr, "/v1/nothing", &json!({}));
    assert_eq!(answer.0, 404);
}

#[test]
fn a_cut_answer_can_not_be_taken_for_a_complete_one() {
    let demo = start().unwrap();
    for stream in [true, false] {
        let mut answer = String::new();
        send(demo.addr, &request(OPENAI, &chat("cut", stream)))
            .read_to_string(&mut answer)
            .unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(body.contains("This is "), "{body}");
        assert_eq!(unchunk(body), None, "{body}");
    }
}

#[test]
fn a_cut_answer_is_an_error_for_the_client_that_weir_uses() {
    let demo = start().unwrap();
    for stream in [true, false] {
        let url = format!("http://{}{OPENAI}", demo.addr);
        let body = chat("cut", stream).to_string();
        let mut answer = ureq::post(&url).send(&body).unwrap();
        assert_eq!(answer.status(), 200);
        answer.body_mut().read_to_string().unwrap_err();
    }
}

#[test]
fn stalls_are_silent_and_hold_no_worker() {
    let demo = start().unwrap();
    let mut stalled = Vec::new();
    for _ in 0..WORKERS + 4 {
        let mut stream = send(demo.addr, &request(OPENAI, &chat("stall", true)));
        let mut text = String::new();
        while !text.contains("This is ") {
            let mut piece = [0; 4096];
            let count = stream.read(&mut piece).unwrap();
            assert!(count > 0, "ended after {text}");
            text.push_str(std::str::from_utf8(&piece[..count]).unwrap());
        }
        stalled.push(stream);
    }
    json_of(ask(demo.addr, OPENAI, &chat("m", false)));
    let first = &mut stalled[0];
    first
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    let error = first.read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
}

#[test]
fn a_body_announced_over_the_limit_is_refused() {
    let demo = start().unwrap();
    for length in ["67108865", "100000000"] {
        let head = format!("POST {OPENAI} HTTP/1.1\r\nContent-Length: {length}\r\n\r\nabc");
        let mut stream = send(demo.addr, head.as_bytes());
        let mut start = [0; 12];
        stream.read_exact(&mut start).unwrap();
        assert_eq!(&start, b"HTTP/1.1 413");
    }
    json_of(ask(demo.addr, OPENAI, &chat("m", false)));
}

#[test]
fn many_callers_at_once_are_all_answered() {
    let demo = start().unwrap();
    let callers: Vec<_> = (0..100)
        .map(|_| {
            let addr = demo.addr;
            thread::spawn(move || json_of(ask(addr, OPENAI, &chat("m", false))))
        })
        .collect();
    for caller in callers {
        caller.join().unwrap();
    }
}

#[test]
fn dropping_the_demo_ends_it() {
    let demo = start().unwrap();
    let addr = demo.addr;
    let shared = Arc::downgrade(&demo.shared);
    // One that waits must not hold it.
    let waiting = send(addr, &request(OPENAI, &chat("slow-first-byte", false)));
    drop(demo);
    let deadline = Instant::now() + LIMIT;
    while shared.strong_count() > 0 {
        assert!(Instant::now() < deadline, "its threads still run");
        thread::park_timeout(Duration::from_millis(5));
    }
    // The listener went with them.
    while TcpStream::connect(addr).is_ok() {
        assert!(Instant::now() < deadline, "it still listens");
        thread::park_timeout(Duration::from_millis(5));
    }
    drop(waiting);
}
