//! What callers on a unix socket send beyond their requests.
//!
//! Nothing tells which of these connections a request came on, so all of them have one account:
//! bytes that the HTTP server has taken in from them, and bytes that were of a request that has
//! begun. What is between the two lies in the HTTP server, as requests in its queue or as a head that
//! has no end, neither of which has a bound there. Where it is too much, the connection goes from
//! which most was taken in.

use std::collections::HashMap;
use std::sync::Arc;

use log::debug;

use crate::desk::Job;
use crate::sys::sockets::unix::Local;

/// Bytes that may have been taken in without being of a request that has begun.
const AHEAD_BYTES: i64 = 256 * 1024;

/// What the kernel hands out to one read of a body, before that is counted here: the room of a unix
/// socket, as Linux sets it.
const IN_HAND: i64 = 208 * 1024;

/// Bodies of which as much may be in hand at the same moment; more of them take turns.
const IN_HANDS: usize = 8;

/// A connection from which so little was taken in of late is not what piles up.
const LITTLE: u64 = 32 * 1024;

/// Between two looks while nothing is taken in, while something is, and while it piles up.
const CALM_MS: u64 = 500;
const BUSY_MS: u64 = 50;
const SHORT_MS: u64 = 10;

#[derive(Debug, Default)]
pub struct Locals {
    known: HashMap<u64, Known>,
    account: Account,
}

#[derive(Debug, Default)]
struct Known {
    /// Bytes that were taken in by the last look.
    taken: u64,
    /// Of late: each look halves what was before it.
    recent: u64,
    looks: u64,
}

/// Bytes taken in and not used, of all connections together.
#[derive(Debug, Default)]
struct Account {
    /// All that was ever taken in.
    taken: i64,
    /// How far that was ahead of what was used, at the least: what is counted too much for requests
    /// is no credit for others.
    least: i64,
    /// How far it was beyond that on the last look.
    ahead: i64,
    looks: u64,
}

