//! `Cancel`: how one thread ends another one's wait, and why it did.
//!
//! Every exchange has one. The worker hangs on to it whatever it waits on (an upstream socket, a
//! place in the line for a lease); the timer thread, which sees hang-ups and deadlines, pulls it.
//! Knows nothing of HTTP.

use std::cell::RefCell;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::error::ApiError;

/// Why an exchange was ended from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Cause {
    /// The caller hung up.
    CallerGone = 1,
    /// The upstream's answer did not begin in time.
    FirstByte,
    /// The upstream fell silent in the middle of its answer.
    Idle,
    /// The whole request took too long.
    Deadline,
    /// weir is stopping and the drain time is over.
    Stopping,
}

impl Cause {
    fn from_u8(value: u8) -> Option<Cause> {
        const ALL: [Cause; 5] = [
            Cause::CallerGone,
            Cause::FirstByte,
            Cause::Idle,
            Cause::Deadline,
            Cause::Stopping,
        ];
        ALL.into_iter().find(|cause| *cause as u8 == value)
    }
}

/// Something a thread can be blocked on, which another thread can end.
pub trait Wait: Send + Sync {
    /// Ends the wait at once. May be called more than once, and after the wait is over. Must not
    /// block, nor call back into the `Cancel`, whose lock is held.
    fn end(&self);
}

impl Wait for TcpStream {
    fn end(&self) {
        // Fails only when the socket is already closed, which is what was wanted.
        let _ = self.shutdown(Shutdown::Both);
    }
}

#[derive(Default)]
struct Pause {
    ended: Mutex<bool>,
    changed: Condvar,
}

impl Wait for Pause {
    fn end(&self) {
        *self.ended.lock() = true;
        self.changed.notify_all();
    }
}

/// The handle of one exchange.
#[derive(Default)]
pub struct Cancel {
    /// 0, or a `Cause`.
    cause: AtomicU8,
    waiting_on: Mutex<Option<Arc<dyn Wait>>>,
}

impl Cancel {
    /// Ends the current wait and every later one. The first cause counts.
    pub fn pull(&self, cause: Cause) {
        let _ = self
            .cause
            .compare_exchange(0, cause as u8, Ordering::AcqRel, Ordering::Acquire);
        // Ended under the lock: once `let_go` is back, nobody can end that wait any more, and a
        // connection that went back to its pool cannot be cut by an exchange of the past.
        if let Some(wait) = &*self.waiting_on.lock() {
            wait.end();
        }
    }

    pub fn cause(&self) -> Option<Cause> {
        Cause::from_u8(self.cause.load(Ordering::Acquire))
    }

    /// Forgets a timer that ended one attempt, so that the next attempt can wait again. A caller
    /// who left stays gone.
    pub fn forgive(&self, cause: Cause) {
        let _ = self
            .cause
            .compare_exchange(cause as u8, 0, Ordering::AcqRel, Ordering::Acquire);
    }

    /// From here on, `wait` is what `pull` ends. Ended at once if the pull came first.
    pub fn hang_on(&self, wait: Arc<dyn Wait>) {
        let mut waiting_on = self.waiting_on.lock();
        if self.cause().is_some() {
            wait.end();
        }
        *waiting_on = Some(wait);
    }

    /// Waits for `limit` without anything to wait for. False if it was ended.
    pub fn pause(&self, limit: Duration) -> bool {
        let pause = Arc::new(Pause::default());
        self.hang_on(pause.clone());
        let until = Instant::now() + limit;
        let mut ended = pause.ended.lock();
        while !*ended && !pause.changed.wait_until(&mut ended, until).timed_out() {}
        drop(ended);
        self.let_go();
        self.cause().is_none()
    }

    /// Nothing is waited on any more.
    pub fn let_go(&self) {
        *self.waiting_on.lock() = None;
    }

