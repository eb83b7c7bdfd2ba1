use serde_json::{Value, json};

use super::{head, to_chat};
use crate::dialect::messages::Converted;
use crate::error::ApiError;
use crate::seal::{Holds, Seals};

const PATH: &str = "/v1beta/models/m:generateContent";

fn seals() -> Seals {
    Seals::new(Some("k"), std::iter::empty())
}

fn converted(body: &Value) -> Result<Converted, ApiError> {
    let body = body.to_string();
    to_chat(&head(PATH, body.as_bytes())?, &seals())
}

fn chat(body: &Value) -> Value {
    serde_json::from_slice(&converted(body).unwrap().body).unwrap()
}

#[test]
fn a_request_in_either_spelling_is_a_chat_request() {
    let camel = json!({
        "systemInstruction": {"role": "user", "parts": [{"text": "be"}, {"text": "brief"}]},
        "contents": [{"parts": [{"text": "look"}, {"inlineData": {"mimeType": "image/png", "data": "AA=="}},
            {"fileData": {"mimeType": "application/pdf", "fileUri": "https://x/y.pdf"}}]}],
        "generationConfig": {"temperature": 1, "topP": 0.5, "topK": 3, "maxOutputTokens": 9,
            "stopSequences": ["a"], "seed": -1, "candidateCount": 1,
            "thinkingConfig": {"includeThoughts": true, "thinkingLevel": "HIGH"},
            "responseMimeType": "application/json",
            "responseSchema": {"type": "OBJECT", "properties": {"type": {"type": "STRING", "nullable": true}}}},
        "tools": [{"functionDeclarations": [{"name": "f", "parameters": {"type": "OBJECT"}}, {"name": "g"}]}],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}},
        "safetySettings": []
    });
    let snake = json!({
        "system_instruction": camel["systemInstruction"],
        "contents": [{"parts": [{"text": "look"}, {"inline_data": {"mime_type": "image/png", "data": "AA=="}},
            {"file_data": {"mime_type": "application/pdf", "file_uri": "https://x/y.pdf"}}]}],
        "generation_config": {"temperature": 1, "top_p": 0.5, "top_k": 3, "max_output_tokens": 9,
            "stop_sequences": ["a"], "seed": -1, "candidate_count": 1,
            "thinking_config": {"include_thoughts": true, "thinking_level": "high"},
            "response_mime_type": "application/json",
            "response_schema": camel["generationConfig"]["responseSchema"]},
        "tools": [{"function_declarations": camel["tools"][0]["functionDeclarations"]}],
        "tool_config": {"function_calling_config": {"mode": "any", "allowed_function_names": ["f"]}},
        "safety_settings": []
    });
    let expected = json!({
        "model": "m", "max_tokens": 9, "top_k": 3, "temperature": 1, "top_p": 0.5, "seed": -1,
        "stop": ["a"], "reasoning_effort": "high",
        "response_format": {"type": "json_schema", "json_schema": {"name": "output",
            "schema": {"type": "object", "properties": {"type": {"type": ["string", "null"]}}}}},
        "tools": [
            {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}},
            {"type": "function", "function": {"name": "g", "parameters": {"type": "object", "properties": {}}}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "messages": [{"role": "system", "content": "be\n\nbrief"},
            {"role": "user", "content": [{"type": "text", "text": "look"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
                {"type": "file", "file": {"file_id": "https://x/y.pdf"}}]}]
    });
    for body in [&camel, &snake] {
        assert_eq!(chat(body), expected);
        assert_eq!(converted(body).unwrap().dropped, ["safetySettings"]);
    }
}

#[test]
fn results_find_their_calls_by_id_or_by_name_and_order() {
    let call = |id: &str, at: u64| match id {
        "" => json!({"functionCall": {"name": "f", "args": {"at": at}}}),
        id => json!({"functionCall": {"id": id, "name": "f", "args": {"at": at}}}),
    };
    let result = |id: &str, response: Value| match id {
        "" => json!({"functionResponse": {"name": "f", "response": response}}),
        id => json!({"functionResponse": {"id": id, "name": "f", "response": response}}),
    };
    let body = |calls: [Value; 2], results: [Value; 2]| {
        json!({"contents": [{"parts": [{"text": "go"}]}, {"role": "model", "parts": calls},
            {"role": "user", "parts": results}]})
    };
    let by_id = chat(&body(
        [call("a", 1), call("b", 2)],
        [
            result("b", json!({"error": "no"})),
            result("a", json!({"output": "yes"})),
        ],
    ));
    let told = |chat: &Value| -> Vec<(Value, Value)> {
        let tools = chat["messages"].as_array().unwrap().iter();
        let tools = tools.filter(|message| message["role"] == "tool");
        tools
            .map(|tool| (tool["tool_call_id"].clone(), tool["content"].clone()))
            .collect()
    };
    let expected = vec![
        (json!("a"), json!("yes")),
        (json!("b"), json!("[error] no")),
    ];
    assert_eq!(told(&by_id), expected);
    let by_name = chat(&body(
        [call("", 1), call("", 2)],
        [
            result("", json!({"x": 1})),
            result("", json!({"name": "f", "content": "t"})),
        ],
    ));
    let expected = vec![
        (json!("call_1_0"), json!("{\"x\":1}")),
        (json!("call_1_1"), json!("t")),
    ];
    assert_eq!(told(&by_name), expected);
    let nobody = json!({"contents": [{"parts": [result("z", json!({"output": "yes"}))]}]});
    assert_eq!(
        chat(&nobody)["messages"][0]["content"],
        "[a tool's result: f]\nyes"
    );
    assert_eq!(
        converted(&nobody).unwrap().dropped,
        ["contents.parts.functionResponse"]
    );
}

#[test]
fn signatures_and_seals_come_back_and_forged_ones_do_not() {
    let extra = seals().seal(Holds::Extra, r#"{"anthropic":{}}"#).unwrap();
    let forged = Seals::new(Some("other"), std::iter::empty())
        .seal(Holds::Extra, "{}")
        .unwrap();
    let of = |signature: &str| {
        let body = json!({"contents": [{"parts": [{"text": "go"}]}, {"role": "model", "parts": [
            {"text": "hm", "thought": true},
            {"functionCall": {"name": "f"}, "thoughtSignature": signature}]}]});
        chat(&body)["messages"][1].clone()
    };
    let google = of("skip_thought_signature_validator");
    assert_eq!(google["reasoning_content"], "hm");
    assert_eq!(
        google["tool_calls"][0]["extra_content"]["google"]["thought_signature"],
        "skip_thought_signature_validator"
    );
    assert_eq!(of(&extra)["extra_content"], json!({"anthropic": {}}));
    for bad in [&*forged, &extra[..extra.len() - 4]] {
        let message = of(bad);
        assert!(message.get("extra_content").is_none(), "{message}");
        assert!(
            message["tool_calls"][0].get("extra_content").is_none(),
            "{message}"
        );
    }
}

#[test]
fn what_makes_no_sense_is_refused_with_its_place() {
    let with = |key: &str, value: Value| {
        let mut body = json!({"contents": [{"parts": [{"text": "x"}]}]});
        body[key] = value;
        body
    };
    let many: Vec<Value> = (0..10_000)
        .map(|at| json!({"name": format!("f{at}")}))
        .collect();
    for (body, param) in [
        (json!({}), "contents"),
        (json!({"contents": "x"}), "contents"),
        (json!({"contents": [1]}), "contents[0]"),
        (json!({"contents": [{}]}), "contents"),
        (
            json!({"contents": [{"role": "system", "parts": []}]}),
            "contents[0].role",
        ),
        (json!({"contents": [{"parts": "x"}]}), "contents[0].parts"),
        (
            json!({"contents": [{"parts": [{"text": 1}]}]}),
            "contents[0].parts[0].text",
        ),
        (
            json!({"contents": [{"parts": [{"inlineData": {"data": ""}}]}]}),
            "contents[0].parts[0].inlineData.mimeType",
        ),
        (
            json!({"contents": [{"parts": [{"functionResponse": {}}]}]}),
            "contents[0].parts[0].functionResponse.name",
        ),
        (
            json!({"contents": [{"role": "model", "parts": [{"functionCall": {"args": {}}}]}]}),
            "contents[0].parts[0].functionCall.name",
        ),
        (with("generationConfig", json!([])), "generationConfig"),
        (
            with("generationConfig", json!({"maxOutputTokens": "many"})),
            "generationConfig.maxOutputTokens",
        ),
        (
            with("tools", json!([{"functionDeclarations": [{}]}])),
            "tools[0].functionDeclarations[0].name",
        ),
        (
            with("tools", json!([{"functionDeclarations": many}])),
            "tools.functionDeclarations",
        ),
        (with("toolConfig", json!(1)), "toolConfig"),
        (
            with("cached_content", json!("cachedContents/x")),
            "cachedContent",
        ),
    ] {
        let error = converted(&body).unwrap_err();
        assert_eq!(error.status, 400, "{error}");
        assert_eq!(error.param.as_deref(), Some(param), "{error}");
    }
}

#[test]
fn thinking_is_asked_for_in_either_way() {
    for (config, effort) in [
        (json!({"thinkingLevel": "LOW"}), json!("low")),
        (
            json!({"thinkingLevel": "THINKING_LEVEL_UNSPECIFIED"}),
            Value::Null,
        ),
        (json!({"thinkingBudget": 0}), json!("none")),
        (json!({"thinkingBudget": -1}), Value::Null),
        (json!({"thinkingBudget": 8192}), json!("medium")),
        (json!({"thinkingBudget": 24576}), json!("high")),
    ] {
        let body = json!({"contents": [{"parts": [{"text": "x"}]}],
            "generationConfig": {"thinkingConfig": config}});
        assert_eq!(chat(&body)["reasoning_effort"], effort, "{config}");
    }
}
