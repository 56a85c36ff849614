//! A Spring Cloud Gateway YAML, read.
//!
//! Both of Spring's prefixes count, `spring.cloud.gateway.server.webflux` (4.3 and later) and `spring.cloud.gateway`,
//! and so does our own form without one. Documents of one file lie on each other, later ones on top; one for a profile
//! is left out.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize as _;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{Unusable, placeholders};
use crate::balance::Known;
use crate::balance::endpoint::Address;
use crate::config::{Authentication, GlobalCorsSettings, RoutingSettings};
use crate::routes::arguments::{parse_duration, text_of};
use crate::routes::definition::RouteDefinition;
use crate::routes::suggestion::{plain, suggest};
use crate::routes::uri::TargetUri;

/// Of Spring and of this gateway.
pub(super) const DEFAULT_PORT: u16 = 8080;
/// What is understood below a prefix.
const KNOWN: [&str; 5] = ["routes", "default-filters", "globalcors", "trusted-proxies", "httpclient"];
/// What is ours beside it, where there is no prefix.
const OWN: [&str; 3] = ["public-paths", "reserved-paths", "route-enabled"];
const CONSUL_PORT: u16 = 8500;
const REDIS_PORT: u16 = 6379;

/// Everything that counts in a file.
#[derive(Debug)]
pub struct Document {
    pub routing: RoutingSettings,
    pub services: HashMap<String, Vec<Known>>,
    /// What is in the file and means nothing here, one line each.
    pub warnings: Vec<String>,
    /// `server.address` and `server.port`.
    pub server: (Option<IpAddr>, Option<u16>),
    /// Consul's URL, if the file names its host.
    pub consul: Option<String>,
    /// `host:port`, if the file names a Redis.
    pub redis: Option<String>,
    pub timeouts: HttpClient,
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
        Self::parse(&text, &|name| std::env::var(name).ok()).map_err(|Unusable(lines)| {
            Unusable(lines.iter().map(|line| format!("{}: {line}", file.display())).collect())
        })
    }

    /// `variable` reads the environment.
    pub fn parse(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, Unusable> {
        let mut warnings = Vec::new();
        let mut tree = documents(text, &mut warnings)?;
        let mut properties = BTreeMap::new();
        flatten(&tree, String::new(), &mut properties);
        placeholders::resolve(&mut tree, &properties, variable);
        let mut problems = Vec::new();
        let (prefix, section) = gateway(&tree);
        let mut reader = Section { prefix, fields: section, problems: &mut problems };
        let routing = RoutingSettings {
            routes: reader.routes(),
            default_filters: reader.list("default-filters"),
            globalcors: reader.globalcors(),
            trusted_proxies: reader.field("trusted-proxies").and_then(text_of).unwrap_or_default(),
            public_paths: reader.list("public-paths"),
            reserved_paths: reader.list("reserved-paths"),
            route_enabled: reader.one("route-enabled").unwrap_or_default(),
            // Our own form means what it means in the configuration repository.
            default_authentication: if prefix.is_empty() {
                Authentication::Required
            } else {
                Authentication::None
            },
        };
        let timeouts = reader.timeouts();
        let unknown = reader.unknown();
        let services = services(&tree, &mut problems);
        let consul = at(&tree, &["spring", "cloud", "consul"]).and_then(consul);
        let redis = at(&tree, &["spring", "data", "redis"]).or_else(|| at(&tree, &["spring", "redis"]));
        let redis = redis.and_then(|redis| authority(redis, REDIS_PORT));
        problems
            .extend(routing.check().into_iter().map(|(path, problem)| format!("{prefix}{path}: {problem}")));
        problems.extend(security(&tree));
        if !problems.is_empty() {
            return Err(Unusable(problems));
        }
        warnings.extend(unknown);
        let limits =
            |route: &RouteDefinition| route.filters.iter().any(|filter| filter.name == "RequestRateLimiter");
        if redis.is_none() && routing.routes.iter().any(limits) {
            warnings.push(
                "RequestRateLimiter counts in this gateway alone: spring.data.redis.host is not given"
                    .to_owned(),
            );
        }
        warnings.extend(unanswered(&routing, &services, consul.is_some()));
        let server = |name: &str| at(&tree, &["server", name]).and_then(text_of);
        let server = (
            server("address").and_then(|address| address.parse().ok()),
            server("port").and_then(|port| port.parse().ok()),
        );
        Ok(Self { routing, services, warnings, server, consul, redis, timeouts })
    }
}

/// All documents of the file in one tree.
fn documents(text: &str, warnings: &mut Vec<String>) -> Result<Value, Unusable> {
    let mut tree = Value::Object(Map::new());
    for (index, document) in serde_yaml_ng::Deserializer::from_str(text).enumerate() {
        let document = serde_yaml_ng::Value::deserialize(document)
            .and_then(|mut value| value.apply_merge().map(|()| value))
            .map_err(|error| Unusable(vec![format!("is no YAML: {error}")]))?;
        let document = json(document);
        match &document {
            Value::Null => continue,
            Value::Object(_) => {}
            _ => return Err(Unusable(vec!["has no settings at its top".to_owned()])),
        }
        let profile = at(&document, &["spring", "config", "activate", "on-profile"])
            .or_else(|| at(&document, &["spring", "profiles"]).filter(|value| value.is_string()));
        if let Some(profile) = profile.and_then(text_of) {
            warnings.push(format!("document {} is left out: it is for the profile {profile}", index + 1));
            continue;
        }
        merge(&mut tree, document);
    }
    Ok(tree)
}

