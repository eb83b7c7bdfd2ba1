//! The aliases of a config file, with every target led back to `upstream/model`.

use super::{Named, model_fault};
use crate::config::findings::{Findings, did_you_mean, element, member, shown};
use crate::config::read::Object;
use crate::config::tree::Node;
use crate::provider::Format;

struct Alias<'n> {
    name: &'n str,
    path: String,
    targets: Vec<Target>,
    /// `upstream/model` each, once all aliases among the targets are resolved themselves.
    resolved: Option<Vec<String>>,
}

enum Target {
    Model(String),
    /// Index of another alias, or of itself.
    Alias(usize),
}

pub fn read(
    top: &Object<'_>,
    upstreams: &[Named],
    findings: &mut Findings,
) -> Vec<(String, Vec<String>)> {
    let Some(Node::Object(members)) = top.get("models") else {
        return Vec::new();
    };
    let mut aliases: Vec<Alias<'_>> = Vec::new();
    let names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
    for (at, (name, node)) in members.iter().enumerate() {
        let path = member("models", name);
        if names[..at].contains(&name.as_str()) {
            findings.add(&path, "stands here twice");
        } else if let Some(fault) = name_fault(name, upstreams) {
            findings.add(&path, fault);
        }
        let list: Vec<(String, &Node)> = match node {
            Node::List(list) => list
                .iter()
                .enumerate()
                .map(|(at, node)| (element(&path, at), node))
                .collect(),
            Node::Text(_) => vec![(path.clone(), node)],
            other => {
                let found = other.kind();
                findings.add(&path, format!("expected a list of targets, found {found}"));
                Vec::new()
            }
        };
        if matches!(node, Node::List(list) if list.is_empty()) {
            findings.add(&path, "is empty; an alias needs at least one target");
        }
        let mut targets = Vec::new();
        for (path, node) in list {
            match target(node, &names, upstreams) {
                Ok(target) => targets.push(target),
                Err(fault) => findings.add(&path, fault),
            }
        }
        aliases.push(Alias {
            name,
            path,
            targets,
            resolved: None,
        });
    }
    resolve(&mut aliases);
    cycles(&aliases, findings);
    aliases
        .into_iter()
        .filter_map(|alias| Some((alias.name.to_owned(), alias.resolved?)))
        .collect()
}

fn name_fault(name: &str, upstreams: &[Named]) -> Option<String> {
    if let Some(fault) = model_fault(name) {
        return Some(fault.into());
    }
    // An explicit `upstream/model` comes before the aliases.
    let (provider, _) = name.split_once('/')?;
    upstreams
        .iter()
        .any(|known| known.name == provider)
        .then(|| format!("is never reached, because `{provider}/` asks that upstream directly"))
}

fn target(node: &Node, names: &[&str], upstreams: &[Named]) -> Result<Target, String> {
    let Node::Text(text) = node else {
        return Err(format!("expected a string, found {}", node.kind()));
    };
    if let Some(fault) = model_fault(text) {
        return Err(fault.into());
    }
    if text.contains('*') {
        return Err("a target is one model; `*` cannot be asked for".into());
    }
    if let Some((provider, model)) = text.split_once('/')
        && let Some(upstream) = upstream(provider, upstreams)
    {
        if model.is_empty() {
            return Err("names no model behind the `/`".into());
        }
        return Ok(Target::Model(format!("{upstream}/{model}")));
    }
    if let Some(at) = names.iter().position(|name| name == text) {
        return Ok(Target::Alias(at));
    }
    Err(match text.split_once('/') {
        Some((provider, _)) => format!(
            "there is no upstream {}{}",
            shown(provider),
            did_you_mean(provider, upstreams.iter().map(|known| known.name.as_str()))
        ),
        None => format!(
            "{} is neither `upstream/model` nor another alias{}",
            shown(text),
            did_you_mean(text, names.iter().copied())
        ),
    })
}

/// The upstream that `provider/` leads to: the one of that name, or the only one of that format.
fn upstream<'n>(provider: &str, upstreams: &'n [Named]) -> Option<&'n str> {
    let mut named = upstreams.iter().filter(|known| known.name == provider);
    if let Some(known) = named.next() {
        return Some(&known.name);
    }
    let format = Format::from_name(provider)?;
    let mut speaking = upstreams
        .iter()
        .filter(|known| known.format == Some(format));
    match (speaking.next(), speaking.next()) {
        (Some(known), None) => Some(&known.name),
        _ => None,
    }
}

/// Resolves what can be, in rounds; what is left leads into a cycle.
fn resolve(aliases: &mut [Alias<'_>]) {
    loop {
        let mut moved = false;
        for at in 0..aliases.len() {
            if aliases[at].resolved.is_some() {
                continue;
            }
            let mut all: Option<Vec<String>> = Some(Vec::new());
            for target in &aliases[at].targets {
                let models = match target {
                    Target::Model(model) => Some(std::slice::from_ref(model)),
                    Target::Alias(other) => aliases[*other].resolved.as_deref(),
                };
                all = all.zip(models).map(|(mut all, models)| {
                    for model in models {
                        if !all.contains(model) {
                            all.push(model.clone());
                        }
                    }
                    all
                });
            }
            moved |= all.is_some();
            aliases[at].resolved = all;
        }
        if !moved {
            return;
        }
    }
}

/// One finding for each cycle, at its first alias.
fn cycles(aliases: &[Alias<'_>], findings: &mut Findings) {
    let next = |at: usize| {
        aliases[at].targets.iter().find_map(|target| match target {
            Target::Alias(other) if aliases[*other].resolved.is_none() => Some(*other),
            _ => None,
        })
    };
    for start in 0..aliases.len() {
        if aliases[start].resolved.is_some() {
            continue;
        }
        let mut walk = vec![start];
        while let Some(at) = walk.last().and_then(|at| next(*at)) {
            if at == start {
                let names: Vec<&str> = walk
                    .iter()
                    .chain([&start])
                    .map(|at| aliases[*at].name)
                    .collect();
                findings.add(
                    &aliases[start].path,
                    format!("leads back to itself: {}", names.join(" -> ")),
                );
                break;
            }
            // An earlier alias on the way has told of this cycle; one met twice is beside it.
            if at < start || walk.contains(&at) {
                break;
            }
            walk.push(at);
        }
    }
}
