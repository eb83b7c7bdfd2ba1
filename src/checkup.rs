//! Looks after servers that do not answer, until they do.
//!
//! While an upstream loads its model or cannot be reached, a thread asks it once a second whether it
//! is well; then what its keys were spared for ends at once, and `/readyz` says that it is there. An
//! upstream that answers is never asked, and each has one such thread at most. It ends with the first
//! good answer, whoever gets it, and with the pool that it is for.

use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use log::{info, warn};

use crate::config::Upstream;
use crate::discovery;
use crate::line::Line;
use crate::pool::Pool;

/// Between two questions.
const PAUSE: Duration = Duration::from_secs(1);

const STACK: usize = 512 * 1024;

/// Sees to it that somebody looks after the server behind `pool`, if it does not answer.
pub fn look_after(upstream: &Upstream, line: &Line, pool: &Arc<Pool>) {
    if !pool.server.wants_looking_after() {
        return;
    }
    let visit = Visit(Arc::downgrade(pool));
    let (upstream, line) = (upstream.clone(), line.clone());
    let spawned = thread::Builder::new()
        .name("checkup".into())
        .stack_size(STACK)
        .spawn(move || visit.stay(&upstream, &line));
    if let Err(error) = spawned {
        warn!("no thread to look after an upstream: {error}");
    }
}

/// Dropping it lets another one begin.
struct Visit(Weak<Pool>);

impl Visit {
    fn stay(self, upstream: &Upstream, line: &Line) {
        loop {
            thread::sleep(PAUSE);
            let is_down = |pool: &Arc<Pool>| pool.server.down().is_some();
            if !self.0.upgrade().as_ref().is_some_and(is_down) {
                return;
            }
            // The pool is not held meanwhile: a reload may be done with it.
            if discovery::is_well(upstream, line)
                && let Some(pool) = self.0.upgrade()
            {
                info!("upstream {} answers again", upstream.name);
                pool.recovered();
                return;
            }
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if let Some(pool) = self.0.upgrade() {
            pool.server.left_alone();
        }
    }
}
