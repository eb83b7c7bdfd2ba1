//! `Record`: what one request came to, and the log line that says so.

use std::borrow::Cow;
use std::fmt::Write as _;

use log::info;

use crate::chat::Usage;
use crate::config::LogFormat;
use crate::desk::Stopwatch;
use crate::journal;
use crate::limits::Limits;
use crate::request_log::Transcript;

pub mod estimate;

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Done,
    /// With an error event.
    Error,
    HangUp,
    /// It never began.
    Refused,
}

impl End {
    pub const ALL: [End; 4] = [End::Done, End::Error, End::HangUp, End::Refused];

    pub fn name(self) -> &'static str {
        match self {
            End::Done => "done",
            End::Error => "error",
            End::HangUp => "hang_up",
            End::Refused => "refused",
        }
    }
}

/// One attempt.
#[derive(Debug)]
pub struct Asked {
    pub upstream: String,
    pub key: String,
    /// It gave an answer, though not the last one: some requests are several to the upstream.
    pub answered: bool,
}

/// Filled in on the way; written once, when the request has ended.
#[derive(Debug)]
pub struct Record {
    pub id: String,
    pub begun: Stopwatch,
    pub endpoint: &'static str,
    /// The name of the caller's key, where callers need one.
    pub client: String,
    pub model: String,
    pub upstream: String,
    pub key: String,
    /// What the caller was told; 499 when it had left.
    pub status: u16,
    pub attempts: u32,
    pub asked: Vec<Asked>,
    pub switches: u32,
    pub streamed: bool,
    /// Milliseconds until the first byte of the answer left.
    pub first_byte: Option<f64>,
    /// Milliseconds spent waiting for upstreams.
    pub upstream_ms: f64,
    pub usage: Usage,
    /// The caller's key has a limit of tokens: what no upstream counts is estimated.
    pub must_count: bool,
    /// Requests to upstreams that the caller's key was charged with before they were made.
    pub admitted: u32,
    /// Tokens that were estimated.
    pub estimated: u64,
    /// Tokens of the request that is with an upstream, as estimated.
    asked_tokens: u64,
    /// Bytes of text in its answer so far.
    heard: u64,
    /// What was used by attempts whose answers came to nothing.
    lost: u64,
    spent: bool,
    pub heartbeats: u32,
    /// Why it failed, in the words the caller got.
    pub error: Option<String>,
    /// The bodies, where they are logged.
    pub transcript: Option<Box<Transcript>>,
}

impl Record {
    pub fn new(id: String, endpoint: &'static str) -> Record {
        Record {
            id,
            begun: Stopwatch::start(),
            endpoint,
            client: String::new(),
            model: String::new(),
            upstream: String::new(),
            key: String::new(),
            status: 0,
            attempts: 0,
            asked: Vec::new(),
            switches: 0,
            streamed: false,
            first_byte: None,
            upstream_ms: 0.0,
            usage: Usage::default(),
            must_count: false,
            admitted: 1,
            estimated: 0,
            asked_tokens: 0,
            heard: 0,
            lost: 0,
            spent: false,
            heartbeats: 0,
            error: None,
            transcript: None,
        }
    }

    /// Keeps the request's body, where bodies are logged.
    pub fn keep_request(&mut self, body: &[u8]) {
        if let Some(transcript) = &mut self.transcript {
            transcript.request(body);
        }
    }

    /// There is more of the request than was kept.
    pub fn request_goes_on(&mut self) {
        if let Some(transcript) = &mut self.transcript {
            transcript.request_goes_on();
        }
    }

    /// Keeps a part of the answer, where bodies are logged.
    pub fn keep_answer(&mut self, bytes: &[u8]) {
        if let Some(transcript) = &mut self.transcript {
            transcript.answer(bytes);
        }
    }

    /// All that is known, as a JSON object.
    pub fn json(&self) -> String {
        self.line(LogFormat::Json)
    }

    /// Milliseconds that weir itself took so far.
    pub fn own_ms(&self) -> f64 {
        (self.begun.millis() - self.upstream_ms).max(0.0)
    }

