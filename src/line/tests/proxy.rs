//! Through a proxy: tunnels for `https`, whole URLs for `http`.

use super::authority::{Authority, GOOD, accept};
use super::*;

fn through(proxy: &Upstream, authority: Option<&Authority>) -> Line {
    let mut settings = settings();
    settings.proxy = Some(format!("http://me:pass%20word@{}", proxy.addr));
    settings.ca_file = authority.map(|authority| authority.file.clone());
    Line::new(&settings).unwrap()
}

// `me:pass word`
const LOGIN: &str = "\r\nProxy-Authorization: Basic bWU6cGFzcyB3b3Jk\r\n";

#[test]
fn a_plain_upstream_is_asked_for_by_its_whole_url() {
    let proxy = Upstream::answering(OK);
    let line = through(&proxy, None);
    // Names that no DNS knows: only the proxy has to.
    for (url, asked) in [
        (
            "http://up.invalid/a?b",
            "0: POST http://up.invalid/a?b HTTP/1.1\r\n",
        ),
        (
            "http://up.invalid/",
            "0: POST http://up.invalid/ HTTP/1.1\r\n",
        ),
    ] {
        assert_eq!(whole(line.post(url, &[], b"{\"a\"}").unwrap()), "ok");
        let told = proxy.next();
        assert!(told.starts_with(asked), "{told}");
        assert!(
            told.to_ascii_lowercase()
                .contains("\r\nhost: up.invalid\r\n"),
            "{told}"
        );
        assert!(told.contains(LOGIN), "{told}");
        assert!(told.ends_with("\r\n\r\n{\"a\"}"), "{told}");
    }
    // Another upstream has a connection of its own; this proxy takes one after the other.
    let other = through(&proxy, None);
    drop(line);
    assert_eq!(proxy.next(), "closed");
    assert_eq!(
        whole(other.get("http://up.invalid:8080/m", &[]).unwrap()),
        "ok"
    );
    let told = proxy.next();
    assert!(
        told.starts_with("1: GET http://up.invalid:8080/m HTTP/1.1\r\n"),
        "{told}"
    );
}

#[test]
fn an_encrypted_upstream_is_reached_through_a_tunnel() {
    let authority = Authority::new();
    let config = Arc::new(authority.server("up.invalid", GOOD));
    let proxy = Upstream::play(move |stream, number, tell| {
        let (head, _) = request(stream).unwrap();
        let _ = tell.send(format!("{number}: {head}"));
        stream
            .write_all(b"HTTP/1.1 200 Tunnel\r\nVia: x\r\n\r\n")
            .unwrap();
        let mut stream = accept(&config, stream);
        while let Some((head, _)) = request(&mut stream) {
            let _ = tell.send(format!("{number}: {head}"));
            stream.write_all(OK.as_bytes()).unwrap();
        }
    });
    let line = through(&proxy, Some(&authority));
    assert_eq!(
        whole(line.post("https://up.invalid/a", &[], b"{}").unwrap()),
        "ok"
    );
    let asked = proxy.next();
    assert!(
        asked.starts_with("0: CONNECT up.invalid:443 HTTP/1.1\r\n"),
        "{asked}"
    );
    assert!(asked.contains(LOGIN), "{asked}");
    let told = proxy.next();
    assert!(told.starts_with("0: POST /a HTTP/1.1\r\n"), "{told}");
    assert!(!told.contains("Proxy-"), "{told}");
    assert_eq!(
        whole(line.post("https://up.invalid/b", &[], b"{}").unwrap()),
        "ok"
    );
    assert!(proxy.next().starts_with("0: POST /b "));
}

#[test]
fn a_proxy_that_gives_no_tunnel_is_told() {
    let cases = [
        (
            "HTTP/1.1 407 Login\r\nContent-Length: 0\r\n\r\n",
            "wants a user name and password (407)",
        ),
        ("HTTP/1.1 403 No\r\n\r\n", "it answered 403"),
        (
            "HTTP/1.1 200 OK\r\n\r\nhello",
            "it speaks before the upstream was asked",
        ),
        ("SSH-2.0-OpenSSH\r\n\r\n", "its answer is not HTTP"),
        ("HTTP/1.1 2", "it closed the connection"),
    ];
    for (answer, why) in cases {
        let proxy = Upstream::play(move |stream, _, _| {
            let _ = request(stream);
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let broken = through(&proxy, None)
            .post("https://up.invalid/", &[], b"{}")
            .unwrap_err();
        assert_eq!(broken.phase, Phase::Proxy);
        assert!(!broken.maybe_sent);
        let expected = format!("the proxy {} gives no tunnel: ", proxy.addr);
        assert!(broken.message.starts_with(&expected), "{broken}");
        assert!(broken.message.ends_with(why), "{broken}");
    }
}

#[test]
fn a_proxy_that_is_not_there_is_told_and_a_pull_ends_the_wait_for_a_tunnel() {
    let proxy = Upstream::play(|stream, _, tell| {
        let _ = request(stream);
        let _ = tell.send("asked".into());
        let _ = stream.read(&mut [0]);
    });
    let cancel = Arc::new(Cancel::default());
    let pulling = pull_at(&proxy, "asked", &cancel, Cause::Deadline);
    let entered = cancel::enter(&cancel);
    let line = through(&proxy, None);
    let broken = line.post("https://up.invalid/", &[], b"{}").unwrap_err();
    assert!(broken.timeout && !broken.maybe_sent, "{broken:?}");
    assert_eq!(broken.phase, Phase::Proxy);
    pulling.join().unwrap();
    drop(entered);

    let mut settings = settings();
    let gone = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    settings.proxy = Some(gone.to_string());
    let broken = Line::new(&settings)
        .unwrap()
        .get("http://up.invalid/", &[])
        .unwrap_err();
    let expected = format!("cannot connect to the proxy {gone} ({gone}): connection refused");
    assert_eq!(broken.message, expected);
}
