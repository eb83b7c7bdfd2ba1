//! Messages -> `systemInstruction` and `contents`.
//!
//! A longer history must come out as the shorter one plus something, so that prompt caches match:
//! what a message becomes depends only on the messages before it. The exceptions are `Continue.` at
//! the very end, and results for calls that have none yet.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::context::Context;
use super::media::Media;
use super::wire::TOOL_PARTS;
use super::write::Nest;
use crate::cancel;
use crate::chat::{ERROR_MARK, Message, Part, PartKind, Role, ToolCall, ToolKind};
use crate::error::ApiError;
use crate::json::{Fields, push_string};
use crate::provider::names::Names;
use crate::provider::pairs::{Answer, Pairs};
use crate::provider::pictures::{LOST_PICTURE, says_nothing};

/// Stands in front of a system message that comes after the beginning.
const LATER_SYSTEM: &str = "[system instruction, not from the user]\n";

/// What the vendor accepts where a signature got lost. It costs quality, so it goes only where a
/// missing signature would be refused.
const PLACEHOLDER: &str = "skip_thought_signature_validator";

pub struct Contents<'c, 'r> {
    context: &'c mut Context<'r>,
    names: &'c mut Names<'r>,
    pairs: Pairs,
    out: Vec<u8>,
    /// Of the content that is open; neighbours of one role share it.
    role: Option<&'static str>,
    /// The user has said something. Before that the vendor takes no function call.
    user_spoke: bool,
}

impl<'c, 'r> Contents<'c, 'r> {
    pub fn new(context: &'c mut Context<'r>, names: &'c mut Names<'r>) -> Self {
        Contents {
            pairs: Pairs::of(&context.request.messages),
            context,
            names,
            out: Vec::new(),
            role: None,
            user_spoke: false,
        }
    }

    /// Writes both fields. `hint` is a last word of the system instruction.
    pub fn write(mut self, hint: Option<&str>, body: &mut Nest<'_>) -> Result<(), ApiError> {
        let messages = &self.context.request.messages[..];
        let leading = messages
            .iter()
            .take_while(|m| m.role == Role::System)
            .count();
        let (system, rest) = messages.split_at(leading);
        let texts = || {
            system
                .iter()
                .flat_map(|message| &message.content)
                .filter_map(text)
        };
        if hint.is_some() || texts().next().is_some() {
            let mut instruction = Nest::object(body.key("systemInstruction"));
            let mut parts = Nest::array(instruction.key("parts"));
            for text in texts().chain(hint) {
                push_text(parts.item(), text, None);
            }
            parts.end();
            instruction.end();
        }
        // The contents are the bulk of the body, so they are written in place.
        self.out = std::mem::take(body.key("contents"));
        self.out.push(b'[');
        self.messages(rest, leading)?;
        match self.role {
            None => push_text(self.part("user"), ".", None),
            Some("model") if self.context.options.gemini.reject_prefill && is_prefill(messages) => {
                return Err(ApiError::unsupported_value(
                    "messages",
                    "this model does not continue an assistant message",
                ));
            }
            Some("model") => push_text(self.part("user"), "Continue.", None),
            Some(_) => {}
        }
        self.out.extend_from_slice(b"]}]");
        *body.out = self.out;
        Ok(())
    }

