//! The events of a stream, or a whole response -> deltas.
//!
//! A response is a list of items. A stream tells each of them twice: in pieces, and whole when it
//! is done. What came in pieces is not said again, what did not is said then, so that servers
//! which leave events out are understood, and a whole body is a stream without pieces.

use std::sync::Arc;

use log::debug;
use serde_json::value::RawValue;

use super::wire::{self, Count, Details, Event, Incomplete, Item, Part, Response};
use super::{failed, speech};
use crate::chat::{Delta, DeltaSink, FinishReason, ToolKind, Usage};
use crate::failure::Failure;
use crate::json::unicode::{Seam, mended_bytes};
use crate::provider::gemini::compact;
use crate::provider::{Decoder, Flow, Undo};
use crate::sse;

/// More items than any response has.
const MOST_ITEMS: usize = 4096;

/// Reasoning items beyond this are not handed back; the model then has to think again.
const MOST_REASONING: usize = 8 << 20;

/// The memory of one answer.
pub struct Decode {
    undo: Arc<Undo>,
    begun: bool,
    id: String,
    model: String,
    /// In the order in which they were first heard of.
    items: Vec<Heard>,
    calls: u32,
    /// Characters of content so far.
    chars: u64,
    /// The part of the last piece of reasoning: item and place.
    thought_at: Option<(usize, u64)>,
    /// Reasoning items as they came, with commas between them.
    reasoning: String,
    seam: Seam,
}

/// What was said of one item.
#[derive(Default)]
struct Heard {
    output_index: u64,
    call: Option<u32>,
    arguments: bool,
    text: bool,
    refusal: bool,
    cited: bool,
    thought: Option<Thought>,
    done: bool,
    /// Where in the content its text parts begin.
    parts: Vec<(u64, u64)>,
}

/// The two ways in which reasoning is told. One item is told in one of them.
#[derive(Clone, Copy, PartialEq)]
enum Thought {
    Summary,
    Plain,
}

impl Decode {
    pub fn new(undo: Arc<Undo>) -> Self {
        Decode {
            undo,
            begun: false,
            id: String::new(),
            model: String::new(),
            items: Vec::new(),
            calls: 0,
            chars: 0,
            thought_at: None,
            reasoning: String::new(),
            seam: Seam::default(),
        }
    }

    fn put(&mut self, delta: Delta<'_>, out: &mut dyn DeltaSink) {
        self.begin(out);
        out.put(delta);
    }

    fn begin(&mut self, out: &mut dyn DeltaSink) {
        if !std::mem::replace(&mut self.begun, true) {
            out.put(Delta::Start {
                id: &self.id,
                model: &self.model,
            });
        }
    }

    /// Where the item is, or now is. Without a number it is the last one.
    fn item(&mut self, index: Count) -> Result<usize, Failure> {
        let index = match (index.0, self.items.last()) {
            (Some(index), _) => index,
            (None, Some(last)) => last.output_index,
            (None, None) => 0,
        };
        let known = self.items.iter().rposition(|i| i.output_index == index);
        match known {
            Some(at) => Ok(at),
            None => self.new_item(index),
        }
    }

    fn new_item(&mut self, output_index: u64) -> Result<usize, Failure> {
        if self.items.len() == MOST_ITEMS {
            return Err(Failure::malformed("the upstream sent too many items"));
        }
        self.items.push(Heard {
            output_index,
            ..Heard::default()
        });
        Ok(self.items.len() - 1)
    }

