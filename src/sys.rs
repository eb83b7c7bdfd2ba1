//! What needs `unsafe`, behind functions that do not.
#![allow(unsafe_code)]

pub mod blocks;

/// Keeps the process from leaving a core file: the keys of all upstreams would be in it. Whoever
/// wants one can raise the limit again with `prlimit`.
pub fn no_core_files() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: both calls get a pointer to a limit that is there.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_CORE, &raw mut limit) == 0 {
            limit.rlim_cur = 0;
            libc::setrlimit(libc::RLIMIT_CORE, &raw const limit);
        }
    }
}
