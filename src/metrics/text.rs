//! The text format, version 0.0.4: each family's help, type and samples together.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::histogram::{BOUNDS, Histogram};
use super::process::Process;
use super::{Metrics, Served, TOKEN_KINDS, Timings};
use crate::failure::CoolDown;
use crate::pool::{Pool, Tally};
use crate::record::End;

pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What is not counted but looked at when somebody asks.
pub struct Gauges {
    pub chats: usize,
    pub max_chats: usize,
    pub connections: usize,
    /// Requests whose body was over the limit and whose memory was given up.
    pub leaked: u64,
    /// Lines of the log that nobody read, or that could not be written.
    pub log_lost: u64,
    pub draining: bool,
    /// The last reload of the configuration worked, or there was none.
    pub reloaded: bool,
    pub pools: Vec<PoolGauges>,
}

/// One upstream's keys.
pub struct PoolGauges {
    pub upstream: String,
    pub slots: usize,
    pub in_use: usize,
    pub waiting: usize,
    pub keys: usize,
    pub cooling: usize,
    pub tally: Arc<Tally>,
}

impl PoolGauges {
    pub fn new(upstream: &str, pool: &Pool, now: Instant) -> PoolGauges {
        let keys = pool.view(now);
        let slots = keys.iter().map(|key| key.slots).sum();
        let free: usize = keys.iter().map(|key| key.free).sum();
        PoolGauges {
            upstream: upstream.to_owned(),
            slots,
            in_use: slots - free.min(slots),
            waiting: pool.waiting(),
            keys: keys.len(),
            cooling: keys.iter().filter(|key| !key.rests.is_empty()).count(),
            tally: Arc::clone(&pool.tally),
        }
    }
}

type Pick = fn(&Timings) -> &Histogram;

const HISTOGRAMS: [(&str, &str, Pick); 3] = [
    (
        "weir_request_duration_seconds",
        "Time from a request's begin to its end.",
        |timings| &timings.request,
    ),
    (
        "weir_first_chunk_seconds",
        "Time from a request's begin to the first byte of its answer.",
        |timings| &timings.first_chunk,
    ),
    (
        "weir_upstream_wait_seconds",
        "Time that a request waited for upstreams to begin their answers, over all its attempts.",
        |timings| &timings.upstream_wait,
    ),
];

impl Metrics {
    /// All families.
    pub fn text(&self, gauges: &Gauges) -> String {
        let mut out = Text(String::with_capacity(16 * 1024));
        self.requests(&mut out);
        self.timings(&mut out);
        self.events(&mut out);
        upstreams(&mut out, &gauges.pools);
        let gauge = |out: &mut Text, name, help, value: f64| {
            out.family(name, "gauge", help);
            out.sample(name, &[], value);
        };
        gauge(
            &mut out,
            "weir_exchanges_running",
            "Requests to upstreams in the works, streams included.",
            gauges.chats as f64,
        );
        gauge(
            &mut out,
            "weir_exchanges_max",
            "Requests to upstreams that may be in the works at once.",
            gauges.max_chats as f64,
        );
        gauge(
            &mut out,
            "weir_connections",
            "Open connections of callers, as of the timer's last look.",
            gauges.connections as f64,
        );
        gauge(
            &mut out,
            "weir_draining",
            "1 while the gateway is shutting down.",
            f64::from(u8::from(gauges.draining)),
        );
        gauge(
            &mut out,
            "weir_config_last_reload_successful",
            "0 while the configuration that runs is older than the last attempt to reload it.",
            f64::from(u8::from(gauges.reloaded)),
        );
        out.family(
            "weir_requests_leaked_total",
            "counter",
            "Requests with a body over the limit, whose memory was given up.",
        );
        out.sample("weir_requests_leaked_total", &[], gauges.leaked as f64);
        out.family(
            "weir_log_lines_lost_total",
            "counter",
            "Lines of the log that nobody read in time, or that could not be written.",
        );
        out.sample("weir_log_lines_lost_total", &[], gauges.log_lost as f64);
        process(&mut out);
        out.0
    }

    fn requests(&self, out: &mut Text) {
        let all = self.series.sorted();
        out.family(
            "weir_requests_total",
            "counter",
            "Requests that have ended, by the class of their status.",
        );
        for (asked, series) in &all {
            for (at, counter) in series.requests.iter().enumerate() {
                let count = counter.load(Ordering::Relaxed);
                if count > 0 {
                    let status = format!("{}xx", at + 1);
                    let labels = [
                        ("endpoint", asked.endpoint),
                        ("model", &asked.model),
                        ("upstream", &asked.upstream),
                        ("status", &status),
                    ];
                    out.sample("weir_requests_total", &labels, count as f64);
                }
            }
        }
        out.family(
            "weir_tokens_total",
            "counter",
            "Tokens as upstreams counted them; cached ones are among the prompt's, reasoning ones among the completion's.",
        );
        for (asked, series) in &all {
            for (kind, counter) in TOKEN_KINDS.iter().zip(&series.tokens) {
                let count = counter.load(Ordering::Relaxed);
                if count > 0 {
                    let labels = [
                        ("kind", *kind),
                        ("endpoint", asked.endpoint),
                        ("model", &asked.model),
                        ("upstream", &asked.upstream),
                    ];
                    out.sample("weir_tokens_total", &labels, count as f64);
                }
            }
        }
    }

    fn timings(&self, out: &mut Text) {
        let all = self.timings.sorted();
        for (name, help, pick) in HISTOGRAMS {
            out.family(name, "histogram", help);
            for (served, timings) in &all {
                out.histogram(name, served, pick(timings));
            }
        }
    }

