//! What is noted of an answer on its way from a decoder to the writer: what it signs, how long it
//! is, and whether as much of it may be held.

use crate::chat::{Delta, DeltaSink};
use crate::failure::Failure;
use crate::memory::Notes;

/// Passes deltas on, and notes what they sign, how long their text is and whether the answer has
/// begun.
pub struct Noting<'a> {
    pub sink: &'a mut dyn DeltaSink,
    pub heard: &'a mut Heard,
    /// An answer that is put together has to be held until it is complete.
    pub is_held: bool,
}

/// What was heard of an answer so far.
pub struct Heard {
    pub notes: Notes,
    /// Something was said that an answer consists of.
    pub has_content: bool,
    /// Bytes of text in the answer.
    pub text: u64,
    /// Bytes that may still be held of an answer that is put together; `None`: too many were.
    pub room: Option<usize>,
}

impl Heard {
    /// Whether what was put together is as long as it may be.
    pub fn fits(&self) -> Result<(), Failure> {
        match self.room {
            Some(_) => Ok(()),
            None => Err(Failure::too_long()),
        }
    }
}

/// What a delta costs in an answer beside its texts.
const DELTA: usize = 64;

/// The bytes of an answer that a delta becomes, about.
fn weight(delta: &Delta<'_>) -> usize {
    match delta {
        // Pieces of one text are put together.
        Delta::Text { text, .. }
        | Delta::Reasoning { text, .. }
        | Delta::Refusal { text, .. }
        | Delta::ToolArgs { fragment: text, .. } => text.len(),
        Delta::Audio { base64, .. } => base64.len(),
        Delta::Extra { json, .. } | Delta::Logprobs { json, .. } => json.len() + DELTA,
        Delta::ToolStart {
            id,
            name,
            google_signature,
            ..
        } => id.len() + name.len() + google_signature.map_or(0, str::len) + 2 * DELTA,
        Delta::Image {
            mime,
            base64,
            google_signature,
            ..
        } => mime.len() + base64.len() + google_signature.map_or(0, str::len) + DELTA,
        Delta::Citation { url, title, .. } => url.len() + title.len() + 2 * DELTA,
        Delta::Start { .. } | Delta::Usage(_) | Delta::ServiceTier(_) | Delta::Finish { .. } => 0,
    }
}

impl DeltaSink for Noting<'_> {
    fn put(&mut self, delta: Delta<'_>) {
        let announces = matches!(
            delta,
            Delta::Start { .. } | Delta::Usage(_) | Delta::ServiceTier(_)
        );
        self.heard.has_content |= !announces;
        if let Delta::Text { text, .. }
        | Delta::Reasoning { text, .. }
        | Delta::Refusal { text, .. }
        | Delta::ToolArgs { fragment: text, .. } = &delta
        {
            self.heard.text = self.heard.text.saturating_add(text.len() as u64);
        }
        if self.is_held {
            let room = &mut self.heard.room;
            *room = room.and_then(|room| room.checked_sub(weight(&delta)));
            if room.is_none() {
                return;
            }
        }
        self.heard.notes.take(&delta);
        self.sink.put(delta);
    }
}
