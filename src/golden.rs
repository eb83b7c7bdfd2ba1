//! The runner of `tests/golden/<provider>/`: translation cases as files with one stem.
//!
//! | file | what it is |
//! |---|---|
//! | `X.request.json` | what the caller sent; without it only an answer is tested |
//! | `X.options.json` | optional: `model` (the routed name), `strict`, `official`, `anthropic_version`, `developer_as_system`, `strip`, Anthropic's switches |
//! | `X.sent.json` | the body the upstream must receive |
//! | `X.dropped.txt` | the fields of `Encoded::dropped`, comma separated; no file: none |
//! | `X.error.json` | instead of `sent`: the error, whose status is in `X.status.txt` (no file: 400) |
//! | `X.events.sse` | what the upstream streams |
//! | `X.chunks.sse` | what the caller sees of it, an error event at the end if the answer failed |
//! | `X.continued.json`, `X.continued.sse` | the body of `Decoder::continuation` and the events of its answer |
//! | `X.body.json` | what the upstream answers without streaming |
//! | `X.completion.json` | the completion, from the body and from the events; the error if they fail |
//!
//! Expected JSON may be pretty: it is compared without the blanks between tokens, and in order.
//! With events and no body, the completion is only looked at where its file exists.
//! The answer's stamp is fixed: seed 1, created 1. Every event stream is replayed whole and one
//! byte at a time. `UPDATE=1` writes the expected files anew; read the diff like code.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::chat::DeltaSink;
use crate::dialect::openai::{Chunks, Fold, Head, Stamp, error_event};
use crate::error::ApiError;
use crate::failure::Failure;
use crate::provider::anthropic::Display;
use crate::provider::{Decoder, Flow, Options, Provider, Undo};
use crate::sse;

/// Runs every case of `tests/golden/<folder>`; panics with the list of those that failed.
pub fn check(folder: &str, provider: &dyn Provider) {
    each_case(folder, |case| run(case, provider));
}

/// Calls `run` for every stem in the folder, and panics if one of them adds a complaint.
pub fn each_case(folder: &str, mut run: impl FnMut(&mut Case)) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(folder);
    let mut stems = BTreeSet::new();
    let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    for entry in entries {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if let Some((stem, kind)) = name.split_once('.') {
            let expected = ["sent.json", "error.json", "chunks.sse", "completion.json"];
            if !stem.is_empty() && !expected.contains(&kind) {
                stems.insert(stem.to_owned());
            }
        }
    }
    assert!(!stems.is_empty(), "no case in {}", folder.display());
    let mut complaints = Vec::new();
    for stem in stems {
        let mut case = Case {
            stem: folder.join(stem),
            update: std::env::var_os("UPDATE").is_some_and(|value| value == "1"),
            complaints: Vec::new(),
            compared: 0,
        };
        run(&mut case);
        if case.compared == 0 && case.complaints.is_empty() {
            case.complain("nothing to compare with");
        }
        complaints.append(&mut case.complaints);
    }
    assert!(
        complaints.is_empty(),
        "{} complaints:\n\n{}",
        complaints.len(),
        complaints.join("\n\n")
    );
}

/// The files of one stem.
pub struct Case {
    stem: PathBuf,
    update: bool,
    complaints: Vec<String>,
    compared: usize,
}

impl Case {
    fn path(&self, kind: &str) -> PathBuf {
        let mut path = self.stem.clone().into_os_string();
        path.push(".");
        path.push(kind);
        path.into()
    }

    /// The bytes of one of the files, if it is there.
    pub fn file(&self, kind: &str) -> Option<Vec<u8>> {
        fs::read(self.path(kind)).ok()
    }

    pub fn complain(&mut self, what: impl Into<String>) {
        let stem = self.stem.file_name().unwrap_or_default().to_string_lossy();
        self.complaints.push(format!("{stem}: {}", what.into()));
    }

    /// Compares one expected file with what came out. `None` on either side is "no such file".
    /// Not there and nothing came: fine.
    pub fn expect(&mut self, kind: &str, actual: Option<&[u8]>) {
        if self.update {
            self.compared += 1;
            match actual {
                Some(actual) => {
                    let text = match kind.rsplit('.').next() {
                        Some("json") => pretty(actual),
                        Some("txt") => [actual, b"\n"].concat(),
                        _ => actual.to_vec(),
                    };
                    fs::write(self.path(kind), text).unwrap();
                }
                None => {
                    let _ = fs::remove_file(self.path(kind));
                }
            }
            return;
        }
        let expected = self.file(kind);
        self.compared += usize::from(expected.is_some());
        let expected = expected.map(|text| match kind.rsplit('.').next() {
            Some("json") => compact(&text),
            Some("txt") => text.trim_ascii().to_vec(),
            _ => text,
        });
        if expected.as_deref() != actual {
            let show = |side: Option<&[u8]>| match side {
                Some(text) => String::from_utf8_lossy(text).into_owned(),
                None => "(nothing)".into(),
            };
            self.complain(format!(
                "{kind}\nexpected: {}\n  actual: {}",
                show(expected.as_deref()),
                show(actual)
            ));
        }
    }

