//! Medians, percentiles, and how they are written.

use std::time::Duration;

/// The smallest latency that so great a share does not exceed, in milliseconds. Sorts.
pub(crate) fn percentile_ms(micros: &mut [u32], share: f64) -> f64 {
    micros.sort_unstable();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index of the list")]
    let index = (share * micros.len() as f64).ceil() as usize;
    micros.get(index.max(1) - 1).map_or(f64::NAN, |micros| f64::from(*micros) / 1_000.0)
}

/// Of an even number the mean of the two in the middle.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => sorted[count / 2],
        count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
    }
}

/// Microseconds for each of so many.
pub(crate) fn micros_each(time: Duration, count: usize) -> f64 {
    time.as_secs_f64() * 1e6 / count as f64
}

/// With thousands apart.
pub(crate) fn whole(value: f64) -> String {
    let digits = format!("{value:.0}");
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap_or("?")).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let mut latencies = [3_000, 1_000, 4_000, 2_000];
        let of = [0.5, 0.51, 0.99, 1.0].map(|share| percentile_ms(&mut latencies, share));
        assert_eq!(of, [2.0, 3.0, 4.0, 4.0]);
        assert!(percentile_ms(&mut [], 0.5).is_nan());
    }

    #[test]
    fn medians_and_thousands() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(whole(1_234_567.4), "1,234,567");
        assert_eq!(micros_each(Duration::from_secs(1), 20_000), 50.0);
    }
}
