//! Pieces of tool calls, as servers send them and as callers' libraries put them together.

use serde_json::{Value, json};

use super::{Deltas, RelayStream, WholeRelay};
use crate::dialect::Streamed;
use crate::dialect::openai::{Chunks, Fold, Stamp};
use crate::failure::Failure;
use crate::golden::each_event;
use crate::provider::{Decoder, Flow};

fn stamp() -> Stamp {
    Stamp {
        seed: 1,
        created: 1,
        model: "m".into(),
        include_usage: false,
        legacy_functions: false,
    }
}

/// A stream of these deltas.
fn stream(deltas: &[Value], finish: Value, done: bool) -> String {
    let mut stream = String::new();
    let chunk = |delta: &Value, finish: &Value| {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": finish});
        let chunk = json!({"id": "x", "object": "chat.completion.chunk", "created": 7,
            "model": "n", "choices": [choice]});
        format!("data: {chunk}\n\n")
    };
    stream.push_str(&chunk(&json!({"role": "assistant"}), &Value::Null));
    for delta in deltas {
        stream.push_str(&chunk(delta, &Value::Null));
    }
    if !finish.is_null() {
        stream.push_str(&chunk(&json!({}), &finish));
    }
    if done {
        stream.push_str("data: [DONE]\n\n");
    }
    stream
}

type Told = (Vec<(String, String, String)>, String);

/// Calls (id, name, arguments) and finish reason, put together as the vendor's libraries do.
fn accumulated(out: &str) -> Told {
    let mut calls: Vec<(String, String, String)> = Vec::new();
    let mut finish = String::new();
    for line in out.lines().filter_map(|line| line.strip_prefix("data: ")) {
        let Ok(chunk) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        let choice = &chunk["choices"][0];
        if let Some(word) = choice["finish_reason"].as_str() {
            assert_eq!(finish, "", "{out}");
            finish = word.to_owned();
        }
        for piece in choice["delta"]["tool_calls"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let index = piece["index"].as_u64().unwrap() as usize;
            assert!(index <= calls.len(), "{out}");
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let function = &piece["function"];
            if index == calls.len() {
                assert!(
                    piece["id"].is_string() && piece["type"] == "function",
                    "{out}"
                );
                assert!(function["name"].is_string(), "{out}");
                calls.push(Default::default());
            }
            let call = &mut calls[index];
            call.0.push_str(&text(&piece["id"]));
            call.1.push_str(&text(&function["name"]));
            call.2.push_str(&text(&function["arguments"]));
        }
    }
    (calls, finish)
}

fn of_whole(body: &[u8]) -> Told {
    let body: Value = serde_json::from_slice(body).unwrap();
    let choice = &body["choices"][0];
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let calls = choice["message"]["tool_calls"].as_array();
    let calls = calls.into_iter().flatten().map(|call| {
        let function = &call["function"];
        assert!(call.get("index").is_none());
        (
            text(&call["id"]),
            text(&function["name"]),
            text(&function["arguments"]),
        )
    });
    (calls.collect(), text(&choice["finish_reason"]))
}

/// What callers are told, the same for those who stream, for those who do not, and for those who
/// speak another dialect.
fn told(stream: &str) -> Result<Told, Failure> {
    let mut relay = RelayStream::new(stamp(), false);
    let mut out = Vec::new();
    let flow = each_event(stream.as_bytes(), 7, |event| {
        relay.on_event(event, &mut out)
    });
    let streamed = flow.and_then(|flow| match flow {
        Flow::More => relay.on_end(&mut out),
        Flow::Done => Ok(()),
    });
    let streamed = streamed.map(|()| accumulated(std::str::from_utf8(&out).unwrap()));

    let mut whole = WholeRelay::new(stamp(), false, 1 << 20);
    let flow = each_event(stream.as_bytes(), 7, |event| whole.on_event(event));
    let ended = flow.and_then(|flow| match flow {
        Flow::More => whole.on_end(),
        Flow::Done => Ok(()),
    });
    let gathered = ended.map(|()| of_whole(&whole.take_body().unwrap()));
    assert_eq!(gathered, streamed);

    let mut deltas = Deltas::new(RelayStream::new(stamp(), false));
    let mut fold = Fold::new(stamp());
    let flow = each_event(stream.as_bytes(), 7, |event| {
        deltas.on_event(event, &mut fold)
    });
    let ended = flow.and_then(|flow| match flow {
        Flow::More => deltas.on_end(&mut fold),
        Flow::Done => Ok(()),
    });
    assert_eq!(ended.map(|()| of_whole(&fold.into_json())), streamed);
    streamed
}

