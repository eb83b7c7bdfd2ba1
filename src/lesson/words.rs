//! The words of a refusal: which member of a request they name, and whether they refuse it.

use crate::failure::{Failure, without_quoted};

/// What is said of a member that is not taken.
const REFUSALS: &[&str] = &[
    "unsupported",
    "not supported",
    "not support",
    "n't support",
    "not enabled",
    "not available",
    "unavailable",
    "unrecognized",
    "unrecognised",
    "not recognized",
    "unknown",
    "unexpected",
    "extra inputs",
    "extra fields",
    "extra_forbidden",
    "additional propert",
    "not permitted",
    "not allowed",
    "not accepted",
    "cannot find field",
    "deprecated",
    "no longer",
];

/// What holds for one request and need not for the next.
const CONDITIONS: &[&str] = &[
    "when ",
    " if ",
    "unless",
    "while ",
    "together",
    "both ",
    "combination",
    "combined",
    "only allowed",
    "only supported",
    "alongside",
    "in combination",
];

/// Paths into what carries the meaning of a request. What is refused in there is no field of it.
const INSIDE: &[&str] = &["messages", "contents", "tools", "input"];

/// The message of a refusal and the member that it is about, where it says so.
#[derive(Debug)]
pub struct Words {
    pub lower: String,
    pub param: String,
    /// A code says that the member is not taken.
    is_code: bool,
}

impl Words {
    pub fn new(failure: &Failure) -> Words {
        let codes = [
            "unsupported_parameter",
            "unsupported_value",
            "unknown_parameter",
        ];
        Words {
            lower: failure.message.to_lowercase(),
            param: failure.param.as_deref().unwrap_or_default().to_lowercase(),
            is_code: failure
                .code
                .as_deref()
                .is_some_and(|code| codes.contains(&code)),
        }
    }

    /// One of the members with these names is refused, or one of these phrases said as a refusal.
    pub fn refuses(&self, members: &[&str], phrases: &[&str]) -> bool {
        if is_inside(&self.param) {
            return false;
        }
        let is_named = |words: &str| members.iter().any(|member| names(words, member));
        if !self.param.is_empty() {
            return is_named(&self.param) && (self.is_code || is_refusal(&self.lower));
        }
        self.sentences().any(|sentence| {
            let is_said = phrases.iter().any(|phrase| sentence.contains(phrase));
            (is_said || is_named(sentence)) && is_refusal(sentence) && !is_inside(sentence)
        })
    }

    /// It is refused because of something else in the request.
    pub fn names_condition(&self) -> bool {
        let mut sentences = self.sentences().filter(|sentence| is_refusal(sentence));
        sentences.any(|sentence| CONDITIONS.iter().any(|word| sentence.contains(word)))
    }

    pub fn sentences(&self) -> impl Iterator<Item = &str> {
        self.lower
            .split('\n')
            .flat_map(|line| line.split(". "))
            .flat_map(|sentence| sentence.split("; "))
    }
}

/// A quoted value is the caller's, and says nothing.
pub fn is_refusal(words: &str) -> bool {
    let words = without_quoted(words, false);
    REFUSALS.iter().any(|refusal| words.contains(refusal))
}

fn is_inside(words: &str) -> bool {
    INSIDE.iter().any(|holder| {
        words.match_indices(holder).any(|(at, _)| {
            let behind = &words.as_bytes()[at + holder.len()..];
            let before = words[..at].chars().next_back();
            let starts = before.is_none_or(|c| !c.is_alphanumeric() && c != '_');
            starts
                && match behind {
                    [b'[', ..] => true,
                    [b'.', next, ..] => next.is_ascii_alphanumeric(),
                    _ => false,
                }
        })
    })
}

/// Whether `words` name the member of an object. Some names are English words as well, and are one
/// only beside a quote, a bracket, a point or a colon.
pub fn names(words: &str, member: &str) -> bool {
    words.match_indices(member).any(|(at, _)| {
        let before = words[..at].chars().next_back();
        let after = words[at + member.len()..].chars().next();
        let goes_on =
            |char: Option<char>| char.is_some_and(|char| char.is_alphanumeric() || char == '_');
        let is_mark = |char: Option<char>| char.is_some_and(|char| "'\"`[](){}.:".contains(char));
        !goes_on(before)
            && !goes_on(after)
            && (member.contains('_')
                || is_mark(before)
                || is_mark(after)
                || words == member
                || words[..at].ends_with(": "))
    })
}
