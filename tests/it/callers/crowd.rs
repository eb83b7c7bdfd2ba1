//! Thousands of connections that say nothing or a byte at a time, beside streams that go on and
//! callers who come anew.
//!
//! The suite runs it with 2000 for a few seconds and generous limits. `make crowd` runs it with
//! 10 000 for a minute and prints what it measured.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{Client, chat, get};
use crate::upstream::Format;
use crate::wait::LIMIT;
use crate::weir::{Weir, config};
use crate::wire::Wire;

const STREAMS: usize = 50;

/// Between two events of a stream.
const BEAT: Duration = Duration::from_millis(20);

/// Raises the limit of open files of this very process and gives the one in force.
fn raise_limit() -> usize {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a valid place for the answer, and a valid limit afterwards.
    #[allow(unsafe_code)]
    let raised = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &limit)
    };
    assert_eq!(raised, 0, "setrlimit");
    usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX)
}

/// An upstream whose events say when they were sent, in microseconds since `base`.
struct Clockwork {
    url: String,
    stop: Arc<AtomicBool>,
}

impl Clockwork {
    fn start(base: Instant) -> Clockwork {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        // Ends with the test program.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let stop = Arc::clone(&stopped);
                thread::spawn(move || serve(stream, base, &stop));
            }
        });
        Clockwork { url, stop }
    }
}

fn serve(stream: TcpStream, base: Instant, stop: &AtomicBool) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut wire = Wire::new(stream);
    while let Some(head) = wire.head(None)? {
        let body = wire.body(&head, None)?;
        let streams = String::from_utf8_lossy(&body).contains("\"stream\":true");
        let mut out = &wire.stream;
        if !streams {
            for bytes in Format::OpenAi
                .whole("hi")
                .steps
                .iter()
                .filter_map(|step| step.bytes())
            {
                out.write_all(&bytes)?;
            }
            continue;
        }
        out.write_all(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
        )?;
        let events = Format::OpenAi.events(&["@@"]);
        let send = |mut out: &TcpStream, event: &str| {
            out.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes())
        };
        send(out, &events[0])?;
        while !stop.load(Ordering::Relaxed) {
            let micros = base.elapsed().as_micros().to_string();
            send(out, &events[1].replace("@@", &micros))?;
            thread::sleep(BEAT);
        }
        for event in &events[2..] {
            send(out, event)?;
        }
        out.write_all(b"0\r\n\r\n")?;
    }
    Ok(())
}

/// What was measured.
#[derive(Debug)]
struct Outcome {
    opened: usize,
    events: usize,
    /// The longest way of an event through weir.
    slowest_event: Duration,
    /// The same without weir, in the same run: what the machine itself does to events.
    slowest_direct: Duration,
    slowest_newcomer: Duration,
    newcomers: usize,
    threads: usize,
    rss_kib: usize,
    fds: usize,
}

