//! One line for every request, whatever became of it: target `access`, level info.
//!
//! Invariant: the line is written when the last byte of the answer is gone or given up, and never holds a
//! query, a header's value or a token.

use std::sync::Arc;

use http::uri::PathAndQuery;
use http::{Method, Request, StatusCode};
use platform::http::trace::Trace;
use tokio::time::Instant;

use crate::balance::endpoint::Endpoint;
use crate::proxy::Attempts;

/// nginx's habit for a request that was given up before its answer, as a rule by its client; never sent.
const ABANDONED: u16 = 499;

/// The line being gathered; written on drop.
#[derive(Debug)]
pub struct Entry {
    /// `None` if nobody reads the line: then nothing is gathered.
    line: Option<Box<Line>>,
}

#[derive(Debug)]
struct Line {
    started: Instant,
    method: Method,
    target: Option<PathAndQuery>,
    trace: Option<Trace>,
    route: Option<Arc<str>>,
    user: Option<u64>,
    upstream: Option<Arc<Endpoint>>,
    attempts: u32,
    status: u16,
    sent: u64,
    aborted: Option<&'static str>,
}

impl Entry {
    pub fn start<B>(request: &Request<B>) -> Self {
        if !tracing::enabled!(target: "access", tracing::Level::INFO) {
            return Self { line: None };
        }
        Self {
            line: Some(Box::new(Line {
                started: Instant::now(),
                method: request.method().clone(),
                target: request.uri().path_and_query().cloned(),
                trace: Trace::current(),
                route: None,
                user: None,
                upstream: None,
                attempts: 0,
                status: ABANDONED,
                sent: 0,
                aborted: Some("abandoned"),
            })),
        }
    }

    pub fn route(&mut self, id: &Arc<str>) {
        self.with(|line| line.route = Some(Arc::clone(id)));
    }

    pub fn user(&mut self, id: u64) {
        self.with(|line| line.user = Some(id));
    }

    pub fn upstream(&mut self, attempts: Attempts) {
        self.with(|line| (line.upstream, line.attempts) = (attempts.last, attempts.count));
    }

    /// The answer's head is on its way; its body may still break off.
    pub fn status(&mut self, status: StatusCode) {
        self.with(|line| line.status = status.as_u16());
    }

    pub fn sent(&mut self, bytes: usize) {
        self.with(|line| line.sent += bytes as u64);
    }

    pub fn finish(mut self) {
        self.with(|line| line.aborted = None);
    }

    pub fn abort(mut self, reason: &'static str) {
        self.with(|line| line.aborted = Some(reason));
    }

    fn with(&mut self, change: impl FnOnce(&mut Line)) {
        if let Some(line) = &mut self.line {
            change(line);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let Some(mut line) = self.line.take() else { return };
        if line.status == ABANDONED && std::thread::panicking() {
            // The platform catches it further out and answers.
            (line.status, line.aborted) = (StatusCode::INTERNAL_SERVER_ERROR.as_u16(), Some("panicked"));
        }
        match line.trace {
            // The body ends outside of the request's own scope.
            Some(trace) => trace.sync_scope(|| line.write()),
            None => line.write(),
        }
    }
}

impl Line {
    fn write(&self) {
        tracing::info!(
            target: "access",
            {
                http.method = self.method.as_str(),
                url.path = self.target.as_ref().map_or("", PathAndQuery::path),
                http.status = self.status,
                route.id = self.route.as_deref(),
                upstream.instance = self.upstream.as_ref().map(|endpoint| endpoint.id()),
                upstream.attempts = self.attempts,
                duration_ms = self.started.elapsed().as_micros() as f64 / 1e3,
                body.bytes = self.sent,
                user.id = self.user,
                aborted = self.aborted,
            },
            "request"
        );
    }
}
