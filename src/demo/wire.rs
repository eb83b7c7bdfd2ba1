//! The demo's answers in the shapes of three vendors, as their API references show them.

use serde_json::{Value, json};

use super::answer::{Answer, Usage};
use super::asked::{Asked, Dialect};

/// An answer and what belongs to it.
pub struct Told<'a> {
    pub asked: &'a Asked,
    pub answer: &'a Answer,
    pub usage: Usage,
    /// Makes ids differ.
    pub number: u64,
}

/// The events of a stream.
pub struct Events {
    /// Each with its blank line.
    pub texts: Vec<String>,
    /// Which of them is the first that says something.
    pub first_words: usize,
}

/// An error body.
pub fn error(dialect: Dialect, status: u16, message: &str) -> Value {
    match dialect {
        Dialect::OpenAi => {
            let (kind, code) = match status {
                401 => ("authentication_error", json!("invalid_api_key")),
                429 => ("rate_limit_error", json!("rate_limit_exceeded")),
                400..=499 => ("invalid_request_error", Value::Null),
                _ => ("server_error", Value::Null),
            };
            json!({"error": {"message": message, "type": kind, "param": null, "code": code}})
        }
        Dialect::Anthropic => {
            let kind = match status {
                401 => "authentication_error",
                403 => "permission_error",
                404 => "not_found_error",
                413 => "request_too_large",
                429 => "rate_limit_error",
                529 => "overloaded_error",
                400..=499 => "invalid_request_error",
                _ => "api_error",
            };
            json!({"type": "error", "error": {"type": kind, "message": message}})
        }
        Dialect::Gemini => {
            let name = match status {
                401 => "UNAUTHENTICATED",
                403 => "PERMISSION_DENIED",
                404 => "NOT_FOUND",
                429 => "RESOURCE_EXHAUSTED",
                400..=499 => "INVALID_ARGUMENT",
                503 => "UNAVAILABLE",
                504 => "DEADLINE_EXCEEDED",
                _ => "INTERNAL",
            };
            json!({"error": {"code": status, "message": message, "status": name}})
        }
    }
}

