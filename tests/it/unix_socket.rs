//! Callers on a unix socket: the same limits as for those who come over TCP, and no broken answer
//! that looks whole.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::{Client, chat, request};
use crate::completion::Completion;
use crate::upstream::{Format, Reply, Upstream};
use crate::wait::{LIMIT, until};
use crate::weir::{Folder, Weir, config};

const MODEL: &str = "up/gpt-4o-mini";

/// More than any socket's buffer holds.
const LARGE: usize = 8 << 20;

/// A weir with one place for chats or some, on a socket in a folder that must outlive it.
pub struct Local {
    pub weir: Weir,
    path: PathBuf,
    _folder: Folder,
}

impl Local {
    pub fn start(scripted: &Upstream, write_timeout: u64) -> Local {
        Local::with(scripted, write_timeout, 400, 1)
    }

    pub fn with(scripted: &Upstream, write_ms: u64, body_ms: u64, workers: usize) -> Local {
        let folder = Folder::new();
        let path = folder.path().join("weir.sock");
        let mut settings = config(Format::OpenAi, &scripted.url(), &["k"]);
        settings["workers"] = json!(workers);
        settings["write_timeout_ms"] = json!(write_ms);
        settings["body_wait_ms"] = json!(body_ms);
        let listen = format!("unix:{}", path.display());
        Local {
            weir: Weir::start_with(&settings, &["--listen", &listen], &[]),
            path,
            _folder: folder,
        }
    }

    pub fn connect(&self) -> Client {
        Client::connect_unix(&self.path)
    }

    /// Asks until there is a place. Gives what the answer says.
    pub fn ask(&self, content: &str) -> String {
        until(LIMIT, "a place", || {
            let mut client = self.connect();
            client.post(&says(content, false));
            let answer = client.answer(LIMIT);
            (answer.status == 200).then(|| Completion::whole(&answer.json()).content)
        })
    }
}

pub fn says(content: &str, stream: bool) -> serde_json::Value {
    let mut body = chat(MODEL, stream);
    body["messages"][0]["content"] = json!(content);
    body
}

/// Answers with much if asked for it.
pub fn upstream() -> Upstream {
    let large = "x".repeat(LARGE);
    let endless = Reply::stream().events(&vec![
        Format::OpenAi.events(&[&"y".repeat(1 << 20)])[1]
            .clone();
        8
    ]);
    Upstream::start(
        move |request| match String::from_utf8_lossy(&request.body).contains("much") {
            false => Format::OpenAi.answer(request, &["hi"]),
            true if request.wants_stream() => endless.clone().hang(),
            true => Format::OpenAi.whole(&large),
        },
    )
}

#[test]
fn an_offer_of_an_upgrade_is_passed_over_here_as_well() {
    let scripted = Upstream::start(|request| Format::OpenAi.answer(request, &["hi"]));
    let local = Local::start(&scripted, 1_000);
    let offer = [("Connection", "Upgrade"), ("Upgrade", "h2c")];
    let chunked = [&offer[..], &[("Transfer-Encoding", "chunked")]].concat();
    let body = chat(MODEL, false).to_string();
    let chunks = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    for (headers, body, sent) in [
        (&offer[..], body.as_str(), ""),
        (&chunked[..], "", chunks.as_str()),
    ] {
        let mut client = Client::connect_unix(&local.path);
        client.send(&request(
            "POST",
            "/v1/chat/completions",
            headers,
            body.as_bytes(),
        ));
        client.send(sent.as_bytes());
        let answer = client.answer(LIMIT);
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("connection"), Some("close"));
        client.until_closed(LIMIT);
    }
    // Too long for anybody, and never sent.
    let mut client = Client::connect_unix(&local.path);
    let long = [&offer[..], &[("Content-Length", "300000000")]].concat();
    client.send(&request("POST", "/v1/chat/completions", &long, b""));
    client.finish_sending();
    assert_eq!(client.answer(LIMIT).status, 413);
    assert_eq!(scripted.count(), 2);
}

#[test]
fn a_reader_who_stops_gives_its_worker_back_after_write_timeout_ms() {
    let scripted = upstream();
    let weir = Local::start(&scripted, 400);
    let mut deaf = Vec::new();
    for round in 0..2 {
        for stream in [false, true] {
            // Somebody else's turn comes only when the last one's is over.
            assert_eq!(weir.ask("hello"), "hi", "{round}");
            let mut client = weir.connect();
            client.post(&says("much", stream));
            client.first_read(LIMIT);
            deaf.push(client);
        }
    }
    assert_eq!(weir.ask("hello"), "hi");
    drop(deaf);
}

