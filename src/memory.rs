//! `Memory`: what upstreams signed, kept for callers whose programs drop fields they do not know.
//!
//! Reasoning that is to be continued after a tool call has to come back with the history: Gemini's
//! thought signatures, Claude's thinking blocks, OpenAI's reasoning items. They travel to the
//! caller in `extra_content` and back, but many frameworks rebuild the history without it. So they
//! are kept here as well, by tool-call id, within a fixed number of bytes.

use std::collections::{HashMap, HashSet};
use std::mem;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::chat::{Delta, Message, Role};
use crate::dialect::openai;

pub use learned::{Learned, Lesson};

mod learned;

/// Bytes that all entries together may take. A signature is some hundred bytes to some kilobytes,
/// so this holds the running conversations of a small host.
const CAPACITY: usize = 2 * 1024 * 1024;

/// What one entry costs besides its texts.
const OVERHEAD: usize = 160;

/// What came with one tool call.
#[derive(Debug, Default, Clone)]
pub struct Signed {
    /// The upstream and the key that made it; others may refuse it.
    pub upstream: String,
    pub key: usize,
    pub google_signature: Option<String>,
    pub thinking_blocks: Option<Box<RawValue>>,
    pub thinking_layout: Option<Box<RawValue>>,
    pub reasoning_items: Option<Box<RawValue>>,
}

impl Signed {
    fn size(&self) -> usize {
        let raw = |value: &Option<Box<RawValue>>| value.as_ref().map_or(0, |v| v.get().len());
        OVERHEAD
            + self.google_signature.as_ref().map_or(0, String::len)
            + raw(&self.thinking_blocks)
            + raw(&self.thinking_layout)
            + raw(&self.reasoning_items)
    }

    /// Leaves of the message what did not come from here: its next upstream may refuse the rest.
    fn take_back(&self, message: &mut Message<'_>, call: usize) {
        let is_ours = |now: Option<&RawValue>, ours: &Option<Box<RawValue>>| {
            let pair = now.zip(ours.as_deref());
            pair.is_some_and(|(now, ours)| std::ptr::eq(now.get(), ours.get()))
        };
        if let Some(call) = message.tool_calls.get_mut(call) {
            let pair = call.google_signature.as_deref();
            let pair = pair.zip(self.google_signature.as_deref());
            if pair.is_some_and(|(now, ours)| std::ptr::eq(now, ours)) {
                call.google_signature = None;
            }
        }
        if is_ours(message.thinking_blocks, &self.thinking_blocks) {
            message.thinking_blocks = None;
            message.thinking_layout = None;
        }
        if is_ours(message.reasoning_items, &self.reasoning_items) {
            message.reasoning_items = None;
        }
    }

    fn is_empty(&self) -> bool {
        self.google_signature.is_none()
            && self.thinking_blocks.is_none()
            && self.reasoning_items.is_none()
    }
}

#[derive(Debug, Default)]
pub struct Memory {
    signed: Mutex<Halves>,
    pub learned: Learned,
}

/// Two halves, of which the older one is forgotten when the younger one is full. What is used
/// moves to the younger one, so this forgets about what has not been used for the longest time.
#[derive(Debug, Default)]
struct Halves {
    young: HashMap<String, Arc<Signed>>,
    old: HashMap<String, Arc<Signed>>,
    young_bytes: usize,
}

impl Memory {
    fn keep(&self, id: String, signed: Arc<Signed>) {
        let size = id.len() + signed.size();
        if size > CAPACITY / 2 {
            return;
        }
        let mut halves = self.signed.lock();
        if halves.young_bytes + size > CAPACITY / 2 {
            halves.old = mem::take(&mut halves.young);
            halves.young_bytes = 0;
        }
        halves.young_bytes += size;
        if let Some(before) = halves.young.insert(id.clone(), signed) {
            halves.young_bytes -= (id.len() + before.size()).min(halves.young_bytes);
        }
    }

    fn recall(&self, id: &str) -> Option<Arc<Signed>> {
        let mut halves = self.signed.lock();
        if let Some(signed) = halves.young.get(id) {
            return Some(Arc::clone(signed));
        }
        let signed = halves.old.remove(id)?;
        drop(halves);
        self.keep(id.to_owned(), Arc::clone(&signed));
        Some(signed)
    }

