//! `Watch`: the timer thread, which looks after everything that waits.
//!
//! It goes round the desks, beats silent streams, ends what takes too long, sees callers hang up,
//! closes connections that send nothing or a byte at a time, and moves on what the HTTP server
//! left waiting. It sleeps for half a second while nothing is at work, and for a tenth of one, or less
//! where something is due, while there are requests. (It cannot sleep until the next connection:
//! where the accept thread is quicker, the listener does not wake a `poll`.)

use std::collections::{HashMap, HashSet};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use log::{debug, error};
use parking_lot::Mutex;

use crate::cancel::Cause;
use crate::clock;
use crate::desk::{Desk, Held, Job};
use crate::inbound::Unread;
use crate::sys::pages::{self, Thrift};
use crate::sys::sockets::{self, Bell, Caller, canonical};

mod connections;
mod lanes;
mod local;

use connections::Connections;
pub use connections::head_wait;
pub use lanes::{Begun, weight};
use lanes::{Lanes, Place, TooMany};
use local::Locals;

/// A round while requests are in the works.
const TICK: Duration = Duration::from_millis(100);

/// A round while there are only idle connections.
const SLOW: Duration = Duration::from_millis(500);

/// A connection that was refused is closed for good this much later, so that the caller can read
/// why: closing with unread bytes on our side would reset it. What it still sends is thrown away.
const LINGER_MS: u64 = 1_000;

/// For so long, a request from a connection that was told to go may still stand in the HTTP server's
/// queue: while it lingers, and while every worker is busy.
const BARRED_MS: u64 = 10_000;

/// Refused connections that linger at once; more are closed at once.
const LINGERERS: usize = 256;

/// What is thrown away on a round, of all of them together. It takes the thread about a millisecond.
const DISCARDED: usize = 4 * 1024 * 1024;

/// After a connection has come, all are looked at in short intervals for this long: the HTTP
/// server may leave it waiting.
const ALERT_MS: u64 = 1_000;
const ALERT_LOOK_MS: u64 = 50;

/// Beats at once while a connection starves.
const MOST_BEATS: u32 = 32;

/// While no worker is free, a request that asks no upstream may keep one for this long.
const CROWDING_MS: u64 = 1_000;

/// Requests of one connection that were taken within this time may have come in the other order.
const TOGETHER_MS: u64 = 20;

/// How long a refusal waits for one that may have come before it.
const TURN_MS: u64 = 200;

/// Between two looks of a refusal that waits for its turn.
const TURN_LOOK: Duration = Duration::from_millis(5);

/// The accept thread has this long to take a connection before it is given up.
const ACCEPT_MS: u64 = 1_000;

/// The accept thread has panicked.
static ACCEPTOR_FELL: AtomicBool = AtomicBool::new(false);

/// For the panic hook. The next round opens the listener anew.
pub fn acceptor_fell() {
    ACCEPTOR_FELL.store(true, Ordering::Release);
}

/// What the timer thread shares with the workers.
pub struct Watch {
    bell: Bell,
    /// The thread sleeps for longer than a hang-up may go unseen.
    resting: AtomicBool,
    /// Jobs begun so far.
    begun: AtomicU64,
    desks: Mutex<Vec<Arc<Desk>>>,
    lingering: Mutex<Vec<Lingerer>>,
    lanes: Arc<Lanes>,
    connections: AtomicUsize,
    /// Bytes of all requests on a unix socket that are over.
    used: Mutex<u64>,
    stopping: AtomicBool,
    port: u16,
}

/// A connection that was told to go.
struct Lingerer {
    caller: Caller,
    until: u64,
    /// A request whose body nobody reads; it is let go of when the connection is closed.
    request: Option<Unread>,
    /// It goes on sending.
    sends: bool,
}

/// What the timer thread is told at its start.
pub struct Duties {
    /// A clone of the listening socket; `None` on a unix socket.
    pub listener: Option<TcpListener>,
    pub write_timeout: Duration,
    pub max_connections: usize,
    /// How long a head may take, and a body that is read together with it.
    pub head_wait: Duration,
    /// Called every round.
    pub on_round: Box<dyn Fn(Instant) + Send>,
    /// Connections wait and nobody accepts them.
    pub on_stuck: Box<dyn Fn() + Send>,
}

impl Watch {
    pub fn new(port: u16) -> std::io::Result<Watch> {
        Ok(Watch {
            bell: Bell::new()?,
            resting: AtomicBool::new(false),
            begun: AtomicU64::new(0),
            desks: Mutex::default(),
            lingering: Mutex::default(),
            lanes: Arc::default(),
            connections: AtomicUsize::new(0),
            used: Mutex::default(),
            stopping: AtomicBool::new(false),
            port,
        })
    }

