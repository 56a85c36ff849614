//! Publishes the ledger's counts to Redis, from where the coupon service writes them back to its database.
//!
//! Nothing rests on them: the coupon service asks the issue service itself from time to time.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use platform::lifecycle::{BoxError, Lifecycle};
use platform::redis::{Connection, Redis};

use crate::ids::CouponId;
use crate::ledger::partition::Partition;

/// Sets a count unless a newer one is there. What is no text is no count, and nobody of this system's.
pub const PUBLISH: &str = "\
local old = redis.pcall('GET', KEYS[1])
local offset = type(old) == 'string' and tonumber(string.match(old, '^(%d+):'))
if offset and offset > tonumber(ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1] .. ':' .. ARGV[2])
return 1";

const PACE: Duration = Duration::from_millis(200);
/// How often everything is published again, changed or not.
const AGAIN: Duration = Duration::from_secs(5);
/// Counts in one pipeline: a few milliseconds of Redis' time, in which claims wait.
const CHUNK: usize = 500;

#[derive(Debug)]
pub struct Counts {
    redis: Redis,
    partitions: Arc<[Partition]>,
    lifecycle: Lifecycle,
}

impl Counts {
    pub fn new(redis: Redis, partitions: Arc<[Partition]>, lifecycle: Lifecycle) -> Self {
        Self { redis, partitions, lifecycle }
    }

    pub async fn publish(self) -> Result<(), BoxError> {
        let stop = self.lifecycle.background_stop();
        let mut epochs = self.redis.watch_epoch();
        let mut tick = tokio::time::interval(PACE);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut again = tokio::time::interval(AGAIN);
        again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut due = HashSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = tick.tick() => due.extend(self.partitions.iter().flat_map(Partition::take_changed)),
                _ = again.tick() => due.extend(self.everything()),
                changed = epochs.changed() => {
                    changed?;
                    due.extend(self.everything());
                }
            }
            stop.run_until_cancelled(self.send(&mut due)).await;
        }
        due.extend(self.partitions.iter().flat_map(Partition::take_changed));
        self.send(&mut due).await;
        Ok(())
    }

    fn everything(&self) -> HashSet<CouponId> {
        let all = |partition: &Partition| {
            partition.with(|ledger| ledger.coupons().map(|(id, _)| *id).collect::<Vec<_>>())
        };
        self.partitions.iter().flat_map(all).collect()
    }

    /// What could not be sent stays due.
    async fn send(&self, due: &mut HashSet<CouponId>) {
        let all: Vec<CouponId> = due.iter().copied().collect();
        for chunk in all.chunks(CHUNK) {
            if !self.send_chunk(chunk).await {
                return;
            }
            for coupon in chunk {
                due.remove(coupon);
            }
        }
    }

    async fn send_chunk(&self, chunk: &[CouponId]) -> bool {
        let Some(Connection { mut conn, epoch }) = self.redis.connection() else { return false };
        let script = redis::Script::new(PUBLISH);
        let mut pipe = redis::pipe();
        for id in chunk {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "the length is the number of partitions, a u32"
            )]
            let partition = crate::ids::partition_of(*id, self.partitions.len() as u32);
            let Some((count, offset)) = self.partitions[partition as usize].with(|ledger| {
                // The keys of a retired coupon are deleted, so its count must not come back.
                let coupon = ledger.coupon(*id).filter(|coupon| coupon.retired_at.is_none())?;
                Some((coupon.count(), ledger.next()))
            }) else {
                continue;
            };
            let key = format!("coupon:{{{id}}}:count");
            pipe.cmd("EVALSHA").arg(script.get_hash()).arg(1).arg(key).arg(offset).arg(count).ignore();
        }
        match pipe.query_async::<()>(&mut conn).await {
            Ok(()) => true,
            Err(error) => {
                self.redis.report(epoch, &error);
                false
            }
        }
    }
}
