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
        r#"{"type":"response.function_call_arguments.done","output_index":0,"arguments":""}"#,
        COMPLETED,
    ]);
    assert_eq!(ended, Ok(Flow::Done));
    assert_eq!(said.words[1], "call 0 call_1");
    assert_eq!(said.finish, Some(FinishReason::ToolCalls));
}

/// A tool must not run with the half of what it was to be given.
#[test]
fn a_call_whose_arguments_never_end_is_a_failure() {
    let added = r#"{"type":"response.output_item.added","output_index":0,"item":{"id":"fc_1","type":"function_call","call_id":"call_1","name":"f","arguments":""}}"#;
    let half = r#"{"type":"response.function_call_arguments.delta","output_index":0,"item_id":"fc_1","delta":"{\"a\""}"#;
    let silent = r#"{"type":"response.completed","response":{"id":"resp_1","status":"completed","output":[{"id":"fc_1","type":"function_call","call_id":"call_1","name":"f","arguments":""}]}}"#;
    for end in [COMPLETED, silent] {
        let (said, ended) = stream(&[CREATED, added, half, end]);
        let failure = ended.unwrap_err();
        assert_eq!(failure.code.as_deref(), Some("malformed_response"), "{end}");
        assert_eq!(said.finish, None);
    }
    // What a model itself leaves half is passed on as it is.
    let told =
        r#"{"type":"response.function_call_arguments.done","output_index":0,"arguments":"{\"a\""}"#;
    let (said, ended) = stream(&[CREATED, added, half, told, COMPLETED]);
    assert_eq!(ended, Ok(Flow::Done));
    assert_eq!(said.finish, Some(FinishReason::ToolCalls));
    // As an object, they are the text of it.
    let object = r#"{"type":"response.output_item.done","output_index":0,"item":{"id":"fc_1","type":"function_call","call_id":"call_1","name":"f","arguments":{"a":1}}}"#;
    let (said, ended) = stream(&[CREATED, object, COMPLETED]);
    assert_eq!(ended, Ok(Flow::Done));
    assert_eq!(said.words[2], r#"args 0 {"a":1}"#);
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

/// A stream of which each piece of the answer comes in one place only.
#[test]
fn what_comes_late_is_said_once() {
    let message = r#"{"id":"msg_1","type":"message","role":"assistant","status":"completed","content":[{"type":"output_text","text":"Hi there","annotations":[]}]}"#;
    let call = r#"{"id":"fc_1","type":"function_call","call_id":"call_1","name":"f","arguments":"{\"a\":1}","status":"completed"}"#;
    let added = |item: &str, index: u32| {
        let item = item
            .replace(r#""arguments":"{\"a\":1}""#, r#""arguments":"""#)
            .replace(
                r#"[{"type":"output_text","text":"Hi there","annotations":[]}]"#,
                "[]",
            );
        format!(r#"{{"type":"response.output_item.added","output_index":{index},"item":{item}}}"#)
    };
    let done = |item: &str, index: u32| {
        format!(r#"{{"type":"response.output_item.done","output_index":{index},"item":{item}}}"#)
    };
    let completed = |output: &str| {
        format!(
            r#"{{"type":"response.completed","response":{{"id":"resp_1","model":"gpt","status":"completed","output":[{output}]}}}}"#
        )
    };
    let both = format!("{message},{call}");
    let text = |kind: &str, key: &str, text: &str| {
        format!(
            r#"{{"type":"response.{kind}","output_index":0,"content_index":0,"{key}":"{text}"}}"#
        )
    };
    let args = |kind: &str, key: &str, text: &str| {
        format!(
            r#"{{"type":"response.function_call_arguments.{kind}","output_index":1,"{key}":"{text}"}}"#
        )
    };
    let part = r#"{"type":"response.content_part.done","output_index":0,"content_index":0,"part":{"type":"output_text","text":"Hi there"}}"#;
    let whole_args = r#"{\"a\":1}"#;
    let ways: Vec<Vec<String>> = vec![
        vec![completed(&both)],
        vec![done(message, 0), done(call, 1), completed("")],
        vec![
            done(message, 0),
            done(message, 0),
            done(call, 1),
            done(call, 1),
            completed(&both),
        ],
        vec![added(message, 0), added(call, 1), completed(&both)],
        vec![
            added(message, 0),
            text("output_text.done", "text", "Hi there"),
            added(call, 1),
            args("done", "arguments", whole_args),
            completed(""),
        ],
        vec![
            added(message, 0),
            part.into(),
            added(call, 1),
            done(call, 1),
            completed(""),
        ],
        // Half in pieces, the rest at some end.
        vec![
            added(message, 0),
            text("output_text.delta", "delta", "Hi th"),
            added(call, 1),
            args("delta", "delta", r#"{\"a"#),
            completed(&both),
        ],
        vec![
            added(message, 0),
            text("output_text.delta", "delta", "Hi th"),
            done(message, 0),
            added(call, 1),
            args("delta", "delta", r#"{\"a"#),
            done(call, 1),
            completed(&both),
        ],
        // Everything, everywhere.
        vec![
            added(message, 0),
            text("output_text.delta", "delta", "Hi "),
            text("output_text.delta", "delta", "there"),
            text("output_text.done", "text", "Hi there"),
            part.into(),
            done(message, 0),
            added(call, 1),
            args("delta", "delta", whole_args),
            args("done", "arguments", whole_args),
            done(call, 1),
            completed(&both),
        ],
        // Numbers that mean nothing.
        vec![
            added(message, 0),
            text("output_text.delta", "delta", "Hi there"),
            added(call, 0),
            args("delta", "delta", whole_args).replace(":1,", ":0,"),
            done(call, 7),
            done(message, 9),
            completed(&format!("{call},{message}")),
        ],
    ];
    for (number, way) in ways.iter().enumerate() {
        let mut events = vec![CREATED];
        events.extend(way.iter().map(String::as_str));
        let (said, ended) = stream(&events);
        assert_eq!(ended, Ok(Flow::Done), "way {number}");
        let joined = |start: &str| -> String {
            said.words
                .iter()
                .filter_map(|word| word.strip_prefix(start))
                .collect()
        };
        assert_eq!(
            joined("text "),
            "Hi there",
            "way {number}: {:?}",
            said.words
        );
        assert_eq!(
            joined("args 0 "),
            "{\"a\":1}",
            "way {number}: {:?}",
            said.words
        );
        assert_eq!(joined("call "), "0 call_1", "way {number}");
        assert_eq!(said.finish, Some(FinishReason::ToolCalls));
    }
}

#[test]
fn a_call_whose_arguments_never_come_or_change_is_a_broken_answer() {
    let added = r#"{"type":"response.output_item.added","output_index":0,"item":{"id":"fc_1","type":"function_call","call_id":"call_1","name":"f","arguments":""}}"#;
    let delta =
        r#"{"type":"response.function_call_arguments.delta","output_index":0,"delta":"{\"a\":1}"}"#;
    let done = |arguments: &str| {
        format!(
            r#"{{"type":"response.function_call_arguments.done","output_index":0,"arguments":"{arguments}"}}"#
        )
    };
    let other = done(r#"{\"a\":2}"#);
    for events in [
        vec![CREATED, added, COMPLETED],
        vec![CREATED, added, delta, &other, COMPLETED],
        vec![CREATED, added, delta],
        vec![CREATED, added],
    ] {
        let (said, ended) = stream(&events);
        assert!(!matches!(ended, Ok(Flow::Done)), "{events:?}");
        assert_eq!(said.finish, None, "{events:?}");
    }
    // Written in another way, they are the same.
    let same = done(r#"{ \"\\u0061\": 1 }"#);
    let (said, ended) = stream(&[CREATED, added, delta, &same, COMPLETED]);
    assert_eq!(ended, Ok(Flow::Done));
    assert_eq!(said.words[2], r#"args 0 {"a":1}"#);
    // An answer that was cut by its limit may end in the middle of a call.
    let cut = COMPLETED.replace("completed", "incomplete");
    let (said, ended) = stream(&[CREATED, added, &cut]);
    assert_eq!(
        (ended, said.finish),
        (Ok(Flow::Done), Some(FinishReason::Length))
    );
}

#[test]
fn refusals_and_thoughts_that_come_late_are_said_once() {
    for late in [
        r#"{"type":"response.refusal.done","output_index":0,"content_index":0,"refusal":"No."}"#,
        r#"{"type":"response.output_item.done","output_index":0,"item":{"type":"message","content":[{"type":"refusal","refusal":"No."}]}}"#,
    ] {
        let (said, ended) = stream(&[CREATED, late, late, COMPLETED]);
        assert_eq!(ended, Ok(Flow::Done));
        assert_eq!(said.words[1..3], ["refusal No.", "usage"], "{late}");
    }
    for late in [
        r#"{"type":"response.reasoning_summary_text.done","output_index":0,"summary_index":0,"text":"hm"}"#,
        r#"{"type":"response.reasoning_text.done","output_index":0,"content_index":0,"text":"hm"}"#,
        r#"{"type":"response.reasoning_summary_part.done","output_index":0,"summary_index":0,"part":{"type":"summary_text","text":"hm"}}"#,
    ] {
        let (said, _) = stream(&[CREATED, late, late, COMPLETED]);
        assert_eq!(said.words[1..3], ["reasoning hm", "usage"], "{late}");
    }
    let item =
        r#"{"id":"rs_1","type":"reasoning","summary":[{"type":"summary_text","text":"hm"}]}"#;
    let last = format!(
        r#"{{"type":"response.completed","response":{{"status":"completed","output":[{item}]}}}}"#
    );
    let delta = r#"{"type":"response.output_text.delta","output_index":1,"delta":"x"}"#;
    let (said, _) = stream(&[CREATED, delta, &last]);
    assert!(
        said.words.contains(&"reasoning hm".to_string()),
        "{:?}",
        said.words
    );
    assert!(said.extra[0].contains("rs_1"));
}

/// A message that says `text`, cites a page, and is of this phase.
fn message(place: usize, phase: &str, text: &str) -> String {
    format!(
        r#"{{"type":"message","id":"msg_{place}","phase":"{phase}","content":[{{"type":"output_text","text":{text:?},"annotations":[{{"type":"url_citation","url":"u","title":"t","start_index":0,"end_index":1}}]}}]}}"#
    )
}

/// What is said of messages, by phase and text: in pieces, item by item, and in one body.
fn in_all_forms(messages: &[(&str, &str)], final_only: bool) -> Vec<Said> {
    let undo = Arc::new(Undo {
        final_only,
        ..Undo::default()
    });
    let mut pieces = vec![CREATED.to_owned()];
    let mut items = pieces.clone();
    let mut output = Vec::new();
    for (place, (phase, text)) in messages.iter().enumerate() {
        let item = message(place, phase, text);
        let event = |kind: &str, rest: &str| {
            format!(r#"{{"type":"response.{kind}","output_index":{place},{rest}}}"#)
        };
        let empty = format!(
            r#""item":{{"type":"message","id":"msg_{place}","phase":"{phase}","content":[]}}"#
        );
        pieces.push(event("output_item.added", &empty));
        for piece in text.split_inclusive(' ') {
            let delta = format!(r#""content_index":0,"delta":{piece:?}"#);
            pieces.push(event("output_text.delta", &delta));
        }
        let done = event("output_item.done", &format!(r#""item":{item}"#));
        pieces.push(done.clone());
        items.push(done);
        output.push(item);
    }
    let response = format!(
        r#"{{"id":"resp_1","model":"gpt","status":"completed","output":[{}]}}"#,
        output.join(",")
    );
    let last = format!(r#"{{"type":"response.completed","response":{response}}}"#);
    let mut forms = Vec::new();
    for mut events in [pieces, items] {
        events.push(last.clone());
        let mut said = Said::default();
        let mut decoder = Decode::new(Arc::clone(&undo));
        let text: String = events.iter().map(|e| format!("data: {e}\n\n")).collect();
        let ended = each_event(text.as_bytes(), usize::MAX, |event| {
            decoder.on_event(event, &mut said)
        });
        assert_eq!(ended, Ok(Flow::Done));
        forms.push(said);
    }
    let mut said = Said::default();
    let ended = Decode::new(undo).on_body(response.as_bytes(), &mut said);
    assert_eq!(ended, Ok(()));
    forms.push(said);
    forms
}

fn joined(said: &Said, kind: &str) -> String {
    let words = said.words.iter();
    words.filter_map(|word| word.strip_prefix(kind)).collect()
}

#[test]
fn texts_of_several_messages_stand_apart() {
    let messages = [
        ("commentary", "I look it up."),
        ("final_answer", "It is Oslo."),
        ("", "Bye"),
    ];
    for said in in_all_forms(&messages, false) {
        let text = joined(&said, "text ");
        assert_eq!(
            text, "I look it up.\n\nIt is Oslo.\n\nBye",
            "{:?}",
            said.words
        );
        assert_eq!(joined(&said, "reasoning "), "");
        // The places of citations count the blank lines.
        for citation in ["citation 0 1", "citation 15 16", "citation 28 29"] {
            assert!(
                said.words.iter().any(|word| word == citation),
                "{:?}",
                said.words
            );
        }
    }
    // Parts of one message are one text.
    let (said, _) = stream(&[
        CREATED,
        r#"{"type":"response.output_item.done","output_index":0,"item":{"type":"message","id":"msg_1","content":[{"type":"output_text","text":"a"},{"type":"output_text","text":"b"}]}}"#,
        COMPLETED,
    ]);
    assert_eq!(joined(&said, "text "), "ab");
}

#[test]
fn where_a_form_is_asked_for_only_the_final_answer_is_content() {
    let city = r#"{"city": "Oslo"}"#;
    let messages = [
        ("commentary", r#"{"city": "?"}"#),
        ("commentary", "Found it."),
        ("final_answer", city),
    ];
    for said in in_all_forms(&messages, true) {
        assert_eq!(joined(&said, "text "), city, "{:?}", said.words);
        let thoughts = joined(&said, "reasoning ");
        assert_eq!(thoughts, "{\"city\": \"?\"}\n\nFound it.");
        let citations = said
            .words
            .iter()
            .filter(|word| word.starts_with("citation"));
        assert_eq!(citations.collect::<Vec<_>>(), ["citation 0 1"]);
    }
    // Without a final answer the last thing said is the answer.
    for said in in_all_forms(&messages[..2], true) {
        assert_eq!(joined(&said, "text "), "Found it.", "{:?}", said.words);
    }
    for said in in_all_forms(&[("", city)], true) {
        assert_eq!(joined(&said, "text "), city);
        assert_eq!(joined(&said, "reasoning "), "");
    }
}