fn calls(deltas: &[Value]) -> Vec<(String, String, String)> {
    let (calls, finish) = told(&stream(deltas, json!("stop"), true)).unwrap();
    assert_eq!(finish, "tool_calls");
    calls
}

/// A delta with the pieces `(index, id, name, arguments)`; null for what is missing.
fn pieces(pieces: &[(Value, &str, &str, Value)]) -> Value {
    let pieces = pieces.iter().map(|(index, id, name, arguments)| {
        let mut piece = json!({"function": {}});
        if !index.is_null() {
            piece["index"] = index.clone();
        }
        if !id.is_empty() {
            piece["id"] = json!(id);
        }
        if !name.is_empty() {
            piece["function"]["name"] = json!(name);
        }
        if !arguments.is_null() {
            piece["function"]["arguments"] = arguments.clone();
        }
        piece
    });
    json!({"tool_calls": pieces.collect::<Vec<_>>()})
}

fn piece(index: impl Into<Value>, id: &str, name: &str, arguments: &str) -> Value {
    pieces(&[(index.into(), id, name, json!(arguments))])
}

fn call(id: &str, name: &str, arguments: &str) -> (String, String, String) {
    (id.into(), name.into(), arguments.into())
}

#[test]
fn one_index_for_all_calls_tells_them_apart_by_their_ids() {
    let (a, b) = ("{\"a\":1}", "{\"b\":[2]}");
    let two = [call("a", "f", a), call("b", "f", b)];
    for deltas in [
        vec![pieces(&[
            (json!(0), "a", "f", json!(a)),
            (json!(0), "b", "f", json!(b)),
        ])],
        vec![piece(0, "a", "f", a), piece(0, "b", "f", b)],
        // In turns, by id.
        vec![
            piece(0, "a", "f", "{\"a\""),
            piece(0, "b", "f", "{\"b\":"),
            piece(0, "a", "", ":1}"),
            piece(0, "b", "", "[2]}"),
        ],
        vec![
            piece(0, "a", "f", "{\"a\""),
            piece(0, "b", "f", "{\"b\":"),
            piece(0, "a", "f", ":1}"),
            piece(0, "b", "f", "[2]}"),
        ],
        vec![
            piece(Value::Null, "a", "f", a),
            piece(Value::Null, "b", "f", b),
        ],
    ] {
        assert_eq!(calls(&deltas), two, "{deltas:?}");
    }
}

/// Libraries take a list as it is when they see it first.
#[test]
fn a_chunk_has_one_piece_of_a_call() {
    let piece = |id: &str, arguments: &str| json!({"index": 1, "id": id, "function": {"name": "f", "arguments": arguments}});
    for (calls, arguments) in [
        (json!([piece("a", "{"), piece("a", "}")]), "{}"),
        (json!([piece("a", "")]), "{}"),
    ] {
        let choice = json!({"index": 0, "delta": {"tool_calls": calls}, "finish_reason": "stop"});
        let text = format!("data: {}\n\ndata: [DONE]\n\n", json!({"choices": [choice]}));
        let mut relay = RelayStream::new(stamp(), false);
        let mut out = Vec::new();
        each_event(text.as_bytes(), 7, |event| relay.on_event(event, &mut out)).unwrap();
        let out = String::from_utf8(out).unwrap();
        assert_eq!(out.matches("\"arguments\"").count(), 1, "{out}");
        assert_eq!(accumulated(&out).0, [call("a", "f", arguments)], "{out}");
    }
}

