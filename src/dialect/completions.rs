//! OpenAI's older completions: prompts in, chat requests for upstreams that know only those, and
//! text back.

use std::borrow::Cow;

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::openai::read::{Object, Path, array, is_array, is_string, string, wrong};
use super::openai::{Stamp, completion_id, finish_word, push_usage};
use super::{Streamed, Whole};
use crate::chat::{Delta, DeltaSink, FinishReason, Usage};
use crate::error::ApiError;
use crate::json::{Fields, push_key, push_number, push_string};

/// Each prompt is a request of its own.
pub const MOST_PROMPTS: usize = 32;

/// The vendor's documented default of `max_tokens` on this route.
const MAX_TOKENS: u64 = 16;

/// Fields that have no place in the chat request, or another one there.
const OWN: &[&str] = &[
    "prompt",
    "messages",
    "suffix",
    "echo",
    "best_of",
    "logprobs",
    "max_tokens",
];

/// A request, for upstreams that have no such route.
#[derive(Debug)]
pub struct Complete<'a> {
    pub prompts: Vec<Cow<'a, str>>,
    pub stream: bool,
    pub include_usage: bool,
    /// Fields that are left out although the answer may differ for it.
    pub dropped: Vec<&'static str>,
    max_tokens: Option<u64>,
    /// What a chat request takes as it is.
    fields: Vec<(Cow<'a, str>, &'a RawValue)>,
}

impl<'a> Complete<'a> {
    pub fn read(body: &'a [u8]) -> Result<Complete<'a>, ApiError> {
        let invalid = |error: &dyn std::fmt::Display| {
            ApiError::new(400, format!("the body is not valid JSON: {error}"))
        };
        let text = std::str::from_utf8(body).map_err(|error| invalid(&error))?;
        let fields: Fields<'a> = serde_json::from_str(text).map_err(|error| invalid(&error))?;
        let root = Object {
            fields,
            path: &Path::Root,
        };
        let unsupported = |key: &str| {
            let message = format!("{key}: this model is served as a chat, which has no such thing");
            Err(ApiError::unsupported_parameter(key, message))
        };
        if root
            .string("suffix")?
            .is_some_and(|suffix| !suffix.is_empty())
        {
            return unsupported("suffix");
        }
        if root.boolean("echo")? == Some(true) {
            return unsupported("echo");
        }
        if root.count("best_of")?.is_some_and(|best_of| best_of > 1) {
            return unsupported("best_of");
        }
        let mut dropped = Vec::new();
        if root.count("logprobs")?.is_some() {
            dropped.push("logprobs");
        }
        let include_usage = match root.carried("stream_options")? {
            None => false,
            Some(raw) => {
                let path = Path::Root.key("stream_options");
                Object::read(raw, &path)?
                    .boolean("include_usage")?
                    .unwrap_or(false)
            }
        };
        let prompts = prompts(&root)?;
        let own =
            |key: &str| OWN.contains(&key) || (prompts.len() > 1 && key.starts_with("stream"));
        Ok(Complete {
            stream: root.boolean("stream")?.unwrap_or(false),
            include_usage,
            dropped,
            max_tokens: root.count("max_tokens")?,
            fields: root
                .fields
                .0
                .iter()
                .filter(|(key, _)| !own(key))
                .cloned()
                .collect(),
            prompts,
        })
    }

    /// The chat request for one prompt. Several are asked for whole, one after the other.
    pub fn chat(&self, prompt: &str) -> Vec<u8> {
        let mut out = Vec::with_capacity(prompt.len() + 256);
        out.push(b'{');
        for (key, raw) in &self.fields {
            push_string(&mut out, key);
            out.push(b':');
            out.extend_from_slice(raw.get().as_bytes());
            out.push(b',');
        }
        out.extend_from_slice(b"\"max_tokens\":");
        push_number(&mut out, self.max_tokens.unwrap_or(MAX_TOKENS));
        out.extend_from_slice(b",\"messages\":[{\"role\":\"user\",\"content\":");
        push_string(&mut out, prompt);
        out.extend_from_slice(b"}]}");
        out
    }
}

fn prompts<'a>(root: &Object<'a, '_>) -> Result<Vec<Cow<'a, str>>, ApiError> {
    let path = Path::Root.key("prompt");
    let entries = match root.get("prompt") {
        None => return Err(path.invalid("is required")),
        Some(raw) if is_string(raw) => return Ok(vec![string(raw, &path)?]),
        Some(raw) if !is_array(raw) => return Err(wrong(raw, &path, "a string or an array")),
        Some(raw) => array(raw, &path)?,
    };
    if entries.is_empty() || entries.len() > MOST_PROMPTS {
        return Err(path.invalid(format_args!("must hold 1 to {MOST_PROMPTS} texts")));
    }
    let texts = entries.into_iter().enumerate().map(|(at, entry)| {
        if !is_string(entry) {
            let error = path
                .index(at)
                .invalid("must be text: this model does not take token numbers");
            return Err(error.with_code("unsupported_value"));
        }
        string(entry, &path.index(at))
    });
    texts.collect()
}

/// One answer, streamed or whole.
pub struct Text {
    stamp: Stamp,
    id: String,
    out: Vec<u8>,
    choices: Vec<Choice>,
    usage: Usage,
    finished: bool,
}

#[derive(Default)]
struct Choice {
    /// Of a whole answer; a stream has sent it.
    text: String,
    reason: Option<FinishReason>,
}

impl Choice {
    fn word(&self) -> &'static str {
        finish_word(self.reason, false, false)
    }
}

