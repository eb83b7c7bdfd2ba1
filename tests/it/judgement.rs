//! Behaviour section 3, the rule under its table: one caller's request never takes a key or a
//! model from another caller, unless the upstream said that they are the trouble.

use serde_json::{Value, json};

use crate::client::{Answer, chat, get, request};
use crate::first_mile::error_of;
use crate::upstream::{Format, Reply, Upstream};
use crate::wait::LIMIT;
use crate::weir::{Weir, config, upstream};

/// Refusals that are about the request, or do not say what they are about.
const ABOUT_THE_REQUEST: &[(u16, &str)] = &[
    (400, "Invalid value"),
    // What the caller wrote, in the upstream's mouth.
    (
        400,
        "Invalid value: 'invalid api key'. Supported values are: 'user' and 'tool'.",
    ),
    (400, "Invalid value: 'account suspended'."),
    (400, "Invalid value: 'x' insufficient balance 'y'."),
    (400, "Invalid value: 'unknown model'."),
    (
        403,
        "The words \"my organization was disabled\" are refused",
    ),
    (400, "File odd is not in an ACTIVE state."),
    (400, "prompt is too long: 300000 tokens > 200000 maximum"),
    (
        401,
        "You have insufficient permissions for this operation. Missing scopes: x.y",
    ),
    (401, "Unauthorized"),
    (
        402,
        "More credits are needed, or fewer max_tokens: 64000 tokens requested",
    ),
    (402, "Payment Required"),
    (
        403,
        "this model requires moderation. Your input was flagged",
    ),
    (
        403,
        "You do not have permission to access the File odd or it may not exist.",
    ),
    (403, "Forbidden"),
    (
        403,
        "The organization must be verified to use the model `picture-1`.",
    ),
    (
        404,
        "No allowed providers are available for the selected model.",
    ),
    (404, "File odd not found"),
    (404, "Not Found"),
    (405, "m"),
    (409, "m"),
    (413, "m"),
    (415, "m"),
    (422, "m"),
    (429, "Long context requests require extra usage."),
    (
        429,
        "Request too large on tokens per min: Limit 30000, Requested 35064",
    ),
    (500, "image input is not supported"),
    (500, "This model's maximum context length is 8192 tokens"),
    (501, "not here"),
];

/// Answers `odd N` with the Nth refusal, and everything else well. Behind the rows of the table
/// come three without a word.
fn moody(format: Format) -> Upstream {
    Upstream::start(move |request| {
        let body = String::from_utf8_lossy(&request.body);
        let Some((_, number)) = body.split_once("odd ") else {
            return format.answer(request, &["fine"]);
        };
        let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
        let number: usize = digits.parse().unwrap();
        match ABOUT_THE_REQUEST.get(number) {
            Some((status, words)) => format.error(*status, "some_error", words),
            None => {
                let status = 401 + (number - ABOUT_THE_REQUEST.len()) as u16;
                Reply::whole(status, "application/json", "{}")
            }
        }
    })
}

fn saying(model: &str, stream: bool, words: &str) -> Value {
    let mut body = chat(model, stream);
    body["messages"][0]["content"] = words.into();
    body
}

#[test]
fn after_one_callers_refusal_the_next_caller_is_served_at_once() {
    let runs: Vec<_> = Format::CHAT
        .into_iter()
        .flat_map(|format| [(format, &["k1"][..]), (format, &["k1", "k2"][..])])
        .map(|(format, keys)| (format, keys, moody(format)))
        .collect();
    let name = |format: Format, keys: &[&str]| format!("{}-{}", format.name(), keys.len());
    let mut settings = config(Format::OpenAi, "http://127.0.0.1:1", &[]);
    settings["upstreams"] = runs
        .iter()
        .map(|(format, keys, scripted)| {
            upstream(&name(*format, keys), *format, &scripted.url(), keys)
        })
        .collect();
    let weir = Weir::start(&settings);
    for (format, keys, scripted) in &runs {
        let model = format!("{}/{}", name(*format, keys), format.model());
        for number in 0..ABOUT_THE_REQUEST.len() + 3 {
            let row = ABOUT_THE_REQUEST.get(number);
            let stream = number % 2 == 0;
            let before = scripted.count();
            let odd = weir.ask(&saying(&model, stream, &format!("odd {number}")));
            assert!((400..600).contains(&odd.status), "{model} {row:?}");
            assert!(error_of(&odd)["message"].is_string(), "{model} {row:?}");
            let tries = scripted.count() - before;
            assert!(tries <= keys.len(), "{model} {row:?}: {tries}");

            let before = scripted.count();
            let next = weir.ask(&saying(&model, !stream, "harmless"));
            assert_eq!(next.status, 200, "{model} {row:?}: {}", next.text());
            assert_eq!(scripted.count(), before + 1, "{model} {row:?}");
            assert_eq!(get(weir.addr, "/readyz").status, 200, "{model} {row:?}");
        }
    }
    let status = weir.idle(LIMIT);
    for upstream in status["upstreams"].as_array().unwrap() {
        for key in upstream["keys"].as_array().unwrap() {
            assert_eq!(key["cooling"], json!([]), "{upstream}");
        }
    }
}

