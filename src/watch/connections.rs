//! What is known of each open connection from one look to the next, and which are closed.
//!
//! The HTTP server reads heads without any limit of time or number. The kernel's counters tell
//! from outside what a connection does: bytes that arrive without a reply that leaves are a head
//! or a body in the making; neither means that the connection is idle.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use log::debug;

use super::by_peer;
use super::lanes::Begun;
use crate::cancel::Cause;
use crate::clock;
use crate::desk::Job;
use crate::sys::sockets::{Caller, Callers, Facts, canonical};

/// How long a request's head may take from its first byte, at most.
const HEAD_MS: u64 = 10_000;

/// Bytes that the HTTP server may take in before there is a request. It has no limit of its own;
/// heads beyond 32 KiB are refused anyway.
const HEAD_BYTES: u64 = 96 * 1024;

/// Bytes of requests that the HTTP server may have taken in while none of them has begun: as many
/// lie in its queue, which has no bound.
const AHEAD_BYTES: u64 = 256 * 1024;

/// How long a kept connection may be idle.
const IDLE_MS: u64 = 75_000;

/// Where there are too many connections, a new one has this long to say what it came for.
const GRACE_MS: u64 = 200;

/// And one that has begun to say it is heard for this long: its request may be complete and wait
/// for a thread.
const LIVELY_MS: u64 = 1_000;

/// Between two looks while nothing is new.
const CALM_MS: u64 = 500;

/// Between two looks while connections come and go or wait.
const BUSY_MS: u64 = 50;

/// Between two looks while a head is long already (on a fast line it grows by megabytes), or a
/// connection starves.
const SHORT_MS: u64 = 10;

/// What is known of one connection.
#[derive(Debug)]
struct Connection {
    /// When it was first seen, or its last reply was.
    quiet_since: u64,
    /// Bytes received by then.
    base: u64,
    acked: u64,
    /// When bytes beyond `base` were first seen.
    head_since: Option<u64>,
    /// Bytes wait and nobody reads them; seen on the last look.
    unread: bool,
    /// Bytes that the HTTP server has ever taken in.
    taken_in: u64,
    /// How many of them are not of requests that have begun. Below zero while a body comes.
    ahead: i64,
    looked: u64,
}

/// How long a head may take where a body may take `body_wait`.
pub fn head_wait(body_wait: Duration) -> Duration {
    body_wait.min(Duration::from_millis(HEAD_MS))
}

#[derive(Debug)]
pub struct Connections {
    known: HashMap<SocketAddr, Connection>,
    limit: usize,
    head_ms: u64,
}

pub struct Outcome {
    /// A connection's bytes lie unread though no request of it is in the works.
    pub starving: bool,
    /// Connections that were not there on the last look.
    pub fresh: usize,
    /// Milliseconds until the next look.
    pub next_look: u64,
}

impl Connections {
    pub fn new(limit: usize, head_wait: Duration) -> Connections {
        Connections {
            known: HashMap::new(),
            limit,
            head_ms: clock::millis(head_wait),
        }
    }

