//! How hard the model shall think: `reasoning_effort` and `thinking` -> `thinking`,
//! `output_config.effort` and the token limit that goes with them.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::block::Body;
use super::dropped::Dropped;
use super::{Display, Switches};
use crate::capability::Claude;
use crate::chat::Request;
use crate::error::ApiError;

/// The smallest budget that the provider takes.
const MIN_BUDGET: u64 = 1024;

/// Room for the answer above a budget, where the caller set no limit.
const ANSWER_ROOM: u64 = 8192;

/// What is decided about thinking.
#[derive(Debug)]
pub struct Plan<'r> {
    pub thinking: Option<Thinking<'r>>,
    pub effort: Option<&'static str>,
    pub max_tokens: u64,
    /// The model will think, asked or unasked: thinking blocks go back.
    pub runs: bool,
    /// The request field that asked for it.
    pub source: &'static str,
}

/// The `thinking` object.
#[derive(Debug, Clone, Copy)]
pub enum Thinking<'r> {
    /// The caller's own.
    Given(&'r RawValue, Kind),
    Adaptive,
    Disabled,
    BetweenTools,
    Budget(u64),
}

/// The `type` of a thinking object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Adaptive,
    Enabled,
    Disabled,
    BetweenTools,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effort {
    None,
    Minimal,
    Low,
    Medium,
    High,
    Xhigh,
    Max,
}

impl Effort {
    fn parse(word: &str) -> Option<Effort> {
        Some(match word {
            "none" => Effort::None,
            "minimal" => Effort::Minimal,
            "low" => Effort::Low,
            "medium" => Effort::Medium,
            "high" => Effort::High,
            "xhigh" => Effort::Xhigh,
            "max" => Effort::Max,
            _ => return None,
        })
    }

    /// The nearest word that the model takes.
    fn word(self, claude: &Claude) -> Option<&'static str> {
        let wanted: &[&str] = match self {
            Effort::None => return None,
            Effort::Minimal | Effort::Low => &["low"],
            Effort::Medium => &["medium"],
            Effort::High => &["high"],
            Effort::Xhigh => &["xhigh", "max", "high"],
            Effort::Max => &["max"],
        };
        let known = |word: &&str| claude.efforts.iter().find(|known| *known == word);
        wanted
            .iter()
            .find_map(known)
            .or(claude.efforts.last())
            .copied()
    }

    fn budget(self, claude: &Claude) -> u64 {
        match self {
            Effort::None => 0,
            Effort::Minimal => 1024,
            Effort::Low => 2048,
            Effort::Medium => 8192,
            Effort::High => 16_384,
            Effort::Xhigh => 32_768,
            Effort::Max => claude.max_output.saturating_sub(4096).min(64_000),
        }
    }

    /// The effort that a budget of so many tokens stands for.
    fn of_budget(budget: u64) -> Effort {
        match budget {
            16_384.. => Effort::High,
            4096.. => Effort::Medium,
            _ => Effort::Low,
        }
    }
}

/// What weir reads of the caller's `thinking`.
#[derive(Deserialize)]
struct Given {
    r#type: String,
    budget_tokens: Option<u64>,
}

impl<'r> Plan<'r> {
    /// Decides from the request alone. `forced`: the tool choice forces a call.
    pub fn new(
        request: &'r Request<'r>,
        claude: &Claude,
        switches: &Switches,
        forced: bool,
        dropped: &mut Dropped,
    ) -> Result<Self, ApiError> {
        let limit = match request.max_tokens {
            Some(0) => {
                return Err(ApiError::unsupported_value(
                    "max_tokens",
                    "max_tokens must be at least 1",
                ));
            }
            limit => limit.map(|limit| limit.min(claude.max_output)),
        };
        let effort = match request.reasoning_effort.as_deref() {
            None => None,
            Some(word) => Some(Effort::parse(word).ok_or_else(|| {
                ApiError::unsupported_value(
                    "reasoning_effort",
                    format!("reasoning_effort {word:?} is not known"),
                )
            })?),
        };
        let default = switches.default_max_tokens.min(claude.max_output).max(1);
        let mut plan = Plan {
            thinking: None,
            effort: None,
            max_tokens: limit.unwrap_or(default),
            runs: false,
            source: "reasoning_effort",
        };
        match request.thinking {
            Some(raw) => {
                plan.source = "thinking";
                plan.take_given(raw, effort, claude, dropped)?;
            }
            // What the model does unasked, but that it tells what it says between its calls.
            None if effort.is_none()
                && claude.silent_between_tools
                && !request.tools.is_empty()
                && matches!(switches.display, Display::Summarized) =>
            {
                plan.thinking = Some(Thinking::Adaptive);
            }
            None => plan.take_effort(effort, claude, dropped)?,
        }
        plan.fit(limit, default, claude);
        plan.runs = match plan.thinking {
            None => claude.thinks_unasked,
            Some(Thinking::Disabled | Thinking::Given(_, Kind::Disabled)) => false,
            Some(_) => true,
        };
        if forced && plan.has_budget() {
            plan.drop_thinking(claude, dropped)?;
        }
        Ok(plan)
    }

    fn take_effort(
        &mut self,
        effort: Option<Effort>,
        claude: &Claude,
        dropped: &mut Dropped,
    ) -> Result<(), ApiError> {
        let can = claude.thinking;
        match effort {
            None => {}
            Some(Effort::None) => self.think_least(claude, dropped)?,
            Some(effort) if can.adaptive => {
                self.thinking = Some(Thinking::Adaptive);
                self.effort = effort.word(claude);
            }
            Some(effort) if can.budget => {
                self.thinking = Some(Thinking::Budget(effort.budget(claude)));
            }
            Some(_) => dropped.warn(self.source)?,
        }
        Ok(())
    }

