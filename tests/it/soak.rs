//! Mixed load over all formats, with faults and leavers at random, and the books balanced at the
//! end.
//!
//! `make soak` runs it for three minutes; the suite runs it for `SMOKE`. The seed is printed, and
//! `SOAK_SEED` plays the same choices again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde_json::json;

use crate::client::{Answer, Client, chat, request};
use crate::completion::{Completion, Streamed};
use crate::faults::{FORMATS, begun_with};
use crate::upstream::{Format, Received, Reply, Upstream};
use crate::wait::{LIMIT, until};
use crate::weir::{Weir, config, upstream};

/// Seconds in the ordinary suite.
const SMOKE: u64 = 4;

const CALLERS: u64 = 16;

/// A stall longer than this is the upstream's fault.
const SILENCE_MS: u64 = 400;

/// The choices of one run: the same seed and question give the same answer.
#[derive(Clone, Copy)]
struct Dice(u64);

impl Dice {
    fn roll(self, question: u64, sides: u64) -> u64 {
        let mut state = self.0 ^ question.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for _ in 0..3 {
            state ^= state >> 29;
            state = state.wrapping_mul(0xbf58_476d_1ce4_e5b9);
            state ^= state >> 32;
        }
        state % sides
    }
}

/// What the upstreams did with one request, in order.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Sent {
    /// A whole answer.
    Answer,
    /// Anything else.
    Fault,
}

type Book = Arc<Mutex<HashMap<u64, Vec<Sent>>>>;

/// The number that the request's message holds.
fn number(request: &Received) -> u64 {
    let text = String::from_utf8_lossy(&request.body).into_owned();
    let digits = text.split("soak ").nth(1).unwrap_or_default();
    let end = digits.find(|sign: char| !sign.is_ascii_digit());
    digits[..end.unwrap_or(digits.len())]
        .parse()
        .unwrap_or_else(|_| panic!("no number in {text}"))
}

/// The first words of an answer, which tell the attempt that it is for.
const FIRST: &str = "attempt ";

/// The last ones.
const LAST: &str = "and no more";

fn play(format: Format, request: &Received, dice: Dice, book: &Book) -> Reply {
    // On a loaded machine an attempt may be read when its time is over and the next has been
    // answered. Nobody waits for it any more.
    if request.abandoned {
        return Reply::silence().close();
    }
    let number = number(request);
    let streams = request.wants_stream();
    let attempt = book.lock().unwrap().get(&number).map_or(0, Vec::len) as u64;
    let first = format!("{FIRST}{attempt} ");
    let pieces = [&*first, LAST];
    let begun = |streams| begun_with(format, streams, pieces);
    let busy = if format == Format::Anthropic {
        "overloaded_error"
    } else {
        "unavailable"
    };
    let (sent, reply) = match dice.roll(number * 8 + attempt, 32) {
        0 => (Sent::Fault, Reply::silence().flush().reset()),
        1 => (Sent::Fault, Reply::silence().flush().close()),
        2 => (Sent::Fault, Reply::silence().raw("HTTP/1.1 2").close()),
        3 => (Sent::Fault, format.error(503, busy, "their words")),
        4 => {
            let limited = format.error(429, "rate_limit_error", "their words");
            (Sent::Fault, limited.header("retry-after-ms", "30"))
        }
        5 => (
            Sent::Fault,
            Reply::whole(200, "text/html", "<html>x</html>"),
        ),
        6 => (Sent::Fault, Reply::whole(200, "application/json", "")),
        7 => (Sent::Fault, Reply::silence().hang()),
        8 => (Sent::Fault, begun(streams).close()),
        9 => (Sent::Fault, begun(streams).hang()),
        10 if streams => {
            let event = format.error_event(503, busy, "their words");
            (Sent::Fault, begun(true).event(&event).end())
        }
        11 if streams => {
            let damaged = begun(true).event("data: {\"type\": \"cont\n\n");
            (Sent::Fault, damaged.end())
        }
        12 => (Sent::Fault, begun(streams).reset()),
        13 => {
            // Slow, with heartbeats on the way, and then fine.
            let answer = format.answer(request, &pieces);
            let mut slow = Reply::silence();
            for step in answer.steps {
                slow = slow.then(step).delay(Duration::from_millis(40));
            }
            (Sent::Answer, slow)
        }
        // The connection dies as soon as it rests in the pool.
        14 => (
            Sent::Answer,
            format.answer(request, &pieces).flush().close(),
        ),
        _ => (Sent::Answer, format.answer(request, &pieces)),
    };
    book.lock().unwrap().entry(number).or_default().push(sent);
    reply
}

