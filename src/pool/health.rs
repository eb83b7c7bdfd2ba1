//! How one key stands: what it rests for, and until when.

use std::hash::{DefaultHasher, Hasher};
use std::time::{Duration, Instant};

use crate::failure::{Class, CoolDown, Failure};

/// A time during which a key is not used.
#[derive(Debug, Clone, PartialEq)]
pub struct Rest {
    pub until: Instant,
    began: Instant,
    pub class: Class,
    /// The upstream's words, for the next caller who is refused because of it.
    pub why: String,
    /// What that caller is told.
    pub status: u16,
    /// How often the rest was doubled.
    step: u32,
    /// The request whose refusal led to it: the same one again doubles nothing.
    request: u64,
}

#[derive(Debug, Clone, Default)]
pub struct Health {
    key: Option<Rest>,
    /// Per model, in no order.
    models: Vec<(String, Rest)>,
    avoid_until: Option<Instant>,
    pub last_error: Option<String>,
    pub last_error_at: Option<Instant>,
    /// Attempts in a row at which the upstream was in trouble or gave no answer.
    pub misses: u32,
    /// Requests in a row that were refused without a word on what is at fault.
    strikes: u32,
    /// How often in a row the key was named bad.
    named_bad: u32,
    /// The key has given an answer before.
    has_worked: bool,
}

/// What is known of a request that failed, beside its failure.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked {
    /// The same for the same request to the same model; 0: not known.
    pub request: u64,
    /// On a route other than chat, where only what names the key itself counts against it.
    pub aside: bool,
}

/// Models that are remembered per key. Beyond it the one that is usable soonest is forgotten: the
/// worst that follows is one request that is refused again.
const MODELS: usize = 64;

/// The first rest of a rate-limited key whose upstream gave no hint; doubles each time.
const FIRST_REST: Duration = Duration::from_secs(1);

impl Asked {
    /// A chat request, known by all that it consists of.
    pub fn of(parts: &[&[u8]]) -> Asked {
        let mut hasher = DefaultHasher::new();
        for part in parts {
            hasher.write(part);
        }
        Asked {
            request: hasher.finish().max(1),
            aside: false,
        }
    }
}

/// So many refusals in a row without a word on their reason, and the key cools down.
const STRIKES: u32 = 3;

/// For so long at first, doubling up to `BAD_KEY`.
const STRIKE_REST: Duration = Duration::from_secs(10);

/// A key that its upstream calls bad although it worked before cools down for this long at first,
/// doubling up to `BAD_KEY`: such words come and go with trouble of the upstream's own.
const WORKED_BEFORE: Duration = Duration::from_secs(60);
const BAD_KEY: Duration = Duration::from_secs(600);

/// A doubled rest is forgotten this long after it ended.
const FORGET: Duration = Duration::from_secs(300);

/// How much of an upstream's words is kept.
const WORDS: usize = 300;

impl Health {
    /// The rest that keeps the key from serving `model` at `now`.
    pub fn resting(&self, model: &str, now: Instant) -> Option<&Rest> {
        let of_model = self
            .models
            .iter()
            .find(|(name, _)| name == model)
            .map(|(_, rest)| rest);
        // The longer one counts: the key is back when both are over.
        self.key
            .iter()
            .chain(of_model)
            .filter(|rest| rest.until > now)
            .max_by_key(|rest| rest.until)
    }

    /// Others come first.
    pub fn is_avoided(&self, now: Instant) -> bool {
        self.avoid_until.is_some_and(|until| until > now)
    }

    pub fn rests(&self, now: Instant) -> impl Iterator<Item = (Option<&str>, &Rest)> {
        self.key
            .iter()
            .map(|rest| (None, rest))
            .chain(
                self.models
                    .iter()
                    .map(|(model, rest)| (Some(&**model), rest)),
            )
            .filter(move |(_, rest)| rest.until > now)
    }

    /// An attempt that began at `since` gave an answer.
    pub fn succeeded(&mut self, model: &str, since: Instant) {
        // An answer to a question asked before the key was told to rest proves nothing.
        self.models
            .retain(|(name, rest)| name != model || rest.began > since);
        // Of refusals that named no reason, any answer shows that the key was not the reason.
        let is_over = |rest: &Rest| rest.began <= since || rest.class == Class::Unclear;
        if self.key.as_ref().is_some_and(is_over) {
            self.key = None;
        }
        self.avoid_until = None;
        self.misses = 0;
        self.strikes = 0;
        self.named_bad = 0;
        self.has_worked = true;
    }

