//! The trace that a request belongs to, in W3C Trace Context's form (<https://www.w3.org/TR/trace-context/>).
//!
//! Invariant: every request has a trace id in its logs and its answer, and only a sampled one pays for spans: the
//! others carry 25 bytes in a task-local.

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use rand::Rng as _;

pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const LENGTH: usize = 55;

/// Sampled below this value of 63 random bits of the trace id; u64::MAX samples all.
static THRESHOLD: AtomicU64 = AtomicU64::new(0);

tokio::task_local! {
    static CURRENT: Trace;
}

/// One place in one trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    pub trace_id: TraceId,
    pub span_id: SpanId,
    pub sampled: bool,
}

impl Trace {
    /// Reads a `traceparent`; None if it is not one.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        // A later version may have more behind the four parts (section 4.3 of the recommendation).
        let later = value.len() > LENGTH && value[LENGTH] == b'-' && !value.starts_with(b"00");
        if (value.len() != LENGTH && !later) || value.starts_with(b"ff") {
            return None;
        }
        let dashes = value[2] == b'-' && value[35] == b'-' && value[52] == b'-';
        let (_, high, low) = (number(&value[..2])?, number(&value[3..19])?, number(&value[19..35])?);
        let (span, flags) = (number(&value[36..52])?, number(&value[53..55])?);
        let trace = (u128::from(high) << 64) | u128::from(low);
        (dashes && trace != 0 && span != 0).then(|| Self {
            trace_id: TraceId::from(trace),
            span_id: SpanId::from(span),
            sampled: flags & 1 == 1,
        })
    }

    /// The place of a request here: within the caller's trace, or in a new one that is sampled by the ratio.
    #[must_use]
    pub(crate) fn begin(parent: Option<&Self>) -> Self {
        let mut rng = rand::rng();
        let span_id = SpanId::from(rng.random_range(1..=u64::MAX));
        match parent {
            Some(parent) => Self { span_id, ..*parent },
            None => {
                let id: u128 = rng.random_range(1..=u128::MAX);
                Self { trace_id: TraceId::from(id), span_id, sampled: is_sampled(id) }
            }
        }
    }

    /// The same place, sampled by the ratio whatever its caller said; not by the trace id, which the caller chose.
    #[must_use]
    pub(crate) fn sampled_anew(self) -> Self {
        Self { sampled: is_sampled(rand::rng().random()), ..self }
    }

    /// The trace that the running task works for.
    #[must_use]
    pub fn current() -> Option<Self> {
        CURRENT.try_with(|trace| *trace).ok()
    }

    /// The current place including spans of our own: the innermost span of a sampled trace.
    #[must_use]
    pub fn innermost() -> Option<Self> {
        let of_span = opentelemetry::Context::map_current(|context| {
            let span = context.span();
            let context = span.span_context();
            context.is_valid().then(|| Self::from(context))
        });
        of_span.or_else(Self::current)
    }

    /// Runs a future as part of this trace.
    pub fn scope<F: Future>(self, future: F) -> impl Future<Output = F::Output> {
        CURRENT.scope(self, future)
    }

    /// Runs a function as part of this trace.
    pub fn sync_scope<T>(self, f: impl FnOnce() -> T) -> T {
        CURRENT.sync_scope(self, f)
    }

    pub(crate) fn to_remote(self) -> SpanContext {
        let flags = if self.sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
        SpanContext::new(self.trace_id, self.span_id, flags, true, TraceState::NONE)
    }

    /// The text of a `traceparent`: the trace's id is at 3, the span's at 36.
    pub(crate) fn text(self) -> [u8; LENGTH] {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        write_hex(&mut text[3..35], &self.trace_id.to_bytes());
        write_hex(&mut text[36..52], &self.span_id.to_bytes());
        text[54] = if self.sampled { b'1' } else { b'0' };
        text
    }

    /// As the value of a `traceparent` header.
    #[must_use]
    pub fn to_header(self) -> HeaderValue {
        HeaderValue::from_maybe_shared(Bytes::copy_from_slice(&self.text()))
            .unwrap_or_else(|_| HeaderValue::from_static(""))
    }
}

