//! One keep-alive HTTP/1.1 connection, as lean as it can be: the load shares the machine with what it measures.
//!
//! What the caller learns from a failure is whether the request may have taken effect: `NotSent` is certain,
//! everything after the first byte went out is `Cut`, and nobody may conclude anything from it.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::response::{self, Response};

/// Below the 5 s after which the gateway closes an idle connection: a request that meets the close has no answer.
const IDLE: Duration = Duration::from_secs(3);
/// Most answers are below one kilobyte.
const BUFFER: usize = 4 << 10;

#[derive(Debug, Default)]
pub(crate) struct Connection {
    /// The open one, and when its last answer came.
    stream: Option<(TcpStream, Instant)>,
    buffer: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) response: Response,
    /// Time that opening the connection took, zero if one was there.
    pub(crate) connect: Duration,
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
    /// Sends the request, over a new connection where there is none, and waits for its answer.
    pub(crate) async fn exchange(
        &mut self,
        address: SocketAddr,
        request: &[u8],
        timeout: Duration,
    ) -> Result<Exchange, Failure> {
        let mut connect = Duration::ZERO;
        let mut stream = match self.reusable() {
            Some(stream) => stream,
            None => {
                let started = Instant::now();
                let opened = tokio::time::timeout(timeout, open(address)).await;
                connect = started.elapsed();
                match opened {
                    Ok(Ok(stream)) => stream,
                    Ok(Err(error)) => return Err(Failure::NotSent(error.to_string())),
                    Err(_) => return Err(Failure::NotSent("no connection in time".to_owned())),
                }
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
        if response.keep_alive && response.length == self.buffer.len() {
            self.stream = Some((stream, Instant::now()));
        }
        Ok(Exchange { response, connect, first_byte })
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
            _ => None,
        }
    }
}

async fn open(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
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
