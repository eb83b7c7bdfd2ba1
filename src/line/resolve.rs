//! Names to addresses, remembered.
//!
//! The HTTP client asks for every request, also when a pooled connection is going to be used, so
//! the usual answer has to cost nothing: an answer counts as fresh for a minute, is served while it
//! is looked up anew for ten, and is still better than nothing while DNS fails. A look-up runs in a
//! thread of its own, one per name at a time, because nothing else can bound or end `getaddrinfo`.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::attempt::{Trouble, words};
use crate::cancel::{self, Wait};

/// Served without a thought.
const FRESH: Duration = Duration::from_secs(60);
/// Served while a look-up goes on beside it.
const USABLE: Duration = Duration::from_secs(600);
/// How long a request waits for a new answer while there is an old one.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between a failed look-up and the next one, while there is an old answer.
const PAUSE: Duration = Duration::from_secs(5);
/// Names come from the configuration; this bounds what a hundred reloads leave behind.
const MOST_NAMES: usize = 256;
/// `getaddrinfo` needs some 10 kB; glibc's NSS modules some more.
const STACK: usize = 256 * 1024;

type Ask = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

/// The memory of names, one for the process.
pub struct Names {
    entries: Mutex<Vec<Entry>>,
    /// Rung after each look-up.
    answered: Condvar,
    ask: Box<Ask>,
}

struct Entry {
    name: String,
    /// Never empty.
    addrs: Option<Arc<[IpAddr]>>,
    /// When `addrs` came.
    answered: Instant,
    /// A look-up is under way.
    asking: bool,
    /// Look-ups that ended, so that a waiter sees that one did.
    asked: u64,
    /// Why the last look-up failed, and when.
    failed: Option<(Instant, String)>,
    used: Instant,
}

/// A request that waits for a look-up.
struct Waiter {
    names: Arc<Names>,
    ended: AtomicBool,
}

impl Wait for Waiter {
    fn end(&self) {
        self.ended.store(true, Ordering::Release);
        // Between a waiter's look at `ended` and its sleep it holds this lock, so that the ring
        // cannot fall in between. Nobody holds it for long.
        drop(self.names.entries.lock());
        self.names.answered.notify_all();
    }
}

/// The names that every line of this process shares.
pub fn shared() -> Arc<Names> {
    static SHARED: LazyLock<Arc<Names>> = LazyLock::new(apart);
    Arc::clone(&SHARED)
}

/// A memory of its own.
pub fn apart() -> Arc<Names> {
    Names::new(|name| {
        let addrs = (name, 0).to_socket_addrs()?;
        Ok(addrs.map(|addr| addr.ip()).collect())
    })
}

impl Names {
    pub fn new(ask: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Names {
            entries: Mutex::new(Vec::new()),
            answered: Condvar::new(),
            ask: Box::new(ask),
        })
    }

    /// The addresses of `host`, which may be an address itself, with brackets or without.
    pub fn look_up(
        self: &Arc<Self>,
        host: &str,
        port: u16,
        by: Instant,
    ) -> Result<Vec<SocketAddr>, Trouble> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        let addrs = match self.remembered(host, Instant::now()) {
            Some(addrs) => addrs,
            None => self.asked(host, by)?,
        };
        Ok(addrs.iter().map(|ip| SocketAddr::new(*ip, port)).collect())
    }

    /// What can be used without waiting. Starts a look-up if the answer has aged.
    fn remembered(self: &Arc<Self>, name: &str, now: Instant) -> Option<Arc<[IpAddr]>> {
        let mut entries = self.entries.lock();
        let entry = entries.iter_mut().find(|entry| entry.name == name)?;
        entry.used = now;
        let addrs = entry.addrs.clone()?;
        let age = now.saturating_duration_since(entry.answered);
        if age < FRESH {
            return Some(addrs);
        }
        let pausing = entry
            .failed
            .as_ref()
            .is_some_and(|(when, _)| now.saturating_duration_since(*when) < PAUSE);
        if pausing {
            return Some(addrs);
        }
        if age < USABLE {
            self.start(entry);
            return Some(addrs);
        }
        None
    }

    /// Waits for a look-up, its own or one that is under way.
    fn asked(self: &Arc<Self>, name: &str, by: Instant) -> Result<Arc<[IpAddr]>, Trouble> {
        let waiter = Arc::new(Waiter {
            names: Arc::clone(self),
            ended: AtomicBool::new(false),
        });
        cancel::with_current(|cancel| cancel.hang_on(waiter.clone()));
        let mut entries = self.entries.lock();
        let now = Instant::now();
        let entry = find_or_add(&mut entries, name, now);
        // Somebody else's look-up may have been answered since this one was found to be needed.
        if let Some(addrs) = &entry.addrs
            && now.saturating_duration_since(entry.answered) < FRESH
        {
            return Ok(Arc::clone(addrs));
        }
        self.start(entry);
        let asked = entry.asked;
        let until = match entry.addrs {
            Some(_) => by.min(now + PATIENCE),
            None => by,
        };
        loop {
            if waiter.ended.load(Ordering::Acquire) {
                return Err(Trouble::ended());
            }
            let entry = find_or_add(&mut entries, name, now);
            if entry.asked != asked || !entry.asking {
                return match (&entry.addrs, &entry.failed) {
                    (Some(addrs), _) => Ok(Arc::clone(addrs)),
                    (None, Some((_, why))) => {
                        Err(Trouble::new(format!("cannot look up {name}: {why}")))
                    }
                    (None, None) => Err(Trouble::new(format!("cannot look up {name}"))),
                };
            }
            if Instant::now() >= until {
                let old = entry.addrs.clone();
                return old.ok_or_else(|| {
                    Trouble::timeout(format!("cannot look up {name}: no answer in time"))
                });
            }
            self.answered.wait_until(&mut entries, until);
        }
    }

    /// Begins a look-up, unless one is under way.
    fn start(self: &Arc<Self>, entry: &mut Entry) {
        if entry.asking {
            return;
        }
        entry.asking = true;
        let names = Arc::clone(self);
        let name = entry.name.clone();
        let spawned = thread::Builder::new()
            .name("look-up".into())
            .stack_size(STACK)
            .spawn(move || {
                let answer = (names.ask)(&name);
                names.learn(&name, answer);
            });
        if let Err(error) = spawned {
            settle(entry, Err(error));
        }
    }

    fn learn(&self, name: &str, answer: io::Result<Vec<IpAddr>>) {
        let mut entries = self.entries.lock();
        if let Some(entry) = entries.iter_mut().find(|entry| entry.name == name) {
            settle(entry, answer);
        }
        drop(entries);
        self.answered.notify_all();
    }
}

