//! `--print agents`: what each coding agent has to be told to come here, for the config at hand.
//!
//! One row per agent: what it reads, and the names of models by which it asks on its own. Names that
//! lead nowhere get the alias that would lead them to a model of the config.

use std::fmt::Write;
use std::time::SystemTime;

use crate::config::{Config, Listen};
use crate::models;
use crate::route;

/// An agent and what it is told. In its lines `{url}` is weir's address, `{key}` what to send as a
/// key and `{model}` a model of the config.
struct Agent {
    name: &'static str,
    lines: &'static str,
    /// Names that it asks for by itself, and the pattern of an alias for all of them.
    asks: &'static [&'static str],
    pattern: &'static str,
}

const AGENTS: &[Agent] = &[
    Agent {
        name: "Claude Code, Claude Agent SDK",
        lines: "\
export ANTHROPIC_BASE_URL={url}
export ANTHROPIC_API_KEY={key}
",
        asks: &["claude-opus-5-5", "claude-sonnet-5-5", "claude-haiku-5-5"],
        pattern: "claude-*",
    },
    Agent {
        name: "Codex: ~/.codex/config.toml, and WEIR_KEY={key} in the environment",
        lines: "\
model = \"{model}\"
model_provider = \"weir\"
[model_providers.weir]
name = \"weir\"
base_url = \"{url}/v1\"
env_key = \"WEIR_KEY\"
wire_api = \"responses\"
",
        asks: &[],
        pattern: "",
    },
    Agent {
        name: "gemini-cli",
        lines: "\
export GOOGLE_GEMINI_BASE_URL={url}
export GEMINI_API_KEY={key}
",
        asks: &["gemini-3.8-flash", "gemini-3.5-flash-lite"],
        pattern: "gemini-*",
    },
    Agent {
        name: "opencode: opencode.json",
        lines: "\
{
  \"provider\": {
    \"weir\": {
      \"npm\": \"@ai-sdk/openai-compatible\",
      \"options\": {\"baseURL\": \"{url}/v1\", \"apiKey\": \"{key}\"},
      \"models\": {\"{model}\": {\"tool_call\": true}}
    }
  },
  \"model\": \"weir/{model}\",
  \"small_model\": \"weir/{model}\"
}
",
        asks: &[],
        pattern: "",
    },
    Agent {
        name: "gemini-cli",
        lines: "\
export GOOGLE_GEMINI_BASE_URL={url}
export GEMINI_API_KEY={key}
",
        asks: &["gemini-3.8-flash", "gemini-3.5-flash-lite"],
        pattern: "gemini-*",
    },
    Agent {
        name: "qwen-code, and whatever uses OpenAI's libraries",
        lines: "\
export OPENAI_BASE_URL={url}/v1
export OPENAI_API_KEY={key}
export OPENAI_MODEL={model}
",
        asks: &[],
        pattern: "",
    },
    Agent {
        name: "Continue: config.yaml",
        lines: "\
name: weir
version: 1.0.0
schema: v1
models:
  - {name: weir, provider: openai, model: \"{model}\", apiBase: \"{url}/v1\", apiKey: \"{key}\",
     roles: [chat], capabilities: [tool_use]}
",
        asks: &[],
        pattern: "",
    },
    Agent {
        name: "cline",
        lines: "\
cline auth -p openai-compatible -b {url}/v1 -k {key} -m {model}
",
        asks: &[],
        pattern: "",
    },
    Agent {
        name: "aider",
        lines: "\
export OPENAI_API_BASE={url}/v1
export OPENAI_API_KEY={key}
aider --model openai/{model}
",
        asks: &[],
        pattern: "",
    },
];

/// What stands for a key where the config has some. None of them is printed.
const KEY: &str = "YOUR-CLIENT-KEY";

