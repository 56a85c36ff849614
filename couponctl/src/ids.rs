//! Ids as the services make them, encoded here a second time on purpose: the audit must not trust their code.
//!
//! Coupon and user ids are milliseconds since 2025-01-01 (41 bits) and 12 random bits. An issue id is a UUID of
//! version 8 that holds coupon and user, 53 bits each:
//! `coupon high 48 | 1000 | coupon low 5, user high 7 | 10 | user low 46 | 16 zero bits`.

use uuid::Uuid;

/// 2025-01-01T00:00:00Z in unix milliseconds.
pub(crate) const EPOCH_MS: u64 = 1_735_689_600_000;
/// Bits of an id below the milliseconds.
pub(crate) const RANDOM_BITS: u32 = 12;
/// Ids stay below 2^53, so that they are exact as JSON numbers.
pub(crate) const LIMIT: u64 = 1 << 53;

const USER_LOW_BITS: u32 = 46;
const COUPON_LOW_BITS: u32 = 5;

/// The issue id of a claim.
pub(crate) fn issue_id(coupon: u64, user: u64) -> Uuid {
    let coupon = u128::from(coupon & (LIMIT - 1));
    let user = u128::from(user & (LIMIT - 1));
    let coupon_low = coupon & ((1 << COUPON_LOW_BITS) - 1);
    let user_high = user >> USER_LOW_BITS;
    let user_low = user & ((1 << USER_LOW_BITS) - 1);
    Uuid::from_u128(
        (coupon >> COUPON_LOW_BITS) << 80
            | 0b1000 << 76
            | (coupon_low << 7 | user_high) << 64
            | 0b10 << 62
            | user_low << 16,
    )
}

/// The partition of the log that holds everything about a coupon: FNV-1a-64 of the id's eight bytes, big-endian,
/// modulo the number of partitions.
pub(crate) fn partition_of(coupon: u64, partitions: u32) -> u32 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in coupon.to_be_bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    #[expect(clippy::cast_possible_truncation, reason = "the remainder is smaller than a u32")]
    let partition = (hash % u64::from(partitions.max(1))) as u32;
    partition
}

/// Whether the text is the issue id of this claim, and nothing else.
pub(crate) fn is_issue_id(text: &str, coupon: u64, user: u64) -> bool {
    Uuid::parse_str(text).is_ok_and(|id| id == issue_id(coupon, user))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issue_id_is_version_8_and_holds_both_ids() {
        for (coupon, user) in
            [(1, 1), (LIMIT - 1, LIMIT - 1), (0, LIMIT - 1), (244_019_838_763_171, 7_033_511)]
        {
            let id = issue_id(coupon, user);
            assert_eq!(id.get_version_num(), 8);
            assert_eq!(id.get_variant(), uuid::Variant::RFC4122);
            let bits = id.as_u128();
            let low46 = (1_u128 << 46) - 1;
            let decoded_coupon = bits >> 80 << 5 | bits >> 71 & 0b1_1111;
            let decoded_user = (bits >> 64 & 0b111_1111) << 46 | bits >> 16 & low46;
            assert_eq!((decoded_coupon, decoded_user), (u128::from(coupon), u128::from(user)));
            assert!(is_issue_id(&id.to_string(), coupon, user));
            assert!(!is_issue_id(&id.to_string(), coupon, user ^ 1));
        }
    }

    #[test]
    fn partitions_are_frozen() {
        let partitions: Vec<u32> = (1..=8).map(|id| partition_of(id, 8)).collect();
        assert_eq!(partitions, [2, 7, 4, 1, 6, 3, 0, 5]);
        assert_eq!(partition_of(244_130_414_592_001, 8), 1);
    }

    #[test]
    fn the_encoding_is_frozen() {
        assert_eq!(issue_id(1, 2).to_string(), "00000000-0000-8080-8000-000000020000");
        assert_eq!(issue_id(LIMIT - 1, LIMIT - 1).to_string(), "ffffffff-ffff-8fff-bfff-ffffffff0000");
    }
}
