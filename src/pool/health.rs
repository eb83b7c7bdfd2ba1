//! How one key stands: what it rests for, and until when.

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
    /// How often the rest was doubled.
    step: u32,
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
}

/// Models that are remembered per key. Beyond it the one that is usable soonest is forgotten: the
/// worst that follows is one request that is refused again.
const MODELS: usize = 64;

/// The first rest of a rate-limited key whose upstream gave no hint; doubles each time.
const FIRST_REST: Duration = Duration::from_secs(1);

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
        if self.key.as_ref().is_some_and(|rest| rest.began <= since) {
            self.key = None;
        }
        self.avoid_until = None;
        self.misses = 0;
    }

    pub fn failed(&mut self, model: &str, failure: &Failure, ceiling: Duration, now: Instant) {
        match failure.class {
            Class::Server | Class::Transport => self.misses = self.misses.saturating_add(1),
            // The upstream has spoken, whatever it said.
            Class::RequestFault | Class::ModelMissing | Class::KeyBad | Class::RateLimit => {
                self.misses = 0;
            }
            Class::Ended | Class::CallerGone => {}
        }
        let cool_down = failure.class.cool_down();
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
            CoolDown::Key(time) => {
                self.key = Some(rest(failure, now, time.max(hint(failure, ceiling)), 0));
            }
            CoolDown::Model(time) => self.rest_model(model, rest(failure, now, time, 0), now),
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
                    Some(rest) => rest.step + 1,
                };
                let time = match failure.retry_after {
                    Some(_) => hint(failure, ceiling),
                    None => FIRST_REST.saturating_mul(1 << step.min(20)).min(ceiling),
                };
                let mut new = rest(failure, now, time, step);
                if let Some(before) = before.filter(|before| before.until > now) {
                    new.until = new.until.max(before.until);
                }
                self.rest_model(model, new, now);
            }
        }
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

fn rest(failure: &Failure, now: Instant, time: Duration, step: u32) -> Rest {
    Rest {
        until: now + time,
        began: now,
        class: failure.class,
        why: cut(&failure.message, WORDS).to_owned(),
        step,
    }
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
