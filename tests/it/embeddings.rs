//! Embeddings: passed on to OpenAI-shaped upstreams, translated for Gemini.

use serde_json::{Value, json};

use crate::client::{Answer, ask};
use crate::first_mile::error_of;
use crate::upstream::{Format, Received, Reply, Upstream};
use crate::wait::LIMIT;
use crate::weir::{Weir, config};

fn embed(weir: &Weir, body: &Value) -> Answer {
    let body = body.to_string();
    ask(weir.addr, "POST", "/v1/embeddings", &[], body.as_bytes())
}

/// Gemini: each text's vector is its length and a half.
fn vectors(request: &Received) -> Reply {
    let vector = |request: &Value| {
        let text = request["content"]["parts"][0]["text"].as_str().unwrap();
        json!({"values": [text.len(), 0.5]})
    };
    let body = request.json();
    match body["requests"].as_array() {
        Some(requests) => {
            let all: Vec<Value> = requests.iter().map(vector).collect();
            Reply::json(200, &json!({"embeddings": all}))
        }
        None => Reply::json(200, &json!({"embedding": vector(&body)})),
    }
}

#[test]
fn gemini_embeds_one_text_and_many() {
    let up = Upstream::start(vectors);
    let weir = Weir::start(&config(Format::Gemini, &up.url(), &["k"]));
    let model = "up/gemini-embedding-001";
    let one = embed(&weir, &json!({"model": model, "input": "abc"}));
    assert_eq!(one.status, 200, "{}", one.text());
    assert_eq!(
        one.json(),
        json!({
            "object": "list", "model": model,
            "data": [{"object": "embedding", "index": 0, "embedding": [3.0, 0.5]}],
            "usage": {"prompt_tokens": 1, "total_tokens": 1}
        })
    );
    assert_eq!(one.header("x-weir-upstream"), Some("up"));
    let got = &up.requests()[0];
    assert_eq!(got.path, "/v1beta/models/gemini-embedding-001:embedContent");

    // As the official Python SDK asks. 3.0 and 0.5 as little-endian floats.
    let packed = embed(
        &weir,
        &json!({"model": model, "input": ["abc"], "encoding_format": "base64"}),
    );
    assert_eq!(packed.json()["data"][0]["embedding"], "AABAQAAAAD8=");

    // More than one call takes, in their order.
    let texts: Vec<String> = (0..250).map(|at| "x".repeat(at)).collect();
    let many = embed(&weir, &json!({"model": model, "input": texts}));
    let many = many.json();
    let data = many["data"].as_array().unwrap();
    assert_eq!(data.len(), 250);
    for (at, entry) in data.iter().enumerate() {
        assert_eq!(
            (&entry["index"], &entry["embedding"][0]),
            (&json!(at), &json!(at as f64))
        );
    }
    let sizes: Vec<usize> = up.requests()[2..]
        .iter()
        .map(|request| request.json()["requests"].as_array().unwrap().len())
        .collect();
    assert_eq!(sizes, [100, 100, 50]);
    assert_eq!(
        up.requests()[2].json()["requests"][0]["model"],
        "models/gemini-embedding-001"
    );
    let status = weir.idle(LIMIT);
    let today = &status["upstreams"][0]["keys"][0]["today"];
    assert_eq!(
        (&today["requests"], &today["failed"]),
        (&json!(5), &json!(0))
    );
}

#[test]
fn gemini_is_asked_again_with_another_key() {
    let ok = Reply::json(200, &json!({"embedding": {"values": [3.0, 4.0]}}));
    let quota = Format::Gemini.error(429, "resource_exhausted", "slow");
    let up = Upstream::queue([quota, ok, Reply::json(200, &json!({"embeddings": []}))]);
    let mut settings = config(Format::Gemini, &up.url(), &["k1", "k2"]);
    settings["retries"] = json!(0);
    let weir = Weir::start(&settings);
    let body = json!({"model": "up/m", "input": "x", "dimensions": 2});
    let answer = embed(&weir, &body);
    // Of length one, since fewer dimensions were asked for.
    assert_eq!(answer.json()["data"][0]["embedding"], json!([0.6, 0.8]));
    assert_eq!(answer.header("x-weir-attempts"), Some("2"));
    assert_eq!(up.requests()[1].json()["outputDimensionality"], 2);
    assert_ne!(up.keys()[0], up.keys()[1]);
    let status = weir.idle(LIMIT);
    let keys = status["upstreams"][0]["keys"].as_array().unwrap();
    let count = |name: &str| -> u64 {
        let counts = keys.iter().map(|key| key["today"][name].as_u64().unwrap());
        counts.sum()
    };
    assert_eq!((count("requests"), count("failed")), (2, 1), "{status}");
    let too_few = embed(&weir, &body);
    assert_eq!(too_few.status, 502, "{}", too_few.text());
    error_of(&too_few);
    weir.idle(LIMIT);
}

#[test]
fn an_openai_upstream_gets_the_request_as_it_is() {
    let answer =
        json!({"object": "list", "data": [], "usage": {"prompt_tokens": 5, "total_tokens": 5}});
    let up = Upstream::always(Reply::json(200, &answer));
    let weir = Weir::start(&config(Format::OpenAi, &up.url(), &["k"]));
    let body = json!({"model": "up/text-embedding-3-small", "input": [[1, 2]], "encoding_format": "base64"});
    let told = embed(&weir, &body);
    assert_eq!(told.json(), answer);
    let got = &up.requests()[0];
    assert_eq!(got.path, "/v1/embeddings");
    let mut sent = body.clone();
    sent["model"] = json!("text-embedding-3-small");
    assert_eq!(got.json(), sent);
    weir.wait_log("prompt_tokens=5", LIMIT);
}

#[test]
fn what_cannot_be_embedded_is_refused() {
    let up = Upstream::start(vectors);
    for (format, body, param) in [
        (
            Format::Anthropic,
            json!({"model": "up/claude-x", "input": "a"}),
            "model",
        ),
        (
            Format::Gemini,
            json!({"model": "up/m", "input": [1, 2]}),
            "input[0]",
        ),
        (Format::Gemini, json!({"model": "up/m"}), "input"),
        (Format::Gemini, json!({"input": "a"}), "model"),
        (Format::OpenAi, json!({"model": 1, "input": "a"}), "model"),
    ] {
        let weir = Weir::start(&config(format, &up.url(), &["k"]));
        let answer = embed(&weir, &body);
        assert_eq!(
            (answer.status, &error_of(&answer)["param"]),
            (400, &json!(param)),
            "{body}"
        );
    }
    let weir = Weir::start(&config(Format::Gemini, &up.url(), &["k"]));
    assert_eq!(
        embed(&weir, &json!({"model": "nobody", "input": "a"})).status,
        404
    );
    let body = br#"{"model":"up/m","input":["a","b"]}"#;
    let headers = [("x-weir-dry-run", "1")];
    let told = ask(weir.addr, "POST", "/v1/embeddings", &headers, body).json();
    assert_eq!(
        told["url"],
        format!("{}/v1beta/models/m:batchEmbedContents", up.url())
    );
    assert_eq!(told["headers"]["x-goog-api-key"], "***");
    assert_eq!(up.count(), 0);
}
