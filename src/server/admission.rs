//! Who may ask, and which web pages may read the answer.

use super::routes::Endpoint;
use crate::config::{self, ClientKey, Config};
use crate::error::ApiError;
use crate::inbound::Call;
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
    let given = bearer.or_else(|| call.header("x-api-key"));
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

/// Lets web pages read the answer: every page where a key is needed, and where none is only pages
/// from this very machine, since any other could spend the owner's quota.
pub fn allow_origin(config: &Config, call: &mut Call<'_>) {
    let Some(origin) = call.header("origin") else {
        return;
    };
    let allowed = if !config.client_keys.is_empty() {
        "*".to_owned()
    } else if is_local_origin(origin) {
        origin.to_owned()
    } else {
        return;
    };
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
/// keep a browser from sending: a form or a fetch without CORS would spend the owner's quota, or
/// end rests. A browser always tells the page's origin with what is not just looked at.
pub fn fend_off(config: &Config, call: &Call<'_>) -> Result<(), ApiError> {
    if !config.client_keys.is_empty() || config.open {
        return Ok(());
    }
    match call.header("origin") {
        Some(origin) if is_foreign(origin, call.header("host")) => Err(ApiError::new(
            403,
            "without client keys this gateway is not for pages of other machines",
        )
        .with_code("origin_not_allowed")),
        _ => Ok(()),
    }
}

/// Another machine's page, or one that hides whose it is. Programs that are built of pages have
/// schemes of their own, and pages that came through the same proxy have weir's own host.
fn is_foreign(origin: &str, host: Option<&str>) -> bool {
    let of_page = origin
        .strip_prefix("http://")
        .or_else(|| origin.strip_prefix("https://"));
    match of_page {
        // Proxies may leave the port out.
        Some(page) => {
            !is_local_origin(origin) && Some(without_port(page)) != host.map(without_port)
        }
        None => origin == "null",
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
        ] {
            assert!(!is_foreign(origin, host), "{origin}");
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
