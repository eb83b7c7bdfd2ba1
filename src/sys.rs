//! What needs `unsafe`, behind functions that do not.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub mod blocks;
pub mod connect;
pub mod pages;
pub mod reader;
pub mod sched;
pub mod sockets;

/// Keeps the process from leaving a core file: the keys of all upstreams would be in it. Whoever
/// wants one can raise the limit again with `prlimit`.
pub fn no_core_files() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: both calls get a pointer to a limit that is there.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_CORE, &raw mut limit) == 0 {
            limit.rlim_cur = 0;
            libc::setrlimit(libc::RLIMIT_CORE, &raw const limit);
        }
    }
}

/// A file that may not grow any further is a full disk, not the end of the process.
pub fn no_end_by_file_size() {
    // SAFETY: nothing runs in a handler; the signal is left out.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// Whether a few bytes can be written without a wait, or soon.
pub fn is_writable_within(file: impl AsFd, limit: Duration) -> bool {
    is_ready(file, libc::POLLOUT, limit)
}

/// Whether something can be read, or the end has come, soon.
pub fn is_readable_within(file: impl AsFd, limit: Duration) -> bool {
    is_ready(file, libc::POLLIN | libc::POLLHUP, limit)
}

fn is_ready(file: impl AsFd, events: libc::c_short, limit: Duration) -> bool {
    let mut entry = libc::pollfd {
        fd: file.as_fd().as_raw_fd(),
        events,
        revents: 0,
    };
    let limit = libc::c_int::try_from(limit.as_millis()).unwrap_or(libc::c_int::MAX);
    // SAFETY: one valid entry.
    let ready = unsafe { libc::poll(&raw mut entry, 1, limit) };
    ready > 0 && entry.revents & events != 0
}

/// Nobody listens on the unix socket at `path`, though its file is there. Anything else that keeps
/// us from connecting (a full queue, a foreign owner) says that somebody does.
pub fn is_deserted(path: &Path) -> bool {
    let bytes = path.as_os_str().as_bytes();
    // SAFETY: an address of zeros is a valid one.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    if bytes.len() >= address.sun_path.len() {
        return false;
    }
    for (place, byte) in address.sun_path.iter_mut().zip(bytes) {
        *place = *byte as libc::c_char;
    }
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: the new descriptor is owned at once, and the address is as long as said.
    unsafe {
        let fd = libc::socket(libc::AF_UNIX, kind, 0);
        if fd < 0 {
            return false;
        }
        let socket = OwnedFd::from_raw_fd(fd);
        let length = size_of::<libc::sockaddr_un>() as libc::socklen_t;
        let done = libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length);
        done != 0 && io::Error::last_os_error().raw_os_error() == Some(libc::ECONNREFUSED)
    }
}

/// The first descriptor that whoever started this process left to it by `LISTEN_FDS`, if it is open.
/// Given out once. From here on it is closed in programs that this one starts.
pub fn take_handed_over() -> Option<OwnedFd> {
    const FIRST: libc::c_int = 3;
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        return None;
    }
    // Before it is owned: closing a descriptor that was never open ends the process.
    // SAFETY: the call only looks the number up.
    let is_open = unsafe { libc::fcntl(FIRST, libc::F_SETFD, libc::FD_CLOEXEC) } == 0;
    // SAFETY: it is open, and was before anything here opened what it keeps: `LISTEN_PID` says so.
    is_open.then(|| unsafe { OwnedFd::from_raw_fd(FIRST) })
}

/// Whether the socket is one of streams that listens for connections.
pub fn listens(socket: impl AsFd) -> bool {
    let fd = socket.as_fd().as_raw_fd();
    let option = |name: libc::c_int| {
        let mut value: libc::c_int = 0;
        let mut length = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: room for the one number that these options have.
        let done = unsafe {
            libc::getsockopt(
                fd,
                libc::SOL_SOCKET,
                name,
                (&raw mut value).cast(),
                &raw mut length,
            )
        };
        (done == 0).then_some(value)
    };
    option(libc::SO_TYPE) == Some(libc::SOCK_STREAM) && option(libc::SO_ACCEPTCONN) == Some(1)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    /// Files below `folder` in which unsafe code is allowed.
    fn allowed(folder: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                allowed(&path, found);
            } else if fs::read_to_string(&path).is_ok_and(|text| {
                text.lines()
                    .any(|line| line.starts_with('#') && line.contains("allow(unsafe_code"))
            }) {
                found.push(path.file_name().unwrap().to_string_lossy().into_owned());
            }
        }
    }

    #[test]
    fn nothing_is_unsafe_outside_of_this_room() {
        let mut found = Vec::new();
        allowed(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
            &mut found,
        );
        found.sort();
        // The meter of memory in tests, and this.
        assert_eq!(found, ["cost.rs", "sys.rs"]);
    }
}
