//! Callers on a unix socket: the same limits as for those who come over TCP.

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

/// A weir with one place for chats, on a socket in a folder that must outlive it.
struct Local {
    _weir: Weir,
    path: PathBuf,
    _folder: Folder,
}

impl Local {
    fn start(scripted: &Upstream, write_timeout: u64) -> Local {
        let folder = Folder::new();
        let path = folder.path().join("weir.sock");
        let mut settings = config(Format::OpenAi, &scripted.url(), &["k"]);
        settings["workers"] = json!(1);
        settings["write_timeout_ms"] = json!(write_timeout);
        settings["body_wait_ms"] = json!(400);
        let listen = format!("unix:{}", path.display());
        Local {
            _weir: Weir::start_with(&settings, &["--listen", &listen], &[]),
            path,
            _folder: folder,
        }
    }

    fn connect(&self) -> Client {
        Client::connect_unix(&self.path)
    }

    /// Asks until there is a place. Gives what the answer says.
    fn ask(&self, content: &str) -> String {
        until(LIMIT, "a place", || {
            let mut client = self.connect();
            client.post(&says(content, false));
            let answer = client.answer(LIMIT);
            (answer.status == 200).then(|| Completion::whole(&answer.json()).content)
        })
    }
}

fn says(content: &str, stream: bool) -> serde_json::Value {
    let mut body = chat(MODEL, stream);
    body["messages"][0]["content"] = json!(content);
    body
}

/// Answers with much if asked for it.
fn upstream() -> Upstream {
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