    /// As little thinking as the model can be brought to.
    fn think_least(&mut self, claude: &Claude, dropped: &mut Dropped) -> Result<(), ApiError> {
        let can = claude.thinking;
        if !can.adaptive {
            // These think only when asked.
        } else if can.disabled {
            self.thinking = Some(Thinking::Disabled);
        } else if can.between_tools {
            self.thinking = Some(Thinking::BetweenTools);
        } else {
            self.effort = Effort::Low.word(claude);
            dropped.warn(self.source)?;
        }
        Ok(())
    }

    fn take_given(
        &mut self,
        raw: &'r RawValue,
        effort: Option<Effort>,
        claude: &Claude,
        dropped: &mut Dropped,
    ) -> Result<(), ApiError> {
        let given: Given = serde_json::from_str(raw.get()).map_err(|error| {
            ApiError::invalid("thinking", format!("thinking cannot be read: {error}"))
        })?;
        let can = claude.thinking;
        let word = effort.and_then(|effort| effort.word(claude));
        match given.r#type.as_str() {
            "adaptive" if can.adaptive => {
                self.thinking = Some(Thinking::Given(raw, Kind::Adaptive));
                self.effort = word;
            }
            "adaptive" if can.budget => {
                let effort = effort.unwrap_or(Effort::Medium);
                self.thinking = Some(Thinking::Budget(effort.budget(claude)));
            }
            "enabled" if can.budget => {
                self.thinking = Some(Thinking::Given(raw, Kind::Enabled));
                self.effort = word;
            }
            "enabled" if can.adaptive => {
                let by_budget = Effort::of_budget(given.budget_tokens.unwrap_or(0));
                self.thinking = Some(Thinking::Adaptive);
                self.effort = word.or(by_budget.word(claude));
            }
            "disabled" if can.disabled => {
                self.thinking = Some(Thinking::Given(raw, Kind::Disabled));
                self.effort = up_to_high(word, claude);
            }
            "disabled" => {
                self.think_least(claude, dropped)?;
                if let Some(Thinking::BetweenTools) = self.thinking {
                    self.effort = up_to_high(word, claude);
                }
            }
            "between_tools" if can.between_tools => {
                self.thinking = Some(Thinking::Given(raw, Kind::BetweenTools));
                self.effort = up_to_high(word, claude);
            }
            _ => {
                dropped.warn("thinking")?;
                self.effort = word;
            }
        }
        Ok(())
    }

    /// Makes budget and limit fit each other: the budget must stay below the limit.
    fn fit(&mut self, limit: Option<u64>, default: u64, claude: &Claude) {
        let budget = match self.thinking {
            Some(Thinking::Budget(budget)) => budget,
            // The caller's own budget stays; only a limit that the caller left open moves.
            Some(Thinking::Given(raw, Kind::Enabled)) => {
                let given: Result<Given, _> = serde_json::from_str(raw.get());
                let budget = given.ok().and_then(|given| given.budget_tokens);
                if limit.is_none() {
                    let room = budget.unwrap_or(0).saturating_add(ANSWER_ROOM);
                    self.max_tokens = room.max(default).min(claude.max_output);
                }
                return;
            }
            _ => return,
        };
        if limit.is_none() {
            self.max_tokens = (budget + ANSWER_ROOM).max(default).min(claude.max_output);
        }
        let fits = if limit.is_some() || budget >= self.max_tokens {
            budget.min(self.max_tokens * 4 / 5)
        } else {
            budget
        };
        self.thinking = (fits >= MIN_BUDGET).then_some(Thinking::Budget(fits));
    }

    /// Thinking goes out as `enabled` with a budget, which has rules of its own.
    pub fn has_budget(&self) -> bool {
        matches!(
            self.thinking,
            Some(Thinking::Budget(_) | Thinking::Given(_, Kind::Enabled))
        )
    }

    /// Gives thinking up, because the request holds something that excludes it.
    pub fn drop_thinking(
        &mut self,
        claude: &Claude,
        dropped: &mut Dropped,
    ) -> Result<(), ApiError> {
        self.thinking = None;
        self.runs = claude.thinks_unasked;
        dropped.warn(self.source)
    }
}

/// The effort beside thinking that is off, with which the highest ones are refused.
fn up_to_high(word: Option<&'static str>, claude: &Claude) -> Option<&'static str> {
    match word {
        Some("xhigh" | "max") if claude.off_up_to_high => Some("high"),
        word => word,
    }
}

impl Thinking<'_> {
    pub fn write(&self, body: &mut Body, display: Display) {
        match self {
            Thinking::Given(raw, _) => body.compact(raw.get()),
            Thinking::Adaptive => body.raw(match display {
                Display::Summarized => r#"{"type":"adaptive","display":"summarized"}"#,
                Display::Omitted => r#"{"type":"adaptive","display":"omitted"}"#,
                Display::Unset => r#"{"type":"adaptive"}"#,
            }),
            Thinking::Disabled => body.raw(r#"{"type":"disabled"}"#),
            Thinking::BetweenTools => body.raw(r#"{"type":"between_tools"}"#),
            Thinking::Budget(budget) => {
                body.raw(&format!(r#"{{"type":"enabled","budget_tokens":{budget}}}"#))
            }
        }
    }
}
