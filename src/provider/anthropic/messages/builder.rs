//! One message after the other -> turns, and the repair of broken pairs of call and result.

use std::borrow::Cow;
use std::collections::HashMap;

use super::{Call, Turn};
use crate::chat::{Message, Part, PartKind, Role, ToolKind};
use crate::error::ApiError;
use crate::provider::anthropic::assistant;
use crate::provider::anthropic::block::{Block, Content, Input, Kind, Mark};
use crate::provider::anthropic::dropped::Dropped;
use crate::provider::anthropic::parts::{self, is_blank};
use crate::provider::names::{Ids, Names};
use crate::provider::pairs::{Answer, Pairs};
use crate::provider::pictures;

/// Stands before system text that the provider takes only as a user's.
const NOT_THE_USER: &str = "[system instruction, not from the user]\n";

pub struct Builder<'r, 'x> {
    mid_system: bool,
    thinks: bool,
    names: &'x mut Names<'r>,
    dropped: &'x mut Dropped,
    ids: Ids<'r>,
    pairs: Pairs,
    turns: Vec<Turn<'r>>,
    /// The first message that is not the system's and says something, behind the one at hand, and
    /// whether it is of the user's side.
    next_speaker: (usize, bool),
    /// For each message that called, its turn and the place of its first call there.
    called: HashMap<usize, (usize, usize)>,
    /// System text that goes behind the user turn in progress.
    waiting: Vec<Block<'r>>,
}

impl<'r, 'x> Builder<'r, 'x> {
    /// `thinks` says whether thinking blocks go back.
    pub fn new(
        messages: &[Message<'_>],
        mid_system: bool,
        thinks: bool,
        names: &'x mut Names<'r>,
        dropped: &'x mut Dropped,
    ) -> Self {
        Builder {
            mid_system,
            thinks,
            names,
            dropped,
            ids: Ids::new(crate::provider::anthropic::IDS),
            pairs: Pairs::of(messages),
            turns: Vec::new(),
            next_speaker: (0, false),
            called: HashMap::new(),
            waiting: Vec::new(),
        }
    }

    /// All turns, each call with its result.
    pub fn finish(mut self) -> Result<Vec<Turn<'r>>, ApiError> {
        self.let_system_in();
        self.pair()
    }

