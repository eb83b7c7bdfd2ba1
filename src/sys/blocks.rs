//! The allocator: small blocks are kept by the thread that frees them, in front of the system's own.
//!
//! A request's memory is made by the thread of its connection and freed by a worker, so that the
//! caches of a usual allocator run empty on one side and full on the other, and musl's has one lock
//! for all. Here each thread has lists of free blocks by size. What a list has too much of goes in
//! batches to a shelf that all threads share, and a list that is empty takes a batch from there.
//! Everything large goes to the system.
//!
//! Bounds: a thread keeps at most `KEPT_BYTES` of each size, the shelf `SHELF_BYTES` of each, and
//! `give_back` empties both: the thread's own lists and the shelf.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

/// Sizes are multiples of this up to `FINE`, and then powers of two. It is also the alignment.
const GRAIN: usize = 16;
const FINE: usize = 1024;
const LARGEST: usize = 16 * 1024;
const FINE_CLASSES: usize = FINE / GRAIN;
const CLASSES: usize = FINE_CLASSES + (LARGEST / FINE).trailing_zeros() as usize;

/// Of each size a thread keeps so many blocks at most, and so many bytes.
const KEPT_BLOCKS: usize = 32;
const KEPT_BYTES: usize = 16 * 1024;

/// The shelf keeps so many bytes of each size.
const SHELF_BYTES: usize = 128 * 1024;

const fn class_of(size: usize) -> usize {
    if size <= FINE {
        // Zero bytes are never asked for.
        size.div_ceil(GRAIN) - 1
    } else {
        FINE_CLASSES + (size - 1).ilog2() as usize - FINE.trailing_zeros() as usize
    }
}

const fn size_of_class(class: usize) -> usize {
    match class < FINE_CLASSES {
        true => (class + 1) * GRAIN,
        false => FINE << (class - FINE_CLASSES + 1),
    }
}

/// A thread hands over half of what it may keep.
const fn kept(class: usize) -> usize {
    let by_bytes = KEPT_BYTES / size_of_class(class);
    let kept = if by_bytes < KEPT_BLOCKS {
        by_bytes
    } else {
        KEPT_BLOCKS
    };
    if kept < 2 { 2 } else { kept }
}

const KEPT: [u8; CLASSES] = {
    let mut all = [0; CLASSES];
    let mut class = 0;
    while class < CLASSES {
        all[class] = kept(class) as u8;
        class += 1;
    }
    all
};

/// A free block: the next one of its list and, in the first of a batch, the next batch.
struct Free {
    next: *mut Free,
    batch: *mut Free,
}

/// What one thread keeps.
struct Lists {
    heads: [Cell<*mut Free>; CLASSES],
    counts: [Cell<u8>; CLASSES],
    /// Whether the lists are given back when the thread ends: not yet asked for, being asked for,
    /// or in force. Behind the end nothing is kept any more.
    state: Cell<State>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    Busy,
    Open,
    Ended,
}

thread_local! {
    static LISTS: Lists = const {
        Lists {
            heads: [const { Cell::new(null_mut()) }; CLASSES],
            counts: [const { Cell::new(0) }; CLASSES],
            state: Cell::new(State::New),
        }
    };
    static END: End = const { End };
}

/// Gives back what its thread kept.
struct End;

impl Drop for End {
    fn drop(&mut self) {
        LISTS.with(|lists| {
            lists.state.set(State::Ended);
            lists.empty();
        });
    }
}

/// Batches of one size, for all threads.
struct Shelf {
    taken: AtomicBool,
    first: AtomicPtr<Free>,
    bytes: AtomicUsize,
}

static SHELVES: [Shelf; CLASSES] = [const {
    Shelf {
        taken: AtomicBool::new(false),
        first: AtomicPtr::new(null_mut()),
        bytes: AtomicUsize::new(0),
    }
}; CLASSES];

