//! The gateway put together, and the way of one request through it.
//!
//! Invariant: whatever a client sends passes the steps of [`Gateway::pass`] in their order; there is no
//! other way to a service.

use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use platform::clock::Clock;
use platform::health::Health;
use platform::http::problem::Problem;
use platform::http::server::{Edge, Peer};
use platform::identity::{self, IdentitySigner};
use platform::lifecycle::{App, BoxError, Context, Lifecycle};
use platform::redis::Redis;
use tokio::time::timeout;

use crate::access_log::Entry;
use crate::auth::jwks::{self, Jwks};
use crate::auth::revocations::{self, Revocations};
use crate::auth::{Authenticator, Verified};
use crate::balance::{Balancer, Known};
use crate::config::{GatewaySettings, JwtAlgorithm, RoutingSettings};
use crate::cors::{self, Allowed, CrossOrigin, GlobalCors};
use crate::discovery::{Discovery, Source};
use crate::forwarded::TrustedProxies;
use crate::headers::{self, Behind};
use crate::limits::rate::{self, Decision, KeyBy, RateLimiter, RateSettings};
use crate::limits::{self, FairShare, InFlightLimit, Permit, Permits};
use crate::proxy::body::{Held, RequestBody, ResponseBody};
use crate::proxy::{Answer, Attempts, Plan, Proxy, tunnel};
use crate::reload;
use crate::rescue::Failure;
use crate::routes::filter::outgoing::{self, Filtered};
use crate::routes::predicate::Asked;
use crate::routes::uri::TargetUri;
use crate::routes::variables::Variables;
use crate::routes::weight::Draws;
use crate::routes::{self, Route, RouteTable, Target};
use crate::sending::{self, Outbound};
use crate::standalone::Standalone;

/// One in so many of the places in flight may wait for keys: whoever sends tokens of made-up keys while the user
/// service hangs takes no more.
const KEY_WAITERS: usize = 16;

/// Bodies up to this many bytes are read as a whole; larger ones flow.
const SMALL_BODY: u64 = 64 * 1024;

