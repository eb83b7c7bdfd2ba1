//! Tool names and tool-call ids as an upstream's pattern admits them.
//!
//! Names go out as they are where they can. The table depends on the tools and on the history in
//! its order only, so a longer history never changes the names of a shorter one. Every step is a
//! look-up: callers choose how many names there are and how alike they look.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

/// What an upstream takes as a name.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// In bytes.
    pub longest: usize,
    pub is_byte: fn(u8) -> bool,
    /// The first byte is held to more than the others are; `_` passes always.
    pub is_first: fn(u8) -> bool,
}

impl Rule {
    fn admits(&self, name: &str) -> bool {
        name.len() <= self.longest
            && name.bytes().next().is_some_and(self.is_first)
            && name.bytes().all(self.is_byte)
    }

    /// The name with every wrong character replaced, in ASCII and never empty.
    fn clean(&self, name: &str) -> String {
        let mut clean = String::with_capacity(name.len().min(self.longest) + 1);
        if !name.bytes().next().is_some_and(self.is_first) && !name.starts_with(is_wrong(self)) {
            clean.push('_');
        }
        let whole = name
            .chars()
            .map(|c| if is_wrong(self)(c) { '_' } else { c });
        clean.extend(whole.take(self.longest));
        clean.truncate(self.longest);
        clean
    }
}

fn is_wrong(rule: &Rule) -> impl Fn(char) -> bool + use<'_> {
    |c| !u8::try_from(c).is_ok_and(|byte| byte.is_ascii() && (rule.is_byte)(byte))
}

/// The caller's tool names and how they are sent.
#[derive(Debug)]
pub struct Names<'r> {
    rule: Rule,
    /// The caller's names that are known, and as what they go out if that differs.
    known: Vec<(&'r str, Option<String>)>,
    /// Where in `known` a name stands.
    places: HashMap<&'r str, usize>,
    taken: Taken<'r>,
}

impl<'r> Names<'r> {
    pub fn new(rule: Rule) -> Self {
        Names {
            rule,
            known: Vec::new(),
            places: HashMap::new(),
            taken: Taken::default(),
        }
    }

    /// Keeps `name` for a tool that is not the caller's function.
    pub fn reserve(&mut self, name: &str) {
        self.taken.whole.insert(Cow::Owned(name.to_owned()));
    }

    /// Takes in the names of the request's tools. Those that can stay have priority.
    pub fn add_tools(&mut self, names: impl Iterator<Item = &'r str> + Clone) {
        let rule = self.rule;
        for name in names.clone().filter(|name| rule.admits(name)) {
            self.add(name);
        }
        for name in names {
            self.add(name);
        }
    }

    /// Takes in one name, if it is new.
    pub fn add(&mut self, name: &'r str) {
        if self.places.contains_key(name) {
            return;
        }
        let stays = self.rule.admits(name) && self.taken.whole.insert(Cow::Borrowed(name));
        let sent = match stays {
            true => None,
            false => Some(self.taken.free(&self.rule.clean(name), self.rule.longest)),
        };
        self.places.insert(name, self.known.len());
        self.known.push((name, sent));
    }

    pub fn contains(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// As what `name` goes out.
    pub fn sent<'s>(&'s self, name: &'s str) -> &'s str {
        self.changed_to(name).unwrap_or(name)
    }

    /// As what `name` goes out, where that is the caller's own text.
    pub fn sent_cow(&self, name: &'r str) -> Cow<'r, str> {
        match self.changed_to(name) {
            Some(sent) => Cow::Owned(sent.to_owned()),
            None => Cow::Borrowed(name),
        }
    }

    fn changed_to(&self, name: &str) -> Option<&str> {
        let place = *self.places.get(name)?;
        self.known[place].1.as_deref()
    }

    /// The names that were known, in the order in which they came, as they go out.
    pub fn all_sent(&self) -> impl Iterator<Item = &str> {
        self.known
            .iter()
            .map(|(name, sent)| sent.as_deref().unwrap_or(name))
    }

    /// Sent names with the caller's, where they differ.
    pub fn changed(&self) -> HashMap<String, String> {
        self.known
            .iter()
            .filter_map(|(name, sent)| Some((sent.clone()?, (*name).to_owned())))
            .collect()
    }
}

/// Tool-call ids that are already in the history.
#[derive(Debug)]
pub struct Ids<'r> {
    rule: Rule,
    taken: Taken<'r>,
}

impl<'r> Ids<'r> {
    pub fn new(rule: Rule) -> Self {
        Ids {
            rule,
            taken: Taken::default(),
        }
    }

