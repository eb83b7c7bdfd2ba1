//! What a server is: one row each, and how it is told from what it answers.
//!
//! The format says what is spoken; the kind says what differs between servers that speak it. It
//! stands in the config, or is known by the address, or is found in the server's list of models and
//! the headers beside it. Knows no connection; `discovery.rs` asks and tells it what came.

use std::sync::Arc;

use parking_lot::RwLock;
use serde_json::Value;

use crate::provider::Format;
use crate::route::matches;

/// One kind of server.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// As the config file names it.
    pub name: &'static str,
    /// Hosts that are of this kind; `*` stands for any text.
    hosts: &'static [&'static str],
    /// What tells it, in its list of models or the headers of any answer.
    signs: &'static [Sign],
    /// The header that carries the key and what stands before it, where it is not the format's.
    pub auth: Option<(&'static str, &'static str)>,
    /// Whether it has a list of models.
    pub lists: bool,
    /// Behind the root: answers 200 while it is well.
    pub health: Option<&'static str>,
    /// Behind the root: tells its version, and the slots and the context that it has.
    pub about: Option<&'static str>,
    /// A caller who leaves stops an answer that was asked for whole. Where that is not so, whole
    /// answers are asked for as streams, which every server stops.
    pub stops_whole: bool,
    /// It does not know the role `developer`.
    pub developer_as_system: bool,
    /// Fields that it has under another name.
    pub renames: &'static [(&'static str, &'static str)],
    /// Fields that it refuses.
    pub refuses: &'static [&'static str],
    /// Where Gemini's models stand, in place of `/v1beta/models/`.
    gemini_models: Option<&'static str>,
}

#[derive(Debug, PartialEq, Eq)]
enum Sign {
    /// `owned_by` of its models.
    Owner(&'static str),
    /// A header and how its value begins.
    Header(&'static str, &'static str),
    /// Both, where one alone is said by others as well.
    Both(&'static str, (&'static str, &'static str)),
}

use Sign::{Both, Header, Owner};

/// A server of which nothing is known but its format.
pub static UNKNOWN: Kind = Kind {
    name: "unknown",
    ..BASE
};

const BASE: Kind = Kind {
    name: "",
    hosts: &[],
    signs: &[],
    auth: None,
    lists: true,
    health: None,
    about: None,
    stops_whole: true,
    developer_as_system: false,
    renames: &[],
    refuses: &[],
    gemini_models: None,
};

const ONE_LIMIT: (&str, &str) = ("max_completion_tokens", "max_tokens");

/// Every kind. What a row does not name is as with a server of which nothing is known.
pub static KINDS: &[Kind] = &[
    Kind {
        name: "llama.cpp",
        signs: &[Owner("llamacpp"), Header("server", "llama.cpp")],
        health: Some("/health"),
        about: Some("/props"),
        // It looks for callers who left only between two pieces of a stream.
        stops_whole: false,
        ..BASE
    },
    Kind {
        name: "vllm",
        signs: &[Owner("vllm")],
        health: Some("/health"),
        about: Some("/version"),
        ..BASE
    },
    Kind {
        name: "transformers",
        // Others own their models as `local` too, but are not served by uvicorn.
        signs: &[Both("local", ("server", "uvicorn"))],
        health: Some("/health"),
        stops_whole: false,
        ..BASE
    },
    Kind {
        name: "litellm",
        signs: &[Header("x-litellm-version", "")],
        health: Some("/health/liveliness"),
        ..BASE
    },
    Kind {
        name: "ollama",
        signs: &[Owner("library")],
        health: Some("/api/version"),
        about: Some("/api/version"),
        ..BASE
    },
    Kind {
        name: "tgi",
        health: Some("/health"),
        about: Some("/info"),
        ..BASE
    },
    Kind {
        name: "sglang",
        signs: &[Owner("sglang")],
        health: Some("/health"),
        ..BASE
    },
    Kind {
        name: "openrouter",
        hosts: &["openrouter.ai"],
        ..BASE
    },
    Kind {
        name: "azure",
        hosts: &[
            "*.openai.azure.com",
            "*.services.ai.azure.com",
            "*.cognitiveservices.azure.com",
        ],
        auth: Some(("api-key", "")),
        // Its newer models refuse the old name of the limit, its older ones take both.
        renames: &[("max_tokens", "max_completion_tokens")],
        refuses: &[
            "cache_control",
            "extra_body",
            "image_config",
            "thinking",
            "top_k",
        ],
        ..BASE
    },
    Kind {
        name: "vertex",
        hosts: &["aiplatform.googleapis.com", "*-aiplatform.googleapis.com"],
        lists: false,
        gemini_models: Some("/publishers/google/models/"),
        ..BASE
    },
    Kind {
        name: "bedrock",
        hosts: &["bedrock-runtime*.amazonaws.com", "bedrock-mantle.*.api.aws"],
        ..BASE
    },
    Kind {
        name: "groq",
        hosts: &["api.groq.com"],
        refuses: &["logit_bias", "logprobs", "messages[].name", "top_logprobs"],
        ..BASE
    },
    Kind {
        name: "mistral",
        hosts: &["api.mistral.ai"],
        developer_as_system: true,
        renames: &[ONE_LIMIT, ("seed", "random_seed")],
        // It tells the usage of a stream without being asked.
        refuses: &[
            "logit_bias",
            "logprobs",
            "service_tier",
            "store",
            "stream_options",
            "top_logprobs",
            "user",
        ],
        ..BASE
    },
    Kind {
        name: "deepseek",
        hosts: &["api.deepseek.com"],
        developer_as_system: true,
        renames: &[ONE_LIMIT],
        ..BASE
    },
    Kind {
        name: "xai",
        hosts: &["api.x.ai"],
        ..BASE
    },
];

/// The headers that rows know a server by.
pub const SIGN_HEADERS: [&str; 2] = ["server", VERSION_HEADER];

/// The one that tells a version as well.
pub const VERSION_HEADER: &str = "x-litellm-version";

/// The names of all kinds, for the table of keys, which a test holds.
pub const NAMES: &[&str] = &[
    "llama.cpp",
    "vllm",
    "transformers",
    "litellm",
    "ollama",
    "tgi",
    "sglang",
    "openrouter",
    "azure",
    "vertex",
    "bedrock",
    "groq",
    "mistral",
    "deepseek",
    "xai",
];

pub fn by_name(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name)
}

/// The kind of the server at `base`, by its host.
pub fn by_address(base: &str) -> Option<&'static Kind> {
    let uri: ureq::http::Uri = base.parse().ok()?;
    let host = uri.host()?.to_ascii_lowercase();
    let is_here = |kind: &&Kind| kind.hosts.iter().any(|pattern| matches(pattern, &host));
    KINDS.iter().find(is_here)
}

