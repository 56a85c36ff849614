//! Services that are slow, dead, dying, or many.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{Request, StatusCode};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::harness::Setting;

/// An address where nobody listens.
async fn dead() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// Reads a request's head, then writes `answer` and hangs up; counts the requests.
async fn raw(setting: &mut Setting, answer: &'static [u8]) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let requests = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&requests);
    setting.run(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
                    break;
                }
            }
            counter.fetch_add(1, SeqCst);
            let _ = stream.write_all(answer).await;
        }
    });
    (address, requests)
}

#[tokio::test]
async fn a_request_goes_to_another_instance_when_no_connection_can_be_made() {
    let mut setting = Setting::new().await;
    let (dead, alive) = (dead().await, setting.echo("alive").await);
    setting.publish("issue-service", &[("dead", dead), ("alive", alive)]);
    let token = setting.token();
    for _ in 0..40 {
        let answer = setting.claim(&token).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json()["body"], r#"{"couponId":1}"#, "also what was to be sent to the dead one");
    }
}

#[tokio::test]
async fn a_dead_service_is_503_and_so_is_one_without_instances() {
    let mut setting = Setting::new().await;
    let gone = dead().await;
    for instances in [&[("dead", gone)][..], &[]] {
        setting.publish("coupon-service", instances);
        tokio::task::yield_now().await;
        let answer = setting.get("/coupons").await;
        assert_eq!(answer.problem(), (503, "UPSTREAM_UNAVAILABLE".to_owned()));
        assert!(answer.header("retry-after").is_some());
        assert!(!String::from_utf8_lossy(&answer.body).contains("127.0.0.1"), "causes stay inside");
    }
}

#[tokio::test]
async fn a_sent_request_is_never_sent_again() {
    let mut setting = Setting::new().await;
    let (one, first) = raw(&mut setting, b"").await;
    let (two, second) = raw(&mut setting, b"").await;
    setting.publish("issue-service", &[("one", one), ("two", two)]);
    let answer = setting.claim(&setting.token()).await;
    assert_eq!(answer.problem(), (502, "UPSTREAM_ERROR".to_owned()));
    assert_eq!(first.load(SeqCst) + second.load(SeqCst), 1);
}

#[tokio::test]
async fn an_answer_that_is_no_http_is_502() {
    let mut setting = Setting::new().await;
    let (address, _) = raw(&mut setting, b"220 ready\r\n\r\n").await;
    setting.publish("coupon-service", &[("odd", address)]);
    assert_eq!(setting.get("/coupons").await.problem(), (502, "UPSTREAM_ERROR".to_owned()));
}

#[tokio::test]
async fn a_silent_service_is_504_and_asked_once() {
    let mut setting = Setting::new().await;
    setting.configure(&json!({"upstream": {"response-timeout": "100ms"}}));
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let silent = Router::new().fallback(async move || {
        counter.fetch_add(1, SeqCst);
        std::future::pending::<StatusCode>().await
    });
    let address = setting.serve(silent).await;
    setting.publish("issue-service", &[("silent", address)]);
    let answer = setting.claim(&setting.token()).await;
    assert_eq!(answer.problem(), (504, "UPSTREAM_TIMEOUT".to_owned()));
    assert_eq!(asked.load(SeqCst), 1);
}

#[tokio::test]
async fn a_request_whose_time_is_over_is_504_only_if_a_service_may_have_it() {
    let mut setting = Setting::new().await;
    setting.configure(&json!({"server": {"request-timeout": "1s"}}));
    let silent = Router::new().fallback(async || std::future::pending::<()>().await);
    let address = setting.serve(silent).await;
    setting.publish("issue-service", &[("silent", address)]);
    let token = setting.token();
    assert_eq!(setting.claim(&token).await.problem(), (504, "UPSTREAM_TIMEOUT".to_owned()));
    // A client that is still sending is to blame itself.
    let drip = Body::from_stream(futures_util::stream::pending::<Result<bytes::Bytes, std::io::Error>>());
    let slow = Request::post("/coupon-issues").header("authorization", format!("Bearer {token}"));
    let answer = setting.send(slow.body(drip).unwrap()).await;
    assert_eq!(answer.problem(), (408, "REQUEST_TIMEOUT".to_owned()));

    // Without keys it waits for them, and nobody has it.
    let mut setting = Setting::empty();
    setting.configure(&json!({"server": {"request-timeout": "50ms"}}));
    let address = setting.serve(Router::new().fallback(async || std::future::pending::<()>().await)).await;
    setting.publish("user-service", &[("silent", address)]);
    let answer = setting.claim(&setting.token()).await;
    assert_eq!(answer.problem(), (503, "OVERLOADED".to_owned()));
    assert!(answer.header("retry-after").is_some());
}

