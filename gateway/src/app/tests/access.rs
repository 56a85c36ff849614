//! The access log: one line for each request that was answered, with the status of the answer.

use std::fmt::Debug;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use futures_util::stream;
use http::Request;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

use super::harness::Setting;

/// Gathers the lines of this thread, which is all of a test.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<Value>>>);

impl Lines {
    fn gather() -> (Self, DefaultGuard) {
        let lines = Self::default();
        let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(lines.clone()));
        (lines, guard)
    }

    /// Status and reason of the only line since the last look.
    fn only(&self) -> (u64, Option<String>) {
        let lines = std::mem::take(&mut *self.0.lock());
        let [line] = &lines[..] else { panic!("not one line: {lines:?}") };
        (line["http.status"].as_u64().unwrap(), line["aborted"].as_str().map(str::to_owned))
    }
}

impl<S: tracing::Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "access" {
            let mut fields = Fields(Map::new());
            event.record(&mut fields);
            self.0.lock().push(Value::Object(fields.0));
        }
    }
}

struct Fields(Map<String, Value>);

impl Visit for Fields {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}").into());
    }
}

#[tokio::test]
async fn each_answer_leaves_one_line_with_its_status() {
    let (lines, _guard) = Lines::gather();
    let mut setting = Setting::new().await;
    assert_eq!(setting.get("/coupons").await.status, 200);
    assert_eq!(lines.only(), (200, None));
    assert_eq!(setting.get("/nowhere").await.status, 404);
    assert_eq!(lines.only(), (404, None));
    for length in [17 << 10, 2 << 20] {
        let body = Body::from(vec![b'x'; length]);
        let large = Request::post("/users/sign-up").header("content-length", length).body(body).unwrap();
        assert_eq!(setting.send(large).await.problem(), (413, "PAYLOAD_TOO_LARGE".to_owned()));
        assert_eq!(lines.only(), (413, None));
    }
}

#[tokio::test]
async fn a_panic_leaves_a_line_too() {
    let (lines, _guard) = Lines::gather();
    let mut setting = Setting::new().await;
    setting.configure(&json!({"route-enabled": {"noop": true}}));
    let broken = Body::from_stream(stream::poll_fn(|_| -> std::task::Poll<Option<std::io::Result<Bytes>>> {
        panic!("a panic of the test")
    }));
    let request = Request::post("/noop").header("authorization", format!("Bearer {}", setting.token()));
    assert_eq!(setting.send(request.body(broken).unwrap()).await.problem(), (500, "INTERNAL".to_owned()));
    assert_eq!(lines.only(), (500, Some("panicked".to_owned())));
}

#[tokio::test]
async fn a_request_whose_time_is_over_has_the_status_that_its_client_saw() {
    let (lines, _guard) = Lines::gather();
    let mut setting = Setting::new().await;
    setting.configure(&json!({"server": {"request-timeout": "500ms"}}));
    let silent = axum::Router::new().fallback(async || std::future::pending::<()>().await);
    let address = setting.serve(silent).await;
    setting.publish("coupon-service", &[("silent", address)]);
    assert_eq!(setting.get("/coupons").await.status, 504);
    assert_eq!(lines.only(), (504, None));
}
