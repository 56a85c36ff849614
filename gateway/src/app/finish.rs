//! What an answer gets on its way out, whoever gave it.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, StatusCode, header};

use super::Gateway;
use crate::access_log::Entry;
use crate::auth::Verified;
use crate::cors::{self, Allowed};
use crate::headers;
use crate::limits::Permits;
use crate::limits::rate::Decision;
use crate::proxy::body::{Held, ResponseBody};
use crate::proxy::{Answer, tunnel};
use crate::routes::Route;
use crate::routes::variables::Variables;

/// Server-sent events (HTML Standard, 9.2): their senders may be silent for long.
const EVENTS: &[u8] = b"text/event-stream";
const EVENTS_IDLE: Duration = Duration::from_secs(3_600);

/// What an answer gets on its way out.
#[derive(Default)]
pub(super) struct Finish {
    pub(super) route: Option<Arc<Route>>,
    pub(super) variables: Variables,
    /// A CORS configuration counts for the path.
    pub(super) cors: bool,
    pub(super) allowed: Option<Allowed>,
    /// What the route's limiter decided.
    pub(super) rated: Option<Decision>,
    /// The route's service failed, and another path of the gateway answers in its place.
    pub(super) is_fallback: bool,
}

impl Finish {
    /// Of every answer, refusals too: a browser hides what carries no permission.
    pub(super) fn complete(&mut self, headers: &mut HeaderMap) {
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
    pub(super) fn filter<B>(&self, response: http::Response<B>) -> http::Response<B> {
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
    pub(super) fn respond(
        &self,
        answer: Answer,
        permits: Permits,
        finish: &mut Finish,
        mut entry: Entry,
    ) -> Response {
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
    pub(super) fn switch(
        self: &Arc<Self>,
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
        let gateway = Arc::clone(self);
        let ends = move |holder: Option<&Verified>| gateway.ends(holder);
        tunnel::open(wanted, answer, permits, entry, ends);
        response
    }

    /// Why a tunnel that this caller has opened may not go on.
    fn ends(&self, holder: Option<&Verified>) -> Option<&'static str> {
        if self.stopping.is_cancelled() {
            return Some("stopping");
        }
        holder.filter(|holder| !self.auth.still_holds(holder)).map(|_| "token ended")
    }
}
