//! What each model can do, as one table per vendor: the static fallback of translation section 2.
//!
//! Matched by the longest prefix, newest knowledge first. A model that no row knows gets the safe
//! row of its vendor. Pure data and look-ups.

/// How Claude may be told to think.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Thinking {
    /// `{"type":"adaptive"}`.
    pub adaptive: bool,
    /// `{"type":"enabled","budget_tokens":n}`.
    pub budget: bool,
    /// `{"type":"disabled"}`.
    pub disabled: bool,
    /// `{"type":"between_tools"}`.
    pub between_tools: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claude {
    pub thinking: Thinking,
    /// Accepted `output_config.effort` values, weakest first; empty where effort is not sent.
    pub efforts: &'static [&'static str],
    /// Thinks when `thinking` is left out.
    pub thinks_unasked: bool,
    /// `disabled` is refused together with `xhigh` and `max`.
    pub disabled_up_to_high: bool,
    /// temperature, top_p and top_k, under version 2023-06-01.
    pub sampling: bool,
    /// temperature and top_p may be sent together.
    pub both_samplings: bool,
    /// A trailing assistant message is continued.
    pub prefill: bool,
    /// tool_choice `any` and `tool`.
    pub forced_tools: bool,
    /// `role:"system"` inside messages.
    pub mid_system: bool,
    /// `output_config.format` and strict tools.
    pub structured_outputs: bool,
    pub web_search: bool,
    /// `speed:"fast"`, without a beta header.
    pub fast: bool,
    pub max_output: u64,
}

const UP_TO_XHIGH: &[&str] = &["low", "medium", "high", "xhigh", "max"];
const UP_TO_MAX: &[&str] = &["low", "medium", "high", "max"];

const A: Thinking = Thinking {
    adaptive: true,
    budget: false,
    disabled: false,
    between_tools: false,
};
const AB: Thinking = Thinking {
    between_tools: true,
    ..A
};
const AD: Thinking = Thinking {
    disabled: true,
    ..A
};
const AED: Thinking = Thinking { budget: true, ..AD };
const ED: Thinking = Thinking {
    adaptive: false,
    budget: true,
    disabled: true,
    between_tools: false,
};
const NO_THINKING: Thinking = Thinking {
    adaptive: false,
    budget: false,
    disabled: false,
    between_tools: false,
};

/// The row that the newest models share; others say how they differ.
const NEWEST: Claude = Claude {
    thinking: A,
    efforts: UP_TO_XHIGH,
    thinks_unasked: true,
    disabled_up_to_high: false,
    sampling: false,
    both_samplings: false,
    prefill: false,
    forced_tools: false,
    mid_system: true,
    structured_outputs: true,
    web_search: true,
    fast: false,
    max_output: 128_000,
};

/// Up to 4.5: budgets, sampling, prefill.
const CLASSIC: Claude = Claude {
    thinking: ED,
    efforts: &[],
    thinks_unasked: false,
    disabled_up_to_high: false,
    sampling: true,
    both_samplings: false,
    prefill: true,
    forced_tools: true,
    mid_system: false,
    structured_outputs: false,
    web_search: true,
    fast: false,
    max_output: 32_000,
};

/// Opus 5 and 4.8 are this fast only for those who send a beta header.
const FAST: Claude = Claude {
    fast: true,
    ..NEWEST
};

