//! The answer as nothing but its text: `Accept: text/plain`, `/ask`, and what a script sees of an
//! answer that broke.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};

use serde_json::json;

use crate::client::{Answer, Client, ask, chat, request};
use crate::first_mile::{error_of, pair};
use crate::upstream::{Format, Reply, Upstream};
use crate::wait::LIMIT;
use crate::weir::{Weir, config};

const PLAIN: (&str, &str) = ("Accept", "text/plain");
const KIND: Option<&str> = Some("text/plain; charset=utf-8");

fn plain(addr: SocketAddr, model: &str, stream: bool) -> Answer {
    let body = chat(model, stream).to_string();
    ask(
        addr,
        "POST",
        "/v1/chat/completions",
        &[PLAIN],
        body.as_bytes(),
    )
}

#[test]
fn only_the_text_in_each_format() {
    for format in Format::CHAT {
        let (_upstream, weir, model) = pair(format);
        let whole = plain(weir.addr, &model, false);
        assert_eq!(
            (whole.status, whole.text().as_str()),
            (200, "Hello, weir"),
            "{format:?}"
        );
        assert_eq!(whole.header("content-type"), KIND);
        assert_eq!(whole.header("x-weir-finish-reason"), Some("stop"));
        assert_eq!(whole.header("x-weir-prompt-tokens"), Some("11"));
        assert_eq!(whole.header("x-weir-completion-tokens"), Some("7"));
        assert_eq!(whole.header("x-weir-upstream"), Some("up"));

        let streamed = plain(weir.addr, &model, true);
        assert_eq!(streamed.text(), "Hello, weir", "{format:?}");
        assert_eq!(streamed.header("content-type"), KIND);
        assert_eq!(streamed.header("transfer-encoding"), Some("chunked"));
        let names = streamed.header("trailer").unwrap_or_default();
        assert!(names.contains("x-weir-finish-reason"), "{names}");
        weir.idle(LIMIT);
    }
}

#[test]
fn trailers_tell_what_is_known_at_the_end() {
    let (_upstream, weir, model) = pair(Format::Gemini);
    let mut client = Client::connect(weir.addr);
    let body = chat(&model, true).to_string();
    let head = [PLAIN, ("Connection", "close")];
    client.send(&request(
        "POST",
        "/v1/chat/completions",
        &head,
        body.as_bytes(),
    ));
    let bytes = client.until_closed(LIMIT);
    let text = String::from_utf8(bytes).unwrap();
    let (_, trailers) = text.rsplit_once("\r\n0\r\n").unwrap();
    assert_eq!(
        trailers,
        "x-weir-finish-reason: stop\r\nx-weir-prompt-tokens: 11\r\nx-weir-completion-tokens: 7\r\n\r\n"
    );
}

#[test]
fn text_comes_while_it_is_made() {
    let events = Format::OpenAi.events(&["first", " second"]);
    let begun = Reply::stream().events(&events[..2]).gate("rest");
    let upstream = Upstream::always(begun.events(&events[2..]).end());
    let weir = Weir::start(&config(Format::OpenAi, &upstream.url(), &["k"]));
    let mut client = Client::connect(weir.addr);
    let body = chat("up/gpt-4o-mini", true).to_string();
    client.send(&request(
        "POST",
        "/v1/chat/completions",
        &[PLAIN],
        body.as_bytes(),
    ));
    let first = String::from_utf8(client.first_read(LIMIT)).unwrap();
    assert!(first.ends_with("\r\n5\r\nfirst\r\n"), "{first}");
    upstream.open("rest");
    assert_eq!(client.answer(LIMIT).text(), "first second");
}

