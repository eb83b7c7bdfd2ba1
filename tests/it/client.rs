//! A caller: a raw HTTP/1.1 client that can send in pieces, read byte for byte, and leave rudely.

use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::wait::LIMIT;
use crate::wire::{self, Head, Wire};

/// One connection to weir, for one request after the other.
pub struct Client {
    wire: Wire,
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        wire::find(&self.headers, name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {} {}", self.status, self.text()))
    }
}

/// What an event stream brings.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// The text behind `data:`, of several lines joined.
    Data(String),
    /// The text behind the colon.
    Comment(String),
    /// Lines that this dialect never sends, whole.
    Odd(String),
}

/// How an event stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By the framing: the last chunk came.
    Framed,
    /// The connection ended in the middle.
    Cut,
}

/// One item and when its last byte was here.
#[derive(Debug, Clone)]
pub struct Arrived {
    pub item: Item,
    pub at: Instant,
}

/// The request for a chat completion that most tests send.
pub fn chat(model: &str, stream: bool) -> Value {
    json!({
        "model": model, "stream": stream,
        "messages": [{"role": "user", "content": "Hello?"}]
    })
}

/// A request as bytes. `Host` is added, and a length if there is a body.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        text.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    text.push_str("\r\n");
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// One request on a connection of its own.
pub fn ask(
    addr: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut client = Client::connect(addr);
    client.send(&request(method, path, headers, body));
    client.answer(LIMIT)
}

pub fn get(addr: SocketAddr, path: &str) -> Answer {
    ask(addr, "GET", path, &[], b"")
}

/// A chat request on a connection of its own, answered whole.
pub fn post(addr: SocketAddr, body: &Value) -> Answer {
    let mut client = Client::connect(addr);
    client.post(body);
    client.answer(LIMIT)
}

impl Client {
    pub fn connect(addr: SocketAddr) -> Client {
        Client::try_connect(addr).unwrap_or_else(|| panic!("no connection to {addr}"))
    }

    /// A connection over a unix socket.
    pub fn connect_unix(path: &std::path::Path) -> Client {
        let stream = std::os::unix::net::UnixStream::connect(path).unwrap();
        // What is done with it is the same for both kinds.
        let stream = TcpStream::from(std::os::fd::OwnedFd::from(stream));
        Client {
            wire: Wire::new(stream),
        }
    }

    pub fn try_connect(addr: SocketAddr) -> Option<Client> {
        let stream = TcpStream::connect_timeout(&addr, LIMIT).ok()?;
        stream.set_nodelay(true).unwrap();
        // A peer that stops reading must not hold the test for ever.
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        Some(Client {
            wire: Wire::new(stream),
        })
    }

    /// A connection from a port of the caller's choice, or with 0 from one that nobody else has.
    /// (Without a choice, the kernel gives one that is in use for other connections.)
    pub fn connect_from(port: u16, addr: SocketAddr) -> io::Result<Client> {
        let stream = wire::connect_from(port, addr)?;
        Ok(Client {
            wire: Wire::new(stream),
        })
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.wire.stream.local_addr().unwrap()
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).unwrap();
    }

    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.wire.stream.write_all(bytes)
    }

    /// Sends a chat request; the answer is read by `answer` or `head` and the stream calls.
    pub fn post(&mut self, body: &Value) {
        let headers = [("Content-Type", "application/json")];
        let body = body.to_string();
        self.send(&request(
            "POST",
            "/v1/chat/completions",
            &headers,
            body.as_bytes(),
        ));
    }

    pub fn head(&mut self, limit: Duration) -> Head {
        match self.wire.head(Some(Instant::now() + limit)) {
            Ok(Some(head)) => head,
            Ok(None) => panic!(
                "the connection from {:?} ended before an answer",
                self.wire.stream.local_addr()
            ),
            Err(error) => panic!("no head within {limit:?}: {error}"),
        }
    }

    /// A whole answer: length, chunks, or until the end of the connection.
    pub fn answer(&mut self, limit: Duration) -> Answer {
        let head = self.head(limit);
        let status = status(&head);
        let deadline = Some(Instant::now() + limit);
        let bodiless = status == 204 || status == 304 || status < 200;
        let body = if bodiless || head.is_chunked() || head.length().is_some() {
            self.wire.body(&head, deadline).unwrap_or_else(|error| {
                panic!(
                    "{} {:?}: the body broke off: {error}",
                    head.start, head.headers
                )
            })
        } else {
            while self.wire.fill(deadline).unwrap() > 0 {}
            self.wire.unused().to_vec()
        };
        Answer {
            status,
            headers: head.headers,
            body,
        }
    }

    /// What one single read brings.
    pub fn first_read(&mut self, limit: Duration) -> Vec<u8> {
        assert!(self.wire.unused().is_empty(), "something was read before");
        self.wire.fill(Some(Instant::now() + limit)).unwrap();
        self.wire.unused().to_vec()
    }

    /// Reads the head of an event stream and hands out what follows item by item.
    pub fn stream(self, limit: Duration) -> Stream {
        let mut client = self;
        let head = client.head(limit);
        let status = status(&head);
        if status != 200 {
            let body = client
                .wire
                .body(&head, Some(Instant::now() + limit))
                .unwrap_or_default();
            panic!("{}: {}", head.start, String::from_utf8_lossy(&body));
        }
        Stream {
            client,
            head,
            text: Vec::new(),
            end: None,
        }
    }

    /// An orderly end of both directions.
    pub fn hang_up(self) {
        let _ = self.wire.stream.shutdown(Shutdown::Both);
    }

    /// An orderly end of the sending direction; the other stays open.
    pub fn finish_sending(&self) {
        let _ = self.wire.stream.shutdown(Shutdown::Write);
    }

    /// Ends with a reset.
    pub fn reset(self) {
        wire::reset(self.wire.stream);
    }

    /// What comes within `limit`: the begin of an answer, or nothing. Never panics, for callers
    /// who try again.
    pub fn until_closed_or_answered(&mut self, limit: Duration) -> Vec<u8> {
        let _ = self.wire.fill(Some(Instant::now() + limit));
        self.wire.unused().to_vec()
    }

    /// Waits for the end of the connection: orderly, or the error it ended with.
    pub fn end(&mut self, limit: Duration) -> io::Result<()> {
        let deadline = Some(Instant::now() + limit);
        while self.wire.fill(deadline)? > 0 {}
        Ok(())
    }

    /// Waits for the server to end the connection and gives back what it still said.
    pub fn until_closed(&mut self, limit: Duration) -> Vec<u8> {
        let deadline = Some(Instant::now() + limit);
        loop {
            match self.wire.fill(deadline) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    panic!("the connection was still open after {limit:?}")
                }
                // A reset is an end as well.
                Err(_) => break,
            }
        }
        self.wire.unused().to_vec()
    }
}

