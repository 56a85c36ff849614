//! From a service's name to a balancer over its instances.
//!
//! Invariant: there is one balancer for each service, whoever asks, so that what one route learns about an
//! instance all routes know.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use platform::consul::{Consul, Instance};
use platform::lifecycle::Lifecycle;
use tokio::sync::watch;

use crate::balance::endpoint::Address;
use crate::balance::{BalanceSettings, Balancer, Known};
use crate::routes::uri::TargetUri;

/// The instances of a service, as they change.
pub type Instances = watch::Receiver<Arc<Vec<Instance>>>;

#[derive(Debug)]
pub enum Source {
    Consul(Consul),
    /// Named in advance, for tests.
    Fixed(HashMap<String, Instances>),
    /// Listed in the route file; see [`Discovery::list`].
    Listed,
}

#[derive(Debug)]
pub struct Discovery {
    source: Source,
    lifecycle: Lifecycle,
    settings: BalanceSettings,
    balancers: Mutex<HashMap<String, Arc<Balancer>>>,
    listed: Mutex<HashMap<String, Vec<Known>>>,
}

impl Discovery {
    pub fn new(source: Source, lifecycle: Lifecycle, settings: BalanceSettings) -> Self {
        Self { source, lifecycle, settings, balancers: Mutex::default(), listed: Mutex::default() }
    }

    /// The balancer of a route's uri; of `no://op` there is none.
    pub fn balancer(&self, uri: &TargetUri) -> Option<Arc<Balancer>> {
        match uri {
            TargetUri::Service(name) => Some(self.service(name)),
            TargetUri::Address { host, port, tls } => Some(self.address(host, *port, *tls)),
            TargetUri::Nowhere => None,
        }
    }

    /// The balancer of `lb://service`, which follows discovery from now on.
    pub fn service(&self, name: &str) -> Arc<Balancer> {
        let mut balancers = self.balancers.lock();
        Arc::clone(balancers.entry(name.to_owned()).or_insert_with(|| {
            let balancer = Arc::new(Balancer::new(name, self.settings.clone()));
            if let Some(known) = self.listed.lock().get(name) {
                balancer.update(known.iter().cloned());
            }
            if let Some(instances) = self.instances(name) {
                self.follow(Arc::clone(&balancer), instances);
            }
            balancer
        }))
    }

    /// The balancer of `http://host:port`, or of `https://host:port`.
    pub fn address(&self, host: &str, port: u16, tls: bool) -> Arc<Balancer> {
        let mut balancers = self.balancers.lock();
        let scheme = if tls { "https" } else { "http" };
        Arc::clone(balancers.entry(format!("{scheme}://{host}:{port}")).or_insert_with(|| {
            let address = Address::of(host, port);
            let balancer = Balancer::new(&address.to_string(), self.settings.clone());
            balancer.update([Known {
                id: address.to_string(),
                address,
                tls,
                weight: 1,
                zone: String::new(),
            }]);
            Arc::new(balancer)
        }))
    }

    /// Takes over the instances that a file names; services that it no longer names have none.
    pub fn list(&self, services: HashMap<String, Vec<Known>>) {
        let balancers = self.balancers.lock();
        let mut listed = self.listed.lock();
        for name in listed.keys().chain(services.keys()) {
            if let Some(balancer) = balancers.get(name) {
                balancer.update(services.get(name).into_iter().flatten().cloned());
            }
        }
        *listed = services;
    }

    pub fn balancers(&self) -> Vec<Arc<Balancer>> {
        self.balancers.lock().values().cloned().collect()
    }

    fn instances(&self, name: &str) -> Option<Instances> {
        match &self.source {
            Source::Consul(consul) => Some(consul.watch(name)),
            Source::Fixed(services) => services.get(name).cloned(),
            Source::Listed => None,
        }
    }

    fn follow(&self, balancer: Arc<Balancer>, mut instances: Instances) {
        balancer.update(instances.borrow_and_update().iter().map(Known::from));
        let stop = self.lifecycle.background_stop();
        self.lifecycle.spawn("discovery", async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    changed = instances.changed() => match changed {
                        Ok(()) => balancer.update(instances.borrow_and_update().iter().map(Known::from)),
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
