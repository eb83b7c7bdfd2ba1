//! Sockets below the HTTP server: options that the server never sets, and the callers' connections
//! found again among the process's own descriptors.
//!
//! The HTTP server hands out a caller's address and nothing else. Every descriptor of the process
//! is ours to look at, though: a duplicate of each is compared by local port and peer address, and
//! kept when it fits, so that no reuse of a number can fool the search. It knows nothing of HTTP.

use std::io;
use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use libc::c_int;

pub mod preface;
mod search;
pub mod unix;

pub use search::{Callers, caller, callers, refill_reserve};
use search::{Duplicate, descriptors};

/// The backlog of connections that the kernel finishes for us; it cuts this to its own limit.
const BACKLOG: c_int = 4096;

/// Prepares a listening socket. Accepted sockets inherit these options on Linux.
///
/// Without TCP_NODELAY a keep-alive request can wait 40 ms for the peer's delayed ACK. The send
/// timeout ends a write to a caller who does not read. A receive timeout must not be set: it would
/// make `accept` fail, which ends the HTTP server's accept thread.
pub fn prepare_listener(listener: &TcpListener, write_timeout: Duration) -> io::Result<()> {
    let fd = listener.as_raw_fd();
    set(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, &1)?;
    set(
        fd,
        libc::SOL_SOCKET,
        libc::SO_SNDTIMEO,
        &timeval(write_timeout),
    )?;
    set(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, &1)?;
    set_backlog(listener, BACKLOG)
}

/// How many connections the kernel finishes before they are accepted.
pub fn set_backlog(listener: &TcpListener, length: c_int) -> io::Result<()> {
    // SAFETY: `listen` on a descriptor that `listener` keeps open; a second call only changes
    // the backlog.
    check(unsafe { libc::listen(listener.as_raw_fd(), length) }).map(drop)
}

/// Binds a listening socket that takes the port over from a process that just ended.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    // std sets SO_REUSEADDR on Unix.
    TcpListener::bind(address)
}

/// Ends a listening socket for every descriptor of it: whoever connects from now on is refused,
/// and a thread in `accept` comes back.
pub fn stop_listening(listener: &impl AsRawFd) {
    // SAFETY: the descriptor is open as long as `listener`.
    unsafe { libc::shutdown(listener.as_raw_fd(), libc::SHUT_RDWR) };
}

/// Ends a listening socket for this process alone: whoever else has it goes on to listen, and
/// connections wait for them. A thread in `accept` comes back with the next connection.
pub fn leave_listener(listener: &impl AsRawFd) -> io::Result<()> {
    let nothing = std::fs::File::open("/dev/null")?;
    let name = |fd: i32| std::fs::read_link(format!("/proc/self/fd/{fd}"));
    let ours = name(listener.as_raw_fd())?;
    let list = std::fs::read_dir("/proc/self/fd")?;
    let all: Vec<i32> = list
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    // By number, since the HTTP server does not give its own descriptor out.
    for fd in all {
        if name(fd).is_ok_and(|other| other == ours) {
            // SAFETY: both are open. The number stays taken, so that its owners close what they
            // believe to have, and find no socket in it.
            unsafe { libc::dup2(nothing.as_raw_fd(), fd) };
        }
    }
    Ok(())
}

/// Connections that wait in the listener's accept queue.
pub fn accept_queue(listener: BorrowedFd<'_>) -> Option<u32> {
    // For a listening socket the kernel reports the queue's length in this field.
    tcp_info(listener.as_raw_fd()).map(|info| info.tcpi_unacked)
}

/// Raises the limit of open descriptors to what the system allows; the limit in force after it.
pub fn raise_descriptor_limit() -> u64 {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a valid place for the answer.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return 1024;
    }
    if limit.rlim_cur < limit.rlim_max {
        let wanted = libc::rlimit {
            rlim_cur: limit.rlim_max,
            ..limit
        };
        // SAFETY: `wanted` is a valid limit; a refusal leaves the old one.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &wanted) } == 0 {
            return wanted.rlim_cur;
        }
    }
    limit.rlim_cur
}

/// A caller's connection, held by a duplicate of its descriptor.
#[derive(Debug)]
pub struct Caller {
    fd: Duplicate,
    pub peer: SocketAddr,
}

