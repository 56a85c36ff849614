//! Tells the gateways which logins no longer count. Invariants: MySQL decides and Redis only carries, so nothing here can
//! fail or undo a revocation; while Redis answers, every revocation that matters is there within seconds, whatever it has
//! lost before.
//!
//! In Redis, [`REVOKED_SESSIONS`] is a sorted set of sessions, as tokens name them in `sid`, scored with the unix
//! millisecond at which each may be forgotten; and a channel on which each is told as `SID EXPIRY_MS`.

use std::sync::Arc;
use std::time::Duration;

use platform::clock::Clock;
use platform::health::ComponentHandle;
use platform::lifecycle::BoxError;
use platform::redis::Redis;
use redis::RedisResult;
use redis::aio::MultiplexedConnection;
use sqlx::MySqlPool;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::store::sessions::{self, Revoked};

/// The set, and the channel.
pub const REVOKED_SESSIONS: &str = "firstcome:revoked-sessions";

/// Between two times that everything is carried again: what a Redis that lost its memory, or was away, is behind at most.
const INTERVAL: Duration = Duration::from_secs(3);
/// Who logs out does not wait long for a late Redis: what it misses is carried within [`INTERVAL`].
const PATIENCE: Duration = Duration::from_millis(300);
/// In one command: Redis serves nobody else meanwhile.
const BATCH: u32 = 500;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Revocations {
    redis: Redis,
    name: Arc<str>,
}

impl Revocations {
    #[must_use]
    pub fn new(redis: Redis) -> Self {
        Self { redis, name: REVOKED_SESSIONS.into() }
    }

    /// Under another name, for tests that share a server.
    #[must_use]
    pub fn under(self, name: &str) -> Self {
        Self { name: name.into(), ..self }
    }

    /// Tells of revocations that were committed. What Redis does not take now, [`Revocations::run`] carries later.
    pub async fn announce(&self, revoked: &[Revoked]) {
        for some in revoked.chunks(BATCH as usize) {
            let told = self.redis.attempt("announce", PATIENCE, async |connection| {
                self.add_and_publish(some, connection).await
            });
            let outcome = if told.await.is_some() { "told" } else { "later" };
            metrics::counter!("user_revocations_total", "outcome" => outcome).increment(some.len() as u64);
        }
    }

    /// Carries everything that matters again and again until `stop`, at once when there is a new master.
    pub async fn run(
        self,
        pool: MySqlPool,
        clock: Clock,
        health: ComponentHandle,
        stop: CancellationToken,
    ) -> Result<(), BoxError> {
        let mut master = self.redis.watch_epoch();
        loop {
            let carried = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                carried = self.carry(&pool, clock.now_ms()) => carried,
            };
            match carried {
                Ok(true) => health.up(),
                Ok(false) => health.down("no answer from Redis; gateways hear of logouts when it is back"),
                Err(error) => tracing::warn!(error = %error, "revocations could not be read"),
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(INTERVAL) => {}
                changed = master.changed() => changed?,
            }
        }
    }

    /// Whether Redis took everything.
    async fn carry(&self, pool: &MySqlPool, now_ms: u64) -> Result<bool, sqlx::Error> {
        let mut after = Uuid::nil();
        let mut count = 0;
        loop {
            let some = sessions::revoked(pool, now_ms, after, BATCH).await?;
            let Some(last) = some.last() else { break };
            (after, count) = (last.sid, count + some.len());
            let added = self
                .redis
                .attempt("add", PATIENCE, async |connection| self.add(&some, connection).await)
                .await;
            match added {
                Some(0) => {}
                // Some were missing: nobody was told of them, or Redis has forgotten them and gateways may have, too.
                Some(_) => {
                    let told = self.redis.attempt("publish", PATIENCE, async |connection| {
                        self.add_and_publish(&some, connection).await
                    });
                    if told.await.is_none() {
                        return Ok(false);
                    }
                }
                None => return Ok(false),
            }
        }
        metrics::gauge!("user_revoked_sessions").set(count as f64);
        let forgotten = self.redis.attempt("forget", PATIENCE, async |connection| {
            let mut forget = redis::cmd("ZREMRANGEBYSCORE");
            forget.arg(&*self.name).arg("-inf").arg(now_ms).query_async::<u64>(connection).await
        });
        Ok(forgotten.await.is_some())
    }

    /// How many were new.
    async fn add(&self, revoked: &[Revoked], connection: &mut MultiplexedConnection) -> RedisResult<u64> {
        self.adding(revoked).query_async(connection).await
    }

    async fn add_and_publish(
        &self,
        revoked: &[Revoked],
        connection: &mut MultiplexedConnection,
    ) -> RedisResult<()> {
        // In this order: who hears of one and looks finds it.
        let mut pipe = redis::pipe();
        pipe.add_command(self.adding(revoked)).ignore();
        for one in revoked {
            let message = format!("{} {}", one.sid.simple(), one.until_ms);
            pipe.cmd("PUBLISH").arg(&*self.name).arg(message).ignore();
        }
        pipe.query_async(connection).await
    }

    fn adding(&self, revoked: &[Revoked]) -> redis::Cmd {
        let mut add = redis::cmd("ZADD");
        add.arg(&*self.name);
        for one in revoked {
            add.arg(one.until_ms).arg(one.sid.simple().to_string());
        }
        add
    }
}
