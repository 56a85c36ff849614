//! The gateway put together, and the way of one request through it.
//!
//! Invariant: whatever a client sends passes the steps of [`Gateway::pass`] in their order; there is no
//! other way to a service.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{Request, StatusCode};
use platform::clock::Clock;
use platform::health::Health;
use platform::http::problem::Problem;
use platform::http::server::Edge;
use platform::identity::{self, IdentitySigner};
use platform::lifecycle::{App, BoxError, Context, Lifecycle};
use tokio::time::timeout;

use crate::access_log::Entry;
use crate::auth::Authenticator;
use crate::auth::jwks::{self, Jwks};
use crate::balance::Balancer;
use crate::config::{GatewaySettings, JwtAlgorithm, RouteSettings};
use crate::discovery::{Discovery, Source};
use crate::headers;
use crate::limits::{self, InFlightLimit, Permit};
use crate::proxy::body::{Held, RequestBody, ResponseBody};
use crate::proxy::{Answer, Attempts, Proxy};
use crate::rescue::Failure;
use crate::routes::{self, Route, RouteTable, Target, TargetUri};

/// One in so many of the places in flight may wait for keys: whoever sends tokens of made-up keys while the user
/// service hangs takes no more.
const KEY_WAITERS: usize = 16;

/// What the gateway is built on, so that tests can put in discovery and a clock of their own.
#[derive(Debug)]
pub struct Parts {
    pub discovery: Discovery,
    pub clock: Clock,
    pub lifecycle: Lifecycle,
    pub health: Health,
}

#[derive(Debug)]
pub struct Gateway {
    routes: RouteTable,
    auth: Authenticator,
    proxy: Arc<Proxy>,
    in_flight: Arc<InFlightLimit>,
    discovery: Discovery,
    settings: GatewaySettings,
}

/// From the process's context to what it serves.
pub async fn start(context: Context, settings: GatewaySettings) -> Result<App, BoxError> {
    let source = match context.consul {
        Some(consul) => Source::Consul(consul),
        None => Source::Fixed(std::collections::HashMap::default()),
    };
    let discovery = Discovery::new(source, context.lifecycle.clone(), settings.upstream.avoid_for);
    let parts =
        Parts { discovery, clock: Clock::system(), lifecycle: context.lifecycle, health: context.health };
    let edge = edge(&settings);
    let gateway = build(settings, parts)?;
    Ok(App::new(router(Arc::clone(&gateway))).edge(edge).admin_routes(admin_router(gateway)))
}

/// What the platform's outermost layer has to know.
pub fn edge(settings: &GatewaySettings) -> Edge {
    Edge { trust_client_sampling: settings.trace.trust_client_sampling }
}

pub fn build(settings: GatewaySettings, parts: Parts) -> Result<Arc<Gateway>, BoxError> {
    let Parts { discovery, clock, lifecycle, health } = parts;
    let proxy = Arc::new(Proxy::new(settings.upstream.proxy()));
    let routes =
        settings.enabled_routes().map(|route| build_route(route, &discovery)).collect::<Result<_, _>>()?;
    let jwks = Jwks::new((settings.limits.in_flight / KEY_WAITERS).max(1));
    if settings.jwt.accepts(JwtAlgorithm::EdDSA) {
        let (uri, path) = TargetUri::parse(&settings.jwt.jwks_uri)?;
        let balancer = balancer(&uri, &discovery).ok_or("the key set's uri names no service")?;
        let source = jwks::Source { balancer, path: path.to_owned(), proxy: Arc::clone(&proxy) };
        let schedule = jwks::Schedule {
            refresh: settings.jwt.jwks_refresh,
            min_interval: settings.jwt.jwks_min_interval,
        };
        let stop = lifecycle.background_stop();
        lifecycle.spawn("jwks", Arc::clone(&jwks).follow(source, schedule, health.component("jwks"), stop));
    }
    let signer = IdentitySigner::new(&settings.identity).with_clock(clock.clone());
    Ok(Arc::new(Gateway {
        routes: RouteTable::new(routes),
        auth: Authenticator::new(&settings.jwt, jwks, signer, clock),
        proxy,
        in_flight: InFlightLimit::new(settings.limits.in_flight),
        discovery,
        settings,
    }))
}

fn build_route(settings: &RouteSettings, discovery: &Discovery) -> Result<Route, BoxError> {
    let (uri, _) = TargetUri::parse(&settings.uri)?;
    let target = balancer(&uri, discovery).map_or(Target::Noop, Target::Balanced);
    Route::new(settings.clone(), target).map_err(|problems| problems.join("; ").into())
}

