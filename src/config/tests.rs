//! Whole config files in, a `Config` or findings out.

use std::path::Path;
use std::time::Duration;

use super::build::{self, Ground};
use super::sources::Origin;
use super::*;
use crate::provider::anthropic::Display;

pub mod chaos;
mod origins;

const FOLDER: &str = "tests/config";

/// The environment of all tests here.
fn env(name: &str) -> Option<String> {
    let value = match name {
        "GEMINI_API_KEY" => "env-secret-1",
        "ANTHROPIC_API_KEY" => "env-secret-2\n",
        "OPENAI_API_KEY" => "env-secret-3",
        "WEIR_KEY" => "env-secret-4",
        "EMPTY" => "  ",
        "TWO_LINES" => "one\ntwo",
        "DIGEST" => "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "PROXY" => "http://joe:env-secret-5@proxy.example:3128",
        _ => return None,
    };
    Some(value.to_owned())
}

fn read(text: &str, listen: Option<&str>) -> (Config, Findings) {
    let ground = Ground {
        folder: Path::new(FOLDER),
        env: &env,
        listen,
    };
    let mut findings = Findings::default();
    let config = build::config(text, &ground, &mut findings);
    (config, findings)
}

#[track_caller]
fn good(text: &str) -> Config {
    let (config, findings) = read(text, None);
    assert!(findings.is_empty(), "{findings}");
    config
}

