//! A Spring Cloud Gateway YAML, read.
//!
//! Both of Spring's prefixes count, `spring.cloud.gateway.server.webflux` (4.3 and later) and `spring.cloud.gateway`,
//! and so does our own form without one. Documents of one file lie on each other, later ones on top; one for a profile
//! is left out.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Duration;

use platform::config::RedisSettings;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::door::Door;
use super::tree::{at, child, documents, flag, flatten, text};
use super::{
    Unusable, boot, door, instances, overlooked, placeholders, redis, resilience4j, resource_server,
};
use crate::balance::Known;
use crate::config::{Authentication, GlobalCorsSettings, JwtSettings, LimitSettings, RoutingSettings};
use crate::routes::arguments::{parse_duration, parse_size, text_of};
use crate::routes::definition::RouteDefinition;
use crate::routes::suggestion::suggest;
use crate::routes::uri::TargetUri;

/// Of Spring and of this gateway.
pub(super) const DEFAULT_PORT: u16 = 8080;
const CONSUL_PORT: u16 = 8500;

/// Everything that counts in a file.
#[derive(Debug)]
pub struct Document {
    pub routing: RoutingSettings,
    pub services: HashMap<String, Vec<Known>>,
    /// What is in the file and means nothing here, one line each.
    pub warnings: Vec<String>,
    pub fixed: Fixed,
}

/// What counts from the start of the gateway on, and changes only with a new one.
#[derive(Debug, Clone, PartialEq)]
pub struct Fixed {
    /// Whose tokens are believed; none: tokens are not looked at.
    pub jwt: Option<JwtSettings>,
    pub door: Door,
    /// Consul's URL, if the file names its host.
    pub consul: Option<String>,
    /// If the file names a Redis.
    pub redis: Option<RedisSettings>,
    pub timeouts: HttpClient,
    /// Whether the file has one of Spring's prefixes. In our own form a route that does not say it asks for a token.
    pub is_spring: bool,
    /// Bytes of a request's body, unless its route says it.
    pub request_body: u64,
}

/// `httpclient`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HttpClient {
    pub connect: Option<Duration>,
    pub response: Option<Duration>,
}

impl Document {
    /// Reads the file; every problem, one line each, with the path of what is wrong.
    pub fn read(file: &Path) -> Result<Self, Unusable> {
        let text = std::fs::read_to_string(file)
            .map_err(|error| Unusable(vec![format!("can't read {}: {error}", file.display())]))?;
        Self::of(file, &text)
    }

    /// What [`Self::read`] makes of a file with this text.
    pub fn of(file: &Path, text: &str) -> Result<Self, Unusable> {
        Self::parse(text, &|name| std::env::var(name).ok()).map_err(|Unusable(lines)| {
            Unusable(lines.iter().map(|line| format!("{}: {line}", file.display())).collect())
        })
    }

