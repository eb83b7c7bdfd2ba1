//! Deltas as a Gemini answer: the pieces of its stream, or one answer.

use std::sync::Arc;

use super::Framing;
use crate::chat::{Delta, DeltaSink, FinishReason, Usage};
use crate::dialect::openai::{Stamp, call_id, completion_id};
use crate::dialect::{Streamed, Whole};
use crate::json::{push_carried, push_key, push_number, push_string};
use crate::seal::{Holds, Seals};

/// More than any model gives. Those beyond are left out.
const MOST_CANDIDATES: u32 = 64;

/// What every piece says, and how the answer ends.
struct Frame {
    stamp: Stamp,
    seals: Arc<Seals>,
    id: String,
    usage: Usage,
    candidates: Vec<Candidate>,
    /// About what the calls take that wait for the end.
    held: usize,
}

#[derive(Default)]
struct Candidate {
    calls: Vec<Call>,
    /// What belongs to the message as a whole, sealed.
    extra: Option<String>,
    reason: Option<FinishReason>,
    /// Where the model looked, as address and title. No duplicates.
    sources: Vec<(String, String)>,
}

/// A call, which goes out in one piece only.
struct Call {
    index: u32,
    id: String,
    name: String,
    arguments: String,
    signature: Option<String>,
}

impl Frame {
    fn new(stamp: Stamp, seals: Arc<Seals>) -> Frame {
        Frame {
            id: completion_id("", stamp.seed).replacen("chatcmpl-", "", 1),
            stamp,
            seals,
            usage: Usage::default(),
            candidates: Vec::new(),
            held: 0,
        }
    }

    fn candidate(&mut self, at: u32) -> Option<&mut Candidate> {
        if at >= MOST_CANDIDATES {
            return None;
        }
        let at = at as usize;
        if self.candidates.len() <= at {
            self.candidates.resize_with(at + 1, Candidate::default);
        }
        self.candidates.get_mut(at)
    }

    /// Takes a delta; a part that can go out at once is given back, with its candidate.
    fn take(&mut self, delta: &Delta<'_>) -> Option<(u32, Part)> {
        let at = match delta {
            Delta::Text { candidate, text } | Delta::Refusal { candidate, text } => {
                self.candidate(*candidate)?;
                return Part::text(*candidate, false, text);
            }
            Delta::Reasoning { candidate, text } => {
                self.candidate(*candidate)?;
                return Part::text(*candidate, true, text);
            }
            Delta::Image {
                candidate,
                mime,
                base64,
                google_signature,
            } => {
                self.candidate(*candidate)?;
                let mut json = b"{\"inlineData\":{\"mimeType\":".to_vec();
                push_string(&mut json, mime);
                push_key(&mut json, b',', "data");
                push_string(&mut json, base64);
                json.push(b'}');
                push_signature(&mut json, *google_signature);
                json.push(b'}');
                return Some((*candidate, Part::Json(json)));
            }
            Delta::Start { id, .. } => {
                if !id.is_empty() {
                    (*id).clone_into(&mut self.id);
                }
                return None;
            }
            Delta::Usage(usage) => {
                self.usage.merge(*usage);
                return None;
            }
            Delta::ToolStart { candidate, .. }
            | Delta::ToolArgs { candidate, .. }
            | Delta::Extra { candidate, .. }
            | Delta::Finish { candidate, .. }
            | Delta::Citation { candidate, .. } => *candidate,
            // This format has no place for them.
            _ => return None,
        };
        let (seed, seals) = (self.stamp.seed, Arc::clone(&self.seals));
        let candidate = self.candidate(at)?;
        let mut more = 0;
        match delta {
            Delta::ToolStart {
                index,
                id,
                name,
                google_signature,
                ..
            } => {
                let call = Call {
                    index: *index,
                    id: call_id(id, seed, at, candidate.calls.len()).into_owned(),
                    name: (*name).to_owned(),
                    arguments: String::new(),
                    // It is Google's, so it travels in its own place as it is.
                    signature: google_signature.map(str::to_owned),
                };
                more = size_of::<Call>() + call.id.len() + call.name.len();
                candidate.calls.push(call);
            }
            Delta::ToolArgs {
                index, fragment, ..
            } => {
                let calls = candidate.calls.iter_mut().rev();
                if let Some(call) = calls.into_iter().find(|call| call.index == *index) {
                    call.arguments.push_str(fragment);
                    more = fragment.len();
                }
            }
            Delta::Extra { json, .. } => candidate.extra = seals.seal(Holds::Extra, json),
            Delta::Finish { reason, .. } => candidate.reason = Some(*reason),
            Delta::Citation { url, title, .. } => {
                const MOST: usize = 64;
                let known = candidate.sources.iter().any(|(known, _)| known == url);
                if !known && candidate.sources.len() < MOST {
                    candidate.sources.push(((*url).into(), (*title).into()));
                }
            }
            _ => {}
        }
        self.held += more;
        None
    }

