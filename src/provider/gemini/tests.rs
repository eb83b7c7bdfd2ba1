//! What the encoder and the decoder must do that reads better as code than as golden files.

use std::sync::Arc;

use super::GenerateContent;
use super::decode::Decode;
use super::heard::Heard;
use crate::chat::FinishReason;
use crate::dialect::openai::Head;
use crate::error::ApiError;
use crate::failure::{Class, Failure};
use crate::provider::{Decoder, Encoded, Options, Provider, Undo};
use crate::sse::Event;

#[test]
fn golden_files() {
    crate::golden::check("gemini", &GenerateContent);
}

fn encode(request: &str, options: &Options) -> Result<Encoded, ApiError> {
    let head = Head::read(request.as_bytes())?;
    let parsed = head.parse()?;
    GenerateContent.encode(&parsed, &head.model, options)
}

fn sent(request: &str, options: &Options) -> String {
    String::from_utf8(encode(request, options).unwrap().body).unwrap()
}

fn decoder() -> Decode {
    Decode::new(Arc::new(Undo::default()))
}

fn event(decoder: &mut Decode, data: &str, heard: &mut Heard) -> Result<(), Failure> {
    let event = Event {
        data: data.as_bytes(),
        bare: false,
    };
    decoder.on_event(event, heard).map(drop)
}

const HI: &str = r#""messages":[{"role":"user","content":"Hi"}]"#;

