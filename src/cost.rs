//! Work and memory in proportion to the body: every shape of body for every kind of upstream, at
//! two lengths. What grows faster than the body is a way to make weir work for nothing.
//!
//! Counted is the processor's time of the thread, so that a busy machine does not matter much, and
//! the best of several runs.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use crate::cancel::{self, Cancel, Cause};
use crate::dialect::openai::Head;
use crate::json::shape::Limits;
use crate::provider::{Options, Provider, anthropic, gemini, openai, responses};
use crate::sys::blocks::Blocks;

mod shapes;

use shapes::SHAPES;

/// Counts what the thread has allocated, for the tests of this crate.
struct Meter;

#[global_allocator]
static METER: Meter = Meter;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn note(bytes: isize) {
    // Not while the thread ends.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

// SAFETY: all of it is the allocator of the program; what is noted beside it allocates nothing.
unsafe impl GlobalAlloc for Meter {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size() as isize);
        // SAFETY: handed on as it came.
        unsafe { Blocks.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        note(-(layout.size() as isize));
        // SAFETY: handed on as it came.
        unsafe { Blocks.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size() as isize);
        // SAFETY: handed on as it came.
        unsafe { Blocks.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size as isize - layout.size() as isize);
        // SAFETY: handed on as it came.
        unsafe { Blocks.realloc(pointer, layout, size) }
    }
}

/// What running something took.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    pub time: Duration,
    /// The most bytes held at once, beyond those at the beginning.
    pub bytes: usize,
}

pub fn of(run: impl FnOnce()) -> Cost {
    let held = HELD.get();
    PEAK.set(held);
    let began = thread_time();
    run();
    Cost {
        time: thread_time() - began,
        bytes: usize::try_from(PEAK.get() - held).unwrap_or(0),
    }
}

/// The processor's time of this thread.
fn thread_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: it writes one `timespec`, which is there.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

/// The kinds of upstream, and one that speaks OpenAI's format without being OpenAI.
const UPSTREAMS: &[(&str, &str)] = &[
    ("openai", "gpt-5.6"),
    ("compatible", "llama-3"),
    ("anthropic", "claude-opus-5-5"),
    ("gemini", "gemini-3-pro-preview"),
    ("gemini before", "gemini-2.0-flash"),
    ("responses", "gpt-5.6"),
];

/// What an exchange does with a body before anything is sent.
fn encode(upstream: &str, model: &str, body: &[u8]) {
    let options = Options {
        official: upstream != "compatible",
        developer_as_system: true,
        ask_usage: true,
        ..Options::default()
    };
    let Ok(mut head) = Head::read(body) else {
        return;
    };
    // The limits are not what keeps the work small.
    head.limits = Limits {
        values: usize::MAX,
        depth: usize::MAX,
        messages: usize::MAX,
        tools: usize::MAX,
    };
    let translator: &dyn Provider = match upstream {
        "anthropic" => &anthropic::Messages,
        "responses" => &responses::Responses,
        "gemini" | "gemini before" => &gemini::GenerateContent,
        _ => {
            drop(black_box(openai::encode(&head, model, &options)));
            return;
        }
    };
    if let Ok(request) = head.parse() {
        drop(black_box(translator.encode(&request, model, &options)));
    }
}

/// Nanoseconds for each KiB.
fn per_kib(cost: Cost, bytes: usize) -> f64 {
    cost.time.as_nanos() as f64 / (bytes as f64 / 1024.0)
}

/// The least of some runs.
fn best(upstream: &str, model: &str, body: &str, runs: usize) -> Cost {
    let mut costs = (0..runs).map(|_| of(|| encode(upstream, model, body.as_bytes())));
    let first = costs.next().expect("there is one run at least");
    costs.fold(first, |best, cost| Cost {
        time: best.time.min(cost.time),
        ..cost
    })
}

/// Compares bodies of both lengths; tells which shapes cost more than `factor` times as much for
/// each byte where they are long.
fn compare(short: usize, long: usize, factor: f64, each: &mut dyn FnMut(&str, f64, f64, usize)) {
    /// Less than that is measured too badly, and no danger.
    const LEAST: f64 = 500.0;
    let mut grown = Vec::new();
    for shape in SHAPES {
        let (small, large) = ((shape.make)(short), (shape.make)(long));
        for (upstream, model) in UPSTREAMS {
            let mut runs = 1;
            let few = best(upstream, model, &small, 3);
            let mut much = best(upstream, model, &large, runs);
            // Only what looks bad is looked at again.
            while per_kib(much, large.len()) > factor * per_kib(few, small.len()).max(LEAST)
                && runs < 8
            {
                runs *= 2;
                much.time = much.time.min(best(upstream, model, &large, runs).time);
            }
            let peak = much.bytes;
            let (few, much) = (per_kib(few, small.len()), per_kib(much, large.len()));
            let name = format!("{} -> {upstream}", shape.name);
            each(&name, few, much, peak);
            if much > factor * few.max(LEAST) {
                grown.push(format!("{name}: {few:.0} -> {much:.0} ns/KiB"));
            }
        }
    }
    assert!(grown.is_empty(), "{grown:#?}");
}

/// A caller who has left, or the deadline, ends the encoding for whoever has to parse.
#[test]
fn encoding_ends_with_the_request() {
    let make = |name: &str| {
        let shape = SHAPES.iter().find(|shape| shape.name == name);
        (shape.expect("it is in the table").make)(10_000)
    };
    for name in [
        "messages of both sides",
        "calls with results",
        "tools with small schemas",
    ] {
        let body = make(name);
        let head = Head::read(body.as_bytes()).expect("it is a good one");
        let request = head.parse().expect("it is a good one");
        let cancel = Arc::new(Cancel::default());
        let options = Options::default();
        let providers: [(&dyn Provider, &str); 3] = [
            (&anthropic::Messages, "claude-opus-5-5"),
            (&gemini::GenerateContent, "gemini-3-pro-preview"),
            (&responses::Responses, "gpt-5.6"),
        ];
        for (provider, model) in providers {
            let encode = || provider.encode(&request, model, &options);
            assert!(cancel::working(&cancel, encode).is_ok(), "{name} {model}");
        }
        cancel.pull(Cause::CallerGone);
        assert!(cancel::working(&cancel, || head.parse()).is_err(), "{name}");
        for (provider, model) in providers {
            let encode = || provider.encode(&request, model, &options);
            assert!(cancel::working(&cancel, encode).is_err(), "{name} {model}");
            assert!(encode().is_ok(), "it is another request's affair");
        }
    }
}

/// Quadratic growth would be a factor of eight.
#[test]
fn no_shape_of_body_costs_more_for_each_byte_where_it_is_longer() {
    compare(8 << 10, 64 << 10, 4.0, &mut |_, _, _, _| {});
}

/// `make cost-shapes`: prints the table.
#[test]
#[ignore = "takes a minute, and means something in an optimised build: make cost-shapes"]
fn table() {
    println!(
        "{:<66} {:>9} {:>9} {:>7}",
        "ns/KiB", "64 KiB", "1 MiB", "peak"
    );
    compare(64 << 10, 1 << 20, 2.0, &mut |name, few, much, peak| {
        let times = peak as f64 / f64::from(1 << 20);
        println!("{name:<66} {few:>9.0} {much:>9.0} {times:>6.1}x");
    });
}
