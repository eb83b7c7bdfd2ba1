//! What callers may speak: one entry per dialect, each with what reads its requests and what
//! writes its answers.
//!
//! A request of any dialect is first turned into a chat request; the answer comes back as deltas
//! and goes out through one of the two writers here. Opens no connection and knows no upstreams.

use std::sync::Arc;
use std::time::Duration;

use self::openai::Stamp;
use crate::chat::{DeltaSink, Usage};
use crate::error::ApiError;
use crate::seal::Seals;

pub mod ask;
pub mod completions;
pub mod embeddings;
pub mod gemini;
pub mod messages;
pub mod openai;
pub mod responses;
pub mod text;

/// Writes an answer as it comes.
pub trait Streamed: DeltaSink {
    /// What was written since the last `clear`, ready to be sent in one piece.
    fn bytes(&self) -> &[u8];

    fn clear(&mut self);

    /// Writes what belongs at the end.
    fn finish(&mut self);

    /// What was counted so far.
    fn usage(&self) -> Usage;

    /// About how many bytes wait in it for what has to come before them.
    fn held(&self) -> usize {
        0
    }

    /// Header lines that follow the body. Asked for after `finish`.
    fn trailers(&self) -> String {
        String::new()
    }
}

/// Collects an answer that goes out in one piece.
pub trait Whole: DeltaSink {
    fn usage(&self) -> Usage;

    /// Header lines about the answer.
    fn lines(&self) -> String {
        String::new()
    }

    fn into_body(self: Box<Self>) -> Vec<u8>;
}

/// How a caller wants to be spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// OpenAI's Chat Completions.
    Chat,
    /// OpenAI's older completions.
    Completions,
    /// Nothing but the answer's text.
    Text,
    /// Anthropic's Messages.
    Messages,
    /// OpenAI's Responses.
    Responses,
    /// Gemini's native API.
    Gemini(gemini::Framing),
}

impl Dialect {
    /// What a caller speaks as far as the path says it, also where there is nothing at that path.
    pub fn of_path(path: &str) -> Dialect {
        if gemini::is_path(path) {
            return Dialect::Gemini(gemini::Framing::Events);
        }
        let is_below = |top: &str| {
            path.strip_prefix(top)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        match path {
            _ if is_below("/v1/messages") => Dialect::Messages,
            _ if is_below("/v1/responses") => Dialect::Responses,
            _ => Dialect::Chat,
        }
    }

    /// `seals` are for what the upstream signs, where the dialect carries that.
    pub fn streamed(self, stamp: Stamp, seals: &Arc<Seals>) -> Box<dyn Streamed> {
        match self {
            Dialect::Messages => Box::new(messages::Events::new(stamp, Arc::clone(seals))),
            Dialect::Responses => {
                let (asked, seed) = (plain(&stamp), stamp.seed);
                Box::new(responses::Events::new(asked, Arc::clone(seals), seed))
            }
            Dialect::Gemini(framing) => {
                Box::new(gemini::Pieces::new(stamp, Arc::clone(seals), framing))
            }
            Dialect::Chat => Box::new(openai::Chunks::new(stamp)),
            Dialect::Completions => Box::new(completions::Pieces(completions::Text::new(stamp))),
            Dialect::Text => Box::<text::Text>::default(),
        }
    }

    pub fn whole(self, stamp: Stamp, seals: &Arc<Seals>) -> Box<dyn Whole> {
        match self {
            Dialect::Messages => Box::new(messages::Message::new(stamp, Arc::clone(seals))),
            Dialect::Responses => {
                let (asked, seed) = (plain(&stamp), stamp.seed);
                Box::new(responses::Response::new(asked, Arc::clone(seals), seed))
            }
            Dialect::Gemini(_) => Box::new(gemini::Answer::new(stamp, Arc::clone(seals))),
            Dialect::Chat => Box::new(openai::Fold::new(stamp)),
            Dialect::Completions => Box::new(completions::Text::new(stamp)),
            Dialect::Text => Box::<text::Text>::default(),
        }
    }

    /// An OpenAI upstream's own bytes are what the caller wants to read.
    pub fn is_chat(self) -> bool {
        self == Dialect::Chat
    }

    /// The content type of an answer, and of an error in its place.
    pub fn content_type(self) -> &'static str {
        match self {
            Dialect::Text => text::CONTENT_TYPE,
            _ => "application/json",
        }
    }

