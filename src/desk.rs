//! `Desk` and `Job`: what each worker is working on, where the timer thread can see it.
//!
//! A worker puts a job on its desk when a request begins and a guard takes it off. The timer
//! thread goes round the desks; nothing is sent between the two, so a request that is over before
//! the next round costs two uncontended locks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::cancel::{Cancel, Cause};
use crate::clock;
use crate::inbound::room::Room;
use crate::json::shape::Shape;
use crate::stream::Stream;
use crate::sys::sockets::Caller;
use crate::watch::{Begun, Watch};

/// A moment that does not come.
const NEVER: u64 = u64::MAX;

/// Milliseconds after which a request's connection is looked for among the descriptors. The
/// search costs 35 to 75 us, so quick requests never pay for it; a hang-up must be seen within a
/// second.
const LOOK_AFTER: u64 = 150;

/// What a job is waiting for, as far as a timer of its own goes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nothing that has a timer.
    Plain,
    /// The caller's request body.
    Body,
    /// The upstream's first byte.
    FirstByte,
    /// The upstream's next byte.
    Between,
}

/// What a request holds until its last bytes are about to leave: a place among the running chats,
/// a place among those of its key. A caller who has read an answer to its end can ask again at
/// once, and must not be refused on account of the request before.
#[derive(Default)]
pub struct Held(Mutex<Vec<Box<dyn Send>>>);

impl Held {
    /// Keeps a guard. It is dropped by `release`, or with the job.
    pub fn keep(&self, guard: impl Send + 'static) {
        self.0.lock().push(Box::new(guard));
    }

    pub fn release(&self) {
        let guards = std::mem::take(&mut *self.0.lock());
        drop(guards);
    }
}

/// One request in the works.
pub struct Job {
    pub began: u64,
    /// `None` for a caller on a unix socket, whom nobody can watch.
    pub peer: Option<SocketAddr>,
    pub cancel: Arc<Cancel>,
    pub held: Arc<Held>,
    /// It is a chat, or something else that asks upstreams.
    pub is_chat: AtomicBool,
    /// `clock::now` when the whole request must be over.
    deadline: AtomicU64,
    /// The phase and when it must be over. The timer thread pulls under this lock, so that a
    /// phase that was left can no longer end the next one.
    phase: Mutex<(Phase, u64)>,
    stream: Mutex<Option<Arc<Stream>>>,
    /// Memory for the work on the body, until there is an answer.
    room: Mutex<Option<Room>>,
    /// The caller's connection, once the timer thread has found it.
    pub caller: Mutex<Option<Arc<Caller>>>,
    /// The caller's connection is closed on our side for reading, so a poll would always wake:
    /// it is looked at on every round instead.
    pub look_only: AtomicBool,
    /// The body did not come in time.
    pub body_late: AtomicBool,
    /// Its body comes in chunks and is not over.
    pub reads_chunks: AtomicBool,
    /// The caller's connection is to be closed as soon as it is found.
    pub shut: AtomicBool,
    /// Bytes of the connection that were this request's so far, in what is read of it.
    used: AtomicU64,
    /// And how many there are in all; `None` where nobody knew beforehand.
    whole: Option<u64>,
    /// They are counted elsewhere.
    settled: AtomicBool,
}

/// A body up to this length comes with the head.
const WITH_HEAD: u64 = 1024;

impl Job {
    pub fn new(peer: Option<SocketAddr>, deadline: Duration) -> Job {
        let began = clock::now();
        Job {
            began,
            peer,
            cancel: Arc::default(),
            held: Arc::default(),
            is_chat: AtomicBool::new(false),
            deadline: AtomicU64::new(began.saturating_add(clock::millis(deadline))),
            phase: Mutex::new((Phase::Plain, NEVER)),
            stream: Mutex::new(None),
            room: Mutex::new(None),
            caller: Mutex::new(None),
            look_only: AtomicBool::new(false),
            body_late: AtomicBool::new(false),
            reads_chunks: AtomicBool::new(false),
            shut: AtomicBool::new(false),
            used: AtomicU64::new(0),
            whole: None,
            settled: AtomicBool::new(false),
        }
    }

    /// Tells how many bytes the request is, and how many of them are its body.
    pub fn is_of(&mut self, begun: Begun, body: u64) {
        let with_head = if body <= WITH_HEAD { body } else { 0 };
        let used = match begun.unsure {
            true => begun.bytes,
            false => begun.bytes.saturating_sub(body) + with_head,
        };
        self.used = AtomicU64::new(used);
        self.whole = (!begun.unsure).then_some(begun.bytes);
    }

    /// `count` more bytes of the connection have become part of this request.
    pub fn use_up(&self, count: u64) {
        self.used.fetch_add(count, Ordering::Relaxed);
    }

