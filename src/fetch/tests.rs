//! Images from a server on loopback, which these tests alone may reach.

use std::io::Write;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::*;
use crate::clock;
use crate::dialect::openai::Head;
use crate::line::tests::authority::{Authority, accept};
use crate::line::tests::{LIMIT as SOON, Upstream, request as next_request};

const PNG: &str = "HTTP/1.1 200 OK\r\nContent-Type: Image/PNG; x=y\r\nContent-Length: 3\r\n\r\nfoo";

/// A server with `answer` for each path, and a fetcher that takes it for a public one.
struct Host {
    upstream: Upstream,
    fetcher: Fetcher,
    _authority: Authority,
}

impl Host {
    fn new(answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> Host {
        let authority = Authority::new();
        let good = authority.good();
        let upstream = Upstream::play(move |stream, _, tell| {
            let mut stream = accept(&good, stream);
            if let Some((head, _)) = next_request(&mut stream) {
                let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                let _ = tell.send(head);
                // The fetcher may have hung up.
                let _ = stream
                    .write_all(&answer(&path))
                    .and_then(|()| stream.flush());
            }
        });
        let fetcher = Fetcher {
            line: Line::to_public_and(upstream.addr, &authority.file),
            limit: SOON,
        };
        Host {
            upstream,
            fetcher,
            _authority: authority,
        }
    }

    fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.upstream.addr)
    }

    fn fetch(&self, url: &str) -> Result<String, String> {
        fetch(&self.fetcher, url, &job())
    }

    /// The first lines of the requests so far.
    fn asked(&self) -> Vec<String> {
        let told = self.upstream.told.try_iter();
        let heads = told.filter(|told| told != "closed");
        let paths = heads.map(|head| head.split(' ').nth(1).unwrap_or_default().to_owned());
        paths.collect()
    }
}

fn job() -> Job {
    Job::new(None, SOON)
}

