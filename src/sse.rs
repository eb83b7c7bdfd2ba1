//! Upstream bytes -> events: a reader for `text/event-stream`.
//!
//! Takes what the WHATWG HTML standard (section "Server-sent events") allows: LF, CRLF and CR,
//! comments, a byte order mark, fields with and without a space, several `data:` lines. Beyond it,
//! a JSON value that stands in the stream without `data:` is handed out as an event of its own,
//! because Gemini and some compatible servers report errors that way. Bytes may arrive cut
//! anywhere. Opens no connection and knows no provider.

use std::io::{self, Read};

use memchr::memchr2;

use crate::bytes::lengthen;

/// One event. The name is not kept: every format weir reads repeats it inside the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    pub data: &'a [u8],
    /// It stood in the stream as bare JSON, without `data:`.
    pub bare: bool,
}

/// An event is longer than the reader's cap.
#[derive(Debug, PartialEq, Eq)]
pub struct TooLong;

/// First size of the buffer. Most events are a few hundred bytes, and a thousand streams hold a
/// thousand buffers.
const FIRST_CAPACITY: usize = 1024;

/// A source that fills the buffer each time gets one of this size, for fewer reads.
const BUSY_CAPACITY: usize = 4 * 1024;

/// Splits a byte stream into events.
#[derive(Debug)]
pub struct Reader {
    buffer: Vec<u8>,
    /// Where the current line begins.
    line: usize,
    /// How far the current line was searched for its end.
    searched: usize,
    /// How much of the buffer is filled.
    filled: usize,
    /// The line before ended with CR, so an LF that follows belongs to it.
    after_cr: bool,
    at_start: bool,
    data: Data,
    /// Data of an event in several lines or several reads.
    joined: Vec<u8>,
    /// Open brackets of a bare JSON value, while one is being collected.
    bare: Option<Nesting>,
    cap: usize,
}

/// What the current event has so far.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Data {
    Nothing,
    /// One line, still in the buffer.
    Line {
        start: usize,
        end: usize,
    },
    Joined,
}

/// How deep a bare JSON value is, string contents left out.
#[derive(Debug, Default, Clone, Copy)]
struct Nesting {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

/// Whether an event's data is the heartbeat of somebody in between, who takes data for a place for
/// comments. No format has such data, and most callers would fail on it.
fn is_heartbeat(data: &[u8]) -> bool {
    const WORDS: [&str; 7] = [
        "ping",
        "pong",
        "keepalive",
        "keep-alive",
        "keep_alive",
        "heartbeat",
        "null",
    ];
    let data = data.trim_ascii();
    let word = data
        .strip_prefix(b"\"")
        .and_then(|data| data.strip_suffix(b"\""))
        .unwrap_or(data);
    match word {
        [] | [b':', ..] => true,
        // Nearly all data is an object.
        [b'{', ..] => false,
        word => WORDS
            .iter()
            .any(|known| word.eq_ignore_ascii_case(known.as_bytes())),
    }
}

impl Nesting {
    fn take(&mut self, line: &[u8]) {
        for &byte in line {
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
            } else {
                match byte {
                    b'"' => self.in_string = true,
                    b'{' | b'[' => self.depth += 1,
                    b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                    _ => {}
                }
            }
        }
    }
}

impl Reader {
    /// A reader that gives up on events of more than `cap` bytes.
    pub fn new(cap: usize) -> Self {
        Reader {
            buffer: Vec::new(),
            line: 0,
            searched: 0,
            filled: 0,
            after_cr: false,
            at_start: true,
            data: Data::Nothing,
            joined: Vec::new(),
            bare: None,
            cap,
        }
    }

    /// Reads once from `source`. 0 means that the source has ended.
    ///
    /// Events handed out before are gone after this.
    pub fn fill(&mut self, source: &mut dyn Read) -> io::Result<usize> {
        self.make_room();
        let count = source.read(&mut self.buffer[self.filled..])?;
        self.filled += count;
        if self.filled == self.buffer.len() && self.filled < BUSY_CAPACITY {
            lengthen(&mut self.buffer, BUSY_CAPACITY);
        }
        Ok(count)
    }

