//! What the demo says.

use serde_json::{Map, Value, json};

use super::asked::{Asked, Choice, Tool};
use super::fault::Fault;

/// An answer, before it has a shape.
#[derive(Debug, PartialEq)]
pub enum Answer {
    /// In the pieces in which it is streamed.
    Text(Vec<String>),
    Call {
        name: String,
        arguments: Value,
    },
}

/// Tokens, four characters each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    pub prompt: usize,
    pub completion: usize,
}

/// How much of the caller's text comes back.
const ECHO: usize = 2_000;

/// Sentences of a `long` answer: about 4 000 words.
const LONG: usize = 400;

/// How deep a made-up value follows its schema. Schemas may be recursive.
const DEPTH: usize = 8;

impl Answer {
    pub fn to(asked: &Asked, fault: Option<Fault>) -> Answer {
        if let Some(tool) = called(asked, fault) {
            return Answer::Call {
                name: tool.name.clone(),
                arguments: object(sample(&tool.schema, &tool.schema, DEPTH)),
            };
        }
        if let Some(schema) = &asked.json {
            return Answer::text(&sample_json(asked, schema).to_string());
        }
        match fault {
            Some(Fault::Json) => Answer::text(&sample_json(asked, &Value::Null).to_string()),
            Some(Fault::Long) => {
                let sentence = |number: usize| {
                    format!("This is sentence {number} of a long answer of weir's demo. ")
                };
                Answer::Text((1..=LONG).map(sentence).collect())
            }
            _ => Answer::text(&words(asked)),
        }
    }

    fn text(text: &str) -> Answer {
        // Three words at a time: a few events for a short answer.
        let words: Vec<&str> = text.split_inclusive(' ').collect();
        Answer::Text(words.chunks(3).map(<[&str]>::concat).collect())
    }

    fn characters(&self) -> usize {
        match self {
            Answer::Text(pieces) => pieces.iter().map(|piece| piece.chars().count()).sum(),
            Answer::Call { name, arguments } => name.len() + arguments.to_string().chars().count(),
        }
    }
}

impl Usage {
    pub fn of(asked: &Asked, answer: &Answer) -> Usage {
        let tokens = |characters: usize| characters.div_ceil(4).max(1);
        Usage {
            prompt: tokens(asked.characters),
            completion: tokens(answer.characters()),
        }
    }

    pub fn total(self) -> usize {
        self.prompt + self.completion
    }
}

/// The tool to call, if one is to be called.
fn called(asked: &Asked, fault: Option<Fault>) -> Option<&Tool> {
    let find = |name: &str| asked.tools.iter().find(|tool| tool.name == name);
    match &asked.choice {
        Choice::None => None,
        Choice::Named(name) => find(name),
        _ if fault == Some(Fault::Tools) => asked.tools.first(),
        Choice::Any => mentioned(asked).or(asked.tools.first()),
        // Once the result is there, another call would go round for ever.
        Choice::Auto if asked.after_tool => None,
        Choice::Auto => mentioned(asked),
    }
}

fn mentioned(asked: &Asked) -> Option<&Tool> {
    asked
        .tools
        .iter()
        .find(|tool| !tool.name.is_empty() && asked.text.contains(&tool.name))
}

fn words(asked: &Asked) -> String {
    let mut said: String = asked.text.chars().take(ECHO).collect();
    if said.len() < asked.text.len() {
        said.push_str(" ...");
    }
    let mut words = "This is weir's built-in demo, no model was asked. ".to_string();
    if asked.after_tool {
        words.push_str("The result of the tool call has arrived. ");
    }
    match said.is_empty() {
        true => words.push_str("You said nothing."),
        false => words.push_str(&format!("You said: {said}")),
    }
    words
}

fn sample_json(asked: &Asked, schema: &Value) -> Value {
    if schema.is_object() {
        return sample(schema, schema, DEPTH);
    }
    json!({"demo": true, "text": words(asked)})
}

/// Arguments are an object, whatever the schema says.
fn object(value: Value) -> Value {
    match value {
        Value::Object(_) => value,
        _ => json!({}),
    }
}

/// A value that a simple schema would accept. Every property is filled in, as strict schemas want.
fn sample(schema: &Value, root: &Value, depth: usize) -> Value {
    if depth == 0 {
        return Value::Null;
    }
    let deeper = |schema: &Value| sample(schema, root, depth - 1);
    if let Some(target) = schema["$ref"].as_str() {
        let found = target.strip_prefix('#').and_then(|path| root.pointer(path));
        return found.map(deeper).unwrap_or_default();
    }
    if let Some(value) = schema.get("const").or(schema["enum"].get(0)) {
        return value.clone();
    }
    for name in ["anyOf", "oneOf", "allOf"] {
        if let Some(first) = schema[name].get(0) {
            return deeper(first);
        }
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds.first().and_then(Value::as_str),
        kind => kind.as_str(),
    };
    // Gemini's old schemas have their types in upper case.
    match kind.map(str::to_ascii_lowercase).as_deref() {
        Some("string") => json!("demo"),
        Some("integer" | "number") => match schema["minimum"].as_i64() {
            Some(minimum) => json!(minimum.max(1)),
            None => json!(1),
        },
        Some("boolean") => json!(true),
        Some("array") => match schema["minItems"].as_u64() {
            Some(1..) => json!([deeper(&schema["items"])]),
            _ => json!([]),
        },
        Some("object") | None => {
            let properties = schema["properties"].as_object();
            let fields: Map<String, Value> = properties
                .into_iter()
                .flatten()
                .map(|(name, property)| (name.clone(), deeper(property)))
                .collect();
            Value::Object(fields)
        }
        Some(_) => Value::Null,
    }
}
