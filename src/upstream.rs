//! One attempt: a leased client and a body go out, the head of an answer or a `Failure` comes back.
//!
//! Knows the HTTP around a request (address, key, status, hints to wait) and nothing of what the
//! bodies say beyond an error. Retries are the exchange's affair.

use std::io::{self, Read};
use std::time::{Duration, SystemTime};

use log::debug;

use crate::cancel::Cause;
use crate::config::{Key, Upstream};
use crate::desk::{Job, Phase};
use crate::error::ApiError;
use crate::failure::{Failure, seconds};
use crate::line::{Answer, Broken, Line};
use crate::provider::Format;

/// How much of an error's body is read; the rest says nothing new.
const ERROR_BODY: u64 = 64 * 1024;

/// One request as it goes to one key.
pub struct Attempt<'a> {
    pub upstream: &'a Upstream,
    pub key: &'a Key,
    pub line: &'a Line,
    /// An attempt before this one broke on its connection.
    pub fresh: bool,
    pub path: &'a str,
    pub body: &'a [u8],
    /// Headers of the caller's that go along.
    pub headers: &'a [(&'static str, String)],
    /// The request's id, for the provider's own log.
    pub id: &'a str,
    /// How long the first byte of the answer may take.
    pub first_byte: Duration,
    /// The answer is asked for as an event stream.
    pub streams: bool,
}

impl Attempt<'_> {
    /// Sends the request and waits for a success status. The thread has entered the exchange's
    /// `Cancel`, which is what ends the wait.
    pub fn send(&self, job: &Job) -> Result<Answer, Failure> {
        job.enter(Phase::FirstByte, self.first_byte);
        let sent = self.post();
        job.leave();
        let mut answer = sent.map_err(|broken| self.unsent(job, &broken))?;
        if answer.status != 200 {
            return Err(self.failure_of(job, &mut answer));
        }
        if answer
            .header("content-type")
            .is_some_and(|kind| kind.starts_with("text/html"))
        {
            return Err(Failure::malformed(format!(
                "upstream {} answered 200 with an HTML page; check its base_url",
                self.upstream.name
            )));
        }
        if answer.is_compressed() {
            return Err(Failure::malformed(format!(
                "upstream {} answered in an encoding that was not asked for",
                self.upstream.name
            )));
        }
        Ok(answer)
    }

    /// No answer came.
    pub fn unsent(&self, job: &Job, broken: &Broken) -> Failure {
        self.ended(job).unwrap_or_else(|| {
            let what = format!("upstream {}: {}", self.upstream.name, broken.message);
            if broken.unfit {
                // No key is to blame, and no other one would do.
                return Failure::refused(ApiError::new(400, what).with_code("invalid_request"));
            }
            debug!(
                "{}: broken in {:?}, {} connection, {}",
                self.id,
                broken.phase,
                if broken.reused { "pooled" } else { "new" },
                if broken.maybe_sent {
                    "maybe received"
                } else {
                    "surely not received"
                },
            );
            match broken.timeout {
                true => Failure::timeout(what),
                false => Failure::unreachable(what),
            }
        })
    }

    /// Reads an answer that is none.
    pub fn failure_of(&self, job: &Job, answer: &mut Answer) -> Failure {
        let status = answer.status;
        let retry_after = hint(answer, status, SystemTime::now());
        let mut body = Vec::new();
        job.enter(Phase::Between, self.upstream.idle);
        // A body that breaks off is still the best that is known.
        let _ = answer.body.by_ref().take(ERROR_BODY).read_to_end(&mut body);
        job.leave();
        if let Some(failure) = self.ended(job) {
            return failure;
        }
        match status {
            200..=299 => Failure::empty(),
            300..=399 => Failure::malformed(format!(
                "upstream {} answered with a redirect ({status}); check its base_url",
                self.upstream.name
            )),
            _ => Failure::from_status(status, &body, retry_after),
        }
    }

    fn post(&self) -> Result<Answer, Broken> {
        let url = self.upstream.url(self.path);
        let mut headers: Vec<(&str, &str)> = Vec::with_capacity(8);
        headers.push(("content-type", "application/json"));
        headers.push(("accept", accept(self.streams)));
        headers.push(("x-request-id", self.id));
        let bearer = bearer(self.upstream, self.key);
        headers.extend(self.headers.iter().map(|(name, value)| (*name, &**value)));
        headers.extend(standing_headers(self.upstream, bearer.as_deref()));
        match self.fresh {
            true => self.line.fresh().post(&url, &headers, self.body),
            false => self.line.post(&url, &headers, self.body),
        }
    }

    /// Why the wait was ended from outside, as a failure.
    pub fn ended(&self, job: &Job) -> Option<Failure> {
        // A phase that goes on would pull again as soon as its cause is forgiven.
        job.leave();
        let name = &self.upstream.name;
        let cancel = &job.cancel;
        Some(match cancel.cause()? {
            Cause::FirstByte => {
                // The next attempt may wait again.
                cancel.forgive(Cause::FirstByte);
                Failure::timeout(format!(
                    "upstream {name} did not begin to answer within {} ms",
                    self.first_byte.as_millis()
                ))
            }
            Cause::Idle => {
                cancel.forgive(Cause::Idle);
                Failure::timeout(format!(
                    "upstream {name} fell silent for {} ms",
                    self.upstream.idle.as_millis()
                ))
            }
            cause => ended_for_good(cause),
        })
    }

    /// A read of the answer's body failed or was ended.
    pub fn broken(&self, job: &Job, error: &io::Error) -> Failure {
        self.ended(job).unwrap_or_else(|| {
            let mut failure = Failure::disconnected();
            failure.message = format!("upstream {}: {error}", self.upstream.name);
            failure
        })
    }
}