fn balancer(uri: &TargetUri, discovery: &Discovery) -> Option<Arc<Balancer>> {
    match uri {
        TargetUri::Service(name) => Some(discovery.service(name)),
        TargetUri::Address { host, port } => Some(discovery.address(host, *port)),
        TargetUri::Noop => None,
    }
}

/// One fallback instead of a tree of routes: the route table is the router.
pub fn router(gateway: Arc<Gateway>) -> Router {
    Router::new().fallback(serve).with_state(gateway)
}

pub fn admin_router(gateway: Arc<Gateway>) -> Router {
    Router::new()
        .route(
            "/actuator/gateway/routes",
            get(async |State(gateway): State<Arc<Gateway>>| axum::Json(gateway.routes.describe())),
        )
        .route(
            "/actuator/gateway/instances",
            get(async |State(gateway): State<Arc<Gateway>>| axum::Json(gateway.describe_instances())),
        )
        .with_state(gateway)
}

async fn serve(State(gateway): State<Arc<Gateway>>, request: Request<Body>) -> Response {
    let mut entry = Entry::start(&request); // every request leaves one line, whatever becomes of it
    let mut attempts = Attempts::default();
    let passing = gateway.pass(request, &mut entry, &mut attempts);
    let passed = timeout(gateway.settings.server.request_timeout, passing).await;
    let passed = passed.unwrap_or_else(|_late| Err(attempts.overdue().into()));
    entry.upstream(attempts);
    match passed {
        Ok(Passed::Answered(answer, permit)) => gateway.respond(answer, permit, entry),
        Ok(Passed::Noop) => {
            entry.status(StatusCode::NO_CONTENT);
            entry.finish();
            StatusCode::NO_CONTENT.into_response()
        }
        Err(problem) => {
            let response = problem.into_response();
            entry.status(response.status());
            entry.finish();
            response
        }
    }
}

/// What came through all steps.
#[expect(clippy::large_enum_variant, reason = "the large one is the usual one, and lives for a moment")]
enum Passed {
    Answered(Answer, Permit),
    Noop,
}

impl Gateway {
    /// The whole way, from the client inward. Plain calls in one future rather than a layer each: a layer
    /// costs an allocation and a clone of the service for every request, and this path is paid per claim.
    /// The overall time-out lies around it, and in the platform trace context, panics and problem rendering.
    async fn pass(
        &self,
        mut request: Request<Body>,
        entry: &mut Entry,
        attempts: &mut Attempts,
    ) -> Result<Passed, Problem> {
        // Shed before anything is spent; the place is held until the last byte of the answer.
        let permit = self.in_flight.admit()?;
        // One form of the path, so that what is matched is what is sent.
        routes::normalise(&mut request)?;
        // 404 and 405 before 401: the table is public, and no token is looked at for nothing.
        let route = self.routes.find(request.method(), request.uri().path())?;
        entry.route(&route.id);
        // Who asks is known before a byte of the body is read.
        let caller = self.auth.authenticate(route.authentication, request.headers()).await?;
        // A body that announces its size is refused by it; the others are counted as they pass.
        let limit = self.settings.limits.request_body;
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
        // Nothing that the client says about itself survives ...
        headers::clean_request(request.headers_mut());
        // ... and what the gateway says comes after, so that nothing can take it away.
        if let Some(caller) = &caller {
            entry.user(caller.user());
            request.headers_mut().insert(identity::HEADER, self.auth.identity_header(caller));
        }
        platform::http::trace::inject(request.headers_mut());
        // To one instance and back; sent at most once.
        match &route.target {
            Target::Balanced(balancer) => {
                let answer = self.proxy.forward(balancer, request, attempts).await?;
                Ok(Passed::Answered(answer, permit))
            }
            Target::Noop => {
                // Read to its end, as a service would, so that the connection stays usable.
                request.into_body().drain().await.map_err(Failure::from)?;
                Ok(Passed::Noop)
            }
        }
    }

    fn respond(&self, answer: Answer, permit: Permit, mut entry: Entry) -> Response {
        let Answer { response, lease, in_flight } = answer;
        let (mut parts, body) = response.into_parts();
        headers::clean_response(&mut parts.headers);
        parts.extensions.clear();
        entry.status(parts.status);
        let held = Held { lease, in_flight, permit, entry };
        let body = ResponseBody::new(body, self.settings.upstream.body_idle_timeout, held);
        Response::from_parts(parts, Body::new(body))
    }

    fn describe_instances(&self) -> Vec<serde_json::Value> {
        self.discovery.balancers().iter().map(|balancer| balancer.describe()).collect()
    }
}

#[cfg(test)]
mod tests;
