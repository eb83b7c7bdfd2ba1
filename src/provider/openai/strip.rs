//! Leaving out extension fields, where there are any.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::edit::push_object;
use crate::json::Fields;

/// The extensions of one kind of object.
pub struct Extensions {
    /// Members to leave out.
    keys: &'static [&'static str],
    /// Objects of these types are left out of lists.
    kinds: &'static [&'static str],
    /// Members with objects, or one, that have extensions themselves.
    inner: &'static [(&'static str, &'static Extensions)],
}

pub static MESSAGE: Extensions = Extensions {
    keys: &[
        "cache_control",
        "extra_content",
        "images",
        "reasoning",
        "reasoning_content",
        "thinking_blocks",
    ],
    kinds: &[],
    inner: &[("content", &PART), ("tool_calls", &CALL)],
};

pub static TOOL: Extensions = Extensions {
    keys: &["cache_control"],
    kinds: &[],
    inner: &[("function", &FUNCTION)],
};

/// What makes a tool strict.
pub static STRICT: Extensions = Extensions {
    keys: &["strict"],
    kinds: &[],
    inner: &[("function", &STRICT_FUNCTION)],
};

static STRICT_FUNCTION: Extensions = Extensions {
    keys: &["strict"],
    kinds: &[],
    inner: &[],
};

/// Mistral's models think in parts of the content.
static PART: Extensions = Extensions {
    keys: &["cache_control"],
    kinds: &["thinking"],
    inner: &[],
};

static FUNCTION: Extensions = Extensions {
    keys: &["cache_control"],
    kinds: &[],
    inner: &[],
};

static CALL: Extensions = Extensions {
    keys: &["extra_content"],
    kinds: &[],
    inner: &[],
};

impl Extensions {
    /// A list of such objects, or one, without its extensions; `None` if it has none.
    pub fn strip(&self, json: &str) -> Option<String> {
        // Most requests have none, and a search costs far less than parsing.
        if !self.are_named_in(json) {
            return None;
        }
        if json.starts_with('[') {
            return match map_list(json, |entry| match self.is_extension(entry) {
                true => Some(String::new()),
                false => self.strip_object(entry),
            }) {
                Some(list) if list == "[]" => Some("\"\"".to_owned()),
                list => list,
            };
        }
        self.strip_object(json)
    }

    fn are_named_in(&self, json: &str) -> bool {
        // With both quotes: inside of a string they would be escaped.
        let named = |key: &&str| json.contains(&format!("\"{key}\""));
        let mut inner = self.inner.iter();
        self.keys.iter().chain(self.kinds).any(named)
            || inner.any(|(_, inner)| inner.are_named_in(json))
    }

    fn is_extension(&self, entry: &str) -> bool {
        if self.kinds.is_empty() {
            return false;
        }
        let fields = serde_json::from_str::<Fields>(entry).unwrap_or_default();
        let kind = fields.parse::<Cow<str>>("type").and_then(Result::ok);
        kind.is_some_and(|kind| self.kinds.contains(&&*kind))
    }

    fn strip_object(&self, json: &str) -> Option<String> {
        if !json.starts_with('{') || !self.are_named_in(json) {
            return None;
        }
        let fields: Fields = serde_json::from_str(json).ok()?;
        let mut changed = false;
        let mut members = Vec::with_capacity(fields.0.len());
        for (key, value) in &fields.0 {
            if self.keys.contains(&&**key) {
                changed = true;
                continue;
            }
            let mut inner = self.inner.iter();
            let less = inner
                .find(|(name, _)| name == key)
                .and_then(|(_, inner)| inner.strip(value.get()));
            changed |= less.is_some();
            members.push((&**key, less.unwrap_or_else(|| value.get().to_owned())));
        }
        if !changed {
            return None;
        }
        let mut out = Vec::new();
        let members = members.iter().map(|(key, value)| (*key, &**value));
        push_object(&mut out, members);
        String::from_utf8(out).ok()
    }
}

/// A list with the entries replaced for which `map` has something, and those left out for which
/// it has nothing but an empty text; `None` if all stay as they are.
pub fn map_list(json: &str, map: impl Fn(&str) -> Option<String>) -> Option<String> {
    let entries: Vec<&RawValue> = serde_json::from_str(json).ok()?;
    let mut changed = false;
    let mut out = String::with_capacity(json.len());
    out.push('[');
    for entry in entries {
        let new = map(entry.get());
        changed |= new.is_some();
        let entry = new.as_deref().unwrap_or(entry.get());
        if !entry.is_empty() && out.len() > 1 {
            out.push(',');
        }
        out.push_str(entry);
    }
    out.push(']');
    changed.then_some(out)
}

pub fn is_empty_list(json: &str) -> bool {
    json.strip_prefix('[')
        .is_some_and(|rest| rest.trim_start().starts_with(']'))
}

pub fn is_empty_object(json: &str) -> bool {
    json.strip_prefix('{')
        .is_some_and(|rest| rest.trim_start().starts_with('}'))
}
