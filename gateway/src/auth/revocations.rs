//! Logins that ended before their tokens did: logged out, a password changed, a stolen refresh token used.
//!
//! Invariants: a request is judged by what is known here, without asking anybody; what is known is forgotten only when
//! the last token of the login has expired, whatever Redis loses. Redis carries what the user service's database has
//! decided: a sorted set for those who come late, a channel for those who are there.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::RwLock;
use platform::clock::Clock;
use platform::health::ComponentHandle;
use platform::lifecycle::BoxError;
use platform::redis::Redis;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// The user service's name of the set and of the channel.
pub const REVOKED_SESSIONS: &str = "firstcome:revoked-sessions";
/// How often everything is read again, in case a message was lost.
const INTERVAL: Duration = Duration::from_secs(5);
/// While it could not be read.
const RETRY: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(1);
/// Some 100 MB. More logins do not end within the life of an access token, unless somebody fills Redis.
const MOST: usize = 1_000_000;

/// Sessions whose tokens no longer count.
#[derive(Debug, Default)]
pub struct Revocations {
    /// With the unix milliseconds at which each may be forgotten.
    sessions: RwLock<HashMap<Box<str>, u64>>,
    /// Most of the time there is nothing to look up.
    any: AtomicBool,
}

impl Revocations {
    #[must_use]
    pub fn is_revoked(&self, session: &str) -> bool {
        self.any.load(Relaxed) && self.sessions.read().contains_key(session)
    }

    fn add(&self, revoked: impl IntoIterator<Item = (Box<str>, u64)>, now_ms: u64) {
        let mut sessions = self.sessions.write();
        for (session, until_ms) in revoked {
            if until_ms > now_ms && (sessions.len() < MOST || sessions.contains_key(&session)) {
                let known = sessions.entry(session).or_default();
                *known = until_ms.max(*known);
            }
        }
        self.any.store(!sessions.is_empty(), Relaxed);
    }

    fn forget(&self, now_ms: u64) {
        let mut sessions = self.sessions.write();
        sessions.retain(|_, until_ms| *until_ms > now_ms);
        self.any.store(!sessions.is_empty(), Relaxed);
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
        loop {
            let now_ms = clock.now_ms();
            let rest = match read(&redis, name, now_ms).await {
                Some(revoked) => {
                    self.add(revoked, now_ms);
                    health.up();
                    INTERVAL
                }
                None => {
                    health.down("Redis does not answer; logins that end now are not heard of");
                    RETRY
                }
            };
            self.forget(now_ms);
            #[expect(clippy::cast_precision_loss, reason = "a gauge is a double")]
            metrics::gauge!("firstcome_gateway_revoked_sessions").set(self.sessions.read().len() as f64);
            let again = sleep(rest);
            tokio::pin!(again);
            loop {
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    () = &mut again => break,
                    changed = master.changed() => {
                        changed?;
                        break;
                    }
                    message = messages.recv() => match message {
                        Ok(message) => self.add(parse(&message), clock.now_ms()),
                        // Too many at once: they are all in the set.
                        Err(RecvError::Lagged(_)) => break,
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

/// `SID EXPIRY_MS`
fn parse(message: &Bytes) -> Option<(Box<str>, u64)> {
    let (session, until_ms) = std::str::from_utf8(message).ok()?.split_once(' ')?;
    Some((session.into(), until_ms.parse().ok()?))
}

/// Everything that still counts; `None` if Redis does not answer.
async fn read(redis: &Redis, name: &str, now_ms: u64) -> Option<Vec<(Box<str>, u64)>> {
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
        assert!(!revocations.any.load(Relaxed));
    }
}
