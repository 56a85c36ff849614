//! Memory that a burst has left free goes back to the system.
//!
//! glibc keeps what was freed below the highest block in use, for the next burst. A process would weigh for ever what
//! it weighed in its busiest second.
#![expect(unsafe_code, reason = "malloc_trim and mallopt have no safe wrappers")]

use std::time::Duration;

/// Long enough that a load with pauses does not fetch the same pages again and again.
const PAUSE: Duration = Duration::from_secs(5);

/// Bytes. What is as large has pages of its own and goes back at once; free memory at the end of a heap, which
/// malloc_trim reaches in the first heap only, goes back above this. Unset, glibc raises both up to 32 and 64 MiB as
/// large blocks come and go.
const THRESHOLD: libc::c_int = 1 << 20;

/// For as long as the process runs, on a thread of its own.
#[cfg(target_env = "gnu")]
pub(crate) fn give_back() -> std::io::Result<()> {
    for setting in [libc::M_MMAP_THRESHOLD, libc::M_TRIM_THRESHOLD] {
        // SAFETY: mallopt(3) changes a number under the allocator's own lock.
        let set = unsafe { libc::mallopt(setting, THRESHOLD) };
        debug_assert_eq!(set, 1, "a setting that glibc knows");
    }
    let give_back = || {
        loop {
            std::thread::sleep(PAUSE);
            // SAFETY: malloc_trim(3) takes each arena's own lock, may be called from any thread at any time, and moves
            // nothing that is in use.
            let _ = unsafe { libc::malloc_trim(0) };
        }
    };
    std::thread::Builder::new().name("memory".to_owned()).stack_size(64 * 1024).spawn(give_back).map(drop)
}

/// Other allocators have ways of their own.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn give_back() -> std::io::Result<()> {
    let _ = (PAUSE, THRESHOLD);
    Ok(())
}