    /// `wait` is not waited on any more; another wait that has taken its place stays.
    pub fn let_go_of(&self, wait: &Arc<dyn Wait>) {
        let mut waiting_on = self.waiting_on.lock();
        if waiting_on.as_ref().is_some_and(|on| Arc::ptr_eq(on, wait)) {
            *waiting_on = None;
        }
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<Cancel>>> = const { RefCell::new(None) };
}

/// While it lives, this thread's waits belong to one exchange.
pub struct Entered(());

/// Makes `cancel` the one that `current` gives on this thread. The HTTP client calls our transport
/// without a way to hand something through, so the way leads past it.
pub fn enter(cancel: &Arc<Cancel>) -> Entered {
    CURRENT.with(|current| *current.borrow_mut() = Some(Arc::clone(cancel)));
    Entered(())
}

impl Drop for Entered {
    fn drop(&mut self) {
        let left = CURRENT.with(|current| current.borrow_mut().take());
        if let Some(cancel) = left {
            cancel.let_go();
        }
    }
}

/// Runs `f` with the exchange that this thread works for, if there is one.
pub fn with_current<T>(f: impl FnOnce(&Arc<Cancel>) -> T) -> Option<T> {
    CURRENT.with(|current| current.borrow().as_ref().map(f))
}

/// Runs `f`, which may be long and waits for nothing, with `cancel` as the one to look at.
pub fn working<T>(cancel: &Arc<Cancel>, f: impl FnOnce() -> T) -> T {
    let _entered = enter(cancel);
    f()
}

/// For encoders, between their steps: there is no answer to work for any more. What is told to
/// whoever still listens follows from the cause, not from this.
pub fn check() -> Result<(), ApiError> {
    match is_pulled() {
        true => Err(ApiError::new(503, "the request was ended")),
        false => Ok(()),
    }
}

/// The exchange that this thread works for has been ended, so that its work is for nobody. Asked
/// between the steps of work that may be long.
pub fn is_pulled() -> bool {
    with_current(|cancel| cancel.cause().is_some()) == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[derive(Default)]
    struct Counted(AtomicUsize);

    impl Wait for Counted {
        fn end(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_pull_before_or_after_ends_the_wait_and_the_first_cause_counts() {
        let cancel = Cancel::default();
        let wait = Arc::new(Counted::default());
        cancel.hang_on(wait.clone());
        assert_eq!(wait.0.load(Ordering::Relaxed), 0);
        cancel.pull(Cause::Idle);
        cancel.pull(Cause::CallerGone);
        assert_eq!(cancel.cause(), Some(Cause::Idle));
        let late = Arc::new(Counted::default());
        cancel.hang_on(late.clone());
        assert_eq!(late.0.load(Ordering::Relaxed), 1);
        cancel.forgive(Cause::CallerGone);
        assert_eq!(cancel.cause(), Some(Cause::Idle));
        cancel.forgive(Cause::Idle);
        assert_eq!(cancel.cause(), None);
    }

    #[test]
    fn a_pause_ends_by_itself_or_by_a_pull() {
        let cancel = Arc::new(Cancel::default());
        assert!(cancel.pause(Duration::from_millis(1)));
        let other = Arc::clone(&cancel);
        let pulling = std::thread::spawn(move || {
            while other.waiting_on.lock().is_none() {
                std::thread::yield_now();
            }
            other.pull(Cause::CallerGone);
        });
        assert!(!cancel.pause(Duration::from_secs(60)));
        pulling.join().unwrap();
        assert!(!cancel.pause(Duration::from_secs(60)));
    }

    #[test]
    fn letting_go_of_an_old_wait_keeps_the_new_one() {
        let cancel = Cancel::default();
        let old: Arc<dyn Wait> = Arc::new(Counted::default());
        let new = Arc::new(Counted::default());
        cancel.hang_on(Arc::clone(&old));
        cancel.hang_on(new.clone());
        cancel.let_go_of(&old);
        cancel.pull(Cause::Idle);
        assert_eq!(new.0.load(Ordering::Relaxed), 1);
        let new: Arc<dyn Wait> = new;
        cancel.let_go_of(&new);
        cancel.pull(Cause::Idle);
        assert_eq!(Arc::strong_count(&new), 1);
    }

    #[test]
    fn the_current_exchange_ends_with_its_guard() {
        let cancel = Arc::new(Cancel::default());
        {
            let _entered = enter(&cancel);
            assert!(with_current(|current| Arc::ptr_eq(current, &cancel)).unwrap());
        }
        assert!(with_current(|_| ()).is_none());
    }
}
