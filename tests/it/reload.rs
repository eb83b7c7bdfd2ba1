//! What SIGHUP changes, and what it must not.

use std::fs;
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::client::{Client, ask, chat, get};
use crate::upstream::{Format, Reply, Upstream};
use crate::wait::{LIMIT, until};
use crate::weir::{Weir, config};

const MODEL: &str = "up/gpt-4o-mini";

fn answering() -> Upstream {
    Upstream::start(|request| Format::OpenAi.answer(request, &["hi"]))
}

/// Writes the file anew and has it read.
fn reload(weir: &Weir, settings: &Value) {
    fs::write(weir.config_file(), settings.to_string()).unwrap();
    weir.signal(libc::SIGHUP);
}

fn with(addr: SocketAddr, key: &str) -> u16 {
    let bearer = format!("Bearer {key}");
    let body = chat(MODEL, false).to_string();
    let headers = [("Authorization", bearer.as_str())];
    let path = "/v1/chat/completions";
    ask(addr, "POST", path, &headers, body.as_bytes()).status
}

#[test]
fn an_address_that_others_can_reach_is_never_opened_by_a_reload() {
    let upstream = answering();
    let mut settings = config(Format::OpenAi, &upstream.url(), &["k"]);
    settings["listen"] = json!("0.0.0.0:0");
    settings["client_keys"] = json!(["caller-key-1"]);
    let weir = Weir::start(&settings);
    let addr = weir.addr;
    assert_eq!(with(addr, "wrong"), 401);

    // Fine for a start, but the socket that is open stays the one that it is.
    settings["listen"] = json!("127.0.0.1:8080");
    settings.as_object_mut().unwrap().remove("client_keys");
    reload(&weir, &settings);
    let log = weir.wait_log("configuration not reloaded", LIMIT);
    assert!(
        log.contains("other machines can reach http://0.0.0.0:"),
        "{log}"
    );
    assert_eq!(with(addr, "wrong"), 401);
    assert_eq!(with(addr, "caller-key-1"), 200);

    settings["open"] = json!(true);
    reload(&weir, &settings);
    weir.wait_log("configuration reloaded", LIMIT);
    assert_eq!(with(addr, "wrong"), 200, "it was asked for");
}

#[test]
fn what_only_a_restart_changes_is_told() {
    let upstream = answering();
    let mut settings = config(Format::OpenAi, &upstream.url(), &["k"]);
    settings["body_wait_ms"] = json!(20_000);
    let weir = Weir::start(&settings);
    // The time for heads stays at its own 10 s, so nothing is left for a restart.
    settings["body_wait_ms"] = json!(30_000);
    reload(&weir, &settings);
    let log = weir.wait_log("configuration reloaded", LIMIT);
    assert!(!log.contains("with a restart only"), "{log}");

    settings["body_wait_ms"] = json!(2_000);
    settings["workers"] = json!(65);
    settings["max_connections"] = json!(1023);
    settings["write_timeout_ms"] = json!(29_999);
    reload(&weir, &settings);
    let log = until(LIMIT, "the second reload", || {
        let log = weir.log();
        (log.matches("configuration reloaded").count() == 2).then_some(log)
    });
    for name in ["workers", "max_connections", "write_timeout_ms"] {
        let told = format!("`{name}` changes with a restart only");
        assert!(log.contains(&told), "{name}: {log}");
    }
    let told = "`body_wait_ms` holds for bodies at once, for the heads of requests with a restart";
    assert!(log.contains(told), "{log}");
}

