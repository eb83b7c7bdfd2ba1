//! Deltas as a Messages answer: the events of its stream, or one message.

use super::blocks::{Block, Blocks, Holder, Kind};
use crate::chat::{Delta, DeltaSink, FinishReason, Usage};
use crate::dialect::openai::{Stamp, call_id, completion_id};
use crate::dialect::{Streamed, Whole};
use crate::json::{push_escaped, push_key, push_number, push_string};
use crate::seal::{Holds, Seals};
use std::sync::Arc;

/// The answer's head, and how it ends.
struct Frame {
    stamp: Stamp,
    id: String,
    usage: Usage,
    reason: Option<FinishReason>,
    called: bool,
}

impl Frame {
    fn new(stamp: Stamp) -> Frame {
        Frame {
            id: message_id("", stamp.seed),
            stamp,
            usage: Usage::default(),
            reason: None,
            called: false,
        }
    }

    fn stop_reason(&self) -> &'static str {
        match self.reason {
            _ if self.called && self.reason != Some(FinishReason::Length) => "tool_use",
            Some(FinishReason::Length) => "max_tokens",
            Some(FinishReason::ContentFilter) => "refusal",
            _ => "end_turn",
        }
    }

    /// `"id":...` up to the content.
    fn push_head(&self, out: &mut Vec<u8>) {
        push_key(out, b'{', "id");
        push_string(out, &self.id);
        out.extend_from_slice(b",\"type\":\"message\",\"role\":\"assistant\",\"model\":");
        push_string(out, &self.stamp.model);
        out.extend_from_slice(b",\"content\":[");
    }

    /// Tokens as this format counts them: those of the cache stand beside the others. What nobody
    /// counted yet is `output`.
    fn push_usage(&self, out: &mut Vec<u8>, output: u64) {
        let Usage {
            prompt,
            completion,
            cached,
            cache_write,
            ..
        } = self.usage;
        let (cached, written) = (cached.unwrap_or(0), cache_write.unwrap_or(0));
        let input = prompt.unwrap_or(0);
        let fresh = input.saturating_sub(cached).saturating_sub(written);
        push_key(out, b'{', "input_tokens");
        push_number(out, fresh);
        push_key(out, b',', "cache_creation_input_tokens");
        push_number(out, written);
        push_key(out, b',', "cache_read_input_tokens");
        push_number(out, cached);
        push_key(out, b',', "output_tokens");
        push_number(out, completion.unwrap_or(output));
        out.push(b'}');
    }

    /// Notes what is no block. True: it was that.
    fn note(&mut self, delta: &Delta<'_>) -> bool {
        match delta {
            Delta::Start { id, .. } => self.id = message_id(id, self.stamp.seed),
            Delta::Usage(usage) => self.usage.merge(*usage),
            Delta::Finish {
                candidate: 0,
                reason,
            } => self.reason = Some(*reason),
            Delta::Finish { .. } | Delta::ServiceTier(_) => {}
            Delta::ToolStart { candidate: 0, .. } => {
                self.called = true;
                return false;
            }
            _ => return false,
        }
        true
    }
}

/// The upstream's id, or one that is made.
fn message_id(id: &str, seed: u64) -> String {
    match id {
        "" => completion_id("", seed).replacen("chatcmpl-", "msg_", 1),
        id => id.to_owned(),
    }
}

/// Turns the deltas of the first candidate into blocks.
fn put(delta: &Delta<'_>, seed: u64, seals: &Seals, blocks: &mut Blocks, out: &mut dyn Holder) {
    match delta {
        Delta::Text { candidate: 0, text } | Delta::Refusal { candidate: 0, text } => {
            blocks.text(Kind::Text, text, out);
        }
        Delta::Reasoning { candidate: 0, text } => blocks.text(Kind::Thinking, text, out),
        Delta::ToolStart {
            candidate: 0,
            index,
            id,
            name,
            google_signature,
            ..
        } => {
            let seal =
                google_signature.and_then(|signature| seals.seal(Holds::CallSignature, signature));
            if let Some(seal) = seal {
                blocks.seal(&seal, out);
            }
            let id = call_id(id, seed, 0, blocks.next_call());
            blocks.call(*index, &id, name, out);
        }
        Delta::ToolArgs {
            candidate: 0,
            index,
            fragment,
        } => blocks.arguments(*index, fragment, out),
        Delta::Extra { candidate: 0, json } => {
            if let Some(seal) = seals.seal(Holds::Extra, json) {
                blocks.seal(&seal, out);
            }
        }
        // This format has no place for them in what a model says.
        _ => {}
    }
}

/// Writes a stream.
pub struct Events {
    frame: Frame,
    seals: Arc<Seals>,
    blocks: Blocks,
    out: Out,
    finished: bool,
}

/// The events that were not taken yet.
#[derive(Default)]
struct Out {
    bytes: Vec<u8>,
    begun: bool,
    index: u64,
}

impl Out {
    fn event(&mut self, name: &str) {
        self.bytes.extend_from_slice(b"event: ");
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.extend_from_slice(b"\ndata: {\"type\":\"");
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(b'"');
    }

    fn end(&mut self) {
        self.bytes.extend_from_slice(b"}\n\n");
    }

    fn indexed(&mut self, name: &str) {
        self.event(name);
        push_key(&mut self.bytes, b',', "index");
        push_number(&mut self.bytes, self.index);
    }

