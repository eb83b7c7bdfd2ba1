//! Claude's models.

use super::{Row, bare, longest, row};

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
    /// `disabled` and `between_tools` are refused together with `xhigh` and `max`.
    pub off_up_to_high: bool,
    /// What it says between tool calls comes as thinking, which is empty unless it is asked for.
    pub silent_between_tools: bool,
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
    off_up_to_high: false,
    silent_between_tools: false,
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
    off_up_to_high: false,
    silent_between_tools: false,
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

const SONNET_5_5: Claude = Claude {
    thinking: AB,
    off_up_to_high: true,
    silent_between_tools: true,
    ..NEWEST
};

/// Haiku 5.5 and Opus 5.
const SWITCHABLE: Claude = Claude {
    thinking: AD,
    off_up_to_high: true,
    forced_tools: true,
    ..NEWEST
};

const OPUS_4_8: Claude = Claude {
    thinking: AD,
    thinks_unasked: false,
    forced_tools: true,
    ..NEWEST
};

const SONNET_5: Claude = Claude {
    thinks_unasked: true,
    mid_system: false,
    ..OPUS_4_8
};

const OPUS_4_7: Claude = Claude {
    mid_system: false,
    ..OPUS_4_8
};

const CLAUDE_4_6: Claude = Claude {
    thinking: AED,
    efforts: UP_TO_MAX,
    sampling: true,
    ..OPUS_4_7
};

const CLAUDE_4_5: Claude = Claude {
    structured_outputs: true,
    ..LONG_CLASSIC
};

const OPUS_4_1: Claude = Claude {
    structured_outputs: true,
    ..CLASSIC
};

/// Sonnet 4 and 3.7.
const LONG_CLASSIC: Claude = Claude {
    max_output: 64_000,
    ..CLASSIC
};

const CLAUDE_3_5: Claude = Claude {
    max_output: 8_192,
    ..CLAUDE_3
};

const CLAUDE_3: Claude = Claude {
    thinking: NO_THINKING,
    both_samplings: true,
    max_output: 4_096,
    ..CLASSIC
};

/// The vendor's pages, held against the catalogues of the AI SDK (anthropic 4.0.105) and of
/// pydantic-ai 2.68.
const MODELS: &str = "platform.claude.com: Models overview, Extended thinking, Effort";
const SONNET_NEWS: &str = "platform.claude.com: What's new in Claude Sonnet 5.5";

pub(super) const ROWS: &[Row<Claude>] = &[
    row("claude-fable-5", NEWEST, MODELS, "2026-11-30"),
    row("claude-fable-5-2", FAST, MODELS, "2026-11-30"),
    row("claude-mythos-5", NEWEST, MODELS, "2026-11-30"),
    row("claude-mythos-5-2", FAST, MODELS, "2026-11-30"),
    row("claude-mythos-preview", UNKNOWN, MODELS, "2026-11-24"),
    row("claude-opus-5-5", FAST, MODELS, "2026-11-30"),
    row("claude-sonnet-5-5", SONNET_5_5, SONNET_NEWS, "2026-11-30"),
    row("claude-haiku-5-5", SWITCHABLE, MODELS, "2026-11-30"),
    row("claude-opus-5", SWITCHABLE, MODELS, "2026-11-30"),
    row("claude-sonnet-5", SONNET_5, MODELS, "2026-11-30"),
    row("claude-opus-4-8", OPUS_4_8, MODELS, "2026-11-30"),
    row("claude-opus-4-7", OPUS_4_7, MODELS, "2026-11-30"),
    row("claude-opus-4-6", CLAUDE_4_6, MODELS, "2026-11-30"),
    row("claude-sonnet-4-6", CLAUDE_4_6, MODELS, "2026-11-30"),
    row("claude-opus-4-5", CLAUDE_4_5, MODELS, "2026-11-30"),
    row("claude-sonnet-4-5", CLAUDE_4_5, MODELS, "2026-11-30"),
    row("claude-haiku-4-5", CLAUDE_4_5, MODELS, "2026-11-30"),
    row("claude-opus-4-1", OPUS_4_1, MODELS, "2026-11-30"),
    row("claude-opus-4", CLASSIC, MODELS, "2026-11-24"),
    row("claude-sonnet-4", LONG_CLASSIC, MODELS, "2026-11-24"),
    row("claude-3-7-sonnet", LONG_CLASSIC, MODELS, "2026-11-24"),
    row("claude-3-5-", CLAUDE_3_5, MODELS, "2026-11-24"),
    row("claude-3", CLAUDE_3, MODELS, "2026-11-24"),
];

/// A Claude whose name is newer than the table: assume the newest, without system messages inside
/// the conversation, which fail loudly where they are not known.
const UNKNOWN: Claude = Claude {
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
    let known = longest(ROWS, model);
    known.unwrap_or(if model.starts_with("claude-") {
        UNKNOWN
    } else {
        FOREIGN
    })
}
