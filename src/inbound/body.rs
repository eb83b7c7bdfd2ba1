//! Reading a request's body: its length is believed piece by piece, and its time is bounded.

use std::io::{self, Read};
use std::sync::atomic::Ordering;

use crate::bytes::lengthen;
use crate::desk::Job;

/// Why there is no body.
#[derive(Debug, PartialEq, Eq)]
pub enum NoBody {
    TooLong,
    Late,
    /// There is no room for it now.
    NoMemory,
    /// The caller closed or broke its framing.
    Cut,
    /// It is packed in a way that nobody here unpacks.
    Coding,
    /// It is not packed as it says; this is wrong with it.
    Packed(&'static str),
}

/// Reads exactly `length` bytes.
pub(super) fn read_length(
    reader: &mut dyn Read,
    body: &mut Vec<u8>,
    length: usize,
    job: &Job,
) -> Result<(), NoBody> {
    // What is declared is only believed for so much before it has come.
    const BELIEVED: usize = 64 * 1024;
    let mut filled = 0;
    while filled < length {
        if filled == body.len() {
            grow(body, (filled * 2).max(BELIEVED).min(length))?;
        }
        match read_some(reader, &mut body[filled..], job)? {
            0 if job.body_late.load(Ordering::Relaxed) => return Err(NoBody::Late),
            0 => return Err(NoBody::Cut),
            count => filled += count,
        }
    }
    Ok(())
}

/// Reads to the end, at most `max` bytes.
pub(super) fn read_all(
    reader: &mut dyn Read,
    body: &mut Vec<u8>,
    max: usize,
    job: &Job,
) -> Result<(), NoBody> {
    const PIECE: usize = 4 * 1024;
    let mut filled = 0;
    loop {
        if filled > max {
            return Err(NoBody::TooLong);
        }
        // Only when it is full: a caller who sends a byte at a time must not have megabytes of
        // room cleared for each of them.
        if filled == body.len() {
            grow(body, filled * 2 + PIECE)?;
        }
        match read_some(reader, &mut body[filled..], job)? {
            0 => break,
            count => filled += count,
        }
    }
    body.truncate(filled);
    Ok(())
}

/// Makes the body `length` bytes long, if there is memory for it.
pub(super) fn grow(body: &mut Vec<u8>, length: usize) -> Result<(), NoBody> {
    let room = length.saturating_sub(body.len());
    body.try_reserve_exact(room).map_err(|_| NoBody::NoMemory)?;
    lengthen(body, length);
    Ok(())
}

/// About how many bytes beside its data come with what is read at once.
fn framing_of(job: &Job) -> u64 {
    const OF_A_CHUNK: u64 = 16;
    match job.reads_chunks.load(Ordering::Relaxed) {
        true => OF_A_CHUNK,
        false => 0,
    }
}

/// Reads once, unless the job's time for the body is over.
pub(super) fn read_some(
    reader: &mut dyn Read,
    into: &mut [u8],
    job: &Job,
) -> Result<usize, NoBody> {
    loop {
        if job.body_late.load(Ordering::Relaxed) {
            return Err(NoBody::Late);
        }
        match reader.read(into) {
            Ok(count) => {
                job.use_up(count as u64 + framing_of(job));
                return Ok(count);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // On a unix socket the wait has a limit of its own.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(NoBody::Late),
            // Its connection was ended for it, which breaks chunks off.
            Err(_) if job.body_late.load(Ordering::Relaxed) => return Err(NoBody::Late),
            Err(_) => return Err(NoBody::Cut),
        }
    }
}
