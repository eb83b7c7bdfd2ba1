//! Several weirs behind a real HAProxy, on the config that weir prints for it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Client, End, Item, chat, get, request};
use crate::observe::program;
use crate::running::printed;
use crate::upstream::{Format, Reply, Upstream};
use crate::wait::{LIMIT, until};
use crate::weir::{Folder, Weir, config};
use crate::wire::Wire;

const MODEL: &str = "up/gpt-4o-mini";

const REPLICAS: usize = 3;

/// The callers of each kind.
const CALLERS: usize = 4;

/// How long a replica that leaves is still there for whoever has not looked yet. HAProxy needs two
/// looks, 1 s and 0.5 s apart.
const UNREADY_MS: u64 = 3000;

/// A running HAProxy. Dropping it kills it.
struct HaProxy {
    addr: SocketAddr,
    child: Child,
    log: std::path::PathBuf,
    _folder: Folder,
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            let failed = |line: &&str| !line.contains(" 200 ");
            let odd: Vec<&str> = log.lines().filter(failed).collect();
            eprintln!("what HAProxy said of failures:\n{}", odd.join("\n"));
        }
    }
}

impl HaProxy {
    fn start(haproxy: &Path, replicas: &[SocketAddr]) -> HaProxy {
        let listen = free_address();
        let mut text = printed("haproxy")
            .replace("127.0.0.1:8000", &listen.to_string())
            // So that any limit of open files will do.
            .replace("maxconn 4000", "maxconn 200");
        for (number, addr) in replicas.iter().enumerate() {
            let example = format!("127.0.0.1:{}", 8081 + number);
            assert!(text.contains(&example), "{text}");
            text = text.replace(&example, &addr.to_string());
        }
        let folder = Folder::new();
        let file = folder.path().join("haproxy.cfg");
        fs::write(&file, text).unwrap();
        let log = folder.path().join("log");
        let child = Command::new(haproxy)
            .arg("-db")
            .arg("-f")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let haproxy = HaProxy {
            addr: listen,
            child,
            log,
            _folder: folder,
        };
        until(LIMIT, "HAProxy to listen", || {
            Client::try_connect(listen).map(|_| ())
        });
        haproxy
    }
}

/// An address of loopback that is free, and stays so: nobody else binds it, and connections that
/// are made get their ports elsewhere.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.83.71.13:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

/// Streams of a second, and whole answers after a tenth of one.
fn scripted() -> Upstream {
    Upstream::start(|request| {
        if !request.wants_stream() {
            let whole = Format::OpenAi.whole("whole");
            let mut steps = vec![crate::upstream::Step::Delay(Duration::from_millis(100))];
            steps.extend(whole.steps);
            return Reply { steps };
        }
        let events = Format::OpenAi.events(&["word "; 10]);
        let mut reply = Reply::stream();
        for event in &events {
            reply = reply.event(event).delay(Duration::from_millis(80));
        }
        reply.end()
    })
}

fn settings(scripted: &Upstream) -> Value {
    let mut settings = config(Format::OpenAi, &scripted.url(), &["k"]);
    settings["upstreams"][0]["slots"] = json!(64);
    settings["unready_ms"] = json!(UNREADY_MS);
    settings
}

/// What became of one request.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Fine,
    /// Another status, or a stream without its end.
    Failed(String),
}

/// Callers who ask one thing after the other, until they are told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    outcomes: Arc<Mutex<BTreeMap<Outcome, usize>>>,
    done: Arc<AtomicUsize>,
    callers: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(addr: SocketAddr) -> Load {
        let mut load = Load {
            stop: Arc::default(),
            outcomes: Arc::default(),
            done: Arc::default(),
            callers: Vec::new(),
        };
        for number in 0..CALLERS * 2 {
            let (stop, done) = (Arc::clone(&load.stop), Arc::clone(&load.done));
            let outcomes = Arc::clone(&load.outcomes);
            load.callers.push(thread::spawn(move || {
                let mut kept = None;
                while !stop.load(Ordering::Relaxed) {
                    // Half of them keep their connections, the others make new ones.
                    if number < CALLERS {
                        kept = None;
                    }
                    let outcome = match ask(addr, &mut kept, number % 2 == 0) {
                        Ok(()) => Outcome::Fine,
                        Err(error) => {
                            kept = None;
                            Outcome::Failed(error.to_string())
                        }
                    };
                    *outcomes.lock().unwrap().entry(outcome).or_default() += 1;
                    done.fetch_add(1, Ordering::Relaxed);
                }
            }));
        }
        load
    }

    /// Waits until so many more requests have ended.
    fn go_on(&self, count: usize) {
        let goal = self.done.load(Ordering::Relaxed) + count;
        until(LIMIT * 2, "requests to end", || {
            (self.done.load(Ordering::Relaxed) >= goal).then_some(())
        });
    }

    fn stop(mut self) -> BTreeMap<Outcome, usize> {
        self.stop.store(true, Ordering::Relaxed);
        for caller in self.callers.drain(..) {
            caller.join().unwrap();
        }
        self.outcomes.lock().unwrap().clone()
    }
}

