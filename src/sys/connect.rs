//! The three system calls that std has no word for: starting to connect without waiting, waiting
//! for several sockets with a limit, and looking at a socket without waiting or taking.

use std::io;
use std::mem;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use libc::{c_int, c_short, sockaddr_in, sockaddr_in6, socklen_t};

/// Begins to connect. The socket is non-blocking and becomes writable when it is through.
pub fn start_connect(addr: SocketAddr) -> io::Result<TcpStream> {
    let family = match addr {
        SocketAddr::V4(_) => libc::AF_INET,
        SocketAddr::V6(_) => libc::AF_INET6,
    };
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers are passed.
    let fd = check(unsafe { libc::socket(family, kind, 0) })?;
    // SAFETY: `fd` was just opened and belongs to nobody else.
    let stream = TcpStream::from(unsafe { OwnedFd::from_raw_fd(fd) });
    let result = match addr {
        SocketAddr::V4(addr) => {
            let name = sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: addr.port().to_be(),
                sin_addr: libc::in_addr {
                    s_addr: u32::from_ne_bytes(addr.ip().octets()),
                },
                sin_zero: [0; 8],
            };
            connect(fd, &name)
        }
        SocketAddr::V6(addr) => {
            let name = sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: addr.port().to_be(),
                sin6_flowinfo: addr.flowinfo(),
                sin6_addr: libc::in6_addr {
                    s6_addr: addr.ip().octets(),
                },
                sin6_scope_id: addr.scope_id(),
            };
            connect(fd, &name)
        }
    };
    match result {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(stream),
    }
}

/// `T` is one of the socket address types.
fn connect<T>(fd: c_int, name: &T) -> io::Result<c_int> {
    let length = mem::size_of::<T>() as socklen_t;
    // SAFETY: `name` is valid for reads of `length` bytes for the time of the call.
    check(unsafe { libc::connect(fd, (name as *const T).cast(), length) })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum For {
    Reading,
    Writing,
}

/// Waits until one of the sockets is ready (or broken, or shut down) or the time is over. Tells
/// for each whether it is.
pub fn wait<'a>(
    sockets: impl Iterator<Item = &'a TcpStream>,
    what: For,
    limit: Duration,
) -> io::Result<Vec<bool>> {
    let events: c_short = match what {
        For::Reading => libc::POLLIN,
        For::Writing => libc::POLLOUT,
    };
    let mut fds: Vec<libc::pollfd> = sockets
        .map(|socket| libc::pollfd {
            fd: socket.as_raw_fd(),
            events,
            revents: 0,
        })
        .collect();
    // Rounded up, so that the last millisecond is not spent spinning.
    let millis = limit.as_millis().saturating_add(1).min(60_000) as c_int;
    // SAFETY: the pointer and the count describe `fds`, which outlives the call.
    let result = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, millis) };
    match check(result) {
        Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
        _ => Ok(fds.iter().map(|fd| fd.revents != 0).collect()),
    }
}

/// Whether a connection at rest can be used again: it is open and its peer has said nothing.
pub fn is_quiet(socket: &TcpStream) -> bool {
    let mut byte = 0_u8;
    // SAFETY: the pointer is valid for writes of one byte for the time of the call.
    let result = unsafe {
        libc::recv(
            socket.as_raw_fd(),
            (&raw mut byte).cast(),
            1,
            libc::MSG_PEEK | libc::MSG_DONTWAIT,
        )
    };
    result < 0 && io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock
}

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}
