//! The admin port: the Actuator-shaped endpoints, on a small runtime of their own. Invariant: probes are answered however
//! busy the service is; only health, info and metrics are open, the rest needs the bearer token.

mod routes;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use parking_lot::RwLock;
use serde_json::Value;
use tokio::sync::oneshot;

use crate::config::{AdminSettings, Secret, ServerSettings};
use crate::health::Health;
use crate::http::server::Server;
use crate::telemetry::Telemetry;

/// What was built, and with which configuration it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildInfo {
    pub service: &'static str,
    pub instance: String,
    pub version: &'static str,
    /// The commit it was built from, as who starts it says (`FIRSTCOME_GIT_COMMIT`); otherwise `unknown`. Not compiled in:
    /// every commit would build everything anew.
    pub commit: String,
    pub config_commit: Option<String>,
    pub started_ms: u64,
}

impl BuildInfo {
    #[must_use]
    pub fn new(service: &'static str, instance: &str, config_commit: Option<String>) -> Self {
        Self {
            service,
            instance: instance.to_owned(),
            version: env!("CARGO_PKG_VERSION"),
            commit: std::env::var("FIRSTCOME_GIT_COMMIT").unwrap_or_else(|_| "unknown".to_owned()),
            config_commit,
            started_ms: crate::clock::now_ms(),
        }
    }
}

/// The admin port of this process; it closes when this is dropped.
pub(crate) struct Admin {
    address: SocketAddr,
    shared: Arc<Shared>,
    _end: oneshot::Sender<()>,
}

struct Shared {
    health: Health,
    info: BuildInfo,
    environment: Value,
    token: Secret,
    levels: crate::telemetry::Levels,
    metrics: crate::telemetry::Metrics,
    /// The service's own routes, which come when it is built.
    own: RwLock<Router>,
}

impl Admin {
    pub(crate) fn start(
        settings: &AdminSettings,
        health: Health,
        info: BuildInfo,
        environment: Value,
        telemetry: &Telemetry,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            health,
            info,
            environment,
            token: settings.token.clone(),
            levels: telemetry.levels(),
            metrics: telemetry.metrics(),
            own: RwLock::default(),
        });
        let server = ServerSettings {
            address: settings.address,
            port: settings.port,
            max_connections: 256,
            ..ServerSettings::default()
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let router = routes::router(shared.clone());
        let started = {
            let _within = runtime.enter();
            Server::start(&server, move |_| router.clone())?
        };
        let address = started.address();
        let (end, ended) = oneshot::channel::<()>();
        let metrics = shared.metrics.clone();
        std::thread::Builder::new().name("admin".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = ended => {}
                    () = metrics.upkeep() => {}
                }
            });
            drop(started);
        })?;
        Ok(Self { address, shared, _end: end })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Adds the service's own routes, behind the bearer check.
    pub(crate) fn add(&self, router: Router) {
        *self.shared.own.write() = router;
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("address", &self.address).finish_non_exhaustive()
    }
}
