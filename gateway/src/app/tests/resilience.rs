//! Routes whose services fail: again, elsewhere, not at all, or something else in their place.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse as _;
use http::{Request, StatusCode};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::harness::{Answer, Setting};

/// Fails the first `failures` requests with 500, then says how many there were.
pub(super) async fn flaky(setting: &mut Setting, failures: usize) -> (SocketAddr, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let app = Router::new().fallback(async move |body: String| {
        let number = counter.fetch_add(1, SeqCst) + 1;
        if number <= failures {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
        format!("{number} {body}").into_response()
    });
    (setting.serve(app).await, asked)
}

pub(super) async fn setting(routes: Value) -> Setting {
    let mut setting = Setting::new().await;
    setting.settings["routes"] = routes;
    setting.settings["route-enabled"] = json!({});
    setting
}

pub(super) fn route(path: &str, filters: &Value) -> Value {
    json!({"id": path, "uri": "lb://coupon-service", "authentication": "none", "predicates": [format!("Path={path}")],
           "filters": filters})
}

pub(super) async fn send(setting: &mut Setting, method: &str, path: &str, body: &str) -> Answer {
    let request = Request::builder().method(method).uri(path).body(Body::from(body.to_owned())).unwrap();
    setting.send(request).await
}

#[tokio::test]
async fn a_get_is_tried_again_and_a_post_only_if_told() {
    let all = json!({"name": "Retry", "args": {"retries": 2, "methods": ["GET", "POST"]}});
    for (filter, method, failures, status, asked_times) in [
        (json!("Retry=2"), "GET", 2, 200, 3),
        (json!("Retry=2"), "GET", 3, 500, 3),
        (json!("Retry=2"), "POST", 1, 500, 1),
        (all, "POST", 1, 200, 2),
    ] {
        let mut setting = setting(json!([route("/x", &json!([filter]))])).await;
        let (address, asked) = flaky(&mut setting, failures).await;
        setting.publish("coupon-service", &[("flaky", address)]);
        let answer = send(&mut setting, method, "/x", "body").await;
        assert_eq!((answer.status.as_u16(), asked.load(SeqCst)), (status, asked_times), "{filter} {method}");
        if status == 200 {
            assert_eq!(answer.body, format!("{asked_times} body"), "the whole of it, each time");
        }
    }
}

#[tokio::test]
async fn what_failed_once_is_tried_elsewhere() {
    let mut setting = setting(json!([route("/x", &json!(["Retry=1"]))])).await;
    let (bad, good) = (flaky(&mut setting, usize::MAX).await.0, flaky(&mut setting, 0).await.0);
    setting.publish("coupon-service", &[("bad", bad), ("good", good)]);
    for _ in 0..12 {
        assert_eq!(send(&mut setting, "GET", "/x", "").await.status, 200);
    }
}

#[tokio::test]
async fn an_open_circuit_sends_nothing_and_the_fallback_answers() {
    let breaker = json!({"name": "CircuitBreaker", "args": {
        "name": "shop", "fallbackUri": "forward:/instead", "statusCodes": "500", "slidingWindowSize": 4,
        "minimumNumberOfCalls": 4, "waitDurationInOpenState": "1h"}});
    let instead = json!({"id": "instead", "uri": "lb://issue-service", "authentication": "none",
                         "predicates": ["Path=/instead"], "filters": ["SetStatus=203"]});
    let mut setting = setting(json!([route("/x", &json!(["StripPrefix=0", breaker])), instead])).await;
    let (address, asked) = flaky(&mut setting, usize::MAX).await;
    setting.publish("coupon-service", &[("flaky", address)]);
    for _ in 0..6 {
        let answer = send(&mut setting, "POST", "/x?a=1", "body").await;
        let seen = answer.json();
        assert_eq!(answer.status, 203);
        assert_eq!(
            (&seen["uri"], &seen["method"], &seen["body"]),
            (&json!("/instead?a=1"), &json!("POST"), &json!("body"))
        );
    }
    assert_eq!(asked.load(SeqCst), 4, "open after the fourth");
}

#[tokio::test]
async fn without_a_fallback_an_open_circuit_is_503_and_a_slow_service_504() {
    let breaker = |more: Value| {
        let mut arguments =
            json!({"slidingWindowSize": 2, "minimumNumberOfCalls": 2, "waitDurationInOpenState": "90s"});
        arguments.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!([{"name": "CircuitBreaker", "args": arguments}])
    };
    let mut setting = setting(json!([
        route("/bad", &breaker(json!({"statusCodes": ["500"]}))),
        route("/slow", &breaker(json!({"timeoutDuration": "50ms"}))),
    ]))
    .await;
    let slow = Router::new().fallback(async |request: Request<Body>| {
        if request.uri().path() == "/slow" {
            std::future::pending::<()>().await;
        }
        StatusCode::INTERNAL_SERVER_ERROR
    });
    let address = setting.serve(slow).await;
    setting.publish("coupon-service", &[("slow", address)]);
    for (path, first) in [("/bad", 500), ("/slow", 504)] {
        for _ in 0..2 {
            assert_eq!(
                send(&mut setting, "GET", path, "").await.status,
                first,
                "{path}: its own answer while closed"
            );
        }
        let open = send(&mut setting, "GET", path, "").await;
        assert_eq!(open.problem(), (503, "UPSTREAM_UNAVAILABLE".to_owned()), "{path}");
        let retry_after: u32 = open.header("retry-after").unwrap().parse().unwrap();
        assert!((80..=90).contains(&retry_after), "{retry_after}");
    }
}

#[tokio::test]
async fn a_routes_own_places_are_not_the_others() {
    let mut small = route("/small", &json!([]));
    small["max-in-flight"] = json!(1);
    let mut setting = setting(json!([small, route("/other", &json!([]))])).await;
    let release = Arc::new(Notify::new());
    let (arrived, until) = (Arc::new(Notify::new()), Arc::clone(&release));
    let there = Arc::clone(&arrived);
    let holding = Router::new().fallback(async move |request: Request<Body>| {
        if request.uri().query() == Some("hold") {
            there.notify_one();
            until.notified().await;
        }
    });
    let address = setting.serve(holding).await;
    setting.publish("coupon-service", &[("holding", address)]);
    let app = setting.app();
    let held = tokio::runtime::Handle::current().spawn(async move {
        let request = Request::get("/small?hold").body(Body::empty()).unwrap();
        tower::ServiceExt::oneshot(app, request).await.unwrap().status()
    });
    tokio::time::timeout(Duration::from_secs(5), arrived.notified()).await.unwrap();
    assert_eq!(send(&mut setting, "GET", "/small", "").await.problem(), (503, "OVERLOADED".to_owned()));
    assert_eq!(send(&mut setting, "GET", "/other", "").await.status, 200);
    release.notify_one();
    assert_eq!(held.await.unwrap(), 200);
    assert_eq!(send(&mut setting, "GET", "/small", "").await.status, 200, "the place came back");
}

#[tokio::test]
async fn a_rate_is_kept_and_told_in_springs_headers() {
    let limit = json!({"name": "RequestRateLimiter", "args": {
        "redis-rate-limiter.replenishRate": 1, "redis-rate-limiter.burstCapacity": 3, "key-resolver": "header:X-Key"}});
    let mut setting = setting(json!([route("/x", &json!([limit]))])).await;
    let mut ask = async |key: Option<&str>| {
        let mut request = Request::get("/x");
        if let Some(key) = key {
            request = request.header("x-key", key);
        }
        setting.send(request.body(Body::empty()).unwrap()).await
    };
    for _ in 0..3 {
        let answer = ask(Some("a")).await;
        assert_eq!(answer.status, 200);
        let header = |name: &str| answer.header(&format!("x-ratelimit-{name}")).unwrap().to_owned();
        assert_eq!(
            ["remaining", "replenish-rate", "burst-capacity", "requested-tokens"].map(header),
            ["-1", "1", "3", "1"]
        );
    }
    let refused = ask(Some("a")).await;
    assert_eq!(refused.problem(), (429, "RATE_LIMITED".to_owned()));
    assert_eq!(
        (refused.header("x-ratelimit-burst-capacity"), refused.header("retry-after")),
        (Some("3"), Some("1"))
    );
    assert_eq!(ask(Some("b")).await.status, 200, "another caller");
    assert_eq!(ask(None).await.problem(), (403, "RATE_LIMIT_KEY_MISSING".to_owned()));
}
