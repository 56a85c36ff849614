//! Wall time in unix milliseconds. Invariant: nothing else in the system asks the operating system for the time of
//! day, so that a test can set it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::Rng as _;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The time of day, in unix milliseconds.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the place that the ban points to")]
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// RFC 3339 in UTC with milliseconds, like `2026-11-21T10:00:00.000Z`. Times after the year 9999 show as its end.
#[must_use]
pub fn rfc3339(ms: u64) -> String {
    const LAST: u64 = 253_402_300_799_999;
    let ms = ms.min(LAST);
    let seconds = i64::try_from(ms / 1000).unwrap_or(i64::MAX);
    let Ok(at) = OffsetDateTime::from_unix_timestamp(seconds) else { return String::new() };
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second(),
        ms % 1000
    )
}

/// Reads RFC 3339 with any offset; what is finer than a millisecond is cut off. None for text that is no such time,
/// or a time before 1970.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<u64> {
    let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    u64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok().filter(|_| at.unix_timestamp() >= 0)
}

/// A pause about as long as this one (a quarter less to a quarter more), so that those who wait for the same thing don't
/// all come back at once.
#[must_use]
pub fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::rng().random_range(0.75..1.25))
}

/// A source of time: the system's, or one that a test moves. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<AtomicU64>>);

impl Clock {
    #[must_use]
    pub fn system() -> Self {
        Self(None)
    }

    /// Stands at `ms` until it is moved.
    #[must_use]
    pub fn manual(ms: u64) -> Self {
        Self(Some(Arc::new(AtomicU64::new(ms))))
    }

    #[must_use]
    pub fn now_ms(&self) -> u64 {
        match &self.0 {
            None => now_ms(),
            Some(ms) => ms.load(Ordering::Acquire),
        }
    }

    /// Moves a manual clock on; the system's clock stays.
    pub fn advance(&self, by: Duration) {
        if let Some(ms) = &self.0 {
            ms.fetch_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX), Ordering::AcqRel);
        }
    }

    /// Sets a manual clock; the system's clock stays.
    pub fn set(&self, to: u64) {
        if let Some(ms) = &self.0 {
            ms.store(to, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_the_round_trip() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(1_735_689_600_123), "2025-01-01T00:00:00.123Z");
        assert_eq!(parse_rfc3339("2025-01-01T00:00:00.123Z"), Some(1_735_689_600_123));
        assert_eq!(parse_rfc3339("2025-01-01T09:00:00.1239+09:00"), Some(1_735_689_600_123));
        assert_eq!(rfc3339(u64::MAX), "9999-12-31T23:59:59.999Z");
        for wrong in ["", "2025-01-01", "1969-12-31T23:59:59.999Z", "2025-13-01T00:00:00Z"] {
            assert_eq!(parse_rfc3339(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_manual_clock_moves_for_all_its_clones() {
        let clock = Clock::manual(1_000);
        let other = clock.clone();
        clock.advance(Duration::from_millis(5));
        assert_eq!(other.now_ms(), 1_005);
        other.set(7);
        assert_eq!(clock.now_ms(), 7);
    }
}
