//! Waiting for something that has no event of its own, with a limit.

use std::time::{Duration, Instant};

/// How long most waits of the tests may take. A machine under load needs the room; a test that
/// passes never comes near it.
pub const LIMIT: Duration = Duration::from_secs(20);

/// Asks `probe` again and again until it has an answer. Panics with `what` after `limit`.
pub fn until<T>(limit: Duration, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {limit:?} for {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
