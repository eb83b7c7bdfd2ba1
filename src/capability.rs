//! What each model can do: one file of data per vendor, the static fallback of translation section
//! 2. What an upstream's own list says of a model wins over it, see `provider.rs`.
//!
//! Matched by the longest prefix, newest knowledge first. A model that no row knows gets the safe
//! row of its vendor. Pure data and look-ups.

mod claude;
mod gemini;
mod openai;

pub use claude::{Claude, Thinking, claude};
pub use gemini::{Gemini, GeminiThinking, gemini};
pub use openai::{OpenAi, may_need_responses, needs_responses, never_reasons, openai};

/// A model id without `anthropic/`-like prefixes, which aggregators keep.
fn bare(model: &str) -> &str {
    for prefix in ["anthropic/", "google/"] {
        if let Some(rest) = model.strip_prefix(prefix) {
            return rest;
        }
    }
    model
}

/// What the models can do whose names begin with `prefix`.
pub struct Row<T> {
    prefix: &'static str,
    can: T,
}

const fn row<T: Copy>(prefix: &'static str, can: T) -> Row<T> {
    Row { prefix, can }
}

/// The row with the longest prefix that `model` begins with.
fn longest<T: Copy>(rows: &[Row<T>], model: &str) -> Option<T> {
    let fits = rows.iter().filter(|row| model.starts_with(row.prefix));
    fits.max_by_key(|row| row.prefix.len()).map(|row| row.can)
}

#[cfg(test)]
mod tests;
