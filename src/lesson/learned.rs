//! `Learned`: the lessons of one configuration, by upstream and model, for a day.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::{Lesson, Lessons};

/// More lessons than any configuration needs: each is about one model of one upstream.
const MOST: usize = 256;

/// How long a lesson counts. After that the model is asked as if nothing had been learned, which
/// costs one refused request where it still holds.
pub const LASTS: Duration = Duration::from_secs(24 * 60 * 60);

/// The newest last. The oldest ones make room.
#[derive(Debug, Default)]
pub struct Learned(Mutex<Vec<Entry>>);

#[derive(Debug)]
struct Entry {
    upstream: String,
    model: String,
    lesson: Lesson,
    until: Instant,
}

impl Entry {
    fn is_of(&self, upstream: &str, model: &str) -> bool {
        self.upstream == upstream && self.model == model
    }
}

/// One lesson as `/status` shows it.
#[derive(Debug, Clone)]
pub struct Told {
    pub upstream: String,
    pub model: String,
    pub lesson: String,
    /// Until it is forgotten.
    pub left: Duration,
}

impl Learned {
    /// False: it was known already, and counts for another day.
    pub fn learn(&self, upstream: &str, model: &str, lesson: Lesson, now: Instant) -> bool {
        let mut entries = self.0.lock();
        entries.retain(|entry| entry.until > now);
        let before = entries.len();
        entries.retain(|entry| entry.lesson != lesson || !entry.is_of(upstream, model));
        let is_new = entries.len() == before;
        if entries.len() == MOST {
            entries.remove(0);
        }
        entries.push(Entry {
            upstream: upstream.to_owned(),
            model: model.to_owned(),
            lesson,
            until: now + LASTS,
        });
        is_new
    }

    /// What is known of one model of one upstream, the oldest first.
    pub fn of(&self, upstream: &str, model: &str, now: Instant) -> Lessons {
        let entries = self.0.lock();
        let known = entries
            .iter()
            .filter(|entry| entry.until > now && entry.is_of(upstream, model));
        Lessons(known.map(|entry| entry.lesson).collect())
    }

    pub fn told(&self, now: Instant) -> Vec<Told> {
        let entries = self.0.lock();
        let lasting = entries.iter().filter(|entry| entry.until > now);
        lasting
            .map(|entry| Told {
                upstream: entry.upstream.clone(),
                model: entry.model.clone(),
                lesson: entry.lesson.to_string(),
                left: entry.until.duration_since(now),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lessons_belong_to_one_model_of_one_upstream_for_a_day() {
        let now = Instant::now();
        let learned = Learned::default();
        assert!(learned.learn("a", "m", Lesson::WantsResponses, now));
        assert!(!learned.learn("a", "m", Lesson::WantsResponses, now));
        assert!(learned.learn("a", "m", Lesson::Without("stop"), now));
        let knows =
            |upstream: &str, model: &str, lesson, now| learned.of(upstream, model, now).has(lesson);
        assert!(knows("a", "m", Lesson::WantsResponses, now));
        assert!(knows("a", "m", Lesson::Without("stop"), now));
        assert!(!knows("a", "m", Lesson::Without("seed"), now));
        assert!(!knows("a", "n", Lesson::WantsResponses, now));
        assert!(!knows("b", "m", Lesson::WantsResponses, now));
        let told = learned.told(now);
        assert_eq!(told.len(), 2);
        assert_eq!(told[1].lesson, "goes without stop");
        assert_eq!(told[1].left, LASTS);
        // Seen again, it lasts from then on.
        let later = now + LASTS / 2;
        learned.learn("a", "m", Lesson::WantsResponses, later);
        let next_day = now + LASTS;
        assert!(knows("a", "m", Lesson::WantsResponses, next_day));
        assert!(!knows("a", "m", Lesson::Without("stop"), next_day));
        assert_eq!(learned.told(next_day).len(), 1);
        assert!(learned.told(later + LASTS).is_empty());
    }

    #[test]
    fn the_oldest_lessons_make_room() {
        let now = Instant::now();
        let learned = Learned::default();
        for number in 0..=MOST {
            learned.learn("a", &number.to_string(), Lesson::NoSummary, now);
        }
        let knows = |model: &str| learned.of("a", model, now).has(Lesson::NoSummary);
        assert!(!knows("0") && knows("1") && knows(&MOST.to_string()));
        assert_eq!(learned.told(now).len(), MOST);
        // What has had its time makes room first.
        learned.learn("a", "later", Lesson::NoSummary, now + LASTS);
        assert_eq!(learned.told(now + LASTS).len(), 1);
    }
}
