//! From definitions to the table, all or nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use platform::http::problem::Problem;
use serde_json::Value;

use super::arguments::{parse_duration, text_of};
use super::definition::{Definition, RouteDefinition};
use super::filter::Filter;
use super::pattern::PathPattern;
use super::predicate::{Asked, Predicate};
use super::uri::TargetUri;
use super::{Access, Match, Route, Target, Timeouts, method_not_allowed, weight};
use crate::config::{Authentication, RoutingSettings};
use crate::cors::Cors;
use crate::limits::InFlightLimit;
use crate::resilience::{BreakerSettings, Breaking, CircuitBreaker, Retry};

/// What is wrong with route definitions: each with the path of its setting.
pub type Problems = Vec<(String, String)>;

#[derive(Debug, Default)]
pub struct RouteTable {
    routes: Vec<Arc<Route>>,
    reserved: Reserved,
}

/// First segments of paths that no client may reach, neither before nor after a route has rewritten them.
#[derive(Debug, Clone, Default)]
pub struct Reserved(Arc<[String]>);

impl Reserved {
    #[must_use]
    pub fn contain(&self, path: &str) -> bool {
        let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
        self.0.iter().any(|reserved| first.eq_ignore_ascii_case(reserved))
    }
}

impl RouteTable {
    /// `target` finds what stands behind a uri. Nothing of it is asked for if anything is wrong. What was learnt under
    /// the table `before` goes on where it means the same: circuits, places that are taken, and budgets of retries.
    pub fn build(
        settings: &RoutingSettings,
        before: &Self,
        mut target: impl FnMut(&TargetUri) -> Target,
    ) -> Result<Self, Problems> {
        let (drafts, problems) = draft(settings);
        if !problems.is_empty() {
            return Err(problems);
        }
        let reserved: Arc<[String]> =
            settings.reserved_paths.iter().map(|path| path.trim_matches('/').to_owned()).collect();
        let reserved = Reserved(reserved);
        let mut breakers = BTreeMap::new();
        let mut routes: Vec<Route> = drafts
            .into_iter()
            .map(|draft| draft.finish(before, &reserved, &mut target, &mut breakers))
            .collect();
        routes.sort_by_key(|route| route.definition.order); // stable: equal orders stay as listed
        weight::share(routes.iter_mut().flat_map(|route| &mut route.predicates));
        Ok(Self { routes: routes.into_iter().map(Arc::new).collect(), reserved })
    }

    /// What would keep [`RouteTable::build`] from it.
    #[must_use]
    pub fn check(settings: &RoutingSettings) -> Problems {
        draft(settings).1
    }

    /// The first route whose predicates all hold; 404 without one, 405 if only the method stood against it.
    pub fn find(&self, asked: &Asked<'_>) -> Result<&Arc<Route>, Problem> {
        if self.reserved.contain(asked.path) {
            return Err(Problem::not_found());
        }
        let mut allowed: Vec<&Method> = Vec::new();
        for route in &self.routes {
            match route.takes(asked) {
                Match::Taken => return Ok(route),
                Match::OtherMethod(methods) => allowed.extend(methods),
                Match::Not => {}
            }
        }
        if allowed.is_empty() { Err(Problem::not_found()) } else { Err(method_not_allowed(&allowed)) }
    }

    /// The breaker of that name, if it was of the same settings.
    fn breaker(&self, settings: &BreakerSettings) -> Option<Arc<CircuitBreaker>> {
        let mut breakers = self.routes.iter().filter_map(|route| Some(&route.breaker.as_ref()?.breaker));
        breakers.find(|breaker| breaker.settings() == settings).map(Arc::clone)
    }

    /// The table as `/actuator/gateway/routes` shows it, in Spring's form.
    #[must_use]
    pub fn describe(&self) -> Value {
        self.routes.iter().map(|route| route.describe()).collect()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.routes.iter()
    }
}

/// A route that was found right, but for what stands behind its uri.
struct Draft {
    definition: RouteDefinition,
    uri: TargetUri,
    access: Access,
    timeouts: Timeouts,
    predicates: Vec<Predicate>,
    filters: Vec<Filter>,
    cors: Option<Arc<Cors>>,
}

