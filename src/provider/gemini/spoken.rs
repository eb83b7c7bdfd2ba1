//! What a candidate has said, kept for the citations that speak of it in byte offsets.

use super::wire::Segment;
use crate::provider::budget::Budget;

/// How much text is kept. Citations of what comes after are dropped.
const MOST_TEXT: usize = 1 << 20;

/// How many parts are told apart, and how many citations are passed on.
const MOST_PARTS: usize = 4096;
const MOST_CITATIONS: usize = 1000;

/// How many segments are looked up. Each costs a walk over the text.
const MOST_LOOKUPS: usize = 4 * MOST_CITATIONS;

/// The text of the answer and where each part of it began. In a stream a part arrives in pieces,
/// so a piece at the head of an event goes on with the part before when it is of the same kind.
#[derive(Default)]
pub struct Spoken {
    text: String,
    starts: Vec<usize>,
    last: Kind,
    full: bool,
    lookups: usize,
    cited: Vec<(u64, u64, String)>,
}

#[derive(Default, PartialEq, Clone, Copy)]
enum Kind {
    #[default]
    Other,
    Answer,
    Thought,
}

impl Spoken {
    /// A part begins or goes on.
    pub fn part(&mut self, first_of_event: bool, answers: bool, thinks: bool) {
        let kind = match (answers, thinks) {
            (true, _) => Kind::Answer,
            (_, true) => Kind::Thought,
            _ => Kind::Other,
        };
        let goes_on = first_of_event && kind != Kind::Other && kind == self.last;
        if !goes_on && self.starts.len() < MOST_PARTS {
            self.starts.push(self.text.len());
        }
        self.last = kind;
    }

    pub fn push(&mut self, text: &str, budget: &mut Budget) {
        self.full |= self.text.len() + text.len() > MOST_TEXT;
        self.full |= !self.full && !budget.has_room(text.len());
        if !self.full {
            self.text.push_str(text);
        }
    }

    /// Where the segment lies in the whole text, in Unicode scalar values.
    pub fn locate(&mut self, segment: &Segment<'_>) -> Option<(u64, u64)> {
        self.lookups += 1;
        if self.lookups > MOST_LOOKUPS {
            return None;
        }
        let part = usize::try_from(segment.part_index.or_zero()).ok()?;
        let start = usize::try_from(segment.start_index.or_zero()).ok()?;
        let end = usize::try_from(segment.end_index.0?).ok()?;
        let base = match part {
            // Thoughts and tool traces may come before; offsets without a part mean the text.
            0 => 0,
            part => self.starts.get(part).copied().unwrap_or(0),
        };
        let at = |base: usize| {
            let range = base.checked_add(start)?..base.checked_add(end)?;
            self.text.get(range.clone()).map(|text| (range, text))
        };
        // The vendor repeats the text. Where it is not found in its part, the offsets may be
        // those of the whole answer.
        let matches = |found: &(_, &str)| segment.text.is_empty() || *found.1 == *segment.text;
        let (range, _) = at(base)
            .filter(matches)
            .or_else(|| at(0).filter(matches))
            .or_else(|| at(base))?;
        let start = self.text[..range.start].chars().count();
        let length = self.text[range].chars().count();
        (length > 0).then_some((start as u64, (start + length) as u64))
    }

    /// Whether this citation was not put out before; every event may repeat them all.
    pub fn is_new(&mut self, start: u64, end: u64, url: &str) -> bool {
        let known = self.cited.len() >= MOST_CITATIONS
            || self
                .cited
                .iter()
                .any(|(s, e, u)| (*s, *e, u.as_str()) == (start, end, url));
        if !known {
            self.cited.push((start, end, url.to_owned()));
        }
        !known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spoken(events: &[&[(&str, bool)]]) -> Spoken {
        let mut spoken = Spoken::default();
        for event in events {
            for (position, (text, thought)) in event.iter().enumerate() {
                spoken.part(position == 0, !thought, *thought);
                if !thought {
                    spoken.push(text, &mut Budget::default());
                }
            }
        }
        spoken
    }

    fn locate(spoken: &mut Spoken, segment: &str) -> Option<(u64, u64)> {
        spoken.locate(&serde_json::from_str(segment).unwrap())
    }

    #[test]
    fn bytes_of_a_part_become_scalars_of_the_whole() {
        let mut whole = spoken(&[&[("\u{e9} is x", false), ("\u{1f600}y", false)]]);
        assert_eq!(locate(&mut whole, r#"{"endIndex":7}"#), Some((0, 6)));
        assert_eq!(
            locate(&mut whole, r#"{"partIndex":1,"startIndex":4,"endIndex":5}"#),
            Some((7, 8))
        );
        assert_eq!(
            locate(
                &mut whole,
                r#"{"partIndex":1,"startIndex":0,"endIndex":2,"text":"\u00e9"}"#
            ),
            Some((0, 1)),
            "offsets of the whole text, though a part is named"
        );
        assert_eq!(locate(&mut whole, r#"{"startIndex":1,"endIndex":3}"#), None);
        assert_eq!(locate(&mut whole, r#"{"endIndex":99}"#), None);
        assert_eq!(locate(&mut whole, r#"{"startIndex":3,"endIndex":1}"#), None);
        assert_eq!(locate(&mut whole, r#"{"startIndex":3}"#), None);
        assert_eq!(
            locate(
                &mut whole,
                r#"{"partIndex":1,"startIndex":18446744073709551615,"endIndex":9}"#
            ),
            None
        );
    }

    #[test]
    fn pieces_of_a_stream_are_one_part() {
        let mut stream = spoken(&[
            &[("hm", true)],
            &[("hm", true)],
            &[("ab", false)],
            &[("cd", false)],
        ]);
        assert_eq!(
            locate(
                &mut stream,
                r#"{"partIndex":1,"startIndex":1,"endIndex":3,"text":"bc"}"#
            ),
            Some((1, 3))
        );
        assert_eq!(
            locate(&mut stream, r#"{"startIndex":1,"endIndex":3}"#),
            Some((1, 3))
        );
    }

    #[test]
    fn memory_is_bounded() {
        let mut spoken = Spoken::default();
        let piece = "x".repeat(1000);
        for _ in 0..5000 {
            spoken.part(false, true, false);
            spoken.push(&piece, &mut Budget::default());
            spoken.is_new(0, spoken.cited.len() as u64, "u");
        }
        assert!(spoken.text.len() <= MOST_TEXT && spoken.text.len() > MOST_TEXT - 1000);
        assert_eq!(spoken.starts.len(), MOST_PARTS);
        assert_eq!(spoken.cited.len(), MOST_CITATIONS);
        assert!(locate(&mut spoken, r#"{"endIndex":7}"#).is_some());
        spoken.lookups = MOST_LOOKUPS;
        assert!(locate(&mut spoken, r#"{"endIndex":7}"#).is_none());
    }

    #[test]
    fn citations_are_told_once() {
        let mut spoken = Spoken::default();
        assert!(spoken.is_new(0, 1, "u"));
        assert!(!spoken.is_new(0, 1, "u"));
        assert!(spoken.is_new(0, 2, "u"));
    }
}