    fn event(&mut self, text: &str, out: &mut dyn DeltaSink) -> Result<Flow, Failure> {
        let event: Event<'_> = serde_json::from_str(text).map_err(not_of_the_format)?;
        match &*event.kind {
            "response.output_text.delta" => {
                let at = self.item(event.output_index)?;
                self.say(at, event.content_index, &event.delta, out);
                self.weigh(event.logprobs, out);
            }
            "response.function_call_arguments.delta" | "response.custom_tool_call_input.delta" => {
                let at = self.item(event.output_index)?;
                self.argue(at, &event.delta, out);
            }
            "response.function_call_arguments.done" => {
                let at = self.item(event.output_index)?;
                self.argue_once(at, &event.arguments, out);
            }
            "response.custom_tool_call_input.done" => {
                let at = self.item(event.output_index)?;
                self.argue_once(at, &event.input, out);
            }
            "response.refusal.delta" => {
                let at = self.item(event.output_index)?;
                self.refuse(at, &event.delta, out);
            }
            "response.reasoning_summary_text.delta" => {
                let at = self.item(event.output_index)?;
                let place = event.summary_index;
                self.think(at, Thought::Summary, place, &event.delta, out);
            }
            "response.reasoning_text.delta" => {
                let at = self.item(event.output_index)?;
                let place = event.content_index;
                self.think(at, Thought::Plain, place, &event.delta, out);
            }
            "response.output_text.annotation.added" => {
                let at = self.item(event.output_index)?;
                if let Some(raw) = event.annotation {
                    self.cite(at, event.content_index, raw, out);
                }
            }
            "response.output_item.added" => self.added(&event, out)?,
            "response.output_item.done" => {
                if let Some(raw) = event.item {
                    let at = self.item(event.output_index)?;
                    self.whole(at, raw, out);
                }
            }
            "response.created" => {
                if let Some(response) = wire::read::<Response<'_>>(event.response) {
                    self.name(&response);
                }
                self.begin(out);
            }
            "response.completed"
            | "response.incomplete"
            | "response.failed"
            | "response.cancelled" => {
                let Some(mut response) = wire::read::<Response<'_>>(event.response) else {
                    return Err(Failure::malformed("the upstream's last event is empty"));
                };
                if response.status.is_empty() {
                    let status = event.kind.trim_start_matches("response.");
                    response.status.0 = status.to_owned().into();
                }
                self.close(&response, out)?;
                return Ok(Flow::Done);
            }
            "error" => {
                let object = event.error.filter(|raw| raw.get().starts_with('{'));
                return Err(failed::failure(object.map_or(text, RawValue::get)));
            }
            "" => {
                if let Some(error) = event.error.filter(|raw| raw.get() != "null") {
                    return Err(failed::failure(error.get()));
                }
            }
            _ => {}
        }
        Ok(Flow::More)
    }

    /// Takes over the id and the model, once.
    fn name(&mut self, response: &Response<'_>) {
        if !self.begun {
            self.id = response.id.to_string();
            self.model = response.model.to_string();
        }
    }

    fn added(&mut self, event: &Event<'_>, out: &mut dyn DeltaSink) -> Result<(), Failure> {
        let mut at = self.item(event.output_index)?;
        // Some servers give all items the same number.
        if self.items[at].done {
            at = self.new_item(self.items[at].output_index)?;
        }
        if let Some(item) = wire::read::<Item<'_>>(event.item)
            && let Some(kind) = call_kind(&item)
        {
            self.call(at, kind, &item, out);
        }
        Ok(())
    }

    fn say(&mut self, at: usize, place: Count, text: &str, out: &mut dyn DeltaSink) {
        if text.is_empty() {
            return;
        }
        let place = place.0.unwrap_or(0);
        let chars = self.chars;
        let item = &mut self.items[at];
        item.text = true;
        if item.parts.last().is_none_or(|(last, _)| *last != place) && item.parts.len() < MOST_ITEMS
        {
            item.parts.push((place, chars));
        }
        self.chars += text.chars().count() as u64;
        self.put(Delta::Text { candidate: 0, text }, out);
    }

    fn weigh(&mut self, logprobs: Option<&RawValue>, out: &mut dyn DeltaSink) {
        // Every event has the list, nearly always an empty one.
        if let Some(raw) = logprobs.filter(|raw| raw.get() != "[]") {
            self.begin(out);
            speech::log_probabilities(raw, out);
        }
    }

    fn refuse(&mut self, at: usize, text: &str, out: &mut dyn DeltaSink) {
        if !text.is_empty() {
            self.items[at].refusal = true;
            self.put(Delta::Refusal { candidate: 0, text }, out);
        }
    }

    fn cite(&mut self, at: usize, place: Count, raw: &RawValue, out: &mut dyn DeltaSink) {
        self.begin(out);
        let item = &mut self.items[at];
        item.cited = true;
        let place = place.0.unwrap_or(0);
        let part = item.parts.iter().find(|(part, _)| *part == place);
        let base = part.or(item.parts.last()).map_or(self.chars, |part| part.1);
        speech::cite(raw, base, out);
    }

    fn think(
        &mut self,
        at: usize,
        kind: Thought,
        place: Count,
        text: &str,
        out: &mut dyn DeltaSink,
    ) {
        if text.is_empty() || *self.items[at].thought.get_or_insert(kind) != kind {
            return;
        }
        let part = (at, place.0.unwrap_or(0));
        let before = self.thought_at.replace(part);
        if before.is_some_and(|before| before != part) {
            let text = &format!("\n\n{text}");
            self.put(Delta::Reasoning { candidate: 0, text }, out);
        } else {
            self.put(Delta::Reasoning { candidate: 0, text }, out);
        }
    }

    /// The start of a call, unless it was told.
    fn call(&mut self, at: usize, kind: ToolKind, item: &Item<'_>, out: &mut dyn DeltaSink) {
        if self.items[at].call.is_some() {
            return;
        }
        let index = self.calls;
        self.calls += 1;
        self.items[at].call = Some(index);
        let undo = Arc::clone(&self.undo);
        let start = Delta::ToolStart {
            candidate: 0,
            index,
            id: &item.call_id,
            name: undo.name(&item.name),
            kind,
            google_signature: None,
        };
        self.put(start, out);
    }

    fn argue(&mut self, at: usize, fragment: &str, out: &mut dyn DeltaSink) {
        // Other items have arguments too: those of tools that the provider runs itself.
        let Some(index) = self.items[at].call else {
            return;
        };
        if fragment.is_empty() {
            return;
        }
        self.items[at].arguments = true;
        let args = Delta::ToolArgs {
            candidate: 0,
            index,
            fragment,
        };
        self.put(args, out);
    }

    fn argue_once(&mut self, at: usize, whole: &str, out: &mut dyn DeltaSink) {
        if !self.items[at].arguments {
            self.argue(at, whole, out);
        }
    }

    /// An item at its end: says what was not said of it.
    fn whole(&mut self, at: usize, raw: &RawValue, out: &mut dyn DeltaSink) {
        let Some(item) = wire::read::<Item<'_>>(Some(raw)) else {
            return;
        };
        if std::mem::replace(&mut self.items[at].done, true) {
            return;
        }
        if let Some(kind) = call_kind(&item) {
            self.call(at, kind, &item, out);
            let text = match kind {
                ToolKind::Function => &item.arguments,
                ToolKind::Custom => &item.input,
            };
            self.argue_once(at, text, out);
        }
        match &*item.kind {
            "message" => self.message(at, &item, out),
            "reasoning" => {
                self.thoughts(at, &item, out);
                self.keep(raw);
            }
            _ => {}
        }
    }

    fn message(&mut self, at: usize, item: &Item<'_>, out: &mut dyn DeltaSink) {
        let heard = &self.items[at];
        let (text, refusal, cited) = (heard.text, heard.refusal, heard.cited);
        for (place, raw) in wire::list(item.content).into_iter().enumerate() {
            let Some(part) = wire::read::<Part<'_>>(Some(raw)) else {
                continue;
            };
            let place = Count(Some(place as u64));
            if !text && &*part.kind == "output_text" {
                self.say(at, place, &part.text, out);
                self.weigh(part.logprobs, out);
            }
            if !refusal {
                self.refuse(at, &part.refusal, out);
            }
            if !cited {
                for annotation in wire::list(part.annotations) {
                    self.cite(at, place, annotation, out);
                }
            }
        }
    }

    fn thoughts(&mut self, at: usize, item: &Item<'_>, out: &mut dyn DeltaSink) {
        if self.items[at].thought.is_some() {
            return;
        }
        for (kind, list) in [
            (Thought::Summary, item.summary),
            (Thought::Plain, item.content),
        ] {
            for (place, raw) in wire::list(list).into_iter().enumerate() {
                if let Some(part) = wire::read::<Part<'_>>(Some(raw)) {
                    self.think(at, kind, Count(Some(place as u64)), &part.text, out);
                }
            }
        }
    }

    /// Keeps a reasoning item for the carrier.
    fn keep(&mut self, raw: &RawValue) {
        let item = compact(raw.get());
        if self.reasoning.len() + item.len() > MOST_REASONING {
            debug!("responses: too much reasoning to hand it all back");
            return;
        }
        if !self.reasoning.is_empty() {
            self.reasoning.push(',');
        }
        self.reasoning.push_str(&item);
    }

    /// The response is over, well or not.
    fn close(&mut self, response: &Response<'_>, out: &mut dyn DeltaSink) -> Result<(), Failure> {
        let reason = match &*response.status {
            "completed" => None,
            "incomplete" => {
                let details = wire::read::<Incomplete<'_>>(response.incomplete_details);
                Some(match details.as_ref().map(|details| &*details.reason) {
                    Some("content_filter") => FinishReason::ContentFilter,
                    _ => FinishReason::Length,
                })
            }
            "failed" => {
                let error = response.error.filter(|raw| raw.get() != "null");
                return Err(match error {
                    Some(error) => failed::failure(error.get()),
                    None => Failure::ended_with("failed"),
                });
            }
            other => return Err(Failure::ended_with(other)),
        };
        self.name(response);
        self.begin(out);
        if self.items.is_empty() {
            for (index, raw) in wire::list(response.output).into_iter().enumerate() {
                let at = self.new_item(index as u64)?;
                self.whole(at, raw, out);
            }
        }
        if !self.reasoning.is_empty() {
            let reasoning = std::mem::take(&mut self.reasoning);
            let json = format!(r#"{{"openai":{{"reasoning_items":[{reasoning}]}}}}"#);
            out.put(Delta::Extra {
                candidate: 0,
                json: &json,
            });
        }
        if let Some(usage) = wire::read(response.usage) {
            out.put(Delta::Usage(counters(&usage)));
        }
        if self.undo.wants_tier && !response.service_tier.is_empty() {
            out.put(Delta::ServiceTier(&response.service_tier));
        }
        let called = match self.calls {
            0 => FinishReason::Stop,
            _ => FinishReason::ToolCalls,
        };
        out.put(Delta::Finish {
            candidate: 0,
            reason: reason.unwrap_or(called),
        });
        Ok(())
    }
}

