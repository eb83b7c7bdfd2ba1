//! Pictures that a model made, on their way back in a history, for the formats whose assistant has
//! none. The user shows them then, so that the model still sees what is being talked about.

use crate::chat::{Message, Part, PartKind};

/// Stands before such pictures.
pub const SHOWN: &str = "[picture from the assistant, not from the user]";

/// Stands where a turn was nothing but a picture that cannot go.
pub const LOST_PICTURE: &str = "[picture]";

/// All parts of an assistant's message that are pictures, and the name of the field they are in.
pub fn of<'m, 'r>(message: &'m Message<'r>) -> impl Iterator<Item = (&'m Part<'r>, &'static str)> {
    let in_content = message.content.iter();
    let in_content = in_content.filter(|part| matches!(part.kind, PartKind::Image { .. }));
    in_content
        .map(|part| (part, "messages.content"))
        .chain(message.images.iter().map(|part| (part, "messages.images")))
}

/// The assistant neither speaks nor calls.
pub fn says_nothing(message: &Message<'_>) -> bool {
    let is_blank = |text: &str| text.trim().is_empty();
    let mut parts = message.content.iter();
    message.tool_calls.is_empty()
        && message.refusal.as_deref().is_none_or(is_blank)
        && parts.all(|part| match &part.kind {
            PartKind::Text(text) | PartKind::Refusal(text) => is_blank(text),
            _ => true,
        })
}
