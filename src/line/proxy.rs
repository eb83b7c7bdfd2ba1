//! Which proxy leads to an upstream, and how to ask it.
//!
//! Only HTTP proxies: `https` upstreams go through a tunnel (`CONNECT`), `http` upstreams are asked
//! for by their whole URL. Without a setting the environment decides, as with curl and Go: the
//! lower-case name first, `ALL_PROXY` when the scheme has none of its own, `NO_PROXY` for the
//! exceptions, and never for this machine itself.

use std::io::{self, Read, Write};
use std::net::IpAddr;

use ureq::http::Uri;

use super::attempt::{Trouble, words};
use super::connect::Timed;
use super::{USER_AGENT, host_and_port};

/// A tunnel's answer is a status line and a few headers.
const LONGEST_ANSWER: usize = 16 * 1024;

#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    pub host: String,
    pub port: u16,
    /// The value of `Proxy-Authorization`.
    pub authorization: Option<String>,
}

/// A proxy, or what is wrong with it. One that the environment names is complained about only where
/// it would be used.
type Way = Result<Proxy, String>;

/// The proxies of one line.
#[derive(Default)]
pub struct Proxies {
    http: Option<Way>,
    https: Option<Way>,
    /// `None`: the proxies were set on purpose and have no exceptions.
    exceptions: Option<Vec<Exception>>,
}

