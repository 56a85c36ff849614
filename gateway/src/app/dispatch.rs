//! The way of one request, from its route to its answer.
//!
//! Invariant: whatever a client sends passes the steps of [`Gateway::dispatch`] in their order; there is no other way
//! to a service.

use std::net::IpAddr;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use platform::http::problem::Problem;
use platform::http::server::Peer;
use platform::identity;
use tokio::time::{Instant, timeout};

use super::Gateway;
use super::fallback::Fallback;
use super::finish::Finish;
use crate::access_log::Entry;
use crate::cors::{self, CrossOrigin};
use crate::forwarded::Forwarded;
use crate::headers::{self, Behind};
use crate::limits::rate::RateSettings;
use crate::limits::{self, Permit, Permits};
use crate::proxy::body::RequestBody;
use crate::proxy::{Answer, Attempts, Plan, tunnel};
use crate::rescue::Failure;
use crate::routes::filter::outgoing::{self, Filtered};
use crate::routes::predicate::Asked;
use crate::routes::weight::Draws;
use crate::routes::{self, Access, Route, Target};
use crate::sending::{self, Outbound};

/// Bodies up to this many bytes are read as a whole; larger ones flow.
const SMALL_BODY: u64 = 64 * 1024;

/// What came through all steps.
pub(super) enum Passed {
    Answered(Answer, Permits),
    Tunnel(Answer, Permits, tunnel::Wanted),
    /// Answered by a filter, a preflight or `no://op`.
    Here(Response),
}

enum Found {
    /// And of the routes as they are now: where the client is, and what the service hears about the way.
    Route(Arc<Route>, Option<IpAddr>, Option<Forwarded>),
    /// Allowed, and answered here.
    Preflight,
}

/// A request that has its route.
struct Arrival {
    request: Request<Body>,
    peer: Option<Peer>,
    client: Option<IpAddr>,
    forwarded: Option<Forwarded>,
    /// Of a fallback, which has its place already.
    permit: Option<Permit>,
}

/// A request that can be sent.
struct Ready {
    parts: Parts,
    body: RequestBody,
    /// `Host` as the service is to hear it, if not its own address.
    host: Option<HeaderValue>,
    permits: Permits,
    tunnel: Option<tunnel::Wanted>,
    fallback: Option<Fallback>,
}

impl Gateway {
    /// The whole way, from the client inward. Plain calls in one future rather than a layer each: a layer
    /// costs an allocation and a clone of the service for every request, and this path is paid per claim.
    /// Around it, in the platform, lie trace context, panics and problem rendering.
    pub(super) async fn pass(
        &self,
        mut request: Request<Body>,
        entry: &mut Entry,
        attempts: &mut Attempts,
        finish: &mut Finish,
    ) -> Result<Passed, Problem> {
        // One form of the path, so that what is matched is what is sent.
        routes::normalise(&mut request)?;
        if let Some(answer) = self.openapi.as_ref().and_then(|openapi| openapi.answer(&request)) {
            return answer.map(Passed::Here);
        }
        self.dispatch(request, None, entry, attempts, finish).await
    }

    /// From the route to its answer; once more for a fallback, which has time of its own.
    async fn dispatch(
        &self,
        request: Request<Body>,
        permit: Option<Permit>,
        entry: &mut Entry,
        attempts: &mut Attempts,
        finish: &mut Finish,
    ) -> Result<Passed, Problem> {
        let peer = request.extensions().get::<Peer>().copied();
        // 404 and 405 before 401: the table is public, and no token is looked at for nothing.
        let (route, arrival) = match self.find(&request, peer, finish)? {
            Found::Route(route, client, forwarded) => {
                (route, Arrival { request, peer, client, forwarded, permit })
            }
            Found::Preflight => return Ok(Passed::Here(Response::default())),
        };
        entry.route(&route.id);
        let passed = self.follow(&route, arrival, entry, attempts, finish).await;
        // A fallback has put its own there before. Moved and not cloned: all workers count its references.
        finish.route.get_or_insert(route);
        passed
    }

