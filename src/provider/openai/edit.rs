//! `Draft`: a request about to be changed, as cheaply as the change allows.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::dialect::openai::Head;
use crate::json::{Fields, push_string};

/// The members of a request's body.
///
/// As long as members were only given new values or added, the body is the caller's, spliced.
/// Once one was removed or renamed it is put together from its members, each with its own bytes.
pub struct Draft<'h> {
    body: &'h str,
    members: Vec<Member<'h>>,
    reshaped: bool,
}

struct Member<'h> {
    key: Cow<'h, str>,
    /// The value in the caller's body; `None` for a member that was added.
    sent: Option<&'h str>,
    /// The value in place of it.
    new: Option<String>,
}

impl Member<'_> {
    fn value(&self) -> &str {
        match (&self.new, self.sent) {
            (Some(new), _) => new,
            (None, Some(sent)) => sent,
            (None, None) => "null",
        }
    }
}

impl<'h> Draft<'h> {
    pub fn new(head: &'h Head<'_>) -> Self {
        let members = head.fields.0.iter().map(|(key, raw)| Member {
            key: Cow::Borrowed(&**key),
            sent: Some(raw.get()),
            new: None,
        });
        Draft {
            body: head.body,
            members: members.collect(),
            reshaped: false,
        }
    }

    /// The value of `key`; `null` counts as absent. Of doubled keys the last one counts.
    pub fn get(&self, key: &str) -> Option<&str> {
        let mut members = self.members.iter();
        members
            .rfind(|member| member.key == key)
            .map(Member::value)
            .filter(|value| *value != "null")
    }

    /// Gives every `key` the value `json`, or adds it.
    pub fn set(&mut self, key: &str, json: String) {
        let mut found = false;
        for member in &mut self.members {
            if member.key == key {
                member.new = Some(json.clone());
                found = true;
            }
        }
        if !found {
            self.members.push(Member {
                key: Cow::Owned(key.to_owned()),
                sent: None,
                new: Some(json),
            });
        }
    }

    pub fn remove(&mut self, key: &str) {
        let before = self.members.len();
        self.members.retain(|member| member.key != key);
        self.reshaped |= self.members.len() < before;
    }

    pub fn rename(&mut self, from: &str, to: &'static str) {
        for member in &mut self.members {
            if member.key == from {
                member.key = Cow::Borrowed(to);
                self.reshaped = true;
            }
        }
    }

    /// Merges `json` into the value of `key`: objects member by member, anything else replaced.
    pub fn merge(&mut self, key: &str, json: &str) {
        let merged = match self.get(key) {
            Some(old) => merge(old, json, MERGE_DEPTH),
            None => json.to_owned(),
        };
        self.set(key, merged);
    }

    pub fn into_bytes(self) -> Vec<u8> {
        if !self.reshaped
            && let Some(body) = self.splice()
        {
            return body;
        }
        let mut out = Vec::with_capacity(self.body.len() + 64);
        let members = self.members.iter();
        push_object(&mut out, members.map(|m| (&*m.key, m.value())));
        out
    }

    /// The caller's body with new values in the places of the old ones, and additions at the end.
    fn splice(&self) -> Option<Vec<u8>> {
        let end = self.body.rfind('}')?;
        let mut out = Vec::with_capacity(self.body.len() + 64);
        let mut copied = 0;
        for member in &self.members {
            let (Some(sent), Some(new)) = (member.sent, &member.new) else {
                continue;
            };
            // Raw values are slices of the body they were parsed from.
            let at = (sent.as_ptr() as usize).checked_sub(self.body.as_ptr() as usize)?;
            out.extend_from_slice(self.body.get(copied..at)?.as_bytes());
            out.extend_from_slice(new.as_bytes());
            copied = at + sent.len();
        }
        out.extend_from_slice(self.body.get(copied..end)?.as_bytes());
        for member in self.members.iter().filter(|member| member.sent.is_none()) {
            out.push(b',');
            push_string(&mut out, &member.key);
            out.push(b':');
            out.extend_from_slice(member.value().as_bytes());
        }
        out.extend_from_slice(&self.body.as_bytes()[end..]);
        Some(out)
    }
}

/// Deeper objects are replaced rather than merged, so that a body cannot use up the stack.
const MERGE_DEPTH: usize = 32;

fn merge(old: &str, new: &str, depth: usize) -> String {
    let objects = (
        serde_json::from_str::<Fields>(old),
        serde_json::from_str::<Fields>(new),
    );
    let (Ok(old), Ok(more)) = objects else {
        return new.to_owned();
    };
    if depth == 0 {
        return new.to_owned();
    }
    let mut members: Vec<(&str, Cow<str>)> = Vec::new();
    for (key, value) in &old.0 {
        members.push((key, Cow::Borrowed(value.get())));
    }
    for (key, value) in &more.0 {
        merge_member(&mut members, key, value, depth);
    }
    let mut out = Vec::new();
    let members = members.iter().map(|(key, value)| (*key, &**value));
    push_object(&mut out, members);
    String::from_utf8_lossy(&out).into_owned()
}

fn merge_member<'a>(
    members: &mut Vec<(&'a str, Cow<'a, str>)>,
    key: &'a str,
    value: &'a RawValue,
    depth: usize,
) {
    match members.iter_mut().rfind(|(known, _)| *known == key) {
        Some((_, old)) => *old = Cow::Owned(merge(old, value.get(), depth - 1)),
        None => members.push((key, Cow::Borrowed(value.get()))),
    }
}

/// An object of these members.
pub fn push_object<'a>(out: &mut Vec<u8>, members: impl Iterator<Item = (&'a str, &'a str)>) {
    out.push(b'{');
    for (i, (key, value)) in members.enumerate() {
        if i > 0 {
            out.push(b',');
        }
        push_string(out, key);
        out.push(b':');
        out.extend_from_slice(value.as_bytes());
    }
    out.push(b'}');
}
