//! What compatible servers do differently, and what callers are told all the same: broken answers
//! are failures, whole answers are mended as streams are, calls are told apart, heartbeats of
//! others are left out, and strict servers get no more than they know.

use serde_json::{Value, json};

use crate::client::{Answer, chat};
use crate::completion::{Call, Completion, Streamed};
use crate::first_mile::error_of;
use crate::upstream::{Format, Reply, Upstream};
use crate::wait::LIMIT;
use crate::weir::{Weir, config, upstream};

fn chunk(delta: Value, finish: Value) -> String {
    let choice = json!({"index": 0, "delta": delta, "finish_reason": finish});
    event(
        json!({"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": "m",
        "choices": [choice]}),
    )
}

fn event(value: Value) -> String {
    format!("data: {value}\n\n")
}

fn stream(events: &[String]) -> Reply {
    Reply::stream()
        .events(events)
        .event("data: [DONE]\n\n")
        .end()
}

fn whole(message: Value, finish: Value) -> Value {
    json!({"id": "c-1", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}]})
}

fn weir(scripted: &Upstream, keys: &[&str]) -> Weir {
    let mut settings = config(Format::OpenAi, &scripted.url(), keys);
    settings["retries"] = json!(1);
    Weir::start(&settings)
}

fn streamed(reply: Reply) -> Streamed {
    let scripted = Upstream::always(reply);
    let weir = weir(&scripted, &["k"]);
    let streamed = weir.stream(&chat("up/m", true));
    weir.idle(LIMIT);
    streamed
}

fn asked(reply: Reply) -> Answer {
    let scripted = Upstream::always(reply);
    let weir = weir(&scripted, &["k"]);
    let answer = weir.ask(&chat("up/m", false));
    weir.idle(LIMIT);
    answer
}

fn call(id: &str, name: &str, arguments: &str) -> Call {
    Call {
        id: id.into(),
        name: name.into(),
        arguments: arguments.into(),
    }
}

#[test]
fn an_end_by_error_is_never_an_end() {
    let error = json!({"code": 502, "message": "their provider went away"});
    for word in [
        "error",
        "abort",
        "insufficient_system_resource",
        "network_error",
    ] {
        let told = streamed(stream(&[
            chunk(json!({"role": "assistant", "content": "half"}), Value::Null),
            chunk(json!({"content": ""}), word.into()),
        ]));
        assert_eq!(told.completion.content, "half");
        assert!(told.error.is_some() && !told.done, "{word}: {told:?}");
        assert_eq!(told.completion.finish, None);

        let answer = asked(Reply::json(
            200,
            &whole(json!({"role": "assistant", "content": "half"}), word.into()),
        ));
        assert_eq!(answer.status, 502, "{word}: {}", answer.text());
        assert_eq!(error_of(&answer)["code"], word);
    }
    // With words of its own beside the choice, whatever the finish reason is.
    let mut last: Value = serde_json::from_str(&chunk(json!({}), "stop".into())[6..]).unwrap();
    last["choices"][0]["error"] = error.clone();
    let told = streamed(stream(&[
        chunk(json!({"role": "assistant", "content": "half"}), Value::Null),
        event(last),
    ]));
    assert!(!told.done);
    assert_eq!(told.error.unwrap()["message"], "their provider went away");
    let mut body = whole(
        json!({"role": "assistant", "content": "half"}),
        "stop".into(),
    );
    body["choices"][0]["error"] = error;
    let answer = asked(Reply::json(200, &body));
    assert_eq!(answer.status, 502);
    assert_eq!(error_of(&answer)["message"], "their provider went away");
}

#[test]
fn an_answer_that_broke_before_it_began_is_asked_for_again() {
    let broken = stream(&[chunk(json!({"role": "assistant"}), "error".into())]);
    let fine = Format::OpenAi.stream(&["fine"]);
    let scripted = Upstream::queue([broken, fine]);
    let weir = weir(&scripted, &["k"]);
    let told = weir.stream(&chat("up/m", true));
    assert_eq!(told.completion.content, "fine");
    assert_eq!(scripted.count(), 2);
    weir.idle(LIMIT);
}

