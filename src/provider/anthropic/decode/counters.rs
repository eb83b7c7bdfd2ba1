//! Token counters of an answer, in the provider's sense and in OpenAI's.

use super::wire;
use crate::chat::Usage;

/// The provider's counters. `None`: not heard of.
#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    input: Option<u64>,
    output: Option<u64>,
    read: Option<u64>,
    written: Option<u64>,
    thinking: Option<u64>,
}

/// Counters of the answer in progress, and of those that it continues.
#[derive(Debug, Default)]
pub struct Counters {
    earlier: Usage,
    now: Counts,
    tier: Option<&'static str>,
}

impl Counters {
    /// Takes over the fields that are there. They are cumulative, and `input_tokens` may be
    /// corrected late.
    pub fn take(&mut self, usage: &wire::Usage<'_>) {
        let now = &mut self.now;
        let details = usage.output_tokens_details.as_ref();
        now.input = usage.input_tokens.0.or(now.input);
        now.output = usage.output_tokens.0.or(now.output);
        now.read = usage.cache_read_input_tokens.0.or(now.read);
        now.written = usage.cache_creation_input_tokens.0.or(now.written);
        now.thinking = details
            .and_then(|details| details.thinking_tokens.0)
            .or(now.thinking);
    }

    /// What was counted so far, as OpenAI counts: the prompt includes what came from caches.
    pub fn sum(&self) -> Usage {
        let Counts {
            input,
            output,
            read,
            written,
            thinking,
        } = self.now;
        let prompt = add(add(input, read), written);
        let earlier = &self.earlier;
        Usage {
            prompt: add(earlier.prompt, prompt),
            completion: add(earlier.completion, output),
            cached: add(earlier.cached, read),
            cache_write: add(earlier.cache_write, written),
            reasoning: add(earlier.reasoning, thinking),
            ..Usage::default()
        }
    }

    /// The answer in progress starts over.
    pub fn restart(&mut self) {
        self.now = Counts::default();
    }

    /// What follows is counted on top.
    pub fn next_answer(&mut self) {
        self.earlier = self.sum();
        self.now = Counts::default();
    }

    /// OpenAI's name of the tier that served, when that is news.
    pub fn new_tier(&mut self, usage: &wire::Usage<'_>) -> Option<&'static str> {
        let tier = match (&*usage.speed, &*usage.service_tier) {
            ("fast", _) => "fast",
            (_, "standard") => "default",
            (_, "priority") => "priority",
            _ => return None,
        };
        (self.tier.replace(tier) != Some(tier)).then_some(tier)
    }
}

fn add(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.saturating_add(b)),
        (a, b) => a.or(b),
    }
}
