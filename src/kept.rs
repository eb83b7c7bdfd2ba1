//! `Answers`: answers that their callers asked to be kept, and what they went on from.
//!
//! For the Responses format, whose callers may send nothing but an earlier answer's id and what is
//! new. All of them together take a bounded number of bytes and none is kept longer than a certain
//! time, whatever is asked for. Each client key sees its own.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::value::RawValue;

use crate::config::Config;
use crate::dialect::responses::{Kept, holder_of};
use crate::json::{Entries, Fields};

/// The client key of a caller, where there are keys.
pub type Owner = Option<[u8; 32]>;

/// What may be kept.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// `response_memory_bytes`; 0: nothing is kept.
    pub bytes: usize,
    /// `response_memory_ms`.
    pub age: Duration,
}

impl Room {
    pub fn of(config: &Config) -> Room {
        Room {
            bytes: config.response_memory,
            age: config.response_memory_age,
        }
    }
}

/// What one entry costs besides its texts.
const OVERHEAD: usize = 256;

/// How often what is too old is looked for.
const SWEEP: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub struct Answers(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    entries: HashMap<(Owner, String), Entry>,
    /// Which entry was used when, the least recent one first.
    used: BTreeMap<u64, (Owner, String)>,
    clock: u64,
    bytes: usize,
    swept: Option<Instant>,
}

#[derive(Debug)]
struct Entry {
    answer: Answer,
    since: Instant,
    used: u64,
}

/// One answer.
#[derive(Debug)]
pub struct Answer {
    /// What it went on from.
    pub previous: Option<String>,
    /// The items of its request, a JSON array.
    pub input: Vec<u8>,
    /// The response object.
    pub body: Vec<u8>,
}

impl Answer {
    fn size(&self, id: &str) -> usize {
        let previous = self.previous.as_ref().map_or(0, String::len);
        OVERHEAD + 2 * id.len() + previous + self.input.len() + self.body.len()
    }
}

impl Inner {
    fn remove(&mut self, key: &(Owner, String)) -> bool {
        let Some(entry) = self.entries.remove(key) else {
            return false;
        };
        self.used.remove(&entry.used);
        self.bytes -= entry.answer.size(&key.1).min(self.bytes);
        true
    }

    /// The entry, if it is not too old, which counts as used now.
    fn touch(&mut self, key: &(Owner, String), room: Room, now: Instant) -> Option<&Answer> {
        let since = self.entries.get(key)?.since;
        if now.saturating_duration_since(since) >= room.age {
            self.remove(key);
            return None;
        }
        self.clock += 1;
        let entry = self.entries.get_mut(key)?;
        if let Some(key) = self.used.remove(&entry.used) {
            self.used.insert(self.clock, key);
        }
        entry.used = self.clock;
        Some(&entry.answer)
    }

    fn sweep(&mut self, room: Room, now: Instant) {
        let is_due = |swept: Instant| now.saturating_duration_since(swept) >= SWEEP;
        if !self.swept.is_none_or(is_due) {
            return;
        }
        self.swept = Some(now);
        let is_old = |entry: &Entry| now.saturating_duration_since(entry.since) >= room.age;
        let old: Vec<_> = self
            .entries
            .iter()
            .filter(|(_, entry)| is_old(entry))
            .map(|(key, _)| key.clone())
            .collect();
        for key in old {
            self.remove(&key);
        }
    }
}

impl Answers {
    /// Keeps an answer; those that were not used for the longest time make room for it.
    pub fn keep(&self, owner: Owner, id: &str, answer: Answer, room: Room, now: Instant) {
        let size = answer.size(id);
        if size > room.bytes {
            return;
        }
        let key = (owner, id.to_owned());
        let mut inner = self.0.lock();
        inner.sweep(room, now);
        inner.remove(&key);
        while inner.bytes + size > room.bytes {
            let Some(oldest) = inner.used.first_key_value().map(|(_, key)| key.clone()) else {
                break;
            };
            inner.remove(&oldest);
        }
        inner.clock += 1;
        inner.bytes += size;
        let used = inner.clock;
        inner.used.insert(used, key.clone());
        inner.entries.insert(
            key,
            Entry {
                answer,
                since: now,
                used,
            },
        );
    }

    /// The response object.
    pub fn get(&self, owner: Owner, id: &str, room: Room, now: Instant) -> Option<Vec<u8>> {
        let mut inner = self.0.lock();
        let answer = inner.touch(&(owner, id.to_owned()), room, now)?;
        Some(answer.body.clone())
    }

    /// Lets go of what is too old, also while nobody asks.
    pub fn tidy(&self, room: Room, now: Instant) {
        if let Some(mut inner) = self.0.try_lock() {
            inner.sweep(room, now);
        }
    }

    /// Whether it was there.
    pub fn delete(&self, owner: Owner, id: &str, room: Room, now: Instant) -> bool {
        let key = (owner, id.to_owned());
        let mut inner = self.0.lock();
        inner.touch(&key, room, now).is_some() && inner.remove(&key)
    }

    /// What one caller may go on from.
    pub fn of(&self, owner: Owner, room: Room, now: Instant) -> Scope<'_> {
        Scope {
            answers: self,
            owner,
            room,
            now,
        }
    }

    #[cfg(test)]
    fn bytes(&self) -> usize {
        self.0.lock().bytes
    }
}

/// The answers of one caller.
pub struct Scope<'a> {
    answers: &'a Answers,
    owner: Owner,
    room: Room,
    now: Instant,
}

