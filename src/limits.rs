//! `Limits`: what callers may use, by the name of their key.
//!
//! Requests and tokens a minute are buckets that fill evenly, so that a limit is felt as a pace
//! rather than as a wall at each minute's end. What an answer costs in tokens is known when it is
//! over, so a bucket may go below nothing and has to fill again first. All of it is in memory: a
//! restart begins with full buckets and a day without tokens.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::clock;
use crate::config::ClientKey;
use crate::error::ApiError;

/// What a key may use; `None`: as much as there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Allowance {
    pub requests_per_minute: Option<u64>,
    pub tokens_per_minute: Option<u64>,
    pub concurrent: Option<u64>,
    pub tokens_per_day: Option<u64>,
}

impl Allowance {
    /// The limit of this name in the config.
    pub fn place(&mut self, name: &str) -> Option<&mut Option<u64>> {
        Some(match name {
            "requests_per_minute" => &mut self.requests_per_minute,
            "tokens_per_minute" => &mut self.tokens_per_minute,
            "concurrent" => &mut self.concurrent,
            "tokens_per_day" => &mut self.tokens_per_day,
            _ => return None,
        })
    }

    pub const NAMES: [&'static str; 4] = [
        "requests_per_minute",
        "tokens_per_minute",
        "concurrent",
        "tokens_per_day",
    ];

    /// Whether tokens have to be counted.
    pub fn limits_tokens(&self) -> bool {
        self.tokens_per_minute.is_some() || self.tokens_per_day.is_some()
    }

    pub fn is_unlimited(&self) -> bool {
        *self == Allowance::default()
    }
}

/// What each key has used. Outlives the configurations.
#[derive(Default)]
pub struct Limits(Mutex<HashMap<String, Used>>);

struct Used {
    requests: Bucket,
    tokens: Bucket,
    running: u64,
    /// Days since 1970, and the tokens of that day.
    day: u64,
    today: u64,
}

/// How much is left of a minute's worth.
#[derive(Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
    /// 0 while there is no limit.
    limit: u64,
}

impl Bucket {
    /// Fills up to now, to at most `limit`. One that had no limit before begins full: what was
    /// used until then was free.
    fn fill(&mut self, limit: u64, now: Instant) {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = match self.limit {
            0 => limit as f64,
            _ => (self.left + since * limit as f64 / 60.0).min(limit as f64),
        };
        self.at = now;
        self.limit = limit;
    }

    /// Takes out what was used. Nobody has to wait longer than a day for it.
    fn take(&mut self, count: u64) {
        if self.limit > 0 {
            let least = -(self.limit as f64) * DEBT_MINUTES;
            self.left = (self.left - count as f64).max(least);
        }
    }

    /// When there will be `wanted` in it.
    fn wait(&self, wanted: f64, limit: u64) -> Duration {
        let missing = (wanted - self.left).max(0.0);
        Duration::try_from_secs_f64(missing * 60.0 / limit.max(1) as f64)
            .unwrap_or(Duration::from_secs(60))
    }
}

/// A request that counts as running. Dropping it ends that, on every way out.
pub struct Ticket {
    limits: Arc<Limits>,
    name: String,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(used) = self.limits.0.lock().get_mut(&self.name) {
            used.running = used.running.saturating_sub(1);
        }
    }
}

const DAY: u64 = 86_400;

/// How many minutes' worth a bucket can be below nothing.
const DEBT_MINUTES: f64 = 24.0 * 60.0;

impl Limits {
    /// Lets a request of this key begin, or says why not.
    pub fn admit(self: &Arc<Limits>, key: &ClientKey) -> Result<Option<Ticket>, ApiError> {
        if key.allowance.is_unlimited() {
            return Ok(None);
        }
        self.admit_at(key, Instant::now(), clock::unix_seconds())?;
        Ok(Some(Ticket {
            limits: Arc::clone(self),
            name: key.name.clone(),
        }))
    }

