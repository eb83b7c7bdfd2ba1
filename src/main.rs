//! weir: an OpenAI-compatible gateway for Gemini, Claude, OpenAI and compatible servers.
//!
//! Here are the arguments and the exit codes: 0 fine, 1 failed while running, 2 wrong usage or
//! config. Everything else has a room of its own, whose head says what it does and what it leaves
//! to others:
//!
//! ```text
//! src/main.rs        arguments, config, server, exit code; this map
//! src/config.rs      the JSON file; every value is checked while it is parsed
//! src/config/        table.rs: every key once; build.rs: a file by it; sources.rs: where from
//! src/print.rs       what --print prints; print/: units, a container, proxies in front, agents.rs:
//!                    what agents are told
//! src/server.rs      listener, a fixed set of workers, the fence around panics, stopping, reload
//! src/server/        state.rs: what follows from a config; worker.rs: one request after the other;
//!                    routes.rs: path -> Endpoint, and who may ask; crew.rs: which workers wait;
//!                    door.rs: the listening socket; handed.rs: one that somebody else opened;
//!                    keeper.rs: connections of a socket that was given up
//! src/watch.rs       the timer thread: heartbeats, timers, hang-ups; watch/connections.rs: idle
//!                    ones and floods; watch/lanes.rs: those that do not wait for their answers;
//!                    watch/local.rs: floods on a unix socket
//! src/desk.rs        Job: what each worker is at, where the timer thread can see it
//! src/inbound.rs     one HTTP request in, and the way to answer; inbound/framing.rs: where it ends;
//!                    body.rs: reading it; chunks.rs: where the server does not; coding.rs, gzip.rs:
//!                    unpacking it; unread.rs: letting go of what nobody reads
//! src/limits.rs      what each client key may use, and has used
//! src/reply.rs       one HTTP reply out, in one write
//! src/exchange.rs    the story of one chat exchange, top to bottom
//! src/exchange/      encode.rs: the request for a target; ability.rs: who can take it;
//!                    tries.rs: targets, keys and retries;
//!                    room.rs: who may take a longer request; heard.rs: what an answer comes to;
//!                    answer.rs: what comes back; live.rs: a stream from its first event on;
//!                    caller.rs: whom it goes to; ask.rs: POST /ask;
//!                    completions.rs: POST /v1/completions; response.rs: POST /v1/responses;
//!                    dry_run.rs: told, not sent
//! src/embeddings.rs  POST /v1/embeddings
//! src/passthrough.rs the other routes of the OpenAI API, passed on in pieces
//! src/route.rs       model name -> an ordered list of targets
//! src/pool.rs        Client, Pool, Lease; pool/health.rs: which keys rest; pool/down.rs: whether the
//!                    server answers at all; pool/tally.rs: counts
//! src/upstream.rs    a leased client and a body -> the head of an answer, or a Failure
//! src/line.rs        the connection to an upstream: names, proxies, TLS, HTTP/1.1
//! src/sys.rs         all that needs unsafe code
//! src/sys/           sockets.rs: callers' connections below the HTTP server, sockets/search.rs:
//!                    finding them, preface.rs: HTTP/2 kept out, unix.rs: limits on a unix socket;
//!                    connect.rs: connecting without waiting; reader.rs: what the HTTP server's reader
//!                    expects; blocks.rs: the allocator's small blocks; pages.rs: memory goes back to
//!                    the kernel; sched.rs: how threads share the processor
//! src/cancel.rs      how one thread ends another one's wait
//! src/failure.rs     how an attempt failed, and the one table of what follows; failure/said.rs:
//!                    what the body of an error says, quoted.rs, echo.rs: whose words they are
//! src/sse.rs         upstream bytes -> events
//! src/stream.rs      the caller's event stream, shared with the heartbeat
//! src/memory.rs      what upstreams signed, kept for callers who lose it
//! src/kept.rs       answers that callers of Responses go on from
//! src/lesson.rs      what their refusals teach about their models: one row for each kind
//! src/health.rs      --health: asks the weir that runs
//! src/fetch.rs       images behind addresses, for models that cannot fetch them
//! src/models.rs      GET /v1/models; models/catalogue.rs: what is known of some of
//!                    them; models/anthropic.rs, gemini.rs: in their shapes
//! src/checkup.rs     asks servers that do not answer whether they are well again
//! src/probe.rs       --check-config --probe: says what each upstream is
//! src/kind.rs        what a server is: llama.cpp, vLLM, Azure ..., one row each
//! src/discovery.rs   the upstreams' own lists of models, asked for beside the serving
//! src/record.rs      what a request came to, and its log line; record/estimate.rs: its tokens
//! src/journal.rs     the log: text or JSON, request lines written together
//! src/request_log.rs a file for each chat, where the config asks for it
//! src/metrics.rs     GET /metrics
//! src/status.rs      GET /status: text, JSON, a page; status/ledger.rs: today and the last hour
//! src/mask.rs        secrets taken out of foreign texts
//! src/error.rs       ApiError, what a caller is told
//! src/json.rs        Fields: an object as a shallow list of raw values
//! src/query.rs       the query of a URL
//! src/base64.rs      bytes as base64, and back; src/bytes.rs: buffers to read into
//! src/seal.rs        what vendors signed, as a text that only weir opens
//! src/clock.rs       milliseconds since the begin
//! src/chat.rs        the words in the middle: Request, Message, Part, Tool, Delta, Usage
//! src/capability.rs  what each model can do, by its name; capability/{claude,gemini,openai}.rs: the
//!                    rows, one file per vendor
//! src/dialect.rs     what callers may speak;  dialect/{openai,messages,responses,gemini,
//!                    completions,embeddings,ask,text}.rs
//! src/provider.rs    what upstreams speak;    provider/{openai,anthropic,gemini,responses}.rs
//! src/demo.rs        the built-in upstream that answers without a key
//! src/cost.rs        work and memory by the shape of a body (in tests only)
//! src/fuzz.rs, speed.rs, cost.rs  what make fuzz, make speed and make cost-shapes run
//! src/golden.rs      runs tests/golden (in tests only)
//! tests/it/          drives the built binary against scripted upstreams
//! tests/config/      configs that must be refused, and the command line
//! src/manual/        what the README leads to, a page for each subject
//! tests/readme/      runs every command of the README and the manual
//! tests/golden/      recorded requests, replies and streams, one folder per provider
//! tests/clients/     SDKs and tools that people use, against the built binary
//! tests/agents/      coding agents, the same
//! tests/servers/     real servers of models behind the built binary
//! tests/static/      the static build, and its tests
//! tests/bench/       weir beside nginx and the direct call
//! ```
//!
//! The rooms stand in a row and a request walks through them once:
//!
//! ```text
//! caller -> inbound -> dialect (head) -> route -> [ pool -> provider (encode) -> upstream ]*
//! caller <- stream  <- dialect (chunks) <- chat::Delta <- provider (decode) <- sse <- line
//! ```
//!
//! `exchange.rs` is the only one that knows this order. Where caller and upstream speak the same
//! format it relays: the middle of both rows is left out. `embeddings.rs` and `passthrough.rs` go
//! the same way through route, pool and upstream, by way of `exchange/tries.rs`.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use argh::FromArgs;
use parking_lot::Mutex;

