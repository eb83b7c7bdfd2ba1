//! The history: which message becomes which turn, and the repairs that the provider insists on.
//!
//! Turns are built strictly from front to back. What comes later may add blocks to the last turn
//! or turns behind it, and never changes what stands there, so that prompt caches and signed
//! thinking blocks stay valid as a conversation grows.

use std::borrow::Cow;

use super::Switches;
use super::block::{Block, Kind};
use super::dropped::Dropped;
use crate::cancel;
use crate::capability::Claude;
use crate::chat::{Message, Role};
use crate::error::ApiError;
use crate::provider::names::Names;

mod builder;

use builder::{Builder, plain_blocks};

/// System text and turns, ready to be written.
#[derive(Debug, Default)]
pub struct History<'r> {
    pub system: Vec<Block<'r>>,
    pub turns: Vec<Turn<'r>>,
    /// The last turn is an assistant's, to be continued.
    pub prefill: bool,
}

#[derive(Debug)]
pub struct Turn<'r> {
    pub role: Role,
    pub blocks: Vec<Block<'r>>,
    /// User: the results, which go before the other blocks.
    results: Vec<Block<'r>>,
    /// Assistant: its calls.
    calls: Vec<Call<'r>>,
}

#[derive(Debug)]
struct Call<'r> {
    sent: Cow<'r, str>,
    is_answered: bool,
}

impl<'r> Turn<'r> {
    fn new(role: Role) -> Self {
        Turn {
            role,
            blocks: Vec::new(),
            results: Vec::new(),
            calls: Vec::new(),
        }
    }

    fn user(text: &'static str) -> Self {
        let mut turn = Turn::new(Role::User);
        turn.blocks.push(Block::text(text));
        turn
    }
}

impl History<'_> {
    /// The conversation is inside a tool loop whose calls came without a thinking block. Thinking
    /// with a budget is refused then.
    pub fn is_unthinking_loop(&self) -> bool {
        let [.., calling, last] = self.turns.as_slice() else {
            return false;
        };
        let answers = |block: &Block<'_>| matches!(block.kind, Kind::ToolResult { .. });
        last.role == Role::User
            && last.blocks.first().is_some_and(answers)
            && !calling.blocks.iter().any(Block::is_thinking)
    }

    /// Takes the thinking blocks out, for a request that does not think.
    pub fn forget_thinking(&mut self) {
        for turn in &mut self.turns {
            turn.blocks.retain(|block| !block.is_thinking());
        }
    }

    /// Calls or results are among the turns.
    pub fn has_tool_blocks(&self) -> bool {
        self.turns.iter().any(|turn| !turn.calls.is_empty())
    }
}

/// Places all messages. `thinks` says whether thinking blocks go back.
pub fn arrange<'r>(
    messages: &'r [Message<'r>],
    claude: &Claude,
    switches: &Switches,
    thinks: bool,
    names: &mut Names<'r>,
    dropped: &mut Dropped,
) -> Result<History<'r>, ApiError> {
    let leading = messages
        .iter()
        .take_while(|message| message.role == Role::System)
        .count();
    let mut system = Vec::new();
    for (index, message) in messages[..leading].iter().enumerate() {
        system.extend(plain_blocks(message, index)?);
    }
    let mut builder = Builder::new(messages, claude.mid_system, thinks, names, dropped);
    for index in leading..messages.len() {
        cancel::check()?;
        builder.take(messages, index)?;
    }
    let mut turns = builder.finish()?;
    if turns.first().is_none_or(|turn| turn.role != Role::User) {
        turns.insert(0, Turn::user("."));
    }
    let mut prefill = false;
    if let Some(last) = turns.last_mut().filter(|turn| turn.role == Role::Assistant) {
        if claude.prefill {
            prefill = true;
            trim_end(last);
        } else if switches.reject_prefill {
            return Err(ApiError::unsupported_value(
                format!("messages[{}].role", messages.len() - 1),
                "this model does not continue an assistant message; end with a user message",
            ));
        } else {
            turns.push(Turn::user("Continue."));
        }
    }
    Ok(History {
        system,
        turns,
        prefill,
    })
}

/// White space at the end of what is to be continued is refused.
fn trim_end(turn: &mut Turn<'_>) {
    if let Some(Block {
        kind: Kind::Text(text),
        ..
    }) = turn.blocks.last_mut()
    {
        match text {
            Cow::Borrowed(text) => *text = text.trim_end(),
            Cow::Owned(text) => text.truncate(text.trim_end().len()),
        }
    }
}
