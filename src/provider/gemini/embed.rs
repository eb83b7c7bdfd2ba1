//! Gemini's `embedContent` and `batchEmbedContents`.

use serde::Deserialize;

use super::encode::address;
use crate::failure::Failure;
use crate::json::{push_key, push_number, push_string};
use crate::provider::Encoded;

/// More texts are not taken in one call.
pub const BATCH: usize = 100;

/// What is asked for besides the vectors of the texts.
#[derive(Debug, Default)]
pub struct Wishes {
    pub dimensions: Option<u64>,
    pub task_type: Option<String>,
}

/// The request for the vectors of at most `BATCH` texts.
pub fn encode<T: AsRef<str>>(texts: &[T], model: &str, wishes: &Wishes) -> Encoded {
    let mut body = Vec::with_capacity(256);
    let address = address(model);
    let (path, name) = match texts {
        [text] => {
            push_content(&mut body, b'{', text.as_ref(), wishes);
            body.push(b'}');
            (format!("{address}:embedContent"), None)
        }
        _ => (format!("{address}:batchEmbedContents"), Some(model)),
    };
    if let Some(name) = name {
        let has_folder = name.starts_with("models/") || name.starts_with("tunedModels/");
        let folder = if has_folder { "" } else { "models/" };
        body.extend_from_slice(b"{\"requests\":[");
        for (at, text) in texts.iter().enumerate() {
            if at > 0 {
                body.push(b',');
            }
            push_key(&mut body, b'{', "model");
            push_string(&mut body, &format!("{folder}{name}"));
            push_content(&mut body, b',', text.as_ref(), wishes);
            body.push(b'}');
        }
        body.extend_from_slice(b"]}");
    }
    Encoded {
        path,
        body,
        ..Encoded::default()
    }
}

fn push_content(out: &mut Vec<u8>, before: u8, text: &str, wishes: &Wishes) {
    push_key(out, before, "content");
    out.extend_from_slice(b"{\"parts\":[{\"text\":");
    push_string(out, text);
    out.extend_from_slice(b"}]}");
    if let Some(task_type) = &wishes.task_type {
        push_key(out, b',', "taskType");
        push_string(out, task_type);
    }
    if let Some(dimensions) = wishes.dimensions {
        push_key(out, b',', "outputDimensionality");
        push_number(out, dimensions);
    }
}

/// Vectors, and the tokens of their texts where the vendor told.
#[derive(Debug, PartialEq)]
pub struct Vectors {
    pub values: Vec<Vec<f64>>,
    pub tokens: Option<u64>,
}

/// The vectors of `count` texts.
pub fn decode(body: &[u8], count: usize) -> Result<Vectors, Failure> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer {
        embedding: Option<Embedding>,
        #[serde(default)]
        embeddings: Vec<Embedding>,
        usage_metadata: Option<Usage>,
    }
    #[derive(Deserialize)]
    struct Embedding {
        #[serde(default)]
        values: Vec<f64>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Usage {
        prompt_token_count: Option<u64>,
    }
    if body.trim_ascii_start().starts_with(b"{\"error\"") {
        return Err(Failure::from_event(body));
    }
    let answer: Answer = serde_json::from_slice(body)
        .map_err(|_| Failure::malformed("the upstream answered 200 with no embeddings"))?;
    let all = answer.embedding.into_iter().chain(answer.embeddings);
    let values: Vec<Vec<f64>> = all.map(|embedding| embedding.values).collect();
    if values.len() != count || values.iter().any(Vec::is_empty) {
        let message = format!(
            "the upstream answered with {} embeddings for {count} texts",
            values.iter().filter(|values| !values.is_empty()).count()
        );
        return Err(Failure::malformed(message));
    }
    Ok(Vectors {
        values,
        tokens: answer
            .usage_metadata
            .and_then(|usage| usage.prompt_token_count),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_and_several() {
        let wishes = Wishes {
            dimensions: Some(8),
            task_type: Some("RETRIEVAL_QUERY".into()),
        };
        let one = encode(&["a\""], "gemini-embedding-001", &Wishes::default());
        assert_eq!(one.path, "/v1beta/models/gemini-embedding-001:embedContent");
        assert_eq!(one.body, br#"{"content":{"parts":[{"text":"a\""}]}}"#);
        let two = encode(&["a", "b"], "models/m", &wishes);
        assert_eq!(two.path, "/v1beta/models/m:batchEmbedContents");
        assert_eq!(
            String::from_utf8(two.body).unwrap(),
            concat!(
                r#"{"requests":[{"model":"models/m","content":{"parts":[{"text":"a"}]},"taskType":"RETRIEVAL_QUERY","outputDimensionality":8},"#,
                r#"{"model":"models/m","content":{"parts":[{"text":"b"}]},"taskType":"RETRIEVAL_QUERY","outputDimensionality":8}]}"#
            )
        );
    }

    #[test]
    fn every_text_needs_its_vector() {
        let one = br#"{"embedding":{"values":[1,0.5]}}"#;
        assert_eq!(decode(one, 1).unwrap().values, [[1.0, 0.5]]);
        let two = br#"{"embeddings":[{"values":[1]},{"values":[2]}],"usageMetadata":{"promptTokenCount":9}}"#;
        let vectors = decode(two, 2).unwrap();
        assert_eq!((vectors.values.len(), vectors.tokens), (2, Some(9)));
        assert!(decode(two, 3).is_err());
        assert!(decode(b"{\"embedding\":{}}", 1).is_err());
        assert!(decode(b"<html>", 1).is_err());
        let error = br#"{"error":{"code":400,"message":"no","status":"INVALID_ARGUMENT"}}"#;
        assert_eq!(decode(error, 1).unwrap_err().message, "no");
    }
}
