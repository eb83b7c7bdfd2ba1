//! Heartbeats and empty errors, which servers in between put into streams of every format.

use std::sync::Arc;

use super::{Decoder, Flow, Format, Undo, openai};
use crate::dialect::openai::{Fold, Stamp};
use crate::failure::Failure;
use crate::golden::each_event;

fn stamp() -> Stamp {
    Stamp {
        seed: 1,
        created: 1,
        model: "m".into(),
        include_usage: false,
        legacy_functions: false,
    }
}

fn decoder(format: Format) -> Box<dyn Decoder> {
    match format.translator() {
        Some(translator) => translator.decoder(Arc::new(Undo::default())),
        None => Box::new(openai::Deltas::new(openai::RelayStream::new(
            stamp(),
            false,
        ))),
    }
}

fn folded(format: Format, stream: &str, step: usize) -> Result<Vec<u8>, Failure> {
    let mut decoder = decoder(format);
    let mut fold = Fold::new(stamp());
    let flow = each_event(stream.as_bytes(), step, |event| {
        decoder.on_event(event, &mut fold)
    })?;
    if flow == Flow::More {
        decoder.on_end(&mut fold)?;
    }
    Ok(fold.into_json())
}

/// The events of an answer that says `Hi`.
fn events(format: Format) -> &'static [&'static str] {
    match format {
        Format::OpenAi => &[
            r#"{"id":"x","choices":[{"index":0,"delta":{"role":"assistant","content":"H"}}]}"#,
            r#"{"id":"x","choices":[{"index":0,"delta":{"content":"i"},"finish_reason":"stop"}]}"#,
            "[DONE]",
        ],
        Format::Anthropic => &[
            r#"{"type":"message_start","message":{"id":"x","model":"m","usage":{"input_tokens":1}}}"#,
            r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hi"}}"#,
            r#"{"type":"content_block_stop","index":0}"#,
            r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":1}}"#,
            r#"{"type":"message_stop"}"#,
        ],
        Format::Gemini => &[
            r#"{"candidates":[{"content":{"parts":[{"text":"H"}]}}],"responseId":"x"}"#,
            r#"{"candidates":[{"content":{"parts":[{"text":"i"}]},"finishReason":"STOP"}]}"#,
        ],
        Format::Responses => &[
            r#"{"type":"response.created","response":{"id":"x","status":"in_progress","output":[]}}"#,
            r#"{"type":"response.output_text.delta","output_index":0,"content_index":0,"delta":"Hi"}"#,
            r#"{"type":"response.completed","response":{"id":"x","status":"completed","output":[]}}"#,
        ],
    }
}

#[test]
fn they_say_nothing_in_any_format() {
    for (name, format) in Format::ALL {
        let plain: Vec<String> = events(format)
            .iter()
            .map(|data| format!("data: {data}\n\n"))
            .collect();
        let expected = folded(format, &plain.concat(), usize::MAX).unwrap();
        let text = String::from_utf8_lossy(&expected);
        assert!(text.contains("\"content\":\"Hi\""), "{name}: {text}");
        for beat in [
            ": keepalive\n\n",
            "data: : keepalive\n\n",
            "data:\n\n",
            "event: ping\n\n",
            "event: ping\ndata: {\"type\":\"ping\"}\n\n",
            "event: ping\ndata: {\"type\": \"ping\", \"error\": {}}\n\n",
            "data: {}\n\n",
            "data: \"\"\n\n",
            "data: ping\n\n",
            "data: {\"error\":null}\n\n",
        ] {
            let stream: String = plain.iter().map(|event| beat.to_owned() + event).collect();
            for step in [1, usize::MAX] {
                let told = folded(format, &stream, step);
                assert_eq!(told.as_ref(), Ok(&expected), "{name}: {beat:?}");
            }
            let nothing = folded(format, beat, usize::MAX);
            assert!(nothing.is_err(), "{name}: {beat:?} alone");
        }
        for nothing in ["{}", "null", "\"\"", "[]", "false", "{ }"] {
            let with = |event: &String| {
                event.replacen("data: {", &format!("data: {{\"error\":{nothing},"), 1)
            };
            let stream: String = plain.iter().map(with).collect();
            let told = folded(format, &stream, 7);
            assert_eq!(told.as_ref(), Ok(&expected), "{name}: {nothing}");
        }
        let error = plain[0].clone() + "data: {\"error\":{\"message\":\"m\",\"code\":503}}\n\n";
        let failure = folded(format, &error, 7).unwrap_err();
        assert_eq!(failure.message, "m", "{name}");
    }
}
