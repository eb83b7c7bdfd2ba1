//! What the decoder keeps of a stream between two events, however long the stream is.

use std::sync::Arc;

use super::decode::Messages;
use crate::chat::{Delta, DeltaSink};
use crate::failure::Class;
use crate::provider::budget::MOST_STATE;
use crate::provider::{Decoder, Flow, Undo};
use crate::sse;

/// Only what is kept is of interest.
struct Deaf;

impl DeltaSink for Deaf {
    fn put(&mut self, _: Delta<'_>) {}
}

fn take(decoder: &mut Messages, data: &str) -> Result<Flow, crate::failure::Failure> {
    let event = sse::Event {
        data: data.as_bytes(),
        bare: false,
    };
    decoder.on_event(event, &mut Deaf)
}

fn start(index: usize, block: &str) -> String {
    format!(r#"{{"type":"content_block_start","index":{index},"content_block":{block}}}"#)
}

fn delta(index: usize, delta: &str) -> String {
    format!(r#"{{"type":"content_block_delta","index":{index},"delta":{delta}}}"#)
}

#[test]
fn what_an_open_answer_keeps_is_bounded() {
    let long = "x".repeat(100 << 10);
    let citation = format!(
        r#"{{"type":"citations_delta","citation":{{"type":"web_search_result_location","url":"u","title":"{long}"}}}}"#
    );
    let piece = format!(r#"{{"type":"input_json_delta","partial_json":"{long}"}}"#);
    let text = r#"{"type":"text","text":""}"#;
    let custom = r#"{"type":"tool_use","id":"t","name":"c","input":{}}"#;
    let full = format!(r#"{{"type":"tool_use","id":"t","name":"f","input":{{"a":"{long}"}}}}"#);
    type Event = Box<dyn Fn(usize) -> String>;
    let cases: [(&str, Event); 4] = [
        ("citations of one block", {
            let citation = citation.clone();
            Box::new(move |n| match n {
                0 => start(0, text),
                _ => delta(0, &citation),
            })
        }),
        ("citations of many blocks", {
            Box::new(move |n| match n % 2 {
                0 => start(n, text),
                _ => delta(n - 1, &citation),
            })
        }),
        ("the input of a custom tool", {
            Box::new(move |n| match n {
                0 => start(0, custom),
                _ => delta(0, &piece),
            })
        }),
        (
            "calls that are never closed",
            Box::new(move |n| start(n, &full)),
        ),
    ];
    for (what, event) in cases {
        let undo = Undo {
            custom: ["c".to_owned()].into_iter().collect(),
            ..Undo::default()
        };
        let mut decoder = Messages::new(Arc::new(undo));
        let failure = (0..1000).find_map(|n| take(&mut decoder, &event(n)).err());
        let failure = failure.unwrap_or_else(|| panic!("{what}: {}", decoder.remembered()));
        assert_eq!(failure.class, Class::Ended, "{what}");
        assert_eq!(
            failure.code.as_deref(),
            Some("malformed_response"),
            "{what}"
        );
        // And one event.
        assert!(decoder.remembered() <= MOST_STATE + (200 << 10), "{what}");
    }
}

#[test]
fn thoughts_in_the_starts_of_blocks_are_bounded_as_well() {
    let mut decoder = Messages::new(Arc::new(Undo::default()));
    let long = "x".repeat(100 << 10);
    let block = format!(r#"{{"type":"thinking","thinking":"{long}","signature":"{long}"}}"#);
    for n in 0..400 {
        take(&mut decoder, &start(n, &block)).unwrap();
        take(
            &mut decoder,
            &format!(r#"{{"type":"content_block_stop","index":{n}}}"#),
        )
        .unwrap();
        assert!(decoder.remembered() < MOST_STATE + (1 << 20));
    }
}

#[test]
fn what_is_closed_makes_room() {
    let mut decoder = Messages::new(Arc::new(Undo::default()));
    let long = "x".repeat(1 << 20);
    let block = format!(r#"{{"type":"tool_use","id":"t","name":"f","input":{{"a":"{long}"}}}}"#);
    for n in 0..40 {
        take(&mut decoder, &start(n, &block)).unwrap();
        take(
            &mut decoder,
            &format!(r#"{{"type":"content_block_stop","index":{n}}}"#),
        )
        .unwrap();
    }
}

#[test]
fn many_open_blocks_cost_no_more_than_one() {
    const BLOCKS: usize = 30_000;
    let tool = r#"{"type":"tool_use","id":"t","name":"f","input":{}}"#;
    let piece = r#"{"type":"input_json_delta","partial_json":"1"}"#;
    let time = |open: usize| {
        let mut decoder = Messages::new(Arc::new(Undo {
            keep_blocks: true,
            ..Undo::default()
        }));
        for n in (0..open).rev() {
            take(&mut decoder, &start(n, tool)).unwrap();
        }
        let began = std::time::Instant::now();
        for _ in 0..BLOCKS {
            take(&mut decoder, &delta(0, piece)).unwrap();
        }
        began.elapsed()
    };
    // The best of three each: on a busy machine any one may take long.
    let best = |open| (0..3).map(|_| time(open)).min().unwrap();
    let (one, many) = (best(1), best(BLOCKS));
    assert!(many < one * 8, "{one:?} with one open, {many:?} with many");
}
