//! The reconciler: brings the doorman's sets level with the ledger, and deletes what Redis holds of retired coupons.
//!
//! One instance at a time does it, by a lock in Redis. Two at once do no harm: what they write is what the ledger says.
//! Nobody's promise and nobody's claim depends on it; without it the doorman lets too many through or sends too many
//! to the own door.

mod set;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use platform::clock::Clock;
use platform::lifecycle::{BoxError, Lifecycle};
use platform::redis::{Connection, Redis};
use redis::RedisResult;
use redis::aio::ConnectionLike;
use uuid::Uuid;

use self::set::Known;
use crate::doorman::users_key;
use crate::ids::CouponId;
use crate::ledger::partition::Partition;

/// Takes the lock or keeps it.
const LOCK: &str = "\
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1";

const ROUND: Duration = Duration::from_secs(3);
/// After this long without a sign of life, another instance goes on.
const LOCKED: Duration = Duration::from_secs(15);
/// For giving the lock back at the end.
const LAST_WORD: Duration = Duration::from_millis(200);
/// How long after its end a coupon's set is still looked at in each round.
const AFTERMATH: u64 = 60_000;
/// Members, or coupons, in one command or pipeline: a fraction of a millisecond of Redis' time.
const CHUNK: usize = 500;
/// Between two of them, so that claims come in between.
const PACE: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub struct Reconciler {
    redis: Redis,
    partitions: Arc<[Partition]>,
    clock: Clock,
    lifecycle: Lifecycle,
    /// The lock's key.
    lock: String,
    /// The key of a set of coupons that any instance wants compared.
    doubtful: String,
    token: String,
    /// The connection by which the sets are known; 0 while somebody else has the lock.
    epoch: u64,
    /// Coupons that went past the doorman here, and nobody was told.
    untold: HashSet<CouponId>,
    /// Of every coupon that is not retired.
    sets: HashMap<CouponId, Known>,
    /// Retired coupons whose keys are gone.
    gone: HashSet<CouponId>,
}

/// A coupon that is not retired.
#[derive(Debug, Clone, Copy)]
struct Look {
    partition: usize,
    coupon: CouponId,
    count: u32,
    active: bool,
}

impl Reconciler {
    /// `topic` names the system: only its own instances share a lock.
    pub fn new(
        redis: Redis,
        partitions: Arc<[Partition]>,
        topic: &str,
        clock: Clock,
        lifecycle: Lifecycle,
    ) -> Self {
        Self {
            redis,
            partitions,
            clock,
            lifecycle,
            lock: format!("reconciler:{{{topic}}}:lock"),
            doubtful: format!("reconciler:{{{topic}}}:doubtful"),
            token: Uuid::new_v4().to_string(),
            epoch: 0,
            untold: HashSet::new(),
            sets: HashMap::new(),
            gone: HashSet::new(),
        }
    }

