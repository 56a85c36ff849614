//! Clients that do not take their answers. Invariant: an answer of which its client takes nothing for
//! `server.write-idle-timeout` ends, and all that it holds is let go; one that waits for its service is left alone.
//!
//! With HTTP/1, and for an HTTP/2 connection as a whole, such a client shows at the socket, which takes no more. One
//! stream of HTTP/2 stands still while its window is closed: then nobody asks its body for more, so that a timer of the
//! body's own would never be looked at. The task of the stream has one in its place. Either is armed only while the
//! client is waited for; what flows costs a store.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::rt::Executor;
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, sleep_until};

use super::idle::{Answering, Exchange};

/// What is handed to an HTTP/2 stream at once, one frame. Whether its client takes any of it is seen when all of it was
/// taken, and whatever was handed over is held by the connection, also when the stream is over.
const HTTP2_PIECE: usize = 16 * 1024;

/// How long a client is waited for.
#[derive(Debug)]
struct Patience {
    limit: Duration,
    /// None while it is not waited for.
    since: Option<Instant>,
    /// Never taken back: one that is not needed any more runs out, once, and changes nothing.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    fn new(limit: Duration) -> Self {
        Self { limit, since: None, sleep: None }
    }

    fn renew(&mut self) {
        self.since = None;
    }

    /// Ready when it is at its end.
    fn poll_lost(&mut self, cx: &mut Context<'_>, place: &'static str) -> Poll<()> {
        let end = *self.since.get_or_insert_with(Instant::now) + self.limit;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(end)));
        loop {
            ready!(sleep.as_mut().poll(cx));
            if Instant::now() >= end {
                metrics::counter!("http_server_answers_not_taken_total", "place" => place).increment(1);
                return Poll::Ready(());
            }
            sleep.as_mut().reset(end);
        }
    }
}

/// A client's socket, which breaks when nothing can be written for too long.
#[derive(Debug)]
pub(super) struct ClientSocket<S> {
    stream: S,
    patience: Patience,
    exchange: Arc<Exchange>,
    /// Dropped with the socket, wherever an upgrade has carried it.
    _open: oneshot::Sender<()>,
}

impl<S> ClientSocket<S> {
    /// The socket, and what ends when it is closed.
    pub(super) fn new(stream: S, limit: Duration, exchange: Arc<Exchange>) -> (Self, oneshot::Receiver<()>) {
        let (open, closed) = oneshot::channel();
        (Self { stream, patience: Patience::new(limit), exchange, _open: open }, closed)
    }

    fn judge(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.patience.renew();
            return written;
        }
        ready!(self.patience.poll_lost(cx, "connection"));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ClientSocket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.exchange.read();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ClientSocket<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.judge(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.judge(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.exchange.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Whom an answer waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Client,
    Service,
}

thread_local! {
    /// What the body said that was asked last, from within the task that is being polled.
    static TURN: Cell<Option<Turn>> = const { Cell::new(None) };
}

/// An answer's body that tells its stream's task whose turn it is.
#[derive(Debug)]
pub(super) struct Watched {
    body: Body,
    /// Of a piece that was larger than one may be.
    rest: Bytes,
    most: usize,
    _answering: Option<Answering>,
}

impl Watched {
    /// With what an HTTP/1 connection is told by; without it, for a stream of HTTP/2.
    pub(super) fn new(body: Body, answering: Option<Answering>) -> Self {
        let most = if answering.is_some() { usize::MAX } else { HTTP2_PIECE };
        Self { body, rest: Bytes::new(), most, _answering: answering }
    }
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let polled = if this.rest.is_empty() {
            Pin::new(&mut this.body).poll_frame(cx)
        } else {
            Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut this.rest)))))
        };
        TURN.set(Some(if polled.is_pending() { Turn::Service } else { Turn::Client }));
        polled.map_ok(|frame| {
            frame.map_data(|mut data| {
                if data.len() > this.most {
                    this.rest = data.split_off(this.most);
                }
                data
            })
        })
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (mut hint, rest) = (self.body.size_hint(), self.rest.len() as u64);
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}

/// Runs the streams of one HTTP/2 connection.
#[derive(Debug, Clone)]
pub(super) struct Streams {
    limit: Duration,
    open: Arc<AtomicUsize>,
}

/// One that is counted.
struct Open(Arc<AtomicUsize>);

impl Streams {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, open: Arc::default() }
    }

    /// Ends when none has been open for some time, and a client has had its time for what lies in the connection's own
    /// buffers: the last bytes of an answer are given to them whatever its window says, and its stream is over then.
    pub(super) async fn left(&self) {
        loop {
            tokio::time::sleep(self.limit).await;
            if self.open.load(Relaxed) == 0 {
                break;
            }
        }
        tokio::time::sleep(self.limit).await;
    }
}

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let mut patience = Patience::new(self.limit);
        self.open.fetch_add(1, Relaxed);
        let open = Open(Arc::clone(&self.open));
        TokioExecutor::new().execute(async move {
            let _open = open;
            let mut stream = pin!(stream);
            let mut turn = Turn::Service;
            // At its end the stream is dropped, which resets it and drops the body.
            std::future::poll_fn(|cx| {
                TURN.set(None);
                if stream.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(());
                }
                if let Some(now) = TURN.take() {
                    patience.renew();
                    turn = now;
                }
                match turn {
                    Turn::Service => Poll::Pending,
                    Turn::Client => patience.poll_lost(cx, "stream"),
                }
            })
            .await;
        });
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests;