    /// What is remembered of the calls in a history, in the order of their messages.
    pub fn recall_all(&self, messages: &[Message<'_>]) -> Recalled {
        let mut found = Vec::new();
        // Each id once: of a history in which many calls share one, the first made what is kept,
        // and copies of it would be without a bound.
        let mut seen = HashSet::new();
        for (index, message) in messages.iter().enumerate() {
            if message.role != Role::Assistant {
                continue;
            }
            for (call, tool_call) in message.tool_calls.iter().enumerate() {
                if let Some(signed) = self.recall(&tool_call.id)
                    && seen.insert(&*tool_call.id)
                {
                    found.push((index, call, signed));
                }
            }
        }
        Recalled(found)
    }
}

/// What was remembered for one request.
#[derive(Debug, Default)]
pub struct Recalled(Vec<(usize, usize, Arc<Signed>)>);

impl Recalled {
    /// Fills in what the caller left out and `upstream` made itself, and takes back what was
    /// filled in for another one, which made it. What the caller sent counts for more.
    pub fn fill<'r>(&'r self, messages: &mut [Message<'r>], upstream: &str) {
        for (index, call, signed) in &self.0 {
            let Some(message) = messages.get_mut(*index) else {
                continue;
            };
            if signed.upstream != upstream {
                signed.take_back(message, *call);
                continue;
            }
            if let Some(tool_call) = message.tool_calls.get_mut(*call)
                && tool_call.google_signature.is_none()
            {
                tool_call.google_signature = signed.google_signature.as_deref().map(Into::into);
            }
            if message.thinking_blocks.is_none() {
                message.thinking_blocks = signed.thinking_blocks.as_deref();
                message.thinking_layout = signed.thinking_layout.as_deref();
            }
            if message.reasoning_items.is_none() {
                message.reasoning_items = signed.reasoning_items.as_deref();
            }
        }
    }

    /// The key that made the newest of it, for `upstream`: another account may not be able to
    /// read it.
    pub fn key(&self, upstream: &str) -> Option<usize> {
        self.0
            .iter()
            .rev()
            .find(|(.., signed)| signed.upstream == upstream)
            .map(|(.., signed)| signed.key)
    }
}

/// Notes what one answer signs while it comes.
#[derive(Debug)]
pub struct Notes {
    seed: u64,
    calls: Vec<(u32, String, Option<String>)>,
    extras: Vec<(u32, Extra)>,
}

#[derive(Debug, Default, Deserialize)]
struct Extra {
    #[serde(default)]
    anthropic: ExtraAnthropic,
    #[serde(default)]
    openai: ExtraOpenAi,
}

#[derive(Debug, Default, Deserialize)]
struct ExtraAnthropic {
    thinking_blocks: Option<Box<RawValue>>,
    layout: Option<Box<RawValue>>,
}

#[derive(Debug, Default, Deserialize)]
struct ExtraOpenAi {
    reasoning_items: Option<Box<RawValue>>,
}

/// Calls of one answer that are noted; more have nothing of their own.
const CALLS: usize = 64;

impl Notes {
    /// `seed` is the one that the writer makes ids from.
    pub fn new(seed: u64) -> Notes {
        Notes {
            seed,
            calls: Vec::new(),
            extras: Vec::new(),
        }
    }

    pub fn take(&mut self, delta: &Delta<'_>) {
        match delta {
            Delta::ToolStart {
                candidate,
                id,
                google_signature,
                ..
            } if self.calls.len() < CALLS => {
                let before = self.calls.iter().filter(|(of, ..)| of == candidate);
                let id = openai::call_id(id, self.seed, *candidate, before.count());
                let signature = google_signature.map(str::to_owned);
                self.calls.push((*candidate, id.into_owned(), signature));
            }
            Delta::Extra { candidate, json } => {
                if let Ok(extra) = serde_json::from_str(json) {
                    self.extras.push((*candidate, extra));
                }
            }
            _ => {}
        }
    }

