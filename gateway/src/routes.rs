//! The route table: which service a request goes to, decided by predicates, in the order of the list.
//!
//! Invariant: a request is matched on its normalised path; reserved paths are never routed, whatever the routes say; a
//! route asks for a token unless it says otherwise; and a table is built as a whole or not at all.

pub mod arguments;
pub mod definition;
pub mod filter;
pub mod path;
pub mod pattern;
pub mod predicate;
pub mod suggestion;
pub mod table;
pub mod uri;
pub mod variables;
pub mod weight;

use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Uri, header};
use platform::http::problem::Problem;
use serde_json::{Value, json};

use crate::balance::Balancer;
use crate::config::Authentication;
use crate::cors::Cors;
use crate::limits::InFlightLimit;
use crate::limits::rate::RateSettings;
use crate::resilience::{Breaking, Retry};
use definition::RouteDefinition;
use filter::outgoing::RequestFilter;
use filter::response::ResponseFilter;
use predicate::{Asked, Predicate};
use variables::Variables;

pub use table::{Reserved, RouteTable};

/// Where the requests of a route go.
#[derive(Debug)]
pub enum Target {
    Balanced(Arc<Balancer>),
    /// `no://op`: answered 200 by the gateway itself, unless a filter has another answer.
    Nowhere,
}

/// Who may use a route.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    pub authentication: Authentication,
    /// One of these, if there are any.
    pub roles: Vec<String>,
    /// All of these.
    pub scopes: Vec<String>,
}

/// A route's own times, in place of the general ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timeouts {
    pub connect: Option<Duration>,
    pub response: Option<Duration>,
}

#[derive(Debug)]
pub struct Route {
    pub id: Arc<str>,
    pub target: Target,
    pub access: Access,
    pub timeouts: Timeouts,
    /// Whether the service is told where the client is.
    pub passes_client_address: bool,
    /// Bytes of a request's body, in place of the general limit.
    pub body_limit: Option<u64>,
    /// Requests at once; 503 beyond.
    pub in_flight: Option<Arc<InFlightLimit>>,
    /// What no filter may make of a path.
    pub reserved: Reserved,
    pub rate: Option<RateSettings>,
    pub retry: Option<Retry>,
    pub breaker: Option<Breaking>,
    pub request_filters: Vec<RequestFilter>,
    /// In the order in which they run: the list's reverse.
    pub response_filters: Vec<ResponseFilter>,
    pub cors: Option<Arc<Cors>>,
    predicates: Vec<Predicate>,
    /// Whether a filter uses what a path or host pattern captures.
    captures: bool,
    definition: RouteDefinition,
}

impl Route {
    /// All hold but `Method`, and that one too.
    fn takes(&self, asked: &Asked<'_>) -> Match<'_> {
        let mut refused: Option<&[Method]> = None;
        for predicate in &self.predicates {
            if !predicate.holds(asked) {
                match predicate {
                    Predicate::Method(methods) => refused = Some(methods),
                    _ => return Match::Not,
                }
            }
        }
        refused.map_or(Match::Taken, Match::OtherMethod)
    }

    /// Path of the gateway that answers when this route's service fails.
    #[must_use]
    pub fn fallback(&self) -> Option<&str> {
        self.breaker.as_ref()?.settings.fallback.as_deref()
    }

    /// The values of the names in its patterns, if a filter wants them.
    #[must_use]
    pub fn capture(&self, asked: &Asked<'_>) -> Variables {
        let mut variables = Variables::default();
        if self.captures {
            for predicate in &self.predicates {
                predicate.capture(asked, &mut variables);
            }
        }
        variables
    }

    /// In Spring's form, and what is ours beside it.
    fn describe(&self) -> Value {
        let text = |list: &[definition::Definition]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        let definition = &self.definition;
        json!({
            "route_id": definition.id,
            "uri": definition.uri,
            "order": definition.order,
            "predicate": text(&definition.predicates).join(" && "),
            "filters": text(&definition.filters),
            "metadata": definition.metadata,
            "authentication": self.access.authentication,
            "roles": self.access.roles,
            "scopes": self.access.scopes,
            "inFlight": self.in_flight.as_ref().map(|limit| limit.current()),
            "circuitBreaker": self.breaker.as_ref().map(|breaking| breaking.breaker.describe()),
        })
    }
}

enum Match<'a> {
    Taken,
    OtherMethod(&'a [Method]),
    Not,
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
    let authority = uri.authority();
    if authority.is_none() && uri.scheme().is_none() && matches!(normal, std::borrow::Cow::Borrowed(_)) {
        return Ok(());
    }
    let path_and_query = match uri.query() {
        Some(query) => PathAndQuery::try_from(format!("{normal}?{query}")),
        None => PathAndQuery::try_from(normal.as_ref()),
    }
    .map_err(|error| refused(error.to_string()))?;
    // Of HTTP/2 the host stands in the target, and nowhere else (RFC 9113, 8.3.1).
    let host = authority.and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    // Absolute-form targets (`GET http://host/path`) are cut to their path too: the host is ours to choose.
    *request.uri_mut() = Uri::from(path_and_query);
    if let Some(host) = host.filter(|_| !request.headers().contains_key(header::HOST)) {
        request.headers_mut().insert(header::HOST, host);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
