//! Who may ask, and which web pages may read the answer.

use std::net::{Ipv4Addr, Ipv6Addr};

use tiny_http::Method;

use super::routes::Endpoint;
use crate::config::{self, ClientKey, Config};
use crate::dialect::gemini;
use crate::error::ApiError;
use crate::inbound::Call;
use crate::query;
use crate::reply::Reply;
use crate::status;

/// Who asks. Without client keys in the config everybody may.
pub fn client_key<'c>(
    config: &'c Config,
    endpoint: Endpoint,
    call: &Call<'_>,
) -> Result<Option<&'c ClientKey>, ApiError> {
    if config.client_keys.is_empty() || !endpoint.needs_key(config) {
        return Ok(None);
    }
    let refused = |message: &str| Err(ApiError::new(401, message).with_code("invalid_api_key"));
    let bearer = call.header("authorization").and_then(|value| {
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
    });
    let from_page = match endpoint {
        // Looking is all that it opens: what a browser sends along by itself must not act.
        Endpoint::Status => call.header("authorization").and_then(status::password),
        _ => None,
    };
    // Libraries of Gemini's API may put it into the query.
    let in_query = gemini::is_path(&call.path)
        .then(|| query::pairs(&call.query).find(|(name, _)| name == "key"))
        .flatten()
        .map(|(_, key)| key);
    let given = bearer
        .or_else(|| call.header("x-api-key"))
        .or_else(|| call.header("x-goog-api-key"))
        .or(in_query.as_deref());
    let Some(given) = from_page.as_deref().or(given) else {
        return refused("this gateway needs a key: send it as `Authorization: Bearer KEY`");
    };
    let digest = config::digest(given);
    // Over all keys and all bytes, so that the time it takes tells nothing.
    let mut found = None;
    for key in &config.client_keys {
        let differing = key
            .digest
            .iter()
            .zip(&digest)
            .fold(0, |sum, (a, b)| sum | (a ^ b));
        if std::hint::black_box(differing) == 0 {
            found = Some(key);
        }
    }
    match found {
        Some(key) => Ok(Some(key)),
        None => refused("the key is not one of this gateway's"),
    }
}

/// Without client keys everybody on this machine may ask, and a browser on it does so for whatever
/// page is open.
fn is_keyless(config: &Config) -> bool {
    config.client_keys.is_empty() && !config.open
}

/// Refuses a request under a name that is not this machine's. A page of elsewhere can have its own
/// name lead here (DNS rebinding), and then a browser takes it and weir for one site: it sends what
/// it likes and reads the answers. The name that it asks for is what gives it away.
///
/// A unix socket is out of a browser's reach, and what stands before it has its own names.
pub fn check_host(config: &Config, call: &Call<'_>) -> Result<(), ApiError> {
    if !is_kept(config, call) {
        return Ok(());
    }
    let of_target = call.authority.as_deref();
    // Only a caller of HTTP/1.0 can have none, which no browser is.
    let foreign = [of_target, call.header("host")]
        .into_iter()
        .flatten()
        .find(|host| !is_own(config, host));
    let Some(host) = foreign else {
        return Ok(());
    };
    let shown: String = without_port(host).chars().take(100).collect();
    let message = format!(
        "without client keys this gateway is asked as localhost or by its address, not as `{shown}`; more names can be set as \"hosts\" in the config file"
    );
    Err(ApiError::new(403, message).with_code("host_not_allowed"))
}

fn is_kept(config: &Config, call: &Call<'_>) -> bool {
    is_keyless(config) && call.peer.is_some()
}

/// A name of this machine, with or without a port. Nobody else's name server has a say in any.
fn is_own(config: &Config, host: &str) -> bool {
    let name = without_port(host).to_ascii_lowercase();
    let name = name.strip_suffix('.').unwrap_or(&name);
    let address = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    let is_address = match address {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => name.parse::<Ipv4Addr>().is_ok(),
    };
    is_address
        || name == "localhost"
        || name.ends_with(".localhost")
        || config.hosts.iter().any(|own| own == name)
}

/// Lets web pages read the answer: every page where a key is needed or everybody may ask, and where
/// neither is so, only those who may have it made. Who may spend the owner's quota may read what it
/// was spent for.
pub fn allow_origin(config: &Config, call: &mut Call<'_>) {
    let Some(origin) = call.header("origin") else {
        return;
    };
    let allowed = if !is_keyless(config) {
        "*".to_owned()
    } else if is_foreign(origin, call.header("host")) {
        return;
    } else {
        origin.to_owned()
    };
    if allowed != "*" {
        call.add_common("Vary", "Origin");
    }
    call.add_common("Access-Control-Allow-Origin", &allowed);
    call.add_common(
        "Access-Control-Expose-Headers",
        "x-request-id, x-upstream-request-id, Server-Timing, x-weir-upstream, x-weir-attempts, x-weir-dropped, x-weir-finish-reason, \
         x-weir-prompt-tokens, x-weir-completion-tokens, Retry-After, \
         x-ratelimit-limit-requests, x-ratelimit-remaining-requests, x-ratelimit-reset-requests, \
         x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens",
    );
}