#[tokio::test]
async fn a_connection_that_the_service_closed_meanwhile_costs_nobody_an_error() {
    let mut setting = Setting::new().await;
    // Each answer says keep-alive, and the connection is closed all the same.
    let (address, requests) = raw(&mut setting, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    setting.publish("issue-service", &[("closing", address)]);
    let token = setting.token();
    for _ in 0..20 {
        assert_eq!(setting.claim(&token).await.status, 200);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(requests.load(SeqCst), 20);
}

#[tokio::test]
async fn connections_are_kept() {
    let mut setting = Setting::new().await;
    let peers = Arc::new(parking_lot::Mutex::new(BTreeSet::new()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::clone(&peers);
    let app = Router::new().fallback(async move |info: axum::extract::ConnectInfo<SocketAddr>| {
        seen.lock().insert(info.0);
        "ok"
    });
    setting.run(async move {
        axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await.unwrap();
    });
    setting.publish("coupon-service", &[("one", address)]);
    for _ in 0..10 {
        assert_eq!(setting.get("/coupons").await.status, 200);
    }
    assert_eq!(peers.lock().len(), 1);
}

#[tokio::test]
async fn a_services_own_answer_passes_untouched() {
    let mut setting = Setting::new().await;
    let problem = r#"{"type":"urn:firstcome:problem:coupon-sold-out","status":409,"code":"COUPON_SOLD_OUT","detail":"품절"}"#;
    let app = Router::new().fallback(async move || {
        let headers =
            [("content-type", "application/problem+json"), ("content-language", "ko"), ("location", "/x")];
        (StatusCode::CONFLICT, headers, problem)
    });
    let address = setting.serve(app).await;
    setting.publish("issue-service", &[("one", address)]);
    let answer = setting.claim(&setting.token()).await;
    assert_eq!(answer.problem(), (409, "COUPON_SOLD_OUT".to_owned()));
    assert_eq!(answer.body, problem);
    assert_eq!((answer.header("content-language"), answer.header("location")), (Some("ko"), Some("/x")));
}

#[tokio::test]
async fn the_path_goes_on_as_it_was_matched_and_nothing_internal_is_reached() {
    let mut setting = Setting::new().await;
    assert_eq!(setting.get("/%63oupons?q=%2F..&x").await.json()["uri"], "/coupons?q=%2F..&x");
    for path in ["/internal/counts", "/actuator/health", "/nowhere", "/Internal/x"] {
        assert_eq!(setting.get(path).await.problem(), (404, "NOT_FOUND".to_owned()), "{path}");
    }
    for path in [
        "/coupons/..;/internal",
        "/coupons/%2e%2e/internal/x",
        "/coupons%2F1",
        "//internal/x",
        "/coupons/1;a",
    ] {
        let answer = setting.get(path).await;
        assert_eq!(answer.problem(), (400, "VALIDATION_FAILED".to_owned()), "{path}");
        assert_eq!(answer.json()["errors"][0]["field"], "path");
    }
    let wrong = setting.send(Request::delete("/coupons").body(Body::empty()).unwrap()).await;
    assert_eq!(wrong.problem(), (405, "METHOD_NOT_ALLOWED".to_owned()));
    assert_eq!(wrong.header("allow"), Some("GET, HEAD, POST"));
}

#[tokio::test]
async fn a_trace_goes_through_and_its_sampling_only_if_clients_are_trusted() {
    for (trusted, flags) in [(None, "-00"), (Some(true), "-01")] {
        let mut setting = Setting::new().await;
        if let Some(trusted) = trusted {
            setting.configure(&json!({"trace": {"trust-client-sampling": trusted}}));
        }
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let parent = format!("00-{trace}-00f067aa0ba902b7-01");
        let request = Request::get("/coupons").header("traceparent", &parent).body(Body::empty()).unwrap();
        let answer = setting.send(request).await;
        let sent = answer.json()["headers"]["traceparent"][0].as_str().unwrap_or_default().to_owned();
        assert!(sent.contains(trace) && sent.ends_with(flags), "to the service: {sent}");
        let returned = answer.header("traceparent").unwrap_or_default();
        assert!(returned.contains(trace) && returned.ends_with(flags), "to the client: {returned}");
    }
}

#[tokio::test]
async fn many_requests_at_once_are_shared() {
    let mut setting = Setting::new().await;
    let counters = [Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0))];
    let mut addresses = Vec::new();
    for counter in &counters {
        let counter = Arc::clone(counter);
        let app = Router::new().fallback(async move || {
            counter.fetch_add(1, SeqCst);
            tokio::time::sleep(Duration::from_millis(20)).await;
        });
        addresses.push(setting.serve(app).await);
    }
    setting.publish("coupon-service", &[("one", addresses[0]), ("two", addresses[1])]);
    let app = setting.app();
    let requests = (0..100).map(|_| {
        let request = Request::get("/coupons").body(Body::empty()).unwrap();
        tower::ServiceExt::oneshot(app.clone(), request)
    });
    for response in futures_util::future::join_all(requests).await {
        assert_eq!(response.unwrap().status(), 200);
    }
    for counter in &counters {
        let count = counter.load(SeqCst);
        assert!((35..=65).contains(&count), "{count} of 100");
    }
}
