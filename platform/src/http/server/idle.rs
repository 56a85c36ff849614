//! Connections on which no request is under way. Invariant: a head is there `server.header-timeout` after its first
//! byte, or after the connection was made; one that has been answered may be quiet for `server.idle-timeout`, and while
//! connections are scarce for `server.header-timeout`.
//!
//! All of this runs in the connection's own task, right after the connection: whatever has changed there is seen before
//! the task rests. A request costs two stores, one look at the clock, and no timer.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep, sleep_until};

/// An HTTP/2 connection is ended after so long, even a busy one: its client's next one may find another gateway.
const HTTP2_LIFE: Duration = Duration::from_secs(3_600);
/// Connections are scarce when fewer than one in so many is left.
const SCARCE: usize = 8;

/// A head is waited for: the connection's first, or one that has begun.
const HEAD: u8 = 0;
/// A request is under way.
const REQUEST: u8 = 1;
/// The last answer is given, and nothing has come since.
const QUIET: u8 = 2;

/// What a connection is at. The phases are of HTTP/1; HTTP/2 only counts.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    phase: AtomicU8,
    requests: AtomicUsize,
    /// The socket takes no more of what is to be written.
    blocked: AtomicBool,
}

impl Exchange {
    /// Bytes have come.
    pub(super) fn read(&self) {
        if self.phase.load(Relaxed) == QUIET {
            self.phase.store(HEAD, Relaxed);
        }
    }

    pub(super) fn blocked(&self, blocked: bool) {
        if self.blocked.load(Relaxed) != blocked {
            self.blocked.store(blocked, Relaxed);
        }
    }

    /// A request has begun.
    pub(super) fn request(&self) {
        self.requests.store(self.requests.load(Relaxed).wrapping_add(1), Relaxed);
        self.phase.store(REQUEST, Relaxed);
    }
}

/// Held by the answer of an HTTP/1 request until the connection has all of it.
#[derive(Debug)]
pub(super) struct Answering(pub(super) Arc<Exchange>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.phase.store(QUIET, Relaxed);
    }
}

/// How long connections may wait, and how many there may be.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    pub(super) header: Duration,
    pub(super) idle: Duration,
    pub(super) permits: Arc<Semaphore>,
    /// Of permits.
    pub(super) most: usize,
}

impl Limits {
    fn are_scarce(&self) -> bool {
        self.permits.available_permits() * SCARCE < self.most
    }
}

/// Looks after one HTTP/1 connection; to be polled after it, in the same task.
#[derive(Debug)]
pub(super) struct Idle<'a> {
    exchange: Arc<Exchange>,
    limits: &'a Limits,
    /// What was seen last, and since when it is so.
    seen: (u8, usize, bool),
    since: Instant,
    /// Never more than the header timeout away, so that scarcity is noticed.
    sleep: Pin<Box<Sleep>>,
}

impl<'a> Idle<'a> {
    pub(super) fn new(exchange: Arc<Exchange>, limits: &'a Limits, since: Instant) -> Self {
        let sleep = Box::pin(sleep_until(since + limits.header));
        Self { exchange, limits, seen: (HEAD, 0, false), since, sleep }
    }

    /// None while a request is under way, or its answer.
    fn end(&mut self) -> Option<Instant> {
        let exchange = &self.exchange;
        let now =
            (exchange.phase.load(Relaxed), exchange.requests.load(Relaxed), exchange.blocked.load(Relaxed));
        if now.0 == REQUEST || now.2 {
            self.seen = now;
            return None;
        }
        if now != self.seen {
            self.seen = now;
            self.since = Instant::now();
        }
        let is_short = now.0 == HEAD || self.limits.are_scarce();
        Some(
            self.since + if is_short { self.limits.header } else { self.limits.idle.max(self.limits.header) },
        )
    }
}

impl Future for Idle<'_> {
    type Output = ();

    /// Ready when the connection has waited for too long.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        loop {
            let Some(end) = this.end() else { return Poll::Pending };
            ready!(this.sleep.as_mut().poll(cx));
            let now = Instant::now();
            if now >= end {
                return Poll::Ready(());
            }
            this.sleep.as_mut().reset(end.min(now + this.limits.header));
        }
    }
}

/// Waits until an HTTP/2 connection has been of no use for too long, or of use for long enough; true if it ever was.
pub(super) async fn http2(exchange: &Exchange, limits: &Limits, since: Instant) -> bool {
    tokio::time::sleep_until(since + limits.header).await;
    let mut before = exchange.requests.load(Relaxed);
    if before == 0 {
        return false;
    }
    while since.elapsed() < HTTP2_LIFE {
        tokio::time::sleep(limits.idle).await;
        let now = exchange.requests.load(Relaxed);
        if now == before {
            break;
        }
        before = now;
    }
    true
}

#[cfg(test)]
mod tests;
