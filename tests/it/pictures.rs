//! Pictures that a model made, and their way back with the history.

use serde_json::{Value, json};

use crate::upstream::{Format, Reply, Upstream};
use crate::weir::{Weir, config};

/// A whole picture as base64, and another one.
const RED: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
const BLUE: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==";

fn answer(parts: &Value) -> Reply {
    let said = json!({"candidates": [{"content": {"role": "model", "parts": parts},
        "finishReason": "STOP"}], "responseId": "r", "modelVersion": "gemini-3-pro-image-preview"});
    Reply::stream().event(&format!("data: {said}\n\n")).end()
}

/// The assistant's message of an answer, from its chunks or whole.
fn message(weir: &Weir, body: &Value) -> Value {
    let answer = weir.ask(body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    if body["stream"] != true {
        return answer.json()["choices"][0]["message"].clone();
    }
    let mut message = json!({"role": "assistant", "content": "", "images": []});
    for line in answer.text().lines() {
        let Some(data) = line.strip_prefix("data: ").filter(|data| *data != "[DONE]") else {
            continue;
        };
        let chunk: Value = serde_json::from_str(data).unwrap();
        let delta = &chunk["choices"][0]["delta"];
        if let Some(text) = delta["content"].as_str() {
            let before = message["content"].as_str().unwrap().to_owned();
            message["content"] = json!(before + text);
        }
        for image in delta["images"].as_array().into_iter().flatten() {
            message["images"]
                .as_array_mut()
                .unwrap()
                .push(image.clone());
        }
        if delta.get("extra_content").is_some() {
            message["extra_content"] = delta["extra_content"].clone();
        }
    }
    message
}

fn picture(data: &str, signature: &str) -> Value {
    json!({"inlineData": {"mimeType": "image/png", "data": data}, "thoughtSignature": signature})
}

#[test]
fn what_a_model_drew_goes_back_to_it_as_it_came() {
    let spoken = json!({"text": "Here you are:", "thoughtSignature": "T"});
    for parts in [
        json!([spoken, picture(RED, "A"), picture(BLUE, "B")]),
        json!([picture(RED, "A")]),
    ] {
        for stream in [false, true] {
            for keeps_signatures in [true, false] {
                let drawn = answer(&parts);
                let upstream = Upstream::start(move |_| drawn.clone());
                let weir = Weir::start(&config(Format::Gemini, &upstream.url(), &["k"]));
                let model = "gemini-3-pro-image-preview";
                let asked = json!({"role": "user", "content": "draw"});
                let first = json!({"model": model, "stream": stream, "messages": [asked]});
                let mut made = message(&weir, &first);
                if !keeps_signatures {
                    for image in made["images"].as_array_mut().unwrap() {
                        image
                            .as_object_mut()
                            .unwrap()
                            .remove("extra_content")
                            .unwrap();
                    }
                }
                let more = json!({"role": "user", "content": "darker"});
                let second = json!({"model": model, "stream": stream,
                    "messages": [asked, made, more]});
                let answer = weir.ask(&second);
                assert_eq!(answer.status, 200, "{}", answer.text());
                assert_eq!(answer.header("x-weir-dropped"), None);
                let sent = upstream.requests()[1].json();
                assert_eq!(
                    sent["contents"][1],
                    json!({"role": "model", "parts": parts}),
                    "stream {stream}, signatures kept {keeps_signatures}"
                );
            }
        }
    }
}

#[test]
fn a_picture_is_shown_or_told_as_left_out_wherever_it_goes_next() {
    let image =
        json!({"type": "image_url", "image_url": {"url": format!("data:image/png;base64,{RED}")}});
    for format in [Format::Anthropic, Format::Responses, Format::OpenAi] {
        let upstream = Upstream::start(move |request| format.answer(request, &["hi"]));
        let mut settings = config(format, &upstream.url(), &["k"]);
        for official in [false, true] {
            if format == Format::OpenAi {
                settings["upstreams"][0]["official"] = json!(official);
            }
            let weir = Weir::start(&settings);
            let body = json!({"model": format.model(), "messages": [
                {"role": "user", "content": "draw"},
                {"role": "assistant", "content": null, "images": [image]},
                {"role": "user", "content": "what is it?"}]});
            let answer = weir.ask(&body);
            assert_eq!(answer.status, 200, "{}", answer.text());
            let sent =
                String::from_utf8_lossy(&upstream.requests().last().unwrap().body).into_owned();
            let named = answer.header("x-weir-dropped");
            match sent.contains(RED) {
                true => assert_eq!(named, None, "{format:?}: {sent}"),
                false => {
                    assert_eq!(named, Some("messages.images"), "{format:?}: {sent}");
                    assert!(sent.contains("[picture]"), "{format:?}: {sent}");
                }
            }
        }
    }
}
