//! The history of a Gemini request as messages of a chat request.

use std::collections::HashSet;

use serde_json::value::RawValue;

use super::request::{parts, read};
use crate::chat::ERROR_MARK;
use crate::dialect::messages::Dropped;
use crate::dialect::openai::read::{Object, Path, is_string, string};
use crate::error::ApiError;
use crate::json::{Fields, push_key, push_string};
use crate::seal::{Holds, Seals, is_seal};

/// Writes the messages, one content after the other.
///
/// What a user says besides results is kept until the model's next content, so that results stand
/// right behind their calls and no two messages of the user follow each other.
pub struct Turns<'t> {
    seals: &'t Seals,
    dropped: &'t mut Dropped,
    out: Vec<u8>,
    /// Parts of the user's turn, written.
    said: Vec<Vec<u8>>,
    /// Calls of the last message of the model that have no result yet.
    open: Vec<Open>,
    failed: HashSet<String>,
    /// Ids that were used: each call has one of its own.
    ids: HashSet<String>,
}

/// A call without a result.
struct Open {
    /// As the request has it; empty where it has none.
    own: String,
    id: String,
    name: String,
    result: Option<String>,
}

/// What one content of the model holds.
#[derive(Default)]
struct Said {
    text: String,
    thoughts: String,
    calls: Vec<Vec<u8>>,
    open: Vec<Open>,
    /// Of a part that is no call.
    signature: Option<String>,
    extra: Option<String>,
}

