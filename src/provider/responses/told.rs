//! What was said of an answer so far, to be held against what its end says.
//!
//! A response tells everything at least twice: in pieces, when a part is done, when its item is
//! done, and in its last event. Servers leave out any of these. What came is remembered by length
//! and hash, so that what is missing is found without keeping the text.

/// A text that was passed on.
#[derive(Debug, Clone, Copy)]
pub struct Told {
    length: usize,
    hash: u64,
}

/// What a whole text has beyond what was passed on.
#[derive(Debug, PartialEq, Eq)]
pub enum Missing<'t> {
    /// This, at the end; empty if nothing is missing.
    Rest(&'t str),
    /// Something else was passed on, which cannot be taken back.
    Other,
}

impl Default for Told {
    fn default() -> Told {
        Told {
            length: 0,
            hash: Told::BASIS,
        }
    }
}

impl Told {
    /// Those of FNV-1a, which takes texts in any pieces. Nobody gains from a collision: the text
    /// is the upstream's own.
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;

    pub fn add(&mut self, text: &str) {
        self.length += text.len();
        for byte in text.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(Told::PRIME);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub fn missing<'t>(&self, whole: &'t str) -> Missing<'t> {
        let Some((begin, rest)) = whole.split_at_checked(self.length) else {
            return Missing::Other;
        };
        let mut same = Told::default();
        same.add(begin);
        match same.hash == self.hash {
            true => Missing::Rest(rest),
            false => Missing::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_the_end() {
        let mut told = Told::default();
        assert_eq!(told.missing("abc"), Missing::Rest("abc"));
        told.add("a");
        told.add("\u{e9}");
        assert_eq!(told.missing("a\u{e9}c"), Missing::Rest("c"));
        assert_eq!(told.missing("a\u{e9}"), Missing::Rest(""));
        for other in ["", "a", "ab", "abc", "xx\u{e9}", "a\u{e8}c"] {
            assert_eq!(told.missing(other), Missing::Other, "{other}");
        }
    }
}