use config::{Findings, Loaded, Sources, Surroundings};

// In tests it stands behind a meter, see `cost.rs`.
#[cfg(not(test))]
#[global_allocator]
static BLOCKS: sys::blocks::Blocks = sys::blocks::Blocks;

mod base64;
mod bytes;
mod cancel;
mod capability;
mod chat;
mod checkup;
mod clock;
mod config;
#[cfg(test)]
mod cost;
mod demo;
mod desk;
mod dialect;
mod discovery;
mod embeddings;
mod error;
mod exchange;
mod failure;
mod fetch;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod golden;
mod health;
mod inbound;
mod journal;
mod json;
mod kept;
mod kind;
mod lesson;
mod limits;
mod line;
mod mask;
mod memory;
mod metrics;
mod models;
mod passthrough;
mod pool;
mod print;
mod probe;
mod provider;
mod query;
mod record;
mod reply;
mod request_log;
mod route;
mod seal;
mod server;
#[cfg(test)]
mod speed;
mod sse;
mod status;
mod stream;
mod sys;
mod upstream;
mod watch;

/// Wrong usage or config.
const WRONG: u8 = 2;

/// An OpenAI-compatible gateway for Gemini, Claude, OpenAI and compatible servers. Without
/// --config it reads ./weir.json if that is there, else provider keys from the environment
/// (GEMINI_API_KEY, OPENAI_API_KEY, ANTHROPIC_API_KEY), else it answers by itself as a demo.
#[derive(FromArgs)]
struct Args {
    /// the config file
    #[argh(option, arg_name = "FILE")]
    config: Option<PathBuf>,

    /// where callers connect, instead of what the config says: host:port (port 0: any free one)
    /// or unix:/path
    #[argh(option, arg_name = "ADDR")]
    listen: Option<String>,

    /// serve the built-in demo beside the real upstreams, as demo/gpt-5 and so on, and its faults
    /// as demo/429, demo/stall, demo/cut and others
    #[argh(switch)]
    demo: bool,

    /// read everything, print each finding or the resolved routes, and leave
    #[argh(switch)]
    check_config: bool,

    /// with --check-config: ask each upstream for its models, and say what answered
    #[argh(switch)]
    probe: bool,

    /// ask the weir that runs with this config whether it is well, and leave: 0 if it is, else 1
    #[argh(switch)]
    health: bool,

    /// print something and leave: config (a file to start from), reference (every key of it),
    /// agents (what each is told to come here), models (what weir goes by), or what runs weir:
    /// systemd, openrc, procd, container, haproxy, nginx, caddy
    #[argh(option, arg_name = "WHAT")]
    print: Option<String>,

    /// print the version and leave
    #[argh(switch)]
    version: bool,

    /// log more: what is dropped, retried and skipped
    #[argh(switch)]
    verbose: bool,
}

