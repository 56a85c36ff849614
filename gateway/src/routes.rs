//! The route table: which service a request goes to, decided by predicates, in the order of the list.
//!
//! Invariant: a request is matched on its normalised path, and `/internal/**` and `/actuator/**` are
//! never routed, whatever the configuration says. A route asks for a token unless it says otherwise.

pub mod path;
pub mod pattern;

use std::collections::BTreeMap;
use std::sync::Arc;

use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Uri, header};
use platform::http::problem::Problem;
use serde_json::{Value, json};

use crate::balance::Balancer;
use crate::config::{Authentication, RouteSettings};
use pattern::PathPattern;

/// First segments that belong to the services among themselves and to operators.
const NEVER_ROUTED: [&str; 2] = ["internal", "actuator"];

/// Where the requests of a route go.
#[derive(Debug)]
pub enum Target {
    Balanced(Arc<Balancer>),
    /// Answered 204 by the gateway itself after everything else was done: what the gateway costs alone.
    Noop,
}

#[derive(Debug)]
pub struct Route {
    pub id: Arc<str>,
    pub target: Target,
    pub authentication: Authentication,
    predicates: Predicates,
    settings: RouteSettings,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Predicates {
    paths: Vec<PathPattern>,
    methods: Vec<Method>,
}

/// A route's uri as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetUri {
    /// `lb://service`: an instance that discovery knows.
    Service(String),
    /// `http://host:port`: this address.
    Address {
        host: String,
        port: u16,
    },
    Noop,
}

#[derive(Debug, Default)]
pub struct RouteTable {
    routes: Vec<Arc<Route>>,
}

impl RouteTable {
    pub fn new(mut routes: Vec<Route>) -> Self {
        routes.sort_by_key(|route| route.settings.order); // stable: equal orders stay as listed
        Self { routes: routes.into_iter().map(Arc::new).collect() }
    }

    /// The first route whose predicates all hold; 404 without one, 405 if only the method stood against it.
    pub fn find(&self, method: &Method, path: &str) -> Result<&Arc<Route>, Problem> {
        if is_never_routed(path) {
            return Err(Problem::not_found());
        }
        let mut allowed: Vec<&Method> = Vec::new();
        for route in &self.routes {
            if route.predicates.path_matches(path) {
                if route.predicates.method_matches(method) {
                    return Ok(route);
                }
                allowed.extend(&route.predicates.methods);
            }
        }
        if allowed.is_empty() { Err(Problem::not_found()) } else { Err(method_not_allowed(&allowed)) }
    }

    /// The table as `/actuator/gateway/routes` shows it, in Spring's form.
    pub fn describe(&self) -> Value {
        self.routes.iter().map(|route| route.describe()).collect()
    }

    pub fn balancers(&self) -> impl Iterator<Item = &Arc<Balancer>> {
        self.routes.iter().filter_map(|route| match &route.target {
            Target::Balanced(balancer) => Some(balancer),
            Target::Noop => None,
        })
    }
}

fn is_never_routed(path: &str) -> bool {
    let first = path[1..].split('/').next().unwrap_or_default();
    NEVER_ROUTED.iter().any(|reserved| first.eq_ignore_ascii_case(reserved))
}