/// Every route that can be made, and everything that is wrong.
fn draft(settings: &RoutingSettings) -> (Vec<Draft>, Problems) {
    let mut problems = Problems::new();
    let defaults = compile(&settings.default_filters, "default-filters", Filter::compile, &mut problems);
    let public = compile_paths(&settings.public_paths, &mut problems);
    let mut drafts = Vec::new();
    let mut seen = BTreeMap::new();
    for (index, definition) in settings.routes.iter().enumerate() {
        let at = format!("routes[{index}]");
        if *seen.entry(&definition.id).or_insert(index) != index {
            problems.push((format!("{at}.id"), format!("`{}` is used more than once", definition.id)));
        }
        let before = problems.len();
        let draft = Draft::compile(definition, &at, &defaults, &public, settings, &mut problems);
        // What it asks for counts even if it is switched off: it may be switched on at run time.
        let enabled =
            definition.enabled && settings.route_enabled.get(&definition.id).copied().unwrap_or(true);
        drafts.extend(draft.filter(|_| enabled && problems.len() == before));
    }
    for id in settings.route_enabled.keys().filter(|id| !seen.contains_key(id)) {
        let hint = super::suggestion::suggest(id, seen.keys().map(|id| id.as_str()));
        problems.push(("route-enabled".to_owned(), format!("there is no route `{id}`{hint}")));
    }
    (drafts, problems)
}

fn compile<T>(
    definitions: &[Definition],
    at: &str,
    compile: impl Fn(&Definition) -> Result<T, Vec<String>>,
    problems: &mut Problems,
) -> Vec<T> {
    let mut compiled = Vec::new();
    for (index, definition) in definitions.iter().enumerate() {
        match compile(definition) {
            Ok(done) => compiled.push(done),
            Err(found) => {
                problems.extend(found.into_iter().map(|problem| (format!("{at}[{index}]"), problem)));
            }
        }
    }
    compiled
}

fn compile_paths(paths: &[String], problems: &mut Problems) -> Vec<PathPattern> {
    let mut patterns = Vec::new();
    for (index, path) in paths.iter().enumerate() {
        match PathPattern::parse(path) {
            Ok(pattern) => patterns.push(pattern),
            Err(problem) => problems.push((format!("public-paths[{index}]"), problem)),
        }
    }
    patterns
}

impl Draft {
    fn compile(
        definition: &RouteDefinition,
        at: &str,
        defaults: &[Filter],
        public: &[PathPattern],
        settings: &RoutingSettings,
        problems: &mut Problems,
    ) -> Option<Self> {
        let before = problems.len();
        if definition.id.is_empty() {
            problems.push((format!("{at}.id"), "must not be empty".to_owned()));
        }
        let uri = match TargetUri::parse(&definition.uri) {
            Ok((uri, _ignored_as_in_spring)) => Some(uri),
            Err(problem) => {
                problems.push((format!("{at}.uri"), problem));
                None
            }
        };
        if definition.predicates.is_empty() {
            problems
                .push((format!("{at}.predicates"), "must name at least one, such as `Path=/**`".to_owned()));
        }
        let predicates =
            compile(&definition.predicates, &format!("{at}.predicates"), Predicate::compile, problems);
        for predicate in &predicates {
            if let Predicate::Path(patterns) = predicate {
                let reserved = |pattern: &&PathPattern| {
                    settings.reserved_paths.iter().any(|path| pattern.is_within(path.trim_matches('/')))
                };
                for pattern in patterns.iter().filter(reserved) {
                    problems.push((
                        format!("{at}.predicates"),
                        format!("`{pattern}` is never routed: it is reserved"),
                    ));
                }
            }
        }
        let own = compile(&definition.filters, &format!("{at}.filters"), Filter::compile, problems);
        let filters = interleave(defaults, own);
        let names: Vec<&str> = predicates.iter().flat_map(Predicate::names).collect();
        for name in filters.iter().flat_map(Filter::names).filter(|name| !names.contains(name)) {
            let problem = format!("a filter uses `{{{name}}}`, which no Path or Host of this route has");
            problems.push((format!("{at}.filters"), problem));
        }
        let timeouts = timeouts(definition, at, problems);
        let cors = definition.metadata.get("cors").and_then(|cors| {
            Cors::from_metadata(cors)
                .map_err(|problem| problems.push((format!("{at}.metadata.cors"), problem)))
                .ok()
        });
        let access = Access {
            authentication: definition.authentication.unwrap_or_else(|| {
                if is_public(&predicates, public) {
                    Authentication::None
                } else {
                    settings.default_authentication
                }
            }),
            roles: definition.roles.clone(),
            scopes: definition.scopes.clone(),
        };
        if access.authentication != Authentication::Required
            && !(access.roles.is_empty() && access.scopes.is_empty())
        {
            let problem = "asks for roles or scopes, and so has to be `required`";
            problems.push((format!("{at}.authentication"), problem.to_owned()));
        }
        if definition.max_in_flight == Some(0) {
            problems.push((format!("{at}.max-in-flight"), "must be above 0".to_owned()));
        }
        let uri = uri.filter(|_| problems.len() == before)?;
        let cors = cors.map(Arc::new);
        Some(Self { definition: definition.clone(), uri, access, timeouts, predicates, filters, cors })
    }

