//! One message after the other -> turns, and the repair of broken pairs of call and result.

use std::borrow::Cow;

use super::{Call, Turn};
use crate::chat::{Message, PartKind, Role, ToolKind};
use crate::error::ApiError;
use crate::provider::anthropic::assistant;
use crate::provider::anthropic::block::{Block, Content, Input, Kind, Mark};
use crate::provider::anthropic::dropped::Dropped;
use crate::provider::anthropic::parts::{self, is_blank};
use crate::provider::names::{Ids, Names};

/// Stands before system text that the provider takes only as a user's.
const NOT_THE_USER: &str = "[system instruction, not from the user]\n";

pub struct Builder<'r, 'x> {
    mid_system: bool,
    thinks: bool,
    names: &'x mut Names<'r>,
    dropped: &'x mut Dropped,
    ids: Ids<'r>,
    turns: Vec<Turn<'r>>,
    /// Of the turn that was asked for last, its place and its calls by their ids.
    by_id: (usize, Vec<usize>),
    /// The first message that is not the system's and says something, behind the one at hand, and
    /// whether it is of the user's side.
    next_speaker: (usize, bool),
    /// System text that goes behind the user turn in progress.
    waiting: Vec<Block<'r>>,
}

impl<'r, 'x> Builder<'r, 'x> {
    /// `thinks` says whether thinking blocks go back.
    pub fn new(
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
            turns: Vec::new(),
            by_id: (0, Vec::new()),
            next_speaker: (0, false),
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
            Role::Assistant => self.take_assistant(message)?,
            Role::Tool => self.take_result(message, index)?,
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
        if !self.waiting.is_empty() {
            let blocks = std::mem::take(&mut self.waiting);
            self.turn(Role::System).blocks.extend(blocks);
        }
    }

    fn take_assistant(&mut self, message: &'r Message<'r>) -> Result<(), ApiError> {
        if message.has_audio {
            self.dropped.warn("messages.audio")?;
        }
        if message.content.iter().any(|part| !is_text(&part.kind)) {
            self.dropped.warn("messages.content")?;
        }
        if says_nothing(message) {
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
                id: &call.id,
                sent,
                result: None,
            });
        }
        let blocks = assistant::blocks(message, uses, self.thinks);
        let turn = self.turn(Role::Assistant);
        turn.blocks.extend(blocks);
        turn.calls.extend(calls);
        Ok(())
    }

    fn take_result(&mut self, message: &'r Message<'r>, index: usize) -> Result<(), ApiError> {
        let mut blocks = plain_blocks(message, index)?;
        let last = self.turns.len().wrapping_sub(1);
        // The turn that called: the last one, or the one before the results' turn.
        let calling = match self.last_role() {
            Some(Role::Assistant) => Some(last),
            Some(Role::User) => last.checked_sub(1),
            _ => None,
        };
        let id = message.tool_call_id.as_ref();
        let call = calling.and_then(|turn| {
            let at = self.call_of(turn, id)?;
            Some((turn, at))
        });
        let Some((turn, at)) = call else {
            self.dropped.repaired()?;
            return self.tell_result(id, blocks);
        };
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
        let call = &mut self.turns[turn].calls[at];
        let earlier = call.result;
        let block = Block {
            kind: Kind::ToolResult {
                id: call.sent.clone(),
                content,
                is_error: false,
            },
            mark,
        };
        match earlier {
            Some(place) => {
                self.dropped.repaired()?;
                self.turns[turn + 1].results[place] = block;
            }
            None => {
                let results = &mut self.turn(Role::User).results;
                results.push(block);
                let place = results.len() - 1;
                self.turns[turn].calls[at].result = Some(place);
            }
        }
        Ok(())
    }

    /// The call of a turn that a result for `id` answers.
    fn call_of(&mut self, turn: usize, id: &str) -> Option<usize> {
        let calls = &self.turns[turn].calls;
        if self.by_id.0 != turn || self.by_id.1.len() != calls.len() {
            let mut places: Vec<usize> = (0..calls.len()).collect();
            // The sort is stable: calls that share an id stay in their order.
            places.sort_by_key(|place| calls[*place].id);
            self.by_id = (turn, places);
        }
        let places = &self.by_id.1;
        let sharing = &places[places.partition_point(|place| calls[*place].id < id)..];
        let sharing = &sharing[..sharing.partition_point(|place| calls[*place].id == id)];
        // They get their results in their order. A result more takes the place of the last one's.
        let answered = sharing.partition_point(|place| calls[*place].result.is_some());
        sharing.get(answered).or(sharing.last()).copied()
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
                .filter(|call| call.result.is_none())
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
