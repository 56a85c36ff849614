//! Reads a partition of the log and decides every record of it again, by this tool's own rules.

pub(crate) mod record;
pub(crate) mod rules;

use std::ops::ControlFlow;

use anyhow::Result;
use indicatif::ProgressBar;
use rdkafka::Timestamp;
use rdkafka::message::{BorrowedMessage, Message};

use self::rules::{DIGEST_EVERY, Decided, Digest, Entry, Ledger, record_hash};
use crate::kafka::Topic;

/// A partition as its records make it, up to a place in it.
#[derive(Debug)]
pub(crate) struct Replayed {
    pub(crate) ledger: Ledger,
    /// The digest at each place where one is stored.
    pub(crate) checkpoints: Vec<(u64, Digest)>,
    /// Of the last record; zeros if there is none.
    pub(crate) last_record_hash: Digest,
    /// Why it ends before the place that was asked for.
    pub(crate) stopped: Option<String>,
}

impl Replayed {
    pub(crate) fn new(partition: u32, partitions: u32) -> Self {
        Self {
            ledger: Ledger::new(partition, partitions),
            checkpoints: Vec::new(),
            last_record_hash: Digest::default(),
            stopped: None,
        }
    }

    /// Decides one more record; `None` if nothing can be derived from here on.
    pub(crate) fn apply(&mut self, entry: Result<Entry<'_>, String>) -> Option<Decided> {
        let decided = entry.and_then(|entry| self.ledger.apply(entry));
        match decided {
            Ok(decided) => {
                if self.ledger.next.is_multiple_of(DIGEST_EVERY) {
                    self.checkpoints.push((self.ledger.next, self.ledger.digest));
                }
                Some(decided)
            }
            Err(why) => {
                self.stopped = Some(why);
                None
            }
        }
    }
}

/// Decides everything below `end`, and shows each decision with the ledger as it is then.
pub(crate) fn replay(
    topic: &Topic,
    partition: u32,
    end: u64,
    bar: &ProgressBar,
    mut each: impl FnMut(Entry<'_>, &Decided, &Ledger),
) -> Result<Replayed> {
    let mut replayed = Replayed::new(partition, topic.partitions);
    let bounds = topic.bounds(partition)?;
    if bounds.start > 0 {
        replayed.stopped =
            Some(format!("the log begins at offset {}: what was before it is gone", bounds.start));
        return Ok(replayed);
    }
    topic.read(partition, 0..end.min(bounds.end), |message| {
        let entry = entry(message);
        let Some(decided) = replayed.apply(entry.clone()) else { return Ok(ControlFlow::Break(())) };
        if let Ok(entry) = entry {
            if entry.offset + 1 == end {
                replayed.last_record_hash = record_hash(entry);
            }
            each(entry, &decided, &replayed.ledger);
        }
        bar.inc(1);
        Ok(ControlFlow::Continue(()))
    })?;
    if replayed.stopped.is_none() && replayed.ledger.next < end {
        replayed.stopped =
            Some(format!("the log ends at offset {}, and {end} was read once", replayed.ledger.next));
    }
    Ok(replayed)
}

/// A record as the rules take it. Without the broker's own stamp there is no time to judge a window by.
pub(crate) fn entry<'a>(message: &'a BorrowedMessage<'_>) -> Result<Entry<'a>, String> {
    let offset = u64::try_from(message.offset()).unwrap_or_default();
    let Timestamp::LogAppendTime(at) = message.timestamp() else {
        return Err(format!("the record at offset {offset} is not stamped by the broker"));
    };
    let value = message.payload().unwrap_or_default();
    Ok(Entry { offset, appended_at: u64::try_from(at).unwrap_or_default(), value })
}