fn main() -> ExitCode {
    sys::pages::few_arenas();
    sys::no_core_files();
    sys::no_end_by_file_size();
    sys::sched::take_turns();
    let args = match arguments() {
        Ok(args) => args,
        Err(code) => return code,
    };
    if args.version {
        return say(concat!("weir ", env!("CARGO_PKG_VERSION"), "\n"));
    }
    let of_config = args.print.as_deref() == Some(print::AGENTS);
    if let Some(what) = args.print.as_deref().filter(|_| !of_config) {
        return print(what);
    }
    journal::start(args.verbose);

    let sources = Sources {
        file: args.config,
        listen: args.listen,
        demo: args.demo,
    };
    if of_config {
        return match load(&sources, &|| Ok(SocketAddr::from(([127, 0, 0, 1], 0)))) {
            Ok(loaded) => say(&print::agents(&loaded.config)),
            Err(findings) => refuse(&findings),
        };
    }
    if args.check_config {
        // Nothing is started for a check; port 0 stands for the demo's own.
        return match load(&sources, &|| Ok(SocketAddr::from(([127, 0, 0, 1], 0)))) {
            Ok(loaded) if args.probe => {
                let (text, all) = probe::probe(&loaded.config);
                say(&config::check(&loaded));
                say(&text);
                if all {
                    ExitCode::SUCCESS
                } else {
                    ExitCode::FAILURE
                }
            }
            Ok(loaded) => say(&config::check(&loaded)),
            Err(findings) => refuse(&findings),
        };
    }
    if args.probe {
        complain("--probe goes with --check-config; see weir --help");
        return ExitCode::from(WRONG);
    }

    if args.health {
        return match load(&sources, &|| Ok(SocketAddr::from(([127, 0, 0, 1], 0)))) {
            Ok(loaded) => match health::ask(&loaded.config.listen) {
                Ok(()) => ExitCode::SUCCESS,
                Err(fault) => {
                    complain(&fault);
                    ExitCode::FAILURE
                }
            },
            Err(findings) => refuse(&findings),
        };
    }

    let demo = Arc::new(Demo::default());
    let loaded = match load(&sources, &|| demo.address()) {
        Ok(loaded) => loaded,
        Err(findings) => return refuse(&findings),
    };
    journal::set(&loaded.config);
    log::info!("{}", config::banner(&loaded));
    let reload = move || {
        let loaded = load(&sources, &|| demo.address()).map_err(|found| found.to_string())?;
        Ok(loaded.config)
    };
    let code = server::run(loaded.config, Box::new(reload));
    journal::finish();
    code
}

/// The arguments, or the code to leave with. argh by itself leaves with 1 after a wrong one.
fn arguments() -> Result<Args, ExitCode> {
    let mut words = Vec::new();
    for word in std::env::args_os().skip(1) {
        match word.into_string() {
            Ok(word) => words.push(word),
            Err(word) => {
                complain(&format!("argument {word:?} is not UTF-8"));
                return Err(ExitCode::from(WRONG));
            }
        }
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    Args::from_args(&["weir"], &words).map_err(|early| match early.status {
        Ok(()) => say(&early.output),
        Err(()) => {
            complain(&format!("{}; see weir --help", early.output.trim_end()));
            ExitCode::from(WRONG)
        }
    })
}

fn print(what: &str) -> ExitCode {
    match print::print(what) {
        Ok(text) => say(&text),
        Err(known) => {
            complain(&format!(
                "--print {what}: there is no such thing; known: {known}"
            ));
            ExitCode::from(WRONG)
        }
    }
}

fn load(
    sources: &Sources,
    demo: &dyn Fn() -> Result<SocketAddr, String>,
) -> Result<Loaded, Findings> {
    let loaded = sources.load(&Surroundings {
        env: &|name| std::env::var(name).ok(),
        folder: Path::new(""),
        demo,
    })?;
    let mut findings = Findings::new(String::new());
    for upstream in &loaded.config.upstreams {
        let fault = line::Line::proxy_fault(upstream.proxy.as_deref(), &upstream.base_url);
        if let Some(fault) = fault {
            let what = format!("the proxy of upstream {}: {fault}", upstream.name);
            findings.add("", what);
        }
    }
    match findings.is_empty() {
        true => Ok(loaded),
        false => Err(findings),
    }
}

/// The demo's listener: started when it is first needed and then kept, over reloads too.
#[derive(Default)]
struct Demo(Mutex<Option<demo::Demo>>);

impl Demo {
    fn address(&self) -> Result<SocketAddr, String> {
        let mut started = self.0.lock();
        if let Some(demo) = &*started {
            return Ok(demo.addr);
        }
        let demo = demo::start().map_err(|error| format!("cannot start the demo: {error}"))?;
        Ok(started.insert(demo).addr)
    }
}

/// Prints to standard output. A reader who has left (`weir --help | head -1`) is a normal end.
fn say(text: &str) -> ExitCode {
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "weir: {text}");
}

fn refuse(findings: &Findings) -> ExitCode {
    for line in findings.lines() {
        complain(&line);
    }
    ExitCode::from(WRONG)
}
