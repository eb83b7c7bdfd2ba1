use serde_json::Value;

use super::*;
use crate::golden::each_event;

fn stamp() -> Stamp {
    Stamp {
        seed: 7,
        created: 1,
        model: "m".to_owned(),
        include_usage: true,
        legacy_functions: false,
    }
}

fn seals() -> Arc<Seals> {
    Arc::new(Seals::new(Some("k"), std::iter::empty()))
}

fn relayed(framing: Framing, stream: &[u8]) -> (Result<Usage, Failure>, Vec<u8>) {
    let mut relay = RelayStream::new(framing);
    let mut out = Vec::new();
    let ended = each_event(stream, usize::MAX, |event| relay.on_event(event, &mut out))
        .and_then(|_| relay.on_end(&mut out));
    (ended.map(|()| relay.usage()), out)
}

const STREAM: &str = "data: {\"candidates\": [{\"content\": {\"parts\": [{\"text\": \"Hi\", \"brandNew\": 1.50}]}}]}\r\n\r\n\
    data: {\"candidates\": [{\"finishReason\": \"STOP\"}], \"usageMetadata\": {\"promptTokenCount\": 3, \"candidatesTokenCount\": 2, \"totalTokenCount\": 5}, \"modelVersion\": \"g\"}\r\n\r\n";

#[test]
fn a_stream_passes_byte_by_byte_and_is_counted() {
    let (usage, out) = relayed(Framing::Events, STREAM.as_bytes());
    assert_eq!(String::from_utf8(out).unwrap(), STREAM);
    let usage = usage.unwrap();
    assert_eq!((usage.prompt, usage.completion), (Some(3), Some(2)));
    let (_, out) = relayed(Framing::Array, STREAM.as_bytes());
    let array: Vec<Value> = serde_json::from_slice(&out).unwrap();
    assert_eq!(array.len(), 2);
    assert_eq!(array[1]["modelVersion"], "g");
}

#[test]
fn what_fails_before_it_said_anything_leaves_nothing_behind() {
    for stream in [
        "",
        "data: {\"usageMetadata\": {\"promptTokenCount\": 3}}\n\n",
        "data: {\"error\": {\"code\": 503, \"message\": \"busy\", \"status\": \"UNAVAILABLE\"}}\n\n",
        "data: nonsense\n\n",
    ] {
        let (ended, out) = relayed(Framing::Events, stream.as_bytes());
        assert!(ended.is_err(), "{stream}");
        assert_eq!(out, b"", "{stream}");
    }
    let cut = &STREAM[..STREAM.find("data: {\"candidates\": [{\"fin").unwrap()];
    let (ended, out) = relayed(Framing::Events, cut.as_bytes());
    assert!(ended.is_err());
    assert_eq!(out, cut.as_bytes());
}

#[test]
fn recorded_answers_pass_unchanged() {
    let Some(folder) = std::env::var_os("WEIR_RECORDINGS") else {
        eprintln!("skipped: WEIR_RECORDINGS is not set");
        return;
    };
    let folder = std::path::Path::new(&folder).join("gemini");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        eprintln!("skipped: there is no {}", folder.display());
        return;
    };
    let (mut streams, mut wholes) = (0, 0);
    for entry in entries {
        let path = entry.unwrap().path();
        let Ok(recording) = serde_json::from_slice::<Value>(&std::fs::read(&path).unwrap()) else {
            continue;
        };
        let response = &recording["response"];
        if response["status"] != 200 {
            continue;
        }
        let name = path.display();
        if let Some(text) = response["body_text"]
            .as_str()
            .filter(|text| text.starts_with("data:"))
        {
            let (ended, out) = relayed(Framing::Events, text.as_bytes());
            let values = |bytes: &[u8]| {
                let mut all = Vec::new();
                let _ = each_event(bytes, usize::MAX, |event| {
                    all.extend(serde_json::from_slice::<Value>(event.data).ok());
                    Ok(Flow::More)
                });
                all
            };
            let (sent, heard) = (values(&out), values(text.as_bytes()));
            match ended {
                Ok(_) => assert_eq!(sent, heard, "{name}"),
                Err(_) => assert!(heard.starts_with(&sent), "{name}"),
            }
            streams += 1;
        } else if response["body"].is_object() {
            let body = response["body"].to_string();
            let mut relay = RelayWhole::new(stamp(), seals(), usize::MAX);
            if relay.on_body(body.as_bytes()).is_ok() {
                let sent = relay
                    .take_body()
                    .unwrap_or_else(|| body.clone().into_bytes());
                assert_eq!(String::from_utf8(sent).unwrap(), body, "{name}");
                wholes += 1;
            }
        }
    }
    assert!(
        streams >= 30 && wholes >= 30,
        "{streams} streams, {wholes} wholes"
    );
}

#[test]
fn the_request_passes_as_it_came_unless_another_vendors_seal_is_in_it() {
    let body = r#"{"contents": [{"parts": [{"text": "x"}]}], "brandNew": 1.50}"#;
    for (verb, path) in [
        ("generateContent", "/v1beta/models/g:generateContent"),
        (
            "streamGenerateContent",
            "/v1beta/models/g:streamGenerateContent?alt=sse",
        ),
    ] {
        let at = format!("/v1/models/m:{verb}");
        let head = crate::dialect::gemini::head(&at, body.as_bytes()).unwrap();
        let encoded = encode(&head, "g");
        assert_eq!(encoded.path, path);
        assert_eq!(String::from_utf8(encoded.body).unwrap(), body);
        assert!(!is_foreign(&head));
    }
    let sealed = body.replace("\"x\"", "\"x\", \"thoughtSignature\": \"weir1.AAAA\"");
    let head = crate::dialect::gemini::head("/v1/models/m:generateContent", sealed.as_bytes());
    assert!(is_foreign(&head.unwrap()));
}
