//! Where an answer begins and ends, and which ends are faults.

use super::*;

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
