//! The ledger of one partition of the log: the only place where anybody wins.
//!
//! [`Ledger::apply`] takes the records of the partition in their order and decides each one. It has no clock,
//! does no I/O and draws no random number, so every process that applied the same prefix of the partition
//! holds the same state and the same digest. Rules never change for a record version that exists.

pub mod checkpoints;
mod digest;
pub mod follower;
pub mod partition;
pub mod record;
pub mod snapshot;
pub mod tail;
mod winners;

use std::collections::{HashMap, VecDeque};

use crate::control::{Guard, without};
use crate::ids::{CouponId, UserId, partition_of};
pub use digest::{DIGEST_EVERY, Digest, record_hash};
pub use record::{Definition, Record, Unreadable};
pub use winners::{Winner, Winners};

/// A record as the log gives it back.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    pub offset: u64,
    /// The broker's append time, milliseconds since 1970. It may step back at a change of leader and is used
    /// as stored.
    pub appended_at: u64,
    pub value: &'a [u8],
}

/// What the ledger said of a record. The numbers are part of the digest and frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Decision {
    Accepted = 1,
    /// The user had won before.
    Already = 2,
    SoldOut = 3,
    NotStarted = 4,
    Ended = 5,
    Closed = 6,
    Retired = 7,
    /// The coupon has no definition at this place of the log.
    Unknown = 8,
    /// A definition that took force.
    Taken = 9,
    /// A definition that is not newer than the one in force.
    Stale = 10,
    RetireTaken = 11,
    /// A retirement that is too early, repeated or of an unknown coupon, or a definition of a retired coupon.
    Ignored = 12,
    Malformed = 13,
    Invalid = 14,
    Noop = 15,
}

/// A decided record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decided {
    pub decision: Decision,
    /// None where the value could not be read.
    pub record: Option<Record>,
    /// The winner's place, counting from 1; only with `Accepted`.
    pub place: Option<u32>,
}

/// Why a record could not be decided. The partition stops in this process, loudly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    #[error(
        "the record at offset {offset} is of kind {kind}, version {version}, which this build does not know: \
         a newer version of the service has written it, so this one must be replaced by it"
    )]
    UnknownRecord { offset: u64, kind: u8, version: u8 },
    #[error("the log goes on at offset {got} where {expected} was due: records are missing")]
    Gap { expected: u64, got: u64 },
}

/// A coupon in the ledger.
#[derive(Debug, Clone)]
pub struct Coupon {
    pub definition: Definition,
    pub retired_at: Option<u64>,
    pub winners: Winners,
}

impl Coupon {
    /// How many have won.
    pub fn count(&self) -> u32 {
        self.winners.count()
    }

    /// The definition's part of a decision at a given time: everything but membership and retirement.
    pub fn refusal(&self, at: u64) -> Option<Decision> {
        let Definition { closed, starts_at, ends_at, stock, .. } = self.definition;
        if closed {
            Some(Decision::Closed)
        } else if at < starts_at {
            Some(Decision::NotStarted)
        } else if at >= ends_at {
            Some(Decision::Ended)
        } else if self.count() >= stock {
            Some(Decision::SoldOut)
        } else {
            None
        }
    }
}

#[derive(Debug, Clone)]
pub struct Ledger {
    partition: u32,
    partitions: u32,
    next: u64,
    digest: Digest,
    coupons: HashMap<CouponId, Coupon>,
    /// Retired coupons whose winners are in memory, by the offset of their retirement.
    leaving: VecDeque<(u64, CouponId)>,
}

impl Ledger {
    /// The ledger of an empty prefix.
    pub fn new(partition: u32, partitions: u32) -> Self {
        Self::restore(partition, partitions, 0, Digest::default(), HashMap::new())
    }

