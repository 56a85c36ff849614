use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use axum::body::Body;
use axum::routing::{get, post};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tower::ServiceExt as _;

use super::*;
use crate::http::extract::{Json, Path, Query};
use crate::http::problem::Problem;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Order {
    coupon_id: u64,
    #[expect(dead_code, reason = "only read")]
    note: Option<String>,
}

#[derive(Deserialize)]
struct Page {
    limit: Option<u32>,
}

fn router() -> Router {
    Router::new()
        .route("/orders", post(async |Json(order): Json<Order>| order.coupon_id.to_string()))
        .route("/orders/{id}", get(async |Path(id): Path<u64>| id.to_string()))
        .route("/page", get(async |Query(page): Query<Page>| format!("{:?}", page.limit)))
        .route("/panic", get(async || -> String { panic!("the secret of the house") }))
        .route("/problem", get(async || Problem::internal("the secret of the house")))
        .route("/own-404", get(async || (StatusCode::NOT_FOUND, "mine")))
        .route("/slow", get(async || tokio::time::sleep(Duration::from_millis(600)).await))
        .route("/hang", get(async || std::future::pending::<()>().await))
        .route("/ok", get(async || "ok"))
}

async fn ask(request: Request<Body>) -> Response<Body> {
    layered(router(), &ServerSettings::default()).oneshot(request).await.unwrap()
}

async fn problem(response: Response<Body>) -> Value {
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let trace = response.headers()["traceparent"].to_str().unwrap().to_owned();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(trace[3..35], *body["traceId"].as_str().unwrap());
    body
}

fn order(body: impl Into<Body>) -> Request<Body> {
    Request::post("/orders").header("content-type", "application/json").body(body.into()).unwrap()
}

