//! Pages of elsewhere in a browser on this machine: what they may ask where no key is needed, and
//! what they can read.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::client::{Answer, Client, ask, chat};
use crate::first_mile::error_of;
use crate::observe::program;
use crate::passthrough::JSON;
use crate::upstream::{Format, Reply, Upstream};
use crate::wait::LIMIT;
use crate::weir::{Folder, Weir, config};

const MODEL: &str = "up/gpt-4o-mini";

/// Every route, and whether it asks an upstream.
const ROUTES: [(&str, &str); 15] = [
    ("POST", "/v1/chat/completions"),
    ("POST", "/ask?model=up/gpt-4o-mini"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/embeddings"),
    ("POST", "/v1/responses"),
    ("GET", "/v1/files"),
    ("DELETE", "/v1/files/f"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/up%2Fgpt-4o-mini"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
    ("GET", "/status"),
    ("POST", "/status/reset"),
    ("GET", "/nothing"),
];

fn start(change: impl Fn(&mut Value)) -> (Upstream, Weir) {
    let up = Upstream::start(|request| match request.path.as_str() {
        "/v1/files" => Reply::whole(200, "text/html", "<script>top.stolen = 1</script>"),
        _ => Format::OpenAi.answer(request, &["hi"]),
    });
    let mut settings = config(Format::OpenAi, &up.url(), &["k"]);
    change(&mut settings);
    let weir = Weir::start(&settings);
    (up, weir)
}

/// A request with this host, and these headers besides.
fn send(weir: &Weir, method: &str, path: &str, host: &str, headers: &[(&str, &str)]) -> Answer {
    let body = match method {
        "POST" => chat(MODEL, false).to_string(),
        _ => String::new(),
    };
    let mut text = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    let mut client = Client::connect(weir.addr);
    client.send(format!("{text}\r\n{body}").as_bytes());
    client.answer(LIMIT)
}

#[test]
fn a_name_that_is_not_this_machines_is_refused_on_every_route() {
    let (up, weir) = start(|_| {});
    let port = weir.addr.port();
    for host in [
        format!("evil.example:{port}"),
        "localhost.evil.example".into(),
        "127.0.0.1.evil.example".into(),
    ] {
        // The page's own origin is the same name.
        let origin = format!("http://{host}");
        for (method, path) in ROUTES {
            for headers in [
                &[][..],
                &[
                    ("Origin", origin.as_str()),
                    ("Sec-Fetch-Site", "same-origin"),
                ],
            ] {
                let answer = send(&weir, method, path, &host, headers);
                assert_eq!(
                    answer.status,
                    403,
                    "{method} {path} {host}: {}",
                    answer.text()
                );
                assert_eq!(answer.header("access-control-allow-origin"), None);
                if !path.starts_with("/ask") {
                    assert_eq!(error_of(&answer)["code"], "host_not_allowed");
                }
            }
        }
        let preflight = send(
            &weir,
            "OPTIONS",
            "/v1/chat/completions",
            &host,
            &[("Origin", &origin)],
        );
        assert_eq!(preflight.status, 403);
    }
    // The target can name a host as well.
    let whole = format!("http://evil.example:{port}/v1/models");
    assert_eq!(send(&weir, "GET", &whole, "localhost", &[]).status, 403);
    let whole = format!("HTTP://localhost:{port}/v1/models?x");
    assert_eq!(send(&weir, "GET", &whole, "localhost", &[]).status, 200);
    assert_eq!(up.count(), 0);
    for host in [
        format!("localhost:{port}"),
        "LocalHost".into(),
        "my.localhost".into(),
        format!("[::1]:{port}"),
        "10.0.0.7".into(),
    ] {
        assert_eq!(
            send(&weir, "GET", "/v1/models", &host, &[]).status,
            200,
            "{host}"
        );
        assert_eq!(
            send(&weir, "POST", "/v1/chat/completions", &host, &[]).status,
            200,
            "{host}"
        );
    }
}

#[test]
fn names_of_the_config_are_this_machines_and_keys_need_none() {
    let (_up, weir) = start(|settings| settings["hosts"] = json!(["LLM.example"]));
    assert_eq!(
        send(&weir, "GET", "/status", "llm.example:8080", &[]).status,
        200
    );
    assert_eq!(
        send(&weir, "GET", "/status", "other.llm.example", &[]).status,
        403
    );
    for change in [
        json!({"open": true}),
        json!({"client_keys": ["a-key-of-somebody"]}),
    ] {
        let (_up, weir) = start(|settings| {
            settings
                .as_object_mut()
                .unwrap()
                .extend(change.as_object().unwrap().clone());
        });
        let headers = [
            ("Authorization", "Bearer a-key-of-somebody"),
            ("Origin", "https://evil.example"),
        ];
        let answer = send(
            &weir,
            "POST",
            "/v1/chat/completions",
            "evil.example",
            &headers,
        );
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    }
}

#[test]
fn a_request_of_http_1_1_without_a_host_400() {
    let (_up, weir) = start(|settings| settings["client_keys"] = json!(["a-key-of-somebody"]));
    let mut client = Client::connect(weir.addr);
    client.send(b"GET /healthz HTTP/1.1\r\n\r\n");
    assert_eq!(client.answer(LIMIT).status, 400);
    client.until_closed(LIMIT);
    let mut client = Client::connect(weir.addr);
    client.send(b"GET /healthz HTTP/1.0\r\n\r\n");
    assert_eq!(client.answer(LIMIT).status, 200);
}

#[test]
fn what_a_page_of_another_site_has_fetched_is_refused_and_a_link_is_followed() {
    let (up, weir) = start(|_| {});
    let cross = ("Sec-Fetch-Site", "cross-site");
    let image = [
        cross,
        ("Sec-Fetch-Mode", "no-cors"),
        ("Sec-Fetch-Dest", "image"),
    ];
    let frame = [
        cross,
        ("Sec-Fetch-Mode", "navigate"),
        ("Sec-Fetch-Dest", "iframe"),
    ];
    let link = [
        cross,
        ("Sec-Fetch-Mode", "navigate"),
        ("Sec-Fetch-Dest", "document"),
    ];
    let script = [cross, ("Origin", "https://evil.example")];
    for (method, path) in ROUTES {
        for headers in [&image[..], &frame, &script] {
            let answer = send(&weir, method, path, "localhost", headers);
            assert_eq!(answer.status, 403, "{method} {path} {headers:?}");
        }
        let asks = path.starts_with("/ask") || method != "GET" || path == "/v1/files";
        let answer = send(&weir, method, path, "localhost", &link);
        assert_eq!(
            answer.status == 403,
            asks,
            "{method} {path}: {}",
            answer.text()
        );
    }
    assert_eq!(up.count(), 0);
    for site in ["none", "same-origin", "same-site"] {
        let headers = [("Sec-Fetch-Site", site)];
        assert_eq!(
            send(&weir, "GET", "/v1/files", "localhost", &headers).status,
            200,
            "{site}"
        );
    }
    // A page of this machine is of another site where it calls itself by another name.
    let own = [cross, ("Origin", "http://localhost:3000")];
    let answer = send(&weir, "POST", "/v1/chat/completions", "127.0.0.1", &own);
    assert_eq!(answer.status, 200);
}

#[test]
fn a_program_made_of_pages_may_ask_and_read_or_neither() {
    let (up, weir) = start(|_| {});
    let path = "/v1/chat/completions";
    for origin in [
        "tauri://localhost",
        "app://obsidian.md",
        "capacitor://localhost",
        "vscode-webview://0a1b",
        "chrome-extension://abc",
        "file://",
        "http://tauri.localhost",
        "http://localhost:3000",
    ] {
        let headers = [
            ("Origin", origin),
            ("Sec-Fetch-Site", "cross-site"),
            ("Access-Control-Request-Method", "POST"),
            ("Access-Control-Request-Headers", "authorization,x-own"),
        ];
        let preflight = send(&weir, "OPTIONS", path, "127.0.0.1", &headers);
        assert_eq!(preflight.status, 204);
        let answer = send(&weir, "POST", path, "127.0.0.1", &headers[..2]);
        assert_eq!(answer.status, 200, "{origin}");
        for reply in [&preflight, &answer] {
            assert_eq!(reply.header("access-control-allow-origin"), Some(origin));
        }
        assert_eq!(
            preflight.header("access-control-allow-headers"),
            Some("authorization,x-own")
        );
    }
    let count = up.count();
    for origin in [
        "null",
        "https://evil.example",
        "http://localhost.evil.example",
        "ftp://localhost",
    ] {
        let preflight = send(&weir, "OPTIONS", path, "127.0.0.1", &[("Origin", origin)]);
        assert_eq!(
            preflight.header("access-control-allow-origin"),
            None,
            "{origin}"
        );
        let answer = send(&weir, "POST", path, "127.0.0.1", &[("Origin", origin)]);
        assert_eq!(answer.status, 403, "{origin}");
        assert_eq!(
            answer.header("access-control-allow-origin"),
            None,
            "{origin}"
        );
    }
    assert_eq!(up.count(), count);
}

#[test]
fn what_an_upstream_sends_as_a_page_runs_nowhere() {
    let (_up, weir) = start(|_| {});
    let page = ask(weir.addr, "GET", "/v1/files", &[], b"");
    assert_eq!(page.header("content-type"), Some("text/html"));
    let events = ask(
        weir.addr,
        "POST",
        "/v1/responses",
        &[JSON],
        br#"{"model":"up/m","stream":true}"#,
    );
    for answer in [page, events] {
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("content-security-policy"), Some("sandbox"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    }
}

/// What a page under the name of another machine, which leads here, gets out of weir.
const PAGE: &str = r#"<!doctype html><title>begun</title><pre id="told"></pre><script>
(async () => {
    const base = "http://rebound.example:PORT";
    const told = [];
    for (const [method, path] of ROUTES) {
        let line = method + " " + path + " ";
        try {
            const answer = await fetch(base + path, {method, mode: "no-cors", body: method == "POST" ? "{}" : undefined});
            line += answer.type == "opaque" ? "opaque" : answer.status;
        } catch (error) { line += "failed"; }
        told.push(line);
    }
    document.getElementById("told").textContent = told.join("\n");
    document.title = "ended";
})();
</script>"#;

#[test]
fn chromium_gets_nothing_under_a_foreign_name() {
    let Some(chromium) = program(&["chromium", "chromium-browser", "google-chrome"]) else {
        return;
    };
    let (up, weir) = start(|_| {});
    let port = weir.addr.port();
    let routes = ROUTES.map(|(method, path)| json!([method, path]));
    let page = PAGE
        .replace("PORT", &port.to_string())
        .replace("ROUTES", &json!(routes).to_string());
    let attacker = Upstream::always(Reply::whole(200, "text/html", page));
    // Both names lead to this machine: the page's, and the one that is weir's for the browser.
    let visit = |url: &str| {
        let profile = Folder::new();
        let output = Command::new(&chromium)
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
            ])
            .args(["--no-first-run", "--disable-background-networking"])
            .args(["--disable-component-update", "--disable-sync", "--dump-dom"])
            .args([
                "--virtual-time-budget=10000",
                "--host-resolver-rules=MAP *.example 127.0.0.1",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(url)
            .stderr(Stdio::null())
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    for (method, path) in ROUTES {
        if method == "GET" {
            let dom = visit(&format!("http://rebound.example:{port}{path}"));
            assert!(dom.contains("host_not_allowed"), "{path}: {dom}");
        }
    }
    let dom = visit(&format!("http://evil.example:{}/", attacker.addr.port()));
    assert!(dom.contains("<title>ended</title>"), "{dom}");
    assert_eq!(up.count(), 0, "{dom}");
    // All of them came, and each was refused.
    let log = weir.wait_log("endpoint=reset", LIMIT);
    assert!(!log.contains("status=200"), "{log}");
}
