//! The user service's public keys, kept fresh.
//!
//! Invariants: the last good set stays until a better one comes; however many tokens name unknown keys,
//! the user service is asked by one task alone and at most once in the configured interval.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use platform::health::ComponentHandle;
use platform::lifecycle::BoxError;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::balance::Balancer;
use crate::proxy::body::RequestBody;
use crate::proxy::{Attempts, Proxy};

/// A key set of two keys is some 300 bytes.
const MAX_BYTES: usize = 64 * 1024;
/// How soon to ask again while there is no key at all.
const FIRST_RETRY: Duration = Duration::from_millis(250);
/// How long a request waits for keys that are being fetched because of it.
const PATIENCE: Duration = Duration::from_secs(2);

type Keys = HashMap<String, Arc<DecodingKey>>;

#[derive(Debug)]
pub struct Jwks {
    keys: ArcSwap<Keys>,
    /// A token named a key that is not known.
    wanted: Notify,
    /// Set for the interval after each question, when unknown keys are simply unknown.
    resting: AtomicBool,
    rounds: watch::Sender<u64>,
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
    /// No set was ever fetched: nothing can be said about any token.
    NoKeys,
    UnknownKey,
}

impl Jwks {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            keys: ArcSwap::default(),
            wanted: Notify::new(),
            resting: AtomicBool::new(false),
            rounds: watch::Sender::new(0),
        })
    }

    /// The key of this id, asked for once if it is unknown.
    pub async fn find(&self, kid: &str) -> Result<Arc<DecodingKey>, Missing> {
        if let Some(key) = self.keys.load().get(kid) {
            return Ok(Arc::clone(key));
        }
        if !self.resting.load(SeqCst) {
            let mut rounds = self.rounds.subscribe(); // before the wish, so that its fulfilment is not missed
            self.wanted.notify_one();
            let _ = timeout(PATIENCE, rounds.changed()).await;
        }
        let keys = self.keys.load();
        if keys.is_empty() {
            return Err(Missing::NoKeys);
        }
        keys.get(kid).map(Arc::clone).ok_or(Missing::UnknownKey)
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
                fetched = source.fetch() => fetched,
            };
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
        let request = Request::get(self.path.as_str()).body(RequestBody::empty())?;
        let answer = self.proxy.forward(&self.balancer, request, &mut Attempts::default()).await?;
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

fn parse(body: &[u8]) -> Result<Keys, BoxError> {
    let set: JwkSet = serde_json::from_slice(body)?;
    let mut keys = Keys::new();
    for jwk in &set.keys {
        if let (Some(kid), true) = (&jwk.common.key_id, is_ed25519_signing_key(jwk)) {
            keys.insert(kid.clone(), Arc::new(DecodingKey::from_jwk(jwk)?));
        }
    }
    Ok(keys)
}

fn is_ed25519_signing_key(jwk: &Jwk) -> bool {
    let ed25519 = matches!(&jwk.algorithm, AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519);
    ed25519 && matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature))
}
