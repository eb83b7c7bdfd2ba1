//! `--health`: asks the weir that runs with the same config whether it is well.
//!
//! For containers, which have no shell and no curl to ask with. Nothing is started for it.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::config::Listen;

/// How long a well one may take to connect, and for each step of its answer.
const WAIT: Duration = Duration::from_secs(5);

/// The first line of its answer is shorter.
const LINE: u64 = 64;

/// `Err`: what is wrong, in a sentence.
pub fn ask(listen: &Listen) -> Result<(), String> {
    let fault = |error: std::io::Error| format!("nobody answers at {listen}: {error}");
    match listen {
        Listen::Unix(path) => {
            let mut stream = UnixStream::connect(path).map_err(fault)?;
            stream.set_read_timeout(Some(WAIT)).map_err(fault)?;
            stream.set_write_timeout(Some(WAIT)).map_err(fault)?;
            exchange(&mut stream).map_err(fault)?
        }
        Listen::Tcp(address) => {
            let mut last = std::io::Error::other("the name has no address");
            for address in address.to_socket_addrs().map_err(fault)? {
                match TcpStream::connect_timeout(&reachable(address), WAIT) {
                    Ok(mut stream) => {
                        stream.set_read_timeout(Some(WAIT)).map_err(fault)?;
                        stream.set_write_timeout(Some(WAIT)).map_err(fault)?;
                        return exchange(&mut stream).map_err(fault)?;
                    }
                    Err(error) => last = error,
                }
            }
            Err(fault(last))
        }
    }
}

/// One who listens everywhere is reached at home.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// The outer error: no answer. The inner one: an answer that is none of a well one.
fn exchange(stream: &mut (impl Read + Write)) -> std::io::Result<Result<(), String>> {
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut begin = Vec::new();
    stream.take(LINE).read_to_end(&mut begin)?;
    let begin = String::from_utf8_lossy(&begin);
    let line = begin.lines().next().unwrap_or_default();
    Ok(match line.split(' ').nth(1) {
        Some("200") => Ok(()),
        _ => Err(format!("the answer begins with {line:?}")),
    })
}
