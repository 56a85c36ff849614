//! When each claim is meant to go out: a pure schedule that all connections draw from.
//!
//! Open arrivals have a due time that does not wait for answers; a claim that goes out late because every
//! connection was busy is measured from its due time, so that a slow server cannot slow its own measurement
//! (coordinated omission). A closed loop sends whenever a connection is free.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

#[derive(Debug, Clone, Copy)]
pub(crate) enum Shape {
    /// Users arrive evenly over this time, `burst` of them at a time.
    Open { over: Duration, burst: u64 },
    /// Every connection asks again as soon as it was answered, until this time.
    Closed { until: Option<Duration> },
}

/// One attempt of one user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Job {
    /// Of the attempt, from 0.
    pub(crate) number: u64,
    /// Line of the token file, from 0.
    pub(crate) token: u64,
    /// Since the start; `None` is now.
    pub(crate) due: Option<Duration>,
}

#[derive(Debug)]
pub(crate) struct Plan {
    shape: Shape,
    users: u64,
    /// Attempts of each user, side by side.
    repeat: u64,
    /// Lines in the token file; more users than lines begin again at the top.
    tokens: u64,
    next: AtomicU64,
}

impl Plan {
    pub(crate) fn new(shape: Shape, users: u64, repeat: u64, tokens: u64) -> Self {
        Self { shape, users, repeat, tokens: tokens.max(1), next: AtomicU64::new(0) }
    }

    /// Attempts in all, if time does not end the run before.
    pub(crate) fn total(&self) -> u64 {
        self.users.saturating_mul(self.repeat)
    }

    /// The next attempt, or `None` when all were given out or the time is up.
    pub(crate) fn next(&self, elapsed: Duration) -> Option<Job> {
        if let Shape::Closed { until: Some(until) } = self.shape
            && elapsed >= until
        {
            return None;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if number >= self.total() {
            return None;
        }
        // The attempts of one user follow each other and have one due time: they go out on as many connections.
        let user = number / self.repeat;
        let due = match self.shape {
            Shape::Open { over, burst } => Some(due(over, user - user % burst, self.users)),
            Shape::Closed { .. } => None,
        };
        Some(Job { number, token: user % self.tokens, due })
    }
}

fn due(over: Duration, user: u64, users: u64) -> Duration {
    let nanos = over.as_nanos() * u128::from(user) / u128::from(users.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ramp_spreads_users_evenly_and_repeats_side_by_side() {
        let plan = Plan::new(Shape::Open { over: Duration::from_secs(20), burst: 1 }, 4, 2, 4);
        let jobs: Vec<Job> = std::iter::from_fn(|| plan.next(Duration::ZERO)).collect();
        assert_eq!(jobs.len(), 8);
        assert_eq!(jobs[0], Job { number: 0, token: 0, due: Some(Duration::ZERO) });
        assert_eq!(jobs[1], Job { number: 1, token: 0, due: Some(Duration::ZERO) });
        assert_eq!(jobs[7], Job { number: 7, token: 3, due: Some(Duration::from_secs(15)) });
    }

    #[test]
    fn a_burst_arrives_at_once_and_the_rate_stays() {
        let plan = Plan::new(Shape::Open { over: Duration::from_secs(10), burst: 2 }, 5, 1, 5);
        let due = std::iter::from_fn(|| plan.next(Duration::ZERO)).filter_map(|job| job.due);
        let seconds: Vec<u64> = due.map(|due| due.as_secs()).collect();
        assert_eq!(seconds, [0, 0, 4, 4, 8]);
    }

    #[test]
    fn a_closed_loop_ends_with_its_users_or_its_time() {
        let plan = Plan::new(Shape::Closed { until: Some(Duration::from_secs(1)) }, 3, 1, 2);
        assert_eq!(plan.next(Duration::ZERO).unwrap().due, None);
        assert!(plan.next(Duration::from_secs(1)).is_none());
        assert_eq!(plan.next(Duration::ZERO).unwrap().token, 1);
        assert_eq!(plan.next(Duration::ZERO).unwrap().token, 0); // the file begins again
        assert!(plan.next(Duration::ZERO).is_none());
    }
}