/// Keys with dots in them are paths, as in Spring; a key in brackets is one name.
fn json(value: serde_yaml_ng::Value) -> Value {
    use serde_yaml_ng::Value as Yaml;
    match value {
        Yaml::Null => Value::Null,
        Yaml::Bool(flag) => Value::Bool(flag),
        Yaml::Number(number) => serde_json::to_value(number).unwrap_or(Value::Null),
        Yaml::String(text) => Value::String(text),
        Yaml::Sequence(list) => list.into_iter().map(json).collect(),
        Yaml::Tagged(tagged) => json(tagged.value),
        Yaml::Mapping(map) => {
            let mut object = Value::Object(Map::new());
            for (key, value) in map {
                let key = text_of(&json(key)).unwrap_or_default();
                let mut value = json(value);
                let path: Vec<&str> =
                    if key.starts_with('[') { vec![&key] } else { key.split('.').collect() };
                for name in path.into_iter().rev() {
                    value = Value::Object(Map::from_iter([(name.to_owned(), value)]));
                }
                merge(&mut object, value);
            }
            object
        }
    }
}

/// Maps join, everything else is replaced.
fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

fn flatten(value: &Value, path: String, properties: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten(value, path, properties);
            }
        }
        Value::Array(list) => {
            for (index, value) in list.iter().enumerate() {
                flatten(value, format!("{path}[{index}]"), properties);
            }
        }
        leaf => drop(properties.insert(path, text_of(leaf).unwrap_or_default())),
    }
}

/// By relaxed names.
fn child<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    value.as_object()?.iter().find(|(key, _)| plain(key) == plain(name)).map(|(_, value)| value)
}

fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, name| child(value, name))
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

    fn unknown(&self) -> Vec<String> {
        if self.prefix.is_empty() {
            return Vec::new(); // there everything else belongs to somebody else
        }
        let keys = self.fields.and_then(Value::as_object).into_iter().flat_map(Map::keys);
        let is_known = |key: &&String| KNOWN.iter().chain(&OWN).any(|known| plain(known) == plain(key));
        keys.filter(|key| !is_known(key))
            .map(|key| format!("{}{key} means nothing here{}", self.prefix, suggest(key, KNOWN)))
            .collect()
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

/// The simple discovery client's instances.
fn services(tree: &Value, problems: &mut Vec<String>) -> HashMap<String, Vec<Known>> {
    const PATH: [&str; 6] = ["spring", "cloud", "discovery", "client", "simple", "instances"];
    let mut services = HashMap::new();
    let named = at(tree, &PATH).and_then(Value::as_object);
    for (service, instances) in named.into_iter().flatten() {
        let mut known = Vec::new();
        for (index, instance) in instances.as_array().into_iter().flatten().enumerate() {
            match listed_instance(instance) {
                Ok(instance) => known.push(instance),
                Err(problem) => problems.push(format!("{}.{service}[{index}]: {problem}", PATH.join("."))),
            }
        }
        services.insert(service.clone(), known);
    }
    services
}

fn listed_instance(instance: &Value) -> Result<Known, String> {
    let text = |name: &str| child(instance, name).and_then(text_of).filter(|text| !text.is_empty());
    let uri = match (text("uri"), text("host"), text("port")) {
        (Some(uri), ..) => uri,
        (None, Some(host), Some(port)) => {
            let scheme = if text("secure").as_deref() == Some("true") { "https" } else { "http" };
            let host = if host.contains(':') { format!("[{host}]") } else { host };
            format!("{scheme}://{host}:{port}")
        }
        _ => return Err("needs `uri`, or `host` and `port`".to_owned()),
    };
    let Ok((TargetUri::Address { host, port, tls }, _)) = TargetUri::parse(&uri) else {
        return Err(format!("`{uri}` must be http://host:port or https://host:port"));
    };
    let metadata =
        |name: &str| child(instance, "metadata").and_then(|metadata| child(metadata, name)).and_then(text_of);
    let address = Address::of(&host, port);
    Ok(Known {
        id: text("instance-id").unwrap_or_else(|| address.to_string()),
        address,
        tls,
        weight: metadata("weight").and_then(|weight| weight.parse().ok()).unwrap_or(1),
        zone: metadata("zone").unwrap_or_default(),
    })
}

fn consul(section: &Value) -> Option<String> {
    if child(section, "enabled").and_then(text_of).as_deref() == Some("false") {
        return None;
    }
    authority(section, CONSUL_PORT).map(|authority| format!("http://{authority}"))
}

/// `host` and `port` of a section.
fn authority(section: &Value, default_port: u16) -> Option<String> {
    let host = child(section, "host").and_then(text_of)?;
    let port =
        child(section, "port").and_then(text_of).and_then(|port| port.parse().ok()).unwrap_or(default_port);
    Some(format!("{host}:{port}"))
}

/// What would leave a door open if it were passed over.
fn security(tree: &Value) -> Option<String> {
    at(tree, &["spring", "security", "oauth2", "resourceserver"]).map(|_| {
        "spring.security.oauth2.resourceserver: tokens are not checked by a gateway on its own yet; without this section \
         it would let everybody through"
            .to_owned()
    })
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
