//! What an operator looks at: metrics, the status in its three forms, checked with the tools that
//! read them where those are installed.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

use serde_json::json;

use crate::client::{ask, chat, get};
use crate::first_mile::error_of;
use crate::upstream::{Format, Reply, Upstream};
use crate::wait::{LIMIT, until};
use crate::weir::{Folder, Weir, config};

const MODEL: &str = "up/gpt-4o-mini";

/// The first of these programs that is installed; a test without one says that it was skipped.
pub fn program(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let found = names.iter().find_map(|name| {
        std::env::split_paths(&path)
            .map(|folder| folder.join(name))
            .find(|file| file.is_file())
    });
    if found.is_none() {
        say_skipped(&format!("none of {names:?} is installed"));
    }
    found
}

/// Says so where it is seen: what a test that passes has printed is not shown, so this goes past it.
pub fn say_skipped(why: &str) {
    let name = thread::current().name().unwrap_or_default().to_owned();
    let line = format!("SKIPPED {name}: {why}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// One key that answers and one that is out of quota.
fn busy_weir() -> (Upstream, Weir) {
    let limited = json!({"error": {"message": "Quota exceeded for <this> minute",
        "type": "rate_limit", "code": "rate_limit_exceeded"}});
    let upstream = Upstream::start(move |request| match request.key.as_deref() {
        Some("key-good-1") => Format::OpenAi.answer(request, &["Hel", "lo"]),
        _ => Reply::json(429, &limited).header("Retry-After", "240"),
    });
    let mut settings = config(
        Format::OpenAi,
        &upstream.url(),
        &["key-limited-1", "key-good-1"],
    );
    settings["models"] = json!({"small": [MODEL]});
    let weir = Weir::start(&settings);
    for _ in 0..3 {
        assert_eq!(weir.ask(&chat("small", false)).status, 200);
        assert!(weir.stream(&chat(MODEL, true)).done);
    }
    weir.idle(LIMIT);
    (upstream, weir)
}

/// The value of the sample that begins with `start`.
fn sample(text: &str, start: &str) -> f64 {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(start))
        .unwrap_or_else(|| panic!("no {start} in {text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn metrics_tell_what_happened() {
    let (_upstream, weir) = busy_weir();
    for number in 0..20 {
        weir.ask(&chat(&format!("made-up-{number}"), false));
    }
    // A request is counted when its answer has left.
    let last =
        r#"weir_requests_total{endpoint="chat",model="other",upstream="none",status="4xx"} 20"#;
    let answer = until(LIMIT, "the last request to be counted", || {
        let answer = get(weir.addr, "/metrics");
        answer.text().contains(last).then_some(answer)
    });
    assert_eq!(
        answer.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    let text = answer.text();
    let chats = |rest: &str| {
        let start = format!("weir_requests_total{{endpoint=\"chat\",{rest}}}");
        sample(&text, &start)
    };
    assert_eq!(chats(r#"model="small",upstream="up",status="2xx""#), 3.0);
    assert_eq!(chats(r#"model="other",upstream="up",status="2xx""#), 3.0);
    assert_eq!(chats(r#"model="other",upstream="none",status="4xx""#), 20.0);
    assert!(!text.contains("made-up-"), "{text}");
    // The first request found out that the one key is out of quota.
    assert_eq!(sample(&text, "weir_key_switches_total"), 1.0);
    assert_eq!(
        sample(
            &text,
            r#"weir_cool_downs_total{upstream="up",class="rate_limit"}"#
        ),
        1.0
    );
    assert_eq!(sample(&text, r#"weir_attempts_total{upstream="up"}"#), 7.0);
    assert_eq!(sample(&text, r#"weir_keys_cooling{upstream="up"}"#), 1.0);
    assert_eq!(sample(&text, r#"weir_leases_in_use{upstream="up"}"#), 0.0);
    assert_eq!(sample(&text, r#"weir_stream_ends_total{kind="done"}"#), 3.0);
    assert_eq!(
        sample(
            &text,
            r#"weir_first_chunk_seconds_count{endpoint="chat",upstream="up"}"#
        ),
        6.0
    );
    assert!(sample(&text, "process_resident_memory_bytes") > 1e6);
    assert!(sample(&text, "process_threads") > 60.0);
}

#[test]
fn promtool_finds_nothing_to_say() {
    let Some(promtool) = program(&["promtool"]) else {
        return;
    };
    let (_upstream, weir) = busy_weir();
    let text = get(weir.addr, "/metrics").text();
    let mut child = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // Written aside, since it may speak before it has read everything.
    let writer = thread::spawn(move || stdin.write_all(text.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(said.trim(), "");
}

#[test]
fn metrics_are_open_only_where_the_config_says_so() {
    let mut settings = config(Format::OpenAi, &Upstream::nobody(), &["upstream-key"]);
    settings["client_keys"] = json!(["caller-key"]);
    let weir = Weir::start(&settings);
    let refused = get(weir.addr, "/metrics");
    assert_eq!(refused.status, 401);
    error_of(&refused);
    let key = [("Authorization", "Bearer caller-key")];
    assert_eq!(ask(weir.addr, "GET", "/metrics", &key, b"").status, 200);
    settings["metrics_open"] = json!(true);
    let weir = Weir::start(&settings);
    assert_eq!(get(weir.addr, "/metrics").status, 200);
    assert_eq!(get(weir.addr, "/status").status, 401);
}

#[test]
fn the_status_has_everything_in_it() {
    let (_upstream, weir) = busy_weir();
    let status = weir.status();
    assert_eq!(status["health"], "limited");
    assert!(
        status["config"]["file"]
            .as_str()
            .unwrap()
            .ends_with("weir.json")
    );
    assert_eq!(status["config"]["changed"], false);
    let keys = status["upstreams"][0]["keys"].as_array().unwrap();
    let rest = &keys[0]["cooling"][0];
    assert_eq!(rest["model"], "gpt-4o-mini");
    assert_eq!(rest["why"], "Quota exceeded for <this> minute");
    assert!((200.0..=240.0).contains(&rest["seconds"].as_f64().unwrap()));
    assert_eq!(keys[1]["cooling"], json!([]));
    assert_eq!(keys[1]["today"]["requests"], 6);
    // Asked once, in vain.
    assert_eq!(
        (&keys[0]["today"]["requests"], &keys[0]["today"]["failed"]),
        (&json!(1), &json!(1))
    );
    assert!(keys[1]["today"]["prompt_tokens"].as_u64().unwrap() > 0);
    let models = status["models"].as_array().unwrap();
    assert!(
        models
            .iter()
            .any(|model| model["name"] == "small" && model["requests"] == 3)
    );
    let recent = status["recent"].as_array().unwrap();
    assert_eq!(recent.len(), 6);
    // Two that follow each other quickly may be noted in either order.
    let switched = recent.iter().find(|one| one["attempts"] == 2).unwrap();
    assert_eq!(switched["status"], 200);
    assert_eq!(switched["key"], keys[1]["name"]);
    let minutes = status["minutes"].as_array().unwrap();
    assert_eq!(minutes.len(), 60);
    let total: u64 = minutes
        .iter()
        .map(|m| m["requests"].as_u64().unwrap())
        .sum();
    assert_eq!(total, 6);

    let text = get(weir.addr, "/status").text();
    assert!(
        text.starts_with("Serving, but 1 of 2 keys rests for some model.\n"),
        "{text}"
    );
    let header = text
        .lines()
        .find(|line| line.starts_with("UPSTREAM"))
        .unwrap();
    let row = text.lines().find(|line| line.starts_with("up  ")).unwrap();
    let state = header.find("STATE").unwrap();
    assert!(row[state..].starts_with("resting for a model"), "{text}");
}

#[test]
fn a_reset_ends_every_rest() {
    let (_upstream, weir) = busy_weir();
    assert_eq!(
        ask(weir.addr, "POST", "/status/reset", &[], b"").status,
        200
    );
    let status = weir.status();
    assert_eq!(status["health"], "fine");
    assert_eq!(status["upstreams"][0]["keys"][0]["cooling"], json!([]));
}

#[test]
fn a_browser_can_give_its_key_for_the_page_and_for_nothing_else() {
    let mut settings = config(Format::OpenAi, &Upstream::nobody(), &["upstream-key"]);
    settings["client_keys"] = json!(["caller-key"]);
    let weir = Weir::start(&settings);
    let refused = ask(weir.addr, "GET", "/status", &[("Accept", "text/html")], b"");
    assert_eq!(refused.status, 401);
    assert_eq!(
        refused.header("www-authenticate"),
        Some("Basic realm=\"weir: any name, a client key as password\"")
    );
    // x:caller-key and x:wrong-key.
    let right = [
        ("Authorization", "Basic eDpjYWxsZXIta2V5"),
        ("Accept", "text/html"),
    ];
    let page = ask(weir.addr, "GET", "/status", &right, b"");
    assert_eq!(page.status, 200);
    assert!(page.text().starts_with("<!doctype html>"));
    let wrong = [("Authorization", "Basic eDp3cm9uZy1rZXk=")];
    assert_eq!(ask(weir.addr, "GET", "/status", &wrong, b"").status, 401);
    for (method, path) in [("POST", "/status/reset"), ("GET", "/v1/models")] {
        assert_eq!(
            ask(weir.addr, method, path, &right, b"").status,
            401,
            "{path}"
        );
    }
}

#[test]
fn a_config_file_that_was_changed_is_told() {
    let (_upstream, weir) = busy_weir();
    let touched = File::options()
        .append(true)
        .open(weir.config_file())
        .unwrap();
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(5);
    touched.set_modified(later).unwrap();
    assert_eq!(weir.status()["config"]["changed"], true);
    let text = get(weir.addr, "/status").text();
    assert!(text.contains("SIGHUP reads it again"), "{text}");
}

#[test]
fn chromium_shows_the_page() {
    let Some(chromium) = program(&["chromium", "chromium-browser", "google-chrome"]) else {
        return;
    };
    let (upstream, weir) = busy_weir();
    drop(upstream);
    assert_eq!(weir.ask(&chat("small", false)).status, 502);

    let profile = Folder::new();
    let output = Command::new(chromium)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
        ])
        .args(["--no-first-run", "--disable-background-networking"])
        .args(["--disable-component-update", "--disable-sync", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("http://{}/status", weir.addr))
        .stderr(Stdio::null())
        .output()
        .unwrap();
    let dom = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{dom}");
    // As the browser understood it: what was escaped is text, and nothing else is there.
    for shown in [
        "<title>weir: DOWN</title>",
        "<h1>Nothing answers: up is unreachable.</h1>",
        "rate limit: Quota exceeded for &lt;this&gt; minute",
        "resting for a model",
        "<b>up#2</b> of <b>up</b> fails: <b>4</b> attempts in a row",
        ">unreachable<",
        "<svg viewBox=\"0 0 240 40\"",
        "Requests a minute",
        ">502<",
        ">small<",
        "<b>other</b>: names that the config does not list.",
    ] {
        assert!(dom.contains(shown), "{shown} in {dom}");
    }
    assert!(!dom.contains("<this>") && !dom.contains("<script"), "{dom}");
    let first = dom.find("<h1>").unwrap();
    let table = dom.find("<table").unwrap();
    let rest = dom.find("rests for").unwrap();
    assert!(first < rest && rest < table, "what matters comes first");
}
