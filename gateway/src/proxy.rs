//! Brings a request to an instance and the answer back.
//!
//! Invariant: a request is sent at most once. It goes to another instance only while no byte of it was
//! written: no connection could be made, or hyper gave it back unbegun.

pub mod body;
pub mod connections;
mod tls;
pub mod tunnel;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use platform::lifecycle::BoxError;
use tokio::time::{Instant, timeout};

use crate::balance::Balancer;
use crate::balance::endpoint::{Endpoint, InFlight};
use crate::rescue::Failure;
use crate::routes::Timeouts;
use body::{Progress, RequestBody};
use connections::{ConnectionSettings, Lease};

#[derive(Debug, Clone, Copy)]
pub struct ProxySettings {
    pub connection: ConnectionSettings,
    /// From the request being sent to the answer's head.
    pub response_timeout: Duration,
    /// Instances asked for a connection, the first included.
    pub connect_attempts: usize,
}

#[derive(Debug)]
pub struct Proxy {
    settings: ProxySettings,
}

/// How one request is to be sent.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// In place of the instance's own address.
    pub host: Option<HeaderValue>,
    /// In place of the general ones.
    pub timeouts: Timeouts,
    /// Instances that failed the request before; asked only if there is no other.
    pub failed_before: Vec<Arc<Endpoint>>,
    /// When the answer's head has to be there, however many are tried.
    pub deadline: Option<Instant>,
}

impl Plan {
    /// `time`, or less if the deadline comes before.
    fn at_most(&self, time: Duration) -> Duration {
        self.deadline.map_or(time, |deadline| time.min(deadline.saturating_duration_since(Instant::now())))
    }

    /// Whether more than `time` is left.
    #[must_use]
    pub fn leaves(&self, time: Duration) -> bool {
        self.deadline.is_none_or(|deadline| deadline.saturating_duration_since(Instant::now()) > time)
    }

    /// Brings the deadline nearer.
    pub fn end_within(&mut self, time: Duration) {
        self.deadline = self.deadline.into_iter().chain(Instant::now().checked_add(time)).min();
    }
}

/// An answer's head, and what has to be held until its body ends.
#[derive(Debug)]
pub struct Answer {
    pub response: Response<Incoming>,
    pub lease: Lease,
    pub in_flight: InFlight,
}

/// Who was asked; kept outside of the answer because failures need it too.
#[derive(Debug, Default)]
pub struct Attempts {
    pub last: Option<Arc<Endpoint>>,
    pub count: u32,
}

enum Sent {
    Answered(Response<Incoming>, Lease),
    /// Not a byte was written.
    Returned(Box<Request<RequestBody>>, io::Error),
    Failed(Failure),
}

impl Proxy {
    pub fn new(settings: ProxySettings) -> Self {
        Self { settings }
    }

    pub async fn forward(
        &self,
        balancer: &Balancer,
        mut request: Request<RequestBody>,
        plan: &Plan,
        attempts: &mut Attempts,
    ) -> Result<Answer, Failure> {
        *request.version_mut() = Version::HTTP_11;
        let progress = request.body().progress();
        let mut tried = plan.failed_before.clone();
        let mut unreachable = None;
        for _ in 0..self.settings.connect_attempts {
            let unreached = &tried[plan.failed_before.len()..];
            let Some(endpoint) = balancer.pick(&tried).or_else(|| balancer.pick(unreached)) else { break };
            if unreachable.is_some() {
                metrics::counter!("firstcome_gateway_retries_total", "reason" => "unreached").increment(1);
            }
            attempts.count += 1;
            attempts.last = Some(Arc::clone(&endpoint));
            let in_flight = endpoint.begin();
            match self.attempt(balancer, &endpoint, request, plan, &progress).await {
                Sent::Answered(response, lease) => return Ok(Answer { response, lease, in_flight }),
                Sent::Failed(failure) => return Err(failure),
                Sent::Returned(_, error) if !plan.leaves(Duration::ZERO) => {
                    // It had less than the time that a connection may take.
                    balancer.broke(&endpoint, "unreachable");
                    return Err(Failure::Unreachable { service: balancer.service().to_owned(), error });
                }
                Sent::Returned(back, error) => {
                    balancer.unreachable(&endpoint);
                    unreachable = Some(error);
                    request = *back;
                    tried.push(endpoint);
                }
            }
        }
        let service = balancer.service().to_owned();
        Err(match unreachable {
            Some(error) => Failure::Unreachable { service, error },
            None => {
                balancer.nobody();
                Failure::NoInstance { service }
            }
        })
    }

