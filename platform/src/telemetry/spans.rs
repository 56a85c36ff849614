//! Which spans exist, and who decides. Within a request the decision was made at its begin ([`crate::http::trace`]); a
//! span elsewhere follows its parent, or the ratio.

use std::borrow::Cow;

use opentelemetry::trace::{
    SpanBuilder, SpanId, SpanKind, TraceContextExt as _, TraceId, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{
    IdGenerator, RandomIdGenerator, Sampler, SamplingDecision, SamplingResult, SdkTracer, SdkTracerProvider,
    ShouldSample,
};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Metadata, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::layer::{self, Filter, Layer};
use tracing_subscriber::registry::LookupSpan;

use crate::http::trace::Trace;

const SCOPE: &str = "firstcome";

/// The layer that makes OpenTelemetry spans of tracing's, where they are sampled.
pub(super) fn layer<S>(provider: &SdkTracerProvider) -> impl Layer<S> + use<S>
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
{
    let tracer: SdkTracer = provider.tracer(SCOPE);
    tracing_opentelemetry::layer()
        .with_tracer(tracer)
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_filter(Sampled)
}

/// Only spans, only from INFO up, and within a request only if it is sampled.
#[derive(Debug)]
struct Sampled;

impl Sampled {
    fn can_matter(meta: &Metadata<'_>) -> bool {
        meta.is_span() && *meta.level() <= tracing::Level::INFO
    }
}

impl<S> Filter<S> for Sampled {
    fn enabled(&self, meta: &Metadata<'_>, _: &layer::Context<'_, S>) -> bool {
        Self::can_matter(meta) && Trace::current().is_none_or(|trace| trace.sampled)
    }

    fn callsite_enabled(&self, meta: &'static Metadata<'static>) -> Interest {
        if Self::can_matter(meta) { Interest::sometimes() } else { Interest::never() }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::INFO)
    }
}

/// Follows the parent; a request's own root was decided on already; else the ratio.
#[derive(Clone, Debug)]
pub(super) struct Decided(pub(super) Sampler);

impl ShouldSample for Decided {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[opentelemetry::trace::Link],
    ) -> SamplingResult {
        let own = Trace::current().is_some_and(|trace| trace.sampled && trace.trace_id == trace_id);
        if own && parent.is_none_or(|parent| !parent.has_active_span()) {
            return SamplingResult {
                decision: SamplingDecision::RecordAndSample,
                attributes: Vec::new(),
                trace_state: opentelemetry::trace::TraceState::NONE,
            };
        }
        self.0.should_sample(parent, trace_id, name, kind, attributes, links)
    }
}

/// Gives the root span of a request the trace id that the request already has in its logs.
#[derive(Debug, Default)]
pub(super) struct RequestIds(RandomIdGenerator);

impl IdGenerator for RequestIds {
    fn new_trace_id(&self) -> TraceId {
        Trace::current().map_or_else(|| self.0.new_trace_id(), |trace| trace.trace_id)
    }

    fn new_span_id(&self) -> SpanId {
        self.0.new_span_id()
    }
}

/// Hangs a span under the caller's, or makes it a root; tells its own place if it is exported.
pub(crate) fn set_parent(span: &Span, parent: Option<&Trace>) -> Option<Trace> {
    let context = match parent {
        Some(parent) => Context::new().with_remote_span_context(parent.to_remote()),
        None => Context::new(),
    };
    // Fails only where no exporter is configured, and there is no span then.
    span.set_parent(context).ok()?;
    let own = span.context();
    let own = own.span().span_context().clone();
    own.is_valid().then(|| Trace::from(&own))
}

/// The span of one consumed record, `process coupon.issued`, from its start to its drop. It exists only for a record
/// whose trace is sampled.
pub struct ProcessSpan(Context);

impl ProcessSpan {
    /// `traceparent` is what the record's header says; None if it is not sampled, or nothing is exported.
    #[must_use]
    pub fn start(topic: &str, partition: u32, offset: u64, traceparent: &str) -> Option<Self> {
        let parent = Trace::parse(traceparent.as_bytes()).filter(|trace| trace.sampled)?;
        if !super::export::is_on() {
            return None;
        }
        let parent = Context::new().with_remote_span_context(parent.to_remote());
        let builder = SpanBuilder::from_name(Cow::Owned(format!("process {topic}")))
            .with_kind(SpanKind::Consumer)
            .with_attributes([
                KeyValue::new("messaging.system", "kafka"),
                KeyValue::new("messaging.operation.type", "process"),
                KeyValue::new("messaging.destination.name", topic.to_owned()),
                KeyValue::new("messaging.destination.partition.id", i64::from(partition)),
                KeyValue::new("messaging.kafka.offset", i64::try_from(offset).unwrap_or(i64::MAX)),
            ]);
        let span = opentelemetry::global::tracer(SCOPE).build_with_context(builder, &parent);
        Some(Self(parent.with_span(span)))
    }

    /// Adds an attribute, such as `messaging.batch.message_count`.
    pub fn set(&self, key: &'static str, value: impl Into<opentelemetry::Value>) {
        self.0.span().set_attribute(KeyValue::new(key, value));
    }

    /// The context, for spans below it.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.0
    }
}

impl Drop for ProcessSpan {
    fn drop(&mut self) {
        self.0.span().end();
    }
}

impl std::fmt::Debug for ProcessSpan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ProcessSpan").field(self.0.span().span_context()).finish()
    }
}
