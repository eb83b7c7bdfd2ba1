//! The events of a stream, or a whole response -> deltas.
//!
//! A response is a list of items. A stream tells each of them several times: in pieces, whole when
//! a part or the item is done, and in its last event. What was said is not said again, what was not
//! is said then, so that servers which leave events out are understood, and a whole body is a
//! stream without pieces. What was said wrongly cannot be taken back; of a call's arguments, by
//! which a tool will run, that is a failure.

mod ending;
mod pieces;

use std::sync::Arc;

use serde_json::value::RawValue;

use super::failed;
use super::told::Told;
use super::wire::{self, Count, Event, Item, Part, Response};
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

/// Commentary beyond this is not kept for an answer that turns out to have nothing else.
const MOST_COMMENTARY: usize = 1 << 20;

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
    /// The message that the content so far ends with.
    spoken_at: Option<usize>,
    /// What was said on the way by the last message that did; `None`: it is too long.
    commentary: Option<String>,
    commented_at: Option<usize>,
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
    is_custom: bool,
    is_message: bool,
    /// A message on the way to an answer that is to be of one form: it is told as reasoning.
    is_commentary: bool,
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
            spoken_at: None,
            commentary: Some(String::new()),
            commented_at: None,
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
                if !self.items[at].is_commentary {
                    self.weigh(event.logprobs, out);
                }
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
        self.place(at, &item);
        if let Some(kind) = call_kind(&item) {
            self.call(at, kind, &item, out);
        }
        Ok(())
    }

    /// Notes what of the answer a message is.
    fn place(&mut self, at: usize, item: &Item<'_>) {
        let heard = &mut self.items[at];
        heard.is_message |= &*item.kind == "message";
        // What has been said as content cannot be taken back.
        heard.is_commentary |=
            self.undo.final_only && &*item.phase == "commentary" && heard.text.is_empty();
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
}

fn call_kind(item: &Item<'_>) -> Option<ToolKind> {
    match &*item.kind {
        "function_call" => Some(ToolKind::Function),
        "custom_tool_call" => Some(ToolKind::Custom),
        _ => None,
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
