//! `--check-config --probe`: asks every upstream once, and says what answered.
//!
//! Nothing is served meanwhile and nothing is kept. A secret is never shown, and of what an
//! upstream says only what a name, a version or a number can be.

use std::fmt::Write;
use std::thread;
use std::time::Duration;

use crate::config::{Config, Upstream};
use crate::discovery::{self, Model};
use crate::kind::Facts;
use crate::line::{Line, Settings};

/// More names than these are only counted.
const SHOWN: usize = 5;

/// The lines of all upstreams, and whether all of them answered.
pub fn probe(config: &Config) -> (String, bool) {
    let mut text = String::from("\nanswers:\n");
    let mut all = true;
    let looks: Vec<_> = thread::scope(|scope| {
        let begun = config.upstreams.iter().map(|upstream| {
            let asked = thread::Builder::new().spawn_scoped(scope, || look(upstream));
            (upstream, asked)
        });
        // All of them are under way before the first one is waited for.
        let begun: Vec<_> = begun.collect();
        begun
            .into_iter()
            .map(|(upstream, asked)| {
                let no_thread = |error: std::io::Error| error.to_string();
                let look = asked.map_err(no_thread).and_then(|asked| {
                    asked
                        .join()
                        .unwrap_or_else(|_| Err("the question failed".into()))
                });
                (upstream, look)
            })
            .collect()
    });
    for (upstream, look) in looks {
        match look {
            Ok((models, facts)) => {
                let _ = writeln!(text, "  {}", told(upstream, &models, &facts));
            }
            Err(why) => {
                all = false;
                let _ = writeln!(text, "  {}: no list of models: {why}", upstream.name);
            }
        }
    }
    (text, all)
}

fn look(upstream: &Upstream) -> Result<(Vec<Model>, Facts), String> {
    let line = Line::new(&Settings {
        connect: upstream.connect,
        proxy: upstream.proxy.clone(),
        ca_file: upstream.ca_file.clone(),
        connections: 1,
        idle_age: Duration::from_secs(1),
    })?;
    discovery::look_once(upstream, &line)
}

/// `box: llama.cpp b11434, 2 slots, 8192 tokens, models tiny`.
fn told(upstream: &Upstream, models: &[Model], facts: &Facts) -> String {
    let kind = upstream.options.kind.or(facts.kind);
    let what = kind.map_or(upstream.format.name(), |kind| kind.name);
    let mut line = format!("{}: {what}", upstream.name);
    if let Some(version) = &facts.version {
        let _ = write!(line, " {version}");
    }
    let mut one_of = |count: Option<u64>, name: &str| {
        if let Some(count) = count {
            let more = if count == 1 { "" } else { "s" };
            let _ = write!(line, ", {count} {name}{more}");
        }
    };
    one_of(facts.slots.map(|slots| slots as u64), "slot");
    let listed = models.iter().filter_map(|model| model.context_length).max();
    one_of(facts.context.or(listed), "token");
    match models {
        [] => line.push_str(", no models"),
        models => {
            let shown = models.iter().take(SHOWN).map(|model| &*model.id);
            let names: Vec<&str> = shown.collect();
            let _ = write!(line, ", models {}", names.join(", "));
            if models.len() > SHOWN {
                let _ = write!(line, " and {} more", models.len() - SHOWN);
            }
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind;
    use crate::provider::Format;

    #[test]
    fn what_answered_is_one_line() {
        let upstream = Upstream::new("box", Format::OpenAi);
        let model = |id: &str, context_length| Model {
            id: id.into(),
            context_length,
            ..Model::default()
        };
        let facts = Facts {
            kind: kind::by_name("llama.cpp"),
            version: Some("b11434".into()),
            slots: Some(2),
            context: Some(8192),
            images: None,
        };
        assert_eq!(
            told(&upstream, &[model("tiny", Some(4096))], &facts),
            "box: llama.cpp b11434, 2 slots, 8192 tokens, models tiny"
        );
        let many: Vec<_> = (0..7).map(|n| model(&format!("m{n}"), Some(1))).collect();
        assert_eq!(
            told(&upstream, &many, &Facts::default()),
            "box: openai, 1 token, models m0, m1, m2, m3, m4 and 2 more"
        );
        assert_eq!(
            told(&upstream, &[], &Facts::default()),
            "box: openai, no models"
        );
    }
}
