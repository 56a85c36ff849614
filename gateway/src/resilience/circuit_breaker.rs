//! The circuit breaker of a route, with the states and the defaults of Resilience4j, which stands behind the filter
//! CircuitBreaker in Spring.
//!
//! Invariant: while it is open nothing is sent; half open, at most so many requests are on trial at once, and a trial
//! that nobody finished (the client went away) gives its place back.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// When it opens and closes.
#[derive(Debug, Clone, PartialEq)]
pub struct BreakerSettings {
    /// Breakers of one name are one.
    pub name: String,
    /// Path of the gateway that answers in a failing service's place.
    pub fallback: Option<String>,
    /// Statuses that count as failures, beside no answer at all.
    pub statuses: BTreeSet<u16>,
    /// Answers that are looked at.
    pub window: usize,
    /// How many there have to be before anything is decided.
    pub minimum: usize,
    /// Of them, in percent, above 0.
    pub failure_rate: f64,
    /// How long it stays open.
    pub open_for: Duration,
    /// Requests that are let through to see whether it may close again.
    pub trials: usize,
    /// For one request; what takes longer has failed.
    pub time_limit: Duration,
}

impl Default for BreakerSettings {
    /// Resilience4j's own.
    fn default() -> Self {
        Self {
            name: String::new(),
            fallback: None,
            statuses: BTreeSet::new(),
            window: 100,
            minimum: 100,
            failure_rate: 50.0,
            open_for: Duration::from_secs(60),
            trials: 10,
            time_limit: Duration::from_secs(1),
        }
    }
}

/// A route's part in a breaker, which routes of one name share.
#[derive(Debug, Clone)]
pub struct Breaking {
    pub breaker: Arc<CircuitBreaker>,
    pub settings: BreakerSettings,
}

#[derive(Debug)]
pub struct CircuitBreaker {
    settings: BreakerSettings,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Closed(Window),
    Open { until: Instant },
    HalfOpen { places: usize, done: usize, failed: usize },
}

/// The last answers, true for a failure.
#[derive(Debug, Default)]
struct Window {
    failures: VecDeque<bool>,
    failed: usize,
}

/// It is open; for how long yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Open(pub Duration);

/// One request that was let through. Dropped without a verdict, it never was.
#[derive(Debug)]
pub struct Passage {
    breaker: Arc<CircuitBreaker>,
    trial: bool,
    judged: bool,
}

impl CircuitBreaker {
    #[must_use]
    pub fn new(settings: BreakerSettings) -> Arc<Self> {
        Arc::new(Self { settings, state: Mutex::new(State::Closed(Window::default())) })
    }

    /// # Errors
    /// While it is open, or enough requests are on trial.
    pub fn enter(self: &Arc<Self>) -> Result<Passage, Open> {
        let mut state = self.state.lock();
        if let State::Open { until } = *state {
            let left = until.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                return Err(Open(left));
            }
            tracing::info!(breaker = self.settings.name, "circuit breaker half open");
            *state = State::HalfOpen { places: self.settings.trials, done: 0, failed: 0 };
        }
        let trial = match &mut *state {
            State::HalfOpen { places: 0, .. } => return Err(Open(Duration::from_secs(1))),
            State::HalfOpen { places, .. } => {
                *places -= 1;
                true
            }
            State::Closed(_) | State::Open { .. } => false,
        };
        Ok(Passage { breaker: Arc::clone(self), trial, judged: false })
    }

    fn judge(&self, trial: bool, failure: bool) {
        let mut state = self.state.lock();
        let next = match &mut *state {
            State::Closed(window) if !trial => {
                window.push(failure, self.settings.window);
                (failure && self.is_too_much(window.failed, window.failures.len())).then(|| self.open())
            }
            State::HalfOpen { done, failed, .. } if trial => {
                *done += 1;
                *failed += usize::from(failure);
                (*done >= self.settings.trials).then(|| {
                    if percent(*failed, *done) >= self.settings.failure_rate {
                        self.open()
                    } else {
                        tracing::info!(breaker = self.settings.name, "circuit breaker closed");
                        State::Closed(Window::default())
                    }
                })
            }
            // It was of a state that is over.
            _ => None,
        };
        if let Some(next) = next {
            *state = next;
        }
    }

    fn is_too_much(&self, failed: usize, all: usize) -> bool {
        all >= self.settings.minimum.min(self.settings.window)
            && percent(failed, all) >= self.settings.failure_rate
    }

    fn open(&self) -> State {
        let seconds = self.settings.open_for.as_secs_f64();
        tracing::warn!(breaker = self.settings.name, seconds, "circuit breaker open");
        metrics::counter!("firstcome_gateway_circuit_opened_total", "breaker" => self.settings.name.clone())
            .increment(1);
        State::Open { until: Instant::now() + self.settings.open_for }
    }

    pub(crate) fn settings(&self) -> &BreakerSettings {
        &self.settings
    }

    /// `CLOSED`, `OPEN` or `HALF_OPEN`, for operators.
    #[must_use]
    pub fn describe(&self) -> &'static str {
        match &*self.state.lock() {
            State::Closed(_) => "CLOSED",
            State::Open { .. } => "OPEN",
            State::HalfOpen { .. } => "HALF_OPEN",
        }
    }
}

