//! `Tries`: a request's way over targets, keys and retries.
//!
//! Knows when to try again, where, and what a caller is told when nothing is left. What is sent,
//! and what becomes of the answer, is the affair of the `Work` at hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use log::debug;

use super::room::TooLong;
use crate::cancel::Cause;
use crate::config::Upstream;
use crate::desk::Job;
use crate::error::ApiError;
use crate::failure::{Class, Failure, Verdict};
use crate::inbound;
use crate::pool::{Asked, Lease, NoLease, Wanted};
use crate::record::Record;
use crate::route::Target;
use crate::server::State;
use crate::upstream::ended_for_good;

/// Between two questions to an upstream that loads its model.
const LOADING_LOOK: Duration = Duration::from_secs(1);

/// What a caller is told to wait who waits no longer here.
const LOADING_RETRY: Duration = Duration::from_secs(5);

/// There is a route, and nobody on it who could be asked.
pub fn nobody() -> ApiError {
    ApiError::new(503, "no upstream can serve this model now").with_code("no_capacity")
}

/// What is tried.
pub trait Work {
    type Answer;

    fn record(&mut self) -> &mut Record;

    /// Nothing can be tried again.
    fn is_final(&self) -> bool;

    /// A target's turn has come. Gives the key to begin with, where one is better than others.
    fn begin(&mut self, target: &Target) -> Result<Option<usize>, ApiError>;

    /// What the pool calls the model: a key that rests for one name still serves another.
    fn name(&self, target: &Target) -> String {
        target.model.clone()
    }

    /// One attempt with one key.
    fn attempt(&mut self, target: &Target, lease: &Lease) -> Result<Self::Answer, Failure>;

    /// What the pool has to know of the request when the attempt has failed.
    fn asked(&self) -> Asked;

    /// What was sent: where to, and the body as far as it is held. An upstream may repeat it.
    fn said(&self) -> [&[u8]; 2];
}

/// Work of any kind, so that the way over targets is compiled once and not for each kind.
trait AnyWork {
    fn record(&mut self) -> &mut Record;
    fn is_final(&self) -> bool;
    fn begin(&mut self, target: &Target) -> Result<Option<usize>, ApiError>;
    fn name(&self, target: &Target) -> String;
    fn attempt(&mut self, target: &Target, lease: &Lease) -> Result<(), Failure>;
    fn asked(&self) -> Asked;
    fn said(&self) -> [&[u8]; 2];
}

/// Work, and its answer once there is one.
struct Answered<'w, W: Work> {
    work: &'w mut W,
    answer: Option<W::Answer>,
}

impl<W: Work> AnyWork for Answered<'_, W> {
    fn record(&mut self) -> &mut Record {
        self.work.record()
    }

    fn is_final(&self) -> bool {
        self.work.is_final()
    }

    fn begin(&mut self, target: &Target) -> Result<Option<usize>, ApiError> {
        self.work.begin(target)
    }

    fn name(&self, target: &Target) -> String {
        self.work.name(target)
    }

    fn attempt(&mut self, target: &Target, lease: &Lease) -> Result<(), Failure> {
        self.answer = Some(self.work.attempt(target, lease)?);
        Ok(())
    }

    fn asked(&self) -> Asked {
        self.work.asked()
    }

    fn said(&self) -> [&[u8]; 2] {
        self.work.said()
    }
}

/// There is no answer, or no whole one.
pub struct Refused {
    pub error: Box<ApiError>,
    pub caller_gone: bool,
    /// Asking again soon cannot help: the key or the request is refused.
    pub hopeless: bool,
    /// The target's format has no words for the request; another one may have.
    unfit: bool,
    /// The request is longer than the target's model takes.
    too_long: bool,
    /// The target has yet to load its model.
    loading: bool,
}

impl Refused {
    pub fn plain(error: ApiError) -> Refused {
        Refused {
            error: Box::new(error),
            caller_gone: false,
            hopeless: false,
            unfit: false,
            too_long: false,
            loading: false,
        }
    }

