//! A chat completion stream as deltas, for callers who speak another dialect than the upstream.
//!
//! The relay goes first: it knows errors, ends and what compatible servers get wrong, and what it
//! writes are well-formed chunks, which are all that has to be read here.

use serde::Deserialize;
use serde_json::Value;

use super::relay::RelayStream;
use crate::chat::{Delta, DeltaSink, FinishReason, ToolKind};
use crate::failure::Failure;
use crate::json::unicode::Seam;
use crate::provider::{Decoder, Flow};
use crate::sse;

pub struct Deltas {
    relay: RelayStream,
    /// What the relay wrote for the event at hand.
    chunks: Vec<u8>,
    begun: bool,
    seam: Seam,
    /// The call whose name may still go on.
    named: Option<Named>,
}

/// A call that has a name and no arguments yet.
struct Named {
    candidate: u32,
    index: u32,
    id: String,
    name: String,
    kind: ToolKind,
    signature: Option<String>,
}

impl Named {
    fn put(self, out: &mut dyn DeltaSink) {
        out.put(Delta::ToolStart {
            candidate: self.candidate,
            index: self.index,
            id: &self.id,
            name: &self.name,
            kind: self.kind,
            google_signature: self.signature.as_deref(),
        });
    }
}

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    id: String,
    #[serde(default)]
    model: Value,
    #[serde(default)]
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    index: u32,
    #[serde(default)]
    delta: Value,
    #[serde(default)]
    finish_reason: Value,
}

impl Deltas {
    pub fn new(relay: RelayStream) -> Deltas {
        Deltas {
            relay,
            chunks: Vec::new(),
            begun: false,
            seam: Seam::default(),
            named: None,
        }
    }

    /// Hands on what the relay wrote.
    fn put(&mut self, out: &mut dyn DeltaSink) {
        let chunks = std::mem::take(&mut self.chunks);
        let events = chunks.split(|byte| *byte == b'\n');
        let payloads = events.filter_map(|line| line.strip_prefix(b"data: "));
        for data in payloads {
            let Ok(chunk) = serde_json::from_str::<Chunk>(&self.seam.mend(data)) else {
                continue;
            };
            if !self.begun {
                self.begun = true;
                out.put(Delta::Start {
                    id: &chunk.id,
                    model: chunk.model.as_str().unwrap_or_default(),
                });
            }
            for choice in &chunk.choices {
                put_choice(choice, &mut self.named, out);
            }
        }
        let usage = self.relay.usage();
        if usage != Default::default() {
            out.put(Delta::Usage(usage));
        }
    }
}

fn put_choice(choice: &Choice, named: &mut Option<Named>, out: &mut dyn DeltaSink) {
    let candidate = choice.index;
    let text = |key: &str| {
        let text = choice.delta.get(key).and_then(Value::as_str);
        text.filter(|text| !text.is_empty())
    };
    if let Some(text) = text("reasoning_content").or_else(|| text("reasoning")) {
        out.put(Delta::Reasoning { candidate, text });
    }
    if let Some(text) = text("content") {
        out.put(Delta::Text { candidate, text });
    }
    let parts = choice.delta.get("content").and_then(Value::as_array);
    for part in parts.into_iter().flatten() {
        put_part(candidate, part, out);
    }
    if let Some(text) = text("refusal") {
        out.put(Delta::Refusal { candidate, text });
    }
    let calls = choice.delta.get("tool_calls").and_then(Value::as_array);
    for call in calls.into_iter().flatten() {
        put_call(candidate, call, named, out);
    }
    let reason = match choice.finish_reason.as_str() {
        None => return,
        Some("length") => FinishReason::Length,
        Some("content_filter") => FinishReason::ContentFilter,
        Some("tool_calls" | "function_call") => FinishReason::ToolCalls,
        Some(_) => FinishReason::Stop,
    };
    if let Some(named) = named.take() {
        named.put(out);
    }
    out.put(Delta::Finish { candidate, reason });
}

/// Content in parts, which is how Mistral's models think: thoughts have parts of their own.
fn put_part(candidate: u32, part: &Value, out: &mut dyn DeltaSink) {
    let text = |part: &Value, key: &str| {
        let text = part.get(key).and_then(Value::as_str);
        text.filter(|text| !text.is_empty()).map(str::to_owned)
    };
    if let Some(text) = text(part, "text") {
        let text = &text;
        out.put(Delta::Text { candidate, text });
    }
    let thoughts = match part.get("thinking") {
        Some(Value::Array(parts)) => parts.iter().filter_map(|part| text(part, "text")).collect(),
        _ => text(part, "thinking").unwrap_or_default(),
    };
    if !thoughts.is_empty() {
        let text = &thoughts;
        out.put(Delta::Reasoning { candidate, text });
    }
}

