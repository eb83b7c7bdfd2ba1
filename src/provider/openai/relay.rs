//! A chat completion stream on its way from an upstream to the caller.

use std::borrow::Cow;
use std::ops::Range;

use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::calls::Calls;
use super::repair::is_failure;
use super::scan::{Choice, Seen, scan};
use super::usage::usage_of;
use crate::chat::Usage;
use crate::dialect::openai::{Stamp, completion_id, push_usage};
use crate::failure::Failure;
use crate::json::unicode::Seam;
use crate::json::{push_key, push_number, push_one_line, push_string};
use crate::provider::Flow;
use crate::provider::budget::{Budget, MOST_NAME};
use crate::sse;

/// The relay of one stream.
///
/// Between two events: every choice below `choices.len()` has had its role, and what was written
/// so far is a well-formed beginning of a stream.
pub struct RelayStream {
    pub(super) stamp: Stamp,
    /// Nothing is mended: the vendor's own events are what callers expect.
    official: bool,
    pub(super) choices: Vec<ChoiceState>,
    /// What every chunk says of itself.
    pub(super) name: Name,
    /// Chunks that have come.
    pub(super) chunks: u64,
    pub(super) usage: Usage,
    /// The last usage that stood beside choices, for a chunk of its own at the end: servers tell
    /// more in it than weir counts, as prices.
    pub(super) told_usage: Option<Box<Map<String, Value>>>,
    pub(super) usage_sent: bool,
    /// What the choices keep between two events.
    pub(super) budget: Budget,
    seam: Seam,
    /// `[DONE]` was written.
    done: bool,
}

/// `id`, `created` and `model` of every chunk as JSON text, each as the first one says it that says
/// something: empty until then.
#[derive(Debug, Default)]
pub(super) struct Name {
    pub id: Vec<u8>,
    pub created: Vec<u8>,
    pub model: Vec<u8>,
}

impl Name {
    pub fn take(&mut self, id: Option<&[u8]>, created: Option<&[u8]>, model: Option<&[u8]>) {
        let id = id.filter(|text| is_text(text));
        // A time of 0 beside no id says as little as that.
        let created = created.filter(|text| is_number(text) && (id.is_some() || *text != b"0"));
        let model = model.filter(|text| is_text(text));
        for (known, said) in [
            (&mut self.id, id),
            (&mut self.created, created),
            (&mut self.model, model),
        ] {
            if known.is_empty()
                && let Some(said) = said
            {
                *known = said.to_vec();
            }
        }
    }

    /// With `stamp` for what nobody has said.
    pub fn fill(&mut self, stamp: &Stamp) {
        if self.id.is_empty() {
            push_string(&mut self.id, &completion_id("", stamp.seed));
        }
        if self.created.is_empty() {
            push_number(&mut self.created, stamp.created);
        }
        if self.model.is_empty() {
            push_string(&mut self.model, &stamp.model);
        }
    }
}

/// A JSON string with something in it that is short enough to be kept.
fn is_text(json: &[u8]) -> bool {
    (3..=MOST_NAME).contains(&json.len()) && json[0] == b'"'
}

fn is_number(json: &[u8]) -> bool {
    (1..=20).contains(&json.len()) && json[0].is_ascii_digit()
}

/// What was seen of one choice.
#[derive(Debug, Default)]
pub(super) struct ChoiceState {
    pub has_role: bool,
    pub finished: bool,
    pub calls: Calls,
    /// A call in the form that was there before tools.
    pub function: bool,
    /// It has said something beside its role and calls.
    pub said: bool,
}

impl ChoiceState {
    /// The finish reason that goes with its calls.
    pub fn called(&self) -> Option<&'static str> {
        match (self.calls.is_empty(), self.function) {
            (false, _) => Some("tool_calls"),
            (true, true) => Some("function_call"),
            (true, false) => None,
        }
    }
}