impl Text {
    pub fn new(stamp: Stamp) -> Text {
        let id = completion_id("", stamp.seed).replacen("chatcmpl-", "cmpl-", 1);
        Text {
            stamp,
            id,
            out: Vec::new(),
            choices: Vec::new(),
            usage: Usage::default(),
            finished: false,
        }
    }

    /// Far more than anyone may ask for.
    const MOST_CHOICES: u32 = 128;

    fn choice(&mut self, candidate: u32) -> Option<&mut Choice> {
        if candidate >= Text::MOST_CHOICES {
            return None;
        }
        let count = self.choices.len().max(candidate as usize + 1);
        self.choices.resize_with(count, Choice::default);
        self.choices.get_mut(candidate as usize)
    }

    fn push_head(&mut self) {
        super::openai::push_head(&mut self.out, &self.id, "text_completion", &self.stamp);
    }

    fn push_event(&mut self, index: usize, text: &str, reason: Option<&str>) {
        self.out.extend_from_slice(b"data: ");
        self.push_head();
        self.out.extend_from_slice(b",\"choices\":[");
        push_choice(&mut self.out, index, text, reason);
        let rest: &[u8] = match self.stamp.include_usage {
            true => b"],\"usage\":null}\n\n",
            false => b"]}\n\n",
        };
        self.out.extend_from_slice(rest);
    }
}

fn push_choice(out: &mut Vec<u8>, index: usize, text: &str, reason: Option<&str>) {
    push_key(out, b'{', "text");
    push_string(out, text);
    push_key(out, b',', "index");
    push_number(out, index as u64);
    out.extend_from_slice(b",\"logprobs\":null,\"finish_reason\":");
    match reason {
        Some(word) => push_string(out, word),
        None => out.extend_from_slice(b"null"),
    }
    out.push(b'}');
}

/// The same answer for a caller who streams, and for one who does not.
pub struct Pieces(pub Text);

impl DeltaSink for Pieces {
    fn put(&mut self, delta: Delta<'_>) {
        if let Delta::Text { candidate, text } | Delta::Refusal { candidate, text } = delta {
            if !text.is_empty() && self.0.choice(candidate).is_some() {
                self.0.push_event(candidate as usize, text, None);
            }
            return;
        }
        self.0.note(&delta);
    }
}

impl Streamed for Pieces {
    fn bytes(&self) -> &[u8] {
        &self.0.out
    }

    fn clear(&mut self) {
        self.0.out.clear();
    }

    fn finish(&mut self) {
        let text = &mut self.0;
        if std::mem::replace(&mut text.finished, true) {
            return;
        }
        text.choice(0);
        for index in 0..text.choices.len() {
            let word = text.choices[index].word();
            text.push_event(index, "", Some(word));
        }
        if text.stamp.include_usage {
            text.out.extend_from_slice(b"data: ");
            text.push_head();
            text.out.extend_from_slice(b",\"choices\":[],\"usage\":");
            push_usage(&mut text.out, &text.usage);
            text.out.extend_from_slice(b"}\n\n");
        }
        text.out.extend_from_slice(b"data: [DONE]\n\n");
    }

    fn usage(&self) -> Usage {
        self.0.usage
    }
}