fn call_kind(item: &Item<'_>) -> Option<ToolKind> {
    match &*item.kind {
        "function_call" => Some(ToolKind::Function),
        "custom_tool_call" => Some(ToolKind::Custom),
        _ => None,
    }
}

fn counters(usage: &wire::Usage<'_>) -> Usage {
    let details = |raw| wire::read::<Details>(raw).unwrap_or_default();
    let input = details(usage.input_tokens_details);
    let output = details(usage.output_tokens_details);
    Usage {
        prompt: usage.input_tokens.0,
        completion: usage.output_tokens.0,
        cached: input.cached_tokens.0,
        cache_write: input.cache_write_tokens.0,
        reasoning: output.reasoning_tokens.0,
        ..Usage::default()
    }
}

impl Decoder for Decode {
    fn on_event(
        &mut self,
        event: sse::Event<'_>,
        out: &mut dyn DeltaSink,
    ) -> Result<Flow, Failure> {
        let text = self.seam.mend(event.data);
        let text = text.trim_ascii();
        if text.is_empty() || text == "[DONE]" {
            return Ok(Flow::More);
        }
        self.event(text, out)
    }

    fn on_end(&mut self, _: &mut dyn DeltaSink) -> Result<(), Failure> {
        // The last event ends the answer itself.
        Err(Failure::disconnected())
    }

    fn on_body(&mut self, body: &[u8], out: &mut dyn DeltaSink) -> Result<(), Failure> {
        let text = mended_bytes(body);
        let response: Response<'_> = serde_json::from_str(&text).map_err(not_of_the_format)?;
        if response.status.is_empty() {
            let error = response.error.filter(|raw| raw.get() != "null");
            return Err(match error {
                Some(error) => failed::failure(error.get()),
                None if &*response.object == "response" => Failure::empty(),
                None => Failure::malformed("the upstream sent something that is no response"),
            });
        }
        self.close(&response, out)
    }
}

fn not_of_the_format(error: serde_json::Error) -> Failure {
    Failure::malformed(format!(
        "the upstream sent something that is no event of a response: {error}"
    ))
}