/// Refuses what another page sends on its own account. That it may not read the answer does not
/// keep a browser from sending: a form, an image or a fetch without CORS would spend the owner's
/// quota, or end rests. A browser always tells the page's origin with what is not just looked at,
/// and with the rest whether it is of another site.
pub fn fend_off(config: &Config, endpoint: Endpoint, call: &Call<'_>) -> Result<(), ApiError> {
    // A browser that asks beforehand is told by the headers that are missing.
    if !is_keyless(config) || endpoint == Endpoint::Preflight {
        return Ok(());
    }
    let acts = endpoint.is_exchange() || endpoint == Endpoint::Reset;
    let of_other_site = call
        .header("sec-fetch-site")
        .is_some_and(|site| site.eq_ignore_ascii_case("cross-site"));
    let refused = match call.header("origin") {
        // Without the other header that is no browser of today, and it keeps the answer to itself.
        Some(origin) => is_foreign(origin, call.header("host")) && (acts || of_other_site),
        // Who follows a link sees the page, and nobody else does.
        None => of_other_site && (acts || !is_followed_link(call)),
    };
    match refused {
        true => Err(ApiError::new(
            403,
            "without client keys this gateway is not for pages of other machines",
        )
        .with_code("origin_not_allowed")),
        false => Ok(()),
    }
}

/// Somebody follows a link in a tab of their own, rather than a page showing it in a part of itself.
fn is_followed_link(call: &Call<'_>) -> bool {
    let says = |name: &str, value: &str| {
        call.header(name)
            .is_some_and(|said| said.eq_ignore_ascii_case(value))
    };
    let looks = matches!(call.method, Method::Get | Method::Head);
    looks && says("sec-fetch-mode", "navigate") && says("sec-fetch-dest", "document")
}

/// Another machine's page, or one that hides whose it is. Programs that are built of pages (Tauri,
/// Electron, editors, extensions of a browser) have schemes of their own, which no page of the web
/// can have, and pages that came through the same proxy have weir's own host.
fn is_foreign(origin: &str, host: Option<&str>) -> bool {
    let Some((scheme, page)) = origin.split_once("://") else {
        // `null`: a page in a sandbox, of whomever.
        return true;
    };
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    let of_program = !scheme.is_empty()
        && scheme.bytes().all(is_word)
        && origin.bytes().all(|byte| byte.is_ascii_graphic());
    match scheme.to_ascii_lowercase().as_str() {
        // Proxies may leave the port out.
        "http" | "https" => {
            !is_local_origin(origin) && Some(without_port(page)) != host.map(without_port)
        }
        "ftp" | "ws" | "wss" | "blob" | "data" => true,
        _ => !of_program,
    }
}

fn is_local_origin(origin: &str) -> bool {
    let Some(host) = origin
        .strip_prefix("http://")
        .or_else(|| origin.strip_prefix("https://"))
    else {
        return false;
    };
    let host = without_port(host);
    // Browsers ask nobody for names below `localhost`; some desktop programs have one.
    matches!(host, "localhost" | "127.0.0.1" | "[::1]") || host.ends_with(".localhost")
}

/// Allows what the page asks to send: the SDKs add headers of their own, and new ones now and then.
pub fn preflight(call: &Call<'_>) -> Reply {
    const USUAL: &str =
        "Authorization, Content-Type, x-api-key, x-request-id, x-weir-dry-run, x-weir-upstream";
    let names = |list: &&str| {
        list.len() <= 2048
            && list
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_, ".contains(&byte))
    };
    let asked = call.header("access-control-request-headers").filter(names);
    Reply::new(204)
        .with("Access-Control-Allow-Methods", "GET, POST, DELETE, OPTIONS")
        .with("Access-Control-Allow-Headers", asked.unwrap_or(USUAL))
        .with("Access-Control-Max-Age", "600")
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        // No port, or the colons of an IPv6 address.
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_elsewhere_are_foreign() {
        let host = Some("llm.example:8080");
        for origin in ["https://evil.example", "null", "http://a.llm.example:8080"] {
            assert!(is_foreign(origin, host), "{origin}");
            assert!(is_foreign(origin, None), "{origin}");
        }
        for origin in [
            "http://localhost:3000",
            "http://llm.example:8080",
            "https://llm.example",
            "chrome-extension://abc",
            "app://obsidian.md",
            "tauri://localhost",
            "capacitor://localhost",
            "vscode-webview://0a1b-2c3d",
            "moz-extension://0a1b",
            "file://",
        ] {
            assert!(!is_foreign(origin, host), "{origin}");
        }
        for origin in [
            "ftp://llm.example",
            "HTTP://evil.example",
            "data:text/html",
            "blob://x",
            "://x",
            "",
            "a b://c",
        ] {
            assert!(is_foreign(origin, host), "{origin}");
        }
    }

    #[test]
    fn this_machine_has_addresses_and_few_names() {
        let config = Config {
            hosts: vec!["llm.example".to_owned()],
            ..Config::default()
        };
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "localhost.",
            "a.localhost:1",
            "127.0.0.1",
            "127.0.0.1:8080",
            "192.168.0.7:80",
            "[::1]:8080",
            "[fe80::1]",
            "LLM.example:8080",
        ] {
            assert!(is_own(&config, host), "{host}");
        }
        for host in [
            "",
            ":8080",
            "evil.example",
            "evil.example:8080",
            "a.llm.example",
            "localhost.evil.example",
            "notlocalhost",
            "127.0.0.1.evil.example",
            "1.2.3",
            "0x7f000001",
            "2130706433",
            "[evil.example]",
            "::1",
            "localhost@evil.example",
            "evil.example#localhost",
            "localhost:x",
        ] {
            assert!(!is_own(&config, host), "{host}");
        }
    }

    #[test]
    fn only_pages_of_this_machine_are_local() {
        for origin in [
            "http://localhost",
            "http://localhost:3000",
            "https://127.0.0.1:8443",
            "http://[::1]:1",
            "http://[::1]",
            "http://tauri.localhost",
        ] {
            assert!(is_local_origin(origin), "{origin}");
        }
        for origin in [
            "null",
            "http://localhost.example",
            "http://notlocalhost",
            "http://example:127.0.0.1",
            "http://evil.example",
            "file://",
            "http://a:b",
        ] {
            assert!(!is_local_origin(origin), "{origin}");
        }
    }
}
