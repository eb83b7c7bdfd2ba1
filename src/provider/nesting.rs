//! `Nesting`: whether the arguments of a tool call have come to their end, piece by piece.

/// Where in the JSON of its arguments a call is.
#[derive(Debug, Default)]
pub struct Nesting {
    depth: u32,
    in_string: bool,
    escaped: bool,
    begun: bool,
}

impl Nesting {
    pub fn take(&mut self, byte: u8) {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' if self.in_string => self.escaped = true,
            b'"' => self.in_string = !self.in_string,
            b'{' | b'[' if !self.in_string => self.depth = self.depth.saturating_add(1),
            b'}' | b']' if !self.in_string => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        self.begun |= !byte.is_ascii_whitespace();
    }

    /// Takes the inside of a JSON string that holds more of the arguments, escapes and all.
    pub fn take_escaped(&mut self, text: &[u8]) {
        let mut at = 0;
        while let Some(&byte) = text.get(at) {
            at += 1;
            if byte != b'\\' {
                self.take(byte);
                continue;
            }
            let escape = text.get(at).copied();
            at += 1;
            let meant = match escape {
                Some(b'u') => {
                    let digits = text.get(at..at + 4);
                    at += 4;
                    let unit = digits
                        .and_then(|digits| std::str::from_utf8(digits).ok())
                        .and_then(|digits| u8::from_str_radix(digits, 16).ok());
                    // Everything that means something here is ASCII.
                    unit.unwrap_or(b'x')
                }
                Some(b'n' | b'r' | b't' | b'b' | b'f') => b' ',
                Some(other) => other,
                None => return,
            };
            self.take(meant);
        }
    }

    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// Something was put in their place.
    pub fn begin(&mut self) {
        self.begun = true;
    }

    /// What came so far is a value and no part of one.
    pub fn is_whole(&self) -> bool {
        self.begun && self.depth == 0 && !self.in_string
    }
}
