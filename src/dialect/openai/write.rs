//! What chunks and whole completions have in common: ids, usage, finish reasons, tool calls.

use std::borrow::Cow;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::Stamp;
use crate::chat::{FinishReason, ToolKind, Usage};
use crate::json::{push_key, push_number, push_string};

/// More choices than anyone may ask for; deltas for others are dropped.
pub const MAX_CHOICES: u32 = 128;

/// What an id is for. Each use draws from its own series of the seed.
const FOR_COMPLETION: u64 = 1;
const FOR_CALL: u64 = 2;
const FOR_AUDIO: u64 = 3;

/// The id of the answer: the upstream's, or one made from `seed`.
pub fn completion_id(upstream: &str, seed: u64) -> Cow<'_, str> {
    match upstream {
        "" => Cow::Owned(made_up("chatcmpl-", seed, FOR_COMPLETION, 0)),
        id => Cow::Borrowed(id),
    }
}

/// The id of a tool call. Only this alphabet lets a history move between providers.
pub fn call_id<'a>(upstream: &'a str, seed: u64, candidate: u32, n: usize) -> Cow<'a, str> {
    let fits = (1..=64).contains(&upstream.len())
        && upstream
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    if fits {
        return Cow::Borrowed(upstream);
    }
    let number = (u64::from(candidate) << 32) | (n as u64 & 0xffff_ffff);
    Cow::Owned(made_up("call_", seed, FOR_CALL, number))
}

/// The ids of the calls of one choice, of which no two are the same: callers give results back by
/// them.
#[derive(Default)]
pub struct CallIds(HashSet<u64>);

impl CallIds {
    /// The id of the next call: the upstream's, unless it has none or gives it twice.
    pub fn next<'a>(
        &mut self,
        upstream: &'a str,
        seed: u64,
        candidate: u32,
        n: usize,
    ) -> Cow<'a, str> {
        let id = call_id(upstream, seed, candidate, n);
        let mut hasher = DefaultHasher::new();
        id.hash(&mut hasher);
        match self.0.insert(hasher.finish()) {
            true => id,
            false => call_id("", seed, candidate, n),
        }
    }
}

pub fn audio_id<'a>(upstream: &'a str, seed: u64, candidate: u32) -> Cow<'a, str> {
    match upstream {
        "" => Cow::Owned(made_up("audio_", seed, FOR_AUDIO, u64::from(candidate))),
        id => Cow::Borrowed(id),
    }
}

/// `prefix` and 24 letters and digits that follow from the three numbers.
fn made_up(prefix: &str, seed: u64, purpose: u64, number: u64) -> String {
    const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut id = String::with_capacity(prefix.len() + 24);
    id.push_str(prefix);
    let mut state = mix(mix(seed ^ (purpose << 56)) ^ number);
    for _ in 0..3 {
        state = mix(state);
        let mut digits = state;
        for _ in 0..8 {
            id.push(char::from(ALPHABET[(digits % 62) as usize]));
            digits /= 62;
        }
    }
    id
}

/// One step of splitmix64: every bit of the result depends on every bit of the input.
fn mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The usage object. A counter that the upstream never named counts as 0 where OpenAI's clients
/// require a number, and is left out of the details.
pub fn push_usage(out: &mut Vec<u8>, usage: &Usage) {
    let (prompt, completion) = (usage.prompt.unwrap_or(0), usage.completion.unwrap_or(0));
    out.extend_from_slice(b"{\"prompt_tokens\":");
    push_number(out, prompt);
    out.extend_from_slice(b",\"completion_tokens\":");
    push_number(out, completion);
    out.extend_from_slice(b",\"total_tokens\":");
    push_number(out, prompt.saturating_add(completion));
    push_details(
        out,
        "prompt_tokens_details",
        &[
            ("cached_tokens", usage.cached),
            ("cache_write_tokens", usage.cache_write),
            ("audio_tokens", usage.prompt_audio),
            ("image_tokens", usage.prompt_image),
        ],
    );
    push_details(
        out,
        "completion_tokens_details",
        &[("reasoning_tokens", usage.reasoning)],
    );
    out.push(b'}');
}

