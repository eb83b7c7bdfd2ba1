//! Secrets are planted wherever weir can come by one, and then everything that weir writes is
//! searched for them.

use std::fs;

use serde_json::json;

use crate::client::{ask, chat};
use crate::upstream::{Format, Reply, Upstream};
use crate::wait::{LIMIT, until};
use crate::weir::{Folder, Weir, config};

const IN_CONFIG: &str = "planted-in-config-1";
const IN_CONFIG_BAD: &str = "planted-in-config-2";
const IN_ENV: &str = "planted-in-env-3";
const IN_HEADER: &str = "planted-in-header-4";
const CLIENT: &str = "planted-client-key-5";
const WRONG_CLIENT: &str = "planted-wrong-client-6";
const IN_QUERY: &str = "planted-in-query-7";
const IN_CALLER_HEADER: &str = "planted-caller-header-8";
const IN_PROMPT: &str = "planted-in-prompt-9";
const CLIENT_ENV: &str = "planted-client-env-10";

const ALL: [&str; 10] = [
    IN_CONFIG,
    IN_CONFIG_BAD,
    IN_ENV,
    IN_HEADER,
    CLIENT,
    WRONG_CLIENT,
    IN_QUERY,
    IN_CALLER_HEADER,
    IN_PROMPT,
    CLIENT_ENV,
];

#[track_caller]
fn clean(what: &str, text: &str) {
    for secret in ALL {
        assert!(!text.contains(secret), "{secret} in {what}: {text}");
    }
}

/// Everything that it got of us, in an error's words.
fn echo(status: u16, request: &crate::upstream::Received) -> Reply {
    let key = request.key.clone().unwrap_or_default();
    let header = request.header("x-auth-team").unwrap_or("").to_owned();
    let message = format!("key {key} with {header} is not good");
    let error = json!({"error": {"message": message, "type": key, "param": key, "code": key}});
    Reply::json(status, &error)
}

#[test]
fn planted_secrets_appear_nowhere() {
    for log_format in ["text", "json"] {
        let upstream = Upstream::start(|request| {
            let body = String::from_utf8_lossy(&request.body).into_owned();
            match request.key.as_deref() {
                Some(IN_CONFIG_BAD) => echo(401, request),
                _ if body.contains("\"break\"") => echo(500, request),
                _ if body.contains("\"refuse\"") => echo(400, request),
                _ if body.contains("\"limit\"") => echo(429, request),
                _ if body.contains("\"event\"") => {
                    let key = request.key.clone().unwrap_or_default();
                    let begin = &Format::OpenAi.events(&["x"])[0];
                    let error = json!({"error": {"message": format!("lost {key}")}});
                    let event = format!("data: {error}\n\n");
                    Reply::stream().event(begin).event(&event).close()
                }
                _ => Format::OpenAi.answer(request, &["hi"]),
            }
        });
        let keys = [IN_CONFIG_BAD, IN_CONFIG, "env:PLANTED"];
        let mut settings = config(Format::OpenAi, &upstream.url(), &keys);
        settings["upstreams"][0]["headers"] = json!({"x-auth-team": IN_HEADER});
        settings["client_keys"] = json!([CLIENT, {"name": "ci", "key": "env:CLIENT_KEY"}]);
        settings["log_format"] = json!(log_format);
        settings["retries"] = json!(1);
        let folder = Folder::new();
        settings["request_log"] = json!({"folder": folder.path().join("chats")});
        let environment = [("PLANTED", IN_ENV), ("CLIENT_KEY", CLIENT_ENV)];
        let weir = Weir::start_with(&settings, &["--verbose"], &environment);

        let right = format!("Bearer {CLIENT}");
        let wrong = format!("Bearer {WRONG_CLIENT}");
        let from_env = format!("Bearer {CLIENT_ENV}");
        let path = format!("/v1/chat/completions?key={IN_QUERY}");
        for bearer in [&right, &wrong, &from_env] {
            let headers = [
                ("Authorization", bearer.as_str()),
                ("X-Goog-Api-Key", IN_CALLER_HEADER),
                ("Cookie", IN_CALLER_HEADER),
            ];
            for model in ["fine", "break", "refuse", "event", "limit", "fine"] {
                for stream in [false, true] {
                    let mut body = chat(&format!("up/{model}"), stream);
                    body["messages"][0]["content"] = json!(IN_PROMPT);
                    let answer = ask(
                        weir.addr,
                        "POST",
                        &path,
                        &headers,
                        body.to_string().as_bytes(),
                    );
                    let told = format!("{:?} {}", answer.headers, answer.text());
                    clean("an answer", &told);
                }
            }
            for bad in ["{\"model\": 1", "[]", "{}"] {
                let answer = ask(weir.addr, "POST", &path, &headers, bad.as_bytes());
                clean("an error", &answer.text());
            }
            let lost = format!("/nothing?key={IN_QUERY}");
            clean("a 404", &ask(weir.addr, "GET", &lost, &headers, b"").text());
        }
        for accept in ["application/json", "text/html", "*/*"] {
            let headers = [("Authorization", right.as_str()), ("Accept", accept)];
            for path in ["/status", "/metrics", "/v1/models"] {
                let path = format!("{path}?key={IN_QUERY}");
                let answer = ask(weir.addr, "GET", &path, &headers, b"");
                assert_eq!(answer.status, 200);
                clean(&path, &answer.text());
            }
        }
        // The refusals left their words where they could, so that the search meant something.
        let status = weir.idle(LIMIT).to_string();
        assert!(status.contains("key *** with *** is not good"), "{status}");

        // One file for each request of the two callers who may ask. They hold prompts, which is what
        // they are for.
        let files = until(LIMIT, "30 files", || {
            let list = fs::read_dir(folder.path().join("chats")).unwrap();
            let files: Vec<_> = list.map(|entry| entry.unwrap().path()).collect();
            (files.len() == 30).then_some(files)
        });
        let mut prompts = 0;
        for file in files {
            let text = fs::read_to_string(file).unwrap();
            let log: serde_json::Value =
                serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
            assert!(log["record"]["status"].is_u64(), "{text}");
            prompts += usize::from(text.contains(IN_PROMPT));
            clean("the request log", &text.replace(IN_PROMPT, ""));
        }
        assert_eq!(prompts, 24);

        // A config that is refused is told without its secrets as well.
        let broken = fs::read_to_string(weir.config_file()).unwrap() + IN_CONFIG;
        fs::write(weir.config_file(), broken).unwrap();
        weir.signal(libc::SIGHUP);
        let log = weir.wait_log("not reloaded", LIMIT);
        clean("the log", &log);
        assert!(log.contains("key *** with *** is not good"), "{log}");
        clean("standard output", &weir.more_output().join("\n"));
        if log_format == "json" {
            for line in log.lines() {
                let line: serde_json::Value =
                    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
                assert!(
                    line["time"].is_string() && line["level"].is_string(),
                    "{line}"
                );
            }
            assert!(log.contains("\"endpoint\":\"chat\""), "{log}");
        }
    }
}
