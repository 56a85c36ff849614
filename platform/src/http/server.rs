//! The accept loop, and the drain. Invariant: a client that is slow to send its headers, a flood of connections or a
//! stop can hold nothing up for longer than the settings say; a request that was begun is answered within the drain.

mod front;
mod limit;

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use front::{Edge, Front, layered, layered_edge};
pub(crate) use limit::{Aborted, TooLarge};

use crate::config::ServerSettings;

/// Connections that wait to be accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// Hyper's buffer for one head; what is larger is answered 431.
const MAX_HEAD: usize = 64 * 1024;
/// When files run out, accepting again at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

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
    /// Accept no more; finish what is begun.
    stop: CancellationToken,
    /// Cut what is not finished.
    cut: CancellationToken,
    connections: TaskTracker,
    permits: Arc<Semaphore>,
    header_timeout: Duration,
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

    /// The same for a service that may be the [`Edge`].
    pub(crate) fn start_as(
        settings: &ServerSettings,
        edge: Option<Edge>,
        routers: impl Fn(usize) -> Router + Clone + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            stop: CancellationToken::new(),
            cut: CancellationToken::new(),
            connections: TaskTracker::new(),
            permits: Arc::new(Semaphore::new(settings.max_connections.min(Semaphore::MAX_PERMITS))),
            header_timeout: settings.header_timeout,
        });
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
            permit = shared.permits.clone().acquire_owned() => permit,
            () = shared.stop.cancelled() => return,
        };
        let Ok(permit) = permit else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let serve = serve(stream, front.clone(), shared.clone());
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

async fn serve(stream: TcpStream, front: Front, shared: Arc<Shared>) {
    // Answers are written whole: waiting to fill a packet would only delay them.
    let _ = SockRef::from(&stream).set_tcp_nodelay(true);
    let service = service_fn(move |request| {
        let answer = front.answer(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(shared.header_timeout)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    // A token of its own: the shared one's lock would be met by every connection at every wake.
    let stop = shared.stop.child_token();
    tokio::select! {
        // Errors here are the client's: a reset, a head that is none, a header timeout.
        _ = connection.as_mut() => return,
        () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    tokio::select! {
        _ = connection => {}
        () = shared.cut.cancelled() => {}
    }
}

#[cfg(test)]
mod tests;
