//! `GET /v1/models`: the built-in catalogue, the aliases and the models that a config names.
//!
//! Lists what can be served at all with the keys there are, and of that only what an upstream is
//! known to have: a pattern like `*` admits names and promises none. Which upstream is usable is
//! asked of the caller of `list`; nothing here opens a connection.

use std::borrow::Cow;
use std::collections::HashSet;
use std::time::SystemTime;

use serde::Serialize;

use crate::config::{ClientKey, Config, Upstream};
use crate::discovery;
use crate::route::{self, Target};
use crate::upstream::timestamp;

pub mod anthropic;
mod catalogue;
pub mod gemini;

use catalogue::{CATALOGUE, Facts, Known};

/// One model as callers see it: OpenAI's four fields, then what else is known.
#[derive(Serialize)]
struct Entry<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    owned_by: Cow<'a, str>,
    /// Whether its upstream still serves it, as far as one knows.
    served: bool,
    /// As the upstream's own list has them.
    #[serde(skip_serializing_if = "Option::is_none")]
    context_length: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u64>,
    #[serde(flatten)]
    facts: Option<Facts>,
}

#[derive(Serialize)]
struct List<'a> {
    object: &'static str,
    data: Vec<Entry<'a>>,
}

impl Facts {
    /// The facts with what the upstream's own list says.
    fn but_for(self, told: Option<&discovery::Model>) -> Facts {
        let Some(told) = told else {
            return self;
        };
        Facts {
            context_length: told.context_length.or(self.context_length),
            max_completion_tokens: told.max_completion_tokens.or(self.max_completion_tokens),
            thinking: told.thinks.unwrap_or(self.thinking),
            ..self
        }
    }
}

/// The ids of the catalogue.
pub fn ids() -> impl Iterator<Item = &'static str> {
    CATALOGUE.iter().map(|known| known.id)
}

/// Every id that the list can show for `config`: the catalogue where it is routed, the aliases,
/// and the names without a star among the models of the upstreams.
pub fn listed(config: &Config) -> Vec<String> {
    let aliases = config.aliases.iter().map(|(name, _)| name.as_str());
    let aliases = aliases.filter(|name| !name.contains('*'));
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
        if seen.insert(id.to_owned()) && !known_targets(config, id).is_empty() {
            all.push(id.to_owned());
        }
    }
    all
}

/// The targets of `id` that are known to have it.
fn known_targets(config: &Config, id: &str) -> Vec<Target> {
    let mut targets = route::route(config, id);
    // Whoever wrote an alias knows what it leads to.
    if !config.aliases.iter().any(|(name, _)| name == id) {
        targets.retain(|target| has(&config.upstreams[target.upstream], &target.model));
    }
    targets
}

/// Whether `upstream` is known to have `model`: by the config's own words, by its list, or because
/// it is a vendor's model and the vendor, or a pattern that was meant for such names.
fn has(upstream: &Upstream, model: &str) -> bool {
    let by_name = upstream.models.iter().any(|name| name == model);
    let learned = upstream.options.learned.as_ref();
    by_name
        || match learned.filter(|learned| learned.is_there()) {
            Some(learned) => learned.has(model),
            None => facts(upstream, model).is_some(),
        }
}

/// Whether a request for `id` would go to an upstream that has it, as far as that is known, and is
/// usable for it.
pub fn is_there(config: &Config, id: &str, usable: &dyn Fn(&Target) -> bool) -> bool {
    let targets = route::route(config, id);
    let is_missing = |target: &Target| {
        let learned = config.upstreams[target.upstream].options.learned.as_ref();
        learned.is_some_and(|learned| learned.is_there() && !learned.has(&target.model))
    };
    let mut usable = targets.iter().filter(|target| usable(target));
    usable.any(|target| !is_missing(target))
}

/// What the catalogue says of a model of this upstream. It is the vendors' and says nothing of a
/// server that merely answers to such a name.
fn facts(upstream: &Upstream, model: &str) -> Option<&'static Known> {
    let known = CATALOGUE.iter().find(|known| known.id == model)?;
    let own = upstream.format.default_models();
    let is_vendor =
        upstream.options.official && own.iter().any(|pattern| route::matches(pattern, model));
    // The demo answers to each name of the catalogue.
    let is_meant = is_vendor || upstream.is_named(model) || upstream.by_name_only;
    is_meant.then_some(known)
}

