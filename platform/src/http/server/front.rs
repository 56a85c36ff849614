//! The outermost layer of every service, on one screen. From the client inward: trace context, body limit, catch panic,
//! request timeout, the router; outward: the answer as it is, or the problem rendered and its cause logged once. The
//! [`Edge`] sets body limit and timeout itself.
//!
//! One function and one future instead of a stack of layers: it is on the path of every request, and nothing in it is
//! boxed.

use std::convert::Infallible;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::{ACCEPT_LANGUAGE, CONTENT_LENGTH};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri};
use http_body::Body as _;
use tower::Service;
use tracing::{Instrument as _, Span};

use super::limit::Limited;
use crate::config::ServerSettings;
use crate::http::problem::{Problem, is_bare, prefers_korean};
use crate::http::trace::{TRACEPARENT, Trace};
use crate::lifecycle::{BoxError, Causes};
use crate::telemetry::requests::Requests;

/// A router within the platform's outermost layer. Cheap to clone; a [`Service`] too, for tests by `oneshot`.
#[derive(Clone, Debug)]
pub struct Front {
    router: Router,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// None at the edge, both.
    body_limit: Option<u64>,
    request_timeout: Option<Duration>,
    trust_sampling: bool,
    requests: Requests,
}

/// A service that clients meet first. It bounds the body and the time of a request itself, because only it knows how
/// far the request came, and what has to be written down about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// Whether a client's `traceparent` says if its trace is sampled. Otherwise the ratio does, and the client only
    /// gives the trace its id: who may sample can fill the collector.
    pub trust_client_sampling: bool,
}

/// Wraps a router as [`super::Server`] does, for tests of a whole service without a port.
#[must_use]
pub fn layered(router: Router, settings: &ServerSettings) -> Front {
    Front::new(router, settings, None)
}

/// The same for a service that is the [`Edge`].
#[must_use]
pub fn layered_edge(router: Router, settings: &ServerSettings, edge: Edge) -> Front {
    Front::new(router, settings, Some(edge))
}

impl Front {
    pub(crate) fn new(router: Router, settings: &ServerSettings, edge: Option<Edge>) -> Self {
        let inner = edge.is_none();
        let shared = Shared {
            body_limit: inner.then_some(settings.body_limit as u64),
            request_timeout: inner.then_some(settings.request_timeout),
            trust_sampling: edge.is_none_or(|edge| edge.trust_client_sampling),
            requests: Requests::default(),
        };
        // The limit here replaces axum's own, which would refuse with text.
        Self { router: router.layer(axum::extract::DefaultBodyLimit::disable()), shared: Arc::new(shared) }
    }

    pub(super) fn is_edge(&self) -> bool {
        self.shared.request_timeout.is_none()
    }

    /// Answers one request; never fails.
    pub(super) fn answer<B>(&self, request: Request<B>) -> impl Future<Output = Response> + Send + use<B>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        let (mut router, shared) = (self.router.clone(), self.shared.clone());
        let begun = Instant::now();
        let mut parent = request.headers().get(TRACEPARENT).and_then(|value| Trace::parse(value.as_bytes()));
        if !shared.trust_sampling {
            parent = parent.map(Trace::sampled_anew);
        }
        let mut trace = Trace::begin(parent.as_ref());
        let asked = Asked::new(&request);
        async move {
            let span = if trace.sampled { span(&request, &mut trace, parent.as_ref()) } else { Span::none() };
            let work = async {
                let (request, exceeded) = match limited(request, shared.body_limit) {
                    Ok(limited) => limited,
                    Err(problem) => return asked.refuse(problem, &trace),
                };
                let handled = AssertUnwindSafe(async { router.call(request).await }).catch_unwind();
                let handled = match shared.request_timeout {
                    Some(limit) => tokio::time::timeout(limit, handled).await,
                    None => Ok(handled.await),
                };
                let answer = match handled {
                    Ok(Ok(Ok(response))) => response,
                    Ok(Ok(Err(never))) => match never {},
                    Ok(Err(panic)) => return asked.refuse(panicked(&*panic), &trace),
                    Err(_) => {
                        let late = Problem::overloaded().source("the request's timeout has passed");
                        return asked.refuse(late, &trace);
                    }
                };
                if exceeded.is_some_and(|exceeded| exceeded.load(Ordering::Acquire)) {
                    return asked.refuse(Problem::payload_too_large(), &trace);
                }
                asked.finish(answer, &trace)
            };
            let mut response = trace.scope(work.instrument(span.clone())).await;
            if !span.is_disabled() {
                span.record("http.response.status_code", response.status().as_u16());
                if response.status().is_server_error() {
                    span.record("otel.status_code", "ERROR");
                }
            }
            response.headers_mut().insert(TRACEPARENT, trace.to_header());
            shared.requests.record(&asked.method, response.status(), begun.elapsed());
            response
        }
    }
}

