//! The history of a Messages request as messages of a chat request.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use serde_json::value::RawValue;

use super::request::Dropped;
use crate::chat::ERROR_MARK;
use crate::dialect::openai::read::{Object, Path, array, is_string, string};
use crate::error::ApiError;
use crate::json::{push_key, push_string};
use crate::seal::{Holds, Seals};

/// Writes the messages, one turn after the other.
///
/// What a user's message holds besides results is kept until the model's next message, so that
/// results stand right behind their calls and no two messages of the user follow each other.
pub struct Turns<'t> {
    seals: &'t Seals,
    dropped: &'t mut Dropped,
    out: Vec<u8>,
    /// The prompt, until the first message is written.
    system: String,
    /// Parts of the user's turn, written, and whether any of them is more than text.
    parts: Vec<Vec<u8>>,
    /// Calls without a result, and the order in which the last message made them.
    open: HashMap<String, usize>,
    failed: HashSet<String>,
    begun: bool,
}

/// One result, until all of its message are known.
struct Outcome {
    id: String,
    text: String,
}

impl<'t> Turns<'t> {
    pub fn new(seals: &'t Seals, dropped: &'t mut Dropped) -> Turns<'t> {
        Turns {
            seals,
            dropped,
            out: Vec::new(),
            system: String::new(),
            parts: Vec::new(),
            open: HashMap::new(),
            failed: HashSet::new(),
            begun: false,
        }
    }

    /// The messages, and the calls whose results are errors.
    pub fn finish(mut self) -> (Vec<u8>, HashSet<String>) {
        self.end_turn();
        self.end_prompt();
        (self.out, self.failed)
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
        self.text(&format!("<system>\n{text}\n</system>"));
    }

    fn end_prompt(&mut self) {
        if !self.system.is_empty() {
            let text = std::mem::take(&mut self.system);
            self.begin("system");
            push_string(&mut self.out, &text);
            self.out.push(b'}');
        }
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

    fn text(&mut self, text: &str) {
        let mut part = Vec::with_capacity(text.len() + 32);
        part.extend_from_slice(b"{\"type\":\"text\",\"text\":");
        push_string(&mut part, text);
        part.push(b'}');
        self.parts.push(part);
    }

    /// Writes what the user said besides results.
    fn end_turn(&mut self) {
        /// What stands before the text of a part that is only text, and behind it.
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

    pub fn user(&mut self, message: &Object<'_, '_>) -> Result<(), ApiError> {
        self.begun = true;
        let path = message.path.key("content");
        let Some(raw) = message.get("content") else {
            return Err(path.invalid("is required"));
        };
        if is_string(raw) {
            let text = string(raw, &path)?;
            if !text.is_empty() {
                self.text(&text);
            }
            return Ok(());
        }
        let mut results = Vec::new();
        // What results show stands behind them, before the rest of the message.
        let mut rest = Vec::new();
        for (at, raw) in array(raw, &path)?.into_iter().enumerate() {
            let path = path.index(at);
            let block = Object::read(raw, &path)?;
            let kind = block.required_string("type")?;
            match &*kind {
                "tool_result" => results.push(self.result(&block)?),
                _ => rest.push((kind, block.fields, at)),
            }
        }
        self.results(results);
        for (kind, fields, at) in rest {
            let path = path.index(at);
            let block = Object {
                fields,
                path: &path,
            };
            self.shown(&kind, &block)?;
        }
        Ok(())
    }

    /// A block that the model is shown.
    fn shown(&mut self, kind: &str, block: &Object<'_, '_>) -> Result<(), ApiError> {
        match kind {
            "image" | "document" => match media(kind, block)? {
                Media::Part(part) => self.parts.push(part),
                Media::Text(text) => self.text(&text),
                Media::Foreign => self.dropped.add(&format!("messages.content.{kind}")),
            },
            _ => match words(kind, block)? {
                Some(text) if text.is_empty() => {}
                Some(text) => self.text(&text),
                None => self.dropped.add(&format!("messages.content.{kind}")),
            },
        }
        Ok(())
    }

    /// One result: its text; what else it shows goes into the user's turn.
    fn result(&mut self, block: &Object<'_, '_>) -> Result<Outcome, ApiError> {
        let id = block.required_string("tool_use_id")?.into_owned();
        let path = block.path.key("content");
        let mut text = String::new();
        match block.get("content") {
            None => {}
            Some(raw) if is_string(raw) => text = string(raw, &path)?.into_owned(),
            Some(raw) => {
                for (at, raw) in array(raw, &path)?.into_iter().enumerate() {
                    let path = path.index(at);
                    let inner = Object::read(raw, &path)?;
                    let kind = inner.required_string("type")?;
                    let said = match &*kind {
                        "image" | "document" => {
                            let before = self.parts.len();
                            self.shown(&kind, &inner)?;
                            let what = match &*kind {
                                "image" => "the image",
                                _ => "the document",
                            };
                            // Most formats have no place for it in a result.
                            (self.parts.len() > before)
                                .then(|| Cow::Owned(format!("[{what} follows]")))
                        }
                        _ => {
                            let said = words(&kind, &inner)?;
                            if said.is_none() {
                                self.dropped.add(&format!("messages.content.{kind}"));
                            }
                            said
                        }
                    };
                    let Some(said) = said.filter(|said| !said.is_empty()) else {
                        continue;
                    };
                    if !text.is_empty() {
                        text.push('\n');
                    }
                    text.push_str(&said);
                }
            }
        }
        if block.boolean("is_error")? == Some(true) {
            text.insert_str(0, ERROR_MARK);
            self.failed.insert(id.clone());
        }
        Ok(Outcome { id, text })
    }

    /// Writes results in the order of their calls. One that no call asked for is told as text.
    fn results(&mut self, mut results: Vec<Outcome>) {
        results.sort_by_key(|result| self.open.get(&result.id).copied().unwrap_or(usize::MAX));
        for result in results {
            if self.open.remove(&result.id).is_none() {
                self.failed.remove(&result.id);
                self.dropped.add("messages.content.tool_result.tool_use_id");
                self.text(&format!("[a tool's result]\n{}", result.text));
                continue;
            }
            self.begin("tool");
            push_string(&mut self.out, &result.text);
            push_key(&mut self.out, b',', "tool_call_id");
            push_string(&mut self.out, &result.id);
            self.out.push(b'}');
        }
    }

    pub fn assistant(&mut self, message: &Object<'_, '_>) -> Result<(), ApiError> {
        self.begun = true;
        let path = message.path.key("content");
        let Some(raw) = message.get("content") else {
            return Err(path.invalid("is required"));
        };
        let mut said = Said::default();
        if is_string(raw) {
            said.text = string(raw, &path)?.into_owned();
        } else {
            for (at, raw) in array(raw, &path)?.into_iter().enumerate() {
                let path = path.index(at);
                let block = Object::read(raw, &path)?;
                let kind = block.required_string("type")?;
                self.assistant_block(&kind, &block, &mut said)?;
            }
        }
        if said.text.is_empty() && said.calls.is_empty() {
            // Thoughts alone are no message for most.
            return Ok(());
        }
        self.end_turn();
        self.end_prompt();
        self.open.clear();
        self.begin("assistant");
        match said.text.is_empty() {
            true => self.out.extend_from_slice(b"null"),
            false => push_string(&mut self.out, &said.text),
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
        if let Some(extra) = &said.extra {
            push_key(&mut self.out, b',', "extra_content");
            self.out.extend_from_slice(extra.as_bytes());
        }
        self.out.push(b'}');
        for (at, id) in said.ids.into_iter().enumerate() {
            self.open.insert(id, at);
        }
        Ok(())
    }

    fn assistant_block(
        &mut self,
        kind: &str,
        block: &Object<'_, '_>,
        said: &mut Said,
    ) -> Result<(), ApiError> {
        match kind {
            "text" => said
                .text
                .push_str(&block.string("text")?.unwrap_or_default()),
            "thinking" => {
                let thought = block.string("thinking")?.unwrap_or_default();
                if !thought.is_empty() && !said.thoughts.is_empty() {
                    said.thoughts.push_str("\n\n");
                }
                said.thoughts.push_str(&thought);
                let seal = block.string("signature")?;
                self.open_seal(seal.as_deref().unwrap_or_default(), said);
            }
            "redacted_thinking" => {
                let seal = block.string("data")?;
                self.open_seal(seal.as_deref().unwrap_or_default(), said);
            }
            "tool_use" => {
                let id = block.required_string("id")?;
                if id.is_empty() {
                    return Err(block.path.key("id").invalid("must not be empty"));
                }
                let mut call = Vec::with_capacity(128);
                push_key(&mut call, b'{', "id");
                push_string(&mut call, &id);
                call.extend_from_slice(b",\"type\":\"function\",\"function\":{\"name\":");
                push_string(&mut call, &block.required_string("name")?);
                push_key(&mut call, b',', "arguments");
                let input = block.get("input").map_or("{}", RawValue::get);
                push_string(&mut call, input);
                call.push(b'}');
                if let Some(signature) = said.signature.take() {
                    call.extend_from_slice(
                        b",\"extra_content\":{\"google\":{\"thought_signature\":",
                    );
                    push_string(&mut call, &signature);
                    call.extend_from_slice(b"}}");
                }
                call.push(b'}');
                said.calls.push(call);
                said.ids.push(id.into_owned());
            }
            // What the provider's own tools did, which no other one can go on from.
            other => self.dropped.add(&format!("messages.content.{other}")),
        }
        Ok(())
    }

    /// What another provider signed comes back to it; what Claude signed is Claude's alone.
    fn open_seal(&self, seal: &str, said: &mut Said) {
        match self.seals.open(seal) {
            Some((Holds::CallSignature, signature)) => said.signature = Some(signature),
            Some((Holds::Extra, json)) if is_object(&json) => said.extra = Some(json),
            _ => {}
        }
    }
}

fn is_object(json: &str) -> bool {
    serde_json::from_str::<crate::json::Fields<'_>>(json).is_ok()
}

/// What one message of the model holds.
#[derive(Default)]
struct Said {
    text: String,
    thoughts: String,
    calls: Vec<Vec<u8>>,
    ids: Vec<String>,
    /// Of the call that comes next.
    signature: Option<String>,
    extra: Option<String>,
}

/// The words of a block; `None` for one that has none that would make sense elsewhere.
fn words<'a>(kind: &str, block: &Object<'a, '_>) -> Result<Option<Cow<'a, str>>, ApiError> {
    Ok(Some(match kind {
        "text" => block.string("text")?.unwrap_or_default(),
        "tool_reference" => {
            let name = block.string("tool_name")?.unwrap_or_default();
            Cow::Owned(format!("The tool {name} is available now."))
        }
        "search_result" => {
            let title = block.string("title")?.unwrap_or_default();
            let source = block.string("source")?.unwrap_or_default();
            let content = match block.get("content") {
                Some(raw) => text_of(raw, &block.path.key("content"))?,
                None => String::new(),
            };
            Cow::Owned(format!("{title}\n{source}\n{content}"))
        }
        _ => return Ok(None),
    }))
}

/// The text of a string or of a list of blocks, as far as they have one.
pub fn text_of(raw: &RawValue, path: &Path<'_>) -> Result<String, ApiError> {
    if is_string(raw) {
        return Ok(string(raw, path)?.into_owned());
    }
    let mut whole = String::new();
    for (at, raw) in array(raw, path)?.into_iter().enumerate() {
        let path = path.index(at);
        let block = Object::read(raw, &path)?;
        let text = block.string("text")?.unwrap_or_default();
        if !text.is_empty() && !whole.is_empty() {
            whole.push('\n');
        }
        whole.push_str(&text);
    }
    Ok(whole)
}

/// An image or a document, as others take it.
enum Media {
    Part(Vec<u8>),
    Text(String),
    /// It lies with the caller's own provider.
    Foreign,
}

fn media(kind: &str, block: &Object<'_, '_>) -> Result<Media, ApiError> {
    let path = block.path.key("source");
    let Some(raw) = block.get("source") else {
        return Err(path.invalid("is required"));
    };
    let source = Object::read(raw, &path)?;
    let is_image = kind == "image";
    let mut part = Vec::new();
    match &*source.required_string("type")? {
        "base64" => {
            let data = source.required_string("data")?;
            let mime = match source.string("media_type")? {
                Some(mime) => mime,
                None if is_image => Cow::Borrowed("image/png"),
                None => Cow::Borrowed("application/pdf"),
            };
            part.reserve(data.len() + 128);
            match is_image {
                true => part.extend_from_slice(b"{\"type\":\"image_url\",\"image_url\":{\"url\":"),
                false => {
                    part.extend_from_slice(b"{\"type\":\"file\",\"file\":{\"filename\":");
                    let title = block.string("title")?;
                    let title = title.filter(|title| !title.is_empty());
                    push_string(&mut part, title.as_deref().unwrap_or("document.pdf"));
                    push_key(&mut part, b',', "file_data");
                }
            }
            push_string(&mut part, &format!("data:{mime};base64,{data}"));
            part.extend_from_slice(b"}}");
            Ok(Media::Part(part))
        }
        "url" if is_image => {
            part.extend_from_slice(b"{\"type\":\"image_url\",\"image_url\":{\"url\":");
            push_string(&mut part, &source.required_string("url")?);
            part.extend_from_slice(b"}}");
            Ok(Media::Part(part))
        }
        "text" => Ok(Media::Text(source.required_string("data")?.into_owned())),
        "content" => {
            let path = path.key("content");
            Ok(match source.get("content") {
                Some(raw) => Media::Text(text_of(raw, &path)?),
                None => Media::Foreign,
            })
        }
        _ => Ok(Media::Foreign),
    }
}
