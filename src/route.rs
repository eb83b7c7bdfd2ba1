//! Model name -> `Route`, an ordered list of targets.
//!
//! Four rules, the first that fits decides: an explicit `upstream/model`, an alias of the config (by
//! its name, else by the first pattern that fits), the name patterns of the upstreams with the lists
//! that they gave of their own, and `format/model` where one upstream speaks that format. Last come
//! upstreams that have no list.
//! Knows nothing of which target is well at the moment.

use crate::config::{Config, Upstream};
use crate::provider::Format;

/// One place that can serve a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Index into `Config::upstreams`.
    pub upstream: usize,
    /// The model's name there.
    pub model: String,
}

/// The targets of `model` in the order to try them, by rules M1 to M3; empty for an unknown model.
pub fn route(config: &Config, model: &str) -> Vec<Target> {
    if let Some(target) = explicit(config, model) {
        return vec![target];
    }
    let aliases = &config.aliases;
    let exact = aliases.iter().find(|(name, _)| name == model);
    let fits = |(name, _): &&(String, Vec<String>)| name.contains('*') && matches(name, model);
    if let Some((_, targets)) = exact.or_else(|| aliases.iter().find(fits)) {
        return targets
            .iter()
            .filter_map(|target| explicit(config, target))
            .collect();
    }
    let mut targets = by_pattern(config, model);
    if targets.is_empty() {
        targets.extend(by_format(config, model));
    }
    if targets.is_empty() && !model.is_empty() {
        // They answer, and only asking shows what they have.
        let silent = |upstream: &Upstream| {
            let learned = upstream.options.learned.as_ref();
            upstream.models.is_empty() && learned.is_some_and(|learned| learned.is_silent())
        };
        targets.extend(those(config, model, silent));
    }
    targets
}

/// By the patterns and the lists. A pattern that takes everything says nothing about a name: an
/// upstream with a list that lacks it comes behind those that have it.
fn by_pattern(config: &Config, model: &str) -> Vec<Target> {
    let mut targets = Vec::new();
    let mut unlikely = Vec::new();
    let mut is_named = false;
    for (at, upstream) in config.upstreams.iter().enumerate() {
        let Some(name) = served_as(upstream, model) else {
            continue;
        };
        let target = Target {
            upstream: at,
            model: name.to_owned(),
        };
        let learned = upstream.options.learned.as_ref();
        let lacks = learned.is_some_and(|learned| learned.is_there() && !learned.has(name));
        let by_name = upstream.is_named(name);
        is_named |= by_name;
        match lacks && !by_name {
            true => unlikely.push(target),
            false => targets.push(target),
        }
    }
    if !is_named {
        let known: Vec<usize> = targets.iter().map(|target| target.upstream).collect();
        let listed = by_list(config, model);
        targets.extend(listed.filter(|target| !known.contains(&target.upstream)));
    }
    targets.append(&mut unlikely);
    targets
}

/// `upstream/model`. Other slashes belong to the model: `qwen/qwen3` is a name like any other.
fn explicit(config: &Config, model: &str) -> Option<Target> {
    let (name, model) = model
        .split_once('/')
        .filter(|(_, model)| !model.is_empty())?;
    let upstream = config
        .upstreams
        .iter()
        .position(|upstream| upstream.name == name)?;
    Some(Target {
        upstream,
        model: model.to_owned(),
    })
}

/// The upstreams whose own lists have the model.
fn by_list(config: &Config, model: &str) -> impl Iterator<Item = Target> {
    those(config, model, |upstream| {
        let learned = upstream.options.learned.as_ref();
        learned.is_some_and(|learned| learned.has(model))
    })
}

/// The upstreams of a kind.
fn those(
    config: &Config,
    model: &str,
    are: impl Fn(&Upstream) -> bool,
) -> impl Iterator<Item = Target> {
    let all = config.upstreams.iter().enumerate();
    all.filter(move |(_, upstream)| are(upstream))
        .map(move |(upstream, _)| Target {
            upstream,
            model: model.to_owned(),
        })
}