/// Server-sent events (HTML Standard, 9.2): their senders may be silent for long.
const EVENTS: &[u8] = b"text/event-stream";
const EVENTS_IDLE: Duration = Duration::from_secs(3_600);

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
    /// Replaced as a whole; a request keeps the one that it began with.
    routing: ArcSwap<Routing>,
    auth: Authenticator,
    proxy: Arc<Proxy>,
    in_flight: Arc<InFlightLimit>,
    shares: Arc<FairShare>,
    rates: RateLimiter,
    discovery: Discovery,
    clock: Clock,
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
    let file = settings.standalone.as_ref().map(|standalone| standalone.file.clone());
    let gateway = build(settings, parts)?;
    let keeper = reload::Keeper::new(Arc::clone(&gateway), current, &context.health);
    let stop = context.lifecycle.background_stop();
    match (file, context.configuration) {
        (Some(file), _) => context.lifecycle.spawn("route file", keeper.follow_file(file, stop)),
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
    let proxy = Arc::new(Proxy::new(settings.upstream.proxy()));
    let jwks = Jwks::new((settings.limits.in_flight / KEY_WAITERS).max(1));
    let behind = if settings.standalone.is_some() { Behind::Standalone } else { Behind::Identity };
    if behind == Behind::Identity && settings.jwt.accepts(JwtAlgorithm::EdDSA) {
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
    let revocations = Arc::new(Revocations::default());
    if let Some(redis) = redis.clone().filter(|_| behind == Behind::Identity) {
        let health = health.optional_component("revocations");
        let (name, stop) = (revocations::REVOKED_SESSIONS, lifecycle.background_stop());
        let follow = Arc::clone(&revocations).follow(redis, name, clock.clone(), health, stop);
        lifecycle.spawn("revocations", follow);
    }
    let signer = IdentitySigner::new(&settings.identity).with_clock(clock.clone());
    let gateway = Arc::new(Gateway {
        routing: ArcSwap::default(),
        auth: Authenticator::new(&settings.jwt, jwks, revocations, signer, clock.clone()),
        proxy,
        in_flight: InFlightLimit::new(settings.limits.in_flight),
        shares: FairShare::new(settings.limits.in_flight_per_user),
        rates: RateLimiter::new(redis, &lifecycle),
        discovery,
        clock,
        behind,
        settings,
    });
    gateway.route(&gateway.settings.routing()).map_err(|problems| listed(&problems))?;
    Ok(gateway)
}

/// Problems on one line.
pub(crate) fn listed(problems: &[(String, String)]) -> String {
    problems.iter().map(|(path, problem)| format!("{path}: {problem}")).collect::<Vec<_>>().join("; ")
}

fn balancer(uri: &TargetUri, discovery: &Discovery) -> Option<Arc<Balancer>> {
    match uri {
        TargetUri::Service(name) => Some(discovery.service(name)),
        TargetUri::Address { host, port, tls } => Some(discovery.address(host, *port, *tls)),
        TargetUri::Nowhere => None,
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
    let passing = gateway.pass(request, &mut entry, &mut attempts, &mut finish);
    let passed = timeout(gateway.settings.server.request_timeout, passing).await;
    let passed = passed.unwrap_or_else(|_late| Err(attempts.overdue().into()));
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

/// What came through all steps.
enum Passed {
    Answered(Answer, Permits),
    Tunnel(Answer, Permits, tunnel::Wanted),
    /// Answered by a filter, a preflight or `no://op`.
    Here(Response),
}

/// What an answer gets on its way out.
#[derive(Default)]
struct Finish {
    route: Option<Arc<Route>>,
    variables: Variables,
    /// A CORS configuration counts for the path.
    cors: bool,
    allowed: Option<Allowed>,
    /// What the route's limiter decided.
    rated: Option<Decision>,
    /// The route's service failed, and another path of the gateway answers in its place.
    is_fallback: bool,
}

/// What a fallback gets: the client's request, at another path.
struct Rescue {
    path: String,
    parts: http::request::Parts,
    bytes: Bytes,
    peer: Option<Peer>,
}

impl Rescue {
    fn request(self) -> Result<Request<Body>, Problem> {
        let Self { path, mut parts, bytes, peer } = self;
        let target = match parts.uri.query() {
            Some(query) => format!("{path}?{query}"),
            None => path,
        };
        parts.uri = target.parse().map_err(Problem::internal)?;
        parts.headers.remove(header::ORIGIN); // it was judged at the first path
        parts.extensions = http::Extensions::new();
        if let Some(peer) = peer {
            parts.extensions.insert(peer);
        }
        Ok(Request::from_parts(parts, Body::from(bytes)))
    }
}

impl Finish {
    /// Of every answer, refusals too: a browser hides what carries no permission.
    fn complete(&mut self, headers: &mut http::HeaderMap) {
        if let (Some(decision), Some(rate)) =
            (self.rated, self.route.as_ref().and_then(|route| route.rate.as_ref()))
        {
            decision.write(rate, headers);
        }
        if self.cors {
            cors::prepare(headers);
            if let Some(allowed) = self.allowed.take() {
                allowed.write(headers);
            }
        }
    }

    /// Of answers that came through, not of refusals.
    fn filter<B>(&self, response: http::Response<B>) -> http::Response<B> {
        match &self.route {
            Some(route) if !route.response_filters.is_empty() => {
                let (mut parts, body) = response.into_parts();
                for filter in &route.response_filters {
                    filter.apply(&mut parts, &self.variables);
                }
                http::Response::from_parts(parts, body)
            }
            _ => response,
        }
    }
}

impl Gateway {
    /// Takes over new routes; all of them, or none if anything is wrong.
    pub fn route(&self, settings: &RoutingSettings) -> Result<(), Vec<(String, String)>> {
        let problems = settings.check();
        if !problems.is_empty() {
            return Err(problems);
        }
        let find = |uri: &TargetUri| balancer(uri, &self.discovery).map_or(Target::Nowhere, Target::Balanced);
        let routing = Routing {
            table: RouteTable::build(settings, find)?,
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

    /// The whole way, from the client inward. Plain calls in one future rather than a layer each: a layer
    /// costs an allocation and a clone of the service for every request, and this path is paid per claim.
    /// The overall time-out lies around it, and in the platform trace context, panics and problem rendering.
    async fn pass(
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
            let key = rate_key(rate, caller.as_deref(), client, &request);
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
        let rescue = match route.fallback().filter(|_| !finish.is_fallback && tunnel.is_none()) {
            Some(path) => {
                let bytes = sending::whole(body).await?;
                body = RequestBody::whole(bytes.clone());
                Some(Rescue { path: path.to_owned(), parts: parts.clone(), bytes, peer })
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
            Err(failure) => match rescue.filter(|_| failure.is_of_service()) {
                Some(rescue) => {
                    tracing::debug!(error = %failure, route.id = %route.id, fallback = rescue.path, "fallback");
                    finish.is_fallback = true;
                    finish.rated = None;
                    // The place at the gateway stays the same one.
                    self.fall_back(rescue.request()?, permits.gateway(), entry, attempts, finish).await
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

    fn respond(&self, answer: Answer, permits: Permits, finish: &mut Finish, mut entry: Entry) -> Response {
        let Answer { mut response, lease, in_flight } = answer;
        headers::clean_response(response.headers_mut(), self.behind);
        let response = finish.filter(response);
        let (mut parts, body) = response.into_parts();
        finish.complete(&mut parts.headers);
        parts.extensions.clear();
        entry.status(parts.status);
        let held = Held { lease, in_flight, permits, entry };
        // Events come when there are some.
        let is_events =
            parts.headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(EVENTS));
        let idle = if is_events { EVENTS_IDLE } else { self.settings.upstream.body_idle_timeout };
        let body = ResponseBody::new(body, idle, held);
        Response::from_parts(parts, Body::new(body))
    }

    /// Tells the client that its service has agreed, and leaves both to each other.
    fn switch(
        &self,
        mut answer: Answer,
        permits: Permits,
        wanted: tunnel::Wanted,
        finish: &mut Finish,
        mut entry: Entry,
    ) -> Response {
        let headers = answer.response.headers_mut();
        headers::clean_response(headers, self.behind);
        tunnel::ask(headers);
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *response.headers_mut() = std::mem::take(headers);
        finish.complete(response.headers_mut());
        entry.status(StatusCode::SWITCHING_PROTOCOLS);
        tunnel::open(wanted, answer, permits, entry);
        response
    }

    fn describe_instances(&self) -> Vec<serde_json::Value> {
        self.discovery.balancers().iter().map(|balancer| balancer.describe()).collect()
    }
}

/// Whose tokens a request takes; `None` if nothing tells.
fn rate_key<B>(
    rate: &RateSettings,
    caller: Option<&Verified>,
    client: Option<IpAddr>,
    request: &Request<B>,
) -> Option<String> {
    let key = match &rate.key {
        KeyBy::Principal => caller.map(|caller| caller.user().to_string()),
        KeyBy::Address => client.map(network),
        KeyBy::Path => Some(request.uri().path().to_owned()),
        KeyBy::Header(name) => {
            request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
        }
    };
    key.filter(|key| !key.is_empty())
}

/// What clients are told apart by: of IPv6 the /64, which is one subscriber's to change (RFC 4291, 2.5.1).
fn network(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
    }
}

enum Found {
    Route(Arc<Route>),
    /// Allowed, and answered here.
    Preflight,
}

#[cfg(test)]
mod tests;