    /// The answer is whole: what it signed is kept.
    pub fn keep(self, memory: &Memory, upstream: &str, key: usize) {
        let Notes { calls, extras, .. } = self;
        // What belongs to the whole message is kept with its first call.
        let mut seen: Vec<u32> = Vec::new();
        for (candidate, id, google_signature) in calls {
            let first = !seen.contains(&candidate);
            seen.push(candidate);
            let extra = extras
                .iter()
                .find(|(of, _)| first && *of == candidate)
                .map(|(_, extra)| extra);
            let signed = Signed {
                upstream: upstream.to_owned(),
                key,
                google_signature,
                thinking_blocks: extra.and_then(|e| e.anthropic.thinking_blocks.clone()),
                thinking_layout: extra.and_then(|e| e.anthropic.layout.clone()),
                reasoning_items: extra.and_then(|e| e.openai.reasoning_items.clone()),
            };
            if !signed.is_empty() {
                memory.keep(id, Arc::new(signed));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{ToolCall, ToolKind};

    fn start(index: u32, id: &'static str, signature: Option<&'static str>) -> Delta<'static> {
        Delta::ToolStart {
            candidate: 0,
            index,
            id,
            name: "f",
            kind: ToolKind::Function,
            google_signature: signature,
        }
    }

    fn history(ids: &[&str]) -> Vec<Message<'static>> {
        let mut message = Message::new(Role::Assistant);
        message.tool_calls = ids
            .iter()
            .map(|id| ToolCall {
                id: (*id).to_owned().into(),
                kind: ToolKind::Function,
                name: "f".into(),
                arguments: "{}".into(),
                google_signature: None,
            })
            .collect();
        vec![Message::new(Role::User), message]
    }

    #[test]
    fn what_was_signed_comes_back_to_the_upstream_that_made_it() {
        let memory = Memory::default();
        let mut notes = Notes::new(7);
        notes.take(&start(0, "a", Some("sig")));
        notes.take(&start(1, "b", None));
        let json = r#"{"anthropic":{"thinking_blocks":[{"type":"thinking"}]},"x":1}"#;
        notes.take(&Delta::Extra { candidate: 0, json });
        notes.keep(&memory, "up", 2);

        let mut messages = history(&["a", "b"]);
        let recalled = memory.recall_all(&messages);
        assert_eq!(recalled.key("up"), Some(2));
        recalled.fill(&mut messages, "other");
        assert!(messages[1].thinking_blocks.is_none());
        recalled.fill(&mut messages, "up");
        let calls = &messages[1].tool_calls;
        assert_eq!(calls[0].google_signature.as_deref(), Some("sig"));
        assert_eq!(calls[1].google_signature, None);
        let blocks = messages[1].thinking_blocks.map(RawValue::get);
        assert_eq!(blocks, Some(r#"[{"type":"thinking"}]"#));
        // The first upstream failed, and the next one can make nothing of it.
        recalled.fill(&mut messages, "other");
        assert!(messages[1].thinking_blocks.is_none());
        assert_eq!(messages[1].tool_calls[0].google_signature, None);
    }

    #[test]
    fn what_the_caller_sends_counts_for_more() {
        let memory = Memory::default();
        let mut notes = Notes::new(7);
        notes.take(&start(0, "a", Some("sig")));
        notes.keep(&memory, "up", 0);
        let mut messages = history(&["a"]);
        messages[1].tool_calls[0].google_signature = Some("own".into());
        let recalled = memory.recall_all(&messages);
        recalled.fill(&mut messages, "up");
        let call = &messages[1].tool_calls[0];
        assert_eq!(call.google_signature.as_deref(), Some("own"));
        recalled.fill(&mut messages, "other");
        let call = &messages[1].tool_calls[0];
        assert_eq!(call.google_signature.as_deref(), Some("own"));
    }

    #[test]
    fn memory_is_bounded_and_forgets_the_unused() {
        let memory = Memory::default();
        let signed = |size: usize| {
            Arc::new(Signed {
                google_signature: Some("x".repeat(size)),
                ..Signed::default()
            })
        };
        memory.keep("used".into(), signed(10));
        memory.keep("unused".into(), signed(10));
        for number in 0..10_000 {
            memory.keep(number.to_string(), signed(1000));
            assert!(memory.recall("used").is_some(), "{number}");
        }
        assert!(memory.recall("unused").is_none());
        memory.keep("huge".into(), signed(CAPACITY));
        assert!(memory.recall("huge").is_none());
        let halves = memory.signed.lock();
        let total: usize = halves
            .young
            .iter()
            .chain(&halves.old)
            .map(|(id, signed)| id.len() + signed.size())
            .sum();
        assert!(total <= CAPACITY, "{total}");
    }
}
