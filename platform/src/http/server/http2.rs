//! A conversation over HTTP/2 (RFC 9113). Invariant: nobody holds a connection without asking for anything, nor for ever.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::idle::Limits;
use super::stall::{Streams, Watched};
use super::{Front, Peer, Shared};

/// Requests at once on one connection, as nginx has it.
const STREAMS: u32 = 128;
/// Streams that a client may reset before they are begun; beyond it the connection ends (CVE-2023-44487).
const RESETS: usize = 20;
/// All headers of one request together, as for HTTP/1.
const HEADERS: u32 = 64 * 1024;
/// A silent client is asked whether it lives, and has so long to say so.
const PING: Duration = Duration::from_secs(20);
const PONG: Duration = Duration::from_secs(5);
/// A connection is ended after so long, even a busy one: its client's next one may find another gateway.
const LIFE: Duration = Duration::from_secs(3_600);
/// For a client that never asked for anything to hear that it is not waited for.
const GOODBYE: Duration = Duration::from_secs(1);

pub(super) async fn converse<S>(stream: S, since: Instant, peer: Peer, front: Front, shared: &Shared)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&requests);
    let service = service_fn(move |mut request| {
        if front.is_edge() {
            request.extensions_mut().insert(peer);
        }
        counted.fetch_add(1, Relaxed);
        let answer = front.answer(request);
        async move { Ok::<_, Infallible>(answer.await.map(|body| Watched::new(body, None))) }
    });
    let stop = shared.stop.child_token();
    let streams = Streams::new(shared.write_idle_timeout);
    // Its errors are the client's.
    let mut connection = pin!(
        http2::Builder::new(streams.clone())
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .max_pending_accept_reset_streams(RESETS)
            .max_header_list_size(HEADERS)
            .keep_alive_interval(PING)
            .keep_alive_timeout(PONG)
            .serve_connection(TokioIo::new(stream), service)
    );
    let used = tokio::select! {
        // First, so that what has just come counts.
        biased;
        _ = connection.as_mut() => return,
        () = stop.cancelled() => true,
        used = until_idle(&requests, &shared.limits, since) => used,
    };
    connection.as_mut().graceful_shutdown();
    let left = async {
        if used {
            // What is under way is answered.
            streams.left().await;
        } else {
            tokio::time::sleep(GOODBYE).await;
        }
    };
    tokio::select! {
        _ = connection => {}
        () = left => {}
        () = shared.cut.cancelled() => {}
    }
}

/// Waits until a connection has been of no use for too long, or of use for long enough; true if it ever was.
async fn until_idle(requests: &AtomicUsize, limits: &Limits, since: Instant) -> bool {
    tokio::time::sleep_until(since + limits.header).await;
    let mut before = requests.load(Relaxed);
    if before == 0 {
        return false;
    }
    while since.elapsed() < LIFE {
        tokio::time::sleep(limits.idle).await;
        let now = requests.load(Relaxed);
        if now == before {
            break;
        }
        before = now;
    }
    true
}

#[cfg(test)]
mod tests;
