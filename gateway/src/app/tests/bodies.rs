//! Bodies and their limits, in both directions.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use futures_util::{StreamExt as _, stream};
use http::Request;
use serde_json::json;

use super::harness::Setting;

const LIMIT: usize = 16 * 1024;

fn sign_up(body: Body) -> Request<Body> {
    Request::post("/users/sign-up").body(body).unwrap()
}

/// As a chunked request arrives: nobody knows how long it is.
fn chunks(count: usize, size: usize) -> Body {
    Body::from_stream(stream::iter(
        (0..count).map(move |_| Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; size]))),
    ))
}

#[tokio::test]
async fn a_body_of_the_limit_passes_however_it_is_framed() {
    let mut setting = Setting::new().await;
    for body in [Body::from(vec![b'x'; LIMIT]), chunks(16, LIMIT / 16)] {
        let answer = setting.send(sign_up(body)).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json()["body"].as_str().map(str::len), Some(LIMIT));
    }
}

#[tokio::test]
async fn a_larger_body_is_413_announced_or_not() {
    let mut setting = Setting::new().await;
    let announced = Request::post("/users/sign-up")
        .header("content-length", LIMIT + 1)
        .body(Body::from(vec![b'x'; LIMIT + 1]))
        .unwrap();
    for request in [announced, sign_up(chunks(17, 1024)), sign_up(chunks(1, 1 << 20))] {
        assert_eq!(setting.send(request).await.problem(), (413, "PAYLOAD_TOO_LARGE".to_owned()));
    }
}

#[tokio::test]
async fn a_route_without_a_service_counts_too() {
    let mut setting = Setting::new().await;
    setting.configure(&json!({"route-enabled": {"noop": true}}));
    let token = setting.token();
    let post =
        |body| Request::post("/noop").header("authorization", format!("Bearer {token}")).body(body).unwrap();
    let good = setting.send(post(chunks(1, 1024))).await;
    assert_eq!((good.status.as_u16(), good.body.len()), (200, 0));
    assert_eq!(setting.send(post(chunks(17, 1024))).await.status, 413);
    assert_eq!(setting.get("/noop").await.status, 401);
}

#[tokio::test]
async fn the_noop_route_is_off_as_shipped() {
    assert_eq!(Setting::new().await.get("/noop").await.problem(), (404, "NOT_FOUND".to_owned()));
}

#[tokio::test]
async fn a_client_that_stops_sending_is_told_so_and_the_service_not_blamed() {
    let mut setting = Setting::new().await;
    setting.configure(&json!({"upstream": {"body-idle-timeout": "100ms"}}));
    let body = Body::from_stream(
        stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"x"))]).chain(stream::pending()),
    );
    assert_eq!(setting.send(sign_up(body)).await.problem(), (408, "REQUEST_TIMEOUT".to_owned()));
}

#[tokio::test]
async fn an_answer_flows_before_it_is_complete_and_breaks_off_where_the_service_stops() {
    let mut setting = Setting::new().await;
    setting.configure(&json!({"upstream": {"body-idle-timeout": "200ms"}}));
    let slow = Router::new().fallback(async || {
        Body::from_stream(
            stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"first"))]).chain(stream::pending()),
        )
    });
    let address = setting.serve(slow).await;
    setting.publish("coupon-service", &[("slow", address)]);
    let response =
        tower::ServiceExt::oneshot(setting.app(), Request::get("/coupons").body(Body::empty()).unwrap());
    let mut body = response.await.unwrap().into_body().into_data_stream();
    assert_eq!(body.next().await.unwrap().unwrap(), "first");
    let second = tokio::time::timeout(Duration::from_secs(10), body.next()).await;
    assert!(matches!(second, Ok(Some(Err(_)))), "{second:?}");
}

