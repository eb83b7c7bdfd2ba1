//! `GET /v1/models`: the built-in catalogue, the aliases and the models that a config names.
//!
//! Lists what can be served at all with the keys there are. Which upstream is usable is asked of
//! the caller of `list`; nothing here opens a connection.

use std::borrow::Cow;
use std::collections::HashSet;

use serde::Serialize;

use crate::config::{ClientKey, Config, Upstream};
use crate::route::{self, Target};

mod catalogue;

use catalogue::{CATALOGUE, Facts};

/// One model as callers see it: OpenAI's four fields, then what else is known.
#[derive(Serialize)]
struct Entry<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    owned_by: Cow<'a, str>,
    /// As the upstream's own list has them.
    #[serde(skip_serializing_if = "Option::is_none")]
    context_length: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u64>,
    #[serde(flatten)]
    facts: Option<&'static Facts>,
}

#[derive(Serialize)]
struct List<'a> {
    object: &'static str,
    data: Vec<Entry<'a>>,
}

/// The ids of the catalogue.
pub fn ids() -> impl Iterator<Item = &'static str> {
    CATALOGUE.iter().map(|known| known.id)
}

/// Every id that the list can show for `config`: the catalogue where it is routed, the aliases,
/// and the names without a star among the models of the upstreams.
pub fn listed(config: &Config) -> Vec<String> {
    let aliases = config.aliases.iter().map(|(name, _)| name.as_str());
    let named = config
        .upstreams
        .iter()
        .flat_map(|upstream| &upstream.models)
        .map(String::as_str)
        .filter(|name| !name.contains('*'));
    let learned: Vec<String> = config
        .upstreams
        .iter()
        .filter_map(|upstream| upstream.options.learned.as_ref())
        .flat_map(|learned| learned.ids())
        .collect();
    let mut all: Vec<String> = Vec::new();
    let mut seen = HashSet::new();
    let all_ids = CATALOGUE.iter().map(|known| known.id);
    for id in all_ids
        .chain(aliases)
        .chain(named)
        .chain(learned.iter().map(String::as_str))
    {
        if seen.insert(id.to_owned()) && !route::route(config, id).is_empty() {
            all.push(id.to_owned());
        }
    }
    all
}

/// The whole list as JSON: what a usable upstream serves and `key` may ask for.
pub fn list(config: &Config, usable: &dyn Fn(usize) -> bool, key: Option<&ClientKey>) -> Vec<u8> {
    let ids = listed(config);
    let data = ids
        .iter()
        .filter_map(|id| entry(config, id, usable, key))
        .collect();
    let list = List {
        object: "list",
        data,
    };
    serde_json::to_vec(&list).expect("texts and numbers always serialise")
}

/// The entry of `id` as JSON, if the list has it.
pub fn one(
    config: &Config,
    id: &str,
    usable: &dyn Fn(usize) -> bool,
    key: Option<&ClientKey>,
) -> Option<Vec<u8>> {
    if !listed(config).iter().any(|known| known == id) {
        return None;
    }
    let entry = entry(config, id, usable, key)?;
    Some(serde_json::to_vec(&entry).expect("texts and numbers always serialise"))
}

fn entry<'a>(
    config: &'a Config,
    id: &'a str,
    usable: &dyn Fn(usize) -> bool,
    key: Option<&ClientKey>,
) -> Option<Entry<'a>> {
    if key.is_some_and(|key| !key.allows(id)) {
        return None;
    }
    // An alias is told as what it leads to first.
    let targets = route::route(config, id);
    let Target { upstream, model } = targets.iter().find(|target| usable(target.upstream))?;
    let known = CATALOGUE.iter().find(|known| known.id == *model);
    let upstream = &config.upstreams[*upstream];
    // The catalogue says more, and the same of the same model.
    let told = match known {
        Some(_) => None,
        None => upstream.options.learned(model),
    };
    let told = told.as_deref();
    Some(Entry {
        id,
        object: "model",
        created: known
            .map(|known| known.created)
            .or(told.map(|told| told.created))
            // No date is known.
            .unwrap_or(0),
        owned_by: match (known, told.and_then(|told| told.owned_by.clone())) {
            (Some(known), _) => known.owned_by.into(),
            (None, Some(owner)) => owner.into(),
            (None, None) => upstream.name.as_str().into(),
        },
        context_length: told.and_then(|told| told.context_length),
        max_completion_tokens: told.and_then(|told| told.max_completion_tokens),
        facts: known.map(|known| &known.facts),
    })
}

