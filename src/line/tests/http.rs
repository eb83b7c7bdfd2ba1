//! Plain HTTP: connections, ends, framing.

use super::*;
use std::time::Instant;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Seen: yes\r\n\r\nok";

#[test]
fn a_connection_is_used_again() {
    let upstream = Upstream::answering(OK);
    let line = line();
    for _ in 0..3 {
        let answer = line.post(&upstream.url(), &[("X-A", "b")], b"{}").unwrap();
        assert_eq!((answer.status, answer.header("x-seen")), (200, Some("yes")));
        assert_eq!(whole(answer), "ok");
        let told = upstream.next();
        let head = told.to_ascii_lowercase();
        assert!(head.starts_with("0: post /v1/x?y=z http/1.1\r\n"), "{told}");
        assert!(head.ends_with("\r\n\r\n{}"), "{told}");
        for part in [
            &format!("\r\nhost: {}\r\n", upstream.addr),
            "\r\ncontent-length: 2\r\n",
            "\r\naccept-encoding: identity\r\n",
            &format!("\r\nuser-agent: weir/{}\r\n", env!("CARGO_PKG_VERSION")),
            "\r\nx-a: b\r\n",
        ] {
            assert!(head.contains(part), "{part} in {told}");
        }
        assert!(!head.contains("expect"), "{told}");
    }
    let answer = line.get(&upstream.url(), &[]).unwrap();
    assert_eq!(whole(answer), "ok");
    assert!(upstream.next().starts_with("0: GET "));
}

#[test]
fn a_pooled_connection_that_was_closed_is_replaced_silently() {
    let upstream = Upstream::play(|stream, number, tell| {
        let _ = request(stream);
        let _ = tell.send(number.to_string());
        stream.write_all(OK.as_bytes()).unwrap();
    });
    let line = line();
    for number in ["0", "1", "2"] {
        assert_eq!(whole(line.post(&upstream.url(), &[], b"{}").unwrap()), "ok");
        assert_eq!(upstream.next(), number);
        assert_eq!(upstream.next(), "closed");
    }
}

#[test]
fn a_connection_with_something_left_on_it_is_not_used_again() {
    // Surplus bytes in one piece with the answer, and after the connection went to rest.
    for late in [false, true] {
        let (go, wait) = unbounded::<()>();
        let upstream = Upstream::play(move |stream, number, tell| {
            let _ = request(stream);
            let _ = tell.send(number.to_string());
            let surplus = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlies";
            if late {
                stream.write_all(OK.as_bytes()).unwrap();
                wait.recv_timeout(LIMIT).unwrap();
                stream.write_all(surplus.as_bytes()).unwrap();
            } else {
                stream
                    .write_all(format!("{OK}{surplus}").as_bytes())
                    .unwrap();
            }
            let _ = tell.send("said".into());
            // Neither closes nor answers: only the surplus can tell.
            let _ = stream.read(&mut [0]);
        });
        let line = line();
        for number in ["0", "1"] {
            let answer = line.post(&upstream.url(), &[], b"{}").unwrap();
            assert_eq!(whole(answer), "ok");
            let _ = go.send(());
            while upstream.next() != number {}
            assert_eq!(upstream.next(), "said");
        }
    }
}

#[test]
fn a_reused_connection_that_dies_after_our_send_is_maybe_sent() {
    let upstream = Upstream::play(|stream, _, _| {
        let _ = request(stream);
        stream.write_all(OK.as_bytes()).unwrap();
        let _ = request(stream);
    });
    let line = line();
    whole(line.post(&upstream.url(), &[], b"{}").unwrap());
    let broken = line.post(&upstream.url(), &[], b"{}").unwrap_err();
    assert!(
        broken.maybe_sent && broken.reused && !broken.timeout,
        "{broken:?}"
    );
    assert_eq!(broken.phase, Phase::Head);
    assert_eq!(
        broken.message,
        "the upstream closed the connection without an answer"
    );
}

#[test]
fn a_refused_connection_was_surely_not_sent() {
    let addr = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let broken = line()
        .post(&format!("http://{addr}/"), &[], b"{}")
        .unwrap_err();
    assert!(
        !broken.maybe_sent && !broken.reused && !broken.timeout,
        "{broken:?}"
    );
    assert_eq!(broken.phase, Phase::Connect);
    assert!(broken.message.ends_with("connection refused"), "{broken}");
}

