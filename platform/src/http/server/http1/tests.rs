use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http_body_util::BodyExt as _;
use tokio::io::{AsyncWriteExt as _, DuplexStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::super::stall::ClientSocket;
use super::*;
use crate::config::ServerSettings;

/// Long enough to come to rest.
const LONG: Duration = Duration::from_secs(20);

/// A connection to a server that answers with the request's method, path and body; `/kept` is answered while the body
/// may go on. Time stands still but for waiting.
fn connect(tasks: &mut JoinSet<()>) -> DuplexStream {
    let answer = async |request: Request<Body>| {
        let (parts, mut body) = request.into_parts();
        if parts.uri.path() == "/kept" {
            drop(
                tokio::runtime::Handle::current().spawn(async move { while body.frame().await.is_some() {} }),
            );
            return "early".to_owned();
        }
        let body = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        format!("<{} {} {body}>", parts.method, parts.uri)
    };
    let settings = ServerSettings::default();
    let front = Front::new(Router::new().fallback(answer), &settings, None);
    let (client, server) = tokio::io::duplex(64 * 1024);
    let shared = Shared::new(&settings).unwrap();
    tasks.spawn(async move {
        let exchange = Arc::new(Exchange::default());
        let (socket, _closed) = ClientSocket::new(server, settings.write_idle_timeout, exchange.clone());
        let peer = Peer { address: ([127, 0, 0, 1], 1).into(), tls: false };
        converse(socket, exchange, Instant::now(), peer, front, &shared).await;
    });
    client
}

/// What comes within a second, heads left out.
async fn heard(client: &mut DuplexStream) -> String {
    let mut all = Vec::new();
    let _ = timeout(Duration::from_secs(1), client.read_to_end(&mut all)).await;
    let all = String::from_utf8(all).unwrap();
    all.split("\r\n\r\n").skip(1).map(|rest| rest.split("HTTP/1.1").next().unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_has_rested_serves_on() {
    let mut tasks = JoinSet::new();
    let mut client = connect(&mut tasks);
    for number in 0..3 {
        client.write_all(format!("GET /{number} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
        assert_eq!(heard(&mut client).await, format!("<GET /{number} >"));
        sleep(LONG).await;
        let body = "POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc";
        for piece in body.as_bytes().chunks(20) {
            client.write_all(piece).await.unwrap();
            sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(heard(&mut client).await, "<POST /body abc>");
        sleep(LONG).await;
    }
    // At the end as any other.
    sleep(ServerSettings::default().idle_timeout).await;
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    tasks.join_next().await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_came_with_the_request_before_is_not_lost_at_rest() {
    let mut tasks = JoinSet::new();
    let mut client = connect(&mut tasks);
    client.write_all(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HT").await.unwrap();
    assert_eq!(heard(&mut client).await, "<GET /a >");
    sleep(Duration::from_secs(6)).await;
    client.write_all(b"TP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert_eq!(heard(&mut client).await, "<GET /b >");

    client.write_all(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HT").await.unwrap();
    assert_eq!(heard(&mut client).await, "<GET /a >");
    // A head that goes no further has its time, and no more.
    assert_eq!(timeout(Duration::from_secs(13), client.read(&mut [0])).await.unwrap().unwrap(), 0);
}

/// Request smuggling: a body that was not read to its end must not be taken for the next request.
#[tokio::test(start_paused = true)]
async fn the_rest_of_a_body_never_becomes_a_request() {
    let mut tasks = JoinSet::new();
    let mut client = connect(&mut tasks);
    let inner = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
    let head = format!("POST /kept HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", 1 + inner.len());
    client.write_all(head.as_bytes()).await.unwrap();
    client.write_all(b"x").await.unwrap();
    assert_eq!(heard(&mut client).await, "early");
    sleep(LONG).await;
    // It may have been closed by now, and that is right, too.
    let _ = client.write_all(inner.as_bytes()).await;
    assert_eq!(heard(&mut client).await, "");
}
