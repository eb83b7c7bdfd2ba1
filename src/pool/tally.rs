//! What an upstream's keys did and suffered, counted since the start.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::failure::Class;

const CLASSES: [Class; 12] = [
    Class::RequestFault,
    Class::OtherKey,
    Class::Unsupported,
    Class::ModelMissing,
    Class::KeyBad,
    Class::Unclear,
    Class::RateLimit,
    Class::Loading,
    Class::Server,
    Class::Transport,
    Class::Ended,
    Class::CallerGone,
];

/// Shared by the pools that one upstream has over reloads.
#[derive(Debug, Default)]
pub struct Tally {
    pub leases: AtomicU64,
    failures: [AtomicU64; CLASSES.len()],
}

impl Tally {
    pub fn lent(&self) {
        self.leases.fetch_add(1, Ordering::Relaxed);
    }

    pub fn failed(&self, class: Class) {
        if let Some(at) = CLASSES.iter().position(|known| *known == class) {
            self.failures[at].fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn failures(&self) -> impl Iterator<Item = (Class, u64)> {
        let counts = self
            .failures
            .iter()
            .map(|count| count.load(Ordering::Relaxed));
        CLASSES.into_iter().zip(counts)
    }
}