const CLAUDE: &[(&str, Claude)] = &[
    ("claude-fable-5", NEWEST),
    ("claude-fable-5-2", FAST),
    ("claude-mythos-5", NEWEST),
    ("claude-mythos-5-2", FAST),
    (
        "claude-mythos-preview",
        Claude {
            mid_system: false,
            ..NEWEST
        },
    ),
    ("claude-opus-5-5", FAST),
    (
        "claude-sonnet-5-5",
        Claude {
            thinking: AB,
            ..NEWEST
        },
    ),
    (
        "claude-haiku-5-5",
        Claude {
            thinking: AD,
            disabled_up_to_high: true,
            forced_tools: true,
            ..NEWEST
        },
    ),
    (
        "claude-opus-5",
        Claude {
            thinking: AD,
            disabled_up_to_high: true,
            forced_tools: true,
            ..NEWEST
        },
    ),
    (
        "claude-sonnet-5",
        Claude {
            thinking: AD,
            forced_tools: true,
            mid_system: false,
            ..NEWEST
        },
    ),
    (
        "claude-opus-4-8",
        Claude {
            thinking: AD,
            thinks_unasked: false,
            forced_tools: true,
            ..NEWEST
        },
    ),
    (
        "claude-opus-4-7",
        Claude {
            thinking: AD,
            thinks_unasked: false,
            forced_tools: true,
            mid_system: false,
            ..NEWEST
        },
    ),
    ("claude-opus-4-6", CLAUDE_4_6),
    ("claude-sonnet-4-6", CLAUDE_4_6),
    (
        "claude-opus-4-5",
        Claude {
            structured_outputs: true,
            max_output: 64_000,
            ..CLASSIC
        },
    ),
    (
        "claude-sonnet-4-5",
        Claude {
            structured_outputs: true,
            max_output: 64_000,
            ..CLASSIC
        },
    ),
    (
        "claude-haiku-4-5",
        Claude {
            structured_outputs: true,
            max_output: 64_000,
            ..CLASSIC
        },
    ),
    (
        "claude-opus-4-1",
        Claude {
            structured_outputs: true,
            ..CLASSIC
        },
    ),
    ("claude-opus-4", CLASSIC),
    (
        "claude-sonnet-4",
        Claude {
            max_output: 64_000,
            ..CLASSIC
        },
    ),
    (
        "claude-3-7-sonnet",
        Claude {
            max_output: 64_000,
            ..CLASSIC
        },
    ),
    (
        "claude-3-5-",
        Claude {
            thinking: NO_THINKING,
            both_samplings: true,
            max_output: 8_192,
            ..CLASSIC
        },
    ),
    (
        "claude-3",
        Claude {
            thinking: NO_THINKING,
            both_samplings: true,
            max_output: 4_096,
            ..CLASSIC
        },
    ),
];

const CLAUDE_4_6: Claude = Claude {
    thinking: AED,
    thinks_unasked: false,
    efforts: UP_TO_MAX,
    sampling: true,
    forced_tools: true,
    mid_system: false,
    ..NEWEST
};

/// A Claude whose name is newer than the table: assume the newest, without system messages inside
/// the conversation, which fail loudly where they are not known.
const UNKNOWN_CLAUDE: Claude = Claude {
    mid_system: false,
    ..NEWEST
};

/// Something else behind Anthropic's format.
const FOREIGN: Claude = Claude {
    thinking: NO_THINKING,
    both_samplings: true,
    structured_outputs: false,
    web_search: false,
    max_output: 8_192,
    ..CLASSIC
};

/// What the Claude `model` can do.
pub fn claude(model: &str) -> Claude {
    let model = bare(model);
    let known = longest(CLAUDE, model);
    known.unwrap_or(if model.starts_with("claude-") {
        UNKNOWN_CLAUDE
    } else {
        FOREIGN
    })
}

/// How a Gemini model is told to think.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GeminiThinking {
    None,
    /// `thinkingBudget`, from `min` to `max`; `off` says whether 0 is allowed.
    Budget {
        min: u64,
        max: u64,
        off: bool,
    },
    /// `thinkingLevel`, one of these, weakest first.
    Level(&'static [&'static str]),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gemini {
    pub thinking: GeminiThinking,
    /// temperature, topP and topK are honoured.
    pub sampling: bool,
    /// frequencyPenalty and presencePenalty are accepted.
    pub penalties: bool,
    /// Generation 3 and later: calls carry `id`, signatures are required, `mediaResolution` per
    /// part, images inside function responses, structured output beside tools.
    pub third: bool,
    /// Generation 2.5 and later: fetches images by URL, knows tool mode `VALIDATED`.
    pub since_2_5: bool,
    /// Knows only the old, upper-case `Schema` type.
    pub old_schema: bool,
    /// Answers can hold images.
    pub image_output: bool,
    /// Answers can be speech.
    pub audio_output: bool,
}

const LEVELS_MINIMAL: &[&str] = &["minimal", "low", "medium", "high"];
const LEVELS: &[&str] = &["low", "medium", "high"];

const GEMINI_2: Gemini = Gemini {
    thinking: GeminiThinking::None,
    sampling: true,
    penalties: true,
    third: false,
    since_2_5: false,
    old_schema: false,
    image_output: false,
    audio_output: false,
};

