//! Recorded traffic of the providers, replayed to the built binary: what it makes of each answer
//! equals an independent reading of the same bytes.
//!
//! The recordings are no part of the source. `WEIR_RECORDINGS` names their folder; without it
//! they are looked for beside the checkout, and without those there is nothing to do here.

use std::collections::HashMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::client::{Client, chat, post};
use crate::completion::{Completion, Streamed};
use crate::upstream::{Format, Received, Reply, Step, Upstream};
use crate::wait::LIMIT;
use crate::weir::{Weir, config, upstream};

use reading::{Reading, has_tag, read};

mod reading;

fn folder() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("WEIR_RECORDINGS") {
        let named = PathBuf::from(named);
        assert!(named.is_dir(), "WEIR_RECORDINGS is no folder: {named:?}");
        return Some(named);
    }
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/recordings");
    beside.is_dir().then_some(beside)
}

/// One recorded exchange.
struct Recording {
    file: String,
    /// Its upstream and its key in the configuration of the test.
    name: String,
    json: Value,
}

impl Recording {
    fn stream(&self) -> bool {
        self.json["stream"] == true
    }

    /// The recorded response, streams in pieces that respect neither lines nor characters.
    fn reply(&self) -> Reply {
        let response = &self.json["response"];
        let status = u16::try_from(response["status"].as_u64().unwrap()).unwrap();
        let kind = response["headers"]["content-type"].as_str();
        let kind = kind.unwrap_or("application/json");
        let mut reply = match response["body_text"].as_str() {
            Some(text) if status < 400 => {
                let mut reply = Reply::stream();
                for piece in text.as_bytes().chunks(997) {
                    reply = reply.then(Step::Chunk(piece.to_vec()));
                }
                return reply.end();
            }
            Some(text) => Reply::whole(status, kind, text),
            None => Reply::whole(status, kind, response["body"].to_string()),
        };
        if let Some(wait) = response["headers"]["retry-after"].as_str() {
            reply = reply.header("Retry-After", wait);
        }
        reply
    }
}

fn load(provider: &str) -> Option<Vec<Recording>> {
    let folder = folder()?.join(provider);
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "json"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no recordings in {}", folder.display());
    let recording = |(number, path): (usize, &PathBuf)| Recording {
        file: path.file_stem().unwrap().to_string_lossy().into_owned(),
        name: format!("r{number}"),
        json: serde_json::from_slice(&fs::read(path).unwrap()).unwrap(),
    };
    Some(files.iter().enumerate().map(recording).collect())
}

/// Replays every recording of a provider and prints how many came through as they should.
fn replay(provider: &'static str, format: Format) {
    let Some(recordings) = load(provider) else {
        println!("{provider}: no recordings here");
        return;
    };
    let replies: HashMap<String, Reply> = recordings
        .iter()
        .map(|recording| (recording.name.clone(), recording.reply()))
        .collect();
    let scripted = Upstream::start(move |request: &Received| {
        let key = request.key.as_deref().unwrap_or_default();
        replies[key].clone()
    });
    // An upstream for each, so that the failures among them do not rest each other's keys.
    let mut settings = config(format, "", &[]);
    settings["upstreams"] = recordings
        .iter()
        .map(|recording| upstream(&recording.name, format, &scripted.url(), &[&recording.name]))
        .collect();
    settings["retries"] = json!(0);
    let weir = Weir::start(&settings);

    let mut failures = Vec::new();
    for recording in &recordings {
        let expected = read(provider, &recording.json);
        let run = AssertUnwindSafe(|| replay_one(&weir, format, recording, &expected));
        if catch_unwind(run).is_err() {
            failures.push(recording.file.as_str());
        }
    }
    let passed = recordings.len() - failures.len();
    println!(
        "{provider}: {passed} of {} recordings came through",
        recordings.len()
    );
    assert!(failures.is_empty(), "{provider}: {failures:#?}");
    weir.idle(LIMIT);
}

/// The recorded answer with what weir adds where it is missing: the schema's members, and the
/// finish reason that goes with calls; without what the schema does not have: no calls as null;
/// and with reasoning under the one name that it has here.
fn with_what_every_answer_has(recorded: &Value, told: &Value) -> Value {
    let mut answer = recorded.clone();
    for key in ["id", "object", "created", "model"] {
        if answer.get(key).is_none() {
            answer[key] = told[key].clone();
        }
    }
    for choice in answer["choices"].as_array_mut().into_iter().flatten() {
        let message = &mut choice["message"];
        if message.get("content").is_none() {
            message["content"] = Value::Null;
        }
        if message.get("reasoning").is_some_and(Value::is_string) {
            let words = message.as_object_mut().unwrap().remove("reasoning");
            let known = message.get("reasoning_content").and_then(Value::as_str);
            if known.is_none_or(str::is_empty) {
                message["reasoning_content"] = words.unwrap();
            }
        }
        if message.get("tool_calls").is_some_and(Value::is_null) {
            message.as_object_mut().unwrap().remove("tool_calls");
        }
        let has_calls = message["tool_calls"]
            .as_array()
            .is_some_and(|calls| !calls.is_empty());
        if has_calls && choice["finish_reason"] == "stop" {
            choice["finish_reason"] = json!("tool_calls");
        }
    }
    answer
}

