//! What a user gets in the hand.

use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::ids::{CouponId, UserId, issue_id};
use crate::ledger::Winner;

/// What became of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    Issued,
    Pending,
    None,
}

/// The same claim has the same receipt everywhere and at any time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    /// A UUIDv8 that names the coupon and the user.
    pub issue_id: Uuid,
    #[schema(value_type = u64)]
    pub coupon_id: CouponId,
    #[schema(value_type = u64)]
    pub user_id: UserId,
    /// The user's place among the winners, counting from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<u32>,
    pub status: Status,
    /// UTC.
    #[schema(format = DateTime)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issued_at: Option<String>,
}

impl Receipt {
    pub fn issued(coupon_id: CouponId, user_id: UserId, winner: Winner) -> Self {
        Self {
            place: Some(winner.place),
            issued_at: Some(platform::clock::rfc3339(winner.issued_at)),
            ..Self::without(coupon_id, user_id, Status::Issued)
        }
    }

    pub fn without(coupon_id: CouponId, user_id: UserId, status: Status) -> Self {
        Self {
            issue_id: issue_id(coupon_id, user_id),
            coupon_id,
            user_id,
            place: None,
            status,
            issued_at: None,
        }
    }
}

/// For the descriptions.
pub fn example(status: Status) -> Receipt {
    let (coupon, user) = (CouponId(249_347_072_000_456), UserId(249_347_072_000_123));
    match status {
        // 2026-11-21T10:00:03.412Z
        Status::Issued => Receipt::issued(coupon, user, Winner { place: 12, issued_at: 1_795_255_203_412 }),
        _ => Receipt::without(coupon, user, status),
    }
}
