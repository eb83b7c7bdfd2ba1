//! One candidate of an answer: its parts, taken one event after the other.

use log::debug;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::audio::Audio;
use super::partial::Partial;
use super::spoken::Spoken;
use super::usage::{self, Counters};
use super::wire::{self, Blob, FunctionCall, Grounding, LogprobsResult};
use crate::chat::{Delta, DeltaSink, ToolKind, Usage};
use crate::failure::Failure;
use crate::json::push_string;
use crate::provider::Undo;
use crate::provider::budget::{self, Budget, ENTRY};
use crate::provider::fence::Fence;

/// What an answer says about itself, and the way out for every delta: the start is put only in
/// front of a first piece of output, so that an answer which ends without one can still be asked
/// for again.
#[derive(Default)]
pub struct Head {
    pub id: String,
    pub model: String,
    pub begun: bool,
    /// Deltas put so far.
    pub count: u64,
    pub counters: Counters,
    /// The usage of the upstream answers that this one continues.
    pub earlier: Usage,
    told: Usage,
    pub tier: Option<&'static str>,
    /// What all candidates keep between two events.
    pub budget: Budget,
}

impl Head {
    pub fn begin(&mut self, out: &mut dyn DeltaSink) {
        if !self.begun {
            self.begun = true;
            out.put(Delta::Start {
                id: &self.id,
                model: self.model.strip_prefix("models/").unwrap_or(&self.model),
            });
            // Before any content, so that every chunk can name it.
            self.report(out);
        }
    }

    pub fn put(&mut self, delta: Delta<'_>, out: &mut dyn DeltaSink) {
        self.begin(out);
        self.count += 1;
        out.put(delta);
    }

    pub fn usage(&self) -> Usage {
        usage::add(self.earlier, self.counters.usage())
    }

    /// Puts out the usage and the tier, where they are news.
    pub fn report(&mut self, out: &mut dyn DeltaSink) {
        let usage = self.usage();
        if self.begun && usage != self.told {
            self.told = usage;
            out.put(Delta::Usage(usage));
        }
        if self.begun
            && let Some(tier) = self.tier.take()
        {
            out.put(Delta::ServiceTier(tier));
        }
    }
}

/// A candidate between two events. `opened` holds once a delta of it went out; until every lower
/// candidate is opened, its events wait in `waiting`.
pub struct Candidate {
    pub index: u32,
    pub opened: bool,
    /// The last `finishReason` seen.
    pub finish: Option<String>,
    /// The vendor's words about it.
    pub why: String,
    pub waiting: Vec<Box<str>>,
    pub calls: u32,
    partial: Option<Partial>,
    /// The signature of the last text part.
    signature: Option<String>,
    /// What tools of the provider's own left, as JSON objects with commas between them.
    tool_parts: String,
    tools: u32,
    spoken: Spoken,
    fence: Option<Fence>,
    audio: Audio,
}

impl Candidate {
    pub fn new(index: u32, undo: &Undo) -> Self {
        Candidate {
            index,
            opened: false,
            finish: None,
            why: String::new(),
            waiting: Vec::new(),
            calls: 0,
            partial: None,
            signature: None,
            tool_parts: String::new(),
            tools: 0,
            spoken: Spoken::default(),
            fence: undo.strip_fence.then(Fence::default),
            audio: Audio::default(),
        }
    }

    /// Takes what one event says about this candidate.
    pub fn take(
        &mut self,
        said: &wire::Candidate<'_>,
        undo: &Undo,
        head: &mut Head,
        out: &mut dyn DeltaSink,
    ) -> Result<(), Failure> {
        let parts = said
            .content
            .as_ref()
            .map_or(&[][..], |content| &content.parts);
        for (position, part) in parts.iter().enumerate() {
            let answers = part.is_text() && !part.thought;
            let thinks = part.is_text() && part.thought;
            self.spoken.part(position == 0, answers, thinks);
            if let Some(call) = &part.function_call {
                self.call(call, &part.thought_signature, undo, head, out)?;
                continue;
            }
            self.end_partial(head, out);
            if let Some(blob) = &part.inline_data {
                self.blob(blob, &part.thought_signature, head, out);
            } else if let Some((kind, said)) = part.of_tool() {
                self.tool_part(kind, said, &part.thought_signature, head)?;
            } else if thinks && !part.text.is_empty() {
                let (candidate, text) = (self.index, &*part.text);
                self.put(Delta::Reasoning { candidate, text }, head, out);
            } else if answers {
                self.text(&part.text, head, out);
                if !part.thought_signature.is_empty() {
                    self.sign(&part.thought_signature, head)?;
                }
            }
        }
        if let Some(grounding) = said.grounding_metadata {
            // Most events of a grounded answer carry an empty object here.
            if grounding.get().contains("groundingSupports") {
                match serde_json::from_str(grounding.get()) {
                    Ok(grounding) => self.cite(&grounding, head, out)?,
                    Err(error) => debug!("gemini: groundingMetadata skipped: {error}"),
                }
            }
        }
        if let Some(logprobs) = said.logprobs_result {
            match serde_json::from_str(logprobs.get()) {
                Ok(logprobs) => self.logprobs(&logprobs, head, out),
                Err(error) => debug!("gemini: logprobsResult skipped: {error}"),
            }
        }
        self.note_finish(said);
        Ok(())
    }

