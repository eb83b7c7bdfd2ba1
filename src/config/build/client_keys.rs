//! The keys that callers may use, as digests.

use super::{Ground, LABEL, is_label, patterns};
use crate::config::findings::{Findings, element, shown};
use crate::config::read::Object;
use crate::config::table::Place;
use crate::config::tree::Node;
use crate::config::{ClientKey, digest, secret};
use crate::limits::Allowance;

/// A key as it was written.
pub struct Written<'a> {
    pub name: String,
    pub key: &'a str,
    pub models: Vec<String>,
    pub allowance: Allowance,
}

pub fn read(top: &Object<'_>, ground: &Ground<'_>, findings: &mut Findings) -> Vec<ClientKey> {
    let mut keys: Vec<ClientKey> = Vec::new();
    let Some(Node::List(list)) = top.get("client_keys") else {
        return keys;
    };
    for (at, node) in list.iter().enumerate() {
        let path = element("client_keys", at);
        match node {
            Node::Text(text) => {
                let name = match secret::variable(text) {
                    Some(variable) => variable.to_owned(),
                    None => format!("key#{}", at + 1),
                };
                let written = Written {
                    name,
                    key: text,
                    models: Vec::new(),
                    allowance: Allowance::default(),
                };
                add(&path, &path, written, ground, &mut keys, findings);
            }
            Node::Object(_) => {
                let Some(object) = Object::open(Place::ClientKey, &path, node, findings) else {
                    continue;
                };
                let models = patterns(&object, findings).unwrap_or_default();
                if object.texts("models").is_some_and(|list| list.is_empty()) {
                    findings.add(
                        &object.path("models"),
                        "is empty; leave it out for all models",
                    );
                }
                let mut allowance = Allowance::default();
                for name in Allowance::NAMES {
                    if let Some(place) = allowance.place(name) {
                        *place = object.number(name);
                    }
                }
                let (Some(name), Some(key)) = (object.text("name"), object.text("key")) else {
                    continue;
                };
                if !is_label(name) {
                    findings.add(&object.path("name"), LABEL);
                }
                let written = Written {
                    name: name.to_owned(),
                    key,
                    models,
                    allowance,
                };
                let key_path = object.path("key");
                add(&path, &key_path, written, ground, &mut keys, findings);
            }
            other => {
                findings.add(
                    &path,
                    format!("expected a string or an object, found {}", other.kind()),
                );
            }
        }
    }
    keys
}

/// Takes a key over, unless it cannot be read or is there already.
pub fn add(
    path: &str,
    key_path: &str,
    written: Written<'_>,
    ground: &Ground<'_>,
    keys: &mut Vec<ClientKey>,
    findings: &mut Findings,
) {
    let digest = match client_digest(written.key, ground) {
        Ok(digest) => digest,
        Err(fault) => return findings.add(key_path, fault),
    };
    if keys.iter().any(|known| known.digest == digest) {
        findings.add(key_path, "is the same key as another one before it");
    } else if keys.iter().any(|known| known.name == written.name) {
        findings.add(
            path,
            format!(
                "the name {} is taken by another key before it",
                shown(&written.name)
            ),
        );
    }
    keys.push(ClientKey {
        name: written.name,
        digest,
        models: written.models,
        allowance: written.allowance,
    });
}

fn client_digest(written: &str, ground: &Ground<'_>) -> Result<[u8; 32], String> {
    let secret = secret::resolve(written, ground.folder, ground.env)?;
    let Some(hex) = secret.reveal().strip_prefix("sha256:") else {
        return Ok(digest(secret.reveal()));
    };
    let mut bytes = [0; 32];
    let digits: Option<Vec<u8>> = hex
        .chars()
        .map(|digit| {
            digit
                .to_digit(16)
                .and_then(|value| u8::try_from(value).ok())
        })
        .collect();
    match &digits {
        Some(digits) if digits.len() == 64 => {
            for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
                *byte = (pair[0] << 4) | pair[1];
            }
            Ok(bytes)
        }
        _ => Err(format!(
            "`sha256:` needs 64 hexadecimal digits behind it, not {} characters{}",
            hex.chars().count(),
            if digits.is_none() {
                " of which some are none"
            } else {
                ""
            }
        )),
    }
}
