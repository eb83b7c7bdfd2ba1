//! Answers in the shapes of the vendors, whole and streamed, and their error bodies.

use serde_json::{Value, json};

use super::{Received, Reply};

mod events;

use events::{anthropic_events, openai_events, response, responses_events};

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
    pub const ALL: [Format; 4] = [
        Format::OpenAi,
        Format::Anthropic,
        Format::Gemini,
        Format::Responses,
    ];

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

    pub fn body(self, parts: &[Part<'_>]) -> Value {
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

    /// The events of a stream that says `parts`.
    pub fn part_events(self, parts: &[Part<'_>]) -> Vec<String> {
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
pub enum Part<'a> {
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
