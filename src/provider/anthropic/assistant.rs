//! An assistant message of the history -> its blocks, thinking included, in their order.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::block::{Block, Kind, Mark, push_compact};
use super::parts::is_blank;
use crate::chat::{Message, PartKind};
use crate::json::{Fields, push_string};

/// The blocks of `message`, whose calls are already there as `uses`. Thinking blocks go along
/// only if the request `thinks`.
pub fn blocks<'r>(message: &'r Message<'r>, uses: Vec<Block<'r>>, thinks: bool) -> Vec<Block<'r>> {
    let thoughts = message
        .thinking_blocks
        .map(read_thoughts)
        .unwrap_or_default();
    let laid_out = message
        .thinking_layout
        .and_then(|raw| Layout::read(raw, message, thoughts.len(), uses.len()));
    let refusal = message
        .refusal
        .as_deref()
        .filter(|text| !is_blank(text))
        .map(Block::text);
    let mut blocks = match laid_out {
        Some(layout) => layout.apply(thoughts, uses, refusal, thinks),
        None => {
            let mut blocks = Vec::new();
            if thinks {
                blocks.extend(thoughts.into_iter().flatten().map(thought));
            }
            blocks.extend(texts(message));
            blocks.extend(refusal);
            blocks.extend(uses);
            blocks
        }
    };
    // The provider refuses a message that ends in thought.
    while blocks.last().is_some_and(Block::is_thinking) {
        blocks.pop();
    }
    if let (Some(last), Some(mark)) = (blocks.last_mut(), Mark::of(message.cache_control, None)) {
        last.mark = Some(mark);
    }
    blocks
}

fn thought<'r>(json: Vec<u8>) -> Block<'r> {
    Block::new(Kind::Thinking(json))
}

fn texts<'r>(message: &'r Message<'r>) -> impl Iterator<Item = Block<'r>> {
    message.content.iter().filter_map(|part| match &part.kind {
        PartKind::Text(text) | PartKind::Refusal(text) if !is_blank(text) => Some(Block {
            kind: Kind::Text(text.as_ref().into()),
            mark: Mark::of(part.cache_control, part.cache_breakpoint),
        }),
        _ => None,
    })
}

/// The blocks as they go out; `None` for one that cannot: without its signature it is refused.
fn read_thoughts(raw: &RawValue) -> Vec<Option<Vec<u8>>> {
    let Ok(blocks) = serde_json::from_str::<Vec<&RawValue>>(raw.get()) else {
        log::debug!("thinking_blocks is no array; left out");
        return Vec::new();
    };
    blocks.into_iter().map(read_thought).collect()
}

fn read_thought(raw: &RawValue) -> Option<Vec<u8>> {
    let fields: Fields<'_> = serde_json::from_str(raw.get()).ok()?;
    let proof = match fields.get("type")?.get() {
        "\"thinking\"" => fields.get("signature")?,
        "\"redacted_thinking\"" => fields.get("data")?,
        _ => return None,
    };
    if !proof.get().starts_with('"') || proof.get() == "\"\"" {
        return None;
    }
    let mut json = Vec::with_capacity(raw.get().len());
    // `index` is there for stream accumulators only; the provider does not know it.
    for (name, value) in fields.0.iter().filter(|(name, _)| name != "index") {
        json.push(if json.is_empty() { b'{' } else { b',' });
        push_string(&mut json, name);
        json.push(b':');
        push_compact(&mut json, value.get());
    }
    json.push(b'}');
    Some(json)
}

/// The order of the blocks in the answer that the message came from.
struct Layout<'r> {
    entries: Vec<Entry>,
    text: Cow<'r, str>,
}

/// Kind, and index or length in bytes.
#[derive(Deserialize)]
struct Entry(String, usize);

impl<'r> Layout<'r> {
    /// The layout, if it fits what the message holds: every thought and every call once, and all
    /// of the text.
    fn read(
        raw: &RawValue,
        message: &'r Message<'r>,
        thoughts: usize,
        uses: usize,
    ) -> Option<Self> {
        let entries: Vec<Entry> = serde_json::from_str(raw.get()).ok()?;
        let text = whole_text(message);
        let mut thoughts_seen = vec![false; thoughts];
        let mut uses_seen = vec![false; uses];
        let mut at = 0_usize;
        for Entry(kind, number) in &entries {
            let seen = match kind.as_str() {
                "thinking" => thoughts_seen.get_mut(*number)?,
                "tool_use" => uses_seen.get_mut(*number)?,
                "text" => {
                    at = at.checked_add(*number)?;
                    if !text.is_char_boundary(at) {
                        return None;
                    }
                    continue;
                }
                _ => return None,
            };
            if std::mem::replace(seen, true) {
                return None;
            }
        }
        let complete = at == text.len()
            && thoughts_seen.into_iter().all(|seen| seen)
            && uses_seen.into_iter().all(|seen| seen);
        complete.then_some(Layout { entries, text })
    }

