//! `Chunks`: the chunks of a body that the HTTP server leaves as they are.
//!
//! For a request that offers an upgrade the server hands out the connection itself, so where its
//! body ends has to be found here. Nothing behind that is read.

use std::io::{self, Read};

/// Bytes of a line that tells a chunk's length, and of all lines behind the last chunk.
const MAX_LINE: usize = 1024;
const MAX_TRAILERS: usize = 8 * 1024;

/// Where in its chunks a body is.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    /// Bytes that are left of the chunk at hand.
    left: u64,
    /// There was a chunk, and its line end is still to come.
    begun: bool,
    over: bool,
}

impl Chunks {
    /// Reads of the data in the chunks of `source`. Nothing is read at their end only.
    pub(super) fn read(&mut self, source: &mut dyn Read, into: &mut [u8]) -> io::Result<usize> {
        if self.over || into.is_empty() {
            return Ok(0);
        }
        if self.left == 0 {
            if self.begun && !line(source, 0)?.is_empty() {
                return Err(wrong());
            }
            self.left = length(&line(source, MAX_LINE)?).ok_or_else(wrong)?;
            self.begun = true;
            if self.left == 0 {
                let mut most = MAX_TRAILERS;
                loop {
                    let trailer = line(source, most)?;
                    if trailer.is_empty() {
                        break;
                    }
                    most -= trailer.len();
                }
                self.over = true;
                return Ok(0);
            }
        }
        let most = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(into.len());
        match source.read(&mut into[..most])? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.left -= count as u64;
                Ok(count)
            }
        }
    }
}

fn wrong() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "these are no chunks")
}

/// The length that begins a chunk; what may follow it there means nothing to us.
fn length(line: &[u8]) -> Option<u64> {
    let line = std::str::from_utf8(line).ok()?;
    let digits = line.split(';').next()?.trim_end_matches([' ', '\t']);
    let is_hex = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    u64::from_str_radix(digits, 16).ok().filter(|_| is_hex)
}

/// A line of at most `most` bytes, without its end.
fn line(source: &mut dyn Read, most: usize) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    loop {
        let mut byte = [0];
        // The connection has a buffer, so this is no system call for each byte.
        match source.read(&mut byte) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        match (byte[0], line.last()) {
            (b'\n', Some(b'\r')) => {
                line.pop();
                return Ok(line);
            }
            // A bare line feed, or a carriage return in the middle.
            (b'\n', _) | (_, Some(b'\r')) => return Err(wrong()),
            (byte, _) => line.push(byte),
        }
        if line.len() > most + 1 {
            return Err(wrong());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(mut source: &[u8], size: usize) -> io::Result<(Vec<u8>, Vec<u8>)> {
        let mut chunks = Chunks::default();
        let (mut body, mut piece) = (Vec::new(), vec![0; size]);
        loop {
            match chunks.read(&mut source, &mut piece)? {
                0 => return Ok((body, source.to_vec())),
                count => body.extend_from_slice(&piece[..count]),
            }
        }
    }

    #[test]
    fn what_is_in_the_chunks_is_read_and_nothing_behind_them() {
        for text in [
            "5\r\nhello\r\n0\r\n\r\nGET /",
            "1\r\nh\r\n4;a=b\r\nello\r\n000\r\nX: y\r\nZ: \r\n\r\nGET /",
            "00005 \r\nhello\r\n0;x\r\n\r\nGET /",
        ] {
            for size in [1, 3, 100] {
                let got = read(text.as_bytes(), size).unwrap();
                assert_eq!(got, (b"hello".to_vec(), b"GET /".to_vec()), "{text:?}");
            }
        }
    }

    #[test]
    fn what_are_no_chunks_or_not_all_of_them_is_an_error() {
        for text in [
            "zz\r\nhello\r\n0\r\n\r\n",
            "-5\r\nhello\r\n0\r\n\r\n",
            "+5\r\nhello\r\n0\r\n\r\n",
            "5\nhello\n0\n\n",
            "5\r\nhelloworld\r\n0\r\n\r\n",
            "5\r\nhello0\r\n\r\n",
            "ffffffffffffffffff\r\nhello\r\n",
            "\r\n5\r\nhello\r\n",
            "5\r\nhello\r\n\r\n0\r\n\r\n",
            "5\r\nhello\r\n0\r\nX: y\r\n",
            "5\r\nhello\r\n0\r\n",
            "5\r\nhel",
            "5\r\r\nhello\r\n0\r\n\r\n",
        ] {
            assert!(read(text.as_bytes(), 64).is_err(), "{text:?}");
        }
        let long = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(MAX_LINE));
        assert!(read(long.as_bytes(), 64).is_err());
        let long = format!("0\r\n{}\r\n", "X: y\r\n".repeat(MAX_TRAILERS));
        assert!(read(long.as_bytes(), 64).is_err());
    }
}