    /// Takes the connections that are open now: hands them to the jobs that want them, closes
    /// those whose time is over, and the longest idle where there are too many.
    ///
    /// `jobs_now` tells which jobs there are at that moment: one that began after `jobs` were
    /// listed may be what a connection's bytes were for.
    pub fn look(
        &mut self,
        callers: Callers,
        jobs: &[Arc<Job>],
        begun: &dyn Fn(&HashSet<SocketAddr>) -> HashMap<SocketAddr, Begun>,
        jobs_now: &dyn Fn() -> Vec<Arc<Job>>,
        now: u64,
    ) -> Outcome {
        let jobs = by_peer(jobs);
        let mut over: Vec<Caller> = Vec::new();
        let before = self.known.len();
        let mut unread = false;
        let mut starving = false;
        let mut long_head = false;
        let mut piling = false;
        let mut fresh = 0;
        let mut spare: Vec<((bool, u64), Caller)> = Vec::new();
        let Callers { found, complete } = callers;
        let open = found.len();
        // Out of descriptors, nobody is kept without a request.
        let limit = if complete { self.limit } else { 0 };
        // In this order: whoever was not reading chunks here has said so below, and what has begun
        // below may have no bytes here, but never the other way round.
        let reads_chunks = |job: &&Arc<Job>| job.reads_chunks.load(Ordering::Acquire);
        let reading: HashSet<SocketAddr> = jobs
            .iter()
            .filter(|(_, jobs)| jobs.iter().any(reads_chunks))
            .map(|(peer, _)| *peer)
            .collect();
        let seen: Vec<_> = found
            .into_iter()
            .filter_map(|caller| Some((caller.facts()?, caller.unread(), caller)))
            .collect();
        let begun = begun(
            &seen
                .iter()
                .map(|(.., caller)| canonical(caller.peer))
                .collect(),
        );
        for (facts, unread_bytes, caller) in seen {
            let peer = canonical(caller.peer);
            let connection = self.known.entry(peer).or_insert_with(|| {
                fresh += 1;
                Connection::new(facts, now)
            });
            connection.looked = now;
            let mut begun = begun.get(&peer).copied().unwrap_or_default();
            begun.unsure |= reading.contains(&peer);
            if connection.is_ahead(facts, unread_bytes, begun) && !facts.ending {
                debug!("connection from {peer} closed: its requests pile up");
                caller.reset();
                continue;
            }
            piling |= connection.ahead > 0;
            if let Some(jobs) = jobs.get(&peer) {
                connection.rest(facts, now);
                take(jobs, caller, now);
                continue;
            }
            if facts.ending {
                // It has been told to go, and lingers: what it sends is no head.
                continue;
            }
            let waits = unread_bytes > 0;
            let taken = connection.taken(facts, unread_bytes);
            long_head |= taken > HEAD_BYTES / 8;
            starving |= waits && connection.unread;
            unread |= waits;
            connection.unread = waits;
            if taken > HEAD_BYTES || connection.is_over(facts, now, self.head_ms) {
                over.push(caller);
            } else if open > limit {
                let lively = connection.is_lively(now);
                // Half as much again and no more, whatever they do.
                if !lively || open > limit + limit / 2 {
                    spare.push(((lively, connection.quiet_since), caller));
                }
            }
        }
        let late = match over.is_empty() && spare.is_empty() {
            true => Vec::new(),
            false => jobs_now(),
        };
        let late = by_peer(&late);
        for caller in over {
            let peer = canonical(caller.peer);
            if !late.contains_key(&peer) {
                debug!("connection from {peer} closed: idle, or its head is too slow or too long");
                caller.reset();
            }
        }
        let jobs = jobs.values().flatten();
        for job in jobs.filter(|job| complete && job.wants_caller(now)) {
            // A reset connection has no peer any more, so it is not among the open ones.
            job.cancel.pull(Cause::CallerGone);
        }
        self.known.retain(|_, connection| connection.looked == now);
        spare.retain(|(_, caller)| !late.contains_key(&canonical(caller.peer)));
        spare.sort_by_key(|(key, _)| *key);
        for (_, caller) in spare.iter().take(open.saturating_sub(limit)) {
            debug!("connection from {} closed: too many are open", caller.peer);
            caller.shut();
        }
        let crowded = open > limit;
        let moving = crowded || piling || fresh > 0 || unread || self.known.len() != before;
        Outcome {
            starving,
            fresh,
            next_look: match moving {
                _ if long_head || starving => SHORT_MS,
                true => BUSY_MS,
                false => CALM_MS,
            },
        }
    }
}

/// Gives the jobs of one connection that connection, if they wait for it.
fn take(jobs: &[&Arc<Job>], caller: Caller, now: u64) {
    let caller = Arc::new(caller);
    for job in jobs.iter().filter(|job| job.wants_caller(now)) {
        if job.shut.load(Ordering::Relaxed) {
            caller.shut();
        }
        *job.caller.lock() = Some(Arc::clone(&caller));
    }
}

impl Connection {
    fn new(facts: Facts, now: u64) -> Connection {
        Connection {
            quiet_since: now,
            // What has come before the first look is part of a head, too, unless there was an
            // answer already: a busy caller brings many heads before the first look. The kernel
            // may count the handshake as one byte.
            base: match facts.acked {
                0 | 1 => 0,
                _ => facts.received,
            },
            acked: facts.acked,
            head_since: None,
            unread: false,
            taken_in: 0,
            ahead: 0,
            looked: now,
        }
    }

    /// Whether so much was taken in beyond the requests that have begun that they pile up.
    fn is_ahead(&mut self, facts: Facts, unread: usize, begun: Begun) -> bool {
        let taken_in = facts.received.saturating_sub(unread as u64);
        let fresh = taken_in.saturating_sub(self.taken_in);
        self.taken_in = taken_in;
        // Nobody knows beforehand how long a body in chunks is, and nothing is taken in behind it
        // before it is over.
        if begun.unsure {
            self.ahead = 0;
            return false;
        }
        let moved = i64::try_from(fresh)
            .unwrap_or(i64::MAX)
            .saturating_sub(i64::try_from(begun.bytes).unwrap_or(i64::MAX));
        self.ahead = self.ahead.saturating_add(moved);
        // What was declared and has not come counts only for its own request.
        if !begun.at_work && (self.ahead < 0 || moved == 0) {
            self.ahead = 0;
        }
        self.ahead > AHEAD_BYTES as i64
    }

    /// A request is in the works, or a reply has gone out: what comes now is a new head.
    fn rest(&mut self, facts: Facts, now: u64) {
        self.quiet_since = now;
        self.base = facts.received;
        self.acked = facts.acked;
        self.head_since = None;
        self.unread = false;
    }

    /// New, or it has just begun to speak.
    fn is_lively(&self, now: u64) -> bool {
        now - self.quiet_since < GRACE_MS
            || self.head_since.is_some_and(|since| now - since < LIVELY_MS)
    }