    fn delta(&mut self, kind: &str, key: &str, text: &str) {
        if text.is_empty() {
            return;
        }
        self.indexed("content_block_delta");
        self.bytes.extend_from_slice(b",\"delta\":{\"type\":\"");
        self.bytes.extend_from_slice(kind.as_bytes());
        self.bytes.extend_from_slice(b"\",\"");
        self.bytes.extend_from_slice(key.as_bytes());
        self.bytes.extend_from_slice(b"\":\"");
        push_escaped(&mut self.bytes, text);
        self.bytes.extend_from_slice(b"\"}");
        self.end();
    }
}

impl Holder for Out {
    fn open(&mut self, kind: Kind, id: &str, name: &str) {
        self.indexed("content_block_start");
        push_key(&mut self.bytes, b',', "content_block");
        match kind {
            Kind::Text | Kind::Refusal => self
                .bytes
                .extend_from_slice(b"{\"type\":\"text\",\"text\":\"\"}"),
            Kind::Thinking => self
                .bytes
                .extend_from_slice(b"{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"}"),
            Kind::Call => {
                self.bytes
                    .extend_from_slice(b"{\"type\":\"tool_use\",\"id\":");
                push_string(&mut self.bytes, id);
                push_key(&mut self.bytes, b',', "name");
                push_string(&mut self.bytes, name);
                self.bytes.extend_from_slice(b",\"input\":{}}");
            }
        }
        self.end();
    }

    fn more(&mut self, kind: Kind, text: &str) {
        match kind {
            Kind::Text | Kind::Refusal => self.delta("text_delta", "text", text),
            Kind::Thinking => self.delta("thinking_delta", "thinking", text),
            Kind::Call => self.delta("input_json_delta", "partial_json", text),
        }
    }

    fn seal(&mut self, seal: &str) {
        self.delta("signature_delta", "signature", seal);
    }

    fn close(&mut self) {
        self.indexed("content_block_stop");
        self.end();
        self.index += 1;
    }
}

impl Events {
    pub fn new(stamp: Stamp, seals: Arc<Seals>) -> Events {
        Events {
            frame: Frame::new(stamp),
            seals,
            blocks: Blocks::default(),
            out: Out::default(),
            finished: false,
        }
    }

    /// The first event, once: with the tokens that are known by now.
    fn begin(&mut self) {
        if std::mem::replace(&mut self.out.begun, true) {
            return;
        }
        self.out.event("message_start");
        let out = &mut self.out.bytes;
        push_key(out, b',', "message");
        self.frame.push_head(out);
        out.extend_from_slice(b"],\"stop_reason\":null,\"stop_sequence\":null,\"usage\":");
        self.frame.push_usage(out, 1);
        out.push(b'}');
        self.out.end();
    }
}

impl DeltaSink for Events {
    fn put(&mut self, delta: Delta<'_>) {
        if self.frame.note(&delta) {
            return;
        }
        self.begin();
        put(
            &delta,
            self.frame.stamp.seed,
            &self.seals,
            &mut self.blocks,
            &mut self.out,
        );
    }
}

impl Streamed for Events {
    fn bytes(&self) -> &[u8] {
        &self.out.bytes
    }

    fn clear(&mut self) {
        self.out.bytes.clear();
    }

    fn finish(&mut self) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        self.begin();
        self.blocks.finish(&mut self.out);
        self.out.event("message_delta");
        let out = &mut self.out.bytes;
        out.extend_from_slice(b",\"delta\":{\"stop_reason\":\"");
        out.extend_from_slice(self.frame.stop_reason().as_bytes());
        out.extend_from_slice(b"\",\"stop_sequence\":null},\"usage\":");
        self.frame.push_usage(out, 0);
        self.out.end();
        self.out.event("message_stop");
        self.out.end();
    }

    fn usage(&self) -> Usage {
        self.frame.usage
    }

    fn held(&self) -> usize {
        self.blocks.held()
    }
}

/// Collects a message that goes out in one piece.
pub struct Message {
    frame: Frame,
    seals: Arc<Seals>,
    blocks: Blocks,
    content: Content,
}

#[derive(Default)]
struct Content {
    blocks: Vec<Block>,
}

impl Holder for Content {
    fn open(&mut self, kind: Kind, id: &str, name: &str) {
        self.blocks.push(Block::new(kind, id, name));
    }

    fn more(&mut self, _: Kind, text: &str) {
        if let Some(block) = self.blocks.last_mut() {
            block.text.push_str(text);
        }
    }

    fn seal(&mut self, seal: &str) {
        if let Some(block) = self.blocks.last_mut() {
            seal.clone_into(&mut block.seal);
        }
    }

    fn close(&mut self) {}
}

impl Message {
    pub fn new(stamp: Stamp, seals: Arc<Seals>) -> Message {
        Message {
            frame: Frame::new(stamp),
            seals,
            blocks: Blocks::default(),
            content: Content::default(),
        }
    }
}

impl DeltaSink for Message {
    fn put(&mut self, delta: Delta<'_>) {
        if self.frame.note(&delta) {
            return;
        }
        put(
            &delta,
            self.frame.stamp.seed,
            &self.seals,
            &mut self.blocks,
            &mut self.content,
        );
    }
}

impl Whole for Message {
    fn usage(&self) -> Usage {
        self.frame.usage
    }

    fn into_body(mut self: Box<Self>) -> Vec<u8> {
        self.blocks.finish(&mut self.content);
        let mut out = Vec::new();
        self.frame.push_head(&mut out);
        for (at, block) in self.content.blocks.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            block.push(&mut out);
        }
        out.extend_from_slice(b"],\"stop_reason\":\"");
        out.extend_from_slice(self.frame.stop_reason().as_bytes());
        out.extend_from_slice(b"\",\"stop_sequence\":null,\"usage\":");
        self.frame.push_usage(&mut out, 0);
        out.push(b'}');
        out
    }
}
