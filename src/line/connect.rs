//! From addresses to a connected socket, within a limit and ended by `Cancel`.
//!
//! Addresses of both families race: the first one starts at once, the next after 250 ms or as soon
//! as the one before has failed, so that a family that leads nowhere costs a quarter of a second.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::attempt::{Trouble, words};
use crate::cancel::{self, Wait};
use crate::sys::connect::{For, start_connect, wait};

/// The head start of each address; RFC 8305 recommends this.
const HEAD_START: Duration = Duration::from_millis(250);

/// A socket that another thread may end. The end is remembered, because after it a read gives the
/// same zero as an upstream that is done.
#[derive(Debug)]
pub struct Socket {
    pub stream: TcpStream,
    ended: AtomicBool,
}

impl Socket {
    pub fn new(stream: TcpStream) -> Arc<Socket> {
        Arc::new(Socket {
            stream,
            ended: AtomicBool::new(false),
        })
    }

    pub fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Blocks until there is something. Zero is the upstream's end, never ours.
    pub fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.is_ended() {
                return Err(Trouble::ended().into());
            }
            match (&self.stream).read(buf) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ if self.is_ended() => return Err(Trouble::ended().into()),
                result => return result,
            }
        }
    }
}

impl Wait for Socket {
    fn end(&self) {
        self.ended.store(true, Ordering::Release);
        // Fails only when the socket is already closed, which is what was wanted. One that is
        // still connecting gives up and wakes its `poll`.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// Reads and writes with one limit for all of them: a handshake that trickles cannot stretch it.
pub struct Timed<'a> {
    pub socket: &'a Socket,
    pub by: Instant,
}

impl Read for Timed<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let left = self.by.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let ready = wait([&self.socket.stream].into_iter(), For::Reading, left)?;
            if ready == [true] {
                return self.socket.read(buf);
            }
        }
    }
}

impl Write for Timed<'_> {
    /// The few hundred bytes before a request always fit into a new socket's buffer.
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        (&self.socket.stream).write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The sockets of a race, ended together.
#[derive(Default)]
struct Race {
    ended: AtomicBool,
    running: Mutex<Vec<Arc<Socket>>>,
}

impl Wait for Race {
    fn end(&self) {
        self.ended.store(true, Ordering::Release);
        for socket in self.running.lock().iter() {
            socket.end();
        }
    }
}

/// The first of the addresses that answers. `name` is for people.
pub fn race(name: &str, addrs: &[SocketAddr], by: Instant) -> Result<Arc<Socket>, Trouble> {
    let race = Arc::new(Race::default());
    cancel::with_current(|cancel| cancel.hang_on(race.clone()));
    let result = run(&race, name, addrs, by);
    // The cancel may hold the race for a while yet; the losers close now.
    race.running.lock().clear();
    let socket = result?;
    let finish = || {
        socket.stream.set_nonblocking(false)?;
        socket.stream.set_nodelay(true)
    };
    finish().map_err(|error: io::Error| broken(name, None, &words(&error)))?;
    Ok(socket)
}

fn run(race: &Race, name: &str, addrs: &[SocketAddr], by: Instant) -> Result<Arc<Socket>, Trouble> {
    let mut waiting = alternate(addrs);
    let mut running: Vec<(SocketAddr, Arc<Socket>)> = Vec::new();
    let mut last = None;
    let mut next_start = Instant::now();
    loop {
        if race.ended.load(Ordering::Acquire) {
            return Err(Trouble::ended());
        }
        let now = Instant::now();
        if now >= by {
            let text = format!("cannot connect to {name}: no answer in time");
            return Err(Trouble::timeout(text));
        }
        while running.is_empty() || now >= next_start {
            let Some(addr) = waiting.pop_front() else {
                break;
            };
            match start_connect(addr) {
                Ok(stream) => {
                    let socket = Socket::new(stream);
                    race.running.lock().push(Arc::clone(&socket));
                    running.push((addr, socket));
                    next_start = now + HEAD_START;
                }
                Err(error) => last = Some((addr, error)),
            }
        }
        // Asked again: an end that came before the socket was on the list did not reach it.
        if race.ended.load(Ordering::Acquire) {
            return Err(Trouble::ended());
        }
        if running.is_empty() {
            let (addr, why) = match &last {
                Some((addr, error)) => (Some(*addr), words(error)),
                None => (None, "the name has no address".into()),
            };
            return Err(broken(name, addr, &why));
        }
        let until = match waiting.is_empty() {
            true => by,
            false => by.min(next_start),
        };
        let streams = running.iter().map(|(_, socket)| &socket.stream);
        let ready = wait(streams, For::Writing, until.saturating_duration_since(now))
            .map_err(|error| broken(name, None, &words(&error)))?;
        for index in (0..ready.len()).rev().filter(|index| ready[*index]) {
            let (addr, socket) = running.remove(index);
            match socket.stream.take_error() {
                // Shut down while connecting is writable too, and has no error.
                Ok(None) if race.ended.load(Ordering::Acquire) => return Err(Trouble::ended()),
                Ok(None) => return Ok(socket),
                Ok(Some(error)) | Err(error) => {
                    race.running
                        .lock()
                        .retain(|other| !Arc::ptr_eq(other, &socket));
                    last = Some((addr, error));
                }
            }
        }
    }
}