    /// `X.options.json`: the routed model, if it names one, and the options.
    pub fn options(&self) -> (Option<String>, Options) {
        let mut options = Options::default();
        let Some(text) = self.file("options.json") else {
            return (None, options);
        };
        let given: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(&text).expect("options are a JSON object");
        let mut model = None;
        for (key, value) in given {
            match &*key {
                "model" => model = value.as_str().map(str::to_owned),
                "strict" => options.strict = value.as_bool().unwrap(),
                "official" => options.official = value.as_bool().unwrap(),
                "anthropic_version" => options.anthropic_version = value.as_str().unwrap().into(),
                "developer_as_system" => options.developer_as_system = value.as_bool().unwrap(),
                "strip" => options.strip = serde_json::from_value(value).unwrap(),
                "auto_cache" => options.anthropic.auto_cache = value.as_bool().unwrap(),
                "reject_prefill" => options.anthropic.reject_prefill = value.as_bool().unwrap(),
                "reject_forced_tools" => {
                    options.anthropic.reject_forced_tools = value.as_bool().unwrap();
                }
                "display" => {
                    options.anthropic.display = match value.as_str() {
                        Some("omitted") => Display::Omitted,
                        _ => Display::Unset,
                    };
                }
                "default_max_tokens" => {
                    options.anthropic.default_max_tokens = value.as_u64().unwrap();
                }
                other => panic!("{}: unknown option {other}", self.stem.display()),
            }
        }
        (model, options)
    }

    /// Compares a refusal with `error.json` and `status.txt`.
    pub fn expect_error(&mut self, error: &ApiError) {
        self.expect("error.json", Some(&error.to_json()));
        let status = error.status.to_string();
        if self.update || self.file("status.txt").is_some() || error.status != 400 {
            let told = (error.status != 400).then_some(status.as_bytes());
            self.expect("status.txt", told);
        }
    }
}

fn run(case: &mut Case, provider: &dyn Provider) {
    let mut stamp = Stamp {
        seed: 1,
        created: 1,
        model: "m".into(),
        include_usage: false,
        legacy_functions: false,
    };
    let mut undo = Arc::new(Undo::default());
    let mut sent = Vec::new();
    if let Some(request) = case.file("request.json") {
        let (model, options) = case.options();
        let encoded = Head::read(&request).and_then(|head| {
            let parsed = head.parse()?;
            stamp.model = head.model.to_string();
            stamp.include_usage = head.include_usage;
            stamp.legacy_functions = parsed.legacy_functions;
            let model = model.as_deref().unwrap_or(&head.model);
            provider.encode(&parsed, model, &options)
        });
        match encoded {
            Ok(encoded) => {
                case.expect("sent.json", Some(&encoded.body));
                let dropped = encoded.dropped.join(",");
                let dropped = (!dropped.is_empty()).then_some(dropped.as_bytes());
                case.expect("dropped.txt", dropped);
                case.expect("error.json", None);
                undo = encoded.undo;
                sent = encoded.body;
            }
            Err(error) => {
                case.expect_error(&error);
                case.expect("sent.json", None);
                case.expect("dropped.txt", None);
                return;
            }
        }
    }
    if let Some(body) = case.file("body.json") {
        let mut fold = Fold::new(stamp.clone());
        let ended = provider.decoder(undo.clone()).on_body(&body, &mut fold);
        let completion = completion(fold, ended.err());
        case.expect("completion.json", Some(&completion));
    }
    if case.file("events.sse").is_some() {
        // Without a body, the completion is optional beside the chunks.
        let folded = case.file("completion.json").is_some();
        for step in [usize::MAX, 1] {
            let mut chunks = Chunks::new(stamp.clone());
            let ended = replay(
                case,
                &mut *provider.decoder(undo.clone()),
                &sent,
                step,
                &mut chunks,
            );
            let stream = finish(chunks, ended.err());
            if !folded || case.update || case.file("chunks.sse").is_some() {
                case.expect("chunks.sse", Some(&stream));
            }
            if folded {
                let mut fold = Fold::new(stamp.clone());
                let ended = replay(
                    case,
                    &mut *provider.decoder(undo.clone()),
                    &sent,
                    step,
                    &mut fold,
                );
                let completion = completion(fold, ended.err());
                // A body that disagrees with the events must not be updated away.
                if !case.update || case.file("body.json").is_none() {
                    case.expect("completion.json", Some(&completion));
                }
            }
        }
    }
}