    pub fn stream_type(self) -> &'static str {
        match self {
            Dialect::Gemini(gemini::Framing::Array) => "application/json",
            Dialect::Text => text::CONTENT_TYPE,
            _ => "text/event-stream",
        }
    }

    /// The names of the header lines that may follow a stream.
    pub fn trailers(self) -> Option<&'static str> {
        (self == Dialect::Text).then_some(text::TRAILERS)
    }

    /// What can be sent into a silent stream, if anything can.
    pub fn heartbeat(self) -> Option<&'static [u8]> {
        match self {
            Dialect::Chat | Dialect::Completions => Some(openai::HEARTBEAT),
            Dialect::Messages => Some(messages::HEARTBEAT),
            Dialect::Responses => Some(responses::HEARTBEAT),
            Dialect::Gemini(_) => Some(gemini::HEARTBEAT),
            Dialect::Text => None,
        }
    }

    /// How long a stream may be silent at most, whatever the config says. Agents that speak these
    /// dialects end a run, or begin it anew, after some minutes of silence.
    pub fn most_silence(self) -> Option<Duration> {
        const AGENTS: Duration = Duration::from_secs(25);
        match self {
            Dialect::Messages | Dialect::Responses | Dialect::Gemini(_) => Some(AGENTS),
            _ => None,
        }
    }

    /// The body of an error.
    pub fn error(self, error: &ApiError) -> Vec<u8> {
        match self {
            Dialect::Chat | Dialect::Completions | Dialect::Responses => error.to_json(),
            Dialect::Text => format!("{}\n", error.message).into_bytes(),
            Dialect::Messages => messages::error(error),
            Dialect::Gemini(_) => gemini::error(error),
        }
    }

    /// What ends a stream that broke. `None`: there are no words for it, so the connection has to
    /// end in a way that shows it.
    pub fn last_words(self, error: &ApiError) -> Option<Vec<u8>> {
        match self {
            Dialect::Chat | Dialect::Completions => Some(openai::error_event(error)),
            Dialect::Messages => Some(messages::error_event(error)),
            Dialect::Responses => Some(responses::error_event(error)),
            Dialect::Gemini(gemini::Framing::Events) => Some(gemini::error_event(error)),
            Dialect::Text | Dialect::Gemini(gemini::Framing::Array) => None,
        }
    }
}

/// What an answer knows of its request where nobody said more.
fn plain(stamp: &Stamp) -> Arc<responses::Asked> {
    let tail = responses::tail(stamp.seed);
    Arc::new(responses::Asked::plain(&tail, stamp.created, &stamp.model))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_says_what_is_spoken_and_agents_are_not_left_in_silence() {
        for (path, dialect, most) in [
            ("/v1/messages", Dialect::Messages, Some(25)),
            ("/v1/messages/count_tokens", Dialect::Messages, Some(25)),
            ("/v1/responses", Dialect::Responses, Some(25)),
            ("/v1/responses/resp_1", Dialect::Responses, Some(25)),
            (
                "/v1beta/models/m:generateContent",
                Dialect::Gemini(gemini::Framing::Events),
                Some(25),
            ),
            ("/v1/models/m", Dialect::Chat, None),
            ("/v1/responsesx", Dialect::Chat, None),
            ("/v1/chat/completions", Dialect::Chat, None),
        ] {
            assert_eq!(Dialect::of_path(path), dialect, "{path}");
            let most = most.map(Duration::from_secs);
            assert_eq!(dialect.most_silence(), most, "{path}");
        }
    }
}