/// The kind of a server whose models are owned by `owner`; `header` gives one of the list's headers.
pub fn by_signs(
    owner: Option<&str>,
    header: &dyn Fn(&str) -> Option<String>,
) -> Option<&'static Kind> {
    let has = |(name, begin): (&str, &str)| {
        header(name).is_some_and(|value| value.to_ascii_lowercase().starts_with(begin))
    };
    let shows = |sign: &Sign| match sign {
        Owner(name) => owner == Some(name),
        Header(name, begin) => has((name, begin)),
        Both(name, pair) => owner == Some(name) && has(*pair),
    };
    // A proxy in front passes on the lists of others, so what a header says comes first.
    let is_header = |sign: &&Sign| matches!(sign, Header(..));
    let by_header = |kind: &&Kind| kind.signs.iter().filter(is_header).any(shows);
    let by_any = |kind: &&Kind| kind.signs.iter().any(shows);
    KINDS
        .iter()
        .find(by_header)
        .or_else(|| KINDS.iter().find(by_any))
}

impl Kind {
    /// Where `path` of the format is with this kind, at `base`.
    pub fn path(&self, format: Format, base: &str, path: &str) -> Option<String> {
        let models = self.gemini_models.filter(|_| format == Format::Gemini)?;
        let rest = path.strip_prefix("/v1beta/models/")?;
        // An address that names a project has the version in it.
        let version = if base.contains("/projects/") {
            ""
        } else {
            "/v1"
        };
        Some([version, models, rest].concat())
    }
}

/// What stands before the version in an address: where a server's own routes are.
pub fn root(base: &str) -> &str {
    base.strip_suffix("/v1").unwrap_or(base)
}

/// What an upstream has told of itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    pub kind: Option<&'static Kind>,
    pub version: Option<String>,
    pub slots: Option<usize>,
    pub context: Option<u64>,
    /// Whether its model takes images.
    pub images: Option<bool>,
}

/// More slots than any server has.
const MOST_SLOTS: u64 = 4_096;

impl Facts {
    /// Takes what the server says of itself under `Kind::about`.
    pub fn read(&mut self, about: &Value) {
        let text = |name: &str| about[name].as_str().filter(|text| !text.is_empty());
        let version = text("build_info").or_else(|| text("version"));
        if let Some(version) = version {
            let sane = |c: &char| c.is_ascii_graphic();
            self.version = Some(version.chars().take_while(sane).take(40).collect());
        }
        let slots = about["total_slots"].as_u64();
        self.slots = slots
            .filter(|slots| (1..=MOST_SLOTS).contains(slots))
            .and_then(|slots| usize::try_from(slots).ok());
        let context = about["default_generation_settings"]["n_ctx"].as_u64();
        self.context = context
            .or_else(|| about["max_total_tokens"].as_u64())
            .filter(|tokens| *tokens > 0);
        self.images = about["modalities"]["vision"].as_bool();
    }
}

/// The facts of one upstream, shared by all that know it.
#[derive(Debug, Clone, Default)]
pub struct Found(Arc<RwLock<Facts>>);

