//! One keep-alive HTTP/1.1 connection, as lean as it can be: the load shares the machine with what it measures.
//!
//! What the caller learns from a failure is whether the request may have taken effect: `NotSent` is certain,
//! everything after the first byte went out is `Cut`, and nobody may conclude anything from it.

use std::io;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::response::{self, Response};
use super::target::Target;

/// Below the 5 s after which the gateway closes an idle connection: a request that meets the close has no answer.
const IDLE: Duration = Duration::from_secs(3);
/// Most answers are below one kilobyte.
const BUFFER: usize = 4 << 10;

#[derive(Debug, Default)]
pub(crate) struct Connection {
    /// The open one, and when its last answer came.
    stream: Option<(TcpStream, Instant)>,
    buffer: Vec<u8>,
    /// Whose turn it is, where there are several gateways. It passes on when one can't be connected to, or closes: as
    /// behind a balancer, which leaves out who is not ready.
    turn: usize,
}

#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) response: Response,
    /// Time that opening the connection took, zero if one was there.
    pub(crate) connect: Duration,
    /// Gateways that refused a connection before, so that another one was asked.
    pub(crate) refused: u64,
    pub(crate) first_byte: Instant,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No connection came about: the request cannot have taken effect.
    NotSent(String),
    /// The answer is missing: it may have taken effect.
    Cut(String),
}

impl Connection {
    /// Begins with the gateway of this number, counted around.
    pub(crate) fn starting_at(turn: usize) -> Self {
        Self { turn, ..Self::default() }
    }

    /// Sends the request, over a new connection where there is none, and waits for its answer.
    pub(crate) async fn exchange(
        &mut self,
        target: &Target,
        request: &[u8],
        timeout: Duration,
    ) -> Result<Exchange, Failure> {
        let (mut connect, mut refused) = (Duration::ZERO, 0);
        let mut stream = match self.reusable() {
            Some(stream) => stream,
            None => {
                let started = Instant::now();
                let opened = self.open(target, timeout, &mut refused).await;
                connect = started.elapsed();
                opened.map_err(Failure::NotSent)?
            }
        };
        self.buffer.clear();
        let talk = talk(&mut stream, &mut self.buffer, request);
        let (response, first_byte) = match tokio::time::timeout(timeout, talk).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(reason)) => return Err(Failure::Cut(reason)),
            Err(_) => {
                return Err(Failure::Cut(format!("no answer in {}", humantime::format_duration(timeout))));
            }
        };
        if !response.keep_alive {
            self.turn += 1;
        } else if response.length == self.buffer.len() {
            self.stream = Some((stream, Instant::now()));
        }
        Ok(Exchange { response, connect, refused, first_byte })
    }

    /// The next exchange gets a connection of its own.
    pub(crate) fn close(&mut self) {
        self.stream = None;
    }

    /// The open connection, unless it has idled for long, or the peer has closed it meanwhile or sent what nobody asked
    /// for.
    fn reusable(&mut self) -> Option<TcpStream> {
        let (stream, since) = self.stream.take()?;
        if since.elapsed() > IDLE {
            return None;
        }
        match stream.try_read(&mut [0; 1]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Some(stream),
            _ => {
                self.turn += 1;
                None
            }
        }
    }

    /// To the gateway whose turn it is. Nothing was sent to one that can't be connected to, so the next one is asked.
    async fn open(
        &mut self,
        target: &Target,
        timeout: Duration,
        refused: &mut u64,
    ) -> Result<TcpStream, String> {
        let mut reason = String::new();
        for _ in &target.gateways {
            let address = target.gateways[self.turn % target.gateways.len()];
            reason = match tokio::time::timeout(timeout, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    return stream.set_nodelay(true).map(|()| stream).map_err(|e| e.to_string());
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no connection in time".to_owned(),
            };
            self.turn += 1;
            *refused += 1;
        }
        Err(reason)
    }
}

async fn talk(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    request: &[u8],
) -> Result<(Response, Instant), String> {
    stream.write_all(request).await.map_err(|error| error.to_string())?;
    let mut first_byte = None;
    loop {
        buffer.reserve(BUFFER);
        let count = stream.read_buf(buffer).await.map_err(|error| error.to_string())?;
        let first = *first_byte.get_or_insert_with(Instant::now);
        match response::parse(buffer, count == 0) {
            Ok(Some(response)) => return Ok((response, first)),
            Ok(None) if count == 0 => return Err("the connection was closed before the answer".to_owned()),
            Ok(None) => {}
            Err(malformed) => return Err(format!("unreadable answer: {}", malformed.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::net::TcpListener;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(5);

    /// Answers once on each connection, in these words.
    async fn gateway(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::runtime::Handle::current().spawn(async move {
            let mut kept = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.read(&mut [0; 1_024]).await.unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
                kept.push(stream);
            }
        });
        address
    }

    /// A port that nobody listens at.
    async fn nobody() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
    }

    async fn statuses(gateways: Vec<SocketAddr>, requests: usize) -> Vec<Result<(u16, u64), Failure>> {
        let target = Target { gateways, authority: "x".to_owned() };
        let mut connection = Connection::default();
        let mut heard = Vec::new();
        for _ in 0..requests {
            let exchange = connection.exchange(&target, b"GET / HTTP/1.1\r\n\r\n", TIMEOUT).await;
            heard.push(exchange.map(|exchange| (exchange.response.status, exchange.refused)));
        }
        heard
    }

    #[tokio::test]
    async fn who_refuses_a_connection_or_says_goodbye_is_followed_by_the_next() {
        let leaves = gateway("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").await;
        let other = gateway("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await;
        assert_eq!(statuses(vec![leaves, other], 3).await, [Ok((200, 0)), Ok((204, 0)), Ok((200, 0))]);
        assert_eq!(statuses(vec![nobody().await, other], 1).await, [Ok((204, 1))]);
        let none = statuses(vec![nobody().await, nobody().await], 1).await;
        assert!(matches!(none[..], [Err(Failure::NotSent(_))]), "{none:?}");
    }
}
