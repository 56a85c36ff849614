//! A thin client of Consul's HTTP agent API (<https://developer.hashicorp.com/consul/api-docs/agent/service>).
//! Invariant: a watched list is never replaced by nothing because Consul is away: the last known one stays.

mod watch;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use parking_lot::Mutex;
use rand::Rng as _;
use serde_json::{Value, json};
use tokio::runtime::Handle;

use crate::config::ConsulSettings;
use crate::health::{Health, Status};
use crate::lifecycle::{Causes, Lifecycle};

/// The agent is on the same machine.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How often it is asked whether it still knows us; a restarted agent in memory doesn't.
const KEEP_INTERVAL: Duration = Duration::from_secs(10);
/// While it doesn't take the registration.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Cheap to clone; clones share their watches.
#[derive(Clone)]
pub struct Consul(Arc<Inner>);

struct Inner {
    url: String,
    token: crate::config::Secret,
    client: reqwest::Client,
    runtime: Option<Handle>,
    watches: Mutex<HashMap<String, tokio::sync::watch::Receiver<Arc<Vec<Instance>>>>>,
}

/// What Consul is told of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The instance's name.
    pub id: String,
    /// The service's name.
    pub name: String,
    pub address: SocketAddr,
    pub meta: BTreeMap<String, String>,
    /// Answers 200 while the instance is ready; asked each second.
    pub check_url: String,
}

/// One passing instance of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    pub id: String,
    pub address: SocketAddr,
    pub meta: BTreeMap<String, String>,
    pub zone: String,
    /// Share of the requests, 1 by default.
    pub weight: u32,
}

#[derive(Debug, thiserror::Error)]
pub enum ConsulError {
    #[error("Consul can't be reached")]
    Unreachable(#[source] reqwest::Error),
    #[error("Consul answered {0}")]
    Status(StatusCode),
    #[error("Consul's answer is not understood: {0}")]
    Answer(String),
}

impl Consul {
    /// Within a runtime: watches run there.
    #[must_use]
    pub fn new(settings: &ConsulSettings) -> Self {
        let client = reqwest::Client::builder()
            .connect_timeout(TIMEOUT)
            .tcp_nodelay(true)
            .no_proxy()
            .build()
            .unwrap_or_default();
        Self(Arc::new(Inner {
            url: settings.url.trim_end_matches('/').to_owned(),
            token: settings.token.clone(),
            client,
            runtime: Handle::try_current().ok(),
            watches: Mutex::default(),
        }))
    }

    /// Registers with an HTTP check; the instance counts once the check has passed.
    ///
    /// # Errors
    /// When the agent is away or refuses.
    pub async fn register(&self, registration: &Registration) -> Result<(), ConsulError> {
        self.register_as(registration, false).await
    }

    /// The same; with `passing` the instance counts at once, until the check says otherwise.
    async fn register_as(&self, registration: &Registration, passing: bool) -> Result<(), ConsulError> {
        let body = json!({
            "ID": registration.id,
            "Name": registration.name,
            "Address": registration.address.ip().to_string(),
            "Port": registration.address.port(),
            "Tags": [],
            "Meta": registration.meta,
            "Check": {
                "CheckID": check_id(&registration.id),
                "Name": "readiness",
                "HTTP": registration.check_url,
                "Interval": "1s",
                "Timeout": "1s",
                // The shortest that Consul takes; no failure detector, only for what never comes back.
                "DeregisterCriticalServiceAfter": "1m",
                "Status": if passing { "passing" } else { "critical" },
            },
        });
        let path = "/v1/agent/service/register?replace-existing-checks=true";
        self.send(Method::PUT, path, Some(&body)).await.map(drop)
    }

    /// # Errors
    /// When the agent is away or refuses; an id that it doesn't know is no error.
    pub async fn deregister(&self, id: &str) -> Result<(), ConsulError> {
        let path = format!("/v1/agent/service/deregister/{}", segment(id));
        match self.send(Method::PUT, &path, None).await {
            Ok(_) | Err(ConsulError::Status(StatusCode::NOT_FOUND)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Registers, and again whenever Consul has forgotten, until the process stops. Its absence is waited out.
    /// Whoever is ready, or becomes it, is found at once, without waiting for Consul's next check.
    pub fn keep_registered(&self, registration: Registration, health: Health, lifecycle: &Lifecycle) {
        let (consul, stopping) = (self.clone(), lifecycle.stopping());
        lifecycle.spawn("consul registration", async move {
            let keep = async {
                let (mut told, mut ready) = (false, false);
                loop {
                    // A process that was killed leaves its registration under the same id: only what this process
                    // has registered itself is its own.
                    let known = if told { consul.knows(&registration.id).await } else { Ok(false) };
                    let known = match known {
                        Ok(false) => {
                            ready = health.readiness() == Status::Up;
                            consul.register_as(&registration, ready).await.map(|()| true)
                        }
                        known => known,
                    };
                    match known {
                        Ok(_) => {
                            if !told {
                                tracing::info!(service = %registration.name, ready, "registered in Consul");
                            }
                            tokio::select! {
                                () = health.ready(), if !ready => told = false,
                                () = tokio::time::sleep(KEEP_INTERVAL) => told = true,
                            }
                        }
                        Err(error) => {
                            if told {
                                tracing::warn!(error = %Causes(&error), "Consul is away");
                            }
                            told = false;
                            tokio::time::sleep(RETRY_INTERVAL).await;
                        }
                    }
                }
            };
            tokio::select! {
                () = keep => {}
                () = stopping.cancelled() => {}
            }
            Ok(())
        });
    }

    async fn knows(&self, id: &str) -> Result<bool, ConsulError> {
        match self.send(Method::GET, &format!("/v1/agent/service/{}", segment(id)), None).await {
            Ok(_) => Ok(true),
            Err(ConsulError::Status(StatusCode::NOT_FOUND)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The passing instances of a service, kept up to date. All watchers of one name share one question to Consul. The
    /// list is empty until the first answer.
    #[must_use]
    pub fn watch(&self, service: &str) -> tokio::sync::watch::Receiver<Arc<Vec<Instance>>> {
        let mut watches = self.0.watches.lock();
        if let Some(watch) = watches.get(service) {
            return watch.clone();
        }
        let (sender, receiver) = tokio::sync::watch::channel(Arc::default());
        let watch = watch::run(Arc::downgrade(&self.0), service.to_owned(), sender);
        match self.0.runtime.clone().or_else(|| Handle::try_current().ok()) {
            Some(runtime) => drop(runtime.spawn(watch)),
            None => tracing::error!(service, "watched outside of a runtime"),
        }
        watches.insert(service.to_owned(), receiver.clone());
        receiver
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<reqwest::Response, ConsulError> {
        let mut request = self.0.request(method, path).timeout(TIMEOUT);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(ConsulError::Unreachable)?;
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(ConsulError::Status(response.status()))
        }
    }
}

impl Inner {
    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.url));
        if self.token.is_empty() { request } else { request.header("x-consul-token", self.token.expose()) }
    }
}

/// Anew for each registration: Consul keeps the state of a check that it knows by its id, whatever it is told.
fn check_id(instance: &str) -> String {
    format!("service:{instance}:{:08x}", rand::rng().random::<u32>())
}

/// Names are ours or an operator's: letters, digits, `-`, `_`, `.`; anything else is escaped.
fn segment(name: &str) -> String {
    name.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

impl fmt::Debug for Consul {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consul").field("url", &self.0.url).finish_non_exhaustive()
    }
}
