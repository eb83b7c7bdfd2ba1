//! Tool names and tool-call ids that the provider's pattern admits.
//!
//! Names go out as they are where they can. The table depends on the tools and on the history in
//! its order only, so a longer history never changes the names of a shorter one.

use std::borrow::Cow;
use std::collections::HashSet;

/// The longest tool name.
const NAME_LIMIT: usize = 128;

/// The caller's tool names and how they are sent.
#[derive(Debug, Default)]
pub struct Names<'r> {
    /// The caller's names that are known, and as what they go out if that differs.
    known: Vec<(&'r str, Option<String>)>,
    taken: HashSet<String>,
}

impl<'r> Names<'r> {
    /// Keeps `name` for a tool that is not the caller's function.
    pub fn reserve(&mut self, name: &str) {
        self.taken.insert(name.to_owned());
    }

    /// Takes in the names of the request's tools. Those that can stay have priority.
    pub fn add_tools(&mut self, names: &[&'r str]) {
        for name in names.iter().filter(|name| is_valid(name)) {
            self.add(name);
        }
        for name in names {
            self.add(name);
        }
    }

    /// Takes in one name, if it is new.
    pub fn add(&mut self, name: &'r str) {
        if self.known.iter().any(|(known, _)| *known == name) {
            return;
        }
        let sent = if is_valid(name) && !self.taken.contains(name) {
            self.taken.insert(name.to_owned());
            None
        } else {
            Some(free(&mut self.taken, &clean(name), NAME_LIMIT))
        };
        self.known.push((name, sent));
    }

    pub fn contains(&self, name: &str) -> bool {
        self.known.iter().any(|(known, _)| *known == name)
    }

    /// As what `name` goes out.
    pub fn sent<'s>(&'s self, name: &'s str) -> &'s str {
        self.known
            .iter()
            .find(|(known, _)| *known == name)
            .and_then(|(_, sent)| sent.as_deref())
            .unwrap_or(name)
    }

    /// As what `name` goes out, where that is the caller's own text.
    pub fn sent_cow(&self, name: &'r str) -> Cow<'r, str> {
        match self.known.iter().find(|(known, _)| *known == name) {
            Some((_, Some(sent))) => Cow::Owned(sent.clone()),
            _ => Cow::Borrowed(name),
        }
    }

    /// The names that were known, in the order in which they came, as they go out.
    pub fn all_sent(&self) -> impl Iterator<Item = &str> {
        self.known
            .iter()
            .map(|(name, sent)| sent.as_deref().unwrap_or(name))
    }

    /// Sent name and caller's name where they differ.
    pub fn changed(&self) -> Vec<(String, String)> {
        self.known
            .iter()
            .filter_map(|(name, sent)| Some((sent.clone()?, (*name).to_owned())))
            .collect()
    }
}

/// Tool-call ids that are already in the history.
#[derive(Debug, Default)]
pub struct Ids {
    taken: HashSet<String>,
}

impl Ids {
    /// As what the call with `id` goes out. Two calls never share an id, even where the caller
    /// starts counting anew in every turn: the provider refuses that.
    pub fn take<'r>(&mut self, id: &'r str) -> Cow<'r, str> {
        let fits = !id.is_empty() && id.bytes().all(is_name_byte);
        if fits && self.taken.insert(id.to_owned()) {
            return Cow::Borrowed(id);
        }
        Cow::Owned(free(&mut self.taken, &clean(id), usize::MAX))
    }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

fn is_valid(name: &str) -> bool {
    (1..=NAME_LIMIT).contains(&name.len()) && name.bytes().all(is_name_byte)
}

fn clean(text: &str) -> String {
    if text.is_empty() {
        return "_".into();
    }
    text.chars()
        .map(|c| match u8::try_from(c) {
            Ok(byte) if is_name_byte(byte) => c,
            _ => '_',
        })
        .collect()
}

/// `wanted`, or `wanted_2` and so on, within `limit` bytes; taken from now on.
fn free(taken: &mut HashSet<String>, wanted: &str, limit: usize) -> String {
    let mut count = 1_u32;
    loop {
        let suffix = if count == 1 {
            String::new()
        } else {
            format!("_{count}")
        };
        // `wanted` is ASCII here, so every byte is a boundary.
        let kept = wanted.len().min(limit - suffix.len());
        let name = format!("{}{suffix}", &wanted[..kept]);
        if taken.insert(name.clone()) {
            return name;
        }
        count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_names_have_priority_and_others_are_told_apart() {
        let mut names = Names::default();
        names.reserve("web_search");
        let long = "x".repeat(200);
        let tools = ["a.b", "a_b", "a b", "web_search", "", "gr\u{fc}n", &long];
        names.add_tools(&tools);
        let sent: Vec<&str> = tools.iter().map(|name| names.sent(name)).collect();
        assert_eq!(
            sent,
            [
                "a_b_2",
                "a_b",
                "a_b_3",
                "web_search_2",
                "_",
                "gr_n",
                &long[..128]
            ]
        );
        names.add("a_b_2");
        assert_eq!(names.sent("a_b_2"), "a_b_2_2");
        assert_eq!(names.sent("unheard of"), "unheard of");
        assert_eq!(names.changed().len(), 7);
    }

    #[test]
    fn ids_stay_unique_and_do_not_depend_on_what_follows() {
        let mut ids = Ids::default();
        let sent: Vec<String> = ["call_1", "a:b", "a_b", "call_1", "", "\u{e9}"]
            .into_iter()
            .map(|id| ids.take(id).into_owned())
            .collect();
        assert_eq!(sent, ["call_1", "a_b", "a_b_2", "call_1_2", "_", "__2"]);
    }
}
