//! The tools held against each other: the client talks to the scripted upstream directly.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Client, End, Item, ask, chat, post, request};
use crate::completion::{Completion, Streamed};
use crate::upstream::{Format, Reply, USAGE, Upstream};
use crate::wait::LIMIT;

/// What the upstream is asked with. It looks for `stream` only.
fn openai(stream: bool) -> Value {
    chat("m", stream)
}

#[test]
fn a_whole_answer_arrives_and_the_request_is_remembered() {
    let upstream = Upstream::start(|request| Format::OpenAi.answer(request, &["Hel", "lo"]));
    let mut client = Client::connect(upstream.addr);
    for _ in 0..2 {
        let body = openai(false).to_string();
        let headers = [("Authorization", "Bearer k1"), ("X-Odd", "a: b")];
        client.send(&request("POST", "/x?y=1", &headers, body.as_bytes()));
        let answer = client.answer(LIMIT);
        assert_eq!(answer.status, 200);
        let completion = Completion::whole(&answer.json());
        assert_eq!(completion.content, "Hello");
        assert_eq!(completion.finish.as_deref(), Some("stop"));
        assert_eq!(completion.usage.unwrap()["total_tokens"], USAGE.2);
    }
    let requests = upstream.requests();
    assert_eq!((requests.len(), upstream.connections()), (2, 1));
    let second = &requests[1];
    assert_eq!(
        (second.method.as_str(), second.path.as_str()),
        ("POST", "/x?y=1")
    );
    assert_eq!(second.header("x-odd"), Some("a: b"));
    assert_eq!(second.json(), openai(false));
    assert_eq!(upstream.keys(), ["k1", "k1"]);
    assert_eq!(upstream.left(0), None);
    client.hang_up();
    upstream.wait_closed(0, LIMIT);
}

