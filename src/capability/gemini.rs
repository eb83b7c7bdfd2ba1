//! Google's models.

use super::{Row, bare, longest, row};

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
    /// The level `minimal` means that it does not think at all.
    pub minimal_is_off: bool,
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
const LEVELS_XHIGH: &[&str] = &["low", "medium", "high", "xhigh"];
const LEVELS: &[&str] = &["low", "medium", "high"];

const GEMINI_2: Gemini = Gemini {
    thinking: GeminiThinking::None,
    minimal_is_off: false,
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
    penalties: false,
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

/// Hydrogen and Neon; Argon and Carbon end at `high`.
const GEMINI_4_XHIGH: Gemini = Gemini {
    thinking: GeminiThinking::Level(LEVELS_XHIGH),
    ..GEMINI_3
};

/// The newest Flash models, which ignore sampling.
const FLASH_3_6: Gemini = Gemini {
    sampling: false,
    ..FLASH_3
};

const PRO_3: Gemini = Gemini {
    thinking: GeminiThinking::Level(&["low", "high"]),
    ..PRO_3_1
};

const PRO_3_1: Gemini = Gemini {
    sampling: true,
    ..GEMINI_3
};

const PRO_2_5: Gemini = Gemini {
    thinking: GeminiThinking::Budget {
        min: 128,
        max: 32_768,
        off: false,
    },
    ..GEMINI_2_5
};

const FLASH_2_5: Gemini = Gemini {
    thinking: GeminiThinking::Budget {
        min: 0,
        max: 24_576,
        off: true,
    },
    ..GEMINI_2_5
};

const FLASH_LITE_2_5: Gemini = Gemini {
    thinking: GeminiThinking::Budget {
        min: 512,
        max: 24_576,
        off: true,
    },
    ..GEMINI_2_5
};

const GEMINI_1: Gemini = Gemini {
    old_schema: true,
    ..GEMINI_2
};

const GEMMA: Gemini = Gemini {
    penalties: false,
    ..GEMINI_1
};

const GEMMA_4: Gemini = Gemini {
    thinking: GeminiThinking::Level(&["minimal", "high"]),
    minimal_is_off: true,
    ..GEMMA
};

/// Makes videos beside texts.
const OMNI: Gemini = Gemini {
    thinking: GeminiThinking::None,
    ..GEMINI_3
};

const THINKING: &str = "ai.google.dev: Gemini thinking, Gemini 3 developer guide";
const HYDROGEN: &str = "docs.cloud.google.com: developer guide of Gemini 4 Hydrogen; ThinkingLevel of google-genai 3.6.1";
const MODELS: &str = "ai.google.dev: Gemini models; model list of google-genai 3.6.1";
const PENALTIES: &str =
    "ai.google.dev: Gemini thinking; penalties: catalogue of the AI SDK (google 4.0.121)";
const OMNI_PAGE: &str =
    "docs.cloud.google.com: Gemini Omni Flash, which makes videos; no levels of thinking";
const GEMMA_PAGE: &str = "ai.google.dev: Run Gemma with the Gemini API";

pub(super) const ROWS: &[Row<Gemini>] = &[
    row("gemini-3", GEMINI_3, THINKING, "2026-11-30"),
    row("gemini-robotics-er", GEMINI_3, MODELS, "2026-11-30"),
    row("gemini-omni", OMNI, OMNI_PAGE, "2026-12-01"),
    row("gemini-nano-banana", GEMINI_3, MODELS, "2026-11-30"),
    row("nano-banana-pro", PRO_3, MODELS, "2026-11-30"),
    row("gemini-4", GEMINI_3, THINKING, "2026-11-30"),
    row("gemini-4-hydrogen", GEMINI_4_XHIGH, HYDROGEN, "2026-11-30"),
    row("gemini-4-neon", GEMINI_4_XHIGH, HYDROGEN, "2026-11-30"),
    row("gemini-pro-latest", PRO_3_1, THINKING, "2026-11-24"),
    row("gemini-flash-latest", GEMINI_3, THINKING, "2026-11-24"),
    row("gemini-3.6-flash", FLASH_3_6, THINKING, "2026-11-30"),
    row("gemini-3.5-flash-lite", FLASH_3_6, THINKING, "2026-11-30"),
    row("gemini-3.5-flash", FLASH_3, THINKING, "2026-11-30"),
    row("gemini-3.1-flash-lite", FLASH_3, THINKING, "2026-11-30"),
    row("gemini-3.1-pro-preview", PRO_3_1, THINKING, "2026-11-30"),
    row("gemini-3-flash", FLASH_3, THINKING, "2026-11-30"),
    row("gemini-3-pro-preview", PRO_3, THINKING, "2026-11-30"),
    row("gemini-3-pro-image", PRO_3, THINKING, "2026-11-24"),
    row("gemini-2.5", GEMINI_2_5, PENALTIES, "2026-11-30"),
    row("gemini-2.5-pro", PRO_2_5, PENALTIES, "2026-11-30"),
    row("gemini-2.5-flash", FLASH_2_5, PENALTIES, "2026-11-30"),
    row(
        "gemini-2.5-flash-lite",
        FLASH_LITE_2_5,
        PENALTIES,
        "2026-11-30",
    ),
    row(
        "gemini-2.5-flash-image",
        GEMINI_2_5,
        PENALTIES,
        "2026-11-30",
    ),
    row("gemini-2", GEMINI_2, MODELS, "2026-11-24"),
    row("gemini-1", GEMINI_1, MODELS, "2026-11-24"),
    row("gemma-", GEMMA, GEMMA_PAGE, "2026-11-24"),
    row("gemma-4", GEMMA_4, GEMMA_PAGE, "2026-11-30"),
    row("learnlm-", GEMINI_2, MODELS, "2026-11-24"),
];

/// What the Gemini `model` can do, with or without its `models/` prefix.
pub fn gemini(model: &str) -> Gemini {
    let model = bare(model);
    let model = model.strip_prefix("models/").unwrap_or(model);
    let known = longest(ROWS, model).unwrap_or(match model.starts_with("gemini-") {
        // Newer than the table.
        true => GEMINI_3,
        false => GEMINI_2,
    });
    // The vendor names nearly every model by what it puts out.
    Gemini {
        image_output: model.contains("-image") || model.contains("nano-banana"),
        audio_output: model.contains("-tts") || model.contains("native-audio"),
        ..known
    }
}