impl Proxies {
    /// `setting` is the one in the config file; empty means to go straight. `env` reads the
    /// environment.
    pub fn new(
        setting: Option<&str>,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Proxies, String> {
        if let Some(setting) = setting {
            let proxy = match setting.is_empty() {
                true => None,
                false => Some(Ok(parse(setting)?)),
            };
            return Ok(Proxies {
                http: proxy.clone(),
                https: proxy,
                exceptions: None,
            });
        }
        let read = |name: &str| {
            [name.to_ascii_lowercase(), name.to_string()]
                .into_iter()
                .find_map(|name| Some((env(&name).filter(|value| !value.is_empty())?, name)))
        };
        let proxy = |name: &str| {
            let (value, name) = read(name).or_else(|| read("ALL_PROXY"))?;
            Some(parse(&value).map_err(|error| format!("{name}: {error}")))
        };
        let exceptions = match read("NO_PROXY") {
            None => Vec::new(),
            Some((list, _)) => list
                .split([',', ' '])
                .filter_map(Exception::parse)
                .collect(),
        };
        Ok(Proxies {
            http: proxy("HTTP_PROXY"),
            https: proxy("HTTPS_PROXY"),
            exceptions: Some(exceptions),
        })
    }

    /// The proxy that leads to `uri`, if one does.
    pub fn to(&self, uri: &Uri) -> Option<&Proxy> {
        self.way_to(uri)?.as_ref().ok()
    }

    /// What is wrong with the proxy that would lead to `uri`.
    pub fn fault(&self, uri: &Uri) -> Option<&str> {
        self.way_to(uri)?.as_ref().err().map(String::as_str)
    }

    fn way_to(&self, uri: &Uri) -> Option<&Way> {
        let proxy = match uri.scheme_str() {
            Some("https") => self.https.as_ref()?,
            _ => self.http.as_ref()?,
        };
        if let Some(exceptions) = &self.exceptions {
            let (host, port) = host_and_port(uri)?;
            let host = host.trim_matches(['[', ']']);
            if is_this_machine(host) || exceptions.iter().any(|except| except.holds(host, port)) {
                return None;
            }
        }
        Some(proxy)
    }
}

fn is_this_machine(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(ip) => ip.is_loopback(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

/// One entry of `NO_PROXY`.
#[derive(Debug, PartialEq, Eq)]
enum Exception {
    All,
    /// The name itself and everything below it; lower case, without a leading dot.
    Name(String, Option<u16>),
    /// A network and the length of its prefix.
    Network(IpAddr, u8),
}

impl Exception {
    fn parse(entry: &str) -> Option<Exception> {
        let entry = entry.trim();
        if entry == "*" {
            return Some(Exception::All);
        }
        if let Some((network, length)) = entry.split_once('/') {
            return Some(Exception::Network(
                network.parse().ok()?,
                length.parse().ok()?,
            ));
        }
        if let Ok(ip) = entry.trim_matches(['[', ']']).parse() {
            return Some(Exception::Network(ip, 128));
        }
        let (name, port) = match entry.rsplit_once(':') {
            Some((name, port)) => (name, Some(port.parse().ok()?)),
            None => (entry, None),
        };
        let name = name.strip_prefix('*').unwrap_or(name);
        let name = name.strip_prefix('.').unwrap_or(name);
        if name.is_empty() {
            return None;
        }
        Some(Exception::Name(name.to_ascii_lowercase(), port))
    }

    fn holds(&self, host: &str, port: u16) -> bool {
        match self {
            Exception::All => true,
            Exception::Name(_, Some(only)) if *only != port => false,
            Exception::Name(name, _) => {
                let host = host.to_ascii_lowercase();
                match host.strip_suffix(name.as_str()) {
                    Some(before) => before.is_empty() || before.ends_with('.'),
                    None => false,
                }
            }
            Exception::Network(network, length) => match (network, host.parse()) {
                (IpAddr::V4(network), Ok(IpAddr::V4(ip))) => {
                    let other_bits = 32 - u32::from(*length).min(32);
                    let differ = network.to_bits() ^ ip.to_bits();
                    u64::from(differ) >> other_bits == 0
                }
                (IpAddr::V6(network), Ok(IpAddr::V6(ip))) => {
                    let other_bits = 128 - u32::from(*length).min(128);
                    let differ = network.to_bits() ^ ip.to_bits();
                    differ.checked_shr(other_bits).unwrap_or(0) == 0
                }
                _ => false,
            },
        }
    }
}

/// `[http://][user:password@]host[:port]`. No message shows the text itself, which may hold a
/// password.
fn parse(text: &str) -> Result<Proxy, String> {
    let whole = match text.contains("://") {
        true => text.to_string(),
        false => format!("http://{text}"),
    };
    let uri: Uri = whole
        .parse()
        .map_err(|_| "the proxy is not a URL".to_string())?;
    match uri.scheme_str() {
        Some("http") => {}
        Some(other) => {
            return Err(format!(
                "a proxy is spoken to over http://, {other}:// is not supported \
                 (set the upstream's proxy to \"\" to go without one)"
            ));
        }
        None => return Err("the proxy is not a URL".into()),
    }
    let (host, port) = host_and_port(&uri).ok_or("the proxy has no host")?;
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let authorization = match authority.rsplit_once('@') {
        None => None,
        Some((login, _)) => {
            let (user, password) = login.split_once(':').unwrap_or((login, ""));
            let mut plain = percent_decode(user);
            plain.push(b':');
            plain.extend(percent_decode(password));
            Some(format!("Basic {}", base64(&plain)))
        }
    };
    Ok(Proxy {
        host: host.to_string(),
        port,
        authorization,
    })
}

fn percent_decode(text: &str) -> Vec<u8> {
    let mut rest = text.as_bytes();
    let mut out = Vec::with_capacity(rest.len());
    while let [first, tail @ ..] = rest {
        let digit = |index: usize| char::from(*tail.get(index)?).to_digit(16);
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                rest = &tail[2..];
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

pub(super) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let byte = |index: usize| u32::from(three.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            match digit <= three.len() {
                true => out.push(DIGITS[(bits >> (18 - 6 * digit) & 63) as usize].into()),
                false => out.push('='),
            }
        }
    }
    out
}

/// Asks for a tunnel to `host:port`. Afterwards the connection is the upstream's.
pub fn open_tunnel(
    mut wire: Timed<'_>,
    proxy: &Proxy,
    host: &str,
    port: u16,
) -> Result<(), Trouble> {
    let mut ask = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n");
    ask.push_str(&format!("User-Agent: {USER_AGENT}\r\n"));
    if let Some(authorization) = &proxy.authorization {
        ask.push_str(&format!("Proxy-Authorization: {authorization}\r\n"));
    }
    ask.push_str("\r\n");
    let broken = |why: &str| {
        let (host, port) = (&proxy.host, proxy.port);
        Trouble::new(format!("the proxy {host}:{port} gives no tunnel: {why}"))
    };
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::TimedOut => Trouble::timeout(broken("no answer in time").text),
        _ => broken(&words(&error)),
    };
    wire.write_all(ask.as_bytes()).map_err(failed)?;
    let mut answer = Vec::new();
    loop {
        let mut piece = [0; 1024];
        let read = wire.read(&mut piece).map_err(failed)?;
        if read == 0 {
            return Err(broken("it closed the connection"));
        }
        answer.extend_from_slice(&piece[..read]);
        if let Some(at) = answer.windows(4).position(|four| four == b"\r\n\r\n") {
            let status = status_of(&answer).ok_or_else(|| broken("its answer is not HTTP"))?;
            return match status {
                200..=299 if at + 4 == answer.len() => Ok(()),
                200..=299 => Err(broken("it speaks before the upstream was asked")),
                407 => Err(broken("it wants a user name and password (407)")),
                other => Err(broken(&format!("it answered {other}"))),
            };
        }
        if answer.len() > LONGEST_ANSWER {
            return Err(broken("its answer has no end"));
        }
    }
}

fn status_of(answer: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(answer.split(|byte| *byte == b'\r').next()?).ok()?;
    let (version, rest) = line.split_once(' ')?;
    if !version.starts_with("HTTP/1.") {
        return None;
    }
    rest.get(..3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_env(pairs: &[(&str, &str)]) -> Result<Proxies, String> {
        Proxies::new(None, |name| {
            let pair = pairs.iter().find(|(key, _)| *key == name)?;
            Some(pair.1.to_string())
        })
    }

    fn through(proxies: &Proxies, url: &str) -> Option<String> {
        Some(proxies.to(&url.parse().unwrap())?.host.clone())
    }

    #[test]
    fn the_environment_names_a_proxy_for_each_scheme() {
        let proxies = from_env(&[
            ("HTTPS_PROXY", "http://secure:3128"),
            ("https_proxy", "lower:3128"),
            ("ALL_PROXY", "http://rest"),
        ])
        .unwrap();
        assert_eq!(through(&proxies, "https://api.example").unwrap(), "lower");
        assert_eq!(through(&proxies, "http://api.example").unwrap(), "rest");
        for local in ["http://localhost:1", "http://127.0.0.1", "https://[::1]/"] {
            assert_eq!(through(&proxies, local), None, "{local}");
        }
        assert_eq!(through(&from_env(&[]).unwrap(), "https://a.example"), None);
        assert_eq!(
            through(&from_env(&[("HTTP_PROXY", "")]).unwrap(), "http://a"),
            None
        );
    }

    #[test]
    fn no_proxy_names_the_exceptions() {
        let list = "example.com, .dot.org,*.star.net,10.0.0.0/8,fd00::/8,192.168.1.1,only.de:8443";
        let proxies = from_env(&[("HTTPS_PROXY", "p"), ("no_proxy", list)]).unwrap();
        let straight = [
            "example.com",
            "API.example.com",
            "a.dot.org",
            "dot.org",
            "b.star.net",
            "10.2.3.4",
            "[fd12::1]",
            "192.168.1.1",
            "only.de:8443",
        ];
        for host in straight {
            assert_eq!(
                through(&proxies, &format!("https://{host}/")),
                None,
                "{host}"
            );
        }
        let proxied = [
            "notexample.com",
            "11.0.0.1",
            "[fe80::1]",
            "192.168.1.2",
            "only.de",
        ];
        for host in proxied {
            assert!(
                through(&proxies, &format!("https://{host}/")).is_some(),
                "{host}"
            );
        }
        let all = from_env(&[("HTTPS_PROXY", "p"), ("NO_PROXY", "*")]).unwrap();
        assert_eq!(through(&all, "https://a.example"), None);
        let zero = from_env(&[("HTTPS_PROXY", "p"), ("NO_PROXY", "0.0.0.0/0,::/0")]).unwrap();
        assert_eq!(through(&zero, "https://9.9.9.9"), None);
        assert_eq!(through(&zero, "https://[2001:db8::1]"), None);
    }

    #[test]
    fn a_setting_wins_over_the_environment_and_has_no_exceptions() {
        let proxies = Proxies::new(Some("mine:8080"), |_| panic!("asked")).unwrap();
        assert_eq!(through(&proxies, "http://127.0.0.1").unwrap(), "mine");
        let straight = Proxies::new(Some(""), |_| panic!("asked")).unwrap();
        assert_eq!(through(&straight, "https://a.example"), None);
    }

    #[test]
    fn a_proxy_is_parsed_and_a_wrong_one_refused_without_showing_it() {
        let proxy = parse("http://us%40er:p%3Ass@host").unwrap();
        assert_eq!((proxy.host.as_str(), proxy.port), ("host", 80));
        // `us@er:p:ss`
        assert_eq!(proxy.authorization.unwrap(), "Basic dXNAZXI6cDpzcw==");
        assert_eq!(parse("[::1]:3128").unwrap().host, "[::1]");
        for wrong in [
            "socks5://u:secret@h",
            "https://u:secret@h",
            "http://",
            "u:secret@ h",
        ] {
            let error = parse(wrong).map(|proxy| proxy.host).unwrap_err();
            assert!(!error.contains("secret"), "{error}");
        }
        // One of the environment is told of where it would be used.
        let Ok(proxies) = from_env(&[("ALL_PROXY", "socks5://h")]) else {
            panic!("it is no fault of the config");
        };
        let far: Uri = "https://far.example/v1".parse().unwrap();
        assert!(proxies.to(&far).is_none());
        let fault = proxies.fault(&far).unwrap();
        assert!(fault.starts_with("ALL_PROXY: "), "{fault}");
        assert_eq!(
            proxies.fault(&"http://127.0.0.1:9/v1".parse().unwrap()),
            None
        );
    }

    #[test]
    fn base64_has_its_three_endings() {
        assert_eq!(
            ["", "f", "fo", "foo", "foob"].map(|text| base64(text.as_bytes())),
            ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg=="]
        );
    }
}
