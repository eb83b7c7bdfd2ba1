//! `POST /ask`: a prompt as it is, with what else there is to say in the query, as a chat request.

use serde_json::{Map, Value, json};

use crate::base64;
use crate::error::ApiError;
use crate::query;

/// What the query may say, for the message about what it may not.
const KNOWN: &str = "model, system, prompt, stream, max_tokens, temperature, top_p, seed, stop, \
                     reasoning_effort";

/// The query, read; the body is still to come.
#[derive(Debug, Default)]
pub struct Ask {
    pub model: Option<String>,
    prompt: Option<String>,
    system: Option<String>,
    stream: Option<bool>,
    /// Fields of a chat request.
    fields: Map<String, Value>,
}

impl Ask {
    pub fn read(query: &str) -> Result<Ask, ApiError> {
        let mut ask = Ask::default();
        for (name, value) in query::pairs(query) {
            let wrong = |what: &str| {
                let message = format!("{name}: {value:?} is not {what}");
                ApiError::invalid(name.clone(), message)
            };
            match name.as_str() {
                "model" => ask.model = Some(value).filter(|model| !model.is_empty()),
                "prompt" => ask.prompt = Some(value),
                "system" => ask.system = Some(value),
                "stream" => {
                    ask.stream = Some(match value.as_str() {
                        "" | "1" | "true" => true,
                        "0" | "false" => false,
                        _ => return Err(wrong("true or false")),
                    });
                }
                "max_tokens" | "seed" => {
                    let number: i64 = value.parse().map_err(|_| wrong("a whole number"))?;
                    ask.fields.insert(name, number.into());
                }
                "temperature" | "top_p" => {
                    let number = value.parse().ok().and_then(serde_json::Number::from_f64);
                    let number = number.ok_or_else(|| wrong("a number"))?;
                    ask.fields.insert(name, Value::Number(number));
                }
                "stop" | "reasoning_effort" => {
                    ask.fields.insert(name, value.into());
                }
                _ => {
                    let message = format!("{name} is not known here; known are {KNOWN}");
                    return Err(ApiError::invalid(name, message));
                }
            }
        }
        Ok(ask)
    }

    /// The chat request that asks `model`. `streams` holds where the query does not say.
    pub fn chat(
        self,
        model: &str,
        content_type: &str,
        body: &[u8],
        streams: bool,
    ) -> Result<Vec<u8>, ApiError> {
        let content = content(self.prompt.as_deref(), content_type, body)?;
        let mut messages = Vec::new();
        if let Some(system) = self.system {
            messages.push(json!({"role": "system", "content": system}));
        }
        messages.push(json!({"role": "user", "content": content}));
        let mut request = self.fields;
        request.insert("model".into(), model.into());
        request.insert("messages".into(), messages.into());
        request.insert("stream".into(), self.stream.unwrap_or(streams).into());
        Ok(Value::Object(request).to_string().into_bytes())
    }
}

/// The content of the user's message: text, or text beside what the body holds.
fn content(prompt: Option<&str>, content_type: &str, body: &[u8]) -> Result<Value, ApiError> {
    let kind = content_type.split(';').next().unwrap_or_default();
    let kind = kind.trim().to_ascii_lowercase();
    if kind.starts_with("multipart/") {
        let message = "send the prompt as the body itself (curl --data-binary), not as a form";
        return Err(ApiError::new(415, message));
    }
    let part = match kind.as_str() {
        _ if body.is_empty() => None,
        "application/pdf" => Some(json!({"type": "file", "file": {
            "filename": "document.pdf", "file_data": data_url(&kind, body)
        }})),
        "audio/wav" | "audio/x-wav" => Some(audio("wav", body)),
        "audio/mpeg" | "audio/mp3" => Some(audio("mp3", body)),
        _ if kind.starts_with("image/") => Some(json!({
            "type": "image_url", "image_url": {"url": data_url(&kind, body)}
        })),
        _ => None,
    };
    if let Some(part) = part {
        let text = prompt.map(|prompt| json!({"type": "text", "text": prompt}));
        let parts: Vec<Value> = text.into_iter().chain([part]).collect();
        return Ok(parts.into());
    }
    let Ok(text) = std::str::from_utf8(body) else {
        let message = "the body is no text; say what it is with a Content-Type of image/*, \
                       application/pdf, audio/wav or audio/mpeg";
        return Err(ApiError::new(415, message));
    };
    match (prompt, text) {
        (None, "") => Err(ApiError::new(
            400,
            "the body is empty: it should be the prompt",
        )),
        (None, text) => Ok(text.into()),
        (Some(prompt), "") => Ok(prompt.into()),
        (Some(prompt), text) => Ok(format!("{prompt}\n\n{text}").into()),
    }
}

