//! HTTP/1 connections to instances: made, kept while idle, given out again.
//!
//! Each worker thread has a pool of its own, so that no lock and no other core is met on a request's way.
//! The pool is our own rather than a client library's because it must keep two facts apart: no connection
//! could be made (nothing was sent, another instance may get the request) and a connection broke (the
//! request may have been seen). hyper hands a request back that it never began to write.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::http1::{self, SendRequest};
use hyper::rt::Executor;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::body::RequestBody;
use super::tls;
use crate::balance::endpoint::{Address, Endpoint};

thread_local! {
    static POOL: RefCell<Pool> = RefCell::default();
}

#[derive(Default)]
struct Pool {
    /// By the endpoint's key, newest last.
    idle: HashMap<u64, VecDeque<Idle>>,
    swept: Option<Instant>,
}

struct Idle {
    sender: SendRequest<RequestBody>,
    since: Instant,
}

#[derive(Debug, Clone, Copy)]
pub struct ConnectionSettings {
    pub connect_timeout: Duration,
    /// Below the service's own keep-alive time, so that it is us who close.
    pub idle_timeout: Duration,
    /// For each instance and worker.
    pub max_idle: usize,
}

/// A connection that one request has for itself. Dropped before the answer's end, it is closed.
#[derive(Debug)]
pub struct Lease {
    sender: SendRequest<RequestBody>,
    endpoint: Arc<Endpoint>,
    settings: ConnectionSettings,
}

/// An idle connection, the one used last, which is the likeliest to be alive.
pub fn idle(endpoint: &Arc<Endpoint>, settings: ConnectionSettings) -> Option<Lease> {
    let sender = POOL.with_borrow_mut(|pool| {
        let queue = pool.idle.get_mut(&endpoint.key())?;
        while let Some(idle) = queue.pop_back() {
            if idle.sender.is_ready() && idle.since.elapsed() < settings.idle_timeout {
                return Some(idle.sender);
            }
        }
        None
    })?;
    Some(Lease { sender, endpoint: Arc::clone(endpoint), settings })
}

/// A new connection.
pub async fn connect(endpoint: &Arc<Endpoint>, settings: ConnectionSettings) -> io::Result<Lease> {
    let sender = timeout(settings.connect_timeout, dial(endpoint))
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "connect timed out"))??;
    Ok(Lease { sender, endpoint: Arc::clone(endpoint), settings })
}

async fn dial(endpoint: &Endpoint) -> io::Result<SendRequest<RequestBody>> {
    let stream = match endpoint.address() {
        Address::Socket(address) => TcpStream::connect(address).await,
        Address::Name(host, port) => TcpStream::connect((host.as_str(), *port)).await,
    }?;
    // Small requests leave at once instead of waiting for the acknowledgement of the one before.
    stream.set_nodelay(true)?;
    if endpoint.is_tls() {
        shake_hands(tls::connect(endpoint.address(), stream).await?).await
    } else {
        shake_hands(stream).await
    }
}

async fn shake_hands<S>(stream: S) -> io::Result<SendRequest<RequestBody>>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) =
        http1::Builder::new().handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // The connection's own task, on the worker that made it. It ends with the connection, and what went
    // wrong on it is told to the request that was under way.
    TokioExecutor::new().execute(async move {
        let _ = connection.with_upgrades().await;
    });
    Ok(sender)
}

impl Lease {
    pub fn sender(&mut self) -> &mut SendRequest<RequestBody> {
        &mut self.sender
    }

    /// The answer was read to its end: the connection may serve the next request.
    pub fn release(mut self) {
        if self.sender.is_ready() {
            self.put();
        } else if !self.sender.is_closed() {
            // The connection's task has not yet come round to wanting the next request.
            TokioExecutor::new().execute(async move {
                if self.sender.ready().await.is_ok() {
                    self.put();
                }
            });
        }
    }

    fn put(self) {
        let now = Instant::now();
        POOL.with_borrow_mut(|pool| {
            pool.sweep(now, self.settings.idle_timeout);
            let queue = pool.idle.entry(self.endpoint.key()).or_default();
            if queue.len() < self.settings.max_idle {
                queue.push_back(Idle { sender: self.sender, since: now });
            }
        });
    }
}

impl Pool {
    /// Closes what has been idle for too long, also of instances that no longer exist.
    fn sweep(&mut self, now: Instant, idle_timeout: Duration) {
        if self.swept.is_some_and(|swept| now.duration_since(swept) < idle_timeout) {
            return;
        }
        self.swept = Some(now);
        self.idle.retain(|_, queue| {
            queue.retain(|idle| !idle.sender.is_closed() && now.duration_since(idle.since) < idle_timeout);
            !queue.is_empty()
        });
    }
}