/// The words that callers know.
pub(super) const FINISH_WORDS: [&str; 5] = [
    "stop",
    "length",
    "tool_calls",
    "content_filter",
    "function_call",
];

/// More choices than anyone may ask for.
pub(super) const MAX_CHOICES: usize = 128;

/// The usage of a longer event is counted, but not kept as it was told.
pub(super) const MOST_USAGE: usize = 64 << 10;

impl RelayStream {
    /// `stamp` serves where an upstream names no id, model or time; its `include_usage` says
    /// whether the caller asked for usage. Without that, no chunk speaks of it, although an
    /// official upstream was asked.
    pub fn new(stamp: Stamp, official: bool) -> Self {
        RelayStream {
            stamp,
            official,
            choices: Vec::new(),
            name: Name::default(),
            chunks: 0,
            usage: Usage::default(),
            told_usage: None,
            usage_sent: false,
            budget: Budget::default(),
            seam: Seam::default(),
            done: false,
        }
    }

    /// Takes one event and appends what the caller shall see of it, possibly nothing.
    pub fn on_event(&mut self, event: sse::Event<'_>, out: &mut Vec<u8>) -> Result<Flow, Failure> {
        if self.done {
            return Ok(Flow::Done);
        }
        let data = event.data.trim_ascii();
        if data.is_empty() {
            return Ok(Flow::More);
        }
        if data == b"[DONE]" {
            if self.choices.is_empty() {
                return Err(Failure::empty());
            }
            // A call whose arguments are still to come was cut off, whatever is said behind it.
            let is_cut = |choice: &ChoiceState| !choice.finished && !choice.calls.are_whole();
            if !self.official && self.choices.iter().any(is_cut) {
                return Err(Failure::disconnected());
            }
            self.end(out);
            return Ok(Flow::Done);
        }
        if event.bare {
            // No event at all: an error, or an answer from a server that does not stream.
            self.on_body(data, out)?;
            return Ok(Flow::Done);
        }
        if !self.official
            && let Cow::Owned(text) = self.seam.mend(data)
        {
            self.mend(text.as_bytes(), out)?;
            return Ok(Flow::More);
        }
        // Nearly every chunk has one choice, so the list stays without memory.
        let (mut first, mut rest) = (None, Vec::new());
        let seen = scan(data, |choice| match first {
            None => first = Some(choice),
            Some(_) => rest.push(choice),
        });
        if let Some(mut seen) = seen {
            seen.reasoning = first.as_ref().and_then(|choice| choice.reasoning.clone());
            if seen.has_error {
                return Err(Failure::from_event(data));
            }
            if !self.official || first.is_some() {
                self.name.take(seen.id, seen.created, seen.model);
            }
            let choices = || first.iter().chain(&rest);
            let in_order = rest.is_empty() || choices().is_sorted_by(|a, b| a.index < b.index);
            let thinks_alone = rest.iter().all(|choice| choice.reasoning.is_none());
            // The scan takes some text for JSON that is none, which no caller could read.
            let fits = in_order
                && thinks_alone
                && self.fits(&seen)
                && choices().all(|choice| self.suits(choice))
                && (self.official || serde_json::from_slice::<IgnoredAny>(data).is_ok());
            let failed = choices().any(|choice| {
                let word = choice
                    .finish
                    .and_then(|word| std::str::from_utf8(word).ok());
                choice.has_error || word.is_some_and(is_failure)
            });
            if (self.official || fits) && !failed {
                self.chunks += 1;
                for (position, choice) in choices().enumerate() {
                    self.note(choice, position)?;
                }
                self.pass(data, &seen, out);
                return Ok(Flow::More);
            }
        }
        self.mend(data, out)?;
        Ok(Flow::More)
    }

