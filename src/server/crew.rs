//! `Crew`: which workers stand at the HTTP server's queue, and which sleep until there are too few.
//!
//! The queue wakes those who wait in turn, so that with 68 waiting each request runs on the thread
//! whose stack and memory have been cold for the longest time. So only `FRONT` wait there; the
//! others sleep on a stack and the last one to lie down is woken first.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use parking_lot::Mutex;

use crate::sys::pages;

/// Workers at the queue while nothing is to be done. One takes the request, and one is left so
/// that nobody has to be woken for the next: a wake-up costs more than the rest of the hand-over.
const FRONT: usize = 2;

/// Who sleeps for so long is not needed soon, and gives its stack back.
const COLD: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub struct Crew {
    /// Workers at the queue.
    waiting: AtomicUsize,
    asleep: Mutex<Vec<Thread>>,
}

impl Crew {
    /// Waits at the queue by way of `receive`, and sees to it that somebody is left there.
    pub fn stand<T>(&self, receive: impl FnOnce() -> T) -> T {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let received = receive();
        if self.waiting.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.wake_one();
        }
        received
    }

    /// Sleeps while there are enough at the queue.
    pub fn rest(&self) {
        if self.waiting.load(Ordering::SeqCst) < FRONT {
            return;
        }
        {
            let mut asleep = self.asleep.lock();
            // Whoever leaves the queue counts itself off first and looks for sleepers second. So
            // either its leaving is seen here, or we are seen there.
            if self.waiting.load(Ordering::SeqCst) < FRONT {
                return;
            }
            asleep.push(thread::current());
        }
        // A wake-up for another reason only means that one more stands at the queue.
        thread::park_timeout(COLD);
        let me = thread::current().id();
        if self.asleep.lock().iter().any(|sleeper| sleeper.id() == me) {
            pages::give_back_stack();
            thread::park();
        }
        self.asleep.lock().retain(|sleeper| sleeper.id() != me);
    }

    /// Everybody goes to the queue, for a moment: it may be another one now.
    pub fn wake_all(&self) {
        for sleeper in self.asleep.lock().drain(..) {
            sleeper.unpark();
        }
    }

    fn wake_one(&self) {
        if let Some(sleeper) = self.asleep.lock().pop() {
            sleeper.unpark();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::{bounded, unbounded};
    use std::collections::HashSet;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    const LONG: Duration = Duration::from_secs(20);

    /// Workers that answer each job with their thread's id once the job says go.
    fn crew(workers: usize) -> (crossbeam_channel::Sender<Job>, Arc<Crew>) {
        let crew = Arc::new(Crew::default());
        let (give, take) = unbounded::<Job>();
        for _ in 0..workers {
            let (crew, take) = (Arc::clone(&crew), take.clone());
            thread::spawn(move || {
                crew.rest();
                loop {
                    let Ok(job) = crew.stand(|| take.recv()) else {
                        crew.wake_all();
                        return;
                    };
                    let _ = job.begun.send(thread::current().id());
                    let _ = job.go.recv_timeout(LONG);
                    crew.rest();
                }
            });
        }
        (give, crew)
    }

    struct Job {
        begun: crossbeam_channel::Sender<thread::ThreadId>,
        go: crossbeam_channel::Receiver<()>,
    }

    #[test]
    fn as_many_work_at_once_as_there_are() {
        let (give, _crew) = crew(20);
        for _round in 0..50 {
            let (begun, ids) = unbounded();
            let (go, gate) = bounded::<()>(0);
            for _ in 0..20 {
                let job = Job {
                    begun: begun.clone(),
                    go: gate.clone(),
                };
                give.send(job).unwrap();
            }
            let ids: HashSet<_> = (0..20).map(|_| ids.recv_timeout(LONG).unwrap()).collect();
            assert_eq!(ids.len(), 20);
            drop(go);
        }
    }

    #[test]
    fn all_but_a_few_sleep_while_there_is_nothing_to_do() {
        let (give, crew) = crew(20);
        for round in 0..20 {
            let until = Instant::now() + LONG;
            let mut next = Instant::now() + Duration::from_millis(100);
            while crew.asleep.lock().len() != 20 - FRONT {
                assert!(Instant::now() < until, "round {round}");
                if Instant::now() > next {
                    // Two who looked at the same moment both went to the queue. One too many there
                    // costs nothing, and lies down after its next job.
                    let (begun, go) = (unbounded().0, bounded::<()>(0).1);
                    give.send(Job { begun, go }).unwrap();
                    next += Duration::from_millis(100);
                }
                thread::yield_now();
            }
            // Everybody is woken by and by, and lies down again.
            let (begun, ids) = unbounded();
            let (go, gate) = bounded::<()>(0);
            for _ in 0..20 {
                let job = Job {
                    begun: begun.clone(),
                    go: gate.clone(),
                };
                give.send(job).unwrap();
            }
            for _ in 0..20 {
                ids.recv_timeout(LONG).unwrap();
            }
            drop(go);
        }
    }
}
