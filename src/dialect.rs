//! What callers may speak: one entry per dialect, each a pair of files.

pub mod openai;
