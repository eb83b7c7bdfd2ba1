//! Every line is parsed here, by the rules of the text format.

use super::*;
use crate::config::Upstream;
use crate::pool::{Pool, Tally};
use crate::provider::Format;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

fn names() -> Names {
    let mut config = Config::default();
    config.upstreams.push(Upstream::new("up", Format::OpenAi));
    config
        .aliases
        .push(("a\"b\\c".into(), vec!["up/gpt-5".into()]));
    Names::new(&config)
}

fn record(model: &str, status: u16) -> Record {
    let mut record = Record::new("r".into(), "chat");
    record.model = model.into();
    record.upstream = "up".into();
    record.status = status;
    record.attempts = 1;
    record.upstream_ms = 12.5;
    record.first_byte = Some(13.0);
    record.usage.prompt = Some(3);
    record
}

fn gauges() -> Gauges {
    let mut upstream = Upstream::new("up", Format::OpenAi);
    upstream.slots = 2;
    let pool = Pool::new(&upstream, 1, Duration::from_secs(1));
    Gauges {
        chats: 1,
        max_chats: 64,
        connections: 2,
        leaked: 0,
        log_lost: 0,
        draining: false,
        reloaded: true,
        pools: vec![PoolGauges::new("up", &pool, Instant::now())],
    }
}

/// Name, labels and value of a sample; panics if the line is none.
fn sample(line: &str) -> (String, BTreeMap<String, String>, f64) {
    let end = line
        .find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':')
        .unwrap();
    let (name, mut rest) = line.split_at(end);
    assert!(!name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit()));
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, after) = rest.split_once("=\"").unwrap();
            let mut value = String::new();
            let mut chars = after.char_indices();
            let end = loop {
                match chars.next().unwrap() {
                    (at, '"') => break at,
                    (_, '\\') => match chars.next().unwrap().1 {
                        'n' => value.push('\n'),
                        c @ ('"' | '\\') => value.push(c),
                        c => panic!("\\{c} in {line}"),
                    },
                    (_, c) => value.push(c),
                }
            };
            assert!(
                label.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
                "{line}"
            );
            assert_eq!(labels.insert(label.to_owned(), value), None, "{line}");
            rest = &after[end + 1..];
            match rest.as_bytes()[0] {
                b',' => rest = &rest[1..],
                b'}' => {
                    rest = &rest[1..];
                    break;
                }
                _ => panic!("{line}"),
            }
        }
    }
    let value = rest.strip_prefix(' ').unwrap().parse().unwrap();
    (name.to_owned(), labels, value)
}

type Samples = BTreeMap<(String, BTreeMap<String, String>), f64>;

/// All samples, after a look at what surrounds them.
fn parse(text: &str) -> Samples {
    assert!(text.ends_with('\n'));
    let mut samples = Samples::new();
    let mut seen = HashSet::new();
    let (mut family, mut kind) = (String::new(), String::new());
    let mut helped = String::new();
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            helped = help.split_once(' ').unwrap().0.to_owned();
        } else if let Some(of) = line.strip_prefix("# TYPE ") {
            let (name, of) = of.split_once(' ').unwrap();
            assert_eq!(name, helped, "help and type stand together");
            assert!(seen.insert(name.to_owned()), "{name} stands twice");
            assert_eq!(of == "counter", name.ends_with("_total"), "{name}");
            (family, kind) = (name.to_owned(), of.to_owned());
        } else {
            let (name, labels, value) = sample(line);
            let base = match kind.as_str() {
                "histogram" => ["_bucket", "_sum", "_count"]
                    .iter()
                    .find_map(|end| name.strip_suffix(end))
                    .unwrap(),
                _ => &name,
            };
            assert_eq!(base, family, "{line}");
            assert_eq!(labels.contains_key("le"), name.ends_with("_bucket"));
            assert!(value >= 0.0);
            let twin = samples.insert((name, labels), value);
            assert_eq!(twin, None, "{line} stands twice");
        }
    }
    samples
}

fn value(samples: &Samples, name: &str, labels: &[(&str, &str)]) -> f64 {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let labels: BTreeMap<_, _> = labels.iter().map(owned).collect();
    *samples
        .get(&(name.to_owned(), labels.clone()))
        .unwrap_or_else(|| panic!("{name} {labels:?} is not there: {samples:#?}"))
}