#[test]
fn a_reader_who_is_slow_but_goes_on_gets_everything() {
    let scripted = upstream();
    let weir = Local::start(&scripted, 1_500);
    let mut client = weir.connect();
    client.post(&says("much", false));
    let begun = Instant::now();
    // For longer than a wait may take, and never silent for so long.
    while begun.elapsed() < Duration::from_secs(2) {
        client.until_closed_or_answered(LIMIT);
        std::thread::sleep(Duration::from_millis(50));
    }
    let answer = client.answer(LIMIT);
    assert_eq!(Completion::whole(&answer.json()).content.len(), LARGE);
}

#[test]
fn a_body_that_does_not_come_gives_its_worker_back_after_body_wait_ms() {
    let scripted = upstream();
    let weir = Local::start(&scripted, 400);
    // More than there are workers, spare ones included.
    let mut slow: Vec<Client> = (0..8)
        .map(|_| {
            let mut client = weir.connect();
            let length = ("Content-Length", "5000");
            client.send(&request("POST", "/v1/chat/completions", &[length], b""));
            client.send(b"{");
            client
        })
        .collect();
    assert_eq!(weir.ask("hello"), "hi");
    for client in &mut slow {
        let got = String::from_utf8_lossy(&client.until_closed(LIMIT)).into_owned();
        let told = ["HTTP/1.1 408", "HTTP/1.1 503"];
        assert!(told.iter().any(|start| got.starts_with(start)), "{got}");
    }
}

#[test]
fn callers_who_announce_much_and_leave_leave_no_thread_behind() {
    let scripted = upstream();
    let weir = Local::start(&scripted, 400);
    assert_eq!(weir.ask("hello"), "hi");
    let process = &weir.weir;
    let (threads, fds) = (process.threads(), process.fds());
    for number in 0..60 {
        let mut client = weir.connect();
        let length = ["40000000", "300000000"][number % 2];
        let head = request(
            "POST",
            "/v1/chat/completions",
            &[("Content-Length", length)],
            &vec![b' '; number * 1000],
        );
        // Its own request is refused or its end is seen, whichever comes first.
        let _ = client.try_send(&head);
        client.hang_up();
    }
    until(2 * LIMIT, "threads and descriptors to go back", || {
        (process.threads() <= threads + 8 && process.fds() <= fds + 16).then_some(())
    });
    assert_eq!(weir.ask("hello"), "hi");
}

#[test]
fn a_body_of_more_than_a_gigabyte_is_taken_to_its_end_and_refused() {
    let scripted = upstream();
    let weir = Local::start(&scripted, 30_000);
    let length = (1 << 30) + (100 << 20);
    let mut client = weir.connect();
    let header = ("Content-Length", &*length.to_string());
    client.send(&request("POST", "/v1/chat/completions", &[header], b""));
    let piece = vec![b' '; 1 << 20];
    for _ in 0..length >> 20 {
        client.send(&piece);
    }
    assert_eq!(client.answer(LIMIT).status, 413);
    // What follows is the next request.
    client.post(&says("hello", false));
    assert_eq!(client.answer(LIMIT).status, 200);
    assert!(weir.weir.peak_rss_kib() < 200 << 10);
}

const SPEECH: &str = "/v1/audio/speech";

/// An answer of any kind in two pieces, with or without a length of its own.
fn speech(sized: bool, breaks: bool) -> Reply {
    let head = match sized {
        true => "Content-Length: 10",
        false => "Transfer-Encoding: chunked",
    };
    let (first, rest) = match sized {
        true => ("hello", "world"),
        false => ("5\r\nhello\r\n", "5\r\nworld\r\n0\r\n\r\n"),
    };
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\n{head}\r\n\r\n{first}");
    let begun = Reply::silence()
        .raw(head)
        .flush()
        .delay(Duration::from_millis(50));
    match breaks {
        true => begun.close(),
        false => begun.raw(rest),
    }
}

