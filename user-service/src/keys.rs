//! The Ed25519 keys behind the access tokens. Invariants: a token is signed only with the set's signing key, and every
//! key of the set is published, so a key is known to verifiers before its first use and after its last; a set is
//! replaced as a whole, so nobody ever sees half of a change.

use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::EncodingKey;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use self::store::StoreError;

mod store;
mod watch;

pub use watch::follow;

/// A private key and the name by which tokens refer to it.
#[derive(Clone, Debug)]
pub struct SigningKey {
    pub kid: String,
    pub encoding: EncodingKey,
    public: [u8; 32],
}

impl SigningKey {
    /// None if the public half is another key's.
    fn new(kid: String, seed: &[u8], public: [u8; 32]) -> Option<Self> {
        let pair = Ed25519KeyPair::from_seed_and_public_key(seed, &public).ok()?;
        debug_assert_eq!(pair.public_key().as_ref(), public);
        let encoding = EncodingKey::from_ed_der(pair.to_pkcs8v1().ok()?.as_ref());
        Some(Self { kid, encoding, public })
    }

    fn jwk(&self) -> Jwk {
        Jwk {
            kty: "OKP".to_owned(),
            crv: "Ed25519".to_owned(),
            alg: "EdDSA".to_owned(),
            usage: "sig".to_owned(),
            kid: self.kid.clone(),
            x: URL_SAFE_NO_PAD.encode(self.public),
        }
    }
}

/// All keys of one moment: the one that signs, and what is published.
#[derive(Clone, Debug)]
pub struct KeySet {
    pub signing: SigningKey,
    /// Since when it signs, in unix milliseconds.
    pub since_ms: u64,
    published: JwkSet,
}

impl KeySet {
    /// The set of a key store's file, read once.
    pub fn open(path: &str) -> Result<Self, StoreError> {
        Self::parse(&store::read(path)?)
    }

    /// The set that a key store's content describes.
    pub fn parse(content: &[u8]) -> Result<Self, StoreError> {
        store::parse(content)
    }

    #[must_use]
    pub fn published(&self) -> &JwkSet {
        &self.published
    }
}

/// The set in force.
#[derive(Debug)]
pub struct Keys(ArcSwap<KeySet>);

impl Keys {
    #[must_use]
    pub fn new(set: KeySet) -> Self {
        Self(ArcSwap::from_pointee(set))
    }

    #[must_use]
    pub fn current(&self) -> Arc<KeySet> {
        self.0.load_full()
    }

    fn replace(&self, set: KeySet) {
        self.0.store(Arc::new(set));
    }
}

/// A JSON Web Key Set (RFC 7517).
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct JwkSet {
    pub keys: Vec<Jwk>,
}

/// A public Ed25519 key (RFC 8037).
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Jwk {
    #[schema(example = "OKP")]
    pub kty: String,
    #[schema(example = "Ed25519")]
    pub crv: String,
    #[schema(example = "EdDSA")]
    pub alg: String,
    #[serde(rename = "use")]
    #[schema(example = "sig")]
    pub usage: String,
    /// The key's name in a token's header.
    #[schema(example = "21fe31dfa154a261")]
    pub kid: String,
    /// The public key, base64url.
    #[schema(example = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")]
    pub x: String,
}

#[cfg(test)]
pub(crate) mod tests;
