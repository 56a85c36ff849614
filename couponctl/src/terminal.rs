//! What a person sees: bars and colours, only where stderr or stdout is a terminal.

use std::time::{Duration, UNIX_EPOCH};

use console::Term;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar on stderr, or a hidden one where stderr is no terminal or nobody should look.
pub(crate) fn bar(length: u64, template: &str, quiet: bool) -> ProgressBar {
    let target = if quiet || !Term::stderr().is_term() {
        ProgressDrawTarget::hidden()
    } else {
        ProgressDrawTarget::stderr_with_hz(10)
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(length), target).with_style(style.progress_chars("━╸─"))
}

/// Of a partition that is read from its start.
pub(crate) fn replay_bar(partition: u32, records: u64) -> ProgressBar {
    let template = "reading partition {msg} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}";
    let bar = bar(records, template, false);
    bar.set_message(partition.to_string());
    bar
}

/// `1,234,567`
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Unix milliseconds as RFC 3339 in UTC; what lies beyond the year 9999 stays a number.
pub(crate) fn time(unix_ms: u64) -> String {
    if unix_ms > 253_402_300_799_999 {
        return unix_ms.to_string();
    }
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(unix_ms)).to_string()
}

/// `12.3 s`, `4m 05s`
pub(crate) fn seconds(duration: Duration) -> String {
    let whole = duration.as_secs();
    if whole < 120 {
        format!("{:.1} s", duration.as_secs_f64())
    } else {
        format!("{}m {:02}s", whole / 60, whole % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_000), "1,000");
        assert_eq!(grouped(15_000_000), "15,000,000");
    }

    #[test]
    fn times_are_utc_to_the_millisecond() {
        assert_eq!(time(1_800_000_000_123), "2027-01-15T08:00:00.123Z");
        assert_eq!(time(253_402_300_799_999), "9999-12-31T23:59:59.999Z");
        assert_eq!(time(u64::MAX), "18446744073709551615");
    }

    #[test]
    fn durations_read_well() {
        assert_eq!(seconds(Duration::from_millis(12_340)), "12.3 s");
        assert_eq!(seconds(Duration::from_secs(245)), "4m 05s");
    }
}
