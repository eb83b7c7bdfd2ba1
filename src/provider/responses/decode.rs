//! The events of a stream, or a whole response -> deltas.
//!
//! A response is a list of items. A stream tells each of them several times: in pieces, whole when
//! a part or the item is done, and in its last event. What was said is not said again, what was not
//! is said then, so that servers which leave events out are understood, and a whole body is a
//! stream without pieces. What was said wrongly cannot be taken back; of a call's arguments, by
//! which a tool will run, that is a failure.

use std::sync::Arc;

use log::debug;
use serde_json::Value;
use serde_json::value::RawValue;

use super::told::{Missing, Told};
use super::wire::{self, Count, Details, Event, Incomplete, Item, Part, Response};
use super::{failed, speech};
use crate::chat::{Delta, DeltaSink, FinishReason, ToolKind, Usage};
use crate::failure::Failure;
use crate::json::says_something;
use crate::json::unicode::{Seam, mended_bytes};
use crate::provider::budget::{self, Budget};
use crate::provider::gemini::compact;
use crate::provider::{Decoder, Flow, Undo};
use crate::sse;

/// More items than any response has.
const MOST_ITEMS: usize = 4096;

/// Reasoning items beyond this are not handed back; the model then has to think again.
const MOST_REASONING: usize = 8 << 20;

/// Arguments beyond this, of all calls together, are not held against what the end says.
const MOST_ARGUMENTS: usize = 8 << 20;

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
    /// Reasoning items as they came, with commas between them, and their ids.
    reasoning: String,
    kept: Vec<String>,
    /// All text, and all refusals, of the answer.
    spoken: Told,
    refused: Told,
    cited: bool,
    /// Bytes of arguments that are kept.
    argued: usize,
    /// What the items take beside those.
    budget: Budget,
    seam: Seam,
}

/// What was said of one item.
#[derive(Default)]
struct Heard {
    output_index: u64,
    id: String,
    call_id: String,
    call: Option<u32>,
    /// A call's arguments so far; `None` if they are too long to be kept.
    arguments: Option<String>,
    /// The upstream has said that these are all of them.
    argued: bool,
    text: Told,
    refusal: Told,
    cited: bool,
    thought: Option<Thought>,
    done: bool,
    parts: Vec<TextPart>,
    /// The parts of its reasoning.
    thoughts: Vec<(u64, Told)>,
}

/// A part of a message's content.
struct TextPart {
    place: u64,
    /// Where in the whole content it begins, in characters.
    begin: u64,
    told: Told,
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
            kept: Vec::new(),
            spoken: Told::default(),
            refused: Told::default(),
            cited: false,
            argued: 0,
            budget: Budget::default(),
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
        self.budget.take(size_of::<Heard>())?;
        self.items.push(Heard {
            output_index,
            arguments: Some(String::new()),
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
                self.argue_whole(at, &event.arguments, out)?;
            }
            "response.custom_tool_call_input.done" => {
                let at = self.item(event.output_index)?;
                self.argue_whole(at, &event.input, out)?;
            }
            "response.output_text.done" => {
                let at = self.item(event.output_index)?;
                self.say_whole(at, event.content_index, &event.text, out);
            }
            "response.refusal.done" => {
                let at = self.item(event.output_index)?;
                self.refuse_whole(at, &event.refusal, out);
            }
            "response.reasoning_summary_text.done" => {
                let at = self.item(event.output_index)?;
                let place = event.summary_index;
                self.think_whole(at, Thought::Summary, place, &event.text, out);
            }
            "response.reasoning_text.done" => {
                let at = self.item(event.output_index)?;
                let place = event.content_index;
                self.think_whole(at, Thought::Plain, place, &event.text, out);
            }
            "response.content_part.done" | "response.reasoning_summary_part.done" => {
                if let Some(part) = wire::read::<Part<'_>>(event.part) {
                    let at = self.item(event.output_index)?;
                    let place = event.content_index;
                    match &*part.kind {
                        "output_text" => self.say_whole(at, place, &part.text, out),
                        "refusal" => self.refuse_whole(at, &part.refusal, out),
                        "reasoning_text" => {
                            self.think_whole(at, Thought::Plain, place, &part.text, out);
                        }
                        "summary_text" => {
                            let place = event.summary_index;
                            self.think_whole(at, Thought::Summary, place, &part.text, out);
                        }
                        _ => {}
                    }
                }
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
                    let named = wire::read::<Item<'_>>(Some(raw));
                    let known = named.and_then(|item| self.known(&item));
                    let at = match known {
                        Some(at) => at,
                        None => self.item(event.output_index)?,
                    };
                    self.whole(at, raw, out)?;
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
                if let Some(error) = event
                    .error
                    .filter(|raw| says_something(raw.get().as_bytes()))
                {
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
            self.id = budget::name(&response.id).to_owned();
            self.model = budget::name(&response.model).to_owned();
        }
    }

