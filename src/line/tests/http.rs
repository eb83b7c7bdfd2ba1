//! Plain HTTP: connections and their use, sends, cancel.

use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

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
fn a_fresh_line_takes_no_connection_from_the_pool() {
    let upstream = Upstream::answering(OK);
    let line = line();
    for (fresh, number) in [(false, "0"), (false, "0"), (true, "1"), (false, "1")] {
        let line = if fresh { line.fresh() } else { line.clone() };
        assert_eq!(whole(line.post(&upstream.url(), &[], b"{}").unwrap()), "ok");
        let mut told = upstream.next();
        if told == "closed" {
            told = upstream.next();
        }
        assert!(told.starts_with(&format!("{number}: ")), "{told}");
    }
}

#[test]
fn connections_at_rest_are_closed_when_told_and_the_next_request_opens_one() {
    let upstream = Upstream::answering(OK);
    let line = line();
    assert_eq!(whole(line.get(&upstream.url(), &[]).unwrap()), "ok");
    assert!(upstream.next().starts_with("0: GET"));
    line.close_idle();
    assert_eq!(upstream.next(), "closed");
    assert_eq!(whole(line.get(&upstream.url(), &[]).unwrap()), "ok");
    assert!(upstream.next().starts_with("1: GET"));
}

#[test]
fn a_connection_in_use_is_not_closed_with_those_at_rest() {
    let upstream = Upstream::answering(OK);
    let line = line();
    let answer = line.get(&upstream.url(), &[]).unwrap();
    line.close_idle();
    assert_eq!(whole(answer), "ok");
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
fn a_pull_ends_a_send_that_nobody_takes() {
    let upstream = Upstream::play(|stream, _, tell| {
        let _ = stream.peek(&mut [0]);
        let _ = tell.send("sending".into());
        // Nothing is read before the test is over.
        thread::park_timeout(LIMIT);
    });
    let cancel = Arc::new(Cancel::default());
    let pulling = pull_at(&upstream, "sending", &cancel, Cause::FirstByte);
    let _entered = cancel::enter(&cancel);
    let started = Instant::now();
    let body = vec![b'x'; 64 << 20];
    let broken = line().post(&upstream.url(), &[], &body).unwrap_err();
    assert!(started.elapsed() < LIMIT / 2);
    assert_eq!(broken.phase, Phase::Send);
    assert!(broken.timeout && broken.maybe_sent, "{broken:?}");
    assert_eq!(broken.message, Trouble::ended().text);
    pulling.join().unwrap();
}

#[test]
fn names_are_looked_up_once_and_a_pooled_connection_survives_failing_dns() {
    let upstream = Upstream::answering(OK);
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let names = resolve::Names::new(move |name| match count.fetch_add(1, Ordering::Relaxed) {
        0 if name == "up.test" => Ok(vec!["127.0.0.1".parse().unwrap()]),
        _ => Err(io::Error::other("servfail")),
    });
    let dialer = Dialer {
        names,
        proxies: Arc::default(),
        tls: crate::line::tls::config(None, None).unwrap(),
        reach: Reach::All,
    };
    let line = Line::with_dialer(&settings(), dialer);
    let url = format!("http://up.test:{}/", upstream.addr.port());
    for _ in 0..3 {
        assert_eq!(whole(line.post(&url, &[], b"{}").unwrap()), "ok");
        assert!(upstream.next().starts_with("0: "));
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    let broken = line.post("http://other.test/", &[], b"{}").unwrap_err();
    assert_eq!(broken.message, "cannot look up other.test: servfail");
    assert_eq!(broken.phase, Phase::Resolve);
    assert!(!broken.maybe_sent);
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
