//! What the background tasks of this process ask of a partition.

use std::collections::HashSet;

use super::Partition;
use crate::ids::CouponId;
use crate::ledger::Winners;

impl Partition {
    /// The coupons whose count or definition has changed since this was asked last.
    pub fn take_changed(&self) -> HashSet<CouponId> {
        std::mem::take(&mut self.inner.lock().changed)
    }

    /// The coupons for which claims have gone past the doorman since this was asked last.
    pub fn take_own_doors(&self) -> HashSet<CouponId> {
        std::mem::take(&mut self.inner.lock().own_doors)
    }

    /// See [`crate::ledger::Ledger::evict`].
    pub fn evict(&self, watermark: u64) -> Vec<Winners> {
        // Their memory is given back by the caller, outside of the lock.
        self.inner.lock().ledger.evict(watermark)
    }
}
