//! The fault list: what an upstream can do wrong, in every format, whole and streamed.
//!
//! `check` plays one fault in all its forms behind one weir: against callers who want the answer
//! whole and callers who stream, once as the only thing the upstream ever does and once followed
//! by a proper answer. Each form has an upstream of its own, so the count of requests is exact.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::{Value, json};

use crate::client::{Answer, Client, chat};
use crate::completion::{Completion, Streamed};
use crate::first_mile::error_of;
use crate::upstream::{Format, Reply, Upstream};
use crate::wait::LIMIT;
use crate::weir::{Weir, config, upstream};

mod body;
mod keys;
mod silence;
mod status;
mod wire;

/// The formats that the list is played in.
pub const FORMATS: [Format; 4] = Format::ALL;

/// What a proper answer says, in two pieces.
pub const PIECES: [&str; 2] = ["one ", "two"];

/// What a fault comes to for the caller. An empty code stands for the vendor's own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fate {
    /// The whole answer, at the first attempt.
    Fine,
    /// Nothing had been written: tried again on the other key, and then an answer of its own with
    /// this status and this code.
    Fails(u16, &'static str),
    /// The answer had begun: never tried again, and its last event is an error with this code.
    Breaks(&'static str),
    /// One of the two before, and how far the answer came is left to chance: what follows a fault
    /// on the wire can overtake the bytes before it.
    Ends(&'static str),
}

/// One form of a fault.
#[derive(Debug, Clone, Copy)]
pub struct Form {
    pub format: Format,
    /// The caller streams.
    pub streams: bool,
    /// A proper answer follows the fault.
    once: bool,
}

impl Form {
    fn name(self) -> String {
        let how = if self.streams { "streamed" } else { "whole" };
        let then = if self.once { "once" } else { "always" };
        format!("{}-{how}-{then}", self.format.name())
    }
}

/// The events that lead to the first words of a stream, or the first half of a whole answer. The
/// rest is the fault's.
pub fn begun(format: Format, streams: bool) -> Reply {
    begun_with(format, streams, PIECES)
}

/// The same for an answer that says something else.
pub fn begun_with(format: Format, streams: bool, pieces: [&str; 2]) -> Reply {
    if streams {
        return Reply::stream().events(&format.events(&pieces)[..format.events_to_first_text()]);
    }
    let body = body_of(&format.whole(&pieces.concat()));
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    Reply::silence()
        .raw(head)
        .raw(&body[..body.len() / 2])
        .flush()
}

/// The body of a proper whole answer.
pub fn whole_body(format: Format) -> Vec<u8> {
    body_of(&format.whole(&PIECES.concat()))
}

fn body_of(whole: &Reply) -> Vec<u8> {
    whole.steps[1].bytes().expect("a body follows the head")
}

/// A stream that is broken once its first words are out, and a whole answer that never begins.
pub fn broken(code: &'static str) -> impl Fn(Form) -> Fate {
    move |form| match form.streams {
        true => Fate::Breaks(code),
        false => Fate::Fails(502, code),
    }
}

/// The same fate in every form.
pub fn always(fate: Fate) -> impl Fn(Form) -> Fate {
    move |_| fate
}

/// Plays `fault` in all its forms. It is told the format and whether the upstream was asked for a
/// stream; `fate` says what is to become of it.
pub fn check(
    fault: impl Fn(Format, bool) -> Reply + Clone + Send + Sync + 'static,
    fate: impl Fn(Form) -> Fate + Sync,
) {
    check_with(json!({}), fault, fate);
}

/// The same with other settings for each upstream.
pub fn check_with(
    settings: Value,
    fault: impl Fn(Format, bool) -> Reply + Clone + Send + Sync + 'static,
    fate: impl Fn(Form) -> Fate + Sync,
) {
    let mut runs = Vec::new();
    for format in FORMATS {
        for streams in [false, true] {
            for once in [false, true] {
                let form = Form {
                    format,
                    streams,
                    once,
                };
                runs.push((form, scripted(form, fault.clone())));
            }
        }
    }
    let entries = runs.iter().map(|(form, scripted)| {
        let url = scripted.url();
        let mut entry = upstream(&form.name(), form.format, &url, &["key-a", "key-b"]);
        for (name, value) in settings.as_object().expect("settings are an object") {
            entry[name] = value.clone();
        }
        entry
    });
    let weir = start(entries.collect());
    // At the same time: many of them wait for a timer.
    thread::scope(|scope| {
        for (form, scripted) in &runs {
            let (addr, fate) = (weir.addr, &fate);
            scope.spawn(move || check_form(addr, *form, scripted, fate(*form)));
        }
    });
    weir.idle(LIMIT);
}

/// A weir that tries once more and sends no heartbeat meanwhile.
pub fn start(upstreams: Vec<Value>) -> Weir {
    let mut settings = config(Format::OpenAi, "http://127.0.0.1:1", &[]);
    settings["upstreams"] = upstreams.into();
    settings["retries"] = json!(1);
    settings["keepalive_ms"] = json!(60_000);
    Weir::start(&settings)
}

fn scripted(form: Form, fault: impl Fn(Format, bool) -> Reply + Send + Sync + 'static) -> Upstream {
    let seen = AtomicUsize::new(0);
    Upstream::start(move |request| {
        let first = seen.fetch_add(1, Ordering::Relaxed) == 0;
        match first || !form.once {
            true => fault(form.format, request.wants_stream()),
            false => form.format.answer(request, &PIECES),
        }
    })
}

/// A request on a connection of its own, whatever its answer.
fn ask(weir: SocketAddr, form: Form) -> Answer {
    let mut client = Client::connect(weir);
    let model = format!("{}/{}", form.name(), form.format.model());
    client.post(&chat(&model, form.streams));
    client.answer(LIMIT)
}

fn check_form(weir: SocketAddr, form: Form, scripted: &Upstream, fate: Fate) {
    let name = form.name();
    let answer = ask(weir, form);
    let attempts = match fate {
        Fate::Fails(..) => 2,
        Fate::Ends(_) => scripted.count().min(2),
        _ => 1,
    };
    assert_eq!(scripted.count(), attempts, "{name}: {}", answer.text());
    let told = answer.header("x-weir-attempts").map(str::to_string);
    assert_eq!(told, Some(attempts.to_string()), "{name}");
    let keys = scripted.keys();
    assert!(attempts == 1 || keys[0] != keys[1], "{name}: {keys:?}");
    match fate {
        Fate::Ends(code) if answer.status == 200 && answer.text().contains("\"error\"") => {
            assert_breaks(&name, &answer, code)
        }
        Fate::Ends(code) if !form.once => assert_error(&name, &answer, 502, code),
        Fate::Fails(status, code) if !form.once => assert_error(&name, &answer, status, code),
        Fate::Breaks(code) => assert_breaks(&name, &answer, code),
        _ => assert_fine(&name, form.streams, &answer),
    }
}

fn assert_error(name: &str, answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{name}: {}", answer.text());
    let error = error_of(answer);
    if !code.is_empty() {
        assert_eq!(error["code"], code, "{name}: {error}");
    }
    let message = error["message"].as_str().unwrap_or_default();
    assert!(
        !message.is_empty() && !message.contains("key-"),
        "{name}: {message}"
    );
}

fn assert_breaks(name: &str, answer: &Answer, code: &str) {
    assert_eq!(answer.status, 200, "{name}: {}", answer.text());
    let streamed = Streamed::of_body(&answer.text());
    let error = streamed
        .error
        .unwrap_or_else(|| panic!("{name}: no error event"));
    if !code.is_empty() {
        assert_eq!(error["code"], code, "{name}: {error}");
    }
    assert!(
        error["message"].is_string() && error["type"].is_string(),
        "{name}: {error}"
    );
    assert!(!streamed.done, "{name}");
    assert_eq!(streamed.completion.finish, None, "{name}");
    assert!(
        PIECES.concat().starts_with(&streamed.completion.content),
        "{name}"
    );
}

pub fn assert_fine(name: &str, streams: bool, answer: &Answer) {
    assert_eq!(answer.status, 200, "{name}: {}", answer.text());
    let completion = match streams {
        true => {
            let streamed = Streamed::of_body(&answer.text());
            assert!(streamed.done, "{name}: {}", answer.text());
            streamed.completion
        }
        false => Completion::whole(&answer.json()),
    };
    assert_eq!(completion.content, PIECES.concat(), "{name}");
    assert_eq!(completion.finish.as_deref(), Some("stop"), "{name}");
}