    fn messages(&mut self, messages: &'r [Message<'r>], offset: usize) -> Result<(), ApiError> {
        let mut index = 0;
        while let Some(message) = messages.get(index) {
            cancel::check()?;
            let place = offset + index;
            index += 1;
            match message.role {
                Role::System => self.later_system(message),
                Role::User => self.parts("user", message, place)?,
                Role::Tool => match self.pairs.answer(place) {
                    // Written behind the call that it answers.
                    Answer::Of { .. } => {}
                    Answer::Replaced { .. } => self
                        .context
                        .repair("a tool call has more than one result")?,
                    Answer::Stray => self.stray_result(message)?,
                },
                Role::Assistant => {
                    let more = messages[index..]
                        .iter()
                        .take_while(|next| next.role == Role::Assistant)
                        .count();
                    self.model_turn(&messages[index - 1..index + more], place)?;
                    index += more;
                }
            }
        }
        Ok(())
    }

    /// Assistant messages with nothing between them are one turn of the model. The results of all
    /// its calls follow in one turn.
    fn model_turn(&mut self, run: &'r [Message<'r>], place: usize) -> Result<(), ApiError> {
        let mut calls = run.iter().flat_map(|message| &message.tool_calls);
        let signed = calls.any(|call| own(&call.google_signature).is_some());
        // One placeholder stands for the signature of the whole turn.
        let mut placeholder = (self.context.model.third && !signed).then_some(PLACEHOLDER);
        for (index, message) in run.iter().enumerate() {
            cancel::check()?;
            self.assistant(message, place + index)?;
            for call in &message.tool_calls {
                let signature = own(&call.google_signature).or_else(|| placeholder.take());
                self.call(call, signature);
            }
        }
        self.results(run, place)
    }

    /// The place of the next part, in a content of this role.
    fn part(&mut self, role: &'static str) -> &mut Vec<u8> {
        if self.role == Some(role) {
            self.out.push(b',');
        } else {
            if self.role.is_some() {
                self.out.extend_from_slice(b"]},");
            }
            self.out.extend_from_slice(br#"{"role":""#);
            self.out.extend_from_slice(role.as_bytes());
            self.out.extend_from_slice(br#"","parts":["#);
            self.role = Some(role);
            self.user_spoke |= role == "user";
        }
        &mut self.out
    }

    fn later_system(&mut self, message: &Message<'_>) {
        let texts: Vec<&str> = message.content.iter().filter_map(text).collect();
        if !texts.is_empty() {
            let all = LATER_SYSTEM.to_owned() + &texts.join("\n");
            push_text(self.part("user"), &all, None);
        }
    }

    fn parts(
        &mut self,
        role: &'static str,
        message: &'r Message<'r>,
        place: usize,
    ) -> Result<(), ApiError> {
        for (position, part) in message.content.iter().enumerate() {
            if let Some(text) = text(part) {
                push_text(self.part(role), text, None);
                continue;
            }
            let at = || format!("messages[{place}].content[{position}]");
            if let Some(media) = Media::read(part, &self.context.model, &at)? {
                media.write(self.part(role), true);
            }
        }
        Ok(())
    }

    fn assistant(&mut self, message: &'r Message<'r>, place: usize) -> Result<(), ApiError> {
        if message.has_audio {
            self.context.drop_field("messages.audio")?;
        }
        if !message.tool_calls.is_empty() && !self.user_spoke {
            push_text(self.part("user"), ".", None);
        }
        self.tool_parts(message)?;
        // The message's signature belongs to its last text part.
        let signature = own(&message.google_signature);
        let last_text = message
            .content
            .iter()
            .rposition(|part| text(part).is_some());
        // The first part of an answer is always signed, so a signed picture beside a text that is
        // not came before it.
        let pictures_first = signature.is_none()
            && message
                .images
                .iter()
                .any(|part| own(&part.google_signature).is_some());
        if pictures_first {
            self.pictures(message)?;
        }
        for (position, part) in message.content.iter().enumerate() {
            if let Some(text) = text(part) {
                let signature = signature.filter(|_| Some(position) == last_text);
                push_text(self.part("model"), text, signature);
                continue;
            }
            let at = || format!("messages[{place}].content[{position}]");
            if let Some(media) = Media::read(part, &self.context.model, &at)? {
                let signature = self.picture_signature(part);
                media.write_signed(self.part("model"), true, signature);
            }
        }
        if !pictures_first {
            self.pictures(message)?;
        }
        let refusal = message
            .refusal
            .as_deref()
            .filter(|refusal| !refusal.is_empty());
        if let Some(refusal) = refusal {
            push_text(self.part("model"), refusal, None);
        }
        if last_text.is_none() && refusal.is_none() && signature.is_some() {
            // The model signed an empty text, which is the one part without content that counts.
            push_text(self.part("model"), "", signature);
        }
        Ok(())
    }

    /// What tools of the provider's own left, which came before what was made of it.
    fn tool_parts(&mut self, message: &'r Message<'r>) -> Result<(), ApiError> {
        let Some(raw) = message.google_parts else {
            return Ok(());
        };
        let parts: Vec<Fields<'_>> = match serde_json::from_str(raw.get()) {
            Ok(parts) => parts,
            Err(_) => return self.context.drop_field("messages.extra_content"),
        };
        for fields in parts {
            let known = TOOL_PARTS.into_iter();
            let mut known = known.filter_map(|kind| Some((kind, fields.get(kind)?)));
            // Anything else is no affair of the carrier.
            let Some((kind, said)) = known.next() else {
                continue;
            };
            self.part("model");
            let mut part = Nest::object(&mut self.out);
            part.raw(kind, &super::compact(said.get()));
            let signature = fields.get("thoughtSignature");
            if let Some(signature) = signature.filter(|raw| raw.get().starts_with('"')) {
                part.raw("thoughtSignature", signature.get());
            }
            part.end();
        }
        Ok(())
    }

    /// The pictures that the model made.
    fn pictures(&mut self, message: &'r Message<'r>) -> Result<(), ApiError> {
        for part in &message.images {
            let Ok(Some(media)) = Media::read(part, &self.context.model, &String::new) else {
                self.context.drop_field("messages.images")?;
                if says_nothing(message) {
                    push_text(self.part("model"), LOST_PICTURE, None);
                }
                continue;
            };
            let signature = self.picture_signature(part);
            media.write_signed(self.part("model"), true, signature);
        }
        Ok(())
    }

    /// From the third generation on, a picture of the model without a signature is refused.
    fn picture_signature(&self, part: &'r Part<'r>) -> Option<&'r str> {
        let placeholder = || self.context.model.third.then_some(PLACEHOLDER);
        own(&part.google_signature).or_else(placeholder)
    }

    fn call(&mut self, call: &'r ToolCall<'r>, signature: Option<&str>) {
        let third = self.context.model.third;
        self.part("model");
        let mut part = Nest::object(&mut self.out);
        let mut function = Nest::object(part.key("functionCall"));
        if third {
            function.string("id", &call.id);
        }
        self.names.add(&call.name);
        function.string("name", self.names.sent(&call.name));
        push_args(function.key("args"), call);
        function.end();
        if let Some(signature) = signature {
            part.string("thoughtSignature", signature);
        }
        part.end();
    }

    /// The results of one turn of the model: one per call and in the order of the calls.
    fn results(&mut self, run: &'r [Message<'r>], place: usize) -> Result<(), ApiError> {
        let all = &self.context.request.messages;
        let third = self.context.model.third;
        let mut behind = Vec::new();
        let mut missing = false;
        for (message, at) in run.iter().zip(place..) {
            cancel::check()?;
            for (position, call) in message.tool_calls.iter().enumerate() {
                let answer = self.pairs.result(at, position);
                missing |= answer.is_none();
                let content = answer.map(|answer| &all[answer].content[..]);
                let mut media = Vec::new();
                for (part, position) in content.unwrap_or_default().iter().zip(0..) {
                    let answer = answer.unwrap_or_default();
                    let path = || format!("messages[{answer}].content[{position}]");
                    media.extend(Media::read(part, &self.context.model, &path)?);
                }
                self.part("user");
                let mut part = Nest::object(&mut self.out);
                let mut response = Nest::object(part.key("functionResponse"));
                if third {
                    response.string("id", &call.id);
                }
                response.string("name", self.names.sent(&call.name));
                match content {
                    Some(content) if answer.is_some_and(|answer| all[answer].is_error) => {
                        let text = joined(content);
                        let text = text.strip_prefix(ERROR_MARK).unwrap_or(&text);
                        let mut why = Nest::object(response.key("response"));
                        why.string("error", text);
                        why.end();
                    }
                    Some(content) => push_result(response.key("response"), content),
                    None => response.raw("response", r#"{"error":"no result"}"#),
                }
                if third && !media.is_empty() {
                    let mut parts = Nest::array(response.key("parts"));
                    for media in &media {
                        media.write(parts.item(), false);
                    }
                    parts.end();
                } else {
                    behind.append(&mut media);
                }
                response.end();
                part.end();
            }
        }
        for media in &behind {
            media.write(self.part("user"), true);
        }
        match missing {
            true => self.context.repair("a tool call has no result"),
            false => Ok(()),
        }
    }

    /// A result that answers no call.
    fn stray_result(&mut self, message: &Message<'_>) -> Result<(), ApiError> {
        self.context.repair("a tool result answers no call")?;
        let all = format!(
            "[result of tool call {}]\n{}",
            message.tool_call_id,
            joined(&message.content)
        );
        push_text(self.part("user"), &all, None);
        Ok(())
    }
}

