//! Efforts that a model does not know, and the nearest one that it does.

use super::Lesson;
use super::words::{Words, names};

/// From the weakest to the strongest.
const EFFORTS: &[&str] = &["none", "minimal", "low", "medium", "high", "xhigh", "max"];

/// What efforts are called.
const NAMES: &[&str] = &[
    "reasoning_effort",
    "reasoning.effort",
    "output_config.effort",
    "effort",
    "thinking_level",
    "thinkinglevel",
    "thinking_config.thinking_level",
];

const PHRASES: &[&str] = &[
    "thinking level",
    "effort level",
    "reasoning effort",
    "effort value",
];

/// Behind these the values are listed that are taken.
const LISTS: &[&str] = &[
    "supported values",
    "supported levels",
    "allowed values",
    "valid values",
    "must be one of",
    "should be one of",
    "one of the following",
    "expected one of",
    "input should be",
    "choose from",
    "use one of",
];

/// What is said of a value, and not of the field.
const OF_VALUE: &[&str] = &[
    "not support",
    "n't support",
    "unsupported",
    "invalid",
    "unknown",
    "not valid",
    "not allowed",
    "not available",
];

/// The lesson that `asked` goes out as another effort, where the words refuse that value.
pub fn nearest(words: &Words, asked: &str) -> Option<Lesson> {
    let is_named = NAMES
        .iter()
        .any(|name| names(&words.lower, name) || names(&words.param, name))
        || PHRASES.iter().any(|phrase| words.lower.contains(phrase));
    if !is_named {
        return None;
    }
    let at = EFFORTS.iter().position(|known| *known == asked)?;
    let list = LISTS
        .iter()
        .find_map(|start| words.lower.split_once(start))
        .map(|(_, list)| efforts_in(list))
        .filter(|list| !list.is_empty());
    let Some(list) = list else {
        let refuses = OF_VALUE.iter().any(|word| words.lower.contains(word));
        // The field is refused, whatever its value.
        if !refuses || efforts_in(&words.lower).is_empty() {
            return None;
        }
        // Less is tried in place of more, and more only where there is no less.
        let next = match at {
            0 | 1 => at + 1,
            _ => at - 1,
        };
        return Some(Lesson::Effort(EFFORTS[at], EFFORTS[next]));
    };
    if list.contains(&at) {
        return None;
    }
    // Whoever asks for some thinking is not given none.
    let weaker = list.iter().filter(|known| (1..at).contains(*known)).max();
    let stronger = list.iter().filter(|known| **known > at).min();
    let known = weaker.or(stronger)?;
    Some(Lesson::Effort(EFFORTS[at], EFFORTS[*known]))
}

/// The efforts that the words name, as values: between quotes or in a list.
fn efforts_in(words: &str) -> Vec<usize> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    words
        .split(|c: char| !is_word(c))
        .filter_map(|word| EFFORTS.iter().position(|known| *known == word))
        .collect()
}