/// The whole list as JSON: what a usable upstream serves and `key` may ask for. `now`: models end
/// on days that their vendors have told.
pub fn list(
    config: &Config,
    usable: &dyn Fn(usize) -> bool,
    key: Option<&ClientKey>,
    now: SystemTime,
) -> Vec<u8> {
    let ids = listed(config);
    let data = ids
        .iter()
        .filter_map(|id| entry(config, id, usable, key, now))
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
    now: SystemTime,
) -> Option<Vec<u8>> {
    if !listed(config).iter().any(|known| known == id) {
        return None;
    }
    let entry = entry(config, id, usable, key, now)?;
    Some(serde_json::to_vec(&entry).expect("texts and numbers always serialise"))
}

fn entry<'a>(
    config: &'a Config,
    id: &'a str,
    usable: &dyn Fn(usize) -> bool,
    key: Option<&ClientKey>,
    now: SystemTime,
) -> Option<Entry<'a>> {
    if key.is_some_and(|key| !key.allows(id)) {
        return None;
    }
    // An alias is told as what it leads to first.
    let targets = known_targets(config, id);
    let Target { upstream, model } = targets.iter().find(|target| usable(target.upstream))?;
    let upstream = &config.upstreams[*upstream];
    let told = upstream.options.learned(model);
    let known = facts(upstream, model);
    let served = !has_ended(upstream, model, now);
    // The upstream's list knows its own figures best, and the catalogue the rest.
    let facts = known.map(|known| known.facts.but_for(told.as_deref()));
    let created = known.map(|known| known.created).filter(|day| *day > 0);
    let created = created.or(told.as_ref().map(|told| told.created));
    let told = told.as_deref().filter(|_| known.is_none());
    Some(Entry {
        id,
        object: "model",
        // 0: no date is known.
        created: created.unwrap_or(0),
        owned_by: match (known, told.and_then(|told| told.owned_by.clone())) {
            (Some(known), _) => known.owned_by.into(),
            (None, Some(owner)) => owner.into(),
            (None, None) => upstream.name.as_str().into(),
        },
        served,
        context_length: told.and_then(|told| told.context_length),
        max_completion_tokens: told.and_then(|told| told.max_completion_tokens),
        facts,
    })
}

/// Whether the first target of `id` still serves it, as far as one knows.
pub fn is_served(config: &Config, id: &str, now: SystemTime) -> bool {
    let targets = route::route(config, id);
    let first = targets.first();
    first.is_some_and(|Target { upstream, model }| {
        !has_ended(&config.upstreams[*upstream], model, now)
    })
}

/// A model to begin with: what the config has a name for, else the first of which no end is known.
pub fn suggested(config: &Config, now: SystemTime) -> Option<String> {
    let mut aliases = config.aliases.iter().map(|(name, _)| name);
    if let Some(alias) = aliases.find(|name| !name.contains('*')) {
        return Some(alias.clone());
    }
    let lasts = |id: &String| {
        let known = CATALOGUE.iter().find(|known| known.id == id);
        known.is_none_or(|known| known.facts.deprecation.is_none())
    };
    let mut listed = listed(config).into_iter();
    listed.find(|id| lasts(id) && is_served(config, id, now))
}

/// The vendor no longer serves the model under its name: by its own list, or else by the catalogue.
/// What others serve under the name is theirs to end.
fn has_ended(upstream: &Upstream, model: &str, now: SystemTime) -> bool {
    if upstream.base_url != upstream.format.default_base()
        || upstream.options.learned(model).is_some()
    {
        return false;
    }
    let known = CATALOGUE.iter().find(|known| known.id == model);
    let end = known.and_then(|known| known.facts.deprecation.as_ref());
    let end = end.filter(|end| !end.is_redirected);
    let day = end.and_then(|end| timestamp(&format!("{}T00:00:00Z", end.date)));
    day.is_some_and(|day| day <= now)
}

