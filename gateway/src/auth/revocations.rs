//! Logins that ended before their tokens did: logged out, a password changed, a stolen refresh token used.
//!
//! Invariants: a request is judged by what is known here, without asking anybody; what is known is forgotten only when
//! the last token of the login has expired, whatever Redis loses. Redis carries what the user service's database has
//! decided: a sorted set for those who come late, a channel for those who are there. A request takes no lock: it looks at
//! snapshots, and the one task that writes replaces them.

use std::array;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use platform::clock::Clock;
use platform::health::ComponentHandle;
use platform::lifecycle::BoxError;
use platform::redis::Redis;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// The user service's name of the set and of the channel.
pub const REVOKED_SESSIONS: &str = "firstcome:revoked-sessions";
/// How often Redis is asked whether it has as many as are known here: a message may have been lost. If not, everything
/// is read again.
const INTERVAL: Duration = Duration::from_secs(5);
/// How often everything is read in any case: two that differ may be of one number.
const WHOLE_INTERVAL: Duration = Duration::from_secs(60);
/// While it could not be read.
const RETRY: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(1);
/// Some 100 MB. More logins do not end within the life of an access token, unless somebody fills Redis.
const MOST: usize = 1_000_000;
/// So that one more copies a small part of what is known. A byte tells them apart.
const SHARDS: usize = 256;
/// Knuth's: 2^64 over the golden ratio.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

/// Sessions, with the unix milliseconds at which each may be forgotten.
type Sessions = HashMap<Arc<str>, u64>;

/// Sessions whose tokens no longer count.
#[derive(Debug)]
pub struct Revocations {
    shards: [ArcSwap<Sessions>; SHARDS],
    /// Most of the time there is nothing to look up.
    count: AtomicUsize,
}

impl Default for Revocations {
    fn default() -> Self {
        Self { shards: array::from_fn(|_| ArcSwap::default()), count: AtomicUsize::new(0) }
    }
}

impl Revocations {
    #[must_use]
    pub fn is_revoked(&self, session: &str) -> bool {
        self.count.load(Relaxed) > 0 && self.shards[shard(session)].load().contains_key(session)
    }

    pub(crate) fn add(&self, revoked: impl IntoIterator<Item = (Arc<str>, u64)>, now_ms: u64) {
        let mut news: HashMap<usize, Sessions> = HashMap::new();
        let mut count = self.count.load(Relaxed);
        for (session, until_ms) in revoked {
            let index = shard(&session);
            let known = self.shards[index].load().get(&session).copied();
            // The later time counts.
            if until_ms > now_ms.max(known.unwrap_or_default()) && (known.is_some() || count < MOST) {
                count += usize::from(known.is_none());
                let until = news.entry(index).or_default().entry(session).or_default();
                *until = until_ms.max(*until);
            }
        }
        for (index, news) in news {
            let mut sessions = Sessions::clone(&self.shards[index].load());
            sessions.extend(news);
            self.shards[index].store(Arc::new(sessions));
        }
        self.recount();
    }

    fn forget(&self, now_ms: u64) {
        for shard in &self.shards {
            let sessions = shard.load();
            if sessions.values().any(|until_ms| *until_ms <= now_ms) {
                let left = sessions.iter().filter(|(_, until_ms)| **until_ms > now_ms);
                shard.store(Arc::new(
                    left.map(|(session, until_ms)| (Arc::clone(session), *until_ms)).collect(),
                ));
            }
        }
        self.recount();
    }

    fn recount(&self) {
        self.count.store(self.shards.iter().map(|shard| shard.load().len()).sum(), Relaxed);
    }

