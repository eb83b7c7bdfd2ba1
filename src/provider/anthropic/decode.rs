//! A Messages stream, or a whole message -> deltas.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::kept::{self, Kept};
use super::wire;
use crate::chat::{Delta, DeltaSink, FinishReason};
use crate::failure::Failure;
use crate::json::says_something;
use crate::json::unicode::{Seam, mended_bytes};
use crate::provider::budget::{self, Budget};
use crate::provider::fence::Fence;
use crate::provider::{Decoder, Flow, Undo};
use crate::sse;

mod blocks;
mod content;
pub(super) mod counters;

use blocks::{Carrier, Open};
use counters::Counters;

/// An answer that pauses is continued so many times.
const CONTINUATIONS: u32 = 3;

/// More blocks than this are no answer any more.
const BLOCKS: u32 = 100_000;

/// What is remembered of one answer between two events.
///
/// `Start` was put out exactly once when `started`; `Finish` is put out exactly once, when `ended`
/// becomes true and nothing is `paused`. Tool calls are counted over the whole answer, continuations
/// included, and never by the provider's block index.
pub struct Messages {
    undo: Arc<Undo>,
    started: bool,
    /// Between `message_start` and `message_stop`.
    in_message: bool,
    /// Something besides `Start` and `Usage` was put out for this message.
    said: bool,
    ended: bool,
    /// The answer stopped in the middle and is to be continued from these blocks.
    paused: Option<Vec<u8>>,
    continuations: u32,
    blocks: u32,
    /// By the provider's index.
    open: BTreeMap<u64, Open>,
    /// What the open blocks take.
    budget: Budget,
    next_tool: u32,
    counters: Counters,
    stop_reason: Option<String>,
    carrier: Carrier,
    /// Some reasoning was put out, so the next block of it stands apart.
    reasoned: bool,
    /// Unicode scalar values of the content so far.
    scalars: u64,
    fence: Option<Fence>,
    kept: Option<Kept>,
    /// Carrier and fence as they were when the message in progress began, if it is not the first.
    before: Option<(Carrier, Option<Fence>)>,
    seam: Seam,
}

impl Messages {
    pub fn new(undo: Arc<Undo>) -> Self {
        let fence = undo.strip_fence.then(Fence::default);
        let kept = undo.keep_blocks.then(Kept::default);
        Messages {
            undo,
            started: false,
            in_message: false,
            said: false,
            ended: false,
            paused: None,
            continuations: 0,
            blocks: 0,
            open: BTreeMap::new(),
            budget: Budget::default(),
            next_tool: 0,
            counters: Counters::default(),
            stop_reason: None,
            carrier: Carrier::default(),
            reasoned: false,
            scalars: 0,
            fence,
            kept,
            before: None,
            seam: Seam::default(),
        }
    }

    /// About how many bytes are held.
    #[cfg(test)]
    pub fn remembered(&self) -> usize {
        let open: usize = self.open.values().map(Open::whole_size).sum();
        open + self.carrier.size_now() + self.kept.as_ref().map_or(0, Kept::size_now)
    }

    fn start(&mut self, id: &str, model: &str, out: &mut dyn DeltaSink) {
        if !std::mem::replace(&mut self.started, true) {
            out.put(Delta::Start { id, model });
        }
    }

    fn message_start(
        &mut self,
        message: &wire::Message<'_>,
        out: &mut dyn DeltaSink,
    ) -> Result<(), Failure> {
        if self.in_message {
            // Faulty relays start over in the middle. That can be hidden only while nothing of
            // the first try was seen.
            if self.said {
                return Err(Failure::malformed("the upstream started its answer anew"));
            }
            self.open.clear();
            self.budget = Budget::default();
            self.counters.restart();
            self.stop_reason = None;
            // Nothing was seen, and yet thoughts without words and half a fence were taken in.
            (self.carrier, self.fence) = match &self.before {
                Some(before) => before.clone(),
                None => (
                    Carrier::default(),
                    self.undo.strip_fence.then(Fence::default),
                ),
            };
            if let Some(kept) = &mut self.kept {
                *kept = Kept::default();
            }
        }
        self.in_message = true;
        self.start(&message.id, &message.model, out);
        self.usage(message.usage, out);
        Ok(())
    }

