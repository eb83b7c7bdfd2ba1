//! Requests that cannot go out as they are: the caller is told, nobody is asked, no key is blamed.

use serde_json::json;

use crate::client::{Answer, ask, chat};
use crate::first_mile::error_of;
use crate::passthrough::{FORM, JSON, form, post};
use crate::upstream::{Format, Reply, Upstream};
use crate::wait::LIMIT;
use crate::weir::{Weir, config};

fn start(format: Format) -> (Upstream, Weir) {
    let up = Upstream::start(move |request| match request.path.contains("files") {
        true => Reply::json(200, &json!({"path": request.path})),
        false => format.answer(request, &["hi"]),
    });
    let weir = Weir::start(&config(format, &up.url(), &["k1", "k2"]));
    (up, weir)
}

/// Nobody was asked, and no key is thought less of.
fn assert_harmless(up: &Upstream, weir: &Weir) {
    assert_eq!(up.count(), 0);
    let status = weir.idle(LIMIT);
    assert_eq!(status["health"], "fine", "{status}");
    for key in status["upstreams"][0]["keys"].as_array().unwrap() {
        assert_eq!(key["requests"], 0, "{key}");
        assert_eq!(key["failures_in_a_row"], 0, "{key}");
    }
    let metrics = crate::client::get(weir.addr, "/metrics").text();
    let mut errors = metrics
        .lines()
        .filter(|line| line.contains("transport_error"));
    assert!(errors.all(|line| line.ends_with(" 0")), "{metrics}");
}

#[test]
fn a_query_that_is_no_part_of_a_url_400_and_one_that_is_too_long_414() {
    let (up, weir) = start(Format::OpenAi);
    let files = |query: &str| ask(weir.addr, "GET", &format!("/v1/files?{query}"), &[], b"");
    let refused = |answer: &Answer, status: u16, code: &str| {
        assert_eq!(answer.status, status, "{}", answer.text());
        assert_eq!(error_of(answer)["code"], code);
    };
    for query in ["a=<b>", "a=b>c", "q=a#b<"] {
        let answer = files(query);
        refused(&answer, 400, "invalid_url");
    }
    refused(
        &files(&format!("a={}", "x".repeat(20_000))),
        414,
        "uri_too_long",
    );
    let long = "x".repeat(10_000);
    for name in ["OpenAI-Beta", "Idempotency-Key", "Range", "Accept"] {
        let answer = ask(weir.addr, "GET", "/v1/files", &[(name, &long)], b"");
        refused(&answer, 431, "header_too_long");
    }
    assert_harmless(&up, &weir);
    let most = format!("a={}", "x".repeat(8_000));
    // Whether this one may go out as it is, is a matter of taste.
    let quoted = files("a=\"b\"");
    assert!([200, 400].contains(&quoted.status), "{}", quoted.text());
    for query in ["limit=3&after=f%20%22", "a=[b]{c}|d^e`f'g", &most] {
        let answer = files(query);
        assert_eq!(answer.status, 200, "{query}: {}", answer.text());
        assert_eq!(answer.json()["path"], format!("/v1/files?{query}"));
    }
}

#[test]
fn a_model_whose_name_is_longer_than_any_400() {
    for format in [Format::Gemini, Format::OpenAi] {
        let (up, weir) = start(format);
        let long = format!("up/{}", "m".repeat(20_000));
        let longest = format!("up/{}", "m".repeat(1_000_000));
        for model in [&long, &longest] {
            let answers = [
                weir.ask(&chat(model, false)),
                post(
                    &weir,
                    "/v1/embeddings",
                    &json!({"model": model, "input": "a"}),
                ),
                post(
                    &weir,
                    "/v1/completions",
                    &json!({"model": model, "prompt": "a"}),
                ),
                post(
                    &weir,
                    "/v1/responses",
                    &json!({"model": model, "input": "a"}),
                ),
                ask(
                    weir.addr,
                    "POST",
                    "/v1/audio/transcriptions",
                    &[FORM],
                    &form(model, b"a", true),
                ),
            ];
            for answer in &answers {
                assert_eq!(answer.status, 400, "{}", answer.text());
                assert_eq!(error_of(answer)["param"], "model");
                assert!(answer.body.len() < 1_000, "{}", answer.body.len());
            }
        }
        let path = format!("/v1/models/{}", "m".repeat(20_000));
        let answer = ask(weir.addr, "GET", &path, &[], b"");
        assert_eq!((answer.status, answer.body.len() < 1_000), (404, true));
        assert_harmless(&up, &weir);
        // What is odd but short is a name like any other.
        let odd = "up/a b\"<>#?%\u{e9}/../x";
        assert_eq!(weir.ask(&chat(odd, false)).status, 200, "{format:?}");
    }
}

#[test]
fn nobody_is_told_to_wait_for_more_than_a_day() {
    for (status, wait) in [
        (503, "251606217866"),
        (429, "251606217866"),
        (502, "Fri, 31 Dec 9999 23:59:59 GMT"),
        (400, "Fri, 31 Dec 9999 23:59:59 GMT"),
    ] {
        let reply =
            Reply::json(status, &json!({"error": {"message": "no"}})).header("Retry-After", wait);
        let up = Upstream::always(reply);
        let mut settings = config(Format::OpenAi, &up.url(), &["k"]);
        settings["retries"] = json!(0);
        let weir = Weir::start(&settings);
        let relayed = |weir: &Weir| {
            ask(
                weir.addr,
                "POST",
                "/v1/responses",
                &[JSON],
                br#"{"model":"up/m"}"#,
            )
        };
        for answer in [
            weir.ask(&chat("up/m", false)),
            relayed(&weir),
            weir.ask(&chat("up/m", false)),
        ] {
            assert!(answer.status >= 400);
            if let Some(told) = answer.header("retry-after") {
                let told: u64 = told.parse().unwrap();
                assert!(told <= 86_400, "{status}: {told}");
            }
        }
    }
}
