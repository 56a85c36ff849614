//! Which instance of a service a request goes to.
//!
//! Invariant: one snapshot of the instances, replaced as a whole, is all that a request looks at. An
//! instance that refuses connections is avoided from the first refusal on, unless all would be.

pub mod endpoint;
pub mod p2c;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use platform::consul::Instance;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::Instant;

use endpoint::{Address, Endpoint, Nanos};

/// So many broken answers in a row, without a good one between, and an instance is avoided: one alone
/// may be the request's fault, and no client shall be able to talk an instance out of the rotation.
const FAILURES_IN_A_ROW: u32 = 5;

#[derive(Debug)]
pub struct Balancer {
    service: Arc<str>,
    endpoints: ArcSwap<Vec<Arc<Endpoint>>>,
    updated: Notify,
    avoid_for: Duration,
    started: Instant,
}

impl Balancer {
    /// `avoid_for`: how long an instance that refuses connections is left out.
    pub fn new(service: &str, avoid_for: Duration) -> Self {
        Self {
            service: service.into(),
            endpoints: ArcSwap::default(),
            updated: Notify::new(),
            avoid_for,
            started: Instant::now(),
        }
    }

    /// For a fixed address.
    pub fn fixed(address: Address, avoid_for: Duration) -> Self {
        let name = address.to_string();
        let balancer = Self::new(&name, avoid_for);
        balancer.endpoints.store(Arc::new(vec![Arc::new(Endpoint::new(name, address, 1.0))]));
        balancer
    }

    pub fn service(&self) -> &str {
        &self.service
    }

    /// Takes over what discovery knows now. Instances that stay keep what was learnt about them.
    pub fn update(&self, instances: &[Instance]) {
        let known = self.endpoints.load();
        let next = instances
            .iter()
            .filter(|instance| instance.weight > 0) // weight 0 is how an operator drains an instance
            .map(|instance| {
                let address = Address::Socket(instance.address);
                let weight = f64::from(instance.weight);
                known
                    .iter()
                    .find(|old| {
                        old.id() == instance.id && *old.address() == address && old.weight() == weight
                    })
                    .map_or_else(|| Arc::new(Endpoint::new(instance.id.clone(), address, weight)), Arc::clone)
            })
            .collect();
        self.endpoints.store(Arc::new(next));
        self.updated.notify_waiters();
    }

    /// An instance that is not among those `tried`; one that is avoided only if there is no other.
    pub fn pick(&self, tried: &[Arc<Endpoint>]) -> Option<Arc<Endpoint>> {
        let endpoints = self.endpoints.load();
        let now = self.now();
        let untried = |endpoint: &Endpoint| !tried.iter().any(|other| other.key() == endpoint.key());
        let rng = &mut rand::rng();
        p2c::pick(&endpoints, now, |endpoint| untried(endpoint) && !endpoint.is_avoided(now), rng)
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

    /// A response head arrived.
    pub fn answered(&self, endpoint: &Endpoint, took: Duration) {
        endpoint.observe(took, self.now());
    }

    /// No connection could be made: nothing was sent, and the next one would fail too.
    pub fn unreachable(&self, endpoint: &Endpoint) {
        self.avoid(endpoint, "no connection");
    }

    /// A connection broke or stayed silent with a request on it.
    pub fn broke(&self, endpoint: &Endpoint) {
        if endpoint.failed() >= FAILURES_IN_A_ROW {
            self.avoid(endpoint, "broken answers in a row");
        }
    }

    fn avoid(&self, endpoint: &Endpoint, reason: &'static str) {
        let now = self.now();
        if !endpoint.is_avoided(now) {
            tracing::warn!(
                service.name = %self.service,
                upstream.instance = endpoint.id(),
                upstream.address = %endpoint.address(),
                seconds = self.avoid_for.as_secs_f64(),
                reason,
                "instance avoided",
            );
        }
        endpoint.avoid_until(now + nanos(self.avoid_for));
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
                })
            })
            .collect()
    }

    fn now(&self) -> Nanos {
        nanos(self.started.elapsed())
    }
}

fn nanos(duration: Duration) -> Nanos {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