    /// As what the call with `id` goes out. Two calls never share an id, even where the caller
    /// starts counting anew in every turn: the provider refuses that.
    pub fn take(&mut self, id: &'r str) -> Cow<'r, str> {
        if self.rule.admits(id) && self.taken.whole.insert(Cow::Borrowed(id)) {
            return Cow::Borrowed(id);
        }
        Cow::Owned(self.taken.free(&self.rule.clean(id), self.rule.longest))
    }
}

/// Names that are in use.
#[derive(Debug, Default)]
struct Taken<'r> {
    whole: HashSet<Cow<'r, str>>,
    /// The next number to try behind a stem, for numbers of one digit, of two, and so on. What
    /// was taken once stays so: a number that was passed over need not be tried again.
    next: Vec<HashMap<String, u32>>,
}

impl Taken<'_> {
    /// `wanted`, or `wanted_2` and so on, within `longest` bytes; taken from now on. `wanted` is
    /// ASCII, so every byte is a boundary.
    fn free(&mut self, wanted: &str, longest: usize) -> String {
        let cut = |room: usize| &wanted[..wanted.len().min(room)];
        if self.take(cut(longest)) {
            return cut(longest).to_owned();
        }
        for digits in 1.. {
            if self.next.len() < digits {
                self.next.push(HashMap::new());
            }
            let stem = cut(longest.saturating_sub(digits + 1));
            let numbers = &mut self.next[digits - 1];
            let power = 10_u32.saturating_pow(digits as u32 - 1);
            let first = power.max(2);
            let from = numbers.get(stem).copied().unwrap_or(first);
            for number in from..power.saturating_mul(10) {
                let name = format!("{stem}_{number}");
                if self.whole.contains(name.as_str()) {
                    continue;
                }
                self.whole.insert(Cow::Owned(name.clone()));
                self.next[digits - 1].insert(stem.to_owned(), number + 1);
                return name;
            }
            // Every number of so many digits is taken.
            self.next[digits - 1].insert(stem.to_owned(), power.saturating_mul(10));
        }
        unreachable!("the digits have no end")
    }

    fn take(&mut self, name: &str) -> bool {
        !self.whole.contains(name) && self.whole.insert(Cow::Owned(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::{anthropic, gemini};

    #[test]
    fn valid_names_have_priority_and_others_are_told_apart() {
        let mut names = Names::new(anthropic::NAMES);
        names.reserve("web_search");
        let long = "x".repeat(200);
        let tools = ["a.b", "a_b", "a b", "web_search", "", "gr\u{fc}n", &long];
        names.add_tools(tools.iter().copied());
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
    fn the_first_letter_may_be_held_to_more() {
        let mut names = Names::new(gemini::names(64));
        names.add_tools(["a b", "a_b", "1x", "", "\u{fc}", "a.b:c-d", "\u{fc}b"].into_iter());
        names.add("a/b");
        let sent: Vec<&str> = names.all_sent().collect();
        assert_eq!(
            sent,
            ["a_b", "a.b:c-d", "a_b_2", "_1x", "_", "__2", "_b", "a_b_3"]
        );
        assert_eq!(names.changed()["a_b_3"], "a/b");
    }

    #[test]
    fn long_names_are_cut_and_told_apart() {
        let (long, longer) = ("x".repeat(65), "x".repeat(66));
        let mut names = Names::new(gemini::names(64));
        names.add(&long);
        names.add(&longer);
        assert_eq!(names.sent(&long), "x".repeat(64));
        assert_eq!(names.sent(&longer), "x".repeat(62) + "_2");
        let mut names = Names::new(gemini::names(128));
        names.add(&long);
        assert_eq!(names.sent(&long), long);
    }

    #[test]
    fn ids_stay_unique_and_do_not_depend_on_what_follows() {
        let mut ids = Ids::new(anthropic::IDS);
        let sent: Vec<String> = ["call_1", "a:b", "a_b", "call_1", "", "\u{e9}"]
            .into_iter()
            .map(|id| ids.take(id).into_owned())
            .collect();
        assert_eq!(sent, ["call_1", "a_b", "a_b_2", "call_1_2", "_", "__2"]);
    }

    /// What `free` gives is what a search from 2 upwards would.
    #[test]
    fn numbers_are_the_lowest_that_are_free() {
        let searched = |taken: &mut HashSet<String>, wanted: &str, longest: usize| {
            let mut name = wanted[..wanted.len().min(longest)].to_owned();
            let mut number = 2;
            while !taken.insert(name.clone()) {
                let end = format!("_{number}");
                name = wanted[..wanted.len().min(longest - end.len())].to_owned() + &end;
                number += 1;
            }
            name
        };
        let (mut taken, mut plain) = (Taken::default(), HashSet::new());
        let mut seed = 7_usize;
        for _ in 0..1_200 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = seed >> 33;
            // Stems that are cut, and names that look like numbered ones.
            let wanted = match at % 4 {
                0 => "aaaaaaaa".to_owned(),
                1 => format!("aaaaaaa{}", at / 4 % 3),
                2 => format!("aaaa_{}", at / 4 % 500),
                _ => "b".to_owned(),
            };
            assert_eq!(taken.free(&wanted, 8), searched(&mut plain, &wanted, 8));
        }
    }
}
