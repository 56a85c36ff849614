//! Bytes to a port as no HTTP library would send them, and what comes back.

pub mod http2;

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longer than the gateway gives any connection.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection.
#[derive(Debug)]
pub struct Raw {
    stream: TcpStream,
    heard: Vec<u8>,
}

/// An answer of HTTP/1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    pub status: u16,
    /// Lower case.
    pub head: String,
    pub body: String,
}

impl Raw {
    /// # Panics
    /// When nobody listens.
    pub async fn connect(url: &str) -> Self {
        let address = authority(url);
        let connected = TcpStream::connect(address).await;
        Self::over(connected.unwrap_or_else(|error| panic!("{address}: {error}")))
    }

    pub fn over(stream: TcpStream) -> Self {
        Self { stream, heard: Vec::new() }
    }

    /// Writes as much as the other side takes: it may have closed in the middle of it. False if it has.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok()
    }

    /// The next answer; `None` if the connection ends before it.
    ///
    /// # Panics
    /// When neither comes.
    pub async fn answer(&mut self) -> Option<Heard> {
        loop {
            if let Some((answer, length)) = parse(&self.heard) {
                self.heard.drain(..length);
                return Some(answer);
            }
            if !self.hear().await {
                return None;
            }
        }
    }

    /// Reads something more; false if the connection has ended.
    async fn hear(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        let read = timeout(PATIENCE, self.stream.read(&mut buffer)).await;
        match read.unwrap_or_else(|_| panic!("nothing comes, and no end")) {
            Ok(0) | Err(_) => false,
            Ok(length) => {
                self.heard.extend_from_slice(&buffer[..length]);
                true
            }
        }
    }

    /// Sends, and reads until the other side closes the connection, which it has to.
    ///
    /// # Panics
    /// When it stays open.
    pub async fn until_closed(mut self, bytes: &[u8]) -> Vec<Heard> {
        let heard = self.bytes_until_closed(bytes).await;
        let mut rest = &heard[..];
        let mut answers = Vec::new();
        while let Some((answer, length)) = parse(rest) {
            answers.push(answer);
            rest = &rest[length..];
        }
        answers
    }

    /// The same, whatever was said.
    ///
    /// # Panics
    /// When it stays open.
    pub async fn bytes_until_closed(&mut self, bytes: &[u8]) -> Vec<u8> {
        let (mut reading, mut writing) = self.stream.split();
        let mut heard = std::mem::take(&mut self.heard);
        // Both at once: who is refused in the middle may say no more than the socket's buffers hold.
        let both = async { tokio::join!(writing.write_all(bytes), read_to_end(&mut reading, &mut heard)) };
        if timeout(PATIENCE, both).await.is_err() {
            panic!("still open after {PATIENCE:?}: {:?}", String::from_utf8_lossy(&heard));
        }
        heard
    }
}

/// A connection that is reset has ended, too.
async fn read_to_end(reading: &mut (impl tokio::io::AsyncRead + Unpin), heard: &mut Vec<u8>) {
    let _ = reading.read_to_end(heard).await;
}

/// `host:port` of a URL.
pub fn authority(url: &str) -> &str {
    url.trim_start_matches("http://").trim_end_matches('/')
}

/// The first answer in these bytes and its length, if it is whole. Those of a `1xx` are passed over.
fn parse(bytes: &[u8]) -> Option<(Heard, usize)> {
    let end = find(bytes, b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let status: u16 = head.strip_prefix("http/1.")?.get(2..5)?.parse().ok()?;
    if (100..200).contains(&status) && status != 101 {
        return parse(&bytes[end..]).map(|(answer, length)| (answer, end + length));
    }
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let rest = &bytes[end..];
    let (body, length) = if field("transfer-encoding") == Some("chunked") {
        dechunk(rest)?
    } else {
        let length = field("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        (rest.get(..length)?.to_vec(), length)
    };
    let body = String::from_utf8_lossy(&body).into_owned();
    Some((Heard { status, head, body }, end + length))
}

fn dechunk(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let line = find(&bytes[at..], b"\r\n")?;
        let size = std::str::from_utf8(&bytes[at..at + line]).ok()?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        at += line + 2;
        let chunk = bytes.get(at..at + size + 2)?;
        body.extend_from_slice(&chunk[..size]);
        at += size + 2;
        if size == 0 {
            return Some((body, at));
        }
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

impl Heard {
    /// Empty where it is no problem.
    pub fn code(&self) -> String {
        let body: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_default();
        body["code"].as_str().unwrap_or_default().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart() {
        let bytes = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n\
                      HTTP/1.1 404 Not Found\r\nContent-Length: 1\r\n\r\nc";
        let (first, length) = parse(bytes).unwrap();
        assert_eq!((first.status, &*first.body), (200, "ab"));
        let (second, _) = parse(&bytes[length..]).unwrap();
        assert_eq!((second.status, &*second.body), (404, "c"));
        assert_eq!(parse(&bytes[..bytes.len() - 1]).map(|(answer, _)| answer.status), Some(200));
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na"), None);
    }
}
