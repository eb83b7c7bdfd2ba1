//! What upstreams speak: one entry per format, each a pair of files.
//!
//! A provider turns a chat request into the bytes of an upstream request, and an upstream's answer
//! into deltas. It works on bytes it is handed: it opens no connection, reads no clock, makes no
//! random values and knows no callers, so the same input always gives the same output.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::capability;
use crate::chat::{DeltaSink, Request, Usage};
use crate::discovery::{self, Learned};
use crate::error::ApiError;
use crate::failure::Failure;
use crate::kind::{self, Found, Kind};
use crate::lesson::{Lesson, Lessons};
use crate::sse;

pub mod anthropic;
pub mod budget;
mod fence;
pub mod gemini;
mod names;
mod nesting;
pub mod openai;
mod pairs;
mod pictures;
pub mod responses;
pub mod unfold;

/// What the encoders may know besides the request itself: static configuration.
#[derive(Debug, Clone)]
pub struct Options {
    /// Every field that would be dropped with a warning becomes a 400.
    pub strict: bool,
    /// `anthropic-version` to send.
    pub anthropic_version: String,
    /// The upstream is the vendor's own, not a compatible server.
    pub official: bool,
    /// Compatible servers only: `developer` messages go out as `system`.
    pub developer_as_system: bool,
    /// Compatible servers only: request fields that are not forwarded, as paths.
    pub strip: Vec<String>,
    /// Compatible servers only: messages go out without what weir adds to its answers.
    pub plain_messages: bool,
    /// Compatible servers only: the one name for the limit of an answer that they know.
    pub max_tokens_field: Option<String>,
    /// Compatible servers only: streams are asked for their usage.
    pub ask_usage: bool,
    /// Nodes that the schemas of one request may unfold to.
    pub schema_nodes: usize,
    /// What the server is, by the config or its address.
    pub kind: Option<&'static Kind>,
    /// What it told of itself.
    pub found: Found,
    /// Whole answers are asked for as streams; `None`: as the kind of server needs it.
    pub streams_whole: Option<bool>,
    /// What the upstream's own model list says, where it is asked for one.
    pub learned: Option<Arc<Learned>>,
    /// What the model's refusals have taught.
    pub lessons: Lessons,
    /// Anthropic's format only.
    pub anthropic: anthropic::Switches,
    /// Gemini's format only.
    pub gemini: gemini::Switches,
    /// The Responses format only.
    pub responses: responses::Switches,
}

impl Options {
    /// What the server is, as far as it is known.
    pub fn kind(&self) -> &'static Kind {
        let kind = self.kind.or_else(|| self.found.kind());
        kind.unwrap_or(&kind::UNKNOWN)
    }

    /// Whether whole answers are asked for as streams, which end when their caller leaves.
    pub fn streams_whole(&self) -> bool {
        let needs = || !self.kind().stops_whole;
        !self.official && self.streams_whole.unwrap_or_else(needs)
    }

    /// What the Claude `model` can do. Encoders ask here, so that what a provider's own model
    /// list says can win over the table.
    pub fn claude(&self, model: &str) -> capability::Claude {
        let row = capability::claude(model);
        match self.learned(model) {
            Some(known) => known.claude(row),
            None => row,
        }
    }

    /// What the Gemini `model` can do.
    pub fn gemini(&self, model: &str) -> capability::Gemini {
        let row = capability::gemini(model);
        let row = match self.learned(model) {
            Some(known) => known.gemini(row),
            None => row,
        };
        match self.lessons.has(Lesson::ThirdGeneration) {
            // How it thinks and samples stays as its name has it, which the provider still reads.
            true => capability::Gemini {
                third: true,
                penalties: false,
                ..row
            },
            false => row,
        }
    }

    /// Takes lessons to heart: with them, these are the options for one model.
    pub fn heed(&mut self, lessons: &Lessons) {
        for lesson in &lessons.0 {
            match lesson {
                Lesson::NoUsage => self.ask_usage = false,
                Lesson::PlainMessages => self.plain_messages = true,
                Lesson::NoSummary => self.responses.summary = false,
                Lesson::NoSeal => self.responses.seal = false,
                Lesson::NoDisplay => self.anthropic.display = anthropic::Display::Unset,
                Lesson::NoCache => self.anthropic.auto_cache = false,
                Lesson::LooseTools => self.anthropic.loose_tools = true,
                Lesson::FormatInWords => self.anthropic.format_in_words = true,
                // The exchange heeds these, or an encoder where it comes to them.
                Lesson::WantsResponses
                | Lesson::NoResponses
                | Lesson::NoSearch
                | Lesson::ThirdGeneration
                | Lesson::NoSignatures
                | Lesson::NoStream
                | Lesson::LimitAs(_)
                | Lesson::Effort(..)
                | Lesson::Without(_) => {}
            }
        }
        self.lessons = lessons.clone();
    }

    /// What the upstream's list says of `model`.
    pub fn learned(&self, model: &str) -> Option<Arc<discovery::Model>> {
        self.learned.as_ref()?.get(model)
    }
}