    /// Counts an attempt with this key.
    pub fn attempt(&mut self, upstream: &str, key: &str) {
        self.attempts += 1;
        key.clone_into(&mut self.key);
        self.asked.push(Asked {
            upstream: upstream.to_owned(),
            key: key.to_owned(),
            answered: false,
        });
    }

    /// The last attempt gave its part of the answer.
    pub fn answered(&mut self) {
        if let Some(asked) = self.asked.last_mut() {
            asked.answered = true;
        }
    }

    /// A request with this body goes to an upstream now.
    pub fn asks(&mut self, body: &[u8]) {
        // What an answer before it cost is gone, whatever became of that.
        self.lost = self.lost.saturating_add(self.cost(false));
        self.usage = Usage::default();
        self.heard = 0;
        self.asked_tokens = match self.must_count {
            true => estimate::of_body(body),
            false => 0,
        };
    }

    /// The upstream did nothing for it.
    pub fn asked_in_vain(&mut self) {
        self.asked_tokens = 0;
    }

    /// Its answer so far: what it says of itself, and how many bytes of text it had.
    pub fn hears(&mut self, usage: Usage, heard: u64) {
        self.usage = usage.within_reason();
        self.heard = heard;
    }

    /// Charges the key of the caller with what the answer cost, once. Before its last bytes leave,
    /// so that the next request finds it counted.
    pub fn spend(&mut self, limits: &Limits) {
        self.charge(limits, true);
    }

    /// The same for an answer that did not come to its end, if nothing was charged.
    pub fn spend_rest(&mut self, limits: &Limits) {
        self.charge(limits, false);
    }

    fn charge(&mut self, limits: &Limits, whole: bool) {
        if self.spent {
            return;
        }
        self.spent = true;
        let tokens = self.cost(whole).saturating_add(self.lost);
        limits.spend(&self.client, tokens);
        limits.charge(
            &self.client,
            u64::from(self.attempts.saturating_sub(self.admitted)),
        );
    }

    /// What the answer at hand costs: as the upstream counts, and where it does not, as estimated.
    /// Of an answer that broke off it may have counted the beginning only.
    fn cost(&mut self, whole: bool) -> u64 {
        if !self.must_count {
            return self.tokens();
        }
        let heard = estimate::of_length(self.heard);
        // Some servers have a usage with nothing but zeros in it.
        let told = |count: Option<u64>| count.filter(|count| *count > 0);
        let prompt = told(self.usage.prompt).unwrap_or(self.asked_tokens);
        let completion = match (told(self.usage.completion), whole) {
            (Some(count), true) => count,
            (count, _) => count.unwrap_or(0).max(heard),
        };
        let cost = prompt.saturating_add(completion);
        self.estimated = self
            .estimated
            .saturating_add(cost.saturating_sub(self.tokens()));
        cost
    }

    /// Counts in what a part of the request came to.
    pub fn absorb(&mut self, part: Record) {
        fn add(sum: &mut Option<u64>, more: Option<u64>) {
            if let Some(more) = more {
                *sum = Some(sum.unwrap_or(0).saturating_add(more));
            }
        }
        self.upstream.clone_from(&part.upstream);
        self.key.clone_from(&part.key);
        self.attempts += part.attempts;
        self.asked.extend(part.asked);
        self.switches += part.switches;
        self.upstream_ms += part.upstream_ms;
        add(&mut self.usage.prompt, part.usage.prompt);
        add(&mut self.usage.completion, part.usage.completion);
        self.estimated = self.estimated.saturating_add(part.estimated);
        // The parts were charged for.
        self.spent = true;
    }

    /// What the answer cost.
    pub fn tokens(&self) -> u64 {
        let count = |tokens: Option<u64>| tokens.unwrap_or(0);
        count(self.usage.prompt).saturating_add(count(self.usage.completion))
    }

    /// How the stream ended, if one was asked for.
    pub fn stream_end(&self) -> Option<End> {
        let begun = self.first_byte.is_some() || self.heartbeats > 0;
        self.streamed.then_some(match self.status {
            200 => End::Done,
            499 => End::HangUp,
            _ if begun => End::Error,
            _ => End::Refused,
        })
    }

    /// Writes the line.
    pub fn log(&self, format: LogFormat) {
        if log::log_enabled!(target: journal::REQUEST, log::Level::Info) {
            info!(target: journal::REQUEST, "{}", self.line(format));
        }
    }

