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
struct Row<T> {
    prefix: &'static str,
    can: T,
    /// Where it is written.
    source: &'static str,
    /// The day on which it was last held against that: `2026-11-30`.
    checked: &'static str,
}

const fn row<T: Copy>(
    prefix: &'static str,
    can: T,
    source: &'static str,
    checked: &'static str,
) -> Row<T> {
    Row {
        prefix,
        can,
        source,
        checked,
    }
}

/// Every row as a line: vendor, the day it was checked, what names begin with, and the source.
pub fn table() -> String {
    let mut out = String::new();
    lines("anthropic", claude::ROWS, &mut out);
    lines("google", gemini::ROWS, &mut out);
    lines("openai", openai::ROWS, &mut out);
    out
}

fn lines<T>(vendor: &str, rows: &[Row<T>], out: &mut String) {
    for row in rows {
        let (prefix, source) = (row.prefix, row.source);
        let line = format!("{vendor:<9} {} {prefix:<24} {source}\n", row.checked);
        out.push_str(&line);
    }
}

/// The row with the longest prefix that `model` begins with.
fn longest<T: Copy>(rows: &[Row<T>], model: &str) -> Option<T> {
    let fits = rows.iter().filter(|row| model.starts_with(row.prefix));
    fits.max_by_key(|row| row.prefix.len()).map(|row| row.can)
}

#[cfg(test)]
mod tests;
