//! OpenAI's embeddings as callers ask for them: a request in, vectors out.

use std::borrow::Cow;

use serde_json::Value;

use super::openai::read::{Object, Path, array, is_array, is_string, string, wrong};
use crate::base64;
use crate::error::ApiError;
use crate::json::{Fields, push_key, push_number, push_string};
use crate::provider::gemini::embed::Wishes;

/// The vendor's own limit.
const MOST_TEXTS: usize = 2048;

/// A request, for upstreams that take it in another form.
#[derive(Debug)]
pub struct Embed<'a> {
    pub texts: Vec<Cow<'a, str>>,
    pub wishes: Wishes,
    pub as_base64: bool,
}

impl<'a> Embed<'a> {
    pub fn read(body: &'a [u8]) -> Result<Embed<'a>, ApiError> {
        let text = std::str::from_utf8(body)
            .map_err(|_| ApiError::new(400, "the body is not valid UTF-8"))?;
        let fields: Fields<'a> = serde_json::from_str(text)
            .map_err(|error| ApiError::new(400, format!("the body is not valid JSON: {error}")))?;
        let root = Object {
            fields,
            path: &Path::Root,
        };
        let path = Path::Root.key("input");
        let tokens = "must be text: this model does not take token numbers";
        let texts = match root.get("input") {
            None => return Err(path.invalid("is required")),
            Some(raw) if is_string(raw) => vec![string(raw, &path)?],
            Some(raw) if !is_array(raw) => return Err(wrong(raw, &path, "a string or an array")),
            Some(raw) => {
                let entries = array(raw, &path)?;
                if let Some(other) = entries.iter().position(|entry| !is_string(entry)) {
                    let error = path.index(other).invalid(tokens);
                    return Err(error.with_code("unsupported_value"));
                }
                let entries = entries.into_iter().enumerate();
                let texts = entries.map(|(at, entry)| string(entry, &path.index(at)));
                texts.collect::<Result<_, _>>()?
            }
        };
        if texts.is_empty() || texts.len() > MOST_TEXTS {
            return Err(path.invalid(format_args!("must hold 1 to {MOST_TEXTS} texts")));
        }
        let as_base64 = match root.string("encoding_format")?.as_deref() {
            None | Some("float") => false,
            Some("base64") => true,
            Some(other) => {
                let error = Path::Root.key("encoding_format");
                return Err(error.invalid(format_args!("{other:?} is not known")));
            }
        };
        let dimensions = root.count("dimensions")?;
        if dimensions == Some(0) {
            return Err(Path::Root.key("dimensions").invalid("must not be 0"));
        }
        let task_type = root.carried("extra_body")?.and_then(|raw| {
            let extra: Value = serde_json::from_str(raw.get()).ok()?;
            let google = extra.get("google")?;
            let kind = google.get("task_type").or_else(|| google.get("taskType"))?;
            kind.as_str().map(str::to_owned)
        });
        Ok(Embed {
            texts,
            wishes: Wishes {
                dimensions,
                task_type,
            },
            as_base64,
        })
    }

    /// Where the vendor tells no count: four bytes a token.
    pub fn estimate(texts: &[Cow<'_, str>]) -> u64 {
        let bytes: u64 = texts.iter().map(|text| text.len() as u64).sum();
        bytes.div_ceil(4)
    }

    /// The answer. Vectors that were asked for in fewer dimensions come without their length of
    /// one from older models, on which those who compare them by a dot product rely.
    pub fn answer(&self, vectors: &[Vec<f64>], model: &str, tokens: u64) -> Vec<u8> {
        let mut out = b"{\"object\":\"list\",\"data\":[".to_vec();
        for (at, values) in vectors.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            out.extend_from_slice(b"{\"object\":\"embedding\",\"index\":");
            push_number(&mut out, at as u64);
            push_key(&mut out, b',', "embedding");
            let length = match self.wishes.dimensions {
                Some(_) => values.iter().map(|v| v * v).sum::<f64>().sqrt(),
                None => 1.0,
            };
            let scale = if length > 0.0 { 1.0 / length } else { 1.0 };
            let values = values.iter().map(|value| (value * scale) as f32);
            match self.as_base64 {
                true => {
                    let bytes: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
                    out.push(b'"');
                    base64::push(&mut out, &bytes);
                    out.push(b'"');
                }
                false => push_floats(&mut out, values),
            }
            out.push(b'}');
        }
        out.extend_from_slice(b"],\"model\":");
        push_string(&mut out, model);
        push_key(&mut out, b',', "usage");
        push_key(&mut out, b'{', "prompt_tokens");
        push_number(&mut out, tokens);
        push_key(&mut out, b',', "total_tokens");
        push_number(&mut out, tokens);
        out.extend_from_slice(b"}}");
        out
    }
}

fn push_floats(out: &mut Vec<u8>, values: impl Iterator<Item = f32>) {
    out.push(b'[');
    for (at, value) in values.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        // A number that JSON cannot write does not come from a vendor; it counts as nothing.
        let value = if value.is_finite() { value } else { 0.0 };
        serde_json::to_writer(&mut *out, &value).expect("a finite number, into memory");
    }
    out.push(b']');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(request: &str, vectors: &[Vec<f64>]) -> String {
        let embed = Embed::read(request.as_bytes()).unwrap();
        String::from_utf8(embed.answer(vectors, "m", 7)).unwrap()
    }

    #[test]
    fn vector_35_base64_is_little_endian_floats() {
        assert_eq!(
            answer(r#"{"input":"x","encoding_format":"base64"}"#, &[vec![1.0]]),
            r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":"AACAPw=="}],"model":"m","usage":{"prompt_tokens":7,"total_tokens":7}}"#
        );
        let floats = answer(r#"{"input":["x","y"]}"#, &[vec![0.1, -3.0], vec![1e-9]]);
        assert!(
            floats.contains(r#""index":0,"embedding":[0.1,-3.0]}"#),
            "{floats}"
        );
        assert!(
            floats.contains(r#""index":1,"embedding":[1e-9]}"#),
            "{floats}"
        );
    }

    #[test]
    fn reduced_vectors_have_length_one() {
        let request = r#"{"input":"x","dimensions":2}"#;
        assert!(answer(request, &[vec![3.0, 4.0]]).contains("[0.6,0.8]"));
        assert!(answer(request, &[vec![0.0, 0.0]]).contains("[0.0,0.0]"));
    }

    #[test]
    fn wrong_requests_are_named() {
        for (request, param) in [
            (r#"{}"#, "input"),
            (r#"{"input":7}"#, "input"),
            (r#"{"input":[]}"#, "input"),
            (r#"{"input":[1,2]}"#, "input[0]"),
            (r#"{"input":["a",[1]]}"#, "input[1]"),
            (
                r#"{"input":"a","encoding_format":"hex"}"#,
                "encoding_format",
            ),
            (r#"{"input":"a","dimensions":0}"#, "dimensions"),
        ] {
            let error = Embed::read(request.as_bytes()).unwrap_err();
            assert_eq!(
                (error.status, error.param.as_deref()),
                (400, Some(param)),
                "{request}"
            );
        }
        let embed =
            Embed::read(br#"{"input":"x","extra_body":{"google":{"task_type":"T"}}}"#).unwrap();
        assert_eq!(embed.wishes.task_type.as_deref(), Some("T"));
        assert_eq!(Embed::estimate(&["abcde".into()]), 2);
    }
}
