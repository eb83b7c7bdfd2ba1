//! Behaviour section 3: each row of its table with one key and with several, whole and streamed.
//! Which keys were tried and how often, what the caller is told, and that no lease is lost.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::client::{Answer, chat};
use crate::completion::Completion;
use crate::first_mile::error_of;
use crate::upstream::{Format, Reply, Upstream};
use crate::wait::LIMIT;
use crate::weir::{Weir, config, upstream};

/// Counted retries of these tests: three attempts.
const RETRIES: usize = 2;

/// The keys where there are several.
const SEVERAL: [&str; 3] = ["key-a", "key-b", "key-c"];

/// What an upstream that always answers the same leads to.
struct Case {
    name: &'static str,
    format: Format,
    reply: Reply,
    /// Attempts with one key, and with `SEVERAL`.
    attempts: (usize, usize),
    status: u16,
    /// `code`, where it is promised.
    code: Option<&'static str>,
}

/// A case whose upstream answers with an error of OpenAI's shape.
fn case(
    name: &'static str,
    upstream: (u16, &'static str),
    attempts: (usize, usize),
    status: u16,
    code: Option<&'static str>,
) -> Case {
    Case {
        name,
        format: Format::OpenAi,
        reply: Format::OpenAi.error(upstream.0, upstream.1, "their words"),
        attempts,
        status,
        code,
    }
}

/// A configuration in which only the retries are of interest.
fn settings(upstreams: Vec<Value>) -> Value {
    let mut settings = config(Format::OpenAi, "http://127.0.0.1:1", &[]);
    settings["upstreams"] = upstreams.into();
    settings["retries"] = json!(RETRIES);
    settings
}

/// Runs every case four ways, each against an upstream of its own, all behind one weir.
fn check(cases: Vec<Case>) {
    let mut runs = Vec::new();
    let mut upstreams = Vec::new();
    for case in &cases {
        for keys in [&SEVERAL[..1], &SEVERAL[..]] {
            for stream in [false, true] {
                let scripted = Upstream::always(case.reply.clone());
                let name = format!("{}-{}-{stream}", case.name, keys.len());
                upstreams.push(upstream(&name, case.format, &scripted.url(), keys));
                runs.push((case, keys, stream, name, scripted));
            }
        }
    }
    let weir = Weir::start(&settings(upstreams));
    for (case, keys, stream, name, scripted) in &runs {
        let answer = weir.ask(&chat(&format!("{name}/{}", case.format.model()), *stream));
        let attempts = match keys.len() {
            1 => case.attempts.0,
            _ => case.attempts.1,
        };
        let tried = scripted.keys();
        assert_eq!(tried.len(), attempts, "{name}: {tried:?} {}", answer.text());
        // No key twice while there is another one.
        let distinct: HashSet<&String> = tried.iter().collect();
        assert_eq!(
            distinct.len(),
            attempts.min(keys.len()),
            "{name}: {tried:?}"
        );

        assert_eq!(answer.status, case.status, "{name}: {}", answer.text());
        let error = error_of(&answer);
        if let Some(code) = case.code {
            assert_eq!(error["code"], code, "{name}");
        }
        check_words(case, name, &answer, &error);
        let told = answer.header("x-weir-attempts").map(str::to_string);
        assert_eq!(told, Some(attempts.to_string()), "{name}");
        assert_eq!(answer.header("x-weir-upstream"), Some(name.as_str()));
    }
    weir.idle(LIMIT);
    let log = weir.log();
    assert!(!SEVERAL.iter().any(|key| log.contains(key)), "{log}");
}

/// The upstream's words arrive, our secrets do not, and a wait is named where one helps.
fn check_words(case: &Case, name: &str, answer: &Answer, error: &Value) {
    let message = error["message"].as_str().unwrap();
    assert!(!message.is_empty(), "{name}");
    if String::from_utf8_lossy(&case.reply.steps[1].bytes().unwrap_or_default())
        .contains("their words")
    {
        assert!(message.contains("their words"), "{name}: {message}");
    }
    if case.code == Some("upstream_key_refused") {
        assert!(message.contains(name), "no upstream in {message}");
    }
    for secret in SEVERAL {
        assert!(!answer.text().contains(secret), "{name}: {message}");
    }
    if case.status == 429 {
        let wait = answer.header("retry-after").map(str::parse::<u64>);
        assert!(
            matches!(wait, Some(Ok(1..))),
            "{name}: {:?}",
            answer.headers
        );
    }
}

#[test]
fn a_request_at_fault_is_tried_once() {
    let once = (1, 1);
    check(vec![
        case(
            "bad",
            (400, "invalid_value"),
            once,
            400,
            Some("invalid_value"),
        ),
        case(
            "long",
            (400, "context_length_exceeded"),
            once,
            400,
            Some("context_length_exceeded"),
        ),
        case("policy", (400, "content_policy_violation"), once, 400, None),
        case("lost", (404, "no_such_thing"), once, 404, None),
        case("method", (405, "m"), once, 405, None),
        case("conflict", (409, "m"), once, 409, None),
        case("large", (413, "m"), once, 413, None),
        case("media", (415, "m"), once, 415, None),
        case("entity", (422, "m"), once, 422, None),
    ]);
}

#[test]
fn a_missing_model_is_not_asked_for_again() {
    let reply = Format::Gemini.error(
        404,
        "not_found",
        "models/x is not found for API version v1beta, or is not supported. their words",
    );
    let gemini = Case {
        name: "gemini",
        format: Format::Gemini,
        reply,
        attempts: (1, 3),
        status: 404,
        code: Some("model_not_found"),
    };
    let reply = Format::Anthropic.error(404, "not_found_error", "model: their words");
    let anthropic = Case {
        name: "anthropic",
        format: Format::Anthropic,
        reply,
        ..gemini_like(&gemini)
    };
    check(vec![
        case(
            "openai",
            (404, "model_not_found"),
            (1, 3),
            404,
            Some("model_not_found"),
        ),
        gemini,
        anthropic,
    ]);
}

/// The same expectations for another upstream.
fn gemini_like(case: &Case) -> Case {
    Case {
        name: case.name,
        format: case.format,
        reply: case.reply.clone(),
        ..*case
    }
}

#[test]
fn a_bad_key_gives_way_to_the_others() {
    let code = Some("upstream_key_refused");
    let invalid = json!({"error": {"code": 400, "message": "API key not valid. their words",
        "status": "INVALID_ARGUMENT", "details": [{
            "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]}});
    let gemini = Case {
        name: "gemini",
        format: Format::Gemini,
        reply: Reply::json(400, &invalid),
        attempts: (1, 3),
        status: 502,
        code,
    };
    let spent = "You have reached your specified API usage limits. their words";
    let anthropic = Case {
        name: "anthropic",
        format: Format::Anthropic,
        reply: Format::Anthropic.error(400, "invalid_request_error", spent),
        ..gemini_like(&gemini)
    };
    check(vec![
        case("wrong", (401, "invalid_api_key"), (1, 3), 502, code),
        case("unpaid", (402, "billing_error"), (1, 3), 502, code),
        case("closed", (403, "account_deactivated"), (1, 3), 502, code),
        case("spent", (429, "insufficient_quota"), (1, 3), 502, code),
        gemini,
        anthropic,
    ]);
}

#[test]
fn a_rate_limit_gives_way_to_the_others_and_is_not_counted() {
    let limited = Case {
        name: "gemini",
        format: Format::Gemini,
        reply: Format::Gemini.error(429, "resource_exhausted", "their words"),
        attempts: (1, 3),
        status: 429,
        code: Some("rate_limit_exceeded"),
    };
    let anthropic = Case {
        name: "anthropic",
        format: Format::Anthropic,
        reply: Format::Anthropic.error(429, "rate_limit_error", "their words"),
        ..gemini_like(&limited)
    };
    check(vec![
        case(
            "openai",
            (429, "rate_limit_exceeded"),
            (1, 3),
            429,
            Some("rate_limit_exceeded"),
        ),
        limited,
        anthropic,
    ]);
}

/// Another key each time, and counted as retries: three attempts in all.
#[test]
fn a_refusal_without_a_reason_gives_way_to_the_others_and_is_counted() {
    let page = "<html><title>their words</title></html>";
    let bare = Case {
        name: "page",
        format: Format::OpenAi,
        reply: Reply::whole(403, "text/html", page),
        attempts: (1, 1 + RETRIES),
        status: 403,
        code: Some("upstream_refused"),
    };
    let three = (1, 1 + RETRIES);
    check(vec![
        case(
            "forbidden",
            (403, "permission_denied"),
            three,
            403,
            Some("permission_denied"),
        ),
        case("unpaid", (402, "billing"), three, 402, Some("billing")),
        case("unauthorized", (401, "m"), three, 502, Some("m")),
        bare,
    ]);
}

#[test]
fn what_an_upstream_will_never_do_is_tried_once() {
    check(vec![
        case("never", (501, "m"), (1, 1), 501, None),
        case("version", (505, "m"), (1, 1), 505, None),
        case(
            "unsupported",
            (500, "not_supported_error"),
            (1, 1),
            500,
            None,
        ),
    ]);
}

#[test]
fn trouble_of_the_server_is_tried_again_and_counted() {
    let counted = (1 + RETRIES, 1 + RETRIES);
    let page = "<html><title>their words</title></html>";
    let gateway = Case {
        name: "page",
        format: Format::OpenAi,
        reply: Reply::whole(502, "text/html", page),
        attempts: counted,
        status: 502,
        code: None,
    };
    let overloaded = Case {
        name: "anthropic",
        format: Format::Anthropic,
        reply: Format::Anthropic.error(529, "overloaded_error", "their words"),
        status: 503,
        code: Some("overloaded"),
        ..gemini_like(&gateway)
    };
    check(vec![
        case("timeout", (408, "m"), counted, 408, None),
        case("internal", (500, "m"), counted, 500, None),
        case("unavailable", (503, "m"), counted, 503, None),
        case("late", (504, "m"), counted, 504, None),
        case("cloud", (520, "m"), counted, 520, None),
        case("overloaded", (529, "m"), counted, 503, None),
        gateway,
        overloaded,
    ]);
}

#[test]
fn an_answer_with_nothing_in_it_is_trouble_of_the_server() {
    let counted = (1 + RETRIES, 1 + RETRIES);
    let nothing = Case {
        name: "nothing",
        format: Format::OpenAi,
        reply: Reply::whole(200, "application/json", ""),
        attempts: counted,
        status: 502,
        code: None,
    };
    let gemini = Case {
        name: "gemini",
        format: Format::Gemini,
        reply: Reply::json(200, &json!({"usageMetadata": {"promptTokenCount": 3}})),
        ..gemini_like(&nothing)
    };
    let page = Case {
        name: "page",
        reply: Reply::whole(200, "text/html", "<html><title>Login</title></html>"),
        ..gemini_like(&nothing)
    };
    let inside = Case {
        name: "error-in-200",
        reply: Format::OpenAi.error(200, "server_error", "their words"),
        status: 500,
        ..gemini_like(&nothing)
    };
    check(vec![nothing, gemini, page, inside]);
}

#[test]
fn a_connection_that_breaks_before_the_answer_is_tried_again() {
    let counted = (1 + RETRIES, 1 + RETRIES);
    let reset = Case {
        name: "reset",
        format: Format::OpenAi,
        reply: Reply::silence().flush().reset(),
        attempts: counted,
        status: 502,
        code: None,
    };
    let closed = Case {
        name: "closed",
        reply: Reply::silence().flush().close(),
        ..gemini_like(&reset)
    };
    let half = Case {
        name: "half-a-head",
        reply: Reply::silence().raw("HTTP/1.1 200 OK\r\nContent-").close(),
        ..gemini_like(&reset)
    };
    check(vec![reset, closed, half]);
}

#[test]
fn nobody_there_is_told_as_502_and_too_slow_as_504() {
    let slow = Upstream::always(Reply::silence().hang());
    let mut late = upstream("slow", Format::OpenAi, &slow.url(), &["k"]);
    late["first_byte_ms"] = json!(150);
    let away = upstream("away", Format::OpenAi, &Upstream::nobody(), &["k"]);
    let weir = Weir::start(&settings(vec![late, away]));
    for stream in [false, true] {
        let answer = weir.ask(&chat("away/gpt-4o-mini", stream));
        assert_eq!(answer.status, 502, "{}", answer.text());
        assert_eq!(error_of(&answer)["code"], "upstream_unreachable");
        assert_eq!(answer.header("x-weir-attempts"), Some("3"));
    }
    // Not streamed: a stream would have had its first heartbeat by then.
    let answer = weir.ask(&chat("slow/gpt-4o-mini", false));
    assert_eq!(answer.status, 504, "{}", answer.text());
    assert_eq!(error_of(&answer)["code"], "upstream_timeout");
    assert_eq!(slow.count(), 1 + RETRIES);
    // What was given up is not left open.
    for connection in 0..slow.connections() {
        slow.wait_closed(connection, LIMIT);
    }
    weir.idle(LIMIT);
}

#[test]
fn an_error_as_the_first_event_is_as_good_as_a_status() {
    for format in Format::CHAT {
        let kind = match format {
            Format::Anthropic => "overloaded_error",
            Format::Gemini => "unavailable",
            _ => "server_error",
        };
        let event = format.error_event(503, kind, "their words");
        let failing = Reply::stream().event(&event).end();
        let scripted = Upstream::queue([failing, format.stream(&["fine"])]);
        let weir = Weir::start(&config(format, &scripted.url(), &["k"]));
        let streamed = weir.stream(&chat(&format!("up/{}", format.model()), true));
        assert!(
            streamed.done && streamed.error.is_none(),
            "{format:?}: {streamed:?}"
        );
        assert_eq!(streamed.completion.content, "fine");
        assert_eq!(scripted.count(), 2);
        weir.idle(LIMIT);
    }
}

#[test]
fn a_second_attempt_that_works_is_all_the_caller_sees() {
    let failures = [
        ("500", Format::OpenAi.error(500, "m", "x")),
        ("429", Format::OpenAi.error(429, "rate_limit_exceeded", "x")),
        ("401", Format::OpenAi.error(401, "invalid_api_key", "x")),
        ("reset", Reply::silence().flush().reset()),
        ("empty stream", Reply::stream().end()),
    ];
    for (name, failure) in failures {
        for stream in [false, true] {
            let fine = match stream {
                true => Format::OpenAi.stream(&["fine"]),
                false => Format::OpenAi.whole("fine"),
            };
            let scripted = Upstream::queue([failure.clone(), fine]);
            let weir = Weir::start(&config(Format::OpenAi, &scripted.url(), &["k1", "k2"]));
            let body = chat("up/gpt-4o-mini", stream);
            let (attempts, completion) = match stream {
                true => {
                    let mut stream = weir.open_stream(&body);
                    let attempts = stream.head.header("x-weir-attempts").map(str::to_string);
                    let streamed = crate::completion::Streamed::read(stream.rest(LIMIT));
                    (attempts, streamed.completion)
                }
                false => {
                    let answer = weir.ask(&body);
                    assert_eq!(answer.status, 200, "{name}: {}", answer.text());
                    let attempts = answer.header("x-weir-attempts").map(str::to_string);
                    (attempts, Completion::whole(&answer.json()))
                }
            };
            assert_eq!(completion.content, "fine", "{name}");
            assert_eq!(attempts.as_deref(), Some("2"), "{name}");
            let keys = scripted.keys();
            assert!(keys.len() == 2 && keys[0] != keys[1], "{name}: {keys:?}");
            weir.idle(LIMIT);
        }
    }
}

#[test]
fn what_the_first_target_has_no_words_for_the_second_may_serve() {
    let first = Upstream::start(|request| Format::Gemini.answer(request, &["first"]));
    let second = Upstream::start(|request| Format::OpenAi.answer(request, &["second"]));
    let mut settings = settings(vec![
        upstream("first", Format::Gemini, &first.url(), &["k1"]),
        upstream("second", Format::OpenAi, &second.url(), &["k2"]),
    ]);
    settings["models"] = json!({
        "both": ["first/gemini-2.5-flash", "second/gpt-4o-mini"],
        "alone": ["first/gemini-2.5-flash"],
        "twice": ["first/gemini-2.5-flash", "first/gemini-2.5-pro"]
    });
    let weir = Weir::start(&settings);
    let ask = |model: &str| {
        let mut body = chat(model, false);
        body["extra_body"] = json!({"google": 5});
        weir.ask(&body)
    };
    let answer = ask("both");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(Completion::whole(&answer.json()).content, "second");
    for model in ["alone", "twice"] {
        let answer = ask(model);
        assert_eq!(answer.status, 400, "{model}: {}", answer.text());
        assert_eq!(error_of(&answer)["param"], "extra_body.google");
    }
    assert_eq!(first.count(), 0);
    weir.idle(LIMIT);
}

/// The resend without signatures is for answers that have not begun.
#[test]
fn a_signature_refused_in_the_middle_of_a_stream_is_no_reason_to_begin_again() {
    let format = Format::Anthropic;
    let events = format.events(&["once", "never"]);
    let words = "messages.1: invalid signature in thinking block";
    let cut = Reply::stream()
        .events(&events[..format.events_to_first_text()])
        .event(&format.error_event(400, "invalid_request_error", words))
        .end();
    let scripted = Upstream::always(cut);
    let weir = Weir::start(&config(format, &scripted.url(), &["k"]));
    let streamed = weir.stream(&chat(&format!("up/{}", format.model()), true));
    assert_eq!(streamed.completion.content, "once");
    assert!(streamed.error.is_some() && !streamed.done, "{streamed:?}");
    assert_eq!(scripted.count(), 1);
    weir.idle(LIMIT);
}
