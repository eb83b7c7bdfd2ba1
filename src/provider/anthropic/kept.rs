//! The blocks of an answer as they came, for a request that continues it.
//!
//! Only answers of requests whose tools the provider may run itself are kept: those can end with
//! `pause_turn`, and the whole of what was said goes back then.

use std::collections::BTreeMap;

use super::block::push_compact;
use super::parts::is_blank;
use super::wire::{Block, Delta};
use crate::json::{Fields, push_string};

/// An answer longer than this is not continued.
const LIMIT: usize = 16 << 20;

#[derive(Debug, Default)]
pub struct Kept {
    /// Finished blocks with commas between them.
    done: Vec<u8>,
    open: BTreeMap<u64, Open>,
    size: usize,
    /// Something could not be kept, so the rest is of no use.
    lost: bool,
}

/// A block that is still being streamed.
#[derive(Debug, Default)]
struct Open {
    start: String,
    text: String,
    thinking: String,
    signature: String,
    input: String,
    /// Citations with commas between them.
    citations: String,
}

impl Kept {
    pub fn start(&mut self, index: u64, block: &str) {
        self.stop(index);
        if self.grow(size_of::<Open>() + block.len()) {
            let open = Open {
                start: block.to_owned(),
                ..Open::default()
            };
            self.open.insert(index, open);
        }
    }

    pub fn delta(&mut self, index: u64, delta: &Delta<'_>) {
        let piece = match &*delta.r#type {
            "text_delta" => &*delta.text,
            "thinking_delta" => &delta.thinking,
            "signature_delta" => &delta.signature,
            "input_json_delta" => &delta.partial_json,
            "citations_delta" => delta.citation.map_or("", |raw| raw.get()),
            _ => return self.lose(),
        };
        if !self.grow(piece.len() + 1) {
            return;
        }
        let Some(open) = self.open.get_mut(&index) else {
            return self.lose();
        };
        match &*delta.r#type {
            "text_delta" => open.text.push_str(piece),
            "thinking_delta" => open.thinking.push_str(piece),
            "signature_delta" => open.signature.push_str(piece),
            "input_json_delta" => open.input.push_str(piece),
            _ if piece.is_empty() => {}
            _ => {
                if !open.citations.is_empty() {
                    open.citations.push(',');
                }
                open.citations.push_str(piece);
            }
        }
    }

    pub fn stop(&mut self, index: u64) {
        let Some(open) = self.open.remove(&index) else {
            return;
        };
        if open.close(&mut self.done).is_none() {
            self.lose();
        }
    }

    /// All blocks as the items of a JSON array, if all of them are here. Starts anew.
    pub fn take(&mut self) -> Option<Vec<u8>> {
        let open: Vec<u64> = self.open.keys().copied().collect();
        for index in open {
            self.stop(index);
        }
        let kept = std::mem::take(self);
        (!kept.lost && !kept.done.is_empty()).then_some(kept.done)
    }

    #[cfg(test)]
    pub fn size_now(&self) -> usize {
        let open: usize = self
            .open
            .values()
            .map(|o| o.text.len() + o.thinking.len())
            .sum();
        self.done.len() + open
    }

    fn grow(&mut self, bytes: usize) -> bool {
        self.size = self.size.saturating_add(bytes);
        if self.size > LIMIT {
            self.lose();
        }
        !self.lost
    }

    fn lose(&mut self) {
        *self = Kept {
            lost: true,
            ..Kept::default()
        };
    }
}

impl Open {
    /// Writes the block with what came after its start. `None` if that makes no sense.
    fn close(&self, out: &mut Vec<u8>) -> Option<()> {
        let fields: Fields<'_> = serde_json::from_str(&self.start).ok()?;
        let start: Block<'_> = serde_json::from_str(&self.start).ok()?;
        let is_text = &*start.r#type == "text";
        if is_text && is_blank(&start.text) && is_blank(&self.text) {
            // The provider itself says such text now and then, and refuses it.
            return Some(());
        }
        if !out.is_empty() {
            out.push(b',');
        }
        let grown = |key: &str| match key {
            "text" => Some((&start.text, &self.text)),
            "thinking" => Some((&start.thinking, &self.thinking)),
            "signature" => Some((&start.signature, &self.signature)),
            _ => None,
        };
        let grown = |key: &str| grown(key).filter(|(_, more)| !more.is_empty());
        out.push(b'{');
        let mut first = true;
        let mut member = |out: &mut Vec<u8>, key: &str| {
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            push_string(out, key);
            out.push(b':');
        };
        for (key, value) in &fields.0 {
            let replaced = match key.as_ref() {
                "citations" => is_text,
                "input" => !self.input.is_empty(),
                key => grown(key).is_some(),
            };
            if !replaced {
                member(out, key);
                push_compact(out, value.get());
            }
        }
        for key in ["text", "thinking", "signature"] {
            if let Some((head, more)) = grown(key) {
                member(out, key);
                push_string(out, &format!("{}{more}", &**head));
            }
        }
        if !self.input.is_empty() {
            serde_json::from_str::<&serde_json::value::RawValue>(&self.input).ok()?;
            member(out, "input");
            push_compact(out, &self.input);
        }
        let first_citations = start.citations.as_deref().unwrap_or_default();
        if is_text && !(first_citations.is_empty() && self.citations.is_empty()) {
            member(out, "citations");
            let mut all: Vec<&str> = first_citations.iter().map(|raw| raw.get()).collect();
            if !self.citations.is_empty() {
                all.push(&self.citations);
            }
            out.push(b'[');
            push_compact(out, &all.join(","));
            out.push(b']');
        }
        out.push(b'}');
        Some(())
    }
}

/// The body of a request that goes on from what was said.
pub fn continued(sent: &[u8], blocks: &[u8]) -> Option<Vec<u8>> {
    let fields: Fields<'_> = serde_json::from_slice(sent).ok()?;
    let messages = fields.get("messages")?.get().strip_suffix(']')?;
    let mut body = Vec::with_capacity(sent.len() + blocks.len() + 64);
    for (name, value) in &fields.0 {
        body.push(if body.is_empty() { b'{' } else { b',' });
        push_string(&mut body, name);
        body.push(b':');
        if name != "messages" {
            body.extend_from_slice(value.get().as_bytes());
            continue;
        }
        body.extend_from_slice(messages.as_bytes());
        if messages.trim_ascii_end() != "[" {
            body.push(b',');
        }
        body.extend_from_slice(br#"{"role":"assistant","content":["#);
        body.extend_from_slice(blocks);
        body.extend_from_slice(b"]}]");
    }
    body.push(b'}');
    Some(body)
}
