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

use super::harness::{Answer, Setting, claims};

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
async fn no_try_begins_after_the_retrys_own_time() {
    let retry = json!({"name": "Retry", "args": {
        "retries": 5, "timeout": "100ms", "backoff.firstBackoff": "70ms", "backoff.factor": 2}});
    let mut setting = setting(json!([route("/x", &json!([retry]))])).await;
    let (address, asked) = flaky(&mut setting, usize::MAX).await;
    setting.publish("coupon-service", &[("flaky", address)]);
    assert_eq!(send(&mut setting, "GET", "/x", "").await.status, 500);
    assert!(asked.load(SeqCst) <= 2, "{asked:?}: at once, after 70 ms, and not 140 ms later");
}

#[tokio::test]
async fn no_more_of_a_body_is_kept_for_another_try_or_a_fallback_than_a_mebibyte() {
    let retry = json!(["RequestSize=5MB", {"name": "Retry", "args": {"methods": ["POST"]}}]);
    let fallback =
        json!(["RequestSize=5MB", {"name": "CircuitBreaker", "args": {"fallbackUri": "forward:/plain"}}]);
    let plain = json!(["RequestSize=5MB"]);
    let routes = [("/x", &retry), ("/y", &fallback), ("/plain", &plain)];
    let mut setting = setting(routes.map(|(path, filters)| route(path, filters)).into_iter().collect()).await;
    let (address, _) = flaky(&mut setting, 0).await;
    setting.publish("coupon-service", &[("good", address)]);
    for (path, size, status) in [
        ("/x", 1 << 20, 200),
        ("/x", (1 << 20) + 1, 413),
        ("/y", 1 << 20, 200),
        ("/y", (1 << 20) + 1, 413),
        ("/plain", (1 << 20) + 1, 200),
    ] {
        assert_eq!(send(&mut setting, "POST", path, &"x".repeat(size)).await.status, status, "{path} {size}");
    }
}

#[tokio::test]
async fn clients_that_break_off_open_no_circuit() {
    let breaker = json!(["RequestSize=1MB", {"name": "CircuitBreaker", "args": {
        "slidingWindowSize": 2, "minimumNumberOfCalls": 2}}]);
    let mut setting = setting(json!([route("/x", &breaker)])).await;
    for _ in 0..4 {
        let parts = [Ok("x"), Err(std::io::Error::other("gone"))];
        let broken = Body::from_stream(futures_util::stream::iter(parts));
        let answer = setting.send(Request::post("/x").body(broken).unwrap()).await;
        assert_eq!(answer.problem(), (400, "MALFORMED_JSON".to_owned()));
    }
    assert_eq!(send(&mut setting, "POST", "/x", "whole").await.status, 200);
}

#[tokio::test]
async fn a_fallback_has_no_fallback() {
    let to = |path: &str| json!([{"name": "CircuitBreaker", "args": {"fallbackUri": format!("forward:{path}"), "statusCodes": "500"}}]);
    let last =
        json!({"id": "/z", "uri": "lb://issue-service", "authentication": "none", "predicates": ["Path=/z"]});
    let mut setting = setting(json!([route("/x", &to("/y")), route("/y", &to("/z")), last])).await;
    let (address, asked) = flaky(&mut setting, usize::MAX).await;
    setting.publish("coupon-service", &[("flaky", address)]);
    assert_eq!(send(&mut setting, "GET", "/x", "").await.problem(), (502, "UPSTREAM_ERROR".to_owned()));
    assert_eq!(asked.load(SeqCst), 2);
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

/// A request that is under way until it is let go.
pub(super) struct Held {
    release: Arc<Notify>,
    answered: tokio::task::JoinHandle<StatusCode>,
}

impl Held {
    /// `request` asks for `?hold`.
    pub(super) async fn send(setting: &mut Setting, request: Request<Body>) -> Self {
        let (arrived, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (there, until) = (Arc::clone(&arrived), Arc::clone(&release));
        let holding = Router::new().fallback(async move |request: Request<Body>| {
            if request.uri().query() == Some("hold") {
                there.notify_one();
                until.notified().await;
            }
        });
        let address = setting.serve(holding).await;
        setting.publish("coupon-service", &[("holding", address)]);
        let app = setting.app();
        let answered = tokio::runtime::Handle::current()
            .spawn(async move { tower::ServiceExt::oneshot(app, request).await.unwrap().status() });
        tokio::time::timeout(Duration::from_secs(5), arrived.notified()).await.unwrap();
        Self { release, answered }
    }

    pub(super) async fn let_go(self) -> StatusCode {
        self.release.notify_one();
        self.answered.await.unwrap()
    }
}

#[tokio::test]
async fn one_user_takes_no_more_than_its_share_of_the_places() {
    let mut known = route("/x", &json!([]));
    known["authentication"] = json!("required");
    let mut setting = setting(json!([known])).await;
    setting.configure(&json!({"limits": {"in-flight-per-user": 1}}));
    let ask = |setting: &Setting, user: u64, target: &str| {
        let token = setting.signer.sign(&claims(user));
        let request = Request::get(target).header("authorization", format!("Bearer {token}"));
        request.body(Body::empty()).unwrap()
    };
    let request = ask(&setting, 7, "/x?hold");
    let held = Held::send(&mut setting, request).await;
    for (user, status) in [(7, 429), (8, 200)] {
        let request = ask(&setting, user, "/x");
        assert_eq!(setting.send(request).await.status, status, "{user}");
    }
    assert_eq!(held.let_go().await, 200);
    let request = ask(&setting, 7, "/x");
    assert_eq!(setting.send(request).await.status, 200);
}

#[tokio::test]
async fn a_routes_own_places_are_not_the_others() {
    let mut small = route("/small", &json!([]));
    small["max-in-flight"] = json!(1);
    let mut setting = setting(json!([small, route("/other", &json!([]))])).await;
    let held = Held::send(&mut setting, Request::get("/small?hold").body(Body::empty()).unwrap()).await;
    assert_eq!(send(&mut setting, "GET", "/small", "").await.problem(), (503, "OVERLOADED".to_owned()));
    assert_eq!(send(&mut setting, "GET", "/other", "").await.status, 200);
    assert_eq!(held.let_go().await, 200);
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
