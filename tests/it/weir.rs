//! The built binary under test: started with a config of its own, watched, and always ended.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{self, Answer, Client, Stream};
use crate::completion::Streamed;
use crate::upstream::Format;
use crate::wait::{LIMIT, until};

/// How much of standard error is kept: its end.
const LOG_KEPT: usize = 256 * 1024 * 1024;

/// A running weir. Dropping it kills it.
pub struct Weir {
    pub addr: SocketAddr,
    child: Child,
    /// The lines of standard output; closed when the process has ended.
    lines: Receiver<String>,
    log: Arc<Mutex<Vec<u8>>>,
    readers: Vec<JoinHandle<()>>,
    /// For `/status`, where the config asks for one.
    key: Option<String>,
    /// The name of the worker that starts last, behind the address.
    last_worker: String,
    dir: Folder,
}

/// The binary that was built with the tests, unless `WEIR_BIN` names another, such as a static
/// release build.
pub fn binary() -> PathBuf {
    match std::env::var_os("WEIR_BIN") {
        Some(path) => path.into(),
        None => env!("CARGO_BIN_EXE_weir").into(),
    }
}

/// What the fast tests want: short waits everywhere, one upstream called `up`.
pub fn config(format: Format, base_url: &str, keys: &[&str]) -> Value {
    json!({
        "upstreams": [upstream("up", format, base_url, keys)],
        "retries": 3, "backoff_ms": 10, "lease_wait_ms": 1000, "keepalive_ms": 300,
        "deadline_ms": 20000
    })
}

/// An entry of `upstreams`.
pub fn upstream(name: &str, format: Format, base_url: &str, keys: &[&str]) -> Value {
    // As the vendors have them, so that nobody asks for a list of models by itself.
    let models: &[&str] = match format {
        Format::OpenAi | Format::Responses => &["gpt-*", "chatgpt-*", "o1*", "o3*", "o4*"],
        Format::Anthropic => &["claude-*"],
        Format::Gemini => &["gemini-*", "gemma-*", "learnlm-*"],
    };
    json!({
        "name": name, "format": format.name(), "base_url": base_url, "keys": keys, "models": models,
        "connect_ms": 1000, "first_byte_ms": 5000, "idle_ms": 5000
    })
}

impl Weir {
    pub fn start(config: &Value) -> Weir {
        Weir::start_with(config, &[], &[])
    }

    /// With more arguments and an environment that holds nothing else.
    pub fn start_with(config: &Value, arguments: &[&str], environment: &[(&str, &str)]) -> Weir {
        let dir = Folder::new();
        let file = dir.path().join("weir.json");
        fs::write(&file, serde_json::to_vec_pretty(config).unwrap()).unwrap();
        let mut command = Command::new(binary());
        command.arg("--config").arg(&file);
        let key = config["client_keys"][0].as_str().map(str::to_string);
        // Where the file says where to listen, no argument does.
        let by_file = config["listen"].is_string();
        Weir::spawn(command, arguments, environment, dir, key, by_file).with_workers(config)
    }

    /// With so few file descriptors, soft and hard.
    pub fn start_limited(config: &Value, descriptors: usize) -> Weir {
        Weir::start_under(&format!("ulimit -n {descriptors}"), config)
    }

    /// After this line of shell.
    pub fn start_under(limit: &str, config: &Value) -> Weir {
        let dir = Folder::new();
        let file = dir.path().join("weir.json");
        fs::write(&file, serde_json::to_vec_pretty(config).unwrap()).unwrap();
        let mut command = Command::new("/bin/sh");
        let script = format!("{limit}; exec \"$0\" \"$@\"");
        command.args(["-c", &script]).arg(binary());
        command.arg("--config").arg(&file);
        Weir::spawn(command, &[], &[], dir, None, false).with_workers(config)
    }

    fn with_workers(mut self, config: &Value) -> Weir {
        let workers = config["workers"].as_u64().unwrap_or(64);
        self.last_worker = format!("worker-{}", workers + 3);
        self
    }

    /// Without a config file, in an empty folder.
    pub fn start_bare(arguments: &[&str], environment: &[(&str, &str)]) -> Weir {
        let command = Command::new(binary());
        Weir::spawn(command, arguments, environment, Folder::new(), None, false)
    }