    async fn follow(
        &self,
        route: &Route,
        arrival: Arrival,
        entry: &mut Entry,
        attempts: &mut Attempts,
        finish: &mut Finish,
    ) -> Result<Passed, Problem> {
        let mut reading = false;
        let preparing = self.prepare(route, arrival, entry, finish, &mut reading);
        let ready = match timeout(self.settings.server.request_timeout, preparing).await {
            Ok(prepared) => prepared?,
            // No service has it: the gateway is late, or its client.
            Err(_late) => return Err(if reading { Failure::ClientSlow } else { Failure::Unsent }.into()),
        };
        match ready {
            ControlFlow::Continue(ready) => {
                // From here on: what a slow client took of it would be missing to an instance, which would be blamed.
                let deadline = Instant::now().checked_add(self.time_of(route));
                self.send(route, ready, deadline, entry, attempts, finish).await
            }
            ControlFlow::Break(response) => Ok(Passed::Here(response)),
        }
    }

    /// For all tries of one request together. What a route says of its own counts, if it is longer.
    fn time_of(&self, route: &Route) -> Duration {
        let connect = route.timeouts.connect.unwrap_or(self.settings.upstream.connect_timeout);
        let own = route.timeouts.response.map(|response| response.saturating_add(connect));
        let breaker = route.breaker.as_ref().map(|breaking| breaking.settings.time_limit);
        let general = self.settings.server.request_timeout;
        own.into_iter().chain(breaker).fold(general, Duration::max)
    }

    /// All that comes before a request is sent; or its answer, if that is given here.
    async fn prepare(
        &self,
        route: &Route,
        Arrival { request, peer, client, forwarded, permit }: Arrival,
        entry: &mut Entry,
        finish: &mut Finish,
        reading: &mut bool,
    ) -> Result<ControlFlow<Response, Ready>, Problem> {
        // Who asks is known before a byte of the body is read, and whether the route is for them.
        let caller = self.auth.authenticate(route.access.authentication, request.headers()).await?;
        if let Some(caller) = &caller {
            if self.behind == Behind::Identity {
                entry.user(caller.user());
            }
            caller.permit(&route.access)?;
        }
        if let Some(rate) = &route.rate {
            let user = caller.as_ref().map(|caller| caller.name());
            let key = rate.key.of(user, client, &request);
            self.limit(rate, route, key, finish).await?;
        }
        // Whatever is waited for from here on is the client's body.
        *reading = true;
        // A body that announces its size is refused by it; the others are counted as they pass.
        let limit = route.body_limit.unwrap_or(self.settings.limits.request_body);
        let too_large = limits::announced_length(request.headers()).is_some_and(|length| length > limit);
        let idle = self.settings.upstream.body_idle_timeout;
        let mut request = request.map(|body| RequestBody::new(body, limit, idle));
        if too_large {
            let _reading = self.reading.admit()?;
            return Err(request
                .into_body()
                .drain()
                .await
                .map_or_else(Failure::from, |()| Failure::BodyTooLarge)
                .into());
        }
        let tunnel = tunnel::wanted(&mut request, &self.tunnels, caller.as_ref())?;
        let (mut parts, mut body) = request.into_parts();
        // A small body is read before a place is taken: clients that send theirs byte by byte hold a connection each,
        // and nothing else. How many may do so is bounded too, as one connection of HTTP/2 brings many.
        if limit <= SMALL_BODY && !body.is_complete() {
            let _reading = self.reading.admit()?;
            body = RequestBody::whole(sending::whole(body).await?);
        }
        // Held until the last byte of the answer. Beyond the limit nobody waits: it would only make answers later.
        let permit = permit.map_or_else(|| self.in_flight.admit(), Ok)?;
        let share = caller.as_ref().map(|caller| self.shares.admit(caller.user())).transpose()?;
        let permits = Permits::take(permit, share, route.in_flight.as_ref())?;
        let fallback = match route.fallback().filter(|_| !finish.is_fallback && tunnel.is_none()) {
            Some(path) => {
                let bytes = sending::whole(body).await?;
                body = RequestBody::whole(bytes.clone());
                Some(Fallback { path: path.to_owned(), parts: parts.clone(), bytes, peer })
            }
            None => None,
        };
        let host = outgoing::host_of(&parts.headers);
        // Nothing that the client says about itself survives ...
        headers::clean_request(&mut parts.headers, self.behind);
        // ... then come the route's own changes ...
        let host = match filter(route, &mut parts, host, finish)? {
            Filtered::Send { host } => host,
            Filtered::Redirect { status, location } => {
                body.drain().await.map_err(Failure::from)?;
                return Ok(ControlFlow::Break((status, [(header::LOCATION, location)]).into_response()));
            }
        };
        // ... and what the gateway says comes last, so that nothing can take it away.
        if let Some(forwarded) = forwarded {
            forwarded.write(&mut parts.headers);
        }
        if self.behind == Behind::Identity {
            if let Some(caller) = &caller {
                parts.headers.insert(identity::HEADER, self.auth.identity_header(caller));
            }
            if let Some(client) = client.filter(|_| route.passes_client_address) {
                parts.headers.insert(identity::CLIENT_HEADER, self.auth.client_header(client));
            }
        }
        platform::http::trace::inject(&mut parts.headers);
        if tunnel.is_some() {
            tunnel::ask(&mut parts.headers);
        }
        if let Target::Nowhere = route.target {
            // Read to its end, as a service would, so that the connection stays usable.
            body.drain().await.map_err(Failure::from)?;
            return Ok(ControlFlow::Break(Response::default()));
        }
        Ok(ControlFlow::Continue(Ready { parts, body, host, permits, tunnel, fallback }))
    }