fn status(head: &Head) -> u16 {
    let word = head.start.split(' ').nth(1).unwrap_or_default();
    word.parse()
        .unwrap_or_else(|_| panic!("no status in {:?}", head.start))
}

/// An event stream that is being read.
pub struct Stream {
    pub client: Client,
    pub head: Head,
    /// Text out of the framing that is not a whole item yet.
    text: Vec<u8>,
    end: Option<End>,
}

impl Stream {
    /// The next item; `None` once the stream has ended.
    pub fn next(&mut self, limit: Duration) -> Option<Arrived> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(item) = self.item() {
                let at = self.client.wire.arrived;
                return Some(Arrived { item, at });
            }
            if self.end.is_some() {
                assert!(
                    self.text.is_empty(),
                    "the stream ended inside an event: {:?}",
                    String::from_utf8_lossy(&self.text)
                );
                return None;
            }
            let piece = match self.head.is_chunked() {
                true => self.client.wire.chunk(Some(deadline)),
                false => self.client.wire.fill(Some(deadline)).and_then(|count| {
                    let ready = self.client.wire.unused().len();
                    debug_assert!(ready >= count);
                    self.client.wire.take(ready, Some(deadline))
                }),
            };
            match piece {
                Ok(piece) if piece.is_empty() => {
                    self.end = Some(match self.head.is_chunked() {
                        true => End::Framed,
                        false => End::Cut,
                    });
                }
                Ok(piece) => self.text.extend(piece),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    panic!("nothing came from the stream within {limit:?}")
                }
                Err(_) => self.end = Some(End::Cut),
            }
        }
    }

    /// The next item's data; heartbeats are passed over. Panics at the end of the stream.
    pub fn data(&mut self, limit: Duration) -> String {
        loop {
            match self.next(limit).map(|arrived| arrived.item) {
                Some(Item::Data(data)) => return data,
                Some(Item::Comment(_)) => {}
                other => panic!("expected data and found {other:?}"),
            }
        }
    }

    /// Everything up to the end. `limit` is for each item.
    pub fn rest(&mut self, limit: Duration) -> (Vec<Arrived>, End) {
        let mut items = Vec::new();
        while let Some(item) = self.next(limit) {
            items.push(item);
        }
        (items, self.end.expect("the loop above ends with it"))
    }

    fn item(&mut self) -> Option<Item> {
        let end = self.text.windows(2).position(|pair| pair == b"\n\n")?;
        let block: Vec<u8> = self.text.drain(..end + 2).collect();
        let block = String::from_utf8(block).expect("an event is UTF-8");
        let lines: Vec<&str> = block.trim_end_matches('\n').split('\n').collect();
        if let [line] = lines.as_slice()
            && let Some(comment) = line.strip_prefix(':')
        {
            return Some(Item::Comment(comment.trim_start().to_string()));
        }
        let data: Option<Vec<&str>> = lines
            .iter()
            .map(|line| line.strip_prefix("data: "))
            .collect();
        Some(match data {
            Some(data) => Item::Data(data.join("\n")),
            None => Item::Odd(block),
        })
    }
}