#[test]
fn running_requests_keep_their_slots_over_a_reload() {
    let (before, after) = {
        let mut events = Format::OpenAi.events(&["one ", "two"]);
        let after = events.split_off(Format::OpenAi.events_to_first_text());
        (events, after)
    };
    let slow = Reply::stream().events(&before).gate("go").events(&after);
    let upstream = Upstream::start(move |request| match request.wants_stream() {
        true => slow.clone().end(),
        false => Format::OpenAi.answer(request, &["hi"]),
    });
    let mut settings = config(Format::OpenAi, &upstream.url(), &["k"]);
    settings["upstreams"][0]["slots"] = json!(1);
    settings["lease_wait_ms"] = json!(100);
    let weir = Weir::start(&settings);
    let mut stream = weir.open_stream(&chat(MODEL, true));
    while !stream.data(LIMIT).contains("one ") {}

    settings["retries"] = json!(1);
    reload(&weir, &settings);
    weir.wait_log("configuration reloaded", LIMIT);
    let free = || weir.status()["upstreams"][0]["keys"][0]["free"].clone();
    assert_eq!(free(), json!(0));
    assert_eq!(
        weir.ask(&chat(MODEL, false)).status,
        503,
        "its slot is taken"
    );
    assert_eq!(upstream.count(), 1);

    // Another key has slots of its own.
    settings["upstreams"][0]["keys"] = json!(["k2"]);
    reload(&weir, &settings);
    until(LIMIT, "the other key", || {
        (free() == json!(1)).then_some(())
    });
    assert_eq!(weir.ask(&chat(MODEL, false)).status, 200);
    assert_eq!(upstream.keys(), ["k", "k2"]);

    upstream.open("go");
    while !stream.data(LIMIT).contains("[DONE]") {}
    weir.idle(LIMIT);
}

#[test]
fn a_slot_that_comes_free_after_a_reload_goes_to_who_has_waited_since_before() {
    let upstream = Upstream::always(Format::OpenAi.whole("slow").behind("go"));
    let mut settings = config(Format::OpenAi, &upstream.url(), &["k"]);
    settings["upstreams"][0]["slots"] = json!(1);
    let weir = Weir::start(&settings);
    let send = || {
        let mut client = Client::connect(weir.addr);
        client.post(&chat(MODEL, false));
        client
    };
    let mut first = send();
    upstream.wait_requests(1, LIMIT);
    let mut second = send();
    let waiting = || weir.status()["waiting"].clone();
    until(LIMIT, "the second to wait", || {
        (waiting() == json!(1)).then_some(())
    });
    reload(&weir, &settings);
    weir.wait_log("configuration reloaded", LIMIT);
    assert_eq!(waiting(), json!(1));
    upstream.open("go");
    for client in [&mut first, &mut second] {
        assert_eq!(client.answer(LIMIT).status, 200);
    }
    weir.idle(LIMIT);
}

#[test]
fn a_limit_that_a_reload_brings_begins_full() {
    let upstream = answering();
    let mut settings = config(Format::OpenAi, &upstream.url(), &["k"]);
    settings["client_keys"] = json!([{"name": "ci", "key": "caller-key-1", "concurrent": 100}]);
    let weir = Weir::start(&settings);
    // What was used while nothing limited it is not held against it.
    for _ in 0..5 {
        assert_eq!(with(weir.addr, "caller-key-1"), 200);
    }
    settings["client_keys"][0]["requests_per_minute"] = json!(2);
    settings["client_keys"][0]["tokens_per_minute"] = json!(1000);
    reload(&weir, &settings);
    weir.wait_log("configuration reloaded", LIMIT);
    assert_eq!(with(weir.addr, "caller-key-1"), 200);
    assert_eq!(with(weir.addr, "caller-key-1"), 200);
    assert_eq!(with(weir.addr, "caller-key-1"), 429);

    // A higher one is what there is to use from then on.
    settings["client_keys"][0]["requests_per_minute"] = json!(600);
    reload(&weir, &settings);
    until(LIMIT, "the higher limit", || {
        (with(weir.addr, "caller-key-1") == 200).then_some(())
    });
}

#[test]
fn a_reload_that_failed_is_seen_until_one_works() {
    let upstream = answering();
    let settings = config(Format::OpenAi, &upstream.url(), &["k"]);
    let weir = Weir::start(&settings);
    let metric = |value: &str| {
        let line = format!("\nweir_config_last_reload_successful {value}\n");
        get(weir.addr, "/metrics").text().contains(&line)
    };
    assert!(metric("1"));
    assert_eq!(weir.status()["config"]["reload_error"], Value::Null);

    let mut broken = settings.clone();
    broken["colour"] = json!("red");
    reload(&weir, &broken);
    weir.wait_log("configuration not reloaded", LIMIT);
    let told = until(LIMIT, "the status to tell", || {
        let told = weir.status()["config"]["reload_error"].clone();
        told.is_string().then_some(told)
    });
    assert!(
        told.as_str().unwrap().contains("colour: unknown key"),
        "{told}"
    );
    assert!(metric("0"));
    let text = get(weir.addr, "/status").text();
    assert!(text.contains("the last reload failed: "), "{text}");
    assert!(!text.contains("SIGHUP reads it again"), "{text}");

    reload(&weir, &settings);
    until(LIMIT, "a reload that works", || metric("1").then_some(()));
    assert_eq!(weir.status()["config"]["reload_error"], Value::Null);
}

