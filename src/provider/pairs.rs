//! Which tool result of a history answers which call, for the formats that insist on pairs.
//!
//! Callers keep histories in many orders: calls that were made at once as several messages, results
//! behind what the user said next, ids that start anew with every turn. A result that is there is
//! never sent as missing, wherever it stands behind its call.

use std::collections::{HashMap, VecDeque};

use crate::chat::{Message, Role};

/// The pairs of one history, by the places of its messages.
#[derive(Debug, Default)]
pub struct Pairs {
    /// For each message that calls, the message that holds the result of each of its calls.
    results: HashMap<usize, Vec<Option<usize>>>,
    /// For each message of a tool that answers a call: the message that calls, and which call.
    calls: HashMap<usize, (usize, usize)>,
}

/// What one tool message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The result of this call of this message.
    Of { message: usize, call: usize },
    /// A later message answers the same call, and counts.
    Replaced { message: usize, call: usize },
    /// It answers no call.
    Stray,
}

/// The calls of one id that wait for their results.
#[derive(Default)]
struct Calls {
    /// The turn that used the id last, and its calls that are open.
    turn: usize,
    open: VecDeque<(usize, usize)>,
    /// Open calls of turns before that one.
    earlier: Vec<(usize, usize)>,
    /// The call of that turn that was answered last.
    answered: Option<(usize, usize)>,
}

impl Pairs {
    /// Goes through the history once. A result belongs to the first open call of its id in the
    /// newest turn that has one. Without any, it takes the place of the result before it.
    pub fn of(messages: &[Message<'_>]) -> Pairs {
        let mut pairs = Pairs::default();
        let mut by_id: HashMap<&str, Calls> = HashMap::new();
        // Assistant messages with nothing between them are one turn.
        let mut turn = 0;
        for (place, message) in messages.iter().enumerate() {
            match message.role {
                Role::Assistant => {
                    if place == 0 || messages[place - 1].role != Role::Assistant {
                        turn += 1;
                    }
                    for (call, tool_call) in message.tool_calls.iter().enumerate() {
                        let calls = by_id.entry(&tool_call.id).or_default();
                        if calls.turn != turn {
                            calls.turn = turn;
                            calls.answered = None;
                            calls.earlier.extend(calls.open.drain(..));
                        }
                        calls.open.push_back((place, call));
                    }
                    if !message.tool_calls.is_empty() {
                        let none = vec![None; message.tool_calls.len()];
                        pairs.results.insert(place, none);
                    }
                }
                Role::Tool => {
                    let Some(calls) = by_id.get_mut(&*message.tool_call_id) else {
                        continue;
                    };
                    let open = calls.open.pop_front();
                    let again = calls.answered.filter(|_| calls.turn == turn);
                    let Some((at, call)) = open.or_else(|| calls.earlier.pop()).or(again) else {
                        continue;
                    };
                    if open.is_some() {
                        calls.answered = open;
                    }
                    let results = pairs.results.get_mut(&at).expect("it was put in above");
                    results[call] = Some(place);
                    pairs.calls.insert(place, (at, call));
                }
                Role::System | Role::User => {}
            }
        }
        pairs
    }

    /// Where the result of this call is.
    pub fn result(&self, message: usize, call: usize) -> Option<usize> {
        *self.results.get(&message)?.get(call)?
    }

    /// What the tool message at `place` is.
    pub fn answer(&self, place: usize) -> Answer {
        match self.calls.get(&place) {
            None => Answer::Stray,
            Some(&(message, call)) if self.result(message, call) == Some(place) => {
                Answer::Of { message, call }
            }
            Some(&(message, call)) => Answer::Replaced { message, call },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{ToolCall, ToolKind};

    /// `+a,b` an assistant that calls, `a` a result, `u` a user, `s` a system message, `t` an
    /// assistant that only speaks.
    fn history(words: &str) -> Vec<Message<'_>> {
        words
            .split(' ')
            .map(|word| match word {
                "u" => Message::new(Role::User),
                "s" => Message::new(Role::System),
                "t" => Message::new(Role::Assistant),
                _ => match word.strip_prefix('+') {
                    Some(ids) => {
                        let mut message = Message::new(Role::Assistant);
                        message.tool_calls = ids
                            .split(',')
                            .map(|id| ToolCall {
                                id: id.into(),
                                kind: ToolKind::Function,
                                name: "f".into(),
                                arguments: "{}".into(),
                                google_signature: None,
                            })
                            .collect();
                        message
                    }
                    None => {
                        let mut message = Message::new(Role::Tool);
                        message.tool_call_id = word.into();
                        message
                    }
                },
            })
            .collect()
    }

    /// The place of the result of each call, `-` for none; then each tool message that is none.
    fn told(words: &str) -> String {
        let messages = history(words);
        let pairs = Pairs::of(&messages);
        let mut told = Vec::new();
        for (place, message) in messages.iter().enumerate() {
            for call in 0..message.tool_calls.len() {
                told.push(match pairs.result(place, call) {
                    Some(result) => {
                        let back = Answer::Of {
                            message: place,
                            call,
                        };
                        assert_eq!(pairs.answer(result), back, "{words}");
                        result.to_string()
                    }
                    None => "-".into(),
                });
            }
            if message.role == Role::Tool {
                match pairs.answer(place) {
                    Answer::Of { .. } => {}
                    Answer::Replaced { .. } => told.push(format!("replaced {place}")),
                    Answer::Stray => told.push(format!("stray {place}")),
                }
            }
        }
        told.join(" ")
    }

    #[test]
    fn a_result_that_is_there_finds_its_call() {
        for (words, expected) in [
            ("u +a,b b a", "3 2"),
            ("u +a +b a b", "3 4"),
            ("u +a +b b a", "4 3"),
            ("u +a a +b b", "2 4"),
            ("u +a t +b b a", "5 4"),
            ("u +a s a", "3"),
            ("u +a u a", "3"),
            ("u +a,b a t b", "2 4"),
            ("u +a,b a +c b c", "2 4 5"),
            ("u +a t u a", "4"),
        ] {
            assert_eq!(told(words), expected, "{words}");
        }
    }

    #[test]
    fn one_id_may_be_used_again() {
        for (words, expected) in [
            ("u +a a u +a a", "2 5"),
            ("u +a,a a a", "2 3"),
            ("u +a u +a a", "- 4"),
            ("u +a u +a a a", "5 4"),
        ] {
            assert_eq!(told(words), expected, "{words}");
        }
    }

    #[test]
    fn what_fits_nothing_is_told() {
        for (words, expected) in [
            ("u a", "stray 1"),
            ("a +a", "stray 0 -"),
            ("u +a a a", "3 replaced 2"),
            ("u +a a u a", "4 replaced 2"),
            ("u +a a t a", "2 stray 4"),
            ("u +a b", "- stray 2"),
        ] {
            assert_eq!(told(words), expected, "{words}");
        }
    }

    #[test]
    fn the_work_grows_with_the_history() {
        // Quadratic work would be 10^10 steps here.
        let count = 100_000;
        let calls = vec!["a"; count].join(",");
        let results = vec!["a"; count].join(" ");
        let words = format!("u +{calls} {results}");
        let messages = history(&words);
        let pairs = Pairs::of(&messages);
        assert_eq!(pairs.result(1, count - 1), Some(count + 1));
    }
}
