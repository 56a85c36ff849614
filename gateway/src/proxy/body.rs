//! The bodies on their way through: counted, timed, never held as a whole.
//!
//! Invariants: no service receives more bytes than the limit, however the client framed them; whoever
//! stops moving is given up after the idle time; trailers, which no header hygiene has seen, end here.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep};

use super::connections::Lease;
use crate::access_log::Entry;
use crate::balance::endpoint::InFlight;
use crate::limits::Permits;

/// Bytes of a body that is too large which are read all the same: a client that is still sending when the
/// connection is closed may lose the answer that says why.
const DISCARDED: u64 = 256 * 1024;

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("the request body is larger than the limit")]
    TooLarge,
    #[error("the client stopped sending its body")]
    ClientSlow,
    #[error("the client broke off")]
    Client(#[source] axum::Error),
    #[error("the service stopped sending its body")]
    ServiceSlow,
    #[error("the service broke off")]
    Service(#[source] hyper::Error),
}

/// A timer that exists only while somebody is waited for.
#[derive(Debug)]
struct IdleTimer {
    after: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

impl IdleTimer {
    fn new(after: Duration) -> Self {
        Self { after, sleep: None, waiting: false }
    }

    fn moved(&mut self) {
        self.waiting = false;
    }

    /// Ready when nothing has moved for too long.
    fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.sleep {
            Some(sleep) if !self.waiting => sleep.as_mut().reset(Instant::now() + self.after),
            Some(_) => {}
            None => self.sleep = Some(Box::pin(sleep(self.after))),
        }
        self.waiting = true;
        self.sleep.as_mut().map_or(Poll::Pending, |sleep| sleep.as_mut().poll(cx))
    }
}

/// What a service gets to read.
#[derive(Debug)]
pub struct RequestBody {
    inner: axum::body::Body,
    left: u64,
    /// Bytes that came beyond the limit and were thrown away.
    over: u64,
    idle: IdleTimer,
    progress: Progress,
}

/// Whether the service has taken all that came of a request's body and waits for the client, so that neither is blamed
/// for the other. `None` for requests without a body, and with one that is there as a whole.
#[derive(Debug, Clone, Default)]
pub struct Progress(Option<Arc<AtomicBool>>);

impl Progress {
    pub fn waits_for_client(&self) -> bool {
        self.0.as_ref().is_some_and(|waits| waits.load(Relaxed))
    }

    fn set(&self, waits_for_client: bool) {
        if let Some(waits) = &self.0 {
            waits.store(waits_for_client, Relaxed);
        }
    }
}

impl RequestBody {
    pub fn new(inner: axum::body::Body, limit: u64, idle: Duration) -> Self {
        let progress = Progress((!inner.is_end_stream()).then(Arc::default));
        Self { inner, left: limit, over: 0, idle: IdleTimer::new(idle), progress }
    }

    /// One that is at hand as a whole, and so can be sent again.
    pub fn whole(bytes: Bytes) -> Self {
        let length = bytes.len() as u64;
        // The client has sent all of it: whoever is slow now is the service.
        Self {
            progress: Progress::default(),
            ..Self::new(axum::body::Body::from(bytes), length, Duration::ZERO)
        }
    }

    /// The same, with a limit that may be lower.
    #[must_use]
    pub fn at_most(self, limit: u64) -> Self {
        Self { left: self.left.min(limit), ..self }
    }

    pub fn empty() -> Self {
        Self::new(axum::body::Body::empty(), 0, Duration::ZERO)
    }

    /// Whether there is nothing to wait for.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.inner.is_end_stream()
    }

    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Reads it to its end for nobody.
    pub async fn drain(mut self) -> Result<(), BodyError> {
        while self.frame().await.transpose()?.is_some() {}
        Ok(())
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        loop {
            let polled = Pin::new(&mut this.inner).poll_frame(cx);
            // Whoever has a piece and does not come back for the next one is slow itself.
            this.progress.set(polled.is_pending());
            let Poll::Ready(frame) = polled else {
                ready!(this.idle.poll_expired(cx));
                return Poll::Ready(Some(Err(BodyError::ClientSlow)));
            };
            this.idle.moved();
            let data = match frame.transpose().map_err(BodyError::Client)?.map(Frame::into_data) {
                Some(Ok(data)) => data,
                Some(Err(_)) | None if this.over > 0 => return Poll::Ready(Some(Err(BodyError::TooLarge))),
                Some(Err(_)) | None => return Poll::Ready(None),
            };
            let length = data.len() as u64;
            match this.left.checked_sub(length) {
                Some(left) if this.over == 0 => {
                    this.left = left;
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                _ => {
                    this.over += length;
                    if this.over > DISCARDED {
                        return Poll::Ready(Some(Err(BodyError::TooLarge)));
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// What a client gets to read, and all that has to last until it has read it.
#[derive(Debug)]
pub struct ResponseBody {
    inner: Incoming,
    idle: IdleTimer,
    held: Option<Held>,
}

#[derive(Debug)]
pub struct Held {
    pub lease: Lease,
    pub in_flight: InFlight,
    pub permits: Permits,
    pub entry: Entry,
}

impl ResponseBody {
    pub fn new(inner: Incoming, idle: Duration, held: Held) -> Self {
        let mut body = Self { inner, idle: IdleTimer::new(idle), held: Some(held) };
        if body.inner.is_end_stream() {
            body.finish();
        }
        body
    }

    fn finish(&mut self) {
        if let Some(held) = self.held.take() {
            held.lease.release();
            held.entry.finish();
        }
    }

    /// Dropping what is held closes the connection and leaves the access line with what was lost.
    fn abort(&mut self, reason: &'static str) {
        if let Some(held) = self.held.take() {
            held.entry.abort(reason);
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) else {
            ready!(this.idle.poll_expired(cx));
            this.abort("service slow");
            return Poll::Ready(Some(Err(BodyError::ServiceSlow)));
        };
        this.idle.moved();
        Poll::Ready(match frame {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    if let Some(held) = &mut this.held {
                        held.entry.sent(data.len());
                    }
                    // The server does not ask again after the last byte of a known length.
                    if this.inner.is_end_stream() {
                        this.finish();
                    }
                    Some(Ok(Frame::data(data)))
                }
                Err(_trailers) => {
                    this.finish();
                    None
                }
            },
            Some(Err(error)) => {
                this.abort("service broke off");
                Some(Err(BodyError::Service(error)))
            }
            None => {
                this.finish();
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        self.abort("client broke off");
    }
}
