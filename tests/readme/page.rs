//! A page taken apart: its fenced blocks, and whether an output is what a block shows.

use serde_json::Value;

/// Stands for anything in an output that a page shows.
const ANYTHING: &str = "…";

/// The same as a character, at which a pattern can be split from both ends.
const ANYTHING_CHAR: char = '…';

/// One fenced block.
#[derive(Debug, Clone, PartialEq)]
pub struct Block {
    pub language: String,
    pub text: String,
    /// The number of its first line, for messages.
    pub line: usize,
    /// The last heading of the second level before it.
    pub section: String,
    /// Nothing but blank lines stands between it and the block before.
    pub follows: bool,
    /// It is a program for this client: `<!-- client: NAME -->` stands in the line before.
    pub client: Option<String>,
}

impl Block {
    /// Lines with a command or a part of one.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.text.lines().filter(|line| !line.trim().is_empty())
    }

    /// A config file rather than an answer.
    pub fn is_config(&self) -> bool {
        self.language == "json" && self.text.contains("\"upstreams\"")
    }
}

pub fn blocks(page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open: Option<Block> = None;
    let mut section = String::new();
    let mut follows = false;
    let mut client = None;
    for (at, line) in page.lines().enumerate() {
        match (&mut open, line.strip_prefix("```")) {
            (Some(_), Some(_)) => {
                blocks.extend(open.take());
                follows = true;
            }
            (Some(block), None) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, Some(language)) => {
                open = Some(Block {
                    language: language.to_owned(),
                    text: String::new(),
                    line: at + 2,
                    section: section.clone(),
                    follows,
                    client: client.take(),
                });
            }
            (None, None) => {
                let mark = line.strip_prefix("<!-- client: ");
                client = mark
                    .and_then(|mark| mark.strip_suffix(" -->"))
                    .map(str::to_owned);
                if let Some(heading) = line.strip_prefix("## ") {
                    heading.clone_into(&mut section);
                }
                follows &= line.trim().is_empty();
            }
        }
    }
    assert_eq!(open, None, "the last block is not closed");
    blocks
}

/// What stands between two lines.
pub fn between<'r>(page: &'r str, begin: &str, end: &str) -> Option<&'r str> {
    let (_, rest) = page.split_once(&format!("{begin}\n"))?;
    Some(rest.split_once(&format!("{end}\n"))?.0)
}

/// Whether `found` is the output that `shown` shows.
pub fn fits(shown: &Block, found: &str) -> bool {
    let found = found.replace('\r', "");
    if shown.language != "json" {
        return text_fits(shown.text.trim(), found.trim());
    }
    let pattern: Value = serde_json::from_str(&shown.text).expect("a JSON block holds JSON");
    match serde_json::from_str(&found) {
        Ok(found) => value_fits(&pattern, &found),
        Err(_) => false,
    }
}

fn text_fits(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split(ANYTHING_CHAR);
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let Some(last) = pieces.next_back() else {
        return rest.is_empty();
    };
    for piece in pieces {
        match rest.split_once(piece) {
            Some((_, behind)) => rest = behind,
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// A member named `…` stands for any further members.
fn value_fits(pattern: &Value, value: &Value) -> bool {
    match (pattern, value) {
        (Value::String(pattern), _) if pattern == ANYTHING => true,
        (Value::String(pattern), Value::String(text)) => text_fits(pattern, text),
        (Value::Array(patterns), Value::Array(values)) => {
            let mut pairs = patterns.iter().zip(values);
            patterns.len() == values.len() && pairs.all(|(p, v)| value_fits(p, v))
        }
        (Value::Object(patterns), Value::Object(values)) => {
            let mut named = patterns.iter().filter(|(name, _)| *name != ANYTHING);
            let enough = patterns.contains_key(ANYTHING) || patterns.len() == values.len();
            enough && named.all(|(name, p)| values.get(name).is_some_and(|v| value_fits(p, v)))
        }
        _ => pattern == value,
    }
}

#[test]
fn blocks_know_their_place() {
    let page = "## A\n```sh\na\nb\n```\n\n```text\nx\n```\nword\n\n```json\n{}\n```\n\
                <!-- client: a -->\n```js\n```\n";
    let found = blocks(page);
    let told: Vec<_> = found
        .iter()
        .map(|block| (&*block.language, &*block.text, block.line, block.follows))
        .collect();
    let wanted = [
        ("sh", "a\nb\n", 3, false),
        ("text", "x\n", 8, true),
        ("json", "{}\n", 13, false),
        ("js", "", 17, false),
    ];
    assert_eq!(told, wanted);
    assert_eq!(found[0].section, "A");
    assert_eq!(
        (&found[2].client, &found[3].client),
        (&None, &Some("a".into()))
    );
}

#[test]
fn an_output_fits_or_does_not() {
    for (pattern, text, fits) in [
        ("a", "a", true),
        ("a", "ab", false),
        ("a…", "ab", true),
        ("…b", "ab", true),
        ("…b…", "abc", true),
        ("a…b…c", "a-b-c", true),
        ("a…b…c", "a-c", false),
        ("a…a", "a", false),
        ("a\n…\nz", "a\nb\nz", true),
    ] {
        assert_eq!(text_fits(pattern, text), fits, "{pattern} {text}");
    }
    for (pattern, value, fits) in [
        (r#"{"a":1}"#, r#"{"a":1,"b":2}"#, false),
        (r#"{"a":1,"…":"…"}"#, r#"{"a":1,"b":2}"#, true),
        (r#"{"a":1,"…":"…"}"#, r#"{"b":2}"#, false),
        (r#"{"a":["…"]}"#, r#"{"a":[{}]}"#, true),
        (r#"{"a":[1]}"#, r#"{"a":[1,2]}"#, false),
        (r#"{"a":"x…"}"#, r#"{"a":"xy"}"#, true),
        (r#"{"a":null}"#, r#"{"a":0}"#, false),
    ] {
        let pattern = serde_json::from_str(pattern).expect("a pattern");
        let value = serde_json::from_str(value).expect("a value");
        assert_eq!(value_fits(&pattern, &value), fits, "{pattern} {value}");
    }
}