#[test]
fn what_cannot_be_sent_is_told_without_its_text() {
    for (url, header) in [
        ("http://h/", "sec\nret"),
        ("secret", "v"),
        ("http://se cret/", "v"),
    ] {
        let broken = line()
            .post(url, &[("authorization", header)], b"")
            .unwrap_err();
        assert_eq!(broken.phase, Phase::Prepare);
        assert_eq!(broken.message, "the URL or a header is not valid");
        assert!(!broken.maybe_sent);
    }
}

#[test]
fn head_and_body_leave_in_one_send() {
    let upstream = Upstream::play(|stream, _, tell| {
        let mut piece = vec![0; 1 << 17];
        while let Ok(length) = stream.read(&mut piece)
            && length > 0
        {
            let _ = tell.send(text(&piece[..length]));
            stream.write_all(OK.as_bytes()).unwrap();
        }
    });
    let line = line();
    for size in [0, 1, 20, 3_000, 30_000].repeat(10) {
        let body = format!("{}!", "x".repeat(size));
        whole(line.post(&upstream.url(), &[], body.as_bytes()).unwrap());
        let told = upstream.next();
        assert!(
            told.ends_with(&format!("\r\n\r\n{body}")),
            "{size}: {}",
            told.len()
        );
    }
    // Neither an empty body nor none at all keeps the head waiting.
    whole(line.post(&upstream.url(), &[], b"").unwrap());
    assert!(upstream.next().ends_with("\r\n\r\n"));
    whole(line.get(&upstream.url(), &[]).unwrap());
    assert!(upstream.next().ends_with("\r\n\r\n"));
}

#[test]
fn long_bodies_and_long_heads_arrive_whole() {
    let upstream = Upstream::answering(OK);
    let line = line();
    let long: String = (0..60_000).map(|number| format!("{number} ")).collect();
    whole(line.post(&upstream.url(), &[], long.as_bytes()).unwrap());
    assert!(upstream.next().ends_with(&format!("\r\n\r\n{long}")));
    let value = "v".repeat(3_000);
    let names = ["a", "b", "c", "d", "e"];
    let headers = names.map(|name| (name, value.as_str()));
    whole(line.post(&upstream.url(), &headers, b"{body}").unwrap());
    let told = upstream.next();
    assert!(told.ends_with("\r\n\r\n{body}"));
    assert!(
        names
            .iter()
            .all(|name| told.contains(&format!("\r\n{name}: {value}\r\n")))
    );
}

#[test]
fn an_upstream_that_refuses_a_long_body_unread_is_heard() {
    let upstream = Upstream::play(|stream, _, _| {
        let mut piece = [0; 100];
        let _ = stream.read(&mut piece);
        let answer = "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig";
        stream.write_all(answer.as_bytes()).unwrap();
    });
    let body = vec![b'x'; 16 << 20];
    let answer = line().post(&upstream.url(), &[], &body).unwrap();
    assert_eq!(answer.status, 413);
    assert_eq!(whole(answer), "big");
}

#[test]
fn a_pull_ends_the_wait_for_the_head() {
    let upstream = Upstream::play(|stream, _, tell| {
        let _ = request(stream);
        let _ = tell.send("asked".into());
        let _ = tell.send(format!("{:?}", stream.read(&mut [0]).unwrap_or(9)));
    });
    let cancel = Arc::new(Cancel::default());
    let pulling = pull_at(&upstream, "asked", &cancel, Cause::FirstByte);
    let _entered = cancel::enter(&cancel);
    let started = Instant::now();
    let broken = line().post(&upstream.url(), &[], b"{}").unwrap_err();
    assert!(started.elapsed() < LIMIT / 2);
    assert!(broken.timeout && broken.maybe_sent, "{broken:?}");
    assert_eq!(broken.phase, Phase::Head);
    assert_eq!(broken.message, Trouble::ended().text);
    pulling.join().unwrap();
    // The upstream sees the end at once.
    assert_eq!(upstream.next(), "0");
}

