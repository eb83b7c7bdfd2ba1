//! The items of an answer as they come, and the events about them.

use std::sync::Arc;

use super::Asked;
use super::item::{COMPLETED, INCOMPLETE, Item, ItemKind, UNFINISHED};
use super::tools::{Declared, Shape};
use super::unwrap::Unwrap;
use crate::dialect::messages::blocks::{Holder, Kind};
use crate::json::{push_escaped, push_key, push_number, push_string};

/// The items so far, of which the last one may be open, and the events about them.
pub struct Output {
    pub asked: Arc<Asked>,
    items: Vec<Item>,
    open: bool,
    /// Of the open item, if it is a call of a free-form tool.
    unwrap: Unwrap,
    /// Something of the open item was told.
    begun: bool,
    /// About what the items take.
    pub held: usize,
    /// The answer was cut off in the middle of its last item.
    pub is_cut: bool,
    tells: bool,
    pub bytes: Vec<u8>,
}

impl Output {
    pub fn new(asked: Arc<Asked>, tells: bool) -> Output {
        Output {
            asked,
            items: Vec::new(),
            open: false,
            unwrap: Unwrap::default(),
            begun: false,
            held: 0,
            is_cut: false,
            tells,
            bytes: Vec::new(),
        }
    }

    fn index(&self) -> u64 {
        self.items.len().saturating_sub(1) as u64
    }

    pub fn event(&mut self, name: &str) {
        self.asked.begin(&mut self.bytes, name, self.asked.next());
    }

    /// An event about the last item.
    fn about(&mut self, name: &str) {
        self.event(name);
        push_key(&mut self.bytes, b',', "item_id");
        if let Some(item) = self.items.last() {
            push_string(&mut self.bytes, &item.id);
        }
        push_key(&mut self.bytes, b',', "output_index");
        let index = self.index();
        push_number(&mut self.bytes, index);
    }

    pub fn end(&mut self) {
        self.bytes.extend_from_slice(b"}\n\n");
    }

    /// `output_item.added` or `.done`.
    fn tell_item(&mut self, name: &str) {
        if !self.tells {
            return;
        }
        self.event(name);
        push_key(&mut self.bytes, b',', "output_index");
        let index = self.index();
        push_number(&mut self.bytes, index);
        push_key(&mut self.bytes, b',', "item");
        if let Some(item) = self.items.last() {
            item.push(&mut self.bytes, &self.asked);
        }
        self.end();
    }

    /// The last item's part: `*.added` or `*.done`.
    fn tell_part(&mut self, name: &str, place: &str) {
        self.about(name);
        push_key(&mut self.bytes, b',', place);
        self.bytes.extend_from_slice(b"0,\"part\":");
        if let Some(item) = self.items.last() {
            item.push_part(&mut self.bytes);
        }
        self.end();
    }

    fn tell_delta(&mut self, kind: ItemKind, text: &str) {
        let (name, place) = match kind {
            ItemKind::Message => ("response.output_text.delta", Some("content_index")),
            ItemKind::Refusal => ("response.refusal.delta", Some("content_index")),
            ItemKind::Reasoning => (
                "response.reasoning_summary_text.delta",
                Some("summary_index"),
            ),
            ItemKind::Custom => ("response.custom_tool_call_input.delta", None),
            _ => ("response.function_call_arguments.delta", None),
        };
        self.about(name);
        if let Some(place) = place {
            push_key(&mut self.bytes, b',', place);
            self.bytes.push(b'0');
        }
        self.bytes.extend_from_slice(b",\"delta\":\"");
        push_escaped(&mut self.bytes, text);
        self.bytes.push(b'"');
        if kind == ItemKind::Message {
            self.bytes.extend_from_slice(b",\"logprobs\":[]");
        }
        self.end();
    }

    /// What ends the text of the last item.
    fn tell_done(&mut self, kind: ItemKind) {
        let (name, key, place) = match kind {
            ItemKind::Message => ("response.output_text.done", "text", Some("content_index")),
            ItemKind::Refusal => ("response.refusal.done", "refusal", Some("content_index")),
            ItemKind::Reasoning => (
                "response.reasoning_summary_text.done",
                "text",
                Some("summary_index"),
            ),
            ItemKind::Custom => ("response.custom_tool_call_input.done", "input", None),
            _ => ("response.function_call_arguments.done", "arguments", None),
        };
        self.about(name);
        if let Some(place) = place {
            push_key(&mut self.bytes, b',', place);
            self.bytes.push(b'0');
        }
        if kind == ItemKind::Function
            && let Some(item) = self.items.last()
        {
            push_key(&mut self.bytes, b',', "name");
            let declared = self.asked.names.get(&item.name);
            let name = declared.map_or(&item.name, |declared| &declared.name);
            push_string(&mut self.bytes, name);
        }
        push_key(&mut self.bytes, b',', key);
        if let Some(item) = self.items.last() {
            push_string(&mut self.bytes, &item.text);
        }
        if kind == ItemKind::Message {
            self.bytes.extend_from_slice(b",\"logprobs\":[]");
        }
        self.end();
    }

    fn add(&mut self, kind: ItemKind, call_id: &str, name: &str) {
        let prefix = match kind {
            ItemKind::Message | ItemKind::Refusal => "msg",
            ItemKind::Reasoning => "rs",
            ItemKind::Function => "fc",
            ItemKind::Custom => "ctc",
            ItemKind::Search => "tsc",
            ItemKind::Image => "ig",
        };
        let item = Item {
            kind,
            id: self.asked.item_id(prefix, self.items.len()),
            call_id: call_id.to_owned(),
            name: name.to_owned(),
            text: String::new(),
            seal: String::new(),
            annotations: Vec::new(),
            cited: 0,
            status: UNFINISHED,
        };
        self.held += item.weight();
        self.items.push(item);
        self.open = true;
        self.unwrap = Unwrap::default();
        self.begun = false;
        self.tell_item("response.output_item.added");
    }