    /// The ledger as it was after the record before `next`, from a snapshot.
    pub fn restore(
        partition: u32,
        partitions: u32,
        next: u64,
        digest: Digest,
        coupons: HashMap<CouponId, Coupon>,
    ) -> Self {
        let in_memory = coupons.iter().filter(|(_, coupon)| !coupon.winners.are_evicted());
        let mut leaving: Vec<_> =
            in_memory.filter_map(|(id, coupon)| Some((coupon.retired_at?, *id))).collect();
        leaving.sort_unstable();
        Self { partition, partitions, next, digest, coupons, leaving: leaving.into() }
    }

    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// The offset that is due next; everything below it was applied.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The digest of everything below `next`.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    pub fn coupon(&self, coupon: CouponId) -> Option<&Coupon> {
        self.coupons.get(&coupon)
    }

    pub fn is_retired(&self, coupon: CouponId) -> bool {
        self.coupons.get(&coupon).is_some_and(|coupon| coupon.retired_at.is_some())
    }

    pub fn coupons(&self) -> impl Iterator<Item = (&CouponId, &Coupon)> {
        self.coupons.iter()
    }

    /// Whether winners of retired coupons wait for the database to have them.
    pub fn is_leaving(&self) -> bool {
        !self.leaving.is_empty()
    }

    /// Lets go of the winners of every coupon that was retired below `watermark`, up to where the database follows:
    /// it has them. No later decision looks at them, since retirement comes before membership.
    pub fn evict(&mut self, watermark: u64) -> Vec<Winners> {
        let watermark = if without(Guard::EvictLate) { u64::MAX } else { watermark };
        let mut evicted = Vec::new();
        while let Some((_, coupon)) = self.leaving.pop_front_if(|(retired_at, _)| *retired_at < watermark) {
            if let Some(coupon) = self.coupons.get_mut(&coupon) {
                evicted.push(coupon.winners.evict());
            }
        }
        evicted
    }

    /// Applies the record that is due next. After an error nothing has changed, and nothing must follow.
    pub fn apply(&mut self, entry: Entry<'_>) -> Result<Decided, Stop> {
        if entry.offset != self.next {
            return Err(Stop::Gap { expected: self.next, got: entry.offset });
        }
        let decided = match Record::decode(entry.value) {
            Ok(record) => self.decide(record, entry),
            Err(Unreadable::Malformed) => undecided(Decision::Malformed),
            Err(Unreadable::Invalid) => undecided(Decision::Invalid),
            Err(Unreadable::Unknown { kind, version }) => {
                return Err(Stop::UnknownRecord { offset: entry.offset, kind, version });
            }
        };
        self.digest = self.digest.next(entry, decided.decision, decided.place);
        self.next += 1;
        Ok(decided)
    }

    fn decide(&mut self, record: Record, entry: Entry<'_>) -> Decided {
        if record.coupon().is_some_and(|coupon| partition_of(coupon, self.partitions) != self.partition) {
            return undecided(Decision::Invalid);
        }
        let (decision, place) = match record {
            Record::Definition(definition) => (self.define(definition), None),
            Record::Claim { coupon, user } => self.claim(coupon, user, entry.appended_at),
            Record::Retire { coupon } => (self.retire(coupon, entry), None),
            Record::Noop => (Decision::Noop, None),
        };
        Decided { decision, record: Some(record), place }
    }

    fn claim(&mut self, coupon: CouponId, user: UserId, at: u64) -> (Decision, Option<u32>) {
        let Some(coupon) = self.coupons.get_mut(&coupon) else { return (Decision::Unknown, None) };
        if coupon.retired_at.is_some() {
            return (Decision::Retired, None);
        }
        if coupon.winners.get(user).is_some() {
            return (Decision::Already, None);
        }
        match coupon.refusal(at) {
            Some(refusal) => (refusal, None),
            None => (Decision::Accepted, Some(coupon.winners.add(user, at))),
        }
    }

    fn define(&mut self, new: Definition) -> Decision {
        match self.coupons.get_mut(&new.coupon) {
            None => {
                let coupon = Coupon { definition: new, retired_at: None, winners: Winners::default() };
                self.coupons.insert(new.coupon, coupon);
                Decision::Taken
            }
            Some(coupon) if coupon.retired_at.is_some() => Decision::Ignored,
            Some(coupon) if new.version <= coupon.definition.version => Decision::Stale,
            Some(coupon) => {
                coupon.definition = Definition { stock: new.stock.max(coupon.count()), ..new };
                Decision::Taken
            }
        }
    }

    fn retire(&mut self, coupon: CouponId, entry: Entry<'_>) -> Decision {
        match self.coupons.get_mut(&coupon) {
            Some(coupon) if coupon.retired_at.is_none() && entry.appended_at >= coupon.definition.ends_at => {
                coupon.retired_at = Some(entry.offset);
                self.leaving.push_back((entry.offset, coupon.definition.coupon));
                Decision::RetireTaken
            }
            _ => Decision::Ignored,
        }
    }
}

fn undecided(decision: Decision) -> Decided {
    Decided { decision, record: None, place: None }
}

#[cfg(test)]
mod tests;
