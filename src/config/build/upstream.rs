//! One upstream of the file, with what the top of the file sets for all of them.

use std::path::PathBuf;
use std::time::Duration;

use super::{Ground, patterns};
use crate::config::findings::{Findings, element, member};
use crate::config::read::Object;
use crate::config::secret::{self, Secret};
use crate::config::tree::Node;
use crate::config::{Key, Upstream, base_url, file};
use crate::kind::{self, Kind};
use crate::provider::anthropic::Display;
use crate::provider::{Format, Options, gemini, openai};

/// One object of `upstreams`; `None` if not even its format is known.
pub fn read(
    object: &Object<'_>,
    top: &Object<'_>,
    ground: &Ground<'_>,
    findings: &mut Findings,
) -> Option<Upstream> {
    let models = patterns(object, findings);
    if object.texts("models").is_some_and(|list| list.is_empty()) {
        findings.add(
            &object.path("models"),
            "is empty; leave it out for the vendor's own names, or those that the server lists",
        );
    }
    let name = object.text("name").unwrap_or("upstream");
    let keys = keys(object, name, ground, findings);
    let (headers, hidden) = headers(object, ground, findings);
    let both = |key: &str| {
        object
            .text(key)
            .map(|text| (object.path(key), text))
            .or_else(|| top.text(key).map(|text| (top.path(key), text)))
    };
    let proxy = both("proxy").and_then(|(path, text)| proxy(&path, text, ground, findings));
    let ca_file = both("ca_file").and_then(|(path, text)| ca_file(&path, text, ground, findings));
    if let Some(version) = object.text("anthropic_version")
        && !version.bytes().all(|byte| byte.is_ascii_graphic())
    {
        findings.add(
            &object.path("anthropic_version"),
            "cannot be a header value",
        );
    }

    let format = Format::from_name(object.text("format")?)?;
    let mut upstream = Upstream::new(name, format);
    if object.has("base_url") {
        // So that a wrong address is not taken for the vendor's own below.
        upstream.base_url.clear();
    }
    if let Some(text) = object.text("base_url") {
        match base_url::parse(format, text) {
            Ok(base) => upstream.base_url = base,
            Err(fault) => findings.add(&object.path("base_url"), fault),
        }
    }
    let vendors = base_url::is_vendors(format, &upstream.base_url);
    // A list that could not be read has a finding of its own.
    let none = object
        .texts("keys")
        .map_or(!object.has("keys"), |list| list.is_empty());
    if vendors && none {
        findings.add(
            &object.path("keys"),
            "the vendor's own address answers no request without a key",
        );
    }
    if !keys.is_empty() {
        let (auth, _) = kind_of(object, &upstream.base_url)
            .and_then(|kind| kind.auth)
            .unwrap_or(format.auth_header());
        if headers.iter().any(|(name, _)| name == auth) {
            findings.add(
                &member(&object.path("headers"), auth),
                "carries the key already; take one of the two out",
            );
        }
        upstream.keys = keys;
    }
    if let Some(slots) = object.number("slots") {
        upstream.slots = usize::try_from(slots).unwrap_or(usize::MAX);
        upstream.slots_set = true;
    }
    let millis = |key: &str| {
        object
            .number(key)
            .or_else(|| top.number(key))
            .map(Duration::from_millis)
    };
    upstream.connect = millis("connect_ms").unwrap_or(upstream.connect);
    upstream.first_byte_set = millis("first_byte_ms").is_some();
    upstream.first_byte = millis("first_byte_ms").unwrap_or(upstream.first_byte);
    upstream.idle = millis("idle_ms").unwrap_or(upstream.idle);
    upstream.headers = headers;
    upstream.hidden = hidden;
    upstream.proxy = proxy;
    upstream.ca_file = ca_file;
    let options = &mut upstream.options;
    let strict = object.flag("strict").or_else(|| top.flag("strict"));
    options.strict = strict.unwrap_or(options.strict);
    if let Some(most) = top.number("max_schema_nodes") {
        options.schema_nodes = usize::try_from(most).unwrap_or(usize::MAX);
    }
    options.official = object.flag("official").unwrap_or(vendors);
    options.kind = kind_of(object, &upstream.base_url);
    options.streams_whole = object.text("whole").map(|word| word == "streamed");
    options.developer_as_system = object
        .flag("developer_as_system")
        .unwrap_or(options.kind().developer_as_system);
    if let Some(strip) = object.texts("strip") {
        for (at, field) in strip.iter().enumerate() {
            if !openai::is_path(field) {
                let path = element(&object.path("strip"), at);
                findings.add(&path, "is no path like store or messages[].refusal");
            }
        }
        options.strip = strip.into_iter().map(str::to_owned).collect();
    }
    options.max_tokens_field = object.text("max_tokens_field").map(str::to_owned);
    options.ask_usage = object.flag("ask_usage").unwrap_or_default();
    switches(object, options);
    upstream.settle_models(models, object.flag("discover"));
    Some(upstream)
}

