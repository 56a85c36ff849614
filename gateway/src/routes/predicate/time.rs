//! Times of day in a route file.

use ::time::OffsetDateTime;
use ::time::format_description::well_known::{Iso8601, Rfc3339};

/// Unix milliseconds, from RFC 3339 (Java's zone in brackets behind the offset is passed over: the offset says it) or
/// from the milliseconds themselves.
#[must_use]
pub fn parse(text: &str) -> Option<u64> {
    let text = text.trim();
    if let Ok(millis) = text.parse() {
        return Some(millis);
    }
    let text = text.split('[').next().unwrap_or_default();
    let time = OffsetDateTime::parse(text, &Rfc3339)
        .or_else(|_| OffsetDateTime::parse(text, &Iso8601::DEFAULT))
        .ok()?;
    u64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn springs_forms_are_read() {
        let expected = Some(1_484_959_367_789);
        for text in [
            "2017-01-20T17:42:47.789-07:00[America/Denver]",
            "2017-01-20T17:42:47.789-07:00",
            "2017-01-21T00:42:47.789Z",
            "1484959367789",
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
        assert_eq!(parse("2017-01-20T17:42-07:00"), Some(1_484_959_320_000), "seconds may be missing");
        for text in ["", "tomorrow", "2017-01-20", "2017-01-20T17:42:47[America/Denver]", "-5"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
