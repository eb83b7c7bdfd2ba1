//! An upstream's base URL: what is taken, and the one form that paths are appended to.

use ureq::http::Uri;

use crate::provider::Format;

/// Checks `text` as a base URL for `format` and brings it into its normal form.
pub fn parse(format: Format, text: &str) -> Result<String, String> {
    let lower = text.to_ascii_lowercase();
    if !lower.starts_with("http://") && !lower.starts_with("https://") {
        return Err("must begin with `http://` or `https://`".into());
    }
    let uri: Uri = text.parse().map_err(|_| "is not a valid URL".to_owned())?;
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    if uri.host().unwrap_or_default().is_empty() {
        return Err("has no host".into());
    }
    // An unparsable port is no port to `Uri`.
    if authority.contains('@') {
        return Err("must not hold a user or password; a key belongs into `keys`".into());
    }
    let after_host = &authority[authority.rfind(']').unwrap_or(0)..];
    if after_host.contains(':') && uri.port_u16().is_none_or(|port| port == 0) {
        return Err("has a port that is not a number from 1 to 65535".into());
    }
    if text.contains(['?', '#']) {
        return Err("must not have a query or fragment, since paths are appended to it".into());
    }
    let path = uri.path().trim_end_matches('/');
    for end in ["/chat/completions", "/responses", "/messages"] {
        if path.ends_with(end) {
            return Err(format!("must end before `{end}`, which is appended to it"));
        }
    }
    Ok(normal(format, text))
}

/// The form to which `Encoded::path` is appended. OpenAI's paths begin behind the version, so a
/// base without a path gets `/v1`; those of Anthropic and Gemini begin with it.
pub fn normal(format: Format, text: &str) -> String {
    let base = text.trim_end_matches('/');
    match format {
        Format::OpenAi | Format::Responses => {
            let host = base.split_once("://").map_or(base, |(_, rest)| rest);
            if host.contains('/') {
                base.to_owned()
            } else {
                format!("{base}/v1")
            }
        }
        Format::Anthropic => without_version(base, &["/v1"]),
        Format::Gemini => without_version(base, &["/v1beta", "/v1"]),
    }
}

fn without_version(base: &str, versions: &[&str]) -> String {
    versions
        .iter()
        .find_map(|version| base.strip_suffix(version))
        .unwrap_or(base)
        .trim_end_matches('/')
        .to_owned()
}

/// Whether `base` is at the vendor's own host (OpenAI has one per region below its own).
pub fn is_vendors(format: Format, base: &str) -> bool {
    let host = |url: &str| {
        url.parse::<Uri>()
            .ok()
            .and_then(|uri| uri.host().map(str::to_ascii_lowercase))
    };
    match (host(base), host(format.default_base())) {
        (Some(host), Some(own)) => host == own || host.ends_with(&format!(".{own}")),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Format::{Anthropic, Gemini, OpenAi, Responses};

    #[test]
    fn every_usual_spelling_leads_to_one_form() {
        for (format, text, normal) in [
            (OpenAi, "http://box:8000", "http://box:8000/v1"),
            (OpenAi, "http://box:8000/", "http://box:8000/v1"),
            (OpenAi, "http://box:8000/v1", "http://box:8000/v1"),
            (OpenAi, "http://box:8000/v1/", "http://box:8000/v1"),
            (
                OpenAi,
                "https://ark.example/api/v3",
                "https://ark.example/api/v3",
            ),
            (
                OpenAi,
                "https://g.example/v1beta/openai/",
                "https://g.example/v1beta/openai",
            ),
            (OpenAi, "https://[::1]:8443", "https://[::1]:8443/v1"),
            (
                Responses,
                "https://api.openai.com",
                "https://api.openai.com/v1",
            ),
            (
                Responses,
                "https://api.openai.com/v1//",
                "https://api.openai.com/v1",
            ),
            (
                Anthropic,
                "https://api.anthropic.com",
                "https://api.anthropic.com",
            ),
            (
                Anthropic,
                "https://api.anthropic.com/v1/",
                "https://api.anthropic.com",
            ),
            (
                Anthropic,
                "https://p.example/claude/v1",
                "https://p.example/claude",
            ),
            (Gemini, "https://p.example/v1beta", "https://p.example"),
            (Gemini, "https://p.example/v1/", "https://p.example"),
            (Gemini, "HTTP://p.example/g/", "HTTP://p.example/g"),
        ] {
            assert_eq!(parse(format, text).unwrap(), normal, "{text}");
        }
    }

    #[test]
    fn what_is_no_base_is_refused() {
        for text in [
            "",
            "box:8000",
            "ftp://box",
            "unix:/x",
            "http://",
            "http:///v1",
            "https://u:p@box/",
            "http://box/?a=b",
            "http://box/#a",
            "http://bo x/",
            "http://box:x/",
            "http://box:99999",
            "http://box:0",
            "http://box:/v1",
            "http://box/v1/chat/completions",
            "http://\u{fc}",
            "http://box/v1/messages/",
            "http://box/\n",
        ] {
            assert!(parse(OpenAi, text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_vendors_own_hosts_are_known() {
        assert!(is_vendors(OpenAi, "https://API.openai.com/v1"));
        assert!(is_vendors(OpenAi, "https://eu.api.openai.com/v1"));
        assert!(!is_vendors(
            OpenAi,
            "https://api.openai.com.evil.example/v1"
        ));
        assert!(!is_vendors(OpenAi, "https://evilapi.openai.com/v1"));
        assert!(!is_vendors(Anthropic, "https://api.openai.com"));
    }
}
