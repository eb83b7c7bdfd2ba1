//! Memory for what long bodies become, asked for before it is needed: an allocation that fails
//! later would end the process, and every stream with it.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::body::NoBody;
use crate::json::shape::{MOST_MEMBERS, Shape};
use crate::sys::pages;

/// What the bodies that are in the works may still take, in bytes.
static PROMISED: AtomicUsize = AtomicUsize::new(0);

/// Shorter ones become a few megabytes at most.
const LONG: usize = 64 * 1024;

/// So much of the longest takes is worth giving back to the kernel at once.
const LARGE: usize = 1024 * 1024;

/// Bytes that one JSON value costs at most while it is encoded for an upstream; measured by the
/// table of shapes in `tests/it/peaks.rs`.
const VALUE: usize = 400;

/// A promise of memory. Dropping it gives it back.
#[derive(Debug)]
pub struct Room {
    bytes: usize,
    /// What the body holds.
    pub shape: Shape,
}

impl Room {
    /// Room for the work on this body.
    pub fn for_work(body: &[u8]) -> Result<Option<Room>, NoBody> {
        if body.len() <= LONG {
            return Ok(None);
        }
        if body.len() >= LARGE {
            pages::expect_much();
        }
        // More values than that are refused before anything is made of them.
        let shape = Shape::of(body);
        let values = shape.values.min(MOST_MEMBERS);
        Room::promise(3 * body.len() + values * VALUE, shape).map(Some)
    }

    fn promise(bytes: usize, shape: Shape) -> Result<Room, NoBody> {
        let all = PROMISED
            .fetch_add(bytes, Ordering::Relaxed)
            .saturating_add(bytes);
        let room = Room { bytes, shape };
        // Others may have taken part of theirs already; then this asks for more than is needed.
        match Vec::<u8>::new().try_reserve_exact(all) {
            Ok(()) => Ok(room),
            Err(_) => Err(NoBody::NoMemory),
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        PROMISED.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_bodies_are_promised_room_by_what_they_hold_and_give_it_back() {
        assert!(Room::for_work(&[b','; LONG]).unwrap().is_none());
        let text = Room::for_work(&[b'x'; 2 * LONG]).unwrap().unwrap();
        assert_eq!(text.bytes, 6 * LONG);
        let commas = Room::for_work(&[b','; 2 * LONG]).unwrap().unwrap();
        assert_eq!(commas.bytes, 6 * LONG + 2 * LONG * VALUE);
        let most = Room::for_work(&[b','; 64 * LONG]).unwrap().unwrap();
        assert_eq!(most.bytes, 3 * 64 * LONG + MOST_MEMBERS * VALUE);
        let all = text.bytes + commas.bytes + most.bytes;
        assert!(PROMISED.load(Ordering::Relaxed) >= all);
        assert_eq!(
            Room::promise(usize::MAX / 4, Shape::default()).unwrap_err(),
            NoBody::NoMemory
        );
    }
}
