//! `Seals`: what a vendor signed, in a form that only this gateway made and only it opens.
//!
//! Some dialects have one place for reasoning that must come back unharmed, and one vendor's is
//! nothing that another one takes. So it travels as an opaque text which needs no memory: it works
//! over restarts, and over several gateways with the same keys. It is authenticated, not
//! encrypted: whoever has the conversation may read it, and nobody can make one up.

use ring::{digest, hmac};

use crate::base64;

/// What a seal begins with; nothing that a vendor signs does.
pub const MARK: &str = "weir1.";

/// More than any turn of the vendors' reasoning takes. What is longer is not sealed.
const MOST: usize = 256 * 1024;

/// Of the digest, as much as RFC 2104 asks for.
const TAG: usize = 16;

/// What is in a seal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// Google's signature of the call that follows.
    CallSignature,
    /// What belongs to the message as a whole: an `extra_content` object, in which each vendor has
    /// its own part.
    Extra,
}

impl Holds {
    fn letter(self) -> u8 {
        match self {
            Holds::CallSignature => b'c',
            Holds::Extra => b'x',
        }
    }

    fn of(letter: u8) -> Option<Holds> {
        [Holds::CallSignature, Holds::Extra]
            .into_iter()
            .find(|holds| holds.letter() == letter)
    }
}

/// Makes seals and opens them.
#[derive(Debug)]
pub struct Seals {
    key: hmac::Key,
}

impl Seals {
    /// With the key of the config, or else one that follows from the keys of its upstreams, in
    /// whatever order they stand there.
    pub fn new<'a>(own: Option<&str>, keys: impl Iterator<Item = &'a str>) -> Seals {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"seals of reasoning, 1\0");
        match own {
            Some(own) => context.update(own.as_bytes()),
            None => {
                let mut keys: Vec<&str> = keys.collect();
                keys.sort_unstable();
                keys.dedup();
                for key in keys {
                    context.update(&(key.len() as u64).to_be_bytes());
                    context.update(key.as_bytes());
                }
            }
        }
        Seals {
            key: hmac::Key::new(hmac::HMAC_SHA256, context.finish().as_ref()),
        }
    }

    /// `None`: it is too long.
    pub fn seal(&self, holds: Holds, raw: &str) -> Option<String> {
        if raw.len() > MOST {
            return None;
        }
        let mut inside = Vec::with_capacity(TAG + 1 + raw.len());
        inside.extend_from_slice(&[0; TAG]);
        inside.push(holds.letter());
        inside.extend_from_slice(raw.as_bytes());
        let tag = hmac::sign(&self.key, &inside[TAG..]);
        inside[..TAG].copy_from_slice(&tag.as_ref()[..TAG]);
        let mut out = MARK.as_bytes().to_vec();
        base64::push(&mut out, &inside);
        String::from_utf8(out).ok()
    }

    /// `None`: it is another's, or not as it was made.
    pub fn open(&self, text: &str) -> Option<(Holds, String)> {
        let text = text.strip_prefix(MARK)?;
        if text.len() > (TAG + 1 + MOST).div_ceil(3) * 4 {
            return None;
        }
        let mut inside = base64::read(text)?;
        if inside.len() <= TAG {
            return None;
        }
        let tag = hmac::sign(&self.key, &inside[TAG..]);
        // All of it is looked at, wherever it differs.
        let differs = tag.as_ref()[..TAG]
            .iter()
            .zip(&inside)
            .fold(0, |found, (ours, theirs)| found | (ours ^ theirs));
        if differs != 0 {
            return None;
        }
        let holds = Holds::of(inside[TAG])?;
        let raw = inside.split_off(TAG + 1);
        Some((holds, String::from_utf8(raw).ok()?))
    }
}

/// Whether a gateway of this kind made `text`, this one or another.
pub fn is_seal(text: &str) -> bool {
    text.starts_with(MARK)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seals(own: &str) -> Seals {
        Seals::new(Some(own), std::iter::empty())
    }

    #[test]
    fn a_seal_is_opened_by_the_same_key_only() {
        let raw = "sig+/=\u{e9}".repeat(3000);
        for holds in [Holds::CallSignature, Holds::Extra] {
            let sealed = seals("a").seal(holds, &raw).unwrap();
            assert!(is_seal(&sealed));
            assert_eq!(seals("a").open(&sealed), Some((holds, raw.clone())));
            assert_eq!(seals("b").open(&sealed), None);
        }
        assert_eq!(
            seals("a").open(&seals("a").seal(Holds::Extra, "").unwrap()),
            Some((Holds::Extra, String::new()))
        );
    }

    #[test]
    fn keys_of_upstreams_make_the_same_key_in_any_order() {
        let of = |keys: &[&str]| Seals::new(None, keys.iter().copied());
        let sealed = of(&["k1", "k2", "k1"]).seal(Holds::Extra, "{}").unwrap();
        assert!(of(&["k2", "k1"]).open(&sealed).is_some());
        for others in [&["k1"][..], &["k1k2"], &["k", "1k2"], &[]] {
            assert_eq!(of(others).open(&sealed), None, "{others:?}");
        }
    }

    #[test]
    fn what_was_changed_or_cut_stays_shut() {
        let seals = seals("a");
        // Of a length that needs no padding, so that every letter counts.
        let sealed = seals.seal(Holds::CallSignature, "abcdefg").unwrap();
        assert!(!sealed.ends_with('='));
        for at in 0..sealed.len() {
            assert_eq!(seals.open(&sealed[..at]), None, "cut at {at}");
            let mut other = sealed.clone().into_bytes();
            other[at] = if other[at] == b'A' { b'B' } else { b'A' };
            let other = String::from_utf8(other).unwrap();
            assert_eq!(seals.open(&other), None, "{other}");
        }
        for text in [
            "",
            "weir1.",
            "weir1.AAAA",
            "weir1.!!!!",
            "c2lnbmF0dXJl",
            "weir1.\u{e9}",
        ] {
            assert_eq!(seals.open(text), None, "{text}");
        }
    }

    #[test]
    fn a_seal_has_a_longest_length() {
        let seals = seals("a");
        assert!(seals.seal(Holds::Extra, &"x".repeat(MOST)).is_some());
        assert!(seals.seal(Holds::Extra, &"x".repeat(MOST + 1)).is_none());
        let long = format!("{MARK}{}", "A".repeat(4 * MOST));
        assert_eq!(seals.open(&long), None);
    }
}