    fn admit_at(&self, key: &ClientKey, now: Instant, unix: u64) -> Result<(), ApiError> {
        let allowance = &key.allowance;
        let mut all = self.0.lock();
        let used = used(&mut all, key, now, unix);
        let refuse = |what: String, after: Duration| {
            Err(
                ApiError::new(429, format!("the key {} may use {what}", key.name))
                    .with_code("rate_limit_exceeded")
                    .with_retry_after(after),
            )
        };
        if let Some(limit) = allowance.tokens_per_day
            && used.today >= limit
        {
            let until = Duration::from_secs(DAY - unix % DAY);
            let message = format!(
                "the key {} has used its {limit} tokens of this day, which ends at midnight UTC",
                key.name
            );
            let mut error = ApiError::new(429, message)
                .with_code("insufficient_quota")
                .with_retry_after(until);
            error.kind = "insufficient_quota".into();
            return Err(error);
        }
        if let Some(limit) = allowance.concurrent
            && used.running >= limit
        {
            return refuse(format!("{limit} requests at once"), Duration::from_secs(1));
        }
        if let Some(limit) = allowance.tokens_per_minute
            && used.tokens.left < 1.0
        {
            let after = used.tokens.wait(1.0, limit);
            return refuse(format!("{limit} tokens a minute"), after);
        }
        if let Some(limit) = allowance.requests_per_minute {
            if used.requests.left < 1.0 {
                let after = used.requests.wait(1.0, limit);
                return refuse(format!("{limit} requests a minute"), after);
            }
            used.requests.left -= 1.0;
        }
        used.running += 1;
        Ok(())
    }

    /// Books what an answer cost.
    pub fn spend(&self, name: &str, tokens: u64) {
        if tokens == 0 {
            return;
        }
        if let Some(used) = self.0.lock().get_mut(name) {
            used.tokens.take(tokens);
            used.today = used.today.saturating_add(tokens);
        }
    }

    /// Lets a request of this key, of which one was admitted, be `more` requests to upstreams
    /// besides, or says why not. Nothing was made of it yet.
    pub fn admit_more(&self, key: &ClientKey, more: u64) -> Result<(), ApiError> {
        self.admit_more_at(key, more, Instant::now(), clock::unix_seconds())
    }

    fn admit_more_at(
        &self,
        key: &ClientKey,
        more: u64,
        now: Instant,
        unix: u64,
    ) -> Result<(), ApiError> {
        let Some(limit) = key.allowance.requests_per_minute.filter(|_| more > 0) else {
            return Ok(());
        };
        let mut all = self.0.lock();
        let used = used(&mut all, key, now, unix);
        if used.requests.left < more as f64 {
            let name = &key.name;
            let wanted = more.saturating_add(1);
            let message = format!(
                "the key {name} may use {limit} requests a minute, and this one is {wanted} requests to an upstream"
            );
            return Err(ApiError::new(429, message)
                .with_code("rate_limit_exceeded")
                .with_retry_after(used.requests.wait(more as f64, limit)));
        }
        used.requests.left -= more as f64;
        Ok(())
    }

    /// Books requests to upstreams that were made besides those that were admitted, such as those
    /// after a failure.
    pub fn charge(&self, name: &str, requests: u64) {
        if requests > 0
            && let Some(used) = self.0.lock().get_mut(name)
        {
            used.requests.take(requests);
        }
    }

    /// OpenAI's headers about what is left, in its way to write a time; none for a key without
    /// limits.
    pub fn headers(&self, key: &ClientKey) -> Vec<(&'static str, String)> {
        if key.allowance.is_unlimited() {
            return Vec::new();
        }
        self.headers_at(key, Instant::now(), clock::unix_seconds())
    }

    fn headers_at(&self, key: &ClientKey, now: Instant, unix: u64) -> Vec<(&'static str, String)> {
        let mut all = self.0.lock();
        let used = used(&mut all, key, now, unix);
        let mut headers = Vec::new();
        let mut told = |names: [&'static str; 3], limit: Option<u64>, bucket: &Bucket| {
            let Some(limit) = limit else { return };
            let reset = bucket.wait(limit as f64, limit);
            headers.push((names[0], limit.to_string()));
            headers.push((names[1], (bucket.left.max(0.0) as u64).to_string()));
            headers.push((names[2], span(reset)));
        };
        told(
            [
                "x-ratelimit-limit-requests",
                "x-ratelimit-remaining-requests",
                "x-ratelimit-reset-requests",
            ],
            key.allowance.requests_per_minute,
            &used.requests,
        );
        told(
            [
                "x-ratelimit-limit-tokens",
                "x-ratelimit-remaining-tokens",
                "x-ratelimit-reset-tokens",
            ],
            key.allowance.tokens_per_minute,
            &used.tokens,
        );
        headers
    }
}

