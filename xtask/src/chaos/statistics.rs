//! The few figures that are drawn from rounds: pure.

/// Of all the bounds here.
const CONFIDENCE: f64 = 0.95;

/// The highest probability that is consistent with `hits` in `trials` (Clopper and Pearson's exact bound, one-sided,
/// 95 %); without a hit it is close to 3 / `trials`, the rule of three. Without a trial nothing is known.
pub(crate) fn upper_bound(hits: u64, trials: u64) -> f64 {
    if hits >= trials {
        return 1.0;
    }
    let (mut low, mut high) = (0.0, 1.0);
    // The chance of so few hits falls as the probability rises.
    for _ in 0..100 {
        let middle = f64::midpoint(low, high);
        if at_most(hits, trials, middle) > 1.0 - CONFIDENCE {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

/// The chance of at most `hits` in `trials`, by the binomial distribution; in logarithms, as trials may be millions.
fn at_most(hits: u64, trials: u64, probability: f64) -> f64 {
    let n = trials as f64;
    let (yes, no) = (probability.ln(), (-probability).ln_1p());
    let mut log_choose = 0.0_f64;
    let mut sum = 0.0;
    for hit in 0..=hits {
        let k = hit as f64;
        if hit > 0 {
            log_choose += ((n - k + 1.0) / k).ln();
        }
        sum += (k.mul_add(yes, (n - k) * no) + log_choose).exp();
    }
    sum
}

/// The smallest value that is not below this share of them (the nearest rank).
pub(crate) fn quantile(values: &[u64], share: f64) -> Option<u64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most the length")]
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(is: f64, must: f64) {
        assert!((is - must).abs() < 5e-5, "{is}, not {must}");
    }

    #[test]
    fn bounds_as_tables_have_them() {
        // Without a hit: 1 - 0.05^(1/n).
        close(upper_bound(0, 5), 0.450_72);
        close(upper_bound(0, 20), 0.139_11);
        close(upper_bound(0, 300), 0.009_94);
        // The 0.95 quantile of the beta distribution with hits + 1 and trials - hits.
        close(upper_bound(1, 10), 0.394_16);
        close(upper_bound(3, 100), 0.075_71);
        close(upper_bound(0, 0), 1.0);
        close(upper_bound(5, 5), 1.0);
        let rule_of_three = 3.0 / 1_000_000.0;
        assert!((upper_bound(0, 1_000_000) / rule_of_three - 1.0).abs() < 0.01);
    }

    #[test]
    fn more_rounds_tell_more() {
        let bounds: Vec<f64> = [5, 20, 100].map(|rounds| upper_bound(0, rounds)).to_vec();
        assert!(bounds.is_sorted_by(|a, b| a > b), "{bounds:?}");
        assert!(upper_bound(1, 20) > upper_bound(0, 20));
    }

    #[test]
    fn quantiles_are_values_of_theirs() {
        let values: Vec<u64> = (1..=100).rev().collect();
        assert_eq!([0.5, 0.99, 1.0].map(|share| quantile(&values, share)), [Some(50), Some(99), Some(100)]);
        assert_eq!(quantile(&[7, 1, 3], 0.5), Some(3));
        assert_eq!(quantile(&[], 0.5), None);
    }
}
