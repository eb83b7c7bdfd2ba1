//! The items of a Responses request, each handed to what writes the messages of a chat request.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::parts::{media, picture};
use super::tools::{SEARCH, push_object, wrapped};
use super::turns::Turns;
use crate::dialect::openai::read::{Object, Path, array, is_object, is_string, string};
use crate::error::ApiError;
use crate::json::{push_key, push_string};
use crate::seal::Holds;

impl Turns<'_, '_> {
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
            Some("image_generation_call") => {
                self.begun = true;
                self.end_user();
                let result = item.string("result")?;
                let made = result.filter(|base64| !base64.is_empty());
                self.said.images.extend(made.map(|base64| picture(&base64)));
                Ok(())
            }
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
                if !text.is_empty() {
                    self.said.texts.push(text);
                }
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
}

fn is_json_object(json: &str) -> bool {
    serde_json::from_str::<crate::json::Fields<'_>>(json).is_ok()
}
