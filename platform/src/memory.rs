//! Memory that a burst has left free goes back to the system.
//!
//! glibc keeps what was freed below the highest block in use, for the next burst. A process would weigh for ever what
//! it weighed in its busiest second.
#![expect(unsafe_code, reason = "malloc_trim has no safe wrapper")]

use std::time::Duration;

/// Long enough that a load with pauses does not fetch the same pages again and again.
const PAUSE: Duration = Duration::from_secs(5);

/// For as long as the process runs, on a thread of its own.
#[cfg(target_env = "gnu")]
pub(crate) fn give_back() -> std::io::Result<()> {
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
    let _ = PAUSE;
    Ok(())
}
