//! Speech that comes in several pieces of base64, joined into one.
//!
//! Callers put the pieces one behind the other, so padding may stand only at the very end. What
//! does not fill a group of three bytes waits for the next piece.

use std::borrow::Cow;

/// Up to two bytes that wait for more.
#[derive(Debug, Default)]
pub struct Audio {
    rest: Vec<u8>,
}

impl Audio {
    /// Takes a piece and gives what can go out, a whole number of groups.
    pub fn feed<'p>(&mut self, piece: &'p str) -> Cow<'p, str> {
        if self.rest.is_empty() && piece.len().is_multiple_of(4) && !piece.ends_with('=') {
            return Cow::Borrowed(piece);
        }
        let mut bytes = std::mem::take(&mut self.rest);
        decode(piece, &mut bytes);
        let whole = bytes.len() - bytes.len() % 3;
        self.rest = bytes.split_off(whole);
        Cow::Owned(encode(&bytes))
    }

    /// The speech is over: what waited, padded.
    pub fn finish(&mut self) -> String {
        encode(&std::mem::take(&mut self.rest))
    }
}

/// Adds the bytes of `base64`, in either alphabet. Other characters are passed over.
pub fn decode(base64: &str, bytes: &mut Vec<u8>) {
    let mut bits = 0u32;
    let mut count = 0;
    for letter in base64.bytes() {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => continue,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
}

fn encode(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let at = |index: usize| u32::from(group.get(index).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for place in 0..4 {
            if place > group.len() {
                text.push('=');
            } else {
                let letter = bits >> (18 - 6 * place) & 63;
                text.push(char::from(LETTERS[letter as usize]));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(pieces: &[&str]) -> String {
        let mut audio = Audio::default();
        let mut all: String = pieces.iter().map(|piece| audio.feed(piece)).collect();
        all += &audio.finish();
        all
    }

    #[test]
    fn padding_stands_only_at_the_end() {
        assert_eq!(joined(&["aGVs", "bG8h"]), "aGVsbG8h");
        assert_eq!(joined(&["aA==", "ZWw=", "bG8="]), "aGVsbG8=");
        assert_eq!(joined(&["aGVsbG8="]), "aGVsbG8=");
        assert_eq!(joined(&["aA==", "", "-_8="]), "aPv/");
        assert_eq!(joined(&[]), "");
    }

    #[test]
    fn every_length_survives_every_cut() {
        let bytes: Vec<u8> = (0..=40).map(|n| n * 6 + 1).collect();
        for end in 0..bytes.len() {
            for cut in 0..=end {
                let (a, b) = bytes[..end].split_at(cut);
                assert_eq!(joined(&[&encode(a), &encode(b)]), encode(&bytes[..end]));
            }
        }
        let mut back = Vec::new();
        decode(&encode(&bytes), &mut back);
        assert_eq!(back, bytes);
    }
}
