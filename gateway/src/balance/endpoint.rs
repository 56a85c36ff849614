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

use super::Known;

/// Nanoseconds since the balancer was made: what an atomic can hold of an instant.
pub type Nanos = u64;

/// How fast the past is forgotten: after this long without samples, a latency counts 37 %.
const DECAY: f64 = 10e9;
/// What an instance is thought to take while its first request is under way: much, so that it gets one
/// request to show itself before it gets its share.
const UNKNOWN: f64 = 1e9;
/// How much one answer weighs in the share of failures: as if the last 32 were looked at.
const ONE_OF: f64 = 32.0;
/// Of a new or returning instance's share of the requests, from the first moment on.
const COLDEST: f64 = 0.1;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    Socket(SocketAddr),
    Name(String, u16),
}

impl Address {
    /// IPv6 addresses come in brackets.
    #[must_use]
    pub fn of(host: &str, port: u16) -> Self {
        match host.trim_matches(['[', ']']).parse() {
            Ok(ip) => Self::Socket(SocketAddr::new(ip, port)),
            Err(_) => Self::Name(host.to_owned(), port),
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(f),
            Self::Name(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

/// As a `Host` header has it: without the port that goes without saying (RFC 9110, 4.2.1 and 4.2.2).
fn authority(address: &Address, tls: bool) -> String {
    let text = address.to_string();
    let usual = if tls { ":443" } else { ":80" };
    text.strip_suffix(usual).map_or(text.clone(), str::to_owned)
}

#[derive(Debug)]
pub struct Endpoint {
    /// Names the endpoint's idle connections in every worker's pool; never reused within the process.
    key: u64,
    id: String,
    address: Address,
    tls: bool,
    /// The `Host` header, made once.
    host: HeaderValue,
    weight: f64,
    zone: String,
    in_flight: AtomicU32,
    latency: AtomicU64,
    latency_at: AtomicU64,
    failures: AtomicU32,
    avoided_until: AtomicU64,
    /// Share of failed answers, 0 to 1, the last ones weighing most.
    failure_rate: AtomicU64,
    answers: AtomicU32,
    /// Times that it was ejected since it last did well.
    ejections: AtomicU32,
    ejected_until: AtomicU64,
    /// Since when it gets its share by and by; 0 for one that was there from the start.
    warming_since: AtomicU64,
}

impl Endpoint {
    pub fn new(known: Known) -> Self {
        static NEXT_KEY: AtomicU64 = AtomicU64::new(0);
        let Known { id, address, tls, weight, zone } = known;
        let host = HeaderValue::from_str(&authority(&address, tls));
        Self {
            key: NEXT_KEY.fetch_add(1, Relaxed),
            id,
            address,
            tls,
            host: host.unwrap_or(HeaderValue::from_static("localhost")),
            weight: f64::from(weight),
            zone,
            in_flight: AtomicU32::new(0),
            latency: AtomicU64::new(0),
            latency_at: AtomicU64::new(0),
            failures: AtomicU32::new(0),
            avoided_until: AtomicU64::new(0),
            failure_rate: AtomicU64::new(0),
            answers: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
            warming_since: AtomicU64::new(0),
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

    pub fn is_tls(&self) -> bool {
        self.tls
    }

    pub fn host(&self) -> &HeaderValue {
        &self.host
    }

    pub fn zone(&self) -> &str {
        &self.zone
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

    /// Counts an answer, or that none came; returns the share of failures and how many answers it is of.
    pub fn judge(&self, failed: bool) -> (f64, u32) {
        let rate = self.failure_rate();
        let rate = rate + (f64::from(u8::from(failed)) - rate) / ONE_OF;
        self.failure_rate.store(rate.to_bits(), Relaxed);
        (rate, self.answers.fetch_add(1, Relaxed).saturating_add(1))
    }

    pub fn answers(&self) -> u32 {
        self.answers.load(Relaxed)
    }

    pub fn failure_rate(&self) -> f64 {
        f64::from_bits(self.failure_rate.load(Relaxed))
    }

    /// Leaves it out until then. It comes back with a clean record, and slowly.
    pub fn eject(&self, until: Nanos) {
        self.ejections.fetch_add(1, Relaxed);
        self.ejected_until.fetch_max(until, Relaxed);
        self.failure_rate.store(0, Relaxed);
        self.answers.store(0, Relaxed);
    }

    pub fn is_ejected(&self, now: Nanos) -> bool {
        now < self.ejected_until.load(Relaxed)
    }

    pub fn ejections(&self) -> u32 {
        self.ejections.load(Relaxed)
    }

    /// What it did before counts no longer.
    pub fn forgive(&self) {
        self.ejections.store(0, Relaxed);
    }

    /// It is new among others that are warm.
    pub fn warm_up(&self, now: Nanos) {
        self.warming_since.store(now.max(1), Relaxed);
    }

    /// Its part of its share, 0.1 to 1, growing over `slow_start` from when it came or came back.
    pub fn warmth(&self, now: Nanos, slow_start: Duration) -> f64 {
        let back = self.ejected_until.load(Relaxed).max(self.avoided_until.load(Relaxed));
        let since = self.warming_since.load(Relaxed).max(back);
        if since == 0 {
            return 1.0;
        }
        #[expect(clippy::cast_precision_loss, reason = "a share of seconds needs no 64 bits")]
        let elapsed = now.saturating_sub(since) as f64 / 1e9;
        (elapsed / slow_start.as_secs_f64().max(1e-9)).clamp(COLDEST, 1.0)
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
