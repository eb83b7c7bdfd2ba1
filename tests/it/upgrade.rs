//! Offers of another protocol: each is passed over, and the request answered as HTTP/1.1.

use std::fs;
use std::process::Command;

use serde_json::json;

use crate::client::{Client, chat, request};
use crate::completion::Completion;
use crate::observe::program;
use crate::passthrough::{FORM, form};
use crate::uploads::chunks;
use crate::upstream::{Format, Reply, Upstream};
use crate::wait::LIMIT;
use crate::weir::{Folder, Weir, config};

const PATH: &str = "/v1/chat/completions";
const MODEL: &str = "up/gpt-4o-mini";

/// What Java's own client sends with every request over plain HTTP.
const OFFER: [(&str, &str); 3] = [
    ("Connection", "Upgrade, HTTP2-Settings"),
    ("Upgrade", "h2c"),
    ("HTTP2-Settings", "AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA"),
];
const SOCKET: [(&str, &str); 4] = [
    ("Connection", "keep-alive, upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

fn pair() -> (Upstream, Weir) {
    let up = Upstream::start(|request| match request.path.contains("chat") {
        true => Format::OpenAi.answer(request, &["hi"]),
        false => Reply::json(200, &json!({"bytes": request.body.len()})),
    });
    let weir = Weir::start(&config(Format::OpenAi, &up.url(), &["k"]));
    (up, weir)
}

#[test]
fn an_offer_is_passed_over_and_the_answer_says_that_it_is_the_last() {
    let (up, weir) = pair();
    for offer in [&OFFER[..], &SOCKET] {
        for (method, path, status) in [
            ("GET", "/v1/models", 200),
            ("HEAD", "/v1/models", 200),
            ("GET", "/healthz", 200),
            ("GET", "/v1/realtime", 404),
            ("DELETE", "/v1/models", 405),
        ] {
            let mut client = Client::connect(weir.addr);
            client.send(&request(method, path, offer, b""));
            let head = client.head(LIMIT);
            assert!(head.start.contains(&status.to_string()), "{}", head.start);
            assert_eq!(head.header("connection"), Some("close"), "{method} {path}");
            assert_eq!(head.header("upgrade"), None);
            client.until_closed(LIMIT);
        }
        // Short enough to come with the head, and too long for that.
        for length in [0, 10_000, 300_000] {
            let mut body = chat(MODEL, false);
            body["user"] = "x".repeat(length).into();
            let mut client = Client::connect(weir.addr);
            client.send(&request("POST", PATH, offer, body.to_string().as_bytes()));
            let answer = client.answer(LIMIT);
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert_eq!(answer.header("connection"), Some("close"));
            assert_eq!(Completion::whole(&answer.json()).content, "hi");
            client.until_closed(LIMIT);
            let sent = up.requests().pop().unwrap();
            assert_eq!(sent.json()["user"], body["user"]);
            for (name, _) in offer.iter().filter(|(name, _)| *name != "Connection") {
                assert_eq!(sent.header(&name.to_lowercase()), None, "{name}");
            }
        }
        let mut client = Client::connect(weir.addr);
        client.send(&request(
            "POST",
            PATH,
            offer,
            chat(MODEL, true).to_string().as_bytes(),
        ));
        let mut stream = client.stream(LIMIT);
        assert_eq!(stream.head.header("connection"), Some("close"));
        let (items, end) = stream.rest(LIMIT);
        assert!(items.len() > 2, "{items:?}");
        assert_eq!(end, crate::client::End::Framed);
        stream.client.until_closed(LIMIT);
    }
    weir.idle(LIMIT);
}

#[test]
fn chunks_beside_an_offer_are_read_to_their_end_and_no_further() {
    let (up, weir) = pair();
    let headers = [&OFFER[..], &[("Transfer-Encoding", "chunked")]].concat();
    for size in [1, 7, 100_000] {
        let body = chat(MODEL, false).to_string();
        let mut client = Client::connect(weir.addr);
        client.send(&request("POST", PATH, &headers, b""));
        client.send(&chunks(body.as_bytes(), size));
        client.send(b"0\r\nX-Trailer: 1\r\n\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let got = String::from_utf8(client.until_closed(LIMIT)).unwrap();
        assert!(got.starts_with("HTTP/1.1 200"), "{got}");
        assert_eq!(got.matches("HTTP/1.1 ").count(), 1, "{got}");
    }
    // In pieces, as uploads go.
    let body = form(MODEL, &vec![b'x'; 400_000], true);
    let mut client = Client::connect(weir.addr);
    let headers = [&headers[..], &[FORM]].concat();
    client.send(&request("POST", "/v1/files", &headers, b""));
    client.send(&chunks(&body, 30_000));
    client.send(b"0\r\n\r\n");
    assert_eq!(client.answer(LIMIT).status, 200);
    assert!(up.requests().pop().unwrap().body == form("gpt-4o-mini", &vec![b'x'; 400_000], true));

    let before = up.count();
    for wrong in [
        "zz\r\nhello\r\n0\r\n\r\n",
        "5\r\nhelloworld\r\n0\r\n\r\n",
        "5\nhello\n0\n\n",
    ] {
        let mut client = Client::connect(weir.addr);
        client.send(&request("POST", PATH, &headers[..4], b""));
        client.send(wrong.as_bytes());
        let answer = client.answer(LIMIT);
        assert_eq!(answer.status, 400, "{wrong:?}");
        client.until_closed(LIMIT);
    }
    assert_eq!(up.count(), before);
    weir.idle(LIMIT);
}

#[test]
fn what_follows_an_offer_is_no_part_of_its_body_and_is_not_answered() {
    let (up, weir) = pair();
    let next = request("GET", "/readyz", &[], b"");
    let body = chat(MODEL, false).to_string();
    let first = request("GET", "/v1/models", &[], b"");
    let offer = request("POST", PATH, &OFFER, body.as_bytes());
    let mut client = Client::connect(weir.addr);
    client.send(&[first, offer, next.clone(), next].concat());
    assert_eq!(client.answer(LIMIT).json()["object"], "list");
    let answer = client.answer(LIMIT);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(client.until_closed(LIMIT), b"");
    assert_eq!(up.count(), 1);

    // Lengths are held to as ever.
    let mut client = Client::connect(weir.addr);
    let long = ("Content-Length", "300000000");
    client.send(&request("POST", PATH, &[&OFFER[..], &[long]].concat(), b""));
    assert_eq!(client.answer(LIMIT).status, 413);
    client.until_closed(LIMIT);
    let mut client = Client::connect(weir.addr);
    let two = [("Content-Length", "2"), ("Transfer-Encoding", "chunked")];
    client.send(&request("POST", PATH, &[&OFFER[..], &two].concat(), b""));
    assert_eq!(client.answer(LIMIT).status, 400);
    client.until_closed(LIMIT);
    let mut client = Client::connect(weir.addr);
    let length = ("Content-Length", "500");
    client.send(&request(
        "POST",
        PATH,
        &[&OFFER[..], &[length]].concat(),
        b"",
    ));
    client.send(b"{");
    client.finish_sending();
    assert_eq!(client.answer(LIMIT).status, 400);
    weir.idle(LIMIT);
}

#[test]
fn a_path_that_leads_nowhere_is_told_the_right_one() {
    let (up, weir) = pair();
    for (path, right) in [
        ("/chat/completions", "; it is at /v1/chat/completions"),
        ("/v1/v1/chat/completions", "; it is at /v1/chat/completions"),
        ("/v1/nothing", "there is nothing at /v1/nothing"),
    ] {
        let answer = crate::client::ask(weir.addr, "POST", path, &[], b"{}");
        assert_eq!(answer.status, 404);
        let error = crate::first_mile::error_of(&answer);
        let message = error["message"].as_str().unwrap();
        assert!(message.ends_with(right), "{message}");
    }
    assert_eq!(up.count(), 0);
}

/// The HTTP server beneath writes a length into it, which no caller minds.
#[test]
#[ignore = "the HTTP server beneath sends `Content-Length: 0` with its `100 Continue`"]
fn a_100_continue_has_no_length() {
    let (_up, weir) = pair();
    let mut client = Client::connect(weir.addr);
    let headers = [("Expect", "100-continue"), ("Content-Length", "2")];
    client.send(&request("POST", PATH, &headers, b""));
    let head = client.head(LIMIT);
    assert!(head.start.starts_with("HTTP/1.1 100"), "{}", head.start);
    assert_eq!(head.header("content-length"), None);
}

const JAVA: &str = r#"
import java.net.URI;
import java.net.http.*;

public class Ask {
    public static void main(String[] arguments) throws Exception {
        String base = arguments[0];
        HttpClient client = HttpClient.newHttpClient();
        HttpRequest list = HttpRequest.newBuilder(URI.create(base + "/v1/models")).build();
        String body = "{\"model\": \"up/gpt-4o-mini\", \"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}]}";
        HttpRequest.Builder chat = HttpRequest.newBuilder(URI.create(base + "/v1/chat/completions"))
            .header("Content-Type", "application/json");
        HttpRequest known = chat.copy().POST(HttpRequest.BodyPublishers.ofString(body)).build();
        // Without a length, this one goes in chunks.
        HttpRequest chunked = chat.copy().POST(HttpRequest.BodyPublishers.ofInputStream(
            () -> new java.io.ByteArrayInputStream(body.getBytes()))).build();
        for (HttpRequest request : new HttpRequest[] {list, known, chunked, known, list}) {
            HttpResponse<String> answer = client.send(request, HttpResponse.BodyHandlers.ofString());
            System.out.println(answer.statusCode() + " " + answer.version() + " " + answer.body().replace("\n", ""));
        }
    }
}
"#;

#[test]
fn the_http_client_of_java_asks_as_it_is() {
    // A single source file needs the compiler, which `java` alone may lack.
    let (Some(java), Some(_)) = (program(&["java"]), program(&["javac"])) else {
        return;
    };
    let (up, weir) = pair();
    let folder = Folder::new();
    let source = folder.path().join("Ask.java");
    fs::write(&source, JAVA).unwrap();
    let output = Command::new(java)
        .args(["-XX:TieredStopAtLevel=1", "-Xshare:auto"])
        .arg(&source)
        .arg(format!("http://{}", weir.addr))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}\n{errors}");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 5, "{text}");
    for (line, shown) in lines
        .iter()
        .zip(["\"list\"", "\"hi\"", "\"hi\"", "\"hi\"", "\"list\""])
    {
        assert!(
            line.starts_with("200 HTTP_1_1 ") && line.contains(shown),
            "{line}"
        );
    }
    assert_eq!(up.count(), 3);
    weir.idle(LIMIT);
}
