//! A recording read plainly from its JSON, without the decoder.

use std::collections::BTreeMap;

use serde_json::Value;

/// The answer objects of a recording, in order.
pub fn chunks(response: &Value) -> Vec<Value> {
    match (&response["body"], response["body_text"].as_str()) {
        (Value::Array(items), _) => items.clone(),
        (_, Some(text)) => text
            .replace("\r\n", "\n")
            .split("\n\n")
            .filter_map(|block| block.trim().strip_prefix("data:"))
            .map(|data| serde_json::from_str(data).unwrap())
            .collect(),
        (body, None) => vec![body.clone()],
    }
}

/// What a recording says, by a plain reading of section 8 of the translation.
#[derive(Debug, PartialEq, Default)]
pub struct Said {
    pub content: String,
    pub reasoning: String,
    /// Id, name, signature, and the arguments by path.
    pub calls: Vec<(String, String, String, BTreeMap<String, String>)>,
    pub signature: String,
    pub images: usize,
    pub refusal: String,
    pub finish: Option<&'static str>,
    /// Prompt, completion, cached, reasoning.
    pub usage: [Option<u64>; 4],
    pub citations: Vec<(String, String)>,
}

pub fn read(chunks: &[Value]) -> Said {
    let mut said = Said::default();
    let mut usage: BTreeMap<&str, u64> = BTreeMap::new();
    let mut reason = String::new();
    let mut supports = Vec::new();
    for chunk in chunks {
        for key in [
            "promptTokenCount",
            "toolUsePromptTokenCount",
            "candidatesTokenCount",
            "thoughtsTokenCount",
            "cachedContentTokenCount",
            "totalTokenCount",
        ] {
            if let Some(count) = chunk["usageMetadata"][key].as_u64() {
                usage.insert(key, count);
            }
        }
        if let Some(blocked) = chunk["promptFeedback"]["blockReason"].as_str() {
            said.refusal = format!("prompt blocked by the model provider: {blocked}");
            said.finish = Some("content_filter");
        }
        let candidate = &chunk["candidates"][0];
        for part in candidate["content"]["parts"]
            .as_array()
            .unwrap_or(&Vec::new())
        {
            let signature = part["thoughtSignature"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            if let Some(text) = part["text"].as_str() {
                if part["thought"] == true {
                    said.reasoning += text;
                } else {
                    said.content += text;
                    if !signature.is_empty() {
                        said.signature = signature.clone();
                    }
                }
            }
            if part["inlineData"]["mimeType"]
                .as_str()
                .is_some_and(|m| m.starts_with("image/"))
            {
                said.images += 1;
            }
            if let Value::Object(call) = &part["functionCall"] {
                if let Some(name) = call.get("name").and_then(Value::as_str) {
                    let id = call.get("id").and_then(Value::as_str).unwrap_or_default();
                    said.calls
                        .push((id.into(), name.into(), signature, BTreeMap::new()));
                }
                let args = &mut said.calls.last_mut().unwrap().3;
                if let Some(whole) = call.get("args") {
                    flatten("$", whole, args);
                }
                for piece in call
                    .get("partialArgs")
                    .and_then(Value::as_array)
                    .unwrap_or(&Vec::new())
                {
                    let value = match (piece["stringValue"].as_str(), &piece["numberValue"]) {
                        (Some(text), _) => text.to_owned(),
                        (None, number) => number.to_string(),
                    };
                    *args
                        .entry(piece["jsonPath"].as_str().unwrap().into())
                        .or_default() += &value;
                }
            }
        }
        if !candidate["finishReason"].is_null() {
            reason = candidate["finishReason"]
                .as_str()
                .unwrap_or("STOP")
                .to_owned();
        }
        let grounding = &candidate["groundingMetadata"];
        for support in grounding["groundingSupports"]
            .as_array()
            .unwrap_or(&Vec::new())
        {
            for index in support["groundingChunkIndices"]
                .as_array()
                .unwrap_or(&Vec::new())
            {
                let chunk = &grounding["groundingChunks"][index.as_u64().unwrap() as usize];
                if let Some(uri) = chunk["web"]["uri"].as_str() {
                    let text = support["segment"]["text"].as_str().unwrap();
                    supports.push((uri.to_owned(), text.to_owned()));
                }
            }
        }
    }
    said.citations = supports;
    match reason.as_str() {
        "" => {}
        "STOP" if said.calls.is_empty() => said.finish = Some("stop"),
        "STOP" => said.finish = Some("tool_calls"),
        "MAX_TOKENS" => said.finish = Some("length"),
        other => {
            said.finish = Some("content_filter");
            said.refusal = format!("blocked by the model provider: {other}");
        }
    }
    let get = |key| usage.get(key).copied();
    let prompt = get("promptTokenCount").map(|p| p + get("toolUsePromptTokenCount").unwrap_or(0));
    let completion = match (get("totalTokenCount"), prompt) {
        (Some(total), Some(prompt)) if total >= prompt => Some(total - prompt),
        _ => get("candidatesTokenCount")
            .map(|c| c + get("thoughtsTokenCount").unwrap_or(0))
            .or(get("thoughtsTokenCount")),
    };
    said.usage = [
        prompt,
        completion,
        get("cachedContentTokenCount"),
        get("thoughtsTokenCount"),
    ];
    said
}

/// A JSON value as its leaves by path; strings bare.
pub fn flatten(path: &str, value: &Value, leaves: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                flatten(&format!("{path}.{key}"), value, leaves);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                flatten(&format!("{path}[{index}]"), value, leaves);
            }
        }
        Value::String(text) => drop(leaves.insert(path.into(), text.clone())),
        other => drop(leaves.insert(path.into(), other.to_string())),
    }
}
