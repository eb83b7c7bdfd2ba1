//! The listening address: `host:port` or `unix:/path`, and who can reach it.

use std::net::IpAddr;
use std::path::PathBuf;

use super::Listen;

/// `sun_path` of Linux, with its closing zero byte.
const LONGEST_UNIX: usize = 107;

/// Parses without asking DNS.
pub fn parse(text: &str) -> Result<Listen, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        if path.is_empty() || path.contains('\0') {
            return Err("`unix:` needs a path behind it".into());
        }
        if path.len() > LONGEST_UNIX {
            return Err(format!(
                "the path of a unix socket has at most {LONGEST_UNIX} bytes"
            ));
        }
        return Ok(Listen::Unix(PathBuf::from(path)));
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err("expected `host:port` or `unix:/path`".into());
    };
    if !port.bytes().all(|byte| byte.is_ascii_digit()) || port.parse::<u16>().is_err() {
        return Err("the port behind the last `:` must be a number from 0 to 65535".into());
    }
    if host.is_empty() {
        return Err("no host before the port; `0.0.0.0` or `[::]` is every address".into());
    }
    if ip(host).is_none() {
        if host.contains([':', '[', ']']) {
            return Err("an IPv6 address is written in brackets: `[::1]:8080`".into());
        }
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        if !host.bytes().all(fits) {
            return Err("expected `host:port` or `unix:/path`".into());
        }
    }
    Ok(Listen::Tcp(text.to_owned()))
}

impl Listen {
    /// Whether only programs on this machine can connect. A host name other than `localhost` is
    /// taken for a public one, since only DNS would know.
    pub fn is_local(&self) -> bool {
        match self {
            Listen::Unix(_) => true,
            Listen::Tcp(address) => {
                let host = address.rsplit_once(':').map_or("", |(host, _)| host);
                match ip(host) {
                    Some(ip) => ip.to_canonical().is_loopback(),
                    None => host.eq_ignore_ascii_case("localhost"),
                }
            }
        }
    }
}

fn ip(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[') {
        Some(rest) => Some(IpAddr::V6(rest.strip_suffix(']')?.parse().ok()?)),
        None => Some(IpAddr::V4(host.parse().ok()?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_told_from_the_rest() {
        for (text, local) in [
            ("127.0.0.1:8080", true),
            ("127.9.9.9:0", true),
            ("[::1]:80", true),
            ("[::ffff:127.0.0.1]:80", true),
            ("localhost:8080", true),
            ("unix:/run/weir.sock", true),
            ("0.0.0.0:8080", false),
            ("[::]:8080", false),
            ("10.0.0.1:1", false),
            ("gateway.internal:8080", false),
        ] {
            assert_eq!(parse(text).unwrap().is_local(), local, "{text}");
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn bad_addresses_are_refused() {
        for text in [
            "",
            "8080",
            ":8080",
            "a:",
            "a:x",
            "a:65536",
            "a:+1",
            "::1:80",
            "[::1:80",
            "a b:1",
            "unix:",
            "http://a:1",
            "1.2.3.4",
            "[1.2.3.4]:1",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse(&format!("unix:/{}", "a".repeat(107))).is_err());
    }
}
