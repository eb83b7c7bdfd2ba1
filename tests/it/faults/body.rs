//! Bodies that are not what they should be: damaged events, huge ones, bytes cut anywhere.

use serde_json::json;

use super::{FORMATS, Fate, PIECES, always, begun, broken, check, start, whole_body};
use crate::client::{Client, chat};
use crate::completion::{Completion, Streamed};
use crate::upstream::{Format, Reply, Step, Upstream};
use crate::wait::LIMIT;
use crate::weir::{Weir, config, upstream};

#[test]
fn a_damaged_event_in_the_middle_is_an_error_event() {
    check(
        |format, streams| match streams {
            true => {
                let reply = begun(format, true).event("data: {\"type\": \"cont\n\n");
                let rest = &format.events(&PIECES)[format.events_to_first_text()..];
                reply.events(rest).end()
            }
            false => Reply::whole(200, "application/json", &whole_body(format)[..40]),
        },
        broken("malformed_response"),
    );
}

/// An answer that says `text`, as the caller gets it.
fn says(format: Format, streams: bool, text: &str) -> Reply {
    match streams {
        true => format.stream(&[text]),
        false => format.whole(text),
    }
}

#[test]
fn an_event_of_16_mb_arrives_whole() {
    let text = "z".repeat(16 << 20);
    for format in FORMATS {
        // Made before it is asked for: a build with checks takes seconds for it on a busy machine,
        // which is the upstream's time and not weir's.
        let replies = [false, true].map(|streams| says(format, streams, &text));
        let scripted =
            Upstream::start(move |request| replies[usize::from(request.wants_stream())].clone());
        let mut up = upstream("up", format, &scripted.url(), &["k"]);
        for timer in ["first_byte_ms", "idle_ms"] {
            up[timer] = LIMIT.as_millis().to_string().parse().unwrap();
        }
        let weir = start(vec![up]);
        for streams in [false, true] {
            let mut client = Client::connect(weir.addr);
            client.post(&chat(&format!("up/{}", format.model()), streams));
            let answer = client.answer(3 * LIMIT);
            assert_eq!(answer.status, 200, "{format:?} {streams}");
            let content = match streams {
                true => Streamed::of_body(&answer.text()).completion.content,
                false => Completion::whole(&answer.json()).content,
            };
            assert!(content == text, "{format:?} {streams}: {}", content.len());
        }
        assert_eq!(scripted.count(), 2);
        weir.idle(LIMIT);
    }
}

#[test]
fn an_event_over_the_limit_ends_with_an_error_and_is_not_read_on() {
    let text = "z".repeat(6 << 20);
    for format in FORMATS {
        let text = text.clone();
        let scripted = Upstream::start(move |request| says(format, request.wants_stream(), &text));
        let mut settings = config(format, &scripted.url(), &["k"]);
        settings["max_answer_bytes"] = json!(4 << 20);
        settings["keepalive_ms"] = json!(60_000);
        let weir = Weir::start(&settings);
        let answer = weir.ask(&chat(&format!("up/{}", format.model()), true));
        // OpenAI's first event, the role, is passed on before the long one comes.
        let told = answer.text();
        assert!(told.contains("malformed_response"), "{format:?}: {told}");
        assert!(!told.contains("[DONE]"), "{format:?}: {told}");
        assert!(weir.rss_kib() < 60 * 1024, "{} KiB", weir.rss_kib());
        scripted.wait_closed(0, LIMIT);
        weir.idle(LIMIT);
    }
}

#[test]
fn bytes_and_line_ends_cut_anywhere_make_no_difference() {
    check(
        |format, streams| {
            if !streams {
                let body = whole_body(format);
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                );
                let bytes = [head.into_bytes(), body].concat();
                return bytes
                    .iter()
                    .fold(Reply::silence(), |reply, byte| reply.raw([*byte]).flush());
            }
            let text = format.events(&PIECES).concat().replace("\r\n", "\n");
            let mut reply = Reply::stream();
            for byte in text.replace('\n', "\r\n").bytes() {
                reply = reply.then(Step::Chunk(vec![byte])).flush();
            }
            reply.end()
        },
        always(Fate::Fine),
    );
}

#[test]
fn a_content_length_longer_than_the_body_is_a_cut() {
    check(
        |format, streams| {
            let (kind, body) = match streams {
                true => {
                    let events = &format.events(&PIECES)[..format.events_to_first_text()];
                    ("text/event-stream", events.concat().into_bytes())
                }
                false => ("application/json", whole_body(format)),
            };
            lengthy(kind, body.len() + 100, &body).close()
        },
        broken("upstream_disconnected"),
    );
}

#[test]
fn a_content_length_shorter_than_the_body_is_no_answer() {
    check(
        |format, streams| {
            let (kind, body) = match streams {
                true => {
                    let events = &format.events(&PIECES)[..format.events_to_first_text()];
                    let length = events.concat().len();
                    let whole = format.events(&PIECES).concat();
                    return lengthy("text/event-stream", length, whole.as_bytes()).close();
                }
                false => ("application/json", whole_body(format)),
            };
            lengthy(kind, body.len() - 20, &body).close()
        },
        |form| match form.streams {
            true => Fate::Breaks("upstream_disconnected"),
            false => Fate::Fails(502, ""),
        },
    );
}

fn lengthy(kind: &str, length: usize, body: &[u8]) -> Reply {
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n");
    Reply::silence().raw(head).raw(body).flush()
}

#[test]
fn chunks_that_are_none_end_with_an_error_event() {
    for bad in [
        "zz\r\n",
        "-5\r\nhello\r\n",
        "3\r\nabcdef\r\n",
        "ffffffffffffffffff\r\n",
    ] {
        check(
            move |format, streams| match streams {
                true => begun(format, true).raw(bad).flush().close(),
                false => Reply::silence()
                    .raw("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
                    .raw("Transfer-Encoding: chunked\r\n\r\n")
                    .raw(bad)
                    .close(),
            },
            always(Fate::Ends("upstream_disconnected")),
        );
    }
}
