//! What a broker answers to Metadata (key 3, version 1): who is there, and who has which partition.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Metadata {
    /// Of the brokers that live.
    pub(crate) brokers: Vec<i32>,
    /// Negative while there is none.
    pub(crate) controller: i32,
    pub(crate) partitions: Vec<Partition>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Partition {
    pub(crate) topic: String,
    pub(crate) index: i32,
    /// Negative while there is none.
    pub(crate) leader: i32,
    pub(crate) replicas: usize,
    pub(crate) in_sync: usize,
}

/// Of all topics, as the broker at this port knows them.
pub(crate) fn ask(port: u16) -> Result<Metadata> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(500)).context("connect")?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(&request())?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_be_bytes(length))?.min(1 << 20);
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer)?;
    Reader(&answer).metadata().context("not an answer of Kafka")
}

fn request() -> Vec<u8> {
    let client = b"xtask";
    let mut body = vec![0, 3, 0, 1, 0, 0, 0, 1, 0, 5];
    body.extend(client);
    // No list of topics: all of them.
    body.extend((-1_i32).to_be_bytes());
    let mut request = u32::try_from(body.len()).unwrap_or(0).to_be_bytes().to_vec();
    request.extend(body);
    request
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn metadata(&mut self) -> Option<Metadata> {
        let _correlation = self.number()?;
        let brokers = self.list(|it| {
            let node = it.number()?;
            let _host = it.text()?;
            let _port = it.number()?;
            let _rack = it.text()?;
            Some(node)
        })?;
        let controller = self.number()?;
        let topics = self.list(|it| {
            let _error = it.take(2)?;
            let topic = it.text()?;
            let _internal = it.take(1)?;
            it.list(|it| {
                let _error = it.take(2)?;
                let (index, leader) = (it.number()?, it.number()?);
                let (replicas, in_sync) = (it.list(Self::number)?.len(), it.list(Self::number)?.len());
                Some(Partition { topic: topic.clone(), index, leader, replicas, in_sync })
            })
        })?;
        Some(Metadata { brokers, controller, partitions: topics.into_iter().flatten().collect() })
    }

    fn take(&mut self, count: usize) -> Option<&[u8]> {
        let (head, tail) = self.0.split_at_checked(count)?;
        self.0 = tail;
        Some(head)
    }

    fn number(&mut self) -> Option<i32> {
        Some(i32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    /// Empty where there is none.
    fn text(&mut self) -> Option<String> {
        let length = i16::from_be_bytes(self.take(2)?.try_into().ok()?);
        let text = self.take(usize::try_from(length).unwrap_or(0))?;
        Some(String::from_utf8_lossy(text).into_owned())
    }

    fn list<T>(&mut self, mut one: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        (0..self.number()?).map(|_| one(self)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_and_partitions_are_understood() {
        let mut answer = vec![0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 9];
        answer.extend(b"127.0.0.1");
        answer.extend([0, 0, 0x23, 0x84, 0xff, 0xff, 0, 0, 0, 1]);
        // One topic with one partition: led by 2, which is in step with one of two others.
        answer.extend([0, 0, 0, 1, 0, 0, 0, 1, b't', 0, 0, 0, 0, 1]);
        answer.extend([0, 0, 0, 0, 0, 7, 0, 0, 0, 2]);
        answer.extend([0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3]);
        answer.extend([0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 3]);
        let partition = Partition { topic: "t".to_owned(), index: 7, leader: 2, replicas: 3, in_sync: 2 };
        let metadata = Metadata { brokers: vec![1], controller: 1, partitions: vec![partition] };
        assert_eq!(Reader(&answer).metadata(), Some(metadata));
        for cut in 0..answer.len() {
            assert_eq!(Reader(&answer[..cut]).metadata(), None, "{cut}");
        }
        assert_eq!(request().len(), 4 + 10 + 5 + 4);
    }
}
