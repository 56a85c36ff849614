//! The gateway put together. The way of one request through it is in [`dispatch`].

mod dispatch;
mod fallback;
mod finish;

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::Request;
use platform::clock::Clock;
use platform::health::Health;
use platform::http::server::Edge;
use platform::identity::IdentitySigner;
use platform::lifecycle::{App, BoxError, Context, Lifecycle};
use platform::redis::Redis;
use tokio_util::sync::CancellationToken;

use crate::access_log::Entry;
use crate::auth::Authenticator;
use crate::auth::jwks::{self, Jwks};
use crate::auth::revocations::{self, Revocations};
use crate::balance::Known;
use crate::config::{GatewaySettings, RoutingSettings};
use crate::cors::GlobalCors;
use crate::discovery::{Discovery, Source};
use crate::forwarded::TrustedProxies;
use crate::headers::Behind;
use crate::limits::rate::{self, RateLimiter};
use crate::limits::{FairShare, InFlightLimit};
use crate::openapi::OpenApi;
use crate::proxy::{Attempts, Proxy};
use crate::reload;
use crate::routes::uri::TargetUri;
use crate::routes::{RouteTable, Target};
use crate::standalone::Standalone;
use dispatch::Passed;
use finish::Finish;

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
    /// None: limits are counted here alone.
    pub redis: Option<Redis>,
}

#[derive(Debug)]
pub struct Gateway {
    /// Replaced as a whole; a request keeps its route of the one that it began with.
    routing: ArcSwap<Routing>,
    auth: Authenticator,
    proxy: Arc<Proxy>,
    in_flight: Arc<InFlightLimit>,
    /// Requests whose bodies are being read before they have a place.
    reading: Arc<InFlightLimit>,
    tunnels: Arc<InFlightLimit>,
    shares: Arc<FairShare>,
    rates: RateLimiter,
    discovery: Arc<Discovery>,
    /// None: the API is not described here.
    openapi: Option<Arc<OpenApi>>,
    clock: Clock,
    stopping: CancellationToken,
    behind: Behind,
    settings: GatewaySettings,
}

/// What can be changed while the gateway runs.
#[derive(Debug, Default)]
struct Routing {
    table: RouteTable,
    cors: GlobalCors,
    trusted: TrustedProxies,
}

/// From the process's context to what it serves.
pub async fn start(context: Context, settings: GatewaySettings) -> Result<App, BoxError> {
    let source = context.consul.map_or(Source::Listed, Source::Consul);
    let discovery = Discovery::new(source, context.lifecycle.clone(), settings.balancing());
    if let Some(Standalone { services, warnings, .. }) = &settings.standalone {
        discovery.list(services.clone());
        for warning in warnings {
            tracing::warn!(%warning, "in the route file");
        }
    }
    let parts = Parts {
        discovery,
        clock: Clock::system(),
        lifecycle: context.lifecycle.clone(),
        health: context.health.clone(),
        redis: settings.redis().map(|redis| Redis::connect(redis, &context.lifecycle, &[rate::SCRIPT])),
    };
    let edge = edge(&settings);
    let current = settings.routing();
    let standalone = settings.standalone.clone();
    let gateway = build(settings, parts)?;
    let keeper = reload::Keeper::new(Arc::clone(&gateway), current, &context.health);
    let stop = context.lifecycle.background_stop();
    match (standalone, context.configuration) {
        (Some(start), _) => context.lifecycle.spawn("route file", keeper.follow_file(start, stop)),
        (None, Some(configuration)) => {
            context.lifecycle.spawn("configuration", keeper.follow_server(configuration, stop));
        }
        (None, None) => {}
    }
    Ok(App::new(router(Arc::clone(&gateway))).edge(edge).admin_routes(admin_router(gateway)))
}

/// What the platform's outermost layer has to know.
pub fn edge(settings: &GatewaySettings) -> Edge {
    Edge { trust_client_sampling: settings.trace.trust_client_sampling }
}

