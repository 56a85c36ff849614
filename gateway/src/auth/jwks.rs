//! An issuer's public keys, kept fresh: as a rule the user service's.
//!
//! Invariants: the last good set stays until a better one comes; however many tokens name unknown keys,
//! the issuer is asked by one task alone and at most once in the configured interval, and only so many
//! requests wait for its answer as the gateway can spare. A token of a known key never waits.

pub mod key;
mod source;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use arc_swap::ArcSwap;
use platform::health::ComponentHandle;
use platform::lifecycle::BoxError;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use key::{Key, Keys};
pub use source::{Place, Source};

/// How soon to ask again while there is no key at all; twice as long each time.
const FIRST_RETRY: Duration = Duration::from_millis(100);
/// An issuer that stays away is not asked more often than that.
const LAST_RETRY: Duration = Duration::from_secs(1);
/// How long a request waits for keys that are being fetched because of it.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Jwks {
    keys: ArcSwap<Keys>,
    /// A token named a key that is not known.
    wanted: Notify,
    /// Set for the interval after each question, when nobody asks again.
    resting: AtomicBool,
    /// The last question was answered: a key that is not in the set does not exist.
    answered: AtomicBool,
    rounds: watch::Sender<u64>,
    /// Places for those who wait for an answer; each of them holds a place of the gateway's too.
    waiting: Semaphore,
}

#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    /// Without any need.
    pub refresh: Duration,
    /// At most, whatever tokens come.
    pub min_interval: Duration,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Missing {
    /// The key set could not be looked at: nothing can be said about the token.
    Unsettled,
    UnknownKey,
}

impl Jwks {
    /// `max_waiting`: how many requests may wait for keys at once.
    pub fn new(max_waiting: usize) -> Arc<Self> {
        Arc::new(Self {
            keys: ArcSwap::default(),
            wanted: Notify::new(),
            resting: AtomicBool::new(false),
            answered: AtomicBool::new(false),
            rounds: watch::Sender::new(0),
            waiting: Semaphore::new(max_waiting.min(Semaphore::MAX_PERMITS)),
        })
    }

    /// Whether the set has the key now, and under this id.
    pub fn knows(&self, kid: &str, key: &Arc<Key>) -> bool {
        self.keys.load().get(kid) == Some(key)
    }

    /// The key of this id, asked for once if it is unknown.
    pub async fn find(&self, kid: &str) -> Result<Arc<Key>, Missing> {
        if let Some(key) = self.keys.load().get(kid) {
            return Ok(Arc::clone(key));
        }
        if !self.resting.load(SeqCst) {
            let _place = self.waiting.try_acquire().map_err(|_| Missing::Unsettled)?;
            let mut rounds = self.rounds.subscribe(); // before the wish, so that its fulfilment is not missed
            self.wanted.notify_one();
            timeout(PATIENCE, rounds.changed()).await.map_err(|_| Missing::Unsettled)?.ok();
        }
        match self.keys.load().get(kid) {
            Some(key) => Ok(Arc::clone(key)),
            None if self.answered.load(SeqCst) => Err(Missing::UnknownKey),
            None => Err(Missing::Unsettled),
        }
    }

    /// The only one who asks.
    pub async fn follow(
        self: Arc<Self>,
        source: Source,
        schedule: Schedule,
        health: ComponentHandle,
        stop: CancellationToken,
    ) -> Result<(), BoxError> {
        let mut retry = FIRST_RETRY;
        while !stop.is_cancelled() {
            let fetched = tokio::select! {
                () = stop.cancelled() => break,
                fetched = source.fetch() => fetched,
            };
            let good = fetched.is_ok();
            let outcome = if good { "fetched" } else { "failed" };
            metrics::counter!("firstcome_gateway_key_set_fetches_total", "outcome" => outcome).increment(1);
            match fetched {
                Ok(keys) => {
                    self.keys.store(Arc::new(keys));
                    health.up();
                }
                Err(error) => tracing::warn!(error = %error, "key set not fetched, the last good one stays"),
            }
            let has_keys = !self.keys.load().is_empty();
            if !has_keys {
                health.down("no key set fetched yet");
            }
            self.answered.store(good, SeqCst);
            self.resting.store(has_keys, SeqCst);
            self.rounds.send_modify(|round| *round += 1);

            let rest = if has_keys { schedule.min_interval } else { retry };
            retry = (retry * 2).min(LAST_RETRY);
            let more = if good { schedule.refresh.saturating_sub(rest) } else { Duration::ZERO };
            tokio::select! {
                () = stop.cancelled() => break,
                () = sleep(rest) => {}
            }
            self.resting.store(false, SeqCst);
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.wanted.notified() => {}
                () = sleep(more) => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