/// The key's entry, up to date.
fn used<'a>(
    all: &'a mut HashMap<String, Used>,
    key: &ClientKey,
    now: Instant,
    unix: u64,
) -> &'a mut Used {
    let requests = key.allowance.requests_per_minute.unwrap_or(0);
    let tokens = key.allowance.tokens_per_minute.unwrap_or(0);
    // Names come from the config, so their number is bounded by it.
    let new = Bucket {
        left: 0.0,
        at: now,
        limit: 0,
    };
    let used = all.entry(key.name.clone()).or_insert_with(|| Used {
        requests: new,
        tokens: new,
        running: 0,
        day: unix / DAY,
        today: 0,
    });
    used.requests.fill(requests, now);
    used.tokens.fill(tokens, now);
    let day = unix / DAY;
    if used.day > day + 1 {
        // The clock was far ahead; what was used then counts for today.
        used.day = day;
    }
    // A clock that steps back over midnight and forth again gives no day twice.
    if used.day < day {
        used.day = day;
        used.today = 0;
    }
    used
}

/// OpenAI's way to write a time span: `120ms`, `1s`, `6m0s`.
fn span(time: Duration) -> String {
    let ms = clock::millis(time);
    match ms {
        0..1_000 => format!("{ms}ms"),
        1_000..60_000 => {
            let seconds = (ms as f64 / 1e3 * 1e3).round() / 1e3;
            format!("{seconds}s")
        }
        _ => format!("{}m{}s", ms / 60_000, ms / 1_000 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(allowance: Allowance) -> ClientKey {
        ClientKey {
            name: "ci".into(),
            digest: [0; 32],
            models: Vec::new(),
            allowance,
        }
    }

    const NOON: u64 = 20_000 * DAY + DAY / 2;

    #[test]
    fn requests_come_at_their_pace() {
        let limits = Limits::default();
        let key = key(Allowance {
            requests_per_minute: Some(2),
            ..Allowance::default()
        });
        let begin = Instant::now();
        let at = |seconds| limits.admit_at(&key, begin + Duration::from_secs(seconds), NOON);
        assert!(at(0).is_ok() && at(0).is_ok());
        let error = at(0).unwrap_err();
        assert_eq!(
            (error.status, error.code.as_deref()),
            (429, Some("rate_limit_exceeded"))
        );
        assert_eq!(error.kind, "rate_limit_error");
        assert_eq!(error.retry_after, Some(Duration::from_secs(30)));
        let headers = limits.headers_at(&key, begin, NOON);
        let told: Vec<_> = headers.iter().map(|(_, value)| value.as_str()).collect();
        assert_eq!(told, ["2", "0", "1m0s"]);
        assert!(at(29).is_err() && at(31).is_ok() && at(32).is_err());
        // An hour without a request is worth no more than a minute's.
        assert!(at(3_600).is_ok() && at(3_600).is_ok() && at(3_600).is_err());
    }

    #[test]
    fn tokens_are_paid_for_afterwards() {
        let limits = Limits::default();
        let key = key(Allowance {
            tokens_per_minute: Some(600),
            ..Allowance::default()
        });
        let begin = Instant::now();
        let at = |seconds| limits.admit_at(&key, begin + Duration::from_secs(seconds), NOON);
        assert!(at(0).is_ok());
        limits.spend("ci", 900);
        let after = at(0).unwrap_err().retry_after.unwrap();
        assert_eq!(
            after.as_millis(),
            30_100,
            "300 below nothing, at 10 a second"
        );
        let headers = limits.headers_at(&key, begin, NOON);
        assert_eq!(headers[1], ("x-ratelimit-remaining-tokens", "0".to_owned()));
        assert_eq!(headers[2], ("x-ratelimit-reset-tokens", "1m30s".to_owned()));
        assert!(at(30).is_err() && at(31).is_ok());
    }

    #[test]
    fn nobody_waits_for_more_than_a_day() {
        let limits = Limits::default();
        let key = key(Allowance {
            tokens_per_minute: Some(600),
            ..Allowance::default()
        });
        let now = Instant::now();
        assert!(limits.admit_at(&key, now, NOON).is_ok());
        for _ in 0..3 {
            limits.spend("ci", u64::MAX);
        }
        let after = limits.admit_at(&key, now, NOON).unwrap_err().retry_after;
        assert_eq!(after.unwrap().as_secs(), DAY);
    }

    #[test]
    fn a_request_that_is_several_takes_all_of_them_or_none() {
        let limits = Limits::default();
        let key = key(Allowance {
            requests_per_minute: Some(3),
            ..Allowance::default()
        });
        let now = Instant::now();
        assert!(limits.admit_at(&key, now, NOON).is_ok());
        let error = limits.admit_more_at(&key, 3, now, NOON).unwrap_err();
        assert_eq!(
            (error.status, error.code.as_deref()),
            (429, Some("rate_limit_exceeded"))
        );
        assert_eq!(error.retry_after, Some(Duration::from_secs(20)));
        assert!(limits.admit_more_at(&key, 2, now, NOON).is_ok());
        assert!(limits.admit_at(&key, now, NOON).is_err());
        // Those after a failure are made first, and counted then.
        limits.charge("ci", 3);
        let later = |seconds| now + Duration::from_secs(seconds);
        assert!(limits.admit_at(&key, later(79), NOON).is_err());
        assert!(limits.admit_at(&key, later(81), NOON).is_ok());
    }

    #[test]
    fn a_day_ends_at_midnight() {
        let limits = Limits::default();
        let key = key(Allowance {
            tokens_per_day: Some(10),
            ..Allowance::default()
        });
        let now = Instant::now();
        assert!(limits.admit_at(&key, now, NOON).is_ok());
        limits.spend("ci", 10);
        let error = limits.admit_at(&key, now, NOON).unwrap_err();
        assert_eq!(error.code.as_deref(), Some("insufficient_quota"));
        assert_eq!(error.kind, "insufficient_quota");
        assert_eq!(error.retry_after, Some(Duration::from_secs(DAY / 2)));
        assert!(limits.admit_at(&key, now, NOON + DAY / 2).is_ok());
    }

    #[test]
    fn a_clock_that_steps_over_midnight_and_back_gives_no_day_twice() {
        let limits = Limits::default();
        let key = key(Allowance {
            tokens_per_day: Some(10),
            ..Allowance::default()
        });
        let now = Instant::now();
        let next_day = NOON + DAY;
        assert!(limits.admit_at(&key, now, next_day).is_ok());
        limits.spend("ci", 10);
        for unix in [NOON, next_day, NOON, next_day] {
            assert!(limits.admit_at(&key, now, unix).is_err(), "{unix}");
        }
        assert!(limits.admit_at(&key, now, next_day + DAY).is_ok());
        // One that was a year ahead does not close the key for a year.
        limits.spend("ci", 10);
        assert!(limits.admit_at(&key, now, next_day + 400 * DAY).is_ok());
        limits.spend("ci", 10);
        assert!(limits.admit_at(&key, now, NOON).is_err());
        assert!(limits.admit_at(&key, now, NOON + DAY).is_ok());
    }

    #[test]
    fn a_ticket_is_given_back() {
        let limits = Arc::new(Limits::default());
        let key = key(Allowance {
            concurrent: Some(1),
            ..Allowance::default()
        });
        let ticket = limits.admit(&key).unwrap();
        assert!(limits.admit(&key).is_err());
        drop(ticket);
        let again = limits.admit(&key).unwrap();
        assert!(again.is_some());
        assert!(
            limits
                .admit(&self::key(Allowance::default()))
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn spans_as_openai_writes_them() {
        for (ms, text) in [
            (0, "0ms"),
            (120, "120ms"),
            (1_000, "1s"),
            (1_500, "1.5s"),
            (360_000, "6m0s"),
        ] {
            assert_eq!(span(Duration::from_millis(ms)), text);
        }
    }
}