/// How a request ended for its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum End {
    Fine,
    Refused(u16),
    Broken,
    /// The caller did not stay to see. The flag: its request was sent whole.
    Left(bool),
}

/// One request, seen from its caller.
struct Asked {
    number: u64,
    end: End,
    /// The attempt whose words it got.
    attempt: Option<usize>,
}

struct Caller {
    dice: Dice,
    addr: std::net::SocketAddr,
    next: Arc<AtomicU64>,
}

impl Caller {
    /// Asks and asks until the time is over.
    fn run(&self, until: Instant) -> Vec<Asked> {
        let mut ends = Vec::new();
        let mut kept: Option<Client> = None;
        while Instant::now() < until {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let dice = Dice(self.dice.0 ^ 0x5eed);
            let format = FORMATS[dice.roll(number * 4, FORMATS.len() as u64) as usize];
            let streams = dice.roll(number * 4 + 1, 2) == 0;
            let bytes = ask(number, format, streams);
            let fresh = dice.roll(number * 4 + 2, 3) == 0;
            let mut client = match kept.take() {
                Some(client) if !fresh => client,
                _ => Client::connect(self.addr),
            };
            let mut attempt = None;
            let end = match dice.roll(number * 4 + 3, 16) {
                0 => {
                    let length = dice.roll(number * 4 + 7, bytes.len() as u64) as usize;
                    let _ = client.try_send(&bytes[..length]);
                    leave(client, number);
                    End::Left(false)
                }
                1..=2 => {
                    let whole = client.try_send(&bytes).is_ok();
                    thread::sleep(Duration::from_millis(dice.roll(number * 4 + 7, 120)));
                    leave(client, number);
                    End::Left(whole)
                }
                _ => {
                    // A kept connection may have been closed meanwhile, as after a 4xx.
                    if client.try_send(&bytes).is_err() {
                        client = Client::connect(self.addr);
                        client.send(&bytes);
                    }
                    let answer = client.answer(2 * LIMIT);
                    kept = (answer.header("connection") != Some("close")).then_some(client);
                    let (end, seen) = judge(number, &answer);
                    attempt = seen;
                    end
                }
            };
            ends.push(Asked {
                number,
                end,
                attempt,
            });
        }
        ends
    }
}

fn ask(number: u64, format: Format, streams: bool) -> Vec<u8> {
    let mut body = chat(&format!("{}/{}", format.name(), format.model()), streams);
    body["messages"][0]["content"] = json!(format!("soak {number}."));
    let id = format!("soak-{number}");
    let headers = [("X-Request-Id", &*id), ("Content-Type", "application/json")];
    request(
        "POST",
        "/v1/chat/completions",
        &headers,
        body.to_string().as_bytes(),
    )
}

fn leave(client: Client, number: u64) {
    match number % 2 {
        0 => client.hang_up(),
        _ => client.reset(),
    }
}

