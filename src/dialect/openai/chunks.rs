//! Deltas -> the events of a chat completion stream, as the official clients' parsers and
//! accumulators need them.
//!
//! Accumulators concatenate repeated strings and index lists by the numbers they see, so roles,
//! ids and names come once, choices and calls appear in order of their numbers, and every entry
//! of a list that may grow has its `index`.

use super::Stamp;
use super::write::{
    CallIds, MAX_CHOICES, arguments_key, audio_id, completion_id, finish_word, is_object,
    kind_name, push_call_head, push_citation, push_head, push_image, push_signature, push_usage,
};
use crate::chat::{Delta, DeltaSink, FinishReason, ToolKind, Usage};
use crate::dialect::Streamed;
use crate::json::{push_carried, push_key, push_number, push_string};

/// Writes one stream.
///
/// Choices 0 to `choices.len() - 1` have had their role chunk. Nothing is written for an answer
/// that has only begun, so that an upstream which fails right then can still be replaced.
pub struct Chunks {
    stamp: Stamp,
    out: Vec<u8>,
    /// What every event begins with, up to the choices. Empty until the id is known.
    prefix: Vec<u8>,
    id: String,
    tier: String,
    choices: Vec<Choice>,
    /// By candidate, kept apart because a reason alone does not open a choice.
    reasons: Vec<Option<FinishReason>>,
    usage: Usage,
    finished: bool,
}

#[derive(Default)]
struct Choice {
    calls: Vec<Call>,
    ids: CallIds,
    /// Some call does not stand at its index.
    shuffled: bool,
    images: u64,
    citations: u64,
    has_audio: bool,
    has_extra: bool,
}

struct Call {
    /// As the decoder counts.
    index: u32,
    kind: ToolKind,
    has_arguments: bool,
    /// A second call in the older form, which has room for one.
    hidden: bool,
}

impl Chunks {
    pub fn new(stamp: Stamp) -> Self {
        Chunks {
            stamp,
            out: Vec::new(),
            prefix: Vec::new(),
            id: String::new(),
            tier: String::new(),
            choices: Vec::new(),
            reasons: Vec::new(),
            usage: Usage::default(),
            finished: false,
        }
    }

    /// The events written since the last `clear`, ready to be sent in one piece.
    pub fn bytes(&self) -> &[u8] {
        &self.out
    }

    pub fn clear(&mut self) {
        self.out.clear();
    }

    /// Finish chunks, the usage chunk if asked for, `[DONE]`.
    pub fn finish(&mut self) {
        if self.finished {
            return;
        }
        // An answer has at least one choice, even if nothing came for it.
        self.open(self.reasons.len().saturating_sub(1) as u32);
        for candidate in 0..self.choices.len() as u32 {
            self.close_calls(candidate);
        }
        for candidate in 0..self.choices.len() as u32 {
            let called = !self.choices[candidate as usize].calls.is_empty();
            let reason = self.reasons.get(candidate as usize).copied().flatten();
            let word = finish_word(reason, called, self.stamp.legacy_functions);
            self.begin(candidate);
            self.out.extend_from_slice(b"},\"finish_reason\":");
            push_string(&mut self.out, word);
            self.out.extend_from_slice(b"}]");
            self.end_event();
        }
        if self.stamp.include_usage {
            self.out.extend_from_slice(&self.prefix);
            self.out.extend_from_slice(b",\"choices\":[],\"usage\":");
            push_usage(&mut self.out, &self.usage);
            self.out.extend_from_slice(b"}\n\n");
        }
        self.out.extend_from_slice(b"data: [DONE]\n\n");
        self.finished = true;
    }

    /// What was counted so far.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// Makes `choices[candidate]` exist, role chunk written. Lower choices that have said nothing
    /// yet are opened before it, because clients put each new choice at the end of their list.
    /// False if there can be no such choice.
    fn open(&mut self, candidate: u32) -> bool {
        if candidate >= MAX_CHOICES {
            return false;
        }
        while self.choices.len() <= candidate as usize {
            let next = self.choices.len() as u32;
            self.choices.push(Choice::default());
            self.begin(next);
            self.out
                .extend_from_slice(b"\"role\":\"assistant\",\"content\":\"\"");
            self.end();
        }
        true
    }

    /// Writes an event up to the inside of its delta.
    fn begin(&mut self, candidate: u32) {
        if self.prefix.is_empty() {
            self.write_prefix();
        }
        self.out.extend_from_slice(&self.prefix);
        self.out.extend_from_slice(b",\"choices\":[{\"index\":");
        push_number(&mut self.out, u64::from(candidate));
        self.out.extend_from_slice(b",\"delta\":{");
    }

