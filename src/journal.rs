//! The log: lines of text, filtered by `simple_logger`, or each line one JSON object and nothing
//! else.
//!
//! The form can change with a reload, so it is looked up with each line. Lines are gathered and
//! written together by a thread of their own: those of requests at most a tenth of a second later,
//! since written one by one they cost two system calls each, others at once. Nothing but that thread
//! ever waits for whoever reads the log, and nothing ends because it cannot be written: lines are
//! lost then, and counted. (`simple_logger` itself prints with a macro that panics.)

use std::io::Write;
use std::mem;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant, SystemTime};

use log::{LevelFilter, Log, Metadata, Record};
use parking_lot::Mutex;
use simple_logger::SimpleLogger;

use crate::config::{Config, LogFormat};
use crate::{sys, watch};

/// The target of the line that each request gets. Its message is an object already, where lines
/// are JSON.
pub const REQUEST: &str = "weir::request";

static JSON: AtomicBool = AtomicBool::new(false);

/// `--verbose` was given, which counts for more than the config.
static VERBOSE: AtomicBool = AtomicBool::new(false);

/// Lines of requests that are still to be written.
static GATHERED: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// Held while gathered lines are written, so that they stay in order and none is under way when
/// the process ends.
static WRITING: Mutex<()> = Mutex::new(());

static WRITER: OnceLock<Thread> = OnceLock::new();

/// Bytes of lines with which the writer is woken early.
const MOST: usize = 32 * 1024;

/// Bytes of lines that wait at most. Who reads the log too slowly loses lines of it; requests and
/// timers do not wait for that.
const KEPT: usize = 1024 * 1024;

/// Lines that were lost since the log said so, and in all.
static LOST: AtomicU64 = AtomicU64::new(0);
static LOST_EVER: AtomicU64 = AtomicU64::new(0);

/// How long the end of the process waits for the last lines to be written.
const LAST_LINES: Duration = Duration::from_millis(500);

/// A pipe that can be written to at all takes so much without a wait (PIPE_BUF of Linux).
const PIECE: usize = 4096;

struct Journal {
    text: SimpleLogger,
}

/// Begins to log to standard error, as text.
pub fn start(verbose: bool) {
    let level = match verbose {
        true => LevelFilter::Debug,
        false => LevelFilter::Info,
    };
    // What is logged at all is `log`'s to know, and changes with a reload; here are the exceptions.
    let mut text = SimpleLogger::new().with_level(LevelFilter::Debug);
    // Prefixes: `ureq` is `ureq_proto` as well.
    for chatty in ["ureq", "rustls"] {
        text = text.with_module_level(chatty, LevelFilter::Warn);
    }
    // Its one message is that accepting failed, which we say ourselves, and not while stopping.
    text = text.with_module_level("tiny_http", LevelFilter::Off);
    VERBOSE.store(verbose, Ordering::Relaxed);
    log::set_max_level(level);
    log::set_boxed_logger(Box::new(Journal { text })).expect("no other logger was set before this");
    // A panic's own message would be a line that is no JSON.
    std::panic::set_hook(Box::new(|info| {
        let file = info.location().map_or("", |location| location.file());
        if file.contains("tiny_http") {
            // It costs that connection alone, or its accept thread, which is then replaced.
            log::warn!("the HTTP server dropped a connection: {}", text_of(info));
            if file.contains("refined_tcp_stream") {
                watch::acceptor_fell();
            }
        } else {
            log::error!("{info}");
        }
    }));
}

fn text_of<'a>(info: &'a std::panic::PanicHookInfo<'_>) -> &'a str {
    let payload = info.payload();
    match payload.downcast_ref::<String>() {
        Some(text) => text,
        None => payload.downcast_ref::<&str>().copied().unwrap_or("a panic"),
    }
}

/// Logs as the config says from here on.
pub fn set(config: &Config) {
    JSON.store(config.log_format == LogFormat::Json, Ordering::Relaxed);
    if !VERBOSE.load(Ordering::Relaxed) {
        log::set_max_level(config.log_level);
    }
}

/// Starts the thread that writes what was gathered. It sleeps until it is nudged.
pub fn start_writer(stack: usize) -> std::io::Result<()> {
    let writer = thread::Builder::new()
        .name("journal".into())
        .stack_size(stack)
        .spawn(|| {
            loop {
                thread::park();
                flush();
            }
        })?;
    // Started once; a second one would only have nothing to do.
    let _ = WRITER.set(writer.thread().clone());
    Ok(())
}

/// Has what was gathered written, without waiting for it.
pub fn nudge() {
    if GATHERED.lock().is_empty() {
        return;
    }
    match WRITER.get() {
        Some(writer) => writer.unpark(),
        None => flush(),
    }
}

/// Writes what was gathered, and waits for whoever reads it. For the writer's thread, and for the
/// time before there is one.
fn flush() {
    let _writing = WRITING.lock();
    // A log that cannot be written is no reason to stop serving.
    if std::io::stderr().write_all(&take()).is_err() {
        LOST_EVER.fetch_add(1, Ordering::Relaxed);
    }
}

