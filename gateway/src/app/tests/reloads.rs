//! What goes on when the routes are replaced.

use std::sync::atomic::Ordering::SeqCst;

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};

use super::harness::Setting;
use super::resilience::{Held, flaky, route, send, setting};

/// Another route than the one under test has changed.
fn change_another(setting: &mut Setting, number: usize) {
    let routes = setting.settings["routes"].as_array_mut().unwrap();
    routes.insert(0, route(&format!("/another-{number}"), &json!([])));
    setting.reload();
}

fn breaker(wait: &str) -> Value {
    json!([{"name": "CircuitBreaker", "args": {"name": "shop", "statusCodes": "500", "slidingWindowSize": 2,
            "minimumNumberOfCalls": 2, "waitDurationInOpenState": wait}}])
}

#[tokio::test]
async fn an_open_circuit_stays_open_until_its_own_settings_change() {
    let mut setting = setting(json!([route("/x", &breaker("1h"))])).await;
    let (address, asked) = flaky(&mut setting, usize::MAX).await;
    setting.publish("coupon-service", &[("flaky", address)]);
    for _ in 0..3 {
        send(&mut setting, "GET", "/x", "").await;
    }
    assert_eq!(asked.load(SeqCst), 2, "open");
    change_another(&mut setting, 1);
    assert_eq!(send(&mut setting, "GET", "/x", "").await.status, 503, "and so it stays");
    assert_eq!(asked.load(SeqCst), 2);
    setting.settings["routes"] = json!([route("/x", &breaker("2h"))]);
    setting.reload();
    assert_eq!(send(&mut setting, "GET", "/x", "").await.status, 500, "another breaker");
    assert_eq!(asked.load(SeqCst), 3);
}

#[tokio::test]
async fn places_that_are_taken_stay_taken_also_if_there_are_more_or_fewer() {
    let with_limit = |limit: usize| {
        let mut route = route("/x", &json!([]));
        route["max-in-flight"] = json!(limit);
        json!([route])
    };
    let mut setting = setting(with_limit(1)).await;
    let held = Held::send(&mut setting, Request::get("/x?hold").body(Body::empty()).unwrap()).await;
    change_another(&mut setting, 1);
    assert_eq!(send(&mut setting, "GET", "/x", "").await.status, 503, "none is free");
    setting.settings["routes"] = with_limit(2);
    setting.reload();
    assert_eq!(send(&mut setting, "GET", "/x", "").await.status, 200, "the second");
    setting.settings["routes"] = with_limit(1);
    setting.reload();
    assert_eq!(send(&mut setting, "GET", "/x", "").await.status, 503, "one again, and it is taken");
    assert_eq!(held.let_go().await, 200);
    assert_eq!(send(&mut setting, "GET", "/x", "").await.status, 200, "it was given back to where it counts");
}

#[tokio::test]
async fn no_commit_pays_for_retries() {
    let retry = json!([{"name": "Retry", "args": {"retries": 10_000}}]);
    let mut setting = setting(json!([route("/x", &retry)])).await;
    let (address, asked) = flaky(&mut setting, usize::MAX).await;
    setting.publish("coupon-service", &[("flaky", address)]);
    assert_eq!(send(&mut setting, "GET", "/x", "").await.status, 500);
    let first = asked.load(SeqCst);
    assert!((50..1_000).contains(&first), "{first}: until the budget is spent");
    change_another(&mut setting, 1);
    assert_eq!(send(&mut setting, "GET", "/x", "").await.status, 500);
    let second = asked.load(SeqCst) - first;
    assert!(second < first / 2, "{second}: what the second has grown meanwhile");
}

#[tokio::test]
async fn whoever_has_used_up_a_rate_has_used_it_up() {
    let limit = json!([{"name": "RequestRateLimiter", "args": {"redis-rate-limiter.replenishRate": 1,
                        "redis-rate-limiter.burstCapacity": 3600, "redis-rate-limiter.requestedTokens": 3600,
                        "key-resolver": "path"}}]);
    let mut setting = setting(json!([route("/x", &limit)])).await;
    assert_eq!(send(&mut setting, "GET", "/x", "").await.status, 200);
    change_another(&mut setting, 1);
    assert_eq!(send(&mut setting, "GET", "/x", "").await.status, 429);
}