fn push_details(out: &mut Vec<u8>, key: &str, counters: &[(&str, Option<u64>)]) {
    let known = || {
        let counters = counters.iter();
        counters.filter_map(|(name, count)| count.map(|count| (*name, count)))
    };
    if known().next().is_none() {
        return;
    }
    push_key(out, b',', key);
    for (i, (name, count)) in known().enumerate() {
        push_key(out, if i == 0 { b'{' } else { b',' }, name);
        push_number(out, count);
    }
    out.push(b'}');
}

/// `"id":...,"object":...,"created":...,"model":...`, which every object of an answer begins with.
pub fn push_head(out: &mut Vec<u8>, id: &str, object: &str, stamp: &Stamp) {
    out.extend_from_slice(b"{\"id\":");
    push_string(out, id);
    push_key(out, b',', "object");
    push_string(out, object);
    push_key(out, b',', "created");
    push_number(out, stamp.created);
    push_key(out, b',', "model");
    push_string(out, &stamp.model);
}

/// `"name":...,"arguments":` (or `"input":`); the text of the arguments follows.
pub fn push_call_head(out: &mut Vec<u8>, kind: ToolKind, name: &str) {
    out.extend_from_slice(b"\"name\":");
    push_string(out, name);
    push_key(out, b',', arguments_key(kind));
}

pub fn kind_name(kind: ToolKind) -> &'static str {
    match kind {
        ToolKind::Function => "function",
        ToolKind::Custom => "custom",
    }
}

pub fn arguments_key(kind: ToolKind) -> &'static str {
    match kind {
        ToolKind::Function => "arguments",
        ToolKind::Custom => "input",
    }
}

pub fn push_signature(out: &mut Vec<u8>, signature: &str) {
    out.extend_from_slice(b",\"extra_content\":{\"google\":{\"thought_signature\":");
    push_string(out, signature);
    out.extend_from_slice(b"}}");
}

/// The `url_citation` object of an annotation.
pub fn push_citation(out: &mut Vec<u8>, url: &str, title: &str, start: u64, end: u64) {
    out.extend_from_slice(b"\"type\":\"url_citation\",\"url_citation\":{\"start_index\":");
    push_number(out, start);
    push_key(out, b',', "end_index");
    push_number(out, end);
    push_key(out, b',', "title");
    push_string(out, title);
    push_key(out, b',', "url");
    push_string(out, url);
    out.extend_from_slice(b"}}");
}

/// `"type":"image_url","image_url":{"url":"data:..."}}`, with the signature behind it.
pub fn push_image(out: &mut Vec<u8>, mime: &str, base64: &str, signature: Option<&str>) {
    use crate::json::push_escaped;
    out.extend_from_slice(b"\"type\":\"image_url\",\"image_url\":{\"url\":\"data:");
    push_escaped(out, mime);
    out.extend_from_slice(b";base64,");
    push_escaped(out, base64);
    out.extend_from_slice(b"\"}");
    if let Some(signature) = signature {
        push_signature(out, signature);
    }
    out.push(b'}');
}

/// The word for how a choice ended. An answer that holds a call ended with it, whatever the
/// upstream says, because agents decide by this word whether to run it.
pub fn finish_word(reason: Option<FinishReason>, called: bool, legacy: bool) -> &'static str {
    match reason {
        Some(FinishReason::Length) => "length",
        Some(FinishReason::ContentFilter) => "content_filter",
        _ if called && legacy => "function_call",
        _ if called => "tool_calls",
        _ => "stop",
    }
}

/// Whether `json` is one JSON object.
pub fn is_object(json: &str) -> bool {
    json.trim_start().starts_with('{')
        && serde_json::from_str::<serde::de::IgnoredAny>(json).is_ok()
}