impl Kept for Scope<'_> {
    fn conversation(&self, id: &str) -> Option<Vec<String>> {
        let mut turns = Vec::new();
        let mut at = Some(id.to_owned());
        let mut inner = self.answers.0.lock();
        while let Some(id) = at {
            let answer = inner.touch(&(self.owner, id), self.room, self.now)?;
            turns.push((answer.input.clone(), answer.body.clone()));
            at = answer.previous.clone();
        }
        drop(inner);
        let mut items = Vec::new();
        for (input, body) in turns.iter().rev() {
            let input: Entries<'_> = serde_json::from_slice(input).ok()?;
            items.extend(input.0.iter().map(|raw| raw.get().to_owned()));
            items.extend(output(body)?.iter().map(|raw| raw.get().to_owned()));
        }
        Some(items)
    }

    fn item(&self, id: &str) -> Option<String> {
        let body = self
            .answers
            .get(self.owner, &holder_of(id)?, self.room, self.now)?;
        let is_it = |raw: &&RawValue| {
            let fields = serde_json::from_str::<Fields<'_>>(raw.get()).ok();
            let own = fields.and_then(|fields| fields.parse::<String>("id")?.ok());
            own.as_deref() == Some(id)
        };
        let found = output(&body)?.into_iter().find(is_it)?;
        Some(found.get().to_owned())
    }
}

/// The items of a response object.
fn output(body: &[u8]) -> Option<Vec<&RawValue>> {
    let fields: Fields<'_> = serde_json::from_slice(body).ok()?;
    let output = fields.get("output")?;
    Some(serde_json::from_str::<Entries<'_>>(output.get()).ok()?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: Room = Room {
        bytes: 4000,
        age: Duration::from_secs(60),
    };

    fn answer(previous: Option<&str>, said: &str) -> Answer {
        Answer {
            previous: previous.map(str::to_owned),
            input: format!(r#"[{{"n":"{said}?"}}]"#).into_bytes(),
            body: format!(r#"{{"output":[{{"id":"msg_{said}","n":"{said}"}}]}}"#).into_bytes(),
        }
    }

    #[test]
    fn a_conversation_is_its_turns_in_order_and_of_its_owner_alone() {
        let (answers, now) = (Answers::default(), Instant::now());
        let owner = Some([1; 32]);
        answers.keep(owner, "a", answer(None, "1"), ROOM, now);
        answers.keep(owner, "b", answer(Some("a"), "2"), ROOM, now);
        let of = |owner| answers.of(owner, ROOM, now);
        let items = of(owner).conversation("b").unwrap();
        let said = [
            r#"{"n":"1?"}"#,
            r#"{"id":"msg_1","n":"1"}"#,
            r#"{"n":"2?"}"#,
            r#"{"id":"msg_2","n":"2"}"#,
        ];
        assert_eq!(items, said);
        for other in [None, Some([2; 32])] {
            assert!(of(other).conversation("b").is_none());
            assert!(answers.get(other, "b", ROOM, now).is_none());
            assert!(!answers.delete(other, "b", ROOM, now));
        }
        assert!(answers.get(owner, "b", ROOM, now).is_some());
        assert!(answers.delete(owner, "a", ROOM, now));
        assert!(!answers.delete(owner, "a", ROOM, now));
        assert!(of(owner).conversation("b").is_none(), "half of it is gone");
    }

    #[test]
    fn it_takes_so_many_bytes_and_so_much_time() {
        let (answers, now) = (Answers::default(), Instant::now());
        for number in 0..100 {
            answers.keep(None, &format!("r{number}"), answer(None, "x"), ROOM, now);
            assert!(answers.bytes() <= ROOM.bytes);
            // What is used stays.
            assert!(answers.get(None, "r0", ROOM, now).is_some(), "{number}");
        }
        assert!(answers.get(None, "r1", ROOM, now).is_none());
        assert!(answers.get(None, "r99", ROOM, now).is_some());
        let long = answer(None, &"x".repeat(5000));
        answers.keep(None, "long", long, ROOM, now);
        assert!(answers.get(None, "long", ROOM, now).is_none());
        assert!(answers.get(None, "r99", ROOM, now).is_some(), "it stays");
        let later = now + ROOM.age;
        assert!(answers.get(None, "r99", ROOM, later).is_none());
        answers.tidy(ROOM, later);
        assert_eq!(answers.bytes(), 0, "the old ones are swept");
        answers.keep(None, "new", answer(None, "y"), ROOM, later);
        assert_eq!(answers.bytes(), answer(None, "y").size("new"));
        answers.delete(None, "new", ROOM, later);
        assert_eq!(answers.bytes(), 0);
    }

    #[test]
    fn an_item_is_found_in_its_answer() {
        let (answers, now) = (Answers::default(), Instant::now());
        let tail = crate::dialect::responses::tail(7);
        let kept = Answer {
            previous: None,
            input: b"[]".to_vec(),
            body: format!(
                r#"{{"output":[{{"id":"rs_weir{tail}00"}},{{"id":"msg_weir{tail}01"}}]}}"#
            )
            .into_bytes(),
        };
        answers.keep(None, &format!("resp_weir{tail}"), kept, ROOM, now);
        let scope = answers.of(None, ROOM, now);
        let id = format!("msg_weir{tail}01");
        assert_eq!(scope.item(&id), Some(format!(r#"{{"id":"{id}"}}"#)));
        for none in [
            "",
            "msg_1",
            "msg_weir",
            "msg_weir\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}",
            "rs_weir000000000000000702",
        ] {
            assert_eq!(scope.item(none), None, "{none}");
        }
    }
}