    /// The upstream closed. Without `[DONE]` the answer is complete if each choice is.
    pub fn on_end(&mut self, out: &mut Vec<u8>) -> Result<(), Failure> {
        if self.done {
            return Ok(());
        }
        if self.choices.is_empty() {
            return Err(Failure::empty());
        }
        if !self.choices.iter().all(|choice| choice.finished) {
            return Err(Failure::disconnected());
        }
        self.end(out);
        Ok(())
    }

    pub(super) fn is_official(&self) -> bool {
        self.official
    }

    /// What was counted so far.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// Whether a choice can be passed on as it is.
    fn suits(&self, choice: &Choice<'_>) -> bool {
        let Some(index) = choice.index.map(|index| index as usize) else {
            return false;
        };
        let known = self.choices.get(index);
        let has_role = known.is_some_and(|known| known.has_role);
        let called = choice.call.is_some()
            || choice.function
            || known.is_some_and(|known| known.called().is_some());
        let none = Calls::default();
        let calls = known.map_or(&none, |known| &known.calls);
        let finish_fits = match choice.finish {
            None => true,
            // The reason is told once.
            Some(_) if known.is_some_and(|known| known.finished) => false,
            // A call that has got no arguments gets them now.
            Some(_) if choice.call.is_some() || !calls.is_closed() => false,
            // An answer that holds a call ended with it: agents go by this word.
            Some(b"stop") => !called,
            // And one that holds none did not.
            Some(b"tool_calls" | b"function_call") => called,
            Some(word) => FINISH_WORDS.iter().any(|known| known.as_bytes() == word),
        };
        index <= self.choices.len()
            && index < MAX_CHOICES
            && choice.has_delta
            && choice.has_role != has_role
            && !(choice.reasoning.is_some() && choice.has_reasoning_content)
            && finish_fits
            && !choice.several_calls
            && choice.call.is_none_or(|piece| calls.suits(piece))
    }

    /// Takes note of a choice that is passed on.
    fn note(&mut self, choice: &Choice<'_>, position: usize) -> Result<(), Failure> {
        let index = choice.index.map_or(position, |index| index as usize);
        let index = index.min(MAX_CHOICES - 1);
        if index >= self.choices.len() {
            self.choices.resize_with(index + 1, ChoiceState::default);
        }
        let state = &mut self.choices[index];
        state.has_role |= choice.has_role;
        state.finished |= choice.finish.is_some();
        state.function |= choice.function;
        state.said |= choice.says;
        match choice.call {
            Some(piece) => state.calls.note(piece, &mut self.budget),
            None => Ok(()),
        }
    }

    /// Whether a chunk can be passed on, as far as its top says.
    fn fits(&self, seen: &Seen<'_>) -> bool {
        let is_chunk = seen.choices.is_some();
        let is_named = seen.id.is_some_and(is_text)
            && seen.model.is_some_and(is_text)
            && seen.created.is_some_and(is_number)
            && seen.object == Some(b"\"chat.completion.chunk\"");
        // Usage beside choices is counted twice by callers who add up.
        let usage_alone = seen.usage.is_none() || seen.choices == Some(0);
        is_chunk && is_named && usage_alone && !seen.has_empty_error
    }

    /// Passes an event on, its payload as it is.
    fn pass(&mut self, data: &[u8], seen: &Seen<'_>, out: &mut Vec<u8>) {
        if let Some(usage) = seen.usage {
            if let Ok(usage) = serde_json::from_slice(usage) {
                self.usage.merge(usage_of(&usage));
                if let (Value::Object(usage), true) = (usage, seen.choices != Some(0))
                    && data.len() <= MOST_USAGE
                {
                    self.told_usage = Some(Box::new(usage));
                }
            }
            if seen.choices == Some(0) {
                if !self.stamp.include_usage {
                    return;
                }
                self.usage_sent = true;
            }
        }
        out.reserve(data.len() + 8);
        out.extend_from_slice(b"data: ");
        let mut copied = 0;
        // Some name the answer anew with each chunk, or not with each.
        for (range, text) in self.edits(data, seen).into_iter().flatten() {
            push_one_line(out, &data[copied..range.start]);
            out.extend_from_slice(text);
            copied = range.end;
        }
        push_one_line(out, &data[copied..]);
        out.extend_from_slice(b"\n\n");
    }

