//! The event streams of the vendors that have more than one kind of event.

use serde_json::{Value, json};

use super::{Part, USAGE, data, joined, named};

pub fn openai_events(parts: &[Part<'_>]) -> Vec<String> {
    let (prompt, completion, total) = USAGE;
    let chunk = |choices: Value, usage: Value| {
        data(&json!({
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_700_000_000,
            "model": "gpt-4o-mini-2024-07-18", "choices": choices, "usage": usage
        }))
    };
    let delta = |delta: Value, finish: Value| {
        chunk(
            json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish}]),
            Value::Null,
        )
    };
    let mut events = vec![delta(
        json!({"role": "assistant", "content": "", "refusal": null}),
        Value::Null,
    )];
    let mut calls = 0;
    for part in parts {
        match part {
            Part::Text(text) => events.push(delta(json!({"content": text}), Value::Null)),
            Part::Call(id, name, arguments) => {
                let function = json!({"name": name, "arguments": ""});
                let call =
                    json!({"index": calls, "id": id, "type": "function", "function": function});
                events.push(delta(json!({"tool_calls": [call]}), Value::Null));
                for piece in halves(&arguments.to_string()) {
                    let call = json!({"index": calls, "function": {"arguments": piece}});
                    events.push(delta(json!({"tool_calls": [call]}), Value::Null));
                }
                calls += 1;
            }
        }
    }
    let finish = if calls > 0 { "tool_calls" } else { "stop" };
    events.push(delta(json!({}), json!(finish)));
    let usage = json!({
        "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total
    });
    events.push(chunk(json!([]), usage));
    events.push("data: [DONE]\n\n".into());
    events
}

pub fn anthropic_events(parts: &[Part<'_>]) -> Vec<String> {
    let (prompt, completion, _) = USAGE;
    let mut events = vec![named(&json!({
        "type": "message_start", "message": {
            "id": "msg_1", "type": "message", "role": "assistant",
            "model": "claude-sonnet-4-5-20250929", "content": [],
            "stop_reason": null, "stop_sequence": null,
            "usage": {"input_tokens": prompt, "output_tokens": 1}
        }
    }))];
    let mut push = |body: Value| events.push(named(&body));
    // All text is one block, as Claude writes it; each call is a block of its own.
    let texts: Vec<&str> = parts
        .iter()
        .filter_map(|part| match part {
            Part::Text(text) => Some(*text),
            Part::Call(..) => None,
        })
        .collect();
    let mut index = 0;
    if !texts.is_empty() {
        push(json!({"type": "content_block_start", "index": 0,
            "content_block": {"type": "text", "text": ""}}));
        for text in texts {
            push(json!({"type": "content_block_delta", "index": 0,
                "delta": {"type": "text_delta", "text": text}}));
        }
        push(json!({"type": "content_block_stop", "index": 0}));
        index += 1;
    }
    for part in parts {
        let Part::Call(id, name, arguments) = part else {
            continue;
        };
        push(json!({"type": "content_block_start", "index": index,
            "content_block": {"type": "tool_use", "id": id, "name": name, "input": {}}}));
        for piece in halves(&arguments.to_string()) {
            push(json!({"type": "content_block_delta", "index": index,
                "delta": {"type": "input_json_delta", "partial_json": piece}}));
        }
        push(json!({"type": "content_block_stop", "index": index}));
        index += 1;
    }
    let called = parts.iter().any(Part::is_call);
    push(json!({"type": "message_delta",
        "delta": {"stop_reason": if called { "tool_use" } else { "end_turn" },
            "stop_sequence": null},
        "usage": {"output_tokens": completion}}));
    push(json!({"type": "message_stop"}));
    events
}

/// A whole Responses answer.
pub fn response(parts: &[Part<'_>], status: &str) -> Value {
    let (prompt, completion, total) = USAGE;
    let item = |(position, part): (usize, &Part<'_>)| match part {
        Part::Text(text) => json!({
            "type": "message", "id": format!("msg_{position}"), "status": status,
            "role": "assistant",
            "content": [{"type": "output_text", "text": text, "annotations": []}]
        }),
        Part::Call(id, name, arguments) => json!({
            "type": "function_call", "id": format!("fc_{position}"), "status": status,
            "call_id": id, "name": name, "arguments": arguments.to_string()
        }),
    };
    json!({
        "id": "resp_1", "object": "response", "created_at": 1_700_000_000, "status": status,
        "error": null, "incomplete_details": null, "model": "gpt-4o-mini-2024-07-18",
        "output": parts.iter().enumerate().map(item).collect::<Vec<_>>(),
        "usage": {"input_tokens": prompt, "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": completion, "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": total}
    })
}

pub fn responses_events(parts: &[Part<'_>]) -> Vec<String> {
    let mut events = Vec::new();
    let mut push = |mut body: Value| {
        body["sequence_number"] = json!(events.len());
        events.push(named(&body));
    };
    push(json!({"type": "response.created", "response": response(&[], "in_progress")}));
    // All text is one item, with a delta for each piece.
    let text = joined(parts);
    let mut whole = Vec::new();
    if parts.iter().any(|part| !part.is_call()) {
        whole.push(Part::Text(&text));
    }
    for part in parts {
        if let Part::Call(id, name, arguments) = part {
            whole.push(Part::Call(id, name, arguments));
        }
    }
    let done = response(&whole, "completed");
    for (index, part) in whole.iter().enumerate() {
        let item = &done["output"][index];
        let mut begun = item.clone();
        begun["status"] = json!("in_progress");
        match part {
            Part::Text(_) => {
                begun["content"] = json!([]);
                push(
                    json!({"type": "response.output_item.added", "output_index": index,
                    "item": begun}),
                );
                push(
                    json!({"type": "response.content_part.added", "item_id": item["id"],
                    "output_index": index, "content_index": 0,
                    "part": {"type": "output_text", "text": "", "annotations": []}}),
                );
                for piece in parts {
                    if let Part::Text(piece) = piece {
                        push(
                            json!({"type": "response.output_text.delta", "item_id": item["id"],
                            "output_index": index, "content_index": 0, "delta": piece}),
                        );
                    }
                }
                push(
                    json!({"type": "response.output_text.done", "item_id": item["id"],
                    "output_index": index, "content_index": 0, "text": text}),
                );
            }
            Part::Call(_, _, arguments) => {
                begun["arguments"] = json!("");
                push(
                    json!({"type": "response.output_item.added", "output_index": index,
                    "item": begun}),
                );
                for piece in halves(&arguments.to_string()) {
                    push(json!({"type": "response.function_call_arguments.delta",
                        "item_id": item["id"], "output_index": index, "delta": piece}));
                }
                push(json!({"type": "response.function_call_arguments.done",
                    "item_id": item["id"], "output_index": index,
                    "arguments": arguments.to_string()}));
            }
        }
        push(json!({"type": "response.output_item.done", "output_index": index, "item": item}));
    }
    push(json!({"type": "response.completed", "response": done}));
    events
}

/// `text` in two pieces, as arguments come.
fn halves(text: &str) -> [&str; 2] {
    let middle = (text.len() / 2..text.len())
        .find(|position| text.is_char_boundary(*position))
        .unwrap_or(text.len());
    let (first, second) = text.split_at(middle);
    [first, second]
}
