//! One partition on its way into the database.

use std::sync::Arc;
use std::time::Duration;

use platform::health::ComponentHandle;
use platform::lifecycle::BoxError;
use platform::telemetry::ProcessSpan;
use sqlx::{MySqlConnection, MySqlPool};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::batch::Batch;
use super::dead_letter::DeadLetters;
use super::membership::{Inbox, Incoming};
use crate::ledger::follower::Follower;
use crate::ledger::snapshot::{Resume, Snapshot, Step};
use crate::ledger::{Entry, Ledger};
use crate::store::{self, StoreError};

/// Records in one transaction.
const BATCH: u64 = 5000;
/// Records that may wait for the worker.
const WAITING: usize = 10_000;
/// How often an idle partition's watermark is read again, to notice a database that went back.
const IDLE: Duration = Duration::from_secs(1);
/// How long a worker that has to stop waits for the transaction in flight.
const LAST_COMMIT: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

pub(super) struct Worker {
    pub(super) partition: u32,
    pub(super) partitions: u32,
    pub(super) pool: MySqlPool,
    pub(super) follower: Arc<Follower>,
    pub(super) inbox: Inbox,
    pub(super) dead_letters: DeadLetters,
    /// Of all the partitions together.
    pub(super) health: ComponentHandle,
    /// Ends with the assignment.
    pub(super) stop: CancellationToken,
}

/// Why a run from a snapshot has ended.
enum End {
    Stopped,
    /// The watermark is not where this run left it: begin again at the watermark.
    Moved,
    /// Nothing may be derived any further: alarm, and leave the partition alone.
    Broken(String),
}

enum Committed {
    Yes,
    Moved,
    Broken(String),
}

impl Worker {
    pub(super) async fn run(self) {
        tracing::info!(log.partition = self.partition, "writing a partition");
        while !self.stop.is_cancelled() {
            let snapshot = match self.load().await {
                Ok(Some(snapshot)) => snapshot,
                Ok(None) => break,
                Err(why) => return self.alarm(&why),
            };
            match self.write_from(snapshot).await {
                End::Stopped => break,
                End::Moved => {
                    metrics::counter!("firstcome_sink_reloads_total").increment(1);
                    tracing::warn!(
                        log.partition = self.partition,
                        "the watermark was moved by another; beginning again there"
                    );
                }
                End::Broken(why) => return self.alarm(&why),
            }
        }
        self.follower.leave(self.partition);
        tracing::info!(log.partition = self.partition, "left a partition");
    }

    fn alarm(&self, why: &str) {
        self.health.down(format!("partition {}: {why}", self.partition));
        self.follower.leave(self.partition);
        metrics::gauge!("firstcome_sink_stopped", "partition" => self.partition.to_string()).set(1.0);
        tracing::error!(log.partition = self.partition, why, "the partition is not written any further");
    }

    /// The ledger as the database holds it; waits for the database. `None`: stopped meanwhile.
    async fn load(&self) -> Result<Option<Snapshot>, String> {
        let mut pause = PAUSE;
        loop {
            let wanted = [self.partition];
            let snapshots = store::snapshots(&self.pool, self.partitions, &wanted);
            let Some(snapshots) = self.stop.run_until_cancelled(snapshots).await else { return Ok(None) };
            match snapshots {
                Ok(mut snapshots) => return Ok(snapshots.pop()),
                Err(StoreError::Contradiction(why)) => return Err(why),
                Err(StoreError::Database(error)) => self.database_is_away(&error),
            }
            if !self.rest(&mut pause).await {
                return Ok(None);
            }
        }
    }

    /// False if stopped meanwhile.
    async fn rest(&self, pause: &mut Duration) -> bool {
        let stopped = tokio::time::timeout(*pause, self.stop.cancelled()).await.is_ok();
        *pause = (*pause * 2).min(LONGEST_PAUSE);
        !stopped
    }

    fn database_is_away(&self, error: &sqlx::Error) {
        metrics::counter!("firstcome_sink_database_errors_total").increment(1);
        tracing::warn!(%error, log.partition = self.partition, "the database refuses; the partition waits");
    }

