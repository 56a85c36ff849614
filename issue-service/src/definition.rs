//! Definitions on their way into the log: looked up aside in Redis, asked of the coupon service, appended.
//!
//! The coupon service decides what a definition says, the log when it takes force. Redis is no authority: a
//! definition from it counts only with the coupon service's MAC.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hmac::{Hmac, Mac as _};
use parking_lot::Mutex;
use platform::config::Secret;
use platform::lifecycle::BoxError;
use serde::Deserialize;
use sha2::Sha256;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::control::{Guard, without};
use crate::ids::{CouponId, MAX_ID};
use crate::ledger::partition::{Partition, holding};
use crate::ledger::record::MAX_STOCK;
use crate::ledger::{Definition, Record};
use crate::outside::{Away, Outside, Told};

/// How long claims on an unknown coupon wait for its definition to be found.
const LOOK_UP: Duration = Duration::from_millis(250);
/// How much of it the cache may take: without an answer by then it is a miss.
const CACHE: Duration = Duration::from_millis(50);
/// How long a look-up's answer, "no such coupon" included, is kept for others.
const KEPT: Duration = Duration::from_secs(1);
/// Between two questions for changed definitions, and at least, if changes are announced.
const POLL: Duration = Duration::from_secs(1);
const PACE: Duration = Duration::from_millis(50);
/// Versions are close to milliseconds; two instances of the coupon service may differ by this much.
const OVERLAP: u64 = 60_000;

/// A definition as Redis caches it.
#[derive(Debug, Deserialize)]
struct Cached {
    #[serde(flatten)]
    told: Told,
    mac: String,
}

#[derive(Debug)]
pub struct Definitions<O> {
    shared: Arc<Shared<O>>,
}

impl<O> Clone for Definitions<O> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

#[derive(Debug)]
struct Shared<O> {
    outside: Arc<O>,
    mac_secret: Secret,
    partitions: Arc<[Partition]>,
    looked_up: moka::future::Cache<CouponId, Option<Definition>>,
    /// Obtained and not yet applied by this process's ledger.
    newer: Mutex<HashMap<CouponId, Definition>>,
    /// One of them was applied.
    arrived: Notify,
}

impl<O: Outside> Definitions<O> {
    pub fn new(outside: Arc<O>, mac_secret: Secret, partitions: Arc<[Partition]>) -> Self {
        let looked_up = moka::future::Cache::builder().max_capacity(100_000).time_to_live(KEPT).build();
        let shared = Shared {
            outside,
            mac_secret,
            partitions,
            looked_up,
            newer: Mutex::default(),
            arrived: Notify::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Looks a coupon up that the ledger lacks, once for all who ask, and sends what it finds on its way into
    /// the log. `None`: the coupon service knows no such coupon.
    pub async fn obtain(&self, coupon: CouponId) -> Result<Option<Definition>, Away> {
        let look_up = async {
            let found = tokio::time::timeout(LOOK_UP, self.shared.look_up(coupon)).await;
            found.unwrap_or(Err(Away))
        };
        let found = self.shared.looked_up.try_get_with(coupon, look_up).await.map_err(|away| *away)?;
        if let Some(definition) = found {
            self.shared.announce(definition);
        }
        Ok(found)
    }

    /// The version of a definition that was obtained and is not in force here yet; 0 if there is none.
    pub fn newest_known(&self, coupon: CouponId) -> u64 {
        self.shared.newer.lock().get(&coupon).map_or(0, |newer| newer.version)
    }

    /// Resolves when no definition above this version is on its way any longer.
    pub async fn brought(&self, coupon: CouponId, version: u64) {
        loop {
            let mut arrived = pin!(self.shared.arrived.notified());
            arrived.as_mut().enable();
            if self.newest_known(coupon) <= version {
                return;
            }
            arrived.await;
        }
    }

    /// Asks for changed definitions each second, and soon after a change is announced.
    pub async fn follow_changes(self) {
        let stop = self.shared.outside.stop();
        let mut announced = self.shared.outside.announced();
        let (mut seen, mut asked, mut away) = (0, Instant::now(), false);
        let mut tick = tokio::time::interval(POLL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = announced.recv() => {
                    // One question brings all changes, whatever was announced and however often.
                    while announced.try_recv().is_ok() {}
                    tick.reset_at(asked + PACE);
                }
                _ = tick.tick() => {
                    asked = Instant::now();
                    let changed = stop.run_until_cancelled(self.shared.changed_since(seen)).await;
                    match changed {
                        Some(Ok(version)) => {
                            seen = version.saturating_sub(OVERLAP);
                            if std::mem::take(&mut away) {
                                tracing::info!("the coupon service tells of changed definitions again");
                            }
                        }
                        Some(Err(Away)) => {
                            metrics::counter!("firstcome_definition_questions_failed_total").increment(1);
                            if !std::mem::replace(&mut away, true) {
                                tracing::warn!(
                                    "the coupon service does not tell of changed definitions: what is in force \
                                     stays, and unknown coupons can't be claimed"
                                );
                            }
                        }
                        None => {}
                    }
                }
            }
        }
    }
}

impl<O: Outside> Shared<O> {
    async fn look_up(&self, coupon: CouponId) -> Result<Option<Definition>, Away> {
        match self.cached(coupon).await {
            Some(definition) => Ok(Some(definition)),
            // The coupon service fills the cache as it answers.
            None => self.ask(coupon).await,
        }
    }

