//! For tests: what a decoder says, put together again, with the order of its deltas checked.

use crate::chat::{Delta, DeltaSink, FinishReason, ToolKind, Usage};

/// Deltas, put together again.
#[derive(Debug, Default, PartialEq)]
pub struct Heard {
    pub started: bool,
    pub id: String,
    pub model: String,
    pub candidates: Vec<HeardCandidate>,
    pub usage: Usage,
    pub tier: Option<String>,
    /// The candidates in the order in which they began.
    pub order: Vec<u32>,
}

#[derive(Debug, Default, PartialEq)]
pub struct HeardCandidate {
    pub content: String,
    pub reasoning: String,
    pub refusal: String,
    pub extra: Option<String>,
    pub calls: Vec<HeardCall>,
    pub images: Vec<(String, String)>,
    pub audio: Vec<(String, String)>,
    pub citations: Vec<(String, String, u64, u64)>,
    pub logprobs: Vec<String>,
    pub finish: Option<FinishReason>,
}

#[derive(Debug, Default, PartialEq)]
pub struct HeardCall {
    pub id: String,
    pub name: String,
    pub args: String,
    pub custom: bool,
    pub signature: String,
}

impl Heard {
    fn of(&mut self, candidate: u32) -> &mut HeardCandidate {
        assert!(self.started, "the start comes first");
        if !self.order.contains(&candidate) {
            self.order.push(candidate);
        }
        let index = candidate as usize;
        while self.candidates.len() <= index {
            self.candidates.push(HeardCandidate::default());
        }
        let one = &mut self.candidates[index];
        assert!(one.finish.is_none(), "nothing comes behind the finish");
        one
    }
}

impl DeltaSink for Heard {
    fn put(&mut self, delta: Delta<'_>) {
        match delta {
            Delta::Start { id, model } => {
                assert!(!self.started, "the start comes once");
                self.started = true;
                (self.id, self.model) = (id.to_owned(), model.to_owned());
            }
            Delta::Text { candidate, text } => {
                assert!(!text.is_empty());
                self.of(candidate).content += text;
            }
            Delta::Reasoning { candidate, text } => {
                assert!(!text.is_empty());
                self.of(candidate).reasoning += text;
            }
            Delta::Extra { candidate, json } => {
                assert!(self.of(candidate).extra.replace(json.to_owned()).is_none());
            }
            Delta::ToolStart {
                candidate,
                index,
                id,
                name,
                kind,
                google_signature,
            } => {
                let calls = &mut self.of(candidate).calls;
                assert_eq!(calls.len(), index as usize);
                calls.push(HeardCall {
                    id: id.into(),
                    name: name.into(),
                    args: String::new(),
                    custom: kind == ToolKind::Custom,
                    signature: google_signature.unwrap_or_default().into(),
                });
            }
            Delta::ToolArgs {
                candidate,
                index,
                fragment,
            } => {
                self.of(candidate).calls[index as usize].args += fragment;
            }
            Delta::Refusal { candidate, text } => self.of(candidate).refusal += text,
            Delta::Image {
                candidate,
                mime,
                base64,
                ..
            } => {
                self.of(candidate).images.push((mime.into(), base64.into()));
            }
            Delta::Audio {
                candidate,
                id,
                base64,
            } => {
                self.of(candidate).audio.push((id.into(), base64.into()));
            }
            Delta::Citation {
                candidate,
                url,
                title,
                start,
                end,
            } => {
                self.of(candidate)
                    .citations
                    .push((url.into(), title.into(), start, end));
            }
            Delta::Logprobs { candidate, json } => self.of(candidate).logprobs.push(json.into()),
            Delta::Usage(usage) => {
                assert!(self.started);
                self.usage.merge(usage);
            }
            Delta::ServiceTier(tier) => self.tier = Some(tier.into()),
            Delta::Finish { candidate, reason } => {
                self.of(candidate).finish = Some(reason);
            }
        }
    }
}