const GEMINI_2_5: Gemini = Gemini {
    since_2_5: true,
    ..GEMINI_2
};

const GEMINI_3: Gemini = Gemini {
    thinking: GeminiThinking::Level(LEVELS),
    sampling: false,
    penalties: false,
    third: true,
    ..GEMINI_2_5
};

const FLASH_3: Gemini = Gemini {
    thinking: GeminiThinking::Level(LEVELS_MINIMAL),
    sampling: true,
    ..GEMINI_3
};

const GEMINI: &[(&str, Gemini)] = &[
    (
        "gemini-2.5-pro",
        Gemini {
            thinking: GeminiThinking::Budget {
                min: 128,
                max: 32_768,
                off: false,
            },
            ..GEMINI_2_5
        },
    ),
    (
        "gemini-2.5-flash",
        Gemini {
            thinking: GeminiThinking::Budget {
                min: 0,
                max: 24_576,
                off: true,
            },
            ..GEMINI_2_5
        },
    ),
    (
        "gemini-2.5-flash-lite",
        Gemini {
            thinking: GeminiThinking::Budget {
                min: 512,
                max: 24_576,
                off: true,
            },
            ..GEMINI_2_5
        },
    ),
    ("gemini-2.5-flash-image", GEMINI_2_5),
    ("gemini-2.5", GEMINI_2_5),
    ("gemini-2", GEMINI_2),
    (
        "gemini-1",
        Gemini {
            old_schema: true,
            ..GEMINI_2
        },
    ),
    ("gemini-3-flash", FLASH_3),
    ("gemini-3.1-flash-lite", FLASH_3),
    ("gemini-3.5-flash", FLASH_3),
    (
        "gemini-3.5-flash-lite",
        Gemini {
            sampling: false,
            ..FLASH_3
        },
    ),
    (
        "gemini-3.6-flash",
        Gemini {
            sampling: false,
            ..FLASH_3
        },
    ),
    (
        "gemini-3-pro-preview",
        Gemini {
            thinking: GeminiThinking::Level(&["low", "high"]),
            sampling: true,
            ..GEMINI_3
        },
    ),
    (
        "gemini-3-pro-image",
        Gemini {
            thinking: GeminiThinking::Level(&["low", "high"]),
            sampling: true,
            ..GEMINI_3
        },
    ),
    (
        "gemini-3.1-pro-preview",
        Gemini {
            sampling: true,
            ..GEMINI_3
        },
    ),
    (
        "gemini-pro-latest",
        Gemini {
            sampling: true,
            ..GEMINI_3
        },
    ),
    ("gemini-flash-latest", GEMINI_3),
    ("gemini-", GEMINI_3),
    (
        "gemma-",
        Gemini {
            penalties: false,
            old_schema: true,
            ..GEMINI_2
        },
    ),
    ("learnlm-", GEMINI_2),
];

/// What the Gemini `model` can do, with or without its `models/` prefix.
pub fn gemini(model: &str) -> Gemini {
    let model = bare(model);
    let model = model.strip_prefix("models/").unwrap_or(model);
    let known = longest(GEMINI, model).unwrap_or(GEMINI_2);
    // The vendor names every model by what it puts out.
    Gemini {
        image_output: model.contains("-image"),
        audio_output: model.contains("-tts") || model.contains("native-audio"),
        ..known
    }
}

/// What weir must know of an OpenAI model. The relay leaves the rest to the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenAi {
    /// `max_tokens` is refused (only `max_completion_tokens` is known), and so are sampling fields.
    pub reasoning: bool,
    /// `reasoning_effort:"none"` makes a plain model of it, which takes sampling fields.
    pub samples_without_effort: bool,
    /// What `/chat/completions` refuses of it.
    pub responses: NeedsResponses,
}

/// When an OpenAI model is served by `/responses` only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NeedsResponses {
    Never,
    /// Function tools beside an effort that is set and is not `none`.
    ToolsWithEffort,
    /// Function tools, unless the effort is `none`: its default counts too.
    ToolsUnlessNone,
    Always,
}

const PLAIN: OpenAi = OpenAi {
    reasoning: false,
    samples_without_effort: false,
    responses: NeedsResponses::Never,
};

const REASONING: OpenAi = OpenAi {
    reasoning: true,
    ..PLAIN
};

