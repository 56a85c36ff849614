//! Which instance of a service a request goes to.
//!
//! Invariant: one snapshot of the instances, replaced as a whole, is all that a request looks at. An
//! instance that refuses connections is avoided from the first refusal on, unless all would be. One that fails much
//! more than the others is ejected for a while, but never more than half of them, and none if few would be left.

pub mod endpoint;
pub mod p2c;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use platform::consul::Instance;
use rand::Rng as _;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::Instant;

use endpoint::{Address, Endpoint, Nanos};

/// So many broken answers in a row, without a good one between, and an instance is avoided: one alone
/// may be the request's fault, and no client shall be able to talk an instance out of the rotation.
const FAILURES_IN_A_ROW: u32 = 5;
/// An instance is ejected if this share of its answers fails, or breaks off, or does not come ...
const EJECTION_RATE: f64 = 0.2;
/// ... and so many times the others' share: what fails everywhere is nobody's fault, and leaving out helps nobody.
const WORSE_THAN_OTHERS: f64 = 2.0;
/// ... judged by so many answers at least.
const EJECTION_ANSWERS: u32 = 20;
/// The next ejections last twice as long each, up to so many times the first.
const LONGEST_EJECTION: u32 = 16;
/// An instance that did well for so many answers is as good as any.
const FORGIVEN_AFTER: u32 = 1_000;

/// How instances are chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BalanceSettings {
    /// How long an instance that refuses connections is left out, and one that fails at first.
    pub avoid_for: Duration,
    /// How long a new or returning instance takes to its whole share.
    pub slow_start: Duration,
    /// Instances of this zone are preferred while one of them can be had; empty for none.
    pub zone: String,
}

/// An instance as discovery or a file names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    pub id: String,
    pub address: Address,
    pub tls: bool,
    /// Relative to the others'.
    pub weight: u32,
    pub zone: String,
}

impl From<&Instance> for Known {
    fn from(instance: &Instance) -> Self {
        Self {
            id: instance.id.clone(),
            address: Address::Socket(instance.address),
            tls: false,
            weight: instance.weight,
            zone: instance.zone.clone(),
        }
    }
}

impl Known {
    fn is(&self, endpoint: &Endpoint) -> bool {
        endpoint.id() == self.id
            && *endpoint.address() == self.address
            && endpoint.is_tls() == self.tls
            && endpoint.weight() == f64::from(self.weight)
            && endpoint.zone() == self.zone
    }
}

#[derive(Debug)]
pub struct Balancer {
    service: Arc<str>,
    endpoints: ArcSwap<Vec<Arc<Endpoint>>>,
    updated: Notify,
    settings: BalanceSettings,
    started: Instant,
}

impl Balancer {
    #[must_use]
    pub fn new(service: &str, settings: BalanceSettings) -> Self {
        Self {
            service: service.into(),
            endpoints: ArcSwap::default(),
            updated: Notify::new(),
            settings,
            started: Instant::now(),
        }
    }

    pub fn service(&self) -> &str {
        &self.service
    }

    /// Takes over what is known now. Instances that stay keep what was learnt about them.
    pub fn update(&self, instances: impl IntoIterator<Item = Known>) {
        let before = self.endpoints.load();
        let next = instances
            .into_iter()
            .filter(|known| known.weight > 0) // weight 0 is how an operator drains an instance
            .map(|known| {
                let old = before.iter().find(|old| known.is(old));
                old.map_or_else(|| self.welcome(known, before.is_empty()), Arc::clone)
            })
            .collect();
        self.endpoints.store(Arc::new(next));
        self.updated.notify_waiters();
    }

    /// The first instances have to take all there is; a later one finds others that can do without it for a while.
    fn welcome(&self, known: Known, first: bool) -> Arc<Endpoint> {
        let endpoint = Endpoint::new(known);
        if !first {
            endpoint.warm_up(self.now());
        }
        Arc::new(endpoint)
    }

    /// An instance that is not among those `tried`, of the own zone if there is one. One that is avoided only if there
    /// is no other.
    pub fn pick(&self, tried: &[Arc<Endpoint>]) -> Option<Arc<Endpoint>> {
        let endpoints = self.endpoints.load();
        let now = self.now();
        let rng = &mut rand::rng();
        let untried = |endpoint: &Endpoint| !tried.iter().any(|other| other.key() == endpoint.key());
        let panic = is_panic(&endpoints, now);
        let healthy = |endpoint: &Endpoint| {
            untried(endpoint) && !endpoint.is_avoided(now) && (panic || !endpoint.is_ejected(now))
        };
        // One draw for all, so that an instance is in or out of this request's choice as a whole.
        let draw: f64 = rng.random();
        let warm =
            |endpoint: &Endpoint| healthy(endpoint) && endpoint.warmth(now, self.settings.slow_start) > draw;
        let zone = &self.settings.zone;
        let near = |endpoint: &Endpoint| !zone.is_empty() && endpoint.zone() == zone && warm(endpoint);
        p2c::pick(&endpoints, now, near, rng)
            .or_else(|| p2c::pick(&endpoints, now, warm, rng))
            .or_else(|| p2c::pick(&endpoints, now, healthy, rng))
            .or_else(|| p2c::pick(&endpoints, now, untried, rng))
            .cloned()
    }

    pub fn is_empty(&self) -> bool {
        self.endpoints.load().is_empty()
    }

