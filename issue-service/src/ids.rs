//! The ids of this service, and what is computed from ids alone.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Ids are JSON numbers that every client reads exactly: below 2^53.
pub const MAX_ID: u64 = (1 << 53) - 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CouponId(pub u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UserId(pub u64);

impl std::fmt::Display for CouponId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::fmt::Display for UserId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The partition of the log that holds every record of this coupon: FNV-1a-64 of the id's eight bytes,
/// big-endian, modulo the number of partitions. Frozen with the data.
pub fn partition_of(coupon: CouponId, partitions: u32) -> u32 {
    let hash = coupon.0.to_be_bytes().iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    #[expect(clippy::cast_possible_truncation, reason = "the remainder is smaller than a u32")]
    let partition = (hash % u64::from(partitions)) as u32;
    partition
}

/// The id of an issue: a UUIDv8 (RFC 9562, section 5.8) that holds the coupon's and the user's id, 53 bits
/// each. The same claim has the same id everywhere without a look-up. It identifies and proves nothing.
pub fn issue_id(coupon: CouponId, user: UserId) -> Uuid {
    // coupon, 48 upper bits | version, 4 | coupon, 5 lower bits | user, 7 upper bits
    let high = (coupon.0 >> 5) << 16 | 0x8 << 12 | (coupon.0 & 0x1F) << 7 | user.0 >> 46;
    // variant, 2 | user, 46 lower bits | zeros, 16
    let low = 0b10 << 62 | (user.0 & ((1 << 46) - 1)) << 16;
    Uuid::from_u64_pair(high, low)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The coupon and the user that an issue id names; `None` if it is not one.
    fn parse_issue_id(id: Uuid) -> Option<(CouponId, UserId)> {
        let (high, low) = id.as_u64_pair();
        let coupon = CouponId((high >> 16) << 5 | (high >> 7) & 0x1F);
        let user = UserId((high & 0x7F) << 46 | (low >> 16) & ((1 << 46) - 1));
        // Everything else in it is fixed, so only the id of these two is one.
        (issue_id(coupon, user) == id).then_some((coupon, user))
    }

    #[test]
    fn partitions_and_issue_ids_are_frozen() {
        let partitions: Vec<u32> = (1..=8).map(|id| partition_of(CouponId(id), 8)).collect();
        assert_eq!(partitions, [2, 7, 4, 1, 6, 3, 0, 5]);
        assert_eq!(partition_of(CouponId(244_130_414_592_001), 8), 1);
        let id = issue_id(CouponId(244_130_414_592_001), UserId(MAX_ID));
        assert_eq!(id.to_string(), "06f04855-2000-80ff-bfff-ffffffff0000");
    }

    proptest! {
        #[test]
        fn an_issue_id_names_its_coupon_and_user(coupon in 1..=MAX_ID, user in 1..=MAX_ID) {
            let id = issue_id(CouponId(coupon), UserId(user));
            prop_assert_eq!(id.get_version_num(), 8);
            prop_assert_eq!(id.get_variant(), uuid::Variant::RFC4122);
            prop_assert_eq!(parse_issue_id(id), Some((CouponId(coupon), UserId(user))));
        }

        /// 106 of the 128 bits say who and what; all others are fixed.
        #[test]
        fn other_uuids_are_refused(coupon in 1..=MAX_ID, user in 1..=MAX_ID) {
            let id = issue_id(CouponId(coupon), UserId(user)).as_u128();
            let others: Vec<_> =
                (0..128).filter_map(|bit| parse_issue_id(Uuid::from_u128(id ^ 1 << bit))).collect();
            prop_assert_eq!(others.len(), 106);
            prop_assert!(!others.contains(&(CouponId(coupon), UserId(user))));
        }
    }
}