    /// Remembers how the candidate ended, if the event says so.
    pub fn note_finish(&mut self, said: &wire::Candidate<'_>) {
        if !said.finish_reason.is_empty() {
            self.finish = Some(budget::name(&said.finish_reason).to_owned());
            budget::name(&said.finish_message).clone_into(&mut self.why);
        }
    }

    /// The candidate is over: what was still held back.
    pub fn close(&mut self, head: &mut Head, out: &mut dyn DeltaSink) {
        self.end_partial(head, out);
        let candidate = self.index;
        if let Some(mut fence) = self.fence.take() {
            fence.end(|text| self.put(Delta::Text { candidate, text }, head, out));
        }
        let rest = self.audio.finish();
        self.speak(&rest, head, out);
        let signature = self.signature.take();
        let tool_parts = std::mem::take(&mut self.tool_parts);
        if signature.is_some() || !tool_parts.is_empty() {
            let json = carrier(signature.as_deref(), &tool_parts);
            self.put(
                Delta::Extra {
                    candidate: self.index,
                    json: &json,
                },
                head,
                out,
            );
        }
    }

    pub fn put(&mut self, delta: Delta<'_>, head: &mut Head, out: &mut dyn DeltaSink) {
        self.opened = true;
        head.put(delta, out);
    }

    fn text(&mut self, text: &str, head: &mut Head, out: &mut dyn DeltaSink) {
        let candidate = self.index;
        if text.is_empty() {
            return;
        }
        self.spoken.push(text, &mut head.budget);
        match self.fence.take() {
            None => self.put(Delta::Text { candidate, text }, head, out),
            Some(mut fence) => {
                fence.push(text, |text| {
                    self.put(Delta::Text { candidate, text }, head, out)
                });
                self.fence = Some(fence);
            }
        }
    }

    fn call(
        &mut self,
        call: &FunctionCall<'_>,
        signature: &str,
        undo: &Undo,
        head: &mut Head,
        out: &mut dyn DeltaSink,
    ) -> Result<(), Failure> {
        let candidate = self.index;
        if call.name.is_empty() {
            // A piece of the call before, or its end.
            let Some(partial) = &mut self.partial else {
                debug!("gemini: a functionCall without a name skipped");
                return Ok(());
            };
            for piece in &call.partial_args {
                let kept = partial.take(piece).map_err(|_| bad_pieces())?;
                head.budget.take(kept)?;
            }
            if !call.will_continue {
                self.end_partial(head, out);
            }
            return Ok(());
        }
        self.end_partial(head, out);
        // The caller's side keeps a note of each call.
        head.budget.take(ENTRY)?;
        let index = self.calls;
        self.calls += 1;
        let name = undo.name(&call.name);
        let custom = undo.custom.contains(name);
        let delta = Delta::ToolStart {
            candidate,
            index,
            id: &call.id,
            name,
            kind: if custom {
                ToolKind::Custom
            } else {
                ToolKind::Function
            },
            google_signature: (!signature.is_empty()).then_some(signature),
        };
        self.put(delta, head, out);
        if call.will_continue || !call.partial_args.is_empty() {
            let mut partial = Partial::default();
            for piece in &call.partial_args {
                let kept = partial.take(piece).map_err(|_| bad_pieces())?;
                head.budget.take(kept)?;
            }
            self.partial = Some(partial);
            if !call.will_continue {
                self.end_partial(head, out);
            }
            return Ok(());
        }
        let args = call.args.map_or("{}", |args| args.get());
        // Some servers in between write the object as a string of JSON.
        let inside: Option<String> = match args.starts_with('"') {
            true => serde_json::from_str(args).ok(),
            false => None,
        };
        let inside = inside.filter(|text| serde_json::from_str::<Map<String, Value>>(text).is_ok());
        let args = inside.as_deref().unwrap_or(args);
        let input;
        let compacted;
        let fragment = match custom.then(|| serde_json::from_str::<Input>(args)) {
            Some(Ok(said)) => {
                input = said.input;
                &*input
            }
            _ => {
                compacted = super::compact(args);
                &*compacted
            }
        };
        self.put(
            Delta::ToolArgs {
                candidate,
                index,
                fragment,
            },
            head,
            out,
        );
        Ok(())
    }

