//! The API behind the routes as one OpenAPI document, and a page to read and try it.
//!
//! Invariants: services are asked in the background, by one task and never because of a request, each at a pace of its
//! own; what a service said last stays while it is away; nothing is described that no route leads to.

pub mod combined;
pub mod page;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, LOCATION};
use http::{HeaderValue, Method, Request, StatusCode};
use platform::http::problem::Problem;
use platform::lifecycle::BoxError;
use serde_json::Value;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::app::Gateway;
use crate::balance::Balancer;
use crate::proxy::Proxy;

/// Where springdoc has the document ...
pub const DOCUMENT: &str = "/v3/api-docs";
/// ... the page ...
const PAGE: &str = "/swagger-ui.html";
/// ... and its files.
const FILES: &str = "/swagger-ui/";
/// Where each service has its own.
const SOURCE: &str = "/openapi.json";
/// One service's document is some 50 KB.
const MAX_BYTES: usize = 1024 * 1024;
/// For one question.
const FETCH_LIMIT: Duration = Duration::from_secs(2);
/// A new version of a service, or a new route, is described within this.
const REFRESH: Duration = Duration::from_secs(10);
/// For a service that has said nothing yet; twice as long each time, up to [`REFRESH`].
const FIRST_RETRY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct OpenApi {
    sources: Vec<Source>,
    proxy: Arc<Proxy>,
    /// As it is sent; none until the first service has answered.
    document: ArcSwapOption<Bytes>,
}

#[derive(Debug)]
struct Source {
    service: String,
    balancer: Arc<Balancer>,
}

/// What is known of one service's description.
#[derive(Debug)]
struct Word {
    document: Option<Value>,
    /// When the service is asked again.
    due: Instant,
    /// Between the last two questions.
    pause: Duration,
}

impl Word {
    fn new() -> Self {
        Self { document: None, due: Instant::now(), pause: Duration::ZERO }
    }

    /// The service was asked. One that nobody has is asked ever more seldom.
    fn rest(&mut self, now: Instant) {
        let retry = (self.pause * 2).clamp(FIRST_RETRY, REFRESH);
        self.pause = if self.document.is_some() { REFRESH } else { retry };
        self.due = now + self.pause;
    }
}

impl OpenApi {
    /// None if no services are named: then none of its paths is taken from the routes.
    #[must_use]
    pub fn new(
        services: &[String],
        balancer: impl Fn(&str) -> Arc<Balancer>,
        proxy: &Arc<Proxy>,
    ) -> Option<Self> {
        let source = |service: &String| Source { service: service.clone(), balancer: balancer(service) };
        (!services.is_empty()).then(|| Self {
            sources: services.iter().map(source).collect(),
            proxy: Arc::clone(proxy),
            document: ArcSwapOption::empty(),
        })
    }

    /// The answer to a request for one of the paths here; none for any other path, which is a route's.
    #[must_use]
    pub fn answer(&self, request: &Request<Body>) -> Option<Result<Response, Problem>> {
        let path = request.uri().path();
        let file = path.strip_prefix(FILES);
        if path != DOCUMENT && path != PAGE && file.is_none() {
            return None;
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let allow = HeaderValue::from_static("GET, HEAD");
            return Some(Err(Problem::method_not_allowed().header(ALLOW, allow)));
        }
        Some(match (path, file) {
            (DOCUMENT, _) => self.document(),
            (PAGE, _) | (_, Some("")) => Ok((StatusCode::FOUND, [(LOCATION, page::INDEX)]).into_response()),
            (_, file) => page::file(file.unwrap_or_default()),
        })
    }

    fn document(&self) -> Result<Response, Problem> {
        let document = self.document.load_full();
        let document = document.ok_or_else(|| Problem::upstream_unavailable().retry_after(1))?;
        Ok(([(CONTENT_TYPE, "application/json")], Bytes::clone(&document)).into_response())
    }

    /// The only one who asks.
    pub async fn follow(
        self: Arc<Self>,
        gateway: Arc<Gateway>,
        stop: CancellationToken,
    ) -> Result<(), BoxError> {
        let mut words: Vec<Word> = self.sources.iter().map(|_| Word::new()).collect();
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = self.ask(&mut words) => {}
            }
            let known: Vec<(&str, &Value)> = self
                .sources
                .iter()
                .zip(&words)
                .filter_map(|(source, word)| Some((source.service.as_str(), word.document.as_ref()?)))
                .collect();
            if !known.is_empty() {
                let access =
                    |service: &str, method: &Method, path: &str| gateway.access(service, method, path);
                let combined = combined::combine(&known, access).to_string();
                self.document.store(Some(Arc::new(Bytes::from(combined))));
            }
            // Routes may have changed by then, whoever is due.
            let next = words.iter().map(|word| word.due).fold(Instant::now() + REFRESH, Instant::min);
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = sleep_until(next) => {}
            }
        }
    }

    /// Asks those who are due.
    async fn ask(&self, words: &mut [Word]) {
        let begun = Instant::now();
        for (source, word) in self.sources.iter().zip(words.iter_mut()) {
            if word.due > begun {
                continue;
            }
            let fetched = timeout(FETCH_LIMIT, self.proxy.get(&source.balancer, SOURCE, MAX_BYTES)).await;
            let fetched = fetched.unwrap_or_else(|_| Err("no answer in time".into()));
            match fetched.and_then(|bytes| Ok(serde_json::from_slice::<Value>(&bytes)?)) {
                Ok(fetched) => word.document = Some(fetched),
                Err(error) => {
                    tracing::debug!(service = source.service, %error, "API description not fetched, the last one stays");
                }
            }
        }
        // At one time, so that those who go on at one pace do so together.
        let now = Instant::now();
        words.iter_mut().filter(|word| word.due <= begun).for_each(|word| word.rest(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::BalanceSettings;
    use crate::config::UpstreamSettings;

    #[tokio::test(start_paused = true)]
    async fn a_service_that_nobody_has_is_asked_ever_more_seldom() {
        let settings = BalanceSettings {
            avoid_for: Duration::from_secs(5),
            slow_start: Duration::ZERO,
            zone: String::new(),
        };
        let balancer = |service: &str| Arc::new(Balancer::new(service, settings.clone()));
        let proxy = Arc::new(Proxy::new(UpstreamSettings::default().proxy()));
        let openapi = OpenApi::new(&["nobody".to_owned()], balancer, &proxy).unwrap();
        let mut words = [Word::new()];
        for seconds in [1, 2, 4, 8, 10, 10] {
            openapi.ask(&mut words).await;
            assert_eq!(words[0].due, Instant::now() + Duration::from_secs(seconds));
            openapi.ask(&mut words).await;
            assert_eq!(words[0].pause, Duration::from_secs(seconds), "before it is due nobody is asked");
            sleep_until(words[0].due).await;
        }
    }
}
