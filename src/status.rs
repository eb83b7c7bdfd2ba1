//! `GET /status`: how weir stands, for a person at a glance and for programs in full.
//!
//! Gathered once, then written as JSON, as a table for a terminal, or as a page for a browser.
//! Names keys and never shows one.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;

use crate::clock;
use crate::config::Config;
use crate::failure::Class;
use crate::lesson::Told;
use crate::pool::{KeyView, Pool};
use crate::reply::Reply;

mod door;
mod ledger;
mod page;
mod spark;
mod text;
mod words;

pub use door::{password, wants_page};
pub use ledger::Ledger;
use ledger::{Minute, Reading, Recent, Sum, is_failure};

/// What only the gateway knows.
pub struct Around {
    pub uptime: Duration,
    pub draining: bool,
    pub exchanges: usize,
    pub max_exchanges: usize,
    pub connections: usize,
    pub config_since: SystemTime,
    pub reload_error: Option<String>,
    pub lessons: Vec<Told>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    Fine,
    /// Requests are served, but not by everything that could.
    Limited,
    Down,
}

#[derive(Debug, Serialize)]
pub struct Status {
    pub health: Health,
    /// The same in a sentence.
    pub summary: String,
    pub version: &'static str,
    /// Seconds since 1970.
    pub time: u64,
    pub uptime_seconds: u64,
    pub config: Source,
    pub draining: bool,
    pub exchanges: usize,
    pub max_exchanges: usize,
    pub waiting: usize,
    pub connections: usize,
    pub upstreams: Vec<UpstreamStatus>,
    /// Since midnight, UTC.
    pub models: Vec<Named>,
    pub clients: Vec<Named>,
    /// What refusals have taught, the oldest first.
    pub lessons: Vec<Learnt>,
    /// Newest first.
    pub recent: Vec<Recent>,
    /// The last hour, oldest first.
    pub minutes: Vec<Minute>,
}

#[derive(Debug, Serialize)]
pub struct Source {
    /// `None`: made of the environment.
    pub file: Option<PathBuf>,
    /// Since it was read.
    pub age_seconds: u64,
    /// The file was changed since, and not read again.
    pub changed: bool,
    /// Why the last reload changed nothing.
    pub reload_error: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct UpstreamStatus {
    pub name: String,
    pub format: &'static str,
    pub usable: bool,
    /// Why the server does not answer: `loading` its model, or `unreachable`.
    pub down: Option<&'static str>,
    pub down_seconds: Option<u64>,
    pub waiting: usize,
    pub keys: Vec<KeyStatus>,
}

#[derive(Debug, Serialize)]
pub struct KeyStatus {
    pub name: String,
    pub slots: usize,
    pub free: usize,
    /// Since the configuration was read.
    pub requests: u64,
    pub in_use: Vec<InUse>,
    pub cooling: Vec<Cooling>,
    pub last_error: Option<String>,
    pub last_error_seconds: Option<u64>,
    /// Attempts up to the last one at which the upstream was in trouble or gave no answer.
    pub failures_in_a_row: u32,
    pub today: Sum,
}

/// So many failures in a row are more than a mishap.
const FAILING: u32 = 2;

impl KeyStatus {
    /// It is not used for anything.
    fn rests(&self) -> bool {
        self.cooling.iter().any(|rest| rest.model.is_none())
    }

    /// The last attempts got no proper answer, and they are not long ago.
    fn fails(&self) -> bool {
        let is_new = |age: u64| age <= LOOKED_AT_SECONDS;
        self.failures_in_a_row >= FAILING && self.last_error_seconds.is_some_and(is_new)
    }

    /// What the key is doing, in a word or two.
    pub fn state(&self) -> &'static str {
        let rests_somewhere = self.cooling.iter().any(|rest| !rest.harmless);
        if self.rests() {
            "resting"
        } else if self.fails() {
            "failing"
        } else if rests_somewhere {
            "resting for a model"
        } else if self.free == 0 {
            "all slots taken"
        } else if self.free < self.slots {
            "in use"
        } else if self.failures_in_a_row >= FAILING {
            "failed last"
        } else {
            "ready"
        }
    }
}

impl UpstreamStatus {
    /// What one of its keys is doing, unless the server does not answer at all. A key that rests
    /// does so all the same.
    pub fn state(&self, key: &KeyStatus) -> &'static str {
        let state = key.state();
        let down = self.down.filter(|_| !state.starts_with("resting"));
        down.unwrap_or(state)
    }
}

#[derive(Debug, Serialize)]
pub struct InUse {
    pub model: String,
    pub seconds: f64,
}

/// A key that rests.
#[derive(Debug, Serialize)]
pub struct Cooling {
    /// `None`: for all models.
    pub model: Option<String>,
    /// Until it is over.
    pub seconds: f64,
    /// Seconds since 1970.
    pub until: u64,
    pub class: &'static str,
    pub why: String,
    /// The key does not serve this one model, which says nothing about the key.
    #[serde(skip)]
    pub harmless: bool,
}

