//! Places at which a test build can be made to die or to stand still: `--features fault-injection`. In any other build
//! there is nothing here.
//!
//! The file that `FIRSTCOME_FAILPOINT` names arms one: it holds a point's name and what happens to the first claim that
//! reaches it, `kill` or `stop` (for 5 s), such as `after-ack kill`.

/// On a claim's way, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Point {
    BeforeScript = 1,
    AfterScript,
    BeforeAppend,
    AfterAck,
    BeforeAnswer,
}

#[cfg(not(feature = "fault-injection"))]
#[inline(always)]
pub const fn reach(_: Point) {}

#[cfg(feature = "fault-injection")]
pub use armed::{reach, watch};

#[cfg(feature = "fault-injection")]
mod armed {
    use std::process::Command;
    use std::sync::atomic::{AtomicU8, Ordering};
    use std::time::Duration;

    use super::Point;

    const STOP: u8 = 0x80;
    /// The armed point's number, with [`STOP`] for standing still; 0 while none is.
    static ARMED: AtomicU8 = AtomicU8::new(0);

    fn parse(text: &str) -> Option<u8> {
        let (point, action) = text.trim().split_once(' ')?;
        let point = match point {
            "before-script" => Point::BeforeScript,
            "after-script" => Point::AfterScript,
            "before-append" => Point::BeforeAppend,
            "after-ack" => Point::AfterAck,
            "before-answer" => Point::BeforeAnswer,
            _ => return None,
        };
        match action {
            "kill" => Some(point as u8),
            "stop" => Some(point as u8 | STOP),
            _ => None,
        }
    }

    pub fn reach(point: Point) {
        let armed = ARMED.load(Ordering::Relaxed);
        if armed & !STOP != point as u8
            || ARMED.compare_exchange(armed, 0, Ordering::Relaxed, Ordering::Relaxed).is_err()
        {
            return;
        }
        tracing::warn!(?point, "a failpoint was reached");
        if armed & STOP == 0 {
            std::process::abort();
        }
        let own = std::process::id();
        let stop = format!("kill -STOP {own}; sleep 5; kill -CONT {own}");
        let _ = Command::new("sh").args(["-c", &stop]).status();
    }

    /// Arms what the file says, as soon as it is there; the file is taken away.
    pub fn watch() {
        let Some(file) = std::env::var_os("FIRSTCOME_FAILPOINT") else { return };
        let looking = std::thread::Builder::new().name("failpoint".into());
        let looking = looking.spawn(move || {
            loop {
                std::thread::sleep(Duration::from_millis(10));
                let Ok(text) = std::fs::read_to_string(&file) else { continue };
                // Half written, as long as it can't be read.
                if let Some(armed) = parse(&text) {
                    let _ = std::fs::remove_file(&file);
                    ARMED.store(armed, Ordering::Relaxed);
                }
            }
        });
        if let Err(error) = looking {
            tracing::error!(%error, "no failpoint can be armed");
        }
    }
}
