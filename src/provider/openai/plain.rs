//! Messages without what some servers do not know, and fields that the config leaves out.

use std::cell::RefCell;

use serde_json::{Map, Value};

use super::edit::push_object;
use super::pictures;
use super::strip::map_list;
use crate::json::Fields;

/// What weir and the servers like it add to their answers, and callers send back.
const ADDED: &[&str] = &[
    "annotations",
    "extra_content",
    "reasoning",
    "reasoning_content",
    "reasoning_details",
    "thinking_blocks",
];

/// Members of an answer that say nothing when they are null.
const NULLED: &[&str] = &["audio", "function_call", "images", "refusal", "tool_calls"];

/// `messages` with nothing but what the first servers of this format knew; `None` if that is all
/// there is. What the caller meant and is lost is named in `dropped`.
pub fn plain_messages(messages: &str, dropped: &mut Vec<String>) -> Option<String> {
    let lost = RefCell::new(Vec::new());
    let lose = |key: &str| {
        let name = format!("messages.{key}");
        let mut lost = lost.borrow_mut();
        if !lost.contains(&name) {
            lost.push(name);
        }
    };
    let without = pictures::without(messages);
    if without.is_some() {
        lose("images");
    }
    let less = map_list(without.as_deref().unwrap_or(messages), |message| {
        let mut message: Map<String, Value> = serde_json::from_str(message).ok()?;
        let before = message.len();
        let mut changed = false;
        let is_answer = message.get("role").is_some_and(|role| role == "assistant");
        for key in ADDED {
            // Nobody but the caller puts such things into messages of other roles.
            if message
                .shift_remove(*key)
                .is_some_and(|value| !value.is_null())
                && !is_answer
            {
                lose(key);
            }
        }
        for key in NULLED {
            if message.get(*key).is_some_and(Value::is_null) {
                message.shift_remove(*key);
            }
        }
        match message.shift_remove("images") {
            Some(Value::Array(images)) if images.is_empty() => {}
            None => {}
            Some(_) => lose("images"),
        }
        // The words of a refusal are what the model said.
        if let Some(Value::String(refusal)) = message.shift_remove("refusal") {
            let content = message.entry("content").or_insert(Value::Null);
            if content.is_null() || content.as_str() == Some("") {
                *content = refusal.into();
            } else if !refusal.is_empty() {
                lose("refusal");
            }
        }
        let calls = message.get_mut("tool_calls").and_then(Value::as_array_mut);
        for call in calls.into_iter().flatten().filter_map(Value::as_object_mut) {
            changed |= call.shift_remove("extra_content").is_some();
            changed |= call.shift_remove("index").is_some();
        }
        changed |= message.len() != before;
        changed.then(|| Value::Object(message).to_string())
    });
    let plain = less.or(without)?;
    dropped.append(&mut lost.into_inner());
    Some(plain)
}

/// `json` without the member that `path` names: `store`, `a.b`, or `messages[].refusal`, where
/// `[]` stands for each entry of a list. `None` if it is not there.
pub fn without(json: &str, path: &str) -> Option<String> {
    let (step, rest) = match path.split_once('.') {
        Some((step, rest)) => (step, Some(rest)),
        None => (path, None),
    };
    let (name, each) = match step.strip_suffix("[]") {
        Some(name) => (name, true),
        None => (step, false),
    };
    if !json.starts_with('{') {
        return None;
    }
    let fields: Fields = serde_json::from_str(json).ok()?;
    let mut changed = false;
    let mut members = Vec::with_capacity(fields.0.len());
    for (key, value) in &fields.0 {
        let value = value.get();
        if key != name {
            members.push((&**key, value.to_owned()));
            continue;
        }
        let less = match rest {
            // A list of which each entry goes is an empty list.
            None if each => Some("[]".to_owned()),
            None => {
                changed = true;
                continue;
            }
            Some(rest) if each => map_list(value, |entry| without(entry, rest)),
            Some(rest) => without(value, rest),
        };
        changed |= less.is_some();
        members.push((&**key, less.unwrap_or_else(|| value.to_owned())));
    }
    if !changed {
        return None;
    }
    let mut out = Vec::new();
    push_object(
        &mut out,
        members.iter().map(|(key, value)| (*key, &**value)),
    );
    String::from_utf8(out).ok()
}

