//! `Unread`: a request whose body nobody reads, until its connection is closed.

use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use log::warn;
use tiny_http::Request;

use super::framing;
use crate::sys::reader;
use crate::sys::sockets::Caller;

/// A body up to this length can be drained into memory that the kernel only promises, once its
/// connection has ended and nothing more comes.
pub(super) const PROMISED: usize = 256 * 1024 * 1024;

/// Requests whose memory was given up: see `Unread::forget`.
static LEAKED: AtomicU64 = AtomicU64::new(0);

pub fn leaked() -> u64 {
    LEAKED.load(Ordering::Relaxed)
}

/// A request that was refused before its body was read, until its connection is closed.
pub struct Unread {
    pub(super) request: Request,
    /// Nothing of its body was read.
    pub(super) whole: bool,
    /// The server has not yet told the caller to go on.
    pub(super) waits: bool,
    /// Its length is within the limit, and what is left of it can be drained.
    pub(super) bounded: bool,
}

impl Unread {
    /// A request that nothing was done with.
    pub fn new(request: Request) -> Unread {
        Unread {
            whole: true,
            waits: framing::header(&request, "expect").is_some(),
            bounded: false,
            request,
        }
    }

    /// Ends the connection and what the request holds of it.
    pub fn give_up(self, caller: &Caller) {
        caller.reset();
        self.let_go();
    }

    /// Lets go of a request whose connection has ended.
    pub fn let_go(self) {
        // Of a request that offers an upgrade nothing is drained, whatever its length.
        if self.bounded
            || framing::is_last(&self.request)
            || can_be_drained(self.request.body_length().unwrap_or(0))
        {
            // Nothing can be read from it any more, so the drain is over at once.
            drop(self.request.into_writer());
        } else if self.waits {
            // The server tells it to go on, if only in vain, and that has to wait for the answers
            // to earlier requests. They end soon, but the timer thread must not wait for them.
            let kept = mem::ManuallyDrop::new(self);
            let forget = move || mem::ManuallyDrop::into_inner(kept).forget();
            let spawned = thread::Builder::new().stack_size(Self::STACK).spawn(forget);
            if spawned.is_err() {
                count_leak();
            }
        } else {
            self.forget();
        }
    }

    /// Room for a system call and a log line.
    const STACK: usize = 128 * 1024;

    /// Lets go of a request that must not be drained as it is: that would take memory for its
    /// declared length.
    fn forget(mut self) {
        let declared = self.request.body_length().unwrap_or(0);
        if self.whole
            && can_be_drained(PROMISED)
            && reader::shorten(&mut self.request, declared, PROMISED)
        {
            drop(self.request.into_writer());
        } else {
            leak(self.request);
        }
    }
}

pub(super) fn can_be_drained(length: usize) -> bool {
    length <= PROMISED && Vec::<u8>::new().try_reserve_exact(length).is_ok()
}

pub(super) fn leak<T>(what: T) {
    mem::forget(what);
    count_leak();
}

fn count_leak() {
    let count = LEAKED.fetch_add(1, Ordering::Relaxed) + 1;
    warn!("a request with an absurd length costs a thread for good ({count} so far)");
}
