//! The rules by which the log decides, written a second time, as plainly as they can be said.
//!
//! Whoever holds the records of a partition in their order holds the winners: there is no clock here, no I/O and
//! no chance. The digest of a partition covers every record with what was decided of it, so two who hold the same
//! digest have read and decided alike.

use std::collections::{HashMap, HashSet};

use aws_lc_rs::digest::{SHA256, digest};

use super::record::{Definition, Record, Unreadable, decode};
use crate::ids::partition_of;

/// The digest after every so many records is stored by the consumers.
pub(crate) const DIGEST_EVERY: u64 = 4096;

/// SHA-256 over the digest before it, offset (8), append time (8), length (4) and bytes of the value, decision (1),
/// and place or 0 (4); zeros before the first record.
pub(crate) type Digest = [u8; 32];

/// A record as the broker gives it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry<'a> {
    pub(crate) offset: u64,
    /// Unix milliseconds, by the broker's clock.
    pub(crate) appended_at: u64,
    pub(crate) value: &'a [u8],
}

/// The numbers are part of the digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Decision {
    Accepted = 1,
    Already = 2,
    SoldOut = 3,
    NotStarted = 4,
    Ended = 5,
    Closed = 6,
    Retired = 7,
    Unknown = 8,
    Taken = 9,
    Stale = 10,
    RetireTaken = 11,
    Ignored = 12,
    Malformed = 13,
    Invalid = 14,
    Noop = 15,
}

impl Decision {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Already => "already",
            Self::SoldOut => "sold out",
            Self::NotStarted => "not started",
            Self::Ended => "ended",
            Self::Closed => "closed",
            Self::Retired => "retired",
            Self::Unknown => "unknown coupon",
            Self::Taken => "in force",
            Self::Stale => "stale",
            Self::RetireTaken => "retired",
            Self::Ignored => "ignored",
            Self::Malformed => "malformed",
            Self::Invalid => "invalid",
            Self::Noop => "noop",
        }
    }
}

/// A decided record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Decided {
    pub(crate) record: Result<Record, Unreadable>,
    pub(crate) decision: Decision,
    /// The winner's, from 1; 0 for everything but `Accepted`.
    pub(crate) place: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Coupon {
    pub(crate) definition: Definition,
    pub(crate) retired_at: Option<u64>,
    pub(crate) winners: HashSet<u64>,
}

impl Coupon {
    pub(crate) fn count(&self) -> u64 {
        self.winners.len() as u64
    }
}

/// A partition up to a place in it.
#[derive(Debug)]
pub(crate) struct Ledger {
    partition: u32,
    partitions: u32,
    /// Everything below was decided.
    pub(crate) next: u64,
    pub(crate) digest: Digest,
    pub(crate) coupons: HashMap<u64, Coupon>,
}

impl Ledger {
    pub(crate) fn new(partition: u32, partitions: u32) -> Self {
        Self { partition, partitions, next: 0, digest: Digest::default(), coupons: HashMap::new() }
    }

    /// Decides the record that is due; otherwise says why nothing can be derived from here on.
    pub(crate) fn apply(&mut self, entry: Entry<'_>) -> Result<Decided, String> {
        if entry.offset != self.next {
            return Err(format!("offset {} is missing: the log goes on at {}", self.next, entry.offset));
        }
        let record = decode(entry.value);
        let (decision, place) = match record {
            Ok(record) => self.decide(record, entry),
            Err(Unreadable::Malformed(_)) => (Decision::Malformed, 0),
            Err(Unreadable::Invalid(_)) => (Decision::Invalid, 0),
            Err(Unreadable::Unknown { kind, version }) => {
                return Err(format!(
                    "the record at offset {} is of kind {kind}, version {version}, which a newer couponctl may know",
                    entry.offset
                ));
            }
        };
        self.digest = after(&self.digest, entry, decision, place);
        self.next += 1;
        Ok(Decided { record, decision, place })
    }

    fn decide(&mut self, record: Record, entry: Entry<'_>) -> (Decision, u64) {
        if record.coupon().is_some_and(|coupon| partition_of(coupon, self.partitions) != self.partition) {
            return (Decision::Invalid, 0);
        }
        match record {
            Record::Noop => (Decision::Noop, 0),
            Record::Definition { coupon, definition } => (self.define(coupon, definition), 0),
            Record::Retire { coupon } => (self.retire(coupon, entry), 0),
            Record::Claim { coupon, user } => self.claim(coupon, user, entry.appended_at),
        }
    }

    /// A higher version takes force. Its stock counts as at least what was issued.
    fn define(&mut self, id: u64, definition: Definition) -> Decision {
        let Some(coupon) = self.coupons.get_mut(&id) else {
            self.coupons.insert(id, Coupon { definition, retired_at: None, winners: HashSet::new() });
            return Decision::Taken;
        };
        if coupon.retired_at.is_some() {
            return Decision::Ignored;
        }
        if definition.version <= coupon.definition.version {
            return Decision::Stale;
        }
        let stock = definition.stock.max(coupon.count());
        coupon.definition = Definition { stock, ..definition };
        Decision::Taken
    }

    /// Only once, and only after the window.
    fn retire(&mut self, id: u64, entry: Entry<'_>) -> Decision {
        match self.coupons.get_mut(&id) {
            Some(coupon) if coupon.retired_at.is_none() && entry.appended_at >= coupon.definition.ends_at => {
                coupon.retired_at = Some(entry.offset);
                Decision::RetireTaken
            }
            _ => Decision::Ignored,
        }
    }

    fn claim(&mut self, id: u64, user: u64, at: u64) -> (Decision, u64) {
        let Some(coupon) = self.coupons.get_mut(&id) else { return (Decision::Unknown, 0) };
        let Definition { stock, starts_at, ends_at, closed, .. } = coupon.definition;
        let refusal = if coupon.retired_at.is_some() {
            Decision::Retired
        } else if coupon.winners.contains(&user) {
            Decision::Already
        } else if closed {
            Decision::Closed
        } else if at < starts_at {
            Decision::NotStarted
        } else if at >= ends_at {
            Decision::Ended
        } else if coupon.count() >= stock {
            Decision::SoldOut
        } else {
            coupon.winners.insert(user);
            return (Decision::Accepted, coupon.count());
        };
        (refusal, 0)
    }
}

/// The digest after one more record.
pub(crate) fn after(before: &Digest, entry: Entry<'_>, decision: Decision, place: u64) -> Digest {
    #[expect(clippy::cast_possible_truncation, reason = "lengths and places are below 2^32")]
    let four = |number: u64| (number as u32).to_be_bytes();
    let bytes = [
        before.as_slice(),
        &entry.offset.to_be_bytes(),
        &entry.appended_at.to_be_bytes(),
        &four(entry.value.len() as u64),
        entry.value,
        &[decision as u8],
        &four(place),
    ]
    .concat();
    let mut after = Digest::default();
    after.copy_from_slice(digest(&SHA256, &bytes).as_ref());
    after
}

/// The hash of a record alone, which is stored with the watermark above it.
pub(crate) fn record_hash(entry: Entry<'_>) -> Digest {
    after(&Digest::default(), entry, Decision::Noop, 0)
}

#[cfg(test)]
mod tests;
