//! Behaviour section 7: what an operator sees. Exit codes, findings, signals, reload, secrets.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::{Client, End, chat, get, request};
use crate::completion::Streamed;
use crate::first_mile::error_of;
use crate::upstream::{Format, Reply, Upstream};
use crate::wait::{LIMIT, until};
use crate::weir::{Weir, config, run};

const MODEL: &str = "up/gpt-4o-mini";

/// An upstream whose streams say one word and the rest once the gate `go` is open.
fn gated() -> Upstream {
    let events = Format::OpenAi.events(&["one ", "two"]);
    let (before, after) = events.split_at(Format::OpenAi.events_to_first_text());
    Upstream::always(
        Reply::stream()
            .events(before)
            .gate("go")
            .events(after)
            .end(),
    )
}

/// Waits until nobody new is let in: no listener, no answer, or one that says so.
fn wait_until_draining(weir: &Weir) {
    let addr = weir.addr;
    until(LIMIT, "the draining to begin", || {
        if TcpStream::connect(addr).is_err() {
            return Some(());
        }
        let mut client = Client::try_connect(addr)?;
        let _ = client.try_send(&request("GET", "/readyz", &[], b""));
        let answer = client.until_closed_or_answered(Duration::from_millis(500));
        (!answer.starts_with(b"HTTP/1.1 200")).then_some(())
    });
}

