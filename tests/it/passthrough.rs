//! Routes that are only passed on: where they go, what goes with them, and in how much memory.

use serde_json::{Value, json};

use crate::client::{Answer, Client, ask, get, request};
use crate::first_mile::error_of;
use crate::upstream::{Format, Reply, Step, Upstream};
use crate::wait::LIMIT;
use crate::weir::{Weir, config, upstream};

pub const JSON: (&str, &str) = ("Content-Type", "application/json");

pub fn post(weir: &Weir, path: &str, body: &Value) -> Answer {
    ask(
        weir.addr,
        "POST",
        path,
        &[JSON],
        body.to_string().as_bytes(),
    )
}

/// A form with a model and a file, in this order or the other one.
pub fn form(model: &str, file: &[u8], model_first: bool) -> Vec<u8> {
    let name = format!("--xx\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n{model}\r\n");
    let mut data =
        b"--xx\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\n"
            .to_vec();
    data.extend_from_slice(file);
    data.extend_from_slice(b"\r\n");
    let mut body = match model_first {
        true => [name.as_bytes(), &data].concat(),
        false => [&data, name.as_bytes()].concat(),
    };
    body.extend_from_slice(b"--xx--\r\n");
    body
}

pub const FORM: (&str, &str) = ("Content-Type", "multipart/form-data; boundary=xx");

#[test]
fn a_request_goes_to_the_models_upstream_and_nothing_private_goes_with_it() {
    let reply = Reply::json(
        200,
        &json!({"id": "r1", "usage": {"input_tokens": 3, "output_tokens": 4}}),
    )
    .header("Set-Cookie", "secret=1")
    .header("x-request-id", "up-1")
    .header("openai-processing-ms", "5");
    let up = Upstream::always(reply);
    let weir = Weir::start(&config(Format::OpenAi, &up.url(), &["upstream-key"]));
    let headers = [
        JSON,
        ("Authorization", "Bearer callers-own"),
        ("Cookie", "a=b"),
        ("Accept-Encoding", "gzip"),
        ("OpenAI-Beta", "x=v1"),
        ("Connection", "keep-alive, x-hop"),
        ("x-hop", "1"),
    ];
    let body = r#"{"model": "up/gpt-4o-mini", "input": "hi", "n": 1.50}"#;
    let answer = ask(
        weir.addr,
        "POST",
        "/v1/responses?x=y",
        &headers,
        body.as_bytes(),
    );
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["id"], "r1");
    assert_eq!(answer.header("set-cookie"), None);
    assert_eq!(answer.header("openai-processing-ms"), Some("5"));
    assert_eq!(answer.header("x-upstream-request-id"), Some("up-1"));
    assert_eq!(answer.header("x-weir-upstream"), Some("up"));
    assert_eq!(answer.header("x-weir-attempts"), Some("1"));

    let got = &up.requests()[0];
    assert_eq!(
        (got.method.as_str(), got.path.as_str()),
        ("POST", "/v1/responses?x=y")
    );
    assert_eq!(got.key.as_deref(), Some("upstream-key"));
    assert_eq!(got.header("openai-beta"), Some("x=v1"));
    assert_eq!(got.header("accept-encoding"), Some("identity"));
    for name in ["cookie", "x-hop"] {
        assert_eq!(got.header(name), None, "{name}");
    }
    let sent = String::from_utf8_lossy(&got.body).into_owned();
    assert_eq!(
        sent,
        r#"{"model": "gpt-4o-mini", "input": "hi", "n": 1.50}"#
    );
    weir.idle(LIMIT);
    let log = weir.wait_log("endpoint=responses", LIMIT);
    assert!(log.contains("prompt_tokens=3 completion_tokens=4"), "{log}");
}

#[test]
fn every_method_and_an_answer_without_a_body() {
    let up = Upstream::start(|request| match request.method.as_str() {
        "DELETE" => Reply::default().then(Step::Head(204, Vec::new())),
        _ => Reply::whole(200, "application/jsonl", request.path.clone()),
    });
    let weir = Weir::start(&config(Format::OpenAi, &up.url(), &["k"]));
    // Without a model: there is only one upstream that it can be for.
    let file = get(weir.addr, "/v1/files/file-1/content");
    assert_eq!(file.text(), "/v1/files/file-1/content");
    assert_eq!(file.header("content-type"), Some("application/jsonl"));
    let gone = ask(weir.addr, "DELETE", "/v1/files/file-1", &[], b"");
    assert_eq!((gone.status, gone.body.len()), (204, 0));
    let cancel = ask(weir.addr, "POST", "/v1/batches/b1/cancel", &[], b"");
    assert_eq!(cancel.text(), "/v1/batches/b1/cancel");
    assert_eq!(up.requests()[2].header("content-length"), Some("0"));
    // A path of nobody, unless the caller says whose it is.
    assert_eq!(get(weir.addr, "/v1/novelty").status, 404);
    let headers = [("x-weir-upstream", "up")];
    let novelty = ask(weir.addr, "GET", "/v1/novelty", &headers, b"");
    assert_eq!(novelty.text(), "/v1/novelty");
    for path in [
        "/v1/files/../models",
        "/v1/files/%2e%2e/x",
        "/v1/files//x",
        "/v1/files/a%2Fb",
    ] {
        assert_eq!(get(weir.addr, path).status, 404, "{path}");
    }
    assert_eq!(ask(weir.addr, "PATCH", "/v1/files", &[], b"").status, 405);
    assert_eq!(up.count(), 4);
    weir.idle(LIMIT);
}

