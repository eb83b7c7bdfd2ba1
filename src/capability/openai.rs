//! OpenAI's models, over either of its two APIs.

use super::{Row, longest, row};

/// What weir must know of an OpenAI model. The relay leaves the rest to the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenAi {
    /// `max_tokens` is refused (only `max_completion_tokens` is known), and so are sampling fields.
    pub reasoning: bool,
    /// One of the vendor's that never do. A name that no row knows may be anybody's.
    pub never_reasons: bool,
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
    never_reasons: false,
    samples_without_effort: false,
    responses: NeedsResponses::Never,
};

const NEVER_REASONS: OpenAi = OpenAi {
    never_reasons: true,
    ..PLAIN
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

pub const ROWS: &[Row<OpenAi>] = &[
    row("gpt-6", TOOLS_UNLESS_NONE),
    row("gpt-5.", TOOLS_UNLESS_NONE),
    row("gpt-5.5", TOOLS_WITH_EFFORT),
    row("gpt-5.4", TOOLS_WITH_EFFORT),
    row("gpt-5.3", SWITCHABLE),
    row("gpt-5.2", SWITCHABLE),
    row("gpt-5.1", SWITCHABLE),
    row("gpt-5.0", REASONING),
    row("gpt-5", REASONING),
    row("gpt-5-chat", NEVER_REASONS),
    row("gpt-4", NEVER_REASONS),
    row("gpt-3.5", NEVER_REASONS),
    row("chatgpt-", NEVER_REASONS),
    row("o1", REASONING),
    row("o3", REASONING),
    row("o4-mini", REASONING),
];

/// Names of these kinds are not served by `/chat/completions`, whatever their family.
const RESPONSES_ONLY: &[&str] = &["codex", "pro", "deep-research"];

/// What the OpenAI `model` is.
pub fn openai(model: &str) -> OpenAi {
    let model = model.strip_prefix("openai/").unwrap_or(model);
    let row = longest(ROWS, model).unwrap_or(PLAIN);
    OpenAi {
        responses: match is_responses_only(model) {
            true => NeedsResponses::Always,
            false => row.responses,
        },
        ..row
    }
}

/// One of the vendor's models that never reason, by its name: asked to seal its reasoning, it
/// refuses the request. Other names may be anybody's.
pub fn never_reasons(model: &str) -> bool {
    openai(model).never_reasons
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
