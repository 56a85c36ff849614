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

/// Follow the partition from [`Resume::start`], and ask about each record. Whoever has to begin anew in between begins
/// with the record before the one that is due: the last one that was applied must still be the same, too.
#[derive(Debug, Clone)]
pub struct Resume {
    watermark: Watermark,
    reached: bool,
    last: Option<Last>,
}

/// The record that was applied last. A copy, because a hash of each one would cost more.
#[derive(Debug, Clone, Default)]
struct Last {
    offset: u64,
    appended_at: u64,
    value: Vec<u8>,
}

impl Resume {
    pub fn new(watermark: Watermark) -> Self {
        Self { watermark, reached: false, last: None }
    }

    /// The record before the watermark, which must still be the same one.
    pub fn start(&self) -> u64 {
        self.watermark.next.saturating_sub(1)
    }

    /// `due` is the offset that the ledger is waiting for.
    pub fn check(&mut self, entry: Entry<'_>, due: u64) -> Result<Step, Replaced> {
        if !self.reached && entry.offset != self.start() {
            return Ok(Step::Skip);
        }
        self.reached = true;
        if entry.offset < due {
            let replaced = entry.offset + 1 == due && !self.was_last(entry);
            return if replaced { Err(Replaced(entry.offset)) } else { Ok(Step::Skip) };
        }
        // A gap is the ledger's to notice.
        let last = self.last.get_or_insert_default();
        (last.offset, last.appended_at) = (entry.offset, entry.appended_at);
        last.value.clear();
        last.value.extend_from_slice(entry.value);
        Ok(Step::Apply)
    }

    fn was_last(&self, entry: Entry<'_>) -> bool {
        match &self.last {
            None => record_hash(entry) == self.watermark.last_record_hash,
            Some(last) => {
                (last.offset, last.appended_at, &*last.value)
                    == (entry.offset, entry.appended_at, entry.value)
            }
        }
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

    /// A log that was cut below what was read and has grown again is in range, and holds other records.
    #[test]
    fn whoever_begins_anew_must_meet_the_last_record_again() {
        let last_record_hash = record_hash(entry(6, b"x"));
        let mut resume = Resume::new(Watermark { next: 7, last_record_hash, ..Watermark::default() });
        for _ in 0..2 {
            assert_eq!(resume.check(entry(6, b"x"), 7), Ok(Step::Skip), "nothing was applied yet");
        }
        assert_eq!(resume.clone().check(entry(6, b"other"), 7), Err(Replaced(6)));
        assert_eq!(resume.check(entry(7, b"y"), 7), Ok(Step::Apply));
        assert_eq!(resume.check(entry(8, b"z"), 8), Ok(Step::Apply));
        assert_eq!(resume.check(entry(8, b"z"), 9), Ok(Step::Skip));
        assert_eq!(resume.clone().check(entry(8, b"other"), 9), Err(Replaced(8)));
        let later = Entry { appended_at: 2, ..entry(8, b"z") };
        assert_eq!(resume.clone().check(later, 9), Err(Replaced(8)), "written again");
        assert_eq!(resume.check(entry(9, b"a"), 9), Ok(Step::Apply));
    }
}
