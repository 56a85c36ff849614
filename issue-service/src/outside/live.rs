//! The real world: Kafka, Redis, the coupon service found by Consul.

use std::time::Duration;

use bytes::Bytes;
use platform::clock::Clock;
use platform::http::client::{CallError, ServiceClient};
use platform::lifecycle::{BoxError, Lifecycle};
use platform::redis::{Connection, Redis};
use redis::{Cmd, FromRedisValue, RedisError};
use sqlx::MySqlPool;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::ends::Ends;
use super::{Away, Changed, Mend, Outside, Told};
use crate::doorman::{ADMIT, Word, users_key};
use crate::failpoint::{Point, reach};
use crate::ids::{CouponId, UserId};
use crate::ledger::Record;
use crate::log::Log;
use crate::store::{self, Won};

const COUPON_SERVICE: &str = "coupon-service";
/// The longest that the coupon service is waited for, by a claim and by the question for changes.
const LOOK_UP: Duration = Duration::from_millis(250);
const CHANGES: Duration = Duration::from_secs(2);
/// Redis' channel for ids of coupons whose definitions have changed.
const CHANGED: &str = "coupon.changed";

#[derive(Debug)]
pub struct Live {
    pub log: Log,
    ends: Ends,
    redis: Redis,
    admit: redis::Script,
    coupons: ServiceClient,
    pool: MySqlPool,
    clock: Clock,
    lifecycle: Lifecycle,
}

impl Live {
    pub fn new(
        log: Log,
        ends: Ends,
        redis: Redis,
        coupons: ServiceClient,
        pool: MySqlPool,
        lifecycle: Lifecycle,
    ) -> Self {
        Self {
            log,
            ends,
            redis,
            admit: redis::Script::new(ADMIT),
            coupons,
            pool,
            clock: Clock::system(),
            lifecycle,
        }
    }

    async fn redis<T: FromRedisValue>(&self, command: &Cmd) -> Option<Result<T, RedisError>> {
        let Connection { mut conn, epoch } = self.redis.connection()?;
        let answer = command.query_async(&mut conn).await;
        if let Err(error) = &answer
            && error.code() != Some("NOSCRIPT")
        {
            self.redis.report(epoch, error);
        }
        Some(answer)
    }
}

impl Outside for Live {
    fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.lifecycle.spawn_detached(task);
    }

    fn stop(&self) -> CancellationToken {
        self.lifecycle.background_stop()
    }

    fn topic(&self) -> &str {
        self.log.topic()
    }

    fn send_claim(&self, coupon: CouponId, user: UserId, attempt: u64, traceparent: Option<&str>) {
        reach(Point::BeforeAppend);
        self.log.send_claim(coupon, user, attempt, traceparent);
    }

    async fn append(&self, partition: u32, record: Record) -> Result<u64, BoxError> {
        Ok(self.log.append(partition, record).await?)
    }

    async fn end_of(&self, partition: u32) -> Option<u64> {
        self.ends.of(partition).await
    }

    async fn admit(&self, coupon: CouponId, stock: u32, users: &[UserId]) -> Option<Vec<Word>> {
        let key = users_key(coupon);
        let command = |verb: &str, script: &str| {
            let mut command = redis::cmd(verb);
            command.arg(script).arg(1).arg(&key).arg(stock);
            for user in users {
                command.arg(user.0);
            }
            command
        };
        reach(Point::BeforeScript);
        let mut answer = self.redis::<String>(&command("EVALSHA", self.admit.get_hash())).await?;
        if matches!(&answer, Err(error) if error.code() == Some("NOSCRIPT")) {
            answer = self.redis(&command("EVAL", ADMIT)).await?;
        }
        reach(Point::AfterScript);
        let word = |code| match code {
            b'1' => Word::Admitted,
            b'2' => Word::Already,
            b'3' => Word::SoldOut,
            _ => Word::Away,
        };
        answer.ok().map(|codes| codes.bytes().map(word).collect())
    }

    async fn mend(&self, coupon: CouponId, mend: Mend, users: &[UserId]) -> bool {
        let mut command = redis::cmd(match mend {
            Mend::Add => "SADD",
            Mend::Remove => "SREM",
        });
        command.arg(users_key(coupon));
        for user in users {
            command.arg(user.0);
        }
        matches!(self.redis::<u32>(&command).await, Some(Ok(_)))
    }

    async fn cached(&self, coupon: CouponId) -> Option<String> {
        let mut get = redis::cmd("GET");
        get.arg(format!("coupon:{{{coupon}}}:info"));
        self.redis(&get).await?.ok()?
    }

    async fn told(&self, coupon: CouponId) -> Result<Option<Told>, Away> {
        let path = format!("/internal/coupons/{coupon}");
        match self.coupons.get_json(COUPON_SERVICE, &path, LOOK_UP).await {
            Ok(told) => Ok(Some(told)),
            Err(CallError::Status(status)) if status.as_u16() == 404 => Ok(None),
            Err(error) => {
                tracing::debug!(%error, coupon.id = coupon.0, "the coupon service can't be asked");
                Err(Away)
            }
        }
    }

    async fn changed_since(&self, version: u64) -> Result<Changed, Away> {
        let path = format!("/internal/coupons?changedSince={version}");
        self.coupons.get_json(COUPON_SERVICE, &path, CHANGES).await.map_err(|error| {
            tracing::debug!(%error, "the coupon service can't be asked for changes");
            Away
        })
    }

    async fn won(&self, retired_at: u64, coupon: CouponId, user: UserId) -> Won {
        let partition = self.log.partition_of(coupon);
        let won = store::won_before(&self.pool, partition, retired_at, coupon, user).await;
        won.unwrap_or_else(|error| {
            tracing::warn!(%error, coupon.id = coupon.0, "a retired coupon's winners can't be asked for");
            Won::Unknown
        })
    }

    fn announced(&self) -> broadcast::Receiver<Bytes> {
        self.redis.subscribe(CHANGED)
    }
}