    /// To an instance and back; sent at most once, unless the route says otherwise.
    async fn send(
        &self,
        route: &Route,
        Ready { parts, body, host, permits, tunnel, fallback }: Ready,
        deadline: Option<Instant>,
        entry: &mut Entry,
        attempts: &mut Attempts,
        finish: &mut Finish,
    ) -> Result<Passed, Problem> {
        let Target::Balanced(balancer) = &route.target else { return Ok(Passed::Here(Response::default())) };
        let plan = Plan { host, timeouts: route.timeouts, deadline, ..Plan::default() };
        match sending::send(&self.proxy, route, balancer, Outbound { parts, body, plan }, attempts).await {
            Ok(answer) if answer.response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                let agreed = tunnel.filter(|_| tunnel::is_agreed(&answer.response));
                let tunnel = agreed.ok_or_else(|| {
                    Problem::upstream_error().source("a change of protocol nobody asked for")
                })?;
                Ok(Passed::Tunnel(answer, permits, tunnel))
            }
            Ok(answer) => Ok(Passed::Answered(answer, permits)),
            Err(failure) => match fallback.filter(|_| failure.is_of_service()) {
                Some(fallback) => {
                    tracing::debug!(error = %failure, route.id = %route.id, fallback = fallback.path, "fallback");
                    finish.is_fallback = true;
                    finish.rated = None;
                    // The place at the gateway stays the same one.
                    self.fall_back(fallback.request()?, permits.gateway(), entry, attempts, finish).await
                }
                None => Err(failure.into()),
            },
        }
    }

    /// Boxed, because a future can't hold itself.
    fn fall_back<'a>(
        &'a self,
        request: Request<Body>,
        permit: Permit,
        entry: &'a mut Entry,
        attempts: &'a mut Attempts,
        finish: &'a mut Finish,
    ) -> Pin<Box<dyn Future<Output = Result<Passed, Problem>> + Send + 'a>> {
        Box::pin(self.dispatch(request, Some(permit), entry, attempts, finish))
    }

    /// Takes the caller's tokens from the route's bucket.
    async fn limit(
        &self,
        rate: &RateSettings,
        route: &Route,
        key: Option<String>,
        finish: &mut Finish,
    ) -> Result<(), Problem> {
        let Some(key) = key else {
            return if rate.deny_empty_key { Err(rate.no_key()) } else { Ok(()) };
        };
        let decision = self.rates.decide(&route.id, &key, rate).await;
        finish.rated = Some(decision);
        if decision.allowed { Ok(()) } else { Err(rate.refusal()) }
    }

    fn find(
        &self,
        request: &Request<Body>,
        peer: Option<Peer>,
        finish: &mut Finish,
    ) -> Result<Found, Problem> {
        // Let go of before anybody is waited for; what the request needs of it later it takes along.
        let routing = self.routing.load();
        let address = peer.map(|peer| peer.address.ip());
        let cross_origin =
            if finish.is_fallback { None } else { CrossOrigin::of(request.method(), request.headers()) };
        let preflight = cross_origin.as_ref().and_then(CrossOrigin::preflight);
        let asked = Asked {
            // A preflight asks for what the browser wants to send.
            method: preflight.map_or(request.method(), |preflight| &preflight.method),
            path: request.uri().path(),
            query: request.uri().query(),
            headers: request.headers(),
            peer: address,
            now_ms: self.clock.now_ms(),
            draws: Draws::default(),
        };
        let found = routing.table.find(&asked);
        // At a fallback, what was said of the origin stays said.
        if !finish.is_fallback {
            let configured = match &found {
                Ok(route) => route.cors.as_ref().or_else(|| routing.cors.find(asked.path)),
                Err(_) => routing.cors.find(asked.path),
            };
            finish.cors = configured.is_some();
            if let (Some(configured), Some(cross_origin)) = (configured, &cross_origin) {
                finish.allowed = Some(configured.judge(cross_origin, request.method())?);
            }
        }
        let route = found?;
        if preflight.is_some() {
            return if finish.allowed.is_some() { Ok(Found::Preflight) } else { Err(cors::refused()) };
        }
        finish.variables = route.capture(&asked);
        let scheme = if peer.is_some_and(|peer| peer.tls) { "https" } else { "http" };
        Ok(Found::Route(
            Arc::clone(route),
            routing.trusted.client(address, request.headers()),
            routing.trusted.forward(address, request.headers(), scheme),
        ))
    }

    /// Who may use an operation of a service, if a plain request for it gets there, and under the same path.
    pub(crate) fn access(&self, service: &str, method: &Method, path: &str) -> Option<Access> {
        let routing = self.routing.load();
        let mut request = Request::builder().method(method).uri(path).body(()).ok()?;
        routes::normalise(&mut request).ok()?;
        let (mut parts, ()) = request.into_parts();
        let asked = Asked {
            method,
            path,
            query: None,
            headers: &HeaderMap::new(),
            peer: None,
            now_ms: self.clock.now_ms(),
            draws: Draws::default(),
        };
        let route = routing.table.find(&asked).ok()?;
        let finish = Finish { variables: route.capture(&asked), ..Finish::default() };
        let leads_there =
            matches!(&route.target, Target::Balanced(balancer) if balancer.service() == service);
        let sent = filter(route, &mut parts, None, &finish).ok()?;
        let is_sent = leads_there && matches!(sent, Filtered::Send { .. }) && parts.uri.path() == path;
        is_sent.then(|| route.access.clone())
    }
}

/// The route's own changes of a request.
fn filter(
    route: &Route,
    parts: &mut Parts,
    host: Option<HeaderValue>,
    finish: &Finish,
) -> Result<Filtered, Problem> {
    if route.request_filters.is_empty() {
        return Ok(Filtered::Send { host: None });
    }
    let filtered = outgoing::apply(&route.request_filters, parts, host, &finish.variables)?;
    // A pattern that lets a client choose a path's beginning must not let it choose this one.
    if route.reserved.contain(parts.uri.path()) {
        return Err(Problem::not_found());
    }
    Ok(filtered)
}