impl<B> Service<Request<B>> for Front
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let answer = self.answer(request);
        Box::pin(async move { Ok(answer.await) })
    }
}

/// What is needed of a request to speak of what went wrong with it. Clones share the request's own buffers.
struct Asked {
    method: http::Method,
    uri: Uri,
    language: Option<HeaderValue>,
}

impl Asked {
    fn new<B>(request: &Request<B>) -> Self {
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            language: request.headers().get(ACCEPT_LANGUAGE).cloned(),
        }
    }

    fn finish(&self, mut response: Response, trace: &Trace) -> Response {
        let status = response.status();
        if status.is_success() {
            return response;
        }
        if let Some(problem) = response.extensions_mut().remove::<Problem>() {
            let mut rendered = self.refuse(problem, trace);
            // Layers within may have added headers of their own.
            let own = response.headers().iter().filter(|(name, _)| *name != CONTENT_LENGTH);
            for (name, value) in own {
                rendered.headers_mut().entry(name).or_insert_with(|| value.clone());
            }
            return rendered;
        }
        let routers_own = matches!(status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED)
            && is_bare(response.headers())
            && response.body().size_hint().exact() == Some(0);
        if !routers_own {
            return response;
        }
        if status == StatusCode::NOT_FOUND {
            return self.refuse(Problem::not_found(), trace);
        }
        let mut problem = Problem::method_not_allowed();
        if let Some(allow) = response.headers().get(http::header::ALLOW) {
            problem = problem.header(http::header::ALLOW, allow.clone());
        }
        self.refuse(problem, trace)
    }

    fn refuse(&self, problem: Problem, trace: &Trace) -> Response {
        self.log(&problem);
        let korean = self.language.as_ref().is_some_and(|language| {
            let mut headers = HeaderMap::with_capacity(1);
            headers.insert(ACCEPT_LANGUAGE, language.clone());
            prefers_korean(&headers)
        });
        let mut id = [0_u8; 32];
        crate::http::trace::write_hex(&mut id, &trace.trace_id.to_bytes());
        problem.render(self.uri.path(), std::str::from_utf8(&id).ok(), korean)
    }

    /// The only place where a problem's cause is logged.
    fn log(&self, problem: &Problem) {
        let Some(cause) = problem.cause() else { return };
        let (method, path, status, code) =
            (self.method.as_str(), self.uri.path(), problem.status().as_u16(), problem.code());
        let error = Causes(cause);
        match status {
            500 => {
                tracing::error!(http.method = method, http.path = path, status, code, %error, "request failed");
            }
            501.. => {
                tracing::warn!(http.method = method, http.path = path, status, code, %error, "request failed");
            }
            _ => {
                tracing::debug!(http.method = method, http.path = path, status, code, %error, "request refused");
            }
        }
    }
}

/// A body that says its length is judged by it (hyper holds the client to it), any other is counted.
fn limited<B>(
    request: Request<B>,
    limit: Option<u64>,
) -> Result<(Request<Body>, Option<Arc<AtomicBool>>), Problem>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    let Some(limit) = limit else { return Ok((request.map(Body::new), None)) };
    let hint = request.body().size_hint();
    let declared = request
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok())
        .unwrap_or(0)
        .max(hint.lower());
    if declared > limit {
        return Err(Problem::payload_too_large());
    }
    let (parts, body) = request.into_parts();
    if hint.exact().is_some() {
        return Ok((Request::from_parts(parts, Body::new(body)), None));
    }
    let (body, exceeded) = Limited::new(body, limit);
    Ok((Request::from_parts(parts, Body::new(body)), Some(exceeded)))
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> Problem {
    let said = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    Problem::internal(format!("the handler panicked: {said}"))
}

/// The span of a sampled request, as a child of the caller's. Where it is exported, the request takes its id, so that
/// the answer and the logs name a span that can be found.
fn span<B>(request: &Request<B>, trace: &mut Trace, parent: Option<&Trace>) -> Span {
    let (span, own) = trace.sync_scope(|| {
        let span = tracing::info_span!(
            "request",
            otel.name = %format_args!("{} {}", request.method(), request.uri().path()),
            otel.kind = "server",
            otel.status_code = tracing::field::Empty,
            http.request.method = %request.method(),
            url.path = request.uri().path(),
            http.response.status_code = tracing::field::Empty,
        );
        let own = crate::telemetry::set_parent(&span, parent);
        (span, own)
    });
    if let Some(own) = own {
        trace.span_id = own.span_id;
    }
    span
}
