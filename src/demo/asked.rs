//! What a request asks of the demo, read out of three formats.
//!
//! Reads no more than an answer needs, and leniently: the demo is no validator.

use serde_json::Value;

/// The formats that the demo speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    OpenAi,
    Anthropic,
    Gemini,
}

impl Dialect {
    pub fn of_path(path: &str) -> Option<Dialect> {
        let path = path.split('?').next().unwrap_or_default();
        if path.ends_with("/chat/completions") {
            Some(Dialect::OpenAi)
        } else if path.ends_with("/messages") {
            Some(Dialect::Anthropic)
        } else if path.ends_with(":generateContent") || path.ends_with(":streamGenerateContent") {
            Some(Dialect::Gemini)
        } else {
            None
        }
    }
}

/// A request, as far as the demo understands it.
#[derive(Debug)]
pub struct Asked {
    pub dialect: Dialect,
    pub model: String,
    pub stream: bool,
    /// OpenAI's `stream_options.include_usage`.
    pub usage_in_stream: bool,
    /// The last user text.
    pub text: String,
    /// Characters of all texts that came in.
    pub characters: usize,
    pub tools: Vec<Tool>,
    pub choice: Choice,
    /// The last message carries the result of a tool call.
    pub after_tool: bool,
    /// JSON is wanted; the schema may be null.
    pub json: Option<Value>,
}

#[derive(Debug)]
pub struct Tool {
    pub name: String,
    pub schema: Value,
}

/// Whether a tool shall be called.
#[derive(Debug, PartialEq, Eq)]
pub enum Choice {
    Auto,
    None,
    Any,
    Named(String),
}

impl Asked {
    /// The error is a sentence for the caller.
    pub fn read(dialect: Dialect, path: &str, body: &[u8]) -> Result<Asked, String> {
        let body: Value = serde_json::from_slice(body)
            .map_err(|error| format!("the request body is not JSON: {error}"))?;
        let asked = match dialect {
            Dialect::OpenAi => openai(&body),
            Dialect::Anthropic => anthropic(&body),
            Dialect::Gemini => gemini(path, &body),
        };
        asked.ok_or_else(|| "the request has no model or no messages".to_string())
    }
}

fn openai(body: &Value) -> Option<Asked> {
    let messages = body["messages"].as_array()?;
    let user = messages.iter().rfind(|message| message["role"] == "user");
    let format = &body["response_format"];
    let choice = &body["tool_choice"];
    Some(Asked {
        dialect: Dialect::OpenAi,
        model: body["model"].as_str()?.to_string(),
        stream: body["stream"] == true,
        usage_in_stream: body["stream_options"]["include_usage"] == true,
        text: user.map(|user| texts(&user["content"])).unwrap_or_default(),
        characters: characters(&body["messages"]),
        tools: items(&body["tools"])
            .filter_map(|tool| tool_of(&tool["function"], &["parameters"]))
            .collect(),
        choice: match choice.as_str() {
            Some("none") => Choice::None,
            Some("required") => Choice::Any,
            _ => named(&choice["function"]["name"]),
        },
        after_tool: messages
            .last()
            .is_some_and(|message| message["role"] == "tool"),
        json: match format["type"].as_str() {
            Some("json_schema") => Some(format["json_schema"]["schema"].clone()),
            Some("json_object") => Some(Value::Null),
            _ => None,
        },
    })
}

fn anthropic(body: &Value) -> Option<Asked> {
    let messages = body["messages"].as_array()?;
    let user = messages.iter().rfind(|message| message["role"] == "user");
    let choice = &body["tool_choice"];
    let format = &body["output_config"]["format"];
    // Anthropic has no JSON mode; it is asked for in words.
    let in_words = texts(&body["system"]).contains("single JSON object");
    Some(Asked {
        dialect: Dialect::Anthropic,
        model: body["model"].as_str()?.to_string(),
        stream: body["stream"] == true,
        usage_in_stream: true,
        text: user.map(|user| texts(&user["content"])).unwrap_or_default(),
        characters: characters(&body["messages"]) + characters(&body["system"]),
        tools: items(&body["tools"])
            .filter_map(|tool| tool_of(tool, &["input_schema"]))
            .collect(),
        choice: match choice["type"].as_str() {
            Some("none") => Choice::None,
            Some("any") => Choice::Any,
            Some("tool") => named(&choice["name"]),
            _ => Choice::Auto,
        },
        after_tool: messages.last().is_some_and(|message| {
            items(&message["content"]).any(|block| block["type"] == "tool_result")
        }),
        json: match format["type"].as_str() {
            Some("json_schema") => Some(format["schema"].clone()),
            _ => in_words.then_some(Value::Null),
        },
    })
}

fn gemini(path: &str, body: &Value) -> Option<Asked> {
    let contents = body["contents"].as_array()?;
    let user = contents
        .iter()
        .rfind(|content| content["role"] != "model" && !texts(&content["parts"]).is_empty());
    let (before, method) = path.split('?').next()?.rsplit_once(':')?;
    let config = &body["generationConfig"];
    let calling = &body["toolConfig"]["functionCallingConfig"];
    let json = config["responseMimeType"] == "application/json";
    let schema = ["responseJsonSchema", "responseSchema"]
        .iter()
        .find_map(|name| config.get(name));
    Some(Asked {
        dialect: Dialect::Gemini,
        // A model of ours can have a slash in its name, which stands escaped in a path.
        model: before
            .rsplit_once("models/")
            .map_or(before, |(_, model)| model)
            .replace("%2F", "/"),
        stream: method == "streamGenerateContent",
        usage_in_stream: true,
        text: user.map(|user| texts(&user["parts"])).unwrap_or_default(),
        characters: characters(&body["contents"]) + characters(&body["systemInstruction"]),
        tools: items(&body["tools"])
            .flat_map(|entry| items(&entry["functionDeclarations"]))
            .filter_map(|tool| tool_of(tool, &["parametersJsonSchema", "parameters"]))
            .collect(),
        choice: match calling["mode"].as_str() {
            Some("NONE") => Choice::None,
            Some("ANY") => match calling["allowedFunctionNames"][0].as_str() {
                Some(name) => Choice::Named(name.to_string()),
                None => Choice::Any,
            },
            _ => Choice::Auto,
        },
        after_tool: contents.last().is_some_and(|content| {
            items(&content["parts"]).any(|part| part.get("functionResponse").is_some())
        }),
        json: json.then(|| schema.cloned().unwrap_or_default()),
    })
}

fn named(name: &Value) -> Choice {
    match name.as_str() {
        Some(name) => Choice::Named(name.to_string()),
        None => Choice::Auto,
    }
}

fn tool_of(tool: &Value, schemas: &[&str]) -> Option<Tool> {
    Some(Tool {
        name: tool["name"].as_str()?.to_string(),
        schema: schemas
            .iter()
            .find_map(|name| tool.get(name))
            .cloned()
            .unwrap_or_default(),
    })
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// The text of a content, which is a string or a list of parts.
fn texts(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            let texts: Vec<&str> = parts
                .iter()
                .filter_map(|part| part["text"].as_str())
                .collect();
            texts.join(" ")
        }
        _ => String::new(),
    }
}

/// The characters of every string inside, names and roles included: tokens are no exact science.
fn characters(value: &Value) -> usize {
    match value {
        Value::String(text) => text.chars().count(),
        Value::Array(items) => items.iter().map(characters).sum(),
        Value::Object(fields) => fields.values().map(characters).sum(),
        _ => 0,
    }
}