/// The image's address in the request afterwards, or the error's message.
fn fetch(fetcher: &Fetcher, url: &str, job: &Job) -> Result<String, String> {
    let body = format!(
        r#"{{"model":"m","messages":[{{"role":"user","content":[{{"type":"image_url","image_url":{{"url":"{url}"}}}}]}}]}}"#
    );
    let head = Head::read(body.as_bytes()).unwrap();
    let mut request = head.parse().unwrap();
    let result = fetcher.inline(&mut request, |_| true, job);
    result.map_err(|error| {
        if error.status == 400 {
            let param = error.param.as_deref();
            assert_eq!(param, Some("messages[0].content[0].image_url.url"));
        }
        error.message.to_string()
    })?;
    match &request.messages[0].content[0].kind {
        PartKind::Image { url, .. } => Ok(url.to_string()),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn refuses(result: Result<String, String>, why: &str) {
    let message = result.unwrap_err();
    let told = message.strip_prefix("this image cannot be fetched: ");
    assert!(told.is_some_and(|told| told.contains(why)), "{message}");
}

#[test]
fn an_image_takes_the_place_of_its_address_wherever_that_stands() {
    let host = Host::new(|_| PNG.into());
    let url = host.url("/a.png?b=c#d");
    let body = format!(
        r#"{{"model":"m","messages":[{{"role":"user","content":[{{"type":"text","text":"{url}"}},{{"type":"image_url","image_url":{{"url":"{url}"}}}},{{"type":"image_url","image_url":{{"url":"data:image/gif;base64,AAAA"}}}},{{"type":"image_url","image_url":{{"url":"https://not.wanted/"}}}}]}},{{"role":"tool","tool_call_id":"a","content":[{{"type":"image_url","image_url":{{"url":"{url}"}}}}]}}]}}"#
    );
    let head = Head::read(body.as_bytes()).unwrap();
    let mut request = head.parse().unwrap();
    let wanted = |url: &str| url != "https://not.wanted/";
    host.fetcher.inline(&mut request, wanted, &job()).unwrap();
    let parts = request.messages.iter().flat_map(|message| &message.content);
    let seen: Vec<&str> = parts
        .map(|part| match &part.kind {
            PartKind::Text(text) => &**text,
            PartKind::Image { url, .. } => url,
            other => panic!("{other:?}"),
        })
        .collect();
    let png = "data:image/png;base64,Zm9v";
    let gif = "data:image/gif;base64,AAAA";
    assert_eq!(seen, [&url, png, gif, "https://not.wanted/", png]);

    // Once for both, and with nothing but what every such request has.
    let told: Vec<String> = host.upstream.told.try_iter().collect();
    let heads: Vec<&String> = told.iter().filter(|told| *told != "closed").collect();
    assert_eq!(heads.len(), 1, "{heads:?}");
    let head = heads[0].to_ascii_lowercase();
    assert!(head.starts_with("get /a.png?b=c http/1.1\r\n"), "{head}");
    assert!(head.contains("\r\naccept: image/*\r\n"), "{head}");
    for secret in ["authorization", "cookie", "x-request-id", "x-api-key"] {
        assert!(!head.contains(secret), "{head}");
    }
}

#[test]
fn redirects_are_followed_three_times_and_only_to_where_one_may_go() {
    let hidden = TcpListener::bind("127.0.0.1:0").unwrap();
    hidden.set_nonblocking(true).unwrap();
    let private = format!("https://{}/x", hidden.local_addr().unwrap());
    let host = Host::new(move |path| {
        let to = match path {
            "/d/3" => "2",
            "/d/2" => "/1",
            "/1" => "?0",
            "/1?0" | "/0" => return PNG.into(),
            "/4" => "/d/3",
            "/plain" => "http://1.1.1.1/",
            "/private" => &private,
            "/loopback" => "//127.0.0.1/",
            "/mapped" => "https://[::ffff:1.1.1.1]/",
            "/file" => "file:///etc/passwd",
            "/user" => "https://joe:secret@1.1.1.1/",
            "/nowhere" => return b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n".into(),
            other => panic!("{other}"),
        };
        format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n").into_bytes()
    });
    let png = "data:image/png;base64,Zm9v";
    assert_eq!(host.fetch(&host.url("/d/3")).unwrap(), png);
    assert_eq!(host.asked(), ["/d/3", "/d/2", "/1", "/1?0"]);
    refuses(host.fetch(&host.url("/4")), "more than 3 redirects");
    assert_eq!(host.asked(), ["/4", "/d/3", "/d/2", "/1"]);
    for (path, why) in [
        ("/plain", "only https"),
        ("/private", "has an address that is not public"),
        ("/loopback", "has an address that is not public"),
        ("/mapped", "has an address that is not public"),
        ("/file", "not a valid URL"),
        ("/user", "may not hold a user"),
        ("/nowhere", "a redirect to nowhere"),
    ] {
        refuses(host.fetch(&host.url(path)), why);
        assert_eq!(host.asked(), [path]);
    }
    let error = hidden.accept().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn a_private_host_is_not_even_connected_to() {
    let hidden = TcpListener::bind("127.0.0.1:0").unwrap();
    hidden.set_nonblocking(true).unwrap();
    let port = hidden.local_addr().unwrap().port();
    let fetcher = Fetcher::new().unwrap();
    // Some of these are addresses only to the system's resolver, which is asked before the check.
    for host in [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0x7f.1",
        "0",
        "[::1]",
        "[::ffff:127.0.0.1]",
    ] {
        let result = fetch(&fetcher, &format!("https://{host}:{port}/"), &job());
        let message = result.unwrap_err();
        let refused = ["not public", "cannot look up", "not a valid URL", "host"];
        assert!(
            refused.iter().any(|why| message.contains(why)),
            "{host}: {message}"
        );
    }
    let literal = fetch(&fetcher, "https://10.0.0.1/", &job());
    refuses(literal, "10.0.0.1 has an address that is not public");
    refuses(fetch(&fetcher, "http://1.1.1.1/", &job()), "only https");
    refuses(
        fetch(&fetcher, "https://a:b@1.1.1.1/", &job()),
        "may not hold a user",
    );
    refuses(fetch(&fetcher, "https:///x", &job()), "not a valid URL");
    refuses(fetch(&fetcher, "https://a b/", &job()), "not a valid URL");
    let error = hidden.accept().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn only_images_of_a_fair_size_are_taken() {
    let host = Host::new(|path| {
        let answer = |more: &str, body: &[u8]| {
            let length = body.len();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n{more}\r\n\r\n");
            [head.as_bytes(), body].concat()
        };
        let image = "Content-Type: image/webp";
        match path {
            "/missing" => b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".into(),
            "/page" => answer("Content-Type: text/html", b"<p>"),
            "/odd" => answer("Content-Type: image/\"png", b"x"),
            "/bare" => answer("X: y", b"x"),
            "/packed" => answer(&format!("{image}\r\nContent-Encoding: gzip"), b"x"),
            "/empty" => answer(image, b""),
            "/full" => answer(image, &vec![0; MOST_BYTES as usize]),
            "/long" => answer(image, &vec![0; MOST_BYTES as usize + 1]),
            "/cut" => {
                let mut cut = answer(image, b"12345");
                cut.pop();
                cut
            }
            other => panic!("{other}"),
        }
    });
    for (path, why) in [
        ("/missing", "status 404"),
        ("/page", "not an image"),
        ("/odd", "not an image"),
        ("/bare", "not an image"),
        ("/packed", "encoding"),
        ("/empty", "it is empty"),
        ("/long", "longer than 10 MiB"),
        ("/cut", "the connection was cut"),
    ] {
        refuses(host.fetch(&host.url(path)), why);
    }
    let full = host.fetch(&host.url("/full")).unwrap();
    assert_eq!(full.len(), 23 + (MOST_BYTES as usize).div_ceil(3) * 4);

    // Three of them are too much for one request.
    let parts: Vec<String> = (0..3)
        .map(|at| {
            let url = host.url(&format!("/full#{at}"));
            format!(r#"{{"type":"image_url","image_url":{{"url":"{url}"}}}}"#)
        })
        .collect();
    let body = format!(
        r#"{{"model":"m","messages":[{{"role":"user","content":[{}]}}]}}"#,
        parts.join(",")
    );
    let head = Head::read(body.as_bytes()).unwrap();
    let mut request = head.parse().unwrap();
    let error = host
        .fetcher
        .inline(&mut request, |_| true, &job())
        .unwrap_err();
    assert!(
        error.message.contains("longer than 20 MiB together"),
        "{}",
        error.message
    );
    assert_eq!(
        error.param.as_deref(),
        Some("messages[0].content[2].image_url.url")
    );
}

#[test]
fn a_host_that_trickles_is_left_in_time_and_a_caller_who_goes_ends_it() {
    let over = AtomicBool::new(false);
    let authority = Authority::new();
    let good = authority.good();
    let upstream = Upstream::play(move |stream, _, tell| {
        let mut stream = accept(&good, stream);
        let _ = next_request(&mut stream);
        let _ = stream.write_all(&PNG.as_bytes()[..PNG.len() - 1]);
        let _ = stream.flush();
        let _ = tell.send("waits".into());
        // Until the fetcher has hung up.
        let _ = next_request(&mut stream);
    });
    let url = format!("https://{}/", upstream.addr);
    let fetcher = Fetcher {
        line: Line::to_public_and(upstream.addr, &authority.file),
        limit: Duration::from_millis(300),
    };
    let job = job();
    thread::scope(|scope| {
        // As the timer thread does.
        let (job, over) = (&job, &over);
        scope.spawn(move || {
            while !over.load(Ordering::Relaxed) {
                job.pull_overdue(clock::now());
                thread::sleep(Duration::from_millis(5));
            }
        });
        refuses(fetch(&fetcher, &url, job), "it took longer than 0.3 s");
        assert_eq!(job.cancel.cause(), None, "what follows has its own time");
        over.store(true, Ordering::Relaxed);
    });
    while upstream.next() != "closed" {}

    let patient = Fetcher {
        limit: SOON,
        ..fetcher
    };
    let job = Job::new(None, SOON);
    thread::scope(|scope| {
        let job = &job;
        scope.spawn(move || {
            while upstream.next() != "waits" {}
            job.cancel.pull(Cause::CallerGone);
        });
        let message = fetch(&patient, &url, job).unwrap_err();
        assert!(!message.contains("cannot be fetched"), "{message}");
    });
}