/// Writes the last lines, as far as they are taken within `LAST_LINES`: the process ends then.
pub fn finish() {
    let until = Instant::now() + LAST_LINES;
    // The writer may be stuck in the middle of a line, where nothing can be done for those behind.
    let Some(_writing) = WRITING.try_lock_until(until) else {
        return;
    };
    for piece in take().chunks(PIECE) {
        let left = until.saturating_duration_since(Instant::now());
        if !sys::is_writable_within(std::io::stderr(), left)
            || std::io::stderr().write_all(piece).is_err()
        {
            return;
        }
    }
}

/// What was gathered, with a line about those that were lost.
fn take() -> Vec<u8> {
    let mut lines = mem::take(&mut *GATHERED.lock());
    let count = LOST.swap(0, Ordering::Relaxed);
    if count > 0 {
        let now = timestamp(SystemTime::now());
        let message = format!("{count} lines were lost, nobody read them in time");
        let line = match JSON.load(Ordering::Relaxed) {
            true => {
                format!("{{\"time\":\"{now}\",\"level\":\"warn\",\"message\":\"{message}\"}}\n")
            }
            false => format!("{now} WARN  [{}] {message}\n", module_path!()),
        };
        lines.extend_from_slice(line.as_bytes());
    }
    lines
}

/// Lines of the log that nobody read in time, or that could not be written.
pub fn lost() -> u64 {
    LOST_EVER.load(Ordering::Relaxed)
}

/// Keeps a line for the writer; true if it should be woken.
fn gather(line: &str) -> bool {
    let mut gathered = GATHERED.lock();
    if gathered.len() + line.len() > KEPT {
        LOST.fetch_add(1, Ordering::Relaxed);
        LOST_EVER.fetch_add(1, Ordering::Relaxed);
    } else {
        gathered.extend_from_slice(line.as_bytes());
    }
    gathered.len() >= MOST
}

impl Log for Journal {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.text.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        let is_request = record.target() == REQUEST;
        if !is_request && !self.enabled(record.metadata()) {
            return;
        }
        let now = SystemTime::now();
        let full = gather(&match JSON.load(Ordering::Relaxed) {
            true => line(record, now),
            false => text_line(record, now),
        });
        if full || !is_request {
            nudge();
        }
    }

    fn flush(&self) {
        nudge();
    }
}

/// A line as `simple_logger` writes it. A foreign text in it must not begin a line of its own, or
/// tell the terminal anything.
fn text_line(record: &Record<'_>, now: SystemTime) -> String {
    let (level, target) = (record.level(), record.target());
    let message = record.args().to_string();
    let mut line = format!("{} {level:<5} [{target}] ", timestamp(now));
    line.extend(
        message
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c }),
    );
    line.push('\n');
    line
}

fn line(record: &Record<'_>, now: SystemTime) -> String {
    let message = record.args().to_string();
    let level = record.level().as_str().to_ascii_lowercase();
    let begin = format!("{{\"time\":\"{}\",\"level\":\"{level}\",", timestamp(now));
    // The request's own object goes on where this one begins.
    let rest = match message.strip_prefix('{') {
        Some(members) if record.target() == REQUEST => members.to_owned(),
        _ => {
            let target = serde_json::Value::from(record.target());
            let message = serde_json::Value::from(message);
            format!("\"target\":{target},\"message\":{message}}}")
        }
    };
    format!("{begin}{rest}\n")
}

/// RFC 3339, UTC, with milliseconds.
pub fn timestamp(now: SystemTime) -> String {
    let since = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    let seconds = since.as_secs();
    // Civil date from the days since 1970, counting years from March.
    let days = seconds / 86_400 + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        seconds / 3_600 % 24,
        seconds / 60 % 60,
        seconds % 60,
        since.subsec_millis()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use log::Level;

    fn told(target: &str, message: std::fmt::Arguments<'_>) -> serde_json::Value {
        let record = Record::builder()
            .level(Level::Warn)
            .target(target)
            .args(message)
            .build();
        let line = line(
            &record,
            SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_478_401_007),
        );
        assert_eq!(line.matches('\n').count(), 1);
        serde_json::from_str(&line).unwrap()
    }

    #[test]
    fn every_line_is_one_object() {
        let line = told("weir::server", format_args!("a \"b\"\n{{c}}"));
        assert_eq!(line["time"], "2026-11-24T00:00:01.007Z");
        assert_eq!(line["level"], "warn");
        assert_eq!(line["message"], "a \"b\"\n{c}");
        let line = told(REQUEST, format_args!(r#"{{"id":"r","status":200}}"#));
        assert_eq!(line["id"], "r");
        assert_eq!(line["level"], "warn");
        let line = told(REQUEST, format_args!("id=r status=200"));
        assert_eq!(line["message"], "id=r status=200");
    }

    #[test]
    fn dates_are_civil() {
        for (seconds, date) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_825_600, "2000-02-29T12:00:00.000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000Z"),
        ] {
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(timestamp(at), date);
        }
    }
}