    /// Writes the rest of an event from the inside of its delta.
    fn end(&mut self) {
        self.out.extend_from_slice(b"},\"finish_reason\":null}]");
        self.end_event();
    }

    /// Writes the rest of an event behind its choices.
    fn end_event(&mut self) {
        let rest: &[u8] = match self.stamp.include_usage {
            true => b",\"usage\":null}\n\n",
            false => b"}\n\n",
        };
        self.out.extend_from_slice(rest);
    }

    fn write_prefix(&mut self) {
        self.prefix.clear();
        self.prefix.extend_from_slice(b"data: ");
        let id = completion_id(&self.id, self.stamp.seed);
        push_head(&mut self.prefix, &id, "chat.completion.chunk", &self.stamp);
        if !self.tier.is_empty() {
            push_key(&mut self.prefix, b',', "service_tier");
            push_string(&mut self.prefix, &self.tier);
        }
    }

    /// A delta with one string in it.
    fn put_text(&mut self, candidate: u32, key: &str, text: &str) {
        if text.is_empty() || !self.open(candidate) {
            return;
        }
        self.begin(candidate);
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
        push_string(&mut self.out, text);
        self.end();
    }

    fn start_call(
        &mut self,
        candidate: u32,
        index: u32,
        id: &str,
        name: &str,
        kind: ToolKind,
        signature: Option<&str>,
    ) {
        let legacy = self.stamp.legacy_functions;
        let choice = &mut self.choices[candidate as usize];
        let n = choice.calls.len();
        choice.shuffled |= index as usize != n;
        let hidden = legacy && n > 0;
        let id = choice.ids.next(id, self.stamp.seed, candidate, n);
        choice.calls.push(Call {
            index,
            kind,
            has_arguments: false,
            hidden,
        });
        if hidden {
            return;
        }
        self.begin(candidate);
        let out = &mut self.out;
        if legacy {
            out.extend_from_slice(b"\"function_call\":{");
            push_call_head(out, ToolKind::Function, name);
            out.extend_from_slice(b"\"\"}");
        } else {
            out.extend_from_slice(b"\"tool_calls\":[{\"index\":");
            push_number(out, n as u64);
            push_key(out, b',', "id");
            push_string(out, &id);
            push_key(out, b',', "type");
            push_string(out, kind_name(kind));
            push_key(out, b',', kind_name(kind));
            out.push(b'{');
            push_call_head(out, kind, name);
            out.extend_from_slice(b"\"\"}");
            if let Some(signature) = signature {
                push_signature(out, signature);
            }
            out.extend_from_slice(b"}]");
        }
        self.end();
    }

    fn put_arguments(&mut self, candidate: u32, index: u32, fragment: &str) {
        let Some(choice) = self.choices.get_mut(candidate as usize) else {
            return;
        };
        // From the end, since the newest call is the one being written.
        let n = match choice.shuffled {
            false => Some(index as usize).filter(|at| *at < choice.calls.len()),
            true => choice.calls.iter().rposition(|call| call.index == index),
        };
        let Some(n) = n else { return };
        if fragment.is_empty() {
            return;
        }
        choice.calls[n].has_arguments = true;
        self.write_arguments(candidate, n, fragment);
    }

    fn write_arguments(&mut self, candidate: u32, n: usize, fragment: &str) {
        let call = &self.choices[candidate as usize].calls[n];
        let kind = call.kind;
        if call.hidden {
            return;
        }
        self.begin(candidate);
        let out = &mut self.out;
        if self.stamp.legacy_functions {
            out.extend_from_slice(b"\"function_call\":{\"arguments\":");
            push_string(out, fragment);
            out.push(b'}');
        } else {
            out.extend_from_slice(b"\"tool_calls\":[{\"index\":");
            push_number(out, n as u64);
            push_key(out, b',', kind_name(kind));
            push_key(out, b'{', arguments_key(kind));
            push_string(out, fragment);
            out.extend_from_slice(b"}}]");
        }
        self.end();
    }

    /// Arguments are JSON, so a function called without any gets an empty object.
    fn close_calls(&mut self, candidate: u32) {
        for n in 0..self.choices[candidate as usize].calls.len() {
            let call = &self.choices[candidate as usize].calls[n];
            if call.kind == ToolKind::Function && !call.has_arguments {
                self.write_arguments(candidate, n, "{}");
            }
        }
    }

