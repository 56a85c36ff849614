//! One instance of a service as this gateway sees it: where it is, how fast it answers, and whether it
//! is avoided for a while.
//!
//! The figures are plain atomics, written by every worker without a lock: two updates at once may lose
//! one sample, which an average forgives.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::HeaderValue;

/// Nanoseconds since the balancer was made: what an atomic can hold of an instant.
pub type Nanos = u64;

/// How fast the past is forgotten: after this long without samples, a latency counts 37 %.
const DECAY: f64 = 10e9;
/// What an instance is thought to take while its first request is under way: much, so that it gets one
/// request to show itself before it gets its share.
const UNKNOWN: f64 = 1e9;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    Socket(SocketAddr),
    Name(String, u16),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(f),
            Self::Name(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

#[derive(Debug)]
pub struct Endpoint {
    /// Names the endpoint's idle connections in every worker's pool; never reused within the process.
    key: u64,
    id: String,
    address: Address,
    /// The `Host` header, made once.
    host: HeaderValue,
    weight: f64,
    in_flight: AtomicU32,
    latency: AtomicU64,
    latency_at: AtomicU64,
    failures: AtomicU32,
    avoided_until: AtomicU64,
}

impl Endpoint {
    /// `weight` is relative to the other instances' and above 0.
    pub fn new(id: String, address: Address, weight: f64) -> Self {
        static NEXT_KEY: AtomicU64 = AtomicU64::new(0);
        let host =
            HeaderValue::from_str(&address.to_string()).unwrap_or(HeaderValue::from_static("localhost"));
        Self {
            key: NEXT_KEY.fetch_add(1, Relaxed),
            id,
            address,
            host,
            weight,
            in_flight: AtomicU32::new(0),
            latency: AtomicU64::new(0),
            latency_at: AtomicU64::new(0),
            failures: AtomicU32::new(0),
            avoided_until: AtomicU64::new(0),
        }
    }

    pub fn key(&self) -> u64 {
        self.key
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn address(&self) -> &Address {
        &self.address
    }

    pub fn host(&self) -> &HeaderValue {
        &self.host
    }

    pub fn weight(&self) -> f64 {
        self.weight
    }

    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// The expected time until one more request would be answered, in nanoseconds, weighted.
    pub fn cost(&self, now: Nanos) -> f64 {
        let in_flight = f64::from(self.in_flight());
        let latency = self.latency(now);
        let latency = if latency == 0.0 && in_flight > 0.0 { UNKNOWN } else { latency };
        latency * (in_flight + 1.0) / self.weight
    }

    fn latency(&self, now: Nanos) -> f64 {
        f64::from_bits(self.latency.load(Relaxed)) * self.decay(now)
    }

    fn decay(&self, now: Nanos) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a share of seconds needs no 64 bits")]
        let age = now.saturating_sub(self.latency_at.load(Relaxed)) as f64;
        (-age / DECAY).exp()
    }

    /// A response head arrived after `took`: worse news count at once, better news by and by.
    pub fn observe(&self, took: Duration, now: Nanos) {
        #[expect(clippy::cast_precision_loss, reason = "latencies are far below 2^52 ns")]
        let took = took.as_nanos() as f64;
        let latency = self.latency(now);
        let latency = if took > latency {
            took
        } else {
            let decay = self.decay(now);
            latency + (took - latency) * (1.0 - decay)
        };
        self.latency.store(latency.to_bits(), Relaxed);
        self.latency_at.store(now, Relaxed);
        self.failures.store(0, Relaxed);
    }

    /// Counts one more failure without a success between; returns how many in a row.
    pub fn failed(&self) -> u32 {
        self.failures.fetch_add(1, Relaxed) + 1
    }

    pub fn avoid_until(&self, until: Nanos) {
        self.failures.store(0, Relaxed);
        self.avoided_until.fetch_max(until, Relaxed);
    }

    pub fn is_avoided(&self, now: Nanos) -> bool {
        now < self.avoided_until.load(Relaxed)
    }

    /// Counts a request as in flight until the guard is dropped, which is when its answer's body ended.
    pub fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Relaxed);
        InFlight(Arc::clone(self))
    }
}

#[derive(Debug)]
pub struct InFlight(Arc<Endpoint>);

impl InFlight {
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}
