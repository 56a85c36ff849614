//! A conversation over HTTP/1. Invariant: a connection that rests is one on which nothing is under way: its last request
//! was read to its end, its last answer is written, and every byte that came since is seen by whoever reads next.
//!
//! A connection holds some 20 KiB of buffers as long as hyper has it, whether anything happens or not. One that is quiet
//! is taken back; what remains is its socket.

use std::convert::Infallible;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use http::header::CONNECTION;
use http::{HeaderValue, Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::idle::{Exchange, Idle, Verdict};
use super::stall::Watched;
use super::{Front, Peer, Shared};

/// Hyper's buffer for one head; what is larger is answered 431.
const MAX_HEAD: usize = 64 * 1024;

pub(super) async fn converse<S>(
    stream: S,
    exchange: Arc<Exchange>,
    since: Instant,
    peer: Peer,
    front: Front,
    shared: &Shared,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (told, leaving) = (Arc::clone(&exchange), Arc::clone(&shared.leaving));
    let mut service = service_fn(move |request: Request<Incoming>| {
        let (parts, body) = request.into_parts();
        let (asking, answering) = told.begin(body);
        let mut request = Request::from_parts(parts, asking);
        if front.is_edge() {
            request.extensions_mut().insert(peer);
        }
        let answer = front.answer(request);
        let leaving = Arc::clone(&leaving);
        async move {
            let mut response = answer.await;
            if leaving.load(Relaxed) && response.status() != StatusCode::SWITCHING_PROTOCOLS {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response.map(|body| Watched::new(body, Some(answering))))
        }
    });
    // A token of its own: the shared one's lock would be met by every connection at every wake.
    let stop = shared.stop.child_token();
    let mut idle = Idle::new(Arc::clone(&exchange), &shared.limits, since);
    let mut stream = Resumed { first: Bytes::new(), stream };
    loop {
        // Boxed, so that the task is small without it. Its errors are the client's: a reset, a head that is none.
        let mut connection = Box::new(
            http1::Builder::new()
                .max_buf_size(MAX_HEAD)
                .header_read_timeout(None)
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades(),
        );
        let verdict = tokio::select! {
            // First, so that what has just come counts.
            biased;
            _ = &mut *connection => return,
            () = stop.cancelled() => {
                Pin::new(&mut *connection).graceful_shutdown();
                tokio::select! {
                    _ = connection => {}
                    () = shared.cut.cancelled() => {}
                }
                return;
            }
            verdict = std::future::poll_fn(|cx| idle.poll(cx, false)) => verdict,
        };
        if verdict == Verdict::Over {
            return;
        }
        let Some(parts) = connection.into_parts() else { return };
        (stream, service) = (parts.io.into_inner(), parts.service);
        if parts.read_buf.is_empty() {
            let mut first = [0];
            let read = tokio::select! {
                biased;
                read = stream.read(&mut first) => read.unwrap_or(0),
                () = stop.cancelled() => 0,
                _over = std::future::poll_fn(|cx| idle.poll(cx, true)) => 0,
            };
            if read == 0 {
                return;
            }
            stream.first = Bytes::copy_from_slice(&first);
        } else {
            // The beginning of a head that came together with the request before.
            exchange.read();
            stream.first = parts.read_buf;
        }
    }
}

/// A stream of which some bytes have been read already.
#[derive(Debug)]
struct Resumed<S> {
    first: Bytes,
    stream: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Resumed<S> {
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

impl<S: AsyncWrite + Unpin> AsyncWrite for Resumed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