/// From 5.1 on.
const SWITCHABLE: OpenAi = OpenAi {
    samples_without_effort: true,
    ..REASONING
};

const TOOLS_WITH_EFFORT: OpenAi = OpenAi {
    responses: NeedsResponses::ToolsWithEffort,
    ..SWITCHABLE
};

const TOOLS_UNLESS_NONE: OpenAi = OpenAi {
    responses: NeedsResponses::ToolsUnlessNone,
    ..SWITCHABLE
};

const OPENAI: &[(&str, OpenAi)] = &[
    ("o1", REASONING),
    ("o3", REASONING),
    ("o4-mini", REASONING),
    ("gpt-5", REASONING),
    ("gpt-5-chat", PLAIN),
    ("gpt-5.", TOOLS_UNLESS_NONE),
    ("gpt-5.0", REASONING),
    ("gpt-5.1", SWITCHABLE),
    ("gpt-5.2", SWITCHABLE),
    ("gpt-5.3", SWITCHABLE),
    ("gpt-5.4", TOOLS_WITH_EFFORT),
    ("gpt-5.5", TOOLS_WITH_EFFORT),
    ("gpt-6", TOOLS_UNLESS_NONE),
];

/// Names of these kinds are not served by `/chat/completions`, whatever their family.
const RESPONSES_ONLY: &[&str] = &["codex", "pro", "deep-research"];

/// Families of which no OpenAI model reasons. Other names may be anybody's.
const PLAIN_FAMILIES: &[&str] = &["gpt-3.5", "gpt-4", "chatgpt-", "gpt-5-chat"];

/// What the OpenAI `model` is.
pub fn openai(model: &str) -> OpenAi {
    let model = model.strip_prefix("openai/").unwrap_or(model);
    let row = longest(OPENAI, model).unwrap_or(PLAIN);
    OpenAi {
        responses: match is_responses_only(model) {
            true => NeedsResponses::Always,
            false => row.responses,
        },
        ..row
    }
}

/// One of the vendor's models that never reason, by its name: asked to seal its reasoning, it
/// refuses the request.
pub fn never_reasons(model: &str) -> bool {
    let model = model.strip_prefix("openai/").unwrap_or(model);
    PLAIN_FAMILIES
        .iter()
        .any(|prefix| model.starts_with(prefix))
}

/// The word stands in the name as a part of its own, perhaps with a date or a size behind it:
/// `o3-pro-2025-06-10`, `gpt-5.1-codex-mini`. Other vendors' names use the same words.
fn is_responses_only(model: &str) -> bool {
    let ours = ["gpt-", "o1", "o3", "o4", "codex-", "computer-use-"];
    let mut parts = RESPONSES_ONLY.iter();
    ours.iter().any(|prefix| model.starts_with(prefix))
        && parts.any(|word| {
            let mut found = model.match_indices(word);
            found.any(|(at, _)| {
                let starts = at == 0 || model[..at].ends_with('-');
                let rest = &model[at + word.len()..];
                starts && (rest.is_empty() || rest.starts_with('-'))
            })
        })
}

/// Whether the name alone leaves it open that the model is served by `/responses` only.
pub fn may_need_responses(model: &str) -> bool {
    openai(model).responses != NeedsResponses::Never
}

/// Whether a request to `/chat/completions` of the vendor would be refused in favour of
/// `/responses`.
pub fn needs_responses(model: &str, has_function_tools: bool, effort: Option<&str>) -> bool {
    match openai(model).responses {
        NeedsResponses::Never => false,
        NeedsResponses::ToolsWithEffort => {
            has_function_tools && effort.is_some_and(|effort| effort != "none")
        }
        NeedsResponses::ToolsUnlessNone => has_function_tools && effort != Some("none"),
        NeedsResponses::Always => true,
    }
}

/// A model id without `anthropic/`-like prefixes, which aggregators keep.
fn bare(model: &str) -> &str {
    for prefix in ["anthropic/", "google/"] {
        if let Some(rest) = model.strip_prefix(prefix) {
            return rest;
        }
    }
    model
}

fn longest<T: Copy>(table: &[(&str, T)], model: &str) -> Option<T> {
    table
        .iter()
        .filter(|(prefix, _)| model.starts_with(prefix))
        .max_by_key(|(prefix, _)| prefix.len())
        .map(|(_, row)| *row)
}

#[cfg(test)]
mod tests;
