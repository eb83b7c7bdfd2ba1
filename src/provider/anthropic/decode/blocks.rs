//! Blocks in progress, and the carrier that brings thinking blocks back in a later request.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::wire;
use crate::chat::{Delta, DeltaSink, ToolKind};
use crate::json::push_string;
use crate::provider::anthropic::block::push_compact;
use crate::provider::budget::ENTRY;
use crate::provider::nesting::Nesting;

/// Thinking beyond this is not carried.
const LIMIT: usize = 16 << 20;

/// A block between its start and its stop.
#[derive(Debug)]
pub enum Open {
    Text {
        /// Where in the content it starts, in Unicode scalar values.
        start: u64,
        citations: Vec<Cited>,
    },
    Thinking {
        thinking: String,
        signature: String,
        /// Some of it was put out.
        said: bool,
    },
    Tool(ToolInput),
    Ignored,
}

/// A page that a text names.
#[derive(Debug)]
pub struct Cited {
    pub url: String,
    pub title: String,
}

impl Cited {
    pub fn size(&self) -> usize {
        ENTRY + self.url.len() + self.title.len()
    }
}

impl Open {
    pub fn text(start: u64, citations: &[&RawValue]) -> Self {
        Open::Text {
            start,
            citations: citations
                .iter()
                .filter_map(|raw| read_citation(raw))
                .collect(),
        }
    }

    /// Whether it can have come to its end, if nobody said so.
    pub fn may_be_whole(&self) -> bool {
        match self {
            Open::Tool(tool) => tool.may_be_whole(),
            _ => true,
        }
    }

    /// About how many bytes it takes, without thoughts, which are the carrier's.
    pub fn size(&self) -> usize {
        let texts = match self {
            Open::Tool(tool) => tool.custom.len() + tool.start.len(),
            Open::Text { citations, .. } => citations.iter().map(Cited::size).sum(),
            Open::Thinking { .. } | Open::Ignored => 0,
        };
        2 * ENTRY + texts
    }

    #[cfg(test)]
    pub fn whole_size(&self) -> usize {
        match self {
            Open::Thinking {
                thinking,
                signature,
                ..
            } => thinking.len() + signature.len() + self.size(),
            _ => self.size(),
        }
    }

    pub fn tool(index: u32, kind: ToolKind, input: Option<&RawValue>) -> Self {
        let mut start = Vec::new();
        if let Some(raw) = input {
            push_compact(&mut start, raw.get());
        }
        Open::Tool(ToolInput {
            index,
            kind,
            start: String::from_utf8(start).unwrap_or_default(),
            custom: String::new(),
            got: false,
            nesting: Nesting::default(),
        })
    }
}

/// URL and title of a citation that callers can be told. Places in documents have no form there.
pub fn read_citation(raw: &RawValue) -> Option<Cited> {
    let citation: wire::Citation<'_> = serde_json::from_str(raw.get()).ok()?;
    (&*citation.r#type == "web_search_result_location").then(|| Cited {
        url: citation.url.0.into_owned(),
        title: citation.title.0.into_owned(),
    })
}

/// The input of a call, on its way.
#[derive(Debug)]
pub struct ToolInput {
    index: u32,
    kind: ToolKind,
    /// What the block's start already had.
    start: String,
    /// The JSON around a custom tool's text, which can be unpacked only when it is complete.
    custom: String,
    got: bool,
    nesting: Nesting,
}

impl ToolInput {
    /// Takes a piece, and says how many bytes of it are kept.
    #[must_use]
    pub fn take(&mut self, piece: &str, out: &mut dyn DeltaSink) -> usize {
        if piece.is_empty() {
            return 0;
        }
        self.got = true;
        piece.bytes().for_each(|byte| self.nesting.take(byte));
        match self.kind {
            ToolKind::Function => {
                self.put(piece, out);
                0
            }
            ToolKind::Custom => {
                self.custom.push_str(piece);
                piece.len()
            }
        }
    }

    /// Whether what has come of it can be all, if nobody said that it is.
    pub fn may_be_whole(&self) -> bool {
        !self.got || self.nesting.is_whole()
    }

    pub fn close(self, out: &mut dyn DeltaSink) {
        #[derive(Deserialize)]
        struct Wrapped<'a> {
            #[serde(borrow)]
            input: Cow<'a, str>,
        }
        let whole = match (self.got, self.kind, self.start.as_str()) {
            (true, ToolKind::Function, _) => return,
            (true, ToolKind::Custom, _) => self.custom.as_str(),
            (false, _, "" | "null") => "{}",
            (false, _, start) => start,
        };
        if self.kind == ToolKind::Function {
            return self.put(whole, out);
        }
        match serde_json::from_str::<Wrapped<'_>>(whole) {
            Ok(wrapped) => self.put(&wrapped.input, out),
            // The model did not keep to the wrapping; what it said is better than nothing.
            Err(_) => self.put(whole, out),
        }
    }

    fn put(&self, fragment: &str, out: &mut dyn DeltaSink) {
        if !fragment.is_empty() {
            out.put(Delta::ToolArgs {
                candidate: 0,
                index: self.index,
                fragment,
            });
        }
    }
}

