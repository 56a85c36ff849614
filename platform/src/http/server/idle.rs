//! HTTP/1 connections on which no request is under way. Invariant: a head is there `server.header-timeout` after its
//! first byte, or after the connection was made; one that has been answered may be quiet for `server.idle-timeout`, and
//! while connections are scarce for `server.header-timeout`.
//!
//! All of this runs in the connection's own task, right after the connection: whatever has changed there is seen before
//! the task rests. A request costs some stores, one look at the clock, and no timer.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep, sleep_until};

/// Connections are scarce when fewer than one in so many is left.
const SCARCE: usize = 8;
/// A connection that is quiet for so long is put to rest.
const REST: Duration = Duration::from_secs(2);

/// A head is waited for: the connection's first, or one that has begun.
const HEAD: u8 = 0;
/// A request is under way.
const REQUEST: u8 = 1;
/// The last answer is there, and its end is to be written.
const ANSWERED: u8 = 2;
/// It is written, and nothing has come since.
const QUIET: u8 = 3;

/// What a connection is at, told by its socket and its requests.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    phase: AtomicU8,
    requests: AtomicUsize,
    /// Of the last request's body there may be more to come.
    is_asking: AtomicBool,
}

impl Exchange {
    /// Bytes have come.
    pub(super) fn read(&self) {
        if matches!(self.phase.load(Relaxed), ANSWERED | QUIET) {
            self.phase.store(HEAD, Relaxed);
        }
    }

    /// All that was to be written is.
    pub(super) fn flushed(&self) {
        if self.phase.load(Relaxed) == ANSWERED {
            self.phase.store(QUIET, Relaxed);
        }
    }

    /// A request has come; its body, and what its answer has to hold.
    pub(super) fn begin<B: Body>(self: &Arc<Self>, body: B) -> (Asking<B>, Answering) {
        self.requests.store(self.requests.load(Relaxed).wrapping_add(1), Relaxed);
        self.phase.store(REQUEST, Relaxed);
        self.is_asking.store(!body.is_end_stream(), Relaxed);
        (Asking { body, exchange: Arc::clone(self) }, Answering(Arc::clone(self)))
    }
}

/// A request's body. One that is let go before its end stays open.
#[derive(Debug)]
pub(super) struct Asking<B> {
    body: B,
    exchange: Arc<Exchange>,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Asking<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_none() || self.body.is_end_stream() {
            self.exchange.is_asking.store(false, Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Held by an answer until the connection has all of it.
#[derive(Debug)]
pub(super) struct Answering(Arc<Exchange>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.phase.store(ANSWERED, Relaxed);
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It has waited for too long.
    Over,
    /// Nothing is under way in either direction, and hasn't been for some time.
    Rest,
}

/// Looks after one connection.
#[derive(Debug)]
pub(super) struct Idle<'a> {
    exchange: Arc<Exchange>,
    limits: &'a Limits,
    /// Phase and requests that were seen last, and since when it is so.
    seen: (u8, usize),
    since: Instant,
    /// Never more than the header timeout away, so that scarcity is noticed.
    sleep: Pin<Box<Sleep>>,
}

impl<'a> Idle<'a> {
    pub(super) fn new(exchange: Arc<Exchange>, limits: &'a Limits, since: Instant) -> Self {
        let sleep = Box::pin(sleep_until(since + limits.header));
        Self { exchange, limits, seen: (HEAD, 0), since, sleep }
    }

    /// When it will have waited for too long; none while a request is under way, or its answer.
    fn end(&mut self) -> Option<Instant> {
        let now = (self.exchange.phase.load(Relaxed), self.exchange.requests.load(Relaxed));
        if now != self.seen {
            self.seen = now;
            self.since = Instant::now();
        }
        match now.0 {
            HEAD => Some(self.since + self.limits.header),
            QUIET if self.limits.are_scarce() => Some(self.since + self.limits.header),
            QUIET => Some(self.since + self.limits.idle.max(self.limits.header)),
            _ => None,
        }
    }

    /// To be polled after the connection, in the same task. One that rests already is only ended.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, rests: bool) -> Poll<Verdict> {
        loop {
            let Some(end) = self.end() else { return Poll::Pending };
            ready!(self.sleep.as_mut().poll(cx));
            let now = Instant::now();
            if now >= end {
                return Poll::Ready(Verdict::Over);
            }
            let mut next = end.min(now + self.limits.header);
            if !rests && self.seen.0 == QUIET && !self.exchange.is_asking.load(Relaxed) {
                let rest = self.since + REST;
                if now >= rest {
                    return Poll::Ready(Verdict::Rest);
                }
                next = next.min(rest);
            }
            self.sleep.as_mut().reset(next);
        }
    }
}

#[cfg(test)]
mod tests;