#[test]
fn what_is_in_memory_is_tried_again() {
    let error = |status, kind| Format::OpenAi.error(status, kind, "no");
    let up = Upstream::queue([
        error(500, "server_error"),
        error(429, "rate_limit"),
        Reply::json(200, &json!({"ok": true})),
        error(400, "bad"),
    ]);
    let weir = Weir::start(&config(Format::OpenAi, &up.url(), &["k1", "k2", "k3"]));
    let body = form("up/whisper-1", b"sound", false);
    let path = "/v1/audio/transcriptions";
    let answer = ask(weir.addr, "POST", path, &[FORM], &body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("x-weir-attempts"), Some("3"));
    let requests = up.requests();
    for request in &requests {
        assert_eq!(request.body, form("whisper-1", b"sound", false));
        assert_eq!(request.header("content-type"), Some(FORM.1));
    }
    assert_ne!(requests[1].key, requests[2].key);
    let refused = ask(weir.addr, "POST", path, &[FORM], &body);
    assert_eq!(
        (refused.status, error_of(&refused)["message"].as_str()),
        (400, Some("no"))
    );
    weir.idle(LIMIT);
}

#[test]
fn who_is_meant_has_to_be_clear() {
    let up = Upstream::always(Reply::json(200, &json!({})));
    let mut settings = config(Format::OpenAi, &up.url(), &["k"]);
    let more = [
        upstream("other", Format::OpenAi, &up.url(), &["k2"]),
        upstream("gem", Format::Gemini, &up.url(), &["k3"]),
    ];
    settings["upstreams"].as_array_mut().unwrap().extend(more);
    let weir = Weir::start(&settings);
    let unclear = get(weir.addr, "/v1/files");
    assert_eq!(unclear.status, 400);
    assert!(
        error_of(&unclear)["message"]
            .as_str()
            .unwrap()
            .contains("x-weir-upstream")
    );
    let with = |name: &'static str| {
        ask(
            weir.addr,
            "GET",
            "/v1/files",
            &[("x-weir-upstream", name)],
            b"",
        )
        .status
    };
    assert_eq!((with("other"), with("gem"), with("none")), (200, 400, 404));
    assert_eq!(up.keys(), ["k2"]);
    let gemini = post(
        &weir,
        "/v1/images/generations",
        &json!({"model": "gemini-2.5-flash"}),
    );
    assert_eq!(gemini.status, 400);
    assert_eq!(error_of(&gemini)["param"], "model");
    let unknown = post(&weir, "/v1/moderations", &json!({"model": "nobody"}));
    assert_eq!(error_of(&unknown)["code"], "model_not_found");

    settings["client_keys"] = json!([{"name": "few", "key": "few-key", "models": ["gpt-*"]}]);
    let weir = Weir::start(&settings);
    let with = |body: Value| {
        let headers = [JSON, ("Authorization", "Bearer few-key")];
        ask(
            weir.addr,
            "POST",
            "/v1/responses",
            &headers,
            body.to_string().as_bytes(),
        )
        .status
    };
    assert_eq!(with(json!({"model": "gpt-5"})), 200);
    assert_eq!(with(json!({"model": "up/gpt-5"})), 404);
    // A route that decides by its model alone, and not by anything that is kept.
    let decides = |model: &str| {
        let headers = [JSON, ("Authorization", "Bearer few-key")];
        let body = json!({"model": model}).to_string();
        ask(
            weir.addr,
            "POST",
            "/v1/decisions",
            &headers,
            body.as_bytes(),
        )
        .status
    };
    assert_eq!((decides("gpt-5"), decides("up/gpt-5")), (200, 404));
    assert_eq!(with(json!({})), 403);
    assert_eq!(get(weir.addr, "/v1/files").status, 401);
}

