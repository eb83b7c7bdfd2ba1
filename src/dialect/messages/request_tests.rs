use serde_json::{Value, json};

use super::{Converted, to_chat};
use crate::chat::ERROR_MARK;
use crate::dialect::openai::Head;
use crate::error::ApiError;
use crate::seal::{Holds, Seals};

fn seals() -> Seals {
    Seals::new(Some("k"), std::iter::empty())
}

fn read(body: &Value) -> Result<Converted, ApiError> {
    let bytes = body.to_string().into_bytes();
    to_chat(&Head::read(&bytes)?, &seals())
}

fn converted(body: &Value) -> (Value, Converted) {
    let converted = read(body).unwrap();
    let chat: Value = serde_json::from_slice(&converted.body).unwrap();
    // Whatever it holds, it is a chat request.
    Head::read(&converted.body).unwrap().parse().unwrap();
    (chat, converted)
}

fn with(fields: Value) -> Value {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]});
    for (key, value) in fields.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

fn history(messages: Value) -> (Value, Converted) {
    let (chat, converted) = converted(&json!({"model": "m", "messages": messages}));
    (chat["messages"].clone(), converted)
}

#[test]
fn fields_find_their_places() {
    let (chat, converted) = converted(&with(json!({
        "max_tokens": 100, "temperature": 1, "top_p": 0.50, "top_k": 4, "stream": true,
        "stop_sequences": ["a", "", "b"], "system": "Be brief.",
        "tools": [
            {"name": "f", "description": "d", "input_schema": {"type": "object"}, "strict": true,
                "defer_loading": true, "cache_control": {"type": "ephemeral"}},
            {"type": "custom", "name": "g"},
            {"type": "web_search_20250305", "name": "web_search", "max_uses": 8},
            {"type": "bash_20250124", "name": "bash"}
        ],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": true},
        "output_config": {"effort": "max", "format": {"type": "json_schema", "schema": {"a": 1}}},
        "metadata": {"user_id": "{}"}, "service_tier": "auto",
        "context_management": {"edits": []}, "brand_new": 1
    })));
    assert_eq!(
        chat,
        json!({
            "model": "m", "stream": true, "max_tokens": 100, "temperature": 1, "top_p": 0.50,
            "top_k": 4, "stop": ["a", "b"],
            "tools": [
                {"type": "function", "function":
                    {"name": "f", "description": "d", "parameters": {"type": "object"}}},
                {"type": "function", "function":
                    {"name": "g", "parameters": {"type": "object", "properties": {}}}}
            ],
            "tool_choice": "required", "parallel_tool_calls": false,
            "messages": [
                {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}
            ],
            "reasoning_effort": "xhigh",
            "response_format": {"type": "json_schema", "json_schema":
                {"name": "output", "strict": true, "schema": {"a": 1}}}
        })
    );
    assert!(converted.searches);
    assert_eq!(
        converted.dropped,
        ["tools.bash_20250124", "context_management", "brand_new"]
    );
}

#[test]
fn choices_of_tools_that_are_not_there_are_left_out() {
    let tools = json!([{"name": "f", "input_schema": {"type": "object"}}]);
    for (choice, expected) in [
        (json!({"type": "auto"}), json!("auto")),
        (json!({"type": "none"}), json!("none")),
        (
            json!({"type": "tool", "name": "f"}),
            json!({"type": "function", "function": {"name": "f"}}),
        ),
        (json!({"type": "tool", "name": "web_search"}), Value::Null),
    ] {
        let (chat, _) = converted(&with(json!({"tools": tools, "tool_choice": choice})));
        assert_eq!(chat["tool_choice"], expected, "{choice}");
        let (chat, _) = converted(&with(json!({"tool_choice": choice})));
        assert_eq!(chat.get("tool_choice"), None, "{choice}");
    }
}

