//! Where a stream of events that only passes by has a place for a comment.

/// Finds the ends of events in a `text/event-stream`, whatever pieces it comes in.
#[derive(Debug, Default)]
pub struct Boundary {
    /// Something of an event was seen, and not yet the blank line at its end.
    open: bool,
    /// The line at hand has something in it.
    in_line: bool,
    /// A line feed that comes next belongs to the line before.
    after_cr: bool,
}

impl Boundary {
    /// Takes the next piece. True if an event ends with it.
    pub fn take(&mut self, piece: &[u8]) -> bool {
        for &byte in piece {
            let ends_line = match byte {
                b'\n' => !self.after_cr,
                b'\r' => true,
                _ => {
                    self.open = true;
                    self.in_line = true;
                    false
                }
            };
            self.after_cr = byte == b'\r';
            if ends_line {
                self.open &= self.in_line;
                self.in_line = false;
            }
        }
        !self.open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_has_its_place_behind_a_blank_line() {
        for (stream, place) in [
            ("", true),
            ("data: 1", false),
            ("data: 1\n", false),
            ("data: 1\n\n", true),
            ("data: 1\r\n", false),
            ("data: 1\r\n\r\n", true),
            ("data: 1\r\r", true),
            ("data: 1\n\nevent: x", false),
            ("\n\n", true),
            (": ping\n\n", true),
        ] {
            assert_eq!(
                Boundary::default().take(stream.as_bytes()),
                place,
                "{stream:?}"
            );
            for cut in 0..stream.len() {
                let mut boundary = Boundary::default();
                boundary.take(&stream.as_bytes()[..cut]);
                let found = boundary.take(&stream.as_bytes()[cut..]);
                assert_eq!(found, place, "{stream:?} at {cut}");
            }
        }
    }
}
