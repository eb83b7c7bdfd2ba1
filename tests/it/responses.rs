//! OpenAI's models that want the Responses format: when weir speaks it without being told to.

use serde_json::{Value, json};

use crate::client::{Client, chat, post};
use crate::completion::{Completion, Streamed};
use crate::upstream::{Format, Received, Reply, Upstream};
use crate::wait::LIMIT;
use crate::weir::{Weir, config};

/// An upstream that answers each address in its own format, after `refuse` had its say.
fn upstream(refuse: impl Fn(&Received) -> Option<Reply> + Send + Sync + 'static) -> Upstream {
    Upstream::start(move |request| {
        if let Some(refusal) = refuse(request) {
            return refusal;
        }
        let format = match request.path.ends_with("/responses") {
            true => Format::Responses,
            false => Format::OpenAi,
        };
        format.answer(request, &["from ", format.name()])
    })
}

fn weir(upstream: &Upstream, official: bool) -> Weir {
    let mut settings = config(Format::OpenAi, &upstream.url(), &["key-a"]);
    settings["retries"] = json!(0);
    settings["upstreams"][0]["official"] = json!(official);
    Weir::start(&settings)
}

fn paths(upstream: &Upstream) -> Vec<String> {
    let requests = upstream.requests();
    requests
        .into_iter()
        .map(|request| request.path.trim_start_matches("/v1").to_owned())
        .collect()
}

fn content(body: &Value) -> String {
    Completion::whole(body).content
}

#[test]
fn vector_33_a_model_that_asks_for_responses_gets_them_once_and_for_all() {
    let upstream = upstream(|request| {
        let words = "not supported in /v1/chat/completions. Please use /v1/responses instead.";
        let chat = request.path.ends_with("/chat/completions");
        let wanted = request.json()["model"] == "gpt-new";
        (chat && wanted).then(|| Format::OpenAi.error(400, "invalid_request_error", words))
    });
    let weir = weir(&upstream, false);
    let answer = post(weir.addr, &chat("gpt-new", false));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(content(&answer.json()), "from responses");
    assert_eq!(paths(&upstream), ["/chat/completions", "/responses"]);

    let mut client = Client::connect(weir.addr);
    client.post(&chat("gpt-new", true));
    let streamed = Streamed::read(client.stream(LIMIT).rest(LIMIT));
    assert_eq!(streamed.completion.content, "from responses");
    assert!(streamed.done);
    assert_eq!(paths(&upstream)[2..], ["/responses"], "remembered");

    let answer = post(weir.addr, &chat("gpt-other", false));
    assert_eq!(content(&answer.json()), "from openai");
    assert_eq!(paths(&upstream)[3..], ["/chat/completions"]);
    weir.idle(LIMIT);
}

#[test]
fn a_model_that_only_asks_is_not_asked_for_ever() {
    let upstream = upstream(|request| {
        let words = match request.path.ends_with("/responses") {
            true => "use /v1/responses instead (from there)",
            false => "use /v1/responses instead",
        };
        Some(Format::OpenAi.error(400, "invalid_request_error", words))
    });
    let weir = weir(&upstream, false);
    let answer = post(weir.addr, &chat("gpt-new", false));
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("(from there)"), "{}", answer.text());
    assert_eq!(upstream.count(), 2);
    weir.idle(LIMIT);
}

#[test]
fn the_vendors_models_are_known_before_they_ask() {
    let upstream = upstream(|_| None);
    let weir = weir(&upstream, true);
    let tools = json!([{"type": "function", "function": {"name": "f"}}]);
    for (model, extra, expected) in [
        ("gpt-5.2-pro", json!({}), "/responses"),
        ("gpt-5.6", json!({}), "/chat/completions"),
        ("gpt-5.6", json!({"tools": tools}), "/responses"),
        (
            "gpt-5.6",
            json!({"tools": tools, "reasoning_effort": "none"}),
            "/chat/completions",
        ),
        ("gpt-5.4", json!({"tools": tools}), "/chat/completions"),
        (
            "gpt-5.4",
            json!({"tools": tools, "reasoning_effort": "low"}),
            "/responses",
        ),
    ] {
        let mut body = chat(model, false);
        for (key, value) in extra.as_object().unwrap() {
            body[key] = value.clone();
        }
        let before = upstream.count();
        let answer = post(weir.addr, &body);
        assert_eq!(answer.status, 200, "{model} {extra}: {}", answer.text());
        assert_eq!(paths(&upstream)[before..], [expected], "{model} {extra}");
    }
    weir.idle(LIMIT);
}

#[test]
fn a_summary_that_is_refused_is_not_asked_for_again() {
    let upstream = upstream(|request| {
        let words = "Your organization must be verified to generate reasoning summaries.";
        request.json()["reasoning"]["summary"]
            .is_string()
            .then(|| Format::OpenAi.error(400, "invalid_request_error", words))
    });
    let weir = weir(&upstream, true);
    let mut body = chat("o3-pro", false);
    body["reasoning_effort"] = json!("high");
    for expected in [2, 3] {
        let answer = post(weir.addr, &body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(content(&answer.json()), "from responses");
        assert_eq!(upstream.count(), expected);
    }
    let last = &upstream.requests()[2].json()["reasoning"];
    assert_eq!(*last, json!({"effort": "high"}));
    weir.idle(LIMIT);
}
