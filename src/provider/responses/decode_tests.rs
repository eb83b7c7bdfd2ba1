//! The order of what the decoder puts out, and what reads better as code than as golden files.

use std::sync::Arc;

use super::decode::Decode;
use crate::chat::{Delta, DeltaSink, FinishReason};
use crate::failure::{Class, Failure};
use crate::golden::each_event;
use crate::provider::{Decoder, Flow, Undo};

/// Deltas, one word each, with their order checked.
#[derive(Default)]
pub struct Said {
    pub words: Vec<String>,
    pub extra: Vec<String>,
    pub finish: Option<FinishReason>,
    calls: u32,
}

impl DeltaSink for Said {
    fn put(&mut self, delta: Delta<'_>) {
        let starts = matches!(delta, Delta::Start { .. });
        assert_eq!(starts, self.words.is_empty(), "the start comes first, once");
        assert!(self.finish.is_none(), "nothing comes behind the finish");
        self.words.push(match delta {
            Delta::Start { id, model } => format!("start {id} {model}"),
            Delta::Text { text, .. } => {
                assert!(!text.is_empty());
                format!("text {text}")
            }
            Delta::Reasoning { text, .. } => format!("reasoning {text}"),
            Delta::Extra { json, .. } => {
                assert!(self.extra.is_empty(), "the carrier comes once");
                self.extra.push(json.to_owned());
                "extra".into()
            }
            Delta::ToolStart { index, id, .. } => {
                assert_eq!(index, self.calls, "calls are counted without gaps");
                self.calls += 1;
                format!("call {index} {id}")
            }
            Delta::ToolArgs {
                index, fragment, ..
            } => {
                assert!(index < self.calls, "arguments belong to a call");
                format!("args {index} {fragment}")
            }
            Delta::Refusal { text, .. } => format!("refusal {text}"),
            Delta::Citation { start, end, .. } => {
                assert!(start <= end);
                format!("citation {start} {end}")
            }
            Delta::Logprobs { .. } => "logprobs".into(),
            Delta::Usage(_) => "usage".into(),
            Delta::ServiceTier(tier) => format!("tier {tier}"),
            Delta::Finish { reason, .. } => {
                self.finish = Some(reason);
                "finish".into()
            }
            Delta::Image { .. } | Delta::Audio { .. } => panic!("the format has none"),
        });
    }
}

fn stream(events: &[&str]) -> (Said, Result<Flow, Failure>) {
    let mut said = Said::default();
    let mut decoder = Decode::new(Arc::new(Undo::default()));
    let text: String = events.iter().map(|e| format!("data: {e}\n\n")).collect();
    let ended = each_event(text.as_bytes(), usize::MAX, |event| {
        decoder.on_event(event, &mut said)
    });
    (said, ended)
}

const CREATED: &str = r#"{"type":"response.created","response":{"id":"resp_1","model":"gpt","status":"in_progress"}}"#;
const COMPLETED: &str = r#"{"type":"response.completed","response":{"id":"resp_1","model":"gpt","status":"completed","usage":{"input_tokens":1}}}"#;

#[test]
fn carrier_and_usage_come_before_the_finish_and_nothing_is_read_behind_it() {
    let (said, ended) = stream(&[
        CREATED,
        r#"{"type":"response.output_item.done","output_index":0,"item":{"type":"reasoning","id":"rs_1","summary":[]}}"#,
        r#"{"type":"response.output_text.delta","output_index":1,"delta":"x"}"#,
        COMPLETED,
        r#"{"type":"response.output_text.delta","output_index":1,"delta":"too late"}"#,
    ]);
    assert_eq!(ended, Ok(Flow::Done));
    let expected = ["start resp_1 gpt", "text x", "extra", "usage", "finish"];
    assert_eq!(said.words, expected);
}

#[test]
fn vector_34_the_id_of_a_call_is_the_one_that_its_result_names() {
    let (said, ended) = stream(&[
        CREATED,
        r#"{"type":"response.output_item.added","output_index":0,"item":{"id":"fc_1","type":"function_call","call_id":"call_1","name":"f","arguments":""}}"#,
        COMPLETED,
    ]);
    assert_eq!(ended, Ok(Flow::Done));
    assert_eq!(said.words[1], "call 0 call_1");
    assert_eq!(said.finish, Some(FinishReason::ToolCalls));
}

#[test]
fn an_answer_without_its_first_event_begins_all_the_same() {
    let (said, ended) = stream(&[
        r#"{"type":"response.output_text.delta","delta":"x"}"#,
        r#"{"type":"response.output_text.delta","delta":"y"}"#,
        COMPLETED,
    ]);
    assert_eq!(ended, Ok(Flow::Done));
    assert_eq!(said.words[..3], ["start  ", "text x", "text y"]);
}

#[test]
fn a_failure_before_any_output_says_nothing_to_the_caller() {
    let (said, ended) = stream(&[
        CREATED,
        r#"{"type":"response.failed","response":{"status":"failed","error":{"code":"rate_limit_exceeded","message":"m"}}}"#,
    ]);
    assert_eq!(ended.unwrap_err().class, Class::RateLimit);
    assert_eq!(said.words, ["start resp_1 gpt"]);
}

#[test]
fn an_end_without_the_last_event_is_a_cut() {
    let (mut said, ended) = stream(&[CREATED, "[DONE]"]);
    assert_eq!(ended, Ok(Flow::More));
    let mut decoder = Decode::new(Arc::new(Undo::default()));
    let failure = decoder.on_end(&mut said).unwrap_err();
    assert_eq!(failure.code.as_deref(), Some("upstream_disconnected"));
}
