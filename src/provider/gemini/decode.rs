//! Gemini's answers -> deltas.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::candidate::{Candidate, Head};
use super::continuing::Continuing;
use super::usage::{Counters, tier_name};
use super::wire::{self, Response};
use crate::chat::{Delta, DeltaSink, FinishReason};
use crate::failure::Failure;
use crate::json::says_something;
use crate::json::unicode::{Seam, mended_bytes};
use crate::provider::budget::{self, ENTRY};
use crate::provider::{Decoder, Flow, Undo};
use crate::sse;

/// More candidates than any model gives.
const MOST_CANDIDATES: u32 = 64;

/// The memory of one answer. `candidates` is sorted by index. Nothing is put out before the first
/// piece of output, and no `Finish` before the upstream closed, because usage, signatures and a
/// continuation may follow the vendor's own finish reason.
pub struct Decode {
    undo: Arc<Undo>,
    head: Head,
    candidates: Vec<Candidate>,
    /// `promptFeedback.blockReason`.
    blocked: Option<String>,
    /// Some event was an answer, if an empty one.
    answered: bool,
    /// Bytes of events that wait for a lower candidate to begin.
    waiting: usize,
    continuing: Continuing,
    seam: Seam,
}

/// What a `finishReason` means.
enum Ending {
    Stop,
    Length,
    Filtered,
    Continue,
    SignatureMissing,
    /// Nobody's intention: worth another try while nothing was put out.
    Mishap,
}

impl Ending {
    fn of(reason: &str) -> Ending {
        match reason {
            "STOP" => Ending::Stop,
            "MAX_TOKENS" => Ending::Length,
            "SAFETY"
            | "RECITATION"
            | "BLOCKLIST"
            | "PROHIBITED_CONTENT"
            | "SPII"
            | "LANGUAGE"
            | "ESCALATION"
            | "MODEL_ARMOR"
            | "IMAGE_SAFETY"
            | "IMAGE_PROHIBITED_CONTENT"
            | "IMAGE_RECITATION"
            | "PUP_LIMITED_DISABLED" => Ending::Filtered,
            "CONTINUATION" => Ending::Continue,
            "MISSING_THOUGHT_SIGNATURE" => Ending::SignatureMissing,
            _ => Ending::Mishap,
        }
    }
}

/// The names of the reasons that a proxy may send as numbers of the vendor's enum.
fn reason_name(reason: &str) -> &str {
    match reason {
        "0" => "FINISH_REASON_UNSPECIFIED",
        "1" => "STOP",
        "2" => "MAX_TOKENS",
        "3" => "SAFETY",
        "4" => "RECITATION",
        "5" => "OTHER",
        "6" => "LANGUAGE",
        "7" => "BLOCKLIST",
        "8" => "PROHIBITED_CONTENT",
        "9" => "SPII",
        "10" => "MALFORMED_FUNCTION_CALL",
        name => name,
    }
}

impl Decode {
    pub fn new(undo: Arc<Undo>) -> Self {
        Decode {
            undo,
            head: Head::default(),
            candidates: Vec::new(),
            blocked: None,
            answered: false,
            waiting: 0,
            continuing: Continuing::default(),
            seam: Seam::default(),
        }
    }

    /// Takes one answer object or, as some endpoints send them, an array of such objects.
    fn take(&mut self, text: &str, out: &mut dyn DeltaSink) -> Result<(), Failure> {
        let text = text.trim_ascii();
        if text.starts_with('[') && text != "[DONE]" {
            let items: Vec<&RawValue> = serde_json::from_str(text).map_err(not_an_answer)?;
            return items
                .iter()
                .try_for_each(|item| self.object(item.get(), out));
        }
        if text.is_empty() || text == "[DONE]" {
            return Ok(());
        }
        self.object(text, out)
    }