    pub fn add_desk(&self) -> Arc<Desk> {
        let desk = Arc::new(Desk::default());
        self.desks.lock().push(Arc::clone(&desk));
        desk
    }

    pub fn remove_desk(&self, desk: &Arc<Desk>) {
        self.desks.lock().retain(|other| !Arc::ptr_eq(other, desk));
    }

    /// A job has begun. Costs a system call only when the thread sleeps for long.
    pub fn rouse(&self) {
        // In one order with the thread, which says that it rests before it looks at the count.
        self.begun.fetch_add(1, Ordering::SeqCst);
        if self.resting.load(Ordering::SeqCst) && self.resting.swap(false, Ordering::AcqRel) {
            self.bell.ring();
        }
    }

    /// A job is over.
    pub fn note_end(&self, job: &Job) {
        if job.peer.is_none() {
            let mut used = self.used.lock();
            *used += job.settle_used();
        }
    }

    /// Bytes of all requests on a unix socket. Each is counted once, also if it ends just now.
    fn used(&self, jobs: &[Arc<Job>]) -> u64 {
        let used = self.used.lock();
        *used + jobs.iter().map(|job| job.used()).sum::<u64>()
    }

    /// So many bytes of a connection on a unix socket were of a request.
    pub fn note_used(&self, count: u64) {
        *self.used.lock() += count;
    }

    /// Ends the thread.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.bell.ring();
    }

    /// Requests in the works.
    pub fn jobs(&self) -> Vec<Arc<Job>> {
        self.desks
            .lock()
            .iter()
            .filter_map(|desk| desk.job())
            .collect()
    }

    /// Connections that were open on the last round.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub fn find(&self, peer: SocketAddr) -> Option<Caller> {
        sockets::caller(self.port, peer)
    }

    /// Counts a request in on its connection, until its answer is about to be out. `None` if too
    /// many have come there without waiting, or if it was told to go; nothing on the connection goes
    /// on then.
    pub fn enter_lane(&self, peer: SocketAddr, begun: Begun) -> Option<Place> {
        let peer = canonical(peer);
        let mut entered = self.lanes.enter(peer, begun);
        if let Err(TooMany::Barred(refused)) = entered
            && let Some(caller) = self.find(peer)
            && caller.number() != Some(refused)
        {
            // A port that is used again.
            self.lanes.unbar(peer);
            entered = self.lanes.enter(peer, begun);
        }
        // Once is enough: the search among the descriptors costs more than the request did.
        if matches!(entered, Err(TooMany::Now))
            && let Some(caller) = self.find(peer)
        {
            debug!("connection from {peer} closed: too many requests at once");
            caller.reset();
        }
        entered.ok()
    }

    /// A body in chunks has come to its end: what has come until now was it.
    pub fn chunks_are_over(&self, peer: SocketAddr) {
        self.lanes.mark_unsure(canonical(peer));
    }

    /// The connection from `peer` will be closed: nothing that follows on it is a request.
    pub fn bar(&self, peer: SocketAddr, caller: &Caller) {
        if let Some(number) = caller.number() {
            self.lanes
                .bar(canonical(peer), number, clock::now() + BARRED_MS);
        }
    }

    /// Waits until the answers to earlier requests of the same connection are out, for something
    /// that goes out beside the HTTP server, which puts them in order. False if that cannot be told:
    /// of two requests that came together, workers may have begun with either, and the other one may
    /// wait for this one. What asks no upstream is done in no time, so it does; of a chat nobody
    /// knows, and no answer must get into another one.
    pub fn wait_for_turn(&self, own: &Arc<Held>) -> bool {
        let begun = clock::now();
        loop {
            // First of all, for those whose worker has not yet said that it is at work.
            thread::sleep(TURN_LOOK);
            let jobs = self.jobs();
            let Some(own) = jobs.iter().find(|job| Arc::ptr_eq(&job.held, own)) else {
                return true;
            };
            let together = |job: &Job| job.began + TOGETHER_MS >= own.began;
            let mut others: Vec<_> = jobs
                .iter()
                .filter(|job| job.peer == own.peer && !Arc::ptr_eq(job, own))
                .filter(|job| job.began <= own.began + TOGETHER_MS)
                .collect();
            if others.is_empty() {
                return true;
            }
            if clock::now() - begun >= TURN_MS {
                others.retain(|job| job.is_chat.load(Ordering::Relaxed));
                if others.iter().all(|job| together(job)) {
                    return others.is_empty();
                }
            }
        }
    }

    /// Closes the connection from `peer`, soon: what was written to it can still be read.
    pub fn close_soon(&self, peer: SocketAddr) {
        if let Some(caller) = self.find(peer) {
            self.bar(peer, &caller);
            self.let_linger(caller, None);
        }
    }

    /// Closes a connection on which everything has been answered.
    pub fn close_gently(&self, caller: Caller) {
        self.let_linger(caller, None);
    }

    /// The same for a connection whose request must not be dropped while bytes may come: the HTTP
    /// server would read on.
    pub fn close_unread(&self, caller: Caller, request: Unread) {
        self.let_linger(caller, Some(request));
    }

    fn let_linger(&self, caller: Caller, request: Option<Unread>) {
        caller.shut_write();
        let lingerer = Lingerer {
            caller,
            until: clock::now() + LINGER_MS,
            request,
            sends: false,
        };
        let mut lingering = self.lingering.lock();
        if lingering.len() >= LINGERERS {
            drop(lingering);
            lingerer.close();
        } else {
            lingering.push(lingerer);
        }
    }

    /// Starts the thread.
    pub fn start(self: &Arc<Watch>, duties: Duties) -> std::io::Result<thread::JoinHandle<()>> {
        let watch = Arc::clone(self);
        thread::Builder::new()
            .name("timer".into())
            .stack_size(STACK)
            .spawn(move || {
                let mut round = Round::new(watch, duties);
                sockets::refill_reserve();
                while !round.watch.stopping.load(Ordering::Acquire) {
                    // Everybody's timers hang on this thread, so nothing may end it.
                    let done = catch_unwind(AssertUnwindSafe(|| round.go()));
                    if done.is_err() {
                        error!("the timer thread panicked and goes on");
                        thread::sleep(TICK);
                    }
                }
            })
    }
}