    /// The next whole event, or `None` when more bytes are needed.
    pub fn next(&mut self) -> Result<Option<Event<'_>>, TooLong> {
        while let Some((start, end)) = self.next_line() {
            if self.take_line(start, end)? && !self.skip_heartbeat() {
                return Ok(Some(self.give()));
            }
        }
        if self.pending_bytes() > self.cap {
            return Err(TooLong);
        }
        Ok(None)
    }

    /// What is left when the source has ended: an event whose closing blank line is missing.
    ///
    /// The standard drops it; servers that close right behind their last line are common enough
    /// to look.
    pub fn finish(&mut self) -> Option<Event<'_>> {
        if self.line < self.filled {
            let (start, end) = (self.line, self.filled);
            self.line = self.filled;
            self.searched = self.filled;
            match self.take_line(start, end) {
                Ok(true) if !self.skip_heartbeat() => return Some(self.give()),
                Ok(_) => {}
                Err(TooLong) => return None,
            }
        }
        if self.data == Data::Nothing || self.skip_heartbeat() {
            return None;
        }
        Some(self.give())
    }

    /// Forgets the collected event if it is a heartbeat.
    fn skip_heartbeat(&mut self) -> bool {
        let skips = self.bare.is_none() && is_heartbeat(self.collected());
        if skips {
            self.data = Data::Nothing;
        }
        skips
    }

    fn collected(&self) -> &[u8] {
        match self.data {
            Data::Nothing => &[],
            Data::Line { start, end } => &self.buffer[start..end],
            Data::Joined => &self.joined,
        }
    }

    fn pending_bytes(&self) -> usize {
        (if self.data == Data::Joined {
            self.joined.len()
        } else {
            0
        }) + (self.filled - self.line)
    }

    /// Makes room for a read: moves what is still needed to the front, or grows.
    fn make_room(&mut self) {
        if let Data::Line { start, end } = self.data {
            self.joined.clear();
            self.joined.extend_from_slice(&self.buffer[start..end]);
            self.data = Data::Joined;
        }
        if self.line > 0 {
            self.buffer.copy_within(self.line..self.filled, 0);
            self.filled -= self.line;
            self.searched -= self.line;
            self.line = 0;
        }
        if self.filled == self.buffer.len() {
            let larger = (self.buffer.len() * 2).max(FIRST_CAPACITY);
            lengthen(&mut self.buffer, larger);
        }
    }

    /// The bounds of the next complete line, without its end.
    fn next_line(&mut self) -> Option<(usize, usize)> {
        if self.at_start {
            const BOM: &[u8] = b"\xEF\xBB\xBF";
            let head = &self.buffer[self.line..self.filled];
            if head.len() < BOM.len() && BOM.starts_with(head) {
                return None;
            }
            if head.starts_with(BOM) {
                self.line += BOM.len();
                self.searched = self.line;
            }
            self.at_start = false;
        }
        if self.after_cr && self.line < self.filled {
            self.after_cr = false;
            if self.buffer[self.line] == b'\n' {
                self.line += 1;
                self.searched = self.searched.max(self.line);
            }
        }
        let found = memchr2(b'\n', b'\r', &self.buffer[self.searched..self.filled]);
        match found {
            Some(offset) => {
                let end = self.searched + offset;
                let start = self.line;
                self.after_cr = self.buffer[end] == b'\r';
                self.line = end + 1;
                self.searched = self.line;
                Some((start, end))
            }
            None => {
                self.searched = self.filled;
                None
            }
        }
    }

    /// Takes one line in; true when an event is complete.
    fn take_line(&mut self, start: usize, end: usize) -> Result<bool, TooLong> {
        let line = &self.buffer[start..end];
        if let Some(nesting) = &mut self.bare {
            nesting.take(line);
            let complete = nesting.depth == 0;
            self.append(start, end)?;
            return Ok(complete);
        }
        if line.is_empty() {
            return Ok(self.data != Data::Nothing);
        }
        if line == b"data" {
            self.append(end, end)?;
            return Ok(false);
        }
        if let Some(value) = line.strip_prefix(b"data:") {
            let skip = usize::from(value.first() == Some(&b' '));
            let value_start = end - value.len() + skip;
            self.append(value_start, end)?;
            return Ok(false);
        }
        // Only a value that opens an object or an array is taken for bare JSON; every other line
        // (comments, `event:`, `id:`, `retry:`, unknown fields) says nothing to us.
        let opens_json = line
            .iter()
            .find(|byte| !byte.is_ascii_whitespace())
            .is_some_and(|byte| matches!(byte, b'{' | b'['));
        if opens_json && self.data == Data::Nothing {
            let mut nesting = Nesting::default();
            nesting.take(line);
            let complete = nesting.depth == 0;
            self.bare = Some(nesting);
            self.append(start, end)?;
            return Ok(complete);
        }
        Ok(false)
    }

    /// Adds `buffer[start..end]` to the event's data, with a line feed between lines.
    fn append(&mut self, start: usize, end: usize) -> Result<(), TooLong> {
        match self.data {
            Data::Nothing => self.data = Data::Line { start, end },
            Data::Line { start: s, end: e } => {
                self.joined.clear();
                self.joined.extend_from_slice(&self.buffer[s..e]);
                self.joined.push(b'\n');
                self.joined.extend_from_slice(&self.buffer[start..end]);
                self.data = Data::Joined;
            }
            Data::Joined => {
                self.joined.push(b'\n');
                self.joined.extend_from_slice(&self.buffer[start..end]);
            }
        }
        let length = match self.data {
            Data::Nothing => 0,
            Data::Line { start, end } => end - start,
            Data::Joined => self.joined.len(),
        };
        if length > self.cap {
            Err(TooLong)
        } else {
            Ok(())
        }
    }

    /// Hands the collected event out and forgets it.
    fn give(&mut self) -> Event<'_> {
        let bare = self.bare.take().is_some();
        let data = std::mem::replace(&mut self.data, Data::Nothing);
        let data = match data {
            Data::Nothing => &[][..],
            Data::Line { start, end } => &self.buffer[start..end],
            Data::Joined => &self.joined[..],
        };
        Event { data, bare }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(reader: &mut Reader, pieces: &[&[u8]]) -> Vec<(String, bool)> {
        let mut seen = Vec::new();
        let mut keep = |event: Event<'_>| {
            seen.push((String::from_utf8(event.data.to_vec()).unwrap(), event.bare));
        };
        for piece in pieces {
            let mut source = *piece;
            while !source.is_empty() {
                reader.fill(&mut source).unwrap();
                while let Some(event) = reader.next().unwrap() {
                    keep(event);
                }
            }
        }
        if let Some(event) = reader.finish() {
            keep(event);
        }
        seen
    }

    fn check(text: &str, expected: &[(&str, bool)]) {
        let expected: Vec<_> = expected.iter().map(|(t, b)| (t.to_string(), *b)).collect();
        assert_eq!(
            events(&mut Reader::new(1 << 20), &[text.as_bytes()]),
            expected,
            "{text:?}"
        );
        for cut in 0..=text.len() {
            let (head, tail) = text.as_bytes().split_at(cut);
            assert_eq!(
                events(&mut Reader::new(1 << 20), &[head, tail]),
                expected,
                "{text:?} cut at {cut}"
            );
        }
        let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        assert_eq!(
            events(&mut Reader::new(1 << 20), &bytes),
            expected,
            "{text:?} byte by byte"
        );
    }

    #[test]
    fn every_line_end_and_field_form_cut_anywhere() {
        check("data: a\n\ndata: b\n\n", &[("a", false), ("b", false)]);
        check(
            "data: a\r\n\r\ndata: b\r\n\r\n",
            &[("a", false), ("b", false)],
        );
        check("data: a\r\rdata: b\r\r", &[("a", false), ("b", false)]);
        check("\u{feff}data:a\n\n", &[("a", false)]);
        check(
            ": hello\n\nevent: x\nid: 7\nretry: 1\ndata:  a\n\n",
            &[(" a", false)],
        );
        check("data: a\ndata: b\ndata\ndata:\n\n", &[("a\nb\n\n", false)]);
        check(
            "data: gr\u{fc}n \u{1f600}\n\n",
            &[("gr\u{fc}n \u{1f600}", false)],
        );
        check(
            "event: ping\n\n\n\n: c\n\ndata: [DONE]\n\n",
            &[("[DONE]", false)],
        );
        check(
            "data: last without its blank line",
            &[("last without its blank line", false)],
        );
    }

    #[test]
    fn heartbeats_in_the_place_of_data_are_left_out() {
        for beat in [
            "data: : keepalive\n\n",
            "data::ping\n\n",
            "data:\n\n",
            "data: \n\n",
            "data\n\n",
            "data: \"\"\n\n",
            "event: ping\ndata:\n\n",
            "event: ping\n\n",
            "data: ping\n\n",
            "data: \"Keep-Alive\"\r\n\r\n",
            "data: null\n\n",
        ] {
            let text = format!("{beat}data: a\n\n{beat}{beat}data: b\n\n{beat}");
            check(&text, &[("a", false), ("b", false)]);
            check(beat, &[]);
            check(beat.trim_end(), &[]);
        }
        for data in ["pings", "{\"type\":\"ping\"}", "[DONE]", "\"", "a: b", "0"] {
            check(&format!("data: {data}\n\n"), &[(data, false)]);
        }
        // In the middle of an event it is a part of it.
        check("data: {\"a\"\ndata: :1}\n\n", &[("{\"a\"\n:1}", false)]);
    }

    #[test]
    fn bare_json_is_an_event_of_its_own() {
        check(
            "data: a\r\n\r\n{\r\n  \"error\": {\"message\": \"}\\\"{\"}\r\n}\r\n",
            &[
                ("a", false),
                ("{\n  \"error\": {\"message\": \"}\\\"{\"}\n}", true),
            ],
        );
        check("{\"error\":1}", &[("{\"error\":1}", true)]);
        check("[{\"error\":\n1}", &[("[{\"error\":\n1}", true)]);
    }

    #[test]
    fn events_over_the_cap_are_refused() {
        for text in [
            "data: 0123456789\n\n",
            "data: 01234\ndata: 56789\n\n",
            "0123456789012",
        ] {
            let mut reader = Reader::new(8);
            let mut source = text.as_bytes();
            let mut refused = false;
            while !source.is_empty() {
                reader.fill(&mut source).unwrap();
                refused |= reader.next() == Err(TooLong);
            }
            assert!(refused, "{text}");
        }
    }

    #[test]
    fn an_event_of_many_megabytes_is_read() {
        let long = "x".repeat(16 << 20);
        let text = format!("data: {long}\n\ndata: b\n\n");
        let mut reader = Reader::new(32 << 20);
        let seen = events(&mut reader, &[text.as_bytes()]);
        assert_eq!(seen.len(), 2);
        assert_eq!(seen[0].0.len(), long.len());
    }
}
