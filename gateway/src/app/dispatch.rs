//! The way of one request, from its route to its answer.
//!
//! Invariant: whatever a client sends passes the steps of [`Gateway::dispatch`] in their order; there is no other way
//! to a service.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, Request, StatusCode, header};
use platform::http::problem::Problem;
use platform::http::server::Peer;
use platform::identity;

use super::fallback::Fallback;
use super::finish::Finish;
use super::{Gateway, Routing};
use crate::access_log::Entry;
use crate::cors::{self, CrossOrigin};
use crate::headers::{self, Behind};
use crate::limits::rate::RateSettings;
use crate::limits::{self, Permit, Permits};
use crate::proxy::body::RequestBody;
use crate::proxy::{Answer, Attempts, Plan, tunnel};
use crate::rescue::Failure;
use crate::routes::filter::outgoing::{self, Filtered};
use crate::routes::predicate::Asked;
use crate::routes::weight::Draws;
use crate::routes::{self, Route, Target};
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
    Route(Arc<Route>),
    /// Allowed, and answered here.
    Preflight,
}

impl Gateway {
    /// The whole way, from the client inward. Plain calls in one future rather than a layer each: a layer
    /// costs an allocation and a clone of the service for every request, and this path is paid per claim.
    /// The overall time-out lies around it, and in the platform trace context, panics and problem rendering.
    pub(super) async fn pass(
        &self,
        mut request: Request<Body>,
        entry: &mut Entry,
        attempts: &mut Attempts,
        finish: &mut Finish,
    ) -> Result<Passed, Problem> {
        // One form of the path, so that what is matched is what is sent.
        routes::normalise(&mut request)?;
        self.dispatch(request, None, entry, attempts, finish).await
    }

    /// From the route to its answer; once more for a fallback.
    async fn dispatch(
        &self,
        request: Request<Body>,
        permit: Option<Permit>,
        entry: &mut Entry,
        attempts: &mut Attempts,
        finish: &mut Finish,
    ) -> Result<Passed, Problem> {
        let routing = self.routing.load_full();
        let peer = request.extensions().get::<Peer>().copied();
        let address = peer.map(|peer| peer.address.ip());
        // 404 and 405 before 401: the table is public, and no token is looked at for nothing.
        let route = match self.find(&routing, &request, address, finish)? {
            Found::Route(route) => route,
            Found::Preflight => return Ok(Passed::Here(Response::default())),
        };
        entry.route(&route.id);
        // Who asks is known before a byte of the body is read, and whether the route is for them.
        let caller = self.auth.authenticate(route.access.authentication, request.headers()).await?;
        if let Some(caller) = &caller {
            entry.user(caller.user());
            caller.permit(&route.access)?;
        }
        let client = routing.trusted.client(address, request.headers());
        if let Some(rate) = &route.rate {
            let user = caller.as_ref().map(|caller| caller.user());
            let key = rate.key.of(user, client, &request);
            self.limit(rate, &route, key, finish).await?;
        }
        // A body that announces its size is refused by it; the others are counted as they pass.
        let limit = route.body_limit.unwrap_or(self.settings.limits.request_body);
        let too_large = limits::announced_length(request.headers()).is_some_and(|length| length > limit);
        let idle = self.settings.upstream.body_idle_timeout;
        let mut request = request.map(|body| RequestBody::new(body, limit, idle));
        if too_large {
            return Err(request
                .into_body()
                .drain()
                .await
                .map_or_else(Failure::from, |()| Failure::BodyTooLarge)
                .into());
        }
        let tunnel = tunnel::wanted(&mut request);
        let (mut parts, mut body) = request.into_parts();
        // A small body is read before a place is taken: clients that send theirs byte by byte hold a connection each,
        // and nothing else.
        if limit <= SMALL_BODY && !body.is_complete() {
            attempts.reading_body = true;
            body = RequestBody::whole(sending::whole(body).await?);
            attempts.reading_body = false;
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
        let scheme = if peer.is_some_and(|peer| peer.tls) { "https" } else { "http" };
        let forwarded = routing.trusted.forward(address, &parts.headers, scheme);
        // Nothing that the client says about itself survives ...
        headers::clean_request(&mut parts.headers, self.behind);
        // ... then come the route's own changes ...
        let host = match self.filter(&routing, &route, &mut parts, host, finish)? {
            Filtered::Send { host } => host,
            Filtered::Redirect { status, location } => {
                body.drain().await.map_err(Failure::from)?;
                return Ok(Passed::Here((status, [(header::LOCATION, location)]).into_response()));
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
        let Target::Balanced(balancer) = &route.target else {
            // Read to its end, as a service would, so that the connection stays usable.
            body.drain().await.map_err(Failure::from)?;
            return Ok(Passed::Here(Response::default()));
        };
        let plan = Plan { host, timeouts: route.timeouts, ..Plan::default() };
        // To an instance and back; sent at most once, unless the route says otherwise.
        match sending::send(&self.proxy, &route, balancer, Outbound { parts, body, plan }, attempts).await {
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
        routing: &Routing,
        request: &Request<Body>,
        peer: Option<IpAddr>,
        finish: &mut Finish,
    ) -> Result<Found, Problem> {
        let cross_origin =
            if finish.is_fallback { None } else { CrossOrigin::of(request.method(), request.headers()) };
        let preflight = cross_origin.as_ref().and_then(CrossOrigin::preflight);
        let asked = Asked {
            // A preflight asks for what the browser wants to send.
            method: preflight.map_or(request.method(), |preflight| &preflight.method),
            path: request.uri().path(),
            query: request.uri().query(),
            headers: request.headers(),
            peer,
            now_ms: self.clock.now_ms(),
            draws: Draws::default(),
        };
        let found = routing.table.find(&asked);
        if finish.is_fallback {
            // What was said of the origin stays said.
            let route = found?;
            finish.variables = route.capture(&asked);
            finish.route = Some(Arc::clone(route));
            return Ok(Found::Route(Arc::clone(route)));
        }
        let configured = match &found {
            Ok(route) => route.cors.as_ref().or_else(|| routing.cors.find(asked.path)),
            Err(_) => routing.cors.find(asked.path),
        };
        finish.cors = configured.is_some();
        if let (Some(configured), Some(cross_origin)) = (configured, &cross_origin) {
            finish.allowed = Some(configured.judge(cross_origin, request.method())?);
        }
        let route = found?;
        if preflight.is_some() {
            return if finish.allowed.is_some() { Ok(Found::Preflight) } else { Err(cors::refused()) };
        }
        finish.variables = route.capture(&asked);
        finish.route = Some(Arc::clone(route));
        Ok(Found::Route(Arc::clone(route)))
    }

    fn filter(
        &self,
        routing: &Routing,
        route: &Route,
        parts: &mut http::request::Parts,
        host: Option<HeaderValue>,
        finish: &Finish,
    ) -> Result<Filtered, Problem> {
        if route.request_filters.is_empty() {
            return Ok(Filtered::Send { host: None });
        }
        let filtered = outgoing::apply(&route.request_filters, parts, host, &finish.variables)?;
        // A pattern that lets a client choose a path's beginning must not let it choose this one.
        if routing.table.is_reserved(parts.uri.path()) {
            return Err(Problem::not_found());
        }
        Ok(filtered)
    }
}