    /// Where a payload that is passed on has to say something else, in order.
    fn edits<'s>(&'s self, data: &[u8], seen: &Seen<'_>) -> [Option<(Range<usize>, &'s [u8])>; 5] {
        let place = |text: &[u8]| {
            let begin = text.as_ptr().addr() - data.as_ptr().addr();
            begin..begin + text.len()
        };
        let differs = |said: Option<&[u8]>, known: &'s [u8]| {
            let said = said.filter(|said| !self.official && *said != known)?;
            Some((place(said), known))
        };
        let null_usage = seen
            .null_usage
            .clone()
            .filter(|_| !self.stamp.include_usage);
        // vLLM and others have a name of their own for thoughts.
        let reasoning = seen.reasoning.clone().filter(|_| !self.official);
        let mut edits = [
            reasoning.map(|range| (range, &b"\"reasoning_content\""[..])),
            differs(seen.id, &self.name.id),
            differs(seen.created, &self.name.created),
            differs(seen.model, &self.name.model),
            null_usage.map(|range| (range, &b""[..])),
        ];
        edits.sort_unstable_by_key(|edit| edit.as_ref().map(|(range, _)| range.start));
        edits
    }

    /// `{"id":...,"object":...,"created":...,"model":...`.
    fn new_head(&mut self) -> Vec<u8> {
        self.name.fill(&self.stamp);
        let mut head = b"{\"id\":".to_vec();
        head.extend_from_slice(&self.name.id);
        head.extend_from_slice(b",\"object\":\"chat.completion.chunk\",\"created\":");
        head.extend_from_slice(&self.name.created);
        push_key(&mut head, b',', "model");
        head.extend_from_slice(&self.name.model);
        head
    }

    /// Appends a chunk of our own with the one choice `choice`, or none.
    pub(super) fn push_chunk(&mut self, choice: &[u8], usage: Option<&[u8]>, out: &mut Vec<u8>) {
        let head = self.new_head();
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(&head);
        out.extend_from_slice(b",\"choices\":[");
        out.extend_from_slice(choice);
        out.push(b']');
        if self.stamp.include_usage {
            push_key(out, b',', "usage");
            match usage {
                Some(usage) => out.extend_from_slice(usage),
                None => out.extend_from_slice(b"null"),
            }
        }
        out.extend_from_slice(b"}\n\n");
    }

    /// What the upstream told of its usage, with the counters that callers rely on.
    fn whole_usage(&mut self) -> Vec<u8> {
        let mut counted = Vec::new();
        push_usage(&mut counted, &self.usage);
        let mut told = self.told_usage.take().map_or_else(Map::new, |told| *told);
        if let Ok(Value::Object(counted)) = serde_json::from_slice(&counted) {
            for (name, count) in counted {
                if told.get(&name).is_none_or(Value::is_null) {
                    told.insert(name, count);
                }
            }
        }
        Value::Object(told).to_string().into_bytes()
    }

    /// Finish chunks that the upstream owed, usage if it is known and was not told in a chunk of
    /// its own, `[DONE]`.
    pub(super) fn end(&mut self, out: &mut Vec<u8>) {
        for index in 0..self.choices.len() {
            if self.choices[index].finished {
                continue;
            }
            let word = self.choices[index].called().unwrap_or("stop");
            let choice = format!(r#"{{"index":{index},"delta":{{}},"finish_reason":"{word}"}}"#);
            self.push_chunk(choice.as_bytes(), None, out);
        }
        if self.stamp.include_usage && !self.usage_sent && self.usage != Usage::default() {
            let usage = self.whole_usage();
            self.push_chunk(b"", Some(&usage), out);
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
        self.done = true;
    }
}