/// What an upstream repeats without quotes, says of somebody else's key, or says of another model.
/// Behind each the request that it answers.
fn about_something_else() -> Vec<(u16, Value, Value)> {
    let said = |words: &str| json!({"role": "user", "content": format!("odd {words}")});
    let mut rows = Vec::new();
    for (status, before, words) in [
        (403, "Tried to use ", "gpt-x invalid api key"),
        (400, "The template failed: ", "invalid api key"),
        (403, "Blocked: ", "my account was suspended"),
        (401, "Refused: ", "the token is expired"),
        (402, "Refused: ", "insufficient balance"),
        (403, "The words are refused: ", "'a' invalid api key 'b'"),
        (400, "The template failed: ", "unknown model"),
    ] {
        let error = json!({"message": format!("{before}odd {words}")});
        rows.push((status, error, json!({"messages": [said(words)]})));
    }
    for (status, error) in [
        (
            401,
            json!({"message": "The MCP server 'x' answered 401: invalid token"}),
        ),
        (
            401,
            json!({"message": "invalid credentials", "type": "external_connector_error"}),
        ),
        (
            400,
            json!({"message": "Error while downloading the image: the account is disabled"}),
        ),
        (
            401,
            json!({"message": "Provider returned error: invalid api key"}),
        ),
        (
            403,
            json!({"message": "The service account cannot read gs://x: project is disabled"}),
        ),
    ] {
        rows.push((status, error, json!({"messages": [said("m")]})));
    }
    for (status, error, more) in [
        (
            400,
            json!({"message": "x/nope is not a valid model ID"}),
            json!({"models": ["x/nope"]}),
        ),
        (
            404,
            json!({"message": "The model 'm-image' does not exist", "code": "model_not_found"}),
            json!({"tools": [{"type": "image_generation", "model": "m-image"}]}),
        ),
        (
            404,
            json!({"message": "The model adapter zz was not found"}),
            json!({"adapter": "zz"}),
        ),
    ] {
        let mut asked = more;
        asked["messages"] = json!([said("m")]);
        rows.push((status, error, asked));
    }
    rows
}

#[test]
fn what_is_said_of_something_else_takes_nothing_from_other_callers() {
    for (status, error, mut odd) in about_something_else() {
        let refusal = Reply::json(status, &json!({"error": error}));
        let scripted = Upstream::start(move |request| {
            match String::from_utf8_lossy(&request.body).contains("odd") {
                true => refusal.clone(),
                false => Format::OpenAi.answer(request, &["fine"]),
            }
        });
        let weir = Weir::start(&config(Format::OpenAi, &scripted.url(), &["k1", "k2"]));
        odd["model"] = "up/m".into();
        let answer = weir.ask(&odd);
        assert!((400..600).contains(&answer.status), "{error}");
        let before = scripted.count();
        let next = weir.ask(&chat("up/m", false));
        assert_eq!(next.status, 200, "{error}: {}", next.text());
        assert_eq!(scripted.count(), before + 1, "{error}");
        let status = weir.idle(LIMIT);
        for key in status["upstreams"][0]["keys"].as_array().unwrap() {
            assert_eq!(key["cooling"], json!([]), "{error}");
        }
    }
}

/// The same words of a request that does not hold them are believed.
#[test]
fn words_of_the_upstreams_own_close_the_key_and_the_model() {
    for (words, told) in [
        ("Refused: my account was suspended", 502),
        ("The template failed: unknown model", 403),
    ] {
        let scripted = Upstream::always(Format::OpenAi.error(403, "some_error", words));
        let weir = Weir::start(&config(Format::OpenAi, &scripted.url(), &["k1"]));
        for _ in 0..2 {
            let answer = weir.ask(&chat("up/m", false));
            assert_eq!(answer.status, told, "{}", answer.text());
        }
        assert_eq!(scripted.count(), 1, "{words}");
        weir.idle(LIMIT);
    }
}

