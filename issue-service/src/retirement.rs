//! Retirement: some days after a coupon's end it is written into the log that nothing of it changes any more, and once
//! the database has followed so far, the coupon's winners leave memory.
//!
//! When to write it is a policy and decides nothing: the ledger obeys a retirement only after the end by the log's own
//! time, and a second one changes nothing. So every instance does it.

use std::sync::Arc;
use std::time::Duration;

use platform::clock::Clock;
use platform::lifecycle::{BoxError, Lifecycle};
use sqlx::MySqlPool;

use crate::ids::CouponId;
use crate::ledger::partition::Partition;
use crate::ledger::{Ledger, Record, Winners};
use crate::log::Log;
use crate::store;

const ROUND: Duration = Duration::from_secs(5);
/// Longer than the log tries to deliver a record.
const APPEND: Duration = Duration::from_secs(11);

#[derive(Debug)]
pub struct Retirement {
    /// How long after its end a coupon is retired.
    after: u64,
    log: Log,
    pool: MySqlPool,
    partitions: Arc<[Partition]>,
    clock: Clock,
    lifecycle: Lifecycle,
}

impl Retirement {
    pub fn new(
        after: Duration,
        log: Log,
        pool: MySqlPool,
        partitions: Arc<[Partition]>,
        clock: Clock,
        lifecycle: Lifecycle,
    ) -> Self {
        let after = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        Self { after, log, pool, partitions, clock, lifecycle }
    }

    pub async fn run(self) -> Result<(), BoxError> {
        let stop = self.lifecycle.background_stop();
        while tokio::time::timeout(ROUND, stop.cancelled()).await.is_err() {
            for partition in self.partitions.iter().filter(|partition| !partition.is_stopped()) {
                let round = async {
                    self.retire(partition).await?;
                    self.evict(partition).await
                };
                if let Some(Err(error)) = stop.run_until_cancelled(round).await {
                    tracing::warn!(%error, log.partition = partition.id(), "coupons can't be retired at the moment");
                }
            }
        }
        Ok(())
    }

    async fn retire(&self, partition: &Partition) -> Result<(), BoxError> {
        let now = self.clock.now_ms();
        for coupon in partition.with(|ledger| due(ledger, now, self.after)) {
            let append = async {
                let offset = self.log.append(partition.id(), Record::Retire { coupon }).await?;
                // Else the next round would write it again.
                partition.passed(offset + 1).await?;
                Ok::<_, BoxError>(())
            };
            tokio::time::timeout(APPEND, append).await??;
            let retired = partition.with(|ledger| ledger.is_retired(coupon));
            tracing::info!(coupon.id = coupon.0, retired, "wrote a coupon's retirement");
        }
        Ok(())
    }

    async fn evict(&self, partition: &Partition) -> Result<(), BoxError> {
        if partition.with(Ledger::is_leaving) {
            let watermark = store::on_connection(&self.pool, async |db| {
                store::within(store::watermark(db, partition.id())).await
            });
            evicted(&partition.evict(watermark.await?.next));
        }
        Ok(())
    }
}

/// The coupons that ended so long ago and are not retired.
fn due(ledger: &Ledger, now: u64, after: u64) -> Vec<CouponId> {
    let ended = ledger.coupons().filter(|(_, coupon)| {
        coupon.retired_at.is_none() && now >= coupon.definition.ends_at.saturating_add(after)
    });
    ended.map(|(id, _)| *id).collect()
}

/// Says what has left memory.
pub fn evicted(coupons: &[Winners]) {
    if !coupons.is_empty() {
        let winners = coupons.iter().map(|winners| u64::from(winners.count())).sum();
        metrics::counter!("firstcome_evicted_coupons_total").increment(coupons.len() as u64);
        metrics::counter!("firstcome_evicted_winners_total").increment(winners);
        tracing::info!(coupons = coupons.len(), winners, "winners of retired coupons have left memory");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::partition_of;
    use crate::ledger::{Definition, Entry};

    #[test]
    fn only_coupons_that_ended_long_enough_ago_and_are_not_retired_are_due() {
        let coupon = CouponId(5);
        let mut ledger = Ledger::new(partition_of(coupon, 8), 8);
        let definition =
            Definition { coupon, version: 1, stock: 1, starts_at: 10, ends_at: 100, closed: true };
        let apply = |ledger: &mut Ledger, record: Record| {
            let entry = Entry { offset: ledger.next(), appended_at: 100, value: &record.encode() };
            ledger.apply(entry).unwrap();
        };
        apply(&mut ledger, Record::Definition(definition));
        assert!(due(&ledger, 106, 7).is_empty());
        assert_eq!(due(&ledger, 107, 7), [coupon]);
        assert!(due(&ledger, u64::MAX - 1, u64::MAX).is_empty());
        apply(&mut ledger, Record::Retire { coupon });
        assert!(due(&ledger, 107, 7).is_empty());
    }
}
