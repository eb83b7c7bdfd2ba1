//! Callers' requests: parsed, and encoded for every provider.

use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::{corpus, measured, session};
use crate::dialect::completions::Complete;
use crate::dialect::embeddings::Embed;
use crate::dialect::openai::Head;
use crate::provider::anthropic::property_tests::Dice;
use crate::provider::{Encoded, Format, Options, Provider, anthropic, gemini, openai, responses};

const CLAUDE: &[&str] = &[
    "claude-opus-5-5",
    "claude-sonnet-5-5",
    "claude-haiku-5-5",
    "claude-haiku-4-5",
    "claude-sonnet-4-5",
    "claude-opus-4-6",
    "claude-3-5-haiku-latest",
    "claude-fable-5",
    "kimi-k2",
];
const GEMINI: &[&str] = &[
    "gemini-4-argon",
    "gemini-3-pro-preview",
    "gemini-2.5-flash",
    "gemini-2.5-flash-image",
    "gemini-2.0-flash",
    "gemini-1.5-pro",
    "gemma-3-27b-it",
    "gemini-2.5-flash-preview-tts",
];
const GPT: &[&str] = &["gpt-5.6", "gpt-5", "gpt-4o", "o3", "gpt-5-codex", "llama-3"];

fn options(dice: &mut Dice) -> Options {
    let mut options = Options {
        strict: dice.chance(20),
        official: dice.chance(50),
        developer_as_system: dice.chance(30),
        ask_usage: dice.chance(30),
        ..Options::default()
    };
    if dice.chance(30) {
        options.strip = vec!["seed".into(), "user".into()];
    }
    if dice.chance(30) {
        options.max_tokens_field = Some("max_tokens".into());
    }
    options.anthropic.auto_cache = dice.chance(30);
    options.anthropic.reject_prefill = dice.chance(20);
    options.anthropic.reject_forced_tools = dice.chance(20);
    options.gemini.reject_prefill = dice.chance(20);
    options
}

/// What must hold of every request that goes out.
fn check(encoded: &Encoded, again: &Encoded) {
    assert_eq!(
        encoded.body, again.body,
        "the same request gives the same bytes"
    );
    assert_eq!(encoded.path, again.path);
    let body = std::str::from_utf8(&encoded.body).expect("bodies are text");
    serde_json::from_str::<IgnoredAny>(body).expect("bodies are JSON");
    for (at, name) in encoded.dropped.iter().enumerate() {
        assert!(!encoded.dropped[..at].contains(name), "{name} twice");
    }
}

fn translate(
    provider: &dyn Provider,
    format: Format,
    models: &[&str],
    dice: &mut Dice,
    input: &[u8],
) {
    let options = options(dice);
    let model = *dice.pick(models);
    let request = measured(|| Head::read(input).and_then(|head| head.parse()));
    let mut request = match request {
        Ok(request) => request,
        Err(error) => return assert!((400..500).contains(&error.status), "{error}"),
    };
    if dice.chance(10) {
        request.strip_signatures();
    }
    match measured(|| provider.encode(&request, model, &options)) {
        Ok(encoded) => {
            check(
                &encoded,
                &provider.encode(&request, model, &options).unwrap(),
            );
            // What the caller merges into the body is the caller's own affair.
            if request.extra_body.is_some() {
                return;
            }
            let body: Value = match serde_json::from_slice(&encoded.body) {
                Ok(body) => body,
                // JSON all the same, in numbers and depths that no `Value` has.
                Err(error) => {
                    let text = error.to_string();
                    let fine = text.contains("number out of range") || text.contains("recursion");
                    return assert!(fine, "{error}");
                }
            };
            match format {
                Format::Anthropic => {
                    let messages = body["messages"].to_string();
                    anthropic::property_tests::check_structure(&messages);
                }
                Format::Gemini => gemini::property_tests::check_structure(&body["contents"]),
                _ => {}
            }
        }
        Err(error) => assert!((400..500).contains(&error.status), "{error}"),
    }
}

#[test]
#[ignore = "takes a minute: make fuzz"]
fn anthropic_request() {
    session("anthropic_request", &corpus::requests(), |dice, input| {
        translate(&anthropic::Messages, Format::Anthropic, CLAUDE, dice, input);
    });
}