    /// The upstream answers again: what it was spared for is over. Refusals and quotas are not.
    pub fn recovered(&mut self) {
        self.avoid_until = None;
        self.misses = 0;
    }

    pub fn failed(
        &mut self,
        model: &str,
        failure: &Failure,
        asked: Asked,
        ceiling: Duration,
        now: Instant,
    ) {
        match failure.class {
            Class::Server if asked.aside => {}
            Class::Server | Class::Transport => self.misses = self.misses.saturating_add(1),
            Class::Ended | Class::CallerGone => {}
            // The upstream has spoken, whatever it said.
            _ => self.misses = 0,
        }
        let cool_down = match failure.class.cool_down() {
            CoolDown::Strike | CoolDown::Avoid(_) if asked.aside => CoolDown::None,
            // A model that the request named beside its own, for a tool say; or a route without one.
            CoolDown::Model(_) if !failure.is_about(model) => CoolDown::None,
            cool_down => cool_down,
        };
        if cool_down != CoolDown::None {
            self.last_error_at = Some(now);
            self.last_error = Some(format!(
                "{} {}",
                failure.status,
                cut(&failure.message, WORDS)
            ));
        }
        match cool_down {
            CoolDown::None => {}
            CoolDown::Avoid(time) => self.avoid_until = Some(now + time),
            CoolDown::Key => {
                let is_new = self.key.as_ref().is_none_or(|rest| rest.until <= now);
                let time = match self.has_worked {
                    true => doubled(WORKED_BEFORE, self.named_bad, BAD_KEY),
                    false => BAD_KEY,
                };
                // Those that were under way together are one step.
                self.named_bad += u32::from(is_new);
                self.rest_key(rest(
                    failure,
                    asked,
                    now,
                    time.max(hint(failure, ceiling)),
                    0,
                ));
            }
            CoolDown::Strike => {
                if self.key.as_ref().is_some_and(|rest| rest.until > now) {
                    return;
                }
                self.strikes = self.strikes.saturating_add(1);
                if let Some(step) = self.strikes.checked_sub(STRIKES) {
                    let time = doubled(STRIKE_REST, step, BAD_KEY);
                    self.rest_key(rest(failure, asked, now, time, step));
                }
            }
            CoolDown::Model(time) => {
                self.rest_model(model, rest(failure, asked, now, time, 0), now);
            }
            CoolDown::RateLimit => {
                let before = self
                    .models
                    .iter()
                    .find(|(name, rest)| name == model && now < rest.until + FORGET)
                    .map(|(_, rest)| rest);
                // Several requests that were under way are refused together: one step for all.
                let step = match before {
                    None => 0,
                    Some(rest) if rest.until > now => rest.step,
                    Some(rest) if asked.request != 0 && rest.request == asked.request => rest.step,
                    Some(rest) => rest.step + 1,
                };
                let time = match failure.retry_after {
                    Some(_) => hint(failure, ceiling),
                    None => doubled(FIRST_REST, step, ceiling),
                };
                let mut new = rest(failure, asked, now, time, step);
                if let Some(before) = before.filter(|before| before.until > now) {
                    new.until = new.until.max(before.until);
                }
                self.rest_model(model, new, now);
            }
        }
    }

    /// A rest of the whole key never becomes shorter.
    fn rest_key(&mut self, mut new: Rest) {
        if let Some(before) = &self.key {
            new.until = new.until.max(before.until);
        }
        self.key = Some(new);
    }

    fn rest_model(&mut self, model: &str, rest: Rest, now: Instant) {
        self.models
            .retain(|(name, rest)| name != model && now < rest.until + FORGET);
        if self.models.len() >= MODELS {
            let soonest = (0..self.models.len()).min_by_key(|&i| self.models[i].1.until);
            if let Some(soonest) = soonest {
                self.models.swap_remove(soonest);
            }
        }
        self.models.push((model.to_owned(), rest));
    }
}

fn rest(failure: &Failure, asked: Asked, now: Instant, time: Duration, step: u32) -> Rest {
    Rest {
        until: now + time,
        began: now,
        class: failure.class,
        why: cut(&failure.message, WORDS).to_owned(),
        status: failure.status,
        step,
        request: asked.request,
    }
}

fn doubled(first: Duration, step: u32, ceiling: Duration) -> Duration {
    first.saturating_mul(1 << step.min(20)).min(ceiling)
}

/// The server's own hint, as long as it is not absurd.
fn hint(failure: &Failure, ceiling: Duration) -> Duration {
    failure.retry_after.unwrap_or_default().min(ceiling)
}

/// At most `limit` bytes, cut between characters.
fn cut(text: &str, limit: usize) -> &str {
    let mut end = text.len().min(limit);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
