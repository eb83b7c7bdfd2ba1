//! `Server`: whether the server behind a pool answers at all, whatever its keys are.
//!
//! A model that is being loaded and a connection that is refused say nothing about a key, and end
//! by themselves. While one of them lasts, `checkup.rs` looks after the server.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use crate::failure::{Class, Failure};

/// Why a server does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Down {
    /// It says that it loads a model.
    Loading,
    /// There is no connection to it.
    Unreachable,
}

impl Down {
    /// As a word, for `/status`.
    pub fn name(self) -> &'static str {
        match self {
            Down::Loading => "loading",
            Down::Unreachable => "unreachable",
        }
    }
}

#[derive(Debug, Default)]
pub struct Server {
    /// To be looked at without the lock: nearly always it is well.
    is_down: AtomicBool,
    why: Mutex<Option<(Down, Instant)>>,
    /// Somebody looks after it.
    looked_after: AtomicBool,
}

impl Server {
    /// Since when it does not answer, and why.
    pub fn down(&self) -> Option<(Down, Instant)> {
        if !self.is_down.load(Ordering::Acquire) {
            return None;
        }
        *self.why.lock()
    }

    pub fn answered(&self) {
        if self.is_down.load(Ordering::Acquire) {
            let mut why = self.why.lock();
            *why = None;
            self.is_down.store(false, Ordering::Release);
        }
    }

    pub fn failed(&self, failure: &Failure) {
        let down = match failure.class {
            Class::Loading => Down::Loading,
            Class::Transport if failure.is_unreachable() => Down::Unreachable,
            // A timer or an end in the middle says little either way.
            Class::Transport | Class::Ended | Class::CallerGone => return,
            _ => return self.answered(),
        };
        let mut why = self.why.lock();
        let since = why.map_or_else(Instant::now, |(_, since)| since);
        *why = Some((down, since));
        self.is_down.store(true, Ordering::Release);
    }

    /// Whether it wants somebody to look after it, which is the caller's to do then.
    pub fn wants_looking_after(&self) -> bool {
        self.is_down.load(Ordering::Acquire) && !self.looked_after.swap(true, Ordering::AcqRel)
    }

    /// Nobody looks after it any more.
    pub fn left_alone(&self) {
        self.looked_after.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loading_and_refused_connections_are_down_and_answers_are_not() {
        let server = Server::default();
        let loading = Failure::from_status(503, br#"{"error":{"message":"Loading model"}}"#, None);
        let down = |server: &Server| server.down().map(|(why, _)| why);
        assert_eq!(down(&server), None);
        server.failed(&loading);
        let (why, since) = server.down().unwrap();
        assert_eq!(why, Down::Loading);
        assert!(server.wants_looking_after());
        assert!(!server.wants_looking_after(), "one is enough");
        server.failed(&Failure::unreachable("refused"));
        assert_eq!(server.down(), Some((Down::Unreachable, since)));
        for unclear in [
            Failure::timeout(""),
            Failure::disconnected(),
            Failure::deadline(),
        ] {
            server.failed(&unclear);
            assert_eq!(down(&server), Some(Down::Unreachable));
        }
        // Whoever refuses is there.
        server.failed(&Failure::from_status(429, b"", None));
        assert_eq!(down(&server), None);
        assert!(!server.wants_looking_after());
        server.left_alone();
        server.failed(&loading);
        assert!(server.wants_looking_after());
        server.answered();
        assert_eq!(down(&server), None);
    }
}
