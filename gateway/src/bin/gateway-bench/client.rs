//! The client: connections that stay open, one request at a time on each, by two threads with as few instructions as
//! can be. What it costs is taken from all that are measured alike.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

const THREADS: usize = 2;
/// Larger than any answer here.
const BUFFER: usize = 4 * 1024;
/// An answer that takes longer never comes.
const PATIENCE_MS: u16 = 5_000;

/// What is sent, made before the clock runs.
#[derive(Debug)]
pub(crate) enum Requests {
    /// The same on a connection for as long as it is open.
    Repeated(Vec<Vec<u8>>),
    /// Each once; the load ends when there is none left.
    Once { requests: Vec<Vec<u8>>, next: AtomicUsize },
}

impl Requests {
    pub(crate) fn once(requests: Vec<Vec<u8>>) -> Self {
        Self::Once { requests, next: AtomicUsize::new(0) }
    }

    fn next(&self, connection: usize) -> Option<&[u8]> {
        match self {
            Self::Repeated(requests) => requests.get(connection % requests.len()),
            Self::Once { requests, next } => requests.get(next.fetch_add(1, Relaxed)),
        }
        .map(Vec::as_slice)
    }
}

/// What came of a load.
#[derive(Debug)]
pub(crate) struct Load {
    /// From the first request to the last answer.
    pub(crate) taken: Duration,
    /// Microseconds of each request.
    pub(crate) latencies: Vec<u32>,
}

impl Load {
    pub(crate) fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.taken.as_secs_f64()
    }
}

struct Connection {
    stream: TcpStream,
    number: usize,
    sent: Instant,
    buffer: Box<[u8; BUFFER]>,
    filled: usize,
}

/// Sends for so long. Any answer but 200 is an error.
pub(crate) fn load(
    address: SocketAddr,
    connections: usize,
    duration: Duration,
    requests: &Requests,
) -> io::Result<Load> {
    let ready = Barrier::new(THREADS);
    let begun = Instant::now();
    let parts = std::thread::scope(|scope| {
        let ready = &ready;
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn(move || {
                    let numbers = (thread..connections).step_by(THREADS);
                    let opened: io::Result<Vec<_>> = numbers.map(|number| open(address, number)).collect();
                    // Nobody waits for one who failed.
                    ready.wait();
                    converse(opened?, duration, requests)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| io::Error::other("a client panicked"))?)
            .collect::<io::Result<Vec<_>>>()
    })?;
    let first = parts.iter().map(|part| part.first).min().unwrap_or(begun);
    let last = parts.iter().map(|part| part.last).max().unwrap_or(begun);
    Ok(Load { taken: last - first, latencies: parts.into_iter().flat_map(|part| part.latencies).collect() })
}

/// One request on a connection of its own, which stays open.
pub(crate) fn ask(address: SocketAddr, request: &[u8]) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(request)?;
    let (mut buffer, mut filled) = ([0; BUFFER], 0);
    while !is_whole(&buffer[..filled])? {
        filled += read(&mut stream, &mut buffer[filled..])?;
    }
    Ok(stream)
}

fn open(address: SocketAddr, number: usize) -> io::Result<Connection> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    Ok(Connection { stream, number, sent: Instant::now(), buffer: Box::new([0; BUFFER]), filled: 0 })
}

struct Part {
    first: Instant,
    last: Instant,
    latencies: Vec<u32>,
}

fn converse(mut connections: Vec<Connection>, duration: Duration, requests: &Requests) -> io::Result<Part> {
    let poll = Epoll::new(EpollCreateFlags::empty())?;
    for (index, connection) in connections.iter().enumerate() {
        poll.add(&connection.stream, EpollEvent::new(EpollFlags::EPOLLIN, index as u64))?;
    }
    let first = Instant::now();
    let end = first + duration;
    let (mut last, mut latencies) = (first, Vec::with_capacity(1 << 18));
    let mut waiting = 0;
    for connection in &mut connections {
        waiting += usize::from(connection.send(requests, Instant::now())?);
    }
    let mut events = [EpollEvent::empty(); 64];
    while waiting > 0 {
        let count = poll.wait(&mut events, EpollTimeout::from(PATIENCE_MS))?;
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer"));
        }
        for event in &events[..count] {
            let index = usize::try_from(event.data()).unwrap_or(usize::MAX);
            let Some(connection) = connections.get_mut(index) else { continue };
            if !connection.receive()? {
                continue;
            }
            last = Instant::now();
            latencies.push(u32::try_from((last - connection.sent).as_micros()).unwrap_or(u32::MAX));
            if last >= end || !connection.send(requests, last)? {
                waiting -= 1;
            }
        }
    }
    Ok(Part { first, last, latencies })
}

impl Connection {
    /// False if there is nothing left to send.
    fn send(&mut self, requests: &Requests, now: Instant) -> io::Result<bool> {
        let Some(request) = requests.next(self.number) else { return Ok(false) };
        (self.sent, self.filled) = (now, 0);
        // A few hundred bytes into an empty socket.
        self.stream.write_all(request)?;
        Ok(true)
    }

    /// Whether the answer is there as a whole.
    fn receive(&mut self) -> io::Result<bool> {
        self.filled += read(&mut self.stream, &mut self.buffer[self.filled..])?;
        is_whole(&self.buffer[..self.filled])
    }
}

fn read(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    match stream.read(buffer)? {
        0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed")),
        count => Ok(count),
    }
}

/// Whether all of an answer has come: its head, and as many bytes as it announces.
fn is_whole(answer: &[u8]) -> io::Result<bool> {
    const NAME: &[u8] = b"content-length:";
    let Some(head) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(false) };
    let (head, body) = answer.split_at(head + 4);
    if !head.starts_with(b"HTTP/1.1 200 ") {
        return Err(io::Error::other(String::from_utf8_lossy(answer)));
    }
    let length = head
        .split(|byte| *byte == b'\n')
        .find(|line| line.len() > NAME.len() && line[..NAME.len()].eq_ignore_ascii_case(NAME))
        .and_then(|line| std::str::from_utf8(&line[NAME.len()..]).ok()?.trim().parse().ok());
    let length: usize = length.ok_or_else(|| io::Error::other("an answer of unknown length"))?;
    Ok(body.len() >= length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_when_its_last_byte_is_there() {
        let answer = b"HTTP/1.1 200 OK\r\nServer: x\r\ncontent-LENGTH: 2\r\n\r\nok";
        for end in 0..answer.len() {
            assert!(!is_whole(&answer[..end]).unwrap(), "{end}");
        }
        assert!(is_whole(answer).unwrap());
        for other in ["HTTP/1.1 503 x\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"] {
            assert!(is_whole(other.as_bytes()).is_err(), "{other}");
        }
    }

    #[test]
    fn repeated_requests_stay_with_their_connection_and_others_are_sent_once() {
        let repeated = Requests::Repeated(vec![b"a".to_vec(), b"b".to_vec()]);
        assert_eq!(
            [repeated.next(0), repeated.next(3), repeated.next(0)],
            [Some(&b"a"[..]), Some(b"b"), Some(b"a")]
        );
        let once = Requests::once(vec![b"a".to_vec(), b"b".to_vec()]);
        assert_eq!([once.next(7), once.next(7), once.next(7)], [Some(&b"a"[..]), Some(b"b"), None]);
    }
}
