use serde_json::{Value, json};

use super::{Converted, Kept, tail, to_chat};
use crate::dialect::openai::Head;
use crate::error::ApiError;
use crate::json::shape::Limits;
use crate::seal::{Holds, Seals};

fn seals() -> Seals {
    Seals::new(Some("k"), std::iter::empty())
}

/// Knows one answer and one item.
struct One;

impl Kept for One {
    fn conversation(&self, id: &str) -> Option<Vec<String>> {
        let items = || {
            let user = json!({"role": "user", "content": "Before?"});
            let call = json!({"type": "function_call", "call_id": "c0", "name": "f"});
            vec![user.to_string(), call.to_string()]
        };
        (id == "resp_1").then(items)
    }

    fn item(&self, id: &str) -> Option<String> {
        let item = json!({"type": "function_call", "id": id, "call_id": "c9", "name": "g"});
        (id == "fc_1").then(|| item.to_string())
    }
}

fn convert(request: &Value) -> Result<Converted, ApiError> {
    let limits = Limits::default();
    to_chat(&request.to_string(), &limits, &seals(), &One, &tail(1), 1)
}

/// The chat request, and the names of what was left out of it.
fn chat(request: &Value) -> (Value, Vec<String>) {
    let mut request = request.clone();
    request["model"] = json!("m");
    let converted = convert(&request).unwrap_or_else(|error| panic!("{error} in {request}"));
    let head = Head::read(&converted.body).unwrap();
    head.parse()
        .unwrap_or_else(|error| panic!("{error} in {request}"));
    let chat: Value = serde_json::from_slice(&converted.body).unwrap();
    (chat, converted.asked.dropped)
}

fn messages(input: Value) -> Value {
    chat(&json!({ "input": input })).0["messages"].clone()
}

fn refused(request: &Value) -> ApiError {
    let mut request = request.clone();
    if request.get("model").is_none() {
        request["model"] = json!("m");
    }
    match convert(&request) {
        Ok(_) => panic!("{request} is taken"),
        Err(error) => error,
    }
}

