//! `extra_body.google`: laid over the finished body, objects into objects, the rest replaced, and
//! what is `null` taken out.
//!
//! Both sides stay raw text: what the patch does not name keeps its bytes.

use serde_json::value::RawValue;

use super::write::Nest;
use crate::error::ApiError;
use crate::json::overlay::Overlay;
use crate::json::{Fields, push_string};

const OVERLAY: Overlay = Overlay {
    depth: 32,
    null_removes: true,
    write: |out, json| out.extend_from_slice(super::compact(json).as_bytes()),
};

/// The body with the caller's own fields for this provider in it.
pub fn merge_extra(body: Vec<u8>, extra_body: &RawValue) -> Result<Vec<u8>, ApiError> {
    let extra: Fields<'_> = serde_json::from_str(extra_body.get())
        .map_err(|_| ApiError::invalid("extra_body", "extra_body must be an object"))?;
    let Some(google) = extra.get("google") else {
        return Ok(body);
    };
    let patch: Fields<'_> = serde_json::from_str(google.get()).map_err(|_| {
        ApiError::invalid("extra_body.google", "extra_body.google must be an object")
    })?;
    let (plain, renamed) = translate(&patch)?;
    let body = String::from_utf8(body).expect("the body was written from strings");
    let body = merged(&body, &plain);
    Ok(merged(&without_other_control(&body, &renamed), &renamed).into_bytes())
}

/// The patch in two parts: what is in the vendor's own names, and what was in the snake-case names
/// of its OpenAI layer, which would mean nothing here.
fn translate(patch: &Fields<'_>) -> Result<(String, String), ApiError> {
    let mut plain = Vec::new();
    let mut renamed = Vec::new();
    let mut own = Nest::object(&mut plain);
    let mut ours = Nest::object(&mut renamed);
    for (name, value) in &patch.0 {
        match &**name {
            "cached_content" => ours.raw("cachedContent", value.get()),
            "safety_settings" => ours.raw("safetySettings", value.get()),
            "thinking_config" => {
                let param = "extra_body.google.thinking_config";
                let config: Fields<'_> = serde_json::from_str(value.get())
                    .map_err(|_| ApiError::invalid(param, format!("{param} must be an object")))?;
                let mut generation = Nest::object(ours.key("generationConfig"));
                let mut thinking = Nest::object(generation.key("thinkingConfig"));
                for (name, value) in &config.0 {
                    let name = match &**name {
                        "include_thoughts" => "includeThoughts",
                        "thinking_budget" => "thinkingBudget",
                        "thinking_level" => "thinkingLevel",
                        other => other,
                    };
                    push_string(thinking.item(), name);
                    thinking.out.push(b':');
                    thinking.out.extend_from_slice(value.get().as_bytes());
                }
                thinking.end();
                generation.end();
            }
            name => {
                push_string(own.item(), name);
                own.out.push(b':');
                own.out.extend_from_slice(value.get().as_bytes());
            }
        }
    }
    own.end();
    ours.end();
    let text = |bytes| String::from_utf8(bytes).expect("written from strings");
    Ok((text(plain), text(renamed)))
}

/// A thinking budget and a level exclude each other (400 upstream), so the one the caller named
/// itself takes the place of ours.
fn without_other_control(body: &str, patch: &str) -> String {
    let other = if patch.contains("\"thinkingBudget\":") {
        "thinkingLevel"
    } else if patch.contains("\"thinkingLevel\":") {
        "thinkingBudget"
    } else {
        return body.to_owned();
    };
    let null = format!(r#"{{"generationConfig":{{"thinkingConfig":{{"{other}":null}}}}}}"#);
    let has = serde_json::from_str::<Fields<'_>>(body)
        .ok()
        .and_then(|fields| fields.get("generationConfig"))
        .and_then(|raw| serde_json::from_str::<Fields<'_>>(raw.get()).ok())
        .and_then(|fields| fields.get("thinkingConfig"))
        .and_then(|raw| serde_json::from_str::<Fields<'_>>(raw.get()).ok())
        .is_some_and(|fields| fields.get(other).is_some());
    if has {
        merged(body, &null)
    } else {
        body.to_owned()
    }
}

fn merged(base: &str, patch: &str) -> String {
    let mut out = Vec::with_capacity(base.len() + patch.len());
    OVERLAY.lay(&mut out, base, patch);
    String::from_utf8(out).expect("made of pieces of text")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, extra: &str, expected: &str) {
        let raw = RawValue::from_string(extra.to_owned()).unwrap();
        let seen = merge_extra(body.as_bytes().to_vec(), &raw).unwrap();
        assert_eq!(String::from_utf8(seen).unwrap(), expected, "{extra}");
    }

    #[test]
    fn objects_merge_and_the_rest_is_replaced() {
        check(
            r#"{"contents":[1.50],"generationConfig":{"seed":1,"topP":0.50}}"#,
            r#"{"google":{"generationConfig":{"seed": 2,"new":{ "x":1}},"contents":[2],"labels":{}}}"#,
            r#"{"contents":[2],"generationConfig":{"seed":2,"topP":0.50,"new":{"x":1}},"labels":{}}"#,
        );
        check(r#"{"a":1}"#, r#"{"anthropic":{"a":2}}"#, r#"{"a":1}"#);
    }

    #[test]
    fn snake_case_names_are_translated() {
        check(
            r#"{"contents":[],"generationConfig":{"thinkingConfig":{"thinkingLevel":"low","includeThoughts":true}}}"#,
            r#"{"google":{"thinking_config":{"thinking_budget":5},"cached_content":"c","safety_settings":[]}}"#,
            r#"{"contents":[],"generationConfig":{"thinkingConfig":{"includeThoughts":true,"thinkingBudget":5}},"cachedContent":"c","safetySettings":[]}"#,
        );
        check(
            "{}",
            r#"{"google":{"thinking_config":{"include_thoughts":false,"thinking_level":"high"}}}"#,
            r#"{"generationConfig":{"thinkingConfig":{"includeThoughts":false,"thinkingLevel":"high"}}}"#,
        );
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for extra in [
            r#"[]"#,
            r#"{"google":1}"#,
            r#"{"google":{"thinking_config":1}}"#,
        ] {
            let raw = RawValue::from_string(extra.to_owned()).unwrap();
            assert_eq!(
                merge_extra(b"{}".to_vec(), &raw).unwrap_err().status,
                400,
                "{extra}"
            );
        }
    }
}
