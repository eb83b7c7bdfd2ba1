//! A JSON text as a tree that still shows doubled members, which a map would swallow.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    Null,
    Flag(bool),
    Whole(i128),
    Fraction,
    Text(String),
    List(Vec<Node>),
    Object(Vec<(String, Node)>),
}

impl Node {
    /// What it is, for "expected a string, found ...". Never shows the value, which may be secret.
    pub fn kind(&self) -> &'static str {
        match self {
            Node::Null => "null",
            Node::Flag(_) => "true or false",
            Node::Whole(_) => "a number",
            Node::Fraction => "a number with a fraction",
            Node::Text(_) => "a string",
            Node::List(_) => "a list",
            Node::Object(_) => "an object",
        }
    }
}

/// Parses JSON in which whole lines may be `//` comments. An error is a place and what is wrong.
pub fn parse(text: &str) -> Result<Node, (String, String)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    serde_json::from_str(&without_comments(text)).map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        let text = error.to_string();
        let end = text.rfind(" at line ").unwrap_or(text.len());
        (place, format!("not valid JSON: {}", &text[..end]))
    })
}

/// Empties the lines that begin with `//`, so that the others keep their numbers. A JSON string
/// cannot hold a line break, so such a line is never part of a value.
fn without_comments(text: &str) -> String {
    text.split_inclusive('\n')
        .map(|line| {
            if line.trim_start().starts_with("//") {
                "\n"
            } else {
                line
            }
        })
        .collect()
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Node;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_unit<E>(self) -> Result<Node, E> {
                Ok(Node::Null)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
                Ok(Node::Flag(value))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
                Ok(Node::Whole(value.into()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
                Ok(Node::Whole(value.into()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
                // Also `1e3` and what is too long for 64 bits, which bounds then refuse.
                Ok(if value.fract() == 0.0 {
                    Node::Whole(value as i128)
                } else {
                    Node::Fraction
                })
            }

            fn visit_str<E>(self, value: &str) -> Result<Node, E> {
                Ok(Node::Text(value.to_owned()))
            }

            fn visit_string<E>(self, value: String) -> Result<Node, E> {
                Ok(Node::Text(value))
            }

            fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<Node, S::Error> {
                let mut list = Vec::new();
                while let Some(node) = seq.next_element()? {
                    list.push(node);
                }
                Ok(Node::List(list))
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Node, M::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Node::Object(members))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comment_lines_are_skipped_and_places_stay_true() {
        let node =
            parse("\u{feff}// head\n{\n  // \"a\": 1,\r\n  \"b\": \"// no\"\n}\n// end").unwrap();
        assert_eq!(
            node,
            Node::Object(vec![("b".into(), Node::Text("// no".into()))])
        );
        let (place, text) = parse("// one\n{\n  \"a\" 1\n}").unwrap_err();
        assert_eq!(place, "line 3, column 7");
        assert_eq!(text, "not valid JSON: expected `:`");
    }

    #[test]
    fn numbers_are_whole_or_not() {
        assert_eq!(parse("1e3").unwrap(), Node::Whole(1000));
        assert_eq!(parse("-1").unwrap(), Node::Whole(-1));
        assert_eq!(parse("1.5").unwrap(), Node::Fraction);
        assert_eq!(
            parse("99999999999999999999").unwrap(),
            Node::Whole(100_000_000_000_000_000_000)
        );
    }
}