fn run(connections: usize, time: Duration) -> Outcome {
    let connections = connections.min(raise_limit() - 1000);
    let base = Instant::now();
    let upstream = Clockwork::start(base);
    let mut settings = config(Format::OpenAi, &upstream.url, &["k"]);
    settings["upstreams"][0]["slots"] = serde_json::json!(STREAMS + 10);
    settings["workers"] = serde_json::json!(STREAMS + 10);
    settings["deadline_ms"] = serde_json::json!(600_000);
    let weir = Weir::start(&settings);
    let addr = weir.addr;

    let slowest = Arc::new(AtomicU64::new(0));
    let direct = Arc::new(AtomicU64::new(0));
    let there = upstream.url.trim_start_matches("http://");
    let there = there.split('/').next().unwrap().parse().unwrap();
    let events = Arc::new(AtomicUsize::new(0));
    let (begun, has_begun) = mpsc::channel();
    // The last one reads the upstream's own stream, as a measure of the machine.
    let readers: Vec<_> = (0..=STREAMS)
        .map(|number| {
            let is_direct = number == STREAMS;
            let slowest = Arc::clone(if is_direct { &direct } else { &slowest });
            let events = Arc::clone(&events);
            let mut begun = Some(begun.clone());
            thread::spawn(move || {
                let mut client = Client::connect(if is_direct { there } else { addr });
                client.post(&chat(super::MODEL, true));
                let mut stream = client.stream(LIMIT);
                let mut last = String::new();
                while let Some(arrived) = stream.next(LIMIT) {
                    let crate::client::Item::Data(data) = arrived.item else {
                        continue;
                    };
                    last.clone_from(&data);
                    let sent = data.split("\"content\":\"").nth(1);
                    let sent = sent.and_then(|rest| rest.split('"').next()?.parse::<u64>().ok());
                    if let Some(sent) = sent {
                        let arrived = (arrived.at - base).as_micros() as u64;
                        slowest.fetch_max(arrived.saturating_sub(sent), Ordering::Relaxed);
                        events.fetch_add(1, Ordering::Relaxed);
                        if let Some(begun) = begun.take() {
                            let _ = begun.send(());
                        }
                    }
                }
                assert_eq!(
                    last,
                    "[DONE]",
                    "a stream was cut after {:?}",
                    base.elapsed()
                );
            })
        })
        .collect();
    for _ in 0..=STREAMS {
        has_begun.recv_timeout(LIMIT).expect("every stream begins");
    }

    let crowding = thread::spawn(move || {
        let mut crowd: Vec<Option<Client>> = Vec::new();
        let until = Instant::now() + time;
        let mut next = 0;
        let mut opened = 0;
        while Instant::now() < until {
            // Whoever was closed comes again, half of them without a word.
            if crowd.len() < connections {
                let mut client = Client::try_connect(addr);
                opened += usize::from(client.is_some());
                if let Some(client) = client.as_mut().filter(|_| crowd.len().is_multiple_of(2)) {
                    let _ = client.try_send(b"POST /v1/ch");
                }
                crowd.push(client);
                continue;
            }
            next = (next + 1) % connections;
            let alive = crowd[next]
                .as_mut()
                .is_some_and(|client| next % 2 == 1 || client.try_send(b"a").is_ok());
            if !alive {
                crowd[next] = Client::try_connect(addr);
                opened += usize::from(crowd[next].is_some());
            }
            thread::sleep(Duration::from_micros(100));
        }
        opened
    });

    let mut outcome = Outcome {
        opened: 0,
        events: 0,
        slowest_event: Duration::ZERO,
        slowest_direct: Duration::ZERO,
        slowest_newcomer: Duration::ZERO,
        newcomers: 0,
        threads: 0,
        rss_kib: 0,
        fds: 0,
    };
    while !crowding.is_finished() {
        let asked = Instant::now();
        match outcome.newcomers % 2 {
            0 => assert_eq!(get(addr, "/healthz").status, 200),
            _ => assert_eq!(weir.ask(&chat(super::MODEL, false)).status, 200),
        }
        outcome.newcomers += 1;
        outcome.slowest_newcomer = outcome.slowest_newcomer.max(asked.elapsed());
        outcome.threads = outcome.threads.max(weir.threads());
        outcome.rss_kib = outcome.rss_kib.max(weir.rss_kib());
        outcome.fds = outcome.fds.max(weir.fds());
        thread::park_timeout(Duration::from_millis(50));
    }
    outcome.opened = crowding.join().expect("the crowd does not fail");
    upstream.stop.store(true, Ordering::Relaxed);
    let failed = readers.into_iter().filter_map(|reader| reader.join().err());
    let failed = failed.count();
    let log = weir.log();
    let odd: Vec<&str> = log
        .lines()
        .filter(|line| !line.contains("status=200"))
        .collect();
    assert_eq!(failed, 0, "streams were cut: {odd:#?}");
    weir.idle(LIMIT);
    outcome.events = events.load(Ordering::Relaxed);
    outcome.slowest_event = Duration::from_micros(slowest.load(Ordering::Relaxed));
    outcome.slowest_direct = Duration::from_micros(direct.load(Ordering::Relaxed));
    outcome
}

#[test]
fn two_thousand_silent_connections_hold_up_neither_streams_nor_newcomers() {
    let outcome = run(2_000, Duration::from_secs(4));
    assert!(outcome.opened >= 2_000, "{outcome:?}");
    // Room for a machine with other things to do; `make crowd` looks closer.
    assert!(
        outcome.slowest_event < Duration::from_secs(2),
        "{outcome:?}"
    );
    assert!(
        outcome.slowest_newcomer < Duration::from_secs(5),
        "{outcome:?}"
    );
    assert!(
        outcome.threads < 2_500 && outcome.rss_kib < 200 * 1024,
        "{outcome:?}"
    );
}

#[test]
#[ignore = "takes a minute and most of the machine: make crowd"]
fn ten_thousand_silent_connections() {
    let outcome = run(10_000, Duration::from_secs(60));
    eprintln!("{outcome:#?}");
    assert!(outcome.opened >= 10_000, "{outcome:?}");
    // On a busy machine events are late without weir, too, and newcomers wait in several places.
    let machine = outcome.slowest_direct;
    assert!(
        outcome.slowest_event < Duration::from_millis(100) + 3 * machine,
        "{outcome:?}"
    );
    assert!(
        outcome.slowest_newcomer < Duration::from_secs(1) + 10 * machine,
        "{outcome:?}"
    );
}
