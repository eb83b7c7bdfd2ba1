//! Content blocks of a message, from start to stop.

use std::sync::Arc;

use super::blocks::{Cited, Open, read_citation};
use super::{BLOCKS, Messages, wire};
use crate::chat::{Delta, DeltaSink, ToolKind};
use crate::failure::Failure;

impl Messages {
    pub(super) fn block_start(
        &mut self,
        index: u64,
        raw: &str,
        out: &mut dyn DeltaSink,
    ) -> Result<(), Failure> {
        self.block_stop(index, out);
        self.blocks += 1;
        if self.blocks > BLOCKS {
            return Err(Failure::malformed(
                "the upstream's answer has too many blocks",
            ));
        }
        if let Some(kept) = &mut self.kept {
            kept.start(index, raw);
        }
        let block = match serde_json::from_str::<wire::Block<'_>>(raw) {
            Ok(block) => block,
            Err(error) => {
                // Blocks of other kinds use the same names for other things.
                log::debug!("a block that cannot be read is skipped: {error}");
                return self.keep_open(index, Open::Ignored);
            }
        };
        self.start_late(out);
        let open = match &*block.r#type {
            "text" => {
                self.carrier.text_starts();
                let citations = block.citations.unwrap_or_default();
                let open = Open::text(self.scalars, &citations);
                self.text(&block.text, out);
                open
            }
            "thinking" => {
                self.carrier.thought_starts();
                self.reason(&block.thinking, true, out);
                let (thinking, signature) = (block.thinking.0, block.signature.0);
                let said = !thinking.is_empty();
                match self.carrier.has_room(thinking.len() + signature.len()) {
                    true => Open::Thinking {
                        said,
                        thinking: thinking.into_owned(),
                        signature: signature.into_owned(),
                    },
                    false => Open::Thinking {
                        said,
                        thinking: String::new(),
                        signature: String::new(),
                    },
                }
            }
            "redacted_thinking" => {
                self.carrier.thought_starts();
                self.carrier.redacted(&block.data);
                Open::Ignored
            }
            "tool_use" => {
                let tool = self.next_tool;
                self.next_tool += 1;
                self.carrier.tool(tool);
                let undo = Arc::clone(&self.undo);
                let name = undo.name(&block.name);
                let kind = match undo.custom.contains(name) {
                    true => ToolKind::Custom,
                    false => ToolKind::Function,
                };
                self.said = true;
                out.put(Delta::ToolStart {
                    candidate: 0,
                    index: tool,
                    id: &block.id,
                    name,
                    kind,
                    google_signature: None,
                });
                Open::tool(tool, kind, block.input)
            }
            other => {
                log::debug!("a block of type {other:?} is skipped");
                Open::Ignored
            }
        };
        self.keep_open(index, open)
    }

    fn keep_open(&mut self, index: u64, open: Open) -> Result<(), Failure> {
        self.budget.take(open.size())?;
        self.open.insert(index, open);
        Ok(())
    }

    pub(super) fn block_delta(
        &mut self,
        index: u64,
        delta: &wire::Delta<'_>,
        out: &mut dyn DeltaSink,
    ) -> Result<(), Failure> {
        if let Some(kept) = &mut self.kept {
            kept.delta(index, delta);
        }
        if matches!(self.open.get(&index), Some(Open::Ignored)) {
            return Ok(());
        }
        self.start_late(out);
        let open = self.open.get_mut(&index);
        match (&*delta.r#type, open) {
            ("text_delta", _) => self.text(&delta.text, out),
            ("thinking_delta", open) => {
                let mut is_first = false;
                if let Some(Open::Thinking { thinking, said, .. }) = open {
                    is_first = !*said && !delta.thinking.is_empty();
                    *said |= is_first;
                    if self.carrier.has_room(delta.thinking.len()) {
                        thinking.push_str(&delta.thinking);
                    }
                }
                self.reason(&delta.thinking, is_first, out);
            }
            ("signature_delta", Some(Open::Thinking { signature, .. })) => {
                if self.carrier.has_room(delta.signature.len()) {
                    signature.push_str(&delta.signature);
                }
            }
            ("input_json_delta", Some(Open::Tool(tool))) => {
                self.budget.take(tool.take(&delta.partial_json, out))?;
            }
            ("citations_delta", Some(Open::Text { citations, .. })) => {
                if let Some(citation) = delta.citation.and_then(read_citation) {
                    self.budget.take(citation.size())?;
                    citations.push(citation);
                }
            }
            (other, _) => log::debug!("a delta of type {other:?} is skipped"),
        }
        Ok(())
    }

    /// For servers that leave `message_start` out.
    pub(super) fn start_late(&mut self, out: &mut dyn DeltaSink) {
        self.start("", "", out);
        self.in_message = true;
    }

    pub(super) fn block_stop(&mut self, index: u64, out: &mut dyn DeltaSink) {
        if let Some(kept) = &mut self.kept {
            kept.stop(index);
        }
        if let Some(open) = self.open.remove(&index) {
            self.budget.give_back(open.size());
            self.close(open, out);
        }
    }

    pub(super) fn close(&mut self, open: Open, out: &mut dyn DeltaSink) {
        match open {
            Open::Ignored => {}
            Open::Text { start, citations } => {
                for Cited { url, title } in &citations {
                    out.put(Delta::Citation {
                        candidate: 0,
                        url,
                        title,
                        start,
                        end: self.scalars,
                    });
                }
            }
            Open::Thinking {
                thinking,
                signature,
                ..
            } => self.carrier.thought(&thinking, &signature),
            Open::Tool(tool) => tool.close(out),
        }
    }

    /// Content, with a fence taken off where there may be one.
    pub(super) fn text(&mut self, text: &str, out: &mut dyn DeltaSink) {
        if text.is_empty() {
            return;
        }
        match self.fence.take() {
            None => self.pass(text, out),
            Some(mut fence) => {
                fence.push(text, |text| self.pass(text, out));
                self.fence = Some(fence);
            }
        }
    }

    pub(super) fn pass(&mut self, text: &str, out: &mut dyn DeltaSink) {
        self.said = true;
        self.scalars += text.chars().count() as u64;
        self.carrier.text(text.len());
        out.put(Delta::Text { candidate: 0, text });
    }

    /// Readable reasoning; `is_first` of its block.
    pub(super) fn reason(&mut self, text: &str, is_first: bool, out: &mut dyn DeltaSink) {
        if text.is_empty() {
            return;
        }
        if is_first && self.reasoned {
            out.put(Delta::Reasoning {
                candidate: 0,
                text: "\n\n",
            });
        }
        self.said = true;
        self.reasoned = true;
        out.put(Delta::Reasoning { candidate: 0, text });
    }
}