/// What the kernel knows of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Bytes received in the connection's life.
    pub received: u64,
    /// Bytes that the peer has acknowledged: it grows with every reply.
    pub acked: u64,
    /// Our side has said that it is done, and the peer has not.
    pub ending: bool,
}

impl Caller {
    /// Ends every read and write on the connection, whoever is in it.
    pub fn shut(&self) {
        // SAFETY: the descriptor is open as long as `self`; the call has no memory effects.
        unsafe { libc::shutdown(self.fd.as_raw_fd(), libc::SHUT_RDWR) };
    }

    /// Ends the connection at once and throws away what has arrived. Ending the reading side alone
    /// does not stop a reader while the peer goes on sending. May have to be called again: some
    /// kernels refuse it while a thread is just being woken.
    pub fn reset(&self) {
        self.shut();
        let _ = self.disconnect();
    }

    /// Connects to no address, which resets a connection that is open.
    fn disconnect(&self) -> io::Result<()> {
        // SAFETY: plain numbers, for which all zeroes is a value.
        let mut nowhere: libc::sockaddr = unsafe { mem::zeroed() };
        nowhere.sa_family = libc::AF_UNSPEC as libc::sa_family_t;
        let length = mem::size_of::<libc::sockaddr>() as libc::socklen_t;
        // SAFETY: the address is as long as said.
        check(unsafe { libc::connect(self.fd.as_raw_fd(), &nowhere, length) }).map(drop)
    }

    /// Ends the connection with a reset and without an orderly end before it, so that nobody can
    /// take what was written for the whole of an answer.
    pub fn break_off(&self) {
        // Wakes the reader, on which some kernels insist first.
        self.shut_read();
        for _ in 0..20 {
            if self.disconnect().is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.shut();
    }

    /// Says that nothing more will be written; the peer can still read what was.
    pub fn shut_write(&self) {
        // SAFETY: as above.
        unsafe { libc::shutdown(self.fd.as_raw_fd(), libc::SHUT_WR) };
    }

    /// Ends the reading side: whoever reads from the connection gets its end, and can still write.
    pub fn shut_read(&self) {
        // SAFETY: as above.
        unsafe { libc::shutdown(self.fd.as_raw_fd(), libc::SHUT_RD) };
    }

    pub fn facts(&self) -> Option<Facts> {
        let info = tcp_info(self.fd.as_raw_fd())?;
        Some(Facts {
            received: info.tcpi_bytes_received,
            acked: info.tcpi_bytes_acked,
            ending: TCP_FIN_WAIT.contains(&info.tcpi_state),
        })
    }

    /// The peer has closed or reset the connection.
    pub fn is_gone(&self) -> bool {
        // POLLRDHUP alone does not tell: it is also set when our own side gave up reading, which
        // the HTTP server does behind the last request of a connection.
        tcp_info(self.fd.as_raw_fd()).is_none_or(|info| info.tcpi_state != TCP_ESTABLISHED)
    }

    /// The peer has closed or reset the connection, whether we have said that we are done or not.
    pub fn has_left(&self) -> bool {
        tcp_info(self.fd.as_raw_fd()).is_none_or(|info| {
            info.tcpi_state != TCP_ESTABLISHED && !TCP_FIN_WAIT.contains(&info.tcpi_state)
        })
    }

    /// Tells the connection from a later one between the same addresses.
    pub fn number(&self) -> Option<u64> {
        // SAFETY: plain numbers, for which all zeroes is a value.
        let mut stat: libc::stat = unsafe { mem::zeroed() };
        // SAFETY: the structure is the call's to fill.
        let done = unsafe { libc::fstat(self.fd.as_raw_fd(), &raw mut stat) } == 0;
        done.then(|| inode(&stat))
    }

    /// Bytes that arrived and that nobody has read.
    pub fn unread(&self) -> usize {
        let mut count: c_int = 0;
        // SAFETY: FIONREAD writes one c_int.
        let done = unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::FIONREAD, &mut count) };
        if done == 0 {
            usize::try_from(count).unwrap_or(0)
        } else {
            0
        }
    }

    /// Bytes were written that the peer's kernel has not taken.
    pub fn has_unsent(&self) -> bool {
        let mut count: c_int = 0;
        // SAFETY: TIOCOUTQ writes one c_int.
        let done = unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::TIOCOUTQ, &mut count) };
        done == 0 && count > 0
    }

    /// A write of a few bytes will not block.
    pub fn is_writable(&self) -> bool {
        let mut poll = libc::pollfd {
            fd: self.fd.as_raw_fd(),
            events: libc::POLLOUT,
            revents: 0,
        };
        // SAFETY: one valid entry, no waiting.
        let ready = unsafe { libc::poll(&mut poll, 1, 0) };
        ready > 0 && poll.revents & libc::POLLOUT != 0
    }

    /// Writes without the HTTP server, as much as fits at once. For replies to requests whose own
    /// writer must not be touched.
    pub fn write(&self, bytes: &[u8]) {
        // SAFETY: the buffer is as long as said. A short or failed write is a caller who has gone.
        unsafe {
            libc::send(
                self.fd.as_raw_fd(),
                bytes.as_ptr().cast(),
                bytes.len(),
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            )
        };
    }

    /// Reads and forgets what has arrived, without waiting, up to `limit` bytes. True if there was
    /// something.
    pub fn discard(&self, limit: usize) -> bool {
        let mut left = limit;
        let mut waste = [0u8; 16 * 1024];
        while left > 0 {
            // SAFETY: the buffer is as long as said.
            let count = unsafe {
                libc::recv(
                    self.fd.as_raw_fd(),
                    waste.as_mut_ptr().cast(),
                    waste.len().min(left),
                    libc::MSG_DONTWAIT,
                )
            };
            match usize::try_from(count) {
                Ok(0) | Err(_) => break,
                Ok(count) => left = left.saturating_sub(count),
            }
        }
        left < limit
    }

    /// Waits for the peer to hang up together with others: the entry for `wait`.
    pub fn hang_up_entry(&self) -> libc::pollfd {
        libc::pollfd {
            fd: self.fd.as_raw_fd(),
            events: libc::POLLRDHUP,
            revents: 0,
        }
    }
}

