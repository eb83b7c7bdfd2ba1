//! Limits for callers on a unix socket.
//!
//! Unlike TCP's, their connections inherit nothing from the listening socket, and nothing tells one
//! from another: a request brings no address of its sender. So each request sees to it that all
//! connections have their limits of time, before anything of it is waited for; and what each of them
//! brings is counted.

use std::collections::HashSet;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::search::Duplicate;
use super::{descriptors, inode, set, timeval};
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
            begin_counting(fd);
            // Should the number have become another socket's meanwhile, it is a caller's again or an
            // upstream's, which sets its own limits before each wait.
            let _ = set_both(fd, &read, &write);
        }
    }
}

/// A caller's connection, held by a duplicate of its descriptor.
#[derive(Debug)]
pub struct Local {
    fd: Duplicate,
    /// Tells it from others that are open.
    pub number: u64,
}

/// The open connections of callers, each once.
pub fn locals() -> Vec<Local> {
    let mut seen = HashSet::new();
    let open = descriptors().into_iter().filter(|fd| is_caller(*fd));
    // The server holds two descriptors of each connection; one duplicate is enough.
    let once = open.filter(|fd| number(*fd).is_some_and(|number| !seen.contains(&number)));
    let once: Vec<RawFd> = once.collect();
    once.into_iter()
        .filter_map(|fd| {
            let fd = Duplicate::of(fd)?;
            // On the duplicate: the number may have become another's.
            let number = number(fd.as_raw_fd()).filter(|_| is_caller(fd.as_raw_fd()))?;
            seen.insert(number).then_some(Local { fd, number })
        })
        .collect()
}

/// So far behind the bytes that wait, the kernel is told to look at them, for whoever only wants to
/// look, which is nobody here. It moves that place up by what is read, and tells where it is: so it
/// counts what was read (`SO_PEEK_OFF`, unix(7), Linux 3.4).
const FAR: libc::c_int = libc::c_int::MAX;

/// Its number where Linux has the same one for all kinds of sockets; libc does not name it.
const SO_PEEK_OFF: libc::c_int = 42;

/// And begins anew from half of it.
const NEAR: libc::c_int = FAR / 2;

fn begin_counting(fd: RawFd) {
    if place(fd).is_some_and(|place| place < 0) {
        let _ = set(fd, libc::SOL_SOCKET, SO_PEEK_OFF, &FAR);
    }
}

fn place(fd: RawFd) -> Option<libc::c_int> {
    option(fd, SO_PEEK_OFF)
}

impl Local {
    /// Bytes that were read from the connection since it was first asked, but for those of the
    /// moment in which the count begins anew: then it is less than before.
    pub fn taken(&self) -> Option<u64> {
        let fd = self.fd.as_raw_fd();
        begin_counting(fd);
        let place = place(fd).filter(|place| *place >= 0)?;
        if place < NEAR {
            set(fd, libc::SOL_SOCKET, SO_PEEK_OFF, &FAR).ok()?;
        }
        u64::try_from(FAR - place).ok()
    }

    /// Ends every read and write on the connection, whoever is in it.
    pub fn shut(&self) {
        // SAFETY: the descriptor is open as long as `self`; the call has no memory effects.
        unsafe { libc::shutdown(self.fd.as_raw_fd(), libc::SHUT_RDWR) };
    }
}

/// The kernel's number for what a descriptor stands for.
fn number(fd: RawFd) -> Option<u64> {
    // SAFETY: plain numbers, for which all zeroes is a value.
    let mut stat: libc::stat = unsafe { mem::zeroed() };
    // SAFETY: the structure is the call's to fill.
    let done = unsafe { libc::fstat(fd, &raw mut stat) } == 0;
    done.then(|| inode(&stat))
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
    option(fd, libc::SO_ACCEPTCONN) != Some(0)
}

/// The number that an option of a socket has.
fn option(fd: RawFd, name: libc::c_int) -> Option<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut length = mem::size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `value` has room for `length` bytes.
    let done = unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_SOCKET,
            name,
            (&raw mut value).cast(),
            &mut length,
        )
    } == 0;
    done.then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::time::Instant;

    #[test]
    fn what_is_read_of_a_connection_is_counted() {
        let path = std::env::temp_dir().join(format!("weir-counts-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let mut caller = UnixStream::connect(&path).unwrap();
        let (mut accepted, _) = listener.accept().unwrap();
        std::fs::remove_file(&path).unwrap();
        let own = number(accepted.as_raw_fd()).unwrap();
        let twice = accepted.try_clone().unwrap();
        let found: Vec<_> = locals()
            .into_iter()
            .filter(|local| local.number == own)
            .collect();
        assert_eq!(found.len(), 1, "two descriptors are one connection");
        let local = &found[0];
        assert_eq!(local.taken(), Some(0));
        caller.write_all(&[0; 5_000]).unwrap();
        assert_eq!(local.taken(), Some(0));
        accepted.read_exact(&mut [0; 4_000]).unwrap();
        assert_eq!(local.taken(), Some(4_000));
        accepted.read_exact(&mut [0; 1_000]).unwrap();
        assert_eq!(local.taken(), Some(5_000));
        // The count begins anew before it has no room.
        let near = NEAR + 10;
        set(accepted.as_raw_fd(), libc::SOL_SOCKET, SO_PEEK_OFF, &near).unwrap();
        caller.write_all(&[0; 20]).unwrap();
        accepted.read_exact(&mut [0; 20]).unwrap();
        assert_eq!(local.taken(), Some((FAR - NEAR + 10) as u64));
        assert_eq!(local.taken(), Some(0));
        drop(twice);
        local.shut();
        assert_eq!(accepted.read(&mut [0]).unwrap(), 0);
        caller.write_all(b"x").unwrap_err();
    }

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