    fn spawn(
        mut command: Command,
        arguments: &[&str],
        environment: &[(&str, &str)],
        dir: Folder,
        key: Option<String>,
        by_file: bool,
    ) -> Weir {
        if !by_file && !arguments.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        command
            .args(arguments)
            .current_dir(dir.path())
            .env_clear()
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .expect("the binary was built with the tests");

        let stdout = child.stdout.take().expect("it was piped");
        let (sender, lines) = channel();
        let read_lines = thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                if line.is_ok_and(|line| sender.send(line).is_ok()) {
                    continue;
                }
                return;
            }
        });
        let stderr = child.stderr.take().expect("it was piped");
        let log = Arc::new(Mutex::new(Vec::new()));
        let read_log = thread::spawn({
            let log = Arc::clone(&log);
            move || collect(stderr, &log)
        });

        let mut weir = Weir {
            addr: SocketAddr::from(([127, 0, 0, 1], 0)),
            child,
            lines,
            log,
            readers: vec![read_lines, read_log],
            key,
            last_worker: "worker-67".into(),
            dir,
        };
        match weir.lines.recv_timeout(LIMIT) {
            Ok(line) => weir.addr = address(&line),
            Err(error) => {
                let _ = weir.child.kill();
                // With the process gone its log is complete.
                for reader in weir.readers.drain(..) {
                    let _ = reader.join();
                }
                panic!("weir told no address ({error}); its log:\n{}", weir.log());
            }
        }
        weir
    }

    /// A chat request on a connection of its own, answered whole.
    pub fn ask(&self, body: &Value) -> Answer {
        client::post(self.addr, body)
    }

    /// A chat request whose answer is an event stream, read to its end.
    pub fn stream(&self, body: &Value) -> Streamed {
        Streamed::read(self.open_stream(body).rest(LIMIT))
    }

    /// A chat request whose answer is an event stream of which the head has been read.
    pub fn open_stream(&self, body: &Value) -> Stream {
        let mut client = Client::connect(self.addr);
        client.post(body);
        client.stream(LIMIT)
    }

    /// The end of what it wrote to standard error so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&self.log.lock().unwrap()).into_owned()
    }

    /// Waits until the log holds `text` and gives the whole log.
    pub fn wait_log(&self, text: &str, limit: Duration) -> String {
        let what = format!("{text:?} in the log");
        until(limit, &what, || {
            let log = self.log();
            log.contains(text).then_some(log)
        })
    }

    /// What else standard output has said. One line, the address, is all it ever should.
    pub fn more_output(&self) -> Vec<String> {
        self.lines.try_iter().collect()
    }

    pub fn config_file(&self) -> PathBuf {
        self.dir.path().join("weir.json")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, such as `libc::SIGTERM`.
    pub fn signal(&self, signal: i32) {
        let pid = libc::pid_t::try_from(self.pid()).unwrap();
        // SAFETY: no memory is involved. The process is our child and was not waited for, so the
        // number cannot belong to another one.
        #[allow(unsafe_code)]
        let done = unsafe { libc::kill(pid, signal) };
        assert_eq!(done, 0, "kill: {}", std::io::Error::last_os_error());
    }

    /// Waits for the process to end.
    pub fn wait_exit(&mut self, limit: Duration) -> ExitStatus {
        let deadline = Instant::now() + limit;
        // Standard output ends with the process.
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("weir still runs after {limit:?}; its log:\n{}", self.log())
                }
            }
        }
        let left = deadline.saturating_duration_since(Instant::now());
        until(left.max(LIMIT), "the exit status", || {
            self.child.try_wait().unwrap()
        })
    }

    /// Resident memory in KiB.
    pub fn rss_kib(&self) -> usize {
        self.proc_status("VmRSS:")
    }

    /// The most that it ever was.
    pub fn peak_rss_kib(&self) -> usize {
        self.proc_status("VmHWM:")
    }

    /// What `ulimit -v` limits.
    pub fn address_space_kib(&self) -> usize {
        self.proc_status("VmPeak:")
    }

    /// How many threads there are, once all workers are.
    pub fn threads(&self) -> usize {
        until(LIMIT, "the last worker", || {
            let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).ok()?;
            let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).ok();
            let mut names = tasks.flatten().filter_map(name);
            names.find(|name| name.trim_end() == self.last_worker)
        });
        self.proc_status("Threads:")
    }

    /// How often the timer thread has gone to sleep so far.
    pub fn rounds(&self) -> u64 {
        let folder = format!("/proc/{}/task", self.pid());
        let threads = fs::read_dir(folder).expect("the process runs").flatten();
        let status = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("status")).ok();
        let all = threads.filter_map(status);
        let timer = all
            .filter(|status| status.starts_with("Name:\ttimer\n"))
            .last();
        let timer = timer.expect("there is a timer thread");
        let line = timer
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.expect("the kernel counts it").trim().parse().unwrap()
    }

    /// Open file descriptors.
    pub fn fds(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid()))
            .expect("the process runs")
            .count()
    }

    fn proc_status(&self, field: &str) -> usize {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(field))
            .unwrap_or_else(|| panic!("no {field} in {text}"));
        let number = line.split_whitespace().next().unwrap();
        number.parse().unwrap()
    }

    /// `GET /status` as JSON.
    pub fn status(&self) -> Value {
        let bearer = format!("Bearer {}", self.key.as_deref().unwrap_or_default());
        let mut headers = vec![("Accept", "application/json"), ("Connection", "close")];
        if self.key.is_some() {
            headers.push(("Authorization", &bearer));
        }
        let answer = client::ask(self.addr, "GET", "/status", &headers, b"");
        assert_eq!(answer.status, 200, "/status: {}", answer.text());
        answer.json()
    }

    /// Waits until no exchange runs and every slot of every key is free. Gives the last status.
    pub fn idle(&self, limit: Duration) -> Value {
        let mut last = Value::Null;
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            last = self.status();
            if is_idle(&last) {
                return last;
            }
            thread::park_timeout(Duration::from_millis(10));
        }
        panic!("not idle after {limit:?}: {last}");
    }
}