    /// Which of two the caller is told: being out of quota says when to come back, being refused
    /// says nothing.
    fn unless_better(self, before: Option<Refused>) -> Refused {
        match before {
            Some(before) if before.error.status == 429 && self.hopeless => before,
            // That the prompt is too long says more than that a key is refused.
            Some(before) if before.too_long && self.hopeless && !self.too_long => before,
            // A target that could have served it says more than one that never can.
            Some(before) if self.unfit => before,
            _ => self,
        }
    }
}

/// One request's budget.
pub struct Tries<'t> {
    state: &'t State,
    job: &'t Arc<Job>,
    id: &'t str,
    retries_left: u32,
}

/// What follows a failed attempt on one target.
enum Next {
    /// Another attempt on this target.
    Again,
    /// This target is done with; another may serve.
    Elsewhere,
    GiveUp,
}

impl<'t> Tries<'t> {
    pub fn new(state: &'t State, job: &'t Arc<Job>, id: &'t str) -> Tries<'t> {
        Tries {
            state,
            job,
            id,
            retries_left: state.config.retries,
        }
    }

    /// Tries the targets in order. With the answer comes the lease of the key that gave it.
    pub fn run<W: Work>(
        &mut self,
        work: &mut W,
        targets: &[Target],
    ) -> Result<(W::Answer, Lease), Refused> {
        let mut answered = Answered { work, answer: None };
        let lease = self.try_all(&mut answered, targets)?;
        let answer = answered.answer.expect("it went well, so there is one");
        Ok((answer, lease))
    }

    fn try_all(&mut self, work: &mut dyn AnyWork, targets: &[Target]) -> Result<Lease, Refused> {
        let mut last: Option<Refused> = None;
        let mut too_long = TooLong::default();
        let mut todo: Vec<&Target> = targets.iter().collect();
        let mut patience = None;
        loop {
            // Those that will serve the request once they have loaded their models.
            let mut soon = Vec::new();
            for target in todo {
                if too_long.rules_out(target, self.state) {
                    continue;
                }
                match self.try_target(work, target) {
                    Ok(lease) => return Ok(lease),
                    Err((refused, Next::Elsewhere)) => {
                        if refused.too_long {
                            too_long.note(target, self.state);
                        }
                        if refused.loading {
                            soon.push(target);
                        }
                        last = Some(refused.unless_better(last));
                    }
                    Err((refused, _)) => return Err(refused),
                }
            }
            let last_one = |last: Option<Refused>| last.unwrap_or_else(|| Refused::plain(nobody()));
            let Some(first) = soon.first() else {
                return Err(last_one(last));
            };
            if patience.is_none() {
                patience = Patience::begin(self.state);
            }
            let Some(pause) = patience
                .as_ref()
                .and_then(|patience| patience.next(self.job))
            else {
                return Err(last_one(last));
            };
            if !self.job.cancel.pause(pause) {
                let upstream = &self.state.config.upstreams[first.upstream];
                return Err(self.no_lease(upstream, &NoLease::Cancelled, None));
            }
            todo = soon;
        }
    }

    /// Tries one target with as many of its keys as make sense.
    fn try_target(
        &mut self,
        work: &mut dyn AnyWork,
        target: &Target,
    ) -> Result<Lease, (Refused, Next)> {
        let upstream = &self.state.config.upstreams[target.upstream];
        let pool = &self.state.pools[target.upstream];
        work.record().upstream.clone_from(&upstream.name);
        let preferred = work.begin(target).map_err(|error| {
            // It was ended in the middle of its encoding, which says nothing about the target.
            if self.job.cancel.cause().is_some() {
                let refused = self.no_lease(upstream, &NoLease::Cancelled, None);
                return (refused, Next::GiveUp);
            }
            let unfit = Refused {
                unfit: true,
                ..Refused::plain(error)
            };
            (unfit, Next::Elsewhere)
        })?;
        let mut wanted = Wanted {
            model: work.name(target),
            barred: Vec::new(),
            preferred,
        };
        let mut last: Option<Refused> = None;
        loop {
            let limit = self.state.config.lease_wait.min(self.job.left());
            let lease = match pool.lease(&wanted, limit, &self.job.cancel) {
                Ok(lease) => lease,
                Err(none) => {
                    let refused = self.no_lease(upstream, &none, last);
                    let next = match none {
                        NoLease::Cancelled => Next::GiveUp,
                        _ => Next::Elsewhere,
                    };
                    return Err((refused, next));
                }
            };
            let attempted = work.attempt(target, &lease);
            self.job.settle();
            let failure = match attempted {
                Ok(()) => return Ok(lease),
                Err(failure) => {
                    let weighed = failure.weighed(&wanted.model, Some(&work.said()));
                    self.state.masks.failure(weighed)
                }
            };
            let key = lease.key();
            // The lease is given back in here, before the next one is taken.
            let mut refused = failed(self.id, &upstream.name, lease, &failure, work.asked());
            match self.next(work, &failure, key, &mut wanted) {
                Next::Again => last = Some(refused.unless_better(last)),
                next => {
                    // Who left during the pause before a retry is not told of the failure.
                    refused.caller_gone |= self.job.is_gone();
                    return Err((refused, next));
                }
            }
        }
    }

    /// What the failure's class says, applied to this request.
    fn next(
        &mut self,
        work: &mut dyn AnyWork,
        failure: &Failure,
        key: usize,
        wanted: &mut Wanted,
    ) -> Next {
        if work.is_final() {
            return Next::GiveUp;
        }
        if failure.too_long {
            return Next::Elsewhere;
        }
        match failure.class.verdict() {
            Verdict::Forward | Verdict::Abandon => Next::GiveUp,
            Verdict::NextTarget | Verdict::Await => Next::Elsewhere,
            Verdict::SwitchKey | Verdict::SwitchCounted => {
                if failure.class == Class::RateLimit && !self.state.config.quota_switch {
                    return Next::GiveUp;
                }
                if failure.class.verdict() == Verdict::SwitchCounted {
                    if self.retries_left == 0 {
                        return Next::Elsewhere;
                    }
                    self.retries_left -= 1;
                }
                work.record().switches += 1;
                wanted.barred.push(key);
                Next::Again
            }
            Verdict::Retry => {
                if self.retries_left == 0 {
                    return Next::Elsewhere;
                }
                self.retries_left -= 1;
                let done = self.state.config.retries - self.retries_left;
                let pause = back_off(self.state.config.backoff, done, inbound::unique());
                if self.job.cancel.pause(pause.min(self.job.left())) {
                    Next::Again
                } else {
                    Next::GiveUp
                }
            }
        }
    }

    /// What a caller is told when there is no key to try.
    fn no_lease(&self, upstream: &Upstream, none: &NoLease, before: Option<Refused>) -> Refused {
        let has_key = upstream.keys.iter().any(|key| key.secret.is_some());
        let upstream = &*upstream.name;
        let no_capacity = |status: u16, message: String| {
            Refused::plain(ApiError::new(status, message).with_code("no_capacity"))
        };
        match none {
            NoLease::Cancelled => {
                let cause = self.job.cancel.cause().unwrap_or(Cause::Deadline);
                Refused {
                    error: Box::new(ended_for_good(cause).to_error(upstream, "")),
                    caller_gone: cause == Cause::CallerGone,
                    hopeless: false,
                    unfit: false,
                    too_long: false,
                    loading: false,
                }
            }
            // The failure that made a key rest says more than that there is none left.
            _ if before.is_some() && !matches!(none, NoLease::Busy | NoLease::LineFull) => {
                before.unwrap_or_else(|| no_capacity(503, String::new()))
            }
            NoLease::Spent => no_capacity(
                503,
                match has_key {
                    true => format!("every key of upstream {upstream} failed"),
                    false => format!("upstream {upstream} failed"),
                },
            ),
            NoLease::Resting {
                class,
                soonest,
                why,
                status,
            } => {
                let after = soonest.unwrap_or(Duration::from_secs(1));
                let mut refused = match class {
                    Class::RateLimit => Refused::plain(
                        ApiError::new(
                            429,
                            match has_key {
                                true => {
                                    format!(
                                        "every key of upstream {upstream} is out of quota: {why}"
                                    )
                                }
                                false => format!("upstream {upstream} takes no more now: {why}"),
                            },
                        )
                        .with_code("rate_limit_exceeded"),
                    ),
                    Class::ModelMissing => Refused::plain(
                        ApiError::new(*status, why.clone())
                            .with_code("model_not_found")
                            .with_param("model"),
                    ),
                    Class::Unclear => Refused::plain(
                        ApiError::new(
                            *status,
                            format!("upstream {upstream} refuses what it is asked: {why}"),
                        )
                        .with_code("upstream_refused"),
                    ),
                    Class::KeyBad => Refused {
                        hopeless: true,
                        ..Refused::plain(
                            ApiError::new(
                                502,
                                format!("upstream {upstream} refused its keys: {why}"),
                            )
                            .with_code("upstream_key_refused"),
                        )
                    },
                    _ => no_capacity(
                        503,
                        match has_key {
                            true => format!("every key of upstream {upstream} rests: {why}"),
                            false => format!("upstream {upstream} rests: {why}"),
                        },
                    ),
                };
                if *class != Class::ModelMissing {
                    refused.error.retry_after = Some(after);
                }
                refused
            }
            NoLease::Busy | NoLease::LineFull => {
                let what = match none {
                    NoLease::Busy => "stayed busy",
                    _ => "are busy and too many requests wait for them",
                };
                let mut refused =
                    no_capacity(503, format!("all slots of upstream {upstream} {what}"));
                refused.error.retry_after = Some(Duration::from_secs(1));
                refused
            }
        }
    }
}

/// Gives back the lease of a key that failed, and says what a caller would be told of it.
#[cold]
#[inline(never)]
pub fn failed(id: &str, upstream: &str, lease: Lease, failure: &Failure, asked: Asked) -> Refused {
    debug!(
        "{id}: {} with key {} of {upstream}: {} {}",
        failure.class.name(),
        lease.key_name(),
        failure.status,
        failure.message
    );
    lease.failed(failure, asked, Instant::now());
    let mut error = Box::new(failure.to_error(upstream, lease.key_name()));
    if failure.class == Class::RateLimit {
        error.retry_after = lease.soonest_quota().or(error.retry_after);
    }
    if failure.class == Class::Loading {
        error.retry_after = error.retry_after.or(Some(LOADING_RETRY));
    }
    Refused {
        error,
        caller_gone: failure.class == Class::CallerGone,
        hopeless: failure.is_final(),
        unfit: false,
        too_long: failure.too_long,
        loading: failure.class == Class::Loading,
    }
}

/// A place among those who wait for a model to be loaded, and until when they do.
struct Patience {
    waiting: Arc<AtomicUsize>,
    until: Instant,
}

impl Patience {
    /// `None`: nobody is to wait, or as many do as may. The workers are for others, too.
    fn begin(state: &State) -> Option<Patience> {
        let limit = state.config.loading_wait;
        let most = (state.config.workers / 4).max(1);
        let patience = Patience {
            waiting: Arc::clone(&state.patient),
            until: Instant::now() + limit,
        };
        // Counted first; the guard takes it back if it was one too many.
        let before = patience.waiting.fetch_add(1, Ordering::AcqRel);
        (before < most && !limit.is_zero()).then_some(patience)
    }

    /// How long to wait until the next look, if there is time for one.
    fn next(&self, job: &Job) -> Option<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        let left = left.min(job.left());
        (!left.is_zero()).then(|| left.min(LOADING_LOOK))
    }
}

impl Drop for Patience {
    fn drop(&mut self) {
        self.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The pause before the `count`th retry: doubling, and a quarter of it left to chance.
fn back_off(first: Duration, count: u32, chance: u64) -> Duration {
    const CEILING: Duration = Duration::from_secs(8);
    let full = first
        .saturating_mul(1 << count.saturating_sub(1).min(16))
        .min(CEILING);
    let share = (chance % 256) as f64 / 1024.0;
    full.mul_f64(1.0 - share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_ceiling_and_vary_by_a_quarter() {
        let first = Duration::from_millis(200);
        assert_eq!(back_off(first, 1, 0), first);
        assert_eq!(back_off(first, 3, 0), first * 4);
        assert_eq!(back_off(first, 60, 0), Duration::from_secs(8));
        let least = back_off(first, 1, 255).as_secs_f64();
        assert!((0.150..0.151).contains(&least), "{least}");
    }
}
