//! Gemini's token counters, turned into OpenAI's sense.

use super::wire::{Count, UsageMetadata};
use crate::chat::Usage;

/// What one upstream answer has said so far. Each event brings running totals, and any of them may
/// be left out, so the last value of each field counts.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counters {
    prompt: Option<u64>,
    tool_use: Option<u64>,
    cached: Option<u64>,
    candidates: Option<u64>,
    thoughts: Option<u64>,
    total: Option<u64>,
    audio: Option<u64>,
    image: Option<u64>,
}

impl Counters {
    pub fn take(&mut self, said: &UsageMetadata<'_>) {
        fn newer(old: &mut Option<u64>, new: Count) {
            if new.0.is_some() {
                *old = new.0;
            }
        }
        newer(&mut self.prompt, said.prompt_token_count);
        newer(&mut self.tool_use, said.tool_use_prompt_token_count);
        newer(&mut self.cached, said.cached_content_token_count);
        newer(&mut self.candidates, said.candidates_token_count);
        newer(&mut self.thoughts, said.thoughts_token_count);
        newer(&mut self.total, said.total_token_count);
        for detail in &said.prompt_tokens_details {
            match &*detail.modality {
                "AUDIO" => newer(&mut self.audio, detail.token_count),
                "IMAGE" => newer(&mut self.image, detail.token_count),
                _ => {}
            }
        }
    }

    pub fn usage(&self) -> Usage {
        let prompt = sum(self.prompt, self.tool_use);
        let said = sum(self.candidates, self.thoughts);
        // The total covers what the vendor forgets to itemise, so the rest of it is the answer.
        let completion = match (self.total, prompt) {
            (Some(total), Some(prompt)) if total >= prompt => Some(total - prompt),
            _ => said,
        };
        Usage {
            prompt,
            completion,
            cached: self.cached,
            cache_write: None,
            reasoning: self.thoughts,
            prompt_audio: self.audio,
            prompt_image: self.image,
        }
    }
}

/// The usage of two upstream answers that make up one answer of ours.
pub fn add(a: Usage, b: Usage) -> Usage {
    Usage {
        prompt: sum(a.prompt, b.prompt),
        completion: sum(a.completion, b.completion),
        cached: sum(a.cached, b.cached),
        cache_write: sum(a.cache_write, b.cache_write),
        reasoning: sum(a.reasoning, b.reasoning),
        prompt_audio: sum(a.prompt_audio, b.prompt_audio),
        prompt_image: sum(a.prompt_image, b.prompt_image),
    }
}

fn sum(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (None, None) => None,
        (a, b) => Some(a.unwrap_or(0).saturating_add(b.unwrap_or(0))),
    }
}

/// OpenAI's name for the tier that served, where it has one.
pub fn tier_name(tier: &str) -> Option<&'static str> {
    match tier {
        "standard" | "STANDARD" => Some("default"),
        "flex" | "FLEX" => Some("flex"),
        "priority" | "PRIORITY" => Some("priority"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(text: &str) -> Usage {
        let mut counters = Counters::default();
        counters.take(&serde_json::from_str(text).unwrap());
        counters.usage()
    }

    #[test]
    fn thoughts_count_as_completion_and_tool_prompts_as_prompt() {
        let told = usage(
            r#"{"promptTokenCount":29,"candidatesTokenCount":15,"thoughtsTokenCount":804,"totalTokenCount":848}"#,
        );
        assert_eq!(
            (told.prompt, told.completion, told.reasoning),
            (Some(29), Some(819), Some(804))
        );
        let told = usage(
            r#"{"promptTokenCount":85,"candidatesTokenCount":122,"totalTokenCount":443,"toolUsePromptTokenCount":149,"thoughtsTokenCount":87}"#,
        );
        assert_eq!((told.prompt, told.completion), (Some(234), Some(209)));
    }

    #[test]
    fn without_a_usable_total_the_items_count() {
        let told = usage(r#"{"promptTokenCount":10,"candidatesTokenCount":2,"totalTokenCount":4}"#);
        assert_eq!(told.completion, Some(2));
        assert_eq!(usage(r#"{"totalTokenCount":4}"#).completion, None);
        assert_eq!(usage("{}"), Usage::default());
        let told = usage(
            r#"{"promptTokensDetails":[{"modality":"AUDIO","tokenCount":7},{"modality":"IMAGE","tokenCount":8},{"modality":"TEXT","tokenCount":9}]}"#,
        );
        assert_eq!((told.prompt_audio, told.prompt_image), (Some(7), Some(8)));
    }
}
