//! Memory that nobody needs now goes back to the kernel: the used-up stack of threads that wait,
//! and what the allocator of glibc keeps. All of it is advice; nothing changes but the figures.

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::sys::blocks;

/// Gives back the pages of this thread's stack below the caller's frame. What stands there is the
/// past: the next call that goes so deep gets zeroed pages.
///
/// A worker goes 36 KiB deep to send a request and 7 KiB to relay its stream, so that a thousand
/// streams hold 28 MiB less, for 2 us each.
///
/// The free blocks that the thread keeps go to where others find them.
pub fn give_back_stack() {
    blocks::give_back_own();
    if let Some(lowest) = stack_bottom() {
        discard_from(lowest, page_size());
    }
}

/// Its own frame is small, and it calls nothing but the kernel, so that little has to be kept for
/// either: a worker at rest has one page of stack. With 2 KiB for calls that go deeper it had two.
#[inline(never)]
fn discard_from(lowest: usize, page: usize) {
    /// What this frame and that of the call can take.
    const OWN: usize = 512;
    let mark = 0_u8;
    let end = ((&raw const mark).addr().saturating_sub(OWN)) & !(page - 1);
    if lowest < end {
        // SAFETY: `lowest..end` lies within this thread's own stack and below every live frame, so
        // no value is there; the pages stay mapped.
        unsafe {
            libc::madvise(
                lowest as *mut libc::c_void,
                end - lowest,
                libc::MADV_DONTNEED,
            )
        };
    }
}

/// The lowest address of this thread's stack.
fn stack_bottom() -> Option<usize> {
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    let mut bottom = std::ptr::null_mut();
    let mut size = 0;
    // SAFETY: the attributes are used only when they were filled in, and are destroyed after.
    unsafe {
        if libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) != 0 {
            return None;
        }
        let got = libc::pthread_attr_getstack(attributes.as_ptr(), &mut bottom, &mut size);
        libc::pthread_attr_destroy(attributes.as_mut_ptr());
        (got == 0 && size > 0).then(|| bottom.addr())
    }
}

fn page_size() -> usize {
    // SAFETY: no pointers are passed.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096).max(1)
}

/// Before the first thread: few arenas for all threads. glibc would make eight a core, each with
/// its own leftovers.
pub fn few_arenas() {
    #[cfg(target_env = "gnu")]
    {
        const ARENAS: libc::c_int = 2;
        /// Left to itself, glibc raises both with the longest block it ever frees, to 32 and
        /// 64 MiB: then so much stays at the top of an arena, which `malloc_trim` does not give
        /// back in any but the first.
        const KEPT_AT_TOP: libc::c_int = 1 << 20;
        const MAPPED_FROM: libc::c_int = 4 << 20;
        // SAFETY: no pointers are passed.
        unsafe {
            libc::mallopt(libc::M_ARENA_MAX, ARENAS);
            libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_AT_TOP);
            libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM);
        }
    }
}

/// A request was so large that what it leaves behind is worth giving back, few as there were.
static LARGE: AtomicBool = AtomicBool::new(false);

/// Tells that a request of many megabytes is in the works.
pub fn expect_much() {
    LARGE.store(true, Ordering::Relaxed);
}

/// Whether one was, since this was asked last.
pub fn much_was_expected() -> bool {
    LARGE.swap(false, Ordering::Relaxed)
}

/// When something is given back: once, when much work has been over for a while.
#[derive(Debug)]
pub struct Thrift {
    /// The most requests at once since the last time.
    most: usize,
    idle_since: Option<u64>,
    while_ms: u64,
}

impl Default for Thrift {
    /// For the heap, which is soon filled again.
    fn default() -> Thrift {
        Thrift::after(2_000)
    }
}

impl Thrift {
    /// So few requests leave nothing worth a look.
    const MUCH: usize = 16;

    pub fn after(while_ms: u64) -> Thrift {
        Thrift {
            most: 0,
            idle_since: None,
            while_ms,
        }
    }

    /// Told how many requests are in the works, and whether one was `large`; true when it is time.
    pub fn is_due(&mut self, jobs: usize, large: bool, now: u64) -> bool {
        if large {
            self.most = Thrift::MUCH;
            self.idle_since = None;
        }
        self.most = self.most.max(jobs);
        if jobs > 0 || self.most < Thrift::MUCH {
            self.idle_since = None;
            return false;
        }
        let due = now >= *self.idle_since.get_or_insert(now) + self.while_ms;
        if due {
            *self = Thrift::after(self.while_ms);
        }
        due
    }
}

/// Gives back what the allocator keeps of freed memory. Takes milliseconds after much load.
pub fn give_back_heap() {
    blocks::give_back();
    #[cfg(target_env = "gnu")]
    // SAFETY: no pointers are passed.
    unsafe {
        libc::malloc_trim(0)
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn the_heap_is_given_back_once_after_much_work() {
        let mut thrift = Thrift::default();
        assert!(!thrift.is_due(1, false, 0));
        assert!(!thrift.is_due(0, false, 10_000));
        assert!(!thrift.is_due(0, false, 20_000));
        assert!(!thrift.is_due(100, false, 20_000));
        assert!(!thrift.is_due(0, false, 21_000));
        assert!(!thrift.is_due(1, false, 22_000));
        assert!(!thrift.is_due(0, false, 23_000));
        assert!(!thrift.is_due(0, false, 24_999));
        assert!(thrift.is_due(0, false, 25_000));
        assert!(!thrift.is_due(0, false, 30_000));
        // One alone, if it was large.
        assert!(!thrift.is_due(1, true, 40_000));
        assert!(!thrift.is_due(0, false, 41_000));
        assert!(thrift.is_due(0, false, 43_000));
        assert!(!thrift.is_due(0, false, 50_000));
    }

    /// Kilobytes of the stack of this thread that are in memory.
    fn resident() -> usize {
        let mark = 0_u8;
        let here = (&raw const mark).addr();
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut found = false;
        for line in maps.lines() {
            if let Some((from, to)) = line.split(' ').next().and_then(|s| s.split_once('-'))
                && let (Ok(from), Ok(to)) = (
                    usize::from_str_radix(from, 16),
                    usize::from_str_radix(to, 16),
                )
            {
                found = (from..to).contains(&here);
            } else if found && line.starts_with("Rss:") {
                return line.split_whitespace().nth(1).unwrap().parse().unwrap();
            }
        }
        panic!("no stack");
    }

    #[inline(never)]
    fn go_deep(levels: usize) -> u8 {
        let mut frame = [levels as u8; 4096];
        std::hint::black_box(&mut frame);
        match levels {
            0 => frame[17],
            _ => go_deep(levels - 1).wrapping_add(frame[17]),
        }
    }

    #[test]
    fn what_a_thread_used_before_goes_back_and_what_it_uses_stays() {
        let thread = thread::Builder::new().stack_size(1 << 20).spawn(|| {
            let kept = [7_u8; 1000];
            let sum = go_deep(100);
            let deep = resident();
            give_back_stack();
            let shallow = resident();
            assert!(std::hint::black_box(&kept).iter().all(|byte| *byte == 7));
            assert_eq!(go_deep(100), sum);
            (deep, shallow)
        });
        let (deep, shallow) = thread.unwrap().join().unwrap();
        assert!(deep >= 400, "{deep} KiB");
        // Reading the map takes some pages itself.
        assert!(shallow < 100, "{shallow} KiB of {deep}");
    }
}