    /// The end of an answer from behind its candidates.
    fn push_tail(&self, out: &mut Vec<u8>, with_usage: bool) {
        if with_usage {
            self.push_usage(out);
        }
        push_key(out, b',', "modelVersion");
        push_string(out, &self.stamp.model);
        push_key(out, b',', "responseId");
        push_string(out, &self.id);
        out.push(b'}');
    }

    /// Tokens as this format counts them: those of thoughts stand beside the others.
    fn push_usage(&self, out: &mut Vec<u8>) {
        let Usage {
            prompt,
            completion,
            cached,
            reasoning,
            ..
        } = self.usage;
        let (prompt, completion) = (prompt.unwrap_or(0), completion.unwrap_or(0));
        let thoughts = reasoning.unwrap_or(0).min(completion);
        push_key(out, b',', "usageMetadata");
        push_key(out, b'{', "promptTokenCount");
        push_number(out, prompt);
        push_key(out, b',', "candidatesTokenCount");
        push_number(out, completion - thoughts);
        push_key(out, b',', "totalTokenCount");
        push_number(out, prompt.saturating_add(completion));
        if let Some(cached) = cached.filter(|cached| *cached > 0) {
            push_key(out, b',', "cachedContentTokenCount");
            push_number(out, cached);
        }
        if thoughts > 0 {
            push_key(out, b',', "thoughtsTokenCount");
            push_number(out, thoughts);
        }
        out.push(b'}');
    }
}

/// A part of the answer.
enum Part {
    Text { thought: bool, text: String },
    Json(Vec<u8>),
}

impl Part {
    fn text(candidate: u32, thought: bool, text: &str) -> Option<(u32, Part)> {
        let text = text.to_owned();
        (!text.is_empty()).then_some((candidate, Part::Text { thought, text }))
    }

    fn push(&self, out: &mut Vec<u8>) {
        match self {
            Part::Text { thought, text } => {
                out.extend_from_slice(b"{\"text\":");
                push_string(out, text);
                out.extend_from_slice(if *thought {
                    b",\"thought\":true}"
                } else {
                    b"}"
                });
            }
            Part::Json(json) => out.extend_from_slice(json),
        }
    }
}

fn push_signature(out: &mut Vec<u8>, signature: Option<&str>) {
    if let Some(signature) = signature {
        push_key(out, b',', "thoughtSignature");
        push_string(out, signature);
    }
}

impl Candidate {
    /// What waited for the end, each as a part.
    fn rest(&self) -> Vec<Part> {
        let mut extra = self.extra.as_deref();
        let mut parts = Vec::with_capacity(self.calls.len() + 1);
        for call in &self.calls {
            let mut json = b"{\"functionCall\":{\"id\":".to_vec();
            push_string(&mut json, &call.id);
            push_key(&mut json, b',', "name");
            push_string(&mut json, &call.name);
            push_key(&mut json, b',', "args");
            push_arguments(&mut json, &call.arguments);
            json.push(b'}');
            let own = call.signature.as_deref();
            push_signature(&mut json, own.or_else(|| extra.take()));
            json.push(b'}');
            parts.push(Part::Json(json));
        }
        if extra.is_some() {
            let mut json = b"{\"text\":\"\"".to_vec();
            push_signature(&mut json, extra);
            json.push(b'}');
            parts.push(Part::Json(json));
        }
        parts
    }

    /// One entry of `candidates`.
    fn push(&self, at: usize, parts: &[Part], ends: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"content\":{\"role\":\"model\",\"parts\":[");
        for (at, part) in parts.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            part.push(out);
        }
        out.extend_from_slice(b"]}");
        if ends {
            push_key(out, b',', "finishReason");
            out.extend_from_slice(match self.reason {
                Some(FinishReason::Length) => b"\"MAX_TOKENS\"",
                Some(FinishReason::ContentFilter) => b"\"SAFETY\"",
                _ => b"\"STOP\"",
            });
        }
        push_key(out, b',', "index");
        push_number(out, at as u64);
        if ends && !self.sources.is_empty() {
            out.extend_from_slice(b",\"groundingMetadata\":{\"groundingChunks\":[");
            for (at, (url, title)) in self.sources.iter().enumerate() {
                out.extend_from_slice(if at == 0 {
                    b"{\"web\":{\"uri\":"
                } else {
                    b",{\"web\":{\"uri\":"
                });
                push_string(out, url);
                push_key(out, b',', "title");
                push_string(out, title);
                out.extend_from_slice(b"}}");
            }
            out.extend_from_slice(b"]}");
        }
        out.push(b'}');
    }
}