/// Not 64 bits everywhere.
#[allow(clippy::useless_conversion, reason = "it is shorter on some targets")]
fn inode(stat: &libc::stat) -> u64 {
    stat.st_ino.into()
}

const TCP_ESTABLISHED: u8 = 1;

/// Our end has been sent, and acknowledged; the peer's has not come.
const TCP_FIN_WAIT: [u8; 2] = [4, 5];

/// The head of the kernel's `struct tcp_info` (include/uapi/linux/tcp.h), as far as it is used.
/// libc's own copy ends before `tcpi_bytes_received` on some targets.
#[repr(C)]
#[derive(Clone, Copy)]
struct TcpInfo {
    tcpi_state: u8,
    bytes: [u8; 7],
    before_unacked: [u32; 4],
    tcpi_unacked: u32,
    between: [u32; 6],
    tcpi_last_data_recv: u32,
    after: [u32; 12],
    rates: [u64; 2],
    tcpi_bytes_acked: u64,
    tcpi_bytes_received: u64,
}

fn tcp_info(fd: RawFd) -> Option<TcpInfo> {
    // SAFETY: plain numbers, for which all zeroes is a value.
    let mut info: TcpInfo = unsafe { mem::zeroed() };
    let mut length = mem::size_of::<TcpInfo>() as libc::socklen_t;
    // SAFETY: `length` is the size of `info`; an older kernel writes less.
    let done = unsafe {
        libc::getsockopt(
            fd,
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &mut length,
        )
    };
    (done == 0).then_some(info)
}

type NameCall = unsafe extern "C" fn(c_int, *mut libc::sockaddr, *mut libc::socklen_t) -> c_int;

fn address(fd: RawFd, call: NameCall) -> Option<SocketAddr> {
    // SAFETY: plain numbers, for which all zeroes is a value.
    let mut storage: libc::sockaddr_storage = unsafe { mem::zeroed() };
    let mut length = mem::size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    // SAFETY: `storage` has room for every kind of address and `length` says so.
    if unsafe { call(fd, (&raw mut storage).cast(), &mut length) } != 0 {
        return None;
    }
    match c_int::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says which type was written.
            let v4 = unsafe { &*(&raw const storage).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Some(SocketAddr::from((ip, u16::from_be(v4.sin_port))))
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let v6 = unsafe { &*(&raw const storage).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            Some(SocketAddr::from((ip, u16::from_be(v6.sin6_port))))
        }
        _ => None,
    }
}