/// Room for a round and a log line.
const STACK: usize = 256 * 1024;

impl Lingerer {
    /// Whoever still sends is reset, or it could be stuck for minutes: the kernel tells nobody of the
    /// room that there is behind an end of reading, and answers the question for it as before.
    fn close(self) {
        match self.request {
            Some(request) => request.give_up(&self.caller),
            None if self.sends || self.caller.unread() > 0 => self.caller.reset(),
            None => self.caller.shut(),
        }
    }
}

/// The thread's own memory.
struct Round {
    watch: Arc<Watch>,
    duties: Duties,
    connections: Connections,
    locals: Locals,
    entries: Vec<libc::pollfd>,
    seen_begun: u64,
    /// When the listening queue was first seen with somebody in it.
    queue_since: Option<u64>,
    next_pass: u64,
    /// New connections come: until then they are looked at in short intervals.
    alert_until: u64,
    /// Beats given on the last look.
    beats: u32,
    thrift: Thrift,
}

impl Round {
    fn new(watch: Arc<Watch>, duties: Duties) -> Round {
        let connections = Connections::new(duties.max_connections, duties.head_wait);
        Round {
            watch,
            duties,
            connections,
            locals: Locals::default(),
            entries: Vec::new(),
            seen_begun: 0,
            queue_since: None,
            next_pass: 0,
            alert_until: 0,
            beats: 0,
            thrift: Thrift::default(),
        }
    }

    fn go(&mut self) {
        let now = clock::now();
        let jobs = self.watch.jobs();
        (self.duties.on_round)(Instant::now());
        self.look_at_connections(&jobs, now);
        let queued = waiting_behind(&jobs);
        for job in &jobs {
            self.look_after(job, queued.contains(&Arc::as_ptr(job)), now);
        }
        self.make_room(&jobs, now);
        self.close_lingerers(now);
        let queued = self.look_at_queue(now);
        if self
            .thrift
            .is_due(jobs.len(), pages::much_was_expected(), now)
        {
            pages::give_back_heap();
        }
        self.sleep(&jobs, queued);
    }

