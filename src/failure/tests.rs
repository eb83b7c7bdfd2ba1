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
        Class::Server
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
    let failure = Failure::from_status(401, br#"{"error":{"message":"bad"}}"#, None);
    let error = failure.to_error("claude", "claude#1");
    assert_eq!(error.status, 502);
    assert_eq!(
        error.message,
        "upstream claude refused its key claude#1: bad"
    );
}

#[test]
fn vector_33_a_pointer_to_the_other_address_is_recognised() {
    let failure = |status: u16, message: &str| {
        let body = format!(
            r#"{{"error":{{"message":"{message}","type":"invalid_request_error","param":null,"code":null}}}}"#
        );
        Failure::from_status(status, body.as_bytes(), None)
    };
    let tools = "Function tools with reasoning_effort are not supported for gpt-5.6 in \
                 /v1/chat/completions. Please use /v1/responses instead.";
    assert!(failure(400, tools).wants_responses());
    let only = "This model is only supported in v1/responses and not in v1/chat/completions.";
    assert!(failure(404, only).wants_responses());
    assert!(!failure(400, "reasoning_effort is not supported").wants_responses());
    assert!(!failure(500, tools).wants_responses());
}

#[test]
fn a_summary_that_is_not_given_is_recognised() {
    let failure = |status: u16, param: &str, message: &str| {
        let body = format!(
            r#"{{"error":{{"message":"{message}","type":"invalid_request_error","param":"{param}","code":"unsupported_value"}}}}"#
        );
        Failure::from_status(status, body.as_bytes(), None)
    };
    let words = "Your organization must be verified to generate reasoning summaries.";
    assert!(failure(400, "reasoning.summary", words).refuses_summary());
    assert!(failure(400, "x", words).refuses_summary());
    assert!(failure(400, "x", "Unknown parameter: 'reasoning.summary'.").refuses_summary());
    assert!(!failure(500, "reasoning.summary", words).refuses_summary());
    assert!(!failure(400, "reasoning.effort", "m").refuses_summary());
}
