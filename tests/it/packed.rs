//! Bodies that come packed (`Content-Encoding`): unpacked within the limit, or refused.

use std::time::Instant;

use serde_json::{Value, json};

use crate::client::{Answer, Client, ask, chat, request};
use crate::first_mile::error_of;
use crate::passthrough::{FORM, form};
use crate::uploads::chunks;
use crate::upstream::{Format, Reply, Upstream};
use crate::wait::LIMIT;
use crate::weir::{Weir, config};

const PATH: &str = "/v1/chat/completions";
const MODEL: &str = "up/gpt-4o-mini";
const GZIP: (&str, &str) = ("Content-Encoding", "gzip");
const JSON: (&str, &str) = ("Content-Type", "application/json");

/// The checksum of gzip, a bit at a time.
fn crc32(bytes: &[u8]) -> u32 {
    let mut sum = u32::MAX;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg());
        }
    }
    !sum
}

fn frame(data: &[u8], sum: u32, length: usize) -> Vec<u8> {
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    out.extend_from_slice(data);
    out.extend_from_slice(&sum.to_le_bytes());
    out.extend_from_slice(&(length as u32).to_le_bytes());
    out
}

/// gzip, without making it shorter.
pub fn gzip(body: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    let mut blocks = body.chunks(60_000).peekable();
    while let Some(block) = blocks.next() {
        data.push(u8::from(blocks.peek().is_none()));
        data.extend_from_slice(&(block.len() as u16).to_le_bytes());
        data.extend_from_slice(&(!(block.len() as u16)).to_le_bytes());
        data.extend_from_slice(block);
    }
    frame(&data, crc32(body), body.len())
}

/// A bomb: `count` bytes of data, each of which unpacks to a thousand zeros. One block with the
/// fixed codes: a zero, then lengths of 258 at distance 1, of which each takes 13 bits.
fn bomb(count: usize) -> Vec<u8> {
    let (mut out, mut bits, mut held) = (Vec::new(), 0u32, 0);
    let mut push = |value: u32, length: u32| {
        bits |= value << held;
        held += length;
        while held >= 8 {
            out.push(bits as u8);
            bits >>= 8;
            held -= 8;
        }
    };
    push(0b011, 3);
    // The literal 0 is 00110000 in this order of its bits.
    push(0b0000_1100, 8);
    for _ in 0..count * 8 / 13 {
        // The length 258 is 11000101, and the distance 1 is 00000.
        push(0b1010_0011, 8);
        push(0, 5);
    }
    out.push(0);
    frame(&out, 0, 0)
}

fn send(weir: &Weir, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    ask(weir.addr, "POST", path, headers, body)
}

#[test]
fn a_packed_body_is_unpacked_on_every_route() {
    let up = Upstream::start(|request| match request.path.as_str() {
        "/v1/chat/completions" => Format::OpenAi.answer(request, &["hi"]),
        "/v1/embeddings" => Reply::json(200, &json!({"object": "list", "data": []})),
        _ => Reply::json(200, &json!({"bytes": request.body.len()})),
    });
    let weir = Weir::start(&config(Format::OpenAi, &up.url(), &["k"]));
    let mut chats = chat(MODEL, false);
    for (route, body) in [
        (PATH, chats.clone()),
        ("/v1/completions", json!({"model": MODEL, "prompt": "a"})),
        ("/v1/embeddings", json!({"model": MODEL, "input": "a"})),
        ("/v1/responses", json!({"model": MODEL, "input": "a"})),
        ("/v1/moderations", json!({"model": MODEL, "input": "a"})),
    ] {
        let packed = gzip(body.to_string().as_bytes());
        let answer = send(&weir, route, &[JSON, GZIP], &packed);
        assert_eq!(answer.status, 200, "{route}: {}", answer.text());
        let sent = up.requests().pop().unwrap();
        assert_eq!(sent.json()["model"], "gpt-4o-mini", "{route}");
        assert_eq!(sent.header("content-encoding"), None, "{route}");
    }
    let told = send(
        &weir,
        "/ask?model=up/gpt-4o-mini",
        &[GZIP],
        &gzip(b"Say it"),
    );
    assert_eq!((told.status, &*told.text()), (200, "hi"));
    assert!(
        up.requests().pop().unwrap().json()["messages"]
            .to_string()
            .contains("Say it")
    );
    // A form: the model in it is seen, and what goes out is no longer packed.
    let file = vec![b'x'; 300_000];
    let packed = gzip(&form(MODEL, &file, true));
    let answer = send(&weir, "/v1/files", &[FORM, GZIP], &packed);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(up.requests().pop().unwrap().body == form("gpt-4o-mini", &file, true));

    // Other names, several of them, in chunks.
    chats["user"] = "x".repeat(100_000).into();
    let text = chats.to_string();
    for (coding, body) in [
        ("identity", text.as_bytes().to_vec()),
        ("X-GZIP", gzip(text.as_bytes())),
        ("gzip, identity", gzip(text.as_bytes())),
        ("gzip, gzip", gzip(&gzip(text.as_bytes()))),
    ] {
        let headers = [JSON, ("Content-Encoding", coding)];
        let answer = send(&weir, PATH, &headers, &body);
        assert_eq!(answer.status, 200, "{coding}: {}", answer.text());
        assert_eq!(up.requests().pop().unwrap().json()["user"], chats["user"]);
        let mut client = Client::connect(weir.addr);
        let headers = [&headers[..], &[("Transfer-Encoding", "chunked")]].concat();
        client.send(&request("POST", PATH, &headers, b""));
        client.send(&chunks(&body, 9_999));
        client.send(b"0\r\n\r\n");
        assert_eq!(client.answer(LIMIT).status, 200, "{coding}");
    }
    weir.idle(LIMIT);
}

