//! The shapes of Gemini's answers, after the vendor's pages on `GenerateContentResponse`,
//! `Candidate`, `Part`, `GroundingMetadata`, `LogprobsResult` and `UsageMetadata`.
//!
//! Borrowed from the event where they can be. Every field may be absent or `null`; fields and part
//! kinds that are not named here are skipped.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, Visitor};
use serde_json::value::RawValue;

/// One event of a stream, or a whole answer.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Response<'a> {
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub candidates: Vec<Candidate<'a>>,
    #[serde(borrow)]
    pub prompt_feedback: Option<PromptFeedback<'a>>,
    #[serde(borrow)]
    pub usage_metadata: Option<UsageMetadata<'a>>,
    #[serde(borrow, default)]
    pub model_version: Text<'a>,
    #[serde(borrow, default)]
    pub response_id: Text<'a>,
    #[serde(borrow)]
    pub error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PromptFeedback<'a> {
    #[serde(borrow, default)]
    pub block_reason: Text<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Candidate<'a> {
    #[serde(default)]
    pub index: Count,
    #[serde(borrow)]
    pub content: Option<Content<'a>>,
    #[serde(borrow, default)]
    pub finish_reason: Text<'a>,
    #[serde(borrow, default)]
    pub finish_message: Text<'a>,
    #[serde(borrow, default)]
    pub continuation_token: Text<'a>,
    /// A `Grounding`, looked into only once the text it speaks of was taken.
    #[serde(borrow)]
    pub grounding_metadata: Option<&'a RawValue>,
    /// A `LogprobsResult`.
    #[serde(borrow)]
    pub logprobs_result: Option<&'a RawValue>,
}

#[derive(Deserialize)]
pub struct Content<'a> {
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub parts: Vec<Part<'a>>,
}

/// Parts that tools of the provider's own leave: "Part" in the vendor's reference.
pub const TOOL_PARTS: [&str; 4] = [
    "executableCode",
    "codeExecutionResult",
    "toolCall",
    "toolResponse",
];

/// One content part. Of its kinds at most one is set.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Part<'a> {
    #[serde(borrow, default)]
    pub text: Text<'a>,
    #[serde(default, deserialize_with = "or_default")]
    pub thought: bool,
    #[serde(borrow, default)]
    pub thought_signature: Text<'a>,
    #[serde(borrow)]
    pub function_call: Option<FunctionCall<'a>>,
    #[serde(borrow)]
    pub inline_data: Option<Blob<'a>>,
    // What the provider's own tools leave behind, which belongs back into the history.
    #[serde(borrow)]
    pub executable_code: Option<&'a RawValue>,
    #[serde(borrow)]
    pub code_execution_result: Option<&'a RawValue>,
    #[serde(borrow)]
    pub tool_call: Option<&'a RawValue>,
    #[serde(borrow)]
    pub tool_response: Option<&'a RawValue>,
    // Known, so that a signature on one of them is not taken for a signature on text.
    pub function_response: Option<IgnoredAny>,
    pub file_data: Option<IgnoredAny>,
}

impl<'a> Part<'a> {
    /// What a tool of the provider's own left, by its name.
    pub fn of_tool(&self) -> Option<(&'static str, &'a RawValue)> {
        let kinds = [
            self.executable_code,
            self.code_execution_result,
            self.tool_call,
            self.tool_response,
        ];
        let mut named = TOOL_PARTS.into_iter().zip(kinds);
        named.find_map(|(name, raw)| Some((name, raw?)))
    }

    /// Neither a call nor data nor a trace of the provider's own tools. The text may be empty.
    pub fn is_text(&self) -> bool {
        self.function_call.is_none()
            && self.inline_data.is_none()
            && self.executable_code.is_none()
            && self.code_execution_result.is_none()
            && self.tool_call.is_none()
            && self.tool_response.is_none()
            && self.function_response.is_none()
            && self.file_data.is_none()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FunctionCall<'a> {
    #[serde(borrow, default)]
    pub id: Text<'a>,
    #[serde(borrow, default)]
    pub name: Text<'a>,
    #[serde(borrow)]
    pub args: Option<&'a RawValue>,
    /// The enterprise platform streams arguments as (path, value) pairs.
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub partial_args: Vec<PartialArg<'a>>,
    #[serde(default, deserialize_with = "or_default")]
    pub will_continue: bool,
}

/// One value, or a piece of a string, at a path like `$.rows[0].name`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PartialArg<'a> {
    #[serde(borrow, default)]
    pub json_path: Text<'a>,
    #[serde(borrow)]
    pub string_value: Option<Text<'a>>,
    pub number_value: Option<serde_json::Number>,
    pub bool_value: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Blob<'a> {
    #[serde(borrow, default)]
    pub mime_type: Text<'a>,
    #[serde(borrow, default)]
    pub data: Text<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UsageMetadata<'a> {
    #[serde(default)]
    pub prompt_token_count: Count,
    #[serde(default)]
    pub tool_use_prompt_token_count: Count,
    #[serde(default)]
    pub cached_content_token_count: Count,
    #[serde(default)]
    pub candidates_token_count: Count,
    #[serde(default)]
    pub thoughts_token_count: Count,
    #[serde(default)]
    pub total_token_count: Count,
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub prompt_tokens_details: Vec<ModalityCount<'a>>,
    #[serde(borrow, default)]
    pub service_tier: Text<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModalityCount<'a> {
    #[serde(borrow, default)]
    pub modality: Text<'a>,
    #[serde(default)]
    pub token_count: Count,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Grounding<'a> {
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub grounding_chunks: Vec<GroundingChunk<'a>>,
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub grounding_supports: Vec<GroundingSupport<'a>>,
}

