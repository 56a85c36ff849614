//! One partition on its way into the database.

use std::time::Duration;

use platform::lifecycle::BoxError;
use platform::telemetry::ProcessSpan;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::around::{Around, Incoming};
use super::batch::Batch;
use crate::control::{Guard, without};
use crate::ledger::snapshot::{Resume, Snapshot, Step};
use crate::ledger::{Entry, Ledger};
use crate::retirement;
use crate::store::StoreError;

/// Records that may wait for the worker. More are fetched when half of them are gone, and the rest is two batches.
const WAITING: usize = 20_000;
/// How often an idle partition's watermark is read again, to notice a database that went back.
const IDLE: Duration = Duration::from_secs(1);
/// How long a worker that has to stop waits for the transaction in flight.
const LAST_COMMIT: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

pub(crate) struct Worker<A> {
    pub(crate) partition: u32,
    pub(crate) around: A,
    /// Ends with the assignment.
    pub(crate) stop: CancellationToken,
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

impl<A: Around> Worker<A> {
    pub(crate) async fn run(self) {
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
        self.around.leave(self.partition);
        tracing::info!(log.partition = self.partition, "left a partition");
    }

    fn alarm(&self, why: &str) {
        self.around.leave(self.partition);
        self.around.alarm(self.partition, why);
        tracing::error!(log.partition = self.partition, why, "the partition is not written any further");
    }

    /// The ledger as the database holds it; waits for the database. `None`: stopped meanwhile.
    async fn load(&self) -> Result<Option<Snapshot>, String> {
        let mut pause = PAUSE;
        loop {
            let snapshot = self.around.snapshot(self.partition);
            let Some(snapshot) = self.stop.run_until_cancelled(snapshot).await else { return Ok(None) };
            match snapshot {
                Ok(snapshot) => return Ok(Some(snapshot)),
                Err(error @ StoreError::Contradiction(_)) => return Err(error.to_string()),
                Err(error) => self.database_is_away(&error),
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

    fn database_is_away(&self, error: &StoreError) {
        metrics::counter!("firstcome_sink_database_errors_total").increment(1);
        tracing::warn!(%error, log.partition = self.partition, "the database refuses; the partition waits");
    }

    async fn write_from(&self, Snapshot { mut ledger, watermark }: Snapshot) -> End {
        let (sender, mut records) = mpsc::channel(WAITING);
        let mut resume = Resume::new(watermark);
        self.around.follow(self.partition, resume.start(), sender);
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
                        Ok(Committed::Yes) => retirement::evicted(&ledger.evict(at)),
                        Ok(Committed::Moved) => return End::Moved,
                        Ok(Committed::Broken(why)) => return End::Broken(why),
                        Err(error) => return End::Broken(format!("the writer ended: {error}")),
                    }
                }
                record = records.recv(), if !batch.is_full() && broken.is_none() => match record {
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
                _ = idle.tick(), if commit.is_none() && batch.is_empty() && !without(Guard::IdleLook) => {
                    let watermark = self.around.watermark(self.partition);
                    let Some(watermark) = self.stop.run_until_cancelled(watermark).await else { continue };
                    match watermark {
                        Ok(found) if found.next == at => {}
                        Ok(_) => return End::Moved,
                        Err(error @ StoreError::Contradiction(_)) => return End::Broken(error.to_string()),
                        Err(error) => self.database_is_away(&error),
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
        let (around, partition, stop) = (self.around.clone(), self.partition, self.stop.clone());
        let work = async move {
            batch.issues.sort_unstable();
            let mut pause = PAUSE;
            let mut set_aside = false;
            loop {
                let tried = async {
                    if !set_aside {
                        around.set_aside(partition, &batch.dead_letters).await?;
                        set_aside = true;
                    }
                    Ok::<_, BoxError>(around.write(partition, &batch).await?)
                };
                match tried.await {
                    Ok(true) => {
                        metrics::counter!("firstcome_sink_rows_total").increment(batch.issues.len() as u64);
                        drop(spans);
                        return Committed::Yes;
                    }
                    Ok(false) => return Committed::Moved,
                    Err(error) => {
                        if let Some(why) = contradiction(&error) {
                            return Committed::Broken(why);
                        }
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
        self.around.spawn(work)
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

/// What no repetition can change.
fn contradiction(error: &BoxError) -> Option<String> {
    match error.downcast_ref()? {
        error @ StoreError::Contradiction(_) => Some(error.to_string()),
        StoreError::Database(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_repetition_can_change_is_not_repeated() {
        let boxed = |error: StoreError| -> BoxError { error.into() };
        let why = contradiction(&boxed(StoreError::Contradiction("a row exists already".to_owned())));
        assert_eq!(why.as_deref(), Some("the database contradicts itself: a row exists already"));
        // Somebody may put the database right: a consumer asks until it does, also where a start would give up.
        for error in [sqlx::Error::PoolTimedOut, sqlx::Error::WorkerCrashed] {
            assert_eq!(contradiction(&boxed(error.into())), None);
        }
        assert_eq!(contradiction(&"Kafka did not take a letter".into()), None);
    }
}