#[test]
fn thinking_becomes_an_effort() {
    for (fields, effort) in [
        (json!({}), Value::Null),
        (
            json!({"thinking": {"type": "adaptive", "display": "omitted"}}),
            Value::Null,
        ),
        (json!({"thinking": {"type": "disabled"}}), json!("none")),
        (
            json!({"thinking": {"type": "enabled", "budget_tokens": 1024}}),
            json!("low"),
        ),
        (
            json!({"thinking": {"type": "enabled", "budget_tokens": 8000}}),
            json!("medium"),
        ),
        (
            json!({"thinking": {"type": "enabled", "budget_tokens": 32000}, "max_tokens": 32000}),
            json!("high"),
        ),
        (
            json!({"thinking": {"type": "enabled", "budget_tokens": 1024},
            "output_config": {"effort": "medium"}}),
            json!("medium"),
        ),
        (
            json!({"output_config": {"effort": "brand-new"}}),
            Value::Null,
        ),
    ] {
        let (chat, _) = converted(&with(fields.clone()));
        assert_eq!(chat["reasoning_effort"], effort, "{fields}");
    }
    let (chat, _) = converted(
        &json!({"model": "m", "output_config": {"effort": "low"}, "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "system", "content": "x", "output_config": {"effort": "high"}}
        ]}),
    );
    assert_eq!(chat["reasoning_effort"], "high", "the last word counts");
}

#[test]
fn instructions_stand_at_the_head_or_in_the_users_turn() {
    let (chat, _) = converted(&json!({"model": "m",
        "system": [
            {"type": "text", "text": "x-anthropic-billing-header: cc_version=1;"},
            {"type": "text", "text": "One.", "cache_control": {"type": "ephemeral"}},
            {"type": "text", "text": "Two."}
        ],
        "messages": [
            {"role": "system", "content": "Three."},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "system", "content": [{"type": "text", "text": "Four."}]},
            {"role": "assistant", "content": "c"}
        ]
    }));
    let text = |text: &str| json!({"type": "text", "text": text});
    assert_eq!(
        chat["messages"],
        json!([
            {"role": "system", "content": "One.\n\nTwo.\n\nThree."},
            {"role": "user", "content":
                [text("a"), text("b"), text("<system>\nFour.\n</system>")]},
            {"role": "assistant", "content": "c"}
        ])
    );
}

#[test]
fn results_follow_their_calls_and_what_they_show_follows_them() {
    let (messages, converted) = history(json!([
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": [
            {"type": "text", "text": "Look."},
            {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1.50}},
            {"type": "tool_use", "id": "b", "name": "g", "input": {}}
        ]},
        {"role": "system", "content": "Mind."},
        {"role": "user", "content": [
            {"type": "text", "text": "Go on."},
            {"tool_use_id": "b", "type": "tool_result", "content": [
                {"type": "tool_reference", "tool_name": "h"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}},
                {"type": "from_the_future"}
            ]},
            {"type": "tool_result", "tool_use_id": "a", "is_error": true, "content": "no"},
            {"type": "tool_result", "tool_use_id": "zzz", "is_error": true}
        ]}
    ]));
    let mark = ERROR_MARK;
    let text = |text: &str| json!({"type": "text", "text": text});
    assert_eq!(
        messages,
        json!([
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Look.", "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{\"x\":1.5}"}},
                {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}}
            ]},
            {"role": "tool", "content": format!("{mark}no"), "tool_call_id": "a"},
            {"role": "tool", "content": "The tool h is available now.\n[the image follows]",
                "tool_call_id": "b"},
            {"role": "user", "content": [
                text("<system>\nMind.\n</system>"),
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
                text(&format!("[a tool's result]\n{mark}")),
                text("Go on.")
            ]}
        ])
    );
    assert_eq!(converted.failed, ["a".to_owned()].into());
    assert_eq!(
        converted.dropped,
        [
            "messages.content.from_the_future",
            "messages.content.tool_result.tool_use_id"
        ]
    );
}