    /// `variable` reads the environment.
    pub fn parse(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, Unusable> {
        let mut warnings = Vec::new();
        let (mut tree, mut imports) = documents(text, &mut warnings)?;
        let mut properties = BTreeMap::new();
        flatten(&tree, String::new(), &mut properties);
        placeholders::resolve(&mut tree, &properties, variable);
        imports.iter_mut().for_each(|import| placeholders::resolve(import, &properties, variable));
        let mut problems = Vec::new();
        boot::judge_imports(&imports, &mut problems, &mut warnings);
        boot::judge_base_path(&tree, &mut problems);
        let jwt = resource_server::read(&tree, &mut problems, &mut warnings);
        let (prefix, section) = gateway(&tree);
        let mut reader = Section { prefix, fields: section, problems: &mut problems };
        let mut routing = RoutingSettings {
            routes: reader.routes(),
            default_filters: reader.list("default-filters"),
            globalcors: reader.globalcors(),
            trusted_proxies: reader.field("trusted-proxies").and_then(text_of).unwrap_or_default(),
            public_paths: reader.list("public-paths"),
            reserved_paths: reader.list("reserved-paths"),
            route_enabled: reader.one("route-enabled").unwrap_or_default(),
            // Our own form means what it means in the configuration repository; a resource server of Spring's lets
            // nobody through whom it does not know.
            default_authentication: if prefix.is_empty() || jwt.is_some() {
                Authentication::Required
            } else {
                Authentication::None
            },
        };
        let timeouts = reader.timeouts();
        let services = instances::read(&tree, &mut problems);
        let fixed = Fixed {
            jwt,
            door: door::read(&tree, &mut problems, &mut warnings),
            consul: consul(&tree, &mut problems),
            redis: redis::read(&tree, &mut problems),
            timeouts,
            is_spring: !prefix.is_empty(),
            // Spring bounds none.
            request_body: if prefix.is_empty() { request_body(&tree, &mut problems) } else { u64::MAX },
        };
        resilience4j::apply(&tree, &mut routing, &mut warnings);
        problems
            .extend(routing.check().into_iter().map(|(path, problem)| format!("{prefix}{path}: {problem}")));
        problems.extend(overlooked::problems(&tree, prefix));
        if !problems.is_empty() {
            return Err(Unusable(problems));
        }
        warnings.extend(overlooked::warnings(&tree, prefix));
        let limits =
            |route: &RouteDefinition| route.filters.iter().any(|filter| filter.name == "RequestRateLimiter");
        if fixed.redis.is_none() && routing.routes.iter().any(limits) {
            warnings.push(
                "RequestRateLimiter counts in this gateway alone: spring.data.redis.host is not given"
                    .to_owned(),
            );
        }
        warnings.extend(unanswered(&routing, &services, fixed.consul.is_some()));
        Ok(Self { routing, services, warnings, fixed })
    }
}

/// The prefix that the file uses, and what is below it.
fn gateway(tree: &Value) -> (&'static str, Option<&Value>) {
    let old = at(tree, &["spring", "cloud", "gateway"]);
    match old.and_then(|old| at(old, &["server", "webflux"])) {
        Some(new) => ("spring.cloud.gateway.server.webflux.", Some(new)),
        None if old.is_some() => ("spring.cloud.gateway.", old),
        None => ("", Some(tree)),
    }
}

/// As with a configuration server: the largest body that our own form allows.
fn request_body(tree: &Value, problems: &mut Vec<String>) -> u64 {
    let default = LimitSettings::default().request_body;
    let Some(value) = at(tree, &["limits", "request-body"]).filter(|value| !value.is_null()) else {
        return default;
    };
    text_of(value).and_then(|text| parse_size(&text)).unwrap_or_else(|| {
        problems.push("limits.request-body: must be a size such as 16KiB or 5MB".to_owned());
        default
    })
}

struct Section<'a> {
    prefix: &'static str,
    fields: Option<&'a Value>,
    problems: &'a mut Vec<String>,
}