fn audio(format: &str, body: &[u8]) -> Value {
    let mut data = Vec::new();
    base64::push(&mut data, body);
    let data = String::from_utf8_lossy(&data);
    json!({"type": "input_audio", "input_audio": {"data": data, "format": format}})
}

fn data_url(kind: &str, body: &[u8]) -> String {
    let mut url = format!("data:{kind};base64,").into_bytes();
    base64::push(&mut url, body);
    String::from_utf8_lossy(&url).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(query: &str, kind: &str, body: &[u8]) -> Result<Value, ApiError> {
        let chat = Ask::read(query)?.chat("m", kind, body, true)?;
        Ok(serde_json::from_slice(&chat).unwrap())
    }

    #[test]
    fn a_prompt_and_its_query() {
        let query = "system=Be+brief&max_tokens=9&temperature=0.5&stop=END&stream=0&seed=-1";
        let form = "application/x-www-form-urlencoded";
        assert_eq!(
            asked(query, form, b"Hi & bye").unwrap(),
            json!({
                "model": "m", "stream": false, "max_tokens": 9, "temperature": 0.5,
                "stop": "END", "seed": -1,
                "messages": [
                    {"role": "system", "content": "Be brief"},
                    {"role": "user", "content": "Hi & bye"}
                ]
            })
        );
        let asked = asked("prompt=Sum+this+up:", "text/plain", b"text").unwrap();
        assert_eq!(asked["messages"][0]["content"], "Sum this up:\n\ntext");
        assert_eq!(asked["stream"], true);
    }

    #[test]
    fn what_a_body_is_follows_from_its_type() {
        let part = |kind: &str| {
            let asked = asked("prompt=What%3F", kind, b"foo").unwrap();
            assert_eq!(asked["messages"][0]["content"][0]["text"], "What?");
            asked["messages"][0]["content"][1].clone()
        };
        let url = "data:image/png;base64,Zm9v";
        assert_eq!(
            part("image/png"),
            json!({"type": "image_url", "image_url": {"url": url}})
        );
        let pdf = part("application/pdf; x=y");
        assert_eq!(pdf["file"]["file_data"], "data:application/pdf;base64,Zm9v");
        assert_eq!(part("audio/mpeg")["input_audio"]["format"], "mp3");
    }

    #[test]
    fn wrong_questions_are_named() {
        for (query, kind, body, status, word) in [
            ("modle=x", "", &b"x"[..], 400, "modle"),
            ("max_tokens=many", "", b"x", 400, "max_tokens"),
            ("temperature=nan", "", b"x", 400, "temperature"),
            ("stream=maybe", "", b"x", 400, "stream"),
            ("", "", b"", 400, "empty"),
            ("", "", b"\xff\xfe", 415, "Content-Type"),
            (
                "",
                "multipart/form-data; boundary=x",
                b"x",
                415,
                "--data-binary",
            ),
        ] {
            let error = asked(query, kind, body).unwrap_err();
            assert_eq!(error.status, status, "{query}");
            assert!(error.message.contains(word), "{}", error.message);
        }
    }
}