/// `format/model`, where only one upstream speaks the format. It comes last, because behind a
/// pattern like `*` there may be a server to which `openai/gpt-5` is the name of a model.
fn by_format(config: &Config, model: &str) -> Option<Target> {
    let (name, model) = model
        .split_once('/')
        .filter(|(_, model)| !model.is_empty())?;
    // Many clients call the vendor's models so.
    let name = if name == "google" { "gemini" } else { name };
    let format = Format::from_name(name)?;
    let mut speaking = config
        .upstreams
        .iter()
        .enumerate()
        .filter(|(_, upstream)| upstream.format == format && !upstream.by_name_only);
    match (speaking.next(), speaking.next()) {
        (Some((upstream, _)), None) => Some(Target {
            upstream,
            model: model.to_owned(),
        }),
        _ => None,
    }
}

/// The name under which `upstream` serves `model`, if one of its patterns fits. Gemini's clients
/// may say `models/gemini-...`, as its own API does.
fn served_as<'a>(upstream: &Upstream, model: &'a str) -> Option<&'a str> {
    let fits = |name: &str| upstream.models.iter().any(|pattern| matches(pattern, name));
    if !model.is_empty() && fits(model) {
        return Some(model);
    }
    let bare = model.strip_prefix("models/")?;
    (upstream.format == Format::Gemini && !bare.is_empty() && fits(bare)).then_some(bare)
}