impl Section<'_> {
    fn field(&self, name: &str) -> Option<&Value> {
        child(self.fields?, name)
    }

    fn one<T: DeserializeOwned>(&mut self, name: &str) -> Option<T> {
        let value = self.field(name)?.clone();
        self.read(name, value)
    }

    fn read<T: DeserializeOwned>(&mut self, path: &str, value: Value) -> Option<T> {
        serde_json::from_value(value)
            .map_err(|error| {
                self.problems.push(format!("{}{path}: {}", self.prefix, explained(&error.to_string())));
            })
            .ok()
    }

    fn elements(&mut self, name: &str) -> Vec<Value> {
        match self.field(name).cloned() {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(list)) => list,
            Some(_) => {
                self.problems.push(format!("{}{name}: must be a list", self.prefix));
                Vec::new()
            }
        }
    }

    fn list<T: DeserializeOwned>(&mut self, name: &str) -> Vec<T> {
        let elements = self.elements(name);
        let read = |(index, value)| self.read(&format!("{name}[{index}]"), value);
        elements.into_iter().enumerate().filter_map(read).collect()
    }

    /// A route without an id gets one from its place, where Spring makes one up.
    fn routes(&mut self) -> Vec<RouteDefinition> {
        let elements = self.elements("routes");
        let mut routes = Vec::new();
        for (index, mut value) in elements.into_iter().enumerate() {
            if let Value::Object(fields) = &mut value {
                fields.entry("id").or_insert_with(|| Value::String(format!("route-{}", index + 1)));
            }
            routes.extend(self.read::<RouteDefinition>(&format!("routes[{index}]"), value));
        }
        routes
    }

    fn globalcors(&mut self) -> GlobalCorsSettings {
        let Some(section) = self.field("globalcors") else { return GlobalCorsSettings::default() };
        let configurations = child(section, "cors-configurations").and_then(Value::as_object);
        let cors_configurations: BTreeMap<String, Value> =
            configurations.into_iter().flatten().map(|(path, value)| (path.clone(), value.clone())).collect();
        GlobalCorsSettings { cors_configurations, ..GlobalCorsSettings::default() }
    }

    fn timeouts(&mut self) -> HttpClient {
        let mut read = |name: &str| {
            let text = text_of(child(self.field("httpclient")?, name)?)?;
            let duration = parse_duration(&text).filter(|duration| !duration.is_zero());
            if duration.is_none() {
                let problem = format!("must be milliseconds above 0 or a duration such as 5s, is `{text}`");
                self.problems.push(format!("{}httpclient.{name}: {problem}", self.prefix));
            }
            duration
        };
        HttpClient { connect: read("connect-timeout"), response: read("response-timeout") }
    }
}

/// serde's words on a route, with a suggestion for a field that nobody knows.
fn explained(message: &str) -> String {
    let fields = [
        "id",
        "uri",
        "predicates",
        "filters",
        "order",
        "metadata",
        "authentication",
        "roles",
        "scopes",
        "enabled",
        "max-in-flight",
        "client-address",
    ];
    match message.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next()) {
        Some(field) => format!("a route has no `{field}`{}", suggest(field, fields)),
        None => message.to_owned(),
    }
}

/// Consul's URL.
fn consul(tree: &Value, problems: &mut Vec<String>) -> Option<String> {
    const PATH: [&str; 3] = ["spring", "cloud", "consul"];
    let section = at(tree, &PATH)?;
    match flag(section, &["enabled"]) {
        Ok(Some(false)) => return None,
        Ok(_) => {}
        Err(problem) => problems.push(format!("spring.cloud.consul.enabled: {problem}")),
    }
    if text(section, &["scheme"]).is_some_and(|scheme| scheme != "http") || child(section, "tls").is_some() {
        problems.push("spring.cloud.consul: is asked by http://, without TLS".to_owned());
    }
    authority(section, "spring.cloud.consul", CONSUL_PORT, problems)
        .map(|authority| format!("http://{authority}"))
}

/// `host` and `port` of a section.
pub(super) fn authority(
    section: &Value,
    path: &str,
    default_port: u16,
    problems: &mut Vec<String>,
) -> Option<String> {
    let host = text(section, &["host"])?;
    let port = match text(section, &["port"]) {
        None => default_port,
        Some(port) => port
            .parse()
            .map_err(|_| problems.push(format!("{path}.port: `{port}` is no port, 0 to 65535")))
            .ok()?,
    };
    Some(format!("{host}:{port}"))
}

/// Services that no instance is known of.
fn unanswered(
    routing: &RoutingSettings,
    services: &HashMap<String, Vec<Known>>,
    consul: bool,
) -> Vec<String> {
    let missing = |route: &RouteDefinition| match TargetUri::parse(&route.uri) {
        Ok((TargetUri::Service(name), _)) if !consul && services.get(&name).is_none_or(Vec::is_empty) => {
            Some(format!(
                "the route `{}` will answer 503: `{name}` has no instance under spring.cloud.discovery.client.simple.instances, \
             and spring.cloud.consul.host is not given",
                route.id
            ))
        }
        _ => None,
    };
    routing.routes.iter().filter_map(missing).collect()
}

#[cfg(test)]
mod tests;
