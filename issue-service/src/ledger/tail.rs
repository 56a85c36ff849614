//! A `serve` process's end of the log: takes every record to its partition, and stops a partition loudly when
//! it can't be trusted any further.

use std::sync::Arc;

use platform::health::ComponentHandle;
use rdkafka::message::BorrowedMessage;

use super::checkpoints::Checkpoints;
use super::follower::{Reader, Taken};
use super::partition::Partition;
use super::snapshot::{Resume, Step};
use super::{DIGEST_EVERY, Entry, Ledger};

#[derive(Debug)]
pub struct Tail {
    partitions: Arc<[Partition]>,
    resumes: Vec<Resume>,
    checkpoints: Arc<Checkpoints>,
    /// Down when a partition has stopped.
    health: ComponentHandle,
}

impl Tail {
    /// `resumes` says, partition by partition, where each one's snapshot ended.
    pub fn new(
        partitions: Arc<[Partition]>,
        resumes: Vec<Resume>,
        checkpoints: Arc<Checkpoints>,
        health: ComponentHandle,
    ) -> Self {
        health.up();
        Self { partitions, resumes, checkpoints, health }
    }

    pub(crate) fn apply(&mut self, number: u32, entry: Entry<'_>) -> Result<(), String> {
        let partition = &self.partitions[number as usize];
        match self.resumes[number as usize].check(entry, partition.next()) {
            Ok(Step::Skip) => Ok(()),
            Ok(Step::Apply) => {
                partition.apply(entry).map_err(|stop| stop.to_string())?;
                if partition.next().is_multiple_of(DIGEST_EVERY) {
                    self.checkpoints.add(number, partition.next(), partition.with(Ledger::digest));
                }
                Ok(())
            }
            Err(replaced) => Err(replaced.to_string()),
        }
    }
}

impl Reader for Tail {
    fn read(&mut self, partition: u32, entry: Entry<'_>, _: &BorrowedMessage<'_>) -> Taken {
        match self.apply(partition, entry) {
            Ok(()) => Taken::Yes,
            Err(why) => {
                self.broken(partition, why);
                Taken::Never
            }
        }
    }

    fn has_room(&self, _: u32) -> bool {
        true
    }

    fn broken(&mut self, partition: u32, why: String) {
        self.partitions[partition as usize].stop();
        self.health.down(format!("partition {partition}: {why}"));
        metrics::gauge!("firstcome_ledger_stopped", "partition" => partition.to_string()).set(1.0);
        tracing::error!(
            log.partition = partition,
            why,
            "the partition has stopped in this process: known receipts are given, everything else is 503"
        );
    }
}