/// Thinking blocks verbatim, and the order of all blocks where it is not the usual one.
#[derive(Debug, Default, Clone)]
pub struct Carrier {
    /// JSON objects with commas between them.
    thoughts: Vec<u8>,
    /// Thinking blocks that are done, and that have started.
    done: u32,
    begun: u32,
    layout: Vec<Entry>,
    size: usize,
    too_long: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    Thinking(u32),
    /// Length in UTF-8 bytes.
    Text(usize),
    ToolUse(u32),
}

impl Carrier {
    /// Whether so many more bytes of thinking can be remembered.
    pub fn has_room(&mut self, bytes: usize) -> bool {
        self.size = self.size.saturating_add(bytes);
        if self.size > LIMIT && !self.too_long {
            log::debug!("the thinking is too long to be carried");
            self.too_long = true;
            self.thoughts = Vec::new();
        }
        !self.too_long
    }

    #[cfg(test)]
    pub fn size_now(&self) -> usize {
        self.thoughts.len() + self.layout.len() * std::mem::size_of::<Entry>()
    }

    pub fn thought_starts(&mut self) {
        self.layout.push(Entry::Thinking(self.begun));
        self.begun += 1;
    }

    pub fn text_starts(&mut self) {
        self.layout.push(Entry::Text(0));
    }

    /// Text was put out; it belongs to the newest text block.
    pub fn text(&mut self, bytes: usize) {
        let newest = self.layout.iter_mut().rev().find_map(|entry| match entry {
            Entry::Text(length) => Some(length),
            _ => None,
        });
        match newest {
            Some(length) => *length += bytes,
            None => self.layout.push(Entry::Text(bytes)),
        }
    }

    pub fn tool(&mut self, index: u32) {
        self.layout.push(Entry::ToolUse(index));
    }

    pub fn thought(&mut self, thinking: &str, signature: &str) {
        let mut json = br#""type":"thinking","thinking":"#.to_vec();
        push_string(&mut json, thinking);
        json.extend_from_slice(b",\"signature\":");
        push_string(&mut json, signature);
        self.add(&json);
    }

    pub fn redacted(&mut self, data: &str) {
        if self.has_room(data.len()) {
            let mut json = br#""type":"redacted_thinking","data":"#.to_vec();
            push_string(&mut json, data);
            self.add(&json);
        }
    }

    /// Every entry carries its number, because accumulators merge lists by it.
    fn add(&mut self, members: &[u8]) {
        if self.too_long {
            return;
        }
        if self.done > 0 {
            self.thoughts.push(b',');
        }
        self.thoughts
            .extend_from_slice(format!("{{\"index\":{},", self.done).as_bytes());
        self.thoughts.extend_from_slice(members);
        self.thoughts.push(b'}');
        self.done += 1;
    }

    /// `extra_content` of the message, if there is something to carry.
    pub fn json(&self) -> Option<String> {
        if self.done == 0 || self.too_long {
            return None;
        }
        let mut json = br#"{"anthropic":{"thinking_blocks":["#.to_vec();
        json.extend_from_slice(&self.thoughts);
        json.push(b']');
        let entries: Vec<&Entry> = self
            .layout
            .iter()
            .filter(|entry| **entry != Entry::Text(0))
            .collect();
        if is_unusual(&entries) {
            json.extend_from_slice(b",\"layout\":[");
            for (index, entry) in entries.into_iter().enumerate() {
                let comma = if index > 0 { "," } else { "" };
                let text = match entry {
                    Entry::Thinking(number) => format!("{comma}[\"thinking\",{number}]"),
                    Entry::Text(length) => format!("{comma}[\"text\",{length}]"),
                    Entry::ToolUse(number) => format!("{comma}[\"tool_use\",{number}]"),
                };
                json.extend_from_slice(text.as_bytes());
            }
            json.push(b']');
        }
        json.extend_from_slice(b"}}");
        String::from_utf8(json).ok()
    }
}

/// Thinking stands elsewhere than in one run at the front, or the text is in several blocks.
fn is_unusual(entries: &[&Entry]) -> bool {
    let is_thinking = |entry: &&&Entry| matches!(entry, Entry::Thinking(_));
    let leading = entries.iter().take_while(is_thinking).count();
    let thinking = entries.iter().filter(is_thinking).count();
    let texts = entries
        .iter()
        .filter(|entry| matches!(entry, Entry::Text(_)))
        .count();
    thinking > leading || texts > 1
}
