//! The gateway's settings: each with its unit, its range and the reason of its default.

mod jwt;

use std::collections::BTreeMap;
use std::time::Duration;

use platform::config::{
    AdminSettings, Common, ConsulSettings, IdentitySettings, Problems, RedisSettings, ServerSettings,
    Settings, TelemetrySettings, duration, size,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::balance::BalanceSettings;
use crate::cors::GlobalCors;
use crate::forwarded::TrustedProxies;
use crate::proxy::ProxySettings;
use crate::proxy::connections::ConnectionSettings;
use crate::routes::RouteTable;
use crate::routes::definition::{Definition, RouteDefinition};
use crate::standalone::Standalone;
pub use jwt::{JwtAlgorithm, JwtSettings};

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct GatewaySettings {
    pub server: ServerSettings,
    pub admin: AdminSettings,
    pub consul: ConsulSettings,
    pub telemetry: TelemetrySettings,
    #[serde(default)]
    pub redis: RedisSettings,
    #[serde(default)]
    pub trace: TraceSettings,
    pub identity: IdentitySettings,
    pub jwt: JwtSettings,
    #[serde(default)]
    pub upstream: UpstreamSettings,
    #[serde(default)]
    pub limits: LimitSettings,
    #[serde(default)]
    pub openapi: OpenApiSettings,
    pub routes: Vec<RouteDefinition>,
    /// Filters of every route.
    #[serde(default)]
    pub default_filters: Vec<Definition>,
    #[serde(default)]
    pub globalcors: GlobalCorsSettings,
    /// Who may say where a request comes from: networks, or a regular expression over an address.
    #[serde(default)]
    pub trusted_proxies: String,
    /// Path patterns whose routes ask for no token, unless they say so themselves.
    #[serde(default)]
    pub public_paths: Vec<String>,
    /// First segments of paths that are never routed, neither before nor after a filter has rewritten them.
    #[serde(default = "defaults::reserved_paths")]
    pub reserved_paths: Vec<String>,
    /// Switches single routes, by id, without repeating the list: for profiles.
    #[serde(default)]
    pub route_enabled: BTreeMap<String, bool>,
    /// Set by `--routes`: the gateway runs on a file, without the other services.
    #[serde(skip)]
    pub standalone: Option<Standalone>,
}

/// What can change while the gateway runs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RoutingSettings {
    pub routes: Vec<RouteDefinition>,
    pub default_filters: Vec<Definition>,
    pub globalcors: GlobalCorsSettings,
    pub trusted_proxies: String,
    pub public_paths: Vec<String>,
    pub reserved_paths: Vec<String>,
    pub route_enabled: BTreeMap<String, bool>,
    /// Of routes that neither say it themselves nor are public.
    pub default_authentication: Authentication,
}

/// CORS of all routes.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct GlobalCorsSettings {
    /// By path pattern. Where several match, the most specific one counts.
    pub cors_configurations: BTreeMap<String, Value>,
    /// Spring's switch for preflights of paths without a route of method OPTIONS. They are always answered here.
    pub add_to_simple_url_handler_mapping: bool,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct UpstreamSettings {
    /// Until a connection stands.
    #[serde(with = "duration")]
    pub connect_timeout: Duration,
    /// From the request being sent to the head of the answer; 504 after it.
    #[serde(with = "duration")]
    pub response_timeout: Duration,
    /// How long a body, either way, may stand still.
    #[serde(with = "duration")]
    pub body_idle_timeout: Duration,
    /// How long an unused connection is kept; has to be below the services' `server.idle-timeout`.
    #[serde(with = "duration")]
    pub idle_timeout: Duration,
    /// Unused connections kept for each instance and worker.
    pub max_idle: usize,
    /// Instances that a request asks for a connection, the first included.
    pub connect_attempts: usize,
    /// How long an instance that refuses connections is left out, and one that fails at first.
    #[serde(with = "duration")]
    pub avoid_for: Duration,
    /// How long a new or returning instance takes to its whole share.
    #[serde(with = "duration")]
    pub slow_start: Duration,
}

/// What a client's `traceparent` may say.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct TraceSettings {
    /// Whether it also decides if the trace is sampled, and not only what its id is.
    pub trust_client_sampling: bool,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct LimitSettings {
    /// Requests in progress at once, until the last byte of their answers; 503 `OVERLOADED` beyond.
    pub in_flight: usize,
    /// Of them one user's; 429 `RATE_LIMITED` beyond.
    pub in_flight_per_user: u32,
    /// Requests whose bodies are being read before they have a place, each holding as much of it as has come; 503
    /// `OVERLOADED` beyond.
    pub reading: usize,
    /// WebSockets open at once, which take no place in flight; 503 `OVERLOADED` beyond.
    pub websockets: usize,
    /// Bytes of a request's body, announced or not; 413 beyond. `server.body-limit` counts for nothing here: this
    /// one is judged where the access line is written.
    #[serde(with = "size")]
    pub request_body: u64,
}

/// What is described at `/v3/api-docs` and `/swagger-ui.html`.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct OpenApiSettings {
    /// Whose `/openapi.json` it is made of; none: these paths are as any other.
    pub services: Vec<String>,
}

/// Whether a route's requests need a token.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Authentication {
    /// 401 without one.
    #[default]
    Required,
    /// Without one the service sees no identity; a token that is brought has to be valid.
    Optional,
    /// Tokens are not looked at.
    None,
}