#[test]
fn what_curl_sends_with_d_is_json() {
    let up = Upstream::always(Reply::json(200, &json!({})));
    let weir = Weir::start(&config(Format::OpenAi, &up.url(), &["k"]));
    // curl's `-d` calls everything a form.
    let headers = [("Content-Type", "application/x-www-form-urlencoded")];
    for path in [
        "/v1/moderations",
        "/v1/embeddings",
        "/v1/completions",
        "/v1/responses",
    ] {
        let body = br#"{"model":"up/x","input":"a","prompt":"a"}"#;
        assert_eq!(ask(weir.addr, "POST", path, &headers, body).status, 200);
        let got = up.requests().pop().unwrap();
        assert_eq!(got.header("content-type"), Some("application/json"));
        assert_eq!(got.json()["model"], "x", "{path}");
    }
    let form = ask(weir.addr, "POST", "/v1/files", &headers, b"a=1&b=2");
    assert_eq!(form.status, 200);
    let got = up.requests().pop().unwrap();
    assert_eq!(got.header("content-type"), Some(headers[0].1));
    assert_eq!(got.body, b"a=1&b=2");
    let broken = ask(weir.addr, "POST", "/v1/responses", &headers, b"{\"model\"");
    assert_eq!(broken.status, 400);
}

#[test]
fn a_dry_run_of_a_relay() {
    let up = Upstream::always(Reply::json(200, &json!({})));
    let weir = Weir::start(&config(Format::OpenAi, &up.url(), &["long-secret-key"]));
    let headers = [JSON, ("x-weir-dry-run", "1")];
    let body = br#"{"model":"up/gpt-image-1","prompt":"x"}"#;
    let told = ask(weir.addr, "POST", "/v1/images/generations", &headers, body).json();
    assert_eq!(told["url"], format!("{}/v1/images/generations", up.url()));
    assert_eq!(told["body"]["model"], "gpt-image-1");
    assert_eq!(told["headers"]["authorization"], "Bearer ***");
    assert_eq!(up.count(), 0);
}

#[test]
fn events_pass_as_they_come_and_a_cut_shows() {
    let events = Reply::stream().event("event: a\ndata: 1\n\n").gate("more");
    let up = Upstream::always(events.event("event: b\ndata: 2\n\n").close());
    let weir = Weir::start(&config(Format::OpenAi, &up.url(), &["k"]));
    let mut client = Client::connect(weir.addr);
    let body = br#"{"model":"up/gpt-5","stream":true,"input":"x"}"#;
    client.send(&request("POST", "/v1/responses", &[JSON], body));
    let first = String::from_utf8(client.first_read(LIMIT)).unwrap();
    assert!(
        first.contains("Content-Type: text/event-stream\r\n"),
        "{first}"
    );
    assert!(first.ends_with("event: a\ndata: 1\n\n\r\n"), "{first}");
    up.open("more");
    let rest = String::from_utf8(client.until_closed(LIMIT)).unwrap();
    let (_, end) = rest.split_once("event: b\ndata: 2\n\n\r\n").unwrap();
    let (_, error) = end.split_once("\r\nevent: error\ndata: ").unwrap();
    let told: Value = serde_json::from_str(error.trim_end()).unwrap();
    assert_eq!(told["error"]["code"], "upstream_disconnected");
    // Without the last chunk, so that nobody takes it for whole.
    assert!(error.ends_with("}\n\n\r\n"), "{rest}");
    weir.wait_log("status=502", LIMIT);
    weir.idle(LIMIT);
}

#[test]
fn a_caller_who_leaves_ends_the_upstream_too() {
    let up = Upstream::always(Reply::silence().hang());
    let weir = Weir::start(&config(Format::OpenAi, &up.url(), &["k"]));
    let mut client = Client::connect(weir.addr);
    let body = br#"{"model":"up/gpt-5","input":"x"}"#;
    client.send(&request("POST", "/v1/responses", &[JSON], body));
    up.wait_requests(1, LIMIT);
    client.hang_up();
    up.wait_closed(0, LIMIT);
    weir.wait_log("status=499", LIMIT);
    weir.idle(LIMIT);
}

#[test]
fn an_upload_that_breaks_off_is_the_callers_fault() {
    let up = Upstream::always(Reply::json(200, &json!({})));
    let weir = Weir::start(&config(Format::OpenAi, &up.url(), &["k"]));
    let mut client = Client::connect(weir.addr);
    let headers = [FORM, ("Content-Length", "5000000")];
    client.send(&request("POST", "/v1/files", &headers, b""));
    client.send(&form("whisper-1", &vec![b'x'; 1_000_000], true)[..900_000]);
    client.hang_up();
    weir.wait_log("endpoint=relay", LIMIT);
    weir.idle(LIMIT);
    assert_eq!(up.count(), 0);
}
