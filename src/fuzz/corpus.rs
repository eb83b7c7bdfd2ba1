//! What the sessions begin with.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// The files in `folder` whose names end so, in a fixed order.
fn files(folder: &Path, ending: &str) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.to_string_lossy().ends_with(ending));
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// The recordings of one kind, where there are some.
fn recordings(kind: &str) -> Vec<Value> {
    let Some(folder) = std::env::var_os("WEIR_RECORDINGS") else {
        return Vec::new();
    };
    let folder = Path::new(&folder).join(kind);
    if !folder.is_dir() {
        return Vec::new();
    }
    let texts = files(&folder, ".json");
    let parsed = texts.iter().map(|text| serde_json::from_slice(text));
    parsed.filter_map(Result::ok).collect()
}

/// Longer inputs say little more and cost much.
fn short(mut all: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    all.retain(|input| input.len() <= 64 << 10);
    all
}

/// Chat requests of callers.
pub fn requests() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for folder in ["anthropic", "gemini", "openai", "responses"] {
        all.extend(files(
            &root().join("tests/golden").join(folder),
            ".request.json",
        ));
    }
    let recorded = recordings("openai");
    let bodies = recorded.iter().map(|one| &one["request"]["body"]);
    all.extend(bodies.map(|body| body.to_string().into_bytes()));
    short(all)
}

/// Event streams of an upstream.
pub fn streams(folder: &str, recorded: &str) -> Vec<Vec<u8>> {
    let mut all = files(&root().join("tests/golden").join(folder), ".sse");
    let recorded = recordings(recorded);
    let texts = recorded.iter().map(|one| &one["response"]["body_text"]);
    all.extend(texts.filter_map(|text| Some(text.as_str()?.as_bytes().to_vec())));
    short(all)
}

/// Requests as an upstream gets them.
pub fn sent(folder: &str) -> Vec<Vec<u8>> {
    files(&root().join("tests/golden").join(folder), ".sent.json")
}

/// Requests as callers sent them who speak the upstream's format themselves.
pub fn asked(recorded: &str) -> Vec<Vec<u8>> {
    let recorded = recordings(recorded);
    let bodies = recorded.iter().map(|one| &one["request"]["body"]);
    let whole = bodies.filter(|body| body.is_object());
    short(whole.map(|body| body.to_string().into_bytes()).collect())
}

/// Whole answers of an upstream.
pub fn bodies(folder: &str, recorded: &str) -> Vec<Vec<u8>> {
    let mut all = files(&root().join("tests/golden").join(folder), ".body.json");
    let recorded = recordings(recorded);
    let bodies = recorded.iter().map(|one| &one["response"]["body"]);
    let whole = bodies.filter(|body| body.is_object());
    all.extend(whole.map(|body| body.to_string().into_bytes()));
    short(all)
}

/// JSON schemas out of the requests.
pub fn schemas() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for request in requests() {
        let Ok(request) = serde_json::from_slice::<Value>(&request) else {
            continue;
        };
        let tools = request["tools"].as_array().map_or(&[][..], Vec::as_slice);
        let tools = tools.iter().map(|tool| &tool["function"]["parameters"]);
        let format = &request["response_format"]["json_schema"]["schema"];
        let found = tools.chain([format]).filter(|schema| schema.is_object());
        all.extend(found.map(|schema| schema.to_string().into_bytes()));
    }
    all
}

pub fn configs() -> Vec<Vec<u8>> {
    let mut all = files(&root().join("tests/config"), ".json");
    all.push(crate::config::example().into_bytes());
    all
}
