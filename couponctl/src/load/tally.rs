//! What is counted: live counters that the display reads, and percentiles that each thread keeps for itself.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;

use super::outcome::{Judged, Outcome};

/// The longest latency that is told apart, in microseconds: an hour.
const LONGEST_US: u64 = 3_600_000_000;

#[derive(Debug, Default)]
pub(crate) struct Live {
    pub(crate) sent: AtomicU64,
    in_flight: AtomicU64,
    in_flight_max: AtomicU64,
    outcomes: [AtomicU64; 8],
}

impl Live {
    /// Requests in flight with this one.
    pub(crate) fn begin(&self) -> u64 {
        self.sent.fetch_add(1, Ordering::Relaxed);
        let now = self.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        self.in_flight_max.fetch_max(now, Ordering::Relaxed);
        now
    }

    pub(crate) fn end(&self, outcome: Outcome) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.outcomes[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count(&self, outcome: Outcome) -> u64 {
        self.outcomes[outcome as usize].load(Ordering::Relaxed)
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(crate) fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(crate) fn in_flight_max(&self) -> u64 {
        self.in_flight_max.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Second {
    pub(crate) sent: u64,
    pub(crate) answered: u64,
    pub(crate) issued: u64,
}

#[derive(Debug)]
pub(crate) struct Tally {
    /// From the due time, of everything that was answered; microseconds.
    pub(crate) latency: Histogram<u64>,
    /// From the actual sending.
    pub(crate) service: Histogram<u64>,
    pub(crate) refused: BTreeMap<String, u64>,
    /// Why answers are missing, the first few kinds.
    pub(crate) failures: BTreeMap<String, u64>,
    pub(crate) seconds: Vec<Second>,
    /// Requests that one gateway had no connection for, and another one answered.
    pub(crate) elsewhere: u64,
    /// What became of the PENDING: issued, none, still unknown.
    pub(crate) followed: [u64; 3],
}

impl Tally {
    pub(crate) fn new() -> Result<Self, hdrhistogram::CreationError> {
        Ok(Self {
            latency: Histogram::new_with_bounds(1, LONGEST_US, 3)?,
            service: Histogram::new_with_bounds(1, LONGEST_US, 3)?,
            refused: BTreeMap::new(),
            failures: BTreeMap::new(),
            seconds: Vec::new(),
            elsewhere: 0,
            followed: [0; 3],
        })
    }

    pub(crate) fn sent(&mut self, at: Duration) {
        self.second(at).sent += 1;
    }

    pub(crate) fn answered(&mut self, at: Duration, latency: Duration, service: Duration, judged: &Judged) {
        self.latency.saturating_record(micros(latency));
        self.service.saturating_record(micros(service));
        let issued = judged.outcome == Outcome::Issued;
        let second = self.second(at);
        second.answered += 1;
        second.issued += u64::from(issued);
        if let Some(code) = &judged.code {
            count(&mut self.refused, code);
        }
    }

    pub(crate) fn failed(&mut self, reason: &str) {
        count(&mut self.failures, reason);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        // Equal bounds, so this cannot fail.
        let _ = self.latency.add(&other.latency);
        let _ = self.service.add(&other.service);
        for (mine, theirs) in [(&mut self.refused, &other.refused), (&mut self.failures, &other.failures)] {
            for (key, number) in theirs {
                *mine.entry(key.clone()).or_default() += number;
            }
        }
        self.elsewhere += other.elsewhere;
        if self.seconds.len() < other.seconds.len() {
            self.seconds.resize(other.seconds.len(), Second::default());
        }
        for (mine, theirs) in self.seconds.iter_mut().zip(&other.seconds) {
            mine.sent += theirs.sent;
            mine.answered += theirs.answered;
            mine.issued += theirs.issued;
        }
        for (mine, theirs) in self.followed.iter_mut().zip(other.followed) {
            *mine += theirs;
        }
    }

    fn second(&mut self, at: Duration) -> &mut Second {
        let index = usize::try_from(at.as_secs()).unwrap_or_default();
        if self.seconds.len() <= index {
            self.seconds.resize(index + 1, Second::default());
        }
        &mut self.seconds[index]
    }
}

/// Kinds of things are few; a peer that invents them must not fill the memory.
fn count(kinds: &mut BTreeMap<String, u64>, kind: &str) {
    if let Some(number) = kinds.get_mut(kind) {
        *number += 1;
    } else {
        let kind = if kinds.len() < 50 { kind } else { "OTHER" };
        *kinds.entry(kind.to_owned()).or_default() += 1;
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_values() {
        let judged = Judged::bare(Outcome::Issued);
        let mut all = Tally::new().unwrap();
        for half in [1..=500, 501..=1_000] {
            let mut tally = Tally::new().unwrap();
            for ms in half {
                let latency = Duration::from_millis(ms);
                tally.sent(Duration::ZERO);
                tally.answered(latency, latency, Duration::from_millis(1), &judged);
            }
            all.merge(&tally);
        }
        for (quantile, ms) in [(0.5, 500_000), (0.9, 900_000), (0.99, 990_000), (1.0, 1_000_000)] {
            let value = all.latency.value_at_quantile(quantile);
            assert!(value.abs_diff(ms) <= ms / 1_000 + 1, "{quantile}: {value}");
        }
        assert_eq!(all.seconds.len(), 2);
        assert_eq!((all.seconds[0].sent, all.seconds[0].issued, all.seconds[1].issued), (1_000, 999, 1));
    }

    #[test]
    fn kinds_are_bounded() {
        let mut kinds = BTreeMap::new();
        (0..100).for_each(|kind| count(&mut kinds, &format!("K{kind:03}")));
        assert_eq!((kinds.len(), kinds["OTHER"]), (51, 50));
    }
}
