//! Whole chat completions: for callers who do not stream, and from servers that do not.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::gather::Gather;
use super::mended::mended;
use super::relay::RelayStream;
use super::repair::has_error_code;
use super::usage::usage_of;
use crate::chat::Usage;
use crate::dialect::openai::Stamp;
use crate::failure::Failure;
use crate::json::unicode::mended_bytes;
use crate::json::{push_one_line, says_something};
use crate::provider::{Flow, Relay};
use crate::sse;

/// Judges a body that came with status 200; one that is an answer is the caller's as it is.
pub fn relay_body(body: &[u8]) -> Result<Usage, Failure> {
    /// What tells an answer from an error.
    #[derive(Deserialize)]
    struct Whole<'a> {
        #[serde(borrow)]
        error: Option<&'a RawValue>,
        choices: Option<Vec<IgnoredAny>>,
        #[serde(borrow)]
        usage: Option<&'a RawValue>,
        #[serde(borrow)]
        object: Option<&'a RawValue>,
        #[serde(borrow, rename = "type")]
        kind: Option<&'a RawValue>,
    }
    let text = body.trim_ascii();
    if text.is_empty() {
        return Err(Failure::empty());
    }
    let whole: Whole = match serde_json::from_slice(text) {
        Ok(whole) => whole,
        // Gemini's layer wraps its errors in an array.
        Err(_) if text.starts_with(b"[{\"error\"") => return Err(Failure::from_event(text)),
        Err(_) => {
            let page = text.starts_with(b"<");
            let what = if page {
                "an HTML page"
            } else {
                "no completion"
            };
            return Err(Failure::malformed(format!(
                "the upstream answered 200 with {what}"
            )));
        }
    };
    let says_error = |word: Option<&RawValue>| word.is_some_and(|word| word.get() == "\"error\"");
    match whole.choices {
        _ if whole
            .error
            .is_some_and(|error| says_something(error.get().as_bytes())) =>
        {
            Err(Failure::from_event(text))
        }
        None if says_error(whole.object) || says_error(whole.kind) => {
            Err(Failure::from_event(text))
        }
        None if serde_json::from_slice(text).is_ok_and(|body| has_error_code(&body)) => {
            Err(Failure::from_event(text))
        }
        None => Err(Failure::malformed(
            "the upstream answered 200 with something that has no choices",
        )),
        Some(choices) if choices.is_empty() => Err(Failure::empty()),
        Some(_) => {
            let usage = whole
                .usage
                .map(|raw| serde_json::from_str::<Value>(raw.get()));
            Ok(match usage {
                Some(Ok(usage)) => usage_of(&usage),
                _ => Usage::default(),
            })
        }
    }
}

/// A whole answer for a caller who wants it whole.
pub struct WholeRelay {
    stamp: Stamp,
    /// Nothing is mended: the vendor's own answers are what callers expect.
    official: bool,
    /// An answer is not longer.
    cap: usize,
    /// What is put together of a stream, where the upstream sends one.
    gather: Option<Box<Gather>>,
    usage: Usage,
    /// The answer, where it is not what the upstream sent.
    body: Option<Vec<u8>>,
}

impl WholeRelay {
    pub fn new(stamp: Stamp, official: bool, cap: usize) -> WholeRelay {
        WholeRelay {
            stamp,
            official,
            cap,
            gather: None,
            usage: Usage::default(),
            body: None,
        }
    }

    pub fn on_body(&mut self, body: &[u8]) -> Result<(), Failure> {
        self.usage = relay_body(body)?;
        if !self.official {
            self.body = mended(body, &self.stamp)?;
        }
        Ok(())
    }

    /// Takes an event of an upstream that streams although it was not asked to.
    pub fn on_event(&mut self, event: sse::Event<'_>) -> Result<Flow, Failure> {
        if event.bare && self.gather.is_none() {
            // No event at all: what was asked for, under another label.
            self.on_body(event.data)?;
            self.body.get_or_insert_with(|| event.data.to_vec());
            return Ok(Flow::Done);
        }
        let flow = self.gather().on_event(event)?;
        if flow == Flow::Done {
            self.put_together()?;
        }
        Ok(flow)
    }

    pub fn on_end(&mut self) -> Result<(), Failure> {
        self.gather().on_end()?;
        self.put_together()
    }

    pub fn usage(&self) -> Usage {
        match &self.gather {
            Some(gather) => gather.usage(),
            None => self.usage,
        }
    }

    /// The answer, where it is not what the upstream sent. Taken once.
    pub fn take_body(&mut self) -> Option<Vec<u8>> {
        self.body.take()
    }

