//! What a worker meets outside of its own decisions: the database, the follower of the log, the dead letters.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use platform::health::ComponentHandle;
use platform::lifecycle::BoxError;
use platform::telemetry::ProcessSpan;
use sqlx::{MySqlConnection, MySqlPool};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::batch::{Batch, DeadLetter, Part};
use super::dead_letter::DeadLetters;
use super::membership::Inbox;
use crate::failpoint::{Point, reach};
use crate::ledger::follower::Follower;
use crate::ledger::snapshot::{Snapshot, Watermark};
use crate::store::{self, StoreError};

/// What a follower hands to a worker.
pub(crate) enum Incoming {
    Record { offset: u64, appended_at: u64, value: Vec<u8>, trace: Option<ProcessSpan> },
    Broken(String),
}

pub(crate) trait Around: Clone + Send + Sync + 'static {
    /// Runs something beside the worker.
    fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T>;

    /// The ledger of a partition as the database holds it.
    fn snapshot(&self, partition: u32) -> impl Future<Output = Result<Snapshot, StoreError>> + Send;

    fn watermark(&self, partition: u32) -> impl Future<Output = Result<Watermark, StoreError>> + Send;

    /// Carries out [`Batch::transactions`]; of one that is not committed nothing counts. False if the watermark was not
    /// where the batch begins.
    fn write(&self, partition: u32, batch: &Batch) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Resolves when every one of them is acknowledged.
    fn set_aside(
        &self,
        partition: u32,
        letters: &[DeadLetter],
    ) -> impl Future<Output = Result<(), BoxError>> + Send;

    /// From now on records from `next` on go to `records`, and nowhere else.
    fn follow(&self, partition: u32, next: u64, records: mpsc::Sender<Incoming>);

    fn leave(&self, partition: u32);

    /// The partition is not written any further.
    fn alarm(&self, partition: u32, why: &str);
}

/// The real ones.
#[derive(Clone)]
pub(super) struct Servers {
    pub(super) pool: MySqlPool,
    pub(super) partitions: u32,
    pub(super) follower: Arc<Follower>,
    pub(super) inbox: Inbox,
    pub(super) dead_letters: DeadLetters,
    pub(super) stopped: Stopped,
}

/// The partitions that this process was given and does not write.
#[derive(Clone)]
pub(super) struct Stopped {
    partitions: Arc<Mutex<BTreeMap<u32, String>>>,
    /// Of all the partitions together.
    health: ComponentHandle,
}

impl Stopped {
    pub(super) fn none(health: ComponentHandle) -> Self {
        health.up();
        Self { partitions: Arc::default(), health }
    }

    pub(super) fn add(&self, partition: u32, why: &str) {
        self.change(partition, |stopped| stopped.insert(partition, why.to_owned()));
    }

    /// It is given anew, or it is somebody else's now.
    pub(super) fn remove(&self, partition: u32) {
        self.change(partition, |stopped| stopped.remove(&partition));
    }

    fn change(&self, partition: u32, change: impl FnOnce(&mut BTreeMap<u32, String>) -> Option<String>) {
        let mut stopped = self.partitions.lock();
        change(&mut stopped);
        let is_stopped = if stopped.contains_key(&partition) { 1.0 } else { 0.0 };
        metrics::gauge!("firstcome_sink_stopped", "partition" => partition.to_string()).set(is_stopped);
        match stopped.iter().next() {
            Some((partition, why)) => self.health.down(format!("partition {partition}: {why}")),
            None => self.health.up(),
        }
    }
}

impl Around for Servers {
    #[expect(clippy::disallowed_methods, reason = "awaited by the worker, which reports how it ended")]
    fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        tokio::spawn(work)
    }

    async fn snapshot(&self, partition: u32) -> Result<Snapshot, StoreError> {
        let mut read = store::snapshots(&self.pool, self.partitions, &[partition]).await?;
        read.pop().ok_or_else(|| StoreError::Contradiction(format!("no snapshot of partition {partition}")))
    }

    async fn watermark(&self, partition: u32) -> Result<Watermark, StoreError> {
        let read = async |db: &mut MySqlConnection| store::within(store::watermark(db, partition)).await;
        store::on_connection(&self.pool, read).await
    }

    async fn write(&self, partition: u32, batch: &Batch) -> Result<bool, StoreError> {
        let write = async |db: &mut MySqlConnection| store::within(write(db, partition, batch)).await;
        match store::on_connection(&self.pool, write).await {
            Err(StoreError::Database(sqlx::Error::Database(error))) if error.is_unique_violation() => {
                let why = format!("a row that the log has just decided exists already: {error}");
                Err(StoreError::Contradiction(why))
            }
            written => written,
        }
    }

    async fn set_aside(&self, partition: u32, letters: &[DeadLetter]) -> Result<(), BoxError> {
        Ok(self.dead_letters.set_aside(partition, letters).await?)
    }

    fn follow(&self, partition: u32, next: u64, records: mpsc::Sender<Incoming>) {
        self.inbox.open(partition, records);
        self.follower.follow(partition, next);
    }

    fn leave(&self, partition: u32) {
        self.follower.leave(partition);
    }

    fn alarm(&self, partition: u32, why: &str) {
        self.stopped.add(partition, why);
    }
}

/// False if the watermark was not where the batch begins.
async fn write(connection: &mut MySqlConnection, partition: u32, batch: &Batch) -> Result<bool, StoreError> {
    for parts in Batch::transactions() {
        let mut transaction = store::begin(connection).await?;
        for part in *parts {
            match part {
                Part::Watermark => {
                    if !store::move_watermark(&mut transaction, partition, batch.from, &batch.to).await? {
                        transaction.rollback().await?;
                        return Ok(false);
                    }
                }
                Part::Coupons => {
                    let coupons: Vec<_> = batch.coupons.values().collect();
                    store::put_coupons(&mut transaction, partition, &coupons).await?;
                }
                Part::Issues => store::insert_issues(&mut transaction, &batch.issues).await?,
                Part::Digests => {
                    for (next, digest) in &batch.digests {
                        store::put_digest(&mut transaction, partition, *next, *digest).await?;
                    }
                }
            }
        }
        reach(Point::BeforeCommit);
        transaction.commit().await?;
        reach(Point::AfterCommit);
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use platform::health::Health;

    use super::*;

    #[test]
    fn the_alarm_ends_with_the_last_stopped_partition() {
        let health = Health::new();
        let component = health.optional_component("sink");
        let stopped = Stopped::none(component.clone());
        assert!(component.is_up());
        stopped.add(1, "cut");
        stopped.add(2, "cut");
        stopped.remove(1);
        assert!(!component.is_up(), "the other is stopped still");
        stopped.remove(2);
        assert!(component.is_up());
    }
}
