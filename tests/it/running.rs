//! Weir under something else: the files that it prints, checked by the programs that read them,
//! and a socket that was opened for it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::client::get;
use crate::observe::program;
use crate::upstream::Upstream;
use crate::weir::{Folder, Weir, run};

fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_weir")
}

pub fn printed(what: &str) -> String {
    let output = Command::new(binary())
        .args(["--print", what])
        .output()
        .unwrap();
    assert!(output.status.success(), "{what}");
    String::from_utf8(output.stdout).unwrap()
}

/// Exit code zero, and what it said otherwise.
fn fine(command: &mut Command) {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

#[test]
fn systemd_understands_the_units() {
    let Some(analyze) = program(&["systemd-analyze"]) else {
        return;
    };
    let text = printed("systemd").replace("/usr/local/bin/weir", binary());
    let folder = Folder::new();
    let mut files = Vec::new();
    for part in text.split("\n# ---- ").skip(1) {
        let (path, unit) = part.split_once('\n').unwrap();
        let name = Path::new(path).file_name().unwrap();
        let file = folder.path().join(name);
        fs::write(&file, unit).unwrap();
        files.push(file);
    }
    assert_eq!(files.len(), 2);
    let output = Command::new(&analyze)
        .arg("verify")
        .args(&files)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("weir."), "{said}");
    // Hardened as far as a network service can be; an older systemd cannot say it offline.
    let output = Command::new(&analyze)
        .args(["security", "--offline=true", "--threshold=20"])
        .arg(&files[0])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    if said.contains("exposure level") {
        assert!(output.status.success(), "{said}");
    }
}

#[test]
fn haproxy_understands_its_config() {
    let Some(haproxy) = program(&["haproxy"]) else {
        return;
    };
    let folder = Folder::new();
    let file = folder.path().join("haproxy.cfg");
    fs::write(&file, printed("haproxy")).unwrap();
    fine(Command::new(haproxy).arg("-c").arg("-f").arg(&file));
}

#[test]
fn nginx_understands_its_config() {
    let Some(nginx) = program(&["nginx"]) else {
        return;
    };
    let folder = Folder::new();
    let at = |name: &str| folder.path().join(name).display().to_string();
    // Its certificate is the operator's own; what stands around it is nginx's main file.
    let text = printed("nginx");
    let bare: String = text
        .replace("listen 443 ssl;", "listen 127.0.0.1:8443;")
        .lines()
        .filter(|line| !line.trim_start().starts_with("ssl_certificate"))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(text.lines().count(), bare.lines().count() + 2);
    let main = format!(
        "pid {}; error_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n{}\n{bare}}}\n",
        at("pid"),
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {};", at(kind)))
            .join("\n"),
    );
    fs::write(at("nginx.conf"), main).unwrap();
    fine(Command::new(nginx).args(["-t", "-c", &at("nginx.conf")]));
}

#[test]
fn caddy_understands_its_config() {
    let Some(caddy) = program(&["caddy"]) else {
        return;
    };
    let folder = Folder::new();
    let file = folder.path().join("Caddyfile");
    fs::write(&file, printed("caddy")).unwrap();
    fine(
        Command::new(caddy)
            .args(["validate", "--adapter", "caddyfile", "--config"])
            .arg(&file)
            .env("HOME", folder.path())
            .env("XDG_DATA_HOME", folder.path()),
    );
}

#[test]
fn shells_understand_the_init_scripts() {
    for what in ["openrc", "procd"] {
        let folder = Folder::new();
        let file = folder.path().join(what);
        fs::write(&file, printed(what)).unwrap();
        fine(Command::new("sh").arg("-n").arg(&file));
    }
}

#[test]
fn what_is_printed_names_things_that_exist() {
    for what in [
        "systemd",
        "openrc",
        "procd",
        "container",
        "haproxy",
        "nginx",
        "caddy",
    ] {
        let text = printed(what);
        assert!(text.len() > 300 && text.ends_with('\n'), "{what}");
        let reference = printed("reference");
        for word in ["drain_ms", "deadline_ms", "max_body_bytes", "client_keys"] {
            assert!(!text.contains(word) || reference.contains(&format!("`{word}`")));
        }
    }
}

/// A weir with a socket as descriptor 3. Dropping it kills it.
struct Activated(Child);

impl Drop for Activated {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn activate(socket: OwnedFd, script: &str) -> (Activated, String) {
    let mut child = Command::new("sh")
        .arg("-c")
        .arg(format!("{script} exec \"$0\" --listen 127.0.0.1:0 3<&0"))
        .arg(binary())
        .env_clear()
        .stdin(Stdio::from(socket))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let stdout = child.stdout.take().unwrap();
    BufReader::new(stdout).read_line(&mut line).unwrap();
    (Activated(child), line.trim().to_owned())
}

const FOR_US: &str = "LISTEN_FDS=1 LISTEN_PID=$$";

#[test]
fn a_socket_that_was_handed_over_is_used() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr: SocketAddr = listener.local_addr().unwrap();
    let (_weir, told) = activate(listener.into(), FOR_US);
    assert_eq!(told, format!("http://{addr}"));
    assert_eq!(get(addr, "/healthz").status, 200);
    assert_eq!(get(addr, "/readyz").status, 200);
}