fn percent(failed: usize, all: usize) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts of a window")]
    let share = failed as f64 * 100.0 / all as f64;
    share
}

impl Window {
    fn push(&mut self, failure: bool, size: usize) {
        if self.failures.len() >= size {
            self.failed -= usize::from(self.failures.pop_front() == Some(true));
        }
        self.failures.push_back(failure);
        self.failed += usize::from(failure);
    }
}

impl Passage {
    pub fn succeeded(self) {
        self.judge(false);
    }

    pub fn failed(self) {
        self.judge(true);
    }

    fn judge(mut self, failure: bool) {
        self.judged = true;
        self.breaker.judge(self.trial, failure);
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        if self.trial
            && !self.judged
            && let State::HalfOpen { places, .. } = &mut *self.breaker.state.lock()
        {
            *places += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker(window: usize, minimum: usize, trials: usize) -> Arc<CircuitBreaker> {
        CircuitBreaker::new(BreakerSettings {
            name: "test".to_owned(),
            window,
            minimum,
            trials,
            open_for: Duration::from_secs(60),
            ..BreakerSettings::default()
        })
    }

    fn send(breaker: &Arc<CircuitBreaker>, failures: &[bool]) {
        for failure in failures {
            let passage = breaker.enter().unwrap();
            if *failure { passage.failed() } else { passage.succeeded() }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_opens_at_the_rate_and_not_before_it_has_seen_enough() {
        let breaker = breaker(4, 4, 2);
        send(&breaker, &[true, true, false]);
        assert_eq!(breaker.describe(), "CLOSED");
        send(&breaker, &[false]);
        assert_eq!(breaker.describe(), "CLOSED", "a success opens nothing");
        send(&breaker, &[true]);
        assert_eq!(breaker.enter().unwrap_err(), Open(Duration::from_secs(60)), "2 of the last 4");
        tokio::time::advance(Duration::from_secs(20)).await;
        assert_eq!(breaker.enter().unwrap_err(), Open(Duration::from_secs(40)));
    }

    #[tokio::test(start_paused = true)]
    async fn old_answers_are_forgotten() {
        let breaker = breaker(4, 4, 2);
        send(&breaker, &[true, false, false, false, true, false, false, false, true]);
        assert_eq!(breaker.describe(), "CLOSED", "1 of the last 4, each time");
    }

    #[tokio::test(start_paused = true)]
    async fn half_open_it_lets_a_few_through_and_decides_by_them() {
        let breaker = breaker(2, 2, 2);
        for (trials, then) in [([true, false], "OPEN"), ([false, false], "CLOSED")] {
            if breaker.describe() == "CLOSED" {
                send(&breaker, &[true, true]);
            }
            tokio::time::advance(Duration::from_secs(60)).await;
            let (first, second) = (breaker.enter().unwrap(), breaker.enter().unwrap());
            assert_eq!(breaker.describe(), "HALF_OPEN");
            assert!(breaker.enter().is_err(), "no third at once");
            for (passage, failure) in [first, second].into_iter().zip(trials) {
                if failure { passage.failed() } else { passage.succeeded() }
            }
            assert_eq!(breaker.describe(), then);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_trial_that_nobody_finishes_gives_its_place_back() {
        let breaker = breaker(2, 2, 1);
        let late = breaker.enter().unwrap();
        send(&breaker, &[true, true]);
        tokio::time::advance(Duration::from_secs(60)).await;
        drop(breaker.enter().unwrap());
        let trial = breaker.enter().unwrap();
        late.failed();
        assert_eq!(breaker.describe(), "HALF_OPEN", "what began before is of another time");
        trial.succeeded();
        assert_eq!(breaker.describe(), "CLOSED");
    }
}
