//! Bounded fuzzing of the pure halves, `make fuzz`: inputs made from the golden cases (and from
//! recordings, where `WEIR_RECORDINGS` names a folder of them), changed at random, and things that
//! must hold whatever came in.
//!
//! `FUZZ_SECONDS` bounds each target (60), `FUZZ_SEED` repeats a session. An input that fails is
//! kept under `target/found`. A session needs nothing but the stable compiler, and so knows nothing
//! of coverage: it makes up for that by changing JSON as JSON.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use crate::provider::anthropic::property_tests::Dice;

mod answers;
mod corpus;
mod mutate;
mod requests;

/// Slower than this by far is a way to make weir work for nothing.
const SLOW: Duration = Duration::from_secs(2);

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
    while began.elapsed() < limit {
        let input = match executions {
            // As they are first: what fails on them is no find.
            first if (first as usize) < corpus.len() => corpus[first as usize].clone(),
            _ => mutate::input(&mut dice, corpus),
        };
        let state = dice.0;
        let started = Instant::now();
        let survived = catch_unwind(AssertUnwindSafe(|| run(&mut dice, &input)));
        let took = started.elapsed();
        if survived.is_err() || took > SLOW {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/found");
            let file = folder.join(format!("{target}-{seed}-{executions}"));
            fs::create_dir_all(&folder).unwrap();
            fs::write(&file, &input).unwrap();
            panic!(
                "{target}: seed {seed}, execution {executions}, dice {state}, {took:?}: {}",
                file.display()
            );
        }
        executions += 1;
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("{target}: {executions} executions in {seconds:.0} s, seed {seed}: nothing found");
}

#[test]
#[ignore = "takes a minute: make fuzz"]
fn config() {
    session("config", &corpus::configs(), |_, input| {
        if let Ok(text) = std::str::from_utf8(input) {
            crate::config::tests::chaos::survive(text);
        }
    });
}