    fn gather(&mut self) -> &mut Gather {
        let new = || Box::new(Gather::new(self.stamp.clone(), self.official, self.cap));
        self.gather.get_or_insert_with(new)
    }

    fn put_together(&mut self) -> Result<(), Failure> {
        if let Some(gather) = self.gather.take() {
            let (usage, body) = gather.into_body();
            self.usage = usage;
            self.body = match self.official {
                true => None,
                false => mended(&body, &self.stamp)?,
            };
            self.body.get_or_insert(body);
        }
        Ok(())
    }
}

impl RelayStream {
    /// Takes a whole answer where a stream was asked for, and writes the stream that says the
    /// same, up to its end.
    pub fn on_body(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<(), Failure> {
        relay_body(body)?;
        let whole: Value = serde_json::from_str(&mended_bytes(body))
            .map_err(|_| Failure::malformed("the upstream's answer is nested too deeply"))?;
        let mut finishes = Vec::new();
        // Ids, indexes, ends and errors as in an answer that is passed on whole.
        let whole = match self.is_official() {
            true => whole,
            false => match mended(body, &self.stamp)? {
                Some(body) => serde_json::from_slice(&body).unwrap_or(whole),
                None => whole,
            },
        };
        let choices = whole.get("choices").and_then(Value::as_array);
        for (position, choice) in choices.into_iter().flatten().enumerate() {
            let index = choice.get("index").cloned().unwrap_or(position.into());
            let mut delta = choice.get("message").cloned().unwrap_or(json!({}));
            if let Some(Value::Array(calls)) = delta.get_mut("tool_calls") {
                for (n, call) in calls.iter_mut().enumerate() {
                    call.as_object_mut()
                        .map(|call| call.insert("index".into(), n.into()));
                }
            }
            let mut first = json!({"index": index, "delta": delta, "finish_reason": null});
            if let Some(logprobs) = choice.get("logprobs").filter(|value| !value.is_null()) {
                first["logprobs"] = logprobs.clone();
            }
            self.mend(&self.chunk_of(&whole, first), out)?;
            let finish = choice
                .get("finish_reason")
                .cloned()
                .unwrap_or("stop".into());
            finishes.push(json!({"index": index, "delta": {}, "finish_reason": finish}));
        }
        for finish in finishes {
            self.mend(&self.chunk_of(&whole, finish), out)?;
        }
        if let Some(usage) = whole.get("usage").filter(|usage| usage.is_object()) {
            let mut chunk = whole_head(&whole);
            chunk["choices"] = json!([]);
            chunk["usage"] = usage.clone();
            self.mend(&one_line(&chunk), out)?;
        }
        self.end(out);
        Ok(())
    }

    fn chunk_of(&self, whole: &Value, choice: Value) -> Vec<u8> {
        let mut chunk = whole_head(whole);
        chunk["choices"] = json!([choice]);
        one_line(&chunk)
    }
}

/// What every chunk of an answer says of itself.
fn whole_head(whole: &Value) -> Value {
    let mut head = json!({"id": null, "object": "chat.completion.chunk"});
    for key in [
        "id",
        "created",
        "model",
        "service_tier",
        "system_fingerprint",
    ] {
        if let Some(value) = whole.get(key) {
            head[key] = value.clone();
        }
    }
    head
}

fn one_line(chunk: &Value) -> Vec<u8> {
    let mut line = Vec::new();
    push_one_line(&mut line, chunk.to_string().as_bytes());
    line
}

impl Relay for RelayStream {
    fn on_event(&mut self, event: sse::Event<'_>, out: &mut Vec<u8>) -> Result<Flow, Failure> {
        RelayStream::on_event(self, event, out)
    }

    fn on_end(&mut self, out: &mut Vec<u8>) -> Result<(), Failure> {
        RelayStream::on_end(self, out)
    }

    fn on_body(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<(), Failure> {
        RelayStream::on_body(self, body, out)
    }

    fn usage(&self) -> Usage {
        RelayStream::usage(self)
    }
}

impl crate::provider::WholeRelay for WholeRelay {
    fn on_event(&mut self, event: sse::Event<'_>) -> Result<Flow, Failure> {
        WholeRelay::on_event(self, event)
    }

    fn on_end(&mut self) -> Result<(), Failure> {
        WholeRelay::on_end(self)
    }

    fn on_body(&mut self, body: &[u8]) -> Result<(), Failure> {
        WholeRelay::on_body(self, body)
    }

    fn usage(&self) -> Usage {
        WholeRelay::usage(self)
    }

    fn take_body(&mut self) -> Option<Vec<u8>> {
        WholeRelay::take_body(self)
    }
}
