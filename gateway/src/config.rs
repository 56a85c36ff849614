//! The gateway's settings: each with its unit, its range and the reason of its default.

use std::collections::BTreeMap;
use std::time::Duration;

use platform::config::{
    AdminSettings, Common, ConsulSettings, IdentitySettings, Problems, Secret, ServerSettings, Settings,
    TelemetrySettings, duration, size,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::proxy::ProxySettings;
use crate::proxy::connections::ConnectionSettings;
use crate::routes::{self, TargetUri};

/// RFC 7518, 3.2: an HS256 key has at least the size of the hash.
const HS256_MIN_BYTES: usize = 32;

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct GatewaySettings {
    pub server: ServerSettings,
    pub admin: AdminSettings,
    pub consul: ConsulSettings,
    pub telemetry: TelemetrySettings,
    #[serde(default)]
    pub trace: TraceSettings,
    pub identity: IdentitySettings,
    pub jwt: JwtSettings,
    #[serde(default)]
    pub upstream: UpstreamSettings,
    #[serde(default)]
    pub limits: LimitSettings,
    pub routes: Vec<RouteSettings>,
    /// Switches single routes, by id, without repeating the list: for profiles.
    #[serde(default)]
    pub route_enabled: BTreeMap<String, bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub enum JwtAlgorithm {
    EdDSA,
    HS256,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct JwtSettings {
    /// `iss` that a token must have.
    pub issuer: String,
    /// `aud` that a token must have.
    pub audience: String,
    /// What a token may be signed with; a token that names another is refused.
    #[serde(default = "defaults::algorithms")]
    pub algorithms: Vec<JwtAlgorithm>,
    /// The key set of EdDSA tokens: `lb://service/path` or `http://host:port/path`.
    #[serde(default = "defaults::jwks_uri")]
    pub jwks_uri: String,
    /// How often the key set is fetched without need.
    #[serde(default = "defaults::jwks_refresh", with = "duration")]
    pub jwks_refresh: Duration,
    /// How often it is fetched at most when tokens name keys that are not known.
    #[serde(default = "defaults::jwks_min_interval", with = "duration")]
    pub jwks_min_interval: Duration,
    /// The key of HS256 tokens, at least 32 bytes.
    #[serde(default)]
    pub hs256_secret: Secret,
    /// How far clocks may differ, in whole seconds.
    #[serde(default = "defaults::leeway", with = "duration")]
    pub leeway: Duration,
    /// Verified tokens kept, each some 800 bytes.
    #[serde(default = "defaults::cache_capacity")]
    pub cache_capacity: usize,
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
    /// How long an unused connection is kept; has to be below the services' `server.header-timeout`.
    #[serde(with = "duration")]
    pub idle_timeout: Duration,
    /// Unused connections kept for each instance and worker.
    pub max_idle: usize,
    /// Instances that a request asks for a connection, the first included.
    pub connect_attempts: usize,
    /// How long an instance that refuses connections is left out.
    #[serde(with = "duration")]
    pub avoid_for: Duration,
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
    /// Bytes of a request's body, announced or not; 413 beyond. `server.body-limit` counts for nothing here: this
    /// one is judged where the access line is written.
    #[serde(with = "size")]
    pub request_body: u64,
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

/// One route, in the notation of Spring Cloud Gateway.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RouteSettings {
    pub id: String,
    /// `lb://service`, `http://host:port`, or `noop:`.
    pub uri: String,
    /// `Path=/coupons/**`, `Method=GET,HEAD`; all have to hold.
    pub predicates: Vec<String>,
    #[serde(default)]
    pub filters: Vec<String>,
    #[serde(default)]
    pub authentication: Authentication,
    /// Lower is matched earlier; equals as listed.
    #[serde(default)]
    pub order: i32,
    #[serde(default)]
    pub metadata: BTreeMap<String, Value>,
}

mod defaults {
    use std::time::Duration;

    use super::JwtAlgorithm;

    /// What the user service signs with.
    pub(super) fn algorithms() -> Vec<JwtAlgorithm> {
        vec![JwtAlgorithm::EdDSA]
    }

    pub(super) fn jwks_uri() -> String {
        "lb://user-service/.well-known/jwks.json".to_owned()
    }

    /// A key is published long before its first use, so this only bounds how long a withdrawn one lives.
    pub(super) fn jwks_refresh() -> Duration {
        Duration::from_secs(300)
    }

    /// Rubbish tokens cost the user service at most this rate.
    pub(super) fn jwks_min_interval() -> Duration {
        Duration::from_secs(10)
    }

    /// Hosts with working time synchronisation differ by far less.
    pub(super) fn leeway() -> Duration {
        Duration::from_secs(5)
    }

    /// About 80 MB when full.
    pub(super) fn cache_capacity() -> usize {
        100_000
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
            idle_timeout: Duration::from_secs(4),
            // More than a worker usually has in flight to one instance.
            max_idle: 512,
            connect_attempts: 2,
            // Consul takes a dead instance out within 1 or 2 s; this bridges that time.
            avoid_for: Duration::from_secs(5),
        }
    }
}

impl Default for LimitSettings {
    fn default() -> Self {
        // At 5 ms a request this is 800,000 a second: more in flight means that something stands still.
        // The largest request of the API is far below 1 KiB.
        Self { in_flight: 4_096, request_body: 16 * 1024 }
    }
}

impl JwtSettings {
    pub fn accepts(&self, algorithm: JwtAlgorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    fn validate(&self, problems: &mut Problems) {
        for (path, value) in [("jwt.issuer", &self.issuer), ("jwt.audience", &self.audience)] {
            if value.is_empty() {
                problems.add(path, "must not be empty");
            }
        }
        if self.algorithms.is_empty() {
            problems.add("jwt.algorithms", "must name EdDSA, HS256 or both");
        }
        if self.accepts(JwtAlgorithm::EdDSA) {
            match TargetUri::parse(&self.jwks_uri) {
                Ok((TargetUri::Noop, _)) => problems.add("jwt.jwks-uri", "must be lb:// or http://"),
                Ok(_) => {}
                Err(problem) => problems.add("jwt.jwks-uri", problem),
            }
        }
        if self.accepts(JwtAlgorithm::HS256) && self.hs256_secret.expose().len() < HS256_MIN_BYTES {
            problems.add("jwt.hs256-secret", format!("must have at least {HS256_MIN_BYTES} bytes for HS256"));
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
    /// The routes that are not switched off.
    pub fn enabled_routes(&self) -> impl Iterator<Item = &RouteSettings> {
        self.routes.iter().filter(|route| self.route_enabled.get(&route.id).copied().unwrap_or(true))
    }

    fn validate_routes(&self, problems: &mut Problems) {
        if self.routes.is_empty() {
            problems.add("routes", "must not be empty");
        }
        for (at, route) in self.routes.iter().enumerate() {
            for (field, problem) in routes::check(route) {
                problems.add(&format!("routes[{at}].{field}"), problem);
            }
        }
        for id in routes::duplicates(&self.routes) {
            problems.add("routes", format!("the id `{id}` is used more than once"));
        }
        for id in self.route_enabled.keys().filter(|id| self.routes.iter().all(|route| route.id != **id)) {
            problems.add("route-enabled", format!("there is no route `{id}`"));
        }
    }
}

impl Settings for GatewaySettings {
    fn common(&self) -> Common<'_> {
        Common { server: &self.server, admin: &self.admin, consul: &self.consul, telemetry: &self.telemetry }
    }

    fn validate(&self, problems: &mut Problems) {
        self.identity.validate(problems);
        self.jwt.validate(problems);
        self.upstream.validate(problems);
        if self.limits.in_flight == 0 {
            problems.add("limits.in-flight", "must be at least 1");
        }
        self.validate_routes(problems);
    }
}
