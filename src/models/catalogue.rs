//! The models that are known without asking anyone, with what their vendors publish about them.

use serde::Serialize;

pub struct Known {
    pub id: &'static str,
    pub owned_by: &'static str,
    /// The day of its release, in Unix seconds; 0 where it is not known.
    pub created: u64,
    pub facts: Facts,
}

/// The end of a model, as its vendor has told it.
#[derive(Clone, Copy, Serialize)]
pub struct Deprecation {
    /// `2026-12-11`: from this day on the name is not served, or by another model.
    pub date: &'static str,
    /// What the vendor names in its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub successor: Option<&'static str>,
    pub source: &'static str,
    /// The vendor serves the name by the successor.
    #[serde(skip)]
    pub is_redirected: bool,
}

/// Beside OpenAI's four fields. Names are those that callers know from the vendors' own lists.
#[derive(Clone, Copy, Serialize)]
pub struct Facts {
    pub name: &'static str,
    pub version: &'static str,
    pub description: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_length: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_completion_tokens: Option<u64>,
    pub supported_parameters: &'static [&'static str],
    /// The sampling defaults; left out where the model has none to set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    #[serde(rename = "topP", skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    #[serde(rename = "topK", skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u32>,
    #[serde(rename = "maxTemperature", skip_serializing_if = "Option::is_none")]
    pub max_temperature: Option<f64>,
    pub thinking: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deprecation: Option<Deprecation>,
}

const GEMINI: &[&str] = &[
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "top_k",
    "n",
    "stop",
    "seed",
    "logprobs",
    "top_logprobs",
    "tools",
    "tool_choice",
    "response_format",
    "reasoning_effort",
    "stream",
    "stream_options",
];

const GPT_5: &[&str] = &[
    "max_completion_tokens",
    "n",
    "seed",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "response_format",
    "reasoning_effort",
    "verbosity",
    "service_tier",
    "stream",
    "stream_options",
];

/// From generation 3.5 on, where sampling is the model's own affair.
const GEMINI_3: &[&str] = &[
    "max_tokens",
    "max_completion_tokens",
    "n",
    "stop",
    "seed",
    "logprobs",
    "top_logprobs",
    "tools",
    "tool_choice",
    "response_format",
    "reasoning_effort",
    "stream",
    "stream_options",
];

const CLAUDE_5: &[&str] = &[
    "max_tokens",
    "max_completion_tokens",
    "stop",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "response_format",
    "reasoning_effort",
    "stream",
    "stream_options",
];

/// What the models of today share; a default of sampling is told only where one can set it.
const CURRENT: Facts = Facts {
    name: "",
    version: "",
    description: "",
    context_length: None,
    max_completion_tokens: None,
    supported_parameters: &[],
    temperature: None,
    top_p: None,
    top_k: None,
    max_temperature: None,
    thinking: true,
    deprecation: None,
};

const GEMINI_OF_TODAY: Facts = Facts {
    context_length: Some(1_048_576),
    max_completion_tokens: Some(65_536),
    supported_parameters: GEMINI_3,
    ..CURRENT
};

/// How much the newest take in is told in several ways, so it is left out.
const GPT_OF_TODAY: Facts = Facts {
    max_completion_tokens: Some(128_000),
    supported_parameters: GPT_5,
    ..CURRENT
};

const CLAUDE_OF_TODAY: Facts = Facts {
    context_length: Some(1_000_000),
    max_completion_tokens: Some(128_000),
    supported_parameters: CLAUDE_5,
    ..CURRENT
};

const fn current(id: &'static str, owned_by: &'static str, facts: Facts) -> Known {
    Known {
        id,
        owned_by,
        created: 0,
        facts,
    }
}

const CLAUDE: &[&str] = &[
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "top_k",
    "stop",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "response_format",
    "reasoning_effort",
    "stream",
    "stream_options",
];

