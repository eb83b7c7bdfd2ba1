//! Requests: every check, and the top level.

use super::Head;
use crate::chat::{PartKind, Request, ResponseFormat};
use crate::error::ApiError;

pub fn parse(body: &str) -> Result<Request<'_>, ApiError> {
    Head::read(body.as_bytes())?.parse()
}

/// A request with one message from the user and `more` behind it.
pub fn with(more: &str) -> String {
    format!(r#"{{"model":"m","messages":[{{"role":"user","content":"hi"}}]{more}}}"#)
}

pub fn with_messages(messages: &str) -> String {
    format!(r#"{{"model":"m","messages":[{messages}]}}"#)
}

#[track_caller]
pub fn refused(body: &str, param: &str) -> ApiError {
    let error = parse(body).expect_err(body);
    assert_eq!(error.status, 400, "{body}");
    assert_eq!(error.kind, "invalid_request_error", "{body}");
    assert_eq!(error.param.as_deref(), Some(param), "{body}: {error}");
    error
}

#[test]
fn bodies_that_are_no_json_object_are_refused_with_the_place() {
    for (body, says) in [
        (&b"{\"model\": oops}"[..], "byte 10"),
        (b"{\"model\":\"m\"", "byte 12"),
        (b"", "byte 0"),
        (b"[1]", "byte 0"),
        (b"\"x\"", "byte 0"),
        (b"{} x", "byte 3"),
        (b"{\"model\":\"\xff\"}", "not valid UTF-8 at byte 10"),
    ] {
        let error = Head::read(body).expect_err(says);
        assert_eq!((error.status, error.param.as_deref()), (400, None));
        assert_eq!(error.kind, "invalid_request_error");
        assert!(error.message.contains(says), "{says}: {error}");
    }
}

#[test]
fn the_head_is_checked_before_routing() {
    let head = |body: &str| Head::read(body.as_bytes()).map(|_| ()).unwrap_err().param;
    let is = |param: &str| Some(param.to_owned());
    assert_eq!(head(r#"{"messages":[1]}"#), is("model"));
    assert_eq!(head(r#"{"model":null,"messages":[1]}"#), is("model"));
    assert_eq!(head(r#"{"model":7,"messages":[1]}"#), is("model"));
    assert_eq!(head(r#"{"model":"","messages":[1]}"#), is("model"));
    assert_eq!(head(r#"{"model":"m"}"#), is("messages"));
    assert_eq!(head(r#"{"model":"m","messages":"x"}"#), is("messages"));
    assert_eq!(head(r#"{"model":"m","messages":[ ]}"#), is("messages"));
    assert_eq!(head(&with(r#","stream":"yes""#)), is("stream"));
    assert_eq!(head(&with(r#","stream_options":1"#)), is("stream_options"));
    assert_eq!(
        head(&with(r#","stream_options":{"include_usage":1}"#)),
        is("stream_options.include_usage")
    );
    let body = with(r#","stream":true,"stream_options":{"include_usage":true}"#);
    let head = Head::read(body.as_bytes()).unwrap();
    assert!(head.stream && head.include_usage && head.model == "m");
    let body = with(r#","stream":null,"stream_options":null"#);
    let head = Head::read(body.as_bytes()).unwrap();
    assert!(!head.stream && !head.include_usage);
}

#[test]
fn wrong_types_name_their_field() {
    for (more, param) in [
        (r#""max_tokens":"10""#, "max_tokens"),
        (r#""max_tokens":-1"#, "max_tokens"),
        (r#""max_tokens":1.5"#, "max_tokens"),
        (r#""max_completion_tokens":"x""#, "max_completion_tokens"),
        (r#""temperature":"0.5""#, "temperature"),
        (r#""top_p":[]"#, "top_p"),
        (r#""n":true"#, "n"),
        (r#""seed":"1""#, "seed"),
        (r#""seed":1e300"#, "seed"),
        (r#""logprobs":1"#, "logprobs"),
        (r#""top_logprobs":"2""#, "top_logprobs"),
        (r#""frequency_penalty":"0""#, "frequency_penalty"),
        (r#""logit_bias":[]"#, "logit_bias"),
        (r#""stop":1"#, "stop"),
        (r#""stop":["a",2]"#, "stop[1]"),
        (r#""user":1"#, "user"),
        (r#""modalities":"text""#, "modalities"),
        (r#""audio":"x""#, "audio"),
        (r#""thinking":true"#, "thinking"),
        (r#""extra_body":[]"#, "extra_body"),
        (r#""response_format":"json""#, "response_format"),
        (r#""response_format":{}"#, "response_format.type"),
        (
            r#""response_format":{"type":"xml"}"#,
            "response_format.type",
        ),
        (
            r#""response_format":{"type":"json_schema"}"#,
            "response_format.json_schema",
        ),
        (
            r#""response_format":{"type":"json_schema","json_schema":{}}"#,
            "response_format.json_schema.name",
        ),
        (
            r#""response_format":{"type":"json_schema","json_schema":{"name":"x","schema":[]}}"#,
            "response_format.json_schema.schema",
        ),
        (r#""tools":{}"#, "tools"),
        (r#""tools":[1]"#, "tools[0]"),
        (r#""tools":[{}]"#, "tools[0].type"),
        (r#""tools":[{"type":"function"}]"#, "tools[0].function"),
        (
            r#""tools":[{"type":"function","function":{}}]"#,
            "tools[0].function.name",
        ),
        (
            r#""tools":[{"type":"function","function":{"name":"f","parameters":"{}"}}]"#,
            "tools[0].function.parameters",
        ),
        (r#""functions":[{"name":1}]"#, "functions[0].name"),
        (r#""functions":[{"name":"f"}],"tools":[]"#, "functions"),
        (r#""tool_choice":"any""#, "tool_choice"),
        (r#""tool_choice":1"#, "tool_choice"),
        (
            r#""tool_choice":{"type":"function"}"#,
            "tool_choice.function",
        ),
        (r#""function_call":"required""#, "function_call"),
        (
            r#""tool_choice":{"type":"allowed_tools","allowed_tools":{"mode":"x"}}"#,
            "tool_choice.allowed_tools.mode",
        ),
    ] {
        refused(&with(&format!(",{more}")), param);
    }
}

#[test]
fn wrong_messages_name_their_place() {
    for (message, param) in [
        (r#"1"#, "messages[0]"),
        (r#"{"content":"x"}"#, "messages[0].role"),
        (r#"{"role":"robot","content":"x"}"#, "messages[0].role"),
        (r#"{"role":"user"}"#, "messages[0].content"),
        (r#"{"role":"user","content":null}"#, "messages[0].content"),
        (r#"{"role":"user","content":7}"#, "messages[0].content"),
        (
            r#"{"role":"user","content":["x"]}"#,
            "messages[0].content[0]",
        ),
        (
            r#"{"role":"user","content":[{"text":"x"}]}"#,
            "messages[0].content[0].type",
        ),
        (
            r#"{"role":"user","content":[{"type":"blob"}]}"#,
            "messages[0].content[0].type",
        ),
        (
            r#"{"role":"user","content":[{"type":"refusal","refusal":"x"}]}"#,
            "messages[0].content[0].type",
        ),
        (
            r#"{"role":"user","content":[{"type":"text"}]}"#,
            "messages[0].content[0].text",
        ),
        (
            r#"{"role":"user","content":{"type":"image_url","image_url":{}}}"#,
            "messages[0].content.image_url.url",
        ),
        (
            r#"{"role":"user","content":[{"type":"input_audio","input_audio":{"data":"x"}}]}"#,
            "messages[0].content[0].input_audio.format",
        ),
        (
            r#"{"role":"user","content":[{"type":"file","file":{"filename":"x"}}]}"#,
            "messages[0].content[0].file",
        ),
        (
            r#"{"role":"tool","content":"x"}"#,
            "messages[0].tool_call_id",
        ),
        (
            r#"{"role":"tool","content":"x","tool_call_id":""}"#,
            "messages[0].tool_call_id",
        ),
        (r#"{"role":"function","content":"x"}"#, "messages[0].name"),
        (
            r#"{"role":"assistant","tool_calls":[{"type":"function"}]}"#,
            "messages[0].tool_calls[0].function",
        ),
        (
            r#"{"role":"assistant","tool_calls":[{"type":"x"}]}"#,
            "messages[0].tool_calls[0].type",
        ),
        (
            r#"{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":{}}}]}"#,
            "messages[0].tool_calls[0].function.arguments",
        ),
        (
            r#"{"role":"assistant","extra_content":{"anthropic":{"thinking_blocks":{}}}}"#,
            "messages[0].extra_content.anthropic.thinking_blocks",
        ),
    ] {
        refused(&with_messages(message), param);
    }
    let body = with_messages(
        r#"{"role":"user","content":"x"},{"role":"user","content":[{"type":"text","text":"x"},{"type":"text","text":1}]}"#,
    );
    let error = refused(&body, "messages[1].content[1].text");
    assert_eq!(
        error.message,
        "messages[1].content[1].text: must be a string, not a number"
    );
}

#[test]
fn half_a_character_does_not_spoil_a_conversation() {
    let body = with_messages(
        r#"{"role":"user","content":"a\ud83d"},{"role":"user","content":[{"type":"text","text":"\ude00 \ud83d\ude00"}]}"#,
    );
    let request = parse(&body).unwrap();
    let texts = request
        .messages
        .iter()
        .map(|message| &message.content[0].kind);
    let texts: Vec<&str> = texts
        .map(|kind| match kind {
            PartKind::Text(text) => &**text,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(texts, ["a\u{fffd}", "\u{fffd} \u{1f600}"]);
}

#[test]
fn null_is_absent_everywhere() {
    let mut more = String::new();
    for key in [
        "stream",
        "stream_options",
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "top_k",
        "stop",
        "n",
        "seed",
        "logprobs",
        "top_logprobs",
        "frequency_penalty",
        "presence_penalty",
        "logit_bias",
        "user",
        "safety_identifier",
        "service_tier",
        "modalities",
        "audio",
        "reasoning_effort",
        "verbosity",
        "thinking",
        "response_format",
        "tools",
        "tool_choice",
        "functions",
        "function_call",
        "parallel_tool_calls",
        "web_search_options",
        "prompt_cache_options",
        "image_config",
        "moderation",
        "extra_body",
    ] {
        more.push_str(&format!(",\"{key}\":null"));
    }
    let body = with(&more);
    let request = parse(&body).unwrap();
    assert!(request.unknown.is_empty());
    assert!(request.tools.is_empty() && request.tool_choice.is_none());
    assert!(request.max_tokens.is_none() && request.stop.is_empty());
    assert!(matches!(request.response_format, ResponseFormat::Text));
}

#[test]
fn the_top_level_is_normalised() {
    let body = with(
        r#","max_tokens":5,"max_completion_tokens":1e1,"stop":"END","temperature":1,"seed":-4,
        "logit_bias":{ },"metadata":{"a":"b"},"store":true,"enable_thinking":true,
        "extra_body":{"google":{"a":1.50}},"top_k":40"#,
    );
    let request = parse(&body).unwrap();
    assert_eq!(request.max_tokens, Some(10));
    assert_eq!(request.stop, ["END"]);
    assert_eq!((request.temperature, request.seed), (Some(1.0), Some(-4)));
    assert!(request.logit_bias.is_none());
    assert_eq!(request.unknown, ["enable_thinking"]);
    assert_eq!(
        request.extra_body.unwrap().get(),
        r#"{"google":{"a":1.50}}"#
    );
    assert_eq!(request.top_k, Some(40));
    let body = with(r#","max_tokens":5,"max_completion_tokens":null,"logit_bias":{"1":2}"#);
    let request = parse(&body).unwrap();
    assert_eq!(request.max_tokens, Some(5));
    assert_eq!(request.logit_bias.unwrap().get(), r#"{"1":2}"#);
}
