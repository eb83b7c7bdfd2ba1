//! A log that cannot be written, or that nobody reads: lines are lost, and nothing else.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};

use serde_json::{Value, json};

use crate::client::{chat, get, post};
use crate::upstream::{Format, Upstream};
use crate::wait::{LIMIT, until};
use crate::weir::{Folder, binary, config};

/// A weir whose standard error is something else than a pipe that is read.
struct Mute {
    child: Child,
    addr: SocketAddr,
    folder: Folder,
}

impl Mute {
    fn start(settings: &Value, stderr: Stdio, before: &str, arguments: &[&str]) -> Mute {
        let folder = Folder::new();
        let file = folder.path().join("weir.json");
        fs::write(&file, settings.to_string()).unwrap();
        let mut child = Command::new("/bin/sh")
            .args(["-c", &format!("{before} exec \"$0\" \"$@\"")])
            .arg(binary())
            .args(["--listen", "127.0.0.1:0", "--config"])
            .arg(&file)
            .args(arguments)
            .current_dir(folder.path())
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let address = line.trim().rsplit_once("//").expect("the address").1;
        Mute {
            addr: address.parse().unwrap(),
            child,
            folder,
        }
    }

    fn signal(&self, signal: i32) {
        let pid = self.child.id().to_string();
        let name = format!("-{signal}");
        assert!(
            Command::new("kill")
                .args([&name, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    fn lost(&self) -> u64 {
        let metrics = get(self.addr, "/metrics").text();
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix("weir_log_lines_lost_total "));
        line.unwrap().parse::<f64>().unwrap() as u64
    }

    fn stop(mut self) -> ExitStatus {
        self.signal(libc::SIGTERM);
        until(LIMIT, "the end", || self.child.try_wait().unwrap())
    }
}

impl Drop for Mute {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn answering() -> Upstream {
    Upstream::start(|request| Format::OpenAi.answer(request, &["fine"]))
}

fn settings(scripted: &Upstream, format: &str) -> Value {
    let mut settings = config(Format::OpenAi, &scripted.url(), &["k"]);
    settings["log_format"] = json!(format);
    settings
}

fn is_fine(mute: &Mute) {
    let answer = post(mute.addr, &chat("up/m", false));
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[test]
fn a_full_disk_or_a_reader_who_left_costs_lines_and_nothing_else() {
    let scripted = answering();
    for format in ["text", "json"] {
        let full: Stdio = File::options()
            .write(true)
            .open("/dev/full")
            .unwrap()
            .into();
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        for stderr in [full, writer.into()] {
            let mute = Mute::start(&settings(&scripted, format), stderr, "", &["--verbose"]);
            is_fine(&mute);
            mute.signal(libc::SIGHUP);
            is_fine(&mute);
            until(LIMIT, "a line that was lost", || {
                (mute.lost() > 0).then_some(())
            });
            assert_eq!(mute.stop().code(), Some(0), "{format}");
        }
    }
}

#[test]
fn a_file_that_may_not_grow_is_a_full_disk() {
    let scripted = answering();
    let folder = Folder::new();
    let log = File::create(folder.path().join("log")).unwrap();
    // One block of 512 bytes, or of 1 KiB where the shell counts so.
    let mute = Mute::start(
        &settings(&scripted, "text"),
        log.into(),
        "ulimit -f 1;",
        &["--verbose"],
    );
    for _ in 0..50 {
        is_fine(&mute);
    }
    until(LIMIT, "a line that was lost", || {
        (mute.lost() > 0).then_some(())
    });
    is_fine(&mute);
    assert_eq!(mute.stop().code(), Some(0));
}

#[test]
fn a_log_that_nobody_reads_holds_nobody_up() {
    let scripted = answering();
    let (reader, writer) = std::io::pipe().unwrap();
    // The least that a pipe can hold.
    let size = smallest(&reader);
    let mute = Mute::start(
        &settings(&scripted, "text"),
        writer.into(),
        "",
        &["--verbose"],
    );
    // Far more than the pipe holds: each request is worth some hundred bytes and debug lines.
    let many = size / 200 + 200;
    for _ in 0..many {
        is_fine(&mute);
    }
    mute.signal(libc::SIGHUP);
    is_fine(&mute);
    let begun = std::time::Instant::now();
    assert_eq!(mute.stop().code(), Some(0));
    assert!(begun.elapsed() < LIMIT);
    drop(reader);
}

/// Makes the pipe as small as it can be, and gives its size.
fn smallest(reader: &std::io::PipeReader) -> usize {
    use std::os::fd::AsRawFd;
    const PAGE: i32 = 4096;
    // SAFETY: the descriptor is open, and the call takes a number.
    #[allow(unsafe_code)]
    let size = unsafe { libc::fcntl(reader.as_raw_fd(), libc::F_SETPIPE_SZ, PAGE) };
    usize::try_from(size).unwrap()
}

#[test]
fn the_level_of_the_config_holds_and_changes_with_a_reload() {
    let scripted = answering();
    let folder = Folder::new();
    let path = folder.path().join("log");
    let log = File::create(&path).unwrap();
    let mute = Mute::start(&settings(&scripted, "text"), log.into(), "", &[]);
    let read = || fs::read_to_string(&path).unwrap();
    is_fine(&mute);
    until(LIMIT, "the request's line", || {
        read().contains("status=200").then_some(())
    });
    assert!(!read().contains(" DEBUG "), "{}", read());
    let mut more = settings(&scripted, "text");
    more["log_level"] = json!("debug");
    // A refusal that is tried again has a debug line of its own.
    more["upstreams"][0]["keys"] = json!(["k", "k2"]);
    fs::write(mute.folder.path().join("weir.json"), more.to_string()).unwrap();
    mute.signal(libc::SIGHUP);
    until(LIMIT, "the reload", || {
        read().contains("configuration reloaded").then_some(())
    });
    let away = Upstream::nobody();
    let mut broken = more.clone();
    broken["upstreams"][0]["base_url"] = json!(away);
    broken["retries"] = json!(0);
    fs::write(mute.folder.path().join("weir.json"), broken.to_string()).unwrap();
    mute.signal(libc::SIGHUP);
    until(LIMIT, "the second reload", || {
        (read().matches("configuration reloaded").count() == 2).then_some(())
    });
    let _ = post(mute.addr, &chat("up/m", false));
    until(LIMIT, "a debug line", || {
        read().contains(" DEBUG ").then_some(())
    });
    assert_eq!(mute.stop().code(), Some(0));
}