impl Drop for Weir {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // The process held the other ends of the pipes.
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        if thread::panicking() {
            let log = self.log.lock().unwrap_or_else(|bad| bad.into_inner());
            let tail = &log[log.len().saturating_sub(4096)..];
            eprintln!("end of weir's log:\n{}", String::from_utf8_lossy(tail));
        }
    }
}

/// How a run that was expected to end by itself did end.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs the binary to its end, with `config` as its file if there is one.
pub fn run(config: Option<&str>, arguments: &[&str], environment: &[(&str, &str)]) -> Ended {
    let dir = Folder::new();
    let mut command = Command::new(binary());
    if let Some(config) = config {
        let file = dir.path().join("weir.json");
        fs::write(&file, config).unwrap();
        command.arg("--config").arg(file);
    }
    let mut child = command
        .args(arguments)
        .current_dir(dir.path())
        .env_clear()
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary was built with the tests");
    let deadline = Instant::now() + LIMIT;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            let _ = child.kill();
            let output = child.wait_with_output().unwrap();
            panic!("{arguments:?} did not end: {output:?}");
        }
        thread::park_timeout(Duration::from_millis(5));
    }
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ended {
        code: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

fn is_idle(status: &Value) -> bool {
    let upstreams = status["upstreams"]
        .as_array()
        .expect("upstreams in /status");
    let mut keys = upstreams
        .iter()
        .flat_map(|upstream| upstream["keys"].as_array().expect("keys in /status"));
    status["exchanges"] == json!(0)
        && status["waiting"] == json!(0)
        && keys.all(|key| key["slots"].is_u64() && key["slots"] == key["free"])
}

/// The address in the line that the process prints, however it is dressed up. A unix socket has
/// none that fits here.
fn address(line: &str) -> SocketAddr {
    if line.starts_with("unix:") {
        return SocketAddr::from(([127, 0, 0, 1], 0));
    }
    // This machine is one of all addresses.
    let line = &line.replace("//0.0.0.0:", "//127.0.0.1:");
    let start = line.find("127.").unwrap_or_default();
    let end = line[start..]
        .find(|sign: char| !sign.is_ascii_digit() && sign != '.' && sign != ':')
        .map_or(line.len(), |length| start + length);
    line[start..end]
        .parse()
        .unwrap_or_else(|_| panic!("no address in {line:?}"))
}

fn collect(mut from: impl Read, log: &Mutex<Vec<u8>>) {
    let mut piece = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut piece) {
        let mut log = log.lock().unwrap();
        log.extend_from_slice(&piece[..count]);
        let beyond = log.len().saturating_sub(LOG_KEPT);
        log.drain(..beyond);
    }
}

/// A temporary folder of this process, removed when dropped.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Folder {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("weir-it-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Folder(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
