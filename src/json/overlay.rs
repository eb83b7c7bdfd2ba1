//! One JSON object laid over another: objects into objects, everything else replaced.
//!
//! Both sides stay raw text, so what is not touched keeps its bytes. Members are looked up, because
//! callers choose how many there are, and each value of the upper side is written at most once.

use std::collections::HashMap;

use super::{Fields, push_string};

/// How one is laid over the other.
#[derive(Clone, Copy)]
pub struct Overlay {
    /// Objects deeper than this are replaced instead of merged, so that a body cannot use up the
    /// stack.
    pub depth: usize,
    /// `null` takes a member out.
    pub null_removes: bool,
    /// Writes a value of the upper side.
    pub write: fn(&mut Vec<u8>, &str),
}

impl Overlay {
    /// Appends `below` with `above` over it; where they are not both objects, `above` alone.
    pub fn lay(&self, out: &mut Vec<u8>, below: &str, above: &str) {
        let fields = |json: &'_ str| json.trim_ascii_start().starts_with('{');
        if self.depth > 0
            && fields(below)
            && fields(above)
            && let Ok(old) = serde_json::from_str::<Fields<'_>>(below)
            && let Ok(new) = serde_json::from_str::<Fields<'_>>(above)
        {
            return self.members(out, &old, &new);
        }
        (self.write)(out, above);
    }

    fn members(&self, out: &mut Vec<u8>, below: &Fields<'_>, above: &Fields<'_>) {
        let (old, new) = (Places::of(below), Places::of(above));
        let inner = Overlay {
            depth: self.depth - 1,
            ..*self
        };
        let mut first = true;
        let mut key = |out: &mut Vec<u8>, name: &str| {
            out.push(if std::mem::take(&mut first) {
                b'{'
            } else {
                b','
            });
            push_string(out, name);
            out.push(b':');
        };
        for (at, (name, value)) in below.0.iter().enumerate() {
            let Some(over) = new.last(name) else {
                key(out, name);
                out.extend_from_slice(value.get().as_bytes());
                continue;
            };
            let over = above.0[over].1.get();
            // Of doubled keys the last one counts, as everywhere.
            if old.last(name) == Some(at) && !(self.null_removes && over == "null") {
                key(out, name);
                inner.lay(out, value.get(), over);
            }
        }
        for (at, (name, value)) in above.0.iter().enumerate() {
            let is_new = old.last(name).is_none() && new.last(name) == Some(at);
            if is_new && !(self.null_removes && value.get() == "null") {
                key(out, name);
                (self.write)(out, value.get());
            }
        }
        out.extend_from_slice(if first { b"{}" } else { b"}" });
    }
}

/// Where the last member of each name stands.
enum Places<'f, 'a> {
    /// So few are found faster by looking at all of them.
    Few(&'f Fields<'a>),
    Many(HashMap<&'f str, usize>),
}

impl<'f, 'a> Places<'f, 'a> {
    const FEW: usize = 8;

    fn of(fields: &'f Fields<'a>) -> Self {
        if fields.0.len() <= Self::FEW {
            return Places::Few(fields);
        }
        let names = fields.0.iter().enumerate();
        Places::Many(names.map(|(at, (name, _))| (&**name, at)).collect())
    }

    fn last(&self, name: &str) -> Option<usize> {
        match self {
            Places::Few(fields) => fields.0.iter().rposition(|(other, _)| other == name),
            Places::Many(places) => places.get(name).copied(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn laid(null_removes: bool, below: &str, above: &str) -> String {
        let overlay = Overlay {
            depth: 3,
            null_removes,
            write: |out, json| out.extend_from_slice(json.as_bytes()),
        };
        let mut out = Vec::new();
        overlay.lay(&mut out, below, above);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn objects_are_merged_and_the_rest_is_replaced() {
        for (below, above, expected) in [
            ("{}", "{}", "{}"),
            (
                r#"{"a":1.50,"b":[1]}"#,
                r#"{"b":2,"c":{}}"#,
                r#"{"a":1.50,"b":2,"c":{}}"#,
            ),
            (
                r#"{"a":{"x":1,"y":{"z":1}}}"#,
                r#"{"a":{"y":{"w":2}}}"#,
                r#"{"a":{"x":1,"y":{"z":1,"w":2}}}"#,
            ),
            (r#"{"a":1}"#, "[1]", "[1]"),
            // Deeper than it goes.
            (
                r#"{"a":{"a":{"a":{"a":1}}}}"#,
                r#"{"a":{"a":{"a":{"b":1}}}}"#,
                r#"{"a":{"a":{"a":{"b":1}}}}"#,
            ),
        ] {
            assert_eq!(laid(false, below, above), expected, "{below} {above}");
        }
        assert_eq!(
            laid(true, r#"{"a":1,"b":1}"#, r#"{"a":null,"c":null}"#),
            r#"{"b":1}"#
        );
        assert_eq!(laid(true, r#"{"a":1}"#, r#"{"a":null}"#), "{}");
        assert_eq!(laid(false, r#"{"a":1}"#, r#"{"a":null}"#), r#"{"a":null}"#);
    }

    /// Otherwise a long value over many members of one name would be written for each of them.
    #[test]
    fn doubled_members_become_one_where_something_is_laid_over_them() {
        let below = r#"{"a":1,"b":1,"a":{"x":1},"b":2}"#;
        let above = r#"{"a":{"y":1},"c":1,"a":{"y":2},"c":2}"#;
        assert_eq!(
            laid(false, below, above),
            r#"{"b":1,"a":{"x":1,"y":2},"b":2,"c":2}"#
        );
    }

    #[test]
    fn many_members_are_found_as_few_are() {
        let object = |from: usize, value: usize| {
            let members = (from..from + 40).map(|n| format!("\"k{n}\":{value}"));
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        };
        let sum = laid(false, &object(0, 1), &object(20, 2));
        let sum: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&sum).unwrap();
        assert_eq!(sum.len(), 60);
        assert!(sum.iter().enumerate().all(|(at, (name, value))| {
            *name == format!("k{at}") && *value == if at < 20 { 1 } else { 2 }
        }));
    }
}
