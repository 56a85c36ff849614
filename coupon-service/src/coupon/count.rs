//! When a count may be written to a coupon's row. Invariants: what Redis says moves a row only forward, never above the
//! quantity, and where it contradicts the row the ledger is asked; the ledger's own word is taken as it is.

use serde::Deserialize;

use super::{CouponId, Definition, Issued};

/// A clock of this service and the log's may differ, and a claim in flight may be appended late.
const END_GRACE_MS: u64 = 5_000;
/// How long after its end a coupon that the ledger has never seen is waited for.
const UNKNOWN_TO_LEDGER_MS: u64 = 3_600_000;

/// What Redis shows under `coupon:{ID}:count`: `offset:count`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    pub offset: i64,
    pub count: u32,
}

impl Published {
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (offset, count) = text.split_once(':')?;
        let published = Self { offset: offset.parse().ok()?, count: count.parse().ok()? };
        (published.offset >= 0).then_some(published)
    }
}

/// A coupon in the ledger, as the issue service answers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LedgerCoupon {
    pub coupon_id: CouponId,
    pub version: u64,
    /// In force: never below `count`.
    pub stock: u32,
    pub starts_at: u64,
    pub ends_at: u64,
    pub closed: bool,
    /// For good: whatever is said of it later, nobody gets it any more.
    #[serde(default)]
    pub retired: bool,
    pub count: u32,
    pub offset: i64,
}

impl LedgerCoupon {
    #[must_use]
    pub fn definition(&self) -> Definition {
        Definition {
            coupon_id: self.coupon_id,
            version: self.version,
            quantity: self.stock,
            starts_at: self.starts_at,
            ends_at: self.ends_at,
            closed: self.closed,
        }
    }

    #[must_use]
    pub fn issued(&self) -> Issued {
        Issued { count: self.count, offset: Some(self.offset) }
    }
}

/// What to do about a published count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// Nothing new.
    Keep,
    /// Newer and possible: to the row.
    Write,
    /// Impossible beside the row: only the ledger's own word settles it.
    AskLedger,
}

/// Compares what Redis shows with the row.
#[must_use]
pub fn judge(row: Issued, quantity: u32, shown: Published) -> Judgement {
    let newer = row.offset.is_none_or(|offset| shown.offset > offset);
    if shown.count == row.count {
        Judgement::Keep
    } else if !newer {
        // An instance that lags publishes old pairs; the same place with another count can't be honest.
        if row.offset == Some(shown.offset) { Judgement::AskLedger } else { Judgement::Keep }
    } else if shown.count < row.count || shown.count > quantity {
        // Counts never go down in the ledger. Above the quantity one may be right, after the quantity was lowered.
        Judgement::AskLedger
    } else {
        Judgement::Write
    }
}

/// Whether the ledger's word changes the row. An offset in the row that the ledger has not reached is a lie that would
/// keep honest counts out, so it goes too.
#[must_use]
pub fn contradicts(row: Issued, word: Issued) -> bool {
    row.count != word.count || row.offset > word.offset
}

/// Whether the ledger's word is the last one: the coupon is retired; or it knows the row's definition or a newer one, and
/// that is closed or over.
#[must_use]
pub fn is_final(definition: &Definition, word: Option<&LedgerCoupon>, now: u64) -> bool {
    match word {
        Some(word) if word.retired => true,
        Some(word) if word.version < definition.version => false,
        Some(word) => word.closed || now >= word.ends_at.saturating_add(END_GRACE_MS),
        None => now >= definition.ends_at.saturating_add(UNKNOWN_TO_LEDGER_MS),
    }
}
