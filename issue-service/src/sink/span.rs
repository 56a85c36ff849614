//! The consumer's part of a claim's trace, from the moment the record was read until its row is committed.

use opentelemetry::trace::{Span, SpanKind, Tracer, TracerProvider};
use opentelemetry::{KeyValue, global};
use platform::http::trace::Trace;

/// Ends when dropped.
pub(super) struct ProcessSpan {
    _span: global::BoxedSpan,
}

impl ProcessSpan {
    /// `None` if the trace isn't sampled.
    pub(super) fn start(
        topic: &str,
        partition: u32,
        offset: u64,
        group: &str,
        traceparent: &str,
    ) -> Option<Self> {
        Trace::parse(traceparent.as_bytes()).filter(|trace| trace.sampled)?;
        let parent = platform::telemetry::remote_parent(traceparent);
        let tracer = global::tracer_provider().tracer("issue-service");
        let mut span = tracer
            .span_builder(format!("process {topic}"))
            .with_kind(SpanKind::Consumer)
            .start_with_context(&tracer, &parent);
        span.set_attributes([
            KeyValue::new("messaging.system", "kafka"),
            KeyValue::new("messaging.operation.type", "process"),
            KeyValue::new("messaging.destination.name", topic.to_owned()),
            KeyValue::new("messaging.destination.partition.id", partition.to_string()),
            KeyValue::new("messaging.kafka.offset", i64::try_from(offset).unwrap_or(i64::MAX)),
            KeyValue::new("messaging.consumer.group.name", group.to_owned()),
        ]);
        Some(Self { _span: span })
    }
}