fn put_call(candidate: u32, call: &Value, named: &mut Option<Named>, out: &mut dyn DeltaSink) {
    let index = call.get("index").and_then(Value::as_u64);
    let Some(index) = index.and_then(|index| u32::try_from(index).ok()) else {
        return;
    };
    let (kind, object) = match (call.get("function"), call.get("custom")) {
        (Some(function), _) => (ToolKind::Function, function),
        (None, Some(custom)) => (ToolKind::Custom, custom),
        (None, None) => return,
    };
    let text =
        |value: &'_ Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let is_same = |named: &Named| (named.candidate, named.index) == (candidate, index);
    if let Some(other) = named.take_if(|named| !is_same(named)) {
        other.put(out);
    }
    if let Some(name) = text(object, "name").filter(|name| !name.is_empty()) {
        match named {
            // The relay passes on a second name only where it belongs to the first.
            Some(named) => named.name.push_str(&name),
            None => {
                let signature = call.pointer("/extra_content/google/thought_signature");
                *named = Some(Named {
                    candidate,
                    index,
                    id: text(call, "id").unwrap_or_default(),
                    name,
                    kind,
                    signature: signature.and_then(Value::as_str).map(str::to_owned),
                });
            }
        }
    }
    let arguments = match kind {
        ToolKind::Function => "arguments",
        ToolKind::Custom => "input",
    };
    if let Some(fragment) = text(object, arguments).filter(|text| !text.is_empty()) {
        if let Some(named) = named.take() {
            named.put(out);
        }
        out.put(Delta::ToolArgs {
            candidate,
            index,
            fragment: &fragment,
        });
    }
}

impl Decoder for Deltas {
    fn on_event(
        &mut self,
        event: sse::Event<'_>,
        out: &mut dyn DeltaSink,
    ) -> Result<Flow, Failure> {
        let flow = self.relay.on_event(event, &mut self.chunks)?;
        self.put(out);
        Ok(flow)
    }

    fn on_end(&mut self, out: &mut dyn DeltaSink) -> Result<(), Failure> {
        self.relay.on_end(&mut self.chunks)?;
        self.put(out);
        Ok(())
    }

    fn on_body(&mut self, body: &[u8], out: &mut dyn DeltaSink) -> Result<(), Failure> {
        self.relay.on_body(body, &mut self.chunks)?;
        self.put(out);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::Usage;
    use crate::dialect::Streamed;
    use crate::dialect::openai::{Chunks, Stamp};

    fn stamp() -> Stamp {
        Stamp {
            seed: 1,
            created: 7,
            model: "m".into(),
            include_usage: true,
            legacy_functions: false,
        }
    }

    /// What a chat caller would be told of a stream that was taken apart.
    fn retold(stream: &str) -> Result<(String, Usage), Failure> {
        let mut deltas = Deltas::new(RelayStream::new(stamp(), false));
        let mut chunks = Chunks::new(stamp());
        let mut reader = sse::Reader::new(1 << 20);
        let mut bytes = stream.as_bytes();
        loop {
            while let Some(event) = reader.next().unwrap() {
                deltas.on_event(event, &mut chunks)?;
            }
            if reader.fill(&mut bytes).unwrap() == 0 {
                break;
            }
        }
        deltas.on_end(&mut chunks)?;
        Streamed::finish(&mut chunks);
        let text = String::from_utf8(Streamed::bytes(&chunks).to_vec()).unwrap();
        Ok((text, Streamed::usage(&chunks)))
    }

    #[test]
    fn nothing_that_a_caller_can_see_gets_lost() {
        let stream = concat!(
            "data: {\"id\":\"c1\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n",
            "data: {\"id\":\"c1\",\"choices\":[{\"index\":0,\"delta\":{\"reasoning_content\":\"hm\"}}]}\n\n",
            "data: {\"id\":\"c1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\\n\"}}]}\n\n",
            "data: {\"id\":\"c1\",\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"call_1\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"\"}}]}}]}\n\n",
            "data: {\"id\":\"c1\",\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"{}\"}}]}}]}\n\n",
            "data: {\"id\":\"c1\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"tool_calls\"}]}\n\n",
            "data: {\"id\":\"c1\",\"choices\":[],\"usage\":{\"prompt_tokens\":2,\"completion_tokens\":3}}\n\n",
            "data: [DONE]\n\n",
        );
        let (told, usage) = retold(stream).unwrap();
        for part in [
            r#""id":"c1""#,
            r#""reasoning_content":"hm""#,
            r#""content":"a\n""#,
            r#""id":"call_1""#,
            r#""name":"f""#,
            r#""arguments":"{}""#,
            r#""finish_reason":"tool_calls""#,
        ] {
            assert!(told.contains(part), "{part} in {told}");
        }
        assert_eq!((usage.prompt, usage.completion), (Some(2), Some(3)));
    }

    #[test]
    fn content_in_parts_and_halves_of_characters_arrive() {
        let chunk = |content: &str, finish: &str| {
            format!(
                "data: {{\"id\":\"c1\",\"choices\":[{{\"index\":0,\"delta\":{{\"role\":\"assistant\",\"content\":{content}}},\"finish_reason\":{finish}}}]}}\n\n"
            )
        };
        let stream = [
            chunk(
                r#"[{"type":"thinking","thinking":[{"type":"text","text":"h"},{"type":"text","text":"m"}]}]"#,
                "null",
            ),
            chunk(r#"[{"type":"text","text":"one "}]"#, "null"),
            chunk(r#""two \ud83d""#, "null"),
            chunk(r#""\ude00""#, "\"stop\""),
            "data: [DONE]\n\n".to_owned(),
        ];
        let (told, _) = retold(&stream.concat()).unwrap();
        for part in [
            r#""reasoning_content":"hm""#,
            r#""content":"one ""#,
            r#""content":"two ""#,
            "\"content\":\"\u{1f600}\"",
        ] {
            assert!(told.contains(part), "{part} in {told}");
        }
    }

    #[test]
    fn an_error_and_an_early_end_are_failures() {
        let begun = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n";
        assert!(retold(begun).is_err());
        let error = format!("{begun}data: {{\"error\":{{\"message\":\"no\"}}}}\n\n");
        assert_eq!(retold(&error).unwrap_err().message, "no");
    }
}
