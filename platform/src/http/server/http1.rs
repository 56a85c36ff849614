//! HTTP/1 on one connection. Invariants: who does not send a head in time is cut; and a connection on which nothing
//! happens for a while costs its socket and little else. hyper's state, some 20 KiB with its buffers, is put away and made
//! again with the next byte.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::{Buf as _, Bytes};
use futures_util::FutureExt as _;
use http::Request;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

/// Hyper's buffer for one head; what is larger is answered 431.
const MAX_HEAD: usize = 64 * 1024;
/// Long enough that a client that goes on asking never pays for it.
const PUT_AWAY_AFTER: Duration = Duration::from_secs(1);
/// ... and well before the header timeout cuts the connection.
const OF_HEADER_TIMEOUT: u32 = 5;

/// Until the connection ends. `stop` lets requests end that were begun, `cut` does not.
pub(super) async fn serve<S, A, F>(
    stream: S,
    answer: A,
    header_timeout: Duration,
    stop: &CancellationToken,
    cut: &CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    A: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response> + Send,
{
    let quiet = PUT_AWAY_AFTER.min(header_timeout / OF_HEADER_TIMEOUT);
    let activity = Arc::new(Activity::new());
    let mut stream = Watched { stream, first: Bytes::new(), activity: Arc::clone(&activity) };
    loop {
        let (activity, answer) = (Arc::clone(&activity), answer.clone());
        let service = service_fn(|request| {
            let request_begun = activity.begin();
            let answer = answer(request);
            async move { Ok::<_, Infallible>(answer.await.map(|body| Counted { body, _begun: request_begun })) }
        });
        // Errors are the client's: a reset, a head that is none.
        let mut connection = Box::new(
            http1::Builder::new()
                .max_buf_size(MAX_HEAD)
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades(),
        );
        let (mut look, mut ends) = (Instant::now() + quiet, false);
        loop {
            // What has come is looked at before the clock is: a request may have waited for this task.
            tokio::select! {
                biased;
                _ = &mut *connection => return,
                () = stop.cancelled() => {
                    Pin::new(&mut *connection).graceful_shutdown();
                    tokio::select! {
                        _ = &mut *connection => {}
                        () = cut.cancelled() => {}
                    }
                    return;
                }
                () = sleep_until(look) => {}
            }
            let idle = activity.quiet_for().unwrap_or_default();
            if idle >= header_timeout {
                return;
            }
            if !ends && idle >= quiet && activity.flushed.load(Relaxed) {
                // Hyper knows best whether it waits for nothing but a head; if so it ends at once, and the socket stays
                // open. If not (a first head has come in part, a body is still coming), it ends after that.
                activity.kept.store(true, Relaxed);
                Pin::new(&mut *connection).graceful_shutdown();
                let ended = (&mut *connection).now_or_never();
                activity.kept.store(false, Relaxed);
                match ended {
                    Some(Ok(())) => break,
                    Some(Err(_)) => return,
                    None => ends = true,
                }
            }
            look = Instant::now() + (header_timeout - idle).min(quiet);
        }
        let Some(parts) = connection.into_parts() else { return };
        stream = parts.io.into_inner();
        stream.first = parts.read_buf;
        if stream.first.is_empty() {
            let mut byte = [0];
            tokio::select! {
                biased;
                read = stream.read(&mut byte) => match read {
                    Ok(1) => stream.first = Bytes::copy_from_slice(&byte),
                    _ => return,
                },
                () = stop.cancelled() => return,
                () = sleep(header_timeout.saturating_sub(activity.quiet_for().unwrap_or_default())) => return,
            }
        }
    }
}

/// What happens on a connection.
struct Activity {
    born: Instant,
    /// Requests whose answers are not given to the last byte.
    under_way: AtomicUsize,
    /// Since when there is none, in microseconds since `born`.
    quiet_since: AtomicU64,
    /// Nothing is left to be written.
    flushed: AtomicBool,
    /// The socket stays open when hyper is done with it.
    kept: AtomicBool,
}

impl Activity {
    fn new() -> Self {
        Self {
            born: Instant::now(),
            under_way: AtomicUsize::new(0),
            quiet_since: AtomicU64::new(0),
            flushed: AtomicBool::new(true),
            kept: AtomicBool::new(false),
        }
    }

    fn begin(self: &Arc<Self>) -> Begun {
        self.under_way.fetch_add(1, Relaxed);
        Begun(Arc::clone(self))
    }

    /// How long a head is waited for; None while a request is under way.
    fn quiet_for(&self) -> Option<Duration> {
        let since = Duration::from_micros(self.quiet_since.load(Relaxed));
        (self.under_way.load(Relaxed) == 0).then(|| self.born.elapsed().saturating_sub(since))
    }
}

/// A request, until the end of its answer.
struct Begun(Arc<Activity>);

impl Drop for Begun {
    fn drop(&mut self) {
        let now = u64::try_from(self.0.born.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.0.quiet_since.store(now, Relaxed);
        self.0.under_way.fetch_sub(1, Relaxed);
    }
}

/// An answer's body that says when it is over.
struct Counted {
    body: Body,
    _begun: Begun,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The socket.
struct Watched<S> {
    stream: S,
    /// What was read of it already.
    first: Bytes,
    activity: Arc<Activity>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let length = self.first.len().min(buf.remaining());
        buf.put_slice(&self.first[..length]);
        self.first.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.activity.flushed.store(false, Relaxed);
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.activity.flushed.store(false, Relaxed);
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Hyper comes here when it has given all it had to `poll_write`.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if flushed.is_ready() {
            self.activity.flushed.store(true, Relaxed);
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.activity.kept.load(Relaxed) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
