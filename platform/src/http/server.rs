//! The accept loop, and the drain. Invariant: a client that is slow to send its headers, a flood of connections or a
//! stop can hold nothing up for longer than the settings say; a request that was begun is answered within the drain.
//! A connection counts until its socket is closed, also after an upgrade.

mod front;
mod http1;
mod http2;
mod idle;
mod limit;
mod stall;
mod tls;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use axum::Router;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use front::{Edge, Front, layered, layered_edge};
pub(crate) use limit::{Aborted, TooLarge};
pub(crate) use tls::check as check_tls;

use crate::config::ServerSettings;
use idle::{Exchange, Limits};
use stall::ClientSocket;
use tls::Tls;

/// Connections that wait to be accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// When files run out, accepting again at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// What every HTTP/2 connection begins with (RFC 9113, 3.4), and no method of HTTP/1 does.
const HTTP2_PREFACE: &[u8; 4] = b"PRI ";
/// Between two looks at a preface of which only a part has come.
const PREFACE_PAUSE: Duration = Duration::from_millis(100);

/// A port that is served.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// Ends the workers' runtimes, after everything that may still run on them.
    workers: Workers,
}

/// Runtimes of one thread each; they end when this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Workers(Vec<oneshot::Sender<()>>);

struct Shared {
    /// Whoever is answered over HTTP/1 is told to go elsewhere next time.
    leaving: Arc<AtomicBool>,
    /// Accept no more; finish what is begun.
    stop: CancellationToken,
    /// Cut what is not finished.
    cut: CancellationToken,
    connections: TaskTracker,
    limits: Limits,
    write_idle_timeout: Duration,
    tls: Option<Tls>,
}

impl Shared {
    fn new(settings: &ServerSettings) -> io::Result<Self> {
        let most = crate::files::connections(settings.max_connections).min(Semaphore::MAX_PERMITS);
        Ok(Self {
            leaving: Arc::default(),
            stop: CancellationToken::new(),
            cut: CancellationToken::new(),
            connections: TaskTracker::new(),
            limits: Limits {
                header: settings.header_timeout,
                idle: settings.idle_timeout,
                permits: Arc::new(Semaphore::new(most)),
                most,
            },
            write_idle_timeout: settings.write_idle_timeout,
            tls: settings.tls.as_ref().map(Tls::new).transpose()?,
        })
    }
}

impl Server {
    /// Listens and serves within the current runtime, or with `workers` in so many of one thread each, each with a
    /// listener of its own (`SO_REUSEPORT`). The routers are wrapped by [`layered`].
    ///
    /// # Errors
    /// When the port can't be had.
    pub fn start(
        settings: &ServerSettings,
        routers: impl Fn(usize) -> Router + Clone + Send + 'static,
    ) -> io::Result<Self> {
        Self::start_as(settings, None, routers)
    }

    /// The same for a service that is the [`Edge`].
    ///
    /// # Errors
    /// When the port can't be had.
    pub fn start_edge(
        settings: &ServerSettings,
        edge: Edge,
        routers: impl Fn(usize) -> Router + Clone + Send + 'static,
    ) -> io::Result<Self> {
        Self::start_as(settings, Some(edge), routers)
    }

    /// The same for a service that may be the [`Edge`].
    pub(crate) fn start_as(
        settings: &ServerSettings,
        edge: Option<Edge>,
        routers: impl Fn(usize) -> Router + Clone + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(settings)?);
        if let Some(tls) = shared.tls.clone() {
            let stop = shared.stop.clone();
            shared.connections.spawn(async move { stop.run_until_cancelled(tls.follow()).await });
        }
        let first = listen(SocketAddr::new(settings.address, settings.port), settings.workers > 0)?;
        let address = first.local_addr()?;
        let mut workers = Workers::default();
        if settings.workers == 0 {
            let front = Front::new(routers(0), settings, edge);
            shared.connections.spawn(accept(TcpListener::from_std(first)?, front, shared.clone()));
        } else {
            let mut listeners = vec![first];
            for _ in 1..settings.workers {
                listeners.push(listen(address, true)?);
            }
            for (index, listener) in listeners.into_iter().enumerate() {
                let (sender, end) = oneshot::channel();
                let (shared, settings, routers) = (shared.clone(), settings.clone(), routers.clone());
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                let work = move || {
                    runtime.block_on(async move {
                        match TcpListener::from_std(listener) {
                            Ok(listener) => {
                                let front = Front::new(routers(index), &settings, edge);
                                let loop_ = accept(listener, front, shared.clone());
                                shared.connections.track_future(loop_).await;
                            }
                            Err(error) => tracing::error!(%error, worker = index, "a listener was lost"),
                        }
                        // Connections and detached work go on until the owner lets go.
                        let _ = end.await;
                    });
                    runtime_end(index);
                };
                std::thread::Builder::new().name(format!("http-{index}")).spawn(work)?;
                workers.0.push(sender);
            }
        }
        Ok(Self { address, shared, workers })
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Goes on as before, but each answer over HTTP/1 is the last one on its connection. A connection that is closed
    /// while nobody was told so may have the client's next request on its way, and whether that one was carried out
    /// nobody can say. HTTP/2 says at the drain itself up to which request it has heard (RFC 9113, 6.8).
    pub(crate) fn leave(&self) {
        self.shared.leaving.store(true, Relaxed);
    }

