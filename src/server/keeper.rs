//! `Keeper`: answers requests on the connections of HTTP servers that were given up.
//!
//! A server that is given up takes no more connections, but those it has still bring requests. One
//! thread looks after all such servers; there may be many after an hour without descriptors.

use std::mem;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use log::error;
use parking_lot::Mutex;
use tiny_http::{Request, Server};

use super::{Gateway, STACK, take};

/// An idle connection is closed before this is over, and so is one that does not come to the end of
/// a head.
const IDLE: Duration = Duration::from_secs(90);

/// How long workers have to move on to the next server before the keeper takes over.
const MOVE_ON: Duration = Duration::from_millis(500);

/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// Requests that are answered at once.
const AT_ONCE: usize = 64;

/// Servers that may still take connections. Only a machine that stood still for a second makes one.
const MOST_DOUBTFUL: usize = 16;

#[derive(Default)]
pub struct Keeper {
    kept: Mutex<Vec<Kept>>,
}

struct Kept {
    server: Arc<Server>,
    /// Wake-ups in its queue that are left for workers, at most.
    wake_ups: usize,
    since: Instant,
    /// Its connections have all ended by then, unless a request comes. `None`: it may still take
    /// connections, so there is no end.
    until: Option<Instant>,
}

/// What is known of a server that is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acceptor {
    /// It has ended.
    Ended,
    /// It did nothing for a while, and may go on after all.
    Doubtful,
}

impl Keeper {
    /// Takes a server over, in whose queue there are `wake_ups` for its workers.
    pub fn take_over(
        &self,
        server: Arc<Server>,
        acceptor: Acceptor,
        wake_ups: usize,
        gateway: &Arc<Gateway>,
    ) {
        let now = Instant::now();
        let until = match acceptor {
            Acceptor::Ended => Some(now + lifetime(gateway)),
            Acceptor::Doubtful => None,
        };
        let mut kept = self.kept.lock();
        let alone = kept.is_empty();
        kept.push(Kept {
            server,
            wake_ups,
            since: now,
            until,
        });
        let mut doubtful: Vec<_> = kept
            .iter_mut()
            .filter(|kept| kept.until.is_none())
            .collect();
        if doubtful.len() > MOST_DOUBTFUL {
            // Where nothing gets better for so long, the oldest one has ended indeed.
            doubtful[0].until = Some(now + lifetime(gateway));
        }
        if !alone {
            return;
        }
        drop(kept);
        let gateway = Arc::clone(gateway);
        let spawned = thread::Builder::new()
            .name("keeper".into())
            .stack_size(STACK)
            .spawn(move || gateway.door.keeper.run(&gateway));
        if let Err(error) = spawned {
            error!("no keeper for the old connections: {error}");
            // The next server that is given up tries again.
            self.kept.lock().drain(..).for_each(forget);
        }
    }

    fn run(&self, gateway: &Arc<Gateway>) {
        let busy = Arc::new(());
        loop {
            thread::sleep(LOOK);
            let mut requests = Vec::new();
            let over = {
                let mut kept = self.kept.lock();
                look(&mut kept, Instant::now(), lifetime(gateway), &mut requests);
                // Whoever finds the list empty starts the next keeper.
                kept.is_empty()
            };
            for request in requests {
                answer_apart(gateway, request, &busy);
            }
            if over {
                return;
            }
        }
    }
}

/// For so long after its end, a server's connections may bring a request: one may be busy with a
/// stream, and then idle.
fn lifetime(gateway: &Gateway) -> Duration {
    gateway.state().config.deadline + IDLE
}

/// Takes the requests that have come, and lets go of servers that bring no more.
fn look(kept: &mut Vec<Kept>, now: Instant, lifetime: Duration, requests: &mut Vec<Request>) {
    for one in kept.iter_mut().filter(|one| now >= one.since + MOVE_ON) {
        loop {
            match one.server.try_recv() {
                Ok(Some(request)) => {
                    one.until = one.until.map(|_| now + lifetime);
                    requests.push(request);
                }
                // What wakes it for nothing was left over for workers that were not there.
                Ok(None) if one.wake_ups > 0 => one.wake_ups -= 1,
                Ok(None) => break,
                // Why it was given up.
                Err(_) => {}
            }
        }
    }
    let over = |one: &mut Kept| one.until.is_some_and(|until| now >= until);
    kept.extract_if(.., over).for_each(forget);
}

/// Its end would take the file of a unix socket away, which the next server needs.
fn forget(kept: Kept) {
    mem::forget(kept.server);
}

/// Answers a request on a thread of its own, and closes its connection afterwards.
fn answer_apart(gateway: &Arc<Gateway>, request: Request, busy: &Arc<()>) {
    let peer = request.remote_addr().copied();
    let run = {
        let gateway = Arc::clone(gateway);
        let busy = Arc::clone(busy);
        move || {
            let desk = gateway.watch.add_desk();
            take(&gateway, request, &desk);
            gateway.watch.remove_desk(&desk);
            if let Some(peer) = peer {
                gateway.watch.close_soon(peer);
            }
            drop(busy);
        }
    };
    if Arc::strong_count(busy) > AT_ONCE {
        // Better late than unbounded.
        run();
        return;
    }
    let spawned = thread::Builder::new().stack_size(STACK).spawn(run);
    if let Err(error) = spawned {
        error!("a request on an old connection was lost: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::TcpStream;

    const LONG: Duration = Duration::from_secs(700);

    fn kept(until: Option<Instant>) -> Kept {
        let server = Server::http("127.0.0.1:0").unwrap();
        let wake_ups = 5;
        for _ in 0..wake_ups {
            server.unblock();
        }
        Kept {
            server: Arc::new(server),
            wake_ups,
            since: Instant::now(),
            until,
        }
    }

    fn connect(kept: &Kept) -> TcpStream {
        TcpStream::connect(kept.server.server_addr().to_ip().unwrap()).unwrap()
    }

    fn ask(connection: &mut TcpStream) {
        connection
            .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            .unwrap();
    }

    /// Looks until a request has come.
    fn found(all: &mut Vec<Kept>, now: Instant) -> Request {
        let mut requests = Vec::new();
        let until = Instant::now() + Duration::from_secs(10);
        while requests.is_empty() {
            assert!(Instant::now() < until);
            look(all, now, LONG, &mut requests);
        }
        requests.remove(0)
    }

    #[test]
    fn late_requests_are_found_behind_the_wake_ups_and_prolong_the_time() {
        let begin = Instant::now();
        let mut all = vec![kept(Some(begin + LONG))];
        let mut connection = connect(&all[0]);
        ask(&mut connection);
        // The workers come first.
        let mut requests = Vec::new();
        look(&mut all, begin, LONG, &mut requests);
        assert!(requests.is_empty() && all[0].wake_ups == 5);
        let late = begin + LONG - Duration::from_secs(1);
        drop(found(&mut all, late));
        assert_eq!(all[0].wake_ups, 0);
        look(&mut all, begin + LONG, LONG, &mut requests);
        assert_eq!(all.len(), 1);
        look(&mut all, late + LONG, LONG, &mut requests);
        assert!(all.is_empty());
    }

    #[test]
    fn a_server_that_may_still_accept_is_kept_for_good() {
        let begin = Instant::now();
        let mut all = vec![kept(None)];
        look(&mut all, begin + 100 * LONG, LONG, &mut Vec::new());
        // It does accept after all.
        let mut connection = connect(&all[0]);
        ask(&mut connection);
        drop(found(&mut all, begin + 200 * LONG));
        assert_eq!(all.len(), 1);
    }
}
