//! `Door`: the listening socket and the HTTP server on it, which is built anew when it gives up.
//!
//! The HTTP server's accept thread ends for good at its first error (out of descriptors, say), and
//! silently when it panics. A clone of the listener survives it, and a new server takes over on
//! that. The old one's connections still bring requests, so a keeper answers those.

use std::io;
use std::mem;
use std::net::{TcpListener, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use log::{debug, error, info, warn};
use parking_lot::Mutex;
use tiny_http::{Listener, Request, Server};

use super::Gateway;
use super::handed::{self, Handed};
use super::keeper::{Acceptor, Keeper};
use crate::sys::sockets;

/// How long to wait before the listener is tried again, when it failed right after it was.
const PAUSE: Duration = Duration::from_millis(100);

/// A listening socket as it was opened.
pub struct Opened {
    socket: Socket,
    /// It belongs to whoever started weir as well, and outlives it.
    handed: bool,
    /// As told on standard output.
    pub address: String,
    /// 0 for a unix socket.
    pub port: u16,
    pub for_timer: Option<TcpListener>,
    file: Option<Bound>,
}

/// The file of a unix socket.
struct Bound {
    path: PathBuf,
    /// Its device and number.
    file: (u64, u64),
}

impl Bound {
    fn at(path: &Path) -> Option<Bound> {
        let file = std::fs::symlink_metadata(path).ok()?;
        Some(Bound {
            path: path.to_owned(),
            file: (file.dev(), file.ino()),
        })
    }
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Socket {
    fn try_clone(&self) -> io::Result<Socket> {
        Ok(match self {
            Socket::Tcp(listener) => Socket::Tcp(listener.try_clone()?),
            Socket::Unix(listener) => Socket::Unix(listener.try_clone()?),
        })
    }

    fn into_server(self) -> io::Result<Server> {
        let listener = match self {
            Socket::Tcp(listener) => Listener::Tcp(listener),
            Socket::Unix(listener) => Listener::Unix(listener),
        };
        Server::from_listener(listener, None).map_err(io::Error::other)
    }
}

impl Opened {
    pub fn tcp(address: &str, write_timeout: Duration) -> io::Result<Opened> {
        let mut last = None;
        for address in address.to_socket_addrs()? {
            match sockets::bind(address) {
                Ok(listener) => return Opened::bound(listener, write_timeout),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| io::Error::other("the name has no address")))
    }

    /// A socket that was opened for this process by whoever started it.
    pub fn handed(write_timeout: Duration) -> io::Result<Option<Opened>> {
        let listener = match handed::take()? {
            None => return Ok(None),
            Some(Handed::Unix(listener)) => {
                let address = listener.local_addr()?;
                let path = address.as_pathname().unwrap_or(Path::new("(handed over)"));
                // The file is the other's, to keep as well as to remove.
                return Ok(Some(Opened {
                    handed: true,
                    file: None,
                    ..Opened::unix(listener, path)?
                }));
            }
            Some(Handed::Tcp(listener)) => listener,
        };
        Ok(Some(Opened {
            handed: true,
            ..Opened::bound(listener, write_timeout)?
        }))
    }

    /// Whether only this machine can connect.
    pub fn is_local(&self) -> bool {
        match &self.socket {
            Socket::Unix(_) => true,
            Socket::Tcp(listener) => listener
                .local_addr()
                .is_ok_and(|address| address.ip().is_loopback()),
        }
    }

    fn bound(listener: TcpListener, write_timeout: Duration) -> io::Result<Opened> {
        sockets::prepare_listener(&listener, write_timeout)?;
        if let Err(error) = sockets::preface::keep_out(&listener) {
            debug!("the preface of HTTP/2 is not kept out: {error}");
        }
        let local = listener.local_addr()?;
        Ok(Opened {
            handed: false,
            for_timer: Some(listener.try_clone()?),
            socket: Socket::Tcp(listener),
            address: format!("http://{local}"),
            port: local.port(),
            file: None,
        })
    }

    pub fn unix(listener: UnixListener, path: &Path) -> io::Result<Opened> {
        Ok(Opened {
            handed: false,
            socket: Socket::Unix(listener),
            address: format!("unix:{}", path.display()),
            port: 0,
            for_timer: None,
            file: Bound::at(path),
        })
    }
}

/// One HTTP server, with the number of those before it.
#[derive(Clone)]
pub struct Generation {
    number: u64,
    server: Arc<Server>,
}

/// Why a server gave no request.
pub enum Fault {
    /// `accept` failed.
    Accept(io::Error),
    /// Somebody woke the worker: there is a newer server.
    Woken,
}

impl Generation {
    pub fn receive(&self) -> Result<Request, Fault> {
        self.server.recv().map_err(|error| {
            // The server tells both in the same way; its own error has no number of the system.
            match error.raw_os_error() {
                Some(_) => Fault::Accept(error),
                None => Fault::Woken,
            }
        })
    }
}

pub struct Door {
    state: Mutex<State>,
    handed: bool,
    /// The number of the current server, to be looked at without the lock.
    number: AtomicU64,
    file: Option<Bound>,
    pub keeper: Keeper,
}

struct State {
    current: Generation,
    /// For the next server.
    socket: Socket,
    opened: Instant,
    closed: bool,
}

impl Door {
    pub fn new(opened: Opened) -> io::Result<Door> {
        let server = opened.socket.try_clone()?.into_server()?;
        Ok(Door {
            state: Mutex::new(State {
                current: Generation {
                    number: 0,
                    server: Arc::new(server),
                },
                socket: opened.socket,
                opened: Instant::now(),
                closed: false,
            }),
            handed: opened.handed,
            number: AtomicU64::new(0),
            file: opened.file,
            keeper: Keeper::default(),
        })
    }

    /// `seen`, or the server that has taken its place.
    pub fn newest(&self, seen: Generation) -> Generation {
        if self.number.load(Ordering::Acquire) == seen.number {
            return seen;
        }
        self.current()
    }

    pub fn current(&self) -> Generation {
        self.state.lock().current.clone()
    }

    /// The server to go on with after `seen` had a fault.
    pub fn after(&self, seen: Generation, fault: Fault, gateway: &Arc<Gateway>) -> Generation {
        let mut state = self.state.lock();
        if state.closed || state.current.number != seen.number {
            // While stopping, the old server still brings the requests of open connections.
            return state.current.clone();
        }
        let Fault::Accept(error) = fault else {
            return seen;
        };
        warn!("accepting connections failed ({error}); the listener is opened anew");
        self.reopen(&mut state, Acceptor::Ended, gateway);
        state.current.clone()
    }

    /// Builds a new server because connections wait and the old one does not take them.
    pub fn reopen_stuck(&self, gateway: &Arc<Gateway>) {
        let mut state = self.state.lock();
        if !state.closed {
            warn!("connections are not accepted; the listener is opened anew");
            self.reopen(&mut state, Acceptor::Doubtful, gateway);
        }
    }

    fn reopen(&self, state: &mut State, acceptor: Acceptor, gateway: &Arc<Gateway>) {
        state.reopen(acceptor, gateway);
        self.number.store(state.current.number, Ordering::Release);
        gateway.crew.wake_all();
    }

    /// Takes no new connections. Requests on open ones still come.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        if self.handed {
            // Connections wait for the next weir instead of being refused.
            let left = match &state.socket {
                Socket::Tcp(listener) => sockets::leave_listener(listener),
                Socket::Unix(listener) => sockets::leave_listener(listener),
            };
            if let Err(error) = left {
                warn!("the listener that was handed over stays in use: {error}");
            }
            return;
        }
        match &state.socket {
            Socket::Tcp(listener) => sockets::stop_listening(listener),
            Socket::Unix(listener) => sockets::stop_listening(listener),
        }
    }

    /// Takes the file of a unix socket away, unless somebody else has put another one there.
    pub fn remove_file(&self) {
        if let Some(bound) = &self.file
            && Bound::at(&bound.path).is_some_and(|found| found.file == bound.file)
        {
            let _ = std::fs::remove_file(&bound.path);
        }
    }
}

