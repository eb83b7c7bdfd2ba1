//! A scripted upstream: it reads requests whole, remembers them, and answers as the test says.
//!
//! One thread accepts, one serves each connection. All of them end, and are waited for, when the
//! `Upstream` is dropped: every socket is shut down and every pause looks at the stop sign.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::wait::until;
use crate::wire::{self, Wire};

mod reply;
mod vendors;

pub use reply::{Reply, Step};
pub use vendors::{Format, Part, USAGE};

/// A request as the upstream got it.
#[derive(Debug, Clone)]
pub struct Received {
    /// Which connection brought it, counted from 0.
    pub connection: usize,
    pub method: String,
    /// With its query.
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The key, from whichever header carries it.
    pub key: Option<String>,
    /// When its last byte had been read.
    pub at: Instant,
    /// Its sender had left by then.
    pub abandoned: bool,
}

impl Received {
    pub fn header(&self, name: &str) -> Option<&str> {
        wire::find(&self.headers, name)
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the request's body is JSON")
    }

    pub fn wants_stream(&self) -> bool {
        self.path.contains(":streamGenerateContent")
            || serde_json::from_slice::<Value>(&self.body)
                .is_ok_and(|body| body["stream"] == Value::Bool(true))
    }
}

type Script = Box<dyn Fn(&Received) -> Reply + Send + Sync>;

pub struct Upstream {
    pub addr: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    script: Script,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    requests: Vec<Received>,
    connections: Vec<Connection>,
    gates: HashSet<String>,
    servers: Vec<JoinHandle<()>>,
    stopping: bool,
}

struct Connection {
    /// A duplicate, to end reads that would wait for ever. Gone with the connection, because a
    /// duplicate that stays open keeps an orderly end or a reset from reaching the peer.
    stream: Option<TcpStream>,
    /// When the peer was seen to have left.
    left: Option<Instant>,
}

