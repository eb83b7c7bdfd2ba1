//! A listening socket that somebody opened before weir was started: `LISTEN_FDS`, as systemd's
//! socket units do it.

use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use crate::sys;

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
    let Some(fd) = sys::take_handed_over() else {
        return Err(io::Error::other(
            "LISTEN_FDS names a socket that is not open",
        ));
    };
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
