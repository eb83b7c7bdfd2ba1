//! What a usage object counts.

use serde_json::Value;

use crate::chat::Usage;

/// The counters of a usage object, those that it has.
pub fn usage_of(usage: &Value) -> Usage {
    let detail = |details: &str, key: &str| usage.get(details)?.get(key)?.as_u64();
    let prompt = |key: &str| detail("prompt_tokens_details", key);
    Usage {
        prompt: usage.get("prompt_tokens").and_then(Value::as_u64),
        completion: usage.get("completion_tokens").and_then(Value::as_u64),
        cached: prompt("cached_tokens"),
        cache_write: prompt("cache_write_tokens"),
        reasoning: detail("completion_tokens_details", "reasoning_tokens"),
        prompt_audio: prompt("audio_tokens"),
        prompt_image: prompt("image_tokens"),
    }
}