#[test]
fn items_become_messages() {
    let user = |content: Value| json!({"role": "user", "content": content});
    let seal = seals().seal(Holds::CallSignature, "sig").unwrap();
    let extra = r#"{"openai":{"reasoning_items":[]}}"#;
    let whole = seals().seal(Holds::Extra, extra).unwrap();
    let call = |id: &str, name: &str, arguments: &str| json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
    for (input, expected) in [
        (json!("Hello?"), json!([user(json!("Hello?"))])),
        // Whatever stands at the head is the prompt; later it is marked.
        (
            json!([
                {"type": "message", "role": "developer", "id": "x", "content": [
                    {"type": "input_text", "text": "One."}, {"type": "input_text", "text": "Two."}]},
                {"role": "system", "content": "Three."},
                {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
                {"role": "developer", "content": "Brief."}
            ]),
            json!([
                {"role": "system", "content": "One.\nTwo.\n\nThree."},
                user(json!([{"type": "text", "text": "Hi"},
                    {"type": "text", "text": "<system>\nBrief.\n</system>"}]))
            ]),
        ),
        // What the model said in several items is one message; results are in its order.
        (
            json!([
                {"role": "user", "content": "Go."},
                {"type": "reasoning", "id": "rs_1", "content": null,
                    "summary": [{"type": "summary_text", "text": "Hm."}]},
                {"type": "reasoning", "summary": [], "encrypted_content": seal},
                {"type": "message", "role": "assistant", "content": [
                    {"type": "output_text", "text": "Look.", "annotations": []}]},
                {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{\"a\":1}"},
                {"type": "function_call", "call_id": "c2", "namespace": "my.ns", "name": "g", "arguments": ""},
                {"type": "reasoning", "summary": [], "encrypted_content": whole},
                {"type": "function_call_output", "call_id": "c2", "output": [
                    {"type": "input_text", "text": "Two"},
                    {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "original"}]},
                {"type": "function_call_output", "call_id": "c1", "output": "One"},
                {"role": "user", "content": "On."}
            ]),
            json!([
                user(json!("Go.")),
                {"role": "assistant", "content": "Look.", "reasoning_content": "Hm.",
                    "tool_calls": [
                        {"id": "c1", "type": "function",
                            "function": {"name": "f", "arguments": "{\"a\":1}"},
                            "extra_content": {"google": {"thought_signature": "sig"}}},
                        call("c2", "my_ns__g", "{}")
                    ],
                    "extra_content": {"openai": {"reasoning_items": []}}},
                {"role": "tool", "content": "One", "tool_call_id": "c1"},
                {"role": "tool", "content": "Two\n[the image follows]", "tool_call_id": "c2"},
                user(json!([
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
                    {"type": "text", "text": "On."}]))
            ]),
        ),
        // Free-form tools and searches are functions; each call has its result.
        (
            json!([
                {"type": "custom_tool_call", "call_id": "c1", "name": "apply", "input": "a \"b\""},
                {"type": "custom_tool_call_output", "call_id": "c1", "output": "done"},
                {"type": "tool_search_call", "call_id": "c2", "execution": "client",
                    "arguments": {"query": "x"}},
                {"type": "tool_search_output", "call_id": "c2", "tools": []}
            ]),
            json!([
                {"role": "assistant", "content": null,
                    "tool_calls": [call("c1", "apply", "{\"input\":\"a \\\"b\\\"\"}")]},
                {"role": "tool", "content": "done", "tool_call_id": "c1"},
                {"role": "assistant", "content": null,
                    "tool_calls": [call("c2", "tool_search", "{\"query\":\"x\"}")]},
                {"role": "tool", "content": "Nothing was found.", "tool_call_id": "c2"}
            ]),
        ),
        // A result that nobody asked for, or that is there twice, is told.
        (
            json!([
                {"type": "function_call", "call_id": "c1", "name": "f"},
                {"type": "function_call_output", "call_id": "c1", "output": "1"},
                {"type": "function_call_output", "call_id": "c1", "output": "2"},
                {"type": "function_call_output", "call_id": "c7", "output": null}
            ]),
            json!([
                {"role": "assistant", "content": null, "tool_calls": [call("c1", "f", "{}")]},
                {"role": "tool", "content": "1", "tool_call_id": "c1"},
                user(json!([{"type": "text", "text": "[a tool's result]\n2"},
                    {"type": "text", "text": "[a tool's result]\n"}]))
            ]),
        ),
        // Reasoning of another provider is its own, words and all.
        (
            json!([
                {"role": "user", "content": "Go."},
                {"type": "reasoning", "summary": [{"text": "Foreign."}],
                    "encrypted_content": "c2lnbmF0dXJl"},
                {"type": "reasoning", "summary": [{"text": "Forged."}],
                    "encrypted_content": "weir1.AAAA"},
                {"role": "assistant", "content": "Hi."},
                {"role": "user", "content": [
                    {"type": "input_file", "file_data": "data:application/pdf;base64,AA=="},
                    {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}]}
            ]),
            json!([
                user(json!("Go.")),
                {"role": "assistant", "content": "Hi."},
                user(json!([
                    {"type": "file", "file": {"filename": "document.pdf",
                        "file_data": "data:application/pdf;base64,AA=="}},
                    {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}]))
            ]),
        ),
        // Pictures that the model made are its own.
        (
            json!([
                {"role": "user", "content": "Draw."},
                {"type": "image_generation_call", "id": "ig_1", "status": "completed",
                    "result": "/9j/AA=="},
                {"type": "image_generation_call", "id": "ig_2", "status": "failed", "result": null},
                {"role": "user", "content": "Smaller."}
            ]),
            json!([
                user(json!("Draw.")),
                {"role": "assistant", "content": null, "images": [{"type": "image_url",
                    "image_url": {"url": "data:image/jpeg;base64,/9j/AA=="}}]},
                user(json!("Smaller."))
            ]),
        ),
        // An item by its id.
        (
            json!([
                {"type": "item_reference", "id": "fc_1"},
                {"type": "function_call_output", "call_id": "c9", "output": "x"}
            ]),
            json!([
                {"role": "assistant", "content": null, "tool_calls": [call("c9", "g", "{}")]},
                {"role": "tool", "content": "x", "tool_call_id": "c9"}
            ]),
        ),
    ] {
        assert_eq!(messages(input.clone()), expected, "{input}");
    }
}

#[test]
fn it_goes_on_from_an_earlier_answer() {
    let request = json!({
        "instructions": "New.", "previous_response_id": "resp_1",
        "input": [{"type": "function_call_output", "call_id": "c0", "output": "x"}]
    });
    let expected = json!([
        {"role": "system", "content": "New."},
        {"role": "user", "content": "Before?"},
        {"role": "assistant", "content": null, "tool_calls": [
            {"id": "c0", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "content": "x", "tool_call_id": "c0"}
    ]);
    assert_eq!(chat(&request).0["messages"], expected);
    let error = refused(&json!({"previous_response_id": "resp_2", "input": "x"}));
    let code = error.code.as_deref();
    assert_eq!(
        (error.status, code),
        (400, Some("previous_response_not_found"))
    );
}

#[test]
fn tools_of_all_kinds_are_functions_or_named() {
    let parameters = json!({"type": "object", "properties": {"a": {"type": "string"}}});
    let (chat, dropped) = chat(&json!({
        "input": [
            {"type": "tool_search_call", "call_id": "s", "execution": "client", "arguments": {}},
            {"type": "tool_search_output", "call_id": "s", "tools": [{"type": "namespace",
                "name": "late", "tools": [{"type": "function", "name": "found"}]}]},
            {"type": "additional_tools", "id": "at", "role": "developer", "tools": [
                {"type": "namespace", "name": "functions", "description": "", "tools": [
                    {"type": "custom", "name": "exec"}]},
                {"type": "function", "name": "beside"}]}
        ],
        "tools": [
            {"type": "function", "name": "f", "description": "F.", "parameters": parameters, "strict": true},
            {"type": "function", "name": "bare", "parameters": null, "strict": false},
            {"type": "custom", "name": "apply", "description": "A.",
                "format": {"type": "grammar", "syntax": "lark", "definition": "start: X"}},
            {"type": "namespace", "name": "a b", "tools": [{"type": "function", "name": "f"}]},
            {"type": "namespace", "name": "a_b", "tools": [{"type": "function", "name": "f"}]},
            {"type": "tool_search", "execution": "client", "parameters": parameters},
            {"type": "tool_search"},
            {"type": "web_search", "external_web_access": true},
            {"type": "local_shell"},
            {"type": "mcp", "server_label": "x"},
            {"type": "function", "name": "f"}
        ],
        "tool_choice": {"type": "custom", "name": "apply"},
        "parallel_tool_calls": false
    }));
    let names: Vec<&str> = chat["tools"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tool| tool["function"]["name"].as_str().unwrap())
        .collect();
    let expected = [
        "f",
        "bare",
        "apply",
        "a_b__f",
        "a_b__f_2",
        "tool_search",
        "late__found",
        "functions__exec",
        "beside",
    ];
    assert_eq!(names, expected);
    assert_eq!(chat["tools"][0]["function"]["strict"], true);
    assert_eq!(chat["tools"][0]["function"]["parameters"], parameters);
    let apply = &chat["tools"][2]["function"];
    assert_eq!(
        apply["description"],
        "A.\n\nThe input follows this lark grammar:\nstart: X"
    );
    assert_eq!(apply["parameters"]["required"], json!(["input"]));
    assert_eq!(
        chat["tool_choice"],
        json!({"type": "function", "function": {"name": "apply"}})
    );
    assert_eq!(chat["parallel_tool_calls"], false);
    let expected = [
        "tools.tool_search",
        "tools.local_shell",
        "tools.mcp",
        "tools.f",
    ];
    assert_eq!(dropped, expected);
}

#[test]
fn half_an_emoji_harms_nobody() {
    let text = r#"{"model": "m", "instructions": "\ud83d", "input": [{"role": "user", "content": "\ud83d"}]}"#;
    let limits = Limits::default();
    let converted = to_chat(text, &limits, &seals(), &One, &tail(1), 1).unwrap();
    for json in [&converted.body, &converted.input] {
        serde_json::from_slice::<Value>(json).unwrap();
    }
    let opening = String::from_utf8(converted.asked.opening()).unwrap();
    let data = opening.lines().nth(1).unwrap().strip_prefix("data: ");
    serde_json::from_str::<Value>(data.unwrap()).unwrap();
}

#[test]
fn choices_are_those_of_chats() {
    let tools = json!([{"type": "function", "name": "f"}, {"type": "namespace", "name": "n",
        "tools": [{"type": "function", "name": "g"}]}]);
    let named = |name: &str| json!({"type": "function", "function": {"name": name}});
    for (choice, expected, left) in [
        (json!("auto"), json!("auto"), 2),
        (json!("none"), json!("none"), 2),
        (json!("required"), json!("required"), 2),
        (json!({"type": "function", "name": "f"}), named("f"), 2),
        (
            json!({"type": "function", "name": "g", "namespace": "n"}),
            named("n__g"),
            2,
        ),
        (
            json!({"type": "function", "name": "nobody"}),
            Value::Null,
            2,
        ),
        (json!({"type": "web_search"}), Value::Null, 2),
        (
            json!({"type": "allowed_tools", "mode": "required", "tools": [
            {"type": "function", "name": "f"}, {"type": "mcp", "server_label": "x"}]}),
            json!("required"),
            1,
        ),
    ] {
        let (chat, _) = chat(&json!({"input": "x", "tools": tools, "tool_choice": choice}));
        assert_eq!(chat["tool_choice"], expected, "{choice}");
        assert_eq!(chat["tools"].as_array().unwrap().len(), left, "{choice}");
    }
}

#[test]
fn the_other_fields_have_their_places() {
    let (chat, dropped) = chat(&json!({
        "input": "x", "stream": true, "max_output_tokens": 32000, "temperature": 0.50, "top_p": 1,
        "reasoning": {"effort": "max", "summary": "auto"},
        "text": {"verbosity": "low", "format": {"type": "json_schema", "name": "n",
            "schema": {"type": "object"}, "strict": true}},
        "store": false, "include": ["reasoning.encrypted_content"], "prompt_cache_key": "k",
        "client_metadata": {"a": "b"}, "metadata": {"a": "b"}, "user": "u", "truncation": "auto",
        "top_logprobs": 3, "max_tool_calls": 4, "brand_new": 1, "conversation": null,
        "background": false
    }));
    assert_eq!(
        chat,
        json!({
            "model": "m", "stream": true, "max_tokens": 32000, "temperature": 0.5, "top_p": 1,
            "reasoning_effort": "xhigh", "verbosity": "low",
            "response_format": {"type": "json_schema", "json_schema": {"name": "n",
                "schema": {"type": "object"}, "strict": true}},
            "messages": [{"role": "user", "content": "x"}]
        })
    );
    assert_eq!(
        dropped,
        ["top_logprobs", "max_tool_calls", "brand_new", "truncation"]
    );
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let item = |item: Value| json!({"input": ["x", item]});
    for (request, param) in [
        (json!({}), "input"),
        (json!({"input": []}), "input"),
        (json!({"input": ""}), "input"),
        (json!({"input": 3}), "input"),
        (json!({"input": {"role": "user"}}), "input"),
        (json!({"input": [1]}), "input[0]"),
        (json!({"input": [{}]}), "input[0].role"),
        (json!({"input": [{"role": "user"}]}), "input[0].content"),
        (
            json!({"input": [{"role": "king", "content": ""}]}),
            "input[0].role",
        ),
        (
            json!({"input": [{"role": "user", "content": [{"type": "input_text", "text": 1}]}]}),
            "input[0].content[0].text",
        ),
        (
            json!({"input": [{"role": "user", "content": [{}]}]}),
            "input[0].content[0].type",
        ),
        (
            json!({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}),
            "input[0].content[0].image_url",
        ),
        (
            json!({"input": [{"type": "function_call", "name": "f"}]}),
            "input[0].call_id",
        ),
        (
            json!({"input": [{"type": "function_call", "call_id": "c"}]}),
            "input[0].name",
        ),
        (
            json!({"input": [{"type": "function_call", "call_id": "", "name": "f"}]}),
            "input[0].call_id",
        ),
        (
            json!({"input": [{"type": "function_call_output", "output": ""}]}),
            "input[0].call_id",
        ),
        (
            json!({"input": [{"type": "function_call_output", "call_id": "c", "output": 1}]}),
            "input[0].output",
        ),
        (
            json!({"input": [{"type": "reasoning", "summary": "x"}]}),
            "input[0].summary",
        ),
        (
            json!({"input": [{"type": "item_reference", "id": "fc_2"}]}),
            "input[0].id",
        ),
        (
            json!({"input": [{"type": "item_reference"}]}),
            "input[0].id",
        ),
        (item(json!(1)), "input[0]"),
        (json!({"input": "x", "model": 1}), "model"),
        (json!({"input": "x", "stream": "yes"}), "stream"),
        (json!({"input": "x", "store": 1}), "store"),
        (json!({"input": "x", "instructions": ["x"]}), "instructions"),
        (
            json!({"input": "x", "max_output_tokens": -1}),
            "max_output_tokens",
        ),
        (json!({"input": "x", "temperature": "hot"}), "temperature"),
        (json!({"input": "x", "metadata": []}), "metadata"),
        (json!({"input": "x", "reasoning": "high"}), "reasoning"),
        (
            json!({"input": "x", "reasoning": {"effort": 1}}),
            "reasoning.effort",
        ),
        (
            json!({"input": "x", "text": {"format": {"type": "xml"}}}),
            "text.format.type",
        ),
        (json!({"input": "x", "tools": {}}), "tools"),
        (json!({"input": "x", "tools": [{}]}), "tools[0].type"),
        (
            json!({"input": "x", "tools": [{"type": "function"}]}),
            "tools[0].name",
        ),
        (
            json!({"input": "x", "tools": [{"type": "function", "name": ""}]}),
            "tools[0].name",
        ),
        (
            json!({"input": "x", "tools": [{"type": "function", "name": "f", "parameters": []}]}),
            "tools[0].parameters",
        ),
        (
            json!({"input": "x", "tools": [{"type": "namespace", "name": "n", "tools": [
            {"type": "namespace", "name": "m", "tools": []}]}]}),
            "tools[0].tools[0]",
        ),
        (json!({"input": "x", "tool_choice": "maybe"}), "tool_choice"),
        (json!({"input": "x", "tool_choice": {}}), "tool_choice.type"),
        (json!({"input": "x", "background": true}), "background"),
        (
            json!({"input": "x", "conversation": "conv_1"}),
            "conversation",
        ),
        (json!({"input": "x", "prompt": {"id": "p"}}), "prompt"),
    ] {
        let error = refused(&request);
        assert_eq!(error.status, 400, "{request}");
        assert_eq!(error.param.as_deref(), Some(param), "{request}: {error}");
    }
    let function = |number: usize| json!({"type": "function", "name": format!("f{number}")});
    let many: Vec<Value> = (0..10_000).map(function).collect();
    let error = refused(&json!({"input": "x", "tools": many}));
    assert_eq!(error.param.as_deref(), Some("tools"));
    let half = &many[..3000];
    let namespace = |name: &str| json!({"type": "namespace", "name": name, "tools": half});
    let error = refused(&json!({"input": "x", "tools": [namespace("a"), namespace("b")]}));
    assert_eq!(
        error.param.as_deref(),
        Some("tools"),
        "together they are too many"
    );
}

#[test]
fn names_of_any_length_and_letters_stay_apart() {
    let tool = |name: &str| json!({"type": "function", "name": name});
    let long = "n".repeat(200);
    let (chat, _) = chat(&json!({"input": "x", "tools": [
        {"type": "namespace", "name": "\u{e9}\u{e9}", "tools": [tool("a.b"), tool("a-b")]},
        {"type": "namespace", "name": long, "tools": [tool(&long), tool(&format!("{long}x"))]},
    ]}));
    let names: Vec<&str> = chat["tools"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tool| tool["function"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(&names[..2], ["____a_b", "____a-b"]);
    assert_ne!(names[2], names[3]);
    assert!(names.iter().all(|name| name.len() <= 64), "{names:?}");
}

/// Thousands of names that become the same one, and as many calls of them, are no work for long.
#[test]
fn names_that_are_alike_are_told_apart_in_no_time() {
    let name = |number: usize| format!("{}{number}", "n".repeat(80));
    let tool = |number: usize| json!({"type": "function", "name": name(number)});
    let tools: Vec<Value> = (0..4000).map(tool).collect();
    let allowed: Vec<Value> = (0..4000).map(tool).collect();
    let call = |number: usize| {
        json!({"type": "function_call", "call_id": format!("c{number}"), "namespace": "s",
            "name": name(number % 4000)})
    };
    let input: Vec<Value> = (0..8000).map(call).collect();
    let begun = std::time::Instant::now();
    let (chat, _) = chat(&json!({
        "input": input, "tools": [{"type": "namespace", "name": "s", "tools": tools}],
        "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": allowed}
    }));
    let took = begun.elapsed();
    assert!(
        took.as_secs() < 5,
        "{took:?} in a build without optimisation"
    );
    let mut sent: Vec<&str> = chat["messages"][0]["tool_calls"]
        .as_array()
        .unwrap()
        .iter()
        .map(|call| call["function"]["name"].as_str().unwrap())
        .collect();
    sent.sort_unstable();
    sent.dedup();
    assert_eq!(sent.len(), 4000, "each has a name of its own");
}