    /// A question of the gateway's own, within the caller's patience: waits for an instance where discovery has yet to
    /// name one, and takes 200 with at most `max_bytes` for an answer.
    pub async fn get(&self, balancer: &Balancer, path: &str, max_bytes: usize) -> Result<Bytes, BoxError> {
        balancer.populated().await;
        let request = Request::get(path).body(RequestBody::empty())?;
        let answer = self.forward(balancer, request, &Plan::default(), &mut Attempts::default()).await?;
        let status = answer.response.status();
        if status != StatusCode::OK {
            return Err(format!("status {status}").into());
        }
        let body = Limited::new(answer.response.into_body(), max_bytes).collect().await?.to_bytes();
        answer.lease.release();
        Ok(body)
    }

    async fn attempt(
        &self,
        balancer: &Balancer,
        endpoint: &Arc<Endpoint>,
        mut request: Request<RequestBody>,
        plan: &Plan,
        progress: &Progress,
    ) -> Sent {
        let host = plan.host.as_ref().unwrap_or(endpoint.host()).clone();
        request.headers_mut().insert(header::HOST, host);
        // An idle connection may have been closed by the service a moment ago; that says nothing about the
        // instance, so the next one is tried, and a new one at last.
        while let Some(lease) = connections::idle(endpoint, self.settings.connection) {
            match self.send(balancer, lease, endpoint, request, plan, progress).await {
                Sent::Returned(back, _) => request = *back,
                done => return done,
            }
        }
        let mut settings = self.settings.connection;
        settings.connect_timeout = plan.at_most(plan.timeouts.connect.unwrap_or(settings.connect_timeout));
        match connections::connect(endpoint, settings).await {
            Ok(lease) => self.send(balancer, lease, endpoint, request, plan, progress).await,
            Err(error) => Sent::Returned(Box::new(request), error),
        }
    }

    async fn send(
        &self,
        balancer: &Balancer,
        mut lease: Lease,
        endpoint: &Endpoint,
        request: Request<RequestBody>,
        plan: &Plan,
        progress: &Progress,
    ) -> Sent {
        let started = Instant::now();
        let time = plan.at_most(plan.timeouts.response.unwrap_or(self.settings.response_timeout));
        // Bound to a name, so that the time-out drops it and with it the connection.
        let sending = lease.sender().try_send_request(request);
        match timeout(time, sending).await {
            Ok(Ok(response)) => {
                balancer.answered(endpoint, started.elapsed(), response.status().is_server_error());
                Sent::Answered(response, lease)
            }
            Ok(Err(mut error)) => match error.take_message() {
                Some(request) => Sent::Returned(Box::new(request), io::Error::other(error.into_error())),
                None => {
                    let failure = Failure::of_connection(balancer.service(), error.into_error());
                    if matches!(failure, Failure::Broken { .. }) {
                        balancer.broke(endpoint, "broken");
                    }
                    Sent::Failed(failure)
                }
            },
            Err(_elapsed) if progress.waits_for_client() => Sent::Failed(Failure::ClientSlow),
            Err(_elapsed) => {
                balancer.broke(endpoint, "silent");
                Sent::Failed(Failure::Silent { service: balancer.service().to_owned() })
            }
        }
    }
}