    pub fn take(&mut self, messages: &'r [Message<'r>], index: usize) -> Result<(), ApiError> {
        let message = &messages[index];
        match message.role {
            Role::System => {
                let blocks = plain_blocks(message, index)?;
                if blocks.is_empty() {
                    return Ok(());
                }
                let in_user_turn = self.last_role() == Some(Role::User);
                let goes_behind =
                    self.mid_system && (in_user_turn || self.user_comes_next(messages, index));
                if goes_behind {
                    self.waiting.extend(blocks);
                } else {
                    self.turn(Role::User)
                        .blocks
                        .extend(blocks.into_iter().map(not_the_user));
                }
            }
            Role::User => {
                let blocks = plain_blocks(message, index)?;
                if !blocks.is_empty() {
                    self.turn(Role::User).blocks.extend(blocks);
                }
            }
            Role::Assistant => self.take_assistant(message, index)?,
            Role::Tool => self.take_result(messages, index)?,
        }
        Ok(())
    }

    fn last_role(&self) -> Option<Role> {
        self.turns.last().map(|turn| turn.role)
    }

    /// The last turn if it is of `role`, else a new one behind it.
    fn turn(&mut self, role: Role) -> &mut Turn<'r> {
        if self.last_role() != Some(role) {
            self.turns.push(Turn::new(role));
        }
        self.turns
            .last_mut()
            .expect("one was pushed if there was none")
    }

    /// The user turn is over: what waited for that becomes a system turn.
    fn let_system_in(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let blocks = std::mem::take(&mut self.waiting);
        if self.last_role() == Some(Role::User) {
            self.turn(Role::System).blocks.extend(blocks);
        } else {
            // The result that it was to follow belongs to an earlier turn.
            let blocks = blocks.into_iter().map(not_the_user);
            self.turn(Role::User).blocks.extend(blocks);
        }
    }

    fn take_assistant(&mut self, message: &'r Message<'r>, index: usize) -> Result<(), ApiError> {
        if message.has_audio {
            self.dropped.warn("messages.audio")?;
        }
        let is_other =
            |part: &Part<'_>| !is_text(&part.kind) && !matches!(part.kind, PartKind::Image { .. });
        if message.content.iter().any(is_other) {
            self.dropped.warn("messages.content")?;
        }
        let shown = self.pictures(message)?;
        if says_nothing(message) {
            if let Some(shown) = shown {
                self.let_system_in();
                self.turn(Role::User).blocks.extend(shown);
            }
            return Ok(());
        }
        self.let_system_in();
        let mut uses = Vec::with_capacity(message.tool_calls.len());
        let mut calls = Vec::with_capacity(message.tool_calls.len());
        for call in &message.tool_calls {
            let sent = self.ids.take(&call.id);
            self.names.add(&call.name);
            uses.push(Block::new(Kind::ToolUse {
                id: sent.clone(),
                name: self.names.sent_cow(&call.name),
                input: match call.kind {
                    ToolKind::Function => Input::of_arguments(&call.arguments),
                    ToolKind::Custom => Input::Custom(&call.arguments),
                },
            }));
            calls.push(Call {
                sent,
                is_answered: false,
            });
        }
        let blocks = assistant::blocks(message, uses, self.thinks);
        let turn = self.turn(Role::Assistant);
        let first = turn.calls.len();
        turn.blocks.extend(blocks);
        turn.calls.extend(calls);
        self.called.insert(index, (self.turns.len() - 1, first));
        if let Some(shown) = shown {
            self.turn(Role::User).blocks.extend(shown);
        }
        Ok(())
    }

    /// The pictures that the model made, which only a user can show; a word for one that cannot
    /// go where the turn was nothing else.
    fn pictures(&mut self, message: &'r Message<'r>) -> Result<Option<Vec<Block<'r>>>, ApiError> {
        let mut blocks = Vec::new();
        let mut lost = false;
        for (part, field) in pictures::of(message) {
            match parts::block(part, String::new) {
                Ok(block) => blocks.extend(block),
                Err(_) => {
                    self.dropped.warn(field)?;
                    lost = true;
                }
            }
        }
        if !blocks.is_empty() {
            blocks.insert(0, Block::text(pictures::SHOWN));
        } else if lost && says_nothing(message) {
            blocks.push(Block::text(pictures::LOST_PICTURE));
        }
        Ok((!blocks.is_empty()).then_some(blocks))
    }

    fn take_result(&mut self, messages: &'r [Message<'r>], index: usize) -> Result<(), ApiError> {
        let (calling, call) = match self.pairs.answer(index) {
            Answer::Of { message, call } => (message, call),
            Answer::Replaced { message, call } => {
                self.dropped.repaired()?;
                (message, call)
            }
            Answer::Stray => {
                self.dropped.repaired()?;
                let blocks = plain_blocks(&messages[index], index)?;
                return self.tell_result(&messages[index].tool_call_id, blocks);
            }
        };
        let (turn, first) = self.called[&calling];
        if self.turns[turn].calls[first + call].is_answered {
            return Ok(());
        }
        // Of several results the last one counts, in the place of the first.
        let index = self.pairs.result(calling, call).unwrap_or(index);
        let message = &messages[index];
        let mut blocks = plain_blocks(message, index)?;
        let mark = Mark::of(message.cache_control, None)
            .or_else(|| blocks.iter_mut().rev().find_map(|block| block.mark.take()));
        for block in &mut blocks {
            block.mark = None;
        }
        let content = match message.content.as_slice() {
            _ if blocks.is_empty() => Content::Nothing,
            [part] if !message.content_is_array => match &part.kind {
                PartKind::Text(text) => Content::Text(text),
                _ => Content::Blocks(blocks),
            },
            _ => Content::Blocks(blocks),
        };
        let call = &mut self.turns[turn].calls[first + call];
        call.is_answered = true;
        let block = Block {
            kind: Kind::ToolResult {
                id: call.sent.clone(),
                content,
                is_error: false,
            },
            mark,
        };
        // What follows a turn that called is a user turn, if only for the results.
        match self.turns.get_mut(turn + 1) {
            Some(next) => next.results.push(block),
            None => self.turn(Role::User).results.push(block),
        }
        Ok(())
    }

    /// The next message that is not the system's and says something is of the user's side.
    fn user_comes_next(&mut self, messages: &[Message<'_>], index: usize) -> bool {
        if self.next_speaker.0 <= index {
            let behind = messages.iter().enumerate().skip(index + 1);
            self.next_speaker = behind
                .filter(|(_, message)| match message.role {
                    Role::System => false,
                    Role::Tool => true,
                    Role::User | Role::Assistant => !says_nothing(message),
                })
                .map(|(at, message)| (at, message.role != Role::Assistant))
                .next()
                .unwrap_or((messages.len(), false));
        }
        self.next_speaker.1
    }

    /// A result that answers nothing: as text, so that the model still has it.
    fn tell_result(&mut self, id: &str, blocks: Vec<Block<'r>>) -> Result<(), ApiError> {
        let mut told = format!("[result of tool call {id}]\n");
        let (texts, others): (Vec<_>, Vec<_>) = blocks
            .into_iter()
            .partition(|block| matches!(block.kind, Kind::Text(_)));
        for (index, block) in texts.into_iter().enumerate() {
            if let Kind::Text(text) = block.kind {
                if index > 0 {
                    told.push('\n');
                }
                told.push_str(&text);
            }
        }
        let turn = self.turn(Role::User);
        turn.blocks.push(Block::text(told));
        turn.blocks.extend(others);
        Ok(())
    }

    /// Gives every call its result and puts the results to the front.
    fn pair(self) -> Result<Vec<Turn<'r>>, ApiError> {
        let mut turns: Vec<Turn<'r>> = Vec::with_capacity(self.turns.len() + 2);
        let mut missing: Vec<Cow<'r, str>> = Vec::new();
        for mut turn in self.turns {
            if turn.role == Role::User {
                turn.results.extend(missing.drain(..).map(no_result));
                turn.results.append(&mut turn.blocks);
                turn.blocks = std::mem::take(&mut turn.results);
            }
            missing = turn
                .calls
                .iter()
                .filter(|call| !call.is_answered)
                .map(|call| call.sent.clone())
                .collect();
            if !missing.is_empty() {
                self.dropped.repaired()?;
            }
            turns.push(turn);
        }
        if !missing.is_empty() {
            let mut turn = Turn::new(Role::User);
            turn.blocks.extend(missing.into_iter().map(no_result));
            turns.push(turn);
        }
        Ok(turns)
    }
}