    fn added(&mut self, event: &Event<'_>, out: &mut dyn DeltaSink) -> Result<(), Failure> {
        let mut at = self.item(event.output_index)?;
        let item = wire::read::<Item<'_>>(event.item);
        let id = item.as_ref().map_or("", |item| &*item.id);
        let heard = &self.items[at];
        // Some servers give all items the same number, or none.
        let is_another = !heard.id.is_empty() && !id.is_empty() && heard.id != id;
        if heard.done || is_another {
            at = self.new_item(self.items[at].output_index)?;
        }
        let Some(item) = item else {
            return Ok(());
        };
        self.items[at].id = self.kept_id(&item.id)?;
        if let Some(kind) = call_kind(&item) {
            self.call(at, kind, &item, out);
        }
        Ok(())
    }

    /// An id, as far as it may be kept.
    fn kept_id(&mut self, id: &str) -> Result<String, Failure> {
        let id = budget::name(id);
        self.budget.take(id.len())?;
        Ok(id.to_owned())
    }

    /// The item of that name.
    fn known(&self, item: &Item<'_>) -> Option<usize> {
        let by_id = |heard: &Heard| !item.id.is_empty() && heard.id == *item.id;
        let by_call = |heard: &Heard| !item.call_id.is_empty() && heard.call_id == *item.call_id;
        self.items
            .iter()
            .position(by_id)
            .or_else(|| self.items.iter().position(by_call))
    }

    fn say(&mut self, at: usize, place: Count, text: &str, out: &mut dyn DeltaSink) {
        if text.is_empty() {
            return;
        }
        let place = place.0.unwrap_or(0);
        let begin = self.chars;
        let item = &mut self.items[at];
        item.text.add(text);
        if item.parts.last().is_none_or(|last| last.place != place)
            && item.parts.len() < MOST_ITEMS
            && self.budget.has_room(size_of::<TextPart>())
        {
            item.parts.push(TextPart {
                place,
                begin,
                told: Told::default(),
            });
        }
        if let Some(part) = item.parts.last_mut() {
            part.told.add(text);
        }
        self.chars += text.chars().count() as u64;
        self.spoken.add(text);
        self.put(Delta::Text { candidate: 0, text }, out);
    }

