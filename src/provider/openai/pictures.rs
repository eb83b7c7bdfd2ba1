//! Pictures that a model made, in histories for OpenAI itself, which has none in an assistant's
//! message.

use std::borrow::Cow;

use super::edit::push_object;
use super::strip::map_list;
use crate::json::Fields;
use crate::provider::pictures::LOST_PICTURE;

/// `messages` without those pictures; `None` if there are none. A message that was nothing else
/// says so, because one without content is refused.
pub fn without(messages: &str) -> Option<String> {
    if !messages.contains("\"images\"") {
        return None;
    }
    map_list(messages, |message| {
        let fields: Fields = serde_json::from_str(message).ok()?;
        let role = fields.parse::<Cow<str>>("role")?.ok()?;
        let images = fields.get("images")?.get();
        if role != "assistant" || is_empty(images) {
            return None;
        }
        let is_silent = ["content", "tool_calls", "function_call", "refusal"]
            .iter()
            .filter_map(|key| fields.get(key))
            .all(|value| is_empty(value.get()));
        let kept = fields
            .0
            .iter()
            .filter(|(key, _)| key != "images" && (key != "content" || !is_silent))
            .map(|(key, value)| (&**key, value.get()));
        let word = format!("\"{LOST_PICTURE}\"");
        let said = is_silent.then_some(("content", &*word));
        let mut object = Vec::new();
        push_object(&mut object, kept.chain(said));
        String::from_utf8(object).ok()
    })
}

fn is_empty(json: &str) -> bool {
    let inside = json.trim_start_matches('[').trim_end_matches(']');
    matches!(json, "null" | "\"\"") || inside.trim().is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_was_only_a_picture_says_so() {
        let image = r#"[{"type":"image_url","image_url":{"url":"data:image/png;base64,QQ=="}}]"#;
        for (message, left) in [
            (
                format!(r#"{{"role":"assistant","content":"here","images":{image}}}"#),
                r#"{"role":"assistant","content":"here"}"#,
            ),
            (
                format!(r#"{{"role":"assistant","content":null,"images":{image},"name":"x"}}"#),
                r#"{"role":"assistant","name":"x","content":"[picture]"}"#,
            ),
            (
                format!(r#"{{"role":"assistant","tool_calls":[{{}}],"images":{image}}}"#),
                r#"{"role":"assistant","tool_calls":[{}]}"#,
            ),
        ] {
            assert_eq!(
                without(&format!("[{message}]")),
                Some(format!("[{left}]")),
                "{message}"
            );
        }
        for message in [
            r#"{"role":"assistant","content":"a","images":[ ]}"#,
            r#"{"role":"assistant","content":"a","images":null}"#,
            r#"{"role":"user","content":"\"images\""}"#,
            r#"{"role":"assistant"}"#,
        ] {
            assert_eq!(without(&format!("[{message}]")), None, "{message}");
        }
    }
}