/// How many tokens a model takes, where that is known. The upstream knows it best.
pub fn context_length(upstream: &Upstream, model: &str) -> Option<u64> {
    let told = upstream.options.learned(model);
    told.and_then(|told| told.context_length).or_else(|| {
        let known = CATALOGUE.iter().find(|known| known.id == model);
        // Of a name that a server of one's own does not list, nobody knows what is behind it.
        let learned = upstream.options.learned.as_ref();
        let lacks = |learned: &discovery::Learned| learned.is_there() && !learned.has(model);
        let is_unknown = !upstream.options.official && learned.is_some_and(|list| lacks(list));
        known
            .filter(|_| !is_unknown)
            .and_then(|known| known.facts.context_length)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::Learned;
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

    /// The day on which this was written.
    fn now() -> SystemTime {
        timestamp("2026-12-01T12:00:00Z").unwrap()
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
            ids_of(&list(&config, &|_| true, None, now())),
            [
                "gemini-2.5-pro",
                "gemini-2.5-flash",
                "claude-opus-4-1-20250805",
                "gemini-3.8-flash",
                "gemini-3.5-flash-lite",
                "claude-opus-5-5",
                "claude-sonnet-5-5",
                "claude-haiku-5-5",
                "fast",
                "best",
                "qwen3-8b"
            ],
            "without a key for OpenAI there is no gpt-5"
        );
        assert_eq!(
            ids_of(&list(&config, &|at| at == 2, None, now())),
            ["fast", "qwen3-8b"]
        );
        assert_eq!(ids_of(&list(&config, &|_| false, None, now())), [""; 0]);
        assert_eq!(
            list(&Config::default(), &|_| true, None, now()),
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
            ids_of(&list(&config, &|_| true, Some(&key), now())),
            [
                "gemini-2.5-pro",
                "gemini-2.5-flash",
                "gemini-3.8-flash",
                "gemini-3.5-flash-lite",
                "best"
            ]
        );
        assert!(one(&config, "best", &|_| true, Some(&key), now()).is_some());
        assert!(one(&config, "fast", &|_| true, Some(&key), now()).is_none());
    }

    #[test]
    fn one_model_carries_its_facts() {
        let config = config();
        let get = |id: &str, usable: &dyn Fn(usize) -> bool| {
            one(&config, id, usable, None, now())
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
            json!({"id": "fast", "object": "model", "created": 0, "owned_by": "box",
                   "served": true})
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
    fn a_box_shows_its_own_models_and_no_vendors() {
        let mut config = Config::default();
        let mut own = Upstream::new("box", Format::OpenAi);
        own.options.official = false;
        own.models = vec!["*".into()];
        own.options.learned = Some(Default::default());
        config.upstreams.push(own);
        let all = |config: &Config| ids_of(&list(config, &|_| true, None, now()));
        assert_eq!(all(&config), [""; 0], "until it has told them");
        config.upstreams[0].options.learned = Some(Learned::listing(&["tiny"]));
        assert_eq!(all(&config), ["tiny"]);
        assert!(one(&config, "gpt-5", &|_| true, None, now()).is_none());
        assert_eq!(context_length(&config.upstreams[0], "gpt-5"), None);
        let there = |config: &Config, id: &str| is_there(config, id, &|_| true);
        assert!(there(&config, "tiny") && !there(&config, "gpt-5"));
        config.upstreams[0].options.learned = Some(Learned::none());
        assert!(there(&config, "gpt-5"), "nobody knows better");

        // Behind a `*` without a list, too, what another one lists is shown.
        let mut any = Upstream::new("any", Format::OpenAi);
        any.options.official = false;
        any.models = vec!["*".into()];
        config.upstreams.insert(0, any);
        config.upstreams[1].options.learned = Some(Learned::listing(&["tiny"]));
        assert_eq!(all(&config), ["tiny"]);
        assert_eq!(ids_of(&list(&config, &|at| at == 0, None, now())), [""; 0]);

        // The vendor has its own models and not those of others.
        config.upstreams[0].options.official = true;
        let told = all(&config);
        let (last, vendors) = told.split_last().unwrap();
        assert!(
            last == "tiny" && vendors.contains(&"gpt-5".to_owned()),
            "{told:?}"
        );
        assert!(vendors.iter().all(|id| id.starts_with("gpt-")), "{told:?}");
        // A pattern with letters was meant for such names, wherever the upstream is.
        config.upstreams[0].options.official = false;
        config.upstreams[0].models = vec!["gemini-2.5-*".into()];
        assert_eq!(all(&config), ["gemini-2.5-pro", "gemini-2.5-flash", "tiny"]);
    }

    #[test]
    fn the_demo_stands_beside_real_models() {
        let addr = "127.0.0.1:9".parse().unwrap();
        let all = ids_of(&list(&Config::demo(addr), &|_| true, None, now()));
        assert_eq!(all, ids().collect::<Vec<_>>());
        let mut config = config();
        config.add_demo(addr);
        let json = one(&config, "demo/gpt-5", &|_| true, None, now()).unwrap();
        let model: Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(model["name"], "GPT-5");
        assert!(one(&config, "gpt-5", &|_| true, None, now()).is_none());
    }

    #[test]
    fn each_says_whether_it_can_be_served() {
        let openai = Upstream::new("openai", Format::OpenAi);
        let mut config = config();
        config.upstreams.push(openai);
        let get = |config: &Config, id: &str, day: &str| {
            let now = timestamp(&format!("{day}T00:00:00Z")).unwrap();
            let json = one(config, id, &|_| true, None, now).unwrap();
            serde_json::from_slice::<Value>(&json).unwrap()
        };
        for (id, day, served) in [
            ("gpt-5", "2026-12-10", true),
            ("gpt-5", "2026-12-11", false),
            ("claude-opus-4-1-20250805", "2026-08-04", true),
            ("claude-opus-4-1-20250805", "2026-12-01", false),
            // As told of what an alias leads to.
            ("best", "2026-12-01", false),
            // Served by another model.
            ("gemini-2.5-pro", "2027-01-01", true),
            ("gpt-6.2-sol", "2027-01-01", true),
            ("qwen3-8b", "2027-01-01", true),
        ] {
            assert_eq!(get(&config, id, day)["served"], served, "{id} {day}");
        }
        let gpt = get(&config, "gpt-5", "2026-12-01");
        assert_eq!(
            gpt["deprecation"],
            json!({"date": "2026-12-11", "successor": "gpt-5.6-sol",
                   "source": "https://developers.openai.com/api/docs/deprecations"})
        );
        let today = timestamp("2026-12-01T00:00:00Z").unwrap();
        assert!(!is_served(&config, "best", today) && is_served(&config, "gpt-5", today));
        let sol = get(&config, "gpt-6.2-sol", "2026-12-01");
        assert!(sol.get("deprecation").is_none() && sol["name"] == "GPT-6.2 Sol");
        // Somebody else's server may have it for longer.
        config.upstreams[1].base_url = "http://localhost:9".into();
        let opus = get(&config, "claude-opus-4-1-20250805", "2026-12-01");
        assert_eq!(opus["served"], true);
    }

    #[test]
    fn what_an_upstream_lists_wins_over_the_catalogue() {
        let mut config = config();
        let told = |id: &str| discovery::Model {
            id: id.into(),
            created: 5,
            context_length: Some(7),
            thinks: Some(false),
            ..discovery::Model::default()
        };
        let list = ["claude-opus-4-1-20250805", "claude-opus-5-5"].map(told);
        config.upstreams[1].options.learned = Some(discovery::Learned::of(list.into()));
        let get = |id: &str| {
            let json = one(&config, id, &|_| true, None, now()).unwrap();
            serde_json::from_slice::<Value>(&json).unwrap()
        };
        let old = get("claude-opus-4-1-20250805");
        assert_eq!(old["served"], true, "it is listed, whatever its day was");
        assert_eq!(old["deprecation"]["date"], "2026-08-05");
        assert_eq!(
            (&old["context_length"], &old["max_completion_tokens"]),
            (&json!(7), &json!(32_000))
        );
        assert_eq!(old["created"], 1_754_352_000);
        let new = get("claude-opus-5-5");
        assert_eq!(
            (&new["created"], &new["thinking"]),
            (&json!(5), &json!(false))
        );
        let upstream = &config.upstreams[1];
        assert_eq!(context_length(upstream, "claude-opus-5-5"), Some(7));
        assert_eq!(
            context_length(upstream, "claude-haiku-5-5"),
            Some(1_000_000)
        );
    }

    #[test]
    fn penalties_are_not_listed_where_they_are_refused() {
        for known in CATALOGUE {
            let row = crate::capability::gemini(known.id);
            let names = known.facts.supported_parameters;
            let has = |name: &str| names.contains(&name);
            if known.owned_by == "google" {
                assert_eq!(has("frequency_penalty"), row.penalties, "{}", known.id);
                assert_eq!(has("presence_penalty"), row.penalties, "{}", known.id);
                assert_eq!(has("temperature"), row.sampling, "{}", known.id);
            }
            if known.owned_by == "openai" {
                let row = crate::capability::openai(known.id);
                assert_eq!(has("temperature"), row.samples(None), "{}", known.id);
                assert!(!has("stop") || row.stop, "{}", known.id);
            }
            if known.owned_by == "anthropic" {
                let row = crate::capability::claude(known.id);
                assert_eq!(has("temperature"), row.sampling, "{}", known.id);
                let most = known.facts.max_completion_tokens;
                assert_eq!(most, Some(row.max_output), "{}", known.id);
            }
        }
    }
}
