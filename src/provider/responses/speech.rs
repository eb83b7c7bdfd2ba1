//! What a message says beside its text: citations and log probabilities, in OpenAI's older shapes.

use serde_json::value::RawValue;

use super::wire::{self, Annotation};
use crate::chat::{Delta, DeltaSink};
use crate::json::{Fields, push_string};
use crate::provider::gemini::compact;

/// Puts out a citation of a web page. `base` is how much content stands before the part that the
/// positions count in.
pub fn cite(raw: &RawValue, base: u64, out: &mut dyn DeltaSink) {
    let Some(annotation) = wire::read::<Annotation<'_>>(Some(raw)) else {
        return;
    };
    // Citations of files have no address that a caller could open.
    if &*annotation.kind != "url_citation" || annotation.url.is_empty() {
        return;
    }
    let start = annotation.start_index.0.unwrap_or(0);
    let end = annotation.end_index.0.unwrap_or(start).max(start);
    out.put(Delta::Citation {
        candidate: 0,
        url: &annotation.url,
        title: &annotation.title,
        start: base.saturating_add(start),
        end: base.saturating_add(end),
    });
}

/// Puts out the log probabilities of a piece of text.
pub fn log_probabilities(raw: &RawValue, out: &mut dyn DeltaSink) {
    let tokens = wire::list(Some(raw));
    if tokens.is_empty() {
        return;
    }
    let mut json = br#"{"content":["#.to_vec();
    for (place, token) in tokens.into_iter().enumerate() {
        let fields = wire::read::<Fields<'_>>(Some(token)).unwrap_or_default();
        if place > 0 {
            json.push(b',');
        }
        push_token(&mut json, &fields);
        json.extend_from_slice(br#","top_logprobs":["#);
        let others = wire::list(fields.get("top_logprobs"));
        for (place, other) in others.into_iter().enumerate() {
            if place > 0 {
                json.push(b',');
            }
            let fields = wire::read::<Fields<'_>>(Some(other)).unwrap_or_default();
            push_token(&mut json, &fields);
            json.push(b'}');
        }
        json.extend_from_slice(b"]}");
    }
    json.extend_from_slice(br#"],"refusal":null}"#);
    let json = String::from_utf8(json).expect("made of pieces of text");
    out.put(Delta::Logprobs {
        candidate: 0,
        json: &json,
    });
}

/// One token, its object left open.
fn push_token(json: &mut Vec<u8>, fields: &Fields<'_>) {
    let token = fields.parse::<String>("token").and_then(Result::ok);
    let token = token.unwrap_or_default();
    json.extend_from_slice(br#"{"token":"#);
    push_string(json, &token);
    json.extend_from_slice(br#","logprob":"#);
    let logprob = fields.get("logprob");
    let logprob = logprob.filter(|raw| raw.get().parse().is_ok_and(f64::is_finite));
    json.extend_from_slice(logprob.map_or("0", RawValue::get).as_bytes());
    json.extend_from_slice(br#","bytes":"#);
    match fields.parse::<Vec<u8>>("bytes") {
        // Empty where the provider does not tell them.
        Some(Ok(bytes)) if !bytes.is_empty() => {
            let raw = fields.get("bytes").map_or("null", RawValue::get);
            json.extend_from_slice(compact(raw).as_bytes());
        }
        _ => serde_json::to_writer(&mut *json, token.as_bytes())
            .expect("writing to memory does not fail"),
    }
}