#[test]
fn a_stream_is_put_together_and_the_connection_stays() {
    let upstream = Upstream::start(|request| Format::OpenAi.answer(request, &["Hel", "lo"]));
    let mut client = Client::connect(upstream.addr);
    let mut body = openai(true);
    body["stream_options"] = json!({"include_usage": true});
    client.post(&body);
    let mut stream = client.stream(LIMIT);
    let streamed = Streamed::read(stream.rest(LIMIT));
    assert!(streamed.done && streamed.error.is_none());
    assert_eq!(streamed.completion.content, "Hello");
    // Role, two pieces, finish, usage; without the last where nobody asks.
    assert_eq!(streamed.chunks.len(), 5);
    assert_eq!(streamed.completion.usage.unwrap()["total_tokens"], USAGE.2);
    let mut client = stream.client;
    client.post(&openai(false));
    assert_eq!(client.answer(LIMIT).status, 200);
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn calls_are_the_same_whole_and_streamed() {
    let arguments = json!({"city": "Zürich", "n": [1, 2.5]});
    let upstream = Upstream::start(move |request| match request.wants_stream() {
        true => Format::OpenAi.stream_call("call_1", "weather", &arguments),
        false => Format::OpenAi.whole_call("call_1", "weather", &arguments),
    });
    let whole = Completion::whole(&post(upstream.addr, &openai(false)).json());
    let mut client = Client::connect(upstream.addr);
    client.post(&openai(true));
    let streamed = Streamed::read(client.stream(LIMIT).rest(LIMIT));
    assert_eq!(whole, streamed.completion);
    assert_eq!(whole.calls[0].name, "weather");
    assert_eq!(whole.finish.as_deref(), Some("tool_calls"));
}

#[test]
fn every_vendor_event_is_json_and_ends_with_its_blank_line() {
    let arguments = json!({"a": 1});
    for format in [
        Format::OpenAi,
        Format::Anthropic,
        Format::Gemini,
        Format::Responses,
    ] {
        let called = format.stream_call("c", "f", &arguments);
        let mut text = String::new();
        for step in &called.steps {
            text.push_str(&String::from_utf8(step.bytes().unwrap_or_default()).unwrap());
        }
        assert!(text.contains("\"f\""), "{format:?}: {text}");
        let events = format.events(&["a", "b"]);
        for event in &events {
            assert!(
                event.ends_with("\n\n") || event.ends_with("\r\n\r\n"),
                "{event:?}"
            );
            let data = event.lines().find_map(|line| line.strip_prefix("data: "));
            let data = data.expect("each event has data");
            assert!(
                data == "[DONE]" || serde_json::from_str::<Value>(data).is_ok(),
                "{data}"
            );
        }
        let first = &events[format.events_to_first_text() - 1];
        assert!(first.contains("\"a\""), "{format:?}: {first}");
    }
}

#[test]
fn a_gate_holds_the_answer_until_it_opens() {
    let reply = Reply::stream()
        .event("data: one\n\n")
        .gate("go")
        .event(": two\n\n")
        .event("data: three\ndata: lines\n\n")
        .end();
    let upstream = Upstream::always(reply);
    let mut client = Client::connect(upstream.addr);
    client.post(&openai(true));
    let mut stream = client.stream(LIMIT);
    let first = stream.next(LIMIT).unwrap();
    assert_eq!(first.item, Item::Data("one".into()));
    let opened = Instant::now();
    upstream.open("go");
    let (rest, end) = stream.rest(LIMIT);
    assert_eq!(end, End::Framed);
    assert!(first.at <= opened && rest[0].at >= opened);
    let items: Vec<_> = rest.into_iter().map(|arrived| arrived.item).collect();
    let expected = [
        Item::Comment("two".into()),
        Item::Data("three\nlines".into()),
    ];
    assert_eq!(items, expected);
}

#[test]
fn head_and_first_event_leave_in_one_piece() {
    let upstream = Upstream::always(Format::Gemini.stream(&["a"]));
    let mut client = Client::connect(upstream.addr);
    client.post(&openai(true));
    let read = String::from_utf8(client.first_read(LIMIT)).unwrap();
    assert!(read.contains("\r\n\r\n"), "{read}");
    assert!(read.contains("usageMetadata"), "{read}");
}

#[test]
fn a_stream_can_be_closed_and_reset() {
    let begun = Reply::stream().event("data: one\n\n");
    let upstream = Upstream::queue([begun.clone().close(), begun.gate("go").reset()]);
    for round in 0..2 {
        let mut client = Client::connect(upstream.addr);
        client.post(&openai(true));
        let mut stream = client.stream(LIMIT);
        assert_eq!(stream.data(LIMIT), "one");
        upstream.open("go");
        assert_eq!(stream.rest(LIMIT).1, End::Cut, "round {round}");
    }
    // It was the script that ended them.
    assert_eq!((upstream.left(0), upstream.left(1)), (None, None));
}

#[test]
fn a_request_can_be_cut_off_without_an_answer() {
    let upstream = Upstream::always(Reply::silence().reset());
    let mut client = Client::connect(upstream.addr);
    client.post(&openai(false));
    assert_eq!(client.until_closed(LIMIT), b"");
}

#[test]
fn the_upstream_sees_a_peer_leave_in_each_kind_of_pause() {
    let pauses = [
        Reply::silence().hang(),
        Reply::silence().gate("never"),
        Reply::silence().delay(Duration::from_secs(3600)),
        Reply::stream().event("data: one\n\n").hang(),
    ];
    let upstream = Upstream::queue(pauses);
    for connection in 0..4 {
        let mut client = Client::connect(upstream.addr);
        client.post(&openai(true));
        upstream.wait_requests(connection + 1, LIMIT);
        assert_eq!(upstream.left(connection), None);
        let left = Instant::now();
        match connection % 2 {
            0 => client.hang_up(),
            _ => client.reset(),
        }
        let seen = upstream.wait_closed(connection, LIMIT);
        assert!(seen - left < Duration::from_secs(1));
    }
}

#[test]
fn answers_by_key_and_in_turn() {
    let whole = |text: &str| Reply::whole(200, "text/plain", text);
    let upstream = Upstream::by_key([("a", whole("A")), ("b", whole("B"))]);
    let with = |header, value| ask(upstream.addr, "GET", "/", &[(header, value)], b"");
    assert_eq!(with("Authorization", "Bearer a").text(), "A");
    assert_eq!(with("x-api-key", "b").text(), "B");
    assert_eq!(with("x-goog-api-key", "c").status, 418);
    assert_eq!(upstream.keys(), ["a", "b", "c"]);

    let upstream = Upstream::queue([whole("1"), whole("2")]);
    let texts = [(); 3].map(|()| ask(upstream.addr, "GET", "/", &[], b"").text());
    assert_eq!(texts, ["1", "2", "the script has ended"]);
}

#[test]
fn a_chunked_request_in_pieces_is_read_whole() {
    let upstream = Upstream::always(Reply::whole(200, "text/plain", "ok"));
    let mut client = Client::connect(upstream.addr);
    let text = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: 1\r\n\r\n";
    for byte in text {
        client.send(std::slice::from_ref(byte));
    }
    assert_eq!(client.answer(LIMIT).text(), "ok");
    assert_eq!(upstream.requests()[0].body, b"abcde");
}

#[test]
fn nobody_listens_where_nobody_should() {
    let url = Upstream::nobody();
    let addr = url.strip_prefix("http://").unwrap();
    assert!(TcpStream::connect(addr).is_err());
}

#[test]
fn dropping_an_upstream_ends_what_hangs() {
    let upstream = Upstream::always(Reply::silence().gate("never"));
    let mut client = Client::connect(upstream.addr);
    client.post(&openai(true));
    let mut idle = Client::connect(upstream.addr);
    upstream.wait_requests(1, LIMIT);
    drop(upstream);
    client.until_closed(LIMIT);
    idle.until_closed(LIMIT);
}
