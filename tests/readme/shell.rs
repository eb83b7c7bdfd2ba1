//! Commands as the pages tell them, run in a folder of their own beside the built program.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Far more than any command needs on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A folder with `bin/weir` in it, and nothing of the environment but the search path.
pub struct Shell {
    folder: PathBuf,
    path: String,
}

/// A command's end.
pub struct Ended {
    pub ok: bool,
    pub out: String,
    pub err: String,
}

impl Shell {
    pub fn new() -> Shell {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("weir-readme-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let bin = folder.join("bin");
        fs::create_dir_all(&bin).expect("the folder for temporary files can be written");
        let built = std::env::var_os("WEIR_BIN");
        let built = built.unwrap_or_else(|| env!("CARGO_BIN_EXE_weir").into());
        std::os::unix::fs::symlink(built, bin.join("weir")).expect("a link in a new folder");
        let path = std::env::var("PATH").unwrap_or_default();
        Shell {
            path: format!("{}:{path}", bin.display()),
            folder,
        }
    }

    /// Puts `config` there as `weir.json`, with the files it names.
    pub fn put_config(&self, config: &str) {
        fs::write(self.folder.join("weir.json"), config).expect("a new file");
        for file in named(config, "\"file:") {
            fs::write(self.folder.join(file), format!("key-of-{file}\n")).expect("a new file");
        }
    }

    pub fn remove_config(&self) {
        let _ = fs::remove_file(self.folder.join("weir.json"));
    }

    /// Runs a script with `sh -e`, with a value for each variable that `config` names.
    pub fn run(&self, script: &str, config: &str) -> Ended {
        let mut command = self.command(script);
        for name in named(config, "\"env:") {
            command.env(name, format!("key-of-{name}"));
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("sh starts");
        let number = child.id();
        let (send, receive) = mpsc::channel();
        thread::spawn(move || send.send(child.wait_with_output()));
        let Ok(output) = receive.recv_timeout(LIMIT) else {
            let _ = Command::new("kill").arg(number.to_string()).status();
            let err = format!("no end within {LIMIT:?}");
            return Ended {
                ok: false,
                out: String::new(),
                err,
            };
        };
        let output = output.expect("a child can be waited for");
        Ended {
            ok: output.status.success(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Starts weir by a line such as `KEY=value weir --demo`, on a free port.
    pub fn serve(&self, line: &str) -> Result<Server, String> {
        // Replacing the shell, so that ending it ends weir.
        let (before, arguments) = split_at_weir(line).ok_or("the line does not start weir")?;
        let listen = match arguments.contains("--listen") {
            true => "",
            false => " --listen 127.0.0.1:0",
        };
        let mut child = self
            .command(&format!("{before}exec weir{arguments}{listen}"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| error.to_string())?;
        let out = child.stdout.take().ok_or("no output")?;
        let (send, receive) = mpsc::channel();
        thread::spawn(move || {
            let mut line = String::new();
            let _ = BufReader::new(out).read_line(&mut line);
            send.send(line)
        });
        let told = receive.recv_timeout(LIMIT).unwrap_or_default();
        let mut server = Server {
            child,
            address: String::new(),
        };
        let address = told.trim_end().strip_prefix("http://");
        address
            .ok_or_else(|| format!("it told no address, but {told:?}"))?
            .clone_into(&mut server.address);
        Ok(server)
    }

    fn command(&self, script: &str) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-e", "-c", script])
            .env_clear()
            .env("PATH", &self.path)
            .current_dir(&self.folder);
        command
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A running weir; dropping it ends it.
pub struct Server {
    child: Child,
    /// `127.0.0.1:PORT`
    pub address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command that runs until it is stopped.
pub fn is_server(script: &str) -> bool {
    let leaves = ["--check-config", "--print", "--version", "--help"];
    script.trim().lines().count() == 1
        && split_at_weir(script).is_some()
        && !leaves.iter().any(|option| script.contains(option))
}

/// `KEY=value weir --demo` -> `KEY=value ` and ` --demo`.
fn split_at_weir(line: &str) -> Option<(&str, &str)> {
    let line = line.trim();
    let mut at = 0;
    for word in line.split_inclusive(' ') {
        if word.trim_end() == "weir" {
            return Some((&line[..at], &line[at + "weir".len()..]));
        }
        if !word.contains('=') {
            return None;
        }
        at += word.len();
    }
    None
}

/// The same script with every `make` told only to say what it would do: a release build takes
/// minutes, and the tests must not start the tests.
pub fn make_only_says(script: &str) -> String {
    let mut out = String::new();
    for line in script.lines() {
        match line.strip_prefix("make") {
            Some(rest) if rest.is_empty() || rest.starts_with(' ') => {
                out.push_str(&format!("make -n -C '{ROOT}'{rest}\n"));
            }
            _ => out.push_str(&format!("{line}\n")),
        }
    }
    out
}

/// What stands behind `mark` up to the next quote, each time.
fn named<'c>(config: &'c str, mark: &str) -> Vec<&'c str> {
    let pieces = config.split(mark).skip(1);
    pieces
        .filter_map(|piece| piece.split('"').next())
        .filter(|name| !name.is_empty() && Path::new(name).is_relative())
        .collect()
}

#[test]
fn what_starts_weir_is_known() {
    assert!(is_server("weir\n") && is_server("A=b C=d weir --demo\n"));
    assert!(!is_server("weir --print config\n") && !is_server("echo weir\n"));
    assert!(!is_server("weir\ncurl x\n"));
    assert_eq!(split_at_weir("A=b weir --demo"), Some(("A=b ", " --demo")));
}