pub static CATALOGUE: &[Known] = &[
    Known {
        id: "gemini-2.5-pro",
        owned_by: "google",
        created: 1_750_118_400, // 2025-06-17
        facts: Facts {
            name: "Gemini 2.5 Pro",
            version: "2.5",
            description: "Google's thinking model for hard problems in code, mathematics and long documents",
            context_length: Some(1_048_576),
            max_completion_tokens: Some(65_536),
            supported_parameters: GEMINI,
            temperature: Some(1.0),
            top_p: Some(0.95),
            top_k: Some(64),
            max_temperature: Some(2.0),
            thinking: true,
            deprecation: Some(Deprecation {
                date: "2026-12-01",
                successor: Some("gemini-3.8-flash"),
                source: "https://ai.google.dev/gemini-api/docs/deprecations",
                is_redirected: true,
            }),
        },
    },
    Known {
        id: "gemini-2.5-flash",
        owned_by: "google",
        created: 1_750_118_400, // 2025-06-17
        facts: Facts {
            name: "Gemini 2.5 Flash",
            version: "2.5",
            description: "Google's quick and cheap thinking model for many requests at once",
            context_length: Some(1_048_576),
            max_completion_tokens: Some(65_536),
            supported_parameters: GEMINI,
            temperature: Some(1.0),
            top_p: Some(0.95),
            top_k: Some(64),
            max_temperature: Some(2.0),
            thinking: true,
            deprecation: Some(Deprecation {
                date: "2026-12-01",
                successor: Some("gemini-3.5-flash-lite"),
                source: "https://ai.google.dev/gemini-api/docs/deprecations",
                is_redirected: true,
            }),
        },
    },
    Known {
        id: "gpt-5",
        owned_by: "openai",
        created: 1_754_524_800, // 2025-08-07
        facts: Facts {
            name: "GPT-5",
            version: "2025-08-07",
            description: "OpenAI's reasoning model for code and tasks with many steps",
            context_length: Some(400_000),
            max_completion_tokens: Some(128_000),
            supported_parameters: GPT_5,
            // Sampling is fixed: the API refuses other values than these.
            temperature: Some(1.0),
            top_p: Some(1.0),
            top_k: None,
            max_temperature: Some(1.0),
            thinking: true,
            deprecation: Some(Deprecation {
                date: "2026-12-11",
                successor: Some("gpt-5.6-sol"),
                source: "https://developers.openai.com/api/docs/deprecations",
                is_redirected: false,
            }),
        },
    },
    Known {
        id: "claude-opus-4-1-20250805",
        owned_by: "anthropic",
        created: 1_754_352_000, // 2025-08-05
        facts: Facts {
            name: "Claude Opus 4.1",
            version: "20250805",
            description: "Anthropic's large model for agents, code and careful writing",
            context_length: Some(200_000),
            max_completion_tokens: Some(32_000),
            supported_parameters: CLAUDE,
            temperature: Some(1.0),
            top_p: None,
            top_k: None,
            max_temperature: Some(1.0),
            thinking: true,
            deprecation: Some(Deprecation {
                date: "2026-08-05",
                successor: None,
                source: "model list of the Python package anthropic 2.14.0",
                is_redirected: false,
            }),
        },
    },
    // Checked on 2026-11-30 against litellm 1.110.2 and pi-ai 1.6.0.
    current(
        "gemini-3.8-flash",
        "google",
        Facts {
            name: "Gemini 3.8 Flash",
            version: "3.8",
            description: "Google's quick thinking model for agents, code and long documents",
            ..GEMINI_OF_TODAY
        },
    ),
    current(
        "gemini-3.5-flash-lite",
        "google",
        Facts {
            name: "Gemini 3.5 Flash-Lite",
            version: "3.5",
            description: "Google's cheapest thinking model for many requests at once",
            ..GEMINI_OF_TODAY
        },
    ),
    current(
        "gpt-6.2-sol",
        "openai",
        Facts {
            name: "GPT-6.2 Sol",
            version: "6.2",
            description: "OpenAI's reasoning model for code and tasks with many steps",
            ..GPT_OF_TODAY
        },
    ),
    current(
        "gpt-6.2-astra",
        "openai",
        Facts {
            name: "GPT-6.2 Astra",
            version: "6.2",
            description: "OpenAI's largest reasoning model",
            ..GPT_OF_TODAY
        },
    ),
    current(
        "claude-opus-5-5",
        "anthropic",
        Facts {
            name: "Claude Opus 5.5",
            version: "5.5",
            description: "Anthropic's large model for agents, code and careful writing",
            ..CLAUDE_OF_TODAY
        },
    ),
    current(
        "claude-sonnet-5-5",
        "anthropic",
        Facts {
            name: "Claude Sonnet 5.5",
            version: "5.5",
            description: "Anthropic's model between speed and depth",
            ..CLAUDE_OF_TODAY
        },
    ),
    current(
        "claude-haiku-5-5",
        "anthropic",
        Facts {
            name: "Claude Haiku 5.5",
            version: "5.5",
            description: "Anthropic's quick and cheap model",
            ..CLAUDE_OF_TODAY
        },
    ),
];