    pub async fn run(mut self) -> Result<(), BoxError> {
        let stop = self.lifecycle.background_stop();
        let mut epochs = self.redis.watch_epoch();
        let mut tick = tokio::time::interval(ROUND);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = tick.tick() => {}
                changed = epochs.changed() => changed?,
            }
            let Some(Connection { mut conn, epoch }) = self.redis.connection() else { continue };
            if let Some(Err(error)) = stop.run_until_cancelled(self.round(&mut conn, epoch)).await {
                tracing::warn!(%error, "sets can't be reconciled at the moment");
                self.redis.report(epoch, &error);
            }
        }
        if let Some(Connection { mut conn, .. }) = self.redis.connection()
            && self.epoch > 0
        {
            let _ = tokio::time::timeout(LAST_WORD, self.hold(&mut conn, Duration::from_millis(1))).await;
        }
        Ok(())
    }

    async fn round(&mut self, conn: &mut impl ConnectionLike, epoch: u64) -> RedisResult<()> {
        self.untold.extend(self.partitions.iter().flat_map(Partition::take_own_doors));
        if !self.untold.is_empty() {
            let coupons: Vec<_> = self.untold.iter().map(|coupon| coupon.0).collect();
            redis::cmd("SADD").arg(&self.doubtful).arg(coupons).exec_async(conn).await?;
            self.untold.clear();
        }
        if !self.hold(conn, LOCKED).await? {
            self.epoch = 0;
            return Ok(());
        }
        if self.epoch != epoch {
            // Another master, or another instance before: nothing is known of any set.
            self.epoch = epoch;
            self.sets.clear();
            self.gone.clear();
        }
        let doubtful: Vec<u64> = redis::cmd("SPOP").arg(&self.doubtful).arg(CHUNK).query_async(conn).await?;
        for coupon in doubtful {
            if let Some(known) = self.sets.get_mut(&CouponId(coupon)) {
                known.doubt();
            }
        }
        let (looks, retired) = self.survey();
        self.level(conn, &looks).await?;
        self.delete(conn, &retired).await
    }

    async fn hold(&self, conn: &mut impl ConnectionLike, expires: Duration) -> RedisResult<bool> {
        let lock = redis::Script::new(LOCK);
        let expires = u64::try_from(expires.as_millis()).unwrap_or(u64::MAX);
        lock.key(&self.lock).arg(&self.token).arg(expires).invoke_async(conn).await
    }

    /// The coupons whose sets are to be looked at, and the retired ones. A partition that has stopped knows too little
    /// of either.
    fn survey(&mut self) -> (Vec<Look>, Vec<CouponId>) {
        let (now, started) = (Instant::now(), self.clock.now_ms());
        let (mut looks, mut retired) = (Vec::new(), Vec::new());
        for (partition, tail) in self.partitions.iter().enumerate().filter(|(_, tail)| !tail.is_stopped()) {
            tail.with(|ledger| {
                for (id, found) in ledger.coupons() {
                    if found.retired_at.is_some() {
                        retired.push(*id);
                        continue;
                    }
                    let active = started < found.definition.ends_at.saturating_add(AFTERMATH);
                    looks.push(Look { partition, coupon: *id, count: found.count(), active });
                }
            });
        }
        retired.retain(|coupon| !self.gone.contains(coupon));
        for coupon in &retired {
            self.sets.remove(coupon);
        }
        looks.retain(|look| {
            let known = self.sets.entry(look.coupon).or_insert_with(|| Known::nothing(now));
            look.active || !known.is_settled(look.count)
        });
        (looks, retired)
    }

    async fn level(&mut self, conn: &mut impl ConnectionLike, looks: &[Look]) -> RedisResult<()> {
        for looks in looks.chunks(CHUNK) {
            let mut pipe = redis::pipe();
            pipe.ignore_errors();
            for look in looks {
                pipe.cmd("SCARD").arg(users_key(look.coupon));
            }
            let sizes: Vec<RedisResult<u64>> = pipe.query_async(conn).await?;
            for (look, size) in looks.iter().zip(sizes) {
                let Some(known) = self.sets.get_mut(&look.coupon) else { continue };
                let size = match size {
                    Err(error) if error.code() == Some("WRONGTYPE") => {
                        redis::cmd("UNLINK").arg(users_key(look.coupon)).exec_async(conn).await?;
                        known.doubt();
                        0
                    }
                    size => size?,
                };
                if known.is_due(size, look.count, Instant::now()) {
                    set::compare(conn, &self.partitions[look.partition], look.coupon, known).await?;
                    self.hold(conn, LOCKED).await?;
                }
            }
            tokio::time::sleep(PACE).await;
        }
        Ok(())
    }

    /// Until none are left: somebody who is late may write one once more.
    async fn delete(&mut self, conn: &mut impl ConnectionLike, retired: &[CouponId]) -> RedisResult<()> {
        for coupons in retired.chunks(CHUNK) {
            let mut pipe = redis::pipe();
            for coupon in coupons {
                let keys = ["users", "info", "count"].map(|name| format!("coupon:{{{coupon}}}:{name}"));
                pipe.cmd("UNLINK").arg(&keys);
            }
            let deleted: Vec<u64> = pipe.query_async(conn).await?;
            self.gone.extend(coupons.iter().zip(deleted).filter(|(_, keys)| *keys == 0).map(|(id, _)| *id));
            tokio::time::sleep(PACE).await;
        }
        Ok(())
    }
}