#[test]
fn wrong_usage_and_wrong_config_end_with_2() {
    for arguments in [
        &["--no-such-option"][..],
        &["--listen"],
        &["--config", "/no/such/file"],
    ] {
        let ended = run(None, arguments, &[]);
        assert_eq!(ended.code, Some(2), "{arguments:?}: {ended:?}");
        assert!(
            !ended.stderr.is_empty() && ended.stdout.is_empty(),
            "{ended:?}"
        );
    }
    for (text, path) in [
        ("{", "weir.json"),
        ("[]", "weir.json"),
        (r#"{"upstreams": [], "retrys": 3}"#, "retrys"),
        (r#"{"upstreams": [], "retries": "3"}"#, "retries"),
        (
            r#"{"upstreams": [{"name": "a", "format": "gopher", "keys": ["k"]}]}"#,
            "upstreams[0].format",
        ),
        (
            r#"{"upstreams": [{"name": "a", "format": "openai", "keys": ["env:NOT_SET"]}]}"#,
            "NOT_SET",
        ),
    ] {
        let ended = run(Some(text), &["--listen", "127.0.0.1:0"], &[]);
        assert_eq!(ended.code, Some(2), "{text}: {ended:?}");
        assert!(ended.stderr.contains(path), "{text}: {}", ended.stderr);
        assert!(ended.stdout.is_empty(), "{text}: {}", ended.stdout);
    }
}

#[test]
fn check_config_tells_everything_at_once_and_leaves() {
    let fine = config(Format::OpenAi, "http://127.0.0.1:9", &["k"]).to_string();
    let ended = run(Some(&fine), &["--check-config"], &[]);
    assert_eq!(ended.code, Some(0), "{ended:?}");

    let wrong = r#"{"retries": -1, "colour": "red", "upstreams": [
        {"name": "a", "format": "openai", "keys": ["sk-very-secret"], "slots": 0}]}"#;
    let ended = run(Some(wrong), &["--check-config"], &[]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    let told = ended.stderr + &ended.stdout;
    for path in ["retries", "colour", "upstreams[0].slots"] {
        assert!(told.contains(path), "no {path} in {told}");
    }
    assert!(!told.contains("sk-very-secret"), "{told}");
}

#[test]
fn check_config_shows_what_callers_may_use_and_what_is_kept() {
    let mut settings = config(Format::OpenAi, "http://127.0.0.1:9", &["k"]);
    settings["client_keys"] = json!([{"name": "ci", "key": "caller-key-1", "models": ["gpt-*"],
        "requests_per_minute": 60, "tokens_per_day": 5000}]);
    settings["request_log"] = json!({"folder": "/var/log/weir", "max_files": 10});
    settings["upstreams"][0]["discover"] = json!(true);
    let ended = run(Some(&settings.to_string()), &["--check-config"], &[]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for line in [
        "client key ci ***: gpt-*; requests_per_minute 60; tokens_per_day 5000",
        "request log /var/log/weir: 10 files and 104857600 bytes at most",
        "  and what its own list of models has, once weir runs",
    ] {
        assert!(
            ended.stdout.lines().any(|told| told == line),
            "{line} in {}",
            ended.stdout
        );
    }
}

#[test]
fn version_and_help_end_with_0() {
    let ended = run(None, &["--version"], &[]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended.stdout.contains(env!("CARGO_PKG_VERSION")),
        "{ended:?}"
    );
    let ended = run(None, &["--help"], &[]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("--check-config"), "{ended:?}");
}

#[test]
fn an_address_that_is_taken_ends_with_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let text = config(Format::OpenAi, "http://127.0.0.1:9", &["k"]).to_string();
    let ended = run(Some(&text), &["--listen", &addr], &[]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains(&addr), "{ended:?}");
}

#[test]
fn without_client_keys_only_this_machine_can_connect() {
    let text = config(Format::OpenAi, "http://127.0.0.1:9", &["k"]).to_string();
    let ended = run(Some(&text), &["--listen", "0.0.0.0:0"], &[]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("client_keys"), "{ended:?}");
}

/// Else an upstream, or a caller, could write lines that look like weir's own.
#[test]
fn whatever_an_upstream_says_a_line_of_the_log_is_one_line() {
    let forged = "oh\n2026-01-01T00:00:00.000Z INFO  [weir::request] id=forged\r\u{1b}[2K";
    let scripted = Upstream::always(Format::OpenAi.error(400, "bad", forged));
    let settings = config(Format::OpenAi, &scripted.url(), &["k"]);
    let weir = Weir::start_with(&settings, &["--verbose"], &[]);
    assert_eq!(weir.ask(&chat(MODEL, false)).status, 400);
    let path = "/v1/models/a%0Ab%1b";
    assert_eq!(get(weir.addr, path).status, 404);
    let log = weir.wait_log("endpoint=model", LIMIT);
    assert!(log.contains("DEBUG") && log.contains("id=forged"), "{log}");
    for line in log.lines() {
        assert!(
            line.starts_with("20") && !line.contains(['\r', '\u{1b}']),
            "{line:?}"
        );
        assert!(!line.starts_with("2026-01-01"), "{line:?}");
    }
}

#[test]
fn a_key_comes_from_the_environment_and_is_never_shown() {
    let scripted = Upstream::always(Format::OpenAi.whole("hi"));
    let mut settings = config(Format::OpenAi, &scripted.url(), &["env:THE_KEY"]);
    settings["upstreams"][0]["headers"] = json!({"x-team": "blue"});
    let environment = [("THE_KEY", "sk-from-the-environment")];
    let weir = Weir::start_with(&settings, &["--verbose"], &environment);
    assert_eq!(weir.ask(&chat(MODEL, false)).status, 200);
    let got = &scripted.requests()[0];
    assert_eq!(got.key.as_deref(), Some("sk-from-the-environment"));
    assert_eq!(got.header("x-team"), Some("blue"));
    let shown = format!("{}{}", weir.log(), get(weir.addr, "/status").text());
    assert!(!shown.contains("sk-from-the-environment"), "{shown}");
    assert_eq!(weir.more_output(), Vec::<String>::new());
}

#[test]
fn each_request_has_one_line_in_the_log() {
    let scripted = Upstream::start(|request| Format::OpenAi.answer(request, &["hi"]));
    let weir = Weir::start(&config(Format::OpenAi, &scripted.url(), &["k"]));
    let body = chat(MODEL, false).to_string();
    let headers = [("X-Request-Id", "find-me-4711")];
    let path = "/v1/chat/completions";
    let answer = crate::client::ask(weir.addr, "POST", path, &headers, body.as_bytes());
    assert_eq!(answer.status, 200);
    let log = weir.wait_log("find-me-4711", LIMIT);
    let lines: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("find-me-4711"))
        .collect();
    assert_eq!(lines.len(), 1, "{log}");
    for word in [MODEL, "up", "200"] {
        assert!(lines[0].contains(word), "no {word} in {}", lines[0]);
    }
}