#[test]
fn an_answer_is_read_as_what_it_is() {
    let events = [
        chunk(json!({"role": "assistant", "content": "Hel"}), Value::Null),
        chunk(json!({"content": "lo"}), Value::Null),
        chunk(json!({}), "stop".into()),
        event(
            json!({"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": "m",
            "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}}),
        ),
    ];
    let text = events.concat();
    let done = format!("{text}data: [DONE]\n\n");
    let body = whole(
        json!({"role": "assistant", "content": "Hello"}),
        "stop".into(),
    );
    // Events, under either label, for callers of either kind.
    for reply in [
        stream(&events),
        Reply::whole(200, "application/json", done.clone()),
        Reply::whole(200, "text/plain", format!(": hello\n\n{done}")),
    ] {
        let answer = asked(reply.clone());
        assert_eq!(answer.status, 200, "{}", answer.text());
        let completion = Completion::whole(&answer.json());
        assert_eq!(completion.content, "Hello");
        assert_eq!(completion.finish.as_deref(), Some("stop"));
        assert_eq!(completion.usage.unwrap()["total_tokens"], 5);
        let told = streamed(reply);
        assert!(told.done && told.completion.content == "Hello", "{told:?}");
    }
    // JSON, under either label.
    for kind in ["application/json", "text/event-stream", "text/plain"] {
        let reply = Reply::whole(200, kind, body.to_string());
        let told = streamed(reply.clone());
        assert!(
            told.done && told.completion.content == "Hello",
            "{kind}: {told:?}"
        );
        let answer = asked(reply);
        assert_eq!(Completion::whole(&answer.json()).content, "Hello", "{kind}");
    }
    // A stream that breaks off is no answer, nor is an error in it.
    let cut = Reply::whole(200, "application/json", events[..2].concat());
    assert_eq!(asked(cut).status, 502);
    let error = event(json!({"error": {"message": "no", "code": 400}}));
    for kind in ["application/json", "text/event-stream"] {
        assert_eq!(asked(Reply::whole(200, kind, error.clone())).status, 400);
    }
}

#[test]
fn whole_answers_are_mended_as_streams_are() {
    let one =
        json!({"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}});
    for finish in [json!("stop"), json!(""), Value::Null] {
        let message = json!({"role": "assistant", "content": null, "tool_calls": [one]});
        let answer = asked(Reply::json(200, &whole(message, finish)));
        let completion = Completion::whole(&answer.json());
        assert_eq!(completion.finish.as_deref(), Some("tool_calls"));
        assert_eq!(completion.calls, [call("call_1", "f", "{}")]);
    }
    // Nothing but what was said.
    let bare = json!({"choices": [
        {"message": {"content": "a", "tool_calls": null}},
        {"message": {"tool_calls": [{"function": {"name": "f", "arguments": "{}"}},
            {"id": "", "function": {"name": "g", "arguments": "{}"}}]}, "finish_reason": "max_tokens"},
    ]});
    let answer = asked(Reply::json(200, &bare)).json();
    Completion::whole(&answer);
    assert!(answer["model"].is_string());
    for (at, finish) in ["stop", "length"].into_iter().enumerate() {
        let choice = &answer["choices"][at];
        assert_eq!(choice["index"], at);
        assert_eq!(choice["finish_reason"], finish);
        assert_eq!(choice["message"]["role"], "assistant");
        assert!(choice["message"].get("content").is_some());
    }
    assert!(answer["choices"][0]["message"].get("tool_calls").is_none());
    let calls = &answer["choices"][1]["message"]["tool_calls"];
    let ids: Vec<&str> = [0, 1].map(|at| calls[at]["id"].as_str().unwrap()).to_vec();
    assert!(
        ids[0] != ids[1] && ids.iter().all(|id| id.starts_with("call_")),
        "{ids:?}"
    );
    assert_eq!(calls[0]["type"], "function");
    // What fits is passed on byte by byte.
    let text = "{\"id\":\"c-1\", \"object\":\"chat.completion\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"a\",\"odd\":1.50},\"finish_reason\":\"stop\"}],\"more\":{}}";
    let answer = asked(Reply::whole(200, "application/json", text));
    assert_eq!(answer.text(), text);
}

fn calls_of(pieces: &[Value]) -> Vec<Call> {
    let mut events = vec![chunk(json!({"role": "assistant"}), Value::Null)];
    for piece in pieces {
        let list = if piece.is_array() {
            piece.clone()
        } else {
            json!([piece])
        };
        events.push(chunk(json!({"tool_calls": list}), Value::Null));
    }
    events.push(chunk(json!({}), "stop".into()));
    let told = streamed(stream(&events));
    assert_eq!(told.completion.finish.as_deref(), Some("tool_calls"));
    told.completion.calls
}

/// A piece of a call; members that are null are left out.
fn piece(index: Value, id: Value, name: Value, arguments: &str) -> Value {
    let mut piece = json!({"function": {"arguments": arguments}});
    for (key, value) in [("index", index), ("id", id)] {
        if !value.is_null() {
            piece[key] = value;
        }
    }
    if !name.is_null() {
        piece["function"]["name"] = name;
    }
    piece
}

#[test]
fn parallel_calls_stay_apart_and_are_named_once() {
    let null = Value::Null;
    let two = [call("a", "f", "{\"x\":1}"), call("b", "g", "{\"y\":2}")];
    // All with the same index: in one chunk, whole; in several; in pieces.
    let (a, b) = (
        piece(json!(0), json!("a"), json!("f"), "{\"x\":1}"),
        piece(json!(0), json!("b"), json!("g"), "{\"y\":2}"),
    );
    assert_eq!(calls_of(&[json!([a, b])]), two);
    assert_eq!(calls_of(&[a.clone(), b.clone()]), two);
    let pieces = [
        piece(json!(0), json!("a"), json!("f"), ""),
        piece(json!(0), null.clone(), null.clone(), "{\"x\":1}"),
        piece(json!(0), json!("b"), json!("g"), "{\"y\""),
        piece(json!(0), null.clone(), null.clone(), ":2}"),
    ];
    assert_eq!(calls_of(&pieces), two);
    // Id and name repeated with each piece, interleaved too.
    let pieces = [
        piece(json!(0), json!("a"), json!("f"), "{\"x\""),
        piece(json!(1), json!("b"), json!("g"), "{\"y\""),
        piece(json!(0), json!("a"), json!("f"), ":1}"),
        piece(json!(1), json!("b"), json!("g"), ":2}"),
    ];
    assert_eq!(calls_of(&pieces), two);
    // Indexes from 1 on, and none at all.
    let pieces = [
        piece(json!(1), json!("a"), json!("f"), "{\"x\":1}"),
        piece(json!(2), json!("b"), json!("g"), "{\"y\":2}"),
    ];
    assert_eq!(calls_of(&pieces), two);
    let pieces = [
        piece(null.clone(), json!("a"), json!("f"), "{\"x\":1}"),
        piece(null.clone(), json!("b"), json!("g"), "{\"y\":2}"),
    ];
    assert_eq!(calls_of(&pieces), two);
    // A name that comes in parts, and one behind the id.
    let pieces = [
        piece(json!(0), json!("a"), json!("get_"), ""),
        piece(json!(0), null.clone(), json!("it"), ""),
        piece(json!(0), null.clone(), null.clone(), "{}"),
    ];
    assert_eq!(calls_of(&pieces), [call("a", "get_it", "{}")]);
}

#[test]
fn calls_without_an_id_get_one_that_stays() {
    let null = Value::Null;
    let pieces = [
        piece(json!(0), null.clone(), json!("f"), "{\"x\""),
        piece(json!(0), null.clone(), null.clone(), ":1}"),
        piece(json!(0), null.clone(), json!("g"), "{}"),
    ];
    let calls = calls_of(&pieces);
    assert_eq!(calls.len(), 2, "{calls:?}");
    assert_eq!((&*calls[0].name, &*calls[0].arguments), ("f", "{\"x\":1}"));
    assert_eq!((&*calls[1].name, &*calls[1].arguments), ("g", "{}"));
    assert!(
        calls.iter().all(|call| call.id.starts_with("call_")),
        "{calls:?}"
    );
    assert_ne!(calls[0].id, calls[1].id);
    // Two in one chunk with one name and one index.
    let same = piece(json!(0), null, json!("f"), "{}");
    assert_eq!(calls_of(&[json!([same, same])]).len(), 2);
}

#[test]
fn heartbeats_and_empty_errors_of_others_say_nothing() {
    let hello = [
        chunk(json!({"role": "assistant", "content": "Hi"}), Value::Null),
        chunk(json!({"content": " there"}), Value::Null),
        chunk(json!({}), "stop".into()),
    ];
    for beat in [
        "data: : keepalive\n\n",
        "data::ping\n\n",
        "data:\n\n",
        "data: \"\"\n\n",
        "data: ping\n\n",
        "data: {\"type\":\"ping\"}\n\n",
        "data: {}\n\n",
        "event: ping\ndata:\n\n",
        ": x\n\n",
    ] {
        let mut events = vec![beat.to_owned()];
        for event in &hello {
            events.push(event.clone());
            events.push(beat.to_owned());
        }
        let told = streamed(stream(&events));
        assert!(told.done && told.error.is_none(), "{beat:?}: {told:?}");
        assert_eq!(told.completion.content, "Hi there", "{beat:?}");
    }
    for nothing in [json!({}), Value::Null, json!(""), json!(false)] {
        let mut first: Value = serde_json::from_str(&hello[0][6..]).unwrap();
        first["error"] = nothing.clone();
        let told = streamed(stream(&[event(first), hello[1].clone(), hello[2].clone()]));
        assert!(
            told.done && told.completion.content == "Hi there",
            "{told:?}"
        );
        let mut body = whole(json!({"role": "assistant", "content": "Hi"}), "stop".into());
        body["error"] = nothing;
        let answer = asked(Reply::json(200, &body));
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

#[test]
fn a_stream_has_one_id() {
    let odd = event(json!({"id": "", "object": "", "created": 0, "model": "", "choices": []}));
    let bare = event(json!({"choices": [{"index": 0, "finish_reason": null}]}));
    let other = chunk(json!({"content": "b"}), Value::Null).replace("c-1", "c-2");
    let scripted = Upstream::always(stream(&[
        odd,
        chunk(json!({"role": "assistant", "content": "a"}), Value::Null),
        bare,
        other,
        chunk(json!({}), "stop".into()),
    ]));
    let weir = weir(&scripted, &["k"]);
    let told = Streamed::read_relayed(weir.open_stream(&chat("up/m", true)).rest(LIMIT));
    assert!(told.done && told.completion.content == "ab", "{told:?}");
    weir.idle(LIMIT);
    let ids: std::collections::HashSet<&str> = told
        .chunks
        .iter()
        .map(|chunk| chunk["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    assert!(!ids.contains(""));
}

/// Refuses members of messages that the first servers of the format did not know.
fn strict_server() -> Upstream {
    Upstream::start(|request| {
        let body = request.json();
        let known = ["role", "content", "name", "tool_calls", "tool_call_id"];
        for (at, message) in body["messages"]
            .as_array()
            .into_iter()
            .flatten()
            .enumerate()
        {
            for key in message
                .as_object()
                .into_iter()
                .flatten()
                .map(|(key, _)| key)
            {
                if !known.contains(&&**key) {
                    let detail = json!([{"type": "extra_forbidden", "loc": ["body", "messages", at, key],
                        "msg": "Extra inputs are not permitted"}]);
                    return Reply::json(422, &json!({ "detail": detail }));
                }
            }
        }
        Format::OpenAi.answer(request, &["fine"])
    })
}

fn history() -> Value {
    let mut body = chat("up/m", false);
    body["messages"] = json!([
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", "refusal": null, "reasoning_content": "hm",
            "extra_content": {"google": {}}, "annotations": []},
        {"role": "user", "content": "c"},
    ]);
    body
}

#[test]
fn what_weir_added_is_taken_off_for_a_server_that_refuses_it_once() {
    let scripted = strict_server();
    let weir = weir(&scripted, &["k"]);
    for expected in [2, 3] {
        let answer = weir.ask(&history());
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(scripted.count(), expected);
    }
    let sent = scripted.requests().pop().unwrap().json();
    assert_eq!(
        sent["messages"][1],
        json!({"role": "assistant", "content": "b"})
    );
    // What the caller put there is the caller's to take off.
    let mut own = history();
    own["messages"][0]["odd"] = json!(1);
    let answer = weir.ask(&own);
    assert_eq!(answer.status, 422, "{}", answer.text());
    assert!(
        answer.text().contains("messages.0.odd"),
        "{}",
        answer.text()
    );
    assert_eq!(scripted.count(), 4);
    weir.idle(LIMIT);
}

#[test]
fn what_the_caller_put_there_itself_is_named_when_it_is_taken_off() {
    let scripted = strict_server();
    let weir = weir(&scripted, &["k"]);
    let mut body = history();
    body["messages"][0]["reasoning"] = json!("mine");
    let answer = weir.ask(&body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("x-weir-dropped"), Some("messages.reasoning"));
    weir.idle(LIMIT);
}

#[test]
fn a_refusal_that_is_about_something_else_takes_nothing_off() {
    // It is the request's own field, by the name of one that messages have as well.
    let scripted = Upstream::start(|request| match request.json().get("reasoning") {
        Some(_) => {
            let error =
                json!({"message": "unknown field `reasoning`", "type": "invalid_request_error"});
            Reply::json(400, &json!({ "error": error }))
        }
        None => Format::OpenAi.answer(request, &["fine"]),
    });
    let weir = weir(&scripted, &["k"]);
    let mut odd = history();
    odd["reasoning"] = json!({"effort": "low"});
    assert_eq!(weir.ask(&odd).status, 400);
    assert_eq!(scripted.count(), 2);
    // The server takes what weir adds, and goes on getting it.
    let answer = weir.ask(&history());
    assert_eq!(answer.status, 200, "{}", answer.text());
    let sent = scripted.requests().pop().unwrap().json();
    assert_eq!(sent["messages"], history()["messages"]);
    // Words that only sound like it are not tried again.
    let scripted = Upstream::always(Reply::json(
        400,
        &json!({"error": {"message": "reasoning effort high is not supported"}}),
    ));
    let weir = self::weir(&scripted, &["k"]);
    assert_eq!(weir.ask(&history()).status, 400);
    assert_eq!(scripted.count(), 1);
    weir.idle(LIMIT);
}

#[test]
fn a_choice_that_hit_a_limit_before_it_began_gives_way_to_another_key() {
    let mut broken: Value = serde_json::from_str(&chunk(json!({}), "error".into())[6..]).unwrap();
    broken["choices"][0]["error"] = json!({"code": 429, "message": "slow down"});
    let mut whole_one = whole(json!({"role": "assistant", "content": ""}), "error".into());
    whole_one["choices"][0]["error"] = broken["choices"][0]["error"].clone();
    for (stream_asked, limited) in [
        (true, stream(&[event(broken.clone())])),
        (false, Reply::json(200, &whole_one)),
        (false, stream(&[event(broken.clone())])),
    ] {
        let scripted = Upstream::start(move |request| match request.key.as_deref() {
            Some("a") => limited.clone(),
            _ => Format::OpenAi.answer(request, &["fine"]),
        });
        let weir = weir(&scripted, &["a", "b"]);
        for _ in 0..2 {
            let content = match stream_asked {
                true => weir.stream(&chat("up/m", true)).completion.content,
                false => Completion::whole(&weir.ask(&chat("up/m", false)).json()).content,
            };
            assert_eq!(content, "fine");
        }
        // The second request knows already.
        assert_eq!(scripted.count(), 3);
        weir.idle(LIMIT);
    }
}

#[test]
fn an_unasked_stream_that_breaks_is_asked_for_again_and_then_an_error() {
    let half = chunk(json!({"role": "assistant", "content": "Hel"}), Value::Null);
    let cut = Reply::stream().event(&half).end();
    let scripted = Upstream::queue([cut.clone(), Format::OpenAi.stream(&["fine"])]);
    let weir = weir(&scripted, &["k"]);
    let answer = weir.ask(&chat("up/m", false));
    assert_eq!(Completion::whole(&answer.json()).content, "fine");
    assert_eq!(scripted.count(), 2);
    weir.idle(LIMIT);
    let answer = asked(cut);
    assert_eq!(answer.status, 502, "{}", answer.text());
    assert_eq!(error_of(&answer)["code"], "upstream_disconnected");
}

#[test]
fn a_call_that_is_cut_off_is_an_error_whatever_follows() {
    let begun = piece(json!(0), json!("a"), json!("f"), "{\"x\":");
    let events = [
        chunk(json!({"role": "assistant"}), Value::Null),
        chunk(json!({"tool_calls": [begun]}), Value::Null),
    ];
    let told = streamed(stream(&events));
    assert!(told.error.is_some() && !told.done, "{told:?}");
    assert_eq!(told.completion.finish, None);
    assert_eq!(asked(stream(&events)).status, 502);
}

#[test]
fn strip_reaches_into_messages() {
    let scripted = strict_server();
    let mut up = upstream("up", Format::OpenAi, &scripted.url(), &["k"]);
    up["strip"] = json!([
        "messages[].refusal",
        "messages[].reasoning_content",
        "messages[].extra_content",
        "messages[].annotations",
        "user"
    ]);
    let mut settings = config(Format::OpenAi, &scripted.url(), &["k"]);
    settings["upstreams"] = json!([up]);
    let weir = Weir::start(&settings);
    let mut body = history();
    body["user"] = json!("u");
    assert_eq!(weir.ask(&body).status, 200);
    assert_eq!(scripted.count(), 1);
    assert!(scripted.requests()[0].json().get("user").is_none());
    weir.idle(LIMIT);
}

/// The form of calls that was there before tools.
#[test]
fn an_answer_that_calls_a_function_ended_with_it() {
    let function = json!({"name": "f", "arguments": "{}"});
    for finish in [json!("stop"), json!(""), Value::Null] {
        let message = json!({"role": "assistant", "content": null, "function_call": function});
        let answer = asked(Reply::json(200, &whole(message, finish.clone())));
        let choice = answer.json()["choices"][0].clone();
        assert_eq!(choice["finish_reason"], "function_call", "{finish}");
        assert_eq!(choice["message"]["function_call"], function);
        let mut events = vec![
            chunk(json!({"role": "assistant"}), Value::Null),
            chunk(json!({"function_call": function}), Value::Null),
        ];
        if finish == json!("stop") {
            events.push(chunk(json!({}), finish));
        }
        let told = streamed(stream(&events));
        assert_eq!(told.completion.finish.as_deref(), Some("function_call"));
    }
}
