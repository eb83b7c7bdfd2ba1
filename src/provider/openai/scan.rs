//! One pass over a chunk: what it holds, without building anything.
//!
//! Looks only where chunks have what the relay must know. It takes some text for JSON that is
//! none; what it does not take is parsed properly, which then says what is wrong.

use std::ops::Range;

use crate::json::says_something;

/// What a chunk holds at its top.
#[derive(Debug, Default)]
pub struct Seen<'a> {
    /// An `error` that says something.
    pub has_error: bool,
    /// One that says nothing, but is not null either.
    pub has_empty_error: bool,
    /// The JSON text of `id`, `object`, `model` and `created`.
    pub id: Option<&'a [u8]>,
    pub object: Option<&'a [u8]>,
    pub model: Option<&'a [u8]>,
    pub created: Option<&'a [u8]>,
    /// How many choices; `None` if there is no such list.
    pub choices: Option<usize>,
    /// A `usage` that is not null.
    pub usage: Option<&'a [u8]>,
    /// Where a `usage` of null stands, with the comma that goes with it.
    pub null_usage: Option<Range<usize>>,
    /// `Choice::reasoning` of the one choice there is.
    pub reasoning: Option<Range<usize>>,
}

/// What one choice of a chunk holds.
#[derive(Debug, Default)]
pub struct Choice<'a> {
    pub index: Option<u32>,
    /// There is a delta, and it is an object.
    pub has_delta: bool,
    pub has_role: bool,
    /// The word, without its quotes; `None` for null.
    pub finish: Option<&'a [u8]>,
    /// An `error` that says something.
    pub has_error: bool,
    /// The piece of a tool call.
    pub call: Option<CallPiece<'a>>,
    /// There are several in this chunk.
    pub several_calls: bool,
    /// A call in the form that was there before tools.
    pub function: bool,
    /// Where the name of a text of thoughts stands that is not the one callers know.
    pub reasoning: Option<Range<usize>>,
    /// Thoughts by the name that callers know.
    pub has_reasoning_content: bool,
    /// There are words, or something else beside role and calls.
    pub says: bool,
}

/// A piece of a tool call.
#[derive(Debug, Default, Clone, Copy)]
pub struct CallPiece<'a> {
    pub index: Option<u32>,
    /// The id, without its quotes; `None` if it is missing, empty or null.
    pub id: Option<&'a [u8]>,
    /// The function's name, likewise.
    pub name: Option<&'a [u8]>,
    /// It has a type.
    pub has_type: bool,
    /// It is one of a custom tool.
    pub is_custom: bool,
    /// More of the arguments, the inside of a JSON string.
    pub arguments: Option<&'a [u8]>,
    /// They are something else than a string.
    pub has_odd_arguments: bool,
}

