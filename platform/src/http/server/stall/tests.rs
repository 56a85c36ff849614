use std::convert::Infallible;

use axum::Router;
use futures_util::stream;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::super::{Front, Peer, Shared, converse};
use super::*;
use crate::config::ServerSettings;

const LIMIT: Duration = Duration::from_secs(30);
const LONG: Duration = Duration::from_secs(24 * 3_600);
/// What a socket holds in these tests.
const SOCKET: usize = 16 * 1024;
/// Of an endless answer; much more than an HTTP/2 stream is given at once.
const PIECE: usize = 256 * 1024;

/// A connection to a server in the same task set; time stands still but for waiting.
struct Door {
    tasks: JoinSet<()>,
    /// Says which answers were let go, by their paths.
    ended: mpsc::UnboundedReceiver<String>,
    client: Option<DuplexStream>,
}

/// Held by an answer.
struct Held(String, mpsc::UnboundedSender<String>);

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.1.send(std::mem::take(&mut self.0));
    }
}

impl Door {
    fn open(is_http2: bool) -> Self {
        let (ends, ended) = mpsc::unbounded_channel();
        let answer = async move |request: Request<Body>| {
            let path = request.uri().path().to_owned();
            let held = Held(path.clone(), ends.clone());
            let pieces = stream::unfold((0, held), async move |(number, held)| {
                let length = match held.0.as_str() {
                    "/small" if number == 1 => return None,
                    "/small" => 1024,
                    "/silent" => std::future::pending().await,
                    _ => PIECE,
                };
                Some((Ok::<_, Infallible>(Bytes::from(vec![b'x'; length])), (number + 1, held)))
            });
            Response::new(if path == "/none" { Body::empty() } else { Body::from_stream(pieces) })
        };
        let settings = ServerSettings { write_idle_timeout: LIMIT, ..ServerSettings::default() };
        let front = Front::new(Router::new().fallback(answer), &settings, None);
        let (client, server) = tokio::io::duplex(SOCKET);
        let shared = Shared::new(&settings).unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let peer = Peer { address: ([127, 0, 0, 1], 1).into(), tls: false };
            let exchange = Arc::new(Exchange::default());
            let (socket, closed) = ClientSocket::new(server, LIMIT, exchange.clone());
            converse((socket, exchange, Instant::now()), is_http2, peer, front, &shared).await;
            let _ = closed.await;
        });
        Self { tasks, ended, client: Some(client) }
    }

    /// An HTTP/2 client whose streams' windows are so large.
    async fn http2(&mut self, window: u32) -> SendRequest<Empty<Bytes>> {
        let io = TokioIo::new(self.client.take().unwrap());
        let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(window)
            .handshake(io)
            .await
            .unwrap();
        self.tasks.spawn(async move { drop(connection.await) });
        sender
    }

    /// The next answer that is let go, and after how many seconds.
    async fn ended(&mut self) -> (String, u64) {
        let begun = Instant::now();
        let path = timeout(LONG, self.ended.recv()).await.unwrap().unwrap();
        (path, begun.elapsed().as_secs())
    }
}

async fn ask(sender: &mut SendRequest<Empty<Bytes>>, path: &str) -> Response<Incoming> {
    let request = Request::get(format!("http://door.example{path}")).body(Empty::new()).unwrap();
    sender.ready().await.unwrap();
    sender.send_request(request).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_socket_that_takes_nothing_is_closed() {
    let mut door = Door::open(false);
    door.client.as_mut().unwrap().write_all(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert_eq!(door.ended().await, ("/endless".to_owned(), LIMIT.as_secs()));
    door.tasks.join_next().await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_takes_a_little_now_and_then_is_served_on() {
    let mut door = Door::open(false);
    let mut client = door.client.take().unwrap();
    client.write_all(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut some = [0; 100];
    for _ in 0..100 {
        tokio::time::sleep(LIMIT * 9 / 10).await;
        client.read_exact(&mut some).await.unwrap();
    }
    assert_eq!(door.ended().await.1, LIMIT.as_secs(), "until it stops");
}

#[tokio::test(start_paused = true)]
async fn a_closed_window_ends_its_stream_and_no_other() {
    let mut door = Door::open(true);
    let mut sender = door.http2(0).await;
    let held = ask(&mut sender, "/endless").await;
    assert_eq!(door.ended().await, ("/endless".to_owned(), LIMIT.as_secs()));
    assert!(held.into_body().frame().await.unwrap().is_err());
    assert_eq!(ask(&mut sender, "/none").await.status(), 200, "the connection goes on");
}

#[tokio::test(start_paused = true)]
async fn a_small_window_that_is_opened_again_and_again_is_served_on() {
    let mut door = Door::open(true);
    let mut sender = door.http2(1024).await;
    let mut body = ask(&mut sender, "/endless").await.into_body();
    for _ in 0..100 {
        tokio::time::sleep(LIMIT * 9 / 10).await;
        let mut taken = 0;
        while taken < HTTP2_PIECE {
            taken += body.frame().await.unwrap().unwrap().into_data().unwrap().len();
        }
    }
    assert!(door.ended.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_silent_service_is_left_alone() {
    for is_http2 in [false, true] {
        let mut door = Door::open(is_http2);
        if is_http2 {
            let mut sender = door.http2(1 << 20).await;
            let _held = ask(&mut sender, "/silent").await;
            assert!(timeout(LONG / 2, door.ended.recv()).await.is_err(), "HTTP/2");
        } else {
            let client = door.client.as_mut().unwrap();
            client.write_all(b"GET /silent HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            assert!(timeout(LONG / 2, door.ended.recv()).await.is_err(), "HTTP/1");
        }
    }
}

/// Its last bytes are the connection's own by then, and the stream's task is over.
#[tokio::test(start_paused = true)]
async fn an_answer_that_is_never_taken_to_its_end_does_not_keep_the_connection() {
    let mut door = Door::open(true);
    let mut sender = door.http2(1).await;
    let _held = ask(&mut sender, "/small").await;
    assert_eq!(door.ended().await, ("/small".to_owned(), 0));
    let begun = Instant::now();
    timeout(LONG, door.tasks.join_next()).await.unwrap().unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(600), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_http2_connection_is_not_used_for_ever() {
    let mut door = Door::open(true);
    let mut sender = door.http2(1 << 20).await;
    let begun = Instant::now();
    while !sender.is_closed() && sender.ready().await.is_ok() {
        ask(&mut sender, "/none").await;
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert!(begun.elapsed() < LONG);
    }
    assert!(begun.elapsed() > Duration::from_secs(3_000), "{:?}", begun.elapsed());
}
