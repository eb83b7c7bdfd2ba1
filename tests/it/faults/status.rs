//! Errors in places where nobody expects them, and answers that are none.

use serde_json::json;

use super::{Fate, Form, always, begun, check, whole_body};
use crate::upstream::{Format, Reply};

/// The vendor's own word for being busy.
fn busy(format: Format) -> &'static str {
    match format {
        Format::Anthropic => "overloaded_error",
        Format::Gemini => "unavailable",
        Format::OpenAi | Format::Responses => "server_error",
    }
}

fn event(format: Format) -> String {
    format.error_event(503, busy(format), "their words")
}

/// The status that stands for the vendor's word.
fn status(format: Format) -> u16 {
    match format {
        Format::Anthropic | Format::Gemini => 503,
        Format::OpenAi => 500,
        Format::Responses => 502,
    }
}

/// An error instead of an answer. Responses are always asked for as a stream.
fn first(form: Form) -> Fate {
    let streams = form.streams || form.format == Format::Responses;
    Fate::Fails(if streams { status(form.format) } else { 503 }, "")
}

#[test]
fn an_error_as_the_first_event_keeps_its_status() {
    check(
        |format, streams| match streams {
            true => Reply::stream().event(&event(format)).end(),
            false => format.error(503, busy(format), "their words"),
        },
        first,
    );
}

#[test]
fn an_error_behind_the_first_words_is_an_error_event() {
    check(
        |format, streams| match streams {
            true => begun(format, true).event(&event(format)).end(),
            false => format.error(503, busy(format), "their words"),
        },
        |form| match form.streams {
            true => Fate::Breaks(""),
            false => first(form),
        },
    );
}

#[test]
fn a_bare_json_error_in_a_200_stream_is_an_error() {
    check(
        |format, streams| {
            let body = format.error_body(503, busy(format), "their words");
            match streams {
                true => Reply::stream().event(&format!("{body:#}\n")).end(),
                false => Reply::json(200, &body),
            }
        },
        |form| Fate::Fails(status(form.format), ""),
    );
}

#[test]
fn a_json_error_with_200_where_a_stream_was_asked_for_is_an_error() {
    check(
        |format, _| Reply::json(200, &format.error_body(503, busy(format), "their words")),
        |form| Fate::Fails(status(form.format), ""),
    );
}

#[test]
fn an_html_page_with_200_502() {
    let page = "<!doctype html><html><head><title>Sign in</title></head><body>x</body></html>";
    check(
        move |_, _| Reply::whole(200, "text/html; charset=utf-8", page),
        always(Fate::Fails(502, "malformed_response")),
    );
}

#[test]
fn an_empty_body_with_200_502() {
    check(
        |_, streams| match streams {
            true => Reply::whole(200, "text/event-stream", ""),
            false => Reply::whole(200, "application/json", ""),
        },
        always(Fate::Fails(502, "empty_response")),
    );
}

#[test]
fn a_stream_without_any_event_502() {
    check(
        |_, streams| match streams {
            true => Reply::stream().event(": nothing to say\n\n").end(),
            false => Reply::whole(200, "application/json", "  \n"),
        },
        always(Fate::Fails(502, "empty_response")),
    );
}

#[test]
fn an_answer_compressed_against_our_wish_502() {
    check(
        |format, _| {
            Reply::whole(200, "application/json", whole_body(format))
                .header("Content-Encoding", "gzip")
        },
        always(Fate::Fails(502, "malformed_response")),
    );
}

#[test]
fn answers_before_the_answer_are_passed_over() {
    check(
        |format, streams| {
            let hints =
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n";
            let mut reply = Reply::silence().raw(hints).flush();
            let answer = match streams {
                true => format.stream(&super::PIECES),
                false => format.whole(&super::PIECES.concat()),
            };
            reply.steps.extend(answer.steps);
            reply
        },
        always(Fate::Fine),
    );
}

#[test]
fn a_redirect_is_not_followed_502() {
    check(
        |_, _| {
            Reply::json(302, &json!({}))
                .header("Location", "http://127.0.0.1:1/v1/chat/completions")
        },
        always(Fate::Fails(502, "malformed_response")),
    );
}
