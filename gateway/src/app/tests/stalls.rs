//! Clients that do not take their answers, by real connections.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use http::Request;
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::harness::Setting;

const SOON: Duration = Duration::from_secs(10);

async fn status_of(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer[9..12]).into_owned()
}

/// A service whose first answer never ends, and says when it was let go.
async fn endless(setting: &mut Setting) -> oneshot::Receiver<()> {
    let (held, dropped) = oneshot::channel::<()>();
    let held = std::sync::Arc::new(parking_lot::Mutex::new(Some(held)));
    let app = Router::new().fallback(async move || {
        let Some(held) = held.lock().take() else { return Body::from("ok") };
        Body::from_stream(stream::unfold(held, async |held| {
            Some((Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; 64 * 1024])), held))
        }))
    });
    let address = setting.serve(app).await;
    setting.publish("coupon-service", &[("endless", address)]);
    dropped
}

#[tokio::test]
async fn who_takes_nothing_holds_neither_place_nor_service_for_ever() {
    for is_http2 in [false, true] {
        let mut setting = Setting::new().await;
        let dropped = endless(&mut setting).await;
        setting.configure(&json!({"server": {"write-idle-timeout": "1s"}, "limits": {"in-flight": 1}}));
        let (_gateway, server) = setting.open();
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        let begun = Instant::now();
        if is_http2 {
            let (mut sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
                .initial_stream_window_size(1 << 20)
                .handshake(TokioIo::new(stream))
                .await
                .unwrap();
            setting.run(async move { drop(connection.await) });
            let request = Request::get("http://door.example/coupons").body(Empty::<Bytes>::new()).unwrap();
            let unread = sender.send_request(request).await.unwrap();
            assert_eq!(unread.status(), 200);
            assert_eq!(status_of(server.address(), "/coupons").await, "503", "HTTP/2");
            timeout(SOON, dropped).await.unwrap().unwrap_err();
            assert!(!sender.is_closed(), "only the stream has ended");
        } else {
            stream.write_all(b"GET /coupons HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            stream.readable().await.unwrap();
            assert_eq!(status_of(server.address(), "/coupons").await, "503", "HTTP/1");
            timeout(SOON, dropped).await.unwrap().unwrap_err();
        }
        assert!(begun.elapsed() >= Duration::from_secs(1));
        assert_eq!(status_of(server.address(), "/coupons").await, "200", "the place came back");
        server.stop(Duration::from_secs(1)).await;
    }
}
