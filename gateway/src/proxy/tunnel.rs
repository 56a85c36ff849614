//! WebSockets (RFC 6455): after the service has agreed, bytes pass both ways until one side ends.
//!
//! Invariant: a tunnel is opened only for a request that came through every step of the gateway, and only to the
//! protocol that it named; any other `Upgrade` ends at the gateway, as every hop-by-hop header does.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::rt::Executor as _;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};
use tokio::time::sleep;

use super::Answer;
use crate::access_log::Entry;
use crate::limits::Permits;

/// A connection on which nothing moves for so long has lost its client; WebSockets that live send pings.
const IDLE: Duration = Duration::from_secs(600);
/// For the client to hear that the protocol is changed.
const HANDSHAKE: Duration = Duration::from_secs(10);
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
const UPGRADE: HeaderValue = HeaderValue::from_static("Upgrade");

/// A client that wants to talk WebSocket.
#[derive(Debug)]
pub struct Wanted(OnUpgrade);

/// Takes the wish out of a request, if it has one.
pub fn wanted<B>(request: &mut Request<B>) -> Option<Wanted> {
    let headers = request.headers();
    let upgrade = headers.get(header::UPGRADE)?;
    let asks = request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && upgrade.as_bytes().eq_ignore_ascii_case(WEBSOCKET.as_bytes())
        && headers.get_all(header::UPGRADE).iter().count() == 1
        && names_upgrade(headers);
    asks.then(|| Wanted(hyper::upgrade::on(request)))
}

fn names_upgrade(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|name| name.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
}

/// Says the wish to the service, after the hop's own headers were taken out.
pub fn ask(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, UPGRADE);
    headers.insert(header::UPGRADE, WEBSOCKET);
}

/// Whether the service has agreed to what was asked.
#[must_use]
pub fn is_agreed<B>(response: &Response<B>) -> bool {
    response.status() == StatusCode::SWITCHING_PROTOCOLS
        && response
            .headers()
            .get(header::UPGRADE)
            .is_some_and(|upgrade| upgrade.as_bytes().eq_ignore_ascii_case(WEBSOCKET.as_bytes()))
}

/// Joins both sides, in a task of its own. What the request holds is held until the end.
pub fn open(Wanted(client): Wanted, mut answer: Answer, permits: Permits, mut entry: Entry) {
    let service = hyper::upgrade::on(&mut answer.response);
    let Answer { lease, in_flight, .. } = answer;
    TokioExecutor::new().execute(async move {
        let _held = (lease, in_flight, permits);
        let both = async { tokio::try_join!(client, service) };
        let Ok(Ok((client, service))) = tokio::time::timeout(HANDSHAKE, both).await else {
            entry.abort("no upgrade");
            return;
        };
        match join(client, service).await {
            Ok(sent) => {
                entry.sent(usize::try_from(sent).unwrap_or(usize::MAX));
                entry.finish();
            }
            Err(_broken) => entry.abort("tunnel broke off"),
        }
    });
}

/// Bytes that went to the client.
async fn join(client: Upgraded, service: Upgraded) -> io::Result<u64> {
    let moved = AtomicU64::new(0);
    let mut client = Counted { io: TokioIo::new(client), moved: &moved };
    let mut service = Counted { io: TokioIo::new(service), moved: &moved };
    let copying = copy_bidirectional(&mut client, &mut service);
    tokio::pin!(copying);
    let mut before = 0;
    loop {
        tokio::select! {
            copied = &mut copying => return copied.map(|(_, to_client)| to_client),
            () = sleep(IDLE) => {
                let now = moved.load(Relaxed);
                if now == before {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                before = now;
            }
        }
    }
}

/// Counts what is read.
struct Counted<'a> {
    io: TokioIo<Upgraded>,
    moved: &'a AtomicU64,
}

impl AsyncRead for Counted<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        self.moved.fetch_add((buf.filled().len() - before) as u64, Relaxed);
        polled
    }
}

impl AsyncWrite for Counted<'_> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
