//! Medians, averages and percentiles.

use std::time::Duration;

/// How long each claim of a load took.
#[derive(Debug, Clone, Default)]
pub(crate) struct Latencies {
    /// Microseconds; sorted by [`Latencies::of`].
    sorted: Vec<u32>,
}

impl Latencies {
    pub(crate) fn of(slices: impl IntoIterator<Item = Vec<u32>>) -> Self {
        let mut sorted: Vec<u32> = slices.into_iter().flatten().collect();
        sorted.sort_unstable();
        Self { sorted }
    }

    pub(crate) fn average_ms(&self) -> f64 {
        let sum: u64 = self.sorted.iter().map(|micros| u64::from(*micros)).sum();
        sum as f64 / self.sorted.len() as f64 / 1_000.0
    }

    /// The smallest that so great a share does not exceed.
    pub(crate) fn percentile_ms(&self, share: f64) -> f64 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index of the list")]
        let index = (share * self.sorted.len() as f64).ceil() as usize;
        self.sorted.get(index.max(1) - 1).map_or(f64::NAN, |micros| f64::from(*micros) / 1_000.0)
    }
}

pub(crate) fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

pub(crate) fn per_second(count: u64, taken: Duration) -> f64 {
    count as f64 / taken.as_secs_f64()
}

/// Of an even number the mean of the two in the middle.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => sorted[count / 2],
        count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
    }
}

/// `lowest to highest`.
pub(crate) fn range(values: &[f64], show: impl Fn(f64) -> String) -> String {
    let (low, high) = values
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (value.min(low), value.max(high)));
    format!("{} to {}", show(low), show(high))
}

/// With thousands apart.
pub(crate) fn whole(value: f64) -> String {
    let digits = format!("{value:.0}");
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap_or("?")).collect();
    groups.join(",")
}

pub(crate) fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let latencies = Latencies::of([vec![3_000, 1_000], vec![2_000, 4_000]]);
        assert_eq!(latencies.average_ms(), 2.5);
        let of = |share| latencies.percentile_ms(share);
        assert_eq!([of(0.5), of(0.51), of(0.99), of(1.0)], [2.0, 3.0, 4.0, 4.0]);
        assert!(Latencies::default().percentile_ms(0.5).is_nan());
    }

    #[test]
    fn medians_and_ranges() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(range(&[2_000.0, 1_000_000.0, 3.0], whole), "3 to 1,000,000");
    }
}
