//! Decided records gathered for one transaction. Pure: no clock, no I/O.

use std::collections::BTreeMap;

use super::dead_letter::LONGEST;
use crate::control::{Guard, without};
use crate::ids::CouponId;
use crate::ledger::snapshot::Watermark;
use crate::ledger::{DIGEST_EVERY, Decided, Decision, Digest, Entry, Ledger, Record, Stop, record_hash};
use crate::store::{CouponRow, IssueRow};

/// Records in one transaction, and those among them that could not be read.
const RECORDS: u64 = 5000;
const LETTERS: usize = 500;

/// A record that could not be read, for the dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeadLetter {
    pub(crate) offset: u64,
    pub(crate) appended_at: u64,
    /// Its beginning, if it is very long.
    pub(crate) value: Vec<u8>,
    /// In bytes, of the record's value.
    pub(crate) length: usize,
    pub(crate) decision: Decision,
}

/// A part of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Compare and set: from where the batch begins to where it ends. Without a match nothing is written.
    Watermark,
    Coupons,
    /// In key order, so that two writers can't meet in a deadlock. A key that exists is a contradiction.
    Issues,
    Digests,
}

/// What one transaction writes.
#[derive(Debug, Clone)]
pub(crate) struct Batch {
    /// Where the watermark has to be before it.
    pub(crate) from: u64,
    /// Where it is after it.
    pub(crate) to: Watermark,
    pub(crate) issues: Vec<IssueRow>,
    /// The state of every coupon that changed, as of `to`.
    pub(crate) coupons: BTreeMap<CouponId, CouponRow>,
    pub(crate) digests: Vec<(u64, Digest)>,
    pub(crate) dead_letters: Vec<DeadLetter>,
}

impl Batch {
    pub(crate) fn new(from: u64) -> Self {
        Self {
            from,
            to: Watermark { next: from, ..Watermark::default() },
            issues: Vec::new(),
            coupons: BTreeMap::new(),
            digests: Vec::new(),
            dead_letters: Vec::new(),
        }
    }

    pub(crate) fn len(&self) -> u64 {
        self.to.next - self.from
    }

    /// Nothing more fits into it.
    pub(crate) fn is_full(&self) -> bool {
        self.len() >= RECORDS || self.dead_letters.len() >= LETTERS
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The parts of each transaction, in order. It is one, and the watermark comes first: whoever moves it is the only
    /// one who writes this batch.
    pub(crate) fn transactions() -> &'static [&'static [Part]] {
        if without(Guard::OneTransaction) {
            return &[&[Part::Watermark], &[Part::Coupons, Part::Issues, Part::Digests]];
        }
        &[&[Part::Watermark, Part::Coupons, Part::Issues, Part::Digests]]
    }

    /// Decides a record and takes down what follows from it.
    pub(crate) fn apply(&mut self, ledger: &mut Ledger, entry: Entry<'_>) -> Result<Decided, Stop> {
        let decided = ledger.apply(entry)?;
        self.to =
            Watermark { next: ledger.next(), digest: ledger.digest(), last_record_hash: record_hash(entry) };
        match (decided.decision, decided.record) {
            (Decision::Accepted, Some(Record::Claim { coupon, user })) => {
                self.issues.push(IssueRow {
                    coupon,
                    user,
                    place: decided.place.unwrap_or_default(),
                    offset: entry.offset,
                    issued_at: entry.appended_at,
                });
                self.note(ledger, coupon);
            }
            (Decision::Taken | Decision::RetireTaken, Some(record)) => {
                if let Some(coupon) = record.coupon() {
                    self.note(ledger, coupon);
                }
            }
            (Decision::Malformed | Decision::Invalid, _) => self.dead_letters.push(DeadLetter {
                offset: entry.offset,
                appended_at: entry.appended_at,
                value: entry.value[..entry.value.len().min(LONGEST)].to_vec(),
                length: entry.value.len(),
                decision: decided.decision,
            }),
            _ => {}
        }
        if ledger.next().is_multiple_of(DIGEST_EVERY) {
            self.digests.push((ledger.next(), ledger.digest()));
        }
        Ok(decided)
    }

    fn note(&mut self, ledger: &Ledger, id: CouponId) {
        if let Some(coupon) = ledger.coupon(id) {
            let count = coupon.count();
            let row = CouponRow { definition: coupon.definition, retired_at: coupon.retired_at, count };
            self.coupons.insert(id, row);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{UserId, partition_of};
    use crate::ledger::Definition;

    #[test]
    fn a_batch_holds_what_the_decisions_change_and_where_they_end() {
        let coupon = CouponId(5);
        let mut ledger = Ledger::new(partition_of(coupon, 8), 8);
        let mut batch = Batch::new(0);
        let definition =
            Definition { coupon, version: 1, stock: 2, starts_at: 0, ends_at: 100, closed: false };
        let claim = |user| Record::Claim { coupon, user: UserId(user) }.encode();
        let values =
            [Record::Definition(definition).encode(), claim(9), claim(9), claim(3), claim(4), b"?".to_vec()];
        for (offset, value) in (0..).zip(&values) {
            batch.apply(&mut ledger, Entry { offset, appended_at: 50 + offset, value }).unwrap();
        }
        let row = |user, place, offset| IssueRow {
            coupon,
            user: UserId(user),
            place,
            offset,
            issued_at: 50 + offset,
        };
        assert_eq!(batch.issues, [row(9, 1, 1), row(3, 2, 3)]);
        assert_eq!(batch.coupons[&coupon], CouponRow { definition, retired_at: None, count: 2 });
        assert_eq!((batch.from, batch.to.next, batch.len()), (0, 6, 6));
        assert_eq!(batch.to.digest, ledger.digest());
        assert_eq!(batch.dead_letters.len(), 1);
        assert_eq!(batch.dead_letters[0].offset, 5);
        assert!(batch.digests.is_empty());
    }

    /// Each of them waits for the brokers' acknowledgement, and holds up to 64 KiB.
    #[test]
    fn letters_fill_a_batch_sooner_than_records() {
        let mut ledger = Ledger::new(0, 8);
        let mut batch = Batch::new(0);
        for offset in 0..LETTERS as u64 {
            assert!(!batch.is_full());
            batch.apply(&mut ledger, Entry { offset, appended_at: 1, value: b"?" }).unwrap();
        }
        assert!(batch.is_full());
    }

    #[test]
    fn a_digest_is_kept_at_each_checkpoint() {
        let mut ledger = Ledger::new(0, 8);
        let mut batch = Batch::new(0);
        let noop = Record::Noop.encode();
        for offset in 0..DIGEST_EVERY + 1 {
            batch.apply(&mut ledger, Entry { offset, appended_at: 1, value: &noop }).unwrap();
            if offset + 1 == DIGEST_EVERY {
                assert_eq!(batch.digests, [(DIGEST_EVERY, ledger.digest())]);
            }
        }
        assert_eq!(batch.digests.len(), 1);
    }
}