impl Text {
    fn note(&mut self, delta: &Delta<'_>) {
        match delta {
            Delta::Usage(usage) => self.usage.merge(*usage),
            Delta::Finish { candidate, reason } => {
                if let Some(choice) = self.choice(*candidate) {
                    choice.reason.get_or_insert(*reason);
                }
            }
            _ => {}
        }
    }
}

impl DeltaSink for Text {
    fn put(&mut self, delta: Delta<'_>) {
        if let Delta::Text { candidate, text } | Delta::Refusal { candidate, text } = delta {
            if let Some(choice) = self.choice(candidate) {
                choice.text.push_str(text);
            }
            return;
        }
        self.note(&delta);
    }
}

impl Whole for Text {
    fn usage(&self) -> Usage {
        self.usage
    }

    fn into_body(mut self: Box<Self>) -> Vec<u8> {
        self.choice(0);
        self.push_head();
        self.out.extend_from_slice(b",\"choices\":[");
        for (index, choice) in self.choices.iter().enumerate() {
            if index > 0 {
                self.out.push(b',');
            }
            push_choice(&mut self.out, index, &choice.text, Some(choice.word()));
        }
        self.out.extend_from_slice(b"],\"usage\":");
        push_usage(&mut self.out, &self.usage);
        self.out.push(b'}');
        self.out
    }
}

/// Several whole answers as one: choices numbered through, counters added up.
pub fn join(answers: Vec<Value>) -> Value {
    let mut choices = Vec::new();
    let (mut prompt, mut completion) = (0u64, 0u64);
    let mut joined = answers.first().cloned().unwrap_or(json!({}));
    for mut answer in answers {
        let count = |key: &str| answer["usage"][key].as_u64().unwrap_or(0);
        prompt = prompt.saturating_add(count("prompt_tokens"));
        completion = completion.saturating_add(count("completion_tokens"));
        for choice in answer["choices"].as_array_mut().into_iter().flatten() {
            choice["index"] = choices.len().into();
            choices.push(choice.take());
        }
    }
    joined["choices"] = choices.into();
    joined["usage"] = json!({
        "prompt_tokens": prompt, "completion_tokens": completion,
        "total_tokens": prompt.saturating_add(completion)
    });
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_becomes_a_chat() {
        let body =
            br#"{"model":"m","prompt":["a"],"temperature":0.50,"logprobs":2,"stream":true,"n":2,"messages":[]}"#;
        let complete = Complete::read(body).unwrap();
        assert_eq!(complete.dropped, ["logprobs"]);
        assert_eq!(
            String::from_utf8(complete.chat(&complete.prompts[0])).unwrap(),
            r#"{"model":"m","temperature":0.50,"stream":true,"n":2,"max_tokens":16,"messages":[{"role":"user","content":"a"}]}"#
        );
        let body = br#"{"prompt":["a","b"],"stream":true,"stream_options":{"include_usage":true},"max_tokens":3}"#;
        let several = Complete::read(body).unwrap();
        assert!(several.stream && several.include_usage);
        let chat = String::from_utf8(several.chat("b")).unwrap();
        assert_eq!(
            chat,
            r#"{"max_tokens":3,"messages":[{"role":"user","content":"b"}]}"#
        );
    }

    #[test]
    fn what_a_chat_cannot_do_is_refused() {
        for (request, param) in [
            (r#"{}"#, "prompt"),
            (r#"{"prompt":[]}"#, "prompt"),
            (r#"{"prompt":[1,2]}"#, "prompt[0]"),
            (r#"{"prompt":"a","suffix":"b"}"#, "suffix"),
            (r#"{"prompt":"a","echo":true}"#, "echo"),
            (r#"{"prompt":"a","best_of":2}"#, "best_of"),
        ] {
            let error = Complete::read(request.as_bytes()).unwrap_err();
            assert_eq!(
                (error.status, error.param.as_deref()),
                (400, Some(param)),
                "{request}"
            );
        }
        let harmless = br#"{"prompt":"a","suffix":"","echo":false,"best_of":1,"logprobs":null}"#;
        assert!(Complete::read(harmless).unwrap().dropped.is_empty());
    }

    #[test]
    fn answers_are_joined() {
        let answer = |text: &str| {
            json!({
                "id": text, "choices": [{"text": text, "index": 0}],
                "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
            })
        };
        let joined = join(vec![answer("a"), answer("b")]);
        assert_eq!(joined["id"], "a");
        assert_eq!(joined["choices"][1], json!({"text": "b", "index": 1}));
        assert_eq!(joined["usage"]["total_tokens"], 6);
    }
}
