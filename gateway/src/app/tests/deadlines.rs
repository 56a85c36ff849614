//! Whose time counts, and who is blamed when it is over.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::Request;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::harness::Setting;
use super::resilience::{route, send, setting};

fn with_metadata(mut route: Value, metadata: Value) -> Value {
    route["metadata"] = metadata;
    route
}

/// Answers after `time`; counts the requests.
async fn slow(setting: &mut Setting, time: Duration) -> (SocketAddr, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let app = Router::new().fallback(async move || {
        counter.fetch_add(1, SeqCst);
        tokio::time::sleep(time).await;
    });
    (setting.serve(app).await, asked)
}

/// Takes no connection and refuses none: its queue is full.
async fn full() -> (SocketAddr, TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) = tokio::time::timeout(Duration::from_millis(100), TcpStream::connect(address)).await
    {
        waiting.push(stream.unwrap());
    }
    (address, listener, waiting)
}

/// Takes connections and reads nothing.
async fn deaf(setting: &mut Setting) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    setting.run(async move {
        let mut taken = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            taken.push(stream);
        }
    });
    address
}

#[tokio::test]
async fn a_routes_own_time_counts_before_the_general_one() {
    let mut setting = setting(json!([
        with_metadata(route("/long", &json!([])), json!({"response-timeout": 30_000})),
        with_metadata(route("/endless", &json!([])), json!({"response-timeout": -1})),
        route("/patient", &json!([{"name": "CircuitBreaker", "args": {"timeoutDuration": "30s"}}])),
        with_metadata(route("/short", &json!([])), json!({"response-timeout": 100, "connect-timeout": 100})),
        route("/usual", &json!([])),
    ]))
    .await;
    setting.configure(&json!({"server": {"request-timeout": "300ms"}}));
    let (address, _) = slow(&mut setting, Duration::from_millis(800)).await;
    setting.publish("coupon-service", &[("slow", address)]);
    for (path, status) in
        [("/long", 200), ("/endless", 200), ("/patient", 200), ("/short", 504), ("/usual", 504)]
    {
        assert_eq!(send(&mut setting, "GET", path, "").await.status, status, "{path}");
    }
}

#[tokio::test]
async fn all_tries_share_one_time() {
    let retry = json!([{"name": "Retry", "args": {"retries": 50}}]);
    let own = json!({"response-timeout": 100, "connect-timeout": 100});
    let mut setting = setting(json!([with_metadata(route("/x", &retry), own)])).await;
    setting.configure(&json!({"server": {"request-timeout": "350ms"}}));
    let (address, asked) = slow(&mut setting, Duration::from_secs(60)).await;
    setting.publish("coupon-service", &[("slow", address)]);
    let begun = Instant::now();
    assert_eq!(send(&mut setting, "GET", "/x", "").await.problem(), (504, "UPSTREAM_TIMEOUT".to_owned()));
    let (took, asked) = (begun.elapsed(), asked.load(SeqCst));
    assert!(took >= Duration::from_millis(350) && took < Duration::from_secs(3), "{took:?}");
    assert!((2..=4).contains(&asked), "{asked}: again after each try's own time, until all is over");
    // Each of them was told.
    for _ in 0..2 {
        send(&mut setting, "GET", "/x", "").await;
    }
    assert_eq!(setting.avoided(), ["slow"]);
}

#[tokio::test]
async fn whatever_time_ends_it_the_instance_is_blamed() {
    let breaker = json!([{"name": "CircuitBreaker", "args": {"timeoutDuration": "60ms"}}]);
    let own = json!({"response-timeout": 60, "connect-timeout": 10});
    for (route, general) in [
        (route("/x", &json!([])), "60ms"),
        (route("/x", &breaker), "15s"),
        (with_metadata(route("/x", &json!([])), own), "15s"),
    ] {
        let mut setting = setting(json!([route])).await;
        setting.configure(&json!({"server": {"request-timeout": general}}));
        let (address, _) = slow(&mut setting, Duration::from_secs(60)).await;
        setting.publish("coupon-service", &[("hung", address)]);
        for number in 1..=5 {
            assert!(setting.avoided().is_empty(), "{route}: not before the fifth, this is {number}");
            assert_eq!(send(&mut setting, "GET", "/x", "").await.status, 504);
        }
        assert_eq!(setting.avoided(), ["hung"], "{route}");
    }
}