/// The parts of a path, if it is one.
pub fn is_path(path: &str) -> bool {
    !path.is_empty()
        && path
            .split('.')
            .all(|step| !step.strip_suffix("[]").unwrap_or(step).is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_reach_into_objects_and_lists() {
        let json = r#"{"a":1,"messages":[{"role":"user", "x":2},{"refusal":null,"role":"assistant","calls":[{"x":1,"y":2}]}],"b":{"c":{"d":1,"e":2}}}"#;
        for (path, expected) in [
            (
                "a",
                r#"{"messages":[{"role":"user", "x":2},{"refusal":null,"role":"assistant","calls":[{"x":1,"y":2}]}],"b":{"c":{"d":1,"e":2}}}"#,
            ),
            (
                "messages[].refusal",
                r#"{"a":1,"messages":[{"role":"user", "x":2},{"role":"assistant","calls":[{"x":1,"y":2}]}],"b":{"c":{"d":1,"e":2}}}"#,
            ),
            (
                "messages[].calls[].x",
                r#"{"a":1,"messages":[{"role":"user", "x":2},{"refusal":null,"role":"assistant","calls":[{"y":2}]}],"b":{"c":{"d":1,"e":2}}}"#,
            ),
            (
                "b.c.d",
                r#"{"a":1,"messages":[{"role":"user", "x":2},{"refusal":null,"role":"assistant","calls":[{"x":1,"y":2}]}],"b":{"c":{"e":2}}}"#,
            ),
        ] {
            assert_eq!(without(json, path).as_deref(), Some(expected), "{path}");
        }
        for path in [
            "z",
            "a.b",
            "messages.refusal",
            "messages[].z",
            "b[].c",
            "a[].b",
        ] {
            assert_eq!(without(json, path), None, "{path}");
        }
        assert!(["a", "a.b", "a[].b", "a[]"].into_iter().all(is_path));
        assert!(!["", ".", "a.", "[]", "a..b"].into_iter().any(is_path));
    }

    #[test]
    fn messages_lose_what_was_added_and_keep_what_was_said() {
        let messages = r#"[{"role":"user","content":"a"},{"role":"assistant","content":null,"refusal":"no","reasoning_content":"r","annotations":[],"audio":null},{"role":"assistant","content":"b","refusal":null,"images":[{"x":1}],"tool_calls":[{"id":"c","index":0,"type":"function","function":{"name":"f","arguments":"{}"},"extra_content":{}}]},{"role":"tool","tool_call_id":"c","content":"d"}]"#;
        let mut dropped = Vec::new();
        let plain = plain_messages(messages, &mut dropped).unwrap();
        assert_eq!(
            plain,
            r#"[{"role":"user","content":"a"},{"role":"assistant","content":"no"},{"role":"assistant","content":"b","tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"c","content":"d"}]"#
        );
        assert_eq!(dropped, ["messages.images"]);
        assert_eq!(plain_messages(&plain, &mut dropped), None);
        assert_eq!(dropped, ["messages.images"]);
        // A picture alone leaves a word, and what is the caller's own is named.
        let messages = r#"[{"role":"user","content":"a","reasoning":"mine","annotations":null},{"role":"assistant","content":null,"images":[{"x":1}]},{"role":"assistant","content":"b","refusal":"c","images":[]}]"#;
        let mut dropped = Vec::new();
        assert_eq!(
            plain_messages(messages, &mut dropped).unwrap(),
            r#"[{"role":"user","content":"a"},{"role":"assistant","content":"[picture]"},{"role":"assistant","content":"b"}]"#
        );
        assert_eq!(
            dropped,
            ["messages.images", "messages.reasoning", "messages.refusal"]
        );
    }
}