#[test]
fn sigterm_and_sigint_let_running_requests_finish() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let scripted = gated();
        let mut weir = Weir::start(&config(Format::OpenAi, &scripted.url(), &["k"]));
        let mut kept = Client::connect(weir.addr);
        kept.send(&request("GET", "/readyz", &[], b""));
        assert_eq!(kept.answer(LIMIT).status, 200);
        let mut stream = weir.open_stream(&chat(MODEL, true));
        while !stream.data(LIMIT).contains("one ") {}

        weir.signal(signal);
        // Nobody new comes in any more.
        wait_until_draining(&weir);
        scripted.open("go");
        let streamed = Streamed::read(stream.rest(LIMIT));
        assert!(streamed.done, "{streamed:?}");
        assert_eq!(weir.wait_exit(LIMIT).code(), Some(0));
    }
}

#[test]
fn what_does_not_finish_in_time_is_cut_off() {
    let scripted = gated();
    let mut settings = config(Format::OpenAi, &scripted.url(), &["k"]);
    settings["drain_ms"] = json!(300);
    let mut weir = Weir::start(&settings);
    let mut stream = weir.open_stream(&chat(MODEL, true));
    while !stream.data(LIMIT).contains("one ") {}
    let told = Instant::now();
    weir.signal(libc::SIGTERM);
    let streamed = Streamed::read(stream.rest(LIMIT));
    assert!(!streamed.done);
    assert_eq!(weir.wait_exit(LIMIT).code(), Some(0));
    assert!(
        told.elapsed() >= Duration::from_millis(250),
        "{:?}",
        told.elapsed()
    );
    scripted.wait_closed(0, LIMIT);
}

#[test]
fn a_second_signal_ends_at_once() {
    let scripted = gated();
    let mut settings = config(Format::OpenAi, &scripted.url(), &["k"]);
    settings["drain_ms"] = json!(600_000);
    let mut weir = Weir::start(&settings);
    let mut stream = weir.open_stream(&chat(MODEL, true));
    while !stream.data(LIMIT).contains("one ") {}
    weir.signal(libc::SIGTERM);
    // The first one must have been taken, or the two become one.
    wait_until_draining(&weir);
    weir.signal(libc::SIGTERM);
    weir.wait_exit(Duration::from_secs(3));
    assert_eq!(stream.rest(LIMIT).1, End::Cut);
}

#[test]
fn without_requests_sigterm_ends_it_promptly() {
    let scripted = gated();
    let mut weir = Weir::start(&config(Format::OpenAi, &scripted.url(), &["k"]));
    assert_eq!(get(weir.addr, "/healthz").status, 200);
    weir.signal(libc::SIGTERM);
    assert_eq!(weir.wait_exit(Duration::from_secs(3)).code(), Some(0));
}