impl Default for Options {
    fn default() -> Self {
        Options {
            strict: false,
            anthropic_version: "2023-06-01".into(),
            official: true,
            developer_as_system: false,
            strip: Vec::new(),
            plain_messages: false,
            max_tokens_field: None,
            ask_usage: false,
            schema_nodes: unfold::MOST_NODES,
            kind: None,
            found: Found::default(),
            streams_whole: None,
            learned: None,
            lessons: Lessons::default(),
            anthropic: anthropic::Switches::default(),
            gemini: gemini::Switches::default(),
            responses: responses::Switches::default(),
        }
    }
}

/// An upstream request, ready to be sent.
#[derive(Debug, Default)]
pub struct Encoded {
    /// Behind the base URL, with its query: `/v1/messages`.
    pub path: String,
    pub body: Vec<u8>,
    /// Request fields that were dropped with a warning, for `x-weir-dropped`. No duplicates.
    pub dropped: Vec<String>,
    /// What the decoder has to undo.
    pub undo: Arc<Undo>,
    /// The answer is asked for whole, although the caller or weir would have it streamed.
    pub whole: bool,
    /// The limits that the request counts against, where the model has others besides its own.
    pub lane: Option<&'static str>,
}

/// How the request was changed in ways that the answer must not show.
#[derive(Debug, Default)]
pub struct Undo {
    /// Tool names as sent, with the caller's own spelling. Only those that differ.
    pub names: HashMap<String, String>,
    /// The caller's names of custom tools that went out as functions with one `input` string.
    pub custom: HashSet<String>,
    /// JSON was asked for in words: strip a Markdown fence around the answer.
    pub strip_fence: bool,
    /// The answer is to be of one form, so what the model says on the way to it is not part of it.
    pub final_only: bool,
    /// The caller set `service_tier`, so it is told which one served.
    pub wants_tier: bool,
    /// The upstream may run tools itself and pause: keep the answer's blocks for a continuation.
    pub keep_blocks: bool,
    /// The caller's own limit of completion tokens, for answers that are continued.
    pub max_tokens: Option<u64>,
}

impl Undo {
    /// The caller's name of a tool that the upstream calls `wire`.
    pub fn name<'a>(&'a self, wire: &'a str) -> &'a str {
        self.names.get(wire).map_or(wire, String::as_str)
    }
}

/// Whether a decoder expects more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    More,
    /// The format's own last event was seen; whatever follows is not part of the answer.
    Done,
}

/// The memory of one upstream answer between two of its events.
pub trait Decoder: Send {
    /// Looks into the headers of the answer, before anything else of it. `header` gives one by its
    /// name.
    fn on_head(&mut self, _header: &dyn Fn(&str) -> Option<String>) {}