    /// Waits until an instance is known.
    pub async fn populated(&self) {
        loop {
            let updated = self.updated.notified(); // before the look, so that no update is missed
            if !self.is_empty() {
                return;
            }
            updated.await;
        }
    }

    /// A response head arrived; `failed` if it says that the instance could not do it (5xx).
    pub fn answered(&self, endpoint: &Endpoint, took: Duration, failed: bool) {
        endpoint.observe(took, self.now());
        self.judge(endpoint, failed);
    }

    /// What ends while an instance is ejected was as a rule begun before, and would spoil the record that it comes back
    /// with.
    fn judge(&self, endpoint: &Endpoint, failed: bool) {
        if endpoint.is_ejected(self.now()) {
            return;
        }
        let (rate, answers) = endpoint.judge(failed);
        if failed && rate >= EJECTION_RATE && answers >= EJECTION_ANSWERS {
            self.eject(endpoint, rate);
        } else if answers == FORGIVEN_AFTER {
            endpoint.forgive();
        }
    }

    fn eject(&self, endpoint: &Endpoint, rate: f64) {
        let (endpoints, now) = (self.endpoints.load(), self.now());
        if endpoint.is_ejected(now) {
            return;
        }
        let others = endpoints.iter().filter(|other| other.key() != endpoint.key());
        let (mut count, mut rates, mut ejected) = (0_u32, 0.0, 0_u32);
        let mut judged = 0_u32;
        for other in others {
            count += 1;
            ejected += u32::from(other.is_ejected(now));
            // Only who answers now, and has answered enough, is somebody to compare with.
            if !other.is_ejected(now) && other.answers() >= EJECTION_ANSWERS {
                judged += 1;
                rates += other.failure_rate();
            }
        }
        // Half of them stay, and with two that is one.
        let too_many = (ejected + 1) * 2 > count + 1;
        if judged == 0 || too_many || rate < WORSE_THAN_OTHERS * rates / f64::from(judged) {
            return;
        }
        let times = 1_u32.checked_shl(endpoint.ejections()).unwrap_or(LONGEST_EJECTION).min(LONGEST_EJECTION);
        let time = self.settings.avoid_for * times;
        tracing::warn!(
            service.name = %self.service,
            upstream.instance = endpoint.id(),
            upstream.address = %endpoint.address(),
            seconds = time.as_secs_f64(),
            failure.rate = rate,
            "instance ejected",
        );
        metrics::counter!("firstcome_gateway_ejections_total", "service" => self.service.to_string())
            .increment(1);
        endpoint.eject(now + nanos(time));
    }

    /// No connection could be made: nothing was sent, and the next one would fail too.
    pub fn unreachable(&self, endpoint: &Endpoint) {
        self.count("unreachable");
        self.avoid(endpoint, "no connection");
    }

    /// A connection broke or stayed silent with a request on it. Good answers in between hide it from the count in a row,
    /// but not from the share.
    pub fn broke(&self, endpoint: &Endpoint, kind: &'static str) {
        self.count(kind);
        if endpoint.failed() >= FAILURES_IN_A_ROW {
            self.avoid(endpoint, "broken answers in a row");
        }
        self.judge(endpoint, true);
    }

    /// There was none to ask.
    pub fn nobody(&self) {
        self.count("absent");
    }

    fn count(&self, kind: &'static str) {
        metrics::counter!(
            "firstcome_gateway_upstream_failures_total", "upstream" => self.service.to_string(), "kind" => kind
        )
        .increment(1);
    }

    fn avoid(&self, endpoint: &Endpoint, reason: &'static str) {
        let now = self.now();
        if !endpoint.is_avoided(now) {
            tracing::warn!(
                service.name = %self.service,
                upstream.instance = endpoint.id(),
                upstream.address = %endpoint.address(),
                seconds = self.settings.avoid_for.as_secs_f64(),
                reason,
                "instance avoided",
            );
        }
        endpoint.avoid_until(now + nanos(self.settings.avoid_for));
    }

    pub fn describe(&self) -> Value {
        let now = self.now();
        let endpoints = self.endpoints.load();
        endpoints
            .iter()
            .map(|endpoint| {
                json!({
                    "service": *self.service,
                    "instance": endpoint.id(),
                    "address": endpoint.address().to_string(),
                    "weight": endpoint.weight(),
                    "inFlight": endpoint.in_flight(),
                    "costMicros": (endpoint.cost(now) / 1e3).round(),
                    "avoided": endpoint.is_avoided(now),
                    "ejected": endpoint.is_ejected(now),
                    "failureRate": (endpoint.failure_rate() * 1e3).round() / 1e3,
                    "zone": endpoint.zone(),
                    "warmth": endpoint.warmth(now, self.settings.slow_start),
                })
            })
            .collect()
    }

    fn now(&self) -> Nanos {
        nanos(self.started.elapsed())
    }
}

/// Whether so few are left that failing ones are better than none: less than half of all.
fn is_panic(endpoints: &[Arc<Endpoint>], now: Nanos) -> bool {
    let ejected = endpoints.iter().filter(|endpoint| endpoint.is_ejected(now)).count();
    let left =
        endpoints.iter().filter(|endpoint| !endpoint.is_ejected(now) && !endpoint.is_avoided(now)).count();
    ejected > 0 && left * 2 < endpoints.len()
}

fn nanos(duration: Duration) -> Nanos {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
