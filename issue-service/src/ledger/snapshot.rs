//! Going on where a snapshot ended: the check that the log is still the one that the snapshot was made of.

use super::{Digest, Entry, Ledger, record_hash};

/// Up to where the database follows a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Watermark {
    /// The first offset that is not in the database.
    pub next: u64,
    /// Of everything below it.
    pub digest: Digest,
    /// Of the record just below it.
    pub last_record_hash: Digest,
}

/// The ledger of a partition as the database holds it.
#[derive(Debug)]
pub struct Snapshot {
    pub ledger: Ledger,
    pub watermark: Watermark,
}

/// What to do with a record that a follower hands over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Apply,
    /// Applied before, or left over from where the follower was before.
    Skip,
}

/// The log holds another record than the one that the snapshot ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the record at offset {0} is not the one that was written down: the log was cut or replaced")]
pub struct Replaced(pub u64);

/// Follow the partition from [`Resume::start`], and ask about each record.
#[derive(Debug, Clone, Copy)]
pub struct Resume {
    watermark: Watermark,
    reached: bool,
}

impl Resume {
    pub fn new(watermark: Watermark) -> Self {
        Self { watermark, reached: false }
    }

    /// The record before the watermark, which must still be the same one.
    pub fn start(&self) -> u64 {
        self.watermark.next.saturating_sub(1)
    }

    /// `due` is the offset that the ledger is waiting for.
    pub fn check(&mut self, entry: Entry<'_>, due: u64) -> Result<Step, Replaced> {
        if !self.reached {
            if entry.offset != self.start() {
                return Ok(Step::Skip);
            }
            self.reached = true;
            if self.watermark.next > 0 && record_hash(entry) != self.watermark.last_record_hash {
                return Err(Replaced(entry.offset));
            }
        }
        // A gap is the ledger's to notice.
        Ok(if entry.offset < due { Step::Skip } else { Step::Apply })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(offset: u64, value: &[u8]) -> Entry<'_> {
        Entry { offset, appended_at: 1, value }
    }

    #[test]
    fn an_empty_snapshot_begins_with_the_first_record() {
        let mut resume = Resume::new(Watermark::default());
        assert_eq!(resume.start(), 0);
        assert_eq!(resume.check(entry(0, b"a"), 0), Ok(Step::Apply));
        assert_eq!(resume.check(entry(1, b"b"), 1), Ok(Step::Apply));
    }

    #[test]
    fn the_record_before_the_watermark_must_be_the_same() {
        let last_record_hash = record_hash(entry(6, b"x"));
        let watermark = Watermark { next: 7, last_record_hash, ..Watermark::default() };
        let mut resume = Resume::new(watermark);
        assert_eq!(resume.start(), 6);
        assert_eq!(resume.check(entry(9, b"left over"), 7), Ok(Step::Skip));
        assert_eq!(resume.check(entry(6, b"x"), 7), Ok(Step::Skip));
        assert_eq!(resume.check(entry(7, b"y"), 7), Ok(Step::Apply));
        assert_eq!(resume.check(entry(7, b"y"), 8), Ok(Step::Skip), "seen twice");
        assert_eq!(resume.check(entry(9, b"z"), 8), Ok(Step::Apply), "the ledger sees the gap");
        let mut resume = Resume::new(watermark);
        assert_eq!(resume.check(entry(6, b"other"), 7), Err(Replaced(6)));
    }
}