    /// Hears of revocations for as long as the process lives. `name` is [`REVOKED_SESSIONS`], but for tests that share a
    /// server.
    pub async fn follow(
        self: Arc<Self>,
        redis: Redis,
        name: &'static str,
        clock: Clock,
        health: ComponentHandle,
        stop: CancellationToken,
    ) -> Result<(), BoxError> {
        // Before the first read, so that nothing falls between.
        let mut messages = redis.subscribe(name);
        let mut master = redis.watch_epoch();
        // When everything has to be read.
        let mut whole_at = Instant::now();
        loop {
            let now_ms = clock.now_ms();
            self.forget(now_ms);
            let known = self.count.load(Relaxed);
            let rest = if Instant::now() < whole_at && count(&redis, name, now_ms).await == Some(known) {
                INTERVAL
            } else if let Some(revoked) = read(&redis, name, now_ms).await {
                self.add(revoked, now_ms);
                whole_at = Instant::now() + WHOLE_INTERVAL;
                health.up();
                INTERVAL
            } else {
                health.down("Redis does not answer; logins that end now are not heard of");
                whole_at = Instant::now();
                RETRY
            };
            #[expect(clippy::cast_precision_loss, reason = "a gauge is a double")]
            metrics::gauge!("firstcome_gateway_revoked_sessions").set(self.count.load(Relaxed) as f64);
            let again = sleep(rest);
            tokio::pin!(again);
            loop {
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    () = &mut again => break,
                    changed = master.changed() => {
                        changed?;
                        whole_at = Instant::now();
                        break;
                    }
                    message = messages.recv() => match message {
                        Ok(message) => self.add(parse(&message), clock.now_ms()),
                        // Too many at once: they are all in the set.
                        Err(RecvError::Lagged(_)) => {
                            whole_at = Instant::now();
                            break;
                        }
                        Err(RecvError::Closed) => {
                            stop.cancelled().await;
                            return Ok(());
                        }
                    },
                }
            }
        }
    }
}

/// By its end, which is random.
fn shard(session: &str) -> usize {
    let end = session.as_bytes().last_chunk().map_or(0, |end| u64::from_le_bytes(*end));
    usize::from(end.wrapping_mul(SPREAD).to_be_bytes()[0])
}

/// `SID EXPIRY_MS`
fn parse(message: &Bytes) -> Option<(Arc<str>, u64)> {
    let (session, until_ms) = std::str::from_utf8(message).ok()?.split_once(' ')?;
    Some((session.into(), until_ms.parse().ok()?))
}

/// How many still count; `None` if Redis does not answer.
async fn count(redis: &Redis, name: &str, now_ms: u64) -> Option<usize> {
    let mut command = ::redis::cmd("ZCOUNT");
    command.arg(name).arg(format!("({now_ms}")).arg("+inf");
    redis
        .attempt("revoked sessions", PATIENCE, async |connection| command.query_async(connection).await)
        .await
}

/// Everything that still counts; `None` if Redis does not answer.
async fn read(redis: &Redis, name: &str, now_ms: u64) -> Option<Vec<(Arc<str>, u64)>> {
    let mut command = ::redis::cmd("ZRANGEBYSCORE");
    command.arg(name).arg(format!("({now_ms}")).arg("+inf").arg("WITHSCORES").arg("LIMIT").arg(0).arg(MOST);
    let revoked: Vec<(String, u64)> = redis
        .attempt("revoked sessions", PATIENCE, async |connection| command.query_async(connection).await)
        .await?;
    Some(revoked.into_iter().map(|(session, until)| (session.into(), until)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_revoked_until_its_last_token_has_expired() {
        let revocations = Revocations::default();
        assert!(!revocations.is_revoked("a"));
        let message = |text: &str| parse(&Bytes::copy_from_slice(text.as_bytes()));
        revocations.add(message("a 1000"), 500);
        revocations.add(message("b 400"), 500);
        for rubbish in ["", "a", "a b", "a -1", "\u{0}"] {
            revocations.add(message(rubbish), 500);
        }
        assert!(revocations.is_revoked("a"));
        assert!(!revocations.is_revoked("b"), "nothing of it is left to refuse");
        revocations.add(message("a 700"), 500);
        revocations.forget(900);
        assert!(revocations.is_revoked("a"), "the later time counts");
        revocations.forget(1_000);
        assert!(!revocations.is_revoked("a"));
        assert_eq!(revocations.count.load(Relaxed), 0);
    }

    #[test]
    fn what_is_known_is_bounded() {
        let revocations = Revocations::default();
        revocations.add([("a".into(), 1_000)], 0);
        revocations.count.store(MOST, Relaxed); // as if there were so many
        revocations.add([("b".into(), 1_000), ("a".into(), 2_000)], 0);
        assert!(!revocations.is_revoked("b"));
        revocations.forget(1_500);
        assert!(revocations.is_revoked("a"), "one that is known is no more");
    }

    #[test]
    fn no_part_is_much_larger_than_the_others() {
        let mut sizes = [0; SHARDS];
        for _ in 0..100 * SHARDS {
            sizes[shard(&format!("{:032x}", rand::random::<u128>()))] += 1;
        }
        assert!(sizes.iter().all(|size| (20..300).contains(size)), "{sizes:?}");
    }
}
