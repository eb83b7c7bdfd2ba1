//! Nobody there, nobody speaking, and connections that end too early.

use serde_json::json;

use super::{FORMATS, Fate, always, begun, broken, check, check_with, start, whole_body};
use crate::client::chat;
use crate::first_mile::error_of;
use crate::upstream::{Reply, Upstream};
use crate::weir::upstream;

/// Time enough for a loaded machine to play everything up to the silence.
const SOON: u64 = 700;

#[test]
fn nobody_listens_502() {
    let nobody = Upstream::nobody();
    let entry = |format| {
        upstream(
            crate::upstream::Format::name(format),
            format,
            &nobody,
            &["k"],
        )
    };
    let weir = start(FORMATS.map(entry).to_vec());
    for format in FORMATS {
        for streams in [false, true] {
            let model = format!("{}/{}", format.name(), format.model());
            let answer = weir.ask(&chat(&model, streams));
            assert_eq!(answer.status, 502, "{}", answer.text());
            assert_eq!(error_of(&answer)["code"], "upstream_unreachable");
            assert_eq!(answer.header("x-weir-attempts"), Some("2"));
        }
    }
}

#[test]
fn a_connection_that_is_taken_and_never_answered_504() {
    check_with(
        json!({"first_byte_ms": SOON}),
        |_, _| Reply::silence().hang(),
        always(Fate::Fails(504, "upstream_timeout")),
    );
}

#[test]
fn silence_after_the_headers_504() {
    check_with(
        json!({"idle_ms": SOON}),
        |_, streams| {
            match streams {
            true => Reply::stream().flush().hang(),
            false => Reply::silence()
                .raw("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n")
                .hang(),
        }
        },
        always(Fate::Fails(504, "upstream_timeout")),
    );
}

#[test]
fn silence_in_the_middle_ends_with_an_error_event() {
    check_with(
        json!({"idle_ms": SOON}),
        |format, streams| begun(format, streams).hang(),
        |form| match form.streams {
            true => Fate::Breaks("upstream_timeout"),
            false => Fate::Fails(504, "upstream_timeout"),
        },
    );
}

#[test]
fn cut_in_the_middle_ends_with_an_error_event() {
    check(
        |format, streams| begun(format, streams).close(),
        broken("upstream_disconnected"),
    );
}

#[test]
fn cut_inside_an_event_ends_with_an_error_event() {
    check(
        |format, streams| match streams {
            false => begun(format, false).close(),
            true => {
                let next = &format.events(&super::PIECES)[format.events_to_first_text()];
                let half = (next.len() / 2..).find(|at| next.is_char_boundary(*at));
                begun(format, true)
                    .event(&next[..half.unwrap_or_default()])
                    .close()
            }
        },
        broken("upstream_disconnected"),
    );
}

#[test]
fn a_stream_framed_to_its_end_without_its_last_events_is_an_error_event() {
    check(
        |format, streams| match streams {
            true => begun(format, true).end(),
            false => begun(format, false).close(),
        },
        broken("upstream_disconnected"),
    );
}

#[test]
fn closed_or_reset_before_the_answer_502() {
    for end in [Reply::close, Reply::reset] {
        check(
            move |_, _| end(Reply::silence().flush()),
            always(Fate::Fails(502, "upstream_unreachable")),
        );
    }
}

#[test]
fn closed_inside_the_head_502() {
    check(
        |_, _| Reply::silence().raw("HTTP/1.1 200 OK\r\nContent-").close(),
        always(Fate::Fails(502, "upstream_unreachable")),
    );
}

#[test]
fn a_reset_in_the_middle_is_never_taken_for_an_end() {
    check(
        |format, streams| begun(format, streams).reset(),
        always(Fate::Ends("")),
    );
}

#[test]
fn a_stream_without_done_but_with_a_finish_reason_is_complete() {
    check(
        |format, streams| {
            if !streams {
                return Reply::whole(200, "application/json", whole_body(format));
            }
            let mut events = format.events(&super::PIECES);
            // What says nothing that was not said before: OpenAI's `[DONE]` and Anthropic's
            // `message_stop`. The other formats have no such event.
            if events
                .last()
                .is_some_and(|event| event.contains("DONE") || event.contains("_stop"))
            {
                events.pop();
            }
            Reply::stream().events(&events).end()
        },
        always(Fate::Fine),
    );
}