    async fn cached(&self, coupon: CouponId) -> Option<Definition> {
        let text = tokio::time::timeout(CACHE, self.outside.cached(coupon)).await.ok().flatten();
        let cached: Cached = serde_json::from_str(&text?).ok()?;
        let genuine =
            cached.told.coupon_id == coupon && (is_genuine(&cached, &self.mac_secret) || without(Guard::Mac));
        if !genuine {
            tracing::warn!(
                coupon.id = coupon.0,
                "Redis holds a definition without a valid MAC; it is ignored"
            );
        }
        genuine.then(|| cached.told.definition()).flatten()
    }

    async fn ask(&self, coupon: CouponId) -> Result<Option<Definition>, Away> {
        match self.outside.told(coupon).await? {
            None => Ok(None),
            // One that can't be carried is not the same as none.
            Some(told) if told.coupon_id == coupon => told.definition().map(Some).ok_or(Away),
            Some(told) => {
                tracing::error!(coupon.id = coupon.0, told = told.coupon_id.0, "told of another coupon");
                Err(Away)
            }
        }
    }

    async fn changed_since(self: &Arc<Self>, version: u64) -> Result<u64, Away> {
        let changed = self.outside.changed_since(version).await?;
        for definition in changed.items.iter().filter_map(Told::definition) {
            self.announce(definition);
        }
        Ok(changed.version.max(version))
    }

    /// Sends a definition on its way into the log, unless it is in force or on its way already.
    fn announce(self: &Arc<Self>, definition: Definition) {
        if self.version_in_force(definition.coupon).is_some_and(|version| version >= definition.version) {
            return;
        }
        let on_its_way = {
            let mut newer = self.newer.lock();
            let known = newer.get(&definition.coupon).map(|known| known.version);
            if known.is_none_or(|known| known < definition.version) {
                newer.insert(definition.coupon, definition);
            }
            known.is_some()
        };
        if !on_its_way {
            let shared = self.clone();
            self.outside.spawn(async move { shared.bring_into_force(definition.coupon).await });
        }
    }

    /// One append in flight for a coupon, repeated with back-off until the ledger shows that version or a
    /// higher one.
    async fn bring_into_force(&self, coupon: CouponId) {
        let stop = self.outside.stop();
        let partition = holding(&self.partitions, coupon);
        let mut pause = Duration::from_millis(50);
        loop {
            let in_force = self.version_in_force(coupon);
            let wanted = {
                let mut newer = self.newer.lock();
                let Some(wanted) = newer.get(&coupon).copied() else { return };
                let done = in_force.is_some_and(|version| version >= wanted.version)
                    || partition.is_stopped()
                    || partition.with(|ledger| ledger.is_retired(coupon));
                if done {
                    newer.remove(&coupon);
                    self.arrived.notify_waiters();
                    return;
                }
                wanted
            };
            let attempt = async {
                let offset = self.outside.append(partition.id(), Record::Definition(wanted)).await?;
                partition.passed(offset + 1).await?;
                Ok::<_, BoxError>(())
            };
            let attempt = tokio::time::timeout(Duration::from_secs(11), attempt);
            let Some(result) = stop.run_until_cancelled(attempt).await else { return };
            if !matches!(result, Ok(Ok(()))) {
                tracing::warn!(
                    coupon.id = coupon.0,
                    version = wanted.version,
                    "a definition could not be appended; again"
                );
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(2));
            }
        }
    }

    fn version_in_force(&self, coupon: CouponId) -> Option<u64> {
        holding(&self.partitions, coupon).definition(coupon).map(|(definition, ..)| definition.version)
    }
}

impl Told {
    /// As the log can carry it; `None` (and an alarm) if it can't.
    fn definition(&self) -> Option<Definition> {
        let Self { coupon_id, version, quantity, starts_at, ends_at, closed } = *self;
        let ids = 1..=MAX_ID;
        if !ids.contains(&coupon_id.0) || !ids.contains(&version) || quantity > MAX_STOCK {
            tracing::error!(
                coupon.id = coupon_id.0,
                version,
                quantity,
                "a definition is out of range and was not appended"
            );
            return None;
        }
        Some(Definition { coupon: coupon_id, version, stock: quantity, starts_at, ends_at, closed })
    }
}

fn is_genuine(cached: &Cached, secret: &Secret) -> bool {
    let Told { coupon_id, version, quantity, starts_at, ends_at, closed } = cached.told;
    let signed = format!("{coupon_id}|{version}|{quantity}|{starts_at}|{ends_at}|{}", u8::from(closed));
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()) else { return false };
    mac.update(signed.as_bytes());
    hex::decode(&cached.mac).is_ok_and(|given| mac.verify_slice(&given).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_coupon_services_own_mac_is_genuine() {
        let secret: Secret = serde_json::from_str("\"0123456789abcdef0123456789abcdef\"").unwrap();
        let text = r#"{"couponId":7,"version":3,"quantity":10,"startsAt":1,"endsAt":2,"closed":false,"name":"x","mac":"MAC"}"#;
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()).unwrap();
        mac.update(b"7|3|10|1|2|0");
        let mac = hex::encode(mac.finalize().into_bytes());
        let read = |text: &str| serde_json::from_str::<Cached>(text).unwrap();
        assert!(is_genuine(&read(&text.replace("MAC", &mac)), &secret));
        assert!(!is_genuine(
            &read(&text.replace("MAC", &mac).replace("\"quantity\":10", "\"quantity\":11")),
            &secret
        ));
        assert!(!is_genuine(&read(text), &secret));
        let tombstone = r#"{"couponId":7,"version":4,"tombstone":true}"#;
        assert!(serde_json::from_str::<Cached>(tombstone).is_err(), "a tombstone is a miss");
    }
}