#[test]
fn clients_that_name_text_among_others_get_json() {
    let (_upstream, weir, model) = pair(Format::OpenAi);
    let body = chat(&model, false).to_string();
    for accept in ["application/json, text/plain, */*", "*/*"] {
        let headers = [("Accept", accept)];
        let path = "/v1/chat/completions";
        let answer = ask(weir.addr, "POST", path, &headers, body.as_bytes());
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
}

#[test]
fn an_error_before_the_text_keeps_its_status_and_is_plain() {
    let upstream = Upstream::always(
        Format::OpenAi
            .error(429, "rate_limit", "slow down")
            .header("Retry-After", "7"),
    );
    let weir = Weir::start(&config(Format::OpenAi, &upstream.url(), &["k"]));
    for stream in [false, true] {
        let answer = plain(weir.addr, "up/gpt-4o-mini", stream);
        assert_eq!(answer.status, 429);
        assert_eq!(answer.header("content-type"), KIND);
        assert!(answer.header("retry-after").is_some());
        let text = answer.text();
        assert!(text.contains("slow down") && text.ends_with('\n'), "{text}");
        assert!(!text.contains('{'), "{text}");
    }
    let lost = plain(weir.addr, "no-such-model", true);
    assert_eq!((lost.status, lost.header("content-type")), (404, KIND));
    let broken = ask(weir.addr, "POST", "/v1/chat/completions", &[PLAIN], b"{");
    assert_eq!((broken.status, broken.header("content-type")), (400, KIND));
    weir.idle(LIMIT);
}

#[test]
fn a_broken_stream_has_no_last_chunk() {
    for format in Format::CHAT {
        let events = format.events(&["begun", "never"]);
        let begun = Reply::stream().events(&events[..format.events_to_first_text()]);
        let upstream = Upstream::always(begun.close());
        let weir = Weir::start(&config(format, &upstream.url(), &["k"]));
        let mut client = Client::connect(weir.addr);
        let body = chat(&format!("up/{}", format.model()), true).to_string();
        client.send(&request(
            "POST",
            "/v1/chat/completions",
            &[PLAIN],
            body.as_bytes(),
        ));
        let bytes = client.until_closed(LIMIT);
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
        assert!(text.ends_with("5\r\nbegun\r\n"), "{format:?}: {text}");
        weir.wait_log("status=502", LIMIT);
        weir.idle(LIMIT);
    }
}

#[test]
fn a_broken_stream_resets_a_caller_without_chunks() {
    let events = Format::OpenAi.events(&["begun", "never"]);
    let begun = Reply::stream().events(&events[..2]).gate("cut").close();
    let upstream = Upstream::always(begun);
    let weir = Weir::start(&config(Format::OpenAi, &upstream.url(), &["k"]));
    let mut client = Client::connect(weir.addr);
    let body = chat("up/gpt-4o-mini", true).to_string();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.0\r\nAccept: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    client.send(head.as_bytes());
    let first = String::from_utf8(client.first_read(LIMIT)).unwrap();
    assert!(first.ends_with("\r\n\r\nbegun"), "{first}");
    upstream.open("cut");
    let end = client.end(LIMIT);
    assert!(end.is_err(), "an orderly end is the end of the answer");
}

#[test]
fn a_prompt_is_asked_as_it_is() {
    let (upstream, weir, _) = pair(Format::Gemini);
    let path = "/ask?model=up/gemini-2.5-flash&system=Be+brief&max_tokens=50";
    let answer = ask(weir.addr, "POST", path, &[], "Grüße?\n".as_bytes());
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (200, "Hello, weir")
    );
    assert_eq!(answer.header("content-type"), KIND);
    let sent = upstream.requests()[0].json();
    assert_eq!(sent["contents"][0]["parts"][0]["text"], "Grüße?\n");
    assert_eq!(sent["systemInstruction"]["parts"][0]["text"], "Be brief");
    assert_eq!(sent["generationConfig"]["maxOutputTokens"], 50);

    // An image by its type, and the first model where none is named.
    let headers = [("Content-Type", "image/png")];
    let png = b"\x89PNG\r\n\x1a\nrest";
    let answer = ask(weir.addr, "POST", "/ask?prompt=What", &headers, png);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let requests = upstream.requests();
    assert!(
        requests[1].path.contains("gemini-2.5-pro"),
        "{}",
        requests[1].path
    );
    let parts = requests[1].json()["contents"][0]["parts"].clone();
    assert!(
        parts.to_string().contains("\"data\":\"iVBORw0KGgpyZXN0\""),
        "{parts}"
    );

    // The whole completion for those who want it.
    let headers = [("Accept", "application/json")];
    let answer = ask(weir.addr, "POST", "/ask", &headers, b"hi");
    assert_eq!(answer.json()["object"], "chat.completion");

    let wrong = ask(weir.addr, "POST", "/ask?modle=x", &[], b"hi");
    assert_eq!((wrong.status, wrong.header("content-type")), (400, KIND));
    assert_eq!(ask(weir.addr, "GET", "/ask", &[], b"").status, 405);
    weir.idle(LIMIT);
}

