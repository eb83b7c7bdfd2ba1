//! Messages for a caller who speaks them, too: the request as it came but for the model's name, and
//! the answer as it comes.
//!
//! What the vendor adds from month to month passes through unseen. What is looked at: errors, ends,
//! the tokens, and the name of the model, which is told as the caller said it.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::decode::counters::Counters;
use super::decode::has_error;
use super::{Messages, wire};
use crate::chat::Usage;
use crate::dialect::messages::{Events, Message};
use crate::dialect::openai::{Head, Stamp};
use crate::dialect::{Streamed, Whole};
use crate::failure::Failure;
use crate::json::unicode::{Seam, mended_bytes};
use crate::json::{Fields, push_one_line, push_string};
use crate::provider::openai::Draft;
use crate::provider::{Encoded, Flow, Provider, Relay, WholeRelay};
use crate::seal::{self, Seals};
use crate::sse;

/// The request for this upstream: the caller's bytes with another name, and without thoughts that
/// the vendor would refuse. `plain` leaves out every thought.
pub fn encode(head: &Head<'_>, model: &str, query: &str, plain: bool) -> Encoded {
    let mut draft = Draft::new(head);
    if head.model != model {
        let mut name = Vec::new();
        push_string(&mut name, model);
        draft.set("model", String::from_utf8_lossy(&name).into_owned());
    }
    let messages = head.fields.get("messages").map_or("", RawValue::get);
    if messages.contains("thinking\"")
        && let Some(rest) = without_foreign(messages, plain)
    {
        draft.set("messages", rest);
    }
    let mut path = String::from("/v1/messages");
    if !query.is_empty() {
        path.push('?');
        path.push_str(query);
    }
    Encoded {
        path,
        body: draft.into_bytes(),
        ..Encoded::default()
    }
}

/// `messages` without thoughts that nobody signed, or somebody else. `None`: there are none.
fn without_foreign(messages: &str, plain: bool) -> Option<String> {
    crate::provider::openai::map_list(messages, |message| {
        if !message.contains("thinking\"") {
            return None;
        }
        let fields: Fields<'_> = serde_json::from_str(message).ok()?;
        let content = fields.get("content")?.get();
        if !content.starts_with('[') {
            return None;
        }
        let less = crate::provider::openai::map_list(content, |block| {
            is_foreign(block, plain).then(String::new)
        })?;
        if less == "[]" {
            // A message has to hold something, and this one is not missed.
            return Some(String::new());
        }
        let start = content.as_ptr() as usize - message.as_ptr() as usize;
        let (before, after) = (&message[..start], &message[start + content.len()..]);
        Some([before, &less, after].concat())
    })
}

fn is_foreign(block: &str, plain: bool) -> bool {
    #[derive(Deserialize)]
    struct Block<'a> {
        #[serde(borrow, default)]
        r#type: wire::Text<'a>,
        #[serde(borrow, default)]
        signature: wire::Text<'a>,
        #[serde(borrow, default)]
        data: wire::Text<'a>,
    }
    let Ok(block) = serde_json::from_str::<Block<'_>>(block) else {
        return false;
    };
    match &*block.r#type {
        "thinking" => plain || block.signature.is_empty() || seal::is_seal(&block.signature),
        "redacted_thinking" => plain || block.data.is_empty() || seal::is_seal(&block.data),
        _ => false,
    }
}

/// `json`, an object, with another `model`; as it is if it has none, or has that one.
fn named<'a>(json: &'a str, model: &str) -> Cow<'a, str> {
    #[derive(Deserialize)]
    struct Named<'a> {
        #[serde(borrow)]
        model: Option<&'a RawValue>,
    }
    let Ok(Named { model: Some(raw) }) = serde_json::from_str::<Named<'_>>(json) else {
        return Cow::Borrowed(json);
    };
    let mut name = Vec::new();
    push_string(&mut name, model);
    let name = String::from_utf8_lossy(&name);
    if *name == *raw.get() {
        return Cow::Borrowed(json);
    }
    let start = raw.get().as_ptr() as usize - json.as_ptr() as usize;
    let (before, after) = (&json[..start], &json[start + raw.get().len()..]);
    Cow::Owned([before, &name, after].concat())
}

/// A stream that is passed on, event by event.
pub struct RelayStream {
    stamp: Stamp,
    seals: Arc<Seals>,
    counters: Counters,
    /// The first event, until something follows it: an upstream that fails right then can still be
    /// replaced by another.
    start: Option<Vec<u8>>,
    /// Something was written.
    begun: bool,
    stopped: bool,
    done: bool,
    /// Bytes of text so far.
    heard: u64,
    seam: Seam,
    /// Of an answer that came in one piece.
    whole: Option<Usage>,
}