/// How the answer ended, and the attempt whose words it has.
fn judge(number: u64, answer: &Answer) -> (End, Option<usize>) {
    let kind = answer.header("content-type").unwrap_or_default();
    if answer.status != 200 {
        let expected = [429, 500, 502, 503, 504].contains(&answer.status);
        assert!(expected, "{number}: {} {}", answer.status, answer.text());
        crate::first_mile::error_of(answer);
        return (End::Refused(answer.status), None);
    }
    let (end, content) = match kind.starts_with("text/event-stream") {
        true => {
            let streamed = Streamed::of_body(&answer.text());
            assert!(
                streamed.done != streamed.error.is_some(),
                "{number}: {}",
                answer.text()
            );
            let end = if streamed.done {
                End::Fine
            } else {
                End::Broken
            };
            (end, streamed.completion.content)
        }
        false => (End::Fine, Completion::whole(&answer.json()).content),
    };
    if end == End::Broken && content.is_empty() {
        return (end, None);
    }
    let words = content.strip_prefix(FIRST).map(|rest| rest.split_once(' '));
    let Some(Some((attempt, rest))) = words else {
        panic!("{number}: {}", answer.text());
    };
    assert!(
        rest == LAST || (end == End::Broken && rest.is_empty()),
        "{number}: {}",
        answer.text()
    );
    (end, Some(attempt.parse().expect("a number")))
}

#[test]
fn every_request_is_accounted_for_and_nothing_stays_behind() {
    let variable = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let seconds = variable("SOAK_SECONDS").unwrap_or(SMOKE);
    let seed = variable("SOAK_SEED").unwrap_or_else(|| {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        since.map_or(1, |since| since.as_nanos() as u64)
    });
    eprintln!("SOAK_SEED={seed}");
    let dice = Dice(seed);
    let book = Book::default();
    let scripted = FORMATS.map(|format| {
        let book = Arc::clone(&book);
        Upstream::start(move |request| play(format, request, dice, &book))
    });
    let entries = FORMATS.iter().zip(&scripted).map(|(format, scripted)| {
        let mut entry = upstream(format.name(), *format, &scripted.url(), &["k1", "k2"]);
        entry["first_byte_ms"] = json!(SILENCE_MS);
        entry["idle_ms"] = json!(SILENCE_MS);
        entry
    });
    let mut settings = config(Format::OpenAi, "http://127.0.0.1:1", &[]);
    settings["upstreams"] = entries.collect();
    settings["keepalive_ms"] = json!(150);
    // glibc keeps some freed memory for each thread, which grows for minutes until every worker has
    // had its share. Without that, what grows is a leak.
    let plain = [("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0")];
    let weir = Weir::start_with(&settings, &[], &plain);

    let next = Arc::new(AtomicU64::new(1));
    let load = |time: Duration| {
        let until = Instant::now() + time;
        let callers: Vec<_> = (0..CALLERS)
            .map(|_| {
                let (addr, next) = (weir.addr, Arc::clone(&next));
                let caller = Caller { dice, addr, next };
                thread::spawn(move || caller.run(until))
            })
            .collect();
        let ends = callers.into_iter().map(|caller| {
            caller.join().unwrap_or_else(|_| {
                let log = weir.log();
                let last: Vec<_> = log.lines().rev().take(200).collect();
                panic!("a caller fails; the last lines, newest first: {last:#?}")
            })
        });
        ends.flatten().collect::<Vec<_>>()
    };
    // Once through everything first, so that what is started on demand has been started.
    let time = Duration::from_secs(seconds);
    let mut ends = load(time / 2);
    let (threads, fds, rss) = at_rest(&weir, None);
    ends.extend(load(time / 2));
    at_rest(&weir, Some((threads, fds)));
    let status = weir.idle(LIMIT);
    for upstream in status["upstreams"].as_array().unwrap() {
        for key in upstream["keys"].as_array().unwrap() {
            assert_eq!((&key["slots"], &key["free"]), (&json!(8), &json!(8)));
        }
    }
    let mut counts: HashMap<End, usize> = HashMap::new();
    for asked in &ends {
        *counts.entry(asked.end).or_default() += 1;
    }
    eprintln!("{} requests: {counts:?}", ends.len());
    check_upstream(&ends, &book);
    check_log(&weir, &ends);
    // In the suite there is hardly time to get warm.
    let allowed = if seconds >= 60 { rss / 10 } else { rss / 3 };
    eprintln!("RSS {} KiB at once", weir.rss_kib());
    // The heap is given back when nothing was done for a while.
    let rss_after = until(2 * LIMIT, "the memory to go back", || {
        let now = weir.rss_kib();
        (now <= rss + allowed).then_some(now)
    });
    eprintln!("RSS {rss} KiB before, {rss_after} KiB after; {threads} threads, {fds} descriptors");
    assert!(counts[&End::Fine] > ends.len() / 3, "{counts:?}");
}