#[test]
fn sighup_reads_the_config_anew_and_disturbs_nobody() {
    let scripted = gated();
    let other = Upstream::start(|request| Format::OpenAi.answer(request, &["from the other"]));
    let mut settings = config(Format::OpenAi, &scripted.url(), &["k"]);
    let weir = Weir::start(&settings);
    let mut stream = weir.open_stream(&chat(MODEL, true));
    while !stream.data(LIMIT).contains("one ") {}
    assert_eq!(weir.ask(&chat("fast", false)).status, 404);

    // A bad file changes nothing and is told of.
    fs::write(weir.config_file(), r#"{"upstreams": [], "no_such_key": 1}"#).unwrap();
    weir.signal(libc::SIGHUP);
    weir.wait_log("no_such_key", LIMIT);
    assert_eq!(get(weir.addr, "/readyz").status, 200);
    assert_eq!(weir.status()["upstreams"][0]["name"], "up");

    let entry = crate::weir::upstream("other", Format::OpenAi, &other.url(), &["k"]);
    settings["upstreams"].as_array_mut().unwrap().push(entry);
    settings["models"] = json!({"fast": ["other/gpt-4o-mini"]});
    fs::write(weir.config_file(), settings.to_string()).unwrap();
    weir.signal(libc::SIGHUP);
    let answer = until(LIMIT, "the new alias", || {
        let answer = weir.ask(&chat("fast", false));
        (answer.status == 200).then_some(answer)
    });
    assert!(answer.text().contains("from the other"));

    scripted.open("go");
    assert!(Streamed::read(stream.rest(LIMIT)).done);
    weir.idle(LIMIT);
}

#[test]
fn keys_that_stay_keep_their_rest_over_a_reload() {
    let limited = Format::OpenAi
        .error(429, "rate_limit_exceeded", "x")
        .header("Retry-After", "100");
    let scripted = Upstream::always(limited);
    let mut settings = config(Format::OpenAi, &scripted.url(), &["k"]);
    let weir = Weir::start(&settings);
    assert_eq!(weir.ask(&chat(MODEL, false)).status, 429);
    settings["models"] = json!({"again": [MODEL]});
    fs::write(weir.config_file(), settings.to_string()).unwrap();
    weir.signal(libc::SIGHUP);
    let answer = until(LIMIT, "the new alias", || {
        let answer = weir.ask(&chat("again", false));
        (answer.status != 404).then_some(answer)
    });
    assert_eq!(answer.status, 429);
    error_of(&answer);
    assert_eq!(scripted.count(), 1, "the key was asked while it rests");
}

#[test]
fn a_file_that_is_no_socket_is_not_taken_for_a_stale_one() {
    let folder = crate::weir::Folder::new();
    let file = folder.path().join("letters.txt");
    fs::write(&file, "dear diary").unwrap();
    let listen = format!("unix:{}", file.display());
    let ended = run(None, &["--demo", "--listen", &listen], &[]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "dear diary");
}

/// Requests, and above all timers, do not wait for whoever reads the log.
#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    let folder = crate::weir::Folder::new();
    let file = folder.path().join("weir.json");
    let mut settings = config(Format::OpenAi, &Upstream::nobody(), &["k"]);
    settings["body_wait_ms"] = json!(300);
    fs::write(&file, settings.to_string()).unwrap();
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(["--listen", "127.0.0.1:0", "--config"])
        .arg(&file)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut lines, &mut line).unwrap();
    let addr = line.trim().strip_prefix("http://").unwrap();
    let addr: std::net::SocketAddr = addr.parse().unwrap();
    // Far more lines than a pipe holds.
    let mut client = Client::connect(addr);
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        for _ in 0..3_000 {
            client.send(&request("GET", "/v1/nothing", &[], b""));
            assert_eq!(client.answer(LIMIT).status, 404);
        }
        let mut slow = Client::connect(addr);
        let length = ("Content-Length", "5000");
        slow.send(&request("POST", "/v1/chat/completions", &[length], b""));
        slow.send(b"{");
        slow.until_closed(LIMIT);
    }));
    child.kill().unwrap();
    child.wait().unwrap();
    if let Err(panic) = done {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn for_unready_ms_only_readyz_tells_of_the_end() {
    let scripted = Upstream::always(Format::OpenAi.whole("fine"));
    let mut settings = config(Format::OpenAi, &scripted.url(), &["k"]);
    settings["unready_ms"] = json!(1500);
    let mut weir = Weir::start(&settings);
    assert_eq!(get(weir.addr, "/readyz").status, 200);
    let told = Instant::now();
    weir.signal(libc::SIGTERM);
    until(LIMIT, "readyz to tell", || {
        (get(weir.addr, "/readyz").status == 503).then_some(())
    });
    // On a connection that comes only now.
    assert_eq!(weir.ask(&chat(MODEL, false)).status, 200);
    assert_eq!(weir.status()["draining"], true);
    assert_eq!(weir.wait_exit(LIMIT).code(), Some(0));
    assert!(told.elapsed() >= Duration::from_millis(1400));

    // A person at the terminal does not wait, and a second signal ends the time.
    settings["unready_ms"] = json!(600_000);
    let mut weir = Weir::start(&settings);
    weir.signal(libc::SIGINT);
    assert_eq!(weir.wait_exit(LIMIT).code(), Some(0));
    let mut weir = Weir::start(&settings);
    weir.signal(libc::SIGTERM);
    weir.wait_log("only /readyz", LIMIT);
    weir.signal(libc::SIGTERM);
    assert_eq!(weir.wait_exit(LIMIT).code(), Some(1));
}
