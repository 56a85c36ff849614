//! What a coupon is, and the rules about it: no clock, no I/O. Invariant: whatever the inputs, the quantity in force is
//! at least the issued quantity, so the remaining one is never negative.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub mod count;
pub mod request;

/// Time-ordered, below 2^53, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CouponId(pub u64);

impl std::fmt::Display for CouponId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// What the ledger needs to decide claims, as the issue service asks for it. Times are unix milliseconds; the window is
/// `startsAt <= t < endsAt`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Definition {
    #[schema(value_type = u64)]
    pub coupon_id: CouponId,
    /// Raised by each change; unix milliseconds of the change unless an earlier version was ahead of the clock.
    pub version: u64,
    /// As asked for. In the ledger a quantity below what is issued takes force as what is issued.
    pub quantity: u32,
    pub starts_at: u64,
    pub ends_at: u64,
    pub closed: bool,
}

/// How many were issued, by the ledger's count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Issued {
    pub count: u32,
    /// The place in the coupon's partition at which the count was true; none before the first count.
    pub offset: Option<i64>,
}

/// A coupon as its row holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coupon {
    pub definition: Definition,
    pub event_id: Option<u64>,
    pub name: String,
    pub issued: Issued,
}

/// Whether the coupon can be claimed, and if not, why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum State {
    /// The window has not begun.
    Scheduled,
    Open,
    SoldOut,
    /// Closed by an administrator.
    Closed,
    /// The window is over.
    Ended,
}

impl Coupon {
    /// The stock that is in force. Lowering it below what is issued takes nothing back from anybody: what is issued
    /// then is the stock. A count that only Redis claims never gets here above the quantity (see [`count::judge`]).
    #[must_use]
    pub fn quantity_in_force(&self) -> u32 {
        self.definition.quantity.max(self.issued.count)
    }

    #[must_use]
    pub fn remaining(&self) -> u32 {
        self.quantity_in_force() - self.issued.count
    }

    /// In the ledger's own order: closed, window, stock.
    #[must_use]
    pub fn state(&self, now: u64) -> State {
        let definition = &self.definition;
        if definition.closed {
            State::Closed
        } else if now >= definition.ends_at {
            State::Ended
        } else if now < definition.starts_at {
            State::Scheduled
        } else if self.remaining() == 0 {
            State::SoldOut
        } else {
            State::Open
        }
    }
}

/// The version of a change: above the row's and the ledger's, and the clock's time where that is higher.
#[must_use]
pub fn next_version(previous: u64, ledger: Option<u64>, now: u64) -> u64 {
    now.max(previous + 1).max(ledger.map_or(0, |version| version + 1))
}

#[cfg(test)]
mod tests;