#[test]
fn documents_and_images_from_everywhere() {
    let (messages, converted) = history(json!([{"role": "user", "content": [
        {"type": "document", "title": "t.pdf", "source":
            {"type": "base64", "media_type": "application/pdf", "data": "AA=="}},
        {"type": "document", "source": {"type": "text", "data": "plain"}},
        {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
        {"type": "image", "source": {"type": "file", "file_id": "f"}},
        {"type": "search_result", "title": "T", "source": "S", "content": [{"type": "text", "text": "C"}]}
    ]}]));
    assert_eq!(
        messages[0]["content"],
        json!([
            {"type": "file", "file":
                {"filename": "t.pdf", "file_data": "data:application/pdf;base64,AA=="}},
            {"type": "text", "text": "plain"},
            {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
            {"type": "text", "text": "T\nS\nC"}
        ])
    );
    assert_eq!(converted.dropped, ["messages.content.image"]);
}

#[test]
fn own_seals_are_opened_and_others_left_out() {
    let extra = r#"{"openai":{"reasoning_items":[{"id":"rs"}]}}"#;
    let call = seals().seal(Holds::CallSignature, "sig").unwrap();
    let whole = seals().seal(Holds::Extra, extra).unwrap();
    let another = Seals::new(Some("z"), std::iter::empty());
    let forged = another.seal(Holds::Extra, r#"{"openai":{"reasoning_items":[]}}"#);
    let thinking =
        |text: &str, seal: &str| json!({"type": "thinking", "thinking": text, "signature": seal});
    let (messages, _) = history(json!([
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": [thinking("alone", "")]},
        {"role": "assistant", "content": [
            thinking("One.", "c2lnbmF0dXJl"),
            {"type": "redacted_thinking", "data": "opaque"},
            thinking("Two.", &call),
            {"type": "tool_use", "id": "a", "name": "f", "input": {}},
            {"type": "tool_use", "id": "b", "name": "f", "input": {}},
            thinking("", &whole),
            thinking("", &forged.unwrap()),
            {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
        ]}
    ]));
    assert_eq!(messages[1]["reasoning_content"], "One.\n\nTwo.");
    let calls = &messages[1]["tool_calls"];
    assert_eq!(
        calls[0]["extra_content"]["google"]["thought_signature"],
        "sig"
    );
    assert_eq!(calls[1].get("extra_content"), None);
    let extra: Value = serde_json::from_str(extra).unwrap();
    assert_eq!(messages[1]["extra_content"], extra);
    assert_eq!(messages.as_array().unwrap().len(), 2);
}

#[test]
fn what_nobody_could_make_sense_of_is_refused_with_its_place() {
    for (body, place) in [
        (
            json!({"model": "m", "messages": [{"role": "king", "content": "x"}]}),
            "messages[0].role",
        ),
        (
            json!({"model": "m", "messages": [{"role": "user"}]}),
            "messages[0].content",
        ),
        (
            json!({"model": "m", "messages": [{"role": "user", "content": 7}]}),
            "messages[0].content",
        ),
        (json!({"model": "m", "messages": [7]}), "messages[0]"),
        (
            json!({"model": "m", "messages": [{"role": "user", "content": [{"type": "tool_result"}]}]}),
            "messages[0].content[0].tool_use_id",
        ),
        (
            json!({"model": "m", "messages": [{"role": "assistant", "content":
            [{"type": "tool_use", "id": "", "name": "f"}]}]}),
            "messages[0].content[0].id",
        ),
        (
            with(json!({"tools": [{"input_schema": {}}]})),
            "tools[0].name",
        ),
        (with(json!({"tools": {}})), "tools"),
        (with(json!({"stop_sequences": [1]})), "stop_sequences[0]"),
        (with(json!({"max_tokens": -1})), "max_tokens"),
        (with(json!({"system": 1})), "system"),
    ] {
        let error = read(&body).unwrap_err();
        assert_eq!(error.status, 400, "{body}");
        assert_eq!(error.param.as_deref(), Some(place), "{body}");
    }
    let tools: Vec<Value> = (0..10_000)
        .map(|n| json!({"name": format!("t{n}")}))
        .collect();
    assert_eq!(
        read(&with(json!({"tools": tools}))).unwrap_err().status,
        400
    );
}
