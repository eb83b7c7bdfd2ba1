//! `Ledger`: what the requests of today and of the last hour came to. In memory, within bounds.

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;
use serde::Serialize;

use crate::clock;
use crate::metrics::Names;
use crate::record::{Asked, Record};

/// Requests that are remembered one by one.
const RECENT: usize = 100;

/// Minutes that are remembered.
pub const MINUTES: u64 = 60;

/// Keys and models that are counted apart; what the config names is far below.
const COUNTED: usize = 2_000;

/// How much of a foreign text is kept.
const SHOWN: usize = 200;

#[derive(Default)]
pub struct Ledger(Mutex<Book>);

#[derive(Default)]
struct Book {
    /// Days since 1970.
    day: u64,
    /// By upstream and key.
    keys: HashMap<(String, String), Sum>,
    models: HashMap<String, Sum>,
    clients: HashMap<String, Sum>,
    recent: VecDeque<Recent>,
    /// By the minute modulo `MINUTES`.
    minutes: Vec<Minute>,
}

/// What requests came to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Sum {
    pub requests: u64,
    pub failed: u64,
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
    /// Counted by weir for limits of client keys, where the upstream did not.
    pub estimated_tokens: u64,
}

/// One request that has ended.
#[derive(Debug, Clone, Serialize)]
pub struct Recent {
    /// Seconds since 1970 at its end.
    pub time: u64,
    pub id: String,
    pub client: String,
    pub model: String,
    pub upstream: String,
    pub key: String,
    pub status: u16,
    pub attempts: u32,
    pub streamed: bool,
    pub ms: u64,
    pub first_byte_ms: Option<u64>,
    pub upstream_ms: u64,
    pub prompt_tokens: Option<u64>,
    pub completion_tokens: Option<u64>,
    pub error: Option<String>,
}

/// What one minute came to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Minute {
    /// Minutes since 1970.
    #[serde(skip)]
    number: u64,
    pub requests: u64,
    pub failed: u64,
    /// Of all its requests together.
    pub ms: u64,
    pub tokens: u64,
}

impl Minute {
    pub fn mean_ms(&self) -> u64 {
        self.ms.checked_div(self.requests).unwrap_or(0)
    }
}

/// All of it at one moment.
pub struct Reading {
    pub keys: HashMap<(String, String), Sum>,
    /// Sorted by name.
    pub models: Vec<(String, Sum)>,
    pub clients: Vec<(String, Sum)>,
    /// Newest first.
    pub recent: Vec<Recent>,
    /// Oldest first; the last one is not over yet.
    pub minutes: Vec<Minute>,
}

impl Ledger {
    /// Books a request that has ended.
    pub fn note(&self, record: &Record, names: &Names) {
        self.book(record, names.label(&record.model), clock::unix_seconds());
    }

    fn book(&self, record: &Record, model: &str, now: u64) {
        let tokens = |count: Option<u64>| count.unwrap_or(0);
        let one = Sum {
            requests: 1,
            failed: u64::from(is_failure(record.status)),
            prompt_tokens: tokens(record.usage.prompt),
            completion_tokens: tokens(record.usage.completion),
            estimated_tokens: record.estimated,
        };
        let recent = recent(record, now);
        let mut book = self.0.lock();
        book.turn(now);
        let place = |asked: &Asked| (asked.upstream.clone(), asked.key.clone());
        if let Some((last, before)) = record.asked.split_last() {
            add(&mut book.keys, place(last), &one);
            // Keys that were asked in vain have failed, whoever answered in the end.
            for asked in before {
                let other = Sum {
                    requests: 1,
                    failed: u64::from(!asked.answered),
                    ..Sum::default()
                };
                add(&mut book.keys, place(asked), &other);
            }
        }
        add(&mut book.models, model.to_owned(), &one);
        if !record.client.is_empty() {
            add(&mut book.clients, record.client.clone(), &one);
        }
        if book.recent.len() >= RECENT {
            book.recent.pop_back();
        }
        book.recent.push_front(recent);

        let number = now / 60;
        book.minutes.resize(MINUTES as usize, Minute::default());
        let minute = &mut book.minutes[(number % MINUTES) as usize];
        if minute.number != number {
            *minute = Minute {
                number,
                ..Minute::default()
            };
        }
        minute.requests += 1;
        minute.failed += one.failed;
        minute.ms += record.begun.millis() as u64;
        let tokens = one.prompt_tokens.saturating_add(one.completion_tokens);
        minute.tokens = minute.tokens.saturating_add(tokens);
    }

    pub fn read(&self, now: u64) -> Reading {
        let mut book = self.0.lock();
        book.turn(now);
        let newest = now / 60;
        let minutes = (0..MINUTES)
            .map(|age| newest.saturating_sub(MINUTES - 1 - age))
            .map(|number| {
                let kept = book.minutes.get((number % MINUTES) as usize);
                kept.filter(|minute| minute.number == number)
                    .copied()
                    .unwrap_or_default()
            })
            .collect();
        Reading {
            keys: book.keys.clone(),
            models: sorted(&book.models),
            clients: sorted(&book.clients),
            recent: book.recent.iter().cloned().collect(),
            minutes,
        }
    }
}