    pub fn used(&self) -> u64 {
        if self.settled.load(Ordering::Relaxed) {
            return 0;
        }
        let used = self.used.load(Ordering::Relaxed);
        self.whole.map_or(used, |whole| used.min(whole))
    }

    /// The same when it is over, and what nobody read of it has been let go of. From then on it
    /// has none.
    pub fn settle_used(&self) -> u64 {
        let used = self.used();
        match self.settled.swap(true, Ordering::Relaxed) {
            true => 0,
            false => self.whole.unwrap_or(used),
        }
    }

    /// There is more of its body to be read.
    pub fn reads_body(&self) -> bool {
        let in_chunks = || self.reads_chunks.load(Ordering::Relaxed);
        self.whole
            .map_or_else(in_chunks, |whole| self.used() < whole)
    }

    /// Keeps, or gives back, the memory for the work on the body.
    pub fn set_room(&self, room: Option<Room>) {
        *self.room.lock() = room;
    }

    /// What the body holds, if that had to be counted for its memory.
    pub fn shape(&self) -> Option<Shape> {
        self.room.lock().as_ref().map(|room| room.shape)
    }

    /// Begins a phase that may last for `limit`.
    pub fn enter(&self, phase: Phase, limit: Duration) {
        let until = clock::now().saturating_add(clock::millis(limit));
        *self.phase.lock() = (phase, until);
    }

    /// The same phase goes on: its time begins anew.
    pub fn extend(&self, limit: Duration) {
        self.phase.lock().1 = clock::now().saturating_add(clock::millis(limit));
    }

    pub fn leave(&self) {
        *self.phase.lock() = (Phase::Plain, NEVER);
    }

    /// An attempt is over: no timer of it ends what follows, not even one that has just run out.
    pub fn settle(&self) {
        self.leave();
        self.cancel.forgive(Cause::FirstByte);
        self.cancel.forgive(Cause::Idle);
    }

    /// Ends what has taken too long at `now`. For the timer thread.
    pub fn pull_overdue(&self, now: u64) {
        if self.deadline() <= now {
            self.cancel.pull(Cause::Deadline);
        }
        let phase = self.phase.lock();
        if phase.1 > now {
            return;
        }
        match phase.0 {
            Phase::Plain => {}
            Phase::Body => self.body_late.store(true, Ordering::Relaxed),
            Phase::FirstByte => self.cancel.pull(Cause::FirstByte),
            Phase::Between => self.cancel.pull(Cause::Idle),
        }
    }

    /// The caller's connection has to be found soon.
    pub fn wants_caller(&self, now: u64) -> bool {
        let waits = self.shut.load(Ordering::Relaxed)
            || self.body_late.load(Ordering::Relaxed)
            || now.saturating_sub(self.began) >= LOOK_AFTER;
        waits && self.peer.is_some() && self.caller.lock().is_none()
    }

    pub fn deadline(&self) -> u64 {
        self.deadline.load(Ordering::Relaxed)
    }

    /// How much of the request's time is left.
    pub fn left(&self) -> Duration {
        Duration::from_millis(self.deadline().saturating_sub(clock::now()))
    }

    /// The next moment at which the timer thread has something to do here.
    pub fn due(&self) -> u64 {
        let quiet = self.stream().map_or(NEVER, |stream| stream.quiet_until());
        self.deadline().min(self.phase.lock().1).min(quiet)
    }

    pub fn set_stream(&self, stream: &Arc<Stream>) {
        *self.stream.lock() = Some(Arc::clone(stream));
    }

    pub fn stream(&self) -> Option<Arc<Stream>> {
        self.stream.lock().clone()
    }

    pub fn is_gone(&self) -> bool {
        self.cancel.cause() == Some(Cause::CallerGone)
    }
}

/// Where one worker keeps its job.
#[derive(Default)]
pub struct Desk {
    job: Mutex<Option<Arc<Job>>>,
}

impl Desk {
    pub fn job(&self) -> Option<Arc<Job>> {
        self.job.lock().clone()
    }
}

/// A job on a desk. Dropping it clears the desk.
pub struct AtWork<'a> {
    desk: &'a Desk,
    watch: &'a Watch,
    pub job: Arc<Job>,
}

impl<'a> AtWork<'a> {
    pub fn begin(desk: &'a Desk, watch: &'a Watch, job: Job) -> AtWork<'a> {
        let job = Arc::new(job);
        *desk.job.lock() = Some(Arc::clone(&job));
        watch.rouse();
        AtWork { desk, watch, job }
    }
}

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        // In this order, or the timer thread could see it in neither place.
        self.watch.note_end(&self.job);
        *self.desk.job.lock() = None;
    }
}

/// When a request began, for durations in logs and headers.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(pub Instant);

impl Stopwatch {
    pub fn start() -> Stopwatch {
        Stopwatch(Instant::now())
    }

    pub fn millis(self) -> f64 {
        self.0.elapsed().as_secs_f64() * 1e3
    }
}
