//! TLS: trust, the faults told apart, and that cancel and reuse work under it as well.

use super::authority::{Authority, Encrypted, GOOD, accept};
use super::*;
use rustls::ServerConfig;
use std::time::Instant;

/// Plays `script` on each connection once it is encrypted.
fn encrypted(
    config: Arc<ServerConfig>,
    script: impl Fn(&mut Encrypted<'_>, usize, &Sender<String>) + Send + 'static,
) -> Upstream {
    Upstream::play(move |stream, number, tell| script(&mut accept(&config, stream), number, tell))
}

fn url(upstream: &Upstream) -> String {
    format!("https://{}/v1/x", upstream.addr)
}

fn answering(config: Arc<ServerConfig>) -> Upstream {
    encrypted(config, |stream, number, tell| {
        while let Some((head, body)) = request(stream) {
            let _ = tell.send(format!("{number}: {head}{}", text(&body)));
            stream.write_all(OK.as_bytes()).unwrap();
        }
    })
}

#[test]
fn an_encrypted_connection_is_used_again_and_long_bodies_pass() {
    let authority = Authority::new();
    let upstream = answering(authority.good());
    let line = authority.line();
    for size in [2, 100, 20_000, 300_000] {
        let body = "x".repeat(size);
        let answer = line.post(&url(&upstream), &[], body.as_bytes()).unwrap();
        assert_eq!(whole(answer), "ok");
        let told = upstream.next();
        assert!(told.starts_with("0: ") && told.ends_with(&format!("\r\n\r\n{body}")));
    }
    assert_eq!(whole(line.get(&url(&upstream), &[]).unwrap()), "ok");
    assert!(upstream.next().starts_with("0: GET"));
}

#[test]
fn long_answers_pass() {
    let authority = Authority::new();
    let long: String = (0..60_000).map(|number| format!("{number} ")).collect();
    let sent = long.clone();
    let upstream = encrypted(authority.good(), move |stream, _, _| {
        while request(stream).is_some() {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", sent.len());
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(sent.as_bytes()).unwrap();
        }
    });
    let line = authority.line();
    for _ in 0..2 {
        assert_eq!(whole(line.post(&url(&upstream), &[], b"{}").unwrap()), long);
    }
    assert!(upstream.told.is_empty(), "the connection was closed");
}

#[test]
fn head_and_body_leave_in_one_record() {
    let authority = Authority::new();
    let config = authority.good();
    let upstream = Upstream::play(move |stream, _, tell| {
        // The first request may come along with the end of the handshake.
        let mut first = accept(&config, stream);
        let _ = request(&mut first);
        first.write_all(OK.as_bytes()).unwrap();
        let (mut tls, stream) = first.into_parts();
        let mut piece = vec![0; 1 << 17];
        while let Ok(length) = stream.read(&mut piece)
            && length > 0
        {
            // The header of the first record: type, version, length.
            let first = 5 + usize::from(u16::from_be_bytes([piece[3], piece[4]]));
            let _ = tell.send(format!("{}", first == length));
            let mut rest = &piece[..length];
            while !rest.is_empty() {
                tls.read_tls(&mut rest).unwrap();
                tls.process_new_packets().unwrap();
            }
            while tls.reader().read(&mut [0; 1024]).is_ok() {}
            tls.writer().write_all(OK.as_bytes()).unwrap();
            tls.write_tls(stream).unwrap();
        }
    });
    let line = authority.line();
    whole(line.post(&url(&upstream), &[], b"{}").unwrap());
    for size in [1, 20, 3_000, 12_000].repeat(5) {
        whole(line.post(&url(&upstream), &[], &vec![b'x'; size]).unwrap());
        assert_eq!(upstream.next(), "true", "{size}");
    }
}

#[test]
fn a_closed_pooled_connection_is_replaced_silently() {
    let authority = Authority::new();
    let upstream = encrypted(authority.good(), |stream, number, tell| {
        let _ = request(stream);
        let _ = tell.send(number.to_string());
        stream.write_all(OK.as_bytes()).unwrap();
        if number == 0 {
            // With a proper goodbye, and in the next round without one.
            stream.conn.send_close_notify();
            stream.flush().unwrap();
        }
    });
    let line = authority.line();
    for number in ["0", "1", "2"] {
        assert_eq!(whole(line.post(&url(&upstream), &[], b"{}").unwrap()), "ok");
        assert_eq!(upstream.next(), number);
        assert_eq!(upstream.next(), "closed");
    }
}

#[test]
fn a_pull_ends_the_handshake() {
    let authority = Authority::new();
    let upstream = Upstream::play(|stream, _, tell| {
        let _ = stream.read(&mut [0; 1024]);
        let _ = tell.send("greeted".into());
        while stream.read(&mut [0; 1024]).is_ok_and(|length| length > 0) {}
    });
    let cancel = Arc::new(Cancel::default());
    let pulling = pull_at(&upstream, "greeted", &cancel, Cause::CallerGone);
    let _entered = cancel::enter(&cancel);
    let started = Instant::now();
    let broken = authority
        .line()
        .post(&url(&upstream), &[], b"{}")
        .unwrap_err();
    assert!(started.elapsed() < LIMIT / 2);
    assert_eq!(broken.phase, Phase::Tls);
    assert!(!broken.maybe_sent && !broken.timeout, "{broken:?}");
    assert!(broken.message.ends_with(&Trouble::ended().text), "{broken}");
    pulling.join().unwrap();
}

#[test]
fn a_handshake_that_hangs_or_trickles_has_the_limit_of_connecting() {
    let authority = Authority::new();
    for trickle in [false, true] {
        let upstream = Upstream::play(move |stream, _, _| {
            // The head of a record that would be long, a byte at a time.
            let record = [&[22, 3, 3, 0x3f, 0xff][..], &[2; 1000]].concat();
            stream
                .set_read_timeout(Some(Duration::from_millis(20)))
                .unwrap();
            for byte in record.iter().filter(|_| trickle) {
                if stream.write_all(&[*byte]).is_err() {
                    return;
                }
                let _ = stream.read(&mut [0; 1024]);
            }
            stream.set_read_timeout(Some(LIMIT)).unwrap();
            while stream.read(&mut [0; 1024]).is_ok_and(|length| length > 0) {}
        });
        let mut settings = settings();
        settings.ca_file = Some(authority.file.clone());
        settings.connect = Duration::from_millis(200);
        let started = Instant::now();
        let line = Line::new(&settings).unwrap();
        let broken = line.post(&url(&upstream), &[], b"{}").unwrap_err();
        assert!(started.elapsed() < Duration::from_secs(5));
        assert!(broken.timeout && !broken.maybe_sent, "{broken:?}");
        assert_eq!(broken.message, "TLS with 127.0.0.1: no handshake in time");
    }
}

#[test]
fn a_pull_ends_the_wait_for_head_and_body() {
    let authority = Authority::new();
    for begin in [false, true] {
        let upstream = encrypted(authority.good(), move |stream, _, tell| {
            let _ = request(stream);
            if begin {
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nabc").unwrap();
            }
            let _ = tell.send("asked".into());
            let _ = stream.read(&mut [0]);
        });
        let cancel = Arc::new(Cancel::default());
        let _entered = cancel::enter(&cancel);
        let started = Instant::now();
        let line = authority.line();
        let pulling;
        let broken = if begin {
            let mut answer = line.post(&url(&upstream), &[], b"{}").unwrap();
            answer.body.read_exact(&mut [0; 3]).unwrap();
            pulling = pull_at(&upstream, "asked", &cancel, Cause::Idle);
            fault(answer).1
        } else {
            pulling = pull_at(&upstream, "asked", &cancel, Cause::Idle);
            line.post(&url(&upstream), &[], b"{}").unwrap_err()
        };
        assert!(started.elapsed() < LIMIT / 2);
        assert!(broken.timeout && broken.maybe_sent, "{broken:?}");
        assert_eq!(broken.message, Trouble::ended().text);
        pulling.join().unwrap();
    }
}

#[test]
fn a_body_without_length_needs_a_goodbye() {
    let authority = Authority::new();
    for goodbye in [true, false] {
        let upstream = encrypted(authority.good(), move |stream, _, _| {
            let _ = request(stream);
            stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nabc").unwrap();
            if goodbye {
                stream.conn.send_close_notify();
                stream.flush().unwrap();
            }
        });
        let answer = authority.line().post(&url(&upstream), &[], b"{}").unwrap();
        if goodbye {
            assert_eq!(whole(answer), "abc");
            continue;
        }
        let (before, broken) = fault(answer);
        assert_eq!(before, "abc");
        assert!(broken.message.contains("close_notify"), "{broken}");
    }
}

/// How a handshake with this server fails.
fn refusal(line: &Line, config: ServerConfig) -> String {
    let upstream = answering(Arc::new(config));
    let broken = line.post(&url(&upstream), &[], b"{}").unwrap_err();
    assert_eq!(broken.phase, Phase::Tls, "{broken}");
    assert!(!broken.maybe_sent && !broken.timeout, "{broken:?}");
    broken.message
}

#[test]
fn faults_of_certificates_are_told_apart() {
    let authority = Authority::new();
    let line = authority.line();
    let past = refusal(&line, authority.server("127.0.0.1", (2010, 2011)));
    let expected = "TLS with 127.0.0.1: its certificate expired on Sat, 01 Jan 2011 00:00:00 GMT";
    assert_eq!(past, expected);
    let future = refusal(&line, authority.server("127.0.0.1", (2190, 2200)));
    assert!(
        future.contains("is not valid before Fri, 01 Jan 2190"),
        "{future}"
    );
    assert!(
        future.contains("is this machine's clock right? It says "),
        "{future}"
    );
    let other = refusal(&line, authority.server("other.example", GOOD));
    assert!(
        other.contains("is for other names") && other.contains("other.example"),
        "{other}"
    );

    let stranger = Authority::new().server("127.0.0.1", GOOD);
    let unknown = refusal(&line, stranger);
    assert!(unknown.contains("from an unknown authority"), "{unknown}");
    // Nor do the built-in roots know it.
    let unknown = refusal(&super::line(), authority.server("127.0.0.1", GOOD));
    assert!(unknown.contains("from an unknown authority"), "{unknown}");
}

#[test]
fn an_expired_certificate_asks_after_a_clock_that_stands_in_the_past() {
    use rustls::{CertificateError, Error};
    use std::time::{SystemTime, UNIX_EPOCH};
    let expired = Error::InvalidCertificate(CertificateError::Expired);
    let told = crate::line::tls::explain("h", &expired, UNIX_EPOCH);
    assert!(
        told.contains("clock right? It says Thu, 01 Jan 1970"),
        "{told}"
    );
    let told = crate::line::tls::explain("h", &expired, SystemTime::now());
    assert_eq!(told, "TLS with h: its certificate has expired");
}

#[test]
fn a_certificate_for_hundreds_of_names_shows_a_few() {
    use rustls::{CertificateError, Error};
    let error = Error::InvalidCertificate(CertificateError::NotValidForNameContext {
        expected: "h".try_into().unwrap(),
        presented: (0..300).map(|number| format!("n{number}")).collect(),
    });
    let told = crate::line::tls::explain("h", &error, std::time::SystemTime::now());
    let expected = "TLS with h: its certificate is for other names: n0, n1, n2, n3, n4, ...";
    assert_eq!(told, expected);
}

#[test]
fn faults_of_the_handshake_are_told_apart() {
    let authority = Authority::new();
    let line = authority.line();

    let mut only_h2 = authority.server("127.0.0.1", GOOD);
    only_h2.alpn_protocols = vec![b"h2".to_vec()];
    let refused = refusal(&line, only_h2);
    assert!(
        refused.contains("refused the handshake: NoApplicationProtocol"),
        "{refused}"
    );

    let plain = Upstream::play(|stream, _, _| {
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    let broken = line.post(&url(&plain), &[], b"{}").unwrap_err();
    assert!(broken.message.contains("does not speak TLS"), "{broken}");
    assert_eq!(broken.phase, Phase::Tls);

    let closing = Upstream::play(|stream, _, _| {
        let _ = stream.read(&mut [0; 4096]);
    });
    let broken = line.post(&url(&closing), &[], b"{}").unwrap_err();
    assert!(
        broken
            .message
            .contains("closed the connection in the handshake"),
        "{broken}"
    );
}

#[test]
fn trust_is_shared_and_a_wrong_file_is_told() {
    use crate::line::tls::config;
    let authority = Authority::new();
    let one = config(Some(&authority.file), None).unwrap();
    let same = config(Some(&authority.file), None).unwrap();
    assert!(Arc::ptr_eq(&one, &same));
    let added = config(None, Some(&authority.file)).unwrap();
    assert!(!Arc::ptr_eq(&one, &added));
    let built_in = config(None, None).unwrap();
    assert!(!Arc::ptr_eq(&built_in, &added));
    // A stale variable is no reason not to start; a stale setting is.
    let stale = config(None, Some(Path::new("/nonexistent/ca.pem"))).unwrap();
    assert!(Arc::ptr_eq(&built_in, &stale));
    let error = config(Some(Path::new("/nonexistent/ca.pem")), None).unwrap_err();
    assert!(
        error.starts_with("cannot read /nonexistent/ca.pem: "),
        "{error}"
    );
    let error = config(Some(Path::new("/dev/null")), None).unwrap_err();
    assert_eq!(error, "no certificate in /dev/null can be used");
}

#[test]
fn what_the_variable_names_is_trusted_besides_the_built_in_roots() {
    let authority = Authority::new();
    let dialer = Dialer {
        names: resolve::shared(),
        proxies: Arc::default(),
        tls: crate::line::tls::config(None, Some(&authority.file)).unwrap(),
        reach: Reach::All,
    };
    let line = Line::with_dialer(&settings(), dialer);
    let upstream = answering(authority.good());
    assert_eq!(whole(line.post(&url(&upstream), &[], b"{}").unwrap()), "ok");
}
