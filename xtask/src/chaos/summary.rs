//! The rounds of a scenario, counted together: pure.

use std::collections::BTreeMap;

use serde::Serialize;

use super::check::Promises;
use super::record::count;
use super::round::Round;
use super::statistics::{quantile, upper_bound};

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Summary {
    pub(crate) scenario: String,
    /// Those that count.
    pub(crate) rounds: u64,
    pub(crate) void: u64,
    /// Rounds in which a promise was broken.
    pub(crate) broken: u64,
    #[serde(flatten)]
    pub(crate) promises: Promises,
    pub(crate) claims: u64,
    pub(crate) answers: BTreeMap<String, u64>,
    pub(crate) gap_median_ms: Option<u64>,
    pub(crate) gap_max_ms: Option<u64>,
    pub(crate) resumed_max_ms: Option<u64>,
    /// Medians over the rounds.
    pub(crate) p99_before_ms: Option<u64>,
    pub(crate) p99_during_ms: Option<u64>,
    /// Over all rounds.
    pub(crate) slowest_ms: Option<u64>,
    /// 95 % upper bound of the probability that a round of this scenario breaks a promise.
    pub(crate) round_breaks_at_most: f64,
}

impl Summary {
    pub(crate) fn of<'a>(scenario: &str, rounds: impl Iterator<Item = &'a Round>) -> Self {
        let (counted, void): (Vec<&Round>, Vec<&Round>) = rounds.partition(|round| round.counts());
        let median = |figure: fn(&Round) -> Option<u64>| {
            let values: Vec<u64> = counted.iter().filter_map(|round| figure(round)).collect();
            quantile(&values, 0.5)
        };
        let mut answers = BTreeMap::new();
        for (name, number) in counted.iter().flat_map(|round| &round.answers) {
            *answers.entry(name.clone()).or_default() += number;
        }
        let broken = count(counted.iter().filter(|round| !round.broken.is_empty()));
        let trials = count(counted.iter());
        Self {
            scenario: scenario.to_owned(),
            rounds: trials,
            void: count(void.iter()),
            broken,
            promises: counted.iter().map(|round| round.promises).sum(),
            claims: answers.values().sum(),
            answers,
            gap_median_ms: median(|round| round.gap_ms),
            gap_max_ms: counted.iter().filter_map(|round| round.gap_ms).max(),
            resumed_max_ms: counted.iter().filter_map(|round| round.resumed_ms).max(),
            p99_before_ms: median(|round| round.p99_before_ms),
            p99_during_ms: median(|round| round.p99_during_ms),
            slowest_ms: counted.iter().filter_map(|round| round.slowest_ms).max(),
            round_breaks_at_most: upper_bound(broken, trials),
        }
    }

    /// Claims with one of these answers.
    pub(crate) fn answered(&self, names: &[&str]) -> u64 {
        names.iter().filter_map(|name| self.answers.get(*name)).sum()
    }
}

/// What all rounds together bound, each with its trials and hits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Pooled {
    pub(crate) rounds: u64,
    pub(crate) broken: u64,
    pub(crate) told_issued: u64,
    pub(crate) lost: u64,
}

impl Pooled {
    pub(crate) fn of(summaries: &[Summary]) -> Self {
        let sum = |figure: fn(&Summary) -> u64| summaries.iter().map(figure).sum();
        Self {
            rounds: sum(|it| it.rounds),
            broken: sum(|it| it.broken),
            told_issued: sum(|it| it.promises.told_issued),
            lost: sum(|it| it.promises.lost),
        }
    }

    pub(crate) fn round_breaks_at_most(&self) -> f64 {
        upper_bound(self.broken, self.rounds)
    }

    pub(crate) fn promise_lost_at_most(&self) -> f64 {
        upper_bound(self.lost, self.told_issued)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::results::tests::round;

    #[test]
    fn void_rounds_are_counted_apart() {
        let answers = |number| BTreeMap::from([("200".to_owned(), number)]);
        let mut leaky = round("a", 3);
        leaky.promises.leaked = Some(2);
        let rounds = [
            Round {
                gap_ms: Some(5),
                resumed_ms: Some(9),
                slowest_ms: Some(70),
                answers: answers(3),
                ..round("a", 1)
            },
            Round {
                void: Some("x".to_owned()),
                gap_ms: Some(900),
                slowest_ms: Some(9_000),
                answers: answers(50),
                ..round("a", 2)
            },
            Round {
                gap_ms: Some(7),
                p99_during_ms: Some(40),
                slowest_ms: Some(60),
                answers: answers(4),
                ..leaky
            },
        ];
        let summary = Summary::of("a", rounds.iter());
        assert_eq!((summary.rounds, summary.void, summary.broken), (2, 1, 0));
        assert_eq!((summary.promises.told_issued, summary.promises.rows, summary.claims), (20, 22, 7));
        assert_eq!((summary.gap_median_ms, summary.gap_max_ms), (Some(5), Some(7)));
        assert_eq!(
            (summary.promises.leaked, summary.resumed_max_ms, summary.slowest_ms),
            (Some(2), Some(9), Some(70))
        );
        assert_eq!((summary.p99_before_ms, summary.p99_during_ms), (None, Some(40)));
        assert!((summary.round_breaks_at_most - (1.0 - 0.05_f64.sqrt())).abs() < 1e-9);
    }

    #[test]
    fn a_broken_round_is_a_hit() {
        let mut broken = Round { broken: vec!["x".to_owned()], ..round("a", 1) };
        broken.promises.lost = 2;
        let summaries = [Summary::of("a", [broken].iter()), Summary::of("b", [round("b", 1)].iter())];
        assert_eq!((summaries[0].broken, summaries[1].broken), (1, 0));
        let pooled = Pooled::of(&summaries);
        assert_eq!((pooled.rounds, pooled.broken, pooled.told_issued, pooled.lost), (2, 1, 20, 2));
        assert!(pooled.round_breaks_at_most() > 0.9 && pooled.promise_lost_at_most() > 0.1);
    }
}
