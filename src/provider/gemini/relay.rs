//! Gemini's own API for a caller who speaks it, too: the request as it came, under another model's
//! address, and the answer as it comes.
//!
//! The decoder of translated answers reads along and tells errors, ends and tokens. What it does
//! not know passes through unseen.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::GenerateContent;
use super::encode::address;
use crate::chat::{Delta, DeltaSink, Usage};
use crate::dialect::Whole;
use crate::dialect::gemini::{Answer, Framing};
use crate::dialect::openai::{Head, Stamp};
use crate::failure::Failure;
use crate::json::push_string;
use crate::json::unicode::{Seam, mended_bytes};
use crate::provider::openai::Draft;
use crate::provider::{Decoder, Encoded, Flow, Provider, Relay, WholeRelay};
use crate::seal::{self, Seals};
use crate::sse;

/// Bytes of events that say nothing which wait for one that does. An upstream that fails before
/// that can still be replaced by another.
const MOST_HELD: usize = 256 * 1024;

/// Whether the history has what another vendor signed, which Google refuses. Then the request is
/// translated.
pub fn is_foreign(head: &Head<'_>) -> bool {
    head.body.contains(seal::MARK)
}

/// The request for this upstream: the caller's bytes at the model's address.
pub fn encode(head: &Head<'_>, model: &str) -> Encoded {
    let mut path = address(model);
    path.push_str(match head.stream {
        true => ":streamGenerateContent?alt=sse",
        false => ":generateContent",
    });
    let mut draft = Draft::new(head);
    if head.fields.get("model").is_some() {
        let mut name = Vec::new();
        let model = model.strip_prefix("models/").unwrap_or(model);
        push_string(&mut name, &format!("models/{model}"));
        draft.set("model", String::from_utf8_lossy(&name).into_owned());
    }
    Encoded {
        path,
        body: draft.into_bytes(),
        ..Encoded::default()
    }
}

/// What is heard of an answer that passes.
#[derive(Default)]
struct Observer {
    usage: Usage,
    /// Something was said, or it ended.
    any: bool,
    /// Bytes of text so far.
    heard: u64,
}

impl DeltaSink for Observer {
    fn put(&mut self, delta: Delta<'_>) {
        let said = match delta {
            Delta::Usage(usage) => {
                self.usage.merge(usage);
                return;
            }
            Delta::Start { .. } | Delta::ServiceTier(_) => return,
            Delta::Text { text, .. } | Delta::Reasoning { text, .. } => text.len(),
            Delta::ToolArgs { fragment, .. } => fragment.len(),
            _ => 0,
        };
        self.any = true;
        self.heard = self.heard.saturating_add(said as u64);
    }
}

/// A stream that is passed on, event by event.
pub struct RelayStream {
    framing: Framing,
    decoder: Box<dyn Decoder>,
    observer: Observer,
    seam: Seam,
    /// Events that wait for one that says something.
    held: Vec<u8>,
    /// Some event was taken.
    any: bool,
    done: bool,
}

impl RelayStream {
    pub fn new(framing: Framing) -> RelayStream {
        RelayStream {
            framing,
            decoder: GenerateContent.decoder(Arc::default()),
            observer: Observer::default(),
            seam: Seam::default(),
            held: Vec::new(),
            any: false,
            done: false,
        }
    }

    /// One answer object, or an array of such.
    fn pass(&mut self, text: &str) {
        let text = text.trim_ascii();
        if text.is_empty() || text == "[DONE]" {
            return;
        }
        if text.starts_with('[')
            && let Ok(entries) = serde_json::from_str::<Vec<&RawValue>>(text)
        {
            for entry in entries {
                self.push(entry.get());
            }
            return;
        }
        self.push(text);
    }

    fn push(&mut self, json: &str) {
        let first = !std::mem::replace(&mut self.any, true);
        self.framing.push(first, json.as_bytes(), &mut self.held);
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        self.done = true;
        out.append(&mut self.held);
        self.framing.end(self.any, out);
    }
}

impl Relay for RelayStream {
    fn on_event(&mut self, event: sse::Event<'_>, out: &mut Vec<u8>) -> Result<Flow, Failure> {
        if self.done {
            return Ok(Flow::Done);
        }
        let mut seam = std::mem::take(&mut self.seam);
        let flow = {
            let text = seam.mend(event.data);
            let event = sse::Event {
                data: text.as_bytes(),
                bare: event.bare,
            };
            let flow = self.decoder.on_event(event, &mut self.observer);
            if flow.is_ok() {
                self.pass(&text);
            }
            flow
        };
        self.seam = seam;
        if flow? == Flow::Done {
            self.on_end(out)?;
            return Ok(Flow::Done);
        }
        if self.observer.any || self.held.len() > MOST_HELD {
            out.append(&mut self.held);
        }
        Ok(Flow::More)
    }

    fn on_end(&mut self, out: &mut Vec<u8>) -> Result<(), Failure> {
        if !self.done {
            self.decoder.on_end(&mut self.observer)?;
            self.end(out);
        }
        Ok(())
    }

    fn on_body(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<(), Failure> {
        self.decoder.on_body(body, &mut self.observer)?;
        self.pass(&mended_bytes(body));
        self.end(out);
        Ok(())
    }

    fn usage(&self) -> Usage {
        self.observer.usage
    }

    fn heard(&self) -> Option<u64> {
        Some(self.observer.heard)
    }
}

/// An answer that is passed on in one piece.
pub struct RelayWhole {
    stamp: Stamp,
    seals: Arc<Seals>,
    usage: Usage,
    body: Option<Vec<u8>>,
    /// Puts together what comes as a stream all the same.
    gather: Option<Box<(Box<dyn Decoder>, Answer)>>,
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

    fn gather(&mut self) -> &mut (Box<dyn Decoder>, Answer) {
        let (stamp, seals) = (&self.stamp, &self.seals);
        self.gather.get_or_insert_with(|| {
            let answer = Answer::new(stamp.clone(), Arc::clone(seals));
            Box::new((GenerateContent.decoder(Arc::default()), answer))
        })
    }

    fn put_together(&mut self) {
        if let Some(gathered) = self.gather.take() {
            let (_, answer) = *gathered;
            self.usage = Whole::usage(&answer);
            self.body = Some(Box::new(answer).into_body());
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
        let (decoder, answer) = self.gather();
        let flow = decoder.on_event(event, answer)?;
        if flow == Flow::Done {
            self.on_end()?;
        }
        Ok(flow)
    }

    fn on_end(&mut self) -> Result<(), Failure> {
        let (decoder, answer) = self.gather();
        decoder.on_end(answer)?;
        self.put_together();
        Ok(())
    }

    fn on_body(&mut self, body: &[u8]) -> Result<(), Failure> {
        if body.trim_ascii().starts_with(b"[") {
            let (decoder, answer) = self.gather();
            decoder.on_body(body, answer)?;
            self.put_together();
            return Ok(());
        }
        let mut observer = Observer::default();
        let mut decoder = GenerateContent.decoder(Arc::default());
        decoder.on_body(body, &mut observer)?;
        self.usage = observer.usage;
        if let Cow::Owned(mended) = mended_bytes(body) {
            self.body = Some(mended.into_bytes());
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
