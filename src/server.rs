//! Listener, threads, stopping and reloading.
//!
//! Threads, what each waits for, and how it ends:
//!
//! | thread | how many | waits for | ends |
//! |---|---|---|---|
//! | main | 1 | signals, through a channel of `SIGNALS` | returns the exit code, which ends all others |
//! | signals | 1 | the kernel's signals | with the process |
//! | workers | `workers` + `SPARE` | a request in the HTTP server's queue, then what the request needs | with the process |
//! | timer | 1 | the bell, callers who hang up, the next moment something is due | when told to stop |
//! | journal | 1 | lines of the log, then whoever reads standard error | with the process |
//! | discovery | 1 where an upstream has `discover` | the next model list that is due, or a reload | with the process |
//! | list | 1 per model list that is asked for, of each upstream at most one | the list | with it |
//! | checkup | 1 per upstream that loads its model or cannot be reached | a second, then its answer | when it answers, or is not in the config any more |
//! | patience | the same | its end, for 30 s | with it |
//! | of the HTTP server | 1 accepts, 4 or more read one connection each | connections, heads | with their connections |
//! | openers | at most 1 | descriptors for a new HTTP server | when it is open |
//! | keeper | at most 1 | late requests on the connections of HTTP servers that were given up | when those can bring none |
//! | late requests | 1 each, up to `AT_ONCE` | what the request needs | with it |
//! | look-ups | 1 per name that is looked up | the resolver | with its answer |
//! | slow heartbeats | 1 per heartbeat to a unix-socket caller | that write | with it |
//!
//! Channels: signals (`SIGNALS`), each key's free clients (its slots), one hand-over per waiting
//! request (1). The HTTP server's own queue of requests has no bound. A connection whose requests do
//! not wait for answers is cut at the 33rd, and what it left in the queue is let go of unread; on a
//! unix socket, the one that brought most of what lies there (`watch/local.rs`).

use std::cell::RefCell;
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use log::{debug, error, info, warn};
use parking_lot::{Mutex, RwLock};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::cancel::Cause;
use crate::checkup;
use crate::clock;
use crate::config::{Config, Listen, Upstream};
use crate::journal;
use crate::kept::Room;
use crate::line::Line;
use crate::metrics::{self, Metrics};
use crate::status::Ledger;
use crate::sys;
use crate::sys::pages::{self, Thrift};
use crate::sys::sockets;
use crate::watch::{self, Duties, Watch};

mod admission;
mod crew;
mod door;
mod handed;
mod keeper;
mod routes;
mod state;
mod worker;

use crew::Crew;
use door::{Door, Opened};
use state::IDLE_AGE;
pub use state::State;
pub use worker::take;
use worker::work;

/// Workers beyond those that may be busy with chats: they answer that all are busy, and the
/// health checks.
const SPARE: usize = 4;

/// A worker's stack. TLS handshakes and JSON of the deepest nesting fit several times; only
/// touched pages count.
const STACK: usize = 512 * 1024;

/// Workers that are there before the address is told; the others follow. A thousand take 40 ms,
/// which the first callers need not wait for.
const FIRST: usize = 8;

/// Signals that may be pending.
const SIGNALS: usize = 8;

/// After the drain time, running requests have this long to say that they were cut.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What all workers share.
pub struct Gateway {
    state: RwLock<Arc<State>>,
    watch: Arc<Watch>,
    door: Door,
    crew: Crew,
    /// `/readyz` says so.
    draining: AtomicBool,
    /// No new chats, and no new connections.
    closed: AtomicBool,
    /// Chats in the works, each on a worker of its own.
    chats: Arc<AtomicUsize>,
    max_chats: usize,
    begun: Instant,
    /// The address, where other machines can reach it.
    reachable: Option<String>,
    /// Why the last reload changed nothing, if it failed.
    reload_error: Mutex<Option<String>>,
    metrics: Metrics,
    ledger: Ledger,
}

/// Other machines get in with client keys, or where the config says in so many words that they
/// may. The socket counts, which is not always the one that the config names: it may have been
/// handed over, or be older than the config.
fn fence(config: &Config, reachable: Option<&str>) -> Result<(), String> {
    match reachable {
        Some(address) if !config.open && config.client_keys.is_empty() => Err(format!(
            "other machines can reach {address}, and there are no `client_keys`; \
             add some to the config file, or \"open\": true"
        )),
        _ => Ok(()),
    }
}

