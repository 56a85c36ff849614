//! A request's way to its service as its route wants it: within its circuit breaker, and again if it may.
//!
//! Invariant: whatever time ends a try, one of its own, the breaker's or the request's, the instance that was asked is
//! blamed for it, and so is the service at the breaker; unless it was the client who was slow.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::request::Parts;
use http_body_util::BodyExt as _;
use tokio::time::{Instant, sleep, timeout_at};

use crate::balance::Balancer;
use crate::proxy::body::RequestBody;
use crate::proxy::{Answer, Attempts, Plan, Proxy};
use crate::rescue::Failure;
use crate::resilience::{Breaking, Retry};
use crate::routes::Route;

/// Bytes of a body that is kept for a second try; 413 beyond, as every place may hold one.
const MOST_KEPT: u64 = 1024 * 1024;

/// What is sent.
#[derive(Debug)]
pub struct Outbound {
    pub parts: Parts,
    pub body: RequestBody,
    pub plan: Plan,
}

/// Sends it. A service that says no in a way that the breaker counts has failed only if there is a fallback for it;
/// otherwise its word is the answer.
pub async fn send(
    proxy: &Proxy,
    route: &Route,
    balancer: &Balancer,
    outbound: Outbound,
    attempts: &mut Attempts,
) -> Result<Answer, Failure> {
    match &route.breaker {
        Some(breaking) => guarded(proxy, route, breaking, balancer, outbound, attempts).await,
        None => repeated(proxy, route, balancer, outbound, attempts).await,
    }
}

async fn guarded(
    proxy: &Proxy,
    route: &Route,
    Breaking { breaker, settings }: &Breaking,
    balancer: &Balancer,
    mut outbound: Outbound,
    attempts: &mut Attempts,
) -> Result<Answer, Failure> {
    let passage =
        breaker.enter().map_err(|open| Failure::Open { name: settings.name.clone(), left: open.0 })?;
    // A deadline rather than a time-out around it: who is asked when it comes is told to the balancer too.
    outbound.plan.end_within(settings.time_limit);
    let sent = repeated(proxy, route, balancer, outbound, attempts).await;
    match sent {
        Ok(answer) if settings.statuses.contains(&answer.response.status().as_u16()) => {
            passage.failed();
            if settings.fallback.is_none() {
                return Ok(answer);
            }
            let status = answer.response.status();
            Err(Failure::Refused { service: balancer.service().to_owned(), status })
        }
        Ok(answer) => {
            passage.succeeded();
            Ok(answer)
        }
        Err(failure) => {
            // Whoever broke off said nothing about the service.
            if failure.is_of_service() {
                passage.failed();
            }
            Err(failure)
        }
    }
}

async fn repeated(
    proxy: &Proxy,
    route: &Route,
    balancer: &Balancer,
    outbound: Outbound,
    attempts: &mut Attempts,
) -> Result<Answer, Failure> {
    let Outbound { parts, body, mut plan } = outbound;
    let Some(retry) = route.retry.as_ref().filter(|retry| retry.is_for(&parts.method)) else {
        return proxy.forward(balancer, Request::from_parts(parts, body), &plan, attempts).await;
    };
    let body = match plan.deadline {
        Some(deadline) => timeout_at(deadline, whole(body)).await.map_err(|_| Failure::ClientSlow)??,
        None => whole(body).await?,
    };
    retry.deposit();
    let (started, mut pause) = (Instant::now(), Duration::ZERO);
    for number in 1.. {
        let request = Request::from_parts(parts.clone(), RequestBody::whole(body.clone()));
        let sent = proxy.forward(balancer, request, &plan, attempts).await;
        pause = retry.settings.backoff.map_or(Duration::ZERO, |backoff| backoff.pause(number, pause));
        if !plan.leaves(pause) || !is_worth_another(retry, &sent, number, started, pause) {
            return sent;
        }
        metrics::counter!("firstcome_gateway_retries_total", "reason" => "filter").increment(1);
        plan.failed_before.extend(attempts.last.clone());
        drop(sent); // and with it the connection, whose answer nobody reads
        sleep(pause).await;
    }
    Err(Failure::Unsent)
}

fn is_worth_another(
    retry: &Retry,
    sent: &Result<Answer, Failure>,
    number: u32,
    started: Instant,
    pause: Duration,
) -> bool {
    let wanted = match sent {
        Ok(answer) => retry.wants_status(answer.response.status()),
        Err(failure) => retry.wants_failure(failure),
    };
    let in_time = retry.settings.timeout.is_none_or(|most| started.elapsed() + pause <= most);
    wanted && number <= retry.settings.retries && in_time && retry.withdraw()
}

/// All of a body, so that it can be sent more than once; within the limit that it carries, and never more than is kept.
pub async fn whole(body: RequestBody) -> Result<Bytes, Failure> {
    Ok(body.at_most(MOST_KEPT).collect().await.map_err(Failure::from)?.to_bytes())
}