/// Looks at a chunk; `each` is told of its choices in turn. `None`: better parse it.
pub fn scan<'a>(data: &'a [u8], mut each: impl FnMut(Choice<'a>)) -> Option<Seen<'a>> {
    // What is passed on as it is must be text.
    std::str::from_utf8(data).ok()?;
    let mut seen = Seen::default();
    let mut scan = Scan { data, at: 0 };
    let mut once = Once::default();
    scan.object(|scan, key, member| {
        match key {
            b"choices" => once.more(0)?,
            b"usage" => once.more(1)?,
            _ => {}
        }
        match key {
            b"error" => {
                let error = scan.value()?;
                seen.has_error = says_something(error);
                seen.has_empty_error = !seen.has_error && error != b"null";
            }
            b"id" => seen.id = Some(scan.value()?),
            b"object" => seen.object = Some(scan.value()?),
            b"model" => seen.model = Some(scan.value()?),
            b"created" => seen.created = Some(scan.value()?),
            b"choices" if scan.peek() == Some(b'[') => {
                let mut count = 0;
                scan.array(|scan| {
                    each(scan.choice()?);
                    count += 1;
                    Some(())
                })?;
                seen.choices = Some(count);
            }
            b"usage" => match scan.value()? {
                b"null" => seen.null_usage = Some(scan.with_comma(member, scan.at)),
                usage => seen.usage = Some(usage),
            },
            _ => {
                scan.value()?;
            }
        }
        Some(())
    })?;
    scan.blanks();
    (scan.at == data.len()).then_some(seen)
}

/// Of doubled members parsers take the last, so a chunk that has some is better parsed.
#[derive(Default)]
struct Once(u8);

impl Once {
    fn more(&mut self, member: u8) -> Option<()> {
        let bit = 1 << member;
        let is_first = self.0 & bit == 0;
        self.0 |= bit;
        is_first.then_some(())
    }
}

struct Scan<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Scan<'a> {
    fn choice(&mut self) -> Option<Choice<'a>> {
        let mut choice = Choice::default();
        let mut once = Once::default();
        self.object(|scan, key, _| {
            match key {
                b"index" => once.more(0)?,
                b"finish_reason" => once.more(1)?,
                b"delta" => once.more(2)?,
                _ => {}
            }
            match key {
                b"index" => choice.index = number(scan.value()?),
                b"finish_reason" => match scan.value()? {
                    b"null" => {}
                    [b'"', word @ .., b'"'] => choice.finish = Some(word),
                    _ => return None,
                },
                b"error" => choice.has_error = says_something(scan.value()?),
                b"delta" if scan.peek() == Some(b'{') => {
                    choice.has_delta = true;
                    scan.delta(&mut choice)?;
                }
                _ => {
                    scan.value()?;
                }
            }
            Some(())
        })?;
        Some(choice)
    }

    fn delta(&mut self, choice: &mut Choice<'a>) -> Option<()> {
        let mut once = Once::default();
        self.object(|scan, key, begin| {
            match key {
                b"role" => once.more(0)?,
                b"tool_calls" => once.more(1)?,
                b"reasoning" => once.more(2)?,
                _ => {}
            }
            match key {
                b"reasoning" => {
                    let end = begin + key.len() + 2;
                    let value = scan.value()?;
                    choice.says |= says_something(value);
                    let is_text = value.first() == Some(&b'"');
                    choice.reasoning = is_text.then_some(begin..end);
                }
                b"reasoning_content" => {
                    let value = scan.value()?;
                    choice.has_reasoning_content |= value != b"null";
                    choice.says |= says_something(value);
                }
                b"role" => match scan.value()? {
                    b"null" | b"\"\"" => {}
                    b"\"assistant\"" => choice.has_role = true,
                    _ => return None,
                },
                b"function_call" => choice.function = scan.value()? != b"null",
                b"tool_calls" if scan.peek() == Some(b'[') => scan.array(|scan| {
                    let piece = scan.call_piece()?;
                    choice.several_calls |= choice.call.is_some();
                    choice.call = Some(piece);
                    Some(())
                })?,
                b"tool_calls" => (scan.value()? == b"null").then_some(())?,
                _ => choice.says |= says_something(scan.value()?),
            }
            Some(())
        })
    }

    fn call_piece(&mut self) -> Option<CallPiece<'a>> {
        let mut piece = CallPiece::default();
        let mut once = Once::default();
        self.object(|scan, key, _| {
            match key {
                b"index" => once.more(0)?,
                b"id" => once.more(1)?,
                b"function" | b"custom" => once.more(2)?,
                _ => {}
            }
            match key {
                b"index" => piece.index = number(scan.value()?),
                b"id" => match scan.value()? {
                    b"null" | b"\"\"" => {}
                    [b'"', id @ .., b'"'] => piece.id = Some(id),
                    _ => return None,
                },
                b"function" | b"custom" if scan.peek() == Some(b'{') => {
                    piece.is_custom = key == b"custom";
                    let mut once = Once::default();
                    scan.object(|scan, key, _| {
                        match (key, scan.value()?) {
                            (b"name", [b'"', name @ .., b'"']) => {
                                once.more(0)?;
                                piece.name = Some(name).filter(|name| !name.is_empty());
                            }
                            (b"arguments" | b"input", [b'"', text @ .., b'"']) => {
                                once.more(1)?;
                                piece.arguments = Some(text);
                            }
                            (b"arguments" | b"input", other) => {
                                piece.has_odd_arguments |= other != b"null";
                            }
                            _ => {}
                        }
                        Some(())
                    })?;
                }
                b"type" => piece.has_type = !matches!(scan.value()?, b"null" | b"\"\""),
                _ => {
                    scan.value()?;
                }
            }
            Some(())
        })?;
        Some(piece)
    }

    fn peek(&self) -> Option<u8> {
        self.data.get(self.at).copied()
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        if self.peek()? != byte {
            return None;
        }
        self.at += 1;
        Some(())
    }

    /// Walks an object. `member` is called before each value with its key and where the key
    /// begins, and takes the value.
    fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, &'a [u8], usize) -> Option<()>,
    ) -> Option<()> {
        self.blanks();
        self.take(b'{')?;
        self.blanks();
        if self.peek()? == b'}' {
            self.at += 1;
            return Some(());
        }
        loop {
            self.blanks();
            let begin = self.at;
            let key = self.string()?;
            // A key with escapes may be any key.
            if key.contains(&b'\\') {
                return None;
            }
            self.blanks();
            self.take(b':')?;
            self.blanks();
            member(self, key, begin)?;
            self.blanks();
            match self.peek()? {
                b',' => self.at += 1,
                b'}' => {
                    self.at += 1;
                    return Some(());
                }
                _ => return None,
            }
        }
    }

    fn array(&mut self, mut entry: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.take(b'[')?;
        self.blanks();
        if self.peek()? == b']' {
            self.at += 1;
            return Some(());
        }
        loop {
            self.blanks();
            entry(self)?;
            self.blanks();
            match self.peek()? {
                b',' => self.at += 1,
                b']' => {
                    self.at += 1;
                    return Some(());
                }
                _ => return None,
            }
        }
    }

    /// A string's inside, escapes as they are written.
    fn string(&mut self) -> Option<&'a [u8]> {
        self.take(b'"')?;
        let begin = self.at;
        loop {
            let rest = self.data.get(self.at..)?;
            let found = rest
                .iter()
                .position(|&byte| byte == b'"' || byte == b'\\' || byte < 0x20)?;
            self.at += found;
            match rest[found] {
                b'"' => {
                    let inside = &self.data[begin..self.at];
                    self.at += 1;
                    return Some(inside);
                }
                b'\\' => self.at += 2,
                _ => return None,
            }
        }
    }

    /// Any value, as its text.
    fn value(&mut self) -> Option<&'a [u8]> {
        let begin = self.at;
        match self.peek()? {
            b'"' => {
                self.string()?;
            }
            b'{' | b'[' => {
                let mut depth = 0usize;
                loop {
                    match self.peek()? {
                        b'"' => {
                            self.string()?;
                            continue;
                        }
                        b'{' | b'[' => depth += 1,
                        b'}' | b']' => depth -= 1,
                        _ => {}
                    }
                    self.at += 1;
                    if depth == 0 {
                        break;
                    }
                }
            }
            b'-' | b'0'..=b'9' | b't' | b'f' | b'n' => {
                let rest = &self.data[self.at..];
                let length = rest
                    .iter()
                    .position(|byte| !matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'E' | b'+' | b'-' | b'.'))
                    .unwrap_or(rest.len());
                self.at += length;
            }
            _ => return None,
        }
        Some(&self.data[begin..self.at])
    }

    /// A member from `begin` to `end`, with the comma before it, or else the one behind it.
    fn with_comma(&self, begin: usize, end: usize) -> Range<usize> {
        let before = self.data[..begin].trim_ascii_end();
        if before.last() == Some(&b',') {
            return before.len() - 1..end;
        }
        let behind = self.data[end..].trim_ascii_start();
        match behind.first() {
            Some(b',') => begin..self.data.len() - behind.len() + 1,
            _ => begin..end,
        }
    }
}

fn number(text: &[u8]) -> Option<u32> {
    std::str::from_utf8(text).ok()?.parse().ok()
}