impl<'t> Turns<'t> {
    pub fn new(seals: &'t Seals, dropped: &'t mut Dropped) -> Turns<'t> {
        Turns {
            seals,
            dropped,
            out: Vec::new(),
            said: Vec::new(),
            open: Vec::new(),
            failed: HashSet::new(),
            ids: HashSet::new(),
        }
    }

    /// The messages, and the calls whose results are errors.
    pub fn finish(mut self) -> (Vec<u8>, HashSet<String>) {
        self.end_turn();
        (self.out, self.failed)
    }

    pub fn system(&mut self, content: &Object<'_, '_>) -> Result<(), ApiError> {
        let path = content.path.key("parts");
        let mut whole = String::new();
        for (at, raw) in parts(content, &path)?.into_iter().enumerate() {
            let path = path.index(at);
            let Some(text) = read(raw, &path)?.string("text")? else {
                self.dropped.add("systemInstruction.parts");
                continue;
            };
            if !whole.is_empty() && !text.is_empty() {
                whole.push_str("\n\n");
            }
            whole.push_str(&text);
        }
        if !whole.is_empty() {
            self.begin("system");
            push_string(&mut self.out, &whole);
            self.out.push(b'}');
        }
        Ok(())
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
        if !text.is_empty() {
            let mut part = b"{\"type\":\"text\",\"text\":".to_vec();
            push_string(&mut part, text);
            part.push(b'}');
            self.said.push(part);
        }
    }

    /// Writes the results and what the user said besides them.
    fn end_turn(&mut self) {
        /// What stands before the text of a part that is only text.
        const BEFORE: usize = b"{\"type\":\"text\",\"text\":".len();
        for call in std::mem::take(&mut self.open) {
            let Some(result) = call.result else { continue };
            self.begin("tool");
            push_string(&mut self.out, &result);
            push_key(&mut self.out, b',', "tool_call_id");
            push_string(&mut self.out, &call.id);
            self.out.push(b'}');
        }
        let said = std::mem::take(&mut self.said);
        if said.is_empty() {
            return;
        }
        self.begin("user");
        match said.as_slice() {
            [part] if part.starts_with(b"{\"type\":\"text\"") => {
                self.out.extend_from_slice(&part[BEFORE..part.len() - 1]);
            }
            said => {
                self.out.push(b'[');
                self.out.extend_from_slice(&said.join(&b','));
                self.out.push(b']');
            }
        }
        self.out.push(b'}');
    }

    pub fn user(&mut self, content: &Object<'_, '_>) -> Result<(), ApiError> {
        let path = content.path.key("parts");
        for (at, raw) in parts(content, &path)?.into_iter().enumerate() {
            let path = path.index(at);
            let part = read(raw, &path)?;
            let key = path.key("functionResponse");
            if let Some(raw) = part.get("functionResponse") {
                self.result(&read(raw, &key)?)?;
            } else {
                self.shown(&part)?;
            }
        }
        Ok(())
    }

    /// A part that the model is shown.
    fn shown(&mut self, part: &Object<'_, '_>) -> Result<(), ApiError> {
        if let Some(text) = part.string("text")? {
            self.text(&text);
        }
        let path = part.path.key("inlineData");
        if let Some(raw) = part.get("inlineData") {
            let data = read(raw, &path)?;
            let mime = data.required_string("mimeType")?;
            let base64 = data.required_string("data")?;
            self.said.push(inline(&mime, &base64));
        }
        let path = part.path.key("fileData");
        if let Some(raw) = part.get("fileData") {
            let file = read(raw, &path)?;
            let uri = file.required_string("fileUri")?;
            let mime = file.string("mimeType")?;
            self.said.push(linked(mime.as_deref(), &uri));
        }
        self.note_others(part);
        Ok(())
    }

    /// Names what has no place elsewhere.
    fn note_others(&mut self, part: &Object<'_, '_>) {
        for (key, _) in &part.fields.0 {
            if matches!(
                &**key,
                "executableCode"
                    | "codeExecutionResult"
                    | "videoMetadata"
                    | "toolCall"
                    | "toolResponse"
            ) {
                self.dropped.add(&format!("contents.parts.{key}"));
            }
        }
    }

    /// A result: by the id of its call, else by the name and the order.
    fn result(&mut self, response: &Object<'_, '_>) -> Result<(), ApiError> {
        let id = response.string("id")?.unwrap_or_default();
        let name = response.string("name")?.unwrap_or_default();
        if id.is_empty() && name.is_empty() {
            return Err(response.path.key("name").invalid("is required"));
        }
        let (text, failed) = match response.carried("response")? {
            Some(raw) => told(raw),
            None => (String::from("{}"), false),
        };
        let path = response.path.key("parts");
        for (at, raw) in parts(response, &path)?.into_iter().enumerate() {
            let path = path.index(at);
            // Most formats have no place for it in a result.
            self.shown(&read(raw, &path)?)?;
        }
        let waits = |call: &&mut Open| call.result.is_none();
        let by_id = |call: &Open| !id.is_empty() && (call.own == id || call.id == id);
        let has_id = self
            .open
            .iter()
            .any(|call| call.result.is_none() && by_id(call));
        let mut waiting = self.open.iter_mut().filter(waits);
        let found = match has_id {
            true => waiting.find(|call| by_id(call)),
            false => {
                waiting.find(|call| call.name == name && (id.is_empty() || call.own.is_empty()))
            }
        };
        match found {
            Some(call) => {
                if failed {
                    self.failed.insert(call.id.clone());
                }
                call.result = Some(text);
            }
            None => {
                self.dropped.add("contents.parts.functionResponse");
                self.text(&format!("[a tool's result: {name}]\n{text}"));
            }
        }
        Ok(())
    }

    /// A content of the model, the one at `place`.
    pub fn model(&mut self, content: &Object<'_, '_>, place: usize) -> Result<(), ApiError> {
        let path = content.path.key("parts");
        let mut said = Said::default();
        for (at, raw) in parts(content, &path)?.into_iter().enumerate() {
            let path = path.index(at);
            self.model_part(&read(raw, &path)?, place, &mut said)?;
        }
        if said.text.is_empty() && said.calls.is_empty() {
            // Thoughts alone are no message for most.
            return Ok(());
        }
        self.end_turn();
        self.begin("assistant");
        match said.text.is_empty() {
            true => self.out.extend_from_slice(b"null"),
            false => push_string(&mut self.out, &said.text),
        }
        if !said.thoughts.is_empty() {
            push_key(&mut self.out, b',', "reasoning_content");
            push_string(&mut self.out, &said.thoughts);
        }
        if !said.calls.is_empty() {
            push_key(&mut self.out, b',', "tool_calls");
            self.out.push(b'[');
            self.out.extend_from_slice(&said.calls.join(&b','));
            self.out.push(b']');
        }
        if let Some(extra) = &said.extra {
            push_key(&mut self.out, b',', "extra_content");
            self.out.extend_from_slice(extra.as_bytes());
        } else if let Some(signature) = &said.signature {
            push_key(&mut self.out, b',', "extra_content");
            push_signature(&mut self.out, signature);
        }
        self.out.push(b'}');
        self.open = said.open;
        Ok(())
    }

    fn model_part(
        &mut self,
        part: &Object<'_, '_>,
        place: usize,
        said: &mut Said,
    ) -> Result<(), ApiError> {
        let mut signature = None;
        let carried = part.string("thoughtSignature")?.unwrap_or_default();
        match self.seals.open(&carried) {
            Some((Holds::CallSignature, opened)) => signature = Some(opened),
            Some((Holds::Extra, json)) if is_object(&json) => said.extra = Some(json),
            // Made up, or cut.
            _ if is_seal(&carried) || carried.is_empty() => {}
            // Google's own, which nobody but its models looks at.
            _ => signature = Some(carried.into_owned()),
        }
        if let Some(text) = part.string("text")? {
            match part.boolean("thought")? {
                Some(true) => said.thoughts.push_str(&text),
                _ => said.text.push_str(&text),
            }
        }
        let path = part.path.key("functionCall");
        let Some(raw) = part.get("functionCall") else {
            if signature.is_some() {
                said.signature = signature;
            }
            if part.get("inlineData").is_some() || part.get("fileData").is_some() {
                self.dropped.add("contents.parts.inlineData");
            }
            self.note_others(part);
            return Ok(());
        };
        let call = read(raw, &path)?;
        let name = call.required_string("name")?;
        let own = call.string("id")?.unwrap_or_default().into_owned();
        let mut id = match own.is_empty() {
            true => format!("call_{place}_{}", said.calls.len()),
            false => own.clone(),
        };
        while !self.ids.insert(id.clone()) {
            id = format!("call_{place}_{}_{}", said.calls.len(), self.ids.len());
        }
        let mut out = Vec::with_capacity(128);
        push_key(&mut out, b'{', "id");
        push_string(&mut out, &id);
        out.extend_from_slice(b",\"type\":\"function\",\"function\":{\"name\":");
        push_string(&mut out, &name);
        push_key(&mut out, b',', "arguments");
        push_string(&mut out, call.carried("args")?.map_or("{}", RawValue::get));
        out.push(b'}');
        if let Some(signature) = &signature {
            push_key(&mut out, b',', "extra_content");
            push_signature(&mut out, signature);
        }
        out.push(b'}');
        said.calls.push(out);
        said.open.push(Open {
            own,
            id,
            name: name.into_owned(),
            result: None,
        });
        Ok(())
    }
}

