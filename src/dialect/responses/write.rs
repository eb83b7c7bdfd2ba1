//! Deltas as a Responses answer: the events of its stream, or one response.

use std::sync::Arc;

use super::tools::{Declared, Shape, unwrapped};
use super::{Asked, OPENING, Standing};
use crate::chat::{Delta, DeltaSink, FinishReason, Usage};
use crate::dialect::messages::blocks::{Blocks, Holder, Kind};
use crate::dialect::openai::CallIds;
use crate::dialect::{Streamed, Whole};
use crate::json::{push_carried, push_escaped, push_key, push_number, push_string};
use crate::seal::{Holds, Seals};
use std::sync::atomic::Ordering;

/// One item of the output.
struct Item {
    kind: ItemKind,
    id: String,
    call_id: String,
    /// Of a call: the name that the model read.
    name: String,
    text: String,
    seal: String,
    /// Of a text: where parts of it are from, written, with commas between them.
    annotations: Vec<u8>,
    cited: u64,
    status: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ItemKind {
    Message,
    Refusal,
    Reasoning,
    Function,
    Custom,
    Search,
    Image,
}

const UNFINISHED: &str = "in_progress";
const COMPLETED: &str = "completed";
const INCOMPLETE: &str = "incomplete";

impl Item {
    fn push(&self, out: &mut Vec<u8>, asked: &Asked) {
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
    fn push_part(&self, out: &mut Vec<u8>) {
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
    fn weight(&self) -> usize {
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

/// The items so far, of which the last one may be open, and the events about them.
struct Output {
    asked: Arc<Asked>,
    items: Vec<Item>,
    open: bool,
    /// Something of the open item was told.
    begun: bool,
    /// About what the items take.
    held: usize,
    /// The answer was cut off in the middle of its last item.
    is_cut: bool,
    tells: bool,
    bytes: Vec<u8>,
}

impl Output {
    fn new(asked: Arc<Asked>, tells: bool) -> Output {
        Output {
            asked,
            items: Vec::new(),
            open: false,
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

    fn event(&mut self, name: &str) {
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

    fn end(&mut self) {
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
        self.begun = false;
        self.tell_item("response.output_item.added");
    }

    /// A picture that the model made.
    fn image(&mut self, base64: &str) {
        self.add(ItemKind::Image, "", "");
        self.held += base64.len();
        if let Some(item) = self.items.last_mut() {
            base64.clone_into(&mut item.text);
        }
        self.close();
    }

    /// Where a part of the open text is from.
    fn cite(&mut self, url: &str, title: &str, start: u64, end: u64) {
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
    fn written(&self) -> Vec<u8> {
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
        // These have another form than what comes in, so they are told when they are whole.
        if self.tells && !matches!(kind, ItemKind::Custom | ItemKind::Search) {
            self.tell_delta(kind, text);
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
                let input = unwrapped(&item.text).into_owned();
                item.text = input;
                if self.tells {
                    let text = std::mem::take(&mut item.text);
                    if !text.is_empty() {
                        self.tell_delta(kind, &text);
                    }
                    if let Some(item) = self.items.last_mut() {
                        item.text = text;
                    }
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

/// An answer on its way from deltas to items.
struct Answer {
    seals: Arc<Seals>,
    seed: u64,
    ids: CallIds,
    blocks: Blocks,
    output: Output,
    usage: Usage,
    reason: Option<FinishReason>,
}

impl Answer {
    fn new(asked: Arc<Asked>, seals: Arc<Seals>, seed: u64, tells: bool) -> Answer {
        Answer {
            seals,
            seed,
            ids: CallIds::default(),
            blocks: Blocks::default(),
            output: Output::new(asked, tells),
            usage: Usage::default(),
            reason: None,
        }
    }

    /// Takes what the first candidate says; this format has one.
    fn put(&mut self, delta: &Delta<'_>) {
        let (blocks, out) = (&mut self.blocks, &mut self.output);
        match delta {
            Delta::Usage(usage) => self.usage.merge(*usage),
            Delta::Finish {
                candidate: 0,
                reason,
            } => self.reason = Some(*reason),
            Delta::Text { candidate: 0, text } => blocks.text(Kind::Text, text, out),
            Delta::Refusal { candidate: 0, text } => blocks.text(Kind::Refusal, text, out),
            Delta::Reasoning { candidate: 0, text } => blocks.text(Kind::Thinking, text, out),
            Delta::ToolStart {
                candidate: 0,
                index,
                id,
                name,
                google_signature,
                ..
            } => {
                let seal = google_signature
                    .and_then(|signature| self.seals.seal(Holds::CallSignature, signature));
                if let Some(seal) = seal {
                    blocks.seal(&seal, out);
                }
                let id = self.ids.next(id, self.seed, 0, blocks.next_call());
                blocks.call(*index, &id, name, out);
            }
            Delta::ToolArgs {
                candidate: 0,
                index,
                fragment,
            } => blocks.arguments(*index, fragment, out),
            Delta::Extra { candidate: 0, json } => {
                if let Some(seal) = self.seals.seal(Holds::Extra, json) {
                    blocks.seal(&seal, out);
                }
            }
            Delta::Citation {
                candidate: 0,
                url,
                title,
                start,
                end,
            } => out.cite(url, title, *start, *end),
            Delta::Image {
                candidate: 0,
                base64,
                ..
            } if blocks.settle(out) => out.image(base64),
            _ => {}
        }
    }

    /// Ends the last item. How the answer stands then.
    fn finish(&mut self) -> Standing<'static> {
        self.output.is_cut = self.reason == Some(FinishReason::Length);
        self.blocks.finish(&mut self.output);
        match self.reason {
            Some(FinishReason::Length) => Standing::Incomplete("max_output_tokens"),
            Some(FinishReason::ContentFilter) => Standing::Incomplete("content_filter"),
            _ => Standing::Completed,
        }
    }

    /// The whole of it, kept where the caller wants that.
    fn whole(&self, standing: Standing<'_>) -> Vec<u8> {
        let asked = &self.output.asked;
        let mut out = Vec::new();
        asked.push_response(&mut out, standing, &self.output.written(), self.usage);
        if let Some(keep) = &asked.keep {
            keep(&asked.id, out.clone());
        }
        out
    }
}

/// Writes a stream, behind the events that open it.
pub struct Events {
    answer: Answer,
    finished: bool,
}

impl Events {
    pub fn new(asked: Arc<Asked>, seals: Arc<Seals>, seed: u64) -> Events {
        // What an attempt that came to nothing counted was not sent.
        asked.sequence.store(OPENING, Ordering::Relaxed);
        Events {
            answer: Answer::new(asked, seals, seed, true),
            finished: false,
        }
    }
}

impl DeltaSink for Events {
    fn put(&mut self, delta: Delta<'_>) {
        self.answer.put(&delta);
    }
}

impl Streamed for Events {
    fn bytes(&self) -> &[u8] {
        &self.answer.output.bytes
    }

    fn clear(&mut self) {
        self.answer.output.bytes.clear();
    }

    fn finish(&mut self) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        let standing = self.answer.finish();
        let whole = self.answer.whole(standing);
        let output = &mut self.answer.output;
        output.event(match standing {
            Standing::Incomplete(_) => "response.incomplete",
            _ => "response.completed",
        });
        push_key(&mut output.bytes, b',', "response");
        output.bytes.extend_from_slice(&whole);
        output.end();
    }

    fn usage(&self) -> Usage {
        self.answer.usage
    }

    fn held(&self) -> usize {
        self.answer.blocks.held() + self.answer.output.held
    }
}

/// Collects a response that goes out in one piece.
pub struct Response(Answer);

impl Response {
    pub fn new(asked: Arc<Asked>, seals: Arc<Seals>, seed: u64) -> Response {
        Response(Answer::new(asked, seals, seed, false))
    }
}

impl DeltaSink for Response {
    fn put(&mut self, delta: Delta<'_>) {
        self.0.put(&delta);
    }
}

impl Whole for Response {
    fn usage(&self) -> Usage {
        self.0.usage
    }

    fn into_body(mut self: Box<Self>) -> Vec<u8> {
        let standing = self.0.finish();
        self.0.whole(standing)
    }
}
