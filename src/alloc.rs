//! The allocator: the system's, but for freed buffers, some of which are kept for the next request.
//!
//! musl gives each freed block of a page or more back to the kernel at once, which was 2.6 mmap,
//! 2.4 munmap and 4.7 madvise a request. Kept, a relayed request of the static build costs 49 us of
//! CPU instead of 90 at one caller and 54 instead of 349 at sixteen, for the same memory at rest.
//! (mimalloc: 56 and 64 us, and 1.6 GiB with 1 000 streams.)

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

/// The smallest size that is kept; each further class is twice the one before it. Smaller blocks
/// are cheap, larger ones rare.
const SMALLEST: usize = 1024;
const CLASSES: usize = 7;

/// Blocks of each class that are kept at most: 8 MiB in all, and only what was in use at once.
const KEPT: usize = 64;

/// What any block of these sizes is aligned to.
const ALIGN: usize = 16;

pub struct Keeping {
    classes: [Class; CLASSES],
}

/// Freed blocks of one size.
struct Class {
    busy: AtomicBool,
    kept: UnsafeCell<Kept>,
}

struct Kept {
    count: usize,
    blocks: [*mut u8; KEPT],
}

// SAFETY: `kept` is reached through `Class::with` alone, by the one thread that has turned `busy`
// on. The blocks in it are owned by nobody else.
#[allow(unsafe_code)]
unsafe impl Sync for Class {}

impl Keeping {
    pub const fn new() -> Keeping {
        Keeping {
            classes: [const { Class::new() }; CLASSES],
        }
    }

    /// The class of a block and the layout that it really has; none for a block that is never kept.
    /// Depends on nothing but the layout, so that a block is freed as it was allocated.
    fn class(&self, layout: Layout) -> Option<(&Class, Layout)> {
        let size = layout.size().checked_next_power_of_two()?;
        if layout.size() < SMALLEST || layout.align() > ALIGN {
            return None;
        }
        let index = (size / SMALLEST).trailing_zeros() as usize;
        let class = self.classes.get(index)?;
        Some((class, Layout::from_size_align(size, ALIGN).ok()?))
    }
}

impl Class {
    const fn new() -> Class {
        Class {
            busy: AtomicBool::new(false),
            kept: UnsafeCell::new(Kept {
                count: 0,
                blocks: [ptr::null_mut(); KEPT],
            }),
        }
    }

    /// Nothing when another thread is at it: the system's allocator is then faster than waiting.
    fn with<T>(&self, act: impl FnOnce(&mut Kept) -> T) -> Option<T> {
        if self.busy.swap(true, Ordering::Acquire) {
            return None;
        }
        // SAFETY: `busy` was off and is on now, so that no other thread is here. What is done with
        // it below neither panics nor allocates, so that it does not come back here either.
        #[allow(unsafe_code)]
        let done = act(unsafe { &mut *self.kept.get() });
        self.busy.store(false, Ordering::Release);
        Some(done)
    }

    fn take(&self) -> Option<*mut u8> {
        self.with(|kept| {
            let last = kept.count.checked_sub(1)?;
            kept.count = last;
            kept.blocks.get(last).copied()
        })?
    }

    /// Whether it was kept.
    fn keep(&self, block: *mut u8) -> bool {
        let kept = self.with(|kept| match kept.blocks.get_mut(kept.count) {
            Some(place) => {
                *place = block;
                kept.count += 1;
                true
            }
            None => false,
        });
        kept == Some(true)
    }
}

// SAFETY: every block comes from `System` with the layout that `class` gives or with its own, and
// goes back with the same one, since `class` depends on the layout alone. A kept block is at least
// as large and as aligned as what is asked for, and is handed out once before it is freed again.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Keeping {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some((class, whole)) = self.class(layout) else {
            // SAFETY: handed on as it came.
            return unsafe { System.alloc(layout) };
        };
        // SAFETY: `whole` has a size of at least `SMALLEST`.
        class
            .take()
            .unwrap_or_else(|| unsafe { System.alloc(whole) })
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some((class, whole)) = self.class(layout) else {
            // SAFETY: a block without a class was allocated with its own layout.
            return unsafe { System.dealloc(block, layout) };
        };
        if !class.keep(block) {
            // SAFETY: a block with a class was allocated with `whole`.
            unsafe { System.dealloc(block, whole) }
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if self.class(layout).is_none() {
            // SAFETY: handed on as it came. Fresh pages need no zeroing.
            return unsafe { System.alloc_zeroed(layout) };
        }
        // SAFETY: handed on as it came.
        let block = unsafe { self.alloc(layout) };
        if !block.is_null() {
            // SAFETY: the block has at least this size.
            unsafe { block.write_bytes(0, layout.size()) }
        }
        block
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller holds that `size` is a valid size with this alignment.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (self.class(layout), self.class(wanted)) {
            // SAFETY: it was allocated with its own layout, and the new one is to be its own.
            (None, None) => unsafe { System.realloc(block, layout, size) },
            (Some((_, had)), Some((_, needs))) if had == needs => block,
            _ => {
                // SAFETY: `wanted` is not empty, as the caller holds for `size`.
                let new = unsafe { self.alloc(wanted) };
                if !new.is_null() {
                    // SAFETY: both have at least the smaller of the sizes, and are two blocks.
                    unsafe {
                        ptr::copy_nonoverlapping(block, new, layout.size().min(size));
                        self.dealloc(block, layout);
                    }
                }
                new
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(unsafe_code)]
    fn what_is_freed_is_handed_out_again_and_grows_with_its_bytes() {
        let keeping = Keeping::new();
        let layout = Layout::from_size_align(3000, 8).unwrap();
        // SAFETY: each block is freed once, with the layout it has then, and written within it.
        unsafe {
            let first = keeping.alloc(layout);
            first.write_bytes(7, 3000);
            let grown = keeping.realloc(first, layout, 4096);
            assert_eq!(grown, first, "there was room");
            let page = Layout::from_size_align(4096, 8).unwrap();
            let moved = keeping.realloc(grown, page, 200_000);
            assert_eq!((*moved, *moved.add(2999)), (7, 7));
            assert_eq!(keeping.alloc(layout), first, "it was kept");
            keeping.dealloc(first, layout);
            keeping.dealloc(moved, Layout::from_size_align(200_000, 8).unwrap());
        }
    }

    #[test]
    #[allow(unsafe_code)]
    fn only_so_many_are_kept() {
        let keeping = Keeping::new();
        let layout = Layout::from_size_align(SMALLEST, 1).unwrap();
        // SAFETY: each block is freed once with its layout.
        unsafe {
            let blocks: Vec<_> = (0..KEPT + 3).map(|_| keeping.alloc(layout)).collect();
            for block in blocks {
                keeping.dealloc(block, layout);
            }
        }
        assert_eq!(keeping.classes[0].with(|kept| kept.count), Some(KEPT));
        while let Some(block) = keeping.classes[0].take() {
            let whole = Layout::from_size_align(SMALLEST, ALIGN).unwrap();
            // SAFETY: it was allocated with this layout and is no longer kept.
            unsafe { System.dealloc(block, whole) }
        }
    }

    #[test]
    fn sizes_out_of_bounds_and_large_alignments_have_no_class() {
        let keeping = Keeping::new();
        for (size, align) in [(SMALLEST - 1, 1), (65_537, 1), (4096, 4096)] {
            let layout = Layout::from_size_align(size, align).unwrap();
            assert!(keeping.class(layout).is_none(), "{layout:?}");
        }
        let most = Layout::from_size_align(65_536, 16).unwrap();
        assert!(keeping.class(most).is_some());
    }
}
