#!/usr/bin/env bash
# tiny_http 0.12.0 (Rust) puts a Content-Length on its interim answer.
#
# A caller that sends `Expect: 100-continue` gets, before the answer proper, "HTTP/1.1 100 Continue"
# with `Content-Length: 0` among its headers. RFC 9110, section 8.6: a server must not send that
# field with a status of 1xx. Callers that are strict about it may take the answer proper for
# something else; curl and Python's http.client go on.
#
# Seen with tiny_http 0.12.0, Rust 1.95, Linux. Fails if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cargo init --quiet --vcs none --name probe .
cargo add --quiet tiny_http@=0.12.0
cat > src/main.rs <<'RUST'
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

fn main() {
    let server = tiny_http::Server::http("127.0.0.1:0").unwrap();
    let address = server.server_addr().to_ip().unwrap();
    let caller = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let head = "POST / HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        let mut interim = Vec::new();
        let mut byte = [0];
        while !interim.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            interim.push(byte[0]);
        }
        stream.write_all(b"ok").unwrap();
        String::from_utf8(interim).unwrap()
    });
    let mut request = server.recv().unwrap();
    let mut body = String::new();
    request.as_reader().read_to_string(&mut body).unwrap();
    request.respond(tiny_http::Response::from_string(body)).unwrap();
    print!("{}", caller.join().unwrap());
}
RUST
cargo run --quiet > out
cat out
head -1 out | grep -q '^HTTP/1.1 100 Continue'
grep -qi '^content-length: 0' out || { echo 'no length any more' >&2; exit 1; }
echo 'as described'
