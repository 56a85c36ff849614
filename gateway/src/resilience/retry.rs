//! The filter Retry, with Spring's settings, within a budget.
//!
//! Invariant: a request is sent again only if its method was named, at most so often as was said, and only while the
//! retries of its route stay a small part of its requests: whoever is down is not knocked over by the second try.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use rand::Rng as _;
use tower::retry::budget::{Budget as _, TpsBudget};

use crate::rescue::Failure;

/// Retries are paid by requests: one for each five of the last 10 s ...
const BUDGET_SHARE: f32 = 0.2;
const BUDGET_MEMORY: Duration = Duration::from_secs(10);
/// ... and so many a second in any case, for routes that are seldom used.
const BUDGET_AT_LEAST: u32 = 10;

#[derive(Debug, Clone, PartialEq)]
pub struct RetrySettings {
    /// Tries after the first.
    pub retries: u32,
    /// First digits of statuses: 5 for all of 500 to 599.
    pub series: BTreeSet<u16>,
    pub statuses: BTreeSet<u16>,
    pub methods: Vec<Method>,
    /// No answer, because the connection could not be made or broke.
    pub on_broken: bool,
    /// No answer in time.
    pub on_timeout: bool,
    pub backoff: Option<Backoff>,
    /// From the first try on: what could not begin within it is not tried.
    pub timeout: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    pub first: Duration,
    pub most: Option<Duration>,
    pub factor: f64,
    /// Each pause from the one before, as it was with its jitter.
    pub based_on_previous: bool,
    /// 0 to 1: up to so much more or less.
    pub jitter: f64,
}

impl Default for RetrySettings {
    /// Spring's own.
    fn default() -> Self {
        Self {
            retries: 3,
            series: BTreeSet::from([5]),
            statuses: BTreeSet::new(),
            methods: vec![Method::GET],
            on_broken: true,
            on_timeout: true,
            backoff: None,
            timeout: None,
        }
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(5),
            most: None,
            factor: 2.0,
            based_on_previous: true,
            jitter: 0.0,
        }
    }
}

/// The retries of one route.
#[derive(Debug, Clone)]
pub struct Retry {
    pub settings: RetrySettings,
    budget: Budget,
}

/// What a route's requests have paid for. It outlives the route's settings.
#[derive(Debug, Clone)]
pub struct Budget(Arc<TpsBudget>);

impl Default for Budget {
    fn default() -> Self {
        Self(Arc::new(TpsBudget::new(BUDGET_MEMORY, BUDGET_AT_LEAST, BUDGET_SHARE)))
    }
}

impl Retry {
    #[must_use]
    pub fn new(settings: RetrySettings, budget: Budget) -> Self {
        Self { settings, budget }
    }

    #[must_use]
    pub fn budget(&self) -> Budget {
        self.budget.clone()
    }

    #[must_use]
    pub fn is_for(&self, method: &Method) -> bool {
        self.settings.methods.contains(method)
    }

    /// A request that is sent for the first time.
    pub fn deposit(&self) {
        self.budget.0.deposit();
    }

    /// One more try, if the budget has it.
    #[must_use]
    pub fn withdraw(&self) -> bool {
        let allowed = self.budget.0.withdraw();
        if !allowed {
            metrics::counter!("firstcome_gateway_retries_over_budget_total").increment(1);
        }
        allowed
    }

    #[must_use]
    pub fn wants_status(&self, status: StatusCode) -> bool {
        let code = status.as_u16();
        self.settings.series.contains(&(code / 100)) || self.settings.statuses.contains(&code)
    }

    #[must_use]
    pub fn wants_failure(&self, failure: &Failure) -> bool {
        match failure {
            Failure::Unreachable { .. } | Failure::Broken { .. } => self.settings.on_broken,
            Failure::Silent { .. } => self.settings.on_timeout,
            // Nobody is there, or the client is to blame, or the time is over.
            _ => false,
        }
    }
}

impl Backoff {
    /// Before the try of this number, counted from 1; `previous` is the pause before.
    #[must_use]
    pub fn pause(&self, number: u32, previous: Duration) -> Duration {
        let base = if self.based_on_previous && number > 1 {
            previous.mul_f64(self.factor).max(self.first)
        } else {
            let times = i32::try_from(number.saturating_sub(1)).unwrap_or(i32::MAX);
            Duration::try_from_secs_f64(self.first.as_secs_f64() * self.factor.powi(times))
                .unwrap_or(Duration::MAX)
        };
        let most = self.most.unwrap_or(Duration::MAX);
        let base = base.min(most);
        if self.jitter == 0.0 {
            return base;
        }
        let change = rand::rng().random_range(-self.jitter..=self.jitter);
        base.mul_f64(1.0 + change).clamp(self.first.min(most), most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_by_their_factor_up_to_the_most() {
        let backoff = Backoff { most: Some(Duration::from_millis(30)), ..Backoff::default() };
        let mut pauses = Vec::new();
        let mut previous = Duration::ZERO;
        for number in 1..=5 {
            previous = backoff.pause(number, previous);
            pauses.push(previous.as_millis());
        }
        assert_eq!(pauses, [5, 10, 20, 30, 30]);
        let plain = Backoff { based_on_previous: false, factor: 3.0, ..Backoff::default() };
        assert_eq!(plain.pause(3, Duration::from_secs(9)).as_millis(), 45);
        let shaken = Backoff { jitter: 0.5, first: Duration::from_millis(100), ..Backoff::default() };
        for _ in 0..100 {
            let pause = shaken.pause(2, Duration::from_millis(100)).as_millis();
            assert!((100..=300).contains(&pause), "{pause}");
        }
    }

    #[tokio::test]
    async fn retries_are_paid_by_requests() {
        let retry = Retry::new(RetrySettings::default(), Budget::default());
        let spent = (0..1_000).filter(|_| retry.withdraw()).count();
        assert!((90..=110).contains(&spent), "what a seldom used route has: {spent}");
        for _ in 0..1_000 {
            retry.deposit();
        }
        let spent = (0..1_000).filter(|_| retry.withdraw()).count();
        assert!((190..=210).contains(&spent), "one for each five: {spent}");
    }

    #[test]
    fn only_what_was_named_is_tried_again() {
        let settings = RetrySettings { statuses: BTreeSet::from([404]), ..RetrySettings::default() };
        let retry = Retry::new(settings, Budget::default());
        assert!(retry.is_for(&Method::GET) && !retry.is_for(&Method::POST));
        for (status, wanted) in [(500, true), (503, true), (404, true), (400, false), (200, false)] {
            assert_eq!(retry.wants_status(StatusCode::from_u16(status).unwrap()), wanted, "{status}");
        }
        assert!(retry.wants_failure(&Failure::Silent { service: String::new() }));
        assert!(!retry.wants_failure(&Failure::ClientGone));
        assert!(!retry.wants_failure(&Failure::NoInstance { service: String::new() }));
    }
}
