//! Forwarding proxies in front of the servers of a run, where links can be cut, delayed and black-holed.
//!
//! Everybody is told a proxy's port and reaches the server through it; the server listens behind. Invariant: a rule
//! holds for as long as its [`Imposed`] lives, so that whatever ends a fault, an error included, lifts it.

mod link;
mod peer;
mod rule;

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

pub(crate) use self::peer::{connected_to, owners};
pub(crate) use self::rule::{Effect, Source, Way};
use self::rule::{Rule, Rules};

/// Tells which process each of these addresses belongs to.
pub(crate) type Owners = Arc<dyn Fn(&[SocketAddr]) -> HashMap<SocketAddr, String> + Send + Sync>;

/// One for each server, by its name.
pub(crate) struct Proxies {
    proxies: BTreeMap<String, Arc<Proxy>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Where a proxy listens and what it forwards to.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) name: String,
    pub(crate) port: u16,
    pub(crate) behind: u16,
}

pub(crate) struct Proxy {
    /// The port behind it.
    behind: AtomicU16,
    rules: watch::Sender<Arc<Rules>>,
    links: Mutex<BTreeMap<u64, Arc<Peer>>>,
    next: AtomicU64,
    owners: Owners,
    /// Of all proxies one at a time looks for owners, which takes milliseconds of a processor: whoever waits for it has
    /// mostly been found then.
    looking: Arc<Mutex<()>>,
    /// Links that ended by a reset, or never came about.
    broken: AtomicU64,
}

/// Who is at the other end of a link. The name is found out when a rule asks for it; none, if it is nobody's.
struct Peer {
    address: SocketAddr,
    name: OnceLock<Option<String>>,
}

impl Peer {
    fn name(&self) -> Option<&str> {
        self.name.get()?.as_deref()
    }
}

impl Proxies {
    pub(crate) fn start(places: &[Place], owners: &Owners) -> Result<Self> {
        if places.is_empty() {
            return Ok(Self { proxies: BTreeMap::new(), stop: None, thread: None });
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let looking = Arc::<Mutex<()>>::default();
        let mut proxies = BTreeMap::new();
        let mut listening = Vec::new();
        for Place { name, port, behind } in places {
            let listener = runtime
                .block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, *port)))
                .with_context(|| format!("open the proxy of {name} on port {port}"))?;
            let proxy = Arc::new(Proxy {
                behind: AtomicU16::new(*behind),
                rules: watch::Sender::default(),
                links: Mutex::default(),
                next: AtomicU64::new(0),
                owners: owners.clone(),
                looking: looking.clone(),
                broken: AtomicU64::new(0),
            });
            listening.push((listener, proxy.clone()));
            proxies.insert(name.clone(), proxy);
        }
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name("proxies".to_owned()).spawn(move || {
            runtime.block_on(async move {
                let mut tasks = JoinSet::new();
                for (listener, proxy) in listening {
                    tasks.spawn(accept(listener, proxy));
                }
                // Its sender's end is the end of all links.
                let _ = stopped.await;
            });
        })?;
        Ok(Self { proxies, stop: Some(stop), thread: Some(thread) })
    }

    pub(crate) fn of(&self, server: &str) -> Result<&Arc<Proxy>> {
        self.proxies.get(server).with_context(|| format!("{server} has no proxy"))
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Proxy>> {
        self.proxies.values()
    }
}

impl Drop for Proxies {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: TcpListener, proxy: Arc<Proxy>) {
    let mut links = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, address)) => {
                    links.spawn(link::carry(client, address, proxy.clone()));
                }
                // Out of descriptors, perhaps: those who wait are still there later.
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            },
            Some(_) = links.join_next() => {}
        }
    }
}

impl Proxy {
    /// Puts a rule in force on present and future links, until what is returned is dropped. Of several rules for one
    /// link the latest counts.
    pub(crate) fn impose(self: &Arc<Self>, from: Source, way: Way, effect: Effect) -> Imposed {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let by_name = matches!(from, Source::These(_));
        self.change(|rules| rules.push(Rule { id, from, way, effect }));
        if by_name {
            // A link that came later than the rule finds out by itself.
            self.name_peers();
            self.change(|_| {});
        }
        Imposed { proxy: self.clone(), id }
    }

    pub(crate) fn behind(&self) -> u16 {
        self.behind.load(Ordering::SeqCst)
    }

    /// Leads new links to another server; present ones stay where they are.
    pub(crate) fn lead_to(&self, port: u16) {
        self.behind.store(port, Ordering::SeqCst);
    }

    /// How many links have ended by a reset until now, or never came about.
    pub(crate) fn broken(&self) -> u64 {
        self.broken.load(Ordering::Relaxed)
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Rule>)) {
        self.rules.send_modify(|rules| {
            let mut changed = (**rules).clone();
            change(changed.as_mut());
            *rules = Arc::new(changed);
        });
    }

    fn name_peers(&self) {
        let _one_at_a_time = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let unnamed: Vec<Arc<Peer>> =
            links.values().filter(|peer| peer.name.get().is_none()).cloned().collect();
        drop(links);
        if unnamed.is_empty() {
            return;
        }
        let addresses: Vec<SocketAddr> = unnamed.iter().map(|peer| peer.address).collect();
        let owners = (self.owners)(&addresses);
        for peer in unnamed {
            let _ = peer.name.set(owners.get(&peer.address).cloned());
        }
    }
}

/// A rule in force.
#[must_use = "the rule ends when this is dropped"]
pub(crate) struct Imposed {
    proxy: Arc<Proxy>,
    id: u64,
}

impl Drop for Imposed {
    fn drop(&mut self) {
        self.proxy.change(|rules| rules.retain(|rule| rule.id != self.id));
    }
}

#[cfg(test)]
mod tests;