#[test]
fn a_refusal_teaches_nothing_until_the_mended_request_is_answered() {
    let words = [
        "Invalid value: 'v1/responses'",
        "Extra inputs are not permitted: refusal",
        "Unknown: stream_options",
    ];
    for words in words {
        let scripted = Upstream::start(move |request| {
            let body = String::from_utf8_lossy(&request.body);
            match (body.contains("odd"), request.path.contains("responses")) {
                (true, _) => Format::OpenAi.error(400, "invalid_request_error", words),
                (_, true) => Reply::json(404, &json!({})),
                _ => Format::OpenAi.answer(request, &["fine"]),
            }
        });
        let mut settings = config(Format::OpenAi, &scripted.url(), &["k1"]);
        settings["upstreams"][0]["ask_usage"] = json!(true);
        let weir = Weir::start(&settings);
        let history = |last: &str| {
            let mut body = chat("up/m", true);
            body["messages"] = json!([{"role": "user", "content": "a"},
                {"role": "assistant", "content": "b", "refusal": null},
                {"role": "user", "content": last}]);
            body
        };
        assert_eq!(weir.ask(&history("harmless")).status, 200, "{words}");
        let before = scripted.requests().pop().unwrap();
        assert_eq!(weir.ask(&history("odd")).status, 400, "{words}");
        let answer = weir.ask(&history("harmless"));
        assert_eq!(answer.status, 200, "{words}: {}", answer.text());
        let after = scripted.requests().pop().unwrap();
        assert_eq!(after.path, before.path, "{words}");
        assert_eq!(after.json(), before.json(), "{words}");
        weir.idle(LIMIT);
    }
}

/// The status and words of the upstream, what was tried, and whether asking again is advised.
fn told(answer: &Answer) -> (u16, String, Option<&str>) {
    let message = error_of(answer)["message"].as_str().unwrap().to_owned();
    (answer.status, message, answer.header("x-should-retry"))
}

#[test]
fn a_refusal_of_the_request_is_told_in_the_upstreams_own_words() {
    let scripted = moody(Format::OpenAi);
    let settings = config(Format::OpenAi, &scripted.url(), &["k1", "k2"]);
    let weir = Weir::start(&settings);
    for (number, (status, words)) in ABOUT_THE_REQUEST.iter().enumerate() {
        // One answer of each key between them, so that no refusals come in a row.
        for _ in 0..2 {
            assert_eq!(weir.ask(&saying("up/m", false, "harmless")).status, 200);
        }
        let before = scripted.count();
        let answer = weir.ask(&saying("up/m", false, &format!("odd {number}")));
        let (told, message, retry) = told(&answer);
        assert!(message.contains(words), "{message}");
        let expected = match *words {
            "Unauthorized" => 502,
            // Callers take 401 for a word about their own key.
            _ if *status == 401 => 403,
            _ if words.contains("maximum context length") => 400,
            _ => *status,
        };
        assert_eq!(told, expected, "{status} {words}");
        // Where another key may differ, each is asked once; no more than that.
        let tries = match status {
            401..=403 if words.contains("flagged") => 1,
            401..=403 | 429 => 2,
            404 if *words != "Not Found" => 2,
            _ => 1,
        };
        assert_eq!(scripted.count() - before, tries, "{status} {words}");
        assert!(answer.header("retry-after").is_none(), "{status} {words}");
        let hopeless = *status == 429 || told == 501 || told == 500;
        if hopeless {
            assert_eq!(retry, Some("false"), "{status} {words}");
        }
    }
    weir.idle(LIMIT);
}

#[test]
fn a_prompt_too_long_is_tried_once_however_it_is_told() {
    let words = "This model's maximum context length is 10 tokens.";
    let body = json!({"error": {"message": words, "code": "context_length_exceeded"}});
    let event = Reply::stream().event(&format!("data: {body}\n\n")).end();
    for (reply, ways) in [
        (Reply::json(400, &body), &[false, true][..]),
        (Reply::json(500, &body), &[false, true]),
        (Reply::json(200, &body), &[false, true]),
        (event, &[false, true]),
    ] {
        for &stream in ways {
            let scripted = Upstream::always(reply.clone());
            let settings = config(Format::OpenAi, &scripted.url(), &["k1", "k2"]);
            let weir = Weir::start(&settings);
            let answer = weir.ask(&chat("up/m", stream));
            assert_eq!(answer.status, 400, "{}", answer.text());
            assert_eq!(error_of(&answer)["code"], "context_length_exceeded");
            assert_eq!(scripted.count(), 1);
            weir.idle(LIMIT);
        }
    }
}

