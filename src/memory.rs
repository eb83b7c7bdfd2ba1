//! `Memory`: what upstreams signed, kept for callers whose programs drop fields they do not know.
//!
//! Reasoning that is to be continued after a tool call has to come back with the history: Gemini's
//! thought signatures, Claude's thinking blocks, OpenAI's reasoning items. They travel to the
//! caller in `extra_content` and back, but many frameworks rebuild the history without it. So they
//! are kept here as well, by tool-call id, within a fixed number of bytes. The signature of a
//! picture is kept by what the picture is.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::mem;
use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::chat::{Delta, Message, Part, PartKind, Role};
use crate::dialect::openai;

/// Bytes that all entries together may take. A signature is some hundred bytes to some kilobytes,
/// so this holds the running conversations of a small host.
const CAPACITY: usize = 2 * 1024 * 1024;

/// What one entry costs besides its texts.
const OVERHEAD: usize = 160;

/// What came with one tool call or one picture.
#[derive(Debug, Default, Clone)]
pub struct Signed {
    /// The upstream and the key that made it; others may refuse it.
    pub upstream: String,
    pub key: usize,
    pub google_signature: Option<String>,
    pub google_parts: Option<Box<RawValue>>,
    pub thinking_blocks: Option<Box<RawValue>>,
    pub thinking_layout: Option<Box<RawValue>>,
    pub reasoning_items: Option<Box<RawValue>>,
}

impl Signed {
    fn size(&self) -> usize {
        let raw = |value: &Option<Box<RawValue>>| value.as_ref().map_or(0, |v| v.get().len());
        OVERHEAD
            + self.google_signature.as_ref().map_or(0, String::len)
            + raw(&self.google_parts)
            + raw(&self.thinking_blocks)
            + raw(&self.thinking_layout)
            + raw(&self.reasoning_items)
    }

    /// Leaves of the message what did not come from here: its next upstream may refuse the rest.
    fn take_back(&self, message: &mut Message<'_>, place: Place) {
        let is_ours = |now: Option<&RawValue>, ours: &Option<Box<RawValue>>| {
            let pair = now.zip(ours.as_deref());
            pair.is_some_and(|(now, ours)| std::ptr::eq(now.get(), ours.get()))
        };
        if let Some(signature) = place.signature(message) {
            let pair = signature.as_deref();
            let pair = pair.zip(self.google_signature.as_deref());
            if pair.is_some_and(|(now, ours)| std::ptr::eq(now, ours)) {
                *signature = None;
            }
        }
        if is_ours(message.google_parts, &self.google_parts) {
            message.google_parts = None;
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
            && self.google_parts.is_none()
            && self.thinking_blocks.is_none()
            && self.reasoning_items.is_none()
    }
}

#[derive(Debug, Default)]
pub struct Memory {
    signed: Mutex<Halves>,
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

    /// What is remembered of the calls and pictures in a history, in the order of their messages.
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
                    && seen.insert(Cow::Borrowed(&*tool_call.id))
                {
                    found.push((index, Place::Call(call), signed));
                }
            }
            let parts = message.content.iter().enumerate();
            let parts = parts.map(|(at, part)| (Place::Part(at), part));
            let images = message.images.iter().enumerate();
            let images = images.map(|(at, part)| (Place::Image(at), part));
            for (place, part) in parts.chain(images) {
                if let Some(id) = picture_of(part)
                    && let Some(signed) = self.recall(&id)
                    && seen.insert(Cow::Owned(id))
                {
                    found.push((index, place, signed));
                }
            }
        }
        Recalled(found)
    }
}

/// Where in a message something was signed.
#[derive(Debug, Clone, Copy)]
enum Place {
    Call(usize),
    Part(usize),
    Image(usize),
}

impl Place {
    fn signature<'m, 'r>(
        self,
        message: &'m mut Message<'r>,
    ) -> Option<&'m mut Option<Cow<'r, str>>> {
        match self {
            Place::Call(at) => {
                let call = message.tool_calls.get_mut(at);
                call.map(|call| &mut call.google_signature)
            }
            Place::Part(at) => {
                let part = message.content.get_mut(at);
                part.map(|part| &mut part.google_signature)
            }
            Place::Image(at) => {
                let part = message.images.get_mut(at);
                part.map(|part| &mut part.google_signature)
            }
        }
    }
}