impl Found {
    pub fn get(&self) -> Facts {
        self.0.read().clone()
    }

    pub fn set(&self, facts: Facts) {
        *self.0.write() = facts;
    }

    pub fn kind(&self) -> Option<&'static Kind> {
        self.0.read().kind
    }

    pub fn slots(&self) -> Option<usize> {
        self.0.read().slots
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_row_is_named_once_and_in_the_table_of_keys() {
        let names: Vec<_> = KINDS.iter().map(|kind| kind.name).collect();
        assert_eq!(names, NAMES);
        assert!(NAMES.iter().all(|name| by_name(name).is_some()));
        assert_eq!(by_name("unknown"), None);
    }

    #[test]
    fn hosts_tell_the_kind() {
        for (base, kind) in [
            ("https://openrouter.ai/api/v1", Some("openrouter")),
            ("https://team.openai.azure.com/openai/v1", Some("azure")),
            (
                "https://team.services.ai.azure.com/openai/v1",
                Some("azure"),
            ),
            ("https://aiplatform.googleapis.com", Some("vertex")),
            (
                "https://europe-west4-aiplatform.googleapis.com/v1",
                Some("vertex"),
            ),
            (
                "https://bedrock-runtime.us-west-2.amazonaws.com/openai/v1",
                Some("bedrock"),
            ),
            (
                "https://bedrock-mantle.us-east-1.api.aws/v1",
                Some("bedrock"),
            ),
            ("https://API.groq.com/openai/v1", Some("groq")),
            ("https://api.mistral.ai/v1", Some("mistral")),
            ("https://api.deepseek.com/v1", Some("deepseek")),
            ("https://api.x.ai/v1", Some("xai")),
            ("https://api.x.ai.example/v1", None),
            ("https://openai.azure.com.example/v1", None),
            ("http://127.0.0.1:8080/v1", None),
            ("", None),
        ] {
            assert_eq!(by_address(base).map(|kind| kind.name), kind, "{base}");
        }
    }

    #[test]
    fn lists_and_headers_tell_the_kind() {
        let none = |_: &str| None;
        let server =
            |value: &'static str| move |name: &str| (name == "server").then(|| value.to_owned());
        let found = |owner, header: &dyn Fn(&str) -> Option<String>| {
            by_signs(owner, header).map(|kind| kind.name)
        };
        assert_eq!(found(Some("llamacpp"), &none), Some("llama.cpp"));
        assert_eq!(found(None, &server("llama.cpp")), Some("llama.cpp"));
        assert_eq!(found(Some("vllm"), &server("uvicorn")), Some("vllm"));
        assert_eq!(
            found(Some("local"), &server("uvicorn")),
            Some("transformers")
        );
        assert_eq!(found(Some("local"), &none), None);
        assert_eq!(found(Some("library"), &none), Some("ollama"));
        assert_eq!(found(Some("sglang"), &none), Some("sglang"));
        // Its list is that of the server behind it.
        let proxy = |name: &str| (name == "x-litellm-version").then(|| "1.106.12".to_owned());
        assert_eq!(found(Some("vllm"), &proxy), Some("litellm"));
        assert_eq!(found(Some("openai"), &server("nginx")), None);
    }

    #[test]
    fn gemini_models_stand_elsewhere_on_vertex() {
        let vertex = by_name("vertex").unwrap();
        let path = "/v1beta/models/gemini-x:generateContent";
        let at = |base: &str| vertex.path(Format::Gemini, base, path);
        assert_eq!(
            at("https://aiplatform.googleapis.com").as_deref(),
            Some("/v1/publishers/google/models/gemini-x:generateContent")
        );
        assert_eq!(
            at("https://aiplatform.googleapis.com/v1/projects/p/locations/global").as_deref(),
            Some("/publishers/google/models/gemini-x:generateContent")
        );
        assert_eq!(vertex.path(Format::OpenAi, "", path), None);
        assert_eq!(UNKNOWN.path(Format::Gemini, "", path), None);
    }

    #[test]
    fn servers_tell_of_themselves() {
        let mut facts = Facts::default();
        facts.read(&json!({"total_slots": 2, "build_info": "b11434-1a2b\nx",
            "default_generation_settings": {"n_ctx": 8192}, "modalities": {"vision": false}}));
        assert_eq!(facts.version.as_deref(), Some("b11434-1a2b"));
        assert_eq!((facts.slots, facts.context), (Some(2), Some(8192)));
        assert_eq!(facts.images, Some(false));
        let mut facts = Facts::default();
        facts.read(&json!({"version": "0.32.0", "total_slots": 0}));
        assert_eq!(
            (facts.version.as_deref(), facts.slots),
            (Some("0.32.0"), None)
        );
        facts.read(&json!([]));
        facts.read(&json!({"total_slots": u64::MAX, "build_info": 5}));
        assert_eq!(facts.slots, None);
    }
}
