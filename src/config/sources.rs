//! Where a configuration comes from: a named file, `./weir.json`, the environment, or the demo.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::build::{self, Ground};
use super::findings::Findings;
use super::secret::{self, Env};
use super::{Config, Key, Upstream, base_url, listen};
use crate::provider::Format;

/// What the command line says about the configuration; a reload reads the same again.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    pub file: Option<PathBuf>,
    pub listen: Option<String>,
    pub demo: bool,
}

/// What is outside of the process, handed in so that tests can set it.
pub struct Surroundings<'a> {
    pub env: Env<'a>,
    /// Where `weir.json` is looked for; empty: the working folder.
    pub folder: &'a Path,
    /// The address of the demo, which is started when it is first needed.
    pub demo: &'a dyn Fn() -> Result<SocketAddr, String>,
}

#[derive(Debug)]
pub struct Loaded {
    pub config: Config,
    pub origin: Origin,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    File(PathBuf),
    /// The environment variables with the keys.
    Environment(Vec<&'static str>),
    Demo,
}

/// Read without `--config`, if it is there.
const USUAL_FILE: &str = "weir.json";

/// One provider, as the environment can name it.
struct Vendor {
    format: Format,
    /// The first one that is set counts.
    keys: &'static [&'static str],
    base_url: &'static str,
}

const VENDORS: &[Vendor] = &[
    Vendor {
        format: Format::Gemini,
        keys: &["GEMINI_API_KEY", "GOOGLE_API_KEY"],
        base_url: "GEMINI_BASE_URL",
    },
    Vendor {
        format: Format::OpenAi,
        keys: &["OPENAI_API_KEY"],
        base_url: "OPENAI_BASE_URL",
    },
    Vendor {
        format: Format::Anthropic,
        keys: &["ANTHROPIC_API_KEY"],
        base_url: "ANTHROPIC_BASE_URL",
    },
];

/// Longer than any configuration.
const LONGEST: u64 = 16 << 20;

impl Sources {
    pub fn load(&self, around: &Surroundings<'_>) -> Result<Loaded, Findings> {
        let usual = around.folder.join(USUAL_FILE);
        let file = match &self.file {
            Some(file) => Some(file.clone()),
            // Also where it is there but cannot be read: that is to be told, not passed over.
            None => usual.symlink_metadata().is_ok().then_some(usual),
        };
        let (mut loaded, mut findings) = match file {
            Some(file) => self.read_file(file, around),
            None => self.read_environment(around),
        };
        if self.demo && loaded.origin != Origin::Demo {
            if loaded
                .config
                .upstreams
                .iter()
                .any(|known| known.name == "demo")
            {
                findings.add(
                    "--demo",
                    "an upstream of the config is already named `demo`",
                );
            }
            match (around.demo)() {
                Ok(addr) => loaded.config.add_demo(addr),
                Err(error) => findings.add("--demo", error),
            }
        }
        if findings.is_empty() {
            Ok(loaded)
        } else {
            Err(findings)
        }
    }

    fn read_file(&self, file: PathBuf, around: &Surroundings<'_>) -> (Loaded, Findings) {
        let mut findings = Findings::new(file.display().to_string());
        let ground = Ground {
            folder: file.parent().unwrap_or(Path::new("")),
            env: around.env,
            listen: self.listen.as_deref(),
        };
        let config = match super::file::read(&file, LONGEST).map(String::from_utf8) {
            Ok(Ok(text)) if text.len() as u64 == LONGEST => {
                findings.add("", format!("has more than {LONGEST} bytes"));
                Config::default()
            }
            Ok(Ok(text)) => build::config(&text, &ground, &mut findings),
            Ok(Err(_)) => {
                findings.add("", "is not UTF-8");
                Config::default()
            }
            Err(error) => {
                let fault = match error.kind() {
                    ErrorKind::NotFound => "there is no such file".to_owned(),
                    _ => format!("cannot be read: {}", secret::plain(&error)),
                };
                findings.add("", fault);
                Config::default()
            }
        };
        let config = Config {
            file: Some(file.clone()),
            ..config
        };
        let origin = Origin::File(file);
        (Loaded { config, origin }, findings)
    }

    fn read_environment(&self, around: &Surroundings<'_>) -> (Loaded, Findings) {
        let mut findings = Findings::default();
        let mut config = Config::default();
        let mut named = Vec::new();
        // An empty variable is how many shells and unit files say "unset".
        let set = |name: &str| (around.env)(name).filter(|text| !text.trim().is_empty());
        for vendor in VENDORS {
            let Some(&name) = vendor.keys.iter().find(|name| set(name).is_some()) else {
                continue;
            };
            let mut upstream = Upstream::new(vendor.format.name(), vendor.format);
            match secret::resolve(&format!("env:{name}"), around.folder, around.env) {
                Ok(secret) => {
                    upstream.keys = vec![Key {
                        name: name.to_owned(),
                        secret: Some(secret),
                    }];
                }
                Err(fault) => findings.add(name, fault),
            }
            if let Some(text) = set(vendor.base_url) {
                match base_url::parse(vendor.format, text.trim()) {
                    Ok(base) => upstream.base_url = base,
                    Err(fault) => findings.add(vendor.base_url, fault),
                }
                upstream.options.official = base_url::is_vendors(vendor.format, &upstream.base_url);
                upstream.settle_models(None, None);
            }
            named.push(name);
            config.upstreams.push(upstream);
        }
        let origin = if named.is_empty() {
            match (around.demo)() {
                Ok(addr) => config = Config::demo(addr),
                Err(error) => findings.add("", error),
            }
            Origin::Demo
        } else {
            Origin::Environment(named)
        };
        if let Some(text) = &self.listen {
            match listen::parse(text) {
                Ok(listen) => config.listen = listen,
                Err(fault) => findings.add("--listen", format!("{text:?}: {fault}")),
            }
        }
        build::fence(&config.listen, false, true, &mut findings);
        (Loaded { config, origin }, findings)
    }
}
