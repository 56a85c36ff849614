//! Logs, traces and metrics. Invariant: every log line of a request carries its trace id, sampled or not; what is not
//! sampled costs no span; everything is flushed when the process ends.

mod export;
mod levels;
mod line;
pub(crate) mod requests;
mod spans;
mod writer;

use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::Registry;
use tracing_subscriber::{Layer as _, reload};

pub(crate) use levels::Levels;
pub use spans::ProcessSpan;
pub(crate) use spans::set_parent;
pub(crate) use writer::flush as flush_logs;

use crate::config::{LogFormat, TelemetrySettings};
use crate::http::trace::Trace;
use crate::lifecycle::BoxError;

/// Bounds of the histograms of seconds: from a receipt out of memory to the longest budget.
const SECONDS: [f64; 14] =
    [0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];
const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);
/// For the last spans, when the exporter's server may be gone already.
const FLUSH_LIMIT: Duration = Duration::from_millis(500);

/// What a process keeps of its telemetry.
#[derive(Debug)]
pub(crate) struct Telemetry {
    levels: Levels,
    metrics: Metrics,
    provider: Option<SdkTracerProvider>,
}

/// The rendering end of the metrics.
#[derive(Clone)]
pub(crate) struct Metrics(pub(crate) PrometheusHandle);

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    pub(crate) fn render(&self) -> String {
        self.0.render()
    }

    /// Histograms gather single values until they are drained.
    pub(crate) async fn upkeep(&self) {
        loop {
            tokio::time::sleep(UPKEEP_INTERVAL).await;
            self.0.run_upkeep();
        }
    }
}

/// Logs of this thread until the settings are known.
pub(crate) fn boot(service: &'static str, instance: &str) -> tracing::subscriber::DefaultGuard {
    let lines = line::Lines::new(LogFormat::Json, service, instance);
    let levels = tracing_subscriber::filter::LevelFilter::INFO;
    tracing::subscriber::set_default(Registry::default().with(lines.with_filter(levels)))
}

impl Telemetry {
    /// Once a process.
    pub(crate) fn init(
        settings: &TelemetrySettings,
        service: &'static str,
        instance: &str,
    ) -> Result<Self, BoxError> {
        crate::http::trace::set_sample_ratio(settings.sample_ratio);
        let (filter, handle) = reload::Layer::new(levels::filter(&settings.log_level)?);
        let lines = line::Lines::new(settings.log_format, service, instance).with_filter(filter);
        let provider = export::provider(settings, service, instance)?;
        let spans = provider.as_ref().map(spans::layer);
        tracing::subscriber::set_global_default(Registry::default().with(lines).with(spans))?;
        let metrics = PrometheusBuilder::new()
            .set_buckets(&SECONDS)?
            .add_global_label("service", service)
            .add_global_label("instance", instance)
            .install_recorder()?;
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of this century are far below 2^52")]
        metrics::gauge!("process_start_time_seconds").set(crate::clock::now_ms() as f64 / 1e3);
        Ok(Self { levels: Levels::new(&settings.log_level, handle), metrics: Metrics(metrics), provider })
    }

    pub(crate) fn levels(&self) -> Levels {
        self.levels.clone()
    }

    pub(crate) fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    /// Sends the last spans and writes the last lines.
    pub(crate) async fn flush(self) {
        if let Some(provider) = self.provider {
            let shutdown = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(FLUSH_LIMIT));
            if let Ok(Ok(Err(error))) = tokio::time::timeout(FLUSH_LIMIT * 2, shutdown).await {
                tracing::warn!(%error, "not all spans were sent");
            }
        }
        flush_logs();
    }
}

/// The current trace as a `traceparent`, for what carries it other than HTTP (Kafka's headers).
#[must_use]
pub fn current_traceparent() -> Option<String> {
    Trace::innermost().map(|trace| trace.to_string())
}

/// A context whose spans continue a trace from elsewhere; the empty context if the text is no `traceparent`.
#[must_use]
pub fn remote_parent(traceparent: &str) -> opentelemetry::Context {
    match Trace::parse(traceparent.as_bytes()) {
        Some(trace) => opentelemetry::Context::new().with_remote_span_context(trace.to_remote()),
        None => opentelemetry::Context::new(),
    }
}
