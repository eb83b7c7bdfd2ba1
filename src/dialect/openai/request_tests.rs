//! Requests: every check, every normalisation.

use super::Head;
use crate::chat::{PartKind, Request, ResponseFormat, Role, Tool, ToolChoice, ToolKind};
use crate::error::ApiError;

fn parse(body: &str) -> Result<Request<'_>, ApiError> {
    Head::read(body.as_bytes())?.parse()
}

/// A request with one message from the user and `more` behind it.
fn with(more: &str) -> String {
    format!(r#"{{"model":"m","messages":[{{"role":"user","content":"hi"}}]{more}}}"#)
}

fn with_messages(messages: &str) -> String {
    format!(r#"{{"model":"m","messages":[{messages}]}}"#)
}

#[track_caller]
fn refused(body: &str, param: &str) -> ApiError {
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
    assert_eq!(head(r#"{"model":"\ud800","messages":[1]}"#), is("model"));
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
            r#"{"role":"user","content":"\udc00"}"#,
            "messages[0].content",
        ),
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

#[test]
fn contents_are_borrowed_parts() {
    let body = with_messages(
        r#"{"role":"developer","content":"be kind"},
        {"role":"user","content":{"type":"text","text":"one"}},
        {"role":"user","content":[
          {"type":"text","text":"a","cache_control":{"type":"ephemeral"}},
          {"type":"image_url","image_url":"https://x/y.png"},
          {"type":"image_url","image_url":{"url":"data:,","detail":"low"}},
          {"type":"input_audio","input_audio":{"data":"QQ==","format":"wav"}},
          {"type":"file","file":{"file_data":"QQ==","filename":"f.pdf"},"prompt_cache_breakpoint":{"ttl":"12h"}}]},
        {"role":"assistant","content":[{"type":"refusal","refusal":"no"}],"refusal":"never"},
        {"role":"assistant","content":null,"reasoning":"hm","thinking_blocks":[1],"audio":{"id":"a"},
          "extra_content":{"google":{"thought_signature":"sig"},"openai":{"reasoning_items":[{}]}}},
        {"role":"assistant","reasoning_content":"first","reasoning":"second",
          "extra_content":{"anthropic":{"thinking_blocks":[2],"layout":[["text",1]]}},"thinking_blocks":[3]}"#,
    );
    let request = parse(&body).unwrap();
    let m = &request.messages;
    assert_eq!(m[0].role, Role::System);
    assert!(matches!(
        &m[0].content[0].kind,
        PartKind::Text(std::borrow::Cow::Borrowed("be kind"))
    ));
    assert!(!m[0].content_is_array && m[1].content_is_array);
    assert!(matches!(&m[1].content[0].kind, PartKind::Text(t) if t == "one"));
    let parts = &m[2].content;
    assert_eq!(
        parts[0].cache_control.unwrap().get(),
        r#"{"type":"ephemeral"}"#
    );
    assert!(
        matches!(&parts[1].kind, PartKind::Image { url, detail: None } if url == "https://x/y.png")
    );
    assert!(matches!(&parts[2].kind, PartKind::Image { detail: Some(d), .. } if d == "low"));
    assert!(
        matches!(&parts[3].kind, PartKind::Audio { data, format } if data == "QQ==" && format == "wav")
    );
    assert!(
        matches!(&parts[4].kind, PartKind::File { id: None, name: Some(n), .. } if n == "f.pdf")
    );
    assert_eq!(parts[4].cache_breakpoint.unwrap().get(), r#"{"ttl":"12h"}"#);
    assert!(matches!(&m[3].content[0].kind, PartKind::Refusal(t) if t == "no"));
    assert_eq!(m[3].refusal.as_deref(), Some("never"));
    assert!(m[4].content.is_empty() && m[4].has_audio);
    assert_eq!(m[4].reasoning.as_deref(), Some("hm"));
    assert_eq!(m[4].google_signature.as_deref(), Some("sig"));
    assert_eq!(m[4].reasoning_items.unwrap().get(), "[{}]");
    assert_eq!(m[4].thinking_blocks.unwrap().get(), "[1]");
    assert_eq!(m[5].reasoning.as_deref(), Some("first"));
    assert_eq!(m[5].thinking_blocks.unwrap().get(), "[2]");
    assert_eq!(m[5].thinking_layout.unwrap().get(), r#"[["text",1]]"#);
}

#[test]
fn calls_get_ids_that_depend_only_on_their_place() {
    let body = with_messages(
        r#"{"role":"user","content":"x"},
        {"role":"assistant","tool_calls":[
          {"function":{"name":"f"}},
          {"id":"","type":"function","function":{"name":"g","arguments":"{\"a\":1}"},
           "extra_content":{"google":{"thought_signature":"s"}}},
          {"id":"own","type":"custom","custom":{"name":"c","input":"text"}}],
          "function_call":{"name":"h","arguments":"{}"}},
        {"role":"tool","tool_call_id":"call_m1_0","content":"r"}"#,
    );
    let request = parse(&body).unwrap();
    let calls = &request.messages[1].tool_calls;
    let ids: Vec<_> = calls.iter().map(|call| &*call.id).collect();
    assert_eq!(ids, ["call_m1_0", "call_m1_1", "own", "call_m1_3"]);
    assert_eq!(calls[0].arguments, "");
    assert_eq!(calls[1].arguments, r#"{"a":1}"#);
    assert_eq!(calls[1].google_signature.as_deref(), Some("s"));
    assert_eq!(
        (calls[2].kind, &*calls[2].arguments),
        (ToolKind::Custom, "text")
    );
    assert_eq!(calls[3].name, "h");
}

#[test]
fn function_results_answer_the_newest_open_call_of_their_name() {
    let call = |name: &str| {
        format!(
            r#"{{"role":"assistant","content":null,"function_call":{{"name":"{name}","arguments":""}}}}"#
        )
    };
    let result = |name: &str| format!(r#"{{"role":"function","name":"{name}","content":"r"}}"#);
    let messages = [
        call("f"),
        call("f"),
        r#"{"role":"tool","tool_call_id":"call_m1_0","content":"r"}"#.to_owned(),
        result("f"),
        result("f"),
        call("g"),
        result("g"),
    ];
    let body = with_messages(&messages.join(","));
    let request = parse(&body).unwrap();
    let id = |i: usize| &*request.messages[i].tool_call_id;
    assert_eq!(id(3), "call_m0_0", "the newer one is answered already");
    assert_eq!(id(4), "call_m4", "nothing is open");
    assert_eq!(id(6), "call_m5_0");
    assert!(
        request
            .messages
            .iter()
            .all(|m| m.role != Role::Tool || !m.tool_call_id.is_empty())
    );
}

#[test]
fn tools_and_choices_are_read_in_all_spellings() {
    let body = with(
        r#","tools":[
          {"type":"function","function":{"name":"f","description":"d","parameters":{"b":1,"a":2.0},"strict":true},"cache_control":{}},
          {"type":"function","function":{"name":"g","parameters":null}},
          {"type":"custom","custom":{"name":"c","format":{"type":"text"}}},
          {"type":"web_search","x":1}],
        "tool_choice":{"type":"allowed_tools","allowed_tools":{"mode":"required","tools":[
          {"type":"function","function":{"name":"f"}},{"type":"custom","custom":{"name":"c"}}]}}"#,
    );
    let request = parse(&body).unwrap();
    assert!(!request.legacy_functions);
    assert!(matches!(&request.tools[0],
        Tool::Function { name, strict: true, parameters: Some(p), cache_control: Some(_), .. }
        if name == "f" && p.get() == r#"{"b":1,"a":2.0}"#));
    assert!(matches!(
        &request.tools[1],
        Tool::Function {
            parameters: None,
            strict: false,
            ..
        }
    ));
    assert!(matches!(&request.tools[2], Tool::Custom { name, format: Some(_), .. } if name == "c"));
    assert!(matches!(&request.tools[3], Tool::Native { kind, object }
        if kind == "web_search" && object.get() == r#"{"type":"web_search","x":1}"#));
    assert!(matches!(&request.tool_choice,
        Some(ToolChoice::Allowed { required: true, names }) if names == &["f", "c"]));
    let body = with(r#","functions":[{"name":"f","parameters":{}}],"function_call":{"name":"f"}"#);
    let request = parse(&body).unwrap();
    assert!(request.legacy_functions);
    assert!(matches!(&request.tools[0], Tool::Function { name, .. } if name == "f"));
    assert!(matches!(&request.tool_choice, Some(ToolChoice::Named(name)) if name == "f"));
    for (choice, matches) in [
        (
            r#""auto""#,
            (|c| matches!(c, ToolChoice::Auto)) as fn(&ToolChoice) -> bool,
        ),
        (r#""none""#, |c| matches!(c, ToolChoice::None)),
        (r#""required""#, |c| matches!(c, ToolChoice::Required)),
        (
            r#"{"type":"function","function":{"name":"f"}}"#,
            |c| matches!(c, ToolChoice::Named(n) if n == "f"),
        ),
    ] {
        let body = with(&format!(r#","tool_choice":{choice}"#));
        assert!(
            matches(&parse(&body).unwrap().tool_choice.unwrap()),
            "{choice}"
        );
    }
}

#[test]
fn response_formats_are_read() {
    let body = with(
        r#","response_format":{"type":"json_schema","json_schema":{"name":"x","strict":true,"schema":{"b":1}}}"#,
    );
    assert!(matches!(parse(&body).unwrap().response_format,
        ResponseFormat::JsonSchema { schema: Some(s), strict: true, .. } if s.get() == r#"{"b":1}"#));
    let body = with(r#","response_format":{"type":"json_object"}"#);
    assert!(matches!(
        parse(&body).unwrap().response_format,
        ResponseFormat::JsonObject
    ));
}

#[test]
fn depth_without_end_is_only_carried() {
    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    let body = with(&format!(
        r#","metadata":{deep},"extra_body":{{"google":{deep}}}"#
    ));
    assert!(parse(&body).is_ok());
    refused(&with(&format!(r#","tools":{deep}"#)), "tools[0]");
}