/// Whether `name` fits `pattern`, in which `*` stands for any text, also none. Takes time in the
/// order of both lengths multiplied, whatever the pattern.
pub fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    // Where to go on if the text behind the last star does not fit here.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            star = Some((p + 1, n));
            p += 1;
        } else if p < pattern.len() && pattern[p] == name[n] {
            p += 1;
            n += 1;
        } else if let Some((behind, taken)) = star {
            star = Some((behind, taken + 1));
            p = behind;
            n = taken + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::discovery::Learned;

    fn config() -> Config {
        let mut config = Config::default();
        for (name, format, models) in [
            ("gemini", Format::Gemini, &["gemini-*"][..]),
            ("claude", Format::Anthropic, &["claude-*"]),
            ("openai", Format::OpenAi, &["gpt-*", "o1*"]),
            ("box", Format::OpenAi, &["qwen/*", "*-local", "gpt-oss*"]),
        ] {
            let mut upstream = Upstream::new(name, format);
            upstream.models = models.iter().map(|model| (*model).to_owned()).collect();
            config.upstreams.push(upstream);
        }
        let alias = |name: &str, targets: &[&str]| {
            let targets = targets.iter().map(|target| (*target).to_owned()).collect();
            (name.to_owned(), targets)
        };
        config.aliases = vec![
            alias("best", &["claude/claude-opus-4-1-20250805", "openai/gpt-5"]),
            alias("gpt-5", &["box/qwen/qwen3"]),
            alias("gemini/odd", &["box/never"]),
            alias("team/fast", &["gemini/gemini-2.5-flash"]),
        ];
        config
    }

    fn routed(model: &str) -> Vec<String> {
        let config = config();
        route(&config, model)
            .iter()
            .map(|target| {
                format!(
                    "{}:{}",
                    config.upstreams[target.upstream].name, target.model
                )
            })
            .collect()
    }

    #[test]
    fn the_rules_hold_in_their_order() {
        for (model, targets) in [
            // Explicit, by name and by a format that is spoken once.
            ("gemini/gemini-2.5-pro", &["gemini:gemini-2.5-pro"][..]),
            ("box/qwen/qwen3", &["box:qwen/qwen3"]),
            ("anthropic/claude-x", &["claude:claude-x"]),
            ("google/gemini-x", &["gemini:gemini-x"]),
            // An upstream's name wins over the format of the same name, though two speak it.
            ("openai/anything", &["openai:anything"]),
            // Before an alias of the same name.
            ("gemini/odd", &["gemini:odd"]),
            // Aliases, before patterns.
            ("best", &["claude:claude-opus-4-1-20250805", "openai:gpt-5"]),
            ("gpt-5", &["box:qwen/qwen3"]),
            ("team/fast", &["gemini:gemini-2.5-flash"]),
            // Patterns, over all upstreams in their order.
            ("gpt-oss-120b", &["openai:gpt-oss-120b", "box:gpt-oss-120b"]),
            ("o1", &["openai:o1"]),
            ("qwen/qwen3", &["box:qwen/qwen3"]),
            ("a-local", &["box:a-local"]),
            ("models/gemini-2.5-pro", &["gemini:gemini-2.5-pro"]),
            // Unknown.
            ("llama", &[]),
            ("responses/gpt-5", &[]),
            ("gemini/", &[]),
            ("models/", &[]),
            ("models/gpt-5", &[]),
            ("/", &[]),
            ("", &[]),
            ("GPT-5", &[]),
        ] {
            assert_eq!(routed(model), targets, "{model}");
        }
    }

    #[test]
    fn a_pattern_that_takes_all_comes_before_a_format() {
        let mut config = config();
        config.upstreams[2].name = "router".into();
        config.upstreams[2].models = vec!["*".into()];
        config.upstreams.remove(3);
        let targets = route(&config, "openai/gpt-5");
        assert_eq!(targets.len(), 1);
        assert_eq!(
            (targets[0].upstream, targets[0].model.as_str()),
            (2, "openai/gpt-5")
        );
    }

    #[test]
    fn a_list_says_more_than_a_pattern_that_takes_all() {
        let mut config = Config::default();
        let mut add = |name: &str, models: &[&str], learned: Option<Arc<Learned>>| {
            let mut upstream = Upstream::new(name, Format::OpenAi);
            upstream.models = models.iter().map(|model| (*model).to_owned()).collect();
            upstream.options.learned = learned;
            config.upstreams.push(upstream);
        };
        add("any", &["*"], None);
        add("one", &["*"], Some(Learned::listing(&["tiny"])));
        add("two", &[], Some(Learned::listing(&["small", "qwen-1"])));
        add("three", &["qwen-*"], Some(Learned::listing(&["qwen-2"])));
        add("late", &[], Some(Arc::default()));
        add("mute", &[], Some(Learned::none()));
        let routed = |config: &Config, model: &str| -> Vec<String> {
            let targets = route(config, model);
            let name = |target: &Target| config.upstreams[target.upstream].name.clone();
            targets.iter().map(name).collect()
        };
        assert_eq!(routed(&config, "tiny"), ["any", "one"]);
        assert_eq!(routed(&config, "small"), ["any", "two", "one"]);
        // A pattern with letters in it was meant.
        assert_eq!(routed(&config, "qwen-1"), ["any", "three", "one"]);
        assert_eq!(routed(&config, "qwen-2"), ["any", "three", "one"]);
        assert_eq!(routed(&config, "nobody"), ["any", "one"]);
        config.upstreams.remove(0);
        assert_eq!(
            routed(&config, "nobody"),
            ["one"],
            "it may answer to any name"
        );
        assert_eq!(routed(&config, "small"), ["two", "one"]);
        config.upstreams.remove(0);
        assert_eq!(routed(&config, "nobody"), ["mute"]);
        config.upstreams.pop();
        assert_eq!(routed(&config, "nobody"), [""; 0]);
        assert_eq!(routed(&config, "late/x"), ["late"]);
    }

    #[test]
    fn an_ambiguous_format_leads_nowhere() {
        let mut config = config();
        config.upstreams[2].name = "oa".into();
        assert_eq!(route(&config, "openai/gpt-5"), []);
        config.upstreams.remove(3);
        assert_eq!(route(&config, "openai/gpt-5")[0].upstream, 2);
    }

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, name, fits) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "a/b", true),
            ("gpt-*", "gpt-", true),
            ("gpt-*", "gpt", false),
            ("*-pro", "gemini-2.5-pro", true),
            ("*-pro", "gemini-2.5-pro-exp", false),
            ("g*-*o", "gemini-2.5-pro", true),
            ("a*b*c", "abbc", true),
            ("a*b*c", "acb", false),
            ("*aab", "aaaab", true),
            ("*ü*", "grün", true),
            ("gpt-5", "gpt-5", true),
            ("gpt-5", "gpt-5-mini", false),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn an_alias_may_be_a_pattern_which_comes_behind_the_names() {
        let mut config = config();
        config.aliases = vec![
            ("claude-*".into(), vec!["box/a".into()]),
            ("claude-haiku-*".into(), vec!["box/b".into()]),
            ("claude-opus-5".into(), vec!["box/c".into()]),
        ];
        let model = |asked: &str| route(&config, asked)[0].model.clone();
        assert_eq!(model("claude-opus-5"), "c", "the name itself");
        assert_eq!(model("claude-haiku-4"), "a", "the first pattern that fits");
        assert_eq!(model("claude-new"), "a");
    }

    #[test]
    fn a_hostile_name_is_decided_at_once() {
        let pattern = "*a".repeat(100) + "b";
        assert!(!matches(&pattern, &"a".repeat(100_000)));
    }
}
