//! OpenAI's Chat Completions as an upstream: a relay, since callers speak it too.

use super::*;
use crate::chat::Usage;
use crate::dialect::openai::Head;
use std::sync::Arc;

pub fn encode(head: &Head<'_>, model: &str, _options: &Options) -> Result<Encoded, ApiError> {
    let mut body = b"{".to_vec();
    for (i, (key, value)) in head.fields.0.iter().enumerate() {
        if i > 0 {
            body.push(b',');
        }
        crate::json::push_string(&mut body, key);
        body.push(b':');
        if key == "model" {
            crate::json::push_string(&mut body, model);
        } else {
            body.extend_from_slice(value.get().as_bytes());
        }
    }
    body.push(b'}');
    Ok(Encoded {
        path: "/chat/completions".into(),
        body,
        dropped: vec![],
        undo: Arc::default(),
    })
}
pub struct RelayStream {
    finish: bool,
}
impl RelayStream {
    pub fn new(_a: bool, _b: bool) -> Self {
        RelayStream { finish: false }
    }
    pub fn on_event(&mut self, event: sse::Event<'_>, out: &mut Vec<u8>) -> Result<Flow, Failure> {
        if event.data == b"[DONE]" {
            out.extend_from_slice(b"data: [DONE]\n\n");
            return Ok(Flow::Done);
        }
        if event.data.windows(8).any(|w| w == b"\"error\":") {
            return Err(Failure::from_event(event.data));
        }
        self.finish |= event.data.windows(17).any(|w| w == b"\"finish_reason\":\"");
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(event.data);
        out.extend_from_slice(b"\n\n");
        Ok(Flow::More)
    }
    pub fn on_end(&mut self, out: &mut Vec<u8>) -> Result<(), Failure> {
        if self.finish {
            out.extend_from_slice(b"data: [DONE]\n\n");
            return Ok(());
        }
        Err(Failure::disconnected())
    }
    pub fn on_body(&mut self, _body: &[u8], _out: &mut Vec<u8>) -> Result<(), Failure> {
        Err(Failure::malformed("a"))
    }
    pub fn usage(&self) -> Usage {
        Usage::default()
    }
}
pub fn relay_body(body: &[u8]) -> Result<Usage, Failure> {
    if body.is_empty() {
        return Err(Failure::empty());
    }
    Ok(Usage::default())
}