    /// A picture that the model made.
    pub fn image(&mut self, base64: &str) {
        self.add(ItemKind::Image, "", "");
        self.held += base64.len();
        if let Some(item) = self.items.last_mut() {
            base64.clone_into(&mut item.text);
        }
        self.close();
    }

    /// Where a part of the open text is from.
    pub fn cite(&mut self, url: &str, title: &str, start: u64, end: u64) {
        let is_open = self.open && self.begun;
        let Some(item) = self.items.last_mut().filter(|_| is_open) else {
            return;
        };
        if item.kind != ItemKind::Message {
            return;
        }
        let mut annotation = Vec::with_capacity(url.len() + title.len() + 96);
        annotation.extend_from_slice(b"{\"type\":\"url_citation\",\"start_index\":");
        push_number(&mut annotation, start);
        push_key(&mut annotation, b',', "end_index");
        push_number(&mut annotation, end);
        push_key(&mut annotation, b',', "url");
        push_string(&mut annotation, url);
        push_key(&mut annotation, b',', "title");
        push_string(&mut annotation, title);
        annotation.push(b'}');
        let number = item.cited;
        item.cited += 1;
        if !item.annotations.is_empty() {
            item.annotations.push(b',');
        }
        item.annotations.extend_from_slice(&annotation);
        self.held += annotation.len();
        if self.tells {
            self.about("response.output_text.annotation.added");
            push_key(&mut self.bytes, b',', "content_index");
            self.bytes.push(b'0');
            push_key(&mut self.bytes, b',', "annotation_index");
            push_number(&mut self.bytes, number);
            push_key(&mut self.bytes, b',', "annotation");
            self.bytes.extend_from_slice(&annotation);
            self.end();
        }
    }

    /// All items, with commas between them.
    pub fn written(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.held + self.held / 8);
        for (at, item) in self.items.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            item.push(&mut out, &self.asked);
        }
        out
    }
}

impl Holder for Output {
    fn open(&mut self, kind: Kind, id: &str, name: &str) {
        let kind = match kind {
            Kind::Text => ItemKind::Message,
            Kind::Refusal => ItemKind::Refusal,
            Kind::Thinking => ItemKind::Reasoning,
            Kind::Call => match self.asked.names.get(name) {
                Some(Declared {
                    shape: Shape::Custom,
                    ..
                }) => ItemKind::Custom,
                Some(Declared {
                    shape: Shape::Search,
                    ..
                }) => ItemKind::Search,
                _ => ItemKind::Function,
            },
        };
        self.add(kind, id, name);
    }

    fn more(&mut self, _: Kind, text: &str) {
        let Some(item) = self.items.last_mut().filter(|_| !text.is_empty()) else {
            return;
        };
        let kind = item.kind;
        let is_first = !std::mem::replace(&mut self.begun, true);
        if self.tells && is_first {
            match kind {
                ItemKind::Message | ItemKind::Refusal => {
                    self.tell_part("response.content_part.added", "content_index");
                }
                ItemKind::Reasoning => {
                    self.tell_part("response.reasoning_summary_part.added", "summary_index");
                }
                _ => {}
            }
        }
        self.held += text.len();
        if let Some(item) = self.items.last_mut() {
            item.text.push_str(text);
        }
        if !self.tells {
            return;
        }
        match kind {
            // It has another form than what comes in, so it is told when it is whole.
            ItemKind::Search => {}
            ItemKind::Custom => {
                let input = self.unwrap.take(text);
                if !input.is_empty() {
                    self.tell_delta(kind, &input);
                }
            }
            _ => self.tell_delta(kind, text),
        }
    }

    fn seal(&mut self, seal: &str) {
        self.held += seal.len();
        if let Some(item) = self.items.last_mut() {
            seal.clone_into(&mut item.seal);
        }
    }

    fn close(&mut self) {
        if !std::mem::replace(&mut self.open, false) {
            return;
        }
        let Some(item) = self.items.last_mut() else {
            return;
        };
        let kind = item.kind;
        match kind {
            ItemKind::Custom => {
                if !self.tells {
                    // A whole answer says the same as a stream of it.
                    self.unwrap.take(&item.text);
                }
                let (rest, input) = self.unwrap.finish(&item.text);
                item.text = input;
                if self.tells && !rest.is_empty() {
                    self.tell_delta(kind, &rest);
                }
            }
            // Programs parse what a call has, and nothing is no JSON.
            ItemKind::Function if item.text.trim().is_empty() && !self.is_cut => {
                "{}".clone_into(&mut item.text);
                if self.tells {
                    self.tell_delta(kind, "{}");
                }
            }
            _ => {}
        }
        if self.tells {
            match kind {
                ItemKind::Message | ItemKind::Refusal if self.begun => {
                    self.tell_done(kind);
                    self.tell_part("response.content_part.done", "content_index");
                }
                ItemKind::Reasoning if self.begun => {
                    self.tell_done(kind);
                    self.tell_part("response.reasoning_summary_part.done", "summary_index");
                }
                ItemKind::Function | ItemKind::Custom => self.tell_done(kind),
                _ => {}
            }
        }
        if let Some(item) = self.items.last_mut() {
            item.status = match self.is_cut {
                true => INCOMPLETE,
                false => COMPLETED,
            };
        }
        self.tell_item("response.output_item.done");
    }
}
