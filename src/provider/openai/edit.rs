//! `Draft`: a request about to be changed, as cheaply as the change allows.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use serde_json::value::RawValue;

use crate::dialect::openai::Head;
use crate::json::overlay::Overlay;
use crate::json::push_string;

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

    /// Gives `key` the value `json`, or adds it. Of doubled keys the last one stays: which one a
    /// server heeds is not known, and a copy for each would let a small body become a large one.
    pub fn set(&mut self, key: &str, json: String) {
        let Some(last) = self.members.iter().rposition(|member| member.key == key) else {
            self.members.push(Member {
                key: Cow::Owned(key.to_owned()),
                sent: None,
                new: Some(json),
            });
            return;
        };
        let doubled = self.members[..last].iter().any(|member| member.key == key);
        self.members[last].new = Some(json);
        if doubled {
            let mut at = 0;
            self.members.retain(|member| {
                at += 1;
                at > last || member.key != key
            });
            self.reshaped = true;
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
        let merged = merged(self.get(key), json);
        self.set(key, merged);
    }

    /// Merges every one of `fields` in, as `merge` does.
    pub fn merge_all<'f>(&mut self, fields: impl Iterator<Item = (&'f str, &'f RawValue)>) {
        /// More are not looked for one by one.
        const FEW: usize = 8;
        // Of doubled keys the last one counts.
        let mut fields: Vec<_> = fields.collect();
        let mut seen = HashSet::new();
        fields.reverse();
        fields.retain(|(key, _)| seen.insert(*key));
        if fields.len() > FEW {
            // Then each name stands for one place.
            let mut seen = HashSet::with_capacity(self.members.len());
            let mut last: Vec<bool> = (self.members.iter().rev())
                .map(|member| seen.insert(&*member.key))
                .collect();
            self.reshaped |= last.contains(&false);
            self.members.retain(|_| last.pop() == Some(true));
            let places = self.members.iter().enumerate();
            let places: HashMap<String, usize> = places
                .map(|(at, member)| (member.key.to_string(), at))
                .collect();
            for (key, value) in fields.into_iter().rev() {
                match places.get(key) {
                    Some(&at) => {
                        let member = &mut self.members[at];
                        let old = Some(member.value()).filter(|old| *old != "null");
                        member.new = Some(merged(old, value.get()));
                    }
                    None => self.members.push(Member {
                        key: Cow::Owned(key.to_owned()),
                        sent: None,
                        new: Some(value.get().to_owned()),
                    }),
                }
            }
            return;
        }
        for (key, value) in fields.into_iter().rev() {
            self.merge(key, value.get());
        }
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

fn merged(old: Option<&str>, json: &str) -> String {
    let Some(old) = old else {
        return json.to_owned();
    };
    let mut out = Vec::with_capacity(old.len() + json.len());
    OVERLAY.lay(&mut out, old, json);
    String::from_utf8_lossy(&out).into_owned()
}

const OVERLAY: Overlay = Overlay {
    depth: 32,
    null_removes: false,
    write: |out, json| out.extend_from_slice(json.as_bytes()),
};

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