#[tokio::test]
async fn a_connection_that_the_deadline_ends_is_503_and_counts_at_the_breaker() {
    let breaker = json!([{"name": "CircuitBreaker", "args": {
        "timeoutDuration": "100ms", "slidingWindowSize": 2, "minimumNumberOfCalls": 2, "waitDurationInOpenState": "1h"}}]);
    let mut setting = setting(json!([route("/x", &breaker)])).await;
    let (address, _listener, _waiting) = full().await;
    setting.publish("coupon-service", &[("full", address)]);
    for _ in 0..2 {
        let begun = Instant::now();
        let answer = send(&mut setting, "GET", "/x", "").await;
        assert_eq!(answer.problem(), (503, "UPSTREAM_UNAVAILABLE".to_owned()));
        assert_eq!(answer.header("retry-after"), Some("1"));
        assert!(begun.elapsed() < Duration::from_millis(1_400), "the breaker's time, not the connection's");
        assert!(setting.avoided().is_empty(), "it did not have the time that a connection may take");
    }
    let open = send(&mut setting, "GET", "/x", "").await;
    assert!(open.header("retry-after").unwrap().parse::<u32>().unwrap() > 3_000, "open: {open:?}");
}

#[tokio::test]
async fn a_slow_client_is_blamed_itself_also_where_its_body_is_kept() {
    let large = json!("RequestSize=1MB"); // which is not read before a place is taken
    let again = json!([large, {"name": "Retry", "args": {"methods": ["POST"]}}]);
    let instead = json!([large, {"name": "CircuitBreaker", "args": {"fallbackUri": "forward:/retry"}}]);
    let mut setting = setting(json!([route("/retry", &again), route("/instead", &instead)])).await;
    setting.configure(&json!({"server": {"request-timeout": "200ms"}}));
    for path in ["/retry", "/instead"] {
        let drip = Body::from_stream(futures_util::stream::pending::<Result<bytes::Bytes, std::io::Error>>());
        let begun = Instant::now();
        let answer = setting.send(Request::post(path).body(drip).unwrap()).await;
        assert_eq!(answer.problem(), (408, "REQUEST_TIMEOUT".to_owned()), "{path}");
        assert!(
            begun.elapsed() < Duration::from_secs(3),
            "{path}: long before its body has stood still for too long"
        );
    }
}

#[tokio::test]
async fn who_does_not_take_a_body_is_blamed_and_not_who_sends_it() {
    static PIECE: [u8; 64 * 1024] = [b'x'; 64 * 1024];
    let filters = json!(["RequestSize=1GB", {"name": "CircuitBreaker", "args": {
        "timeoutDuration": "200ms", "slidingWindowSize": 5, "minimumNumberOfCalls": 5, "waitDurationInOpenState": "1h"}}]);
    let mut setting = setting(json!([route("/x", &filters)])).await;
    let address = deaf(&mut setting).await;
    setting.publish("coupon-service", &[("deaf", address)]);
    let piece = || Ok::<_, std::io::Error>(Bytes::from_static(&PIECE));
    for _ in 0..5 {
        let stops = Body::from_stream(stream::iter([piece()]).chain(stream::pending()));
        let answer = setting.send(Request::post("/x").body(stops).unwrap()).await;
        assert_eq!(answer.problem(), (408, "REQUEST_TIMEOUT".to_owned()));
    }
    assert!(setting.avoided().is_empty());
    for _ in 0..5 {
        let goes_on = Body::from_stream(stream::repeat_with(piece));
        let answer = setting.send(Request::post("/x").body(goes_on).unwrap()).await;
        assert_eq!(answer.problem(), (504, "UPSTREAM_TIMEOUT".to_owned()));
    }
    assert_eq!(setting.avoided(), ["deaf"]);
    let open = send(&mut setting, "GET", "/x", "").await;
    assert_eq!(open.problem(), (503, "UPSTREAM_UNAVAILABLE".to_owned()), "at the breaker too");
}