impl RelayStream {
    pub fn new(stamp: Stamp, seals: Arc<Seals>) -> RelayStream {
        RelayStream {
            stamp,
            seals,
            counters: Counters::default(),
            start: None,
            begun: false,
            stopped: false,
            done: false,
            heard: 0,
            seam: Seam::default(),
            whole: None,
        }
    }

    fn count(&mut self, usage: Option<&RawValue>) {
        if let Some(usage) = usage.and_then(|raw| serde_json::from_str(raw.get()).ok()) {
            self.counters.take(&usage);
        }
    }

    /// What was held back, and the event.
    fn pass(&mut self, kind: &str, data: &str, out: &mut Vec<u8>) {
        if let Some(start) = self.start.take() {
            out.extend_from_slice(&start);
        }
        self.begun = true;
        push_event(kind, data, out);
    }
}

fn push_event(kind: &str, data: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\ndata: ");
    push_one_line(out, data.as_bytes());
    out.extend_from_slice(b"\n\n");
}

/// The name of an event stands in a line of its own.
fn is_name(kind: &str) -> bool {
    const LONGEST: usize = 64;
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.' || byte == b'-';
    (1..=LONGEST).contains(&kind.len()) && kind.bytes().all(plain)
}

impl Relay for RelayStream {
    fn on_event(&mut self, event: sse::Event<'_>, out: &mut Vec<u8>) -> Result<Flow, Failure> {
        if self.done {
            return Ok(Flow::Done);
        }
        let mut seam = std::mem::take(&mut self.seam);
        let text = seam.mend(event.data);
        let data = text.trim_ascii();
        let flow = self.take(data, out);
        self.seam = seam;
        flow
    }

    fn on_end(&mut self, out: &mut Vec<u8>) -> Result<(), Failure> {
        if self.done {
            return Ok(());
        }
        if !self.stopped {
            return Err(match self.begun {
                true => Failure::disconnected(),
                false => Failure::empty(),
            });
        }
        self.done = true;
        self.pass("message_stop", r#"{"type":"message_stop"}"#, out);
        Ok(())
    }

    /// A message in one piece, where a stream was asked for.
    fn on_body(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<(), Failure> {
        let mut events = Events::new(self.stamp.clone(), Arc::clone(&self.seals));
        let mut decoder = Messages.decoder(Arc::default());
        decoder.on_body(body, &mut events)?;
        events.finish();
        out.extend_from_slice(events.bytes());
        self.done = true;
        self.whole = Some(events.usage());
        Ok(())
    }

    fn usage(&self) -> Usage {
        self.whole.unwrap_or_else(|| self.counters.sum())
    }

    fn heard(&self) -> Option<u64> {
        Some(self.heard)
    }
}

impl RelayStream {
    fn take(&mut self, data: &str, out: &mut Vec<u8>) -> Result<Flow, Failure> {
        match data.as_bytes().first() {
            Some(b'{') => {}
            Some(b'[') if data != "[DONE]" => return Err(Failure::from_event(data.as_bytes())),
            _ if data == "[DONE]" && self.stopped => {
                self.on_end(out)?;
                return Ok(Flow::Done);
            }
            _ if data.is_empty() || data == "[DONE]" => return Ok(Flow::More),
            _ => return Err(Failure::malformed("an event that is no JSON object")),
        }
        let event: wire::Event<'_> = match serde_json::from_str(data) {
            Ok(event) => event,
            Err(error) => return super::decode::skip_or_fail(data.as_bytes(), &error),
        };
        let kind = &*event.r#type;
        if kind == "error" || has_error(event.error) {
            return Err(Failure::from_event(data.as_bytes()));
        }
        match kind {
            "message_start" => {
                if self.begun || self.start.is_some() {
                    return Err(Failure::malformed("the upstream started its answer anew"));
                }
                let message = event.message.map_or("{}", RawValue::get);
                if let Ok(message) = serde_json::from_str::<wire::Message<'_>>(message) {
                    self.count(message.usage);
                }
                let name = named(message, &self.stamp.model);
                let data = match &name {
                    Cow::Borrowed(_) => Cow::Borrowed(data),
                    Cow::Owned(new) => Cow::Owned(data.replacen(message, new, 1)),
                };
                let mut start = Vec::with_capacity(data.len() + 32);
                push_event(kind, &data, &mut start);
                self.start = Some(start);
                return Ok(Flow::More);
            }
            // Until there is something to keep alive.
            "ping" if !self.begun => return Ok(Flow::More),
            "content_block_delta" => {
                if let Some(delta) = &event.delta {
                    let said = delta.text.len() + delta.thinking.len() + delta.partial_json.len();
                    self.heard = self.heard.saturating_add(said as u64);
                }
            }
            "message_delta" => {
                self.count(event.usage);
                let said = |delta: &wire::Delta<'_>| !delta.stop_reason.is_empty();
                self.stopped |= event.delta.as_ref().is_some_and(said);
            }
            "message_stop" => {
                if !self.begun && self.start.is_none() {
                    return Err(Failure::empty());
                }
                self.done = true;
                self.pass(kind, data, out);
                return Ok(Flow::Done);
            }
            kind if !is_name(kind) => {
                log::debug!("an event without a name is left out");
                return Ok(Flow::More);
            }
            _ => {}
        }
        self.pass(kind, data, out);
        Ok(Flow::More)
    }
}