    fn fields(&self) -> Vec<(&'static str, Value<'_>)> {
        let mut fields = Vec::with_capacity(20);
        fields.push(("id", Value::Text((&*self.id).into())));
        fields.push(("endpoint", Value::Text(self.endpoint.into())));
        let texts = [
            ("client", &self.client),
            ("model", &self.model),
            ("upstream", &self.upstream),
            ("key", &self.key),
        ];
        for (name, value) in texts {
            if !value.is_empty() {
                fields.push((name, Value::Text(printable(value))));
            }
        }
        fields.push(("status", Value::Whole(u64::from(self.status))));
        if self.attempts > 0 {
            fields.push(("attempts", Value::Whole(u64::from(self.attempts))));
        }
        fields.push(("ms", Value::Millis(self.begun.millis())));
        if self.attempts > 0 {
            fields.push(("upstream_ms", Value::Millis(self.upstream_ms)));
        }
        if let Some(ms) = self.first_byte {
            fields.push(("first_byte_ms", Value::Millis(ms)));
        }
        let counters = [
            ("prompt_tokens", self.usage.prompt),
            ("completion_tokens", self.usage.completion),
            ("cached_tokens", self.usage.cached),
            ("reasoning_tokens", self.usage.reasoning),
        ];
        for (name, count) in counters {
            if let Some(count) = count {
                fields.push((name, Value::Whole(count)));
            }
        }
        if self.estimated > 0 {
            fields.push(("estimated_tokens", Value::Whole(self.estimated)));
        }
        if self.heartbeats > 0 {
            fields.push(("heartbeats", Value::Whole(u64::from(self.heartbeats))));
        }
        if let Some(error) = &self.error {
            fields.push(("error", Value::Text(printable(error))));
        }
        fields
    }

    fn line(&self, format: LogFormat) -> String {
        let fields = self.fields();
        match format {
            LogFormat::Json => {
                let object: serde_json::Map<_, _> = fields
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value.into_json()))
                    .collect();
                serde_json::Value::Object(object).to_string()
            }
            LogFormat::Text => {
                let mut line = String::with_capacity(160);
                for (name, value) in fields {
                    if !line.is_empty() {
                        line.push(' ');
                    }
                    let _ = match value {
                        Value::Text(text) if text.contains([' ', '"', '=']) => {
                            write!(line, "{name}={text:?}")
                        }
                        Value::Text(text) => write!(line, "{name}={text}"),
                        Value::Whole(number) => write!(line, "{name}={number}"),
                        Value::Millis(number) => write!(line, "{name}={number:.1}"),
                    };
                }
                line
            }
        }
    }
}

enum Value<'a> {
    Text(Cow<'a, str>),
    Whole(u64),
    Millis(f64),
}

impl Value<'_> {
    fn into_json(self) -> serde_json::Value {
        match self {
            Value::Text(text) => text.into_owned().into(),
            Value::Whole(number) => number.into(),
            Value::Millis(number) => ((number * 10.0).round() / 10.0).into(),
        }
    }
}

/// How much of a foreign text a log line holds.
const SHOWN: usize = 300;

/// A foreign text on one line, within bounds.
fn printable(text: &str) -> Cow<'_, str> {
    if text.len() <= SHOWN && !text.bytes().any(|byte| byte.is_ascii_control()) {
        return Cow::Borrowed(text);
    }
    text.chars()
        .take(SHOWN)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line_in_both_forms() {
        let mut record = Record::new("r1".into(), "chat");
        record.model = "m\nx y".into();
        record.status = 200;
        record.usage.prompt = Some(3);
        record.error = Some("a \"b\"".into());
        let text = record.line(LogFormat::Text);
        assert!(
            text.starts_with("id=r1 endpoint=chat model=\"m x y\" status=200 ms="),
            "{text}"
        );
        assert!(
            text.ends_with(r#"prompt_tokens=3 error="a \"b\"""#),
            "{text}"
        );
        let json: serde_json::Value = serde_json::from_str(&record.line(LogFormat::Json)).unwrap();
        assert_eq!(json["model"], "m x y");
        assert_eq!(json["prompt_tokens"], 3);
    }
}