    /// Timers, heartbeats and slow readers of one job. Where its answer may have to wait for another
    /// one on the same connection, a write says nothing about the caller and would hold us up.
    fn look_after(&self, job: &Arc<Job>, behind: bool, now: u64) {
        job.pull_overdue(now);
        let caller = job.caller.lock().clone();
        if let Some(caller) = &caller {
            if job.look_only.load(Ordering::Relaxed) && caller.is_gone() {
                job.cancel.pull(Cause::CallerGone);
            }
            if job.body_late.load(Ordering::Relaxed) {
                caller.shut_read();
            }
        }
        let Some(stream) = job.stream().filter(|_| !behind) else {
            return;
        };
        if stream
            .blocked_for()
            .is_some_and(|time| time > clock::millis(self.duties.write_timeout))
        {
            debug!("a caller who does not read is cut");
            job.cancel.pull(Cause::CallerGone);
            match &caller {
                Some(caller) => caller.shut(),
                None => job.shut.store(true, Ordering::Relaxed),
            }
        }
        if !stream.is_quiet() {
            return;
        }
        match &caller {
            Some(caller) if caller.is_writable() => stream.beat(),
            Some(_) => {}
            // Nothing tells whether a write to a unix socket would block, so that it must not
            // happen here. One thread a heartbeat, for as long as the write takes.
            None if job.peer.is_none() && stream.blocked_for().is_some() => {}
            None if job.peer.is_none() => {
                let spawned = thread::Builder::new()
                    .stack_size(STACK)
                    .spawn(move || stream.beat());
                drop(spawned);
            }
            // Found on the next round.
            None => {}
        }
    }

    /// While no worker is free, ends what keeps one by not reading, or by sending requests behind one
    /// whose answer takes long. Those that ask an upstream have places of their own, so they can
    /// never keep all.
    fn make_room(&self, jobs: &[Arc<Job>], now: u64) {
        if jobs.len() < self.watch.desks.lock().len() {
            return;
        }
        let siblings = by_peer(jobs);
        let waits = |job: &&Arc<Job>| {
            !job.is_chat.load(Ordering::Relaxed) && now.saturating_sub(job.began) >= CROWDING_MS
        };
        for job in jobs.iter().filter(waits) {
            let Some(caller) = job.caller.lock().clone() else {
                continue;
            };
            let peer = canonical(caller.peer);
            let is_behind = siblings.get(&peer).is_some_and(|jobs| jobs.len() > 1);
            if is_behind || !caller.is_writable() {
                debug!("connection from {peer} closed: its requests keep all workers");
                caller.shut();
            }
        }
    }

    /// Goes over the open connections when it is time to.
    fn look_at_connections(&mut self, jobs: &[Arc<Job>], now: u64) {
        if self.watch.port == 0 {
            self.look_at_locals(now);
            return;
        }
        let wanted = jobs.iter().any(|job| job.wants_caller(now));
        if !(wanted || now >= self.next_pass) {
            return;
        }
        let callers = sockets::callers(self.watch.port);
        self.watch
            .connections
            .store(callers.found.len(), Ordering::Relaxed);
        let watch = &self.watch;
        let begun = |seen: &HashSet<_>| watch.lanes.begun(seen);
        let outcome = self
            .connections
            .look(callers, jobs, &begun, &|| watch.jobs(), now);
        sockets::refill_reserve();
        // Whoever waits to be accepted does so because many come, not because nobody is let in.
        if outcome.fresh > 0 {
            self.queue_since = None;
        }
        // Each beat moves one connection on, and silent ones may stand before the one that has
        // something to say.
        self.beats = match outcome.starving {
            true => (self.beats * 2).clamp(1, MOST_BEATS),
            false => 0,
        };
        if let Some(address) = self.local_address() {
            for _ in 0..self.beats {
                sockets::beat(address);
            }
        }
        self.next_pass = now + outcome.next_look;
        if now < self.alert_until {
            self.next_pass = self.next_pass.min(now + ALERT_LOOK_MS);
        }
    }

    /// The same for those on a unix socket.
    fn look_at_locals(&mut self, now: u64) {
        // What has begun may be the first of many.
        let begun = self.watch.begun.load(Ordering::Relaxed) != self.seen_begun;
        if now < self.next_pass && !begun {
            return;
        }
        let locals = sockets::unix::locals();
        let watch = &self.watch;
        watch.connections.store(locals.len(), Ordering::Relaxed);
        // Those at work now, not when the round began: what is taken in meanwhile may be theirs.
        let jobs = || watch.jobs();
        let used = |jobs: &[Arc<Job>]| watch.used(jobs);
        self.next_pass = now + self.locals.look(&locals, &jobs, &used);
    }

    fn local_address(&self) -> Option<SocketAddr> {
        self.duties.listener.as_ref()?.local_addr().ok()
    }