/// What the server is, by the config or its address.
fn kind_of(object: &Object<'_>, base_url: &str) -> Option<&'static Kind> {
    match object.text("kind") {
        Some(name) => kind::by_name(name),
        None => kind::by_address(base_url),
    }
}

/// What only one or two of the formats heed.
fn switches(object: &Object<'_>, options: &mut Options) {
    let flag = |name: &str, place: &mut bool| {
        if let Some(flag) = object.flag(name) {
            *place = flag;
        }
    };
    if let Some(version) = object.text("anthropic_version") {
        options.anthropic_version = version.to_owned();
    }
    let anthropic = &mut options.anthropic;
    flag("auto_cache", &mut anthropic.auto_cache);
    flag("reject_forced_tools", &mut anthropic.reject_forced_tools);
    flag("reject_prefill", &mut anthropic.reject_prefill);
    if let Some(number) = object.number("default_max_tokens") {
        anthropic.default_max_tokens = number;
    }
    match object.text("thinking_display") {
        Some("omitted") => anthropic.display = Display::Omitted,
        Some("unset") => anthropic.display = Display::Unset,
        _ => {}
    }
    let gemini = &mut options.gemini;
    flag("reject_prefill", &mut gemini.reject_prefill);
    flag("include_thoughts", &mut gemini.include_thoughts);
    gemini.voices = pairs(object, "voices");
    let settings = pairs(object, "safety_settings");
    if !settings.is_empty() {
        gemini.safety_settings = Some(gemini::safety_settings(&settings));
    }
    flag("reasoning_summary", &mut options.responses.summary);
}

/// The members of an object of texts.
fn pairs(object: &Object<'_>, name: &str) -> Vec<(String, String)> {
    let Some(Node::Object(members)) = object.get(name) else {
        return Vec::new();
    };
    let text = |(name, node): &(String, Node)| match node {
        Node::Text(text) => Some((name.clone(), text.clone())),
        _ => None,
    };
    members.iter().filter_map(text).collect()
}

fn keys(
    object: &Object<'_>,
    upstream: &str,
    ground: &Ground<'_>,
    findings: &mut Findings,
) -> Vec<Key> {
    let mut keys: Vec<Key> = Vec::new();
    let path = object.path("keys");
    for (at, written) in object.texts("keys").unwrap_or_default().iter().enumerate() {
        let secret = match secret::resolve(written, ground.folder, ground.env) {
            Ok(secret) => secret,
            Err(fault) => {
                findings.add(&element(&path, at), fault);
                continue;
            }
        };
        // Each key is tried once per request, which a second copy of it would defeat.
        if keys.iter().any(|key| key.secret.as_ref() == Some(&secret)) {
            findings.add(
                &element(&path, at),
                "is the same key as another one before it",
            );
        }
        keys.push(Key {
            name: match secret::variable(written) {
                Some(variable) => variable.to_owned(),
                None => format!("{upstream}#{}", at + 1),
            },
            secret: Some(secret),
        });
    }
    keys
}

/// Headers that describe the message itself; only the HTTP client can set them rightly.
const FRAMING: &[&str] = &[
    "accept-encoding",
    "connection",
    "content-length",
    "content-type",
    "host",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

fn headers(
    object: &Object<'_>,
    ground: &Ground<'_>,
    findings: &mut Findings,
) -> (Vec<(String, String)>, Vec<Secret>) {
    let Some(Node::Object(members)) = object.get("headers") else {
        return (Vec::new(), Vec::new());
    };
    let mut headers: Vec<(String, String)> = Vec::new();
    let mut hidden = Vec::new();
    for (name, node) in members {
        let path = member(&object.path("headers"), name);
        let Node::Text(written) = node else {
            continue;
        };
        let lower = name.to_ascii_lowercase();
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if name.is_empty() || !name.bytes().all(token) {
            findings.add(&path, "is not a name that a header can have");
        } else if FRAMING.contains(&lower.as_str()) {
            findings.add(&path, "is set by weir itself");
        } else if headers.iter().any(|(known, _)| *known == lower) {
            findings.add(&path, "stands here twice");
        }
        match secret::resolve(written, ground.folder, ground.env) {
            Ok(value) => {
                headers.push((lower, value.reveal().to_owned()));
                if secret::is_reference(written) {
                    hidden.push(value);
                }
            }
            Err(fault) => findings.add(&path, fault),
        }
    }
    (headers, hidden)
}

fn proxy(path: &str, text: &str, ground: &Ground<'_>, findings: &mut Findings) -> Option<String> {
    let secret = secret::resolve(text, ground.folder, ground.env);
    // The URL may hold a password, so no finding shows it.
    let checked = secret.and_then(|url: Secret| {
        let lower = url.reveal().to_ascii_lowercase();
        if !lower.starts_with("http://") && !lower.starts_with("https://") {
            return Err("must begin with `http://` or `https://`".into());
        }
        match ureq::Proxy::new(url.reveal()) {
            Ok(proxy) if !proxy.host().is_empty() => Ok(url.reveal().to_owned()),
            _ => Err("is not a valid URL of a proxy".into()),
        }
    });
    // Many upstreams share the key at the top; its finding is needed once.
    checked.map_err(|fault| findings.add_once(path, fault)).ok()
}

/// More than any bundle of certificates holds.
const LONGEST_CA_FILE: u64 = 16 << 20;

fn ca_file(
    path: &str,
    text: &str,
    ground: &Ground<'_>,
    findings: &mut Findings,
) -> Option<PathBuf> {
    let file = ground.folder.join(text);
    let mark = b"-----BEGIN CERTIFICATE-----";
    match file::read(&file, LONGEST_CA_FILE) {
        Err(error) => {
            let fault = format!(
                "cannot read file `{}`: {}",
                file.display(),
                secret::plain(&error)
            );
            findings.add_once(path, fault);
            None
        }
        Ok(bytes) if !bytes.windows(mark.len()).any(|part| part == mark) => {
            findings.add_once(
                path,
                format!("file `{}` holds no certificate", file.display()),
            );
            None
        }
        Ok(_) => Some(file),
    }
}