#[test]
fn a_pull_ends_a_body_of_every_framing_with_a_fault() {
    for framing in [
        "Content-Length: 9",
        "Transfer-Encoding: chunked",
        "Connection: close",
    ] {
        let upstream = Upstream::play(move |stream, _, tell| {
            let _ = request(stream);
            let piece = match framing.contains("chunked") {
                true => "3\r\nabc\r\n",
                false => "abc",
            };
            let head = format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n{piece}");
            stream.write_all(head.as_bytes()).unwrap();
            let _ = tell.send("begun".into());
            let _ = stream.read(&mut [0]);
        });
        let cancel = Arc::new(Cancel::default());
        let _entered = cancel::enter(&cancel);
        let mut answer = line().post(&upstream.url(), &[], b"{}").unwrap();
        answer.body.read_exact(&mut [0; 3]).unwrap();
        let pulling = pull_at(&upstream, "begun", &cancel, Cause::CallerGone);
        let started = Instant::now();
        let (rest, broken) = fault(answer);
        assert!(started.elapsed() < LIMIT / 2);
        assert_eq!((rest.as_str(), broken.timeout), ("", false));
        assert_eq!(broken.message, Trouble::ended().text);
        pulling.join().unwrap();
    }
}

#[test]
fn an_exchange_that_was_ended_before_sends_nothing() {
    let upstream = Upstream::answering(OK);
    let line = line();
    whole(line.post(&upstream.url(), &[], b"{}").unwrap());
    upstream.next();
    let cancel = Arc::new(Cancel::default());
    cancel.pull(Cause::CallerGone);
    let entered = cancel::enter(&cancel);
    let broken = line.post(&upstream.url(), &[], b"{}").unwrap_err();
    assert!(!broken.maybe_sent);
    drop(entered);
    whole(line.post(&upstream.url(), &[], b"{}").unwrap());
    assert!(upstream.next().starts_with("0: "));
    assert!(upstream.told.is_empty());
}

#[test]
fn a_pull_after_the_end_of_an_answer_leaves_the_pooled_connection_alone() {
    let upstream = Upstream::answering(OK);
    let line = line();
    let cancel = Arc::new(Cancel::default());
    let entered = cancel::enter(&cancel);
    whole(line.post(&upstream.url(), &[], b"{}").unwrap());
    cancel.pull(Cause::Stopping);
    drop(entered);
    whole(line.post(&upstream.url(), &[], b"{}").unwrap());
    assert!(upstream.next().starts_with("0: "));
    assert!(upstream.next().starts_with("0: "));
}

#[test]
fn an_answer_dropped_in_the_middle_closes_at_once_although_the_exchange_goes_on() {
    let upstream = Upstream::play(|stream, _, tell| {
        let _ = request(stream);
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc";
        stream.write_all(head.as_bytes()).unwrap();
        let _ = tell.send(format!("{:?}", stream.read(&mut [0]).ok()));
    });
    let cancel = Arc::new(Cancel::default());
    let _entered = cancel::enter(&cancel);
    drop(line().post(&upstream.url(), &[], b"{}").unwrap());
    // The end of the connection, or a reset because of what was unread.
    let told = upstream.next();
    assert!(told == "Some(0)" || told == "None", "{told}");
    assert_eq!(upstream.next(), "closed");
}

#[test]
fn an_end_too_early_is_a_fault_and_stays_one() {
    let cases = [
        ("Content-Length: 9\r\n\r\nabc", "abc"),
        ("Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", "abc"),
        ("Transfer-Encoding: chunked\r\n\r\n9\r\nabc", "abc"),
    ];
    for (answer, before) in cases {
        let upstream = Upstream::play(move |stream, _, _| {
            let _ = request(stream);
            let whole = format!("HTTP/1.1 200 OK\r\n{answer}");
            stream.write_all(whole.as_bytes()).unwrap();
        });
        let (text, broken) = fault(line().post(&upstream.url(), &[], b"{}").unwrap());
        assert_eq!(text, before, "{answer}");
        let expected = "the upstream closed the connection in the middle of its answer";
        assert_eq!(broken.message, expected, "{answer}");
    }
}

#[test]
fn chunks_that_are_none_are_a_fault() {
    for chunks in [
        "zz\r\nabc\r\n",
        "3\r\nabcdef\r\n0\r\n\r\n",
        "-3\r\nabc\r\n0\r\n\r\n",
    ] {
        let upstream = Upstream::play(move |stream, _, _| {
            let _ = request(stream);
            let whole = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
            stream.write_all(whole.as_bytes()).unwrap();
        });
        let (_, broken) = fault(line().post(&upstream.url(), &[], b"{}").unwrap());
        assert!(
            broken.message.starts_with("the answer is not proper HTTP"),
            "{broken}"
        );
    }
}