    fn usage(&mut self, usage: Option<&serde_json::value::RawValue>, out: &mut dyn DeltaSink) {
        let Some(raw) = usage else { return };
        match serde_json::from_str::<wire::Usage<'_>>(raw.get()) {
            Ok(usage) => {
                self.counters.take(&usage);
                out.put(Delta::Usage(self.counters.sum()));
                if self.undo.wants_tier
                    && let Some(tier) = self.counters.new_tier(&usage)
                {
                    out.put(Delta::ServiceTier(tier));
                }
            }
            Err(error) => log::debug!("usage that cannot be read: {error}"),
        }
    }

    fn message_delta(
        &mut self,
        stop_reason: &str,
        stop_details: Option<&serde_json::value::RawValue>,
        out: &mut dyn DeltaSink,
    ) {
        if stop_reason.is_empty() {
            return;
        }
        self.stop_reason = Some(budget::name(stop_reason).to_owned());
        if stop_reason != "refusal" {
            return;
        }
        let details = stop_details
            .and_then(|raw| serde_json::from_str::<wire::StopDetails<'_>>(raw.get()).ok())
            .unwrap_or_default();
        if !details.explanation.is_empty() {
            self.said = true;
            out.put(Delta::Refusal {
                candidate: 0,
                text: &details.explanation,
            });
        }
    }

    /// The message is complete: finishes the answer, or leaves it open to be continued.
    fn finish(&mut self, out: &mut dyn DeltaSink) -> Result<(), Failure> {
        let reason = self.finish_reason(self.stop_reason.as_deref().unwrap_or_default());
        let is_cut = matches!(reason, FinishReason::Length | FinishReason::ContentFilter);
        if !is_cut && !self.open.values().all(Open::may_be_whole) {
            // A tool must not run with the half of what it was to be given.
            return Err(Failure::disconnected());
        }
        for open in std::mem::take(&mut self.open).into_values() {
            self.close(open, out);
        }
        self.ended = true;
        self.in_message = false;
        let reason = self.stop_reason.take();
        if reason.as_deref() == Some("pause_turn") && self.continuations < CONTINUATIONS {
            self.paused = self.kept.as_mut().and_then(Kept::take);
            if self.paused.is_some() {
                return Ok(());
            }
        }
        if let Some(mut fence) = self.fence.take() {
            fence.end(|text| self.pass(text, out));
        }
        if let Some(json) = self.carrier.json() {
            out.put(Delta::Extra {
                candidate: 0,
                json: &json,
            });
        }
        out.put(Delta::Finish {
            candidate: 0,
            reason: self.finish_reason(reason.as_deref().unwrap_or_default()),
        });
        Ok(())
    }

    fn finish_reason(&self, stop_reason: &str) -> FinishReason {
        match stop_reason {
            "end_turn" | "stop_sequence" => FinishReason::Stop,
            "max_tokens" | "model_context_window_exceeded" | "pause_turn" => FinishReason::Length,
            "tool_use" => FinishReason::ToolCalls,
            "refusal" => FinishReason::ContentFilter,
            _ if self.next_tool > 0 => FinishReason::ToolCalls,
            _ => FinishReason::Stop,
        }
    }
}

