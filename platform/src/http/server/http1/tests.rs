use parking_lot::Mutex;
use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};

use super::*;

const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

/// Counts what was asked, and how often hyper's state was made: then it is cloned.
#[derive(Default)]
struct Counts {
    requests: AtomicUsize,
    made: AtomicUsize,
    held: Mutex<Vec<Incoming>>,
}

#[derive(Default)]
struct Counting(Arc<Counts>);

impl Counting {
    fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.0)
    }
}

impl Clone for Counting {
    fn clone(&self) -> Self {
        self.0.made.fetch_add(1, Relaxed);
        Self(Arc::clone(&self.0))
    }
}

/// A conversation of which the test is the client. `/slow` takes 3 s, `/large` is 64 KiB, `/hold` keeps the body.
fn start(buffer: usize) -> (DuplexStream, Arc<Counts>) {
    let (client, server) = duplex(buffer);
    let counting = Counting::default();
    let counts = counting.counts();
    let answer = move |request: Request<Incoming>| {
        let counts = counting.counts();
        async move {
            counts.requests.fetch_add(1, Relaxed);
            let (parts, body) = request.into_parts();
            match parts.uri.path() {
                "/slow" => sleep(Duration::from_secs(3)).await,
                "/large" => return Response::new(Body::from(vec![b'x'; 64 * 1024])),
                "/hold" => counts.held.lock().push(body),
                _ => {}
            }
            Response::new(Body::from("fine"))
        }
    };
    let token = CancellationToken::new();
    let work = async move { serve(server, answer, HEADER_TIMEOUT, &token, &token).await };
    tokio::runtime::Handle::current().spawn(work);
    (client, counts)
}

/// Reads until the text shows up; None when the connection ends before.
async fn read_until(client: &mut DuplexStream, text: &str) -> Option<usize> {
    let (mut read, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        match client.read(&mut buffer).await {
            Ok(0) | Err(_) => return None,
            Ok(length) => read.extend_from_slice(&buffer[..length]),
        }
        if read.windows(text.len()).any(|window| window == text.as_bytes()) {
            return Some(read.len());
        }
    }
}

fn made(counts: &Counts) -> usize {
    counts.made.load(Relaxed)
}

#[tokio::test(start_paused = true)]
async fn a_quiet_connection_is_put_away_and_answers_the_next_request_all_the_same() {
    let (mut client, counts) = start(4096);
    for quiet in [1_500_u64, 4_000, 100] {
        client.write_all(REQUEST).await.unwrap();
        assert!(read_until(&mut client, "fine").await.is_some());
        sleep(Duration::from_millis(quiet)).await;
    }
    assert_eq!(made(&counts), 3, "after each of the two pauses anew");
    client.write_all(&REQUEST[..9]).await.unwrap();
    sleep(Duration::from_millis(1_500)).await;
    client.write_all(&REQUEST[9..]).await.unwrap();
    assert!(read_until(&mut client, "fine").await.is_some(), "a head in two parts");
    assert_eq!(counts.requests.load(Relaxed), 4);
}

#[tokio::test(start_paused = true)]
async fn a_head_that_comes_byte_by_byte_is_cut_all_the_same() {
    let (mut client, counts) = start(4096);
    client.write_all(REQUEST).await.unwrap();
    assert!(read_until(&mut client, "fine").await.is_some());
    let begun = Instant::now();
    for byte in b"GET / HTTP/1.1\r\nx: aaaaaaaaaaa" {
        if client.write_all(&[*byte]).await.is_err() {
            break;
        }
        sleep(Duration::from_millis(900)).await;
    }
    assert!(read_until(&mut client, "fine").await.is_none());
    assert!(begun.elapsed() < HEADER_TIMEOUT + Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(counts.requests.load(Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn who_never_asks_is_cut() {
    let (mut client, _counts) = start(4096);
    let begun = Instant::now();
    assert!(read_until(&mut client, "fine").await.is_none());
    assert!((HEADER_TIMEOUT..HEADER_TIMEOUT + Duration::from_millis(100)).contains(&begun.elapsed()));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_put_away_while_a_request_is_under_way_or_its_answer_not_taken() {
    let (mut client, counts) = start(1024);
    client.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert!(read_until(&mut client, "fine").await.is_some());
    client.write_all(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    sleep(Duration::from_millis(3_500)).await;
    let mut left = 64 * 1024;
    while left > 0 {
        let mut buffer = [0; 4096];
        let length = client.read(&mut buffer).await.unwrap();
        assert_ne!(length, 0, "{left} bytes are missing");
        left -= buffer[..length].iter().filter(|byte| **byte == b'x').count().min(left);
    }
    client.write_all(REQUEST).await.unwrap();
    assert!(read_until(&mut client, "fine").await.is_some(), "the connection goes on");
    assert_eq!(made(&counts), 1);
}

/// A service may answer before it has read what is sent to it; what comes later is still a body.
#[tokio::test(start_paused = true)]
async fn the_rest_of_a_body_is_never_taken_for_a_request() {
    let (mut client, counts) = start(4096);
    let head = format!("POST /hold HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", REQUEST.len());
    client.write_all(head.as_bytes()).await.unwrap();
    assert!(read_until(&mut client, "fine").await.is_some());
    sleep(Duration::from_millis(2_500)).await;
    let _ = client.write_all(REQUEST).await;
    assert!(read_until(&mut client, "fine").await.is_none());
    assert_eq!(counts.requests.load(Relaxed), 1);
}