#[tokio::test]
async fn a_place_is_held_until_the_last_byte_is_gone() {
    let mut setting = Setting::new().await;
    setting.configure(&json!({"limits": {"in-flight": 1}}));
    let chunked = Router::new().fallback(async || {
        Body::from_stream(
            stream::iter(["a", "b"]).map(|part| Ok::<_, std::io::Error>(Bytes::from_static(part.as_bytes()))),
        )
    });
    let address = setting.serve(chunked).await;
    setting.publish("coupon-service", &[("c", address)]);
    let first =
        tower::ServiceExt::oneshot(setting.app(), Request::get("/coupons").body(Body::empty()).unwrap());
    let first = first.await.unwrap();
    let refused = setting.get("/coupons").await;
    assert_eq!(refused.problem(), (503, "OVERLOADED".to_owned()));
    assert!(refused.header("retry-after").is_some());
    assert_eq!(axum::body::to_bytes(first.into_body(), 100).await.unwrap(), "ab");
    assert_eq!(setting.get("/coupons").await.status, 200);
}

#[tokio::test]
async fn events_may_be_far_apart() {
    let mut setting = Setting::new().await;
    setting.configure(&json!({"upstream": {"body-idle-timeout": "100ms"}}));
    let events = |kind: &'static str| {
        Router::new().fallback(async move || {
            let events = stream::unfold(0, async |number| {
                tokio::time::sleep(Duration::from_millis(if number == 0 { 0 } else { 400 })).await;
                (number < 2).then(|| (Ok::<_, std::io::Error>(format!("data: {number}\n\n")), number + 1))
            });
            ([("content-type", kind)], Body::from_stream(events))
        })
    };
    for (kind, whole) in [("text/event-stream; charset=utf-8", true), ("text/plain", false)] {
        let address = setting.serve(events(kind)).await;
        setting.publish("coupon-service", &[(kind, address)]);
        tokio::task::yield_now().await;
        let request = Request::get("/coupons").body(Body::empty()).unwrap();
        let response = tower::ServiceExt::oneshot(setting.app(), request).await.unwrap();
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await;
        assert_eq!(body.ok().as_deref(), whole.then_some(&b"data: 0\n\ndata: 1\n\n"[..]), "{kind}");
    }
}

#[tokio::test]
async fn so_many_bodies_are_read_at_once_and_no_more() {
    let mut setting = Setting::new().await;
    setting.configure(&json!({"limits": {"reading": 1}, "upstream": {"body-idle-timeout": "1s"}}));
    let app = setting.app();
    let slow = stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"x"))]).chain(stream::pending());
    let slow = tower::ServiceExt::oneshot(app.clone(), sign_up(Body::from_stream(slow)));
    let slow = tokio::runtime::Handle::current().spawn(slow);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let large = Request::post("/users/sign-up").header("content-length", LIMIT + 1);
    let large = large.body(Body::from(vec![b'x'; LIMIT + 1])).unwrap();
    for refused in [sign_up(chunks(1, 10)), large] {
        let answer = setting.send(refused).await;
        assert_eq!(answer.problem(), (503, "OVERLOADED".to_owned()));
        assert!(answer.header("retry-after").is_some());
    }
    assert_eq!(setting.get("/coupons").await.status, 200, "without a body there is nothing to read");
    assert_eq!(slow.await.unwrap().unwrap().status(), 408);
    assert_eq!(setting.send(sign_up(chunks(1, 10))).await.status, 200);
}

#[tokio::test]
async fn who_sends_a_body_slowly_takes_no_place() {
    let mut setting = Setting::new().await;
    setting.configure(&json!({"limits": {"in-flight": 1}}));
    let app = setting.app();
    let slow = || {
        let body = stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"x"))]).chain(stream::pending());
        tower::ServiceExt::oneshot(app.clone(), sign_up(Body::from_stream(body)))
    };
    let slow: Vec<_> = (0..20).map(|_| tokio::runtime::Handle::current().spawn(slow())).collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(setting.get("/coupons").await.status, 200);
    slow.iter().for_each(tokio::task::JoinHandle::abort);
}