pub fn accept(streams: bool) -> &'static str {
    match streams {
        true => "text/event-stream",
        false => "application/json",
    }
}

/// The key as it stands in its header.
pub fn bearer(upstream: &Upstream, key: &Key) -> Option<String> {
    let (_, prefix) = upstream.auth_header();
    let secret = key.secret.as_ref()?;
    Some([prefix, secret.reveal()].concat())
}

/// The headers that an upstream gets with every request.
pub fn standing_headers<'a>(
    upstream: &'a Upstream,
    bearer: Option<&'a str>,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    let (name, _) = upstream.auth_header();
    let version = &*upstream.options.anthropic_version;
    let version = (upstream.format == Format::Anthropic).then_some(("anthropic-version", version));
    let own = upstream.headers.iter();
    bearer
        .map(|bearer| (name, bearer))
        .into_iter()
        .chain(version)
        .chain(own.map(|(name, value)| (&**name, &**value)))
}

/// The failure for a request that nothing can save any more.
pub fn ended_for_good(cause: Cause) -> Failure {
    match cause {
        Cause::CallerGone => Failure::caller_gone(),
        Cause::Stopping => Failure::stopping(),
        Cause::Deadline | Cause::FirstByte | Cause::Idle => Failure::deadline(),
    }
}

/// How long the upstream asks to be left alone, from its headers: translation section 13.4.
/// LiteLLM hands on those of the provider behind it under names of its own.
fn hint(answer: &Answer, status: u16, now: SystemTime) -> Option<Duration> {
    const BEHIND: &str = "llm_provider-";
    let own = |name: &str| answer.header(name);
    let behind = |name: &str| answer.header(&[BEHIND, name].concat());
    hint_by(&own, status, now).or_else(|| hint_by(&behind, status, now))
}

