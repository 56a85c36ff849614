//! The log as the brokers keep it. Whoever reads it sees every record once, in order.

use std::pin::pin;
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::START;

#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) at: u64,
    pub(super) value: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Broker {
    partitions: Vec<Mutex<Vec<Stored>>>,
    /// With every append.
    grown: Notify,
    born: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Answers nobody before this moment.
    away_until: Instant,
    /// How far the leader's clock is behind.
    behind: u64,
}

impl Broker {
    pub(super) fn new(partitions: u32) -> Self {
        let born = Instant::now();
        Self {
            partitions: (0..partitions).map(|_| Mutex::default()).collect(),
            grown: Notify::new(),
            born,
            state: Mutex::new(State { away_until: born, behind: 0 }),
        }
    }

    /// The time of day.
    pub(super) fn now(&self) -> u64 {
        START + u64::try_from(self.born.elapsed().as_millis()).unwrap_or(0)
    }

    pub(super) fn go_away(&self, ms: u64) {
        self.state.lock().unwrap().away_until = Instant::now() + Duration::from_millis(ms);
    }

    /// Another leader, whose clock is a little behind.
    pub(super) fn step_back(&self, ms: u64) {
        self.state.lock().unwrap().behind = ms;
    }

    pub(super) async fn there(&self) {
        let until = self.state.lock().unwrap().away_until;
        tokio::time::sleep_until(until).await;
    }

    pub(super) fn append(&self, partition: u32, value: Vec<u8>) -> u64 {
        let at = self.now() - self.state.lock().unwrap().behind;
        let mut records = self.partitions[partition as usize].lock().unwrap();
        records.push(Stored { at, value });
        let offset = records.len() as u64 - 1;
        drop(records);
        self.grown.notify_waiters();
        offset
    }

    pub(super) fn end(&self, partition: u32) -> u64 {
        self.partitions[partition as usize].lock().unwrap().len() as u64
    }

    pub(super) fn partitions(&self) -> u32 {
        u32::try_from(self.partitions.len()).unwrap_or(0)
    }

    pub(super) fn all(&self, partition: u32) -> Vec<Stored> {
        self.partitions[partition as usize].lock().unwrap().clone()
    }

    /// The record at this offset, as soon as it is there.
    pub(super) async fn read(&self, partition: u32, offset: u64) -> Stored {
        loop {
            self.there().await;
            let mut grown = pin!(self.grown.notified());
            grown.as_mut().enable();
            let index = usize::try_from(offset).unwrap_or(usize::MAX);
            if let Some(stored) = self.partitions[partition as usize].lock().unwrap().get(index) {
                return stored.clone();
            }
            grown.await;
        }
    }
}
