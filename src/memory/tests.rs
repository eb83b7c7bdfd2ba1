use super::*;
use crate::chat::{ToolCall, ToolKind};

fn start(index: u32, id: &'static str, signature: Option<&'static str>) -> Delta<'static> {
    Delta::ToolStart {
        candidate: 0,
        index,
        id,
        name: "f",
        kind: ToolKind::Function,
        google_signature: signature,
    }
}

fn history(ids: &[&str]) -> Vec<Message<'static>> {
    let mut message = Message::new(Role::Assistant);
    message.tool_calls = ids
        .iter()
        .map(|id| ToolCall {
            id: (*id).to_owned().into(),
            kind: ToolKind::Function,
            name: "f".into(),
            arguments: "{}".into(),
            google_signature: None,
        })
        .collect();
    vec![Message::new(Role::User), message]
}

#[test]
fn what_was_signed_comes_back_to_the_upstream_that_made_it() {
    let memory = Memory::default();
    let mut notes = Notes::new(7);
    notes.take(&start(0, "a", Some("sig")));
    notes.take(&start(1, "b", None));
    let json = r#"{"anthropic":{"thinking_blocks":[{"type":"thinking"}]},
        "google":{"tool_parts":[{"toolCall":{}}]},"x":1}"#;
    notes.take(&Delta::Extra { candidate: 0, json });
    notes.keep(&memory, "up", 2);

    let mut messages = history(&["a", "b"]);
    let recalled = memory.recall_all(&messages);
    assert_eq!(recalled.key("up"), Some(2));
    recalled.fill(&mut messages, "other");
    assert!(messages[1].thinking_blocks.is_none());
    recalled.fill(&mut messages, "up");
    let calls = &messages[1].tool_calls;
    assert_eq!(calls[0].google_signature.as_deref(), Some("sig"));
    assert_eq!(calls[1].google_signature, None);
    let blocks = messages[1].thinking_blocks.map(RawValue::get);
    assert_eq!(blocks, Some(r#"[{"type":"thinking"}]"#));
    let parts = messages[1].google_parts.map(RawValue::get);
    assert_eq!(parts, Some(r#"[{"toolCall":{}}]"#));
    // The first upstream failed, and the next one can make nothing of it.
    recalled.fill(&mut messages, "other");
    assert!(messages[1].thinking_blocks.is_none() && messages[1].google_parts.is_none());
    assert_eq!(messages[1].tool_calls[0].google_signature, None);
}

#[test]
fn the_signature_of_a_picture_comes_back_with_the_picture() {
    let memory = Memory::default();
    let mut notes = Notes::new(7);
    let image = |base64, google_signature| Delta::Image {
        candidate: 0,
        mime: "image/png",
        base64,
        google_signature,
    };
    notes.take(&image("QUFB", Some("A")));
    notes.take(&image("QkJC", None));
    notes.keep(&memory, "up", 1);
    let mut message = Message::new(Role::Assistant);
    for url in [
        "data:image/png;base64,QUFB",
        "data:image/png;base64,QkJC",
        "https://x.example/p.png",
    ] {
        message.images.push(Part::image(url.into()));
    }
    let again = Part::image("data:image/png;base64,QUFB".into());
    let mut messages = vec![Message::new(Role::Assistant), message];
    messages[0].content.push(again);
    let recalled = memory.recall_all(&messages);
    assert_eq!(recalled.key("up"), Some(1));
    recalled.fill(&mut messages, "up");
    assert_eq!(
        messages[0].content[0].google_signature.as_deref(),
        Some("A")
    );
    // Where it stands twice, one of them has it.
    let of_images = messages[1].images.iter();
    assert!(
        of_images
            .clone()
            .all(|part| part.google_signature.is_none())
    );
    recalled.fill(&mut messages, "other");
    assert_eq!(messages[0].content[0].google_signature, None);
}

#[test]
fn the_notes_of_one_answer_are_bounded() {
    let mut notes = Notes::new(7);
    let long: &'static str = "s".repeat(NOTED / 3 + 1).leak();
    for index in 0..4 {
        notes.take(&start(index, "", Some(long)));
        notes.take(&Delta::Image {
            candidate: 0,
            mime: "image/png",
            base64: "QUFB",
            google_signature: Some(long),
        });
    }
    let signed = notes.calls.iter().filter(|(.., signed)| signed.is_some());
    assert_eq!(signed.count() + notes.pictures.len(), 2);
    assert_eq!(notes.calls.len(), 4);
    assert!(notes.bytes <= NOTED);
}

#[test]
fn what_the_caller_sends_counts_for_more() {
    let memory = Memory::default();
    let mut notes = Notes::new(7);
    notes.take(&start(0, "a", Some("sig")));
    notes.keep(&memory, "up", 0);
    let mut messages = history(&["a"]);
    messages[1].tool_calls[0].google_signature = Some("own".into());
    let recalled = memory.recall_all(&messages);
    recalled.fill(&mut messages, "up");
    let call = &messages[1].tool_calls[0];
    assert_eq!(call.google_signature.as_deref(), Some("own"));
    recalled.fill(&mut messages, "other");
    let call = &messages[1].tool_calls[0];
    assert_eq!(call.google_signature.as_deref(), Some("own"));
}

#[test]
fn memory_is_bounded_and_forgets_the_unused() {
    let memory = Memory::default();
    let signed = |size: usize| {
        Arc::new(Signed {
            google_signature: Some("x".repeat(size)),
            ..Signed::default()
        })
    };
    memory.keep("used".into(), signed(10));
    memory.keep("unused".into(), signed(10));
    for number in 0..10_000 {
        memory.keep(number.to_string(), signed(1000));
        assert!(memory.recall("used").is_some(), "{number}");
    }
    assert!(memory.recall("unused").is_none());
    memory.keep("huge".into(), signed(CAPACITY));
    assert!(memory.recall("huge").is_none());
    let halves = memory.signed.lock();
    let total: usize = halves
        .young
        .iter()
        .chain(&halves.old)
        .map(|(id, signed)| id.len() + signed.size())
        .sum();
    assert!(total <= CAPACITY, "{total}");
}