/// What a caller of this version gets of it until the connection ends.
fn spoken(version: &str, sized: bool, breaks: bool) -> String {
    let scripted = Upstream::always(speech(sized, breaks));
    let weir = Local::start(&scripted, 1_500);
    let body = json!({"model": MODEL, "input": "hello", "voice": "alloy"}).to_string();
    let length = body.len().to_string();
    let headers = [("Content-Length", &*length), ("Connection", "close")];
    let mut client = weir.connect();
    let whole = request("POST", SPEECH, &headers, b"");
    let head = String::from_utf8(whole).unwrap();
    client.send(head.replace("HTTP/1.1", version).as_bytes());
    client.send(body.as_bytes());
    String::from_utf8_lossy(&client.until_closed(LIMIT)).into_owned()
}

#[test]
fn an_answer_that_breaks_off_is_never_taken_for_a_whole_one() {
    for sized in [false, true] {
        let got = spoken("HTTP/1.1", sized, true);
        // No client takes this for the length of a chunk, and nobody has to wait for the rest.
        assert!(
            got.contains("Transfer-Encoding: chunked\r\n"),
            "{sized}: {got}"
        );
        assert!(got.ends_with("\r\n5\r\nhello\r\n!\r\n"), "{sized}: {got}");
    }
    // Without chunks, one that has a length falls short of it.
    let got = spoken("HTTP/1.0", true, true);
    assert!(got.contains("Content-Length: 10\r\n"), "{got}");
    assert!(got.ends_with("\r\n\r\nhello"), "{got}");
    // And one that has none is not begun before its end is there.
    let got = spoken("HTTP/1.0", false, true);
    assert!(got.starts_with("HTTP/1.1 502 "), "{got}");
}

#[test]
fn an_answer_of_any_kind_comes_whole() {
    for sized in [false, true] {
        let got = spoken("HTTP/1.1", sized, false);
        assert!(got.starts_with("HTTP/1.1 200 "), "{sized}: {got}");
        let end = "\r\n\r\n5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n";
        assert!(got.ends_with(end), "{sized}: {got}");
        let got = spoken("HTTP/1.0", sized, false);
        assert!(got.starts_with("HTTP/1.1 200 "), "{sized}: {got}");
        assert!(got.contains("Content-Length: 10\r\n"), "{sized}: {got}");
        assert!(got.ends_with("\r\n\r\nhelloworld"), "{sized}: {got}");
    }
}

#[test]
fn the_socket_of_somebody_else_is_left_alone() {
    use std::os::unix::net::UnixListener;

    let scripted = Upstream::start(|request| Format::OpenAi.answer(request, &["hi"]));
    let settings = config(Format::OpenAi, &scripted.url(), &["k"]);
    // Alive, and too busy to take anybody in.
    let folder = Folder::new();
    let path = folder.path().join("busy.sock");
    let busy = UnixListener::bind(&path).unwrap();
    let mut waiting = Vec::new();
    busy.set_nonblocking(true).unwrap();
    fill(&path, &mut waiting);
    let listen = format!("unix:{}", path.display());
    let ended = crate::weir::run(Some(&settings.to_string()), &["--listen", &listen], &[]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(path.exists());
    drop(waiting);

    // Whoever took the path over keeps it when the first one ends.
    let mut local = Local::start(&scripted, 1_000);
    std::fs::remove_file(&local.path).unwrap();
    let successor = UnixListener::bind(&local.path).unwrap();
    local.weir.signal(libc::SIGTERM);
    assert_eq!(local.weir.wait_exit(LIMIT).code(), Some(0));
    assert!(local.path.exists());
    drop(successor);
}

/// Connects until nobody is let in any more.
fn fill(path: &std::path::Path, waiting: &mut Vec<eager::Stream>) {
    while let Some(stream) = eager::connect(path) {
        waiting.push(stream);
        assert!(waiting.len() < 100_000);
    }
}

/// A connect that does not wait.
mod eager {
    use std::os::fd::{FromRawFd, OwnedFd};
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    pub type Stream = OwnedFd;

    #[allow(unsafe_code)]
    pub fn connect(path: &Path) -> Option<Stream> {
        // SAFETY: an address of zeros is valid; the descriptor is owned at once.
        unsafe {
            let mut address: libc::sockaddr_un = std::mem::zeroed();
            address.sun_family = libc::AF_UNIX as libc::sa_family_t;
            for (place, byte) in address.sun_path.iter_mut().zip(path.as_os_str().as_bytes()) {
                *place = *byte as libc::c_char;
            }
            let fd = libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0);
            let socket = OwnedFd::from_raw_fd(fd);
            let length = size_of::<libc::sockaddr_un>() as libc::socklen_t;
            (libc::connect(fd, (&raw const address).cast(), length) == 0).then_some(socket)
        }
    }
}