    async fn write_from(&self, Snapshot { mut ledger, watermark }: Snapshot) -> End {
        let (sender, mut records) = mpsc::channel(WAITING);
        self.inbox.open(self.partition, sender);
        let mut resume = Resume::new(watermark);
        self.follower.follow(self.partition, resume.start());
        let mut at = watermark.next;
        let mut batch = Batch::new(at);
        let mut spans = Vec::new();
        let mut commit: Option<JoinHandle<Committed>> = None;
        // What was decided before it is still written.
        let mut broken: Option<String> = None;
        let mut idle = tokio::time::interval(IDLE);
        idle.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => {
                    if let Some(mut commit) = commit.take()
                        && tokio::time::timeout(LAST_COMMIT, &mut commit).await.is_err()
                    {
                        // Committed or not, whoever comes next begins at the watermark, when the server has noticed.
                        commit.abort();
                    }
                    return End::Stopped;
                }
                done = finished(&mut commit) => {
                    commit = None;
                    match done {
                        Ok(Committed::Yes) => {}
                        Ok(Committed::Moved) => return End::Moved,
                        Ok(Committed::Broken(why)) => return End::Broken(why),
                        Err(error) => return End::Broken(format!("the writer ended: {error}")),
                    }
                }
                record = records.recv(), if batch.len() < BATCH && broken.is_none() => match record {
                    None => return End::Stopped,
                    Some(Incoming::Broken(why)) => broken = Some(why),
                    Some(Incoming::Record { offset, appended_at, value, trace }) => {
                        let entry = Entry { offset, appended_at, value: &value };
                        match take_in(&mut batch, &mut ledger, &mut resume, entry) {
                            Ok(()) => spans.extend(trace),
                            Err(why) => broken = Some(why),
                        }
                    }
                },
                _ = idle.tick(), if commit.is_none() && batch.is_empty() => {
                    let watermark =
                        store::on_connection(&self.pool, async |db| {
                        store::within(store::watermark(db, self.partition)).await
                    });
                    let Some(watermark) = self.stop.run_until_cancelled(watermark).await else { continue };
                    match watermark {
                        Ok(found) if found.next == at => {}
                        Ok(_) => return End::Moved,
                        Err(StoreError::Contradiction(why)) => return End::Broken(why),
                        Err(StoreError::Database(error)) => self.database_is_away(&error),
                    }
                }
            }
            if commit.is_none()
                && batch.is_empty()
                && let Some(why) = broken
            {
                return End::Broken(why);
            }
            if commit.is_none() && !batch.is_empty() {
                at = batch.to.next;
                let full = std::mem::replace(&mut batch, Batch::new(at));
                commit = Some(self.commit(full, std::mem::take(&mut spans)));
            }
        }
    }

    /// Writes a batch in the background, however often it takes.
    fn commit(&self, mut batch: Batch, spans: Vec<ProcessSpan>) -> JoinHandle<Committed> {
        let (pool, partition, stop) = (self.pool.clone(), self.partition, self.stop.clone());
        let dead_letters = self.dead_letters.clone();
        let work = async move {
            // In key order, so that two writers can't meet in a deadlock.
            batch.issues.sort_unstable();
            let mut pause = PAUSE;
            let mut set_aside = false;
            loop {
                let tried = async {
                    if !set_aside {
                        dead_letters.set_aside(partition, &batch.dead_letters).await?;
                        set_aside = true;
                    }
                    let write = store::on_connection(&pool, async |db| {
                        store::within(write(db, partition, &batch)).await
                    });
                    Ok::<_, BoxError>(write.await?)
                };
                match tried.await {
                    Ok(true) => {
                        metrics::counter!("firstcome_sink_rows_total").increment(batch.issues.len() as u64);
                        drop(spans);
                        return Committed::Yes;
                    }
                    Ok(false) => return Committed::Moved,
                    Err(error) if is_doubled(&error) => {
                        return Committed::Broken(format!(
                            "a row that the log has just decided exists already: {error}"
                        ));
                    }
                    Err(error) => {
                        metrics::counter!("firstcome_sink_database_errors_total").increment(1);
                        tracing::warn!(error = %error, log.partition = partition, "a batch could not be written; again");
                    }
                }
                if tokio::time::timeout(pause, stop.cancelled()).await.is_ok() {
                    return Committed::Moved;
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        };
        #[expect(clippy::disallowed_methods, reason = "awaited by the worker, which reports how it ended")]
        let handle = tokio::spawn(work);
        handle
    }
}

/// How the commit in flight ended; never, while there is none.
async fn finished(commit: &mut Option<JoinHandle<Committed>>) -> Result<Committed, tokio::task::JoinError> {
    match commit {
        Some(commit) => commit.await,
        None => std::future::pending().await,
    }
}

/// Decides a record, unless it was decided before.
fn take_in(
    batch: &mut Batch,
    ledger: &mut Ledger,
    resume: &mut Resume,
    entry: Entry<'_>,
) -> Result<(), String> {
    match resume.check(entry, ledger.next()) {
        Ok(Step::Apply) => batch.apply(ledger, entry).map(|_| ()).map_err(|stop| stop.to_string()),
        Ok(Step::Skip) => Ok(()),
        Err(replaced) => Err(replaced.to_string()),
    }
}

/// One transaction. False if the watermark was not where the batch begins.
async fn write(connection: &mut MySqlConnection, partition: u32, batch: &Batch) -> sqlx::Result<bool> {
    let mut transaction = store::begin(connection).await?;
    if !store::move_watermark(&mut transaction, partition, batch.from, &batch.to).await? {
        transaction.rollback().await?;
        return Ok(false);
    }
    for coupon in batch.coupons.values() {
        store::put_coupon(&mut transaction, partition, coupon).await?;
    }
    store::insert_issues(&mut transaction, &batch.issues).await?;
    for (next, digest) in &batch.digests {
        store::insert_digest(&mut transaction, partition, *next, *digest).await?;
    }
    transaction.commit().await?;
    Ok(true)
}

fn is_doubled(error: &BoxError) -> bool {
    let database = error.downcast_ref::<sqlx::Error>().and_then(sqlx::Error::as_database_error);
    database.is_some_and(sqlx::error::DatabaseError::is_unique_violation)
}
