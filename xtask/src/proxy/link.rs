//! One link: bytes from its client to the server and back, by the rules in force.
//!
//! Each direction keeps its order. A reset of one end is passed on as a reset, an orderly end as an orderly end.

use std::collections::VecDeque;
use std::future::pending;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::rule::{Effect, Rules, Way};
use super::{Peer, Proxy};

const CHUNK: usize = 64 << 10;
/// Chunks of a delayed direction that are on their way at once.
const ON_THEIR_WAY: usize = 256;

/// The rules as they concern one link.
#[derive(Clone)]
struct Law {
    rules: watch::Receiver<Arc<Rules>>,
    peer: Arc<Peer>,
}

impl Law {
    fn effect(&mut self, way: Way) -> Option<Effect> {
        self.rules.borrow_and_update().effect(self.peer.name(), way)
    }

    async fn changed(&mut self) {
        if self.rules.changed().await.is_err() {
            pending::<()>().await;
        }
    }

    /// Comes when the link is cut.
    async fn cut(mut self) {
        while self.effect(Way::Both) != Some(Effect::Cut) {
            self.changed().await;
        }
    }
}

pub(super) async fn carry(client: TcpStream, address: SocketAddr, proxy: Arc<Proxy>) {
    let peer = Arc::new(Peer { address, name: OnceLock::new() });
    let id = proxy.next.fetch_add(1, Ordering::Relaxed);
    proxy.links.lock().unwrap_or_else(PoisonError::into_inner).insert(id, peer.clone());
    forward(client, &proxy, peer).await;
    proxy.links.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
}

async fn forward(mut client: TcpStream, proxy: &Arc<Proxy>, peer: Arc<Peer>) {
    let mut law = Law { rules: proxy.rules.subscribe(), peer };
    if law.rules.borrow().by_name() {
        let proxy = proxy.clone();
        let _ = tokio::task::spawn_blocking(move || proxy.name_peers()).await;
    }
    // A call into a black hole does not get there.
    while law.effect(Way::ToServer) == Some(Effect::BlackHole) {
        law.changed().await;
    }
    if law.effect(Way::Both) == Some(Effect::Cut) {
        return reset(proxy, &[&client]);
    }
    let Ok(mut server) = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.behind())).await else {
        return reset(proxy, &[&client]);
    };
    if exchange(&mut client, &mut server, law).await.is_err() {
        reset(proxy, &[&client, &server]);
    }
}

/// Closed after this, they are reset.
fn reset(proxy: &Proxy, streams: &[&TcpStream]) {
    proxy.broken.fetch_add(1, Ordering::Relaxed);
    for stream in streams {
        let _ = stream.set_zero_linger();
    }
}

async fn exchange(client: &mut TcpStream, server: &mut TcpStream, law: Law) -> io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let both = async {
        tokio::try_join!(
            pump(from_client, to_server, Way::ToServer, law.clone()),
            pump(from_server, to_client, Way::FromServer, law.clone())
        )
    };
    tokio::select! {
        biased;
        () = law.clone().cut() => Err(io::ErrorKind::ConnectionReset.into()),
        ended = both => ended.map(drop),
    }
}

/// Until an orderly end was passed on.
async fn pump(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, way: Way, mut law: Law) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    // Each with the time of its arrival; an empty one is the end.
    let mut late: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    let mut ended = false;
    loop {
        let effect = law.effect(way);
        let open = effect != Some(Effect::BlackHole);
        // Where the delay was lifted, what is under way arrives at once.
        let delayed = matches!(effect, Some(Effect::Delay(_)));
        let due = late.front().map(|(due, _)| if delayed { *due } else { Instant::now() });
        tokio::select! {
            read = from.read(&mut buffer), if open && !ended && late.len() < ON_THEIR_WAY => {
                let chunk = &buffer[..read?];
                ended = chunk.is_empty();
                // The law may have changed since it was looked at.
                match law.effect(way) {
                    Some(Effect::Delay(by)) => late.push_back((Instant::now() + by, chunk.to_vec())),
                    Some(Effect::BlackHole) => late.push_back((Instant::now(), chunk.to_vec())),
                    _ if !late.is_empty() => late.push_back((Instant::now(), chunk.to_vec())),
                    _ if ended => return to.shutdown().await,
                    _ => to.write_all(chunk).await?,
                }
            }
            () = sleep_until(due.unwrap_or_else(Instant::now)), if open && due.is_some() => {
                match late.pop_front() {
                    Some((_, chunk)) if chunk.is_empty() => return to.shutdown().await,
                    Some((_, chunk)) => to.write_all(&chunk).await?,
                    None => {}
                }
            }
            () = law.changed() => {}
        }
    }
}