impl Gateway {
    /// Chats in the works, up to the last byte of their answers.
    pub fn running(&self) -> usize {
        let jobs = self.watch.jobs();
        jobs.iter()
            .filter(|job| job.is_chat.load(Ordering::Relaxed))
            .count()
    }

    pub fn state(&self) -> Arc<State> {
        Arc::clone(&self.state.read())
    }

    /// Has the model lists asked for that the configuration wants.
    fn discover(self: &Arc<Gateway>) {
        let wants = |upstream: &Upstream| upstream.options.learned.is_some();
        let wanted = self.state().config.upstreams.iter().any(wants);
        let gateway = Arc::clone(self);
        self.state().discovery.look(wanted, move || {
            let state = gateway.state();
            let all = state.config.upstreams.iter().zip(&state.lines);
            all.filter(|(upstream, _)| wants(upstream))
                .map(|(upstream, line)| (upstream.clone(), line.clone()))
                .collect()
        });
    }
}

/// Serves until told to stop. `reload` reads the configuration anew for SIGHUP.
pub fn run(config: Config, reload: Box<dyn Fn() -> Result<Config, String> + Send>) -> ExitCode {
    match start(config) {
        Ok((gateway, signals, address)) => {
            // The one line on standard output.
            let _ = writeln!(io::stdout(), "{address}");
            if let Err(message) = start_workers(&gateway, FIRST..usize::MAX) {
                error!("{message}");
                return ExitCode::FAILURE;
            }
            gateway.discover();
            serve(&gateway, &signals, &*reload)
        }
        Err(message) => {
            error!("{message}");
            ExitCode::FAILURE
        }
    }
}

type Started = (Arc<Gateway>, Receiver<i32>, String);

fn start(config: Config) -> Result<Started, String> {
    metrics::started();
    let descriptors = sockets::raise_descriptor_limit();
    debug!("at most {descriptors} descriptors");
    // Before anything is served, so that no signal is missed.
    let signals = signals().map_err(|error| format!("cannot wait for signals: {error}"))?;
    let listen = config.listen.clone();
    let max_chats = config.workers;
    let max_connections = max_connections(&config, descriptors)?;
    let write_timeout = config.write_timeout;
    let cannot = |what: io::Error| format!("cannot listen on {listen}: {what}");
    let handed = Opened::handed(write_timeout)
        .map_err(|error| format!("cannot use the socket that was handed over: {error}"))?;
    let opened = match (handed, &listen) {
        (Some(handed), _) => Ok(handed),
        (None, Listen::Tcp(address)) => Opened::tcp(address, write_timeout),
        (None, Listen::Unix(path)) => unix(path),
    }
    .map_err(cannot)?;
    let address = opened.address.clone();
    let reachable = (!opened.is_local()).then(|| address.clone());
    fence(&config, reachable.as_deref())?;
    let watch = Watch::new(opened.port).map_err(|error| format!("no descriptors: {error}"))?;
    let listener = opened.for_timer.as_ref();
    let for_timer = listener
        .map(std::net::TcpListener::try_clone)
        .transpose()
        .map_err(cannot)?;
    let gateway = Arc::new(Gateway {
        state: RwLock::new(Arc::new(State::new(config, None)?)),
        watch: Arc::new(watch),
        door: Door::new(opened).map_err(cannot)?,
        crew: Crew::default(),
        draining: AtomicBool::new(false),
        closed: AtomicBool::new(false),
        chats: Arc::default(),
        max_chats,
        begun: Instant::now(),
        reachable,
        reload_error: Mutex::default(),
        metrics: Metrics::default(),
        ledger: Ledger::default(),
    });
    let on_round = {
        let gateway = Arc::clone(&gateway);
        let thrift = RefCell::new(Thrift::after(clock::millis(IDLE_AGE)));
        Box::new(move |now| {
            let state = gateway.state();
            let upstreams = state.config.upstreams.iter().zip(&state.lines);
            for ((upstream, line), pool) in upstreams.zip(&state.pools) {
                pool.tick(now);
                checkup::look_after(upstream, line, pool);
            }
            let chats = gateway.chats.load(Ordering::Relaxed);
            if thrift.borrow_mut().is_due(chats, false, clock::now()) {
                state.lines.iter().for_each(Line::close_idle);
                pages::give_back_heap();
            }
            state.kept.tidy(Room::of(&state.config), now);
            journal::nudge();
        })
    };
    let on_stuck = {
        let gateway = Arc::clone(&gateway);
        let opening = Arc::new(AtomicBool::new(false));
        Box::new(move || {
            if gateway.closed.load(Ordering::Acquire) || opening.swap(true, Ordering::AcqRel) {
                return;
            }
            // It may take until there are descriptors again, and heartbeats must not wait for it.
            let (gateway, opening_there) = (Arc::clone(&gateway), Arc::clone(&opening));
            let spawned = thread::Builder::new()
                .name("opener".into())
                .stack_size(STACK)
                .spawn(move || {
                    gateway.door.reopen_stuck(&gateway);
                    opening_there.store(false, Ordering::Release);
                });
            if let Err(error) = spawned {
                error!("the listener is not opened anew: {error}");
                opening.store(false, Ordering::Release);
            }
        })
    };
    let duties = Duties {
        listener: for_timer,
        write_timeout,
        max_connections,
        head_wait: watch::head_wait(gateway.state().config.body_wait),
        on_round,
        on_stuck,
    };
    let no_thread = |error: io::Error| format!("cannot start a thread: {error}");
    journal::start_writer(STACK).map_err(no_thread)?;
    gateway.watch.start(duties).map_err(no_thread)?;
    start_workers(&gateway, 0..FIRST)?;
    Ok((gateway, signals, address))
}

