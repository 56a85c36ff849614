//! WebSockets, by real connections: what lets them in, and what ends them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use platform::http::server::Server;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::harness::Setting;

/// Longer than an end takes to be noticed.
const SOON: Duration = Duration::from_secs(5);
/// Long enough for one to be noticed that should not be.
const A_WHILE: Duration = Duration::from_millis(2_500);

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// Agrees to every WebSocket and sends everything back.
async fn echo_socket(setting: &mut Setting) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    setting.run(async move {
        let mut tasks = tokio::task::JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            tasks.spawn(async move {
                read_head(&mut stream).await;
                let agreed =
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
                stream.write_all(agreed.as_bytes()).await.unwrap();
                let (mut reading, mut writing) = stream.split();
                let _ = tokio::io::copy(&mut reading, &mut writing).await;
            });
        }
    });
    address
}

/// One route that needs a token, and one that does not, to such a service; `/coupons` is as ever.
async fn setting() -> Setting {
    let mut setting = Setting::new().await;
    let address = echo_socket(&mut setting).await;
    setting.publish("issue-service", &[("echo", address)]);
    let route = |path: &str, service: &str, authentication: &str| {
        json!({"id": path, "uri": format!("lb://{service}"), "predicates": [format!("Path={path}")],
               "authentication": authentication})
    };
    setting.settings["routes"] = json!([
        route("/mine", "issue-service", "required"),
        route("/all", "issue-service", "none"),
        route("/coupons", "coupon-service", "none"),
    ]);
    setting.settings["route-enabled"] = json!({});
    setting
}

async fn ask(address: SocketAddr, head: String) -> (u16, TcpStream) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = read_head(&mut stream).await;
    (answer[9..12].parse().unwrap(), stream)
}

async fn upgrade(server: &Server, path: &str, token: &str) -> (u16, TcpStream) {
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Authorization: Bearer {token}\r\n\r\n"
    );
    ask(server.address(), head).await
}

async fn plain(server: &Server) -> u16 {
    ask(server.address(), "GET /coupons HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned()).await.0
}

async fn is_alive(stream: &mut TcpStream) -> bool {
    let mut back = [0; 4];
    stream.write_all(b"ping").await.is_ok() && stream.read_exact(&mut back).await.is_ok()
}

/// Nothing more comes, not even an end.
async fn stays(stream: &mut TcpStream) -> bool {
    timeout(A_WHILE, stream.read_u8()).await.is_err() && is_alive(stream).await
}

async fn has_ended(stream: &mut TcpStream) -> bool {
    matches!(timeout(SOON, stream.read(&mut [0])).await, Ok(Ok(0) | Err(_)))
}

#[tokio::test]
async fn a_tunnel_lasts_no_longer_than_its_token() {
    let mut setting = setting().await;
    let (_gateway, server) = setting.open();
    let token = setting.token();
    let (status, mut mine) = upgrade(&server, "/mine", &token).await;
    assert_eq!(status, 101);
    let mut all = upgrade(&server, "/all", &token).await.1;
    assert!(is_alive(&mut mine).await && stays(&mut mine).await && is_alive(&mut all).await);
    setting.clock.advance(Duration::from_secs(906)); // 15 min and the leeway
    assert!(has_ended(&mut mine).await);
    assert!(stays(&mut all).await, "it was asked for no token");
    drop(all);
    server.stop(SOON).await;
}

#[tokio::test]
async fn a_tunnel_ends_with_its_login() {
    let mut setting = setting().await;
    let (gateway, server) = setting.open();
    let mut mine = upgrade(&server, "/mine", &setting.token()).await.1;
    gateway.auth.revocations().add([("another".into(), u64::MAX)], 0);
    assert!(stays(&mut mine).await);
    gateway.auth.revocations().add([("s".into(), u64::MAX)], 0);
    assert!(has_ended(&mut mine).await);
    server.stop(SOON).await;
}

#[tokio::test]
async fn a_stop_waits_for_tunnels_to_end_and_they_do_so_soon() {
    let mut setting = setting().await;
    let (gateway, server) = setting.open();
    let mut tunnels = Vec::new();
    for path in ["/mine", "/all"] {
        tunnels.push(upgrade(&server, path, &setting.token()).await.1);
    }
    assert_eq!(gateway.tunnels.current(), 2);
    let begun = Instant::now();
    setting.lifecycle.shutdown();
    server.stop(SOON).await;
    assert!(begun.elapsed() < SOON / 2, "{:?}", begun.elapsed());
    assert_eq!(gateway.tunnels.current(), 0, "it has waited");
    for mut tunnel in tunnels {
        assert!(has_ended(&mut tunnel).await);
    }
}

#[tokio::test]
async fn tunnels_have_places_of_their_own() {
    let mut setting = setting().await;
    setting.configure(&json!({"limits": {"websockets": 1, "in-flight": 1}}));
    let (gateway, server) = setting.open();
    let (status, tunnel) = upgrade(&server, "/all", "").await;
    assert_eq!(status, 101);
    assert_eq!(plain(&server).await, 200, "it takes none in flight");
    assert_eq!(upgrade(&server, "/all", "").await.0, 503);
    drop(tunnel);
    let begun = Instant::now();
    while gateway.tunnels.current() > 0 {
        assert!(begun.elapsed() < SOON);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (status, tunnel) = upgrade(&server, "/all", "").await;
    assert_eq!(status, 101);
    drop(tunnel);
    server.stop(SOON).await;
}

#[tokio::test]
async fn a_tunnel_counts_as_a_connection() {
    let mut setting = setting().await;
    setting.configure(&json!({"server": {"max-connections": 1}}));
    let (_gateway, server) = setting.open();
    let (status, mut tunnel) = upgrade(&server, "/all", "").await;
    assert_eq!(status, 101);
    assert!(timeout(Duration::from_millis(500), plain(&server)).await.is_err(), "beyond the cap");
    assert!(is_alive(&mut tunnel).await);
    drop(tunnel);
    assert_eq!(timeout(SOON, plain(&server)).await, Ok(200));
    server.stop(SOON).await;
}

#[tokio::test]
async fn a_tunnel_whose_client_takes_nothing_ends() {
    let mut setting = setting().await;
    setting.configure(&json!({"server": {"write-idle-timeout": "500ms"}}));
    let (gateway, server) = setting.open();
    let (_, mut tunnel) = upgrade(&server, "/all", "").await;
    let sending = async { while tunnel.write_all(&[b'x'; 64 * 1024]).await.is_ok() {} };
    let ended = async {
        while gateway.tunnels.current() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON * 2, async { tokio::join!(sending, ended) }).await.unwrap();
    server.stop(SOON).await;
}