impl Shelf {
    /// Does something with the batches, unless another thread is at it: then the system serves.
    fn with<T>(&self, work: impl FnOnce(*mut Free) -> (*mut Free, T)) -> Option<T> {
        if self.taken.swap(true, Ordering::Acquire) {
            return None;
        }
        let (first, result) = work(self.first.load(Ordering::Relaxed));
        self.first.store(first, Ordering::Relaxed);
        self.taken.store(false, Ordering::Release);
        Some(result)
    }

    /// Whether the batch was taken in; it has `count` blocks.
    fn put(&self, class: usize, batch: *mut Free, count: usize) -> bool {
        let bytes = count * size_of_class(class);
        // Counted first, so that whoever takes the batch at once finds it counted.
        let has_room = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes <= SHELF_BYTES;
        let put = has_room
            && self
                .with(|first| {
                    // SAFETY: the block is free and belongs to this batch alone.
                    unsafe { (*batch).batch = first };
                    (batch, ())
                })
                .is_some();
        if !put {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        put
    }

    /// A batch, and how many blocks it has.
    fn take(&self, class: usize) -> Option<(*mut Free, usize)> {
        if self.first.load(Ordering::Relaxed).is_null() {
            return None;
        }
        let batch = self.with(|first| match first.is_null() {
            true => (first, null_mut()),
            // SAFETY: what stands on the shelf is free, and its first word pair is valid.
            false => (unsafe { (*first).batch }, first),
        })?;
        if batch.is_null() {
            return None;
        }
        let mut count = 0;
        let mut at = batch;
        while !at.is_null() {
            count += 1;
            // SAFETY: as above.
            at = unsafe { (*at).next };
        }
        self.bytes
            .fetch_sub(count * size_of_class(class), Ordering::Relaxed);
        Some((batch, count))
    }
}

impl Lists {
    /// Whether blocks may be kept. The first time it is arranged that they are given back at the
    /// thread's end, which may ask for memory itself.
    #[inline]
    fn is_open(&self) -> bool {
        self.state.get() == State::Open || self.open()
    }

    #[cold]
    fn open(&self) -> bool {
        if self.state.get() != State::New {
            return false;
        }
        self.state.set(State::Busy);
        let state = match END.try_with(|_| ()) {
            Ok(()) => State::Open,
            Err(_) => State::Ended,
        };
        self.state.set(state);
        state == State::Open
    }

    #[inline]
    fn pop(&self, class: usize) -> *mut u8 {
        let head = self.heads[class].get();
        if head.is_null() {
            return self.refill(class);
        }
        // SAFETY: blocks in the list are free, and this thread's alone.
        self.heads[class].set(unsafe { (*head).next });
        self.counts[class].set(self.counts[class].get() - 1);
        head.cast()
    }

    #[cold]
    fn refill(&self, class: usize) -> *mut u8 {
        let Some((batch, count)) = SHELVES[class].take(class) else {
            // SAFETY: the layout is that of every block of the class.
            return unsafe { System.alloc(layout(class)) };
        };
        // SAFETY: the batch is this thread's now.
        self.heads[class].set(unsafe { (*batch).next });
        self.counts[class].set((count - 1) as u8);
        batch.cast()
    }

    #[inline]
    fn push(&self, class: usize, block: *mut u8) {
        let block: *mut Free = block.cast();
        // SAFETY: the block is free from now on and at least as large and aligned as `Free`.
        unsafe { (*block).next = self.heads[class].get() };
        self.heads[class].set(block);
        let count = self.counts[class].get() + 1;
        self.counts[class].set(count);
        if count > KEPT[class] {
            self.hand_over(class, usize::from(count) / 2);
        }
    }