    fn finish(
        self,
        before: &RouteTable,
        reserved: &Reserved,
        target: &mut impl FnMut(&TargetUri) -> Target,
        breakers: &mut BTreeMap<String, Arc<CircuitBreaker>>,
    ) -> Route {
        let Self { definition, uri, access, timeouts, predicates, filters, cors } = self;
        let captures = filters.iter().any(|filter| !filter.names().is_empty());
        let (mut request_filters, mut response_filters, mut body_limit) = (Vec::new(), Vec::new(), None);
        let (mut retry, mut breaker, mut rate) = (None, None, None);
        let predecessor = before.routes.iter().find(|route| *route.id == definition.id);
        for filter in filters {
            match filter {
                Filter::Request(filter) => request_filters.push(filter),
                Filter::Response(filter) => response_filters.push(filter),
                Filter::Retry(settings) => {
                    let budget = predecessor.and_then(|route| Some(route.retry.as_ref()?.budget()));
                    retry = Some(Retry::new(settings, budget.unwrap_or_default()));
                }
                // As in Spring, where the last one's settings are those of the route.
                Filter::RateLimiter(settings) => rate = Some(settings),
                Filter::CircuitBreaker(mut settings) => {
                    if settings.name.is_empty() {
                        settings.name.clone_from(&definition.id);
                    }
                    let shared = breakers.entry(settings.name.clone()).or_insert_with(|| {
                        before.breaker(&settings).unwrap_or_else(|| CircuitBreaker::new(settings.clone()))
                    });
                    let shared = Arc::clone(shared);
                    breaker = Some(Breaking { breaker: shared, settings });
                }
                Filter::RequestSize(size) => {
                    body_limit = Some(body_limit.map_or(size, |other: u64| other.min(size)));
                }
            }
        }
        response_filters.reverse();
        let in_flight = definition.max_in_flight.map(|limit| {
            let taken = predecessor.and_then(|route| route.in_flight.as_ref());
            taken.map_or_else(|| InFlightLimit::new(limit), |taken| taken.resized(limit))
        });
        Route {
            id: definition.id.as_str().into(),
            target: target(&uri),
            access,
            timeouts,
            passes_client_address: definition.client_address,
            body_limit,
            in_flight,
            reserved: reserved.clone(),
            rate,
            retry,
            breaker,
            request_filters,
            response_filters,
            cors,
            predicates,
            captures,
            definition,
        }
    }
}

/// The first of the defaults before the first of the route, then the second of each: Spring orders both lists by their
/// places, and one list does not come before the other.
fn interleave(defaults: &[Filter], own: Vec<Filter>) -> Vec<Filter> {
    let (mut defaults, mut own) = (defaults.iter().cloned(), own.into_iter());
    let mut filters = Vec::with_capacity(defaults.len() + own.len());
    loop {
        let pair = (defaults.next(), own.next());
        if pair.0.is_none() && pair.1.is_none() {
            return filters;
        }
        filters.extend(pair.0);
        filters.extend(pair.1);
    }
}

/// Whether every path that a route takes is a public one.
fn is_public(predicates: &[Predicate], public: &[PathPattern]) -> bool {
    predicates.iter().any(|predicate| match predicate {
        Predicate::Path(patterns) => {
            patterns.iter().all(|pattern| public.iter().any(|public| public.covers(pattern)))
        }
        _ => false,
    })
}

fn timeouts(definition: &RouteDefinition, at: &str, problems: &mut Problems) -> Timeouts {
    let mut read = |name: &str| {
        let text = text_of(definition.metadata.get(name)?)?;
        // Below 0 switches the general one off.
        if text.trim().starts_with('-') && name == "response-timeout" {
            return Some(Duration::MAX);
        }
        let duration = parse_duration(&text).filter(|duration| !duration.is_zero());
        if duration.is_none() {
            let problem = format!("must be milliseconds above 0 or a duration such as 5s, is `{text}`");
            problems.push((format!("{at}.metadata.{name}"), problem));
        }
        duration
    };
    Timeouts { connect: read("connect-timeout"), response: read("response-timeout") }
}
