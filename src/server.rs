//! Listener, workers, the fence around panics, stopping and reloading.
//!
//! Threads, what each waits for, and how it ends:
//!
//! | thread | how many | waits for | ends |
//! |---|---|---|---|
//! | main | 1 | signals, through a channel of `SIGNALS` | returns the exit code, which ends all others |
//! | signals | 1 | the kernel's signals | with the process |
//! | workers | `workers` + `SPARE` | a request in the HTTP server's queue, then what the request needs | with the process |
//! | timer | 1 | the bell, callers who hang up, the next moment something is due | when told to stop |
//! | of the HTTP server | 1 accepts, 4 or more read one connection each | connections, heads | with their connections |
//! | keepers | 1 per HTTP server that was given up | late requests on its old connections | after `KEEP` without one |
//! | look-ups | 1 per name that is looked up | the resolver | with its answer |
//! | slow heartbeats | 1 per heartbeat to a unix-socket caller | that write | with it |
//!
//! Channels: signals (`SIGNALS`), each key's free clients (its slots), one hand-over per waiting
//! request (1). The HTTP server's own queue of requests has no bound but its connections, and each
//! of those has at most one request in it.

use std::io::{self, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use log::{debug, error, info, warn};
use parking_lot::RwLock;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tiny_http::Request;

use crate::cancel::Cause;
use crate::config::{Config, Listen};
use crate::desk::{AtWork, Desk, Job, Phase};
use crate::inbound::Call;
use crate::journal;
use crate::line::{self, Line};
use crate::mask::Masks;
use crate::memory::Memory;
use crate::metrics::{self, Metrics, Names};
use crate::pool::Pool;
use crate::record::Record;
use crate::sockets;
use crate::status::Ledger;
use crate::watch::{Duties, Watch};

mod crew;
mod door;
mod routes;

use crew::Crew;
use door::{Door, Opened};

/// Workers beyond those that may be busy with chats: they answer that all are busy, and the
/// health checks.
const SPARE: usize = 4;

/// A worker's stack. TLS handshakes and JSON of the deepest nesting fit several times; only
/// touched pages count.
const STACK: usize = 512 * 1024;

/// Signals that may be pending.
const SIGNALS: usize = 8;

/// After the drain time, running requests have this long to say that they were cut.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What follows from one configuration. Requests hold on to the one they began with.
pub struct State {
    pub config: Config,
    /// One for each upstream of the config.
    pub pools: Vec<Arc<Pool>>,
    pub lines: Vec<Line>,
    /// Lives as long as the process, whatever is reloaded.
    pub memory: Arc<Memory>,
    /// What no text from an upstream may show.
    pub masks: Masks,
    /// The models that metrics tell apart.
    pub names: Names,
    /// When the configuration was read.
    pub since: SystemTime,
}

impl State {
    /// Lays the lines and fills the pools. Keys that `before` had keep what is known of them.
    fn new(config: Config, before: Option<&State>) -> Result<State, String> {
        let mut pools = Vec::new();
        let mut lines = Vec::new();
        for upstream in &config.upstreams {
            let settings = line::Settings {
                connect: upstream.connect,
                proxy: upstream.proxy.clone(),
                ca_file: upstream.ca_file.clone(),
                connections: upstream.slots * upstream.keys.len(),
                idle_age: Duration::from_secs(50),
            };
            let line = Line::new(&settings)
                .map_err(|message| format!("upstream {}: {message}", upstream.name))?;
            lines.push(line);
            let pool = Pool::new(upstream, config.max_waiting, config.cool_down_max);
            let old = before.and_then(|before| before.pool(&upstream.name));
            pools.push(Arc::new(match old {
                Some(old) => pool.with_tally(&old.tally),
                None => pool,
            }));
        }
        let state = State {
            masks: Masks::new(&config),
            names: Names::new(&config),
            since: SystemTime::now(),
            config,
            pools,
            lines,
            memory: before.map_or_else(Arc::default, |before| Arc::clone(&before.memory)),
        };
        if let Some(before) = before {
            state.inherit(before);
        }
        Ok(state)
    }

    fn pool(&self, upstream: &str) -> Option<&Arc<Pool>> {
        let named = |known: &crate::config::Upstream| known.name == upstream;
        let at = self.config.upstreams.iter().position(named)?;
        self.pools.get(at)
    }

    fn inherit(&self, before: &State) {
        for (upstream, pool) in self.config.upstreams.iter().zip(&self.pools) {
            let old = before.config.upstreams.iter().zip(&before.pools);
            for (old_upstream, old_pool) in old {
                if old_upstream.name != upstream.name {
                    continue;
                }
                for (index, key) in upstream.keys.iter().enumerate() {
                    let same = |old: &crate::config::Key| old.secret == key.secret;
                    if let Some(old_index) = old_upstream.keys.iter().position(same) {
                        pool.inherit(index, old_pool, old_index);
                    }
                }
            }
        }
    }
}

/// What all workers share.
pub struct Gateway {
    state: RwLock<Arc<State>>,
    watch: Arc<Watch>,
    door: Door,
    crew: Crew,
    draining: AtomicBool,
    /// Chats in the works, each on a worker of its own.
    chats: AtomicUsize,
    max_chats: usize,
    begun: Instant,
    metrics: Metrics,
    ledger: Ledger,
}

impl Gateway {
    pub fn state(&self) -> Arc<State> {
        Arc::clone(&self.state.read())
    }
}

/// Serves until told to stop. `reload` reads the configuration anew for SIGHUP.
pub fn run(config: Config, reload: Box<dyn Fn() -> Result<Config, String> + Send>) -> ExitCode {
    match start(config) {
        Ok((gateway, signals, address)) => {
            // The one line on standard output.
            let _ = writeln!(io::stdout(), "{address}");
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
    let max_connections = max_connections(&config, descriptors);
    let write_timeout = config.write_timeout;
    let cannot = |what: io::Error| format!("cannot listen on {listen}: {what}");
    let opened = match &listen {
        Listen::Tcp(address) => Opened::tcp(address, write_timeout),
        Listen::Unix(path) => unix(path),
    }
    .map_err(cannot)?;
    let address = opened.address.clone();
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
        chats: AtomicUsize::new(0),
        max_chats,
        begun: Instant::now(),
        metrics: Metrics::default(),
        ledger: Ledger::default(),
    });
    let on_round = {
        let gateway = Arc::clone(&gateway);
        Box::new(move |now| {
            for pool in &gateway.state().pools {
                pool.tick(now);
            }
            journal::flush();
        })
    };
    let on_stuck = {
        let gateway = Arc::clone(&gateway);
        Box::new(move || {
            if !gateway.draining.load(Ordering::Acquire) {
                gateway.door.reopen_stuck(&gateway);
            }
        })
    };
    let duties = Duties {
        listener: for_timer,
        write_timeout,
        max_connections,
        head_wait: gateway.state().config.body_wait,
        on_round,
        on_stuck,
    };
    let no_thread = |error: io::Error| format!("cannot start a thread: {error}");
    gateway.watch.start(duties).map_err(no_thread)?;
    for number in 0..max_chats + SPARE {
        let gateway = Arc::clone(&gateway);
        thread::Builder::new()
            .name(format!("worker-{number}"))
            .stack_size(STACK)
            .spawn(move || work(&gateway))
            .map_err(no_thread)?;
    }
    Ok((gateway, signals, address))
}

/// What the config allows, as far as the descriptors go: three for a connection (two of the HTTP
/// server's, one of ours), and some for upstreams and files.
fn max_connections(config: &Config, descriptors: u64) -> usize {
    let most = descriptors.saturating_sub(64) / 4;
    let most = usize::try_from(most).unwrap_or(usize::MAX).max(8);
    if most < config.max_connections {
        warn!(
            "max_connections is {}, but the limit of open files only allows {most}",
            config.max_connections
        );
    }
    config.max_connections.min(most)
}

fn unix(path: &Path) -> io::Result<Opened> {
    // A socket file outlives its process; one that nobody listens on is in the way.
    if path.exists() && UnixStream::connect(path).is_err() {
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
            return drain(gateway, signals);
        }
    }
    error!("nobody waits for signals any more");
    ExitCode::FAILURE
}