fn at(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

#[tokio::test]
async fn each_wrong_body_has_its_code_and_field() {
    let cases: [(&str, u16, &str, Option<&str>); 8] = [
        (r#"{"couponId": "x"}"#, 400, "VALIDATION_FAILED", Some("couponId")),
        (r#"{"couponId": -1}"#, 400, "VALIDATION_FAILED", Some("couponId")),
        (r"{}", 400, "VALIDATION_FAILED", Some("couponId")),
        (r"[1]", 400, "VALIDATION_FAILED", None),
        (r"7", 400, "VALIDATION_FAILED", Some("body")),
        (r#"{"couponId": "#, 400, "MALFORMED_JSON", None),
        ("", 400, "MALFORMED_JSON", None),
        (r#"{"couponId": 1} x"#, 400, "MALFORMED_JSON", None),
    ];
    for (body, status, code, field) in cases {
        let answer = problem(ask(order(body)).await).await;
        assert_eq!(
            (answer["status"].as_u64(), answer["code"].as_str()),
            (Some(u64::from(status)), Some(code)),
            "{body}"
        );
        if let Some(field) = field {
            assert_eq!(answer["errors"][0]["field"], field, "{body}: {answer}");
        }
        assert!(!answer.to_string().contains("Order"), "{answer}");
    }
    let fine = ask(order(r#"{"couponId": 5, "unknown": true, "note": null}"#)).await;
    assert_eq!(fine.status(), 200);
}

#[tokio::test]
async fn content_type_method_path_and_parameters_have_their_codes() {
    let request = Request::post("/orders").body(Body::from("{}")).unwrap();
    assert_eq!(problem(ask(request).await).await["code"], "UNSUPPORTED_MEDIA_TYPE");
    let request =
        Request::post("/orders").header("content-type", "text/plain").body(Body::from("{}")).unwrap();
    assert_eq!(problem(ask(request).await).await["code"], "UNSUPPORTED_MEDIA_TYPE");
    let answer = problem(ask(at("/nowhere?x=1")).await).await;
    assert_eq!((answer["code"].as_str(), answer["instance"].as_str()), (Some("NOT_FOUND"), Some("/nowhere")));
    let wrong = ask(at("/orders")).await;
    assert_eq!(wrong.headers()["allow"], "POST");
    assert_eq!(problem(wrong).await["code"], "METHOD_NOT_ALLOWED");
    let answer = problem(ask(at("/orders/x")).await).await;
    assert_eq!(
        (&answer["code"], &answer["errors"][0]["field"]),
        (&"VALIDATION_FAILED".into(), &"id".into()),
        "{answer}"
    );
    let answer = problem(ask(at("/page?limit=many")).await).await;
    assert_eq!(
        (&answer["code"], &answer["errors"][0]["field"]),
        (&"VALIDATION_FAILED".into(), &"limit".into()),
        "{answer}"
    );
    let own = ask(at("/own-404")).await;
    assert_eq!(own.into_body().collect().await.unwrap().to_bytes(), "mine");
}

#[tokio::test]
async fn a_panic_and_a_cause_stay_inside() {
    for path in ["/panic", "/problem"] {
        let answer = problem(ask(at(path)).await).await;
        assert_eq!((answer["status"].as_u64(), answer["code"].as_str()), (Some(500), Some("INTERNAL")));
        assert!(!answer.to_string().contains("secret"), "{answer}");
    }
}

#[tokio::test]
async fn the_language_and_the_trace_are_the_clients() {
    let request = Request::get("/nowhere")
        .header("accept-language", "ko-KR,ko;q=0.9,en;q=0.8")
        .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")
        .body(Body::empty())
        .unwrap();
    let answer = problem(ask(request).await).await;
    assert_eq!(answer["detail"], "요청한 대상을 찾을 수 없습니다.");
    assert_eq!(answer["traceId"], "0af7651916cd43dd8448eb211c80319c");
}

#[tokio::test]
async fn a_body_over_the_limit_is_413_whether_it_says_so_or_not() {
    let large = format!("{{\"couponId\": 1, \"note\": \"{}\"}}", "x".repeat(17 * 1024));
    assert_eq!(problem(ask(order(large.clone())).await).await["code"], "PAYLOAD_TOO_LARGE");
    let chunks: Vec<_> =
        large.into_bytes().chunks(1000).map(|chunk| Ok::<_, io::Error>(chunk.to_vec())).collect();
    let stream = Body::from_stream(futures_util::stream::iter(chunks));
    assert_eq!(problem(ask(order(stream)).await).await["code"], "PAYLOAD_TOO_LARGE");
    let lying = Request::post("/orders").header("content-length", "99999999").body(Body::empty()).unwrap();
    assert_eq!(problem(ask(lying).await).await["code"], "PAYLOAD_TOO_LARGE");
    let small = Body::from_stream(futures_util::stream::iter([Ok::<_, io::Error>(r#"{"couponId": 3}"#)]));
    assert_eq!(ask(order(small)).await.status(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_hangs_is_503() {
    let answer = problem(ask(at("/hang")).await).await;
    assert_eq!(answer["code"], "OVERLOADED");
}

#[tokio::test]
async fn a_clients_sampling_counts_at_the_edge_only_if_it_is_trusted() {
    // No trace is sampled here by the ratio.
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for (trust_client_sampling, flags) in [(true, "01"), (false, "00")] {
        let edge = layered_edge(router(), &ServerSettings::default(), Edge { trust_client_sampling });
        let request = Request::get("/ok").header("traceparent", trace).body(Body::empty()).unwrap();
        let answer = edge.oneshot(request).await.unwrap();
        let answered = answer.headers()["traceparent"].to_str().unwrap();
        assert_eq!((&answered[..36], &answered[53..]), (&trace[..36], flags));
    }
}

#[tokio::test(start_paused = true)]
async fn the_edge_bounds_body_and_time_itself() {
    let settings = ServerSettings::default();
    let edge = layered_edge(router(), &settings, Edge { trust_client_sampling: false });
    let large = format!("{{\"couponId\": 1, \"note\": \"{}\"}}", "x".repeat(17 * 1024));
    assert_eq!(edge.clone().oneshot(order(large)).await.unwrap().status(), 200);
    let hang = edge.clone().oneshot(at("/hang"));
    assert!(tokio::time::timeout(settings.request_timeout * 2, hang).await.is_err());
    assert_eq!(problem(edge.oneshot(at("/panic")).await.unwrap()).await["code"], "INTERNAL");
}

fn start(change: impl FnOnce(&mut ServerSettings)) -> Server {
    let mut settings = ServerSettings::default();
    change(&mut settings);
    Server::start(&settings, |_| router()).unwrap()
}

async fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(server.address()).await.unwrap()
}

async fn send(stream: &mut TcpStream, path: &str) {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
}

/// Reads until the text shows up; None when the connection ends before.
async fn read_until(stream: &mut TcpStream, text: &str) -> Option<String> {
    let mut read = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return None,
            Ok(length) => read.extend_from_slice(&buffer[..length]),
        }
        let all = String::from_utf8_lossy(&read);
        if all.contains(text) {
            return Some(all.into_owned());
        }
    }
}

#[tokio::test]
async fn a_client_that_does_not_send_its_head_is_cut() {
    let server = start(|settings| settings.header_timeout = Duration::from_millis(100));
    let mut slow = connect(&server).await;
    slow.write_all(b"GET /ok HT").await.unwrap();
    let mut silent = connect(&server).await;
    let begun = Instant::now();
    assert_eq!(read_until(&mut slow, "ok").await, None);
    assert_eq!(read_until(&mut silent, "ok").await, None);
    assert!(begun.elapsed() < Duration::from_secs(2));
    // Nor may one who has been answered be slow with the next one, but he may wait with it.
    let mut again = connect(&server).await;
    send(&mut again, "/ok").await;
    read_until(&mut again, "\r\n\r\nok").await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    send(&mut again, "/ok").await;
    read_until(&mut again, "\r\n\r\nok").await.unwrap();
    again.write_all(b"GET /ok HT").await.unwrap();
    let begun = Instant::now();
    assert_eq!(read_until(&mut again, "ok").await, None);
    assert!(begun.elapsed() < Duration::from_secs(2));
    server.stop(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn a_connection_that_is_quiet_for_too_long_after_an_answer_is_closed() {
    let server = start(|settings| {
        settings.header_timeout = Duration::from_millis(50);
        settings.idle_timeout = Duration::from_millis(400);
    });
    let mut quiet = connect(&server).await;
    send(&mut quiet, "/ok").await;
    read_until(&mut quiet, "\r\n\r\nok").await.unwrap();
    let begun = Instant::now();
    assert_eq!(read_until(&mut quiet, "more").await, None);
    assert!(begun.elapsed() >= Duration::from_millis(350), "{:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    server.stop(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn what_was_begun_is_answered_in_the_drain_and_idle_connections_close() {
    let server = start(|_| {});
    let (mut busy, mut idle) = (connect(&server).await, connect(&server).await);
    send(&mut idle, "/ok").await;
    read_until(&mut idle, "ok").await.unwrap();
    send(&mut busy, "/slow").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let address = server.address();
    let begun = Instant::now();
    let drained = tokio::runtime::Handle::current().spawn(server.stop(Duration::from_secs(5)));
    assert_eq!(read_until(&mut idle, "ok").await, None);
    assert!(read_until(&mut busy, "200 OK").await.is_some());
    drained.await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn who_leaves_answers_and_says_goodbye() {
    let server = start(|_| {});
    let mut stream = connect(&server).await;
    send(&mut stream, "/ok").await;
    let before = read_until(&mut stream, "\r\n\r\nok").await.unwrap();
    assert!(!before.contains("connection: close"), "{before}");
    server.leave();
    // On a connection that was there, and on a new one.
    for mut stream in [stream, connect(&server).await] {
        send(&mut stream, "/ok").await;
        let last = read_until(&mut stream, "\r\n\r\nok").await.unwrap();
        assert!(last.starts_with("HTTP/1.1 200") && last.contains("connection: close"), "{last}");
        assert_eq!(read_until(&mut stream, "more").await, None, "closed");
    }
    server.stop(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn what_does_not_end_is_cut_after_the_drain() {
    let server = start(|_| {});
    let mut hanging = connect(&server).await;
    send(&mut hanging, "/hang").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let begun = Instant::now();
    server.stop(Duration::from_millis(200)).await;
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert_eq!(read_until(&mut hanging, "OK").await, None);
}

#[tokio::test]
async fn connections_beyond_the_cap_wait_for_their_turn() {
    let server = start(|settings| settings.max_connections = 1);
    let (mut first, mut second) = (connect(&server).await, connect(&server).await);
    send(&mut first, "/ok").await;
    read_until(&mut first, "ok").await.unwrap();
    send(&mut second, "/ok").await;
    let waits = tokio::time::timeout(Duration::from_millis(200), read_until(&mut second, "ok")).await;
    assert!(waits.is_err());
    drop(first);
    assert!(read_until(&mut second, "ok").await.is_some());
    drop(second);
    server.stop(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn workers_serve_on_one_port_and_end_with_the_server() {
    let made = Arc::new(AtomicUsize::new(0));
    let settings = ServerSettings { workers: 3, ..ServerSettings::default() };
    let count = made.clone();
    let server = Server::start(&settings, move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        router()
    })
    .unwrap();
    for _ in 0..20 {
        let mut stream = connect(&server).await;
        send(&mut stream, "/ok").await;
        assert!(read_until(&mut stream, "ok").await.is_some());
    }
    assert_eq!(made.load(Ordering::Relaxed), 3);
    server.stop(Duration::from_secs(1)).await;
}