fn no_result(id: Cow<'_, str>) -> Block<'_> {
    Block::new(Kind::ToolResult {
        id,
        content: Content::Text("no result"),
        is_error: true,
    })
}

fn not_the_user(mut block: Block<'_>) -> Block<'_> {
    if let Kind::Text(text) = &mut block.kind {
        *text = Cow::Owned(format!("{NOT_THE_USER}{text}"));
    }
    block
}

fn is_text(kind: &PartKind<'_>) -> bool {
    matches!(kind, PartKind::Text(_) | PartKind::Refusal(_))
}

/// The blocks of a system, user or tool message.
pub fn plain_blocks<'r>(
    message: &'r Message<'r>,
    index: usize,
) -> Result<Vec<Block<'r>>, ApiError> {
    let mut blocks = Vec::with_capacity(message.content.len());
    for (at, part) in message.content.iter().enumerate() {
        let path = || format!("messages[{index}].content[{at}]");
        if message.role == Role::System && !is_text(&part.kind) {
            return Err(ApiError::unsupported_value(
                path(),
                "system messages can hold text only",
            ));
        }
        blocks.extend(parts::block(part, path)?);
    }
    if let (Some(last), Some(mark)) = (blocks.last_mut(), Mark::of(message.cache_control, None)) {
        last.mark = Some(mark);
    }
    Ok(blocks)
}

/// Nothing of the message would be sent. (Thinking alone is refused.)
fn says_nothing(message: &Message<'_>) -> bool {
    let blank = |kind: &PartKind<'_>| match kind {
        PartKind::Text(text) | PartKind::Refusal(text) => is_blank(text),
        _ => message.role == Role::Assistant,
    };
    message.tool_calls.is_empty()
        && message.content.iter().all(|part| blank(&part.kind))
        && message.refusal.as_deref().is_none_or(is_blank)
}
