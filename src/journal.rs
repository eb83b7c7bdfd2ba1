//! The log: lines of text by `simple_logger`, or each line one JSON object and nothing else.
//!
//! The form can change with a reload, so it is looked up with each line. The lines of requests are
//! gathered and written together by a thread of their own, at most a tenth of a second later:
//! written one by one they cost two system calls each, on a worker that the next request waits for.
//! Any other line writes what was gathered first, so the order stays.

use std::io::Write;
use std::mem;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, SystemTime};

use log::{LevelFilter, Log, Metadata, Record};
use parking_lot::Mutex;
use simple_logger::SimpleLogger;

use crate::config::{Config, LogFormat};
use crate::watch;

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

/// Lines that were lost.
static LOST: AtomicU64 = AtomicU64::new(0);

struct Journal {
    text: SimpleLogger,
}

/// Begins to log to standard error, as text.
pub fn start(verbose: bool) {
    let level = if verbose {
        LevelFilter::Debug
    } else {
        LevelFilter::Info
    };
    let mut text = SimpleLogger::new().with_level(level);
    // Prefixes: `ureq` is `ureq_proto` as well.
    for chatty in ["ureq", "rustls"] {
        text = text.with_module_level(chatty, LevelFilter::Warn);
    }
    // Its one message is that accepting failed, which we say ourselves, and not while stopping.
    text = text.with_module_level("tiny_http", LevelFilter::Off);
    VERBOSE.store(verbose, Ordering::Relaxed);
    log::set_max_level(text.max_level());
    log::set_boxed_logger(Box::new(Journal { text })).expect("no other logger was set before this");
    // A panic's own message would be a line that is no JSON.
    std::panic::set_hook(Box::new(|info| {
        let file = info.location().map_or("", |location| location.file());
        if file.contains("tiny_http") {
            // It unwraps where a connection is reset or a descriptor is missing. The first costs
            // that connection alone; the second its accept thread, which is then replaced.
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

/// Writes what was gathered.
pub fn flush() {
    let _writing = WRITING.lock();
    let lines = mem::take(&mut *GATHERED.lock());
    if !lines.is_empty() {
        // A log that cannot be written is no reason to stop serving.
        let _ = std::io::stderr().write_all(&lines);
    }
    match LOST.swap(0, Ordering::Relaxed) {
        0 => {}
        count => {
            let now = timestamp(SystemTime::now());
            let message = format!("{count} lines were lost, nobody read them in time");
            let line = match JSON.load(Ordering::Relaxed) {
                true => {
                    format!("{{\"time\":\"{now}\",\"level\":\"warn\",\"message\":\"{message}\"}}\n")
                }
                false => format!("{now} WARN  [{}] {message}\n", module_path!()),
            };
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
    }
}

fn gather(line: &str) {
    let full = {
        let mut gathered = GATHERED.lock();
        if gathered.len() + line.len() > KEPT {
            LOST.fetch_add(1, Ordering::Relaxed);
        } else {
            gathered.extend_from_slice(line.as_bytes());
        }
        gathered.len() >= MOST
    };
    if full {
        nudge();
    }
}

impl Log for Journal {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.text.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        let json = JSON.load(Ordering::Relaxed);
        if record.target() == REQUEST {
            let now = SystemTime::now();
            return gather(&if json {
                line(record, now)
            } else {
                // As `simple_logger` writes it.
                let level = record.level();
                let when = timestamp(now);
                format!("{when} {level:<5} [{REQUEST}] {}\n", record.args())
            });
        }
        if !self.enabled(record.metadata()) {
            return;
        }
        flush();
        if json {
            // One write a line, so that lines of several threads do not mix.
            let line = line(record, SystemTime::now());
            let _ = std::io::stderr().write_all(line.as_bytes());
        } else {
            let message = record.args().to_string();
            // A foreign text in it must not begin a line of its own, or tell the terminal anything.
            let printable = message.replace(char::is_control, " ");
            let mut one_line = Record::builder();
            one_line
                .metadata(record.metadata().clone())
                .module_path(record.module_path());
            self.text
                .log(&one_line.args(format_args!("{printable}")).build());
        }
    }

    fn flush(&self) {
        flush();
    }
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