fn settle(entry: &mut Entry, answer: io::Result<Vec<IpAddr>>) {
    let now = Instant::now();
    entry.asking = false;
    entry.asked += 1;
    match answer {
        Ok(addrs) if !addrs.is_empty() => {
            // `getaddrinfo` may give an address several times.
            let mut seen: Vec<IpAddr> = Vec::with_capacity(addrs.len());
            for addr in addrs {
                if !seen.contains(&addr) {
                    seen.push(addr);
                }
            }
            entry.addrs = Some(seen.into());
            entry.answered = now;
            entry.failed = None;
        }
        Ok(_) => entry.failed = Some((now, "the name has no address".into())),
        Err(error) => {
            let why = words(&error);
            log::debug!("look-up of {} failed: {why}", entry.name);
            entry.failed = Some((now, why));
        }
    }
}

fn find_or_add<'a>(entries: &'a mut Vec<Entry>, name: &str, now: Instant) -> &'a mut Entry {
    let index = match entries.iter().position(|entry| entry.name == name) {
        Some(index) => index,
        None => {
            if entries.len() >= MOST_NAMES {
                let oldest = (0..entries.len()).min_by_key(|index| entries[*index].used);
                entries.swap_remove(oldest.expect("MOST_NAMES is not zero"));
            }
            entries.push(Entry {
                name: name.to_string(),
                addrs: None,
                answered: now,
                asking: false,
                asked: 0,
                failed: None,
                used: now,
            });
            entries.len() - 1
        }
    };
    &mut entries[index]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cancel::{Cancel, Cause};
    use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const TWO: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    type Script = Sender<io::Result<Vec<IpAddr>>>;

    /// Answers come from the test, one per look-up; each look-up is told.
    fn scripted() -> (Arc<Names>, Script, Receiver<()>) {
        let (answers, script) = unbounded();
        let (tell, told) = unbounded();
        let names = Names::new(move |_| {
            let _ = tell.send(());
            script
                .recv_timeout(Duration::from_secs(10))
                .unwrap_or_else(|_| Err(io::Error::other("no answer in the script")))
        });
        (names, answers, told)
    }

    fn age(names: &Names, by: Duration) {
        for entry in names.entries.lock().iter_mut() {
            entry.answered -= by;
            entry.failed = None;
        }
    }

    fn ips(addrs: Vec<SocketAddr>) -> Vec<IpAddr> {
        addrs.iter().map(SocketAddr::ip).collect()
    }

    /// Waits until no look-up is under way.
    fn settled(names: &Names) {
        let mut entries = names.entries.lock();
        while entries.iter().any(|entry| entry.asking) {
            assert!(!names.answered.wait_until(&mut entries, soon()).timed_out());
        }
    }

    #[test]
    fn an_address_needs_no_look_up() {
        let names = Names::new(|_| panic!("asked for an address"));
        let v6 = names.look_up("[::1]", 443, soon()).unwrap();
        assert_eq!(v6, ["[::1]:443".parse().unwrap()]);
        let v4 = names.look_up("127.0.0.1", 80, soon()).unwrap();
        assert_eq!(v4, ["127.0.0.1:80".parse().unwrap()]);
    }

    #[test]
    fn an_answer_is_kept_then_renewed_beside_and_survives_failing_dns() {
        let (names, answers, told) = scripted();
        answers.send(Ok(vec![ONE, ONE])).unwrap();
        assert_eq!(ips(names.look_up("a", 1, soon()).unwrap()), [ONE]);
        assert_eq!(ips(names.look_up("a", 2, soon()).unwrap()), [ONE]);
        assert_eq!(told.try_iter().count(), 1);

        // Older than a minute: the old answer at once, and the new one for the next request.
        age(&names, FRESH);
        assert_eq!(ips(names.look_up("a", 1, soon()).unwrap()), [ONE]);
        assert_eq!(ips(names.look_up("a", 1, soon()).unwrap()), [ONE]);
        answers.send(Ok(vec![TWO])).unwrap();
        settled(&names);
        assert_eq!(ips(names.look_up("a", 1, soon()).unwrap()), [TWO]);
        assert_eq!(told.try_iter().count(), 1);

        // Older than ten: waited for, and when it fails the old one is used and DNS left alone.
        age(&names, USABLE);
        answers.send(Err(io::Error::other("servfail"))).unwrap();
        assert_eq!(ips(names.look_up("a", 1, soon()).unwrap()), [TWO]);
        assert_eq!(ips(names.look_up("a", 1, soon()).unwrap()), [TWO]);
        assert_eq!(told.try_iter().count(), 1);
    }

    #[test]
    fn a_failure_is_told_and_asked_again() {
        let (names, answers, _told) = scripted();
        answers.send(Err(io::Error::other("no such name"))).unwrap();
        let trouble = names.look_up("a", 1, soon()).unwrap_err();
        assert_eq!(trouble.text, "cannot look up a: no such name");
        answers.send(Ok(vec![])).unwrap();
        let trouble = names.look_up("a", 1, soon()).unwrap_err();
        assert_eq!(trouble.text, "cannot look up a: the name has no address");
        answers.send(Ok(vec![ONE])).unwrap();
        assert_eq!(ips(names.look_up("a", 1, soon()).unwrap()), [ONE]);
    }

    #[test]
    fn waiting_has_a_limit_and_ends_with_the_cancel() {
        let (names, _answers, told) = scripted();
        let by = Instant::now() + Duration::from_millis(30);
        let trouble = names.look_up("a", 1, by).unwrap_err();
        assert!(trouble.timeout);

        let cancel = Arc::new(Cancel::default());
        let (puller, waiting) = (Arc::clone(&cancel), told);
        waiting.recv_timeout(Duration::from_secs(10)).unwrap();
        let pulling = thread::spawn(move || {
            waiting.recv_timeout(Duration::from_secs(10)).unwrap();
            puller.pull(Cause::CallerGone);
        });
        let _entered = cancel::enter(&cancel);
        let started = Instant::now();
        let trouble = names.look_up("b", 1, soon()).unwrap_err();
        assert_eq!(trouble.text, Trouble::ended().text);
        assert!(started.elapsed() < Duration::from_secs(5));
        pulling.join().unwrap();
    }

    #[test]
    fn many_requests_make_one_look_up() {
        let (names, answers, told) = scripted();
        let (done, results) = bounded(8);
        for _ in 0..8 {
            let (names, done) = (Arc::clone(&names), done.clone());
            thread::spawn(move || done.send(names.look_up("a", 1, soon()).map(ips)));
        }
        told.recv_timeout(Duration::from_secs(10)).unwrap();
        answers.send(Ok(vec![ONE])).unwrap();
        for _ in 0..8 {
            let result = results.recv_timeout(Duration::from_secs(10)).unwrap();
            assert_eq!(result.unwrap(), [ONE]);
        }
        assert_eq!(told.try_iter().count(), 0);
    }

    /// Between the look at the memory and the wait for a look-up another one may have ended.
    #[test]
    fn who_comes_just_after_an_answer_does_not_ask_again() {
        let (names, answers, told) = scripted();
        answers.send(Ok(vec![ONE])).unwrap();
        names.look_up("a", 1, soon()).unwrap();
        assert_eq!(told.try_iter().count(), 1);
        assert_eq!(*names.asked("a", soon()).unwrap(), [ONE]);
        assert_eq!(told.try_iter().count(), 0);
    }

    #[test]
    fn the_memory_is_bounded() {
        let names = Names::new(|_| Ok(vec![ONE]));
        for number in 0..MOST_NAMES + 10 {
            names.look_up(&format!("n{number}"), 1, soon()).unwrap();
        }
        assert_eq!(names.entries.lock().len(), MOST_NAMES);
    }
}
