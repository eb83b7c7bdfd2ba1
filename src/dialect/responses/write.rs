//! Deltas as a Responses answer: the events of its stream, or one response.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::output::Output;
use super::{Asked, OPENING, Standing};
use crate::chat::{Delta, DeltaSink, FinishReason, Usage};
use crate::dialect::messages::blocks::{Blocks, Kind};
use crate::dialect::openai::CallIds;
use crate::dialect::{Streamed, Whole};
use crate::json::push_key;
use crate::seal::{Holds, Seals};

/// An answer on its way from deltas to items.
struct Answer {
    seals: Arc<Seals>,
    seed: u64,
    ids: CallIds,
    blocks: Blocks,
    output: Output,
    usage: Usage,
    reason: Option<FinishReason>,
}

impl Answer {
    fn new(asked: Arc<Asked>, seals: Arc<Seals>, seed: u64, tells: bool) -> Answer {
        Answer {
            seals,
            seed,
            ids: CallIds::default(),
            blocks: Blocks::default(),
            output: Output::new(asked, tells),
            usage: Usage::default(),
            reason: None,
        }
    }

    /// Takes what the first candidate says; this format has one.
    fn put(&mut self, delta: &Delta<'_>) {
        let (blocks, out) = (&mut self.blocks, &mut self.output);
        match delta {
            Delta::Usage(usage) => self.usage.merge(*usage),
            Delta::Finish {
                candidate: 0,
                reason,
            } => self.reason = Some(*reason),
            Delta::Text { candidate: 0, text } => blocks.text(Kind::Text, text, out),
            Delta::Refusal { candidate: 0, text } => blocks.text(Kind::Refusal, text, out),
            Delta::Reasoning { candidate: 0, text } => blocks.text(Kind::Thinking, text, out),
            Delta::ToolStart {
                candidate: 0,
                index,
                id,
                name,
                google_signature,
                ..
            } => {
                let seal = google_signature
                    .and_then(|signature| self.seals.seal(Holds::CallSignature, signature));
                if let Some(seal) = seal {
                    blocks.seal(&seal, out);
                }
                let id = self.ids.next(id, self.seed, 0, blocks.next_call());
                blocks.call(*index, &id, name, out);
            }
            Delta::ToolArgs {
                candidate: 0,
                index,
                fragment,
            } => blocks.arguments(*index, fragment, out),
            Delta::Extra { candidate: 0, json } => {
                if let Some(seal) = self.seals.seal(Holds::Extra, json) {
                    blocks.seal(&seal, out);
                }
            }
            Delta::Citation {
                candidate: 0,
                url,
                title,
                start,
                end,
            } => out.cite(url, title, *start, *end),
            Delta::Image {
                candidate: 0,
                base64,
                ..
            } if blocks.settle(out) => out.image(base64),
            _ => {}
        }
    }

    /// Ends the last item. How the answer stands then.
    fn finish(&mut self) -> Standing<'static> {
        self.output.is_cut = self.reason == Some(FinishReason::Length);
        self.blocks.finish(&mut self.output);
        match self.reason {
            Some(FinishReason::Length) => Standing::Incomplete("max_output_tokens"),
            Some(FinishReason::ContentFilter) => Standing::Incomplete("content_filter"),
            _ => Standing::Completed,
        }
    }

    /// The whole of it, kept where the caller wants that.
    fn whole(&self, standing: Standing<'_>) -> Vec<u8> {
        let asked = &self.output.asked;
        let mut out = Vec::new();
        asked.push_response(&mut out, standing, &self.output.written(), self.usage);
        if let Some(keep) = &asked.keep {
            keep(&asked.id, out.clone());
        }
        out
    }
}

/// Writes a stream, behind the events that open it.
pub struct Events {
    answer: Answer,
    finished: bool,
}

impl Events {
    pub fn new(asked: Arc<Asked>, seals: Arc<Seals>, seed: u64) -> Events {
        // What an attempt that came to nothing counted was not sent.
        asked.sequence.store(OPENING, Ordering::Relaxed);
        Events {
            answer: Answer::new(asked, seals, seed, true),
            finished: false,
        }
    }
}

impl DeltaSink for Events {
    fn put(&mut self, delta: Delta<'_>) {
        self.answer.put(&delta);
    }
}

impl Streamed for Events {
    fn bytes(&self) -> &[u8] {
        &self.answer.output.bytes
    }

    fn clear(&mut self) {
        self.answer.output.bytes.clear();
    }

    fn finish(&mut self) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        let standing = self.answer.finish();
        let whole = self.answer.whole(standing);
        let output = &mut self.answer.output;
        output.event(match standing {
            Standing::Incomplete(_) => "response.incomplete",
            _ => "response.completed",
        });
        push_key(&mut output.bytes, b',', "response");
        output.bytes.extend_from_slice(&whole);
        output.end();
    }

    fn usage(&self) -> Usage {
        self.answer.usage
    }

    fn held(&self) -> usize {
        self.answer.blocks.held() + self.answer.output.held
    }
}

/// Collects a response that goes out in one piece.
pub struct Response(Answer);

impl Response {
    pub fn new(asked: Arc<Asked>, seals: Arc<Seals>, seed: u64) -> Response {
        Response(Answer::new(asked, seals, seed, false))
    }
}

impl DeltaSink for Response {
    fn put(&mut self, delta: Delta<'_>) {
        self.0.put(&delta);
    }
}

impl Whole for Response {
    fn usage(&self) -> Usage {
        self.0.usage
    }

    fn into_body(mut self: Box<Self>) -> Vec<u8> {
        let standing = self.0.finish();
        self.0.whole(standing)
    }
}