/// One chat, on the connection that is there or a new one.
fn ask(addr: SocketAddr, kept: &mut Option<Wire>, stream: bool) -> io::Result<()> {
    if kept.is_none() {
        let connection = std::net::TcpStream::connect_timeout(&addr, LIMIT)?;
        connection.set_nodelay(true)?;
        *kept = Some(Wire::new(connection));
    }
    let wire = kept.as_mut().expect("it was just made");
    let body = chat(MODEL, stream).to_string();
    let json = [("Content-Type", "application/json")];
    let bytes = request("POST", "/v1/chat/completions", &json, body.as_bytes());
    io::Write::write_all(&mut &wire.stream, &bytes)?;
    let deadline = Some(Instant::now() + LIMIT * 2);
    let head = wire.head(deadline)?;
    let head = head.ok_or_else(|| io::Error::other("closed without an answer"))?;
    let body = wire.body(&head, deadline)?;
    let text = String::from_utf8_lossy(&body);
    let whole = match stream {
        true => text.matches("word ").count() == 10 && text.contains("data: [DONE]"),
        false => text.contains("whole"),
    };
    match head.start.contains(" 200 ") && whole {
        true => Ok(()),
        false => Err(io::Error::other(format!("{} {text}", head.start))),
    }
}

fn start(settings: &Value, addr: SocketAddr) -> Weir {
    Weir::start_with(settings, &["--listen", &addr.to_string()], &[])
}

#[test]
fn a_rolling_restart_behind_haproxy_costs_no_request() {
    let Some(haproxy) = program(&["haproxy"]) else {
        return;
    };
    let scripted = scripted();
    let settings = settings(&scripted);
    let addresses: Vec<SocketAddr> = (0..REPLICAS).map(|_| free_address()).collect();
    let all = addresses.iter().map(|addr| start(&settings, *addr));
    let mut replicas: Vec<Weir> = all.collect();
    let haproxy = HaProxy::start(&haproxy, &addresses);
    let load = Load::start(haproxy.addr);
    load.go_on(CALLERS * 4);
    for (replica, addr) in replicas.iter_mut().zip(&addresses) {
        replica.signal(libc::SIGTERM);
        assert_eq!(replica.wait_exit(LIMIT).code(), Some(0));
        *replica = start(&settings, *addr);
        assert_eq!(get(*addr, "/readyz").status, 200);
        // The next one leaves when this one has work again.
        until(LIMIT, "work for the new replica", || {
            let chats = &replica.status()["exchanges"];
            chats.as_u64().filter(|count| *count > 0)
        });
    }
    load.go_on(CALLERS * 4);
    let outcomes = load.stop();
    println!("rolling restart: {outcomes:?}");
    assert_eq!(outcomes.len(), 1, "{outcomes:#?}");
    assert!(outcomes[&Outcome::Fine] > 50, "{outcomes:?}");
}

#[test]
fn a_replica_that_is_killed_costs_only_its_own_requests() {
    let Some(haproxy) = program(&["haproxy"]) else {
        return;
    };
    // Streams that have begun wait for the gate.
    let events = Format::OpenAi.events(&["one ", "two"]);
    let (before, after) = events.split_at(Format::OpenAi.events_to_first_text());
    let gated = Reply::stream()
        .events(before)
        .gate("go")
        .events(after)
        .end();
    let scripted = Upstream::start(move |request| match request.wants_stream() {
        true => gated.clone(),
        false => Format::OpenAi.whole("whole"),
    });
    let settings = settings(&scripted);
    let addresses: Vec<SocketAddr> = (0..REPLICAS).map(|_| free_address()).collect();
    let all = addresses.iter().map(|addr| start(&settings, *addr));
    let mut replicas: Vec<Weir> = all.collect();
    let haproxy = HaProxy::start(&haproxy, &addresses);

    let mut streams = Vec::new();
    for _ in 0..REPLICAS * 4 {
        let mut client = Client::connect(haproxy.addr);
        client.post(&chat(MODEL, true));
        let mut stream = client.stream(LIMIT);
        while !stream.data(LIMIT).contains("one ") {}
        streams.push(stream);
    }
    let at_work = |weir: &Weir| weir.status()["exchanges"].as_u64().unwrap();
    let each: Vec<u64> = replicas.iter().map(at_work).collect();
    // The fewest connections: everyone has the same share.
    assert_eq!(each, [4, 4, 4]);

    drop(replicas.remove(0));
    // Asked at once, before HAProxy has looked: the others answer.
    for number in 0..20 {
        let outcome = ask(haproxy.addr, &mut None, false);
        assert!(outcome.is_ok(), "request {number}: {outcome:?}");
    }
    scripted.open("go");
    let mut ends = BTreeMap::new();
    for mut stream in streams {
        let (items, end) = stream.rest(LIMIT);
        let done = items
            .last()
            .is_some_and(|last| last.item == Item::Data("[DONE]".into()));
        assert_eq!(done, end == End::Framed);
        *ends.entry(done).or_insert(0) += 1;
    }
    assert_eq!(ends, BTreeMap::from([(false, 4), (true, 8)]));
}