#[test]
fn every_line_is_of_the_format_and_the_counts_are_right() {
    let metrics = Metrics::default();
    let names = names();
    metrics.note(&record("gpt-5", 200), &names);
    metrics.note(&record("up/gpt-5", 200), &names);
    metrics.note(&record("a\"b\\c", 503), &names);
    let mut stream = record("never heard of", 499);
    stream.streamed = true;
    stream.heartbeats = 2;
    stream.switches = 1;
    metrics.note(&stream, &names);
    metrics.note(&Record::new("r".into(), "healthz"), &names);

    let samples = parse(&metrics.text(&gauges()));
    let requests = |model: &str, status: &str| {
        let labels = [
            ("endpoint", "chat"),
            ("model", model),
            ("upstream", "up"),
            ("status", status),
        ];
        value(&samples, "weir_requests_total", &labels)
    };
    assert_eq!(requests("gpt-5", "2xx"), 2.0);
    assert_eq!(requests("a\"b\\c", "5xx"), 1.0);
    assert_eq!(requests("other", "4xx"), 1.0);
    let prompt = [
        ("kind", "prompt"),
        ("endpoint", "chat"),
        ("model", "gpt-5"),
        ("upstream", "up"),
    ];
    assert_eq!(value(&samples, "weir_tokens_total", &prompt), 6.0);
    let served = [("endpoint", "chat"), ("upstream", "up")];
    let count = value(&samples, "weir_upstream_wait_seconds_count", &served);
    let sum = value(&samples, "weir_upstream_wait_seconds_sum", &served);
    assert_eq!((count, sum), (4.0, 0.05));
    let bucket = |le: &str| {
        let labels = [served[0], served[1], ("le", le)];
        value(&samples, "weir_upstream_wait_seconds_bucket", &labels)
    };
    assert_eq!(
        (
            bucket("0.01"),
            bucket("0.025"),
            bucket("600"),
            bucket("+Inf")
        ),
        (0.0, 4.0, 4.0, 4.0)
    );
    assert_eq!(value(&samples, "weir_heartbeats_total", &[]), 2.0);
    assert_eq!(value(&samples, "weir_key_switches_total", &[]), 1.0);
    assert_eq!(value(&samples, "weir_hang_ups_total", &[]), 1.0);
    let ends = |kind: &str| value(&samples, "weir_stream_ends_total", &[("kind", kind)]);
    assert_eq!((ends("hang_up"), ends("done")), (1.0, 0.0));
    let slots = value(&samples, "weir_slots", &[("upstream", "up")]);
    let in_use = value(&samples, "weir_leases_in_use", &[("upstream", "up")]);
    assert_eq!((slots, in_use), (2.0, 0.0));
    assert!(value(&samples, "process_open_fds", &[]) > 2.0);
    assert!(value(&samples, "process_resident_memory_bytes", &[]) > 1e5);
}

#[test]
fn a_million_made_up_models_are_one_series() {
    let metrics = Metrics::default();
    let names = names();
    let mut record = record("", 404);
    for number in 0..1_000_000_u32 {
        record.model.clear();
        use std::fmt::Write;
        let _ = write!(record.model, "up/model-{number}");
        metrics.note(&record, &names);
    }
    assert_eq!(metrics.series.sorted().len(), 1);
    assert_eq!(metrics.timings.sorted().len(), 1);
}

#[test]
fn beyond_the_bound_everything_shares_a_series() {
    let metrics = Metrics::default();
    let names = names();
    for number in 0..SERIES * 2 {
        let mut record = record("gpt-5", 200);
        // As over very many reloads with other names.
        record.upstream = format!("u{number}");
        metrics.note(&record, &names);
    }
    assert_eq!(metrics.series.sorted().len(), SERIES + 1);
    let samples = parse(&metrics.text(&gauges()));
    let labels = [
        ("endpoint", OTHER),
        ("model", OTHER),
        ("upstream", OTHER),
        ("status", "2xx"),
    ];
    let counted = value(&samples, "weir_requests_total", &labels);
    assert_eq!(counted, SERIES as f64);
}

#[test]
fn attempts_and_failures_are_told_by_class() {
    let tally = Arc::new(Tally::default());
    tally.lent();
    tally.failed(crate::failure::Class::RateLimit);
    let mut gauges = gauges();
    gauges.pools[0].tally = tally;
    let samples = parse(&Metrics::default().text(&gauges));
    let up = ("upstream", "up");
    let limited = [up, ("class", "rate_limit")];
    assert_eq!(value(&samples, "weir_attempts_total", &[up]), 1.0);
    assert_eq!(value(&samples, "weir_cool_downs_total", &limited), 1.0);
    assert_eq!(
        value(&samples, "weir_attempt_failures_total", &limited),
        1.0
    );
}
