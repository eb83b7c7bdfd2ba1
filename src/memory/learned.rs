//! `Learned`: what upstreams have said about their models, so that it need not be found out again
//! with every request.

use parking_lot::Mutex;

/// More models than any configuration uses of which something has to be learned.
const MOST: usize = 256;

/// What a refused request taught.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lesson {
    /// The model is to be asked in the Responses format.
    WantsResponses,
    /// Usage of a stream must not be asked for.
    NoUsage,
    /// A summary of the reasoning is not given to us.
    NoSummary,
    /// Messages may have no members beyond the first ones of the format.
    PlainMessages,
}

/// Lessons by upstream and model, the newest last. The oldest ones make room.
#[derive(Debug, Default)]
pub struct Learned(Mutex<Vec<Entry>>);

#[derive(Debug, PartialEq)]
struct Entry {
    upstream: String,
    model: String,
    lesson: Lesson,
}

impl Learned {
    pub fn learn(&self, upstream: &str, model: &str, lesson: Lesson) {
        let entry = Entry {
            upstream: upstream.to_owned(),
            model: model.to_owned(),
            lesson,
        };
        let mut entries = self.0.lock();
        if entries.contains(&entry) {
            return;
        }
        if entries.len() == MOST {
            entries.remove(0);
        }
        entries.push(entry);
    }

    /// The lesson was wrong.
    pub fn forget(&self, upstream: &str, model: &str, lesson: Lesson) {
        self.0.lock().retain(|entry| {
            entry.lesson != lesson || entry.upstream != upstream || entry.model != model
        });
    }

    pub fn knows(&self, upstream: &str, model: &str, lesson: Lesson) -> bool {
        self.0.lock().iter().any(|entry| {
            entry.lesson == lesson && entry.upstream == upstream && entry.model == model
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lessons_belong_to_one_model_of_one_upstream() {
        let learned = Learned::default();
        learned.learn("a", "m", Lesson::WantsResponses);
        assert!(learned.knows("a", "m", Lesson::WantsResponses));
        assert!(!learned.knows("a", "m", Lesson::NoSummary));
        assert!(!learned.knows("a", "n", Lesson::WantsResponses));
        assert!(!learned.knows("b", "m", Lesson::WantsResponses));
        learned.learn("a", "m", Lesson::NoSummary);
        learned.forget("a", "m", Lesson::WantsResponses);
        assert!(!learned.knows("a", "m", Lesson::WantsResponses));
        assert!(learned.knows("a", "m", Lesson::NoSummary));
    }

    #[test]
    fn the_oldest_lessons_make_room() {
        let learned = Learned::default();
        for number in 0..MOST {
            learned.learn("a", &number.to_string(), Lesson::NoSummary);
            learned.learn("a", "0", Lesson::NoSummary);
        }
        assert!(learned.knows("a", "0", Lesson::NoSummary));
        learned.learn("a", "one more", Lesson::NoSummary);
        assert!(!learned.knows("a", "0", Lesson::NoSummary));
        assert!(learned.knows("a", "1", Lesson::NoSummary));
        assert_eq!(learned.0.lock().len(), MOST);
    }
}