    /// Accepts no more, finishes what is begun, and cuts what takes longer than the limit. Worker runtimes live until
    /// the result is dropped, as detached work may run there.
    pub(crate) async fn drain(self, limit: Duration) -> Option<Workers> {
        self.shared.stop.cancel();
        self.shared.connections.close();
        if tokio::time::timeout(limit, self.shared.connections.wait()).await.is_err() {
            tracing::warn!(connections = self.shared.connections.len(), "cut after the drain");
            self.shared.cut.cancel();
            self.shared.connections.wait().await;
        }
        Some(self.workers)
    }

    /// Stops like [`Server::drain`], for those who run a server of their own.
    pub async fn stop(self, limit: Duration) {
        drop(self.drain(limit).await);
    }
}

fn runtime_end(worker: usize) {
    tracing::debug!(worker, "worker ended");
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("address", &self.address)
            .field("connections", &self.shared.connections.len())
            .field("workers", &self.workers.0.len())
            .finish()
    }
}

fn listen(address: SocketAddr, shared: bool) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for the old connections' TIME_WAIT.
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket
        .bind(&address.into())
        .map_err(|error| io::Error::new(error.kind(), format!("can't listen on {address}: {error}")))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

async fn accept(listener: TcpListener, front: Front, shared: Arc<Shared>) {
    loop {
        // The permit comes first: beyond the cap connections wait in the backlog.
        let permit = tokio::select! {
            permit = shared.limits.permits.clone().acquire_owned() => permit,
            () = shared.stop.cancelled() => return,
        };
        let Ok(permit) = permit else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let serve = serve(stream, peer, front.clone(), shared.clone());
                shared.connections.spawn(async move {
                    serve.await;
                    drop(permit);
                });
            }
            Err(error) if is_of_the_connection(&error) => {}
            Err(error) => {
                tracing::error!(%error, "can't accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The client's trouble, not ours.
fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Who made the connection, and whether by TLS; in the extensions of an [`Edge`]'s requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    pub address: SocketAddr,
    pub tls: bool,
}

async fn serve(stream: TcpStream, address: SocketAddr, front: Front, shared: Arc<Shared>) {
    // Answers are written whole: waiting to fill a packet would only delay them.
    let _ = SockRef::from(&stream).set_tcp_nodelay(true);
    let begun = Instant::now();
    let is_http2 = shared.tls.is_none()
        && front.is_edge()
        && shared
            .stop
            .run_until_cancelled(begins_http2(&stream, shared.limits.header))
            .await
            .unwrap_or(false);
    let exchange = Arc::new(Exchange::default());
    let (socket, closed) = ClientSocket::new(stream, shared.write_idle_timeout, exchange.clone());
    match &shared.tls {
        None => {
            converse((socket, exchange, begun), is_http2, Peer { address, tls: false }, front, &shared).await;
        }
        Some(tls) => {
            // Errors here are the client's: no TLS at all, a certificate that it does not believe, no end of the
            // handshake.
            let accepting = Box::pin(tokio::time::timeout(shared.limits.header, tls.accept(socket)));
            if let Some(Ok(Ok((stream, is_http2)))) = shared.stop.run_until_cancelled(accepting).await {
                let peer = Peer { address, tls: true };
                let begun = Instant::now();
                Box::pin(converse((stream, exchange, begun), is_http2, peer, front, &shared)).await;
            }
        }
    }
    // As a rule it is closed by now; an upgrade takes it elsewhere.
    tokio::select! {
        biased;
        _ = closed => {}
        () = shared.cut.cancelled() => {}
    }
}

/// Looks at the first bytes without taking them.
async fn begins_http2(stream: &TcpStream, limit: Duration) -> bool {
    let looking = async {
        let mut first = [0; HTTP2_PREFACE.len()];
        loop {
            match stream.peek(&mut first).await {
                Ok(0) | Err(_) => return false,
                Ok(length) if first[..length] != HTTP2_PREFACE[..length] => return false,
                Ok(length) if length == HTTP2_PREFACE.len() => return true,
                Ok(_) => tokio::time::sleep(PREFACE_PAUSE).await,
            }
        }
    };
    tokio::time::timeout(limit, looking).await.unwrap_or(false)
}

/// Speaks with a client over a stream, with what its socket tells of it, and since when a head is waited for.
async fn converse<S>(
    (stream, exchange, since): (S, Arc<Exchange>, Instant),
    is_http2: bool,
    peer: Peer,
    front: Front,
    shared: &Shared,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    if is_http2 {
        // Boxed, as is what waits for TLS: most connections are HTTP/1, and their tasks small without it.
        Box::pin(http2::converse(stream, since, peer, front, shared)).await;
    } else {
        http1::converse(stream, exchange, since, peer, front, shared).await;
    }
}

#[cfg(test)]
mod door_tests;
#[cfg(test)]
mod tests;
