//! Answers of routes that are only passed on, where time and breaks are concerned: heartbeats in
//! streams of events, and what becomes of answers that break.

use std::time::Duration;

use serde_json::json;

use crate::client::{Answer, Client, End, Item, Stream, ask, get, request};
use crate::first_mile::error_of;
use crate::upstream::{Format, Reply, Step, Upstream};
use crate::wait::LIMIT;
use crate::weir::{Weir, config};

const JSON: (&str, &str) = ("Content-Type", "application/json");

/// Three of the intervals after which a heartbeat is due.
const SILENCE: Duration = Duration::from_millis(900);

fn post(weir: &Weir) -> Answer {
    let body = br#"{"model":"up/gpt-5","stream":true,"input":"x"}"#;
    ask(weir.addr, "POST", "/v1/responses", &[JSON], body)
}

fn open(weir: &Weir) -> Stream {
    let body = br#"{"model":"up/gpt-5","stream":true,"input":"x"}"#;
    let mut client = Client::connect(weir.addr);
    client.send(&request("POST", "/v1/responses", &[JSON], body));
    client.stream(LIMIT)
}

fn next(stream: &mut Stream) -> Item {
    stream.next(LIMIT).expect("the stream goes on").item
}

/// The next item that is no heartbeat.
fn event(stream: &mut Stream) -> Item {
    loop {
        match next(stream) {
            Item::Comment(text) => assert_eq!(text, "keep-alive"),
            item if item == later() => {}
            item => return item,
        }
    }
}

fn beat() -> Item {
    Item::Comment("keep-alive".into())
}

/// A heartbeat behind the first event: agents that speak Responses wait for events.
fn later() -> Item {
    Item::Odd("event: keepalive\ndata: {\"type\":\"keepalive\"}\n\n".into())
}

#[test]
fn a_relayed_stream_has_heartbeats_between_its_events_only() {
    let reply = Reply::stream()
        .header("openai-processing-ms", "5")
        .flush()
        .gate("first")
        .event("event: a\ndata: 1\n\n")
        .gate("half")
        .event("data: 2")
        .delay(SILENCE)
        .event("\n")
        .delay(SILENCE)
        .event("\n")
        .gate("end")
        .event("event: b\ndata: {\"usage\":{\"input_tokens\":3,\"output_tokens\":4}}\n\n")
        .end();
    let up = Upstream::always(reply);
    let weir = Weir::start(&config(Format::OpenAi, &up.url(), &["k"]));
    let mut stream = open(&weir);
    assert_eq!(
        stream.head.header("content-type"),
        Some("text/event-stream")
    );
    assert_eq!(stream.head.header("openai-processing-ms"), Some("5"));
    assert_eq!(stream.head.header("x-weir-upstream"), Some("up"));
    assert_eq!(next(&mut stream), beat());
    up.open("first");
    let first = Item::Odd("event: a\ndata: 1\n\n".into());
    assert_eq!(event(&mut stream), first);
    assert_eq!(next(&mut stream), later());
    up.open("half");
    // A heartbeat in the middle of it would be a part of its text.
    assert_eq!(event(&mut stream), Item::Data("2".into()));
    assert_eq!(next(&mut stream), later());
    up.open("end");
    assert!(matches!(event(&mut stream), Item::Odd(_)));
    let (rest, end) = stream.rest(LIMIT);
    assert_eq!((rest.len(), end), (0, End::Framed));
    let log = weir.wait_log("endpoint=responses", LIMIT);
    assert!(log.contains("prompt_tokens=3 completion_tokens=4"), "{log}");
    weir.idle(LIMIT);
}

#[test]
fn what_is_no_stream_of_events_is_passed_on_without_additions() {
    let headers = [
        ("Content-Type".to_owned(), "application/jsonl".to_owned()),
        ("Transfer-Encoding".to_owned(), "chunked".to_owned()),
    ];
    let reply = Reply::default()
        .then(Step::Head(200, headers.into()))
        .event("{\"a\":1}\n\n")
        .delay(SILENCE)
        .event("{\"b\":2}\n\n")
        .end();
    let up = Upstream::always(reply);
    let weir = Weir::start(&config(Format::OpenAi, &up.url(), &["k"]));
    let file = get(weir.addr, "/v1/files/f/content");
    assert_eq!(file.text(), "{\"a\":1}\n\n{\"b\":2}\n\n");
    weir.idle(LIMIT);
}

#[test]
fn an_answer_that_breaks_before_its_first_byte_is_asked_for_again() {
    let broken = Reply::whole(200, "application/json", "{}");
    let head = broken.steps.into_iter().take(1);
    let broken = head.fold(Reply::default(), Reply::then).flush().close();
    let up = Upstream::queue([broken, Reply::json(200, &json!({"ok": true}))]);
    let weir = Weir::start(&config(Format::OpenAi, &up.url(), &["k"]));
    let answer = post(&weir);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["ok"], true);
    assert_eq!(answer.header("x-weir-attempts"), Some("2"));
    weir.idle(LIMIT);
}

#[test]
fn a_stream_that_breaks_before_its_first_event_is_an_error_with_its_status() {
    let up = Upstream::always(Reply::stream().flush().close());
    let weir = Weir::start(&config(Format::OpenAi, &up.url(), &["k"]));
    let answer = post(&weir);
    assert_eq!(answer.status, 502, "{}", answer.text());
    assert_eq!(error_of(&answer)["code"], "upstream_disconnected");
    assert_eq!(answer.header("x-weir-upstream"), Some("up"));
    weir.wait_log("status=502", LIMIT);
    weir.idle(LIMIT);
}

#[test]
fn a_stream_that_breaks_after_a_heartbeat_says_so_and_is_cut() {
    let up = Upstream::always(Reply::stream().flush().gate("go").close());
    let weir = Weir::start(&config(Format::OpenAi, &up.url(), &["k"]));
    let mut stream = open(&weir);
    assert_eq!(next(&mut stream), beat());
    up.open("go");
    let Item::Odd(error) = event(&mut stream) else {
        panic!("no error event");
    };
    assert!(
        error.starts_with("event: error\ndata: {\"error\":"),
        "{error}"
    );
    let (rest, end) = stream.rest(LIMIT);
    assert_eq!((rest.len(), end), (0, End::Cut));
    weir.wait_log("status=502", LIMIT);
    weir.idle(LIMIT);
}

#[test]
fn a_stream_that_breaks_inside_an_event_is_cut_there() {
    let up = Upstream::always(Reply::stream().event("data: 1\n\ndata: 2").close());
    let weir = Weir::start(&config(Format::OpenAi, &up.url(), &["k"]));
    let mut client = Client::connect(weir.addr);
    let body = br#"{"model":"up/gpt-5","stream":true,"input":"x"}"#;
    client.send(&request("POST", "/v1/responses", &[JSON], body));
    let text = String::from_utf8(client.until_closed(LIMIT)).unwrap();
    assert!(text.ends_with("data: 1\n\ndata: 2\r\n"), "{text}");
    weir.idle(LIMIT);
}
