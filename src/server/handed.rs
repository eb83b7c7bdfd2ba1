//! A listening socket that somebody opened before weir was started: `LISTEN_FDS`, as systemd's
//! socket units do it.

use std::io;
use std::net::TcpListener;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;

use crate::sys;

/// The first descriptor that is handed over.
const FIRST: i32 = 3;

pub enum Handed {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// The socket that was handed to this process, if one was. To be called once.
pub fn take() -> io::Result<Option<Handed>> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
    if number("LISTEN_PID") != Some(std::process::id()) {
        // For another process, or for none.
        return Ok(None);
    }
    match number("LISTEN_FDS") {
        None | Some(0) => return Ok(None),
        Some(1) => {}
        Some(many) => {
            return Err(io::Error::other(format!(
                "{many} sockets were handed over by LISTEN_FDS, and weir listens on one"
            )));
        }
    }
    // Before it is owned: closing a descriptor that was never open ends the process.
    // SAFETY: the call only looks the number up.
    #[allow(unsafe_code)]
    let is_open = unsafe { libc::fcntl(FIRST, libc::F_SETFD, libc::FD_CLOEXEC) } == 0;
    if !is_open {
        return Err(io::Error::other(
            "LISTEN_FDS names a socket that is not open",
        ));
    }
    // SAFETY: it is open, by LISTEN_PID it was opened for this process, and nothing else here
    // owns it: this runs once, before weir opens anything that it keeps.
    #[allow(unsafe_code)]
    let fd = unsafe { OwnedFd::from_raw_fd(FIRST) };
    if !sys::listens(&fd) {
        return Err(io::Error::other(
            "LISTEN_FDS names something that is no listening socket of streams",
        ));
    }
    let listener = TcpListener::from(fd);
    let handed = match listener.local_addr() {
        Ok(_) => Handed::Tcp(listener),
        Err(error) if error.raw_os_error().is_some() => return Err(error),
        // An address that is none of IP's.
        Err(_) => Handed::Unix(UnixListener::from(OwnedFd::from(listener))),
    };
    // systemd's own are, others' may not be.
    match &handed {
        Handed::Tcp(listener) => listener.set_nonblocking(false)?,
        Handed::Unix(listener) => listener.set_nonblocking(false)?,
    }
    Ok(Some(handed))
}