    /// Takes one event and puts out what it means, possibly nothing.
    fn on_event(&mut self, event: sse::Event<'_>, out: &mut dyn DeltaSink)
    -> Result<Flow, Failure>;

    /// The upstream closed. Only now is it known whether the answer was complete.
    fn on_end(&mut self, out: &mut dyn DeltaSink) -> Result<(), Failure>;

    /// A whole body instead of a stream. Called at most once, and then nothing else is.
    fn on_body(&mut self, body: &[u8], out: &mut dyn DeltaSink) -> Result<(), Failure>;

    /// Asked once the answer is over (`Flow::Done`, or `on_end` without a failure): the body of a
    /// request that continues it, built from the one that was sent. The same decoder then takes
    /// the events of the second answer, so it has held its `Finish` back.
    fn continuation(&mut self, _sent: &[u8]) -> Option<Vec<u8>> {
        None
    }

    /// The model that gave the answer, as the upstream calls it, where that can be another one than
    /// was asked.
    fn served_by(&self) -> Option<&str> {
        None
    }

    /// `continuation` may give one in the end, so what was sent has to be kept until then.
    fn may_continue(&self) -> bool {
        false
    }
}

/// The memory of an answer that is passed on in the format it came in, between two of its events.
pub trait Relay: Send {
    /// Takes one event and writes what the caller reads of it, possibly nothing.
    fn on_event(&mut self, event: sse::Event<'_>, out: &mut Vec<u8>) -> Result<Flow, Failure>;

    /// The upstream closed.
    fn on_end(&mut self, out: &mut Vec<u8>) -> Result<(), Failure>;

    /// A whole body instead of a stream: writes the stream that says the same, up to its end.
    fn on_body(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<(), Failure>;

    fn usage(&self) -> Usage;

    /// Bytes of text so far, where it reads that far.
    fn heard(&self) -> Option<u64> {
        None
    }
}

/// The same for an answer that is wanted in one piece.
pub trait WholeRelay: Send {
    /// Takes an event of an upstream that streams although it was not asked to.
    fn on_event(&mut self, event: sse::Event<'_>) -> Result<Flow, Failure>;

    fn on_end(&mut self) -> Result<(), Failure>;

    fn on_body(&mut self, body: &[u8]) -> Result<(), Failure>;

    fn usage(&self) -> Usage;

    /// The answer, where it is not what the upstream sent. Taken once.
    fn take_body(&mut self) -> Option<Vec<u8>>;
}

/// One upstream format.
pub trait Provider: Send + Sync {
    /// The chat request as this format's upstream takes it, for the model `model`.
    fn encode(
        &self,
        request: &Request<'_>,
        model: &str,
        options: &Options,
    ) -> Result<Encoded, ApiError>;

    fn decoder(&self, undo: Arc<Undo>) -> Box<dyn Decoder>;

    /// Whether the provider gets the image at `url` for `model`. Where it does not, the image can
    /// only be encoded inline.
    fn fetches(&self, _url: &str, _model: &str, _options: &Options) -> bool {
        true
    }
}

/// The upstream formats of this build, as the config file names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    OpenAi,
    Anthropic,
    Gemini,
    Responses,
}

impl Format {
    pub const ALL: [(&'static str, Format); 4] = [
        ("openai", Format::OpenAi),
        ("anthropic", Format::Anthropic),
        ("gemini", Format::Gemini),
        ("responses", Format::Responses),
    ];

    pub fn from_name(name: &str) -> Option<Format> {
        Format::ALL
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, format)| *format)
    }

    pub fn name(self) -> &'static str {
        match self {
            Format::OpenAi => "openai",
            Format::Anthropic => "anthropic",
            Format::Gemini => "gemini",
            Format::Responses => "responses",
        }
    }

    /// The provider's own address, without a trailing slash.
    pub fn default_base(self) -> &'static str {
        match self {
            Format::OpenAi | Format::Responses => "https://api.openai.com/v1",
            Format::Anthropic => "https://api.anthropic.com",
            Format::Gemini => "https://generativelanguage.googleapis.com",
        }
    }

    /// The header that carries the key, and what stands before it.
    pub fn auth_header(self) -> (&'static str, &'static str) {
        match self {
            Format::OpenAi | Format::Responses => ("authorization", "Bearer "),
            Format::Anthropic => ("x-api-key", ""),
            Format::Gemini => ("x-goog-api-key", ""),
        }
    }

    /// Model names that this format's vendor serves, as patterns.
    pub fn default_models(self) -> &'static [&'static str] {
        match self {
            Format::OpenAi | Format::Responses => &[
                "gpt-*",
                "chatgpt-*",
                "chat-latest*",
                "daybreak-*",
                "codex-*",
                "computer-use-*",
                "o1*",
                "o3*",
                "o4*",
            ],
            Format::Anthropic => &["claude-*"],
            Format::Gemini => &["gemini-*", "gemma-*", "learnlm-*", "nano-banana-*"],
        }
    }

    /// The translator, where callers do not speak this format themselves.
    pub fn translator(self) -> Option<&'static dyn Provider> {
        match self {
            Format::OpenAi => None,
            Format::Anthropic => Some(&anthropic::Messages),
            Format::Gemini => Some(&gemini::GenerateContent),
            Format::Responses => Some(&responses::Responses),
        }
    }
}

#[cfg(test)]
mod heartbeats_tests;