fn hint_by<'a>(
    header: &dyn Fn(&str) -> Option<&'a str>,
    status: u16,
    now: SystemTime,
) -> Option<Duration> {
    let millis = header("retry-after-ms")
        .and_then(|text| text.trim().parse::<f64>().ok())
        .and_then(|ms| Duration::try_from_secs_f64(ms / 1000.0).ok());
    if millis.is_some() {
        return millis;
    }
    if let Some(text) = header("retry-after") {
        if let Some(wait) = seconds(text) {
            return Some(wait);
        }
        if let Ok(date) = httpdate::parse_http_date(text.trim()) {
            return Some(date.duration_since(now).unwrap_or_default());
        }
    }
    if status != 429 {
        return None;
    }
    // Of several limits, the one that lasts is the one that was hit.
    const RESETS: [&str; 2] = ["x-ratelimit-reset-requests", "x-ratelimit-reset-tokens"];
    let by_reset = RESETS.iter().filter_map(|name| span(header(name)?)).max();
    if by_reset.is_some() {
        return by_reset;
    }
    const DATES: [&str; 4] = [
        "anthropic-ratelimit-requests-reset",
        "anthropic-ratelimit-tokens-reset",
        "anthropic-ratelimit-input-tokens-reset",
        "anthropic-ratelimit-output-tokens-reset",
    ];
    DATES
        .iter()
        .filter_map(|name| timestamp(header(name)?))
        .filter_map(|date| date.duration_since(now).ok())
        .max()
}

/// OpenAI's way to write a time span: `1s`, `6m0s`, `120ms`, `1h2m3.5s`.
fn span(text: &str) -> Option<Duration> {
    let mut total = 0.0;
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .filter(|&end| end > 0)?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let (unit, seconds) = [("ms", 0.001), ("h", 3600.0), ("m", 60.0), ("s", 1.0)]
            .into_iter()
            .find(|(unit, _)| rest.starts_with(unit))?;
        total += number * seconds;
        rest = &rest[unit.len()..];
    }
    Duration::try_from_secs_f64(total).ok()
}

/// An RFC 3339 date in UTC, as Anthropic writes it: `2026-11-24T12:00:00Z`.
pub fn timestamp(text: &str) -> Option<SystemTime> {
    let text = text.trim().strip_suffix('Z')?;
    let (date, time) = text.split_once('T')?;
    let mut date = date.splitn(3, '-').map(str::parse::<u64>);
    let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    let mut time = time.splitn(3, ':');
    let hours: u64 = time.next()?.parse().ok()?;
    let minutes: u64 = time.next()?.parse().ok()?;
    let secs: f64 = time.next()?.parse().ok()?;
    let plausible = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hours < 24
        && minutes < 60
        && (0.0..61.0).contains(&secs);
    if !plausible {
        return None;
    }
    // Days from 1970 by the civil calendar, counting years from March.
    let (y, m) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    let whole = days * 86_400 + hours * 3_600 + minutes * 60;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(whole) + Duration::from_secs_f64(secs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read() {
        for (text, seconds) in [
            ("1s", 1.0),
            ("6m0s", 360.0),
            ("120ms", 0.12),
            ("1h2m3.5s", 3723.5),
        ] {
            assert_eq!(span(text), Some(Duration::from_secs_f64(seconds)), "{text}");
        }
        for text in ["", "s", "1", "1x", "1s-", "9".repeat(400).as_str()] {
            assert_eq!(span(text), None, "{text}");
        }
    }

    #[test]
    fn dates_are_read() {
        let expect = |text: &str, seconds: u64| {
            assert_eq!(
                timestamp(text),
                Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)),
                "{text}"
            );
        };
        expect("1970-01-01T00:00:00Z", 0);
        expect("2000-02-29T12:00:00Z", 951_825_600);
        expect("2026-11-24T00:00:01Z", 1_795_478_401);
        for text in [
            "",
            "Z",
            "2026-13-01T00:00:00Z",
            "2026-01-01",
            "x-y-zTa:b:cZ",
        ] {
            assert_eq!(timestamp(text), None, "{text}");
        }
    }
}