mod defaults {
    /// What belongs to the services among themselves, and to operators.
    pub(super) fn reserved_paths() -> Vec<String> {
        vec!["internal".to_owned(), "actuator".to_owned()]
    }
}

impl Default for UpstreamSettings {
    fn default() -> Self {
        Self {
            // One lost SYN is sent again after 1 s; an instance that needs longer is better avoided.
            connect_timeout: Duration::from_millis(1_500),
            // The services give up on themselves at `server.request-timeout`, 10 s.
            response_timeout: Duration::from_secs(11),
            body_idle_timeout: Duration::from_secs(5),
            // The services close a connection that is silent for 5 s.
            idle_timeout: Duration::from_secs(30),
            // More than a worker usually has in flight to one instance.
            max_idle: 512,
            connect_attempts: 2,
            // Consul takes a dead instance out within 1 or 2 s; this bridges that time.
            avoid_for: Duration::from_secs(5),
            // Enough for connections, caches and just-in-time work of whatever stands behind.
            slow_start: Duration::from_secs(10),
        }
    }
}

impl Default for LimitSettings {
    fn default() -> Self {
        // At 5 ms a request this is 800,000 a second: more in flight means that something stands still.
        // A thirty-second of that for one: more than any browser or phone opens, and no help in taking all.
        // More than the connections that the door has by default: only HTTP/2 can begin so many. Of the API's bodies
        // these are 256 MiB at most, of the largest that are read as a whole 1 GiB.
        // A WebSocket holds two connections and two buffers of 8 KiB; four fifths of the door's connections are left.
        // The largest request of the API is far below 1 KiB.
        Self {
            in_flight: 4_096,
            in_flight_per_user: 128,
            reading: 16_384,
            websockets: 2_000,
            request_body: 16 * 1024,
        }
    }
}

impl UpstreamSettings {
    pub fn proxy(&self) -> ProxySettings {
        ProxySettings {
            connection: ConnectionSettings {
                connect_timeout: self.connect_timeout,
                idle_timeout: self.idle_timeout,
                max_idle: self.max_idle,
            },
            response_timeout: self.response_timeout,
            connect_attempts: self.connect_attempts,
        }
    }

    fn validate(&self, problems: &mut Problems) {
        for (path, value) in [
            ("upstream.connect-timeout", self.connect_timeout),
            ("upstream.response-timeout", self.response_timeout),
            ("upstream.body-idle-timeout", self.body_idle_timeout),
        ] {
            if value.is_zero() {
                problems.add(path, "must be more than 0");
            }
        }
        if self.connect_attempts == 0 {
            problems.add("upstream.connect-attempts", "must be at least 1");
        }
    }
}

impl GatewaySettings {
    /// None for a gateway on its own whose file names none.
    #[must_use]
    pub fn redis(&self) -> Option<RedisSettings> {
        let is_named = self.standalone.as_ref().is_none_or(|standalone| standalone.fixed.redis.is_some());
        is_named.then(|| self.redis.clone())
    }

    #[must_use]
    pub fn balancing(&self) -> BalanceSettings {
        BalanceSettings {
            avoid_for: self.upstream.avoid_for,
            slow_start: self.upstream.slow_start,
            zone: self.consul.zone.clone(),
        }
    }

    #[must_use]
    pub fn routing(&self) -> RoutingSettings {
        RoutingSettings {
            routes: self.routes.clone(),
            default_filters: self.default_filters.clone(),
            globalcors: self.globalcors.clone(),
            trusted_proxies: self.trusted_proxies.clone(),
            public_paths: self.public_paths.clone(),
            reserved_paths: self.reserved_paths.clone(),
            route_enabled: self.route_enabled.clone(),
            default_authentication: self
                .standalone
                .as_ref()
                .map_or(Authentication::Required, |standalone| standalone.default_authentication),
        }
    }
}

impl RoutingSettings {
    /// Everything that is wrong, each with the path of its setting.
    #[must_use]
    pub fn check(&self) -> Vec<(String, String)> {
        let mut problems = RouteTable::check(self);
        if self.routes.is_empty() {
            problems.push(("routes".to_owned(), "must not be empty".to_owned()));
        }
        problems.extend(GlobalCors::parse(&self.globalcors.cors_configurations).err().into_iter().flatten());
        if let Err(problem) = TrustedProxies::parse(&self.trusted_proxies) {
            problems.push(("trusted-proxies".to_owned(), problem));
        }
        problems
    }
}

impl Settings for GatewaySettings {
    fn common(&self) -> Common<'_> {
        Common { server: &self.server, admin: &self.admin, consul: &self.consul, telemetry: &self.telemetry }
    }

    fn validate(&self, problems: &mut Problems) {
        if self.standalone.is_none() {
            self.identity.validate(problems);
            self.jwt.validate(problems);
        }
        self.upstream.validate(problems);
        if self.limits.in_flight == 0 {
            problems.add("limits.in-flight", "must be at least 1");
        }
        if self.limits.in_flight_per_user == 0 {
            problems.add("limits.in-flight-per-user", "must be at least 1");
        }
        if self.limits.reading == 0 {
            problems.add("limits.reading", "must be at least 1");
        }
        for (path, problem) in self.routing().check() {
            problems.add(&path, problem);
        }
    }
}