fn push_signature(out: &mut Vec<u8>, signature: &str) {
    out.extend_from_slice(b"{\"google\":{\"thought_signature\":");
    push_string(out, signature);
    out.extend_from_slice(b"}}");
}

fn is_object(json: &str) -> bool {
    serde_json::from_str::<Fields<'_>>(json).is_ok()
}

/// What a response says, without the object that every result is wrapped in, and whether it is an
/// error.
fn told(raw: &RawValue) -> (String, bool) {
    let whole = || (raw.get().to_owned(), false);
    let Ok(fields) = serde_json::from_str::<Fields<'_>>(raw.get()) else {
        return whole();
    };
    let text = |raw: &RawValue| match is_string(raw) {
        true => string(raw, &Path::Root).map_or_else(|_| raw.get().to_owned(), Into::into),
        false => raw.get().to_owned(),
    };
    match &*fields.0 {
        [(key, value)] if matches!(&**key, "output" | "result") => (text(value), false),
        [(key, value)] if key == "error" => (format!("{ERROR_MARK}{}", text(value)), true),
        _ => match (fields.get("name"), fields.get("content")) {
            (Some(_), Some(content)) if fields.0.len() == 2 => (text(content), false),
            _ => whole(),
        },
    }
}

/// Data of the request itself.
fn inline(mime: &str, base64: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(base64.len() + 128);
    let url = format!("data:{mime};base64,{base64}");
    if mime.starts_with("image/") {
        out.extend_from_slice(b"{\"type\":\"image_url\",\"image_url\":{\"url\":");
        push_string(&mut out, &url);
    } else if let Some(format) = audio(mime) {
        out.extend_from_slice(b"{\"type\":\"input_audio\",\"input_audio\":{\"data\":");
        push_string(&mut out, base64);
        push_key(&mut out, b',', "format");
        push_string(&mut out, format);
    } else {
        out.extend_from_slice(b"{\"type\":\"file\",\"file\":{\"file_data\":");
        push_string(&mut out, &url);
    }
    out.extend_from_slice(b"}}");
    out
}

fn audio(mime: &str) -> Option<&'static str> {
    match mime {
        "audio/wav" | "audio/x-wav" => Some("wav"),
        "audio/mp3" | "audio/mpeg" => Some("mp3"),
        _ => None,
    }
}

/// Data behind an address, or in the vendor's store.
fn linked(mime: Option<&str>, uri: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(uri.len() + 64);
    match mime.is_some_and(|mime| mime.starts_with("image/")) {
        true => out.extend_from_slice(b"{\"type\":\"image_url\",\"image_url\":{\"url\":"),
        false => out.extend_from_slice(b"{\"type\":\"file\",\"file\":{\"file_id\":"),
    }
    push_string(&mut out, uri);
    out.extend_from_slice(b"}}");
    out
}
