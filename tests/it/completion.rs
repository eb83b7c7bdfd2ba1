//! A chat completion as a caller understands it, whole or put together from chunks, with the
//! rules of the chunk stream checked on the way.

use serde_json::Value;

use crate::client::{Arrived, End, Item};

/// What an answer says, in a form in which a whole one and a streamed one are equal.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Completion {
    pub model: String,
    pub content: String,
    pub reasoning: String,
    pub refusal: String,
    pub calls: Vec<Call>,
    pub finish: Option<String>,
    pub usage: Option<Value>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Call {
    pub id: String,
    pub name: String,
    /// As text; compare the parsed value where key order is not promised.
    pub arguments: String,
}

impl Completion {
    /// From the body of `chat.completion`, its first choice.
    pub fn whole(body: &Value) -> Completion {
        assert_eq!(body["object"], "chat.completion", "{body}");
        assert_eq!(body["choices"][0]["message"]["role"], "assistant", "{body}");
        assert!(body["id"].is_string() && body["created"].is_u64(), "{body}");
        Completion::of_body(body)
    }

    /// The same without a look at what the answer should have besides.
    pub fn of_body(body: &Value) -> Completion {
        let choice = &body["choices"][0];
        let message = &choice["message"];
        let mut completion = Completion {
            model: text(&body["model"]),
            content: text(&message["content"]),
            reasoning: reasoning(message),
            refusal: text(&message["refusal"]),
            finish: choice["finish_reason"].as_str().map(str::to_string),
            usage: body.get("usage").filter(|usage| usage.is_object()).cloned(),
            ..Completion::default()
        };
        for call in message["tool_calls"].as_array().into_iter().flatten() {
            completion.calls.push(Call {
                id: text(&call["id"]),
                name: text(&call["function"]["name"]),
                arguments: text(&call["function"]["arguments"]),
            });
        }
        completion
    }
}

/// A chunk stream, read to its end.
#[derive(Debug, Clone, Default)]
pub struct Streamed {
    /// The first choice.
    pub completion: Completion,
    pub chunks: Vec<Value>,
    /// The error event, if the stream ended with one.
    pub error: Option<Value>,
    /// `[DONE]` came, as the last event.
    pub done: bool,
    pub heartbeats: usize,
}

impl Streamed {
    /// Puts the chunks of a stream together. Panics where a rule that holds for every stream is
    /// broken: something after the last event, an id or a role twice, an index out of turn, lines
    /// other than data and comments.
    pub fn read(stream: (Vec<Arrived>, End)) -> Streamed {
        Streamed::put_together(stream, true)
    }

    /// The same for a stream that was read as one body, properly framed to its end.
    pub fn of_body(body: &str) -> Streamed {
        let now = std::time::Instant::now();
        let items = body.split_terminator("\n\n").map(|block| {
            let item = match (block.strip_prefix("data: "), block.strip_prefix(": ")) {
                (Some(data), _) => Item::Data(data.replace("\ndata: ", "\n")),
                (_, Some(comment)) => Item::Comment(comment.to_string()),
                _ => Item::Odd(block.to_string()),
            };
            Arrived { item, at: now }
        });
        assert!(
            body.ends_with("\n\n"),
            "the stream ended inside an event: {body:?}"
        );
        Streamed::read((items.collect(), End::Framed))
    }

    /// The same for chunks that a compatible server wrote in its own way: only the rules that
    /// are weir's own are held.
    pub fn read_relayed(stream: (Vec<Arrived>, End)) -> Streamed {
        Streamed::put_together(stream, false)
    }

    fn put_together((items, end): (Vec<Arrived>, End), strict: bool) -> Streamed {
        let mut streamed = Streamed::default();
        let mut role = false;
        for Arrived { item, .. } in items {
            let over = streamed.done || streamed.error.is_some();
            assert!(!over, "{item:?} after the last event");
            let data = match item {
                Item::Data(data) => data,
                Item::Comment(_) => {
                    streamed.heartbeats += 1;
                    continue;
                }
                Item::Odd(text) => panic!("neither data nor a comment: {text:?}"),
            };
            if data == "[DONE]" {
                streamed.done = true;
                continue;
            }
            let chunk: Value = serde_json::from_str(&data)
                .unwrap_or_else(|error| panic!("{error} in the event {data:?}"));
            if let Some(error) = chunk.get("error").filter(|error| !error.is_null()) {
                streamed.error = Some(error.clone());
                continue;
            }
            streamed.completion.add(&chunk, &mut role, strict);
            if !strict {
                streamed.chunks.push(chunk);
                continue;
            }
            assert_eq!(chunk["object"], "chat.completion.chunk", "{chunk}");
            if let Some(first) = streamed.chunks.first() {
                for field in ["id", "created", "model"] {
                    assert_eq!(chunk[field], first[field], "{field} changed: {chunk}");
                }
            }
            streamed.chunks.push(chunk);
        }
        if streamed.done {
            assert_eq!(end, End::Framed, "cut after [DONE]");
        }
        streamed
    }
}

impl Completion {
    /// Takes one chunk in. `role` tells whether there was one before.
    pub fn add(&mut self, chunk: &Value, role: &mut bool, strict: bool) {
        if let Some(usage) = chunk.get("usage").filter(|usage| usage.is_object()) {
            self.usage = Some(usage.clone());
        }
        self.model = text(&chunk["model"]);
        let choices = chunk["choices"].as_array();
        assert!(choices.is_some() || !strict, "no choices: {chunk}");
        let mut choices = choices.into_iter().flatten();
        let Some(choice) = choices.find(|choice| choice["index"] == 0) else {
            return;
        };
        let delta = &choice["delta"];
        if delta.get("role").is_some_and(Value::is_string) {
            assert!(!(strict && *role), "a second role: {chunk}");
            *role = true;
        }
        self.content.push_str(&text(&delta["content"]));
        self.reasoning.push_str(&reasoning(delta));
        self.refusal.push_str(&text(&delta["refusal"]));
        for piece in delta["tool_calls"].as_array().into_iter().flatten() {
            let index = piece["index"]
                .as_u64()
                .expect("an index in each call delta") as usize;
            assert!(index <= self.calls.len(), "an index out of turn: {chunk}");
            if index == self.calls.len() {
                self.calls.push(Call::default());
            }
            let call = &mut self.calls[index];
            call.id.push_str(&text(&piece["id"]));
            call.name.push_str(&text(&piece["function"]["name"]));
            call.arguments
                .push_str(&text(&piece["function"]["arguments"]));
        }
        if let Some(finish) = choice["finish_reason"]
            .as_str()
            .filter(|word| !word.is_empty())
        {
            assert!(
                !strict || self.finish.is_none(),
                "a second finish reason: {chunk}"
            );
            self.finish = Some(finish.to_string());
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_string()
}

/// Compatible servers call it one or the other.
fn reasoning(holder: &Value) -> String {
    match holder["reasoning_content"].as_str() {
        Some(reasoning) => reasoning.to_string(),
        None => text(&holder["reasoning"]),
    }
}