/// Of the models here the catalogue knows 200 000, 400 000 and 1 048 576 tokens, and nothing of `m`.
#[test]
fn a_prompt_too_long_for_one_target_goes_to_the_next_one_with_more_room() {
    let words = "This model's maximum context length is 10 tokens.";
    let body = json!({"error": {"message": words, "code": "context_length_exceeded"}});
    let event = Reply::stream().event(&format!("data: {body}\n\n")).end();
    let short = "claude-opus-4-1-20250805";
    let (middle, long) = ("gpt-5", "gemini-2.5-pro");
    for refusal in [
        Reply::json(400, &body),
        Reply::json(413, &json!({"error": {"message": "too large"}})),
        Reply::json(500, &body),
        Reply::json(200, &body),
        event,
    ] {
        for (targets, asked, served) in [
            (&[short, long][..], &[short, long][..], true),
            (&[short, "m"], &[short, "m"], true),
            (&["m", short], &["m", short], true),
            (&[middle, short, long], &[middle, long], true),
            (&[long, short], &[long], false),
            (&[middle, middle], &[middle], false),
            (&["m", "m"], &["m"], false),
        ] {
            let first = targets[0].to_owned();
            let refusal = refusal.clone();
            let scripted =
                Upstream::start(move |request| match request.json()["model"] == *first {
                    true => refusal.clone(),
                    false => Format::OpenAi.answer(request, &["hi"]),
                });
            let mut settings = config(Format::OpenAi, &scripted.url(), &["k1", "k2"]);
            let names: Vec<String> = targets.iter().map(|name| format!("up/{name}")).collect();
            settings["models"] = json!({"any": names});
            let weir = Weir::start(&settings);
            let answer = weir.ask(&chat("any", true));
            let models: Vec<Value> = scripted
                .requests()
                .iter()
                .map(|request| request.json()["model"].clone())
                .collect();
            assert_eq!(models, *asked, "{targets:?}: {}", answer.text());
            match served {
                true => assert!(answer.text().contains("hi"), "{}", answer.text()),
                false => assert!([400, 413].contains(&answer.status), "{}", answer.text()),
            }
            weir.idle(LIMIT);
        }
    }
}

/// One that is too long for all of them is told so, with the upstream's words.
#[test]
fn a_prompt_too_long_for_every_target_is_told_as_that() {
    let body = json!({"error": {"message": "maximum context length is 10 tokens",
        "code": "context_length_exceeded"}});
    let refusal = Format::OpenAi.error(401, "invalid_request_error", "Incorrect API key provided");
    for second in [Reply::json(400, &body), refusal] {
        let long = Upstream::always(Reply::json(400, &body));
        let other = Upstream::always(second);
        let mut settings = config(Format::OpenAi, &long.url(), &["k"]);
        let more = upstream("more", Format::OpenAi, &other.url(), &["k"]);
        settings["upstreams"].as_array_mut().unwrap().push(more);
        settings["models"] = json!({"any": ["up/m", "more/m"]});
        let weir = Weir::start(&settings);
        let answer = weir.ask(&chat("any", false));
        assert_eq!(answer.status, 400, "{}", answer.text());
        assert_eq!(error_of(&answer)["code"], "context_length_exceeded");
        let message = error_of(&answer)["message"].as_str().unwrap().to_owned();
        assert!(message.contains("10 tokens"), "{message}");
        assert_eq!((long.count(), other.count()), (1, 1));
    }
}

