//! Requests: every spelling of contents, calls, tools and formats.

use super::request_tests::{parse, refused, with, with_messages};
use crate::chat::{PartKind, ResponseFormat, Role, Tool, ToolChoice, ToolKind};

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