/// Threads, descriptors and memory once nothing is going on. Threads and descriptors are waited
/// for until they are back at what they were.
fn at_rest(weir: &Weir, before: Option<(usize, usize)>) -> (usize, usize, usize) {
    weir.idle(2 * LIMIT);
    match before {
        // Threads of idle connections live for five seconds.
        None => {
            let mut last = usize::MAX;
            let mut since = Instant::now();
            until(2 * LIMIT, "the threads to settle", || {
                let now = weir.threads();
                if now != last {
                    (last, since) = (now, Instant::now());
                }
                (since.elapsed() > Duration::from_secs(2)).then_some(())
            });
        }
        Some((threads, fds)) => until(3 * LIMIT, "threads and descriptors to go back", || {
            (weir.threads() <= threads + 8 && weir.fds() <= fds + 16).then_some(())
        }),
    }
    (weir.threads(), weir.fds(), weir.rss_kib())
}

/// Nothing is sent again once an answer has begun: the attempt whose words a caller got was the
/// last. (What an upstream had written by then does not tell: on a loaded machine a timer may run
/// out before it arrives, and then another attempt is right.)
fn check_upstream(ends: &[Asked], book: &Book) {
    let book = book.lock().unwrap();
    for (number, sent) in book.iter() {
        assert!(sent.len() <= 6, "{number}: {sent:?}");
    }
    for Asked {
        number,
        end,
        attempt,
    } in ends
    {
        let sent = book.get(number).map(Vec::as_slice).unwrap_or_default();
        if let Some(attempt) = attempt {
            assert_eq!(sent.len(), attempt + 1, "{number} was sent again: {sent:?}");
        }
        match end {
            End::Fine => assert_eq!(sent.last(), Some(&Sent::Answer), "{number}"),
            End::Left(false) => assert!(sent.is_empty(), "{number}: half a request was sent on"),
            _ => {}
        }
    }
}

/// The lines of each request in the log.
fn lines_of(log: &str) -> HashMap<u64, Vec<&str>> {
    let mut lines: HashMap<u64, Vec<&str>> = HashMap::new();
    for line in log.lines() {
        let Some((_, rest)) = line.split_once("id=soak-") else {
            continue;
        };
        let number = rest.split(' ').next().unwrap_or_default().parse();
        lines
            .entry(number.unwrap_or_default())
            .or_default()
            .push(line);
    }
    lines
}

/// Each request has one line in the log, whoever left; half a request has one at most.
fn check_log(weir: &Weir, ends: &[Asked]) {
    // Lines are written a moment after their request has ended.
    let log = until(LIMIT, "a line for each request", || {
        let log = weir.log();
        let lines = lines_of(&log);
        let told = ends
            .iter()
            .filter(|asked| !matches!(asked.end, End::Left(_)))
            .all(|asked| lines.contains_key(&asked.number));
        told.then_some(log)
    });
    let lines = lines_of(&log);
    for Asked { number, end, .. } in ends {
        let told = lines.get(number).map(Vec::as_slice).unwrap_or_default();
        let status = match end {
            End::Left(false) => {
                assert!(told.len() <= 1, "{told:?}");
                continue;
            }
            // One who resets at once may never have been read.
            End::Left(true) => {
                assert!(told.len() <= 1, "{told:?}");
                continue;
            }
            End::Fine => Some(200),
            End::Refused(status) => Some(*status),
            End::Broken => None,
        };
        assert_eq!(told.len(), 1, "{number}: {told:?}");
        if let Some(status) = status {
            assert!(
                told[0].contains(&format!("status={status} ")),
                "{end:?}: {}",
                told[0]
            );
        }
    }
}