pub fn print(config: &Config, now: SystemTime) -> String {
    let url = match &config.listen {
        Listen::Tcp(address) => format!("http://{}", reachable(address)),
        Listen::Unix(_) => {
            return "Agents need an address of TCP, and `listen` is a unix socket.\n".into();
        }
    };
    let key = match config.client_keys.is_empty() {
        true => "any-text",
        false => KEY,
    };
    let suggested = models::suggested(config, now);
    let model = suggested.as_deref().unwrap_or("MODEL");
    let mut out = String::new();
    for agent in AGENTS {
        let told = |text: &str| {
            text.replace("{url}", &url)
                .replace("{key}", key)
                .replace("{model}", model)
        };
        let before = if out.is_empty() { "" } else { "\n" };
        let _ = writeln!(out, "{before}# {}", told(agent.name));
        out.push_str(&told(agent.lines));
        let missing = |name: &&&str| route::route(config, name).is_empty();
        if let Some(name) = agent.asks.iter().find(missing) {
            let target = target(config, model);
            let _ = writeln!(
                out,
                "# It asks for {name} and the like, which nothing serves here. In the config:"
            );
            let _ = writeln!(
                out,
                "#   \"models\": {{\"{}\": [\"{target}\"]}}",
                agent.pattern
            );
        }
    }
    out
}

/// Where a model is, as an alias says it.
fn target(config: &Config, model: &str) -> String {
    match route::route(config, model).first() {
        Some(target) => format!(
            "{}/{}",
            config.upstreams[target.upstream].name, target.model
        ),
        None => "UPSTREAM/MODEL".into(),
    }
}

/// An address that means every one of this machine is no place to go to.
fn reachable(listen: &str) -> String {
    let (host, port) = listen.rsplit_once(':').unwrap_or((listen, ""));
    let host = match host {
        "0.0.0.0" | "[::]" | "" => "127.0.0.1",
        host => host,
    };
    format!("{host}:{port}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ClientKey, Upstream};
    use crate::provider::Format;

    fn printed(config: &Config) -> String {
        print(config, SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn what_agents_ask_for_and_nothing_serves_gets_an_alias() {
        let mut config = Config::default();
        config.upstreams.push(Upstream::new("g", Format::Gemini));
        config.client_keys.push(ClientKey {
            name: "a".into(),
            digest: [0; 32],
            models: Vec::new(),
            allowance: Default::default(),
        });
        config.listen = Listen::Tcp("0.0.0.0:9".into());
        let text = printed(&config);
        for line in [
            "export ANTHROPIC_BASE_URL=http://127.0.0.1:9",
            "export ANTHROPIC_API_KEY=YOUR-CLIENT-KEY",
            "base_url = \"http://127.0.0.1:9/v1\"",
            "model = \"gemini-3.8-flash\"",
            "#   \"models\": {\"claude-*\": [\"g/gemini-3.8-flash\"]}",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
        assert!(
            !text.contains("{url}") && !text.contains("{model}"),
            "{text}"
        );
        // The alias does what it is for, and a name of the config comes first.
        let target = vec!["g/gemini-3.8-flash".to_owned()];
        config.aliases = vec![("claude-*".into(), target.clone()), ("best".into(), target)];
        let text = printed(&config);
        assert!(!text.contains("nothing serves"), "{text}");
        config.aliases.clear();
        config.upstreams[0] = Upstream::new("c", Format::Anthropic);
        let other = printed(&config);
        let alias = "#   \"models\": {\"gemini-*\": [\"c/claude-opus-5-5\"]}";
        assert!(other.lines().any(|line| line == alias), "{other}");
        assert!(text.contains("model = \"best\""), "{text}");
    }

    #[test]
    fn without_a_model_or_an_address_it_says_so() {
        let mut config = Config::default();
        let text = printed(&config);
        assert!(text.contains("API_KEY=any-text"), "{text}");
        assert!(
            text.contains("model = \"MODEL\"") && text.contains("UPSTREAM/MODEL"),
            "{text}"
        );
        config.listen = Listen::Unix("/x".into());
        assert!(printed(&config).contains("unix socket"));
    }
}