impl Upstream {
    /// Answers each request as `script` says.
    pub fn start(script: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Upstream {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            script: Box::new(script),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let acceptor = thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&listener, &shared)
        });
        Upstream {
            addr,
            shared,
            acceptor: Some(acceptor),
        }
    }

    /// The same answer to every request.
    pub fn always(reply: Reply) -> Upstream {
        Upstream::start(move |_| reply.clone())
    }

    /// One answer per request, in order. A request too many gets a status that nobody retries.
    pub fn queue(replies: impl IntoIterator<Item = Reply>) -> Upstream {
        let replies = Mutex::new(
            replies
                .into_iter()
                .collect::<std::collections::VecDeque<_>>(),
        );
        Upstream::start(move |_| {
            let next = replies.lock().unwrap().pop_front();
            next.unwrap_or_else(|| Reply::whole(418, "text/plain", "the script has ended"))
        })
    }

    /// An answer for each key. A key that the script does not know gets a status that nobody
    /// retries.
    pub fn by_key<const N: usize>(replies: [(&str, Reply); N]) -> Upstream {
        let replies: HashMap<String, Reply> = replies
            .into_iter()
            .map(|(key, reply)| (key.to_string(), reply))
            .collect();
        Upstream::start(move |request| {
            let reply = request.key.as_ref().and_then(|key| replies.get(key));
            reply
                .cloned()
                .unwrap_or_else(|| Reply::whole(418, "text/plain", "not in the script"))
        })
    }

    /// A base URL on which nobody listens: an address of loopback that no test binds, so the port
    /// stays free.
    pub fn nobody() -> String {
        let listener = TcpListener::bind("127.83.71.12:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    }

    /// For `base_url`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub fn requests(&self) -> Vec<Received> {
        self.state().requests.clone()
    }

    pub fn count(&self) -> usize {
        self.state().requests.len()
    }

    /// The keys of all requests so far, in order. `-` for a request without one.
    pub fn keys(&self) -> Vec<String> {
        let key = |request: &Received| request.key.clone().unwrap_or_else(|| "-".into());
        self.state().requests.iter().map(key).collect()
    }

    /// Waits until `count` requests have come.
    pub fn wait_requests(&self, count: usize, limit: Duration) -> Vec<Received> {
        let what = format!("{count} requests");
        self.wait(limit, &what, |state| {
            (state.requests.len() >= count).then(|| state.requests.clone())
        })
    }

    /// How many connections were ever made.
    pub fn connections(&self) -> usize {
        self.state().connections.len()
    }

    /// When the peer of this connection left, if it did.
    pub fn left(&self, connection: usize) -> Option<Instant> {
        self.state().connections.get(connection)?.left
    }

    /// Waits until the peer of this connection has left.
    pub fn wait_closed(&self, connection: usize, limit: Duration) -> Instant {
        let what = format!("the peer of connection {connection} to leave");
        self.wait(limit, &what, |state| {
            state.connections.get(connection)?.left
        })
    }

    /// Waits until the script has ended this connection and the kernel has told the peer.
    pub fn wait_ended(&self, connection: usize, limit: Duration) {
        let what = format!("connection {connection} to end");
        self.wait(limit, &what, |state| {
            let connection = state.connections.get(connection)?;
            connection.stream.is_none().then_some(())
        });
        // A busy kernel may tell the peer a little later. A line has the peer's own address, then
        // ours, both in hexadecimal, then the state: 01 is an open connection.
        let open = format!(":{:04X} 01 ", self.addr.port());
        until(limit, "the peer's end of the connection to close", || {
            let all = fs::read_to_string("/proc/net/tcp").expect("Linux tells its connections");
            (!all.contains(&open)).then_some(())
        });
    }

    /// Opens a gate for good.
    pub fn open(&self, gate: &str) {
        self.state().gates.insert(gate.to_string());
        self.shared.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap()
    }

    fn wait<T>(
        &self,
        limit: Duration,
        what: &str,
        mut probe: impl FnMut(&State) -> Option<T>,
    ) -> T {
        let deadline = Instant::now() + limit;
        let mut state = self.state();
        loop {
            if let Some(found) = probe(&state) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "the upstream waited {limit:?} for {what}; it has {} requests on {} connections",
                state.requests.len(),
                state.connections.len()
            );
            state = self.shared.changed.wait_timeout(state, left).unwrap().0;
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        {
            // A server that panicked must not hide the test's own panic.
            let mut state = self
                .shared
                .state
                .lock()
                .unwrap_or_else(|bad| bad.into_inner());
            state.stopping = true;
            for connection in &state.connections {
                if let Some(stream) = &connection.stream {
                    let _ = stream.shutdown(Shutdown::Both);
                }
            }
        }
        // The acceptor looks at the stop sign when the next connection comes.
        let _ = TcpStream::connect(self.addr);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        let mut state = self
            .shared
            .state
            .lock()
            .unwrap_or_else(|bad| bad.into_inner());
        let servers = std::mem::take(&mut state.servers);
        drop(state);
        for server in servers {
            let _ = server.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        let mut state = shared.state.lock().unwrap();
        if state.stopping {
            return;
        }
        let number = state.connections.len();
        state.connections.push(Connection {
            stream: stream.try_clone().ok(),
            left: None,
        });
        let server = thread::spawn({
            let shared = Arc::clone(shared);
            move || shared.serve(number, stream)
        });
        // A thread that has ended keeps its stack until its handle is gone, and a long soak would
        // run out of room for mappings.
        state.servers.retain(|server| !server.is_finished());
        state.servers.push(server);
        shared.changed.notify_all();
    }
}

/// How one answer ended.
enum Played {
    /// To its end; the connection may carry another request.
    Kept,
    /// The script ended the connection.
    Closed,
    Reset,
    PeerLeft,
}

impl Shared {
    fn serve(&self, number: usize, stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let mut wire = Wire::new(stream);
        let end = loop {
            let Ok(Some(request)) = read(&mut wire, number) else {
                break Played::PeerLeft;
            };
            let closing = request
                .header("connection")
                .is_some_and(|value| value.eq_ignore_ascii_case("close"));
            let reply = (self.script)(&request);
            self.state.lock().unwrap().requests.push(request);
            self.changed.notify_all();
            match self.play(&reply, &wire) {
                Played::Kept if closing => break Played::Closed,
                Played::Kept => {}
                end => break end,
            }
        };
        let mut state = self.state.lock().unwrap();
        let stopping = state.stopping;
        let connection = &mut state.connections[number];
        connection.stream = None;
        match end {
            Played::PeerLeft if !stopping => connection.left = Some(Instant::now()),
            Played::Reset => wire::reset(wire.stream),
            _ => {
                let _ = wire.stream.shutdown(Shutdown::Both);
            }
        }
        drop(state);
        self.changed.notify_all();
    }

    fn play(&self, reply: &Reply, wire: &Wire) -> Played {
        let mut out = Vec::new();
        for step in &reply.steps {
            if let Some(bytes) = step.bytes() {
                out.extend(bytes);
                continue;
            }
            // Everything else is a point at which what was written leaves.
            if (&wire.stream).write_all(&out).is_err() {
                return Played::PeerLeft;
            }
            out.clear();
            let deadline = match step {
                Step::Close => return Played::Closed,
                Step::Reset => return Played::Reset,
                Step::Delay(wait) => Some(Instant::now() + *wait),
                Step::Gate(_) | Step::Hang => None,
                _ => continue,
            };
            loop {
                if wire.peer_left(Duration::ZERO) {
                    return Played::PeerLeft;
                }
                let state = self.state.lock().unwrap();
                let done = match step {
                    Step::Gate(name) => state.gates.contains(name),
                    _ => deadline.is_some_and(|deadline| Instant::now() >= deadline),
                };
                if done {
                    break;
                }
                if state.stopping {
                    return Played::Closed;
                }
                // A gate wakes this at once; the peer's leaving is seen at the next look.
                let beat = Duration::from_millis(3);
                drop(self.changed.wait_timeout(state, beat).unwrap());
            }
        }
        match (&wire.stream).write_all(&out) {
            Ok(()) => Played::Kept,
            Err(_) => Played::PeerLeft,
        }
    }
}

fn read(wire: &mut Wire, connection: usize) -> io::Result<Option<Received>> {
    let Some(head) = wire.head(None)? else {
        return Ok(None);
    };
    let body = wire.body(&head, None)?;
    let mut words = head.start.split(' ');
    let method = words.next().unwrap_or_default().to_string();
    let path = words.next().unwrap_or_default().to_string();
    let key = head
        .header("authorization")
        .map(|value| value.trim_start_matches("Bearer "))
        .or(head.header("x-api-key"))
        .or(head.header("x-goog-api-key"))
        .map(str::to_string);
    Ok(Some(Received {
        connection,
        method,
        path,
        headers: head.headers,
        body,
        key,
        at: Instant::now(),
        abandoned: wire.peer_left(Duration::ZERO),
    }))
}
