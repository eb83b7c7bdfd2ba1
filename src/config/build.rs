//! A config file's tree -> `Config`. Everything that the table cannot know: secrets, addresses,
//! names that must exist or must not exist twice.

use std::path::Path;
use std::time::Duration;

use super::findings::{Findings, element, shown};
use super::read::Object;
use super::secret::Env;
use super::table::Place;
use super::tree::{self, Node};
use super::{Config, Listen, LogFormat, listen};
use crate::provider::Format;

mod aliases;
mod client_keys;
mod key_file;
mod request_log;
mod upstream;

/// What a file's words can refer to.
pub struct Ground<'a> {
    /// Where relative paths start.
    pub folder: &'a Path,
    pub env: Env<'a>,
    /// An address from the command line, which wins over the file's.
    pub listen: Option<&'a str>,
}

/// Reads `text` as a config file. The `Config` is good only if nothing was found.
pub fn config(text: &str, ground: &Ground<'_>, findings: &mut Findings) -> Config {
    let mut config = Config::default();
    let tree = match tree::parse(text) {
        Ok(tree) => tree,
        Err((place, text)) => {
            findings.add(&place, text);
            return config;
        }
    };
    let Some(top) = Object::open(Place::Top, "", &tree, findings) else {
        return config;
    };

    numbers(&top, &mut config);
    config.request_log = request_log::read(&top, ground, findings);
    config.client_keys = client_keys::read(&top, ground, findings);
    key_file::read(&top, ground, &mut config.client_keys, findings);
    match (ground.listen, top.text("listen")) {
        (Some(text), _) => address("--listen", text, &mut config, findings),
        (None, Some(text)) => address("listen", text, &mut config, findings),
        (None, None) => {}
    }
    // A key that could not be read was still meant to close the door, and has its own finding.
    let closed = matches!(top.get("client_keys"), Some(Node::List(list)) if !list.is_empty())
        || top.has("client_keys_file");
    config.open = top.flag("open").unwrap_or(config.open);
    for (at, host) in top.texts("hosts").unwrap_or_default().iter().enumerate() {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if host.is_empty() || !host.bytes().all(is_name) {
            let what = format!("{} is no name of a host: no port, no scheme", shown(host));
            findings.add(&element("hosts", at), what);
        }
        config.hosts.push(host.to_ascii_lowercase());
    }
    if let Some(text) = top.text("seal_key") {
        match super::secret::resolve(text, ground.folder, ground.env) {
            Ok(key) => config.seal_key = Some(key),
            Err(fault) => findings.add("seal_key", fault),
        }
    }
    let open = closed || config.open;
    fence(&config.listen, open, ground.listen.is_some(), findings);

    let mut names = Vec::new();
    if let Some(Node::List(list)) = top.get("upstreams") {
        if list.is_empty() {
            findings.add("upstreams", "is empty; there is nobody to ask");
        }
        for (at, node) in list.iter().enumerate() {
            let path = element("upstreams", at);
            let Some(object) = Object::open(Place::Upstream, &path, node, findings) else {
                continue;
            };
            name(&object, &mut names, findings);
            config
                .upstreams
                .extend(upstream::read(&object, &top, ground, findings));
        }
    }
    config.aliases = aliases::read(&top, &names, findings);
    config
}

