use serde_json::json;

use super::said::SHOWN;
use super::*;

fn check(status: u16, body: &str, class: Class, told: u16, code: Option<&str>) {
    let failure = Failure::from_status(status, body.as_bytes(), None);
    assert_eq!(
        (failure.class, failure.status, failure.code.as_deref()),
        (class, told, code),
        "{status} {body}"
    );
}

#[test]
fn openai_bodies_are_recognised() {
    let body = |code: &str, message: &str| {
        format!(r#"{{"error":{{"message":"{message}","type":"t","param":null,"code":"{code}"}}}}"#)
    };
    let fault = Class::RequestFault;
    check(
        400,
        &body("context_length_exceeded", "m"),
        fault,
        400,
        Some("context_length_exceeded"),
    );
    check(
        404,
        &body("model_not_found", "m"),
        Class::ModelMissing,
        404,
        Some("model_not_found"),
    );
    check(
        401,
        &body("invalid_api_key", "m"),
        Class::KeyBad,
        502,
        Some("upstream_key_refused"),
    );
    check(
        429,
        &body("insufficient_quota", "m"),
        Class::KeyBad,
        502,
        Some("upstream_key_refused"),
    );
    check(
        429,
        &body("rate_limit_exceeded", "m"),
        Class::RateLimit,
        429,
        Some("rate_limit_exceeded"),
    );
    check(
        403,
        &body("unsupported_country", "m"),
        Class::KeyBad,
        502,
        Some("upstream_key_refused"),
    );
    check(500, &body("x", "m"), Class::Server, 500, Some("x"));
    check(422, &body("x", "m"), fault, 422, Some("x"));
    // "not supported" about a parameter is the caller's fault, not a missing model.
    check(
        400,
        &body(
            "unsupported_parameter",
            "'x' is not supported with this model",
        ),
        fault,
        400,
        Some("unsupported_parameter"),
    );
    check(404, &body("", "Not Found"), fault, 404, None);
}

#[test]
fn anthropic_bodies_are_recognised() {
    let body = |kind: &str, message: &str| {
        format!(
            r#"{{"type":"error","error":{{"type":"{kind}","message":"{message}"}},"request_id":"r"}}"#
        )
    };
    check(
        404,
        &body("not_found_error", "model: claude-9"),
        Class::ModelMissing,
        404,
        Some("model_not_found"),
    );
    check(
        529,
        &body("overloaded_error", "Overloaded"),
        Class::Server,
        503,
        Some("overloaded"),
    );
    check(
        400,
        &body(
            "invalid_request_error",
            "You have reached your specified API usage limits.",
        ),
        Class::KeyBad,
        502,
        Some("upstream_key_refused"),
    );
    check(
        402,
        &body("billing_error", "m"),
        Class::KeyBad,
        502,
        Some("upstream_key_refused"),
    );
    check(
        413,
        &body("request_too_large", "m"),
        Class::RequestFault,
        413,
        None,
    );
    let failure = Failure::from_status(
        400,
        body(
            "invalid_request_error",
            "messages.1: Invalid `signature` in `thinking` block",
        )
        .as_bytes(),
        None,
    );
    assert!(failure.signature_refused);
    assert_eq!(failure.kind, "invalid_request_error");
}

#[test]
fn gemini_bodies_are_recognised() {
    let body = r#"[{"error":{"code":400,"message":"API key not valid.","status":"INVALID_ARGUMENT","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"API_KEY_INVALID"}]}}]"#;
    check(400, body, Class::KeyBad, 502, Some("upstream_key_refused"));
    let body = r#"{"error":{"code":429,"message":"q","status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"34.4s"}]}}"#;
    let failure = Failure::from_status(429, body.as_bytes(), None);
    assert_eq!(failure.class, Class::RateLimit);
    assert_eq!(failure.retry_after, Some(Duration::from_millis(34_400)));
    assert_eq!(Failure::from_event(body.as_bytes()).class, Class::RateLimit);
    let body = r#"{"error":{"code":404,"message":"models/x is not found for API version v1beta, or is not supported for generateContent.","status":"NOT_FOUND"}}"#;
    check(404, body, Class::ModelMissing, 404, Some("model_not_found"));
}

#[test]
fn pages_and_nothing_are_summarised() {
    let failure = Failure::from_status(
        502,
        b"<html><head><title>Bad\n gateway</title></head></html>",
        None,
    );
    assert_eq!(
        failure.message,
        "the upstream answered 502 with an HTML page: Bad gateway"
    );
    assert_eq!(failure.class, Class::Server);
    assert_eq!(
        Failure::from_status(503, b"", None).message,
        "the upstream answered 503 without a body"
    );
    assert_eq!(
        Failure::from_status(403, b"<html>no</html>", None).class,
        Class::Unclear
    );
    assert_eq!(
        Failure::from_status(500, "\u{fc}\n".as_bytes(), None).message,
        "\u{fc}"
    );
    let failure = Failure::from_status(500, &[0xff; 9000], None);
    assert_eq!(failure.message.chars().count(), SHOWN);
    // Lower-casing must not move byte positions.
    let page = "<html><title>\u{130}\u{130}</title>".as_bytes();
    assert!(
        Failure::from_status(500, page, None)
            .message
            .contains('\u{130}')
    );
}

#[test]
fn errors_in_streams_count_as_their_http_twins() {
    let event = |data: &str| {
        let failure = Failure::from_event(data.as_bytes());
        (failure.class, failure.status)
    };
    assert_eq!(
        event(r#"{"type":"error","error":{"type":"overloaded_error","message":"x"}}"#),
        (Class::Server, 503)
    );
    assert_eq!(
        event(r#"{"error":{"message":"x","code":"503"}}"#),
        (Class::Server, 503)
    );
    assert_eq!(
        event(r#"{"error":{"message":"x","type":"server_error"}}"#),
        (Class::Server, 500)
    );
    assert_eq!(event(r#"{"error":"boom"}"#), (Class::Server, 502));
    assert_eq!(
        event(r#"{"error":{"message":"x","type":"invalid_request_error"}}"#),
        (Class::RequestFault, 400)
    );
}

#[test]
fn a_bad_key_is_told_without_its_secret() {
    // Named by the upstream, or only refused: a caller never takes it for a word on its own key.
    for (words, class) in [("Invalid API key", Class::KeyBad), ("bad", Class::Unclear)] {
        let body = format!(r#"{{"error":{{"message":"{words}"}}}}"#);
        let failure = Failure::from_status(401, body.as_bytes(), None);
        assert_eq!(failure.class, class);
        let error = failure.to_error("claude", "claude#1");
        assert_eq!(error.status, 502);
        assert_eq!(
            error.message,
            format!("upstream claude refused its key claude#1: {words}")
        );
    }
}

#[test]
fn reasoning_that_is_not_taken_back_is_recognised() {
    let refused = |words: &str| {
        let body = json!({"error": {"message": words, "type": "invalid_request_error"}});
        Failure::from_status(400, body.to_string().as_bytes(), None).signature_refused
    };
    for words in [
        "Duplicate item found with id rs_0a1b. Remove duplicate items from your input and try again.",
        "Reasoning input items can only be provided to a reasoning or computer use model.",
        "Unknown input item type: reasoning.",
        "Item 'rs_0a1b' of type 'reasoning' was provided without its required following item.",
        "The encrypted content for item rs_0a1b could not be verified.",
    ] {
        assert!(refused(words), "{words}");
    }
    for words in [
        "Duplicate item found with id msg_0a1b.",
        "Unknown input item type: audio.",
        "Unsupported value: 'reasoning.effort' does not support 'max'.",
    ] {
        assert!(!refused(words), "{words}");
    }
}

/// Refusals in the words of vendors and of servers that speak like them, and what each is about.
#[test]
fn words_say_what_a_refusal_is_about() {
    use Class::{
        KeyBad, ModelMissing, OtherKey, RateLimit, RequestFault, Server, Unclear, Unsupported,
    };
    let rows: &[(u16, &str, Class, u16)] = &[
        // The key or the account.
        (401, "invalid x-api-key", KeyBad, 502),
        (
            401,
            "Incorrect API key provided: sk-a***b. You can find your API key at example.com.",
            KeyBad,
            502,
        ),
        (401, "Your api key: ****1234 is invalid", KeyBad, 502),
        (401, "The access token has expired", KeyBad, 502),
        (401, "User not found.", KeyBad, 502),
        (401, "Missing Authentication header", KeyBad, 502),
        (
            403,
            "Your API key was reported as leaked. Please use another API key.",
            KeyBad,
            502,
        ),
        (403, "Key limit exceeded (total limit).", KeyBad, 502),
        (
            403,
            "Your account has been suspended for a violation of our usage policies.",
            KeyBad,
            502,
        ),
        (
            403,
            "Country, region, or territory not supported",
            KeyBad,
            502,
        ),
        (400, "This organization has been disabled.", KeyBad, 502),
        (
            400,
            "User location is not supported for the API use.",
            KeyBad,
            502,
        ),
        (
            400,
            "Your credit balance is too low to access the API.",
            KeyBad,
            502,
        ),
        (402, "Insufficient Balance", KeyBad, 502),
        (
            402,
            "Insufficient credits. This account never purchased credits.",
            KeyBad,
            502,
        ),
        // One model.
        (
            403,
            "Project `p` does not have access to model `gpt-4o`",
            ModelMissing,
            403,
        ),
        (
            403,
            "The organization must be verified to use the model `gpt-image-1`.",
            ModelMissing,
            403,
        ),
        (
            403,
            "Your API key is not allowed to access model x",
            ModelMissing,
            403,
        ),
        (
            404,
            "The model `x` does not exist or you do not have access to it.",
            ModelMissing,
            404,
        ),
        (
            404,
            "model 'x' not found, try pulling it first",
            ModelMissing,
            404,
        ),
        (404, "No endpoints found for vendor/x.", ModelMissing, 404),
        (
            404,
            "This is not a chat model and thus not supported here.",
            ModelMissing,
            404,
        ),
        (
            400,
            "Invalid model: definitely-not-a-model",
            ModelMissing,
            404,
        ),
        (400, "Model Not Exist", ModelMissing, 404),
        (400, "vendor/x is not a valid model ID", ModelMissing, 404),
        // This request, and other keys say the same.
        (
            403,
            "Your input was flagged by moderation",
            RequestFault,
            403,
        ),
        (401, "The prompt was flagged", RequestFault, 403),
        (
            400,
            "File odd is not in an ACTIVE state.",
            RequestFault,
            400,
        ),
        (404, "Item with id 'rs_1' not found.", OtherKey, 404),
        (404, "Not Found", RequestFault, 404),
        (
            400,
            "tools[0]: property api_key is missing",
            RequestFault,
            400,
        ),
        (
            400,
            "'x' is not supported with this model",
            RequestFault,
            400,
        ),
        // This request with this key.
        (
            402,
            "More credits are needed, or fewer max_tokens: 64000 tokens requested.",
            OtherKey,
            402,
        ),
        (
            402,
            "This request requires more credits. You can only afford 900.",
            OtherKey,
            402,
        ),
        (
            401,
            "You have insufficient permissions for this operation. Missing scopes: x.",
            OtherKey,
            403,
        ),
        (
            403,
            "Your API key does not have permission to use the specified resource.",
            OtherKey,
            403,
        ),
        (
            403,
            "You do not have permission to access the File abc or it may not exist.",
            OtherKey,
            403,
        ),
        (
            403,
            "CachedContent not found (or permission denied)",
            OtherKey,
            403,
        ),
        (
            404,
            "No allowed providers are available for the selected model.",
            OtherKey,
            404,
        ),
        (
            404,
            "No endpoints found that support image input",
            OtherKey,
            404,
        ),
        (
            404,
            "No endpoints available matching your data policy",
            OtherKey,
            404,
        ),
        (
            429,
            "Long context requests require extra usage.",
            OtherKey,
            429,
        ),
        (
            429,
            "Request too large for m on tokens per min (TPM): Limit 30,000, Requested 35064.",
            OtherKey,
            429,
        ),
        (
            429,
            "tokens per minute: Limit 6000, Used 0, Requested 6294. Try again in 3s",
            OtherKey,
            429,
        ),
        // Quota that comes back.
        (
            429,
            "Rate limit reached: Limit 6000, Used 5034, Requested 1443. Try again in 4s",
            RateLimit,
            429,
        ),
        (
            429,
            "You exceeded your current quota, please check your plan and billing details.",
            RateLimit,
            429,
        ),
        (
            429,
            "Rate limit reached for omni-moderation-latest",
            RateLimit,
            429,
        ),
        (
            403,
            "Content violates usage guidelines. Failed check.",
            RequestFault,
            403,
        ),
        (402, "Insufficient credits for this request", OtherKey, 402),
        (401, "invalid api token", KeyBad, 502),
        (
            402,
            "You have exceeded your monthly included credits",
            KeyBad,
            502,
        ),
        // Nobody knows.
        (401, "Unauthorized", Unclear, 502),
        (403, "Forbidden", Unclear, 403),
        (402, "Payment Required", Unclear, 402),
        // What the server will never do.
        (
            500,
            "image input is not supported - hint: provide the mmproj",
            Unsupported,
            500,
        ),
        (500, "tools param requires --jinja flag", Unsupported, 500),
        (501, "no embeddings here", Unsupported, 501),
        (505, "HTTP version", Unsupported, 505),
        (500, "Internal server error", Server, 500),
        (503, "requires a moment", Server, 503),
        (407, "proxy", Class::Transport, 502),
    ];
    for (status, words, class, told) in rows {
        let body = serde_json::json!({"error": {"message": words}}).to_string();
        let failure = Failure::from_status(*status, body.as_bytes(), None);
        assert_eq!(
            (failure.class, failure.status),
            (*class, *told),
            "{status} {words}"
        );
        assert_eq!(failure.message, *words);
    }
}

/// What a caller wrote and an upstream repeats says nothing of the key, the account or the model.
#[test]
fn words_of_the_request_that_an_upstream_repeats_cost_nobody_a_key() {
    let values = [
        "invalid api key",
        "insufficient balance",
        "account suspended",
        "organization has been disabled",
        "unknown model",
        "x' invalid api key 'y",
        "x\" unknown model \"y",
        "it isn't an invalid api key",
    ];
    let fault = |status: u16, body: &serde_json::Value, words: &str| {
        let body = body.to_string();
        for failure in [
            Failure::from_status(status, body.as_bytes(), None),
            Failure::from_event(body.as_bytes()),
        ] {
            let is_harmless =
                matches!(failure.class.cool_down(), CoolDown::None | CoolDown::Strike);
            assert!(is_harmless, "{status} {words}: {:?}", failure.class);
        }
    };
    for value in values {
        for (open, close) in [
            ("'", "'"),
            ("\"", "\""),
            ("`", "`"),
            ("\u{201c}", "\u{201d}"),
        ] {
            if value.contains(open) && open == "`" {
                continue;
            }
            let words = format!(
                "Invalid value: {open}{value}{close}. Supported values are: 'user' and 'tool'."
            );
            let error = serde_json::json!({"message": words, "type": "invalid_request_error",
                "param": null, "code": "invalid_value"});
            fault(400, &serde_json::json!({"error": error}), &words);
        }
        // Without quotes, but with the place of the value.
        let words = format!("no such role: {value}");
        let error = serde_json::json!({"message": words, "type": "invalid_request_error",
            "param": "messages[0].role", "code": null});
        if !value.contains("model") {
            fault(400, &serde_json::json!({"error": error}), &words);
        }
    }
    for words in [
        "The user text \"my organization was disabled\" was refused by a guardrail",
        "This project has web search disabled.",
        "Your organization has the tool code_execution disabled",
    ] {
        fault(
            403,
            &serde_json::json!({"error": {"message": words, "code": 403}}),
            words,
        );
    }
}

/// Codes and words of vendors that close a key or a model, and nothing more.
#[test]
fn codes_and_words_of_more_vendors_are_known() {
    use Class::{KeyBad, ModelMissing, OtherKey, RequestFault, Unsupported};
    for (status, code, words, class) in [
        (
            401,
            "mismatched_organization",
            "The header should match",
            KeyBad,
        ),
        (
            401,
            "",
            "You must be a member of an organization to use the API",
            KeyBad,
        ),
        (401, "", "Invalid token", KeyBad),
        (401, "1000", "身份验证失败", KeyBad),
        (
            400,
            "organization_restricted",
            "Organization has been restricted.",
            KeyBad,
        ),
        (400, "Arrearage", "Access denied.", KeyBad),
        (403, "", "Your team 1 has been blocked.", KeyBad),
        (403, "", "Your team doesn't have any credits yet.", KeyBad),
        (
            403,
            "",
            "Sorry, your account balance is insufficient",
            KeyBad,
        ),
        (
            403,
            "",
            "The security token included in the request is expired",
            KeyBad,
        ),
        (403, "AccountOverdueError", "m", KeyBad),
        (
            412,
            "",
            "Account x is suspended, possibly due to a spending limit",
            KeyBad,
        ),
        (412, "", "A condition of the request failed", RequestFault),
        (429, "1113", "您的账户已欠费，请充值后重试", KeyBad),
        (
            429,
            "",
            "Your team 1 has used all available credits, please purchase more credits",
            KeyBad,
        ),
        (
            400,
            "model_decommissioned",
            "The model `x` is gone",
            ModelMissing,
        ),
        (
            400,
            "model_not_supported",
            "The requested model is not supported.",
            ModelMissing,
        ),
        (
            403,
            "model_permission_blocked_project",
            "The model `x` is blocked",
            ModelMissing,
        ),
        (403, "", "Model disabled.", ModelMissing),
        (401, "", "Access to model x is restricted.", ModelMissing),
        (
            404,
            "ModelNotOpen",
            "Your account has not activated it",
            ModelMissing,
        ),
        (402, "", "Prompt tokens limit exceeded: 9 > 5.", OtherKey),
        (500, "", "Multi-modal is not yet implemented", Unsupported),
        (500, "", "x does not support tools", Unsupported),
    ] {
        let body = serde_json::json!({"error": {"message": words, "code": code}}).to_string();
        let failure = Failure::from_status(status, body.as_bytes(), None);
        assert_eq!(failure.class, class, "{status} {code} {words}");
    }
}

#[test]
fn a_refusal_without_a_body_is_unclear_and_what_moderation_found_is_not() {
    for body in [&b""[..], b"{}", b"[]", b"null", b"<html>no</html>", b"\xff"] {
        for (status, told) in [(401, 502), (402, 402), (403, 403)] {
            let failure = Failure::from_status(status, body, None);
            assert_eq!((failure.class, failure.status), (Class::Unclear, told));
            assert!(!failure.message.is_empty());
        }
    }
    let found = br#"{"error":{"code":403,"message":"no","metadata":{"reasons":["violence"]}}}"#;
    let failure = Failure::from_status(403, found, None);
    assert_eq!((failure.class, failure.status), (Class::RequestFault, 403));
}

#[test]
fn a_prompt_that_is_too_long_is_told_in_one_way() {
    for (status, body) in [
        (
            400,
            r#"{"error":{"message":"m","code":"context_length_exceeded"}}"#,
        ),
        (
            400,
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 3 tokens > 2 maximum"}}"#,
        ),
        (
            400,
            r#"{"error":{"code":400,"message":"The input token count (5) exceeds the maximum number of tokens allowed (4).","status":"INVALID_ARGUMENT"}}"#,
        ),
        (
            400,
            r#"{"error":{"code":400,"message":"request (2009 tokens) exceeds the available context size (512 tokens)","type":"exceed_context_size_error"}}"#,
        ),
        (
            500,
            r#"{"error":{"message":"This model's maximum context length is 8192 tokens."}}"#,
        ),
        (422, r#"{"error":"Input is too long for requested model."}"#),
    ] {
        let failure = Failure::from_status(status, body.as_bytes(), None);
        let told = if status == 500 { 400 } else { status };
        assert_eq!(
            (failure.class, failure.status),
            (Class::RequestFault, told),
            "{body}"
        );
        assert_eq!(
            failure.code.as_deref(),
            Some("context_length_exceeded"),
            "{body}"
        );
        assert!(failure.too_long);
        // Inside an answer it is the same.
        let failure = Failure::from_event(body.as_bytes());
        assert_eq!(failure.class, Class::RequestFault, "{body}");
        assert!(failure.too_long && failure.status < 500, "{body}");
    }
    let failure = Failure::from_status(413, b"", None);
    assert!(failure.too_long && failure.status == 413);
}

#[test]
fn no_wait_is_named_for_what_never_passes() {
    let body = br#"{"error":{"message":"Long context requests require extra usage."}}"#;
    let hint = Some(Duration::from_secs(9));
    assert_eq!(Failure::from_status(429, body, hint).retry_after, None);
    assert_eq!(Failure::from_status(429, b"{}", hint).retry_after, hint);
}

#[test]
fn the_model_that_is_missing_is_read_out_of_the_words() {
    for (status, words, named) in [
        (404, "The model `gpt-9` does not exist", Some("gpt-9")),
        (
            404,
            "models/gemini-9 is not found for API version v1beta",
            Some("gemini-9"),
        ),
        (404, "model: claude-9", Some("claude-9")),
        (404, "model 'x:7b' not found", Some("x:7b")),
        (404, "Specified model not found", None),
    ] {
        let body = serde_json::json!({"error": {"message": words}}).to_string();
        let failure = Failure::from_status(status, body.as_bytes(), None);
        assert_eq!(failure.class, Class::ModelMissing, "{words}");
        assert_eq!(
            failure.said.as_ref().and_then(|said| said.model_named()),
            named,
            "{words}"
        );
    }
}

#[test]
fn a_model_is_the_one_asked_for_if_only_a_date_differs() {
    let named = |name: &str| {
        let body = json!({"error": {"message": format!("The model `{name}` does not exist")}});
        Failure::from_status(404, body.to_string().as_bytes(), None)
    };
    for (name, asked) in [
        ("gpt-5", "gpt-5 (responses)"),
        ("gpt-5-2025-08-07", "openai/gpt-5"),
        ("gpt-4", "gpt-4-0613"),
        ("m@20250805", "m"),
    ] {
        assert!(named(name).is_about(asked), "{name} {asked}");
    }
    for (name, asked) in [
        ("gpt-5-image", "gpt-5"),
        ("gpt-4", "gpt-4.1"),
        ("gpt-5", "gpt-5-2"),
        ("m", "(files)"),
        ("m", ""),
    ] {
        assert!(!named(name).is_about(asked), "{name} {asked}");
    }
}

#[test]
fn without_the_request_only_codes_are_believed() {
    let failure = |error: serde_json::Value| {
        let body = json!({"error": error}).to_string();
        Failure::from_status(403, body.as_bytes(), None).weighed("m", None)
    };
    let words = failure(json!({"message": "your account is suspended"}));
    assert_eq!((words.class, words.status), (Class::Unclear, 403));
    let code = failure(json!({"message": "no", "code": "account_suspended"}));
    assert_eq!((code.class, code.status), (Class::KeyBad, 502));
    let model = failure(json!({"message": "you have no access to this model"}));
    assert_eq!(model.class, Class::ModelMissing);
    assert!(!model.is_about("m"));
}
