//! The messages of a chat request, written while the items of a Responses request are read.

use std::collections::HashMap;

use super::tools::Tools;
use crate::dialect::messages::request::Dropped;
use crate::json::{push_key, push_string};
use crate::seal::Seals;

/// Writes the messages, one item after the other.
///
/// What the model said stands in several items, and in one message here. What a user says is kept
/// until the model's next item, so that results stand right behind their calls.
pub struct Turns<'t, 'l> {
    pub(super) seals: &'t Seals,
    pub(super) tools: &'t mut Tools<'l>,
    pub(super) dropped: &'t mut Dropped,
    out: Vec<u8>,
    /// The prompt, until the first message is written.
    system: String,
    /// Parts of the user's turn, written.
    pub(super) parts: Vec<Vec<u8>>,
    pub(super) said: Said,
    results: Vec<Outcome>,
    /// Calls without a result, and the order in which they were made.
    open: HashMap<String, usize>,
    pub(super) begun: bool,
}

/// What the model said since the user did.
#[derive(Default)]
pub(super) struct Said {
    pub texts: Vec<String>,
    pub thoughts: String,
    pub calls: Vec<Vec<u8>>,
    /// Pictures that the model made, written.
    pub images: Vec<Vec<u8>>,
    pub ids: Vec<String>,
    /// Of the call that comes next.
    pub signature: Option<String>,
    pub extra: Option<String>,
}

struct Outcome {
    /// Where its call stood among those of its message.
    place: usize,
    id: String,
    text: String,
}

impl<'t, 'l> Turns<'t, 'l> {
    pub fn new(
        seals: &'t Seals,
        tools: &'t mut Tools<'l>,
        dropped: &'t mut Dropped,
    ) -> Turns<'t, 'l> {
        Turns {
            seals,
            tools,
            dropped,
            out: Vec::new(),
            system: String::new(),
            parts: Vec::new(),
            said: Said::default(),
            results: Vec::new(),
            open: HashMap::new(),
            begun: false,
        }
    }

    /// The messages, with commas between them.
    pub fn finish(mut self) -> Vec<u8> {
        self.end_said();
        self.end_results();
        self.end_parts();
        self.end_prompt();
        self.out
    }

    /// An instruction. Before all else it is part of the prompt; later it stands in the user's turn,
    /// marked, because many models take a prompt at the beginning only.
    pub fn system(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        if !self.begun {
            if !self.system.is_empty() {
                self.system.push_str("\n\n");
            }
            self.system.push_str(text);
            return;
        }
        self.end_said();
        self.text(&format!("<system>\n{text}\n</system>"));
    }

    pub fn user(&mut self, text: &str) {
        self.begun = true;
        self.end_said();
        if !text.is_empty() {
            self.text(text);
        }
    }

    /// A result that no call asked for is told as text.
    pub(super) fn result(&mut self, id: String, text: String) {
        if let Some(place) = self.open.remove(&id) {
            self.results.push(Outcome { place, id, text });
            return;
        }
        self.begun = true;
        self.dropped.add("input.function_call_output.call_id");
        self.text(&format!("[a tool's result]\n{text}"));
    }

    pub(super) fn text(&mut self, text: &str) {
        let mut part = Vec::with_capacity(text.len() + 32);
        part.extend_from_slice(b"{\"type\":\"text\",\"text\":");
        push_string(&mut part, text);
        part.push(b'}');
        self.parts.push(part);
    }

    /// A message up to its content.
    fn begin(&mut self, role: &str) {
        if !self.out.is_empty() {
            self.out.push(b',');
        }
        push_key(&mut self.out, b'{', "role");
        push_string(&mut self.out, role);
        push_key(&mut self.out, b',', "content");
    }

    fn end_prompt(&mut self) {
        if !self.system.is_empty() {
            let text = std::mem::take(&mut self.system);
            self.begin("system");
            push_string(&mut self.out, &text);
            self.out.push(b'}');
        }
    }

    /// The model goes on: what stands before that is written.
    pub(super) fn end_user(&mut self) {
        if !self.results.is_empty() || !self.parts.is_empty() {
            self.end_results();
            self.end_parts();
        }
    }

    /// Writes results in the order of their calls.
    fn end_results(&mut self) {
        let mut results = std::mem::take(&mut self.results);
        results.sort_by_key(|result| result.place);
        for result in results {
            self.begin("tool");
            push_string(&mut self.out, &result.text);
            push_key(&mut self.out, b',', "tool_call_id");
            push_string(&mut self.out, &result.id);
            self.out.push(b'}');
        }
    }

    /// Writes what the user said besides results.
    fn end_parts(&mut self) {
        /// What stands before the text of a part that is only text.
        const BEFORE: usize = b"{\"type\":\"text\",\"text\":".len();
        let parts = std::mem::take(&mut self.parts);
        if parts.is_empty() {
            return;
        }
        self.end_prompt();
        self.begin("user");
        match parts.as_slice() {
            [part] if part.starts_with(b"{\"type\":\"text\"") => {
                self.out.extend_from_slice(&part[BEFORE..part.len() - 1]);
            }
            parts => {
                self.out.push(b'[');
                for (at, part) in parts.iter().enumerate() {
                    if at > 0 {
                        self.out.push(b',');
                    }
                    self.out.extend_from_slice(part);
                }
                self.out.push(b']');
            }
        }
        self.out.push(b'}');
    }

    /// Writes what the model said.
    pub(super) fn end_said(&mut self) {
        let said = std::mem::take(&mut self.said);
        if said.texts.is_empty() && said.calls.is_empty() && said.images.is_empty() {
            // Thoughts alone are no message for most.
            return;
        }
        self.end_prompt();
        // Calls without a result by now have none.
        self.open.clear();
        self.begin("assistant");
        // Beside what a vendor says of the whole, by places in it, the text stands as it was.
        let between = match said.extra {
            Some(_) => "",
            None => "\n",
        };
        match said.texts.is_empty() {
            true => self.out.extend_from_slice(b"null"),
            false => push_string(&mut self.out, &said.texts.join(between)),
        }
        if !said.thoughts.is_empty() {
            push_key(&mut self.out, b',', "reasoning_content");
            push_string(&mut self.out, &said.thoughts);
        }
        for (at, call) in said.calls.iter().enumerate() {
            match at {
                0 => self.out.extend_from_slice(b",\"tool_calls\":["),
                _ => self.out.push(b','),
            }
            self.out.extend_from_slice(call);
        }
        if !said.calls.is_empty() {
            self.out.push(b']');
        }
        for (at, image) in said.images.iter().enumerate() {
            match at {
                0 => self.out.extend_from_slice(b",\"images\":["),
                _ => self.out.push(b','),
            }
            self.out.extend_from_slice(image);
        }
        if !said.images.is_empty() {
            self.out.push(b']');
        }
        if let Some(extra) = &said.extra {
            push_key(&mut self.out, b',', "extra_content");
            self.out.extend_from_slice(extra.as_bytes());
        }
        self.out.push(b'}');
        for (at, id) in said.ids.into_iter().enumerate() {
            self.open.insert(id, at);
        }
    }
}