#[test]
fn configured_safety_settings_are_sent() {
    let mut options = Options::default();
    options.gemini.safety_settings = Some(r#"[{"category":"C","threshold":"T"}]"#.into());
    assert_eq!(
        sent(&format!(r#"{{"model":"gemini-2.5-pro",{HI}}}"#), &options),
        r#"{"contents":[{"role":"user","parts":[{"text":"Hi"}]}],"safetySettings":[{"category":"C","threshold":"T"}]}"#
    );
}

#[test]
fn thoughts_can_be_left_out_by_configuration() {
    let mut options = Options::default();
    options.gemini.include_thoughts = false;
    let body = sent(
        &format!(r#"{{"model":"gemini-4-argon",{HI},"reasoning_effort":"high"}}"#),
        &options,
    );
    assert!(
        body.ends_with(r#""thinkingConfig":{"thinkingLevel":"high"}}}"#),
        "{body}"
    );
}

#[test]
fn switched_off_thoughts_are_never_shown() {
    let mut options = Options::default();
    options.gemini.include_thoughts = false;
    let ask = format!(r#"{{"model":"gemini-4-argon",{HI},"reasoning_effort":"none"}}"#);
    let body = sent(&ask, &options);
    assert!(body.contains(r#""includeThoughts":false"#), "{body}");
}

#[test]
fn a_configured_voice_speaks() {
    let mut options = Options::default();
    options.gemini.voices = vec![("alloy".into(), "Kore".into())];
    let ask = |model: &str, voice: &str| {
        format!(
            r#"{{"model":"{model}",{HI},"modalities":["audio"],"audio":{{"voice":{voice},"format":"wav"}}}}"#
        )
    };
    let expected = r#""generationConfig":{"responseModalities":["AUDIO"],"speechConfig":{"voiceConfig":{"prebuiltVoiceConfig":{"voiceName":"Kore"}}}}}"#;
    for voice in [r#""alloy""#, r#"{"id":"alloy"}"#] {
        let body = sent(&ask("gemini-2.5-flash-preview-tts", voice), &options);
        assert!(body.ends_with(expected), "{body}");
    }
    let text_model = format!(r#"{{"model":"gemini-2.5-pro",{HI},"audio":{{"voice":"alloy"}}}}"#);
    assert!(encode(&text_model, &options).is_err());
    let error = encode(&ask("gemini-2.5-flash-preview-tts", r#""ash""#), &options).unwrap_err();
    assert_eq!(error.param.as_deref(), Some("audio"));
}

#[test]
fn a_trailing_assistant_message_can_be_refused() {
    let mut options = Options::default();
    options.gemini.reject_prefill = true;
    let ask = r#"{"model":"gemini-2.5-pro","messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}"#;
    assert_eq!(
        encode(ask, &options).unwrap_err().param.as_deref(),
        Some("messages")
    );
    // The last word is a tool's, if of a call before that turn.
    let ask = r#"{"model":"gemini-2.5-pro","messages":[{"role":"user","content":"a"},{"role":"assistant","tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"user","content":"well?"},{"role":"assistant","content":"b"},{"role":"tool","tool_call_id":"c","content":"r"}]}"#;
    assert!(encode(ask, &options).is_ok());
}

#[test]
fn a_request_stripped_of_refused_signatures_gets_placeholders() {
    let ask = r#"{"model":"gemini-4-argon","messages":[{"role":"user","content":"a"},
        {"role":"assistant","content":"t","extra_content":{"google":{"thought_signature":"TS"}},"tool_calls":[
            {"id":"c1","type":"function","function":{"name":"f","arguments":"{}"},"extra_content":{"google":{"thought_signature":"S"}}},
            {"id":"c2","type":"function","function":{"name":"f","arguments":"{}"}}]},
        {"role":"tool","tool_call_id":"c1","content":"1"},{"role":"tool","tool_call_id":"c2","content":"2"}]}"#;
    let head = Head::read(ask.as_bytes()).unwrap();
    let mut parsed = head.parse().unwrap();
    parsed.strip_signatures();
    let options = Options::default();
    let encoded = GenerateContent.encode(&parsed, "gemini-4-argon", &options);
    let after = String::from_utf8(encoded.unwrap().body).unwrap();
    let expected = sent(ask, &options)
        .replace(r#","thoughtSignature":"TS""#, "")
        .replace(r#""S""#, r#""skip_thought_signature_validator""#);
    assert_eq!(after, expected);
}

#[test]
fn more_tools_than_the_vendor_takes_are_refused() {
    let tools: Vec<_> = (0..513)
        .map(|i| format!(r#"{{"type":"function","function":{{"name":"f{i}"}}}}"#))
        .collect();
    let ask = format!(
        r#"{{"model":"gemini-2.5-pro",{HI},"tools":[{}]}}"#,
        tools.join(",")
    );
    assert_eq!(
        encode(&ask, &Options::default())
            .unwrap_err()
            .param
            .as_deref(),
        Some("tools")
    );
}

#[test]
fn a_missing_signature_asks_for_a_repair() {
    let mut heard = Heard::default();
    let mut decoder = decoder();
    let data = r#"{"candidates":[{"finishReason":"MISSING_THOUGHT_SIGNATURE"}]}"#;
    event(&mut decoder, data, &mut heard).unwrap();
    let failure = decoder.on_end(&mut heard).unwrap_err();
    assert!(failure.signature_refused && failure.class == Class::Server && failure.status == 502);
    assert!(!heard.started);
}

#[test]
fn nothing_is_put_out_before_there_is_output() {
    let mut heard = Heard::default();
    let mut decoder = decoder();
    for data in [
        r#"{"usageMetadata":{"promptTokenCount":3},"responseId":"r","modelVersion":"models/m"}"#,
        r#"{"candidates":[{"content":{"parts":[{"text":""}]}}]}"#,
    ] {
        event(&mut decoder, data, &mut heard).unwrap();
        assert_eq!(heard, Heard::default());
    }
    event(
        &mut decoder,
        r#"{"candidates":[{"content":{"parts":[{"text":"x"}]},"finishReason":"STOP"}]}"#,
        &mut heard,
    )
    .unwrap();
    assert_eq!(
        (&*heard.id, &*heard.model, heard.usage.prompt),
        ("r", "m", Some(3))
    );
    assert_eq!(heard.candidates[0].finish, None);
    decoder.on_end(&mut heard).unwrap();
    assert_eq!(heard.candidates[0].finish, Some(FinishReason::Stop));
}

#[test]
fn an_empty_answer_still_tells_its_usage() {
    let mut heard = Heard::default();
    let body = br#"{"candidates":[{"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":3,"totalTokenCount":3}}"#;
    decoder().on_body(body, &mut heard).unwrap();
    assert_eq!(heard.usage.prompt, Some(3));
    assert_eq!(heard.candidates[0].finish, Some(FinishReason::Stop));
}

#[test]
fn a_continuation_that_breaks_off_early_is_resumed_three_times() {
    let mut heard = Heard::default();
    let mut decoder = decoder();
    let first = r#"{"candidates":[{"content":{"parts":[{"text":"a"}]},"finishReason":"CONTINUATION","continuationToken":"t"}]}"#;
    event(&mut decoder, first, &mut heard).unwrap();
    decoder.on_end(&mut heard).unwrap();
    let body = decoder.continuation(br#"{ "contents": [1.50] }"#).unwrap();
    assert_eq!(body, br#"{"contents":[1.50],"continuationToken":"t"}"#);
    for _ in 0..3 {
        decoder.on_end(&mut heard).unwrap();
        assert_eq!(decoder.continuation(&body).unwrap(), body);
    }
    assert_eq!(
        decoder.on_end(&mut heard).unwrap_err(),
        Failure::disconnected()
    );
    assert_eq!(decoder.continuation(&body), None);
}

#[test]
fn output_after_the_token_cannot_be_resumed() {
    let mut heard = Heard::default();
    let mut decoder = decoder();
    for data in [
        r#"{"candidates":[{"content":{"parts":[{"text":"a"}]},"continuationToken":"t"}]}"#,
        r#"{"candidates":[{"content":{"parts":[{"text":"b"}]}}]}"#,
    ] {
        event(&mut decoder, data, &mut heard).unwrap();
    }
    assert_eq!(
        decoder.on_end(&mut heard).unwrap_err(),
        Failure::disconnected()
    );
}

#[test]
fn answers_with_several_candidates_are_not_resumed() {
    let mut heard = Heard::default();
    let mut decoder = decoder();
    let data = r#"{"candidates":[{"content":{"parts":[{"text":"a"}]},"finishReason":"STOP"},
        {"index":1,"content":{"parts":[{"text":"b"}]},"continuationToken":"t"}]}"#;
    event(&mut decoder, data, &mut heard).unwrap();
    assert_eq!(
        decoder.on_end(&mut heard).unwrap_err(),
        Failure::disconnected()
    );
}

#[test]
fn a_call_is_over_when_something_else_begins() {
    let begin = |name: &str| {
        format!(
            r#"{{"functionCall":{{"name":"{name}","partialArgs":[{{"jsonPath":"$.a","boolValue":true}}],"willContinue":true}}}}"#
        )
    };
    for next in [begin("g"), r#"{"text":"x"}"#.to_owned()] {
        let mut heard = Heard::default();
        let mut decoder = decoder();
        let data = format!(
            r#"{{"candidates":[{{"content":{{"parts":[{},{next}]}}}}]}}"#,
            begin("f")
        );
        event(&mut decoder, &data, &mut heard).unwrap();
        let first = &heard.candidates[0].calls[0];
        assert_eq!(
            (&*first.name, &*first.args),
            ("f", r#"{"a":true}"#),
            "{next}"
        );
        event(
            &mut decoder,
            r#"{"candidates":[{"finishReason":"STOP"}]}"#,
            &mut heard,
        )
        .unwrap();
        decoder.on_end(&mut heard).unwrap();
        assert_eq!(heard.candidates[0].finish, Some(FinishReason::ToolCalls));
    }
}

#[test]
fn empty_pieces_are_no_deltas() {
    let mut heard = Heard::default();
    let data = r#"{"candidates":[{"content":{"parts":[{"text":"","thought":true},{"text":""},{"functionCall":{}},{}]},
        "logprobsResult":{},"groundingMetadata":{},"finishReason":""}]}"#;
    event(&mut decoder(), data, &mut heard).unwrap();
    assert_eq!(heard, Heard::default());
}

#[test]
fn candidates_wait_within_bounds() {
    let mut heard = Heard::default();
    let mut decoder = decoder();
    let text = "x".repeat(1 << 20);
    let data =
        format!(r#"{{"candidates":[{{"index":1,"content":{{"parts":[{{"text":"{text}"}}]}}}}]}}"#);
    let ended = (0..20).find_map(|_| event(&mut decoder, &data, &mut heard).err());
    assert_eq!(ended.unwrap().code.as_deref(), Some("malformed_response"));
    let mut decoder = self::decoder();
    let ended = (0..1000).find_map(|index| {
        let data = format!(r#"{{"candidates":[{{"index":{index}}}]}}"#);
        event(&mut decoder, &data, &mut heard).err()
    });
    assert_eq!(ended.unwrap().code.as_deref(), Some("malformed_response"));
}

/// Events that keep more and more of something; each is refused in the end.
#[test]
fn what_an_open_answer_keeps_is_bounded() {
    let long = "x".repeat(100 << 10);
    let of = |index: usize, part: &str| {
        format!(r#"{{"candidates":[{{"index":{index},"content":{{"parts":[{part}]}}}}]}}"#)
    };
    type Make = Box<dyn Fn(usize) -> String>;
    let cases: [(&str, Make); 4] = [
        ("events that wait for the first candidate", {
            let part = format!(r#"{{"text":"{long}"}}"#);
            Box::new(move |n| of(1 + n % 2, &part))
        }),
        ("arguments in pieces, of many candidates", {
            let long = long.clone();
            Box::new(move |n| {
                let name = if n < 8 { r#""name":"f","# } else { "" };
                let part = format!(
                    r#"{{"functionCall":{{{name}"partialArgs":[{{"jsonPath":"$.a","stringValue":"{long}"}}],"willContinue":true}}}}"#
                );
                of(n % 8, &part)
            })
        }),
        ("signatures of many candidates", {
            let long = long.repeat(4);
            Box::new(move |n| {
                of(
                    n % 64,
                    &format!(r#"{{"text":"a","thoughtSignature":"{long}"}}"#),
                )
            })
        }),
        ("pages that are cited", {
            Box::new(move |n| {
                format!(
                    r#"{{"candidates":[{{"content":{{"parts":[{{"text":"ab"}}]}},"groundingMetadata":{{"groundingChunks":[{{"web":{{"uri":"{n}{long}"}}}}],"groundingSupports":[{{"segment":{{"endIndex":1}},"groundingChunkIndices":[0]}}]}}}}]}}"#
                )
            })
        }),
    ];
    for (what, data) in cases {
        let mut decoder = decoder();
        let mut heard = Heard::default();
        let failure = (0..1000).find_map(|n| event(&mut decoder, &data(n), &mut heard).err());
        let failure = failure.unwrap_or_else(|| panic!("{what}: no end"));
        assert_eq!(failure.class, Class::Ended, "{what}");
        assert_eq!(
            failure.code.as_deref(),
            Some("malformed_response"),
            "{what}"
        );
    }
}

#[test]
fn a_signature_in_place_of_another_takes_no_more_room() {
    let mut decoder = decoder();
    let mut heard = Heard::default();
    let part = format!(
        r#"{{"candidates":[{{"content":{{"parts":[{{"text":"a","thoughtSignature":"{}"}}]}}}}]}}"#,
        "x".repeat(1 << 20)
    );
    for _ in 0..40 {
        event(&mut decoder, &part, &mut heard).unwrap();
    }
}