/// How failures are told in expected files.
pub fn told(failure: &Failure) -> ApiError {
    failure.to_error("upstream", "key")
}

fn completion(fold: Fold, failure: Option<Failure>) -> Vec<u8> {
    match failure {
        None => fold.into_json(),
        Some(failure) => told(&failure).to_json(),
    }
}

fn finish(mut chunks: Chunks, failure: Option<Failure>) -> Vec<u8> {
    if failure.is_none() {
        chunks.finish();
    }
    let mut stream = chunks.bytes().to_vec();
    if let Some(failure) = failure {
        stream.extend_from_slice(&error_event(&told(&failure)));
    }
    stream
}

/// Hands the events, and those of continuations, to `decoder`.
fn replay(
    case: &mut Case,
    decoder: &mut dyn Decoder,
    sent: &[u8],
    step: usize,
    out: &mut dyn DeltaSink,
) -> Result<(), Failure> {
    /// No case needs more; a decoder that always continues must not hang the tests.
    const MOST_CONTINUATIONS: usize = 8;
    let mut events = case.file("events.sse").unwrap_or_default();
    let mut sent = sent.to_vec();
    for _ in 0..MOST_CONTINUATIONS {
        let flow = each_event(&events, step, |event| decoder.on_event(event, out))?;
        if flow == Flow::More {
            decoder.on_end(out)?;
        }
        let Some(body) = decoder.continuation(&sent) else {
            return Ok(());
        };
        case.expect("continued.json", Some(&body));
        sent = body;
        events = case.file("continued.sse").unwrap_or_default();
    }
    case.complain("continues without end");
    Ok(())
}

/// Reads `stream` in reads of at most `step` bytes and calls `take` with its events until it is
/// `Done`.
pub fn each_event(
    stream: &[u8],
    step: usize,
    mut take: impl FnMut(sse::Event<'_>) -> Result<Flow, Failure>,
) -> Result<Flow, Failure> {
    struct Slow<'a>(&'a [u8], usize);
    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = buffer.len().min(self.1);
            self.0.read(&mut buffer[..count])
        }
    }
    let mut source = Slow(stream, step);
    let mut reader = sse::Reader::new(1 << 24);
    loop {
        while let Some(event) = reader.next().expect("events in tests are not too long") {
            if take(event)? == Flow::Done {
                return Ok(Flow::Done);
            }
        }
        if reader.fill(&mut source).expect("slices can be read") == 0 {
            break;
        }
    }
    match reader.finish() {
        Some(event) => take(event),
        None => Ok(Flow::More),
    }
}

/// JSON text without the blanks between its tokens; the tokens stay as they are written.
pub fn compact(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let (mut in_string, mut escaped) = (false, false);
    for &byte in text {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
        } else if byte.is_ascii_whitespace() {
            continue;
        } else {
            in_string = byte == b'"';
        }
        out.push(byte);
    }
    out
}

/// JSON text with a line per member; the tokens stay as they are written.
fn pretty(text: &[u8]) -> Vec<u8> {
    let text = compact(text);
    let mut out = Vec::with_capacity(text.len() * 2);
    let (mut in_string, mut escaped, mut depth) = (false, false, 0usize);
    for (i, &byte) in text.iter().enumerate() {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            out.push(byte);
            continue;
        }
        let line = |out: &mut Vec<u8>, depth: usize| {
            out.push(b'\n');
            out.resize(out.len() + 2 * depth, b' ');
        };
        let opens = matches!(byte, b'{' | b'[');
        let closes = matches!(byte, b'}' | b']');
        let is_empty = |at: usize| matches!(text.get(at..at + 2), Some(b"{}" | b"[]"));
        if closes {
            depth = depth.saturating_sub(1);
            if i == 0 || !is_empty(i - 1) {
                line(&mut out, depth);
            }
        }
        out.push(byte);
        match byte {
            b'"' => in_string = true,
            b':' => out.push(b' '),
            b',' => line(&mut out, depth),
            _ => {}
        }
        if opens {
            depth += 1;
            if !is_empty(i) {
                line(&mut out, depth);
            }
        }
    }
    out.push(b'\n');
    out
}

#[test]
fn pretty_and_compact_are_inverse() {
    let text = br#"{"a":[1.50,{"b":"x \"y\\"},{},[]],"c":[],"d":{"e":null}}"#;
    assert_eq!(compact(&pretty(text)), text);
    serde_json::from_slice::<serde_json::Value>(&pretty(text)).unwrap();
    assert_eq!(
        pretty(b"{\"a\":[],\"b\":[1]}"),
        b"{\n  \"a\": [],\n  \"b\": [\n    1\n  ]\n}\n"
    );
}