impl Told<'_> {
    pub fn whole(&self) -> Value {
        match self.asked.dialect {
            Dialect::OpenAi => self.openai(),
            Dialect::Anthropic => self.anthropic(),
            Dialect::Gemini => self.gemini(self.gemini_parts(), Some("STOP")),
        }
    }

    pub fn events(&self) -> Events {
        match self.asked.dialect {
            Dialect::OpenAi => self.openai_events(),
            Dialect::Anthropic => self.anthropic_events(),
            Dialect::Gemini => self.gemini_events(),
        }
    }

    fn openai_usage(&self) -> Value {
        json!({
            "prompt_tokens": self.usage.prompt, "completion_tokens": self.usage.completion,
            "total_tokens": self.usage.total()
        })
    }

    fn openai_finish(&self) -> &'static str {
        match self.answer {
            Answer::Text(_) => "stop",
            Answer::Call { .. } => "tool_calls",
        }
    }

    fn openai(&self) -> Value {
        let mut message = json!({"role": "assistant", "content": null, "refusal": null});
        match self.answer {
            Answer::Text(pieces) => message["content"] = json!(pieces.concat()),
            Answer::Call { name, arguments } => {
                message["tool_calls"] = json!([{
                    "id": format!("call_demo{}", self.number), "type": "function",
                    "function": {"name": name, "arguments": arguments.to_string()}
                }]);
            }
        }
        json!({
            "id": format!("chatcmpl-demo{}", self.number), "object": "chat.completion",
            "created": now(), "model": self.asked.model,
            "choices": [{"index": 0, "message": message, "logprobs": null,
                "finish_reason": self.openai_finish()}],
            "usage": self.openai_usage()
        })
    }

    fn openai_events(&self) -> Events {
        let created = now();
        let wanted = self.asked.usage_in_stream;
        let chunk = |choices: Value, usage: Value| {
            let mut chunk = json!({
                "id": format!("chatcmpl-demo{}", self.number),
                "object": "chat.completion.chunk", "created": created,
                "model": self.asked.model, "choices": choices
            });
            if wanted {
                chunk["usage"] = usage;
            }
            data(&chunk)
        };
        let delta = |delta: Value, finish: Value| {
            let choice = json!({"index": 0, "delta": delta, "finish_reason": finish});
            chunk(json!([choice]), Value::Null)
        };
        let role = json!({"role": "assistant", "content": ""});
        let mut texts = vec![delta(role, Value::Null)];
        match self.answer {
            Answer::Text(pieces) => {
                for piece in pieces {
                    texts.push(delta(json!({"content": piece}), Value::Null));
                }
            }
            Answer::Call { name, arguments } => {
                let call = json!({
                    "index": 0, "id": format!("call_demo{}", self.number), "type": "function",
                    "function": {"name": name, "arguments": ""}
                });
                texts.push(delta(json!({"tool_calls": [call]}), Value::Null));
                for piece in pieces_of(&arguments.to_string()) {
                    let call = json!({"index": 0, "function": {"arguments": piece}});
                    texts.push(delta(json!({"tool_calls": [call]}), Value::Null));
                }
            }
        }
        texts.push(delta(json!({}), json!(self.openai_finish())));
        if wanted {
            texts.push(chunk(json!([]), self.openai_usage()));
        }
        texts.push("data: [DONE]\n\n".to_string());
        Events {
            texts,
            first_words: 1,
        }
    }

    fn anthropic_stop(&self) -> &'static str {
        match self.answer {
            Answer::Text(_) => "end_turn",
            Answer::Call { .. } => "tool_use",
        }
    }

    /// The message around `content`.
    fn anthropic_message(&self, content: Value, stop: Value, completion: usize) -> Value {
        json!({
            "id": format!("msg_demo{}", self.number), "type": "message", "role": "assistant",
            "model": self.asked.model, "content": content,
            "stop_reason": stop, "stop_sequence": null,
            "usage": {"input_tokens": self.usage.prompt, "output_tokens": completion}
        })
    }

    fn anthropic_call(&self, name: &str, input: &Value) -> Value {
        let id = format!("toolu_demo{}", self.number);
        json!({"type": "tool_use", "id": id, "name": name, "input": input})
    }

    fn anthropic(&self) -> Value {
        let block = match self.answer {
            Answer::Text(pieces) => json!({"type": "text", "text": pieces.concat()}),
            Answer::Call { name, arguments } => self.anthropic_call(name, arguments),
        };
        let stop = json!(self.anthropic_stop());
        self.anthropic_message(json!([block]), stop, self.usage.completion)
    }

    fn anthropic_events(&self) -> Events {
        let begun = self.anthropic_message(json!([]), Value::Null, 1);
        let mut texts = vec![named(&json!({"type": "message_start", "message": begun}))];
        let mut push = |event: Value| texts.push(named(&event));
        let block = match self.answer {
            Answer::Text(_) => json!({"type": "text", "text": ""}),
            Answer::Call { name, .. } => self.anthropic_call(name, &json!({})),
        };
        push(json!({"type": "content_block_start", "index": 0, "content_block": block}));
        push(json!({"type": "ping"}));
        let mut delta = |delta: Value| {
            push(json!({"type": "content_block_delta", "index": 0, "delta": delta}));
        };
        match self.answer {
            Answer::Text(pieces) => {
                for piece in pieces {
                    delta(json!({"type": "text_delta", "text": piece}));
                }
            }
            Answer::Call { arguments, .. } => {
                for piece in pieces_of(&arguments.to_string()) {
                    delta(json!({"type": "input_json_delta", "partial_json": piece}));
                }
            }
        }
        push(json!({"type": "content_block_stop", "index": 0}));
        push(json!({
            "type": "message_delta",
            "delta": {"stop_reason": self.anthropic_stop(), "stop_sequence": null},
            "usage": {"output_tokens": self.usage.completion}
        }));
        push(json!({"type": "message_stop"}));
        Events {
            texts,
            first_words: 3,
        }
    }

    fn gemini_parts(&self) -> Value {
        match self.answer {
            Answer::Text(pieces) => json!([{"text": pieces.concat()}]),
            Answer::Call { name, arguments } => {
                json!([{"functionCall": {"name": name, "args": arguments}}])
            }
        }
    }

    fn gemini(&self, parts: Value, finish: Option<&str>) -> Value {
        let mut candidate = json!({"content": {"role": "model", "parts": parts}, "index": 0});
        let mut usage = json!({
            "promptTokenCount": self.usage.prompt, "totalTokenCount": self.usage.prompt
        });
        if let Some(finish) = finish {
            candidate["finishReason"] = json!(finish);
            usage["candidatesTokenCount"] = json!(self.usage.completion);
            usage["totalTokenCount"] = json!(self.usage.total());
        }
        json!({
            "candidates": [candidate], "usageMetadata": usage,
            "modelVersion": self.asked.model, "responseId": format!("demo{}", self.number)
        })
    }

    fn gemini_events(&self) -> Events {
        let texts = match self.answer {
            Answer::Text(pieces) => {
                let last = pieces.len().saturating_sub(1);
                let event = |(position, piece): (usize, &String)| {
                    let finish = (position == last).then_some("STOP");
                    data(&self.gemini(json!([{"text": piece}]), finish))
                };
                pieces.iter().enumerate().map(event).collect()
            }
            Answer::Call { .. } => vec![data(&self.gemini(self.gemini_parts(), Some("STOP")))],
        };
        Events {
            texts,
            first_words: 0,
        }
    }
}

fn data(event: &Value) -> String {
    format!("data: {event}\n\n")
}

/// Anthropic's events carry their type in a line of its own as well.
fn named(event: &Value) -> String {
    let name = event["type"].as_str().unwrap_or_default();
    format!("event: {name}\n{}", data(event))
}

/// Arguments in two pieces, so that callers must put them together.
fn pieces_of(text: &str) -> [&str; 2] {
    let middle = (text.len() / 2..text.len()).find(|position| text.is_char_boundary(*position));
    let (first, second) = text.split_at(middle.unwrap_or(text.len()));
    [first, second]
}

/// Seconds of the clock, as `created` wants them.
fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
