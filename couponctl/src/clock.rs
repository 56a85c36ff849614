//! Wall time: the only place that reads its clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Since 1970.
#[expect(clippy::disallowed_methods, reason = "the tool stands alone; this is its one reading of wall time")]
pub(crate) fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO)
}

/// Unix time in milliseconds.
pub(crate) fn now_ms() -> u64 {
    whole_ms(now())
}

/// Milliseconds of a duration; half a billion years fit.
pub(crate) fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// An argument such as `1m 30s`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = |error| format!("{error}: a time is a number and a unit, such as 50ms, 20s or 5m");
    humantime::parse_duration(text).map_err(wrong)
}

/// Unix milliseconds of a time of RFC 3339 in UTC.
pub(crate) fn parse(text: &str) -> Option<u64> {
    let at = humantime::parse_rfc3339(text).ok()?;
    Some(whole_ms(at.duration_since(UNIX_EPOCH).ok()?))
}