    /// Puts out the arguments of a call that came in pieces.
    fn end_partial(&mut self, head: &mut Head, out: &mut dyn DeltaSink) {
        let Some(partial) = self.partial.take() else {
            return;
        };
        head.budget.give_back(partial.bytes());
        let fragment = partial.to_json();
        let delta = Delta::ToolArgs {
            candidate: self.index,
            index: self.calls - 1,
            fragment: &fragment,
        };
        self.put(delta, head, out);
    }

    fn blob(&mut self, blob: &Blob<'_>, signature: &str, head: &mut Head, out: &mut dyn DeltaSink) {
        let candidate = self.index;
        let (mime, base64) = (&*blob.mime_type, &*blob.data);
        if mime.starts_with("image/") {
            self.put(
                Delta::Image {
                    candidate,
                    mime,
                    base64,
                    google_signature: (!signature.is_empty()).then_some(signature),
                },
                head,
                out,
            );
        } else if mime.starts_with("audio/") {
            let sure = self.audio.feed(base64);
            self.speak(&sure, head, out);
        } else {
            debug!("gemini: inlineData of type {mime:?} skipped");
        }
    }

    fn speak(&mut self, base64: &str, head: &mut Head, out: &mut dyn DeltaSink) {
        if base64.is_empty() {
            return;
        }
        let id = format!("audio_{}", head.id);
        let delta = Delta::Audio {
            candidate: self.index,
            id: &id,
            base64,
        };
        self.put(delta, head, out);
    }

    /// The signature of the last text part.
    fn sign(&mut self, signature: &str, head: &mut Head) -> Result<(), Failure> {
        let before = self.signature.take().map_or(0, |before| before.len());
        head.budget.give_back(before);
        head.budget.take(signature.len())?;
        self.signature = Some(signature.to_owned());
        Ok(())
    }

    /// Keeps a part for the history. Every entry carries its number, because accumulators merge
    /// lists by it.
    fn tool_part(
        &mut self,
        kind: &str,
        said: &RawValue,
        signature: &str,
        head: &mut Head,
    ) -> Result<(), Failure> {
        let mut json = Vec::new();
        if !self.tool_parts.is_empty() {
            json.push(b',');
        }
        json.extend_from_slice(format!("{{\"index\":{},\"{kind}\":", self.tools).as_bytes());
        json.extend_from_slice(super::compact(said.get()).as_bytes());
        if !signature.is_empty() {
            json.extend_from_slice(b",\"thoughtSignature\":");
            push_string(&mut json, signature);
        }
        json.push(b'}');
        head.budget.take(json.len())?;
        self.tools += 1;
        self.tool_parts.push_str(&String::from_utf8_lossy(&json));
        Ok(())
    }

    fn cite(
        &mut self,
        grounding: &Grounding<'_>,
        head: &mut Head,
        out: &mut dyn DeltaSink,
    ) -> Result<(), Failure> {
        for support in &grounding.grounding_supports {
            let Some(segment) = &support.segment else {
                continue;
            };
            let Some((start, end)) = self.spoken.locate(segment) else {
                continue;
            };
            for index in &support.grounding_chunk_indices {
                let web = grounding
                    .grounding_chunks
                    .get(*index)
                    .and_then(|chunk| chunk.web.as_ref());
                let Some(web) = web.filter(|web| !web.uri.is_empty()) else {
                    continue;
                };
                if self.spoken.is_new(start, end, &web.uri) {
                    head.budget.take(ENTRY + web.uri.len())?;
                    let delta = Delta::Citation {
                        candidate: self.index,
                        url: &web.uri,
                        title: &web.title,
                        start,
                        end,
                    };
                    self.put(delta, head, out);
                }
            }
        }
        Ok(())
    }

    fn logprobs(&mut self, said: &LogprobsResult<'_>, head: &mut Head, out: &mut dyn DeltaSink) {
        if said.chosen_candidates.is_empty() {
            return;
        }
        let json = super::logprobs::openai(said);
        self.put(
            Delta::Logprobs {
                candidate: self.index,
                json: &json,
            },
            head,
            out,
        );
    }
}

/// `extra_content` of the message.
fn carrier(signature: Option<&str>, tool_parts: &str) -> String {
    let mut json = br#"{"google":{"#.to_vec();
    if let Some(signature) = signature {
        json.extend_from_slice(b"\"thought_signature\":");
        push_string(&mut json, signature);
    }
    if !tool_parts.is_empty() {
        if signature.is_some() {
            json.push(b',');
        }
        json.extend_from_slice(b"\"tool_parts\":[");
        json.extend_from_slice(tool_parts.as_bytes());
        json.push(b']');
    }
    json.extend_from_slice(b"}}");
    String::from_utf8(json).expect("built from strings")
}

/// The arguments of a custom tool, which went out as a function.
#[derive(serde::Deserialize)]
struct Input {
    input: String,
}

fn bad_pieces() -> Failure {
    Failure::malformed("the upstream streamed tool arguments that make up no object")
}