#[test]
fn what_cannot_be_unpacked_is_refused_before_an_upstream_is_asked() {
    let up = Upstream::start(|request| Format::OpenAi.answer(request, &["hi"]));
    let weir = Weir::start(&config(Format::OpenAi, &up.url(), &["k"]));
    let text = chat(MODEL, false).to_string();
    let packed = gzip(text.as_bytes());
    let files = "/v1/files";
    for coding in ["br", "deflate", "zstd", "gzip, br", "gzip, gzip, gzip"] {
        let label = ("Content-Encoding", coding);
        for (path, kind) in [
            (PATH, JSON),
            ("/v1/embeddings", JSON),
            ("/ask", JSON),
            (files, FORM),
        ] {
            let answer = send(&weir, path, &[kind, label], &packed);
            assert_eq!(answer.status, 415, "{path} {coding}: {}", answer.text());
            assert_eq!(answer.header("accept-encoding"), Some("gzip"));
            if path != "/ask" {
                assert_eq!(error_of(&answer)["code"], "unsupported_content_encoding");
            }
        }
    }
    let mut wrong = packed.clone();
    let middle = wrong.len() - 12;
    wrong[middle] ^= 1;
    for (body, said) in [
        (&packed[..packed.len() - 1], "ends too early"),
        (&packed[..30], "ends too early"),
        (text.as_bytes(), "does not begin as gzip does"),
        (&wrong, "checksum"),
        (&[&packed[..], b"more"].concat(), "behind its end"),
        (&frame(&[7, 7, 7, 7], 0, 0), "is broken"),
    ] {
        for (path, kind) in [(PATH, JSON), (files, FORM)] {
            let answer = send(&weir, path, &[kind, GZIP], body);
            assert_eq!(answer.status, 400, "{}", answer.text());
            let message = error_of(&answer)["message"].clone();
            assert!(message.as_str().unwrap().contains(said), "{message}");
        }
    }
    // A request without a body has nothing to unpack.
    let answer = ask(
        weir.addr,
        "GET",
        "/v1/models",
        &[("Content-Encoding", "br")],
        b"",
    );
    assert_eq!(answer.status, 200);
    assert_eq!(up.count(), 0);
    weir.idle(LIMIT);
}

#[test]
fn a_bomb_is_refused_at_the_limit_and_takes_no_memory() {
    let up = Upstream::start(|request| Format::OpenAi.answer(request, &["hi"]));
    let mut settings = config(Format::OpenAi, &up.url(), &["k"]);
    settings["max_body_bytes"] = json!(2_000_000);
    let weir = Weir::start(&settings);
    assert_eq!(weir.ask(&chat(MODEL, false)).status, 200);
    let before = weir.peak_rss_kib();
    // 1.9 MB that would become 300 MB.
    let bomb = bomb(1_900_000);
    let twice = gzip(&bomb[..1_000_000]);
    let double = ("Content-Encoding", "gzip, gzip");
    for (path, headers, body) in [
        (PATH, [JSON, GZIP], &bomb),
        (PATH, [JSON, double], &twice),
        ("/v1/files", [FORM, GZIP], &bomb),
        ("/ask", [JSON, GZIP], &bomb),
    ] {
        let begun = Instant::now();
        let answer = send(&weir, path, &headers, body);
        assert_eq!(answer.status, 413, "{}", answer.text());
        let shown: Value = answer.header("content-type").into();
        assert!(begun.elapsed() < LIMIT, "{path} {shown}");
    }
    // The limit is one of the packed body as well.
    let long = gzip(&vec![b' '; 2_100_000]);
    assert_eq!(send(&weir, PATH, &[JSON, GZIP], &long).status, 413);
    let after = weir.peak_rss_kib();
    assert!(
        after < before + 12_000,
        "{before} KiB before, {after} after"
    );
    assert_eq!(up.count(), 1);
    weir.idle(LIMIT);
}