/// What a model's refusals have taught, for as long as it is remembered.
#[derive(Debug, Serialize)]
pub struct Learnt {
    pub upstream: String,
    pub model: String,
    pub lesson: String,
    pub seconds: u64,
}

#[derive(Debug, Serialize)]
pub struct Named {
    pub name: String,
    #[serde(flatten)]
    pub today: Sum,
}

/// Gathers everything at this moment.
pub fn collect(config: &Config, pools: &[Arc<Pool>], ledger: &Ledger, around: &Around) -> Status {
    let now = Instant::now();
    let time = clock::unix_seconds();
    let reading = ledger.read(time);
    let upstreams: Vec<UpstreamStatus> = config
        .upstreams
        .iter()
        .zip(pools)
        .map(|(upstream, pool)| UpstreamStatus {
            name: upstream.name.clone(),
            format: upstream.format.name(),
            usable: pool.is_usable("", now),
            down: pool.server.down().map(|(why, _)| why.name()),
            down_seconds: pool
                .server
                .down()
                .map(|(_, since)| now.saturating_duration_since(since).as_secs()),
            waiting: pool.waiting(),
            keys: pool
                .view(now)
                .into_iter()
                .map(|key| key_status(&upstream.name, key, &reading, time, now))
                .collect(),
        })
        .collect();
    let (health, summary) = judge(&upstreams, &reading.recent, around.draining, time);
    let named = |list: Vec<(String, Sum)>| {
        list.into_iter()
            .map(|(name, today)| Named { name, today })
            .collect()
    };
    Status {
        health,
        summary,
        version: env!("CARGO_PKG_VERSION"),
        time,
        uptime_seconds: around.uptime.as_secs(),
        config: source(config, around),
        draining: around.draining,
        exchanges: around.exchanges,
        max_exchanges: around.max_exchanges,
        waiting: upstreams.iter().map(|upstream| upstream.waiting).sum(),
        connections: around.connections,
        upstreams,
        models: named(reading.models),
        clients: named(reading.clients),
        lessons: around.lessons.iter().map(learnt).collect(),
        recent: reading.recent,
        minutes: reading.minutes,
    }
}

fn learnt(told: &Told) -> Learnt {
    Learnt {
        upstream: told.upstream.clone(),
        model: told.model.clone(),
        lesson: told.lesson.clone(),
        seconds: told.left.as_secs(),
    }
}

fn key_status(
    upstream: &str,
    key: KeyView,
    reading: &Reading,
    time: u64,
    now: Instant,
) -> KeyStatus {
    let place = (upstream.to_owned(), key.name);
    let today = reading.keys.get(&place).copied().unwrap_or_default();
    let mut cooling: Vec<Cooling> = key
        .rests
        .into_iter()
        .map(|rest| Cooling {
            seconds: rest.left.as_secs_f64(),
            until: time + rest.left.as_secs(),
            class: rest.class.name(),
            harmless: rest.class == Class::ModelMissing,
            model: rest.model,
            why: rest.why,
        })
        .collect();
    // The whole key first, then what lasts longest.
    cooling.sort_by(|a, b| {
        let whole = (a.model.is_some(), b.model.is_some());
        whole.0.cmp(&whole.1).then(b.seconds.total_cmp(&a.seconds))
    });
    KeyStatus {
        name: place.1,
        slots: key.slots,
        free: key.free,
        requests: key.requests,
        in_use: key
            .busy
            .into_iter()
            .map(|(model, time)| InUse {
                model,
                seconds: time.as_secs_f64(),
            })
            .collect(),
        cooling,
        last_error: key.last_error,
        last_error_seconds: key
            .last_error_at
            .map(|at| now.saturating_duration_since(at).as_secs()),
        failures_in_a_row: key.misses,
        today,
    }
}

fn source(config: &Config, around: &Around) -> Source {
    let since = around.config_since;
    let modified = config
        .file
        .as_ref()
        .and_then(|file| file.metadata().ok()?.modified().ok());
    Source {
        file: config.file.clone(),
        age_seconds: since.elapsed().unwrap_or_default().as_secs(),
        changed: modified.is_some_and(|modified| modified > since),
        reload_error: around.reload_error.clone(),
    }
}

/// How many of the last requests are looked at, and how old they may be.
const LOOKED_AT: usize = 20;
const LOOKED_AT_SECONDS: u64 = 300;

