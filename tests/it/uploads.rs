//! Uploads that are only passed on: in pieces, within their limit, and in little memory.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::{Client, ask, request};
use crate::first_mile::error_of;
use crate::passthrough::{FORM, form, post};
use crate::upstream::{Format, Reply, Upstream};
use crate::wait::LIMIT;
use crate::weir::{Weir, config};

const CHUNKED: (&str, &str) = ("Transfer-Encoding", "chunked");

pub fn chunks(body: &[u8], size: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + body.len() / size * 10 + 16);
    for piece in body.chunks(size) {
        out.extend(format!("{:x}\r\n", piece.len()).into_bytes());
        out.extend_from_slice(piece);
        out.extend_from_slice(b"\r\n");
    }
    out
}

#[test]
fn a_chunked_upload_has_its_limit_and_its_end() {
    let up = Upstream::start(|request| Reply::json(200, &json!({"bytes": request.body.len()})));
    let mut settings = config(Format::OpenAi, &up.url(), &["k"]);
    settings["max_body_bytes"] = json!(1_000_000);
    let weir = Weir::start(&settings);
    let begin = || {
        let mut client = Client::connect(weir.addr);
        client.send(&request("POST", "/v1/files", &[FORM, CHUNKED], b""));
        client
    };
    let body = |length: usize| form("gpt-4", &vec![b'x'; length], true);
    let most = 1_000_000 - body(0).len();
    // As a whole in memory, in pieces, and as long as it may be.
    for length in [5, 100_000, 200_000, most] {
        let mut client = begin();
        client.send(&chunks(&body(length), 30_000));
        client.send(b"0\r\n\r\n");
        let answer = client.answer(LIMIT);
        assert_eq!(answer.status, 200, "{length}: {}", answer.text());
        assert!(
            up.requests().pop().unwrap().body == body(length),
            "{length}"
        );
        let sent = up.requests().pop().unwrap();
        let has_length = sent.header("content-length").is_some();
        assert_eq!(has_length, length < 128 * 1024, "{length}");
        // The connection can be used again.
        client.send(&request("GET", "/healthz", &[], b""));
        assert_eq!(client.answer(LIMIT).status, 200);
    }
    let count = up.count();
    let mut client = begin();
    client.send(&chunks(&body(most + 1), 30_000));
    let answer = client.answer(LIMIT);
    assert_eq!(answer.status, 413, "{}", answer.text());
    assert_eq!(error_of(&answer)["code"], "request_too_large");
    client.until_closed(LIMIT);
    let mut client = begin();
    client.send(&chunks(&body(300_000), 30_000));
    client.send(b"no chunk\r\n");
    let answer = client.answer(LIMIT);
    assert_eq!(answer.status, 400, "{}", answer.text());
    client.until_closed(LIMIT);
    let mut client = begin();
    client.send(&chunks(&body(300_000), 30_000));
    client.hang_up();
    weir.idle(LIMIT);
    assert_eq!(up.count(), count);
}

#[test]
fn a_byte_now_and_then_is_no_upload() {
    let up = Upstream::start(|request| Reply::json(200, &json!({"bytes": request.body.len()})));
    let mut settings = config(Format::OpenAi, &up.url(), &["k"]);
    settings["body_wait_ms"] = json!(600);
    settings["workers"] = json!(2);
    let weir = Weir::start(&settings);
    let body = form("up/whisper-1", &vec![b'x'; 400_000], true);
    let length = body.len().to_string();
    let known = ("Content-Length", length.as_str());
    // With a length and without; half of it is there, and the rest comes a byte at a time.
    for framing in [known, CHUNKED] {
        let mut client = Client::connect(weir.addr);
        let headers = [FORM, framing];
        client.send(&request("POST", "/v1/audio/transcriptions", &headers, b""));
        let is_chunked = framing == CHUNKED;
        let send = |client: &mut Client, piece: &[u8]| match is_chunked {
            true => client.try_send(&chunks(piece, piece.len())),
            false => client.try_send(piece),
        };
        let half = 140_000;
        send(&mut client, &body[..half]).unwrap();
        let begun = Instant::now();
        let mut at = half;
        let answer = loop {
            let got = client.until_closed_or_answered(Duration::from_millis(20));
            if !got.is_empty() {
                break got;
            }
            assert!(begun.elapsed() < LIMIT, "it is still listened to");
            let _ = send(&mut client, &body[at..=at]);
            at += 1;
        };
        let text = String::from_utf8_lossy(&answer);
        assert!(text.starts_with("HTTP/1.1 408"), "{text}");
    }
    // Who is slow but sends is heard: longer than `body_wait_ms` in all.
    let mut client = Client::connect(weir.addr);
    client.send(&request(
        "POST",
        "/v1/audio/transcriptions",
        &[FORM, known],
        b"",
    ));
    let begun = Instant::now();
    for piece in body.chunks(50_000) {
        client.send(piece);
        assert!(
            client
                .until_closed_or_answered(Duration::from_millis(150))
                .is_empty()
                || begun.elapsed() > Duration::from_millis(900)
        );
    }
    let answer = client.answer(LIMIT);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(begun.elapsed() > Duration::from_millis(600));
    weir.idle(LIMIT);
}

const MANY: usize = 20 * 1024 * 1024;

#[test]
fn twenty_megabytes_pass_in_little_memory() {
    let answer: Vec<u8> = (0..MANY).map(|at| (at % 251) as u8).collect();
    let speech = answer.clone();
    let up = Upstream::start(move |request| match request.path.as_str() {
        "/v1/audio/speech" => Reply::whole(200, "audio/mpeg", speech.clone()),
        _ => Reply::json(200, &json!({"bytes": request.body.len()})),
    });
    let weir = Weir::start(&config(Format::OpenAi, &up.url(), &["k"]));
    let upload = |length: usize, model_first: bool| {
        let body = form("up/whisper-1", &answer[..length], model_first);
        let path = "/v1/audio/transcriptions";
        let told = ask(weir.addr, "POST", path, &[FORM], &body);
        assert_eq!(told.status, 200, "{}", told.text());
        let sent = up.requests().pop().unwrap().body;
        // A model behind a long file is not seen, and goes out as it is.
        let name = if model_first {
            "whisper-1"
        } else {
            "up/whisper-1"
        };
        assert!(sent == form(name, &answer[..length], model_first));
    };
    let upload_chunks = || {
        let body = form("up/whisper-1", &answer, true);
        let mut client = Client::connect(weir.addr);
        let path = "/v1/audio/transcriptions";
        client.send(&request("POST", path, &[FORM, CHUNKED], b""));
        client.send(&chunks(&body, 50_000));
        client.send(b"0\r\n\r\n");
        let told = client.answer(LIMIT);
        assert_eq!(told.status, 200, "{}", told.text());
        let sent = up.requests().pop().unwrap().body;
        assert!(sent == form("whisper-1", &answer, true));
    };
    let speak = || {
        let body = json!({"model": "up/tts-1", "input": "x"});
        let spoken = post(&weir, "/v1/audio/speech", &body);
        assert_eq!(spoken.header("content-type"), Some("audio/mpeg"));
        assert!(spoken.body == answer);
    };
    upload(200_000, true);
    let before = weir.peak_rss_kib();
    upload(MANY, true);
    upload(MANY, false);
    upload_chunks();
    speak();
    let after = weir.peak_rss_kib();
    println!("peak: {before} KiB before, {after} KiB after three uploads and an answer of 20 MiB");
    assert!(
        after < before + 2048,
        "{before} KiB before, {after} KiB after"
    );
    weir.idle(LIMIT);
}