#[test]
fn one_id_for_all_calls_tells_them_apart_by_their_indexes() {
    let deltas = [
        piece(0, "x", "f", "{\"a\""),
        piece(1, "x", "g", "{\"b\""),
        piece(0, "x", "", ":1}"),
        piece(1, "x", "", ":2}"),
    ];
    let told = calls(&deltas);
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(told[0], call("x", "f", "{\"a\":1}"));
    assert_eq!((&*told[1].1, &*told[1].2), ("g", "{\"b\":2}"));
    assert!(told[1].0.starts_with("call_"), "{told:?}");
}

#[test]
fn one_id_for_all_calls_without_indexes_tells_them_apart_by_their_names() {
    for index in [Value::Null, 0.into()] {
        let deltas = [
            piece(index.clone(), "x", "f", "{\"a\":1}"),
            piece(index.clone(), "x", "g", "{\"b\""),
            piece(index, "x", "", ":2}"),
        ];
        let told = calls(&deltas);
        assert_eq!(told.len(), 2, "{told:?}");
        assert_eq!(told[0], call("x", "f", "{\"a\":1}"));
        assert_eq!((&*told[1].1, &*told[1].2), ("g", "{\"b\":2}"));
    }
}

#[test]
fn ids_that_are_missing_late_or_change_do_not_tear_a_call_apart() {
    for (id, deltas) in [
        (None, [piece(0, "", "f", "{\"a\""), piece(0, "", "", ":1}")]),
        (
            None,
            [piece(0, "", "f", "{\"a\""), piece(0, "late", "", ":1}")],
        ),
        (
            None,
            [
                piece(Value::Null, "", "f", "{\"a\""),
                piece(Value::Null, "late", "", ":1}"),
            ],
        ),
        (
            Some("a"),
            [piece(0, "a", "f", "{\"a\""), piece(0, "b", "", ":1}")],
        ),
        (
            Some("a"),
            [piece(0, "a", "f", "{\"a\""), piece(0, "a", "f", ":1}")],
        ),
        (
            Some("a"),
            [piece(3, "a", "f", "{\"a\""), piece(3, "", "", ":1}")],
        ),
    ] {
        let told = calls(&deltas);
        assert_eq!(told.len(), 1, "{deltas:?}: {told:?}");
        assert_eq!((&*told[0].1, &*told[0].2), ("f", "{\"a\":1}"));
        match id {
            Some(id) => assert_eq!(told[0].0, id),
            None => assert!(told[0].0.starts_with("call_"), "{told:?}"),
        }
    }
}

#[test]
fn arguments_wait_for_the_name_of_their_call() {
    let deltas = [
        piece(0, "a", "", "{\"a\""),
        piece(0, "", "", ":1"),
        piece(0, "", "f", "}"),
        // A piece that is no call.
        piece(1, "", "", ""),
    ];
    assert_eq!(calls(&deltas), [call("a", "f", "{\"a\":1}")]);
    // A name in parts.
    let deltas = [
        piece(0, "a", "get_", ""),
        piece(0, "", "it", ""),
        piece(0, "", "", "{}"),
    ];
    assert_eq!(calls(&deltas), [call("a", "get_it", "{}")]);
    // None at all.
    let nameless = [piece(0, "a", "", "{}")];
    for finish in ["stop", "tool_calls"] {
        let failure = told(&stream(&nameless, json!(finish), true)).unwrap_err();
        assert_eq!(failure.code.as_deref(), Some("malformed_response"));
    }
    let long = vec![piece(0, "a", "", &"x".repeat(1 << 20)); 17];
    assert!(told(&stream(&long, json!("stop"), true)).is_err());
    let (calls, finish) = told(&stream(&nameless, json!("length"), true)).unwrap();
    assert_eq!((calls.len(), &*finish), (0, "length"));
}

