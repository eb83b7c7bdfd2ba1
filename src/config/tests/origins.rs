//! Which of the sources counts, and what each of them gives.

use std::cell::Cell;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::super::sources::{Loaded, Origin, Sources, Surroundings};
use super::*;

/// A folder of its own for one test, removed when it ends.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("weir-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const NOWHERE: &str = "tests/config/none";
const ONE: &str = r#"{"upstreams": [{"name": "g", "format": "gemini", "keys": ["file:g.key"]}]}"#;

/// Loads with the environment `vars`, and tells how often the demo was asked for.
fn load(
    sources: &Sources,
    folder: &Path,
    vars: &[(&str, &str)],
) -> (Result<Loaded, Findings>, u32) {
    let asked = Cell::new(0);
    let loaded = sources.load(&Surroundings {
        env: &|name| {
            vars.iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| (*value).to_owned())
        },
        folder,
        demo: &|| {
            asked.set(asked.get() + 1);
            Ok(SocketAddr::from(([127, 0, 0, 1], 9)))
        },
    });
    (loaded, asked.get())
}

#[test]
fn a_named_file_wins_then_the_usual_one_then_the_environment_then_the_demo() {
    let folder = Folder::new("order");
    folder.write("g.key", "  k1 \nk2\n");
    let named = folder.write("other.json", ONE);
    let vars = [("OPENAI_API_KEY", "k")];
    let mut sources = Sources::default();

    let (loaded, asked) = load(&sources, &folder.0, &[("OPENAI_API_KEY", "")]);
    let loaded = loaded.unwrap();
    assert_eq!((loaded.origin, asked), (Origin::Demo, 1));
    let told: Vec<_> = loaded
        .config
        .upstreams
        .iter()
        .map(|upstream| (upstream.name.as_str(), upstream.base_url.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            ("demo-gemini", "http://127.0.0.1:9"),
            ("demo-openai", "http://127.0.0.1:9/v1"),
            ("demo-anthropic", "http://127.0.0.1:9"),
            ("demo", "http://127.0.0.1:9/v1")
        ]
    );

    let (loaded, asked) = load(&sources, &folder.0, &vars);
    let origin = Origin::Environment(vec!["OPENAI_API_KEY"]);
    assert_eq!((loaded.unwrap().origin, asked), (origin, 0));

    let usual = folder.write("weir.json", ONE);
    let (loaded, _) = load(&sources, &folder.0, &vars);
    let loaded = loaded.unwrap();
    assert_eq!(loaded.origin, Origin::File(usual));
    let secret = loaded.config.upstreams[0].keys[0].secret.clone();
    assert_eq!(
        secret.unwrap().reveal(),
        "k1",
        "the first line, beside the config file"
    );

    sources.file = Some(named.clone());
    let (loaded, _) = load(&sources, &folder.0, &vars);
    assert_eq!(loaded.unwrap().origin, Origin::File(named));
}

#[test]
fn keys_of_the_environment_make_upstreams() {
    let vars = [
        ("GOOGLE_API_KEY", "g\n"),
        ("GEMINI_API_KEY", ""),
        ("OPENAI_API_KEY", "o"),
        ("OPENAI_BASE_URL", "http://127.0.0.1:1"),
        ("ANTHROPIC_API_KEY", "a"),
        ("ANTHROPIC_BASE_URL", ""),
    ];
    let (loaded, _) = load(&Sources::default(), Path::new(NOWHERE), &vars);
    let loaded = loaded.unwrap();
    let told: Vec<_> = loaded
        .config
        .upstreams
        .iter()
        .map(|upstream| {
            (
                upstream.name.as_str(),
                upstream.base_url.as_str(),
                upstream.keys[0].name.as_str(),
                upstream.keys[0].secret.as_ref().unwrap().reveal(),
                upstream.options.official,
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            (
                "gemini",
                Format::Gemini.default_base(),
                "GOOGLE_API_KEY",
                "g",
                true
            ),
            (
                "openai",
                "http://127.0.0.1:1/v1",
                "OPENAI_API_KEY",
                "o",
                false
            ),
            (
                "anthropic",
                Format::Anthropic.default_base(),
                "ANTHROPIC_API_KEY",
                "a",
                true
            ),
        ]
    );
}

#[test]
fn the_demo_stands_beside_real_upstreams() {
    let sources = Sources {
        demo: true,
        ..Sources::default()
    };
    let (loaded, asked) = load(&sources, Path::new(NOWHERE), &[("OPENAI_API_KEY", "o")]);
    let config = loaded.unwrap().config;
    assert_eq!((config.upstreams.len(), asked), (2, 1));
    let routed = route::route(&config, "demo/claude-opus-4-1-20250805");
    assert_eq!(config.upstreams[routed[0].upstream].name, "demo");
    assert_eq!(routed[0].model, "claude-opus-4-1-20250805");
    assert_eq!(route::route(&config, "gpt-5").len(), 1);
    // Alone it is the demo as ever, and has that name too.
    let (loaded, asked) = load(&sources, Path::new(NOWHERE), &[]);
    assert_eq!((loaded.unwrap().config.upstreams.len(), asked), (4, 1));
}

#[test]
fn findings_of_each_source_name_their_place() {
    let folder = Folder::new("findings");
    let found = |sources: &Sources, vars: &[(&str, &str)]| {
        let (loaded, _) = load(sources, &folder.0, vars);
        loaded.unwrap_err().to_string()
    };
    let listen = |text: &str| Sources {
        listen: Some(text.into()),
        ..Sources::default()
    };
    assert_eq!(
        found(&listen("8080"), &[]),
        "--listen: \"8080\": expected `host:port` or `unix:/path`"
    );
    assert_eq!(
        found(&listen("0.0.0.0:0"), &[("OPENAI_API_KEY", "k")]),
        "--listen: other machines can reach 0.0.0.0:0, and there are no `client_keys`; add some \
         to the config file, or \"open\": true"
    );
    assert_eq!(
        found(
            &Sources::default(),
            &[("OPENAI_API_KEY", "a\u{7}b"), ("OPENAI_BASE_URL", "x")]
        ),
        "OPENAI_API_KEY: holds a control character, which no header can carry; OPENAI_BASE_URL: \
         must begin with `http://` or `https://`"
    );
    let file = |name: &str| Sources {
        file: Some(folder.0.join(name)),
        ..Sources::default()
    };
    let at = folder.0.display();
    assert_eq!(
        found(&file("none.json"), &[]),
        format!("{at}/none.json: there is no such file")
    );
    folder.write("two.json", "{\"upstreams\": [], \"x\": 1}");
    assert_eq!(
        found(&file("two.json"), &[]),
        format!(
            "{at}/two.json: x: unknown key; {at}/two.json: upstreams: is empty; there is nobody to ask"
        )
    );
    std::fs::write(folder.0.join("bytes.json"), [0xff, 0xfe]).unwrap();
    assert_eq!(
        found(&file("bytes.json"), &[]),
        format!("{at}/bytes.json: is not UTF-8")
    );
    assert!(found(&file(""), &[]).contains("cannot be read: is a directory"));

    folder.write("g.key", "k");
    let text = ONE.replace("\"g\"", "\"demo\"");
    let mut sources = file("demo.json");
    sources.demo = true;
    folder.write("demo.json", &text);
    assert!(
        found(&sources, &[]).ends_with("--demo: an upstream of the config is already named `demo`")
    );
}