#[test]
fn a_dry_run_tells_what_would_be_sent() {
    let upstream = Upstream::start(|request| Format::Anthropic.answer(request, &["hi"]));
    let mut settings = config(Format::Anthropic, &upstream.url(), &["very-secret-key"]);
    settings["upstreams"][0]["headers"] = json!({"x-team": "blue", "x-other-token": "short"});
    settings["models"] = json!({"best": ["up/claude-sonnet-4-5", "up/claude-other"]});
    let weir = Weir::start(&settings);
    let mut body = chat("best", true);
    body["logprobs"] = json!(true);
    let body = body.to_string();
    let headers = [("x-weir-dry-run", "1")];
    let path = "/v1/chat/completions";
    let answer = ask(weir.addr, "POST", path, &headers, body.as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(!answer.text().contains("very-secret-key"));
    let told = answer.json();
    assert_eq!(told["method"], "POST");
    assert_eq!(told["url"], format!("{}/v1/messages", upstream.url()));
    assert_eq!(told["headers"]["x-api-key"], "***");
    assert_eq!(told["headers"]["x-team"], "blue");
    assert_eq!(told["headers"]["x-other-token"], "***");
    assert_eq!(told["headers"]["anthropic-version"], "2023-06-01");
    assert_eq!(told["body"]["model"], "claude-sonnet-4-5");
    assert_eq!(told["body"]["messages"][0]["role"], "user");
    assert_eq!(told["upstream"], "up");
    assert_eq!(told["model"], "claude-sonnet-4-5");
    assert_eq!(told["dropped"], json!(["logprobs"]));
    assert_eq!(
        told["targets"][1],
        json!({"upstream": "up", "model": "claude-other"})
    );
    // What was told is what is sent.
    ask(weir.addr, "POST", path, &[], body.as_bytes());
    let sent = &upstream.requests()[0];
    assert_eq!(sent.json(), told["body"]);
    for (name, value) in told["headers"].as_object().unwrap() {
        if value != "***" && name != "x-request-id" {
            assert_eq!(sent.header(name), value.as_str(), "{name}");
        }
    }
    let status = weir.status();
    assert_eq!(status["upstreams"][0]["keys"][0]["requests"], 1, "{status}");
    let wrong = ask(weir.addr, "POST", path, &headers, b"{\"model\":\"best\"}");
    assert_eq!(wrong.status, 400);
    error_of(&wrong);
}

/// The tool if it is installed; a line in the test's output if not.
fn tool(words: &[&str]) -> Option<Command> {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    let mut probe = Command::new(words[0]);
    let probe = probe
        .arg("--help")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    match probe.status() {
        Ok(_) => Some(command),
        Err(_) => {
            crate::observe::say_skipped(&format!("{} is not installed", words[0]));
            None
        }
    }
}

fn run(mut command: Command, input: &str) -> Output {
    command.stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    child.wait_with_output().unwrap()
}

#[test]
fn curl_asks_the_demo_and_sees_how_it_ended() {
    let weir = Weir::start_bare(&[], &[]);
    let curl = |path: &str| {
        let url = format!("http://{}{path}", weir.addr);
        let words = [
            "curl",
            "-fsS",
            "--max-time",
            "20",
            "--data-binary",
            "@-",
            &url,
        ];
        tool(&words).map(|command| run(command, "hi\n"))
    };
    let Some(answer) = curl("/ask") else { return };
    let text = String::from_utf8_lossy(&answer.stdout).into_owned();
    assert!(answer.status.success(), "{answer:?}");
    assert!(text.contains("hi"), "{text}");
    for (model, code) in [("demo-openai/429", 22), ("none", 22)] {
        let answer = curl(&format!("/ask?model={model}")).unwrap();
        assert_eq!(answer.status.code(), Some(code), "{model}: {answer:?}");
    }
}

#[test]
fn curl_sees_an_answer_that_broke_off() {
    let events = Format::OpenAi.events(&["begun", "never"]);
    let begun = Reply::stream().events(&events[..2]).gate("cut").close();
    let upstream = Upstream::always(begun);
    let weir = Weir::start(&config(Format::OpenAi, &upstream.url(), &["k"]));
    let url = format!("http://{}/ask?model=up/gpt-4o-mini", weir.addr);
    let words = [
        "curl",
        "-fsSN",
        "--max-time",
        "20",
        "--data-binary",
        "hi",
        &url,
    ];
    let Some(mut command) = tool(&words) else {
        return;
    };
    let mut curl = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut first = [0; 5];
    let mut stdout = curl.stdout.take().unwrap();
    stdout.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"begun");
    upstream.open("cut");
    assert_eq!(curl.wait().unwrap().code(), Some(18));
}

#[test]
fn busybox_wget_asks_the_demo() {
    let weir = Weir::start_bare(&[], &[]);
    let wget = |path: &str, body: &str| {
        let url = format!("http://{}{path}", weir.addr);
        let post = format!("--post-data={body}");
        let words = ["busybox", "wget", "-q", "-O", "-", &post, &url];
        tool(&words).map(|command| run(command, ""))
    };
    let Some(answer) = wget("/ask", "hi there") else {
        return;
    };
    assert!(answer.status.success(), "{answer:?}");
    let text = String::from_utf8_lossy(&answer.stdout).into_owned();
    assert!(text.contains("hi there"), "{text}");
    // With -S the status would be shown; the exit code alone tells that it failed.
    let refused = wget("/ask?model=demo-openai/429", "x").unwrap();
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let cut = wget("/ask?model=demo/cut", "x").unwrap();
    assert_eq!(cut.status.code(), Some(1), "{cut:?}");
    assert!(!cut.stdout.is_empty(), "{cut:?}");
}

#[test]
fn a_refused_stream_of_text_has_its_id_too() {
    let upstream = Upstream::always(Format::OpenAi.error(400, "invalid_value", "their words"));
    let weir = Weir::start(&config(Format::OpenAi, &upstream.url(), &["k"]));
    for stream in [false, true] {
        let body = chat("up/gpt-4o-mini", stream).to_string();
        let headers = [
            PLAIN,
            ("x-request-id", "mine"),
            ("Origin", "http://localhost"),
        ];
        let path = "/v1/chat/completions";
        let answer = ask(weir.addr, "POST", path, &headers, body.as_bytes());
        assert_eq!(answer.status, 400);
        assert_eq!(answer.header("x-request-id"), Some("mine"), "{stream}");
        let origin = answer.header("access-control-allow-origin");
        assert_eq!(origin, Some("http://localhost"), "{stream}");
        assert_eq!(answer.header("trailer"), None, "{stream}");
    }
}
