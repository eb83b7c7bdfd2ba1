//! What must hold for any request and any upstream, tried with made-up ones.

use serde_json::{Value, json};

use super::{RelayStream, WholeRelay, encode};
use crate::dialect::openai::property_tests::{self, Dice};
use crate::dialect::openai::{Head, Stamp};
use crate::failure::Failure;
use crate::golden::each_event;
use crate::provider::{Flow, Options};

#[test]
fn any_request_stays_json_with_the_model_replaced() {
    let mut dice = Dice(3);
    for _ in 0..2_000 {
        let mut body = String::from("{ \"model\":\"m\" ,\"messages\":[1");
        for _ in 0..dice.roll(3) {
            body.push_str(&format!(" ,{}", property_tests::json(&mut dice, 5)));
        }
        body.push(']');
        for key in [
            "tools",
            "extra_body",
            "stream_options",
            "max_tokens",
            "temperature",
            "top_k",
        ] {
            if dice.roll(2) == 0 {
                body.push_str(&format!(
                    ",\"{key}\":{}",
                    property_tests::json(&mut dice, 4)
                ));
            }
        }
        body.push_str(" }");
        let Ok(head) = Head::read(body.as_bytes()) else {
            continue;
        };
        let options = Options {
            official: dice.roll(2) == 0,
            developer_as_system: true,
            strip: vec!["tools".into()],
            ..Options::default()
        };
        let model = dice.pick(&["gpt-4o", "o3", "a\"b"]);
        let encoded = encode(&head, model, &options).unwrap();
        let sent: serde_json::Result<&serde_json::value::RawValue> =
            serde_json::from_slice(&encoded.body);
        assert!(sent.is_ok(), "{body}");
        let sent = Head::read(&encoded.body);
        // An extra_body of chance may have spoilt what the head is made of, but not the model.
        assert!(sent.is_err() || sent.unwrap().model == model, "{body}");
    }
}

/// A chunk that is nearly right.
fn chunk(dice: &mut Dice) -> String {
    if dice.roll(20) == 0 {
        return property_tests::json(dice, 3);
    }
    let mut choices = Vec::new();
    for _ in 0..dice.pick(&[0, 1, 1, 1, 1, 2]) {
        let mut members = Vec::new();
        let index = dice.pick(&["0", "0", "0", "0", "1", "2", "500", "null"]);
        members.push(format!("\"index\":{index}"));
        let delta = match dice.roll(8) {
            0 => "null".into(),
            1 => property_tests::json(dice, 3),
            2 | 3 => "{\"role\":\"assistant\",\"content\":\"\"}".into(),
            4 | 5 => {
                let index = dice.pick(&["", "", "\"index\":0,", "\"index\":1,"]);
                let id = dice.pick(&["", "\"id\":\"a\",", "\"id\":\"b\","]);
                let name = dice.pick(&["", "\"name\":\"f\",", "\"name\":\"g\","]);
                let text = dice.pick(&["\"{}\"", "\"{\"", "\"}\"", "\"\"", "null", "{\"x\":1}"]);
                format!(
                    "{{\"tool_calls\":[{{{index}{id}\"function\":{{{name}\"arguments\":{text}}}}}]}}"
                )
            }
            _ => "{\"content\":\"x\\u2028\"}".into(),
        };
        members.push(format!("\"delta\":{delta}"));
        let finish = dice.pick(&["null", "null", "null", "\"\"", "\"stop\"", "\"odd\"", "7"]);
        members.push(format!("\"finish_reason\":{finish}"));
        members.swap(0, dice.roll(3) as usize);
        choices.push(format!("{{{}}}", members.join(" , ")));
    }
    let mut members = vec![format!("\"choices\":[{}]", choices.join(","))];
    for (key, values) in [
        ("id", &["\"x\"", "\"x\"", "\"y\"", "\"\"", "null"][..]),
        ("created", &["7", "7", "8", "0", "null"]),
        ("model", &["\"n\"", "\"n\"", "\"o\"", "\"\""]),
        ("object", &["\"chat.completion.chunk\""]),
        ("usage", &["null", "null", "{\"prompt_tokens\":1}", "7"]),
    ] {
        if dice.roll(8) != 0 {
            members.push(format!("\"{key}\":{}", dice.pick(values)));
        }
    }
    let last = dice.roll(members.len() as u64) as usize;
    members.swap(0, last);
    format!("{{{}}}", members.join(dice.pick(&[",", " ,\ndata:"])))
}

#[test]
fn any_stream_fails_or_becomes_well_formed() {
    let mut dice = Dice(4);
    let mut whole = 0;
    for _ in 0..2_000 {
        let mut stream = String::new();
        for _ in 0..dice.roll(8) {
            stream.push_str(&format!("data: {}\n\n", chunk(&mut dice)));
        }
        if dice.roll(2) == 0 {
            stream.push_str("data: [DONE]\n\n");
        }
        let stamp = Stamp {
            seed: 1,
            created: 1,
            model: "m".into(),
            include_usage: dice.roll(2) == 0,
            legacy_functions: false,
        };
        for official in [true, false] {
            let mut relay = RelayStream::new(stamp.clone(), official);
            let mut out = Vec::new();
            let flow = each_event(stream.as_bytes(), usize::MAX, |event| {
                relay.on_event(event, &mut out)
            });
            let ended = match flow {
                Ok(Flow::More) => relay.on_end(&mut out),
                other => other.map(|_| ()),
            };
            let out = String::from_utf8(out).unwrap();
            for event in out.split_terminator("\n\n") {
                let data = event.strip_prefix("data: ").unwrap();
                assert!(!data.contains(['\n', '\r']));
                let is_json = serde_json::from_str::<serde::de::IgnoredAny>(data).is_ok();
                assert!(is_json || data == "[DONE]", "{data}");
            }
            if ended.is_ok() {
                assert!(out.ends_with("data: [DONE]\n\n"));
                whole += 1;
            }
            if ended.is_ok() && !official {
                check_mended(&out);
            }
            if !official {
                check_whole(&stream, &stamp, ended.map(|()| out));
            }
        }
    }
    // Otherwise nothing of interest was tried.
    assert!(whole > 200, "{whole}");
}