    fn apply(
        self,
        thoughts: Vec<Option<Vec<u8>>>,
        uses: Vec<Block<'r>>,
        refusal: Option<Block<'r>>,
        thinks: bool,
    ) -> Vec<Block<'r>> {
        let mut thoughts = thoughts;
        let mut uses: Vec<Option<Block<'r>>> = uses.into_iter().map(Some).collect();
        let mut refusal = refusal;
        let mut blocks = Vec::with_capacity(self.entries.len() + 1);
        let mut at = 0;
        for Entry(kind, number) in self.entries {
            match kind.as_str() {
                "thinking" if thinks => blocks.extend(thoughts[number].take().map(thought)),
                "thinking" => {}
                "text" => {
                    let piece = match &self.text {
                        Cow::Borrowed(text) => Cow::Borrowed(&text[at..at + number]),
                        Cow::Owned(text) => Cow::Owned(text[at..at + number].to_owned()),
                    };
                    at += number;
                    if !is_blank(&piece) {
                        blocks.push(Block::text(piece));
                    }
                }
                _ => {
                    blocks.extend(refusal.take());
                    blocks.extend(uses[number].take());
                }
            }
        }
        blocks.extend(refusal);
        blocks
    }
}

/// All text of the message, without a separator.
fn whole_text<'r>(message: &'r Message<'r>) -> Cow<'r, str> {
    let mut pieces = message.content.iter().filter_map(|part| match &part.kind {
        PartKind::Text(text) => Some(text.as_ref()),
        _ => None,
    });
    let first = pieces.next().unwrap_or_default();
    match pieces.next() {
        None => Cow::Borrowed(first),
        Some(second) => {
            let mut text = [first, second].concat();
            text.extend(pieces);
            Cow::Owned(text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{Part, Role};

    fn kinds(layout: &str, text: &str, thinks: bool) -> Vec<String> {
        let layout: Box<RawValue> = serde_json::from_str(layout).unwrap();
        let thoughts: Box<RawValue> = serde_json::from_str(
            r#"[{"index":0,"type":"thinking","thinking":"a","signature":"S"},
                {"index":1,"type":"redacted_thinking","data":"D"}]"#,
        )
        .unwrap();
        let mut message = Message::new(Role::Assistant);
        message.content.push(Part::text(text));
        message.thinking_blocks = Some(&thoughts);
        message.thinking_layout = Some(&layout);
        let uses = vec![Block::text("CALL")];
        blocks(&message, uses, thinks)
            .into_iter()
            .map(|block| match block.kind {
                Kind::Text(text) => text.into_owned(),
                Kind::Thinking(json) => String::from_utf8(json).unwrap(),
                other => format!("{other:?}"),
            })
            .collect()
    }

    const S: &str = r#"{"type":"thinking","thinking":"a","signature":"S"}"#;
    const D: &str = r#"{"type":"redacted_thinking","data":"D"}"#;

    #[test]
    fn a_layout_that_fits_is_used() {
        let layout = r#"[["thinking",0],["text",3],["thinking",1],["text",1],["tool_use",0]]"#;
        assert_eq!(
            kinds(layout, "\u{fc}bc", true),
            [S, "\u{fc}b", D, "c", "CALL"]
        );
        assert_eq!(kinds(layout, "\u{fc}bc", false), ["\u{fc}b", "c", "CALL"]);
    }

    #[test]
    fn one_that_does_not_fit_gives_the_default_order() {
        for layout in [
            r#"[["thinking",0],["text",3],["tool_use",0]]"#,
            r#"[["thinking",0],["thinking",0],["text",3],["tool_use",0]]"#,
            r#"[["thinking",0],["thinking",1],["text",4],["tool_use",0]]"#,
            r#"[["thinking",0],["thinking",1],["text",1],["text",2],["tool_use",0]]"#,
            r#"[["thinking",0],["thinking",1],["text",3],["tool_use",1]]"#,
            r#"[["thinking",0],["thinking",1],["text",3],["image",0],["tool_use",0]]"#,
            r#"[["text",18446744073709551615],["text",4]]"#,
            r#"{"a":1}"#,
            r#"[1]"#,
        ] {
            assert_eq!(
                kinds(layout, "\u{fc}b", true),
                [S, D, "\u{fc}b", "CALL"],
                "{layout}"
            );
        }
    }

    #[test]
    fn blocks_without_proof_stay_here() {
        for (raw, kept) in [
            (r#"[{"type":"thinking","thinking":"a","signature":""}]"#, 0),
            (r#"[{"type":"thinking","thinking":"a"}]"#, 0),
            (r#"[{"type":"thinking","thinking":"a","signature":1}]"#, 0),
            (r#"[{"type":"redacted_thinking"}]"#, 0),
            (r#"[{"type":"other","signature":"x"}, 7, null]"#, 0),
            (r#"{"type":"thinking"}"#, 0),
            (r#"[{"type":"thinking","thinking":"","signature":"x"}]"#, 1),
        ] {
            let raw: &RawValue = serde_json::from_str(raw).unwrap();
            assert_eq!(
                read_thoughts(raw).into_iter().flatten().count(),
                kept,
                "{raw}"
            );
        }
    }
}