    /// The first `count` blocks of a list go to the shelf, or back to the system.
    #[cold]
    fn hand_over(&self, class: usize, count: usize) {
        let batch = self.heads[class].get();
        let mut last = batch;
        for _ in 1..count {
            // SAFETY: the list has at least `count` blocks.
            last = unsafe { (*last).next };
        }
        // SAFETY: as above; the batch is cut off behind its last block.
        unsafe {
            self.heads[class].set((*last).next);
            (*last).next = null_mut();
        }
        self.counts[class].set(self.counts[class].get() - count as u8);
        if !SHELVES[class].put(class, batch, count) {
            free_all(class, batch);
        }
    }

    fn empty(&self) {
        for class in 0..CLASSES {
            let count = usize::from(self.counts[class].get());
            if count > 0 {
                self.hand_over(class, count);
            }
        }
    }
}

/// Every block of a class is asked of the system in the same way.
#[inline]
fn layout(class: usize) -> Layout {
    // SAFETY: the alignment is a power of two, and no size is near the end of the address space.
    unsafe { Layout::from_size_align_unchecked(size_of_class(class), GRAIN) }
}

/// The blocks of a batch go back to the system.
fn free_all(class: usize, batch: *mut Free) {
    let mut at = batch;
    while !at.is_null() {
        // SAFETY: the blocks are free, came from the system with this layout, and are nobody's.
        unsafe {
            let next = (*at).next;
            System.dealloc(at.cast(), layout(class));
            at = next;
        }
    }
}

/// What this thread keeps goes to the shelf, where others find it.
pub fn give_back_own() {
    let _ = LISTS.try_with(Lists::empty);
}

/// What this thread and the shelf keep goes back to the system.
pub fn give_back() {
    give_back_own();
    for (class, shelf) in SHELVES.iter().enumerate() {
        while let Some((batch, _)) = shelf.take(class) {
            free_all(class, batch);
        }
    }
}

pub struct Blocks;

#[inline]
fn is_small(layout: Layout) -> bool {
    layout.size() <= LARGEST && layout.align() <= GRAIN
}

// Not inlined: a copy at each place that allocates made the program 170 KiB larger.
//
// SAFETY: blocks of up to `LARGEST` bytes are the system's blocks of their class's size, which is at
// least what was asked for, with its alignment; a block is in at most one list, and in none while it
// is in use. Larger ones are the system's own.
unsafe impl GlobalAlloc for Blocks {
    #[inline(never)]
    unsafe fn alloc(&self, wanted: Layout) -> *mut u8 {
        if is_small(wanted) {
            let class = class_of(wanted.size());
            let kept = LISTS.try_with(|lists| match lists.is_open() {
                true => lists.pop(class),
                false => null_mut(),
            });
            match kept {
                Ok(block) if !block.is_null() => block,
                // SAFETY: as for every block of the class.
                _ => unsafe { System.alloc(layout(class)) },
            }
        } else {
            // SAFETY: the caller's promise is the system's condition.
            unsafe { System.alloc(wanted) }
        }
    }

    #[inline(never)]
    unsafe fn dealloc(&self, block: *mut u8, wanted: Layout) {
        if is_small(wanted) {
            let class = class_of(wanted.size());
            let kept = LISTS.try_with(|lists| {
                let open = lists.is_open();
                if open {
                    lists.push(class, block);
                }
                open
            });
            if kept != Ok(true) {
                // SAFETY: it came from the system with this layout.
                unsafe { System.dealloc(block, layout(class)) };
            }
        } else {
            // SAFETY: as the caller promises.
            unsafe { System.dealloc(block, wanted) };
        }
    }

    #[inline(never)]
    unsafe fn alloc_zeroed(&self, wanted: Layout) -> *mut u8 {
        if is_small(wanted) {
            // SAFETY: the block has at least that many bytes, unless there is none.
            unsafe {
                let block = self.alloc(wanted);
                if !block.is_null() {
                    block.write_bytes(0, wanted.size());
                }
                block
            }
        } else {
            // SAFETY: as the caller promises.
            unsafe { System.alloc_zeroed(wanted) }
        }
    }