/// How many tokens a model takes, where that is known.
pub fn context_length(upstream: &Upstream, model: &str) -> Option<u64> {
    let known = CATALOGUE.iter().find(|known| known.id == model);
    match known {
        Some(known) => Some(known.facts.context_length),
        None => upstream.options.learned(model)?.context_length,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::Format;
    use serde_json::{Value, json};

    fn config() -> Config {
        let mut config = Config::default();
        config
            .upstreams
            .push(Upstream::new("gemini", Format::Gemini));
        config
            .upstreams
            .push(Upstream::new("claude", Format::Anthropic));
        let mut own = Upstream::new("box", Format::OpenAi);
        own.models = vec!["qwen3-8b".into(), "llama-*".into()];
        config.upstreams.push(own);
        config.aliases = vec![
            (
                "fast".into(),
                vec!["box/qwen3-8b".into(), "gemini/gemini-2.5-flash".into()],
            ),
            (
                "best".into(),
                vec!["claude/claude-opus-4-1-20250805".into()],
            ),
        ];
        config
    }

    fn ids_of(json: &[u8]) -> Vec<String> {
        let list: Value = serde_json::from_slice(json).unwrap();
        assert_eq!(list["object"], "list");
        list["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|model| {
                assert_eq!(model["object"], "model");
                assert!(model["created"].is_u64() && model["owned_by"].is_string());
                model["id"].as_str().unwrap().to_owned()
            })
            .collect()
    }

    #[test]
    fn the_list_shows_what_the_keys_can_serve() {
        let config = config();
        assert_eq!(
            ids_of(&list(&config, &|_| true, None)),
            [
                "gemini-2.5-pro",
                "gemini-2.5-flash",
                "claude-opus-4-1-20250805",
                "fast",
                "best",
                "qwen3-8b"
            ],
            "without a key for OpenAI there is no gpt-5"
        );
        assert_eq!(
            ids_of(&list(&config, &|at| at == 2, None)),
            ["fast", "qwen3-8b"]
        );
        assert_eq!(ids_of(&list(&config, &|_| false, None)), [""; 0]);
        assert_eq!(
            list(&Config::default(), &|_| true, None),
            br#"{"object":"list","data":[]}"#
        );
    }

    #[test]
    fn a_client_key_sees_what_it_may_ask_for() {
        let key = ClientKey {
            name: "ci".into(),
            digest: [0; 32],
            models: vec!["gemini-*".into(), "best".into()],
            allowance: Default::default(),
        };
        let config = config();
        assert_eq!(
            ids_of(&list(&config, &|_| true, Some(&key))),
            ["gemini-2.5-pro", "gemini-2.5-flash", "best"]
        );
        assert!(one(&config, "best", &|_| true, Some(&key)).is_some());
        assert!(one(&config, "fast", &|_| true, Some(&key)).is_none());
    }

    #[test]
    fn one_model_carries_its_facts() {
        let config = config();
        let get = |id: &str, usable: &dyn Fn(usize) -> bool| {
            one(&config, id, usable, None)
                .map(|json| serde_json::from_slice::<Value>(&json).unwrap())
        };
        let pro = get("gemini-2.5-pro", &|_| true).unwrap();
        for (field, value) in [
            ("id", json!("gemini-2.5-pro")),
            ("object", json!("model")),
            ("owned_by", json!("google")),
            ("created", json!(1_750_118_400)),
            ("name", json!("Gemini 2.5 Pro")),
            ("version", json!("2.5")),
            ("context_length", json!(1_048_576)),
            ("max_completion_tokens", json!(65_536)),
            ("temperature", json!(1.0)),
            ("topP", json!(0.95)),
            ("topK", json!(64)),
            ("maxTemperature", json!(2.0)),
            ("thinking", json!(true)),
        ] {
            assert_eq!(pro[field], value, "{field}");
        }
        assert!(pro["description"].is_string());
        assert!(
            pro["supported_parameters"]
                .as_array()
                .unwrap()
                .contains(&json!("tools"))
        );

        let fast = get("fast", &|_| true).unwrap();
        assert_eq!(
            fast,
            json!({"id": "fast", "object": "model", "created": 0, "owned_by": "box"})
        );
        let fast = get("fast", &|at| at == 0).unwrap();
        assert_eq!(fast["id"], "fast");
        assert_eq!(fast["name"], "Gemini 2.5 Flash");

        for id in [
            "gpt-5",
            "llama-3",
            "gemini-3-pro",
            "gemini/gemini-2.5-pro",
            "",
            "qwen",
        ] {
            assert!(get(id, &|_| true).is_none(), "{id}");
        }
        assert!(get("best", &|at| at != 1).is_none());
    }

    #[test]
    fn the_demo_stands_beside_real_models() {
        let addr = "127.0.0.1:9".parse().unwrap();
        let all = ids_of(&list(&Config::demo(addr), &|_| true, None));
        assert_eq!(all, ids().collect::<Vec<_>>());
        let mut config = config();
        config.add_demo(addr);
        let json = one(&config, "demo/gpt-5", &|_| true, None).unwrap();
        let model: Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(model["name"], "GPT-5");
        assert!(one(&config, "gpt-5", &|_| true, None).is_none());
    }
}