#[test]
fn a_socket_that_was_handed_over_goes_on_to_listen_after_the_end() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let (mut first, _) = activate(listener.try_clone().unwrap().into(), FOR_US);
    assert_eq!(get(addr, "/healthz").status, 200);
    let pid = libc::pid_t::try_from(first.0.id()).unwrap();
    // SAFETY: no memory is involved, and the process is our child that was not waited for.
    #[allow(unsafe_code)]
    let done = unsafe { libc::kill(pid, libc::SIGTERM) };
    assert_eq!(done, 0);
    assert_eq!(first.0.wait().unwrap().code(), Some(0));
    // Asked while nobody serves, answered by the next one.
    let asked = std::thread::spawn(move || get(addr, "/healthz").status);
    let (_second, _) = activate(listener.into(), FOR_US);
    assert_eq!(asked.join().unwrap(), 200);
}

#[test]
fn a_unix_socket_that_was_handed_over_is_used_and_its_file_stays() {
    let folder = Folder::new();
    let path = folder.path().join("weir.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let (weir, told) = activate(listener.into(), FOR_US);
    assert_eq!(told, format!("unix:{}", path.display()));
    drop(weir);
    assert!(path.exists());
}

#[test]
fn a_socket_for_another_process_is_left_alone() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let (_weir, told) = activate(listener.into(), "LISTEN_FDS=1 LISTEN_PID=1");
    assert!(told.starts_with("http://127.0.0.1:"), "{told}");
    assert_ne!(told, format!("http://{addr}"));
}

#[test]
fn a_socket_that_others_can_reach_needs_client_keys() {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let (mut weir, told) = activate(listener.into(), FOR_US);
    assert_eq!(told, "");
    assert_eq!(weir.0.wait().unwrap().code(), Some(1));
}

#[test]
fn a_running_weir_is_asked_for_its_health_by_another_one() {
    let weir = Weir::start_bare(&["--demo"], &[]);
    let address = weir.addr.to_string();
    let ask = |address: &str| run(None, &["--health", "--listen", address], &[]);
    let ended = ask(&address);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!((&*ended.stdout, &*ended.stderr), ("", ""));
    // One that listens everywhere is asked at home.
    let everywhere = format!("0.0.0.0:{}", weir.addr.port());
    let settings = r#"{"open": true, "upstreams": [{"name": "up", "format": "openai",
        "base_url": "http://127.0.0.1:1", "models": ["*"]}]}"#;
    let ended = run(Some(settings), &["--health", "--listen", &everywhere], &[]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let nobody = Upstream::nobody().replace("http://", "");
    let nobody = nobody.split('/').next().unwrap();
    let ended = ask(nobody);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("nobody answers at"), "{ended:?}");
    let folder = Folder::new();
    let path = folder.path().join("weir.sock");
    let listen = format!("unix:{}", path.display());
    assert_eq!(ask(&listen).code, Some(1));
    let _local = Weir::start_bare(&["--demo", "--listen", &listen], &[]);
    assert_eq!(ask(&listen).code, Some(0));
}

#[test]
fn too_few_descriptors_are_told_rather_than_served_with() {
    use std::process::Command;

    let script = "ulimit -n 24; exec \"$0\" --demo --listen 127.0.0.1:0";
    let ended = Command::new("/bin/sh")
        .args(["-c", script])
        .arg(crate::weir::binary())
        .output()
        .unwrap();
    assert_eq!(ended.status.code(), Some(1));
    let told = String::from_utf8_lossy(&ended.stderr);
    assert!(told.contains("the limit of open files is 24"), "{told}");
}

#[test]
fn something_that_is_no_listening_socket_is_refused() {
    let datagrams = std::os::unix::net::UnixDatagram::unbound().unwrap();
    let (pair, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    for handed in [OwnedFd::from(datagrams), OwnedFd::from(pair)] {
        let (mut weir, told) = activate(handed, FOR_US);
        assert_eq!(told, "");
        assert_eq!(weir.0.wait().unwrap().code(), Some(1));
    }
}

#[test]
fn a_proxy_of_the_environment_is_complained_about_where_it_would_be_used() {
    let socks = [("ALL_PROXY", "socks5h://127.0.0.1:9")];
    // The demo, as anything on this machine, is asked directly.
    let weir = Weir::start_bare(&["--demo"], &socks);
    assert_eq!(get(weir.addr, "/healthz").status, 200);
    let settings = r#"{"upstreams": [{"name": "far", "format": "openai",
        "base_url": "http://far.example/v1", "models": ["*"]}]}"#;
    for arguments in [&["--check-config"][..], &["--listen", "127.0.0.1:0"]] {
        let ended = run(Some(settings), arguments, &socks);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains("far: ALL_PROXY: "), "{ended:?}");
    }
    let near = settings.replace("far.example", "127.0.0.1:9");
    let ended = run(Some(&near), &["--check-config"], &socks);
    assert_eq!(ended.code, Some(0), "{ended:?}");
}
