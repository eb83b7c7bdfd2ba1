//! What `--print` prints: the config's example and reference, and the files that run weir under
//! something else. The binary carries them, so that it is all that one needs.

use std::time::SystemTime;

use crate::config::Config;
use crate::{capability, config};

mod agents;

/// What is printed for the config at hand.
pub const AGENTS: &str = "agents";

pub fn agents(config: &Config) -> String {
    agents::print(config, SystemTime::now())
}

/// Makes what is printed.
type Text = fn() -> String;

/// Everything that can be printed, by name.
const PRINTS: &[(&str, Text)] = &[
    ("config", config::example),
    ("reference", config::reference),
    ("models", capability::table),
    ("systemd", || include_str!("print/systemd.txt").into()),
    ("openrc", || include_str!("print/openrc.txt").into()),
    ("procd", || include_str!("print/procd.txt").into()),
    ("container", || include_str!("print/container.txt").into()),
    ("haproxy", || include_str!("print/haproxy.txt").into()),
    ("nginx", || include_str!("print/nginx.txt").into()),
    ("caddy", || include_str!("print/caddy.txt").into()),
];

/// The text of this name, or all the names there are.
pub fn print(what: &str) -> Result<String, String> {
    match PRINTS.iter().find(|(name, _)| *name == what) {
        Some((_, text)) => Ok(text()),
        None => {
            let known = PRINTS.iter().map(|(name, _)| *name).chain([AGENTS]);
            Err(known.collect::<Vec<_>>().join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_has_the_reference_of_the_code() {
        let (_, behind) = include_str!("manual/config.md")
            .split_once("<!-- config reference -->")
            .expect("the mark where the reference begins");
        let (inside, _) = behind
            .split_once("<!-- end -->")
            .expect("the mark where the reference ends");
        assert_eq!(
            inside.trim(),
            config::reference().trim(),
            "put in what `weir --print reference` prints"
        );
    }
}
