//! `GET /metrics`: what happened since the start, in the text format of Prometheus.
//!
//! Counters are atomics in series that are looked up once, when a request ends. Label values from
//! callers are bounded twice: a model that the config does not list is `other`, and beyond
//! `SERIES` combinations everything shares one series. Gauges are handed in by whoever asks.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use crate::config::Config;
use crate::discovery::Learned;
use crate::models;
use crate::record::{End, Record};

mod histogram;
mod process;
mod text;

use histogram::Histogram;
pub use process::started;
pub use text::{CONTENT_TYPE, Gauges, PoolGauges};

/// Combinations of endpoint, model and upstream that are told apart: some hundred models behind
/// a few upstreams each, and an end to it.
const SERIES: usize = 2_000;

/// The label of whatever is not told apart.
pub const OTHER: &str = "other";

/// The label of what a request does not have: a health check asks for no model.
const NONE: &str = "none";

/// Names in `weir_tokens_total`, in the order of `Series::tokens`.
const TOKEN_KINDS: [&str; 4] = ["prompt", "completion", "cached", "reasoning"];

/// The models that may be labels: those of the config, and those of its upstreams' lists, which
/// come later and may change.
#[derive(Debug, Default)]
pub struct Names {
    models: HashSet<String>,
    upstreams: Vec<String>,
    lists: Vec<Arc<Learned>>,
}

impl Names {
    pub fn new(config: &Config) -> Names {
        let names = |upstream: &crate::config::Upstream| upstream.name.clone();
        Names {
            // The catalogue counts also where a pattern like `*` may lead to it.
            models: models::listed(config)
                .into_iter()
                .chain(models::ids().map(str::to_owned))
                .collect(),
            upstreams: config.upstreams.iter().map(names).collect(),
            lists: config
                .upstreams
                .iter()
                .filter_map(|upstream| upstream.options.learned.clone())
                .collect(),
        }
    }

    fn knows(&self, model: &str) -> bool {
        self.models.contains(model) || self.lists.iter().any(|list| list.get(model).is_some())
    }

    /// The label for a model as a caller named it. `upstream/model` counts as the model.
    pub fn label<'a>(&'a self, asked: &'a str) -> &'a str {
        if asked.is_empty() {
            return NONE;
        }
        if self.knows(asked) {
            return asked;
        }
        let bare = asked.split_once('/').and_then(|(upstream, model)| {
            let known = self.upstreams.iter().any(|name| name == upstream);
            (known && self.knows(model)).then_some(model)
        });
        bare.unwrap_or(OTHER)
    }
}

/// Everything counted since the start. Outlives the configurations.
#[derive(Default)]
pub struct Metrics {
    series: Family<Asked, Series>,
    timings: Family<Served, Timings>,
    switches: AtomicU64,
    heartbeats: AtomicU64,
    hang_ups: AtomicU64,
    stream_ends: [AtomicU64; End::ALL.len()],
}

/// What was asked for, and who answered.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Asked {
    endpoint: &'static str,
    model: String,
    upstream: String,
}

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Served {
    endpoint: &'static str,
    upstream: String,
}

#[derive(Default)]
struct Series {
    /// By the first digit of the status, from 1 on.
    requests: [AtomicU64; 5],
    tokens: [AtomicU64; TOKEN_KINDS.len()],
}

#[derive(Default)]
struct Timings {
    request: Histogram,
    first_chunk: Histogram,
    upstream_wait: Histogram,
}

impl Metrics {
    /// Counts a request that has ended.
    pub fn note(&self, record: &Record, names: &Names) {
        let upstream = match record.upstream.as_str() {
            "" => NONE,
            name => name,
        };
        let asked = Asked {
            endpoint: record.endpoint,
            model: names.label(&record.model).to_owned(),
            upstream: upstream.to_owned(),
        };
        let others = || Asked {
            endpoint: OTHER,
            model: OTHER.to_owned(),
            upstream: OTHER.to_owned(),
        };
        let series = self.series.get(asked, others);
        let class = usize::from(record.status / 100).clamp(1, 5) - 1;
        add(&series.requests[class], 1);
        let usage = &record.usage;
        let tokens = [
            usage.prompt,
            usage.completion,
            usage.cached,
            usage.reasoning,
        ];
        for (counter, count) in series.tokens.iter().zip(tokens) {
            add(counter, count.unwrap_or(0));
        }

        let served = Served {
            endpoint: record.endpoint,
            upstream: upstream.to_owned(),
        };
        let others = || Served {
            endpoint: OTHER,
            upstream: OTHER.to_owned(),
        };
        let timings = self.timings.get(served, others);
        timings.request.observe(record.begun.millis() / 1e3);
        if let Some(ms) = record.first_byte {
            timings.first_chunk.observe(ms / 1e3);
        }
        if record.attempts > 0 {
            timings.upstream_wait.observe(record.upstream_ms / 1e3);
        }

        add(&self.switches, u64::from(record.switches));
        add(&self.heartbeats, u64::from(record.heartbeats));
        if record.status == 499 {
            add(&self.hang_ups, 1);
        }
        if let Some(end) = record.stream_end() {
            add(&self.stream_ends[end as usize], 1);
        }
    }
}

fn add(counter: &AtomicU64, count: u64) {
    // A zero would still take the cache line away from another worker.
    if count > 0 {
        counter.fetch_add(count, Ordering::Relaxed);
    }
}

/// Series by their labels. Found under a shared lock; only a new one takes it for itself.
struct Family<K, V>(RwLock<HashMap<K, Arc<V>>>);

impl<K, V> Default for Family<K, V> {
    fn default() -> Self {
        Family(RwLock::default())
    }
}

impl<K: Hash + Eq + Ord + Clone, V: Default> Family<K, V> {
    /// The series of `labels`, or that of `others` where there are too many.
    fn get(&self, labels: K, others: impl Fn() -> K) -> Arc<V> {
        if let Some(known) = self.0.read().get(&labels) {
            return Arc::clone(known);
        }
        let mut all = self.0.write();
        let labels = if all.len() < SERIES || all.contains_key(&labels) {
            labels
        } else {
            others()
        };
        Arc::clone(all.entry(labels).or_default())
    }

    /// All of them, in an order that stays.
    fn sorted(&self) -> Vec<(K, Arc<V>)> {
        let all = self.0.read();
        let mut list: Vec<_> = all
            .iter()
            .map(|(labels, series)| (labels.clone(), Arc::clone(series)))
            .collect();
        drop(all);
        list.sort_by(|a, b| a.0.cmp(&b.0));
        list
    }
}

#[cfg(test)]
mod tests;