/// Starts those of the workers whose numbers are in `which`.
fn start_workers(gateway: &Arc<Gateway>, which: Range<usize>) -> Result<(), String> {
    let all = gateway.max_chats + SPARE;
    for number in which.start..which.end.min(all) {
        let gateway = Arc::clone(gateway);
        thread::Builder::new()
            .name(format!("worker-{number}"))
            .stack_size(STACK)
            .spawn(move || work(&gateway))
            .map_err(|error| format!("cannot start a thread: {error}"))?;
    }
    Ok(())
}

/// With fewer, all are taken before the first connection (tried: 24 serve nobody, 32 do).
const FEWEST_DESCRIPTORS: u64 = 32;

/// What the config allows, as far as the descriptors go: three for a connection (two of the HTTP
/// server's, one of ours), and some for upstreams and files.
fn max_connections(config: &Config, descriptors: u64) -> Result<usize, String> {
    let most = descriptors.saturating_sub(64) / 4;
    let most = usize::try_from(most).unwrap_or(usize::MAX).max(8);
    if descriptors < FEWEST_DESCRIPTORS {
        return Err(format!(
            "the limit of open files is {descriptors}, and fewer than {FEWEST_DESCRIPTORS} serve nobody"
        ));
    }
    if most < config.max_connections {
        warn!(
            "max_connections is {}, but the limit of open files only allows {most}",
            config.max_connections
        );
    }
    Ok(config.max_connections.min(most))
}

fn unix(path: &Path) -> io::Result<Opened> {
    // A socket file outlives its process; one that nobody listens on is in the way. Any other file
    // is somebody's, and stays.
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    if is_socket && sys::is_deserted(path) {
        std::fs::remove_file(path)?;
    }
    Opened::unix(UnixListener::bind(path)?, path)
}

fn signals() -> io::Result<Receiver<i32>> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let (send, receive) = bounded(SIGNALS);
    thread::Builder::new()
        .name("signals".into())
        .stack_size(STACK)
        .spawn(move || {
            for signal in signals.forever() {
                // With so many pending, one more says nothing new.
                let _ = send.try_send(signal);
            }
        })?;
    Ok(receive)
}

/// The main thread from here on: signals, then the end.
fn serve(
    gateway: &Arc<Gateway>,
    signals: &Receiver<i32>,
    reload: &dyn Fn() -> Result<Config, String>,
) -> ExitCode {
    for signal in signals {
        if signal == SIGHUP {
            reload_config(gateway, reload);
        } else {
            return drain(gateway, signal, signals);
        }
    }
    error!("nobody waits for signals any more");
    ExitCode::FAILURE
}

