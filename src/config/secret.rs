//! `Secret`, and the three ways to write one: `env:NAME`, `file:PATH`, or the text itself.

use std::fmt;
use std::path::Path;

use super::file;

/// A text that no log may show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Secret(text.into())
    }

    /// The text itself, for the one header it belongs into.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A credential has no business being longer, and `file:/dev/zero` must come to an end.
const LONGEST: u64 = 16 * 1024;

/// How environment variables are looked up, so that tests need not change the process.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The text stands elsewhere, as what nobody shall see does.
pub fn is_reference(written: &str) -> bool {
    written.starts_with("env:") || written.starts_with("file:")
}

/// The environment variable that `written` names.
pub fn variable(written: &str) -> Option<&str> {
    written.strip_prefix("env:")
}

/// The text that `written` stands for, without white space around it, fit for a header. Relative
/// paths start at `folder`. What is wrong is told without showing any of the text.
pub fn resolve(written: &str, folder: &Path, env: Env<'_>) -> Result<Secret, String> {
    let text = if let Some(name) = variable(written) {
        // Not shown, since it may be a key by mistake.
        if !is_variable_name(name) {
            return Err("`env:` needs the name of an environment variable behind it".into());
        }
        match env(name) {
            Some(text) if text.trim().is_empty() => {
                return Err(format!("environment variable `{name}` is empty"));
            }
            Some(text) => text,
            None => return Err(format!("environment variable `{name}` is not set")),
        }
    } else if let Some(path) = written.strip_prefix("file:") {
        if path.is_empty() {
            return Err("`file:` needs a path behind it".into());
        }
        first_line(&folder.join(path))?
    } else if is_shell_variable(written) {
        return Err("looks like a variable of a shell; write `env:` and its name".into());
    } else {
        written.to_owned()
    };
    let text = text.trim();
    if text.is_empty() {
        return Err("is empty".into());
    }
    if text
        .bytes()
        .any(|byte| byte != b'\t' && byte.is_ascii_control())
    {
        return Err("holds a control character, which no header can carry".into());
    }
    if !text.is_ascii() {
        return Err("holds a character outside ASCII, which no header can carry".into());
    }
    Ok(Secret::new(text))
}

fn is_variable_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !name.is_empty() && name.bytes().all(fits)
}

/// `$NAME` or `${NAME}`, which would otherwise go out as it stands and come back as a wrong key.
fn is_shell_variable(written: &str) -> bool {
    let Some(name) = written.strip_prefix('$') else {
        return false;
    };
    let name = name
        .strip_prefix('{')
        .and_then(|name| name.strip_suffix('}'))
        .unwrap_or(name);
    let fits = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    !name.is_empty() && name.bytes().all(fits)
}

fn first_line(path: &Path) -> Result<String, String> {
    let mut line = file::read(path, LONGEST + 1)
        .map_err(|error| format!("cannot read file `{}`: {}", path.display(), plain(&error)))?;
    if let Some(end) = line.iter().position(|byte| *byte == b'\n') {
        line.truncate(end);
    }
    if line.len() as u64 > LONGEST {
        return Err(format!(
            "the first line of file `{}` is longer than {LONGEST} bytes",
            path.display()
        ));
    }
    let line = String::from_utf8(line)
        .map_err(|_| format!("the first line of file `{}` is not UTF-8", path.display()))?;
    if line.trim().is_empty() {
        return Err(format!(
            "the first line of file `{}` is empty",
            path.display()
        ));
    }
    Ok(line)
}

/// An input/output error in words, without the number that std puts behind it.
pub fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_lowercase(),
        None => text,
    }
}
