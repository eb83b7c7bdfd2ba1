//! Answers in the shapes of the vendors, whole and streamed, and their error bodies.

use serde_json::{Value, json};

use super::{Received, Reply};

/// The upstream formats, as the config names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    OpenAi,
    Anthropic,
    Gemini,
    Responses,
}

/// Prompt, completion and total tokens that every answer of this file reports.
pub const USAGE: (u64, u64, u64) = (11, 7, 18);

impl Format {
    /// The formats of the scripted answers that need no test of their own.
    pub const CHAT: [Format; 3] = [Format::OpenAi, Format::Anthropic, Format::Gemini];

    pub fn name(self) -> &'static str {
        match self {
            Format::OpenAi => "openai",
            Format::Anthropic => "anthropic",
            Format::Gemini => "gemini",
            Format::Responses => "responses",
        }
    }

    /// A model that this format's vendor would serve.
    pub fn model(self) -> &'static str {
        match self {
            Format::OpenAi | Format::Responses => "gpt-4o-mini",
            Format::Anthropic => "claude-sonnet-4-5",
            Format::Gemini => "gemini-2.5-flash",
        }
    }

    /// Where a request for that model must arrive.
    pub fn path(self, stream: bool) -> &'static str {
        match (self, stream) {
            (Format::OpenAi, _) => "/v1/chat/completions",
            (Format::Responses, _) => "/v1/responses",
            (Format::Anthropic, _) => "/v1/messages",
            (Format::Gemini, false) => "/v1beta/models/gemini-2.5-flash:generateContent",
            (Format::Gemini, true) => {
                "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse"
            }
        }
    }

    /// `pieces` as the text of an answer, streamed if the request asks for it.
    pub fn answer(self, request: &Received, pieces: &[&str]) -> Reply {
        if !request.wants_stream() {
            return self.whole(&pieces.concat());
        }
        let mut events = self.events(pieces);
        let body = request.json();
        if self == Format::OpenAi && body["stream_options"]["include_usage"] != true {
            // The vendor counts in streams for those who ask.
            events.retain(|event| !event.contains("\"choices\":[]"));
            for event in &mut events {
                *event = event.replace(",\"usage\":null", "");
            }
        }
        Reply::stream().events(&events).end()
    }

    /// A whole answer that says `text`.
    pub fn whole(self, text: &str) -> Reply {
        Reply::json(200, &self.body(&[Part::Text(text)]))
    }

    /// A complete stream that says `pieces`, one event each.
    pub fn stream(self, pieces: &[&str]) -> Reply {
        Reply::stream().events(&self.events(pieces)).end()
    }

    /// The events of such a stream. The first one that holds output is the one for `pieces[0]`.
    pub fn events(self, pieces: &[&str]) -> Vec<String> {
        let parts: Vec<Part<'_>> = pieces.iter().map(|piece| Part::Text(piece)).collect();
        self.part_events(&parts)
    }

    /// How many of `events` must have left until the caller can have seen `pieces[0]`.
    pub fn events_to_first_text(self) -> usize {
        match self {
            Format::OpenAi => 2,
            Format::Anthropic => 3,
            Format::Gemini => 1,
            Format::Responses => 4,
        }
    }

    /// A whole answer of one tool call.
    pub fn whole_call(self, id: &str, name: &str, arguments: &Value) -> Reply {
        Reply::json(200, &self.body(&[Part::Call(id, name, arguments)]))
    }

    pub fn stream_call(self, id: &str, name: &str, arguments: &Value) -> Reply {
        let events = self.part_events(&[Part::Call(id, name, arguments)]);
        Reply::stream().events(&events).end()
    }

    /// An error body as the vendor writes it.
    pub fn error(self, status: u16, kind: &str, message: &str) -> Reply {
        Reply::json(status, &self.error_body(status, kind, message))
    }

    pub fn error_body(self, status: u16, kind: &str, message: &str) -> Value {
        match self {
            Format::OpenAi | Format::Responses => json!({
                "error": {"message": message, "type": kind, "param": null, "code": kind}
            }),
            Format::Anthropic => json!({
                "type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"
            }),
            Format::Gemini => json!({
                "error": {"code": status, "message": message, "status": kind.to_ascii_uppercase()}
            }),
        }
    }

    /// An error inside a stream that began with 200.
    pub fn error_event(self, status: u16, kind: &str, message: &str) -> String {
        let body = self.error_body(status, kind, message);
        match self {
            Format::Anthropic => named(&body),
            _ => data(&body),
        }
    }

    fn body(self, parts: &[Part<'_>]) -> Value {
        let called = parts.iter().any(Part::is_call);
        let (prompt, completion, total) = USAGE;
        match self {
            Format::OpenAi => {
                let mut message = json!({
                    "role": "assistant", "content": joined(parts), "refusal": null
                });
                if called {
                    message["content"] = Value::Null;
                    message["tool_calls"] = parts.iter().filter_map(Part::openai).collect();
                }
                json!({
                    "id": "chatcmpl-1", "object": "chat.completion", "created": 1_700_000_000,
                    "model": "gpt-4o-mini-2024-07-18",
                    "choices": [{"index": 0, "message": message, "logprobs": null,
                        "finish_reason": if called { "tool_calls" } else { "stop" }}],
                    "usage": {"prompt_tokens": prompt, "completion_tokens": completion,
                        "total_tokens": total}
                })
            }
            Format::Anthropic => json!({
                "id": "msg_1", "type": "message", "role": "assistant",
                "model": "claude-sonnet-4-5-20250929",
                "content": parts.iter().map(Part::anthropic).collect::<Vec<_>>(),
                "stop_reason": if called { "tool_use" } else { "end_turn" },
                "stop_sequence": null,
                "usage": {"input_tokens": prompt, "output_tokens": completion}
            }),
            Format::Gemini => json!({
                "candidates": [{"index": 0, "finishReason": "STOP",
                    "content": {"role": "model",
                        "parts": parts.iter().map(Part::gemini).collect::<Vec<_>>()}}],
                "usageMetadata": {"promptTokenCount": prompt, "candidatesTokenCount": completion,
                    "totalTokenCount": total},
                "modelVersion": "gemini-2.5-flash", "responseId": "r1"
            }),
            Format::Responses => response(parts, "completed"),
        }
    }

    fn part_events(self, parts: &[Part<'_>]) -> Vec<String> {
        match self {
            Format::OpenAi => openai_events(parts),
            Format::Anthropic => anthropic_events(parts),
            Format::Gemini => {
                let last = parts.len().saturating_sub(1);
                let event = |(position, part): (usize, &Part<'_>)| {
                    let mut body = self.body(std::slice::from_ref(part));
                    if position < last {
                        body["candidates"][0]
                            .as_object_mut()
                            .unwrap()
                            .remove("finishReason");
                    }
                    data(&body).replace('\n', "\r\n")
                };
                parts.iter().enumerate().map(event).collect()
            }
            Format::Responses => responses_events(parts),
        }
    }
}

/// A piece of an answer.
enum Part<'a> {
    Text(&'a str),
    /// Id, name, arguments.
    Call(&'a str, &'a str, &'a Value),
}

impl Part<'_> {
    fn is_call(&self) -> bool {
        matches!(self, Part::Call(..))
    }

    fn openai(&self) -> Option<Value> {
        match self {
            Part::Text(_) => None,
            Part::Call(id, name, arguments) => Some(json!({
                "id": id, "type": "function",
                "function": {"name": name, "arguments": arguments.to_string()}
            })),
        }
    }

    fn anthropic(&self) -> Value {
        match self {
            Part::Text(text) => json!({"type": "text", "text": text}),
            Part::Call(id, name, arguments) => {
                json!({"type": "tool_use", "id": id, "name": name, "input": arguments})
            }
        }
    }

    fn gemini(&self) -> Value {
        match self {
            Part::Text(text) => json!({"text": text}),
            Part::Call(id, name, arguments) => {
                json!({"functionCall": {"id": id, "name": name, "args": arguments}})
            }
        }
    }
}

fn joined(parts: &[Part<'_>]) -> String {
    let text = |part: &Part<'_>| match part {
        Part::Text(text) => text.to_string(),
        Part::Call(..) => String::new(),
    };
    parts.iter().map(text).collect()
}

fn data(body: &Value) -> String {
    format!("data: {body}\n\n")
}

/// An event whose name repeats the `type` inside.
fn named(body: &Value) -> String {
    format!(
        "event: {}\ndata: {body}\n\n",
        body["type"].as_str().unwrap()
    )
}

fn openai_events(parts: &[Part<'_>]) -> Vec<String> {
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

fn anthropic_events(parts: &[Part<'_>]) -> Vec<String> {
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
fn response(parts: &[Part<'_>], status: &str) -> Value {
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

fn responses_events(parts: &[Part<'_>]) -> Vec<String> {
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
