//! Routes that share requests by weight (`Weight=group, 8`).
//!
//! Invariant: one number is drawn for a request and group, and exactly one route of the group holds for it.

use std::cell::OnceCell;

use super::predicate::Predicate;

/// A route's part of its group, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Group {
    index: u64,
    from: f64,
    to: f64,
}

/// The numbers of one request, one for each group.
#[derive(Debug, Default)]
pub struct Draws(OnceCell<u64>);

impl Draws {
    /// Numbers that are known beforehand, for tests.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        Self(OnceCell::from(seed))
    }

    /// At least 0 and below 1.
    fn draw(&self, group: u64) -> f64 {
        let seed = self.0.get_or_init(rand::random);
        #[expect(clippy::cast_precision_loss, reason = "53 bits are what a fraction holds")]
        let fraction = (mix(seed.wrapping_add(group)) >> 11) as f64 / (1_u64 << 53) as f64;
        fraction
    }
}

/// SplitMix64's finish: neighbours come out unlike each other.
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Group {
    #[must_use]
    pub fn holds(&self, draws: &Draws) -> bool {
        (self.from..self.to).contains(&draws.draw(self.index))
    }
}

/// Gives each `Weight` its part of what its group has in all.
pub fn share<'a>(predicates: impl Iterator<Item = &'a mut Predicate>) {
    let mut members: Vec<(&str, u32, &mut Option<Group>)> = predicates
        .filter_map(|predicate| match predicate {
            Predicate::Weight { group, weight, share } => Some((group.as_str(), *weight, share)),
            _ => None,
        })
        .collect();
    members.sort_by_key(|(group, ..)| *group); // stable: within a group as listed
    for (index, group) in members.chunk_by_mut(|one, other| one.0 == other.0).enumerate() {
        let total: f64 = group.iter().map(|(_, weight, _)| f64::from(*weight)).sum();
        let mut before = 0.0;
        for (_, weight, share) in group {
            let from = before / total;
            before += f64::from(*weight);
            // With a total of 0 these are no numbers, which no draw lies between.
            **share = Some(Group { index: index as u64, from, to: before / total });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(groups: &[(&str, u32)]) -> Vec<Predicate> {
        let mut predicates: Vec<_> = groups
            .iter()
            .map(|(group, weight)| Predicate::Weight {
                group: (*group).to_owned(),
                weight: *weight,
                share: None,
            })
            .collect();
        share(predicates.iter_mut());
        predicates
    }

    fn holds(predicate: &Predicate, draws: &Draws) -> bool {
        matches!(predicate, Predicate::Weight { share: Some(share), .. } if share.holds(draws))
    }

    #[test]
    fn exactly_one_of_a_group_holds_and_by_its_weight() {
        let predicates = weights(&[("a", 8), ("b", 1), ("a", 2), ("b", 1), ("a", 0)]);
        let mut counts = [0_u32; 5];
        let mut both_first = 0_u32;
        for seed in 0..10_000 {
            let draws = Draws::of(seed);
            let held: Vec<usize> = (0..5).filter(|at| holds(&predicates[*at], &draws)).collect();
            assert_eq!(held.len(), 2, "one of each group: {held:?}");
            held.iter().for_each(|at| counts[*at] += 1);
            both_first += u32::from(held == [0, 1]);
        }
        assert!((7_800..8_200).contains(&counts[0]), "{counts:?}");
        assert!((4_800..5_200).contains(&counts[1]), "{counts:?}");
        assert_eq!(counts[4], 0);
        assert!((3_800..4_200).contains(&both_first), "the groups know nothing of each other: {both_first}");
    }

    #[test]
    fn a_group_without_weight_takes_nothing() {
        let predicates = weights(&[("a", 0), ("a", 0)]);
        assert!((0..100).all(|seed| !holds(&predicates[0], &Draws::of(seed))));
    }
}
