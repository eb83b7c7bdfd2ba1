//! What is wrong with a configuration: every finding with its place, gathered rather than thrown.

use std::fmt;

/// Everything found in one reading, in the order of reading.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// Where the configuration came from, in front of every finding; may be empty.
    pub source: String,
    list: Vec<(String, String)>,
}

impl Findings {
    pub fn new(source: impl Into<String>) -> Self {
        Findings {
            source: source.into(),
            list: Vec::new(),
        }
    }

    /// One finding about `path`; an empty path is the file as a whole.
    pub fn add(&mut self, path: &str, text: impl Into<String>) {
        self.list.push((path.to_owned(), text.into()));
    }

    /// As `add`, unless the same was found already.
    pub fn add_once(&mut self, path: &str, text: impl Into<String>) {
        let finding = (path.to_owned(), text.into());
        if !self.list.contains(&finding) {
            self.list.push(finding);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// One line per finding.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.list.iter().map(|(path, text)| {
            [self.source.as_str(), path, text]
                .into_iter()
                .filter(|part| !part.is_empty())
                .collect::<Vec<_>>()
                .join(": ")
        })
    }
}

/// On one line, for a log.
impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines().collect::<Vec<_>>().join("; "))
    }
}

/// The path of the member `name` of the object at `path`.
pub fn member(path: &str, name: &str) -> String {
    let plain = !name.is_empty()
        && name.len() <= 64
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    match (plain, path.is_empty()) {
        (true, true) => name.to_owned(),
        (true, false) => format!("{path}.{name}"),
        (false, _) => format!("{path}[{}]", shown(name)),
    }
}

/// The path of an element of the list at `path`.
pub fn element(path: &str, index: usize) -> String {
    format!("{path}[{index}]")
}

/// A text from outside in quotes, with its control characters escaped, and cut if it is long.
pub fn shown(text: &str) -> String {
    let mut short: String = text.chars().take(64).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("{short:?}")
}

/// The one of `known` that `word` may have been meant as.
pub fn meant<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Long words are no typing mistakes, and their distance is dear.
    if word.len() > 64 {
        return None;
    }
    let word = word.to_lowercase();
    known
        .into_iter()
        .map(|candidate| (distance(&word, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| {
            !candidate.is_empty() && *distance <= 1 + candidate.len() / 5
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `; did you mean ...?`, or nothing.
pub fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    meant(word, known)
        .map(|known| format!("; did you mean `{known}`?"))
        .unwrap_or_default()
}

/// Insertions, deletions and replacements between two words (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = corner + usize::from(from != *to);
            corner = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_word() {
        let known = ["retries", "keepalive_ms", "keys"];
        assert_eq!(meant("retires", known), Some("retries"));
        assert_eq!(meant("keepaliv_ms", known), Some("keepalive_ms"));
        assert_eq!(meant("keepAlive_ms", known), Some("keepalive_ms"));
        assert_eq!(meant("key", known), Some("keys"));
        assert_eq!(meant("colour", known), None);
        assert_eq!(meant("", known), None);
    }

    #[test]
    fn paths_quote_what_is_not_a_plain_name() {
        assert_eq!(member("", "models"), "models");
        assert_eq!(member("models", "fast"), "models.fast");
        assert_eq!(member("models", "a.b\n"), "models[\"a.b\\n\"]");
        assert_eq!(member("", ""), "[\"\"]");
        assert_eq!(element("models.fast", 2), "models.fast[2]");
    }
}
