//! WebSockets (RFC 6455): after the service has agreed, bytes pass both ways until one side ends.
//!
//! Invariants: a tunnel is opened only for a request that came through every step of the gateway, and only to the
//! protocol that it named; any other `Upgrade` ends at the gateway, as every hop-by-hop header does. It lasts no longer
//! than what let it in, the token above all.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::rt::Executor as _;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::{TokioExecutor, TokioIo};
use metrics::Gauge;
use platform::http::problem::Problem;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf, copy_bidirectional};
use tokio::time::{Instant, sleep};

use super::Answer;
use crate::access_log::Entry;
use crate::auth::Verified;
use crate::limits::{InFlightLimit, Permit, Permits};

/// A connection on which nothing moves for so long has lost its client; WebSockets that live send pings.
const IDLE: Duration = Duration::from_secs(600);
/// How often it is asked whether a tunnel may go on. What ends one is heard of within about that time.
const LOOK: Duration = Duration::from_secs(1);
/// For both sides to hear that it is over.
const ENDING: Duration = Duration::from_millis(500);
/// For the client to hear that the protocol is changed.
const HANDSHAKE: Duration = Duration::from_secs(10);
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
const UPGRADE: HeaderValue = HeaderValue::from_static("Upgrade");

/// A client that wants to talk WebSocket.
#[derive(Debug)]
pub struct Wanted {
    client: OnUpgrade,
    place: Permit,
    holder: Option<Arc<Verified>>,
}

/// Takes the wish out of a request, if it has one.
///
/// # Errors
/// 503 if as many are open as may be.
pub fn wanted<B>(
    request: &mut Request<B>,
    places: &Arc<InFlightLimit>,
    holder: Option<&Arc<Verified>>,
) -> Result<Option<Wanted>, Problem> {
    let headers = request.headers();
    let Some(upgrade) = headers.get(header::UPGRADE) else { return Ok(None) };
    let asks = request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && upgrade.as_bytes().eq_ignore_ascii_case(WEBSOCKET.as_bytes())
        && headers.get_all(header::UPGRADE).iter().count() == 1
        && names_upgrade(headers);
    if !asks {
        return Ok(None);
    }
    let place = places.admit()?;
    Ok(Some(Wanted { client: hyper::upgrade::on(request), place, holder: holder.cloned() }))
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

/// Joins both sides, in a task of its own, until one of them ends or `ends` says why they have to. What the request
/// holds is held until then, but for the gateway's place: a tunnel has one of its own.
pub fn open(
    wanted: Wanted,
    mut answer: Answer,
    permits: Permits,
    mut entry: Entry,
    ends: impl Fn(Option<&Verified>) -> Option<&'static str> + Send + Sync + 'static,
) {
    let service = hyper::upgrade::on(&mut answer.response);
    let Answer { lease, in_flight, .. } = answer;
    let Wanted { client, place, holder } = wanted;
    let held = (place, permits.beside_gateway(), Open::count(), lease, in_flight);
    TokioExecutor::new().execute(async move {
        let _held = held;
        let both = async { tokio::try_join!(client, service) };
        let Ok(Ok((client, service))) = tokio::time::timeout(HANDSHAKE, both).await else {
            entry.abort("no upgrade");
            return;
        };
        let (sent, broken) = join(client, service, || ends(holder.as_deref())).await;
        entry.sent(usize::try_from(sent).unwrap_or(usize::MAX));
        match broken {
            None => entry.finish(),
            Some(reason) => entry.abort(reason),
        }
    });
}

/// Bytes that went to the client, and why it went on no longer if neither side has ended it.
async fn join(
    client: Upgraded,
    service: Upgraded,
    ends: impl Fn() -> Option<&'static str>,
) -> (u64, Option<&'static str>) {
    let (from_client, from_service) = (AtomicU64::new(0), AtomicU64::new(0));
    let mut client = Counted { io: TokioIo::new(client), read: &from_client };
    let mut service = Counted { io: TokioIo::new(service), read: &from_service };
    let watching = async {
        let (mut before, mut since) = (0, Instant::now());
        loop {
            sleep(LOOK).await;
            if let Some(reason) = ends() {
                return reason;
            }
            let now = from_client.load(Relaxed) + from_service.load(Relaxed);
            if now != before {
                (before, since) = (now, Instant::now());
            } else if since.elapsed() >= IDLE {
                return "idle";
            }
        }
    };
    let broken = tokio::select! {
        copied = copy_bidirectional(&mut client, &mut service) => copied.err().map(|_| "tunnel broke off"),
        reason = watching => Some(reason),
    };
    if broken.is_some() {
        // In order, where that is possible at once.
        let ending = async { tokio::join!(client.shutdown(), service.shutdown()) };
        let _ = tokio::time::timeout(ENDING, ending).await;
    }
    (from_service.load(Relaxed), broken)
}

/// One that is counted.
#[derive(Debug)]
struct Open(Gauge);

impl Open {
    fn count() -> Self {
        let gauge = metrics::gauge!("firstcome_gateway_websockets");
        gauge.increment(1);
        Self(gauge)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}

/// Counts what is read.
struct Counted<'a> {
    io: TokioIo<Upgraded>,
    read: &'a AtomicU64,
}

impl AsyncRead for Counted<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        self.read.fetch_add((buf.filled().len() - before) as u64, Relaxed);
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