#[test]
fn a_body_without_length_ends_with_the_connection_but_not_with_a_reset() {
    for reset in [false, true] {
        let upstream = Upstream::play(move |stream, _, tell| {
            // What is left unread makes the close a reset.
            match reset {
                true => drop(stream.read_exact(&mut [0; 10])),
                false => drop(request(stream)),
            }
            stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nabc").unwrap();
            let _ = tell.send("begun".into());
        });
        let mut answer = line().post(&upstream.url(), &[], b"{}").unwrap();
        if !reset {
            assert_eq!(whole(answer), "abc");
            continue;
        }
        let mut all = Vec::new();
        match answer.body.read_to_end(&mut all) {
            Ok(_) => panic!("a reset passed for an end, after {:?}", text(&all)),
            Err(error) => assert_eq!(error.to_string(), "connection reset"),
        }
    }
}

#[test]
fn chunks_cut_anywhere_are_joined() {
    let upstream = Upstream::play(|stream, _, _| {
        while request(stream).is_some() {
            let whole = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                         5;ext=1\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\nTrailer: t\r\n\r\n";
            stream.set_nodelay(true).unwrap();
            for byte in whole.bytes() {
                stream.write_all(&[byte]).unwrap();
            }
        }
    });
    let line = line();
    for _ in 0..2 {
        let answer = line.post(&upstream.url(), &[], b"{}").unwrap();
        assert_eq!(whole(answer), "hello world");
    }
    assert!(upstream.told.is_empty(), "the connection was closed");
}

#[test]
fn answers_before_the_answer_are_skipped() {
    let upstream = Upstream::answering(
        "HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    );
    let answer = line().post(&upstream.url(), &[], b"{}").unwrap();
    assert_eq!((answer.status, whole(answer).as_str()), (200, "ok"));
}

#[test]
fn statuses_and_redirects_are_handed_out_as_they_are() {
    let cases = [
        (
            "HTTP/1.1 503 Busy\r\nRetry-After: 3\r\nContent-Length: 1\r\n\r\nx",
            503,
            "x",
        ),
        (
            "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 1\r\n\r\nx",
            302,
            "x",
        ),
        (
            "HTTP/1.1 307 Temporary\r\nLocation: /\r\nContent-Length: 0\r\n\r\n",
            307,
            "",
        ),
        ("HTTP/1.1 204 Nothing\r\n\r\n", 204, ""),
    ];
    for (answer, status, body) in cases {
        let upstream = Upstream::answering(answer);
        let line = line();
        for _ in 0..2 {
            let answer = line.post(&upstream.url(), &[], b"{}").unwrap();
            assert_eq!((answer.status, whole(answer).as_str()), (status, body));
            assert!(
                upstream.next().starts_with("0: POST"),
                "{status}: not used again"
            );
        }
    }
}

#[test]
fn a_compressed_body_is_seen_as_one() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\x1f?";
    let upstream = Upstream::answering(answer);
    let answer = line().post(&upstream.url(), &[], b"{}").unwrap();
    assert!(answer.is_compressed());
    assert_eq!(whole(answer), "\x1f?");
    let upstream = Upstream::answering(OK);
    assert!(
        !line()
            .post(&upstream.url(), &[], b"{}")
            .unwrap()
            .is_compressed()
    );
}

#[test]
fn a_head_without_end_and_an_answer_that_is_no_http_are_told() {
    let upstream = Upstream::play(|stream, _, _| {
        let _ = request(stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nX: ");
        while stream.write_all(&[b'x'; 1024]).is_ok() {}
    });
    let broken = line().post(&upstream.url(), &[], b"{}").unwrap_err();
    assert_eq!(
        broken.message,
        "the head of the answer is longer than 16384 bytes"
    );
    assert_eq!(broken.phase, Phase::Head);
    assert!(broken.maybe_sent);

    let upstream = Upstream::answering("SSH-2.0-OpenSSH\r\n\r\n");
    let broken = line().post(&upstream.url(), &[], b"{}").unwrap_err();
    assert!(
        broken.message.starts_with("the answer is not proper HTTP"),
        "{broken}"
    );
}

#[test]
fn many_threads_share_a_line() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                while let Some((_, body)) = request(&mut stream) {
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                    stream
                        .write_all(&[head.as_bytes(), &body].concat())
                        .unwrap();
                }
            });
        }
    });
    let line = line();
    let threads: Vec<_> = (0..8)
        .map(|thread| {
            let (line, url) = (line.clone(), url.clone());
            thread::spawn(move || {
                for number in 0..50 {
                    let body = format!("{thread}/{number}");
                    assert_eq!(whole(line.post(&url, &[], body.as_bytes()).unwrap()), body);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}
