//! Chance that can be repeated: the same seed gives the same choices, on any machine and in any version.

/// SplitMix64.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Of one round of one scenario.
    pub(crate) fn of_round(seed: u64, scenario: &str, round: u32) -> u64 {
        let more = scenario.bytes().map(u64::from).chain([round.into()]);
        more.fold(Self(seed).next(), |mixed, more| Self(mixed ^ more).next())
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `limit`, or 0 if that is 0. Small limits only, so that the remainder's bias is none that matters.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next().checked_rem(limit).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_says_all() {
        // The reference implementation's first values for the seed 1234567.
        let mut random = Random::new(1_234_567);
        let first: Vec<u64> = std::iter::repeat_with(|| random.next()).take(3).collect();
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
        assert!((0..100).all(|_| random.below(3) < 3));
        assert_eq!(random.below(0), 0);
    }

    #[test]
    fn rounds_differ() {
        let seeds = [
            Random::of_round(1, "a", 1),
            Random::of_round(1, "a", 2),
            Random::of_round(1, "b", 1),
            Random::of_round(2, "a", 1),
        ];
        let distinct: std::collections::HashSet<u64> = seeds.into();
        assert_eq!(distinct.len(), 4);
        assert_eq!(Random::of_round(1, "a", 1), seeds[0]);
    }
}