/// A message that is passed on in one piece.
pub struct RelayWhole {
    stamp: Stamp,
    seals: Arc<Seals>,
    usage: Usage,
    body: Option<Vec<u8>>,
    /// Puts together what comes as a stream all the same.
    gather: Option<Box<(Box<dyn super::super::Decoder>, Message)>>,
    /// Bytes that it may still take.
    room: usize,
}

impl RelayWhole {
    /// An answer is no longer than `cap`.
    pub fn new(stamp: Stamp, seals: Arc<Seals>, cap: usize) -> RelayWhole {
        RelayWhole {
            stamp,
            seals,
            usage: Usage::default(),
            body: None,
            gather: None,
            room: cap,
        }
    }

    fn gather(&mut self) -> &mut (Box<dyn super::super::Decoder>, Message) {
        let (stamp, seals) = (&self.stamp, &self.seals);
        self.gather.get_or_insert_with(|| {
            let message = Message::new(stamp.clone(), Arc::clone(seals));
            Box::new((Messages.decoder(Arc::default()), message))
        })
    }

    fn put_together(&mut self) {
        if let Some(gathered) = self.gather.take() {
            let (_, message) = *gathered;
            self.usage = message.usage();
            self.body = Some(Box::new(message).into_body());
        }
    }
}

impl WholeRelay for RelayWhole {
    fn on_event(&mut self, event: sse::Event<'_>) -> Result<Flow, Failure> {
        if event.bare && self.gather.is_none() {
            self.on_body(event.data)?;
            self.body.get_or_insert_with(|| event.data.to_vec());
            return Ok(Flow::Done);
        }
        self.room = match self.room.checked_sub(event.data.len()) {
            Some(room) => room,
            None => return Err(Failure::too_long()),
        };
        let (decoder, message) = self.gather();
        let flow = decoder.on_event(event, message)?;
        if flow == Flow::Done {
            self.put_together();
        }
        Ok(flow)
    }

    fn on_end(&mut self) -> Result<(), Failure> {
        let (decoder, message) = self.gather();
        decoder.on_end(message)?;
        self.put_together();
        Ok(())
    }

    fn on_body(&mut self, body: &[u8]) -> Result<(), Failure> {
        if body.trim_ascii().is_empty() {
            return Err(Failure::empty());
        }
        let text = mended_bytes(body);
        let message: wire::Message<'_> = serde_json::from_str(&text).map_err(|error| {
            Failure::malformed(format!("the upstream's answer is no message: {error}"))
        })?;
        if has_error(message.error) || &*message.r#type == "error" {
            return Err(Failure::from_event(body));
        }
        if message.content.is_none() {
            return Err(Failure::malformed("the upstream's answer is no message"));
        }
        let mut counters = Counters::default();
        if let Some(usage) = message
            .usage
            .and_then(|raw| serde_json::from_str(raw.get()).ok())
        {
            counters.take(&usage);
        }
        self.usage = counters.sum();
        let named = named(&text, &self.stamp.model);
        if let Cow::Owned(named) = named {
            self.body = Some(named.into_bytes());
        } else if let Cow::Owned(text) = text {
            self.body = Some(text.into_bytes());
        }
        Ok(())
    }

    fn usage(&self) -> Usage {
        self.usage
    }

    fn take_body(&mut self) -> Option<Vec<u8>> {
        self.body.take()
    }
}

#[cfg(test)]
#[path = "relay_tests.rs"]
mod tests;
