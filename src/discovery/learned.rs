//! `Learned`: what one upstream's list said, and when it is asked for again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, RwLock};

use super::list::Model;

/// How long a list is good for.
const LIFETIME: Duration = Duration::from_secs(3_600);

/// A list that could not be had is asked for again after this long, doubling up to `AGAIN`: a
/// server that was started together with weir is soon there.
const SOON: Duration = Duration::from_millis(500);
const AGAIN: Duration = Duration::from_secs(60);

/// A server that has no list may have got one by an update.
const NO_LIST: Duration = Duration::from_secs(600);

/// A name that nobody knows has a list asked for before its time, but not more often than this.
const ONE_MORE_LOOK: Duration = Duration::from_secs(3);

/// What one upstream's list said.
#[derive(Debug, Default)]
pub struct Learned {
    known: RwLock<Known>,
    turn: Mutex<Turn>,
    /// A list was asked for, however that ended.
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Known {
    models: Vec<Arc<Model>>,
    by_id: HashMap<String, usize>,
    list: List,
}

/// What is known of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum List {
    /// It was never had, and it is asked for.
    #[default]
    Missing,
    /// The upstream answers, and has no list: nobody knows which names it takes.
    None,
    /// It was had. If it was empty, the upstream takes names that it does not list.
    Had,
}

/// Whose turn it is to ask.
#[derive(Debug, Default)]
struct Turn {
    /// When it is to be asked for; `None`: at once.
    due: Option<Instant>,
    asking: bool,
    /// When it was asked for last.
    ended: Option<Instant>,
    /// Times in a row that it could not be had.
    failures: u32,
}

/// How the question for a list ended.
pub enum Outcome {
    Had(Vec<Model>),
    /// The upstream says that it has none.
    NoList,
    Failed,
}

impl Learned {
    pub fn get(&self, id: &str) -> Option<Arc<Model>> {
        let known = self.known.read();
        let at = *known.by_id.get(id)?;
        known.models.get(at).cloned()
    }

    pub fn has(&self, id: &str) -> bool {
        self.known.read().by_id.contains_key(id)
    }

    pub fn ids(&self) -> Vec<String> {
        let known = self.known.read();
        known.models.iter().map(|model| model.id.clone()).collect()
    }

    pub fn list(&self) -> List {
        self.known.read().list
    }

    /// Whether the list is there and holds something, so that a name can be missing on it.
    pub fn is_there(&self) -> bool {
        !self.known.read().models.is_empty()
    }

    /// The upstream answers, but does not say which names it takes.
    pub fn is_silent(&self) -> bool {
        let known = self.known.read();
        known.list != List::Missing && known.models.is_empty()
    }

    /// The question for the list ended otherwise than the last one.
    pub(super) fn is_news(&self, outcome: &Outcome) -> bool {
        match outcome {
            Outcome::Failed => self.turn.lock().failures == 0,
            Outcome::NoList => self.list() == List::Missing,
            Outcome::Had(_) => true,
        }
    }

    /// Has the list asked for at once: the configuration was read anew.
    pub fn ask_now(&self) {
        let mut turn = self.turn.lock();
        turn.due = None;
        turn.failures = 0;
    }

    /// Has the list asked for before its time because of a name that nobody knows. False if it was
    /// asked for only now, or is waited for anyway.
    pub fn look_again(&self, now: Instant) -> bool {
        let mut turn = self.turn.lock();
        let is_fresh = |ended: Instant| now.saturating_duration_since(ended) < ONE_MORE_LOOK;
        if turn.asking || turn.ended.is_some_and(is_fresh) {
            return false;
        }
        turn.due = None;
        true
    }

    /// Whether an answer may come soon: it is being asked for, or will be at once.
    fn is_awaited(turn: &Turn, now: Instant) -> bool {
        turn.asking || turn.due.is_none_or(|due| due <= now)
    }

    /// Waits until nobody asks for the list, or for `until`.
    pub fn settle(&self, until: Instant) {
        let mut turn = self.turn.lock();
        while Learned::is_awaited(&turn, Instant::now()) {
            if self.ended.wait_until(&mut turn, until).timed_out() {
                return;
            }
        }
    }

    /// How long until it is asked for again.
    pub fn left(&self, now: Instant) -> Duration {
        let due = self.turn.lock().due;
        due.map_or(Duration::ZERO, |due| due.saturating_duration_since(now))
    }