    #[inline(never)]
    unsafe fn realloc(&self, block: *mut u8, old: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises that the size fits the alignment.
        let new = unsafe { Layout::from_size_align_unchecked(size, old.align()) };
        match (is_small(old), is_small(new)) {
            (true, true) if class_of(old.size()) == class_of(size) => block,
            // SAFETY: as the caller promises.
            (false, false) => unsafe { System.realloc(block, old, size) },
            // SAFETY: both have at least the smaller of the sizes, and are different blocks.
            _ => unsafe {
                let moved = self.alloc(new);
                if !moved.is_null() {
                    moved.copy_from_nonoverlapping(block, old.size().min(size));
                    self.dealloc(block, old);
                }
                moved
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::sync_channel;
    use std::thread;

    #[test]
    fn every_size_has_the_smallest_class_that_holds_it() {
        for size in 1..=LARGEST {
            let class = class_of(size);
            assert!(class < CLASSES, "{size}");
            assert!(size_of_class(class) >= size, "{size}");
            assert!(class == 0 || size_of_class(class - 1) < size, "{size}");
        }
        assert_eq!(size_of_class(CLASSES - 1), LARGEST);
        assert!(KEPT.iter().all(|kept| *kept >= 2));
    }

    fn fill(size: usize, mark: u8) -> Vec<u8> {
        let mut block = Vec::with_capacity(size);
        block.resize(size, mark);
        block
    }

    /// Blocks made by one thread and freed by another, as those of requests are, hold what was
    /// written into them, whatever sizes and threads come and go.
    #[test]
    fn blocks_that_change_threads_are_never_shared() {
        let (give, take) = sync_channel::<(Vec<u8>, u8)>(64);
        let maker = thread::spawn(move || {
            for round in 0..2_000_usize {
                let mark = round as u8;
                let size = 1 + (round * 7_919) % (3 * LARGEST / 2);
                if give.send((fill(size, mark), mark)).is_err() {
                    return;
                }
            }
        });
        let mut held = Vec::new();
        for (block, mark) in take {
            assert!(block.iter().all(|byte| *byte == mark));
            held.push((block, mark));
            if held.len() > 40 {
                let (block, mark) = held.swap_remove(held.len() / 3);
                assert!(block.iter().all(|byte| *byte == mark));
                let short_lived = thread::spawn(move || drop(block));
                short_lived.join().unwrap();
            }
        }
        maker.join().unwrap();
        assert!(
            held.iter()
                .all(|(block, mark)| block.iter().all(|byte| byte == mark))
        );
        give_back();
    }

    #[test]
    fn what_grows_and_shrinks_keeps_its_contents() {
        let mut text = String::new();
        for round in 0..5_000 {
            text.push_str(&round.to_string());
            if round % 1_000 == 0 {
                text.shrink_to_fit();
            }
        }
        let expected: String = (0..5_000).map(|round| round.to_string()).collect();
        assert_eq!(text, expected);
        assert!(vec![0_u8; 900].iter().all(|byte| *byte == 0));
        assert!(vec![0_u64; 3_000].iter().all(|word| *word == 0));
    }

    #[test]
    fn a_list_and_the_shelf_keep_so_much_and_no_more() {
        // A size that nothing else in the tests uses much, in a thread that does nothing else.
        let size = 8 * 1024;
        let class = class_of(size);
        thread::spawn(move || {
            let all: Vec<Vec<u8>> = (0..200).map(|mark| fill(size, mark)).collect();
            drop(all);
            let own = LISTS.with(|lists| lists.counts[class].get());
            assert!(own <= KEPT[class], "{own}");
            assert!(SHELVES[class].bytes.load(Ordering::Relaxed) <= SHELF_BYTES);
            give_back_own();
            assert_eq!(LISTS.with(|lists| lists.counts[class].get()), 0);
        })
        .join()
        .unwrap();
    }
}