fn replay_one(weir: &Weir, format: Format, recording: &Recording, expected: &Reading) {
    let file = &recording.file;
    let recorded_model = recording.json["request"]["body"]["model"].as_str();
    let model = recorded_model.unwrap_or(format.model());
    let model = format!("{}/{model}", recording.name);
    let mut body = chat(&model, recording.stream());
    if !recording.stream() || expected.status >= 400 {
        let answer = post(weir.addr, &body);
        assert_eq!(answer.status, expected.status, "{file}: {}", answer.text());
        let told = answer.json();
        if expected.status >= 400 {
            let message = told["error"]["message"].as_str().unwrap();
            let shape: Vec<&String> = told["error"].as_object().unwrap().keys().collect();
            assert_eq!(shape, ["message", "type", "param", "code"], "{file}");
            if let Some(words) = &expected.words {
                assert!(message.contains(words), "{file}: {message}");
            }
            return;
        }
        if format == Format::OpenAi {
            // A relay keeps everything (R1), the upstream's own name of the model included.
            let expected = with_what_every_answer_has(&recording.json["response"]["body"], &told);
            assert_eq!(told, expected, "{file}");
        }
        let mut meant = expected.completion.clone();
        if !meant.calls.is_empty() && meant.finish.as_deref() == Some("stop") {
            meant.finish = Some("tool_calls".into());
        }
        return compare(file, &Completion::of_body(&told), &meant);
    }
    body["stream_options"] = json!({"include_usage": true});
    let mut client = Client::connect(weir.addr);
    client.post(&body);
    let items = client.stream(LIMIT).rest(LIMIT);
    let streamed = match format {
        Format::OpenAi => Streamed::read_relayed(items),
        _ => Streamed::read(items),
    };
    if expected.broken {
        let error = streamed
            .error
            .as_ref()
            .unwrap_or_else(|| panic!("{file}: no error"));
        let message = error["message"].as_str().unwrap();
        let words = expected.words.as_deref().unwrap_or_default();
        assert!(message.contains(words), "{file}: {message}");
        assert!(!streamed.done, "{file}");
        assert_eq!(
            streamed.completion.content, expected.completion.content,
            "{file}"
        );
        return;
    }
    assert!(streamed.error.is_none(), "{file}: {:?}", streamed.error);
    assert!(streamed.done, "{file}");
    compare(file, &streamed.completion, &expected.completion);
    if has_tag(&recording.json, "multi_choice") {
        let second = |chunk: &Value| chunk["choices"][0]["index"] == 1;
        assert!(
            streamed.chunks.iter().any(second),
            "{file}: the second choice is lost"
        );
    }
}

fn compare(file: &str, told: &Completion, expected: &Completion) {
    assert_eq!(told.content, expected.content, "{file}");
    // Blocks of reasoning are put apart by blank lines, which the vendors do not have.
    let bare = |text: &str| text.split_whitespace().collect::<String>();
    assert_eq!(bare(&told.reasoning), bare(&expected.reasoning), "{file}");
    assert_eq!(told.finish, expected.finish, "{file}");
    if !expected.refusal.is_empty() {
        assert_eq!(told.refusal, expected.refusal, "{file}");
    }
    assert_eq!(
        told.calls.len(),
        expected.calls.len(),
        "{file}: {:?}",
        told.calls
    );
    for (told, expected) in told.calls.iter().zip(&expected.calls) {
        assert_eq!(told.name, expected.name, "{file}");
        match expected.id.is_empty() {
            true => assert!(!told.id.is_empty(), "{file}: a call without an id"),
            false => assert_eq!(told.id, expected.id, "{file}"),
        }
        let parsed = |text: &str| serde_json::from_str::<Value>(text);
        match parsed(&expected.arguments) {
            Ok(arguments) => assert_eq!(parsed(&told.arguments).unwrap(), arguments, "{file}"),
            // A model may write what is no JSON; it stays what it was.
            Err(_) => assert_eq!(told.arguments, expected.arguments, "{file}"),
        }
    }
    if let Some(usage) = &expected.usage {
        assert_eq!(told.usage.as_ref(), Some(usage), "{file}");
    }
}

#[test]
fn anthropic_recordings_come_through() {
    replay("anthropic", Format::Anthropic);
}

#[test]
fn gemini_recordings_come_through() {
    replay("gemini", Format::Gemini);
}

#[test]
fn openai_recordings_come_through() {
    replay("openai", Format::OpenAi);
}

#[test]
fn openai_responses_recordings_come_through() {
    replay("openai-responses", Format::Responses);
}

/// The readings themselves, so that a mistake in them is not taken for one of weir's.
#[test]
fn every_recording_can_be_read() {
    for provider in ["anthropic", "gemini", "openai", "openai-responses"] {
        let mut said = 0;
        let recordings = load(provider).unwrap_or_default();
        for recording in &recordings {
            let reading = read(provider, &recording.json);
            let completion = &reading.completion;
            assert!(
                reading.status >= 400 || reading.broken || completion.finish.is_some(),
                "{}: {reading:?}",
                recording.file
            );
            let empty = completion.content.is_empty() && completion.calls.is_empty();
            said += usize::from(!empty);
        }
        assert!(said * 10 >= recordings.len() * 7, "{provider}: {said}");
    }
}