impl From<&SpanContext> for Trace {
    fn from(context: &SpanContext) -> Self {
        Self { trace_id: context.trace_id(), span_id: context.span_id(), sampled: context.is_sampled() }
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.text()).unwrap_or_default())
    }
}

fn number(hex: &[u8]) -> Option<u64> {
    hex.iter().try_fold(0_u64, |number, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some((number << 4) | u64::from(digit))
    })
}

pub(crate) fn write_hex(text: &mut [u8], bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

/// Sets which share of the traces that begin here is sampled.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float cast saturates, and that is meant"
)]
pub(crate) fn set_sample_ratio(ratio: f64) {
    let threshold = if ratio >= 1.0 { u64::MAX } else { (ratio.max(0.0) * (1_u64 << 63) as f64) as u64 };
    THRESHOLD.store(threshold, Ordering::Relaxed);
}

#[expect(clippy::cast_possible_truncation, reason = "the low bits are the random ones that are compared")]
fn is_sampled(trace_id: u128) -> bool {
    (trace_id as u64 >> 1) < THRESHOLD.load(Ordering::Relaxed)
}

/// The trace id of the running request, None outside of one.
#[must_use]
pub fn trace_id() -> Option<TraceId> {
    Trace::current().or_else(Trace::innermost).map(|trace| trace.trace_id)
}

/// Puts the current trace on a request that goes out.
pub fn inject(headers: &mut HeaderMap) {
    if let Some(trace) = Trace::innermost() {
        headers.insert(TRACEPARENT, trace.to_header());
    }
}

/// Keeps the trace of who makes a future, wherever it runs.
pub(crate) fn carry<F: Future<Output = ()>>(future: F) -> impl Future<Output = ()> {
    let trace = Trace::innermost();
    async move {
        match trace {
            Some(trace) => trace.scope(future).await,
            None => future.await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_traceparent_survives_the_round_trip() {
        let trace = Trace::parse(TEXT.as_bytes()).unwrap();
        assert!(trace.sampled);
        assert_eq!(trace.to_string(), TEXT);
        assert_eq!(trace.to_header(), TEXT);
        assert_eq!(trace.trace_id.to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert!(Trace::parse(format!("01{}-more", &TEXT[2..]).as_bytes()).is_some());
    }

    #[test]
    fn what_is_no_traceparent_is_not_taken() {
        let upper = TEXT.to_uppercase();
        let zero_trace = format!("00-{:032}-b7ad6b7169203331-01", 0);
        let zero_span = format!("00-0af7651916cd43dd8448eb211c80319c-{:016}-01", 0);
        let later = format!("{TEXT}-more");
        let wrong = format!("ff{}", &TEXT[2..]);
        for text in
            ["", "00", &upper, &zero_trace, &zero_span, &later, &wrong, &TEXT[1..], &TEXT.replace('-', "_")]
        {
            assert_eq!(Trace::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[tokio::test]
    async fn the_current_trace_goes_out_and_is_carried() {
        assert_eq!(trace_id(), None);
        let trace = Trace::parse(TEXT.as_bytes()).unwrap();
        let (mut headers, lifecycle) = (HeaderMap::new(), crate::lifecycle::Lifecycle::new());
        inject(&mut headers);
        assert!(headers.is_empty());
        let (sender, receiver) = tokio::sync::oneshot::channel();
        trace
            .scope(async {
                inject(&mut headers);
                lifecycle.spawn_detached(async move {
                    let _ = sender.send(trace_id());
                });
            })
            .await;
        assert_eq!(headers["traceparent"], TEXT);
        assert_eq!(receiver.await.unwrap(), Some(trace.trace_id));
    }

    #[test]
    fn a_child_stays_in_its_trace_with_its_decision() {
        let parent = Trace::parse(TEXT.as_bytes()).unwrap();
        let child = Trace::begin(Some(&parent));
        assert_eq!((child.trace_id, child.sampled), (parent.trace_id, true));
        assert_ne!(child.span_id, parent.span_id);
    }
}
