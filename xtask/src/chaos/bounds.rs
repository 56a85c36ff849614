//! What clients may notice at most, where we have set ourselves a bound. A machine that is too slow for it breaks no
//! promise, so nothing fails by it.

use super::summary::Summary;

pub(crate) struct Bound {
    pub(crate) scenario: &'static str,
    pub(crate) what: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) at_most: f64,
    of: fn(&Summary) -> Option<f64>,
}

impl Bound {
    /// The figure, where the rounds have one.
    pub(crate) fn figure(&self, summary: &Summary) -> Option<f64> {
        (self.of)(summary).filter(|_| summary.rounds > 0)
    }
}

const REDIS_KILLED: &str = "redis-master-kill";
const REDIS_AWAY: &str = "redis-away-60s";
const KAFKA_STOPPED: &str = "kafka-stop";

pub(crate) static ALL: [Bound; 10] = [
    unanswered(REDIS_KILLED),
    unsettled(REDIS_KILLED),
    gap(REDIS_KILLED),
    p99(REDIS_KILLED),
    unanswered(REDIS_AWAY),
    unsettled(REDIS_AWAY),
    gap(REDIS_AWAY),
    p99(REDIS_AWAY),
    Bound {
        scenario: KAFKA_STOPPED,
        what: "slowest answer",
        unit: "ms",
        at_most: 2_500.0,
        of: |it| it.slowest_ms.map(float),
    },
    Bound {
        scenario: KAFKA_STOPPED,
        what: "claims resume after",
        unit: "ms",
        at_most: 1_000.0,
        of: |it| it.resumed_max_ms.map(float),
    },
];

const fn unanswered(scenario: &'static str) -> Bound {
    let of = |it: &Summary| Some(float(it.answered(&["none", "not sent"])));
    Bound { scenario, what: "claims without an answer", unit: "", at_most: 0.0, of }
}

const fn unsettled(scenario: &'static str) -> Bound {
    let of = |it: &Summary| Some(100.0 * float(it.answered(&["202", "503"])) / float(it.claims.max(1)));
    Bound { scenario, what: "claims answered 202 or 503", unit: "%", at_most: 0.1, of }
}

const fn gap(scenario: &'static str) -> Bound {
    let of = |it: &Summary| it.gap_max_ms.map(float);
    Bound { scenario, what: "longest gap", unit: "ms", at_most: 300.0, of }
}

const fn p99(scenario: &'static str) -> Bound {
    let of = |it: &Summary| it.p99_during_ms.map(float);
    Bound { scenario, what: "p99 during it", unit: "ms", at_most: 500.0, of }
}

#[expect(clippy::cast_precision_loss, reason = "shown to a few digits")]
fn float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::results::tests::round;
    use crate::chaos::round::Round;
    use crate::chaos::scenario;

    #[test]
    fn each_is_of_a_scenario() {
        for bound in &ALL {
            assert!(scenario::ALL.iter().any(|it| it.name == bound.scenario), "{}", bound.scenario);
        }
    }

    #[test]
    fn figures_are_of_all_rounds_that_count() {
        let answers = [("200", 1_996), ("202", 1), ("503", 2), ("none", 1)];
        let answers = answers.map(|(name, number)| (name.to_owned(), number)).into();
        let struck = Round {
            answers,
            gap_ms: Some(70),
            resumed_ms: Some(5),
            p99_during_ms: Some(90),
            slowest_ms: Some(400),
            ..round(REDIS_KILLED, 1)
        };
        let figures = |summary: &Summary, of: &str| -> Vec<Option<f64>> {
            ALL.iter().filter(|it| it.scenario == of).map(|it| it.figure(summary)).collect()
        };
        let summary = Summary::of(REDIS_KILLED, [struck].iter());
        assert_eq!(figures(&summary, REDIS_KILLED), [Some(1.0), Some(0.15), Some(70.0), Some(90.0)]);
        assert_eq!(figures(&summary, KAFKA_STOPPED), [Some(400.0), Some(5.0)]);
        let none = Summary::of(REDIS_KILLED, std::iter::empty::<&Round>());
        assert_eq!(figures(&none, REDIS_KILLED), [None; 4]);
    }
}