#[test]
fn a_key_that_refuses_every_request_cools_down_and_status_says_why_and_how_long() {
    let scripted = Upstream::always(Reply::whole(403, "application/json", "{}"));
    let settings = config(Format::OpenAi, &scripted.url(), &["k1"]);
    let weir = Weir::start(&settings);
    for tries in 1..=3 {
        let answer = weir.ask(&chat("up/m", false));
        assert_eq!((answer.status, scripted.count()), (403, tries));
        assert_eq!(error_of(&answer)["code"], "upstream_refused");
        assert!(answer.header("retry-after").is_none());
    }
    let answer = weir.ask(&chat("up/m", false));
    assert_eq!((answer.status, scripted.count()), (403, 3));
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=10).contains(&wait), "{wait}");
    let status = weir.status();
    let cooling = &status["upstreams"][0]["keys"][0]["cooling"][0];
    assert_eq!(cooling["class"], "refused");
    assert_eq!(cooling["model"], Value::Null);
    assert_eq!(cooling["why"], "the upstream answered 403");
    let left = cooling["seconds"].as_f64().unwrap();
    assert!(left > 0.0 && left <= 10.0, "{left}");
    let text = get(weir.addr, "/status").text();
    assert!(text.contains("the upstream answered 403"), "{text}");
    weir.idle(LIMIT);
}

#[test]
fn routes_beside_chat_never_take_a_key_from_chats() {
    let refusals = [
        (
            403,
            "The organization must be verified to use the model `gpt-image-1`.",
        ),
        (403, "Forbidden"),
        (401, "no"),
        (402, "no"),
        (404, "The model `gpt-image-1` does not exist"),
        (429, "Rate limit reached"),
        (500, "m"),
    ];
    for (status, words) in refusals {
        let scripted = Upstream::start(move |request| match request.path.contains("images") {
            true => Format::OpenAi.error(status, "some_error", words),
            false => Format::OpenAi.answer(request, &["fine"]),
        });
        let mut settings = config(Format::OpenAi, &scripted.url(), &["k1"]);
        settings["retries"] = json!(0);
        let weir = Weir::start(&settings);
        for _ in 0..4 {
            let body = br#"{"model":"up/gpt-image-1","prompt":"a hat"}"#;
            let asking = request("POST", "/v1/images/generations", &[], body);
            let mut client = crate::client::Client::connect(weir.addr);
            client.send(&asking);
            let answer = client.answer(LIMIT);
            assert!(answer.status >= 400, "{}", answer.text());
        }
        let answer = weir.ask(&chat("up/m", false));
        assert_eq!(answer.status, 200, "{status} {words}: {}", answer.text());
        assert_eq!(get(weir.addr, "/readyz").status, 200);
        weir.idle(LIMIT);
    }
    // What names the key closes it for all.
    let scripted = Upstream::start(|request| match request.path.contains("images") {
        true => Format::OpenAi.error(401, "invalid_api_key", "m"),
        false => Format::OpenAi.answer(request, &["fine"]),
    });
    let weir = Weir::start(&config(Format::OpenAi, &scripted.url(), &["k1"]));
    let body = br#"{"model":"up/gpt-image-1","prompt":"a hat"}"#;
    let mut client = crate::client::Client::connect(weir.addr);
    client.send(&request("POST", "/v1/images/generations", &[], body));
    assert_eq!(client.answer(LIMIT).status, 502);
    let answer = weir.ask(&chat("up/m", false));
    assert_eq!(error_of(&answer)["code"], "upstream_key_refused");
    assert_eq!(scripted.count(), 1);
    weir.idle(LIMIT);
}

#[test]
fn a_model_that_one_key_does_not_serve_is_asked_of_the_others_and_stays_closed_on_that_key() {
    let closed = Format::OpenAi.error(
        403,
        "some_error",
        "Project `p` does not have access to model `m`",
    );
    let scripted = Upstream::start(move |request| {
        let body = String::from_utf8_lossy(&request.body);
        match request.header("authorization") {
            Some("Bearer k1") if body.contains("\"m\"") => closed.clone(),
            _ => Format::OpenAi.answer(request, &["fine"]),
        }
    });
    let weir = Weir::start(&config(Format::OpenAi, &scripted.url(), &["k1", "k2"]));
    for _ in 0..4 {
        assert_eq!(weir.ask(&chat("up/m", false)).status, 200);
    }
    let refused = scripted.keys().iter().filter(|key| *key == "k1").count();
    assert_eq!(refused, 1, "{:?}", scripted.keys());
    let before = scripted.count();
    for _ in 0..2 {
        assert_eq!(weir.ask(&chat("up/other", false)).status, 200);
    }
    let keys = scripted.keys().split_off(before);
    assert!(keys.contains(&"k1".to_string()), "{keys:?}");
    weir.idle(LIMIT);
}
