//! The init scripts for OpenWrt and OpenRC, run in a shell with stand-ins for what these systems
//! bring: what they would start is started.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::client::get;
use crate::observe::program;
use crate::running::printed;
use crate::weir::Folder;

const GOOD: &str = r#"{"listen": "127.0.0.1:0", "upstreams":
    [{"name": "box", "format": "openai", "base_url": "http://127.0.0.1:9", "models": ["*"]}]}"#;

/// As `rc.common` and `procd.sh` do it: whatever `start_service` gives back, the service is closed
/// behind it, and one without an instance is ended.
const OPENWRT: &str = r#"
rc_procd() {
	procd_open_service weir
	"$@"
	procd_close_service set
}
procd_open_service() { echo "open service $1"; }
procd_close_service() { echo "close service $1"; }
procd_open_instance() { echo "open instance"; }
procd_close_instance() { echo "close instance"; }
procd_set_param() { echo "$*"; }
procd_send_signal() { echo "signal $*"; }
start() { rc_procd start_service; }
reload() {
	if type reload_service >/dev/null 2>&1; then reload_service; else start; fi
}
. "$1"
[ "$USE_PROCD" = 1 ] && [ -n "$START" ] && "$2"
"#;

const OPENRC: &str = r#"
checkpath() { echo "checkpath $*"; }
ebegin() { echo "$*"; }
eend() { return "$1"; }
RC_SVCNAME=weir
RC_CMD="$3"
. "$1"
"$2" || exit 1
echo "run $command $command_args"
"#;

struct Bench {
    folder: Folder,
    script: PathBuf,
}

impl Bench {
    /// The script as it is printed, with this weir and a config of its own.
    fn new(what: &str) -> Bench {
        let folder = Folder::new();
        let config = folder.path().join("weir.json");
        fs::write(&config, GOOD).unwrap();
        let text = printed(what)
            .replace("/usr/bin/weir", env!("CARGO_BIN_EXE_weir"))
            .replace("/etc/weir/weir.json", config.to_str().unwrap());
        let script = folder.path().join("script");
        fs::write(&script, text).unwrap();
        Bench { folder, script }
    }

    fn break_config(&self) {
        fs::write(self.folder.path().join("weir.json"), "{").unwrap();
    }

    /// Runs the stand-ins with the script and these words, in each shell that there is.
    fn run(&self, system: &str, words: &[&str]) -> Output {
        let bin = self.folder.path().join("bin");
        fs::create_dir_all(&bin).unwrap();
        let daemon = bin.join("supervise-daemon");
        fs::write(&daemon, "#!/bin/sh\necho \"supervise-daemon $*\"\n").unwrap();
        fs::set_permissions(&daemon, fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        let mut shells = vec![vec!["sh".to_owned()]];
        if let Some(busybox) = program(&["busybox"]) {
            shells.push(vec![busybox.display().to_string(), "sh".to_owned()]);
        }
        let outputs: Vec<Output> = shells
            .iter()
            .map(|shell| {
                Command::new(&shell[0])
                    .args(&shell[1..])
                    .args(["-c", system, "stand-in"])
                    .arg(&self.script)
                    .args(words)
                    .env("PATH", &path)
                    .output()
                    .unwrap()
            })
            .collect();
        for other in &outputs[1..] {
            assert_eq!(outputs[0].status.code(), other.status.code());
            assert_eq!(outputs[0].stdout, other.stdout);
        }
        outputs.into_iter().next().unwrap()
    }
}

fn lines(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(str::to_owned).collect()
}

/// Starts what the script would, and asks it.
fn answers(command: &str) {
    let mut words = command.split(' ');
    let mut child = Command::new(words.next().unwrap())
        .args(words)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let stdout = child.stdout.take().unwrap();
    BufReader::new(stdout).read_line(&mut line).unwrap();
    let addr = line.trim().strip_prefix("http://").map(str::parse);
    let status = addr.map(|addr| get(addr.unwrap(), "/healthz").status);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(status, Some(200), "{command}: {line}");
}

fn config_of(bench: &Bench) -> String {
    let path: &Path = bench.folder.path();
    path.join("weir.json").display().to_string()
}

#[test]
fn procd_is_told_to_run_it() {
    let bench = Bench::new("procd");
    let output = bench.run(OPENWRT, &["start"]);
    assert!(output.status.success(), "{output:?}");
    let config = config_of(&bench);
    let command = format!("{} --config {config}", env!("CARGO_BIN_EXE_weir"));
    assert_eq!(
        lines(&output),
        [
            "open service weir",
            "open instance",
            &format!("command {command}"),
            &format!("file {config}"),
            "limits nofile=16384 16384",
            "reload_signal HUP",
            "term_timeout 45",
            "respawn",
            "stderr 1",
            "close instance",
            "close service set",
        ]
    );
    answers(&command);
    assert_eq!(
        lines(&bench.run(OPENWRT, &["reload"])),
        ["signal weir * HUP"]
    );
}

#[test]
fn procd_goes_on_with_what_runs_when_the_config_is_broken() {
    let bench = Bench::new("procd");
    bench.break_config();
    for what in ["start", "reload"] {
        let output = bench.run(OPENWRT, &[what]);
        assert_eq!(output.status.code(), Some(1), "{what}");
        let told = lines(&output);
        assert!(
            !told
                .iter()
                .any(|line| line.starts_with("close") || line.starts_with("signal")),
            "{what}: {told:?}"
        );
        assert!(String::from_utf8_lossy(&output.stderr).contains("not valid JSON"));
    }
}

#[test]
fn openrc_starts_it_and_has_it_read_its_config() {
    let bench = Bench::new("openrc");
    let output = bench.run(OPENRC, &["start_pre", "start"]);
    assert!(output.status.success(), "{output:?}");
    let told = lines(&output);
    assert_eq!(
        told[0],
        "checkpath --file --owner weir:weir --mode 0640 /var/log/weir.log"
    );
    answers(told[1].strip_prefix("run ").unwrap());
    let told = lines(&bench.run(OPENRC, &["reload", "reload"]));
    let daemon = "supervise-daemon weir --signal HUP --pidfile /run/weir.pid";
    assert_eq!(told[..2], ["Reloading weir", daemon]);

    bench.break_config();
    for (step, command, code) in [
        ("start_pre", "start", 1),
        ("reload", "reload", 1),
        ("stop_pre", "restart", 1),
        ("stop_pre", "stop", 0),
    ] {
        let output = bench.run(OPENRC, &[step, command]);
        assert_eq!(output.status.code(), Some(code), "{step} of {command}");
        let told = lines(&output);
        assert!(!told.contains(&daemon.to_owned()), "{told:?}");
    }
}