/// Is it fine, and if not, in which way.
fn judge(
    upstreams: &[UpstreamStatus],
    recent: &[Recent],
    draining: bool,
    time: u64,
) -> (Health, String) {
    let keys: Vec<&KeyStatus> = upstreams.iter().flat_map(|up| &up.keys).collect();
    let is_resting = |key: &&&KeyStatus| key.cooling.iter().any(|rest| !rest.harmless);
    let resting = keys.iter().filter(is_resting).count();
    let out = keys.iter().filter(|key| key.rests()).count();
    let failing = keys
        .iter()
        .filter(|key| !key.rests() && key.fails())
        .count();
    let of = |some: usize, what: &str| match (some, keys.len()) {
        (1, 1) => format!("its only key {what}s"),
        (1, all) => format!("1 of {all} keys {what}s"),
        (some, all) => format!("{some} of {all} keys {what}"),
    };
    let of_keys = of(resting, "rest");
    if draining {
        return (
            Health::Limited,
            "Shutting down: running requests finish, new ones are refused.".into(),
        );
    }
    if !upstreams.iter().any(|upstream| upstream.usable) {
        return (
            Health::Down,
            format!("Serving nothing: {of_keys}, and no upstream is usable."),
        );
    }
    if failing > 0 && failing + out == keys.len() {
        let also = match out {
            0 => String::new(),
            some => format!(" and {}", of(some, "rest")),
        };
        return (
            Health::Down,
            format!("Nothing answers: {}{also}.", of(failing, "fail")),
        );
    }
    let down: Vec<String> = upstreams
        .iter()
        .filter(|upstream| upstream.usable)
        .filter_map(|upstream| Some(format!("{} is {}", upstream.name, upstream.down?)))
        .collect();
    let usable = upstreams.iter().filter(|upstream| upstream.usable).count();
    if !down.is_empty() && down.len() == usable {
        return (
            Health::Down,
            format!("Nothing answers: {}.", down.join(", ")),
        );
    }
    if !down.is_empty() {
        return (
            Health::Limited,
            format!("Serving, but {}.", down.join(", ")),
        );
    }
    let dead: Vec<&str> = upstreams
        .iter()
        .filter(|upstream| !upstream.usable)
        .map(|upstream| upstream.name.as_str())
        .collect();
    if !dead.is_empty() {
        let names = dead.join(", ");
        return (
            Health::Limited,
            format!("Serving, but not from {names}: {of_keys}."),
        );
    }
    let last: Vec<&Recent> = recent
        .iter()
        .take(LOOKED_AT)
        .filter(|request| time.saturating_sub(request.time) <= LOOKED_AT_SECONDS)
        .collect();
    // A caller's own fault says nothing about how weir stands.
    let is_trouble = |request: &&&Recent| request.status >= 500 || request.status == 429;
    let failed = last.iter().filter(is_trouble).count();
    let mut troubles = Vec::new();
    match (resting, out) {
        (0, _) => {}
        (_, 0) => troubles.push(format!("{of_keys} for some model")),
        _ => troubles.push(of_keys),
    }
    if failing > 0 {
        troubles.push(of(failing, "fail"));
    }
    if failed >= 2 && failed * 4 >= last.len() {
        troubles.push(format!(
            "{failed} of the last {} requests failed",
            last.len()
        ));
    }
    match (troubles.is_empty(), keys.len()) {
        (true, 1) => (Health::Fine, "Fine: the key is ready.".into()),
        (true, all) => (Health::Fine, format!("Fine: all {all} keys are ready.")),
        (false, _) => (
            Health::Limited,
            format!("Serving, but {}.", troubles.join(" and ")),
        ),
    }
}

impl Status {
    /// In the form that the caller asked for.
    pub fn reply(&self, accept: Option<&str>) -> Reply {
        let accept = accept.unwrap_or_default();
        let reply = if wants_page(accept) {
            Reply {
                content_type: "text/html; charset=utf-8",
                ..Reply::text(200, page::page(self))
            }
            // The page brings everything with it; whatever a foreign text might smuggle in stays
            // without effect.
            .with(
                "Content-Security-Policy",
                "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            )
        } else if accept.contains("application/json") {
            let json = serde_json::to_vec(self).expect("texts and numbers always serialise");
            Reply::json(200, json)
        } else {
            Reply::text(200, text::text(self))
        };
        reply
            .with("Cache-Control", "no-store")
            .with("Vary", "Accept")
    }

    /// Every rest that keeps a key from its work, with its upstream and key.
    fn rests(&self) -> impl Iterator<Item = (&UpstreamStatus, &KeyStatus, &Cooling)> {
        self.upstreams.iter().flat_map(|upstream| {
            upstream.keys.iter().flat_map(move |key| {
                let rests = key.cooling.iter().filter(|rest| !rest.harmless);
                rests.map(move |rest| (upstream, key, rest))
            })
        })
    }

    /// Every key that fails, with its upstream.
    fn failing(&self) -> impl Iterator<Item = (&UpstreamStatus, &KeyStatus)> {
        self.upstreams.iter().flat_map(|upstream| {
            let keys = upstream.keys.iter().filter(|key| key.fails());
            keys.map(move |key| (upstream, key))
        })
    }
}

#[cfg(test)]
mod tests;