impl State {
    fn reopen(&mut self, acceptor: Acceptor, gateway: &Arc<Gateway>) {
        // Out of descriptors, the next server fails as quickly as the last.
        let since = self.opened.elapsed();
        if since < PAUSE {
            thread::sleep(PAUSE - since);
        }
        let server = loop {
            match self.socket.try_clone().and_then(Socket::into_server) {
                Ok(server) => break server,
                // Whoever closes the door waits for the lock that is held here.
                Err(_) if gateway.draining.load(Ordering::Acquire) => return,
                Err(error) => {
                    error!("the listener cannot be opened: {error}");
                    thread::sleep(PAUSE);
                }
            }
        };
        self.opened = Instant::now();
        let number = self.current.number + 1;
        let next = Generation {
            number,
            server: Arc::new(server),
        };
        let old = mem::replace(&mut self.current, next);
        info!("listener {number} is open");
        // Every worker that waits at the old server, or comes back to it, moves on.
        let workers = gateway.max_chats + super::SPARE;
        for _ in 0..workers {
            old.server.unblock();
        }
        let keeper = &gateway.door.keeper;
        keeper.take_over(old.server, acceptor, workers, gateway);
    }
}

impl From<Socket> for OwnedFd {
    fn from(socket: Socket) -> OwnedFd {
        match socket {
            Socket::Tcp(listener) => listener.into(),
            Socket::Unix(listener) => listener.into(),
        }
    }
}