#[derive(Deserialize)]
pub struct GroundingChunk<'a> {
    #[serde(borrow)]
    pub web: Option<Web<'a>>,
}

#[derive(Deserialize)]
pub struct Web<'a> {
    #[serde(borrow, default)]
    pub uri: Text<'a>,
    #[serde(borrow, default)]
    pub title: Text<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroundingSupport<'a> {
    #[serde(borrow)]
    pub segment: Option<Segment<'a>>,
    #[serde(default, deserialize_with = "or_default")]
    pub grounding_chunk_indices: Vec<usize>,
}

/// Byte offsets within one part.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Segment<'a> {
    #[serde(default)]
    pub part_index: Count,
    #[serde(default)]
    pub start_index: Count,
    #[serde(default)]
    pub end_index: Count,
    #[serde(borrow, default)]
    pub text: Text<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogprobsResult<'a> {
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub chosen_candidates: Vec<TokenLogprob<'a>>,
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub top_candidates: Vec<TopCandidates<'a>>,
}

#[derive(Deserialize)]
pub struct TopCandidates<'a> {
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub candidates: Vec<TokenLogprob<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenLogprob<'a> {
    #[serde(borrow, default)]
    pub token: Text<'a>,
    #[serde(borrow)]
    pub log_probability: Option<&'a RawValue>,
}

/// A string; `null` is the empty one, and a number (an enum sent as its value) its digits.
#[derive(Default, Debug, PartialEq)]
pub struct Text<'a>(pub Cow<'a, str>);

impl std::ops::Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;
        impl<'de> Visitor<'de> for Words {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(number.to_string())))
            }

            fn visit_unit<E>(self) -> Result<Text<'de>, E> {
                Ok(Text::default())
            }
        }
        deserializer.deserialize_any(Words)
    }
}

/// A counter. Protocol buffers write 64-bit ones as strings.
#[derive(Default, Debug, Clone, Copy, PartialEq)]
pub struct Count(pub Option<u64>);

impl Count {
    pub fn or_zero(self) -> u64 {
        self.0.unwrap_or(0)
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;
        impl Visitor<'_> for Number {
            type Value = Count;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a count")
            }

            fn visit_u64<E>(self, number: u64) -> Result<Count, E> {
                Ok(Count(Some(number)))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Count, E> {
                Ok(Count(u64::try_from(number).ok()))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Count, E> {
                // The cast saturates, and NaN cannot be written in JSON.
                Ok(Count((number >= 0.0).then_some(number as u64)))
            }

            fn visit_str<E: Error>(self, digits: &str) -> Result<Count, E> {
                Ok(Count(digits.parse().ok()))
            }

            fn visit_unit<E>(self) -> Result<Count, E> {
                Ok(Count(None))
            }
        }
        deserializer.deserialize_any(Number)
    }
}

/// `null` is the same as absent.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_numbers_and_strings_are_taken_where_words_and_counts_stand() {
        let text = r#"{"candidates":[{"index":"1","finishReason":1,"content":{"parts":null}}],
            "promptFeedback":null,"modelVersion":null,"responseId":"a\u0062",
            "usageMetadata":{"promptTokenCount":3.0,"totalTokenCount":-1,"promptTokensDetails":null}}"#;
        let response: Response = serde_json::from_str(text).unwrap();
        assert_eq!(response.candidates[0].index, Count(Some(1)));
        assert_eq!(&*response.candidates[0].finish_reason, "1");
        assert_eq!(&*response.model_version, "");
        assert_eq!(&*response.response_id, "ab");
        let usage = response.usage_metadata.unwrap();
        assert_eq!(usage.prompt_token_count, Count(Some(3)));
        assert_eq!(usage.total_token_count, Count(None));
    }

    #[test]
    fn text_without_escapes_is_borrowed() {
        let part: Part = serde_json::from_str(r#"{"text":"plain"}"#).unwrap();
        assert!(matches!(part.text.0, Cow::Borrowed("plain")));
        assert!(part.is_text());
    }
}
