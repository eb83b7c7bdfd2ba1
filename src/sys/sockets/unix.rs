//! Limits of time for callers on a unix socket.
//!
//! Unlike TCP's, their connections inherit nothing from the listening socket, and nothing tells one
//! from another: a request brings no address of its sender. So each request sees to it that all
//! connections have their limits, before anything of it is waited for.

use std::io;
use std::mem;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::{descriptors, set, timeval};
use crate::clock;

/// So many descriptors are looked at for every request; more of them at most once in `PAUSE_MS`,
/// since a thousand connections would cost milliseconds a request.
const FEW: usize = 256;
const PAUSE_MS: u64 = 50;

/// How many descriptors there were on the last look, and when that was.
static SEEN: AtomicUsize = AtomicUsize::new(0);
static LOOKED: AtomicU64 = AtomicU64::new(0);

/// Lets no read from a caller wait for longer than `read`, and no write for longer than `write`.
pub fn limit_callers(read: Duration, write: Duration) {
    let now = clock::now();
    let paused = now < LOOKED.load(Ordering::Relaxed) + PAUSE_MS;
    if paused && SEEN.load(Ordering::Relaxed) > FEW {
        return;
    }
    LOOKED.store(now, Ordering::Relaxed);
    let (read, write) = (timeval(read), timeval(write));
    let all = descriptors();
    SEEN.store(all.len(), Ordering::Relaxed);
    for fd in all {
        if is_caller(fd) {
            // Should the number have become another socket's meanwhile, it is a caller's again or an
            // upstream's, which sets its own limits before each wait.
            let _ = set_both(fd, &read, &write);
        }
    }
}

fn set_both(fd: RawFd, read: &libc::timeval, write: &libc::timeval) -> io::Result<()> {
    set(fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, read)?;
    set(fd, libc::SOL_SOCKET, libc::SO_SNDTIMEO, write)
}

/// An accepted connection bears the name of the socket that it came through. Nothing else in this
/// process has a name of this kind but the listening socket itself.
fn is_caller(fd: RawFd) -> bool {
    // SAFETY: plain numbers, for which all zeroes is a value.
    let mut name: libc::sockaddr_un = unsafe { mem::zeroed() };
    let mut length = mem::size_of::<libc::sockaddr_un>() as libc::socklen_t;
    // SAFETY: `name` has room for `length` bytes.
    let done = unsafe { libc::getsockname(fd, (&raw mut name).cast(), &mut length) } == 0;
    let unnamed = mem::size_of::<libc::sa_family_t>() as libc::socklen_t;
    done && libc::c_int::from(name.sun_family) == libc::AF_UNIX && length > unnamed && !listens(fd)
}

/// Limits on a listening socket would make `accept` fail.
fn listens(fd: RawFd) -> bool {
    let mut listens: libc::c_int = 1;
    let mut length = mem::size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `listens` has room for `length` bytes.
    let done = unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_ACCEPTCONN,
            (&raw mut listens).cast(),
            &mut length,
        )
    } == 0;
    !done || listens != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::time::Instant;

    #[test]
    fn only_accepted_connections_are_limited() {
        let path = std::env::temp_dir().join(format!("weir-limits-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let caller = UnixStream::connect(&path).unwrap();
        let (mut accepted, _) = listener.accept().unwrap();
        let (one, _other) = UnixStream::pair().unwrap();
        limit_callers(Duration::from_millis(50), Duration::from_millis(70));
        std::fs::remove_file(&path).unwrap();

        let begun = Instant::now();
        accepted.read_exact(&mut [0]).unwrap_err();
        let sent = accepted.write_all(&vec![0; 16 << 20]);
        assert_eq!(sent.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert!(begun.elapsed() >= Duration::from_millis(110));
        for other in [&caller, &one] {
            assert_eq!(other.read_timeout().unwrap(), None);
            assert_eq!(other.write_timeout().unwrap(), None);
        }
        assert!(listens(std::os::fd::AsRawFd::as_raw_fd(&listener)));
        let as_stream = UnixStream::from(std::os::fd::OwnedFd::from(listener));
        assert_eq!(as_stream.read_timeout().unwrap(), None);
    }
}
