//! Calls from service to service: by discovery, with the role SERVICE, within the current trace. For control-plane
//! calls, not for the path of a claim.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::consul::{Consul, Instance};
use crate::identity::{HEADER, Identity, IdentitySigner};
use crate::lifecycle::BoxError;

/// An instance on the same network that takes longer is gone.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// Below the 5 s after which a server closes an idle connection (its header timeout).
const IDLE_TIMEOUT: Duration = Duration::from_secs(3);

/// Cheap to clone.
#[derive(Clone)]
pub struct ServiceClient(Arc<Inner>);

struct Inner {
    consul: Consul,
    signer: IdentitySigner,
    client: reqwest::Client,
    services: Mutex<HashMap<String, Service>>,
}

#[derive(Clone)]
struct Service {
    instances: watch::Receiver<Arc<Vec<Instance>>>,
    turn: Arc<AtomicUsize>,
}

/// Why a call gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No passing instance, or none could be reached; the request was not sent.
    #[error("no instance of {0} is available")]
    Unavailable(String),
    /// It may have arrived.
    #[error("the answer did not come in time")]
    Timeout,
    #[error("the answer was {0}")]
    Status(StatusCode),
    /// The connection broke, or the answer is not what was expected.
    #[error("no usable answer")]
    Broken(#[source] BoxError),
}

impl ServiceClient {
    #[must_use]
    pub fn new(consul: Consul, signer: IdentitySigner) -> Self {
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .tcp_nodelay(true)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap_or_default();
        Self(Arc::new(Inner { consul, signer, client, services: Mutex::default() }))
    }

    /// GETs JSON from any passing instance of the service, in turn. An instance that can't be connected to is passed
    /// over once.
    ///
    /// # Errors
    /// Says whether anything was sent; see [`CallError`].
    pub async fn get_json<T: DeserializeOwned>(
        &self,
        service: &str,
        path_and_query: &str,
        timeout: Duration,
    ) -> Result<T, CallError> {
        let call = self.call(service, path_and_query, timeout);
        tokio::time::timeout(timeout, call).await.unwrap_or(Err(CallError::Timeout))
    }

    async fn call<T: DeserializeOwned>(
        &self,
        service: &str,
        path_and_query: &str,
        timeout: Duration,
    ) -> Result<T, CallError> {
        let unavailable = || CallError::Unavailable(service.to_owned());
        let Service { mut instances, turn } = self.service(service);
        // At the very start nothing is known yet.
        let known = instances.wait_for(|instances| !instances.is_empty());
        let instances = match tokio::time::timeout(timeout.min(CONNECT_TIMEOUT), known).await {
            Ok(Ok(instances)) => instances.clone(),
            _ => return Err(unavailable()),
        };
        let first = turn.fetch_add(1, Ordering::Relaxed);
        for attempt in 0..2 {
            let instance = &instances[(first.wrapping_add(attempt)) % instances.len()];
            match self.get(instance, path_and_query, timeout).await {
                Err(error) if error.is_connect() => {
                    tracing::debug!(service, instance = %instance.id, %error, "can't connect");
                }
                Err(error) if error.is_timeout() => return Err(CallError::Timeout),
                Err(error) => return Err(CallError::Broken(error.without_url().into())),
                Ok(response) if response.status().is_success() => {
                    let body = response.bytes().await.map_err(|error| CallError::Broken(error.into()))?;
                    return serde_json::from_slice(&body).map_err(|error| CallError::Broken(error.into()));
                }
                Ok(response) => return Err(CallError::Status(response.status())),
            }
        }
        Err(unavailable())
    }

    async fn get(
        &self,
        instance: &Instance,
        path_and_query: &str,
        timeout: Duration,
    ) -> reqwest::Result<reqwest::Response> {
        let mut headers = HeaderMap::with_capacity(2);
        headers.insert(HEADER, self.0.signer.sign(&Identity::service()));
        super::trace::inject(&mut headers);
        let url = format!("http://{}{path_and_query}", instance.address);
        self.0.client.get(url).headers(headers).timeout(timeout).send().await
    }

    fn service(&self, name: &str) -> Service {
        let mut services = self.0.services.lock();
        if let Some(service) = services.get(name) {
            return service.clone();
        }
        let service = Service { instances: self.0.consul.watch(name), turn: Arc::default() };
        services.insert(name.to_owned(), service.clone());
        service
    }
}

impl fmt::Debug for ServiceClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceClient").field("consul", &self.0.consul).finish_non_exhaustive()
    }
}
