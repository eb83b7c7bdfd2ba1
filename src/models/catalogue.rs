//! The models that are known without asking anyone, with what their vendors publish about them.

use serde::Serialize;

pub struct Known {
    pub id: &'static str,
    pub owned_by: &'static str,
    /// The day of its release, in Unix seconds.
    pub created: u64,
    pub facts: Facts,
}

/// Beside OpenAI's four fields. Names are those that callers know from the vendors' own lists.
#[derive(Serialize)]
pub struct Facts {
    pub name: &'static str,
    pub version: &'static str,
    pub description: &'static str,
    pub context_length: u64,
    pub max_completion_tokens: u64,
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
    "presence_penalty",
    "frequency_penalty",
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
            context_length: 1_048_576,
            max_completion_tokens: 65_536,
            supported_parameters: GEMINI,
            temperature: Some(1.0),
            top_p: Some(0.95),
            top_k: Some(64),
            max_temperature: Some(2.0),
            thinking: true,
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
            context_length: 1_048_576,
            max_completion_tokens: 65_536,
            supported_parameters: GEMINI,
            temperature: Some(1.0),
            top_p: Some(0.95),
            top_k: Some(64),
            max_temperature: Some(2.0),
            thinking: true,
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
            context_length: 400_000,
            max_completion_tokens: 128_000,
            supported_parameters: GPT_5,
            // Sampling is fixed: the API refuses other values than these.
            temperature: Some(1.0),
            top_p: Some(1.0),
            top_k: None,
            max_temperature: Some(1.0),
            thinking: true,
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
            context_length: 200_000,
            max_completion_tokens: 32_000,
            supported_parameters: CLAUDE,
            temperature: Some(1.0),
            top_p: None,
            top_k: None,
            max_temperature: Some(1.0),
            thinking: true,
        },
    },
];