impl Book {
    /// A new day, by UTC, begins with nothing.
    fn turn(&mut self, now: u64) {
        let day = now / 86_400;
        if self.day != day {
            self.day = day;
            self.keys.clear();
            self.models.clear();
            self.clients.clear();
        }
    }
}

/// Whose fault a failure is does not matter here, but a caller who left is none.
pub fn is_failure(status: u16) -> bool {
    status >= 400 && status != 499
}

fn add<K: std::hash::Hash + Eq>(sums: &mut HashMap<K, Sum>, name: K, one: &Sum) {
    if sums.len() >= COUNTED && !sums.contains_key(&name) {
        return;
    }
    let sum = sums.entry(name).or_default();
    let add = |sum: &mut u64, more: u64| *sum = sum.saturating_add(more);
    add(&mut sum.requests, one.requests);
    add(&mut sum.failed, one.failed);
    add(&mut sum.prompt_tokens, one.prompt_tokens);
    add(&mut sum.completion_tokens, one.completion_tokens);
    add(&mut sum.estimated_tokens, one.estimated_tokens);
}

fn sorted(sums: &HashMap<String, Sum>) -> Vec<(String, Sum)> {
    let mut list: Vec<_> = sums
        .iter()
        .map(|(name, sum)| (name.clone(), *sum))
        .collect();
    list.sort_by(|a, b| a.0.cmp(&b.0));
    list
}

fn recent(record: &Record, now: u64) -> Recent {
    let cut = |text: &str| text.chars().take(SHOWN).collect::<String>();
    Recent {
        time: now,
        id: record.id.clone(),
        client: record.client.clone(),
        model: cut(&record.model),
        upstream: record.upstream.clone(),
        key: record.key.clone(),
        status: record.status,
        attempts: record.attempts,
        streamed: record.streamed,
        ms: record.begun.millis() as u64,
        first_byte_ms: record.first_byte.map(|ms| ms as u64),
        upstream_ms: record.upstream_ms as u64,
        prompt_tokens: record.usage.prompt,
        completion_tokens: record.usage.completion,
        error: record.error.as_deref().map(cut),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A moment that is the first second of a day.
    const DAY: u64 = 20_000 * 86_400;

    fn record(status: u16) -> Record {
        let mut record = Record::new("r".into(), "chat");
        record.status = status;
        record.upstream = "up".into();
        record.attempt("up", "up#1");
        record.usage.prompt = Some(2);
        record.usage.completion = Some(5);
        record
    }

    #[test]
    fn sums_begin_anew_with_the_day_and_minutes_do_not() {
        let ledger = Ledger::default();
        ledger.book(&record(200), "m", DAY - 61);
        ledger.book(&record(503), "m", DAY - 1);
        let key = ("up".to_owned(), "up#1".to_owned());
        let sum = Sum {
            requests: 2,
            failed: 1,
            prompt_tokens: 4,
            completion_tokens: 10,
            estimated_tokens: 0,
        };
        let reading = ledger.read(DAY - 1);
        assert_eq!(reading.keys[&key], sum);
        assert_eq!(reading.models, [("m".to_owned(), sum)]);

        ledger.book(&record(499), "m", DAY + 30);
        let reading = ledger.read(DAY + 30);
        assert_eq!(
            (reading.keys[&key].requests, reading.keys[&key].failed),
            (1, 0)
        );
        let requests: Vec<u64> = reading.minutes.iter().map(|m| m.requests).collect();
        assert_eq!(requests.len(), 60);
        assert_eq!(requests[56..], [0, 1, 1, 1]);
        assert_eq!(reading.minutes[58].tokens, 7);
        assert_eq!(reading.recent.len(), 3);
        assert_eq!(reading.recent[0].status, 499);

        // An hour later they are out of the window, though still in their places.
        let reading = ledger.read(DAY + 30 + 3_600);
        assert!(reading.minutes.iter().all(|m| m.requests == 0));
    }

    #[test]
    fn what_a_key_was_asked_in_vain_is_booked_on_that_key() {
        let ledger = Ledger::default();
        let mut record = Record::new("r".into(), "chat");
        record.status = 200;
        for key in ["up#1", "up#1", "up#2"] {
            record.attempt("up", key);
        }
        assert_eq!(record.attempts, 3);
        ledger.book(&record, "m", DAY);
        let reading = ledger.read(DAY);
        let counts = |key: &str| {
            let sum = &reading.keys[&("up".to_owned(), key.to_owned())];
            (sum.requests, sum.failed)
        };
        assert_eq!((counts("up#1"), counts("up#2")), ((2, 2), (1, 0)));
        assert_eq!(reading.models[0].1.requests, 1);
    }

    #[test]
    fn everything_is_bounded() {
        let ledger = Ledger::default();
        let mut record = record(200);
        for number in 0..COUNTED + 500 {
            record.asked.clear();
            record.attempt("up", &format!("k{number}"));
            record.model = "long".repeat(1000);
            ledger.book(&record, &format!("m{number}"), DAY + number as u64);
        }
        let reading = ledger.read(DAY);
        assert_eq!(reading.keys.len(), COUNTED);
        assert_eq!(reading.models.len(), COUNTED);
        assert_eq!(reading.recent.len(), RECENT);
        assert_eq!(reading.recent[0].model.len(), SHOWN);
    }
}