    fn events(&self, out: &mut Text) {
        for (name, help, counter) in [
            (
                "weir_key_switches_total",
                "Attempts that were made again with another key.",
                &self.switches,
            ),
            (
                "weir_heartbeats_total",
                "Comments sent into silent streams.",
                &self.heartbeats,
            ),
            (
                "weir_hang_ups_total",
                "Requests whose caller left before the end.",
                &self.hang_ups,
            ),
        ] {
            out.family(name, "counter", help);
            out.sample(name, &[], load(counter));
        }
        out.family(
            "weir_stream_ends_total",
            "counter",
            "Streams by how they ended; `refused` ones never began.",
        );
        for end in End::ALL {
            let count = load(&self.stream_ends[end as usize]);
            out.sample("weir_stream_ends_total", &[("kind", end.name())], count);
        }
    }
}

fn load(counter: &AtomicU64) -> f64 {
    counter.load(Ordering::Relaxed) as f64
}

fn upstreams(out: &mut Text, pools: &[PoolGauges]) {
    type Value = fn(&PoolGauges) -> f64;
    let gauges: [(&str, &str, Value); 5] = [
        ("weir_slots", "Slots of all keys of an upstream.", |pool| {
            pool.slots as f64
        }),
        (
            "weir_leases_in_use",
            "Slots that a request has now.",
            |pool| pool.in_use as f64,
        ),
        (
            "weir_leases_waiting",
            "Requests that wait for a slot.",
            |pool| pool.waiting as f64,
        ),
        ("weir_keys", "Keys of an upstream.", |pool| pool.keys as f64),
        (
            "weir_keys_cooling",
            "Keys that rest now, for one model or for all.",
            |pool| pool.cooling as f64,
        ),
    ];
    for (name, help, value) in gauges {
        out.family(name, "gauge", help);
        for pool in pools {
            out.sample(name, &[("upstream", &pool.upstream)], value(pool));
        }
    }
    out.family(
        "weir_attempts_total",
        "counter",
        "Attempts begun: slots that were leased.",
    );
    for pool in pools {
        let labels = [("upstream", pool.upstream.as_str())];
        out.sample("weir_attempts_total", &labels, load(&pool.tally.leases));
    }
    for (name, help, only_rests) in [
        (
            "weir_attempt_failures_total",
            "Attempts that gave no answer, by what went wrong.",
            false,
        ),
        (
            "weir_cool_downs_total",
            "Times that a key was put to rest or behind others, by why.",
            true,
        ),
    ] {
        out.family(name, "counter", help);
        for pool in pools {
            for (class, count) in pool.tally.failures() {
                if only_rests && class.cool_down() == CoolDown::None {
                    continue;
                }
                let class = class.name().replace(' ', "_");
                let labels = [("upstream", pool.upstream.as_str()), ("class", &class)];
                out.sample(name, &labels, count as f64);
            }
        }
    }
}

fn process(out: &mut Text) {
    let process = Process::read();
    let whole = |number: Option<u64>| number.map(|number| number as f64);
    for (name, kind, help, value) in [
        (
            "process_start_time_seconds",
            "gauge",
            "Start of the process, in seconds since 1970.",
            Some(process.start_seconds),
        ),
        (
            "process_cpu_seconds_total",
            "counter",
            "User and system time spent.",
            process.cpu_seconds,
        ),
        (
            "process_resident_memory_bytes",
            "gauge",
            "Resident memory.",
            whole(process.resident_bytes),
        ),
        (
            "process_virtual_memory_bytes",
            "gauge",
            "Virtual memory.",
            whole(process.virtual_bytes),
        ),
        (
            "process_open_fds",
            "gauge",
            "Open file descriptors.",
            whole(process.open_fds),
        ),
        (
            "process_max_fds",
            "gauge",
            "The limit of open file descriptors.",
            whole(process.max_fds),
        ),
        (
            "process_threads",
            "gauge",
            "Threads.",
            whole(process.threads),
        ),
    ] {
        if let Some(value) = value {
            out.family(name, kind, help);
            out.sample(name, &[], value);
        }
    }
    out.family("weir_build_info", "gauge", "The version that runs.");
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    out.sample("weir_build_info", &version, 1.0);
}

/// The text so far.
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.0.push_str(name);
        for (at, (label, text)) in labels.iter().enumerate() {
            let sign = if at == 0 { '{' } else { ',' };
            let _ = write!(self.0, "{sign}{label}=\"");
            for c in text.chars() {
                match c {
                    '\\' => self.0.push_str("\\\\"),
                    '"' => self.0.push_str("\\\""),
                    '\n' => self.0.push_str("\\n"),
                    c => self.0.push(c),
                }
            }
            self.0.push('"');
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        // Whole numbers come out without a point, and no number with an exponent.
        let _ = writeln!(self.0, " {value}");
    }

    fn histogram(&mut self, name: &str, served: &Served, histogram: &Histogram) {
        let counts = histogram.cumulative();
        let total = counts[BOUNDS.len()];
        if total == 0 {
            return;
        }
        let base = [
            ("endpoint", served.endpoint),
            ("upstream", served.upstream.as_str()),
        ];
        let bucket = format!("{name}_bucket");
        for (at, count) in counts.iter().enumerate() {
            let bound = BOUNDS.get(at).map_or("+Inf".to_owned(), f64::to_string);
            let labels = [base[0], base[1], ("le", &bound)];
            self.sample(&bucket, &labels, *count as f64);
        }
        self.sample(&format!("{name}_sum"), &base, histogram.sum());
        self.sample(&format!("{name}_count"), &base, total as f64);
    }
}