fn broken(name: &str, addr: Option<SocketAddr>, why: &str) -> Trouble {
    match addr {
        Some(addr) => Trouble::new(format!("cannot connect to {name} ({addr}): {why}")),
        None => Trouble::new(format!("cannot connect to {name}: {why}")),
    }
}

/// The families take turns, beginning with the one the system prefers.
fn alternate(addrs: &[SocketAddr]) -> VecDeque<SocketAddr> {
    let first_is_v6 = addrs.first().is_some_and(SocketAddr::is_ipv6);
    let (mut one, mut other): (VecDeque<_>, VecDeque<_>) = addrs
        .iter()
        .copied()
        .partition(|addr| addr.is_ipv6() == first_is_v6);
    let mut all = VecDeque::with_capacity(addrs.len());
    while !one.is_empty() || !other.is_empty() {
        all.extend(one.pop_front());
        all.extend(other.pop_front());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cancel::{Cancel, Cause};
    use crate::sys::sockets::set_backlog;
    use std::net::TcpListener;
    use std::thread;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    /// A listener that takes no more connections: its queue is full, so the handshake hangs.
    fn full() -> (TcpListener, Vec<TcpStream>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        set_backlog(&listener, 0).unwrap();
        let addr = listener.local_addr().unwrap();
        let mut fill = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&addr, Duration::from_millis(200)) {
            fill.push(stream);
            assert!(fill.len() < 64, "the queue does not fill up");
        }
        (listener, fill)
    }

    #[test]
    fn a_connect_that_hangs_ends_with_its_cancel() {
        let (listener, _fill) = full();
        let addr = listener.local_addr().unwrap();
        let cancel = Arc::new(Cancel::default());
        let puller = Arc::clone(&cancel);
        let _entered = cancel::enter(&cancel);
        let pulling = thread::spawn(move || {
            thread::sleep(Duration::from_millis(50));
            puller.pull(Cause::CallerGone);
        });
        let started = Instant::now();
        let trouble = race("it", &[addr], soon()).unwrap_err();
        assert!(started.elapsed() < Duration::from_secs(2));
        assert_eq!(trouble.text, Trouble::ended().text);
        pulling.join().unwrap();
    }

    #[test]
    fn a_connect_that_hangs_ends_with_its_limit() {
        let (listener, _fill) = full();
        let addr = listener.local_addr().unwrap();
        let by = Instant::now() + Duration::from_millis(80);
        let trouble = race("it", &[addr], by).unwrap_err();
        assert!(trouble.timeout, "{trouble}");
        assert!(by.elapsed() < Duration::from_secs(2));
    }

    #[test]
    fn a_dead_address_costs_a_quarter_of_a_second() {
        let (dead, _fill) = full();
        let live = TcpListener::bind("127.0.0.1:0").unwrap();
        let addrs = [dead.local_addr().unwrap(), live.local_addr().unwrap()];
        let started = Instant::now();
        let socket = race("it", &addrs, soon()).unwrap();
        assert_eq!(socket.stream.peer_addr().unwrap(), addrs[1]);
        assert!(started.elapsed() >= HEAD_START);
        assert!(started.elapsed() < Duration::from_secs(2));
    }

    #[test]
    fn a_refusing_address_costs_nothing_and_the_last_reason_is_told() {
        let gone = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let live = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = race("it", &[gone, live.local_addr().unwrap()], soon()).unwrap();
        assert!(socket.stream.nodelay().unwrap());
        let trouble = race("it", &[gone], soon()).unwrap_err();
        let expected = format!("cannot connect to it ({gone}): connection refused");
        assert_eq!(trouble.text, expected);
        assert!(!trouble.timeout);
    }

    #[test]
    fn families_take_turns() {
        let addrs: Vec<SocketAddr> = ["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "1.1.1.2:1"]
            .map(|addr| addr.parse().unwrap())
            .into();
        let order: Vec<String> = alternate(&addrs).iter().map(ToString::to_string).collect();
        let expected = ["[::1]:1", "1.1.1.1:1", "[::2]:1", "1.1.1.2:1", "[::3]:1"];
        assert_eq!(order, expected);
    }
}