#[test]
fn arguments_are_text_and_an_object() {
    for (arguments, expected) in [
        (json!({"a": {"b": 1}}), "{\"a\":{\"b\":1}}"),
        (json!({}), "{}"),
        (json!(""), "{}"),
        (Value::Null, "{}"),
        // What a model wrote stays what it was.
        (json!("{\"a\":"), "{\"a\":"),
    ] {
        let delta = pieces(&[(json!(0), "a", "f", arguments.clone())]);
        assert_eq!(calls(&[delta]), [call("a", "f", expected)], "{arguments}");
    }
    // One that was cut off is not made whole.
    let cut = [piece(0, "a", "f", "")];
    let mut relay = RelayStream::new(stamp(), false);
    let mut out = Vec::new();
    let text = stream(&cut, json!("length"), true);
    each_event(text.as_bytes(), 7, |event| relay.on_event(event, &mut out)).unwrap();
    let (calls, finish) = accumulated(std::str::from_utf8(&out).unwrap());
    assert_eq!((&*calls, &*finish), (&[call("a", "f", "")][..], "length"));
}

#[test]
fn a_stream_that_ends_between_a_call_and_its_arguments_is_broken() {
    let typed = |arguments: &str| {
        json!({"tool_calls": [{"index": 0, "id": "a", "type": "function",
            "function": {"name": "f", "arguments": arguments}}]})
    };
    for deltas in [
        vec![typed("")],
        vec![typed("{\"a\":\"}")],
        vec![typed("{\"a\":\"\\\"}")],
        vec![piece(0, "a", "f", "{\"a\":[1}"), piece(0, "", "", "")],
        vec![piece(0, "a", "", "{}")],
        vec![typed("{}"), piece(1, "b", "g", "{")],
    ] {
        for done in [true, false] {
            let failure = told(&stream(&deltas, Value::Null, done)).unwrap_err();
            assert_eq!(failure, Failure::disconnected(), "{deltas:?}");
        }
    }
    // Complete ones have only lost their last word.
    for arguments in ["{}", "{\"a\":\"\\\"}\\\\\"}", "{\"\\u0022\":[{}]}"] {
        let (calls, finish) = told(&stream(&[typed(arguments)], Value::Null, true)).unwrap();
        assert_eq!(
            (&*calls, &*finish),
            (&[call("a", "f", arguments)][..], "tool_calls")
        );
        assert!(told(&stream(&[typed(arguments)], Value::Null, false)).is_err());
    }
}

#[test]
fn custom_calls_take_any_text() {
    let delta = |piece: Value| json!({"tool_calls": [piece]});
    let deltas = [
        delta(
            json!({"index": 0, "id": "a", "type": "custom", "custom": {"name": "f", "input": "{"}}),
        ),
        delta(
            json!({"index": 0, "id": "a", "type": "custom", "custom": {"name": "f", "input": "x"}}),
        ),
    ];
    let mut relay = RelayStream::new(stamp(), false);
    let mut out = Vec::new();
    let text = stream(&deltas, Value::Null, true);
    each_event(text.as_bytes(), 7, |event| relay.on_event(event, &mut out)).unwrap();
    let out = String::from_utf8(out).unwrap();
    assert_eq!(out.matches("\"id\":\"a\"").count(), 1, "{out}");
    assert!(out.contains("{\"input\":\"x\"}"), "{out}");
    assert!(!out.contains("arguments"), "{out}");
    assert!(out.ends_with("data: [DONE]\n\n"));
    // The older form counts what it was told as well.
    let mut chunks = Chunks::new(stamp());
    let mut deltas = Deltas::new(RelayStream::new(stamp(), false));
    each_event(text.as_bytes(), 7, |event| {
        deltas.on_event(event, &mut chunks)
    })
    .unwrap();
    Streamed::finish(&mut chunks);
    let chunks = String::from_utf8(chunks.bytes().to_vec()).unwrap();
    assert!(chunks.contains("\"custom\":{\"name\":\"f\""), "{chunks}");
}

