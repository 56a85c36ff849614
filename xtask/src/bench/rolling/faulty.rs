//! An instance of a service that is made slow or made to fail: it takes requests without a body, one after another on a
//! connection, and hands them on to a real instance.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::first_coupon::unix_ms;

const SLOWER_BY: Duration = Duration::from_millis(200);
const FAILURE: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Fault {
    None,
    /// Each answer comes 200 ms later.
    Slow,
    /// Every second answer is a 500, and comes at once.
    Failing,
}

pub(super) struct Faulty {
    pub(super) port: u16,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    behind: SocketAddr,
    fault: AtomicU8,
    turn: AtomicU64,
    /// When requests came, in unix milliseconds.
    seen: Mutex<Vec<u64>>,
}

impl Faulty {
    /// In front of a real instance; without a fault yet.
    pub(super) fn start(behind: SocketAddr) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared {
            behind,
            fault: AtomicU8::new(Fault::None as u8),
            turn: AtomicU64::new(0),
            seen: Mutex::default(),
        });
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = shared.clone();
        let thread = std::thread::Builder::new().name("faulty".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, serving) => {}
                    _ = stopped => {}
                }
            });
        })?;
        Ok(Self { port, shared, stop: Some(stop), thread: Some(thread) })
    }

    pub(super) fn set(&self, fault: Fault) {
        self.shared.fault.store(fault as u8, Ordering::SeqCst);
    }

    /// Requests that came from then until then, in unix milliseconds.
    pub(super) fn seen(&self, from: u64, until: u64) -> u64 {
        let seen = self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().filter(|at| (from..until).contains(*at)).count() as u64
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((client, _)) = accepted {
                    connections.spawn(serve(client, shared.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Until one side ends.
async fn serve(mut client: TcpStream, shared: Arc<Shared>) -> Result<()> {
    let mut server = TcpStream::connect(shared.behind).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let mut request = Vec::new();
    loop {
        let Some(end) = head(&mut client, &mut request).await? else { return Ok(()) };
        shared.seen.lock().unwrap_or_else(PoisonError::into_inner).push(unix_ms()?);
        let fault = shared.fault.load(Ordering::SeqCst);
        if fault == Fault::Failing as u8 && shared.turn.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
            client.write_all(FAILURE).await?;
        } else {
            server.write_all(&request[..end]).await?;
            let mut answer = Vec::new();
            let Some(head) = head(&mut server, &mut answer).await? else { return Ok(()) };
            let whole = head + length(&answer[..head]);
            while answer.len() < whole {
                if server.read_buf(&mut answer).await? == 0 {
                    return Ok(());
                }
            }
            if fault == Fault::Slow as u8 {
                tokio::time::sleep(SLOWER_BY).await;
            }
            client.write_all(&answer).await?;
        }
        request.drain(..end);
    }
}

/// Where the head ends that the buffer begins with; none if the peer is gone.
async fn head(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<Option<usize>> {
    loop {
        if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            return Ok(Some(at + 4));
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

fn length(head: &[u8]) -> usize {
    let head = String::from_utf8_lossy(head);
    let lines = head.lines().filter_map(|line| line.split_once(':'));
    let mut lengths = lines.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    lengths.next().and_then(|(_, value)| value.trim().parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::time::Instant;

    use super::*;

    /// Answers every request with a body that is sent a moment after its head.
    fn real() -> SocketAddr {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                while stream.read(&mut [0; 1_024]).is_ok_and(|read| read > 0) {
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nre").unwrap();
                    std::thread::sleep(Duration::from_millis(5));
                    stream.write_all(b"al").unwrap();
                }
            }
        });
        address
    }

    #[test]
    fn it_hands_on_and_counts_and_is_slow_or_fails_when_told() {
        let faulty = Faulty::start(real()).unwrap();
        let mut client = std::net::TcpStream::connect(("127.0.0.1", faulty.port)).unwrap();
        let mut ask = || {
            client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
            let (mut read, begun) = (vec![0; 1_024], Instant::now());
            let length = client.read(&mut read).unwrap();
            (String::from_utf8_lossy(&read[..length]).into_owned(), begun.elapsed())
        };
        let before = unix_ms().unwrap();
        let (answer, _) = ask();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("real"), "{answer}");
        faulty.set(Fault::Slow);
        assert!(ask().1 >= SLOWER_BY);
        faulty.set(Fault::Failing);
        let statuses: Vec<String> = (0..4).map(|_| ask().0[9..12].to_owned()).collect();
        assert_eq!(statuses, ["500", "200", "500", "200"]);
        assert_eq!(faulty.seen(before, u64::MAX), 6);
        assert_eq!(faulty.seen(0, before), 0);
    }
}