/// The arguments, which have to be an object here. A text that is none is told as what it is.
fn push_arguments(out: &mut Vec<u8>, text: &str) {
    let text = text.trim();
    let is_json = |text: &str| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
    if text.is_empty() {
        out.extend_from_slice(b"{}");
    } else if text.starts_with('{') && is_json(text) {
        push_carried(out, text);
    } else {
        push_key(out, b'{', "arguments");
        push_string(out, text);
        out.push(b'}');
    }
}

/// Writes a stream.
pub struct Pieces {
    frame: Frame,
    framing: Framing,
    out: Vec<u8>,
    begun: bool,
    finished: bool,
}

impl Pieces {
    pub fn new(stamp: Stamp, seals: Arc<Seals>, framing: Framing) -> Pieces {
        Pieces {
            frame: Frame::new(stamp, seals),
            framing,
            out: Vec::new(),
            begun: false,
            finished: false,
        }
    }

    fn piece(&mut self, json: &[u8]) {
        let first = !std::mem::replace(&mut self.begun, true);
        self.framing.push(first, json, &mut self.out);
    }
}

impl DeltaSink for Pieces {
    fn put(&mut self, delta: Delta<'_>) {
        let Some((at, part)) = self.frame.take(&delta) else {
            return;
        };
        let mut json = b"{\"candidates\":[".to_vec();
        Candidate::default().push(at as usize, &[part], false, &mut json);
        json.push(b']');
        self.frame.push_tail(&mut json, false);
        self.piece(&json);
    }
}

impl Streamed for Pieces {
    fn bytes(&self) -> &[u8] {
        &self.out
    }

    fn clear(&mut self) {
        self.out.clear();
    }

    fn finish(&mut self) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        self.frame.candidate(0);
        let mut json = b"{\"candidates\":[".to_vec();
        for (at, candidate) in self.frame.candidates.iter().enumerate() {
            if at > 0 {
                json.push(b',');
            }
            candidate.push(at, &candidate.rest(), true, &mut json);
        }
        json.push(b']');
        self.frame.push_tail(&mut json, true);
        self.piece(&json);
        self.framing.end(self.begun, &mut self.out);
    }

    fn usage(&self) -> Usage {
        self.frame.usage
    }

    fn held(&self) -> usize {
        self.frame.held
    }
}

/// Collects an answer that goes out in one piece.
pub struct Answer {
    frame: Frame,
    /// For each candidate.
    parts: Vec<Vec<Part>>,
}

impl Answer {
    pub fn new(stamp: Stamp, seals: Arc<Seals>) -> Answer {
        Answer {
            frame: Frame::new(stamp, seals),
            parts: Vec::new(),
        }
    }
}

impl DeltaSink for Answer {
    fn put(&mut self, delta: Delta<'_>) {
        let Some((at, part)) = self.frame.take(&delta) else {
            return;
        };
        let at = at as usize;
        if self.parts.len() <= at {
            self.parts.resize_with(at + 1, Vec::new);
        }
        let parts = &mut self.parts[at];
        match (parts.last_mut(), part) {
            (
                Some(Part::Text { thought, text }),
                Part::Text {
                    thought: newer,
                    text: more,
                },
            ) if *thought == newer => text.push_str(&more),
            (_, part) => parts.push(part),
        }
    }
}

impl Whole for Answer {
    fn usage(&self) -> Usage {
        self.frame.usage
    }

    fn into_body(mut self: Box<Self>) -> Vec<u8> {
        self.frame.candidate(0);
        self.parts
            .resize_with(self.frame.candidates.len(), Vec::new);
        let mut out = b"{\"candidates\":[".to_vec();
        for (at, candidate) in self.frame.candidates.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            let mut parts = std::mem::take(&mut self.parts[at]);
            parts.extend(candidate.rest());
            candidate.push(at, &parts, true, &mut out);
        }
        out.push(b']');
        self.frame.push_tail(&mut out, true);
        out
    }
}
