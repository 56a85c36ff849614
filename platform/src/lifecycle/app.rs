//! What a service hands over to be run.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;

use super::{BuildInfo, Lifecycle};
use crate::config::Configuration;
use crate::consul::Consul;
use crate::health::Health;
use crate::http::server::Edge;

/// What a service gets to build itself with.
#[derive(Clone, Debug)]
pub struct Context {
    pub service: &'static str,
    pub instance: String,
    pub lifecycle: Lifecycle,
    pub health: Health,
    /// None when `consul.enabled` is false.
    pub consul: Option<Consul>,
    pub info: BuildInfo,
    /// None for who brought settings of its own.
    pub configuration: Option<Configuration>,
}

type Flush = Pin<Box<dyn Future<Output = ()> + Send>>;
type PerWorker = Arc<dyn Fn(usize) -> Router + Send + Sync>;

/// A service that is ready to serve.
pub struct App {
    pub(super) routers: Option<PerWorker>,
    pub(super) edge: Option<Edge>,
    pub(super) admin: Router,
    pub(super) on_stop: Vec<Flush>,
}

impl App {
    #[must_use]
    pub fn new(router: Router) -> Self {
        Self::per_worker(move |_| router.clone())
    }

    /// A router for each worker (`server.workers`; called once, with 0, when that is 0), for those who keep a
    /// connection pool a runtime. It is called within the worker's runtime.
    #[must_use]
    pub fn per_worker(router: impl Fn(usize) -> Router + Send + Sync + 'static) -> Self {
        let routers: PerWorker = Arc::new(router);
        Self { routers: Some(routers), ..Self::admin_only() }
    }

    /// No public port: the admin port is what Consul hears of.
    #[must_use]
    pub fn admin_only() -> Self {
        Self { routers: None, edge: None, admin: Router::new(), on_stop: Vec::new() }
    }

    /// Clients meet this service first.
    #[must_use]
    pub fn edge(self, edge: Edge) -> Self {
        Self { edge: Some(edge), ..self }
    }

    /// More routes of the admin port, behind the bearer check.
    #[must_use]
    pub fn admin_routes(self, router: Router) -> Self {
        Self { admin: self.admin.merge(router), ..self }
    }

    /// Runs when the background tasks have ended, for at most a second together.
    #[must_use]
    pub fn on_stop(mut self, f: impl Future<Output = ()> + Send + 'static) -> Self {
        self.on_stop.push(Box::pin(f));
        self
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App")
            .field("serves", &self.routers.is_some())
            .field("on_stop", &self.on_stop.len())
            .finish_non_exhaustive()
    }
}
