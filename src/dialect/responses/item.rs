//! One item of a response's output, as JSON.

use super::Asked;
use crate::json::{push_carried, push_key, push_string};

/// One item of the output.
pub struct Item {
    pub kind: ItemKind,
    pub id: String,
    pub call_id: String,
    /// Of a call: the name that the model read.
    pub name: String,
    pub text: String,
    pub seal: String,
    /// Of a text: where parts of it are from, written, with commas between them.
    pub annotations: Vec<u8>,
    pub cited: u64,
    pub status: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ItemKind {
    Message,
    Refusal,
    Reasoning,
    Function,
    Custom,
    Search,
    Image,
}

pub const UNFINISHED: &str = "in_progress";
pub const COMPLETED: &str = "completed";
pub const INCOMPLETE: &str = "incomplete";

impl Item {
    pub fn push(&self, out: &mut Vec<u8>, asked: &Asked) {
        push_key(out, b'{', "id");
        push_string(out, &self.id);
        match self.kind {
            ItemKind::Message | ItemKind::Refusal => {
                out.extend_from_slice(b",\"type\":\"message\",\"status\":");
                push_string(out, self.status);
                out.extend_from_slice(b",\"role\":\"assistant\",\"content\":[");
                if self.status != UNFINISHED {
                    self.push_part(out);
                }
                out.extend_from_slice(b"]}");
            }
            ItemKind::Reasoning => {
                out.extend_from_slice(b",\"type\":\"reasoning\",\"summary\":[");
                if self.status != UNFINISHED && !self.text.is_empty() {
                    self.push_part(out);
                }
                out.extend_from_slice(b"],\"encrypted_content\":");
                match self.seal.is_empty() {
                    true => out.extend_from_slice(b"null"),
                    false => push_string(out, &self.seal),
                }
                out.push(b'}');
            }
            ItemKind::Function | ItemKind::Custom | ItemKind::Search => self.push_call(out, asked),
            ItemKind::Image => {
                out.extend_from_slice(b",\"type\":\"image_generation_call\",\"status\":");
                push_string(out, self.status);
                push_key(out, b',', "result");
                match self.status == UNFINISHED {
                    true => out.extend_from_slice(b"null"),
                    false => push_string(out, &self.text),
                }
                out.push(b'}');
            }
        }
    }

    /// The part that a message or a piece of reasoning consists of.
    pub fn push_part(&self, out: &mut Vec<u8>) {
        match self.kind {
            ItemKind::Reasoning => {
                out.extend_from_slice(b"{\"type\":\"summary_text\",\"text\":");
                push_string(out, &self.text);
            }
            ItemKind::Refusal => {
                out.extend_from_slice(b"{\"type\":\"refusal\",\"refusal\":");
                push_string(out, &self.text);
            }
            _ => {
                out.extend_from_slice(b"{\"type\":\"output_text\",\"annotations\":[");
                out.extend_from_slice(&self.annotations);
                out.extend_from_slice(b"],\"logprobs\":[],\"text\":");
                push_string(out, &self.text);
            }
        }
        out.push(b'}');
    }

    fn push_call(&self, out: &mut Vec<u8>, asked: &Asked) {
        let kind = match self.kind {
            ItemKind::Custom => "custom_tool_call",
            ItemKind::Search => "tool_search_call",
            _ => "function_call",
        };
        push_key(out, b',', "type");
        push_string(out, kind);
        push_key(out, b',', "status");
        push_string(out, self.status);
        push_key(out, b',', "call_id");
        push_string(out, &self.call_id);
        let begun = self.status == UNFINISHED;
        if self.kind == ItemKind::Search {
            out.extend_from_slice(b",\"execution\":\"client\",\"arguments\":");
            match !begun && is_object(&self.text) {
                true => push_carried(out, self.text.trim()),
                false => out.extend_from_slice(b"{}"),
            }
            out.push(b'}');
            return;
        }
        let declared = asked.names.get(&self.name);
        push_key(out, b',', "name");
        push_string(out, declared.map_or(&self.name, |declared| &declared.name));
        if let Some(namespace) = declared.and_then(|declared| declared.namespace.as_deref()) {
            push_key(out, b',', "namespace");
            push_string(out, namespace);
        }
        match self.kind {
            ItemKind::Custom => push_key(out, b',', "input"),
            _ => push_key(out, b',', "arguments"),
        }
        push_string(out, if begun { "" } else { &self.text });
        out.push(b'}');
    }

    /// About what it takes.
    pub fn weight(&self) -> usize {
        size_of::<Item>()
            + self.id.len()
            + self.call_id.len()
            + self.name.len()
            + self.text.len()
            + self.seal.len()
    }
}

fn is_object(text: &str) -> bool {
    serde_json::from_str::<crate::json::Fields<'_>>(text).is_ok()
}