fn numbers(top: &Object<'_>, config: &mut Config) {
    let size = |name: &str, place: &mut usize| {
        if let Some(number) = top.number(name) {
            *place = usize::try_from(number).unwrap_or(usize::MAX);
        }
    };
    size("workers", &mut config.workers);
    size("max_body_bytes", &mut config.max_body_bytes);
    size("max_answer_bytes", &mut config.max_answer_bytes);
    size("response_memory_bytes", &mut config.response_memory);
    size("max_body_values", &mut config.limits.values);
    size("max_body_depth", &mut config.limits.depth);
    size("max_messages", &mut config.limits.messages);
    size("max_tools", &mut config.limits.tools);
    size("max_connections", &mut config.max_connections);
    size("max_waiting", &mut config.max_waiting);

    let millis = |name: &str, place: &mut Duration| {
        if let Some(number) = top.number(name) {
            *place = Duration::from_millis(number);
        }
    };
    millis("deadline_ms", &mut config.deadline);
    millis("lease_wait_ms", &mut config.lease_wait);
    millis("loading_wait_ms", &mut config.loading_wait);
    millis("keepalive_ms", &mut config.keepalive);
    millis("write_timeout_ms", &mut config.write_timeout);
    millis("body_wait_ms", &mut config.body_wait);
    millis("drain_ms", &mut config.drain);
    millis("unready_ms", &mut config.unready);
    millis("backoff_ms", &mut config.backoff);
    millis("response_memory_ms", &mut config.response_memory_age);
    millis("cool_down_max_ms", &mut config.cool_down_max);

    if let Some(number) = top.number("retries") {
        config.retries = u32::try_from(number).unwrap_or(u32::MAX);
    }
    if let Some(flag) = top.flag("quota_switch") {
        config.quota_switch = flag;
    }
    if let Some(flag) = top.flag("metrics_open") {
        config.metrics_open = flag;
    }
    if let Some(flag) = top.flag("fetch_images") {
        config.fetch_images = flag;
    }
    if let Some(Ok(level)) = top.text("log_level").map(str::parse) {
        config.log_level = level;
    }
    if top.text("log_format") == Some("json") {
        config.log_format = LogFormat::Json;
    }
}

fn address(path: &str, text: &str, config: &mut Config, findings: &mut Findings) {
    match listen::parse(text) {
        Ok(listen) => config.listen = listen,
        Err(fault) => findings.add(path, format!("{}: {fault}", shown(text))),
    }
}

/// H3: without client keys only this machine may connect, unless the file says otherwise.
pub fn fence(listen: &Listen, open: bool, command_line: bool, findings: &mut Findings) {
    if !open && !listen.is_local() {
        let path = if command_line { "--listen" } else { "listen" };
        findings.add(
            path,
            format!(
                "other machines can reach {listen}, and there are no `client_keys`; add some to \
                 the config file, or \"open\": true"
            ),
        );
    }
}

/// An upstream's name as aliases can use it, noted even if the rest of it is wrong.
pub struct Named {
    pub name: String,
    pub format: Option<Format>,
}

fn name(object: &Object<'_>, names: &mut Vec<Named>, findings: &mut Findings) {
    let Some(name) = object.text("name") else {
        return;
    };
    if !is_label(name) {
        findings.add(&object.path("name"), LABEL);
    }
    if names.iter().any(|known| known.name == name) {
        findings.add(
            &object.path("name"),
            format!("{} is taken by another upstream before it", shown(name)),
        );
    }
    names.push(Named {
        name: name.to_owned(),
        format: object.text("format").and_then(Format::from_name),
    });
}

fn patterns(object: &Object<'_>, findings: &mut Findings) -> Option<Vec<String>> {
    let list = object.texts("models")?;
    for (at, pattern) in list.iter().enumerate() {
        if let Some(fault) = model_fault(pattern) {
            findings.add(&element(&object.path("models"), at), fault);
        } else if pattern.contains("**") {
            findings.add(
                &element(&object.path("models"), at),
                "one `*` already stands for any text",
            );
        }
    }
    Some(list.into_iter().map(str::to_owned).collect())
}

/// Why `text` can be neither a model's name nor a pattern of such names.
fn model_fault(text: &str) -> Option<&'static str> {
    if text.is_empty() {
        Some("is empty")
    } else if text.len() > 256 {
        Some("is longer than 256 bytes")
    } else if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        Some("holds white space or a control character, which no model's name does")
    } else {
        None
    }
}

const LABEL: &str = "a name has 1 to 64 letters, digits, `.`, `_`, `-` or `#`";

fn is_label(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-#".contains(&byte);
    (1..=64).contains(&name.len()) && name.bytes().all(fits)
}
