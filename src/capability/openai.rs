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
    /// It reasons where no effort is asked for.
    pub reasons_unasked: bool,
    /// `/chat/completions` takes `stop`; `/responses` never does.
    pub stop: bool,
    /// The effort `max` is taken, though by `/responses` only.
    pub max_effort: bool,
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
    reasons_unasked: false,
    stop: true,
    max_effort: false,
    responses: NeedsResponses::Never,
};

const NEVER_REASONS: OpenAi = OpenAi {
    never_reasons: true,
    ..PLAIN
};

/// Whether 5.5 and later take `stop` is told both ways, so it is sent.
const REASONING: OpenAi = OpenAi {
    reasoning: true,
    reasons_unasked: true,
    ..PLAIN
};

const WITHOUT_STOP: OpenAi = OpenAi {
    stop: false,
    ..REASONING
};

/// 5.1 to 5.4, which do not reason until they are told to.
const ON_DEMAND: OpenAi = OpenAi {
    samples_without_effort: true,
    reasons_unasked: false,
    ..WITHOUT_STOP
};

const GPT_5_4: OpenAi = OpenAi {
    responses: NeedsResponses::ToolsWithEffort,
    ..ON_DEMAND
};

const GPT_5_5: OpenAi = OpenAi {
    samples_without_effort: true,
    responses: NeedsResponses::ToolsUnlessNone,
    ..REASONING
};

const NEWEST: OpenAi = OpenAi {
    max_effort: true,
    ..GPT_5_5
};

const BY_RESPONSES: OpenAi = OpenAi {
    responses: NeedsResponses::Always,
    ..REASONING
};

const MODELS: &str = "platform.openai.com: Models, Reasoning models";
const STOP: &str =
    "platform.openai.com: Models; `stop`: docstring of openai 3.57.0, litellm 1.110.2";
const EFFORTS: &str =
    "platform.openai.com: Reasoning models; efforts: pydantic-ai 2.68, litellm 1.110.2";
const CHATS: &str = "platform.openai.com: Models; profiles of pydantic-ai 2.68, litellm 1.110.2";

pub(super) const ROWS: &[Row<OpenAi>] = &[
    row("gpt-6", NEWEST, EFFORTS, "2026-11-30"),
    row("gpt-5.", NEWEST, EFFORTS, "2026-11-30"),
    row("gpt-5.5", GPT_5_5, EFFORTS, "2026-11-30"),
    row("gpt-5.4", GPT_5_4, EFFORTS, "2026-11-30"),
    row("gpt-5.3", ON_DEMAND, EFFORTS, "2026-11-30"),
    row("gpt-5.3-chat", WITHOUT_STOP, CHATS, "2026-11-30"),
    row("gpt-5.2", ON_DEMAND, EFFORTS, "2026-11-30"),
    row("gpt-5.2-chat", WITHOUT_STOP, CHATS, "2026-11-30"),
    row("gpt-5.1", ON_DEMAND, EFFORTS, "2026-11-30"),
    row("gpt-5.1-chat", WITHOUT_STOP, CHATS, "2026-11-30"),
    row("gpt-5.0", WITHOUT_STOP, STOP, "2026-11-30"),
    row("gpt-5", WITHOUT_STOP, STOP, "2026-11-30"),
    row("gpt-5-chat", NEVER_REASONS, MODELS, "2026-11-24"),
    row("gpt-4", NEVER_REASONS, MODELS, "2026-11-30"),
    row("gpt-3.5", NEVER_REASONS, MODELS, "2026-11-30"),
    row("gpt-audio", PLAIN, MODELS, "2026-11-30"),
    row("chatgpt-", NEVER_REASONS, MODELS, "2026-11-24"),
    row("chat-latest", REASONING, CHATS, "2026-11-30"),
    row("daybreak-", REASONING, CHATS, "2026-11-30"),
    row("gpt-daybreak-", BY_RESPONSES, CHATS, "2026-11-30"),
    row("gpt-rosalind-", REASONING, CHATS, "2026-11-30"),
    row("codex-", REASONING, MODELS, "2026-11-24"),
    row("computer-use-", PLAIN, MODELS, "2026-11-24"),
    row("o1", REASONING, MODELS, "2026-11-30"),
    row("o3", WITHOUT_STOP, STOP, "2026-11-30"),
    row("o4-mini", WITHOUT_STOP, STOP, "2026-11-30"),
];

/// Names of these kinds are not served by `/chat/completions`, whatever their family.
const RESPONSES_ONLY: &[&str] = &["codex", "pro", "deep-research"];

/// What the OpenAI `model` is.
pub fn openai(model: &str) -> OpenAi {
    let model = model.strip_prefix("openai/").unwrap_or(model);
    let row = longest(ROWS, model).unwrap_or(PLAIN);
    match is_responses_only(model) {
        // These reason at whatever effort their names stand for.
        true => OpenAi {
            reasons_unasked: row.reasoning,
            responses: NeedsResponses::Always,
            ..row
        },
        false => row,
    }
}

impl OpenAi {
    /// Whether a request of this effort takes sampling fields.
    pub fn samples(&self, effort: Option<&str>) -> bool {
        let is_off = match effort {
            Some(effort) => effort == "none",
            None => !self.reasons_unasked,
        };
        !self.reasoning || self.samples_without_effort && is_off
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
    let row = openai(model);
    if row.max_effort && effort == Some("max") {
        return true;
    }
    match row.responses {
        NeedsResponses::Never => false,
        NeedsResponses::ToolsWithEffort => {
            has_function_tools && effort.is_some_and(|effort| effort != "none")
        }
        NeedsResponses::ToolsUnlessNone => has_function_tools && effort != Some("none"),
        NeedsResponses::Always => true,
    }
}
