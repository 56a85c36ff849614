//! The winners of one coupon: who, at which place, when. 16 bytes a winner and what the table leaves free.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::ids::UserId;

/// A user's win.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Winner {
    /// Counting from 1.
    pub place: u32,
    /// The append time of the accepted claim, milliseconds since 1970.
    pub issued_at: u64,
}

/// Only ever grows: nobody loses what the log gave. Those of a retired coupon leave memory together, and stay counted.
#[derive(Debug, Clone, Default)]
pub struct Winners {
    table: HashMap<UserId, Packed, BuildHasherDefault<IdHasher>>,
    /// Of those who have left memory.
    evicted: u32,
}

/// Place in the upper 24 bits, milliseconds since [`EPOCH`] in the lower 40: until July 2055.
#[derive(Debug, Clone, Copy)]
struct Packed(u64);

/// 2020-09-13T12:26:40Z; earlier append times are kept as this.
const EPOCH: u64 = 1_600_000_000_000;
const TIME_BITS: u32 = 40;

impl Packed {
    fn new(winner: Winner) -> Self {
        let time = winner.issued_at.saturating_sub(EPOCH).min((1 << TIME_BITS) - 1);
        Self(u64::from(winner.place) << TIME_BITS | time)
    }

    fn unpack(self) -> Winner {
        let place = (self.0 >> TIME_BITS) as u32;
        Winner { place, issued_at: (self.0 & ((1 << TIME_BITS) - 1)) + EPOCH }
    }
}

impl Winners {
    /// So many, and who they are is in the database only.
    pub fn only_counted(count: u32) -> Self {
        Self { evicted: count, ..Self::default() }
    }

    /// Leaves only the count behind.
    pub fn evict(&mut self) -> Self {
        std::mem::replace(self, Self::only_counted(self.count()))
    }

    /// Whether there are some of whom this knows nothing.
    pub fn are_evicted(&self) -> bool {
        self.evicted > 0
    }

    pub fn count(&self) -> u32 {
        u32::try_from(self.table.len()).unwrap_or(u32::MAX).saturating_add(self.evicted)
    }

    pub fn get(&self, user: UserId) -> Option<Winner> {
        self.table.get(&user).map(|packed| packed.unpack())
    }

    /// Adds a user who is not among them, at the next place.
    pub fn add(&mut self, user: UserId, issued_at: u64) -> u32 {
        let place = self.count() + 1;
        self.insert(user, Winner { place, issued_at });
        place
    }

    /// Puts a winner back at a known place, from a snapshot. False if the user is there already.
    pub fn insert(&mut self, user: UserId, winner: Winner) -> bool {
        self.table.insert(user, Packed::new(winner)).is_none()
    }

    pub fn users(&self) -> impl Iterator<Item = UserId> {
        self.table.keys().copied()
    }
}

/// Ids are made by the user service, never chosen by a user, so one multiplication spreads them well enough.
#[derive(Debug, Clone, Copy, Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, id: u64) {
        let product = (self.0.rotate_left(5) ^ id).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = product ^ product >> 32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_winner_is_kept_as_it_was_added() {
        let mut winners = Winners::default();
        let at = 1_795_000_000_123;
        assert_eq!(winners.add(UserId(5), at), 1);
        assert_eq!(winners.add(UserId(6), at + 1), 2);
        assert_eq!(winners.get(UserId(6)), Some(Winner { place: 2, issued_at: at + 1 }));
        assert_eq!(winners.get(UserId(7)), None);
        let last = Winner { place: 10_000_000, issued_at: at };
        assert!(winners.insert(UserId(8), last));
        assert_eq!(winners.get(UserId(8)), Some(last));
        assert!(!winners.insert(UserId(8), last), "twice");
    }

    #[test]
    fn who_has_left_memory_is_still_counted() {
        let mut winners = Winners::default();
        winners.evict();
        assert!(!winners.are_evicted(), "nobody has won, and that is known");
        winners.add(UserId(5), 1_795_000_000_123);
        let evicted = winners.evict();
        assert_eq!((evicted.count(), evicted.users().collect::<Vec<_>>()), (1, vec![UserId(5)]));
        assert_eq!((winners.count(), winners.get(UserId(5)), winners.are_evicted()), (1, None, true));
    }

    /// Time-ordered ids with few random bits must not pile up in one part of the table.
    #[test]
    fn hashes_of_neighbouring_ids_spread() {
        let mut buckets = [0_u32; 64];
        for id in 0..6400_u64 {
            let mut hasher = IdHasher::default();
            hasher.write_u64(240_000_000_000_000 + id * 4096);
            buckets[usize::try_from(hasher.finish() % 64).unwrap()] += 1;
        }
        assert!(buckets.iter().all(|n| (40..200).contains(n)), "{buckets:?}");
    }
}
