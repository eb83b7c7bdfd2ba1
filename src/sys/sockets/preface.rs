//! Keeps the preface of HTTP/2 from the HTTP server.
//!
//! The server speaks HTTP/1.1 alone and has no good answer to those who speak HTTP/2 without asking
//! first, such as a balancer whose health check is set to it. They all begin with the same 24 bytes
//! (RFC 9113, section 3.4). So the kernel is asked to look at the packets before they are received:
//! of the preface only the first three bytes get through. The head then never becomes complete, and
//! the connection is closed when its time is over.

use std::io;
use std::net::TcpListener;
use std::os::fd::AsRawFd;

use libc::{
    BPF_A, BPF_ABS, BPF_ADD, BPF_ALU, BPF_AND, BPF_B, BPF_IND, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_K,
    BPF_LD, BPF_LEN, BPF_MISC, BPF_RET, BPF_RSH, BPF_SUB, BPF_TAX, BPF_TXA, BPF_W, BPF_X,
    sock_filter,
};

use super::set;

/// Bytes of the preface that are let through: enough to tell that something came.
const PASSED: u32 = 3;

/// As many bytes of it are looked at, up to the line ends behind the request line. No JSON has such
/// bytes in it, so that a chat about HTTP/2 gets through wherever its packets begin.
const LENGTH: u32 = 20;

/// Has the kernel look at what comes to the listener's connections; accepted ones inherit it.
pub fn keep_out(listener: &TcpListener) -> io::Result<()> {
    let mut program = program();
    let filter = libc::sock_fprog {
        len: program.len() as libc::c_ushort,
        filter: program.as_mut_ptr(),
    };
    // The kernel copies the program.
    let fd = listener.as_raw_fd();
    set(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &filter)
}

const fn word(bytes: &[u8; 4]) -> u32 {
    u32::from_be_bytes(*bytes)
}

/// A packet begins with its TCP header. The value that is returned is how much of the packet stays;
/// a load from beyond its end drops it, so lengths are looked at first.
fn program() -> Vec<sock_filter> {
    let step = |code: u32, k: u32| sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    };
    // Jumps are told as the numbers of the steps they lead to.
    let fork = |code: u32, k: u32, at: u8, yes: u8, no: u8| sock_filter {
        code: (BPF_JMP | code | BPF_K) as u16,
        jt: yes - at - 1,
        jf: no - at - 1,
        k,
    };
    let load = |at: u32| step(BPF_LD | BPF_W | BPF_IND, at);
    const CUT: u8 = 24;
    const PASS: u8 = 27;
    const DROP: u8 = 28;
    vec![
        // X: the length of the TCP header, in words of four bytes, from the upper half of a byte.
        step(BPF_LD | BPF_B | BPF_ABS, 12),
        step(BPF_ALU | BPF_RSH | BPF_K, 2),
        step(BPF_ALU | BPF_AND | BPF_K, 0x3c),
        step(BPF_MISC | BPF_TAX, 0),
        // What follows the header.
        step(BPF_LD | BPF_W | BPF_LEN, 0),
        step(BPF_ALU | BPF_SUB | BPF_X, 0),
        fork(BPF_JGE, LENGTH, 6, 7, PASS),
        load(0),
        fork(BPF_JEQ, word(b"PRI "), 8, 10, 9),
        // What was cut off is sent again, from there on.
        fork(BPF_JEQ, word(b" * H"), 9, 18, PASS),
        load(4),
        fork(BPF_JEQ, word(b"* HT"), 11, 12, PASS),
        load(8),
        fork(BPF_JEQ, word(b"TP/2"), 13, 14, PASS),
        load(12),
        fork(BPF_JEQ, word(b".0\r\n"), 15, 16, PASS),
        load(16),
        fork(BPF_JEQ, word(b"\r\nSM"), 17, CUT, PASS),
        load(4),
        fork(BPF_JEQ, word(b"TTP/"), 19, 20, PASS),
        load(8),
        fork(BPF_JEQ, word(b"2.0\r"), 21, 22, PASS),
        load(12),
        fork(BPF_JEQ, word(b"\n\r\nS"), 23, DROP, PASS),
        // CUT
        step(BPF_MISC | BPF_TXA, 0),
        step(BPF_ALU | BPF_ADD | BPF_K, PASSED),
        step(BPF_RET | BPF_A, 0),
        // PASS
        step(BPF_RET | BPF_K, u32::MAX),
        // DROP
        step(BPF_RET | BPF_K, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::time::Duration;

    /// What arrives of `pieces`, each sent in a packet of its own.
    fn arrives(listener: &TcpListener, pieces: &[&[u8]], expected: usize) -> Vec<u8> {
        let mut caller = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        caller.set_nodelay(true).unwrap();
        let (mut accepted, _) = listener.accept().unwrap();
        for piece in pieces {
            caller.write_all(piece).unwrap();
        }
        let mut got = vec![0; expected];
        accepted.read_exact(&mut got).unwrap();
        if expected == pieces.concat().len() {
            return got;
        }
        // Long enough for what was dropped to be sent again.
        let wait = Some(Duration::from_millis(700));
        accepted.set_read_timeout(wait).unwrap();
        let mut more = [0; 64];
        if let Ok(count) = accepted.read(&mut more) {
            got.extend_from_slice(&more[..count]);
        }
        got
    }

    #[test]
    fn of_the_preface_three_bytes_arrive_and_of_everything_else_all() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                continue;
            };
            keep_out(&listener).unwrap();
            let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04";
            assert_eq!(arrives(&listener, &[preface], 3), b"PRI");
            let whole: [&[u8]; 6] = [
                b"GET / HTTP/1.1\r\n\r\n",
                b"PRI * HTTP/1.1\r\n\r\n",
                b"PRI ",
                b" * HTTP/1.1 and more",
                b" * HTTP/2.0",
                b"PRI * HTTP/2.0\\r\\n\\r\\nSM, which begins HTTP/2",
            ];
            for piece in whole {
                assert_eq!(arrives(&listener, &[piece], piece.len()), piece);
            }
            let long = vec![b' '; 1 << 20];
            let sent = [b"POST ".as_slice(), &long];
            assert_eq!(arrives(&listener, &sent, 5 + (1 << 20)), sent.concat());
        }
    }
}
