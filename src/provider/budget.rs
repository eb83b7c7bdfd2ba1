//! What a decoder keeps of one stream between two events, counted.

use crate::failure::Failure;

/// Bytes that the state of one stream may take: blocks that are open, citations, ids, signatures,
/// arguments in pieces. Real streams keep some kilobytes; what keeps more is broken or hostile.
pub const MOST_STATE: usize = 16 << 20;

/// What an entry of a list costs beside its texts.
pub const ENTRY: usize = 64;

/// A name, a reason or an id beyond this is none, and is not kept.
pub const MOST_NAME: usize = 1024;

/// The bytes that the state of one stream takes now.
#[derive(Debug, Default)]
pub struct Budget {
    used: usize,
}

impl Budget {
    /// So many bytes more are kept. The stream ends where they are too many.
    pub fn take(&mut self, bytes: usize) -> Result<(), Failure> {
        match self.has_room(bytes) {
            true => Ok(()),
            false => Err(Failure::state_too_long()),
        }
    }

    /// The same for what can be left out: whether it may be kept.
    pub fn has_room(&mut self, bytes: usize) -> bool {
        let fits = bytes <= MOST_STATE - self.used;
        if fits {
            self.used += bytes;
        }
        fits
    }

    /// So many of them are no longer kept.
    pub fn give_back(&mut self, bytes: usize) {
        self.used = self.used.saturating_sub(bytes);
    }
}

/// A name that is short enough to be kept, else nothing.
pub fn name(text: &str) -> &str {
    match text.len() {
        0..=MOST_NAME => text,
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let mut budget = Budget::default();
        budget.take(MOST_STATE - 1).unwrap();
        assert!(!budget.has_room(2));
        let failure = budget.take(2).unwrap_err();
        assert_eq!(failure.code.as_deref(), Some("malformed_response"));
        budget.take(1).unwrap();
        budget.give_back(10);
        budget.take(10).unwrap();
        assert!(budget.take(usize::MAX).is_err());
    }
}