    fn object(&mut self, text: &str, out: &mut dyn DeltaSink) -> Result<(), Failure> {
        let response: Response<'_> = serde_json::from_str(text).map_err(not_an_answer)?;
        let error = response.error.map(|raw| raw.get().as_bytes());
        if error.is_some_and(says_something) {
            return Err(Failure::from_event(text.as_bytes()));
        }
        self.answered = true;
        if self.head.id.is_empty() && !response.response_id.is_empty() {
            self.head.id = budget::name(&response.response_id).to_owned();
        }
        if self.head.model.is_empty() && !response.model_version.is_empty() {
            self.head.model = budget::name(&response.model_version).to_owned();
        }
        if let Some(usage) = &response.usage_metadata {
            self.head.counters.take(usage);
            if self.undo.wants_tier && !usage.service_tier.is_empty() {
                self.head.tier = tier_name(&usage.service_tier);
            }
        }
        if let Some(feedback) = &response.prompt_feedback
            && !feedback.block_reason.is_empty()
        {
            self.blocked = Some(budget::name(&feedback.block_reason).to_owned());
        }
        for candidate in &response.candidates {
            self.candidate(candidate, text, out)?;
        }
        self.head.report(out);
        Ok(())
    }

    fn candidate(
        &mut self,
        said: &wire::Candidate<'_>,
        event: &str,
        out: &mut dyn DeltaSink,
    ) -> Result<(), Failure> {
        let position = self.position(said.index.or_zero())?;
        let lower_are_open = self.candidates[..position].iter().all(|lower| lower.opened);
        let candidate = &mut self.candidates[position];
        if !lower_are_open || candidate.index as usize != position {
            // Clients put choices in a list, so a choice may begin only behind the lower ones.
            self.head.budget.take(ENTRY + event.len())?;
            self.waiting += event.len();
            candidate.waiting.push(event.into());
            candidate.note_finish(said);
            return Ok(());
        }
        candidate.take(said, &self.undo, &mut self.head, out)?;
        self.continuing
            .note(&said.continuation_token, self.head.count);
        for next in position + 1..self.candidates.len() {
            if !self.candidates[next - 1].opened || self.candidates[next].index as usize != next {
                break;
            }
            self.release(next, out)?;
        }
        Ok(())
    }

    /// Where the candidate `index` is, or now is.
    fn position(&mut self, index: u64) -> Result<usize, Failure> {
        let index = u32::try_from(index)
            .ok()
            .filter(|&index| index < MOST_CANDIDATES)
            .ok_or_else(|| Failure::malformed("the upstream sent too many candidates"))?;
        let found = self
            .candidates
            .binary_search_by_key(&index, |candidate| candidate.index);
        if let Err(position) = found {
            // Most answers have one, which is larger than all else that a stream holds.
            self.candidates.reserve_exact(1);
            self.candidates
                .insert(position, Candidate::new(index, &self.undo));
        }
        let (Ok(position) | Err(position)) = found;
        Ok(position)
    }

    /// Takes the events that waited for the lower candidates.
    fn release(&mut self, position: usize, out: &mut dyn DeltaSink) -> Result<(), Failure> {
        let candidate = &mut self.candidates[position];
        for event in std::mem::take(&mut candidate.waiting) {
            self.waiting -= event.len();
            self.head.budget.give_back(ENTRY + event.len());
            let response: Response<'_> = serde_json::from_str(&event).map_err(not_an_answer)?;
            let index = u64::from(candidate.index);
            for said in response
                .candidates
                .iter()
                .filter(|c| c.index.or_zero() == index)
            {
                candidate.take(said, &self.undo, &mut self.head, out)?;
            }
        }
        Ok(())
    }

    /// The upstream closed. `whole` answers cannot be continued.
    fn close(&mut self, whole: bool, out: &mut dyn DeltaSink) -> Result<(), Failure> {
        if self.candidates.is_empty() {
            return self.close_without_candidates(out);
        }
        if self
            .candidates
            .iter()
            .any(|candidate| candidate.finish.is_none())
        {
            if !whole && self.candidates.len() == 1 && self.continuing.resume(self.head.count) {
                return Ok(());
            }
            return Err(Failure::disconnected());
        }
        if self.waiting == 0 && !self.head.begun {
            for candidate in &self.candidates {
                let reason = reason_name(candidate.finish.as_deref().unwrap_or_default());
                let ending = Ending::of(reason);
                if matches!(ending, Ending::Mishap | Ending::SignatureMissing) {
                    let mut failure = Failure::ended_with(reason);
                    if !candidate.why.is_empty() {
                        failure.message = format!("{}: {}", failure.message, candidate.why);
                    }
                    failure.signature_refused = matches!(ending, Ending::SignatureMissing);
                    return Err(failure);
                }
            }
        }
        if !whole && self.can_continue() {
            return Ok(());
        }
        for position in 0..self.candidates.len() {
            self.release(position, out)?;
            self.finish(position, out);
        }
        Ok(())
    }

