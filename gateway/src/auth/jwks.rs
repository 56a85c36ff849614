//! The user service's public keys, kept fresh.
//!
//! Invariants: the last good set stays until a better one comes; however many tokens name unknown keys,
//! the user service is asked by one task alone and at most once in the configured interval, and only so many
//! requests wait for its answer as the gateway can spare. A token of a known key never waits.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use platform::health::ComponentHandle;
use platform::lifecycle::BoxError;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::balance::Balancer;
use crate::proxy::body::RequestBody;
use crate::proxy::{Attempts, Plan, Proxy};

/// A key set of two keys is some 300 bytes.
const MAX_BYTES: usize = 64 * 1024;
/// RFC 8032, 5.1.5.
const ED25519_BYTES: usize = 32;
/// How soon to ask again while there is no key at all.
const FIRST_RETRY: Duration = Duration::from_millis(100);
/// For one question, from the first instance that discovery names to the answer's last byte: milliseconds, unless the
/// user service hangs.
const FETCH_LIMIT: Duration = Duration::from_secs(2);
/// How long a request waits for keys that are being fetched because of it.
const PATIENCE: Duration = Duration::from_secs(1);

type Keys = HashMap<String, Arc<DecodingKey>>;

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

/// Where the key set is.
#[derive(Debug)]
pub struct Source {
    pub balancer: Arc<Balancer>,
    pub path: String,
    pub proxy: Arc<Proxy>,
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

    /// Whether the set has the key now.
    pub fn knows(&self, kid: &str) -> bool {
        self.keys.load().contains_key(kid)
    }

    /// The key of this id, asked for once if it is unknown.
    pub async fn find(&self, kid: &str) -> Result<Arc<DecodingKey>, Missing> {
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
        while !stop.is_cancelled() {
            let fetched = tokio::select! {
                () = stop.cancelled() => break,
                fetched = timeout(FETCH_LIMIT, source.fetch()) => fetched,
            };
            let fetched = fetched.unwrap_or_else(|_| Err("no answer in time".into()));
            let good = fetched.is_ok();
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

            let rest = if has_keys { schedule.min_interval } else { FIRST_RETRY };
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

impl Source {
    async fn fetch(&self) -> Result<Keys, BoxError> {
        // At the start discovery has yet to answer.
        self.balancer.populated().await;
        let request = Request::get(self.path.as_str()).body(RequestBody::empty())?;
        let answer =
            self.proxy.forward(&self.balancer, request, &Plan::default(), &mut Attempts::default()).await?;
        let status = answer.response.status();
        if status != StatusCode::OK {
            return Err(format!("status {status}").into());
        }
        let body = Limited::new(answer.response.into_body(), MAX_BYTES).collect().await?.to_bytes();
        answer.lease.release();
        let keys = parse(&body)?;
        if keys.is_empty() {
            return Err("no Ed25519 signing key in the set".into());
        }
        Ok(keys)
    }
}

/// The keys that can be used; one that can't costs the others nothing (RFC 7517, 5).
fn parse(body: &[u8]) -> Result<Keys, BoxError> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<Value>,
    }
    let set: Set = serde_json::from_slice(body)?;
    let mut keys = Keys::new();
    for jwk in set.keys {
        let kid = jwk["kid"].as_str().unwrap_or_default().to_owned();
        match usable(jwk) {
            Ok(key) => drop(keys.insert(kid, Arc::new(key))),
            Err(problem) => tracing::warn!(kid, %problem, "a key of the set is left out"),
        }
    }
    Ok(keys)
}

fn usable(jwk: Value) -> Result<DecodingKey, BoxError> {
    let jwk: Jwk = serde_json::from_value(jwk)?;
    let ed25519 = matches!(&jwk.algorithm, AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519);
    if !ed25519 || !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
        return Err("is no Ed25519 signing key".into());
    }
    if jwk.common.key_id.is_none() {
        return Err("has no id that a token could name".into());
    }
    let key = DecodingKey::from_jwk(&jwk)?;
    if key.try_get_as_bytes()?.len() != ED25519_BYTES {
        return Err("has the wrong length".into());
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_key_that_cannot_be_used_costs_the_others_nothing() {
        let good = |kid: &str| json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
        let with = |key: &str, value: Value| {
            let mut jwk = good("bad");
            jwk[key] = value;
            jwk
        };
        let set = json!({"keys": [
            good("first"),
            with("kty", json!("PQC")),
            with("crv", json!("Ed999")),
            with("x", json!("no base64!")),
            with("x", json!("AAAA")),
            with("x", Value::Null),
            with("use", json!("enc")),
            with("kid", Value::Null),
            with("kid", json!(7)),
            json!({"kty": "RSA", "kid": "bad", "n": "AQAB", "e": "AQAB"}),
            json!("rubbish"),
            good("last"),
        ]});
        let keys = parse(set.to_string().as_bytes()).unwrap();
        let mut kids: Vec<&str> = keys.keys().map(String::as_str).collect();
        kids.sort_unstable();
        assert_eq!(kids, ["first", "last"]);
        assert!(parse(b"{}").is_err());
    }
}
