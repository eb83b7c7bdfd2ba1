//! Deltas -> one chat completion.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Stamp;
use super::write::{
    CallIds, MAX_CHOICES, audio_id, completion_id, finish_word, is_object, kind_name,
    push_call_head, push_citation, push_head, push_image, push_signature, push_usage,
};
use crate::chat::{Delta, DeltaSink, FinishReason, ToolKind, Usage};
use crate::dialect::Whole;
use crate::json::{push_carried, push_key, push_number, push_string};

/// Collects one answer.
pub struct Fold {
    stamp: Stamp,
    id: String,
    tier: String,
    choices: Vec<Choice>,
    usage: Usage,
}

/// One choice. Lists that are only written out again are kept as the JSON of their entries.
#[derive(Default)]
struct Choice {
    content: Option<String>,
    refusal: Option<String>,
    reasoning: String,
    extra: Option<String>,
    calls: Vec<Call>,
    ids: CallIds,
    /// Some call does not stand at its index.
    shuffled: bool,
    images: Entries,
    citations: Entries,
    audio: Option<Audio>,
    logprobs: Option<Logprobs>,
    reason: Option<FinishReason>,
}

struct Call {
    index: u32,
    id: String,
    kind: ToolKind,
    name: String,
    arguments: String,
    signature: Option<String>,
}

struct Audio {
    id: String,
    base64: String,
}

#[derive(Default)]
struct Logprobs {
    content: Option<Entries>,
    refusal: Option<Entries>,
}

/// The inside of a JSON array.
#[derive(Default)]
struct Entries(Vec<u8>);

impl Entries {
    /// Where the next entry is to be written.
    fn next(&mut self) -> &mut Vec<u8> {
        if !self.0.is_empty() {
            self.0.push(b',');
        }
        &mut self.0
    }

    fn push_to(&self, out: &mut Vec<u8>) {
        out.push(b'[');
        out.extend_from_slice(&self.0);
        out.push(b']');
    }
}

impl Fold {
    pub fn new(stamp: Stamp) -> Self {
        Fold {
            stamp,
            id: String::new(),
            tier: String::new(),
            choices: Vec::new(),
            usage: Usage::default(),
        }
    }

    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// The completion as JSON.
    pub fn into_json(mut self) -> Vec<u8> {
        // An answer has at least one choice, even if nothing came for it.
        self.choice(0);
        let mut out = Vec::with_capacity(1024);
        let id = completion_id(&self.id, self.stamp.seed);
        push_head(&mut out, &id, "chat.completion", &self.stamp);
        if !self.tier.is_empty() {
            push_key(&mut out, b',', "service_tier");
            push_string(&mut out, &self.tier);
        }
        out.extend_from_slice(b",\"choices\":[");
        for (i, choice) in self.choices.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            out.extend_from_slice(b"{\"index\":");
            push_number(&mut out, i as u64);
            choice.push_to(&mut out, self.stamp.legacy_functions);
            out.push(b'}');
        }
        out.extend_from_slice(b"],\"usage\":");
        push_usage(&mut out, &self.usage);
        out.push(b'}');
        out
    }

    fn choice(&mut self, candidate: u32) -> Option<&mut Choice> {
        if candidate >= MAX_CHOICES {
            return None;
        }
        let count = self.choices.len().max(candidate as usize + 1);
        self.choices.resize_with(count, Choice::default);
        self.choices.get_mut(candidate as usize)
    }
}

impl Whole for Fold {
    fn usage(&self) -> Usage {
        Fold::usage(self)
    }

    fn into_body(self: Box<Self>) -> Vec<u8> {
        self.into_json()
    }
}

impl Choice {
    /// Everything behind the index.
    fn push_to(&self, out: &mut Vec<u8>, legacy: bool) {
        out.extend_from_slice(b",\"message\":{\"role\":\"assistant\",\"content\":");
        push_or_null(out, self.content.as_deref());
        push_key(out, b',', "refusal");
        push_or_null(out, self.refusal.as_deref());
        if !self.reasoning.is_empty() {
            push_key(out, b',', "reasoning_content");
            push_string(out, &self.reasoning);
        }
        match self.calls.first() {
            Some(first) if legacy => {
                out.extend_from_slice(b",\"function_call\":{");
                push_call_head(out, ToolKind::Function, &first.name);
                push_string(out, first.arguments());
                out.push(b'}');
            }
            Some(_) => {
                out.extend_from_slice(b",\"tool_calls\":[");
                for (n, call) in self.calls.iter().enumerate() {
                    if n > 0 {
                        out.push(b',');
                    }
                    call.push_to(out);
                }
                out.push(b']');
            }
            None => {}
        }
        for (key, entries) in [("annotations", &self.citations), ("images", &self.images)] {
            if !entries.0.is_empty() {
                push_key(out, b',', key);
                entries.push_to(out);
            }
        }
        if let Some(audio) = &self.audio {
            out.extend_from_slice(b",\"audio\":{\"id\":");
            push_string(out, &audio.id);
            push_key(out, b',', "data");
            push_string(out, &audio.base64);
            out.extend_from_slice(b",\"transcript\":\"\",\"expires_at\":0}");
        }
        if let Some(extra) = &self.extra {
            push_key(out, b',', "extra_content");
            push_carried(out, extra);
        }
        out.extend_from_slice(b"},\"logprobs\":");
        match &self.logprobs {
            None => out.extend_from_slice(b"null"),
            Some(logprobs) => {
                for (key, before, entries) in [
                    ("content", b'{', &logprobs.content),
                    ("refusal", b',', &logprobs.refusal),
                ] {
                    push_key(out, before, key);
                    match entries {
                        None => out.extend_from_slice(b"null"),
                        Some(entries) => entries.push_to(out),
                    }
                }
                out.push(b'}');
            }
        }
        push_key(out, b',', "finish_reason");
        push_string(
            out,
            finish_word(self.reason, !self.calls.is_empty(), legacy),
        );
    }
}