fn method_not_allowed(allowed: &[&Method]) -> Problem {
    let mut names: Vec<&str> = allowed.iter().map(|method| method.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let problem = Problem::method_not_allowed();
    match HeaderValue::from_str(&names.join(", ")) {
        Ok(value) => problem.header(header::ALLOW, value),
        Err(_) => problem,
    }
}

/// Puts the request's path into the one form that is matched and sent.
pub fn normalise<B>(request: &mut Request<B>) -> Result<(), Problem> {
    let refused = |message: String| Problem::validation().field("path", message);
    let uri = request.uri();
    let normal = path::normalise(uri.path()).map_err(|error| refused(error.to_string()))?;
    // Absolute-form targets (`GET http://host/path`) are cut to their path too: the host is ours to choose.
    if uri.scheme().is_none() && uri.authority().is_none() && matches!(normal, std::borrow::Cow::Borrowed(_))
    {
        return Ok(());
    }
    let path_and_query = match uri.query() {
        Some(query) => PathAndQuery::try_from(format!("{normal}?{query}")),
        None => PathAndQuery::try_from(normal.as_ref()),
    }
    .map_err(|error| refused(error.to_string()))?;
    *request.uri_mut() = Uri::from(path_and_query);
    Ok(())
}

impl Route {
    pub fn new(settings: RouteSettings, target: Target) -> Result<Self, Vec<String>> {
        let predicates = Predicates::parse(&settings.predicates)?;
        Ok(Self {
            id: settings.id.as_str().into(),
            target,
            authentication: settings.authentication,
            predicates,
            settings,
        })
    }

    fn describe(&self) -> Value {
        json!({
            "route_id": self.settings.id,
            "uri": self.settings.uri,
            "order": self.settings.order,
            "predicate": self.settings.predicates.join(" && "),
            "filters": self.settings.filters,
            "metadata": self.settings.metadata,
            "authentication": self.authentication,
        })
    }
}

impl Predicates {
    /// Spring's shortcut notation, `Name=argument,argument`; all problems at once.
    pub fn parse(shortcuts: &[String]) -> Result<Self, Vec<String>> {
        let mut predicates = Self::default();
        let mut problems = Vec::new();
        for shortcut in shortcuts {
            if let Err(problem) = predicates.add(shortcut) {
                problems.push(problem);
            }
        }
        if predicates.paths.is_empty() && problems.is_empty() {
            problems.push("a route needs a `Path=` predicate".to_owned());
        }
        if problems.is_empty() { Ok(predicates) } else { Err(problems) }
    }

    fn add(&mut self, shortcut: &str) -> Result<(), String> {
        let (name, arguments) = shortcut
            .split_once('=')
            .ok_or_else(|| format!("the predicate `{shortcut}` is not of the form Name=arguments"))?;
        for argument in arguments.split(',').map(str::trim) {
            match name.trim() {
                "Path" => {
                    let pattern = PathPattern::parse(argument)?;
                    if let Some(reserved) = NEVER_ROUTED.iter().find(|reserved| pattern.reaches(reserved)) {
                        return Err(format!("`{argument}`: /{reserved}/** is never routed"));
                    }
                    self.paths.push(pattern);
                }
                "Method" => match Method::from_bytes(argument.as_bytes()) {
                    Ok(method) if argument == argument.to_ascii_uppercase() => self.methods.push(method),
                    _ => return Err(format!("`{argument}` is not an HTTP method")),
                },
                other => return Err(format!("there is no predicate `{other}`")),
            }
        }
        Ok(())
    }

    fn path_matches(&self, path: &str) -> bool {
        self.paths.iter().any(|pattern| pattern.matches(path))
    }

    fn method_matches(&self, method: &Method) -> bool {
        self.methods.is_empty() || self.methods.contains(method)
    }
}

impl TargetUri {
    /// `lb://service`, `http://host:port` or `noop:`, and the path behind it (empty if none).
    pub fn parse(text: &str) -> Result<(Self, &str), String> {
        if text == "noop:" {
            return Ok((Self::Noop, ""));
        }
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| format!("`{text}` is none of lb://service, http://host:port and noop:"))?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        match scheme {
            "lb" if is_service_name(authority) => Ok((Self::Service(authority.to_owned()), path)),
            "lb" => Err(format!("`{authority}` is not a service's name")),
            "http" => {
                let (host, port) =
                    parse_authority(authority).ok_or_else(|| format!("`{authority}` is not host:port"))?;
                Ok((Self::Address { host, port }, path))
            }
            other => Err(format!("uris of scheme `{other}` are not supported")),
        }
    }
}

fn is_service_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

fn parse_authority(text: &str) -> Option<(String, u16)> {
    const HTTP_PORT: u16 = 80;
    let authority: http::uri::Authority = text.parse().ok()?;
    let host = authority.host();
    if host.is_empty() || text.contains('@') {
        return None;
    }
    // Not `authority.port()`, which takes a port that is too large for none.
    let port = match text.strip_prefix(host)?.strip_prefix(':') {
        Some(port) => port.parse().ok()?,
        None => HTTP_PORT,
    };
    Some((host.to_owned(), port))
}

/// The settings' view on one route, for `validate`: every problem with the path of its setting.
pub fn check(settings: &RouteSettings) -> Vec<(&'static str, String)> {
    let mut problems = Vec::new();
    if settings.id.is_empty() {
        problems.push(("id", "must not be empty".to_owned()));
    }
    match TargetUri::parse(&settings.uri) {
        Ok((_, "" | "/")) => {}
        Ok((_, path)) => problems.push(("uri", format!("the path `{path}` has no meaning here"))),
        Err(problem) => problems.push(("uri", problem)),
    }
    if let Err(found) = Predicates::parse(&settings.predicates) {
        problems.extend(found.into_iter().map(|problem| ("predicates", problem)));
    }
    for filter in &settings.filters {
        let name = filter.split('=').next().unwrap_or_default();
        problems.push(("filters", format!("there is no filter `{name}`")));
    }
    problems
}

/// Problems between routes.
pub fn duplicates(routes: &[RouteSettings]) -> Vec<String> {
    let mut seen = BTreeMap::new();
    for route in routes {
        *seen.entry(route.id.as_str()).or_insert(0_u32) += 1;
    }
    seen.into_iter().filter(|(_, count)| *count > 1).map(|(id, _)| id.to_owned()).collect()
}

#[cfg(test)]
mod tests;
