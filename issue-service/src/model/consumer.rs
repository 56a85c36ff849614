//! A process that writes the database: the production worker of each partition that it was given.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use platform::lifecycle::BoxError;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::gate::Gate;
use super::world::World;
use crate::ledger::snapshot::{Snapshot, Watermark};
use crate::sink::around::{Around, Incoming};
use crate::sink::batch::{Batch, DeadLetter};
use crate::sink::worker::Worker;
use crate::store::StoreError;

#[derive(Clone)]
pub(super) struct Seen {
    world: Arc<World>,
    gate: Gate,
    feeds: Arc<Mutex<HashMap<u32, CancellationToken>>>,
}

/// Begins to write a partition; the token takes it away again.
pub(super) fn write(world: &Arc<World>, gate: &Gate, partition: u32) -> CancellationToken {
    let stop = CancellationToken::new();
    let around = Seen { world: world.clone(), gate: gate.clone(), feeds: Arc::default() };
    let worker = Worker { partition, around, stop: stop.clone() };
    gate.spawn(worker.run());
    stop
}

impl Around for Seen {
    fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.gate.spawn(work)
    }

    async fn snapshot(&self, partition: u32) -> Result<Snapshot, StoreError> {
        let mut read = self.world.database.snapshots(&[partition], self.world.plan.partitions).await?;
        read.pop().ok_or_else(|| StoreError::Contradiction("no snapshot".into()))
    }

    async fn watermark(&self, partition: u32) -> Result<Watermark, StoreError> {
        self.world.database.watermark(partition).await
    }

    async fn write(&self, partition: u32, batch: &Batch) -> Result<bool, StoreError> {
        let kept =
            |letter: &DeadLetter| self.world.letters.lock().unwrap().contains(&(partition, letter.offset));
        if !batch.dead_letters.iter().all(kept) {
            self.world.alarm(format!(
                "I6: partition {partition} passes a record before its letter is acknowledged"
            ));
        }
        self.world.database.write(partition, batch).await
    }

    async fn set_aside(&self, partition: u32, letters: &[DeadLetter]) -> Result<(), BoxError> {
        let World { dice, letters: kept, .. } = &*self.world;
        dice.pause(3).await;
        let refused = !letters.is_empty() && self.world.is_rough() && dice.percent(30);
        if !refused || dice.percent(50) {
            kept.lock().unwrap().extend(letters.iter().map(|letter| (partition, letter.offset)));
        }
        if refused { Err("Kafka did not take a letter, or did not say so".into()) } else { Ok(()) }
    }

    fn follow(&self, partition: u32, next: u64, records: mpsc::Sender<Incoming>) {
        self.leave(partition);
        let stop = CancellationToken::new();
        self.feeds.lock().unwrap().insert(partition, stop.clone());
        let world = self.world.clone();
        self.gate.spawn(async move {
            let feed = async {
                for offset in next.. {
                    let stored = world.broker.read(partition, offset).await;
                    world.dice.pause(world.plan.lag).await;
                    let (appended_at, value) = (stored.at, stored.value);
                    let incoming = Incoming::Record { offset, appended_at, value, trace: None };
                    if records.send(incoming).await.is_err() {
                        return;
                    }
                }
            };
            stop.run_until_cancelled(feed).await;
        });
    }

    fn leave(&self, partition: u32) {
        if let Some(feed) = self.feeds.lock().unwrap().remove(&partition) {
            feed.cancel();
        }
    }

    fn alarm(&self, partition: u32, why: &str) {
        self.world.alarm(format!("partition {partition} is not written any further: {why}"));
    }
}