    /// When it is due; `None` while it is being asked for.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        let turn = self.turn.lock();
        (!turn.asking).then(|| turn.due.unwrap_or(now))
    }

    /// Takes the turn to ask, if the list is due and nobody has it.
    pub(super) fn begin(&self, now: Instant) -> bool {
        let mut turn = self.turn.lock();
        let is_due = !turn.asking && turn.due.is_none_or(|due| due <= now);
        if is_due {
            turn.asking = true;
            // A reload in the meantime sets it back to `None`, and it is asked for once more.
            turn.due = Some(now + LIFETIME);
        }
        is_due
    }

    /// Gives the turn back. The models first, so that whoever waited finds them.
    pub(super) fn end(&self, outcome: Outcome, now: Instant) {
        let (failed, after) = match outcome {
            Outcome::Had(models) => {
                self.set(models);
                (false, LIFETIME)
            }
            Outcome::NoList => {
                let mut known = self.known.write();
                // The one that was had before stays.
                if known.list == List::Missing {
                    known.list = List::None;
                }
                (false, NO_LIST)
            }
            Outcome::Failed => {
                let failures = self.turn.lock().failures;
                let pause = SOON.saturating_mul(1 << failures.min(10)).min(AGAIN);
                (true, pause)
            }
        };
        let mut turn = self.turn.lock();
        turn.failures = if failed {
            turn.failures.saturating_add(1)
        } else {
            0
        };
        turn.asking = false;
        turn.ended = Some(now);
        if turn.due.is_some() {
            turn.due = Some(now + after);
        }
        self.ended.notify_all();
    }

    fn set(&self, models: Vec<Model>) {
        let mut known = self.known.write();
        known.by_id = models
            .iter()
            .enumerate()
            .map(|(at, model)| (model.id.clone(), at))
            .collect();
        known.models = models.into_iter().map(Arc::new).collect();
        known.list = List::Had;
    }

    /// A list that has come.
    #[cfg(test)]
    pub fn of(models: Vec<Model>) -> Arc<Learned> {
        let learned = Learned::default();
        learned.begin(Instant::now());
        learned.end(Outcome::Had(models), Instant::now());
        Arc::new(learned)
    }

    /// The same, of which only the names matter.
    #[cfg(test)]
    pub fn listing(ids: &[&str]) -> Arc<Learned> {
        let model = |id: &&str| Model {
            id: (*id).to_owned(),
            ..Model::default()
        };
        Learned::of(ids.iter().map(model).collect())
    }

    /// An upstream that said it has none, for tests.
    #[cfg(test)]
    pub fn none() -> Arc<Learned> {
        let learned = Learned::default();
        learned.begin(Instant::now());
        learned.end(Outcome::NoList, Instant::now());
        Arc::new(learned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_does_not_come_is_asked_for_in_growing_pauses() {
        let learned = Learned::default();
        let mut now = Instant::now();
        let mut pauses = Vec::new();
        for _ in 0..10 {
            assert!(learned.begin(now) && !learned.begin(now));
            assert_eq!(learned.due(now), None, "it is being asked for");
            learned.end(Outcome::Failed, now);
            let due = learned.due(now).unwrap();
            pauses.push((due - now).as_millis());
            assert!(!learned.begin(due - Duration::from_millis(1)));
            now = due;
        }
        assert_eq!(
            pauses,
            [
                500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000
            ]
        );
        assert_eq!(learned.list(), List::Missing);
        learned.begin(now);
        learned.end(Outcome::Had(vec![Model::default()]), now);
        assert_eq!(learned.due(now), Some(now + LIFETIME));
        assert!(learned.is_there());
        learned.ask_now();
        assert!(learned.begin(now));
        learned.end(Outcome::Failed, now);
        assert_eq!(
            learned.due(now),
            Some(now + SOON),
            "it was there in between"
        );
        assert!(learned.is_there(), "the last one stays");
    }

    #[test]
    fn unknown_names_have_it_asked_for_again_but_not_too_often() {
        let learned = Learned::default();
        let now = Instant::now();
        learned.begin(now);
        assert!(!learned.look_again(now), "it is being asked for");
        learned.end(Outcome::Had(vec![]), now);
        assert!(learned.is_silent());
        assert!(!learned.look_again(now + ONE_MORE_LOOK - Duration::from_millis(1)));
        let later = now + ONE_MORE_LOOK;
        assert!(learned.look_again(later) && learned.begin(later));
        assert!(!learned.look_again(later));
    }

    #[test]
    fn a_reload_while_it_is_asked_for_has_it_asked_for_once_more() {
        let learned = Learned::default();
        let now = Instant::now();
        learned.begin(now);
        learned.ask_now();
        learned.end(Outcome::NoList, now);
        assert_eq!(learned.due(now), Some(now));
        assert!(learned.is_silent() && learned.begin(now));
    }

    #[test]
    fn whoever_waits_for_a_list_has_it_as_soon_as_it_is_there() {
        let learned = Arc::new(Learned::default());
        learned.begin(Instant::now());
        let waiting = std::thread::spawn({
            let learned = Arc::clone(&learned);
            move || {
                learned.settle(Instant::now() + Duration::from_secs(60));
                learned.has("tiny")
            }
        });
        let model = Model {
            id: "tiny".into(),
            ..Model::default()
        };
        learned.end(Outcome::Had(vec![model]), Instant::now());
        assert!(waiting.join().unwrap());
        let begun = Instant::now();
        learned.ask_now();
        learned.settle(begun + Duration::from_millis(5));
        assert!(begun.elapsed() >= Duration::from_millis(5), "it has an end");
    }
}
