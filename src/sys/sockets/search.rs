//! `callers`: the search among this process's descriptors for those of its callers.
//!
//! A connection is found by its addresses, and looked at through a duplicate, which nobody else can
//! close. Out of descriptors, duplicates come from a reserve.

use std::collections::HashSet;
use std::fs;
use std::mem::ManuallyDrop;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use parking_lot::Mutex;

use super::{Caller, address, canonical};

/// Open connections to our own listening port.
pub struct Callers {
    /// Each connection once.
    pub found: Vec<Caller>,
    /// All are there. Without a free descriptor a connection cannot be looked at, and then its
    /// absence says nothing.
    pub complete: bool,
}

pub fn callers(local_port: u16) -> Callers {
    let mut found: Vec<Caller> = Vec::new();
    let mut seen = HashSet::new();
    let mut complete = true;
    for fd in descriptors() {
        if address(fd, libc::getsockname).is_none_or(|local| local.port() != local_port) {
            continue;
        }
        // The server holds two descriptors of each connection; one duplicate is enough.
        let Some(peer) = address(fd, libc::getpeername).filter(|peer| !seen.contains(peer)) else {
            continue;
        };
        match as_caller(fd, local_port) {
            Some(caller) if seen.insert(caller.peer) => found.push(caller),
            Some(_) => {}
            // Closed meanwhile, or no descriptor is free. The other one may still do.
            None => complete &= address(fd, libc::getpeername) != Some(peer),
        }
    }
    Callers { found, complete }
}

/// Descriptors held back for duplicates when there are no others: what finds the connections that
/// can be closed needs some. They change hands without ever being free, or the HTTP server, with
/// callers in its queue, would take them first.
pub(super) static RESERVE: Mutex<Vec<OwnedFd>> = Mutex::new(Vec::new());

pub(super) const RESERVED: usize = 16;

/// Takes back what the reserve lacks, if it can be had.
pub fn refill_reserve() {
    let mut reserve = RESERVE.lock();
    while reserve.len() < RESERVED {
        // Of what does not matter.
        // SAFETY: no memory is involved.
        let fd = unsafe { libc::fcntl(libc::STDERR_FILENO, libc::F_DUPFD_CLOEXEC, 0) };
        if fd < 0 {
            return;
        }
        // SAFETY: it was just made and belongs to nobody else.
        reserve.push(unsafe { OwnedFd::from_raw_fd(fd) });
    }
}

/// A duplicate of a descriptor.
#[derive(Debug)]
pub(super) struct Duplicate {
    fd: ManuallyDrop<OwnedFd>,
    /// Its number is the reserve's.
    lent: bool,
}

impl Duplicate {
    pub(super) fn of(fd: RawFd) -> Option<Duplicate> {
        // SAFETY: duplicating any number is harmless; a closed one gives an error.
        let duplicate = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0) };
        if duplicate < 0 {
            return Duplicate::from_reserve(fd);
        }
        Some(Duplicate {
            // SAFETY: the duplicate was just made and belongs to nobody else.
            fd: ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(duplicate) }),
            lent: false,
        })
    }

    pub(super) fn from_reserve(fd: RawFd) -> Option<Duplicate> {
        let spare = RESERVE.lock().pop()?;
        // Dropped, it goes back.
        let lent = Duplicate {
            fd: ManuallyDrop::new(spare),
            lent: true,
        };
        put(fd, &lent.fd).then_some(lent)
    }
}

impl AsRawFd for Duplicate {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl Drop for Duplicate {
    fn drop(&mut self) {
        // SAFETY: it is taken once, here.
        let fd = unsafe { ManuallyDrop::take(&mut self.fd) };
        let mut reserve = RESERVE.lock();
        // What it stood for must not be held open by it.
        if self.lent && reserve.len() < RESERVED && put(libc::STDERR_FILENO, &fd) {
            reserve.push(fd);
        }
    }
}

/// Lets the number of `onto` stand for what `fd` stands for.
fn put(fd: RawFd, onto: &OwnedFd) -> bool {
    // SAFETY: the number that is replaced is ours.
    unsafe { libc::dup3(fd, onto.as_raw_fd(), libc::O_CLOEXEC) >= 0 }
}

/// Looks for the open connection from `peer` to our own listening port.
pub fn caller(local_port: u16, peer: SocketAddr) -> Option<Caller> {
    let peer = canonical(peer);
    let is_peer = |other: SocketAddr| canonical(other) == peer;
    descriptors().into_iter().find_map(|fd| {
        // Only the one that fits is worth a duplicate.
        address(fd, libc::getpeername).filter(|other| is_peer(*other))?;
        let caller = as_caller(fd, local_port)?;
        is_peer(caller.peer).then_some(caller)
    })
}

/// A duplicate of `fd`, if it is a connection to `local_port`.
fn as_caller(fd: RawFd, local_port: u16) -> Option<Caller> {
    // One system call sorts most descriptors out before a duplicate is made.
    if address(fd, libc::getsockname)?.port() != local_port {
        return None;
    }
    let fd = Duplicate::of(fd)?;
    // Looked at again on the duplicate: the number may have been reused in between.
    if address(fd.as_raw_fd(), libc::getsockname)?.port() != local_port {
        return None;
    }
    let peer = address(fd.as_raw_fd(), libc::getpeername)?;
    Some(Caller { fd, peer })
}

/// The numbers of the open descriptors.
pub(super) fn descriptors() -> Vec<RawFd> {
    if let Ok(entries) = fs::read_dir("/proc/self/fd") {
        return entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect();
    }
    // No /proc (a bare chroot): the kernel gives out the lowest free number, so a long gap is
    // the end.
    const GAP: usize = 1024;
    let mut open = Vec::new();
    let mut missing = 0;
    let mut fd = 0;
    while missing < GAP {
        // SAFETY: asking for the flags of any number is harmless.
        if unsafe { libc::fcntl(fd, libc::F_GETFD) } >= 0 {
            open.push(fd);
            missing = 0;
        } else {
            missing += 1;
        }
        fd += 1;
    }
    open
}