    fn put_audio(&mut self, candidate: u32, id: &str, base64: &str) {
        let first = !self.choices[candidate as usize].has_audio;
        self.choices[candidate as usize].has_audio = true;
        self.begin(candidate);
        self.out.extend_from_slice(b"\"audio\":{");
        if first {
            self.out.extend_from_slice(b"\"id\":");
            let id = audio_id(id, self.stamp.seed, candidate);
            push_string(&mut self.out, &id);
            self.out.extend_from_slice(b",\"transcript\":\"\",");
        }
        self.out.extend_from_slice(b"\"data\":");
        push_string(&mut self.out, base64);
        self.out.push(b'}');
        self.end();
    }

    /// The head of a one-entry list that may grow.
    fn begin_entry(&mut self, candidate: u32, key: &str, index: u64) {
        self.begin(candidate);
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":[{\"index\":");
        push_number(&mut self.out, index);
        self.out.push(b',');
    }
}

impl Streamed for Chunks {
    fn bytes(&self) -> &[u8] {
        Chunks::bytes(self)
    }

    fn clear(&mut self) {
        Chunks::clear(self);
    }

    fn finish(&mut self) {
        Chunks::finish(self);
    }

    fn usage(&self) -> Usage {
        Chunks::usage(self)
    }
}

impl DeltaSink for Chunks {
    fn put(&mut self, delta: Delta<'_>) {
        if self.finished {
            return;
        }
        match delta {
            Delta::Start { id, .. } => {
                // The id is the same in every chunk: what was sent stays.
                if self.prefix.is_empty() && self.id.is_empty() {
                    self.id.push_str(id);
                }
            }
            Delta::Text { candidate, text } => self.put_text(candidate, "content", text),
            Delta::Reasoning { candidate, text } => {
                self.put_text(candidate, "reasoning_content", text);
            }
            Delta::Refusal { candidate, text } => self.put_text(candidate, "refusal", text),
            Delta::Extra { candidate, json } => {
                if !is_object(json) || !self.open(candidate) {
                    return;
                }
                let choice = &mut self.choices[candidate as usize];
                if std::mem::replace(&mut choice.has_extra, true) {
                    return;
                }
                self.begin(candidate);
                self.out.extend_from_slice(b"\"extra_content\":");
                push_carried(&mut self.out, json);
                self.end();
            }
            Delta::ToolStart {
                candidate,
                index,
                id,
                name,
                kind,
                google_signature,
            } => {
                if self.open(candidate) {
                    self.start_call(candidate, index, id, name, kind, google_signature);
                }
            }
            Delta::ToolArgs {
                candidate,
                index,
                fragment,
            } => self.put_arguments(candidate, index, fragment),
            Delta::Image {
                candidate,
                mime,
                base64,
                google_signature,
            } => {
                if self.open(candidate) {
                    let index = self.choices[candidate as usize].images;
                    self.choices[candidate as usize].images += 1;
                    self.begin_entry(candidate, "images", index);
                    push_image(&mut self.out, mime, base64, google_signature);
                    self.out.push(b']');
                    self.end();
                }
            }
            Delta::Audio {
                candidate,
                id,
                base64,
            } => {
                if self.open(candidate) {
                    self.put_audio(candidate, id, base64);
                }
            }
            Delta::Citation {
                candidate,
                url,
                title,
                start,
                end,
            } => {
                if self.open(candidate) {
                    let index = self.choices[candidate as usize].citations;
                    self.choices[candidate as usize].citations += 1;
                    self.begin_entry(candidate, "annotations", index);
                    push_citation(&mut self.out, url, title, start, end);
                    self.out.push(b']');
                    self.end();
                }
            }
            Delta::Logprobs { candidate, json } => {
                if is_object(json) && self.open(candidate) {
                    self.begin(candidate);
                    self.out.extend_from_slice(b"},\"logprobs\":");
                    push_carried(&mut self.out, json);
                    self.out.extend_from_slice(b",\"finish_reason\":null}]");
                    self.end_event();
                }
            }
            Delta::Usage(usage) => self.usage.merge(usage),
            Delta::ServiceTier(tier) => {
                if self.tier != tier {
                    self.tier = tier.to_owned();
                    // What was not begun yet still waits for its id.
                    if !self.prefix.is_empty() {
                        self.write_prefix();
                    }
                }
            }
            Delta::Finish { candidate, reason } => {
                if candidate < MAX_CHOICES {
                    let count = self.reasons.len().max(candidate as usize + 1);
                    self.reasons.resize(count, None);
                    self.reasons[candidate as usize].get_or_insert(reason);
                }
            }
        }
    }
}
