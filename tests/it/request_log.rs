//! The opt-in request log (O7): what stands in it, of which requests, and what a full disk does.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};

use crate::client::{ask, chat, get};
use crate::upstream::{Format, Received, Reply, Upstream};
use crate::wait::{LIMIT, until};
use crate::weir::{Folder, Weir, config, upstream};

const MODEL: &str = "up/gpt-4o-mini";

/// A compatible server with every route.
fn server(request: &Received) -> Reply {
    let usage = json!({"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3});
    match request.path.as_str() {
        "/v1/completions" => Reply::json(
            200,
            &json!({"id": "c", "object": "text_completion", "created": 1, "model": "m",
                "choices": [{"index": 0, "text": "said-as-text", "finish_reason": "stop",
                    "logprobs": null}], "usage": usage}),
        ),
        "/v1/embeddings" => Reply::json(
            200,
            &json!({"object": "list", "model": "m", "data": [{"object": "embedding", "index": 0,
                "embedding": [0.25]}], "usage": {"prompt_tokens": 1, "total_tokens": 1}}),
        ),
        "/v1/images/generations" => Reply::json(200, &json!({"data": [{"url": "said-an-image"}]})),
        "/v1/files" => Reply::json(200, &json!({"id": "said-a-file"})),
        _ => Format::OpenAi.answer(request, &["said-", "in-parts"]),
    }
}

/// Asks with the caller's key.
fn with(addr: SocketAddr, path: &str, kind: &str, body: &[u8]) -> (u16, String) {
    let headers = [
        ("Authorization", "Bearer caller-key-1"),
        ("Content-Type", kind),
    ];
    let answer = ask(addr, "POST", path, &headers, body);
    (answer.status, answer.text())
}

/// The files of the log, oldest first, once there are so many and all are written to their ends.
fn files(folder: &Path, count: usize) -> Vec<Value> {
    until(LIMIT, &format!("{count} files"), || {
        let list = fs::read_dir(folder).ok()?;
        let mut names: Vec<_> = list.map(|entry| entry.unwrap().path()).collect();
        names.sort();
        let read = |name| serde_json::from_slice(&fs::read(name).ok()?).ok();
        let files: Option<Vec<Value>> = names.iter().map(read).collect();
        files.filter(|files| files.len() == count)
    })
}

#[test]
fn every_kind_of_request_is_written_with_its_answer() {
    let scripted = Upstream::start(server);
    let google = Upstream::start(|request| match request.path.contains("mbedContent") {
        true => Reply::json(200, &json!({"embedding": {"values": [0.75]}})),
        false => Format::Gemini.answer(request, &["said-by-google"]),
    });
    let folder = Folder::new();
    let mut settings = config(Format::OpenAi, &scripted.url(), &["k"]);
    let entry = upstream("google", Format::Gemini, &google.url(), &["k"]);
    settings["upstreams"].as_array_mut().unwrap().push(entry);
    settings["client_keys"] = json!(["caller-key-1"]);
    settings["request_log"] = json!({"folder": folder.path().join("log")});
    let weir = Weir::start(&settings);
    let json = "application/json";
    let long = "x".repeat(300 * 1024);
    let form = format!(
        "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n{MODEL}\r\n--b\r\n\
         Content-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n{long}\r\n--b--\r\n"
    );
    let one = json!({"model": MODEL, "prompt": "asked"});
    let two = json!({"model": "google/gemini-2.5-flash", "prompt": ["asked", 5]});
    let three =
        json!({"model": "google/gemini-2.5-flash", "prompt": ["asked", "too"], "stream": true});
    let embed = |model: &str| json!({"model": model, "input": "asked"}).to_string();
    let image = json!({"model": MODEL, "prompt": "asked"});
    let unknown = json!({"model": "nobody", "messages": [{"role": "user", "content": "asked"}]});
    for (path, kind, body, status, route, answer) in [
        (
            "/v1/chat/completions",
            json,
            chat(MODEL, false).to_string(),
            200,
            "chat",
            "said-in-parts",
        ),
        (
            "/v1/chat/completions",
            json,
            chat(MODEL, true).to_string(),
            200,
            "chat",
            "[DONE]",
        ),
        (
            "/v1/chat/completions?x=in-the-query",
            json,
            unknown.to_string(),
            404,
            "chat",
            "model_not_found",
        ),
        (
            "/ask?model=up/gpt-4o-mini&prompt=asked",
            "text/plain",
            "Hello".into(),
            200,
            "ask",
            "said-in-parts",
        ),
        (
            "/v1/completions",
            json,
            one.to_string(),
            200,
            "completions",
            "said-as-text",
        ),
        (
            "/v1/completions",
            json,
            two.to_string(),
            400,
            "completions",
            "prompt",
        ),
        (
            "/v1/completions",
            json,
            three.to_string(),
            200,
            "completions",
            "said-by-google",
        ),
        (
            "/v1/embeddings",
            json,
            embed(MODEL),
            200,
            "embeddings",
            "0.25",
        ),
        (
            "/v1/embeddings",
            json,
            embed("google/gemini-embedding-001"),
            200,
            "embeddings",
            "0.75",
        ),
        (
            "/v1/images/generations",
            json,
            image.to_string(),
            200,
            "relay",
            "said-an-image",
        ),
        (
            "/v1/files",
            "multipart/form-data; boundary=b",
            form,
            200,
            "relay",
            "said-a-file",
        ),
    ] {
        let before = fs::read_dir(folder.path().join("log")).map_or(0, Iterator::count);
        let told = with(weir.addr, path, kind, body.as_bytes());
        assert_eq!(told.0, status, "{path}: {}", told.1);
        let all = files(&folder.path().join("log"), before + 1);
        let file = all.last().unwrap();
        assert_eq!(file["record"]["endpoint"], route, "{file}");
        assert_eq!(file["record"]["status"], status, "{file}");
        let bare = path.split('?').next().unwrap();
        assert_eq!(file["route"], format!("POST {bare}"));
        assert!(
            file["answer"].to_string().contains(answer),
            "{path}: {file}"
        );
        let asked = file["request"].to_string();
        let word = match route {
            "chat" if status == 200 => "messages",
            _ if bare == "/v1/files" => "form-data",
            _ => "asked",
        };
        assert!(asked.contains(word), "{path}: {file}");
        assert_eq!(file["request_cut"], bare == "/v1/files", "{path}");
        assert_eq!(file["answer_cut"], false);
    }
    assert_eq!(weir.idle(LIMIT)["exchanges"], 0);
}

/// Else they could push everything else out of it.
#[test]
fn who_has_no_key_leaves_nothing_in_the_log() {
    let scripted = Upstream::start(server);
    let folder = Folder::new();
    let mut settings = config(Format::OpenAi, &scripted.url(), &["k"]);
    settings["client_keys"] = json!(["caller-key-1"]);
    settings["request_log"] = json!({"folder": folder.path(), "max_files": 2});
    let weir = Weir::start(&settings);
    let body = chat(MODEL, false).to_string();
    let path = "/v1/chat/completions";
    assert_eq!(
        with(weir.addr, path, "application/json", body.as_bytes()).0,
        200
    );
    for _ in 0..5 {
        assert_eq!(
            ask(weir.addr, "POST", path, &[], body.as_bytes()).status,
            401
        );
        assert_eq!(get(weir.addr, "/v1/models").status, 401);
    }
    weir.wait_log("status=401", LIMIT);
    assert_eq!(files(folder.path(), 1)[0]["record"]["status"], 200);
}

/// A limit of the length of files stands for the disk: what is beyond it cannot be written.
#[test]
fn a_disk_that_is_full_costs_no_request_and_is_told_once() {
    let scripted = Upstream::start(server);
    let folder = Folder::new();
    let mut settings = config(Format::OpenAi, &scripted.url(), &["k"]);
    settings["request_log"] = json!({"folder": folder.path()});
    let weir = Weir::start_under("trap '' XFSZ; ulimit -f 8", &settings);
    let mut long = chat(MODEL, false);
    long["messages"][0]["content"] = json!("x".repeat(100_000));
    for _ in 0..20 {
        assert_eq!(weir.ask(&long).status, 200);
    }
    assert!(weir.stream(&chat(MODEL, true)).done);
    // Half a file helps nobody; what fits is there.
    let all = files(folder.path(), 1);
    assert_eq!(all[0]["request"]["stream"], true);
    let log = weir.log();
    assert_eq!(log.matches("cannot be written").count(), 1, "{log}");
    assert_eq!(weir.ask(&long).status, 200);
}