/// A signature that came with the history.
fn own<'a>(signature: &'a Option<Cow<'_, str>>) -> Option<&'a str> {
    signature
        .as_deref()
        .filter(|signature| !signature.is_empty())
}

/// The last word is an assistant's. (A result that is last belongs to an earlier turn.)
fn is_prefill(messages: &[Message<'_>]) -> bool {
    let mut spoken = messages.iter().rev().map(|message| message.role);
    spoken.find(|role| *role != Role::System) == Some(Role::Assistant)
}

/// The text of a part that has one.
fn text<'a>(part: &'a Part<'_>) -> Option<&'a str> {
    match &part.kind {
        PartKind::Text(text) | PartKind::Refusal(text) if !text.is_empty() => Some(text),
        _ => None,
    }
}

fn push_text(out: &mut Vec<u8>, text: &str, signature: Option<&str>) {
    let mut part = Nest::object(out);
    part.string("text", text);
    if let Some(signature) = signature {
        part.string("thoughtSignature", signature);
    }
    part.end();
}

/// The text parts of a tool's answer.
fn joined<'a>(content: &'a [Part<'_>]) -> Cow<'a, str> {
    let mut texts = content.iter().filter_map(text);
    let first = texts.next().unwrap_or_default();
    match texts.next() {
        None => Cow::Borrowed(first),
        Some(second) => {
            let mut all = format!("{first}\n{second}");
            for more in texts {
                all.push('\n');
                all.push_str(more);
            }
            Cow::Owned(all)
        }
    }
}

/// The arguments of an earlier call, always as an object.
fn push_args(out: &mut Vec<u8>, call: &ToolCall<'_>) {
    let text = call.arguments.trim_ascii();
    let wrapped = |out: &mut Vec<u8>, key: &str, text: &str| {
        let mut object = Nest::object(out);
        object.string(key, text);
        object.end();
    };
    if call.kind == ToolKind::Custom {
        return wrapped(out, "input", &call.arguments);
    }
    if text.is_empty() || text == "null" {
        return out.extend_from_slice(b"{}");
    }
    match serde_json::from_str::<&RawValue>(text) {
        Ok(value) if value.get().starts_with('{') => {
            out.extend_from_slice(super::compact(value.get()).as_bytes());
        }
        Ok(value) => {
            let mut object = Nest::object(out);
            object.raw("value", &super::compact(value.get()));
            object.end();
        }
        // The model shall see what it wrote, rather than a call without arguments.
        Err(_) => wrapped(out, "INVALID_JSON", &call.arguments),
    }
}

/// What a tool answered, as the object that the vendor wants.
fn push_result(out: &mut Vec<u8>, content: &[Part<'_>]) {
    let text = joined(content);
    let trimmed = text.trim_ascii();
    if trimmed.starts_with('{') && serde_json::from_str::<Fields<'_>>(trimmed).is_ok() {
        return out.extend_from_slice(super::compact(trimmed).as_bytes());
    }
    let mut object = Nest::object(out);
    // Dialects that know failed tools write this word in front.
    match text.strip_prefix("[error] ") {
        Some(error) => push_string(object.key("error"), error),
        None => push_string(object.key("output"), &text),
    }
    object.end();
}
