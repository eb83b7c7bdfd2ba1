//! A configuration in words: what `--check-config` prints, and the log's first line.

use std::fmt::Write;

use super::sources::{Loaded, Origin};
use crate::limits::Allowance;
use crate::models;
use crate::route::{self, Target};

/// The resolved configuration and its routes, without any secret.
pub fn check(loaded: &Loaded) -> String {
    let config = &loaded.config;
    let mut out = String::new();
    let from = match &loaded.origin {
        Origin::File(file) => file.display().to_string(),
        Origin::Environment(names) => format!("the environment ({})", names.join(", ")),
        Origin::Demo => "the built-in demo (no file, no key)".to_owned(),
    };
    let _ = writeln!(out, "config from {from}: no findings\n");
    let _ = writeln!(out, "listen {}", config.listen);
    if config.client_keys.is_empty() {
        out.push_str("client keys: none, open to everyone who can connect\n");
    }
    for key in &config.client_keys {
        let models = if key.models.is_empty() {
            "all models".to_owned()
        } else {
            key.models.join(", ")
        };
        let mut allowance = key.allowance;
        let limits: String = Allowance::NAMES
            .iter()
            .filter_map(|name| Some(format!("; {name} {}", (*allowance.place(name)?)?)))
            .collect();
        let _ = writeln!(out, "client key {} ***: {models}{limits}", key.name);
    }
    if let Some(log) = &config.request_log {
        let _ = writeln!(
            out,
            "request log {}: {} files and {} bytes at most",
            log.folder.display(),
            log.max_files,
            log.max_bytes
        );
    }
    for upstream in &config.upstreams {
        let keys: Vec<String> = upstream
            .keys
            .iter()
            .map(|key| match &key.secret {
                Some(secret) => format!("{} {secret}", key.name),
                None => "no key".to_owned(),
            })
            .collect();
        let _ = writeln!(
            out,
            "\nupstream {}: {} at {}\n  keys: {}, {} slots each\n  models: {}",
            upstream.name,
            upstream.format.name(),
            upstream.base_url,
            keys.join(", "),
            upstream.slots,
            match upstream.models.is_empty() {
                true => "what its own list has, once weir runs".to_owned(),
                false => upstream.models.join(", "),
            },
        );
        if upstream.options.learned.is_some() && !upstream.models.is_empty() {
            out.push_str("  and what its own list of models has, once weir runs\n");
        }
    }
    out.push_str("\nroutes:\n");
    let targets = |targets: Vec<Target>| {
        targets
            .iter()
            .map(|target| {
                format!(
                    "{}/{}",
                    config.upstreams[target.upstream].name, target.model
                )
            })
            .collect::<Vec<_>>()
            .join(", then ")
    };
    for id in models::listed(config) {
        let _ = writeln!(out, "  {id} -> {}", targets(route::route(config, &id)));
    }
    out
}

/// Where the configuration came from, in one line for the log.
pub fn banner(loaded: &Loaded) -> String {
    let names: Vec<&str> = loaded
        .config
        .upstreams
        .iter()
        .map(|upstream| upstream.name.as_str())
        .collect();
    match &loaded.origin {
        Origin::File(file) => format!("config {}: upstreams {}", file.display(), names.join(", ")),
        Origin::Environment(from) => {
            format!(
                "no config file: upstreams {} by {}",
                names.join(", "),
                from.join(", ")
            )
        }
        Origin::Demo => "no config file and no provider key in the environment: the built-in demo \
                         answers; set GEMINI_API_KEY, OPENAI_API_KEY or ANTHROPIC_API_KEY for real \
                         models"
            .to_owned(),
    }
}