/// A caller who wants the answer whole is told the same, or that it failed for the same reason.
fn check_whole(stream: &str, stamp: &Stamp, streamed: Result<String, Failure>) {
    let mut whole = WholeRelay::new(stamp.clone(), false, 1 << 20);
    let flow = each_event(stream.as_bytes(), usize::MAX, |event| whole.on_event(event));
    let ended = match flow {
        Ok(Flow::More) => whole.on_end(),
        other => other.map(|_| ()),
    };
    let chunks = match (streamed, ended) {
        (Ok(chunks), Ok(())) => chunks,
        (streamed, ended) => return assert_eq!(streamed.err(), ended.err(), "{stream}"),
    };
    let body = whole.take_body().expect("it was put together");
    let body: Value = serde_json::from_slice(&body).unwrap();
    for (at, choice) in body["choices"].as_array().unwrap().iter().enumerate() {
        let mut content = String::new();
        let mut calls: Vec<[String; 3]> = Vec::new();
        let mut finish = Value::Null;
        for data in chunks
            .lines()
            .filter_map(|line| line.strip_prefix("data: "))
        {
            let chunk = serde_json::from_str::<Value>(data).unwrap_or_default();
            let choices = chunk["choices"].as_array().into_iter().flatten();
            for piece in choices.filter(|choice| choice["index"] == at) {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                content.push_str(&text(&piece["delta"]["content"]));
                if piece["finish_reason"].is_string() {
                    finish = piece["finish_reason"].clone();
                }
                let list = piece["delta"]["tool_calls"].as_array();
                for call in list.into_iter().flatten() {
                    let index = call["index"].as_u64().unwrap() as usize;
                    if index == calls.len() {
                        calls.push(Default::default());
                    }
                    calls[index][0].push_str(&text(&call["id"]));
                    calls[index][1].push_str(&text(&call["function"]["name"]));
                    calls[index][2].push_str(&text(&call["function"]["arguments"]));
                }
            }
        }
        // A call behind the last word comes too late for a stream.
        let is_late = finish == "stop" && !calls.is_empty();
        let expected = if is_late { json!("tool_calls") } else { finish };
        assert_eq!(choice["finish_reason"], expected, "{stream}");
        let message = &choice["message"];
        assert_eq!(message["role"], "assistant", "{stream}");
        if message["content"].is_string() {
            assert_eq!(message["content"], content, "{stream}");
        }
        let told = message["tool_calls"].as_array();
        let told = told.into_iter().flatten().map(|call| {
            let text = |value: &Value| {
                value
                    .as_str()
                    .unwrap_or_else(|| panic!("{body}\n{stream}"))
                    .to_owned()
            };
            let function = &call["function"];
            let arguments = text(&function["arguments"]);
            [text(&call["id"]), text(&function["name"]), arguments]
        });
        for call in &mut calls {
            // Cut off before they came, they are missing in a stream.
            if call[2].is_empty() {
                call[2].push_str("{}");
            }
            assert!(!call[0].is_empty() && !call[1].is_empty(), "{stream}");
        }
        assert_eq!(told.collect::<Vec<_>>(), calls, "{stream}");
    }
}

/// Roles once and first, choices in order, one last word each, numbered calls.
fn check_mended(stream: &str) {
    let mut choices = 0;
    let mut name = None;
    for event in stream.split_terminator("\n\n") {
        let Ok(chunk) = serde_json::from_str::<Value>(&event["data: ".len()..]) else {
            continue;
        };
        assert!(
            chunk["id"].as_str().is_some_and(|id| !id.is_empty()),
            "{stream}"
        );
        let own = ["id", "created", "model", "object"].map(|key| chunk[key].clone());
        assert_eq!(name.get_or_insert_with(|| own.clone()), &own, "{stream}");
        for choice in chunk["choices"].as_array().unwrap() {
            let index = choice["index"].as_u64().unwrap();
            let delta = choice["delta"].as_object().unwrap();
            let has_role = delta.get("role").is_some_and(|role| role == "assistant");
            assert_eq!(has_role, index == choices, "{stream}");
            choices = choices.max(index + 1);
            let word = &choice["finish_reason"];
            let words = [
                "stop",
                "length",
                "tool_calls",
                "content_filter",
                "function_call",
            ];
            assert!(
                word.is_null() || words.contains(&word.as_str().unwrap()),
                "{stream}"
            );
            for call in delta
                .get("tool_calls")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                assert!(call["index"].is_u64(), "{stream}");
            }
        }
    }
}