pub fn build(settings: GatewaySettings, parts: Parts) -> Result<Arc<Gateway>, BoxError> {
    let Parts { discovery, clock, lifecycle, health, redis } = parts;
    let discovery = Arc::new(discovery);
    let proxy = Arc::new(Proxy::new(settings.upstream.proxy()));
    let jwks = Jwks::new((settings.limits.in_flight / KEY_WAITERS).max(1));
    let behind = if settings.standalone.is_some() { Behind::Standalone } else { Behind::Identity };
    if settings.jwt.has_key_set() {
        let source = jwks::Source {
            place: settings.jwt.place(),
            accepted: settings.jwt.algorithms.iter().map(|named| named.algorithm()).collect(),
            discovery: Arc::clone(&discovery),
            proxy: Arc::clone(&proxy),
        };
        let schedule = jwks::Schedule {
            refresh: settings.jwt.jwks_refresh,
            min_interval: settings.jwt.jwks_min_interval,
        };
        let stop = lifecycle.background_stop();
        lifecycle.spawn("jwks", Arc::clone(&jwks).follow(source, schedule, health.component("jwks"), stop));
    }
    let revocations = Arc::new(Revocations::default());
    if let Some(redis) = redis.clone().filter(|_| behind == Behind::Identity) {
        let health = health.optional_component("revocations");
        let (name, stop) = (revocations::REVOKED_SESSIONS, lifecycle.background_stop());
        let follow = Arc::clone(&revocations).follow(redis, name, clock.clone(), health, stop);
        lifecycle.spawn("revocations", follow);
    }
    let openapi =
        OpenApi::new(&settings.openapi.services, |service| discovery.service(service), &proxy).map(Arc::new);
    let signer = IdentitySigner::new(&settings.identity).with_clock(clock.clone());
    let gateway = Arc::new(Gateway {
        routing: ArcSwap::default(),
        auth: Authenticator::new(&settings.jwt, jwks, revocations, signer, clock.clone(), behind),
        proxy,
        in_flight: InFlightLimit::new(settings.limits.in_flight),
        reading: InFlightLimit::new(settings.limits.reading),
        tunnels: InFlightLimit::new(settings.limits.websockets),
        shares: FairShare::new(settings.limits.in_flight_per_user),
        rates: RateLimiter::new(redis, &lifecycle),
        discovery,
        openapi,
        clock,
        stopping: lifecycle.stopping(),
        behind,
        settings,
    });
    gateway.route(&gateway.settings.routing()).map_err(|problems| listed(&problems))?;
    if let Some(openapi) = gateway.openapi.clone() {
        let follow = openapi.follow(Arc::clone(&gateway), lifecycle.background_stop());
        lifecycle.spawn("API description", follow);
    }
    Ok(gateway)
}

/// Problems on one line.
pub(crate) fn listed(problems: &[(String, String)]) -> String {
    problems.iter().map(|(path, problem)| format!("{path}: {problem}")).collect::<Vec<_>>().join("; ")
}

/// One fallback instead of a tree of routes: the route table is the router.
pub fn router(gateway: Arc<Gateway>) -> Router {
    Router::new().fallback(serve).with_state(gateway)
}

pub fn admin_router(gateway: Arc<Gateway>) -> Router {
    Router::new()
        .route(
            "/actuator/gateway/routes",
            get(async |State(gateway): State<Arc<Gateway>>| {
                axum::Json(gateway.routing.load().table.describe())
            }),
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
    let mut finish = Finish::default();
    let passed = gateway.pass(request, &mut entry, &mut attempts, &mut finish).await;
    entry.upstream(attempts);
    let mut response = match passed {
        Ok(Passed::Answered(answer, permits)) => return gateway.respond(answer, permits, &mut finish, entry),
        Ok(Passed::Tunnel(answer, permits, wanted)) => {
            return gateway.switch(answer, permits, wanted, &mut finish, entry);
        }
        Ok(Passed::Here(response)) => finish.filter(response),
        Err(problem) => problem.into_response(),
    };
    finish.complete(response.headers_mut());
    entry.status(response.status());
    entry.finish();
    response
}

impl Gateway {
    /// Takes over new routes; all of them, or none if anything is wrong.
    pub fn route(&self, settings: &RoutingSettings) -> Result<(), Vec<(String, String)>> {
        let problems = settings.check();
        if !problems.is_empty() {
            return Err(problems);
        }
        let find = |uri: &TargetUri| self.discovery.balancer(uri).map_or(Target::Nowhere, Target::Balanced);
        let before = self.routing.load();
        let routing = Routing {
            table: RouteTable::build(settings, &before.table, find)?,
            cors: GlobalCors::parse(&settings.globalcors.cors_configurations)?,
            trusted: TrustedProxies::parse(&settings.trusted_proxies)
                .map_err(|problem| vec![("trusted-proxies".to_owned(), problem)])?,
        };
        self.routing.store(Arc::new(routing));
        Ok(())
    }

    /// Takes over the instances that a route file names.
    pub fn list(&self, services: HashMap<String, Vec<Known>>) {
        self.discovery.list(services);
    }

    fn describe_instances(&self) -> Vec<serde_json::Value> {
        self.discovery.balancers().iter().map(|balancer| balancer.describe()).collect()
    }
}

#[cfg(test)]
mod tests;