    fn close_without_candidates(&mut self, out: &mut dyn DeltaSink) -> Result<(), Failure> {
        let Some(reason) = self.blocked.take() else {
            return Err(if self.answered {
                Failure::empty()
            } else {
                Failure::disconnected()
            });
        };
        let text = format!("prompt blocked by the model provider: {reason}");
        self.head.put(
            Delta::Refusal {
                candidate: 0,
                text: &text,
            },
            out,
        );
        self.head.report(out);
        let reason = FinishReason::ContentFilter;
        self.head.put(
            Delta::Finish {
                candidate: 0,
                reason,
            },
            out,
        );
        Ok(())
    }

    fn finish(&mut self, position: usize, out: &mut dyn DeltaSink) {
        let head = &mut self.head;
        let state = &mut self.candidates[position];
        state.close(head, out);
        let candidate = state.index;
        let native = state.finish.take().unwrap_or_default();
        let native = reason_name(&native);
        let reason = match Ending::of(native) {
            Ending::Length | Ending::Continue => FinishReason::Length,
            Ending::Filtered => {
                let text = format!("blocked by the model provider: {native}");
                state.put(
                    Delta::Refusal {
                        candidate,
                        text: &text,
                    },
                    head,
                    out,
                );
                FinishReason::ContentFilter
            }
            _ if state.calls > 0 => FinishReason::ToolCalls,
            _ => FinishReason::Stop,
        };
        head.report(out);
        state.put(Delta::Finish { candidate, reason }, head, out);
    }

    /// Whether the answer stopped at the vendor's own limit and goes on.
    fn can_continue(&mut self) -> bool {
        let [only] = &self.candidates[..] else {
            return false;
        };
        let native = reason_name(only.finish.as_deref().unwrap_or_default());
        let spent = self.head.usage().completion.unwrap_or(0);
        matches!(Ending::of(native), Ending::Continue)
            && self.undo.max_tokens.is_none_or(|limit| spent < limit)
            && self.continuing.go_on()
    }
}

impl Decoder for Decode {
    fn on_head(&mut self, header: &dyn Fn(&str) -> Option<String>) {
        if self.undo.wants_tier {
            self.head.tier = header("x-gemini-service-tier").and_then(|tier| tier_name(&tier));
        }
    }

    fn on_event(
        &mut self,
        event: sse::Event<'_>,
        out: &mut dyn DeltaSink,
    ) -> Result<Flow, Failure> {
        let text = self.seam.mend(event.data);
        self.take(&text, out)?;
        Ok(Flow::More)
    }

    fn on_end(&mut self, out: &mut dyn DeltaSink) -> Result<(), Failure> {
        self.close(false, out)
    }

    fn on_body(&mut self, body: &[u8], out: &mut dyn DeltaSink) -> Result<(), Failure> {
        self.take(&mended_bytes(body), out)?;
        self.close(true, out)
    }

    fn continuation(&mut self, sent: &[u8]) -> Option<Vec<u8>> {
        let body = self.continuing.take_next(sent, self.head.count)?;
        self.head.earlier = self.head.usage();
        self.head.counters = Counters::default();
        for candidate in &mut self.candidates {
            candidate.finish = None;
        }
        Some(body)
    }

    fn served_by(&self) -> Option<&str> {
        (!self.head.model.is_empty()).then_some(&self.head.model)
    }

    fn may_continue(&self) -> bool {
        true
    }
}

fn not_an_answer(error: serde_json::Error) -> Failure {
    Failure::malformed(format!(
        "the upstream sent something that is no Gemini answer: {error}"
    ))
}
