//! Where somebody wanted to go whose path leads nowhere.
//!
//! Most such paths come of a base URL: some clients want it with `/v1` at its end, some without,
//! and some put a whole path behind it that was already there.

use super::{MODEL, PATHS};
use crate::passthrough;

/// The path that is meant, if it can be told.
pub fn right_path(path: &str) -> Option<String> {
    let path = path.trim_end_matches('/');
    // The longest first, so that nothing of it is taken for a prefix.
    let ends = path.char_indices().filter(|(_, letter)| *letter == '/');
    for (at, _) in ends {
        let (before, end) = path.split_at(at);
        for found in [end.to_owned(), format!("/v1{end}")] {
            if is_known(&found) && is_prefix(before) {
                return Some(found);
            }
        }
    }
    None
}

/// What a wrong base URL can put before a path: names of the API, its version, or the path itself.
fn is_prefix(before: &str) -> bool {
    const WORDS: [&str; 8] = [
        "",
        "api",
        "v1",
        "v1beta",
        "openai",
        "chat",
        "completions",
        "models",
    ];
    before.split('/').all(|word| WORDS.contains(&word))
}

fn is_known(path: &str) -> bool {
    let of_model = path.strip_prefix(MODEL).is_some_and(|id| !id.is_empty());
    of_model || PATHS.iter().any(|(known, ..)| *known == path) || passthrough::is_of_family(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_too_few_or_too_many_is_seen() {
        for (path, right) in [
            ("/chat/completions", "/v1/chat/completions"),
            ("/v1/v1/chat/completions", "/v1/chat/completions"),
            ("/v1/v1/v1/chat/completions", "/v1/chat/completions"),
            ("/v1/chat/completions/", "/v1/chat/completions"),
            (
                "/v1/chat/completions/chat/completions",
                "/v1/chat/completions",
            ),
            ("//v1/chat/completions", "/v1/chat/completions"),
            ("/api/v1/chat/completions", "/v1/chat/completions"),
            ("/openai/v1/embeddings", "/v1/embeddings"),
            ("/completions", "/v1/completions"),
            ("/models", "/v1/models"),
            ("/models/", "/v1/models"),
            ("/v1/v1/models", "/v1/models"),
            ("/models/up/gpt-4", "/v1/models/up/gpt-4"),
            ("/v1/v1/models/m", "/v1/models/m"),
            ("/responses", "/v1/responses"),
            ("/v1/v1/responses/r1/cancel", "/v1/responses/r1/cancel"),
            ("/images/generations", "/v1/images/generations"),
            ("/v1/ask", "/ask"),
            ("/v1/status", "/status"),
            ("/v1/healthz", "/healthz"),
        ] {
            assert_eq!(right_path(path).as_deref(), Some(right), "{path}");
        }
        for path in [
            "",
            "/",
            "/v1",
            "/v1/",
            "/v1/novelty",
            "/nothing",
            "/x/v1/chat/completions",
            "/wp-admin/models",
            "/v1/models/",
            "*",
        ] {
            let expected = (path == "/v1/models/").then_some("/v1/models");
            assert_eq!(right_path(path).as_deref(), expected, "{path}");
        }
    }
}
