//! One object of the config file, checked against the table: unknown and doubled keys, missing
//! ones, wrong types, numbers out of bounds. What comes out of it can be used as it is.

use super::findings::{Findings, did_you_mean, member, shown};
use super::table::{Fallback, Kind, Place, SETTINGS};
use super::tree::Node;

/// The members of an object that passed the table. A member that did not counts as absent, with
/// its finding already written down.
pub struct Object<'n> {
    place: Place,
    pub path: String,
    members: Vec<(&'static str, &'n Node)>,
    /// Every name that stood there, good or not.
    seen: Vec<&'n str>,
}

impl<'n> Object<'n> {
    /// `None` if `node` is no object at all.
    pub fn open(place: Place, path: &str, node: &'n Node, findings: &mut Findings) -> Option<Self> {
        let Node::Object(all) = node else {
            findings.add(path, format!("expected an object, found {}", node.kind()));
            return None;
        };
        let mut members: Vec<(&'static str, &Node)> = Vec::new();
        let mut seen: Vec<&'n str> = Vec::new();
        for (name, value) in all {
            let here = member(path, name);
            if seen.contains(&name.as_str()) {
                findings.add(&here, "stands here twice");
                continue;
            }
            seen.push(name);
            let Some(setting) = place.find(name) else {
                findings.add(&here, unknown(place, name));
                continue;
            };
            if fits(setting.kind, &here, value, findings) {
                members.push((setting.name, value));
            }
        }
        for setting in place.settings() {
            let required = matches!(setting.default, Fallback::Required(_));
            if required && !seen.contains(&setting.name) {
                findings.add(&member(path, setting.name), "is missing");
            }
        }
        Some(Object {
            place,
            path: path.to_owned(),
            members,
            seen,
        })
    }

    pub fn path(&self, name: &str) -> String {
        member(&self.path, name)
    }

    /// Whether the key stood there, be it with a value that did not pass.
    pub fn has(&self, name: &str) -> bool {
        self.seen.contains(&name)
    }

    pub fn get(&self, name: &str) -> Option<&'n Node> {
        debug_assert!(
            self.place.find(name).is_some(),
            "{name} is not in the table"
        );
        self.members
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, node)| *node)
    }

    pub fn text(&self, name: &str) -> Option<&'n str> {
        match self.get(name)? {
            Node::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn flag(&self, name: &str) -> Option<bool> {
        match self.get(name)? {
            Node::Flag(flag) => Some(*flag),
            _ => None,
        }
    }

    pub fn number(&self, name: &str) -> Option<u64> {
        match self.get(name)? {
            Node::Whole(number) => u64::try_from(*number).ok(),
            _ => None,
        }
    }

    /// The texts of a list, each with its index.
    pub fn texts(&self, name: &str) -> Option<Vec<&'n str>> {
        match self.get(name)? {
            Node::List(list) => Some(
                list.iter()
                    .filter_map(|node| match node {
                        Node::Text(text) => Some(text.as_str()),
                        _ => None,
                    })
                    .collect(),
            ),
            _ => None,
        }
    }
}

/// What is said about a key that the table does not have.
fn unknown(place: Place, name: &str) -> String {
    if name.starts_with(['_', '/', '#']) || name.to_lowercase().contains("comment") {
        return "unknown key; a comment is a line of its own that begins with `//`".into();
    }
    let hint = did_you_mean(name, place.settings().map(|setting| setting.name));
    if !hint.is_empty() {
        return format!("unknown key{hint}");
    }
    match SETTINGS.iter().find(|setting| setting.name == name) {
        Some(other) => format!("unknown key here; it belongs {}", belongs(other.place)),
        None => "unknown key".into(),
    }
}

fn belongs(place: Place) -> &'static str {
    match place {
        Place::Top => "to the top",
        Place::Upstream => "into one of `upstreams`",
        Place::ClientKey => "into an object of `client_keys`",
        Place::RequestLog => "into `request_log`",
    }
}

/// Whether `value` is of the kind, as far as the table can tell.
fn fits(kind: Kind, path: &str, value: &Node, findings: &mut Findings) -> bool {
    let expected = match (kind, value) {
        (Kind::Text, Node::Text(text)) => {
            if text.trim().is_empty() {
                findings.add(path, "is empty");
                return false;
            }
            return true;
        }
        (Kind::Flag, Node::Flag(_)) => return true,
        (Kind::Number(unit, min, max), Node::Whole(number)) => {
            if *number < i128::from(min) || *number > i128::from(max) {
                findings.add(
                    path,
                    format!("{number} is out of bounds: {min} to {max}{}", unit.name()),
                );
                return false;
            }
            return true;
        }
        (Kind::Choice(words), Node::Text(text)) => {
            if words.contains(&text.as_str()) {
                return true;
            }
            findings.add(
                path,
                format!(
                    "{} is not one of `{}`{}",
                    shown(text),
                    words.join("`, `"),
                    did_you_mean(text, words.iter().copied())
                ),
            );
            return false;
        }
        (Kind::Texts, Node::List(list)) => {
            let mut fine = true;
            for (at, node) in list.iter().enumerate() {
                fine &= fits(Kind::Text, &format!("{path}[{at}]"), node, findings);
            }
            return fine;
        }
        (Kind::Pairs, Node::Object(members)) => {
            let mut fine = true;
            for (name, node) in members {
                fine &= fits(Kind::Text, &member(path, name), node, findings);
            }
            return fine;
        }
        (Kind::Aliases | Kind::RequestLog, Node::Object(_)) => return true,
        (Kind::Upstreams | Kind::ClientKeys, Node::List(_)) => return true,
        (Kind::Text | Kind::Choice(_), _) => "a string",
        (Kind::Flag, _) => "true or false",
        (Kind::Number(..), _) => "a whole number",
        (Kind::Texts, _) => "a list of strings",
        (Kind::Pairs, _) => "an object of strings",
        (Kind::Aliases | Kind::RequestLog, _) => "an object",
        (Kind::Upstreams | Kind::ClientKeys, _) => "a list",
    };
    findings.add(path, format!("expected {expected}, found {}", value.kind()));
    false
}

#[cfg(test)]
mod tests {
    use crate::config::table;

    /// A key that code asks for and no row of the table has would never be found: each name that
    /// stands in the code that builds a configuration is looked up.
    #[test]
    fn every_key_that_code_asks_for_is_in_the_table() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/config");
        let mut files = vec![format!("{folder}/build.rs")];
        for entry in std::fs::read_dir(format!("{folder}/build")).unwrap() {
            files.push(entry.unwrap().path().display().to_string());
        }
        let mut looked_up = 0;
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            for call in [
                ".flag(", ".number(", ".text(", ".texts(", ".millis(", ".get(", ".has(", ".choice(",
            ] {
                for (at, _) in text.match_indices(call) {
                    let behind = text[at + call.len()..].trim_start();
                    let Some(name) = behind
                        .strip_prefix('"')
                        .and_then(|name| name.split('"').next())
                    else {
                        continue;
                    };
                    assert!(table::has(name), "{name} in {file}");
                    looked_up += 1;
                }
            }
        }
        assert!(looked_up > 30, "{looked_up}");
    }
}