/// A file with one upstream that is given as the members of its object.
fn with_upstream(members: &str) -> Upstream {
    let text = format!(r#"{{"upstreams": [{{{members}}}]}}"#);
    good(&text).upstreams.remove(0)
}

const EXAMPLE: &str = r#"{
  "listen": "127.0.0.1:8080",
  "client_keys": ["env:WEIR_KEY", {"name": "ci", "key": "sha256:9F86D081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "models": ["gemini-*"]}],
  "upstreams": [
    {"name": "gemini", "format": "gemini", "keys": ["env:GEMINI_API_KEY", "file:gemini2.key"]},
    {"name": "claude", "format": "anthropic", "keys": ["env:ANTHROPIC_API_KEY"], "slots": 16},
    {"name": "openai", "format": "openai", "keys": ["env:OPENAI_API_KEY"]},
    {"name": "box", "format": "openai", "base_url": "http://10.0.0.5:8000/v1", "keys": [], "slots": 2, "models": ["qwen3-*"]}
  ],
  "models": {
    "fast": ["gemini/gemini-2.5-flash", "box/qwen3-8b"],
    "best": ["claude/claude-opus-4-1-20250805", "openai/gpt-5"]
  },
  "workers": 64,
  "retries": 3, "quota_switch": true, "deadline_ms": 600000,
  "connect_ms": 5000, "first_byte_ms": 120000, "idle_ms": 120000,
  "lease_wait_ms": 10000, "keepalive_ms": 10000, "write_timeout_ms": 30000, "drain_ms": 30000,
  "max_body_bytes": 33554432, "max_connections": 1024
}"#;

#[test]
fn the_documented_example_is_read() {
    let config = good(EXAMPLE);
    assert_eq!(config.listen, Listen::Tcp("127.0.0.1:8080".into()));
    assert_eq!(config.client_keys[0].name, "WEIR_KEY");
    assert_eq!(config.client_keys[0].digest, digest("env-secret-4"));
    assert_eq!(config.client_keys[1].name, "ci");
    assert_eq!(config.client_keys[1].digest, digest("test"));
    assert!(config.client_keys[1].allows("gemini-2.5-pro"));
    assert!(!config.client_keys[1].allows("gpt-5"));
    assert!(config.client_keys[0].allows("gpt-5"));

    let [gemini, claude, openai, own] = &config.upstreams[..] else {
        panic!("four upstreams");
    };
    let keys: Vec<_> = gemini
        .keys
        .iter()
        .map(|key| (key.name.as_str(), key.secret.as_ref().unwrap().reveal()))
        .collect();
    assert_eq!(
        keys,
        [
            ("GEMINI_API_KEY", "env-secret-1"),
            ("gemini#2", "file-secret")
        ]
    );
    assert_eq!(
        claude.keys[0].secret.as_ref().unwrap().reveal(),
        "env-secret-2"
    );
    assert_eq!((claude.slots, gemini.slots), (16, 8));
    assert_eq!(openai.base_url, "https://api.openai.com/v1");
    assert!(openai.options.official && !own.options.official);
    assert_eq!(own.base_url, "http://10.0.0.5:8000/v1");
    assert_eq!(own.keys.len(), 1);
    assert!(own.keys[0].secret.is_none());
    assert_eq!(own.models, ["qwen3-*"]);
    assert_eq!(gemini.models, Format::Gemini.default_models());
    assert!(own.first_byte_set);
    assert_eq!(
        config.aliases[1],
        (
            "best".to_owned(),
            vec![
                "claude/claude-opus-4-1-20250805".to_owned(),
                "openai/gpt-5".to_owned()
            ]
        )
    );
}

#[test]
fn defaults_are_those_of_the_documentation() {
    let config = good(r#"{"upstreams": [{"name": "a", "format": "gemini", "keys": ["k"]}]}"#);
    let millis = Duration::from_millis;
    assert_eq!(config.workers, 64);
    assert_eq!(config.retries, 3);
    assert!(config.quota_switch);
    assert_eq!(config.deadline, millis(600_000));
    assert_eq!(config.lease_wait, millis(10_000));
    assert_eq!(config.keepalive, millis(10_000));
    assert_eq!(config.write_timeout, millis(30_000));
    assert_eq!(config.body_wait, millis(30_000));
    assert_eq!(config.drain, millis(30_000));
    assert_eq!(config.backoff, millis(200));
    assert_eq!(config.cool_down_max, millis(300_000));
    assert_eq!(config.max_body_bytes, 33_554_432);
    assert_eq!(config.max_answer_bytes, 33_554_432);
    assert_eq!(config.max_connections, 1_024);
    assert_eq!(config.max_waiting, 256);
    assert_eq!(config.log_format, LogFormat::Text);
    assert!(!config.metrics_open);
    let upstream = &config.upstreams[0];
    assert_eq!(upstream.connect, millis(5_000));
    assert_eq!(upstream.first_byte, millis(300_000));
    assert!(!upstream.first_byte_set);
    assert_eq!(upstream.idle, millis(300_000));
    assert_eq!(upstream.options.anthropic_version, "2023-06-01");
    assert_eq!(upstream.proxy, None);
}

#[test]
fn every_number_reaches_its_own_field() {
    let config = good(
        r#"{"upstreams": [{"name": "a", "format": "openai", "base_url": "http://b"}],
        "workers": 1, "retries": 2, "quota_switch": false, "deadline_ms": 3, "lease_wait_ms": 4,
        "keepalive_ms": 5, "write_timeout_ms": 6, "body_wait_ms": 7, "drain_ms": 8, "unready_ms": 18,
        "backoff_ms": 9, "cool_down_max_ms": 10, "max_body_bytes": 11, "max_connections": 12,
        "max_waiting": 13, "max_answer_bytes": 14, "log_level": "warn", "log_format": "json", "metrics_open": true,
        "connect_ms": 15, "first_byte_ms": 16, "idle_ms": 17, "max_schema_nodes": 19,
        "max_body_values": 20, "max_body_depth": 21, "max_messages": 22, "max_tools": 23}"#,
    );
    let millis = |duration: Duration| duration.as_millis();
    assert_eq!(
        (config.workers, config.retries, config.quota_switch),
        (1, 2, false)
    );
    assert_eq!((millis(config.deadline), millis(config.lease_wait)), (3, 4));
    assert_eq!(
        (millis(config.keepalive), millis(config.write_timeout)),
        (5, 6)
    );
    assert_eq!((millis(config.body_wait), millis(config.drain)), (7, 8));
    assert_eq!(millis(config.unready), 18);
    assert_eq!(
        (millis(config.backoff), millis(config.cool_down_max)),
        (9, 10)
    );
    assert_eq!((config.max_body_bytes, config.max_connections), (11, 12));
    assert_eq!((config.max_waiting, config.max_answer_bytes), (13, 14));
    assert_eq!(Config::default().limits, Limits::default());
    let limits = config.limits;
    assert_eq!((limits.values, limits.depth), (20, 21));
    assert_eq!((limits.messages, limits.tools), (22, 23));
    assert_eq!(
        (config.log_format, config.metrics_open),
        (LogFormat::Json, true)
    );
    let upstream = &config.upstreams[0];
    assert_eq!(millis(upstream.connect), 15);
    assert_eq!(
        (millis(upstream.first_byte), upstream.first_byte_set),
        (16, true)
    );
    assert_eq!(millis(upstream.idle), 17);
    assert_eq!(upstream.options.schema_nodes, 19);
}

#[test]
fn an_upstream_has_its_own_values_or_those_of_the_top() {
    let config = good(
        r#"{"proxy": "env:PROXY", "strict": true, "idle_ms": 1, "ca_file": "ca.pem",
        "upstreams": [
          {"name": "a", "format": "openai", "base_url": "http://a"},
          {"name": "b", "format": "anthropic", "base_url": "http://b/v1/", "strict": false,
           "proxy": "http://other:1", "idle_ms": 2, "connect_ms": 3, "first_byte_ms": 4,
           "official": true, "developer_as_system": true, "strip": ["user"],
           "anthropic_version": "2026-10-21", "headers": {"X-Team": "blue", "x-secret": "env:WEIR_KEY"}}
        ]}"#,
    );
    let [a, b] = &config.upstreams[..] else {
        panic!("two upstreams")
    };
    assert_eq!(
        a.proxy.as_deref(),
        Some("http://joe:env-secret-5@proxy.example:3128")
    );
    assert_eq!(a.ca_file, Some(Path::new(FOLDER).join("ca.pem")));
    assert!(a.options.strict && !a.options.official && !a.first_byte_set);
    assert_eq!(a.idle, Duration::from_millis(1));
    assert_eq!(b.base_url, "http://b");
    assert_eq!(b.proxy.as_deref(), Some("http://other:1"));
    assert_eq!(b.idle, Duration::from_millis(2));
    assert_eq!(b.connect, Duration::from_millis(3));
    assert_eq!(
        (b.first_byte, b.first_byte_set),
        (Duration::from_millis(4), true)
    );
    assert!(!b.options.strict && b.options.official && b.options.developer_as_system);
    assert_eq!(b.options.strip, ["user"]);
    assert_eq!(b.options.anthropic_version, "2026-10-21");
    assert_eq!(
        b.headers,
        [
            ("x-team".to_owned(), "blue".to_owned()),
            ("x-secret".to_owned(), "env-secret-4".to_owned())
        ]
    );
}

#[test]
fn what_only_some_formats_heed_is_read() {
    let members = r#""name": "a", "format": "gemini", "base_url": "http://a""#;
    let plain = with_upstream(members).options;
    let table = |name| table::flag(table::Place::Upstream, name);
    let (claude, google) = (&plain.anthropic, &plain.gemini);
    assert_eq!(claude.auto_cache, table("auto_cache"));
    assert_eq!(claude.reject_forced_tools, table("reject_forced_tools"));
    assert_eq!(claude.reject_prefill, table("reject_prefill"));
    assert_eq!(google.reject_prefill, table("reject_prefill"));
    assert_eq!(google.include_thoughts, table("include_thoughts"));
    assert_eq!(plain.responses.summary, table("reasoning_summary"));
    assert_eq!(plain.ask_usage, table("ask_usage"));
    assert_eq!(claude.display, Display::Summarized);
    let limit = table::number(table::Place::Upstream, "default_max_tokens");
    assert_eq!(claude.default_max_tokens, limit);
    assert_eq!(plain.max_tokens_field, None);
    assert_eq!(google.safety_settings, None);
    assert!(google.voices.is_empty());

    let members = format!(
        r#"{members}, "auto_cache": true, "reject_forced_tools": true, "reject_prefill": true,
        "default_max_tokens": 9, "thinking_display": "omitted", "include_thoughts": false,
        "safety_settings": {{"A": "B", "C": "D\""}}, "voices": {{"alloy": "Kore"}},
        "reasoning_summary": false, "ask_usage": true, "max_tokens_field": "max_tokens""#
    );
    let text = format!(r#"{{"fetch_images": true, "upstreams": [{{{members}}}]}}"#);
    let mut config = good(&text);
    assert!(config.fetch_images && !Config::default().fetch_images);
    let set = config.upstreams.remove(0).options;
    let (claude, google) = (&set.anthropic, &set.gemini);
    assert!(claude.auto_cache && claude.reject_forced_tools && claude.reject_prefill);
    assert_eq!(claude.default_max_tokens, 9);
    assert_eq!(claude.display, Display::Omitted);
    assert!(google.reject_prefill && !google.include_thoughts);
    assert_eq!(
        google.safety_settings.as_deref(),
        Some(r#"[{"category":"A","threshold":"B"},{"category":"C","threshold":"D\""}]"#)
    );
    assert_eq!(google.voices, [("alloy".to_owned(), "Kore".to_owned())]);
    assert!(!set.responses.summary && set.ask_usage);
    assert_eq!(set.max_tokens_field.as_deref(), Some("max_tokens"));
    let unset = with_upstream(
        r#""name": "a", "format": "anthropic", "base_url": "http://a", "thinking_display": "unset""#,
    );
    assert_eq!(unset.options.anthropic.display, Display::Unset);
}

#[test]
fn the_vendors_own_address_makes_an_upstream_official() {
    let official = |members: &str| with_upstream(members).options.official;
    assert!(official(
        r#""name": "a", "format": "openai", "keys": ["k"]"#
    ));
    assert!(official(
        r#""name": "a", "format": "openai", "keys": ["k"], "base_url": "https://api.openai.com""#
    ));
    assert!(!official(
        r#""name": "a", "format": "openai", "base_url": "http://box:1""#
    ));
    assert!(official(
        r#""name": "a", "format": "openai", "base_url": "http://box:1", "official": true"#
    ));
}

#[test]
fn aliases_lead_to_models_over_other_aliases() {
    let config = good(
        r#"{"upstreams": [
            {"name": "g", "format": "gemini", "keys": ["k"]},
            {"name": "box", "format": "openai", "base_url": "http://b", "models": ["*"]}],
        "models": {
            "all": ["fast", "box/z", "slow"],
            "slow": "box/qwen/qwen3",
            "fast": ["gemini/flash", "box/z"],
            "gpt-5": ["box/gpt-5"]
        }}"#,
    );
    let targets = |name: &str| {
        let (_, targets) = config
            .aliases
            .iter()
            .find(|(alias, _)| alias == name)
            .unwrap();
        targets.join(" ")
    };
    assert_eq!(targets("all"), "g/flash box/z box/qwen/qwen3");
    assert_eq!(targets("slow"), "box/qwen/qwen3");
    assert_eq!(targets("fast"), "g/flash box/z");
    assert_eq!(targets("gpt-5"), "box/gpt-5");
}

#[test]
fn a_public_address_needs_keys_or_a_word() {
    let text = |more: &str| {
        format!(r#"{{{more} "upstreams": [{{"name": "a", "format": "gemini", "keys": ["k"]}}]}}"#)
    };
    let fine = |more: &str, listen| read(&text(more), listen).1.is_empty();
    assert!(!fine(r#""listen": "0.0.0.0:80","#, None));
    assert!(!fine(r#""listen": "0.0.0.0:80", "client_keys": [],"#, None));
    assert!(fine(r#""listen": "0.0.0.0:80", "open": true,"#, None));
    assert!(fine(
        r#""listen": "0.0.0.0:80", "client_keys": ["x"],"#,
        None
    ));
    assert!(fine(r#""listen": "unix:/run/weir.sock","#, None));
    assert!(fine(r#""listen": "[::1]:0","#, None));
    // The command line wins, either way.
    assert!(fine(r#""listen": "0.0.0.0:80","#, Some("127.0.0.1:0")));
    let (_, findings) = read(&text(""), Some("0.0.0.0:80"));
    assert!(
        findings
            .to_string()
            .starts_with("--listen: other machines can reach")
    );
    let (config, _) = read(&text(""), Some("unix:/x"));
    assert_eq!(config.listen, Listen::Unix("/x".into()));
}

/// Each `.json` in the folder must be refused with the lines of the `.expected` beside it.
/// `UPDATE=1` writes them anew, for the diff to be read.
#[test]
fn wrong_files_are_refused_with_every_finding() {
    let mut cases = 0;
    for entry in std::fs::read_dir(FOLDER).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|end| end != "json") {
            continue;
        }
        cases += 1;
        let text = std::fs::read_to_string(&path).unwrap();
        let (_, findings) = read(&text, None);
        let found: String = findings.lines().map(|line| line + "\n").collect();
        assert!(!found.is_empty(), "{} was taken", path.display());
        let expected = path.with_extension("expected");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&expected, &found).unwrap();
        }
        let expected = std::fs::read_to_string(&expected).unwrap_or_default();
        assert_eq!(found, expected, "{}", path.display());
    }
    assert!(cases >= 10, "the folder holds {cases} cases");
}

#[test]
fn no_output_shows_a_secret() {
    let text = r#"{
        "client_keys": ["literal-secret", {"name": "d", "key": "env:DIGEST"}],
        "upstreams": [{"name": "a", "format": "openai", "base_url": "http://b", "proxy": "env:PROXY",
            "keys": ["literal-secret", "env:GEMINI_API_KEY", "file:gemini2.key"],
            "headers": {"x-secret": "env:WEIR_KEY", "x-two": "literal-secret"}}]}"#;
    let config = good(text);
    let digest = format!("{:?}", digest("test"));
    let loaded = Loaded {
        config,
        origin: Origin::Demo,
    };
    // The same values where each of them is at fault.
    let wrong = text
        .replace("\"format\": \"openai\"", "\"format\": \"literal\"")
        .replace("file:gemini2.key", "literal-secret\\u0007")
        .replace("env:PROXY", "ftp://joe:literal-secret@proxy")
        .replace("env:DIGEST", "sha256:literal-secret");
    let (_, findings) = read(&wrong, None);
    assert!(!findings.is_empty());
    for shown in [
        format!("{loaded:?}"),
        check(&loaded),
        banner(&loaded),
        findings.to_string(),
        format!("{findings:?}"),
    ] {
        for secret in [
            "literal-secret",
            "env-secret",
            "file-secret",
            digest.as_str(),
        ] {
            assert!(!shown.contains(secret), "{secret} in {shown}");
        }
    }
}

#[test]
fn the_printed_example_says_nothing_but_defaults() {
    let printed = good(&example());
    let short = good(
        r#"{"upstreams": [{"name": "gemini", "format": "gemini", "keys": ["env:GEMINI_API_KEY"]}]}"#,
    );
    assert_eq!(format!("{printed:?}"), format!("{short:?}"));
    // With every `// "key": value,` made real, it still holds together.
    let all: String = example()
        .lines()
        .map(|line| match line.trim_start().strip_prefix("// \"") {
            Some(rest) => format!("\"{rest}\n"),
            None => format!("{line}\n"),
        })
        .collect();
    let all = all
        .replace("/etc/ssl/own-ca.pem", "ca.pem")
        .replace("/etc/weir/keys", "callers.keys")
        .replace("env:CI_KEY", "env:DIGEST")
        .replace("env:WEIR_SEAL_KEY", "env:DIGEST");
    let config = good(&all);
    assert!(config.seal_key.is_some());
    for setting in table::SETTINGS {
        assert!(
            all.contains(&format!("\"{}\":", setting.name)),
            "{}",
            setting.name
        );
    }
    assert!(config.upstreams[0].first_byte_set);
    let from_file = config.client_keys.last().expect("the file holds one");
    assert_eq!(from_file.name, "team-a");
    assert_eq!(from_file.models, ["models-*"]);
    assert_eq!(from_file.allowance.tokens_per_day, Some(5));
}

#[test]
fn a_check_shows_the_routes() {
    let loaded = Loaded {
        config: good(EXAMPLE),
        origin: Origin::File("weir.json".into()),
    };
    let shown = check(&loaded);
    for line in [
        "config from weir.json: no findings",
        "listen 127.0.0.1:8080",
        "client key WEIR_KEY ***: all models",
        "client key ci ***: gemini-*",
        "upstream gemini: gemini at https://generativelanguage.googleapis.com",
        "  keys: GEMINI_API_KEY ***, gemini#2 ***, 8 slots each",
        "  keys: no key, 2 slots each",
        "  gpt-5 -> openai/gpt-5",
        "  fast -> gemini/gemini-2.5-flash, then box/qwen3-8b",
    ] {
        assert!(
            shown.lines().any(|known| known == line),
            "{line} in\n{shown}"
        );
    }
}