/// The same address, whether it came over an IPv6 socket in mapped form or not, and without the
/// scope, which the two sources tell differently.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::from((address.ip(), address.port()))
}

/// A descriptor that wakes a `poll` from another thread.
#[derive(Debug)]
pub struct Bell(OwnedFd);

impl Bell {
    pub fn new() -> io::Result<Bell> {
        // SAFETY: creates a descriptor, checked below.
        let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        // SAFETY: just created, owned by nobody else.
        Ok(Bell(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    pub fn ring(&self) {
        let one: u64 = 1;
        // SAFETY: eight valid bytes. A full counter means that it is ringing already.
        unsafe { libc::write(self.0.as_raw_fd(), (&raw const one).cast(), 8) };
    }

    fn hush(&self) {
        let mut count: u64 = 0;
        // SAFETY: room for eight bytes; does not block.
        unsafe { libc::read(self.0.as_raw_fd(), (&raw mut count).cast(), 8) };
    }

    fn entry(&self) -> libc::pollfd {
        libc::pollfd {
            fd: self.0.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        }
    }
}

/// Waits until the bell rings, a connection arrives at `listener` (if given), one of `callers`
/// hangs up, or `limit` is over (`None`: as long as it takes). `entries` is a scratch list whose
/// content is thrown away; on return it holds one entry per caller, in their order. True if a
/// connection has arrived.
pub fn wait<'a>(
    bell: &Bell,
    listener: Option<BorrowedFd<'_>>,
    callers: impl Iterator<Item = &'a Caller>,
    entries: &mut Vec<libc::pollfd>,
    limit: Option<Duration>,
) -> bool {
    entries.clear();
    entries.extend(callers.map(Caller::hang_up_entry));
    let count = entries.len();
    entries.push(bell.entry());
    if let Some(listener) = listener {
        entries.push(libc::pollfd {
            fd: listener.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        });
    }
    let limit = limit.map_or(-1, |limit| {
        c_int::try_from(limit.as_millis().max(1)).unwrap_or(c_int::MAX)
    });
    // SAFETY: the list is as long as said.
    let ready = unsafe { libc::poll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, limit) };
    if ready > 0 && entries[count].revents != 0 {
        bell.hush();
    }
    if ready <= 0 {
        entries.iter_mut().for_each(|entry| entry.revents = 0);
    }
    let arrived = entries
        .get(count + 1)
        .is_some_and(|listener| listener.revents != 0);
    entries.truncate(count);
    arrived
}

/// Connects to our own listener and closes at once: the HTTP server's accept thread counts an
/// idle thread twice now and then and leaves a connection waiting; each new one moves it on.
pub fn beat(address: SocketAddr) {
    let ip = match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other.ip(),
    };
    // Our own listener answers from the kernel's queue, so this is over in microseconds; the
    // limit is for a queue that is full.
    const LIMIT: Duration = Duration::from_millis(20);
    let _ = TcpStream::connect_timeout(&SocketAddr::from((ip, address.port())), LIMIT);
}

fn set<T>(fd: RawFd, level: c_int, name: c_int, value: &T) -> io::Result<()> {
    // SAFETY: the value's address and size belong together.
    check(unsafe {
        libc::setsockopt(
            fd,
            level,
            name,
            std::ptr::from_ref(value).cast(),
            mem::size_of::<T>() as libc::socklen_t,
        )
    })
    .map(drop)
}

fn timeval(duration: Duration) -> libc::timeval {
    // SAFETY: plain numbers; zeroed first because some targets have padding fields.
    let mut value: libc::timeval = unsafe { mem::zeroed() };
    value.tv_sec = duration.as_secs().min(i32::MAX as u64) as _;
    value.tv_usec = duration.subsec_micros() as _;
    value
}

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

#[cfg(test)]
mod tests;