impl Account {
    /// Whether too much lies there, and more than on the last look. `used` is what was used before
    /// `taken` was counted and after it: while a body comes, megabytes lie between the two.
    fn is_over(&mut self, taken: u64, used: (u64, u64), reading: usize, at_work: bool) -> bool {
        self.taken = self.taken.saturating_add(signed(taken));
        let most = self.taken - signed(used.0);
        let least = self.taken - signed(used.1);
        self.least = match at_work || taken > 0 {
            true => self.least.min(most),
            // Nothing is under way, so that whatever was miscounted can be forgotten.
            false => least,
        };
        let before = std::mem::replace(&mut self.ahead, least - self.least);
        let in_hand = reading.min(IN_HANDS) as i64 * IN_HAND;
        self.ahead > before && self.ahead > AHEAD_BYTES + in_hand
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

impl Locals {
    /// Looks at the connections that are open now, and ends the one whose requests pile up. `jobs`
    /// tells what is at work, and `used` the bytes of all requests, with theirs. Gives the time until
    /// the next look.
    pub fn look(
        &mut self,
        locals: &[Local],
        jobs: &dyn Fn() -> Vec<Arc<Job>>,
        used: &dyn Fn(&[Arc<Job>]) -> u64,
    ) -> u64 {
        self.account.looks += 1;
        let looks = self.account.looks;
        let used_before = used(&jobs());
        let mut taken_in = 0;
        let mut fresh_ones = false;
        for local in locals {
            let Some(taken) = local.taken() else { continue };
            let known = self.known.entry(local.number).or_insert_with(|| {
                fresh_ones = true;
                Known::default()
            });
            let fresh = taken.saturating_sub(known.taken);
            known.taken = taken;
            known.recent = known.recent / 2 + fresh;
            known.looks = looks;
            taken_in += fresh;
        }
        self.known.retain(|_, known| known.looks == looks);
        // In this order: what was taken in by now is of a request that has begun by then.
        let jobs = jobs();
        let reading = jobs.iter().filter(|job| job.reads_body()).count();
        let used = (used_before, used(&jobs));
        if self
            .account
            .is_over(taken_in, used, reading, !jobs.is_empty())
        {
            self.end_one(locals);
        }
        match taken_in {
            // What a new one brought before it was seen was not counted.
            _ if fresh_ones || self.account.ahead > AHEAD_BYTES / 8 => SHORT_MS,
            0 => CALM_MS,
            _ => BUSY_MS,
        }
    }

    fn end_one(&mut self, locals: &[Local]) {
        let recent = |local: &&Local| self.known.get(&local.number).map(|known| known.recent);
        let most = locals.iter().max_by_key(recent);
        if let Some(local) = most.filter(|local| recent(local) > Some(LITTLE)) {
            debug!("a connection on the unix socket closed: its requests pile up");
            local.shut();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Watch, weight};
    use super::*;
    use crate::desk::AtWork;
    use std::time::Duration;

    #[test]
    fn a_request_that_ends_while_it_is_counted_is_counted_once() {
        let watch = Watch::new(0).unwrap();
        let desk = watch.add_desk();
        let mut job = Job::new(None, Duration::from_secs(1));
        job.is_of(weight(40, Some(5_000)), 5_000);
        job.use_up(4_000);
        let at_work = AtWork::begin(&desk, &watch, job);
        let jobs = watch.jobs();
        let whole = weight(40, Some(5_000)).bytes;
        assert!(jobs[0].reads_body());
        assert_eq!(watch.used(&jobs), whole - 1_000);
        drop(at_work);
        // With those that were at work a moment ago, and with those that are.
        for jobs in [&jobs, &watch.jobs()] {
            assert_eq!(watch.used(jobs), whole);
        }
    }

    /// Bytes taken in and used, look by look; whether any look ended somebody.
    fn is_over(looks: &[(u64, u64)], reading: usize) -> bool {
        let mut account = Account::default();
        let mut used = 0;
        let mut over = false;
        for (taken, more) in looks {
            used += more;
            over |= account.is_over(*taken, (used, used), reading, true);
        }
        over
    }

    #[test]
    fn what_comes_while_it_is_counted_is_no_debt() {
        // A body of a gigabyte, of which more and more is used between the two counts: the thread
        // that counts was interrupted.
        let mut account = Account::default();
        let mut taken = 0;
        for late in [0, 1, 9, 0, 4, 30, 0, 0] {
            let now = 20_000_000;
            taken += now;
            let late = late * 1_000_000;
            assert!(
                !account.is_over(now, (taken, taken + late), 1, true),
                "{late}"
            );
            // What was used late is taken in by the next look.
            taken += late;
            assert!(
                !account.is_over(late, (taken - late, taken), 1, true),
                "{late}"
            );
        }
        // A flood beside it is seen all the same.
        assert!(account.is_over(1_000_000, (taken, taken), 1, true));
    }

    #[test]
    fn what_is_never_used_piles_up() {
        assert!(is_over(&[(100_000, 90_000); 40], 0));
        assert!(is_over(&[(300_000, 0)], 0), "a head without an end");
        assert!(!is_over(&[(100_000, 101_000); 10_000], 0));
        // Bodies that are being read, of which something is always in hand.
        let mut bodies = vec![(1_000_000, 1_000_000); 1_000];
        bodies[0].1 = 600_000;
        assert!(!is_over(&bodies, 2));
        // But they hide no more than that.
        bodies.extend(vec![(1_100_000, 1_000_000); 5]);
        assert!(is_over(&bodies, 2));
    }

    #[test]
    fn what_was_counted_too_much_is_no_credit() {
        let mut credit = vec![(0, 500_000_000)];
        credit.extend(vec![(100_000, 0); 3]);
        assert!(is_over(&credit, 0));
        let mut account = Account::default();
        assert!(!account.is_over(0, (900_000, 900_000), 0, false));
        assert!(account.is_over(300_000, (900_000, 900_000), 0, true));
        // What has been there for long and grows no more ends nobody.
        assert!(!account.is_over(0, (900_000, 900_000), 0, true));
    }
}