    /// A part of the text at its end.
    fn say_whole(&mut self, at: usize, place: Count, whole: &str, out: &mut dyn DeltaSink) {
        let item = &self.items[at];
        // Said under whatever number.
        if item.text.missing(whole) == Missing::Rest("") {
            return;
        }
        let number = place.0.unwrap_or(0);
        let part = item.parts.iter().find(|part| part.place == number);
        let told = part.map(|part| part.told).unwrap_or_default();
        match told.missing(whole) {
            Missing::Rest(rest) => self.say(at, place, rest, out),
            Missing::Other => debug!("responses: a text ends otherwise than it was told"),
        }
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
            self.items[at].refusal.add(text);
            self.refused.add(text);
            self.put(Delta::Refusal { candidate: 0, text }, out);
        }
    }

    fn refuse_whole(&mut self, at: usize, whole: &str, out: &mut dyn DeltaSink) {
        if let Missing::Rest(rest) = self.items[at].refusal.missing(whole) {
            self.refuse(at, rest, out);
        }
    }

    fn cite(&mut self, at: usize, place: Count, raw: &RawValue, out: &mut dyn DeltaSink) {
        self.begin(out);
        self.cited = true;
        let item = &mut self.items[at];
        item.cited = true;
        let place = place.0.unwrap_or(0);
        let part = item.parts.iter().find(|part| part.place == place);
        let part = part.or(item.parts.last());
        let base = part.map_or(self.chars, |part| part.begin);
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
        let thoughts = &mut self.items[at].thoughts;
        match thoughts.iter().position(|(known, _)| *known == part.1) {
            Some(known) => thoughts[known].1.add(text),
            None if thoughts.len() < MOST_ITEMS
                && self.budget.has_room(size_of::<(u64, Told)>()) =>
            {
                let mut told = Told::default();
                told.add(text);
                thoughts.push((part.1, told));
            }
            None => {}
        }
        let before = self.thought_at.replace(part);
        if before.is_some_and(|before| before != part) {
            let text = &format!("\n\n{text}");
            self.put(Delta::Reasoning { candidate: 0, text }, out);
        } else {
            self.put(Delta::Reasoning { candidate: 0, text }, out);
        }
    }

    /// A part of the reasoning at its end.
    fn think_whole(
        &mut self,
        at: usize,
        kind: Thought,
        place: Count,
        whole: &str,
        out: &mut dyn DeltaSink,
    ) {
        let thoughts = &self.items[at].thoughts;
        let number = place.0.unwrap_or(0);
        let part = thoughts.iter().find(|(known, _)| *known == number);
        let told = part.map(|(_, told)| *told).unwrap_or_default();
        if let Missing::Rest(rest) = told.missing(whole) {
            self.think(at, kind, place, rest, out);
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
        // Without room it is found by its order.
        self.items[at].call_id = self.kept_id(&item.call_id).unwrap_or_default();
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
        self.argued += fragment.len();
        match &mut self.items[at].arguments {
            Some(arguments) if self.argued <= MOST_ARGUMENTS => arguments.push_str(fragment),
            arguments => *arguments = None,
        }
        let args = Delta::ToolArgs {
            candidate: 0,
            index,
            fragment,
        };
        self.put(args, out);
    }

    /// A call's arguments at their end.
    fn argue_whole(
        &mut self,
        at: usize,
        whole: &str,
        out: &mut dyn DeltaSink,
    ) -> Result<(), Failure> {
        if self.items[at].call.is_none() {
            return Ok(());
        }
        self.items[at].argued = true;
        let Some(told) = &self.items[at].arguments else {
            return Ok(());
        };
        if let Some(rest) = whole.strip_prefix(&**told) {
            self.argue(at, rest, out);
            return Ok(());
        }
        // Written anew, with other blanks or escapes.
        let value = |text: &str| serde_json::from_str::<Value>(text).ok();
        if whole.is_empty() || value(told).is_some_and(|told| value(whole) == Some(told)) {
            return Ok(());
        }
        Err(Failure::malformed(
            "the upstream ended a tool call with other arguments than it had begun",
        ))
    }

    /// An item at its end: says what was not said of it.
    fn whole(&mut self, at: usize, raw: &RawValue, out: &mut dyn DeltaSink) -> Result<(), Failure> {
        let Some(item) = wire::read::<Item<'_>>(Some(raw)) else {
            return Ok(());
        };
        let is_first = !std::mem::replace(&mut self.items[at].done, true);
        if self.items[at].id.is_empty() {
            self.items[at].id = self.kept_id(&item.id)?;
        }
        if let Some(kind) = call_kind(&item) {
            self.call(at, kind, &item, out);
            self.argue_whole(at, arguments(kind, &item), out)?;
        }
        match &*item.kind {
            "message" => self.message(at, &item, out),
            "reasoning" if is_first => {
                self.thoughts(at, &item, out);
                self.keep(&item.id, raw);
            }
            _ => {}
        }
        Ok(())
    }

    fn message(&mut self, at: usize, item: &Item<'_>, out: &mut dyn DeltaSink) {
        let cited = self.items[at].cited;
        let was_silent = self.items[at].text.is_empty();
        let parts = wire::list(item.content);
        let said = words(&parts);
        let all_said = self.items[at].text.missing(&said) == Missing::Rest("");
        for (place, raw) in parts.into_iter().enumerate() {
            let Some(part) = wire::read::<Part<'_>>(Some(raw)) else {
                continue;
            };
            let place = Count(Some(place as u64));
            if &*part.kind == "output_text" && !all_said {
                self.say_whole(at, place, &part.text, out);
                if was_silent {
                    self.weigh(part.logprobs, out);
                }
            }
            self.refuse_whole(at, &part.refusal, out);
            if !cited {
                for annotation in wire::list(part.annotations) {
                    self.cite(at, place, annotation, out);
                }
            }
        }
    }

    fn thoughts(&mut self, at: usize, item: &Item<'_>, out: &mut dyn DeltaSink) {
        let lists = [
            (Thought::Summary, item.summary),
            (Thought::Plain, item.content),
        ];
        for (kind, list) in lists {
            for (place, raw) in wire::list(list).into_iter().enumerate() {
                if let Some(part) = wire::read::<Part<'_>>(Some(raw)) {
                    let place = Count(Some(place as u64));
                    self.think_whole(at, kind, place, &part.text, out);
                }
            }
        }
    }

    /// Keeps a reasoning item for the carrier.
    fn keep(&mut self, id: &str, raw: &RawValue) {
        if self.kept.iter().any(|kept| kept == id) || self.kept.len() == MOST_ITEMS {
            return;
        }
        let id = self.kept_id(id).unwrap_or_default();
        self.kept.push(id);
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
                let error = response
                    .error
                    .filter(|raw| says_something(raw.get().as_bytes()));
                return Err(match error {
                    Some(error) => failed::failure(error.get()),
                    None => Failure::ended_with("failed"),
                });
            }
            other => return Err(Failure::ended_with(other)),
        };
        self.name(response);
        self.begin(out);
        let output = wire::list(response.output);
        match self.items.is_empty() {
            true => {
                for (index, raw) in output.into_iter().enumerate() {
                    let at = self.new_item(index as u64)?;
                    self.whole(at, raw, out)?;
                }
            }
            false => self.catch_up(&output, out)?,
        }
        let is_open = |item: &Heard| {
            let silent = item.arguments.as_ref().is_some_and(String::is_empty);
            item.call.is_some() && silent && !item.argued
        };
        if reason.is_none() && self.items.iter().any(is_open) {
            // A tool would run with nothing.
            return Err(Failure::malformed(
                "the upstream began a tool call and never told its arguments",
            ));
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

impl Decode {
    /// What the last event says of an answer that came in pieces, where it says more. Numbers are
    /// not relied on: texts are compared as a whole, calls by their ids, or else by their order.
    fn catch_up(&mut self, output: &[&RawValue], out: &mut dyn DeltaSink) -> Result<(), Failure> {
        let items: Vec<(&RawValue, Item<'_>)> = output
            .iter()
            .filter_map(|raw| Some((*raw, wire::read::<Item<'_>>(Some(raw))?)))
            .collect();
        let mut said = String::new();
        let mut refused = String::new();
        let mut calls = 0;
        let (kept, mut reasoned) = (self.kept.len(), 0);
        for (raw, item) in &items {
            if let Some(kind) = call_kind(item) {
                let by_order = self
                    .items
                    .iter()
                    .position(|heard| heard.call == Some(calls));
                calls += 1;
                let at = match self.known(item).or(by_order) {
                    Some(at) => at,
                    None => self.new_item(u64::MAX)?,
                };
                self.call(at, kind, item, out);
                self.argue_whole(at, arguments(kind, item), out)?;
                continue;
            }
            match &*item.kind {
                "message" => {
                    let parts = wire::list(item.content);
                    said.push_str(&words(&parts));
                    for part in parts {
                        if let Some(part) = wire::read::<Part<'_>>(Some(part)) {
                            refused.push_str(&part.refusal);
                        }
                    }
                }
                "reasoning" => {
                    let at = match self.known(item) {
                        Some(at) => Some(at),
                        None if self.thought_at.is_some() => None,
                        None => Some(self.new_item(u64::MAX)?),
                    };
                    if let Some(at) = at {
                        self.thoughts(at, item, out);
                    }
                    // Some give an item another id at the end, so they are told by their number.
                    if reasoned >= kept {
                        self.keep(&item.id, raw);
                    }
                    reasoned += 1;
                }
                _ => {}
            }
        }
        let last = self.items.len() - 1;
        match self.spoken.missing(&said) {
            Missing::Rest(rest) => {
                let place = self.items[last].parts.last().map(|part| part.place);
                self.say(last, Count(place), rest, out);
            }
            // Some last events hold no output at all.
            Missing::Other if said.is_empty() => {}
            Missing::Other => debug!("responses: the answer ends otherwise than it was told"),
        }
        if let Missing::Rest(rest) = self.refused.missing(&refused) {
            self.refuse(last, rest, out);
        }
        if !self.cited {
            for (_, item) in &items {
                for (place, part) in wire::list(item.content).into_iter().enumerate() {
                    let part = wire::read::<Part<'_>>(Some(part));
                    for raw in wire::list(part.and_then(|part| part.annotations)) {
                        self.cite(last, Count(Some(place as u64)), raw, out);
                    }
                }
            }
        }
        Ok(())
    }
}

/// All text of a message's parts.
fn words(parts: &[&RawValue]) -> String {
    let parts = parts
        .iter()
        .filter_map(|raw| wire::read::<Part<'_>>(Some(raw)));
    parts
        .filter(|part| &*part.kind == "output_text")
        .map(|part| part.text.to_string())
        .collect()
}

fn arguments<'i>(kind: ToolKind, item: &'i Item<'_>) -> &'i str {
    match kind {
        ToolKind::Function => &item.arguments,
        ToolKind::Custom => &item.input,
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
            let error = response
                .error
                .filter(|raw| says_something(raw.get().as_bytes()));
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
