//! Lines against scripted upstreams on loopback. Every wait here has a limit.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::*;
use crate::cancel::Cancel;

pub mod authority;
mod framing;
mod http;
mod proxy;
mod tls;

pub const LIMIT: Duration = Duration::from_secs(10);

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Seen: yes\r\n\r\nok";

fn settings() -> Settings {
    Settings {
        connect: LIMIT,
        proxy: Some(String::new()),
        ca_file: None,
        connections: 4,
        idle_age: Duration::from_secs(50),
    }
}

fn line() -> Line {
    Line::new(&settings()).unwrap()
}

/// An upstream that plays `script` on each connection, one after the other, and tells what it has
/// to tell.
pub struct Upstream {
    pub addr: SocketAddr,
    pub told: Receiver<String>,
}

impl Upstream {
    /// `script` gets the connection, its number from 0, and a way to tell.
    pub fn play(
        script: impl Fn(&mut TcpStream, usize, &Sender<String>) + Send + 'static,
    ) -> Upstream {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (tell, told) = unbounded();
        // Ends with the test program, as it may be waiting for a connection.
        thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let mut stream = stream.unwrap();
                stream.set_read_timeout(Some(LIMIT)).unwrap();
                stream.set_write_timeout(Some(LIMIT)).unwrap();
                script(&mut stream, number, &tell);
                drop(stream);
                let _ = tell.send("closed".into());
            }
        });
        Upstream { addr, told }
    }

    /// Answers each request on each connection with `answer`, and tells each head.
    fn answering(answer: &'static str) -> Upstream {
        Upstream::play(move |stream, number, tell| {
            while let Some((head, body)) = request(stream) {
                let _ = tell.send(format!("{number}: {head}{}", text(&body)));
                stream.write_all(answer.as_bytes()).unwrap();
            }
        })
    }

    fn url(&self) -> String {
        format!("http://{}/v1/x?y=z", self.addr)
    }

    pub fn next(&self) -> String {
        self.told.recv_timeout(LIMIT).unwrap()
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Head and body of the next request; `None` when there is none.
pub fn request(stream: &mut impl Read) -> Option<(String, Vec<u8>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return None,
        }
    }
    let head = text(&head);
    let length = head.lines().find_map(|line| {
        line.to_ascii_lowercase()
            .strip_prefix("content-length: ")?
            .parse()
            .ok()
    });
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).ok()?;
    Some((head, body))
}

fn whole(mut answer: Answer) -> String {
    let mut all = String::new();
    answer.body.read_to_string(&mut all).unwrap();
    all
}

/// What reading the body to its end came to: the bytes until the fault, and the fault, which must
/// stay when the body is read again.
fn fault(mut answer: Answer) -> (String, Broken) {
    let mut all = Vec::new();
    let error = answer.body.read_to_end(&mut all).unwrap_err();
    let again = answer.body.read(&mut [0; 8]).unwrap_err();
    assert_eq!(error.to_string(), again.to_string());
    let broken = error.downcast::<Broken>().unwrap();
    assert_eq!(broken.phase, Phase::Body);
    (text(&all), broken)
}

/// Pulls `cancel` when the upstream tells `at`.
fn pull_at(
    upstream: &Upstream,
    at: &'static str,
    cancel: &Arc<Cancel>,
    cause: Cause,
) -> thread::JoinHandle<()> {
    let (told, cancel) = (upstream.told.clone(), Arc::clone(cancel));
    thread::spawn(move || {
        while told.recv_timeout(LIMIT).unwrap() != at {}
        cancel.pull(cause);
    })
}
