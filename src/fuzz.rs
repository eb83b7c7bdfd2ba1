//! Bounded fuzzing of the pure halves, `make fuzz`: inputs made from the golden cases (and from
//! recordings, where `WEIR_RECORDINGS` names a folder of them), changed at random, and things that
//! must hold whatever came in.
//!
//! `FUZZ_SECONDS` bounds each target (60), `FUZZ_SEED` repeats a session. An input that fails is
//! kept under `target/found`. A session needs nothing but the stable compiler, and so knows nothing
//! of coverage: it makes up for that by changing JSON as JSON.

use std::cell::Cell;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use crate::cost::{self, Cost};
use crate::provider::anthropic::property_tests::Dice;

mod answers;
mod corpus;
mod gemini;
mod messages;
mod mutate;
mod requests;
mod responses;

/// Slower than this by far is a way to make weir work for nothing. (With all that is checked.)
const SLOW: Duration = Duration::from_secs(2);

/// What weir itself may take for an input of up to `SHORT` bytes: more is a way to make it work, or
/// fill its memory, for nothing. A longer one may take more in proportion.
const BUDGET: Cost = Cost {
    time: Duration::from_millis(50),
    bytes: 8 << 20,
};
const SHORT: usize = 64 << 10;

thread_local! {
    static SPENT: Cell<Cost> = const { Cell::new(NOTHING) };
}

const NOTHING: Cost = Cost {
    time: Duration::ZERO,
    bytes: 0,
};

/// Runs what weir itself does, beside the checks of what comes of it.
fn measured<T>(run: impl FnOnce() -> T) -> T {
    let mut outcome = None;
    let cost = cost::of(|| outcome = Some(run()));
    let before = SPENT.get();
    SPENT.set(Cost {
        time: before.time + cost.time,
        bytes: before.bytes.max(cost.bytes),
    });
    outcome.expect("it ran")
}

/// How often the budget the last run took what it may.
fn over_budget(input: &[u8]) -> f64 {
    let share = (input.len() as f64 / SHORT as f64).max(1.0);
    let spent = SPENT.replace(NOTHING);
    let time = spent.time.as_secs_f64() / BUDGET.time.as_secs_f64();
    let bytes = spent.bytes as f64 / BUDGET.bytes as f64;
    time.max(bytes) / share
}

/// Tries `run` on changed inputs until the time is over.
fn session(target: &str, corpus: &[Vec<u8>], run: impl Fn(&mut Dice, &[u8])) {
    assert!(!corpus.is_empty(), "{target}: nothing to begin with");
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let limit = Duration::from_secs(number("FUZZ_SECONDS").unwrap_or(60));
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let seed = number("FUZZ_SEED").unwrap_or(now.as_micros() as u64) | 1;
    println!(
        "{target}: seed {seed}, {} inputs to begin with",
        corpus.len()
    );
    let mut dice = Dice(seed);
    let began = Instant::now();
    let mut executions = 0u64;
    let mut most = 0.0_f64;
    while began.elapsed() < limit {
        let input = match executions {
            // As they are first: what fails on them is no find.
            first if (first as usize) < corpus.len() => corpus[first as usize].clone(),
            _ => mutate::input(&mut dice, corpus),
        };
        let state = dice.0;
        let started = Instant::now();
        let survived = catch_unwind(AssertUnwindSafe(|| run(&mut dice, &input)));
        let mut took = started.elapsed();
        let mut share = over_budget(&input);
        // The least of several runs: others use the processor, too.
        for _ in 0..5 {
            if survived.is_err() || share <= 1.0 && took <= SLOW {
                break;
            }
            let started = Instant::now();
            run(&mut Dice(state), &input);
            took = took.min(started.elapsed());
            share = share.min(over_budget(&input));
        }
        if share <= 1.0 {
            most = most.max(share);
        }
        if survived.is_err() || took > SLOW || share > 1.0 {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/found");
            let file = folder.join(format!("{target}-{seed}-{executions}"));
            fs::create_dir_all(&folder).unwrap();
            fs::write(&file, &input).unwrap();
            panic!(
                "{target}: seed {seed}, execution {executions}, dice {state}, {took:?}, {share:.2} times \
                 the budget: {}",
                file.display()
            );
        }
        executions += 1;
    }
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{target}: {executions} executions in {seconds:.0} s, seed {seed}: nothing found, and at \
         most {most:.2} of the budget used"
    );
}

#[test]
#[ignore = "takes a minute: make fuzz"]
fn config() {
    session("config", &corpus::configs(), |_, input| {
        if let Ok(text) = std::str::from_utf8(input) {
            measured(|| crate::config::tests::chaos::survive(text));
        }
    });
}