impl Call {
    /// Arguments are JSON, so a function called without any gets an empty object.
    fn arguments(&self) -> &str {
        match (self.kind, &*self.arguments) {
            (ToolKind::Function, "") => "{}",
            (_, text) => text,
        }
    }

    fn push_to(&self, out: &mut Vec<u8>) {
        push_key(out, b'{', "id");
        push_string(out, &self.id);
        push_key(out, b',', "type");
        push_string(out, kind_name(self.kind));
        push_key(out, b',', kind_name(self.kind));
        out.push(b'{');
        push_call_head(out, self.kind, &self.name);
        push_string(out, self.arguments());
        out.push(b'}');
        if let Some(signature) = &self.signature {
            push_signature(out, signature);
        }
        out.push(b'}');
    }
}

impl Logprobs {
    /// Adds the tokens of one more `logprobs` object.
    fn take(&mut self, json: &str) {
        #[derive(Deserialize)]
        struct Tokens<'a> {
            #[serde(borrow, default)]
            content: Option<Vec<&'a RawValue>>,
            #[serde(borrow, default)]
            refusal: Option<Vec<&'a RawValue>>,
        }
        let Ok(tokens) = serde_json::from_str::<Tokens>(json) else {
            return;
        };
        for (entries, new) in [
            (&mut self.content, tokens.content),
            (&mut self.refusal, tokens.refusal),
        ] {
            for token in new.into_iter().flatten() {
                let entries = entries.get_or_insert_default();
                push_carried(entries.next(), token.get());
            }
        }
    }
}

fn push_or_null(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => push_string(out, text),
        None => out.extend_from_slice(b"null"),
    }
}

impl DeltaSink for Fold {
    fn put(&mut self, delta: Delta<'_>) {
        match delta {
            Delta::Start { id, .. } => {
                if self.id.is_empty() {
                    self.id.push_str(id);
                }
            }
            Delta::Usage(usage) => self.usage.merge(usage),
            Delta::ServiceTier(tier) => tier.clone_into(&mut self.tier),
            Delta::Text { candidate, text } => {
                if !text.is_empty()
                    && let Some(choice) = self.choice(candidate)
                {
                    choice.content.get_or_insert_default().push_str(text);
                }
            }
            Delta::Reasoning { candidate, text } => {
                if !text.is_empty()
                    && let Some(choice) = self.choice(candidate)
                {
                    choice.reasoning.push_str(text);
                }
            }
            Delta::Refusal { candidate, text } => {
                if !text.is_empty()
                    && let Some(choice) = self.choice(candidate)
                {
                    choice.refusal.get_or_insert_default().push_str(text);
                }
            }
            Delta::Extra { candidate, json } => {
                if is_object(json)
                    && let Some(choice) = self.choice(candidate)
                {
                    choice.extra.get_or_insert_with(|| json.trim().to_owned());
                }
            }
            Delta::ToolStart {
                candidate,
                index,
                id,
                name,
                kind,
                google_signature,
            } => {
                let seed = self.stamp.seed;
                if let Some(choice) = self.choice(candidate) {
                    let id = choice.ids.next(id, seed, candidate, choice.calls.len());
                    choice.shuffled |= index as usize != choice.calls.len();
                    choice.calls.push(Call {
                        index,
                        id: id.into_owned(),
                        kind,
                        name: name.to_owned(),
                        arguments: String::new(),
                        signature: google_signature.map(str::to_owned),
                    });
                }
            }
            Delta::ToolArgs {
                candidate,
                index,
                fragment,
            } => {
                if let Some(choice) = self.choices.get_mut(candidate as usize) {
                    let call = match choice.shuffled {
                        false => choice.calls.get_mut(index as usize),
                        true => choice.calls.iter_mut().rfind(|call| call.index == index),
                    };
                    if let Some(call) = call {
                        call.arguments.push_str(fragment);
                    }
                }
            }
            Delta::Image {
                candidate,
                mime,
                base64,
                google_signature,
            } => {
                if let Some(choice) = self.choice(candidate) {
                    let out = choice.images.next();
                    out.push(b'{');
                    push_image(out, mime, base64, google_signature);
                }
            }
            Delta::Audio {
                candidate,
                id,
                base64,
            } => {
                let seed = self.stamp.seed;
                if let Some(choice) = self.choice(candidate) {
                    let audio = choice.audio.get_or_insert_with(|| Audio {
                        id: audio_id(id, seed, candidate).into_owned(),
                        base64: String::new(),
                    });
                    audio.base64.push_str(base64);
                }
            }
            Delta::Citation {
                candidate,
                url,
                title,
                start,
                end,
            } => {
                if let Some(choice) = self.choice(candidate) {
                    let out = choice.citations.next();
                    out.push(b'{');
                    push_citation(out, url, title, start, end);
                }
            }
            Delta::Logprobs { candidate, json } => {
                if is_object(json)
                    && let Some(choice) = self.choice(candidate)
                {
                    choice.logprobs.get_or_insert_default().take(json);
                }
            }
            Delta::Finish { candidate, reason } => {
                if let Some(choice) = self.choice(candidate) {
                    choice.reason.get_or_insert(reason);
                }
            }
        }
    }
}