impl Decoder for Messages {
    fn on_event(
        &mut self,
        event: sse::Event<'_>,
        out: &mut dyn DeltaSink,
    ) -> Result<Flow, Failure> {
        let text = self.seam.mend(event.data);
        let data = text.as_bytes().trim_ascii();
        match data.first() {
            Some(b'{') => {}
            Some(b'[') if data != b"[DONE]" => return Err(Failure::from_event(data)),
            // Relays that speak for several formats have OpenAI's last event.
            _ if data == b"[DONE]" && self.stop_reason.is_some() => {
                self.finish(out)?;
                return Ok(Flow::Done);
            }
            _ if data.is_empty() || data == b"[DONE]" => return Ok(Flow::More),
            _ => return Err(Failure::malformed("an event that is no JSON object")),
        }
        let event = match serde_json::from_slice::<wire::Event<'_>>(data) {
            Ok(event) => event,
            Err(error) => return skip_or_fail(data, &error),
        };
        let index = event.index.0.unwrap_or(0);
        match &*event.r#type {
            "content_block_delta" => {
                if let Some(delta) = &event.delta {
                    self.block_delta(index, delta, out)?;
                }
            }
            "content_block_start" => {
                if let Some(raw) = event.content_block {
                    self.block_start(index, raw.get(), out)?;
                }
            }
            "content_block_stop" => self.block_stop(index, out),
            "message_start" => {
                let raw = event.message.map_or("{}", |raw| raw.get());
                let message = serde_json::from_str(raw).map_err(|error| {
                    Failure::malformed(format!("message_start cannot be read: {error}"))
                })?;
                self.message_start(&message, out)?;
            }
            "message_delta" => {
                self.start_late(out);
                self.usage(event.usage, out);
                if let Some(delta) = &event.delta {
                    self.message_delta(&delta.stop_reason, delta.stop_details, out);
                }
            }
            "message_stop" => {
                if !self.started {
                    return Err(Failure::empty());
                }
                self.finish(out)?;
                return Ok(Flow::Done);
            }
            "ping" => {}
            "error" => return Err(Failure::from_event(data)),
            _ if has_error(event.error) => return Err(Failure::from_event(data)),
            other => log::debug!("an event of type {other:?} is skipped"),
        }
        Ok(Flow::More)
    }

    fn on_end(&mut self, out: &mut dyn DeltaSink) -> Result<(), Failure> {
        if self.ended {
            return Ok(());
        }
        if self.stop_reason.is_some() {
            return self.finish(out);
        }
        Err(if self.started {
            Failure::disconnected()
        } else {
            Failure::empty()
        })
    }

    fn on_body(&mut self, body: &[u8], out: &mut dyn DeltaSink) -> Result<(), Failure> {
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
        let Some(content) = &message.content else {
            return Err(Failure::malformed("the upstream's answer is no message"));
        };
        // The connection is not a stream that could be continued.
        self.kept = None;
        self.message_start(&message, out)?;
        for (index, raw) in content.iter().enumerate() {
            let index = index as u64;
            self.block_start(index, raw.get(), out)?;
            self.block_stop(index, out);
        }
        self.message_delta(&message.stop_reason, message.stop_details, out);
        self.finish(out)
    }

    fn continuation(&mut self, sent: &[u8]) -> Option<Vec<u8>> {
        let body = kept::continued(sent, self.paused.as_deref()?)?;
        self.paused = None;
        self.ended = false;
        self.said = false;
        self.continuations += 1;
        self.before = Some((self.carrier.clone(), self.fence.clone()));
        self.counters.next_answer();
        Some(body)
    }

    fn may_continue(&self) -> bool {
        self.kept.is_some()
    }
}

pub(super) fn has_error(error: Option<&RawValue>) -> bool {
    error.is_some_and(|raw| says_something(raw.get().as_bytes()))
}

/// An event that does not fit: of no consequence if its type is unknown.
pub(super) fn skip_or_fail(data: &[u8], error: &serde_json::Error) -> Result<Flow, Failure> {
    const KNOWN: &[&str] = &[
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ];
    match serde_json::from_slice::<wire::EventType<'_>>(data) {
        Ok(event) if &*event.r#type == "error" => Err(Failure::from_event(data)),
        Ok(event) if !KNOWN.contains(&&*event.r#type) => {
            log::debug!("an event of type {:?} is skipped: {error}", &*event.r#type);
            Ok(Flow::More)
        }
        _ => Err(Failure::malformed(format!(
            "an event cannot be read: {error}"
        ))),
    }
}