    /// Bytes that the HTTP server has taken in without a request.
    fn taken(&self, facts: Facts, unread: usize) -> u64 {
        if facts.acked != self.acked {
            return 0;
        }
        facts.received.saturating_sub(self.base + unread as u64)
    }

    /// Whether its time is over.
    fn is_over(&mut self, facts: Facts, now: u64, head_ms: u64) -> bool {
        if facts.acked != self.acked {
            self.rest(facts, now);
            return false;
        }
        if facts.received > self.base {
            let since = *self.head_since.get_or_insert(now);
            return now - since >= head_ms;
        }
        now - self.quiet_since >= IDLE_MS
    }
}

#[cfg(test)]
mod tests {
    use super::super::weight;
    use super::*;

    fn facts(received: u64, acked: u64) -> Facts {
        Facts {
            received,
            acked,
            ending: false,
        }
    }

    /// Bytes taken in and those of begun requests, look by look; the outcome of the last look.
    fn is_ahead(looks: &[(u64, u64)], at_work: bool) -> bool {
        let mut connection = Connection::new(facts(0, 0), 1);
        let mut received = 0;
        let mut ahead = false;
        for (taken, bytes) in looks {
            received += taken;
            let begun = Begun {
                bytes: *bytes,
                unsure: false,
                at_work,
            };
            ahead = connection.is_ahead(facts(received, 0), 0, begun);
        }
        ahead
    }

    #[test]
    fn requests_that_pile_up_are_seen_and_those_that_are_begun_are_not() {
        // A little quicker than they are begun, for long.
        let quick = vec![(100_000, 90_000); 40];
        assert!(is_ahead(&quick, true));
        assert!(is_ahead(&quick, false), "between two of them");
        let steady = vec![(100_000, 101_000); 10_000];
        assert!(!is_ahead(&steady, true));
        // A large body, declared at first and then coming for long.
        let mut upload = vec![(1_000_000, 100_000_000)];
        upload.extend(vec![(1_000_000, 0); 98]);
        assert!(!is_ahead(&upload, true));
        // What it declared is no credit for others.
        upload.extend(vec![(0, 0), (300_000, 0)]);
        upload[0].1 += 100_000_000;
        assert!(!is_ahead(&upload, true));
        assert!(is_ahead(&upload, false));
        // Bytes that nobody has counted, of heads that are written widely, do not add up.
        let wide = [(1_000, 900), (0, 0)].repeat(10_000);
        assert!(!is_ahead(&wide, false));
    }

    #[test]
    fn where_a_body_comes_in_chunks_counting_begins_anew_behind_it() {
        let mut connection = Connection::new(facts(0, 0), 1);
        let (none, chunked) = (weight(0, Some(0)), weight(100, None));
        assert!(chunked.unsure);
        for received in [1_000_000, 2_000_000] {
            assert!(!connection.is_ahead(facts(received, 0), 0, chunked));
        }
        assert!(!connection.is_ahead(facts(2_500_000, 0), 500_000, none));
        assert!(connection.is_ahead(facts(3_000_000, 0), 500_000, none));
    }

    #[test]
    fn many_answered_requests_before_the_first_look_are_no_long_head() {
        let seen = facts(HEAD_BYTES * 2, 70_000);
        let mut connection = Connection::new(seen, 1);
        assert_eq!(connection.taken(seen, 0), 0);
        assert!(!connection.is_over(seen, HEAD_MS + 1, HEAD_MS));
        // What comes behind them is.
        let more = facts(HEAD_BYTES * 3 + 1, 70_000);
        assert!(connection.taken(more, 0) > HEAD_BYTES);
        // Without an answer all of it is one head.
        for acked in [0, 1] {
            let seen = facts(HEAD_BYTES * 2, acked);
            assert!(Connection::new(seen, 1).taken(seen, 0) > HEAD_BYTES);
        }
    }

    #[test]
    fn a_head_has_ten_seconds_however_its_bytes_come() {
        let mut connection = Connection::new(facts(0, 0), 1);
        for second in 1..10 {
            assert!(!connection.is_over(facts(second, 0), second * 1000, HEAD_MS));
        }
        assert!(connection.is_over(facts(11, 0), 11_000, HEAD_MS));
    }

    #[test]
    fn replies_prove_that_a_connection_is_used() {
        let mut connection = Connection::new(facts(0, 0), 1);
        for second in 1..1000 {
            assert!(!connection.is_over(facts(second * 100, second * 50), second * 1000, HEAD_MS));
        }
    }

    #[test]
    fn an_idle_connection_is_kept_for_a_while() {
        let mut connection = Connection::new(facts(0, 0), 1);
        connection.rest(facts(500, 300), 1_000);
        assert!(!connection.is_over(facts(500, 300), 75_000, HEAD_MS));
        assert!(connection.is_over(facts(500, 300), 76_000, HEAD_MS));
    }
}