/// A key that stays has the slots that it had, whatever else the file changes.
#[test]
fn a_key_that_stays_keeps_its_slots_over_reloads() {
    let scripted = Upstream::start(|request| match request.key.as_deref() {
        Some("kept") => Format::OpenAi.answer(request, &["hi"]).behind("gate"),
        _ => Format::OpenAi.answer(request, &["hi"]),
    });
    let mut settings = config(Format::OpenAi, &scripted.url(), &["kept"]);
    settings["upstreams"][0]["slots"] = json!(1);
    settings["lease_wait_ms"] = json!(300);
    let weir = Weir::start(&settings);
    let mut held = Client::connect(weir.addr);
    held.post(&chat(MODEL, false));
    scripted.wait_requests(1, LIMIT);
    for number in 1..=5 {
        settings["upstreams"][0]["keys"] = match number % 2 {
            0 => json!(["kept"]),
            _ => json!([format!("other-{number}"), "kept"]),
        };
        settings["max_waiting"] = json!(100 + number);
        fs::write(weir.config_file(), settings.to_string()).unwrap();
        weir.signal(libc::SIGHUP);
        until(LIMIT, "a reload", || {
            let log = weir.log();
            (log.matches("configuration reloaded").count() == number).then_some(())
        });
    }
    // Now there are the other key's slot and the kept one's, which is taken.
    let answer = weir.ask(&chat(MODEL, false));
    assert_eq!(answer.status, 200, "{}", answer.text());
    settings["upstreams"][0]["keys"] = json!(["kept"]);
    reload(&weir, &settings);
    until(LIMIT, "the last reload", || {
        (weir.log().matches("configuration reloaded").count() == 6).then_some(())
    });
    let answer = weir.ask(&chat(MODEL, false));
    assert_eq!(answer.status, 503, "{}", answer.text());
    let kept = scripted.keys().iter().filter(|key| *key == "kept").count();
    assert_eq!(kept, 1, "{:?}", scripted.keys());
    scripted.open("gate");
    assert_eq!(held.answer(LIMIT).status, 200);
    assert_eq!(weir.ask(&chat(MODEL, false)).status, 200);
    weir.idle(LIMIT);
}

#[test]
fn a_pipe_that_says_nothing_does_not_hold_signals_up() {
    let upstream = answering();
    let mut settings = config(Format::OpenAi, &upstream.url(), &["k"]);
    let mut weir = Weir::start(&settings);
    let pipe = weir.config_file().with_file_name("pipe");
    let made = std::process::Command::new("mkfifo")
        .arg(&pipe)
        .status()
        .unwrap();
    assert!(made.success());
    // Somebody has it open for writing and is silent.
    let writer = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&pipe)
        .unwrap();
    settings["upstreams"][0]["keys"] = json!([format!("file:{}", pipe.display())]);
    reload(&weir, &settings);
    let log = weir.wait_log("configuration not reloaded", LIMIT);
    assert!(log.contains("nothing came within"), "{log}");
    assert_eq!(weir.ask(&chat(MODEL, false)).status, 200);
    weir.signal(libc::SIGHUP);
    weir.signal(libc::SIGTERM);
    assert_eq!(weir.wait_exit(LIMIT).code(), Some(0));
    drop(writer);
}

#[test]
fn a_file_of_keys_that_is_too_long_is_refused_rather_than_cut() {
    let folder = crate::weir::Folder::new();
    let file = folder.path().join("keys");
    let mut text = "# padding\n".repeat((4 << 20) / 10);
    text.push_str("ci caller-key-12345 gemini-* concurrent=1\n");
    fs::write(&file, text).unwrap();
    let settings = json!({
        "client_keys_file": file,
        "upstreams": [{"name": "up", "format": "openai", "base_url": "http://127.0.0.1:1", "models": ["*"]}]
    });
    let ended = crate::weir::run(Some(&settings.to_string()), &["--check-config"], &[]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(
        ended.stderr.contains("more than 4194304 bytes"),
        "{ended:?}"
    );
}