fn reload_config(gateway: &Arc<Gateway>, reload: &dyn Fn() -> Result<Config, String>) {
    let before = gateway.state();
    let read = reload().and_then(|config| {
        fence(&config, gateway.reachable.as_deref())?;
        let old = &before.config;
        let fixed = [
            ("listen", config.listen != old.listen),
            ("workers", config.workers != old.workers),
            (
                "max_connections",
                config.max_connections != old.max_connections,
            ),
            (
                "write_timeout_ms",
                config.write_timeout != old.write_timeout,
            ),
        ];
        for (name, _) in fixed.iter().filter(|(_, changed)| *changed) {
            warn!("`{name}` changes with a restart only");
        }
        let heads = |config: &Config| watch::head_wait(config.body_wait);
        if heads(&config) != heads(old) {
            warn!(
                "`body_wait_ms` holds for bodies at once, for the heads of requests with a restart"
            );
        }
        State::new(config, Some(&before))
    });
    match read {
        Ok(state) => {
            journal::set(&state.config);
            for upstream in &state.config.upstreams {
                if let Some(learned) = &upstream.options.learned {
                    learned.ask_now();
                }
            }
            *gateway.state.write() = Arc::new(state);
            *gateway.reload_error.lock() = None;
            gateway.discover();
            info!("configuration reloaded");
        }
        Err(message) => {
            error!("configuration not reloaded, the old one stays: {message}");
            *gateway.reload_error.lock() = Some(message);
        }
    }
}

/// First a time in which only `/readyz` tells; then no new connections, and running requests finish
/// in their time or are cut.
fn drain(gateway: &Gateway, signal: i32, signals: &Receiver<i32>) -> ExitCode {
    gateway.draining.store(true, Ordering::Release);
    let unready = gateway.state().config.unready;
    // Whoever presses Ctrl-C has no balancer in front.
    if signal == SIGTERM && !unready.is_zero() {
        info!(
            "stopping: for {} ms only /readyz says so",
            unready.as_millis()
        );
        let until = Instant::now() + unready;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            match signals.recv_timeout(left) {
                Ok(SIGHUP) => {}
                Err(RecvTimeoutError::Timeout) => break,
                Ok(_) => leave_at_once(gateway),
                Err(RecvTimeoutError::Disconnected) => thread::sleep(left),
            }
        }
    }
    gateway.closed.store(true, Ordering::Release);
    gateway.door.close();
    let limit = gateway.state().config.drain;
    info!("stopping: running requests have {} ms", limit.as_millis());
    if wait_until_idle(gateway, signals, limit) {
        return leave(gateway, ExitCode::SUCCESS);
    }
    let cut = gateway.watch.jobs();
    warn!("{} requests are cut", cut.len());
    for job in &cut {
        job.cancel.pull(Cause::Stopping);
    }
    wait_until_idle(gateway, signals, LAST_WORDS);
    leave(gateway, ExitCode::SUCCESS)
}

fn leave_at_once(gateway: &Gateway) -> ! {
    warn!("stopped by a second signal");
    gateway.door.remove_file();
    journal::finish();
    std::process::exit(1);
}

fn leave(gateway: &Gateway, code: ExitCode) -> ExitCode {
    gateway.watch.stop();
    journal::finish();
    gateway.door.remove_file();
    code
}

/// True when the last request has ended, false when the time is over. A second signal ends the
/// process at once.
fn wait_until_idle(gateway: &Gateway, signals: &Receiver<i32>, limit: Duration) -> bool {
    const LOOK: Duration = Duration::from_millis(10);
    let until = Instant::now() + limit;
    while !gateway.watch.jobs().is_empty() {
        if Instant::now() >= until {
            return false;
        }
        match signals.recv_timeout(LOOK) {
            Ok(SIGHUP) | Err(RecvTimeoutError::Timeout) => {}
            Ok(_) => leave_at_once(gateway),
            Err(RecvTimeoutError::Disconnected) => thread::sleep(LOOK),
        }
    }
    true
}