fn reload_config(gateway: &Gateway, reload: &dyn Fn() -> Result<Config, String>) {
    let before = gateway.state();
    let read = reload().and_then(|config| {
        if config.listen != before.config.listen || config.workers != before.config.workers {
            warn!("`listen` and `workers` change with a restart only");
        }
        State::new(config, Some(&before))
    });
    match read {
        Ok(state) => {
            journal::set(&state.config);
            *gateway.state.write() = Arc::new(state);
            info!("configuration reloaded");
        }
        Err(message) => error!("configuration not reloaded, the old one stays: {message}"),
    }
}

/// No new connections; running requests finish in their time or are cut.
fn drain(gateway: &Gateway, signals: &Receiver<i32>) -> ExitCode {
    gateway.draining.store(true, Ordering::Release);
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

fn leave(gateway: &Gateway, code: ExitCode) -> ExitCode {
    gateway.watch.stop();
    journal::flush();
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
            Ok(_) => {
                warn!("stopped by a second signal");
                gateway.door.remove_file();
                journal::flush();
                std::process::exit(1);
            }
            Err(RecvTimeoutError::Disconnected) => thread::sleep(LOOK),
        }
    }
    true
}

/// One worker: takes requests for as long as the process lives.
fn work(gateway: &Arc<Gateway>) {
    let desk = gateway.watch.add_desk();
    let mut server = gateway.door.current();
    gateway.crew.rest();
    loop {
        match gateway.crew.stand(|| server.receive()) {
            Ok(request) => {
                take(gateway, request, &desk);
                gateway.crew.rest();
            }
            Err(fault) => server = gateway.door.after(server, fault, gateway),
        }
        // Whoever slept through it finds a new server here.
        server = gateway.door.newest(server);
    }
}

/// Answers one request. Nothing that happens in here ends the worker.
pub fn take(gateway: &Arc<Gateway>, request: Request, desk: &Desk) {
    let state = gateway.state();
    let job = Job::new(request.remote_addr().copied(), state.config.deadline);
    // Whoever reads the body, or drains what nobody read, is ended when this is over.
    job.enter(Phase::Body, state.config.body_wait);
    let at_work = AtWork::begin(desk, &gateway.watch, job);
    let Ok(call) = Call::take(request, &gateway.watch, state.config.max_body_bytes) else {
        return;
    };
    let endpoint = routes::endpoint(&call);
    let mut record = Record::new(call.id.clone(), endpoint.name());
    // A panic drops the call or its stream, whose guards answer; the fence only keeps the worker.
    let fenced = catch_unwind(AssertUnwindSafe(|| {
        routes::answer(gateway, &state, endpoint, call, &at_work.job, &mut record);
    }));
    if fenced.is_err() {
        error!("{}: a panic while answering", record.id);
        record.status = 500;
    }
    gateway.metrics.note(&record, &state.names);
    if endpoint.is_exchange() {
        gateway.ledger.note(&record, &state.names);
    }
    if endpoint.is_logged() {
        record.log(state.config.log_format);
    }
}
