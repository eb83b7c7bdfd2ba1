//! HTTP/1.1 as bytes: what the test client and the scripted upstream both read.
//!
//! Written apart from weir's own code and the crates it uses, so that a mistake there is not
//! repeated here.

use std::io::{self, ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd};
use std::time::{Duration, Instant};

/// The first line of a message and its headers.
#[derive(Debug, Clone)]
pub struct Head {
    pub start: String,
    /// Names in lower case, in the order of the wire.
    pub headers: Vec<(String, String)>,
    /// When its last byte was read.
    pub at: Instant,
}

impl Head {
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    pub fn is_chunked(&self) -> bool {
        self.header("transfer-encoding")
            .is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"))
    }

    pub fn length(&self) -> Option<usize> {
        self.header("content-length")?.parse().ok()
    }
}

/// The value of the first header called `name`, which is in lower case.
pub fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let (_, value) = headers.iter().find(|(known, _)| known == name)?;
    Some(value)
}

/// A connection with the bytes that were read from it and not used yet.
pub struct Wire {
    pub stream: TcpStream,
    buffer: Vec<u8>,
    /// When the newest of these bytes arrived.
    pub arrived: Instant,
}

impl Wire {
    pub fn new(stream: TcpStream) -> Self {
        Wire {
            stream,
            buffer: Vec::new(),
            arrived: Instant::now(),
        }
    }

    /// One read. `Ok(0)` is the end of the connection; without a deadline it waits for ever.
    pub fn fill(&mut self, deadline: Option<Instant>) -> io::Result<usize> {
        let mut piece = [0; 64 * 1024];
        let wait = match deadline {
            None => None,
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                // Zero would mean no limit.
                Some(left.max(Duration::from_millis(1)))
            }
        };
        self.stream.set_read_timeout(wait)?;
        let count = loop {
            match self.stream.read(&mut piece) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Err(ErrorKind::TimedOut.into());
                }
                other => break other?,
            }
        };
        self.arrived = Instant::now();
        self.buffer.extend_from_slice(&piece[..count]);
        Ok(count)
    }

    /// The bytes that are here but not used yet.
    pub fn unused(&self) -> &[u8] {
        &self.buffer
    }

    /// One line without its end; `None` at the end of the connection.
    pub fn line(&mut self, deadline: Option<Instant>) -> io::Result<Option<String>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line);
                return Ok(Some(line.trim_end_matches(['\r', '\n']).to_string()));
            }
            if self.fill(deadline)? == 0 {
                return match self.buffer.is_empty() {
                    true => Ok(None),
                    false => Err(ErrorKind::UnexpectedEof.into()),
                };
            }
        }
    }

    pub fn take(&mut self, count: usize, deadline: Option<Instant>) -> io::Result<Vec<u8>> {
        while self.buffer.len() < count {
            if self.fill(deadline)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.buffer.drain(..count).collect())
    }

    /// A head; `None` when the connection ends before its first byte.
    pub fn head(&mut self, deadline: Option<Instant>) -> io::Result<Option<Head>> {
        let Some(start) = self.line(deadline)? else {
            return Ok(None);
        };
        let mut headers = Vec::new();
        loop {
            let line = self
                .line(deadline)?
                .ok_or(io::Error::from(ErrorKind::UnexpectedEof))?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or_else(|| {
                io::Error::new(ErrorKind::InvalidData, format!("no header: {line}"))
            })?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_string()));
        }
        Ok(Some(Head {
            start,
            headers,
            at: self.arrived,
        }))
    }

    /// The next chunk of a chunked body; empty for the last one.
    pub fn chunk(&mut self, deadline: Option<Instant>) -> io::Result<Vec<u8>> {
        let unexpected = || io::Error::from(ErrorKind::UnexpectedEof);
        let line = self.line(deadline)?.ok_or_else(unexpected)?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).map_err(|_| {
            io::Error::new(ErrorKind::InvalidData, format!("no chunk size: {line:?}"))
        })?;
        if size == 0 {
            // Trailers, then the empty line.
            while !self.line(deadline)?.ok_or_else(unexpected)?.is_empty() {}
            return Ok(Vec::new());
        }
        let data = self.take(size, deadline)?;
        match self.take(2, deadline)?.as_slice() {
            b"\r\n" => Ok(data),
            other => Err(io::Error::new(
                ErrorKind::InvalidData,
                format!("a chunk of {size} bytes is followed by {other:?}"),
            )),
        }
    }

    /// The body that belongs to `head`, of a message that has one only if it says so.
    pub fn body(&mut self, head: &Head, deadline: Option<Instant>) -> io::Result<Vec<u8>> {
        if head.is_chunked() {
            let mut body = Vec::new();
            loop {
                let chunk = self.chunk(deadline)?;
                if chunk.is_empty() {
                    return Ok(body);
                }
                body.extend(chunk);
            }
        }
        self.take(head.length().unwrap_or(0), deadline)
    }

    /// Waits up to `wait` for the peer to leave. Bytes that it sends meanwhile stay unread.
    pub fn peer_left(&self, wait: Duration) -> bool {
        let mut ready = libc::pollfd {
            fd: self.stream.as_raw_fd(),
            events: libc::POLLRDHUP,
            revents: 0,
        };
        let millis = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: one pollfd of our own, and the length says one.
        #[allow(unsafe_code)]
        let count = unsafe { libc::poll(&mut ready, 1, millis) };
        count > 0
    }
}

/// Closes with a reset instead of an orderly end.
pub fn reset(stream: TcpStream) {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    // SAFETY: the pointer and the length are those of `linger`, which outlives the call.
    #[allow(unsafe_code)]
    let done = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        )
    };
    assert_eq!(done, 0, "SO_LINGER: {}", io::Error::last_os_error());
    // The last descriptor of the connection must be this one.
    drop(stream);
}

/// A connection to `to` from a port of the caller's choice, on loopback.
pub fn connect_from(port: u16, to: SocketAddr) -> io::Result<TcpStream> {
    let SocketAddr::V4(to) = to else {
        return Err(io::ErrorKind::Unsupported.into());
    };
    let address = |ip: Ipv4Addr, port: u16| libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from_ne_bytes(ip.octets()),
        },
        sin_zero: [0; 8],
    };
    let (from, to) = (address(*to.ip(), port), address(*to.ip(), to.port()));
    let length = size_of::<libc::sockaddr_in>() as libc::socklen_t;
    let done = |code: i32| match code {
        0.. => Ok(code),
        _ => Err(io::Error::last_os_error()),
    };
    // SAFETY: the addresses outlive the calls and the length is theirs; the new descriptor is given
    // to nobody else.
    #[allow(unsafe_code)]
    unsafe {
        let fd = done(libc::socket(
            libc::AF_INET,
            libc::SOCK_STREAM | libc::SOCK_CLOEXEC,
            0,
        ))?;
        let stream = TcpStream::from_raw_fd(fd);
        done(libc::bind(fd, (&raw const from).cast(), length))?;
        done(libc::connect(fd, (&raw const to).cast(), length))?;
        Ok(stream)
    }
}
