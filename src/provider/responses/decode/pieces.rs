//! The pieces of an answer as they come, and what their ends say beyond them.

use std::sync::Arc;

use log::debug;
use serde_json::Value;
use serde_json::value::RawValue;

use super::super::speech;
use super::super::told::{Missing, Told};
use super::super::wire::{Count, Item};
use super::*;

impl Decode {
    pub(super) fn say(&mut self, at: usize, place: Count, text: &str, out: &mut dyn DeltaSink) {
        if text.is_empty() {
            return;
        }
        if !self.items[at].is_commentary {
            self.part_from_other_messages(at, out);
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
        self.spoken.add(text);
        if item.is_commentary {
            return self.comment(at, text, out);
        }
        self.chars += text.chars().count() as u64;
        self.put(Delta::Text { candidate: 0, text }, out);
    }

    /// A blank line between the texts of two messages. Servers that number items wrongly do not get
    /// it into the middle of one.
    fn part_from_other_messages(&mut self, at: usize, out: &mut dyn DeltaSink) {
        let before = self.spoken_at.replace(at).filter(|before| *before != at);
        let is_message = |at: usize| self.items[at].is_message;
        if before.is_some_and(|before| is_message(before) && is_message(at)) {
            self.chars += 2;
            let text = "\n\n";
            self.put(Delta::Text { candidate: 0, text }, out);
        }
    }

    /// What the model says on the way to an answer that is to be of one form.
    fn comment(&mut self, at: usize, text: &str, out: &mut dyn DeltaSink) {
        if self.commented_at.replace(at) != Some(at) {
            self.commentary = Some(String::new());
        }
        self.commentary = self
            .commentary
            .take()
            .filter(|kept| kept.len() + text.len() <= MOST_COMMENTARY);
        if let Some(kept) = &mut self.commentary {
            kept.push_str(text);
        }
        self.muse((at, 0), text, out);
    }

    /// A piece of reasoning, apart from the one before where that was of another place.
    fn muse(&mut self, part: (usize, u64), text: &str, out: &mut dyn DeltaSink) {
        let before = self.thought_at.replace(part);
        if before.is_some_and(|before| before != part) {
            let text = &format!("\n\n{text}");
            self.put(Delta::Reasoning { candidate: 0, text }, out);
        } else {
            self.put(Delta::Reasoning { candidate: 0, text }, out);
        }
    }

    /// A part of the text at its end.
    pub(super) fn say_whole(
        &mut self,
        at: usize,
        place: Count,
        whole: &str,
        out: &mut dyn DeltaSink,
    ) {
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

    pub(super) fn weigh(&mut self, logprobs: Option<&RawValue>, out: &mut dyn DeltaSink) {
        // Every event has the list, nearly always an empty one.
        if let Some(raw) = logprobs.filter(|raw| raw.get() != "[]") {
            self.begin(out);
            speech::log_probabilities(raw, out);
        }
    }

    pub(super) fn refuse(&mut self, at: usize, text: &str, out: &mut dyn DeltaSink) {
        if !text.is_empty() {
            self.items[at].refusal.add(text);
            self.refused.add(text);
            self.put(Delta::Refusal { candidate: 0, text }, out);
        }
    }

    pub(super) fn refuse_whole(&mut self, at: usize, whole: &str, out: &mut dyn DeltaSink) {
        if let Missing::Rest(rest) = self.items[at].refusal.missing(whole) {
            self.refuse(at, rest, out);
        }
    }

    pub(super) fn cite(
        &mut self,
        at: usize,
        place: Count,
        raw: &RawValue,
        out: &mut dyn DeltaSink,
    ) {
        // The places of citations count in the content.
        if self.items[at].is_commentary {
            return;
        }
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

    pub(super) fn think(
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
        self.muse(part, text, out);
    }

    /// A part of the reasoning at its end.
    pub(super) fn think_whole(
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
    pub(super) fn call(
        &mut self,
        at: usize,
        kind: ToolKind,
        item: &Item<'_>,
        out: &mut dyn DeltaSink,
    ) {
        if self.items[at].call.is_some() {
            return;
        }
        let index = self.calls;
        self.calls += 1;
        self.items[at].call = Some(index);
        self.items[at].is_custom = matches!(kind, ToolKind::Custom);
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

    pub(super) fn argue(&mut self, at: usize, fragment: &str, out: &mut dyn DeltaSink) {
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
    pub(super) fn argue_whole(
        &mut self,
        at: usize,
        whole: &str,
        out: &mut dyn DeltaSink,
    ) -> Result<(), Failure> {
        if self.items[at].call.is_none() {
            return Ok(());
        }
        let item = &mut self.items[at];
        let Some(told) = &item.arguments else {
            return Ok(());
        };
        // Nothing is no end of something.
        item.argued |= !whole.is_empty() || told.is_empty();
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
}