#[test]
#[ignore = "takes a minute: make fuzz"]
fn gemini_request() {
    session("gemini_request", &corpus::requests(), |dice, input| {
        translate(
            &gemini::GenerateContent,
            Format::Gemini,
            GEMINI,
            dice,
            input,
        );
    });
}

#[test]
#[ignore = "takes a minute: make fuzz"]
fn responses_request() {
    session("responses_request", &corpus::requests(), |dice, input| {
        translate(&responses::Responses, Format::Responses, GPT, dice, input);
    });
}

#[test]
#[ignore = "takes a minute: make fuzz"]
fn openai_request() {
    session("openai_request", &corpus::requests(), |dice, input| {
        let options = options(dice);
        let model = *dice.pick(GPT);
        let encode = |head: &Head<'_>| openai::encode(head, model, &options);
        let again = || Head::read(input).and_then(|head| encode(&head));
        match measured(again).and_then(|first| Ok((first, again()?))) {
            Ok((encoded, again)) => check(&encoded, &again),
            Err(error) => assert!((400..500).contains(&error.status), "{error}"),
        }
    });
}

/// The other things that callers send, and what comes back for embeddings.
#[test]
#[ignore = "takes a minute: make fuzz"]
fn other_requests() {
    let mut all = corpus::requests();
    for text in [
        r#"{"model":"m","prompt":"a","max_tokens":5,"stop":["x"],"echo":true,"n":2}"#,
        r#"{"model":"m","prompt":["a","b"],"stream":true,"logprobs":1,"suffix":"s"}"#,
        r#"{"model":"m","input":["a","b"],"encoding_format":"base64","dimensions":2}"#,
        r#"{"model":"m","input":[[1,2],[3]]}"#,
        r#"{"embedding":{"values":[0.5,-1]},"usageMetadata":{"promptTokenCount":3}}"#,
        r#"{"embeddings":[{"values":[0.5]},{"values":[1e-3]}]}"#,
        r#"{"error":{"code":400,"message":"m","status":"INVALID_ARGUMENT"}}"#,
    ] {
        all.push(text.into());
    }
    session("other_requests", &all, |dice, input| {
        if let Ok(complete) = measured(|| Complete::read(input)) {
            let chat = complete.chat("p\"\u{0}");
            serde_json::from_slice::<IgnoredAny>(&chat).expect("it is JSON");
            // The caller's own fields are judged as those of a chat request.
            let read = Head::read(&chat).and_then(|head| head.parse().map(drop));
            if let Err(error) = read {
                assert!((400..500).contains(&error.status), "{error}");
            }
        }
        let texts = 1 + dice.below(2);
        if let Err(failure) = measured(|| gemini::embed::decode(input, texts)) {
            assert!((400..600).contains(&failure.status), "{failure:?}");
        }
        if let Ok(embed) = measured(|| Embed::read(input)) {
            let sent = gemini::embed::encode(&embed.texts, "m", &embed.wishes);
            serde_json::from_slice::<Value>(&sent.body).expect("bodies are JSON");
            let answer = embed.answer(&[vec![0.5, f64::NAN]], "m", 1);
            serde_json::from_slice::<IgnoredAny>(&answer).expect("answers are JSON");
        }
    });
}

/// Schemas in each of the places where they are rewritten.
#[test]
#[ignore = "takes a minute: make fuzz"]
fn schema() {
    session("schema", &corpus::schemas(), |dice, input| {
        let Ok(schema) = serde_json::from_slice::<Value>(input) else {
            return;
        };
        let strict = dice.chance(50);
        let request = json!({
            "model": "m",
            "messages": [{"role": "user", "content": "x"}],
            "tools": [{"type": "function", "function": {
                "name": "f", "parameters": schema, "strict": strict}}],
            "response_format": {"type": "json_schema", "json_schema": {
                "name": "s", "schema": schema, "strict": strict}},
        });
        let request = request.to_string();
        for (provider, format, models) in [
            (
                &anthropic::Messages as &dyn Provider,
                Format::Anthropic,
                CLAUDE,
            ),
            (&gemini::GenerateContent, Format::Gemini, GEMINI),
            (&responses::Responses, Format::Responses, GPT),
        ] {
            translate(provider, format, models, dice, request.as_bytes());
        }
    });
}
