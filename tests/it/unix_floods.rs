//! Callers on a unix socket who send more than they wait for, and those who only send much.

use std::thread;

use crate::client::{Client, request};
use crate::unix_socket::{Local, says, upstream};
use crate::wait::LIMIT;

const CHAT: &str = "/v1/chat/completions";

/// What weir may need at most for what lies there when it is seen.
const GROWN_KIB: usize = 96 * 1024;

/// Sends `bytes` again and again until the connection is ended for it.
fn until_cut(client: &mut Client, bytes: &[u8]) -> bool {
    // Hundreds of megabytes, if nobody stops it.
    let most = (512 << 20) / bytes.len();
    (0..most).any(|_| client.try_send(bytes).is_err())
}

#[test]
fn a_flood_of_requests_is_cut_and_others_are_served() {
    let scripted = upstream();
    let local = Local::start(&scripted, 1_500);
    let before = local.weir.peak_rss_kib();
    let small = request("GET", "/healthz", &[], b"").repeat(500);
    let with_body = request("POST", CHAT, &[], &[b' '; 1_000]).repeat(50);
    for flood in [&small, &with_body] {
        let mut quiet = local.connect();
        quiet.post(&says("hello", false));
        assert_eq!(quiet.answer(LIMIT).status, 200);
        assert!(until_cut(&mut local.connect(), flood));
        // Whoever sent what was wanted is there as before, behind what the flood left in the queue.
        quiet.post(&says("hello", false));
        assert!([200, 503].contains(&quiet.answer(3 * LIMIT).status));
        assert_eq!(local.ask("hello"), "hi");
    }
    let grown = local.weir.peak_rss_kib() - before;
    assert!(grown < GROWN_KIB, "{grown} KiB");
}

#[test]
fn a_head_without_an_end_is_cut() {
    let scripted = upstream();
    let local = Local::start(&scripted, 1_500);
    assert_eq!(local.ask("hello"), "hi");
    let before = local.weir.peak_rss_kib();
    for start in ["GET / HTTP/1.1\r\nHost: x\r\nA: ", "GET /"] {
        let mut client = local.connect();
        client.send(start.as_bytes());
        assert!(until_cut(&mut client, &[b'a'; 64 << 10]), "{start}");
    }
    let grown = local.weir.peak_rss_kib() - before;
    assert!(grown < GROWN_KIB, "{grown} KiB");
    assert_eq!(local.ask("hello"), "hi");
}

/// Bodies that are read, in one piece and in chunks, some of them small, from several at once.
#[test]
fn whoever_sends_much_that_is_wanted_is_not_cut() {
    let scripted = upstream();
    let local = Local::with(&scripted, 20_000, 20_000, 8);
    let long = "a".repeat(4 << 20);
    let body = says(&long, false).to_string();
    thread::scope(|scope| {
        for chunk in [usize::MAX, 10_000, 100] {
            let mut client = local.connect();
            let body = &body;
            scope.spawn(move || {
                for round in 0..3 {
                    match chunk {
                        usize::MAX => client.send(&request("POST", CHAT, &[], body.as_bytes())),
                        _ => {
                            let chunked = [("Transfer-Encoding", "chunked")];
                            client.send(&request("POST", CHAT, &chunked, b""));
                            for piece in body
                                .as_bytes()
                                .chunks(chunk)
                                .collect::<Vec<_>>()
                                .chunks(500)
                            {
                                let mut bytes = Vec::new();
                                for piece in piece {
                                    bytes.extend(format!("{:x}\r\n", piece.len()).into_bytes());
                                    bytes.extend_from_slice(piece);
                                    bytes.extend(b"\r\n");
                                }
                                client.send(&bytes);
                            }
                            client.send(b"0\r\n\r\n");
                        }
                    }
                    let answer = client.answer(LIMIT);
                    assert_eq!(answer.status, 200, "{chunk}, {round}: {}", answer.text());
                }
            });
        }
    });
    // Bodies that nobody wants to read, too long or for nothing.
    for path in ["/v1/nothing", "/healthz"] {
        let mut client = local.connect();
        for _ in 0..5 {
            client.send(&request("POST", path, &[], &[b' '; 600_000]));
            assert!(client.answer(LIMIT).status >= 400, "{path}");
        }
    }
}
