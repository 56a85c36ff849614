//! This service's side of Redis: definitions that it caches for the issue service, and counts that the issue service
//! publishes for it. Invariants: a cached definition carries a MAC and is never older than a change that evicted it
//! (while the tombstone lives); a Redis that is late or away fails no request.

use std::time::Duration;

use hmac::{Hmac, Mac};
use platform::config::Secret;
use platform::redis::Redis;
use redis::Script;
use serde::Serialize;
use sha2::Sha256;

use crate::coupon::{Coupon, CouponId, Definition};

/// Announces changed coupons; the payload is the id in decimal.
pub const CHANGED: &str = "coupon.changed";

const FILL: &str = include_str!("cache/fill.lua");
const EVICT: &str = include_str!("cache/evict.lua");

/// To be loaded on each new connection.
pub const SCRIPTS: &[&str] = &[FILL, EVICT];

/// Longer than any request that read the old definition can still take to cache it.
const TOMBSTONE_TTL: Duration = Duration::from_secs(60);
/// A change is in MySQL already and reaches the issue service by its own question within a second or two, so an
/// administrator doesn't wait long for a late Redis.
const PATIENCE: Duration = Duration::from_millis(300);
/// Keys in one MGET: Redis serves nobody else meanwhile.
const CHUNK: usize = 500;

#[derive(Clone)]
pub struct Cache {
    redis: Redis,
    secret: Secret,
    ttl: Duration,
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").field("ttl", &self.ttl).finish_non_exhaustive()
    }
}

/// A definition as it lies in Redis.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    #[serde(flatten)]
    definition: Definition,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<u64>,
    mac: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Tombstone {
    coupon_id: CouponId,
    version: u64,
    tombstone: bool,
}

impl Cache {
    #[must_use]
    pub fn new(redis: Redis, secret: Secret, ttl: Duration) -> Self {
        Self { redis, secret, ttl }
    }

    /// Caches the definition, unless a newer one or a newer tombstone is there.
    pub async fn fill(&self, coupon: &Coupon) {
        let definition = coupon.definition;
        let entry = Entry {
            definition,
            name: &coupon.name,
            event_id: coupon.event_id,
            mac: mac(&self.secret, &definition),
        };
        let Ok(entry) = serde_json::to_string(&entry) else { return };
        let script = Script::new(FILL);
        self.redis
            .attempt("fill", PATIENCE, async |connection| {
                let mut call = script.key(info_key(definition.coupon_id));
                call.arg(definition.version).arg(entry).arg(milliseconds(self.ttl));
                call.invoke_async::<u8>(connection).await
            })
            .await;
    }

    /// Evicts what is older than `version` and tells every issue service to ask.
    pub async fn evict(&self, coupon_id: CouponId, version: u64) {
        let Ok(tombstone) = serde_json::to_string(&Tombstone { coupon_id, version, tombstone: true }) else {
            return;
        };
        let script = Script::new(EVICT);
        let evicted = self.redis.attempt("evict", PATIENCE, async |connection| {
            let mut call = script.key(info_key(coupon_id));
            call.arg(version).arg(tombstone).arg(milliseconds(TOMBSTONE_TTL));
            call.invoke_async::<u8>(connection).await
        });
        // In this order: whoever hears of the change must not find the old definition.
        if evicted.await.is_some() {
            self.announce(coupon_id).await;
        }
    }

    /// Tells every issue service to ask for this coupon.
    pub async fn announce(&self, coupon_id: CouponId) {
        self.redis
            .attempt("announce", PATIENCE, async |connection| {
                redis::cmd("PUBLISH").arg(CHANGED).arg(coupon_id.0).query_async::<u64>(connection).await
            })
            .await;
    }

    /// The counts as they are published, one for each coupon asked for; `None` if Redis did not answer.
    pub async fn published(&self, coupons: &[CouponId]) -> Option<Vec<Option<String>>> {
        let mut values = Vec::with_capacity(coupons.len());
        for chunk in coupons.chunks(CHUNK) {
            let keys: Vec<String> = chunk.iter().map(|id| count_key(*id)).collect();
            let chunk_values: Vec<Option<String>> = self
                .redis
                .attempt("read counts", PATIENCE, async |connection| {
                    redis::cmd("MGET").arg(&keys).query_async(connection).await
                })
                .await?;
            values.extend(chunk_values);
        }
        Some(values)
    }
}

/// Where a coupon's cached definition lies. The braces keep all keys of a coupon in one Cluster slot.
#[must_use]
pub fn info_key(coupon: CouponId) -> String {
    format!("coupon:{{{coupon}}}:info")
}

/// Where the issue service publishes a coupon's count.
#[must_use]
pub fn count_key(coupon: CouponId) -> String {
    format!("coupon:{{{coupon}}}:count")
}

/// HMAC-SHA256 over every field that decides a claim, in hex.
fn mac(secret: &Secret, definition: &Definition) -> String {
    let Definition { coupon_id, version, quantity, starts_at, ends_at, closed } = definition;
    let closed = u8::from(*closed);
    let text = format!("{coupon_id}|{version}|{quantity}|{starts_at}|{ends_at}|{closed}");
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
    let mut hmac =
        Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()).expect("HMAC takes keys of any length");
    hmac.update(text.as_bytes());
    hex::encode(hmac.finalize().into_bytes())
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mac_covers_every_deciding_field() {
        let secret: Secret = serde_json::from_str("\"0123456789abcdef0123456789abcdef\"").unwrap();
        let definition = Definition {
            coupon_id: CouponId(7),
            version: 1_700_000_000_000,
            quantity: 100,
            starts_at: 1_700_000_000_000,
            ends_at: 1_800_000_000_000,
            closed: false,
        };
        // printf '7|1700000000000|100|1700000000000|1800000000000|0' | openssl dgst -sha256 -hmac 0123...
        insta::assert_snapshot!(mac(&secret, &definition), @"864b571748c8959af1731283fcf6fac5adaf2450e3dc7472da4c4b855a9f1da7");
        let others = [
            Definition { coupon_id: CouponId(8), ..definition },
            Definition { version: 1_700_000_000_001, ..definition },
            Definition { quantity: 101, ..definition },
            Definition { starts_at: 1, ..definition },
            Definition { ends_at: 1_800_000_000_001, ..definition },
            Definition { closed: true, ..definition },
        ];
        for other in others {
            assert_ne!(mac(&secret, &other), mac(&secret, &definition));
        }
    }
}
