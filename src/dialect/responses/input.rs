//! The items of a Responses request as messages of a chat request.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::value::RawValue;

use super::tools::{SEARCH, Tools, push_object, wrapped};
use crate::dialect::messages::request::Dropped;
use crate::dialect::openai::read::{Object, Path, array, is_object, is_string, string};
use crate::error::ApiError;
use crate::json::{push_key, push_string};
use crate::seal::{Holds, Seals};

/// Writes the messages, one item after the other.
///
/// What the model said stands in several items, and in one message here. What a user says is kept
/// until the model's next item, so that results stand right behind their calls.
pub struct Turns<'t, 'l> {
    seals: &'t Seals,
    pub tools: &'t mut Tools<'l>,
    dropped: &'t mut Dropped,
    out: Vec<u8>,
    /// The prompt, until the first message is written.
    system: String,
    /// Parts of the user's turn, written.
    parts: Vec<Vec<u8>>,
    said: Said,
    results: Vec<Outcome>,
    /// Calls without a result, and the order in which they were made.
    open: HashMap<String, usize>,
    begun: bool,
}

/// What the model said since the user did.
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

    pub fn item(&mut self, item: &Object<'_, '_>) -> Result<(), ApiError> {
        let kind = item.string("type")?;
        match kind.as_deref() {
            None | Some("message") => self.message(item),
            Some("reasoning") => self.reasoning(item),
            Some("function_call") => {
                let arguments = item.string("arguments")?.unwrap_or_default();
                let arguments = match arguments.trim() {
                    "" => "{}",
                    text => text,
                };
                let namespace = item.string("namespace")?;
                let name = item.required_string("name")?;
                self.call(item, namespace.as_deref(), &name, arguments)
            }
            Some("custom_tool_call") => {
                let input = wrapped(&item.string("input")?.unwrap_or_default());
                let namespace = item.string("namespace")?;
                let name = item.required_string("name")?;
                let input = String::from_utf8_lossy(&input);
                self.call(item, namespace.as_deref(), &name, &input)
            }
            Some("tool_search_call") if item.get("call_id").is_some() => {
                let mut arguments = Vec::new();
                let raw = item.get("arguments").filter(|raw| is_object(raw));
                push_object(&mut arguments, raw);
                let arguments = String::from_utf8_lossy(&arguments);
                self.call(item, None, SEARCH, &arguments)
            }
            Some("function_call_output" | "custom_tool_call_output") => self.output(item),
            Some("tool_search_output") if item.get("call_id").is_some() => self.found(item),
            // Codex declares its tools so for the models that it knows to take them there.
            Some("additional_tools") => self.declared(item),
            Some(other) => {
                self.dropped.add(&format!("input.{other}"));
                Ok(())
            }
        }
    }

    fn message(&mut self, item: &Object<'_, '_>) -> Result<(), ApiError> {
        let role = item.required_string("role")?;
        let path = item.path.key("content");
        let Some(content) = item.get("content") else {
            return Err(path.invalid("is required"));
        };
        match &*role {
            "user" => {
                self.begun = true;
                self.end_said();
                if is_string(content) {
                    self.user(&string(content, &path)?);
                    return Ok(());
                }
                for (at, raw) in array(content, &path)?.into_iter().enumerate() {
                    let path = path.index(at);
                    self.part(&Object::read(raw, &path)?)?;
                }
            }
            "assistant" => {
                self.begun = true;
                let text = self.text_of(content, &path)?;
                // Before a result, it is of the turn before.
                self.end_user();
                if !self.said.text.is_empty() && !text.is_empty() {
                    self.said.text.push('\n');
                }
                self.said.text.push_str(&text);
            }
            "system" | "developer" => {
                let text = self.text_of(content, &path)?;
                self.system(&text);
            }
            other => {
                return Err(item
                    .path
                    .key("role")
                    .invalid(format_args!("{other:?} is not a role")));
            }
        }
        Ok(())
    }

    /// The text of a string or of a list of parts, as far as they have one.
    fn text_of(&mut self, raw: &RawValue, path: &Path<'_>) -> Result<String, ApiError> {
        if is_string(raw) {
            return Ok(string(raw, path)?.into_owned());
        }
        let mut whole = String::new();
        for (at, raw) in array(raw, path)?.into_iter().enumerate() {
            let path = path.index(at);
            let part = Object::read(raw, &path)?;
            let kind = part.required_string("type")?;
            let text = match &*kind {
                "input_text" | "output_text" | "text" => part.string("text")?,
                "refusal" => part.string("refusal")?,
                other => {
                    self.dropped.add(&format!("input.content.{other}"));
                    None
                }
            };
            let text = text.unwrap_or_default();
            if !text.is_empty() && !whole.is_empty() {
                whole.push('\n');
            }
            whole.push_str(&text);
        }
        Ok(whole)
    }

    /// A part that the model is shown.
    fn part(&mut self, part: &Object<'_, '_>) -> Result<(), ApiError> {
        let kind = part.required_string("type")?;
        match &*kind {
            "input_text" | "output_text" | "text" => {
                let text = part.string("text")?.unwrap_or_default();
                if !text.is_empty() {
                    self.text(&text);
                }
            }
            _ => match media(&kind, part)? {
                Some(written) => self.parts.push(written),
                None => self.dropped.add(&format!("input.content.{kind}")),
            },
        }
        Ok(())
    }

    fn reasoning(&mut self, item: &Object<'_, '_>) -> Result<(), ApiError> {
        self.begun = true;
        self.end_user();
        let mut thoughts = String::new();
        for key in ["summary", "content"] {
            if !thoughts.is_empty() {
                break;
            }
            let path = item.path.key(key);
            for (at, raw) in item.array(key)?.into_iter().enumerate() {
                let path = path.index(at);
                let text = Object::read(raw, &path)?.string("text")?;
                let text = text.unwrap_or_default();
                if !thoughts.is_empty() && !text.is_empty() {
                    thoughts.push_str("\n\n");
                }
                thoughts.push_str(&text);
            }
        }
        let seal = item.string("encrypted_content")?.unwrap_or_default();
        // What another provider encrypted is for its own models, and so are its words about it.
        let opened = self.seals.open(&seal);
        if !seal.is_empty() && opened.is_none() {
            return Ok(());
        }
        if !thoughts.is_empty() && !self.said.thoughts.is_empty() {
            self.said.thoughts.push_str("\n\n");
        }
        self.said.thoughts.push_str(&thoughts);
        match opened {
            Some((Holds::CallSignature, signature)) => self.said.signature = Some(signature),
            Some((Holds::Extra, json)) if is_json_object(&json) => self.said.extra = Some(json),
            _ => {}
        }
        Ok(())
    }

    fn call(
        &mut self,
        item: &Object<'_, '_>,
        namespace: Option<&str>,
        name: &str,
        arguments: &str,
    ) -> Result<(), ApiError> {
        self.begun = true;
        self.end_user();
        let id = item.required_string("call_id")?;
        if id.is_empty() {
            return Err(item.path.key("call_id").invalid("must not be empty"));
        }
        if name.is_empty() {
            return Err(item.path.key("name").invalid("must not be empty"));
        }
        let mut call = Vec::with_capacity(arguments.len() + 128);
        push_key(&mut call, b'{', "id");
        push_string(&mut call, &id);
        call.extend_from_slice(b",\"type\":\"function\",\"function\":{\"name\":");
        push_string(&mut call, &self.tools.names.sent(namespace, name));
        push_key(&mut call, b',', "arguments");
        push_string(&mut call, arguments);
        call.push(b'}');
        if let Some(signature) = self.said.signature.take() {
            call.extend_from_slice(b",\"extra_content\":{\"google\":{\"thought_signature\":");
            push_string(&mut call, &signature);
            call.extend_from_slice(b"}}");
        }
        call.push(b'}');
        self.said.calls.push(call);
        self.said.ids.push(id.into_owned());
        Ok(())
    }

    /// One result: its text; what else it shows goes into the user's turn.
    fn output(&mut self, item: &Object<'_, '_>) -> Result<(), ApiError> {
        let id = item.required_string("call_id")?.into_owned();
        let path = item.path.key("output");
        self.end_said();
        let mut text = String::new();
        match item.get("output") {
            None => {}
            Some(raw) if is_string(raw) => text = string(raw, &path)?.into_owned(),
            Some(raw) => {
                for (at, raw) in array(raw, &path)?.into_iter().enumerate() {
                    let path = path.index(at);
                    let part = Object::read(raw, &path)?;
                    let kind = part.required_string("type")?;
                    let said = match &*kind {
                        "input_text" | "output_text" | "text" => {
                            part.string("text")?.unwrap_or_default()
                        }
                        _ => {
                            let before = self.parts.len();
                            self.part(&part)?;
                            // Most formats have no place for it in a result.
                            match (self.parts.len() > before, &*kind) {
                                (false, _) => continue,
                                (true, "input_image") => Cow::Borrowed("[the image follows]"),
                                (true, _) => Cow::Borrowed("[the file follows]"),
                            }
                        }
                    };
                    if !text.is_empty() && !said.is_empty() {
                        text.push('\n');
                    }
                    text.push_str(&said);
                }
            }
        }
        self.result(id, text);
        Ok(())
    }

    /// Tools that stand among the messages.
    fn declared(&mut self, item: &Object<'_, '_>) -> Result<(), ApiError> {
        let path = item.path.key("tools");
        for (at, raw) in item.array("tools")?.into_iter().enumerate() {
            self.tools.add(raw, &path.index(at), None, self.dropped)?;
        }
        Ok(())
    }

    /// Tools that the caller's own search found: declared from here on.
    fn found(&mut self, item: &Object<'_, '_>) -> Result<(), ApiError> {
        let id = item.required_string("call_id")?.into_owned();
        self.end_said();
        let path = item.path.key("tools");
        let mut names = Vec::new();
        for (at, raw) in item.array("tools")?.into_iter().enumerate() {
            let path = path.index(at);
            self.tools.add(raw, &path, None, self.dropped)?;
            let found = Object::read(raw, &path)?;
            names.extend(found.string("name")?.map(Cow::into_owned));
        }
        let text = match names.is_empty() {
            true => "Nothing was found.".to_owned(),
            false => format!("These tools are available now: {}", names.join(", ")),
        };
        self.result(id, text);
        Ok(())
    }

    /// A result that no call asked for is told as text.
    fn result(&mut self, id: String, text: String) {
        if let Some(place) = self.open.remove(&id) {
            self.results.push(Outcome { place, id, text });
            return;
        }
        self.begun = true;
        self.dropped.add("input.function_call_output.call_id");
        self.text(&format!("[a tool's result]\n{text}"));
    }

    fn text(&mut self, text: &str) {
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
    fn end_user(&mut self) {
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
    fn end_said(&mut self) {
        let said = std::mem::take(&mut self.said);
        if said.text.is_empty() && said.calls.is_empty() {
            // Thoughts alone are no message for most.
            return;
        }
        self.end_prompt();
        // Calls without a result by now have none.
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
    }
}

fn is_json_object(json: &str) -> bool {
    serde_json::from_str::<crate::json::Fields<'_>>(json).is_ok()
}

/// An image, a file or a sound, as others take it. `None`: it lies with the caller's own provider.
fn media(kind: &str, part: &Object<'_, '_>) -> Result<Option<Vec<u8>>, ApiError> {
    let mut out = Vec::new();
    match kind {
        "input_image" => {
            let path = part.path.key("image_url");
            let url = match part.get("image_url") {
                Some(raw) if is_object(raw) => Object::read(raw, &path)?.required_string("url")?,
                Some(raw) => string(raw, &path)?,
                None if part.get("file_id").is_some() => return Ok(None),
                None => return Err(path.invalid("is required")),
            };
            out.reserve(url.len() + 64);
            out.extend_from_slice(b"{\"type\":\"image_url\",\"image_url\":{\"url\":");
            push_string(&mut out, &url);
            // The others are not known to chat completions.
            if let Some(detail) = part.string("detail")?
                && matches!(&*detail, "low" | "high" | "auto")
            {
                push_key(&mut out, b',', "detail");
                push_string(&mut out, &detail);
            }
            out.extend_from_slice(b"}}");
        }
        "input_file" => {
            let Some(data) = part.string("file_data")? else {
                return Ok(None);
            };
            out.reserve(data.len() + 96);
            out.extend_from_slice(b"{\"type\":\"file\",\"file\":{\"filename\":");
            let name = part.string("filename")?;
            let name = name.filter(|name| !name.is_empty());
            push_string(&mut out, name.as_deref().unwrap_or("document.pdf"));
            push_key(&mut out, b',', "file_data");
            push_string(&mut out, &data);
            out.extend_from_slice(b"}}");
        }
        "input_audio" => {
            let path = part.path.key("input_audio");
            let Some(raw) = part.get("input_audio") else {
                return Err(path.invalid("is required"));
            };
            let audio = Object::read(raw, &path)?;
            out.extend_from_slice(b"{\"type\":\"input_audio\",\"input_audio\":{\"data\":");
            push_string(&mut out, &audio.required_string("data")?);
            push_key(&mut out, b',', "format");
            push_string(&mut out, &audio.required_string("format")?);
            out.extend_from_slice(b"}}");
        }
        _ => return Ok(None),
    }
    Ok(Some(out))
}