#[test]
fn more_calls_than_anyone_makes_are_bounded() {
    let many: Vec<Value> = (0..1100)
        .map(|n| piece(n, &format!("c{n}"), "f", "{}"))
        .collect();
    let (calls, _) = told(&stream(&many, json!("stop"), true)).unwrap();
    assert_eq!(calls.len(), 1024);
}

#[test]
fn arguments_behind_the_end_are_never_joined_to_what_stood_in_for_them() {
    let late = |arguments: &str| {
        let chunk = |delta: Value, finish: Value| {
            let choice = json!({"index": 0, "delta": delta, "finish_reason": finish});
            let chunk = json!({"id": "x", "object": "chat.completion.chunk", "created": 7,
                "model": "n", "choices": [choice]});
            format!("data: {chunk}\n\n")
        };
        let first = json!({"role": "assistant", "tool_calls": [{"index": 0, "id": "a",
            "type": "function", "function": {"name": "f", "arguments": ""}}]});
        let more = json!({"tool_calls": [{"index": 0, "function": {"arguments": arguments}}]});
        let end = "data: [DONE]\n\n";
        [
            &*chunk(first, Value::Null),
            &*chunk(json!({}), "tool_calls".into()),
            &*chunk(more, Value::Null),
            end,
        ]
        .concat()
    };
    let expected = (vec![call("a", "f", "{}")], "tool_calls".to_owned());
    assert_eq!(told(&late("{}")).unwrap(), expected);
    assert_eq!(told(&late("")).unwrap(), expected);
    let failure = told(&late("{\"a\":1}")).unwrap_err();
    assert_eq!(failure.code.as_deref(), Some("malformed_response"));
}

#[test]
fn a_chunk_that_calls_its_delta_a_message_is_heard() {
    let chunk = |choice: Value| {
        let chunk = json!({"id": "x", "object": "chat.completion.chunk", "created": 7,
            "model": "n", "choices": [choice]});
        format!("data: {chunk}\n\n")
    };
    let one = json!({"index": 0, "id": "a", "type": "function",
        "function": {"name": "f", "arguments": "{}"}});
    for calls in [json!([one]), one.clone()] {
        let message = json!({"role": "assistant", "content": null, "tool_calls": calls});
        let whole = chunk(json!({"index": 0, "message": message, "finish_reason": "tool_calls"}));
        let end = "data: [DONE]\n\n";
        let expected = (vec![call("a", "f", "{}")], "tool_calls".to_owned());
        assert_eq!(told(&[&*whole, end].concat()).unwrap(), expected);
        // Behind the pieces, it repeats them.
        let pieces = chunk(json!({"index": 0, "delta": message, "finish_reason": null}));
        assert_eq!(told(&[&*pieces, &*whole, end].concat()).unwrap(), expected);
    }
}

#[test]
fn a_stream_that_tells_of_a_call_and_of_nothing_else_is_broken() {
    for word in ["tool_calls", "function_call"] {
        for silent in [
            vec![],
            vec![json!({"role": "assistant"})],
            vec![
                json!({"role": "assistant", "content": null}),
                json!({"content": ""}),
            ],
            vec![json!({"content": "", "tool_calls": []})],
            vec![json!({"tool_calls": null, "reasoning": ""})],
        ] {
            let failure = told(&stream(&silent, word.into(), true)).unwrap_err();
            assert_eq!(
                failure.code.as_deref(),
                Some("malformed_response"),
                "{silent:?}"
            );
        }
        for said in [
            json!({"content": "x"}),
            json!({"role": "assistant", "refusal": "x"}),
            json!({"reasoning": "x"}),
            json!({"reasoning_content": "x"}),
        ] {
            let (calls, finish) = told(&stream(&[said], word.into(), true)).unwrap();
            assert_eq!(
                (calls.len(), &*finish),
                (0, "stop"),
                "agents wait for no call"
            );
        }
    }
}