/// The name under which a picture's signature is kept. No call has it: ids hold no colon.
fn picture_id(base64: &str) -> String {
    // Keyed by chance, so that nobody can make a picture that passes for another one.
    static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    format!("image:{:016x}:{}", HASHER.hash_one(base64), base64.len())
}

fn picture_of(part: &Part<'_>) -> Option<String> {
    let PartKind::Image { url, .. } = &part.kind else {
        return None;
    };
    let (_, base64) = url.strip_prefix("data:")?.split_once(";base64,")?;
    Some(picture_id(base64))
}

/// What was remembered for one request.
#[derive(Debug, Default)]
pub struct Recalled(Vec<(usize, Place, Arc<Signed>)>);

impl Recalled {
    /// Fills in what the caller left out and `upstream` made itself, and takes back what was
    /// filled in for another one, which made it. What the caller sent counts for more.
    pub fn fill<'r>(&'r self, messages: &mut [Message<'r>], upstream: &str) {
        for (index, place, signed) in &self.0 {
            let Some(message) = messages.get_mut(*index) else {
                continue;
            };
            if signed.upstream != upstream {
                signed.take_back(message, *place);
                continue;
            }
            if let Some(signature) = place.signature(message)
                && signature.is_none()
            {
                *signature = signed.google_signature.as_deref().map(Into::into);
            }
            if message.google_parts.is_none() {
                message.google_parts = signed.google_parts.as_deref();
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
    /// Pictures by their names, with their signatures.
    pictures: Vec<(String, String)>,
    /// Bytes of all that is noted.
    bytes: usize,
    extras: Vec<(u32, Extra)>,
}

#[derive(Debug, Default, Deserialize)]
struct Extra {
    #[serde(default)]
    google: ExtraGoogle,
    #[serde(default)]
    anthropic: ExtraAnthropic,
    #[serde(default)]
    openai: ExtraOpenAi,
}

#[derive(Debug, Default, Deserialize)]
struct ExtraGoogle {
    tool_parts: Option<Box<RawValue>>,
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

/// Calls and pictures of one answer that are noted; more have nothing of their own.
const CALLS: usize = 64;

/// Bytes that one answer's notes may take. What is longer would not be kept anyway.
const NOTED: usize = CAPACITY / 2;

impl Notes {
    /// `seed` is the one that the writer makes ids from.
    pub fn new(seed: u64) -> Notes {
        Notes {
            seed,
            calls: Vec::new(),
            pictures: Vec::new(),
            bytes: 0,
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
                let signature = google_signature.filter(|signature| self.room_for(signature));
                let before = self.calls.iter().filter(|(of, ..)| of == candidate);
                let id = openai::call_id(id, self.seed, *candidate, before.count());
                let signature = signature.map(str::to_owned);
                self.calls.push((*candidate, id.into_owned(), signature));
            }
            Delta::Image {
                base64,
                google_signature: Some(signature),
                ..
            } if self.pictures.len() < CALLS && self.room_for(signature) => {
                let picture = (picture_id(base64), (*signature).to_owned());
                self.pictures.push(picture);
            }
            Delta::Extra { candidate, json } if self.room_for(json) => {
                if let Ok(extra) = serde_json::from_str(json) {
                    self.extras.push((*candidate, extra));
                }
            }
            _ => {}
        }
    }

    /// Whether so much more may be noted, which it then counts as.
    fn room_for(&mut self, text: &str) -> bool {
        let fits = text.len() <= NOTED - self.bytes;
        if fits {
            self.bytes += text.len();
        }
        fits
    }

    /// The answer is whole: what it signed is kept.
    pub fn keep(self, memory: &Memory, upstream: &str, key: usize) {
        let Notes {
            calls,
            pictures,
            extras,
            ..
        } = self;
        for (id, signature) in pictures {
            let signed = Signed {
                upstream: upstream.to_owned(),
                key,
                google_signature: Some(signature),
                ..Signed::default()
            };
            memory.keep(id, Arc::new(signed));
        }
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
                google_parts: extra.and_then(|e| e.google.tool_parts.clone()),
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
mod tests;
