//! `http_server_requests_seconds` by method and status, as Spring counts them. The handles are kept, because to look one
//! up by its labels for each request costs more than to record.

use std::sync::OnceLock;
use std::time::Duration;

use http::{Method, StatusCode};
use metrics::Histogram;

const METHODS: [&str; 6] = ["GET", "POST", "PUT", "PATCH", "DELETE", "OTHER"];
const FIRST_STATUS: u16 = 100;
const STATUSES: usize = 500;

/// The histograms of one server.
pub(crate) struct Requests(Box<[OnceLock<Histogram>]>);

impl Default for Requests {
    fn default() -> Self {
        Self((0..METHODS.len() * STATUSES).map(|_| OnceLock::new()).collect())
    }
}

impl Requests {
    pub(crate) fn record(&self, method: &Method, status: StatusCode, took: Duration) {
        let method = METHODS.iter().position(|name| *name == method.as_str()).unwrap_or(METHODS.len() - 1);
        let index = method * STATUSES + usize::from(status.as_u16().saturating_sub(FIRST_STATUS));
        let Some(histogram) = self.0.get(index) else { return };
        let histogram = histogram.get_or_init(|| {
            metrics::histogram!(
                "http_server_requests_seconds",
                "method" => METHODS[method],
                "status" => status.as_str().to_owned()
            )
        });
        histogram.record(took.as_secs_f64());
    }
}

impl std::fmt::Debug for Requests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Requests")
    }
}
