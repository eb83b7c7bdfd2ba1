//! `client_keys_file`: one key a line, `name key-or-sha256:hex [models...] [limit=number...]`.

use std::io::Error;

use super::client_keys::{self, Written};
use super::{Ground, LABEL, is_label, model_fault};
use crate::config::findings::Findings;
use crate::config::read::Object;
use crate::config::{ClientKey, file, secret};
use crate::limits::Allowance;

/// Room for some ten thousand keys.
const LONGEST: u64 = 4 << 20;

/// Adds the file's keys to those of the config.
pub fn read(
    top: &Object<'_>,
    ground: &Ground<'_>,
    keys: &mut Vec<ClientKey>,
    findings: &mut Findings,
) {
    const PATH: &str = "client_keys_file";
    let Some(written) = top.text(PATH) else {
        return;
    };
    let file = ground.folder.join(written);
    let read = file::read(&file, LONGEST + 1).and_then(|bytes| {
        if bytes.len() as u64 > LONGEST {
            // Cut, its last line could be a key without its limits.
            return Err(Error::other(format!("it has more than {LONGEST} bytes")));
        }
        String::from_utf8(bytes).map_err(|_| Error::other("it is not UTF-8"))
    });
    let text = match read {
        Ok(text) => text,
        Err(error) => {
            let why = secret::plain(&error);
            findings.add(
                PATH,
                format!("cannot read file `{}`: {why}", file.display()),
            );
            return;
        }
    };
    let before = keys.len();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let path = format!("{PATH} line {}", number + 1);
        match parse(line) {
            Ok(parsed) => client_keys::add(&path, &path, parsed, ground, keys, findings),
            Err(fault) => findings.add(&path, fault),
        }
    }
    if keys.len() == before && findings.is_empty() {
        findings.add(PATH, format!("file `{}` holds no key", file.display()));
    }
}

/// Nothing of a wrong line is shown: any word of it may be the key.
fn parse(line: &str) -> Result<Written<'_>, String> {
    let mut words = line.split_whitespace();
    let (Some(name), Some(key)) = (words.next(), words.next()) else {
        return Err("needs a name and a key".into());
    };
    if !is_label(name) {
        return Err(LABEL.into());
    }
    let mut written = Written {
        name: name.to_owned(),
        key,
        models: Vec::new(),
        allowance: Allowance::default(),
    };
    for word in words {
        let limit = word
            .split_once('=')
            .and_then(|(name, value)| Some((written.allowance.place(name)?, value)));
        match limit {
            Some((place, value)) => match value.parse::<u64>() {
                Ok(number) if number > 0 => *place = Some(number),
                _ => return Err("a limit needs a whole number above 0".into()),
            },
            None => match model_fault(word) {
                Some(fault) => return Err(format!("one of its models {fault}")),
                None => written.models.push(word.to_owned()),
            },
        }
    }
    Ok(written)
}
