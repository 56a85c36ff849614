//! Places at which a test build can be made to die or to stand still: `--features fault-injection`. In any other build
//! there is nothing here.
//!
//! The file that `FIRSTCOME_FAILPOINT` names arms one: it holds a point's name, what happens to the first claim, or in a
//! consumer the first transaction, that reaches it, `kill` or `stop` (for 5 s), and how many claims have to be under way
//! in this process then, such as `after-ack kill 40`; in a consumer none is. `disarm` takes it
//! back. Beside it, in a file with `.reached` added to
//! its name, stands afterwards when that was, in unix milliseconds.

/// On a claim's way, in order; the last two on its way into the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Point {
    BeforeScript = 1,
    AfterScript,
    BeforeAppend,
    AfterAck,
    BeforeAnswer,
    BeforeCommit,
    AfterCommit,
}

#[cfg(not(feature = "fault-injection"))]
#[inline(always)]
pub const fn reach(_: Point) {}

/// A claim that is under way in this process.
#[derive(Debug)]
#[must_use = "it is under way until this is dropped"]
pub struct UnderWay;

#[cfg(not(feature = "fault-injection"))]
#[inline(always)]
pub const fn under_way() -> UnderWay {
    UnderWay
}

#[cfg(feature = "fault-injection")]
pub use armed::{reach, under_way, watch};

#[cfg(feature = "fault-injection")]
mod armed {
    use std::ffi::{OsStr, OsString};
    use std::process::Command;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use super::{Point, UnderWay};

    /// The armed point's number; with [`STOP`] for standing still; above it how many claims have to be under way. 0 while
    /// none is armed.
    static ARMED: AtomicU32 = AtomicU32::new(0);
    const STOP: u32 = 0x80;
    const POINT: u32 = 0x7f;
    const CLAIMS: u32 = 8;
    static UNDER_WAY: AtomicU32 = AtomicU32::new(0);
    static FILE: OnceLock<OsString> = OnceLock::new();

    fn parse(text: &str) -> Option<u32> {
        if text == "disarm\n" {
            return Some(0);
        }
        let [point, action, claims] = text.split_whitespace().collect::<Vec<_>>().try_into().ok()?;
        let point = match point {
            "before-script" => Point::BeforeScript,
            "after-script" => Point::AfterScript,
            "before-append" => Point::BeforeAppend,
            "after-ack" => Point::AfterAck,
            "before-answer" => Point::BeforeAnswer,
            "before-commit" => Point::BeforeCommit,
            "after-commit" => Point::AfterCommit,
            _ => return None,
        };
        let stop = match action {
            "kill" => 0,
            "stop" => STOP,
            _ => return None,
        };
        Some(point as u32 | stop | u32::from(claims.parse::<u16>().ok()?) << CLAIMS)
    }

    pub fn under_way() -> UnderWay {
        UNDER_WAY.fetch_add(1, Ordering::Relaxed);
        UnderWay
    }

    impl Drop for UnderWay {
        fn drop(&mut self) {
            UNDER_WAY.fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub fn reach(point: Point) {
        let armed = ARMED.load(Ordering::Relaxed);
        if armed & POINT != point as u32
            || UNDER_WAY.load(Ordering::Relaxed) < armed >> CLAIMS
            || ARMED.compare_exchange(armed, 0, Ordering::Relaxed, Ordering::Relaxed).is_err()
        {
            return;
        }
        let mut reached = FILE.get().cloned().unwrap_or_default();
        reached.push(".reached");
        let _ = std::fs::write(reached, platform::clock::now_ms().to_string());
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
        let file: &'static OsStr = FILE.get_or_init(|| file);
        let looking = std::thread::Builder::new().name("failpoint".into());
        let looking = looking.spawn(move || {
            loop {
                std::thread::sleep(Duration::from_millis(10));
                let Ok(text) = std::fs::read_to_string(file) else { continue };
                // Half written, as long as it can't be read.
                if let Some(armed) = parse(&text) {
                    // Who takes an order back believes that it is when the file is gone.
                    ARMED.store(0, Ordering::Relaxed);
                    let _ = std::fs::remove_file(file);
                    ARMED.store(armed, Ordering::Relaxed);
                }
            }
        });
        if let Err(error) = looking {
            tracing::error!(%error, "no failpoint can be armed");
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_point_an_action_and_a_number_of_claims() {
            let armed = parse("after-ack stop 40\n").unwrap();
            assert_eq!((armed & POINT, armed & STOP, armed >> CLAIMS), (Point::AfterAck as u32, STOP, 40));
            assert_eq!(parse("before-script kill 0"), Some(Point::BeforeScript as u32));
            assert_eq!(parse("disarm\n"), Some(0));
            for wrong in
                ["", "after-ack", "after-ack kill", "after-ack kill x", "nowhere kill 1", "after-ack die 1"]
            {
                assert_eq!(parse(wrong), None, "{wrong}");
            }
        }
    }
}