    fn close_lingerers(&self, now: u64) {
        self.watch.lanes.forget(now);
        let mut over = Vec::new();
        {
            let mut lingering = self.watch.lingering.lock();
            let share = DISCARDED / lingering.len().max(1);
            let mut at = 0;
            while at < lingering.len() {
                let lingerer = &mut lingering[at];
                lingerer.sends |= lingerer.caller.discard(share);
                if lingerer.until <= now || lingerer.caller.has_left() {
                    over.push(lingering.swap_remove(at));
                } else {
                    at += 1;
                }
            }
        }
        for lingerer in over {
            lingerer.close();
        }
    }

    /// True while connections wait to be accepted. The HTTP server's accept thread ends without a
    /// word when it panics; a queue that does not move is how one sees it.
    fn look_at_queue(&mut self, now: u64) -> bool {
        let Some(listener) = &self.duties.listener else {
            return false;
        };
        if ACCEPTOR_FELL.swap(false, Ordering::AcqRel) {
            self.queue_since = None;
            (self.duties.on_stuck)();
            return true;
        }
        if sockets::accept_queue(listener.as_fd()).unwrap_or(0) == 0 {
            self.queue_since = None;
            return false;
        }
        let since = *self.queue_since.get_or_insert(now);
        if now - since >= ACCEPT_MS {
            self.queue_since = None;
            (self.duties.on_stuck)();
        }
        true
    }

    fn sleep(&mut self, jobs: &[Arc<Job>], queued: bool) {
        let watch = Arc::clone(&self.watch);
        let begun = watch.begun.load(Ordering::Relaxed);
        let now = clock::now();
        let alert = now < self.alert_until;
        let active = begun != self.seen_begun || !jobs.is_empty() || queued || alert;
        self.seen_begun = begun;
        let lingering = !watch.lingering.lock().is_empty();
        let limit = if active || lingering {
            let due = jobs.iter().map(|job| job.due()).min().unwrap_or(u64::MAX);
            let tick = now + clock::millis(TICK);
            let until = due.min(tick).min(self.next_pass.max(now + 1));
            // Something that is overdue but cannot be done yet must not make a busy loop.
            Duration::from_millis(until.saturating_sub(now).max(5))
        } else {
            SLOW.min(Duration::from_millis(
                self.next_pass.saturating_sub(now).max(5),
            ))
        };
        if !active {
            watch.resting.store(true, Ordering::SeqCst);
            // A job that began just before would not have rung.
            if watch.begun.load(Ordering::SeqCst) != begun {
                watch.resting.store(false, Ordering::Release);
                return;
            }
        }
        let watched: Vec<(&Arc<Job>, Arc<Caller>)> = jobs
            .iter()
            .filter(|job| !job.is_gone() && !job.look_only.load(Ordering::Relaxed))
            .filter_map(|job| Some((job, job.caller.lock().clone()?)))
            .collect();
        // While the queue is not empty the listener would wake the poll at once.
        let listener = self.duties.listener.as_ref();
        let listener = listener.filter(|_| !queued && !alert);
        let arrived = sockets::wait(
            &watch.bell,
            listener.map(AsFd::as_fd),
            watched.iter().map(|(_, caller)| &**caller),
            &mut self.entries,
            Some(limit),
        );
        watch.resting.store(false, Ordering::Release);
        if arrived {
            self.alert_until = clock::now() + ALERT_MS;
            self.next_pass = 0;
        }
        for ((job, caller), entry) in watched.iter().zip(&self.entries) {
            if entry.revents == 0 {
                continue;
            }
            if caller.is_gone() {
                job.cancel.pull(Cause::CallerGone);
            } else {
                job.look_only.store(true, Ordering::Relaxed);
            }
        }
    }
}

/// Jobs whose answer may have to wait for another one's: the caller has sent several requests on
/// one connection without waiting, and this one's answer has not begun.
fn waiting_behind(jobs: &[Arc<Job>]) -> HashSet<*const Job> {
    by_peer(jobs)
        .into_values()
        .filter(|jobs| jobs.len() > 1)
        .flatten()
        .filter(|job| !job.stream().is_some_and(|stream| stream.has_turn()))
        .map(Arc::as_ptr)
        .collect()
}

/// Jobs by their caller's address: more than one where requests are sent without waiting.
fn by_peer(jobs: &[Arc<Job>]) -> HashMap<SocketAddr, Vec<&Arc<Job>>> {
    let mut by_peer: HashMap<_, Vec<_>> = HashMap::new();
    for job in jobs {
        if let Some(peer) = job.peer {
            by_peer.entry(canonical(peer)).or_default().push(job);
        }
    }
    by_peer
}
