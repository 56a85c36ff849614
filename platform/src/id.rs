//! Ids that services make by themselves. Invariant: time-ordered by the millisecond, below 2^53 (exact in
//! JavaScript), never from a database's counter, so that a restored backup can't hand one out twice.

use rand::Rng as _;

use crate::clock::Clock;

/// 2025-01-01T00:00:00Z in unix milliseconds.
pub const EPOCH_MS: u64 = 1_735_689_600_000;
const RANDOM_BITS: u32 = 12;
/// 41 bits of milliseconds last until 2094.
const MAX_MS: u64 = (1 << 41) - 1;

/// Draws ids: milliseconds since 2025 (41 bits), then 12 random bits. Two draws in one millisecond meet with
/// 1 : 4096; a duplicate key means to draw again.
#[derive(Clone, Debug)]
pub struct IdGenerator {
    clock: Clock,
}

impl IdGenerator {
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock }
    }

    #[must_use]
    pub fn next(&self) -> u64 {
        let ms = self.clock.now_ms().saturating_sub(EPOCH_MS).min(MAX_MS);
        let random = rand::rng().random_range(0..1u64 << RANDOM_BITS);
        // Zero means "none" in too many places to be an id.
        ((ms << RANDOM_BITS) | random).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_ordered_by_time_and_below_2_to_the_53() {
        let clock = Clock::manual(EPOCH_MS + 1);
        let ids = IdGenerator::new(clock.clone());
        let first = ids.next();
        assert_eq!(first >> 12, 1);
        clock.set(EPOCH_MS + 2);
        assert!(ids.next() > first);
        clock.set(u64::MAX);
        assert!(ids.next() < 1 << 53);
        clock.set(0);
        assert!(ids.next() >= 1);
    }
}
