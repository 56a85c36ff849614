//! From a service's name to a balancer over its instances.
//!
//! Invariant: there is one balancer for each service, whoever asks, so that what one route learns about an
//! instance all routes know.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use platform::consul::{Consul, Instance};
use platform::lifecycle::Lifecycle;
use tokio::sync::watch;

use crate::balance::Balancer;
use crate::balance::endpoint::Address;

/// The instances of a service, as they change.
pub type Instances = watch::Receiver<Arc<Vec<Instance>>>;

#[derive(Debug)]
pub enum Source {
    Consul(Consul),
    /// Named in advance: for tests, and for setups without Consul (then usually empty).
    Fixed(HashMap<String, Instances>),
}

#[derive(Debug)]
pub struct Discovery {
    source: Source,
    lifecycle: Lifecycle,
    avoid_for: Duration,
    balancers: Mutex<HashMap<String, Arc<Balancer>>>,
}

impl Discovery {
    /// `avoid_for`: see [`Balancer::new`].
    pub fn new(source: Source, lifecycle: Lifecycle, avoid_for: Duration) -> Self {
        Self { source, lifecycle, avoid_for, balancers: Mutex::default() }
    }

    /// The balancer of `lb://service`, which follows discovery from now on.
    pub fn service(&self, name: &str) -> Arc<Balancer> {
        let mut balancers = self.balancers.lock();
        Arc::clone(balancers.entry(name.to_owned()).or_insert_with(|| {
            let balancer = Arc::new(Balancer::new(name, self.avoid_for));
            if let Some(instances) = self.instances(name) {
                self.follow(Arc::clone(&balancer), instances);
            }
            balancer
        }))
    }

    /// The balancer of `http://host:port`.
    pub fn address(&self, host: &str, port: u16) -> Arc<Balancer> {
        let mut balancers = self.balancers.lock();
        Arc::clone(balancers.entry(format!("{host}:{port}")).or_insert_with(|| {
            // IPv6 addresses come in brackets.
            let address = match host.trim_matches(['[', ']']).parse() {
                Ok(ip) => Address::Socket(std::net::SocketAddr::new(ip, port)),
                Err(_) => Address::Name(host.to_owned(), port),
            };
            Arc::new(Balancer::fixed(address, self.avoid_for))
        }))
    }

    pub fn balancers(&self) -> Vec<Arc<Balancer>> {
        self.balancers.lock().values().cloned().collect()
    }

    fn instances(&self, name: &str) -> Option<Instances> {
        match &self.source {
            Source::Consul(consul) => Some(consul.watch(name)),
            Source::Fixed(services) => services.get(name).cloned(),
        }
    }

    fn follow(&self, balancer: Arc<Balancer>, mut instances: Instances) {
        balancer.update(&instances.borrow_and_update());
        let stop = self.lifecycle.background_stop();
        self.lifecycle.spawn("discovery", async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    changed = instances.changed() => match changed {
                        Ok(()) => balancer.update(&instances.borrow_and_update()),
                        // Nobody will say more: what is known stays.
                        Err(_) => {
                            stop.cancelled().await;
                            return Ok(());
                        }
                    },
                }
            }
        });
    }
}
